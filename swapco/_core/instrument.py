"""Hooks into the scheduler: what debuggers, tracers and statistics subscribe to.

An ``Instrument`` has one method for each event; derive from it and define the ones you need.  With no
instrument installed an event costs one comparison.  Hooks run inside the scheduler, on the fiber or in the
hub, whoever caused the event, and with thread fibers on any kernel thread of the slot, one at a time: they must not
block, spawn or resume.

A hook that raises is reported through ``sys.unraisablehook`` and its instrument is removed: a broken
observer must not break what it observes.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fiber import FiberCore

__all__ = ["EVENTS", "Instrument", "Instruments"]

EVENTS = (
    "spawned",
    "before_switch",
    "after_switch",
    "blocked",
    "resumed",
    "detached",
    "reattached",
    "finished",
    "polled",
)


class Instrument:
    """The events of one scheduler.  Every method does nothing until it is overridden."""

    def spawned(self, fiber: FiberCore) -> None:
        """A fiber was made and queued; it has not run."""

    def before_switch(self, leaving: FiberCore | None, entering: FiberCore | None) -> None:
        """The slot is about to pass on; None stands for the hub, as ``leaving`` also for a fiber that has ended."""

    def after_switch(self, entering: FiberCore | None) -> None:
        """A fiber (or, for None, the hub) runs again."""

    def blocked(self, fiber: FiberCore, reason: str) -> None:
        """A fiber opened a wait record and is about to give the slot away."""

    def resumed(self, fiber: FiberCore) -> None:
        """A blocked fiber became runnable."""

    def detached(self, fiber: FiberCore) -> None:
        """The kernel thread of a thread fiber runs on without the slot: it blocks, or computes."""

    def reattached(self, fiber: FiberCore) -> None:
        """A detached fiber came back, and waits for its turn."""

    def finished(self, fiber: FiberCore) -> None:
        """A fiber's function returned or raised."""

    def polled(self, events: int) -> None:
        """The poller looked for I/O and found this many events."""


class Instruments:
    """Several instruments behind one: what the scheduler holds while at least one is installed."""

    def __init__(self, members: tuple[Instrument, ...]) -> None:
        self.members = members

    def emit(self, event: str, *args: Any) -> None:
        """Call ``event`` on every member; a member that raises is reported and dropped."""
        for member in self.members:
            try:
                getattr(member, event)(*args)
            except Exception as error:
                self.members = tuple(m for m in self.members if m is not member)
                sys.unraisablehook(
                    SimpleNamespace(
                        exc_type=type(error),
                        exc_value=error,
                        exc_traceback=error.__traceback__,
                        err_msg=f"swapco: instrument {member!r} raised in {event}() and was removed",
                        object=member,
                    )
                )
