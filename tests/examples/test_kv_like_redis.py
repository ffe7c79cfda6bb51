"""Random commands get the same replies from the key-value server as from Redis, on fibers and on uvloop.

Hypothesis draws the commands, with few keys and values that make them meet: wrong types, numbers at their
limits, options that contradict each other, wrong arity. Nothing in here depends on how fast a machine is: no
key lives for less than a minute.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kv_support import Error, Raw, RunningServer, encode

pytestmark = pytest.mark.timeout(120)

key = st.sampled_from(["a", "b", "c", "l", "m"])
value = st.sampled_from(["", "0", "1", "-5", "abc", " 1", "9223372036854775807", "x" * 100, "a\r\nb"])
number = st.sampled_from(["0", "1", "2", "-1", "-2", "5", "-100", "100", "x", "1.5", "9223372036854775807"])
period = st.sampled_from(["0", "-1", "100000", "1000000", "x", "9223372036854775807"])
words = st.lists(st.sampled_from(["a", "1", "x", "NX", "GET", "EX"]), max_size=4)


def call(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[list[str]]:
    return st.tuples(*arguments).map(
        lambda parts: [name, *(w for p in parts for w in (p if isinstance(p, list) else [p]))]
    )


set_options = st.lists(
    st.sampled_from(["NX", "xx", "GET", "KEEPTTL", "FROB"]).map(lambda word: [word])
    | st.tuples(st.sampled_from(["EX", "px"]), st.sampled_from(["0", "-1", "100000", "1000000", "x"])).map(
        list
    ),
    max_size=3,
).map(lambda options: [word for option in options for word in option])

calls = st.one_of(
    call("GET", key),
    call("SET", key, value),
    call("SET", key, value, set_options),
    call("DEL", key, st.lists(key, max_size=2)),
    call("EXISTS", key, st.lists(key, max_size=2)),
    *(call(name, key) for name in ("INCR", "decr", "TYPE", "TTL", "PTTL", "PERSIST", "LLEN", "LPOP", "RPOP")),
    *(call(name, key, number) for name in ("INCRBY", "DECRBY", "LPOP", "RPOP")),
    *(call(name, key, period) for name in ("EXPIRE", "PEXPIRE")),
    *(call(name, key, st.lists(value, min_size=1, max_size=3)) for name in ("LPUSH", "RPUSH")),
    call("LRANGE", key, number, number),
    call("MGET", key, st.lists(key, max_size=3)),
    call("MSET", key, value, words),
    call("BLPOP", key, st.sampled_from(["0.001", "-1", "x"])),
    call("KEYS", st.sampled_from(["*", "?", "[ab]", "[^a]", "[a-c]", "\\a", "", "a*"])),
    call("PUBLISH", key, value),
    call("SELECT", st.sampled_from(["0", "99", "-1", "x"])),
    call("CLIENT", st.sampled_from(["GETNAME", "FROB", "getname"]), words),
    call("CLIENT", st.just("SETNAME"), st.sampled_from(["me", "a b", ""])),
    call("HELLO", st.sampled_from(["4", "x", "0"])),
    call("FLUSHALL", st.sampled_from([["SYNC"], [], ["FROB"]])),
    *(st.just([name]) for name in ("PING", "DBSIZE", "FLUSHDB", "UNSUBSCRIBE", "GETFROB")),
    *(
        call(name, words)
        for name in ("PING", "ECHO", "GET", "DEL", "LPUSH", "BLPOP", "TTL", "INCR", "MSET", "KEYS")
    ),
)


def comparable(request: list[str], reply: object) -> object:
    """What two right servers must agree on: of an error its code, of a TTL not the last digits."""
    name = request[0].upper()
    if isinstance(reply, Error):
        return reply.split()[0]
    if name == "KEYS" and isinstance(reply, list):
        return sorted(reply)
    if name in ("TTL", "PTTL") and isinstance(reply, int) and reply > 0:
        return "positive"
    return reply


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(calls, min_size=1, max_size=30), pipelined=st.booleans())
def test_replies_are_those_of_redis(
    server: RunningServer, redis_address: tuple[str, int], requests: list[list[str]], pipelined: bool
) -> None:
    transcripts = []
    for address in (server.address, redis_address):
        with Raw(address) as raw:
            assert raw.command("FLUSHALL") == "OK"
            if pipelined:
                raw.send(b"".join(encode(*request) for request in requests))
                replies = [raw.reply() for _ in requests]
            else:
                replies = [raw.command(*request) for request in requests]
        transcripts.append(
            [(request, comparable(request, reply)) for request, reply in zip(requests, replies, strict=True)]
        )
    ours, theirs = transcripts
    assert ours == theirs
