"""``StreamReader``: see reader.pyx."""

from .._core.fiber cimport FiberCore, WaitQueue
from .._loop.poller cimport Registration
from .byte_queue cimport ByteQueue

cdef class StreamReader:
    cdef object __weakref__
    # None: only what is fed is read
    cdef Registration registration
    cdef ByteQueue queue
    cdef readonly Py_ssize_t _limit
    cdef bint eof
    cdef object error
    # the error is the connection's, not one that was set from outside
    cdef bint failed
    # counts what is fed and set from outside, so that a parked reader sees that something was
    cdef unsigned int feeds
    # who waits for something to be fed; only without a registration
    cdef WaitQueue waiters

    cdef int wake(self) except -1
    cdef int end_of_stream(self) except -1
    cdef Py_ssize_t receive(self, FiberCore me, char *buffer, Py_ssize_t size, Py_ssize_t reserve) except -2
    cdef int wait_for_feed(self, FiberCore me) except -1
    cdef int fill(self, FiberCore me, Py_ssize_t wanted) except -1
    cdef int fail(self, Py_ssize_t number) except -1
    cdef object read_until(self, FiberCore me, tuple separators)
    cdef object read_line(self, FiberCore me)

cdef StreamReader reader_of(Registration registration, Py_ssize_t limit)
