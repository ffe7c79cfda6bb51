"""Streams: asyncio's, without ``await``.

``open_connection`` and ``start_server`` here, the classes in ``_streams/``: ``reader``, ``writer``, ``server``.
Differences from asyncio: a write is sent before the fiber gives the CPU away, not at once (see ``writer``); the
transport is the writer itself; TLS is not part of this release.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import socket as _socket
from ._core.errors import NotInFiber
from ._loop.compat import get_running_loop
from ._loop.poller import require_io
from ._streams.reader import StreamReader
from ._streams.server import Server, no_delay
from ._streams.writer import StreamWriter, connect_streams

__all__ = [
    "Server",
    "StreamReader",
    "StreamWriter",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]

DEFAULT_LIMIT = 65536

Callback = Callable[[StreamReader, StreamWriter], Any]


# ------------------------------------------------------------------------------------------ connecting


def open_connection(
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
    """Connect to ``(host, port)``, or take over the connected ``sock``: a reader and a writer.

    Blocks the calling fiber.  ``limit`` (bytes) is the longest line that the reader returns; ``family``, ``proto``
    and ``flags`` are getaddrinfo's; ``local_addr`` is ``(host, port)`` to bind to.  The addresses of the host are
    tried one after the other.  Errors: OSError when none can be reached, with ``all_errors`` an ExceptionGroup;
    ValueError for arguments that contradict each other, and for ``ssl=``: TLS comes with a later release.
    """
    _refuse_tls(ssl)
    if sock is not None:
        if host is not None or port is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        sock = _stream_socket(sock)
    elif host is None and port is None:
        raise ValueError("host and port was not specified and no sock specified")
    else:
        sock = _connect_to_any(host, port, family, proto, flags, local_addr, all_errors)
    return _streams(sock, limit)


def open_unix_connection(
    path: str | os.PathLike[str] | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    ssl: None = None,
    sock: Any = None,
) -> tuple[StreamReader, StreamWriter]:
    """Connect to the Unix socket at ``path``, or take over ``sock``: a reader and a writer.  Blocks the fiber."""
    _refuse_tls(ssl)
    if sock is not None:
        if path is not None:
            raise ValueError("path and sock can not be specified at the same time")
        return _streams(_stream_socket(sock, _socket.AF_UNIX), limit)
    if path is None:
        raise ValueError("no path and sock were specified")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return _streams(sock, limit)


def _streams(sock: Any, limit: int) -> tuple[StreamReader, StreamWriter]:
    try:
        no_delay(sock)
        return connect_streams(sock, limit)
    except BaseException:
        sock.close()
        raise


def _connect_to_any(
    host: str | None,
    port: int | str | None,
    family: int,
    proto: int,
    flags: int,
    local_addr: tuple[str, int] | None,
    all_errors: bool,
) -> Any:
    """A socket connected to the first address that answers."""
    found = _socket.getaddrinfo(host, port, family, _socket.SOCK_STREAM, proto, flags)
    if not found:
        raise OSError("getaddrinfo() returned empty list")
    local = None
    if local_addr is not None:
        local = _socket.getaddrinfo(*local_addr, family, _socket.SOCK_STREAM, proto, flags)
        if not local:
            raise OSError("getaddrinfo() returned empty list")
    errors: list[OSError] = []
    try:
        for kind in found:
            try:
                return _connect_to(kind, local)
            except OSError as error:
                errors.append(error)
        if all_errors:
            raise ExceptionGroup("create_connection failed", errors)
        if len({str(error) for error in errors}) == 1:
            raise errors[0]
        raise OSError(f"Multiple exceptions: {', '.join(str(error) for error in errors)}")
    finally:
        errors.clear()  # no cycle with their tracebacks


def _connect_to(kind: tuple[Any, ...], local: list[tuple[Any, ...]] | None) -> Any:
    family, type_, proto, _, address = kind
    sock = _socket.socket(family, type_, proto)
    try:
        if local is not None:
            _bind_to_any(sock, family, local)
        sock.connect(address)
    except OSError as error:
        sock.close()
        if error.errno is None:
            raise
        raise OSError(error.errno, f"Connect call failed {address}: {os.strerror(error.errno)}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_to_any(sock: Any, family: int, local: list[tuple[Any, ...]]) -> None:
    """Bind to the first local address of the family that can be bound to."""
    failed = None
    for kind in local:
        if kind[0] != family:
            continue
        try:
            sock.bind(kind[4])
        except OSError as error:
            failed = OSError(
                error.errno, f"error while attempting to bind on address {kind[4]!r}: {str(error).lower()}"
            )
        else:
            return
    raise failed or OSError(f"no matching local address with family={family!r} found")


# --------------------------------------------------------------------------------------------- serving


def start_server(
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
    """Listen on ``(host, port)``, or on ``sock``, and call ``client_connected_cb(reader, writer)`` for each
    connection, in a fiber of its own; the callback is a function or an ``async def`` function.

    ``host`` is a name or an address, a sequence of them, or None for every interface; port 0 lets the kernel
    choose.  ``limit`` (bytes) is the longest line that readers return.  Blocks the calling fiber only to resolve
    names.  Errors: OSError if an address cannot be bound to; ValueError for arguments that contradict each other,
    and for ``ssl=``: TLS comes with a later release.
    """
    _may_serve("start_server", ssl)
    if sock is not None:
        if host is not None or port is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        listeners = [_stream_socket(sock)]
    elif host is None and port is None:
        raise ValueError("Neither host/port nor sock were specified")
    else:
        hosts = [None] if host == "" else [host] if host is None or isinstance(host, str) else list(host)
        found: dict[tuple[Any, ...], None] = {}
        for one in hosts:
            kinds = _socket.getaddrinfo(one, port, family, _socket.SOCK_STREAM, 0, flags)
            found.update(dict.fromkeys(kinds))
        listeners = _listeners(
            list(found), reuse_address is not False, bool(reuse_port), bool(keep_alive)
        )
    return _server(client_connected_cb, listeners, limit, backlog, start_serving)


def start_unix_server(
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
    """``start_server`` for a Unix socket at ``path``.  Does not block.

    A socket that is left at ``path`` by somebody else is replaced; with ``cleanup_socket`` the server's own is
    removed when the server is closed.
    """
    _may_serve("start_unix_server", ssl)
    unlink = None
    if sock is not None:
        if path is not None:
            raise ValueError("path and sock can not be specified at the same time")
        sock = _stream_socket(sock, _socket.AF_UNIX)
        name = sock.getsockname()
    elif path is None:
        raise ValueError("path was not specified, and no sock specified")
    else:
        name = os.fspath(path)
        sock = _unix_listener(name)
    if cleanup_socket and name and name[0] not in (0, "\x00"):
        try:
            unlink = (name, os.stat(name).st_ino)
        except FileNotFoundError:
            pass
    return _server(client_connected_cb, [sock], limit, backlog, start_serving, unlink)


def _server(
    callback: Callback,
    listeners: list[Any],
    limit: int,
    backlog: int,
    start_serving: bool,
    unlink: tuple[str, int] | None = None,
) -> Server:
    try:
        if not callable(callback):
            raise TypeError(f"client_connected_cb must be callable, not {callback!r}")
        server = Server(callback, listeners, limit, backlog, unlink=unlink)
        if start_serving:
            server.start_serving()
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return server


def _listeners(
    kinds: Iterable[tuple[Any, ...]], reuse_address: bool, reuse_port: bool, keep_alive: bool
) -> list[Any]:
    """A bound socket for each address; all or none."""
    bound: list[Any] = []
    tried = []
    try:
        for family, type_, proto, _, address in kinds:
            tried.append(address)
            try:
                sock = _socket.socket(family, type_, proto)
            except OSError:
                continue  # a family that this kernel does not have
            bound.append(sock)
            if reuse_address:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
            if keep_alive:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
            if family == _socket.AF_INET6:
                # else it would take the IPv4 port of the same number, too
                sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    bound.pop().close()  # a family that is switched off
                    continue
                raise OSError(
                    error.errno, f"error while attempting to bind on address {address!r}: {str(error).lower()}"
                ) from None
        if not bound:
            raise OSError(f"could not bind on any address out of {tried!r}")
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def _unix_listener(name: str | bytes) -> Any:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        if name and name[0] not in (0, "\x00"):
            try:
                if stat.S_ISSOCK(os.stat(name).st_mode):
                    os.remove(name)
            except FileNotFoundError:
                pass
        try:
            sock.bind(name)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(errno.EADDRINUSE, f"Address {name!r} is already in use") from None
            raise
    except BaseException:
        sock.close()
        raise
    return sock


# --------------------------------------------------------------------------------------------- arguments


def _may_serve(caller: str, ssl: object) -> None:
    _refuse_tls(ssl)
    if get_running_loop() is None:
        raise NotInFiber(
            f"{caller}() needs a running event loop in this thread: call it from swapco.run(main), or from a fixture "
            "that runs one"
        )
    require_io()


def _refuse_tls(ssl: object) -> None:
    if ssl is not None and ssl is not False:
        raise ValueError("ssl=: TLS is not part of this release of swapco; it comes with a later one")


def _stream_socket(sock: Any, family: int | None = None) -> Any:
    if sock.type != _socket.SOCK_STREAM or (family is not None and sock.family != family):
        kind = "Stream" if family is None else "UNIX Domain Stream"
        raise ValueError(f"A {kind} Socket was expected, got {sock!r}")
    return _socket.adopt(sock)
