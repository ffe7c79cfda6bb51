"""Is it certain that nothing can ever wake a fiber again?  And the report, if it is.

The scheduler asks only when no fiber is runnable, the main fiber is blocked, no timer is armed, no fiber waits
for I/O or for an awaitable, and libuv has no active handle or request but those of an idle loop.  What is left
to look at are the sources of wake-ups that the loop does not see: asyncio tasks, other threads, and signal
handlers of the user.  A false alarm is worse than a missed one: whatever could resume a fiber counts.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any

from .._core.frames import frames_of_threads

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["QuietThread", "describe", "outside_sources"]


class QuietThread(threading.Thread):
    """A thread of swapco's own that never wakes a fiber."""


def outside_sources(
    loop: asyncio.AbstractEventLoop, own_handlers: Iterable[Any] = (), own_threads: int = 0
) -> list[str]:
    """What could wake a fiber from outside, in words; empty if nothing could.

    ``own_handlers`` are signal handlers that only interrupt the program (the runner's Ctrl-C); ``own_threads`` is how
    many kernel threads wait for the slot: they host fibers of the loop, or nothing.
    """
    from .._core.fiber import FiberCore

    found = []
    tasks = [t for t in asyncio.all_tasks(loop) if not isinstance(t, FiberCore)]
    if tasks:
        found.append(f"{len(tasks)} asyncio tasks")
    # every thread that runs Python code, also those that threading does not know
    quiet = {thread.ident for thread in threading.enumerate() if isinstance(thread, QuietThread)}
    threads = len(frames_of_threads().keys() - quiet) - 1 - own_threads
    if threads > 0:
        found.append(f"{threads} other threads")
    if threading.current_thread() is threading.main_thread():
        harmless = {signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None, *own_handlers}
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if handler not in harmless:
                found.append(f"a handler of {signal.Signals(number).name}")
    return found


def describe(fibers: Iterable[Any]) -> str:
    """Every blocked fiber, what it waits for, and who owns that."""
    lines = ["every fiber is blocked, and nothing can ever wake one:"]
    for fiber in sorted(fibers, key=lambda f: f.name):
        target = fiber.waits_for_object
        owner = getattr(target, "owner", None)
        line = f"  {fiber.name!r} waits for {fiber.wait_reason}"
        if owner is not None and hasattr(owner, "name"):
            line += f", owned by {owner.name!r}"
        frame = fiber.frame
        if frame is not None:
            line += f" ({frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name})"
        lines.append(line)
    return "\n".join(lines)
