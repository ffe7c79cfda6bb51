"""A network in memory: servers, connections, and the faults of both, without a kernel.

Theory
------
``MemoryNetwork`` has swapco's four functions that make streams, with their signatures, results and exceptions, on
connections that are objects (see ``wire`` and ``memory_streams``).  Everything is made of swapco's primitives, so it
works under ``swapco.run`` and in a controlled run, where real I/O is refused.  A server is swapco's own ``Server`` on
listeners in memory.  In a controlled run the event loop makes asyncio's connections and servers in the network that is
patched in (see ``transports``): streams of both kinds meet there.  Each network is a world of its own: addresses and
ports of two networks never meet, and ports are given out in order, so that a run can be repeated.

What a real network leaves open is asked of one function, ``testing.choose(n, label)``:

==================  ======================================================================================
``network.read``    how much of what is there a read returns: all, one send, one byte, half, all but one byte
``network.deliver`` whether a segment arrives at once or later, after any number of turns of other fibers
``network.accept``  which of the waiting connections is accepted first
``network.bind``    which of the servers that share an address (``reuse_port``) gets a connection
==================  ======================================================================================

0 is what happens on a quiet machine, and the answer unless a controlled run, or the network's own ``choose=``,
says otherwise.  It is only asked if there is more than one possibility.

Unmodified programs call ``swapco.open_connection``, and mostly through a name of their own (``from swapco import
open_connection``).  ``patched`` therefore exchanges what those functions *do* (their code objects) and not what some
module calls by their names; it costs microseconds, so a body that is run for ten thousand schedules can use it.

Names of hosts are not resolved: every name is a host.  ``localhost`` is 127.0.0.1 (::1 with ``family=AF_INET6``); a
server on ``None``, ``""``, ``0.0.0.0`` or ``::`` answers for every host of its family.

Invariants
----------
- A connection is known to its network until both ends are closed.
- A fault acts from its creation to its ``heal``, on what it names; ``with`` heals.
- While nothing is patched the four functions are the original ones, bit for bit.

Rejected: replacing names in ``swapco`` and ``swapco.streams`` (misses every ``from`` import); looking through
``sys.modules`` for references (misses those in classes and closures, and costs milliseconds); a context variable (a
Runner made before the ``with`` would go on using the real network, silently).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket as _stdlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any

from .. import streams
from .._streams.server import Server
from ..tasks import sleep, spawn
from .loop import networks as _patched_in
from .memory_streams import MemoryReader, MemoryWriter, open_streams
from .points import choose
from .transports import LoopMethods, MemoryTransport, ProtocolServer
from .wire import Change, End, Link, MemorySocket, Wire, os_error, refuse_options

if TYPE_CHECKING:
    from .._streams.reader import StreamReader
    from .._streams.writer import StreamWriter

__all__ = ["Fault", "MemoryNetwork", "MemoryReader", "MemoryServer", "MemoryWriter", "memory_stream_pair"]

AF_INET, AF_INET6, AF_UNIX = _stdlib.AF_INET, _stdlib.AF_INET6, _stdlib.AF_UNIX
DEFAULT_LIMIT = streams.DEFAULT_LIMIT
#: How many bytes a connection holds in each direction before its writer has to wait.
BUFFER_SIZE = 65536
FIRST_PORT = 49152
WILDCARDS = {AF_INET: "0.0.0.0", AF_INET6: "::"}
LOOPBACK = {AF_INET: "127.0.0.1", AF_INET6: "::1"}

Callback = Callable[["StreamReader", "StreamWriter"], Any]
Place = tuple[str | bytes, int | None]


# ------------------------------------------------------------------------------------------------- faults


class Fault:
    """Something that is wrong with a network, until ``heal``; made by the methods of ``MemoryNetwork``."""

    def __init__(
        self, network: MemoryNetwork, kind: str, host: str | bytes | None, port: int | str | None, amount: Any = None
    ) -> None:
        if host is not None and not isinstance(host, str | bytes):
            raise TypeError(f"host is a name or an address (None: any), not {host!r}")
        if not (port is None or _is_int(port) or (isinstance(port, str) and port.isdecimal())):
            raise TypeError(f"port is a number (None: any), not {port!r}")
        self._network = network
        self._kind = kind
        self._host = LOOPBACK[AF_INET] if host == "localhost" else host
        self._port = None if port is None else _port_number(port)
        self._amount = amount
        self._network._faults.append(self)

    def __repr__(self) -> str:
        amount = "" if self._amount is None else f" {self._amount!r}"
        return f"<Fault {self._kind}{amount} host={self._host!r} port={self._port!r}>"

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()

    @property
    def active(self) -> bool:
        """True until ``heal``."""
        return self in self._network._faults

    def covers(self, place: Place | None) -> bool:
        """Does it concern connections to that address?"""
        if self._host is None and self._port is None:
            return True
        if place is None:
            return False
        return self._host in (None, place[0]) and self._port in (None, place[1])

    def heal(self) -> None:
        """End it; what it held back goes on its way.  Does nothing the second time.  Does not block."""
        if self.active:
            self._network._faults.remove(self)
            self._network._healed()


# ------------------------------------------------------------------------------------------------ servers


class Listener(MemorySocket):
    """A bound address; once it listens, connections to it wait here to be accepted."""

    def __init__(self, network: MemoryNetwork, family: int, name: Any, *, shared: bool = False) -> None:
        super().__init__(family, name)
        self.network = network
        self.shared = shared
        # stays in the way of others when it is closed: the file of a Unix socket
        self.leaves_path = False
        self.backlog = -1
        self.closed = False
        self.pending: list[Link] = []
        # who is told of a connection, if no fiber waits in accept
        self.receiver: ProtocolServer | None = None
        self.arrived = Change("a connection to", self)
        self.room = Change("room in the backlog of", self)

    @property
    def listening(self) -> bool:
        return self.backlog >= 0 and not self.closed

    @property
    def full(self) -> bool:
        return self.listening and len(self.pending) > self.backlog

    def wait_for_room(self) -> None:
        """Block the calling fiber while the backlog is full."""
        self.room.wait_while(lambda: self.full)

    def listen(self, backlog: int) -> None:
        """Let up to ``backlog`` + 1 connections wait, as Linux does."""
        self.backlog = max(0, backlog)

    def add(self, link: Link) -> None:
        """A client has connected."""
        self.pending.append(link)
        self.arrived.set()
        if self.receiver is not None:
            self.receiver.connection_waits(self)

    def accept(self) -> tuple[Any, Any]:
        """The server's end of a connection, and the client's address.  Blocks the calling fiber until there is one."""
        self.arrived.wait_while(lambda: not self.pending and not self.closed)
        if self.closed:
            raise os_error(errno.EBADF)
        end = self.take()
        return end, end.peer.name

    def take(self) -> End:
        """The server's end of a connection that waits."""
        at = 0
        if len(self.pending) > 1:
            at = self.network.choose(len(self.pending), "network.accept")
        link = self.pending.pop(at)
        self.room.set()
        return link.server

    def close(self) -> None:
        """Refuse connections from now on; those that were not accepted are reset."""
        if self.closed:
            return
        self.closed = True
        if not self.leaves_path:
            self.network._listeners.remove(self)
        for link in self.pending:
            link.server.close(reset=True)
        self.pending.clear()
        self.arrived.set()
        self.room.set()


class MemoryServer(Server):
    """A ``Server`` whose listening sockets are in memory; made by ``MemoryNetwork.start_server``."""

    def _begin(self, end: End, address: Any) -> None:  # type: ignore[override]
        reader, writer = open_streams(end, self._limit)
        fiber = spawn(self._serve, reader, writer)
        self._active[fiber] = writer
        fiber.add_done_callback(self._ended)


# ------------------------------------------------------------------------------------------------ network


class MemoryNetwork(Wire):
    """Hosts and connections in memory, for tests of programs that use streams.

    ``buffer_size`` (bytes) is what a connection holds in each direction until somebody reads.  ``short_reads`` and
    ``delays`` say whether ``choose`` is asked about these (``False`` makes an exhaustive search smaller);
    ``choose(n, label)`` is asked instead of ``testing.choose``, say a random one: 0 ≤ result < n.

    The methods block as swapco's do, and raise what those raise.  For fibers of one loop.
    """

    def __init__(
        self,
        *,
        buffer_size: int = BUFFER_SIZE,
        short_reads: bool = True,
        delays: bool = True,
        choose: Callable[[int, str], int] | None = None,
    ) -> None:
        if not _is_int(buffer_size):
            raise TypeError(f"buffer_size must be a number of bytes, an int, not {buffer_size!r}")
        if buffer_size < 1:
            raise ValueError(f"buffer_size must be at least 1 byte, not {buffer_size!r}")
        for name, flag in (("short_reads", short_reads), ("delays", delays)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, not {flag!r}")
        if choose is not None and not callable(choose):
            raise TypeError(f"choose must be a function of n and a label (None: testing.choose), not {choose!r}")
        self.buffer_size = buffer_size
        self.short_reads = short_reads
        self.delays = delays
        self.loop_methods = LoopMethods(self)
        self._choose = choose
        self._listeners: list[Listener] = []
        self._links: dict[Link, None] = {}
        self._faults: list[Fault] = []
        self._last_port = FIRST_PORT - 1
        self._route_clear = Change("the end of a partition of", self)

    def __repr__(self) -> str:
        faults = f", {self._faults!r}" if self._faults else ""
        listening = sum(listener.listening for listener in self._listeners)
        return f"<MemoryNetwork listening={listening} connections={self.connections}{faults}>"

    @property
    def connections(self) -> int:
        """How many connections are not closed by both sides yet."""
        return len(self._links)

    # -- as a wire

    def choose(self, n: int, label: str) -> int:
        """One of ``n`` things that may happen; see the module."""
        chosen = (self._choose or choose)(n, label)
        if not _is_int(chosen) or not 0 <= chosen < n:
            raise ValueError(f"choose({n}, {label!r}) returned {chosen!r}: it must return an index from 0 to {n - 1}")
        return chosen

    def holds(self, link: Link) -> bool:
        """For the connections: does a partition hold back what is sent?"""
        return bool(self._faults) and self._fault("partition", link.place) is not None

    def latency_s(self, link: Link) -> float:
        """For the connections: how long a segment travels, in seconds."""
        return self._travel_s(link.place)

    def closed(self, link: Link) -> None:
        """For the connections: both sides have closed this one."""
        self._links.pop(link, None)

    # -- faults

    def partition(self, host: str | None = None, port: int | None = None) -> Fault:
        """Let nothing through, in both directions, of connections to ``(host, port)`` (None: any); lose nothing.

        New connections wait, too.  Nobody is told: only timeouts notice.  What was sent arrives after ``heal``.
        """
        return Fault(self, "partition", host, port)

    def refuse(self, host: str | None = None, port: int | None = None) -> Fault:
        """Refuse new connections to ``(host, port)`` (None: any) with ConnectionRefusedError."""
        return Fault(self, "refuse", host, port)

    def delay(self, seconds: float, host: str | None = None, port: int | None = None) -> Fault:
        """Let what is sent to and from ``(host, port)`` (None: any), and connecting, take ``seconds``."""
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise TypeError(f"seconds must be a number, not {seconds!r}")
        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or more, not {seconds!r}")
        return Fault(self, "delay", host, port, seconds)

    def cut(self, after: int, host: str | None = None, port: int | None = None, *, sender: str = "client") -> Fault:
        """Reset each connection that is made from now on to ``(host, port)`` (None: any) after ``after`` bytes.

        They are counted in what the ``sender``, ``"client"`` or ``"server"``, sends, and do arrive; with 0 the first
        send breaks the connection.
        """
        if not _is_int(after):
            raise TypeError(f"after must be a number of bytes, an int, not {after!r}")
        if after < 0:
            raise ValueError(f"after must be 0 bytes or more, not {after!r}")
        if sender not in ("client", "server"):
            raise ValueError(f'sender must be "client" or "server", not {sender!r}')
        return Fault(self, "cut", host, port, (after, sender))

    def reset(self, writer: StreamWriter | asyncio.StreamWriter | asyncio.BaseTransport) -> None:
        """Break the connection of ``writer``: both sides see ConnectionResetError; what is under way is lost.

        It may be a StreamWriter of asyncio, too, or a transport.
        """
        transport = writer.transport if isinstance(writer, asyncio.StreamWriter) else writer
        if not isinstance(transport, MemoryWriter | MemoryTransport):
            raise TypeError(f"only a connection in memory can be reset, and the writer {writer!r} has none")
        transport.end.link.reset()

    def _fault(self, kind: str, place: Place | None) -> Fault | None:
        """The newest one of that kind for that address."""
        for fault in reversed(self._faults):
            if fault._kind == kind and fault.covers(place):
                return fault
        return None

    def _healed(self) -> None:
        self._route_clear.set()
        for link in list(self._links):
            link.released()

    # -- connecting

    def open_connection(
        self,
        host: str | None = None,
        port: int | str | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        ssl: None = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: Any = None,
        local_addr: tuple[str, int] | None = None,
        all_errors: bool = False,
    ) -> tuple[StreamReader, StreamWriter]:
        """``swapco.open_connection`` in this network; ``proto`` and ``flags`` do nothing.

        Blocks the calling fiber for a turn of the others, until the server has room in its backlog, and until
        no partition is in the way.
        """
        refuse_options(ssl, sock, host is None and port is None, "host/port")
        if host is None and port is None:
            raise ValueError("host and port was not specified and no sock specified")
        return open_streams(self.connect(host, port, family, local_addr, all_errors).client, limit)

    def connect(
        self,
        host: str | None,
        port: int | str | None,
        family: int,
        local_addr: tuple[str, int] | None,
        all_errors: bool,
    ) -> Link:
        """For streams: a new connection.  Blocks as ``open_connection`` does."""
        errors: list[OSError] = []
        try:
            for kind, name in _addresses(host, family, LOOPBACK):
                try:
                    local = None if local_addr is None else self._local(kind, *local_addr)
                    return self._connect(kind, (name, _port_number(port)), local)
                except OSError as error:
                    errors.append(error)
            if all_errors:
                raise ExceptionGroup("create_connection failed", errors)
            if len({str(error) for error in errors}) == 1:
                raise errors[0]
            raise OSError(f"Multiple exceptions: {', '.join(str(error) for error in errors)}")
        finally:
            errors.clear()  # no cycle with their tracebacks

    def open_unix_connection(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        ssl: None = None,
        sock: Any = None,
    ) -> tuple[StreamReader, StreamWriter]:
        """``swapco.open_unix_connection`` in this network: the paths are its own, no files."""
        refuse_options(ssl, sock, path is None, "path")
        if path is None:
            raise ValueError("no path and sock were specified")
        return open_streams(self.connect_to_path(path).client, limit)

    def connect_to_path(self, path: str | bytes | os.PathLike[str]) -> Link:
        """For streams: a new connection.  Blocks as ``open_unix_connection`` does."""
        return self._connect(AF_UNIX, (os.fspath(path), None), "")

    def _connect(self, family: int, place: Place, local: Any) -> Link:
        name = _socket_name(family, place)
        self._route_clear.wait_while(lambda: self._faults and self._fault("partition", place))
        while True:
            listener = self._listener_at(family, place)
            if not isinstance(listener, Listener):
                sleep(self._travel_s(place))
                raise _connect_error(family, name, listener)
            if not listener.full:
                break
            listener.wait_for_room()
        if local is None:
            local = _socket_name(family, (place[0], self._free_port()))
        cut = self._fault("cut", place)
        link = Link(self, local, name, family=family, buffer_size=self.buffer_size, place=place)
        if cut is not None:
            getattr(link, cut._amount[1]).send_limit = cut._amount[0]
        self._links[link] = None
        listener.add(link)
        try:
            # the answer takes its time: others run meanwhile
            sleep(self._travel_s(place))
        except BaseException:
            link.client.close()
            raise
        return link

    def _travel_s(self, place: Place | None) -> float:
        fault = self._fault("delay", place) if self._faults else None
        return 0.0 if fault is None else float(fault._amount)

    def _listener_at(self, family: int, place: Place) -> Listener | int:
        """Who answers at that address; or the number of the error that the kernel would answer with."""
        hosts = (place[0], WILDCARDS.get(_stdlib.AddressFamily(family)))
        there = [
            one
            for one in self._listeners
            if one.family == family
            and (one.getsockname() == place[0] if family == AF_UNIX else _at(one, hosts, place[1]))
        ]
        found = [one for one in there if one.listening]
        if not found or (self._faults and self._fault("refuse", place)):
            missing = family == AF_UNIX and not there and not _is_abstract(place[0])
            return errno.ENOENT if missing else errno.ECONNREFUSED
        return found[self.choose(len(found), "network.bind") if len(found) > 1 else 0]

    def _local(self, family: int, host: str, port: int) -> Any:
        kinds = [name for kind, name in _addresses(host, family, LOOPBACK) if kind == family]
        if not kinds:
            raise OSError(f"no matching local address with family={family!r} found")
        name = _socket_name(family, (kinds[0], port or self._free_port()))
        if any(_at(one, (kinds[0], WILDCARDS[_stdlib.AddressFamily(family)]), port) for one in self._listeners):
            raise _bind_error(name)
        return name

    def _free_port(self) -> int:
        for _ in range(FIRST_PORT, 65536):
            self._last_port = self._last_port + 1 if self._last_port < 65535 else FIRST_PORT
            used = (one.getsockname()[1] for one in self._listeners if one.family != AF_UNIX)
            if self._last_port not in used:
                return self._last_port
        raise os_error(errno.EADDRNOTAVAIL)

    # -- serving

    def start_server(
        self,
        client_connected_cb: Callback,
        host: str | Sequence[str] | None = None,
        port: int | str | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        family: int = 0,
        flags: int = 1,
        sock: Any = None,
        backlog: int = 100,
        ssl: None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        start_serving: bool = True,
    ) -> Server:
        """``swapco.start_server`` in this network; ``flags``, ``reuse_address`` and ``keep_alive`` do nothing.

        Does not block.  OSError (EADDRINUSE) if another server of this network has the address.
        """
        refuse_options(ssl, sock, host is None and port is None, "host/port")
        if host is None and port is None:
            raise ValueError("Neither host/port nor sock were specified")
        bound = self.bind(host, port, family, bool(reuse_port))
        return self._serve(client_connected_cb, bound, limit, backlog, start_serving)

    def bind(
        self, host: str | Sequence[str] | None, port: int | str | None, family: int, reuse_port: bool
    ) -> list[Listener]:
        """For servers: listeners at these addresses, which do not listen yet.  OSError if one is taken."""
        hosts = [host] if host is None or isinstance(host, str) else list(host)
        found = dict.fromkeys(kind for one in hosts for kind in _addresses(one, family, WILDCARDS))
        bound: list[Listener] = []
        try:
            for kind, name in found:
                bound.append(self._bind(kind, name, _port_number(port), reuse_port))
        except BaseException:
            for listener in bound:
                listener.close()
            raise
        return bound

    def start_unix_server(
        self,
        client_connected_cb: Callback,
        path: str | os.PathLike[str] | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        sock: Any = None,
        backlog: int = 100,
        ssl: None = None,
        start_serving: bool = True,
        cleanup_socket: bool = True,
    ) -> Server:
        """``swapco.start_unix_server`` in this network: no file is made.  Does not block.

        A server that was at ``path`` cannot be reached any more; without ``cleanup_socket`` the path stays after the
        server's end, and connections to it are refused.
        """
        refuse_options(ssl, sock, path is None, "path")
        if path is None:
            raise ValueError("path was not specified, and no sock specified")
        listener = self.bind_path(path, cleanup_socket)
        return self._serve(client_connected_cb, [listener], limit, backlog, start_serving)

    def bind_path(self, path: str | bytes | os.PathLike[str], cleanup_socket: bool) -> Listener:
        """For servers: a listener at a path, which does not listen yet.  OSError if an abstract one is taken."""
        name = os.fspath(path)
        for other in [one for one in self._listeners if one.family == AF_UNIX and one.getsockname() == name]:
            if _is_abstract(name):
                raise OSError(errno.EADDRINUSE, f"Address {name!r} is already in use")
            self._listeners.remove(other)
            other.leaves_path = True  # it has no path to remove any more
        listener = Listener(self, AF_UNIX, name)
        listener.leaves_path = not cleanup_socket and not _is_abstract(name)
        self._listeners.append(listener)
        return listener

    def addresses(self, host: str | None, port: int | str | None, family: int, passive: bool) -> list[tuple[int, Any]]:
        """For resolvers: the family and the address of each that ``host`` stands for; ``passive``: to listen at."""
        number = _port_number(port)
        found = _addresses(host, family, WILDCARDS if passive else LOOPBACK)
        return [(kind, _socket_name(kind, (name, number))) for kind, name in found]

    def _bind(self, family: int, host: str, port: int, shared: bool) -> Listener:
        name = _socket_name(family, (host, port or self._free_port()))
        wildcard = WILDCARDS[_stdlib.AddressFamily(family)]
        for other in self._listeners:
            overlaps = host == wildcard or _at(other, (host, wildcard), name[1])
            same_port = other.family == family and other.getsockname()[1] == name[1]
            if same_port and overlaps and not (shared and other.shared):
                raise _bind_error(name)
        listener = Listener(self, family, name, shared=shared)
        self._listeners.append(listener)
        return listener

    def _serve(
        self, callback: Callback, listeners: list[Listener], limit: int, backlog: int, start_serving: bool
    ) -> Server:
        sockets: Any = listeners
        try:
            if not callable(callback):
                raise TypeError(f"client_connected_cb must be callable, not {callback!r}")
            server = MemoryServer(callback, sockets, limit, backlog)
            if start_serving:
                server.start_serving()
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        return server

    # -- without a server, and under unmodified programs

    def stream_pair(
        self, *, limit: int = DEFAULT_LIMIT
    ) -> tuple[tuple[MemoryReader, MemoryWriter], tuple[MemoryReader, MemoryWriter]]:
        """Both ends of a new connection, as of a ``socketpair``.  Does not block."""
        link = Link(self, "", "", family=AF_UNIX, buffer_size=self.buffer_size)
        self._links[link] = None
        return open_streams(link.client, limit), open_streams(link.server, limit)

    @contextmanager
    def patched(self) -> Iterator[MemoryNetwork]:
        """While the block runs, ``swapco.open_connection``, ``start_server`` and their Unix variants use this network.

        However they were imported, in every fiber and every thread of the process.  In controlled runs those of
        asyncio use it, too, and the methods of the event loop that they call; elsewhere asyncio's stay real.  Blocks
        may be nested: the innermost network counts.  RuntimeError at the end of a block that does not end before those
        around it: then two fibers patch at a time, and each gets the other's network; patch once, around both.
        Sockets made by ``swapco.socket`` stay real.
        """
        _enter(self)
        try:
            yield self
        except BaseException:
            _leave(self)
            raise
        if not _leave(self):
            raise RuntimeError(
                f"{self!r} was patched in, then another network, and this block ended first: nest the blocks, or "
                "patch once around all fibers"
            )


def memory_stream_pair(
    *, limit: int = DEFAULT_LIMIT, buffer_size: int = BUFFER_SIZE
) -> tuple[tuple[MemoryReader, MemoryWriter], tuple[MemoryReader, MemoryWriter]]:
    """``((reader, writer), (reader, writer))``: both ends of a connection in memory, without a server.

    ``limit`` (bytes) is the longest line that the readers return, ``buffer_size`` (bytes) what the connection holds
    in each direction until somebody reads.  The two ends behave as those of a ``socketpair``.  Does not block.
    """
    return MemoryNetwork(buffer_size=buffer_size).stream_pair(limit=limit)


# ---------------------------------------------------------------------------------------------- addresses


def _addresses(host: str | None, family: int, default: dict[_stdlib.AddressFamily, str]) -> list[tuple[int, str]]:
    """What ``host`` stands for; ``default``: the addresses of no host."""
    if host is not None and not isinstance(host, str):
        raise TypeError(f"host is a name or an address, not {host!r}")
    if not host:
        found = [(int(kind), name) for kind, name in default.items()]
    elif host == "localhost":
        found = [(family or AF_INET, LOOPBACK[_stdlib.AddressFamily(family or AF_INET)])]
    elif ":" in host:
        found = [(int(AF_INET6), host)]
    else:
        found = [(int(AF_INET6 if family == AF_INET6 and not _is_ipv4(host) else AF_INET), host)]
    found = [one for one in found if family in (0, one[0])]
    if not found:
        raise _stdlib.gaierror(_stdlib.EAI_ADDRFAMILY, "Address family for hostname not supported")
    return found


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_ipv4(host: str) -> bool:
    return host.replace(".", "").isdigit()


def _is_abstract(path: str | bytes | None) -> bool:
    return not path or path[0] in (0, "\0")


def _port_number(port: int | str | None) -> int:
    try:
        number = int(port or 0)
    except ValueError:
        raise _stdlib.gaierror(_stdlib.EAI_SERVICE, "Servname not supported for ai_socktype") from None
    if not 0 <= number <= 65535:
        raise OverflowError("getsockaddrarg: port must be 0-65535.")
    return number


def _socket_name(family: int, place: Place) -> Any:
    """An address as ``getsockname`` says it."""
    if family == AF_UNIX:
        return place[0]
    return (*place, 0, 0) if family == AF_INET6 else place


def _at(listener: Listener, hosts: tuple[Any, ...], port: int | None) -> bool:
    return listener.family != AF_UNIX and listener.getsockname()[1] == port and listener.getsockname()[0] in hosts


def _connect_error(family: int, name: Any, number: int) -> OSError:
    if family == AF_UNIX:
        return os_error(number)
    return OSError(number, f"Connect call failed {name}: {os.strerror(number)}")


def _bind_error(name: Any) -> OSError:
    error = os_error(errno.EADDRINUSE)
    return OSError(error.errno, f"error while attempting to bind on address {name!r}: {str(error).lower()}")


# ----------------------------------------------------------------------------------------------- patching


# These run in the place of functions of `swapco.streams`, and in its namespace.


def _open_connection(*args: Any, **kwargs: Any) -> Any:
    import swapco.testing.network

    return swapco.testing.network.patched_in().open_connection(*args, **kwargs)


def _open_unix_connection(*args: Any, **kwargs: Any) -> Any:
    import swapco.testing.network

    return swapco.testing.network.patched_in().open_unix_connection(*args, **kwargs)


def _start_server(*args: Any, **kwargs: Any) -> Any:
    import swapco.testing.network

    return swapco.testing.network.patched_in().start_server(*args, **kwargs)


def _start_unix_server(*args: Any, **kwargs: Any) -> Any:
    import swapco.testing.network

    return swapco.testing.network.patched_in().start_unix_server(*args, **kwargs)


def _behaviour(function: Any) -> tuple[CodeType, Any, Any]:
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _behave(function: Any, behaviour: tuple[CodeType, Any, Any]) -> None:
    function.__code__, function.__defaults__, function.__kwdefaults__ = behaviour


#: A function, how it behaves, and how it behaves while a network is patched in.
_PATCHES = [
    (original, _behaviour(original), _behaviour(substitute))
    for original, substitute in (
        (streams.open_connection, _open_connection),
        (streams.open_unix_connection, _open_unix_connection),
        (streams.start_server, _start_server),
        (streams.start_unix_server, _start_unix_server),
    )
]


def patched_in() -> MemoryNetwork:
    """The network that streams are made in at the moment."""
    network = _patched_in[-1]
    assert isinstance(network, MemoryNetwork)
    return network


def _enter(network: MemoryNetwork) -> None:
    _patched_in.append(network)
    if len(_patched_in) == 1:
        for function, _, substitute in _PATCHES:
            _behave(function, substitute)


def _leave(network: MemoryNetwork) -> bool:
    """Was it the innermost one?"""
    at = len(_patched_in) - 1
    while _patched_in[at] is not network:
        at -= 1
    innermost = at == len(_patched_in) - 1
    del _patched_in[at]
    if not _patched_in:
        for function, original, _ in _PATCHES:
            _behave(function, original)
    return innermost
