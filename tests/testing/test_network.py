"""Streams in memory: what they are made of, and what a network leaves open, which a strategy decides."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from helpers import in_fiber, run_program, settle
from network_support import LOCALHOST, always, at_random, connect, echo, finish, parked

import swapco
from swapco import open_connection, sleep, spawn, start_server, streams, testing
from swapco.testing.network import MemoryNetwork, MemoryReader, MemoryWriter, memory_stream_pair

pytestmark = pytest.mark.usefixtures("fibers")


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
    assert "room to write to " in (waiting.wait_reason or "")
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
    assert "data from the other end" in ended.stderr


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
