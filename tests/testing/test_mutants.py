"""The default strategy finds every seeded bug within 100 schedules, from every seed, and nothing where there is none.

Over 30 seeds the hardest of them (an item, or a permit, that is handed to a waiter which was cancelled a moment
before) takes 84 schedules at worst and 16 in the median; 19 bugs show in the order of production already, or at the
second schedule.
"""

from __future__ import annotations

import mutants_events
import mutants_locks
import mutants_programs
import mutants_queues
import pytest
from mutants import Mutant

from swapco import testing
from swapco.testing.execution import Program
from swapco.testing.shrink import Shrunk, shrink
from swapco.testing.trace import FollowPath, complexity

MUTANTS: list[Mutant] = [
    *mutants_locks.MUTANTS,
    *mutants_events.MUTANTS,
    *mutants_queues.MUTANTS,
    *mutants_programs.MUTANTS,
]
SEEDS = range(5)
RIGHT = {(mutant.right, mutant.scenario, str(mutant.disturb)): mutant for mutant in MUTANTS}

each = pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])


@each
def test_the_bug_is_found_from_every_seed(mutant: Mutant) -> None:
    body = mutant.body(mutant.bug)
    for seed in SEEDS:
        result = testing.search(body, schedules=100, seed=seed, shrink_failure=False, save=False)
        assert result.failed, f"not found from seed {seed}"
        assert not isinstance(result.exception, testing.UncontrolledNondeterminism)


@each
def test_the_failure_is_shrunk_and_runs_again(mutant: Mutant) -> None:
    body = mutant.body(mutant.bug)
    result = testing.search(body, schedules=100, save=False)
    assert result.found is not None
    _, deviations, preemptions = result.found
    assert (result.preemptions, result.deviations) <= (preemptions, deviations)
    assert result.preemptions <= 3
    assert result.deviations <= 5
    assert result.schedule is not None
    again = testing.replay(body, result.schedule)
    assert type(again.exception) is type(result.exception)
    assert result.schedule.code in result.report


def shrunk(mutant: Mutant, seed: int) -> Shrunk:
    program = Program(mutant.body(mutant.bug))
    found = testing.search(program.body, schedules=100, seed=seed, shrink_failure=False, save=False)
    assert found.schedule is not None
    path = found.schedule.path
    outcome: Shrunk = program.session(lambda: shrink(program.execute, program.execute(FollowPath(path)), proof=2000))
    return outcome


def test_failures_are_shrunk_to_the_minimum_and_it_is_proved() -> None:
    """From every seed, in at most 200 replays; of those for which that is not enough, most with more of them.

    What is left: a buffer that forgets two of its waiters, with thousands of simpler schedules.
    """
    outcomes = [(mutant.name, shrunk(mutant, seed)) for mutant in MUTANTS for seed in SEEDS]
    simplest: dict[tuple[str, int | None], tuple[int, int]] = {}
    for name, outcome in outcomes:
        failure = name, outcome.execution.fingerprint
        here = complexity(outcome.execution)[:2]
        simplest[failure] = min(here, simplest.get(failure, here))
    minimal = [
        complexity(outcome.execution)[:2] == simplest[name, outcome.execution.fingerprint] for name, outcome in outcomes
    ]
    assert sum(minimal) >= 0.99 * len(outcomes)
    assert sum(outcome.proved for _, outcome in outcomes) >= 0.98 * len(outcomes)
    within = [outcome for _, outcome in outcomes if outcome.proved and not outcome.proof_replays]
    assert len(within) >= 0.94 * len(outcomes)
    assert sorted(outcome.replays for outcome in within)[len(within) // 2] <= 10


@pytest.mark.parametrize(
    "mutant", RIGHT.values(), ids=[f"{m.scenario.__name__}-{m.right.__name__}" for m in RIGHT.values()]
)
def test_nothing_is_found_in_what_is_right(mutant: Mutant) -> None:
    body = mutant.body(mutant.right)
    for seed in SEEDS:
        testing.search(body, schedules=100, seed=seed, save=False).check()
    proof = testing.verify(body, preemption_bound=mutant.bound, schedules=5_000, save=False).check()
    assert proof.exhausted
    assert proof.schedules > 1


def test_there_are_enough_of_them_and_most_need_another_order() -> None:
    assert len(MUTANTS) >= 40
    assert all(mutant.bug.__doc__ for mutant in MUTANTS)
    hidden = [mutant for mutant in MUTANTS if not testing.replay(mutant.body(mutant.bug), ()).failed]
    assert len(hidden) >= 24
