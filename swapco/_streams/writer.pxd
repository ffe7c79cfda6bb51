"""``StreamWriter``: see writer.pyx."""

from .._core.fiber cimport FiberCore, Flushable, WaitQueue
from .._loop.poller cimport Registration
from .byte_queue cimport ByteQueue
from .reader cimport StreamReader

cdef class StreamWriter(Flushable):
    cdef object __weakref__
    cdef Registration registration
    cdef object sock
    cdef StreamReader reader
    # what is collected: one bytes object, from chunk_sent on, or else what is in the queue
    cdef bytes chunk
    cdef Py_ssize_t chunk_sent
    cdef ByteQueue queue
    cdef Py_ssize_t high_water
    cdef Py_ssize_t low_water
    cdef object error
    cdef bint closing
    cdef bint closed
    cdef bint lingering
    # write_eof was called; the end was sent
    cdef bint eof_wanted
    cdef bint eof_sent
    cdef object peer_name
    cdef object own_name
    cdef WaitQueue drainers
    cdef WaitQueue closers

    cdef Py_ssize_t pending(self) noexcept
    cdef int collect(self, const char *data, Py_ssize_t size) except -1
    cdef int send_pending(self) except -1
    cdef int linger(self) except -1
    cdef int settle(self) except -1
    cdef int fail(self, object error) except -1
    cdef int finish(self) except -1
    cdef int wake(self, WaitQueue *queue) except -1
