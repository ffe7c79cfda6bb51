"""Resident memory of a flow that waits: what an idle connection holds.

Each flow is one Python function that waits for an event that all of them share. Memory is what the
process gains between a state with a few such flows (so that code, pools and the loop are in place) and
one with `flows` more, all of them parked, divided by `flows`; the flow object itself and its entry in
a list of all flows are part of it. A flow with a kernel thread of its own costs more, so there are fewer
of those. Unit: bytes of RSS per flow (from /proc/self/statm).
"""

from __future__ import annotations

import gc

from benchmarks.clocks import resident_bytes

FIRST_FLOWS = 200
FLOWS_PER_THREAD = 40


def on_swapco(flows: int, thread: bool = False) -> float:
    from swapco import Event, Fiber, run, sleep, spawn

    event = Event()
    parked = 0

    def flow() -> None:
        nonlocal parked
        parked += 1
        event.wait()

    def park(count: int) -> list[Fiber]:
        due = parked + count
        fibers = [spawn(flow, thread=thread) for _ in range(count)]
        while parked < due:
            sleep(0)
        gc.collect()
        return fibers

    def main() -> float:
        first = park(FIRST_FLOWS)
        before = resident_bytes()
        more = park(flows)
        grown = resident_bytes() - before
        event.set()
        for fiber in first + more:
            fiber.join()
        return grown / flows

    grown_each: float = run(main)
    return grown_each


def on_swapco_threads(flows: int) -> float:
    return on_swapco(flows // FLOWS_PER_THREAD, thread=True)


def on_threads(flows: int) -> float:
    """Threads of ``threading``, which wait for its event."""
    from threading import Event, Thread
    from time import sleep

    flows //= FLOWS_PER_THREAD
    event = Event()
    parked = 0

    def flow() -> None:
        nonlocal parked
        parked += 1
        event.wait()

    def park(count: int) -> list[Thread]:
        due = parked + count
        threads = [Thread(target=flow) for _ in range(count)]
        for each in threads:
            each.start()
        while parked < due:
            sleep(0.001)
        sleep(0.05)
        gc.collect()
        return threads

    first = park(FIRST_FLOWS)
    before = resident_bytes()
    more = park(flows)
    grown = resident_bytes() - before
    event.set()
    for each in first + more:
        each.join()
    return grown / flows


def on_gevent(flows: int) -> float:
    from gevent import Greenlet, sleep, spawn
    from gevent.event import Event

    event = Event()
    parked = 0

    def flow() -> None:
        nonlocal parked
        parked += 1
        event.wait()

    def park(count: int) -> list[Greenlet]:
        due = parked + count
        greenlets = [spawn(flow) for _ in range(count)]
        while parked < due:
            sleep(0)
        gc.collect()
        return greenlets

    first = park(FIRST_FLOWS)
    before = resident_bytes()
    more = park(flows)
    grown = resident_bytes() - before
    event.set()
    for greenlet in first + more:
        greenlet.join()
    return grown / flows


def on_greenlet(flows: int) -> float:
    """Bare greenlets: no loop, no event; each waits for its parent."""
    from greenlet import getcurrent, greenlet

    hub = getcurrent()

    def flow() -> None:
        hub.switch()

    def park(count: int) -> list[greenlet]:
        greenlets = [greenlet(flow) for _ in range(count)]
        for each in greenlets:
            each.switch()
        gc.collect()
        return greenlets

    first = park(FIRST_FLOWS)
    before = resident_bytes()
    more = park(flows)
    grown = resident_bytes() - before
    for each in first + more:
        each.switch()
    return grown / flows
