"""Generators, coroutines and contexts: things that run for whoever resumes them, whichever fiber that is."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import functools
import inspect
import sys
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from typing import Any, TypeVar

import pytest
from state_support import CROWD, callers, crowd, neighbours, pausing

import swapco

pytestmark = pytest.mark.usefixtures("fibers")
T = TypeVar("T")


class Once:
    """Awaiting it suspends the coroutine once; what it is sent is the result."""

    def __init__(self, value: object = None) -> None:
        self.value = value

    def __await__(self) -> Generator[object, Any, Any]:
        got = yield self.value
        return got


def drive(awaitable: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine by hand, sending back what it yields."""
    value = None
    while True:
        try:
            value = awaitable.send(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


# ----------------------------------------------------------------------------------------------- generators


def test_a_generator_that_waits_between_its_yields(switch: str) -> None:
    """Each fiber's own, several at once, nested by ``yield from``."""

    def leaves(n: int) -> Iterator[int]:
        for k in range(3):
            pause()
            yield n + k
            pause()

    def tree(n: int, depth: int) -> Iterator[int]:
        pause()
        if depth:
            yield from tree(n, depth - 1)
            yield from tree(n + 10, depth - 1)
        else:
            yield from leaves(n)

    def body(n: int) -> list[int]:
        got = []
        for value in tree(100 * n, 2):
            pause()
            got.append(value)
        return got

    pause = pausing()
    tails = [0, 1, 2, 10, 11, 12, 10, 11, 12, 20, 21, 22]
    assert crowd(body, switch) == [[100 * n + tail for tail in tails] for n in range(CROWD)]


def test_a_generator_goes_from_fiber_to_fiber(switch: str) -> None:
    """Whoever resumes it is its caller; what it handles stays with it."""

    def numbers() -> Iterator[tuple[str, list[str]]]:
        while True:
            try:
                raise KeyError("of the generator")
            except KeyError as error:
                handled = error
                pause()
                assert sys.exc_info()[1] is handled
                yield swapco.current_fiber().name, callers(sys._getframe())
                assert sys.exc_info()[1] is handled

    def takes(n: int) -> None:
        for _ in range(10):
            with lock:
                assert sys.exc_info()[1] is None
                name, seen = next(shared)
                assert name == f"body {n}"
                assert seen == ["numbers", "takes"]
                assert sys.exc_info()[1] is None
                try:
                    raise OSError
                except OSError as mine:
                    next(shared)
                    assert sys.exc_info()[1] is mine
            pause()

    lock = swapco.Lock()
    shared = numbers()
    pause = pausing()
    crowd(takes, switch)
    assert inspect.getgeneratorstate(shared) == inspect.GEN_SUSPENDED


def test_an_exception_in_a_generator_has_the_context_of_who_resumed_it(switch: str) -> None:
    def fails() -> Iterator[None]:
        while True:
            try:
                pause()
                raise KeyError
            except KeyError as error:
                contexts.append(error.__context__)
            yield

    def body(n: int) -> None:
        try:
            raise OSError(n)
        except OSError as mine:
            generator = fails()
            next(generator)
            pause()
            assert mine in contexts
        pause()
        generator.close()

    contexts: list[BaseException | None] = []
    pause = pausing()
    crowd(body, switch)
    assert len(set(contexts)) == CROWD


def test_a_generator_that_runs_in_a_parked_fiber_is_running(switch: str) -> None:
    """Another fiber cannot resume, throw into or close it; it can again once it has yielded."""

    def waits() -> Generator[int, None, None]:
        for k in range(3):
            swapco.block()
            yield k

    def main() -> None:
        with neighbours():
            generator = waits()
            fiber = swapco.spawn(lambda: next(generator))
            for k in range(3):
                swapco.sleep(0)
                assert generator.gi_running
                assert inspect.getgeneratorstate(generator) == inspect.GEN_RUNNING
                for call in (functools.partial(next, generator), generator.close,
                             functools.partial(generator.throw, KeyError())):  # fmt: skip
                    with pytest.raises(ValueError, match="generator already executing"):
                        call()
                swapco.resume(fiber)
                assert fiber.join() == k
                assert not generator.gi_running
                fiber = swapco.spawn(lambda: next(generator, "end"))
            assert fiber.join() == "end"

    swapco.run(main, switch=switch)


def test_a_generator_is_thrown_into_and_closed_by_other_fibers(switch: str) -> None:
    """Its handlers and finally blocks wait in the fiber that throws or closes."""

    def generator(log: list[tuple[str, str]]) -> Generator[int, None, None]:
        try:
            try:
                yield 1
            except KeyError as error:
                pause()
                assert sys.exc_info()[1] is error
                log.append(("caught", swapco.current_fiber().name))
                yield 2
        finally:
            pause()
            assert isinstance(sys.exc_info()[1], GeneratorExit)
            log.append(("finally", swapco.current_fiber().name))

    def body(n: int) -> None:
        log: list[tuple[str, str]] = []
        started = generator(log)
        assert swapco.spawn(lambda: next(started), name="starts").join() == 1
        pause()
        assert swapco.spawn(lambda: started.throw(KeyError(n)), name="throws").join() == 2
        pause()
        swapco.spawn(started.close, name="closes").join()
        assert log == [("caught", "throws"), ("finally", "closes")]

    pause = pausing()
    crowd(body, switch)


def test_a_generators_frame_has_a_caller_while_it_runs(switch: str) -> None:
    """f_back of a suspended generator is None, of one in a parked fiber its caller's frame."""

    def generator() -> Generator[None, None, None]:
        swapco.block()
        yield
        swapco.block()

    def calls(started: Generator[None, None, None]) -> None:
        next(started)

    def main() -> None:
        with neighbours():
            started = generator()
            assert callers(started.gi_frame) == ["generator"]
            fiber = swapco.spawn(calls, started)
            swapco.sleep(0)
            assert callers(started.gi_frame) == ["generator", "calls"]
            assert callers(fiber.frame) == ["generator", "calls"]
            swapco.resume(fiber)
            fiber.join()
            assert callers(started.gi_frame) == ["generator"]
            started.close()

    swapco.run(main, switch=switch)


# ----------------------------------------------------------------------------------------------- coroutines


def test_coroutines_wait_as_fibers(switch: str) -> None:
    """Driven by hand, nested; an asynchronous generator and an asynchronous context manager among them."""

    class Manager:
        async def __aenter__(self) -> None:
            pause()

        async def __aexit__(self, *_: object) -> None:
            pause()

    async def numbers(n: int) -> AsyncIterator[int]:
        for k in range(4):
            pause()
            yield n + k
            await Once()

    async def inner(n: int) -> int:
        pause()
        return n + await Once(n)

    async def outer(n: int) -> list[int]:
        async with Manager():
            got = [value async for value in numbers(n)]
            return [*got, await inner(n)]

    def body(n: int) -> list[int]:
        return drive(outer(n))

    pause = pausing()
    assert crowd(body, switch) == [[n, n + 1, n + 2, n + 3, 2 * n] for n in range(CROWD)]


def test_a_coroutine_goes_from_fiber_to_fiber(switch: str) -> None:
    """Started in one, continued in others; what it handles stays with it, what its driver handles with that."""

    async def inner() -> list[object]:
        got: list[object] = []
        for k in range(5):
            try:
                raise KeyError(k)
            except KeyError as error:
                pause()
                got.append(await Once((k, swapco.current_fiber().name)))
                pause()
                assert sys.exc_info()[1] is error
        return got

    async def outer() -> list[object]:
        return await inner()

    def step(coroutine: Coroutine[Any, Any, Any], value: object) -> Any:
        try:
            raise OSError
        except OSError as mine:
            try:
                return coroutine.send(value)
            finally:
                assert sys.exc_info()[1] is mine or isinstance(sys.exc_info()[1], StopIteration)

    def body(n: int) -> list[object]:
        coroutine = outer()
        value: object = None
        for k in range(5):
            name = f"step {n} {k}"
            assert swapco.spawn(step, coroutine, value, name=name).join() == (k, name)
            assert not coroutine.cr_running
            value = k * n
            pause()
        with pytest.raises(StopIteration) as stop:
            coroutine.send(value)
        return stop.value.value  # type: ignore[no-any-return]

    pause = pausing()
    assert crowd(body, switch) == [[k * n for k in range(5)] for n in range(CROWD)]


def test_an_asynchronous_generator_goes_from_fiber_to_fiber(switch: str) -> None:
    """Each item is taken, and the generator closed, by another one."""

    async def numbers(log: list[str]) -> AsyncIterator[int]:
        try:
            for k in range(5):
                pause()
                await Once()
                yield k
        finally:
            pause()
            log.append(swapco.current_fiber().name)

    async def take(numbers: AsyncIterator[int]) -> int:
        return await anext(numbers)

    async def close(numbers: Any) -> None:
        await numbers.aclose()

    def body(n: int) -> list[int]:
        log: list[str] = []
        generator = numbers(log)
        got = []
        for _ in range(3):
            got.append(swapco.spawn(lambda: drive(take(generator))).join())
            pause()
        swapco.spawn(lambda: drive(close(generator)), name="closes").join()
        assert log == ["closes"]
        return got

    pause = pausing()
    assert crowd(body, switch) == [[0, 1, 2]] * CROWD


def test_a_coroutine_that_waits_as_a_fiber_is_running(switch: str) -> None:
    """Another fiber cannot drive it meanwhile."""

    async def waits() -> str:
        swapco.block()
        return "end"

    def main() -> None:
        with neighbours():
            coroutine = waits()
            fiber = swapco.spawn(lambda: drive(coroutine))
            swapco.sleep(0)
            assert coroutine.cr_running
            with pytest.raises(ValueError, match="coroutine already executing"):
                coroutine.send(None)
            swapco.resume(fiber)
            assert fiber.join() == "end"

    swapco.run(main, switch=switch)


def test_awaiting_and_waiting_mix(switch: str) -> None:
    """Fibers await coroutines that wait as fibers do, and asyncio tasks run among them."""

    async def sleeps(n: int) -> int:
        await asyncio.sleep(0)
        return n

    async def both(n: int) -> int:
        total = 0
        for k in range(3):
            total += await sleeps(k)
            total += await swapco.spawn(waits, n)
        return total

    def waits(n: int) -> int:
        pause()
        return n

    def body(n: int) -> int:
        task = asyncio.get_running_loop().create_task(both(n))
        pause()
        return swapco.await_(both(n)) + swapco.await_(task)

    pause = pausing()
    assert crowd(body, switch) == [2 * (3 + 3 * n) for n in range(CROWD)]


# ------------------------------------------------------------------------------------------------- contexts

variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default="default")


def test_each_fiber_has_a_context_of_its_own(switch: str) -> None:
    """A copy of its spawner's; what it sets nobody else sees, before or after any switch."""

    def child(n: int) -> None:
        assert variable.get() == n
        variable.set(("child", n))
        pause()
        assert variable.get() == ("child", n)

    def body(n: int) -> None:
        assert variable.get() == "outside"
        variable.set(n)
        for _ in range(5):
            pause()
            assert variable.get() == n
            fiber = swapco.spawn(child, n)
            pause()
            assert variable.get() == n
            fiber.join()
        token = variable.set("for a while")
        pause()
        assert variable.get() == "for a while"
        variable.reset(token)
        pause()
        assert variable.get() == n

    def outside() -> None:
        variable.set("outside")
        crowd(body, switch)
        assert variable.get() == "outside"

    pause = pausing()
    contextvars.copy_context().run(outside)
    assert variable.get() == "default"


def test_a_context_is_entered_across_switches(switch: str) -> None:
    """Context.run in many fibers, nested, with a wait inside each; the fiber's own context is back afterwards."""

    def enter(n: int, depth: int) -> None:
        variable.set((n, depth))
        pause()
        if depth:
            contextvars.copy_context().run(enter, n, depth - 1)
        pause()
        assert variable.get() == (n, depth)

    def fails(n: int) -> None:
        variable.set("inside")
        pause()
        raise KeyError(n)

    def body(n: int) -> None:
        for _ in range(3):
            variable.set(n)
            contextvars.copy_context().run(enter, n, 5)
            assert variable.get() == n
            with pytest.raises(KeyError):
                contextvars.copy_context().run(fails, n)
            pause()
            assert variable.get() == n

    pause = pausing()
    crowd(body, switch)


def test_a_context_that_a_parked_fiber_has_entered_is_entered(switch: str) -> None:
    """Nobody else can enter it, as between threads; afterwards they can."""

    def main() -> None:
        with neighbours():
            shared = contextvars.copy_context()
            fiber = swapco.spawn(shared.run, swapco.block)
            swapco.sleep(0)
            with pytest.raises(RuntimeError, match="cannot enter context"):
                shared.run(int)
            swapco.resume(fiber)
            fiber.join()
            assert shared.run(lambda: (swapco.sleep(0), 5)[1]) == 5

    swapco.run(main, switch=switch)


def test_a_context_given_to_several_fibers_is_one(switch: str) -> None:
    """spawn(context=...): what one sets the others see, as with asyncio's tasks."""

    def sets(n: int) -> list[object]:
        before = variable.get()
        variable.set(n)
        swapco.sleep(0)
        return [before, variable.get()]

    def main() -> None:
        with neighbours():
            shared = contextvars.copy_context()
            shared.run(variable.set, "shared")
            fibers = [swapco.spawn(sets, n, context=shared) for n in range(3)]
            assert [fiber.join() for fiber in fibers] == [["shared", 2], [0, 2], [1, 2]]
            assert variable.get() == "default"
            assert shared[variable] == 2

    swapco.run(main, switch=switch)


def test_a_token_belongs_to_its_fibers_context(switch: str) -> None:
    """Another fiber cannot reset with it."""

    def body(n: int) -> None:
        token = variable.set(n)
        pause()
        other = swapco.spawn(variable.reset, token)
        with pytest.raises(ValueError, match="different Context"):
            other.join()
        assert variable.get() == n
        variable.reset(token)
        assert variable.get() == "default"

    pause = pausing()
    crowd(body, switch)


def test_callbacks_have_the_context_of_who_asked_for_them(switch: str) -> None:
    """Whatever fiber ran before the loop's turn."""

    def body(n: int) -> object:
        variable.set(n)
        pause()
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(2)]
        loop.call_soon(lambda: futures[0].set_result(variable.get()))
        loop.call_later(0.00001, lambda: futures[1].set_result(variable.get()))
        # a callback runs in a copy of the context
        variable.set("changed after")
        return [swapco.await_(future) for future in futures]

    pause = pausing()
    assert crowd(body, switch) == [[n, n] for n in range(CROWD)]


def test_decimal_contexts_do_not_mix(switch: str) -> None:
    """Precision, rounding and flags: localcontext, and getcontext of the fiber."""

    def body(n: int) -> None:
        assert decimal.getcontext().prec == 28
        decimal.setcontext(decimal.Context(prec=n + 2))
        for k in range(3):
            pause()
            assert len(str(decimal.Decimal(1) / 3)) == n + 4
            with decimal.localcontext() as inner:
                inner.prec = 30 + k
                inner.rounding = decimal.ROUND_UP
                pause()
                assert str(decimal.Decimal(1) / 3) == "0." + "3" * (29 + k) + "4"
            assert decimal.getcontext().prec == n + 2
        assert not decimal.getcontext().flags[decimal.DivisionByZero]
        with decimal.localcontext() as inner:
            inner.traps[decimal.DivisionByZero] = n % 2 == 0
            pause()
            if n % 2:
                assert decimal.Decimal(1) / 0 == decimal.Decimal("Infinity")
            else:
                with pytest.raises(decimal.DivisionByZero):
                    decimal.Decimal(1) / 0

    def outside() -> None:
        decimal.setcontext(decimal.Context(prec=28))
        crowd(body, switch)
        assert decimal.getcontext().prec == 28

    pause = pausing()
    contextvars.copy_context().run(outside)


def test_contexts_are_released_with_their_fibers(switch: str) -> None:
    """What only a context holds goes with the last fiber that had it, parked ones in between or not."""

    class Value:
        def __del__(self) -> None:
            freed.append(1)

    def body(n: int) -> None:
        variable.set(Value())
        for _ in range(5):
            contextvars.copy_context().run(pause)
        variable.set(Value())
        pause()

    freed: list[int] = []
    pause = pausing()

    def outside() -> None:
        crowd(body, switch)

    contextvars.copy_context().run(outside)
    assert len(freed) == 2 * CROWD


def test_a_context_changes_hands_inside_a_generator(switch: str) -> None:
    """A generator has no context of its own: it sees that of the fiber that resumes it."""

    def sees() -> Iterator[object]:
        while True:
            before = variable.get()
            pause()
            assert variable.get() == before
            yield before

    def body(n: int) -> list[object]:
        variable.set(n)
        got = []
        for _ in range(5):
            with lock:
                got.append(next(shared))
            pause()
        return got

    lock = swapco.Lock()
    shared = sees()
    pause = pausing()
    assert crowd(body, switch) == [[n] * 5 for n in range(CROWD)]
