"""Echo servers, one per API: what does one request of 1 KiB cost the *server*?

Every server does the same: read at most 4 KiB, send back what was read, until the peer closes; a flow
of its own for each connection (uvloop's Protocol has none: it is the floor that callbacks can reach).
TCP_NODELAY everywhere, because asyncio's transports set it. Each function serves until it is killed.

Unit: CPU time of the server process (user and system, all threads) per request, in ns. Not requests per
second: with the load generator on another CPU that mostly measures who waits for whom; CPU per request
says how many servers fit on a machine, and is steadier.  The generator is ``loadgen.c``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

# The libraries are imported inside the functions: each function runs in a process of its own, and none
# may carry the others' state.

HOST = "127.0.0.1"
BACKLOG = 512
READ_BYTES = 4096

Ready = Callable[[int], None]
"""Tells the harness the port on which the server now listens."""


def swapco_sockets(ready: Ready, switch: str | None = None) -> None:
    """One fiber a connection, plain sockets."""
    from swapco import run, socket, spawn

    def echo(conn: Any) -> None:
        with conn:
            conn.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            while data := conn.recv(READ_BYTES):
                conn.sendall(data)

    def main() -> None:
        listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        ready(listener.getsockname()[1])
        while True:
            conn, _ = listener.accept()
            spawn(echo, conn)

    run(main, switch=switch)


def swapco_sockets_on_greenlets(ready: Ready) -> None:
    """The same server; greenlets carry the fibers."""
    swapco_sockets(ready, switch="greenlet")


def gevent_sockets(ready: Ready) -> None:
    """One greenlet a connection, plain sockets."""
    from gevent.server import StreamServer

    def echo(conn: Any, address: object) -> None:
        conn.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        while data := conn.recv(READ_BYTES):
            conn.sendall(data)

    server = StreamServer((HOST, 0), echo, backlog=BACKLOG)
    server.start()
    ready(server.server_port)
    server.serve_forever()


def uvloop_protocol(ready: Ready) -> None:
    """No flow at all: callbacks."""
    import uvloop

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, HOST, 0, backlog=BACKLOG)
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def swapco_streams(ready: Ready) -> None:
    """One fiber a connection, streams."""
    from swapco import run, start_server

    def echo(reader: Any, writer: Any) -> None:
        while data := reader.read(READ_BYTES):
            writer.write(data)
            writer.drain()
        writer.close()

    def main() -> None:
        server = start_server(echo, HOST, 0, backlog=BACKLOG)
        ready(server.sockets[0].getsockname()[1])
        server.serve_forever()

    run(main)


def uvloop_streams(ready: Ready) -> None:
    """One task a connection, asyncio's streams."""
    import uvloop

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, HOST, 0, backlog=BACKLOG)
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
