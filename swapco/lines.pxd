"""Waiting in line, the common part of the primitives: see lines.pyx."""

from cpython.object cimport PyObject

from ._core.fiber cimport FiberCore, WaitQueue, deadline_of, fiber_here


cdef inline bint in_fiber():
    """Is the caller a fiber, and not in the hub?"""
    return fiber_here() != NULL


cdef int check_thread(PyObject *waiter, object primitive, str method) except -1
cdef int check_before_wait(FiberCore me, WaitQueue *queue, short reason, object primitive,
                           long long deadline_ns) except -1
cdef object wait_in_line(FiberCore me, WaitQueue *queue, short reason, object primitive, long long deadline_ns)
cdef object caller()
