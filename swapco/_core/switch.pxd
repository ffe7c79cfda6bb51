"""Stacks: see switch.pyx."""

from cpython.object cimport PyObject

from .policy cimport Runnable


cdef class Stack:
    # what runs on it; None: it is idle, and whoever switches to it sets this first
    cdef Runnable fiber
    # somebody threw into it from outside (greenlet's GreenletExit): it must only unwind
    cdef bint killed
    # 0, or -1 with an exception set, if somebody threw into `leaving` instead of switching to it
    cdef int switch_from(self, Stack leaving) noexcept
    cdef object frame(self)


cdef class Backend:
    cdef Stack adopt(self)
    cdef Stack create(self, object entry, Stack hub)
    cdef int unwind(self, Stack stack, Stack hub) except -1


cdef class GreenletStack(Stack):
    # the greenlet to continue: the stack's own, or a user's greenlet inside which its fiber suspended
    cdef object continuation
    cdef object own


cdef class GreenletBackend(Backend):
    pass


cdef extern from "thread_context.h":
    void thread_context_assign(PyObject *context)
    PyObject *thread_context_borrow()
