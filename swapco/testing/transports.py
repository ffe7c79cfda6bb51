"""asyncio's transports and servers on connections in memory: what ``asyncio.open_connection`` and its kin are made of.

Theory
------
``MemoryTransport`` is to an event loop what ``memory_streams`` are to fibers: it works on an ``End`` whose operations
never block, and calls its protocol as asyncio's transport on a socket does.  A selector tells that one "readable" or
"writable" as long as it is so; the end tells this one when it has become so (``Receiver``, ``Sender``), and a callback
that leaves something over calls for the next one itself.  Protocols are called from callbacks of the loop only, never
from inside of what the other side does: there the callback is put into the loop's queue, in the context in which the
transport was made.

Which callback runs when is therefore the order of the loop's queue, which is the order of arrivals, and this is decided
where ``wire`` and ``network`` say: by the couriers, the fibers that send, and ``choose``.  One ``data_received`` gets
what one receive returns, so that ``network.read`` splits it.

``ProtocolServer`` makes a protocol for each connection, by a callback for each one that arrives.  ``LoopMethods`` are
the loop's own methods on a network.  They are coroutines that block their fiber: in a controlled run every task is a
fiber.  Where versions of asyncio differ in what programs rely on (3.11: ``wait_closed`` of a closed server waits for
nobody; 3.13: the file of a Unix socket goes with its server) they follow the one that runs.

Invariants
----------
- ``end.receiver`` is the transport if and only if it reads; ``end.output`` is, if and only if something is left that
  the peer has no room for.  So an open transport that the program has lost stays, as long as it reads.
- ``connection_made`` is called first and once, ``connection_lost`` last and once; the end is closed right after that.
- At most one callback to read and one to write are in the queue; a task that one has woken goes on before the next.
- A transport whose run is over does nothing, and says that it is closing: who is collected in the middle of a later run
  must not decide anything there, nor warn.

What can be seen to differ from asyncio on sockets: a factory of protocols that raises is always reported (asyncio does
so in debug mode only); ``get_extra_info("socket")`` is a ``MemorySocket``; there is no TLS, ``sock=`` or ``sendfile``.

Rejected: asyncio's own server and transport on false sockets and a false selector (they read private attributes of
their loop, which each version has others of); a fiber for each transport and each listening socket (programs of asyncio
may leave them open when they end; a fiber that waits there would be a leak); asyncio's streams written once more on
swapco's (libraries bring protocols of their own).
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket as _stdlib
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Protocol, cast

from .._loop.compat import get_running_loop
from ..locks import Event
from .wire import ConnectedSocket, refuse_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .network import Listener, MemoryNetwork
    from .wire import End

__all__ = ["LoopMethods", "MemoryTransport", "ProtocolServer"]

#: What one ``data_received`` gets at most, and when ``pause_writing`` is called unless the program says; in bytes.
LARGEST_READ_BYTES = 262144
HIGH_WATER_BYTES = 65536
#: A server that is closed: does ``wait_closed`` wait for its connections?
WAITS_FOR_CONNECTIONS = sys.version_info >= (3, 12)
#: Does the path of a Unix server go when it is closed, unless the program says?
CLEANS_UP_SOCKET = sys.version_info >= (3, 13)
# Touched with every callback: the loop calls them in the order in which they came, so that for DPOR no two commute.
_CALLBACKS = Event()


class EventLoop(Protocol):
    """What is asked of the loop: that of a controlled run, for ``call_event`` waits for fibers."""

    def call_event(self, callback: Callable[..., object], *args: Any, context: contextvars.Context) -> None: ...
    def call_exception_handler(self, context: dict[str, Any]) -> None: ...
    def create_future(self) -> asyncio.Future[Any]: ...


# ----------------------------------------------------------------------------------------------- transport


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory, for a protocol of asyncio; its constructor calls ``connection_made`` soon."""

    _closed = True

    def __init__(
        self,
        loop: EventLoop,
        end: End,
        protocol: asyncio.BaseProtocol,
        *,
        waiter: asyncio.Future[None] | None = None,
        server: ProtocolServer | None = None,
    ) -> None:
        super().__init__({"socket": ConnectedSocket(end), "sockname": end.name, "peername": end.peer.name})
        self.end = end
        self._loop = loop
        self._protocol: Any = protocol
        self._server = server
        self._context = contextvars.copy_context()
        self._buffer = bytearray()
        self._low = HIGH_WATER_BYTES // 4
        self._high = HIGH_WATER_BYTES
        self._protocol_paused = False
        self._reading_paused = False
        self._read_called = False
        self._write_called = False
        self._eof_wanted = False
        self._closing = False
        # connection_lost is called, or will be
        self._lost = False
        self._closed = False
        self._number = 0 if server is None else server.attach(self)
        self._call(self.begin, waiter)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "closing" if self._closing else "open"
        words = ["MemoryTransport", state, repr(self.end)]
        if self._buffer:
            words.append(f"{len(self._buffer)} bytes to send")
        return f"<{' '.join(words)}>"

    def __del__(self) -> None:
        if self._closed or self._is_over():
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self._finish()

    def _is_over(self) -> bool:
        running: object = get_running_loop()
        return running is not self._loop

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        """Have the loop call it."""
        if not self._is_over():
            _CALLBACKS.set()
            self._loop.call_event(callback, *args, context=self._context)

    def begin(self, waiter: asyncio.Future[None] | None) -> None:
        """For the loop: the protocol is connected."""
        self._ask("connection_made", self)
        if self.is_reading():
            self._read_on()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _ask(self, method: str, *args: Any) -> None:
        """Tell the protocol; what it raises is reported, and changes nothing."""
        try:
            getattr(self._protocol, method)(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report(error, f"{method}() of the protocol raised")

    def _report(self, error: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        )

    # -- what it is

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Call another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol; None once the connection is closed."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """True once ``close`` or ``abort`` was called, the connection is lost, or its run is over."""
        return self._closing or self._is_over()

    # -- reading

    def is_reading(self) -> bool:
        """Does the protocol get what arrives?"""
        return not (self._closing or self._reading_paused)

    def pause_reading(self) -> None:
        """Give the protocol nothing until ``resume_reading``; then the sender has to wait.  Does not block."""
        if self.is_reading():
            self._reading_paused = True
            self.end.receiver = None

    def resume_reading(self) -> None:
        """Give the protocol what arrives, and has arrived.  Does not block."""
        if self._reading_paused and not self._closing:
            self._reading_paused = False
            self._read_on()

    def _read_on(self) -> None:
        self.end.receiver = self
        if self.end.is_readable:
            self.something_arrived()

    def something_arrived(self) -> None:
        """For the end."""
        if not self._read_called:
            self._read_called = True
            self._call(self.receive)

    def receive(self) -> None:
        """For the loop: something has arrived."""
        self._read_called = False
        if self.end.receiver is not self:
            return
        if isinstance(self._protocol, asyncio.BufferedProtocol):
            self._read_into_buffer(self._protocol)
        elif (data := self._receive(LARGEST_READ_BYTES)) is not None:
            self._give("data_received", data)
        if self.end.receiver is self and self.end.is_readable:
            self.something_arrived()

    def _read_into_buffer(self, protocol: asyncio.BufferedProtocol) -> None:
        try:
            view = memoryview(protocol.get_buffer(-1)).cast("B")
            if not view:
                raise RuntimeError(f"get_buffer() of {protocol!r} returned an empty buffer")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, "get_buffer() of the protocol failed")
            return
        if (data := self._receive(len(view))) is not None:
            view[: len(data)] = data
            self._give("buffer_updated", len(data))

    def _receive(self, most: int) -> bytes | None:
        """One recv; None if nothing was there but an error, or the end of the stream, which are dealt with."""
        try:
            data = self.end.recv(most)
        except OSError as error:
            self._fail(error, "reading failed")
            return None
        if data == b"":
            self._end_of_stream()
        return data or None

    def _give(self, method: str, argument: Any) -> None:
        try:
            getattr(self._protocol, method)(argument)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, f"{method}() of the protocol raised")

    def _end_of_stream(self) -> None:
        try:
            keeps_open = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, "eof_received() of the protocol raised")
            return
        if keeps_open:
            # nothing can come any more
            self.end.receiver = None
        else:
            self.close()

    # -- writing

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send ``data``, or collect what the peer has no room for.  Never blocks.

        More than the high-water mark: ``pause_writing`` of the protocol is called, until it is not more than the low
        one.  After the connection is lost it does nothing.  RuntimeError after ``write_eof``.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof_wanted:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._lost or self._is_over() or not memoryview(data).nbytes:
            return
        first = not self._buffer
        self._buffer += data
        if first:
            self._send()
        self._pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """``write`` all of them at once."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Send what is collected, then the end of the stream; reading goes on.  Never blocks.

        OSError (ENOTCONN) if the connection was reset, and the protocol does not know yet.
        """
        if self._closing or self._eof_wanted or self._is_over():
            return
        self._eof_wanted = True
        if not self._buffer:
            self.end.shut_down()

    def can_write_eof(self) -> bool:
        """True."""
        return True

    def _send(self) -> None:
        """Send what there is room for."""
        try:
            while self._buffer:
                sent = self.end.send(self._buffer)
                if not sent and self.end.error == 0:
                    self.end.output = self
                    return
                del self._buffer[:sent]
            self.end.output = None
        except OSError as error:
            self._fail(error, "writing failed")

    def flush_now(self) -> None:
        """For the end: there is room, or an error."""
        if not self._write_called:
            self._write_called = True
            self._call(self.send_on)

    def send_on(self) -> None:
        """For the loop: there is room for what was collected."""
        self._write_called = False
        if self._lost or not self._buffer:
            return
        self._send()
        if not self._lost:
            self._resume_protocol()
        if self._lost or self._buffer:
            return
        if self._closing:
            self._lost = True
            self.lose(None)
        elif self._eof_wanted:
            try:
                self.end.shut_down()
            except OSError as error:
                self._fail(error, "writing the end of the stream failed")

    # -- flow control

    def get_write_buffer_size(self) -> int:
        """How many bytes are not sent yet: the peer has no room for them."""
        return len(self._buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low- and the high-water mark, in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the protocol is to pause and to resume writing, in bytes; see ``write``.

        Without ``high`` four times ``low``, or 64 KiB; without ``low`` a quarter of ``high``.  ValueError unless
        high ≥ low ≥ 0.
        """
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._low, self._high = low, high
        self._pause_protocol()

    def _pause_protocol(self) -> None:
        if len(self._buffer) > self._high and not self._protocol_paused:
            self._protocol_paused = True
            self._ask("pause_writing")

    def _resume_protocol(self) -> None:
        if self._protocol_paused and len(self._buffer) <= self._low:
            self._protocol_paused = False
            self._ask("resume_writing")

    # -- the end

    def close(self) -> None:
        """Close the connection once everything is sent; nothing is read any more.  Never blocks."""
        if self._closing or self._is_over():
            return
        self._closing = True
        self.end.receiver = None
        if not self._buffer:
            self._lost = True
            self._call(self.lose, None)

    def abort(self) -> None:
        """Close the connection now; what is not sent yet is dropped.  Never blocks."""
        if not self._is_over():
            self._force_close(None)

    def _fail(self, error: BaseException, message: str) -> None:
        """The connection is lost.  What is no error of the network is reported."""
        if not isinstance(error, OSError):
            self._report(error, message)
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._closing = self._lost = True
        self.end.receiver = self.end.output = None
        self._buffer.clear()
        self._call(self.lose, error)

    def lose(self, error: BaseException | None) -> None:
        """For the loop: the connection is closed, or lost."""
        try:
            self._protocol.connection_lost(error)
        finally:
            self._finish()
            self._protocol = None

    def _finish(self) -> None:
        self._closed = True
        self.end.close()
        if self._server is not None:
            self._server.detach(self._number)
            self._server = None


# -------------------------------------------------------------------------------------------------- server


class ProtocolServer(asyncio.AbstractServer):
    """What ``loop.create_server`` returns: makes a protocol for each connection to its listeners."""

    def __init__(
        self,
        loop: EventLoop,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        listeners: list[Listener],
        backlog: int,
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._listeners: list[Listener] | None = listeners
        self._backlog = backlog
        self._context = contextvars.copy_context()
        self._serving = False
        # in the order in which they came; weakly: who loses a transport that does not read is told
        self._transports: weakref.WeakValueDictionary[int, MemoryTransport] = weakref.WeakValueDictionary()
        self._accepted = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._forever: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<ProtocolServer sockets={self.sockets!r} connections={len(self._transports)}>"

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the server belongs to."""
        return cast("asyncio.AbstractEventLoop", self._loop)

    def is_serving(self) -> bool:
        """True while new connections are accepted."""
        return self._serving

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets (each a ``MemorySocket``); empty once the server is closed."""
        return () if self._listeners is None else tuple(self._listeners)

    # -- serving

    async def start_serving(self) -> None:
        """Start accepting, if that has not happened yet, and let the others run once."""
        self._listen()
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """Start accepting, and wait until the task is cancelled or the server closed.

        Both raise CancelledError; a cancellation closes the server.  RuntimeError if it is closed already, or another
        task waits here.
        """
        if self._forever is not None:
            raise RuntimeError(f"another task is in serve_forever() of {self!r} already")
        self._listen()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def _listen(self) -> None:
        if self._listeners is None:
            raise RuntimeError(f"server {self!r} is closed")
        if self._serving:
            return
        self._serving = True
        for listener in self._listeners:
            listener.listen(self._backlog)
            listener.receiver = self
            for _ in listener.pending:
                self.connection_waits(listener)

    def connection_waits(self, listener: Listener) -> None:
        """For the listener: one more connection is there to be accepted."""
        running: object = get_running_loop()
        if running is self._loop:
            _CALLBACKS.set()
            self._loop.call_event(self.accept, listener, context=self._context)

    def accept(self, listener: Listener) -> None:
        """For the loop: one more connection, unless the server was closed."""
        if listener.closed:
            return
        end = listener.take()
        try:
            protocol = self._protocol_factory()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            end.close()
            self._loop.call_exception_handler(
                {"message": "no protocol could be made for an incoming connection", "exception": error}
            )
            return
        MemoryTransport(self._loop, end, protocol, server=self)

    def attach(self, transport: MemoryTransport) -> int:
        """For a transport: it is a connection of this server, with that number."""
        self._accepted += 1
        self._transports[self._accepted] = transport
        return self._accepted

    def detach(self, number: int) -> None:
        """For a transport: it is closed."""
        self._transports.pop(number, None)
        self._wake()

    # -- the end

    def close(self) -> None:
        """Stop accepting and close the listening sockets; connections go on.  Does not block."""
        listeners = self._listeners
        if listeners is None:
            return
        self._listeners = None
        self._serving = False
        for listener in listeners:
            listener.close()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()
        self._wake()

    def close_clients(self) -> None:
        """Close every connection, sending what is collected first.  Does not block."""
        for transport in list(self._transports.values()):
            transport.close()

    def abort_clients(self) -> None:
        """Close every connection at once, dropping what is not sent.  Does not block."""
        for transport in list(self._transports.values()):
            transport.abort()

    def _is_down(self) -> bool:
        return self._listeners is None and not self._transports

    def _wake(self) -> None:
        if self._is_down():
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    async def wait_closed(self) -> None:
        """Wait until the server is closed and all its connections are (3.11: at once if it is closed)."""
        if self._is_down() or (self._listeners is None and not WAITS_FOR_CONNECTIONS):
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter


# -------------------------------------------------------------------------------------------- of the loop


class LoopMethods:
    """The methods of an event loop that make connections and servers, on a network in memory.

    Their arguments, results and exceptions are those of asyncio's; what only a real network has a use for does nothing
    (``proto``, ``flags``, ``happy_eyeballs_delay``, ``interleave``, ``reuse_address``, ``keep_alive``), and ``ssl`` and
    ``sock`` raise ValueError.  They block the fiber of the task that awaits them.
    """

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    async def create_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | bytes | None = None,
        port: int | str | None = None,
        *,
        ssl: None = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: Any = None,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[MemoryTransport, asyncio.BaseProtocol]:
        """Connect to ``host`` and ``port``: the transport and its protocol, once ``connection_made`` was called."""
        _refuse_tls(ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        refuse_options(ssl, sock, host is None and port is None, "host/port")
        if host is None and port is None:
            raise ValueError("host and port was not specified and no sock specified")
        end = self._network.connect(_text(host), port, family, local_addr, all_errors).client
        return await _connected(end, protocol_factory)

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: str | bytes | os.PathLike[str] | None = None,
        *,
        ssl: None = None,
        sock: Any = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[MemoryTransport, asyncio.BaseProtocol]:
        """Connect to the server at ``path``, which is no file."""
        _refuse_tls(ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        refuse_options(ssl, sock, path is None, "path")
        if path is None:
            raise ValueError("no path and sock were specified")
        return await _connected(self._network.connect_to_path(path).client, protocol_factory)

    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | bytes | Sequence[str] | None = None,
        port: int | str | None = None,
        *,
        family: int = 0,
        flags: int = 1,
        sock: Any = None,
        backlog: int = 100,
        ssl: None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> ProtocolServer:
        """Listen at ``host`` (or several) and ``port``.  OSError (EADDRINUSE) if another server has the address."""
        _refuse_tls(ssl, None, ssl_handshake_timeout, ssl_shutdown_timeout)
        refuse_options(ssl, sock, host is None and port is None, "host/port")
        if host is None and port is None:
            raise ValueError("Neither host/port nor sock were specified")
        listeners = self._network.bind(_text(host), port, family, bool(reuse_port))
        return await _server(protocol_factory, listeners, backlog, start_serving)

    async def create_unix_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: str | bytes | os.PathLike[str] | None = None,
        *,
        sock: Any = None,
        backlog: int = 100,
        ssl: None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = CLEANS_UP_SOCKET,
    ) -> ProtocolServer:
        """Listen at ``path``: no file is made.  A server that was there cannot be reached any more."""
        _refuse_tls(ssl, None, ssl_handshake_timeout, ssl_shutdown_timeout)
        refuse_options(ssl, sock, path is None, "path")
        if path is None:
            raise ValueError("path was not specified, and no sock specified")
        listener = self._network.bind_path(path, cleanup_socket)
        return await _server(protocol_factory, [listener], backlog, start_serving)

    async def getaddrinfo(
        self,
        host: str | bytes | None,
        port: int | str | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[int, int, int, str, Any]]:
        """What ``host`` and ``port`` stand for in the network, where every name is a host, and all is TCP."""
        if type not in (0, _stdlib.SOCK_STREAM):
            raise _stdlib.gaierror(_stdlib.EAI_SOCKTYPE, f"a network in memory has streams only, no type {type!r}")
        found = self._network.addresses(_text(host), port, family, bool(flags & _stdlib.AI_PASSIVE))
        return [
            (_stdlib.AddressFamily(kind), _stdlib.SOCK_STREAM, proto or _stdlib.IPPROTO_TCP, "", address)
            for kind, address in found
        ]


def _running_loop() -> EventLoop:
    return cast("EventLoop", asyncio.get_running_loop())


async def _connected(
    end: End, protocol_factory: Callable[[], asyncio.BaseProtocol]
) -> tuple[MemoryTransport, asyncio.BaseProtocol]:
    loop = _running_loop()
    try:
        protocol = protocol_factory()
    except BaseException:
        end.close()
        raise
    waiter: asyncio.Future[None] = loop.create_future()
    transport = MemoryTransport(loop, end, protocol, waiter=waiter)
    try:
        await waiter
    except BaseException:
        transport.close()
        raise
    return transport, protocol


async def _server(
    protocol_factory: Callable[[], asyncio.BaseProtocol], listeners: list[Listener], backlog: int, start_serving: bool
) -> ProtocolServer:
    server = ProtocolServer(_running_loop(), protocol_factory, listeners, backlog)
    if start_serving:
        try:
            await server.start_serving()
        except BaseException:
            server.close()
            raise
    return server


def _refuse_tls(ssl: object, server_hostname: str | None, *timeouts: float | None) -> None:
    if ssl is None or ssl is False:
        names = ("server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout")
        for name, value in zip(names, (server_hostname, *timeouts), strict=True):
            if value is not None:
                raise ValueError(f"{name} is only meaningful with ssl")


def _text(host: Any) -> Any:
    """Names of hosts may be bytes in asyncio."""
    return host.decode("ascii") if isinstance(host, bytes) else host
