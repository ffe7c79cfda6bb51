"""Stacks made of greenlets: see greenlet_switch.pyx."""

from .switch cimport Backend, Stack, StackMain


cdef class GreenletStack(Stack):
    # the greenlet to continue: the stack's own, or a user's greenlet inside which its fiber suspended
    cdef object continuation
    cdef object own
    cdef StackMain entry
    # it has not started, and will start in the lower lane
    cdef bint begins_lower
    cdef int remember_current(self) except -1


cdef class GreenletBackend(Backend):
    cdef bint next_is_lower
