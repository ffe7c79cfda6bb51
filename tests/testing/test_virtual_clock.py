"""VirtualClock on a real loop: time that passes only when nothing can happen, and never while something real may."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import run_program, settle

import swapco
from swapco.testing import VirtualClock

pytestmark = pytest.mark.usefixtures("fibers")

YEAR_S = 365 * 86_400.0
SOON_S = 0.05
FAR_S = 1e6


def run(main: Callable[..., Any], clock: VirtualClock | None = None) -> Any:
    return swapco.run(main, loop_factory=lambda: swapco.new_event_loop(clock=clock or VirtualClock(autojump=True)))


def now() -> float:
    return asyncio.get_running_loop().time()


# --------------------------------------------------------------------------------------------- time passes


def test_ten_years_are_as_many_events_as_there_are_deadlines() -> None:
    """Not a matter of seconds: each jump goes to the next deadline, and costs a turn of the loop."""

    def main() -> tuple[float, int, float]:
        scheduler = swapco.current_fiber().scheduler
        before, began = scheduler.statistics()["drains"], time.monotonic()

        def tick() -> None:
            for _ in range(10):
                swapco.sleep(YEAR_S)

        swapco.wait([swapco.spawn(tick) for _ in range(5)])
        return now(), scheduler.statistics()["drains"] - before, time.monotonic() - began

    virtual_s, drains, real_s = run(main)
    assert virtual_s == pytest.approx(10 * YEAR_S)
    assert drains <= 40  # ten jumps, and what starts and ends the run
    assert real_s < 60


def test_the_clock_starts_where_it_is_told_and_ends_where_the_program_did() -> None:
    clock = VirtualClock(start=100.0)

    def main() -> list[float]:
        times = [now()]
        swapco.sleep(5)
        times.append(now())
        return times

    assert run(main, clock) == [100.0, 105.0]
    assert clock.time() == 105.0


@pytest.mark.parametrize("autojump", ["no", "", 0, 1, None])
def test_whether_it_jumps_is_true_or_false(autojump: Any) -> None:
    with pytest.raises(TypeError, match=f"autojump is True or False, not {autojump!r}"):
        VirtualClock(autojump=autojump)


def test_without_autojump_only_advance_moves_it() -> None:
    clock = VirtualClock(autojump=False)
    slept: list[float] = []

    def main() -> None:
        fiber = swapco.spawn(lambda: (swapco.sleep(10), slept.append(now())))
        swapco.to_thread(time.sleep, SOON_S)
        assert slept == []
        clock.advance(10)
        settle()  # timers fire at the next turn of the loop
        fiber.join()

    run(main, clock)
    assert slept == [10.0]


def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    def main() -> list[int]:
        order: list[int] = []

        def sleeper(delay: int) -> None:
            swapco.sleep(delay)
            order.append(delay)

        swapco.wait([swapco.spawn(sleeper, delay) for delay in (30, 10, 20, 10)])
        return order

    assert run(main) == [10, 10, 20, 30]


def test_time_stands_still_while_fibers_run() -> None:
    def main() -> set[float]:
        swapco.spawn(swapco.sleep, 1.0)
        seen = set()
        for _ in range(1000):
            swapco.sleep(0)
            seen.add(now())
        return seen

    assert run(main) == {0.0}


def test_timeouts_of_fibers_and_of_asyncio_end_in_virtual_time() -> None:
    def main() -> list[float]:
        ends = []
        with pytest.raises(TimeoutError):
            swapco.Event().wait(timeout=100)
        ends.append(now())
        with pytest.raises(TimeoutError), swapco.timeout(50):
            swapco.block()
        ends.append(now())
        return ends

    async def in_asyncio() -> list[float]:
        ends = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await asyncio.get_running_loop().create_future()
        ends.append(now())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 50)
        ends.append(now())
        return ends

    assert run(main) == pytest.approx([100.0, 150.0])
    assert run(in_asyncio) == pytest.approx([100.0, 150.0])


def test_locks_that_are_contended_while_their_owner_sleeps_do_not_hang() -> None:
    def main() -> float:
        lock = swapco.Lock()

        def work() -> None:
            for _ in range(5):
                with lock:
                    swapco.sleep(1)

        swapco.wait([swapco.spawn(work) for _ in range(4)])
        return now()

    assert run(main) == pytest.approx(20.0)


def test_a_cancelled_timer_is_no_time_to_jump_to() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        loop.call_later(10, seen.append, -1.0).cancel()
        loop.call_later(20, lambda: seen.append(now()))
        async with asyncio.timeout(5):
            await asyncio.sleep(1)
        seen.append(now())
        await asyncio.sleep(100)
        return [*seen, now()]

    assert run(main) == pytest.approx([1.0, 20.0, 101.0])


def test_callbacks_that_wake_nobody_do_not_stop_time() -> None:
    """Nothing but a callback is left when the last fiber waits: after it, time must go on."""
    called: list[float] = []

    def main() -> float:
        asyncio.get_running_loop().call_soon(lambda: called.append(now()))
        swapco.sleep(FAR_S)
        return now()

    assert run(main) == pytest.approx(FAR_S)
    assert called == [0.0]


def test_a_callback_that_asks_for_another_one_goes_before_time_does() -> None:
    def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []

        def again(left: int) -> None:
            seen.append(now())
            if left:
                loop.call_soon(again, left - 1)

        loop.call_soon(again, 20)
        swapco.sleep(1)
        return seen

    assert run(main) == [0.0] * 21


def test_a_deadlock_is_still_a_deadlock() -> None:
    """In a Python of its own: where other threads run, nobody can be sure of a deadlock."""
    done = run_program("""
import swapco
from swapco.testing import VirtualClock
clock = VirtualClock()
def main():
    swapco.sleep(5)
    swapco.block()
try:
    swapco.run(main, loop_factory=lambda: swapco.new_event_loop(clock=clock))
except swapco.Deadlock:
    print("deadlock at", clock.time())
""")
    assert done.stdout == "deadlock at 5.0\n", done.stderr


# ------------------------------------------------------------------------------- never while something real may


def race(real: Callable[[list[Any]], Any]) -> list[Any]:
    """What happens in what order: ``real`` takes a moment of real time, a sleeper a long stretch of virtual time."""

    async def main() -> list[Any]:
        order: list[Any] = []

        async def sleeper() -> None:
            await asyncio.sleep(FAR_S)
            order.append("slept")

        sleeping = asyncio.ensure_future(sleeper())
        await asyncio.sleep(0)
        found = real(order)
        if found is not None:
            await found
        assert now() == 0.0
        await sleeping
        return order

    found: list[Any] = run(main)
    return found


def test_a_call_in_a_thread_comes_first() -> None:
    def call(order: list[Any]) -> None:
        swapco.to_thread(time.sleep, SOON_S)
        order.append("called")

    assert race(call) == ["called", "slept"]


def test_a_thread_fiber_that_blocks_comes_first() -> None:
    def work(order: list[Any]) -> None:
        swapco.spawn(time.sleep, SOON_S, thread=True).join()
        order.append("worked")

    assert race(work) == ["worked", "slept"]


@pytest.mark.parametrize("how", ["run_in_executor", "to_thread"])
def test_a_call_of_an_executor_comes_first(how: str) -> None:
    async def call(order: list[Any]) -> None:
        if how == "to_thread":
            await asyncio.to_thread(time.sleep, SOON_S)
        else:
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, SOON_S)
        order.append("called")

    assert race(call) == ["called", "slept"]


def test_what_a_socket_waits_for_comes_first() -> None:
    def receive(order: list[Any]) -> None:
        here, there = swapco.socket.socketpair()
        with here, there:
            reader = swapco.spawn(here.recv, 1)
            swapco.to_thread(time.sleep, SOON_S)
            there.send(b"x")
            order.append(reader.join())

    assert race(receive) == [b"x", "slept"]


def later(send: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(SOON_S, send)
    timer.start()
    return timer


def test_what_asyncio_reads_comes_first() -> None:
    async def read(order: list[Any]) -> None:
        here, there = socket.socketpair()
        with there:
            reader, writer = await asyncio.open_connection(sock=here)
            timer = later(lambda: there.send(b"x"))
            order.append(await reader.read(1))
            timer.join()
            writer.close()
            await writer.wait_closed()

    assert race(read) == [b"x", "slept"]


def test_a_connection_to_a_server_of_asyncio_comes_first() -> None:
    async def serve(order: list[Any]) -> None:
        connected = asyncio.Event()

        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()
            connected.set()

        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        timer = later(lambda: socket.create_connection(address).close())
        await connected.wait()
        order.append("connected")
        timer.join()
        server.close()
        await server.wait_closed()

    assert race(serve) == ["connected", "slept"]


def test_a_process_comes_first() -> None:
    async def start(order: list[Any]) -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(0.05)")
        await process.wait()
        order.append("ended")

    assert race(start) == ["ended", "slept"]


def test_a_name_that_is_looked_up_comes_first() -> None:
    async def look_up(order: list[Any]) -> None:
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        order.append("found")

    assert race(look_up) == ["found", "slept"]


def test_time_goes_on_when_a_call_that_nobody_waits_for_has_ended() -> None:
    """Its end wakes no fiber: the loop must look for it."""

    async def main() -> float:
        asyncio.get_running_loop().run_in_executor(None, time.sleep, SOON_S)
        began = time.monotonic()
        await asyncio.sleep(FAR_S)
        assert time.monotonic() - began >= SOON_S / 2
        return now()

    assert run(main) == pytest.approx(FAR_S)
