"""Partial order reduction loses no outcome, and runs each Mazurkiewicz trace once: against brute force."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toy import POINT, Body, Main, Program, Semaphore, Shared, World
from toy_programs import Fibers, main_of, programs, trace_of

from swapco.testing.dpor import EachTrace
from swapco.testing.exhaust import DepthFirst, exhaust
from swapco.testing.trace import UncontrolledNondeterminism

FEW = settings(max_examples=50, deadline=None)


def all_of(main: Main, limit: int | None = 600, **options: Any) -> tuple[set[object], set[object], int]:
    """Outcomes and traces of all schedules, and their number.  Of a random program at most ``limit``, else another."""
    program = Program(main, **options)
    outcomes, traces = set(), set()
    search = DepthFirst()
    for chooser in search:
        execution = program.execute(chooser)
        search.record(execution)
        outcomes.add(program.state)
        if options.get("announced", True):
            traces.add(trace_of(execution))
        if limit is not None:
            assume(search.schedules <= limit)
    return outcomes, traces, search.schedules


def reduced(main: Main, **options: Any) -> tuple[set[object], list[object], EachTrace]:
    """Outcomes and traces of the schedules that DPOR runs to their end."""
    program = Program(main, **options)
    outcomes, traces = set(), []
    search = EachTrace()
    for chooser in search:
        execution = program.execute(chooser)
        pruned = search.pruned
        search.record(execution)
        if search.pruned == pruned:
            assert execution.kind != "aborted"
            outcomes.add(program.state)
            if options.get("announced", True):
                traces.append(trace_of(execution))
    assert search.exhausted
    return outcomes, traces, search


@FEW
@given(programs(), st.booleans())
def test_dpor_finds_every_outcome_and_runs_each_trace_once(fibers: Fibers, watched: bool) -> None:
    main = main_of(fibers, known=True)
    outcomes, traces, _ = all_of(main)
    found, found_traces, search = reduced(main, watched=watched)
    assert found == outcomes
    assert len(found_traces) == len(set(found_traces))
    assert set(found_traces) <= traces
    if all(values is not None for values, _ in outcomes):  # type: ignore[misc]  # no run was cut short by a failure
        assert set(found_traces) == traces
    assert search.schedules - search.pruned == len(found_traces)


@FEW
@given(programs(timers=True, undeclared=True), st.booleans(), st.booleans(), st.booleans())
def test_dpor_finds_every_outcome_of_programs_with_timers_and_undeclared_steps(
    fibers: Fibers, watched: bool, announced: bool, known: bool
) -> None:
    main = main_of(fibers, known=known)
    outcomes, _, schedules = all_of(main, announced=announced)
    found, _, search = reduced(main, watched=watched, announced=announced)
    assert found == outcomes
    assert search.schedules - search.pruned <= schedules


@FEW
@given(programs(fibers=2, steps=6, timers=True))
def test_dpor_finds_every_outcome_of_two_longer_fibers(fibers: Fibers) -> None:
    main = main_of(fibers)
    outcomes, _, _ = all_of(main)
    assert reduced(main)[0] == outcomes


# --- programs whose numbers are known


def independent(world: World) -> Body:
    variables = [Shared(world) for _ in range(4)]

    def fiber(number: int) -> Body:
        for _ in range(5):
            yield POINT
            variables[number].set(1)

    for number in range(4):
        variables[number].get()
        world.spawn(fiber(number))
    yield from ()


def readers(world: World) -> Body:
    variable = Shared(world)
    variable.get()

    def fiber() -> Body:
        for _ in range(4):
            yield POINT
            variable.get()

    for _ in range(4):
        world.spawn(fiber())
    yield from ()


@pytest.mark.parametrize("main", [independent, readers])
def test_independent_steps_need_one_schedule(main: Main) -> None:
    outcome = exhaust(Program(main).execute, EachTrace())
    assert (outcome.exhausted, outcome.schedules) == (True, 1)


def one_writer_for_each(world: World) -> Body:
    """Three writers of one variable: their order is all that matters."""
    variable = Shared(world)
    variable.get()

    def fiber(number: int) -> Body:
        yield POINT
        variable.set(number)
        yield POINT

    for number in range(3):
        world.spawn(fiber(number))
    yield from ()


def test_three_writers_have_six_traces() -> None:
    outcomes, traces, search = reduced(one_writer_for_each)
    assert (len(outcomes), len(traces)) == (3, 6)
    assert search.schedules == 6
    assert all_of(one_writer_for_each, limit=None)[2] == 1680


def last_zero(world: World) -> Body:
    """One fiber counts how many leading variables are set, each of the others sets one if the one before it is.

    From Abdulla et al.; the classic case in which a reduction without source sets runs too much.
    """
    array = [Shared(world) for _ in range(4)]
    for thing in array:
        thing.get()
    seen = Shared(world, key="seen")

    def search_from_the_end() -> Body:
        at = len(array) - 1
        yield POINT
        while at and array[at].get():
            at -= 1
            yield POINT
        seen.value = at

    def setter(at: int) -> Body:
        yield POINT
        value = array[at - 1].get()
        yield POINT
        array[at].set(value + 1)

    world.spawn(search_from_the_end())
    for at in range(1, len(array)):
        world.spawn(setter(at))
    yield from ()


def test_last_zero_has_as_many_complete_runs_as_traces() -> None:
    outcomes, traces, search = reduced(last_zero)
    assert len(traces) == len(set(traces))
    assert len(outcomes) > 4
    assert search.pruned < len(traces)


def semaphore(world: World) -> Body:
    """Two permits, three fibers: acquire, touch, release."""
    permits = Semaphore(world, 2)
    inside = Shared(world)

    def fiber() -> Body:
        yield from permits.acquire()
        inside.set(inside.get() + 1)
        yield POINT
        assert inside.get() <= 2
        inside.set(inside.get() - 1)
        permits.release()

    for _ in range(3):
        world.spawn(fiber())
    yield from ()


def cyclic_locks(world: World) -> Body:
    """Three locks, three fibers; each takes two of them, in a circle."""
    locks = [Semaphore(world) for _ in range(3)]

    def fiber(number: int) -> Body:
        first, second = locks[number], locks[(number + 1) % 3]
        yield from first.acquire()
        yield POINT
        yield from second.acquire()
        second.release()
        first.release()

    for number in range(3):
        world.spawn(fiber(number))
    yield from ()


@pytest.mark.parametrize("main", [semaphore, cyclic_locks])
@pytest.mark.parametrize("watched", [True, False])
def test_small_synchronisation_is_exhausted_within_a_hundred_schedules(main: Main, watched: bool) -> None:
    found, _, search = reduced(main, watched=watched)
    assert search.schedules <= 100
    assert found == all_of(main, limit=None)[0]


def test_a_deadlock_is_found_and_the_other_outcomes_too() -> None:
    found, _, _ = reduced(cyclic_locks)
    assert {error for _, error in found} == {None, "Deadlock('fibers wait for each other')"}  # type: ignore[misc]


def test_a_sleeping_run_is_abandoned_early_where_it_can_be_watched() -> None:
    watched, unwatched = EachTrace(), EachTrace()
    kinds = []
    # the locks are never released: with two fibers asleep the other two have nothing new to do, and choices are left
    main = main_of([[("put", 0, 1)], [("add", 0)], [("acquire",), ("add", 0)], [("acquire",)]], known=True)
    for search, watches in ((watched, True), (unwatched, False)):
        program = Program(main, watched=watches)
        for chooser in search:
            execution = program.execute(chooser)
            kinds.append((watches, execution.kind))
            search.record(execution)
    assert (True, "aborted") in kinds
    assert (False, "aborted") not in kinds
    assert watched.pruned <= unwatched.pruned
    assert watched.schedules - watched.pruned == unwatched.schedules - unwatched.pruned


def test_what_a_failure_hides_is_looked_at() -> None:
    """The first fiber fails before the others have shown what they do; that decides another failure."""

    def main(world: World) -> Body:
        variable = Shared(world)
        variable.get()

        def failing() -> Body:
            yield POINT
            value = variable.get()
            raise ValueError(f"saw {value}")

        def writing(number: int) -> Body:
            yield POINT
            variable.set(number)

        world.spawn(failing())
        world.spawn(writing(1))
        world.spawn(writing(2))
        yield from ()

    found, _, _ = reduced(main)
    assert {error for _, error in found} == {f"ValueError('saw {value}')" for value in range(3)}  # type: ignore[misc]


def test_without_footprints_there_is_no_reduction() -> None:
    with pytest.raises(ValueError, match="footprints"):
        exhaust(Program(independent, footprints=False).execute, EachTrace())


def test_a_program_that_depends_on_more_than_the_schedule_is_found_out() -> None:
    runs = 0

    def main(world: World) -> Body:
        nonlocal runs
        runs += 1
        variable = Shared(world)

        def fiber() -> Body:
            yield POINT
            variable.set(1)

        for _ in range(3 if runs == 1 else 2):
            world.spawn(fiber())
        yield from ()

    with pytest.raises(UncontrolledNondeterminism, match="random"):
        exhaust(Program(main).execute, EachTrace())
