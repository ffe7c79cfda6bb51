"""A call on another kernel thread and its result: the least that offloading costs, the function being empty.

swapco lends its slot to a thread on the same CPU and gets it back; the peers wake a thread of a pool, and are woken by
it. Unit: wall time of one call, in ns.
"""

from __future__ import annotations

import asyncio

from benchmarks.clocks import Laps

CALLS = 4_000


def empty() -> None:
    pass


def on_swapco(laps: Laps) -> None:
    from swapco import run, to_thread

    calls = laps.scaled(CALLS)

    def main() -> None:
        for lap in laps:
            with lap(calls):
                for _ in range(calls):
                    to_thread(empty)

    run(main)


def on_uvloop(laps: Laps) -> None:
    from asyncio import to_thread

    import uvloop

    calls = laps.scaled(CALLS)

    async def main() -> None:
        for lap in laps:
            with lap(calls):
                for _ in range(calls):
                    await to_thread(empty)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def on_gevent(laps: Laps) -> None:
    from gevent import get_hub

    calls = laps.scaled(CALLS)
    apply = get_hub().threadpool.apply

    for lap in laps:
        with lap(calls):
            for _ in range(calls):
                apply(empty)
