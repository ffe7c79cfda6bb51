"""The hooks: which events come, in which order, and what becomes of a hook that raises."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from helpers import in_fiber, settle

import swapco
from swapco._core.instrument import EVENTS
from swapco.lowlevel import Instrument, ParkingLot, wait_readable

pytestmark = pytest.mark.usefixtures("fibers")


class Recorder(Instrument):
    """Every event, with names instead of fibers."""

    def __init__(self, *only: str) -> None:
        self.only = only or EVENTS
        self.events: list[tuple[Any, ...]] = []

    def note(self, event: str, *args: Any) -> None:
        if event in self.only:
            words = [arg.name if isinstance(arg, swapco.Fiber) else "hub" if arg is None else arg for arg in args]
            self.events.append((event, *words))

    def spawned(self, fiber: Any) -> None:
        self.note("spawned", fiber)

    def before_switch(self, leaving: Any, entering: Any) -> None:
        self.note("before_switch", leaving, entering)

    def after_switch(self, entering: Any) -> None:
        self.note("after_switch", entering)

    def blocked(self, fiber: Any, reason: str) -> None:
        self.note("blocked", fiber, reason)

    def resumed(self, fiber: Any) -> None:
        self.note("resumed", fiber)

    def detached(self, fiber: Any) -> None:
        self.note("detached", fiber)

    def reattached(self, fiber: Any) -> None:
        self.note("reattached", fiber)

    def finished(self, fiber: Any) -> None:
        self.note("finished", fiber)

    def polled(self, events: int) -> None:
        self.note("polled", events)


@contextmanager
def recording(*only: str) -> Iterator[Recorder]:
    recorder = Recorder(*only)
    scheduler = swapco.current_fiber().scheduler
    scheduler.add_instrument(recorder)
    try:
        yield recorder
    finally:
        scheduler.remove_instrument(recorder)


def test_every_event_has_a_method() -> None:
    """And does nothing by default."""
    instrument: Any = Instrument()
    for event in EVENTS:
        assert callable(getattr(instrument, event))
    for event in ("spawned", "after_switch", "resumed", "finished", "polled"):
        assert getattr(instrument, event)(None) is None


@in_fiber
def test_the_life_of_a_fiber() -> None:
    """Spawned, entered, blocked, resumed, entered again, finished."""
    with recording("spawned", "blocked", "resumed", "finished") as seen:
        fiber = swapco.spawn(swapco.block, name="child")
        swapco.sleep(0)
        swapco.resume(fiber)
        fiber.join()
    assert seen.events == [
        ("spawned", "child"),
        ("blocked", "child", "block(), until it is resumed"),
        ("resumed", "child"),
        ("blocked", "main", "the end of fiber 'child'"),
        ("resumed", "main"),
        ("finished", "child"),
    ] or seen.events == [
        ("spawned", "child"),
        ("blocked", "child", "block(), until it is resumed"),
        ("resumed", "child"),
        ("blocked", "main", "the end of fiber 'child'"),
        ("finished", "child"),
        ("resumed", "main"),
    ]


def check_pairs(events: list[tuple[Any, ...]]) -> None:
    """Every switch is announced and then seen; whoever leaves is who was entered last, unless it has finished."""
    current = "main"
    announced = None
    for event, *who in events:
        if event == "before_switch":
            assert announced is None, f"{announced} was announced, and then {who}"
            assert who[0] == current, f"{who[0]} leaves, but {current} ran"
            announced = who[1]
        elif event == "after_switch":
            assert announced == who[0], f"{who[0]} was entered, {announced} was announced"
            announced, current = None, who[0]
        else:
            assert who[0] == current, f"{who[0]} finished, but {current} ran"
            current = "hub"


@in_fiber
def test_switches_are_announced_and_then_seen() -> None:
    """Between fibers, to the hub and back, by handoff, to new fibers, after the end of one."""
    me = swapco.current_fiber()
    with recording("before_switch", "after_switch", "finished") as seen:
        partner = swapco.spawn(lambda: [swapco.switch_to(me) for _ in range(3)], name="partner")
        # the first one leaves the new fiber a token, which its first handoff takes
        for _ in range(2):
            swapco.switch_to(partner)
        swapco.resume(partner)
        swapco.wait([swapco.spawn(int, name=f"short {n}") for n in range(5)])
        swapco.wait([swapco.spawn(swapco.sleep, 0, name=f"yields {n}") for n in range(5)])
        swapco.sleep(0.001)
        partner.join()
    assert {who for event, *who in map(tuple, seen.events) if event == "after_switch" for who in who} >= {
        "hub", "main", "partner", "short 0", "short 4", "yields 0",
    }  # fmt: skip
    check_pairs(seen.events)


@in_fiber
def test_a_yield_of_a_lone_fiber_is_no_switch() -> None:
    """Nobody else ran, but for the loop where it was due: once in a millisecond."""
    scheduler: Any = swapco.current_fiber().scheduler
    with recording("before_switch", "after_switch") as seen:
        before, begin = scheduler.drains, time.monotonic()
        for _ in range(1000):
            swapco.sleep(0)
        drains, took_ms = scheduler.drains - before, (time.monotonic() - begin) * 1000
    there_and_back = [("main", "hub"), ("hub",), ("hub", "main"), ("main",)]
    assert [tuple(who) for _, *who in seen.events] == there_and_back * drains
    assert drains <= took_ms + 1


@in_fiber
def test_a_handoff_blocks_its_caller_and_resumes_its_target() -> None:
    """In the order in which it happens."""
    target = swapco.spawn(swapco.block, name="target")
    swapco.sleep(0)
    with recording() as seen:
        swapco.spawn(swapco.resume, swapco.current_fiber(), name="waker")
        swapco.switch_to(target)
    assert seen.events[:5] == [
        ("spawned", "waker"),
        ("resumed", "target"),
        ("blocked", "main", "switch_to(), until it is resumed"),
        ("before_switch", "main", "target"),
        ("after_switch", "target"),
    ]


@in_fiber
def test_what_a_fiber_waits_for_is_named() -> None:
    """By the reason that is passed to ``blocked``, which is also its ``wait_reason``."""
    lot = ParkingLot()
    future = swapco.current_fiber().get_loop().create_future()
    near, far = socket.socketpair()
    with near, far, recording("blocked") as seen:
        fibers = [
            swapco.spawn(swapco.sleep, 3600, name="sleeps"),
            swapco.spawn(lot.park, name="parks"),
            swapco.spawn(swapco.await_, future, name="awaits"),
            swapco.spawn(wait_readable, near, name="reads"),
        ]
        settle()
        assert {(name, reason) for _, name, reason in seen.events} == {
            (fiber.name, fiber.wait_reason) for fiber in fibers
        }
        assert [fiber.waits_for_object for fiber in fibers[1:]] == [lot, future, near]
        for fiber in fibers:
            fiber.cancel()
        swapco.wait(fibers)
    assert [fiber.wait_reason for fiber in fibers] == [None] * 4


@in_fiber
def test_polled_counts_what_was_found() -> None:
    """One event: the descriptor; then none is missed."""
    near, far = socket.socketpair()
    with near, far, recording("polled") as seen:
        reader = swapco.spawn(wait_readable, near)
        swapco.sleep(0)
        far.send(b"x")
        reader.join()
    assert ("polled", 1) in seen.events


def give_up_and_come_back() -> None:
    with swapco.blocking():
        pass


@pytest.mark.parametrize("event", EVENTS)
@in_fiber
def test_a_hook_that_raises_is_removed_and_reported(event: str) -> None:
    """The program goes on as if nothing had been; another instrument still sees everything."""
    reports: list[Any] = []
    calls = 0

    def raises(self: Any, *args: Any) -> None:
        nonlocal calls
        calls += 1
        raise ValueError(f"broken in {event}")

    broken = type("Broken", (Instrument,), {event: raises})()
    scheduler = swapco.current_fiber().scheduler
    before, sys.unraisablehook = sys.unraisablehook, reports.append
    near, far = socket.socketpair()
    try:
        scheduler.add_instrument(broken)
        with near, far, recording() as seen:
            fiber = swapco.spawn(swapco.block)
            reader = swapco.spawn(wait_readable, near)
            swapco.sleep(0.001)
            swapco.resume(fiber, "value")
            far.send(b"x")
            assert fiber.join() == "value"
            reader.join()
            swapco.spawn(give_up_and_come_back, thread=True).join()
            for _ in range(5):
                swapco.sleep(0)
    finally:
        sys.unraisablehook = before
    assert calls == 1
    assert len(reports) == 1
    assert isinstance(reports[0].exc_value, ValueError)
    assert event in reports[0].err_msg
    assert reports[0].object is broken
    assert event in {entry[0] for entry in seen.events}
    with pytest.raises(ValueError, match="not installed"):
        scheduler.remove_instrument(broken)


@in_fiber
def test_installing_and_removing() -> None:
    """Any number at a time; each once removed; only instruments."""
    scheduler = swapco.current_fiber().scheduler
    with recording("spawned") as first:
        with recording("spawned") as second:
            swapco.spawn(int, name="both").join()
        swapco.spawn(int, name="one").join()
    swapco.spawn(int, name="none").join()
    assert first.events == [("spawned", "both"), ("spawned", "one")]
    assert second.events == [("spawned", "both")]
    with pytest.raises(ValueError, match="not installed"):
        scheduler.remove_instrument(first)
    for wrong in (None, object(), Instrument, print):
        with pytest.raises(TypeError, match="Instrument"):
            scheduler.add_instrument(wrong)


@in_fiber
def test_a_hook_may_remove_its_own_instrument() -> None:
    """While its event is being told."""
    scheduler = swapco.current_fiber().scheduler

    class Once(Instrument):
        seen = 0

        def spawned(self, fiber: Any) -> None:
            self.seen += 1
            scheduler.remove_instrument(self)

    once = Once()
    scheduler.add_instrument(once)
    with recording("spawned") as other:
        for _ in range(3):
            swapco.spawn(int).join()
    assert once.seen == 1
    assert len(other.events) == 3


@in_fiber
def test_a_hook_that_blocks_is_reported_not_obeyed() -> None:
    """Hooks run inside the scheduler: a block there is an error, not a corrupt scheduler."""
    reports: list[Any] = []

    class Blocks(Instrument):
        def before_switch(self, leaving: Any, entering: Any) -> None:
            swapco.sleep(0)

    before, sys.unraisablehook = sys.unraisablehook, reports.append
    scheduler = swapco.current_fiber().scheduler
    try:
        scheduler.add_instrument(Blocks())
        swapco.spawn(int).join()
        swapco.sleep(0.001)
    finally:
        sys.unraisablehook = before
    assert [type(report.exc_value) for report in reports] == [swapco.NotInFiber]
