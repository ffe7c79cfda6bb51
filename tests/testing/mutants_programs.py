"""Pools, caches and other small programs: what is right, their scenarios, and what people get wrong in them."""

from __future__ import annotations

from typing import Any

from mutants import Mutant
from own_laws import CANCELLED, LATE, Scenario, cancel

import swapco
from swapco.lowlevel import ParkingLot
from swapco.testing import schedule_point

__all__ = ["MUTANTS"]

GONE = (CANCELLED, LATE)

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
