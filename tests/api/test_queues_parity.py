"""Queues against asyncio's: the same bodies, with ``async`` and ``await`` deleted for swapco."""

from __future__ import annotations

import asyncio
import inspect
import random
from typing import Any

import pytest
from parity import parity

from swapco import queues

pytestmark = pytest.mark.usefixtures("fibers")


@parity
async def test_put_and_get(lib: Any) -> None:
    for kind, expected in (
        (lib.Queue, [3, 1, 2]),
        (lib.LifoQueue, [2, 1, 3]),
        (lib.PriorityQueue, [1, 2, 3]),
    ):
        queue = kind(3)
        assert (queue.maxsize, queue.qsize(), queue.empty(), queue.full()) == (3, 0, True, False)
        with pytest.raises(lib.QueueEmpty):
            queue.get_nowait()
        assert await queue.put(3) is None
        queue.put_nowait(1)
        await queue.put(2)
        assert (queue.qsize(), queue.empty(), queue.full()) == (3, False, True)
        with pytest.raises(lib.QueueFull):
            queue.put_nowait(4)
        assert [queue.get_nowait(), await queue.get(), await queue.get()] == expected


@parity
async def test_defaults_and_endless_queues(lib: Any) -> None:
    for queue in (lib.Queue(), lib.Queue(maxsize=0), lib.Queue(-1), lib.Queue(float("inf"))):
        for i in range(100):
            queue.put_nowait(i)
        assert not queue.full()
        assert [queue.get_nowait() for _ in range(100)] == list(range(100))


@parity
async def test_getters_wait_in_line(lib: Any) -> None:
    queue = lib.Queue()
    tasks = [lib.start(queue.get) for _ in range(4)]
    await lib.settle()
    tasks[1].cancel()
    for i in range(3):
        queue.put_nowait(i)
    assert [await lib.join(tasks[i]) for i in (0, 2, 3)] == [0, 1, 2]
    assert tasks[1].cancelled()
    assert queue.empty()


@parity
async def test_putters_wait_in_line(lib: Any) -> None:
    queue = lib.Queue(2)
    tasks = [lib.start(queue.put, i) for i in range(6)]
    await lib.settle()
    assert [task.done() for task in tasks] == [True, True, False, False, False, False]
    assert queue.qsize() == 2
    tasks[3].cancel()
    got = []
    for _ in range(5):
        got.append(await queue.get())
        await lib.settle()
    assert got == [0, 1, 2, 4, 5]
    assert tasks[3].cancelled()
    assert queue.empty()


@parity
async def test_producers_and_consumers(lib: Any) -> None:
    for maxsize in range(4):
        queue = lib.Queue(maxsize)
        got: list[int] = []

        async def produce(start: int) -> None:
            for i in range(start, start + 50):
                await queue.put(i)  # noqa: B023
                if random.random() < 0.1:
                    await lib.sleep(0)

        async def consume() -> None:
            while True:
                item = await queue.get()  # noqa: B023
                if random.random() < 0.1:
                    await lib.sleep(0)
                got.append(item)  # noqa: B023
                queue.task_done()  # noqa: B023

        consumers = [lib.start(consume) for _ in range(3)]
        producers = [lib.start(produce, start) for start in (0, 100, 200)]
        for producer in producers:
            await lib.join(producer)
        await queue.join()
        assert sorted(got) == [start + i for start in (0, 100, 200) for i in range(50)]
        for consumer in consumers:
            consumer.cancel()


@parity
async def test_join(lib: Any) -> None:
    queue = lib.Queue()
    await queue.join()
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queue.task_done()
    for i in range(2):
        queue.put_nowait(i)
    tasks = [lib.start(queue.join) for _ in range(2)]
    for _ in range(2):
        await lib.settle()
        assert not any(task.done() for task in tasks)
        await queue.get()
        queue.task_done()
    for task in tasks:
        assert await lib.join(task) is None


@parity
async def test_shutdown(lib: Any) -> None:
    if lib.QueueShutDown is None:
        return  # asyncio before 3.13
    for kind in (lib.Queue, lib.LifoQueue, lib.PriorityQueue):
        queue = kind(2)
        queue.put_nowait(1)
        queue.put_nowait(2)
        putter, joiner = lib.start(queue.put, 3), lib.start(queue.join)
        await lib.settle()
        queue.shutdown()
        with pytest.raises(lib.QueueShutDown):
            await lib.join(putter)
        with pytest.raises(lib.QueueShutDown):
            await queue.put(4)
        with pytest.raises(lib.QueueShutDown):
            queue.put_nowait(4)
        assert {await queue.get(), queue.get_nowait()} == {1, 2}
        with pytest.raises(lib.QueueShutDown):
            await queue.get()
        with pytest.raises(lib.QueueShutDown):
            queue.get_nowait()
        await lib.settle()
        assert not joiner.done()
        queue.task_done()
        queue.task_done()
        await lib.join(joiner)


@parity
async def test_shutdown_immediate(lib: Any) -> None:
    if lib.QueueShutDown is None:
        return  # asyncio before 3.13
    queue = lib.Queue()
    for i in range(3):
        queue.put_nowait(i)
    joiner = lib.start(queue.join)
    await lib.settle()
    assert await queue.get() == 0
    queue.shutdown(immediate=True)
    assert queue.empty()
    with pytest.raises(lib.QueueShutDown):
        await queue.get()
    await lib.settle()
    assert not joiner.done()
    queue.task_done()
    await lib.join(joiner)
    queue = lib.Queue()
    getters = [lib.start(queue.get) for _ in range(2)]
    await lib.settle()
    queue.shutdown(True)
    for getter in getters:
        with pytest.raises(lib.QueueShutDown):
            await lib.join(getter)


@parity
async def test_priorities_that_are_equal(lib: Any) -> None:
    class Job:
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def __lt__(self, other: Any) -> bool:
            return bool(self.rank < other.rank)

    numbers = random.Random(7)
    queue, reference = lib.PriorityQueue(), asyncio.PriorityQueue()
    for _ in range(500):
        if numbers.random() < 0.6 or queue.empty():
            job = Job(numbers.randrange(5))
            queue.put_nowait(job)
            reference.put_nowait(job)
        else:
            assert queue.get_nowait() is reference.get_nowait()


@parity
async def test_subclass_with_storage_of_its_own(lib: Any) -> None:
    class Shuffled(lib.Queue):  # type: ignore[misc,name-defined]
        def _init(self, maxsize: int) -> None:
            self._queue: list[int] = []

        def _put(self, item: int) -> None:
            self._queue.insert(0, -item)

        def _get(self) -> int:
            return self._queue.pop()

    queue = Shuffled(2)
    getter = lib.start(queue.get)
    await lib.settle()
    for i in range(3):
        await queue.put(i)
        await lib.settle()
    assert await lib.join(getter) == 0
    assert queue.full()
    assert [queue.get_nowait(), await queue.get()] == [-1, -2]


# the fibers' queues add a keyword-only `timeout`, and nothing else
@pytest.mark.parametrize("name", ["Queue", "LifoQueue", "PriorityQueue"])
def test_names_and_signatures(name: str) -> None:
    theirs, ours = getattr(asyncio, name), getattr(queues, name)
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
    assert hasattr(ours, "shutdown")
    assert ours[int].__origin__ is ours
