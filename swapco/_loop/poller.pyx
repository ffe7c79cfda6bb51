"""The poller: one edge-triggered epoll set for every descriptor that fibers wait for.

Theory
------
A descriptor is registered once, for as long as it is open; no system call is made per operation.  Reading and
writing are tried first; only when the kernel says EAGAIN does the fiber park.  The set is nested in uvloop: uvloop
watches our epoll descriptor as it would watch a socket, and when something in it is ready calls ``turn``, which
collects *all* events, queues their fibers, and lets the scheduler run them.

Edge-triggered means that the kernel reports a change once.  So each registration remembers what it last knew:
``readable`` is set by an event and cleared when a read has certainly emptied the receive queue:

- by EAGAIN, always;
- by a read that returned less than was asked for, but only on a TCP socket, and only while none of RDHUP,
  HUP, ERR and PRI was ever seen.  (Data and a FIN that arrive between two polls make one event: the short read
  takes the data, and nothing would ever report the FIN.  Datagrams, passed descriptors and out-of-band data
  are reasons of their own.)

Room to write is watched for from the first send that found none, and from then on: else every datagram that left
and every read of a Unix socket's peer would wake the loop for nothing.

Invariants
----------
- An event carries an index and a generation, never a pointer: an event that was already collected for a
  descriptor that is closed by now finds another generation and is dropped.
- A registration leaves the set before its descriptor is closed, detached or finalised (a duplicate of the
  descriptor would keep a dead entry alive in the kernel).
- At most one fiber waits in each direction: a second one gets an error at once.
- close wakes whoever waits, with EBADF.
- A forked child closes its copy of the epoll descriptor first and never calls epoll_ctl on it: the set is
  shared with the parent, and so would be the change.

Timers use the same set: one timerfd, armed lazily.  It is set again only for an earlier deadline than the one
it is armed for; a deadline that went away costs one spurious wake-up, not a system call per timeout.  Foreign
threads wake the loop through an eventfd.

Rejected: a second look at the end of a turn (with 100 busy connections the outer epoll_wait and uvloop's callback
are half a percent of the CPU, and an empty look costs a lone connection a system call per request);
``loop.add_reader`` per operation (two epoll_ctl calls each time: a quarter of the throughput); a
switch from inside the event loop's poll phase straight to the fiber (no less CPU, twice the switches);
io_uring (measured: no reliable gain, a loss at 64 KiB); uvloop's timers for the heap's head (whole
milliseconds: rounded down they spin, rounded up they are late).
"""

import errno
import os
import weakref

cimport cython
from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.errno cimport EAGAIN, EEXIST, EINTR, errno as c_errno
from libc.string cimport memset

from .._core.clock cimport NEVER_NS, Clock, deadline_after
from .._core.hub cimport Hub
from .._core.reasons cimport READ, WRITE
from .._core.fiber cimport Dispatcher, FiberCore, Flushable, fiber_here, outside, running_fiber, section
from .._core.scheduler cimport Scheduler

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLPRI, EPOLLERR, EPOLLHUP, EPOLLET

cdef extern from "sys/eventfd.h" nogil:
    int eventfd(unsigned int initval, int flags)
    int EFD_CLOEXEC, EFD_NONBLOCK

cdef extern from "time.h" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int CLOCK_MONOTONIC

cdef extern from "sys/timerfd.h" nogil:
    int timerfd_create(int clockid, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *new_value, itimerspec *old_value)
    int TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME

cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned int socklen_t
    Py_ssize_t c_recv "recv"(int fd, void *buffer, size_t size, int flags)
    Py_ssize_t c_send "send"(int fd, const void *buffer, size_t size, int flags)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
    int SOL_SOCKET, SO_PROTOCOL, SO_TYPE, SOCK_STREAM
    int MSG_DONTWAIT, MSG_NOSIGNAL

cdef extern from "netinet/in.h" nogil:
    int IPPROTO_TCP

cdef extern from "unistd.h" nogil:
    Py_ssize_t c_read "read"(int fd, void *buffer, size_t size)
    Py_ssize_t c_write "write"(int fd, const void *buffer, size_t size)
    int c_close "close"(int fd)

cdef enum:
    # keys of our own descriptors; registrations start behind them
    KEY_EVENT = 0
    KEY_TIMER = 1
    FIRST_KEY = 2
    EVENTS_PER_TURN = 512
    IO_CALLS = 64
    NO_FREE = 0xffffffff

# what every descriptor is watched for; EPOLLOUT comes with its first full send buffer
cdef uint32_t WATCHED = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET

# every poller of this process, for the child of a fork
_pollers = weakref.WeakSet()


@cython.final
cdef class Registration:
    """A descriptor in the poller's set."""

    def __repr__(self) -> str:
        return f"<descriptor {self.fd}{' closed' if self.closed else ''}>"

    def __dealloc__(self):
        if self.poller is not None and not self.closed:
            self.closed = True
            self.poller.unregister(self)

    cdef int on_event(self, uint32_t mask) except -1:
        """The kernel reported a change."""
        # a flush may be the last thing that its output does
        cdef Flushable output
        if mask & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI):
            self.exceptional = True
        if mask & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI):
            self.readable = True
            if self.reader != NULL:
                self.scheduler.wake(<FiberCore>self.reader, None)
        if mask & (EPOLLOUT | EPOLLHUP | EPOLLERR):
            self.writable = True
            output = self.output
            if output is not None:
                output.flush()
            if self.writer != NULL:
                self.scheduler.wake(<FiberCore>self.writer, None)
        return 0

    cdef int watch_output(self) noexcept:
        """A send found no room: have the kernel report when there is some."""
        self.writable = False
        if not self.watches_output and self.poller.open:
            self.watches_output = True
            # reports at once if there is room by now
            epoll_ctl(
                self.poller.epoll_fd, EPOLL_CTL_MOD, self.fd,
                _event(WATCHED | EPOLLOUT, self.poller.key_of(self.index)),
            )
        return 0

    # -- before each operation

    cdef int pace(self, FiberCore me) except -1:
        """Law 5: after 64 operations without a suspension the others go first."""
        cdef Dispatcher s = self.scheduler
        if me.scheduler is not s:
            raise RuntimeError(f"{self.describe()} belongs to another event loop")
        s.io_calls += 1
        if s.io_calls > IO_CALLS:
            s.io_calls = 0
            s.yield_now(me)
        return 0

    cdef int begin_io(self, FiberCore me) except -1:
        """Before each operation: pace it, and see whether the descriptor is open."""
        self.pace(me)
        if self.closed:
            self.raise_closed()
        return 0

    cdef int claim_reading(self) except -1:
        """Nobody else may read.

        Not only when this one would wait: which of two readers gets what must not depend on timing.
        """
        if self.reader != NULL:
            raise RuntimeError(
                f"{<FiberCore>self.reader!r} is reading from {self.describe()} already; "
                "let one fiber read, or guard the reads with a Lock"
            )
        return 0

    cdef int begin_read(self, FiberCore me) except -1:
        """``begin_io``, and nobody else may read."""
        self.begin_io(me)
        return self.claim_reading()

    cdef int begin_write(self, FiberCore me) except -1:
        """``begin_io``, and nobody else may write."""
        self.begin_io(me)
        if self.writer != NULL:
            raise RuntimeError(
                f"{<FiberCore>self.writer!r} is writing to {self.describe()} already; "
                "let one fiber write, or guard the writes with a Lock"
            )
        return 0

    cdef long long deadline(self, long long timeout_ns) noexcept:
        """The point in time ``timeout_ns`` from now; asked for only when a fiber must wait."""
        if timeout_ns == NEVER_NS:
            return NEVER_NS
        return self.scheduler.clock.now_ns() + timeout_ns

    def describe(self) -> str:
        """What reports call it."""
        return repr(self if self.owner == NULL else <object>self.owner)

    cdef bint is_stream(self) noexcept:
        """Is it a stream socket?"""
        cdef int value = 0
        cdef socklen_t size = sizeof(value)
        return getsockopt(self.fd, SOL_SOCKET, SO_TYPE, &value, &size) == 0 and value == SOCK_STREAM

    def raise_closed(self):
        raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: descriptor {self.fd} was closed meanwhile")

    # -- waiting

    cdef int park_reader(self, FiberCore me, long long deadline_ns) except -1:
        """Park until the kernel reports something to read (or an end, or an error), or ``close``."""
        # it must outlive the wait, for the report of a timeout
        cdef object named = self if self.owner == NULL else <object>self.owner
        if self.closed:
            return 0
        self.reader = <PyObject *>me
        try:
            self.scheduler.park(me, NULL, READ, <PyObject *>named, deadline_ns)
        finally:
            self.reader = NULL
        return 0

    cdef int park_writer(self, FiberCore me, long long deadline_ns) except -1:
        """Park until the kernel reports room to write (or an error), or ``close``."""
        cdef object named = self if self.owner == NULL else <object>self.owner
        if self.closed:
            return 0
        self.watch_output()
        self.writer = <PyObject *>me
        try:
            self.scheduler.park(me, NULL, WRITE, <PyObject *>named, deadline_ns)
        finally:
            self.writer = NULL
        return 0

    cdef int wait_readable(self, FiberCore me, long long deadline_ns) except -1:
        """``park_reader``; EBADF if the descriptor was closed meanwhile."""
        self.park_reader(me, deadline_ns)
        if self.closed:
            self.raise_closed()
        return 0

    cdef int wait_writable(self, FiberCore me, long long deadline_ns) except -1:
        """``park_writer``; EBADF if the descriptor was closed meanwhile."""
        self.park_writer(me, deadline_ns)
        if self.closed:
            self.raise_closed()
        return 0

    # -- without waiting

    cdef Py_ssize_t recv_now(self, char *buffer, Py_ssize_t size, int flags) noexcept:
        """recv(2) without waiting: the number of bytes (0 at the end), or minus the error's number."""
        cdef Py_ssize_t got
        if not self.readable:
            return -EAGAIN
        while True:
            got = c_recv(self.fd, buffer, size, flags | MSG_DONTWAIT)
            if got >= 0:
                if got < size and got > 0 and self.short_read_empties and not self.exceptional and not flags:
                    self.readable = False
                return got
            if c_errno == EAGAIN:
                self.readable = False
                return -EAGAIN
            if c_errno != EINTR:
                return -c_errno

    cdef Py_ssize_t send_now(self, const char *buffer, Py_ssize_t size, int flags) noexcept:
        """send(2) without waiting: the number of bytes, or minus the error's number."""
        cdef Py_ssize_t sent
        if not self.writable:
            return -EAGAIN
        while True:
            sent = c_send(self.fd, buffer, size, flags | MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent >= 0:
                return sent
            if c_errno == EAGAIN:
                self.watch_output()
                return -EAGAIN
            if c_errno != EINTR:
                return -c_errno

    # -- operations that park the fiber

    cdef Py_ssize_t recv(self, FiberCore me, char *buffer, Py_ssize_t size, int flags,
                         long long timeout_ns) except -1:
        """recv(2): the number of bytes, 0 at the end.  Nothing runs between the read and the return, so that
        ``buffer`` may be the poller's scratch."""
        cdef Py_ssize_t got
        cdef long long deadline = 0
        self.begin_read(me)
        while True:
            got = self.recv_now(buffer, size, flags)
            if got >= 0:
                return got
            if got != -EAGAIN:
                raise_errno(-got)
            if deadline == 0:
                deadline = self.deadline(timeout_ns)
            self.wait_readable(me, deadline)

    cdef Py_ssize_t send(self, FiberCore me, const char *buffer, Py_ssize_t size, int flags,
                         long long timeout_ns) except -1:
        """send(2): waits until there is room for at least one byte; returns how many were taken."""
        cdef Py_ssize_t sent
        cdef long long deadline = 0
        self.begin_write(me)
        while True:
            sent = self.send_now(buffer, size, flags)
            if sent >= 0:
                return sent
            if sent != -EAGAIN:
                raise_errno(-sent)
            if deadline == 0:
                deadline = self.deadline(timeout_ns)
            self.wait_writable(me, deadline)

    cdef int send_all(self, FiberCore me, const char *buffer, Py_ssize_t size, int flags,
                      long long timeout_ns) except -1:
        """send(2) until everything is sent; what was sent before an error is not reported."""
        cdef Py_ssize_t sent
        cdef long long deadline = 0
        self.begin_write(me)
        while True:
            sent = self.send_now(buffer, size, flags)
            if sent == size:
                return 0
            if sent >= 0:
                buffer += sent
                size -= sent
                continue
            if sent != -EAGAIN:
                raise_errno(-sent)
            if deadline == 0:
                deadline = self.deadline(timeout_ns)
            self.wait_writable(me, deadline)

    # -- the end

    cdef int close(self) except -1:
        """Leave the set, before the descriptor is closed: wakes whoever waits."""
        if self.closed:
            return 0
        self.closed = True
        self.poller.unregister(self)
        self.output = None
        self.owner = NULL
        if self.reader != NULL:
            self.scheduler.wake(<FiberCore>self.reader, None)
        if self.writer != NULL:
            self.scheduler.wake(<FiberCore>self.writer, None)
        return 0


cdef int raise_errno(int number) except -1:
    """Raise OSError, or its subclass for this number."""
    raise OSError(number, os.strerror(number))


cdef class Poller:
    """The epoll set of one scheduler, watched by one event loop."""

    def __init__(self, Scheduler scheduler not None, loop):
        self.scheduler = scheduler
        self.loop = loop
        self.armed_ns = NEVER_NS
        self.by_fd = {}
        self.lingering = set()
        self.first_free = NO_FREE
        self.epoll_fd = self.event_fd = self.timer_fd = -1
        self.scratch = <char *>PyMem_Malloc(SCRATCH_SIZE)
        if self.scratch == NULL:
            raise MemoryError()
        self.epoll_fd = _checked(epoll_create1(EPOLL_CLOEXEC))
        self.event_fd = _checked(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
        self.timer_fd = _checked(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK))
        self.open = True
        _checked(epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, self.event_fd, _event(EPOLLIN | EPOLLET, KEY_EVENT)))
        _checked(epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, self.timer_fd, _event(EPOLLIN | EPOLLET, KEY_TIMER)))
        _pollers.add(self)

    def __dealloc__(self):
        PyMem_Free(self.table)
        PyMem_Free(self.scratch)
        self.abandon()

    # -- registrations

    cdef Registration register(self, int fd):
        """Put a descriptor into the set.

        Errors: RuntimeError if it is in there already; OSError (EPERM) for a descriptor that epoll cannot
        watch, for example a regular file.
        """
        cdef Registration r
        cdef uint32_t index
        if not self.open:
            raise RuntimeError("the event loop is closed, or belongs to the parent of this process")
        if self.first_free == NO_FREE:
            self.grow()
        index = self.first_free
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, fd, _event(WATCHED, self.key_of(index))) < 0:
            if c_errno == EEXIST and fd in self.by_fd:
                raise RuntimeError(f"descriptor {fd} is registered already: by {self.find(fd).describe()}")
            PyErr_SetFromErrno(OSError)
        if fd in self.by_fd:
            # closed behind our back (os.close), and the number came again: the kernel had dropped the old one
            self.disown(self.find(fd))
            index = self.first_free
            _checked(epoll_ctl(self.epoll_fd, EPOLL_CTL_MOD, fd, _event(WATCHED, self.key_of(index))))
        r = Registration.__new__(Registration)
        r.fd = fd
        r.scheduler = self.scheduler
        r.poller = self
        r.index = index
        r.readable = r.writable = True
        r.short_read_empties = _is_tcp(fd)
        self.first_free = <uint32_t><size_t>self.table[index].registration
        self.table[index].registration = <PyObject *>r
        self.by_fd[fd] = index
        self.registered += 1
        return r

    cdef uint64_t key_of(self, uint32_t index) noexcept:
        """What events of this table entry carry."""
        return <uint64_t>self.table[index].generation << 32 | (index + FIRST_KEY)

    cdef Registration find(self, int fd):
        """The registration of a descriptor, or None."""
        cdef object index = self.by_fd.get(fd)
        return None if index is None else <Registration>self.table[<uint32_t>index].registration

    cdef int unregister(self, Registration r) except -1:
        if not self.open or self.table[r.index].registration != <PyObject *>r:
            return 0
        epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, r.fd, NULL)
        self.table[r.index].generation += 1
        self.table[r.index].registration = <PyObject *><size_t>self.first_free
        self.first_free = r.index
        self.by_fd.pop(r.fd, None)
        self.registered -= 1
        return 0

    cdef int disown(self, Registration r) except -1:
        """Drop a registration whose descriptor somebody else closed; whoever waits for it gets EBADF."""
        cdef int fd = r.fd
        r.fd = -1
        r.close()
        self.by_fd.pop(fd, None)
        return 0

    cdef int grow(self) except -1:
        cdef uint32_t capacity = self.capacity * 2 if self.capacity else 64
        cdef uint32_t i
        cdef Entry *table = <Entry *>PyMem_Realloc(self.table, capacity * sizeof(Entry))
        if table == NULL:
            raise MemoryError()
        for i in range(self.capacity, capacity):
            table[i].generation = 0
            table[i].registration = <PyObject *><size_t>(i + 1 if i + 1 < capacity else NO_FREE)
        self.first_free = self.capacity
        self.table = table
        self.capacity = capacity
        return 0

    # -- timers and wake-ups

    cdef int arm(self, long long deadline_ns) except -1:
        """See to it that ``turn`` is called at this time at the latest; an earlier setting stays."""
        cdef itimerspec setting
        if deadline_ns >= self.armed_ns or not self.open or type(self.scheduler.clock) is not Clock:
            return 0
        if deadline_ns <= 0:
            deadline_ns = 1  # zero would disarm it
        memset(&setting, 0, sizeof(setting))
        setting.it_value.tv_sec = deadline_ns // 1_000_000_000
        setting.it_value.tv_nsec = deadline_ns % 1_000_000_000
        _checked(timerfd_settime(self.timer_fd, TFD_TIMER_ABSTIME, &setting, NULL))
        self.armed_ns = deadline_ns
        return 0

    cdef int wake(self) except -1:
        """Make the loop call ``turn``, from any thread."""
        cdef uint64_t one = 1
        if self.open:
            c_write(self.event_fd, &one, sizeof(one))
        return 0

    # -- the turn

    cdef int collect(self) except -1:
        """Take what the kernel reports, and queue the fibers that waited for it; returns how much it was."""
        cdef epoll_event events[EVENTS_PER_TURN]
        cdef uint64_t key, count
        cdef uint32_t index
        cdef int i, n
        cdef Registration r
        n = epoll_wait(self.epoll_fd, events, EVENTS_PER_TURN, 0)
        if n < 0:
            if c_errno == EINTR:
                return 0
            PyErr_SetFromErrno(OSError)
        self.turns += 1
        self.events += n
        for i in range(n):
            key = events[i].data.u64
            index = <uint32_t>key
            if index >= FIRST_KEY:
                index -= FIRST_KEY
                if self.table[index].generation == <uint32_t>(key >> 32):
                    # held: its output may be done with it
                    r = <Registration>self.table[index].registration
                    r.on_event(events[i].events)
            elif index == KEY_EVENT:
                c_read(self.event_fd, &count, sizeof(count))
                self.scheduler.slot.noted = False
            else:
                self.armed_ns = NEVER_NS
        if self.scheduler.instruments is not None:
            self.scheduler.instruments.emit("polled", n)
        return n

    def turn(self) -> None:
        """One batch: collect every event, then run fibers.  uvloop calls it when the set has something."""
        self.collect()
        self.scheduler.drain()

    # -- the end

    def close_descriptors(self) -> None:
        """Close the set; registrations that are left are dead from here on."""
        cdef object index
        self.abandon()
        # what is not sent by now is lost, and the writers say so when they are collected
        for index in self.by_fd.values():
            (<Registration>self.table[<uint32_t>index].registration).output = None
        self.lingering.clear()

    cdef int abandon(self) except -1:
        """Close the descriptors, and do nothing else: in a forked child they are the parent's, too."""
        if self.open:
            self.open = False
            for fd in (self.epoll_fd, self.event_fd, self.timer_fd):
                if fd >= 0:
                    c_close(fd)
        return 0

    def statistics(self) -> dict:
        """Registered descriptors now; turns and events since the poller was made."""
        return {"registered": self.registered, "turns": self.turns, "events": self.events}


cdef inline int _checked(int result) except -1:
    if result < 0:
        PyErr_SetFromErrno(OSError)
    return result


cdef epoll_event _setting


cdef epoll_event *_event(uint32_t events, uint64_t key) noexcept:
    """An argument for epoll_ctl."""
    _setting.events = events
    _setting.data.u64 = key
    return &_setting


cdef bint _is_tcp(int fd) noexcept:
    """Is it a TCP socket?  (Not: "a stream socket of the internet families", for SCTP and MPTCP are that too.)"""
    cdef int value = 0
    cdef socklen_t size = sizeof(value)
    return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &size) == 0 and value == IPPROTO_TCP


cdef class PollingHub(Hub):
    """A hub that has a poller: what the sockets need of the event loop."""

    cdef int refuse_io(self) except -1:
        """Somebody wants to do I/O on a loop without a poller."""
        raise RuntimeError(f"{self.loop!r} does no I/O")


cdef Poller poller_of(Dispatcher scheduler):
    cdef PollingHub hub = <PollingHub>scheduler.hub
    if hub.poller is None:
        hub.refuse_io()
    return hub.poller


def require_io() -> None:
    """RuntimeError (RealIOError in a controlled run) if the loop of the running fiber does no I/O."""
    cdef PyObject *p = fiber_here()
    if p != NULL:
        poller_of((<FiberCore>p).scheduler)


def _wait(fd, timeout, bint reading, str caller):
    cdef section here = outside()
    cdef FiberCore me = running_fiber(caller, &here.worker, None)
    cdef Poller poller = poller_of(me.scheduler)
    cdef Registration r
    cdef long long deadline = deadline_after(me.scheduler.clock, timeout)
    cdef int number = fd if isinstance(fd, int) else fd.fileno()
    if number < 0:
        raise ValueError(f"{fd!r} is closed: it has no descriptor to wait for")
    r = poller.find(number)
    if r is None:
        try:
            r = poller.register(number)
        except PermissionError:
            return  # a regular file: always ready
        r.borrowed = True
        r.lender = fd
        r.owner = <PyObject *>fd
    elif not r.borrowed:
        # one of our own sockets: what it knows may be stale by design, so ask the kernel
        _wait_registered(r, me, deadline, reading)
        return
    r.borrowers += 1
    try:
        _wait_registered(r, me, deadline, reading)
    finally:
        r.borrowers -= 1
        if r.borrowers == 0:
            r.close()


cdef int _wait_registered(Registration r, FiberCore me, long long deadline, bint reading) except -1:
    if reading:
        r.begin_read(me)
    else:
        r.begin_write(me)
    while not descriptor_ready(r.fd, reading):
        if reading:
            r.wait_readable(me, deadline)
        else:
            r.wait_writable(me, deadline)
    return 0


cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll"(pollfd *fds, unsigned long nfds, int timeout)
    short POLLIN, POLLOUT


cdef bint descriptor_ready(int fd, bint reading) noexcept:
    """Ask the kernel, without waiting."""
    cdef pollfd entry
    entry.fd = fd
    entry.events = POLLIN if reading else POLLOUT
    entry.revents = 0
    return c_poll(&entry, 1, 0) > 0


def wait_readable(fd, timeout=None) -> None:
    """Block the calling fiber until ``fd`` (a number, or an object with ``fileno()``) is readable.

    ``timeout`` in seconds ends the wait with TimeoutError.  A regular file is always ready.  Errors:
    CancelledError, NotInFiber; RuntimeError if another fiber waits for the same; OSError (EBADF) when a
    swapco socket is closed meanwhile.
    """
    _wait(fd, timeout, True, "wait_readable")


def wait_writable(fd, timeout=None) -> None:
    """Block the calling fiber until ``fd`` is writable; otherwise as ``wait_readable``."""
    _wait(fd, timeout, False, "wait_writable")


def _after_fork_in_child() -> None:
    cdef Poller poller
    for poller in list(_pollers):
        poller.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
