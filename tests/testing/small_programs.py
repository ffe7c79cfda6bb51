"""Programs for the tests of searches: one with a bug, one without."""

from __future__ import annotations

import swapco
from swapco import testing


def lost_update(fibers: int = 2, points: int = 0) -> None:
    box = [0]

    def add() -> None:
        for _ in range(points):
            testing.schedule_point()
        value = box[0]
        testing.schedule_point()
        box[0] = value + 1

    swapco.wait([swapco.spawn(add, name=f"adder {i}") for i in range(fibers)])
    assert box == [fibers]


def correct(fibers: int = 2) -> None:
    box = [0]

    def add() -> None:
        testing.schedule_point()
        box[0] += 1

    swapco.wait([swapco.spawn(add, name=f"adder {i}") for i in range(fibers)])
    assert box == [fibers]


def lost_update_of_three(*, with_others: bool) -> None:
    """``with_others``: the program has grown by fibers, and decisions, at its start."""
    box = [0]

    def add() -> None:
        value = box[0]
        testing.schedule_point()
        box[0] = value + 1

    if with_others:
        swapco.wait([swapco.spawn(testing.schedule_point, name=f"new {i}") for i in range(3)])
    swapco.wait([swapco.spawn(add, name=f"adder {i}") for i in range(3)])
    assert box == [3]
