"""``blocking()``: give the slot up around code that is known to block; no detector is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from helpers import in_fiber, into_the_inbox
from thread_support import Held, in_quiet_fiber, on_thread, run_detached, statistics, thread, until_detached

import swapco

pytestmark = pytest.mark.usefixtures("fibers")


def fail(text: str) -> None:
    raise LookupError(text)


# -------------------------------------------------------------------------------------------- blocking


def revocations() -> int:
    seen = statistics()
    return int(seen["revoked_by_monitor"] + seen["revoked_by_sentinel"] + seen["revoked_by_signal"])


@in_quiet_fiber
def test_blocking_gives_the_slot_up_at_once() -> None:
    held = Held()
    states: list[str] = []

    def body() -> None:
        me = swapco.current_fiber()
        states.append(me.state)
        with swapco.blocking():
            states.append(me.state)
            held()
        states.append(me.state)

    fiber = thread(body)
    until_detached(fiber)
    assert revocations() == 0
    assert statistics()["detaches"] == 1
    held.let_go()
    fiber.join()
    assert states == ["RUNNING", "DETACHED", "RUNNING"]
    assert statistics()["reattaches"] == 1
    assert revocations() == 0


@in_quiet_fiber
def test_blocking_in_to_thread() -> None:
    def call() -> str:
        with swapco.blocking():
            return swapco.current_fiber().state

    assert swapco.to_thread(call) == "DETACHED"


@in_quiet_fiber
def test_blocking_may_be_nested() -> None:
    states: list[str] = []

    def note() -> None:
        states.append(swapco.current_fiber().state)

    def body() -> None:
        with swapco.blocking():
            with swapco.blocking():
                note()
            note()
            with swapco.blocking(), swapco.blocking():
                note()
        note()
        with swapco.blocking():
            note()
        note()

    on_thread(body)
    assert states == ["DETACHED"] * 3 + ["RUNNING", "DETACHED", "RUNNING"]
    assert statistics()["detaches"] == 2


@in_quiet_fiber
def test_at_the_end_of_blocking_it_waits_for_its_turn() -> None:
    ran: list[str] = []
    held = Held()

    def body() -> None:
        with swapco.blocking():
            held()
        ran.append("came back")

    fiber = thread(body)
    until_detached(fiber)
    swapco.spawn(ran.append, "ready before")
    # keeps the slot
    into_the_inbox(fiber, held.let_go)
    assert ran == []
    assert fiber.state == "DETACHED"
    fiber.join()
    assert ran == ["ready before", "came back"]


@in_quiet_fiber
def test_blocking_in_an_ordinary_fiber() -> None:
    with pytest.raises(RuntimeError, match="must not block.*to_thread"):
        with swapco.blocking():
            raise AssertionError("too far")
    assert statistics()["detaches"] == 0


@in_quiet_fiber
def test_an_exception_inside_of_blocking() -> None:
    def body() -> str:
        with pytest.raises(LookupError, match="inside"):
            with swapco.blocking():
                fail("inside")
        return swapco.current_fiber().state

    assert on_thread(body) == "RUNNING"


@in_quiet_fiber
def test_swapco_may_be_called_inside_of_blocking() -> None:
    """It waits for the slot then, and keeps it: the end of the block changes nothing."""

    def body() -> list[str]:
        me = swapco.current_fiber()
        states = []
        with swapco.blocking():
            states.append(me.state)
            swapco.sleep(0)
            states.append(me.state)
        states.append(me.state)
        with swapco.blocking():
            states.append(me.state)
        states.append(me.state)
        return states

    assert on_thread(body) == ["DETACHED", "RUNNING", "RUNNING", "DETACHED", "RUNNING"]


@in_fiber
def test_blocking_by_one_that_is_detached_already() -> None:
    states: list[str] = []

    def body() -> None:
        me = swapco.current_fiber()
        with swapco.blocking():
            states.append(me.state)
        states.append(me.state)

    run_detached(body).join()
    assert states == ["DETACHED", "RUNNING"]


@in_quiet_fiber
def test_a_cancellation_during_blocking_is_raised_at_the_next_block() -> None:
    held, went = Held(), []

    def body() -> None:
        with swapco.blocking():
            held()
        went.append("left")
        swapco.sleep(0)
        went.append("too far")

    fiber = thread(body)
    until_detached(fiber)
    fiber.cancel()
    held.let_go()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert went == ["left"]


def leaves(context: Any) -> Any:
    return context.__exit__(None, None, None)


@pytest.mark.parametrize("in_thread", [False, True], ids=["ordinary", "thread"])
@in_quiet_fiber
def test_blocking_left_without_being_entered(in_thread: bool) -> None:
    def body() -> None:
        context = swapco.blocking()
        with pytest.raises(RuntimeError, match="left where it was not entered: in another fiber, or in none"):
            leaves(context)
        # and it is as good as new
        if in_thread:
            with context:
                assert swapco.current_fiber().state == "DETACHED"
        assert swapco.current_fiber().state == "RUNNING"

    swapco.spawn(body, thread=in_thread).join()


@in_quiet_fiber
def test_blocking_left_in_another_fiber() -> None:
    def generator() -> Iterator[None]:
        with swapco.blocking():
            yield

    def enters(steps: Any) -> None:
        next(steps)

    steps = generator()
    fiber = thread(enters, steps)
    fiber.join()
    with pytest.raises(RuntimeError, match="left where it was not entered: in another fiber, or in none"):
        steps.close()
    assert on_thread(lambda: swapco.current_fiber().state) == "RUNNING"


@in_quiet_fiber
def test_hundreds_of_calls_and_blocks_at_once() -> None:
    """Handing over while others come back, all the time."""

    def body(n: int) -> int:
        for _ in range(10):
            with swapco.blocking():
                pass
            swapco.to_thread(int)
        return n

    assert swapco.gather(*[thread(body, n) for n in range(30)]) == list(range(30))
    assert statistics()["detached"] == 0
