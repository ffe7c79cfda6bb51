"""Locks against asyncio's: the same bodies, with ``async`` and ``await`` deleted for swapco."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from parity import parity

from swapco import locks

pytestmark = pytest.mark.usefixtures("fibers")


@parity
async def test_lock(lib: Any) -> None:
    lock = lib.Lock()
    assert not lock.locked()
    assert await lock.acquire() is True
    assert lock.locked()
    order = []

    async def take(name: str) -> None:
        async with lock as value:
            assert value is None
            order.append(name)
            await lib.sleep(0)

    tasks = [lib.start(take, name) for name in "abc"]
    await lib.settle()
    assert order == []
    assert lock.release() is None
    for task in tasks:
        await lib.join(task)
    assert order == ["a", "b", "c"]
    with pytest.raises(RuntimeError, match="Lock is not acquired"):
        lock.release()
    with pytest.raises(ZeroDivisionError):
        async with lock:
            raise ZeroDivisionError
    assert not lock.locked()


@parity
async def test_lock_is_released_by_somebody_else(lib: Any) -> None:
    lock = lib.Lock()
    await lock.acquire()

    async def release() -> None:
        lock.release()

    await lib.join(lib.start(release))
    assert not lock.locked()


@parity
async def test_lock_cancelled_waiter(lib: Any) -> None:
    lock = lib.Lock()
    await lock.acquire()
    first, second = lib.start(lock.acquire), lib.start(lock.acquire)
    await lib.settle()
    first.cancel()
    with pytest.raises(lib.CancelledError):
        await lib.join(first)
    lock.release()
    assert await lib.join(second) is True
    assert lock.locked()


@parity
async def test_lock_cancelled_holder(lib: Any) -> None:
    lock = lib.Lock()

    async def hold() -> None:
        async with lock:
            await lib.sleep(100)

    task = lib.start(hold)
    await lib.settle()
    assert lock.locked()
    task.cancel()
    with pytest.raises(lib.CancelledError):
        await lib.join(task)
    assert not lock.locked()


@parity
async def test_event(lib: Any) -> None:
    event = lib.Event()
    assert event.is_set() is False
    tasks = [lib.start(event.wait) for _ in range(3)]
    await lib.settle()
    assert not any(task.done() for task in tasks)
    event.set()
    event.clear()
    for task in tasks:
        assert await lib.join(task) is True
    assert event.is_set() is False
    event.set()
    assert await event.wait() is True
    event.set()
    event.clear()
    task = lib.start(event.wait)
    await lib.settle()
    task.cancel()
    with pytest.raises(lib.CancelledError):
        await lib.join(task)
    event.set()
    assert await event.wait() is True


@parity
async def test_condition(lib: Any) -> None:
    condition = lib.Condition()
    order = []

    async def wait(name: str) -> None:
        async with condition:
            assert await condition.wait() is True
            assert condition.locked()
            order.append(name)

    tasks = [lib.start(wait, name) for name in "abcde"]
    await lib.settle()
    async with condition:
        condition.notify()
        await lib.settle()
        assert order == []
    await lib.settle()
    assert order == ["a"]
    async with condition:
        condition.notify(2)
    await lib.settle()
    assert order == ["a", "b", "c"]
    assert await condition.acquire() is True
    condition.notify_all()
    condition.release()
    for task in tasks:
        await lib.join(task)
    assert order == ["a", "b", "c", "d", "e"]
    for call in (condition.notify, condition.notify_all):
        with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
            call()
    with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
        await condition.wait()


@parity
async def test_condition_wait_for(lib: Any) -> None:
    condition = lib.Condition(lib.Lock())
    box: list[int] = []

    async def wait() -> list[int]:
        async with condition:
            return await condition.wait_for(lambda: box[1:])

    task = lib.start(wait)
    for i in range(3):
        await lib.settle()
        assert task.done() == (i > 2)
        async with condition:
            box.append(i)
            if i != 1:
                condition.notify()
    assert await lib.join(task) == [1, 2]


@parity
async def test_condition_cancelled_waiter_holds_the_lock(lib: Any) -> None:
    condition = lib.Condition()
    held = []

    async def wait() -> None:
        async with condition:
            try:
                await condition.wait()
            finally:
                held.append(condition.locked())

    task = lib.start(wait)
    await lib.settle()
    async with condition:
        task.cancel()
        await lib.settle()
        assert not task.done()
    with pytest.raises(lib.CancelledError):
        await lib.join(task)
    assert held == [True]
    assert not condition.locked()


@parity
async def test_condition_passes_the_notification_of_a_cancelled_waiter_on(lib: Any) -> None:
    if lib.name == "asyncio" and not hasattr(asyncio, "QueueShutDown"):
        return  # asyncio loses it before 3.13
    condition = lib.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    first, second = lib.start(wait), lib.start(wait)
    await lib.settle()
    async with condition:
        condition.notify()
        await lib.sleep(0)
        first.cancel()
    with pytest.raises(lib.CancelledError):
        await lib.join(first)
    await lib.join(second)


@parity
async def test_semaphore(lib: Any) -> None:
    with pytest.raises(ValueError):
        lib.Semaphore(-1)
    semaphore = lib.Semaphore(2)
    assert await semaphore.acquire() is True
    assert not semaphore.locked()
    await semaphore.acquire()
    assert semaphore.locked()
    order = []

    async def take(name: str) -> None:
        async with semaphore:
            order.append(name)
            await lib.sleep(0)

    tasks = [lib.start(take, name) for name in "abcd"]
    await lib.settle()
    tasks[1].cancel()
    semaphore.release()
    assert semaphore.locked()
    semaphore.release()
    for task in tasks[0], tasks[2], tasks[3]:
        await lib.join(task)
    assert order == ["a", "c", "d"]
    assert tasks[1].cancelled()
    assert not semaphore.locked()
    semaphore.release()
    for _ in range(3):
        await semaphore.acquire()
    assert semaphore.locked()


@parity
async def test_semaphore_zero(lib: Any) -> None:
    semaphore = lib.Semaphore(0)
    assert semaphore.locked()
    task = lib.start(semaphore.acquire)
    await lib.settle()
    semaphore.release()
    assert await lib.join(task) is True
    assert semaphore.locked()


@parity
async def test_bounded_semaphore(lib: Any) -> None:
    semaphore = lib.BoundedSemaphore(1)
    with pytest.raises(ValueError, match="BoundedSemaphore released too many times"):
        semaphore.release()
    async with semaphore:
        assert semaphore.locked()
    with pytest.raises(ValueError):
        semaphore.release()
    assert not semaphore.locked()


@parity
async def test_barrier(lib: Any) -> None:
    with pytest.raises(ValueError):
        lib.Barrier(0)
    barrier = lib.Barrier(3)
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)
    for _ in range(2):
        tasks = [lib.start(barrier.wait) for _ in range(2)]
        await lib.settle()
        assert barrier.n_waiting == 2
        async with barrier as index:
            assert index == 2
        assert [await lib.join(task) for task in tasks] == [0, 1]
        await lib.settle()
        assert barrier.n_waiting == 0


@parity
async def test_barrier_cancelled_waiter_just_leaves(lib: Any) -> None:
    barrier = lib.Barrier(2)
    task = lib.start(barrier.wait)
    await lib.settle()
    task.cancel()
    with pytest.raises(lib.CancelledError):
        await lib.join(task)
    assert (barrier.n_waiting, barrier.broken) == (0, False)
    task = lib.start(barrier.wait)
    assert {await barrier.wait(), await lib.join(task)} == {0, 1}


@parity
async def test_barrier_reset_and_abort(lib: Any) -> None:
    barrier = lib.Barrier(2)
    for operation in (barrier.reset, barrier.abort):
        task = lib.start(barrier.wait)
        await lib.settle()
        await operation()
        with pytest.raises(lib.BrokenBarrierError):
            await lib.join(task)
        assert barrier.n_waiting == 0
    assert barrier.broken
    with pytest.raises(lib.BrokenBarrierError):
        await barrier.wait()
    await barrier.reset()
    assert not barrier.broken
    task = lib.start(barrier.wait)
    await lib.settle()
    assert await barrier.wait() == 1
    assert await lib.join(task) == 0


# the fibers' locks add a keyword-only `timeout`, and nothing else
@pytest.mark.parametrize("name", ["Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier"])
def test_names_and_signatures(name: str) -> None:
    theirs, ours = getattr(asyncio, name), getattr(locks, name)
    for attribute in dir(theirs):
        if attribute.startswith("_"):
            continue
        assert hasattr(ours, attribute), f"{name}.{attribute}"
        method = getattr(theirs, attribute)
        if not callable(method):
            continue
        parameters = dict(inspect.signature(getattr(ours, attribute)).parameters)
        timeout = parameters.pop("timeout", None)
        assert timeout is None or timeout.kind is inspect.Parameter.KEYWORD_ONLY
        expected = inspect.signature(method).parameters.values()
        assert [(p.name, p.default) for p in parameters.values()] == [(p.name, p.default) for p in expected]
    if name == "Condition":  # made in asyncio's __init__
        assert all(hasattr(ours, attribute) for attribute in ("acquire", "release", "locked"))
