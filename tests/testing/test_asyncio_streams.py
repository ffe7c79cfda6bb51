"""asyncio's streams, transports and servers on a network in memory: as on sockets, in every order.

The oracle is asyncio on the kernel: most programs here run on both, and must not be able to tell (`runs_both_ways`);
random conversations of two protocols must leave the same trace (`test_a_conversation_is_the_same_as_on_sockets`).
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import functools
import gc
import inspect
import os
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_support import LOCALHOST, always

import swapco
from swapco import testing
from swapco.testing import MemoryNetwork, RealIOError
from swapco.testing.execution import Program
from swapco.testing.strategies import Path as Schedule
from swapco.testing.transports import LoopMethods, MemoryTransport, ProtocolServer

Body = Callable[[], Awaitable[Any]]

pytestmark = pytest.mark.usefixtures("fibers")


# ------------------------------------------------------------------------------------------------- two ways


def on_sockets(program: Body) -> Any:
    return asyncio.run(program())  # type: ignore[arg-type]


def in_memory(program: Body, **options: Any) -> Any:
    """As production would schedule it."""

    async def body() -> Any:
        with MemoryNetwork(**options).patched():
            return await program()

    return testing.run(body)


def in_any_order(program: Body) -> None:
    """In a hundred schedules, which also decide what the network leaves open."""

    async def body() -> None:
        with MemoryNetwork().patched():
            await program()

    testing.search(body, schedules=100, save=False).check()


def runs_both_ways(program: Body) -> Any:
    """A test of this program on sockets, in memory, and in memory in many orders."""

    @pytest.mark.parametrize("way", [on_sockets, in_memory, in_any_order])
    def test(way: Callable[[Body], Any]) -> None:
        way(program)

    functools.update_wrapper(test, program)
    del test.__wrapped__  # type: ignore[attr-defined]
    return test


def everywhere(body: Body, **options: Any) -> testing.Result:
    """It passes in a hundred schedules."""
    return testing.search(body, schedules=100, save=False, **options).check()


async def settle(rounds: int = 30) -> None:
    """Let everything that can happen do so."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class Recorder(asyncio.Protocol):
    """Writes down what it is called for."""

    def __init__(self, keeps_open: bool = False) -> None:
        self.events: list[Any] = []
        self.keeps_open = keeps_open
        self.transport: Any = None
        self.received = b""
        self.closed = asyncio.get_running_loop().create_future()
        self.something = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.received += data
        self.note(data)

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note(("lost", type(exc), getattr(exc, "errno", None)))
        self.closed.set_result(None)

    def note(self, event: Any) -> None:
        self.events.append(event)
        self.something.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.something.clear()
            await self.something.wait()


async def two_protocols(
    *, unix: bool = False, keep_open: tuple[bool, bool] = (False, False), kind: type[Recorder] = Recorder
) -> tuple[Any, Recorder, Recorder]:
    """A server, and the protocols of the client's end (of that ``kind``) and the server's end of a connection."""
    loop = asyncio.get_running_loop()
    accepted: list[Recorder] = []

    def factory() -> Recorder:
        accepted.append(Recorder(keep_open[1]))
        return accepted[0]

    server: Any
    if unix:
        path = f"\0swapco {os.getpid()} asyncio"
        server = await loop.create_unix_server(factory, path)
        _, client = await loop.create_unix_connection(lambda: kind(keep_open[0]), path)
    else:
        server = await loop.create_server(factory, LOCALHOST, 0)
        name = server.sockets[0].getsockname()
        _, client = await loop.create_connection(lambda: kind(keep_open[0]), *name)
    while not (accepted and accepted[0].transport):
        await asyncio.sleep(0)
    return server, client, accepted[0]


async def finish(server: Any, *protocols: Recorder) -> None:
    server.close()
    for protocol in protocols:
        protocol.transport.abort()
    for protocol in protocols:
        await protocol.closed
    await server.wait_closed()


# ------------------------------------------------------------------------------ the kernel as the oracle

OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "write": lambda transport: transport.write(b"xyz"),
    "write nothing": lambda transport: transport.write(b""),
    # after the end it is broken in some releases of asyncio
    "writelines": lambda transport: (
        transport.is_closing() or transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
    ),
    "write_eof": lambda transport: transport.write_eof(),
    "close": lambda transport: transport.close(),
    "abort": lambda transport: transport.abort(),
    "pause_reading": lambda transport: transport.pause_reading(),
    "resume_reading": lambda transport: transport.resume_reading(),
    "is_closing": lambda transport: transport.is_closing(),
    "is_reading": lambda transport: transport.is_reading(),
    "size": lambda transport: transport.get_write_buffer_size(),
}
LIKELY = ["write", "write", "pause_reading", "resume_reading", "write_eof"]


async def conversation(unix: bool, keep_open: tuple[bool, bool], steps: list[tuple[int, str]]) -> list[Any]:
    """What happens at two ends of a connection; the operations come one after the other."""
    server, *ends = await two_protocols(unix=unix, keep_open=keep_open)
    trace: list[Any] = []
    for side, name in steps:
        try:
            outcome = OPERATIONS[name](ends[side].transport)
        except OSError as error:
            outcome = type(error), error.errno
        except Exception as error:
            outcome = type(error)
        await settle()
        trace.append((side, name, outcome, *([*end.events] for end in ends)))
        for end in ends:
            end.events.clear()
    await finish(server, *ends)
    return trace


@given(
    st.booleans(),
    st.tuples(st.booleans(), st.booleans()),
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(LIKELY) | st.sampled_from(sorted(OPERATIONS))), max_size=12),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_conversation_is_the_same_as_on_sockets(
    unix: bool, keep_open: tuple[bool, bool], steps: list[tuple[int, str]]
) -> None:
    program = functools.partial(conversation, unix, keep_open, steps)
    assert in_memory(program) == on_sockets(program)


W, C = "write", "close"

#: Conversations that random ones seldom come to: (end, operation).
SCRIPTS: dict[str, list[tuple[int, str]]] = {
    "writes after the peer's close": [(0, C), (1, W), (1, W), (1, W)],
    "a close with something unread": [(1, "pause_reading"), (0, W), (1, C), (0, W), (0, W)],
    "the same, while the other does not read": [
        (0, "pause_reading"), (1, "pause_reading"), (0, W), (1, W), (1, C), (0, "is_closing"), (0, "resume_reading"),
    ],
    "the same, and the other writes": [(0, "pause_reading"), (1, "pause_reading"), (0, W), (1, C), (0, W), (0, W)],
    "the same, and the other ends its stream": [
        (0, "pause_reading"), (1, "pause_reading"), (0, W), (1, C), (0, "write_eof"), (0, "resume_reading"),
    ],
    "half closed": [(0, "write_eof"), (1, W), (1, "is_closing"), (0, W), (1, "write_eof"), (0, "is_closing")],
    "the end of the stream is seen again": [(0, "write_eof"), (1, "pause_reading"), (1, "resume_reading"), (1, C)],
    "an abort": [(0, W), (0, "abort"), (1, W), (0, W), (0, C), (0, "abort"), (0, "write_eof"), (0, "is_closing")],
    "reading goes on where it stopped": [
        (1, "pause_reading"), (1, "is_reading"), (0, W), (0, W), (1, "resume_reading"), (1, "resume_reading"), (0, W),
    ],
}  # fmt: skip


@pytest.mark.parametrize("keep_open", [False, True], ids=["closes at the end", "stays open"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_scripted_conversation_is_the_same_as_on_sockets(name: str, unix: bool, keep_open: bool) -> None:
    program = functools.partial(conversation, unix, (keep_open, keep_open), SCRIPTS[name])
    assert in_memory(program) == on_sockets(program)


# ---------------------------------------------------------------------------------------------- streams


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that answers each line in capitals."""
    try:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def close(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
    for writer in writers:
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


@runs_both_ways
async def test_lines_there_and_back() -> None:
    server = await asyncio.start_server(shout, LOCALHOST, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.writelines([b"one\n", b"two\nthr", b"ee\n"])
    await writer.drain()
    assert [await reader.readline() for _ in range(3)] == [b"ONE\n", b"TWO\n", b"THREE\n"]
    assert writer.can_write_eof()
    writer.write(b"four")
    writer.write_eof()
    assert await reader.read() == b"FOUR"
    assert reader.at_eof()
    await close(writer)
    server.close()
    await server.wait_closed()


@runs_both_ways
async def test_the_names_of_a_connection() -> None:
    names: list[Any] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names.append((writer.get_extra_info("sockname"), writer.get_extra_info("peername")))
        sock = writer.get_extra_info("socket")
        names.append((sock.getsockname(), sock.getpeername()))
        await close(writer)

    server = await asyncio.start_server(handle, LOCALHOST, 0)
    (listener,) = server.sockets
    assert (listener.family, listener.type) == (socket.AF_INET, socket.SOCK_STREAM)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    assert await reader.read() == b""
    here, there = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    assert there == listener.getsockname()
    assert here[0] == LOCALHOST
    assert names == [(there, here), (there, here)]
    assert writer.get_extra_info("cipher") is None
    assert writer.get_extra_info("cipher", "none") == "none"
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    await close(writer)
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("way", [on_sockets, in_memory, in_any_order])
def test_unix_streams(way: Callable[[Body], Any], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def program() -> None:
        with pytest.raises(FileNotFoundError):
            await asyncio.open_unix_connection(path)
        server = await asyncio.start_unix_server(shout, path)
        reader, writer = await asyncio.open_unix_connection(path)
        assert (writer.get_extra_info("sockname"), writer.get_extra_info("peername")) == ("", path)
        assert server.sockets[0].getsockname() == path
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        await close(writer)
        server.close()
        await server.wait_closed()
        # the path goes with the server from 3.13 on
        with pytest.raises(FileNotFoundError if sys.version_info >= (3, 13) else ConnectionRefusedError):
            await asyncio.open_unix_connection(path)
        server = await asyncio.start_unix_server(shout, path)
        _, writer = await asyncio.open_unix_connection(path)
        await close(writer)
        server.close()
        await server.wait_closed()
        if os.path.exists(path):
            os.unlink(path)

    way(program)


@runs_both_ways
async def test_who_connects_to_nobody_is_refused() -> None:
    server = await asyncio.start_server(shout, LOCALHOST, 0)
    name = server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError, match="Connect call failed"):
        await asyncio.open_connection(*name)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, *name)


@runs_both_ways
async def test_an_address_is_taken_once() -> None:
    server = await asyncio.start_server(shout, LOCALHOST, 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(OSError) as caught:
        await asyncio.start_server(shout, LOCALHOST, port)
    assert caught.value.errno == errno.EADDRINUSE
    server.close()
    await server.wait_closed()
    server = await asyncio.start_server(shout, LOCALHOST, port)
    server.close()
    await server.wait_closed()


@runs_both_ways
async def test_arguments_that_make_no_sense() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="host and port was not specified"):
        await loop.create_connection(asyncio.Protocol)
    with pytest.raises(ValueError, match="Neither host/port nor sock"):
        await loop.create_server(asyncio.Protocol)
    with pytest.raises(ValueError, match="no path and sock"):
        await loop.create_unix_connection(asyncio.Protocol)
    with pytest.raises(ValueError, match="path was not specified"):
        await loop.create_unix_server(asyncio.Protocol)
    with pytest.raises(ValueError, match="server_hostname"):
        await loop.create_connection(asyncio.Protocol, LOCALHOST, 1, server_hostname="a")
    with pytest.raises(ValueError, match="ssl_handshake_timeout"):
        await loop.create_server(asyncio.Protocol, LOCALHOST, 0, ssl_handshake_timeout=1)
    with pytest.raises(ValueError, match="at the same time"):
        await loop.create_connection(asyncio.Protocol, LOCALHOST, 1, sock=NotUsed())  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        await loop.create_connection(asyncio.Protocol, LOCALHOST, 1, unknown=1)  # type: ignore[call-overload]
    with pytest.raises(OverflowError):
        await loop.create_connection(asyncio.Protocol, LOCALHOST, 70_000)


class NotUsed:
    """Stands for a socket."""

    type = socket.SOCK_STREAM


@runs_both_ways
async def test_a_task_that_waits_to_read_is_cancelled_and_loses_nothing() -> None:
    server, client, peer = await two_streams()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client[0].readexactly(4), 0.01)
    peer[1].write(b"ab")
    reading = asyncio.create_task(client[0].readexactly(4))
    await settle()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    peer[1].write(b"cd")
    assert await client[0].readexactly(4) == b"abcd"
    await end(server, client, peer)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def two_streams(host: str = LOCALHOST, port: int = 0, **options: Any) -> tuple[Any, Streams, Streams]:
    """A server, and the streams of both ends of a connection, the client's first."""
    accepted: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *streams: accepted.set_result(streams), host, port, **options)
    client = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    return server, client, await accepted


async def end(server: Any, *streams: Streams) -> None:
    server.close()
    await close(*(writer for _, writer in streams))
    await server.wait_closed()


@runs_both_ways
async def test_drain_waits_until_the_peer_reads() -> None:
    server, client, peer = await two_streams()
    writer = client[1]
    assert writer.transport.get_write_buffer_limits() == (16384, 65536)
    size = 0
    while not writer.transport.get_write_buffer_size() > 65536:
        writer.write(bytes(1 << 20))
        size += 1 << 20
    draining = asyncio.create_task(writer.drain())
    await settle()
    assert not draining.done()

    async def take() -> int:
        return len(await peer[0].readexactly(size))

    taking = asyncio.create_task(take())
    await draining
    assert writer.transport.get_write_buffer_size() <= 16384
    assert await taking == size
    await end(server, client, peer)


@runs_both_ways
async def test_a_reader_that_has_enough_makes_the_writer_wait() -> None:
    """A StreamReader stops reading at twice its limit."""
    server, client, peer = await two_streams(limit=100)
    client[1].write(b"x" * 1000)
    await settle()
    assert not peer[1].transport.is_reading()  # type: ignore[attr-defined]
    assert await peer[0].readexactly(1000) == b"x" * 1000
    assert peer[1].transport.is_reading()  # type: ignore[attr-defined]
    await end(server, client, peer)


@runs_both_ways
async def test_a_handler_that_raises_is_reported_and_its_connection_closed() -> None:
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        raise LookupError("of the handler")

    server = await asyncio.start_server(handle, LOCALHOST, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x")
    assert await reader.read() == b""
    assert isinstance(seen[0]["exception"], LookupError)
    await close(writer)
    server.close()
    await server.wait_closed()
    await settle()


@runs_both_ways
async def test_many_clients_each_get_their_own_answers() -> None:
    server = await asyncio.start_server(shout, LOCALHOST, 0)

    async def ask(name: str) -> bytes:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        answers = b""
        for i in range(3):
            writer.write(f"{name}{i}\n".encode())
            answers += await reader.readline()
        await close(writer)
        return answers

    assert await asyncio.gather(*map(ask, "abc")) == [b"A0\nA1\nA2\n", b"B0\nB1\nB2\n", b"C0\nC1\nC2\n"]
    server.close()
    await server.wait_closed()


# ------------------------------------------------------------------------------------------------ servers


@runs_both_ways
async def test_a_server_serves_forever_until_it_is_cancelled() -> None:
    server = await asyncio.start_server(shout, LOCALHOST, 0, start_serving=False)
    assert not server.is_serving()
    assert server.get_loop() is asyncio.get_running_loop()
    name = server.sockets[0].getsockname()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*name)

    async def serve() -> None:
        async with server:
            await server.serve_forever()

    serving = asyncio.create_task(serve())
    await settle()
    assert server.is_serving()
    with pytest.raises(RuntimeError, match="serve_forever"):
        await server.serve_forever()
    reader, writer = await asyncio.open_connection(*name)
    writer.write(b"hello\n")
    assert await reader.readline() == b"HELLO\n"
    await close(writer)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not server.is_serving()
    assert server.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*name)
    for call in (server.start_serving, server.serve_forever):
        with pytest.raises((RuntimeError, TypeError)):
            await call()


@runs_both_ways
async def test_serve_forever_ends_with_the_server() -> None:
    server = await asyncio.start_server(shout, LOCALHOST, 0)
    serving = asyncio.create_task(server.serve_forever())
    await settle()
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await serving


@runs_both_ways
async def test_a_closed_server_leaves_its_connections_alone() -> None:
    server, client, peer = await two_protocols(keep_open=(True, True))
    server.close()
    server.close()
    waiting = asyncio.create_task(server.wait_closed())
    await settle()
    assert waiting.done() == (sys.version_info < (3, 12))
    client.transport.write(b"hello")
    await peer.until(lambda: peer.received == b"hello")
    peer.transport.close()
    await peer.closed
    await waiting
    client.transport.close()
    await client.closed


@runs_both_ways
async def test_who_waits_for_the_end_of_an_open_server_waits() -> None:
    server = await asyncio.start_server(shout, LOCALHOST, 0)
    waiting = asyncio.create_task(server.wait_closed())
    await settle()
    assert not waiting.done()
    server.close()
    await waiting
    await server.wait_closed()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio has them from 3.13 on")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
@pytest.mark.parametrize("way", [on_sockets, in_memory, in_any_order])
def test_a_server_closes_its_connections(way: Callable[[Body], Any], method: str) -> None:
    async def program() -> None:
        server, client, peer = await two_protocols()
        server.close()
        getattr(server, method)()
        await asyncio.gather(peer.closed, client.closed)
        assert peer.events == ["made", ("lost", type(None), None)]
        assert client.events == ["made", "eof", ("lost", type(None), None)]
        await server.wait_closed()

    way(program)


@runs_both_ways
async def test_a_server_on_several_addresses() -> None:
    server = await asyncio.start_server(shout, [LOCALHOST, "127.0.0.2"], 0)
    hosts = []
    for listener in server.sockets:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        hosts.append(writer.get_extra_info("peername")[0])
        await close(writer)
    assert sorted(hosts) == [LOCALHOST, "127.0.0.2"]
    server.close()
    await server.wait_closed()


def test_a_factory_that_raises_is_reported() -> None:
    """On sockets in debug mode only; the client sees the end in any case."""

    async def program() -> None:
        loop = asyncio.get_running_loop()
        seen: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: seen.append(context))

        def factory() -> asyncio.Protocol:
            raise LookupError

        server = await loop.create_server(factory, LOCALHOST, 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        assert isinstance(seen[0]["exception"], LookupError)
        with pytest.raises(LookupError):
            await loop.create_connection(factory, *server.sockets[0].getsockname())
        await settle()
        await close(writer)
        server.close()
        await server.wait_closed()

    in_any_order(program)


def test_handlers_have_the_context_of_their_server() -> None:
    """Not that of the client, whose fiber delivers."""
    variable = contextvars.ContextVar("variable", default="nobody")

    async def program() -> None:
        seen: list[str] = []

        class Names(Recorder):
            def note(self, event: Any) -> None:
                seen.append(variable.get())
                super().note(event)

        loop = asyncio.get_running_loop()
        variable.set("server")
        server = await loop.create_server(Names, LOCALHOST, 0)

        async def client() -> None:
            variable.set("client")
            _, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
            variable.set("later")
            protocol.transport.write(b"x")
            protocol.transport.write_eof()
            await protocol.closed

        await asyncio.create_task(client())
        server.close()
        await server.wait_closed()
        await settle()
        assert seen[:4] == ["server"] * 4

    for way in (on_sockets, in_memory, in_any_order):
        way(program)


# --------------------------------------------------------------------------------------------- transports


@runs_both_ways
async def test_writing_is_paused_at_the_high_water_mark_and_resumed_at_the_low_one() -> None:
    server, client, peer = await two_protocols()
    transport = client.transport
    transport.set_write_buffer_limits(high=1000, low=10)
    assert transport.get_write_buffer_limits() == (10, 1000)
    peer.transport.pause_reading()
    while transport.get_write_buffer_size() == 0:
        transport.write(bytes(100_000))
        await settle(3)
    assert client.events == ["made", "pause"]
    transport.write(bytes(1001))
    assert client.events == ["made", "pause"]
    peer.transport.resume_reading()
    await client.until(lambda: client.events == ["made", "pause", "resume"])
    assert transport.get_write_buffer_size() <= 10
    transport.set_write_buffer_limits(high=0)
    with pytest.raises(ValueError, match="must be >="):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.set_write_buffer_limits(low=5)
    assert transport.get_write_buffer_limits() == (5, 20)
    await finish(server, client, peer)


@runs_both_ways
async def test_what_is_collected_is_sent_before_the_end() -> None:
    for method in ("close", "write_eof"):
        server, client, peer = await two_protocols()
        peer.transport.pause_reading()
        size = 0
        while client.transport.get_write_buffer_size() == 0:
            client.transport.write(bytes(100_000))
            size += 100_000
        getattr(client.transport, method)()
        await settle()
        assert client.transport.get_write_buffer_size() > 0
        if method == "close":
            assert client.transport.is_closing()
        else:
            with pytest.raises(RuntimeError, match="write_eof"):
                client.transport.write(b"more")
        peer.transport.resume_reading()
        await asyncio.gather(peer.closed, client.closed)
        assert len(peer.received) == size
        assert "eof" in peer.events
        assert client.events[-1] == ("lost", type(None), None)
        await finish(server)


@runs_both_ways
async def test_an_abort_drops_what_is_collected() -> None:
    server, client, peer = await two_protocols()
    peer.transport.pause_reading()
    size = 0
    while client.transport.get_write_buffer_size() == 0:
        client.transport.write(bytes(100_000))
        size += 100_000
    client.transport.abort()
    assert client.transport.get_write_buffer_size() == 0
    await client.closed
    peer.transport.resume_reading()
    await peer.closed
    assert len(peer.received) < size
    await finish(server)


@runs_both_ways
async def test_a_protocol_with_a_buffer_of_its_own() -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(4)
            self.received: list[bytes] = []
            self.closed = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            assert 0 < nbytes <= 4
            self.received.append(bytes(self.buffer[:nbytes]))

        def connection_lost(self, exc: Exception | None) -> None:
            self.closed.set_result(exc)

    loop = asyncio.get_running_loop()
    made: list[Buffered] = []

    def factory() -> Buffered:
        made.append(Buffered())
        return made[0]

    server = await loop.create_server(factory, LOCALHOST, 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"0123456789")
    writer.write_eof()
    while not made:
        await asyncio.sleep(0)
    assert await made[0].closed is None
    assert b"".join(made[0].received) == b"0123456789"
    assert len(made[0].received) >= 3
    await close(writer)
    server.close()
    await server.wait_closed()


FAILING = ["connection_made", "data_received", "eof_received", "connection_lost", "pause_writing", "resume_writing"]


@pytest.mark.parametrize("method", FAILING)
@pytest.mark.parametrize("way", [on_sockets, in_memory, in_any_order])
def test_a_protocol_that_raises_is_reported(way: Callable[[Body], Any], method: str) -> None:
    """Some of its errors end the connection, as on sockets."""

    def fails(self: Any, *_: Any) -> None:
        getattr(Recorder, method)(self, *_)
        raise LookupError(method)

    failing = type("Failing", (Recorder,), {method: fails})

    async def program() -> None:
        loop = asyncio.get_running_loop()
        seen: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: seen.append(context))
        server, client, peer = await two_protocols(kind=failing)
        client.transport.set_write_buffer_limits(high=0)
        peer.transport.pause_reading()
        while client.transport.get_write_buffer_size() == 0:
            client.transport.write(bytes(100_000))
        await settle()
        peer.transport.resume_reading()
        await client.until(lambda: client.transport.get_write_buffer_size() == 0)
        peer.transport.write(b"x")
        peer.transport.write_eof()
        await client.closed
        assert [type(context["exception"]) for context in seen] == [LookupError]
        assert str(seen[0]["exception"]) == method
        lost = {"data_received": LookupError, "eof_received": LookupError}.get(method, type(None))
        assert client.events[-1] == ("lost", lost, None)
        await finish(server, peer)

    way(program)


# ------------------------------------------------------------------------------ with fibers, on one network


def shout_in_a_fiber(reader: swapco.StreamReader, writer: swapco.StreamWriter) -> None:
    for line in reader:
        writer.write(line.upper())
        writer.drain()
    writer.close()


def test_fibers_talk_to_a_server_of_asyncio() -> None:
    def client(port: int) -> bytes:
        reader, writer = swapco.open_connection("shop", port)
        writer.write(b"from a fiber\n")
        answer = reader.readline()
        writer.close()
        writer.wait_closed()
        return answer

    async def body() -> None:
        net = MemoryNetwork()
        with net.patched():
            server = await asyncio.start_server(shout, "shop", 80)
            fibers = [swapco.spawn(client, 80) for _ in range(2)]
            assert [await fiber for fiber in fibers] == [b"FROM A FIBER\n"] * 2
            server.close()
            await server.wait_closed()
            await settle()
        await asyncio.sleep(1)
        assert net.connections == 0

    everywhere(body)


def test_asyncio_talks_to_a_server_of_fibers() -> None:
    async def body() -> None:
        with MemoryNetwork().patched():
            server = swapco.start_unix_server(shout_in_a_fiber, "/path")
            reader, writer = await asyncio.open_unix_connection("/path")
            writer.write(b"from asyncio\n")
            assert await reader.readline() == b"FROM ASYNCIO\n"
            await close(writer)
            server.close()
            server.wait_closed()

    everywhere(body)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), buffer_size=st.sampled_from([1, 10, 1000]), wait_s=st.sampled_from([0, 0.5]))
def test_nothing_is_lost_between_many_clients_and_a_server(seed: int, buffer_size: int, wait_s: float) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=7)
        while data := await reader.read(20):
            writer.write(data)
            await writer.drain()
        await close(writer)

    async def client(i: int) -> None:
        reader, writer = await asyncio.open_connection("echo", 7)
        sent = bytes(range(i, i + 50))

        async def write() -> None:
            for at in range(0, 50, 7):
                writer.write(sent[at : at + 7])
                await writer.drain()
            writer.write_eof()

        writing = asyncio.create_task(write())
        assert await reader.read() == sent
        await writing
        await close(writer)

    async def body() -> None:
        net = MemoryNetwork(buffer_size=buffer_size)
        with net.patched():
            async with await asyncio.start_server(echo, "echo", 7):
                with net.delay(wait_s, "echo"):
                    await asyncio.gather(*map(client, range(3)))
            await asyncio.sleep(10)
        assert net.connections == 0

    testing.search(body, schedules=3, seed=seed, strategy="random", save=False, max_steps=200_000).check()


def test_a_network_that_is_patched_in_inside_counts() -> None:
    async def body() -> None:
        outer, inner = MemoryNetwork(), MemoryNetwork()
        with outer.patched():
            server = await asyncio.start_server(shout, "a", 1)
            with inner.patched():
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("a", 1)
            _, writer = await asyncio.open_connection("a", 1)
            assert outer.connections == 1
            await close(writer)
            server.close()
            await server.wait_closed()

    everywhere(body)


# ---------------------------------------------------------------------------------------- what is a choice


def test_how_much_arrives_is_a_choice() -> None:
    """A reader that trusts the network is found out."""

    async def body() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.read(100)).upper())
            await reader.read()
            await close(writer)

        with MemoryNetwork(delays=False).patched():
            server = await asyncio.start_server(handle, "shop", 80)
            reader, writer = await asyncio.open_connection("shop", 80)
            writer.write(b"tea")
            writer.write_eof()
            answer = await reader.read()
            await close(writer)
            server.close()
            assert answer == b"TEA"

    result = testing.search(body, save=False)
    assert isinstance(result.exception, AssertionError)
    assert (result.deviations, result.minimal) == (1, True)
    again = testing.search(body, save=False)
    assert str(again.schedule) == str(result.schedule)


def test_every_order_of_arrival_is_found() -> None:
    found: set[tuple[bytes, ...]] = set()

    async def body() -> None:
        order: list[bytes] = []

        class Notes(Recorder):
            def data_received(self, data: bytes) -> None:
                order.append(data)

        with MemoryNetwork(short_reads=False).patched():
            loop = asyncio.get_running_loop()
            server = await loop.create_server(Notes, "a", 1)
            clients = [await loop.create_connection(asyncio.Protocol, "a", 1) for _ in range(2)]
            for (transport, _), data in zip(clients, (b"1", b"2"), strict=True):
                transport.write(data)
            while len(order) < 2:
                await asyncio.sleep(1)
            found.add(tuple(order))
            for transport, _ in clients:
                transport.abort()
            server.close()

    everywhere(body)
    assert found == {(b"1", b"2"), (b"2", b"1")}


def test_which_connection_is_accepted_first_is_a_choice() -> None:
    async def names(**options: Any) -> list[bytes]:
        accepted: list[bytes] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.append(await reader.readline())
            await close(writer)

        async def client(name: bytes) -> None:
            reader, writer = await asyncio.open_connection("a", 1)
            writer.write(name)
            assert await reader.read() == b""
            await close(writer)

        with MemoryNetwork(short_reads=False, delays=False, **options).patched():
            server = await asyncio.start_server(handle, "a", 1, start_serving=False)
            server.sockets[0].listen(5)
            clients = [asyncio.create_task(client(name)) for name in (b"first\n", b"second\n")]
            await asyncio.sleep(1)
            await server.start_serving()
            # those that had come before are accepted, too
            await asyncio.gather(*clients)
            server.close()
            await server.wait_closed()
        return accepted

    assert testing.run(names) == [b"first\n", b"second\n"]
    assert testing.run(lambda: swapco.await_(names(choose=always("network.accept", 1)))) == [b"second\n", b"first\n"]


def test_what_two_fibers_send_to_two_transports_does_not_commute() -> None:
    """The loop takes the callbacks in order: DPOR must know, though the connections have nothing in common."""

    async def body() -> None:
        net = MemoryNetwork()
        pairs = [net.stream_pair() for _ in range(2)]
        loop: Any = asyncio.get_running_loop()
        transports = [MemoryTransport(loop, peer.end, Recorder()) for _, (_, peer) in pairs]
        await asyncio.sleep(1)

        def send(writer: Any) -> None:
            testing.schedule_point(writer)
            writer.write(b"x")

        for (_, writer), _ in pairs:
            await swapco.spawn(send, writer, name="sender")
        for transport in transports:
            transport.abort()
        for (_, writer), (_, peer) in pairs:
            writer.abort()
            peer._closed = True  # the transport has its end
        await asyncio.sleep(1)

    program = Program(body)
    program.footprints = True

    def written() -> list[frozenset[int]]:
        """The objects that the senders write."""
        outcome = program.run(Schedule([]))
        assert not outcome.failed, outcome.exception
        control = program.control
        senders = [n for n, actor in enumerate(control.actors) if control.name(actor) == "sender"]
        return [
            frozenset().union(*(step.writes for step in program.record(outcome).steps if step.actor == sender))
            for sender in senders
        ]

    first, second = program.session(written)
    assert len(first & second) == 1


@runs_both_ways
async def test_a_task_that_an_event_has_woken_goes_on_before_the_next_event() -> None:
    """As with asyncio, where its step is the callback that wakes it: protocols rely on that."""

    class OneByOne(Recorder):
        def note(self, event: Any) -> None:
            self.next.set_result(event)

        def connection_made(self, transport: Any) -> None:
            self.next = asyncio.get_running_loop().create_future()
            self.transport = transport

    server, client, peer = await two_protocols(kind=OneByOne)
    for _ in range(3):
        peer.transport.write(b"x")
        assert await client.next == b"x"
        client.next = asyncio.get_running_loop().create_future()
    for i in range(9):
        peer.transport.write(b"%d" % i)
    peer.transport.write_eof()
    received, event = b"", b""
    while event != "eof":
        event = await client.next
        client.next = asyncio.get_running_loop().create_future()
        received += event if event != "eof" else b""
    assert received == b"012345678"
    await finish(server, client, peer)


def test_an_exception_that_nobody_retrieves_is_reported_beside_a_transport() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        with MemoryNetwork().patched():
            server, client, peer = await two_protocols()
            future = loop.create_future()
            future.add_done_callback(lambda _: None)
            future.set_exception(LookupError())
            del future
            handle = loop.call_soon(lambda: handle.cancel())
            await settle()
            await finish(server, client, peer)

    result = testing.search(body, save=False)
    assert isinstance(result.exception, LookupError)


def test_a_small_program_is_exhausted() -> None:
    async def body() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(2))
            await close(writer)

        with MemoryNetwork(delays=False).patched():
            server = await asyncio.start_server(handle, "a", 1)
            reader, writer = await asyncio.open_connection("a", 1)
            writer.write(b"ab")
            assert await reader.read() == b"ab"
            await close(writer)
            server.close()
            await server.wait_closed()

    result = testing.verify(body, preemption_bound=1, save=False).check()
    assert result.exhausted
    assert result.schedules > 10


# ------------------------------------------------------------------------------------------------- faults


def on_a_faulty_network(program: Callable[[MemoryNetwork], Awaitable[Any]]) -> Callable[[], None]:
    """A test of ``program(network)`` in many orders."""

    def test() -> None:
        async def body() -> None:
            net = MemoryNetwork()
            with net.patched():
                await program(net)

        everywhere(body)

    test.__name__ = program.__name__  # type: ignore[attr-defined]
    return test


@on_a_faulty_network
async def test_a_partition_is_silent_and_loses_nothing(net: MemoryNetwork) -> None:
    server, client, peer = await two_streams("db", 1)
    with net.partition("db"):
        client[1].write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer[0].readexactly(1), 5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.open_connection("db", 1)
        assert asyncio.get_running_loop().time() == 10
    assert await peer[0].readexactly(5) == b"hello"
    await end(server, client, peer)


@on_a_faulty_network
async def test_a_server_that_refuses(net: MemoryNetwork) -> None:
    server = await asyncio.start_server(shout, "db", 1)
    with net.refuse("db", 1), pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("db", 1)
    _, writer = await asyncio.open_connection("db", 1)
    await close(writer)
    server.close()
    await server.wait_closed()


@on_a_faulty_network
async def test_a_network_that_takes_its_time(net: MemoryNetwork) -> None:
    now = asyncio.get_running_loop().time
    with net.delay(1.5):
        server, client, peer = await two_streams("db", 1)
        assert now() == 1.5
        client[1].write(b"hello")
        assert await peer[0].readexactly(5) == b"hello"
        assert now() == 3
        await end(server, client, peer)
    await asyncio.sleep(5)


@pytest.mark.parametrize("sender", ["client", "server"])
@pytest.mark.parametrize("after", [0, 1, 5, 6])
def test_a_connection_that_breaks_after_some_bytes(after: int, sender: str) -> None:
    async def body() -> None:
        net = MemoryNetwork()
        with net.patched(), net.cut(after, sender=sender):
            server, *ends = await two_streams("db", 1)
            (_, writer), (reader, peer) = ends if sender == "client" else reversed(ends)
            writer.write(b"hello")
            if after > 5:
                assert await reader.readexactly(5) == b"hello"
                writer.write(b"!")
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)) as caught:
                await reader.readexactly(7)
            if isinstance(caught.value, asyncio.IncompleteReadError):
                raise AssertionError("the end of the stream instead of a reset")
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(b"more")
                    await writer.drain()
            for one in (writer, peer):
                one.close()
                with pytest.raises(ConnectionError):
                    await one.wait_closed()
            server.close()
            await server.wait_closed()
        await asyncio.sleep(1)
        assert net.connections == 0

    everywhere(body)


@on_a_faulty_network
async def test_a_reset_is_seen_by_both_protocols(net: MemoryNetwork) -> None:
    server, client, peer = await two_protocols(keep_open=(True, True))
    net.reset(client.transport)
    await asyncio.gather(client.closed, peer.closed)
    for one in (client, peer):
        assert one.events == ["made", ("lost", ConnectionResetError, errno.ECONNRESET)]
        assert one.transport.get_protocol() is None
        one.transport.close()
    server.close()
    await server.wait_closed()
    assert net.connections == 0


@on_a_faulty_network
async def test_a_reset_is_seen_by_both_streams(net: MemoryNetwork) -> None:
    server, *ends = await two_streams()
    net.reset(ends[0][1])
    for reader, writer in ends:
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
    await end(server, *ends)
    assert net.connections == 0


@on_a_faulty_network
async def test_the_socket_is_closed_under_a_transport(net: MemoryNetwork) -> None:
    server, client, peer = await two_protocols()
    client.transport.get_extra_info("socket").close()
    await asyncio.gather(client.closed, peer.closed)
    assert client.events == ["made", ("lost", OSError, errno.EBADF)]
    assert peer.events == ["made", "eof", ("lost", type(None), None)]
    await finish(server)


@on_a_faulty_network
async def test_a_full_backlog_lets_clients_wait(net: MemoryNetwork) -> None:
    server = await asyncio.start_server(shout, "a", 1, start_serving=False)
    server.sockets[0].listen(0)
    waiting = [asyncio.create_task(asyncio.open_connection("a", 1)) for _ in range(2)]
    await asyncio.sleep(1)
    assert sorted(task.done() for task in waiting) == [False, True]
    await server.start_serving()
    await close(*[(await task)[1] for task in waiting])
    server.close()
    await server.wait_closed()


@on_a_faulty_network
async def test_a_server_that_closes_resets_those_it_has_not_accepted(net: MemoryNetwork) -> None:
    server = await asyncio.start_server(shout, "a", 1, start_serving=False)
    server.sockets[0].listen(5)
    reader, writer = await asyncio.open_connection("a", 1)
    server.close()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    await close(writer)
    await server.wait_closed()


@on_a_faulty_network
async def test_a_cancelled_connect_leaves_nothing(net: MemoryNetwork) -> None:
    server = await asyncio.start_server(shout, "a", 1)
    for turns in range(6):
        connecting = asyncio.create_task(asyncio.open_connection("a", 1))
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        try:
            await close((await connecting)[1])
        except asyncio.CancelledError:
            pass
    await asyncio.sleep(1)
    assert net.connections == 0
    server.close()
    await server.wait_closed()


# ------------------------------------------------------------------------------------- names and arguments


def test_names_are_not_resolved() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        with MemoryNetwork().patched():
            tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            tcp6 = (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            assert await loop.getaddrinfo("shop", 80) == [(*tcp, ("shop", 80))]
            assert await loop.getaddrinfo(b"shop", "80") == [(*tcp, ("shop", 80))]
            assert await loop.getaddrinfo("::1", 80) == [(*tcp6, ("::1", 80, 0, 0))]
            assert await loop.getaddrinfo("localhost", 80, family=socket.AF_INET6) == [(*tcp6, ("::1", 80, 0, 0))]
            found = await loop.getaddrinfo(None, 80, flags=socket.AI_PASSIVE, family=socket.AF_INET)
            assert found == [(*tcp, ("0.0.0.0", 80))]
            assert await loop.getaddrinfo(None, 80, family=socket.AF_INET) == [(*tcp, ("127.0.0.1", 80))]
            with pytest.raises(socket.gaierror):
                await loop.getaddrinfo("shop", 80, type=socket.SOCK_DGRAM)
            with pytest.raises(TypeError, match="host is a name"):
                await loop.getaddrinfo(3, 80)  # type: ignore[arg-type]
            server = await loop.create_server(asyncio.Protocol, b"shop", 80)  # type: ignore[call-overload]
            transport, _ = await loop.create_connection(asyncio.Protocol, b"shop", 80)  # type: ignore[call-overload]
            transport.abort()
            server.close()

    everywhere(body)


@pytest.mark.parametrize("name", ["create_connection", "create_server", "create_unix_connection", "create_unix_server"])
def test_the_arguments_are_asyncios(name: str) -> None:
    ours = inspect.signature(getattr(LoopMethods(MemoryNetwork()), name)).parameters
    real = inspect.signature(getattr(asyncio.SelectorEventLoop, name)).parameters
    shared = {parameter: ours[parameter] for parameter in real if parameter != "self"}
    assert [(one.name, one.kind) for one in shared.values()] == [
        (one.name, one.kind) for one in real.values() if one.name != "self"
    ]
    for parameter in shared.values():
        default = real[parameter.name].default
        # families and flags are enumerations there
        assert (parameter.default == default) or parameter.name == "flags"


@on_a_faulty_network
async def test_no_tls_and_no_sockets(net: MemoryNetwork) -> None:
    loop: Any = asyncio.get_running_loop()
    for method, address in (
        (loop.create_connection, ("a", 1)), (loop.create_server, ("a", 1)),
        (loop.create_unix_connection, ("a",)), (loop.create_unix_server, ("a",)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="ssl=: TLS"):
            await method(asyncio.Protocol, *address, ssl=object())
        with pytest.raises(ValueError, match="sock=: a network in memory has no sockets"):
            await method(asyncio.Protocol, sock=NotUsed())
    with pytest.raises(TypeError, match="bytes-like object, not 'str'"):
        server, client, peer = await two_protocols()
        client.transport.write("text")
    assert isinstance(server, ProtocolServer)
    assert repr(server).startswith("<ProtocolServer sockets=(<Listener ('127.0.0.1', ")
    assert repr(client.transport).startswith("<MemoryTransport open <memory connection ('127.0.0.1', ")
    await finish(server, client, peer)
    assert repr(server) == "<ProtocolServer sockets=() connections=0>"


NONSENSE: dict[str, tuple[Callable[[MemoryNetwork], Any], str]] = {
    "buffer_size": (lambda net: MemoryNetwork(buffer_size="x"), "buffer_size must be a number of bytes.*'x'"),  # type: ignore[arg-type]
    "a fraction": (lambda net: MemoryNetwork(buffer_size=1.5), "buffer_size must be a number of bytes.*1.5"),  # type: ignore[arg-type]
    "short_reads": (lambda net: MemoryNetwork(short_reads="no"), "short_reads must be True or False, not 'no'"),  # type: ignore[arg-type]
    "delays": (lambda net: MemoryNetwork(delays=3), "delays must be True or False, not 3"),  # type: ignore[arg-type]
    "choose": (lambda net: MemoryNetwork(choose=3), "choose must be a function.*not 3"),  # type: ignore[arg-type]
    "pair": (lambda net: testing.memory_stream_pair(buffer_size=None), "buffer_size .*None"),  # type: ignore[arg-type]
    "cut": (lambda net: net.cut("x"), "after must be a number of bytes, an int, not 'x'"),  # type: ignore[arg-type]
    "cut True": (lambda net: net.cut(True), "after must be a number of bytes, an int, not True"),
    "delay": (lambda net: net.delay("x"), "seconds must be a number, not 'x'"),  # type: ignore[arg-type]
    "delay of None": (lambda net: net.delay(None), "seconds must be a number, not None"),  # type: ignore[arg-type]
    "partition": (lambda net: net.partition(3), "host is a name or an address .*not 3"),  # type: ignore[arg-type]
    "port": (lambda net: net.partition("a", "b"), "port is a number .*not 'b'"),  # type: ignore[arg-type]
    "port 1.5": (lambda net: net.refuse("a", 1.5), "port is a number .*not 1.5"),  # type: ignore[arg-type]
    "reset": (lambda net: net.reset(None), "only a connection in memory .*the writer None"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_by_name(name: str) -> None:
    call, message = NONSENSE[name]
    net = MemoryNetwork()
    with pytest.raises(TypeError, match=message):
        call(net)
    assert repr(net) == "<MemoryNetwork listening=0 connections=0>"


def test_a_choice_that_is_none() -> None:
    net = MemoryNetwork(choose=lambda n, label: "x")  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"choose\(2, 'a'\) returned 'x'"):
        net.choose(2, "a")


# ------------------------------------------------------------------------------------ outside, and the end


METHODS: dict[str, Callable[[Any], Any]] = {
    "create_connection": lambda loop: loop.create_connection(asyncio.Protocol, "a", 1),
    "create_server": lambda loop: loop.create_server(asyncio.Protocol, "a", 1),
    "create_unix_connection": lambda loop: loop.create_unix_connection(asyncio.Protocol, "a"),
    "create_unix_server": lambda loop: loop.create_unix_server(asyncio.Protocol, "a"),
    "getaddrinfo": lambda loop: loop.getaddrinfo("a", 1),
}


@pytest.mark.parametrize("name", METHODS)
def test_without_a_network_it_is_refused(name: str) -> None:
    async def body() -> None:
        with MemoryNetwork().patched():
            pass
        await METHODS[name](asyncio.get_running_loop())

    result = testing.search(body, save=False)
    assert isinstance(result.exception, RealIOError)
    message = str(result.exception)
    assert message.startswith(f"loop.{name}() in a controlled run")
    assert f"{__file__}:" in message
    assert "with swapco.testing.MemoryNetwork().patched():" in message


def test_streams_of_a_run_that_is_over_say_nothing() -> None:
    """What is collected later must not warn, nor close anything in another run."""

    async def body() -> None:
        with MemoryNetwork().patched():
            await asyncio.start_server(shout, "a", 1)
            _, writer = await asyncio.open_connection("a", 1)
            kept.append(writer)
            writer.write(b"x")
            raise LookupError

    kept: list[asyncio.StreamWriter] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = testing.search(body, save=False, shrink_failure=False)
        assert isinstance(result.exception, LookupError)
        transport: Any = kept[0].transport
        assert transport.is_closing()
        transport.write(b"y")
        transport.write_eof()
        transport.close()
        transport.abort()
        assert "open" in repr(transport)
        del transport
        kept.clear()
        del result
        gc.collect()
    assert [str(one.message) for one in caught] == []


def test_a_server_that_is_left_open_is_no_leak() -> None:
    """Nor is it on sockets; a task that waits for its client is one."""

    async def body() -> None:
        with MemoryNetwork().patched():
            await asyncio.start_server(shout, "a", 1)

    async def with_a_client() -> None:
        with MemoryNetwork().patched():
            await asyncio.start_server(shout, "a", 1)
            kept.append(await asyncio.open_connection("a", 1))
            await asyncio.sleep(1)

    kept: list[Any] = []
    everywhere(body)
    result = testing.search(with_a_client, save=False)
    assert isinstance(result.exception, testing.FiberLeak)


def test_a_transport_that_is_dropped_warns_and_is_seen_by_its_peer() -> None:
    async def body() -> None:
        with MemoryNetwork().patched():
            server, client, peer = await two_protocols()
            transport, client.transport = client.transport, None
            transport.pause_reading()  # else the loop keeps it, as a selector would
            with pytest.warns(ResourceWarning, match="unclosed <MemoryTransport open"):
                del transport
                gc.collect()
            await peer.closed
            assert peer.events == ["made", "eof", ("lost", type(None), None)]
            server.close()
            await server.wait_closed()

    testing.run(body)


def test_under_a_loop_of_its_own_asyncio_stays_real() -> None:
    async def program() -> str:
        with MemoryNetwork().patched():
            server = await asyncio.start_server(shout, LOCALHOST, 0)
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            name = type(writer.transport).__name__
            await close(writer)
            server.close()
            await server.wait_closed()
        return name

    assert asyncio.run(program()) == "_SelectorSocketTransport"
    assert swapco.run(program) == "TCPTransport"
