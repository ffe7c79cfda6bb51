"""How the laws of swapco's own primitives are put to its own tool.

A *scenario* is made anew for every schedule: some fibers, and a law that must hold once all of them have ended,
however they were ordered.  A scenario is also run *disturbed*: a fiber of its own cancels a victim, at a moment that is
a choice like any other, or a time limit ends while the victim is anywhere between its first and its last line.  So one
scenario says what a primitive promises without cancellation, and at every point at which one can come.

``prove`` runs every schedule within a bound, ``explore`` some hundreds from several seeds; both fail with the schedule
that shows the failure.

A scenario must have an end under every schedule, and nothing in it may depend on anything but the order: what it uses
is made anew.  Its law says what holds *whatever* was disturbed; where that cannot be said, ``victims`` is empty.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import swapco
from swapco import Fiber, testing

__all__ = [
    "CANCELLED",
    "LATE",
    "Disturbance",
    "Scenario",
    "body_of",
    "cancel",
    "cancel_in_time",
    "disturbances",
    "explore",
    "limit",
    "prove",
]

#: How a fiber has ended that was cancelled, or whose time was over.
CANCELLED = "cancelled"
LATE = "late"

Make: TypeAlias = "Callable[[], Scenario]"
#: Gets the functions of the fibers, spawns them, disturbs some, and returns the fibers.
Disturbance: TypeAlias = Callable[[Sequence[Callable[[], Any]]], list[Fiber[Any]]]


@dataclass
class Scenario:
    """Fibers of one run, and what must hold when they have ended."""

    fibers: Sequence[Callable[[], Any]]
    law: Callable[[list[Any]], object]
    """Called with what each fiber returned, or CANCELLED or LATE."""
    victims: Sequence[int] | None = None
    """Fibers that can be disturbed without anybody waiting for them for ever; all, unless given."""

    def __post_init__(self) -> None:
        if self.victims is None:
            self.victims = range(len(self.fibers))


def ends_of(fibers: Sequence[Fiber[Any]]) -> list[Any]:
    """How fibers have ended; raises what the first of them raised."""
    return [CANCELLED if fiber.cancelled() else fiber.result() for fiber in fibers]


def undisturbed(functions: Sequence[Callable[[], Any]]) -> list[Fiber[Any]]:
    return [swapco.spawn(fn) for fn in functions]


def cancel(*victims: int) -> Disturbance:
    """Cancel fibers, each at a moment that is a choice."""

    def disturb(functions: Sequence[Callable[[], Any]]) -> list[Fiber[Any]]:
        fibers = undisturbed(functions)
        for victim in victims:
            swapco.spawn(fibers[victim].cancel, name=f"canceller of {victim}")
        return fibers

    return disturb


def cancel_in_time(victim: int) -> Disturbance:
    """A fiber is cancelled while its time limit is over: both requests may be on their way at once."""
    limited = limit(victim)

    def disturb(functions: Sequence[Callable[[], Any]]) -> list[Fiber[Any]]:
        fibers = limited(functions)
        swapco.spawn(fibers[victim].cancel, name=f"canceller of {victim}")
        return fibers

    return disturb


def limit(victim: int) -> Disturbance:
    """A time limit around a fiber's function; that it is over can happen at any moment.

    The limit is set an instant of virtual time before the scenario begins, and ends in the very instant in which
    everything else happens.
    """

    def disturb(functions: Sequence[Callable[[], Any]]) -> list[Fiber[Any]]:
        begins = swapco.Event()

        def limited() -> Any:
            try:
                with swapco.timeout_at(1.0):
                    begins.wait()
                    return functions[victim]()
            except TimeoutError:
                return LATE

        first = swapco.spawn(limited)
        swapco.sleep(1)
        begins.set()
        return [first if number == victim else swapco.spawn(fn) for number, fn in enumerate(functions)]

    return disturb


def body_of(make: Make, disturb: Disturbance | None = None) -> Callable[[], None]:
    """A body for ``search`` and ``verify``."""

    def body() -> None:
        scenario = make()
        fibers = (disturb or undisturbed)(scenario.fibers)
        swapco.wait(fibers)
        ends = ends_of(fibers)
        assert disturb is not None or not {CANCELLED, LATE} & {end for end in ends if isinstance(end, str)}
        scenario.law(ends)

    body.__qualname__ = make.__qualname__
    return body


def _show(result: testing.Result) -> str:
    code = "" if result.schedule is None else f"; schedule {result.schedule.code!r}"
    return f"{result.test} ({result.schedules} schedules){code}"


def _none_fails(result: testing.Result) -> testing.Result:
    if result.failed:
        assert result.exception is not None
        result.exception.add_note(_show(result))
        raise result.exception
    return result


def prove(
    body: Callable[[], Any],
    *,
    bound: int | None = 2,
    strategy: str = "dfs",
    preempt: str = "primitives",
    schedules: int = 40_000,
) -> testing.Result:
    """No schedule with at most ``bound`` preemptions fails (None: no schedule at all), and there is one to choose."""
    result = _none_fails(
        testing.verify(
            body, preemption_bound=bound, strategy=strategy, preempt=preempt, schedules=schedules, save=False
        )
    )
    assert result.exhausted, f"{_show(result)}: too large to be exhausted"
    assert result.schedules > 1, f"{_show(result)}: nothing to choose"
    return result


def explore(
    body: Callable[[], Any],
    *,
    schedules: int = 200,
    seeds: Sequence[int] = (0, 1),
    preempt: str = "primitives",
) -> None:
    """None of some hundred schedules fails."""
    for seed in seeds:
        _none_fails(testing.search(body, schedules=schedules, seed=seed, preempt=preempt, save=False))


def disturbances(make: Make) -> tuple[list[Disturbance], list[Disturbance]]:
    """Each that cancels or limits one victim; and those that do both to one victim, or cancel two."""
    # primitives are made, and used, in a controlled run only
    victims: list[int] = []
    testing.run(lambda: victims.extend(make().victims or ()))
    single = [disturb(victim) for victim in victims for disturb in (cancel, limit)]
    double = [cancel_in_time(victim) for victim in victims]
    double += [cancel(first, second) for first, second in itertools.pairwise(victims)]
    return single, double
