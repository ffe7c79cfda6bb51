"""Detached fibers: thread fibers that block in the kernel, or compute, and have lost the slot.

The others go on meanwhile.  A detached fiber is a foreign thread to them: it resumes and cancels like one; for anything
else it comes back through the inbox, and waits for its turn.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, in_fiber, into_the_inbox, settle, wait_until
from thread_support import (
    Held,
    entered,
    in_quiet_fiber,
    run_detached,
    statistics,
    thread,
    until_blocked,
    until_detached,
)

import swapco

pytestmark = pytest.mark.usefixtures("fibers")


# ---------------------------------------------------------------------------------------------- detached


@in_fiber
def test_the_others_go_on_while_one_blocks() -> None:
    held = Held()
    turns: list[int] = []

    def counts(n: int) -> None:
        for _ in range(50):
            turns.append(n)
            swapco.sleep(0)

    blocked = [thread(held) for _ in range(3)]
    until_detached(*blocked)
    swapco.wait([swapco.spawn(counts, n, thread=n == 1) for n in range(3)])
    assert len(turns) == 150
    assert [fiber.state for fiber in blocked] == ["DETACHED"] * 3
    held.let_go()
    swapco.wait(blocked)


@in_fiber
def test_timers_and_callbacks_go_on_while_one_blocks() -> None:
    held = Held()
    loop = asyncio.get_running_loop()
    called: list[str] = []
    blocked = thread(held)
    loop.call_soon(called.append, "callback")
    loop.call_later(0.005, called.append, "timer")
    until_detached(blocked)
    wait_until(lambda: sorted(called) == ["callback", "timer"])
    assert blocked.state == "DETACHED"
    held.let_go()
    blocked.join()


@in_fiber
def test_one_that_computes_is_detached_too() -> None:
    stop = False

    def computes() -> int:
        n = 0
        while not stop:
            n += 1
        return n

    fiber = thread(computes)
    until_detached(fiber)
    stop = True
    assert fiber.join() > 0


@pytest.mark.parametrize("work", [0, 1_000], ids=["only calls", "computes, too"])
def test_one_that_calls_all_the_time_but_never_waits_has_its_turn_and_no_more(work: int) -> None:
    def main() -> None:
        queue: swapco.Queue[int] = swapco.Queue()
        enough = threading.Event()

        def polls() -> bool:
            give_up = time.monotonic() + 30
            while not enough.is_set() and time.monotonic() < give_up:
                queue.put_nowait(sum(range(work)))
                queue.get_nowait()
            return enough.is_set()

        fiber = swapco.spawn(polls, thread=True)
        # both I/O and timers: each would wait for the 30 seconds
        for _ in range(5):
            swapco.sleep(0.001)
            left, right = swapco.socket.socketpair()
            with left, right:
                right.send(b"x")
                assert left.recv(1) == b"x"
        enough.set()
        assert fiber.join()
        # each revocation has one end, whoever revoked
        now = statistics()
        revoked = now["revoked_by_monitor"] + now["revoked_by_sentinel"] + now["revoked_by_signal"]
        assert revoked == now["taken_back"] + now["detaches"]
        assert now["detaches"] > 0

    swapco.run(main)


@pytest.mark.parametrize("asks", [True, False], ids=["blocking()", "revoked"])
def test_two_in_c_code_use_two_cpus(asks: bool) -> None:
    """They are in zlib at the same time, free to run on all CPUs, and are seen on two."""
    cpus = os.sched_getaffinity(0)
    data = os.urandom(1 << 20)
    enough = threading.Event()
    inside: dict[int, int] = {}

    def compresses() -> None:
        me = threading.get_native_id()
        for call in range(1, 1_000_000):
            inside[me] = call
            zlib.compress(data)
            inside[me] = 0
            if enough.is_set():
                return

    def gives_up() -> None:
        with swapco.blocking():
            compresses()

    def on_cpu(me: int) -> tuple[str, int]:
        fields = Path(f"/proc/self/task/{me}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[36])

    def both_run() -> bool:
        before = dict(inside)
        seen = [on_cpu(me) for me in before]
        if len(before) < 2 or 0 in before.values() or inside != before:
            return False
        if any(os.sched_getaffinity(me) != cpus for me in before) or [state for state, _ in seen] != ["R", "R"]:
            return False
        return len(cpus) == 1 or seen[0][1] != seen[1][1]

    def main() -> None:
        fibers = [thread(gives_up if asks else compresses) for _ in range(2)]
        try:
            wait_until(both_run)
            assert [fiber.state for fiber in fibers] == ["DETACHED"] * 2
        finally:
            enough.set()
            swapco.wait(fibers)

    swapco.run(main)


@in_fiber
def test_one_that_comes_back_waits_for_its_turn() -> None:
    """It never preempts the owner: it goes through the run queue, behind who was ready before."""
    ran: list[str] = []
    gate = threading.Event()

    def body() -> None:
        gate.wait()
        swapco.sleep(0)
        ran.append("came back")

    fiber = thread(body)
    until_detached(fiber)
    swapco.spawn(ran.append, "ready before")
    # the slot stays here, while it asks for it
    into_the_inbox(fiber, gate.set)
    assert ran == []
    assert fiber.state == "DETACHED"
    fiber.join()
    assert ran == ["ready before", "came back"]


@in_fiber
def test_those_that_come_back_run_in_that_order() -> None:
    gates = [threading.Event() for _ in range(5)]

    def body(n: int) -> None:
        gates[n].wait()
        swapco.sleep(0)

    fibers = [thread(body, n) for n in range(5)]
    until_detached(*fibers)
    order = (3, 0, 4, 1, 2)
    with entered() as seen:
        for n in order:
            # keeps the slot: it only comes as far as the inbox
            into_the_inbox(fibers[n], gates[n].set)
        swapco.wait(fibers)
    assert seen.first_turns(fibers) == [fibers[n] for n in order]


@in_fiber
def test_detached_again_and_again() -> None:
    turns = 6
    gates = [threading.Event() for _ in range(turns)]
    at: list[int] = []

    def body() -> None:
        for n, gate in enumerate(gates):
            at.append(n)
            gate.wait()
            swapco.sleep(0)

    fiber = thread(body)
    before = statistics()["reattaches"]
    for n, gate in enumerate(gates):
        wait_until(lambda n=n: len(at) == n + 1 and fiber.state == "DETACHED")
        gate.set()
    fiber.join()
    assert statistics()["reattaches"] - before >= turns


def in_lock(lock: Any) -> None:
    lock.acquire()


@in_fiber
def test_releasing_operations_of_a_detached_one_wake_others() -> None:
    event, semaphore, queue = swapco.Event(), swapco.Semaphore(0), swapco.Queue[int]()
    condition = swapco.Condition()
    got: list[Any] = []

    def waits_for_condition() -> None:
        with condition:
            got.append(condition.wait())

    waiters = [
        swapco.spawn(event.wait),
        thread(semaphore.acquire),
        swapco.spawn(queue.get),
        thread(waits_for_condition),
        swapco.spawn(queue.join),
    ]
    queue.put_nowait(0)
    until_blocked(waiters[0], waiters[1], waiters[3], waiters[4])

    def releases() -> None:
        event.set()
        held()
        semaphore.release()
        held()
        queue.put_nowait(1)
        queue.task_done()
        queue.task_done()
        held()
        with condition:
            condition.notify()

    held = Held()
    fiber = run_detached(releases, held.let_go)
    fiber.join(SOON_S)
    assert waiters[0].join(SOON_S) is True
    assert waiters[1].join(SOON_S) is True
    assert waiters[2].join(SOON_S) == 0
    waiters[3].join(SOON_S)
    waiters[4].join(SOON_S)
    assert got == [True]
    assert queue.get() == 1


@in_fiber
def test_a_detached_one_releases_the_lock_that_it_holds() -> None:
    lock, held = swapco.Lock(), Held()

    def holds() -> None:
        with lock:
            held()

    holder = thread(holds)
    until_detached(holder)
    assert lock.owner is holder
    with pytest.raises(TimeoutError):
        lock.acquire(timeout=0.001)
    waiter = swapco.spawn(in_lock, lock)
    settle()
    held.let_go()
    waiter.join(SOON_S)
    holder.join()
    assert lock.owner is waiter


@in_fiber
def test_resume_by_and_of_a_detached_one() -> None:
    """``resume`` never waits for the slot; a detached fiber gets a token."""
    target = thread(swapco.block)
    until_blocked(target)
    got: list[Any] = []

    def body() -> None:
        got.append(swapco.resume(target, "by"))
        got.append(swapco.current_fiber().state)
        got.append(swapco.block())

    def meanwhile() -> None:
        (fiber,) = (f for f in swapco.all_fibers() if f.state == "DETACHED")
        assert swapco.resume(fiber, "of") is True
        assert swapco.resume(fiber, "too many") is False

    run_detached(body, meanwhile).join(SOON_S)
    assert got == [True, "DETACHED", "of"]
    assert target.join() == "by"


@in_fiber
def test_switch_to_a_detached_one_leaves_a_token() -> None:
    got: list[Any] = []
    main = swapco.current_fiber()

    def body() -> None:
        got.append(swapco.block())
        swapco.resume(main, "back")

    held = Held()

    def blocks() -> None:
        held()
        body()

    fiber = thread(blocks)
    until_detached(fiber)
    swapco.spawn(held.let_go)
    assert swapco.switch_to(fiber, "token") == "back"
    fiber.join()
    assert got == ["token"]


@in_quiet_fiber
def test_quiet_thread_fibers_keep_the_slot() -> None:
    """Short blocks in the kernel are not noticed: no detour for them."""
    before = statistics()["detaches"]
    swapco.wait([thread(time.sleep, 0.001) for _ in range(10)])
    assert statistics()["detaches"] == before
