"""TaskGroup: what differs from asyncio's, and what only fibers can do with it.

What is the same is in tests/api/test_tasks_parity.py.
"""


from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from typing import Any

import pytest
from helpers import in_fiber, settle

import swapco
from swapco.groups import TaskGroup
from swapco.timeouts import timeout

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0


def forever() -> None:
    swapco.sleep(LONG)


def fail(error: BaseException) -> None:
    raise error


# ------------------------------------------------------------------------------------------- spawning


@in_fiber
def test_members_are_functions_async_functions_and_coroutines() -> None:
    async def asynchronous(x: int) -> int:
        await asyncio.sleep(0)
        return x

    with TaskGroup() as group:
        members = [
            group.spawn(lambda x: x, 1),
            group.spawn(asynchronous, 2),
            group.spawn(asynchronous(3)),
            group.create_task(asynchronous(4)),
        ]
    assert [member.result() for member in members] == [1, 2, 3, 4]
    assert all(type(member) is swapco.Fiber for member in members)


@in_fiber
def test_names_contexts_and_policies_words() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("outer")
    context = contextvars.Context()
    with TaskGroup() as group:
        copied = group.spawn(variable.get, name="copied")
        given = group.spawn(variable.get, context=context, priority=3, deadline=7.0)
    assert (copied.name, copied.result()) == ("copied", "outer")
    assert (given.result(), given.priority, given.deadline) == ("unset", 3, 7.0)


@in_fiber
def test_what_cannot_be_spawned() -> None:
    async def asynchronous() -> None:
        """Never runs."""

    with TaskGroup() as group:
        with pytest.raises(TypeError, match=r"spawn\(f, x\), not spawn\(f\(x\)\)"):
            group.spawn(3)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="takes no arguments"):
            group.spawn(asynchronous(), 1)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=r"tg\.spawn\(fn, x\)"):
            group.create_task(asynchronous)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="thread=True"):
            group.spawn(asynchronous, thread=True)  # type: ignore[call-overload]


@in_fiber
def test_spawn_outside_the_block() -> None:
    async def asynchronous() -> None:
        """Never runs."""

    group = TaskGroup()
    with pytest.raises(RuntimeError, match="not been entered"):
        group.spawn(forever)
    with pytest.raises(RuntimeError, match="not been entered"):
        group.create_task(asynchronous())
    with group:
        pass
    with pytest.raises(RuntimeError, match="finished"):
        group.spawn(forever)
    with pytest.raises(RuntimeError, match="finished"):
        group.create_task(asynchronous())


@in_fiber
def test_spawn_by_the_loop() -> None:
    spawned: list[Any] = []
    with TaskGroup() as group:
        asyncio.get_running_loop().call_soon(lambda: spawned.append(group.spawn(lambda: "ran")))
        settle()
    assert spawned[0].result() == "ran"


@in_fiber
def test_spawn_by_another_thread() -> None:
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            group.spawn(forever)
        except RuntimeError as error:
            errors.append(error)

    with TaskGroup() as group:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert "call_soon_threadsafe" in str(errors[0])


@in_fiber
def test_it_is_entered_and_left_once() -> None:
    group = TaskGroup()
    with group:
        with pytest.raises(RuntimeError, match="already been entered"):
            group.__enter__()
    with pytest.raises(RuntimeError, match="already been entered"):
        group.__enter__()
    with pytest.raises(RuntimeError, match="already been left"):
        group.__exit__(None, None, None)


def test_outside_a_fiber() -> None:
    with pytest.raises(swapco.NotInFiber):
        TaskGroup().__enter__()


@in_fiber
def test_repr() -> None:
    group = TaskGroup()
    assert repr(group) == "<TaskGroup>"
    with group:
        assert repr(group) == "<TaskGroup entered>"
        group.spawn(int)
        assert repr(group) == "<TaskGroup fibers=1 entered>"


# -------------------------------------------------------------------------------------------- waiting


@in_fiber
def test_the_parent_waits_for_its_fibers_in_so_many_words() -> None:
    parent = swapco.current_fiber()

    def look() -> tuple[str, Any]:
        return parent.wait_reason, parent.waits_for_object

    with TaskGroup() as group:
        member = group.spawn(look)
    reason, target = member.result()
    assert reason == "the fibers of <TaskGroup fibers=1 entered>"
    assert target is group


@in_fiber
def test_an_empty_group_does_not_block() -> None:
    scheduler = swapco.current_fiber().scheduler
    switches = scheduler.switches
    with TaskGroup():
        pass
    with TaskGroup() as group:
        member = group.spawn(int)
        member.join()
        joined = scheduler.switches
    assert scheduler.switches == joined
    assert joined - switches <= 4


@in_fiber
def test_the_end_of_ten_thousand_members() -> None:
    with TaskGroup() as group:
        members = [group.spawn(swapco.sleep, 0, n) for n in range(10_000)]
    assert sum(member.result() for member in members) == sum(range(10_000))


@in_fiber
def test_the_body_may_join_members() -> None:
    with TaskGroup() as group:
        member = group.spawn(lambda: 7)
        assert member.join() == 7


# ------------------------------------------------------------------------------------------- failures


@in_fiber
def test_siblings_are_cancelled_before_anybody_else_runs() -> None:
    order: list[str] = []

    def sibling(name: str) -> None:
        try:
            swapco.block()
        finally:
            order.append(name)

    with pytest.raises(ExceptionGroup):
        with TaskGroup() as group:
            for name in "abc":
                group.spawn(sibling, name)
            settle()
            group.spawn(fail, KeyError())
            swapco.spawn(order.append, "bystander")
    settle()
    # cancelled in the order in which they were spawned; the bystander was in the queue before
    assert order == ["bystander", "a", "b", "c"]


@in_fiber
def test_a_member_that_has_not_started_never_runs() -> None:
    started: list[int] = []
    with pytest.raises(ExceptionGroup):
        with TaskGroup() as group:
            group.spawn(fail, KeyError())
            group.spawn(started.append, 1)
    assert started == []


@in_fiber
def test_the_failure_of_a_member_interrupts_the_body() -> None:
    reached = []
    with pytest.raises(ExceptionGroup) as caught:
        with TaskGroup() as group:
            group.spawn(fail, KeyError("member"))
            try:
                forever()
            finally:
                reached.append(swapco.current_fiber().cancelling())
    assert reached == [1]
    assert swapco.current_fiber().cancelling() == 0
    assert [str(error) for error in caught.value.exceptions] == ["'member'"]
    assert caught.value.__cause__ is None


@in_fiber
def test_a_body_that_does_not_suspend_after_a_failure() -> None:
    """The group's cancellation of the parent was never delivered: it must not come after the block."""
    me = swapco.current_fiber()
    for survived in (False, True):
        if survived:
            me.cancel()
            with pytest.raises(asyncio.CancelledError):
                swapco.sleep(0)

        def waker() -> None:
            swapco.resume(me)
            raise KeyError

        with pytest.raises(ExceptionGroup):
            with TaskGroup() as group:
                group.spawn(waker)
                # resumed and cancelled before it runs again: the resume has won
                swapco.block()
        assert me.cancelling() == int(survived)
        swapco.sleep(0)
    me.uncancel()


@in_fiber
def test_body_and_members_fail() -> None:
    def fail_when_cancelled() -> None:
        try:
            forever()
        finally:
            raise IndexError

    with pytest.raises(ExceptionGroup) as caught:
        with TaskGroup() as group:
            group.spawn(fail_when_cancelled)
            settle()
            raise KeyError
    assert [type(error) for error in caught.value.exceptions] == [IndexError, KeyError]
    # and the traceback of the body's error leads into the body
    assert caught.value.exceptions[1].__traceback__ is not None


@in_fiber
def test_errors_that_are_no_exceptions_make_a_base_exception_group() -> None:
    class Odd(BaseException):
        pass

    with pytest.raises(BaseExceptionGroup) as caught:
        with TaskGroup() as group:
            group.spawn(fail, Odd())
    assert not isinstance(caught.value, ExceptionGroup)


@in_fiber
def test_a_member_that_ends_in_a_cancelled_error_of_its_own() -> None:
    with TaskGroup() as group:
        member = group.spawn(fail, asyncio.CancelledError())
        other = group.spawn(lambda: 1)
    assert member.cancelled()
    assert other.result() == 1


@in_fiber
def test_joining_a_cancelled_member_in_the_body() -> None:
    with pytest.raises(asyncio.CancelledError):
        with TaskGroup() as group:
            member = group.spawn(forever)
            other = group.spawn(forever)
            member.cancel()
            member.join()
    assert other.cancelled()
    assert swapco.current_fiber().cancelling() == 0


@in_fiber
def test_errors_count_as_retrieved() -> None:
    with pytest.raises(ExceptionGroup):
        with TaskGroup() as group:
            for _ in range(3):
                group.spawn(fail, KeyError())
    gc.collect()  # the fixture sees it if an error is logged


# --------------------------------------------------------------- KeyboardInterrupt, SystemExit, deadlocks


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_of_a_member_they_leave_run(kind: type[BaseException]) -> None:
    left: list[BaseException] = []

    def main() -> None:
        try:
            with TaskGroup() as group:
                group.spawn(forever)
                group.spawn(fail, kind())
        except BaseException as error:
            left.append(error)
            raise

    with pytest.raises(kind):
        swapco.run(main)
    assert [type(error) for error in left] == [kind]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_of_the_body_they_leave_the_block(kind: type[BaseException]) -> None:
    members: list[Any] = []

    def main() -> None:
        with TaskGroup() as group:
            members.append(group.spawn(forever))
            settle()
            raise kind

    with pytest.raises(kind):
        swapco.run(main)
    assert members[0].cancelled()


# --------------------------------------------------------------------------- cancellation from outside


@in_fiber
def test_cancelled_twice_while_waiting() -> None:
    release = asyncio.Event()

    def slow_to_end() -> str:
        try:
            forever()
        except asyncio.CancelledError:
            swapco.await_(release.wait())
        return "cleaned up"

    members: list[Any] = []

    def parent() -> None:
        with TaskGroup() as group:
            members.append(group.spawn(slow_to_end))

    fiber = swapco.spawn(parent)
    settle()
    fiber.cancel("first")
    settle()
    fiber.cancel("second")
    settle()
    assert not fiber.done()
    release.set()
    with pytest.raises(asyncio.CancelledError, match="first"):
        fiber.join()
    assert members[0].result() == "cleaned up"


@in_fiber
def test_a_group_that_was_aborted_stays_aborted() -> None:
    errors: list[BaseException] = []

    def late() -> None:
        try:
            forever()
        finally:
            try:
                group.spawn(forever)
            except RuntimeError as error:
                errors.append(error)

    with pytest.raises(ExceptionGroup):
        with TaskGroup() as group:
            group.spawn(late)
            settle()
            raise KeyError
    assert "shutting down" in str(errors[0])


@in_fiber
def test_a_parent_that_survived_a_cancellation() -> None:
    """An old request that nobody took back is not mistaken for a new one."""
    me = swapco.current_fiber()
    me.cancel()
    with pytest.raises(asyncio.CancelledError):
        swapco.sleep(0)
    with pytest.raises(ExceptionGroup):
        with TaskGroup() as group:
            group.spawn(fail, KeyError())
            forever()
    assert me.cancelling() == 1
    swapco.sleep(0)
    me.uncancel()


@in_fiber
def test_groups_in_groups_in_a_timeout() -> None:
    cancelled: list[int] = []
    leaves: list[int] = []

    def nest(depth: int) -> None:
        if depth == 0:
            leaves.append(1)
            if len(leaves) == 2**6:
                # all are there: the time is over
                limit.reschedule(0)
            try:
                forever()
            finally:
                cancelled.append(1)
        with TaskGroup() as group:
            group.spawn(nest, depth - 1)
            group.spawn(nest, depth - 1)

    with pytest.raises(TimeoutError):
        with timeout(None) as limit:
            nest(6)
    assert len(cancelled) == 2**6
    assert swapco.all_fibers() == {swapco.current_fiber()}


# ---------------------------------------------------------------------------------- what it leaves behind


@in_fiber
def test_exceptions_make_no_cycles() -> None:
    class Marker:
        pass

    references: list[weakref.ref[Any]] = []

    def fail_with_a_marker() -> None:
        marker = Marker()
        references.append(weakref.ref(marker))
        raise KeyError

    gc.collect()
    gc.disable()
    try:
        try:
            with TaskGroup() as group:
                group.spawn(fail_with_a_marker)
        except* KeyError:
            pass
        del group
        settle()
        assert references[0]() is None
    finally:
        gc.enable()


@in_fiber
def test_in_a_coroutine_with_asyncios_group_around() -> None:
    async def body() -> str:
        async with asyncio.TaskGroup() as outer:
            task = outer.create_task(asyncio.sleep(0, "task"))
            with TaskGroup() as inner:
                fiber = inner.spawn(lambda: swapco.await_(asyncio.sleep(0, "fiber")))
        return f"{task.result()} {fiber.result()}"

    assert swapco.await_(body()) == "task fiber"
