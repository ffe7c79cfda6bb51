"""What a controlled run can end with, besides what the program itself raises."""

from __future__ import annotations

from .._core.errors import Deadlock
from .trace import UncontrolledNondeterminism

__all__ = [
    "Deadlock",
    "FiberLeak",
    "LostWakeup",
    "RealIOError",
    "ReplayDivergence",
    "StepBoundExceeded",
    "UncontrolledNondeterminism",
    "Unwinding",
]


class LostWakeup(Deadlock):
    """Every fiber waits, there is no cycle of owners, and nothing is pending: somebody was not woken.

    ``ready``: the primitives that have what somebody waits for, in words.
    """

    ready: tuple[str, ...] = ()


class FiberLeak(AssertionError):
    """The body has ended, and fibers that it started wait for something that never happens.  ``ready``: as above."""

    ready: tuple[str, ...] = ()


class StepBoundExceeded(AssertionError):
    """The run had more moments than ``max_steps``: it may never end."""


class ReplayDivergence(AssertionError):
    """A recorded schedule does not fit the program: it has changed since, or depends on more than the schedule."""


class RealIOError(RuntimeError):
    """Real I/O, a real thread or a real process inside a controlled run, whose outcome no schedule could repeat."""


class Unwinding(BaseException):
    """Ends the fibers of a run that is over.  Programs do not catch it; who does gets it again at the next block."""
