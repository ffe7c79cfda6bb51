"""The poller: waiting for any descriptor, stale events, growth, timers, wake-ups, fork and the end of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import socket as stdlib
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import in_fiber, run_program, settle

import swapco
from swapco import sleep, socket, spawn
from swapco._loop.loop import hub_of
from swapco.lowlevel import Instrument, wait_readable, wait_writable

pytestmark = pytest.mark.usefixtures("fibers")

LOCALHOST = "127.0.0.1"


def poller() -> Any:
    return hub_of(asyncio.get_running_loop()).poller


def parked(function: Callable[..., Any], *args: Any) -> swapco.Fiber:
    """A fiber that waits inside ``function``."""
    fiber = spawn(function, *args)
    settle()
    assert fiber.state == "BLOCKED", fiber
    return fiber


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK)
    try:
        yield ends
    finally:
        for fd in ends:
            with contextlib.suppress(OSError):
                os.close(fd)


def fill(fd: int) -> int:
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += os.write(fd, bytes(65536))
    return total


# ------------------------------------------------------------------------------------ any descriptor

@in_fiber
def test_waiting_for_a_pipe() -> None:
    with pipe() as (reading, writing):
        fiber = parked(wait_readable, reading)
        assert str(reading) in str(fiber.wait_reason)
        assert poller().registered == 1
        os.write(writing, b"x")
        fiber.join()
        assert poller().registered == 0
        wait_readable(reading)
        wait_writable(writing)
        fill(writing)
        fiber = parked(wait_writable, writing)
        while os.read(reading, 1 << 20):
            settle()
            if fiber.done():
                break
        fiber.join()


@in_fiber
def test_waiting_for_the_end_of_a_pipe() -> None:
    with pipe() as (reading, writing):
        fiber = parked(wait_readable, reading)
        os.close(writing)
        fiber.join()
    with pipe() as (reading, writing):
        fill(writing)
        fiber = parked(wait_writable, writing)
        os.close(reading)
        fiber.join()
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")


@in_fiber
def test_a_regular_file_is_always_ready() -> None:
    with tempfile.TemporaryFile() as file:
        wait_readable(file)
        wait_writable(file.fileno())
        assert poller().registered == 0


@in_fiber
def test_what_is_no_descriptor() -> None:
    with stdlib.socket() as sock:
        pass
    with pytest.raises(ValueError, match="is closed"):
        wait_readable(sock)
    with pytest.raises(ValueError, match="is closed"):
        wait_readable(-1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        wait_readable(987_654)
    with pytest.raises(AttributeError):
        wait_readable("text")  # type: ignore[arg-type]


def test_waiting_outside_a_fiber() -> None:
    with pytest.raises(swapco.NotInFiber, match=r"wait_readable\(\) needs a fiber"):
        wait_readable(0)
    with pytest.raises(swapco.NotInFiber, match=r"wait_writable\(\) needs a fiber"):
        wait_writable(0)


@in_fiber
def test_a_timeout_and_a_cancellation_end_the_registration() -> None:
    with pipe() as (reading, _):
        with pytest.raises(TimeoutError):
            wait_readable(reading, timeout=0.001)
        with pytest.raises(TimeoutError):
            wait_readable(reading, timeout=-1)
        fiber = parked(wait_readable, reading)
        fiber.cancel()
        with pytest.raises(asyncio.CancelledError):
            fiber.join()
        assert poller().registered == 0


@in_fiber
def test_both_directions_of_one_descriptor() -> None:
    first, second = stdlib.socketpair()
    with first, second:
        first.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                first.send(bytes(65536))
        reader, writer = parked(wait_readable, first), parked(wait_writable, first)
        assert poller().registered == 1
        with pytest.raises(RuntimeError, match=f"{reader.name}.* is reading from"):
            wait_readable(first)
        with pytest.raises(RuntimeError, match=f"{writer.name}.* is writing to"):
            wait_writable(first)
        second.send(b"x")
        reader.join()
        settle()
        assert writer.state == "BLOCKED", "the other direction goes on"
        while not writer.done():
            second.recv(1 << 20)
            settle()
        assert poller().registered == 0


@in_fiber
def test_the_loops_own_readers_are_not_ours() -> None:
    """A descriptor may be watched by the loop and by a fiber at the same time."""
    loop = asyncio.get_running_loop()
    with pipe() as (reading, writing):
        seen: list[int] = []
        loop.add_reader(reading, seen.append, reading)
        fiber = parked(wait_readable, reading)
        os.write(writing, b"x")
        fiber.join()
        settle()
        assert seen
        loop.remove_reader(reading)


# ------------------------------------------------------------------------------------- many at once

@in_fiber
def test_more_descriptors_than_the_table_and_a_turn_have_room_for() -> None:
    pairs = [socket.socketpair() for _ in range(700)]
    try:
        readers = [spawn(first.recv, 10) for first, _ in pairs]
        settle()
        assert poller().registered == 700
        for number, (_, second) in enumerate(pairs):
            second.settimeout(0)
            second.send(b"%d" % number)
        assert [fiber.join(20) for fiber in readers] == [b"%d" % number for number in range(700)]
    finally:
        for pair in pairs:
            for sock in pair:
                sock.close()
    assert poller().registered == 0


@in_fiber
def test_one_turn_wakes_everybody_in_the_order_of_the_events() -> None:
    pairs = [stdlib.socketpair() for _ in range(20)]
    order: list[int] = []

    def read(number: int, fd: int) -> None:
        wait_readable(fd)
        order.append(number)

    try:
        fibers = [spawn(read, number, pair[0].fileno()) for number, pair in enumerate(pairs)]
        settle()
        turns = poller().turns
        for _, second in reversed(pairs):
            second.send(b"x")
        for fiber in fibers:
            fiber.join(20)
        assert order == list(reversed(range(20)))
        assert poller().turns == turns + 1
    finally:
        for pair in pairs:
            for sock in pair:
                sock.close()


@in_fiber
def test_an_event_of_a_descriptor_that_is_closed_meanwhile() -> None:
    """One turn has events of both; the first fiber closes the second one's descriptor and reuses its number."""
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    with a, b, d:
        b.settimeout(0)
        d.settimeout(0)
        fresh: list[socket.socket] = []

        def close_the_other() -> None:
            a.recv(10)
            number = c.fileno()
            c.close()
            ours, theirs = stdlib.socketpair()
            assert ours.fileno() == number
            fresh.append(socket.socket(fileno=ours.detach()))
            fresh.append(socket.socket(fileno=theirs.detach()))

        first = parked(close_the_other)
        second = parked(c.recv, 10)
        b.send(b"x")
        d.send(b"x")
        first.join()
        assert second.join() == b"x" if second.exception() is None else second.exception().errno == errno.EBADF
        reader = parked(fresh[0].recv, 10)
        fresh[1].settimeout(0)
        fresh[1].send(b"new")
        assert reader.join(20) == b"new"
        for sock in fresh:
            sock.close()


@in_fiber
def test_registrations_are_used_again() -> None:
    for _ in range(200):
        first, second = socket.socketpair()
        with first, second:
            second.settimeout(0)
            second.send(b"x")
            assert first.recv(1) == b"x"
    assert poller().registered == 0


@in_fiber
def test_room_to_write_is_watched_for_only_when_there_is_none() -> None:
    """Else every datagram that was sent, and every read of a Unix socket's peer, would wake the loop."""
    first, second = socket.socketpair()
    with first, second:
        waiting = parked(first.recv, 10)
        before = poller().events
        for _ in range(50):
            first.sendall(b"x")
            second.recv(1)
            settle()
        assert poller().events <= before + 10
        second.settimeout(0)
        second.send(b"done")
        waiting.join()


# ------------------------------------------------------------------------------- timers and wake-ups

@in_fiber
def test_sleeps_end_in_order_and_not_early() -> None:
    starts: list[float] = []
    order: list[int] = []
    delays = (0.03, 0.001, 0.02, 0.0105, 0.01)

    def nap(number: int) -> None:
        starts.append(time.monotonic())
        sleep(delays[number])
        assert time.monotonic() - starts[number] >= delays[number]
        order.append(number)

    fibers = [spawn(nap, number) for number in range(len(delays))]
    swapco.sleep(0)
    # each sleep began between these
    starts.append(time.monotonic())
    for fiber in fibers:
        fiber.join()
    for first, second in itertools.combinations(order, 2):
        assert starts[first] + delays[first] <= starts[second + 1] + delays[second]


@in_fiber
def test_a_wake_up_from_another_thread() -> None:
    me = swapco.current_fiber()
    thread = threading.Thread(target=lambda: swapco.resume(me, "from outside"))
    thread.start()
    assert swapco.block(timeout=20) == "from outside"
    thread.join()


@in_fiber
def test_statistics_and_the_polled_hook() -> None:
    polled: list[int] = []

    class Watch(Instrument):
        def polled(self, events: int) -> None:
            polled.append(events)

    scheduler = swapco.current_fiber().scheduler
    watch = Watch()
    scheduler.add_instrument(watch)
    first, second = socket.socketpair()
    with first, second:
        reader = parked(first.recv, 10)
        second.settimeout(0)
        second.send(b"x")
        reader.join()
        statistics = poller().statistics()
        assert statistics["registered"] == 1
        assert statistics["turns"] >= 1
        assert statistics["events"] >= 1
    scheduler.remove_instrument(watch)
    assert sum(polled) >= 1


# ------------------------------------------------------------------------------------------- the end

def test_the_end_of_the_loop_closes_the_set() -> None:
    kept: list[Any] = []

    def main() -> None:
        first, second = socket.socketpair()
        second.settimeout(0)
        second.send(b"x")
        first.recv(1)
        kept.extend([poller(), first, second])

    swapco.run(main)
    assert not kept[0].open
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(kept[0].epoll_fd)
    kept[0].close_descriptors()
    for sock in kept[1:]:
        sock.close()


def test_an_epoll_descriptor_is_not_inherited() -> None:
    def main() -> None:
        assert not os.get_inheritable(poller().epoll_fd)

    swapco.run(main)


@in_fiber
def test_a_forked_child_closes_its_copy_of_the_set() -> None:
    first, second = socket.socketpair()
    with first, second:
        waiting = parked(first.recv, 10)
        own = poller()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                assert not own.open
                first.close()  # no epoll_ctl: the set is the parent's, too
                with contextlib.suppress(OSError):
                    os.fstat(own.epoll_fd)
                    os._exit(1)
                os._exit(0)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        second.settimeout(0)
        second.send(b"x")
        assert waiting.join(20) == b"x"


def test_a_forked_child_may_run_a_loop_of_its_own() -> None:
    done = run_program(
        """
        import os
        import swapco
        from swapco import socket

        first, second = socket.socketpair()

        def exchange():
            reader = swapco.spawn(first.recv, 10)
            swapco.sleep(0)
            second.sendall(b"x")
            assert reader.join() == b"x"

        def main():
            exchange()
            child = os.fork()
            if child == 0:
                return "child"
            assert os.waitpid(child, 0)[1] == 0
            exchange()
            return "parent"

        def in_child():
            swapco.run(exchange)
            os._exit(0)

        def parent():
            exchange()
            child = os.fork()
            if child == 0:
                in_child()
            assert os.waitpid(child, 0)[1] == 0
            exchange()

        swapco.run(parent)
        print("fine")
        """,
        "-W", "ignore::DeprecationWarning",
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr


def test_a_poller_that_is_never_closed_gives_its_descriptors_back() -> None:
    loop = swapco.new_event_loop()
    own = hub_of(loop).poller
    fds = [own.epoll_fd]
    loop.close()
    del own, loop
    gc.collect()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
