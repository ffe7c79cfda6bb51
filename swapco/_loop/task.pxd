"""A fiber as asyncio's code sees it: see task.pyx."""

from .._core.scheduler cimport Scheduler
from .awaiting cimport AwaitingFiber


cdef class Fiber(AwaitingFiber):
    # one (callback, context), or a list of them, or None
    cdef object callbacks
    cdef public object _asyncio_future_blocking
    cdef public bint _log_destroy_pending
    cdef int schedule_callbacks(self) except -1


cdef Fiber new_fiber(Scheduler scheduler, object fn, tuple args, object name, object context)
