"""Streams in memory and on sockets: the same bytes, errors and waits.

The oracle is the kernel: random conversations are held over real sockets and in memory, step by step, and must not
differ in anything (`test_a_conversation_is_the_same_as_on_sockets`); the tests of the streams themselves that need no
socket of their own run on a network in memory as well.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import os
import struct
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_streams as stream_tests
from helpers import Logged, in_fiber, settle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_support import BUFFER, LOCALHOST, Ends, at_random, connect, echo, finish, parked

import swapco
from swapco import sleep, socket, spawn, streams
from swapco.testing.memory_streams import open_streams
from swapco.testing.network import MemoryNetwork
from swapco.testing.wire import Link

pytestmark = pytest.mark.usefixtures("fibers")


# ------------------------------------------------------------------------------- the kernel as the oracle

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "write 3": lambda reader, writer: writer.write(b"xyz"),
    "write a line and a half": lambda reader, writer: writer.write(b"a\nbb"),
    "read(2)": lambda reader, writer: reader.read(2),
    "read(100)": lambda reader, writer: reader.read(100),
    "readexactly(4)": lambda reader, writer: reader.readexactly(4),
    "readline": lambda reader, writer: reader.readline(),
    "readuntil": lambda reader, writer: reader.readuntil(b"z"),
    "at_eof": lambda reader, writer: reader.at_eof(),
    "drain": lambda reader, writer: writer.drain(),
    "write_eof": lambda reader, writer: writer.write_eof(),
    "close": lambda reader, writer: writer.close(),
    "abort": lambda reader, writer: writer.abort(),
    "wait_closed": lambda reader, writer: writer.wait_closed(),
    "is_closing": lambda reader, writer: writer.is_closing(),
    "read()": lambda reader, writer: reader.read(),
}
LIKELY = ["write 3", "write a line and a half", "read(2)", "read(100)", "readexactly(4)", "readline"]


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns or raises, or that it blocks."""
    fiber = spawn(call)
    settle(6)
    if not fiber.done():
        fiber.cancel()
        settle(2)
    try:
        return fiber.join()
    except asyncio.CancelledError:
        return "blocks"
    except OSError as error:
        return type(error), error.errno
    except Exception as error:
        return type(error), getattr(error, "partial", None)


def conversation(net: Any, unix: bool, steps: list[tuple[int, str]]) -> list[Any]:
    """The outcomes of operations at the two ends of a connection, one after the other."""
    accepted: Ends = []
    if unix:
        path = f"\0swapco {os.getpid()}"
        server = net.start_unix_server(lambda *streams: accepted.append(streams), path)
        client = net.open_unix_connection(path)
    else:
        server = net.start_server(lambda *streams: accepted.append(streams), LOCALHOST, 0)
        client = net.open_connection(*server.sockets[0].getsockname())
    settle(6)
    ends = [client, *accepted]
    outcomes = []
    for side, name in steps:
        reader, writer = ends[side]
        operation = OPERATIONS[name]
        outcomes.append((side, name, outcome(lambda: operation(reader, writer))))  # noqa: B023
        settle(4)
    finish(server, ends)
    return outcomes


@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(LIKELY) | st.sampled_from(sorted(OPERATIONS))), max_size=14),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_conversation_is_the_same_as_on_sockets(unix: bool, steps: list[tuple[int, str]]) -> None:
    real = swapco.run(conversation, streams, unix, steps)
    assert swapco.run(conversation, MemoryNetwork(), unix, steps) == real


W, R, C = "write 3", "read(100)", "close"

#: Conversations that random ones seldom come to: (end, operation).
SCRIPTS: dict[str, list[tuple[int, str]]] = {
    "the first send after the peer's close": [(0, C), (1, W), (1, W), (1, "drain"), (1, R), (1, "wait_closed")],
    "that, the end having been read": [(0, C), (1, R), (1, W), (1, W), (1, W), (1, R), (1, "at_eof"), (1, C)],
    "a close with something unread": [(1, W), (0, C), (1, R), (1, W), (1, W), (1, "drain"), (1, "wait_closed")],
    "that, and a write first": [(1, W), (0, C), (1, W), (1, W), (1, R), (1, "at_eof"), (1, "drain")],
    "that, and the end of the stream": [(1, W), (0, C), (1, "write_eof"), (1, R), (1, W), (1, "wait_closed")],
    "an end of stream, then a close with something unread": [(1, W), (0, "write_eof"), (0, C), (1, R), (1, W), (1, W)],
    "that, with something to read": [(1, W), (0, W), (0, "write_eof"), (0, C), (1, W), (1, W), (1, R), (1, R)],
    "data before a reset": [(1, W), (0, W), (0, C), (1, "read(2)"), (1, "read(2)"), (1, "read(2)"), (1, W), (1, W)],
    "both ends are closed with something unread": [(0, W), (1, W), (0, C), (1, C), (0, "wait_closed"), (1, "drain")],
    "a half-closed connection": [(0, "write_eof"), (1, R), (1, W), (0, R), (1, W), (1, C), (0, R), (0, W), (0, C)],
    "a close of both halves": [(0, "write_eof"), (1, "write_eof"), (0, R), (1, R), (0, C), (1, W), (1, C)],
    "an abort after a write": [(0, W), (0, "abort"), (1, R), (1, R), (0, R), (0, "drain"), (0, "wait_closed"), (0, W)],
    "at_eof takes what is there": [(0, W), (1, "at_eof"), (0, W), (1, R), (1, R), (0, C), (1, "at_eof"), (1, "at_eof")],
    "at_eof sees an error": [(1, W), (0, C), (1, "at_eof"), (1, R), (1, "wait_closed"), (1, "drain")],
}  # fmt: skip


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_scripted_conversation_is_the_same_as_on_sockets(name: str, unix: bool) -> None:
    real = swapco.run(conversation, streams, unix, SCRIPTS[name])
    assert swapco.run(conversation, MemoryNetwork(), unix, SCRIPTS[name]) == real


SHARED_TESTS = [
    test
    for name, test in vars(stream_tests).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["streams"]
    # these make standard sockets
    if name
    not in {
        "test_a_reset_is_raised_by_read",
        "test_open_connection_of_a_connected_socket",
        "test_arguments_that_contradict_each_other",
        "test_a_server_that_does_not_serve_yet",
    }
]


@pytest.mark.parametrize("seed", [None, 1, 2, 3], ids=lambda seed: "quiet" if seed is None else f"seed-{seed}")
@pytest.mark.parametrize("test", SHARED_TESTS, ids=lambda test: test.__name__)
def test_what_holds_for_streams_on_sockets(test: Any, seed: int | None) -> None:
    net = MemoryNetwork(choose=None if seed is None else at_random(seed))
    kept: list[Any] = []

    def reader_without_peer(limit: int = 65536) -> Any:
        reader, writer = open_streams(Link(net, "", "", family=socket.AF_INET, buffer_size=BUFFER).client, limit)
        kept.append(writer)
        return reader

    def main() -> None:
        test.__wrapped__(
            types.SimpleNamespace(
                name="memory",
                open_connection=net.open_connection,
                start_server=net.start_server,
                StreamReader=reader_without_peer,
            )
        )
        for writer in kept:
            writer.abort()
        settle(3)
        assert net.connections == 0

    assert len(SHARED_TESTS) >= 20
    swapco.run(main)


@pytest.fixture(params=["sockets", "memory", "memory at random"])
def net(request: pytest.FixtureRequest) -> Any:
    """Where streams are made: the same test runs on sockets and in memory."""
    if request.param == "sockets":
        return streams
    return MemoryNetwork(choose=at_random(7) if request.param == "memory at random" else None)


@in_fiber
def test_the_names_of_both_ends(net: Any) -> None:
    server, ends = connect(net, local_addr=(LOCALHOST, 0))
    (_, client), (_, accepted) = ends
    assert client.get_extra_info("peername") == server.sockets[0].getsockname()
    assert client.get_extra_info("sockname") == accepted.get_extra_info("peername")
    assert accepted.get_extra_info("sockname") == server.sockets[0].getsockname()
    sock = accepted.get_extra_info("socket")
    assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
    assert sock.getpeername() == client.get_extra_info("sockname")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert client.get_extra_info("cipher", "none") == "none"
    finish(server, ends)


@in_fiber
def test_the_names_of_a_unix_connection(net: Any, tmp_path: Path) -> None:
    accepted: Ends = []
    server = net.start_unix_server(lambda *streams: accepted.append(streams), tmp_path / "socket")
    ends = [net.open_unix_connection(tmp_path / "socket"), *accepted]
    settle(6)
    ends = [ends[0], *accepted]
    assert ends[0][1].get_extra_info("peername") == str(tmp_path / "socket")
    assert ends[0][1].get_extra_info("sockname") == ""
    assert ends[1][1].get_extra_info("peername") == ""
    assert ends[1][1].get_extra_info("socket").family == socket.AF_UNIX
    finish(server, ends)


@in_fiber
def test_who_does_not_listen_refuses(net: Any, tmp_path: Path) -> None:
    server = net.start_server(echo, LOCALHOST, 0, start_serving=False)
    address = server.sockets[0].getsockname()
    with pytest.raises(ConnectionRefusedError, match=r"Connect call failed \('127.0.0.1', \d+\)"):
        net.open_connection(*address)
    server.start_serving()
    _, writer = net.open_connection(*address)
    writer.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        net.open_connection(*address)
    with pytest.raises(ExceptionGroup, match="create_connection failed") as caught:
        net.open_connection(*address, all_errors=True)
    assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError]
    server.wait_closed()

    path = tmp_path / "socket"
    with pytest.raises(FileNotFoundError):
        net.open_unix_connection(path)
    server = net.start_unix_server(echo, path, start_serving=False)
    with pytest.raises(ConnectionRefusedError):
        net.open_unix_connection(path)
    server.close()
    with pytest.raises(FileNotFoundError):
        net.open_unix_connection(path)
    server = net.start_unix_server(echo, path, cleanup_socket=False)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        net.open_unix_connection(path)
    with net.start_unix_server(echo, path) as server:
        _, writer = net.open_unix_connection(path)
        writer.close()
        server.close()
    settle()


@in_fiber
def test_an_address_belongs_to_one_server(net: Any, tmp_path: Path) -> None:
    server = net.start_server(echo, LOCALHOST, 0)
    address = server.sockets[0].getsockname()
    for host in (LOCALHOST, "0.0.0.0"):
        with pytest.raises(OSError, match=r"error while attempting to bind on address .* address already in use") as e:
            net.start_server(echo, host, address[1])
        assert e.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError) as e:
        net.open_connection(*address, local_addr=address)
    assert e.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError):
        net.start_server(echo, *address, reuse_port=True)
    server.close()
    net.start_server(echo, *address).close()
    servers = [net.start_server(echo, *address, reuse_port=True) for _ in range(2)]
    with pytest.raises(OSError):
        net.start_server(echo, *address)
    for one in servers:
        one.close()
    with net.start_unix_server(echo, tmp_path / "socket") as first:
        with net.start_unix_server(echo, tmp_path / "socket") as second:  # a path is taken over
            first.close()
            _, writer = net.open_unix_connection(tmp_path / "socket")
            writer.close()
            second.close()
    name = f"\0swapco {os.getpid()}"
    with net.start_unix_server(echo, name) as server:
        with pytest.raises(OSError, match="already in use"):
            net.start_unix_server(echo, name)
        server.close()
    settle()


@in_fiber
def test_several_hosts(net: Any) -> None:
    with net.start_server(echo, [LOCALHOST, "::1", LOCALHOST], 0) as server:
        assert [sock.family for sock in server.sockets] == [socket.AF_INET, socket.AF_INET6]
        for sock in server.sockets:
            _, writer = net.open_connection(*sock.getsockname()[:2])
            assert writer.get_extra_info("peername") == sock.getsockname()
            writer.close()
        server.close()
    for host in (None, ""):
        with net.start_server(echo, host, 0) as server:
            assert {sock.getsockname()[0] for sock in server.sockets} == {"0.0.0.0", "::"}
            for sock, host_there in zip(server.sockets, (LOCALHOST, "::1"), strict=True):
                _, writer = net.open_connection(host_there, sock.getsockname()[1])
                assert writer.get_extra_info("peername")[0] == host_there
                writer.close()
            server.close()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net.open_connection(), "no sock specified"),
        (lambda net: net.open_connection(LOCALHOST, 1, sock=5), "host/port and sock"),
        (lambda net: net.open_unix_connection(), "no path and sock"),
        (lambda net: net.open_unix_connection("p", sock=5), "path and sock"),
        (lambda net: net.start_server(echo), "Neither host/port nor sock"),
        (lambda net: net.start_server(echo, LOCALHOST, 1, sock=5), "host/port and sock"),
        (lambda net: net.start_unix_server(echo), "path was not specified"),
        (lambda net: net.start_unix_server(echo, "p", sock=5), "path and sock"),
        (lambda net: net.open_connection(LOCALHOST, 1, ssl=True), "TLS is not part"),
        (lambda net: net.start_server(echo, LOCALHOST, 1, ssl=True), "TLS is not part"),
    ],
)
@in_fiber
def test_arguments_that_contradict_each_other(net: Any, call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(net)


@in_fiber
def test_names_and_ports_that_cannot_be(net: Any) -> None:
    with pytest.raises(socket.gaierror):
        net.open_connection(LOCALHOST, "no such service")
    with pytest.raises(socket.gaierror):
        net.start_server(echo, LOCALHOST, 0, family=socket.AF_INET6)
    with pytest.raises(TypeError, match="must be callable"):
        net.start_server(None, LOCALHOST, 0)


@in_fiber
def test_a_peer_that_resets(net: Any) -> None:
    server, ends = connect(net)
    (reader, writer), (_, peer) = ends
    peer.write(b"last")
    settle()
    waiting = parked(lambda: [reader.readexactly(4), reader.read(10)])
    if net is streams:
        peer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.abort()
    else:
        net.reset(peer)
    stream_tests.everything_says_reset(waiting, reader, writer)
    finish(server, ends)


@in_fiber
def test_a_client_that_disappears_while_the_server_writes(net: Any) -> None:
    outcomes: list[BaseException] = []

    def flood(reader: Any, writer: Any) -> None:
        try:
            while True:
                writer.write(bytes(100_000))
                writer.drain()
        except OSError as error:
            outcomes.append(error)

    with net.start_server(flood, LOCALHOST, 0) as server:
        reader, writer = net.open_connection(*server.sockets[0].getsockname())
        reader.readexactly(10)
        settle(20)
        assert not outcomes, "nobody reads: drain blocks"
        writer.abort()
        server.close()
    assert [type(error) for error in outcomes] in ([ConnectionResetError], [BrokenPipeError])


@in_fiber
def test_a_connection_that_is_dropped_is_seen_by_the_peer(net: Any) -> None:
    server, ends = connect(net)
    reader, writer = ends.pop()
    client = ends.pop()
    with pytest.warns(ResourceWarning, match=r"unclosed <\w+Writer open"):
        del client
        gc.collect()
    settle()
    assert reader.read() == b""
    writer.close()
    server.close()
    server.wait_closed()


@in_fiber
def test_close_goes_on_sending_in_the_background(net: Any) -> None:
    server, ends = connect(net)
    reader, writer = ends.pop()
    client_reader, client_writer = ends.pop()
    data = os.urandom(20_000_000)
    writer.write(data)
    writer.close()
    assert reader.read() == b""
    assert parked(writer.wait_closed).cancel()
    del writer, reader
    gc.collect()
    assert client_reader.read() == data
    client_writer.close()
    server.close()
    server.wait_closed()
    settle()


@in_fiber
def test_a_callback_that_fails(net: Any, fibers: Logged) -> None:
    def fail(reader: Any, writer: Any) -> None:
        writer.write(b"so far")
        raise ZeroDivisionError("on purpose")

    with net.start_server(fail, LOCALHOST, 0) as server:
        reader, writer = net.open_connection(*server.sockets[0].getsockname())
        assert reader.read() == b"so far"
        writer.close()
        server.close()
    assert "Unhandled exception in client_connected_cb" in fibers.take()[0]


@in_fiber
def test_a_connection_whose_fiber_never_runs(net: Any) -> None:
    with net.start_server(echo, LOCALHOST, 0) as server:
        opening = spawn(net.open_connection, *server.sockets[0].getsockname())
        while not server._active:
            sleep(0)
        for fiber in list(server._active):
            fiber.cancel()
        reader, writer = opening.join()
        assert reader.read() == b""
        writer.close()
        server.close()


@in_fiber
def test_an_async_callback(net: Any) -> None:
    async def callback(reader: Any, writer: Any) -> None:
        await asyncio.sleep(0)
        writer.write(reader.readline().upper())
        writer.close()

    with net.start_server(callback, LOCALHOST, 0) as server:
        reader, writer = net.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert reader.read() == b"HELLO\n"
        writer.close()
        server.close()


@in_fiber
def test_close_clients_and_abort_clients(net: Any) -> None:
    for name in ("close_clients", "abort_clients"):
        server, ends = connect(net)
        (reader, writer), (_, accepted) = ends
        accepted.write(b"bye")
        settle()
        getattr(server, name)()
        assert reader.read() == b"bye"
        finish(server, ends)
