"""Law 4: resume, wake, timeout and cancellation race: exactly one wins the wait; the others learn that they lost."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from actors import Crew, quick_switches
from helpers import SOON_S, settle
from hypothesis import example, given
from hypothesis import strategies as st
from programs import Foreigner, law

import swapco
from swapco._core.clock import ManualClock
from swapco.lowlevel import ParkingLot, Slot

pytestmark = pytest.mark.usefixtures("fibers")

WAYS = ("resume", "resume from outside", "wake", "cancel")


def outcomes(kind: str, ways: tuple[str, ...], timeout: str) -> tuple[list[object], list[object]]:
    """What should happen: to the wait and to the next one, and what each of the others is told."""
    winner = "timeout" if timeout == "first" else None
    value: object = None
    token: object = None
    pending = False
    told: list[object] = []
    for number, way in enumerate(ways):
        if way.startswith("resume"):
            if kind == "bare" and winner is None:
                winner, value = "resume", number
                told.append(True)
            elif winner == "resume" or token is not None:
                told.append(False)
            else:
                token = number
                told.append(True)
        elif way == "wake":
            told.append(kind == "primitive" and winner is None)
            if told[-1]:
                winner, value = "wake", number
        else:
            told.append(True)
            if winner is None:
                winner = "cancel"
            elif winner != "cancel":
                pending = True
    if winner is None:
        winner = "timeout" if timeout == "last" else "nobody"
    first: object = {"timeout": "timed out", "cancel": "cancelled", "nobody": "timed out"}.get(winner, value)
    if token is not None:
        second: object = token
        third: object = "cancelled" if pending else "timed out"
    else:
        second = "cancelled" if pending else "timed out"
        third = "timed out"
    return [first, second, third], told


def race(
    kind: str, ways: tuple[str, ...], timeout: str, foreigner: Foreigner, threaded: bool = False
) -> tuple[list[object], list[object]]:
    """What happens."""
    clock = ManualClock(1.0)
    lot = ParkingLot()
    got: list[object] = []
    told: list[object] = []

    def once(wait: object) -> None:
        try:
            got.append(wait())  # type: ignore[operator]
        except swapco.CancelledError:
            got.append("cancelled")
        except TimeoutError:
            got.append("timed out")

    def target() -> None:
        once(lambda: swapco.block(1) if kind == "bare" else lot.park(1))
        once(lambda: swapco.block(0))
        once(lambda: swapco.block(0))

    def main() -> None:
        fiber = swapco.spawn(target, thread=threaded)
        swapco.sleep(0)
        assert fiber.state == "BLOCKED"
        loop = asyncio.get_running_loop()

        def act() -> None:
            for number, way in enumerate(ways):
                if way == "resume":
                    told.append(swapco.resume(fiber, number))
                elif way == "resume from outside":
                    told.append(foreigner.do(lambda number=number: swapco.resume(fiber, number)))
                elif way == "wake":
                    told.append(lot.unpark(number))
                else:
                    told.append(fiber.cancel())

        if timeout == "first":
            # the timers fire at the beginning of the next drain, in which this fiber is the first to run
            clock.advance(1)
            loop.call_soon(int)
            swapco.sleep(0)
            assert fiber.state == "READY"
            act()
        elif timeout == "last":
            # in the hub: then comes the drain, in which the timer is due
            clock.advance(1)
            loop.call_soon(act)
            swapco.sleep(0)
            settle()
        else:
            act()
        if not fiber.done():
            settle()
        if not fiber.done():
            clock.advance(1)
            settle()
        fiber.join()

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock, slot=Slot(tick=1.0)))
    return got, told


@pytest.mark.parametrize("kind", ["bare", "primitive"])
@pytest.mark.parametrize("timeout", ["first", "last", "never"])
def test_in_every_order(kind: str, timeout: str) -> None:
    """Law 4, exhaustively: up to three of resume, wake and cancellation, in every order, with the timeout
    before or after all of them; some from another thread."""
    with Foreigner() as foreigner:
        for count in range(4):
            for ways in itertools.product(WAYS, repeat=count):
                assert race(kind, ways, timeout, foreigner) == outcomes(kind, ways, timeout), ways


@example(resumes=3, cancels=3, limits=[0.0005], seed=0)
@given(
    st.integers(0, 40),
    st.integers(0, 10),
    st.lists(st.sampled_from((None, 0.0, 0.0002, 0.001, 0.003)), min_size=1, max_size=5),
    st.integers(0, 2**32),
)
@law(60)
def test_at_full_speed(resumes: int, cancels: int, limits: list[float | None], seed: int) -> None:
    """Law 4, with real threads and real time: values arrive once, and a cancellation is delivered at least once,
    and no more often than it was requested."""
    dice = random.Random(seed)
    accepted: list[int] = []
    got: list[object] = []
    delivered = 0
    stop = object()
    plans: list[list[str]] = [[], [], []]
    for way in ["resume"] * resumes + ["cancel"] * cancels:
        dice.choice(plans).append(way)
    for plan in plans:
        dice.shuffle(plan)

    def act(index: int, fiber: swapco.Fiber) -> None:
        for number, way in enumerate(plans[index]):
            if way == "cancel":
                assert fiber.cancel()
            elif swapco.resume(fiber, (index, number)):
                accepted.append((index, number))  # type: ignore[arg-type]

    def target() -> None:
        nonlocal delivered
        rounds = 0
        while True:
            try:
                value = swapco.block(limits[rounds % len(limits)])
                if value is stop:
                    break
                got.append(value)
            except TimeoutError:
                pass
            except swapco.CancelledError:
                delivered += 1
            rounds += 1
            if rounds % 3 == 0:
                try:
                    swapco.sleep(0)
                except swapco.CancelledError:
                    delivered += 1
        try:
            # nothing may be left pending but a cancellation that came at the very end
            swapco.sleep(0)
        except swapco.CancelledError:
            delivered += 1

    def main() -> None:
        fiber = swapco.spawn(target)
        # a NEW one that is cancelled would never run
        swapco.sleep(0)
        with Crew() as crew:
            for index, actor in enumerate(("thread", "thread", "fiber")):
                crew.act(actor, lambda index=index: act(index, fiber))
        while not swapco.resume(fiber, stop):
            swapco.sleep(0)
        fiber.join(SOON_S)
        assert fiber.cancelling() == cancels

    with quick_switches():
        swapco.run(main)
    assert sorted(got) == sorted(accepted)  # type: ignore[type-var]
    assert delivered <= cancels
    assert (delivered > 0) == (cancels > 0)
