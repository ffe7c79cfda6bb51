"""Locks, semaphores, events, conditions, barriers: what each does alone, and laws under random programs.

The laws (no permit and no notification is lost, one owner at a time, first come first served) are checked on
programs that hypothesis writes: fibers that acquire with and without timeouts, and a main fiber that cancels
them and moves the clock.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swapco
from swapco._core.clock import ManualClock
from swapco.locks import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from swapco.lowlevel import Instrument

pytestmark = pytest.mark.usefixtures("fibers")


def in_fiber(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run a test as the main fiber of a loop."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        swapco.run(lambda: test(*args, **kwargs))

    return run


def settle(rounds: int = 5) -> None:
    """Let everything that can run do so."""
    for _ in range(rounds):
        asyncio.get_running_loop().call_soon(int)
        swapco.sleep(0)


def hub_task(coroutine: Any) -> asyncio.Task[Any]:
    """An asyncio task that runs in the hub, whatever the loop's task factory."""
    return asyncio.Task(coroutine, loop=asyncio.get_running_loop())


def switches() -> int:
    return int(swapco.current_fiber().scheduler.switches)


class Entered(Instrument):
    """Who was switched to, but for the hub: that is entered when the loop is due, which is a matter of time."""

    def __init__(self) -> None:
        self.fibers: list[swapco.Fiber[Any]] = []

    def after_switch(self, entering: Any) -> None:
        if entering is not None:
            self.fibers.append(entering)


def acquired(primitive: Any) -> Callable[[], None]:
    """Make ``primitive`` one that the next caller waits for, and return what ends that."""
    if isinstance(primitive, Event):
        return primitive.set
    if isinstance(primitive, RLock):
        ready, done = Event(), Event()

        def hold() -> None:
            with primitive:
                ready.set()
                done.wait()

        swapco.spawn(hold)
        ready.wait()
        return done.set
    primitive.acquire()
    return primitive.release


def waiting_call(primitive: Any) -> Callable[..., Any]:
    return primitive.wait if isinstance(primitive, (Event, Barrier)) else primitive.acquire


MAKE_ACQUIRABLE = [Lock, RLock, Semaphore, lambda: BoundedSemaphore(1), Condition]
MAKE_BLOCKING = [*MAKE_ACQUIRABLE, Event]
NAMES = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"]
acquirable = pytest.mark.parametrize("make", MAKE_ACQUIRABLE, ids=NAMES[:-1])
blocking = pytest.mark.parametrize("make", MAKE_BLOCKING, ids=NAMES)


# -- common to all that block --------------------------------------------------------------------------------


@acquirable
@in_fiber
def test_with_acquires_and_releases(make: Any) -> None:
    primitive = make()
    with primitive as value:
        assert value is None
        if not isinstance(primitive, RLock):
            assert primitive.locked()
    assert not primitive.locked()
    with pytest.raises(ZeroDivisionError):
        with primitive:
            raise ZeroDivisionError
    assert not primitive.locked()


@acquirable
@in_fiber
def test_uncontended_operations_do_not_switch(make: Any) -> None:
    primitive = make()
    swapco.spawn(swapco.sleep, 0)
    before = switches()
    for _ in range(100):
        assert primitive.acquire() is True
        primitive.release()
        with primitive:
            pass
    assert switches() == before


@acquirable
@in_fiber
def test_first_come_first_served(make: Any) -> None:
    primitive = make()
    free = acquired(primitive)
    order: list[int] = []

    def take(i: int) -> None:
        with primitive:
            order.append(i)
            swapco.sleep(0)

    fibers = [swapco.spawn(take, i) for i in range(10)]
    settle()
    assert order == []
    free()
    for fiber in fibers:
        fiber.join()
    assert order == list(range(10))


@acquirable
@in_fiber
def test_a_newcomer_does_not_overtake(make: Any) -> None:
    primitive = make()
    free = acquired(primitive)
    order: list[str] = []

    def take(name: str) -> None:
        with primitive:
            order.append(name)

    waiter = swapco.spawn(take, "waiter")
    settle()
    free()
    if not isinstance(primitive, RLock):
        assert primitive.locked(), "handed to the waiter, which has not run yet"
        take("newcomer")
        waiter.join()
        assert order == ["waiter", "newcomer"]
    waiter.join()


@blocking
@in_fiber
def test_timeout(make: Any) -> None:
    primitive = make()
    free = acquired(primitive)
    wait = waiting_call(primitive)
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(TimeoutError, match=type(primitive).__name__.replace("Condition", "Lock")):
        wait(timeout=0.01)
    assert loop.time() - start >= 0.01
    assert primitive.statistics()
    before = switches()
    for timeout in (0, -1, -math.inf):
        with pytest.raises(TimeoutError):
            wait(timeout=timeout)
    assert switches() == before, "no time to wait: no switch"
    with pytest.raises(ValueError):
        wait(timeout=math.nan)
    with pytest.raises(TypeError):
        wait(timeout="1")
    free()
    settle()
    with pytest.raises(ValueError):
        wait(timeout=math.nan)  # also if it need not wait
    assert wait(timeout=0) is True


@blocking
@in_fiber
def test_timeouts_end_in_time_and_the_rest_of_the_line_goes_on(make: Any) -> None:
    primitive = make()
    free = acquired(primitive)
    wait = waiting_call(primitive)
    got: list[str] = []

    def attempt(name: str, timeout: float | None) -> None:
        try:
            wait(timeout=timeout)
        except TimeoutError:
            got.append(f"{name} timed out")
        else:
            got.append(name)
            if not isinstance(primitive, Event):
                primitive.release()

    fibers = [
        swapco.spawn(attempt, "a", 0.005),
        swapco.spawn(attempt, "b", None),
        swapco.spawn(attempt, "c", 3600),
    ]
    fibers[0].join()
    assert got == ["a timed out"]
    free()
    for fiber in fibers:
        fiber.join()
    assert got == ["a timed out", "b", "c"]


@blocking
@in_fiber
def test_cancelled_while_waiting(make: Any) -> None:
    primitive = make()
    free = acquired(primitive)
    wait = waiting_call(primitive)
    first, second = swapco.spawn(wait), swapco.spawn(wait)
    settle()
    first.cancel("away")
    with pytest.raises(swapco.CancelledError, match="away"):
        first.join()
    assert first.cancelled()
    free()
    assert second.join() is True


@blocking
@in_fiber
def test_a_pending_cancellation_is_raised_only_where_it_would_wait(make: Any) -> None:
    free, busy = make(), make()
    acquired(busy)
    log: list[str] = []

    def body() -> None:
        swapco.current_fiber().cancel()
        if isinstance(free, Event):
            free.set()
            free.wait()
        else:
            with free:
                free.release()
                free.acquire(timeout=0)
        log.append("not a cancellation point")
        before = switches()
        try:
            waiting_call(busy)()
        finally:
            assert switches() == before
            log.append("raised before it waits")

    with pytest.raises(swapco.CancelledError):
        swapco.spawn(body).join()
    assert log == ["not a cancellation point", "raised before it waits"]


@blocking
@in_fiber
def test_a_pending_cancellation_goes_before_a_timeout_that_is_over(make: Any) -> None:
    busy = make()
    acquired(busy)

    def body() -> None:
        swapco.current_fiber().cancel()
        waiting_call(busy)(timeout=0)

    with pytest.raises(swapco.CancelledError):
        swapco.spawn(body).join()


@acquirable
@in_fiber
def test_a_hand_over_that_has_won_beats_a_later_cancellation(make: Any) -> None:
    primitive = make()
    free = acquired(primitive)
    log: list[str] = []

    def take() -> None:
        with primitive:
            log.append("has it")
            try:
                swapco.sleep(0)
            except swapco.CancelledError:
                log.append("cancelled later")
                raise

    fiber = swapco.spawn(take)
    settle()
    free()
    if isinstance(primitive, RLock):
        # its owner is another fiber: let that release, and cancel before the waiter runs
        while primitive.owner is not fiber:
            swapco.sleep(0)
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert log[0] == "has it"
    assert not primitive.locked(), "and gave it back"


@blocking
def test_outside_a_fiber(make: Any) -> None:
    primitive = make()
    call = waiting_call(primitive)
    with pytest.raises(swapco.NotInFiber, match=r"swapco\.run"):
        call()
    if not isinstance(primitive, Event):
        with pytest.raises(swapco.NotInFiber):
            primitive.__enter__()

    def main() -> None:
        caught: list[BaseException] = []

        def callback() -> None:
            try:
                call()
            except BaseException as error:
                caught.append(error)

        asyncio.get_running_loop().call_soon(callback)
        settle()
        assert isinstance(caught[0], swapco.NotInFiber)
        assert "swapco.spawn" in str(caught[0])

    swapco.run(main)


@blocking
@in_fiber
def test_release_from_a_loop_callback(make: Any) -> None:
    primitive = make()
    if isinstance(primitive, RLock):
        return
    free = acquired(primitive)
    fiber = swapco.spawn(waiting_call(primitive))
    settle()
    asyncio.get_running_loop().call_later(0.001, free)
    assert fiber.join() is True


def in_thread(fn: Callable[[], Any]) -> BaseException | None:
    """Call ``fn`` in another thread; returns what it raised."""
    caught: list[BaseException] = []

    def call() -> None:
        try:
            fn()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return caught[0] if caught else None


@blocking
@in_fiber
def test_waking_from_another_thread_is_an_error_that_changes_nothing(make: Any) -> None:
    primitive = make()
    if isinstance(primitive, RLock):
        return
    free = acquired(primitive)
    fiber = swapco.spawn(waiting_call(primitive))
    settle()
    before = primitive.statistics()
    error = in_thread(free)
    assert isinstance(error, RuntimeError)
    assert "call_soon_threadsafe" in str(error)
    assert primitive.statistics() == before
    free()
    assert fiber.join() is True


@blocking
@in_fiber
def test_fibers_of_two_loops_do_not_share_a_line(make: Any) -> None:
    primitive = make()
    free = acquired(primitive)
    fiber = swapco.spawn(waiting_call(primitive))
    settle()
    error = in_thread(lambda: swapco.run(waiting_call(primitive)))
    assert isinstance(error, RuntimeError)
    assert "another event loop" in str(error)
    free()
    fiber.join()


@blocking
def test_usable_in_one_run_after_the_other(make: Any) -> None:
    primitive = make()

    def main() -> None:
        free = acquired(primitive)
        fiber = swapco.spawn(waiting_call(primitive))
        settle()
        free()
        fiber.join()
        if isinstance(primitive, Event):
            primitive.clear()
        elif not isinstance(primitive, RLock):
            primitive.release()

    for _ in range(2):
        swapco.run(main)
        if isinstance(primitive, RLock):
            break


@blocking
@in_fiber
def test_no_reference_cycles_and_weakly_referenceable(make: Any) -> None:
    primitive = make()
    free = acquired(primitive)
    fiber = swapco.spawn(waiting_call(primitive))
    settle()
    free()
    fiber.join()
    settle()
    reference = weakref.ref(primitive)
    gc.disable()
    try:
        del primitive, free, fiber
        settle()
        if make is not RLock:
            assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [Lock, RLock, Event])
def test_takes_no_arguments(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind(1)


# -- Lock and RLock ------------------------------------------------------------------------------------------


@in_fiber
def test_lock_knows_its_owner() -> None:
    lock = Lock()
    assert lock.owner is None
    me = swapco.current_fiber()
    with lock:
        assert lock.owner is me
        fiber = swapco.spawn(lock.acquire, name="next")
        settle()
        assert lock.statistics() == (True, me, 1, 1)
        assert repr(lock) == "<Lock locked by Fiber 'main', 1 waiting>"
    assert lock.owner is fiber, "it is handed over before that has run"
    fiber.join()
    assert repr(lock) == "<Lock locked by Fiber 'next' (done)>"
    lock.release()
    assert lock.statistics() == (False, None, 0, 0)
    assert repr(lock) == "<Lock unlocked>"


@in_fiber
def test_lock_may_be_released_by_anyone_but_only_when_locked() -> None:
    lock = Lock()
    with pytest.raises(RuntimeError, match="Lock is not acquired"):
        lock.release()
    lock.acquire()
    swapco.spawn(lock.release).join()
    assert not lock.locked()
    lock.acquire()
    assert in_thread(lock.release) is None  # nobody waits
    with pytest.raises(RuntimeError, match="not acquired"):
        with lock:
            lock.release()


def test_a_lock_acquired_twice_is_a_deadlock_that_names_it() -> None:
    # in a process of its own: a thread of the test runner could wake a fiber, for all that swapco knows
    program = (
        "import swapco, swapco.locks as locks\n"
        "lock = locks.Lock()\n"
        "def main():\n"
        "    lock.acquire()\n"
        "    try:\n"
        "        lock.acquire()\n"
        "    except swapco.Deadlock as error:\n"
        "        print(error)\n"
        "swapco.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert "'main' waits for <Lock locked by Fiber 'main', 1 waiting>, owned by 'main'" in done.stdout


@in_fiber
def test_overrides_of_a_subclass_are_called_by_with() -> None:
    calls: list[str] = []

    class Logged(Lock):
        def acquire(self, *, timeout: float | None = None) -> bool:
            calls.append("acquire")
            return super().acquire(timeout=timeout)

        def release(self) -> None:
            calls.append("release")
            super().release()

    with Logged() as value:
        assert value is None
    assert calls == ["acquire", "release"]


@in_fiber
def test_rlock_is_reentrant() -> None:
    lock = RLock()
    me = swapco.current_fiber()
    with lock:
        with lock:
            assert lock.statistics() == (True, me, 2, 0)
            assert repr(lock) == "<RLock locked by Fiber 'main' 2 times>"
            other = swapco.spawn(lock.acquire)
            settle()
        assert lock.owner is me
    assert lock.owner is other
    with pytest.raises(RuntimeError, match="only its owner"):
        lock.release()
    other.join()


@in_fiber
def test_rlock_released_too_often() -> None:
    lock = RLock()
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()
    with lock:
        pass
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()


# -- semaphores ----------------------------------------------------------------------------------------------


@in_fiber
def test_semaphore_counts() -> None:
    with pytest.raises(ValueError):
        Semaphore(-1)
    with pytest.raises(TypeError):
        Semaphore("1")  # type: ignore[arg-type]
    semaphore = Semaphore(2)
    assert repr(semaphore) == "<Semaphore 2 free>"
    assert not semaphore.locked()
    semaphore.acquire()
    semaphore.acquire()
    assert semaphore.locked()
    fiber = swapco.spawn(semaphore.acquire)
    settle()
    assert semaphore.statistics() == (0, 1)
    assert repr(semaphore) == "<Semaphore locked, 1 waiting>"
    semaphore.release()
    assert semaphore.locked(), "the permit went to the waiter"
    fiber.join()
    for _ in range(4):
        semaphore.release()
    assert semaphore.statistics() == (4, 0), "a plain semaphore grows"


@in_fiber
def test_bounded_semaphore_is_bounded() -> None:
    semaphore = BoundedSemaphore(2)
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    with semaphore:
        assert repr(semaphore) == "<BoundedSemaphore 1 of 2 free>"
    with pytest.raises(ValueError):
        semaphore.release()
    assert semaphore.statistics() == (2, 0)
    assert isinstance(semaphore, Semaphore)


# -- events --------------------------------------------------------------------------------------------------


@in_fiber
def test_event_wakes_everyone_in_order() -> None:
    event = Event()
    assert not event.is_set()
    assert repr(event) == "<Event unset>"
    order: list[int] = []

    def wait(i: int) -> None:
        assert event.wait() is True
        order.append(i)

    fibers = [swapco.spawn(wait, i) for i in range(5)]
    settle()
    assert event.statistics() == (False, 5)
    event.set()
    event.clear()
    for fiber in fibers:
        fiber.join()
    assert order == list(range(5)), "woken, though it was cleared before they ran"
    assert not event.is_set()
    event.set()
    event.set()
    before = switches()
    assert event.wait() is True
    assert switches() == before
    assert repr(event) == "<Event set>"


# -- conditions ----------------------------------------------------------------------------------------------


@in_fiber
def test_condition_needs_its_lock() -> None:
    condition = Condition()
    with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
        condition.wait()
    with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
        condition.notify()
    with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
        condition.notify_all()
    with pytest.raises(TypeError):
        Condition(asyncio.Lock())  # type: ignore[arg-type]
    lock = RLock()
    condition = Condition(lock)
    with lock:
        condition.notify()
        error = swapco.spawn(pytest.raises, RuntimeError, condition.notify)
        error.join()


@pytest.mark.parametrize("make_lock", [Lock, RLock])
@in_fiber
def test_notify_wakes_in_order_and_costs_one_switch_each(make_lock: Any) -> None:
    condition = Condition(make_lock())
    order: list[int] = []

    def wait(i: int) -> None:
        with condition:
            assert condition.wait() is True
            assert condition.locked()
            order.append(i)

    fibers = [swapco.spawn(wait, i) for i in range(6)]
    settle()
    assert condition.statistics().waiting == 6
    assert repr(condition) == f"<Condition 6 waiting of <{make_lock.__name__} unlocked>>"
    with condition:
        condition.notify(2)
        assert condition.statistics().waiting == 4
        assert condition.statistics().lock.waiting == 2, "notified: they stand in the lock's line"
        condition.notify(0)
        swapco.sleep(0)
        assert order == []
    settle()
    assert order == [0, 1]
    entered = Entered()
    scheduler: Any = swapco.current_fiber().scheduler
    scheduler.add_instrument(entered)
    with condition:
        condition.notify_all()
    fibers[-1].join()
    scheduler.remove_instrument(entered)
    assert order == list(range(6))
    # each of the four, and back here
    assert entered.fibers == [*fibers[2:], swapco.current_fiber()]


@in_fiber
def test_wait_gives_a_reentrant_lock_back_completely() -> None:
    lock = RLock()
    condition = Condition(lock)

    def notify() -> None:
        with condition:
            condition.notify()

    with condition, condition:
        fiber = swapco.spawn(notify)
        condition.wait()
        assert lock.statistics().depth == 2
        assert lock.owner is swapco.current_fiber()
        with pytest.raises(TimeoutError):
            condition.wait(timeout=0.001)
        assert lock.statistics().depth == 2
    assert not lock.locked()
    fiber.join()


@pytest.mark.parametrize("make_lock", [Lock, RLock])
@in_fiber
def test_wait_that_times_out_holds_the_lock(make_lock: Any) -> None:
    condition = Condition(make_lock())
    with condition:
        with pytest.raises(TimeoutError, match="a notification of <Condition"):
            condition.wait(timeout=0.005)
        assert condition.locked()
        assert condition.statistics().lock.owner is swapco.current_fiber()
        before = switches()
        with pytest.raises(TimeoutError):
            condition.wait(timeout=0)
        assert switches() == before
        assert condition.locked()
    assert condition.statistics() == (0, (False, None, 0, 0))


def test_the_timeout_is_for_the_notification_not_for_the_lock() -> None:
    clock = ManualClock()

    def main() -> None:
        condition = Condition()

        def wait() -> bool:
            with condition:
                return condition.wait(timeout=1)

        fiber = swapco.spawn(wait)
        settle()
        with condition:
            condition.notify()
            clock.advance(2)
            settle()
        assert fiber.join() is True

    swapco.run(main, loop_factory=lambda: swapco.new_event_loop(clock=clock))


@in_fiber
def test_cancelled_waiter_holds_the_lock_when_it_raises() -> None:
    condition = Condition()
    log: list[str] = []

    def wait() -> None:
        with condition:
            try:
                condition.wait()
            except swapco.CancelledError as error:
                log.append(f"{error} {condition.statistics().lock.owner is swapco.current_fiber()}")
                raise

    fiber = swapco.spawn(wait)
    settle()
    with condition:
        fiber.cancel("one")
        swapco.sleep(0)
        fiber.cancel("two")  # while it waits for the lock
        settle()
        assert not fiber.done()
        fiber.cancel("three")
        settle()
        assert not fiber.done()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert log == ["three True"]
    assert not condition.locked()


def test_a_timed_out_waiter_that_is_cancelled_while_it_waits_for_the_lock() -> None:
    clock = ManualClock()

    def main() -> None:
        condition = Condition()

        def wait() -> None:
            with condition:
                condition.wait(timeout=1)

        fiber = swapco.spawn(wait)
        settle()
        with condition:
            clock.advance(2)
            while "Lock" not in (fiber.wait_reason or ""):
                settle()
            fiber.cancel()
            settle()
        with pytest.raises(swapco.CancelledError):
            fiber.join()
        assert not condition.locked()

    swapco.run(main, loop_factory=lambda: swapco.new_event_loop(clock=clock))


@in_fiber
def test_the_notification_of_a_cancelled_waiter_goes_to_another_one() -> None:
    condition = Condition()
    woken: list[str] = []

    def wait(name: str) -> None:
        with condition:
            condition.wait()
            woken.append(name)

    first, second = swapco.spawn(wait, "first"), swapco.spawn(wait, "second")
    settle()
    with condition:
        condition.notify()
        first.cancel()  # notified, but it does not have the lock yet
    with pytest.raises(swapco.CancelledError):
        first.join()
    second.join()
    assert woken == ["second"]
    assert not condition.locked()


@in_fiber
def test_a_notified_waiter_that_has_the_lock_is_cancelled_later() -> None:
    condition = Condition()
    woken: list[str] = []

    def wait(name: str) -> None:
        with condition:
            condition.wait()
            woken.append(name)
            swapco.sleep(0)
            woken.append("unreachable")

    first, second = swapco.spawn(wait, "first"), swapco.spawn(wait, "second")
    settle()
    with condition:
        condition.notify()
    first.cancel()  # the lock was handed to it: that stands
    with pytest.raises(swapco.CancelledError):
        first.join()
    assert woken == ["first"]
    assert not second.done()
    second.cancel()


@in_fiber
def test_wait_with_a_cancellation_pending_keeps_the_lock() -> None:
    condition = Condition()
    log: list[bool] = []

    def wait() -> None:
        with condition:
            swapco.current_fiber().cancel()
            try:
                condition.wait()
            finally:
                log.append(condition.locked())

    with pytest.raises(swapco.CancelledError):
        swapco.spawn(wait).join()
    assert log == [True]
    assert not condition.locked()


@in_fiber
def test_wait_for() -> None:
    condition = Condition()
    items: list[int] = []

    def produce() -> None:
        for i in range(3):
            swapco.sleep(0)
            with condition:
                items.append(i)
                condition.notify_all()

    swapco.spawn(produce)
    with condition:
        assert condition.wait_for(lambda: "at once") == "at once"
        assert condition.wait_for(lambda: len(items) == 3 and items) is items
        with pytest.raises(TimeoutError):
            condition.wait_for(lambda: 0, timeout=0.005)
        with pytest.raises(TimeoutError):
            condition.wait_for(lambda: 0, timeout=0)
        assert condition.wait_for(lambda: 7, timeout=0) == 7
        with pytest.raises(ZeroDivisionError):
            condition.wait_for(lambda: 1 / 0)
        with pytest.raises(ValueError):
            condition.wait_for(lambda: 1, timeout=math.nan)
        assert condition.locked()


@in_fiber
def test_wait_for_looks_once_more_after_its_timeout() -> None:
    condition = Condition()
    looks: list[int] = []

    def second_look() -> bool:
        looks.append(1)
        return len(looks) == 2

    def wait() -> bool:
        with condition:
            return condition.wait_for(second_look, timeout=0.005)

    fiber = swapco.spawn(wait)
    settle()
    with condition:
        swapco.sleep(0.02)  # it timed out, and waits for the lock; nobody notifies it
    assert fiber.join() is True


@in_fiber
def test_conditions_that_share_a_lock() -> None:
    lock = Lock()
    full, empty = Condition(lock), Condition(lock)
    box: list[int] = []
    seen: list[int] = []

    def consume() -> None:
        for _ in range(20):
            with lock:
                full.wait_for(lambda: box)
                seen.append(box.pop())
                empty.notify()

    fiber = swapco.spawn(consume)
    for i in range(20):
        with lock:
            empty.wait_for(lambda: not box)
            box.append(i)
            full.notify()
    fiber.join()
    assert seen == list(range(20))


# -- barriers ------------------------------------------------------------------------------------------------


@in_fiber
def test_barrier_opens_for_all_and_again() -> None:
    barrier = Barrier(3)
    rounds: list[tuple[int, int]] = []

    def meet() -> None:
        for i in range(4):
            index = barrier.wait()
            rounds.append((i, index))

    fibers = [swapco.spawn(meet) for _ in range(3)]
    for fiber in fibers:
        fiber.join()
    assert [i for i, _ in rounds] == sorted(i for i, _ in rounds)
    for i in range(4):
        assert sorted(index for j, index in rounds if j == i) == [0, 1, 2]
    assert barrier.n_waiting == 0
    assert Barrier(1).wait() == 0
    with pytest.raises(ValueError):
        Barrier(0)


@in_fiber
def test_barrier_without_those_who_gave_up() -> None:
    barrier = Barrier(3)
    with pytest.raises(TimeoutError):
        barrier.wait(timeout=0.001)
    with pytest.raises(TimeoutError):
        barrier.wait(timeout=0)
    gone, stays = swapco.spawn(barrier.wait), swapco.spawn(barrier.wait)
    settle()
    assert barrier.statistics() == (3, 2, False)
    assert repr(barrier) == "<Barrier 2 of 3 waiting>"
    gone.cancel()
    settle()
    assert barrier.n_waiting == 1
    other = swapco.spawn(barrier.wait)
    settle()
    with barrier as index:
        assert index == 2
    assert (stays.join(), other.join()) == (0, 1)
    assert barrier.parties == 3


@in_fiber
def test_barrier_abort_and_reset() -> None:
    barrier = Barrier(2)
    fiber = swapco.spawn(barrier.wait)
    settle()
    barrier.abort()
    assert barrier.broken
    assert repr(barrier) == "<Barrier broken>"
    with pytest.raises(asyncio.BrokenBarrierError):
        fiber.join()
    with pytest.raises(asyncio.BrokenBarrierError, match="reset"):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken
    fiber = swapco.spawn(barrier.wait)
    settle()
    barrier.reset()
    with pytest.raises(asyncio.BrokenBarrierError):
        fiber.join()
    fiber = swapco.spawn(barrier.wait)
    settle()
    assert barrier.wait() == 1
    barrier.abort()
    assert fiber.join() == 0, "it was let go before the barrier broke"
    assert isinstance(in_thread(barrier.abort), type(None))


@in_fiber
def test_barrier_from_another_thread_and_cancelled() -> None:
    barrier = Barrier(2)
    fiber = swapco.spawn(barrier.wait)
    settle()
    for operation in (barrier.abort, barrier.reset, lambda: swapco.run(barrier.wait)):
        error = in_thread(operation)
        assert isinstance(error, RuntimeError)
    assert barrier.statistics() == (2, 1, False)
    assert barrier.wait() == 1
    fiber.cancel()  # it has its index
    assert fiber.join() == 0


# -- async with ----------------------------------------------------------------------------------------------


@acquirable
@in_fiber
def test_async_with_in_a_coroutine_that_a_fiber_drives(make: Any) -> None:
    primitive = make()
    me = swapco.current_fiber()

    async def body() -> None:
        async with primitive as value:
            assert value is None
            if hasattr(primitive, "owner"):
                assert primitive.owner is me
            await asyncio.sleep(0)

    swapco.await_(body())
    assert not primitive.locked()
    free = acquired(primitive)
    fiber = swapco.spawn(body if not hasattr(primitive, "owner") else primitive.acquire)
    settle()
    free()
    fiber.join()


@acquirable
@in_fiber
def test_async_with_in_the_hub(make: Any) -> None:
    primitive = make()
    log: list[str] = []

    async def body(name: str) -> None:
        async with primitive:
            if hasattr(primitive, "owner"):
                assert primitive.owner is asyncio.current_task()
                assert f"locked by Task {name!r}" in repr(primitive)
            log.append(f"{name} in")
            await asyncio.sleep(0)
            log.append(f"{name} out")

    tasks = [hub_task(body(str(i))) for i in range(4)]
    for i, task in enumerate(tasks):
        task.set_name(str(i))
    for task in tasks:
        swapco.await_(task)
    assert log == [f"{i} {what}" for i in range(4) for what in ("in", "out")]
    assert not primitive.locked()
    with primitive:
        task = hub_task(body("5"))
        task.set_name("5")
        settle()
        assert log[-1] == "3 out"
    swapco.await_(task)
    assert log[-1] == "5 out"


@in_fiber
def test_rlock_in_the_hub_belongs_to_the_task() -> None:
    lock = RLock()
    log: list[str] = []
    go_on = asyncio.Event()

    async def body() -> None:
        async with lock:
            async with lock:
                assert lock.statistics().depth == 2
                await go_on.wait()
            with pytest.raises(swapco.NotInFiber):
                lock.acquire()
            log.append("task")

    task = hub_task(body())
    settle()
    with pytest.raises(RuntimeError, match="only its owner"):
        lock.release()
    go_on.set()
    with lock:
        log.append("fiber")
    swapco.await_(task)
    assert log == ["task", "fiber"]


def nothing_left(primitive: Any) -> bool:
    if isinstance(primitive, Semaphore):
        return primitive.statistics().value == 1 and primitive.statistics().waiting == 0
    return not primitive.locked()


@acquirable
@pytest.mark.parametrize("after", range(12))
@in_fiber
def test_async_with_cancelled_at_any_moment_loses_nothing(make: Any, after: int) -> None:
    """The task is cancelled ``after`` loop iterations: before, while and after it gets the lock."""
    primitive = make()
    free = acquired(primitive)
    log: list[str] = []
    loop = asyncio.get_running_loop()

    async def body() -> None:
        async with primitive:
            log.append("in")
            await asyncio.sleep(0)

    task = hub_task(body())
    rounds = iter(range(20))

    def tick() -> None:
        i = next(rounds, None)
        if i is None:
            return
        loop.call_soon(tick)
        if i == 4:
            free()
        if i == after:
            task.cancel("away")

    if isinstance(primitive, RLock):
        loop.call_soon(tick)
        swapco.sleep(0.001)
    else:
        tick()
    settle(20)
    assert task.done()
    assert task.cancelled() or log == ["in"]
    if after <= 4:
        assert task.cancelled()
        assert log == []
    settle()
    assert nothing_left(primitive)


@acquirable
@in_fiber
def test_async_with_of_a_coroutine_that_is_closed(make: Any) -> None:
    primitive = make()
    free = acquired(primitive)

    async def body() -> None:
        async with primitive:
            raise AssertionError("unreachable")

    coroutine = body()
    steps: list[Any] = []
    asyncio.get_running_loop().call_soon(lambda: steps.append(coroutine.send(None)))
    settle()
    assert len(steps) == 1, "it waits for its helper"
    coroutine.close()
    settle()
    free()
    settle()
    assert nothing_left(primitive)


@in_fiber
def test_async_with_barrier() -> None:
    barrier = Barrier(2)

    async def body() -> int:
        async with barrier as index:
            return index

    task = hub_task(body())
    settle()
    assert barrier.n_waiting == 1
    assert swapco.await_(body()) == 1
    assert swapco.await_(task) == 0
    task = hub_task(body())
    settle()
    task.cancel()
    settle()
    assert task.cancelled()
    assert barrier.n_waiting == 0


def test_async_with_needs_a_loop_for_fibers() -> None:
    async def contended() -> None:
        lock = Lock()
        async with lock:
            async with lock:
                pass

    with pytest.raises(RuntimeError, match=r"swapco\.run"):
        asyncio.run(contended())


# -- laws ----------------------------------------------------------------------------------------------------

FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TIMEOUTS = st.sampled_from([None, None, 0, 1, 2, 3])
# what the main fiber does: let the others run, cancel one of them, move the clock by one
STEPS = st.lists(st.one_of(st.just("run"), st.just("tick"), st.integers(0, 5)), max_size=25)


def run_program(body: Callable[[ManualClock], Any]) -> Any:
    clock = ManualClock(1.0)
    return swapco.run(body, clock, loop_factory=lambda: swapco.new_event_loop(clock=clock))


def play(steps: list[Any], fibers: list[Any], clock: ManualClock) -> None:
    for step in steps:
        if step == "run":
            swapco.sleep(0)
        elif step == "tick":
            clock.advance(1)
            settle(1)
        elif step < len(fibers):
            fibers[step].cancel()


def finish(fibers: list[Any]) -> None:
    """Let every fiber come to its end, however it does."""
    for _ in range(1000):
        if all(fiber.done() for fiber in fibers):
            break
        settle(1)
    for fiber in fibers:
        assert fiber.done(), swapco.all_fibers()
        if not fiber.cancelled() and fiber.exception() is not None:
            raise fiber.exception()


@FEW
@given(
    kind=st.sampled_from(["lock", "rlock", "condition", "semaphore", "bounded"]),
    permits=st.integers(1, 3),
    # for each fiber: attempts, each with a timeout and how often it yields while it holds
    scripts=st.lists(st.lists(st.tuples(TIMEOUTS, st.integers(0, 3)), max_size=5), min_size=1, max_size=6),
    steps=STEPS,
)
def test_law_permits_are_neither_lost_nor_doubled(
    kind: str, permits: int, scripts: list[list[tuple[float | None, int]]], steps: list[Any]
) -> None:
    if kind in ("lock", "rlock", "condition"):
        permits = 1
    makers: dict[str, Callable[[], Any]] = {
        "lock": Lock,
        "rlock": RLock,
        "condition": Condition,
        "semaphore": lambda: Semaphore(permits),
        "bounded": lambda: BoundedSemaphore(permits),
    }

    def main(clock: ManualClock) -> None:
        primitive = makers[kind]()
        holders: set[Any] = set()
        arrived: list[int] = []
        served: list[int] = []
        numbers = iter(range(1000))

        def body(script: list[tuple[float | None, int]]) -> None:
            for timeout, rounds in script:
                number = next(numbers)
                arrived.append(number)
                try:
                    primitive.acquire(timeout=timeout)
                except BaseException as error:
                    arrived.remove(number)
                    if isinstance(error, TimeoutError):
                        continue
                    raise
                served.append(number)
                holders.add(number)
                assert len(holders) <= permits
                try:
                    for _ in range(rounds):
                        swapco.sleep(0)
                finally:
                    holders.remove(number)
                    primitive.release()

        fibers = [swapco.spawn(body, script) for script in scripts]
        play(steps, fibers, clock)
        # ends the waits with a timeout
        for _ in range(4):
            clock.advance(1)
            settle(2)
        finish(fibers)
        assert not holders
        if kind in ("semaphore", "bounded"):
            assert primitive.statistics() == (permits, 0)
        else:
            assert not primitive.locked()
        if permits == 1:
            assert served == arrived, "first come, first served"

    run_program(main)


@FEW
@given(
    rlock=st.booleans(),
    waiters=st.lists(st.lists(TIMEOUTS, min_size=1, max_size=3), min_size=1, max_size=6),
    steps=st.lists(
        st.one_of(st.just("run"), st.just("tick"), st.just("produce"), st.just("all"), st.integers(0, 5)),
        max_size=25,
    ),
    hold=st.integers(0, 2),
)
def test_law_no_notification_is_lost(
    rlock: bool, waiters: list[list[float | None]], steps: list[str | int], hold: int
) -> None:
    """Consumers of a counter that is protected by a condition, cancelled and timed out at random.

    Whenever everything has come to rest, nobody waits while there is something to consume.
    """

    def main(clock: ManualClock) -> None:
        condition = Condition(RLock() if rlock else Lock())
        stock = produced = consumed = 0

        def consume(timeouts: list[float | None]) -> None:
            nonlocal stock, consumed
            for timeout in timeouts:
                with condition:
                    try:
                        while not stock:
                            condition.wait(timeout=timeout)
                            assert condition.statistics().lock.owner is swapco.current_fiber()
                    except TimeoutError:
                        assert condition.statistics().lock.owner is swapco.current_fiber()
                        continue
                    stock -= 1
                    consumed += 1

        def produce(everyone: bool) -> None:
            nonlocal stock, produced
            with condition:
                stock += 1
                produced += 1
                if everyone:
                    condition.notify_all()
                else:
                    condition.notify()
                for _ in range(hold):
                    swapco.sleep(0)

        fibers = [swapco.spawn(consume, timeouts) for timeouts in waiters]
        producers = []
        for step in steps:
            if step in ("produce", "all"):
                producers.append(swapco.spawn(produce, step == "all"))
            else:
                play([step], fibers, clock)
        finish(producers)
        for _ in range(100):
            if not condition.locked():
                break
            settle(1)
        assert not condition.locked()
        assert stock + consumed == produced
        if stock:
            assert condition.statistics().waiting == 0, "somebody sleeps through a notification"
        for fiber in fibers:
            fiber.cancel()
        finish(fibers)
        assert condition.statistics() == (0, (False, None, 0, 0))

    run_program(main)


@FEW
@given(parties=st.integers(1, 4), arrivals=st.lists(TIMEOUTS, max_size=12), steps=STEPS)
def test_law_a_barrier_lets_go_exactly_its_parties(
    parties: int, arrivals: list[float | None], steps: list[Any]
) -> None:
    def main(clock: ManualClock) -> None:
        barrier = Barrier(parties)
        passed: list[int] = []

        def meet(timeout: float | None) -> None:
            passed.append(barrier.wait(timeout=timeout))

        fibers = [swapco.spawn(meet, timeout) for timeout in arrivals]
        play(steps, fibers, clock)
        settle(10)
        assert len(passed) % parties == 0
        for index in range(parties):
            assert passed.count(index) == len(passed) // parties
        for fiber in fibers:
            fiber.cancel()
        settle()
        assert barrier.n_waiting == 0
        for fiber in fibers:
            assert (
                fiber.cancelled() or fiber.exception() is None or isinstance(fiber.exception(), TimeoutError)
            )

    run_program(main)


@FEW
@given(steps=st.lists(st.sampled_from(["set", "clear", "wait", "run", "cancel", "tick"]), max_size=30))
def test_law_an_event_wakes_everyone_who_waits(steps: list[str]) -> None:
    def main(clock: ManualClock) -> None:
        event = Event()
        waiting: set[Any] = set()
        fibers: list[Any] = []

        def wait() -> None:
            me = swapco.current_fiber()
            waiting.add(me)
            try:
                assert event.wait(timeout=2) is True
            except TimeoutError:
                pass
            finally:
                waiting.discard(me)

        for step in steps:
            if step == "set":
                event.set()
            elif step == "clear":
                event.clear()
            elif step == "wait":
                fibers.append(swapco.spawn(wait))
            elif step == "cancel" and fibers:
                fibers[len(fibers) // 2].cancel()
            else:
                play(["tick" if step == "tick" else "run"], [], clock)
            if event.is_set():
                settle(3)
                assert not waiting
        event.set()
        settle(3)
        assert not waiting
        assert event.statistics() == (True, 0)

    run_program(main)
