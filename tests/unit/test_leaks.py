"""What a fiber leaves behind when it is done: nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from helpers import in_fiber, run_program, settle

import swapco
from swapco import socket
from swapco.lowlevel import ParkingLot

pytestmark = pytest.mark.usefixtures("fibers")


class Thing:
    """Something that can be watched."""


def ends_normally(thing: Thing) -> None:
    held = thing
    swapco.sleep(0)
    del held


def raises(thing: Thing) -> None:
    held = thing
    swapco.sleep(0)
    raise ValueError(held)


def is_cancelled(thing: Thing) -> None:
    held = thing
    swapco.current_fiber().cancel()
    swapco.sleep(0)
    del held


def times_out(thing: Thing) -> None:
    held = thing
    swapco.block(0.0001)
    del held


def is_resumed_with(thing: Thing) -> None:
    swapco.resume(swapco.current_fiber(), thing)


async def coroutine(thing: Thing) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "body", [ends_normally, raises, is_cancelled, times_out, is_resumed_with, coroutine], ids=lambda body: body.__name__
)
@in_fiber
def test_a_finished_fiber_is_freed_and_holds_nothing(body: Callable[..., Any]) -> None:
    """Neither a pooled stack nor a parked frame nor the scheduler keeps it, its function, arguments or outcome."""
    thing = Thing()
    fiber = swapco.spawn(body, thing)
    swapco.wait([fiber])
    fiber.exception() if not fiber.cancelled() else None
    references = [weakref.ref(thing), weakref.ref(fiber)]
    del fiber, thing
    settle()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@in_fiber
def test_a_finished_fiber_is_freed_without_the_garbage_collector() -> None:
    """It is in no cycle."""
    gc.disable()
    try:
        fiber = swapco.spawn(swapco.sleep, 0)
        fiber.join()
        reference = weakref.ref(fiber)
        del fiber
        settle()
        assert reference() is None
    finally:
        gc.enable()


@in_fiber
def test_a_parked_fiber_does_not_keep_alive_who_ran_after_it() -> None:
    """The C frames of a switch hold no reference to another fiber, handoffs included."""
    lot = ParkingLot()
    me = swapco.current_fiber()
    long = swapco.spawn(lot.park)
    short = swapco.spawn(swapco.resume, me)
    swapco.switch_to(short)
    reference = weakref.ref(short)
    del short
    settle()
    gc.collect()
    assert reference() is None
    lot.unpark()
    long.join()


@in_fiber
def test_a_blocked_fiber_is_held_by_the_scheduler_alone() -> None:
    """Nobody else needs to keep it; a weak reference sees it end."""
    event = swapco.Event()
    reference = weakref.ref(swapco.spawn(event.wait))
    settle()
    gc.collect()
    assert reference() is not None
    event.set()
    settle()
    gc.collect()
    assert reference() is None


@in_fiber
def test_the_value_of_a_resume_is_not_kept() -> None:
    """Handed over, left as a token, or lost with a fiber that ends."""
    references = []

    def value() -> Thing:
        thing = Thing()
        references.append(weakref.ref(thing))
        return thing

    taker = swapco.spawn(swapco.block)
    swapco.sleep(0)
    swapco.resume(taker, value())
    taker.join()
    del taker
    ends = swapco.spawn(int)
    swapco.resume(ends, value())
    ends.join()
    swapco.resume(swapco.current_fiber(), value())
    swapco.block()
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def program() -> None:
    """One of everything."""
    lot = ParkingLot()
    queue: Any = swapco.Queue(1)
    near, far = socket.socketpair()

    def echo() -> None:
        while data := near.recv(10):
            near.sendall(data)

    with near, far:
        fibers = [swapco.spawn(echo), swapco.spawn(lot.park), swapco.spawn(lambda: [queue.get() for _ in range(10)])]
        for number in range(10):
            queue.put(number)
            far.sendall(b"data")
            assert far.recv(10) == b"data"
        with pytest.raises(TimeoutError):
            swapco.block(0.0001)
        thread = threading.Thread(target=lot_unpark, args=(fibers[1],))
        thread.start()
        lot.unpark()
        thread.join()
        far.shutdown(socket.SHUT_WR)
        swapco.wait(fibers)
        swapco.await_(asyncio.sleep(0))
        with swapco.TaskGroup() as group:
            for _ in range(20):
                group.spawn(swapco.sleep, 0)


def lot_unpark(fiber: swapco.Fiber) -> None:
    swapco.resume(fiber)


def grown(action: Callable[[], None], warm_up: int, rounds: int) -> int:
    """Bytes that Python has allocated more of after so many rounds: the least of three series.

    A leak shows in every series; a table of the interpreter's own that happened to be doubled shows in one.
    """
    for _ in range(warm_up):
        action()
    gc.collect()
    tracemalloc.start()
    try:
        action()
        series = []
        for _ in range(3):
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(rounds):
                action()
            gc.collect()
            series.append(tracemalloc.get_traced_memory()[0] - before)
        return min(series)
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_over_repeated_runs() -> None:
    """A loop, its poller, its fibers and stacks are all given back."""
    assert grown(lambda: swapco.run(program), 5, 30) < 30 * 500


def test_memory_does_not_grow_inside_one_run() -> None:
    """Nor does a loop that lives long."""
    with swapco.Runner() as runner:
        assert grown(lambda: runner.run(program), 5, 30) < 30 * 300


def test_the_memory_of_the_process_does_not_grow() -> None:
    """What tracemalloc does not see: stacks, chunks of frames, libuv's handles."""
    ended = run_program(
        """
        import gc, resource, swapco
        from swapco.lowlevel import ParkingLot

        def resident():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * resource.getpagesize()

        def main():
            lot = ParkingLot()
            def deep(n):
                return deep(n - 1) if n else lot.park()
            fibers = [swapco.spawn(deep, n % 30) for n in range(300)]
            swapco.sleep(0.002)
            lot.unpark_all()
            swapco.wait(fibers)

        def runs(count):
            for _ in range(count):
                swapco.run(main)
                # with the loop, a quarter of a megabyte: how many are there at a time must not be left to chance
                gc.collect()

        runs(30)
        before = resident()
        runs(150)
        print(resident() - before)
        """,
        timeout_s=60,
    )
    assert ended.returncode == 0, ended
    # 150 runs of 300 fibers: a leak of 100 bytes a fiber would be 4.5 MB
    assert int(ended.stdout) < 4_000_000, ended


def test_a_program_may_end_with_live_fibers() -> None:
    """Whatever holds them: no hang, no crash, no output but what the program prints."""
    for how in ("pass", "raise SystemExit(0)", "import gc; gc.collect()", "loop.close()"):
        ended = run_program(
            f"""
            import asyncio, swapco, warnings
            warnings.simplefilter("ignore", ResourceWarning)
            loop = swapco.new_event_loop()
            def parked():
                try:
                    swapco.block()
                finally:
                    pass
            async def main():
                swapco.spawn(parked)
                swapco.spawn(swapco.sleep, 3600)
                await asyncio.sleep(0.001)
                swapco.spawn(parked)
            loop.run_until_complete(main())
            print("end", flush=True)
            {how}
            """
        )
        assert (ended.stdout, ended.returncode) == ("end\n", 0), (how, ended)
