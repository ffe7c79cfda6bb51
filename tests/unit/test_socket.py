"""Cooperative sockets over real ones: what each operation does, and what must not be lost, hang or leak.

The peers are standard sockets where the order of kernel events matters: a test that says "between two polls" does
everything on the peer's side without letting the event loop run.
"""

from __future__ import annotations

import array
import asyncio
import errno
import gc
import io
import os
import resource
import socket as stdlib
import struct
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import in_fiber, settle, wait_until

import swapco
from swapco import current_fiber, sleep, socket, spawn
from swapco._loop.loop import hub_of
from swapco.lowlevel import wait_readable, wait_writable

pytestmark = pytest.mark.usefixtures("fibers")

LOCALHOST = "127.0.0.1"
Pair = tuple[socket.socket, stdlib.socket]


def registered() -> int:
    """How many descriptors the loop's poller has."""
    return int(hub_of(asyncio.get_running_loop()).poller.registered)


@contextmanager
def closing(*socks: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for sock in socks:
            sock.close()


def tcp(family: int = socket.AF_INET) -> Pair:
    """A cooperative socket and its peer, a standard one (blocking, so that a test sees when it would hang)."""
    host = LOCALHOST if family == socket.AF_INET else "::1"
    with stdlib.create_server((host, 0), family=family) as listener:
        sock = socket.create_connection(listener.getsockname()[:2])
        peer, _ = listener.accept()
    peer.settimeout(20)
    return sock, peer


def tcp6() -> Pair:
    return tcp(socket.AF_INET6)


def unix(kind: int = socket.SOCK_STREAM) -> Pair:
    ours, theirs = stdlib.socketpair(socket.AF_UNIX, kind)
    theirs.settimeout(20)
    return socket.socket(fileno=ours.detach()), theirs


def seqpacket() -> Pair:
    return unix(socket.SOCK_SEQPACKET)


def unix_datagrams() -> Pair:
    return unix(socket.SOCK_DGRAM)


def udp() -> Pair:
    sock, peer = socket.socket(type=socket.SOCK_DGRAM), stdlib.socket(type=socket.SOCK_DGRAM)
    sock.bind((LOCALHOST, 0))
    peer.bind((LOCALHOST, 0))
    sock.connect(peer.getsockname())
    peer.connect(sock.getsockname())
    peer.settimeout(20)
    return sock, peer


STREAMS = [tcp, tcp6, unix]
DATAGRAMS = [udp, unix_datagrams, seqpacket]


def parked(function: Callable[..., Any], *args: Any) -> swapco.Fiber:
    """A fiber that waits inside ``function``."""
    fiber = spawn(function, *args)
    settle()
    assert fiber.state == "BLOCKED", fiber
    return fiber


def under_way(sock: Any) -> bool:
    """Has the peer's kernel yet to take what was sent?  There is room for more when it has."""
    if sock.family == socket.AF_UNIX:
        return False
    unacknowledged = struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]
    return bool(unacknowledged)


def fill(sock: Any) -> int:
    """Send until there is no room, and none will come before the peer reads; how much it was."""
    total = 0
    while True:
        at_rest = not under_way(sock)
        try:
            total += sock.send(bytes(65536), socket.MSG_DONTWAIT)
        except BlockingIOError:
            if at_rest:
                return total
            time.sleep(0.001)


def swallow(sock: Any, size: int) -> None:
    while size:
        size -= len(sock.recv(min(size, 1 << 20)))


# ------------------------------------------------------------------------------------------- the object

def test_it_is_a_standard_socket_that_never_blocks() -> None:
    with socket.socket() as sock:
        assert isinstance(sock, stdlib.socket)
        assert sock.family is socket.AF_INET
        assert not os.get_blocking(sock.fileno())
        assert sock.gettimeout() is None
        assert sock.timeout is None
        assert sock.getblocking()
        assert repr(sock).startswith("<swapco.socket.socket fd=")
    assert sock.fileno() == -1
    assert "[closed]" in repr(sock)


def test_timeouts_are_kept_beside_the_descriptor() -> None:
    with socket.socket() as sock:
        for value in (1.5, 3, 0, None):
            sock.settimeout(value)
            assert sock.gettimeout() == value
            assert sock.timeout == value
            assert sock.getblocking() is (value != 0)
            assert not os.get_blocking(sock.fileno())
        sock.setblocking(False)
        assert sock.gettimeout() == 0.0
        sock.setblocking(True)
        assert sock.gettimeout() is None
        with pytest.raises(ValueError, match="out of range"):
            sock.settimeout(-1)
        with pytest.raises(ValueError, match="NaN"):
            sock.settimeout(float("nan"))
        with pytest.raises(TypeError):
            sock.settimeout("1")
        assert sock.gettimeout() is None


def test_the_default_timeout_and_a_non_blocking_type() -> None:
    socket.setdefaulttimeout(7.5)
    try:
        with socket.socket() as sock:
            assert sock.gettimeout() == 7.5
    finally:
        socket.setdefaulttimeout(None)
    with socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        assert sock.gettimeout() == 0.0
        assert sock.type == socket.SOCK_STREAM


def test_an_unclosed_socket_warns_and_closes_its_descriptor() -> None:
    sock = socket.socket()
    fd = sock.fileno()
    with pytest.warns(ResourceWarning, match="unclosed <swapco"):
        del sock
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@in_fiber
def test_an_unclosed_socket_leaves_the_poller_first() -> None:
    sock, peer = tcp()
    peer.sendall(b"x")
    assert sock.recv(1) == b"x"
    before = registered()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del sock
        gc.collect()
    assert registered() == before - 1
    assert peer.recv(1) == b""
    peer.close()


def test_detach_gives_the_descriptor_away() -> None:
    sock = socket.socket()
    fd = sock.detach()
    assert sock.fileno() == -1
    os.close(fd)


@in_fiber
def test_dup_is_a_socket_of_its_own() -> None:
    sock, peer = tcp()
    sock.settimeout(5)
    other = sock.dup()
    with closing(peer, other):
        assert type(other) is socket.socket
        assert other.gettimeout() == 5
        peer.sendall(b"abc")
        assert sock.recv(1) == b"a"
        sock.close()
        reader = spawn(other.recv, 10)
        assert reader.join() == b"bc"
        peer.sendall(b"d")
        assert other.recv(10) == b"d"


@in_fiber
def test_weak_references_and_attributes_of_a_subclass() -> None:
    class Mine(socket.socket):
        pass

    with Mine() as sock:
        sock.note = "mine"
        assert weakref.ref(sock)() is sock
        with sock.dup() as other:
            assert type(other) is Mine


# ------------------------------------------------------------------------------------------ receiving

@pytest.mark.parametrize("pair", STREAMS)
@in_fiber
def test_recv_waits_for_data_and_for_the_end(pair: Callable[[], Pair]) -> None:
    sock, peer = pair()
    with closing(sock, peer):
        reader = parked(sock.recv, 100)
        assert repr(sock) in str(reader.wait_reason)
        peer.sendall(b"hello")
        assert reader.join() == b"hello"
        reader = parked(sock.recv, 100)
        peer.shutdown(socket.SHUT_WR)
        assert reader.join() == b""
        assert sock.recv(100) == b""
        sock.sendall(b"half-closed: the other direction works")
        assert peer.recv(100).startswith(b"half-closed")


@pytest.mark.parametrize("pair", STREAMS)
@in_fiber
def test_data_and_the_end_between_two_polls(pair: Callable[[], Pair]) -> None:
    sock, peer = pair()
    with closing(sock):
        reader = parked(lambda: [sock.recv(100), sock.recv(100), sock.recv(100)])
        peer.sendall(b"last words")
        peer.close()
        assert reader.join(20) == [b"last words", b"", b""]


@pytest.mark.parametrize("pair", STREAMS)
@in_fiber
def test_the_end_after_a_short_read(pair: Callable[[], Pair]) -> None:
    sock, peer = pair()
    with closing(sock):
        reader = parked(lambda: [sock.recv(100), sock.recv(100)])
        peer.sendall(b"first")
        settle()
        peer.close()
        assert reader.join(20) == [b"first", b""]


@in_fiber
def test_more_data_than_one_recv_takes() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        peer.sendall(b"abcdef")
        peer.close()
        assert [sock.recv(4) for _ in range(3)] == [b"abcd", b"ef", b""]


@in_fiber
def test_a_reset() -> None:
    sock, peer = tcp()
    with closing(sock):
        reader = parked(sock.recv, 100)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionResetError):
            reader.join(20)
        assert sock.recv(10) == b""
        with pytest.raises(BrokenPipeError):
            sock.sendall(b"x")


@in_fiber
def test_data_and_a_reset_between_two_polls() -> None:
    sock, peer = tcp()
    with closing(sock):
        got = []

        def read() -> None:
            while True:
                got.append(sock.recv(4))

        reader = parked(read)
        peer.sendall(b"abcdef")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionResetError):
            reader.join(20)
        assert got == [b"abcd", b"ef"]


@pytest.mark.parametrize("pair", DATAGRAMS)
@in_fiber
def test_a_short_datagram_does_not_end_the_reading(pair: Callable[[], Pair]) -> None:
    sock, peer = pair()
    with closing(sock, peer):
        reader = parked(lambda: [sock.recv(100) for _ in range(3)])
        for data in (b"one", b"two", b"three"):
            peer.send(data)
        assert reader.join(20) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("pair", [udp, unix_datagrams])
@in_fiber
def test_an_empty_datagram(pair: Callable[[], Pair]) -> None:
    sock, peer = pair()
    with closing(sock, peer):
        peer.send(b"")
        assert sock.recv(10) == b""
        assert sock.send(b"") == 0
        sock.sendall(b"")
        assert peer.recv(10) == b""
        assert peer.recv(10) == b""


@pytest.mark.parametrize("pair", DATAGRAMS)
@in_fiber
def test_a_datagram_larger_than_the_buffer(pair: Callable[[], Pair]) -> None:
    sock, peer = pair()
    with closing(sock, peer):
        for _ in range(3):
            peer.send(b"0123456789")
        assert sock.recv(4) == b"0123"
        data, _, flags, _ = sock.recvmsg(4)
        assert data == b"0123"
        assert flags & socket.MSG_TRUNC
        buffer = bytearray(4)
        assert sock.recv_into(buffer) == 4
        for _ in range(2):
            peer.send(b"0123456789")
        assert sock.recv(4, socket.MSG_TRUNC) == b"0123" + bytes(6), "the real length, and nobody else's data"
        assert sock.recv_into(buffer, 0, socket.MSG_TRUNC) == 10
        reader = parked(sock.recv, 10)
        peer.send(b"next")
        assert reader.join() == b"next"


@in_fiber
def test_the_end_of_a_seqpacket_connection() -> None:
    sock, peer = seqpacket()
    with closing(sock):
        reader = parked(lambda: [sock.recv(100), sock.recv(100)])
        peer.send(b"a")
        peer.close()
        assert reader.join(20) == [b"a", b""]


@in_fiber
def test_sizes() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        with pytest.raises(ValueError, match="negative buffersize in recv"):
            sock.recv(-1)
        with pytest.raises(ValueError, match="negative buffersize"):
            sock.recv_into(bytearray(4), -1)
        with pytest.raises(ValueError, match="buffer too small"):
            sock.recv_into(bytearray(4), 5)
        with pytest.raises(ValueError, match="negative"):
            sock.recvfrom(-1)
        with pytest.raises((TypeError, BufferError)):
            sock.recv_into(b"read-only")
        reader = parked(sock.recv, 0)  # as in the kernel: waits for data, and takes none
        peer.sendall(b"abc")
        assert reader.join() == b""
        assert sock.recv_into(bytearray(0)) == 0
        assert sock.recv(10) == b"abc"


@in_fiber
def test_recv_into() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        buffer = bytearray(10)
        reader = parked(sock.recv_into, buffer)
        with pytest.raises(BufferError):
            buffer.append(0)
        peer.sendall(b"abcdef")
        assert reader.join() == 6
        assert buffer[:6] == b"abcdef"
        buffer.append(0)
        peer.sendall(b"ghi")
        assert sock.recv_into(memoryview(buffer)[2:], 2) == 2
        assert buffer[:6] == b"abghef"
        assert sock.recv_into(buffer, nbytes=5, flags=0) == 1


@in_fiber
def test_a_large_recv() -> None:
    sock, peer = tcp()
    size = 5_000_000
    with closing(sock, peer):
        thread = threading.Thread(target=peer.sendall, args=(os.urandom(size),))
        thread.start()
        total = 0
        while total < size:
            data = sock.recv(1 << 20)
            assert 0 < len(data) <= 1 << 20
            total += len(data)
        thread.join()


@in_fiber
def test_peek() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        reader = parked(sock.recv, 10, socket.MSG_PEEK)
        peer.sendall(b"abc")
        assert reader.join() == b"abc"
        assert sock.recv(10, socket.MSG_PEEK) == b"abc"
        assert sock.recv(10) == b"abc"
        reader = parked(sock.recv, 10)
        peer.sendall(b"d")
        assert reader.join() == b"d"


@pytest.mark.parametrize("pair", STREAMS)
@in_fiber
def test_waitall(pair: Callable[[], Pair]) -> None:
    sock, peer = pair()
    with closing(sock, peer):
        reader = parked(sock.recv, 6, socket.MSG_WAITALL)
        peer.sendall(b"abc")
        settle()
        assert not reader.done()
        peer.sendall(b"defgh")
        assert reader.join() == b"abcdef"
        buffer = bytearray(4)
        reader = parked(sock.recv_into, buffer, 4, socket.MSG_WAITALL)
        peer.close()
        assert reader.join() == 2
        assert buffer[:2] == b"gh"
        assert sock.recv(4, socket.MSG_WAITALL) == b""


@in_fiber
def test_waitall_loses_nothing_when_it_is_cut_short() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        seen = []

        def read() -> None:
            seen.append(sock.recv(6, socket.MSG_WAITALL))
            sleep(0)

        reader = parked(read)
        peer.sendall(b"abc")
        settle()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            reader.join()
        assert seen == [b"abc"], "what was read comes first, the cancellation at the next block"
        peer.sendall(b"de")
        wait_readable(sock)
        sock.settimeout(0.01)
        assert sock.recv(6, socket.MSG_WAITALL) == b"de"
        with pytest.raises(TimeoutError):
            sock.recv(6, socket.MSG_WAITALL)
        sock.settimeout(None)
        reader = parked(sock.recv, 6, socket.MSG_WAITALL)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            reader.join()


@in_fiber
def test_out_of_band_data() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        reader = parked(lambda: [sock.recv(100), sock.recv(100)])
        peer.send(b"abc")
        peer.send(b"!", socket.MSG_OOB)
        peer.send(b"def")
        assert reader.join(20) == [b"abc", b"def"]  # a read stops at the mark
        with pytest.raises(OSError, match="Invalid argument"):
            sock.recv(1, socket.MSG_OOB)  # it was passed over
        peer.send(b"?", socket.MSG_OOB)
        assert sock.recv(1, socket.MSG_OOB) == b"?"
        reader = parked(sock.recv, 100)
        with pytest.raises(OSError, match="Invalid argument"):
            sock.recv(1, socket.MSG_OOB)  # does not wait, and does not disturb the reader
        peer.send(b"ghi")
        assert reader.join(20) == b"ghi"


@in_fiber
def test_dontwait() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        with pytest.raises(BlockingIOError):
            sock.recv(10, socket.MSG_DONTWAIT)
        with pytest.raises(BlockingIOError):
            sock.recv_into(bytearray(10), 0, socket.MSG_DONTWAIT)
        with pytest.raises(BlockingIOError):
            sock.recvmsg(10, 0, socket.MSG_DONTWAIT)
        fill(sock)


@in_fiber
def test_passed_descriptors() -> None:
    sock, peer = unix()
    with closing(sock, peer), tempfile.TemporaryFile() as file:
        reader = parked(socket.recv_fds, sock, 100, 1)
        stdlib.send_fds(peer, [b"with"], [file.fileno()])
        peer.sendall(b"without")
        data, fds, _, _ = reader.join(20)
        assert (data, len(fds)) == (b"with", 1)
        assert os.fstat(fds[0]).st_ino == os.fstat(file.fileno()).st_ino
        os.close(fds[0])
        assert sock.recv(100) == b"without"  # a read stops at the descriptors
        socket.send_fds(sock, [b"back"], [file.fileno()])
        data, fds, _, _ = stdlib.recv_fds(peer, 100, 1)
        assert data == b"back"
        os.close(fds[0])


@in_fiber
def test_recvmsg_into_and_ancillary_data() -> None:
    sock, peer = unix()
    with closing(sock, peer), tempfile.TemporaryFile() as file:
        first, second = bytearray(2), bytearray(10)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))]
        reader = parked(sock.recvmsg_into, iter([first, second]), socket.CMSG_SPACE(4))
        peer.sendmsg([b"abc", b"de"], ancillary)
        size, found, _, _ = reader.join(20)
        assert size == 5
        assert first + second[:3] == b"abcde"
        os.close(array.array("i", found[0][2])[0])
        assert sock.sendmsg(iter([b"ab", b"c"]), iter(ancillary)) == 3
        data, found, _, _ = peer.recvmsg(10, socket.CMSG_SPACE(4))
        assert data == b"abc"
        os.close(array.array("i", found[0][2])[0])


@in_fiber
def test_datagrams_with_addresses() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind((LOCALHOST, 0))
        client.bind((LOCALHOST, 0))
        reader = parked(server.recvfrom, 100)
        assert client.sendto(b"ping", server.getsockname()) == 4
        data, address = reader.join()
        assert (data, address) == (b"ping", client.getsockname())
        assert server.sendto(b"pong", 0, address) == 4
        buffer = bytearray(10)
        assert client.recvfrom_into(buffer) == (4, server.getsockname())
        assert buffer[:4] == b"pong"
        assert client.sendto(b"by name", ("localhost", server.getsockname()[1])) == 7
        assert server.recvmsg(100)[0] == b"by name"
        assert client.sendmsg([b"x"], [], 0, ("localhost", server.getsockname()[1])) == 1
        assert server.recv(10) == b"x"
        with pytest.raises(TypeError, match="sendto"):
            client.sendto(b"x")


@in_fiber
def test_a_refused_datagram() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with stdlib.socket(type=socket.SOCK_DGRAM) as unused:
            unused.bind((LOCALHOST, 0))
            address = unused.getsockname()
        sock.connect(address)
        reader = parked(sock.recv, 10)
        sock.send(b"nobody there")
        with pytest.raises(ConnectionRefusedError):
            reader.join(20)


# ------------------------------------------------------------------------------------------- sending

@pytest.mark.parametrize("pair", STREAMS)
@in_fiber
def test_sendall_waits_for_room(pair: Callable[[], Pair]) -> None:
    sock, peer = pair()
    data = os.urandom(20_000_000)
    with closing(sock, peer):
        writer = parked(sock.sendall, data)
        assert repr(sock) in str(writer.wait_reason)
        got = bytearray()
        peer.setblocking(False)
        while len(got) < len(data):
            with suppress(BlockingIOError):
                got += peer.recv(1 << 20)
            sleep(0)
        assert got == data
        assert writer.join() is None


@in_fiber
def test_send_takes_what_fits() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        total = fill(sock)
        writer = parked(sock.send, bytes(1_000_000))
        swallow(peer, total)
        sent = writer.join()
        assert 0 < sent <= 1_000_000
        swallow(peer, sent)
        assert sock.send(bytearray(b"abc")) == 3
        assert sock.send(memoryview(b"abcdef")[::1]) == 6
        with pytest.raises(TypeError):
            sock.send("text")
        with pytest.raises(BufferError):
            sock.sendall(memoryview(b"abcdef")[::2])
        sock.sendall(array.array("i", [1, 2]))
        swallow(peer, 17)


@in_fiber
def test_the_timeout_of_sendall_is_for_the_whole_call() -> None:
    sock, peer = tcp()
    loop = asyncio.get_running_loop()
    with closing(sock, peer):
        peer.setblocking(False)
        sock.settimeout(0.2)
        done = False

        def dribble() -> None:
            # never idle for as long as the timeout: a deadline that began anew would never come
            while not done:
                with suppress(BlockingIOError):
                    peer.recv(65536)
                sleep(0.02)

        reader = spawn(dribble)
        start = loop.time()
        with pytest.raises(TimeoutError, match="to become writable"):
            while True:
                sock.sendall(bytes(100_000_000))
        assert loop.time() - start >= 0.2
        done = True
        reader.join()


@in_fiber
def test_a_writer_learns_of_the_peers_end() -> None:
    sock, peer = tcp()
    with closing(sock):
        writer = parked(sock.sendall, bytes(10_000_000))
        peer.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            writer.join(20)


@in_fiber
def test_one_fiber_reads_while_another_writes() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        reader = parked(sock.recv, 10)
        writer = parked(sock.sendall, bytes(10_000_000))
        peer.sendall(b"abc")
        assert reader.join() == b"abc"
        assert not writer.done()
        thread = threading.Thread(target=swallow, args=(peer, 10_000_000))
        thread.start()
        writer.join(20)
        thread.join()


@pytest.mark.parametrize("size", [10, 3_000_000])
@in_fiber
def test_sendfile(size: int) -> None:
    sock, peer = tcp()
    data = os.urandom(size)
    with closing(sock, peer), tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        for arguments, expected in (((), data), ((5,), data[5:]), ((2, 4), data[2:6])):
            got = bytearray()

            def receive(into: bytearray = got, until: int = len(expected)) -> None:
                while len(into) < until:
                    into += peer.recv(1 << 20)

            thread = threading.Thread(target=receive)
            thread.start()
            file.seek(0)
            assert sock.sendfile(file, *arguments) == len(expected)
            wait_until(lambda: len(got) >= len(expected))  # noqa: B023
            thread.join()
            assert got == expected
            assert file.tell() == (arguments[0] if arguments else 0) + len(expected)


@in_fiber
def test_sendfile_of_what_is_no_regular_file() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        assert sock.sendfile(io.BytesIO(b"abc")) == 3
        assert peer.recv(10) == b"abc"
        with tempfile.TemporaryFile() as empty:
            assert sock.sendfile(empty) == 0
            with pytest.raises(ValueError, match="positive integer"):
                sock.sendfile(empty, 0, -1)
            sock.settimeout(0)
            with pytest.raises(ValueError, match="non-blocking"):
                sock.sendfile(empty)
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="SOCK_STREAM"):
        sock.sendfile(io.BytesIO(b"abc"))


@in_fiber
def test_makefile() -> None:
    sock, peer = tcp()
    with closing(peer):
        with sock, sock.makefile("rw", encoding="ascii", newline="\n") as file:
            reader = parked(file.readline)
            peer.sendall(b"hello\nworld\n")
            assert reader.join() == "hello\n"
            assert file.readline() == "world\n"
            file.write("answer\n")
            file.flush()
            assert peer.recv(100) == b"answer\n"
            sock.close()
            file.write("the file keeps the descriptor\n")
            file.flush()
            assert peer.recv(100).startswith(b"the file")
        assert peer.recv(10) == b""


@in_fiber
def test_makefile_binary_reads_to_the_end() -> None:
    sock, peer = tcp()
    data = os.urandom(300_000)
    with closing(sock):
        with sock.makefile("rb") as file:
            thread = threading.Thread(target=lambda: (peer.sendall(data), peer.close()))
            thread.start()
            assert file.read() == data
            thread.join()


# --------------------------------------------------------------------------------- timeouts, cancellation

@in_fiber
def test_timeouts() -> None:
    sock, peer = tcp()
    with closing(sock, peer), socket.create_server((LOCALHOST, 0)) as listener:
        sock.settimeout(0.01)
        listener.settimeout(0.01)
        with pytest.raises(TimeoutError, match="to become readable"):
            sock.recv(10)
        assert socket.timeout is TimeoutError
        for call in (
            lambda: sock.recv_into(bytearray(1)),
            lambda: sock.recvfrom(1),
            lambda: sock.recvmsg(1),
            listener.accept,
        ):
            with pytest.raises(TimeoutError):
                call()
        fill(sock)
        for call in (lambda: sock.sendall(b"x"), lambda: sock.send(b"x"), lambda: sock.sendmsg([b"x"])):
            with pytest.raises(TimeoutError):
                call()
        sock.settimeout(20)
        peer.sendall(b"abc")
        assert sock.recv(10) == b"abc", "a timeout harms nothing"


@in_fiber
def test_a_non_blocking_socket_never_waits() -> None:
    sock, peer = tcp()
    with closing(sock, peer), socket.create_server((LOCALHOST, 0)) as listener:
        sock.settimeout(0)
        listener.setblocking(False)
        for call in (
            lambda: sock.recv(1),
            lambda: sock.recv_into(bytearray(1)),
            lambda: sock.recvfrom(1),
            lambda: sock.recvmsg(1),
            listener.accept,
            lambda: sock.sendall(bytes(100_000_000)),
        ):
            with pytest.raises(BlockingIOError):
                call()
        with socket.socket() as client:
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.connect(listener.getsockname())
            with socket.socket() as second:
                second.setblocking(False)
                assert second.connect_ex(listener.getsockname()) == errno.EINPROGRESS


@pytest.mark.parametrize("pair", [tcp, unix, udp])
@in_fiber
def test_a_cancelled_recv_loses_nothing(pair: Callable[[], Pair]) -> None:
    sock, peer = pair()
    with closing(sock, peer):
        reader = parked(sock.recv, 10)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            reader.join()
        reader = parked(sock.recv, 10)
        peer.send(b"abc")
        reader.cancel()  # before the loop sees the data
        with pytest.raises(asyncio.CancelledError):
            reader.join()
        assert sock.recv(10) == b"abc"


@in_fiber
def test_a_cancellation_after_the_wake_up_stays_pending() -> None:
    sock, peer = tcp()
    other, other_peer = tcp()
    got = []

    def read_twice() -> None:
        got.append(sock.recv(10))
        got.append(sock.recv(10))

    def read_and_cancel() -> None:
        other.recv(10)
        assert second.state == "READY", "one poll has woken both"
        second.cancel()

    with closing(sock, peer, other, other_peer):
        first = parked(read_and_cancel)
        second = parked(read_twice)
        other_peer.sendall(b"x")
        peer.sendall(b"abc")
        first.join()
        with pytest.raises(asyncio.CancelledError):
            second.join()
        assert got == [b"abc"]


@in_fiber
def test_a_cancelled_accept_loses_no_connection() -> None:
    with socket.create_server((LOCALHOST, 0)) as listener:
        acceptor = parked(listener.accept)
        with stdlib.create_connection(listener.getsockname()) as client:
            acceptor.cancel()
            with pytest.raises(asyncio.CancelledError):
                acceptor.join()
            sock, address = listener.accept()
            with sock:
                assert address == client.getsockname()


@in_fiber
def test_a_cancelled_connect_can_be_finished() -> None:
    with full_backlog() as address, socket.socket() as sock:
        fiber = parked(sock.connect, address)
        fiber.cancel()
        with pytest.raises(asyncio.CancelledError):
            fiber.join()
        with pytest.raises(OSError, match="already in progress"):
            sock.connect(address)


# ---------------------------------------------------------------------------------------- concurrent use

@in_fiber
def test_two_readers() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        first = parked(sock.recv, 10)
        for call in (
            lambda: sock.recv(10),
            lambda: sock.recv_into(bytearray(10)),
            lambda: sock.recvfrom(10),
            lambda: sock.recv(10, socket.MSG_WAITALL),
        ):
            with pytest.raises(RuntimeError, match=f"{first.name}.* is reading from <swapco.socket.socket"):
                call()
        peer.sendall(b"abc")
        assert first.join() == b"abc"


@in_fiber
def test_two_writers() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        first = parked(sock.sendall, bytes(10_000_000))
        for call in (lambda: sock.sendall(b"x"), lambda: sock.send(b"x"), lambda: sock.sendmsg([b"x"])):
            with pytest.raises(RuntimeError, match=f"{first.name}.* is writing to"):
                call()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            first.join()


@in_fiber
def test_close_wakes_who_waits() -> None:
    sock, peer = tcp()
    listener = socket.create_server((LOCALHOST, 0))
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    datagrams.bind((LOCALHOST, 0))
    with closing(peer):
        waiting = [
            parked(sock.recv, 10),
            parked(sock.sendall, bytes(10_000_000)),
            parked(listener.accept),
            parked(datagrams.recvfrom, 10),
        ]
        sock.close()
        listener.close()
        datagrams.close()
        for fiber in waiting:
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                fiber.join(20)
            assert caught.value.errno == errno.EBADF
        with pytest.raises(OSError, match="Bad file descriptor"):
            sock.recv(10)


@in_fiber
def test_detach_wakes_who_waits() -> None:
    sock, peer = tcp()
    with closing(peer):
        fiber = parked(sock.recv, 10)
        before = registered()
        fd = sock.detach()
        assert registered() == before - 1
        with pytest.raises(OSError, match="Bad file descriptor"):
            fiber.join(20)
        with socket.socket(fileno=fd) as again:
            peer.sendall(b"abc")
            assert again.recv(10) == b"abc"


@in_fiber
def test_the_number_of_a_closed_descriptor_is_used_again() -> None:
    for _ in range(20):
        sock, peer = tcp()
        ours, theirs = stdlib.socketpair()
        fd = sock.fileno()
        reader = parked(sock.recv, 10)
        peer.sendall(b"to the old one")  # an event of it is on the way
        sock.close()
        os.dup2(ours.fileno(), fd)
        ours.close()
        again = socket.socket(fileno=fd)
        second = parked(again.recv, 10)
        with pytest.raises(OSError, match="Bad file descriptor"):
            reader.join(20)
        settle()
        assert second.state == "BLOCKED"
        theirs.sendall(b"new")
        assert second.join(20) == b"new"
        for each in (again, peer, theirs):
            each.close()


@in_fiber
def test_a_descriptor_closed_behind_our_back() -> None:
    sock, peer = tcp()
    peer.sendall(b"x")
    assert sock.recv(1) == b"x"
    fd = sock.fileno()
    before = registered()
    ours, theirs = stdlib.socketpair()
    with closing(theirs):
        os.dup2(ours.fileno(), fd)
        ours.close()
        again = socket.socket(fileno=fd)
        reader = parked(again.recv, 10)
        assert registered() == before
        theirs.sendall(b"abc")
        assert reader.join(20) == b"abc"
        sock.detach()  # its descriptor is not its own any more
        reader = parked(again.recv, 10)
        theirs.sendall(b"def")
        assert reader.join(20) == b"def"
        again.close()
    peer.close()


@in_fiber
def test_two_objects_for_one_descriptor() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        peer.sendall(b"x")
        assert sock.recv(1) == b"x"
        other = socket.socket(fileno=sock.fileno())
        with pytest.raises(RuntimeError, match="registered already: by <swapco.socket.socket"):
            other.recv(1)
        other.detach()


@in_fiber
def test_a_fiber_that_never_has_to_wait_lets_others_run() -> None:
    ours, theirs = socket.socketpair()
    with closing(ours, theirs):
        turns = 0
        stop = False

        def other() -> None:
            nonlocal turns
            while not stop:
                turns += 1
                sleep(0)

        fiber = spawn(other)
        for _ in range(1000):
            ours.sendall(b"x")
            theirs.recv(1)
        stop = True
        assert turns >= 2000 // 64 - 2
        fiber.join()


@in_fiber
def test_wait_readable_and_writable() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        wait_writable(sock)
        fiber = parked(wait_readable, sock)
        peer.sendall(b"abc")
        assert fiber.join() is None
        assert sock.recv(10) == b"abc"
        wait_writable(sock.fileno())
        with pytest.raises(TimeoutError):
            wait_readable(sock, timeout=0.01)
        total = fill(sock)
        fiber = parked(wait_writable, sock)
        swallow(peer, total)
        fiber.join()
        fiber = parked(sock.recv, 10)
        with pytest.raises(RuntimeError, match="is reading from"):
            wait_readable(sock)
        peer.sendall(b"x")
        fiber.join()


# -------------------------------------------------------------------------------- fibers, loops, processes

def test_blocking_outside_a_fiber() -> None:
    ours, theirs = socket.socketpair()
    with closing(ours, theirs):
        for call in (
            lambda: ours.recv(1),
            lambda: ours.recv_into(bytearray(1)),
            lambda: ours.recvfrom(1),
            lambda: ours.recvmsg(1),
            lambda: ours.send(b"x"),
            lambda: ours.sendall(b"x"),
            lambda: ours.sendmsg([b"x"]),
            lambda: ours.connect("/nowhere"),
            ours.accept,
            lambda: ours.sendfile(io.BytesIO(b"x")),
        ):
            with pytest.raises(swapco.NotInFiber, match="needs a fiber"):
                call()
        ours.settimeout(0)
        theirs.settimeout(0)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        ours.sendall(b"abc")
        assert theirs.recv(10) == b"abc", "nothing was sent before"


@in_fiber
def test_blocking_in_the_hub() -> None:
    ours, theirs = socket.socketpair()
    with closing(ours, theirs):
        theirs.sendall(b"abc")
        caught: list[BaseException] = []

        def callback() -> None:
            try:
                ours.recv(10)
            except BaseException as error:
                caught.append(error)

        asyncio.get_running_loop().call_soon(callback)
        settle()
        assert isinstance(caught[0], swapco.NotInFiber)
        assert ours.recv(10) == b"abc"


def test_a_socket_of_a_closed_loop_goes_on_in_another() -> None:
    ours, theirs = socket.socketpair()

    def exchange() -> None:
        reader = parked(ours.recv, 10)
        theirs.sendall(b"abc")
        assert reader.join() == b"abc"

    with closing(ours, theirs):
        swapco.run(exchange)
        swapco.run(exchange)


def test_a_socket_of_another_loop_that_lives() -> None:
    ours, theirs = socket.socketpair()

    def use() -> None:
        theirs.sendall(b"abc")
        ours.recv(10)

    with closing(ours, theirs), swapco.Runner() as first, swapco.Runner() as second:
        first.run(use)
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            second.run(use)
        first.close()
        second.run(use)


@in_fiber
def test_a_forked_child_leaves_the_parents_sockets_alone() -> None:
    sock, peer = tcp()
    with closing(sock, peer):
        peer.sendall(b"x")
        assert sock.recv(1) == b"x"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads: none holds a lock of ours
            child = os.fork()
        if child == 0:
            try:
                sock.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        reader = parked(sock.recv, 10)
        peer.sendall(b"abc")
        assert reader.join(20) == b"abc"


# ------------------------------------------------------------------------------------------- connections

@contextmanager
def full_backlog() -> Iterator[Any]:
    """The address of a listener that takes no further connection: a connect to it stays in progress."""
    with stdlib.socket() as listener:
        listener.bind((LOCALHOST, 0))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(8):
                sock = stdlib.socket()
                sock.setblocking(False)
                sock.connect_ex(listener.getsockname())
                waiting.append(sock)
            yield listener.getsockname()
        finally:
            for sock in waiting:
                sock.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@in_fiber
def test_accept_and_connect(family: int) -> None:
    host = LOCALHOST if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as listener:
        acceptor = parked(listener.accept)
        with socket.socket(family) as client:
            client.settimeout(20)
            client.connect(listener.getsockname())
            sock, address = acceptor.join()
            with sock:
                assert type(sock) is socket.socket
                assert address == client.getsockname()
                assert sock.gettimeout() is None
                assert not os.get_inheritable(sock.fileno())
                sock.sendall(b"hello")
                assert client.recv(10) == b"hello"


@in_fiber
def test_accept_takes_every_waiting_connection() -> None:
    with socket.create_server((LOCALHOST, 0)) as listener:
        acceptor = parked(lambda: [listener.accept()[0] for _ in range(10)])
        clients = [stdlib.create_connection(listener.getsockname()) for _ in range(10)]
        with closing(*clients, *acceptor.join(20)):
            pass


@in_fiber
def test_a_refused_connect() -> None:
    with stdlib.socket() as unused:
        unused.bind((LOCALHOST, 0))
        address = unused.getsockname()
        with socket.socket() as sock:
            with pytest.raises(ConnectionRefusedError):
                sock.connect(address)
        with socket.socket() as sock:
            assert sock.connect_ex(address) == errno.ECONNREFUSED


@in_fiber
def test_a_connect_that_times_out() -> None:
    with full_backlog() as address:
        with socket.socket() as sock:
            sock.settimeout(0.02)
            with pytest.raises(TimeoutError):
                sock.connect(address)
        with socket.socket() as sock:
            sock.settimeout(0.02)
            assert sock.connect_ex(address) == errno.EAGAIN
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.02)


@in_fiber
def test_close_during_a_connect() -> None:
    with full_backlog() as address:
        sock = socket.socket()
        fiber = parked(sock.connect, address)
        sock.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            fiber.join(20)


@in_fiber
def test_connect_by_name() -> None:
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.socket() as sock:
            sock.connect(("localhost", port))
            listener.accept()[0].close()
        with socket.create_connection(("localhost", port), timeout=20, source_address=(LOCALHOST, 0)) as sock:
            assert sock.gettimeout() == 20
            listener.accept()[0].close()
        with socket.socket() as sock, pytest.raises(socket.gaierror):
            sock.connect(("no-such-host.invalid", port))


@in_fiber
def test_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(FileNotFoundError):
            client.connect(path)
        listener.bind(path)
        with pytest.raises(ConnectionRefusedError):
            client.connect(path)
        listener.listen()
        acceptor = parked(listener.accept)
        client.connect(path)
        sock, _ = acceptor.join()
        with sock:
            client.sendall(b"abc")
            assert sock.recv(10) == b"abc"


@in_fiber
def test_a_unix_listener_whose_backlog_is_full(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        first, second, third = (socket.socket(socket.AF_UNIX) for _ in range(3))
        with closing(first, second, third):
            first.connect(path)
            second.settimeout(0.01)
            with pytest.raises(TimeoutError, match="backlog is full"):
                second.connect(path)
            waiting = parked(third.connect, path)
            listener.accept()[0].close()
            waiting.join(20)
            waiting = parked(second.connect_ex, path)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                waiting.join()


@in_fiber
def test_unix_seqpacket_and_datagrams_by_address(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one, socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM
    ) as two:
        one.bind(str(tmp_path / "one"))
        two.bind(str(tmp_path / "two"))
        reader = parked(one.recvfrom, 10)
        two.sendto(b"abc", str(tmp_path / "one"))
        assert reader.join() == (b"abc", str(tmp_path / "two"))
        two.connect(str(tmp_path / "one"))
        writer = spawn(lambda: [two.send(bytes(1000)) for _ in range(2000)])
        settle()
        assert writer.state == "BLOCKED", "the receiver's queue is full"
        for _ in range(2000):
            one.recv(1000)
        writer.join(20)


@in_fiber
def test_accept_without_descriptors() -> None:
    with socket.create_server((LOCALHOST, 0)) as listener:
        clients = [stdlib.create_connection(listener.getsockname())]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        fillers = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            with suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            with pytest.raises(OSError, match="Too many open files") as caught:
                listener.accept()
            assert caught.value.errno == errno.EMFILE
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fillers:
                os.close(fd)
        sock, _ = listener.accept()
        with closing(sock, *clients):
            pass


@in_fiber
def test_create_connection_tries_every_address() -> None:
    with stdlib.socket() as unused:
        unused.bind((LOCALHOST, 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("localhost", port))
        with pytest.raises(ExceptionGroup, match="create_connection failed"):
            socket.create_connection((LOCALHOST, port), all_errors=True)


@in_fiber
def test_a_cancelled_create_connection_closes_its_socket() -> None:
    with full_backlog() as address:
        fiber = parked(socket.create_connection, address)
        before = registered()
        fiber.cancel()
        with pytest.raises(asyncio.CancelledError):
            fiber.join()
        assert registered() == before - 1


# --------------------------------------------------------------------------------------------- names

@in_fiber
def test_names_are_resolved_by_other_threads() -> None:
    expected = stdlib.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    found = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert sorted(found) == sorted(expected)
    assert [type(part) for part in found[0]] == [type(part) for part in expected[0]]
    assert socket.gethostbyname("localhost") == stdlib.gethostbyname("localhost")
    assert socket.gethostbyname_ex("localhost") == stdlib.gethostbyname_ex("localhost")
    assert socket.getnameinfo((LOCALHOST, 80), 0) == stdlib.getnameinfo((LOCALHOST, 80), 0)
    assert socket.getfqdn("localhost") == stdlib.getfqdn("localhost")
    assert socket.gethostbyaddr(LOCALHOST) == stdlib.gethostbyaddr(LOCALHOST)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("no-such-host.invalid", 80)
    with pytest.raises(socket.gaierror):
        socket.gethostbyname("no-such-host.invalid")


def test_numeric_addresses_need_no_fiber() -> None:
    for host in (LOCALHOST, "::1", None, "", b"127.0.0.1", "fe80::1%lo"):
        with suppress(socket.gaierror):
            assert socket.getaddrinfo(host, 80) == stdlib.getaddrinfo(host, 80)
    assert socket.getaddrinfo(LOCALHOST, "80") == stdlib.getaddrinfo(LOCALHOST, "80")
    assert socket.gethostbyname(LOCALHOST) == LOCALHOST
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert socket.getnameinfo((LOCALHOST, 80), numeric) == (LOCALHOST, "80")
    with pytest.raises(swapco.NotInFiber):
        socket.getaddrinfo("localhost", 80)
    with pytest.raises(swapco.NotInFiber):
        socket.gethostbyname("localhost")


# ------------------------------------------------------------------------------------ the whole program

@in_fiber
def test_many_connections_at_once() -> None:
    """Echoes of different sizes over a hundred connections, half of them closed by each side."""

    def echo(conn: Any) -> None:
        with conn:
            while data := conn.recv(10_000):
                conn.sendall(data)

    def client(number: int) -> int:
        with socket.create_connection(address) as sock:
            total = 0
            for step in range(20):
                data = bytes([number]) * (1 + 997 * step)
                sock.sendall(data)
                got = bytearray()
                while len(got) < len(data):
                    got += sock.recv(1 << 16)
                assert got == data
                total += len(got)
            return total

    def accept() -> None:
        while True:
            conn, _ = listener.accept()
            echoes.append(spawn(echo, conn))

    echoes: list[Any] = []
    with socket.create_server((LOCALHOST, 0), backlog=200) as listener:
        address = listener.getsockname()
        server = spawn(accept)
        clients = [spawn(client, number) for number in range(100)]
        assert len({fiber.join() for fiber in clients}) == 1
        server.cancel()
        for fiber in echoes:
            fiber.join()
    assert registered() == 0
    assert current_fiber().name == "main"
