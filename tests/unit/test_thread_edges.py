"""Thread fibers where things go wrong, or meet: policies and instruments that raise, coroutines that call blocking
functions, loops that move to another thread, deep recursion, exceptions that nobody retrieves, memory.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from typing import Any

import pytest
from helpers import SOON_S, Logged, in_fiber, settle, wait_until
from thread_support import (
    MIX_NAMES,
    MIXES,
    Held,
    at_home,
    in_quiet_fiber,
    on_thread,
    outcome,
    quiet,
    run_detached,
    statistics,
    thread,
    until_blocked,
    until_detached,
)

import swapco
from swapco.lowlevel import Deadline, Fifo, Instrument, Lifo, Policy, Slot

pytestmark = pytest.mark.usefixtures("fibers")

mixed = pytest.mark.parametrize(("first", "second"), MIXES, ids=MIX_NAMES)


# --------------------------------------------------------------------------------------- coroutines


@in_quiet_fiber
def test_a_coroutine_in_a_fiber_calls_to_thread() -> None:
    """It blocks the fiber; other asyncio tasks go on, and the current task is theirs meanwhile."""
    names: list[Any] = []

    async def other() -> None:
        for _ in range(3):
            names.append(asyncio.current_task() is running)
            await asyncio.sleep(0)

    async def calls() -> tuple[int, bool]:
        before = asyncio.current_task()
        ident = swapco.to_thread(lambda: (swapco.sleep(0.002), threading.get_ident())[1])
        return ident, asyncio.current_task() is before

    running = asyncio.get_running_loop().create_task(other())
    ident, same = swapco.await_(calls())
    assert ident != threading.get_ident()
    assert same
    swapco.await_(running)
    assert names == [True] * 3


@in_quiet_fiber
def test_asyncio_timeout_around_a_call() -> None:

    async def calls() -> None:
        loop = asyncio.get_running_loop()

        def outlasts(deadline: Any) -> None:
            # the slot is lent until the detector finds out; the quiet one takes a second for that
            while loop.time() <= deadline:
                time.sleep(0.001)
            swapco.sleep(0)

        async with asyncio.timeout(0.01) as limit:
            swapco.to_thread(outlasts, limit.when())

    with pytest.raises(TimeoutError):
        swapco.await_(calls())
    wait_until(lambda: len(swapco.all_fibers()) == 1)


@in_fiber
def test_asyncio_wait_for_a_thread_fiber() -> None:
    """asyncio cancels it: that is raised at its next call."""
    held = Held()
    fiber = thread(lambda: (held(), swapco.sleep(0)))
    until_detached(fiber)
    waiting = asyncio.get_running_loop().create_task(asyncio.wait_for(fiber, 0.01))
    wait_until(lambda: fiber.cancelling() == 1)
    held.let_go()
    with pytest.raises(TimeoutError):
        swapco.await_(waiting)
    assert fiber.cancelled()


# ---------------------------------------------------------------------------------- policies, instruments


@pytest.mark.parametrize("policy", [Fifo, Lifo, Deadline], ids=lambda policy: policy.__name__)
def test_every_policy_runs_them(policy: Any) -> None:
    ran: list[int] = []

    def main() -> None:
        queue = swapco.Queue[int](1)

        def body(n: int) -> None:
            for _ in range(5):
                queue.put(n)
                ran.append(queue.get())

        swapco.wait([swapco.spawn(body, n, thread=n % 2 == 0, deadline=float(9 - n)) for n in range(6)])
        assert swapco.to_thread(int) == 0

    swapco.run(main, policy=policy(), slot=quiet())
    assert sorted(ran) == sorted(list(range(6)) * 5)


class Moody(Policy):
    """A policy in Python that raises when it is told to."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.raises = ""

    def push(self, fiber: Any) -> None:
        if self.raises == "push":
            self.raises = ""
            raise LookupError("no mood to push")
        self.items.append(fiber)

    def pop(self) -> Any:
        if self.raises == "pop":
            self.raises = ""
            raise LookupError("no mood to pop")
        return self.items.pop(0) if self.items else None

    def remove(self, fiber: Any) -> None:
        self.items.remove(fiber)

    def __len__(self) -> int:
        return len(self.items)


@pytest.mark.parametrize("raises", ["push", "pop"])
def test_a_policy_that_raises_on_a_workers_thread(raises: str) -> None:
    """There is no fiber to raise it in: it leaves through the loop, as from an ordinary fiber."""
    policy = Moody()
    ended: list[str] = []

    def body() -> None:
        policy.raises = raises
        try:
            swapco.sleep(0)
            swapco.block()
        finally:
            ended.append("body")

    with pytest.raises(LookupError, match="no mood"):
        swapco.run(lambda: thread(body).join(), policy=policy, slot=quiet())
    assert ended == ["body"]


def test_an_instrument_that_raises_on_a_workers_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported and removed, and nobody else notices."""
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    class Fragile(Instrument):
        def blocked(self, fiber: Any, reason: str) -> None:
            if not at_home():
                raise LookupError("fragile")

    def main() -> str:
        scheduler: Any = swapco.current_fiber().scheduler
        fragile = Fragile()
        scheduler.add_instrument(fragile)
        fiber = thread(lambda: (swapco.block(), "went on")[1])
        until_blocked(fiber)
        swapco.resume(fiber)
        with pytest.raises(ValueError, match="not installed"):
            scheduler.remove_instrument(fragile)
        return str(fiber.join())

    assert swapco.run(main, slot=quiet()) == "went on"
    assert [type(report.exc_value) for report in reported] == [LookupError]


@in_quiet_fiber
def test_an_instrument_must_not_wait_on_a_workers_thread() -> None:
    class Waits(Instrument):
        def before_switch(self, leaving: Any, entering: Any) -> None:
            if not at_home() and leaving is not None:
                got.append(outcome(lambda: swapco.sleep(0)))

    got: list[Any] = []
    scheduler: Any = swapco.current_fiber().scheduler
    waits = Waits()
    scheduler.add_instrument(waits)
    on_thread(swapco.sleep, 0.001)
    scheduler.remove_instrument(waits)
    assert got
    assert set(got) <= {RuntimeError, swapco.NotInFiber}


# -------------------------------------------------------------------------------------------- exceptions


def test_an_exception_that_nobody_retrieves_is_logged(fibers: Logged) -> None:
    def fails() -> None:
        raise LookupError("unheard")

    def main() -> None:
        for detach in (False, True):
            fiber = thread(fails) if not detach else run_detached(fails)
            wait_until(fiber.done)
        del fiber

    swapco.run(main)
    gc.collect()
    messages = fibers.take()
    assert len(messages) == 2
    assert all("never retrieved" in message and "unheard" in message for message in messages)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
def test_errors_that_leave_run(error: type[BaseException], detached: bool) -> None:
    """As from an asyncio task: KeyboardInterrupt and SystemExit also leave the loop."""

    def fails() -> None:
        raise error

    def main() -> None:
        fiber = run_detached(fails) if detached else thread(fails)
        swapco.wait([fiber])
        swapco.block()

    with pytest.raises(error):
        swapco.run(main)


@in_quiet_fiber
def test_recursion_has_the_limit_of_any_thread() -> None:
    def dive(n: int) -> int:
        if n == 0:
            swapco.sleep(0)
            return 0
        return 1 + dive(n - 1)

    def sinks() -> None:
        sinks()

    assert [f.join() for f in [thread(dive, 700) for _ in range(3)]] == [700] * 3
    with pytest.raises(RecursionError):
        on_thread(sinks)
    # the worker is none the worse for it
    assert on_thread(dive, 700) == 700
    assert statistics()["workers"] == 3


@in_quiet_fiber
def test_the_handled_exception_is_the_fibers_own() -> None:
    def handles(n: int) -> Any:
        try:
            raise LookupError(n)
        except LookupError:
            swapco.sleep(0)
            inside = sys.exception() if sys.version_info >= (3, 11) else sys.exc_info()[1]
            return inside.args

    fibers = [swapco.spawn(handles, n, thread=n % 2 == 0) for n in range(4)]
    assert [fiber.join() for fiber in fibers] == [(n,) for n in range(4)]
    assert on_thread(sys.exc_info) == (None, None, None)


# ------------------------------------------------------------------------------------- groups and limits


def test_a_group_of_starved_fibers_is_cancelled_as_a_whole() -> None:
    def main() -> None:
        ended: list[int] = []

        def waits(n: int) -> None:
            try:
                swapco.block()
            finally:
                ended.append(n)

        def fails() -> None:
            swapco.sleep(0.002)
            raise LookupError

        with pytest.raises(ExceptionGroup):
            with swapco.TaskGroup() as group:
                for n in range(6):
                    group.spawn(waits, n, thread=True)
                group.spawn(fails)
        assert sorted(ended) == [0, 1]

    swapco.run(main, slot=quiet(max_workers=2))


def test_to_thread_of_many_at_the_limit() -> None:
    def main() -> None:
        ran: list[int] = []

        def call(n: int) -> int:
            time.sleep(0.002)
            ran.append(n)
            swapco.sleep(0)
            return n

        fibers = [swapco.spawn(swapco.to_thread, call, n) for n in range(30)]
        assert [fiber.join() for fiber in fibers] == list(range(30))
        assert sorted(ran) == list(range(30))
        assert statistics()["workers"] <= 3

    swapco.run(main, slot=Slot(max_workers=3))


# ----------------------------------------------------------------------------- loops, threads and memory


def test_a_loop_that_moves_to_another_thread() -> None:
    """Its idle workers go with it; fibers with a kernel thread do not."""
    runner = swapco.Runner(slot=quiet())
    worker = runner.run(on_thread, threading.get_native_id)
    got: list[Any] = []

    def elsewhere() -> None:
        got.append(outcome(lambda: runner.run(lambda: (at_home(), on_thread(threading.get_native_id)))))

    def in_another_thread() -> None:
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join(SOON_S)

    in_another_thread()
    assert got == [(False, worker)]
    parked: Any = runner.run(lambda: (thread(swapco.block), swapco.sleep(0))[0])
    in_another_thread()
    assert got[1:] == [RuntimeError]
    runner.run(swapco.resume, parked)
    assert runner.run(parked.join) is None
    runner.close()


def test_two_loops_in_two_threads_at_once() -> None:
    """Each has workers of its own; primitives of one are of no use to the other."""
    got: list[Any] = []

    def main() -> int:
        return sum(swapco.gather(*[thread(lambda n=n: (swapco.sleep(0.001), n)[1]) for n in range(20)]))

    others = [threading.Thread(target=lambda: got.append(swapco.run(main))) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(SOON_S)
    assert got == [190] * 3


def test_joining_a_thread_fiber_of_another_loop_is_refused() -> None:
    foreign: list[Any] = []
    begun, over = threading.Event(), threading.Event()

    def elsewhere() -> None:
        foreign.append(thread(swapco.block))
        begun.set()
        wait_until(over.is_set)
        swapco.resume(foreign[0])

    def main() -> None:
        fiber = foreign[0]
        for call in (fiber.join, lambda: swapco.switch_to(fiber), lambda: on_thread(fiber.join)):
            with pytest.raises(RuntimeError, match="another event loop"):
                call()

    other = threading.Thread(target=lambda: swapco.run(elsewhere))
    other.start()
    assert begun.wait(SOON_S)
    swapco.run(main)
    over.set()
    other.join(SOON_S)


def test_nothing_keeps_a_finished_thread_fiber_alive() -> None:
    class Something:
        pass

    seen: list[weakref.ref[Any]] = []

    def body(thing: Something) -> Something:
        seen.append(weakref.ref(thing))
        swapco.sleep(0)
        return thing

    def main() -> None:
        for detach in (False, True):
            thing = Something()
            fiber = run_detached(lambda thing=thing: body(thing)) if detach else thread(body, thing)
            fiber.join()
            swapco.to_thread(body, thing)
            del fiber, thing
            # the worker is idle now, and remembers nothing
            settle()
            gc.collect()
            assert [ref() for ref in seen] == [None] * len(seen)

    swapco.run(main)
    assert len(seen) == 4


def test_nothing_keeps_a_closed_loop_alive() -> None:
    slot = Slot()
    seen = weakref.ref(slot)
    loops: list[weakref.ref[Any]] = []

    def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        run_detached(int).join()
        on_thread(int)
        swapco.wait([thread(swapco.sleep, 0.001) for _ in range(3)])

    swapco.run(main, slot=slot)
    del slot
    gc.collect()
    assert loops[0]() is None
    assert seen() is None


def test_loops_by_the_dozen() -> None:
    """Each with workers; the fixture looks for threads and descriptors that are left."""
    for _ in range(40):
        assert swapco.run(lambda: swapco.gather(*[thread(swapco.to_thread, int) for _ in range(3)])) == [0] * 3


@in_fiber
def test_thousands_of_thread_fibers_one_after_the_other() -> None:
    for _ in range(3000):
        assert thread(int).join() == 0
    assert statistics()["workers"] <= 2
    assert statistics()["live_fibers"] == 1


@mixed
@in_fiber
def test_cancelling_at_random_leaves_every_primitive_whole(first: bool, second: bool) -> None:
    """No permit, item or lock is lost, whenever a cancellation comes."""
    import random

    dice = random.Random(1)
    lock, semaphore, queue = swapco.Lock(), swapco.Semaphore(2), swapco.Queue[int]()
    for n in range(5):
        queue.put(n)

    def body() -> None:
        for step in range(30):
            try:
                with lock:
                    if step % 3 == 0 and not at_home():
                        with swapco.blocking():
                            pass
                    swapco.sleep(0)
                with semaphore:
                    swapco.sleep(0)
                item = queue.get()
                try:
                    swapco.sleep(0)
                finally:
                    queue.put_nowait(item)
            except swapco.CancelledError:
                pass

    fibers = [swapco.spawn(body, thread=(first, second)[n % 2]) for n in range(6)]
    # one that has not begun would never run
    wait_until(lambda: all(fiber.state != "NEW" for fiber in fibers))
    while not all(fiber.done() for fiber in fibers):
        dice.choice(fibers).cancel()
        swapco.sleep(0)
        swapco.sleep(0)
    for fiber in fibers:
        # the last cancellation may have come when it was about to end
        assert fiber.exception() is None
    assert not lock.locked()
    assert semaphore.statistics().value == 2
    assert sorted(queue.get_nowait() for _ in range(5)) == list(range(5))
