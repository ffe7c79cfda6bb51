"""``to_thread``: one call that may block.

It is optimistic: it gets the slot at once, and hands it straight back; only one that is found to block is handed off.
What is remembered of those is in test_blockers.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import time
import traceback
from typing import Any

import pytest
from helpers import SOON_S, Logged, in_fiber, label, settle, wait_until
from thread_support import (
    Held,
    at_home,
    in_quiet_fiber,
    outcome,
    quiet,
    statistics,
)

import swapco

pytestmark = pytest.mark.usefixtures("fibers")

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")
LONG = 3600.0


async def asynchronous() -> None:
    await asyncio.sleep(0)


def give(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def fail(text: str) -> None:
    raise LookupError(text)


# ------------------------------------------------------------------------------------------- one call


@pytest.mark.parametrize("in_thread", [False, True], ids=["ordinary", "thread"])
@in_quiet_fiber
def test_results_and_arguments(in_thread: bool) -> None:
    def body() -> None:
        assert swapco.to_thread(give) == ((), {})
        assert swapco.to_thread(give, 1, key=2) == ((1,), {"key": 2})
        assert swapco.to_thread(give, func=1, self=2) == ((), {"func": 1, "self": 2})
        assert swapco.to_thread(int, "17", base=8) == 15
        assert swapco.to_thread(functools.partial(give, 1), 2) == ((1, 2), {})
        assert swapco.to_thread([1, 2].pop) == 2

    swapco.spawn(body, thread=in_thread).join()


@pytest.mark.parametrize("in_thread", [False, True], ids=["ordinary", "thread"])
@in_quiet_fiber
def test_it_runs_on_another_kernel_thread_and_is_a_fiber_there(in_thread: bool) -> None:
    def call() -> tuple[int, Any, str]:
        me = swapco.current_fiber()
        swapco.sleep(0)
        return threading.get_ident(), me, me.state

    def body() -> None:
        ident, fiber, state = swapco.to_thread(call)
        assert ident != threading.get_ident()
        assert fiber is not swapco.current_fiber()
        assert (state, fiber.state) == ("RUNNING", "DONE")

    swapco.spawn(body, thread=in_thread).join()


@in_quiet_fiber
def test_exceptions_come_out_with_their_traceback() -> None:
    with pytest.raises(LookupError, match="on purpose") as info:
        swapco.to_thread(fail, "on purpose")
    names = [entry.name for entry in traceback.extract_tb(info.value.__traceback__)]
    assert names[-1] == "fail"
    with pytest.raises(TypeError, match="unexpected keyword"):
        swapco.to_thread(fail, wrong=1)
    with pytest.raises(TimeoutError):
        swapco.to_thread(lambda: swapco.block(0))


@in_fiber
def test_exceptions_of_a_detached_call() -> None:
    def blocks_and_fails() -> None:
        time.sleep(0.01)
        fail("later")

    with pytest.raises(LookupError, match="later"):
        swapco.to_thread(blocks_and_fails)


@in_quiet_fiber
def test_a_cancelled_error_of_the_call_is_an_exception_like_any_other() -> None:
    def call() -> None:
        raise swapco.CancelledError("by itself")

    with pytest.raises(swapco.CancelledError, match="by itself"):
        swapco.to_thread(call)
    assert swapco.current_fiber().cancelling() == 0


@in_quiet_fiber
def test_the_call_sees_a_copy_of_the_callers_context() -> None:
    def call() -> str:
        before = VARIABLE.get()
        VARIABLE.set("the call's")
        return before

    VARIABLE.set("the caller's")
    assert swapco.to_thread(call) == "the caller's"
    assert VARIABLE.get() == "the caller's"


@in_quiet_fiber
def test_nested_calls() -> None:
    def nest(depth: int) -> list[int]:
        ident = threading.get_ident()
        return [ident] if depth == 0 else [ident, *swapco.to_thread(nest, depth - 1)]

    idents = swapco.to_thread(nest, 20)
    assert len(set(idents)) == 21
    assert statistics()["workers"] == 21


@in_quiet_fiber
def test_both_ways_and_back() -> None:
    def ping(depth: int) -> list[bool]:
        return [at_home()] if depth == 0 else [at_home(), *swapco.from_thread.run(pong, depth - 1)]

    def pong(depth: int) -> list[bool]:
        return [at_home()] if depth == 0 else [at_home(), *swapco.to_thread(ping, depth - 1)]

    assert swapco.to_thread(ping, 5) == [False, True] * 3


@in_quiet_fiber
def test_one_worker_serves_all_calls_of_one_fiber() -> None:
    assert len({swapco.to_thread(threading.get_ident) for _ in range(50)}) == 1
    assert statistics()["workers"] == 1


@in_fiber
def test_many_blocking_calls_at_once() -> None:
    # one after the other they would not meet
    barrier = threading.Barrier(40, timeout=2 * SOON_S)
    fibers = [swapco.spawn(swapco.to_thread, barrier.wait) for _ in range(40)]
    swapco.wait(fibers)
    assert sorted(fiber.result() for fiber in fibers) == list(range(40))


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("wrong", [None, 3, "text"], ids=label)
@in_fiber
def test_what_cannot_be_called(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"to_thread\(\) takes a function"):
        swapco.to_thread(wrong)


@pytest.mark.parametrize("wrong", [asynchronous, functools.partial(asynchronous)], ids=["function", "partial"])
@in_fiber
def test_coroutine_functions(wrong: Any) -> None:
    with pytest.raises(TypeError, match="await_"):
        swapco.to_thread(wrong)
    assert len(swapco.all_fibers()) == 1


def test_outside_of_run() -> None:
    with pytest.raises(swapco.NotInFiber, match="to_thread"):
        swapco.to_thread(int)
    with pytest.raises(swapco.NotInFiber, match="blocking"):
        with swapco.blocking():
            pass


@in_fiber
def test_in_the_hub_and_in_another_thread() -> None:
    got: list[Any] = []

    def block() -> None:
        with swapco.blocking():
            pass

    loop = asyncio.get_running_loop()
    for call in (lambda: swapco.to_thread(int), block):
        loop.call_soon(lambda call=call: got.append(outcome(call)))
        settle()
        other = threading.Thread(target=lambda call=call: got.append(outcome(call)))
        other.start()
        other.join()
    assert got == [swapco.NotInFiber] * 4


# ---------------------------------------------------------------------------------------- cancellation


@pytest.mark.parametrize("in_thread", [False, True], ids=["ordinary", "thread"])
@in_fiber
def test_a_cancelled_caller_leaves_at_once_and_the_call_runs_on(in_thread: bool) -> None:
    held = Held()
    ended: list[str] = []

    def call() -> None:
        held()
        swapco.sleep(0)
        ended.append("call")

    def calls() -> None:
        try:
            swapco.to_thread(call)
        finally:
            ended.append("caller")

    caller = swapco.spawn(calls, thread=in_thread)
    wait_until(lambda: held.inside and caller.state == "BLOCKED")
    caller.cancel("why")
    with pytest.raises(swapco.CancelledError, match="why"):
        caller.join()
    assert ended == ["caller"]
    held.let_go()
    wait_until(lambda: ended == ["caller", "call"])
    settle()


def test_what_an_abandoned_call_raises_is_logged(fibers: Logged) -> None:
    held = Held()

    def call() -> None:
        held()
        fail("nobody hears it")

    def main() -> None:
        caller = swapco.spawn(swapco.to_thread, call)
        wait_until(lambda: held.inside and caller.state == "BLOCKED")
        caller.cancel()
        with pytest.raises(swapco.CancelledError):
            caller.join()
        held.let_go()
        wait_until(lambda: len(swapco.all_fibers()) == 1)

    swapco.run(main)
    gc.collect()
    (message,) = fibers.take()
    assert "never retrieved" in message
    assert "nobody hears it" in message


@in_quiet_fiber
def test_what_a_call_raises_to_its_caller_is_not_logged() -> None:
    for _ in range(3):
        with pytest.raises(LookupError):
            swapco.to_thread(fail, "heard")
    gc.collect()


@pytest.mark.parametrize("in_thread", [False, True], ids=["ordinary", "thread"])
@in_quiet_fiber
def test_a_cancellation_that_is_pending_keeps_the_call_from_running(in_thread: bool) -> None:
    ran: list[int] = []

    def calls() -> None:
        swapco.current_fiber().cancel("before")
        with pytest.raises(swapco.CancelledError, match="before"):
            swapco.to_thread(ran.append, 1)
        swapco.to_thread(ran.append, 2)

    swapco.spawn(calls, thread=in_thread).join()
    assert ran == [2]


@in_quiet_fiber
def test_a_result_that_has_come_stands_against_a_cancellation() -> None:
    got: list[str] = []

    def calls() -> None:
        got.append(swapco.to_thread(queue.get))
        swapco.sleep(0)
        got.append("too far")

    queue = swapco.Queue[str]()
    fiber = swapco.spawn(calls)
    wait_until(lambda: queue.statistics().getting == 1)
    queue.put("result")
    # the call ends, and makes its caller runnable, before this fiber runs again
    while fiber.state == "BLOCKED":
        swapco.sleep(0)
    if fiber.state == "READY":
        fiber.cancel()
        with pytest.raises(swapco.CancelledError):
            fiber.join()
        assert got == ["result"]
    else:
        # it had the slot straight from the call
        assert got == ["result", "too far"]


@in_fiber
def test_a_timeout_around_a_call() -> None:
    held = Held()
    with pytest.raises(TimeoutError):
        with swapco.timeout(0.01):
            swapco.to_thread(held)
    held.let_go()
    wait_until(lambda: len(swapco.all_fibers()) == 1)


# ------------------------------------------------------------------------------------ order and fairness


@in_quiet_fiber
def test_the_call_gets_the_slot_at_once_and_gives_it_straight_back() -> None:
    ran: list[str] = []
    swapco.to_thread(int)
    for _ in range(3):
        ran.clear()
        others = [swapco.spawn(ran.append, "other") for _ in range(3)]
        before = statistics()
        swapco.to_thread(ran.append, "call")
        after = statistics()
        ran.append("caller")
        if after["drains"] == before["drains"]:
            # I/O and timers were not due in between
            assert ran == ["call", "caller"]
            assert after["takes"] == before["takes"]
            assert after["direct_handoffs"] - before["direct_handoffs"] == 2
            assert after["lends"] - before["lends"] == 1
        swapco.wait(others)
        assert sorted(ran) == ["call", "caller", "other", "other", "other"]
        swapco.sleep(0)


@pytest.mark.parametrize("in_thread", [False, True], ids=["ordinary", "thread"])
@in_quiet_fiber
def test_a_loop_of_calls_starves_nobody(in_thread: bool) -> None:
    """Law 5: at most 64 handoffs between two takes, two to a call; timers and callbacks are served."""
    loop = asyncio.get_running_loop()
    calls = 0
    turns: list[int] = []
    served: set[str] = set()
    stop = False

    def yields() -> None:
        while not stop:
            turns.append(calls)
            swapco.sleep(0)

    def many() -> None:
        nonlocal calls, stop
        give_up = time.monotonic() + SOON_S
        while (calls < 1000 or len(served) < 3) and time.monotonic() < give_up:
            swapco.to_thread(int)
            calls += 1
        stop = True

    def sleeps() -> None:
        swapco.sleep(0.002)
        served.add("sleeper")

    loop.call_soon(served.add, "callback")
    loop.call_later(0.002, served.add, "timer")
    swapco.wait([swapco.spawn(yields), swapco.spawn(many, thread=in_thread), swapco.spawn(sleeps)])
    assert served == {"sleeper", "callback", "timer"}
    gaps = [later - before for before, later in zip(turns, turns[1:], strict=False)]
    assert max(gaps) <= 64


@in_quiet_fiber
def test_calls_of_several_fibers_take_turns() -> None:
    ran: list[int] = []

    def many(n: int) -> None:
        for _ in range(200):
            swapco.to_thread(ran.append, n)

    swapco.wait([swapco.spawn(many, n, thread=n == 1) for n in range(3)])
    assert sorted(ran) == [0] * 200 + [1] * 200 + [2] * 200
    # nobody is through before the others have begun
    assert set(ran[:150]) == {0, 1, 2}


@in_quiet_fiber
def test_a_call_that_waits_for_its_callers_others() -> None:
    """It is a fiber: the others run while it waits."""
    queue = swapco.Queue[int]()
    putter = swapco.spawn(queue.put, 5)
    assert swapco.to_thread(queue.get) == 5
    putter.join()


@in_fiber
def test_a_call_may_run_a_loop_of_its_own() -> None:
    def call() -> tuple[int, Any]:
        before = swapco.current_fiber()
        idents = swapco.run(lambda: (threading.get_ident(), swapco.to_thread(threading.get_ident)), slot=quiet())
        assert idents[0] == threading.get_ident() != idents[1]
        swapco.sleep(0)
        assert swapco.current_fiber() is before
        return idents

    here, there = swapco.to_thread(call)
    assert threading.get_ident() not in (here, there)
