"""Exceptions belong to the fiber in which they are raised or handled, whatever others do meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
from collections.abc import Iterator
from types import FrameType

import pytest
from state_support import callers, crowd, neighbours, pausing

import swapco

pytestmark = pytest.mark.usefixtures("fibers")


def names_in(error: BaseException) -> list[str]:
    """The functions that a traceback goes through, without those of the tests' helpers."""
    return [entry.name for entry in traceback.extract_tb(error.__traceback__) if "state_support" not in entry.filename]


# ---------------------------------------------------------------------------------------------- tracebacks


def test_a_traceback_has_the_frames_of_the_fiber_alone(switch: str) -> None:
    """From the fiber's function to where it was raised: nobody else's frames, none twice, in order."""

    def inner(n: int) -> None:
        pause()
        raise ValueError(n)

    def middle(n: int) -> None:
        pause()
        inner(n)

    def body(n: int) -> int:
        for k in range(5):
            try:
                middle(n * 100 + k)
            except ValueError as error:
                pause()
                assert error.args == (n * 100 + k,)
                assert names_in(error) == ["body", "middle", "inner"]
                text = traceback.format_exc()
                assert text.endswith(f"ValueError: {n * 100 + k}\n")
                assert text.count("in middle") == text.count("in inner") == 1
        return n

    pause = pausing()
    assert crowd(body, switch) == list(range(12))


def test_a_stack_ends_at_the_fibers_function(switch: str) -> None:
    """f_back of the outermost frame is None: neither the hub's frames nor those of whoever spawned or resumed it."""

    def look(depth: int) -> list[str]:
        if depth:
            return look(depth - 1)
        pause()
        names = callers(sys._getframe())
        assert [entry.name for entry in traceback.extract_stack()] == names[::-1]
        return names

    def body(n: int) -> None:
        for k in range(5):
            assert look(n + k) == ["look"] * (n + k + 1) + ["body"]

    pause = pausing()
    crowd(body, switch)


def test_an_exception_leaves_its_fiber_with_its_traceback(switch: str) -> None:
    """Whoever joins gets the same exception, and sees where it comes from: joined by many, and late."""

    def inner(n: int) -> None:
        pause()
        raise KeyError(n)

    def fails(n: int) -> None:
        pause()
        inner(n)

    def joins(fiber: swapco.Fiber[None]) -> BaseException:
        try:
            fiber.join()
        except KeyError as error:
            names = names_in(error)
            assert names[-2:] == ["fails", "inner"], names
            assert "joins" in names
            return error
        raise AssertionError("nothing was raised")

    def body(n: int) -> None:
        fiber = swapco.spawn(fails, n)
        joiners = [swapco.spawn(joins, fiber) for _ in range(3)]
        pause()
        errors = [joiner.join() for joiner in joiners]
        assert len({id(error) for error in errors}) == 1
        assert errors[0].args == (n,)
        assert fiber.exception() is errors[0]

    pause = pausing()
    crowd(body, switch)


def test_what_a_fiber_raises_has_no_context_of_others(switch: str) -> None:
    """Neither that of the spawner, nor that of whoever handled something when it ran or ended."""

    def fails(n: int) -> None:
        pause()
        raise ValueError(n)

    def body(n: int) -> None:
        try:
            raise KeyError(n)
        except KeyError:
            fiber = swapco.spawn(fails, n)
            pause()
            swapco.wait([fiber])
        error = fiber.exception()
        assert isinstance(error, ValueError)
        assert error.__context__ is None
        assert error.__cause__ is None

    pause = pausing()
    crowd(body, switch)


def test_a_traceback_holds_its_frames_after_the_fiber(switch: str) -> None:
    """Locals, and the way outwards, when the stack runs other fibers already."""

    def fails(n: int) -> None:
        here = [n, "local"]
        pause()
        raise ValueError(len(here))

    def body(n: int) -> BaseException | None:
        fiber = swapco.spawn(fails, n)
        swapco.wait([fiber])
        return fiber.exception()

    pause = pausing()
    for n, error in enumerate(crowd(body, switch)):
        assert error is not None
        trace = error.__traceback__
        assert trace is not None
        frame = trace.tb_frame
        assert frame.f_locals["here"] == [n, "local"]
        assert callers(frame) == ["fails"]


# -------------------------------------------------------------------------------------- handling in progress


def test_each_fiber_has_the_exceptions_that_it_handles(switch: str) -> None:
    """sys.exc_info at each step of nested handlers, in many fibers, with another exception handled in each."""

    def body(n: int) -> int:
        assert sys.exc_info() == (None, None, None)
        for k in range(3):
            try:
                raise KeyError(n, k)
            except KeyError as outer:
                pause()
                assert sys.exc_info()[1] is outer
                try:
                    pause()
                    raise IndexError(n, k)
                except IndexError as inner:
                    pause()
                    assert sys.exc_info()[1] is inner
                    assert inner.__context__ is outer
                    kind, value, trace = sys.exc_info()
                    assert (kind, value) == (IndexError, inner)
                    assert trace is inner.__traceback__
                pause()
                assert sys.exc_info()[1] is outer
            pause()
            assert sys.exc_info() == (None, None, None)
        return n

    pause = pausing()
    assert crowd(body, switch) == list(range(12))


def test_the_hub_handles_an_exception_meanwhile(switch: str) -> None:
    """run() inside a handler: fibers do not see it, and it is there again afterwards."""

    def body(n: int) -> None:
        assert sys.exc_info()[1] is None
        pause()
        assert sys.exc_info()[1] is None
        try:
            raise KeyError(n)
        except KeyError as error:
            pause()
            assert error.__context__ is None

    def callback() -> None:
        # None, or what the caller of run() handles, as with any loop
        before = sys.exc_info()[1]
        try:
            raise ArithmeticError("in a callback")
        except ArithmeticError as error:
            swapco.spawn(body, 0)
            seen.append(sys.exc_info()[1] is error)
        seen.append(sys.exc_info()[1] is before and before in (None, outside))

    def first(n: int) -> None:
        asyncio.get_running_loop().call_soon(callback)
        body(n)

    seen: list[bool] = []
    outside = OSError("outside")
    pause = pausing()
    try:
        raise outside
    except OSError:
        crowd(first, switch)
        assert sys.exc_info()[1] is outside
        try:
            raise ValueError
        except ValueError as error:
            assert error.__context__ is outside
    assert sys.exc_info()[1] is None
    assert seen == [True] * 24


def test_raise_without_an_argument_raises_what_this_fiber_handles(switch: str) -> None:
    """After switches, and inside a function that the handler calls."""

    def again() -> None:
        pause()
        raise

    def body(n: int) -> None:
        for _ in range(3):
            try:
                try:
                    raise KeyError(n)
                except KeyError:
                    pause()
                    raise
            except KeyError as error:
                assert error.args == (n,)
            try:
                try:
                    raise IndexError(n)
                except IndexError as error:
                    first = error
                    pause()
                    again()
            except IndexError as error:
                pause()
                assert error is first
                assert error.__context__ is None
        with pytest.raises(RuntimeError, match="No active exception"):
            again()

    pause = pausing()
    crowd(body, switch)


def test_contexts_and_causes_are_chained_within_the_fiber(switch: str) -> None:
    """__context__ is what this fiber handled when it raised; ``from`` says the cause."""

    def body(n: int) -> None:
        try:
            try:
                try:
                    raise KeyError(n)
                except KeyError:
                    pause()
                    raise IndexError(n)
            except IndexError as error:
                pause()
                raise ValueError(n) from error
        except ValueError as error:
            pause()
            assert isinstance(error.__cause__, IndexError)
            assert error.__context__ is error.__cause__
            assert isinstance(error.__cause__.__context__, KeyError)
            assert error.__cause__.__context__.__context__ is None
            assert {error.args, error.__cause__.args, error.__cause__.__context__.args} == {(n,)}

    pause = pausing()
    crowd(body, switch)


def test_switches_inside_finally_and_with(switch: str) -> None:
    """While an exception propagates: finally blocks, __exit__, and generators of contextlib wait, and it goes on."""

    class Waits:
        def __enter__(self) -> None:
            pause()

        def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
            pause()
            assert error is sys.exc_info()[1]
            assert kind is type(error)

    @contextlib.contextmanager
    def waits(seen: list[BaseException]) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            pause()
            seen.append(error)
            raise

    def body(n: int) -> None:
        for kind in (KeyError, IndexError):
            seen: list[BaseException] = []
            try:
                with Waits(), waits(seen):
                    try:
                        pause()
                        raise kind(n)
                    finally:
                        pause()
                        assert isinstance(sys.exc_info()[1], kind)
            except LookupError as error:
                assert seen == [error]
                assert type(error) is kind
                assert error.__context__ is None
            with contextlib.suppress(kind):
                pause()
                raise kind
            assert sys.exc_info()[1] is None

    pause = pausing()
    crowd(body, switch)


def test_exception_groups_are_split_across_switches(switch: str) -> None:
    """``except*`` parts that wait; what no part takes is raised on, with the same members."""

    def body(n: int) -> None:
        handled: list[type[BaseException]] = []
        try:
            try:
                pause()
                raise ExceptionGroup("several", [KeyError(n), ValueError(n), OSError(n)])
            except* KeyError as group:
                pause()
                assert sys.exc_info()[1] is group
                handled.append(type(group.exceptions[0]))
            except* ValueError as group:
                pause()
                handled.append(type(group.exceptions[0]))
        except ExceptionGroup as rest:
            pause()
            assert [type(error) for error in rest.exceptions] == [OSError]
            assert rest.exceptions[0].args == (n,)
        assert handled == [KeyError, ValueError]
        assert sys.exc_info()[1] is None

    pause = pausing()
    crowd(body, switch)


def test_a_cancellation_is_raised_in_the_context_of_what_the_fiber_handles(switch: str) -> None:
    """Not of what the canceller handles."""

    def handles(n: int) -> None:
        try:
            raise KeyError(n)
        except KeyError:
            swapco.block()

    def body(n: int) -> None:
        fiber = swapco.spawn(handles, n)
        pause()
        swapco.sleep(0)
        try:
            raise OSError("the canceller handles this")
        except OSError:
            fiber.cancel()
            swapco.wait([fiber])
        with pytest.raises(asyncio.CancelledError) as raised:
            fiber.join()
        assert isinstance(raised.value.__context__, KeyError)
        assert raised.value.__context__.args == (n,)

    pause = pausing()
    crowd(body, switch)


def test_stacks_are_reused_without_what_was_handled_on_them(switch: str) -> None:
    """A fiber on a stack whose last fiber ended inside a handler, by return or by raise, handles nothing."""

    def ends_in_a_handler(how: str) -> None:
        try:
            raise KeyError
        except KeyError:
            swapco.sleep(0)
            if how == "return":
                return
            raise

    def looks() -> bool:
        before = sys.exc_info()[1]
        swapco.sleep(0)
        try:
            raise ValueError
        except ValueError as error:
            return before is None and error.__context__ is None

    def main() -> None:
        with neighbours():
            for how in ("return", "raise") * 3:
                ended = [swapco.spawn(ends_in_a_handler, how) for _ in range(10)]
                swapco.wait(ended)
                assert [fiber.exception() is None for fiber in ended] == [how == "return"] * 10
                del ended
                assert [fiber.join() for fiber in [swapco.spawn(looks) for _ in range(10)]] == [True] * 10

    swapco.run(main, switch=switch)


def test_system_exit_and_interrupts_leave_through_the_loop(switch: str) -> None:
    """While other fibers handle exceptions of their own."""

    def leaves(kind: type[BaseException]) -> None:
        try:
            raise KeyError("handled")
        except KeyError:
            swapco.sleep(0)
            raise kind("leaving")

    def main(kind: type[BaseException]) -> None:
        with neighbours():
            swapco.spawn(leaves, kind)
            swapco.sleep(3600)

    for kind in (SystemExit, KeyboardInterrupt):
        with pytest.raises(kind, match="leaving") as raised:
            swapco.run(main, kind, switch=switch)
        assert isinstance(raised.value.__context__, KeyError)
        assert sys.exc_info()[1] is None


def test_a_handler_reads_the_frames_of_the_traceback(switch: str) -> None:
    """tb_frame and f_back of a live traceback, after switches: the frames that still run."""

    def inner() -> FrameType:
        try:
            raise KeyError
        except KeyError as error:
            pause()
            assert error.__traceback__ is not None
            return error.__traceback__.tb_frame

    def body(n: int) -> None:
        frame = inner()
        pause()
        assert frame.f_code.co_name == "inner"
        assert callers(frame)[:1] == ["inner"]
        # it has returned: nothing is behind it any more, or its caller
        assert callers(frame)[1:] in ([], ["body"])

    pause = pausing()
    crowd(body, switch)
