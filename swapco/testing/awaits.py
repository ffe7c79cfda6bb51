"""What a fiber waits for inside of asyncio's primitives, and who holds it.

asyncio's locks do not know their holder, and whoever waits for one shows a bare future.  The coroutines that are
suspended know both: the innermost frame is ``Lock.acquire`` with the lock as ``self``, and whoever is inside of an
``async with`` has the lock's ``__aexit__`` on its stack, where the garbage collector sees it.

It has it there from before it waits for the lock, and in ``Condition.wait``, which gives the lock back: those are no
holders.  A lock that was acquired by a bare ``await lock.acquire()`` has none that anybody could name.

Only reports need this, of programs that are suspended; nothing of the program runs.
"""

from __future__ import annotations

import asyncio
import gc
from types import MethodType
from typing import TYPE_CHECKING, Any

from .places import is_library, suspended

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["awaited_call", "holders_of", "lock_awaited_by"]

_PRIMITIVES = (asyncio.Barrier, asyncio.Condition, asyncio.Event, asyncio.Lock, asyncio.Queue, asyncio.Semaphore)


def awaited_call(fiber: Any) -> tuple[str, Any]:
    """The coroutine of a library in which the program's own code waits, such as "asyncio.sleep" or "Lock.acquire", and
    the primitive of asyncio whose method that is, or None; "" if there is none."""
    called, primitive = "", None
    for awaited, inner in suspended(fiber):
        if not is_library(inner.f_code.co_filename):
            called, primitive = "", None
        elif not called:
            called = awaited.__qualname__
            me = inner.f_locals.get("self")
            if isinstance(me, _PRIMITIVES):
                method = "acquire" if awaited.__name__ == "__aenter__" else awaited.__name__
                called, primitive = f"{type(me).__name__}.{method}", me
    return "asyncio.sleep" if called == "sleep" else called, primitive


def lock_awaited_by(fiber: Any) -> Any:
    """The Lock or Semaphore of asyncio that it is about to acquire; None if there is none."""
    frames = [frame for _, frame in suspended(fiber)]
    if not frames or frames[-1].f_code.co_name != "acquire":
        return None
    me = frames[-1].f_locals.get("self")
    return me if isinstance(me, asyncio.Lock | asyncio.Semaphore) else None


def holders_of(lock: Any, fibers: Iterable[Any]) -> list[Any]:
    """The fibers that are inside of an ``async with`` of the lock, or of a condition that uses it."""
    return [fiber for fiber in fibers if lock_awaited_by(fiber) is not lock and _is_inside(fiber, lock)]


def _is_inside(fiber: Any, lock: Any) -> bool:
    inside = False
    for awaited, frame in suspended(fiber):
        if frame.f_code.co_name == "wait" and _lock_of(frame.f_locals.get("self")) is lock:
            return False
        for thing in gc.get_referents(awaited):
            if isinstance(thing, MethodType) and thing.__name__ == "__aexit__":
                inside = inside or thing.__self__ is lock or _lock_of(thing.__self__) is lock
    return inside


def _lock_of(condition: Any) -> Any:
    return getattr(condition, "_lock", None) if isinstance(condition, asyncio.Condition) else None
