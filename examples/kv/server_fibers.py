"""The server on fibers: one per connection, and straight-line code in each.

Where a connection waits, it says so with an ordinary call (`reader.read`, `writer.drain`, `ready.wait`), and
another fiber runs. `writer.write` only collects: the replies to all requests of one chunk leave in one send
when the fiber waits for the next chunk.

A connection needs a second fiber in two situations only:

- It is blocked in BLPOP. Then another fiber reads ahead, to learn that the client has hung up: an element
  must not go to a client that is gone while others wait for it.
- It subscribes. A message comes from the fiber that publishes, which must not wait for a slow reader: it puts
  the message into the connection's outbox, and a fiber carries the outbox to the client.
"""

import asyncio
import signal
from collections import deque
from contextlib import suppress

import swapco
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
    """One client, served by the fiber that makes this object."""

    def __init__(self, instance: Instance, reader: swapco.StreamReader, writer: swapco.StreamWriter) -> None:
        self.instance = instance
        self.reader = reader
        self.writer = writer
        self.fiber = swapco.current_fiber()
        self.client = instance.connect(self.push)
        self.parser = Parser()
        self.requests: list[Request] = []  # received; those that are done included
        self.hung_up = False
        self.outbox: deque[bytes] = deque()  # what `deliver` has not brought to the client yet
        self.outbox_size = 0
        self.delivery: swapco.Fiber | None = None

    def serve(self) -> None:
        """Answers requests until the client leaves."""
        client, parser = self.client, self.parser
        while not client.closing and (data := self.reader.read(CHUNK)):
            self.requests = parser.feed(data)
            for request in self.requests:  # it grows if we have to wait: see `watch`
                reply = execute(client, request)
                if isinstance(reply, Waiter):
                    reply = self.wait(reply)
                self.send(reply)
                if client.closing:
                    break
                if len(reply) >= LARGE_REPLY:
                    self.writer.drain()
            self.instance.commands += len(self.requests)
            if parser.error is not None and not client.closing:
                self.refuse(parser.error)
                return
            self.writer.drain()
        if client.closing and self.delivery is not None:
            self.delivery.join()

    def send(self, reply: bytes) -> None:
        if self.outbox:
            self.outbox.append(reply)
            self.outbox_size += len(reply)
        else:
            self.writer.write(reply)

    def refuse(self, reason: str) -> None:
        """Ends a conversation that makes no sense.

        Closing a socket with unread input resets the connection, and the client would never see why.
        """
        self.client.reset()
        self.send(error(f"ERR {reason}"))
        with suppress(TimeoutError), swapco.timeout(LINGER_S):
            if self.delivery is not None:
                self.delivery.join()
            self.writer.write_eof()
            while self.reader.read(CHUNK):
                pass

    # Blocking commands

    def wait(self, waiter: Waiter) -> bytes:
        """Waits until a push serves the waiter, its time is up, or the client hangs up."""
        ready = swapco.Event()
        waiter.notify = ready.set
        delivered = False
        try:
            with swapco.TaskGroup() as group:
                watcher = group.spawn(self.watch, ready)
                with suppress(TimeoutError), swapco.timeout(waiter.timeout_s):
                    ready.wait()
                watcher.cancel()
            delivered = waiter.element is not None and not self.hung_up
        finally:
            if not delivered:
                self.client.store.give_up(waiter)
        if self.hung_up:
            raise ConnectionResetError("the client hung up while it was blocked")
        return popped(waiter)

    def watch(self, ready: swapco.Event) -> None:
        """Reads ahead while the connection's own fiber waits; ends that wait if the client hangs up."""
        ahead = 0
        with suppress(OSError):
            while ahead <= MAX_READ_AHEAD and (data := self.reader.read(CHUNK)):
                self.requests += self.parser.feed(data)
                ahead += len(data)
        self.hung_up = True
        ready.set()

    # Messages

    def push(self, message: bytes) -> None:
        """Takes a message for the client. Called by the fiber that publishes; never blocks."""
        self.outbox.append(message)
        self.outbox_size += len(message)
        if self.outbox_size > MAX_OUTBOX:
            self.fiber.cancel()
        elif self.delivery is None:
            self.delivery = swapco.spawn(self.deliver)

    def deliver(self) -> None:
        """Carries the outbox to the client, at the client's pace."""
        with suppress(OSError):  # the connection's own fiber learns of it too
            while self.outbox:
                self.writer.write(self.outbox[0])
                self.writer.drain()
                self.outbox_size -= len(self.outbox.popleft())
        self.delivery = None

    def close(self) -> None:
        self.client.disconnect()
        if self.delivery is not None:
            self.delivery.cancel()
        self.writer.close()


def serve(host: str, port: int) -> None:
    """Runs the server until SIGINT or SIGTERM."""
    instance = Instance("fibers")
    connections: set[Connection] = set()

    def handle(reader: swapco.StreamReader, writer: swapco.StreamWriter) -> None:
        if instance.full:
            writer.write(error("ERR max number of clients reached"))
            writer.close()
            return
        connection = Connection(instance, reader, writer)
        connections.add(connection)
        try:
            connection.serve()
        except OSError:
            pass  # the client went away
        finally:
            connections.remove(connection)
            connection.close()

    stop = swapco.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = swapco.start_server(handle, host, port, backlog=ACCEPT_BACKLOG)
    swapco.spawn(purge, instance.store)
    announce(instance.server, server.sockets)
    stop.wait()
    server.close()
    leaving = list(connections)
    for connection in leaving:
        connection.fiber.cancel()
    with suppress(TimeoutError), swapco.timeout(GRACE_S):
        server.wait_closed()
    for connection in leaving:
        connection.writer.transport.abort()  # whoever has not read what was sent


def purge(store: Store) -> None:
    """Removes keys that have expired and that nobody asks for."""
    while True:
        swapco.sleep(PURGE_INTERVAL_S)
        store.purge(PURGE_LIMIT)


def run(host: str, port: int) -> None:
    swapco.run(serve, host, port)
