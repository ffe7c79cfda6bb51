"""Time limits: what cancels, what is taken back, and what a limit never touches."""


from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from typing import Any

import pytest
from helpers import in_fiber, settle

import swapco
from swapco._core.clock import ManualClock
from swapco._loop.loop import Loop, hub_of
from swapco.timeouts import Timeout, timeout, timeout_at

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0
SHORT = 0.01


def forever() -> None:
    swapco.sleep(LONG)


def now() -> float:
    return asyncio.get_running_loop().time()


def armed_timers() -> int:
    return int(swapco.current_fiber().scheduler.statistics()["timers"])


# ------------------------------------------------------------------------------------------ the basics


@in_fiber
def test_the_body_is_cancelled_and_the_statement_raises_timeout_error() -> None:
    before = now()
    with pytest.raises(TimeoutError) as caught:
        with timeout(SHORT) as limit:
            forever()
    assert now() - before >= SHORT
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert limit.expired()
    assert swapco.current_fiber().cancelling() == 0
    swapco.sleep(0)


@in_fiber
def test_a_body_that_ends_in_time_is_left_alone() -> None:
    with timeout(LONG) as limit:
        swapco.sleep(0)
    assert not limit.expired()
    assert armed_timers() == 0


@in_fiber
def test_none_is_no_limit() -> None:
    with timeout(None) as limit:
        assert limit.when() is None
        assert armed_timers() == 0
        swapco.sleep(0)
    with timeout_at(None) as limit:
        assert limit.when() is None
    assert not limit.expired()


@in_fiber
def test_infinity_is_never() -> None:
    with timeout(math.inf) as limit:
        assert limit.when() == math.inf
        assert armed_timers() == 0
        swapco.sleep(0)
    with timeout_at(math.inf) as limit:
        swapco.sleep(0)


@in_fiber
def test_when_is_in_loop_time() -> None:
    before = now()
    limit = timeout(5)
    assert before + 5 <= limit.when() <= now() + 5
    assert timeout_at(before + 7).when() == before + 7


@in_fiber
def test_timeout_at() -> None:
    with pytest.raises(TimeoutError):
        with timeout_at(now() + SHORT):
            forever()


@in_fiber
def test_nan_and_things_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="NaN"):
        timeout(math.nan)
    with pytest.raises(ValueError, match="NaN"):
        timeout_at(math.nan)
    for wrong in ("1", b"1", [1], object()):
        with pytest.raises(TypeError):
            timeout(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            timeout_at(wrong)  # type: ignore[arg-type]
    with timeout(LONG) as limit:
        with pytest.raises(ValueError, match="NaN"):
            limit.reschedule(math.nan)
        assert armed_timers() == 1


def test_outside_a_fiber() -> None:
    with pytest.raises(swapco.NotInFiber, match="by swapco"):
        timeout(1)
    with pytest.raises(swapco.NotInFiber, match="by swapco"):
        timeout_at(1).__enter__()


@in_fiber
def test_in_a_loop_callback() -> None:
    errors: list[BaseException] = []

    def callback() -> None:
        try:
            with timeout(1):
                pass
        except swapco.NotInFiber as error:
            errors.append(error)

    asyncio.get_running_loop().call_soon(callback)
    settle()
    assert len(errors) == 1


@in_fiber
def test_it_is_entered_once() -> None:
    limit = timeout(LONG)
    with limit:
        with pytest.raises(RuntimeError, match="already been entered"):
            limit.__enter__()
    with pytest.raises(RuntimeError, match="already been entered"):
        limit.__enter__()
    with pytest.raises(RuntimeError, match="finished"):
        limit.__exit__(None, None, None)


@in_fiber
def test_repr() -> None:
    limit = timeout_at(1e9)
    assert repr(limit) == "<Timeout [created]>"
    with limit:
        assert repr(limit) == "<Timeout [active when=1000000000.0]>"
    assert repr(limit) == "<Timeout [finished]>"
    with pytest.raises(TimeoutError):
        with timeout(0) as limit:
            swapco.sleep(0)
    assert repr(limit) == "<Timeout [expired]>"
    with timeout(None) as limit:
        assert repr(limit) == "<Timeout [active when=None]>"


# ---------------------------------------------------------------------------- a limit that is over at once


@pytest.mark.parametrize("delay", [0, 0.0, -1, -math.inf])
@in_fiber
def test_a_limit_that_is_over_cancels_at_the_first_suspension(delay: float) -> None:
    suspensions = (
        lambda: swapco.sleep(0),
        forever,
        swapco.block,
        lambda: swapco.await_(asyncio.sleep(LONG)),
    )
    for suspend in suspensions:
        reached = []
        with pytest.raises(TimeoutError):
            with timeout(delay) as limit:
                reached.append(1)
                suspend()
                reached.append(2)
        assert reached == [1]
        assert limit.expired()
        assert swapco.current_fiber().cancelling() == 0


@in_fiber
def test_a_body_that_never_suspends_cannot_expire() -> None:
    with timeout(-1) as limit:
        assert not limit.expired()
    assert not limit.expired()
    with timeout(LONG) as limit:
        time.sleep(0.002)
        limit.reschedule(now() - 1)
        assert not limit.expired()
    assert not limit.expired()
    assert swapco.current_fiber().cancelling() == 0
    swapco.sleep(0)


@in_fiber
def test_a_body_that_never_suspends_and_raises() -> None:
    with pytest.raises(KeyError):
        with timeout(0) as limit:
            raise KeyError
    assert not limit.expired()
    swapco.sleep(0)


@in_fiber
def test_a_deadline_in_the_past() -> None:
    with pytest.raises(TimeoutError):
        with timeout_at(now() - 1):
            forever()
    with pytest.raises(TimeoutError):
        with timeout_at(-5):
            forever()


@in_fiber
def test_a_limit_that_was_over_can_be_moved_before_it_cancels() -> None:
    with timeout(0) as limit:
        limit.reschedule(now() + LONG)
        swapco.sleep(0)
    assert not limit.expired()
    with pytest.raises(TimeoutError):
        with timeout(0) as limit:
            try:
                swapco.sleep(0)
            finally:
                assert limit.expired()
                with pytest.raises(RuntimeError, match="expiring"):
                    limit.reschedule(None)


# ------------------------------------------------------------------------------------------ reschedule


@in_fiber
def test_reschedule() -> None:
    with timeout(LONG) as limit:
        limit.reschedule(None)
        assert limit.when() is None
        assert armed_timers() == 0
        later = now() + LONG
        limit.reschedule(later)
        assert limit.when() == later
        assert armed_timers() == 1
    assert not limit.expired()
    with pytest.raises(TimeoutError):
        with timeout(None) as limit:
            limit.reschedule(now() + SHORT)
            forever()
    with pytest.raises(TimeoutError):
        with timeout(LONG) as limit:
            limit.reschedule(now() - 1)
            forever()


@in_fiber
def test_reschedule_at_the_wrong_time() -> None:
    limit = timeout(LONG)
    with pytest.raises(RuntimeError, match="has not been entered"):
        limit.reschedule(1.0)
    with limit:
        pass
    with pytest.raises(RuntimeError, match="finished"):
        limit.reschedule(1.0)
    with pytest.raises(TimeoutError):
        with timeout(0) as limit:
            swapco.sleep(0)
    with pytest.raises(RuntimeError, match="expired"):
        limit.reschedule(1.0)


@in_fiber
def test_reschedule_by_another_fiber_and_by_the_loop() -> None:
    with pytest.raises(TimeoutError):
        with timeout(None) as limit:
            swapco.spawn(lambda: limit.reschedule(now()))
            forever()
    with pytest.raises(TimeoutError):
        with timeout(None) as limit:
            asyncio.get_running_loop().call_soon(lambda: limit.reschedule(now() + SHORT))
            forever()


@in_fiber
def test_reschedule_by_another_thread() -> None:
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            limit.reschedule(None)
        except RuntimeError as error:
            errors.append(error)

    with timeout(LONG) as limit:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert limit.when() is not None
    assert "call_soon_threadsafe" in str(errors[0])


# ---------------------------------------------------------------------------------------------- nesting


@in_fiber
def test_the_inner_limit_expires_first() -> None:
    with timeout(LONG) as outer:
        with pytest.raises(TimeoutError):
            with timeout(SHORT) as inner:
                forever()
        swapco.sleep(0)
    assert inner.expired()
    assert not outer.expired()


@in_fiber
def test_the_outer_limit_expires_first() -> None:
    with pytest.raises(TimeoutError):
        with timeout(SHORT) as outer:
            with timeout(LONG) as inner:
                forever()
    assert outer.expired()
    assert not inner.expired()
    assert swapco.current_fiber().cancelling() == 0


def expiring_at_the_same_instant(first_outer: bool) -> tuple[Any, Any]:
    """Two nested limits of one deadline, armed in a given order; returns (outer, inner)."""
    clock = ManualClock()

    def main() -> tuple[Any, Any]:
        def advance() -> None:
            clock.advance(1)
            settle()

        swapco.spawn(advance)
        with pytest.raises(TimeoutError):
            with timeout_at(1) as outer:
                with timeout_at(1) as inner:
                    if not first_outer:
                        outer.reschedule(1)
                    swapco.block()
        assert swapco.current_fiber().cancelling() == 0
        swapco.sleep(0)
        return outer, inner

    return swapco.run(main, loop_factory=lambda: Loop(clock=clock))


@pytest.mark.parametrize("first_outer", [True, False])
def test_two_limits_expire_at_the_same_instant(first_outer: bool) -> None:
    outer, inner = expiring_at_the_same_instant(first_outer)
    assert outer.expired()
    assert inner.expired()


@in_fiber
def test_many_nested_limits() -> None:
    limits: list[Any] = []

    def nest(depth: int) -> None:
        if depth == 0:
            forever()
        with timeout(SHORT if depth == 30 else LONG) as limit:
            limits.append(limit)
            nest(depth - 1)

    with pytest.raises(TimeoutError):
        nest(50)
    assert [limit.expired() for limit in limits].count(True) == 1
    assert armed_timers() == 0


# ------------------------------------------------------------- cancellations by others, and what stays


@in_fiber
def test_a_cancellation_by_somebody_else_is_no_timeout() -> None:
    def body() -> str:
        try:
            with timeout(LONG) as limit:
                forever()
        except asyncio.CancelledError:
            assert not limit.expired()
            assert swapco.current_fiber().cancelling() == 1
            return "cancelled"
        return "not cancelled"

    fiber = swapco.spawn(body)
    settle()
    fiber.cancel()
    assert fiber.join() == "cancelled"


def test_cancelled_by_somebody_else_and_by_the_limit_in_one_turn() -> None:
    clock = ManualClock()

    def body() -> str:
        with pytest.raises(asyncio.CancelledError):
            with timeout_at(1) as limit:
                swapco.block()
        assert limit.expired()
        assert swapco.current_fiber().cancelling() == 1
        return "cancelled"

    def main() -> None:
        fiber = swapco.spawn(body)
        settle()
        loop = asyncio.get_running_loop()

        def both() -> None:
            fiber.cancel()
            clock.advance(1)
            hub_of(loop).turn()

        loop.call_soon(both)
        assert fiber.join() == "cancelled"

    swapco.run(main, loop_factory=lambda: Loop(clock=clock))


@in_fiber
def test_cancelled_by_somebody_else_while_the_body_cleans_up() -> None:
    def body() -> str:
        with pytest.raises(asyncio.CancelledError, match="second"):
            with timeout(SHORT) as limit:
                try:
                    forever()
                finally:
                    cleaning.set()
                    forever()
        assert limit.expired()
        assert swapco.current_fiber().cancelling() == 1
        return "cancelled"

    cleaning = asyncio.Event()
    fiber = swapco.spawn(body)
    swapco.await_(cleaning.wait())
    fiber.cancel("second")
    assert fiber.join() == "cancelled"


@in_fiber
def test_a_cancellation_from_before_the_block_is_not_ours() -> None:
    me = swapco.current_fiber()
    me.cancel("outer")
    with pytest.raises(asyncio.CancelledError, match="outer"):
        with timeout(0):
            swapco.sleep(0)
    assert me.cancelling() == 1
    me.uncancel()
    swapco.sleep(0)


@in_fiber
def test_a_cancellation_from_before_survives_a_body_that_never_suspends() -> None:
    me = swapco.current_fiber()
    me.cancel("outer")
    with timeout(0):
        pass
    assert me.cancelling() == 1
    with pytest.raises(asyncio.CancelledError):
        swapco.sleep(0)
    me.uncancel()


@in_fiber
def test_a_fiber_that_survived_a_cancellation_may_time_out() -> None:
    me = swapco.current_fiber()
    me.cancel()
    with pytest.raises(asyncio.CancelledError):
        swapco.sleep(0)
    assert me.cancelling() == 1
    with pytest.raises(TimeoutError):
        with timeout(SHORT):
            forever()
    assert me.cancelling() == 1
    swapco.sleep(0)
    me.uncancel()


@in_fiber
def test_the_body_swallows_the_cancellation() -> None:
    with timeout(SHORT) as limit:
        with pytest.raises(asyncio.CancelledError):
            forever()
    assert limit.expired()
    assert swapco.current_fiber().cancelling() == 0
    swapco.sleep(0)


@in_fiber
def test_the_body_answers_with_another_exception() -> None:
    with pytest.raises(KeyError) as caught:
        with timeout(SHORT) as limit:
            try:
                forever()
            except asyncio.CancelledError:
                raise KeyError("mine")
    assert limit.expired()
    assert swapco.current_fiber().cancelling() == 0
    context = caught.value.__context__
    assert isinstance(context, TimeoutError)
    assert isinstance(context.__cause__, asyncio.CancelledError)


@in_fiber
def test_the_body_answers_with_an_exception_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with timeout(SHORT):
            errors = []
            for kind in (KeyError, IndexError):
                try:
                    try:
                        forever() if not errors else (_ for _ in ()).throw(asyncio.CancelledError())
                    except asyncio.CancelledError:
                        raise kind()
                except LookupError as error:
                    errors.append(error)
            raise ExceptionGroup("both", errors)
    assert [type(error.__context__) for error in caught.value.exceptions] == [TimeoutError, TimeoutError]


def test_a_request_that_was_never_delivered_is_dropped() -> None:
    """The wake-up had won when the timer fired: the body ends well, and no cancellation comes later."""
    clock = ManualClock()

    def main() -> None:
        loop = asyncio.get_running_loop()
        me = swapco.current_fiber()

        def wake_and_expire() -> None:
            swapco.resume(me, "value")
            # the fiber is READY; the timer fires before it runs
            clock.advance(1)
            hub_of(loop).turn()

        for survived in (False, True):
            if survived:
                me.cancel()
                with pytest.raises(asyncio.CancelledError):
                    swapco.sleep(0)
            with timeout(1) as limit:
                loop.call_soon(wake_and_expire)
                assert swapco.block() == "value"
            assert limit.expired()
            assert me.cancelling() == int(survived)
            swapco.sleep(0)
        me.uncancel()

    swapco.run(main, loop_factory=lambda: Loop(clock=clock))


@in_fiber
def test_an_inner_block_that_swallows_leaves_the_outer_limit_alone() -> None:
    with timeout(LONG) as outer:
        for _ in range(3):
            with timeout(0.001) as inner:
                try:
                    forever()
                except asyncio.CancelledError:
                    pass
            assert inner.expired()
        swapco.sleep(0)
    assert not outer.expired()


# --------------------------------------------------------------------------- in coroutines and elsewhere


@in_fiber
def test_in_a_coroutine_that_a_fiber_drives() -> None:
    async def body() -> str:
        try:
            with timeout(SHORT):
                await asyncio.sleep(LONG)
        except TimeoutError:
            return "timed out"
        return "slept"

    assert swapco.await_(body()) == "timed out"


@in_fiber
def test_mixed_with_asyncio_timeout() -> None:
    async def inside() -> None:
        async with asyncio.timeout(LONG):
            with timeout(SHORT):
                await asyncio.sleep(LONG)

    async def outside() -> None:
        with timeout(LONG):
            async with asyncio.timeout(SHORT):
                await asyncio.sleep(LONG)

    for body in (inside, outside):
        with pytest.raises(TimeoutError):
            swapco.await_(body())
        assert swapco.current_fiber().cancelling() == 0
        swapco.sleep(0)


@in_fiber
def test_the_limit_of_one_fiber_does_not_touch_others() -> None:
    def limited() -> str:
        try:
            with timeout(SHORT):
                forever()
        except TimeoutError:
            return "timed out"
        return "slept"

    other = swapco.spawn(swapco.sleep, 2 * SHORT, "slept")
    several = [swapco.spawn(limited) for _ in range(20)]
    assert [fiber.join() for fiber in several] == ["timed out"] * 20
    assert other.join() == "slept"


def test_it_follows_an_injected_clock() -> None:
    clock = ManualClock()

    def main() -> None:
        def advance() -> None:
            clock.advance(LONG / 2)
            settle()
            clock.advance(LONG / 2)
            settle()

        swapco.spawn(advance)
        limit = timeout(LONG)
        assert limit.when() == LONG
        with pytest.raises(TimeoutError):
            with limit:
                swapco.block()
        assert now() == LONG

    swapco.run(main, loop_factory=lambda: Loop(clock=clock))


@in_fiber
def test_nothing_is_kept_alive() -> None:
    limit = timeout(LONG)
    with limit:
        swapco.sleep(0)

    class Marker:
        pass

    marker = Marker()
    reference = weakref.ref(marker)

    def body(marker: Marker) -> None:
        with timeout(SHORT):
            forever()

    fiber = swapco.spawn(body, marker)
    del marker
    with pytest.raises(TimeoutError):
        fiber.join()
    del fiber
    gc.collect()
    assert reference() is None


@in_fiber
def test_the_class_is_a_type_to_check_for() -> None:
    assert isinstance(timeout(1), Timeout)
    assert isinstance(timeout_at(1), Timeout)
    with Timeout(None) as limit:
        assert limit.when() is None
