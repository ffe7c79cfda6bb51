"""What the watchdog costs a program that is busy: ``sleep(0)`` among 10 flows, with it and without it.

It looks at two counters, without the GIL, ten times a second: too little to be told from noise. Here it looks every
millisecond, a hundred times as often, and the CPU time of its thread counts. So the hundredth part of what the row
shows above 1 is what it costs by default. Unit: CPU time of one ``sleep(0)``, in ns.
"""

from __future__ import annotations

from benchmarks.clocks import Laps
from benchmarks.work.sleep_zero import FLOWS, SLEEPS

INTERVAL_S = 0.001
LONGER = 10
"""Laps of half a second, so that the watchdog looks hundreds of times in each."""


def on(laps: Laps) -> None:
    _run(laps, INTERVAL_S)


def off(laps: Laps) -> None:
    _run(laps, False)


def _run(laps: Laps, watchdog: bool | float) -> None:
    from swapco import run, sleep, spawn

    sleeps = laps.scaled(LONGER * SLEEPS)

    def flow() -> None:
        for _ in range(sleeps):
            sleep(0)

    def main() -> None:
        for lap in laps:
            with lap(FLOWS * sleeps):
                fibers = [spawn(flow) for _ in range(FLOWS)]
                for fiber in fibers:
                    fiber.join()

    run(main, watchdog=watchdog)
