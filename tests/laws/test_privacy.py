"""Law 8: a fiber that waits inside a primitive is never disturbed by a ``resume`` from outside.

The resume leaves a token.  The primitive goes on waiting, for the same thing; when that comes, the fiber gets it, and
its next bare block returns the token at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest
from actors import ACTORS, Crew
from helpers import SOON_S, settle
from hypothesis import given
from hypothesis import strategies as st
from programs import law

import swapco
from swapco import socket as cooperative
from swapco.lowlevel import ParkingLot, Slot, wait_readable

pytestmark = pytest.mark.usefixtures("fibers")

#: A wait: a generator that yields what blocks, is sent on when it shall end, and returns what should come out of it.
Scene = Generator[Callable[[], Any], None, Any]


def in_lock() -> Scene:
    lock = swapco.Lock()
    lock.acquire()

    def wait() -> str:
        with lock:
            return "acquired"

    yield wait
    lock.release()
    return "acquired"


def in_semaphore() -> Scene:
    semaphore = swapco.Semaphore(0)
    yield semaphore.acquire
    semaphore.release()
    return True


def in_event() -> Scene:
    event = swapco.Event()
    yield event.wait
    event.set()
    return True


def in_condition() -> Scene:
    condition = swapco.Condition()

    def wait() -> bool:
        with condition:
            return bool(condition.wait())

    yield wait
    with condition:
        condition.notify()
    return True


def in_barrier() -> Scene:
    barrier = swapco.Barrier(2)
    yield barrier.wait
    barrier.wait()
    return 0


def in_get() -> Scene:
    queue: Any = swapco.Queue()
    yield queue.get
    queue.put("item")
    return "item"


def in_put() -> Scene:
    queue: Any = swapco.Queue(1)
    queue.put("first")
    yield lambda: queue.put("second")
    assert queue.get() == "first"
    return None


def in_queue_join() -> Scene:
    queue: Any = swapco.Queue()
    queue.put("item")
    yield queue.join
    queue.get()
    queue.task_done()
    return None


def in_sleep() -> Scene:
    yield lambda: swapco.sleep(0.02, "slept")
    return "slept"


def in_join() -> Scene:
    target = swapco.spawn(swapco.block)
    yield target.join
    while target.state == "NEW":
        swapco.sleep(0)
    swapco.resume(target, "result")
    return "result"


def in_park() -> Scene:
    lot = ParkingLot()
    yield lot.park
    lot.unpark("item")
    return "item"


def in_await_future() -> Scene:
    future = asyncio.get_running_loop().create_future()
    yield lambda: swapco.await_(future)
    future.set_result("set")
    return "set"


def in_coroutine() -> Scene:
    future = asyncio.get_running_loop().create_future()

    async def wait() -> Any:
        return await future

    yield lambda: swapco.await_(wait())
    future.set_result("set")
    return "set"


def in_recv() -> Scene:
    near, far = cooperative.socketpair()
    with near, far:
        yield lambda: near.recv(10)
        far.send(b"data")
        yield lambda: None
    return b"data"


def in_wait_readable() -> Scene:
    near, far = cooperative.socketpair()
    with near, far:
        yield lambda: wait_readable(near)
        far.send(b"data")
        yield lambda: None
    return None


def in_gather() -> Scene:
    targets = [swapco.spawn(swapco.block) for _ in range(2)]
    yield lambda: swapco.gather(*targets)
    while any(target.state == "NEW" for target in targets):
        swapco.sleep(0)
    for number, target in enumerate(targets):
        swapco.resume(target, number)
    return [0, 1]


SCENES = [
    in_await_future, in_barrier, in_condition, in_coroutine, in_event, in_gather, in_get, in_join, in_lock, in_park,
    in_put, in_queue_join, in_recv, in_semaphore, in_sleep, in_wait_readable,
]  # fmt: skip


def resume_in_vain(scene: Callable[[], Scene], actors: list[str], threaded: bool = False) -> None:
    """A fiber waits in a scene, some resume it, the scene goes on: it gets one token, and what the scene gives."""
    told: list[bool] = []

    def target(wait: Callable[[], Any]) -> tuple[Any, Any]:
        value = wait()
        if isinstance(value, list):
            value = list(value)
        return value, swapco.block(SOON_S)

    def main() -> None:
        going = scene()
        fiber = swapco.spawn(target, next(going), thread=threaded)
        settle()
        assert fiber.state == "BLOCKED"
        reason = fiber.wait_reason
        with Crew() as crew:
            for number, actor in enumerate(actors):
                crew.act(actor, lambda number=number: told.append(swapco.resume(fiber, number)))
                crew.finish()
                if scene is not in_sleep:
                    assert fiber.state == "BLOCKED"
                    assert fiber.wait_reason == reason
        expected = None
        try:
            while True:
                next(going)
                # the descriptor must stay open until the fiber has read
                while fiber.state == "BLOCKED" and fiber.wait_reason == reason:
                    swapco.sleep(0.001)
        except StopIteration as end:
            expected = end.value
        value, token = fiber.join(SOON_S)
        assert value == expected
        # the first one, whichever actor was the first
        assert told.count(True) == 1
        assert token == told.index(True)

    swapco.run(main, slot=Slot(tick=1.0))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
@given(st.lists(st.sampled_from(ACTORS), min_size=1, max_size=4))
@law(10)
def test_a_resume_does_not_disturb_a_wait_inside_a_primitive(scene: Callable[[], Scene], actors: list[str]) -> None:
    """Law 8: whoever resumes, how often ever: it leaves one token and changes nothing else."""
    resume_in_vain(scene, actors)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_handoff_does_not_disturb_it_either(scene: Callable[[], Scene]) -> None:
    """Laws 8 and 3: switch_to a fiber inside a primitive leaves the token, and somebody else runs."""

    def main() -> None:
        me = swapco.current_fiber()
        going = scene()
        fiber = swapco.spawn(lambda wait: (wait(), swapco.block(SOON_S)), next(going))
        settle()
        reason = fiber.wait_reason
        swapco.spawn(swapco.resume, me, "back")
        assert swapco.switch_to(fiber, "token", SOON_S) == "back"
        if scene is not in_sleep:
            assert fiber.wait_reason == reason
        try:
            while True:
                next(going)
                while fiber.state == "BLOCKED" and fiber.wait_reason == reason:
                    swapco.sleep(0.001)
        except StopIteration as end:
            expected = end.value
        value, token = fiber.join(SOON_S)
        assert (list(value) if isinstance(value, list) else value, token) == (expected, "token")

    swapco.run(main)
