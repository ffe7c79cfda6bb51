"""Native stacks: see native_switch.pyx."""

from cpython.object cimport PyObject

from .switch cimport Backend, Stack, StackMain


cdef extern from "native_switch.h":
    ctypedef struct native_stack:
        pass
    ctypedef struct native_continuation:
        pass


cdef class NativeStack(Stack):
    # where it continues, while it does not run
    cdef native_continuation here
    # NULL: the hub's, which is the kernel thread's own
    cdef native_stack *memory
    cdef StackMain entry
    # the hub that unwinds it, and that its last switch goes to
    cdef PyObject *unwinder


cdef class NativeBackend(Backend):
    pass
