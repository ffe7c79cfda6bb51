"""What swapco must do exactly as asyncio does: each body runs under both."""


from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from oracle import on_both

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0
SHORT = 0.01
SINCE_312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio's rule since CPython 3.12")
SINCE_313 = pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio's rule since CPython 3.13")


async def value(lib: Any, result: Any, delay: float = 0) -> Any:
    await lib.sleep(delay)
    return result


async def fail(lib: Any, error: BaseException, delay: float = 0) -> Any:
    await lib.sleep(delay)
    raise error


async def stubborn(lib: Any, result: Any = "survived") -> Any:
    """Does not let itself be cancelled."""
    try:
        await lib.sleep(LONG)
    except asyncio.CancelledError:
        return result


async def settle(lib: Any) -> None:
    for _ in range(5):
        await lib.sleep(0)


# --------------------------------------------------------------------------------------------- timeout


@on_both
async def test_timeout(lib: Any) -> None:
    with pytest.raises(TimeoutError):
        async with lib.timeout(SHORT) as limit:
            await lib.sleep(LONG)
    assert limit.expired()
    async with lib.timeout(LONG) as limit:
        await lib.sleep(0)
    assert not limit.expired()
    async with lib.timeout(None) as limit:
        await lib.sleep(0)
    assert limit.when() is None
    assert lib.current_task().cancelling() == 0


@on_both
async def test_timeout_zero(lib: Any) -> None:
    with pytest.raises(TimeoutError):
        async with lib.timeout(0) as limit:
            await lib.sleep(LONG)
    assert limit.expired()
    async with lib.timeout(-1) as limit:
        pass
    assert not limit.expired()
    await lib.sleep(0)


@on_both
async def test_timeouts_nest(lib: Any) -> None:
    for outer_delay, inner_delay in ((SHORT, LONG), (LONG, SHORT)):
        with pytest.raises(TimeoutError):
            async with lib.timeout(outer_delay) as outer:
                async with lib.timeout(inner_delay) as inner:
                    await lib.sleep(LONG)
        assert (outer.expired(), inner.expired()) == (outer_delay == SHORT, inner_delay == SHORT)
        assert lib.current_task().cancelling() == 0


@on_both
async def test_timeout_and_a_foreign_cancellation(lib: Any) -> None:
    async def limited() -> None:
        async with lib.timeout(LONG):
            await lib.sleep(LONG)

    task = lib.create_task(limited())
    await settle(lib)
    task.cancel()
    await lib.wait([task])
    assert task.cancelled()


@on_both
async def test_timeout_whose_body_answers_otherwise(lib: Any) -> None:
    with pytest.raises(KeyError):
        async with lib.timeout(SHORT) as limit:
            try:
                await lib.sleep(LONG)
            except asyncio.CancelledError:
                raise KeyError
    assert limit.expired()
    async with lib.timeout(SHORT) as limit:
        assert await stubborn(lib) == "survived"
    assert limit.expired()
    assert lib.current_task().cancelling() == 0
    await lib.sleep(0)


@SINCE_313
@on_both
async def test_timeout_is_named_in_the_chain_of_causes(lib: Any) -> None:
    with pytest.raises(KeyError) as caught:
        async with lib.timeout(SHORT):
            try:
                await lib.sleep(LONG)
            except asyncio.CancelledError:
                raise KeyError
    assert isinstance(caught.value.__context__, TimeoutError)
    assert isinstance(caught.value.__context__.__cause__, asyncio.CancelledError)


@on_both
async def test_timeout_reschedule(lib: Any) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with lib.timeout(None) as limit:
            limit.reschedule(loop.time() + SHORT)
            await lib.sleep(LONG)
    async with lib.timeout(LONG) as limit:
        limit.reschedule(None)
    for state in ("expired", "finished"):
        with pytest.raises(RuntimeError):
            limit.reschedule(1.0)
        assert state


# ------------------------------------------------------------------------------------------- TaskGroup


@on_both
async def test_group_waits_for_its_members(lib: Any) -> None:
    async with lib.TaskGroup() as group:
        tasks = [group.create_task(value(lib, i, i % 3 / 1000)) for i in range(10)]
    assert [task.result() for task in tasks] == list(range(10))


@on_both
async def test_group_member_fails(lib: Any) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with lib.TaskGroup() as group:
            other = group.create_task(value(lib, 1, LONG))
            group.create_task(fail(lib, KeyError("a")))
            await lib.sleep(LONG)
    assert [repr(error) for error in caught.value.exceptions] == ["KeyError('a')"]
    assert str(caught.value) == "unhandled errors in a TaskGroup (1 sub-exception)"
    assert other.cancelled()
    assert lib.current_task().cancelling() == 0
    await lib.sleep(0)


@on_both
async def test_group_body_fails(lib: Any) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with lib.TaskGroup() as group:
            other = group.create_task(value(lib, 1, LONG))
            await lib.sleep(0)
            raise KeyError("body")
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert other.cancelled()


@on_both
async def test_group_collects_all_errors(lib: Any) -> None:
    async def fail_at_the_end(error: Exception) -> None:
        try:
            await lib.sleep(LONG)
        finally:
            raise error

    with pytest.raises(ExceptionGroup) as caught:
        async with lib.TaskGroup() as group:
            group.create_task(fail_at_the_end(KeyError()))
            group.create_task(fail_at_the_end(IndexError()))
            await lib.sleep(0)
            raise ValueError
    kinds = {type(error) for error in caught.value.exceptions}
    assert kinds == {KeyError, IndexError, ValueError}


@on_both
async def test_group_cancelled_member_is_no_failure(lib: Any) -> None:
    async with lib.TaskGroup() as group:
        task = group.create_task(value(lib, 1, LONG))
        await settle(lib)
        task.cancel()
    assert task.cancelled()


@on_both
async def test_group_cancelled_from_outside(lib: Any) -> None:
    for where in ("in the body", "at the end"):
        members: list[Any] = []

        async def parent(members: list[Any] = members, where: str = where) -> None:
            async with lib.TaskGroup() as group:
                members.append(group.create_task(value(lib, 1, LONG)))
                if where == "in the body":
                    await lib.sleep(LONG)

        task = lib.create_task(parent())
        await settle(lib)
        task.cancel()
        await lib.wait([task])
        assert task.cancelled()
        assert members[0].cancelled()


@SINCE_313
@on_both
async def test_group_cancelled_from_outside_while_members_fail(lib: Any) -> None:
    """The failures leave the block, and the cancellation is delivered after it."""
    seen: list[str] = []

    async def fail_when_cancelled() -> None:
        try:
            await lib.sleep(LONG)
        finally:
            raise KeyError

    async def parent() -> None:
        try:
            async with lib.TaskGroup() as group:
                group.create_task(fail_when_cancelled())
        except* KeyError:
            seen.append("group")
        assert lib.current_task().cancelling() == 1
        await lib.sleep(0)
        seen.append("not cancelled")

    task = lib.create_task(parent())
    await settle(lib)
    task.cancel()
    await lib.wait([task])
    assert task.cancelled()
    assert seen == ["group"]


@on_both
async def test_group_spawns_while_it_waits(lib: Any) -> None:
    seen: list[int] = []

    async def generation(group: Any, n: int) -> None:
        await lib.sleep(0)
        seen.append(n)
        if n < 5:
            group.create_task(generation(group, n + 1))

    async with lib.TaskGroup() as group:
        group.create_task(generation(group, 0))
    assert seen == [0, 1, 2, 3, 4, 5]


@on_both
async def test_group_create_task_at_the_wrong_time(lib: Any) -> None:
    async with lib.TaskGroup() as group:
        pass
    coroutine = value(lib, 1)
    with pytest.raises(RuntimeError, match="finished"):
        group.create_task(coroutine)
    coroutine.close()

    async def late() -> None:
        try:
            await lib.sleep(LONG)
        finally:
            coroutine = value(lib, 1)
            with pytest.raises(RuntimeError, match="shutting down"):
                group.create_task(coroutine)
            coroutine.close()

    with pytest.raises(ExceptionGroup):
        async with lib.TaskGroup() as group:
            group.create_task(late())
            await lib.sleep(0)
            raise KeyError


@on_both
async def test_groups_nest(lib: Any) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with lib.TaskGroup() as outer:
            sibling = outer.create_task(value(lib, 1, LONG))
            async with lib.TaskGroup() as inner:
                inner.create_task(fail(lib, KeyError()))
    assert sibling.cancelled()
    assert isinstance(caught.value.exceptions[0], ExceptionGroup)
    with pytest.raises(ExceptionGroup) as caught:
        async with lib.TaskGroup() as outer:
            outer.create_task(fail(lib, KeyError()))
            async with lib.TaskGroup() as inner:
                sibling = inner.create_task(value(lib, 1, LONG))
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert sibling.cancelled()
    if lib.name == "swapco" or sys.version_info >= (3, 13):
        assert lib.current_task().cancelling() == 0


@on_both
async def test_group_in_a_timeout(lib: Any) -> None:
    with pytest.raises(TimeoutError):
        async with lib.timeout(SHORT):
            async with lib.TaskGroup() as group:
                task = group.create_task(value(lib, 1, LONG))
    assert task.cancelled()
    with pytest.raises(ExceptionGroup) as caught:
        async with lib.TaskGroup() as group:
            group.create_task(fail(lib, KeyError()))
            async with lib.timeout(LONG):
                await lib.sleep(LONG)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


# ------------------------------------------------------------------------------------ gather and others


@on_both
async def test_gather(lib: Any) -> None:
    assert await lib.gather() == []
    assert await lib.gather(value(lib, 1, 0.002), value(lib, 2), value(lib, 3, 0.001)) == [1, 2, 3]
    task = lib.create_task(value(lib, 4))
    assert await lib.gather(task, task) == [4, 4]
    assert await lib.gather(task, value(lib, 5)) == [4, 5]
    coroutine = value(lib, 6)
    assert await lib.gather(coroutine, coroutine) == [6, 6]


@on_both
async def test_gather_first_exception(lib: Any) -> None:
    other = lib.create_task(value(lib, "other", LONG))
    with pytest.raises(KeyError):
        await lib.gather(other, fail(lib, KeyError()), fail(lib, IndexError(), 0.002))
    assert not other.done()
    await lib.sleep(SHORT)
    other.cancel()
    await lib.wait([other])


@on_both
async def test_gather_returns_exceptions(lib: Any) -> None:
    task = lib.create_task(value(lib, 1, LONG))
    await settle(lib)
    task.cancel()
    results = await lib.gather(value(lib, 1), fail(lib, KeyError()), task, return_exceptions=True)
    assert results[0] == 1
    assert [type(result) for result in results[1:]] == [KeyError, asyncio.CancelledError]


@on_both
async def test_gather_of_a_cancelled_task(lib: Any) -> None:
    task = lib.create_task(value(lib, 1, LONG))
    await settle(lib)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lib.gather(value(lib, 1), task)
    assert lib.current_task().cancelling() == 0


@on_both
async def test_gather_cancelled(lib: Any) -> None:
    for return_exceptions in (False, True):
        tasks = [lib.create_task(value(lib, i, LONG)) for i in range(3)]

        async def gathering(tasks: Any = tasks, flag: bool = return_exceptions) -> Any:
            return await lib.gather(*tasks, return_exceptions=flag)

        outer = lib.create_task(gathering())
        await settle(lib)
        outer.cancel()
        await lib.wait([outer])
        assert outer.cancelled()
        await settle(lib)
        assert all(task.cancelled() for task in tasks)


@on_both
async def test_gather_cancelled_but_the_children_survive(lib: Any) -> None:
    tasks = [lib.create_task(stubborn(lib)) for _ in range(3)]

    async def gathering() -> Any:
        return await lib.gather(*tasks)

    outer = lib.create_task(gathering())
    await settle(lib)
    outer.cancel()
    await lib.wait([outer])
    assert outer.cancelled()
    assert [task.result() for task in tasks] == ["survived"] * 3


@on_both
async def test_wait(lib: Any) -> None:
    slow = lib.create_task(value(lib, "slow", LONG))
    quick = lib.create_task(value(lib, "quick"))
    done, pending = await lib.wait([slow, quick], return_when="FIRST_COMPLETED")
    assert (done, pending) == ({quick}, {slow})
    done, pending = await lib.wait([slow, quick], timeout=SHORT)
    assert (done, pending) == ({quick}, {slow})
    done, pending = await lib.wait({slow, quick}, timeout=0)
    assert (done, pending) == ({quick}, {slow})
    assert not slow.cancelled()
    failing = lib.create_task(fail(lib, KeyError()))
    done, pending = await lib.wait([slow, failing], return_when="FIRST_EXCEPTION")
    assert (done, pending) == ({failing}, {slow})
    assert isinstance(failing.exception(), KeyError)
    cancelled = lib.create_task(value(lib, 1, LONG))
    await settle(lib)
    cancelled.cancel()
    done, pending = await lib.wait([slow, cancelled], return_when="FIRST_EXCEPTION", timeout=SHORT)
    assert (done, pending) == ({cancelled}, {slow})
    slow.cancel()
    done, pending = await lib.wait([slow, quick, cancelled])
    assert (done, pending) == ({slow, quick, cancelled}, set())


@on_both
async def test_wait_errors(lib: Any) -> None:
    with pytest.raises(ValueError):
        await lib.wait([])
    task = lib.create_task(value(lib, 1))
    with pytest.raises(TypeError):
        await lib.wait(task)
    with pytest.raises(ValueError):
        await lib.wait([task], return_when="SOMETIME")
    assert not task.cancelled()
    await lib.wait([task])


@on_both
async def test_wait_cancelled(lib: Any) -> None:
    task = lib.create_task(value(lib, 1, LONG))

    async def waiting() -> None:
        await lib.wait([task])

    outer = lib.create_task(waiting())
    await settle(lib)
    outer.cancel()
    await lib.wait([outer])
    assert outer.cancelled()
    assert not task.done()
    task.cancel()
    await lib.wait([task])


@on_both
async def test_wait_for(lib: Any) -> None:
    assert await lib.wait_for(value(lib, 1), LONG) == 1
    assert await lib.wait_for(value(lib, 1), None) == 1
    task = lib.create_task(value(lib, 1, LONG))
    with pytest.raises(TimeoutError):
        await lib.wait_for(task, SHORT)
    assert task.cancelled()
    with pytest.raises(KeyError):
        await lib.wait_for(fail(lib, KeyError()), LONG)
    assert lib.current_task().cancelling() == 0


@on_both
async def test_wait_for_no_time(lib: Any) -> None:
    started: list[int] = []

    async def body() -> None:
        started.append(1)

    for delay in (0, -1):
        with pytest.raises(TimeoutError):
            await lib.wait_for(body(), delay)
        task = lib.create_task(value(lib, 1, LONG))
        await settle(lib)
        with pytest.raises(TimeoutError):
            await lib.wait_for(task, delay)
        assert task.cancelled()
        done = lib.create_task(value(lib, 1))
        await lib.wait([done])
        assert await lib.wait_for(done, delay) == 1
    assert started == []
    await lib.sleep(0)


@SINCE_312
@on_both
async def test_wait_for_something_that_survives(lib: Any) -> None:
    task = lib.create_task(stubborn(lib))
    await settle(lib)
    assert await lib.wait_for(task, SHORT) == "survived"
    assert lib.current_task().cancelling() == 0
    await lib.sleep(0)


@on_both
async def test_wait_for_something_that_fails_when_cancelled(lib: Any) -> None:
    async def body() -> None:
        try:
            await lib.sleep(LONG)
        finally:
            raise KeyError

    with pytest.raises(KeyError):
        await lib.wait_for(body(), SHORT)
    assert lib.current_task().cancelling() == 0


@on_both
async def test_wait_for_cancelled(lib: Any) -> None:
    task = lib.create_task(value(lib, 1, LONG))

    async def waiting() -> None:
        await lib.wait_for(task, LONG)

    outer = lib.create_task(waiting())
    await settle(lib)
    outer.cancel()
    await lib.wait([outer])
    assert outer.cancelled()
    assert task.cancelled()


@on_both
async def test_as_completed(lib: Any) -> None:
    gates = [asyncio.get_running_loop().create_future() for _ in range(3)]

    async def opened(n: int) -> int:
        await lib.wait([gates[n]])
        return n

    async def open_them() -> None:
        for n in (1, 2, 0):
            gates[n].set_result(None)
            await settle(lib)

    tasks = [lib.create_task(opened(n)) for n in range(3)]
    await settle(lib)
    opening = lib.create_task(open_them())
    assert [r async for r in lib.results_as_completed(tasks)] == [1, 2, 0]
    await lib.wait([opening])
    assert [r async for r in lib.results_as_completed([])] == []


@on_both
async def test_as_completed_timeout(lib: Any) -> None:
    slow = lib.create_task(value(lib, "slow", LONG))
    quick = lib.create_task(value(lib, "quick"))
    await lib.wait([quick])
    seen: list[Any] = []
    with pytest.raises(TimeoutError):
        async for result in lib.results_as_completed([slow, quick], timeout=SHORT):
            seen.append(result)
    assert seen == ["quick"]
    assert not slow.done()
    slow.cancel()
    await lib.wait([slow])


@on_both
async def test_shield(lib: Any) -> None:
    gate = asyncio.get_running_loop().create_future()

    async def opened() -> int:
        await lib.wait([gate])
        return 1

    task = lib.create_task(opened())

    async def shielding() -> Any:
        return await lib.shield(task)

    outer = lib.create_task(shielding())
    await settle(lib)
    outer.cancel()
    await lib.wait([outer])
    assert outer.cancelled()
    assert not task.done()
    gate.set_result(None)
    assert await lib.shield(task) == 1
    with pytest.raises(KeyError):
        await lib.shield(fail(lib, KeyError()))


@on_both
async def test_shield_of_something_that_is_cancelled(lib: Any) -> None:
    task = lib.create_task(value(lib, 1, LONG))
    await settle(lib)
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await lib.shield(task)
    assert lib.current_task().cancelling() == 0


# -------------------------------------------------------------------------------------- tasks and fibers


@on_both
async def test_cancelled_before_it_starts(lib: Any) -> None:
    started: list[int] = []

    async def body() -> None:
        started.append(1)

    task = lib.create_task(body())
    assert task.cancel()
    await lib.wait([task])
    assert task.cancelled()
    assert not task.cancel()
    assert started == []


@on_both
async def test_cancel_message(lib: Any) -> None:
    task = lib.create_task(value(lib, 1, LONG))
    await settle(lib)
    task.cancel("because")
    await lib.wait([task])
    with pytest.raises(asyncio.CancelledError, match="because"):
        task.result()
    with pytest.raises(asyncio.CancelledError):
        task.exception()


@on_both
async def test_uncancel(lib: Any) -> None:
    counts: list[int] = []

    async def body() -> str:
        me = lib.current_task()
        try:
            await lib.sleep(LONG)
        except asyncio.CancelledError:
            counts.append(me.cancelling())
            counts.append(me.uncancel())
            counts.append(me.uncancel())
        await lib.sleep(0)
        return "went on"

    task = lib.create_task(body())
    await settle(lib)
    task.cancel()
    task.cancel()
    await lib.wait([task])
    assert task.result() == "went on"
    assert counts == [2, 1, 0]


@on_both
async def test_done_callbacks(lib: Any) -> None:
    seen: list[Any] = []
    task = lib.create_task(value(lib, 1))
    task.add_done_callback(lambda t: seen.append(("first", t is task)))
    removed = seen.append
    task.add_done_callback(removed)
    task.add_done_callback(removed)
    assert task.remove_done_callback(removed) == 2
    await lib.wait([task])
    await settle(lib)
    task.add_done_callback(lambda t: seen.append(("late", t is task)))
    assert ("late", True) not in seen
    await settle(lib)
    assert seen == [("first", True), ("late", True)]


@on_both
async def test_results_too_early(lib: Any) -> None:
    task = lib.create_task(value(lib, 1))
    assert not task.done()
    with pytest.raises(asyncio.InvalidStateError):
        task.result()
    with pytest.raises(asyncio.InvalidStateError):
        task.exception()
    await lib.wait([task])
    assert task.done()
    assert (task.result(), task.exception()) == (1, None)


@on_both
async def test_names(lib: Any) -> None:
    task = lib.create_task(value(lib, 1), name="Zoe")
    assert task.get_name() == "Zoe"
    task.set_name(5)
    assert task.get_name() == "5"
    await lib.wait([task])


@on_both
async def test_sleep_returns_its_result(lib: Any) -> None:
    assert await lib.sleep(0, "a") == "a"
    assert await lib.sleep(0.001, "b") == "b"
    assert await lib.sleep(-1, "c") == "c"
    if sys.version_info >= (3, 13):
        with pytest.raises(ValueError, match="NaN"):
            await lib.sleep(float("nan"))
