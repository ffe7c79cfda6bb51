"""What the core needs of an event loop: see hub.pyx."""

cdef class Hub:
    # set by whoever adds a callback to the loop; cleared when the drain queues itself behind it
    cdef bint callbacks_waiting
    # something was asked for by another worker than home
    cdef bint unsettled
    cdef int settle(self) except -1
    cdef int request_drain(self) except -1
    cdef int arm_timer(self, long long deadline_ns) except -1
    cdef int notify(self) except -1
    cdef int went_idle(self) except -1
    cdef int fail(self, object error) except -1
    cdef int call_soon(self, object callback, object argument, object context) except -1
    cdef int threads_begin(self) except -1
