"""``StreamWriter``: output is collected, and goes out in one send before the fiber gives the CPU away.

Theory
------
A server that answers sixteen pipelined requests writes sixteen times and blocks once.  Sixteen sends cost four
times the CPU of one.  So ``write`` only collects and marks the writer dirty; the scheduler flushes every dirty
writer before the running fiber blocks, yields, ends or hands its slot over, and at the end of the turn for
writes from loop callbacks.  From 64 KiB on, a write sends at once.  No answer is delayed by it: nobody else runs
between the write and the flush.

``drain`` below the high-water mark neither sends nor blocks; above it, it sends and parks until the rest is below
the low-water mark.

A flush never raises, for it happens in the middle of something else.  A send that fails ends the connection, as
in asyncio: the error is stored and comes out of this writer's next ``write``, ``drain`` or ``wait_closed`` and of
its reader's next read.

What the kernel did not take goes out when the poller reports room.  While something is left the poller holds the
writer: a program may close and forget it.

A writer is its own ``transport``: the few transport methods that programs use on one are here.

Invariants
----------
- ``chunk`` (a bytes object written into an empty writer: not copied) and the queue are never both in use.
- ``registration.output`` is the writer if and only if something is left that the kernel had no room for.
- The descriptor is closed once, by ``finish``, and nothing is sent after it.

Rejected: a timer that waits for more (Nagle's delay again); MSG_MORE and TCP_CORK (a system call per write
remains); sendmsg of a list of buffers (an entry costs the kernel more than the copy of a small answer).
"""

import os
import socket as _stdlib
import warnings

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject

from .._core.clock cimport NEVER_NS
from .._core.fiber cimport FiberCore, Flushable, WaitQueue, enter, outside, running_fiber, section
from .._core.reasons cimport WRITE
from .._loop.poller cimport Registration
from ..socket cimport registration_of
from .byte_queue cimport *
from .reader cimport reader_of

cdef extern from "errno.h" nogil:
    enum:
        EAGAIN
        EBADF

cdef enum:
    HIGH_WATER = 65536
    # from here on a write sends at once
    COLLECT_BYTES = 65536

cdef object _SHUT_WR = _stdlib.SHUT_WR


cdef class StreamWriter(Flushable):
    """Writes bytes to a connection; made by ``open_connection`` and ``start_server``.

    ``write`` never blocks: what was written goes out before the fiber blocks, ends, or has collected 64 KiB.
    ``drain`` blocks while the peer is slower than the writer.  A connection that failed makes the next ``write``,
    ``drain`` or ``wait_closed`` raise the OSError.  As a context manager, closes the connection at the end.
    """

    def __init__(self, *args, **kwargs):
        raise TypeError("a StreamWriter is made by open_connection() or start_server(), not by hand")

    def __dealloc__(self):
        bytes_free(&self.queue)

    def __del__(self):
        if self.closed or self.registration is None:
            return
        words = repr(self)
        if self.registration.poller.open:
            self.close()
            warnings.warn(f"unclosed {words}", ResourceWarning, source=self)
        else:
            self.abort()
            warnings.warn(f"the event loop was closed before {words}", ResourceWarning, source=self)

    def _buffer_size(self) -> int:
        """How much memory is held for what is collected and not sent, in bytes: for tests."""
        return self.queue.capacity

    def __repr__(self) -> str:
        words = ["StreamWriter", "closed" if self.closed else "closing" if self.closing else "open"]
        if self.registration is not None:
            words.append(f"descriptor={self.registration.fd}")
        if self.peer_name:
            words.append(f"peer={self.peer_name!r}")
        if self.pending():
            words.append(f"{self.pending()} bytes to send")
        if self.error is not None:
            words.append(f"exception={self.error!r}")
        return f"<{' '.join(words)}>"

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.close()

    # -- writing

    def write(self, data) -> None:
        """Collect ``data`` to be sent.  Never blocks.

        Errors: the OSError of an earlier send; RuntimeError after ``close`` or ``write_eof``.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        cdef Py_buffer view
        if self.error is not None:
            raise self.error
        if self.closing or self.eof_wanted:
            raise RuntimeError(
                f"Cannot call write() after {'close()' if self.closing else 'write_eof()'}: {self!r}"
            )
        if type(data) is bytes:
            if self.chunk is None and bytes_in(&self.queue) == 0:
                if len(<bytes>data) == 0:
                    return
                self.chunk = <bytes>data
                self.chunk_sent = 0
            else:
                self.collect(PyBytes_AS_STRING(data), len(<bytes>data))
        else:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            try:
                self.collect(<const char *>view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        if not self.flush_pending:
            self.registration.scheduler.mark_dirty(self)
        if self.pending() >= COLLECT_BYTES:
            self.flush()

    cdef int collect(self, const char *data, Py_ssize_t size) except -1:
        cdef bytes chunk = self.chunk
        if chunk is not None:
            bytes_reserve(&self.queue, len(chunk) - self.chunk_sent + size)
            bytes_push(&self.queue, PyBytes_AS_STRING(chunk) + self.chunk_sent, len(chunk) - self.chunk_sent)
            self.chunk = None
        return bytes_push(&self.queue, data, size)

    def writelines(self, data) -> None:
        """Collect every item of an iterable of bytes-like objects.  Never blocks."""
        self.write(b"".join(data))

    cdef Py_ssize_t pending(self) noexcept:
        if self.chunk is not None:
            return len(<bytes>self.chunk) - self.chunk_sent
        return bytes_in(&self.queue)

    # -- sending

    cdef int flush(self) except -1:
        """Send what is collected; what does not fit goes out later.  Never raises: errors are stored."""
        try:
            self.send_pending()
        except BaseException as error:  # no memory for bookkeeping, say
            self.fail(error)
        return 0

    cdef int send_pending(self) except -1:
        cdef Registration r = self.registration
        cdef Py_ssize_t sent, size = self.pending()
        if self.closed:
            return 0
        while size:
            if r.closed:
                sent = -EBADF  # somebody closed the socket itself
            elif self.chunk is not None:
                sent = r.send_now(PyBytes_AS_STRING(self.chunk) + self.chunk_sent, size, 0)
            else:
                sent = r.send_now(bytes_front(&self.queue), size, 0)
            if sent == -EAGAIN:
                return self.linger()
            if sent < 0:
                return self.fail(OSError(-sent, os.strerror(-sent)))
            size -= sent
            if self.chunk is None:
                bytes_drop(&self.queue, sent)
            elif size:
                self.chunk_sent += sent
            else:
                self.chunk = None
        return self.settle()

    cdef int linger(self) except -1:
        """The kernel has no room: go on when it has."""
        if not self.lingering:
            self.lingering = True
            self.registration.output = self
            self.registration.poller.lingering.add(self)
        if self.drainers.head != NULL and self.pending() <= self.low_water:
            self.wake(&self.drainers)
        return 0

    cdef int settle(self) except -1:
        """Everything is sent: do what waited for that."""
        if self.lingering:
            self.lingering = False
            self.registration.output = None
            self.registration.poller.lingering.discard(self)
        if self.drainers.head != NULL:
            self.wake(&self.drainers)
        if self.eof_wanted and not self.eof_sent:
            self.eof_sent = True
            try:
                self.sock.shutdown(_SHUT_WR)
            except OSError as error:
                return self.fail(error)
        if self.closing:
            self.finish()
        return 0

    cdef int fail(self, object error) except -1:
        """The connection is lost."""
        self.error = error
        self.closing = True
        if self.reader.error is None:
            self.reader.error = error
        return self.finish()

    cdef int finish(self) except -1:
        """Close the descriptor and wake everybody."""
        cdef Registration r = self.registration
        if self.closed:
            return 0
        self.closed = True
        self.chunk = None
        bytes_free(&self.queue)
        if self.own_name is None:
            self.own_name = _name(self.sock.getsockname)
        if self.peer_name is None:
            self.peer_name = _name(self.sock.getpeername)
        r.output = None
        if self.lingering:
            self.lingering = False
            r.poller.lingering.discard(self)
        self.reader.end_of_stream()
        try:
            self.sock.close()
        except OSError as error:
            if self.error is None:
                self.error = error
        self.wake(&self.drainers)
        self.wake(&self.closers)
        return 0

    cdef int wake(self, WaitQueue *queue) except -1:
        if queue.head != NULL:
            (<FiberCore>queue.head).scheduler.wake_all(queue, None)
        return 0

    def drain(self) -> None:
        """Block the calling fiber while more than 64 KiB wait to be sent, until it is less than 16 KiB.

        Below that it returns at once, and sends nothing either.  Errors: the OSError of an earlier send or read;
        ConnectionResetError once the connection is closed; CancelledError; NotInFiber.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("StreamWriter.drain", &here.worker, self)
        if self.reader.error is not None:
            raise self.reader.error
        if self.closing:
            me.scheduler.yield_now(me)
        elif self.pending() > self.high_water:
            self.flush()
            while self.pending() > self.low_water and not self.closed:
                me.scheduler.park(me, &self.drainers, WRITE, <PyObject *>self, NEVER_NS)
        if self.error is not None:
            raise self.error
        if self.closed:
            raise ConnectionResetError("Connection lost")

    # -- the end

    def can_write_eof(self) -> bool:
        """True: every stream of this release can be half-closed."""
        return True

    def write_eof(self) -> None:
        """Send what is collected, then the end of the stream; reading goes on.  Never blocks."""
        cdef section here = outside()
        enter(&here.worker, self)
        if self.eof_wanted or self.closing:
            return
        self.eof_wanted = True
        self.flush()

    def close(self) -> None:
        """Send what is collected, and close the connection; what does not fit is sent in the background.

        Never blocks: ``wait_closed`` does.  A fiber that reads from it sees the end of the stream.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        if self.closing:
            return
        self.closing = True
        self.reader.end_of_stream()
        self.flush()

    def abort(self) -> None:
        """Close the connection now; what is not sent yet is dropped.  Never blocks."""
        cdef section here = outside()
        enter(&here.worker, self)
        self.closing = True
        self.finish()

    def is_closing(self) -> bool:
        """True once ``close`` was called or the connection failed."""
        return self.closing

    def wait_closed(self) -> None:
        """Block the calling fiber until the connection is closed; raise the OSError that it failed with."""
        cdef section here = outside()
        cdef FiberCore me = running_fiber("StreamWriter.wait_closed", &here.worker, self)
        while not self.closed:
            me.scheduler.park(me, &self.closers, WRITE, <PyObject *>self, NEVER_NS)
        if self.error is not None:
            raise self.error
        if self.reader.failed:
            raise self.reader.error

    # -- what programs ask of a transport

    @property
    def transport(self):
        """The writer itself: it has the methods of a transport that programs use."""
        return self

    def get_extra_info(self, name, default=None):
        """``"socket"``, ``"peername"`` or ``"sockname"``; ``default`` for anything else.  Does not block."""
        if name == "socket":
            return self.sock
        if name == "peername":
            if self.peer_name is None:
                self.peer_name = _name(self.sock.getpeername)
            return default if self.peer_name is None else self.peer_name
        if name == "sockname":
            if self.own_name is None:
                self.own_name = _name(self.sock.getsockname)
            return default if self.own_name is None else self.own_name
        return default

    def get_write_buffer_size(self) -> int:
        """How many bytes are not sent yet."""
        return self.pending()

    def get_write_buffer_limits(self) -> tuple:
        """The low- and the high-water mark of ``drain``, in bytes."""
        return self.low_water, self.high_water

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        """Set the high- and the low-water mark of ``drain``, in bytes (64 KiB, and a quarter of the high one)."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high_water = high
        self.low_water = low


cdef object _name(object method):
    try:
        return method()
    except OSError:
        return None


def connect_streams(sock, limit, peer_name=None) -> tuple:
    """A reader and a writer for a connected cooperative socket, which is the writer's from now on."""
    cdef section here = outside()
    cdef FiberCore me = running_fiber("open_connection", &here.worker, None)
    cdef StreamWriter writer = StreamWriter.__new__(StreamWriter)
    cdef Registration registration = registration_of(sock, me)
    writer.high_water = HIGH_WATER
    writer.low_water = HIGH_WATER // 4
    writer.reader = reader_of(registration, limit)
    writer.sock = sock
    writer.peer_name = peer_name
    writer.registration = registration
    return writer.reader, writer
