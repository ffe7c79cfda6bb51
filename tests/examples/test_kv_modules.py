"""The parts of the key-value server that do no I/O: parser, glob patterns, store, channels, commands."""

import fnmatch
import itertools
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kv import protocol
from kv.commands import COMMANDS, execute, popped
from kv.glob import compile_glob
from kv.instance import Client, Instance
from kv.protocol import MAX_ARGUMENTS, MAX_BULK, MAX_LINE, Parser, printable, split_inline, to_int64
from kv.pubsub import Channels
from kv.store import CommandError, Store, Waiter, WrongTypeError
from kv_support import encode

# The parser

words = st.lists(
    st.binary(max_size=40) | st.sampled_from([b"", b"\r\n", b"$3\r\nfoo\r\n", b"x" * 1500]), min_size=1
)
streams = st.lists(
    words.map(lambda request: encode(*request))
    | st.sampled_from([b"PING\r\n", b"set a 'b c'\n", b"\r\n", b"*0\r\n", b"*-1\r\n"]),
).map(b"".join)
broken = st.builds(
    lambda good, bad, rest: good + bad + rest,
    streams,
    st.sampled_from(
        [b"*x\r\n", b"*2\r\n:3\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$x\r\n", b"'\r\n", b"*99999999\r\n"]
    ),
    st.binary(max_size=20),
)


def parse(pieces: list[bytes]) -> tuple[list[list[bytes]], str | None]:
    parser = Parser()
    return [request for piece in pieces for request in parser.feed(piece)], parser.error


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(stream) + 1) for place in places)
    return [stream[a:b] for a, b in itertools.pairwise([0, *ends, len(stream)])]


@given(st.lists(words))
def test_what_was_encoded_is_parsed(requests: list[list[bytes]]) -> None:
    assert parse([b"".join(encode(*request) for request in requests)]) == (requests, None)


@given(streams | broken | st.binary(), st.lists(st.integers(0, 10_000)))
@example(encode(b"SET", b"k", b"x" * 3000), [10, 20, 21, 1000, 2000])
def test_any_split_parses_the_same(stream: bytes, places: list[int]) -> None:
    assert parse(cut(stream, places)) == parse([stream])


@given(streams | broken)
def test_byte_by_byte_parses_the_same(stream: bytes) -> None:
    assert parse([stream[i : i + 1] for i in range(len(stream))]) == parse([stream])


@given(st.binary())
def test_garbage_never_raises(stream: bytes) -> None:
    parse([stream])


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b"*abc\r\n", "invalid multibulk length"),
        (b"*1_0\r\n", "invalid multibulk length"),
        (b"*%d\r\n" % (MAX_ARGUMENTS + 1), "invalid multibulk length"),
        (b"*1\r\n$%d\r\n" % (MAX_BULK + 1), "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$+1\r\n", "invalid bulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n\r\n", "expected '$', got ''"),
        (b"*1\r\n\xff\r\n", r"expected '$', got '\xff'"),
        (b"GET 'a\r\n", "unbalanced quotes in request"),
        (b"x" * (MAX_LINE + 1), "too big inline request"),
        (b"x" * (MAX_LINE + 1) + b"\r\n", "too big inline request"),
        (b"*" + b"1" * (MAX_LINE + 1), "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * (MAX_LINE + 1), "too big bulk count string"),
    ],
)
def test_protocol_errors(stream: bytes, error: str) -> None:
    requests, message = parse([encode(b"PING"), stream, encode(b"PING")])
    assert requests == [[b"PING"]]
    assert message == f"Protocol error: {error}"


def test_too_big_request() -> None:
    parser = Parser()
    assert parser.feed(b"*4\r\n") == []
    argument = b"$%d\r\n%b\r\n" % (MAX_BULK, bytes(MAX_BULK))
    assert parser.feed(argument) == []
    assert parser.error is None
    parser.feed(argument)
    parser.feed(b"$10\r\n")
    assert parser.error == "Protocol error: too big request"


def test_a_big_argument_in_small_chunks_takes_linear_time() -> None:
    stream = encode(b"SET", b"key", bytes(16 * 1024 * 1024))
    chunks = [stream[start : start + 1024] for start in range(0, len(stream), 1024)]
    before = time.process_time()
    requests, error = parse(chunks)
    assert time.process_time() - before < 2.0
    assert (len(requests), error) == (1, None)


def test_many_arguments_byte_by_byte_take_linear_time() -> None:
    stream = encode(*[b"x"] * 20_000)
    before = time.process_time()
    requests, _ = parse([stream[i : i + 1] for i in range(len(stream))])
    assert time.process_time() - before < 5.0
    assert len(requests[0]) == 20_000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", []),
        (b" \t ", []),
        (b"GET  key\r", [b"GET", b"key"]),
        (b'SET k "a b\\n\\x41\\q"', [b"SET", b"k", b"a b\nAq"]),
        (b"SET k 'it\\'s \\n'", [b"SET", b"k", b"it's \\n"]),
        (b'""', [b""]),
        (b'"\\xzz"', [b"xzz"]),
    ],
)
def test_inline_words(line: bytes, expected: list[bytes]) -> None:
    assert split_inline(line) == expected


@given(st.integers(), st.binary(max_size=22))
def test_to_int64(number: int, raw: bytes) -> None:
    in_range = protocol.INT64_MIN <= number <= protocol.INT64_MAX
    assert to_int64(b"%d" % number) == (number if in_range else None)
    if (parsed := to_int64(raw)) is not None:
        assert b"%d" % parsed == raw


@pytest.mark.parametrize("raw", [b"", b" 1", b"1 ", b"+1", b"01", b"-0", b"1_0", b"1.0", b"0x1", b"\xd9\xa1"])
def test_not_an_int64(raw: bytes) -> None:
    assert to_int64(raw) is None


@given(st.binary())
def test_printable_fits_into_an_error_reply(raw: bytes) -> None:
    assert re.fullmatch(r"[ -~]*", printable(raw))


# Patterns

patterns = st.text("ab*?c", max_size=12)


@given(patterns, st.text("abc", max_size=12))
def test_glob_agrees_with_fnmatch(pattern: str, text: str) -> None:
    matched = compile_glob(pattern.encode()).fullmatch(text.encode()) is not None
    assert matched == fnmatch.fnmatchcase(text, pattern)


@pytest.mark.parametrize(
    ("pattern", "matches", "differs"),
    [
        (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo", b"hllo"]),
        (b"h[^e]llo", [b"hallo"], [b"hello"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo", b"h-llo"]),
        (b"h[c-a]llo", [b"hbllo"], [b"hdllo"]),
        (b"h\\*llo", [b"h*llo"], [b"hello"]),
        (b"[\\]]", [b"]"], [b"\\"]),
        (b"[a", [b"a"], [b"[a"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"*", [b"", b"a\nb", b"\xff"], []),
        (b"a?c", [b"a\nc"], [b"ac"]),
        (b"a.c", [b"a.c"], [b"abc"]),
        (b"a*b*c", [b"abc", b"a--b--b--c"], [b"acb"]),
        (b"[]a", [], [b"a", b"]"]),
    ],
)
def test_glob(pattern: bytes, matches: list[bytes], differs: list[bytes]) -> None:
    match = compile_glob(pattern).fullmatch
    assert [text for text in [*matches, *differs] if match(text)] == matches


@given(st.binary())
def test_any_pattern_compiles(pattern: bytes) -> None:
    compile_glob(pattern).fullmatch(pattern)


def test_a_hostile_pattern_is_fast() -> None:
    before = time.process_time()
    assert compile_glob(b"*a" * 30 + b"b").fullmatch(b"a" * 2000) is None
    assert time.process_time() - before < 1.0


# The store


class ManualClock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Store:
    return Store(clock)


def test_a_key_expires_at_its_deadline_and_not_before(store: Store, clock: ManualClock) -> None:
    store.set_string(b"k", b"v")
    store.expire(b"k", 10)
    clock.now_ns = 9
    assert store.string(b"k") == b"v"
    clock.now_ns = 10
    assert store.string(b"k") is None
    assert not store.delete(b"k")
    assert len(store) == 0


def test_deleting_an_expired_key_deletes_nothing(store: Store, clock: ManualClock) -> None:
    store.set_string(b"k", b"v")
    store.expire(b"k", 10)
    clock.now_ns = 10
    assert not store.delete(b"k")


def test_purge_removes_what_nobody_asks_for(store: Store, clock: ManualClock) -> None:
    for number in range(10):
        store.set_string(b"%d" % number, b"v")
        store.expire(b"%d" % number, number)
    clock.now_ns = 4
    assert store.purge(limit=3) == 3
    assert store.purge() == 2
    assert store.purge() == 0
    assert store.expiring == 5


def test_an_overwritten_deadline_does_not_count(store: Store, clock: ManualClock) -> None:
    store.set_string(b"k", b"v")
    store.expire(b"k", 10)
    store.expire(b"k", 100)
    clock.now_ns = 50
    assert store.purge() == 0
    assert store.string(b"k") == b"v"
    store.set_string(b"k", b"w")
    clock.now_ns = 200
    assert store.purge() == 0
    assert store.string(b"k") == b"w"


def test_overwriting_deadlines_does_not_fill_the_heap(store: Store) -> None:
    store.set_string(b"k", b"v")
    for number in range(10_000):
        store.expire(b"k", 1000 + number)
    assert len(store._heap) < 200


def test_wrong_types(store: Store) -> None:
    store.set_string(b"s", b"v")
    store.push(b"l", [b"v"], left=True)
    for operation in (
        lambda: store.string(b"l"),
        lambda: store.add(b"l", 1),
        lambda: store.elements(b"s"),
        lambda: store.push(b"s", [b"v"], left=True),
        lambda: store.pop(b"s", 1, left=True),
        lambda: store.slice(b"s", 0, 1),
        lambda: store.wait_for(Waiter([b"s"], None)),
    ):
        with pytest.raises(WrongTypeError):
            operation()


indexes = st.integers(-12, 12) | st.sampled_from([protocol.INT64_MIN, protocol.INT64_MAX])


@given(st.lists(st.binary(max_size=3), min_size=1), indexes, indexes)
def test_slice_counts_as_python_does(elements: list[bytes], start: int, stop: int) -> None:
    store = Store()
    store.push(b"l", elements, left=False)
    first = start if start >= 0 else max(start + len(elements), 0)
    last = stop if stop >= 0 else stop + len(elements)
    assert store.slice(b"l", start, stop) == [e for i, e in enumerate(elements) if first <= i <= last]


def waiting(store: Store, *keys: bytes) -> Waiter:
    waiter = Waiter(list(keys), None)
    assert not store.wait_for(waiter)
    return waiter


def test_waiters_are_served_in_order(store: Store) -> None:
    notified: list[int] = []
    waiters = [waiting(store, b"l") for _ in range(3)]
    for number, waiter in enumerate(waiters):
        waiter.notify = lambda number=number: notified.append(number)
    assert store.push(b"l", [b"a", b"b"], left=False) == 2
    assert [waiter.element for waiter in waiters] == [(b"l", b"a"), (b"l", b"b"), None]
    assert notified == [0, 1]
    assert (store.waiting, len(store)) == (1, 0)


def test_a_waiter_for_several_keys_is_served_once(store: Store) -> None:
    waiter = waiting(store, b"x", b"y", b"x")
    store.push(b"y", [b"1"], left=True)
    store.push(b"x", [b"2"], left=True)
    assert waiter.element == (b"y", b"1")
    assert store.slice(b"x", 0, -1) == [b"2"]


def test_a_waiter_takes_the_first_key_that_has_an_element(store: Store) -> None:
    store.push(b"y", [b"1"], left=True)
    store.push(b"z", [b"2"], left=True)
    waiter = Waiter([b"x", b"z", b"y"], None)
    assert store.wait_for(waiter)
    assert waiter.element == (b"z", b"2")


def test_an_element_that_was_not_taken_goes_back_to_its_place(store: Store) -> None:
    waiter = waiting(store, b"l")
    store.push(b"l", [b"a", b"b"], left=False)
    store.give_up(waiter)
    assert store.slice(b"l", 0, -1) == [b"a", b"b"]


def test_an_element_that_was_not_taken_goes_to_the_next_waiter(store: Store) -> None:
    first, second = waiting(store, b"l"), waiting(store, b"l")
    store.push(b"l", [b"a"], left=False)
    store.give_up(first)
    assert (first.element, second.element) == (None, (b"l", b"a"))


def test_an_element_of_a_list_that_was_overwritten_is_gone(store: Store) -> None:
    waiter = waiting(store, b"l")
    store.push(b"l", [b"a"], left=False)
    store.set_string(b"l", b"string")
    store.give_up(waiter)
    assert store.string(b"l") == b"string"


def test_who_gives_up_is_not_served(store: Store) -> None:
    store.give_up(waiting(store, b"x", b"y"))
    assert store.waiting == 0
    assert store.push(b"x", [b"a"], left=True) == 1
    assert store.slice(b"x", 0, -1) == [b"a"]


def test_add_rejects_what_is_no_number(store: Store) -> None:
    store.set_string(b"k", b"")
    with pytest.raises(CommandError, match="not an integer"):
        store.add(b"k", 1)
    store.set_string(b"k", b"%d" % protocol.INT64_MAX)
    with pytest.raises(CommandError, match="overflow"):
        store.add(b"k", 1)


# Channels and commands


class Listener:
    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def push(self, message: bytes, /) -> None:
        self.messages.append(message)


def test_channels() -> None:
    channels, first, second = Channels(), Listener(), Listener()
    for listener in (first, second, first):
        channels.add(b"c", listener)
    channels.add(b"d", first)
    assert channels.publish(b"c", b"hello") == 2
    assert first.messages == second.messages == [encode(b"message", b"c", b"hello")]
    channels.remove(b"c", first)
    channels.remove(b"c", first)
    assert channels.publish(b"c", b"again") == 1
    channels.remove(b"c", second)
    assert channels.publish(b"c", b"nobody") == 0
    assert len(channels) == 1


@pytest.fixture
def client() -> Client:
    return Instance("test").connect(lambda message: None)


def test_blpop_returns_a_waiter(client: Client) -> None:
    waiter = execute(client, [b"BLPOP", b"l", b"0"])
    assert isinstance(waiter, Waiter)
    assert (waiter.keys, waiter.timeout_s) == ([b"l"], None)
    assert popped(waiter) == protocol.NIL_ARRAY
    execute(client, [b"RPUSH", b"l", b"a"])
    assert popped(waiter) == encode(b"l", b"a")


@given(st.sampled_from(sorted(COMMANDS)), st.lists(st.binary(max_size=8) | st.sampled_from([b"0", b"get"])))
def test_no_command_raises_whatever_its_arguments(name: bytes, arguments: list[bytes]) -> None:
    client = Instance("test").connect(lambda message: None)
    execute(client, [name, *arguments])
    client.disconnect()


def test_a_client_that_leaves_is_forgotten(client: Client) -> None:
    execute(client, [b"SUBSCRIBE", b"a", b"b"])
    assert len(client.instance.channels) == 2
    client.disconnect()
    assert len(client.instance.channels) == 0
    assert not client.instance.clients
