"""What the searches leave out loses nothing: cross-checked against every schedule, on random programs of real fibers.

``test_dpor`` and ``test_exhaust`` do the same with generators, whose footprints are exact by construction.  Here the
footprints are those that the primitives declare: a lock, a queue or a cancellation that touches something and does not
say so shows as an outcome that is missing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from real_programs import KINDS, SIMPLE, Fibers, TooMany, outcomes_of, random_program

import swapco
from swapco import testing
from swapco.testing.dpor import EachTrace
from swapco.testing.execution import Program
from swapco.testing.exhaust import DepthFirst, SimplestFirst

ALL = tuple(KINDS)
CANCELLATIONS = ("cancel", "load", "add", "wait", "set", "sleep", "locked", "put", "get")
TIMES = ("sleep", "wait for", "set", "load", "add", "put", "get", "locked")

FAMILIES = {"simple": SIMPLE, "all": ALL, "cancellations": CANCELLATIONS, "times": TIMES}


def programs(kinds: tuple[str, ...], wanted: int, preempt: str) -> list[tuple[Fibers, dict[object, tuple[int, int]]]]:
    """Random programs that are small enough and have something to lose: several outcomes, with their lowest costs."""
    found = []
    seed = 0
    while len(found) < wanted:
        seed += 1
        size = 3 if preempt == "points" else 2
        fibers = random_program(seed, kinds, fibers=size, steps=size)
        try:
            outcomes = outcomes_of(fibers, DepthFirst(), preempt=preempt, limit=150)
        except TooMany:
            continue
        if len(outcomes) > 1:
            found.append((fibers, {outcome: cost[:2] for outcome, cost in outcomes.items()}))
    return found


@pytest.mark.parametrize("preempt", ["points", "primitives"])
@pytest.mark.parametrize("family", FAMILIES)
def test_reductions_find_every_outcome_of_real_fibers(family: str, preempt: str) -> None:
    for fibers, outcomes in programs(FAMILIES[family], 10, preempt):
        reduced = outcomes_of(fibers, EachTrace(), preempt=preempt, footprints=True, limit=10_000)
        assert set(reduced) == set(outcomes), fibers
        cheapest = outcomes_of(fibers, SimplestFirst(), preempt=preempt, footprints=True, limit=10_000)
        assert {outcome: cost[:2] for outcome, cost in cheapest.items()} == outcomes, fibers


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_a_bounded_search_finds_every_outcome_within_its_bound(bound: int) -> None:
    for fibers, outcomes in programs(SIMPLE, 6, "points"):
        within = {outcome for outcome, (preemptions, _) in outcomes.items() if preemptions <= bound}
        assert set(outcomes_of(fibers, SimplestFirst(bound), footprints=True, limit=10_000)) == within, fibers
        assert set(outcomes_of(fibers, DepthFirst(bound), limit=10_000)) == within, fibers


def test_a_cancellation_that_comes_too_late_depends_on_the_end() -> None:
    """It finds the fiber done and changes nothing: which is why it must be seen to have looked."""
    fibers: Fibers = [[("release",)], [("cancel", 0)]]
    everything = outcomes_of(fibers, DepthFirst())
    assert len(everything) == 2
    assert set(outcomes_of(fibers, EachTrace(), footprints=True)) == set(everything)


QUESTIONS: dict[str, Callable[[swapco.Fiber[None]], object]] = {
    "state": lambda fiber: fiber.state,
    "wait_reason": lambda fiber: fiber.wait_reason,
    "waits_for_object": lambda fiber: fiber.waits_for_object is None,
    "all_fibers": lambda fiber: len(swapco.all_fibers()),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_a_fiber_is_doing_may_be_asked(question: str) -> None:
    """Any step of it can change the answer, whatever that step declares."""
    seen: set[object] = set()

    def body() -> None:
        def work() -> None:
            testing.schedule_point("a")
            with swapco.Lock():
                event.wait()

        def look() -> None:
            testing.schedule_point("b")
            seen.add(QUESTIONS[question](worker))
            event.set()
            testing.schedule_point("c")
            seen.add(QUESTIONS[question](worker))

        event = swapco.Event()
        worker = swapco.spawn(work)
        swapco.wait([worker, swapco.spawn(look)])

    testing.verify(body, preemption_bound=None, save=False)
    everything = set(seen)
    assert len(everything) > 1
    seen.clear()
    assert testing.verify(body, strategy="dpor", save=False).exhausted
    assert seen == everything


def _only_code(seen: list[object], number: int) -> None:
    seen.append(number)


def _before_a_point(seen: list[object], number: int) -> None:
    seen.append(number)
    testing.schedule_point()


def _after_a_sleep(seen: list[object], number: int) -> None:
    swapco.sleep(1)
    seen.append(number)


@pytest.mark.parametrize("work", [_only_code, _before_a_point, _after_a_sleep])
@pytest.mark.parametrize("preempt", ["points", "primitives"])
def test_a_step_that_declares_nothing_conflicts_with_all_others(work: Callable[..., None], preempt: str) -> None:
    orders: set[tuple[object, ...]] = set()

    def body() -> None:
        seen: list[object] = []
        swapco.wait([swapco.spawn(work, seen, number) for number in range(3)])
        orders.add(tuple(seen))

    assert testing.verify(body, strategy="dpor", preempt=preempt, save=False).exhausted
    assert len(orders) == 6


def test_what_a_woken_consumer_does_before_it_ends_conflicts_with_all_others() -> None:
    seen: list[object] = []
    orders: set[tuple[object, ...]] = set()

    def body() -> None:
        seen.clear()
        first, second = swapco.Queue[str](), swapco.Queue[str]()
        consumers = [swapco.spawn(lambda queue=queue: seen.append(queue.get())) for queue in (first, second)]
        swapco.sleep(1)
        first.put("a")
        second.put("b")
        swapco.wait(consumers)
        orders.add(tuple(seen))

    assert testing.verify(body, strategy="dpor", save=False).exhausted
    assert orders == {("a", "b"), ("b", "a")}


def semaphore() -> None:
    """Three fibers, one permit."""
    permits = swapco.Semaphore(1)

    def work() -> None:
        with permits:
            pass

    swapco.wait([swapco.spawn(work) for _ in range(3)])


def lock_cycle() -> None:
    """Three fibers, three locks, in a circle."""
    locks = [swapco.Lock() for _ in range(3)]

    def work(number: int) -> None:
        with locks[number], locks[(number + 1) % 3]:
            pass

    swapco.wait([swapco.spawn(work, number) for number in range(3)])


@pytest.mark.parametrize(("body", "errors"), [(semaphore, {None}), (lock_cycle, {None, "Deadlock"})])
def test_small_synchronisation_of_real_fibers_is_exhausted_within_a_hundred_schedules(
    body: Callable[[], None], errors: set[str | None]
) -> None:
    program, search, found = Program(body, preempt="primitives"), EachTrace(), set()
    program.footprints = True

    def session() -> None:
        for chooser in search:
            execution = program.execute(chooser)
            search.record(execution)
            found.add(None if execution.exception is None else type(execution.exception).__name__)

    program.session(session)
    assert search.exhausted
    assert search.schedules <= 100
    assert found == errors
    result = testing.verify(body, strategy="dpor", preempt="primitives", save=False)
    assert result.failed == ("Deadlock" in errors)
