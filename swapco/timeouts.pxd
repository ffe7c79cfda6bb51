"""Time limits: see timeouts.pyx."""

from ._core.clock cimport Timer
from ._core.fiber cimport FiberCore


cdef class Timeout(Timer):
    cdef FiberCore fiber
    # the deadline in loop time, as the user sees it: a float, or None
    cdef object _when
    cdef signed char state
    # the fiber's cancellations at entry: how many were requested, and was one still on its way
    cdef bint pending_before
    # somebody else's undelivered cancellation became one with ours
    cdef bint shared
    cdef int requests_before
    cdef int start(self) except -1
    cdef int request(self) except -1
    cdef bint withdraw(self) except -1


cdef int take_back_cancel(FiberCore f, int requests_before, bint pending_before) except -1
