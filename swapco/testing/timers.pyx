"""``call_later`` in a controlled run: a timer of the scheduler's heap, whose firing queues the callback."""

from .._core.clock cimport Timer, duration_ns
from .control cimport Control

import asyncio


cdef class CallTimer(Timer):
    """Queues a callback of the loop."""

    cdef object handle
    cdef object ready

    cdef int fire(self) except -1:
        if not self.handle.cancelled():
            self.ready.append(self.handle)
        return 0

    def __repr__(self) -> str:
        return f"call_later({getattr(self.handle._callback, '__qualname__', self.handle._callback)})"


class CallHandle(asyncio.TimerHandle):
    """What ``call_later`` returns: knows its timer, so that ``cancel`` takes it out."""

    __slots__ = ("timer",)


def arm_call(Control control not None, when, handle, ready) -> None:
    """Queue ``handle``, a CallHandle, in ``ready`` at ``when``, in virtual seconds."""
    cdef CallTimer timer = CallTimer.__new__(CallTimer)
    timer.handle = handle
    timer.ready = ready
    handle.timer = timer
    control.scheduler.timers.arm(timer, duration_ns(when))


def disarm_call(Control control not None, handle) -> None:
    """The handle was cancelled: its time is no moment any more, and no choice."""
    cdef Timer timer = handle.timer
    if timer._index >= 0:
        control.scheduler.timers.disarm(timer)
