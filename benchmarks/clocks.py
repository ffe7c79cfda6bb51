"""What the small loops are measured with: laps of CPU time, and resident memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from statistics import median
from time import perf_counter_ns, process_time_ns
from types import TracebackType


class Lap:
    """One timed repeat: ``with lap(ops): ...`` around the work, where `ops` operations happen."""

    def __init__(self) -> None:
        self.ops = 0
        self.cpu_ns = 0
        self.wall_ns = 0

    def __call__(self, ops: int) -> Lap:
        self.ops = ops
        return self

    def __enter__(self) -> None:
        self.wall_ns = -perf_counter_ns()
        self.cpu_ns = -process_time_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cpu_ns += process_time_ns()
        self.wall_ns += perf_counter_ns()


class Laps:
    """The laps of one measurement: iterate, and time one repeat of the work with each.

    `scale` multiplies the number of operations (``n = laps.scaled(20_000)``). The first lap warms up
    (caches, pools, specialised bytecode) and is not counted; the result is the median of the others.
    Iteration keeps no frame on the stack: greenlet's switches cost more the deeper the stack is.
    """

    def __init__(self, repeats: int, scale: float = 1.0) -> None:
        self._laps = [Lap() for _ in range(repeats + 1)]
        self._scale = scale

    def __iter__(self) -> Iterator[Lap]:
        return iter(self._laps)

    def scaled(self, n: int) -> int:
        return max(1, int(n * self._scale))

    def result(self) -> dict[str, float]:
        """``value`` and ``wall_ns``: CPU and wall time per operation, in ns."""
        if any(lap.ops == 0 for lap in self._laps):
            raise RuntimeError("a workload left a lap untimed")
        counted = self._laps[1:]
        return {
            "value": median(lap.cpu_ns / lap.ops for lap in counted),
            "wall_ns": median(lap.wall_ns / lap.ops for lap in counted),
        }

    def wall_result(self) -> dict[str, float]:
        """``value`` and ``cpu_ns``: wall and CPU time per operation, in ns."""
        both = self.result()
        return {"value": both["wall_ns"], "cpu_ns": both["value"]}


def resident_bytes() -> int:
    """The memory of this process that is in RAM now, in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
