"""``run`` and ``Runner``: into fibers and out again."""


from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import io
import signal
import sys
import threading
import time
import warnings
import weakref
from typing import Any

import pytest
import uvloop
from helpers import Logged, label, run_program, settle

import swapco
from swapco import Runner, run
from swapco.lowlevel import Clock, Fifo, Lifo, Slot

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0
SHORT = 0.01


def forever() -> None:
    swapco.sleep(LONG)


async def asynchronous(result: Any) -> Any:
    await asyncio.sleep(0)
    return result


def fail(error: BaseException) -> None:
    raise error


# ------------------------------------------------------------------------------------------------- mains


def test_what_run_takes() -> None:
    class Callable:
        def __call__(self) -> int:
            return 4

    assert run(lambda: 1) == 1
    assert run(max, 1, 2) == 2
    assert run(functools.partial(max, 1, 3)) == 3
    assert run(Callable()) == 4
    assert run(asynchronous, 5) == 5
    assert run(asynchronous(6)) == 6
    assert run(functools.partial(asynchronous, 7)) == 7
    assert run(swapco.sleep, 0.001, 8) == 8


@pytest.mark.parametrize("wrong", [None, 3, "main", [], object()], ids=label)
def test_what_run_does_not_take(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"run\(main, x\), not run\(main\(x\)\)"):
        run(wrong)


def test_arguments_with_a_coroutine() -> None:
    coroutine = asynchronous(1)
    with pytest.raises(TypeError):
        run(coroutine, 2)
    coroutine.close()


def test_exceptions_come_out() -> None:
    class Odd(BaseException):
        pass

    for error in (KeyError("a"), asyncio.CancelledError("b"), Odd(), StopIteration(3)):
        with pytest.raises(type(error)) as caught:
            run(fail, error)
        assert caught.value is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exits_come_out_of_main_and_of_any_fiber(kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        run(fail, kind())

    def main() -> None:
        swapco.spawn(fail, kind())
        forever()

    with pytest.raises(kind):
        run(main)

    async def coroutine() -> None:
        raise kind

    with pytest.raises(kind):
        run(coroutine)
    with pytest.raises(kind):
        run(coroutine())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("threaded", [False, True], ids=["ordinary", "thread"])
@pytest.mark.parametrize("wait", ["wait", "sleep", "caught"])
def test_an_exit_comes_out_although_main_ends_in_the_same_turn(
    kind: type[BaseException], threaded: bool, wait: str
) -> None:
    """Once, and after the clean-up: two things stop the loop, and the second one must not stop the next run."""
    error = kind("the first")
    ended: list[str] = []

    def left() -> None:
        try:
            forever()
        finally:
            swapco.sleep(0.001)
            ended.append("cleaned up")

    def main() -> None:
        swapco.spawn(left)
        swapco.sleep(0)
        fiber = swapco.spawn(fail, error, thread=threaded)
        if wait == "wait":
            swapco.wait([fiber])
        elif wait == "sleep":
            while not fiber.done():
                swapco.sleep(0)
        else:
            with pytest.raises(kind):
                fiber.join()
        ended.append("main")

    with Runner(slot=Slot(tick=1.0)) as runner:
        with pytest.raises(kind) as caught:
            runner.run(main)
        assert caught.value is error
        # the next run has nothing to do with it
        assert runner.run(swapco.sleep, 0.001, "the next run") == "the next run"
    assert ended == ["main", "cleaned up"]


def test_a_stop_belongs_to_the_run_that_it_was_asked_in() -> None:
    """As with asyncio: uvloop keeps the second of two stops for the next run."""
    loop = swapco.new_event_loop()
    # the second one is asked for while the first one is on its way
    loop.call_soon(loop.call_soon, loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert loop.run_until_complete(asyncio.sleep(0.001, "slept")) == "slept"
    # one that is asked for before a run is for that one
    loop.stop()
    turns: list[int] = []
    loop.call_soon(turns.append, 1)
    loop.run_forever()
    assert turns == [1]
    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        loop.call_soon(loop.stop)
        loop.run_until_complete(loop.create_future())
    loop.close()
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(coroutine)
    coroutine.close()


@pytest.mark.parametrize("during", ["main", "the end"])
def test_a_ctrl_c_inside_uvloop_comes_out_of_run(during: str) -> None:
    """Where uvloop begins to run it is no longer fit to run, nor to be closed; that must not hide the interrupt.

    In a program of its own: that loop stays for ever.
    """
    result = run_program(f"""
        import _socket, threading
        import swapco

        original = _socket.socketpair
        calls = []
        workers = []

        def interrupted(*args):
            # what uvloop calls, by way of socket.socketpair
            calls.append(1)
            if len(calls) == {1 if during == "main" else 2}:
                raise KeyboardInterrupt("in uvloop")
            return original(*args)

        def main():
            swapco.spawn(swapco.sleep, 3600)
            swapco.to_thread(int)
            workers.extend(thread for thread in threading.enumerate() if "swapco worker" in thread.name)

        _socket.socketpair = interrupted
        try:
            swapco.run(main)
        except KeyboardInterrupt as error:
            print(error.args, len(workers), any(worker.is_alive() for worker in workers))
    """)
    # the threads of fibers end, whatever becomes of the loop
    assert result.stdout == f"('in uvloop',) {0 if during == 'main' else 1} False\n", result.stderr


def test_main_may_be_cancelled() -> None:
    def main() -> None:
        swapco.current_fiber().cancel("by myself")
        swapco.sleep(0)

    with pytest.raises(asyncio.CancelledError, match="by myself"):
        run(main)


# ----------------------------------------------------------------------------------------- runs in runs


def test_run_inside_a_fiber() -> None:
    def main() -> None:
        with pytest.raises(RuntimeError, match=r"spawn\(\) it"):
            run(int)
        with pytest.raises(RuntimeError, match="event loop runs"):
            run(asynchronous(1))
        swapco.sleep(0)
        asyncio.get_running_loop().call_soon(nested)
        settle()

    errors: list[BaseException] = []

    def nested() -> None:
        try:
            run(int)
        except RuntimeError as error:
            errors.append(error)

    run(main)
    assert len(errors) == 1


def test_run_inside_asyncio() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="event loop runs"):
            run(int)
        with pytest.raises(RuntimeError, match="event loop runs"):
            run(asynchronous(1))

    asyncio.run(main())


def test_asyncio_run_inside_a_fiber() -> None:
    def main() -> None:
        coroutine = asynchronous(1)
        with pytest.raises(RuntimeError):
            asyncio.run(coroutine)
        coroutine.close()

    run(main)


def test_a_run_in_a_thread_of_a_run() -> None:
    def main() -> None:
        loop = asyncio.get_running_loop()
        assert swapco.await_(loop.run_in_executor(None, run, lambda: swapco.sleep(0, 1))) == 1

    run(main)


# ------------------------------------------------------------------------------------------------ Runner


def test_several_runs_share_a_loop_and_a_context() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    def count() -> tuple[Any, int]:
        variable.set(variable.get() + 1)
        swapco.sleep(0)
        return asyncio.get_running_loop(), variable.get()

    with Runner() as runner:
        loop = runner.get_loop()
        assert [runner.run(count) for _ in range(3)] == [(loop, 1), (loop, 2), (loop, 3)]
        assert runner.run(count, context=contextvars.Context()) == (loop, 1)
        assert runner.run(asynchronous(5)) == 5
    assert variable.get() == 0
    assert loop.is_closed()


def test_fibers_live_on_between_runs() -> None:
    progress: list[int] = []

    def background() -> None:
        for n in range(3):
            progress.append(n)
            swapco.block()

    with Runner() as runner:
        fiber = runner.run(lambda: swapco.spawn(background))
        for n in range(3):
            runner.run(settle)
            assert progress == list(range(n + 1))
            swapco.resume(fiber)
        runner.run(fiber.join)
        assert fiber.done()


def test_cancelled_between_runs() -> None:
    with Runner() as runner:
        fiber = runner.run(lambda: swapco.spawn(forever))
        runner.run(settle)
        fiber.cancel()
        assert not fiber.done()
        runner.run(settle)
        assert fiber.cancelled()


def test_a_failed_run_is_not_the_last() -> None:
    with Runner() as runner:
        with pytest.raises(KeyError):
            runner.run(fail, KeyError())
        with pytest.raises(SystemExit):
            runner.run(fail, SystemExit(3))
        assert runner.run(lambda: 1) == 1


def test_a_closed_runner() -> None:
    with Runner() as runner:
        runner.run(int)
    runner.close()
    for use in (lambda: runner.run(int), runner.get_loop, runner.__enter__):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    coroutine = asynchronous(1)
    with pytest.raises(RuntimeError, match="closed"):
        runner.run(coroutine)
    coroutine.close()


def test_a_runner_that_never_ran() -> None:
    with Runner():
        pass
    runner = Runner()
    runner.close()
    with Runner() as runner:
        runner.get_loop()


def test_a_runner_needs_no_with() -> None:
    runner = Runner()
    assert runner.run(lambda: 1) == 1
    loop = runner.get_loop()
    runner.close()
    assert loop.is_closed()


@pytest.mark.parametrize("wrong", ["x", "5", True, [1], 1j])
def test_a_shutdown_timeout_that_is_no_time(wrong: Any) -> None:
    ran: list[int] = []
    with pytest.raises(TypeError, match="shutdown_timeout is a number of seconds, or None"):
        run(ran.append, 1, shutdown_timeout=wrong)
    with pytest.raises(TypeError, match="shutdown_timeout"):
        Runner(shutdown_timeout=wrong)
    assert ran == []


@pytest.mark.parametrize("wrong", [-1, -0.001, float("nan"), float("-inf")])
def test_a_shutdown_timeout_that_is_out_of_range(wrong: float) -> None:
    ran: list[int] = []
    with pytest.raises(ValueError, match="shutdown_timeout is a number of seconds from 0 on"):
        run(ran.append, 1, shutdown_timeout=wrong)
    assert ran == []


@pytest.mark.parametrize("right", [0, 1, 0.5, None, float("inf"), 1e300])
def test_a_shutdown_timeout_that_is_right(right: float | None) -> None:
    def main() -> str:
        swapco.spawn(forever)
        return swapco.await_(asyncio.to_thread(str, "done"))

    assert run(main, shutdown_timeout=right) == "done"


def test_debug() -> None:
    def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert run(main, debug=True) is True
    assert run(main, debug=False) is False
    with Runner(debug=True) as runner:
        assert runner.run(main) is True


def test_loop_factories() -> None:
    made: list[Any] = []

    def factory() -> swapco.Loop:
        loop = swapco.new_event_loop(clock=Clock())
        made.append(loop)
        return loop

    def main() -> Any:
        return asyncio.get_running_loop()

    assert run(main, loop_factory=factory) is made[0]
    with Runner(loop_factory=factory) as runner:
        assert runner.run(main) is made[1]
        assert runner.run(main) is made[1]
    for wrong in (asyncio.new_event_loop, uvloop.new_event_loop):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            with pytest.raises(TypeError, match=r"swapco\.Loop"):
                run(main, loop_factory=wrong)  # type: ignore[arg-type]
            gc.collect()
    with pytest.raises(TypeError, match="not both"):
        run(main, loop_factory=factory, policy=Fifo())


def test_a_policy() -> None:
    order: list[int] = []

    def main() -> None:
        swapco.gather(*[functools.partial(order.append, n) for n in range(5)])

    run(main, policy=Lifo())
    assert order == [4, 3, 2, 1, 0]
    with pytest.raises(TypeError, match="policy"):
        run(main, policy=3)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------- ends


def test_what_is_left_is_cancelled() -> None:
    ended: list[str] = []

    def left(name: str) -> None:
        try:
            forever()
        except asyncio.CancelledError:
            # cleaning up may block
            swapco.sleep(0.001)
            swapco.await_(asyncio.sleep(0.001))
            ended.append(name)
            raise

    async def left_task() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.sleep(0.001)
            ended.append("task")

    def main() -> str:
        for name in "abc":
            swapco.spawn(left, name)
        asyncio.get_running_loop().create_task(left_task())
        settle()
        return "result"

    assert run(main) == "result"
    assert sorted(ended) == ["a", "b", "c", "task"]


def test_what_is_spawned_at_the_end_is_cancelled_too_or_ends() -> None:
    ended: list[int] = []

    def left() -> None:
        try:
            forever()
        finally:
            swapco.spawn(ended.append, 1).join()

    def main() -> None:
        swapco.spawn(left)
        settle()

    run(main)
    assert ended == [1]


def test_exceptions_at_the_end_are_reported(fibers: Logged) -> None:
    reports: list[dict[str, Any]] = []

    def left() -> None:
        try:
            forever()
        finally:
            raise KeyError("at the end")

    def main() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda loop, report: reports.append(report))
        swapco.spawn(left, name="Zoe")
        settle()
        return 7

    assert run(main) == 7
    assert [report["message"] for report in reports] == ["unhandled exception during swapco.run() shutdown"]
    assert repr(reports[0]["exception"]) == "KeyError('at the end')"
    assert reports[0]["task"].name == "Zoe"


def test_asynchronous_generators_are_closed() -> None:
    closed: list[int] = []

    async def generator() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(1)

    def main() -> None:
        keep.append(generator())
        assert swapco.await_(anext(keep[0])) == 1

    keep: list[Any] = []
    run(main)
    assert closed == [1]


def test_the_default_executor_is_shut_down() -> None:
    def main() -> None:
        swapco.await_(asyncio.get_running_loop().run_in_executor(None, int))

    run(main)  # the fixture would see its thread


def test_exceptions_of_main_are_not_hidden_by_the_end() -> None:
    def left() -> None:
        try:
            forever()
        finally:
            swapco.sleep(0.001)

    def main() -> None:
        swapco.spawn(left)
        settle()
        raise KeyError("main")

    with pytest.raises(KeyError, match="main"):
        run(main)


def test_signal_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    inside: list[Any] = []
    run(lambda: inside.append(signal.getsignal(signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is before
    if before is signal.default_int_handler:
        assert inside[0] is not before

    def handler(number: int, frame: Any) -> None:
        """The user's own: it stays."""

    signal.signal(signal.SIGINT, handler)
    try:
        run(lambda: inside.append(signal.getsignal(signal.SIGINT)))
        assert inside[1] is handler
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


# ----------------------------------------------------------------------------------------------- threads


def test_runs_in_other_threads() -> None:
    results: list[Any] = []

    def main(n: int) -> int:
        return sum(swapco.gather(*[functools.partial(swapco.sleep, 0.001 * (i % 3), i) for i in range(n)]))

    def in_thread(n: int) -> None:
        for _ in range(3):
            results.append(run(main, n))

    threads = [threading.Thread(target=in_thread, args=(20,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    results.append(run(main, 20))
    for thread in threads:
        thread.join()
    assert results == [190] * 10


def test_two_loops_in_two_threads_wake_each_other() -> None:
    rounds = 200
    fibers: dict[str, Any] = {}
    ready = threading.Barrier(2)
    counts = {"a": 0, "b": 0}

    def main(me: str, other: str) -> None:
        fibers[me] = swapco.current_fiber()
        ready.wait()
        for n in range(rounds):
            if me == "a":
                swapco.resume(fibers[other], n)
                assert swapco.block(20) == n
            else:
                assert swapco.block(20) == n
                swapco.resume(fibers[other], n)
            counts[me] += 1

    thread = threading.Thread(target=run, args=(main, "b", "a"))
    thread.start()
    run(main, "a", "b")
    thread.join()
    assert counts == {"a": rounds, "b": rounds}


def test_a_runner_used_by_another_thread() -> None:
    """A loop may move to another thread while no fiber lives; with live fibers that is an error."""
    results: list[Any] = []
    runner = Runner()
    runner.run(int)

    def elsewhere(function: Any) -> None:
        try:
            results.append(runner.run(function))
        except RuntimeError as error:
            results.append(error)

    thread = threading.Thread(target=elsewhere, args=(lambda: swapco.sleep(0, 1),))
    thread.start()
    thread.join()
    assert results == [1]
    runner.run(lambda: swapco.spawn(forever))
    runner.run(settle)
    thread = threading.Thread(target=elsewhere, args=(int,))
    thread.start()
    thread.join()
    assert isinstance(results[1], RuntimeError)
    assert "cannot move to another thread" in str(results[1])
    runner.close()


def test_from_a_deep_stack() -> None:
    """Fibers go on from the recursion depth of whoever called run, all of them from the same."""

    def dig(n: int) -> Any:
        return run(main) if n == 0 else dig(n - 1)

    def recurse(n: int) -> int:
        return 0 if n == 0 else 1 + recurse(n - 1)

    def fits() -> bool:
        swapco.sleep(0)
        return recurse(300) == 300

    def chain(n: int) -> Any:
        return fits() if n == 0 else swapco.spawn(chain, n - 1).join()

    def main() -> bool:
        return all(swapco.gather(*[fits] * 10)) and chain(1000)

    assert dig(sys.getrecursionlimit() - 500)


def test_the_callers_context_is_copied() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def main() -> str:
        before = variable.get()
        variable.set("inside")
        return before

    def outside() -> None:
        variable.set("outside")
        assert run(main) == "outside"
        assert variable.get() == "outside"

    contextvars.copy_context().run(outside)


def test_get_running_loop_and_policies() -> None:
    def main() -> Any:
        loop = asyncio.get_running_loop()
        assert asyncio.get_event_loop() is loop
        assert loop.is_running()
        return loop

    loop = run(main)
    assert loop.is_closed()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


# ------------------------------------------------------------------------------- plain asyncio on this loop


def test_a_plain_asyncio_program() -> None:
    async def main() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asynchronous(n)) for n in range(3)]
        assert isinstance(asyncio.current_task(), asyncio.Task)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()
        return [task.result() for task in tasks]

    async def serve() -> Any:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(5))
            await writer.drain()
            writer.close()

        return await asyncio.start_server(echo, "127.0.0.1", 0)

    with asyncio.Runner(loop_factory=swapco.new_event_loop) as runner:
        server = runner.run(serve())
        address = server.sockets[0].getsockname()
        assert runner.run(main()) == [0, 1, 2]
        server.close()
        runner.run(server.wait_closed())


def test_closing_a_loop_with_live_fibers() -> None:
    ended: list[int] = []

    def left() -> None:
        try:
            forever()
        finally:
            swapco.sleep(0.001)
            ended.append(1)

    async def main() -> None:
        swapco.spawn(left)
        await asyncio.sleep(SHORT)

    loop = swapco.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert ended == [1]
    assert loop.is_closed()
    loop.close()


def test_closing_a_loop_with_a_fiber_that_refuses_to_end() -> None:
    """It is abandoned, with a warning: in a program of its own, since it stays for ever."""
    result = run_program("""
        import asyncio, warnings, swapco

        def stubborn():
            while True:
                try:
                    swapco.sleep(0.01)
                except asyncio.CancelledError:
                    pass

        async def main():
            swapco.spawn(stubborn)
            await asyncio.sleep(0.01)

        loop = swapco.new_event_loop()
        loop.run_until_complete(main())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.close()
        print(*[(w.category.__name__, "did not end" in str(w.message)) for w in caught])
        print(loop.is_closed())
    """)
    assert result.stdout == "('ResourceWarning', True)\nTrue\n", result.stderr


def test_a_loop_that_is_dropped_with_its_fibers() -> None:
    class Marker:
        pass

    references: list[weakref.ref[Any]] = []

    def left() -> None:
        marker = Marker()
        references.append(weakref.ref(marker))
        forever()

    async def main() -> None:
        swapco.spawn(left)
        await asyncio.sleep(SHORT)

    loop = swapco.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    del loop
    gc.collect()
    assert references[0]() is None


def test_output_of_debug_mode_names_the_fiber(fibers: Logged) -> None:
    """In debug mode asyncio logs callbacks that take long: the fiber is named, not the drain."""
    stream = io.StringIO()
    import logging

    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:

        def main() -> None:
            asyncio.get_running_loop().slow_callback_duration = 0.05
            swapco.spawn(time.sleep, 0.1, name="the slow one").join()

        run(main, debug=True)
    finally:
        logger.removeHandler(handler)
    assert "the slow one" in stream.getvalue()
