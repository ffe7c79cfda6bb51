"""``Server``: a fiber that accepts for each listening socket, and a fiber for each connection.

The callback's fiber is the connection's: when it raises, the error is reported to the loop's exception handler
and the connection closed; when it is cancelled, the connection is closed.  A callback that returns without
closing leaves the connection to whoever kept the writer, as in asyncio; if nobody did, the writer is closed with
a ResourceWarning when it is collected, which is at once.

``accept`` fails when the process or the machine is out of descriptors or memory.  That passes: the accepting fiber
logs a warning, sleeps a second and tries again; the connections wait in the kernel's queue.
"""

from __future__ import annotations

import errno
import inspect
import logging
import os
import stat
import weakref
from typing import TYPE_CHECKING, Any

from .._core.errors import CancelledError
from .._core.parking_lot import ParkingLot
from .._loop.awaiting import await_
from .._loop.compat import get_running_loop
from ..socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_NODELAY, socket
from ..tasks import sleep, spawn
from .writer import connect_streams

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from .._loop.task import Fiber
    from .reader import StreamReader
    from .writer import StreamWriter

__all__ = ["Server", "no_delay"]

logger = logging.getLogger("swapco.streams")

#: what is raised when there is no room for one more connection (ENOSPC: in the poller's set); it passes
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
#: how long the accepting fiber then waits, in seconds
ACCEPT_RETRY_S = 1.0


def no_delay(sock: socket) -> None:
    """Switch Nagle's algorithm off where there is one: the writer collects by itself."""
    if sock.family in (AF_INET, AF_INET6) and sock.proto in (0, IPPROTO_TCP):
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)


class Server:
    """Listens on sockets and runs a callback in a fiber of its own for each connection; see ``start_server``.

    As a context manager: leaving the block closes the server and, unless an exception is on its way, waits for
    its connections as ``wait_closed`` does.
    """

    def __init__(
        self,
        callback: Callable[[StreamReader, StreamWriter], Any],
        sockets: Iterable[socket],
        limit: int,
        backlog: int,
        *,
        accept_retry_s: float = ACCEPT_RETRY_S,
        unlink: tuple[str, int] | None = None,
    ) -> None:
        self._callback = callback
        self._sockets: list[socket] | None = list(sockets)
        self._limit = limit
        self._backlog = backlog
        self._accept_retry_s = accept_retry_s
        self._unlink = unlink
        loop = get_running_loop()
        assert loop is not None
        self._loop = loop
        self._serving = False
        self._acceptors: list[Fiber] = []
        # the connections whose callback runs; those that outlived it
        self._active: dict[Fiber, StreamWriter] = {}
        self._kept: weakref.WeakSet[StreamWriter] = weakref.WeakSet()
        self._closing = ParkingLot()
        self._forever: ParkingLot | None = None

    def __repr__(self) -> str:
        return f"<Server sockets={self.sockets!r} connections={len(self._active)}>"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self.wait_closed()

    def get_loop(self) -> AbstractEventLoop:
        """The event loop that the server belongs to."""
        return self._loop

    def is_serving(self) -> bool:
        """True while new connections are accepted."""
        return self._serving

    @property
    def sockets(self) -> tuple[socket, ...]:
        """The listening sockets; empty once the server is closed."""
        return () if self._sockets is None else tuple(self._sockets)

    # -- serving

    def start_serving(self) -> None:
        """Start accepting, if that has not happened yet.  Does not block."""
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        if self._serving:
            return
        self._serving = True
        for listener in self._sockets:
            listener.listen(self._backlog)
            self._acceptors.append(
                spawn(self._accept_from, listener, name=f"accept on {listener.getsockname()!r}")
            )

    def serve_forever(self) -> None:
        """Start accepting, and block the calling fiber until it is cancelled or the server is closed.

        Both raise CancelledError; a cancellation closes the server.
        """
        if self._forever is not None:
            raise RuntimeError(f"another fiber is in serve_forever() of {self!r} already")
        self.start_serving()
        self._forever = ParkingLot()
        try:
            self._forever.park()
        finally:
            self._forever = None
            self.close()
        self.wait_closed()
        raise CancelledError

    def _accept_from(self, listener: socket) -> None:
        try:
            while self._sockets is not None:
                try:
                    self._begin(*listener.accept())
                except ConnectionError:
                    continue  # it is gone already
                except OSError as error:
                    if self._sockets is None:
                        return
                    if error.errno not in OUT_OF_RESOURCES:
                        raise
                    logger.warning(
                        "accept on %r failed, next try in %g s: %s", listener, self._accept_retry_s, error
                    )
                    sleep(self._accept_retry_s)
        finally:
            self.close()  # cancelled, at the end of the program say: nobody accepts any more

    def _begin(self, sock: socket, address: Any) -> None:
        """Give a new connection its fiber."""
        try:
            no_delay(sock)
            reader, writer = connect_streams(sock, self._limit, address)
        except BaseException:
            sock.close()
            raise
        fiber = spawn(self._serve, reader, writer)
        self._active[fiber] = writer
        fiber.add_done_callback(self._ended)

    def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            result = self._callback(reader, writer)
            if inspect.iscoroutine(result):
                await_(result)
        except CancelledError:
            writer.close()
            raise
        except Exception as error:
            writer.close()
            self._loop.call_exception_handler(
                {
                    "message": "Unhandled exception in client_connected_cb",
                    "exception": error,
                    "transport": writer,
                }
            )

    def _ended(self, fiber: Fiber) -> None:
        """A callback's fiber is done."""
        writer = self._active.pop(fiber)
        if fiber.cancelled():
            writer.close()  # it may never have run
        elif not writer.is_closing():
            self._kept.add(writer)
        if not self._active and self._sockets is None:
            self._closing.unpark_all()

    # -- the end

    def close(self) -> None:
        """Stop accepting and close the listening sockets; connections go on.  Does not block."""
        sockets = self._sockets
        if sockets is None:
            return
        self._sockets = None
        self._serving = False
        for listener in sockets:
            listener.close()
        for acceptor in self._acceptors:
            acceptor.cancel()
        if self._unlink is not None:
            _unlink_socket(*self._unlink)
        if self._forever is not None:
            self._forever.unpark()
        if not self._active:
            self._closing.unpark_all()

    def close_clients(self) -> None:
        """Close every connection, sending what is collected first.  Does not block."""
        for writer in [*self._active.values(), *self._kept]:
            writer.close()

    def abort_clients(self) -> None:
        """Close every connection at once, dropping what is not sent.  Does not block."""
        for writer in [*self._active.values(), *self._kept]:
            writer.abort()

    def wait_closed(self) -> None:
        """Block the calling fiber until the server is closed and the callbacks of all its connections ended."""
        while self._sockets is not None or self._active:
            self._closing.park()


def _unlink_socket(path: str, inode: int) -> None:
    """Remove the file of a Unix server, if it is still that server's."""
    try:
        found = os.stat(path)
        if stat.S_ISSOCK(found.st_mode) and found.st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("the socket %r could not be removed: %s", path, error)
