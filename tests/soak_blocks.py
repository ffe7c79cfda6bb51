"""Steps of the soak run with kernel threads (soak_threads.py): blocking calls of every kind, in fibers of both kinds.

The rules for steps are in soak_waits.py.  A worker may be a thread fiber or an ordinary one: what blocks is called in
place by the first, and through ``to_thread`` or in a thread fiber of its own by the second.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from soak_tools import NUMBER, Tools, check

import swapco
from swapco import from_thread

DATA = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(DATA).hexdigest()
CHECKSUM = zlib.crc32(DATA)
KNOT = object()


class Expected(Exception):
    """Raised by steps on purpose; one that nobody waits for any more is logged, and that is right."""


def compute(n: int) -> int:
    """A loop in Python."""
    total = 0
    for k in range(n):
        total += k
    return total


class Blocks(Tools):
    """Steps that block a kernel thread."""

    #: Is the worker a thread fiber?
    threaded = False
    loop: Any = None
    home = 0
    many_threads = False
    #: Held by whoever has threads that wait for each other and cannot be cancelled.
    pipes: Any = None
    #: Calls on kernel threads of the whole round, by whether they have begun or ended.
    calls: Counter[str]

    def start(self, function: Callable[..., Any], *args: Any) -> Any:
        return swapco.spawn(function, *args, thread=self.dice.random() < 0.4)

    def block(self) -> None:
        """Block the kernel thread in some way; a few milliseconds at most."""
        how = self.dice.randrange(6)
        if how < 2:
            time.sleep(self.dice.random() * 0.005)
        elif how == 2:
            check(hashlib.sha256(DATA).hexdigest() == DIGEST, "a digest")
        elif how == 3:
            check(zlib.crc32(DATA) == CHECKSUM, "a checksum")
        elif how == 4:
            n = self.dice.randrange(20_000)
            check(compute(n) == n * (n - 1) // 2, "a sum")
        else:
            lock = threading.Lock()
            lock.acquire()
            check(not lock.acquire(timeout=self.dice.random() * 0.003), "a lock that nobody released")

    def on_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call it where it may block."""
        if self.threaded:
            return function(*args)
        if self.dice.random() < 0.5:
            return self.call(function, *args)
        fiber = swapco.spawn(function, *args, thread=True)
        return self.join_or_cancel(fiber)

    @staticmethod
    def join_or_cancel(fiber: Any) -> Any:
        try:
            return fiber.join()
        finally:
            fiber.cancel()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """``to_thread``, with a look at whether each call that begins also ends."""
        calls = self.calls

        def counted() -> Any:
            calls["begun"] += 1
            try:
                return function(*args)
            finally:
                calls["ended"] += 1

        return swapco.to_thread(counted)

    # ------------------------------------------------------------------------------------ what blocks

    def do_block(self) -> None:
        value = self.dice.random()

        def blocking() -> float:
            for _ in range(self.dice.randint(1, 3)):
                self.block()
            return value

        check(self.on_thread(blocking) == value, "what a blocking function returned")

    def do_to_thread(self) -> None:
        """Arguments, results, exceptions, context variables; calls within calls, and waits in them."""
        number = NUMBER.get()

        def nested(depth: int) -> tuple[int, int]:
            check(NUMBER.get() == number, "a context variable in a call", NUMBER.get(), number)
            NUMBER.set(-1)
            if self.dice.random() < 0.5:
                swapco.sleep(0)
            if self.dice.random() < 0.5:
                self.block()
            NUMBER.set(number)
            if depth:
                return self.call(nested, depth - 1)[0] + 1, threading.get_ident()
            return 0, threading.get_ident()

        # a call that waits for a thread keeps its own: with few of them that may be for ever
        depth = self.dice.randrange(3) if self.many_threads else 0
        found, thread = self.call(nested, depth)
        check(found == depth, "the depth of nested calls", found, depth)
        check(thread != self.home, "a call that ran on the loop's thread")
        check(NUMBER.get() == number, "a context variable after a call", NUMBER.get(), number)

        error = Expected(number)

        def raising() -> None:
            if depth:
                self.block()
            raise error

        try:
            self.call(raising)
        except Expected as caught:
            check(caught is error, "another call's exception", caught)
        else:
            check(False, "an exception was lost")

    def do_pipe(self) -> None:
        """Bytes through a pipe that is read and written by blocking system calls."""
        with self.pipes:
            self.through_a_pipe()

    def through_a_pipe(self) -> None:
        data = self.dice.randbytes(self.dice.choice((1, 1000, 200_000)))
        reading, writing = os.pipe()

        def read() -> bytes:
            got = b""
            while part := os.read(reading, 65536):
                got += part
            return got

        def write() -> None:
            try:
                if self.dice.random() < 0.5:
                    self.block()
                left = data
                while left:
                    left = left[os.write(writing, left) :]
            finally:
                os.close(writing)

        # nobody can cancel a system call: also a cancelled caller waits for both
        fibers = [swapco.spawn(read, thread=True), swapco.spawn(write, thread=True)]
        cancelled = None
        while not all(fiber.done() for fiber in fibers):
            try:
                swapco.sleep(0.0005)
            except swapco.CancelledError as error:
                cancelled = error
        os.close(reading)
        check(fibers[0].result() == data, "bytes through a pipe", len(data))
        if cancelled is not None:
            raise cancelled

    def do_blocking(self) -> None:
        """``with blocking()``, nested, with waits inside."""
        number = NUMBER.get()

        def work() -> int:
            found = 0
            with swapco.blocking():
                self.block()
                if self.dice.random() < 0.3:
                    with swapco.blocking():
                        self.block()
                if self.dice.random() < 0.3:
                    found = swapco.sleep(0, 5) - 5
                    self.block()
            check(NUMBER.get() == number, "a context variable after blocking()")
            return found + 1

        check(self.on_thread(work) == 1, "what work returned")

    def do_from_thread(self) -> None:
        """From thread fibers and from foreign threads, functions on the loop's thread."""
        value = self.dice.random()

        def at_home(thing: float) -> tuple[float, int]:
            self.dice.random() < 0.5 and swapco.sleep(0)
            return thing, threading.get_ident()

        async def coroutine(thing: float) -> tuple[float, int]:
            return at_home(thing)

        function = self.dice.choice((at_home, coroutine))
        found = self.on_thread(from_thread.run, function, value)
        check(found == (value, self.home), "from_thread.run", found, value, self.home)

        found_too: list[Any] = []
        thread = threading.Thread(target=lambda: found_too.append(from_thread.run(function, value, loop=self.loop)))
        thread.start()
        cancelled = None
        while thread.is_alive():
            try:
                swapco.sleep(0.0005)
            except swapco.CancelledError as error:
                cancelled = error
        check(found_too == [(value, self.home)], "from_thread.run of a foreign thread", found_too)
        if cancelled is not None:
            raise cancelled

    # ------------------------------------------------------------------------------------ both kinds together

    def do_blocking_producers(self) -> None:
        """A queue between threads that block between their calls: every item arrives once, in each one's order."""
        queue: Any = swapco.Queue(self.dice.choice((0, 1, 3)))
        count, producers = self.dice.randint(1, 10), self.dice.randint(1, 3)

        def produce(name: int) -> None:
            for n in range(count):
                queue.put((name, n))
                self.dice.random() < 0.3 and self.on_thread_fiber(self.block)

        def consume() -> list[Any]:
            got = []
            for _ in range(count * producers):
                got.append(queue.get())
                self.dice.random() < 0.1 and self.on_thread_fiber(self.block)
            return got

        jobs: list[Any] = [lambda name=name: produce(name) for name in range(producers)]
        got = self.family(*jobs, consume)[-1]
        for name in range(producers):
            check([n for who, n in got if who == name] == list(range(count)), "items of a producer", name, got)

    @staticmethod
    def on_thread_fiber(block: Callable[[], None]) -> None:
        """Block, but never the loop's thread."""
        if threading.current_thread() is not threading.main_thread():
            block()

    def do_blocking_owner(self) -> None:
        """A lock is held by a thread that blocks: it still has one owner."""
        shared = self.shared

        def own() -> None:
            with shared.lock:
                check(id(shared.lock) not in shared.owners, "two owners of a lock", shared.owners)
                shared.owners[id(shared.lock)] = self.number
                try:
                    self.block()
                finally:
                    check(shared.owners.pop(id(shared.lock)) == self.number, "owner of a lock")

        self.on_thread(own)

    def do_relay(self) -> None:
        """switch_to around a ring of fibers of both kinds: the value goes around, and comes back."""
        size, laps = self.dice.randint(1, 5), self.dice.randint(1, 10)
        ring: list[Any] = []
        ready = swapco.Event()

        def station(place: int) -> int:
            ready.wait()
            passed = 0
            while True:
                value = swapco.block()
                if value is None:
                    return passed
                self.dice.random() < 0.05 and self.on_thread_fiber(self.block)
                passed += 1
                after = ring[(place + 1) % len(ring)]
                resumed = swapco.resume(after, value + 1)
                check(resumed or after.done() or after.cancelling(), "a station that was not ready", after)

        def begin() -> int:
            total = 0
            ready.wait()
            for _ in range(laps):
                try:
                    value = swapco.switch_to(ring[0], total)
                except asyncio.InvalidStateError:
                    # the relay is given up: the first station may be gone before this fiber sees its own cancellation
                    check(ring[0].cancelled(), "a station that ended", ring[0])
                    return total
                check(value == total + size, "what went around", value, total, size)
                total = value
            return total

        try:
            for place in range(size):
                ring.append(self.start(station, place))
            ring.append(self.start(begin))
            ready.set()
            total = ring[-1].join()
            check(total == size * laps, "laps", total, size, laps)
            for fiber in ring[:-1]:
                swapco.resume(fiber, None)
                check(fiber.join() == laps, "how often a station was passed")
        finally:
            for fiber in ring:
                fiber.cancel()

    def do_garbage(self) -> None:
        """Collections on every thread, with finalizers that leave tokens."""
        me = swapco.current_fiber()

        class Knot:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                swapco.resume(me, KNOT)

        def collect() -> None:
            for _ in range(self.dice.randint(1, 5)):
                Knot()
            gc.collect(self.dice.randrange(3))

        gc.set_threshold(self.dice.choice((50, 700, 2000)), 10, 10)
        self.on_thread(collect)
        try:
            while True:
                check(swapco.block(0.001) is KNOT, "a token that nobody left")
        except TimeoutError:
            pass

    def do_abandoned_call(self) -> None:
        """A time limit on a call that blocks: the caller leaves at once, the call runs to its end."""
        try:
            with swapco.timeout(self.dice.random() * 0.003):
                self.call(time.sleep, self.dice.random() * 0.005)
        except TimeoutError:
            pass
