"""Thread fibers: fibers with a kernel thread of their own.

They are scheduled like all others, under the same laws, and may use every primitive; what differs is that they may
block in the kernel.  One that does is DETACHED: the rest goes on, and at its next call of swapco it waits for its turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
import threading
import time
import traceback
from typing import Any

import pytest
from helpers import in_fiber, label, wait_until
from thread_support import (
    Held,
    at_home,
    in_quiet_fiber,
    on_thread,
    quiet,
    run_detached,
    statistics,
    thread,
    until_blocked,
    until_detached,
)

import swapco
from swapco.lowlevel import Instrument, Priority

pytestmark = pytest.mark.usefixtures("fibers")

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def asynchronous() -> None:
    await asyncio.sleep(0)


def fail() -> None:
    raise LookupError("on purpose")


# ------------------------------------------------------------------------------------------- spawning


@in_quiet_fiber
def test_it_runs_on_a_kernel_thread_of_its_own() -> None:
    assert at_home()
    here = threading.get_native_id()
    idents = [thread(threading.get_native_id) for _ in range(3)]
    assert here not in {fiber.join() for fiber in idents}
    assert not on_thread(at_home)
    assert at_home()


@in_quiet_fiber
def test_spawn_only_queues() -> None:
    ran: list[int] = []
    fiber = thread(ran.append, 1)
    assert fiber.state == "NEW"
    assert not fiber.done()
    assert ran == []
    assert fiber.join() is None
    assert ran == [1]
    assert fiber.state == "DONE"


@pytest.mark.parametrize("stride", [1, 2, 3])
@in_quiet_fiber
def test_fibers_of_both_kinds_run_in_the_order_of_spawning(stride: int) -> None:
    ran: list[int] = []
    swapco.wait([swapco.spawn(ran.append, n, thread=n % stride == 0) for n in range(60)])
    assert ran == list(range(60))


@in_quiet_fiber
def test_fibers_of_both_kinds_that_yield_take_turns() -> None:
    ran: list[int] = []

    def body(n: int) -> None:
        for _ in range(20):
            ran.append(n)
            swapco.sleep(0)

    swapco.wait([swapco.spawn(body, n, thread=n in (1, 2, 4)) for n in range(5)])
    assert ran == list(range(5)) * 20


@in_quiet_fiber
def test_a_policy_decides_about_them_too() -> None:
    ran: list[int] = []

    def main() -> None:
        swapco.current_fiber().priority = 99
        swapco.wait([swapco.spawn(ran.append, n, thread=n % 2 == 0, priority=n) for n in (3, 1, 4, 0, 2)])

    # in a loop of its own, hence in a thread of its own
    other = threading.Thread(target=lambda: swapco.run(main, policy=Priority(), slot=quiet()))
    other.start()
    wait_until(lambda: not other.is_alive())
    other.join()
    assert ran == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("wrong", [None, 3, "text"], ids=label)
@in_fiber
def test_what_cannot_be_called_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"spawn\(f, x\), not spawn\(f\(x\)\)"):
        thread(wrong)
    assert len(swapco.all_fibers()) == 1


@pytest.mark.parametrize("wrong", [asynchronous, functools.partial(asynchronous)], ids=["function", "partial"])
@in_fiber
def test_a_coroutine_function_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="thread=True takes a plain function"):
        thread(wrong)
    assert len(swapco.all_fibers()) == 1


@in_fiber
def test_a_coroutine_is_refused_and_closed() -> None:
    coroutine = asynchronous()
    with pytest.raises(TypeError, match="thread=True takes a plain function"):
        thread(coroutine)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
        coroutine.send(None)


def test_outside_of_a_loop() -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        thread(int)


@in_quiet_fiber
def test_exceptions_come_out_with_their_traceback() -> None:
    fiber = thread(fail)
    with pytest.raises(LookupError, match="on purpose") as info:
        fiber.join()
    assert "fail" in [entry.name for entry in traceback.extract_tb(info.value.__traceback__)]
    assert isinstance(fiber.exception(), LookupError)


@in_quiet_fiber
def test_arguments_names_and_repr() -> None:
    fiber = thread(lambda *args: args, 1, 2, name="worker bee")
    assert fiber.name == "worker bee"
    assert repr(fiber).startswith("<Fiber 'worker bee' NEW of ")
    assert fiber.join() == (1, 2)
    assert repr(fiber) == "<Fiber 'worker bee' DONE result=(1, 2)>"
    assert thread(int).name.startswith("Fiber-")


@in_quiet_fiber
def test_a_thread_fiber_spawns_both_kinds() -> None:
    def spawner() -> list[bool]:
        fibers = [swapco.spawn(at_home), thread(at_home), swapco.spawn(at_home)]
        assert [fiber.state for fiber in fibers] == ["NEW"] * 3
        return [fiber.join() for fiber in fibers]

    assert on_thread(spawner) == [True, False, True]


@in_quiet_fiber
def test_a_chain_of_thread_fibers_that_spawn_each_other() -> None:
    ended: list[int] = []

    def link(n: int) -> None:
        ended.append(n)
        if n:
            thread(link, n - 1)

    thread(link, 300)
    wait_until(lambda: len(ended) == 301)
    # each began after the one before had ended
    assert statistics()["workers"] <= 2


@in_quiet_fiber
def test_main_goes_on_while_a_hundred_of_them_wait() -> None:
    event = swapco.Event()
    fibers = [thread(event.wait) for _ in range(100)]
    until_blocked(*fibers)
    assert statistics()["workers"] == 100
    event.set()
    assert [fiber.join() for fiber in fibers] == [True] * 100


# -------------------------------------------------------------------------------------- what one can see


@in_fiber
def test_the_states_of_a_life() -> None:
    seen: list[str] = []
    held = Held()

    def life() -> None:
        seen.append(swapco.current_fiber().state)
        swapco.block()
        held()
        seen.append(swapco.current_fiber().state)
        swapco.sleep(0)
        seen.append(swapco.current_fiber().state)

    fiber = thread(life)
    seen.append(fiber.state)
    until_blocked(fiber)
    seen.append(fiber.state)
    swapco.resume(fiber)
    seen.append(fiber.state)
    until_detached(fiber)
    seen.append(fiber.state)
    assert repr(fiber) == f"<Fiber {fiber.name!r} DETACHED>"
    assert fiber.wait_reason is None
    held.let_go()
    fiber.join()
    seen.append(fiber.state)
    assert seen == ["NEW", "RUNNING", "BLOCKED", "READY", "DETACHED", "DETACHED", "RUNNING", "DONE"]


def names_of(frame: Any) -> list[str]:
    return [] if frame is None else [entry.name for entry in traceback.extract_stack(frame)]


@in_fiber
def test_the_frame_of_a_parked_and_of_a_detached_one() -> None:
    held = Held()

    def parks_here() -> None:
        swapco.block()

    def blocks_here() -> None:
        held()

    parked, detached = thread(parks_here), thread(blocks_here)
    assert detached.frame is None
    until_blocked(parked)
    until_detached(detached)
    assert names_of(parked.frame)[-1] == "parks_here"
    assert "blocks_here" in names_of(detached.frame)
    assert "parks_here" in [frame.f_code.co_name for frame in parked.get_stack()]
    swapco.resume(parked)
    held.let_go()
    swapco.wait([parked, detached])
    assert parked.frame is None
    assert detached.frame is None


def dumped() -> str:
    out = io.StringIO()
    swapco.dump_fibers(out)
    return out.getvalue()


@in_fiber
def test_dump_fibers_shows_all_kinds() -> None:
    held = Held()

    def parks_here() -> None:
        swapco.block()

    def blocks_here() -> None:
        held()

    fibers = [
        swapco.spawn(parks_here, name="ordinary"),
        thread(parks_here, name="parked"),
        thread(blocks_here, name="detached"),
    ]
    until_blocked(*fibers[:2])
    until_detached(fibers[2])
    text = dumped()
    assert text.startswith("4 fibers:")
    assert "<Fiber 'detached' DETACHED>" in text
    assert "<Fiber 'parked' BLOCKED waits for block()" in text
    assert "<Fiber 'ordinary' BLOCKED waits for block()" in text
    assert text.count("in parks_here") == 2
    assert text.count("in blocks_here") == 1
    for fiber in fibers[:2]:
        swapco.resume(fiber)
    held.let_go()
    swapco.wait(fibers)


@in_quiet_fiber
def test_dump_fibers_and_all_fibers_in_a_thread_fiber() -> None:
    def looks() -> tuple[str, set[Any]]:
        return dumped(), swapco.all_fibers()

    fiber = thread(looks, name="looks")
    text, fibers = fiber.join()
    assert fibers == {swapco.current_fiber(), fiber}
    assert text.startswith("2 fibers:")
    assert "<Fiber 'looks' RUNNING>" in text
    assert "in looks\n" in text
    assert "<Fiber 'main' BLOCKED waits for the end of fiber 'looks'>" in text


@in_fiber
def test_the_current_fiber_with_and_without_the_slot() -> None:
    seen: list[Any] = []
    fiber = run_detached(lambda: seen.append(swapco.current_fiber()))
    assert fiber.join() is None
    assert seen == [fiber]
    other = thread(swapco.current_fiber)
    assert other.join() is other


@in_fiber
def test_statistics_and_instruments_tell_of_a_detached_one() -> None:
    class Events(Instrument):
        def __init__(self) -> None:
            self.seen: list[tuple[str, Any]] = []

        def detached(self, fiber: Any) -> None:
            self.seen.append(("detached", fiber))

        def reattached(self, fiber: Any) -> None:
            self.seen.append(("reattached", fiber))

        def finished(self, fiber: Any) -> None:
            self.seen.append(("finished", fiber))

    events = Events()
    scheduler: Any = swapco.current_fiber().scheduler
    scheduler.add_instrument(events)
    before = statistics()
    during: list[dict[str, Any]] = []
    comes_back = run_detached(lambda: swapco.sleep(0), lambda: during.append(statistics()))
    comes_back.join()
    ends = run_detached(int)
    ends.join()
    scheduler.remove_instrument(events)
    after = statistics()
    assert during[0]["detached"] == 1
    # from the moment on at which it was detached
    assert during[0]["detached_s"] > before["detached_s"]
    assert after["detached"] == 0
    assert after["detaches"] - before["detaches"] >= 2
    assert after["reattaches"] - before["reattaches"] == after["detaches"] - before["detaches"] - 1
    assert after["revoked_by_monitor"] >= 2
    assert after["detached_s"] > before["detached_s"]
    mine = [name for name, fiber in events.seen if fiber is comes_back]
    assert mine[:2] == ["detached", "reattached"]
    assert mine[-1] == "finished"
    assert [name for name, fiber in events.seen if fiber is ends] == ["detached", "finished"]


@pytest.mark.parametrize("kinds", [(False,) * 4, (True,) * 4, (True, False) * 2], ids=["ordinary", "thread", "mixed"])
@in_quiet_fiber
def test_instruments_are_told_who_runs_before_and_after_each_switch(kinds: tuple[bool, ...]) -> None:
    class Switches(Instrument):
        def __init__(self) -> None:
            self.announced: Any = None
            self.arrivals: list[tuple[Any, Any]] = []

        def before_switch(self, leaving: Any, entering: Any) -> None:
            self.announced = entering

        def after_switch(self, entering: Any) -> None:
            if entering is not None:
                self.arrivals.append((self.announced, entering))

    def yields() -> None:
        for _ in range(5):
            swapco.sleep(0)

    switches = Switches()
    scheduler: Any = swapco.current_fiber().scheduler
    scheduler.add_instrument(switches)
    swapco.wait([swapco.spawn(yields, thread=kind) for kind in kinds])
    scheduler.remove_instrument(switches)
    assert len(switches.arrivals) >= 24
    assert [announced for announced, _ in switches.arrivals] == [entering for _, entering in switches.arrivals]


# ------------------------------------------------------------------------------------- contexts and locals


@in_quiet_fiber
def test_the_context_is_a_copy_of_the_spawners() -> None:
    def changes() -> str:
        before = VARIABLE.get()
        VARIABLE.set("changed")
        swapco.sleep(0)
        assert VARIABLE.get() == "changed"
        return before

    VARIABLE.set("main's")
    assert on_thread(changes) == "main's"
    assert VARIABLE.get() == "main's"
    # the worker is the same one, and knows nothing of it
    assert on_thread(changes) == "main's"


@in_quiet_fiber
def test_a_context_may_be_given() -> None:
    context = contextvars.copy_context()
    thread(VARIABLE.set, "given", context=context).join()
    assert context[VARIABLE] == "given"
    assert VARIABLE.get() == "unset"
    assert thread(VARIABLE.get, context=context).join() == "given"


@in_fiber
def test_the_context_stays_while_it_is_detached() -> None:
    VARIABLE.set("main's")
    seen: list[str] = []

    def body() -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set("the thread's")
        swapco.sleep(0)
        seen.append(VARIABLE.get())

    run_detached(body).join()
    assert seen == ["main's", "the thread's"]
    assert VARIABLE.get() == "main's"


@in_quiet_fiber
def test_local_belongs_to_the_fiber_and_not_to_its_thread() -> None:
    data = swapco.local()
    data.x = "main"

    def body(n: int) -> int:
        assert not hasattr(data, "x")
        data.x = n
        swapco.sleep(0)
        return int(data.x)

    for _ in range(2):
        # the second time on the same kernel threads
        assert [f.join() for f in [swapco.spawn(body, n, thread=n % 2 == 0) for n in range(6)]] == list(range(6))
    assert data.x == "main"


@in_fiber
def test_local_of_a_detached_one() -> None:
    data = swapco.local()

    def body() -> Any:
        data.x = 1
        return data.x

    assert run_detached(body).join() == 1
    assert not hasattr(data, "x")


# ---------------------------------------------------------------------------------------- loops and threads


def test_the_loop_is_run_twice_with_workers_in_between() -> None:
    with swapco.Runner(slot=quiet()) as runner:
        first = runner.run(on_thread, threading.get_native_id)
        event = swapco.Event()
        waiter: Any = runner.run(lambda: (thread(event.wait), swapco.sleep(0))[0])
        assert waiter.state == "BLOCKED"

        def second() -> tuple[Any, int]:
            event.set()
            return waiter.join(), on_thread(threading.get_native_id)

        # one kernel thread for all of them
        assert runner.run(second) == (True, first)
        assert runner.run(lambda: statistics()["workers"]) == 1


def test_a_detached_one_ends_between_two_runs() -> None:
    held = Held()
    with swapco.Runner() as runner:

        def start() -> Any:
            fiber = thread(lambda: (held(), "ended")[1])
            until_detached(fiber)
            return fiber

        fiber = runner.run(start)
        held.let_go()
        time.sleep(0.02)
        assert runner.run(fiber.join) == "ended"


def test_debug_mode_names_the_thread_fiber_that_kept_the_loop_waiting(fibers: Any) -> None:
    def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 0.05
        thread(time.sleep, 0.2, name="sluggard").join()

    import logging

    logger = logging.getLogger("asyncio")
    before = logger.level
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    handler = Keep(logging.WARNING)
    logger.addHandler(handler)
    try:
        swapco.run(main, debug=True, slot=quiet())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert [text for text in records if "sluggard" in text and "took" in text]


def test_debug_mode_and_detached_ones() -> None:
    def main() -> None:
        assert run_detached(lambda: swapco.sleep(0, 1)).join() == 1
        assert on_thread(int) == 0

    swapco.run(main, debug=True)


def test_nothing_of_them_is_left_after_run() -> None:
    def main() -> None:
        swapco.wait([thread(swapco.sleep, 0.001) for _ in range(20)])

    before = set(threading.enumerate())
    swapco.run(main, slot=quiet())
    assert set(threading.enumerate()) == before
