"""What a controlled run can end with, besides what the program itself raises."""

from __future__ import annotations

import sys
from typing import NoReturn

from .._core.errors import Deadlock
from .places import place_of_frame
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
    "refuse_real",
]


class LostWakeup(Deadlock):
    """Every fiber waits, there is no cycle of owners, and nothing is pending: somebody was not woken."""


class FiberLeak(AssertionError):
    """The body has ended, and fibers that it started wait for something that never happens."""


class StepBoundExceeded(AssertionError):
    """The run had more moments than ``max_steps``: it may never end."""


class ReplayDivergence(AssertionError):
    """A recorded schedule does not fit the program: it has changed since, or depends on more than the schedule."""


class RealIOError(RuntimeError):
    """Real I/O, a real thread or a real process inside a controlled run, whose outcome no schedule could repeat."""


class Unwinding(BaseException):
    """Ends the fibers of a run that is over.  Programs do not catch it; who does gets it again at the next block."""


def refuse_real(what: str) -> NoReturn:
    """Raise RealIOError: the program of a controlled run does something that no schedule could repeat."""
    place = place_of_frame(sys._getframe())
    raise RealIOError(
        f"{what} in a controlled run: its outcome depends on more than the schedule. It was called at {place}"
        f"{': ' + place.source if place is not None else ''}. "
        "Give the program a swapco.testing.MemoryNetwork, or a fake, instead"
    )
