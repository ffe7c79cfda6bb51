"""``from_thread.run``: from a kernel thread into the event loop, and back with the result.

Thread fibers wait for it like for anything else; a foreign thread names the loop, and blocks.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, in_fiber, settle, wait_until
from thread_support import (
    at_home,
    in_quiet_fiber,
    on_thread,
    outcome,
    run_detached,
    thread,
    until_blocked,
)

import swapco
from swapco import from_thread

pytestmark = pytest.mark.usefixtures("fibers")

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")
LONG = 3600.0


async def asynchronous(*args: Any) -> Any:
    await asyncio.sleep(0)
    return at_home(), args


def give(*args: Any) -> Any:
    return at_home(), args


def fail() -> None:
    raise LookupError("on purpose")


def in_foreign_thread(call: Callable[[], Any]) -> Any:
    """What a call returns, or the type of what it raises, in a thread that swapco does not know."""
    got: list[Any] = []
    other = threading.Thread(target=lambda: got.append(outcome(call)))
    other.start()
    wait_until(lambda: not other.is_alive(), "the other thread's end")
    other.join()
    return got[0]


# ---------------------------------------------------------------------------------- from thread fibers


@pytest.mark.parametrize("fn", [give, asynchronous])
@in_quiet_fiber
def test_a_function_runs_on_the_loops_thread(fn: Any) -> None:
    assert on_thread(from_thread.run, fn, 1, 2) == (True, (1, 2))
    assert swapco.to_thread(from_thread.run, fn, 3) == (True, (3,))


@in_quiet_fiber
def test_it_runs_in_an_ordinary_fiber_that_may_block() -> None:
    seen: list[Any] = []

    def blocks() -> str:
        seen.append(swapco.current_fiber())
        swapco.sleep(0.001)
        with pytest.raises(RuntimeError, match="must not block"):
            with swapco.blocking():
                pass
        return swapco.to_thread(lambda: "result")

    fiber = thread(from_thread.run, blocks, name="caller")
    assert fiber.join() == "result"
    assert seen[0] is not fiber
    assert seen[0].name == "from_thread.run of caller"


@in_quiet_fiber
def test_what_belongs_to_the_loop_is_at_hand() -> None:
    called: list[int] = []

    def uses_the_loop() -> bool:
        asyncio.get_running_loop().call_soon(called.append, 1)
        swapco.sleep(0)
        return asyncio.get_running_loop() is loop

    loop = asyncio.get_running_loop()
    assert on_thread(from_thread.run, uses_the_loop) is True
    assert called == [1]


@in_quiet_fiber
def test_exceptions_come_out_with_their_traceback() -> None:
    with pytest.raises(LookupError, match="on purpose") as info:
        on_thread(from_thread.run, fail)
    assert [entry.name for entry in traceback.extract_tb(info.value.__traceback__)][-1] == "fail"


@in_quiet_fiber
def test_it_runs_in_the_callers_context() -> None:
    def changes() -> str:
        before = VARIABLE.get()
        VARIABLE.set("changed at home")
        return before

    def body() -> tuple[str, str]:
        VARIABLE.set("the thread's")
        return from_thread.run(changes), VARIABLE.get()

    assert on_thread(body) == ("the thread's", "changed at home")
    assert VARIABLE.get() == "unset"


@in_fiber
def test_by_a_detached_one() -> None:
    assert run_detached(lambda: from_thread.run(give, 1)).join() == (True, (1,))


@in_quiet_fiber
def test_several_at_once_in_their_order() -> None:
    ran: list[int] = []
    fibers = [thread(from_thread.run, ran.append, n) for n in range(8)]
    swapco.wait(fibers)
    assert ran == list(range(8))


@in_quiet_fiber
def test_cancelling_the_caller_cancels_the_function() -> None:
    ended: list[Any] = []

    def waits() -> None:
        try:
            swapco.sleep(LONG)
        except swapco.CancelledError as error:
            ended.append(error.args)
            raise

    fiber = thread(from_thread.run, waits)
    until_blocked(fiber)
    settle()
    fiber.cancel("why")
    with pytest.raises(swapco.CancelledError, match="why"):
        fiber.join()
    assert ended == [("why",)]


@in_quiet_fiber
def test_a_function_that_swallows_the_cancellation_is_waited_for() -> None:
    def stubborn() -> str:
        try:
            swapco.sleep(LONG)
        except swapco.CancelledError:
            swapco.sleep(0.001)
        return "result"

    def body() -> None:
        got.append(from_thread.run(stubborn))
        # it was meant for this fiber as well
        swapco.sleep(0)
        got.append("too far")

    got: list[str] = []
    fiber = thread(body)
    until_blocked(fiber)
    settle()
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert got == ["result"]


@in_quiet_fiber
def test_cancelled_before_the_function_begins() -> None:
    """Either way the caller gets the CancelledError, and nothing goes on."""
    ran: list[str] = []

    def waits() -> None:
        ran.append("began")
        swapco.sleep(LONG)
        ran.append("too far")

    def pending() -> None:
        swapco.current_fiber().cancel("before")
        from_thread.run(waits)

    with pytest.raises(swapco.CancelledError, match="before"):
        on_thread(pending)
    assert ran == []
    fiber = thread(from_thread.run, waits)
    while fiber.state != "BLOCKED":
        swapco.sleep(0)
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert "too far" not in ran
    settle()
    assert len(swapco.all_fibers()) == 1


# -------------------------------------------------------------------------------------- where it is wrong


@in_quiet_fiber
def test_in_an_ordinary_fiber() -> None:
    with pytest.raises(RuntimeError, match="call the function directly"):
        from_thread.run(give)
    with pytest.raises(RuntimeError, match="call the function directly"):
        from_thread.run(give, loop=asyncio.get_running_loop())


def test_outside_of_run() -> None:
    with pytest.raises(swapco.NotInFiber, match=r"from_thread\.run\(fn, loop=loop\)"):
        from_thread.run(give)


def running_elsewhere(body: Callable[[Any], Any]) -> Any:
    """What ``body`` returns of the loop that another thread runs meanwhile."""
    loops: list[Any] = []
    ready, over = threading.Event(), threading.Event()

    def main() -> None:
        loops.append(asyncio.get_running_loop())
        ready.set()
        while not over.is_set():
            swapco.sleep(0.001)

    other = threading.Thread(target=lambda: swapco.run(main))
    other.start()
    assert ready.wait(SOON_S)
    try:
        return body(loops[0])
    finally:
        over.set()
        other.join(SOON_S)


def test_a_fiber_does_not_wait_for_another_loop_in_the_thread_of_its_own() -> None:
    """All of its own loop would."""
    ran: list[int] = []

    def main(loop: Any) -> Any:
        with pytest.raises(RuntimeError, match=r"another event loop .*to_thread\(from_thread\.run, fn, loop=loop\)"):
            from_thread.run(ran.append, 1, loop=loop)
        assert ran == []
        # what the error says to do
        return swapco.to_thread(from_thread.run, threading.get_ident, loop=loop)

    assert running_elsewhere(lambda loop: swapco.run(main, loop)) not in (None, threading.get_ident())


def test_nor_does_a_coroutine_of_asyncio() -> None:
    async def main(loop: Any) -> Any:
        with pytest.raises(RuntimeError, match="another event loop"):
            from_thread.run(give, loop=loop)
        return await asyncio.to_thread(from_thread.run, give, 1, loop=loop)

    assert running_elsewhere(lambda loop: asyncio.run(main(loop))) == (False, (1,))


@in_quiet_fiber
def test_in_the_hub() -> None:
    loop = asyncio.get_running_loop()
    got: list[Any] = []
    loop.call_soon(lambda: got.append(outcome(lambda: from_thread.run(give))))
    loop.call_soon(lambda: got.append(outcome(lambda: from_thread.run(give, loop=loop))))
    settle()
    assert got == [swapco.NotInFiber, RuntimeError]


@in_quiet_fiber
def test_in_a_foreign_thread_without_a_loop() -> None:
    def foreign() -> str:
        with pytest.raises(swapco.NotInFiber) as info:
            from_thread.run(give)
        return str(info.value)

    assert "from_thread.run(fn, loop=loop)" in in_foreign_thread(foreign)


@in_quiet_fiber
def test_who_cannot_name_a_loop_is_not_told_to() -> None:
    """In a callback of the loop, and in a finalizer after a thread fiber."""
    got: list[str] = []

    def call() -> None:
        with pytest.raises(swapco.NotInFiber) as info:
            from_thread.run(give)
        got.append(str(info.value))

    class Finalized:
        def __del__(self) -> None:
            call()

    asyncio.get_running_loop().call_soon(call)
    settle()
    thread(Finalized)
    wait_until(lambda: len(got) == 2)
    assert "loop=" not in got[0]
    assert "loop=" not in got[1]


@pytest.mark.parametrize("wrong", [3, "loop"])
def test_something_that_is_no_loop(wrong: Any) -> None:
    with pytest.raises(TypeError, match="swapco.Loop"):
        from_thread.run(give, loop=wrong)


def test_an_asyncio_loop() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(TypeError, match="swapco.Loop"):
            from_thread.run(give, loop=loop)  # type: ignore[arg-type]
    finally:
        loop.close()


# ----------------------------------------------------------------------------------- from foreign threads


@pytest.mark.parametrize("fn", [give, asynchronous])
@in_fiber
def test_from_a_foreign_thread(fn: Any) -> None:
    loop: Any = asyncio.get_running_loop()
    assert in_foreign_thread(lambda: from_thread.run(fn, 1, 2, loop=loop)) == (True, (1, 2))


@in_fiber
def test_a_foreign_thread_gets_what_it_raises() -> None:
    loop: Any = asyncio.get_running_loop()

    def times_out() -> None:
        raise TimeoutError("its own")

    def cancels() -> None:
        swapco.current_fiber().cancel()
        swapco.sleep(0)

    assert in_foreign_thread(lambda: from_thread.run(fail, loop=loop)) is LookupError
    assert in_foreign_thread(lambda: from_thread.run(times_out, loop=loop)) is TimeoutError
    assert in_foreign_thread(lambda: from_thread.run(cancels, loop=loop)) is asyncio.CancelledError
    assert in_foreign_thread(lambda: from_thread.run(3, loop=loop)) is TypeError  # type: ignore[arg-type]


@in_fiber
def test_many_foreign_threads() -> None:
    loop: Any = asyncio.get_running_loop()
    queue = swapco.Queue[int]()
    got: list[int] = []

    def asks(n: int) -> None:
        for _ in range(20):
            from_thread.run(queue.put, n, loop=loop)
            got.append(from_thread.run(queue.get, loop=loop))

    others = [threading.Thread(target=asks, args=(n,)) for n in range(4)]
    for other in others:
        other.start()
    wait_until(lambda: not any(other.is_alive() for other in others), "the other threads' end")
    for other in others:
        other.join()
    assert sorted(got) == [0] * 20 + [1] * 20 + [2] * 20 + [3] * 20


@in_fiber
def test_from_a_thread_fiber_that_names_its_own_loop() -> None:
    """It blocks as a foreign thread would: the loop goes on when it is detached."""
    loop: Any = asyncio.get_running_loop()
    assert on_thread(lambda: from_thread.run(give, 1, loop=loop)) == (True, (1,))


def test_from_a_thread_fiber_of_another_loop() -> None:
    loops: list[Any] = []
    ready, over = threading.Event(), threading.Event()

    def other_main() -> None:
        loops.append(asyncio.get_running_loop())
        ready.set()
        while not over.is_set():
            swapco.sleep(0.001)

    def main() -> None:
        assert on_thread(lambda: from_thread.run(threading.get_ident, loop=loops[0])) == other.ident

    other = threading.Thread(target=lambda: swapco.run(other_main))
    other.start()
    assert ready.wait(SOON_S)
    swapco.run(main)
    over.set()
    other.join(SOON_S)


def test_a_closed_loop() -> None:
    loop = swapco.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        from_thread.run(give, loop=loop)


def test_a_loop_that_is_closed_meanwhile() -> None:
    """Nobody waits for ever for a function that will not end."""
    got: list[Any] = []
    loops: list[Any] = []
    def asks() -> None:
        got.append(outcome(lambda: from_thread.run(swapco.block, loop=loops[0])))

    def main() -> None:
        loops.append(asyncio.get_running_loop())
        other.start()
        wait_until(lambda: len(swapco.all_fibers()) == 2)

    other = threading.Thread(target=asks)
    swapco.run(main)
    other.join(SOON_S)
    # cancelled with the rest when run ended
    assert got == [asyncio.CancelledError]


def test_a_loop_that_is_stopped_and_closed_before_it_begins() -> None:
    got: list[Any] = []
    with swapco.Runner() as runner:
        loop = runner.get_loop()
        runner.run(int)
        other = threading.Thread(target=lambda: got.append(outcome(lambda: from_thread.run(give, loop=loop))))
        # the loop does not run, so the call is not made
        other.start()
        other.join(0.05)
        assert got == []
    other.join(SOON_S)
    assert got in ([RuntimeError], [(True, ())], [asyncio.CancelledError])
