"""What happened in one run, in the words of the program: the data of reports.

A run is replayed with a watcher that looks, at each moment, at who stops, who goes on, and at which lines.  That costs
a hundred times what a run costs; so it is done once, for the schedule that a person will read.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from .places import Place, place_of_frame
from .schedule import Named

__all__ = ["Moment", "Story", "Teller"]


class Moment(NamedTuple):
    """An actor stops, and one goes on."""

    before: str
    """Who ran before: a fiber's name, "the event loop", or a timer in words; "" at the start."""
    left: Place | None
    """The line at which it stopped; None: it has ended, or is no fiber."""
    label: str
    """Why: "schedule_point", "Lock" (it waits for one), "yield", "end", "Lock.acquire" (it is about to call it), ..."""
    waits_for: str
    """What it waits for, in words; "" if it does not wait."""
    chosen: str
    """Who goes on."""
    resumes: Place | None
    """The line at which it goes on; None: it starts there, or is no fiber."""
    enabled: tuple[str, ...]
    """Who could have gone on, in the order in which production would take them."""
    choice: int
    """The index into ``enabled``; not 0: production would not have done so."""
    decision: int
    """The number of the decision, or -1: there was nothing to choose."""
    preemption: bool
    """``before`` could have gone on."""
    time: float
    """Virtual seconds since the start of the run."""

    @property
    def deviates(self) -> bool:
        """Would production have done something else?"""
        return self.choice != 0

    @property
    def switches(self) -> bool:
        """Does somebody else go on?"""
        return self.before != self.chosen


class Story(NamedTuple):
    """A run, moment by moment."""

    moments: tuple[Moment, ...]
    actors: tuple[str, ...]
    """In order of appearance."""
    spawned_at: dict[str, Place | None]
    """Where each fiber's function begins."""

    @property
    def deviations(self) -> tuple[Moment, ...]:
        """The moments that matter: those at which production would have done something else."""
        return tuple(moment for moment in self.moments if moment.deviates)

    @property
    def named(self) -> tuple[Named, ...]:
        """The decisions that production would not have made, in words."""
        counts: dict[tuple[str, str], int] = {}
        found = []
        for moment in self.moments:
            if moment.decision < 0:
                continue
            key = moment.before, moment.label
            if moment.deviates:
                found.append(Named(*key, counts.get(key, 0), moment.chosen))
            counts[key] = counts.get(key, 0) + 1
        return tuple(found)


class Teller:
    """The watcher of a run: collects its moments."""

    def __init__(self) -> None:
        self._moments: list[Moment] = []
        self._before: Any = None
        self._decisions = 0
        self._starts: dict[str, Place | None] = {}

    def __call__(self, control: Any, chosen: int) -> None:
        """Called by the control at each moment."""
        enabled, current, label = control.moment()
        fiber = control.running
        before = control.name(fiber) if fiber is not None else self._name_of_last(control)
        place, waits_for = None, ""
        if fiber is not None and not fiber.done():
            place = place_of_frame(sys._getframe(1))
            waits_for = fiber.wait_reason or ""
        goes_on = control.actor(enabled[chosen])
        name = control.name(goes_on)
        resumes = None
        if goes_on is fiber:
            resumes = place
        elif hasattr(goes_on, "frame") and goes_on.state != "NEW":
            resumes = place_of_frame(goes_on.frame)
        decision = -1
        if len(enabled) > 1:
            decision = self._decisions
            self._decisions += 1
        self._moments.append(
            Moment(
                before,
                place,
                label,
                waits_for,
                name,
                resumes,
                tuple(control.name(control.actor(actor)) for actor in enabled),
                chosen,
                decision,
                chosen != 0 and current >= 0,
                control.time(),
            )
        )
        if name not in self._starts:
            self._starts[name] = _start_of(goes_on)
        self._before = goes_on

    def _name_of_last(self, control: Any) -> str:
        return "" if self._before is None else str(control.name(self._before))

    def story(self) -> Story:
        """What was collected."""
        return Story(tuple(self._moments), tuple(self._starts), dict(self._starts))


def _start_of(actor: Any) -> Place | None:
    function = getattr(actor, "function", None)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return None if code is None else Place(code.co_filename, code.co_firstlineno, code.co_name)
