"""What several test modules of networks in memory use."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from helpers import settle

import swapco
from swapco import spawn

LOCALHOST = "127.0.0.1"
BUFFER = 65536

Ends = list[tuple[Any, Any]]


def at_random(seed: int) -> Callable[[int, str], int]:
    """A ``choose`` that does anything."""
    rng = random.Random(seed)
    return lambda n, label: rng.randrange(n)


def always(wanted: str, index: int) -> Callable[[int, str], int]:
    """A ``choose`` that always takes ``index`` (or the last one) at the points ``wanted``."""
    return lambda n, label: min(index, n - 1) if label == wanted else 0


def parked(function: Callable[..., Any], *args: Any) -> swapco.Fiber[Any]:
    """A fiber that waits inside ``function``."""
    fiber = spawn(function, *args)
    settle(6)
    assert fiber.state == "BLOCKED", fiber
    return fiber


def connect(net: Any, **kwargs: Any) -> tuple[swapco.Server, Ends]:
    """A server that keeps its connections, and both ends of one: the client's first."""
    accepted: Ends = []
    server = net.start_server(lambda *streams: accepted.append(streams), LOCALHOST, 0)
    client = net.open_connection(*server.sockets[0].getsockname()[:2], **kwargs)
    settle(6)
    return server, [client, accepted[0]]


def finish(server: swapco.Server, ends: Ends) -> None:
    for _, writer in ends:
        writer.abort()
    server.close()
    server.wait_closed()
    settle(3)


def echo(reader: Any, writer: Any) -> None:
    try:
        while data := reader.read(4096):
            writer.write(data)
            writer.drain()
    except ConnectionError:
        pass
    writer.close()


def cancelled(fiber: swapco.Fiber[Any]) -> bool:
    fiber.cancel()
    with pytest.raises(asyncio.CancelledError):
        fiber.join()
    return True
