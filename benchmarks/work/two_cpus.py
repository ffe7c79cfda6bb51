"""Do two thread fibers that compute in C without the GIL have two CPUs?

One compresses with zlib, one hashes with hashlib, for the same time. Both are pinned to the slot's CPU while they own
the slot, and must not stay there once the detector has taken it from them. Unit: wall time that it takes the process
to use one second of CPU time, in ns: 1e9 on one CPU, half of that on two.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from time import monotonic, perf_counter_ns, process_time_ns

MIB = 1 << 20


def on_swapco(window_s: float) -> float:
    from swapco import run, spawn

    data = random.Random(1).randbytes(MIB)

    def compress(until_s: float) -> None:
        while monotonic() < until_s:
            zlib.compress(data)

    def digest(until_s: float) -> None:
        while monotonic() < until_s:
            hashlib.sha256(data).digest()

    def main() -> float:
        wall_ns, cpu_ns = -perf_counter_ns(), -process_time_ns()
        until_s = monotonic() + window_s
        for fiber in [spawn(work, until_s, thread=True) for work in (compress, digest)]:
            fiber.join()
        return (wall_ns + perf_counter_ns()) / (cpu_ns + process_time_ns()) * 1e9

    measured: float = run(main)
    return measured
