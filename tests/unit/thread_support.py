"""What the tests of thread fibers share: who runs where, waiting until a thread is detached, and counters.

``quiet()`` makes a slot whose detector looks once a second, so that nothing is detached by accident on a busy machine;
a test that wants a detached fiber makes one block in ``Held`` and waits until the slot was taken from it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from helpers import SOON_S, wait_until

import swapco
from swapco.lowlevel import Instrument, Slot

#: The kinds of two fibers that meet: is each a thread fiber?  Two ordinary ones are tested elsewhere.
MIXES = [(True, False), (False, True), (True, True)]
MIX_NAMES = ["thread-ordinary", "ordinary-thread", "thread-thread"]


def quiet(**options: Any) -> Slot:
    """A slot from which nothing is taken that comes back within a second."""
    return Slot(tick=1.0, **options)


def statistics() -> dict[str, Any]:
    """The counters of the calling fiber's scheduler and slot."""
    return dict(swapco.current_fiber().scheduler.statistics())


def in_quiet_fiber(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run a test as the main fiber of a loop in which no thread fiber is detached by accident."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        swapco.run(functools.partial(test, *args, **kwargs), slot=quiet())

    return run


def thread(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Spawn a thread fiber."""
    return swapco.spawn(fn, *args, thread=True, **options)


def on_thread(fn: Callable[..., Any], *args: Any) -> Any:
    """The result of ``fn`` in a thread fiber."""
    return thread(fn, *args).join(SOON_S)


def at_home() -> bool:
    """Does the caller run on the main thread, which is home in these tests?"""
    return threading.current_thread() is threading.main_thread()


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the type of what it raises."""
    try:
        return call()
    except BaseException as error:
        return type(error)


class Entered(Instrument):
    """Who got the slot, in that order.

    What they do with it may come in another order, on a machine that is so busy that one of them is detached.
    """

    def __init__(self) -> None:
        self.fibers: list[Any] = []

    def before_switch(self, leaving: Any, entering: Any) -> None:
        self.fibers.append(entering)

    def first_turns(self, fibers: list[Any]) -> list[Any]:
        """These fibers, in the order in which they had the slot for the first time."""
        return [fiber for fiber in dict.fromkeys(self.fibers) if fiber in fibers]


@contextmanager
def entered() -> Iterator[Entered]:
    """Who gets the slot meanwhile."""
    seen = Entered()
    scheduler: Any = swapco.current_fiber().scheduler
    scheduler.add_instrument(seen)
    try:
        yield seen
    finally:
        scheduler.remove_instrument(seen)


class Held:
    """Thread fibers block here, in the kernel, until they are let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.inside = 0

    def __call__(self) -> None:
        self.inside += 1
        assert self.gate.wait(SOON_S * 2)

    def let_go(self) -> None:
        self.gate.set()


def until_detached(*fibers: Any) -> None:
    """Let others run until the slot was taken from all of these."""
    wait_until(lambda: all(fiber.state == "DETACHED" for fiber in fibers), "being detached")


def until_blocked(*fibers: Any) -> None:
    """Let others run until all of these wait for something."""
    wait_until(lambda: all(fiber.state == "BLOCKED" for fiber in fibers), "being blocked")


def run_detached(body: Callable[[], Any], meanwhile: Callable[[], Any] = int) -> Any:
    """Start a thread fiber, have it detached, do ``meanwhile``, and let it call ``body``; returns the fiber.

    What ``body`` does first it does without the slot.
    """
    held = Held()

    def blocks() -> Any:
        held()
        return body()

    fiber = thread(blocks)
    until_detached(fiber)
    meanwhile()
    assert fiber.state == "DETACHED"
    held.let_go()
    return fiber
