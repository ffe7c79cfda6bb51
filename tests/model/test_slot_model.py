"""Every interleaving of the slot's protocol: see ``slot_model`` for the model, and for what it leaves out.

What is checked, in every state and at every step:

- one owner; nobody is inside the scheduler, or changes what the scheduler knows, without the slot;
- a worker in user code is attached exactly as long as the word says so, revoked but not noticed included;
- each wait that was won is consumed exactly once, and so is each value and each cancellation;
- no fiber is queued twice, and no worker is given the slot without a fiber to run;
- nothing ends while something is runnable: no lost wake-up or cancellation, no detached fiber left behind, home never
  asleep with work; and from every state an end can be reached;
- whatever changes the word is a row of ``slot.TRANSITIONS``, done by whom it names; and each row happens.

Then the same programs on broken versions of the protocol: the model must find each bug, or it proves nothing.
"""

from __future__ import annotations

from functools import cache

import pytest
from explorer import Report, explore
from slot_model import HOME, PROGRAMS, SlotModel, State, Word

from swapco._core.slot import TRANSITIONS, SlotTransition


def rows_of(before: Word, after: Word) -> list[SlotTransition]:
    """The rows of the table that a change of the word may be."""
    return [
        row
        for row in TRANSITIONS
        if (row.mode_before, row.mode_after) == (before.mode, after.mode)
        and row.owner_before in ("any", side(before.owner))
        and row.owner_after in ("any", side(after.owner))
    ]


def side(owner: int) -> str:
    return "home" if owner == HOME else "worker"


def is_actor(row: SlotTransition, model: SlotModel, me: int, before: Word, after: Word) -> bool:
    """Is it up to this thread?  And is the worker the right one?"""
    match row.name:
        case "grant":
            return me == before.owner
        case "leave" | "enter":
            return me == before.owner == after.owner
        case "revoke":
            return me in (HOME, model.monitor) and after.stint == before.owner
        case "take_back":
            return me == after.owner == before.stint
        case "notice":
            return me == HOME
    raise AssertionError(f"a row that the model does not know: {row}")


@cache
def explored(name: str) -> tuple[Report[State], SlotModel]:
    model = SlotModel(PROGRAMS[name])
    return explore(model), model


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_interleaving_is_right(name):
    report, model = explored(name)
    assert report.failure is None, str(report)
    assert report.ends
    for me, before, after in model.changes:
        rows = rows_of(before, after)
        assert len(rows) == 1, f"{model.name(me)} changes {before} to {after}: {rows}"
        assert is_actor(rows[0], model, me, before, after), f"{model.name(me)} changes {before} to {after}: {rows[0]}"


def test_every_row_of_the_table_happens():
    _, model = explored("two in user code")
    assert {row for _, before, after in model.changes for row in rows_of(before, after)} == set(TRANSITIONS)


# the bug, and what the counterexample says
MUTANTS = {
    # the word
    "enter is a load and a store": "home runs, and the slot is 1's",
    "revokes in SCHED mode": "is inside the scheduler, and the slot is 0's, REVOKED",
    "notice is a store": "is inside the scheduler, and the slot is 0's",
    "who loses the notice thinks that it has the slot": "home runs, and the slot is 1's",
    "take_back does not compare the generation": "the slot is 1's",
    "a revocation does not wake home": "home is stuck at 'asleep'",
    # sleep and wake
    "wake before grant": "home is stuck at 'asleep'",
    "no look after sleeping = 1": "home is stuck at 'asleep'",
    "the counter is loaded after the look": "home is stuck at 'asleep'",
    "a wake does not add to the counter": "home is stuck at 'asleep'",
    # the inbox and the hub
    "no look after hub_idle": "home sleeps, and there is work",
    "noted is cleared before the eventfd is read": "home sleeps, and there is work",
    "the drain does not look at the wait": "runs again, and its wait is open",
    "who wins from outside does not post": "its wait is won by resume",
    # tokens and cancellations
    "the token is left after a claim that failed": "beside its token",
    "no look at the token after the open": "beside its token",
    "the canceller wins the wait and does not post": "its wait is won by cancel",
    # detached fibers and their workers
    "asks for the slot without a post": "is left behind, detached",
    "posts before it says what it wants": "is left behind, detached",
    "a detached fiber finishes itself": "changes the scheduler's state without the slot",
    "an ended worker is used again before the drain": "B calls end and is running",
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_model_finds_the_bug(bug):
    for program in PROGRAMS.values():
        report = explore(SlotModel(program, bug))
        if report.failure is not None:
            assert MUTANTS[bug] in report.failure.reason, str(report)
            assert report.failure.trace
            return
    pytest.fail(f"no program shows it: {bug}")
