"""A fiber that awaits: see awaiting.pyx."""

from .._core.fiber cimport FiberCore


cdef class AwaitingFiber(FiberCore):
    # the future that it waits for
    cdef object awaited
    # the coroutine that it drives; the outermost one if they nest
    cdef object coroutine
    cdef int depth
    # in asyncio's registry of tasks
    cdef bint registered
    cdef object event_loop(self)
    cdef int register(self) except -1
    cdef object drive(self, object awaitable)
    cdef object drive_iterator(self, object iterator)
    cdef object await_future(self, object future)
    cdef int wait_for_yielded(self, object yielded) except -1
    cdef int wait_for_future(self, object future) except -1
