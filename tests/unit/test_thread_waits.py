"""Thread fibers and the event loop: sockets, coroutines, futures and callbacks.

What belongs to the loop's thread is done there, by the home worker; a thread fiber waits for it like any other.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from helpers import SOON_S, in_fiber, settle
from thread_support import (
    MIX_NAMES,
    MIXES,
    at_home,
    in_quiet_fiber,
    on_thread,
    outcome,
    run_detached,
    thread,
    until_blocked,
)

import swapco
from swapco import socket as cooperative

pytestmark = pytest.mark.usefixtures("fibers")

LONG = 3600.0

mixed = pytest.mark.parametrize(("first", "second"), MIXES, ids=MIX_NAMES)


# -------------------------------------------------------------------------------------------- sockets


@mixed
@in_quiet_fiber
def test_sockets(first: bool, second: bool) -> None:
    data = bytes(range(256)) * 4000

    def sends(sock: Any) -> None:
        with sock:
            sock.sendall(data)

    def receives(sock: Any) -> bytes:
        got = bytearray()
        with sock:
            while chunk := sock.recv(65536):
                got += chunk
        return bytes(got)

    near, far = cooperative.socketpair()
    sender = swapco.spawn(sends, near, thread=first)
    assert swapco.spawn(receives, far, thread=second).join(SOON_S) == data
    sender.join()


@mixed
@in_quiet_fiber
def test_a_server_and_its_clients(first: bool, second: bool) -> None:
    server = cooperative.create_server(("127.0.0.1", 0))

    def serves() -> None:
        for _ in range(3):
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())

    def asks(n: int) -> bytes:
        with cooperative.create_connection(server.getsockname()) as sock:
            sock.sendall(b"question %d" % n)
            return bytes(sock.recv(100))

    with server:
        serving = swapco.spawn(serves, thread=first)
        assert sorted(swapco.gather(*[swapco.spawn(asks, n, thread=second) for n in range(3)])) == [
            b"QUESTION 0",
            b"QUESTION 1",
            b"QUESTION 2",
        ]
        serving.join()


@in_quiet_fiber
def test_socket_timeouts_and_closing() -> None:
    near, far = cooperative.socketpair()
    with near, far:
        far.settimeout(0.002)
        with pytest.raises(TimeoutError):
            on_thread(far.recv, 1)
        far.settimeout(None)
        reader = thread(lambda: outcome(lambda: far.recv(1)))
        until_blocked(reader)
        on_thread(far.close)
        assert reader.join() is OSError


@in_fiber
def test_a_socket_used_by_a_detached_one() -> None:
    near, far = cooperative.socketpair()
    with near, far:
        fiber = run_detached(lambda: (far.sendall(b"from far"), far.recv(10))[1])
        assert near.recv(10) == b"from far"
        near.sendall(b"to far")
        assert fiber.join(SOON_S) == b"to far"


# ------------------------------------------------------------------------------------------ awaitables


@in_quiet_fiber
def test_await_runs_a_coroutine_on_the_loops_thread() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def coroutine() -> tuple[Any, ...]:
        await asyncio.sleep(0)
        variable.set(variable.get() + 1)
        return at_home(), asyncio.get_running_loop() is loop, asyncio.current_task() is not None

    def body() -> tuple[Any, ...]:
        variable.set(1)
        got = swapco.await_(coroutine())
        return got, at_home(), variable.get()

    loop = asyncio.get_running_loop()
    # in the caller's context, as an ordinary fiber would drive it
    assert on_thread(body) == ((True, True, True), False, 2)


@in_quiet_fiber
def test_await_a_future_a_task_and_a_fiber() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    waiter = thread(swapco.await_, future)
    until_blocked(waiter)
    loop.call_soon(future.set_result, "set")
    assert waiter.join() == "set"
    assert on_thread(swapco.await_, future) == "set"
    task = loop.create_task(asyncio.sleep(0, "task"))
    assert on_thread(swapco.await_, task) == "task"
    assert on_thread(swapco.await_, swapco.spawn(lambda: "fiber")) == "fiber"
    assert on_thread(swapco.await_, thread(lambda: "thread fiber")) == "thread fiber"


@in_quiet_fiber
def test_await_raises_what_the_coroutine_raises() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        on_thread(swapco.await_, fails())
    with pytest.raises(TypeError, match="await_"):
        on_thread(swapco.await_, 3)


@in_quiet_fiber
def test_cancelling_forwards_to_what_is_awaited() -> None:
    ended: list[str] = []

    async def waits() -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError as error:
            ended.append(str(error))
            raise
        return "too far"

    async def stubborn() -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            ended.append("stubborn")
        return "goes on"

    fiber = thread(lambda: swapco.await_(waits()))
    until_blocked(fiber)
    settle()
    fiber.cancel("message")
    with pytest.raises(swapco.CancelledError, match="message"):
        fiber.join()
    fiber = thread(lambda: swapco.await_(stubborn()))
    until_blocked(fiber)
    settle()
    fiber.cancel()
    settle()
    # a coroutine that swallows it ends the await_; the request is still counted
    swapco.wait([fiber])
    assert ended == ["message", "stubborn"]
    assert fiber.cancelling() == 1


@in_quiet_fiber
def test_cancelling_a_future_that_is_awaited() -> None:
    future = asyncio.get_running_loop().create_future()
    fiber = thread(swapco.await_, future)
    until_blocked(fiber)
    settle()
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    assert future.cancelled()


@in_quiet_fiber
def test_coroutines_and_loop_callbacks_see_a_thread_fiber_end() -> None:
    async def coroutine() -> int:
        return int(await thread(lambda: 7)) + sum(await asyncio.gather(thread(lambda: 1), thread(lambda: 2)))

    assert swapco.await_(coroutine()) == 10
    called: list[Any] = []
    fiber = thread(int)
    fiber.add_done_callback(lambda done: called.append((done, at_home())))

    def adds() -> None:
        fiber.add_done_callback(lambda done: called.append((done, at_home())))

    on_thread(adds)
    settle()
    assert called == [(fiber, True)] * 2
