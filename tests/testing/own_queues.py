"""Scenarios of swapco's queues, and their laws: every item comes out exactly once, whoever is cancelled or late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from own_laws import CANCELLED, LATE, Make, Scenario

import swapco
from swapco import QueueShutDown
from swapco.testing import schedule_point

__all__ = ["IN_ORDER", "SCENARIOS", "UNDISTURBED"]

GONE = (CANCELLED, LATE)


def rest_of(queue: swapco.Queue[Any]) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


def exchange(kind: Callable[[int], swapco.Queue[int]] = swapco.Queue, maxsize: int = 1) -> Scenario:
    """Two put two items into a queue for one, two take one each, and one what is left: nothing lost, nothing twice."""
    queue = kind(maxsize)
    put: list[int] = []
    gotten: list[int] = []

    def producer(*items: int) -> Callable[[], None]:
        def produce() -> None:
            for item in items:
                try:
                    queue.put(item, timeout=2)
                except TimeoutError:
                    continue
                put.append(item)

        return produce

    def consume() -> None:
        try:
            gotten.append(queue.get(timeout=1))
        except TimeoutError:
            pass

    def law(ends: list[Any]) -> None:
        rest = rest_of(queue)
        assert sorted(gotten + rest) == sorted(put)
        assert queue.statistics()[3:6] == (0, 0, 0)
        assert len(rest) <= 1
        # one item at most is not put in time, one consumer at most is disturbed
        assert len(gotten) == min(2, len(put)) or set(GONE) & set(ends)

    return Scenario([producer(1, 2), producer(3), consume, consume], law)


def exchange_priority() -> Scenario:
    return exchange(swapco.PriorityQueue)


def exchange_lifo() -> Scenario:
    return exchange(swapco.LifoQueue)


def handover() -> Scenario:
    """One producer that never waits, two consumers that wait: a getter that leaves takes no item with it."""
    queue: swapco.Queue[int] = swapco.Queue()
    gotten: list[int] = []

    def produce() -> None:
        for item in range(2):
            queue.put_nowait(item)
            schedule_point(queue)

    def consume() -> None:
        gotten.append(queue.get())

    def law(ends: list[Any]) -> None:
        left = [end for end in ends[:2] if end in GONE]
        assert len(gotten) == 2 - len(left)
        assert sorted(gotten + rest_of(queue)) == [0, 1]

    return Scenario([consume, consume, produce], law, victims=(0, 1))


def same_instant() -> Scenario:
    """The item comes in the very instant in which the getter's time is over: it is gotten, or still there."""
    queue: swapco.Queue[str] = swapco.Queue()

    def produce() -> None:
        swapco.sleep(1)
        queue.put("item")

    def consume() -> str | None:
        try:
            return queue.get(timeout=1)
        except TimeoutError:
            return None

    def law(ends: list[Any]) -> None:
        there = ends[:2].count("item") + queue.qsize()
        assert there == (ends[2] not in GONE)

    return Scenario([consume, consume, produce], law)


def putters_of_a_full_queue() -> Scenario:
    """A putter that gives up leaves nothing behind; one that was admitted has put its item."""
    queue: swapco.Queue[int] = swapco.Queue(1)
    queue.put_nowait(0)
    gotten: list[int] = []

    def putter(item: int) -> Callable[[], bool]:
        def put() -> bool:
            try:
                queue.put(item, timeout=1)
            except TimeoutError:
                return False
            return True

        return put

    def drain() -> None:
        swapco.sleep(1)
        gotten.append(queue.get())
        schedule_point(queue)
        try:
            gotten.append(queue.get(timeout=1))
        except TimeoutError:
            assert queue.statistics().putting == 0

    def law(ends: list[Any]) -> None:
        was_put = [0, *(number for number, end in enumerate(ends[:2], 1) if end is True)]
        assert sorted(gotten + rest_of(queue)) == was_put
        assert queue.statistics().putting == 0

    return Scenario([putter(1), putter(2), drain], law, victims=(0, 1))


def shutdown(*, immediate: bool = False) -> Scenario:
    """Nobody waits after a shutdown; what was put before is gotten, or dropped and done if it is immediate."""
    queue: swapco.Queue[int] = swapco.Queue(1)
    put: list[int] = []
    gotten: list[int] = []

    def produce() -> None:
        for item in range(2):
            try:
                queue.put(item)
            except QueueShutDown:
                return
            put.append(item)

    def consume() -> None:
        while True:
            try:
                gotten.append(queue.get())
            except QueueShutDown:
                return
            queue.task_done()

    def close() -> None:
        schedule_point(queue)
        queue.shutdown(immediate=immediate)

    def law(ends: list[Any]) -> None:
        rest = rest_of(queue)
        assert len(set(gotten)) == len(gotten)
        if immediate:
            assert not rest
            assert set(gotten) <= set(put)
        else:
            assert sorted(gotten + rest) == put
        if ends[1] not in GONE:
            assert not rest, "a consumer that was not disturbed leaves nothing"
        assert queue.statistics()[2:6] == (len(rest), 0, 0, 0)

    return Scenario([produce, consume, close], law, victims=(0, 1))


def shutdown_immediate() -> Scenario:
    return shutdown(immediate=True)


def work(workers: int = 1) -> Scenario:
    """``join`` ends when, and only when, every item that was put is done."""
    queue: swapco.Queue[int] = swapco.Queue()
    done: list[int] = []

    def worker() -> None:
        while True:
            try:
                item = queue.get()
            except QueueShutDown:
                return
            schedule_point(queue)
            done.append(item)
            queue.task_done()

    def boss() -> None:
        for item in range(2):
            queue.put(item)
        queue.join()
        assert sorted(done) == [0, 1], "join() has ended, and there is work to do"
        queue.shutdown()

    def law(ends: list[Any]) -> None:
        assert sorted(done) == [0, 1]
        assert done == [0, 1] or workers > 1
        assert queue.statistics() == (0, 0, 0, 0, 0, 0, True)

    return Scenario([worker] * workers + [boss], law, victims=())


def work_of_two() -> Scenario:
    return work(2)


def patience() -> Scenario:
    """Two wait in ``join``, one of them may leave: the other one still hears of the end."""
    queue: swapco.Queue[int] = swapco.Queue()
    queue.put_nowait(0)

    def joiner() -> None:
        queue.join()
        assert queue.statistics().unfinished == 0

    def worker() -> None:
        queue.get()
        schedule_point(queue)
        queue.task_done()

    def law(ends: list[Any]) -> None:
        assert queue.statistics()[2:6] == (0, 0, 0, 0)

    return Scenario([joiner, joiner, worker], law, victims=(0, 1))


def putters_shut_out() -> Scenario:
    """A putter that waits when the queue is shut down has put nothing, or was admitted before."""
    queue: swapco.Queue[int] = swapco.Queue(1)
    queue.put_nowait(0)

    def putter(item: int) -> Callable[[], bool]:
        def put() -> bool:
            try:
                queue.put(item)
            except QueueShutDown:
                return False
            return True

        return put

    def get_and_close() -> int:
        schedule_point(queue)
        item = queue.get()
        schedule_point(queue)
        queue.shutdown()
        return item

    def law(ends: list[Any]) -> None:
        was_put = [0, *(number for number, end in enumerate(ends[:2], 1) if end is True)]
        assert sorted([ends[2], *rest_of(queue)]) == was_put
        assert queue.statistics()[3:6] == (0, 0, 0)

    return Scenario([putter(1), putter(2), get_and_close], law, victims=(0, 1))


def join_with_a_limit() -> Scenario:
    """The last item is done in the instant in which the time of ``join`` is over: it ends, or says so."""
    queue: swapco.Queue[int] = swapco.Queue()
    queue.put_nowait(0)

    def joiner() -> bool:
        try:
            queue.join(timeout=1)
        except TimeoutError:
            return False
        assert queue.statistics().unfinished == 0
        return True

    def worker() -> None:
        queue.get()
        swapco.sleep(1)
        queue.task_done()

    def law(ends: list[Any]) -> None:
        assert queue.statistics()[2:6] == (0, 0, 0, 0)
        assert all(end in (*GONE, True, False) for end in ends[:2])

    return Scenario([joiner, joiner, worker], law, victims=(0, 1))


def never_over_full() -> Scenario:
    """Whoever puts, and however: there are never more items than room, and none is refused while there is room."""
    queue: swapco.Queue[int] = swapco.Queue(1)

    def put(item: int) -> Callable[[], None]:
        def puts() -> None:
            queue.put(item)
            assert queue.qsize() <= 1

        return puts

    def put_nowait() -> bool:
        full = queue.full()
        try:
            queue.put_nowait(3)
        except swapco.QueueFull:
            assert full
            return False
        assert not full
        assert queue.qsize() <= 1
        return True

    def get() -> list[int]:
        return [queue.get(), queue.get()]

    def law(ends: list[Any]) -> None:
        was_put = [1, 2, 3] if ends[2] else [1, 2]
        assert sorted(ends[3] + rest_of(queue)) == was_put

    return Scenario([put(1), put(2), put_nowait, get], law, victims=())


def smallest_first() -> Scenario:
    """A getter never gets an item while the queue holds a smaller one."""
    queue: swapco.PriorityQueue[int] = swapco.PriorityQueue(2)
    gotten: list[int] = []

    def produce(*items: int) -> Callable[[], None]:
        def produces() -> None:
            for item in items:
                queue.put(item)

        return produces

    def consume() -> None:
        for _ in range(3):
            item = queue.get()
            gotten.append(item)
            if queue.qsize():
                # nobody else gets, so the smallest of these may go back unseen
                held = [queue.get_nowait() for _ in range(queue.qsize())]
                assert held == sorted(held)
                for other in held:
                    queue.put_nowait(other)

    def law(ends: list[Any]) -> None:
        assert sorted(gotten) == [1, 2, 3]
        assert queue.qsize() == 0

    return Scenario([produce(3, 1), produce(2), consume], law, victims=())


def getters_first_come() -> Scenario:
    """Waiting getters get items in the order in which they came; an item never overtakes another one."""
    queue: swapco.Queue[int] = swapco.Queue()
    arrived: list[int] = []
    gotten: list[tuple[int, int]] = []

    def getter(me: int) -> Callable[[], None]:
        def get() -> None:
            arrived.append(me)
            gotten.append((me, queue.get()))

        return get

    def produce() -> None:
        for item in range(3):
            queue.put(item)
            schedule_point(queue)

    def law(ends: list[Any]) -> None:
        assert [me for me, item in sorted(gotten, key=lambda pair: pair[1])] == arrived

    return Scenario([getter(0), getter(1), getter(2), produce], law, victims=())


SCENARIOS: dict[str, Make] = {
    make.__name__: make
    for make in (
        exchange,
        exchange_priority,
        exchange_lifo,
        handover,
        same_instant,
        putters_of_a_full_queue,
        shutdown,
        shutdown_immediate,
        putters_shut_out,
        join_with_a_limit,
        patience,
    )
}
UNDISTURBED: dict[str, Make] = {make.__name__: make for make in (never_over_full, smallest_first, work, work_of_two)}
#: Fibers come one after the other at schedule points only: entries of primitives would come between a note and the act.
IN_ORDER: dict[str, Make] = {make.__name__: make for make in (getters_first_come,)}
