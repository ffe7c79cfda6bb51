"""Steps of the soak run (soak.py): primitives, the three verbs, asyncio, sockets, threads, processes.

A step is a method whose name begins with ``do_``; a worker calls steps at random, and is cancelled at random: a step
may raise CancelledError or TimeoutError, after cleaning up, and nothing else.  What a step finds wrong it says with
``check``.  Everything random comes from ``self.dice``.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator
from typing import Any

from helpers import SOON_S
from soak_tools import NOTHING, Tools, check

import swapco
from swapco import socket


class Waits(Tools):
    """Steps that wait for something, or somebody."""

    def do_yield(self) -> None:
        values = [self.dice.random() for _ in range(5)]
        expected = list(values)
        for _ in range(self.dice.randint(1, 10)):
            self.pause()
            check(values == expected, "locals", values, expected)

    def do_queue(self) -> None:
        shared = self.shared
        if self.dice.random() < 0.5:
            item = (self.number, self.produced)
            shared.queue.put(item, timeout=self.limit())
            self.produced += 1
            shared.put[item] += 1
        else:
            item = shared.queue.get(timeout=self.limit())
            shared.got[item] += 1
            producer, serial = item
            check(serial > self.last_seen.get(producer, -1), "order of items", item, self.last_seen)
            self.last_seen[producer] = serial

    def do_heap(self) -> None:
        if self.dice.random() < 0.5:
            item = self.dice.randrange(1000)
            self.shared.heap.put(item, timeout=self.limit())
            self.shared.put[item] += 1
        else:
            self.shared.got[self.shared.heap.get(timeout=self.limit())] += 1

    def do_own_queue(self) -> None:
        """All items arrive, in order; none twice."""
        queue: Any = swapco.Queue(self.dice.choice((0, 1, 3)))
        count = self.dice.randint(1, 30)

        def produce() -> None:
            for n in range(count):
                queue.put(n)
                self.pause()

        def consume() -> list[int]:
            got = []
            for _ in range(count):
                got.append(queue.get())
                self.pause()
            return got

        _, got = self.family(produce, consume)
        check(got == list(range(count)), "items of a queue", got)

    def do_lock(self) -> None:
        which: Any = self.dice.choice((self.shared.lock, self.shared.rlock))
        which.acquire(timeout=self.limit())
        try:
            again = which is self.shared.rlock and self.dice.random() < 0.5
            if again:
                which.acquire()
            try:
                check(id(which) not in self.shared.owners, "two owners of a lock", self.shared.owners)
                self.shared.owners[id(which)] = self.number
                try:
                    self.pause()
                finally:
                    check(self.shared.owners.pop(id(which)) == self.number, "owner of a lock")
            finally:
                if again:
                    which.release()
        finally:
            which.release()

    def do_semaphore(self) -> None:
        shared = self.shared
        shared.semaphore.acquire(timeout=self.limit())
        try:
            shared.inside += 1
            check(shared.inside <= shared.permits, "too many in a semaphore", shared.inside)
            self.pause()
        finally:
            shared.inside -= 1
            shared.semaphore.release()

    def do_condition(self) -> None:
        shared = self.shared
        with shared.condition:
            if self.dice.random() < 0.6:
                shared.level += 1
                shared.condition.notify(1)
            else:
                check(
                    shared.condition.wait_for(lambda: shared.level > 0, timeout=self.limit() or 0.001),
                    "wait_for returned something false",
                )
                check(shared.level > 0, "a condition that does not hold", shared.level)
                shared.level -= 1

    def do_event(self) -> None:
        if self.dice.random() < 0.4:
            self.shared.event.set()
        else:
            self.shared.event.clear()
            check(self.shared.event.wait(timeout=0.001), "Event.wait returned something false")

    def do_barrier(self) -> None:
        parties = self.dice.randint(2, 5)
        barrier = swapco.Barrier(parties)

        def meet() -> int:
            self.pause()
            return barrier.wait()

        try:
            places = self.family(*[meet] * parties)
        except swapco.BrokenBarrierError:
            return
        check(sorted(places) == list(range(parties)), "places at a barrier", places)

    def do_timeouts(self) -> None:
        outer_s, inner_s = self.dice.random() * 0.002, self.dice.random() * 0.002
        reached = False
        outer = inner = None
        try:
            with swapco.timeout(outer_s) as outer:
                try:
                    with swapco.timeout(inner_s) as inner:
                        swapco.sleep(self.dice.random() * 0.002)
                        reached = True
                except TimeoutError:
                    check(inner is not None and inner.expired() and not reached, "an inner timeout")
                self.pause()
        except TimeoutError:
            check(outer is not None and outer.expired(), "an outer timeout")
        check(sys.exc_info() == NOTHING, "exc_info after timeouts", sys.exc_info())

    def do_calls(self) -> None:
        """switch_to and block/resume between two private fibers: every value arrives, in order."""
        count = self.dice.randint(1, 50)

        def serve(client: Any) -> int:
            served = 0
            request = swapco.block()
            # a client that is cancelled may be gone
            while request is not None and not client.done():
                served += 1
                if self.dice.random() < 0.8:
                    request = swapco.switch_to(client, ("answer", request))
                else:
                    resumed = swapco.resume(client, ("answer", request))
                    check(resumed or client.cancelling(), "a client that did not wait")
                    request = swapco.block()
            return served

        def call() -> int:
            server = self.start(serve, swapco.current_fiber())
            try:
                for n in range(count):
                    answer = swapco.switch_to(server, n)
                    check(answer == ("answer", n), "what switch_to returned", answer, n)
                swapco.resume(server, None)
                return server.join()
            finally:
                server.cancel()

        client = self.start(call)
        check(self.family(lambda: self.join_or_cancel(client)) == [count], "requests that were served")

    @staticmethod
    def join_or_cancel(fiber: Any) -> Any:
        try:
            return fiber.join()
        finally:
            fiber.cancel()

    def do_resume_from_thread(self) -> None:
        """Each value that a resume from another thread brings in arrives, in order."""
        accepted: list[int] = []
        received: list[int] = []
        count = self.dice.randint(1, 50)
        target: Any = None
        ended = threading.Event()

        def resume() -> None:
            for n in range(count):
                if swapco.resume(target, n):
                    accepted.append(n)
            ended.set()

        def receive() -> None:
            while not ended.is_set():
                try:
                    received.append(swapco.block(0.001))
                except (TimeoutError, swapco.CancelledError):
                    pass
            while True:
                try:
                    received.append(swapco.block(0))
                except swapco.CancelledError:
                    pass
                except TimeoutError:
                    return

        target = self.start(receive)
        thread = threading.Thread(target=resume)
        thread.start()
        try:
            self.family(lambda: self.join_or_cancel(target))
        finally:
            thread.join()
        if not target.done():
            self.family(target.join)
        check(received == accepted, "values from a thread", received, accepted)

    def do_group(self) -> None:
        count, bad = self.dice.randint(1, 6), self.dice.randrange(8)

        def child(n: int) -> int:
            self.pause()
            if n == bad:
                raise LookupError(n)
            self.pause()
            return n * n

        children: list[Any] = []
        try:
            with swapco.TaskGroup() as group:
                for n in range(count):
                    children.append(group.spawn(child, n))
        except ExceptionGroup as errors:
            check(bad < count and [e.args for e in errors.exceptions] == [(bad,)], "errors of a group", errors)
            self.pause()
        else:
            check(bad >= count, "a group without its error", bad, count)
            check([c.result() for c in children] == [n * n for n in range(count)], "results of a group")
        check(all(c.done() for c in children), "children after their group", children)

    def do_await(self) -> None:
        """asyncio code in a fiber, and fibers in asyncio code."""
        marks: list[int] = []

        async def numbers(count: int) -> AsyncIterator[int]:
            for n in range(count):
                await asyncio.sleep(0)
                yield n

        async def work(count: int) -> list[int]:
            try:
                async with asyncio.timeout(SOON_S):
                    found = [n async for n in numbers(count)]
                    found.append(await asyncio.sleep(0.0001, count))
                    found += await asyncio.gather(*[asyncio.sleep(0, n) for n in range(3)])
                    found.append(await swapco.spawn(swapco.sleep, 0, 7))
                    return found
            finally:
                marks.append(count)

        count = self.dice.randint(0, 5)
        try:
            found = swapco.await_(work(count))
            check(found == [*range(count + 1), 0, 1, 2, 7], "what await_ returned", found)
        finally:
            check(marks == [count] or marks == [], "a coroutine's finally", marks)

    def do_executor(self) -> None:
        loop = asyncio.get_running_loop()
        n = self.dice.randrange(1000)
        check(swapco.await_(loop.run_in_executor(None, pow, n, 2)) == n * n, "what a thread returned")

    def do_waiting(self) -> None:
        def child(n: int) -> int:
            self.pause()
            return n

        count = self.dice.randint(1, 5)
        things = [functools.partial(child, n) for n in range(count)]
        check(list(swapco.gather(*things)) == list(range(count)), "gather")
        try:
            check(swapco.wait_for(functools.partial(child, 5), self.dice.random() * 0.001) == 5, "wait_for")
        except TimeoutError:
            pass

    def do_socket(self) -> None:
        near, far = socket.socketpair()
        with near, far:
            data = self.dice.randbytes(self.dice.choice((1, 100, 5000, 200_000)))

            def receive() -> bytes:
                got = b""
                while len(got) < len(data):
                    got += far.recv(65536)
                return got

            _, got = self.family(lambda: near.sendall(data), receive)
            check(got == data, "bytes through a socket", len(got), len(data))

    # ------------------------------------------------------------------------------------ processes, threads

    def do_other_loop(self) -> None:
        """Another thread runs fibers of its own."""
        if self.dice.random() < 0.7:
            return
        numbers = [self.dice.randrange(100) for _ in range(5)]

        def main() -> list[int]:
            def child(n: int) -> int:
                for _ in range(5):
                    swapco.sleep(0)
                return sorted([n, 1000], key=lambda m: swapco.sleep(0, m))[0]

            return list(swapco.gather(*[functools.partial(child, n) for n in numbers]))

        found = swapco.await_(asyncio.to_thread(swapco.run, main, switch=self.shared.switch))
        check(found == numbers, "another thread's fibers", found, numbers)

    def do_fork(self) -> None:
        if self.dice.random() < 0.9:
            return
        expected = self.dice.randrange(1, 60)
        runs = self.dice.random() < 0.5
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                signal.alarm(int(SOON_S))
                code = swapco.run(swapco.sleep, 0.001, expected, switch=self.shared.switch) if runs else expected
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        found: list[int] = []

        def ended() -> bool:
            which, status = os.waitpid(pid, os.WNOHANG)
            if which:
                found.append(os.waitstatus_to_exitcode(status))
            return bool(found)

        cancelled = None
        while not found:
            try:
                ended() or swapco.sleep(0.001)
            except swapco.CancelledError as error:
                cancelled = error
        check(found == [expected], "a forked child", found, expected, runs)
        if cancelled is not None:
            raise cancelled
