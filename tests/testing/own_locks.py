"""Scenarios of swapco's locks, semaphores, events, conditions, barriers and parking lots, and their laws."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from own_laws import CANCELLED, LATE, Make, Scenario

import swapco
from swapco.lowlevel import ParkingLot
from swapco.testing import schedule_point

__all__ = ["IN_ORDER", "SCENARIOS", "UNDISTURBED"]

GONE = (CANCELLED, LATE)


class Section:
    """What at most ``capacity`` fibers may be in at a time."""

    def __init__(self, capacity: int = 1) -> None:
        self.capacity = capacity
        self.inside = 0
        self.visits = 0

    def visit(self) -> None:
        self.inside += 1
        assert self.inside <= self.capacity, f"{self.inside} fibers are in a section of {self.capacity}"
        schedule_point(self)
        self.inside -= 1
        self.visits += 1


def stayed(ends: list[Any]) -> int:
    """How many were not disturbed, or too late."""
    return len([end for end in ends if end not in GONE])


def lock(fibers: int = 3) -> Scenario:
    mutex, section = swapco.Lock(), Section()

    def visit() -> None:
        with mutex:
            section.visit()

    def law(ends: list[Any]) -> None:
        assert section.visits == stayed(ends), "a visit has no cancellation point"
        assert mutex.statistics() == (False, None, 0, 0)

    return Scenario([visit] * fibers, law)


def lock_with_timeouts() -> Scenario:
    """Two that wait for an instant only: the instant at which the lock is released."""
    mutex, section = swapco.Lock(), Section()

    def holder() -> None:
        with mutex:
            swapco.sleep(1)
            section.visit()

    def visitor() -> bool:
        try:
            mutex.acquire(timeout=1)
        except TimeoutError:
            return False
        try:
            section.visit()
        finally:
            mutex.release()
        return True

    def law(ends: list[Any]) -> None:
        assert section.visits == stayed(ends) - ends.count(False)
        assert mutex.statistics() == (False, None, 0, 0)

    return Scenario([holder, visitor, visitor], law)


def rlock() -> Scenario:
    """One that goes in twice, and owns it until it has left twice; one that goes in once."""
    mutex, section = swapco.RLock(), Section()

    def twice() -> None:
        with mutex:
            with mutex:
                section.visit()
                assert mutex.owner is swapco.current_fiber()
            assert mutex.owner is swapco.current_fiber()
            section.visit()

    def once() -> None:
        with mutex:
            assert mutex.owner is swapco.current_fiber()
            section.visit()

    def law(ends: list[Any]) -> None:
        assert section.visits == 2 * stayed(ends[:1]) + stayed(ends[1:])
        assert mutex.statistics() == (False, None, 0, 0)

    return Scenario([twice, once], law)


def semaphore(kind: Callable[[int], swapco.Semaphore] = swapco.Semaphore) -> Scenario:
    permits, section = kind(2), Section(2)

    def visit() -> None:
        with permits:
            section.visit()

    def law(ends: list[Any]) -> None:
        assert section.visits == stayed(ends)
        assert permits.statistics() == (2, 0)

    return Scenario([visit] * 3, law)


def bounded_semaphore() -> Scenario:
    return semaphore(swapco.BoundedSemaphore)


def semaphore_handed_over() -> Scenario:
    """Permits that one fiber gives and others take: as many are left as nobody took."""
    permits = swapco.Semaphore(0)

    def give() -> None:
        for _ in range(2):
            permits.release()
            schedule_point(permits)

    def take() -> str:
        permits.acquire(timeout=1)
        return "taken"

    def law(ends: list[Any]) -> None:
        assert stayed(ends[:2]) + permits.statistics().value == 2
        assert permits.statistics().waiting == 0

    return Scenario([take, take, give], law, victims=(0, 1))


def event() -> Scenario:
    """However it is ordered, nobody waits once the flag is up."""
    flag = swapco.Event()
    seen: list[bool] = []

    def wait() -> bool:
        result = flag.wait()
        seen.append(flag.is_set())
        return result

    def raise_it() -> None:
        schedule_point(flag)
        flag.set()

    def law(ends: list[Any]) -> None:
        assert all(seen)
        assert all(end in (*GONE, True) for end in ends[:2])
        assert flag.statistics() == (True, 0)

    return Scenario([wait, wait, raise_it], law, victims=(0, 1))


def event_that_is_cleared() -> Scenario:
    """``set`` lets everybody go who waits, also if ``clear`` follows at once."""
    flag = swapco.Event()

    def wait() -> bool:
        return flag.wait()

    def pulse() -> None:
        while flag.statistics().waiting < 1:
            swapco.sleep(0)
        flag.set()
        flag.clear()
        assert flag.statistics() == (False, 0), "somebody who waited waits still"
        schedule_point(flag)
        flag.set()

    def law(ends: list[Any]) -> None:
        assert ends[:2] == [True, True]

    return Scenario([wait, wait, pulse], law, victims=())


def condition(kind: Callable[[], Any] = swapco.Lock) -> Scenario:
    """As many go on as were notified: a notification that reaches a cancelled fiber is passed on."""
    changed = swapco.Condition(kind())
    stock: list[int] = []
    section = Section()

    def consume() -> int:
        with changed:
            while not stock:
                changed.wait()
            section.visit()
            return stock.pop()

    def produce() -> None:
        for item in range(2):
            with changed:
                section.visit()
                stock.append(item)
                changed.notify()

    def law(ends: list[Any]) -> None:
        taken = [end for end in ends[:2] if end not in GONE]
        assert sorted(taken + stock) == [0, 1]
        assert changed.statistics() == (0, (False, None, 0, 0))

    return Scenario([consume, consume, produce], law, victims=(0, 1))


def condition_of_rlock() -> Scenario:
    return condition(swapco.RLock)


def condition_of_an_rlock_taken_twice() -> Scenario:
    """``wait`` gives all levels of the lock away, and has all of them again however it ends."""
    mutex, section = swapco.RLock(), Section()
    changed = swapco.Condition(mutex)
    news: list[str] = []

    def read() -> str:
        with mutex, changed:
            try:
                while not news:
                    changed.wait()
                return news[0]
            finally:
                assert mutex.statistics()[1:3] == (swapco.current_fiber(), 2)
                section.visit()

    def write() -> None:
        with changed:
            section.visit()
            news.append("news")
            changed.notify_all()

    def law(ends: list[Any]) -> None:
        assert all(end in (*GONE, "news") for end in ends[:2])
        assert mutex.statistics() == (False, None, 0, 0)
        assert changed.statistics().waiting == 0

    return Scenario([read, read, write], law, victims=(0, 1))


def condition_notified_too_late() -> Scenario:
    """Each notification lets one go on, or finds its time over in the same instant: none goes to both."""
    changed = swapco.Condition()
    told: list[bool] = []

    def wait() -> None:
        with changed:
            try:
                told.append(changed.wait(timeout=1))
            except TimeoutError:
                told.append(False)
            assert changed.locked()

    def notify() -> int:
        swapco.sleep(1)
        with changed:
            waiting = changed.statistics().waiting
            changed.notify()
            return min(1, waiting)

    def law(ends: list[Any]) -> None:
        gone = len([end for end in ends[:2] if end in GONE])
        assert ends[2] - gone <= told.count(True) <= ends[2]
        assert changed.statistics() == (0, (False, None, 0, 0))

    return Scenario([wait, wait, notify], law, victims=(0, 1))


def condition_with_one_item() -> Scenario:
    """Two want the one item that comes: whoever is not disturbed gets it."""
    changed = swapco.Condition()
    stock: list[str] = []

    def consume() -> str:
        with changed:
            try:
                changed.wait_for(lambda: stock, timeout=1)
            except TimeoutError:
                assert not stock, "the time is over, but there is an item"
                return "nothing"
            return stock.pop()

    def produce() -> None:
        with changed:
            stock.append("item")
            changed.notify()

    def law(ends: list[Any]) -> None:
        gone = len([end for end in ends[:2] if end in GONE])
        assert ends[:2].count("item") == 1 or gone == 2, "who was not disturbed gets it"
        assert len(stock) == 1 - ends[:2].count("item")

    return Scenario([consume, consume, produce], law, victims=(0, 1))


def barrier() -> Scenario:
    """Fibers pass in twos, and who is left alone leaves when its time is over."""
    meeting = swapco.Barrier(2)
    passed: list[int] = []

    def meet() -> str:
        try:
            passed.append(meeting.wait(timeout=1))
        except TimeoutError:
            return "alone"
        return "passed"

    def law(ends: list[Any]) -> None:
        gone = len([end for end in ends if end in GONE])
        assert sorted(passed) == [0, 1] or (gone > 1 and not passed)
        assert meeting.n_waiting == 0
        assert not meeting.broken

    return Scenario([meet] * 3, law)


def barrier_generations() -> Scenario:
    """Nobody is in round 2 while somebody has not left round 1."""
    meeting = swapco.Barrier(2)
    rounds = [0, 0]

    def walk(me: int) -> Callable[[], None]:
        def rounds_of_one() -> None:
            for number in range(1, 3):
                rounds[me] = number
                meeting.wait()
                assert rounds[1 - me] >= number, "the other one has not come yet"
                schedule_point(meeting)

        return rounds_of_one

    def law(ends: list[Any]) -> None:
        assert rounds == [2, 2]
        assert meeting.n_waiting == 0

    return Scenario([walk(0), walk(1)], law, victims=())


def barrier_aborted() -> Scenario:
    """``abort`` sends away who waits and who comes later; whom the barrier let go before has passed."""
    meeting = swapco.Barrier(2)

    def meet() -> str:
        try:
            meeting.wait()
        except asyncio.BrokenBarrierError:
            return "broken"
        return "passed"

    def abort() -> None:
        schedule_point(meeting)
        meeting.abort()

    def law(ends: list[Any]) -> None:
        assert ends[:2] in (["passed"] * 2, ["broken"] * 2) or set(GONE) & set(ends)
        assert ends[:2].count("passed") in (0, 2)
        assert meeting.statistics() == (2, 0, True)

    return Scenario([meet, meet, abort], law, victims=(0, 1))


def barrier_reset() -> Scenario:
    """``reset`` sends away who waits, and nobody else: the next two pass."""
    meeting = swapco.Barrier(2)
    sent_away: list[int] = []

    def meet() -> None:
        while True:
            try:
                meeting.wait()
            except asyncio.BrokenBarrierError:
                sent_away.append(1)
            else:
                return

    def reset() -> int:
        schedule_point(meeting)
        waiting = meeting.n_waiting
        meeting.reset()
        assert meeting.n_waiting == 0
        return waiting

    def law(ends: list[Any]) -> None:
        assert len(sent_away) == ends[2]
        assert meeting.statistics() == (2, 0, False)

    return Scenario([meet, meet, reset], law, victims=())


def bounded_semaphore_given_too_often() -> Scenario:
    """One permit is taken, and two fibers give it back: one of them is refused, whoever comes second."""
    permits = swapco.BoundedSemaphore(1)
    taken: list[int] = []
    given: list[bool] = []

    def give() -> None:
        try:
            permits.release()
        except ValueError:
            given.append(False)
        else:
            given.append(True)

    def take_and_give() -> None:
        permits.acquire()
        taken.append(1)
        schedule_point(permits)
        give()

    def only_give() -> None:
        schedule_point(permits)
        give()

    def law(ends: list[Any]) -> None:
        assert given.count(True) == len(taken)
        assert permits.statistics() == (1, 0)

    return Scenario([take_and_give, only_give], law)


def first_come(kind: Callable[[], Any] = swapco.Lock) -> Scenario:
    """Who waits gets it in the order of arrival, and who comes later overtakes nobody."""
    gate = kind()
    arrived: list[int] = []
    passed: list[int] = []

    def visitor(me: int) -> Callable[[], None]:
        def visit() -> None:
            schedule_point(gate)
            arrived.append(me)
            with gate:
                passed.append(me)
                schedule_point(gate)

        return visit

    def law(ends: list[Any]) -> None:
        assert passed == arrived

    return Scenario([visitor(0), visitor(1), visitor(2)], law, victims=())


def first_come_semaphore() -> Scenario:
    return first_come(lambda: swapco.Semaphore(1))


def first_come_rlock() -> Scenario:
    return first_come(swapco.RLock)


def first_notified() -> Scenario:
    """Notifications go to who has waited longest."""
    changed = swapco.Condition()
    arrived: list[int] = []
    told: list[int] = []

    def waiter(me: int) -> Callable[[], None]:
        def wait() -> None:
            with changed:
                arrived.append(me)
                changed.wait()
                told.append(me)

        return wait

    def notify() -> None:
        for _ in range(3):
            while not changed.statistics().waiting:
                swapco.sleep(0)
            with changed:
                changed.notify()
            schedule_point(changed)

    def law(ends: list[Any]) -> None:
        assert told == arrived

    return Scenario([waiter(0), waiter(1), waiter(2), notify], law, victims=())


def parking_lot() -> Scenario:
    """``unpark`` says True as often as a ``park`` returns."""
    lot = ParkingLot()
    woken: list[int] = []
    returned: list[int] = []

    def park() -> None:
        try:
            returned.append(lot.park(timeout=1))
        except TimeoutError:
            pass

    def unpark() -> None:
        for number in range(2):
            if lot.unpark(number):
                woken.append(number)
            schedule_point(lot)

    def law(ends: list[Any]) -> None:
        assert sorted(returned) == woken
        assert len(lot) == 0

    return Scenario([park, park, unpark], law)


def tokens() -> Scenario:
    """``resume`` says True as often as a ``block`` returns or a token is left."""
    given: list[int] = []
    gotten: list[int] = []
    state: dict[str, Any] = {}

    def sleeper() -> None:
        state["sleeper"] = swapco.current_fiber()
        for _ in range(2):
            try:
                gotten.append(swapco.block(timeout=1))
            except TimeoutError:
                break

    def waker(number: int) -> Callable[[], None]:
        def wake() -> None:
            if "sleeper" in state and swapco.resume(state["sleeper"], number):
                given.append(number)

        return wake

    def law(ends: list[Any]) -> None:
        assert gotten == given[: len(gotten)]
        assert len(given) - len(gotten) <= 1, "more than the token that is left with the fiber's end"

    return Scenario([sleeper, waker(1), waker(2)], law)


def handoffs() -> Scenario:
    """Two fibers hand each other the slot, and what each one gives is what the other one gets."""
    fibers: list[swapco.Fiber[Any]] = []
    log: list[tuple[str, Any]] = []

    def ping() -> None:
        fibers.append(swapco.current_fiber())
        value = swapco.block()
        for _ in range(2):
            log.append(("ping", value))
            value = swapco.switch_to(fibers[1], value + 1)

    def pong() -> None:
        while not fibers:
            swapco.sleep(0)
        fibers.append(swapco.current_fiber())
        value = swapco.switch_to(fibers[0], 1)
        log.append(("pong", value))
        value = swapco.switch_to(fibers[0], value + 1)
        log.append(("pong", value))
        swapco.resume(fibers[0], value + 1)

    def law(ends: list[Any]) -> None:
        assert log == [("ping", 1), ("pong", 2), ("ping", 3), ("pong", 4)]

    return Scenario([ping, pong], law, victims=())


SCENARIOS: dict[str, Make] = {
    make.__name__: make
    for make in (
        lock,
        lock_with_timeouts,
        rlock,
        semaphore,
        bounded_semaphore,
        semaphore_handed_over,
        event,
        condition,
        condition_of_rlock,
        condition_of_an_rlock_taken_twice,
        condition_notified_too_late,
        condition_with_one_item,
        barrier,
        barrier_aborted,
        bounded_semaphore_given_too_often,
        parking_lot,
        tokens,
    )
}
"""Those whose law also holds when a fiber is cancelled, or its time is over."""

UNDISTURBED: dict[str, Make] = {
    make.__name__: make for make in (event_that_is_cleared, barrier_generations, barrier_reset, handoffs)
}
#: Fibers come one after the other at schedule points only: entries of primitives would come between a note and the act.
IN_ORDER: dict[str, Make] = {
    make.__name__: make for make in (first_come, first_come_rlock, first_come_semaphore, first_notified)
}
