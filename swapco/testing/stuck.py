"""Nothing can run, and fibers wait: whose fault is it?

A *deadlock* has a cycle: a fiber waits for something that another one owns, which waits in turn.  Without a cycle
somebody should have been woken, and was not: a *lost wakeup*.  The report names every fiber, what it waits for, who
owns that, where it is and from where that was called; of a lost wakeup also each primitive that has what is waited for
(a permit, an item, a set event) and has not given it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .awaits import awaited_call
from .errors import Deadlock, FiberLeak, LostWakeup
from .owners import cycle_of, gone_owner_of, is_fiber, members_of, owners_of
from .places import places_of_fiber

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["leak", "nothing_can_run"]

#: How many callers of the line that waits are named.
CALLERS = 6


def nothing_can_run(fibers: Sequence[Any]) -> Deadlock:
    """The body waits, and nobody will ever wake it."""
    cycle = cycle_of(_ordered(fibers), owners_of)
    if cycle:
        lines = ["nothing can run: a cycle of fibers, each waiting for what the next one has:"]
        lines += [_line(fiber) for fiber in cycle]
        rest = [fiber for fiber in _ordered(fibers) if fiber not in cycle]
        if rest:
            lines += ["besides, waiting:"] + [_line(fiber) for fiber in rest]
        return Deadlock("\n".join(lines))
    if any(gone_owner_of(fiber) is not None for fiber in fibers):
        lines = ["nothing can run: a fiber has ended, and has not released what others wait for:"]
    else:
        lines = ["nothing can run, and nobody owns what is waited for: a wakeup was lost, or never sent:"]
    lines += [_line(fiber) for fiber in _ordered(fibers)]
    return _with_ready(LostWakeup, lines, fibers)


def leak(fibers: Sequence[Any]) -> FiberLeak:
    """The body has ended; these wait for ever."""
    cycle = cycle_of(_ordered(fibers), owners_of)
    if cycle:
        lines = ["the body has ended, and fibers that it started wait for each other:"]
    else:
        lines = ["the body has ended, and fibers that it started wait for what never happens (join or cancel them):"]
    lines += [_line(fiber) for fiber in cycle + [fiber for fiber in _ordered(fibers) if fiber not in cycle]]
    return _with_ready(FiberLeak, lines, fibers)


def _ordered(fibers: Iterable[Any]) -> list[Any]:
    return sorted(fibers, key=lambda fiber: fiber.number)


def _line(fiber: Any) -> str:
    called, primitive = awaited_call(fiber)
    line = f"  {fiber.name!r} waits " + (f"in {called}()" if called else f"for {fiber.wait_reason}")
    if primitive is not None:
        line += f" of {primitive!r}"
    gone, target = gone_owner_of(fiber), fiber.waits_for_object
    if gone is not None:
        line += f", owned by {gone.name!r}, which has ended"
    elif not is_fiber(target) and not members_of(target):
        line += "".join(f", owned by {owner.name!r}" for owner in owners_of(fiber))
    for at, place in enumerate(places_of_fiber(fiber, fiber.frame)):
        if at > CALLERS:
            break
        line += f"\n      {'from' if at else 'at'} {place}"
    return line


Error = TypeVar("Error", LostWakeup, FiberLeak)


def _with_ready(kind: type[Error], lines: list[str], fibers: Iterable[Any]) -> Error:
    """With the primitives that have what a fiber waits for, and have not given it."""
    targets = {id(fiber.waits_for_object): fiber.waits_for_object for fiber in fibers}.values()
    ready: tuple[str, ...] = tuple(
        [f"{target!r} has it, and has woken nobody" for target in targets if _has_something(target)]
    )
    error = kind("\n".join([*lines, *[f"  {words}" for words in ready]]))
    error.ready = ready
    return error


def _has_something(target: Any) -> bool:
    statistics = getattr(target, "statistics", None)
    if statistics is None:
        return False
    facts = statistics()
    if not getattr(facts, "waiting", 0) and not getattr(facts, "getting", 0):
        return False
    return bool(
        getattr(facts, "is_set", False)
        or getattr(facts, "value", 0)
        or getattr(facts, "size", 0)
        or getattr(facts, "locked", None) is False
    )
