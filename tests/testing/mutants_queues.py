"""Queues: a copy, its scenarios, and what people get wrong in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from mutants import Mutant
from own_laws import CANCELLED, LATE, Scenario, cancel

import swapco
from swapco.lowlevel import ParkingLot, block, resume
from swapco.testing import schedule_point

__all__ = ["MUTANTS"]

GONE = (CANCELLED, LATE)

# --------------------------------------------------------------------------------------------------- queues


class Closed(Exception):
    """The queue was shut down."""


class Getter:
    """A place in the line of getters, and what was handed over."""

    def __init__(self) -> None:
        self.fiber = swapco.current_fiber()
        self.cell: list[Any] = []

    def hand(self, item: Any) -> None:
        self.cell.append(item)
        resume(self.fiber)


class Queue:
    """Items go to the first getter in line, or into the buffer; a getter lets the first putter in line in."""

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self.items: deque[Any] = deque()
        self.getters: deque[Getter] = deque()
        self.putters = ParkingLot()
        self.idle = ParkingLot()
        self.unfinished = 0
        self.closed = False

    # -- putting

    def put(self, item: Any) -> None:
        schedule_point(self)
        self.wait_for_room()
        if self.closed:
            raise Closed
        self.store(item)

    def wait_for_room(self) -> None:
        while self.maxsize and len(self.items) >= self.maxsize and not self.closed:
            self.putters.park()

    def store(self, item: Any) -> None:
        self.unfinished += 1
        self.hand_over(item)

    def hand_over(self, item: Any) -> None:
        if self.getters:
            self.getters.popleft().hand(item)
            # it took no room: another one may come, too
            self.putters.unpark()
        else:
            self.items.append(item)

    # -- getting

    def get(self) -> Any:
        schedule_point(self)
        if self.items:
            return self.fetch()
        if self.closed:
            raise Closed
        getter = Getter()
        self.getters.append(getter)
        try:
            while not getter.cell and not self.closed:
                block()
        except BaseException:
            self.leave(getter)
            raise
        if not getter.cell:
            raise Closed
        return getter.cell[0]

    def leave(self, getter: Getter) -> None:
        """The wait was cancelled; what was handed over all the same goes to the next one, or back to the front."""
        if not getter.cell:
            self.getters.remove(getter)
        elif self.getters:
            self.getters.popleft().hand(getter.cell[0])
        else:
            self.items.appendleft(getter.cell[0])

    def fetch(self) -> Any:
        item = self.items.popleft()
        self.putters.unpark()
        return item

    # -- the end

    def task_done(self) -> None:
        schedule_point(self)
        if self.unfinished == 0:
            raise ValueError("task_done() called too many times")
        self.unfinished -= 1
        if self.unfinished == 0:
            self.idle.unpark_all()

    def join(self) -> None:
        schedule_point(self)
        if self.unfinished:
            self.idle.park()

    def shutdown(self) -> None:
        schedule_point(self)
        self.closed = True
        self.wake_all()

    def wake_all(self) -> None:
        self.putters.unpark_all()
        while self.getters:
            resume(self.getters.popleft().fiber)


class ExceedsMaxsize(Queue):
    """``if`` in place of ``while``: another putter took the room before the woken one has run."""

    def wait_for_room(self) -> None:
        if self.maxsize and len(self.items) >= self.maxsize and not self.closed:
            self.putters.park()


class LosesTheItem(Queue):
    """A getter that was handed an item when its time was over, or it was cancelled, takes it along."""

    def leave(self, getter: Getter) -> None:
        if not getter.cell:
            self.getters.remove(getter)


class HandsToTheGone(Queue):
    """A getter that was cancelled stays in line, and is handed an item."""

    def leave(self, getter: Getter) -> None:
        pass


class ForgetsPutters(Queue):
    """Lost wakeup: a getter that finds the buffer full does not say that there is room now."""

    def fetch(self) -> Any:
        full = len(self.items) > self.maxsize
        item = self.items.popleft()
        if full:
            self.putters.unpark()
        return item


class KeepsTheRoom(Queue):
    """Lost wakeup: a putter was woken because of room, did not need it, and tells nobody."""

    def hand_over(self, item: Any) -> None:
        if self.getters:
            self.getters.popleft().hand(item)
        else:
            self.items.append(item)


class LooksThenLinesUp(Queue):
    """Lost wakeup: an item that comes between the look and the line stays in the buffer."""

    def get(self) -> Any:
        schedule_point(self)
        if self.items:
            return self.fetch()
        schedule_point(self)
        getter = Getter()
        self.getters.append(getter)
        while not getter.cell and not self.closed:
            block()
        if not getter.cell:
            raise Closed
        return getter.cell[0]


class CountsLater(Queue):
    """Miscount: the item is counted after it was handed over, and may be done before."""

    def store(self, item: Any) -> None:
        self.hand_over(item)
        schedule_point(self)
        self.unfinished += 1


class CountsTheBuffer(Queue):
    """Miscount: only items that went through the buffer are counted."""

    def hand_over(self, item: Any) -> None:
        if self.getters:
            self.unfinished -= 1
            self.getters.popleft().hand(item)
        else:
            self.items.append(item)

    def task_done(self) -> None:
        schedule_point(self)
        self.unfinished = max(0, self.unfinished - 1)
        if self.unfinished == 0:
            self.idle.unpark_all()


class ForgetsGetters(Queue):
    """A shutdown that sends putters home, and lets getters wait for ever."""

    def wake_all(self) -> None:
        self.putters.unpark_all()


class SendsOneHome(Queue):
    """A shutdown that sends the first getter home only."""

    def wake_all(self) -> None:
        self.putters.unpark_all()
        if self.getters:
            resume(self.getters.popleft().fiber)


class ServesTheLast(Queue):
    """Unfair: an item goes to the getter that came last."""

    def hand_over(self, item: Any) -> None:
        if self.getters:
            self.getters.pop().hand(item)
        else:
            self.items.append(item)


def exchange(kind: Any) -> Scenario:
    """Two producers and two consumers: each item comes out once, and the buffer holds no more than it may."""
    queue = kind(1)

    def produce(*items: int) -> Callable[[], None]:
        def produces() -> None:
            for item in items:
                queue.put(item)
                assert len(queue.items) <= 1, "more items than room"

        return produces

    def consume() -> list[int]:
        return [queue.get(), queue.get()]

    def law(ends: list[Any]) -> None:
        assert sorted(ends[2] + ends[3]) == [1, 2, 3, 4]

    return Scenario([produce(1, 2), produce(3, 4), consume, consume], law)


def slow_consumer(kind: Any) -> Scenario:
    """Three producers fill a buffer for one item, again and again, and one consumer empties it."""
    queue = kind(1)

    def produce() -> None:
        for item in range(2):
            queue.put(item)
            assert len(queue.items) <= 1, "more items than room"

    def consume() -> list[int]:
        return [queue.get() for _ in range(6)]

    def law(ends: list[Any]) -> None:
        assert sorted(ends[3]) == [0, 0, 0, 1, 1, 1]

    return Scenario([produce, produce, produce, consume], law)


def called_away(kind: Any) -> Scenario:
    """One of two consumers is called away: its item, if it has none yet, is there for the other one."""
    queue = kind()

    def produce() -> None:
        for item in range(2):
            queue.put(item)

    def consume() -> Any:
        return queue.get()

    def law(ends: list[Any]) -> None:
        gotten = [end for end in ends[:2] if end not in GONE]
        assert sorted([*gotten, *queue.items]) == [0, 1]
        assert not queue.getters

    return Scenario([consume, consume, produce], law)


def in_time(kind: Any) -> Scenario:
    """The item comes when the time of the consumer is over: it has it, or it is still there."""
    queue = kind()

    def produce() -> None:
        swapco.sleep(1)
        queue.put("item")

    def consume() -> Any:
        try:
            with swapco.timeout(1):
                return queue.get()
        except TimeoutError:
            return None

    def law(ends: list[Any]) -> None:
        assert (ends[0] == "item") + len(queue.items) == 1

    return Scenario([consume, produce], law)


def work(kind: Any) -> Scenario:
    """``join`` ends when all work is done, and not before."""
    queue = kind()
    done: list[int] = []

    def boss() -> None:
        for item in range(2):
            queue.put(item)
        queue.join()
        assert sorted(done) == [0, 1], "there is work to do"
        queue.shutdown()

    def worker() -> None:
        while True:
            try:
                item = queue.get()
            except Closed:
                return
            schedule_point()
            done.append(item)
            queue.task_done()

    return Scenario([worker, worker, boss], lambda ends: None)


def one_after_the_other(kind: Any) -> Scenario:
    """Consumers that come one after the other are served in this order."""
    queue = kind()
    served: list[int] = []

    def consumer(arrival: int) -> Callable[[], None]:
        def consume() -> None:
            swapco.sleep(arrival)
            queue.get()
            served.append(arrival)

        return consume

    def produce() -> None:
        swapco.sleep(2)
        for item in range(3):
            queue.put(item)
            swapco.sleep(1)

    def law(ends: list[Any]) -> None:
        assert served[:2] == [0, 1]

    return Scenario([consumer(0), consumer(1), consumer(2), produce], law)


MUTANTS = [
    Mutant(ExceedsMaxsize, Queue, slow_consumer, bound=0),
    Mutant(ForgetsPutters, Queue, exchange, bound=0),
    Mutant(KeepsTheRoom, Queue, exchange, bound=0),
    Mutant(LooksThenLinesUp, Queue, exchange, bound=0),
    Mutant(LosesTheItem, Queue, called_away, cancel(0), bound=3),
    Mutant(HandsToTheGone, Queue, called_away, cancel(0), bound=3),
    Mutant(LosesTheItem, Queue, in_time, bound=None),
    Mutant(CountsLater, Queue, work),
    Mutant(CountsTheBuffer, Queue, work),
    Mutant(ForgetsGetters, Queue, work),
    Mutant(SendsOneHome, Queue, work),
    Mutant(ServesTheLast, Queue, one_after_the_other, bound=None),
]
