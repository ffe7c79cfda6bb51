"""Thread fibers and every primitive: locks, queues, groups, timeouts, waiting, the verbs.

Each scene is played by fibers of both kinds: whoever waits, and whoever ends the wait, is an ordinary fiber or one with
a kernel thread of its own.  Nothing is detached by accident here; what a detached fiber may do is in test_detached.py.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from helpers import in_fiber, settle
from thread_support import (
    MIX_NAMES,
    MIXES,
    Held,
    at_home,
    in_quiet_fiber,
    on_thread,
    outcome,
    thread,
    until_blocked,
    until_detached,
)

import swapco
from swapco.lowlevel import ParkingLot

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0

mixed = pytest.mark.parametrize(("first", "second"), MIXES, ids=MIX_NAMES)


# ----------------------------------------------------------------------------------------------- locks


@pytest.mark.parametrize("kind", [swapco.Lock, swapco.RLock, swapco.Semaphore, swapco.BoundedSemaphore])
@mixed
@in_quiet_fiber
def test_mutual_exclusion(first: bool, second: bool, kind: Any) -> None:
    lock = kind()
    inside = 0
    entered: list[int] = []

    def body(n: int) -> None:
        nonlocal inside
        for _ in range(10):
            with lock:
                inside += 1
                assert inside == 1
                entered.append(n)
                swapco.sleep(0)
                inside -= 1

    swapco.wait([swapco.spawn(body, n, thread=(first, second)[n % 2]) for n in range(4)])
    # first come, first served
    assert entered == [0, 1, 2, 3] * 10


@mixed
@in_quiet_fiber
def test_a_lock_knows_its_owner(first: bool, second: bool) -> None:
    lock, rlock = swapco.Lock(), swapco.RLock()

    def holds() -> None:
        with lock, rlock, rlock:
            assert lock.owner is rlock.owner is swapco.current_fiber()
            swapco.block()

    def tries() -> list[Any]:
        return [
            outcome(lambda: lock.acquire(timeout=0.001)),
            outcome(lambda: rlock.acquire(timeout=0)),
            outcome(rlock.release),
        ]

    holder = swapco.spawn(holds, thread=first)
    until_blocked(holder)
    assert swapco.spawn(tries, thread=second).join() == [TimeoutError, TimeoutError, RuntimeError]
    assert lock.owner is holder
    swapco.resume(holder)
    holder.join()
    assert not lock.locked()
    assert not rlock.locked()


@mixed
@in_quiet_fiber
def test_event_wakes_everybody_in_order(first: bool, second: bool) -> None:
    event = swapco.Event()
    ran: list[int] = []

    def waits(n: int) -> None:
        assert event.wait()
        ran.append(n)

    fibers = [swapco.spawn(waits, n, thread=(first, second)[n % 2]) for n in range(6)]
    until_blocked(*fibers)
    swapco.spawn(event.set, thread=second).join()
    swapco.wait(fibers)
    assert ran == list(range(6))


@mixed
@in_quiet_fiber
def test_condition_hands_over(first: bool, second: bool) -> None:
    condition = swapco.Condition()
    items: list[int] = []
    got: list[int] = []

    def takes() -> None:
        for _ in range(10):
            with condition:
                while not items:
                    condition.wait()
                got.append(items.pop(0))

    def gives() -> None:
        for n in range(10):
            with condition:
                items.append(n)
                condition.notify()
            swapco.sleep(0)

    swapco.wait([swapco.spawn(takes, thread=first), swapco.spawn(gives, thread=second)])
    assert got == list(range(10))


@in_fiber
def test_condition_wait_for_with_a_predicate_that_blocks_in_the_kernel() -> None:
    """The predicate runs with the condition's lock held, detached or not."""
    condition = swapco.Condition()
    asked: list[str] = []
    held = Held()
    ready = False

    def predicate() -> bool:
        assert condition.locked()
        held()
        asked.append(swapco.current_fiber().state)
        return ready

    def waits() -> bool:
        with condition:
            return condition.wait_for(predicate)

    fiber = thread(waits)
    until_detached(fiber)
    # it has the lock while it is in the kernel
    with pytest.raises(TimeoutError):
        condition.acquire(timeout=0.001)
    held.let_go()
    until_blocked(fiber)
    with condition:
        ready = True
        condition.notify()
    assert fiber.join() is True
    assert asked[0] == "DETACHED"
    assert len(asked) == 2


@in_quiet_fiber
def test_condition_wait_for_with_a_predicate_that_blocks_in_a_primitive() -> None:
    condition, queue = swapco.Condition(), swapco.Queue[bool]()

    def waits() -> bool:
        with condition:
            return condition.wait_for(queue.get)

    fiber = thread(waits)
    for answer in (False, False, True):
        until_blocked(fiber)
        queue.put(answer)
        settle()
        if not answer:
            with condition:
                condition.notify_all()
    assert fiber.join() is True


@mixed
@in_quiet_fiber
def test_semaphore_permits(first: bool, second: bool) -> None:
    semaphore = swapco.Semaphore(2)
    inside: set[int] = set()
    most = 0

    def body(n: int) -> None:
        nonlocal most
        with semaphore:
            inside.add(n)
            most = max(most, len(inside))
            swapco.sleep(0)
            inside.remove(n)

    swapco.wait([swapco.spawn(body, n, thread=(first, second)[n % 2]) for n in range(10)])
    assert most == 2
    assert not semaphore.locked()


@mixed
@in_quiet_fiber
def test_barrier(first: bool, second: bool) -> None:
    barrier = swapco.Barrier(4)
    passed: list[int] = []

    def body(n: int) -> int:
        index = 0
        for number in range(3):
            index += barrier.wait()
            passed.append(number)
            barrier.wait()
        return index

    fibers = [swapco.spawn(body, n, thread=(first, second)[n % 2]) for n in range(4)]
    assert sum(fiber.join() for fiber in fibers) == 3 * (0 + 1 + 2 + 3)
    assert passed == [0] * 4 + [1] * 4 + [2] * 4


@in_quiet_fiber
def test_broken_barrier() -> None:
    barrier = swapco.Barrier(2)
    waiter = thread(lambda: outcome(barrier.wait))
    until_blocked(waiter)
    on_thread(barrier.abort)
    assert waiter.join() is swapco.BrokenBarrierError
    assert barrier.broken


# ---------------------------------------------------------------------------------------------- queues


@pytest.mark.parametrize("kind", [swapco.Queue, swapco.LifoQueue, swapco.PriorityQueue])
@mixed
@in_quiet_fiber
def test_queues(first: bool, second: bool, kind: Any) -> None:
    queue = kind(3)
    got: list[int] = []

    def produces() -> None:
        for n in range(20):
            queue.put(n)
        queue.join()
        queue.shutdown()

    def consumes() -> None:
        while True:
            try:
                got.append(queue.get())
            except swapco.QueueShutDown:
                return
            queue.task_done()

    # two of them may note what they got in another order
    consumers = 1 if kind is swapco.Queue else 2
    fibers = [swapco.spawn(consumes, thread=second) for _ in range(consumers)]
    swapco.wait([swapco.spawn(produces, thread=first), *fibers])
    assert (got if kind is swapco.Queue else sorted(got)) == list(range(20))


@mixed
@in_quiet_fiber
def test_queue_timeouts(first: bool, second: bool) -> None:
    queue = swapco.Queue[int](1)

    def body() -> list[Any]:
        return [
            outcome(lambda: queue.get(timeout=0.001)),
            outcome(lambda: queue.put(1)),
            outcome(lambda: queue.put(2, timeout=0.001)),
            outcome(lambda: queue.put_nowait(2)),
            outcome(lambda: queue.join(timeout=0)),
            outcome(queue.get_nowait),
            outcome(queue.get_nowait),
            outcome(queue.task_done),
        ]

    for kind in (first, second):
        assert swapco.spawn(body, thread=kind).join() == [
            TimeoutError,
            None,
            TimeoutError,
            swapco.QueueFull,
            TimeoutError,
            1,
            swapco.QueueEmpty,
            None,
        ]


# ----------------------------------------------------------------------------- groups, timeouts, waiting


@mixed
@in_quiet_fiber
def test_task_group(first: bool, second: bool) -> None:
    def opens() -> tuple[list[bool], list[int]]:
        ran: list[int] = []
        with swapco.TaskGroup() as group:
            fibers = [group.spawn(at_home, thread=second) for _ in range(3)]
            group.spawn(ran.append, 1)
            swapco.sleep(0)
            group.spawn(ran.append, 2, thread=second)
        return [fiber.result() for fiber in fibers], ran

    assert swapco.spawn(opens, thread=first).join() == ([not second] * 3, [1, 2])


@mixed
@in_quiet_fiber
def test_a_failing_member_cancels_the_group(first: bool, second: bool) -> None:
    ended: list[str] = []

    def waits() -> None:
        try:
            swapco.sleep(LONG)
        finally:
            ended.append("waiter")

    def fails() -> None:
        swapco.sleep(0)
        raise LookupError("member")

    def opens() -> None:
        with swapco.TaskGroup() as group:
            group.spawn(waits, thread=first)
            group.spawn(fails, thread=second)
            try:
                swapco.sleep(LONG)
            finally:
                ended.append("body")

    with pytest.raises(ExceptionGroup) as info:
        swapco.spawn(opens, thread=first).join()
    (error,) = info.value.exceptions
    assert isinstance(error, LookupError)
    assert sorted(ended) == ["body", "waiter"]


@in_quiet_fiber
def test_timeout_in_a_thread_fiber() -> None:
    def body() -> list[Any]:
        got: list[Any] = []
        for wait in (swapco.block, lambda: swapco.sleep(LONG), swapco.Event().wait):
            with pytest.raises(TimeoutError):
                with swapco.timeout(0.002) as scope:
                    wait()
            got.append(scope.expired())
        with swapco.timeout(LONG) as scope:
            swapco.sleep(0)
        got.append(scope.expired())
        got.append(swapco.current_fiber().cancelling())
        return got

    assert on_thread(body) == [True, True, True, False, 0]


@in_fiber
def test_a_timeout_that_is_over_while_it_blocks_in_the_kernel_is_raised_at_its_next_block() -> None:
    held, went_on = Held(), []

    def body() -> None:
        with swapco.timeout(0.005) as scope:
            held()
            went_on.append(scope.expired())
            swapco.sleep(0)
            went_on.append("too far")

    fiber = thread(body)
    until_detached(fiber)
    swapco.sleep(0.01)
    held.let_go()
    with pytest.raises(TimeoutError):
        fiber.join()
    assert went_on == [True]


@mixed
@in_quiet_fiber
def test_gather_wait_and_as_completed(first: bool, second: bool) -> None:
    def twice(n: int) -> int:
        swapco.sleep(0)
        return 2 * n

    async def thrice(n: int) -> int:
        await asyncio.sleep(0)
        return 3 * n

    def body() -> None:
        fibers = [swapco.spawn(twice, n, thread=second) for n in range(4)]
        assert swapco.gather(*fibers) == [0, 2, 4, 6]
        assert swapco.gather(lambda: 1, thrice(2), swapco.spawn(twice, 3, thread=second)) == [1, 6, 6]
        fibers = [swapco.spawn(twice, n, thread=second) for n in range(4)]
        done, pending = swapco.wait(fibers)
        assert (done, pending) == (set(fibers), set())
        never = swapco.spawn(swapco.block, thread=second)
        quick = swapco.spawn(twice, 1, thread=second)
        done, pending = swapco.wait([never, quick], return_when=swapco.FIRST_COMPLETED)
        assert (done, pending) == ({quick}, {never})
        swapco.resume(never)
        fibers = [swapco.spawn(twice, n, thread=second) for n in range(4)]
        assert sorted(fiber.result() for fiber in swapco.as_completed(fibers)) == [0, 2, 4, 6]
        never.join()

    swapco.spawn(body, thread=first).join()


@mixed
@in_quiet_fiber
def test_gather_raises_the_first_exception(first: bool, second: bool) -> None:
    def fails() -> None:
        raise LookupError

    def body() -> Any:
        fibers = [swapco.spawn(fails, thread=second), swapco.spawn(int, thread=second)]
        assert isinstance(swapco.gather(*fibers, return_exceptions=True)[0], LookupError)
        return outcome(lambda: swapco.gather(swapco.spawn(fails, thread=second)))

    assert swapco.spawn(body, thread=first).join() is LookupError


@mixed
@in_quiet_fiber
def test_wait_for_and_shield(first: bool, second: bool) -> None:
    def body() -> None:
        assert swapco.wait_for(swapco.spawn(int, thread=second), LONG) == 0
        never = swapco.spawn(swapco.block, thread=second)
        with pytest.raises(TimeoutError):
            swapco.wait_for(never, 0.002)
        assert never.cancelled()
        kept = swapco.spawn(swapco.block, thread=second)
        with pytest.raises(TimeoutError):
            swapco.wait_for(lambda: swapco.shield(kept), 0.002)
        assert not kept.done()
        swapco.resume(kept, "kept")
        assert kept.join() == "kept"

    swapco.spawn(body, thread=first).join()


@mixed
@in_quiet_fiber
def test_join_with_timeouts_and_many_joiners(first: bool, second: bool) -> None:
    target = swapco.spawn(swapco.block, thread=first)
    joiners = [swapco.spawn(target.join, thread=second) for _ in range(4)]
    impatient = swapco.spawn(target.join, 0.001, thread=second)
    with pytest.raises(TimeoutError):
        impatient.join()
    until_blocked(*joiners)
    swapco.resume(target, "result")
    assert [joiner.join() for joiner in joiners] == ["result"] * 4


@in_quiet_fiber
def test_a_thread_fiber_cannot_join_itself() -> None:
    with pytest.raises(RuntimeError, match="cannot join itself"):
        on_thread(lambda: swapco.current_fiber().join())


@in_quiet_fiber
def test_sleep_and_its_result() -> None:
    begin = time.monotonic()
    assert on_thread(swapco.sleep, 0.01, "slept") == "slept"
    assert time.monotonic() - begin >= 0.01
    assert on_thread(swapco.sleep, -1, "at once") == "at once"
    with pytest.raises(ValueError):
        on_thread(swapco.sleep, float("nan"))


@mixed
@in_quiet_fiber
def test_parking_lot(first: bool, second: bool) -> None:
    lot = ParkingLot()
    fibers = [swapco.spawn(lot.park, thread=(first, second)[n % 2]) for n in range(4)]
    until_blocked(*fibers)
    for n in range(4):
        assert swapco.spawn(lot.unpark, n, thread=first).join() is True
    assert [fiber.join() for fiber in fibers] == [0, 1, 2, 3]


@mixed
@in_quiet_fiber
def test_the_verbs(first: bool, second: bool) -> None:
    def echo() -> None:
        partner, value = swapco.block()
        while value is not None:
            partner, value = swapco.switch_to(partner, value + 1)

    def counts() -> int:
        me = swapco.current_fiber()
        n = 0
        for _ in range(200):
            n = swapco.switch_to(other, (me, n))
        swapco.resume(other, (me, None))
        return n

    other = swapco.spawn(echo, thread=first)
    until_blocked(other)
    assert swapco.spawn(counts, thread=second).join() == 200
    other.join()
