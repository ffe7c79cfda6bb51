"""Durations and points in time are whole nanoseconds on this side (``_ns``)."""

cdef enum:
    # later than any deadline: "no timeout", "no timer armed"
    NEVER_NS = 0x7fffffffffffffff


cdef class Clock:
    cdef long long now_ns(self) noexcept


cdef class ManualClock(Clock):
    cdef long long _now_ns
    # may it be moved to the next deadline when nothing else can happen?
    cdef bint may_jump(self) noexcept


cdef class VirtualClock(ManualClock):
    cdef public bint autojump


cdef class Timer:
    cdef readonly long long deadline_ns
    cdef unsigned long long _sequence
    cdef Py_ssize_t _index
    # a timer that does housekeeping: it does not count as "something that may wake a fiber"
    cdef bint housekeeping
    cdef int fire(self) except -1


cdef struct HeapEntry:
    long long deadline_ns
    unsigned long long sequence
    void *timer


cdef class TimerHeap:
    cdef HeapEntry *_entries
    cdef Py_ssize_t _count
    cdef Py_ssize_t _capacity
    cdef unsigned long long _sequence
    cdef Py_ssize_t housekeeping
    cdef int arm(self, Timer timer, long long deadline_ns) except -1
    cdef int disarm(self, Timer timer) except -1
    cdef long long head_ns(self) noexcept
    cdef Timer pop_due(self, long long now_ns)
    cdef void _place(self, Py_ssize_t i, HeapEntry entry) noexcept
    cdef void _up(self, Py_ssize_t i) noexcept
    cdef void _down(self, Py_ssize_t i) noexcept


cdef long long duration_ns(object seconds) except -1
cdef long long deadline_after(Clock clock, object seconds) except -1
