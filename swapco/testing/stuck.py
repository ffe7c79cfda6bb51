"""Nothing can run, and fibers wait: whose fault is it?

A *deadlock* has a cycle: a fiber waits for something that another one owns, which waits in turn.  Without a cycle
somebody should have been woken, and was not: a *lost wakeup*.  The report names every fiber, what it waits for, who
owns that, where it is; of a lost wakeup also each primitive that has what is waited for (a permit, an item, a set
event) and has not given it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .errors import Deadlock, FiberLeak, LostWakeup
from .owners import cycle_of, owners_of
from .places import Place, place_of_fiber

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Wait", "leak", "nothing_can_run"]


def nothing_can_run(fibers: Sequence[Any]) -> Deadlock:
    """The body waits, and nobody will ever wake it."""
    cycle = cycle_of(_ordered(fibers), owners_of)
    if cycle:
        lines = ["nothing can run: a cycle of fibers, each waiting for what the next one has:"]
        lines += [_line(fiber) for fiber in cycle]
        rest = [fiber for fiber in _ordered(fibers) if fiber not in cycle]
        if rest:
            lines += ["besides, waiting:"] + [_line(fiber) for fiber in rest]
        return _with_data(Deadlock("\n".join(lines)), cycle + rest, len(cycle))
    lines = ["nothing can run, and nobody owns what is waited for: a wakeup was lost, or never sent:"]
    lines += [_line(fiber) for fiber in _ordered(fibers)]
    return _with_data(LostWakeup("\n".join(lines + _ready_all_the_same(fibers))), _ordered(fibers))


def leak(fibers: Sequence[Any]) -> FiberLeak:
    """The body has ended; these wait for ever."""
    lines = ["the body has ended, and fibers that it started wait for what never happens (join or cancel them):"]
    lines += [_line(fiber) for fiber in _ordered(fibers)]
    return _with_data(FiberLeak("\n".join(lines + _ready_all_the_same(fibers))), _ordered(fibers))


class Wait(NamedTuple):
    """A fiber that waits, for a report."""

    fiber: str
    reason: str
    owner: str
    """The fiber that must act before it can go on; "" if none is known."""
    place: Place | None


Error = TypeVar("Error", bound=BaseException)


def _with_data(error: Error, fibers: Sequence[Any], cycle: int = 0) -> Error:
    """``error.waits``: a Wait for each fiber, those of the cycle first; ``error.cycle``: how many these are."""
    waits = []
    for at, fiber in enumerate(fibers):
        owners = [fibers[(at + 1) % cycle]] if at < cycle else owners_of(fiber)
        owner = owners[0].name if owners else ""
        waits.append(Wait(fiber.name, fiber.wait_reason or "", owner, place_of_fiber(fiber, fiber.frame)))
    error.waits = tuple(waits)  # type: ignore[attr-defined]
    error.cycle = cycle  # type: ignore[attr-defined]
    return error


def _ordered(fibers: Iterable[Any]) -> list[Any]:
    return sorted(fibers, key=lambda fiber: fiber.number)


def _line(fiber: Any) -> str:
    line = f"  {fiber.name!r} waits for {fiber.wait_reason}"
    target = fiber.waits_for_object
    owner = getattr(target, "owner", None)
    if owner is not None and hasattr(owner, "name"):
        line += f", owned by {owner.name!r}"
    place = place_of_fiber(fiber, fiber.frame)
    return line if place is None else f"{line}\n      at {place}"


def _ready_all_the_same(fibers: Iterable[Any]) -> list[str]:
    """Primitives that have what a fiber waits for, and have not given it."""
    targets = {id(fiber.waits_for_object): fiber.waits_for_object for fiber in fibers}.values()
    return [f"  {target!r} has it, and has woken nobody" for target in targets if _has_something(target)]


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
