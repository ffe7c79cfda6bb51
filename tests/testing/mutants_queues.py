"""Queues, pools, caches and small programs: copies, their scenarios, and what people get wrong in them."""

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


# -------------------------------------------------------------------------------------------- pool and cache


class Pool:
    """At most ``size`` connections; one that was given back is used again."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.made = 0
        self.free: list[int] = []
        self.lot = ParkingLot()

    def connect(self) -> int:
        """Takes its time."""
        swapco.sleep(0)
        return self.made

    def take(self) -> int:
        schedule_point(self)
        while not self.free and self.made == self.size:
            self.lot.park()
        if self.free:
            return self.free.pop()
        self.made += 1
        try:
            return self.connect()
        except BaseException:
            self.forget()
            raise

    def forget(self) -> None:
        self.made -= 1
        self.lot.unpark()

    def give(self, connection: int) -> None:
        schedule_point(self)
        self.free.append(connection)
        self.lot.unpark()


class LeaksOnCancel(Pool):
    """A caller that is cancelled while it connects leaves its place taken for ever."""

    def forget(self) -> None:
        pass


class ForgetsWhoWaits(Pool):
    """Lost wakeup: the place is free again, and nobody who waits for one hears of it."""

    def forget(self) -> None:
        self.made -= 1


class MakesTooMany(Pool):
    """Counts a connection when it is made, which takes time: others see that there is room."""

    def take(self) -> int:
        schedule_point(self)
        while not self.free and self.made == self.size:
            self.lot.park()
        if self.free:
            return self.free.pop()
        connection = self.connect()
        self.made += 1
        return connection


def connections(kind: Any) -> Scenario:
    """Two that need the one connection there may be."""
    pool = kind(1)
    used = [0]

    def use() -> None:
        connection = pool.take()
        try:
            used[0] += 1
            assert used[0] == 1, "two connections are open"
            schedule_point()
        finally:
            used[0] -= 1
            pool.give(connection)

    def law(ends: list[Any]) -> None:
        assert pool.made == len(pool.free), "a connection has leaked"

    return Scenario([use, use, use], law)


class Cache:
    """The value is computed once, by whoever asks first; others wait for it."""

    def __init__(self) -> None:
        self.computed = 0
        self.value: Any = None
        self.ready = False
        self.lock = swapco.Lock()

    def compute(self) -> str:
        self.computed += 1
        schedule_point(self)
        return "value"

    def get(self) -> Any:
        with self.lock:
            if not self.ready:
                self.value = self.compute()
                self.ready = True
        return self.value


class ChecksThenActs(Cache):
    """No lock: everybody who asks while it is computed computes it again."""

    def get(self) -> Any:
        if not self.ready:
            self.value = self.compute()
            self.ready = True
        return self.value


class ReadyTooEarly(Cache):
    """Looks without the lock, at a flag that is set before the value is there."""

    def get(self) -> Any:
        if self.ready:
            return self.value
        with self.lock:
            if not self.ready:
                self.ready = True
                self.value = self.compute()
        return self.value


class SlowCache(Cache):
    """Whoever computes the value waits for something."""

    def compute(self) -> str:
        swapco.sleep(0)
        return super().compute()


class LoadsForEver(SlowCache):
    """Whoever computes is cancelled: everybody else waits for a value that nobody computes."""

    def __init__(self) -> None:
        super().__init__()
        self.loading = False
        self.lot = ParkingLot()

    def get(self) -> Any:
        if self.loading:
            self.lot.park()
        elif not self.ready:
            self.loading = True
            self.value = self.compute()
            self.ready = True
            self.loading = False
            self.lot.unpark_all()
        return self.value


def lookups(kind: Any) -> Scenario:
    """Everybody gets the value."""
    cache = kind()

    def get() -> Any:
        schedule_point(cache)
        return cache.get()

    def law(ends: list[Any]) -> None:
        assert all(end in (*GONE, "value") for end in ends)
        assert cache.computed <= 1 + len([end for end in ends if end in GONE])

    return Scenario([get, get, get], law)


# ------------------------------------------------------------------------------------------------- programs


class Bank:
    """Two accounts with a lock each; a transfer takes both, always in the same order."""

    def __init__(self) -> None:
        self.locks = [swapco.Lock(), swapco.Lock()]
        self.balances = [10, 10]

    def transfer(self, source: int, target: int, amount: int) -> None:
        first, second = sorted((source, target))
        with self.locks[first]:
            schedule_point(self)
            with self.locks[second]:
                self.move(source, target, amount)

    def move(self, source: int, target: int, amount: int) -> None:
        self.balances[source] -= amount
        schedule_point(self)
        self.balances[target] += amount


class LocksInAnyOrder(Bank):
    """ABBA: two transfers in opposite directions wait for each other."""

    def transfer(self, source: int, target: int, amount: int) -> None:
        with self.locks[source]:
            schedule_point(self)
            with self.locks[target]:
                self.move(source, target, amount)


class LocksOneOnly(Bank):
    """Lost update: the target is changed without its lock."""

    def transfer(self, source: int, target: int, amount: int) -> None:
        with self.locks[source]:
            self.balances[source] -= amount
            balance = self.balances[target]
            schedule_point(self)
            self.balances[target] = balance + amount


def transfers(kind: Any) -> Scenario:
    """Money goes to and fro, and none is made or lost."""
    bank = kind()

    def law(ends: list[Any]) -> None:
        assert bank.balances == [8, 12]

    return Scenario([lambda: bank.transfer(0, 1, 3), lambda: bank.transfer(1, 0, 1)], law)


class Latch:
    """Opens when it was counted down to nothing."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.lot = ParkingLot()

    def wait(self) -> None:
        schedule_point(self)
        if self.count:
            self.lot.park()

    def count_down(self) -> None:
        schedule_point(self)
        self.count -= 1
        if self.count == 0:
            self.lot.unpark_all()


class CountsThenLooks(Latch):
    """Two that count down at once both look when it is over, and so does one that comes in between."""

    def count_down(self) -> None:
        schedule_point(self)
        count = self.count
        schedule_point(self)
        self.count = count - 1
        if self.count == 0:
            self.lot.unpark_all()


class OpensOneTooEarly(Latch):
    """Off by one: the last one is not waited for."""

    def count_down(self) -> None:
        schedule_point(self)
        self.count -= 1
        if self.count <= 1:
            self.lot.unpark_all()


def parts(kind: Any) -> Scenario:
    """One waits for two that do a part each."""
    latch = kind(2)
    done: list[int] = []

    def part() -> None:
        schedule_point()
        done.append(1)
        latch.count_down()

    def wait() -> None:
        latch.wait()
        assert len(done) == 2

    return Scenario([part, part, wait], lambda ends: None)


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
    Mutant(LeaksOnCancel, Pool, connections, cancel(0), bound=1),
    Mutant(ForgetsWhoWaits, Pool, connections, cancel(0), bound=1),
    Mutant(MakesTooMany, Pool, connections, bound=None),
    Mutant(ChecksThenActs, Cache, lookups, bound=None),
    Mutant(ReadyTooEarly, Cache, lookups, bound=None),
    Mutant(LoadsForEver, SlowCache, lookups, cancel(0)),
    Mutant(LocksInAnyOrder, Bank, transfers, bound=None),
    Mutant(LocksOneOnly, Bank, transfers, bound=None),
    Mutant(CountsThenLooks, Latch, parts, bound=None),
    Mutant(OpensOneTooEarly, Latch, parts, bound=None),
]
