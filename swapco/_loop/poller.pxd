"""The epoll set of a scheduler: see poller.pyx."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from .._core.hub cimport Hub
from .._core.fiber cimport Dispatcher, FiberCore, Flushable
from .._core.scheduler cimport Scheduler


cdef struct Entry:
    PyObject *registration
    uint32_t generation


cdef enum:
    # the size of a poller's scratch buffer, in bytes
    SCRATCH_SIZE = 262144


@cython.final
cdef class Registration:
    cdef object __weakref__
    cdef readonly Poller poller
    cdef Dispatcher scheduler
    cdef readonly int fd
    cdef uint32_t index
    # what reports name instead of the registration itself (borrowed: it holds the registration)
    cdef PyObject *owner
    cdef readonly bint closed
    # of a descriptor that is not ours: there for as long as somebody waits for it
    cdef bint borrowed
    cdef int borrowers
    cdef object lender
    cdef bint readable
    cdef bint writable
    # EPOLLOUT is part of what the kernel watches: from the first send that found no room
    cdef bint watches_output
    # a read that returns less than was asked for has emptied the receive queue
    cdef bint short_read_empties
    # RDHUP, HUP, ERR or PRI was seen: from then on only EAGAIN says "empty"
    cdef bint exceptional
    cdef PyObject *reader
    cdef PyObject *writer
    # flushed when the descriptor becomes writable
    cdef Flushable output

    cdef int on_event(self, uint32_t mask) except -1
    cdef int watch_output(self) noexcept
    cdef int pace(self, FiberCore me) except -1
    cdef int claim_reading(self) except -1
    cdef int begin_io(self, FiberCore me) except -1
    cdef int begin_read(self, FiberCore me) except -1
    cdef int begin_write(self, FiberCore me) except -1
    cdef bint is_stream(self) noexcept
    cdef long long deadline(self, long long timeout_ns) noexcept
    cdef int park_reader(self, FiberCore me, long long deadline_ns) except -1
    cdef int park_writer(self, FiberCore me, long long deadline_ns) except -1
    cdef int wait_readable(self, FiberCore me, long long deadline_ns) except -1
    cdef int wait_writable(self, FiberCore me, long long deadline_ns) except -1
    cdef Py_ssize_t recv_now(self, char *buffer, Py_ssize_t size, int flags) noexcept
    cdef Py_ssize_t send_now(self, const char *buffer, Py_ssize_t size, int flags) noexcept
    cdef Py_ssize_t recv(self, FiberCore me, char *buffer, Py_ssize_t size, int flags,
                         long long timeout_ns) except -1
    cdef Py_ssize_t send(self, FiberCore me, const char *buffer, Py_ssize_t size, int flags,
                         long long timeout_ns) except -1
    cdef int send_all(self, FiberCore me, const char *buffer, Py_ssize_t size, int flags,
                      long long timeout_ns) except -1
    cdef int close(self) except -1


cdef class Poller:
    cdef object __weakref__
    cdef readonly int epoll_fd
    cdef int event_fd
    cdef int timer_fd
    cdef Scheduler scheduler
    cdef object loop
    cdef long long armed_ns
    cdef Entry *table
    cdef uint32_t capacity
    cdef uint32_t first_free
    cdef readonly Py_ssize_t registered
    cdef dict by_fd
    # shared by every read that does not know yet how much there is; never in use across a suspension
    cdef char *scratch
    # outputs that still have something to send, though nobody may hold them any more
    cdef set lingering
    cdef readonly bint open
    cdef readonly unsigned long long turns
    cdef readonly unsigned long long events
    cdef Registration register(self, int fd)
    cdef Registration find(self, int fd)
    cdef int unregister(self, Registration r) except -1
    cdef int disown(self, Registration r) except -1
    cdef uint64_t key_of(self, uint32_t index) noexcept
    cdef int arm(self, long long deadline_ns) except -1
    cdef int wake(self) except -1
    cdef int collect(self) except -1
    cdef int grow(self) except -1
    cdef int abandon(self) except -1


cdef class PollingHub(Hub):
    cdef readonly object loop
    cdef readonly Scheduler scheduler
    # None: there is no I/O on this loop
    cdef readonly Poller poller
    cdef int refuse_io(self) except -1


cdef int raise_errno(int number) except -1
cdef bint descriptor_ready(int fd, bint reading) noexcept
cdef Poller poller_of(Dispatcher scheduler)
