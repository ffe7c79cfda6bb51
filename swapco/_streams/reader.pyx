"""``StreamReader``: what asyncio's does, pulled instead of fed.

Theory
------
asyncio's reader is fed by a transport whether or not anybody reads, and pauses it at twice the limit.  This one
receives when somebody reads and there is not enough in its queue: backpressure is the kernel's, and an idle
connection holds no memory.  ``read`` with an empty queue returns what one recv gave, by one copy out of the
poller's scratch buffer; everything else goes through the queue.

``feed_data``, ``feed_eof`` and ``set_exception`` are there as well: a reader without a connection is fed by
hand.

The end of the stream is known once a recv has returned nothing; ``at_eof`` looks, without waiting, so that it
answers as asyncio's does.  After the writer's ``close`` readers see the end, as in asyncio; a failed recv or
send is an error that every later read raises.

Invariants
----------
- What was received and not returned is in the queue: a cancelled read loses nothing.
- The scratch buffer is never in use across a suspension; the queue's memory may move in one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.string cimport memchr

from .._core.clock cimport NEVER_NS
from .._core.fiber cimport FiberCore, enter, outside, running_fiber, section
from .._core.reasons cimport READ
from .._loop.poller cimport SCRATCH_SIZE, Registration
from .byte_queue cimport *

import os

from .._core.errors import IncompleteReadError, LimitOverrunError

cdef extern from "errno.h" nogil:
    enum:
        EAGAIN

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <string.h>
    extern void *memmem(const void *, size_t, const void *, size_t);
    """
    void *memmem(const void *haystack, size_t size, const void *needle, size_t needle_size) nogil

cdef enum:
    DEFAULT_LIMIT = 65536
    # what is received at a time when nobody said how much
    READ_BYTES = 65536
    # from here on bytes are received into the queue's own memory, not copied out of the scratch buffer
    DIRECT_BYTES = 32768

cdef tuple _NEWLINE = (b"\n",)


cdef class StreamReader:
    """Reads bytes from a connection; made by ``open_connection`` and ``start_server``.

    One made by hand reads what ``feed_data`` gives it.  ``limit`` (bytes) is the longest line that ``readline``
    and ``readuntil`` return.  Reading blocks the calling fiber until there is enough; one fiber at a time may
    wait.  Every method that blocks raises CancelledError when the fiber is cancelled (nothing is lost: the next
    read has it), NotInFiber outside a fiber, and OSError when the connection has failed.
    """

    def __init__(self, limit=DEFAULT_LIMIT, loop=None):
        if limit <= 0:
            raise ValueError("Limit cannot be <= 0")
        self._limit = limit

    def __dealloc__(self):
        bytes_free(&self.queue)

    def _buffer_size(self) -> int:
        """How much memory is held for what is received and not read, in bytes: for tests."""
        return self.queue.capacity

    def __repr__(self) -> str:
        words = ["StreamReader"]
        if bytes_in(&self.queue):
            words.append(f"{bytes_in(&self.queue)} bytes")
        if self.eof:
            words.append("eof")
        if self._limit != DEFAULT_LIMIT:
            words.append(f"limit={self._limit}")
        if self.error is not None:
            words.append(f"exception={self.error!r}")
        if self.registration is not None:
            words.append(f"descriptor={self.registration.fd}")
        return f"<{' '.join(words)}>"

    # -- from outside

    def exception(self):
        """What every read raises from now on, or None.  Does not block."""
        return self.error

    def set_exception(self, exc) -> None:
        """Have every read raise ``exc``, also one that waits now.  Does not block."""
        cdef section here = outside()
        enter(&here.worker, self)
        self.error = exc
        self.wake()

    def feed_data(self, data) -> None:
        """Append ``data`` to what can be read.  Does not block."""
        cdef section here = outside()
        enter(&here.worker, self)
        cdef const unsigned char[::1] view
        if self.eof:
            raise AssertionError("feed_data after feed_eof")
        if len(data):
            view = data
            bytes_push(&self.queue, <const char *>&view[0], view.shape[0])
            self.wake()

    def feed_eof(self) -> None:
        """Nothing comes any more.  Does not block."""
        cdef section here = outside()
        enter(&here.worker, self)
        self.end_of_stream()

    def at_eof(self) -> bool:
        """True if everything was read and nothing comes any more.  Does not block."""
        cdef section here = outside()
        enter(&here.worker, self)
        cdef Py_ssize_t got
        cdef Registration r = self.registration
        if bytes_in(&self.queue):
            return False
        if not self.eof and r is not None and r.readable and r.reader == NULL and not r.closed:
            got = r.recv_now(r.poller.scratch, READ_BYTES, 0)
            if got == 0:
                self.eof = True
            elif got > 0:
                bytes_push(&self.queue, r.poller.scratch, got)
            elif got != -EAGAIN:
                self.failed = True
                self.error = OSError(-got, os.strerror(-got))
        return self.eof and not bytes_in(&self.queue)

    cdef int wake(self) except -1:
        """Something changed: the waiting fiber looks again."""
        cdef Registration r = self.registration
        self.feeds += 1
        if r is not None:
            if r.reader != NULL:
                r.scheduler.wake(<FiberCore>r.reader, None)
        elif self.waiters.head != NULL:
            (<FiberCore>self.waiters.head).scheduler.wake_all(&self.waiters, None)
        return 0

    cdef int end_of_stream(self) except -1:
        self.eof = True
        return self.wake()

    cdef int fail(self, Py_ssize_t number) except -1:
        """The connection failed: this read and every later one raises it."""
        self.failed = True
        self.error = OSError(number, os.strerror(number))
        raise self.error

    # -- receiving

    cdef Py_ssize_t receive(self, FiberCore me, char *buffer, Py_ssize_t size, Py_ssize_t reserve) except -2:
        """One recv: how much, or 0 if the stream has ended or something was fed (then the queue has it).

        Into ``buffer``; into the queue's own memory, which may move, if that is NULL.
        """
        cdef Registration r = self.registration
        cdef Py_ssize_t got
        cdef unsigned int feeds = self.feeds
        if r is None:
            self.wait_for_feed(me)
            return 0
        r.pace(me)
        while True:
            if self.error is not None:
                raise self.error
            if self.eof or feeds != self.feeds:
                return 0
            if r.closed:
                r.raise_closed()
            r.claim_reading()
            if buffer != NULL:
                got = r.recv_now(buffer, size, 0)
            else:
                bytes_reserve(&self.queue, reserve)
                got = r.recv_now(self.queue.data + self.queue.end, self.queue.capacity - self.queue.end, 0)
                if got > 0:
                    self.queue.end += got
            if got > 0:
                return got
            if got == 0:
                self.eof = True
                return 0
            if got != -EAGAIN:
                self.fail(-got)
            r.park_reader(me, NEVER_NS)

    cdef int wait_for_feed(self, FiberCore me) except -1:
        if self.waiters.head != NULL:
            raise RuntimeError(
                f"{<FiberCore>self.waiters.head!r} is reading from {self!r} already; "
                "let one fiber read, or guard the reads with a Lock"
            )
        me.scheduler.park(me, &self.waiters, READ, <PyObject *>self, NEVER_NS)
        if self.error is not None:
            raise self.error
        return 0

    cdef int fill(self, FiberCore me, Py_ssize_t wanted) except -1:
        """Wait for more in the queue, or the end.  ``wanted``: how much more is needed, if that is known."""
        cdef Registration r = self.registration
        cdef Py_ssize_t got
        if wanted >= DIRECT_BYTES:
            # as much again as is there already: a peer that promises much must send it before we have the memory
            self.receive(me, NULL, 0, min(wanted, max(<Py_ssize_t>READ_BYTES, bytes_in(&self.queue))))
            return 0
        got = self.receive(me, NULL if r is None else r.poller.scratch, READ_BYTES, 0)
        if got > 0:
            bytes_push(&self.queue, r.poller.scratch, got)
        return 0

    # -- reading

    def read(self, Py_ssize_t n=-1) -> bytes:
        """What there is, up to ``n`` bytes; without ``n`` everything up to the end.  Empty at the end.

        Blocks the fiber until there is at least one byte, or the end.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("StreamReader.read", &here.worker, self)
        cdef Registration r
        cdef Py_ssize_t got
        if self.error is not None:
            raise self.error
        if n == 0:
            return b""
        if n < 0:
            while not self.eof:
                self.fill(me, READ_BYTES)
            return bytes_take(&self.queue, bytes_in(&self.queue))
        r = self.registration
        while not bytes_in(&self.queue):
            if self.eof:
                return b""
            if r is None:
                self.wait_for_feed(me)
            else:
                got = self.receive(me, r.poller.scratch, min(n, <Py_ssize_t>SCRATCH_SIZE), 0)
                if got > 0:
                    return PyBytes_FromStringAndSize(r.poller.scratch, got)
        return bytes_take(&self.queue, min(n, bytes_in(&self.queue)))

    def readexactly(self, Py_ssize_t n) -> bytes:
        """Exactly ``n`` bytes.  Blocks the fiber until they are there.

        IncompleteReadError, whose ``partial`` has what came, if the stream ends before.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("StreamReader.readexactly", &here.worker, self)
        if n < 0:
            raise ValueError("readexactly size can not be less than zero")
        if self.error is not None:
            raise self.error
        if n == 0:
            return b""
        while bytes_in(&self.queue) < n:
            if self.eof:
                raise IncompleteReadError(bytes_take(&self.queue, bytes_in(&self.queue)), n)
            self.fill(me, n - bytes_in(&self.queue))
        return bytes_take(&self.queue, n)

    def readline(self) -> bytes:
        """The next line with its newline; what is left, without one, at the end; then empty.

        Blocks the fiber until the line is complete.  ValueError for a line longer than the limit: the line is
        dropped if it is complete, else what came of it so far.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("StreamReader.readline", &here.worker, self)
        return self.read_line(me)

    cdef object read_line(self, FiberCore me):
        cdef const char *found
        cdef Py_ssize_t size = bytes_in(&self.queue)
        if self.error is None and size:
            # the commonest case by far: it is there
            found = <const char *>memchr(bytes_front(&self.queue), 10, size)
            if found != NULL and found - bytes_front(&self.queue) <= self._limit:
                return bytes_take(&self.queue, found - bytes_front(&self.queue) + 1)
        try:
            return self.read_until(me, _NEWLINE)
        except IncompleteReadError as error:
            return error.partial
        except LimitOverrunError as error:
            size = error.consumed
            if bytes_in(&self.queue) > size and bytes_front(&self.queue)[size] == 10:
                bytes_drop(&self.queue, size + 1)
            else:
                bytes_drop(&self.queue, bytes_in(&self.queue))
            raise ValueError(error.args[0])

    def readuntil(self, separator=b"\n") -> bytes:
        """Everything up to ``separator``, and it.  Blocks the fiber until the separator is there.

        ``separator`` may be a tuple of separators: the shortest possible result wins.  Errors:
        IncompleteReadError if the stream ends before; LimitOverrunError if the limit is exceeded (then the data
        can be read again).
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("StreamReader.readuntil", &here.worker, self)
        cdef tuple separators
        if isinstance(separator, tuple):
            separators = tuple(sorted([bytes(one) for one in separator], key=len))
        else:
            separators = (bytes(separator),) if not isinstance(separator, (int, str)) else (separator,)
        if not separators:
            raise ValueError("Separator should contain at least one element")
        if len(separators[0]) == 0:
            raise ValueError("Separator should be at least one-byte string")
        return self.read_until(me, separators)

    cdef object read_until(self, FiberCore me, tuple separators):
        """``separators``: the shortest first."""
        cdef bytes one
        cdef Py_ssize_t shortest = len(<bytes?>separators[0])
        cdef Py_ssize_t longest = len(<bytes?>separators[len(separators) - 1])
        # nothing was found before this
        cdef Py_ssize_t searched = 0
        cdef Py_ssize_t size, end, at, best_end = -1, best = 0
        cdef char *front
        cdef char *found
        if self.error is not None:
            raise self.error
        while True:
            size = bytes_in(&self.queue)
            if size - searched >= shortest:
                front = bytes_front(&self.queue)
                for one in separators:
                    found = <char *>memmem(front + searched, size - searched, PyBytes_AS_STRING(one), len(one))
                    if found != NULL:
                        at = found - front
                        end = at + len(one)
                        if best_end < 0 or end < best_end:
                            best_end = end
                            best = at
                if best_end >= 0:
                    break
                searched = max(<Py_ssize_t>0, size + 1 - longest)
                if searched > self._limit:
                    raise LimitOverrunError("Separator is not found, and chunk exceed the limit", searched)
            if self.eof:
                raise IncompleteReadError(bytes_take(&self.queue, bytes_in(&self.queue)), None)
            self.fill(me, 0)
        if best > self._limit:
            raise LimitOverrunError("Separator is found, but chunk is longer than limit", best)
        return bytes_take(&self.queue, best_end)

    def __iter__(self):
        return self

    def __next__(self) -> bytes:
        """The next line; blocks the fiber.  ``for line in reader`` reads to the end."""
        cdef section here = outside()
        line = self.read_line(running_fiber("StreamReader.__next__", &here.worker, self))
        if not line:
            raise StopIteration
        return line


cdef StreamReader reader_of(Registration registration, Py_ssize_t limit):
    """The reader of a connection."""
    cdef StreamReader reader = StreamReader(limit)
    reader.registration = registration
    return reader
