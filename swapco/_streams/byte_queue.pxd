"""A queue of bytes in one block of memory: appended to at the end, consumed from the front.

``data[start:end]`` is what is in it.  Room is made by moving the rest to the front when at least half of the
block was consumed, else by doubling it, so that each byte is moved a constant number of times on average.
An empty queue keeps a small block only: thousands of idle connections must cost next to nothing.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memcpy, memmove

cdef enum:
    # the first block; the largest block that an empty queue keeps, in bytes
    FIRST_BLOCK = 512
    KEPT_BLOCK = 4096


cdef struct ByteQueue:
    char *data
    Py_ssize_t start
    Py_ssize_t end
    Py_ssize_t capacity


cdef inline Py_ssize_t bytes_in(const ByteQueue *q) noexcept:
    return q.end - q.start


cdef inline char *bytes_front(const ByteQueue *q) noexcept:
    return q.data + q.start


cdef inline void bytes_free(ByteQueue *q) noexcept:
    PyMem_Free(q.data)
    q.data = NULL
    q.start = q.end = q.capacity = 0


cdef inline int bytes_reserve(ByteQueue *q, Py_ssize_t more) except -1:
    """Make room for ``more`` bytes behind the last one."""
    cdef Py_ssize_t size = q.end - q.start, capacity
    cdef char *data
    if q.capacity - q.end >= more:
        return 0
    if q.capacity - size >= more and q.start >= q.capacity // 2:
        memmove(q.data, q.data + q.start, size)
    else:
        capacity = max(2 * q.capacity, size + more, <Py_ssize_t>FIRST_BLOCK)
        data = <char *>PyMem_Malloc(capacity)
        if data == NULL:
            raise MemoryError(f"no memory to hold {size + more} bytes of a stream")
        if size:
            memcpy(data, q.data + q.start, size)
        PyMem_Free(q.data)
        q.data = data
        q.capacity = capacity
    q.start = 0
    q.end = size
    return 0


cdef inline int bytes_push(ByteQueue *q, const char *source, Py_ssize_t size) except -1:
    bytes_reserve(q, size)
    memcpy(q.data + q.end, source, size)
    q.end += size
    return 0


cdef inline void bytes_drop(ByteQueue *q, Py_ssize_t size) noexcept:
    """Consume from the front."""
    q.start += size
    if q.start == q.end:
        q.start = q.end = 0
        if q.capacity > KEPT_BLOCK:
            bytes_free(q)


cdef inline bytes bytes_take(ByteQueue *q, Py_ssize_t size):
    """Consume from the front: as a bytes object."""
    cdef bytes taken = PyBytes_FromStringAndSize(q.data + q.start, size)
    bytes_drop(q, size)
    return taken
