"""What a program says to a controlled run: here others may run, this is shared, here nobody may, this is a choice.  And
what the run answers to real I/O, which no schedule could repeat.

Outside of a controlled run all of it does next to nothing, so that code may keep its points.  A name that stands in the
report of a failure (the label of a choice) is borrowed by the records of the run: ``_labels`` keeps it for ever.
"""

import sys

from .._core.fiber cimport outside, running_fiber, section
from .._core.scheduler cimport Scheduler
from .control cimport Control, active, in_controlled_run

from .errors import RealIOError
from .places import place_of_frame

cdef dict _labels = {}


def schedule_point(obj=None, write=True) -> None:
    """Let the test choose who runs next; outside of a controlled run it does nothing.

    ``obj`` is what the caller is about to touch, ``write`` whether it changes it: that declares the footprint of the
    step until the next point, for ``DPOR``.  A preempted fiber goes on when a later choice names it.
    """
    if in_controlled_run():
        active().named_point(obj, write)


def choose(n: int, label: str = "choose") -> int:
    """A number from 0 to ``n - 1`` that the test chooses, outside of a controlled run 0.

    For what the program's environment decides: how much of a message arrives, which server answers, whether a call
    fails.  0 should be the ordinary case.  Does not block, and nobody else runs.  ValueError if ``n`` is less than 1.
    """
    if not isinstance(n, int):
        raise TypeError(f"choose() takes the number of possibilities, not {n!r}")
    if n < 1:
        raise ValueError(f"choose() takes the number of possibilities, from 1 on, not {n!r}")
    if not in_controlled_run():
        return 0
    return active().number(n, _labels.setdefault(label, label))


cdef class Shared:
    """A value that fibers share: reading and writing it are schedule points, and are declared for ``DPOR``.

    ``shared.value`` reads, ``shared.value = x`` writes.  Outside of a controlled run it is an ordinary attribute.
    """

    cdef object held
    cdef readonly str name

    def __init__(self, value=None, *, str name="shared"):
        self.held = value
        self.name = name
        cdef Control control = active()
        if control is not None and control.footprints:
            control.id_of(self)

    @property
    def value(self):
        """The value."""
        schedule_point(self, False)
        return self.held

    @value.setter
    def value(self, value):
        schedule_point(self, True)
        self.held = value

    def __repr__(self) -> str:
        return f"<Shared {self.name} {self.held!r}>"


cdef Scheduler _scheduler(str caller):
    cdef section here = outside()
    if in_controlled_run():
        return active().scheduler
    return <Scheduler>running_fiber(caller, &here.worker, None).scheduler


def scheduler_switches() -> int:
    """How often the slot was passed on so far, or could have been: NotInFiber where there is no fiber."""
    cdef Scheduler s = _scheduler("assert_switches")
    return s.takes + s.switches


cdef class no_switch:
    """``with no_switch(): ...``: the block is one step.

    Schedule points in it are none.  AssertionError at its end if the fiber gave the slot away in it, in a controlled
    run as well as in any other.  NotInFiber where there is no fiber.
    """

    cdef Scheduler scheduler
    cdef unsigned long long switches

    def __enter__(self) -> None:
        self.scheduler = _scheduler("no_switch")
        cdef Control control = active()
        if control is not None:
            control.quiet += 1
        self.switches = self.scheduler.takes + self.scheduler.switches

    def __exit__(self, kind, error, trace) -> None:
        cdef Control control = active()
        if control is not None and control.quiet:
            control.quiet -= 1
        if error is None and self.scheduler.takes + self.scheduler.switches != self.switches:
            raise AssertionError("the fiber gave the slot away in a block of no_switch()")


cdef str _NETWORK = "Give the program a swapco.testing.MemoryNetwork, or a fake, instead"


def refuse_real(what: str, instead: str | None = None) -> None:
    """Raise RealIOError: the program of a controlled run does something that no schedule could repeat.

    ``instead`` says what to do; None: use a network in memory.  It fails the run, too, if nothing else does: a program
    that goes on without what it was refused is not the one that was to be tested.
    """
    cdef Control control = active()
    try:
        place = place_of_frame(sys._getframe())
    except ValueError:
        place = None
    if place is not None:
        where = f"at {place}: {place.source}"
    elif control is not None and control.running is not None:
        # its function is the call itself
        where = f"by fiber {control.running.name!r}"
    else:
        where = "by the event loop"
    error = RealIOError(
        f"{what} in a controlled run: its outcome depends on more than the schedule. It was called {where}. "
        f"{instead or _NETWORK}"
    )
    if control is not None and control.refused is None and control.refuses():
        control.refused = error
    raise error
