"""Enumerations are complete, in order and without repetitions; what they prove is true."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toy import POINT, YIELD, Body, Program, Semaphore, Shared, World
from toy_programs import Fibers, main_of, programs

from swapco.testing.exhaust import DepthFirst, Enumeration, SimplestFirst, exhaust, prove_minimum, simpler_schedules
from swapco.testing.trace import (
    Complexity,
    Decision,
    Execution,
    FollowPath,
    UncontrolledNondeterminism,
    complexity,
    stripped,
)

FEW = settings(max_examples=40, deadline=None)
BOUND = st.none() | st.integers(0, 3)


def run_all(program: Program, search: Enumeration, limit: int | None = 1000) -> list[tuple[Complexity, object]]:
    """The complexity and the outcome of every schedule, in the order of the search.

    Of a random program there may be ``limit``, else another one is drawn.
    """
    seen = []
    for chooser in search:
        execution = program.execute(chooser)
        search.record(execution)
        seen.append((complexity(execution), program.state))
        if limit is not None:
            assume(len(seen) <= limit)
    assert search.exhausted
    assert search.schedules == len(seen)
    return seen


def lost_update(fibers: int = 2) -> Callable[[World], Body]:
    def main(world: World) -> Body:
        counter = Shared(world)
        left = Shared(world, fibers)

        def increment() -> Body:
            value = counter.get()
            yield POINT
            counter.set(value + 1)
            left.set(left.get() - 1)
            assert left.get() or counter.get() == fibers, "an update was lost"

        for _ in range(fibers):
            world.spawn(increment())
        yield from ()

    return main


def ordered(length: int) -> Callable[[World], Body]:
    """Fails without a preemption, but only if ``length`` fibers start in the reverse order."""

    def main(world: World) -> Body:
        seen = Shared(world, ())

        def fiber(number: int) -> Body:
            yield POINT
            seen.set((*seen.get(), number))
            assert seen.get() != tuple(reversed(range(length))), "in reverse order"

        for number in range(length):
            world.spawn(fiber(number))
        yield from ()

    return main


# --- what a path is


def test_a_schedule_is_named_by_its_path_without_the_zeros_at_the_end() -> None:
    assert stripped([0, 2, 0, 1, 0, 0]) == (0, 2, 0, 1)
    assert stripped([0, 0]) == ()


def test_simpler_is_fewer_preemptions_then_fewer_deviations_then_deviating_later() -> None:
    def execution(*choices: tuple[int, int]) -> Execution:
        return Execution([Decision((0, 1, 2), current, chosen, "") for current, chosen in choices])

    free, later, higher, twice, preempting = (
        execution((-1, 1), (0, 0)),
        execution((0, 0), (-1, 1)),
        execution((-1, 2), (0, 0)),
        execution((-1, 1), (-1, 1)),
        execution((0, 1), (0, 0)),
    )
    in_order = [later, free, higher, twice, preempting]
    assert sorted([preempting, twice, higher, free, later], key=complexity) == in_order


def test_following_a_path_that_does_not_fit_is_noticed() -> None:
    program = Program(lost_update())
    fitting, not_fitting = FollowPath([0, 1]), FollowPath([0, 7])
    assert program.execute(fitting).path[:2] == [0, 1]
    assert program.execute(not_fitting).path[:2] == [0, 0]
    assert (fitting.diverged, not_fitting.diverged) == (False, True)


# --- enumeration


def test_all_orders_of_independent_fibers_are_enumerated() -> None:
    def main(world: World) -> Body:
        def fiber() -> Body:
            yield POINT

        for _ in range(3):
            world.spawn(fiber())
        yield from ()

    orders = 90  # of three times two steps
    assert exhaust(Program(main).execute, DepthFirst()).schedules == orders
    assert exhaust(Program(main).execute, SimplestFirst(reduce=False)).schedules == orders
    assert exhaust(Program(main).execute, DepthFirst(0)).schedules == 6
    assert exhaust(Program(main).execute, DepthFirst(deviation_bound=0)).schedules == 1
    assert exhaust(Program(main).execute, DepthFirst(depth_bound=1)).schedules == 3


@FEW
@given(programs(timers=True), BOUND, BOUND)
def test_depth_first_is_lexicographic_and_simplest_first_has_the_same_schedules_in_order(
    fibers: Fibers, preemption_bound: int | None, deviation_bound: int | None
) -> None:
    program = Program(main_of(fibers))
    first = run_all(program, DepthFirst(preemption_bound, deviation_bound=deviation_bound))
    second = run_all(program, SimplestFirst(preemption_bound, deviation_bound=deviation_bound, reduce=False))
    paths = [path for (_, _, path), _ in first]
    assert paths == sorted(set(paths))
    assert [key for key, _ in second] == sorted(key for key, _ in first)
    assert all(
        preemptions <= (9999 if preemption_bound is None else preemption_bound) for (preemptions, _, _), _ in first
    )


@FEW
@given(programs(timers=True), BOUND)
def test_no_bound_leaves_out_a_schedule_within_it(fibers: Fibers, bound: int | None) -> None:
    program = Program(main_of(fibers))
    everything = run_all(program, DepthFirst())
    within = run_all(program, DepthFirst(bound))
    assert within == [run for run in everything if bound is None or run[0][0] <= bound]


@FEW
@given(programs(timers=True), BOUND, BOUND, st.booleans(), st.booleans())
def test_reduction_keeps_every_outcome_at_its_lowest_cost(
    fibers: Fibers, preemption_bound: int | None, deviation_bound: int | None, known: bool, announced: bool
) -> None:
    program = Program(main_of(fibers, known=known), announced=announced)
    cheapest: dict[object, Complexity] = {}
    for key, outcome in run_all(program, DepthFirst(preemption_bound, deviation_bound=deviation_bound)):
        cheapest[outcome] = min(key, cheapest.get(outcome, key))
    reduced: dict[object, Complexity] = {}
    runs = run_all(program, SimplestFirst(preemption_bound, deviation_bound=deviation_bound))
    for key, outcome in runs:
        reduced.setdefault(outcome, key)
    assert [key for key, _ in runs] == sorted(key for key, _ in runs)
    assert {outcome: key[:2] for outcome, key in reduced.items()} == {
        outcome: key[:2] for outcome, key in cheapest.items()
    }


@FEW
@given(programs(timers=True), BOUND)
def test_reduction_without_counting_deviations_keeps_every_outcome_at_its_fewest_preemptions(
    fibers: Fibers, bound: int | None
) -> None:
    program = Program(main_of(fibers))
    runs = run_all(program, DepthFirst(bound))
    reduced = run_all(program, SimplestFirst(bound, count_deviations=False))
    fewest = {outcome: min(key[0] for key, other in runs if other == outcome) for _, outcome in runs}
    assert {outcome: min(key[0] for key, other in reduced if other == outcome) for _, outcome in reduced} == fewest
    assert len(reduced) <= len(runs)


@FEW
@given(programs(timers=True), BOUND, st.booleans())
def test_what_is_pending_is_left_to_run(fibers: Fibers, bound: int | None, reduce: bool) -> None:
    program = Program(main_of(fibers), footprints=reduce)
    search = SimplestFirst(bound)
    pending = []
    for chooser in search:
        pending.append(search.pending)
        assert search.pending == search.pending_below((9999, 9999))
        search.record(program.execute(chooser))
        assume(search.schedules <= 1000)
    assert search.pending == 0
    assert all(0 < known <= search.schedules - at for at, known in enumerate(pending))
    # all that can be known: the last of them is in sight when nothing new comes any more
    assert pending == [] or pending[-1] == 1


@FEW
@given(programs(timers=True), st.integers(0, 60), st.tuples(st.integers(0, 3), st.integers(0, 4)))
def test_a_bound_that_is_lowered_on_the_way_is_the_bound(fibers: Fibers, at: int, below: tuple[int, int]) -> None:
    program = Program(main_of(fibers))
    expected = [key for key, _ in run_all(program, SimplestFirst(below=below, reduce=False))]
    search = SimplestFirst(reduce=False)
    seen = []
    for chooser in search:
        if len(seen) == at:
            search.lower(below)
            assert search.pending == search.pending_below(below)
            if search.exhausted:
                break
        execution = program.execute(search.next_chooser() or chooser)
        search.record(execution)
        seen.append(complexity(execution))
    if len(seen) < at:
        return
    early = seen[:at]
    assert seen[at:] == [key for key in expected if key not in early]


def test_a_bound_is_not_raised() -> None:
    search = SimplestFirst(below=(1, 1))
    search.lower((2, 2))
    assert search.below == (1, 1)


def test_reduction_saves_runs_where_steps_are_independent() -> None:
    def main(world: World) -> Body:
        variables = [Shared(world) for _ in range(3)]

        def fiber(number: int) -> Body:
            yield POINT
            variables[number].set(1)
            yield POINT

        for number in range(3):
            world.spawn(fiber(number))
        yield from ()

    everything = exhaust(Program(main).execute, SimplestFirst(reduce=False))
    reduced = exhaust(Program(main).execute, SimplestFirst(count_deviations=False))
    without = exhaust(Program(main, footprints=False).execute, SimplestFirst())
    assert everything.schedules == without.schedules == 1680
    # A state is how far each fiber is, and who is current.  All three go on: at the start two deviations, and two from
    # each of 27 states of which 2 fibers have begun on average.  One has ended: one deviation from each of its 27
    # states where nobody is current, and 36 where somebody is.
    assert reduced.schedules == 1 + 2 + 2 * 27 * 2 + 27 + 36
    assert reduced.pruned > 0


@FEW
@given(programs())
def test_the_first_failure_of_simplest_first_is_the_simplest_failure(fibers: Fibers) -> None:
    program = Program(main_of(fibers))
    failures = []
    search = DepthFirst()
    for chooser in search:
        execution = program.execute(chooser)
        search.record(execution)
        if execution.failed:
            failures.append(complexity(execution))
        assume(search.schedules <= 1000)
    found = exhaust(program.execute, SimplestFirst(reduce=False)).failure
    assert (None if found is None else complexity(found)) == min(failures, default=None)


def test_a_search_can_be_interrupted_and_goes_on() -> None:
    program = Program(lost_update(3))
    search = SimplestFirst(reduce=False)
    first = exhaust(program.execute, search, max_schedules=10, keep_going=True)
    assert (first.exhausted, first.schedules) == (False, 10)
    second = exhaust(program.execute, search, max_decisions=first.decisions + 1, keep_going=True)
    assert (second.exhausted, second.schedules) == (False, 11)
    last = exhaust(program.execute, search, keep_going=True)
    assert (last.exhausted, last.schedules) == (True, 90)


def test_failures_with_another_fingerprint_do_not_count() -> None:
    program = Program(lost_update())
    assert exhaust(program.execute, DepthFirst(), only=1).failure is None
    assert exhaust(program.execute, DepthFirst()).failure is not None


@pytest.mark.parametrize("search", [DepthFirst(), SimplestFirst()], ids=["DepthFirst", "SimplestFirst"])
def test_a_program_that_depends_on_more_than_the_schedule_is_found_out(search: Enumeration) -> None:
    runs = 0

    def main(world: World) -> Body:
        nonlocal runs
        runs += 1

        def fiber() -> Body:
            yield POINT

        for _ in range(3 if runs == 1 else 2):
            world.spawn(fiber())
        yield from ()

    with pytest.raises(UncontrolledNondeterminism, match="random"):
        exhaust(Program(main).execute, search)


def test_a_deviation_bound_that_is_not_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="count_deviations"):
        SimplestFirst(deviation_bound=1, count_deviations=False)


# --- the proof of the minimum


def test_the_minimum_of_a_lost_update_is_one_preemption() -> None:
    program = Program(lost_update(3))
    failure = program.execute(FollowPath([2, 1, 1]))
    assert failure.failed
    assert failure.preemptions > 1
    proof = prove_minimum(program.execute, failure)
    assert proof.proved
    assert complexity(proof.simplest)[:2] == (1, 1)


def test_a_failure_without_preemptions_is_simpler_than_one_with_fewer_deviations() -> None:
    program = Program(ordered(3))
    proof = prove_minimum(program.execute, program.execute(FollowPath([2, 0, 1, 0])))
    assert proof.proved
    assert complexity(proof.simplest)[:2] == (0, 2)


@FEW
@given(programs(), st.data())
def test_a_proved_minimum_is_the_minimum(fibers: Fibers, data: st.DataObject) -> None:
    program = Program(main_of(fibers))
    failures = []
    search = DepthFirst()
    for chooser in search:
        execution = program.execute(chooser)
        search.record(execution)
        if execution.failed:
            failures.append(execution)
        assume(search.schedules <= 500)
    assume(failures)
    failure = data.draw(st.sampled_from(failures))
    minimum = min(complexity(other) for other in failures if other.fingerprint == failure.fingerprint)
    for reduce in (False, True):
        proof = prove_minimum(program.execute, failure, reduce=reduce)
        assert proof.proved
        assert complexity(proof.simplest)[:2] == minimum[:2]
    proof = prove_minimum(program.execute, failure, any_failure=True)
    assert complexity(proof.simplest)[:2] == min(complexity(other)[:2] for other in failures)


def test_nothing_is_proved_when_the_limit_is_too_low() -> None:
    program = Program(ordered(4))
    failure = program.execute(FollowPath([3, 0, 2, 0, 1, 0]))
    assert failure.failed
    proof = prove_minimum(program.execute, failure, limit=3)
    assert (proof.proved, proof.schedules) == (False, 3)
    assert proof.simplest is failure


def test_the_searches_for_something_simpler_hold_nothing_else() -> None:
    program = Program(ordered(3))
    failure = program.execute(FollowPath([2, 0, 1, 0]))
    for search in simpler_schedules(failure, reduce=False):
        for key, _ in run_all(program, search, limit=None):
            assert key[:2] < (failure.preemptions, failure.deviations)


def test_only_a_failure_has_a_minimum() -> None:
    program = Program(ordered(2))
    with pytest.raises(ValueError, match="has not failed"):
        prove_minimum(program.execute, program.execute(FollowPath([])))


def test_yields_and_locks_of_the_toy_do_as_they_say() -> None:
    log: list[str] = []

    def main(world: World) -> Body:
        lock = Semaphore(world)

        def fiber(name: str) -> Body:
            yield from lock.acquire()
            log.append(f"{name} has it")
            yield YIELD
            log.append(f"{name} gives it")
            lock.release()

        world.spawn(fiber("a"))
        world.spawn(fiber("b"))
        yield from ()

    assert Program(main).execute(FollowPath([])).kind == "passed"
    assert log == ["a has it", "a gives it", "b has it", "b gives it"]
