"""Streams in memory: the same bytes, errors and waits as on sockets, no byte lost, and faults when they are asked for.

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
import random
import struct
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_streams as stream_tests
from helpers import Logged, in_fiber, run_program, settle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swapco
from swapco import open_connection, sleep, socket, spawn, start_server, streams, testing
from swapco.testing import network as network_module
from swapco.testing.memory_streams import open_streams
from swapco.testing.network import MemoryNetwork, MemoryReader, MemoryWriter, memory_stream_pair
from swapco.testing.wire import Link

pytestmark = pytest.mark.usefixtures("fibers")

LOCALHOST = "127.0.0.1"
EXAMPLES = Path(__file__).parents[2] / "examples"
BUFFER = 65536

Ends = list[tuple[Any, Any]]


# ---------------------------------------------------------------------------------------------- helpers


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
    with pytest.raises(ConnectionResetError):
        waiting.join()
    with pytest.raises(ConnectionResetError):
        reader.readline()
    with pytest.raises(ConnectionResetError):
        writer.drain()
    writer.close()
    with pytest.raises(ConnectionResetError):
        writer.wait_closed()
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


# ----------------------------------------------------------------------------------- what they are made of


def test_they_are_streams_and_servers() -> None:
    def main() -> None:
        net = MemoryNetwork()
        server, ends = connect(net)
        assert isinstance(server, swapco.Server)
        for reader, writer in ends:
            assert isinstance(reader, swapco.StreamReader)
            assert isinstance(writer, swapco.StreamWriter)
            assert writer.transport is writer
            assert writer.get_extra_info("socket").fileno() == -1
            with writer as same:
                assert same is writer
            assert repr(writer).startswith("<MemoryWriter closed <memory connection ('127.0.0.1', ")
        finish(server, ends)
        assert net.connections == 0

    swapco.run(main)


#: What the compiled classes do without looking at a socket.
INHERITED = {
    "__iter__", "__enter__", "__exit__", "__new__", "__reduce__", "__setstate__", "_limit", "can_write_eof",
    "transport", "get_write_buffer_limits", "set_write_buffer_limits",
}  # fmt: skip


@pytest.mark.parametrize("kind", [MemoryReader, MemoryWriter])
def test_no_method_that_needs_a_socket_is_left(kind: type) -> None:
    base = kind.__mro__[1]
    own = {name for name in vars(base) if callable(getattr(base, name)) or not name.startswith("_")}
    assert {"write", "drain"} <= own or {"read", "readline"} <= own
    assert own - {name for name in own if "cython" in name} - INHERITED - set(vars(kind)) == set()


@pytest.mark.parametrize("name", ["open_connection", "open_unix_connection", "start_server", "start_unix_server"])
def test_the_signatures_are_swapcos(name: str) -> None:
    ours = inspect.signature(getattr(MemoryNetwork(), name))
    real = inspect.signature(getattr(streams, name))
    assert list(ours.parameters.values()) == list(real.parameters.values())


@in_fiber
def test_a_pair() -> None:
    (left_reader, left), (right_reader, right) = memory_stream_pair(limit=10)
    left.write(b"ping\n")
    assert right_reader.readline() == b"ping\n"
    right.writelines([b"po", b"ng"])
    right.write_eof()
    assert left_reader.read() == b"pong"
    left.write(b"x" * 20)
    with pytest.raises(ValueError, match="exceed the limit"):
        right_reader.readline()
    left.close()
    right.close()
    left.wait_closed()
    right.wait_closed()
    with pytest.raises(ValueError, match="at least 1 byte"):
        memory_stream_pair(buffer_size=0)


def test_a_pair_made_outside_of_a_run() -> None:
    (reader, left), (_, right) = memory_stream_pair()
    right.write(b"abc")
    right.close()
    with pytest.raises(swapco.NotInFiber):
        reader.read()
    with pytest.raises(swapco.NotInFiber):
        left.drain()
    assert swapco.run(reader.read) == b"abc"
    left.close()


@in_fiber
def test_drain_waits_for_the_reader() -> None:
    (_, writer), (reader, peer) = memory_stream_pair(buffer_size=1000)
    writer.write(bytes(1000 + 65536))
    writer.drain()  # the connection holds 1000 bytes, the writer 64 KiB
    assert writer.get_write_buffer_size() == 65536
    writer.write(b"x")
    waiting = parked(writer.drain)
    assert "room to write on <memory connection" in (waiting.wait_reason or "")
    size = 0
    while not waiting.done():
        assert writer.get_write_buffer_size() > 16384
        size += len(reader.read(500))
        sleep(0)
    assert size >= 65537 - 16384
    assert len(reader.readexactly(1000 + 65537 - size)) == 1000 + 65537 - size
    writer.set_write_buffer_limits(high=0)
    writer.write(bytes(1001))
    waiting = parked(writer.drain)
    reader.readexactly(1)
    waiting.join()
    writer.close()
    peer.close()
    settle()


@in_fiber
def test_a_fiber_that_always_has_something_to_read_lets_others_run() -> None:
    (_, writer), (reader, peer) = memory_stream_pair()
    writer.write(b"x" * 1000)
    turns = 0

    def other() -> None:
        nonlocal turns
        while not peer.is_closing():
            turns += 1
            sleep(0)

    fiber = spawn(other)
    for _ in range(1000):
        assert reader.read(1) == b"x"
    assert turns >= 1000 // 65
    peer.close()
    writer.close()
    fiber.join()


@in_fiber
def test_wait_closed_waits_until_everything_is_sent() -> None:
    (_, writer), (reader, peer) = memory_stream_pair(buffer_size=100)
    writer.write(bytes(250))
    writer.close()
    waiting = parked(writer.wait_closed)
    turns: list[str] = []
    other = spawn(turns.append, "other")
    writer.drain()  # it returns, after a turn of the others
    assert turns == ["other"]
    assert len(reader.read()) == 250
    waiting.join()
    other.join()
    peer.close()


@in_fiber
def test_a_writer_that_has_sent_everything_is_not_held() -> None:
    (_, writer), (reader, peer) = memory_stream_pair(buffer_size=100)
    writer.write(bytes(250))
    assert len(reader.readexactly(250)) == 250
    with pytest.warns(ResourceWarning, match="unclosed <MemoryWriter open"):
        del writer, _
        gc.collect()
    assert reader.read() == b""
    peer.close()


@in_fiber
def test_the_nearest_separator_wins() -> None:
    (_, writer), (reader, peer) = memory_stream_pair()
    writer.write(b"a1b22c1")
    assert [reader.readuntil((b"22", b"1")) for _ in range(3)] == [b"a1", b"b22", b"c1"]
    writer.close()
    peer.close()


@in_fiber
def test_ports_are_given_out_in_order_and_never_twice() -> None:
    net = MemoryNetwork()
    servers = [net.start_server(echo, LOCALHOST, port) for port in (49153, 0, 0)]
    assert [server.sockets[0].getsockname()[1] for server in servers] == [49153, 49152, 49154]
    for server in servers:
        server.close()


@in_fiber
def test_the_socket_is_closed_under_the_streams() -> None:
    (reader, writer), (peer_reader, peer) = memory_stream_pair()
    waiting = parked(reader.read, 10)
    writer.get_extra_info("socket").close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        waiting.join()
    writer.write(b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.wait_closed()
    assert peer_reader.read() == b""
    peer.close()


def test_a_wait_that_nobody_can_end_is_a_deadlock() -> None:
    ended = run_program(
        """
        import swapco
        from swapco.testing.network import memory_stream_pair

        def main():
            (reader, _), peer = memory_stream_pair()
            reader.read(1)

        swapco.run(main)
        """
    )
    assert "swapco.Deadlock" in ended.stderr or "errors.Deadlock" in ended.stderr
    assert "data on <memory connection '' to ''>" in ended.stderr


def test_a_run_that_leaves_everything_open() -> None:
    def main() -> None:
        kept.append(MemoryNetwork(choose=at_random(1)))
        kept.append(connect(kept[0]))
        kept[1][1][0][1].write(b"never read")

    kept: list[Any] = []
    swapco.run(main)
    kept.clear()
    gc.collect()


# ------------------------------------------------------------------------------------- what is left open


@in_fiber
def test_a_short_read() -> None:
    for index, expected in enumerate([b"abcdefgh", b"abc", b"a", b"abcd", b"abcdefg"]):
        (_, writer), (reader, peer) = MemoryNetwork(choose=always("network.read", index)).stream_pair()
        writer.write(b"abc")
        writer.write(b"defgh")
        assert reader.read(100) == expected
        writer.close()
        assert expected + reader.read() == b"abcdefgh"
        peer.close()


@in_fiber
def test_a_short_read_inside_of_readexactly_lets_others_run() -> None:
    (_, writer), (reader, peer) = MemoryNetwork(choose=always("network.read", 1)).stream_pair()
    writer.write(b"abcdefgh")
    turns: list[str] = []
    other = spawn(lambda: turns.append("other"))
    assert reader.readexactly(8) == b"abcdefgh"
    assert turns == ["other"]
    other.join()
    writer.close()
    peer.close()


@in_fiber
def test_a_delivery_that_comes_later() -> None:
    (_, writer), (reader, peer) = MemoryNetwork(choose=always("network.deliver", 1)).stream_pair()
    writer.write(b"abc")
    assert not peer.end.size
    writer.write(b"def")
    writer.close()
    courier = swapco.all_fibers() - {swapco.current_fiber()}
    assert [fiber.name for fiber in courier] == ["delivery to ''"]
    assert reader.read(100) == b"abcdef"
    assert reader.read(100) == b""
    peer.close()


@in_fiber
def test_a_later_segment_does_not_hurry_an_earlier_one() -> None:
    answers = [1, 0, 0]
    net = MemoryNetwork(choose=lambda n, label: answers.pop(0) if answers else 0)
    (_, writer), (reader, peer) = net.stream_pair()
    writer.write(b"late")
    writer.write(b"behind it")
    assert answers == [0, 0], "what is behind a late segment is late as well: no choice"
    assert not peer.end.size
    settle()
    assert peer.end.size == len(b"latebehind it")
    writer.write(b"at once")
    assert peer.end.size == len(b"latebehind itat once")
    assert reader.read(100) == b"latebehind itat once"
    writer.close()
    peer.close()


@in_fiber
def test_a_delivery_that_meets_a_partition() -> None:
    net = MemoryNetwork(choose=always("network.deliver", 1))
    (_, writer), (reader, peer) = net.stream_pair()
    writer.write(b"abc")
    with net.partition():
        settle()
        assert not peer.end.size
        with net.partition():
            writer.write(b"def")
        settle()
        assert not peer.end.size, "two partitions, of which one is healed"
    assert reader.readexactly(6) == b"abcdef"
    writer.close()
    peer.close()
    settle()


@in_fiber
def test_what_was_under_way_when_a_delay_ended() -> None:
    net = MemoryNetwork()
    (_, writer), (reader, peer) = net.stream_pair()
    with net.delay(3600.0):
        writer.write(b"slow")
    writer.write(b"fast")
    assert reader.readexactly(8) == b"slowfast", "nothing overtakes, and nothing waits for a route that is gone"
    writer.close()
    peer.close()
    for fiber in swapco.all_fibers() - {swapco.current_fiber()}:
        fiber.cancel()
    settle()


@in_fiber
def test_a_unix_peer_that_closes_after_its_end_of_stream_ends_a_write_that_waits() -> None:
    net = MemoryNetwork(buffer_size=10)
    (_, writer), (_, peer) = net.stream_pair()
    peer.write_eof()
    with net.partition():
        writer.set_write_buffer_limits(high=0)
        writer.write(bytes(20))
        waiting = parked(writer.drain)
        peer.close()
    with pytest.raises(BrokenPipeError):
        waiting.join()
    writer.close()


@in_fiber
def test_a_courier_that_is_cancelled_delivers() -> None:
    for rounds in (0, 1):  # before it runs; while it waits
        net = MemoryNetwork(choose=always("network.deliver", 1))
        (_, writer), (reader, peer) = net.stream_pair()
        with net.delay(60.0) if rounds else net.refuse():
            writer.write(b"abc")
            if rounds:
                settle()
            for fiber in swapco.all_fibers() - {swapco.current_fiber()}:
                fiber.cancel()
            assert reader.read(100) == b"abc"
        writer.close()
        peer.close()
        settle()


@in_fiber
def test_which_connection_is_accepted_first() -> None:
    orders = [[0, 1, 2], [1, 2, 0], [2, 1, 0]]
    for index in range(3):
        served: list[bytes] = []
        net = MemoryNetwork(choose=always("network.accept", index))

        def serve(reader: Any, writer: Any) -> None:
            served.append(reader.readline())  # noqa: B023
            writer.close()

        with net.start_server(serve, LOCALHOST, 80) as server:

            def client(name: bytes) -> None:
                _, writer = net.open_connection(LOCALHOST, 80)  # noqa: B023
                writer.write(name)
                writer.close()

            for fiber in [spawn(client, b"%d\n" % number) for number in range(3)]:
                fiber.join()
            settle()
            server.close()
        assert served == [b"%d\n" % number for number in orders[index]]


@in_fiber
def test_which_server_of_an_address_gets_a_connection() -> None:
    for index in range(2):
        net = MemoryNetwork(choose=always("network.bind", index))

        def serve(name: bytes) -> Callable[[Any, Any], Any]:
            return lambda _, accepted: (accepted.write(name), accepted.close())

        servers = [net.start_server(serve(b"%d" % number), LOCALHOST, 80, reuse_port=True) for number in range(2)]
        reader, writer = net.open_connection(LOCALHOST, 80)
        assert reader.read() == b"%d" % index
        writer.close()
        for server in servers:
            server.close()
            server.wait_closed()


@in_fiber
def test_choose_is_asked_only_when_there_is_a_choice() -> None:
    asked: list[tuple[int, str]] = []

    def choose(n: int, label: str) -> int:
        asked.append((n, label))
        return 0

    def use(net: MemoryNetwork) -> None:
        server, ends = connect(net)
        (reader, writer), (peer_reader, peer) = ends
        writer.write(b"abc")
        assert peer_reader.read(10) == b"abc"
        writer.write(b"a")
        assert peer_reader.read(10) == b"a"
        finish(server, ends)

    use(MemoryNetwork(choose=choose, short_reads=False, delays=False))
    assert not asked
    use(MemoryNetwork(choose=choose))
    assert all(n >= 2 for n, _ in asked)
    # of three bytes: all, one, or two; of one byte there is no short read; two writes, and the end of the
    # stream for the side that is still open
    assert [n for n, label in asked if label == "network.read"] == [3]
    assert [n for n, label in asked if label == "network.deliver"] == [2] * 3


@in_fiber
def test_an_answer_that_is_none_is_refused() -> None:
    (_, writer), (reader, peer) = MemoryNetwork(delays=False, choose=lambda n, label: n).stream_pair()
    writer.write(b"abcdef")
    with pytest.raises(
        ValueError, match=r"choose\(4, 'network.read'\) returned 4: it must return an index from 0 to 3"
    ):
        reader.read(100)
    writer.close()
    peer.close()


# ------------------------------------------------------------------------------------- in a controlled run


def shout(read: Callable[[Any], bytes]) -> bytes:
    """Ask a server in memory, which answers what ``read`` makes of a question of two writes."""

    def handle(reader: Any, writer: Any) -> None:
        writer.write(read(reader).upper())
        reader.read()  # to close a socket with unread data is a reset
        writer.close()

    with MemoryNetwork().patched():
        server = start_server(handle, LOCALHOST, 80)
        reader, writer = open_connection(LOCALHOST, 80)
        writer.write(b"he")
        writer.drain()
        writer.write(b"llo\n")
        writer.write_eof()
        answer: bytes = reader.read()
        writer.close()
        server.close()
        server.wait_closed()
    return answer


def test_what_a_network_leaves_open_is_a_decision_of_a_controlled_run() -> None:
    def hasty() -> None:
        # in production all of it is there
        assert shout(lambda reader: reader.read(100)) == b"HELLO\n"

    testing.run(hasty)
    result = testing.search(hasty, schedules=100, save=False)
    assert isinstance(result.exception, AssertionError)
    # one choice, and no other order of switches
    assert (result.preemptions, result.deviations) == (0, 1)
    assert "network." in result.report


def test_a_program_that_expects_any_network_passes() -> None:
    def careful() -> None:
        assert shout(lambda reader: reader.readline()) == b"HELLO\n"

    assert not testing.search(careful, schedules=300, save=False).failed


# ---------------------------------------------------------------------------------------- nothing is lost


class Impatient:
    """Calls that are cancelled, and that time out, again and again until they succeed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.interrupted = 0
        self.stop = False

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                with swapco.timeout(self.rng.choice([None, None, 0.0, 0.0001])):
                    return function(*args)
            except (asyncio.CancelledError, TimeoutError):
                self.interrupted += 1

    def disturb(self, victims: list[swapco.Fiber[Any]]) -> None:
        while not self.stop:
            for victim in victims:
                if self.rng.random() < 0.4 and victim.state == "BLOCKED":
                    victim.cancel()
            for _ in range(self.rng.randrange(1, 5)):
                sleep(0)


@given(
    seed=st.integers(0, 2**32),
    chunks=st.lists(st.integers(1, 3000), max_size=12),
    buffer_size=st.sampled_from([1, 7, 1000, BUFFER]),
    high=st.sampled_from([0, 100, 65536]),
    by_line=st.booleans(),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cancellations_and_timeouts_lose_nothing(
    seed: int, chunks: list[int], buffer_size: int, high: int, by_line: bool
) -> None:
    """Whatever the network chooses, and wherever the fibers are cancelled: all bytes, once, in order."""
    rng = random.Random(seed)
    if buffer_size == 1:
        chunks = [size % 50 + 1 for size in chunks]
    sent = [bytes(rng.choices(b"abc\n", k=size)) + b"\n" for size in chunks]
    impatient = Impatient(seed)

    def write(writer: Any) -> None:
        writer.set_write_buffer_limits(high=high)
        for chunk in sent:
            writer.write(chunk)
            impatient.call(writer.drain)
        writer.close()
        impatient.call(writer.wait_closed)

    def read(reader: Any) -> bytes:
        got = b""
        while not reader.at_eof():
            size = rng.randrange(1, 2000)
            calls: list[tuple[Any, ...]] = [(reader.readline,), (reader.readuntil, (b"c\n", b"\n"))]
            if not by_line:
                calls += [(reader.read, size), (reader.read, size)]
                calls += [(reader.readexactly, size)]
            try:
                got += impatient.call(*rng.choice(calls))
            except asyncio.IncompleteReadError as error:
                got += error.partial
        return got

    def main() -> None:
        net = MemoryNetwork(buffer_size=buffer_size, choose=at_random(seed))
        (_, writer), (reader, peer) = net.stream_pair()
        reading, writing = spawn(read, reader), spawn(write, writer)
        disturbing = spawn(impatient.disturb, [reading, writing])
        assert reading.join() == b"".join(sent)
        writing.join()
        impatient.stop = True
        disturbing.join()
        peer.close()
        settle(3)
        assert net.connections == 0

    swapco.run(main)


@given(seed=st.integers(0, 2**32), buffer_size=st.sampled_from([1, 10, 1000]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_clients_of_an_echo_server(seed: int, buffer_size: int) -> None:
    rng = random.Random(seed)
    net = MemoryNetwork(buffer_size=buffer_size, choose=at_random(seed))

    def client(data: bytes) -> None:
        reader, writer = net.open_connection("server", 7)
        writer.write(data)
        writer.write_eof()
        assert reader.read() == data
        writer.close()
        writer.wait_closed()

    def main() -> None:
        with net.start_server(echo, "server", 7, backlog=rng.randrange(3)) as server:
            with swapco.TaskGroup() as group:
                for _ in range(rng.randrange(1, 8)):
                    group.spawn(client, rng.randbytes(rng.randrange(200)))
            server.close()
        settle(3)
        assert net.connections == 0

    swapco.run(main)


@in_fiber
def test_a_cancelled_connect_leaves_nothing() -> None:
    net = MemoryNetwork()
    seen: list[bytes] = []

    def serve(reader: Any, writer: Any) -> None:
        seen.append(reader.read())
        writer.close()

    with net.start_server(serve, LOCALHOST, 80) as server:
        opening = spawn(net.open_connection, LOCALHOST, 80)
        sleep(0)
        assert cancelled(opening)
        settle()
        assert seen == [b""], "the server sees a client that left"
        server.close()
    settle()
    assert net.connections == 0


@in_fiber
def test_a_full_backlog_lets_clients_wait() -> None:
    net = MemoryNetwork()
    served: list[Any] = []
    with net.start_server(lambda *ends: served.append(ends), LOCALHOST, 80, backlog=1, start_serving=False) as server:
        # it listens, and nobody accepts yet
        server.sockets[0].listen(1)
        clients = [spawn(net.open_connection, LOCALHOST, 80) for _ in range(6)]
        settle()
        assert [client.done() for client in clients] == [True, True, False, False, False, False]
        assert "room in the backlog of <Listener ('127.0.0.1', 80)>" in (clients[2].wait_reason or "")
        assert cancelled(clients.pop(2))
        with pytest.raises(TimeoutError), swapco.timeout(0.0):
            net.open_connection(LOCALHOST, 80)
        server.start_serving()
        ends = [client.join() for client in clients]
        settle()
        assert len(served) == 5
        for _, writer in ends + served:
            writer.close()
        server.close()
    settle()
    assert net.connections == 0


@in_fiber
def test_a_server_that_closes_resets_those_it_has_not_accepted() -> None:
    net = MemoryNetwork()
    server = net.start_server(echo, LOCALHOST, 80, backlog=0, start_serving=False)
    server.sockets[0].listen(0)
    reader, writer = net.open_connection(LOCALHOST, 80)
    waiting = parked(net.open_connection, LOCALHOST, 80)
    server.close()
    with pytest.raises(ConnectionResetError):
        reader.read()
    with pytest.raises(ConnectionRefusedError):
        waiting.join()
    writer.close()
    settle()
    assert net.connections == 0


@in_fiber
def test_only_one_fiber_may_read() -> None:
    (reader, writer), (_, peer) = memory_stream_pair()
    first = parked(reader.read, 10)
    with pytest.raises(RuntimeError, match="is reading from <memory connection '' to ''> already"):
        reader.readline()
    assert cancelled(first)
    peer.write(b"abc")
    assert reader.read(10) == b"abc"
    peer.close()
    writer.close()


# ------------------------------------------------------------------------------------------------- faults


@in_fiber
def test_a_partition_is_silent_and_loses_nothing() -> None:
    net = MemoryNetwork()
    server, ends = connect(net)
    (reader, writer), (peer_reader, peer) = ends
    with net.partition() as fault:
        writer.write(b"abc")
        peer.write(b"def")
        peer.close()
        for one in (reader, peer_reader):
            with pytest.raises(TimeoutError), swapco.timeout(0.0):
                assert one is reader or one.read() == b"", "it has closed itself"
                reader.read(10)
        with pytest.raises(TimeoutError), swapco.timeout(0.0):
            net.open_connection(*server.sockets[0].getsockname())
        opening = parked(net.open_connection, *server.sockets[0].getsockname())
        assert "the end of a partition of <MemoryNetwork" in (opening.wait_reason or "")
        assert fault.active
        assert repr(fault) == "<Fault partition host=None port=None>"
    assert not fault.active
    fault.heal()
    assert reader.read() == b"def"
    ends.append(opening.join())
    finish(server, ends)
    server.close_clients()
    assert net.connections == 0


@in_fiber
def test_a_partition_of_one_server() -> None:
    net = MemoryNetwork()
    with net.start_server(echo, "a", 80) as first, net.start_server(echo, "b", 80) as second:
        streams_of_a, streams_of_b = net.open_connection("a", 80), net.open_connection("b", 80)
        with net.partition("a", 80), net.partition("c"), net.partition(port=81):
            for _, writer in (streams_of_a, streams_of_b):
                writer.write(b"hello")
            assert streams_of_b[0].readexactly(5) == b"hello"
            with pytest.raises(TimeoutError), swapco.timeout(0.0):
                streams_of_a[0].read(5)
        assert streams_of_a[0].readexactly(5) == b"hello"
        for _, writer in (streams_of_a, streams_of_b):
            writer.close()
        first.close()
        second.close()


@in_fiber
def test_a_writer_blocks_in_a_partition_when_the_connection_is_full() -> None:
    net = MemoryNetwork(buffer_size=100)
    (_, writer), (reader, peer) = net.stream_pair()
    with net.partition():
        writer.set_write_buffer_limits(high=0)
        writer.write(bytes(250))
        draining = parked(writer.drain)
    assert len(reader.readexactly(250)) == 250
    draining.join()
    writer.close()
    peer.close()


@in_fiber
def test_a_server_that_refuses() -> None:
    net = MemoryNetwork()
    with net.start_server(echo, LOCALHOST, 80) as server:
        for place in ((), (LOCALHOST,), ("localhost", 80), (None, 80)):
            with net.refuse(*place), pytest.raises(ConnectionRefusedError):
                net.open_connection(LOCALHOST, 80)
        with net.refuse("elsewhere"):
            reader, writer = net.open_connection(LOCALHOST, 80)
        with net.refuse():
            writer.write(b"established connections go on")
            assert reader.readexactly(5) == b"estab"
        writer.close()
        server.close()


@pytest.mark.parametrize("sender", ["client", "server"])
@pytest.mark.parametrize("after", [0, 1, 5, 6])
@in_fiber
def test_a_connection_that_breaks_after_some_bytes(after: int, sender: str) -> None:
    net = MemoryNetwork()
    with net.cut(after, sender=sender):
        server, ends = connect(net)
    ends = ends if sender == "client" else ends[::-1]
    (reader, writer), (peer_reader, _) = ends
    writer.write(b"abcde")
    if after == 6:
        assert peer_reader.read(10) == b"abcde"
        writer.write(b"fgh")
        assert peer_reader.read(10) == b"f"
    elif after:
        assert peer_reader.read(10) == b"abcde"[:after]
    with pytest.raises(ConnectionResetError):
        peer_reader.read(10)
    with pytest.raises(ConnectionResetError):
        reader.read(10)
    finish(server, ends)
    _, ends = server, []
    server, ends = connect(net)
    ends[0][1].write(b"whole")
    assert ends[1][0].readexactly(5) == b"whole", "only connections made under the fault break"
    finish(server, ends)


def test_a_network_that_takes_its_time() -> None:
    def main() -> None:
        net = MemoryNetwork()
        loop = asyncio.get_running_loop()
        with net.start_server(echo, "far", 80) as server:
            with net.delay(0.02, "far"):
                begin = loop.time()
                reader, writer = net.open_connection("far", 80)
                assert loop.time() - begin >= 0.02
                writer.write(b"one")
                writer.write(b"two")
                with pytest.raises(TimeoutError), swapco.timeout(0.0):
                    reader.read(10)
                assert reader.readexactly(6) == b"onetwo"
                assert loop.time() - begin >= 0.06, "there and back"
                writer.close()
            server.close()
        settle(3)

    swapco.run(main)


@in_fiber
def test_faults_that_make_no_sense() -> None:
    net = MemoryNetwork()
    with pytest.raises(ValueError, match="0 bytes or more"):
        net.cut(-1)
    with pytest.raises(ValueError, match="must be"):
        net.cut(1, sender="somebody")
    for seconds in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="0 or more"):
            net.delay(seconds)
    with pytest.raises(TypeError, match="host is a name or an address"):
        net.partition(3)  # type: ignore[arg-type]
    with pytest.raises(OverflowError, match="port must be"):
        net.refuse("db", 70_000)
    with net.refuse("db", "5000") as fault:  # type: ignore[arg-type]
        assert fault.covers(("db", 5000))
    with pytest.raises(TypeError, match="only a connection in memory"):
        net.reset(None)  # type: ignore[arg-type]
    assert repr(net) == "<MemoryNetwork listening=0 connections=0>"


@in_fiber
def test_a_reset_loses_what_is_under_way() -> None:
    net = MemoryNetwork()
    server, ends = connect(net)
    (reader, writer), (peer_reader, peer) = ends
    peer.write(b"arrived")
    with net.partition():
        writer.write(b"lost")
        net.reset(writer)
    assert reader.read(7) == b"arrived"
    for one in (reader, peer_reader):
        with pytest.raises(ConnectionResetError):
            one.read(10)
    finish(server, ends)


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
