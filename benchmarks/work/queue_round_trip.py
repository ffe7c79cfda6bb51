"""A round trip through two queues of size 1: what a request to another flow and its answer cost.

One flow puts into the first queue and gets from the second; the other gets from the first and puts into
the second. Unit: CPU time of one round trip (two puts, two gets), in ns.
"""

from __future__ import annotations

import asyncio

from benchmarks.clocks import Laps

ROUND_TRIPS = 15_000


def on_swapco(laps: Laps) -> None:
    from swapco import Queue, run, spawn

    count = laps.scaled(ROUND_TRIPS)
    requests: Queue[int] = Queue(1)
    replies: Queue[int] = Queue(1)

    def answer() -> None:
        for _ in range(count):
            replies.put(requests.get())

    def ask() -> None:
        for i in range(count):
            requests.put(i)
            replies.get()

    def main() -> None:
        for lap in laps:
            with lap(count):
                other = spawn(answer)
                spawn(ask).join()
                other.join()

    run(main)


def on_uvloop(laps: Laps) -> None:
    from asyncio import Queue

    import uvloop

    count = laps.scaled(ROUND_TRIPS)
    requests: Queue[int] = Queue(1)
    replies: Queue[int] = Queue(1)

    async def answer() -> None:
        for _ in range(count):
            await replies.put(await requests.get())

    async def ask() -> None:
        for i in range(count):
            await requests.put(i)
            await replies.get()

    async def main() -> None:
        for lap in laps:
            with lap(count):
                other = asyncio.create_task(answer())
                await asyncio.create_task(ask())
                await other

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def on_gevent(laps: Laps) -> None:
    from gevent import spawn
    from gevent.queue import Queue

    count = laps.scaled(ROUND_TRIPS)
    requests = Queue(1)
    replies = Queue(1)

    def answer() -> None:
        for _ in range(count):
            replies.put(requests.get())

    def ask() -> None:
        for i in range(count):
            requests.put(i)
            replies.get()

    for lap in laps:
        with lap(count):
            other = spawn(answer)
            spawn(ask).join()
            other.join()
