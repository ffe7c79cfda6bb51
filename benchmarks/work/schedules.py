"""Schedules of a program without a bug, one after the other: three flows with ten points each.

What a schedule costs says how many of them a unit test may explore. The program does nothing at its points, so this is
the tool itself: starting the flows, 30 decisions, and whatever a run needs to be fresh. Unit: CPU time of one schedule,
in ns. The tools' modes are those of ``testing_tools``; a mode that prunes schedules, as DPOR does, is not here, because
one schedule of it covers many.
"""

from __future__ import annotations

from functools import partial

from benchmarks import testing_tools as tools
from benchmarks.clocks import Laps
from benchmarks.testing_programs import Steps

SEED = 1


def schedules(laps: Laps, search: tools.Search, full_number: int) -> None:
    number = laps.scaled(full_number)
    for lap in laps:
        with lap(number):
            if search(Steps, SEED, number) is not None:
                raise RuntimeError("the tool reports a failure in a program that has none")


def on_swapco(laps: Laps) -> None:
    schedules(laps, tools.swapco, 4000)


def on_detangle(laps: Laps) -> None:
    schedules(laps, tools.detangle, 800)


def on_simloom(laps: Laps) -> None:
    schedules(laps, tools.simloom, 100)


def on_simloop(laps: Laps) -> None:
    schedules(laps, tools.simloop, 60)


def on_frontrun_tasks(laps: Laps) -> None:
    schedules(laps, tools.frontrun_tasks, 150)


def on_frontrun_threads(laps: Laps) -> None:
    schedules(laps, partial(tools.frontrun_threads, strategy="random"), 20)


def on_interleave_test(laps: Laps) -> None:
    schedules(laps, tools.interleave_test, 20)


def on_interleave_test_points(laps: Laps) -> None:
    schedules(laps, partial(tools.interleave_test, only_points=True), 150)


def on_ploom(laps: Laps) -> None:
    schedules(laps, tools.ploom, 30)
