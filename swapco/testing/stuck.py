"""Nothing can run, and fibers wait: whose fault is it?

A *deadlock* has a cycle: a fiber waits for something that another one owns, which waits in turn.  Without a cycle
somebody should have been woken, and was not: a *lost wakeup*.  The report names every fiber, what it waits for, who
owns that, where it is; of a lost wakeup also each primitive that has what is waited for (a permit, an item, a set
event) and has not given it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import Deadlock, FiberLeak, LostWakeup
from .places import place_of_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["cycle_of", "leak", "nothing_can_run"]


def nothing_can_run(fibers: Sequence[Any]) -> Deadlock:
    """The body waits, and nobody will ever wake it."""
    cycle = cycle_of(fibers)
    if cycle:
        lines = ["nothing can run: a cycle of fibers, each waiting for what the next one has:"]
        lines += [_line(fiber) for fiber in cycle]
        rest = [fiber for fiber in _ordered(fibers) if fiber not in cycle]
        if rest:
            lines += ["besides, waiting:"] + [_line(fiber) for fiber in rest]
        return Deadlock("\n".join(lines))
    lines = ["nothing can run, and nobody owns what is waited for: a wakeup was lost, or never sent:"]
    lines += [_line(fiber) for fiber in _ordered(fibers)]
    return LostWakeup("\n".join(lines + _ready_all_the_same(fibers)))


def leak(fibers: Sequence[Any]) -> FiberLeak:
    """The body has ended; these wait for ever."""
    lines = ["the body has ended, and fibers that it started wait for what never happens (join or cancel them):"]
    lines += [_line(fiber) for fiber in _ordered(fibers)]
    return FiberLeak("\n".join(lines + _ready_all_the_same(fibers)))


def cycle_of(fibers: Iterable[Any]) -> list[Any]:
    """A cycle of waiting fibers, or nothing."""
    for first in _ordered(fibers):
        seen: list[Any] = []
        at = first
        while at is not None and at not in seen:
            seen.append(at)
            at = _waits_for(at)
        if at is not None:
            return seen[seen.index(at) :]
    return []


def _waits_for(fiber: Any) -> Any:
    """The fiber that must do something before this one can go on, if it is one."""
    target = fiber.waits_for_object
    if target is None:
        return None
    if hasattr(type(target), "wait_reason"):
        return target
    owner = getattr(target, "owner", None)
    return owner if hasattr(type(owner), "wait_reason") and not owner.done() else None


def _ordered(fibers: Iterable[Any]) -> list[Any]:
    return sorted(fibers, key=lambda fiber: fiber.number)


def _line(fiber: Any) -> str:
    line = f"  {fiber.name!r} waits for {fiber.wait_reason}"
    target = fiber.waits_for_object
    owner = getattr(target, "owner", None)
    if owner is not None and hasattr(owner, "name"):
        line += f", owned by {owner.name!r}"
    place = place_of_frame(fiber.frame)
    return line if place is None else f"{line}\n      at {place}"


def _ready_all_the_same(fibers: Iterable[Any]) -> list[str]:
    """Primitives that have what a fiber waits for, and have not given it."""
    found = []
    for target in {
        id(f.waits_for_object): f.waits_for_object for f in fibers if f.waits_for_object is not None
    }.values():
        if _has_something(target):
            found.append(f"  {target!r} has it, and has woken nobody")
    return found


def _has_something(target: Any) -> bool:
    statistics = getattr(target, "statistics", None)
    if statistics is None:
        return False
    facts = statistics()
    if not getattr(facts, "waiting", 0) and not getattr(facts, "getting", 0):
        return False
    return bool(
        getattr(facts, "is_set", False) or getattr(facts, "value", 0) or getattr(facts, "locked", None) is False
    )
