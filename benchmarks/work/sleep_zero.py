"""``sleep(0)`` among 10 flows: the cost of letting the others go first.

Unit: CPU time of one ``sleep(0)``, that is one turn of one flow, in ns.
"""

from __future__ import annotations

import asyncio

from benchmarks.clocks import Laps

FLOWS = 10
SLEEPS = 10_000
"""Of each flow in a lap."""


def on_swapco(laps: Laps) -> None:
    from swapco import run, sleep, spawn

    sleeps = laps.scaled(SLEEPS)

    def flow() -> None:
        for _ in range(sleeps):
            sleep(0)

    def main() -> None:
        for lap in laps:
            with lap(FLOWS * sleeps):
                fibers = [spawn(flow) for _ in range(FLOWS)]
                for fiber in fibers:
                    fiber.join()

    run(main)


def on_uvloop(laps: Laps) -> None:
    from asyncio import sleep

    import uvloop

    sleeps = laps.scaled(SLEEPS)

    async def flow() -> None:
        for _ in range(sleeps):
            await sleep(0)

    async def main() -> None:
        for lap in laps:
            with lap(FLOWS * sleeps):
                tasks = [asyncio.create_task(flow()) for _ in range(FLOWS)]
                for task in tasks:
                    await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def on_gevent(laps: Laps) -> None:
    from gevent import sleep, spawn

    sleeps = laps.scaled(SLEEPS)

    def flow() -> None:
        for _ in range(sleeps):
            sleep(0)

    for lap in laps:
        with lap(FLOWS * sleeps):
            greenlets = [spawn(flow) for _ in range(FLOWS)]
            for greenlet in greenlets:
                greenlet.join()
