"""Random small programs of real fibers and primitives, and every outcome that they have under a search.

An outcome is what an observer can tell at the end: what each fiber has seen, what the shared values are, and how the
run ended.  What a fiber sees goes into a register of its own, which nobody else touches: so the outcome depends on
nothing but the order of steps that depend on each other, and a reduction may lose none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import swapco
from swapco import testing
from swapco.testing.execution import Program
from swapco.testing.exhaust import Enumeration
from swapco.testing.trace import Complexity, complexity

Operation: TypeAlias = tuple[Any, ...]
Fibers: TypeAlias = list[list[Operation]]

#: Operation -> how many small numbers it takes, each below the limit.
KINDS: dict[str, tuple[int, ...]] = {
    "load": (2,),
    "store": (2,),
    "add": (2,),
    "point": (2,),
    "locked": (2,),
    "acquire": (),
    "release": (),
    "set": (),
    "wait": (),
    "put": (2,),
    "get": (),
    "notify": (),
    "await": (),
    "yield": (),
    "check": (2, 3),
    "choose": (),
    "spawn": (),
    "sleep": (2,),
    "wait for": (2,),
    "cancel": (2,),
    "undeclared": (),
}
#: What takes no time, and does not reach into other fibers.
SIMPLE = tuple(KINDS)[:14]


def random_program(seed: int, kinds: tuple[str, ...] = SIMPLE, *, fibers: int = 3, steps: int = 3) -> Fibers:
    """The operations of two fibers or more."""
    draw = random.Random(seed)

    def operation() -> Operation:
        kind = draw.choice(kinds)
        return (kind, *[draw.randrange(below) for below in KINDS[kind]])

    return [[operation() for _ in range(draw.randint(1, steps))] for _ in range(draw.randint(2, fibers))]


class Observed:
    """``body`` is the program; ``outcome(exception)`` is what its last run came to."""

    def __init__(self, fibers: Fibers) -> None:
        self.fibers = fibers
        self.registers: dict[tuple[int, ...], int] = {}
        self.values: Callable[[], Hashable] = tuple

    def outcome(self, exception: BaseException | None) -> Hashable:
        kind = None if exception is None else type(exception).__name__
        if not isinstance(exception, testing.Deadlock | testing.FiberLeak | None):
            # what a failure has left undone is no outcome; where nothing can run, nothing is undone
            return kind
        return kind, tuple(sorted(self.registers.items())), self.values()

    def body(self) -> None:
        shared = [testing.Shared(0), testing.Shared(0)]
        lock, semaphore, event = swapco.Lock(), swapco.Semaphore(1), swapco.Event()
        queue, condition, hidden = swapco.Queue[int](1), swapco.Condition(), [0]
        registers = self.registers = {}
        self.values = lambda: (*[one.value for one in shared], hidden[0])
        running: list[Any] = []

        def note(key: tuple[int, ...], seen: int) -> None:
            registers[key] = registers.get(key, 1) * 5 + seen

        def work(steps: list[Operation], *key: int) -> None:
            registers[key] = 1
            children = []
            for number, (kind, *numbers) in enumerate(steps):
                match kind:
                    case "load":
                        note(key, shared[numbers[0]].value)
                    case "store":
                        shared[numbers[0]].value = registers[key] % 7
                    case "add":
                        shared[numbers[0]].value += 1
                    case "point":
                        testing.schedule_point(shared[numbers[0]], write=False)
                    case "locked":
                        with lock:
                            note(key, shared[numbers[0]].value)
                    case "acquire":
                        semaphore.acquire()
                    case "release":
                        semaphore.release()
                    case "set":
                        event.set()
                    case "wait":
                        event.wait()
                    case "put":
                        queue.put(numbers[0])
                    case "get":
                        note(key, queue.get())
                    case "notify":
                        with condition:
                            condition.notify()
                    case "await":
                        with condition:
                            condition.wait()
                    case "yield":
                        swapco.sleep(0)
                    case "check":
                        assert shared[numbers[0]].value != numbers[1]
                    case "choose":
                        note(key, testing.choose(2))
                    case "spawn":
                        children.append(swapco.spawn(work, [("add", 0)], *key, number))
                    case "sleep":
                        swapco.sleep(1 + numbers[0])
                    case "wait for":
                        try:
                            event.wait(timeout=1 + numbers[0])
                        except TimeoutError:
                            note(key, 1)
                    case "cancel":
                        if numbers[0] < len(running) and running[numbers[0]] is not swapco.current_fiber():
                            running[numbers[0]].cancel()
                    case "undeclared":
                        testing.schedule_point()
                        hidden[0] = hidden[0] * 3 + key[0]
            for child in children:
                child.join()

        running += [swapco.spawn(work, steps, number) for number, steps in enumerate(self.fibers)]
        for fiber in running:
            try:
                fiber.join()
            except swapco.CancelledError:
                note((running.index(fiber),), 2)


class TooMany(Exception):
    """The program has more schedules than a test has time for."""


def outcomes_of(
    fibers: Fibers, search: Enumeration, *, preempt: str = "points", footprints: bool = False, limit: int = 600
) -> dict[Hashable, Complexity]:
    """Every outcome under the search, with the simplest schedule that led there; TooMany beyond ``limit``."""
    observed = Observed(fibers)
    program = Program(observed.body, preempt=preempt)
    program.footprints = footprints
    found: dict[Hashable, Complexity] = {}

    def session() -> None:
        for chooser in search:
            execution = program.execute(chooser)
            search.record(execution)
            if execution.kind != "aborted":
                outcome = observed.outcome(execution.exception)
                cost = complexity(execution)
                found[outcome] = min(cost, found.get(outcome, cost))
            if search.schedules > limit:
                raise TooMany

    program.session(session)
    assert search.exhausted
    return found
