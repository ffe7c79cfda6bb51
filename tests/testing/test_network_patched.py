"""Programs that know nothing of it run on a network in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import in_fiber, settle
from network_support import at_random, echo, parked

import swapco
from swapco import open_connection, start_server, streams
from swapco.testing import network as network_module
from swapco.testing.network import MemoryNetwork, MemoryWriter

pytestmark = pytest.mark.usefixtures("fibers")


EXAMPLES = Path(__file__).parents[2] / "examples"


# ------------------------------------------------------------------------------------ unmodified programs


def application() -> list[str]:
    """As a program has it: names that were imported before any test ran."""
    server = start_server(echo, "localhost", 0)
    reader, writer = open_connection("localhost", server.sockets[0].getsockname()[1])
    writer.write(b"hello")
    answer = reader.readexactly(5)
    writer.close()
    server.close()
    server.wait_closed()
    return [answer.decode(), type(writer).__name__]


@in_fiber
def test_an_unmodified_program() -> None:
    net = MemoryNetwork()
    with net.patched() as same:
        assert same is net
        assert application() == ["hello", "MemoryWriter"]
        assert swapco.start_server is streams.start_server is start_server
        server = swapco.start_unix_server(echo, "no file")
        _, writer = streams.open_unix_connection("no file")
        assert isinstance(writer, MemoryWriter)
        writer.close()
        server.close()
        server.wait_closed()
    assert application() == ["hello", "StreamWriter"]
    settle(3)
    assert net.connections == 0


BEHAVIOURS = [(function, *network_module._behaviour(function)) for function, _, _ in network_module._PATCHES]


@pytest.fixture
def unpatched() -> Iterator[None]:
    """The functions are the original ones afterwards."""
    yield
    for function, *behaviour in BEHAVIOURS:
        assert network_module._behaviour(function) == tuple(behaviour)
    assert not network_module._patched_in


@pytest.mark.usefixtures("unpatched")
@in_fiber
def test_networks_nest() -> None:
    outer, inner = MemoryNetwork(), MemoryNetwork()
    with outer.patched():
        server = start_server(echo, "a", 1)
        with inner.patched():
            with pytest.raises(ConnectionRefusedError):
                open_connection("a", 1)
            with outer.patched():
                _, writer = open_connection("a", 1)
                writer.close()
            with pytest.raises(ConnectionRefusedError):
                open_connection("a", 1)
        _, writer = open_connection("a", 1)
        writer.close()
        server.close()
        server.wait_closed()
    with pytest.raises(ZeroDivisionError), outer.patched():
        raise ZeroDivisionError


@pytest.mark.usefixtures("unpatched")
@in_fiber
def test_two_fibers_that_patch_at_a_time_are_told() -> None:
    go = swapco.Event()

    def second() -> None:
        with MemoryNetwork().patched():
            go.wait()

    with pytest.raises(RuntimeError, match="nest the blocks"):
        with MemoryNetwork().patched():
            other = parked(second)
    go.set()
    other.join()


@pytest.mark.usefixtures("unpatched")
@in_fiber
def test_patching_as_a_decorator() -> None:
    net = MemoryNetwork()

    @net.patched()
    def body() -> list[str]:
        return application()

    assert [body(), body()] == [["hello", "MemoryWriter"]] * 2


@pytest.mark.parametrize("seed", [None, *range(10)])
def test_a_real_server_in_memory(seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key-value server of the examples: a client that hangs up in BLPOP must not take an element with it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from kv.instance import Instance  # type: ignore[import-not-found]
    from kv.server_fibers import Connection  # type: ignore[import-not-found]

    net = MemoryNetwork(choose=None if seed is None else at_random(seed))
    instance = Instance("fibers")

    def handle(reader: Any, writer: Any) -> None:
        connection = Connection(instance, reader, writer)
        try:
            connection.serve()
        except OSError:
            pass
        finally:
            connection.close()

    def command(reader: Any, writer: Any, *words: bytes) -> bytes:
        writer.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        return bytes(reader.readuntil(b"\r\n"))

    def main() -> None:
        with net.patched(), swapco.start_server(handle, "kv", 6379) as server:
            gone, blocked, pusher = (swapco.open_connection("kv", 6379) for _ in range(3))
            first = parked(command, *gone, b"BLPOP", b"list", b"0")
            second = parked(command, *blocked, b"BLPOP", b"list", b"0")
            first.cancel()
            gone[1].close()
            settle(20)
            assert command(*pusher, b"RPUSH", b"list", b"element") == b":1\r\n"
            assert second.join() == b"*2\r\n"
            assert blocked[0].readexactly(23) == b"$4\r\nlist\r\n$7\r\nelement\r\n"
            for _, writer in (blocked, pusher):
                writer.close()
            server.close()
        settle(6)
        assert net.connections == 0

    swapco.run(main)
