"""Greenlets that are not swapco's, in a program whose fibers run on stacks of their own.

A fiber may make greenlets, switch between them, leave them suspended while it waits, and finish them.  It may not
wait *inside* one when fibers switch natively: that is refused, before anything has changed.  And a loop that is
started inside a greenlet lets greenlets carry its fibers.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import greenlet
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio as sqlalchemy_asyncio
from helpers import run_program

import swapco
from swapco import socket as swapco_socket

pytestmark = pytest.mark.usefixtures("fibers")


def fill(depth: int, function: Callable[[], Any]) -> Any:
    """Call ``function`` below ``depth`` Python frames and as many C calls."""
    if depth == 0:
        return function()
    return functools.reduce(lambda _, __: fill(depth - 1, function), [0, 0])


def give(value: Any) -> Any:
    """From inside a greenlet to whoever made it."""
    return greenlet.getcurrent().parent.switch(value)


def numbers(count: int, depth: int) -> list[Any]:
    """A greenlet's function: gives the numbers up to ``count``, and returns what it was given for them."""
    kept = [object() for _ in range(20)]
    answers = [fill(depth, functools.partial(give, number)) for number in range(count)]
    assert len(kept) == 20
    return answers


def consume(count: int, depth: int, pause: Callable[[], object]) -> list[Any]:
    """Run ``numbers`` in a greenlet, with a pause outside it after each."""
    inner = greenlet.greenlet(numbers)
    found = []
    value = inner.switch(count, depth)
    while not inner.dead:
        found.append(value)
        pause()
        value = fill(depth % 3, functools.partial(inner.switch, -found[-1]))
    assert value == [-number for number in range(count)]
    return found


# ---------------------------------------------------------------------------------------- what is allowed


def test_greenlets_that_live_between_two_waits(switch: str) -> None:
    def fiber(depth: int) -> bool:
        for _ in range(20):
            assert consume(5, depth, int) == list(range(5))
            swapco.sleep(0)
        return True

    def main() -> None:
        assert all(swapco.gather(*[functools.partial(fiber, depth) for depth in range(10)]))

    swapco.run(main, switch=switch)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_greenlets_that_are_suspended_while_their_fiber_waits(count: int, switch: str) -> None:
    def fiber(number: int) -> list[int]:
        pauses: list[Callable[[], object]] = [
            lambda: swapco.sleep(0),
            lambda: fill(number % 7, lambda: swapco.sleep(0)),
            lambda: swapco.sleep(0.0001),
            lambda: swapco.await_(asyncio.sleep(0)),
            lambda: swapco.spawn(int).join(),
        ]
        choose = random.Random(number)
        return consume(15, number % 11, lambda: choose.choice(pauses)())

    def main() -> None:
        found = swapco.gather(*[functools.partial(fiber, number) for number in range(count)])
        assert found == [list(range(15))] * count

    swapco.run(main, switch=switch)


def test_several_suspended_greenlets_of_one_fiber(switch: str) -> None:
    def fiber(number: int) -> list[list[int]]:
        inner = [greenlet.greenlet(numbers) for _ in range(5)]
        values = [one.switch(8, depth) for depth, one in enumerate(inner)]
        found: list[list[int]] = [[] for _ in inner]
        order = random.Random(number)
        while not all(one.dead for one in inner):
            which = order.choice([n for n, one in enumerate(inner) if not one.dead])
            found[which].append(values[which])
            swapco.sleep(0)
            values[which] = inner[which].switch(None)
        return found

    def main() -> None:
        every = swapco.gather(*[functools.partial(fiber, number) for number in range(10)])
        assert every == [[list(range(8))] * 5] * 10

    swapco.run(main, switch=switch)


def test_greenlets_in_greenlets(switch: str) -> None:
    def outer() -> list[int]:
        return consume(4, 3, lambda: give("outer"))

    def fiber() -> None:
        inner = greenlet.greenlet(outer)
        value = inner.switch()
        while not inner.dead:
            assert value == "outer"
            swapco.sleep(0)
            value = inner.switch()
        assert value == [0, 1, 2, 3]

    swapco.run(lambda: swapco.gather(*[fiber] * 10), switch=switch)


def test_exceptions_leave_a_greenlet_for_its_fiber(switch: str) -> None:
    def fails() -> None:
        give(1)
        raise KeyError("inside")

    def fiber() -> None:
        inner = greenlet.greenlet(fails)
        assert inner.switch() == 1
        swapco.sleep(0)
        with pytest.raises(KeyError, match="inside"):
            inner.switch()
        other = greenlet.greenlet(fails)
        other.switch()
        swapco.sleep(0)
        with pytest.raises(ValueError, match="thrown"):
            other.throw(ValueError("thrown"))
        swapco.sleep(0)

    swapco.run(lambda: swapco.gather(*[fiber] * 20), switch=switch)


def test_a_greenlet_is_dropped_by_the_fiber_that_made_it(switch: str) -> None:
    ended = []

    def never_finished() -> None:
        try:
            fill(5, lambda: give(1))
        finally:
            ended.append(1)

    def fiber() -> None:
        inner = greenlet.greenlet(never_finished)
        inner.switch()
        swapco.sleep(0)
        del inner

    swapco.run(lambda: swapco.gather(*[fiber] * 20), switch=switch)
    assert len(ended) == 20


def test_a_fiber_that_is_cancelled_finishes_its_greenlet(switch: str) -> None:
    ended = []

    def never_finished() -> None:
        try:
            give(1)
        except greenlet.GreenletExit:
            ended.append(1)

    def fiber() -> None:
        inner = greenlet.greenlet(never_finished)
        inner.switch()
        try:
            swapco.block()
        finally:
            inner.throw()

    def main() -> None:
        fibers = [swapco.spawn(fiber) for _ in range(20)]
        swapco.sleep(0)
        for one in fibers:
            one.cancel()
        swapco.wait(fibers)

    swapco.run(main, switch=switch)
    assert len(ended) == 20


@pytest.mark.parametrize("end", ["block", "lambda: {}[1]"])
def test_a_fiber_that_ends_by_an_exception_with_a_suspended_greenlet(end: str) -> None:
    """The exception's traceback refers to the frame that refers to the greenlet: somebody else collects it.

    That takes greenlets under the fibers (docs/switch.md).
    """
    result = run_program(
        f"""
import greenlet
from swapco import *

def never_finished():
    greenlet.getcurrent().parent.switch(1)

def fiber():
    inner = greenlet.greenlet(never_finished)
    inner.switch()
    ({end})()

def main():
    fibers = [spawn(fiber) for _ in range(20)]
    sleep(0)
    for one in fibers:
        one.cancel()
    wait(fibers)
    assert all(one.cancelled() or one.exception() for one in fibers)
    del one
    fibers.clear()
    sleep(0.001)
    print("alive")

run(main, switch="greenlet")
"""
    )
    assert (result.returncode, result.stdout) == (0, "alive\n"), result.stderr


# -------------------------------------------------------------------------------------- what is forbidden


def read_a_socket() -> object:
    left, right = swapco_socket.socketpair()
    with left, right:
        left.settimeout(0.001)
        return left.recv(1)


WAITS: dict[str, Callable[[], object]] = {
    "sleep": lambda: swapco.sleep(0.001),
    "sleep(0)": lambda: swapco.sleep(0),
    "block": lambda: swapco.block(timeout=0.001),
    "switch_to": lambda: swapco.switch_to(swapco.spawn(int), timeout=0.001),
    "lock": lambda: [lock := swapco.Lock(), lock.acquire(), lock.acquire(timeout=0.001)],
    "event": lambda: swapco.Event().wait(timeout=0.001),
    "queue": lambda: swapco.Queue().get(timeout=0.001),
    "socket": read_a_socket,
    "await_ of a coroutine": lambda: swapco.await_(asyncio.sleep(0.001)),
    "await_ of a future": lambda: swapco.await_(asyncio.get_running_loop().run_in_executor(None, int)),
    "join": lambda: swapco.spawn(int).join(),
    "gather": lambda: swapco.gather(int, int),
    "wait": lambda: swapco.wait([swapco.spawn(int)]),
}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("depth", [0, 5])
@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_inside_a_greenlet_is_refused_and_both_go_on(wait: str, depth: int, fibers: Any) -> None:
    def inside() -> str:
        for _ in range(3):
            with pytest.raises(RuntimeError, match=r'inside a greenlet.*switch="greenlet".*SWAPCO_SWITCH=greenlet'):
                fill(depth, WAITS[wait])
            give("refused")
        return "the greenlet goes on"

    def fiber() -> None:
        inner = greenlet.greenlet(inside)
        for _ in range(3):
            assert inner.switch() == "refused"
            swapco.sleep(0)
            swapco.await_(asyncio.sleep(0.002))
        assert inner.switch() == "the greenlet goes on"
        for _ in range(2):
            try:
                WAITS[wait]()
            except TimeoutError:
                pass

    def main() -> None:
        swapco.gather(fiber, fiber)
        assert swapco.all_fibers() == {swapco.current_fiber()}

    swapco.run(main, switch="native")


@pytest.mark.parametrize("wait", WAITS)
def test_greenlets_carry_fibers_that_wait_inside_greenlets(wait: str) -> None:
    def inside() -> str:
        for _ in range(3):
            try:
                WAITS[wait]()
            except TimeoutError:
                pass
        return "waited"

    def fiber() -> None:
        assert greenlet.greenlet(inside).switch() == "waited"

    swapco.run(lambda: swapco.gather(fiber, fiber), switch="greenlet")


def test_a_token_is_taken_inside_a_greenlet_without_a_wait(switch: str) -> None:
    """What does not have to wait is not refused."""

    def inside() -> list[object]:
        swapco.resume(swapco.current_fiber(), "token")
        lock = swapco.Lock()
        lock.acquire()
        queue = swapco.Queue[int]()
        queue.put(1)
        done = swapco.spawn(int)
        give(1)
        return [swapco.block(), lock.locked(), queue.get(), done.join()]

    def fiber() -> None:
        inner = greenlet.greenlet(inside)
        inner.switch()
        swapco.gather(int)
        assert inner.switch() == ["token", True, 1, 0]

    swapco.run(fiber, switch=switch)


# --------------------------------------------------------------------------------- a loop inside a greenlet


def backend_name() -> str:
    return str(asyncio.get_running_loop()._backend.name)  # type: ignore[attr-defined]


def everyday_work() -> str:
    """A little of everything, also inside greenlets; returns the backend's name."""
    assert swapco.gather(*[functools.partial(swapco.sleep, 0.001, n) for n in range(20)]) == list(range(20))
    assert swapco.await_(asyncio.sleep(0.001, "slept")) == "slept"
    return backend_name()


def test_run_inside_a_greenlet_lets_greenlets_carry_the_fibers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWAPCO_SWITCH", raising=False)
    assert swapco.run(everyday_work) == "native"
    assert greenlet.greenlet(swapco.run).switch(everyday_work) == "greenlet"
    assert swapco.run(everyday_work) == "native"


def test_fibers_of_such_a_loop_wait_inside_greenlets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWAPCO_SWITCH", raising=False)

    def main() -> None:
        swapco.gather(*[lambda: greenlet.greenlet(everyday_work).switch()] * 5)

    greenlet.greenlet(swapco.run).switch(main)


@pytest.mark.parametrize("in_the_environment", [True, False])
def test_run_inside_a_greenlet_refuses_native_stacks_that_were_asked_for(
    in_the_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inside() -> str:
        with pytest.raises(RuntimeError, match="native"):
            if in_the_environment:
                swapco.run(everyday_work)
            else:
                swapco.run(everyday_work, switch="native")
        return swapco.run(everyday_work, switch="greenlet")

    monkeypatch.setenv("SWAPCO_SWITCH", "native" if in_the_environment else "greenlet")
    assert greenlet.greenlet(inside).switch() == "greenlet"
    assert swapco.run(everyday_work, switch="native") == "native"


def test_a_loop_with_live_native_fibers_does_not_run_inside_a_greenlet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWAPCO_SWITCH", raising=False)
    with swapco.Runner() as runner:
        event = runner.run(swapco.Event)
        fiber = runner.run(lambda: swapco.spawn(event.wait))
        runner.run(lambda: swapco.sleep(0))
        inside = greenlet.greenlet(lambda: runner.run(lambda: swapco.sleep(0)))
        with pytest.raises(RuntimeError, match="greenlet"):
            inside.switch()
        assert runner.run(everyday_work) == "native"
        runner.run(event.set)
        runner.run(fiber.join)


def test_an_idle_native_loop_moves_into_a_greenlet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWAPCO_SWITCH", raising=False)
    with swapco.Runner() as runner:
        assert runner.run(everyday_work) == "native"
        assert greenlet.greenlet(runner.run).switch(everyday_work) == "greenlet"
        runner.run(everyday_work)


# ------------------------------------------------------------------------------------------- a real program


def exercise_database(path: Path) -> None:
    """20 fibers and 20 asyncio tasks use one engine of SQLAlchemy, whose every call runs in a greenlet."""
    engine = sqlalchemy_asyncio.create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 60})
    table = sqlalchemy.Table(
        "things",
        sqlalchemy.MetaData(),
        sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
        sqlalchemy.Column("owner", sqlalchemy.Integer),
        sqlalchemy.Column("name", sqlalchemy.String),
    )
    session_of = sqlalchemy_asyncio.async_sessionmaker(engine)
    writing = asyncio.Lock()

    async def create() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(table.metadata.create_all)

    async def insert(owner: int, name: str, fail: bool = False) -> None:
        async with writing, session_of() as session, session.begin():
            await session.execute(table.insert().values(owner=owner, name=name))
            found = await session.scalars(sqlalchemy.select(table.c.name).where(table.c.owner == owner))
            assert name in found.all()
            if fail:
                raise KeyError(name)

    async def names(owner: int) -> list[str]:
        async with engine.connect() as connection:
            query = sqlalchemy.select(table.c.name).where(table.c.owner == owner).order_by(table.c.id)
            return list((await connection.execute(query)).scalars())

    async def use(owner: int) -> None:
        for number in range(5):
            await insert(owner, f"committed {number}")
            with pytest.raises(KeyError):
                await insert(owner, f"rolled back {number}", fail=True)
            task = asyncio.ensure_future(insert(owner, f"cancelled {number}", fail=True))
            await asyncio.sleep(0.001 * (owner % 3))
            task.cancel()
            with pytest.raises((asyncio.CancelledError, KeyError)):
                await task
            assert await names(owner) == [f"committed {n}" for n in range(number + 1)]

    def fiber(owner: int) -> None:
        for number in range(5):
            swapco.await_(insert(owner, f"committed {number}"))
            with pytest.raises(KeyError):
                swapco.await_(insert(owner, f"rolled back {number}", fail=True))
            other = swapco.spawn(swapco.await_, insert(owner, f"cancelled {number}", fail=True))
            swapco.sleep(0.001 * (owner % 3))
            other.cancel()
            with pytest.raises((asyncio.CancelledError, KeyError)):
                other.join()
            assert swapco.await_(names(owner)) == [f"committed {n}" for n in range(number + 1)]

    def main() -> None:
        swapco.await_(create())
        tasks = [asyncio.ensure_future(use(100 + owner)) for owner in range(20)]
        swapco.gather(*[functools.partial(fiber, owner) for owner in range(20)])
        swapco.await_(asyncio.gather(*tasks))
        for owner in (*range(20), *range(100, 120)):
            assert swapco.await_(names(owner)) == [f"committed {n}" for n in range(5)]
        swapco.await_(engine.dispose())

    swapco.run(main)


def test_a_program_that_uses_sqlalchemy(tmp_path: Path, switch: str) -> None:
    exercise_database(tmp_path / "things.db")


def test_greenlets_of_other_threads_do_not_matter(switch: str) -> None:
    result = run_program(
        """
import greenlet, threading, swapco

def inside():
    while True:
        greenlet.getcurrent().parent.switch(1)

def thread():
    inner = greenlet.greenlet(inside)
    for _ in range(10_000):
        inner.switch()
        swapped.set()
    inner.throw(greenlet.GreenletExit)

swapped = threading.Event()
threads = [threading.Thread(target=thread) for _ in range(3)]
for one in threads:
    one.start()
assert swapped.wait(20)
print(swapco.run(lambda: swapco.gather(*[lambda: [swapco.sleep(0) for _ in range(1000)][0]] * 5)))
for one in threads:
    one.join()
"""
    )
    assert (result.returncode, result.stdout) == (0, "[None, None, None, None, None]\n"), result.stderr
