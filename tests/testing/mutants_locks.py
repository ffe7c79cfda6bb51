"""Semaphores and locks: copies, their scenarios, and what people get wrong in them."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from mutants import Mutant
from own_laws import Scenario, cancel

import swapco
from swapco.lowlevel import ParkingLot, block, resume
from swapco.testing import schedule_point

__all__ = ["MUTANTS", "Ticket"]

# ----------------------------------------------------------------------------------------------- semaphores


class Ticket:
    """A place in a line: whose, and whether it was served."""

    def __init__(self) -> None:
        self.fiber = swapco.current_fiber()
        self.served = False

    def serve(self) -> None:
        self.served = True
        resume(self.fiber)

    def wait(self) -> None:
        while not self.served:
            block()


class Held:
    """Held in a ``with``."""

    acquire: Callable[[], None]
    release: Callable[[], None]

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class Semaphore(Held):
    """A line of tickets; a permit that is given back goes to the first one, and never through ``value``."""

    def __init__(self, value: int = 1) -> None:
        self.value = value
        self.line: deque[Ticket] = deque()

    def acquire(self) -> None:
        schedule_point(self)
        if self.value:
            self.value -= 1
            return
        ticket = Ticket()
        self.line.append(ticket)
        try:
            ticket.wait()
        except BaseException:
            self.leave(ticket)
            raise

    def leave(self, ticket: Ticket) -> None:
        """The wait was cancelled; a permit that came all the same is for the next one."""
        if ticket.served:
            self.give()
        else:
            self.line.remove(ticket)

    def release(self) -> None:
        schedule_point(self)
        self.give()

    def give(self) -> None:
        if self.line:
            self.line.popleft().serve()
        else:
            self.value += 1


class LooksThenLinesUp(Semaphore):
    """Lost wakeup: a permit that is given between the look and the line wakes nobody."""

    def acquire(self) -> None:
        schedule_point(self)
        if self.value:
            self.value -= 1
            return
        schedule_point(self)
        ticket = Ticket()
        self.line.append(ticket)
        ticket.wait()


class GrantsTwice(Semaphore):
    """Double grant: a permit that is handed over is counted as free, too."""

    def give(self) -> None:
        self.value += 1
        if self.line:
            self.line.popleft().serve()


class SwallowsThePermit(Semaphore):
    """Dropped cancellation: a waiter that was served and cancelled at once takes the permit along."""

    def leave(self, ticket: Ticket) -> None:
        if not ticket.served:
            self.line.remove(ticket)


class StaysInLine(Semaphore):
    """A waiter that is cancelled stays in line, and a permit is given to nobody."""

    def leave(self, ticket: Ticket) -> None:
        pass


class GivesTooMuchBack(Semaphore):
    """A waiter that is cancelled gives back a permit that it never had."""

    def leave(self, ticket: Ticket) -> None:
        if not ticket.served:
            self.line.remove(ticket)
        self.give()


class LastComeFirstServed(Semaphore):
    """Unfair: who came last is served first."""

    def give(self) -> None:
        if self.line:
            self.line.pop().serve()
        else:
            self.value += 1


class LetsOthersOvertake(Semaphore):
    """Unfair: the permit is free until the woken one runs, and who comes in between takes it."""

    def acquire(self) -> None:
        schedule_point(self)
        while not self.value:
            ticket = Ticket()
            self.line.append(ticket)
            ticket.wait()
        self.value -= 1

    def give(self) -> None:
        self.value += 1
        if self.line:
            self.line.popleft().serve()


class ChecksOnce(LetsOthersOvertake):
    """``if`` in place of ``while``: the permit is free until the woken one runs, and it does not look again."""

    def acquire(self) -> None:
        schedule_point(self)
        if not self.value:
            ticket = Ticket()
            self.line.append(ticket)
            ticket.wait()
        self.value -= 1


def mutual_exclusion(kind: Any, visits: int = 2) -> Scenario:
    """At most one is inside; all permits are there in the end; whoever waits gets in."""
    permits, inside = kind(), []

    def visit() -> None:
        for _ in range(visits):
            with permits:
                inside.append(1)
                assert len(inside) == 1
                schedule_point()
                inside.pop()

    def law(ends: list[Any]) -> None:
        assert permits.value == 1
        assert not permits.line

    return Scenario([visit] * 3, law)


def one_visit_each(kind: Any) -> Scenario:
    return mutual_exclusion(kind, visits=1)


def impatience(kind: Any) -> Scenario:
    """One has the permit for as long as two others are ready to wait."""
    permits = kind()

    def hold() -> None:
        with permits:
            swapco.sleep(1)

    def visit() -> bool:
        try:
            with swapco.timeout(1):
                permits.acquire()
        except TimeoutError:
            return False
        permits.release()
        return True

    def law(ends: list[Any]) -> None:
        assert permits.value == 1
        assert not permits.line

    return Scenario([hold, visit, visit], law)


def first_come_first_served(kind: Any) -> Scenario:
    """One has it, two wait, and one more comes in the instant in which it is given back: nobody overtakes."""
    permits = kind()
    entered: list[int] = []

    def visitor(arrival: int) -> Callable[[], None]:
        def visit() -> None:
            swapco.sleep(arrival)
            permits.acquire()
            entered.append(arrival)
            swapco.sleep(0 if arrival else 3)
            permits.release()

        return visit

    def law(ends: list[Any]) -> None:
        assert entered == [0, 1, 2, 3]

    return Scenario([visitor(arrival) for arrival in range(4)], law)


# ---------------------------------------------------------------------------------------------------- locks


class RLock(Held):
    """Whoever owns it may take it again; it is handed over when it was released as often."""

    def __init__(self) -> None:
        self.owner: Any = None
        self.depth = 0
        self.lot = ParkingLot()

    def acquire(self) -> None:
        schedule_point(self)
        me = swapco.current_fiber()
        if self.owner is me:
            self.depth += 1
        elif self.owner is None:
            self.take(me)
        else:
            self.lot.park()

    def take(self, me: Any) -> None:
        self.owner, self.depth = me, 1

    def release(self) -> None:
        schedule_point(self)
        if self.owner is not swapco.current_fiber():
            raise RuntimeError("not the owner")
        self.depth -= 1
        if self.depth == 0:
            self.pass_on()

    def pass_on(self) -> None:
        waiting = self.lot.fibers()
        self.owner, self.depth = (waiting[0], 1) if waiting else (None, 0)
        self.lot.unpark()


class OwnerComesLater(RLock):
    """Owner confusion: it is free until the woken one runs, who does not look whether another one was faster."""

    def acquire(self) -> None:
        schedule_point(self)
        me = swapco.current_fiber()
        if self.owner is me:
            self.depth += 1
            return
        if self.owner is not None:
            self.lot.park()
        self.take(me)

    def pass_on(self) -> None:
        self.owner = None
        self.lot.unpark()


class OwnerStays(RLock):
    """Owner confusion: it is handed over, and still in the name of who had it before."""

    def acquire(self) -> None:
        schedule_point(self)
        me = swapco.current_fiber()
        if self.owner is me:
            self.depth += 1
        elif self.owner is None:
            self.take(me)
        else:
            self.lot.park()
            self.owner = me

    def pass_on(self) -> None:
        if self.lot.unpark():
            self.depth = 1
        else:
            self.owner = None


class FreeAfterOne(RLock):
    """The first release gives it away, however often it was taken."""

    def release(self) -> None:
        schedule_point(self)
        self.depth -= 1
        if self.owner is swapco.current_fiber():
            self.pass_on()


def taken_twice(kind: Any) -> Scenario:
    """Two that call a function with the lock from one with the lock, twice: nobody else is inside meanwhile."""
    lock = kind()
    inside: list[int] = []

    def worker(me: int) -> Callable[[], None]:
        def deposit() -> None:
            with lock:
                assert set(inside) == {me}

        def work() -> None:
            for _ in range(2):
                with lock:
                    inside.append(me)
                    deposit()
                    schedule_point()
                    assert set(inside) == {me}
                    inside.remove(me)

        return work

    def law(ends: list[Any]) -> None:
        assert lock.owner is None

    return Scenario([worker(0), worker(1)], law)


class ReadWriteLock:
    """Many readers, or one writer; a writer that waits keeps new readers out."""

    def __init__(self) -> None:
        self.readers = 0
        self.writing = False
        self.reading_line = ParkingLot()
        self.writing_line = ParkingLot()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        schedule_point(self)
        self.begin_reading()
        try:
            yield
        finally:
            schedule_point(self)
            self.end_reading()

    def begin_reading(self) -> None:
        if self.writing or len(self.writing_line):
            self.reading_line.park()
        else:
            self.readers += 1

    def end_reading(self) -> None:
        self.readers -= 1
        if self.readers == 0 and self.writing_line.unpark():
            self.writing = True

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        schedule_point(self)
        if self.writing or self.readers:
            self.writing_line.park()
        else:
            self.writing = True
        try:
            yield
        finally:
            schedule_point(self)
            self.end_writing()

    def end_writing(self) -> None:
        # readers that wait go before the next writer: both get their turn
        self.readers = self.reading_line.unpark_all()
        self.writing = self.readers == 0 and self.writing_line.unpark()


class StarvesWriters(ReadWriteLock):
    """Readers come in while a writer waits: it never gets its turn if they overlap."""

    def begin_reading(self) -> None:
        if self.writing:
            self.reading_line.park()
        else:
            self.readers += 1


class WakesReadersOnly(ReadWriteLock):
    """Lost wakeup: a writer that waits for a writer is forgotten."""

    def end_writing(self) -> None:
        self.readers = self.reading_line.unpark_all()
        self.writing = False


class WakesBoth(ReadWriteLock):
    """A writer is let in beside the readers."""

    def end_writing(self) -> None:
        self.readers = self.reading_line.unpark_all()
        self.writing = self.writing_line.unpark()


def readers_and_writers(kind: Any) -> Scenario:
    """A writer is alone, readers are among themselves, and everybody gets in."""
    lock = kind()
    readers: list[int] = []
    writers: list[int] = []

    def read() -> None:
        with lock.reading():
            readers.append(1)
            assert not writers
            schedule_point()
            readers.pop()

    def write() -> None:
        with lock.write():
            writers.append(1)
            assert len(writers) == 1
            assert not readers
            schedule_point()
            writers.pop()

    def law(ends: list[Any]) -> None:
        assert (lock.readers, lock.writing) == (0, False)

    return Scenario([read, read, write, write], law)


def steady_readers(kind: Any) -> Scenario:
    """There is always somebody who reads; a writer that comes gets in all the same, before they have ended."""
    lock = kind()
    written: list[bool] = []

    def reader(begin: int) -> Callable[[], bool]:
        def read() -> bool:
            swapco.sleep(begin)
            for _ in range(3):
                with lock.reading():
                    swapco.sleep(2)
            return bool(written)

        return read

    def write() -> None:
        swapco.sleep(1)
        with lock.write():
            written.append(True)

    def law(ends: list[Any]) -> None:
        assert ends[:2] == [True, True], "the writer starves"

    return Scenario([reader(0), reader(1), write], law)


MUTANTS = [
    Mutant(LooksThenLinesUp, Semaphore, mutual_exclusion),
    Mutant(GrantsTwice, Semaphore, mutual_exclusion),
    Mutant(ChecksOnce, Semaphore, mutual_exclusion),
    Mutant(SwallowsThePermit, Semaphore, one_visit_each, cancel(1, 2), bound=0),
    Mutant(SwallowsThePermit, Semaphore, impatience),
    Mutant(StaysInLine, Semaphore, one_visit_each, cancel(1)),
    Mutant(GivesTooMuchBack, Semaphore, one_visit_each, cancel(1)),
    Mutant(LastComeFirstServed, Semaphore, first_come_first_served, bound=None),
    Mutant(LetsOthersOvertake, Semaphore, first_come_first_served, bound=None),
    Mutant(OwnerComesLater, RLock, taken_twice, bound=None),
    Mutant(OwnerStays, RLock, taken_twice, bound=None),
    Mutant(FreeAfterOne, RLock, taken_twice, bound=None),
    Mutant(StarvesWriters, ReadWriteLock, steady_readers, bound=0),
    Mutant(WakesReadersOnly, ReadWriteLock, readers_and_writers, bound=1),
    Mutant(WakesBoth, ReadWriteLock, readers_and_writers, bound=1),
]
