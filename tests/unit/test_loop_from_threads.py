"""Methods of the event loop, and asyncio's objects, in the threads of thread fibers.

What only queues a callback (``call_soon``, and so ``Future.set_result``, ``asyncio.Event.set``, ...) works from every
thread fiber, at once.  What touches the loop's handles is for the owner of the slot; a detached fiber is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import SOON_S, in_fiber, run_program, wait_until
from thread_support import in_quiet_fiber, on_thread, run_detached

import swapco

pytestmark = pytest.mark.usefixtures("fibers")

#: Nothing of what is called comes so late: no timer of a test is due, and nobody else wakes the loop.
LONG_S = 3600.0


class At:
    """Where a thread fiber is when it calls: with the slot, or without it."""

    def __init__(self, name: str, call: Callable[[Callable[[], Any]], Any], state: str) -> None:
        self.name = name
        self.call = call
        self.state = state


ATTACHED = At("attached", on_thread, "RUNNING")
DETACHED = At("detached", lambda body: run_detached(body).join(), "DETACHED")
everywhere = pytest.mark.parametrize("at", [ATTACHED, DETACHED], ids=lambda at: at.name)
debug_or_not = pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])


class Callback:
    """Notes in which thread it was called, and lets whoever waits in a thread go on."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.ident = 0

    def __call__(self, *ignored: object) -> None:
        self.ident = threading.get_ident()
        self.called.set()


def set_result(loop: Any, seen: Callback) -> Callable[[], Any]:
    future = loop.create_future()
    future.add_done_callback(seen)
    return lambda: future.set_result(1)


def cancel_task(loop: Any, seen: Callback) -> Callable[[], Any]:
    task = loop.create_task(asyncio.sleep(LONG_S))
    task.add_done_callback(seen)
    swapco.sleep(0)
    return task.cancel  # type: ignore[no-any-return]


def set_event(loop: Any, seen: Callback) -> Callable[[], Any]:
    event = asyncio.Event()
    loop.create_task(event.wait()).add_done_callback(seen)
    swapco.sleep(0)
    return event.set


def put_into_queue(loop: Any, seen: Callback) -> Callable[[], Any]:
    queue = asyncio.Queue[int]()
    loop.create_task(queue.get()).add_done_callback(seen)
    swapco.sleep(0)
    return lambda: queue.put_nowait(1)


def call_soon(loop: Any, seen: Callback) -> Callable[[], Any]:
    return lambda: loop.call_soon(seen, 1)


def run_in_executor(loop: Any, seen: Callback) -> Callable[[], Any]:
    return lambda: loop.run_in_executor(None, int).add_done_callback(seen)


@everywhere
@debug_or_not
@pytest.mark.parametrize(
    "prepare",
    [call_soon, set_result, cancel_task, set_event, put_into_queue, run_in_executor],
    ids=lambda prepare: prepare.__name__,
)
def test_what_queues_a_callback_works_at_once(prepare: Any, debug: bool, at: At) -> None:
    """Nothing else happens meanwhile: the housekeeping of idle workers would wake the loop a second later."""

    def main() -> None:
        loop = asyncio.get_running_loop()
        seen = Callback()
        act = prepare(loop, seen)

        def body() -> bool:
            before = swapco.current_fiber().state
            assert before == at.state
            act()
            with swapco.blocking():
                # the housekeeping comes a second after it began
                return seen.called.wait(0.5)

        assert at.call(body)
        assert seen.ident == threading.get_ident()

    # a slot that is not quiet: one that is has a second of its own
    swapco.run(main, debug=debug)


@everywhere
@in_fiber
def test_call_soon_copies_the_context_of_the_caller_and_takes_another(at: At) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []
    loop = asyncio.get_running_loop()
    other = contextvars.copy_context()
    other.run(variable.set, "of another context")

    def body() -> None:
        variable.set("of the thread fiber")
        loop.call_soon(lambda: seen.append(variable.get()))
        loop.call_soon(lambda: seen.append(variable.get()), context=other)

    at.call(body)
    wait_until(lambda: len(seen) == 2)
    assert seen == ["of the thread fiber", "of another context"]


@in_quiet_fiber
def test_a_callback_goes_before_the_thread_fiber_that_yields() -> None:
    """As with an ordinary fiber: ``sleep(0)`` lets every callback that is ready go first."""
    order: list[str] = []
    loop = asyncio.get_running_loop()

    def body() -> None:
        for n in range(3):
            loop.call_soon(order.append, f"callback {n}")
            swapco.sleep(0)
            order.append(f"fiber {n}")

    on_thread(body)
    assert order == ["callback 0", "fiber 0", "callback 1", "fiber 1", "callback 2", "fiber 2"]


# ------------------------------------------------------------------------------- what is for the owner only


@contextlib.contextmanager
def methods(loop: Any) -> Iterator[dict[str, Callable[[], Any]]]:
    """Each with arguments that are right."""
    a, b = socket.socketpair()
    a.setblocking(False)
    yield {
        "call_later": lambda: loop.call_later(LONG_S, int).cancel(),
        "call_at": lambda: loop.call_at(loop.time() + LONG_S, int).cancel(),
        "add_reader": lambda: loop.add_reader(a, int),
        "remove_reader": lambda: loop.remove_reader(a),
        "add_writer": lambda: loop.add_writer(a, int),
        "remove_writer": lambda: loop.remove_writer(a),
        "create_task": lambda: loop.create_task(asyncio.sleep(0)),
    }
    a.close()
    b.close()


def answers(loop: Any, at: At) -> dict[str, str]:
    """What each says in a thread fiber: its error, or nothing."""
    got: dict[str, str] = {}

    def body() -> None:
        assert swapco.current_fiber().state == at.state
        for name, call in calls.items():
            try:
                call()
            except RuntimeError as error:
                got[name] = str(error)
            else:
                got[name] = ""

    with methods(loop) as calls:
        at.call(body)
    return got


def assert_refused(got: dict[str, str], state: str) -> None:
    for name, text in got.items():
        assert f"loop.{name}() was called in <Fiber 'Fiber-" in text
        assert f"{state}>, whose kernel thread may run beside the event loop" in text
        assert f"from_thread.run(loop.{name}, " in text
    assert "await_(coroutine)" in got["create_task"]


@in_fiber
def test_a_detached_fiber_is_told_what_to_do() -> None:
    got = answers(asyncio.get_running_loop(), DETACHED)
    assert len(got) == 7
    assert_refused(got, "DETACHED")


@in_quiet_fiber
def test_an_attached_fiber_may_call_all_of_them() -> None:
    assert set(answers(asyncio.get_running_loop(), ATTACHED).values()) == {""}


@everywhere
def test_debug_mode_says_no_to_all_of_them(at: At) -> None:
    """Also to attached ones: whether a fiber is detached is not up to the program."""
    swapco.run(lambda: assert_refused(answers(asyncio.get_running_loop(), at), at.state), debug=True)


@in_quiet_fiber
def test_what_an_attached_fiber_starts_begins_at_once() -> None:
    loop = asyncio.get_running_loop()

    def body(start: Callable[[Callback], Any]) -> bool:
        seen = Callback()
        start(seen)
        with swapco.blocking():
            # long before the second in which a quiet slot's housekeeping is due
            return seen.called.wait(0.5) and seen.ident != threading.get_ident()

    for start in (
        lambda seen: loop.call_later(0.001, seen),
        lambda seen: loop.call_at(loop.time(), seen),
        lambda seen: loop.create_task(asyncio.sleep(0.001)).add_done_callback(seen),
        lambda seen: asyncio.ensure_future(asyncio.sleep(0), loop=loop).add_done_callback(seen),
    ):
        assert on_thread(functools.partial(body, start))


@in_fiber
def test_a_refused_coroutine_is_closed() -> None:
    """It would be one that was never awaited, which is a warning, and so an error here."""
    loop = asyncio.get_running_loop()
    coroutine = asyncio.sleep(LONG_S)

    def body() -> None:
        with pytest.raises(RuntimeError, match="create_task"):
            loop.create_task(coroutine)

    run_detached(body).join()
    assert coroutine.cr_frame is None


@in_fiber
def test_what_the_error_says_to_do_works() -> None:
    loop = asyncio.get_running_loop()
    seen = Callback()

    def body() -> Any:
        swapco.from_thread.run(loop.call_later, 0.001, seen)
        task = swapco.from_thread.run(loop.create_task, asyncio.sleep(0.001, "of the task"))
        return swapco.await_(task), swapco.await_(asyncio.sleep(0, "of the coroutine"))

    assert run_detached(body).join() == ("of the task", "of the coroutine")
    wait_until(seen.called.is_set)


@in_fiber
def test_at_home_everything_is_as_before() -> None:
    """Ordinary fibers and callbacks, in a loop that has thread fibers."""
    loop = asyncio.get_running_loop()
    on_thread(int)
    with methods(loop) as calls:
        for call in calls.values():
            call()
    seen = Callback()
    loop.call_later(delay=0, callback=seen)
    wait_until(seen.called.is_set)


@in_fiber
def test_a_loop_inside_a_thread_fiber_is_at_home_there() -> None:
    """asyncio.run and swapco.run in ``to_thread``: the worker is that loop's own thread."""

    def inner() -> str:
        loop = asyncio.get_running_loop()
        swapco.spawn(int, thread=True).join()
        with methods(loop) as calls:
            for call in calls.values():
                call()
        future = loop.create_future()
        loop.call_later(0, future.set_result, "inner")
        return str(swapco.await_(future))

    async def plain() -> str:
        await asyncio.sleep(0)
        return "plain"

    assert swapco.to_thread(swapco.run, inner) == "inner"
    assert swapco.to_thread(asyncio.run, plain()) == "plain"


def test_from_a_loop_inside_a_thread_fiber_to_the_loop_outside() -> None:
    """Neither is the other's home: callbacks go through, the rest is refused."""

    def main() -> None:
        outer = asyncio.get_running_loop()
        seen = Callback()

        def inner() -> str:
            outer.call_soon(seen)
            try:
                outer.call_later(0, int)
            except RuntimeError as error:
                return str(error)
            return ""

        assert "from_thread.run(loop.call_later, ...)" in swapco.to_thread(swapco.run, inner)
        wait_until(seen.called.is_set)
        assert seen.ident == threading.get_ident()

    swapco.run(main)


@everywhere
def test_stopping_the_loop(at: At) -> None:
    """From any thread fiber, at once."""
    loop = swapco.new_event_loop()
    stopped_by: list[str] = []

    def body() -> None:
        stopped_by.append(swapco.current_fiber().state)
        loop.stop()

    loop.call_soon(swapco.spawn, at.call, body)
    loop.run_forever()
    assert stopped_by == [at.state]
    loop.close()


@debug_or_not
def test_a_foreign_thread_is_treated_as_by_uvloop(debug: bool) -> None:
    """No error without debug mode, and asyncio's own with it: that is for the program to know."""
    got: list[str] = []

    def foreign(loop: Any) -> None:
        try:
            loop.call_soon(int)
        except RuntimeError as error:
            got.append(str(error))
        else:
            got.append("")

    def main() -> None:
        on_thread(int)
        other = threading.Thread(target=foreign, args=(asyncio.get_running_loop(),))
        other.start()
        other.join(SOON_S)

    swapco.run(main, debug=debug)
    (text,) = got
    assert text.startswith("Non-thread-safe operation" if debug else "")
    assert bool(text) is debug


def test_a_thread_that_was_left_alone_is_told_that_the_loop_is_closed() -> None:
    result = run_program("""
        import asyncio, threading, warnings
        import swapco

        gate, over = threading.Event(), threading.Event()
        said = []

        def late(loop):
            gate.wait()
            for call in (loop.call_soon, loop.call_later):
                try:
                    call(1, int) if call == loop.call_later else call(int)
                except RuntimeError as error:
                    said.append(str(error))
            over.set()

        def main():
            fiber = swapco.spawn(late, asyncio.get_running_loop(), thread=True)
            while fiber.state != "DETACHED":
                swapco.sleep(0.001)

        warnings.simplefilter("ignore")
        swapco.run(main, shutdown_timeout=0.01)
        gate.set()
        over.wait(20)
        print(said)
    """)
    assert result.stdout == "['Event loop is closed', 'Event loop is closed']\n", result.stderr
