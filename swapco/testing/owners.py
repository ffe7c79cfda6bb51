"""Who must act before a fiber that waits can go on: the edges of the wait-for graph, and its cycles.

A fiber waits for another one if that one owns the lock, or must end.  Whoever waits for several to end (``wait``,
``gather``, a TaskGroup) has an edge to each that has not.  Nobody in particular must act before an event is set or an
item comes: such a fiber has no edge.  Nor has one that waits for what a fiber has that has ended: nobody can act any
more, and ``gone_owner_of`` says who it was.

The members are found through the garbage collector's view of the waiting object, which runs no code: the compiled
primitives do not show their fields to Python, and only a report needs them.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from .awaits import holders_of, lock_awaited_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["cycle_of", "gone_owner_of", "is_fiber", "members_of", "owners_of"]

#: Modules whose objects wait for the end of several fibers: the last one has what gather makes.
_SEVERAL = ("swapco.waiting", "swapco.groups", "asyncio.tasks")


def is_fiber(thing: Any) -> bool:
    """Is it a fiber, or a task that is one?"""
    return hasattr(type(thing), "wait_reason")


def members_of(target: Any) -> list[Any]:
    """The fibers, not done yet, whose end somebody waits for with ``target``, if it stands for several."""
    if type(target).__module__ not in _SEVERAL:
        return []
    found: list[Any] = []
    for inner in gc.get_referents(target):
        if type(inner) is dict:
            # members, or the object's attributes
            found += inner
            found += [thing for value in inner.values() if type(value) is list for thing in value]
        elif type(inner) is list:
            found += inner
    return list({id(thing): thing for thing in found if is_fiber(thing) and not thing.done()}.values())


def owners_of(fiber: Any) -> list[Any]:
    """The fibers of which each must act before this one can go on; none if nobody in particular must."""
    target = fiber.waits_for_object
    if target is None:
        return []
    if is_fiber(target):
        return [target]
    owner: Any = getattr(target, "owner", None)
    if is_fiber(owner):
        return [] if owner.done() else [owner]
    members = members_of(target)
    if members:
        return members
    lock = lock_awaited_by(fiber)
    holders = [] if lock is None else holders_of(lock, fiber.scheduler.fibers())
    # of several it is enough if one of them acts
    return holders if len(holders) == 1 else []


def gone_owner_of(fiber: Any) -> Any:
    """The fiber that has what this one waits for, if it has ended and so can never give it; or None."""
    owner: Any = getattr(fiber.waits_for_object, "owner", None)
    return owner if is_fiber(owner) and owner.done() else None


def cycle_of(nodes: Iterable[Any], following: Callable[[Any], Iterable[Any]]) -> list[Any]:
    """Nodes of which each has the next one among its ``following``, and the last one the first; or nothing."""
    over: set[int] = set()
    for first in nodes:
        # depth first, without recursion: chains may be long
        chain: list[Any] = []
        on_chain: dict[int, int] = {}
        branches = [iter((first,))]
        while branches:
            node = next(branches[-1], None)
            if node is None:
                branches.pop()
                if chain:
                    last = chain.pop()
                    del on_chain[id(last)]
                    over.add(id(last))
            elif id(node) in on_chain:
                return chain[on_chain[id(node)] :]
            elif id(node) not in over:
                on_chain[id(node)] = len(chain)
                chain.append(node)
                branches.append(iter(following(node)))
    return []
