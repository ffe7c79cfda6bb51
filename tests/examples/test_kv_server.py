"""The key-value server, on fibers and on uvloop, with the real Redis clients and with hostile ones.

Everything here runs against both servers.
"""

import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kv_support import Error, Raw, RunningServer, blocked, encode, wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def db(server: RunningServer) -> Iterator[Any]:
    with redis.Redis(server.host, server.port, protocol=2, socket_timeout=10) as client:
        yield client


@pytest.fixture
def raw(server: RunningServer) -> Iterator[Raw]:
    with server.raw() as connection:
        yield connection


# Every command, with redis-py


def test_connection_commands(db: Any) -> None:
    assert db.ping()
    assert db.echo("hello") == b"hello"
    assert db.select(0)
    with pytest.raises(redis.ResponseError, match="out of range"):
        db.select(1)


def test_client_commands(server: RunningServer) -> None:
    with redis.Redis(
        server.host, server.port, protocol=2, client_name="tester", single_connection_client=True
    ) as db:
        assert db.client_getname() == "tester"
        assert isinstance(db.client_id(), int)
        assert db.client_setname("other")
        assert db.client_getname() == "other"
        assert db.client_setinfo("LIB-NAME", "x")
        with pytest.raises(redis.ResponseError):
            db.client_setname("with space")


def test_server_commands(db: Any) -> None:
    db.mset({"a": 1, "b": 2})
    db.expire("a", 100)
    info = db.info()
    assert info["redis_version"].startswith("7.")
    assert (info["db0"]["keys"], info["db0"]["expires"]) == (2, 1)
    assert set(db.info("clients")) == {"connected_clients", "maxclients", "blocked_clients"}
    assert db.dbsize() == 2
    assert sorted(db.keys()) == [b"a", b"b"]
    assert db.config_get("sa*") == {"save": ""}
    assert db.command_count() == len(db.command()) >= 40
    assert db.command()["get"]["arity"] == 2
    assert db.command()["del"]["arity"] == -2
    assert not db.execute_command("COMMAND", "DOCS")
    assert db.flushdb()
    assert db.dbsize() == 0
    db.set("a", 1)
    assert db.flushall(asynchronous=True)
    assert db.keys() == []


def test_strings(db: Any) -> None:
    assert db.get("k") is None
    assert db.set("k", "v")
    assert db.get("k") == b"v"
    assert db.mset({"x": "1", "y": "2"})
    assert db.mget("x", "missing", "y") == [b"1", None, b"2"]
    assert db.exists("x", "x", "missing") == 2
    assert db.delete("x", "y", "missing") == 2
    assert db.type("k") == b"string"
    assert db.type("missing") == b"none"


def test_set_options(db: Any) -> None:
    assert db.set("k", "1", nx=True)
    assert db.set("k", "2", nx=True) is None
    assert db.set("new", "1", xx=True) is None
    assert db.set("k", "3", xx=True, get=True) == b"1"
    assert db.set("k", "4", ex=100)
    assert db.set("k", "5", keepttl=True)
    assert 90 < db.ttl("k") <= 100
    assert db.set("k", "6")
    assert db.ttl("k") == -1
    for words in (["NX", "XX"], ["EX"], ["EX", "1", "PX", "1"], ["EX", "1", "KEEPTTL"], ["FROB"]):
        with pytest.raises(redis.ResponseError, match="syntax error"):
            db.execute_command("SET", "k", "v", *words)
    for words in (["EX", "0"], ["PX", "-1"], ["EX", str(2**63 - 1)]):
        with pytest.raises(redis.ResponseError, match="invalid expire time"):
            db.execute_command("SET", "k", "v", *words)
    assert db.get("k") == b"6"


def test_counters(db: Any) -> None:
    assert db.incr("n") == 1
    assert db.incr("n", 41) == 42
    assert db.decr("n") == 41
    assert db.execute_command("DECRBY", "n", 41) == 0
    db.set("n", "abc")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        db.incr("n")
    db.set("n", 2**63 - 1)
    with pytest.raises(redis.ResponseError, match="overflow"):
        db.incr("n")
    assert db.get("n") == b"%d" % (2**63 - 1)


def test_expiry(db: Any) -> None:
    db.set("k", "v", px=60_000)
    assert 0 < db.pttl("k") <= 60_000
    assert db.exists("k")
    db.set("k", "v", px=60)
    wait_until(lambda: not db.exists("k"), "the key does not expire")
    assert db.get("k") is None
    assert db.ttl("k") == -2
    db.set("k", "v")
    assert db.ttl("k") == -1
    assert db.expire("k", 100)
    assert db.ttl("k") == 100
    assert db.persist("k")
    assert not db.persist("k")
    assert db.pttl("k") == -1
    assert db.pexpire("k", 50)
    db.set("untouched", "v", px=50)
    wait_until(lambda: db.dbsize() == 0, "the keys do not expire")
    assert not db.expire("k", 1)
    db.set("k", "v")
    assert db.expire("k", -1)
    assert not db.exists("k")


def test_a_key_never_expires_early(db: Any) -> None:
    before = time.monotonic()
    db.set("k", "v", px=150)
    while db.exists("k"):
        time.sleep(0.001)
    assert time.monotonic() - before >= 0.150


def test_lists(db: Any) -> None:
    assert db.lpush("l", "b", "a") == 2
    assert db.rpush("l", "c", "d") == 4
    assert db.llen("l") == 4
    assert db.lrange("l", 0, -1) == [b"a", b"b", b"c", b"d"]
    assert db.lrange("l", -2, 100) == [b"c", b"d"]
    assert db.lrange("l", 3, 1) == []
    assert db.lpop("l") == b"a"
    assert db.rpop("l") == b"d"
    assert db.lpop("l", 5) == [b"b", b"c"]
    assert db.lpop("l") is None
    assert db.rpop("l", 2) is None
    assert not db.exists("l")


def test_wrong_type(db: Any) -> None:
    db.set("s", "v")
    db.rpush("l", "v")
    for call in (
        lambda: db.get("l"),
        lambda: db.incr("l"),
        lambda: db.set("l", "v", get=True),
        lambda: db.lpush("s", "v"),
        lambda: db.rpop("s"),
        lambda: db.llen("s"),
        lambda: db.lrange("s", 0, -1),
        lambda: db.blpop("s", 1),
    ):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            call()
    assert db.mget("s", "l") == [b"v", None]
    assert db.type("l") == b"list"
    assert db.set("l", "a string now")
    assert db.get("l") == b"a string now"


def test_pipeline(db: Any) -> None:
    with db.pipeline(transaction=False) as pipe:
        for number in range(5000):
            pipe.set(f"key:{number}", number).get(f"key:{number}").incr("total")
        replies = pipe.execute()
    assert replies[1::3] == [b"%d" % number for number in range(5000)]
    assert replies[2::3] == list(range(1, 5001))


def test_an_error_in_a_pipeline_spoils_nothing_else(db: Any) -> None:
    with db.pipeline(transaction=False) as pipe:
        pipe.set("k", "v").lpush("k", "x").execute_command("FROB", "x").get("k")
        replies = pipe.execute(raise_on_error=False)
    assert [type(reply) for reply in replies] == [bool, redis.ResponseError, redis.ResponseError, bytes]


@pytest.mark.parametrize("size", [0, 1, 16 * 1024 - 1, 64 * 1024, 1024 * 1024, 20 * 1024 * 1024])
def test_large_values(db: Any, size: int) -> None:
    value = os.urandom(1024) * (size // 1024) + b"\r\n" * (size % 1024 // 2) + b"$" * (size % 2)
    assert len(value) == size
    assert db.set("k", value)
    assert db.get("k") == value
    assert db.mget("k", "k") == [value, value]


def test_replies_larger_than_all_buffers_reach_a_slow_reader(server: RunningServer, raw: Raw) -> None:
    value = os.urandom(1024 * 1024)
    assert raw.command("SET", "k", value) == "OK"
    raw.send(encode("GET", "k") * 50)
    raw.wait_until_replies_pile_up()
    with server.raw() as other:
        assert other.command("PING") == "PONG"
    for _ in range(50):
        assert raw.reply() == value


def test_unknown_commands_and_wrong_arity(db: Any) -> None:
    with pytest.raises(redis.ResponseError, match="unknown command 'FROB'"):
        db.execute_command("FROB", "a")
    with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'get' command"):
        db.execute_command("GET")
    with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'mset' command"):
        db.execute_command("MSET", "a", "1", "b")
    assert db.ping()


# HELLO, QUIT, RESET and inline commands


def test_hello(raw: Raw) -> None:
    reply = raw.command("HELLO", 2, "SETNAME", "me")
    assert isinstance(reply, list)
    assert reply[:6] == [b"server", b"redis", b"version", b"7.0.0", b"proto", 2]
    assert raw.command("CLIENT", "GETNAME") == b"me"
    assert raw.command("HELLO") is not None
    assert str(raw.command("HELLO", 3)).startswith("NOPROTO")
    assert str(raw.command("HELLO", "x")).startswith("ERR")
    assert str(raw.command("HELLO", 2, "FROB")).startswith("ERR")


def test_quit(raw: Raw) -> None:
    raw.send(encode("SET", "k", "1") + encode("QUIT") + encode("SET", "k", "2"))
    assert raw.reply() == "OK"
    assert raw.reply() == "OK"
    assert raw.at_end()


def test_nothing_after_quit_is_done(server: RunningServer, raw: Raw) -> None:
    raw.send(encode("QUIT") + encode("SET", "k", "2"))
    assert raw.reply() == "OK"
    assert raw.at_end()
    with server.raw() as other:
        assert other.command("GET", "k") is None


def test_garbage_after_quit_is_not_answered(raw: Raw) -> None:
    raw.send(encode("QUIT") + b"*x\r\n")
    assert raw.reply() == "OK"
    assert raw.at_end()


def test_reset(raw: Raw) -> None:
    assert raw.command("CLIENT", "SETNAME", "me") == "OK"
    assert raw.command("SUBSCRIBE", "c") == [b"subscribe", b"c", 1]
    assert raw.command("RESET") == "RESET"
    assert raw.command("CLIENT", "GETNAME") is None
    assert raw.command("PUBLISH", "c", "nobody listens") == 0


def test_inline_commands(raw: Raw) -> None:
    raw.send(b"PING\r\n\r\nset k 'a b'\nGET k\r\n")
    assert [raw.reply() for _ in range(3)] == ["PONG", "OK", b"a b"]


# Blocking pops


def test_blpop_at_once(db: Any) -> None:
    db.rpush("y", "1", "2")
    assert db.blpop(["x", "y"], timeout=1) == (b"y", b"1")
    assert db.llen("y") == 1


def test_blpop_times_out(server: RunningServer, raw: Raw) -> None:
    before = time.monotonic()
    assert raw.command("BLPOP", "x", "0.1") is None
    early_s = 0.002 if server.kind == "uvloop" else 0  # uvloop's timers may fire early; ours never do
    assert 0.1 - early_s <= time.monotonic() - before < 5
    assert raw.command("RPUSH", "x", "1") == 1
    assert raw.command("LLEN", "x") == 1


def test_blpop_rejects_bad_timeouts(raw: Raw) -> None:
    for timeout in ("-1", "x", "nan", "inf"):
        assert str(raw.command("BLPOP", "x", timeout)).startswith("ERR timeout is")


def test_blpop_waits_for_a_push(server: RunningServer, raw: Raw) -> None:
    with server.raw() as waiter:
        waiter.send(encode("BLPOP", "x", "y", 0))
        blocked(server, 1)
        assert raw.command("RPUSH", "y", "1", "2") == 2
        assert waiter.reply() == [b"y", b"1"]
        assert raw.command("LRANGE", "y", 0, -1) == [b"2"]
        assert waiter.command("BLPOP", "y", 0) == [b"y", b"2"]


def test_blpop_sees_the_list_after_the_whole_push(server: RunningServer, raw: Raw) -> None:
    with server.raw() as waiter:
        waiter.send(encode("BLPOP", "x", 0))
        blocked(server, 1)
        assert raw.command("LPUSH", "x", "1", "2", "3") == 3
        assert waiter.reply() == [b"x", b"3"]


def test_blpop_is_fair(server: RunningServer, raw: Raw) -> None:
    waiters = []
    for number in range(20):
        waiter = server.raw()
        waiter.send(encode("BLPOP", "x", 0))
        blocked(server, number + 1)
        waiters.append(waiter)
    raw.send(b"".join(encode("RPUSH", "x", number) + encode("LPOP", "x") for number in range(20)))
    for _ in range(20):
        assert raw.reply() == 1
        assert raw.reply() is None  # the element was a waiter's before LPOP could see it
    for number, waiter in enumerate(waiters):
        assert waiter.reply() == [b"x", b"%d" % number]
        waiter.close()


def test_requests_after_blpop_wait_for_it(server: RunningServer, raw: Raw) -> None:
    with server.raw() as waiter:
        waiter.send(encode("SET", "a", 1) + encode("BLPOP", "x", 0) + encode("SET", "a", 2))
        assert waiter.reply() == "OK"
        blocked(server, 1)
        waiter.send(encode("GET", "a") + encode("BLPOP", "x", 0)[:9])
        assert raw.command("GET", "a") == b"1"
        assert raw.command("RPUSH", "x", "1") == 1
        assert waiter.reply() == [b"x", b"1"]
        assert waiter.reply() == "OK"
        assert waiter.reply() == b"2"
        waiter.send(encode("BLPOP", "x", 0)[9:])
        blocked(server, 1)
        assert raw.command("RPUSH", "x", "2") == 1
        assert waiter.reply() == [b"x", b"2"]


def test_garbage_while_blocked(server: RunningServer, raw: Raw) -> None:
    with server.raw() as waiter:
        waiter.send(encode("BLPOP", "x", 0))
        blocked(server, 1)
        waiter.send(b"*x\r\n")
        assert raw.command("RPUSH", "x", "1") == 1
        assert waiter.reply() == [b"x", b"1"]
        assert "Protocol error" in str(waiter.reply())
        assert waiter.at_end()


@pytest.mark.parametrize("leave", [Raw.close, Raw.reset], ids=["fin", "rst"])
def test_no_element_goes_to_a_client_that_is_gone(
    server: RunningServer, raw: Raw, leave: Callable[[Raw], None]
) -> None:
    gone = [server.raw() for _ in range(5)]
    for number, waiter in enumerate(gone):
        waiter.send(encode("BLPOP", "x", 0))
        blocked(server, number + 1)
    with server.raw() as survivor:
        survivor.send(encode("BLPOP", "x", 0))
        blocked(server, 6)
        for waiter in gone:
            leave(waiter)
        blocked(server, 1)
        assert raw.command("RPUSH", "x", "1", "2") == 2
        assert survivor.reply() == [b"x", b"1"]
        assert raw.command("LRANGE", "x", 0, -1) == [b"2"]


def test_clients_that_leave_while_elements_come_lose_none(server: RunningServer, raw: Raw) -> None:
    """Every element is either still there or was read by somebody: with FIN in flight before the push."""
    for round_number in range(20):
        waiters = [server.raw() for _ in range(4)]
        for waiter in waiters:
            waiter.send(encode("BLPOP", "x", 0))
        blocked(server, 4)
        for waiter in waiters[::2]:
            waiter.close()
        blocked(server, 2)
        for element in range(4):
            raw.command("RPUSH", "x", element)
        received = [waiter.reply() for waiter in waiters[1::2]]
        assert [b"x", b"0"] in received, round_number
        assert [b"x", b"1"] in received, round_number
        for waiter in waiters[1::2]:
            waiter.close()
        assert raw.command("LRANGE", "x", 0, -1) == [b"2", b"3"]
        assert raw.command("DEL", "x") == 1


def test_a_killed_process_that_was_blocked_takes_nothing(
    server: RunningServer, raw: Raw, tool: Callable[[str], str]
) -> None:
    program = tool("redis-cli")
    with subprocess.Popen(
        [program, "-p", str(server.port), "BLPOP", "x", "0"], stdout=subprocess.DEVNULL
    ) as process:
        blocked(server, 1)
        process.kill()
    blocked(server, 0)
    assert raw.command("RPUSH", "x", "1") == 1
    assert raw.command("LPOP", "x") == b"1"


def test_many_blocked_clients(server: RunningServer, raw: Raw) -> None:
    waiters = [server.raw() for _ in range(200)]
    for waiter in waiters:
        waiter.send(encode("BLPOP", "x", 0))
    blocked(server, 200)
    assert raw.command("RPUSH", "x", *range(200)) == 200
    replies = [waiter.reply() for waiter in waiters]
    assert sorted(int(reply[1]) for reply in replies if isinstance(reply, list)) == list(range(200))
    for waiter in waiters:
        waiter.close()


# Publish and subscribe


def test_pubsub_with_two_subscribers(db: Any) -> None:
    with db.pubsub() as first, db.pubsub() as second:
        first.subscribe("news", "sport")
        second.subscribe("news")
        for subscriber, count in ((first, 2), (second, 1)):
            for _ in range(count):
                assert subscriber.get_message(timeout=5)["type"] == "subscribe"
        assert db.publish("news", "hello") == 2
        assert db.publish("sport", "goal") == 1
        assert db.publish("weather", "rain") == 0
        messages = [first.get_message(timeout=5) for _ in range(2)]
        assert [(m["channel"], m["data"]) for m in messages] == [(b"news", b"hello"), (b"sport", b"goal")]
        assert second.get_message(timeout=5)["data"] == b"hello"
        first.ping()
        assert first.get_message(timeout=5)["type"] == "pong"
        first.unsubscribe("news")
        assert first.get_message(timeout=5)["type"] == "unsubscribe"
        assert db.publish("news", "again") == 1
        assert second.get_message(timeout=5)["data"] == b"again"


def test_a_subscriber_may_only_listen(raw: Raw) -> None:
    assert raw.command("SUBSCRIBE", "c") == [b"subscribe", b"c", 1]
    assert raw.command("SUBSCRIBE", "c") == [b"subscribe", b"c", 1]
    assert str(raw.command("GET", "k")).startswith("ERR Can't execute 'get'")
    assert raw.command("PING") == [b"pong", b""]
    assert raw.command("PING", "x") == [b"pong", b"x"]
    assert raw.command("UNSUBSCRIBE") == [b"unsubscribe", b"c", 0]
    assert raw.command("UNSUBSCRIBE") == [b"unsubscribe", None, 0]
    assert raw.command("GET", "k") is None


def test_messages_stay_in_order(server: RunningServer, raw: Raw) -> None:
    with server.raw() as subscriber:
        subscriber.command("SUBSCRIBE", "c")
        count = 2000
        raw.send(b"".join(encode("PUBLISH", "c", number) for number in range(count)))
        for number in range(count):
            assert subscriber.reply() == [b"message", b"c", b"%d" % number]
        for _ in range(count):
            assert raw.reply() == 1


def test_a_subscriber_that_leaves_is_forgotten(server: RunningServer, raw: Raw) -> None:
    with server.raw() as subscriber:
        subscriber.command("SUBSCRIBE", "c")
        assert raw.command("PUBLISH", "c", "x") == 1
    wait_until(lambda: raw.command("PUBLISH", "c", "x") == 0, "the subscriber is not forgotten")


def test_replies_follow_the_messages_that_came_before_them(server: RunningServer, raw: Raw) -> None:
    payload = bytes(1024 * 1024)
    with server.raw() as subscriber:
        subscriber.command("SUBSCRIBE", "c")
        for _ in range(16):
            assert raw.command("PUBLISH", "c", payload) == 1
        subscriber.send(encode("UNSUBSCRIBE", "c") + encode("QUIT"))
        for _ in range(16):
            assert subscriber.reply() == [b"message", b"c", payload]
        assert subscriber.reply() == [b"unsubscribe", b"c", 0]
        assert subscriber.reply() == "OK"
        assert subscriber.at_end()


def test_a_subscriber_with_a_full_outbox_sends_garbage(server: RunningServer, raw: Raw) -> None:
    payload = bytes(1024 * 1024)
    with server.raw() as subscriber:
        subscriber.command("SUBSCRIBE", "c")
        for _ in range(16):
            assert raw.command("PUBLISH", "c", payload) == 1
        subscriber.send(b"*x\r\n")
        wait_until(lambda: raw.command("PUBLISH", "c", "late") == 0, "it is still subscribed")
        for _ in range(16):
            assert subscriber.reply() == [b"message", b"c", payload]
        while (reply := subscriber.reply()) == [b"message", b"c", b"late"]:
            pass
        assert "Protocol error" in str(reply)
        subscriber.socket.shutdown(socket.SHUT_WR)
        assert subscriber.at_end()


def test_a_subscriber_that_does_not_read_is_thrown_out(server: RunningServer, raw: Raw) -> None:
    payload = bytes(4 * 1024 * 1024)
    with server.raw() as lazy, server.raw() as keen:
        lazy.command("SUBSCRIBE", "c")
        keen.command("SUBSCRIBE", "c")
        for _ in range(40):
            receivers = raw.command("PUBLISH", "c", payload)
            assert keen.reply() == [b"message", b"c", payload]
            if receivers == 1:
                break
        assert raw.command("PUBLISH", "c", b"x") == 1
        wait_until(lambda: int(server.info("connected_clients")) == 3, "the lazy subscriber is still there")


# Connections that behave badly


@pytest.mark.parametrize(
    ("garbage", "message"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*1\r\n$99999999999\r\n", "invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n@1\r\n", "expected '$', got '@'"),
        (b"A" * 70_000, "too big inline request"),
        (b"A" * 1_000_000, "too big inline request"),
        (b"'\r\n", "unbalanced quotes"),
    ],
)
def test_protocol_errors_are_told_before_the_end(raw: Raw, garbage: bytes, message: str) -> None:
    raw.send(encode("SET", "k", "v") + garbage)
    raw.socket.shutdown(socket.SHUT_WR)
    assert raw.reply() == "OK"
    reply = raw.reply()
    assert isinstance(reply, Error)
    assert reply.startswith("ERR Protocol error: ")
    assert message in reply
    assert raw.at_end()


def test_a_client_that_keeps_sending_garbage_is_cut_off(raw: Raw) -> None:
    raw.send(b"*x\r\n")
    with pytest.raises(OSError):
        for _ in range(200):
            raw.send(b"more of it")
            time.sleep(0.05)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_hurts_nobody_else(server: RunningServer, garbage: bytes) -> None:
    with server.raw() as raw:
        raw.send(garbage)
        raw.socket.shutdown(socket.SHUT_WR)
        while raw.file.readline():
            pass
    with server.raw() as raw:
        assert raw.command("PING") == "PONG"


def test_a_client_that_trickles(raw: Raw) -> None:
    raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in encode("SET", "key", "a\r\nb") + encode("GET", "key") + b"PING\r\n":
        raw.send(bytes([byte]))
        time.sleep(0.001)
    assert [raw.reply() for _ in range(3)] == ["OK", b"a\r\nb", "PONG"]


@pytest.mark.parametrize("leave", [Raw.close, Raw.reset], ids=["fin", "rst"])
@pytest.mark.parametrize("sent", [b"", b"*", b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nabc"])
def test_a_client_that_disappears_in_mid_command(
    server: RunningServer, sent: bytes, leave: Callable[[Raw], None]
) -> None:
    connection = server.raw()
    connection.send(sent)
    leave(connection)
    wait_until(lambda: int(server.info("connected_clients")) == 1, "the client is still there")
    with server.raw() as raw:
        assert raw.command("GET", "k") is None


def test_a_client_that_disappears_before_its_replies(server: RunningServer) -> None:
    with server.raw() as raw:
        assert raw.command("SET", "k", bytes(1024 * 1024)) == "OK"
    for _ in range(5):
        connection = server.raw()
        connection.send(encode("GET", "k") * 20)
        connection.reset()
    wait_until(lambda: int(server.info("connected_clients")) == 1, "a client is still there")


def test_a_half_closed_connection_gets_its_replies(raw: Raw) -> None:
    raw.send(b"".join(encode("INCR", "n") for _ in range(1000)))
    raw.socket.shutdown(socket.SHUT_WR)
    assert [raw.reply() for _ in range(1000)] == list(range(1, 1001))
    assert raw.at_end()


def test_many_connections_at_once(server: RunningServer) -> None:
    connections = [server.raw() for _ in range(300)]
    for connection in connections:
        connection.send(encode("INCR", "n") * 10)
    assert sum(connection.reply() == 3000 for connection in connections for _ in range(10)) == 1
    for connection in connections:
        connection.close()


def test_threads_count_right(server: RunningServer) -> None:
    def work() -> None:
        with redis.Redis(server.host, server.port, protocol=2) as db:
            for _ in range(200):
                db.incr("n")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with server.raw() as raw:
        assert raw.command("GET", "n") == b"1600"


# redis-cli and redis-benchmark


def cli(server: RunningServer, program: str, *words: str, stdin: str = "") -> str:
    arguments = [program, "-h", server.host, "-p", str(server.port), *words]
    result = subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=30, check=True)
    return result.stdout.strip()


def test_redis_cli(server: RunningServer, tool: Callable[[str], str]) -> None:
    program = tool("redis-cli")
    assert cli(server, program, "PING") == "PONG"
    assert cli(server, program, "SET", "k", "v", "EX", "100") == "OK"
    assert cli(server, program, "GET", "k") == "v"
    assert cli(server, program, "RPUSH", "l", "a", "b") == "2"
    assert cli(server, program, "LRANGE", "l", "0", "-1") == "a\nb"
    assert cli(server, program, "FROB").startswith("ERR unknown command")
    assert "redis_version:7" in cli(server, program, "INFO", "server")
    assert cli(server, program, "--no-raw", "BLPOP", "nothing", "0.1").startswith("(nil)")
    assert cli(server, program, stdin="SET a 1\nINCR a\nGET a\n").splitlines() == ["OK", "2", "2"]


def test_redis_cli_pipe_mode(server: RunningServer, tool: Callable[[str], str]) -> None:
    requests = "".join(f"SET key:{number} {number}\r\n" for number in range(5000))
    output = cli(server, tool("redis-cli"), "--pipe", stdin=requests)
    assert "errors: 0, replies: 5000" in output
    with server.raw() as raw:
        assert raw.command("DBSIZE") == 5000


@pytest.mark.parametrize("pipeline", [1, 16])
def test_redis_benchmark(server: RunningServer, tool: Callable[[str], str], pipeline: int) -> None:
    tests = "ping,set,get,incr,lpush,rpush,lpop,rpop,lrange_100,mset"
    arguments = [
        *(tool("redis-benchmark"), "-h", server.host, "-p", str(server.port)),
        *("-n", "2000", "-c", "50", "-P", str(pipeline), "-t", tests, "-q"),
    ]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=True)
    lines = re.split(r"[\r\n]+", result.stdout)
    finished = {line.split(":")[0].strip() for line in lines if "requests per second" in line}
    assert {"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "LPUSH", "RPOP", "MSET (10 keys)"} <= finished
    assert "rror" not in result.stdout + result.stderr
    assert "WARN" not in result.stdout + result.stderr
    assert int(server.info("total_commands_processed")) >= 20_000
