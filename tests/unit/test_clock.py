"""Clocks and the timer heap: a heap model, durations, and a loop whose time a test decides."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref
from typing import Any

import pytest
from helpers import in_fiber, settle
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

import swapco
from swapco._core.clock import PyTimerHeap, Timer
from swapco.lowlevel import Clock, ManualClock

pytestmark = pytest.mark.usefixtures("fibers")

NEVER_NS = 2**63 - 1


# ------------------------------------------------------------------------------------------------ the heap


class HeapMachine(RuleBasedStateMachine):
    """The heap against a sorted list."""

    timers = Bundle("timers")

    def __init__(self) -> None:
        super().__init__()
        self.heap = PyTimerHeap()
        self.model: list[tuple[int, int]] = []
        self.fired: list[int] = []
        self.count = 0
        self.now = 0

    @rule(target=timers, deadline=st.integers(0, 20) | st.integers(0, 10**12))
    def arm(self, deadline: int) -> tuple[int, int, Timer]:
        number = self.count
        self.count += 1
        timer = self.heap.arm(deadline, lambda: self.fired.append(number))
        assert timer.armed
        assert timer.deadline_ns == deadline
        self.model.append((deadline, number))
        return deadline, number, timer

    @rule(entry=timers)
    def disarm(self, entry: tuple[int, int, Timer]) -> None:
        deadline, number, timer = entry
        assert timer.armed == ((deadline, number) in self.model)
        self.heap.disarm(timer)
        assert not timer.armed
        if (deadline, number) in self.model:
            self.model.remove((deadline, number))

    @rule(entry=consumes(timers))
    def forget(self, entry: tuple[int, int, Timer]) -> None:
        """The heap holds what is armed."""

    @rule(step=st.integers(0, 10))
    def advance(self, step: int) -> None:
        self.now += step
        due = sorted(entry for entry in self.model if entry[0] <= self.now)
        self.model = [entry for entry in self.model if entry[0] > self.now]
        self.fired.clear()
        assert self.heap.fire_due(self.now) == len(due)
        assert self.fired == [number for _, number in due]

    @invariant()
    def agrees(self) -> None:
        assert len(self.heap) == len(self.model)
        assert self.heap.head_ns() == (min(self.model)[0] if self.model else NEVER_NS)


TestHeap = HeapMachine.TestCase
TestHeap.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(st.lists(st.integers(0, 50), max_size=300))
def test_timers_of_one_deadline_fire_in_the_order_of_arming(deadlines: list[int]) -> None:
    """The heap is stable."""
    heap = PyTimerHeap()
    fired: list[tuple[int, int]] = []
    for number, deadline in enumerate(deadlines):
        heap.arm(deadline, lambda entry=(deadline, number): fired.append(entry))
    heap.fire_due(50)
    assert fired == sorted(fired)
    assert len(fired) == len(deadlines)


def test_a_timer_may_arm_and_disarm_others_when_it_fires() -> None:
    """Those that become due meanwhile fire in the same go."""
    heap = PyTimerHeap()
    fired: list[str] = []

    def first() -> None:
        fired.append("first")
        heap.disarm(second)
        heap.arm(1, lambda: fired.append("third"))
        heap.arm(3, lambda: fired.append("late"))

    heap.arm(1, first)
    second = heap.arm(2, lambda: fired.append("second"))
    assert heap.fire_due(2) == 2
    assert fired == ["first", "third"]
    assert len(heap) == 1


def test_a_timer_that_raises_leaves_the_others_armed() -> None:
    """The error comes out; the heap is whole."""
    heap = PyTimerHeap()
    fired: list[int] = []
    heap.arm(1, lambda: 1 // 0)
    heap.arm(1, lambda: fired.append(2))
    with pytest.raises(ZeroDivisionError):
        heap.fire_due(1)
    assert len(heap) == 1
    assert heap.fire_due(1) == 1
    assert fired == [2]


def test_a_timer_belongs_to_one_heap() -> None:
    """Disarming it in another one is an error, not a corrupt heap."""
    mine, other = PyTimerHeap(), PyTimerHeap()
    timer = mine.arm(5, int)
    other.arm(5, int)
    with pytest.raises(RuntimeError, match="another heap"):
        other.disarm(timer)
    mine.disarm(timer)
    mine.disarm(timer)
    assert (len(mine), len(other)) == (0, 1)


def test_a_heap_holds_its_timers_and_lets_go_of_them() -> None:
    """Armed timers live as long as the heap, no longer."""

    class Callback:
        def __call__(self) -> None:
            pass

    heap = PyTimerHeap()
    references = []
    for deadline in range(200):
        callback = Callback()
        references.append(weakref.ref(callback))
        heap.arm(deadline, callback)
    del callback
    heap.fire_due(99)
    assert [reference() is None for reference in references] == [True] * 100 + [False] * 100
    del heap
    gc.collect()
    assert all(reference() is None for reference in references)


# --------------------------------------------------------------------------------------------------- clocks


def test_clock_is_the_monotonic_clock() -> None:
    """In seconds and in nanoseconds."""
    clock = Clock()
    before, seen, after = time.monotonic(), clock.time(), time.monotonic()
    assert before <= seen <= after
    assert before * 1e9 <= clock.time_ns() + 1000


@given(st.floats(0, 1e6), st.lists(st.floats(0, 1e3), max_size=20))
def test_a_manual_clock_moves_only_by_advance(start: float, steps: list[float]) -> None:
    """And only forward."""
    clock = ManualClock(start)
    assert clock.time() == pytest.approx(start, abs=1e-8)
    total = start
    for step in steps:
        clock.advance(step)
        total += step
        assert clock.time() == pytest.approx(total, abs=1e-6)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1e-9)


@pytest.mark.parametrize("wrong", [math.nan, float("nan")])
def test_a_manual_clock_refuses_nan(wrong: float) -> None:
    """NaN is no point in time."""
    with pytest.raises(ValueError, match="NaN"):
        ManualClock(wrong)
    with pytest.raises(ValueError):
        ManualClock().advance(wrong)


@pytest.mark.parametrize(
    "wait",
    [
        lambda limit: swapco.block(limit),
        lambda limit: swapco.sleep(limit),
        lambda limit: swapco.switch_to(swapco.spawn(int), timeout=limit),
        lambda limit: swapco.spawn(int).join(limit),
        lambda limit: swapco.Lock().acquire(timeout=limit),
        lambda limit: swapco.lowlevel.ParkingLot().park(limit),
    ],
)
@in_fiber
def test_durations_that_are_none(wait: Any) -> None:
    """NaN is a ValueError, words are a TypeError, at once and without a trace."""
    me = swapco.current_fiber()
    for wrong, error in ((math.nan, ValueError), ("1", TypeError), (b"1", TypeError), ([], TypeError)):
        with pytest.raises(error):
            wait(wrong)
    settle()
    assert me.scheduler.statistics()["timers"] == 0
    assert swapco.all_fibers() == {me}
    with pytest.raises(TimeoutError):
        swapco.block(0)


@pytest.mark.parametrize("limit", [0, -1, -math.inf, -1e300, 0.0, -0.0])
@in_fiber
def test_negative_timeouts_expire_at_once(limit: float) -> None:
    """As in asyncio."""
    with pytest.raises(TimeoutError):
        swapco.block(limit)
    with pytest.raises(TimeoutError):
        swapco.lowlevel.ParkingLot().park(limit)
    swapco.sleep(limit)


@pytest.mark.parametrize("limit", [math.inf, 1e300, 1e18, 10**30, 9.3e9])
@in_fiber
def test_endless_timeouts_never_expire(limit: float) -> None:
    """No overflow anywhere."""
    fiber = swapco.spawn(swapco.block, limit)
    swapco.sleep(0.001)
    assert fiber.state == "BLOCKED"
    swapco.resume(fiber, "value")
    assert fiber.join(limit) == "value"


@in_fiber
def test_no_wait_ends_early() -> None:
    """By the monotonic clock, whatever the fraction."""
    for number in range(1, 40):
        delay = number * 0.000137
        begin = time.monotonic()
        swapco.sleep(delay)
        assert time.monotonic() - begin >= delay
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            swapco.block(delay)
        assert time.monotonic() - begin >= delay


@in_fiber
def test_waits_are_not_late_by_whole_milliseconds() -> None:
    """Timers have the resolution of the kernel's, not of the loop's; the best of a few, on a busy machine."""
    late = []
    for _ in range(30):
        begin = time.monotonic()
        swapco.sleep(0.0003)
        late.append(time.monotonic() - begin - 0.0003)
    assert min(late) < 0.0005


# ------------------------------------------------------------------------------- a loop with a manual clock


class Timeline:
    """A loop whose clock stands still, in a fiber that moves it."""

    def __init__(self) -> None:
        self.clock = ManualClock(100.0)

    def run(self, main: Any) -> Any:
        return swapco.run(main, loop_factory=lambda: swapco.Loop(clock=self.clock))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        settle()


def test_loop_time_and_timers_follow_the_clock() -> None:
    """Loop.time, call_later, call_at, sleep and block: nothing happens until the clock moves, then in order."""
    line = Timeline()
    events: list[str] = []

    def sleeper(delay: float) -> None:
        swapco.sleep(delay)
        events.append(f"sleep {delay}")

    def blocker(delay: float) -> None:
        with pytest.raises(TimeoutError):
            swapco.block(delay)
        events.append(f"block {delay}")

    def main() -> None:
        loop = asyncio.get_running_loop()
        assert loop.time() == 100.0
        fibers = [swapco.spawn(sleeper, 10), swapco.spawn(blocker, 5), swapco.spawn(sleeper, 7)]
        settle()
        loop.call_later(6, events.append, "later 6")
        loop.call_at(108.0, events.append, "at 108")
        cancelled = loop.call_later(6, events.append, "never")
        cancelled.cancel()
        time.sleep(0.002)
        settle()
        assert events == []
        line.advance(4.999)
        assert events == []
        line.advance(0.001)
        assert events == ["block 5"]
        line.advance(3.5)
        assert events == ["block 5", "sleep 7", "later 6", "at 108"] or events == [
            "block 5", "later 6", "at 108", "sleep 7",
        ]  # fmt: skip
        line.advance(100)
        assert events[-1] == "sleep 10"
        assert loop.time() == pytest.approx(208.5)
        swapco.wait(fibers)

    line.run(main)


def test_asyncio_timeouts_follow_the_clock() -> None:
    """asyncio.timeout, wait_for and sleep inside a coroutine, and swapco.timeout."""
    line = Timeline()

    async def limited() -> str:
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(3600)
        except TimeoutError:
            return "timed out"
        return "slept"

    async def waited() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 7)

    def native() -> None:
        with swapco.timeout(6):
            swapco.block()

    def main() -> None:
        fibers = [swapco.spawn(fn) for fn in (limited, waited, native)]
        fibers.append(swapco.spawn(asyncio.sleep, 8, "s"))
        settle(8)
        line.advance(4.9)
        assert not any(fiber.done() for fiber in fibers)
        line.advance(0.2)
        settle(8)
        assert [fiber.done() for fiber in fibers] == [True, False, False, False]
        line.advance(1)
        settle(8)
        assert [fiber.done() for fiber in fibers] == [True, False, True, False]
        line.advance(1)
        settle(8)
        assert [fiber.done() for fiber in fibers] == [True, True, True, False]
        line.advance(1)
        settle(8)
        assert fibers[3].join() == "s"
        assert fibers[0].join() == "timed out"
        for fiber in fibers[1:3]:
            with pytest.raises(TimeoutError):
                fiber.join()

    line.run(main)


def test_ten_years_take_no_time() -> None:
    """A program that only sleeps runs as fast as its clock is moved: each move ends one sleep."""
    line = Timeline()
    days = 3650

    def main() -> None:
        fiber = swapco.spawn(lambda: [swapco.sleep(86400) for _ in range(days)])
        swapco.sleep(0)
        for _ in range(days):
            assert not fiber.done()
            line.clock.advance(86400)
            asyncio.get_running_loop().call_soon(int)
            swapco.sleep(0)
            swapco.sleep(0)
        assert fiber.done()
        fiber.join()

    line.run(main)


def test_a_loop_takes_a_clock_only() -> None:
    """Bad input: an error that says what was expected."""
    with pytest.raises(TypeError, match="Clock"):
        swapco.Loop(clock=time)
