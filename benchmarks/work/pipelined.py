"""Pipelined small requests: 16 lines arrive at once, each is answered by a write of its own.

What a Redis or HTTP/1.1 server sees from a client that does not wait for each answer. A library that
sends at every ``write`` pays a system call per answer; one that collects what a turn has written pays
one per batch. The handlers are the plain ones: nobody joins the answers by hand.

Unit: CPU time of the server process per request (one line), in ns, as in ``echo.py``.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.work.echo import BACKLOG, HOST, Ready


def swapco_streams(ready: Ready) -> None:
    """One fiber a connection; the writer corks by itself."""
    from swapco import run, start_server

    def answer(reader: Any, writer: Any) -> None:
        while line := reader.readline():
            writer.write(line)
            writer.drain()
        writer.close()

    def main() -> None:
        server = start_server(answer, HOST, 0, backlog=BACKLOG)
        ready(server.sockets[0].getsockname()[1])
        server.serve_forever()

    run(main)


def uvloop_streams(ready: Ready) -> None:
    """One task a connection, asyncio's streams."""
    import uvloop

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, HOST, 0, backlog=BACKLOG)
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
