"""Strategies that run every schedule: ``DFS`` and ``DPOR``.

What comes next after which run is the work of an ``Enumeration`` (``exhaust``, ``dpor``), which knows runs only as
data.  Here it becomes a strategy: ``begin`` asks it for the next path, ``end`` tells it what came of that.  Each search
gets a new one.  A run that somebody else chose (in a Portfolio) and one that an error has cut short are not told.

Rejected: a second kind of object beside ``Strategy`` for what ends by itself.  The loop of a search, the report and
Portfolio would have to know both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .dpor import EachTrace
from .exhaust import DepthFirst, SimplestFirst
from .strategies import Chosen, Path
from .trace import Execution, FollowPath, Pruned

if TYPE_CHECKING:
    from .control import Control
    from .exhaust import Enumeration

__all__ = ["DFS", "DPOR"]


class _Systematic:
    """The half of it that does not depend on how a run is chosen."""

    exhaustive = True
    _enumeration: Enumeration
    _mine = False

    @property
    def finished(self) -> bool:
        """Every schedule was run."""
        return self._enumeration.exhausted

    def end(self, control: Control) -> None:
        """The run is over."""
        mine, self._mine = self._mine, False
        if not mine or not (control.error is None or isinstance(control.error, Pruned)):
            return
        kind = "passed" if control.error is None else "aborted"
        self._enumeration.record(Execution(control.decisions(), control.steps_taken(), kind=kind))

    def _next(self) -> Any:
        """The chooser of the next run; None if there is nothing left to run."""
        chooser = self._enumeration.next_chooser()
        self._mine = chooser is not None
        return chooser


class DFS(_Systematic, Path):
    """Every schedule with at most ``preemption_bound`` preemptions, the simplest first; None: every schedule.

    Without a bound the order is that of a depth-first search, which needs no memory.
    """

    def __init__(self, preemption_bound: int | None = None) -> None:
        if preemption_bound is not None and (not isinstance(preemption_bound, int) or preemption_bound < 0):
            raise ValueError(f"preemption_bound is a number from 0 on, or None, not {preemption_bound!r}")
        super().__init__()
        self.preemption_bound = preemption_bound
        self.simplest_first = preemption_bound is not None
        self.start(0)

    def __repr__(self) -> str:
        return f"DFS({'' if self.preemption_bound is None else self.preemption_bound})"

    def start(self, seed: int) -> None:
        """A search begins."""
        if self.preemption_bound is None:
            self._enumeration = DepthFirst()
        else:
            self._enumeration = SimplestFirst(self.preemption_bound, reduce=False)

    def begin(self, run: int) -> None:
        """A run begins."""
        chooser = self._next()
        self.follow(() if chooser is None else chooser.path)
        super().begin(run)


class DPOR(_Systematic, Chosen):
    """One schedule of each set that differs only in the order of independent steps, with sleep sets.

    Finds every failure that some schedule has, far sooner than ``DFS``, where the program declares what its steps
    touch: ``Shared``, ``schedule_point(obj)``, operations of primitives.  A bare ``schedule_point()`` conflicts with
    everything.
    """

    footprints = True

    def __init__(self) -> None:
        super().__init__(FollowPath(()))
        self.start(0)

    def __repr__(self) -> str:
        return "DPOR()"

    def start(self, seed: int) -> None:
        """A search begins."""
        self._enumeration = EachTrace()

    def begin(self, run: int) -> None:
        """A run begins."""
        chooser = self._next()
        self.follow(FollowPath(()) if chooser is None else chooser)
