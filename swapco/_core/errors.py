"""The exceptions that swapco adds to asyncio's, and the asyncio ones that it raises itself.

One rule holds for every message: it says what was wrong and what to do instead.
"""

from __future__ import annotations

from asyncio.exceptions import CancelledError, IncompleteReadError, InvalidStateError, LimitOverrunError
from asyncio.queues import QueueEmpty, QueueFull

__all__ = [
    "CancelledError",
    "ChannelClosed",
    "Deadlock",
    "IncompleteReadError",
    "InvalidStateError",
    "LimitOverrunError",
    "NotInFiber",
    "QueueEmpty",
    "QueueFull",
    "QueueShutDown",
]

try:  # asyncio has it from 3.13 on
    from asyncio.queues import QueueShutDown  # type: ignore[attr-defined,unused-ignore]
except ImportError:

    class QueueShutDown(Exception):  # type: ignore[no-redef]
        """Raised by a queue's put and get after its ``shutdown`` (asyncio has it from 3.13 on)."""


class Deadlock(RuntimeError):
    """Every fiber is blocked and nothing can ever resume one.

    Thrown into the main fiber; the other fibers are cancelled.  The message names every blocked
    fiber, what it waits for and who owns that.  It is raised only when it is certain: while a timer,
    an I/O registration, an asyncio task or handle, or another thread exists that could resume a fiber,
    nothing is raised; ``dump_fibers()`` shows who waits for what.
    """


class NotInFiber(RuntimeError):
    """A blocking function was called where there is no fiber to block."""


class ChannelClosed(Exception):
    """Raised by a channel's operations once the channel is closed."""
