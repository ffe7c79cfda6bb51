"""How long fibers have to wait beside kernel threads that block.

Ten threads call ``time.sleep`` all the time; one ordinary fiber sleeps for a millisecond again and again, and notes how
long that took.

- ``to_thread``: after two calls it knows that ``time.sleep`` blocks, and calls it without the slot.
- Thread fibers, the worst case: nobody knows, so each call takes the slot along into the kernel until the detector has
  seen it. Meanwhile nobody else runs, and a fiber that becomes ready stands in line behind the others.

Unit: the 95th percentile of the ticker's gaps, in ns.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import quantiles
from time import monotonic, perf_counter_ns
from time import sleep as block_the_thread

SLEEPERS = 10
SLEEP_S = 0.01
TICK_S = 0.001


def beside_calls(window_s: float) -> float:
    from swapco import to_thread

    def sleeper(until_s: float) -> None:
        while monotonic() < until_s:
            to_thread(block_the_thread, SLEEP_S)

    return measure(window_s, sleeper, thread=False)


def beside_thread_fibers(window_s: float) -> float:
    from swapco import sleep

    def sleeper(until_s: float) -> None:
        while monotonic() < until_s:
            block_the_thread(SLEEP_S)
            sleep(0)

    return measure(window_s, sleeper, thread=True)


def measure(window_s: float, sleeper: Callable[[float], None], thread: bool) -> float:
    from swapco import run, sleep, spawn

    def main() -> float:
        until_s = monotonic() + window_s
        sleepers = [spawn(sleeper, until_s, thread=thread) for _ in range(SLEEPERS)]
        gaps = []
        before = perf_counter_ns()
        while monotonic() < until_s:
            sleep(TICK_S)
            now = perf_counter_ns()
            gaps.append(now - before)
            before = now
        for fiber in sleepers:
            fiber.join()
        return quantiles(gaps, n=20)[-1]

    p95: float = run(main)
    return p95
