"""``sleep(0)`` among 10 flows: the cost of letting the others go first.

Also 50 Python frames deep: greenlet walks frames at each switch, a native switch does not.

Unit: CPU time of one ``sleep(0)``, that is one turn of one flow, in ns.
"""

from __future__ import annotations

import asyncio

from benchmarks.clocks import Laps

FLOWS = 10
SLEEPS = 10_000
"""Of each flow in a lap."""
DEPTH = 50
"""Python frames of a deep flow."""


def on_swapco(laps: Laps, switch: str | None = None, depth: int = 0) -> None:
    from swapco import run, sleep, spawn

    sleeps = laps.scaled(SLEEPS)

    def flow(frames: int) -> None:
        if frames:
            flow(frames - 1)
            return
        for _ in range(sleeps):
            sleep(0)

    def main() -> None:
        for lap in laps:
            with lap(FLOWS * sleeps):
                fibers = [spawn(flow, depth) for _ in range(FLOWS)]
                for fiber in fibers:
                    fiber.join()

    run(main, switch=switch)


def on_swapco_deep(laps: Laps) -> None:
    on_swapco(laps, depth=DEPTH)


def on_swapco_greenlets(laps: Laps) -> None:
    on_swapco(laps, switch="greenlet")


def on_swapco_greenlets_deep(laps: Laps) -> None:
    on_swapco(laps, switch="greenlet", depth=DEPTH)


def on_runloom(laps: Laps) -> None:
    import runloom

    sleeps = laps.scaled(SLEEPS)

    def flow() -> None:
        yield_ = runloom.yield_now
        for _ in range(sleeps):
            yield_()

    for lap in laps:
        for _ in range(FLOWS):
            runloom.fiber(flow)
        with lap(FLOWS * sleeps):
            runloom.run(1)


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
