"""``swapco.socket`` and the streams, held against the standard modules: every name, every signature, and what calls do.

Behaviour: each scenario is a function of a *world*, that is a socket module and a way to run two flows at once.  It
runs in both, with threads and with fibers, and must come to the same outcome.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import io
import re
import select
import socket as stdlib
import tempfile
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import swapco
from swapco import socket, streams

LOCALHOST = "127.0.0.1"

# ---------------------------------------------------------------------------------------------- names

#: What ``swapco.socket`` defines itself; everything else is the standard module's object.
OURS = {
    "create_connection", "create_server", "fromfd", "getaddrinfo", "getfqdn", "gethostbyaddr", "gethostbyname",
    "gethostbyname_ex", "getnameinfo", "socket", "socketpair",
}  # fmt: skip

#: Methods of the standard class that are inherited: they never wait.
INHERITED = {
    "close", "family", "fileno", "get_inheritable", "getpeername", "getsockname", "getsockopt", "listen", "proto",
    "set_inheritable", "setsockopt", "shutdown", "type",
    # made of the others
    "dup", "makefile", "sendfile",
    # only for AF_ALG, where nothing waits
    "sendmsg_afalg",
}  # fmt: skip


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_every_name_of_the_module_is_there() -> None:
    assert set(socket.__all__) == set(stdlib.__all__)
    for name in public(stdlib):
        assert hasattr(socket, name), f"swapco.socket.{name} is missing"
        if name not in OURS:
            assert getattr(socket, name) is getattr(stdlib, name), name
    for name in OURS:
        assert getattr(socket, name) is not getattr(stdlib, name), name
    assert public(stdlib) <= set(dir(socket))
    with pytest.raises(AttributeError, match="no_such_name"):
        socket.no_such_name


def test_star_import() -> None:
    names: dict[str, Any] = {}
    exec("from swapco.socket import *", names)
    names.pop("__builtins__")
    assert set(names) == set(stdlib.__all__)
    assert names["socket"] is socket.socket


def test_every_method_waits_cooperatively_or_never() -> None:
    own = {name for name in vars(socket.socket) if not name.startswith("_")}
    assert own | INHERITED == public(stdlib.socket)
    assert not own & INHERITED


@pytest.mark.parametrize("name", sorted(OURS - {"socket"}))
def test_signatures_of_functions(name: str) -> None:
    ours = inspect.signature(getattr(socket, name))
    try:
        theirs = inspect.signature(getattr(stdlib, name))
    except ValueError:  # a C function without one
        return
    assert [(p.name, p.kind) for p in ours.parameters.values()] == [
        (p.name, p.kind) for p in theirs.parameters.values()
    ]
    for parameter in theirs.parameters.values():
        default = ours.parameters[parameter.name].default
        assert default == parameter.default or default is parameter.default


@pytest.mark.parametrize("name", sorted(name for name in vars(socket.socket) if not name.startswith("_")))
def test_methods_are_documented(name: str) -> None:
    lines = (getattr(socket.socket, name).__doc__ or "").strip().splitlines()
    assert [line for line in lines if line.strip() and not line.startswith(f"{name}(")], f"{name} has no docstring"


#: asyncio's stream names that are different here, and why.
STREAM_DIFFERENCES = {
    "StreamReader.set_transport": "there is no transport: a reader receives by itself",
    "StreamWriter.start_tls": "TLS comes with a later release",
    "StreamReaderProtocol": "there are no protocols between a socket and its streams",
}
#: Keywords of asyncio's functions that are not here yet: TLS, and happy eyeballs (which uvloop lacks, too).
LATER_KEYWORDS = {
    "ssl_handshake_timeout", "ssl_shutdown_timeout", "server_hostname", "happy_eyeballs_delay", "interleave",
}  # fmt: skip


@pytest.mark.parametrize("name", ["StreamReader", "StreamWriter", "Server"])
def test_stream_classes_have_asyncios_methods(name: str) -> None:
    ours, theirs = getattr(streams, name), getattr(asyncio, name)
    missing = public(theirs) - public(ours)
    assert missing == {key.partition(".")[2] for key in STREAM_DIFFERENCES if key.startswith(f"{name}.")}
    for method in public(theirs) & public(ours):
        if not callable(getattr(theirs, method)):
            continue
        expected = [p.name for p in inspect.signature(getattr(theirs, method)).parameters.values()]
        assert [p.name for p in inspect.signature(getattr(ours, method)).parameters.values()] == expected


@pytest.mark.parametrize("name", ["open_connection", "start_server", "open_unix_connection", "start_unix_server"])
def test_stream_functions_take_asyncios_arguments(name: str) -> None:
    ours, theirs = inspect.signature(getattr(streams, name)), inspect.signature(getattr(asyncio, name))
    explicit = [p.name for p in theirs.parameters.values() if p.kind is not p.VAR_KEYWORD]
    assert [p for p in ours.parameters if p in explicit] == explicit
    method = {
        "open_connection": "create_connection", "start_server": "create_server",
        "open_unix_connection": "create_unix_connection", "start_unix_server": "create_unix_server",
    }[name]  # fmt: skip
    loop_method = inspect.signature(getattr(asyncio.AbstractEventLoop, method))
    keywords = {p.name for p in loop_method.parameters.values()} - {"self", "protocol_factory"}
    assert keywords - set(ours.parameters) <= LATER_KEYWORDS


def test_stream_names() -> None:
    for name in set(asyncio.streams.__all__) - set(STREAM_DIFFERENCES):
        assert hasattr(streams, name), name


# ------------------------------------------------------------------------------------------- behaviour

class Flow:
    """A thread, with a fiber's ``join``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function, args))
        self._thread.start()

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self._outcome = function(*args)
        except BaseException as error:
            self._error = error

    def join(self) -> Any:
        self._thread.join(20)
        if self._error is not None:
            raise self._error
        return self._outcome


THREADS = SimpleNamespace(name="threads", socket=stdlib, spawn=Flow, run=lambda scenario: scenario())
FIBERS = SimpleNamespace(name="fibers", socket=socket, spawn=swapco.spawn, run=swapco.run)

SCENARIOS: list[Callable[[Any], Any]] = []


def scenario(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    SCENARIOS.append(function)
    return function


def tried(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result, or the type (and number) of the error."""
    try:
        result = function(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, getattr(error, "errno", None)
    return result


def pair(world: Any, *, tcp: bool = True) -> tuple[Any, Any]:
    if not tcp:
        first, second = world.socket.socketpair()
        return first, second
    with world.socket.create_server((LOCALHOST, 0)) as listener:
        client = world.socket.create_connection(listener.getsockname(), timeout=20)
        server, _ = listener.accept()
    client.settimeout(None)
    return client, server


@scenario
def arguments(world: Any) -> Any:
    first, second = pair(world)
    with first, second:
        second.sendall(b"abcdef")
        return [
            tried(first.recv, -1),
            tried(first.recv, "1"),
            tried(first.recv),
            tried(first.recv, 1, 2, 3),
            tried(first.recv, 1 << 70),
            tried(first.recv, 2, socket.MSG_PEEK),
            tried(first.recv_into, bytearray(2), -1),
            tried(first.recv_into, bytearray(2), 3),
            tried(first.recv_into, b"ab"),
            tried(first.recv_into, bytearray(2), nbytes=1, flags=0),
            tried(first.recv_into, bytearray(2), 0),
            tried(first.recvfrom, 1),
            tried(first.recvfrom, -1),
            tried(first.recvmsg, 1),
            tried(first.recvmsg, 1, -1),
            tried(first.recvmsg_into, [bytearray(1)]),
            tried(first.recvmsg_into, 5),
            tried(first.recvmsg_into, [5]),
            tried(first.send, "text"),
            tried(first.send, b"x", "flags"),
            tried(first.send),
            tried(first.sendall, None),
            tried(first.sendall, memoryview(b"abcdef")[::2]),
            tried(first.sendmsg, [b"ab", b"c"]),
            tried(first.sendmsg, 5),
            tried(first.sendmsg, [b"x"], [(1, 2)]),
            tried(first.sendto, b"x"),
            tried(first.sendto, b"x", 5),
            tried(first.sendto, b"x", 0, "address"),
            tried(first.settimeout, -1),
            tried(first.settimeout, "1"),
            tried(first.settimeout, None),
            tried(first.connect, "address"),
            tried(first.connect, (LOCALHOST,)),
            tried(first.connect, (LOCALHOST, 1 << 20)),
            tried(first.connect_ex, (LOCALHOST, "http")),
            tried(first.bind, 5),
            tried(first.listen, "x"),
            tried(first.getsockopt, 1),
        ]


@scenario
def a_closed_socket(world: Any) -> Any:
    first, second = pair(world)
    second.close()
    first.close()
    first.close()
    return [
        first.fileno(),
        tried(first.recv, 1),
        tried(first.recv_into, bytearray(1)),
        tried(first.recvfrom, 1),
        tried(first.send, b"x"),
        tried(first.sendall, b"x"),
        tried(first.sendmsg, [b"x"]),
        tried(first.accept),
        tried(first.connect, (LOCALHOST, 1)),
        tried(first.shutdown, socket.SHUT_RD),
        tried(first.getsockname),
        first.detach(),
        first.gettimeout(),
        tried(first.settimeout, 5),
    ]


@scenario
def an_unconnected_socket(world: Any) -> Any:
    with world.socket.socket() as sock:
        return [
            tried(sock.recv, 1),
            tried(sock.send, b"x"),
            tried(sock.accept),
            tried(sock.getpeername),
            tried(sock.shutdown, socket.SHUT_RDWR),
            sock.getsockname(),
            (sock.family, sock.type, sock.proto, sock.gettimeout(), sock.getblocking()),
        ]


@scenario
def connecting(world: Any) -> Any:
    with stdlib.socket() as unused, world.socket.create_server((LOCALHOST, 0)) as listener:
        unused.bind((LOCALHOST, 0))
        outcome = []
        with world.socket.socket() as sock:
            outcome.append(tried(sock.connect, unused.getsockname()))
        with world.socket.socket() as sock:
            outcome.append(tried(sock.connect_ex, unused.getsockname()))
        with world.socket.socket() as sock:
            outcome.append(sock.connect_ex(listener.getsockname()))
            outcome.append(tried(sock.connect, listener.getsockname()))
            outcome.append(sock.connect_ex(listener.getsockname()))
            conn, address = listener.accept()
            with conn:
                outcome.append(address == sock.getsockname())
                outcome.append(
                    (conn.family, conn.type, conn.proto, conn.gettimeout(), conn.get_inheritable())
                )
        with world.socket.socket(type=socket.SOCK_DGRAM) as sock:
            outcome.append(tried(sock.connect, (LOCALHOST, 9)))
        outcome.append(tried(world.socket.create_connection, unused.getsockname()))
        outcome.append(tried(world.socket.create_connection, unused.getsockname(), all_errors=True))
        outcome.append(tried(world.socket.create_connection, (LOCALHOST,)))
        return outcome


@scenario
def timeouts(world: Any) -> Any:
    first, second = pair(world)
    with first, second, world.socket.create_server((LOCALHOST, 0)) as listener:
        first.settimeout(0.01)
        listener.settimeout(0.01)
        outcome = [
            tried(first.recv, 1)[0],
            tried(first.recvfrom, 1)[0],
            tried(listener.accept)[0],
            tried(first.sendall, bytes(50_000_000))[0],
            first.gettimeout(),
            first.getblocking(),
        ]
        first.settimeout(0)
        outcome += [tried(first.recv, 1), tried(first.sendall, bytes(50_000_000)), first.getblocking()]
        first.setblocking(True)
        outcome += [first.gettimeout(), first.timeout]
        second.settimeout(20)
        conn = second.dup()
        with conn:
            outcome.append(conn.gettimeout())
        return outcome


@scenario
def half_closing(world: Any) -> Any:
    first, second = pair(world)
    with first, second:
        reader = world.spawn(lambda: [second.recv(100), second.recv(100)])
        first.sendall(b"abc")
        first.shutdown(socket.SHUT_WR)
        outcome = [reader.join() in ([b"abc", b""],)]
        outcome.append(tried(first.send, b"x"))
        second.sendall(b"def")
        outcome.append(first.recv(100))
        first.shutdown(socket.SHUT_RD)
        outcome.append(first.recv(100))
        return outcome


@scenario
def shutdown_ends_a_recv_of_another_flow(world: Any) -> Any:
    first, second = pair(world)
    with first, second:
        reader = world.spawn(first.recv, 100)
        if world is FIBERS:
            swapco.sleep(0)
        first.shutdown(socket.SHUT_RD)
        return reader.join()


@scenario
def shutdown_ends_an_accept_of_another_flow(world: Any) -> Any:
    with world.socket.create_server((LOCALHOST, 0)) as listener:
        acceptor = world.spawn(tried, listener.accept)
        if world is FIBERS:
            swapco.sleep(0)
        else:
            select.select([], [], [], 0.05)
        listener.shutdown(socket.SHUT_RDWR)
        return acceptor.join()


@scenario
def files(world: Any) -> Any:
    first, second = pair(world)
    with first, second, tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.flush()
        outcome: list[Any] = [first.sendfile(file), first.sendfile(file, 5), first.sendfile(file, 2, 3), file.tell()]
        outcome.append(first.sendfile(io.BytesIO(b"abc")))
        outcome.append(tried(first.sendfile, file, 0, -1))
        outcome.append(tried(first.sendfile, io.StringIO("abc")))
        reading = second.makefile("rb")
        with reading:
            outcome.append(reading.read(21))
            first.sendall(b"line\nrest")
            first.shutdown(socket.SHUT_WR)
            outcome += [reading.readline(), reading.read(), reading.read()]
            outcome.append((reading.readable(), reading.writable(), reading.seekable(), reading.raw.name > 0))
        outcome.append(tried(first.makefile, "x"))
        writing = second.makefile("w")
        second.close()
        with writing:
            writing.write("text\n")
        outcome.append(first.recv(100))
        outcome.append(first.recv(100))
        return outcome


@scenario
def datagrams(world: Any) -> Any:
    with world.socket.socket(type=socket.SOCK_DGRAM) as one, world.socket.socket(type=socket.SOCK_DGRAM) as two:
        one.bind((LOCALHOST, 0))
        two.bind((LOCALHOST, 0))
        outcome = [two.sendto(data, one.getsockname()) for data in (b"", b"abc", b"0123456789")]
        outcome.append(one.recvfrom(10) == (b"", two.getsockname()))
        buffer = bytearray(2)
        outcome.append(one.recvfrom_into(buffer)[0])
        outcome.append(one.recvmsg(4)[::2])
        outcome.append(tried(two.send, b"x"))
        outcome.append(tried(two.sendto, bytes(100_000), one.getsockname()))
        return outcome


@scenario
def pairs_and_duplicates(world: Any) -> Any:
    first, second = world.socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with first, second:
        first.send(b"abc")
        outcome = [second.recv(10), (first.family, first.type, first.proto)]
        with world.socket.fromfd(first.fileno(), socket.AF_UNIX, socket.SOCK_DGRAM) as third:
            third.send(b"def")
            outcome.append(second.recv(10))
            outcome.append(third.fileno() != first.fileno())
        fd = first.detach()
        with world.socket.socket(fileno=fd) as again:
            outcome.append((again.family, again.type, again.proto, again.gettimeout()))
            outcome.append(again.fileno() == fd)
            again.send(b"ghi")
            outcome.append(second.recv(10))
    outcome.append(tried(world.socket.socketpair, 12345))
    outcome.append(tried(functools.partial(world.socket.socket, fileno=-1)))
    outcome.append(tried(functools.partial(world.socket.socket, fileno="x")))
    outcome.append(tried(world.socket.socket, 12345))
    return outcome


@scenario
def servers(world: Any) -> Any:
    outcome = []
    with world.socket.create_server((LOCALHOST, 0), backlog=5) as listener:
        outcome.append((listener.family, listener.type, listener.gettimeout()))
        outcome.append(tried(world.socket.create_server, listener.getsockname()))
    with world.socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        outcome.append(listener.family)
    outcome.append(tried(world.socket.create_server, (LOCALHOST, 0), dualstack_ipv6=True))
    return outcome


@scenario
def names(world: Any) -> Any:
    module = world.socket
    return [
        sorted(module.getaddrinfo("localhost", 80)),
        sorted(module.getaddrinfo("localhost", "http", socket.AF_INET, socket.SOCK_STREAM)),
        module.getaddrinfo(LOCALHOST, 80, 0, socket.SOCK_STREAM),
        module.getaddrinfo(None, 80, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE),
        tried(module.getaddrinfo, "no-such-host.invalid", 80)[0],
        tried(module.getaddrinfo, "localhost", "no such service")[0],
        tried(module.getaddrinfo, "localhost", 80, 12345)[0],
        module.gethostbyname("localhost"),
        module.gethostbyname(LOCALHOST),
        module.gethostbyname(""),
        tried(module.gethostbyname, 5)[0],
        tried(module.gethostbyname, "no-such-host.invalid")[0],
        module.gethostbyname_ex("localhost"),
        module.gethostbyaddr(LOCALHOST),
        module.getnameinfo((LOCALHOST, 80), 0),
        module.getfqdn("localhost"),
        module.getfqdn(),
    ]


@scenario
def printing(world: Any) -> Any:
    first, second = pair(world, tcp=False)
    with first, second:
        shown = repr(first)
    return re.sub(r"swapco\.|\d+", "", shown), "closed" in repr(first)


def both_worlds(case: Callable[[Any], Any]) -> tuple[Any, Any]:
    return tuple(world.run(functools.partial(case, world)) for world in (THREADS, FIBERS))  # type: ignore[return-value]


@pytest.mark.usefixtures("fibers")
@pytest.mark.parametrize("case", SCENARIOS, ids=lambda case: case.__name__)
def test_it_does_what_the_standard_module_does(case: Callable[[Any], Any]) -> None:
    theirs, ours = both_worlds(case)
    assert ours == theirs
