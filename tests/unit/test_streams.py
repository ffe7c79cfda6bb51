"""Streams over real sockets, with asyncio's as the oracle.

Tests that take ``streams`` run twice: against ours, and against asyncio's on the same loop, whose coroutines are
awaited from fibers by a thin wrapper.  The rest is what asyncio does not have: output that is collected until the
fiber gives the CPU away, and where errors of sends that nobody waited for come out.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import logging
import os
import resource
import socket as stdlib
import struct
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import Logged, in_fiber, settle, wait_until

import swapco
from swapco import await_, current_fiber, sleep, socket, spawn
from swapco._loop.loop import hub_of
from swapco.streams import (
    StreamReader,
    StreamWriter,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)

pytestmark = pytest.mark.usefixtures("fibers")

LOCALHOST = "127.0.0.1"
LARGE = 20_000_000


# ------------------------------------------------------------------------------------------ the oracle

class Awaited:
    """An asyncio stream or server whose coroutines are awaited by the calling fiber."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(value):
            return value
        return lambda *args, **kwargs: await_(value(*args, **kwargs))

    def __iter__(self) -> Iterator[bytes]:
        while line := await_(self.inner.readline()):
            yield line

    def __enter__(self) -> Awaited:
        return self

    def __exit__(self, *error: object) -> None:
        self.inner.close()
        await_(self.inner.wait_closed())


def _asyncio_open_connection(*args: Any, **kwargs: Any) -> tuple[Awaited, Awaited]:
    reader, writer = await_(asyncio.open_connection(*args, **kwargs))
    return Awaited(reader), Awaited(writer)


def _asyncio_start_server(callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Awaited:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await spawn(callback, Awaited(reader), Awaited(writer))

    return Awaited(await_(asyncio.start_server(connected, *args, **kwargs)))


OURS = SimpleNamespace(
    name="swapco", open_connection=open_connection, start_server=start_server, StreamReader=StreamReader
)
THEIRS = SimpleNamespace(
    name="asyncio",
    open_connection=_asyncio_open_connection,
    start_server=_asyncio_start_server,
    StreamReader=lambda **kwargs: Awaited(asyncio.StreamReader(**kwargs, loop=asyncio.get_running_loop())),
)


@pytest.fixture(params=[OURS, THEIRS], ids=lambda streams: streams.name)
def streams(request: pytest.FixtureRequest) -> Any:
    return request.param


# ---------------------------------------------------------------------------------------------- helpers

def connected(**kwargs: Any) -> tuple[StreamReader, StreamWriter, stdlib.socket]:
    """A reader, its writer and the peer, a standard blocking socket."""
    with stdlib.create_server((LOCALHOST, 0)) as listener:
        reader, writer = open_connection(*listener.getsockname(), **kwargs)
        peer, _ = listener.accept()
    return reader, writer, peer


@contextmanager
def connection(**kwargs: Any) -> Iterator[tuple[StreamReader, StreamWriter, stdlib.socket]]:
    reader, writer, peer = connected(**kwargs)
    try:
        yield reader, writer, peer
    finally:
        writer.close()
        peer.close()


def parked(function: Callable[..., Any], *args: Any) -> swapco.Fiber:
    """A fiber that waits inside ``function``."""
    fiber = spawn(function, *args)
    settle(10)
    assert fiber.state == "BLOCKED", fiber
    return fiber


def received_so_far(peer: stdlib.socket) -> bytes:
    try:
        return peer.recv(1 << 20, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def swallow(peer: stdlib.socket, size: int) -> None:
    while size:
        size -= len(peer.recv(min(size, 1 << 20)))


def reset(peer: stdlib.socket) -> None:
    """Close with a RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def data_segments_sent(sock: Any) -> int:
    """TCP_INFO's tcpi_data_segs_out: how many segments with data were sent."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("I", info, 156)[0])


def poller() -> Any:
    return hub_of(asyncio.get_running_loop()).poller


def fed(streams: Any, data: bytes = b"", *, eof: bool = False, **kwargs: Any) -> Any:
    reader = streams.StreamReader(**kwargs)
    if data:
        reader.feed_data(data)
    if eof:
        reader.feed_eof()
    return reader


def echo(reader: Any, writer: Any) -> None:
    while data := reader.read(4096):
        writer.write(data)
        writer.drain()
    writer.close()


# ------------------------------------------------------------------------------- the reader, fed by hand

@in_fiber
def test_read(streams: Any) -> None:
    reader = fed(streams, b"abcdef")
    assert reader.read(0) == b""
    assert reader.read(2) == b"ab"
    assert reader.read(100) == b"cdef"
    waiting = parked(reader.read, 3)
    reader.feed_data(b"")
    settle()
    assert not waiting.done()
    reader.feed_data(b"ghijk")
    assert waiting.join() == b"ghi"
    assert not reader.at_eof()
    reader.feed_eof()
    assert not reader.at_eof()
    assert reader.read(3) == b"jk"
    assert reader.at_eof()
    assert reader.read(3) == b""
    assert reader.read() == b""


@in_fiber
def test_read_to_the_end(streams: Any) -> None:
    reader = fed(streams, b"ab")
    waiting = parked(reader.read)
    reader.feed_data(b"cd")
    settle()
    assert not waiting.done()
    reader.feed_data(b"ef")
    reader.feed_eof()
    assert waiting.join() == b"abcdef"


@in_fiber
def test_readline(streams: Any) -> None:
    reader = fed(streams, b"one\ntwo\nthr")
    assert reader.readline() == b"one\n"
    assert reader.readline() == b"two\n"
    waiting = parked(reader.readline)
    reader.feed_data(b"ee")
    settle()
    assert not waiting.done()
    reader.feed_data(b"\nrest")
    assert waiting.join() == b"three\n"
    reader.feed_eof()
    assert reader.readline() == b"rest"
    assert reader.readline() == b""


@in_fiber
def test_lines_by_iteration(streams: Any) -> None:
    reader = fed(streams, b"one\n\ntwo\nthree", eof=True)
    assert list(reader) == [b"one\n", b"\n", b"two\n", b"three"]


@pytest.mark.parametrize("longer", [b"", b"67"])
@in_fiber
def test_a_line_longer_than_the_limit(streams: Any, longer: bytes) -> None:
    reader = fed(streams, b"12345" + longer + b"\nnext\n", limit=4)
    with pytest.raises(ValueError, match="Separator is found, but chunk is longer than limit"):
        reader.readline()
    assert reader.readline() == b"next\n", "a complete line is dropped"
    reader.feed_data(b"1234567")
    with pytest.raises(ValueError, match="Separator is not found, and chunk exceed the limit"):
        reader.readline()
    reader.feed_data(b"89\n")
    assert reader.readline() == b"89\n", "what came of the line is dropped"
    reader.feed_data(b"1234\n")
    assert reader.readline() == b"1234\n"


@in_fiber
def test_readuntil(streams: Any) -> None:
    reader = fed(streams, b"oneSEPtwoSEP")
    assert reader.readuntil(b"SEP") == b"oneSEP"
    assert reader.readuntil(b"SEP") == b"twoSEP"
    waiting = parked(reader.readuntil, b"SEP")
    for part in (b"thre", b"eS", b"E", b"SE"):
        reader.feed_data(part)
        settle()
        assert not waiting.done()
    reader.feed_data(b"Prest")
    assert waiting.join() == b"threeSESEP"
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        reader.readuntil(b"SEP")
    assert caught.value.partial == b"rest"
    assert caught.value.expected is None
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        reader.readuntil(b"SEP")
    assert caught.value.partial == b""


@in_fiber
def test_readuntil_and_the_limit(streams: Any) -> None:
    reader = fed(streams, b"some dataAA", limit=4)
    for _ in range(2):
        with pytest.raises(asyncio.LimitOverrunError, match="not found") as caught:
            reader.readuntil(b"AAA")
        assert caught.value.consumed == 9
    reader.feed_data(b"A")
    with pytest.raises(asyncio.LimitOverrunError, match="found, but") as caught:
        reader.readuntil(b"AAA")
    assert caught.value.consumed == 9
    assert reader.read(100) == b"some dataAAA", "nothing was lost"


@in_fiber
def test_readuntil_refuses_an_empty_separator(streams: Any) -> None:
    with pytest.raises(ValueError, match="at least one-byte"):
        fed(streams, b"data").readuntil(b"")


@pytest.mark.parametrize(
    "streams", [OURS, *([THEIRS] if sys.version_info >= (3, 13) else [])], ids=lambda streams: streams.name
)
@in_fiber
def test_several_separators(streams: Any) -> None:
    reader = fed(streams, b"one\r\ntwo\nthree\rfo")
    assert reader.readuntil((b"\r\n", b"\n")) == b"one\r\n"
    assert reader.readuntil((b"\r\n", b"\n")) == b"two\n"
    assert reader.readuntil((b"\r\n", b"\n", b"\r")) == b"three\r"
    waiting = parked(reader.readuntil, (b"long separator", b"u"))
    reader.feed_data(b"ur")
    assert waiting.join() == b"fou"
    with pytest.raises(ValueError, match="at least one element"):
        reader.readuntil(())
    with pytest.raises(ValueError, match="at least one-byte"):
        reader.readuntil((b"a", b""))


@in_fiber
def test_readexactly(streams: Any) -> None:
    reader = fed(streams, b"abcdef")
    assert reader.readexactly(0) == b""
    assert reader.readexactly(4) == b"abcd"
    waiting = parked(reader.readexactly, 5)
    reader.feed_data(b"g")
    settle()
    assert not waiting.done()
    reader.feed_data(b"hijk")
    assert waiting.join() == b"efghi"
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        reader.readexactly(3)
    assert (caught.value.partial, caught.value.expected) == (b"jk", 3)
    with pytest.raises(ValueError, match="less than zero"):
        reader.readexactly(-1)


@in_fiber
def test_set_exception(streams: Any) -> None:
    reader = fed(streams, b"data\n")
    assert reader.exception() is None
    error = ConnectionError("lost")
    reader.set_exception(error)
    assert reader.exception() is error
    for call in (
        reader.read,
        lambda: reader.read(0),
        reader.readline,
        lambda: reader.readuntil(b"\n"),
        lambda: reader.readexactly(1),
    ):
        with pytest.raises(ConnectionError, match="lost"):
            call()
    reader = fed(streams)
    waiting = parked(reader.readline)
    reader.set_exception(error)
    with pytest.raises(ConnectionError, match="lost"):
        waiting.join()


@in_fiber
def test_a_limit_must_be_positive(streams: Any) -> None:
    with pytest.raises(ValueError, match="Limit cannot be <= 0"):
        fed(streams, limit=0)


@in_fiber
def test_feeding_after_the_end(streams: Any) -> None:
    with pytest.raises(AssertionError, match="feed_data after feed_eof"):
        fed(streams, eof=True).feed_data(b"x")


@in_fiber
def test_a_cancelled_read_loses_nothing(streams: Any) -> None:
    reader = fed(streams, b"abc")
    for call in (lambda: reader.readexactly(5), reader.readline, lambda: reader.readuntil(b"SEP")):
        waiting = parked(call)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            waiting.join()
    assert reader.read(10) == b"abc"


@in_fiber
def test_only_one_fiber_may_wait(streams: Any) -> None:
    reader = fed(streams)
    first = parked(reader.read, 10)
    with pytest.raises(RuntimeError, match="already"):
        reader.read(10)
    reader.feed_data(b"abc")
    assert first.join() == b"abc"


def test_a_reader_made_by_hand_needs_no_loop() -> None:
    reader = StreamReader()
    reader.feed_data(bytearray(b"abc"))
    reader.feed_data(memoryview(b"def"))
    reader.feed_eof()
    assert not reader.at_eof()
    assert repr(reader) == "<StreamReader 6 bytes eof>"
    assert repr(StreamReader(limit=5)) == "<StreamReader limit=5>"
    with pytest.raises(swapco.NotInFiber):
        reader.read(1)
    assert swapco.run(reader.read) == b"abcdef"


# ------------------------------------------------------------------------------------------- connections

@in_fiber
def test_echo(streams: Any) -> None:
    with streams.start_server(echo, LOCALHOST, 0) as server:
        reader, writer = streams.open_connection(LOCALHOST, server.sockets[0].getsockname()[1])
        for size in (1, 100, 5000, 300_000):
            data = os.urandom(size)
            writer.write(data)
            assert reader.readexactly(size) == data
        writer.write_eof()
        assert reader.read() == b""
        assert reader.at_eof()
        writer.close()
        writer.wait_closed()
        server.close()


@in_fiber
def test_both_directions_are_slow(streams: Any) -> None:
    data = os.urandom(LARGE)

    def send(writer: Any) -> None:
        for start in range(0, LARGE, 100_000):
            writer.write(data[start : start + 100_000])
            writer.drain()
        writer.write_eof()

    with streams.start_server(echo, LOCALHOST, 0) as server:
        reader, writer = streams.open_connection(LOCALHOST, server.sockets[0].getsockname()[1])
        sender = spawn(send, writer)
        assert reader.read() == data
        sender.join()
        writer.close()
        writer.wait_closed()
        server.close()


@in_fiber
def test_extra_info(streams: Any) -> None:
    seen = []

    def connected(reader: Any, writer: Any) -> None:
        seen.append((writer.get_extra_info("peername"), writer.get_extra_info("sockname")))
        seen.append(writer.get_extra_info("socket").family)
        writer.close()
        writer.wait_closed()
        seen.append((writer.get_extra_info("peername"), writer.get_extra_info("sockname")))

    with streams.start_server(connected, LOCALHOST, 0) as server:
        address = server.sockets[0].getsockname()
        reader, writer = streams.open_connection(*address)
        own = writer.get_extra_info("sockname")
        assert writer.get_extra_info("peername") == address
        assert writer.get_extra_info("nothing") is None
        assert writer.get_extra_info("nothing", 5) == 5
        assert reader.read() == b""
        writer.close()
        writer.wait_closed()
        wait_until(lambda: len(seen) == 3)
        assert seen == [(own, address), socket.AF_INET, (own, address)]
        server.close()


@in_fiber
def test_writing_after_the_end(streams: Any) -> None:
    with streams.start_server(echo, LOCALHOST, 0) as server:
        reader, writer = streams.open_connection(*server.sockets[0].getsockname())
        assert writer.can_write_eof()
        writer.write(b"last")
        writer.write_eof()
        writer.write_eof()
        with pytest.raises(RuntimeError, match=r"write\(\) after write_eof\(\)"):
            writer.write(b"x")
        assert reader.read() == b"last"
        assert not writer.is_closing()
        writer.close()
        assert writer.is_closing()
        writer.wait_closed()
        writer.close()
        with pytest.raises(RuntimeError):
            writer.write(b"x")
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            writer.drain()
        assert reader.read(10) == b""
        server.close()


@in_fiber
def test_a_reader_sees_the_writers_close(streams: Any) -> None:
    def wait(reader: Any, writer: Any) -> None:
        reader.read()
        writer.close()

    with streams.start_server(wait, LOCALHOST, 0) as server:
        reader, writer = streams.open_connection(*server.sockets[0].getsockname())
        waiting = parked(reader.readexactly, 10)
        writer.close()
        with pytest.raises(asyncio.IncompleteReadError):
            waiting.join()
        assert reader.read(10) == b""
        server.close()


@in_fiber
def test_write_takes_bytes_of_any_kind(streams: Any) -> None:
    with streams.start_server(echo, LOCALHOST, 0) as server:
        reader, writer = streams.open_connection(*server.sockets[0].getsockname())
        array = bytearray(b"bb")
        writer.write(b"a")
        writer.write(array)
        array[:] = b"xx"
        writer.write(memoryview(b"ccc"))
        writer.writelines([b"dd", bytearray(b"e"), memoryview(b"f")])
        writer.writelines([])
        writer.write(b"")
        assert reader.readexactly(10) == b"abbcccddef"
        with pytest.raises(TypeError):
            writer.write("text")
        writer.close()
        writer.wait_closed()
        server.close()


def everything_says_reset(waiting: Any, reader: Any, writer: Any) -> None:
    """The fiber that waits in a read, and whatever is called after the reset."""
    with pytest.raises(ConnectionResetError):
        waiting.join()
    with pytest.raises(ConnectionResetError):
        reader.readline()
    with pytest.raises(ConnectionResetError):
        writer.drain()
    writer.close()
    with pytest.raises(ConnectionResetError):
        writer.wait_closed()


@in_fiber
def test_a_reset_is_raised_by_read(streams: Any) -> None:
    with stdlib.create_server((LOCALHOST, 0)) as listener:
        reader, writer = streams.open_connection(*listener.getsockname())
        peer, _ = listener.accept()
    waiting = parked(reader.read, 10)
    reset(peer)
    everything_says_reset(waiting, reader, writer)


@in_fiber
def test_an_aborted_connection() -> None:
    reader, writer, peer = connected()
    writer.write(bytes(LARGE))
    waiting = parked(writer.drain)
    writer.transport.abort()
    writer.wait_closed()
    with pytest.raises(ConnectionResetError, match="Connection lost"):
        waiting.join()
    assert writer.is_closing()
    assert writer.transport.get_write_buffer_size() == 0
    assert reader.read(10) == b""
    writer.abort()
    peer.close()


@in_fiber
def test_open_connection_refused(streams: Any) -> None:
    with stdlib.socket() as unused:
        unused.bind((LOCALHOST, 0))
        with pytest.raises(ConnectionRefusedError):
            streams.open_connection(*unused.getsockname())


@in_fiber
def test_open_connection_by_name_and_from_an_address(streams: Any) -> None:
    with streams.start_server(echo, "localhost", 0, family=socket.AF_INET) as server:
        port = server.sockets[0].getsockname()[1]
        with stdlib.socket() as free:
            free.bind((LOCALHOST, 0))
            own = free.getsockname()
        reader, writer = streams.open_connection("localhost", port, local_addr=own, family=socket.AF_INET)
        assert writer.get_extra_info("sockname") == own
        writer.write(b"x")
        assert reader.readexactly(1) == b"x"
        writer.close()
        writer.wait_closed()
        server.close()


@in_fiber
def test_open_connection_of_a_connected_socket(streams: Any) -> None:
    with streams.start_server(echo, LOCALHOST, 0) as server:
        sock = stdlib.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        reader, writer = streams.open_connection(sock=sock)
        writer.write(b"x")
        assert reader.readexactly(1) == b"x"
        writer.close()
        writer.wait_closed()
        server.close()


@in_fiber
def test_arguments_that_contradict_each_other(streams: Any) -> None:
    with stdlib.socket() as sock, stdlib.socket(type=socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ValueError, match="host/port and sock"):
            streams.open_connection(LOCALHOST, 1, sock=sock)
        with pytest.raises(ValueError, match="no sock specified"):
            streams.open_connection()
        with pytest.raises(ValueError, match="Stream Socket was expected"):
            streams.open_connection(sock=datagrams)
        with pytest.raises(ValueError, match="host/port and sock"):
            streams.start_server(echo, LOCALHOST, 1, sock=sock)
        with pytest.raises(ValueError, match="Neither host/port nor sock"):
            streams.start_server(echo)
        with pytest.raises(ValueError, match="Stream Socket was expected"):
            streams.start_server(echo, sock=datagrams)


# -------------------------------------------------------------------------------------------- the server

@in_fiber
def test_a_server_that_does_not_serve_yet(streams: Any) -> None:
    server = streams.start_server(echo, LOCALHOST, 0, start_serving=False)
    address = server.sockets[0].getsockname()
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        stdlib.create_connection(address)
    server.start_serving()
    server.start_serving()
    assert server.is_serving()
    assert server.get_loop() is asyncio.get_running_loop()
    with stdlib.create_connection(address) as client:
        client.sendall(b"abc")
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: received_so_far(client) == b"abc")
    server.close()
    server.close()
    server.wait_closed()
    assert not server.is_serving()
    assert not server.sockets
    with pytest.raises(RuntimeError, match="closed"):
        server.serve_forever()


@in_fiber
def test_serve_forever(streams: Any) -> None:
    server = streams.start_server(echo, LOCALHOST, 0, start_serving=False)
    fiber = parked(server.serve_forever)
    assert server.is_serving()
    with pytest.raises(RuntimeError, match="already"):
        server.serve_forever()
    fiber.cancel()
    with pytest.raises(asyncio.CancelledError):
        fiber.join()
    assert not server.is_serving()


@in_fiber
def test_serve_forever_ends_with_the_server() -> None:
    server = start_server(echo, LOCALHOST, 0)  # as asyncio's; uvloop 0.23 hangs here
    fiber = parked(server.serve_forever)
    server.close()
    with pytest.raises(asyncio.CancelledError):
        fiber.join()
    assert fiber.cancelling() == 0


@in_fiber
def test_wait_closed_waits_for_the_connections() -> None:
    go = swapco.Event()
    with start_server(lambda reader, writer: (go.wait(), writer.close()), LOCALHOST, 0) as server:
        address = server.sockets[0].getsockname()
        waiting = parked(server.wait_closed)
        clients = [stdlib.create_connection(address) for _ in range(3)]
        settle()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            stdlib.create_connection(address)
        settle()
        assert not waiting.done()
        go.set()
        waiting.join()
        for client in clients:
            assert client.recv(10) == b"", "connections go on after close"
            client.close()


@in_fiber
def test_connections_that_wait_to_be_accepted_are_served() -> None:
    answers = []

    def hello(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = start_server(hello, LOCALHOST, 0, start_serving=False)
    server.start_serving()
    clients = [stdlib.create_connection(server.sockets[0].getsockname()) for _ in range(50)]
    for client in clients:
        wait_until(lambda: answers.append(received_so_far(client)) or answers[-1])  # noqa: B023
        assert answers[-1] == b"hello"
        client.close()
    server.close()
    server.wait_closed()


@in_fiber
def test_close_clients() -> None:
    kept = []

    def keep(reader: StreamReader, writer: StreamWriter) -> None:
        kept.append(writer)
        if len(kept) == 1:
            reader.read()

    with start_server(keep, LOCALHOST, 0) as server:
        clients = [stdlib.create_connection(server.sockets[0].getsockname()) for _ in range(2)]
        wait_until(lambda: len(kept) == 2)
        settle()
        assert not any(writer.is_closing() for writer in kept), "also one whose callback has returned"
        for writer in kept:
            writer.write(b"bye")
        server.close_clients()
        for client in clients:
            assert client.recv(10) == b"bye"
            assert client.recv(10) == b""
            client.close()
        server.abort_clients()
        server.close()


@in_fiber
def test_a_callback_that_fails(fibers: Logged) -> None:
    def fail(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"so far")
        raise ZeroDivisionError("on purpose")

    with start_server(fail, LOCALHOST, 0) as server:
        with stdlib.create_connection(server.sockets[0].getsockname()) as client:
            wait_until(lambda: fibers.records)
            assert client.recv(100) == b"so far"
            assert client.recv(100) == b""
        assert "Unhandled exception in client_connected_cb" in fibers.take()[0]
        server.close()


@in_fiber
def test_an_async_callback() -> None:
    async def callback(reader: StreamReader, writer: StreamWriter) -> None:
        await asyncio.sleep(0)
        writer.write(reader.readline().upper())  # a plain call inside a coroutine
        writer.close()

    with start_server(callback, LOCALHOST, 0) as server:
        reader, writer = open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert reader.read() == b"HELLO\n"
        writer.close()
        server.close()


@in_fiber
def test_a_callback_that_forgets_the_connection() -> None:
    def forget(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"last words")

    with start_server(forget, LOCALHOST, 0) as server, pytest.warns(ResourceWarning, match="unclosed <Stream"):
        with stdlib.create_connection(server.sockets[0].getsockname()) as client:
            answers: list[bytes] = []
            wait_until(lambda: answers.append(received_so_far(client)) or answers[-1])
            assert answers[-1] == b"last words"
            settle()
            gc.collect()
            assert client.recv(10) == b""
        server.close()


@in_fiber
def test_a_connection_whose_fiber_never_runs() -> None:
    with start_server(echo, LOCALHOST, 0) as server:
        with stdlib.create_connection(server.sockets[0].getsockname()) as client:
            wait_until(lambda: server._active)
            for fiber in list(server._active):
                fiber.cancel()
            settle()
            client.settimeout(5)
            assert client.recv(10) == b""
        server.close()


@in_fiber
def test_cancelled_connections_are_closed() -> None:
    with start_server(echo, LOCALHOST, 0) as server:
        with stdlib.create_connection(server.sockets[0].getsockname()) as client:
            wait_until(lambda: server._active)
            settle()
            (fiber,) = server._active
            fiber.cancel()
            with pytest.raises(asyncio.CancelledError):
                fiber.join()
            assert client.recv(10) == b""
        server.close()


@in_fiber
def test_accepting_goes_on_after_running_out_of_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    with stdlib.create_server((LOCALHOST, 0)) as probe:
        highest = probe.fileno()
    server = start_server(echo, LOCALHOST, 0)
    server._accept_retry_s = 0.01
    client = stdlib.create_connection(server.sockets[0].getsockname())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        with suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        with caplog.at_level(logging.WARNING, "swapco.streams"):
            wait_until(lambda: len(caplog.records) >= 2)
        assert "Too many open files" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)
    client.sendall(b"abc")
    wait_until(lambda: received_so_far(client) == b"abc")
    client.close()
    server.close()
    server.wait_closed()


@in_fiber
def test_hosts() -> None:
    with start_server(echo, [LOCALHOST, "::1", LOCALHOST], 0) as server:
        assert sorted(sock.family for sock in server.sockets) == [socket.AF_INET, socket.AF_INET6]
        for sock in server.sockets:
            stdlib.create_connection(sock.getsockname()[:2]).close()
        server.close()
    for host in (None, ""):
        with start_server(echo, host, 0) as server:
            assert {sock.getsockname()[0] for sock in server.sockets} == {"0.0.0.0", "::"}
            server.close()
    with start_server(echo, LOCALHOST, 0, reuse_port=True, keep_alive=True) as server:
        address = server.sockets[0].getsockname()
        assert server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        with start_server(echo, *address, reuse_port=True) as second:
            second.close()
        with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
            start_server(echo, *address)
        assert caught.value.errno == errno.EADDRINUSE
        server.close()
    with pytest.raises(TypeError, match="must be callable"):
        start_server(None, LOCALHOST, 0)  # type: ignore[arg-type]


@in_fiber
def test_a_server_on_a_given_socket() -> None:
    sock = stdlib.socket()
    sock.bind((LOCALHOST, 0))
    with start_server(echo, sock=sock) as server:
        reader, writer = open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        assert reader.read(1) == b"x"
        writer.close()
        server.close()


@in_fiber
def test_leaving_a_server_with_an_exception_does_not_wait() -> None:
    client = None
    with pytest.raises(ZeroDivisionError):
        with start_server(echo, LOCALHOST, 0) as server:
            client = stdlib.create_connection(server.sockets[0].getsockname())
            wait_until(lambda: server._active)
            raise ZeroDivisionError
    assert not server.is_serving()
    assert client is not None
    client.close()
    server.wait_closed()


def test_the_end_of_run_with_a_server_that_serves() -> None:
    clients = []

    def main() -> None:
        server = start_server(echo, LOCALHOST, 0)
        clients.append(stdlib.create_connection(server.sockets[0].getsockname()))
        wait_until(lambda: server._active)
        settle()

    swapco.run(main)
    for client in clients:
        assert client.recv(10) == b""
        client.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda: open_connection(LOCALHOST, 1, ssl=True),  # type: ignore[arg-type]
        lambda: start_server(echo, LOCALHOST, 0, ssl=object()),  # type: ignore[arg-type]
        lambda: open_unix_connection("/nowhere", ssl=True),  # type: ignore[arg-type]
        lambda: start_unix_server(echo, "/nowhere", ssl=True),  # type: ignore[arg-type]
    ],
)
@in_fiber
def test_tls_is_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="TLS is not part of this release"):
        call()


# --------------------------------------------------------------------------------------------- Unix sockets

@in_fiber
def test_unix_streams(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(FileNotFoundError):
        open_unix_connection(path)
    with start_unix_server(echo, path) as server:
        reader, writer = open_unix_connection(path)
        writer.write(b"hello")
        assert reader.readexactly(5) == b"hello"
        assert writer.get_extra_info("peername") == str(path)
        writer.close()
        writer.wait_closed()
        server.close()
        assert not path.exists()
    with stdlib.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with start_unix_server(echo, str(path), cleanup_socket=False) as server:
        server.close()
    assert path.exists()
    path.unlink()
    path.write_text("a regular file")
    with pytest.raises(OSError, match="already in use"):
        start_unix_server(echo, path)
    with pytest.raises(ValueError, match="path was not specified"):
        start_unix_server(echo)
    with pytest.raises(ValueError, match="no path and sock"):
        open_unix_connection()
    with stdlib.socket() as tcp, pytest.raises(ValueError, match="UNIX Domain Stream Socket"):
        start_unix_server(echo, sock=tcp)
    with stdlib.socket(socket.AF_UNIX) as sock:
        with pytest.raises(ValueError, match="path and sock"):
            start_unix_server(echo, path, sock=sock)
        with pytest.raises(ValueError, match="path and sock"):
            open_unix_connection(path, sock=sock)


@in_fiber
def test_an_abstract_unix_server() -> None:
    name = f"\0swapco test {os.getpid()}"
    with start_unix_server(echo, name) as server:
        first, second = stdlib.socketpair()
        reader, writer = open_unix_connection(sock=first)
        second.sendall(b"abc")
        assert reader.read(10) == b"abc"
        writer.close()
        second.close()
        reader, writer = open_unix_connection(name)
        writer.write(b"x")
        assert reader.read(1) == b"x"
        writer.close()
        server.close()


# ------------------------------------------------------------------------------------- collected output

@in_fiber
def test_writes_go_out_in_one_send_before_the_fiber_blocks() -> None:
    with connection() as (_, writer, peer):
        before = data_segments_sent(writer.get_extra_info("socket"))
        for _ in range(16):
            writer.write(b"0123456789")
            writer.drain()
        assert received_so_far(peer) == b""
        assert writer.get_write_buffer_size() == 160
        sleep(0)
        assert received_so_far(peer) == b"0123456789" * 16
        assert data_segments_sent(writer.get_extra_info("socket")) == before + 1
        assert writer.get_write_buffer_size() == 0


@pytest.mark.parametrize("give_away", [
    lambda: sleep(0.001),
    lambda: spawn(int).join(),
    lambda: swapco.switch_to(spawn(swapco.resume, current_fiber())),
    lambda: await_(asyncio.sleep(0)),
    lambda: (swapco.resume(current_fiber()), swapco.block(), sleep(0)),
])  # fmt: skip
@in_fiber
def test_every_way_to_give_the_cpu_away_sends(give_away: Callable[[], Any]) -> None:
    with connection() as (_, writer, peer):
        writer.write(b"abc")
        assert received_so_far(peer) == b""
        give_away()
        assert received_so_far(peer) == b"abc"


@in_fiber
def test_the_end_of_a_fiber_sends() -> None:
    with connection() as (_, writer, peer):
        order = []

        def write() -> None:
            writer.write(b"abc")

        fiber = spawn(write)
        spawn(lambda: order.append(received_so_far(peer)))
        fiber.join()
        settle()
        assert order == [b"abc"], "before the next fiber runs"


@in_fiber
def test_writes_from_a_loop_callback_go_out_at_the_end_of_the_turn() -> None:
    with connection() as (_, writer, peer):
        loop = asyncio.get_running_loop()
        loop.call_soon(writer.write, b"abc")
        loop.call_soon(writer.write, b"def")
        before = data_segments_sent(writer.get_extra_info("socket"))
        settle()
        assert received_so_far(peer) == b"abcdef"
        assert data_segments_sent(writer.get_extra_info("socket")) == before + 1


@in_fiber
def test_64_kib_go_out_at_once() -> None:
    with connection() as (_, writer, peer):
        writer.write(bytes(65535))
        assert received_so_far(peer) == b""
        writer.write(b"x")
        assert writer.get_write_buffer_size() == 0
        swallow(peer, 65536)
        writer.write(bytes(65536))
        swallow(peer, 65536)
        writer.write(bytearray(200_000))
        swallow(peer, 200_000)


@in_fiber
def test_the_order_of_small_and_large_writes() -> None:
    with connection() as (_, writer, peer):
        expected = bytearray()
        for number in range(60):
            data = bytes([number]) * (number * 37 % 11 * 9000 + 1)
            expected += data
            writer.write(data if number % 3 else bytearray(data))
            if number % 7 == 0:
                sleep(0)
        got = bytearray()
        while len(got) < len(expected):
            got += received_so_far(peer)
            sleep(0)
        assert got == expected


@in_fiber
def test_drain_below_the_high_water_mark_neither_sends_nor_blocks() -> None:
    with connection() as (_, writer, peer):
        writer.write(bytes(60_000))
        switches = current_fiber().scheduler.switches
        writer.drain()
        assert current_fiber().scheduler.switches == switches
        assert received_so_far(peer) == b""


@in_fiber
def test_drain_above_the_high_water_mark_waits_for_the_low_one() -> None:
    with connection() as (_, writer, peer):
        writer.write(bytes(LARGE))
        waiting = parked(writer.drain)
        assert "to become writable" in waiting.wait_reason
        left = writer.get_write_buffer_size()
        total = 0
        while not waiting.done():
            total += len(received_so_far(peer))
            sleep(0)
        assert total >= left - 16384 - 10_000_000
        assert writer.get_write_buffer_size() <= 16384
        while total < LARGE:
            total += len(received_so_far(peer))
            sleep(0)
        assert writer.get_write_buffer_limits() == (16384, 65536)
        writer.set_write_buffer_limits(high=0)
        assert writer.get_write_buffer_limits() == (0, 0)
        writer.write(b"x")
        writer.drain()
        assert received_so_far(peer) == b"x"
        writer.set_write_buffer_limits(low=10)
        assert writer.get_write_buffer_limits() == (10, 40)
        with pytest.raises(ValueError, match="must be >="):
            writer.set_write_buffer_limits(1, 2)


@in_fiber
def test_a_cancelled_drain() -> None:
    with connection() as (_, writer, peer):
        writer.write(bytes(LARGE))
        waiting = parked(writer.drain)
        second = parked(writer.drain)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            waiting.join()
        total = 0
        while total < LARGE:
            total += len(received_so_far(peer))
            sleep(0)
        second.join()


# -------------------------------------------------------------------------------------- errors of sends

@in_fiber
def test_an_error_of_a_send_comes_out_of_this_writer_only() -> None:
    reader, writer, peer = connected()
    with connection() as (_, other, other_peer):
        reset(peer)
        writer.write(b"abc")
        other.write(b"def")
        sleep(0)  # the sends happen here, and nothing is raised
        assert other_peer.recv(10) == b"def"
        assert writer.is_closing()
        for call in (lambda: writer.write(b"x"), writer.drain, writer.wait_closed, lambda: reader.read(1)):
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                call()
        other.drain()
    writer.close()


@in_fiber
def test_an_error_of_a_send_wakes_the_reader() -> None:
    reader, writer, peer = connected()
    writer.write(bytes(LARGE))
    waiting = parked(reader.read, 10)
    draining = parked(writer.drain)
    closing = parked(writer.wait_closed)
    reset(peer)
    for fiber in (waiting, draining, closing):
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            fiber.join()


@in_fiber
def test_the_socket_is_closed_under_the_writer() -> None:
    reader, writer, peer = connected()
    waiting = parked(reader.read, 10)
    writer.get_extra_info("socket").close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        waiting.join()
    writer.write(b"x")
    sleep(0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.wait_closed()
    peer.close()


# --------------------------------------------------------------------------------------------- closing

@in_fiber
def test_close_sends_what_was_collected() -> None:
    reader, writer, peer = connected()
    writer.write(b"abc")
    writer.close()
    assert peer.recv(10) == b"abc"
    assert peer.recv(10) == b""
    writer.wait_closed()
    peer.close()


@in_fiber
def test_close_goes_on_sending_in_the_background() -> None:
    reader, writer, peer = connected()
    data = os.urandom(LARGE)
    writer.write(data)
    writer.close()
    reader_at_its_end = reader.read()
    alive = weakref.ref(writer)
    waiting = parked(writer.wait_closed)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        waiting.join()
    del writer, reader, waiting
    gc.collect()
    assert alive() is not None, "somebody must send the rest"
    got = bytearray()
    while len(got) < LARGE:
        got += received_so_far(peer)
        sleep(0)
    settle()
    assert peer.recv(10) == b""
    assert got == data
    assert reader_at_its_end == b""
    assert alive() is None
    peer.close()


@in_fiber
def test_write_eof_after_what_was_collected() -> None:
    with connection() as (reader, writer, peer):
        data = os.urandom(LARGE)
        writer.write(data)
        writer.write_eof()
        got = bytearray()
        while len(got) < LARGE:
            got += received_so_far(peer)
            sleep(0)
        settle()
        assert peer.recv(10) == b""
        assert got == data
        peer.sendall(b"still open")
        assert reader.read(20) == b"still open"


@in_fiber
def test_an_unclosed_writer_is_closed_with_a_warning() -> None:
    reader, writer, peer = connected()
    before = poller().registered
    writer.write(b"abc")
    with pytest.warns(ResourceWarning, match="unclosed <StreamWriter open"):
        del writer, reader
        sleep(0)
        gc.collect()
    assert poller().registered == before - 1
    assert peer.recv(10) == b"abc"
    assert peer.recv(10) == b""
    peer.close()


def test_writers_that_outlive_their_loop() -> None:
    kept: list[Any] = []

    def main() -> None:
        closing, open_one = connected(), connected()
        closing[1].write(bytes(LARGE))
        closing[1].close()
        kept.extend([*closing, *open_one])

    swapco.run(main)
    assert "closing" in repr(kept[1])
    kept[2].close()
    kept[5].close()
    with pytest.warns(ResourceWarning, match="the event loop was closed before <StreamWriter closing"):
        del kept[1]
        gc.collect()
    with pytest.warns(ResourceWarning, match="the event loop was closed before <StreamWriter open"):
        kept.clear()
        gc.collect()


def test_what_nobody_waits_for_at_the_end_of_the_loop() -> None:
    peers = []

    def main() -> None:
        reader, writer, peer = connected()
        peers.append(peer)
        writer.write(bytes(LARGE))
        writer.close()

    with pytest.warns(ResourceWarning, match="the event loop was closed before <StreamWriter closing"):
        swapco.run(main)
        gc.collect()
    peers[0].close()


@in_fiber
def test_a_writer_is_a_context_manager() -> None:
    reader, writer, peer = connected()
    with writer as same:
        assert same is writer
        assert writer.transport is writer
        writer.write(b"abc")
    assert peer.recv(10) == b"abc"
    assert peer.recv(10) == b""
    peer.close()
    assert repr(writer).startswith("<StreamWriter closed")
    with pytest.raises(TypeError, match="not by hand"):
        StreamWriter()


# --------------------------------------------------------------------------------------------- reading

@in_fiber
def test_the_end_is_seen_without_waiting() -> None:
    with connection() as (reader, _, peer):
        assert not reader.at_eof()
        peer.sendall(b"abc")
        assert not reader.at_eof()
        assert reader.read(3) == b"abc"
        peer.shutdown(socket.SHUT_WR)
        settle()
        assert reader.at_eof()
        assert reader.readline() == b""


@in_fiber
def test_a_failure_is_seen_without_waiting() -> None:
    with connection() as (reader, writer, peer):
        reset(peer)
        settle()
        assert not reader.at_eof()
        with pytest.raises(ConnectionResetError):
            reader.read()


@in_fiber
def test_data_and_the_end_between_two_polls() -> None:
    with connection() as (reader, _, peer):
        waiting = parked(lambda: [reader.readline(), reader.readline(), reader.readline()])
        peer.sendall(b"one\ntwo")
        peer.close()
        assert waiting.join(20) == [b"one\n", b"two", b""]


@pytest.mark.parametrize("size", [1, 70_000, 3_000_000])
@in_fiber
def test_readexactly_of_any_size(size: int) -> None:
    data = os.urandom(size)
    with start_server(lambda reader, writer: (writer.write(data), writer.close()), LOCALHOST, 0) as server:
        reader, writer = open_connection(*server.sockets[0].getsockname())
        assert reader.readexactly(size // 2) == data[: size // 2]
        assert reader.readexactly(size - size // 2) == data[size // 2 :]
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            reader.readexactly(1 << 60)
        assert caught.value.partial == b""
        writer.close()
        server.close()


@in_fiber
def test_feeding_a_reader_that_has_a_connection() -> None:
    with connection() as (reader, _, peer):
        waiting = parked(reader.readline)
        reader.feed_data(b"by ha")
        settle()
        peer.sendall(b"nd\n")
        assert waiting.join() == b"by hand\n"
        waiting = parked(reader.read, 10)
        reader.feed_data(b"x")
        assert waiting.join() == b"x"
        waiting = parked(reader.read, 10)
        reader.feed_eof()
        assert waiting.join() == b""


@in_fiber
def test_an_idle_connection_holds_no_buffer() -> None:
    with connection() as (reader, writer, peer):
        peer.sendall(bytes(500_000))
        assert len(reader.readexactly(500_000)) == 500_000
        writer.write(bytes(500_000))
        swallow(peer, 500_000)
        sleep(0)
        assert reader._buffer_size() <= 4096
        assert writer._buffer_size() <= 4096


@in_fiber
def test_lines_that_were_pipelined() -> None:
    with connection() as (reader, _, peer):
        lines = [b"%d" % number * (number % 50) + b"\n" for number in range(5000)]
        waiting = spawn(lambda: [reader.readline() for _ in lines])
        sent = 0
        data = b"".join(lines)
        while sent < len(data):
            sent += peer.send(data[sent : sent + 10_007])
            sleep(0)
        assert waiting.join() == lines


@in_fiber
def test_streams_outside_a_fiber() -> None:
    with connection() as (reader, writer, peer):
        peer.sendall(b"abc")
        caught: list[str] = []

        def callback() -> None:
            for call in (
                lambda: reader.read(1),
                reader.readline,
                lambda: next(reader),
                lambda: reader.readexactly(1),
                reader.readuntil,
                writer.drain,
                writer.wait_closed,
            ):
                with suppress(swapco.NotInFiber):
                    call()
                    continue
                caught.append("NotInFiber")

        asyncio.get_running_loop().call_soon(callback)
        settle()
        assert len(caught) == 7
        assert reader.read(10) == b"abc", "nothing was lost"


@in_fiber
def test_a_fiber_that_always_has_something_to_read_lets_others_run() -> None:
    with connection() as (reader, writer, peer):
        peer.sendall(b"x" * 5000)
        turns = 0
        stop = False

        def other() -> None:
            nonlocal turns
            while not stop:
                turns += 1
                sleep(0)

        fiber = spawn(other)
        for _ in range(5000):
            assert reader.read(1) == b"x"
        stop = True
        assert turns >= 5000 // 64 - 2
        fiber.join()
