"""The commands. `execute(client, request)` is all that a connection needs to know of them.

A command is a function with the decorator `@command`: its name is the function's (less a trailing
underscore), and its parameters are the arguments of the request, so that the signature is the arity. It
returns the encoded reply, or a `Waiter` when the client has to wait for it: then the connection waits, in its
own way. It raises `CommandError` for an error reply.

Replies follow Redis 7, errors included where clients look at them.
"""

import inspect
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kv.glob import compile_glob
from kv.instance import MAX_CLIENTS, Client, Instance
from kv.protocol import (
    INT64_MAX,
    NIL,
    NIL_ARRAY,
    OK,
    PONG,
    Request,
    array,
    bulk,
    error,
    integer,
    printable,
    simple,
    to_int64,
)
from kv.store import CommandError, Store, Waiter

VERSION = "7.0.0"  # the Redis whose replies these are; some clients ask
NS_PER_MS = 1_000_000


Handler = Callable[..., bytes | Waiter]


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    run: Handler
    at_least: int  # words of the request, the name included
    at_most: int
    while_subscribed: bool  # allowed to a client that listens to channels


COMMANDS: dict[bytes, Command] = {}  # by name, in upper and in lower case


def command(*, while_subscribed: bool = False) -> Callable[[Handler], Handler]:
    """Puts a function into the table of commands."""

    def register(handler: Handler) -> Handler:
        name = handler.__name__.rstrip("_")
        words = inspect.signature(handler).parameters.values()  # `client` stands for the name
        variadic = any(word.kind is word.VAR_POSITIONAL for word in words)
        at_least = sum(word.kind is not word.VAR_POSITIONAL and word.default is word.empty for word in words)
        at_most = sys.maxsize if variadic else len(words)
        entry = Command(name, handler, at_least, at_most, while_subscribed)
        COMMANDS[name.encode()] = COMMANDS[name.upper().encode()] = entry
        return handler

    return register


def execute(client: Client, request: Request) -> bytes | Waiter:
    """Does what the request says. Never raises and never blocks."""
    name = request[0]
    entry = COMMANDS.get(name) or COMMANDS.get(name.upper())
    if entry is None:
        words = "".join(f"'{printable(word[:128])}' " for word in request[1:20])
        return error(f"ERR unknown command '{printable(name[:128])}', with args beginning with: {words}")
    if not entry.at_least <= len(request) <= entry.at_most:
        return _wrong_arity(entry.name)
    if client.subscriptions and not entry.while_subscribed:
        allowed = " / ".join(sorted({e.name.upper() for e in COMMANDS.values() if e.while_subscribed}))
        return error(f"ERR Can't execute '{entry.name}': only {allowed} are allowed in this context")
    try:
        return entry.run(client, *request[1:])
    except CommandError as failure:
        return error(str(failure))


def _wrong_arity(name: str) -> bytes:
    return error(f"ERR wrong number of arguments for '{name}' command")


def _subcommand(container: str, word: bytes) -> bytes:
    return error(f"ERR unknown subcommand '{printable(word[:128])}'. Try {container} HELP.")


def _integer(word: bytes) -> int:
    value = to_int64(word)
    if value is None:
        raise CommandError("ERR value is not an integer or out of range")
    return value


def _count(word: bytes) -> int:
    value = to_int64(word)
    if value is None or value < 0:
        raise CommandError("ERR value is out of range, must be positive")
    return value


# The connection


@command(while_subscribed=True)
def ping(client: Client, message: bytes | None = None) -> bytes:
    if client.subscriptions:
        return array((bulk(b"pong"), bulk(message or b"")))
    return PONG if message is None else bulk(message)


@command()
def echo(client: Client, message: bytes) -> bytes:
    return bulk(message)


@command(while_subscribed=True)
def quit(client: Client, *ignored: bytes) -> bytes:
    client.reset()
    client.closing = True
    return OK


@command(while_subscribed=True)
def reset(client: Client) -> bytes:
    client.reset()
    return simple("RESET")


@command()
def select(client: Client, index: bytes) -> bytes:
    number = to_int64(index)
    if number is None:
        raise CommandError("ERR invalid DB index")
    if number != 0:
        raise CommandError("ERR DB index is out of range")
    return OK


@command()
def hello(client: Client, *words: bytes) -> bytes:
    if words:
        version = to_int64(words[0])
        if version is None:
            raise CommandError("ERR Protocol version is not an integer or out of range")
        if version != 2:
            raise CommandError("NOPROTO unsupported protocol version")
        match words[1:]:
            case ():
                pass
            case (option, name) if option.upper() == b"SETNAME":
                _set_name(client, name)
            case (option, *_):
                raise CommandError(f"ERR Syntax error in HELLO option '{printable(option)}'")
    facts: dict[str, bytes] = {
        "server": bulk(b"redis"),
        "version": bulk(VERSION.encode()),
        "proto": integer(2),
        "id": integer(client.id),
        "mode": bulk(b"standalone"),
        "role": bulk(b"master"),
        "modules": array(()),
    }
    return array(reply for name, fact in facts.items() for reply in (bulk(name.encode()), fact))


def _set_name(client: Client, name: bytes) -> None:
    if any(not 33 <= byte <= 126 for byte in name):
        raise CommandError("ERR Client names cannot contain spaces, newlines or special characters.")
    client.name = name


@command()
def client(client: Client, subcommand: bytes, *words: bytes) -> bytes:
    match subcommand.upper(), *words:
        case (b"ID",):
            return integer(client.id)
        case (b"GETNAME",):
            return bulk(client.name or None)
        case b"SETNAME", name:
            _set_name(client, name)
            return OK
        case b"SETINFO", option, _:
            if option.upper() not in (b"LIB-NAME", b"LIB-VER"):
                raise CommandError(f"ERR Unrecognized option '{printable(option[:128])}'")
            return OK
        case ((b"ID" | b"GETNAME" | b"SETNAME" | b"SETINFO"), *_):
            return _wrong_arity(f"client|{subcommand.decode().lower()}")
    return _subcommand("CLIENT", subcommand)


# Strings


@command()
def get(client: Client, key: bytes) -> bytes:
    return bulk(client.store.string(key))


@command()
def set_(client: Client, key: bytes, value: bytes, *options: bytes) -> bytes:
    if options:
        return _set_with_options(client.store, key, value, [option.upper() for option in options])
    client.store.set_string(key, value)
    return OK


_SET_CONFLICTS = ({b"NX", b"XX"}, {b"EX", b"PX"}, {b"EX", b"KEEPTTL"}, {b"PX", b"KEEPTTL"})


def _set_with_options(store: Store, key: bytes, value: bytes, options: list[bytes]) -> bytes:
    flags: set[bytes] = set()
    period: bytes | None = None
    words = iter(options)
    for word in words:
        flags.add(word)
        if word in (b"EX", b"PX"):
            period = next(words, None)
            if period is None:
                raise CommandError("ERR syntax error")
        elif word not in (b"NX", b"XX", b"GET", b"KEEPTTL"):
            raise CommandError("ERR syntax error")
    if any(conflict <= flags for conflict in _SET_CONFLICTS):
        raise CommandError("ERR syntax error")
    deadline_ns = None
    if period is not None:
        deadline_ns = _deadline(store, period, 1000 if b"EX" in flags else 1, "set")
    old = store.string(key) if b"GET" in flags else None
    exists = store.find(key) is not None
    allowed = not exists if b"NX" in flags else exists if b"XX" in flags else True
    if allowed:
        store.set_string(key, value, keep_deadline=b"KEEPTTL" in flags)
        if deadline_ns is not None:
            store.expire(key, deadline_ns)
    if b"GET" in flags:
        return bulk(old)
    return OK if allowed else NIL


def _deadline(store: Store, period: bytes, unit_ms: int, name: str, *, positive: bool = True) -> int:
    """When `period`, counted from now in units of `unit_ms`, is over; in nanoseconds of the store's clock."""
    period_ms = _integer(period) * unit_ms
    if (positive and period_ms <= 0) or abs(period_ms) > INT64_MAX - time.time_ns() // NS_PER_MS:
        raise CommandError(f"ERR invalid expire time in '{name}' command")
    return store.clock_ns() + period_ms * NS_PER_MS


@command()
def mget(client: Client, key: bytes, *keys: bytes) -> bytes:
    find = client.store.find
    values = (find(key) for key in (key, *keys))
    return array(bulk(value if isinstance(value, bytes) else None) for value in values)


@command()
def mset(client: Client, key: bytes, value: bytes, *words: bytes) -> bytes:
    if len(words) % 2:
        return _wrong_arity("mset")
    for name, new in zip((key, *words[::2]), (value, *words[1::2]), strict=True):
        client.store.set_string(name, new)
    return OK


@command()
def incr(client: Client, key: bytes) -> bytes:
    return integer(client.store.add(key, 1))


@command()
def decr(client: Client, key: bytes) -> bytes:
    return integer(client.store.add(key, -1))


@command()
def incrby(client: Client, key: bytes, amount: bytes) -> bytes:
    return integer(client.store.add(key, _integer(amount)))


@command()
def decrby(client: Client, key: bytes, amount: bytes) -> bytes:
    number = _integer(amount)
    if number < -INT64_MAX:
        raise CommandError("ERR decrement would overflow")
    return integer(client.store.add(key, -number))


# Keys


@command()
def del_(client: Client, key: bytes, *keys: bytes) -> bytes:
    return integer(sum(map(client.store.delete, (key, *keys))))


@command()
def exists(client: Client, key: bytes, *keys: bytes) -> bytes:
    return integer(sum(client.store.find(name) is not None for name in (key, *keys)))


@command()
def type_(client: Client, key: bytes) -> bytes:
    value = client.store.find(key)
    return simple("none" if value is None else "string" if isinstance(value, bytes) else "list")


@command()
def keys(client: Client, pattern: bytes) -> bytes:
    return array(map(bulk, client.store.keys(pattern)))


@command()
def dbsize(client: Client) -> bytes:
    return integer(len(client.store))


@command()
def flushall(client: Client, mode: bytes | None = None) -> bytes:
    return _flush(client.store, mode)


@command()
def flushdb(client: Client, mode: bytes | None = None) -> bytes:
    return _flush(client.store, mode)


def _flush(store: Store, mode: bytes | None) -> bytes:
    if mode is not None and mode.upper() not in (b"SYNC", b"ASYNC"):
        raise CommandError("ERR syntax error")
    store.clear()
    return OK


@command()
def expire(client: Client, key: bytes, seconds: bytes) -> bytes:
    return _expire(client.store, key, _deadline(client.store, seconds, 1000, "expire", positive=False))


@command()
def pexpire(client: Client, key: bytes, milliseconds: bytes) -> bytes:
    return _expire(client.store, key, _deadline(client.store, milliseconds, 1, "pexpire", positive=False))


def _expire(store: Store, key: bytes, deadline_ns: int) -> bytes:
    if store.find(key) is None:
        return integer(0)
    store.expire(key, deadline_ns)
    return integer(1)


@command()
def ttl(client: Client, key: bytes) -> bytes:
    remaining_ms = _remaining_ms(client.store, key)
    return integer(remaining_ms if remaining_ms < 0 else (remaining_ms + 500) // 1000)


@command()
def pttl(client: Client, key: bytes) -> bytes:
    return integer(_remaining_ms(client.store, key))


def _remaining_ms(store: Store, key: bytes) -> int:
    """-2 for no such key, -1 for one that never expires."""
    if store.find(key) is None:
        return -2
    deadline_ns = store.deadline(key)
    return -1 if deadline_ns is None else -((store.clock_ns() - deadline_ns) // NS_PER_MS)


@command()
def persist(client: Client, key: bytes) -> bytes:
    return integer(client.store.find(key) is not None and client.store.persist(key))


# Lists


@command()
def lpush(client: Client, key: bytes, element: bytes, *elements: bytes) -> bytes:
    return integer(client.store.push(key, (element, *elements), left=True))


@command()
def rpush(client: Client, key: bytes, element: bytes, *elements: bytes) -> bytes:
    return integer(client.store.push(key, (element, *elements), left=False))


@command()
def lpop(client: Client, key: bytes, count: bytes | None = None) -> bytes:
    return _pop(client.store, key, count, left=True)


@command()
def rpop(client: Client, key: bytes, count: bytes | None = None) -> bytes:
    return _pop(client.store, key, count, left=False)


def _pop(store: Store, key: bytes, count: bytes | None, *, left: bool) -> bytes:
    if count is None:
        elements = store.pop(key, 1, left=left)
        return bulk(elements[0]) if elements else NIL
    elements = store.pop(key, _count(count), left=left)
    return NIL_ARRAY if elements is None else array(map(bulk, elements))


@command()
def blpop(client: Client, key: bytes, *words: bytes) -> bytes | Waiter:
    if not words:
        return _wrong_arity("blpop")
    try:
        timeout_s = float(words[-1])
    except ValueError:
        timeout_s = math.nan
    if not math.isfinite(timeout_s):
        raise CommandError("ERR timeout is not a float or out of range")
    if timeout_s < 0:
        raise CommandError("ERR timeout is negative")
    waiter = Waiter([key, *words[:-1]], timeout_s or None)
    return popped(waiter) if client.store.wait_for(waiter) else waiter


def popped(waiter: Waiter) -> bytes:
    """The reply to a client that has waited."""
    return NIL_ARRAY if waiter.element is None else array(map(bulk, waiter.element))


@command()
def llen(client: Client, key: bytes) -> bytes:
    return integer(len(client.store.elements(key) or ()))


@command()
def lrange(client: Client, key: bytes, start: bytes, stop: bytes) -> bytes:
    return array(map(bulk, client.store.slice(key, _integer(start), _integer(stop))))


# Channels


@command()
def publish(client: Client, channel: bytes, message: bytes) -> bytes:
    return integer(client.instance.channels.publish(channel, message))


@command(while_subscribed=True)
def subscribe(client: Client, channel: bytes, *channels: bytes) -> bytes:
    replies = []
    for name in (channel, *channels):
        client.subscriptions[name] = None
        client.instance.channels.add(name, client)
        replies.append(_subscription(client, b"subscribe", name))
    return b"".join(replies)


@command(while_subscribed=True)
def unsubscribe(client: Client, *channels: bytes) -> bytes:
    replies = []
    for name in channels or tuple(client.subscriptions):
        client.subscriptions.pop(name, None)
        client.instance.channels.remove(name, client)
        replies.append(_subscription(client, b"unsubscribe", name))
    return b"".join(replies) or _subscription(client, b"unsubscribe", None)


def _subscription(client: Client, verb: bytes, channel: bytes | None) -> bytes:
    return array((bulk(verb), bulk(channel), integer(len(client.subscriptions))))


# The server


def _settings(instance: Instance) -> dict[bytes, bytes]:
    return {b"save": b"", b"appendonly": b"no", b"databases": b"1", b"maxclients": b"%d" % MAX_CLIENTS}


@command()
def config(client: Client, subcommand: bytes, *words: bytes) -> bytes:
    match subcommand.upper(), *words:
        case b"GET", _, *_:
            matches = [compile_glob(pattern.lower()).fullmatch for pattern in words]
            pairs = [pair for pair in _settings(client.instance).items() if any(m(pair[0]) for m in matches)]
            return array(bulk(word) for pair in pairs for word in pair)
        case (b"GET",):
            return _wrong_arity("config|get")
        case b"SET", _, _, *_:
            raise CommandError("ERR CONFIG SET failed: the settings of this server are fixed")
    return _subcommand("CONFIG", subcommand)


@command()
def command_(client: Client, subcommand: bytes | None = None, *names: bytes) -> bytes:
    entries = {entry.name: entry for entry in COMMANDS.values()}
    match subcommand and subcommand.upper():
        case None:
            return array(map(_describe, entries.values()))
        case b"COUNT":
            return integer(len(entries))
        case b"INFO":
            wanted = [COMMANDS.get(name.upper()) for name in names] if names else list(entries.values())
            return array(NIL_ARRAY if entry is None else _describe(entry) for entry in wanted)
        case b"DOCS":
            return array(())
    return _subcommand("COMMAND", subcommand or b"")


def _describe(entry: Command) -> bytes:
    """Name and arity (negative: at least so many words); no flags, and no positions of keys."""
    exact = entry.at_least == entry.at_most
    arity = entry.at_least if exact else -entry.at_least
    return array((bulk(entry.name.encode()), integer(arity), array(()), integer(0), integer(0), integer(0)))


@command()
def info(client: Client, *sections: bytes) -> bytes:
    wanted = {section.decode(errors="replace").lower() for section in sections}
    everything = not wanted or bool(wanted & {"all", "default", "everything"})
    text = "\r\n".join(
        f"# {title}\r\n" + "".join(f"{name}:{value}\r\n" for name, value in facts.items())
        for title, facts in _facts(client.instance).items()
        if everything or title.lower() in wanted
    )
    return bulk(text.encode())


def _facts(instance: Instance) -> dict[str, dict[str, Any]]:
    store = instance.store
    size = len(store)
    return {
        "Server": {
            "redis_version": VERSION,
            "redis_mode": "standalone",
            "kv_server": instance.server,
            "process_id": os.getpid(),
            "uptime_in_seconds": int(time.monotonic() - instance.started_s),
        },
        "Clients": {
            "connected_clients": len(instance.clients),
            "maxclients": MAX_CLIENTS,
            "blocked_clients": store.waiting,
        },
        "Stats": {
            "total_connections_received": instance.connections,
            "total_commands_processed": instance.commands,
            "pubsub_channels": len(instance.channels),
        },
        "Keyspace": {"db0": f"keys={size},expires={store.expiring},avg_ttl=0"} if size else {},
    }
