"""Laws 1 and 7: what a resume does in each state of its target, and that every value arrives once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from actors import Crew, quick_switches
from helpers import SOON_S, in_fiber, settle
from hypothesis import given
from hypothesis import strategies as st
from programs import law

import swapco
from swapco.lowlevel import ParkingLot

pytestmark = pytest.mark.usefixtures("fibers")


def block_for_ever() -> object:
    return swapco.block()


def block_twice() -> list[object]:
    return [swapco.block(), swapco.block()]


def end(*fibers: swapco.Fiber) -> None:
    for fiber in fibers:
        fiber.cancel()
    swapco.wait(fibers)


@in_fiber
def test_a_running_fiber_gets_a_token() -> None:
    """Law 1: the fiber runs: the resume leaves the token with its value, and a second one changes nothing."""
    me = swapco.current_fiber()
    assert swapco.resume(me, "first")
    assert not swapco.resume(me, "second")
    assert swapco.block() == "first"
    with pytest.raises(TimeoutError):
        swapco.block(0)


@in_fiber
def test_a_new_fiber_gets_a_token() -> None:
    """Law 1: the fiber has not started."""
    target = swapco.spawn(block_for_ever)
    assert target.state == "NEW"
    assert swapco.resume(target, "first")
    assert not swapco.resume(target, "second")
    assert target.join() == "first"


@in_fiber
def test_a_ready_fiber_gets_a_token() -> None:
    """Law 1: the fiber has yielded."""

    def yields() -> object:
        swapco.sleep(0)
        return swapco.block()

    target = swapco.spawn(yields)
    swapco.sleep(0)
    assert target.state == "READY"
    assert swapco.resume(target, "first")
    assert not swapco.resume(target, "second")
    assert target.join() == "first"


@in_fiber
def test_a_fiber_that_was_resumed_and_has_not_run_gets_nothing() -> None:
    """Law 1: its wait was won by a resume; whoever comes then is told so."""
    target = swapco.spawn(block_twice)
    swapco.sleep(0)
    assert swapco.resume(target, "first")
    assert target.state == "READY"
    assert not swapco.resume(target, "second")
    swapco.sleep(0)
    assert swapco.resume(target, "third")
    assert target.join() == ["first", "third"]


@in_fiber
def test_a_fiber_whose_wait_was_won_by_a_cancellation_gets_a_token() -> None:
    """Law 1: cancelled, but it has not run yet."""

    def stubborn() -> object:
        with pytest.raises(swapco.CancelledError):
            swapco.block()
        return swapco.block()

    target = swapco.spawn(stubborn)
    swapco.sleep(0)
    target.cancel()
    assert target.state == "READY"
    assert swapco.resume(target, "first")
    assert not swapco.resume(target, "second")
    assert target.join() == "first"


@in_fiber
def test_a_fiber_inside_a_primitive_gets_a_token() -> None:
    """Law 1: it waits for something else."""
    lot = ParkingLot()

    def parks() -> tuple[object, object]:
        return lot.park(), swapco.block()

    target = swapco.spawn(parks)
    swapco.sleep(0)
    assert swapco.resume(target, "token")
    assert not swapco.resume(target, "lost")
    assert target.state == "BLOCKED"
    assert lot.unpark("item")
    assert target.join() == ("item", "token")


@in_fiber
def test_a_finished_fiber_gets_nothing() -> None:
    """Law 1: it is done."""
    target = swapco.spawn(int)
    target.join()
    assert not swapco.resume(target)


@in_fiber
def test_block_with_a_token_does_not_switch() -> None:
    """Law 1: it takes the token and returns at once; who is ready waits for its turn."""
    seen: list[str] = []
    other = swapco.spawn(seen.append, "other")
    swapco.resume(swapco.current_fiber())
    switches = swapco.current_fiber().scheduler.statistics()["switches"]
    swapco.block()
    assert not seen
    assert swapco.current_fiber().scheduler.statistics()["switches"] == switches
    other.join()


@in_fiber
def test_a_token_is_taken_although_a_cancellation_is_pending() -> None:
    """Law 1, and "a delivery that has won stands": the cancellation comes at the next block."""
    me = swapco.current_fiber()
    swapco.resume(me, "value")
    me.cancel()
    assert swapco.block() == "value"
    with pytest.raises(swapco.CancelledError):
        swapco.block()
    assert me.uncancel() == 0


@pytest.mark.parametrize("value", [None, 0, False, (), "text", ValueError("not raised")])
@in_fiber
def test_any_value_passes_unchanged(value: object) -> None:
    """Law 7: by resume, by switch_to, and by way of a token."""

    def twice() -> tuple[object, ...]:
        got = [swapco.block()]
        got.append(swapco.switch_to(me, value))
        got.append(swapco.block())
        return tuple(got)

    me = swapco.current_fiber()
    target = swapco.spawn(twice)
    swapco.sleep(0)
    assert swapco.switch_to(target, value) is value
    swapco.resume(target, value)
    assert swapco.resume(target, "too much") is False
    swapco.sleep(0)
    swapco.resume(target, value)
    assert all(got is value for got in target.join())


@in_fiber
def test_resume_needs_a_fiber() -> None:
    """Bad input: an error that says what was expected, and nothing happens."""
    for wrong in (None, 1, "fiber", block_for_ever, asyncio.current_task):
        with pytest.raises(TypeError):
            swapco.resume(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            swapco.switch_to(wrong)  # type: ignore[arg-type]


@given(
    st.lists(st.sampled_from(("fiber", "callback", "task", "thread", "thread")), min_size=1, max_size=4),
    st.integers(1, 60),
    st.lists(st.sampled_from((None, None, 0, 0.0001, 0.002)), min_size=1, max_size=4),
)
@law(60)
def test_every_accepted_value_arrives_once(actors: list[str], values: int, limits: list[float | None]) -> None:
    """Laws 1, 4 and 7: many resume one fiber at once, some of its blocks time out.

    The values of the resumes that returned True, and no others, are what its blocks return, in the order of each
    resumer.
    """
    accepted: list[tuple[int, int]] = []
    got: list[object] = []
    finished = object()

    def resumer(index: int, target: swapco.Fiber, yields: bool) -> None:
        for number in range(values):
            if swapco.resume(target, (index, number)):
                accepted.append((index, number))
            if yields:
                swapco.sleep(0)

    def target() -> None:
        rounds = 0
        while True:
            try:
                value = swapco.block(limits[rounds % len(limits)])
            except TimeoutError:
                swapco.sleep(0)
            else:
                if value is finished:
                    return
                got.append(value)
            rounds += 1

    def main() -> None:
        fiber = swapco.spawn(target)
        with Crew() as crew:
            for index, actor in enumerate(actors):
                crew.act(actor, lambda index=index, actor=actor: resumer(index, fiber, actor == "fiber"))
        while not swapco.resume(fiber, finished):
            swapco.sleep(0)
        fiber.join(SOON_S)

    with quick_switches():
        swapco.run(main)
    assert Counter(got) == Counter(accepted)
    for index in range(len(actors)):
        numbers = [number for who, number in got if who == index]  # type: ignore[misc]
        assert numbers == sorted(numbers)


@in_fiber
def test_a_thread_leaves_tokens_by_the_same_rules() -> None:
    """Law 1 from another thread: the same answers as from a fiber."""
    lot = ParkingLot()

    def parks() -> tuple[object, object]:
        return lot.park(), swapco.block()

    fresh = swapco.spawn(block_for_ever)
    done = swapco.spawn(int)
    blocked = swapco.spawn(block_twice)
    swapco.sleep(0)
    parked = swapco.spawn(parks)
    settle()
    fresh = swapco.spawn(block_for_ever)
    answers: list[bool] = []
    with Crew() as crew:
        crew.act(
            "thread",
            lambda: answers.extend(
                swapco.resume(fiber, number)
                for fiber in (fresh, done, parked)
                for number in (1, 2)
            ),
        )
    assert answers == [True, False, False, False, True, False]
    lot.unpark("item")
    assert fresh.join() == 1
    assert parked.join() == ("item", 1)
    end(blocked)
