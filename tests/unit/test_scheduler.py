"""The scheduler itself: its statistics, the pool of stacks, many fibers, its errors, and fork."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import greenlet
import pytest
from helpers import SOON_S, in_fiber, run_program, settle

import swapco
from swapco._core.scheduler import Scheduler
from swapco._loop.loop import hub_of
from swapco.lowlevel import ManualClock, ParkingLot, wait_readable, wait_writable

POOL_CAP = 1024
POOL_FLOOR = 16

pytestmark = pytest.mark.usefixtures("fibers")


def statistics() -> dict[str, int]:
    return dict(swapco.current_fiber().scheduler.statistics())


# -------------------------------------------------------------------------------------------- statistics


@in_fiber
def test_statistics_count() -> None:
    """What they say is what is."""
    zero = statistics()
    assert zero["live_fibers"] == 1
    assert (zero["run_queue"], zero["timers"], zero["direct_handoffs"]) == (0, 0, 0)
    fibers = [swapco.spawn(swapco.block) for _ in range(3)]
    fibers.append(swapco.spawn(swapco.sleep, 3600))
    assert statistics()["live_fibers"] == 5
    assert statistics()["run_queue"] == 4
    settle()
    assert statistics()["run_queue"] == 0
    assert statistics()["timers"] == 1
    before = statistics()
    assert before["stacks_created"] - before["idle_stacks"] <= 5
    swapco.spawn(swapco.resume, swapco.current_fiber())
    swapco.switch_to(fibers[0])
    after = statistics()
    assert after["direct_handoffs"] == before["direct_handoffs"] + 1
    assert after["switches"] > before["switches"]
    assert after["takes"] > before["takes"]
    assert after["drains"] >= before["drains"]
    for fiber in fibers:
        fiber.cancel()
    swapco.wait(fibers)
    assert statistics()["live_fibers"] == 1
    assert statistics()["timers"] == 0


@in_fiber
def test_the_run_queue_counts_its_head_too() -> None:
    """A fiber that a handoff has put at the head of the queue is runnable."""
    fiber = swapco.spawn(int)
    swapco.resume(swapco.current_fiber())
    swapco.switch_to(fiber)
    assert fiber.state == "NEW"
    assert statistics()["run_queue"] == 1
    fiber.join()


# ----------------------------------------------------------------------------------------- the pool of stacks


def test_stacks_are_reused() -> None:
    """A thousand fibers, one after the other, need no thousand stacks."""

    def main() -> int:
        for _ in range(1000):
            swapco.spawn(int).join()
        return statistics()["stacks_created"]

    assert swapco.run(main) <= 4


def test_the_pool_is_capped() -> None:
    """Of three thousand stacks no more than 1,024 are kept when their fibers end at once."""

    def main() -> None:
        lot = ParkingLot()
        fibers = [swapco.spawn(lot.park) for _ in range(3 * POOL_CAP)]
        settle()
        assert len(lot) == 3 * POOL_CAP
        assert statistics()["stacks_created"] >= 3 * POOL_CAP
        lot.unpark_all()
        for fiber in fibers:
            fiber.join()
        # at the end of a drain at the latest
        swapco.sleep(0.002)
        assert statistics()["idle_stacks"] <= POOL_CAP
        assert live_greenlets() <= POOL_CAP + 10

    swapco.run(main)


def live_greenlets() -> int:
    gc.collect()
    return sum(isinstance(o, greenlet.greenlet) and bool(o) for o in gc.get_objects())


def test_the_pool_decays() -> None:
    """A half of the stacks that are idle goes each second, down to a few."""
    clock = ManualClock()

    def main() -> None:
        lot = ParkingLot()
        fibers = [swapco.spawn(lot.park) for _ in range(500)]
        settle()
        lot.unpark_all()
        for fiber in fibers:
            fiber.join()
        settle()
        sizes = [statistics()["idle_stacks"]]
        assert sizes[0] >= 500
        for _ in range(12):
            clock.advance(1)
            settle()
            sizes.append(statistics()["idle_stacks"])
        assert all(after <= before for before, after in zip(sizes, sizes[1:], strict=False)), sizes
        assert sizes[-1] <= POOL_FLOOR + 1, sizes
        # the first second's low-water mark may be that of a pool that still grew
        assert sizes[2] <= sizes[1] * 3 // 4, sizes

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock))


def test_the_pool_is_unwound_when_the_loop_stops() -> None:
    """Between two runs of a loop no idle stack is left."""
    before = live_greenlets()
    with swapco.Runner() as runner:
        runner.run(lambda: [swapco.spawn(int).join() for _ in range(10)])
        runner.run(lambda: swapco.wait([swapco.spawn(swapco.sleep, 0) for _ in range(50)]))
        assert hub_of(runner.get_loop()).scheduler.statistics()["idle_stacks"] == 0
        assert live_greenlets() == before
    assert live_greenlets() == before


def test_the_timer_of_the_pool_does_not_hide_a_deadlock() -> None:
    """It is housekeeping: it wakes no fiber."""
    ended = run_program(
        """
        import swapco
        def main():
            fibers = [swapco.spawn(swapco.sleep, 0.001) for _ in range(100)]
            swapco.wait(fibers)
            swapco.block()
        try:
            swapco.run(main)
        except swapco.Deadlock as error:
            print("deadlock", "main" in str(error))
        """
    )
    assert ended.stdout == "deadlock True\n", ended


# --------------------------------------------------------------------------------------------- many fibers


@pytest.mark.timeout(300)
def test_a_hundred_thousand_live_fibers() -> None:
    """They all block, they are all woken, in order; nothing is left."""
    count = 100_000
    ran: list[int] = []

    def body(number: int) -> None:
        swapco.block()
        ran.append(number)

    def main() -> None:
        fibers = [swapco.spawn(body, number) for number in range(count)]
        swapco.sleep(0)
        while fibers[-1].state == "NEW":
            swapco.sleep(0)
        assert statistics()["live_fibers"] == count + 1
        assert len(swapco.all_fibers()) == count + 1
        for fiber in fibers:
            swapco.resume(fiber)
        fibers[-1].join()
        assert ran == list(range(count))
        assert statistics()["live_fibers"] == 1

    swapco.run(main)


def test_a_hundred_thousand_new_fibers_are_cancelled() -> None:
    """Main ends before most of them have begun."""
    ran: list[int] = []

    def main() -> None:
        for number in range(100_000):
            swapco.spawn(ran.append, number)

    swapco.run(main)
    # those that had their turn until the loop stopped
    assert ran == list(range(len(ran)))
    assert len(ran) < 100_000


def test_a_chain_of_ten_thousand_fibers_each_spawned_by_the_last() -> None:
    """No recursion: the hub starts fibers."""
    depth = 10_000

    def link(number: int) -> int:
        if number == depth:
            return number
        return int(swapco.spawn(link, number + 1).join())

    assert swapco.run(link, 0) == depth


def test_a_chain_of_ten_thousand_handoffs_to_new_fibers() -> None:
    """Each hands the slot to a fiber that has not started."""
    depth = 10_000
    ran: list[int] = []

    def link(number: int, parent: swapco.Fiber) -> None:
        ran.append(number)
        if number < depth:
            swapco.switch_to(swapco.spawn(link, number + 1, swapco.current_fiber()))
            # the token of the handoff that started this one
            if number:
                swapco.block()
        swapco.resume(parent)

    def main() -> None:
        swapco.switch_to(swapco.spawn(link, 1, swapco.current_fiber()))
        while statistics()["live_fibers"] > 1:
            for fiber in swapco.all_fibers() - {swapco.current_fiber()}:
                swapco.resume(fiber)
            swapco.sleep(0)

    swapco.run(main)
    assert sorted(ran) == list(range(1, depth + 1))


def test_the_recursion_limit_of_a_fiber_does_not_depend_on_who_spawned_it() -> None:
    """Deep inside a recursion, a fiber can still recurse as deep as the main one."""

    def depth() -> int:
        try:
            return 1 + depth()
        except RecursionError:
            return 0

    def dive(left: int) -> Any:
        if left:
            return dive(left - 1)
        return swapco.spawn(depth).join()

    def main() -> tuple[int, int]:
        return swapco.spawn(depth).join(), dive(300)

    shallow, deep = swapco.run(main)
    assert abs(shallow - deep) < 20


# ------------------------------------------------------------------------------------------------ contexts


@in_fiber
def test_a_fiber_has_a_copy_of_the_spawners_context() -> None:
    """And keeps it over every switch, on whatever stack it runs."""
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default="none")
    seen: list[object] = []

    def body(number: int) -> None:
        seen.append(variable.get())
        variable.set(number)
        for _ in range(3):
            swapco.sleep(0)
            assert variable.get() == number

    variable.set("main")
    swapco.wait([swapco.spawn(body, number) for number in range(5)])
    assert seen == ["main"] * 5
    assert variable.get() == "main"
    own = contextvars.copy_context()
    own.run(variable.set, "given")
    assert swapco.spawn(variable.get, context=own).join() == "given"
    # a context is not entered while its fiber is parked
    shared = swapco.spawn(swapco.block, context=own)
    settle()
    assert own.run(variable.get) == "given"
    asyncio.get_running_loop().call_soon(int, context=own)
    swapco.resume(shared)
    shared.join()


# ------------------------------------------------------------------------------- where there is no fiber

BLOCKING: dict[str, Callable[[], Any]] = {
    "block": lambda: swapco.block(),
    "switch_to": lambda: swapco.switch_to(STRANGER[0]),
    "sleep": lambda: swapco.sleep(1),
    "sleep(0)": lambda: swapco.sleep(0),
    "join": lambda: STRANGER[0].join(),
    "await_": lambda: swapco.await_(FUTURE[0]),
    "park": lambda: ParkingLot().park(),
    "wait_readable": lambda: wait_readable(0),
    "wait_writable": lambda: wait_writable(1),
    "Lock.acquire": lambda: swapco.Lock().acquire(),
    "Semaphore.acquire": lambda: swapco.Semaphore(0).acquire(),
    "Event.wait": lambda: swapco.Event().wait(),
    "Condition.wait": lambda: swapco.Condition().wait(),
    "Barrier.wait": lambda: swapco.Barrier(2).wait(),
    "Queue.get": lambda: swapco.Queue().get(),
    "Queue.join": lambda: swapco.Queue().join(),
    "wait": lambda: swapco.wait([STRANGER[0]]),
    "gather": lambda: swapco.gather(STRANGER[0]),
    "TaskGroup": lambda: swapco.TaskGroup().__enter__(),
    "current_fiber": lambda: swapco.current_fiber(),
}

#: A fiber that is blocked, and a future that is pending, for the functions that need one.
STRANGER: list[swapco.Fiber] = []
FUTURE: list[asyncio.Future[Any]] = []


def refused(name: str) -> bool:
    try:
        BLOCKING[name]()
    except swapco.NotInFiber as error:
        assert "fiber" in str(error)
        return True
    return False


@pytest.mark.parametrize("name", BLOCKING)
@in_fiber
def test_a_blocking_call_in_the_hub_is_an_error(name: str) -> None:
    """In a loop callback, in an asyncio task, in a done callback: NotInFiber at once, and nothing is left behind."""
    loop = asyncio.get_running_loop()
    STRANGER[:] = [swapco.spawn(swapco.block)]
    FUTURE[:] = [loop.create_future()]
    settle()
    answers: list[bool] = []

    async def task() -> None:
        answers.append(refused(name))

    loop.call_soon(lambda: answers.append(refused(name)))
    loop.call_later(0, lambda: answers.append(refused(name)))
    loop.create_task(task())
    finished = swapco.spawn(int)
    finished.add_done_callback(lambda _: answers.append(refused(name)))
    while len(answers) < 4:
        swapco.sleep(0.001)
    assert answers == [True] * 4
    assert swapco.all_fibers() == {swapco.current_fiber(), STRANGER[0]}
    assert statistics()["timers"] == 0
    assert STRANGER[0].state == "BLOCKED"
    swapco.resume(STRANGER[0])
    STRANGER[0].join()
    del STRANGER[:], FUTURE[:]


@pytest.mark.parametrize("name", BLOCKING)
@in_fiber
def test_a_blocking_call_in_another_thread_is_an_error(name: str) -> None:
    """No loop runs there."""
    STRANGER[:] = [swapco.spawn(swapco.block)]
    FUTURE[:] = [asyncio.get_running_loop().create_future()]
    settle()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(refused(name)))
    thread.start()
    thread.join(SOON_S)
    assert answers == [True]
    assert STRANGER[0].state == "BLOCKED"
    swapco.resume(STRANGER[0])
    STRANGER[0].join()
    del STRANGER[:], FUTURE[:]


@pytest.mark.parametrize("name", BLOCKING)
def test_a_blocking_call_outside_run_is_an_error(name: str) -> None:
    """Before, and after the loop was closed."""

    def main() -> None:
        STRANGER[:] = [swapco.current_fiber()]
        FUTURE[:] = [asyncio.get_running_loop().create_future()]

    loop = asyncio.new_event_loop()
    try:
        swapco.run(main)
        # of a fiber that is done there is nothing to wait for
        if name not in ("join", "wait", "gather"):
            assert refused(name)
    finally:
        loop.close()
        del STRANGER[:], FUTURE[:]


@in_fiber
def test_spawn_from_another_thread_is_an_error() -> None:
    """It says what to do, and doing that works."""
    errors: list[Exception] = []
    ran: list[int] = []
    loop = asyncio.get_running_loop()

    def elsewhere() -> None:
        for call in (lambda: swapco.spawn(int), lambda: swapco.Fiber(scheduler, int)):
            try:
                call()
            except RuntimeError as error:
                errors.append(error)
        loop.call_soon_threadsafe(swapco.spawn, ran.append, 1)

    scheduler = swapco.current_fiber().scheduler
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(SOON_S)
    assert "call_soon_threadsafe" in str(errors[0])
    while not ran:
        swapco.sleep(0.001)


@pytest.mark.parametrize("wrong", [None, 1, "text", [], object(), asyncio.Lock()])
@in_fiber
def test_spawn_of_what_cannot_be_called(wrong: object) -> None:
    """TypeError that shows the rewrite; no fiber comes to be."""
    with pytest.raises(TypeError, match="spawn"):
        swapco.spawn(wrong)
    assert swapco.all_fibers() == {swapco.current_fiber()}
    assert statistics()["run_queue"] == 0


@in_fiber
def test_run_inside_run() -> None:
    """RuntimeError that says what to do, from a fiber, a callback and a coroutine; the loop goes on."""
    errors: list[BaseException] = []

    async def coroutine() -> None:
        attempt()

    def attempt() -> None:
        try:
            swapco.run(int)
        except RuntimeError as error:
            errors.append(error)

    attempt()
    asyncio.get_running_loop().call_soon(attempt)
    swapco.await_(coroutine())
    swapco.await_(asyncio.get_running_loop().create_task(coroutine()))
    settle()
    assert len(errors) == 4
    assert all("run()" in str(error) for error in errors)
    # and another loop, by hand
    other = swapco.new_event_loop()
    with pytest.raises(RuntimeError):
        other.run_forever()
    other.close()
    swapco.sleep(0)


@in_fiber
def test_a_second_loop_with_fibers_cannot_run_inside_the_first() -> None:
    """One hub a thread."""
    other = swapco.new_event_loop()
    hub_of(other)
    try:
        with pytest.raises(RuntimeError):
            other.run_forever()
    finally:
        other.close()
    swapco.sleep(0)
    assert swapco.current_fiber().state == "RUNNING"


def test_live_fibers_cannot_move_to_another_thread() -> None:
    """A loop with live fibers belongs to the thread that ran it: a clear error there, and it runs on here."""
    loop = swapco.new_event_loop()
    made: list[swapco.Fiber] = []
    errors: list[BaseException] = []

    async def first() -> None:
        made.append(swapco.spawn(swapco.block))
        await asyncio.sleep(0.001)

    async def second() -> object:
        swapco.resume(made[0], "value")
        return await made[0]

    def elsewhere() -> None:
        try:
            loop.run_forever()
        except RuntimeError as error:
            errors.append(error)

    try:
        loop.run_until_complete(first())
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(SOON_S)
        assert "another thread" in str(errors[0])
        assert loop.run_until_complete(second()) == "value"
    finally:
        loop.close()


def test_closed_and_wrong_descriptors() -> None:
    """An error at once, no registration."""

    def main() -> None:
        near, far = socket.socketpair()
        number = near.fileno()
        near.close()
        for wait in (wait_readable, wait_writable):
            with pytest.raises(OSError):
                wait(number)
            with pytest.raises((OSError, ValueError)):
                wait(near)
            with pytest.raises((OSError, ValueError)):
                wait(-1)
            with pytest.raises((TypeError, AttributeError)):
                wait("descriptor")
            with pytest.raises(ValueError, match="NaN"):
                wait(far, math.nan)
        far.close()
        reader, writer = os.pipe()
        try:
            fiber = swapco.spawn(wait_readable, reader)
            settle()
            with pytest.raises(RuntimeError, match="already"):
                wait_readable(reader)
            os.write(writer, b"x")
            fiber.join()
        finally:
            os.close(reader)
            os.close(writer)

    swapco.run(main)


def test_a_scheduler_needs_a_hub() -> None:
    """The constructor refuses what is none."""
    with pytest.raises(TypeError):
        Scheduler(object())
    with pytest.raises(TypeError, match="fiber_type"):
        Scheduler(None, fiber_type=int)


# ------------------------------------------------------------------------------------------- fatal errors


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_leave_run(error: type[BaseException]) -> None:
    """From any fiber; the others are cancelled and end."""
    ended: list[str] = []

    def other() -> None:
        try:
            swapco.block()
        finally:
            ended.append("other")

    def raises() -> None:
        raise error("from a fiber")

    def main() -> None:
        swapco.spawn(other)
        swapco.sleep(0)
        swapco.spawn(raises)
        try:
            swapco.block()
        finally:
            ended.append("main")

    with pytest.raises(error, match="from a fiber"):
        swapco.run(main)
    assert sorted(ended) == ["main", "other"]


def test_other_exceptions_stay_with_their_fiber() -> None:
    """BaseException included; join raises them."""

    class Strange(BaseException):
        pass

    def raises() -> None:
        raise Strange("mine")

    def main() -> None:
        fiber = swapco.spawn(raises)
        with pytest.raises(Strange, match="mine"):
            fiber.join()

    swapco.run(main)


def test_what_nobody_retrieves_is_logged(fibers: Any) -> None:
    """When the fiber is collected, once, with its name."""

    def main() -> None:
        swapco.spawn(lambda: 1 // 0, name="the one")
        settle()
        gc.collect()

    swapco.run(main)
    messages = fibers.take()
    assert len(messages) == 1
    assert "the one" in messages[0]
    assert "ZeroDivisionError" in messages[0] or "never retrieved" in messages[0]


# ----------------------------------------------------------------------------------------------------- fork


def test_a_child_that_forks_inside_run_starts_clean() -> None:
    """It can run a loop of its own, and does not disturb the parent's."""
    ended = run_program(
        """
        import os, swapco
        from swapco import socket
        def child():
            # no loop here
            try:
                swapco.sleep(0)
            except swapco.NotInFiber:
                print("clean", flush=True)
            print(swapco.run(lambda: [swapco.spawn(swapco.sleep, 0.001, n).join() for n in range(3)]), flush=True)
        def echo(near):
            return near.recv(10)
        def main():
            near, far = socket.socketpair()
            reader = swapco.spawn(echo, near)
            swapco.sleep(0.001)
            pid = os.fork()
            if pid == 0:
                child()
                os._exit(7)
            status = os.waitpid(pid, 0)[1]
            far.send(b"data")
            print(reader.join(), os.waitstatus_to_exitcode(status))
            near.close(); far.close()
        swapco.run(main)
        """
    )
    assert ended.stdout == "clean\n[0, 1, 2]\nb'data' 7\n", ended
    assert ended.returncode == 0


def test_a_child_whose_fiber_returns_is_ended_with_a_message() -> None:
    """There is no loop to return to."""
    ended = run_program(
        """
        import os, swapco
        def main():
            pid = os.fork()
            if pid == 0:
                return
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        swapco.run(main)
        """
    )
    assert ended.stdout == "70\n", ended
    assert "os._exit()" in ended.stderr
