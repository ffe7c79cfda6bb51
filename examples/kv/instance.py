"""What one server holds: its data, its clients, its limits."""

import socket
import time
from collections.abc import Callable, Iterable

from kv.pubsub import Channels
from kv.store import Store

CHUNK = 64 * 1024  # how much a connection reads at a time
LARGE_REPLY = 16 * 1024  # from here on a reply is sent before the next request is looked at
MAX_CLIENTS = 10_000
MAX_OUTBOX = 32 * 1024 * 1024  # what a subscriber may leave unread before it is thrown out
MAX_READ_AHEAD = 64 * 1024 * 1024  # what a client may send while it is blocked
ACCEPT_BACKLOG = 1024
PURGE_INTERVAL_S = 0.1
PURGE_LIMIT = 1000  # keys at a time
LINGER_S = 1.0  # for a client to read why it is thrown out
GRACE_S = 1.0  # for connections to close when the server stops


class Instance:
    """What all clients of one server share."""

    def __init__(self, server: str) -> None:
        self.server = server  # "fibers" or "uvloop"
        self.store = Store()
        self.channels = Channels()
        self.clients: dict[int, Client] = {}
        self.started_s = time.monotonic()
        self.commands = 0  # received so far
        self.connections = 0  # accepted so far

    @property
    def full(self) -> bool:
        return len(self.clients) >= MAX_CLIENTS

    def connect(self, push: Callable[[bytes], None]) -> "Client":
        """A new client; `push` sends it what it did not ask for just now, and does not block."""
        self.connections += 1
        client = Client(self, self.connections, push)
        self.clients[client.id] = client
        return client


class Client:
    """One connection, as far as the commands know of it."""

    def __init__(self, instance: Instance, id: int, push: Callable[[bytes], None]) -> None:
        self.instance = instance
        self.store = instance.store
        self.id = id
        self.push = push
        self.name = b""
        self.subscriptions: dict[bytes, None] = {}
        self.closing = False
        """Set by QUIT: send the reply, then close."""

    def reset(self) -> None:
        """Forgets all that its commands have changed."""
        for channel in self.subscriptions:
            self.instance.channels.remove(channel, self)
        self.subscriptions.clear()
        self.name = b""

    def disconnect(self) -> None:
        self.reset()
        self.instance.clients.pop(self.id, None)


def announce(server: str, sockets: Iterable[socket.socket]) -> None:
    """Tells on stdout that the server is ready, and where; whoever has started it may read that line."""
    addresses = []
    for sock in sockets:
        host, port, *_ = sock.getsockname()
        addresses.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    print(f"kv_server ({server}) listening on {', '.join(addresses)}", flush=True)
