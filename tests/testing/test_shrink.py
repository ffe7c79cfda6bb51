"""A failing schedule becomes as simple as it can be, within a budget of replays; and that is checked by brute force."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toy import POINT, Body, Main, Program, Shared, World
from toy_programs import Fibers, Operation, main_of, programs

import swapco
from benchmarks.testing_programs import BUGS, LockCycle, LostWakeup, body_of
from swapco import testing
from swapco.testing.execution import Program as RealProgram
from swapco.testing.exhaust import DepthFirst, SimplestFirst, exhaust, prove_minimum
from swapco.testing.shrink import TO_ITS_END, FollowSegments, Segment, Shrunk, segments_of, shrink
from swapco.testing.trace import (
    Chooser,
    Decision,
    Execution,
    FollowPath,
    UncontrolledNondeterminism,
    complexity,
    stripped,
)

REPLAYS = 200
"""How many the bar allows."""


class Randomly:
    """Chooses at random."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
        return self._random.randrange(len(enabled))


class Counting:
    """An ``Execute`` that counts."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.paths: list[tuple[int, ...]] = []

    @property
    def runs(self) -> int:
        return len(self.paths)

    def __call__(self, chooser: Chooser) -> Execution:
        execution = self.program.execute(chooser)
        self.paths.append(stripped(execution.path))
        return execution


def random_fibers(seed: int) -> Fibers:
    """A small program, in which most schedules pass and some do not."""
    draw = random.Random(seed)
    variables = range(2)

    def operation() -> Operation:
        kind = draw.choice(["load", "store", "put", "add", "add", "check", "acquire", "release", "yield"])
        if kind in ("put", "check"):
            return kind, draw.choice(variables), draw.randint(1, 2)
        return (kind,) if kind in ("acquire", "release", "yield") else (kind, draw.choice(variables))

    return [[operation() for _ in range(draw.randint(2, 3))] for _ in range(3)]


def failures(programs_wanted: int) -> list[tuple[Program, Execution, tuple[int, int]]]:
    """Programs, a random failure of each, and the fewest preemptions and deviations of such a failure."""
    found = []
    seed = 0
    while len(found) < programs_wanted:
        seed += 1
        program = Program(main_of(random_fibers(seed)), footprints=False)
        failure = next((run for at in range(30) if (run := program.execute(Randomly(31 * seed + at))).failed), None)
        if failure is None or not failure.deviations:
            continue
        proof = prove_minimum(program.execute, failure, limit=1500)
        if proof.proved and proof.simplest.deviations:
            found.append((program, failure, complexity(proof.simplest)[:2]))
    return found


# ----------------------------------------------------------------------------------------------- the bars


def test_random_failures_are_shrunk_to_their_minimum() -> None:
    """At least 99 of 100, each in at most 200 replays."""
    wanted = 100
    reached = 0
    for program, failure, minimum in failures(wanted):
        execute = Counting(program)
        shrunk = shrink(execute, failure, replays=REPLAYS)
        assert execute.runs == shrunk.replays <= REPLAYS
        reached += complexity(shrunk.execution)[:2] == minimum
    assert reached >= 0.99 * wanted


@pytest.mark.parametrize("bug", BUGS)
def test_bugs_of_real_fibers_are_shrunk_to_the_proved_minimum(bug: str) -> None:
    body = body_of(BUGS[bug])
    found = [
        testing.search(body, seed=seed, strategy=strategy, schedules=300, save=False)
        for seed in range(6)
        for strategy in ("portfolio", "random", "pos")
    ]
    failed = [result for result in found if result.failed]
    assert len(failed) >= 10
    assert all(result.replays <= REPLAYS for result in failed)
    assert sum(result.minimal for result in failed) >= 0.99 * len(failed)
    assert len({(result.preemptions, result.deviations) for result in failed}) == 1
    for result in failed:
        assert result.found is not None
        assert result.found[1:] >= (result.deviations, result.preemptions)


def test_a_failure_of_a_hundred_decisions_is_shrunk_within_the_budget() -> None:
    """Four fibers with 25 points each, of which two moments matter."""

    def main(world: World) -> Body:
        first, second = Shared(world), Shared(world)

        def fiber(number: int) -> Body:
            for _ in range(12):
                yield POINT
            value = first.get()
            yield POINT
            first.set(value + 1)
            for _ in range(12):
                yield POINT
            second.set(second.get() + 1)
            assert second.get() < 4 or first.get() == 4, "lost"

        for number in range(4):
            world.spawn(fiber(number))
        yield from ()

    program = Program(main, footprints=False)
    found = [run for seed in range(40) if (run := program.execute(Randomly(seed))).failed]
    assert len(found) >= 10
    for failure in found:
        assert 80 <= len(failure.decisions) <= 110
        shrunk = shrink(program.execute, failure, replays=REPLAYS)
        assert complexity(shrunk.execution)[:2] == (1, 1)
        assert shrunk.replays <= REPLAYS


class FourLocks(LockCycle):
    flows = 4


class FiveLocks(LockCycle):
    flows = 5


class FourWakeups(LostWakeup):
    flows = 4


def shrunk_from_each_seed(body: Callable[[], None], *, seeds: int, proof: int = 0) -> list[tuple[Execution, Shrunk]]:
    """What the failures that the default strategy finds are shrunk to."""
    program = RealProgram(body)
    found = []
    for seed in range(seeds):
        result = testing.search(body, seed=seed, shrink_failure=False, save=False)
        assert result.schedule is not None
        path = result.schedule.path

        def session(path: tuple[int, ...] = path) -> tuple[Execution, Shrunk]:
            failure = program.execute(FollowPath(path))
            return failure, shrink(program.execute, failure, replays=REPLAYS, proof=proof)

        found.append(program.session(session))
    return found


def test_where_few_schedules_are_simpler_the_minimum_is_proved_within_the_budget() -> None:
    for _, shrunk in shrunk_from_each_seed(body_of(FourLocks), seeds=12):
        assert complexity(shrunk.execution)[:2] == (1, 2)
        assert shrunk.proved
        assert shrunk.replays <= REPLAYS


def test_a_preemption_is_traded_for_free_choices_where_too_many_schedules_are_simpler() -> None:
    """200 replays cannot prove it; one preemption of two has to go, and another order to come."""
    body = body_of(FiveLocks)
    program = RealProgram(body)
    simpler = program.session(lambda: exhaust(program.execute, SimplestFirst(below=(1, 3)))).schedules
    assert simpler > 1000
    outcomes = shrunk_from_each_seed(body, seeds=12, proof=2000)
    assert [complexity(shrunk.execution)[:2] for _, shrunk in outcomes] == [(1, 3)] * 12
    for _, shrunk in outcomes:
        assert shrunk.proved
        assert shrunk.replays == REPLAYS
        assert simpler <= shrunk.replays + shrunk.proof_replays <= simpler + REPLAYS


def test_what_cannot_be_proved_is_as_small_as_what_can() -> None:
    """There are thousands of simpler ones; far more if all four fibers are to wait."""
    for _, shrunk in shrunk_from_each_seed(body_of(FourWakeups), seeds=12):
        assert isinstance(shrunk.execution.exception, testing.LostWakeup)
        assert not shrunk.proved
        assert complexity(shrunk.execution)[:2] in [(2, 2), (4, 4)]


def test_shrinking_takes_hardly_more_runs_than_a_proof_has_to() -> None:
    """Any simpler schedule could fail, so all of them have to run; candidates and later deviations are the rest."""
    rest = []
    for program, failure, minimum in failures(40):
        simpler = 0
        for chooser in (search := DepthFirst(minimum[0])):
            run = program.execute(chooser)
            search.record(run)
            simpler += complexity(run)[:2] < minimum
        shrunk = shrink(program.execute, failure, replays=10_000)
        assert shrunk.proved
        assert shrunk.replays >= simpler
        rest.append(shrunk.replays - simpler)
    assert sorted(rest)[len(rest) // 2] <= 10
    assert max(rest) <= 50


def test_a_minimised_failure_is_small() -> None:
    body = body_of(BUGS["lost wakeup, points"])
    result = testing.search(body, save=False)
    assert result.schedule is not None
    assert len(result.schedule.to_json()) <= 1024
    assert len(result.schedule.code) <= 60


# --------------------------------------------------------------------------------------------- what it promises


@settings(max_examples=60, deadline=None)
@given(programs(timers=True), st.integers(0, 1000), st.integers(0, 60))
def test_the_result_is_never_worse_and_fails_in_the_same_way(fibers: Fibers, seed: int, budget: int) -> None:
    program = Program(main_of(fibers), footprints=False)
    failure = program.execute(Randomly(seed))
    assume(failure.failed)
    execute = Counting(program)
    shrunk = shrink(execute, failure, replays=budget)
    assert execute.runs == shrunk.replays <= budget
    assert shrunk.execution.failed
    assert shrunk.execution.fingerprint == failure.fingerprint
    assert complexity(shrunk.execution) <= complexity(failure)
    assert shrunk.history == sorted(set(shrunk.history), reverse=True)
    assert shrunk.history[0] == complexity(failure)
    assert shrunk.history[-1] == complexity(shrunk.execution)
    # and its path leads there
    again = program.execute(FollowPath(shrunk.path))
    assert complexity(again) == complexity(shrunk.execution)
    assert again.fingerprint == failure.fingerprint


@settings(max_examples=60, deadline=None)
@given(programs(timers=True), st.integers(0, 1000), st.integers(0, 200), st.sampled_from([0, 10, 100, 2000]))
def test_what_it_calls_proved_is_the_minimum(fibers: Fibers, seed: int, replays: int, proof: int) -> None:
    program = Program(main_of(fibers), footprints=False)
    failure = program.execute(Randomly(seed))
    assume(failure.failed)
    execute = Counting(program)
    shrunk = shrink(execute, failure, replays=replays, proof=proof)
    assert execute.runs == shrunk.replays + shrunk.proof_replays
    assert shrunk.replays <= replays
    assert shrunk.proof_replays <= proof
    assume(shrunk.proved)
    everything = []
    for chooser in (search := DepthFirst()):
        run = program.execute(chooser)
        search.record(run)
        if run.fingerprint == failure.fingerprint:
            everything.append(complexity(run)[:2])
        assume(search.schedules < 1000)
    assert complexity(shrunk.execution)[:2] == min(everything)


@settings(max_examples=40, deadline=None)
@given(programs(timers=True), st.integers(0, 1000))
def test_no_schedule_runs_twice(fibers: Fibers, seed: int) -> None:
    program = Program(main_of(fibers), footprints=False)
    failure = program.execute(Randomly(seed))
    assume(failure.failed)
    execute = Counting(program)
    shrink(execute, failure)
    known = [stripped(failure.path), *execute.paths]
    assert len(set(known)) == len(known)


def test_what_has_run_is_not_run_again_for_the_proof() -> None:
    for program, failure, _ in failures(10):
        execute = Counting(program)
        shrunk = shrink(execute, failure, replays=8, proof=10_000)
        assert shrunk.proved
        in_proof = execute.paths[shrunk.replays :]
        simpler = [path for path in in_proof if complexity(program.execute(FollowPath(path))) < shrunk.history[-1]]
        assert not set(simpler) & {stripped(failure.path), *execute.paths[: shrunk.replays]}


def test_a_program_that_depends_on_more_than_the_schedule_is_found_out() -> None:
    runs = 0

    def main(world: World) -> Body:
        nonlocal runs
        runs += 1

        def fiber(number: int) -> Body:
            for _ in range(3):
                yield POINT
            assert number == 0 or runs > 1, "only once"

        for number in range(3 if runs % 2 else 4):
            world.spawn(fiber(number))
        yield from ()

    program = Program(main)
    failure = program.execute(FollowPath([2, 1, 1]))
    assert failure.failed
    with pytest.raises(UncontrolledNondeterminism, match="random"):
        shrink(program.execute, failure)


def test_the_same_failure_is_shrunk_in_the_same_way() -> None:
    for program, failure, _ in failures(10):
        first, second = shrink(program.execute, failure), shrink(program.execute, failure)
        assert (first.path, first.replays, first.history) == (second.path, second.replays, second.history)


def test_a_failure_that_production_has_takes_one_replay() -> None:
    def main(world: World) -> Body:
        def fiber() -> Body:
            yield POINT

        world.spawn(fiber())
        world.spawn(fiber())
        yield POINT
        raise LookupError("always")

    program = Program(main)
    failure = program.execute(FollowPath([1, 1, 1]))
    shrunk = shrink(program.execute, failure)
    assert (shrunk.path, shrunk.replays, shrunk.proved) == ([], 1, True)


def test_a_simpler_failure_of_another_kind_does_not_count() -> None:
    """In the order of production it fails, too, but in another way."""

    def main(world: World) -> Body:
        order = Shared(world, ())

        def fiber(name: str) -> Body:
            yield POINT
            order.set((*order.get(), name))
            if len(order.get()) == 2:
                raise LookupError(" before ".join(order.get()))

        world.spawn(fiber("a"))
        world.spawn(fiber("b"))
        yield from ()

    program = Program(main)
    assert str(program.execute(FollowPath([])).exception) == "a before b"
    failure = program.execute(FollowPath([1, 0, 1]))
    assert str(failure.exception) == "b before a"
    shrunk = shrink(program.execute, failure)
    assert str(shrunk.execution.exception) == "b before a"
    assert complexity(shrunk.execution)[:2] == (0, 1)


def test_of_equally_simple_schedules_the_one_that_deviates_latest_is_kept() -> None:
    def body() -> None:
        log: list[int] = []

        def work(i: int) -> None:
            for _ in range(5):
                testing.schedule_point()
            log.append(i)

        swapco.wait([swapco.spawn(work, i) for i in range(2)])
        assert log == [0, 1]

    results = [testing.search(body, seed=seed, save=False) for seed in range(5)]
    codes = {result.schedule.code for result in results if result.schedule is not None}
    assert len(codes) == 1


def test_only_a_failure_is_shrunk() -> None:
    program = Program(main_of([[("load", 0)], [("load", 1)]]))
    with pytest.raises(ValueError, match="has not failed"):
        shrink(program.execute, program.execute(FollowPath([])))


def test_a_budget_of_nothing_returns_what_it_was_given() -> None:
    program, failure, _ = failures(1)[0]
    shrunk = shrink(program.execute, failure, replays=0)
    assert (shrunk.execution, shrunk.replays, shrunk.proved) == (failure, 0, False)


# ------------------------------------------------------------------------------------------------- segments


def run_of(*decisions: tuple[tuple[int, ...], int, int]) -> Execution:
    return Execution([Decision(enabled, current, chosen, "") for enabled, current, chosen in decisions])


def test_a_segment_is_a_stretch_of_one_actor() -> None:
    # 1 begins, goes on once, is preempted by 2, which ends; 1 goes on to its end, then 3
    execution = run_of(
        ((1, 2, 3), -1, 0), ((1, 2, 3), 1, 0), ((1, 2, 3), 1, 1), ((2, 1, 3), 2, 0), ((3, 1), -1, 1), ((1, 3), 1, 0)
    )
    assert segments_of(execution) == [Segment(1, 2), Segment(2, TO_ITS_END), Segment(1, TO_ITS_END)]
    assert segments_of(run_of()) == []


def test_who_began_without_a_choice_has_a_segment_once_it_had_one() -> None:
    """A timer's fiber that nobody rivalled, then a decision at a point of it."""
    execution = run_of(((1, 2), -1, 0), ((3, 1), 3, 1))
    assert segments_of(execution) == [Segment(1, TO_ITS_END), Segment(1, TO_ITS_END)]


@settings(max_examples=80, deadline=None)
@given(programs(timers=True), st.integers(0, 1000))
def test_following_the_segments_of_a_run_repeats_it(fibers: Fibers, seed: int) -> None:
    program = Program(main_of(fibers), footprints=False)
    first = program.execute(Randomly(seed))
    second = program.execute(FollowSegments(segments_of(first)))
    assert stripped(second.path) == stripped(first.path)


def test_a_segment_whose_actor_cannot_run_is_skipped() -> None:
    program = Program(main_of([[("load", 0)] * 2, [("load", 1)] * 2]), footprints=False)
    followed = program.execute(FollowSegments([Segment(99, 3), Segment(2, TO_ITS_END)]))
    plain = program.execute(FollowSegments([Segment(2, TO_ITS_END)]))
    assert followed.path == plain.path
    assert followed.decisions[0].actor == 2


def test_what_the_environment_chose_is_shrunk_too() -> None:
    """Choices of ``choose`` are deviations like others: the ordinary ones come back."""

    def body() -> None:
        numbers = [testing.choose(5) for _ in range(6)]
        assert numbers[3] < 3

    result = testing.search(body, save=False)
    assert result.failed
    assert result.schedule is not None
    assert result.schedule.path == (0, 0, 0, 3)


def shrinks_to(main: Main, *complexities: tuple[int, int]) -> None:
    """Every failure of ``main`` ends at one of these."""
    program = Program(main, footprints=False)
    outcome: Any = exhaust(program.execute, DepthFirst(), keep_going=True)
    assert outcome.failure is not None
    for chooser in (search := DepthFirst()):
        run = program.execute(chooser)
        search.record(run)
        if run.failed:
            assert complexity(shrink(program.execute, run).execution)[:2] in complexities


def handed_on(fibers: int) -> Callable[[World], Body]:
    """Each fiber must be preempted by the next one, the last by the first: ``fibers`` preemptions, no fewer."""

    def main(world: World) -> Body:
        reached = Shared(world, 0)

        def fiber(number: int) -> Body:
            if reached.get() == number:
                reached.set(number + 1)
                yield POINT
                assert not (number == 0 and reached.get() == fibers), "all are inside"
            reached.set(-1)

        for number in range(fibers):
            world.spawn(fiber(number))
        yield from ()

    return main


@pytest.mark.parametrize("fibers", [2, 3])
def test_every_failure_of_a_program_ends_at_the_same_minimum(fibers: int) -> None:
    shrinks_to(handed_on(fibers), (fibers, fibers))
