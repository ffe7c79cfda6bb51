"""Scenarios of what lives with fibers: groups, time limits, waits for several, joins, calls on threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from own_laws import CANCELLED, LATE, Make, Scenario

import swapco
from swapco import Fiber
from swapco.testing import schedule_point

__all__ = ["SCENARIOS", "UNDISTURBED"]

GONE = (CANCELLED, LATE)


class Members:
    """Who has begun, and how they have ended."""

    def __init__(self) -> None:
        self.fibers: list[Fiber[Any]] = []
        self.begun: list[int] = []
        self.ended: list[int] = []

    def member(self, number: int, error: type[BaseException] | None = None) -> Callable[[], int]:
        def run() -> int:
            self.begun.append(number)
            try:
                swapco.sleep(0)
                if error is not None:
                    raise error(number)
                schedule_point(self)
                return number
            finally:
                self.ended.append(number)

        return run

    def all_over(self) -> None:
        assert all(fiber.done() for fiber in self.fibers), "a member outlives its group"
        assert sorted(self.begun) == sorted(self.ended)


def group() -> Scenario:
    """No member outlives the group, however the parent leaves it."""
    members = Members()

    def parent() -> list[Any]:
        try:
            with swapco.TaskGroup() as tg:
                members.fibers.append(tg.spawn(members.member(0)))
                schedule_point(members)
                members.fibers.append(tg.spawn(members.member(1)))
        finally:
            members.all_over()
        return [fiber.result() for fiber in members.fibers]

    def law(ends: list[Any]) -> None:
        assert ends == [[0, 1]] or ends[0] in GONE
        members.all_over()

    return Scenario([parent], law)


def failing_group() -> Scenario:
    """The first failure cancels the rest; all failures come out, and only they."""
    members = Members()

    def parent() -> str:
        error: BaseExceptionGroup[BaseException] | None = None
        try:
            with swapco.TaskGroup() as tg:
                members.fibers.append(tg.spawn(members.member(0, ValueError)))
                members.fibers.append(tg.spawn(members.member(1, KeyError)))
                members.fibers.append(tg.spawn(members.member(2)))
                swapco.sleep(0)
        except BaseExceptionGroup as caught:
            error = caught
        finally:
            members.all_over()
        if error is None:
            assert all(fiber.cancelled() for fiber in members.fibers), "a failure is lost"
            raise AssertionError("a group whose members fail ends with their failures")
        raised = [fiber.exception() for fiber in members.fibers if not fiber.cancelled()]
        failures = [failure for failure in raised if failure is not None]
        assert failures
        assert sorted(map(repr, error.exceptions)) == sorted(map(repr, failures))
        return "failed"

    def law(ends: list[Any]) -> None:
        assert ends[0] == "failed" or ends[0] in GONE
        members.all_over()

    return Scenario([parent], law)


def group_that_grows() -> Scenario:
    """A member may spawn members: the block waits for those, too."""
    members = Members()

    def parent() -> None:
        with swapco.TaskGroup() as tg:

            def spawner() -> None:
                swapco.sleep(0)
                members.fibers.append(tg.spawn(members.member(1)))

            members.fibers.append(tg.spawn(spawner))
        members.all_over()
        assert members.begun == [1]

    def law(ends: list[Any]) -> None:
        members.all_over()

    return Scenario([parent], law)


def group_in_a_group() -> Scenario:
    """A failure in an inner group ends the outer one, too, and its members."""
    members = Members()

    def parent() -> str:
        try:
            with swapco.TaskGroup() as outer:
                members.fibers.append(outer.spawn(members.member(0)))
                with swapco.TaskGroup() as inner:
                    members.fibers.append(inner.spawn(members.member(1, ValueError)))
        except BaseExceptionGroup as error:
            assert error.split(ValueError)[1] is None
            return "failed"
        finally:
            members.all_over()
        return "passed"

    def law(ends: list[Any]) -> None:
        assert ends[0] == "failed" or ends[0] in GONE
        members.all_over()

    return Scenario([parent], law)


def join_of_two() -> Scenario:
    """Two join one: both get its result, and cancelling a joiner disturbs nobody else."""
    target: list[Fiber[str]] = []

    def work() -> str:
        swapco.sleep(0)
        schedule_point()
        return "result"

    def joiner() -> str:
        if not target:
            target.append(swapco.spawn(work))
        return target[0].join()

    def law(ends: list[Any]) -> None:
        assert all(end in (*GONE, "result") for end in ends)
        assert not target or target[0].join() == "result"

    return Scenario([joiner, joiner], law)


def gathered() -> Scenario:
    """``gather`` returns results in the order of its arguments; cancelled, it cancels them and waits for their ends."""
    members = Members()

    def caller() -> list[int]:
        members.fibers = [swapco.spawn(members.member(number)) for number in range(2)]
        try:
            return swapco.gather(*members.fibers)
        except swapco.CancelledError:
            members.all_over()
            raise

    def law(ends: list[Any]) -> None:
        assert ends == [[0, 1]] or ends[0] in GONE
        members.all_over()

    return Scenario([caller], law)


def gathered_failure() -> Scenario:
    """The first exception comes out at once, the others run on."""
    members = Members()

    def caller() -> str:
        members.fibers = [swapco.spawn(members.member(n, ValueError if n else None)) for n in range(2)]
        try:
            swapco.gather(*members.fibers)
        except ValueError:
            return "failed"
        return "passed"

    def law(ends: list[Any]) -> None:
        assert ends[0] == "failed" or ends[0] in GONE
        swapco.wait(members.fibers) if members.fibers else None
        assert ends[0] in GONE or not members.fibers[0].cancelled()

    return Scenario([caller], law)


def waited() -> Scenario:
    """``wait`` cancels nothing, and tells right who is done, whatever ends first."""
    members = Members()

    def caller() -> int:
        members.fibers = [swapco.spawn(members.member(number)) for number in range(2)]
        done, pending = swapco.wait(members.fibers, timeout=0, return_when=swapco.FIRST_COMPLETED)
        assert done | pending == set(members.fibers)
        assert not done & pending
        assert all(fiber.done() for fiber in done)
        assert not any(fiber.done() for fiber in pending)
        return len(done)

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, 0, 1, 2)
        assert [fiber.join() for fiber in members.fibers] == [0, 1][: len(members.fibers)]

    return Scenario([caller], law)


def completed() -> Scenario:
    """``as_completed`` yields each exactly once, in the order in which they end."""
    members = Members()
    seen: list[int] = []

    def caller() -> None:
        members.fibers = [swapco.spawn(members.member(number)) for number in range(3)]
        for fiber in swapco.as_completed(members.fibers):
            assert fiber.done()
            seen.append(fiber.result())

    def law(ends: list[Any]) -> None:
        assert seen == members.ended if ends[0] not in GONE else seen == members.ended[: len(seen)]

    return Scenario([caller], law)


def limited_wait() -> Scenario:
    """``wait_for``: a result that came in time comes out; else what was waited for is cancelled, and has ended."""
    children: list[Fiber[str]] = []

    def child() -> str:
        swapco.sleep(1)
        schedule_point()
        return "result"

    def caller() -> str:
        children.append(swapco.spawn(child))
        try:
            result = swapco.wait_for(children[0], 1)
        except TimeoutError:
            assert children[0].cancelled()
            return "timeout"
        assert children[0].result() == result
        return result

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, "result", "timeout")
        assert all(fiber.done() for fiber in children)

    return Scenario([caller], law)


def shielded() -> Scenario:
    """What is shielded runs on to its end, also if the caller is cancelled."""
    ran: list[str] = []

    def work() -> str:
        swapco.sleep(0)
        ran.append("ran")
        return "result"

    def caller() -> str:
        work_fiber.append(swapco.spawn(work))
        return swapco.shield(work_fiber[0])

    work_fiber: list[Fiber[str]] = []

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, "result")
        if work_fiber:
            assert work_fiber[0].join() == "result"
            assert ran == ["ran"]

    return Scenario([caller], law)


def nested_limits() -> Scenario:
    """The outer limit is over in the same instant as the inner one: each block ends with the error of its own."""
    log: list[str] = []

    def caller() -> str:
        try:
            with swapco.timeout(1) as outer:
                try:
                    with swapco.timeout(1) as inner:
                        swapco.sleep(1)
                        log.append("slept")
                except TimeoutError:
                    assert inner.expired()
                    log.append("inner")
                swapco.sleep(0)
                log.append("after")
        except TimeoutError:
            assert outer.expired()
            log.append("outer")
        # nothing of either limit is left
        swapco.sleep(0)
        assert swapco.current_fiber().cancelling() == 0 or "disturbed" in log
        return "ended"

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, "ended")

    return Scenario([caller], law, victims=())


def limit_and_wakeup() -> Scenario:
    """An event that is set in the instant in which the time is over: told, or late, and never both."""
    flag = swapco.Event()
    log: list[str] = []

    def waiter() -> str:
        try:
            with swapco.timeout(1) as time:
                flag.wait()
                log.append("told")
        except TimeoutError:
            assert time.expired()
            log.append("late")
        swapco.sleep(0)
        return "ended"

    def setter() -> None:
        swapco.sleep(1)
        flag.set()

    def law(ends: list[Any]) -> None:
        assert log in (["told"], ["late"]) or ends[0] in GONE
        assert len(log) <= 1

    return Scenario([waiter, setter], law, victims=(0,))


def threads() -> Scenario:
    """A call on a thread runs exactly once, to its end; a caller that is cancelled leaves it to itself."""
    calls: list[str] = []

    def call(name: str) -> str:
        calls.append(f"{name} begins")
        with swapco.blocking():
            schedule_point()
        calls.append(f"{name} ends")
        return name

    def caller(name: str) -> Callable[[], str]:
        return lambda: swapco.to_thread(call, name)

    def law(ends: list[Any]) -> None:
        while any(fiber is not swapco.current_fiber() for fiber in swapco.all_fibers()):
            swapco.sleep(0)
        for name, end in zip("ab", ends, strict=True):
            assert end in (*GONE, name)
            times = calls.count(f"{name} begins")
            assert times == calls.count(f"{name} ends") == (1 if end == name else times)
            assert times <= 1

    return Scenario([caller("a"), caller("b")], law)


def thread_fibers() -> Scenario:
    """Thread fibers use the primitives like all others."""
    lock, queue = swapco.Lock(), swapco.Queue[int](1)
    inside = [0]
    gotten: list[int] = []

    def produce() -> None:
        for item in range(2):
            with lock:
                inside[0] += 1
                assert inside[0] == 1
                with swapco.blocking():
                    schedule_point()
                inside[0] -= 1
            queue.put(item)

    def start(fn: Callable[[], None]) -> Callable[[], None]:
        return lambda: swapco.spawn(fn, thread=True).join()

    def consume() -> None:
        for _ in range(2):
            gotten.append(queue.get())
            with lock:
                inside[0] += 1
                assert inside[0] == 1
                inside[0] -= 1

    def law(ends: list[Any]) -> None:
        assert gotten == [0, 1]
        assert not lock.locked()

    return Scenario([start(produce), start(consume)], law, victims=())


def coroutines() -> Scenario:
    """``async with`` on a lock, a semaphore, a condition and a barrier, and futures of the loop."""
    lock, permits, meeting = swapco.Lock(), swapco.Semaphore(1), swapco.Barrier(2)
    changed = swapco.Condition(lock)
    inside = [0]
    passed: list[int] = []

    async def visit() -> None:
        async with permits, lock:
            inside[0] += 1
            assert inside[0] == 1
            schedule_point()
            await asyncio.sleep(0)
            inside[0] -= 1
            changed.notify_all()
        async with meeting as index:
            passed.append(index)
        async with changed:
            assert lock.owner is swapco.current_fiber()

    def law(ends: list[Any]) -> None:
        assert sorted(passed) == [0, 1]
        assert permits.statistics() == (1, 0)
        assert not lock.locked()

    return Scenario([lambda: swapco.spawn(visit).join()] * 2, law, victims=())


def coroutine_locks() -> Scenario:
    """A coroutine that is cancelled anywhere in ``async with`` leaves nothing locked."""
    lock, permits = swapco.Lock(), swapco.Semaphore(1)
    visits: list[int] = []

    def visitor(number: int) -> Callable[[], Any]:
        async def visit() -> None:
            async with lock, permits:
                await asyncio.sleep(0)
                visits.append(number)

        return lambda: swapco.await_(visit())

    def law(ends: list[Any]) -> None:
        assert sorted(visits) == [number for number, end in enumerate(ends) if end not in GONE]
        assert lock.statistics() == (False, None, 0, 0)
        assert permits.statistics() == (1, 0)

    return Scenario([visitor(0), visitor(1)], law)


def futures() -> Scenario:
    """A callback of the loop sets the result of a future that two fibers await; a cancelled one takes no other along."""

    def law(ends: list[Any]) -> None:
        assert all(end in (*GONE, "result") for end in ends)

    future: list[asyncio.Future[str]] = []

    def await_it() -> str:
        if not future:
            loop = asyncio.get_running_loop()
            future.append(loop.create_future())
            loop.call_soon(future[0].set_result, "result")
        return swapco.await_(asyncio.shield(future[0]))

    return Scenario([await_it, await_it], law)


SCENARIOS: dict[str, Make] = {
    make.__name__: make
    for make in (
        group,
        failing_group,
        group_that_grows,
        group_in_a_group,
        join_of_two,
        gathered,
        gathered_failure,
        waited,
        completed,
        limited_wait,
        shielded,
        limit_and_wakeup,
        threads,
        coroutine_locks,
        futures,
    )
}
UNDISTURBED: dict[str, Make] = {make.__name__: make for make in (nested_limits, thread_fibers, coroutines)}
