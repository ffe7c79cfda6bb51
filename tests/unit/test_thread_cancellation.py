"""Cancelling thread fibers: at each point where they block, before they start, and while they are detached.

Nobody can interrupt a thread that blocks in the kernel: a cancellation waits for its next call of swapco.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, in_fiber, settle
from thread_support import MIX_NAMES, MIXES, in_quiet_fiber, on_thread, run_detached, thread, until_blocked

import swapco
from swapco import socket as cooperative
from swapco.lowlevel import ParkingLot, wait_readable

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0

mixed = pytest.mark.parametrize(("first", "second"), MIXES, ids=MIX_NAMES)


# ----------------------------------------------------------------------------------------- cancellation


def in_queue_join() -> None:
    queue = swapco.Queue[int]()
    queue.put(1)
    queue.join()


def in_put() -> None:
    queue = swapco.Queue[int](1)
    queue.put(1)
    queue.put(2)


def in_condition() -> None:
    condition = swapco.Condition()
    with condition:
        try:
            condition.wait()
        finally:
            assert condition.locked()


def in_lock() -> None:
    lock = swapco.Lock()
    owner = swapco.spawn(lambda: (lock.acquire(), swapco.block(), lock.release()))
    try:
        swapco.sleep(0)
        lock.acquire()
    finally:
        swapco.resume(owner)


def in_join() -> None:
    target = swapco.spawn(swapco.block)
    try:
        target.join()
    finally:
        assert not target.done()
        swapco.resume(target)


def in_switch_to() -> None:
    target = swapco.spawn(swapco.block)
    swapco.sleep(0)
    swapco.switch_to(target)


def in_recv() -> None:
    near, far = cooperative.socketpair()
    with near, far:
        near.recv(1)


def in_accept() -> None:
    with cooperative.create_server(("127.0.0.1", 0)) as server:
        server.accept()


def in_wait_readable() -> None:
    near, far = cooperative.socketpair()
    with near, far:
        wait_readable(near.fileno())


def in_group() -> None:
    with swapco.TaskGroup() as group:
        group.spawn(swapco.sleep, LONG)
        group.spawn(swapco.sleep, LONG, thread=True)


def in_gather() -> None:
    swapco.gather(lambda: swapco.sleep(LONG), thread(swapco.sleep, LONG))


def in_await() -> None:
    swapco.await_(asyncio.sleep(LONG))


def in_from_thread() -> None:
    swapco.from_thread.run(swapco.sleep, LONG)


def in_to_thread() -> None:
    gate = swapco.Event()
    try:
        swapco.to_thread(gate.wait)
    finally:
        gate.set()


BLOCK_POINTS: dict[str, Callable[[], Any]] = {
    "block": swapco.block,
    "switch_to": in_switch_to,
    "sleep": lambda: swapco.sleep(LONG),
    "lock": in_lock,
    "semaphore": lambda: swapco.Semaphore(0).acquire(),
    "event": lambda: swapco.Event().wait(),
    "condition": in_condition,
    "barrier": lambda: swapco.Barrier(2).wait(),
    "get": lambda: swapco.Queue[int]().get(),
    "put": in_put,
    "queue join": in_queue_join,
    "join": in_join,
    "parking lot": lambda: ParkingLot().park(),
    "recv": in_recv,
    "accept": in_accept,
    "wait_readable": in_wait_readable,
    "group": in_group,
    "gather": in_gather,
    "await_": in_await,
    "from_thread": in_from_thread,
    "to_thread": in_to_thread,
}


@pytest.mark.parametrize("where", BLOCK_POINTS)
@in_quiet_fiber
def test_cancellation_at_each_block_point(where: str) -> None:
    caught: list[Any] = []

    def body() -> str:
        try:
            BLOCK_POINTS[where]()
        except swapco.CancelledError as error:
            caught.append((threading.current_thread(), error.args))
        # it is over: the next wait goes on
        return swapco.sleep(0.001, "went on")

    fiber = thread(body)
    until_blocked(fiber)
    settle()
    assert fiber.state == "BLOCKED"
    assert fiber.cancel("why") is True
    assert fiber.join(SOON_S) == "went on"
    assert len(caught) == 1
    assert caught[0][0] is not threading.main_thread()
    if where != "gather":
        assert caught[0][1] == ("why",)
    # what was left running ends by itself, or is cancelled
    rest = swapco.all_fibers() - {swapco.current_fiber()}
    for other in rest:
        other.cancel()
    if rest:
        swapco.wait(rest)


@pytest.mark.parametrize("by_thread", [False, True], ids=["by ordinary", "by thread"])
@in_quiet_fiber
def test_cancelled_before_it_starts_it_never_runs(by_thread: bool) -> None:
    ran: list[int] = []
    main = swapco.current_fiber()
    fibers = [thread(ran.append, n) for n in range(3)]

    def cancels() -> None:
        assert fibers[1].cancel("early") is True
        swapco.resume(main)

    # it runs before those that are in the run queue
    swapco.switch_to(swapco.spawn(cancels, thread=by_thread))
    swapco.wait(fibers)
    assert ran == [0, 2]
    assert fibers[1].cancelled()
    with pytest.raises(swapco.CancelledError, match="early"):
        fibers[1].join()


@in_quiet_fiber
def test_cancelled_at_sleep_zero() -> None:
    ran: list[Any] = []

    def body() -> None:
        me = swapco.current_fiber()
        me.cancel()
        ran.append(me.state)
        with pytest.raises(swapco.CancelledError):
            swapco.sleep(0)
        me.cancel()
        me.uncancel()
        me.uncancel()
        swapco.sleep(0)
        ran.append(me.cancelling())

    on_thread(body)
    assert ran == ["RUNNING", 0]


@pytest.mark.parametrize("where", ["block", "sleep", "event", "get", "join", "recv", "await_", "from_thread"])
@in_fiber
def test_cancelled_while_detached_it_is_raised_at_the_next_block(where: str) -> None:
    went: list[str] = []
    target: list[Any] = []

    def body() -> None:
        went.append(swapco.current_fiber().state)
        # releasing is no cancellation point
        swapco.Semaphore(0).release()
        swapco.Queue[int]().put_nowait(1)
        with swapco.Lock():
            went.append("locked")
        BLOCK_POINTS[where]()
        went.append("too far")

    def meanwhile() -> None:
        (fiber,) = (f for f in swapco.all_fibers() if f.state == "DETACHED")
        target.append(fiber)
        assert fiber.cancel("why") is True
        assert fiber.state == "DETACHED"

    fiber = run_detached(body, meanwhile)
    assert target == [fiber]
    with pytest.raises(swapco.CancelledError, match="why"):
        fiber.join(SOON_S)
    assert "too far" not in went
    rest = swapco.all_fibers() - {swapco.current_fiber()}
    for other in rest:
        other.cancel()
    if rest:
        swapco.wait(rest)


@in_fiber
def test_cancelled_while_detached_it_may_end_first() -> None:
    fiber = run_detached(lambda: "ended", lambda: [f.cancel() for f in swapco.all_fibers() if f.state == "DETACHED"])
    assert fiber.join(SOON_S) == "ended"
    assert not fiber.cancelled()


@in_quiet_fiber
def test_a_wake_up_that_has_won_stands_against_a_cancellation() -> None:
    queue = swapco.Queue[str]()
    got: list[Any] = []

    def body() -> None:
        got.append(queue.get())
        swapco.sleep(0)

    fiber = thread(body)
    until_blocked(fiber)
    queue.put_nowait("item")
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert got == ["item"]


@mixed
@in_quiet_fiber
def test_cancelling_a_joiner_leaves_its_target(first: bool, second: bool) -> None:
    target = swapco.spawn(swapco.block, thread=first)
    joiner = swapco.spawn(target.join, thread=second)
    until_blocked(target, joiner)
    thread(joiner.cancel).join()
    with pytest.raises(swapco.CancelledError):
        joiner.join()
    assert target.state == "BLOCKED"
    swapco.resume(target, 1)
    assert target.join() == 1
