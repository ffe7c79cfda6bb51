"""Events, conditions and barriers: copies, their scenarios, and what people get wrong in them."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from mutants import Mutant
from mutants_locks import Ticket
from own_laws import CANCELLED, LATE, Scenario, cancel

import swapco
from swapco.lowlevel import ParkingLot
from swapco.testing import schedule_point

__all__ = ["MUTANTS"]

GONE = (CANCELLED, LATE)

# --------------------------------------------------------------------------------------- events, conditions


class Event:
    """A flag; ``set`` lets everybody go who waits, also if it is cleared at once."""

    def __init__(self) -> None:
        self.up = False
        self.lot = ParkingLot()

    def wait(self) -> None:
        schedule_point(self)
        if not self.up:
            self.lot.park()

    def set(self) -> None:
        schedule_point(self)
        self.up = True
        self.lot.unpark_all()

    def clear(self) -> None:
        schedule_point(self)
        self.up = False


class LooksAgain(Event):
    """Lost wakeup: the woken one looks at the flag, which is down again."""

    def wait(self) -> None:
        schedule_point(self)
        while not self.up:
            self.lot.park()


class WakesOne(Event):
    """Lost wakeup: ``set`` wakes the first one only."""

    def set(self) -> None:
        schedule_point(self)
        self.up = True
        self.lot.unpark()


class LooksThenWaits(Event):
    """Lost wakeup: the flag goes up between the look and the wait."""

    def wait(self) -> None:
        schedule_point(self)
        if not self.up:
            schedule_point(self)
            self.lot.park()


class WakesBeforeTheFlag(Event):
    """Lost wakeup: who comes between the wake and the flag waits for ever."""

    def set(self) -> None:
        schedule_point(self)
        self.lot.unpark_all()
        schedule_point(self)
        self.up = True


def start_signal(kind: Any) -> Scenario:
    """Two wait for a signal that is given once."""
    signal = kind()

    def law(ends: list[Any]) -> None:
        assert signal.up

    return Scenario([signal.wait, signal.wait, signal.set], law)


def pulse(kind: Any) -> Scenario:
    """A signal that is given and taken back: whoever waited has heard of it."""
    signal = kind()

    def give() -> None:
        while not len(signal.lot):
            swapco.sleep(1)
        signal.set()
        signal.clear()

    return Scenario([signal.wait, give], lambda ends: None)


class Condition:
    """The lock is released and the place in line taken in one step; a notified one gets the lock before it goes on."""

    def __init__(self) -> None:
        self.lock = swapco.Lock()
        self.line: deque[Ticket] = deque()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()

    def wait(self) -> None:
        ticket = Ticket()
        self.line.append(ticket)
        self.lock.release()
        error: BaseException | None = None
        try:
            ticket.wait()
        except BaseException as caught:
            error = caught
        error = self.again() or error
        if error is not None:
            self.leave(ticket)
            raise error

    def again(self) -> BaseException | None:
        """Take the lock, whatever comes; returns the cancellation that came meanwhile."""
        schedule_point(self)
        error = None
        while True:
            try:
                self.lock.acquire()
            except swapco.CancelledError as caught:
                error = caught
            else:
                return error

    def leave(self, ticket: Ticket) -> None:
        if ticket.served:
            # the notification came all the same: it is for another one
            self.notify()
        else:
            self.line.remove(ticket)

    def notify(self) -> None:
        if self.line:
            self.line.popleft().serve()


class ReleasesThenLinesUp(Condition):
    """Lost wakeup: a notification between the release of the lock and the line wakes nobody."""

    def wait(self) -> None:
        self.lock.release()
        schedule_point(self)
        ticket = Ticket()
        self.line.append(ticket)
        ticket.wait()
        self.again()


class GoesOnWithoutTheLock(Condition):
    """A notified fiber goes on while the one that notified it still has the lock."""

    def again(self) -> None:
        schedule_point(self)
        if not self.lock.locked():
            self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        if self.lock.owner is swapco.current_fiber():
            self.lock.release()


class SwallowsTheNotification(Condition):
    """Dropped cancellation: a waiter that was notified and cancelled at once passes the notification on to nobody."""

    def leave(self, ticket: Ticket) -> None:
        if not ticket.served:
            self.line.remove(ticket)


def hand_over(kind: Any) -> Scenario:
    """Two wait for an item each, and one brings two: who was not disturbed has one."""
    changed = kind()
    items: list[int] = []
    inside = [0]

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        inside[0] += 1
        assert inside[0] == 1
        schedule_point()
        yield
        inside[0] -= 1

    def consume() -> int:
        with changed:
            while not items:
                changed.wait()
            with alone():
                return items.pop()

    def produce() -> None:
        for item in range(2):
            with changed:
                with alone():
                    items.append(item)
                changed.notify()

    def law(ends: list[Any]) -> None:
        taken = [end for end in ends[:2] if end not in GONE]
        assert sorted(taken + items) == [0, 1]
        assert not changed.line

    return Scenario([consume, consume, produce], law)


def in_a_hurry(kind: Any) -> Scenario:
    """A resource that three need, guarded by a condition; one of them gives up when it is given back."""
    changed = kind()
    busy: list[int] = []

    def use() -> None:
        with changed:
            while busy:
                changed.wait()
            busy.append(1)
        swapco.sleep(1)
        with changed:
            busy.pop()
            changed.notify()

    def hurry() -> bool:
        try:
            with swapco.timeout(1), changed:
                while busy:
                    changed.wait()
        except TimeoutError:
            return False
        with changed:
            changed.notify()
        return True

    def law(ends: list[Any]) -> None:
        assert not busy
        assert not changed.line

    return Scenario([use, hurry, use], law)


# ------------------------------------------------------------------------------------------------- barriers


class Barrier:
    """Opens when ``parties`` wait, and closes behind them at once; who is cancelled does not wait any more."""

    def __init__(self, parties: int) -> None:
        self.parties = parties
        self.arrived = 0
        self.lot = ParkingLot()

    def wait(self) -> None:
        schedule_point(self)
        if len(self.lot) + 1 == self.parties:
            self.lot.unpark_all()
        else:
            self.lot.park()


class MixesGenerations(Barrier):
    """Each that leaves counts itself out: who is fast comes to the next round while the door is still open."""

    def wait(self) -> None:
        schedule_point(self)
        self.arrived += 1
        if self.arrived >= self.parties:
            self.lot.unpark_all()
        else:
            self.lot.park()
        schedule_point(self)
        self.arrived -= 1


class CountsTheCancelled(Barrier):
    """A party that was cancelled still counts: the door opens with one too few."""

    def wait(self) -> None:
        schedule_point(self)
        self.arrived += 1
        if self.arrived == self.parties:
            self.arrived = 0
            self.lot.unpark_all()
        else:
            self.lot.park()


def rounds(kind: Any) -> Scenario:
    """Nobody begins round n + 1 before the other one has ended round n."""
    barrier = kind(2)
    done = [0, 0]

    def walker(me: int) -> Callable[[], None]:
        def walk() -> None:
            for number in range(1, 4):
                schedule_point()
                done[me] = number
                barrier.wait()
                assert done[1 - me] >= number

        return walk

    return Scenario([walker(0), walker(1)], lambda ends: None)


def meeting(kind: Any) -> Scenario:
    """Three fibers, of whom one may be called away, meet in twos."""
    barrier = kind(2)
    met: list[int] = []

    def meet() -> None:
        try:
            with swapco.timeout(1):
                barrier.wait()
        except TimeoutError:
            return
        met.append(1)

    def law(ends: list[Any]) -> None:
        assert len(met) == 2

    return Scenario([meet] * 3, law)


MUTANTS = [
    Mutant(LooksAgain, Event, pulse, bound=None),
    Mutant(WakesOne, Event, start_signal, bound=None),
    Mutant(LooksThenWaits, Event, start_signal, bound=None),
    Mutant(WakesBeforeTheFlag, Event, start_signal, bound=None),
    Mutant(ReleasesThenLinesUp, Condition, hand_over, bound=None),
    Mutant(GoesOnWithoutTheLock, Condition, hand_over, bound=None),
    Mutant(SwallowsTheNotification, Condition, in_a_hurry, bound=None),
    Mutant(MixesGenerations, Barrier, rounds, bound=None),
    Mutant(CountsTheCancelled, Barrier, meeting, cancel(0), bound=None),
]
