"""What the steps of the soak run (soak.py) have in common: checks, pauses, and the things that workers share."""

from __future__ import annotations

import contextvars
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from helpers import SOON_S

import swapco

NOTHING = (None, None, None)
NUMBER: contextvars.ContextVar[int] = contextvars.ContextVar("NUMBER", default=-1)


class Violation(Exception):
    """Something came out of a switch that did not go in."""


def check(truth: object, what: str, *details: object) -> None:
    if not truth:
        raise Violation(f"{what}: {details!r}")


class Shared:
    """What the workers of one round have in common."""

    def __init__(self, dice: random.Random, switch: str) -> None:
        self.switch = switch
        self.over = False
        self.queue: Any = swapco.Queue(dice.choice((0, 1, 2, 7)))
        self.heap: Any = swapco.PriorityQueue(dice.choice((0, 3)))
        self.put: Counter[Any] = Counter()
        self.got: Counter[Any] = Counter()
        self.lock = swapco.Lock()
        self.rlock = swapco.RLock()
        self.owners: dict[int, Any] = {}
        self.permits = dice.randint(1, 4)
        self.semaphore = swapco.Semaphore(self.permits)
        self.inside = 0
        self.event = swapco.Event()
        self.condition = swapco.Condition()
        self.level = 0
        self.tracing = False
        self.workers: list[Any] = []

    def check_end(self) -> None:
        """All workers are done: nothing is lost, nothing is held."""
        for queue in (self.queue, self.heap):
            while not queue.empty():
                self.got[queue.get_nowait()] += 1
        check(self.put == self.got, "items were lost or doubled", self.put - self.got, self.got - self.put)
        check(not self.lock.locked() and not self.rlock.locked(), "a lock is held", self.lock, self.rlock)
        check(self.inside == 0, "somebody is inside the semaphore", self.inside)
        for _ in range(self.permits):
            self.semaphore.acquire(timeout=0)
        check(self.semaphore.locked(), "too many permits", self.semaphore)


class Tools:
    """What the steps of one worker use."""

    def __init__(self, shared: Shared, number: int, seed: object) -> None:
        self.shared = shared
        self.number = number
        self.dice = random.Random(f"{seed}-{number}")
        self.done: Counter[str] = Counter()
        self.last_seen: dict[int, int] = {}
        self.produced = 0

    # ------------------------------------------------------------------------------------ tools

    def pause(self) -> None:
        """Perhaps wait; what belongs to the fiber is the same afterwards."""
        before, number = sys.exc_info(), NUMBER.get()
        how = self.dice.randrange(8)
        try:
            if how < 4:
                check(swapco.sleep(0, before) is before, "sleep(0) returned something else")
            elif how < 6:
                check(swapco.sleep(self.dice.random() * 0.0005, how) == how, "sleep returned something else")
        except swapco.CancelledError as error:
            check(error.__context__ is before[1], "a cancellation's context", error.__context__, before[1])
            check(NUMBER.get() == number, "a context variable after a cancellation", NUMBER.get(), number)
            raise
        after = sys.exc_info()
        check(after[1] is before[1] and after[2] is before[2], "exc_info after a wait", before, after)
        check(NUMBER.get() == number, "a context variable after a wait", NUMBER.get(), number)

    def limit(self) -> float | None:
        return self.dice.choice((None, None, 0, 0.0002, 0.001))

    def start(self, function: Callable[..., Any], *args: Any) -> Any:
        """A new fiber, of whatever kind this run is about."""
        return swapco.spawn(function, *args)

    def family(self, *functions: Callable[[], Any]) -> list[Any]:
        """Run them as fibers; their results.  No child is left, also if the caller is cancelled."""
        children = [self.start(function) for function in functions]
        cancelled = None
        while not all(child.done() for child in children):
            try:
                swapco.wait(children)
            except swapco.CancelledError as error:
                cancelled = error
                for child in children:
                    child.cancel()
        results = []
        for child in children:
            try:
                results.append(child.result())
            except swapco.CancelledError as error:
                cancelled = cancelled or error
        if cancelled is not None:
            raise cancelled
        return results

    def eventually(self, condition: Callable[[], bool]) -> bool:
        """Others may have to run first (one of them may be where deallocations are being made up for)."""
        give_up = time.monotonic() + SOON_S
        cancelled = None
        while not condition() and time.monotonic() < give_up:
            try:
                swapco.sleep(0.0005)
            except swapco.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return condition()
