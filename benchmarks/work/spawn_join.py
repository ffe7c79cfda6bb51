"""Starting a flow that does nothing, and waiting for its end, one at a time.

Unit: CPU time of one spawn and join, in ns.
"""

from __future__ import annotations

import asyncio

from benchmarks.clocks import Laps

SPAWNS = 20_000


def on_swapco(laps: Laps) -> None:
    from swapco import run, spawn

    count = laps.scaled(SPAWNS)

    def empty() -> None:
        pass

    def main() -> None:
        for lap in laps:
            with lap(count):
                for _ in range(count):
                    spawn(empty).join()

    run(main)


def on_uvloop(laps: Laps) -> None:
    import uvloop

    count = laps.scaled(SPAWNS)

    async def empty() -> None:
        pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for lap in laps:
            with lap(count):
                for _ in range(count):
                    await loop.create_task(empty())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
