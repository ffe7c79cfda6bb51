"""Thread fibers and every primitive: locks, queues, groups, timeouts, waiting, sockets, awaitables; cancellation.

Each scene is played by fibers of both kinds: whoever waits, and whoever ends the wait, is an ordinary fiber or one with
a kernel thread of its own.  Nothing is detached by accident here; what a detached fiber may do is in test_threads.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, in_fiber, settle
from thread_support import (
    MIX_NAMES,
    MIXES,
    Held,
    at_home,
    in_quiet_fiber,
    on_thread,
    outcome,
    run_detached,
    thread,
    until_blocked,
    until_detached,
)

import swapco
from swapco import socket as cooperative
from swapco.lowlevel import ParkingLot, wait_readable

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0

mixed = pytest.mark.parametrize("first, second", MIXES, ids=MIX_NAMES)


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
    swapco.wait([swapco.spawn(produces, thread=first)] + [swapco.spawn(consumes, thread=second) for _ in range(consumers)])
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


# -------------------------------------------------------------------------------------------- sockets


@mixed
@in_quiet_fiber
def test_sockets(first: bool, second: bool) -> None:
    data = bytes(range(256)) * 4000

    def sends(sock: Any) -> None:
        with sock:
            sock.sendall(data)

    def receives(sock: Any) -> bytes:
        got = bytearray()
        with sock:
            while chunk := sock.recv(65536):
                got += chunk
        return bytes(got)

    near, far = cooperative.socketpair()
    sender = swapco.spawn(sends, near, thread=first)
    assert swapco.spawn(receives, far, thread=second).join(SOON_S) == data
    sender.join()


@mixed
@in_quiet_fiber
def test_a_server_and_its_clients(first: bool, second: bool) -> None:
    server = cooperative.create_server(("127.0.0.1", 0))

    def serves() -> None:
        for _ in range(3):
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())

    def asks(n: int) -> bytes:
        with cooperative.create_connection(server.getsockname()) as sock:
            sock.sendall(b"question %d" % n)
            return bytes(sock.recv(100))

    with server:
        serving = swapco.spawn(serves, thread=first)
        assert sorted(swapco.gather(*[swapco.spawn(asks, n, thread=second) for n in range(3)])) == [
            b"QUESTION 0",
            b"QUESTION 1",
            b"QUESTION 2",
        ]
        serving.join()


@in_quiet_fiber
def test_socket_timeouts_and_closing() -> None:
    near, far = cooperative.socketpair()
    with near, far:
        far.settimeout(0.002)
        with pytest.raises(TimeoutError):
            on_thread(far.recv, 1)
        far.settimeout(None)
        reader = thread(lambda: outcome(lambda: far.recv(1)))
        until_blocked(reader)
        on_thread(far.close)
        assert reader.join() is OSError


@in_fiber
def test_a_socket_used_by_a_detached_one() -> None:
    near, far = cooperative.socketpair()
    with near, far:
        fiber = run_detached(lambda: (far.sendall(b"from far"), far.recv(10))[1])
        assert near.recv(10) == b"from far"
        near.sendall(b"to far")
        assert fiber.join(SOON_S) == b"to far"


# ------------------------------------------------------------------------------------------ awaitables


@in_quiet_fiber
def test_await_runs_a_coroutine_on_the_loops_thread() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def coroutine() -> tuple[Any, ...]:
        await asyncio.sleep(0)
        variable.set(variable.get() + 1)
        return at_home(), asyncio.get_running_loop() is loop, asyncio.current_task() is not None

    def body() -> tuple[Any, ...]:
        variable.set(1)
        got = swapco.await_(coroutine())
        return got, at_home(), variable.get()

    loop = asyncio.get_running_loop()
    # in the caller's context, as an ordinary fiber would drive it
    assert on_thread(body) == ((True, True, True), False, 2)


@in_quiet_fiber
def test_await_a_future_a_task_and_a_fiber() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    waiter = thread(swapco.await_, future)
    until_blocked(waiter)
    loop.call_soon(future.set_result, "set")
    assert waiter.join() == "set"
    assert on_thread(swapco.await_, future) == "set"
    task = loop.create_task(asyncio.sleep(0, "task"))
    assert on_thread(swapco.await_, task) == "task"
    assert on_thread(swapco.await_, swapco.spawn(lambda: "fiber")) == "fiber"
    assert on_thread(swapco.await_, thread(lambda: "thread fiber")) == "thread fiber"


@in_quiet_fiber
def test_await_raises_what_the_coroutine_raises() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        on_thread(swapco.await_, fails())
    with pytest.raises(TypeError, match="await_"):
        on_thread(swapco.await_, 3)


@in_quiet_fiber
def test_cancelling_forwards_to_what_is_awaited() -> None:
    ended: list[str] = []

    async def waits() -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError as error:
            ended.append(str(error))
            raise
        return "too far"

    async def stubborn() -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            ended.append("stubborn")
        return "goes on"

    fiber = thread(lambda: swapco.await_(waits()))
    until_blocked(fiber)
    settle()
    fiber.cancel("message")
    with pytest.raises(swapco.CancelledError, match="message"):
        fiber.join()
    fiber = thread(lambda: swapco.await_(stubborn()))
    until_blocked(fiber)
    settle()
    fiber.cancel()
    settle()
    # a coroutine that swallows it ends the await_; the request is still counted
    swapco.wait([fiber])
    assert ended == ["message", "stubborn"]
    assert fiber.cancelling() == 1


@in_quiet_fiber
def test_cancelling_a_future_that_is_awaited() -> None:
    future = asyncio.get_running_loop().create_future()
    fiber = thread(swapco.await_, future)
    until_blocked(fiber)
    settle()
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert future.cancelled()


@in_quiet_fiber
def test_coroutines_and_loop_callbacks_see_a_thread_fiber_end() -> None:
    async def coroutine() -> int:
        return int(await thread(lambda: 7)) + sum(await asyncio.gather(thread(lambda: 1), thread(lambda: 2)))

    assert swapco.await_(coroutine()) == 10
    called: list[Any] = []
    fiber = thread(int)
    fiber.add_done_callback(lambda done: called.append((done, at_home())))

    def adds() -> None:
        fiber.add_done_callback(lambda done: called.append((done, at_home())))

    on_thread(adds)
    settle()
    assert called == [(fiber, True)] * 2


# ----------------------------------------------------------------------------------------- cancellation


def in_queue_join() -> None:
    queue = swapco.Queue[int]()
    queue.put(1)
    queue.join()


def in_put() -> None:
    queue = swapco.Queue[int](1)
    queue.put(1)
    queue.put(2)


def in_condition() -> None:
    condition = swapco.Condition()
    with condition:
        try:
            condition.wait()
        finally:
            assert condition.locked()


def in_lock() -> None:
    lock = swapco.Lock()
    owner = swapco.spawn(lambda: (lock.acquire(), swapco.block(), lock.release()))
    try:
        swapco.sleep(0)
        lock.acquire()
    finally:
        swapco.resume(owner)


def in_join() -> None:
    target = swapco.spawn(swapco.block)
    try:
        target.join()
    finally:
        assert not target.done()
        swapco.resume(target)


def in_switch_to() -> None:
    target = swapco.spawn(swapco.block)
    swapco.sleep(0)
    swapco.switch_to(target)


def in_recv() -> None:
    near, far = cooperative.socketpair()
    with near, far:
        near.recv(1)


def in_accept() -> None:
    with cooperative.create_server(("127.0.0.1", 0)) as server:
        server.accept()


def in_wait_readable() -> None:
    near, far = cooperative.socketpair()
    with near, far:
        wait_readable(near.fileno())


def in_group() -> None:
    with swapco.TaskGroup() as group:
        group.spawn(swapco.sleep, LONG)
        group.spawn(swapco.sleep, LONG, thread=True)


def in_gather() -> None:
    swapco.gather(lambda: swapco.sleep(LONG), thread(swapco.sleep, LONG))


def in_await() -> None:
    swapco.await_(asyncio.sleep(LONG))


def in_from_thread() -> None:
    swapco.from_thread.run(swapco.sleep, LONG)


BLOCK_POINTS: dict[str, Callable[[], Any]] = {
    "block": swapco.block,
    "switch_to": in_switch_to,
    "sleep": lambda: swapco.sleep(LONG),
    "lock": in_lock,
    "semaphore": lambda: swapco.Semaphore(0).acquire(),
    "event": lambda: swapco.Event().wait(),
    "condition": in_condition,
    "barrier": lambda: swapco.Barrier(2).wait(),
    "get": lambda: swapco.Queue[int]().get(),
    "put": in_put,
    "queue join": in_queue_join,
    "join": in_join,
    "parking lot": lambda: ParkingLot().park(),
    "recv": in_recv,
    "accept": in_accept,
    "wait_readable": in_wait_readable,
    "group": in_group,
    "gather": in_gather,
    "await_": in_await,
    "from_thread": in_from_thread,
    "to_thread": lambda: swapco.to_thread(swapco.sleep, 0.05),
}


@pytest.mark.parametrize("where", BLOCK_POINTS)
@in_quiet_fiber
def test_cancellation_at_each_block_point(where: str) -> None:
    caught: list[Any] = []

    def body() -> str:
        try:
            BLOCK_POINTS[where]()
        except swapco.CancelledError as error:
            caught.append((threading.current_thread(), error.args))
        # it is over: the next wait goes on
        return swapco.sleep(0.001, "went on")

    fiber = thread(body)
    until_blocked(fiber)
    settle()
    assert fiber.state == "BLOCKED"
    assert fiber.cancel("why") is True
    assert fiber.join(SOON_S) == "went on"
    assert len(caught) == 1
    assert caught[0][0] is not threading.main_thread()
    if where != "gather":
        assert caught[0][1] == ("why",)
    # what was left running ends by itself, or is cancelled
    rest = swapco.all_fibers() - {swapco.current_fiber()}
    for other in rest:
        other.cancel()
    if rest:
        swapco.wait(rest)


@pytest.mark.parametrize("by_thread", [False, True], ids=["by ordinary", "by thread"])
@in_quiet_fiber
def test_cancelled_before_it_starts_it_never_runs(by_thread: bool) -> None:
    ran: list[int] = []
    main = swapco.current_fiber()
    fibers = [thread(ran.append, n) for n in range(3)]

    def cancels() -> None:
        assert fibers[1].cancel("early") is True
        swapco.resume(main)

    # it runs before those that are in the run queue
    swapco.switch_to(swapco.spawn(cancels, thread=by_thread))
    swapco.wait(fibers)
    assert ran == [0, 2]
    assert fibers[1].cancelled()
    with pytest.raises(swapco.CancelledError, match="early"):
        fibers[1].join()


@in_quiet_fiber
def test_cancelled_at_sleep_zero() -> None:
    ran: list[Any] = []

    def body() -> None:
        me = swapco.current_fiber()
        me.cancel()
        ran.append(me.state)
        with pytest.raises(swapco.CancelledError):
            swapco.sleep(0)
        me.cancel()
        me.uncancel()
        me.uncancel()
        swapco.sleep(0)
        ran.append(me.cancelling())

    on_thread(body)
    assert ran == ["RUNNING", 0]


@pytest.mark.parametrize("where", ["block", "sleep", "event", "get", "join", "recv", "await_", "from_thread"])
@in_fiber
def test_cancelled_while_detached_it_is_raised_at_the_next_block(where: str) -> None:
    went: list[str] = []
    target: list[Any] = []

    def body() -> None:
        went.append(swapco.current_fiber().state)
        # releasing is no cancellation point
        swapco.Semaphore(0).release()
        swapco.Queue[int]().put_nowait(1)
        with swapco.Lock():
            went.append("locked")
        BLOCK_POINTS[where]()
        went.append("too far")

    def meanwhile() -> None:
        (fiber,) = (f for f in swapco.all_fibers() if f.state == "DETACHED")
        target.append(fiber)
        assert fiber.cancel("why") is True
        assert fiber.state == "DETACHED"

    fiber = run_detached(body, meanwhile)
    assert target == [fiber]
    with pytest.raises(swapco.CancelledError, match="why"):
        fiber.join(SOON_S)
    assert "too far" not in went
    rest = swapco.all_fibers() - {swapco.current_fiber()}
    for other in rest:
        other.cancel()
    if rest:
        swapco.wait(rest)


@in_fiber
def test_cancelled_while_detached_it_may_end_first() -> None:
    fiber = run_detached(lambda: "ended", lambda: [f.cancel() for f in swapco.all_fibers() if f.state == "DETACHED"])
    assert fiber.join(SOON_S) == "ended"
    assert not fiber.cancelled()


@in_quiet_fiber
def test_a_wake_up_that_has_won_stands_against_a_cancellation() -> None:
    queue = swapco.Queue[str]()
    got: list[Any] = []

    def body() -> None:
        got.append(queue.get())
        swapco.sleep(0)

    fiber = thread(body)
    until_blocked(fiber)
    queue.put_nowait("item")
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert got == ["item"]


@mixed
@in_quiet_fiber
def test_cancelling_a_joiner_leaves_its_target(first: bool, second: bool) -> None:
    target = swapco.spawn(swapco.block, thread=first)
    joiner = swapco.spawn(target.join, thread=second)
    until_blocked(target, joiner)
    thread(joiner.cancel).join()
    with pytest.raises(swapco.CancelledError):
        joiner.join()
    assert target.state == "BLOCKED"
    swapco.resume(target, 1)
    assert target.join() == 1
