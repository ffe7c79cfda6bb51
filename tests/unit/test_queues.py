"""Queues: what each does alone, and laws under random programs.

The laws (no item is lost or doubled, items keep their order, an item of a putter that gave up never arrives)
are checked on programs that hypothesis writes: producers and consumers with and without timeouts, and a main
fiber that cancels them, moves the clock and shuts the queue down.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import heapq
import math
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import swapco
from swapco._core.clock import ManualClock
from swapco.queues import LifoQueue, PriorityQueue, Queue, QueueEmpty, QueueFull, QueueShutDown

pytestmark = pytest.mark.usefixtures("fibers")

KINDS = [Queue, LifoQueue, PriorityQueue]
kinds = pytest.mark.parametrize("kind", KINDS)


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


def switches() -> int:
    return int(swapco.current_fiber().scheduler.switches)


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


# -- without waiting -----------------------------------------------------------------------------------------


@kinds
@in_fiber
def test_put_and_get_without_waiting(kind: Any) -> None:
    queue = kind(2)
    assert (queue.maxsize, queue.qsize(), queue.empty(), queue.full()) == (2, 0, True, False)
    before = switches()
    with pytest.raises(QueueEmpty):
        queue.get_nowait()
    queue.put(1)
    queue.put_nowait(2)
    assert (queue.qsize(), queue.empty(), queue.full()) == (2, False, True)
    with pytest.raises(QueueFull):
        queue.put_nowait(3)
    assert {queue.get(), queue.get_nowait()} == {1, 2}
    assert switches() == before


@pytest.mark.parametrize(
    ("maxsize", "room"),
    [(0, None), (-1, None), (1, 1), (3, 3), (1.5, 2), (math.inf, None), (2**70, None), (True, 1)],
)
def test_maxsize(maxsize: Any, room: int | None) -> None:
    queue: Queue[int] = Queue(maxsize)
    assert queue.maxsize == maxsize
    for i in range(20 if room is None else room):
        assert not queue.full()
        queue.put_nowait(i)
    assert queue.full() == (room is not None)


def test_maxsize_must_be_a_number() -> None:
    with pytest.raises(TypeError):
        Queue("2")  # type: ignore[arg-type]


def test_the_ring_grows_wraps_and_shrinks() -> None:
    queue: Queue[int] = Queue()
    model: deque[int] = deque()
    numbers = random.Random(1)
    for i in range(20_000):
        # long ascents and descents, so that it wraps at many sizes
        if numbers.random() < (0.7 if (i // 700) % 2 == 0 else 0.3) or not model:
            queue.put_nowait(i)
            model.append(i)
        else:
            assert queue.get_nowait() == model.popleft()
        assert queue.qsize() == len(model)
    while model:
        assert queue.get_nowait() == model.popleft()
    assert queue.empty()


def test_lifo_order() -> None:
    queue: LifoQueue[int] = LifoQueue()
    for i in range(5):
        queue.put_nowait(i)
    assert [queue.get_nowait() for _ in range(5)] == [4, 3, 2, 1, 0]


class Ranked:
    """Compared by rank only: which of two equal ones comes first shows the algorithm."""

    def __init__(self, rank: int, tag: int) -> None:
        self.rank, self.tag = rank, tag

    def __lt__(self, other: Ranked) -> bool:
        return self.rank < other.rank


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=80))
def test_priority_queue_is_heapq_to_the_last_comparison(ops: list[int | None]) -> None:
    queue: PriorityQueue[Ranked] = PriorityQueue()
    heap: list[Ranked] = []
    for tag, op in enumerate(ops):
        if op is not None:
            item = Ranked(op, tag)
            queue.put_nowait(item)
            heapq.heappush(heap, item)
        elif heap:
            assert queue.get_nowait() is heapq.heappop(heap)
    while heap:
        assert queue.get_nowait() is heapq.heappop(heap)
    assert queue.empty()


# -- waiting -------------------------------------------------------------------------------------------------


@kinds
@in_fiber
def test_an_item_goes_straight_to_the_first_getter(kind: Any) -> None:
    queue = kind(1)
    getters = [swapco.spawn(queue.get) for _ in range(3)]
    settle()
    assert queue.statistics() == (0, 1, 0, 3, 0, 0, False)
    for item in range(3):
        queue.put(item)  # room for one, but each goes to a getter
        assert queue.empty()
    assert [getter.join() for getter in getters] == [0, 1, 2]


@kinds
@in_fiber
def test_a_newcomer_does_not_take_the_item_of_a_waiting_getter(kind: Any) -> None:
    queue = kind()
    getter = swapco.spawn(queue.get)
    settle()
    queue.put(1)
    with pytest.raises(QueueEmpty):
        queue.get_nowait()
    assert getter.join() == 1


@in_fiber
def test_putters_wait_in_line_and_items_keep_their_order() -> None:
    queue: Queue[int] = Queue(2)
    fibers = [swapco.spawn(queue.put, i) for i in range(6)]
    settle()
    assert queue.statistics() == (2, 2, 2, 0, 4, 0, False)
    assert queue.get() == 0
    assert queue.qsize() == 2, "the first putter's item took the room at once"
    with pytest.raises(QueueFull):
        queue.put_nowait(99)
    assert [queue.get() for _ in range(5)] == [1, 2, 3, 4, 5]
    for fiber in fibers:
        assert fiber.join() is None


@in_fiber
def test_a_putter_in_the_middle_gives_up() -> None:
    queue: Queue[int] = Queue(1)
    queue.put(0)
    fibers = [swapco.spawn(queue.put, i) for i in range(1, 5)]
    late = swapco.spawn(lambda: queue.put(9, timeout=0.001))
    settle()
    fibers[1].cancel("away")
    swapco.sleep(0.005)
    with pytest.raises(swapco.CancelledError, match="away"):
        fibers[1].join()
    with pytest.raises(TimeoutError, match="room in <Queue"):
        late.join()
    assert [queue.get() for _ in range(4)] == [0, 1, 3, 4]
    assert queue.empty()
    assert queue.statistics().unfinished == 4


@kinds
@in_fiber
def test_timeouts(kind: Any) -> None:
    queue = kind(1)
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(TimeoutError, match=f"an item from <{kind.__name__}"):
        queue.get(timeout=0.01)
    assert loop.time() - start >= 0.01
    queue.put(1)
    start = loop.time()
    with pytest.raises(TimeoutError, match=f"room in <{kind.__name__}"):
        queue.put(2, timeout=0.01)
    with pytest.raises(TimeoutError, match="all items of"):
        queue.join(timeout=0.01)
    assert loop.time() - start >= 0.02
    before = switches()
    for timeout in (0, -1):
        with pytest.raises(TimeoutError):
            queue.put(2, timeout=timeout)
        with pytest.raises(TimeoutError):
            queue.join(timeout=timeout)
    assert queue.get(timeout=0) == 1
    with pytest.raises(TimeoutError):
        queue.get(timeout=0)
    queue.put(3, timeout=0)
    assert switches() == before
    for call in (functools.partial(queue.put, 4), queue.get, queue.join):
        with pytest.raises(ValueError):
            call(timeout=math.nan)
    assert queue.statistics() == (1, 1, 2, 0, 0, 0, False)


@in_fiber
def test_a_putter_that_gave_up_does_not_keep_its_item() -> None:
    queue: Queue[Any] = Queue(1)
    queue.put(0)

    class Item:
        pass

    item = Item()
    reference = weakref.ref(item)
    with pytest.raises(TimeoutError):
        queue.put(item, timeout=0.001)
    del item
    gc.collect()
    assert reference() is None


@in_fiber
def test_a_cancelled_getter_does_not_swallow_an_item() -> None:
    queue: Queue[int] = Queue()
    first, second = swapco.spawn(queue.get), swapco.spawn(queue.get)
    settle()
    first.cancel()
    queue.put(1)
    with pytest.raises(swapco.CancelledError):
        first.join()
    assert second.join() == 1
    third = swapco.spawn(queue.get)
    settle()
    queue.put(2)
    third.cancel()  # the item was handed over: that stands
    assert third.join() == 2
    assert queue.empty()


@in_fiber
def test_a_putter_whose_item_was_taken_is_cancelled_later() -> None:
    queue: Queue[int] = Queue(1)
    queue.put(0)
    log: list[str] = []

    def put() -> None:
        queue.put(1)
        log.append("put")
        swapco.sleep(0)
        log.append("unreachable")

    fiber = swapco.spawn(put)
    settle()
    assert queue.get() == 0
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert log == ["put"]
    assert queue.get() == 1


@in_fiber
def test_a_pending_cancellation_is_raised_only_where_it_would_wait() -> None:
    queue: Queue[int] = Queue(1)
    log: list[Any] = []

    def body(block: Callable[[], Any]) -> None:
        swapco.current_fiber().cancel()
        queue.put(1)
        log.append(queue.get())
        queue.task_done()
        queue.join()
        if block == queue.put:
            queue.put(5)
        try:
            block(7) if block == queue.put else block()
        finally:
            log.append("raised")

    for block in (queue.get, queue.put):
        with pytest.raises(swapco.CancelledError):
            swapco.spawn(body, block).join()
    assert log == [1, "raised"] * 2
    assert queue.qsize() == 1
    assert queue.statistics().putting == 0


def test_outside_a_fiber() -> None:
    queue: Queue[int] = Queue()
    for call in (functools.partial(queue.put, 1), queue.get, queue.join):
        with pytest.raises(swapco.NotInFiber, match=r"swapco\.run"):
            call()
    queue.put_nowait(1)
    assert queue.get_nowait() == 1
    queue.task_done()

    def main() -> None:
        caught: list[str] = []

        def callback() -> None:
            for call in (functools.partial(queue.put, 1), queue.get, queue.join):
                try:
                    call()
                except swapco.NotInFiber as error:
                    caught.append(str(error))

        asyncio.get_running_loop().call_soon(callback)
        settle()
        assert len(caught) == 3
        assert "swapco.spawn" in caught[0]

    swapco.run(main)


@in_fiber
def test_the_nowait_operations_work_in_the_hub() -> None:
    queue: Queue[int] = Queue(1)
    loop = asyncio.get_running_loop()
    getter = swapco.spawn(queue.get)
    settle()
    loop.call_soon(queue.put_nowait, 1)
    assert getter.join() == 1
    queue.put(2)
    putter = swapco.spawn(queue.put, 3)
    joiner = swapco.spawn(queue.join)
    settle()
    got: list[int] = []
    loop.call_soon(lambda: got.append(queue.get_nowait()))
    putter.join()
    assert got == [2]
    for _ in range(3):
        loop.call_soon(queue.task_done)
    joiner.join()
    getter = swapco.spawn(queue.get)
    settle()
    loop.call_soon(queue.shutdown)
    assert getter.join() == 3
    with pytest.raises(QueueShutDown):
        queue.get()


@in_fiber
def test_waking_from_another_thread_is_an_error_that_changes_nothing() -> None:
    queue: Queue[int] = Queue(1)
    getter = swapco.spawn(queue.get)
    joiner: Any = None
    settle()

    def refused(call: Callable[[], Any]) -> None:
        before = queue.statistics()
        error = in_thread(call)
        assert isinstance(error, RuntimeError), error
        assert "call_soon_threadsafe" in str(error)
        assert queue.statistics() == before

    refused(lambda: queue.put_nowait(1))
    refused(queue.shutdown)
    queue.put(1)
    assert getter.join() == 1
    joiner = swapco.spawn(queue.join)
    settle()
    refused(queue.task_done)
    refused(lambda: queue.shutdown(immediate=True))
    queue.put(2)
    putter = swapco.spawn(queue.put, 3)
    settle()
    refused(queue.get_nowait)
    error = in_thread(lambda: swapco.run(queue.put, 4))
    assert isinstance(error, RuntimeError)
    assert "another event loop" in str(error)
    assert (queue.get(), queue.get()) == (2, 3)
    putter.join()
    for _ in range(3):
        queue.task_done()
    joiner.join()


# -- task_done and join --------------------------------------------------------------------------------------


@in_fiber
def test_join_waits_for_the_last_task_done() -> None:
    queue: Queue[int] = Queue()
    queue.join()
    for i in range(3):
        queue.put(i)
    joiners = [swapco.spawn(queue.join) for _ in range(2)]
    for _ in range(3):
        settle()
        assert not any(joiner.done() for joiner in joiners)
        queue.get()
        queue.task_done()
    for joiner in joiners:
        joiner.join()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


@in_fiber
def test_items_handed_over_count_as_unfinished() -> None:
    queue: Queue[int] = Queue(1)
    getter = swapco.spawn(queue.get)
    settle()
    queue.put(1)
    getter.join()
    assert queue.statistics().unfinished == 1
    joiner = swapco.spawn(queue.join)
    settle()
    joiner.cancel()
    with pytest.raises(swapco.CancelledError):
        joiner.join()
    queue.task_done()
    queue.join()


# -- shutdown ------------------------------------------------------------------------------------------------


@kinds
@in_fiber
def test_shutdown_lets_the_queue_run_empty(kind: Any) -> None:
    queue = kind(2)
    queue.put(1)
    queue.put(2)
    putter = swapco.spawn(queue.put, 3)
    settle()
    queue.shutdown()
    with pytest.raises(QueueShutDown):
        putter.join()
    for call in (lambda: queue.put(4), lambda: queue.put_nowait(4)):
        with pytest.raises(QueueShutDown):
            call()
    assert {queue.get(), queue.get_nowait()} == {1, 2}
    for call in (queue.get, queue.get_nowait):
        with pytest.raises(QueueShutDown):
            call()
    joiner = swapco.spawn(queue.join)
    settle()
    assert not joiner.done()
    queue.task_done()
    queue.task_done()
    joiner.join()
    queue.shutdown()
    assert queue.statistics() == (0, 2, 0, 0, 0, 0, True)


@kinds
@in_fiber
def test_shutdown_immediately(kind: Any) -> None:
    queue = kind()
    for i in range(5):
        queue.put(i)
    joiner = swapco.spawn(queue.join)
    queue.get()
    settle()
    queue.shutdown(immediate=True)
    assert queue.empty()
    settle()
    assert not joiner.done(), "the one that was gotten is not done"
    queue.task_done()
    joiner.join()
    with pytest.raises(QueueShutDown):
        queue.get()
    getters = [swapco.spawn(kind().get) for _ in range(2)]
    settle()
    for getter in getters:
        getter.cancel()


@in_fiber
def test_shutdown_wakes_getters() -> None:
    queue: Queue[int] = Queue()
    getters = [swapco.spawn(queue.get) for _ in range(3)]
    settle()
    queue.shutdown()
    for getter in getters:
        with pytest.raises(QueueShutDown):
            getter.join()


def test_the_exceptions_are_asyncios() -> None:
    assert QueueEmpty is asyncio.QueueEmpty
    assert QueueFull is asyncio.QueueFull
    if hasattr(asyncio, "QueueShutDown"):
        assert QueueShutDown is asyncio.QueueShutDown


# -- comparisons ---------------------------------------------------------------------------------------------


@in_fiber
def test_an_item_that_cannot_be_compared_stays_out() -> None:
    queue: PriorityQueue[Any] = PriorityQueue()
    for item in (3, 1, 2):
        queue.put(item)
    with pytest.raises(TypeError):
        queue.put("a")
    with pytest.raises(TypeError):
        queue.put_nowait(None)
    assert queue.statistics().unfinished == 3
    assert [queue.get() for _ in range(3)] == [1, 2, 3]
    assert queue.empty()


@in_fiber
def test_a_parked_putter_gets_the_error_of_its_comparison() -> None:
    queue: PriorityQueue[Any] = PriorityQueue(2)
    queue.put(1)
    queue.put(5)
    bad, good = swapco.spawn(queue.put, "a"), swapco.spawn(queue.put, 3)
    settle()
    assert queue.get() == 1
    assert queue.qsize() == 2, "the next one in line took the room"
    with pytest.raises(TypeError):
        bad.join()
    good.join()
    assert (queue.get(), queue.get()) == (3, 5)
    assert queue.statistics().unfinished == 4 - 1


class Explosive:
    """Raises, or does something to the queue, at a chosen comparison."""

    def __init__(self, rank: int, at: list[Callable[[], Any] | None]) -> None:
        self.rank, self.at = rank, at

    def __lt__(self, other: Explosive) -> bool:
        action = self.at.pop() if self.at else None
        if action is not None:
            action()
        return self.rank < other.rank


@given(
    ranks=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    bomb=st.integers(0, 12),
    get=st.booleans(),
    meddle=st.sampled_from(["raise", "put", "get", "shutdown"]),
)
def test_a_comparison_that_raises_or_uses_the_queue_changes_nothing(
    ranks: list[int], bomb: int, get: bool, meddle: str
) -> None:
    at: list[Callable[[], Any] | None] = []
    queue: PriorityQueue[Explosive] = PriorityQueue()
    for rank in ranks:
        queue.put_nowait(Explosive(rank, at))

    def explode() -> None:
        if meddle == "raise":
            raise ZeroDivisionError
        if meddle == "put":
            queue.put_nowait(Explosive(100, []))
        elif meddle == "get":
            queue.get_nowait()
        else:
            queue.shutdown(immediate=True)

    at.extend([None] * bomb)
    at.insert(0, explode)
    expected: Any = {"raise": ZeroDivisionError}.get(meddle, RuntimeError)
    size = queue.qsize()
    change = {"raise": 0, "put": 1, "get": -1}
    try:
        if get:
            queue.get_nowait()
        else:
            queue.put_nowait(Explosive(4, at))
    except expected:
        if meddle == "shutdown":
            assert queue.empty()
            return
        assert queue.qsize() == size + change[meddle]
    at.clear()
    left = [queue.get_nowait().rank for _ in range(queue.qsize())]
    assert left == sorted(left)


@in_fiber
def test_an_item_may_be_released_in_the_middle_of_everything() -> None:
    """A finalizer is user code: it sees a queue that works."""
    queue: Queue[Any] = Queue()
    seen: list[Any] = []

    class Item:
        def __del__(self) -> None:
            seen.append(queue.qsize())
            if not queue.statistics().is_shutdown:
                queue.put_nowait("from a finalizer")

    queue.put(Item())
    queue.get()
    assert queue.get() == "from a finalizer"
    for _ in range(3):
        queue.put(Item())
    queue.shutdown(immediate=True)
    assert seen == [0, 0, 0, 0]


# -- subclasses ----------------------------------------------------------------------------------------------


@in_fiber
def test_a_subclass_that_overrides_the_storage_as_in_asyncio() -> None:
    class UniqueQueue(Queue[int]):
        def _init(self, maxsize: int) -> None:
            self._queue: set[int] = set()

        def _put(self, item: int) -> None:
            self._queue.add(item)

        def _get(self) -> int:
            return self._queue.pop()

    queue = UniqueQueue(2)
    for item in (1, 1, 2):
        queue.put(item)
    assert queue.full()
    putter = swapco.spawn(queue.put, 3)
    settle()
    assert queue.statistics().putting == 1
    got = {queue.get(), queue.get(), queue.get()}
    assert got == {1, 2, 3}
    putter.join()
    getter = swapco.spawn(queue.get)
    settle()
    queue.put(7)
    assert getter.join() == 7
    queue.put(8)
    queue.shutdown(immediate=True)
    assert queue.empty()


@kinds
@in_fiber
def test_a_subclass_that_overrides_only_put(kind: Any) -> None:
    class Doubling(kind):  # type: ignore[misc]
        def _put(self, item: int) -> None:
            super()._put(item * 2)

    queue = Doubling()
    getter = swapco.spawn(queue.get)
    settle()
    for i in (1, 2, 3):
        queue.put(i)
    assert getter.join() == 2
    assert {queue.get(), queue.get()} == {4, 6}
    assert repr(queue) == "<Doubling 0 items, 3 unfinished>"


@kinds
def test_a_subclass_that_overrides_nothing(kind: Any) -> None:
    class Named(kind):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            super().__init__(maxsize=1)
            self.name = name

    queue = Named("jobs")
    queue.put_nowait(1)
    assert repr(queue) == "<Named 1/1 items>"
    assert not hasattr(queue, "_queue")


# -- looking -------------------------------------------------------------------------------------------------


@in_fiber
def test_repr() -> None:
    queue: Queue[int] = Queue(1)
    assert repr(queue) == "<Queue 0/1 items>"
    getters = [swapco.spawn(queue.get) for _ in range(2)]
    settle()
    assert repr(queue) == "<Queue 0/1 items, 2 getting>"
    assert getters[0].wait_reason == "an item from <Queue 0/1 items, 2 getting>"
    putters = [swapco.spawn(queue.put, i) for i in range(4)]
    swapco.spawn(queue.join)
    settle()
    assert repr(queue) == "<Queue 1/1 items, 1 putting, 1 joining, 3 unfinished>"
    queue.shutdown(immediate=True)
    assert repr(queue) == "<Queue 0/1 items, 1 joining, 2 unfinished, shut down>"
    with pytest.raises(QueueShutDown):
        putters[-1].join()


def test_generic_alias() -> None:
    assert Queue[int].__origin__ is Queue
    assert LifoQueue[str].__args__ == (str,)


@kinds
@in_fiber
def test_weakly_referenceable_and_collected(kind: Any) -> None:
    queue = kind()
    queue.put(queue)
    reference = weakref.ref(queue)
    del queue
    gc.collect()
    assert reference() is None


# -- laws ----------------------------------------------------------------------------------------------------

FEW = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TIMEOUTS = st.sampled_from([None, None, 0, 1, 2, 3])
STEPS = st.lists(
    st.one_of(
        st.sampled_from(["run", "run", "tick", "put_nowait", "get_nowait", "callback"]),
        st.tuples(st.just("cancel"), st.integers(0, 7)),
    ),
    max_size=30,
)


@FEW
@given(
    kind=st.sampled_from(KINDS),
    maxsize=st.integers(0, 3),
    # for each fiber: what it does, one after the other
    producers=st.lists(st.lists(TIMEOUTS, max_size=5), max_size=4),
    consumers=st.lists(st.lists(TIMEOUTS, max_size=5), max_size=4),
    steps=STEPS,
    shutdown=st.sampled_from([None, False, True]),
)
def test_law_items_are_neither_lost_nor_doubled_nor_reordered(
    kind: Any,
    maxsize: int,
    producers: list[list[float | None]],
    consumers: list[list[float | None]],
    steps: list[Any],
    shutdown: bool | None,
) -> None:
    def main(clock: ManualClock) -> None:
        queue = kind(maxsize)
        numbers = iter(range(10_000))
        # items in the order of the puts that succeeded or are waiting; and what arrived, for each consumer
        accepted: list[int] = []
        got: list[list[int]] = []
        direct: list[int] = []

        def produce(timeouts: list[float | None]) -> None:
            for timeout in timeouts:
                item = next(numbers)
                accepted.append(item)
                try:
                    queue.put(item, timeout=timeout)
                except BaseException as error:
                    accepted.remove(item)
                    if isinstance(error, TimeoutError):
                        continue
                    raise

        def consume(timeouts: list[float | None]) -> None:
            mine: list[int] = []
            got.append(mine)
            for timeout in timeouts:
                try:
                    mine.append(queue.get(timeout=timeout))
                except TimeoutError:
                    pass
                swapco.sleep(0) if timeout else None

        def put_nowait() -> None:
            item = next(numbers)
            try:
                queue.put_nowait(item)
            except QueueFull:
                assert 0 < maxsize == queue.qsize()
            else:
                accepted.append(item)

        def get_nowait() -> None:
            try:
                direct.append(queue.get_nowait())
            except QueueEmpty:
                assert queue.qsize() == 0

        fibers = [swapco.spawn(produce, script) for script in producers]
        fibers += [swapco.spawn(consume, script) for script in consumers]
        for step in steps:
            if step == "run":
                swapco.sleep(0)
            elif step == "tick":
                clock.advance(1)
                settle(1)
            elif step == "callback":
                asyncio.get_running_loop().call_soon(put_nowait)
                asyncio.get_running_loop().call_soon(get_nowait)
            elif step == "put_nowait":
                put_nowait()
            elif step == "get_nowait":
                get_nowait()
            elif step[1] < len(fibers):
                fibers[step[1]].cancel()
            statistics = queue.statistics()
            assert not (statistics.size and statistics.getting)
            assert not statistics.putting or statistics.size == maxsize
            assert not maxsize or statistics.size <= maxsize
        settle(20)
        dropped: list[int] = []
        if shutdown is not None:
            if shutdown:
                size = queue.qsize()
            queue.shutdown(immediate=bool(shutdown))
            if shutdown:
                dropped = [-1] * size
            settle(20)
            assert queue.statistics()[3:5] == (0, 0)
        for fiber in fibers:
            fiber.cancel()
        for _ in range(100):
            settle(1)
        for fiber in fibers:
            assert fiber.done()
            if not fiber.cancelled() and fiber.exception() is not None:
                assert shutdown is not None
                assert isinstance(fiber.exception(), QueueShutDown)
        left = [queue.get_nowait() for _ in range(queue.qsize())]
        arrived = [item for mine in got for item in mine] + direct + left
        assert len(set(arrived)) == len(arrived), "doubled"
        assert set(arrived) <= set(accepted), "from a putter that gave up"
        assert len(arrived) + len(dropped) == len(accepted), "lost"
        assert queue.statistics().unfinished == len(accepted) - len(dropped)
        if kind is Queue:
            # in the order of the puts, as far as one consumer can see it
            place = {item: i for i, item in enumerate(accepted)}
            for mine in (*got, direct, left):
                assert [place[item] for item in mine] == sorted(place[item] for item in mine)

    clock = ManualClock(1.0)
    swapco.run(main, clock, loop_factory=lambda: swapco.new_event_loop(clock=clock))


class QueueMachine(RuleBasedStateMachine):
    """Step by step against a model that keeps the items of parked putters apart."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = swapco.Runner()
        self.queue: Queue[int] = Queue(2)
        self.items: deque[int] = deque()
        self.getters: deque[Any] = deque()
        self.putters: deque[tuple[int, Any]] = deque()
        self.expected: list[tuple[Any, Any]] = []
        self.numbers = iter(range(10_000))

    def step(self, fn: Callable[[], Any]) -> Any:
        def main() -> Any:
            result = fn()
            settle(2)
            return result

        return self.runner.run(main)

    @rule()
    def put(self) -> None:
        item = next(self.numbers)
        fiber = self.step(lambda: swapco.spawn(self.queue.put, item))
        if self.getters:
            self.expected.append((self.getters.popleft(), item))
        elif len(self.items) < 2:
            self.items.append(item)
        else:
            self.putters.append((item, fiber))
            return
        self.expected.append((fiber, None))

    @rule()
    def get(self) -> None:
        fiber = self.step(lambda: swapco.spawn(self.queue.get))
        if not self.items:
            self.getters.append(fiber)
            return
        self.expected.append((fiber, self.items.popleft()))
        if self.putters:
            item, putter = self.putters.popleft()
            self.items.append(item)
            self.expected.append((putter, None))

    @precondition(lambda self: self.getters)
    @rule(i=st.integers(0, 9))
    def cancel_getter(self, i: int) -> None:
        fiber = self.getters[i % len(self.getters)]
        self.getters.remove(fiber)
        self.step(fiber.cancel)
        assert fiber.cancelled()

    @precondition(lambda self: self.putters)
    @rule(i=st.integers(0, 9))
    def cancel_putter(self, i: int) -> None:
        entry = self.putters[i % len(self.putters)]
        self.putters.remove(entry)
        self.step(entry[1].cancel)
        assert entry[1].cancelled()

    @precondition(lambda self: self.getters)
    @rule()
    def hand_over_then_cancel(self) -> None:
        item = next(self.numbers)
        fiber = self.getters.popleft()
        self.step(lambda: (self.queue.put_nowait(item), fiber.cancel()))
        self.expected.append((fiber, item))

    @invariant()
    def agrees(self) -> None:
        statistics = self.queue.statistics()
        assert statistics.size == len(self.items)
        assert statistics.getting == len(self.getters)
        assert statistics.putting == len(self.putters)
        for fiber, value in self.expected:
            assert fiber.result() == value
        self.expected.clear()
        for fiber in (*self.getters, *(fiber for _, fiber in self.putters)):
            assert not fiber.done()

    def teardown(self) -> None:
        self.runner.close()


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestQueueMachine = QueueMachine.TestCase
