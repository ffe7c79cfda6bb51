"""The interface of stacks: see switch.pyx."""

from cpython.object cimport PyObject

from .policy cimport Runnable


cdef class Stack:
    # what runs on it; None: it is idle, and whoever switches to it sets this first
    cdef Runnable fiber
    # somebody threw into it from outside (greenlet's GreenletExit): it must only unwind
    cdef bint killed
    # the first chunk of its own Python frames: tells in 2 ns that no user's greenlet runs on it; NULL: unknown
    cdef void *root_chunk
    # 0, or -1 with an exception set, if somebody threw into `leaving` instead of switching to it
    cdef int switch_from(self, Stack leaving) noexcept
    cdef int leave_elsewhere(self) except -1
    cdef object frame(self)


# What a fresh stack runs: the scheduler derives from it.  A C call, because every byte of C stack below a parked
# fiber is copied at every switch between greenlets.
cdef class StackMain:
    cdef int main(self, Stack stack) except -1


cdef class Backend:
    cdef readonly str name
    cdef bint may_run_here(self) except -1
    cdef object call_in_hub(self, object fn)
    cdef Stack adopt(self)
    cdef Stack create(self, StackMain entry, Stack hub)
    cdef int unwind(self, Stack stack, Stack hub) except -1


cdef extern from "thread_state.h":
    void thread_context_assign(PyObject *context)
    PyObject *thread_context_borrow()
    void *thread_frames_chunk()
    void *thread_frames_root()
    void thread_recursion_restart()
