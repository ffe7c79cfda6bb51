"""Fibers from the outside: spawning, sleeping, joining, cancelling, contexts, and looking at who is there."""


from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import io
import math
import sys
import threading
import traceback
import weakref
from typing import Any

import pytest
from helpers import Logged, in_fiber, label, settle, wait_until

import swapco
from swapco.lowlevel import ManualClock

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0
SHORT = 0.01


def forever() -> None:
    swapco.sleep(LONG)


def fail(error: BaseException) -> None:
    raise error


async def asynchronous(result: Any) -> Any:
    await asyncio.sleep(0)
    return result


# ------------------------------------------------------------------------------------------------ spawn


@in_fiber
def test_spawn_only_queues() -> None:
    order: list[str] = []
    fiber = swapco.spawn(order.append, "fiber")
    order.append("spawner")
    assert fiber.state == "NEW"
    assert not fiber.done()
    fiber.join()
    assert order == ["spawner", "fiber"]
    assert fiber.state == "DONE"


@in_fiber
def test_fibers_start_in_the_order_of_spawning() -> None:
    order: list[int] = []
    for n in range(200):
        swapco.spawn(order.append, n)
    settle()
    assert order == list(range(200))


@in_fiber
def test_what_can_be_spawned() -> None:
    class Callable:
        def __call__(self, x: int) -> int:
            return x

    assert swapco.spawn(lambda: 1).join() == 1
    assert swapco.spawn(Callable(), 2).join() == 2
    assert swapco.spawn(functools.partial(int, "3")).join() == 3
    assert swapco.spawn(asynchronous, 4).join() == 4
    assert swapco.spawn(asynchronous(5)).join() == 5
    assert swapco.create_task(asynchronous(6)).join() == 6
    assert swapco.spawn(functools.partial(asynchronous, 7)).join() == 7
    assert swapco.spawn(int).join() == 0


@pytest.mark.parametrize("wrong", [None, 3, "text", object()], ids=label)
@in_fiber
def test_what_cannot_be_spawned(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"spawn\(f, x\), not spawn\(f\(x\)\)"):
        swapco.spawn(wrong)
    assert swapco.all_fibers() == {swapco.current_fiber()}


@in_fiber
def test_bad_spawns_close_their_coroutine() -> None:
    with pytest.raises(TypeError, match="no arguments"):
        swapco.spawn(asynchronous(1), 2)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"spawn\(fn, x\)"):
        swapco.create_task(asynchronous)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="thread=True"):
        swapco.spawn(asynchronous(1), thread=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="thread=True"):
        swapco.spawn(asynchronous, 1, thread=True)  # type: ignore[call-overload]


def test_spawn_outside_a_loop() -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        swapco.spawn(forever)
    with pytest.raises(RuntimeError, match="running event loop"):
        swapco.spawn(asynchronous(1))
    with pytest.raises(RuntimeError, match="running event loop"):
        swapco.create_task(asynchronous(1))


def test_spawn_in_another_loop() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="loop_factory=swapco.new_event_loop"):
            swapco.spawn(forever)

    asyncio.run(main())


@in_fiber
def test_spawn_by_another_thread() -> None:
    errors: list[BaseException] = []
    loop = asyncio.get_running_loop()
    ran = threading.Event()

    def elsewhere() -> None:
        try:
            swapco.spawn(forever)
        except RuntimeError as error:
            errors.append(error)
        loop.call_soon_threadsafe(swapco.spawn, ran.set)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    wait_until(ran.is_set)
    thread.join()
    assert "call_soon_threadsafe" in str(errors[0])


def test_spawn_by_a_plain_task() -> None:
    async def main() -> Any:
        return await swapco.spawn(lambda: swapco.sleep(0, "slept"))

    with asyncio.Runner(loop_factory=swapco.new_event_loop) as runner:
        assert runner.run(main()) == "slept"


@in_fiber
def test_a_chain_of_fibers_that_spawn_each_other() -> None:
    depths: list[int] = []

    def link(n: int) -> None:
        depth, frame = 0, sys._getframe()
        while frame:
            depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]
        depths.append(depth)
        if n:
            swapco.spawn(link, n - 1)

    swapco.spawn(link, 10_000)
    wait_until(lambda: len(depths) == 10_001)
    assert set(depths) == {1}


@in_fiber
def test_a_chain_of_fibers_that_join_each_other() -> None:
    def link(n: int) -> int:
        return 0 if n == 0 else 1 + swapco.spawn(link, n - 1).join()

    assert link(10_000) == 10_000


@in_fiber
def test_a_fiber_has_the_full_recursion_depth() -> None:
    def recurse(n: int) -> int:
        return 0 if n == 0 else 1 + recurse(n - 1)

    def deep() -> int:
        depth = sys.getrecursionlimit() - 50
        result = recurse(depth)
        swapco.sleep(0)
        assert recurse(depth) == depth
        return result

    results = swapco.gather(*[deep] * 20)
    assert results == [sys.getrecursionlimit() - 50] * 20

    def too_deep() -> None:
        recurse(sys.getrecursionlimit() + 50)

    for _ in range(3):
        with pytest.raises(RecursionError):
            swapco.spawn(too_deep).join()


@in_fiber
def test_a_hundred_thousand_live_fibers() -> None:
    release = swapco.Event()
    count = 100_000
    total = 0

    def body() -> None:
        nonlocal total
        release.wait()
        total += 1

    for _ in range(count):
        swapco.spawn(body)
    swapco.sleep(0)
    assert len(swapco.all_fibers()) == count + 1
    release.set()
    wait_until(lambda: total == count)


# -------------------------------------------------------------------------------- who is there, and names


@in_fiber
def test_current_fiber() -> None:
    main = swapco.current_fiber()
    assert main.name == "main"
    assert swapco.spawn(swapco.current_fiber).join() is not main
    fiber = swapco.spawn(lambda: swapco.current_fiber())
    assert fiber.join() is fiber
    seen: list[BaseException] = []

    def callback() -> None:
        try:
            swapco.current_fiber()
        except swapco.NotInFiber as error:
            seen.append(error)

    asyncio.get_running_loop().call_soon(callback)
    settle()
    assert "loop callback" in str(seen[0])


def test_no_current_fiber() -> None:
    with pytest.raises(swapco.NotInFiber, match="needs a fiber"):
        swapco.current_fiber()
    for blocking in (
        lambda: swapco.sleep(0),
        swapco.block,
        lambda: swapco.await_(asynchronous(1)),
    ):
        with pytest.raises(swapco.NotInFiber):
            blocking()


@in_fiber
def test_all_fibers() -> None:
    main = swapco.current_fiber()
    assert swapco.all_fibers() == {main}
    fibers = {swapco.spawn(forever) for _ in range(3)}
    assert swapco.all_fibers() == {main, *fibers}
    settle()
    assert swapco.all_fibers(asyncio.get_running_loop()) == {main, *fibers}
    for fiber in fibers:
        fiber.cancel()
    settle()
    assert swapco.all_fibers() == {main}


def test_all_fibers_without_a_loop() -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        swapco.all_fibers()

    async def main() -> set[Any]:
        return swapco.all_fibers()

    assert asyncio.run(main()) == set()


@in_fiber
def test_names() -> None:
    fiber = swapco.spawn(int)
    assert fiber.name.startswith("Fiber-")
    assert fiber.get_name() == fiber.name
    fiber.name = "Zoe"
    assert fiber.get_name() == "Zoe"
    fiber.set_name(3)
    assert fiber.name == "3"
    assert swapco.spawn(int, name=5).name == "5"
    settle()


@in_fiber
def test_repr_says_what_a_fiber_does() -> None:
    fiber = swapco.spawn(forever, name="Zoe")
    assert repr(fiber) == "<Fiber 'Zoe' NEW of forever>"
    settle()
    assert repr(fiber) == "<Fiber 'Zoe' BLOCKED waits for sleep()>"
    fiber.cancel()
    settle()
    assert repr(fiber) == "<Fiber 'Zoe' DONE exception=CancelledError()>"
    fiber = swapco.spawn(lambda: 3, name="Yan")
    settle()
    assert repr(fiber) == "<Fiber 'Yan' DONE result=3>"
    assert repr(swapco.current_fiber()) == "<Fiber 'main' RUNNING>"


@in_fiber
def test_wait_reasons() -> None:
    loop = asyncio.get_running_loop()
    sleeper = swapco.spawn(forever, name="sleeper")
    blocked = swapco.spawn(swapco.block)
    joiner = swapco.spawn(sleeper.join)
    future = loop.create_future()
    awaiting = swapco.spawn(swapco.await_, future)
    assert sleeper.wait_reason is None
    settle()
    assert sleeper.wait_reason == "sleep()"
    assert blocked.wait_reason == "block(), until it is resumed"
    assert joiner.wait_reason == "the end of fiber 'sleeper'"
    assert joiner.waits_for_object is sleeper
    assert awaiting.waits_for_object is future
    swapco.resume(blocked)
    future.set_result(None)
    sleeper.cancel()
    settle()
    assert joiner.wait_reason is None


@in_fiber
def test_dump_fibers() -> None:
    def parked_here() -> None:
        swapco.sleep(LONG)

    fiber = swapco.spawn(parked_here, name="Zoe")
    settle()
    out = io.StringIO()
    swapco.dump_fibers(out)
    text = out.getvalue()
    assert text.startswith("2 fibers:")
    assert "<Fiber 'Zoe' BLOCKED waits for sleep()>" in text
    assert "in parked_here" in text
    assert "in test_dump_fibers" in text
    fiber.cancel()
    settle()


@in_fiber
def test_dump_fibers_to_standard_error(request: pytest.FixtureRequest) -> None:
    capture = request.getfixturevalue("capsys")
    swapco.dump_fibers()
    assert "'main' RUNNING" in capture.readouterr().err


@in_fiber
def test_stacks() -> None:
    def inner() -> None:
        forever()

    def outer() -> None:
        inner()

    fiber = swapco.spawn(outer)
    assert fiber.get_stack() == []
    settle()
    assert [frame.f_code.co_name for frame in fiber.get_stack()] == ["outer", "inner", "forever"]
    assert [frame.f_code.co_name for frame in fiber.get_stack(limit=1)] == ["forever"]
    out = io.StringIO()
    fiber.print_stack(file=out)
    assert "in inner" in out.getvalue()
    fiber.cancel()
    settle()
    with pytest.raises(asyncio.CancelledError):
        fiber.result()


# ------------------------------------------------------------------------------------------------ sleep


@in_fiber
def test_sleep() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert swapco.sleep(SHORT, "result") == "result"
    assert loop.time() - before >= SHORT
    for delay in (0, 0.0, -1, -math.inf):
        assert swapco.sleep(delay, delay) == delay
    with pytest.raises(ValueError, match="NaN"):
        swapco.sleep(math.nan)
    with pytest.raises(TypeError):
        swapco.sleep("1")  # type: ignore[call-overload]


def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    order: list[float] = []
    clock = ManualClock()

    def body(delay: float) -> None:
        swapco.sleep(delay)
        order.append(delay)

    def main() -> None:
        delays = [0.12, 0.04, 0.08, 0.0, 0.16]
        fibers = [swapco.spawn(body, delay) for delay in delays]
        settle()
        clock.advance(0.1)
        settle()
        assert order == [0.0, 0.04, 0.08]
        clock.advance(0.1)
        settle()
        swapco.wait(fibers)
        assert order == sorted(delays)

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock))


@in_fiber
def test_sleep_zero_lets_everybody_go_first() -> None:
    order: list[str] = []
    loop = asyncio.get_running_loop()
    for n in range(3):
        swapco.spawn(order.append, f"fiber {n}")
        loop.call_soon(order.append, f"callback {n}")
    swapco.sleep(0)
    assert sorted(order) == [f"callback {n}" for n in range(3)] + [f"fiber {n}" for n in range(3)]


@in_fiber
def test_fibers_that_yield_do_not_starve_timers_and_callbacks() -> None:
    stop = False

    def spin() -> None:
        while not stop:
            swapco.sleep(0)

    spinners = [swapco.spawn(spin) for _ in range(3)]
    swapco.sleep(SHORT)
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(SHORT, future.set_result, None)
    swapco.await_(future)
    stop = True
    swapco.gather(*spinners)


# ------------------------------------------------------------------------------------------------- joins


@in_fiber
def test_join_returns_and_raises() -> None:
    assert swapco.spawn(lambda: 7).join() == 7
    with pytest.raises(KeyError):
        swapco.spawn(fail, KeyError()).join()
    fiber = swapco.spawn(lambda: 7)
    fiber.join()
    assert fiber.join() == fiber.join(0) == fiber.result() == 7


@in_fiber
def test_join_by_many() -> None:
    fiber = swapco.spawn(swapco.sleep, SHORT, "slept")
    joiners = [swapco.spawn(fiber.join) for _ in range(100)]
    assert swapco.gather(*joiners) == ["slept"] * 100


@in_fiber
def test_join_with_a_timeout() -> None:
    fiber = swapco.spawn(forever)
    for timeout in (SHORT, 0, -1):
        with pytest.raises(TimeoutError):
            fiber.join(timeout)
    assert not fiber.done()
    with pytest.raises(ValueError, match="NaN"):
        fiber.join(math.nan)
    fiber.cancel()
    with pytest.raises(asyncio.CancelledError):
        fiber.join(LONG)
    # a deadline that is over still lets a fiber end that only needs to run, though the deadline may be seen first
    runnable = swapco.spawn(lambda: 7)
    with contextlib.suppress(TimeoutError):
        assert runnable.join(0) == 7
    assert runnable.result() == 7


@in_fiber
def test_join_oneself() -> None:
    with pytest.raises(RuntimeError, match="itself"):
        swapco.current_fiber().join()


def test_join_outside() -> None:
    fibers: list[Any] = []
    swapco.run(lambda: fibers.append(swapco.current_fiber()))
    # it is done: nothing to wait for
    assert fibers[0].join() is None

    def main() -> None:
        fiber = swapco.spawn(forever)
        errors: list[BaseException] = []

        def elsewhere() -> None:
            try:
                fiber.join()
            except swapco.NotInFiber as error:
                errors.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert len(errors) == 1
        fiber.cancel()
        settle()

    swapco.run(main)


@in_fiber
def test_cancelling_a_joiner_does_not_cancel_its_target() -> None:
    fiber = swapco.spawn(forever)
    joiner = swapco.spawn(fiber.join)
    settle()
    joiner.cancel()
    with pytest.raises(asyncio.CancelledError):
        joiner.join()
    assert not fiber.done()
    fiber.cancel()
    settle()


@in_fiber
def test_tracebacks_lead_into_the_fiber() -> None:
    def inner() -> None:
        raise KeyError("inner")

    def body() -> None:
        inner()

    with pytest.raises(KeyError) as caught:
        swapco.spawn(body).join()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == "test_tracebacks_lead_into_the_fiber"
    assert names[-2:] == ["body", "inner"]
    assert caught.value.__context__ is None


@in_fiber
def test_exceptions_do_not_leak_from_one_fiber_into_another() -> None:
    def handling() -> None:
        try:
            raise KeyError("handled here")
        except KeyError:
            for _ in range(3):
                swapco.sleep(0)
                assert isinstance(sys.exception(), KeyError)
                assert sys.exception().args == ("handled here",)  # type: ignore[union-attr]

    def clean() -> None:
        for _ in range(5):
            assert sys.exception() is None
            swapco.sleep(0)
        with pytest.raises(IndexError) as caught:
            raise IndexError
        assert caught.value.__context__ is None

    swapco.gather(handling, clean, handling, clean, clean)


# ------------------------------------------------------------------------------ exceptions nobody retrieves


@in_fiber
def test_an_exception_that_nobody_retrieves_is_logged(request: pytest.FixtureRequest) -> None:
    logged: Logged = request.getfixturevalue("fibers")
    swapco.spawn(fail, KeyError("lost"), name="Zoe")
    settle()
    gc.collect()
    (message,) = logged.take()
    assert "Fiber exception was never retrieved" in message
    assert "'Zoe'" in message


@in_fiber
def test_exceptions_that_somebody_retrieves_are_not_logged() -> None:
    def look(fiber: Any) -> None:
        fiber.exception()

    for retrieve in (
        lambda fiber: fiber.exception(),
        lambda fiber: pytest.raises(KeyError, fiber.result),
        lambda fiber: pytest.raises(KeyError, fiber.join),
    ):
        fiber = swapco.spawn(fail, KeyError())
        settle()
        retrieve(fiber)
    fiber = swapco.spawn(fail, KeyError())
    fiber.add_done_callback(look)
    settle()
    fiber = swapco.spawn(forever)
    settle()
    fiber.cancel()
    settle()
    del fiber
    gc.collect()


@in_fiber
def test_an_exception_in_a_done_callback_reaches_the_handler(request: pytest.FixtureRequest) -> None:
    logged: Logged = request.getfixturevalue("fibers")
    fiber = swapco.spawn(int)
    fiber.add_done_callback(lambda f: fail(KeyError("callback")))
    settle()
    assert "callback" in logged.take()[0]


# ------------------------------------------------------------------------------------------ cancellation


@in_fiber
def test_cancel_before_the_start() -> None:
    started: list[int] = []
    fiber = swapco.spawn(started.append, 1)
    coroutine = asynchronous(1)
    driver = swapco.spawn(coroutine)
    assert fiber.cancel()
    assert driver.cancel("message")
    assert not fiber.done()
    with pytest.raises(asyncio.CancelledError):
        fiber.join()
    with pytest.raises(asyncio.CancelledError, match="message"):
        driver.join()
    assert started == []
    assert coroutine.cr_frame is None
    assert not fiber.cancel()


@in_fiber
def test_cancel_where_it_waits() -> None:
    loop = asyncio.get_running_loop()
    waits = [
        forever,
        swapco.block,
        lambda: swapco.switch_to(swapco.spawn(swapco.block)),
        lambda: swapco.await_(loop.create_future()),
        lambda: swapco.spawn(forever).join(),
        lambda: swapco.gather(forever),
        lambda: [swapco.sleep(0) for _ in range(10**9)],
    ]
    fibers = [swapco.spawn(wait) for wait in waits]
    settle()
    for fiber in fibers:
        assert fiber.cancel("message")
    for fiber in fibers:
        with pytest.raises(asyncio.CancelledError, match="message"):
            fiber.join()
        assert fiber.cancelled()
    rest = swapco.all_fibers() - {swapco.current_fiber()}
    # what they waited for: gather cancelled it, join did not
    assert len(rest) == 1
    rest.pop().cancel()
    settle()


@in_fiber
def test_cancel_oneself() -> None:
    me = swapco.current_fiber()
    me.cancel()
    assert me.cancelling() == 1
    with pytest.raises(asyncio.CancelledError):
        swapco.sleep(0)
    assert me.uncancel() == 0
    me.cancel()
    me.uncancel()
    swapco.sleep(0)


@in_fiber
def test_a_fiber_may_refuse_to_be_cancelled() -> None:
    def stubborn() -> str:
        for _ in range(3):
            with pytest.raises(asyncio.CancelledError):
                forever()
        return "survived"

    fiber = swapco.spawn(stubborn)
    for _ in range(3):
        settle()
        fiber.cancel()
    assert fiber.join() == "survived"
    assert fiber.cancelling() == 3
    assert not fiber.cancelled()


@in_fiber
def test_cancel_by_another_thread() -> None:
    fibers = [swapco.spawn(forever) for _ in range(100)]
    settle()

    def elsewhere() -> None:
        for fiber in fibers:
            fiber.cancel()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    swapco.wait(fibers)
    thread.join()
    assert all(fiber.cancelled() for fiber in fibers)


@in_fiber
def test_a_resume_that_won_stands() -> None:
    fiber = swapco.spawn(lambda: (swapco.block(), swapco.sleep(0)))
    settle()
    assert swapco.resume(fiber, "value")
    fiber.cancel()
    with pytest.raises(asyncio.CancelledError):
        fiber.join()

    seen: list[Any] = []

    def body() -> None:
        seen.append(swapco.block())

    fiber = swapco.spawn(body)
    settle()
    swapco.resume(fiber, "value")
    fiber.cancel()
    fiber.join()
    assert seen == ["value"]
    assert not fiber.cancelled()


# ---------------------------------------------------------------------------------------------- contexts

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default="unset")


@in_fiber
def test_spawn_copies_the_context() -> None:
    variable.set("outer")

    def body() -> Any:
        before = variable.get()
        variable.set("inner")
        swapco.sleep(0)
        return before, variable.get()

    fiber = swapco.spawn(body)
    variable.set("changed after the spawn")
    assert fiber.join() == ("outer", "inner")
    assert variable.get() == "changed after the spawn"


@in_fiber
def test_a_given_context_is_used_itself() -> None:
    context = contextvars.Context()

    def body() -> None:
        variable.set("inside")

    fiber = swapco.spawn(body, context=context)
    assert fiber.get_context() is context
    fiber.join()
    assert context[variable] == "inside"
    assert variable.get() == "unset"


@in_fiber
def test_two_fibers_and_a_callback_share_a_context() -> None:
    context = contextvars.copy_context()
    seen: list[Any] = []

    def writer() -> None:
        for n in range(5):
            variable.set(n)
            swapco.sleep(0)

    def reader() -> None:
        while variable.get() != 4:
            seen.append(variable.get())
            swapco.sleep(0)

    fibers = [swapco.spawn(writer, context=context), swapco.spawn(reader, context=context)]
    asyncio.get_running_loop().call_soon(lambda: seen.append(variable.get()), context=context)
    swapco.gather(*fibers)
    assert set(seen) <= {"unset", 0, 1, 2, 3, 4}
    assert context[variable] == 4
    assert variable.get() == "unset"


@in_fiber
def test_contexts_of_fibers_do_not_mix() -> None:
    def body(n: int) -> None:
        variable.set(n)
        for _ in range(10):
            swapco.sleep(0)
            assert variable.get() == n
        swapco.await_(asyncio.sleep(0.001))
        assert variable.get() == n

    swapco.gather(*[functools.partial(body, n) for n in range(50)])
    assert variable.get() == "unset"


@in_fiber
def test_callbacks_run_in_the_context_of_their_registration() -> None:
    seen: list[Any] = []
    fiber = swapco.spawn(variable.set, "inner")
    variable.set("registered")
    fiber.add_done_callback(lambda f: seen.append(variable.get()))
    given = contextvars.Context()
    given.run(variable.set, "given")
    fiber.add_done_callback(lambda f: seen.append(variable.get()), context=given)
    variable.set("later")
    settle()
    assert seen == ["registered", "given"]


# -------------------------------------------------------------------------------------------- references


@in_fiber
def test_a_finished_fiber_lets_everything_go() -> None:
    class Argument:
        pass

    argument = Argument()
    reference = weakref.ref(argument)

    def body(argument: Argument) -> None:
        local = argument  # noqa: F841
        swapco.sleep(0)

    fiber = swapco.spawn(body, argument)
    del argument
    fiber.join()
    gc.collect()
    assert reference() is None
    dead = weakref.ref(fiber)
    del fiber
    gc.collect()
    assert dead() is None


@in_fiber
def test_a_live_fiber_needs_nobody_who_holds_it() -> None:
    done: list[int] = []

    def body() -> None:
        swapco.sleep(SHORT)
        done.append(1)

    swapco.spawn(body)
    gc.collect()
    wait_until(lambda: done)


@in_fiber
def test_a_finished_main_fiber_is_no_leak() -> None:
    """Run many short programs: the fixture looks for what they leave."""
    for _ in range(3):
        thread = threading.Thread(target=lambda: swapco.run(lambda: swapco.gather(*[int] * 10)))
        thread.start()
        thread.join()


@in_fiber
def test_foreign_futures_protocol() -> None:
    fiber = swapco.spawn(lambda: 1)
    assert asyncio.isfuture(fiber)
    assert not isinstance(fiber, asyncio.Task)
    assert fiber.get_loop() is asyncio.get_running_loop()
    for method in (fiber.set_result, fiber.set_exception):
        with pytest.raises(RuntimeError, match="not supported"):
            method(None)
    with pytest.raises(TypeError, match="callable"):
        fiber.add_done_callback(3)  # type: ignore[arg-type]
    fiber.join()
    assert swapco.Fiber[int]
