"""Networks that are slow, cut off or broken when a test asks for it; nothing is lost under cancellations, either."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from helpers import in_fiber, settle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_support import BUFFER, LOCALHOST, at_random, cancelled, connect, echo, finish, parked

import swapco
from swapco import sleep, spawn
from swapco.testing.network import MemoryNetwork, memory_stream_pair

pytestmark = pytest.mark.usefixtures("fibers")


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
        assert "room in the backlog of 127.0.0.1:80" in (clients[2].wait_reason or "")
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
        assert "the end of a partition of the network" in (opening.wait_reason or "")
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
