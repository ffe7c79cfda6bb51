"""The event loop's side of the scheduler: see loop.pyx."""

from cpython.object cimport PyObject

from .._core.scheduler cimport Scheduler
from .poller cimport PollingHub


cdef class LoopHub(PollingHub):
    cdef object raw_call_soon
    cdef object drain_callback
    # what other workers asked the loop for, until home acts on it
    cdef list later
    cdef bint stop_later
    cdef object longest_run
    cdef object empty_context
    cdef object uv_capsule
    cdef unsigned int *uv_active_handles
    cdef unsigned int *uv_active_requests
    cdef bint suspects_deadlock
    # suspicions since fibers ran last, and how many switches there had been then
    cdef int suspicions
    cdef unsigned long long suspected_at
    # leaves run_forever when the loop has stopped
    cdef object error
    cdef public object interrupt_handler
    cdef bint looks_dead(self, unsigned int margin) except -1
    # virtual time: a jump is due when nothing real happens; how often that was looked at; calls of executors under way
    cdef bint jump_pending
    cdef int jump_attempts
    cdef int offloaded
    cdef bint jumps(self) except -1
    cdef int prepare_jump(self) except -1
    cdef int jump(self) except -1
    cdef bint something_real(self) except -1
    cdef bint has_active_handles(self, unsigned int margin) except -1
    cdef int check_deadlock(self) except -1


cdef Scheduler scheduler_of(object loop)
