"""Scenarios of time limits, sleeps, and timers of the same instant, and their laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from own_laws import CANCELLED, LATE, Make, Scenario

import swapco
from swapco import Fiber
from swapco.testing import schedule_point

__all__ = ["SCENARIOS", "UNDISTURBED"]

GONE = (CANCELLED, LATE)


def limited_wait() -> Scenario:
    """``wait_for``: a result that came in time comes out; else what was waited for is cancelled, and has ended."""
    children: list[Fiber[str]] = []

    def child() -> str:
        swapco.sleep(1)
        schedule_point()
        return "result"

    def caller() -> str:
        children.append(swapco.spawn(child))
        try:
            result = swapco.wait_for(children[0], 1)
        except TimeoutError:
            assert children[0].cancelled()
            return "timeout"
        assert children[0].result() == result
        return result

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, "result", "timeout")
        assert all(fiber.done() for fiber in children)

    return Scenario([caller], law)


def nested_limits() -> Scenario:
    """The outer limit is over in the same instant as the inner one: each block ends with the error of its own.

    Whoever else cancels, or limits, the fiber in that instant: that is not swallowed, and nothing of a limit is left.
    """

    def caller() -> int:
        me = swapco.current_fiber()
        before = me.cancelling()
        try:
            with swapco.timeout(1) as outer:
                try:
                    with swapco.timeout(1) as inner:
                        swapco.sleep(1)
                except TimeoutError:
                    assert inner.expired()
                swapco.sleep(0)
        except TimeoutError:
            assert outer.expired()
        swapco.sleep(0)
        return me.cancelling() - before

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, 0)

    return Scenario([caller], law)


def limit_that_is_moved() -> Scenario:
    """A limit that was moved in time does not end the block; one that has ended it cannot be moved."""

    def caller() -> str:
        now = swapco.current_fiber().scheduler.clock.time
        try:
            with swapco.timeout(1) as limit:
                begun = now()
                limits.append(limit)
                swapco.sleep(3)
        except TimeoutError:
            assert limit.expired()
            return f"after {round(now() - begun)}"
        assert not limit.expired()
        return "slept"

    limits: list[Any] = []

    def mover() -> bool:
        swapco.sleep(1)
        if not limits:
            return False
        try:
            limits[0].reschedule(limits[0].when() + 1)
        except RuntimeError:
            return False
        return True

    def law(ends: list[Any]) -> None:
        assert ends[0] in GONE or ends == [f"after {2 if ends[1] else 1}", ends[1]]

    return Scenario([caller, mover], law, victims=(0,))


def timers_of_one_instant() -> Scenario:
    """Timers of the same instant: all of them fire, each sleeper once, and time does not go on before."""
    woken: list[int] = []

    def sleeper(me: int) -> Callable[[], float]:
        def sleep() -> float:
            time = swapco.current_fiber().scheduler.clock.time
            begun = time()
            swapco.sleep(1)
            woken.append(me)
            assert time() == begun + 1
            swapco.sleep(0 if me else 1)
            return round(time() - begun, 6)

        return sleep

    def law(ends: list[Any]) -> None:
        assert all(end in (*GONE, 1 if number else 2) for number, end in enumerate(ends))
        assert len(set(woken)) == len(woken)

    return Scenario([sleeper(0), sleeper(1), sleeper(2)], law)


def blocked_with_a_limit() -> Scenario:
    """``block(timeout)`` and ``resume`` in the same instant: it returns the value, or leaves the token behind."""
    sleepers: list[Fiber[Any]] = []

    def sleeper() -> list[Any]:
        sleepers.append(swapco.current_fiber())
        try:
            first = swapco.block(timeout=1)
        except TimeoutError:
            first = "late"
        try:
            return [first, swapco.block(timeout=1)]
        except TimeoutError:
            return [first, "late"]

    def waker() -> bool:
        swapco.sleep(1)
        return bool(sleepers) and swapco.resume(sleepers[0], "value")

    def law(ends: list[Any]) -> None:
        assert ends[0] in GONE or ends[0].count("value") == ends[1] == 1

    return Scenario([sleeper, waker], law, victims=(0,))


def limit_and_wakeup() -> Scenario:
    """An event that is set in the instant in which the time is over: told, or late, and never both."""
    flag = swapco.Event()
    log: list[str] = []

    def waiter() -> str:
        try:
            with swapco.timeout(1) as time:
                flag.wait()
                log.append("told")
        except TimeoutError:
            assert time.expired()
            log.append("late")
        swapco.sleep(0)
        return "ended"

    def setter() -> None:
        swapco.sleep(1)
        flag.set()

    def law(ends: list[Any]) -> None:
        assert log in (["told"], ["late"]) or ends[0] in GONE
        assert len(log) <= 1

    return Scenario([waiter, setter], law, victims=(0,))


SCENARIOS: dict[str, Make] = {
    make.__name__: make
    for make in (
        limited_wait,
        nested_limits,
        limit_and_wakeup,
        limit_that_is_moved,
        timers_of_one_instant,
        blocked_with_a_limit,
    )
}
UNDISTURBED: dict[str, Make] = {}
