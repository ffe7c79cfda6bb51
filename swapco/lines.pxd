"""Waiting in line, the common part of the primitives: see lines.pyx."""

from cpython.object cimport PyObject

from ._core.clock cimport NEVER_NS, deadline_after
from ._core.fiber cimport FiberCore, WaitQueue, fiber_here


cdef inline long long deadline_of(FiberCore me, object timeout) except -1:
    """When a wait that starts now ends.  Before the section: converting ``timeout`` may run user code."""
    if timeout is None:
        return NEVER_NS
    return deadline_after(me.scheduler.clock, timeout)


cdef inline bint in_fiber():
    """Is the caller a fiber, and not in the hub?"""
    return fiber_here() != NULL


cdef int check_thread(PyObject *waiter, object primitive, str method) except -1
cdef int check_before_wait(FiberCore me, WaitQueue *queue, short reason, object primitive,
                           long long deadline_ns) except -1
cdef object wait_in_line(FiberCore me, WaitQueue *queue, short reason, object primitive, long long deadline_ns)
cdef object caller()
