"""A connection without a kernel: its two ends, and the wire between them.

Theory
------
``End`` is what a kernel keeps for one end of a connection: a receive buffer of bounded size, the marks "the other
side has finished" and "I have", a pending error.  Its operations never block and answer as recv and send on a
non-blocking socket do; ``memory_streams`` has the reader and the writer that block, ``transports`` what an event loop
calls back.

What happens to a segment (the bytes of one send, an end of stream, a reset) between the two ends is the business of
the ``Wire``.  A perfect wire delivers at once.  A wire that chooses otherwise leaves the segment under way, and a fiber
of its own, a *courier*, delivers it when the scheduler runs it; so that in a controlled run an order of arrivals is
an order of fibers.  Nothing overtakes within one direction of one connection.

Which end of a TCP connection sees what
---------------------------------------
- ``close`` with nothing unread says "end of stream"; with something unread it resets the connection (Linux, both
  kinds of socket).
- What arrives at a closed end is answered by a reset.  So after the peer's close the first send succeeds.
- A reset leaves what was received readable; then one call reports it: ECONNRESET, or EPIPE from a send if the
  end of the stream had been seen; later sends say EPIPE.
- A Unix socket reports EPIPE from the first send after the peer's close, and an error before the end of the stream.

Invariants
----------
- Bytes under way and in the receive buffer of an end are together at most ``buffer_size``.
- What was sent and not received is in a queue: no cancellation loses it.  A courier that is cancelled delivers.
- An end refers to its writer only while that has something left to send: a connection that is dropped without
  being closed is seen by the peer at once.
- An end tells its ``receiver`` of every change that ``readable`` is set for.
- Whoever waits does so on a ``Change``, which remembers: a change between the look and the wait is not missed, also
  where a controlled run lets others run at the entry of ``wait``.

Rejected: one courier for a network (deliveries to different connections would be ordered); parking lots (they do
not remember); to choose the size of every receive, also inside readexactly (unless others run in between, nobody
can tell, and an exhaustive search would pay for it).
"""

from __future__ import annotations

import enum
import errno
import os
import socket as _stdlib
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..locks import Event
from ..tasks import sleep, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._loop.task import Fiber

__all__ = ["Change", "ConnectedSocket", "End", "Link", "MemorySocket", "Wire", "os_error", "refuse_options"]


class Change(Event):
    """Set when something that somebody may wait for has changed; says in reports what that is."""

    def __init__(self, awaited: str, of: object) -> None:
        super().__init__()
        self.awaited = awaited
        self.of = of

    def __repr__(self) -> str:
        return f"{self.awaited} {_in_words(self.of)}"

    def wait_while(self, condition: Callable[[], object]) -> None:
        """Block the calling fiber while ``condition()`` is true.  Every change that ends it calls ``set``."""
        while condition():
            self.clear()
            self.wait()


def _in_words(what: object) -> str:
    """Short enough for the row of a report."""
    if isinstance(what, End):
        return _address(what.peer.name) if what.peer.name else "the other end"
    return _address(what.getsockname()) if isinstance(what, MemorySocket) else "the network"


def _address(name: Any) -> str:
    return ":".join(map(str, name[:2])) if isinstance(name, tuple) else str(name)


class Sender(Protocol):
    """What has something left to send, and does so when there is room."""

    def flush_now(self) -> None: ...


class Receiver(Protocol):
    """What takes what has arrived without a fiber that waits for it."""

    def something_arrived(self) -> None: ...


# ----------------------------------------------------------------------------------------------- the wire


class Wire:
    """What lies between the ends of a link.  This one is perfect: everything arrives at once."""

    #: May a read return less than there is; may a segment arrive later than at once?  Then ``choose`` decides.
    short_reads = False
    delays = False

    def choose(self, n: int, label: str) -> int:
        """One of ``n`` things that may happen; 0 is what happens on a quiet machine."""
        return 0

    def holds(self, link: Link) -> bool:
        """Does nothing get through at the moment?"""
        return False

    def latency_s(self, link: Link) -> float:
        """How long a segment takes, in seconds."""
        return 0.0

    def closed(self, link: Link) -> None:
        """Both ends are closed."""


class Signal(enum.Enum):
    """A segment that is no data."""

    FIN = "end of stream"
    RST = "reset"


class Link:
    """A connection: two ends and what happens between them.  ``place`` is the address that was connected to."""

    def __init__(
        self,
        wire: Wire,
        client_name: Any,
        server_name: Any,
        *,
        family: int,
        buffer_size: int,
        place: tuple[str | bytes, int | None] | None = None,
    ) -> None:
        self.wire = wire
        self.family = family
        self.buffer_size = buffer_size
        self.place = place
        self.client = End(self, client_name)
        self.server = End(self, server_name)
        self.client.peer = self.server
        self.server.peer = self.client

    def __repr__(self) -> str:
        return f"<link {self.client.name!r} -> {self.server.name!r}>"

    @property
    def is_tcp(self) -> bool:
        return self.family != _stdlib.AF_UNIX

    def reset(self) -> None:
        """Break the connection: both ends see a reset, and what is under way is lost."""
        for end in (self.client, self.server):
            end.under_way.clear()
            end.bytes_under_way = 0
        self.client.arrive(Signal.RST)
        self.server.arrive(Signal.RST)

    def released(self) -> None:
        """Nothing holds segments back any more."""
        for end in (self.client, self.server):
            end.deliver(None)


class End:
    """One end of a link, as a kernel keeps it; see the module."""

    peer: End

    def __init__(self, link: Link, name: Any) -> None:
        self.link = link
        self.name = name
        # how many bytes it may still send before the link breaks; None: any number
        self.send_limit: int | None = None
        self.received: deque[bytes] = deque()
        self.size = 0
        # towards this end; numbered, so that a courier knows what it carries
        self.under_way: deque[tuple[int, bytes | Signal]] = deque()
        self.bytes_under_way = 0
        self.sent_to = 0
        self.sweeper_pending = False
        self.fin_received = False
        self.fin_sent = False
        self.closed = False
        self.reset = False
        self.error = 0
        # the last recv returned less than it could have
        self.was_short = False
        self.readable = Change("data from", self)
        self.reading: Fiber[Any] | None = None
        # who is told, instead of waiting; it must not call the program
        self.receiver: Receiver | None = None
        # a writer with something left
        self.output: Sender | None = None

    def __repr__(self) -> str:
        return f"<memory connection {self.name!r} to {self.peer.name!r}>"

    # -- what its owner does

    @property
    def is_readable(self) -> bool:
        """Would a ``recv`` return or raise something?"""
        return bool(self.size or self.fin_received or self.error or self.reset or self.closed)

    def recv(self, most: int, *, whole: bool = False) -> bytes | None:
        """Up to ``most`` bytes; empty at the end of the stream; None: nothing is there yet.  Errors: OSError.

        The wire may choose to give less, unless the ``whole`` is wanted.
        """
        self.was_short = False
        if self.closed:
            raise os_error(errno.EBADF)
        if self.size:
            size = min(most, self.size)
            return self._take(size if whole else self._how_much(size))
        if self.fin_received and self.link.is_tcp:
            return b""
        if self.error:
            raise self._take_error()
        return b"" if self.fin_received or self.reset else None

    def _how_much(self, most: int) -> int:
        if most == 1 or not self.link.wire.short_reads:
            return most
        # everything; one send; the shortest, a split in the middle, all but the last byte
        sizes = dict.fromkeys((most, min(most, len(self.received[0])), 1, most // 2, most - 1))
        size = list(sizes)[self.link.wire.choose(len(sizes), "network.read")]
        self.was_short = size < most
        return size

    def _take(self, size: int) -> bytes:
        parts = []
        left = size
        while left:
            part = self.received.popleft()
            if len(part) > left:
                self.received.appendleft(part[left:])
                part = part[:left]
            parts.append(part)
            left -= len(part)
        self.size -= size
        if self.peer.output is not None:
            self.peer.output.flush_now()
        return b"".join(parts)

    def send(self, data: bytearray) -> int:
        """How many bytes of the front of ``data`` went out; 0: there is no room.  Errors: OSError."""
        peer = self.peer
        if self.closed:
            raise os_error(errno.EBADF)
        if not self.link.is_tcp and (peer.closed or self.fin_sent):
            raise os_error(errno.EPIPE)
        if self.error:
            raise self._take_error()
        if self.reset or self.fin_sent:
            raise os_error(errno.EPIPE)
        size = min(len(data), self.link.buffer_size - peer.size - peer.bytes_under_way)
        if size <= 0:
            return 0
        if self.send_limit is not None:
            size = min(size, self.send_limit)
            self.send_limit -= size
        if size:
            peer.transmit(bytes(data[:size]))
        if self.send_limit == 0:
            self.send_limit = None
            peer.transmit(Signal.RST)
            self.arrive(Signal.RST)
        return size

    def shut_down(self) -> None:
        """Nothing more will be sent."""
        if self.closed:
            raise os_error(errno.EBADF)
        if self.reset and self.link.is_tcp:
            raise os_error(errno.ENOTCONN)
        if not self.fin_sent:
            self.fin_sent = True
            self.peer.transmit(Signal.FIN)

    def close(self, *, reset: bool = False) -> None:
        if self.closed:
            return
        self.closed = True
        unread = self.size > 0
        self.received.clear()
        self.size = 0
        self.output = None
        if self.peer.closed:
            self.link.wire.closed(self.link)
        elif reset or unread:
            self.peer.transmit(Signal.RST)
        elif not self.fin_sent and not self.reset:
            self.peer.transmit(Signal.FIN)
        elif not self.link.is_tcp and self.peer.output is not None:
            self.peer.output.flush_now()
        self._changed()

    def _changed(self) -> None:
        self.readable.set()
        if self.receiver is not None:
            self.receiver.something_arrived()

    def _take_error(self) -> OSError:
        number, self.error = self.error, 0
        return os_error(number)

    # -- what the wire does

    def transmit(self, segment: bytes | Signal) -> None:
        """Send ``segment`` on its way to this end."""
        link = self.link
        wire = link.wire
        alone = not self.under_way
        self.sent_to += 1
        self.under_way.append((self.sent_to, segment))
        if not isinstance(segment, Signal):
            self.bytes_under_way += len(segment)
        if wire.holds(link):
            return
        latency_s = wire.latency_s(link)
        if latency_s > 0:
            _send_courier(self, self.sent_to, latency_s)
        elif alone and not (wire.delays and wire.choose(2, "network.deliver")):
            self.deliver(None)
        elif not self.sweeper_pending:
            self.sweeper_pending = True
            _send_courier(self, None, 0.0)

    def deliver(self, up_to: int | None) -> None:
        """Deliver what is under way, up to the segment of that number; None: everything."""
        if up_to is None:
            self.sweeper_pending = False
        while self.under_way and (up_to is None or self.under_way[0][0] <= up_to):
            if self.link.wire.holds(self.link):
                return
            _, segment = self.under_way.popleft()
            if not isinstance(segment, Signal):
                self.bytes_under_way -= len(segment)
            self.arrive(segment)

    def arrive(self, segment: bytes | Signal) -> None:
        if self.closed:
            if not isinstance(segment, Signal) and self.link.is_tcp and not self.peer.closed:
                self.peer.transmit(Signal.RST)
            return
        if self.reset:
            return
        if segment is Signal.FIN:
            self.fin_received = True
        elif segment is Signal.RST:
            self.reset = True
            self.error = errno.EPIPE if self.fin_received and self.link.is_tcp else errno.ECONNRESET
        else:
            assert isinstance(segment, bytes)
            self.received.append(segment)
            self.size += len(segment)
        self._changed()
        if self.output is not None and isinstance(segment, Signal):
            self.output.flush_now()


def _send_courier(end: End, up_to: int | None, latency_s: float) -> None:
    """Have a fiber deliver.  One that is cancelled, even before it runs, delivers at once."""

    def carry() -> None:
        courier.remove_done_callback(lost)
        try:
            if latency_s:
                sleep(latency_s)
        finally:
            end.deliver(up_to)

    def lost(_: object) -> None:
        end.deliver(up_to)

    courier = spawn(carry, name=f"delivery to {end.name!r}")
    courier.add_done_callback(lost)


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def refuse_options(ssl: object, sock: object, alone: bool, address: str) -> None:
    """ValueError for what no connection in memory is made of; ``alone``: no ``address`` was given beside ``sock``."""
    if ssl is not None and ssl is not False:
        raise ValueError("ssl=: TLS is not part of this release of swapco; it comes with a later one")
    if sock is not None and not alone:
        raise ValueError(f"{address} and sock can not be specified at the same time")
    if sock is not None:
        raise ValueError(f"sock=: a network in memory has no sockets; say host and port, or path, instead of {sock!r}")


# ------------------------------------------------------------------------------------------------- sockets


class MemorySocket:
    """What stands for the socket of a connection: its names.  Options are remembered and have no effect."""

    type = _stdlib.SOCK_STREAM
    proto = 0

    def __init__(self, family: int, name: Any) -> None:
        self.family = _stdlib.AddressFamily(family)
        self._name = name
        self._options: dict[tuple[int, int], Any] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}>"

    def fileno(self) -> int:
        """-1: it has no descriptor."""
        return -1

    def getsockname(self) -> Any:
        """Its own address."""
        return self._name

    def setsockopt(self, level: int, option: int, value: Any, *_: Any) -> None:
        """Remember an option."""
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> Any:
        """The remembered value of an option, 0 if it was never set."""
        return self._options.get((level, option), b"" if buflen else 0)


class ConnectedSocket(MemorySocket):
    """The socket of one end of a link."""

    def __init__(self, end: End) -> None:
        super().__init__(end.link.family, end.name)
        self._end = end

    def getpeername(self) -> Any:
        """The address of the other side."""
        return self._end.peer.name

    def close(self) -> None:
        """Close the connection under its streams: they raise OSError from now on."""
        self._end.close()
