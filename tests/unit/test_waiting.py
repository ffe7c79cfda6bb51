"""gather, wait, as_completed, wait_for, shield: mixed things, wrong things, and what waiting costs.

What is the same as in asyncio is in tests/api/test_tasks_parity.py.
"""

from __future__ import annotations

import asyncio
import gc
import math
import types
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from helpers import Logged, in_fiber, label, settle

import swapco
from swapco import testing
from swapco.timeouts import timeout
from swapco.waiting import FIRST_COMPLETED, as_completed, gather, shield, wait, wait_for

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0
SHORT = 0.01


def forever() -> None:
    swapco.sleep(LONG)


def fail(error: BaseException, delay: float = 0) -> None:
    swapco.sleep(delay)
    raise error


def stubborn(result: Any = "survived") -> Any:
    try:
        forever()
    except asyncio.CancelledError:
        return result


async def asynchronous(result: Any, delay: float = 0) -> Any:
    await asyncio.sleep(delay)
    return result


@types.coroutine
def generator_based(result: Any) -> Generator[None, None, Any]:
    yield
    return result


class Awaitable:
    def __init__(self, result: Any) -> None:
        self.result = result

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        return self.result


def future_with(result: Any, delay: float = 0) -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_later(delay, lambda: future.cancelled() or future.set_result(result))
    return future


def one_of_each() -> list[Any]:
    """Everything that can be waited for; the results are 0, 1, 2, ..."""
    return [
        swapco.spawn(lambda: 0),
        swapco.spawn(asynchronous, 1),
        lambda: 2,
        partial(int, 3),
        partial(asynchronous, 4),
        asynchronous(5),
        generator_based(6),
        future_with(7),
        asyncio.ensure_future(asynchronous(8)),
        Awaitable(9),
        types.MethodType(lambda self: 10, object()),
    ]


EACH = list(range(11))


def cancel_all(things: Any) -> None:
    for thing in things:
        thing.cancel()
    settle()


# ------------------------------------------------------------------------------------- things to wait for


@in_fiber
def test_everything_that_can_be_waited_for() -> None:
    assert gather(*one_of_each()) == EACH
    done, pending = wait(one_of_each())
    assert sorted(thing.result() for thing in done) == EACH
    assert pending == set()
    assert sorted(thing.result() for thing in as_completed(one_of_each())) == EACH
    assert [wait_for(thing, LONG) for thing in one_of_each()] == EACH
    assert [wait_for(thing, None) for thing in one_of_each()] == EACH
    assert [shield(thing) for thing in one_of_each()] == EACH


@in_fiber
def test_what_was_given_comes_back() -> None:
    fiber, future = swapco.spawn(int), future_with(1)
    done, _ = wait([fiber, future])
    assert done == {fiber, future}
    assert set(as_completed([fiber, future])) == {fiber, future}


@pytest.mark.parametrize("wrong", [42, None, "text", [], object(), {"a": 1}], ids=label)
@in_fiber
def test_the_result_of_a_call_that_ran_already(wrong: Any) -> None:
    started: list[int] = []
    calls: list[tuple[str, Callable[..., Any]]] = [
        ("gather", gather),
        ("wait", lambda *things: wait(list(things))),
        ("as_completed", lambda *things: as_completed(things)),
        ("shield", shield),
        ("wait_for", lambda thing: wait_for(thing, 1)),
    ]
    for name, function in calls:
        good = [partial(started.append, 1), asynchronous(1), generator_based(2)]
        if name in ("shield", "wait_for"):
            good.pop(1).close()
            good.clear()
        with pytest.raises(TypeError) as caught:
            function(*good, wrong)
        assert f"{name}(partial(f, x)) or {name}(spawn(f, x)), not {name}(f(x))" in str(caught.value)
        assert repr(wrong) in str(caught.value)
    settle()
    # nothing was spawned, and the coroutines were closed: the fixture would see a warning
    assert started == []
    assert swapco.all_fibers() == {swapco.current_fiber()}


@in_fiber
def test_a_fiber_cannot_wait_for_itself() -> None:
    me = swapco.current_fiber()
    for function in (gather, lambda x: wait([x]), lambda x: as_completed([x]), shield, lambda x: wait_for(x, 1)):
        with pytest.raises(RuntimeError, match="itself"):
            function(me)


@in_fiber
def test_things_of_another_loop() -> None:
    other = asyncio.new_event_loop()
    foreign = [other.create_future()]
    with ThreadPoolExecutor(1) as pool:
        foreign.append(pool.submit(swapco.run, lambda: swapco.spawn(int)).result())
    for thing in foreign:
        for function in (gather, lambda x: wait([x]), lambda x: as_completed([x]), lambda x: wait_for(x, 1)):
            with pytest.raises(ValueError, match="another event loop"):
                function(thing)
    other.close()


def test_outside_a_fiber() -> None:
    async def main() -> None:
        for function in (gather, lambda x: wait([x]), lambda x: as_completed([x]), shield, lambda x: wait_for(x, 1)):
            with pytest.raises(swapco.NotInFiber):
                function(asynchronous(1))

    asyncio.run(main())
    with pytest.raises(swapco.NotInFiber):
        gather()


@in_fiber
def test_a_collection_is_needed() -> None:
    fiber = swapco.spawn(int)
    for function in (wait, as_completed):
        for wrong in (fiber, future_with(1), int):
            with pytest.raises(TypeError, match=r"\(\[x\]\)"):
                function(wrong)  # type: ignore[arg-type]
        coroutine = asynchronous(1)
        with pytest.raises(TypeError):
            function(coroutine)  # type: ignore[arg-type]
        coroutine.close()
        with pytest.raises(TypeError):
            function(3)  # type: ignore[arg-type]
    # any iterable will do
    assert wait(iter([fiber]))[0] == {fiber}
    assert list(as_completed(f for f in [fiber])) == [fiber]
    settle()


@in_fiber
def test_bad_timeouts() -> None:
    fiber = swapco.spawn(int)
    for function in (
        lambda t: wait([fiber, asynchronous(1)], timeout=t),
        lambda t: as_completed([fiber, asynchronous(1)], timeout=t),
        lambda t: wait_for(asynchronous(1), t),
    ):
        with pytest.raises(ValueError, match="NaN"):
            function(math.nan)
        with pytest.raises(TypeError):
            function("soon")
    fiber.join()
    assert swapco.all_fibers() == {swapco.current_fiber()}


# ---------------------------------------------------------------------------------------------- gather


@in_fiber
def test_gather_calls_a_function_as_often_as_it_is_given() -> None:
    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        return len(calls)

    assert gather(count, count) == [1, 2]
    awaitable = Awaitable("once")
    assert gather(awaitable, awaitable) == ["once", "once"]


@in_fiber
def test_gather_of_done_things_does_not_block() -> None:
    fibers = [swapco.spawn(int) for _ in range(3)]
    wait(fibers)
    scheduler = swapco.current_fiber().scheduler
    switches = scheduler.switches
    assert gather(*fibers) == [0, 0, 0]
    assert gather() == []
    assert wait(fibers) == (set(fibers), set())
    assert set(as_completed(fibers)) == set(fibers)
    assert wait_for(fibers[0], 1) == 0
    assert shield(fibers[0]) == 0
    assert scheduler.switches == switches


@in_fiber
def test_gather_takes_one_wakeup() -> None:
    """n fibers, one switch to each and one back; not a trip through the loop for each."""
    scheduler = swapco.current_fiber().scheduler
    switches, drains = scheduler.switches, scheduler.drains
    gather(*[int] * 500)
    assert scheduler.switches - switches < 600
    assert scheduler.drains - drains < 50


@in_fiber
def test_ten_thousand_fibers() -> None:
    fibers = [swapco.spawn(swapco.sleep, 0, n) for n in range(10_000)]
    assert gather(*fibers) == list(range(10_000))
    assert wait(fibers)[0] == set(fibers)


@in_fiber
def test_gather_raises_the_first_exception_at_once() -> None:
    release = asyncio.Event()
    slow = swapco.spawn(lambda: swapco.await_(release.wait()))
    with pytest.raises(KeyError):
        gather(slow, forever_cancelled := swapco.spawn(forever), partial(fail, KeyError()))
    assert not slow.done()
    release.set()
    assert gather(slow) == [True]
    cancel_all([forever_cancelled])


@in_fiber
def test_later_exceptions_count_as_retrieved() -> None:
    with pytest.raises(KeyError):
        gather(partial(fail, KeyError()), partial(fail, IndexError(), 0.001), swapco.spawn(fail, ValueError(), 0.002))
    swapco.sleep(SHORT)
    gc.collect()  # the fixture sees it if an error is logged


@in_fiber
def test_gather_cancelled_waits_for_its_children() -> None:
    release = asyncio.Event()
    ended: list[int] = []

    def slow_to_end(n: int) -> None:
        try:
            forever()
        except asyncio.CancelledError:
            swapco.await_(release.wait())
            ended.append(n)

    gathering = swapco.spawn(lambda: gather(partial(slow_to_end, 1), partial(slow_to_end, 2)))
    settle()
    gathering.cancel("message")
    settle()
    assert not gathering.done()
    release.set()
    with pytest.raises(asyncio.CancelledError, match="message"):
        gathering.join()
    assert ended == [1, 2]


@in_fiber
def test_gather_cancelled_waits_also_when_one_has_ended() -> None:
    release = asyncio.Event()
    ended: list[str] = []

    def slow_to_end() -> None:
        try:
            forever()
        except asyncio.CancelledError:
            swapco.await_(release.wait())
            ended.append("slow")
            raise

    gathering = swapco.spawn(gather, forever, slow_to_end)
    settle()
    gathering.cancel()
    settle()
    assert not gathering.done(), "it waits for the second one, though the first one has ended"
    release.set()
    with pytest.raises(asyncio.CancelledError):
        gathering.join()
    assert ended == ["slow"]


@in_fiber
def test_gather_cancelled_retrieves_the_exceptions_that_it_would_return() -> None:
    gathering = swapco.spawn(lambda: gather(partial(fail, KeyError()), forever, return_exceptions=True))
    settle()
    gathering.cancel()
    with pytest.raises(asyncio.CancelledError):
        gathering.join()
    gc.collect()  # the fixture sees it if an error is logged


@in_fiber
def test_gather_cancelled_passes_the_message_on() -> None:
    fiber, future = swapco.spawn(forever), asyncio.get_running_loop().create_future()
    gathering = swapco.spawn(gather, fiber, future)
    settle()
    gathering.cancel("message")
    for thing in (gathering, fiber, future):
        with pytest.raises(asyncio.CancelledError, match="message"):
            swapco.await_(thing)


@in_fiber
def test_gather_cancelled_while_a_child_fails() -> None:
    def fail_when_cancelled() -> None:
        try:
            forever()
        finally:
            raise KeyError

    gathering = swapco.spawn(gather, fail_when_cancelled, forever)
    settle()
    gathering.cancel()
    with pytest.raises(KeyError):
        gathering.join()
    settle()


@in_fiber
def test_a_result_that_has_won_stands_and_the_cancellation_stays_pending() -> None:
    me = swapco.current_fiber()

    def finish_and_cancel() -> str:
        me.cancel()  # me waits still: this wins
        return "result"

    with pytest.raises(asyncio.CancelledError):
        gather(finish_and_cancel)
    me.uncancel()

    # now the end wins: its joiner runs before the fiber that gathers, and cancels that
    fiber = swapco.spawn(swapco.block)
    joiner = swapco.spawn(lambda: (fiber.join(), me.cancel()))
    settle()
    swapco.resume(fiber, "value")
    assert gather(fiber) == ["value"]
    assert joiner.done()
    assert me.cancelling() == 1
    with pytest.raises(asyncio.CancelledError):
        swapco.sleep(0)
    me.uncancel()


# ------------------------------------------------------------------------------------- wait, as_completed


@in_fiber
def test_wait_leaves_no_trace_on_what_is_pending() -> None:
    future = asyncio.get_running_loop().create_future()
    fiber = swapco.spawn(forever)
    for _ in range(100):
        done, pending = wait([fiber, future], timeout=0)
        assert (done, pending) == (set(), {fiber, future})
    assert not getattr(future, "_callbacks", None)
    cancel_all([fiber, future])


@in_fiber
def test_wait_for_the_first_of_many_again_and_again() -> None:
    pending: set[Any] = {swapco.spawn(swapco.sleep, 0.0001 * n, n) for n in range(50)}
    seen: list[int] = []
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        assert done
        seen += [fiber.result() for fiber in done]
    assert sorted(seen) == list(range(50))


@in_fiber
def test_wait_counts_a_thing_once() -> None:
    fiber = swapco.spawn(int)
    assert wait([fiber, fiber]) == ({fiber}, set())
    assert list(as_completed([fiber, fiber])) == [fiber]


@in_fiber
def test_wait_is_told_by_what_it_waits_for() -> None:
    me = swapco.current_fiber()
    fiber = swapco.spawn(swapco.block, name="the slow one")
    other = swapco.spawn(forever, name="the other one")
    future = asyncio.get_running_loop().create_future()
    reasons: list[Any] = []

    def look(end_of_wait: Callable[[], object]) -> None:
        reasons.append(me.wait_reason)
        end_of_wait()

    swapco.spawn(look, lambda: swapco.resume(fiber))
    wait([fiber])
    assert reasons == ["the fibers of wait(): 1 of 1 not done: the slow one"]
    swapco.spawn(look, lambda: future.set_result(1))
    wait([other, future], return_when=FIRST_COMPLETED)
    assert "wait(): 2 of 2 not done: the other one, <Future pending" in reasons[1]
    cancel_all([other])


@in_fiber
def test_as_completed_yields_in_the_order_of_completion() -> None:
    fibers = [swapco.spawn(swapco.block) for _ in range(3)]
    swapco.sleep(0)
    for n in (1, 2, 0):
        swapco.spawn(swapco.resume, fibers[n], n)
    assert [fiber.result() for fiber in as_completed(fibers)] == [1, 2, 0]


@in_fiber
def test_as_completed_starts_at_once_and_its_time_runs() -> None:
    started: list[int] = []
    iterator = as_completed([lambda: started.append(1), forever], timeout=SHORT)
    settle()
    assert started == [1]
    swapco.sleep(2 * SHORT)
    assert next(iterator).result() is None
    for _ in range(2):
        with pytest.raises(TimeoutError, match="1 of 2 not done"):
            next(iterator)
    cancel_all(swapco.all_fibers() - {swapco.current_fiber()})
    # it came in the end, after all
    assert next(iterator).cancelled()
    with pytest.raises(StopIteration):
        next(iterator)


@in_fiber
def test_as_completed_by_several_fibers() -> None:
    things = [partial(swapco.sleep, 0.001 * n, n) for n in range(20)]
    iterator = as_completed(things)
    seen: list[int] = []

    def consume() -> None:
        for thing in iterator:
            seen.append(thing.result())

    gather(*[consume] * 4)
    assert sorted(seen) == list(range(20))


def test_as_completed_looks_once_it_has_its_slot() -> None:
    """The last one may end between the call of ``next`` and the section of the fiber that calls it."""

    def body() -> None:
        seen = [fiber.result() for fiber in as_completed([lambda: 1, lambda: 2])]
        assert sorted(seen) == [1, 2]

    result = testing.verify(body, preempt="primitives", save=False).check()
    assert result.exhausted
    assert result.schedules > 10


@in_fiber
def test_as_completed_given_up() -> None:
    fiber = swapco.spawn(forever)
    for _ in as_completed([fiber, int]):
        break
    assert not fiber.done()

    def consume() -> None:
        next(as_completed([fiber]))

    consumer = swapco.spawn(consume)
    settle()
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        consumer.join()
    cancel_all([fiber])


# ------------------------------------------------------------------------------------------- wait_for


@in_fiber
def test_wait_for_runs_functions_and_coroutines_in_the_caller() -> None:
    me = swapco.current_fiber()
    assert wait_for(swapco.current_fiber, 1) is me

    async def who() -> Any:
        return asyncio.current_task()

    assert wait_for(who, 1) is me
    assert wait_for(who(), 1) is me


@in_fiber
def test_wait_for_waits_for_the_end() -> None:
    ended: list[int] = []

    def slow_to_end() -> None:
        try:
            forever()
        finally:
            swapco.sleep(SHORT)
            ended.append(1)

    with pytest.raises(TimeoutError) as caught:
        wait_for(swapco.spawn(slow_to_end), SHORT)
    assert ended == [1]
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    with pytest.raises(TimeoutError):
        wait_for(slow_to_end, SHORT)
    assert ended == [1, 1]


@in_fiber
def test_wait_for_a_stubborn_one() -> None:
    assert wait_for(swapco.spawn(stubborn), SHORT) == "survived"
    assert wait_for(stubborn, SHORT) == "survived"
    assert swapco.current_fiber().cancelling() == 0
    swapco.sleep(0)


@in_fiber
def test_wait_for_cancelled_but_the_target_has_a_result() -> None:
    """Neither is lost: the result is returned, and the cancellation raised at the next suspension."""
    seen: list[Any] = []

    def waiting() -> None:
        seen.append(wait_for(target, LONG))
        swapco.sleep(0)
        seen.append("not cancelled")

    target = swapco.spawn(stubborn)
    waiter = swapco.spawn(waiting)
    settle()
    waiter.cancel("message")
    with pytest.raises(asyncio.CancelledError, match="message"):
        waiter.join()
    assert seen == ["survived"]


@in_fiber
def test_wait_for_inside_a_timeout() -> None:
    fiber = swapco.spawn(forever)
    with pytest.raises(TimeoutError):
        with timeout(SHORT) as outer:
            wait_for(fiber, LONG)
    assert outer.expired()
    assert fiber.cancelled()


@in_fiber
def test_wait_for_does_not_start_what_has_no_time() -> None:
    started: list[int] = []
    for thing in (partial(started.append, 1), asynchronous(1), partial(asynchronous, 1)):
        with pytest.raises(TimeoutError, match="no time"):
            wait_for(thing, 0)
    awaitable = Awaitable(1)
    with pytest.raises(TimeoutError):
        wait_for(awaitable, -1)
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        wait_for(future, 0)
    assert future.cancelled()
    assert started == []
    assert swapco.current_fiber().cancelling() == 0
    swapco.sleep(0)


# --------------------------------------------------------------------------------------------- shield


@in_fiber
def test_shield_from_a_timeout() -> None:
    fiber: Any = swapco.spawn(swapco.block)
    future = asyncio.get_running_loop().create_future()
    for thing, end in ((fiber, partial(swapco.resume, fiber, 1)), (future, partial(future.set_result, 1))):
        with pytest.raises(TimeoutError):
            with timeout(SHORT):
                shield(thing)
        assert not thing.done()
        end()
        assert shield(thing) == 1


@in_fiber
def test_shield_spawns_functions() -> None:
    ended: list[int] = []

    def body() -> None:
        swapco.block()
        ended.append(1)

    with pytest.raises(TimeoutError):
        with timeout(SHORT):
            shield(body)
    assert ended == []
    (rest,) = swapco.all_fibers() - {swapco.current_fiber()}
    swapco.resume(rest)
    rest.join()
    assert ended == [1]


@in_fiber
def test_a_shielded_failure_that_nobody_sees_is_logged(request: pytest.FixtureRequest) -> None:
    gate = swapco.Event()

    def fails_later() -> None:
        gate.wait()
        fail(KeyError("lost"))

    with pytest.raises(TimeoutError):
        with timeout(SHORT):
            shield(fails_later)
    gate.set()
    while swapco.all_fibers() != {swapco.current_fiber()}:
        swapco.sleep(0.001)
    gc.collect()
    logged: Logged = request.getfixturevalue("fibers")
    assert "never retrieved" in logged.take()[0]


# ------------------------------------------------------------------------------------------ references


@in_fiber
def test_nothing_is_kept_alive() -> None:
    class Result:
        pass

    references: list[weakref.ref[Any]] = []

    def make() -> Result:
        result = Result()
        references.append(weakref.ref(result))
        return result

    gather(make, make, asynchronous(1))
    wait([make, make])
    list(as_completed([make]))
    wait_for(swapco.spawn(make), 1)
    shield(make)
    with pytest.raises(KeyError):
        gather(make, partial(fail, KeyError()))
    settle()
    gc.collect()
    assert [reference() for reference in references] == [None] * 8
