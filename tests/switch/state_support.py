"""For the tests of what travels with a stack: a crowd of fibers that take turns, among others that are parked."""

from __future__ import annotations

import contextvars
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import swapco

T = TypeVar("T")

CROWD = 12
_local: contextvars.ContextVar[str] = contextvars.ContextVar("state_support")


def _by_another_fiber() -> None:
    me = swapco.current_fiber()
    swapco.spawn(lambda: swapco.resume(me))
    swapco.block()


#: The ways from one stack to another: a yield, through the hub's timer, a handoff, a stack that is fresh or pooled.
WAYS: list[Callable[[], object]] = [
    lambda: swapco.sleep(0),
    lambda: swapco.sleep(0),
    _by_another_fiber,
    lambda: swapco.sleep(0),
    lambda: swapco.sleep(0.00001),
    lambda: swapco.spawn(int).join(),
]


def pausing() -> Callable[[], None]:
    """A function that lets others run, by each of the ways in turn."""
    ways = itertools.cycle(WAYS)

    def pause() -> None:
        next(ways)()

    return pause


def callers(frame: FrameType | None) -> list[str]:
    """The names of a frame and of those that called it, innermost first, without helpers of this module."""
    names: list[str] = []
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


# ------------------------------------------------------------------------------------------------ who is parked


def _in_a_handler(gate: swapco.Event) -> bool:
    try:
        raise LookupError("parked")
    except LookupError as error:
        gate.wait()
        return sys.exc_info()[1] is error


def _in_a_generator(gate: swapco.Event) -> bool:
    def numbers() -> Iterator[bool]:
        try:
            raise LookupError("in a generator")
        except LookupError:
            gate.wait()
            yield sys.exc_info()[0] is LookupError

    return next(numbers()) and sys.exc_info()[0] is None


def _deep(gate: swapco.Event, left: int = 200) -> bool:
    if left:
        return _deep(gate, left - 1)
    gate.wait()
    return True


def _in_a_context(gate: swapco.Event) -> bool:
    _local.set("outside")

    def inside() -> bool:
        _local.set("inside")
        gate.wait()
        return _local.get() == "inside"

    return contextvars.copy_context().run(inside) and _local.get() == "outside"


def _below_c_code(gate: swapco.Event) -> bool:
    def key(n: int) -> int:
        if n == 2:
            gate.wait()
        return -n

    return sorted([1, 2, 3], key=key) == [3, 2, 1]


PLACES: list[Callable[[swapco.Event], bool]] = [_in_a_handler, _in_a_generator, _deep, _in_a_context, _below_c_code]


@contextmanager
def neighbours() -> Iterator[list[swapco.Fiber[bool]]]:
    """Fibers that are parked in many places; in the end they go on, and find everything as it was."""
    gate = swapco.Event()
    fibers = [swapco.spawn(place, gate) for place in PLACES for _ in range(2)]
    swapco.sleep(0)
    yield fibers
    gate.set()
    assert [fiber.join() for fiber in fibers] == [True] * len(fibers)


def crowd(body: Callable[..., T], switch: str | None = None, count: int = CROWD, **kwargs: Any) -> list[T]:
    """``body(n)`` in ``count`` fibers that run at the same time, with neighbours; what they return."""

    def main() -> list[T]:
        with neighbours():
            fibers = [swapco.spawn(body, n, name=f"body {n}") for n in range(count)]
            return [fiber.join() for fiber in fibers]

    return swapco.run(main, switch=switch, **kwargs)
