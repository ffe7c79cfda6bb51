"""``MemoryReader`` and ``MemoryWriter``: streams on an ``End`` instead of a socket.

Theory
------
They are swapco's ``StreamReader`` and ``StreamWriter`` written once more in Python, method for method, so that an error
comes out of the same call and a read returns the same bytes; and subclasses, so that ``isinstance`` says yes.  No
method of the compiled classes that touches a socket is left.  They wait for swapco primitives only: a wait of
theirs is part of what ``Deadlock`` sees.

Two differences from streams on sockets can be seen.  Output is sent by ``write`` itself, not when the fiber gives
the CPU away.  Nobody can run in between, so only a fiber that holds both ends can tell, and who asks for
``get_write_buffer_size``: it counts only what the peer has no room for.  And a thread fiber may use these streams in
a controlled run only: elsewhere it may be detached between any two lines, and there is no lock here that a ``write``,
which never blocks, could take.

Invariants
----------
- What was received and not returned is in the queue: a cancelled or timed out read loses nothing.
- ``end.output`` is the writer if and only if something is left that the peer has no room for.
- A short read inside a method that goes on reading is followed by a turn of the other fibers: the rest came later.

Rejected: a StreamReader fed by ``feed_data`` (no backpressure: a fed reader takes everything).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from .._core.errors import IncompleteReadError, LimitOverrunError
from .._loop.compat import get_running_loop
from .._streams.reader import StreamReader
from .._streams.writer import StreamWriter
from ..tasks import current_fiber, sleep
from .wire import Change, ConnectedSocket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer

    from .wire import End

__all__ = ["MemoryReader", "MemoryWriter", "open_streams"]

#: What one recv of a reader takes when nobody said how much, and when somebody did, at most; in bytes.
READ_BYTES = 65536
LARGEST_READ_BYTES = 262144
#: Law 5: after so many receives without a wait the other fibers go first.
IO_CALLS = 64


# -------------------------------------------------------------------------------------------------- reading


class MemoryReader(StreamReader):
    """A ``StreamReader`` whose bytes come from memory; made by a ``MemoryNetwork`` or ``memory_stream_pair``."""

    def __init__(self, end: End, limit: int) -> None:
        super().__init__(limit)
        self.end = end
        self._queue = bytearray()
        self._eof = False
        self._failed = False
        self._error: BaseException | None = None
        self._feeds = 0
        self._io_calls = 0

    def _buffer_size(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        words = ["MemoryReader", repr(self.end)]
        if self._queue:
            words.append(f"{len(self._queue)} bytes")
        if self._eof:
            words.append("eof")
        if self._error is not None:
            words.append(f"exception={self._error!r}")
        return f"<{' '.join(words)}>"

    # -- from outside

    def exception(self) -> BaseException | None:
        """What every read raises from now on, or None.  Does not block."""
        return self._error

    def set_exception(self, exc: BaseException) -> None:
        """Have every read raise ``exc``, also one that waits now.  Does not block."""
        self._error = exc
        self._wake()

    def feed_data(self, data: ReadableBuffer) -> None:
        """Append ``data`` to what can be read.  Does not block."""
        if self._eof:
            raise AssertionError("feed_data after feed_eof")
        if view := memoryview(data):
            self._queue += view
            self._wake()

    def feed_eof(self) -> None:
        """Nothing comes any more.  Does not block."""
        self._end_of_stream()

    def at_eof(self) -> bool:
        """True if everything was read and nothing comes any more.  Does not block."""
        if self._queue:
            return False
        end = self.end
        if not (self._eof or end.closed or end.reading):
            try:
                got = end.recv(READ_BYTES, whole=True)
            except OSError as error:
                self._failed = True
                self._error = error
            else:
                self._eof = got == b""
                self._queue += got or b""
        return self._eof and not self._queue

    def _wake(self) -> None:
        self._feeds += 1
        self.end.readable.set()

    def _end_of_stream(self) -> None:
        self._eof = True
        self._wake()

    # -- receiving

    def _receive(self, most: int) -> bytes:
        """One recv; empty if the stream has ended or something was fed (then the queue has it)."""
        end = self.end
        feeds = self._feeds
        self._io_calls += 1
        if self._io_calls > IO_CALLS:
            self._io_calls = 0
            sleep(0)
        while True:
            if self._error is not None:
                raise self._error
            if self._eof or feeds != self._feeds:
                return b""
            if end.reading is not None:
                raise RuntimeError(
                    f"{end.reading!r} is reading from {end!r} already; "
                    "let one fiber read, or guard the reads with a Lock"
                )
            end.readable.clear()
            try:
                got = end.recv(most)
            except OSError as error:
                self._failed = True
                self._error = error
                raise
            if got is not None:
                if not got:
                    self._eof = True
                return got
            self._io_calls = 0
            end.reading = current_fiber()
            try:
                end.readable.wait()
            finally:
                end.reading = None

    def _fill(self, most: int = READ_BYTES) -> None:
        """Wait for more in the queue, or the end."""
        self._queue += self._receive(most)
        if self.end.was_short:
            # the rest comes later: else nobody could see that the read was split
            self.end.was_short = False
            sleep(0)

    def _pop(self, size: int) -> bytes:
        taken = bytes(self._queue[:size])
        del self._queue[:size]
        return taken

    # -- reading

    def read(self, n: int = -1) -> bytes:
        """What there is, up to ``n`` bytes; without ``n`` everything up to the end.  Empty at the end.

        Blocks the fiber until there is at least one byte, or the end.
        """
        current_fiber()
        if self._error is not None:
            raise self._error
        if n == 0:
            return b""
        if n < 0:
            while not self._eof:
                self._fill()
            return self._pop(len(self._queue))
        while not self._queue:
            if self._eof:
                return b""
            if got := self._receive(min(n, LARGEST_READ_BYTES)):
                return got
        return self._pop(n)

    def readexactly(self, n: int) -> bytes:
        """Exactly ``n`` bytes; IncompleteReadError, whose ``partial`` has what came, if the stream ends before."""
        current_fiber()
        if n < 0:
            raise ValueError("readexactly size can not be less than zero")
        if self._error is not None:
            raise self._error
        if n == 0:
            return b""
        while len(self._queue) < n:
            if self._eof:
                raise IncompleteReadError(self._pop(len(self._queue)), n)
            self._fill(max(READ_BYTES, min(n - len(self._queue), LARGEST_READ_BYTES)))
        return self._pop(n)

    def readline(self) -> bytes:
        """The next line with its newline; what is left at the end; then empty.  ValueError beyond the limit."""
        current_fiber()
        try:
            return self._read_until((b"\n",))
        except IncompleteReadError as error:
            return error.partial
        except LimitOverrunError as error:
            size = error.consumed
            if self._queue[size : size + 1] == b"\n":
                del self._queue[: size + 1]
            else:
                self._queue.clear()
            raise ValueError(error.args[0])

    def readuntil(self, separator: ReadableBuffer | tuple[ReadableBuffer, ...] = b"\n") -> bytes:
        """Everything up to ``separator`` (or the nearest of a tuple), and it.

        Errors: IncompleteReadError if the stream ends before; LimitOverrunError (then nothing is lost).
        """
        current_fiber()
        if isinstance(separator, tuple):
            separators = tuple(sorted((bytes(one) for one in separator), key=len))
        else:
            separators = (bytes(memoryview(separator)),)
        if not separators:
            raise ValueError("Separator should contain at least one element")
        if not separators[0]:
            raise ValueError("Separator should be at least one-byte string")
        return self._read_until(separators)

    def _read_until(self, separators: tuple[bytes, ...]) -> bytes:
        """``separators``: the shortest first."""
        if self._error is not None:
            raise self._error
        # nothing was found before this
        searched = 0
        while True:
            size = len(self._queue)
            if size - searched >= len(separators[0]):
                found = [(at + len(one), at) for one in separators if (at := self._queue.find(one, searched)) >= 0]
                if found:
                    break
                searched = max(0, size + 1 - len(separators[-1]))
                if searched > self._limit:
                    raise LimitOverrunError("Separator is not found, and chunk exceed the limit", searched)
            if self._eof:
                raise IncompleteReadError(self._pop(len(self._queue)), None)
            self._fill()
        end, start = min(found)
        if start > self._limit:
            raise LimitOverrunError("Separator is found, but chunk is longer than limit", start)
        return self._pop(end)

    def __next__(self) -> bytes:
        """The next line; blocks the fiber.  ``for line in reader`` reads to the end."""
        if line := self.readline():
            return line
        raise StopIteration


# -------------------------------------------------------------------------------------------------- writing


class MemoryWriter(StreamWriter):
    """A ``StreamWriter`` whose bytes go to memory; made by a ``MemoryNetwork`` or ``memory_stream_pair``."""

    def __init__(self, end: End, reader: MemoryReader) -> None:
        self.end = end
        self._reader = reader
        self._buffer = bytearray()
        self._flushing = False
        self._closing = False
        self._closed = False
        self._eof_wanted = False
        self._error: BaseException | None = None
        self._drainers = Change("room to write to", end)
        self._closers = Change("the end of the connection to", end)
        self._socket = ConnectedSocket(end)
        self._loop = get_running_loop()
        self.set_write_buffer_limits()

    def __del__(self) -> None:
        # nobody in a run that is over can see the end of this one
        if self._closed or self._loop is None or get_running_loop() is not self._loop:
            return
        words = repr(self)
        self.close()
        warnings.warn(f"unclosed {words}", ResourceWarning, stacklevel=2, source=self)

    def _buffer_size(self) -> int:
        return len(self._buffer)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "closing" if self._closing else "open"
        words = ["MemoryWriter", state, repr(self.end)]
        if self._buffer:
            words.append(f"{len(self._buffer)} bytes to send")
        if self._error is not None:
            words.append(f"exception={self._error!r}")
        return f"<{' '.join(words)}>"

    # -- writing

    def write(self, data: ReadableBuffer) -> None:
        """Send ``data``, or collect what the peer has no room for.  Never blocks.

        Errors: the OSError of an earlier send; RuntimeError after ``close`` or ``write_eof``.
        """
        if self._error is not None:
            raise self._error
        if self._closing or self._eof_wanted:
            raise RuntimeError(f"Cannot call write() after {'close()' if self._closing else 'write_eof()'}: {self!r}")
        self._buffer += memoryview(data)
        self.flush_now()

    def writelines(self, data: Iterable[ReadableBuffer]) -> None:
        """Send every item of an iterable of bytes-like objects.  Never blocks."""
        self.write(b"".join(data))

    # -- sending

    def flush_now(self) -> None:
        """Send what there is room for.  Never raises: errors are stored."""
        if self._closed or self._flushing:
            return
        self._flushing = True
        try:
            while self._buffer:
                sent = self.end.send(self._buffer)
                if not sent and self.end.error == 0:
                    self.end.output = self
                    if len(self._buffer) <= self.get_write_buffer_limits()[0]:
                        self._drainers.set()
                    return
                del self._buffer[:sent]
            self._settle()
        except OSError as error:
            self._fail(error)
        finally:
            self._flushing = False

    def _settle(self) -> None:
        """Everything is sent: do what waited for that."""
        self.end.output = None
        self._drainers.set()
        if self._eof_wanted and not self.end.fin_sent:
            self.end.shut_down()
        if self._closing:
            self._finish()

    def _fail(self, error: BaseException) -> None:
        """The connection is lost."""
        self._error = error
        self._closing = True
        if self._reader._error is None:
            self._reader._error = error
        self._finish()

    def _finish(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._buffer.clear()
        self._reader._end_of_stream()
        self.end.close()
        self._drainers.set()
        self._closers.set()

    def drain(self) -> None:
        """Block the calling fiber while more than 64 KiB wait to be sent, until it is less than 16 KiB.

        Errors: the OSError of an earlier send or read; ConnectionResetError once the connection is closed;
        CancelledError; NotInFiber.
        """
        current_fiber()
        if self._reader._error is not None:
            raise self._reader._error
        low, high = self.get_write_buffer_limits()
        if self._closing:
            sleep(0)
        elif len(self._buffer) > high:
            self._drainers.wait_while(lambda: len(self._buffer) > low and not self._closed)
        if self._error is not None:
            raise self._error
        if self._closed:
            raise ConnectionResetError("Connection lost")

    # -- the end

    def write_eof(self) -> None:
        """Send what is collected, then the end of the stream; reading goes on.  Never blocks."""
        if not (self._eof_wanted or self._closing):
            self._eof_wanted = True
            self.flush_now()

    def close(self) -> None:
        """Close the connection once everything is sent.  Never blocks: ``wait_closed`` does."""
        if not self._closing:
            self._closing = True
            self._reader._end_of_stream()
            self.flush_now()

    def abort(self) -> None:
        """Close the connection now; what is not sent yet is dropped.  Never blocks."""
        self._closing = True
        self._finish()

    def is_closing(self) -> bool:
        """True once ``close`` was called or the connection failed."""
        return self._closing

    def wait_closed(self) -> None:
        """Block the calling fiber until the connection is closed; raise the OSError that it failed with."""
        current_fiber()
        self._closers.wait_while(lambda: not self._closed)
        if self._error is not None:
            raise self._error
        if self._reader._failed:
            assert self._reader._error is not None
            raise self._reader._error

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``"socket"`` (a ``MemorySocket``), ``"peername"`` or ``"sockname"``; ``default`` for anything else."""
        if name == "socket":
            return self._socket
        if name == "peername":
            return self.end.peer.name
        if name == "sockname":
            return self.end.name
        return default

    def get_write_buffer_size(self) -> int:
        """How many bytes are not sent yet: the peer has no room for them."""
        return len(self._buffer)


def open_streams(end: End, limit: int) -> tuple[MemoryReader, MemoryWriter]:
    """A reader and a writer on one end of a link."""
    reader = MemoryReader(end, limit)
    return reader, MemoryWriter(end, reader)
