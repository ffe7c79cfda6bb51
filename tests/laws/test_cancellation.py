"""The rules of cancellation: where it is delivered, what it never destroys, and how it is taken back."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from actors import ACTORS, Crew
from helpers import SOON_S, in_fiber, settle
from hypothesis import given
from hypothesis import strategies as st
from programs import law

import swapco
from swapco.lowlevel import ParkingLot

pytestmark = pytest.mark.usefixtures("fibers")


def started(fn: Callable[..., Any], *args: Any) -> swapco.Fiber:
    """A fiber that has run until it waits."""
    fiber = swapco.spawn(fn, *args)
    settle()
    return fiber


# ------------------------------------------------------------------------------------- before it has run


@given(st.sampled_from(ACTORS), st.integers(1, 3))
@law(30)
def test_the_body_of_a_cancelled_new_fiber_never_runs(actor: str, times: int) -> None:
    """Whoever cancels it, and however often: it ends as cancelled."""

    def main() -> None:
        ran: list[int] = []
        with Crew() as crew:
            if actor == "fiber":
                # another fiber runs first
                canceller = swapco.spawn(lambda: [fiber.cancel("stop") for _ in range(times)])
                fiber = swapco.spawn(ran.append, 1)
                canceller.join()
            else:
                fiber = swapco.spawn(ran.append, 1)
                if actor == "thread":
                    crew.act(actor, lambda: [fiber.cancel("stop") for _ in range(times)])
                    crew.begun[-1].join(SOON_S)
                else:
                    for _ in range(times):
                        fiber.cancel("stop")
            with pytest.raises(swapco.CancelledError, match="stop"):
                fiber.join()
        assert fiber.cancelled()
        assert ran == []
        assert fiber.cancelling() == times

    swapco.run(main)


@in_fiber
def test_a_cancelled_new_coroutine_is_closed() -> None:
    """No "coroutine was never awaited" for what will never run."""

    async def body() -> None:
        raise AssertionError("it ran")

    coroutine = body()
    fiber = swapco.spawn(coroutine)
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@in_fiber
def test_a_new_fiber_whose_cancellation_is_taken_back_runs() -> None:
    """uncancel to 0 clears a pending one."""
    fiber = swapco.spawn(lambda: "ran")
    fiber.cancel()
    fiber.cancel()
    assert fiber.uncancel() == 1
    assert fiber.uncancel() == 0
    assert fiber.join() == "ran"


# ---------------------------------------------------------------------------------- where it is delivered


PLACES: dict[str, Callable[[], Any]] = {
    "block": lambda: swapco.block(),
    "block with a timeout": lambda: swapco.block(3600),
    "switch_to": lambda: swapco.switch_to(swapco.spawn(int)),
    "park": lambda: ParkingLot().park(),
    "sleep": lambda: swapco.sleep(3600),
    "get": lambda: swapco.Queue().get(),
    "event": lambda: swapco.Event().wait(),
    "semaphore": lambda: swapco.Semaphore(0).acquire(),
    "await_": lambda: swapco.await_(asyncio.get_running_loop().create_future()),
    "coroutine": lambda: swapco.await_(asyncio.sleep(3600)),
    "sleep(0)": lambda: _yield_for_ever(),
}


def _yield_for_ever() -> None:
    while True:
        swapco.sleep(0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("actor", ACTORS)
@in_fiber
def test_it_is_raised_where_the_fiber_suspends(place: str, actor: str) -> None:
    """With its message, once, whoever asked for it."""
    outcomes: list[str] = []

    def body() -> None:
        for _ in range(2):
            try:
                PLACES[place]()
            except swapco.CancelledError as error:
                outcomes.append(*error.args)
                break
        # once: nothing is pending now
        swapco.sleep(0)
        outcomes.append("went on")

    fiber = started(body)
    with Crew() as crew:
        crew.act(actor, lambda: fiber.cancel("message"))
    fiber.join(SOON_S)
    assert outcomes == ["message", "went on"]
    assert fiber.cancelling() == 1
    assert not fiber.cancelled()


@pytest.mark.parametrize("place", PLACES)
@in_fiber
def test_it_is_raised_where_the_fiber_would_suspend_next(place: str) -> None:
    """A running fiber that is cancelled goes on until then."""

    def body() -> str:
        swapco.current_fiber().cancel("message")
        with pytest.raises(swapco.CancelledError, match="message"):
            PLACES[place]()
        swapco.sleep(0)
        return "went on"

    assert swapco.spawn(body).join(SOON_S) == "went on"


@in_fiber
def test_sleep_zero_is_a_cancellation_point_before_and_after() -> None:
    """Cancelled while it waits for its turn: raised when the turn comes."""
    turns: list[str] = []

    def body() -> None:
        turns.append("before")
        swapco.sleep(0)
        turns.append("after")

    fiber = swapco.spawn(body)
    swapco.sleep(0)
    assert fiber.state == "READY"
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert turns == ["before"]


# -------------------------------------------------------------------------- a delivery that has won stands

DELIVERIES = ("resume", "unpark", "release", "put", "set", "notify", "get", "join")


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("actor", ["fiber", "thread"])
@in_fiber
def test_a_delivery_that_has_won_stands_and_the_cancellation_stays_pending(delivery: str, actor: str) -> None:
    """So no value, permit or item is lost: the cancellation comes at the next wait."""
    lot, semaphore, event, condition = ParkingLot(), swapco.Semaphore(0), swapco.Event(), swapco.Condition()
    items: Any = swapco.Queue()
    full: Any = swapco.Queue(1)
    full.put("first")
    got: list[Any] = []
    target = started(swapco.block)

    def wait() -> Any:
        if delivery == "resume":
            return swapco.block()
        if delivery == "unpark":
            return lot.park()
        if delivery == "release":
            return semaphore.acquire()
        if delivery == "put":
            return items.get()
        if delivery == "set":
            return event.wait()
        if delivery == "notify":
            with condition:
                return condition.wait()
        if delivery == "get":
            return full.put("second")
        return target.join()

    def body() -> None:
        got.append(wait())
        with pytest.raises(swapco.CancelledError):
            swapco.sleep(0)
        got.append("cancelled later")

    fiber = started(body)
    assert fiber.state == "BLOCKED"
    if delivery == "resume":
        swapco.resume(fiber, "value")
    elif delivery == "unpark":
        lot.unpark("value")
    elif delivery == "release":
        semaphore.release()
    elif delivery == "put":
        items.put_nowait("value")
    elif delivery == "set":
        event.set()
    elif delivery == "notify":
        with condition:
            condition.notify()
    elif delivery == "get":
        assert full.get_nowait() == "first"
    else:
        # the target ends in its turn, this fiber is next, the joiner behind it
        swapco.resume(target, "value")
        swapco.sleep(0)
        assert target.done()
    assert fiber.state == "READY"
    with Crew() as crew:
        crew.act(actor, fiber.cancel)
        if actor == "thread":
            crew.begun[-1].join(SOON_S)
    fiber.join(SOON_S)
    expected = {"get": None, "release": True, "set": True, "notify": True}.get(delivery, "value")
    assert got == [expected, "cancelled later"]
    if delivery == "get":
        assert full.get_nowait() == "second"
    if delivery == "release":
        with pytest.raises(TimeoutError):
            semaphore.acquire(timeout=0)


@in_fiber
def test_a_cancellation_that_has_won_leaves_the_permit_to_the_next() -> None:
    """The other way round: the fiber gave up, so the release goes to whoever is next in line."""
    semaphore = swapco.Semaphore(0)
    first, second = started(semaphore.acquire), started(semaphore.acquire)
    first.cancel()
    semaphore.release()
    assert second.join(SOON_S) is True
    with pytest.raises(swapco.CancelledError):
        first.join()


# ------------------------------------------------------------------------------------------------ uncancel


@given(st.integers(1, 4), st.integers(0, 5), st.sampled_from(["running", "ready", "resumed", "in a primitive, woken"]))
@law(80)
def test_uncancel_down_to_zero_clears_a_pending_one(cancels: int, uncancels: int, state: str) -> None:
    """On every Python version: what was not delivered is dropped when the last request is taken back."""

    def main() -> None:
        lot = ParkingLot()
        ends: list[str] = []

        def wait() -> None:
            try:
                swapco.sleep(0)
                ends.append("went on")
            except swapco.CancelledError:
                ends.append("cancelled")

        def body() -> None:
            if state == "ready":
                wait()
                return
            if state == "resumed":
                swapco.block()
            elif state == "in a primitive, woken":
                lot.park()
            else:
                for _ in range(cancels):
                    swapco.current_fiber().cancel()
                left = [swapco.current_fiber().uncancel() for _ in range(uncancels)]
                assert left == [max(0, cancels - n - 1) for n in range(uncancels)]
            wait()

        fiber = swapco.spawn(body)
        swapco.sleep(0)
        if state == "resumed":
            swapco.resume(fiber)
        elif state == "in a primitive, woken":
            lot.unpark()
        if state != "running":
            assert fiber.state == "READY"
            for _ in range(cancels):
                fiber.cancel()
            for _ in range(uncancels):
                fiber.uncancel()
        swapco.wait([fiber])
        assert fiber.exception() is None
        assert ends == ["cancelled" if cancels > uncancels else "went on"]
        assert fiber.cancelling() == max(0, cancels - uncancels)

    swapco.run(main)


@in_fiber
def test_asyncio_timeout_in_a_coroutine_leaves_no_cancellation_behind() -> None:
    """asyncio.timeout cancels, then uncancels: on 3.11 and 3.12 asyncio's own tasks keep a stale flag."""

    async def body() -> str:
        try:
            async with asyncio.timeout(0.001):
                swapco.sleep(3600)
        except TimeoutError:
            pass
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(3600)
        except TimeoutError:
            pass
        await asyncio.sleep(0)
        return "went on"

    assert swapco.await_(body()) == "went on"
    swapco.sleep(0)
    assert swapco.current_fiber().cancelling() == 0


@in_fiber
def test_uncancel_without_a_cancellation_is_zero() -> None:
    """As for an asyncio task."""
    assert swapco.current_fiber().uncancel() == 0
    assert swapco.current_fiber().cancelling() == 0


@in_fiber
def test_cancel_of_a_finished_fiber_is_false() -> None:
    """And changes nothing."""
    fiber = swapco.spawn(lambda: 7)
    fiber.join()
    assert fiber.cancel() is False
    assert fiber.join() == 7
    assert not fiber.cancelled()


# ----------------------------------------------------------------------------------------- joining, awaiting


@given(st.integers(1, 4), st.integers(0, 3))
@law(20)
def test_cancelling_a_joiner_never_cancels_its_target(joiners: int, cancelled: int) -> None:
    """The target and the other joiners go on."""

    def main() -> None:
        target = started(swapco.block)
        waiting = [started(target.join) for _ in range(joiners)]
        for fiber in waiting[:cancelled]:
            fiber.cancel()
        settle()
        assert target.state == "BLOCKED"
        assert target.cancelling() == 0
        swapco.resume(target, "value")
        for number, fiber in enumerate(waiting):
            if number < cancelled:
                with pytest.raises(swapco.CancelledError):
                    fiber.join()
            else:
                assert fiber.join() == "value"

    swapco.run(main)


@pytest.mark.parametrize("how", ["task", "await_"])
@in_fiber
def test_cancelling_a_coroutine_that_awaits_a_fiber_cancels_the_fiber(how: str) -> None:
    """As for ``await task``."""
    target = started(swapco.block)

    async def waits() -> None:
        await target

    waiter: Any
    if how == "task":
        waiter = asyncio.get_running_loop().create_task(waits())
    else:
        waiter = swapco.spawn(waits)
    settle()
    waiter.cancel("message")
    settle()
    assert target.cancelled()
    assert waiter.cancelled()


@in_fiber
def test_a_shielded_fiber_survives_the_cancellation_of_the_coroutine() -> None:
    """asyncio.shield works on fibers."""
    target = started(swapco.block)

    async def waits() -> None:
        await asyncio.shield(target)

    waiter = asyncio.get_running_loop().create_task(waits())
    settle()
    waiter.cancel()
    settle()
    assert waiter.cancelled()
    assert target.state == "BLOCKED"
    swapco.resume(target, "value")
    assert target.join() == "value"


@in_fiber
def test_a_cancelled_future_under_await_follows_asyncio() -> None:
    """A cancellation of the fiber cancels the future that it awaits; one that comes when the future is done already
    is raised instead of the result."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    fiber = started(swapco.await_, future)
    fiber.cancel("message")
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert future.cancelled()

    future = loop.create_future()
    fiber = started(swapco.await_, future)
    future.set_result("lost")
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert future.result() == "lost"


# ------------------------------------------------------------------------------------------------ releasing


def releases() -> dict[str, tuple[Callable[[], Any], Callable[[], bool]]]:
    """How to release, and whether that has worked; everything is acquired here."""
    lock, rlock, semaphore = swapco.Lock(), swapco.RLock(), swapco.Semaphore(0)
    condition, event = swapco.Condition(), swapco.Event()
    items: Any = swapco.Queue()
    full: Any = swapco.Queue(1)
    lot = ParkingLot()
    target = started(swapco.block)
    lock.acquire()
    rlock.acquire()
    condition.acquire()
    full.put("item")
    return {
        "Lock.release": (lock.release, lambda: not lock.locked()),
        "RLock.release": (rlock.release, lambda: not rlock.locked()),
        "Condition.release": (condition.release, lambda: not condition.locked()),
        "Condition.notify": (condition.notify_all, lambda: True),
        "Semaphore.release": (semaphore.release, lambda: not semaphore.locked()),
        "Event.set": (event.set, event.is_set),
        "Queue.put_nowait": (lambda: items.put_nowait(1), lambda: items.qsize() == 1),
        "Queue.get_nowait": (full.get_nowait, full.empty),
        "unpark": (lot.unpark, lambda: True),
        "resume": (lambda: swapco.resume(target, "value"), lambda: target.join(SOON_S) == "value"),
        "cancel": (target.cancel, lambda: target.cancelling() == 1),
        "spawn": (lambda: swapco.spawn(int), lambda: True),
        "Lock.__exit__": (lambda: lock.__exit__(None, None, None), lambda: not lock.locked()),
        "Semaphore.__exit__": (
            lambda: semaphore.__exit__(None, None, None),
            lambda: not semaphore.locked(),
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "Lock.release", "RLock.release", "Condition.release", "Condition.notify", "Semaphore.release", "Event.set",
        "Queue.put_nowait", "Queue.get_nowait", "unpark", "resume", "cancel", "spawn", "Lock.__exit__",
        "Semaphore.__exit__",
    ],
)  # fmt: skip
@in_fiber
def test_releasing_is_never_a_cancellation_point(name: str) -> None:
    """With a cancellation pending it does what it must, without a switch; the cancellation stays pending."""
    outcome: list[bool] = []

    def body() -> None:
        table = releases()
        release, worked = table[name]
        me = swapco.current_fiber()
        switches = me.scheduler.statistics()["switches"]
        me.cancel("pending")
        release()
        assert me.scheduler.statistics()["switches"] == switches
        with pytest.raises(swapco.CancelledError, match="pending"):
            swapco.sleep(0)
        outcome.append(worked())
        for fiber in swapco.all_fibers() - {me, main}:
            fiber.cancel()

    main = swapco.current_fiber()
    swapco.spawn(body).join(SOON_S)
    settle()
    assert outcome == [True]
