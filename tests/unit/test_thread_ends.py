"""The ends of thread fibers: Deadlock, closing a loop, and threads that do not come back in time.

A program that ends leaves no thread behind, but for those that nobody can end: they are left alone with a warning, and
can no longer call swapco.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import SOON_S, in_fiber, run_program, wait_until
from test_deadlock import outcome as outcome_of
from test_deadlock import report
from thread_support import (
    Held,
    in_quiet_fiber,
    on_thread,
    outcome,
    quiet,
    thread,
    until_blocked,
    until_detached,
)

import swapco
from swapco.lowlevel import Slot, wait_readable

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0

# -------------------------------------------------------------------------------------------- deadlock


def test_parked_thread_fibers_count_as_blocked() -> None:
    text = report("""
a, b = Lock(), Lock()

def take(first, second):
    with first:
        sleep(0)
        with second:
            pass

def main():
    one = spawn(take, a, b, name="one", thread=True)
    two = spawn(take, b, a, name="two")
    one.join()

expect_deadlock(main)
""")
    lines = text.splitlines()
    (one,) = [line for line in lines if line.lstrip().startswith("'one' waits")]
    (two,) = [line for line in lines if line.lstrip().startswith("'two' waits")]
    assert "owned by 'two'" in one
    assert "owned by 'one'" in two
    assert "'main' waits for the end of fiber 'one'" in text


def test_a_deadlock_with_idle_workers_and_after_detached_ones() -> None:
    text = report("""
def main():
    gather(*[spawn(sleep, 0.001, thread=True) for _ in range(5)])
    gather(*[spawn(time.sleep, 0.02, thread=True) for _ in range(5)])
    to_thread(block)

expect_deadlock(main)
""")
    assert "'main' waits for the end of fiber" in text


def test_a_detached_one_prevents_the_alarm() -> None:
    result = outcome_of("""
def comes_back(fiber):
    time.sleep(0.5)
    resume(fiber, "resumed in time")

def main():
    spawn(comes_back, current_fiber(), thread=True)
    return block()

expect_end(main)
""")
    assert result.stdout == "result: resumed in time\n"


def test_a_blocking_section_prevents_the_alarm() -> None:
    result = outcome_of("""
def comes_back(fiber):
    with blocking():
        time.sleep(0.3)
    resume(fiber, "resumed in time")

def main():
    spawn(comes_back, current_fiber(), thread=True)
    return block()

expect_end(main)
""")
    assert result.stdout == "result: resumed in time\n"


def test_main_may_be_blocked_by_starved_ones() -> None:
    """Nothing runs, and nothing can: all workers wait for fibers that wait for a worker."""
    text = report("""
import swapco.lowlevel

def nests(depth):
    return depth and to_thread(nests, depth - 1)

try:
    run(nests, 5, slot=swapco.lowlevel.Slot(max_workers=2))
except Deadlock as error:
    last_words(error)
else:
    print("no deadlock")
""")
    assert "'main' waits for the end of fiber" in text


# --------------------------------------------------------------------------------------------- closing


def test_blocked_thread_fibers_are_cancelled_when_run_ends() -> None:
    ended: list[str] = []

    def body() -> None:
        try:
            swapco.block()
        finally:
            swapco.sleep(0.001)
            ended.append(swapco.current_fiber().state)

    def main() -> None:
        until_blocked(*[thread(body) for _ in range(3)])

    swapco.run(main, slot=quiet())
    assert ended == ["RUNNING"] * 3


def test_a_detached_one_that_comes_back_in_time_is_cancelled() -> None:
    ended: list[str] = []

    def body() -> None:
        me = swapco.current_fiber()
        try:
            # in the kernel until the end of run asks for its end
            while not me.cancelling():
                time.sleep(0.001)
            swapco.sleep(LONG)
        finally:
            ended.append("cleaned up")

    def main() -> None:
        until_detached(thread(body))

    swapco.run(main)
    assert ended == ["cleaned up"]


def test_an_error_during_shutdown_is_logged(fibers: Any) -> None:
    def body() -> None:
        try:
            swapco.block()
        finally:
            raise LookupError("while it was cancelled")

    def main() -> None:
        until_blocked(thread(body))

    swapco.run(main)
    (message,) = fibers.take()
    assert "while it was cancelled" in message


@contextlib.contextmanager
def left_alone(call: Callable[[], Any]) -> Iterator[list[Any]]:
    """A loop is closed over a detached fiber, which then does ``call``; what came of it is in the list at the end."""
    held = Held()
    got: list[Any] = []
    started: list[Any] = []

    def body() -> None:
        held()
        got.append(outcome(call))

    def main() -> None:
        started.append(thread(body, name="left alone"))
        until_detached(*started)

    before = set(threading.enumerate())
    with pytest.warns(RuntimeWarning, match="1 thread fibers block, and are left alone"):
        swapco.run(main, shutdown_timeout=0.05)
    assert started[0].state == "DETACHED"
    held.let_go()
    give_up = time.monotonic() + SOON_S
    while set(threading.enumerate()) - before:
        assert time.monotonic() < give_up, threading.enumerate()
        time.sleep(0.001)
    yield got
    assert started[0].state == "DONE"


def blocks_in_here(held: Held) -> None:
    held()


def closes(held: Held, count: int = 1, **keywords: Any) -> None:
    """A program whose threads do not come back."""

    def main() -> None:
        until_detached(*[thread(blocks_in_here, held) for _ in range(count)])

    swapco.run(main, **keywords)  # this line


def line_of(function: Any, marked: str) -> str:
    lines, first = inspect.getsourcelines(function)
    (number,) = [first + n for n, line in enumerate(lines) if marked in line]
    return f"{__file__}:{number}"


def until_back(before: set[threading.Thread]) -> None:
    give_up = time.monotonic() + SOON_S
    while set(threading.enumerate()) - before:
        assert time.monotonic() < give_up, threading.enumerate()
        time.sleep(0.001)


def test_the_warning_says_which_fiber_where_and_what_to_do() -> None:
    held = Held()
    before = set(threading.enumerate())
    with pytest.warns(RuntimeWarning) as caught:
        closes(held, shutdown_timeout=0.01)
    held.let_go()
    until_back(before)
    (warning,) = caught
    text = str(warning.message)
    assert re.match(r"1 thread fibers block, and are left alone by the event loop that is closed: 'Fiber-\d+' ", text)
    assert f"runs blocks_in_here ({line_of(blocks_in_here, 'held()')}) and is in Condition.wait (" in text
    assert "give what blocks there a timeout of its own" in text
    assert "shutdown_timeout=seconds" in text
    # the line that a program can change
    assert f"{warning.filename}:{warning.lineno}" == line_of(closes, "# this line")


def test_the_warning_is_short_however_many_there_are() -> None:
    held = Held()
    before = set(threading.enumerate())
    with pytest.warns(RuntimeWarning, match="^7 thread fibers block") as caught:
        closes(held, 7, shutdown_timeout=0.01)
    held.let_go()
    until_back(before)
    text = str(caught[0].message)
    assert text.count("runs blocks_in_here") == 5
    assert "; and 2 more. Nobody can interrupt them" in text


def test_the_warning_about_a_function_that_is_not_python() -> None:
    """It has a name, and no line."""
    gate = threading.Lock()
    gate.acquire()

    def main() -> None:
        until_detached(thread(gate.acquire, name="the lock"))

    before = set(threading.enumerate())
    with pytest.warns(RuntimeWarning, match="closed: 'the lock' runs lock.acquire. Nobody"):
        swapco.run(main, shutdown_timeout=0.01)
    gate.release()
    until_back(before)


def test_the_warning_of_a_runner_and_of_asyncio_points_at_the_program() -> None:
    held = Held()

    def main() -> None:
        until_detached(thread(held))

    def by_runner() -> None:
        runner = swapco.Runner(shutdown_timeout=0.01)
        runner.run(main)
        runner.close()  # this line

    def by_loop() -> None:
        async def in_a_coroutine() -> None:
            await swapco.spawn(main)

        loop = swapco.new_event_loop()
        loop.run_until_complete(in_a_coroutine())
        loop.close()  # this line

    before = set(threading.enumerate())
    for program in (by_runner, by_loop):
        with pytest.warns(RuntimeWarning, match="left alone") as caught:
            program()
        assert f"{caught[0].filename}:{caught[0].lineno}" == line_of(program, "# this line")
    held.let_go()
    until_back(before)


def enter_lock() -> None:
    with swapco.Lock():
        pass


def leave_blocking() -> None:
    with swapco.blocking():
        pass


@pytest.mark.parametrize(
    "call",
    [
        lambda: swapco.sleep(0),
        swapco.block,
        lambda: swapco.Queue[int]().put_nowait(1),
        lambda: swapco.Event().set(),
        enter_lock,
        lambda: swapco.spawn(int),
        lambda: swapco.spawn(int, thread=True),
        lambda: swapco.to_thread(int),
        lambda: swapco.from_thread.run(int),
        lambda: swapco.await_(asyncio.sleep(0)),
        leave_blocking,
    ],
    ids=[
        "sleep",
        "block",
        "put",
        "set",
        "lock",
        "spawn",
        "spawn-thread",
        "to_thread",
        "from_thread",
        "await_",
        "blocking",
    ],
)
def test_one_that_was_left_alone_can_no_longer_call_swapco(call: Callable[[], Any]) -> None:
    with left_alone(call) as got:
        pass
    assert got == [swapco.NotInFiber]


def test_one_that_was_left_alone_is_told_so() -> None:
    def call() -> str:
        try:
            swapco.sleep(0)
        except swapco.NotInFiber as error:
            return str(error)
        return "nothing"

    with left_alone(call) as got:
        pass
    assert "the event loop of <Fiber 'left alone' DETACHED> is closed" in got[0]


def test_one_that_was_left_alone_may_end_in_peace() -> None:
    with left_alone(lambda: "its result") as got:
        pass
    assert got == ["its result"]


def test_one_that_was_left_alone_resumes_and_cancels_without_harm() -> None:
    def call() -> list[Any]:
        me = swapco.current_fiber()
        return [me.cancel(), swapco.resume(me, "token"), swapco.resume(me, "second"), me.name]

    with left_alone(call) as got:
        pass
    assert got == [[True, True, False, "left alone"]]


def test_shutdown_waits_for_as_long_as_it_is_told() -> None:
    held = Held()

    def main() -> None:
        until_detached(thread(held))
        timer.start()

    timer = threading.Timer(0.3, held.let_go)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        swapco.run(main, shutdown_timeout=None)
    timer.join()


@contextlib.contextmanager
def gate_at_the_end() -> Iterator[threading.Event]:
    """Opens when the loop is closed; then its threads end."""
    before = set(threading.enumerate())
    gate = threading.Event()
    yield gate
    gate.set()
    give_up = time.monotonic() + SOON_S
    while set(threading.enumerate()) - before:
        assert time.monotonic() < give_up, threading.enumerate()
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("in_thread", "limit", "left"), [(False, 1, 2), (True, 3, 1)], ids=["ordinary", "thread"]
)
def test_shutdown_does_not_wait_for_ever_for_clean_up_that_finds_no_thread(
    in_thread: bool, limit: int, left: int
) -> None:
    """Calls have all threads, also the one that is kept for clean-up, and block there; the others wait for them."""
    ended: list[str] = []

    def work() -> None:
        try:
            swapco.block()
        finally:
            try:
                swapco.to_thread(gate.wait, 2 * SOON_S)
            except swapco.CancelledError:
                ended.append("cancelled once more")
                raise

    def main() -> None:
        until_blocked(*[swapco.spawn(work, thread=in_thread) for _ in range(3)])

    with gate_at_the_end() as gate:
        with pytest.warns(RuntimeWarning, match=f"{left} thread fibers block, and are left alone"):
            swapco.run(main, slot=Slot(max_workers=limit), shutdown_timeout=0.05)
        assert not gate.is_set()
    assert ended == ["cancelled once more"] * 3


def test_shutdown_does_not_wait_for_ever_for_who_waits_for_a_thread() -> None:
    """In whatever way it does: for its end, for its lock, for an item."""
    ended: list[str] = []
    lock = swapco.Lock()
    queue = swapco.Queue[int]()

    def holds() -> None:
        lock.acquire()
        gate.wait(2 * SOON_S)

    def cleans(name: str, wait: Callable[[], Any]) -> None:
        try:
            swapco.block()
        finally:
            try:
                wait()
            finally:
                ended.append(name)

    def main() -> None:
        holder = thread(holds)
        until_detached(holder)
        joins = swapco.spawn(cleans, "joins", holder.join)
        until_blocked(
            joins,
            swapco.spawn(cleans, "joins who joins", joins.join),
            swapco.spawn(cleans, "locks", lock.acquire),
            swapco.spawn(cleans, "gets", queue.get),
            thread(cleans, "waits", lambda: swapco.wait([holder])),
        )

    with gate_at_the_end() as gate:
        with pytest.warns(RuntimeWarning, match="1 thread fibers block, and are left alone"):
            swapco.run(main, shutdown_timeout=0.05)
        assert not gate.is_set()
    assert sorted(ended) == ["gets", "joins", "joins who joins", "locks", "waits"]


def test_shutdown_waits_for_clean_up_that_waits_for_something_else() -> None:
    """A thread that blocks does not cut short what sleeps, or waits for the network."""
    ended: list[str] = []
    here, there = socket.socketpair()

    def cleans(name: str, wait: Callable[[], Any]) -> None:
        try:
            swapco.block()
        finally:
            wait()
            ended.append(name)

    def sends() -> None:
        try:
            swapco.block()
        finally:
            swapco.sleep(0.4)
            there.send(b"x")

    def main() -> None:
        until_detached(thread(gate.wait, 2 * SOON_S))
        until_blocked(
            swapco.spawn(cleans, "sleeps", lambda: swapco.sleep(0.3)),
            swapco.spawn(cleans, "reads", lambda: wait_readable(here)),
            swapco.spawn(cleans, "awaits", lambda: swapco.await_(asyncio.sleep(0.3))),
            swapco.spawn(sends),
        )

    with here, there, gate_at_the_end() as gate:
        with pytest.warns(RuntimeWarning, match="1 thread fibers block, and are left alone"):
            swapco.run(main, shutdown_timeout=0.05)
    assert sorted(ended) == ["awaits", "reads", "sleeps"]


def test_the_time_of_one_that_was_left_alone_ends_with_it() -> None:
    slot = Slot()

    def main() -> None:
        until_detached(thread(gate.wait, 2 * SOON_S))

    with gate_at_the_end() as gate:
        with pytest.warns(RuntimeWarning, match="left alone"):
            swapco.run(main, slot=slot, shutdown_timeout=0.05)
        first = slot.statistics()["detached_s"]
        assert first > 0.05
        wait_here = threading.Event()
        wait_here.wait(0.01)
        assert slot.statistics()["detached_s"] >= first + 0.01
    assert slot.statistics()["detached_s"] == slot.statistics()["detached_s"]


def test_closing_a_loop_that_was_not_run_by_us() -> None:
    """asyncio's own runner closes the loop: what is detached then is left alone, after its cancellation."""
    held = Held()
    fibers: list[Any] = []

    async def main() -> None:
        fibers.append(swapco.spawn(held, thread=True))
        while fibers[0].state != "DETACHED":
            await asyncio.sleep(0.001)

    before = set(threading.enumerate())
    with pytest.warns(RuntimeWarning, match="left alone"):
        loop = swapco.new_event_loop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
    held.let_go()
    give_up = time.monotonic() + SOON_S
    while set(threading.enumerate()) - before:
        assert time.monotonic() < give_up
        time.sleep(0.001)
    assert fibers[0].state == "DONE"


def test_a_worker_that_ends_its_thread() -> None:
    """SystemExit in a thread fiber leaves ``run``, as from any other."""

    def exits() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as info:
        swapco.run(lambda: thread(exits).join(), slot=quiet())
    assert info.value.code == 3


def test_exit_with_a_thread_that_never_comes_back() -> None:
    """The interpreter does not wait for it."""
    result = run_program("""
        import threading, time, warnings
        import swapco

        def main():
            fiber = swapco.spawn(threading.Event().wait, thread=True)
            while fiber.state != "DETACHED":
                swapco.sleep(0.001)

        warnings.simplefilter("ignore")
        swapco.run(main, shutdown_timeout=0.01)
        print("out of run")
    """)
    assert (result.returncode, result.stdout) == (0, "out of run\n"), result.stderr


@in_quiet_fiber
def test_a_wait_inside_a_finalizer_of_the_collector_is_refused() -> None:
    """In a thread fiber as in an ordinary one."""

    class Waits:
        def __del__(self) -> None:
            got.append(outcome(lambda: swapco.sleep(0)))

    def body() -> None:
        import gc

        loop = [Waits()]
        loop.append(loop)  # type: ignore[arg-type]
        del loop
        gc.collect()

    got: list[Any] = []
    on_thread(body)
    assert got == [RuntimeError]


@in_fiber
def test_threads_of_the_program_are_left_in_peace() -> None:
    """A thread that a thread fiber starts is foreign: no fiber runs there."""

    def body() -> Any:
        got: list[Any] = []
        other = threading.Thread(target=lambda: got.append(outcome(lambda: swapco.sleep(0))))
        other.start()
        other.join()
        return got

    fiber = thread(body)
    wait_until(fiber.done)
    assert fiber.result() == [swapco.NotInFiber]
