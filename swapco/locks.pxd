"""swapco's locks: see locks.pyx."""

from ._core.fiber cimport FiberCore, WaitQueue


cdef class _Acquirable:
    cdef object __weakref__
    # who waits to acquire; first in, first out
    cdef WaitQueue waiters

    cdef int take(self, FiberCore me, long long deadline_ns) except -1
    cdef bint take_at_once(self, object holder) except -1
    cdef int pass_to(self, object holder) except -1
    cdef int give(self) except -1


cdef class _Mutex(_Acquirable):
    # the fiber (or asyncio task) that acquired last; None while unlocked
    cdef object holder
    # how many releases are due: 0 is unlocked
    cdef Py_ssize_t depth

    cdef bint held_by_caller(self) except -1


cdef class Lock(_Mutex):
    pass


cdef class RLock(_Mutex):
    pass


cdef class Semaphore(_Acquirable):
    cdef Py_ssize_t value


cdef class BoundedSemaphore(Semaphore):
    cdef Py_ssize_t bound


cdef class Event:
    cdef object __weakref__
    cdef bint flag
    cdef WaitQueue waiters


cdef class Condition:
    cdef object __weakref__
    cdef _Mutex lock
    # who waits to be notified; the notified ones stand in the lock's own line
    cdef WaitQueue waiters

    cdef int wait_until(self, FiberCore me, long long deadline_ns) except -1
    cdef long long deadline_for(self, object timeout) except -1
    cdef int wait_once(self, long long deadline_ns) except -1
    cdef int reacquire(self, FiberCore me, Py_ssize_t depth) except -1
    cdef int requeue(self, Py_ssize_t n) except -1


cdef class Barrier:
    cdef object __weakref__
    cdef WaitQueue waiters
    cdef Py_ssize_t n_parties
    cdef bint is_broken

    cdef object open(self)
    cdef int turn_away(self, str method, bint broken) except -1
