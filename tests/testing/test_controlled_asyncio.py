"""asyncio code in a controlled run: the same meaning, every order; and what no schedule could repeat is refused."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import swapco
from swapco import testing
from swapco.testing import RealIOError

Body = Callable[[], Any]


def passes(body: Body, **options: Any) -> testing.Result:
    """Under a hundred schedules; raises what fails."""
    return testing.search(body, schedules=100, save=False, **options).check()


def outcomes(body: Callable[[], Awaitable[Any]]) -> set[Any]:
    """What it returns, in every schedule."""
    found = set()

    async def noting() -> None:
        found.add(await body())

    result = testing.verify(noting, preemption_bound=None, save=False).check()
    assert result.exhausted
    return found


def now() -> float:
    return asyncio.get_running_loop().time()


# ---------------------------------------------------------------------------------------------- the same meaning


def test_tasks_are_fibers_and_have_results_names_and_errors() -> None:
    async def body() -> None:
        async def fails() -> None:
            await asyncio.sleep(0)
            raise LookupError("of the task")

        task = asyncio.create_task(asyncio.sleep(1, "result"), name="a name")
        assert isinstance(task, swapco.Fiber)
        assert task.get_name() == "a name"
        assert await task == "result"
        with pytest.raises(LookupError, match="of the task"):
            await asyncio.create_task(fails())
        task = asyncio.create_task(asyncio.sleep(1))
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
        assert task.cancelled()
        assert asyncio.current_task() in asyncio.all_tasks()

    passes(body)


def test_gather_keeps_the_order_and_the_first_error() -> None:
    async def body() -> None:
        async def work(i: int) -> int:
            await asyncio.sleep(0)
            if i < 0:
                raise ValueError(i)
            return i

        assert await asyncio.gather(*[work(i) for i in range(3)]) == [0, 1, 2]
        results = await asyncio.gather(work(1), work(-2), return_exceptions=True)
        assert results[0] == 1
        assert isinstance(results[1], ValueError)
        with pytest.raises(ValueError):
            await asyncio.gather(work(1), work(-2))

    passes(body)


def test_a_task_group_ends_with_its_tasks_and_cancels_them_after_an_error() -> None:
    async def body() -> None:
        done: list[int] = []

        async def work(i: int) -> None:
            await asyncio.sleep(i)
            done.append(i)

        async def fails() -> None:
            raise LookupError

        async with asyncio.TaskGroup() as group:
            for i in range(3):
                group.create_task(work(i))
        assert sorted(done) == [0, 1, 2]
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(work(99))
                group.create_task(fails())
        assert [type(error) for error in caught.value.exceptions] == [LookupError]
        assert 99 not in done

    passes(body)


def test_locks_conditions_and_semaphores_exclude() -> None:
    async def body() -> None:
        lock, semaphore, condition = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Condition()
        count, inside, ready = 0, 0, 0

        async def work() -> None:
            nonlocal count, inside, ready
            async with lock:
                value = count
                await asyncio.sleep(0)
                count = value + 1
            async with semaphore:
                inside += 1
                await asyncio.sleep(0)
                assert inside <= 2
                inside -= 1
            async with condition:
                ready += 1
                condition.notify_all()

        async def waits() -> None:
            async with condition:
                await condition.wait_for(lambda: ready == 3)

        await asyncio.gather(waits(), *[work() for _ in range(3)])
        assert count == 3

    passes(body)


def test_a_queue_delivers_everything_once_and_in_order() -> None:
    async def body() -> None:
        queue = asyncio.Queue[int](1)
        got: list[int] = []

        async def produce() -> None:
            for i in range(3):
                await queue.put(i)

        async def consume() -> None:
            for _ in range(3):
                got.append(await queue.get())
                queue.task_done()

        await asyncio.gather(produce(), consume())
        await queue.join()
        assert got == [0, 1, 2]

    passes(body)


def test_timeouts_are_in_virtual_time() -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(10)
        assert now() == 5
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1)
        assert now() == 6
        tasks = [asyncio.create_task(asyncio.sleep(i)) for i in (1, 2, 4)]
        done, pending = await asyncio.wait(tasks, timeout=3)
        assert (len(done), len(pending)) == (2, 1)
        assert now() == 9
        async with asyncio.timeout(100):
            await asyncio.wait(pending)
        assert now() == 10

    passes(body)


def test_shield_and_as_completed() -> None:
    async def body() -> None:
        async def work(i: float) -> float:
            await asyncio.sleep(i)
            return i

        task = asyncio.create_task(work(1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.5)
        assert await task == 1
        assert [await next_one for next_one in asyncio.as_completed([work(3), work(1), work(2)])] == [1, 2, 3]

    passes(body)


def test_events_and_barriers() -> None:
    async def body() -> None:
        event, log = asyncio.Event(), list[int]()

        async def waits(i: int) -> None:
            await event.wait()
            log.append(i)

        tasks = [asyncio.create_task(waits(i)) for i in range(2)]
        await asyncio.sleep(1)
        assert log == []
        event.set()
        await asyncio.gather(*tasks)
        assert sorted(log) == [0, 1]
        barrier = asyncio.Barrier(2)
        assert sorted(await asyncio.gather(barrier.wait(), barrier.wait())) == [0, 1]

    passes(body)


def test_context_variables_belong_to_their_task() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def body() -> None:
        async def work(i: int) -> None:
            variable.set(i)
            await asyncio.sleep(0)
            assert variable.get() == i

        await asyncio.gather(work(1), work(2))
        assert variable.get() == 0
        seen: list[int] = []
        context = contextvars.copy_context()
        await asyncio.create_task(work(3), context=context)
        asyncio.get_running_loop().call_soon(lambda: seen.append(variable.get()), context=context)
        await asyncio.sleep(1)
        assert seen == [3]

    passes(body)


def test_calls_of_executors_are_fibers_and_their_order_is_a_choice() -> None:
    async def body() -> tuple[str, ...]:
        order: list[str] = []
        here = threading.get_ident()

        def call(name: str) -> str:
            assert threading.get_ident() == here
            order.append(name)
            return name

        loop = asyncio.get_running_loop()
        results = await asyncio.gather(asyncio.to_thread(call, "a"), loop.run_in_executor(None, call, "b"))
        assert results == ["a", "b"]
        return tuple(order)

    assert outcomes(body) == {("a", "b"), ("b", "a")}


# ------------------------------------------------------------------------------------------- callbacks, futures


def test_callbacks_come_in_order_and_their_moment_is_a_choice() -> None:
    """Between them, fibers may run: that is what a schedule decides.  Their own order it does not."""

    async def body() -> tuple[str, ...]:
        loop, log = asyncio.get_running_loop(), list[str]()

        async def task() -> None:
            log.append("task")

        for name in ("first", "second"):
            loop.call_soon(log.append, name)
        await asyncio.create_task(task())
        await asyncio.sleep(1)
        return tuple(log)

    assert outcomes(body) == {
        ("task", "first", "second"), ("first", "task", "second"), ("first", "second", "task"),
    }  # fmt: skip


def test_callbacks_of_one_instant_come_in_any_order() -> None:
    async def body() -> tuple[str, ...]:
        loop, log = asyncio.get_running_loop(), list[str]()
        loop.call_later(5, log.append, "a")
        loop.call_later(5, log.append, "b")
        loop.call_later(6, log.append, "later")
        await asyncio.sleep(7)
        return tuple(log)

    assert outcomes(body) == {("a", "b", "later"), ("b", "a", "later")}


def test_a_cancelled_call_later_is_no_choice() -> None:
    async def body() -> float:
        loop = asyncio.get_running_loop()
        handle = loop.call_later(5, pytest.fail, "it was called")
        other = loop.call_at(5, pytest.fail, "it was called")
        await asyncio.sleep(1)
        handle.cancel()
        other.cancel()
        assert handle.cancelled()
        assert handle.when() == 5
        await asyncio.sleep(9)
        return now()

    result = testing.search(body, save=False).check()
    assert (result.schedules, result.exhausted) == (1, True)
    assert testing.run(body) == 10


def test_a_future_wakes_who_awaits_it_and_calls_back() -> None:
    async def body() -> None:
        loop, log = asyncio.get_running_loop(), list[str]()
        future: asyncio.Future[int] = loop.create_future()
        future.add_done_callback(lambda _: log.append("called back"))
        loop.call_soon(future.set_result, 3)
        assert await future == 3
        failing: asyncio.Future[int] = loop.create_future()
        loop.call_soon(failing.set_exception, LookupError())
        with pytest.raises(LookupError):
            await failing
        await asyncio.sleep(1)
        assert log == ["called back"]

    passes(body)


def test_a_future_that_nobody_sets_is_a_lost_wakeup() -> None:
    async def body() -> None:
        await asyncio.get_running_loop().create_future()

    result = testing.search(body, save=False)
    assert isinstance(result.exception, testing.LostWakeup)


def test_a_coroutine_may_call_what_blocks() -> None:
    """Tasks are fibers: a plain function that blocks lets the others run."""

    async def body() -> None:
        lock = swapco.Lock()

        async def work() -> None:
            with lock:
                swapco.sleep(1)

        await asyncio.gather(work(), work())
        assert now() == 2

    passes(body)


# -------------------------------------------------------------------------------------------- what goes wrong


def test_a_race_between_tasks_is_found_and_shrunk() -> None:
    async def body() -> None:
        count = 0

        async def work() -> None:
            nonlocal count
            value = count
            await asyncio.sleep(0)
            count = value + 1

        await asyncio.gather(work(), work(), work())
        assert count == 3

    result = testing.search(body, save=False)
    assert result.failed
    assert (result.preemptions, result.minimal) == (0, True)


def test_an_error_of_a_callback_goes_to_the_handler_or_fails_the_run() -> None:
    async def handled() -> None:
        loop, seen = asyncio.get_running_loop(), list[dict[str, Any]]()
        loop.set_exception_handler(lambda _, context: seen.append(context))
        assert loop.get_exception_handler() is not None
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)
        assert isinstance(seen[0]["exception"], ZeroDivisionError)

    async def not_handled() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    passes(handled)
    result = testing.search(not_handled, save=False)
    assert isinstance(result.exception, ZeroDivisionError)


def test_the_handler_of_one_run_is_not_that_of_the_next() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        assert loop.get_exception_handler() is None
        loop.set_exception_handler(lambda _, context: None)

    passes(body)


def test_a_task_that_fails_and_is_not_awaited_fails_the_run() -> None:
    async def body() -> None:
        async def fails() -> None:
            raise LookupError("nobody looked")

        asyncio.create_task(fails())
        await asyncio.sleep(1)

    result = testing.search(body, save=False)
    assert isinstance(result.exception, LookupError)


def test_the_loop_belongs_to_the_run() -> None:
    def body() -> None:
        loop: Any = asyncio.get_running_loop()
        assert loop.is_running()
        assert not loop.is_closed()
        coroutine = asyncio.sleep(0)
        for call in (
            loop.run_forever, loop.stop, loop.close, lambda: loop.run_until_complete(coroutine),
            lambda: loop.set_task_factory(lambda *_: None), lambda: asyncio.run(coroutine),
        ):  # fmt: skip
            with pytest.raises(RuntimeError):
                call()
        coroutine.close()

    passes(body)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


# ---------------------------------------------------------------------------------------------- what is refused


def of_a_socket(method: str, *arguments: Any) -> Body:
    def call() -> None:
        here, there = swapco.socket.socketpair()
        with here, there:
            getattr(here, method)(*arguments)

    return call


def connects() -> None:
    swapco.open_connection("127.0.0.1", 9)


def connects_a_socket() -> None:
    swapco.socket.create_connection(("127.0.0.1", 9))


def serves() -> None:
    swapco.start_server(print, "127.0.0.1", 0)


def accepts() -> None:
    with swapco.socket.create_server(("127.0.0.1", 0)) as listener:
        listener.accept()


def looks_up() -> None:
    swapco.socket.getaddrinfo("localhost", 9)


async def connects_by_asyncio() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def serves_by_asyncio() -> None:
    await asyncio.start_server(print, "127.0.0.1", 0)


async def starts_a_process() -> None:
    await asyncio.create_subprocess_exec("true")


async def starts_a_shell() -> None:
    await asyncio.create_subprocess_shell("true")


async def handles_a_signal() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)


async def looks_up_by_the_loop() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 9)


async def looks_for_a_name() -> None:
    await asyncio.get_running_loop().getnameinfo(("127.0.0.1", 9))


async def receives_by_the_loop() -> None:
    here, there = socket.socketpair()
    with here, there:
        await asyncio.get_running_loop().sock_recv(here, 1)


async def watches_a_descriptor() -> None:
    asyncio.get_running_loop().add_reader(0, print)


REFUSED = {
    "recv": (of_a_socket("recv", 1), "I/O on a descriptor"),
    "recv_into": (of_a_socket("recv_into", bytearray(1)), "I/O on a descriptor"),
    "accept": (accepts, "I/O on a descriptor"),
    "create_connection": (connects_a_socket, "resolving an address"),
    "open_connection": (connects, "resolving an address"),
    "start_server": (serves, "I/O on a descriptor"),
    "getaddrinfo": (looks_up, "loop.getaddrinfo()"),
    "asyncio.open_connection": (connects_by_asyncio, "loop.create_connection()"),
    "asyncio.start_server": (serves_by_asyncio, "loop.create_server()"),
    "create_subprocess_exec": (starts_a_process, "loop.subprocess_exec()"),
    "create_subprocess_shell": (starts_a_shell, "loop.subprocess_shell()"),
    "add_signal_handler": (handles_a_signal, "loop.add_signal_handler()"),
    "loop.getaddrinfo": (looks_up_by_the_loop, "loop.getaddrinfo()"),
    "loop.getnameinfo": (looks_for_a_name, "loop.getnameinfo()"),
    "sock_recv": (receives_by_the_loop, "loop.sock_recv()"),
    "add_reader": (watches_a_descriptor, "loop.add_reader()"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_real_io_is_refused_and_its_line_named(name: str) -> None:
    body, what = REFUSED[name]
    result = testing.search(body, save=False)
    assert isinstance(result.exception, RealIOError)
    lines, first = inspect.getsourcelines(body)
    called = first + len(lines) - 1  # each does it in its last line
    message = str(result.exception)
    assert message.startswith(f"{what} in a controlled run")
    assert f"{__file__}:{called} in {body.__name__}: {lines[-1].strip()}" in message
    assert "MemoryNetwork" in message


def test_a_fiber_that_only_does_io_is_named() -> None:
    """Its function is the call itself: there is no line."""

    def body() -> None:
        here, there = swapco.socket.socketpair()
        with here, there:
            swapco.spawn(here.recv, 1, name="the reader").join()

    result = testing.search(body, save=False)
    assert isinstance(result.exception, RealIOError)
    assert "called by fiber 'the reader'" in str(result.exception)


def test_a_call_from_another_thread_is_refused() -> None:
    errors: list[BaseException] = []
    loops: queue.SimpleQueue[asyncio.AbstractEventLoop | None] = queue.SimpleQueue()
    answered = threading.Semaphore(0)

    def other_thread() -> None:
        while (loop := loops.get()) is not None:
            try:
                loop.call_soon_threadsafe(print)
            except BaseException as error:
                errors.append(error)
            answered.release()

    def body() -> None:
        loop = asyncio.get_running_loop()
        loops.put(loop)
        answered.acquire()
        loop.call_soon_threadsafe(int)  # from here it is a call_soon

    thread = threading.Thread(target=other_thread)
    thread.start()
    try:
        passes(body)
    finally:
        loops.put(None)
        thread.join()
    assert isinstance(errors[0], RealIOError)
    assert "call_soon_threadsafe() from another thread" in str(errors[0])
    assert "in other_thread" in str(errors[0])


def test_after_a_refusal_io_is_real_again() -> None:
    testing.search(connects, save=False)

    def body() -> bytes:
        here, there = swapco.socket.socketpair()
        with here, there:
            there.send(b"x")
            return here.recv(1)

    assert swapco.run(body) == b"x"
