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


# What a fresh stack runs: the scheduler derives from it.  A C call, because every byte of C stack below a parked
# fiber is copied at every switch.
cdef class StackMain:
    cdef int main(self, Stack stack) except -1


cdef class Backend:
    cdef Stack adopt(self)
    cdef Stack create(self, StackMain entry, Stack hub)
    cdef int unwind(self, Stack stack, Stack hub) except -1


cdef class GreenletStack(Stack):
    # the greenlet to continue: the stack's own, or a user's greenlet inside which its fiber suspended
    cdef object continuation
    cdef object own
    cdef StackMain entry
    # the first chunk of its Python frames: tells in 2 ns that no other greenlet runs
    cdef void *root_chunk
    # it has not started, and will start in the lower lane
    cdef bint begins_lower
    cdef int remember_current(self) except -1


cdef class GreenletBackend(Backend):
    cdef bint next_is_lower


cdef extern from "thread_state.h":
    void thread_context_assign(PyObject *context)
    PyObject *thread_context_borrow()
    void *thread_frames_chunk()
    void *thread_frames_root()
    void thread_recursion_restart()
