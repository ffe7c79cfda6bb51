"""The server on uvloop's streams, to compare with: `server_fibers` with `async` and `await`.

The one other difference is to uvloop's advantage. Every write is work for its transport, so that the replies
to a chunk are joined by hand, as one does who knows it; `server_fibers` leaves that to the writer.
"""

import asyncio
import signal
from collections import deque
from contextlib import suppress

import uvloop

from kv.commands import execute, popped
from kv.instance import (
    ACCEPT_BACKLOG,
    CHUNK,
    GRACE_S,
    LARGE_REPLY,
    LINGER_S,
    MAX_OUTBOX,
    MAX_READ_AHEAD,
    PURGE_INTERVAL_S,
    PURGE_LIMIT,
    Instance,
    announce,
)
from kv.protocol import Parser, Request, error
from kv.store import Store, Waiter


class Connection:
    """One client, served by the task that makes this object."""

    def __init__(
        self, instance: Instance, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.instance = instance
        self.reader = reader
        self.writer = writer
        self.task = task
        self.client = instance.connect(self.push)
        self.parser = Parser()
        self.requests: list[Request] = []  # received; those that are done included
        self.hung_up = False
        self.outbox: deque[bytes] = deque()  # what `deliver` has not brought to the client yet
        self.outbox_size = 0
        self.delivery: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answers requests until the client leaves."""
        client, parser = self.client, self.parser
        while not client.closing and (data := await self.reader.read(CHUNK)):
            self.requests = parser.feed(data)
            replies: list[bytes] = []
            for request in self.requests:  # it grows if we have to wait: see `watch`
                reply = execute(client, request)
                if isinstance(reply, Waiter):
                    self.send(b"".join(replies))
                    replies.clear()
                    reply = await self.wait(reply)
                replies.append(reply)
                if client.closing:
                    break
                if len(reply) >= LARGE_REPLY:
                    self.send(b"".join(replies))
                    replies.clear()
                    await self.writer.drain()
            if replies:
                self.send(b"".join(replies))
            self.instance.commands += len(self.requests)
            if parser.error is not None and not client.closing:
                await self.refuse(parser.error)
                return
            await self.writer.drain()
        if client.closing and self.delivery is not None:
            await self.delivery

    def send(self, reply: bytes) -> None:
        if self.outbox:
            self.outbox.append(reply)
            self.outbox_size += len(reply)
        else:
            self.writer.write(reply)

    async def refuse(self, reason: str) -> None:
        """Ends a conversation that makes no sense.

        Closing a socket with unread input resets the connection, and the client would never see why.
        """
        self.client.reset()
        self.send(error(f"ERR {reason}"))
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                if self.delivery is not None:
                    await self.delivery
                self.writer.write_eof()
                while await self.reader.read(CHUNK):
                    pass

    # Blocking commands

    async def wait(self, waiter: Waiter) -> bytes:
        """Waits until a push serves the waiter, its time is up, or the client hangs up."""
        ready = asyncio.Event()
        waiter.notify = ready.set
        delivered = False
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self.watch(ready))
                with suppress(TimeoutError):
                    async with asyncio.timeout(waiter.timeout_s):
                        await ready.wait()
                watcher.cancel()
            delivered = waiter.element is not None and not self.hung_up
        finally:
            if not delivered:
                self.client.store.give_up(waiter)
        if self.hung_up:
            raise ConnectionResetError("the client hung up while it was blocked")
        return popped(waiter)

    async def watch(self, ready: asyncio.Event) -> None:
        """Reads ahead while the connection's own task waits; ends that wait if the client hangs up."""
        ahead = 0
        with suppress(OSError):
            while ahead <= MAX_READ_AHEAD and (data := await self.reader.read(CHUNK)):
                self.requests += self.parser.feed(data)
                ahead += len(data)
        self.hung_up = True
        ready.set()

    # Messages

    def push(self, message: bytes) -> None:
        """Takes a message for the client. Called by the task that publishes; never blocks."""
        self.outbox.append(message)
        self.outbox_size += len(message)
        if self.outbox_size > MAX_OUTBOX:
            self.task.cancel()
        elif self.delivery is None:
            self.delivery = asyncio.create_task(self.deliver())

    async def deliver(self) -> None:
        """Carries the outbox to the client, at the client's pace."""
        with suppress(OSError):  # the connection's own task learns of it too
            while self.outbox:
                self.writer.write(self.outbox[0])
                await self.writer.drain()
                self.outbox_size -= len(self.outbox.popleft())
        self.delivery = None

    def close(self) -> None:
        self.client.disconnect()
        if self.delivery is not None:
            self.delivery.cancel()
        self.writer.close()


async def serve(host: str, port: int) -> None:
    """Runs the server until SIGINT or SIGTERM."""
    instance = Instance("uvloop")
    connections: set[Connection] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if instance.full:
            writer.write(error("ERR max number of clients reached"))
            writer.close()
            return
        connection = Connection(instance, reader, writer)
        connections.add(connection)
        try:
            await connection.serve()
        except OSError:
            pass  # the client went away
        except asyncio.CancelledError:
            pass  # we end it; older versions of asyncio log a handler that ends cancelled
        finally:
            connections.remove(connection)
            connection.close()

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await asyncio.start_server(handle, host, port, backlog=ACCEPT_BACKLOG)
    purging = asyncio.create_task(purge(instance.store))
    announce(instance.server, server.sockets)
    await stop.wait()
    purging.cancel()
    server.close()
    leaving = list(connections)
    for connection in leaving:
        connection.task.cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            await server.wait_closed()
    for connection in leaving:
        connection.writer.transport.abort()  # whoever has not read what was sent


async def purge(store: Store) -> None:
    """Removes keys that have expired and that nobody asks for."""
    while True:
        await asyncio.sleep(PURGE_INTERVAL_S)
        store.purge(PURGE_LIMIT)


def run(host: str, port: int) -> None:
    uvloop.run(serve(host, port))
