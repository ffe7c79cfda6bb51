"""The parking lot: first in first out, handing over, and what timeouts and cancellations leave behind."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from helpers import SOON_S, in_fiber, settle
from hypothesis import given, settings
from hypothesis import strategies as st

import swapco
from swapco.lowlevel import ManualClock, ParkingLot

pytestmark = pytest.mark.usefixtures("fibers")


def park_all(lot: ParkingLot, count: int, **how: Any) -> list[swapco.Fiber]:
    fibers = [swapco.spawn(lambda: lot.park(**how), name=str(number)) for number in range(count)]
    settle()
    return fibers


@in_fiber
def test_the_first_that_parked_is_the_first_to_be_woken() -> None:
    """One at a time, each with its value."""
    lot = ParkingLot()
    fibers = park_all(lot, 5)
    assert len(lot) == 5
    assert lot.fibers() == fibers
    for number, fiber in enumerate(fibers):
        assert lot.unpark(number)
        assert lot.fibers() == fibers[number + 1 :]
        assert fiber.join() == number
    assert lot.unpark("nobody") is False


@in_fiber
def test_unpark_all_wakes_everyone_in_order() -> None:
    """And says how many they were."""
    lot = ParkingLot()
    ran: list[object] = []
    fibers = [swapco.spawn(lambda n: ran.append((n, lot.park())), number) for number in range(5)]
    settle()
    assert lot.unpark_all("value") == 5
    assert len(lot) == 0
    assert ran == []
    swapco.wait(fibers)
    assert ran == [(number, "value") for number in range(5)]
    assert lot.unpark_all() == 0


@in_fiber
def test_an_empty_lot_remembers_nothing() -> None:
    """An unpark that finds nobody is lost: a lot has no tokens."""
    lot = ParkingLot()
    assert not lot.unpark("lost")
    with pytest.raises(TimeoutError):
        lot.park(0.001)
    assert bool(lot)
    assert repr(lot) == "<ParkingLot, 0 parked>"


def test_who_gives_up_is_taken_out_of_the_line() -> None:
    """By a timeout or by a cancellation; the others keep their order."""
    clock = ManualClock()

    def main() -> None:
        lot = ParkingLot()
        fibers = park_all(lot, 2) + park_all(lot, 1, timeout=1) + park_all(lot, 2)
        fibers[1].cancel()
        assert lot.fibers() == [fiber for fiber in fibers if fiber is not fibers[1]]
        clock.advance(1)
        settle()
        swapco.wait([fibers[1], fibers[2]])
        rest = [fibers[0], fibers[3], fibers[4]]
        assert lot.fibers() == rest
        assert len(lot) == 3
        assert lot.unpark_all("value") == 3
        assert [fiber.join() for fiber in rest] == ["value"] * 3
        with pytest.raises(TimeoutError, match="ParkingLot"):
            fibers[2].join()
        with pytest.raises(swapco.CancelledError):
            fibers[1].join()

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock))


@in_fiber
def test_a_timeout_names_what_was_waited_for() -> None:
    """In the message, as in ``wait_reason``."""
    lot = ParkingLot()
    with pytest.raises(TimeoutError, match="timed out waiting for <ParkingLot"):
        lot.park(0)


STEPS = st.lists(
    st.tuples(st.sampled_from(("park", "unpark", "unpark all", "cancel", "yield")), st.integers(0, 20)), max_size=40
)


@given(STEPS)
@settings(max_examples=100, deadline=None)
def test_against_a_list(steps: list[tuple[str, int]]) -> None:
    """No value is lost and none is given twice, whoever gives up in between."""

    def main() -> None:
        lot = ParkingLot()
        line: list[swapco.Fiber] = []
        expected: dict[swapco.Fiber, object] = {}
        for number, (step, which) in enumerate(steps):
            if step == "park":
                fiber = swapco.spawn(lot.park)
                settle(1)
                line.append(fiber)
            elif step == "unpark":
                assert lot.unpark(number) is bool(line)
                if line:
                    expected[line.pop(0)] = number
            elif step == "unpark all":
                assert lot.unpark_all(number) == len(line)
                expected.update(dict.fromkeys(line, number))
                line.clear()
            elif step == "cancel" and line:
                fiber = line.pop(which % len(line))
                fiber.cancel()
                expected[fiber] = "cancelled"
            elif step == "cancel" and expected:
                # too late: it was woken, or has ended
                list(expected)[which % len(expected)].cancel()
            else:
                swapco.sleep(0)
            assert lot.fibers() == line
            assert len(lot) == len(line)
        for fiber in line:
            fiber.cancel()
            expected[fiber] = "cancelled"
        for fiber, value in expected.items():
            if value == "cancelled":
                with pytest.raises(swapco.CancelledError):
                    fiber.join(SOON_S)
            else:
                assert fiber.join(SOON_S) == value

    swapco.run(main)


@in_fiber
def test_a_lot_may_go_away_while_somebody_waits_in_it() -> None:
    """The waiter's frame holds it."""
    reference = None

    class Weak:
        def __init__(self) -> None:
            self.lot = ParkingLot()

        def park(self) -> object:
            return self.lot.park()

    owner = Weak()
    reference = weakref.ref(owner)
    fiber = swapco.spawn(owner.park)
    settle()
    del owner
    gc.collect()
    assert reference() is not None
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    del fiber
    gc.collect()
    assert reference() is None


def test_outside_a_fiber() -> None:
    """park needs one; unpark of an empty lot does not."""
    lot = ParkingLot()
    with pytest.raises(swapco.NotInFiber, match=r"ParkingLot\.park"):
        lot.park()
    assert lot.unpark() is False
    assert lot.unpark_all() == 0
