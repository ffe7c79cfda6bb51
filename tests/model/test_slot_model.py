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
from slot_model import SlotModel
from slot_mutants import MUTANTS
from slot_programs import PROGRAMS
from slot_states import HOME, State, Word

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


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_model_finds_the_bug(bug):
    for program in PROGRAMS.values():
        report = explore(SlotModel(program, bug))
        if report.failure is not None:
            assert MUTANTS[bug] in report.failure.reason, str(report)
            assert report.failure.trace
            return
    pytest.fail(f"no program shows it: {bug}")
