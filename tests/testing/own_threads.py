"""Scenarios of threads, coroutines, futures and locals in a controlled run, and their laws."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from own_laws import CANCELLED, LATE, Make, Scenario

import swapco
from swapco.testing import schedule_point

__all__ = ["SCENARIOS", "UNDISTURBED"]

GONE = (CANCELLED, LATE)


def threads() -> Scenario:
    """A call on a thread runs exactly once, to its end; a caller that is cancelled leaves it to itself."""
    calls: list[str] = []

    def call(name: str) -> str:
        calls.append(f"{name} begins")
        with swapco.blocking():
            schedule_point()
        calls.append(f"{name} ends")
        return name

    def caller(name: str) -> Callable[[], str]:
        return lambda: swapco.to_thread(call, name)

    def law(ends: list[Any]) -> None:
        while any(fiber is not swapco.current_fiber() for fiber in swapco.all_fibers()):
            swapco.sleep(0)
        for name, end in zip("ab", ends, strict=True):
            assert end in (*GONE, name)
            times = calls.count(f"{name} begins")
            assert times == calls.count(f"{name} ends") == (1 if end == name else times)
            assert times <= 1

    return Scenario([caller("a"), caller("b")], law)


def thread_fibers() -> Scenario:
    """Thread fibers use the primitives like all others."""
    lock, queue = swapco.Lock(), swapco.Queue[int](1)
    inside = [0]
    gotten: list[int] = []

    def produce() -> None:
        for item in range(2):
            with lock:
                inside[0] += 1
                assert inside[0] == 1
                with swapco.blocking():
                    schedule_point()
                inside[0] -= 1
            queue.put(item)

    def start(fn: Callable[[], None]) -> Callable[[], None]:
        return lambda: swapco.spawn(fn, thread=True).join()

    def consume() -> None:
        for _ in range(2):
            gotten.append(queue.get())
            with lock:
                inside[0] += 1
                assert inside[0] == 1
                inside[0] -= 1

    def law(ends: list[Any]) -> None:
        assert gotten == [0, 1]
        assert not lock.locked()

    return Scenario([start(produce), start(consume)], law, victims=())


def thread_fibers_disturbed() -> Scenario:
    """A thread fiber that is cancelled anywhere leaves the lock free, and the item with somebody."""
    lock, queue = swapco.Lock(), swapco.Queue[int]()
    queue.put_nowait(0)
    gotten: list[int] = []
    fibers: list[swapco.Fiber[None]] = []

    def work() -> None:
        with lock:
            with swapco.blocking():
                schedule_point()
            gotten.append(queue.get(timeout=1))

    def start() -> None:
        fibers.append(fiber := swapco.spawn(work, thread=True))
        try:
            fiber.join()
        except TimeoutError:
            pass
        finally:
            fiber.cancel()

    def law(ends: list[Any]) -> None:
        swapco.gather(*fibers, return_exceptions=True)
        assert len(gotten) + queue.qsize() == 1
        assert lock.statistics() == (False, None, 0, 0)

    return Scenario([start, start], law)


def coroutines() -> Scenario:
    """``async with`` on a lock, a semaphore, a condition and a barrier, and futures of the loop."""
    lock, permits, meeting = swapco.Lock(), swapco.Semaphore(1), swapco.Barrier(2)
    changed = swapco.Condition(lock)
    inside = [0]
    passed: list[int] = []

    async def visit() -> None:
        async with permits, lock:
            inside[0] += 1
            assert inside[0] == 1
            schedule_point()
            await asyncio.sleep(0)
            inside[0] -= 1
            changed.notify_all()
        async with meeting as index:
            passed.append(index)
        async with changed:
            assert lock.owner is swapco.current_fiber()

    def law(ends: list[Any]) -> None:
        assert sorted(passed) == [0, 1]
        assert permits.statistics() == (1, 0)
        assert not lock.locked()

    return Scenario([lambda: swapco.spawn(visit).join()] * 2, law, victims=())


def coroutine_locks() -> Scenario:
    """A coroutine that is cancelled anywhere in ``async with`` leaves nothing locked."""
    lock, permits = swapco.Lock(), swapco.Semaphore(1)
    visits: list[int] = []

    def visitor(number: int) -> Callable[[], Any]:
        async def visit() -> None:
            async with lock, permits:
                await asyncio.sleep(0)
                visits.append(number)

        return lambda: swapco.await_(visit())

    def law(ends: list[Any]) -> None:
        assert sorted(visits) == [number for number, end in enumerate(ends) if end not in GONE]
        assert lock.statistics() == (False, None, 0, 0)
        assert permits.statistics() == (1, 0)

    return Scenario([visitor(0), visitor(1)], law)


def coroutine_queue() -> Scenario:
    """Coroutines that call blocking functions in the middle: the items are in the queue, or with whoever got them."""
    queue: swapco.Queue[int] = swapco.Queue(1)
    put: list[int] = []
    gotten: list[int] = []

    async def produce() -> None:
        for item in range(2):
            await asyncio.sleep(0)
            queue.put(item)
            put.append(item)

    async def consume() -> None:
        for _ in range(2):
            gotten.append(await swapco.spawn(queue.get_nowait) if queue.qsize() else queue.get(timeout=1))
            await asyncio.sleep(0)

    def law(ends: list[Any]) -> None:
        assert ends == [None, None]
        assert gotten == put == [0, 1]

    return Scenario([lambda: swapco.await_(produce()), lambda: swapco.await_(consume())], law, victims=())


def locals_of_fibers() -> Scenario:
    """Each fiber sees its own attributes of a ``local``, and its own context, whoever runs in between."""
    own = swapco.local()
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)

    def use(me: int) -> Callable[[], None]:
        def uses() -> None:
            assert not hasattr(own, "value")
            assert variable.get() == -1
            own.value = me
            variable.set(me)
            if me:
                child = swapco.spawn(lambda: (hasattr(own, "value"), variable.get()))
                assert child.join() == (False, me)
            else:
                schedule_point()
            assert (own.value, variable.get()) == (me, me)

        return uses

    def law(ends: list[Any]) -> None:
        assert not hasattr(own, "value")
        assert variable.get() == -1

    return Scenario([use(0), use(1)], law)


def futures() -> Scenario:
    """A callback of the loop sets a future that two fibers await; a cancelled one takes no other along."""

    def law(ends: list[Any]) -> None:
        assert all(end in (*GONE, "result") for end in ends)

    future: list[asyncio.Future[str]] = []

    def await_it() -> str:
        if not future:
            loop = asyncio.get_running_loop()
            future.append(loop.create_future())
            loop.call_soon(future[0].set_result, "result")
        return swapco.await_(asyncio.shield(future[0]))

    return Scenario([await_it, await_it], law)


SCENARIOS: dict[str, Make] = {
    make.__name__: make
    for make in (
        threads,
        thread_fibers_disturbed,
        coroutine_locks,
        locals_of_fibers,
        futures,
    )
}
UNDISTURBED: dict[str, Make] = {
    make.__name__: make
    for make in (
        thread_fibers,
        coroutines,
        coroutine_queue,
    )
}
