"""Between the two worlds: fibers that await, and coroutines that await fibers."""


from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
import types
from collections.abc import Generator
from typing import Any

import pytest
from helpers import in_fiber, label, settle

import swapco
from swapco import await_

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0
SHORT = 0.01


async def asynchronous(result: Any, delay: float = 0) -> Any:
    await asyncio.sleep(delay)
    return result


async def failing(error: BaseException, delay: float = 0) -> Any:
    await asyncio.sleep(delay)
    raise error


def forever() -> None:
    swapco.sleep(LONG)


def plain_task(coroutine: Any) -> asyncio.Task[Any]:
    """A task of asyncio's own kind, whatever the loop's task factory makes."""
    return asyncio.Task(coroutine, loop=asyncio.get_running_loop())


# -------------------------------------------------------------------------------------- what can be awaited


class Awaitable:
    def __init__(self, result: Any) -> None:
        self.result = result

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        return self.result


@types.coroutine
def generator_based(result: Any) -> Generator[None, None, Any]:
    yield
    return result


@in_fiber
def test_everything_that_can_be_awaited() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, 3)
    assert await_(asynchronous(1)) == 1
    assert await_(asynchronous(2, SHORT)) == 2
    assert await_(future) == 3
    assert await_(future) == 3
    assert await_(plain_task(asynchronous(4))) == 4
    assert await_(asyncio.ensure_future(asynchronous(5))) == 5
    assert await_(Awaitable(6)) == 6
    assert await_(generator_based(7)) == 7
    assert await_(swapco.spawn(lambda: 8)) == 8
    assert await_(asyncio.gather(asynchronous(9), swapco.spawn(lambda: 10))) == [9, 10]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert await_(loop.run_in_executor(pool, lambda: 11)) == 11
        assert await_(asyncio.wrap_future(pool.submit(lambda: 12))) == 12


@in_fiber
def test_exceptions_come_out() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(KeyError("future"))
    for awaitable in (failing(KeyError()), failing(KeyError(), 0.001), future, plain_task(failing(KeyError()))):
        with pytest.raises(KeyError):
            await_(awaitable)
    with pytest.raises(RuntimeError):  # PEP 479
        await_(failing(StopIteration(1)))


@pytest.mark.parametrize("wrong", [None, 3, "text", object(), int, lambda: None], ids=label)
@in_fiber
def test_what_cannot_be_awaited(wrong: Any) -> None:
    with pytest.raises(TypeError, match="takes a coroutine, a future"):
        await_(wrong)
    if callable(wrong):
        with pytest.raises(TypeError, match="called directly"):
            await_(wrong)


def test_outside_a_fiber_the_coroutine_is_closed() -> None:
    coroutine = asynchronous(1)
    with pytest.raises(swapco.NotInFiber):
        await_(coroutine)
    assert coroutine.cr_frame is None

    async def main() -> None:
        with pytest.raises(swapco.NotInFiber):
            await_(asynchronous(1))
        await swapco.spawn(int)
        with pytest.raises(swapco.NotInFiber, match="asyncio task"):
            await_(asynchronous(1))

    with asyncio.Runner(loop_factory=swapco.new_event_loop) as runner:
        runner.run(main())


@in_fiber
def test_futures_of_another_loop() -> None:
    other = asyncio.new_event_loop()
    with pytest.raises(RuntimeError, match="different loop"):
        await_(other.create_future())

    async def inside() -> None:
        await other.create_future()

    with pytest.raises(RuntimeError, match="different loop"):
        await_(inside())
    other.close()


@in_fiber
def test_bad_yields() -> None:
    @types.coroutine
    def yields(value: Any) -> Generator[Any, None, Any]:
        try:
            yield value
        except RuntimeError as error:
            return str(error)

    assert "no future" in await_(yields(3))
    assert "no future" in await_(yields([]))
    future = asyncio.get_running_loop().create_future()
    assert "'yield' was used instead of 'yield from'" in await_(yields(future))
    future.cancel()


@in_fiber
def test_a_fiber_cannot_await_itself() -> None:
    me = swapco.current_fiber()
    with pytest.raises(RuntimeError, match="itself"):
        await_(me)

    async def inside() -> None:
        await me  # type: ignore[misc]

    with pytest.raises(RuntimeError, match="itself"):
        await_(inside())


# --------------------------------------------------------------------------------- the current task


@in_fiber
def test_the_fiber_is_the_current_task_inside_await_only() -> None:
    me = swapco.current_fiber()
    assert asyncio.current_task() is None

    async def inside() -> None:
        assert asyncio.current_task() is me
        await asyncio.sleep(0)
        assert asyncio.current_task() is me
        await inner()
        assert asyncio.current_task() is me

    async def inner() -> None:
        assert asyncio.current_task() is me
        await_(asynchronous(1))
        assert asyncio.current_task() is me

    await_(inside())
    assert asyncio.current_task() is None
    with pytest.raises(KeyError):
        await_(failing(KeyError()))
    assert asyncio.current_task() is None
    assert me in asyncio.all_tasks()


@in_fiber
def test_it_is_cleared_at_every_switch_away() -> None:
    seen: list[Any] = []
    me = swapco.current_fiber()
    loop = asyncio.get_running_loop()

    def look() -> None:
        seen.append(asyncio.current_task())

    async def other() -> None:
        seen.append(asyncio.current_task())
        for _ in range(3):
            await asyncio.sleep(0)

    async def inside() -> None:
        task = plain_task(other())
        swapco.spawn(look)
        loop.call_soon(look)
        # blocks the fiber in the middle of a coroutine
        swapco.sleep(SHORT)
        assert asyncio.current_task() is me
        await task
        assert seen[:2] in ([None, None], [task, None], [None, task])
        assert sorted(map(bool, seen)) == [False, False, True]
        swapco.spawn(look).join()
        assert seen[3] is None
        assert asyncio.current_task() is me

    await_(inside())
    assert asyncio.current_task() is None


@in_fiber
def test_many_fibers_await_at_once() -> None:
    async def inside(n: int) -> int:
        for i in range(5):
            assert asyncio.current_task() is swapco.current_fiber()
            await asyncio.sleep(0.001 * ((n + i) % 3))
            swapco.sleep(0)
            assert asyncio.current_task() is swapco.current_fiber()
        return n

    results = swapco.gather(*[functools.partial(inside, n) for n in range(50)])
    assert results == list(range(50))


@in_fiber
def test_libraries_see_a_task() -> None:
    async def inside() -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task.get_name() == "main"
        assert task.get_coro() is not None
        assert task.cancelling() == 0
        assert task._must_cancel is False  # type: ignore[attr-defined]
        assert task._fut_waiter is None  # type: ignore[attr-defined]
        assert task.get_loop() is asyncio.get_running_loop()

    await_(inside())
    assert swapco.current_fiber().get_coro() is None


@in_fiber
def test_tasks_run_while_a_fiber_blocks() -> None:
    progress: list[int] = []

    async def background() -> None:
        for n in range(5):
            await asyncio.sleep(0.001)
            progress.append(n)

    task = plain_task(background())
    while len(progress) < 5:
        swapco.sleep(0.001)
    await_(task)
    task = plain_task(background())
    swapco.spawn(swapco.sleep, SHORT).join()
    await_(task)
    assert progress == [*range(5), *range(5)]


@in_fiber
def test_the_context_of_a_coroutine_is_the_fibers() -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def inside() -> None:
        variable.set("inside")
        await asyncio.sleep(0)
        assert variable.get() == "inside"

    await_(inside())
    assert variable.get() == "inside"


# ----------------------------------------------------------------------------- asyncio's tools inside await_


@in_fiber
def test_asyncios_timeout() -> None:
    async def inside() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                await asyncio.sleep(LONG)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                # the limit reaches a blocking call, too
                forever()
        async with asyncio.timeout(LONG):
            swapco.sleep(0)

    await_(inside())
    assert swapco.current_fiber().cancelling() == 0
    swapco.sleep(0)


@in_fiber
def test_a_timeout_of_asyncio_that_comes_too_late_leaves_nothing_pending() -> None:
    """On CPython 3.11 and 3.12 uncancel of a task leaves its flag set; not with a fiber."""

    async def inside() -> None:
        me = swapco.current_fiber()
        async with asyncio.timeout(LONG) as limit:

            def expire_after_the_wakeup_has_won() -> None:
                swapco.resume(me)
                limit._on_timeout()  # type: ignore[attr-defined]

            asyncio.get_running_loop().call_soon(expire_after_the_wakeup_has_won)
            swapco.block()
        assert limit.expired()
        await asyncio.sleep(0)

    await_(inside())
    swapco.sleep(0)
    assert swapco.current_fiber().cancelling() == 0


@in_fiber
def test_asyncios_task_group() -> None:
    async def inside() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asynchronous(n, 0.001)) for n in range(5)]
        assert [task.result() for task in tasks] == list(range(5))
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                other = group.create_task(asynchronous(1, LONG))
                group.create_task(failing(KeyError()))
                forever()
        assert other.cancelled()

    await_(inside())
    swapco.sleep(0)


@in_fiber
def test_asyncios_gather_wait_and_shield() -> None:
    async def inside() -> None:
        fibers = [swapco.spawn(swapco.sleep, 0.001 * n, n) for n in range(3)]
        assert await asyncio.gather(*fibers, asynchronous(3)) == [0, 1, 2, 3]
        slow = swapco.spawn(forever)
        quick = swapco.spawn(int)
        done, pending = await asyncio.wait([slow, quick], return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({quick}, {slow})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(slow), SHORT)
        assert not slow.done()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow, SHORT)
        assert slow.cancelled()
        results = [await next_one for next_one in asyncio.as_completed([swapco.spawn(lambda: 1), asynchronous(2)])]
        assert sorted(results) == [1, 2]

    await_(inside())


@in_fiber
def test_asyncios_locks_and_queues() -> None:
    async def producer(queue: asyncio.Queue[int]) -> None:
        for n in range(20):
            await queue.put(n)

    queue: asyncio.Queue[int] = asyncio.Queue(2)
    task = plain_task(producer(queue))
    assert [await_(queue.get()) for _ in range(20)] == list(range(20))
    await_(task)
    lock = asyncio.Lock()

    async def locked() -> None:
        async with lock:
            swapco.sleep(0)
            await asyncio.sleep(0)

    swapco.gather(*[locked] * 10)
    assert not lock.locked()


@in_fiber
def test_asynchronous_generators() -> None:
    async def numbers() -> Any:
        for n in range(3):
            await asyncio.sleep(0)
            swapco.sleep(0)
            yield n

    async def inside() -> list[int]:
        return [n async for n in numbers()]

    assert await_(inside()) == [0, 1, 2]
    generator = numbers()
    assert await_(anext(generator)) == 0
    await_(generator.aclose())


# ------------------------------------------------------------------------------------- cancellation


@in_fiber
def test_cancelling_a_fiber_cancels_what_it_awaits() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    task = plain_task(asynchronous(1, LONG))
    target = swapco.spawn(forever)
    for awaitable in (future, task, target):
        fiber = swapco.spawn(await_, awaitable)
        settle()
        fiber.cancel("message")
        with pytest.raises(asyncio.CancelledError):
            fiber.join()
        assert awaitable.cancelled()


@in_fiber
def test_a_coroutine_may_catch_the_cancellation() -> None:
    async def inside() -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError as error:
            return f"caught {error}"
        return "slept"

    fiber = swapco.spawn(inside)
    settle()
    fiber.cancel("message")
    assert fiber.join() == "caught message"


@in_fiber
def test_a_cancellation_after_the_future_is_done() -> None:
    """As for a task: the future's result is there, and CancelledError is raised instead of it."""
    loop = asyncio.get_running_loop()

    async def inside(future: asyncio.Future[int]) -> int:
        return await future

    def scenario(make: Any) -> Any:
        future = loop.create_future()
        waiter = make(inside(future))
        settle()

        def both() -> None:
            future.set_result(1)
            waiter.cancel()

        loop.call_soon(both)
        swapco.wait([waiter])
        return waiter.cancelled()

    assert scenario(plain_task) is True
    assert scenario(swapco.spawn) is True


@in_fiber
def test_cancelled_before_it_awaits() -> None:
    me = swapco.current_fiber()
    future = asyncio.get_running_loop().create_future()
    me.cancel()
    with pytest.raises(asyncio.CancelledError):
        await_(future)
    assert future.cancelled()
    assert me.uncancel() == 0
    done = asyncio.get_running_loop().create_future()
    done.set_result(1)
    me.cancel()
    assert await_(done) == 1  # no suspension, so nothing is delivered
    assert me.uncancel() == 0
    swapco.sleep(0)


@in_fiber
def test_a_shield_holds() -> None:
    go_on = asyncio.Event()

    async def later() -> str:
        await go_on.wait()
        return "result"

    async def inside() -> Any:
        return await asyncio.shield(task)

    task = plain_task(later())

    fiber = swapco.spawn(inside)
    settle()
    fiber.cancel()
    with pytest.raises(asyncio.CancelledError):
        fiber.join()
    assert not task.done()
    go_on.set()
    assert await_(task) == "result"


@in_fiber
def test_a_blocking_call_in_a_coroutine_is_cancelled() -> None:
    async def inside() -> str:
        try:
            forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "cleaned up"
        return "slept"

    fiber = swapco.spawn(inside)
    settle()
    fiber.cancel()
    assert fiber.join() == "cleaned up"


@in_fiber
def test_cancelled_while_it_joins_and_drives() -> None:
    """Nested: a coroutine that blocks in a join of a fiber that awaits."""
    future = asyncio.get_running_loop().create_future()
    inner = swapco.spawn(await_, future)

    async def inside() -> Any:
        return inner.join()

    outer = swapco.spawn(inside)
    settle()
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        outer.join()
    assert not inner.done()
    future.set_result("still here")
    assert inner.join() == "still here"


# ---------------------------------------------------------------------------- coroutines that await fibers


def run_plain(main: Any) -> Any:
    """Run an asyncio program on swapco's loop, with no fiber but those that it spawns."""
    with asyncio.Runner(loop_factory=swapco.new_event_loop) as runner:
        return runner.run(main())


def test_await_fiber() -> None:
    async def main() -> None:
        assert await swapco.spawn(lambda: 1) == 1
        assert await swapco.spawn(asynchronous, 2) == 2
        with pytest.raises(KeyError):
            await swapco.spawn(failing, KeyError())
        fiber = swapco.spawn(swapco.sleep, SHORT, 3)
        assert await asyncio.gather(fiber, asynchronous(4), swapco.spawn(lambda: 5)) == [3, 4, 5]
        assert await fiber == 3

    run_plain(main)


def test_cancelling_the_awaiting_task_cancels_the_fiber() -> None:
    async def main() -> None:
        fiber = swapco.spawn(forever)

        async def awaiting() -> None:
            await fiber

        task = asyncio.create_task(awaiting())
        await asyncio.sleep(SHORT)
        task.cancel("message")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert fiber.cancelled()

    run_plain(main)


def test_a_fiber_that_survives_its_awaiters_cancellation() -> None:
    def stubborn() -> str:
        try:
            forever()
        except asyncio.CancelledError:
            return "survived"
        return "slept"

    async def main() -> None:
        fiber = swapco.spawn(stubborn)

        async def awaiting() -> Any:
            return await fiber

        task = asyncio.create_task(awaiting())
        await asyncio.sleep(SHORT)
        task.cancel()
        assert await task == "survived"

    run_plain(main)


def test_a_fiber_that_a_task_awaits_is_cancelled_on_its_own() -> None:
    async def main() -> None:
        fiber = swapco.spawn(forever)
        asyncio.get_running_loop().call_later(SHORT, fiber.cancel)
        with pytest.raises(asyncio.CancelledError):
            await fiber
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run_plain(main)


def test_plain_asyncio_waits_for_fibers() -> None:
    async def main() -> None:
        quick, slow = swapco.spawn(int), swapco.spawn(forever)
        done, pending = await asyncio.wait([quick, slow], return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({quick}, {slow})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow, SHORT)
        assert slow.cancelled()
        async with asyncio.timeout(LONG):
            assert await swapco.spawn(lambda: swapco.sleep(SHORT, 1)) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                await swapco.spawn(forever)

    run_plain(main)


def test_fibers_and_tasks_take_turns() -> None:
    order: list[str] = []

    async def task_side() -> None:
        for _ in range(3):
            order.append("task")
            await asyncio.sleep(0)

    def fiber_side() -> None:
        for _ in range(3):
            order.append("fiber")
            swapco.sleep(0)

    async def main() -> None:
        fiber = swapco.spawn(fiber_side)
        await asyncio.gather(asyncio.create_task(task_side()), fiber)

    run_plain(main)
    assert sorted(order) == ["fiber"] * 3 + ["task"] * 3
    # neither runs to its end before the other begins
    assert order.index("task") < 4
    assert order.index("fiber") < 4


def test_a_fiber_awaits_a_task_that_awaits_a_fiber() -> None:
    async def middle(n: int) -> int:
        return int(await swapco.spawn(outer, n - 1)) + 1

    def outer(n: int) -> int:
        return 0 if n == 0 else int(await_(plain_task(middle(n))))

    async def main() -> int:
        return int(await swapco.spawn(outer, 50))

    assert run_plain(main) == 50


def test_awaited_from_another_loop() -> None:
    started = threading.Event()
    fibers: list[Any] = []
    stop: list[Any] = []

    def with_a_fiber() -> None:
        def main() -> None:
            fibers.append(swapco.spawn(forever))
            stop.append((asyncio.get_running_loop(), swapco.current_fiber()))
            started.set()
            with pytest.raises(asyncio.CancelledError):
                forever()

        swapco.run(main)

    thread = threading.Thread(target=with_a_fiber)
    thread.start()
    assert started.wait(20)

    async def main() -> None:
        with pytest.raises((RuntimeError, ValueError)):
            await asyncio.wait_for(fibers[0], SHORT)

    asyncio.run(main())
    stop[0][1].cancel()
    thread.join()
