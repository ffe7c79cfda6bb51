"""The history of ``to_thread``: callables that keep blocking are handed off at once, until they do not block any more.

It belongs to the code behind a callable, and is bounded.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import SOON_S, wait_until
from thread_support import statistics, until_blocked

import swapco
from swapco.lowlevel import Slot
from swapco.threads import forget_blockers, known_blockers

pytestmark = pytest.mark.usefixtures("fibers", "no_history")


@pytest.fixture
def no_history() -> Iterator[None]:
    forget_blockers()
    yield
    forget_blockers()


# --------------------------------------------------------------------------------------------- history


def blocks(fast: bool = False) -> None:
    """Blocks until that was noticed, however busy the machine is, and for longer than a tick."""
    if not fast:
        me = swapco.current_fiber()
        while me.state != "DETACHED":
            time.sleep(0.005)
        time.sleep(0.03)


def scores() -> dict[Any, int]:
    return dict(known_blockers())


def handed_off_at_once(call: Callable[[], Any]) -> bool:
    """Was it without the slot from the start?  Nobody had to take it away then."""
    before = statistics()
    swapco.to_thread(call)
    after = statistics()
    return bool(
        after["detaches"] > before["detaches"] and after["revoked_by_monitor"] == before["revoked_by_monitor"]
    )


def teach(call: Callable[[], Any], score: int) -> None:
    """Make calls that block until the score of what they call is this one, the only one there is."""
    for _ in range(50):
        assert not handed_off_at_once(call)
        # a machine that is busy may notice a call too late
        if list(scores().values()) == [score]:
            return
    raise AssertionError(f"{call} has never got the score {score}: {scores()}")


def with_tick(tick: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run a test as the main fiber of a loop with this tick; a call that takes longer counts as one that blocks."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            swapco.run(functools.partial(test, *args, **kwargs), slot=Slot(tick=tick))

        return run

    return decorate


@with_tick(0.02)
def test_who_has_blocked_twice_is_handed_off_at_once_and_forgets_it_when_it_does_not() -> None:
    assert known_blockers() == []
    assert not handed_off_at_once(blocks)
    assert scores() == {blocks.__code__: 1}
    assert not handed_off_at_once(blocks)
    assert scores() == {blocks.__code__: 2}
    for _ in range(4):
        assert handed_off_at_once(blocks)
    # it does not grow for ever
    assert scores() == {blocks.__code__: 4}
    for _ in range(200):
        # a call that a busy machine makes slow counts as one that blocks
        swapco.to_thread(blocks, fast=True)
        if blocks.__code__ not in scores():
            break
    assert known_blockers() == []
    assert not handed_off_at_once(blocks)


@with_tick(0.5)
def test_who_does_not_block_has_no_history() -> None:
    for _ in range(5):
        assert not handed_off_at_once(functools.partial(blocks, True))
    assert known_blockers() == []


class Client:
    def request(self) -> None:
        blocks()

    @classmethod
    def of_class(cls) -> None:
        blocks()

    @staticmethod
    def static() -> None:
        blocks()

    def __call__(self) -> None:
        blocks()


def wrapped(*ignored: Any) -> None:
    blocks()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: Client().request, lambda: Client().request),
        (lambda: Client().of_class, lambda: Client.of_class),
        (lambda: Client().static, lambda: Client.static),
        (Client, Client),
        (lambda: functools.partial(wrapped, 1), lambda: functools.partial(functools.partial(wrapped, 2), 3)),
        (lambda: functools.partial(Client().request), lambda: Client().request),
        (lambda: functools.partial(time.sleep, 0.1), lambda: functools.partial(time.sleep, 0.1)),
        (lambda: functools.partial(threading.Event().wait, 0.1), None),
        (lambda: functools.partial(locked().acquire, True, 0.1), None),
        (lambda: lambda: wrapped(1), None),
    ],
    ids=[
        "method",
        "classmethod",
        "static",
        "object",
        "partial",
        "partial method",
        "builtin",
        "method of another object",
        "builtin method of another object",
        "lambda",
    ],
)
@with_tick(0.02)
def test_the_history_belongs_to_the_code(first: Callable[[], Any], second: Callable[[], Any] | None) -> None:
    """Bound methods are made anew at each access, partials at each call: they count as what they wrap."""
    teach(first(), 1)
    teach((second or first)(), 2)
    assert handed_off_at_once(first())


def locked() -> Any:
    lock = threading.Lock()
    lock.acquire()
    return lock


@with_tick(0.02)
def test_other_code_has_another_history() -> None:
    for _ in range(2):
        swapco.to_thread(blocks)
    assert not handed_off_at_once(wrapped)
    assert not handed_off_at_once(Client().request)
    assert sorted(scores().values()) == [1, 1, 2]
    forget_blockers()
    assert known_blockers() == []
    assert not handed_off_at_once(blocks)


@with_tick(0.5)
def test_a_caller_that_left_has_learned_that_it_blocks() -> None:
    queue = swapco.Queue[int]()
    for n in range(2):
        caller = swapco.spawn(swapco.to_thread, queue.get)
        until_blocked(caller)
        wait_until(lambda: queue.statistics().getting == 1)
        caller.cancel()
        with pytest.raises(swapco.CancelledError):
            caller.join()
        assert list(scores().values()) == [n + 1]
        queue.put(1)
        wait_until(lambda: len(swapco.all_fibers()) == 1)


def test_the_history_is_bounded() -> None:
    def main() -> None:
        kinds = [type(f"Kind{n}", (), {"__call__": lambda self: time.sleep(0.001)}) for n in range(1100)]

        def calls(mine: list[type]) -> None:
            for kind in mine:
                # a machine that is busy may let one get away
                while kind not in scores():
                    swapco.to_thread(kind())
                assert len(known_blockers()) <= 1024

        swapco.wait(crew := [swapco.spawn(calls, kinds[n:1090:10]) for n in range(10)])
        for fiber in crew:
            fiber.result()
        known = known_blockers()
        assert len(known) == 1024
        calls(kinds[1090:])
        assert len(known_blockers()) == 1024
        # the oldest went
        assert known[10:] == known_blockers()[:-10]
        assert [code for code, _ in known_blockers()[-10:]] == kinds[1090:]

    swapco.run(main, slot=Slot(tick=0.0001))


@with_tick(0.02)
def test_one_that_is_handed_off_at_once_and_calls_swapco() -> None:
    def calls() -> str:
        blocks()
        swapco.sleep(0)
        return swapco.current_fiber().state

    for _ in range(4):
        assert swapco.to_thread(calls) == "RUNNING"
    assert scores()[calls.__code__] == 4


@with_tick(0.02)
def test_callers_of_known_blockers_that_are_cancelled_leave_at_once() -> None:
    gate = threading.Event()

    def waits(seconds: float) -> None:
        gate.wait(seconds)

    teach(functools.partial(waits, 0.1), 1)
    teach(functools.partial(waits, 0.1), 2)
    callers = [swapco.spawn(swapco.to_thread, waits, SOON_S) for _ in range(5)]
    until_blocked(*callers)
    for caller in callers:
        caller.cancel()
    swapco.wait(callers)
    assert all(caller.cancelled() for caller in callers)
    # the calls that have begun run on
    gate.set()
    wait_until(lambda: len(swapco.all_fibers()) == 1)
