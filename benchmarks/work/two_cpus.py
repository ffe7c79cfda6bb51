"""Do two thread fibers that compute in C without the GIL have two CPUs?

One compresses with zlib, one hashes with hashlib, for the same time. Both are pinned to the slot's CPU while they own
the slot, and must not stay there once the detector has taken it from them. Unit: wall time that it takes the process
to use one second of CPU time, in ns: 1e9 on one CPU, half of that on two. Two threads of ``threading`` say how much of
two CPUs there is to have on a machine that is not idle.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Callable
from time import monotonic, perf_counter_ns, process_time_ns
from typing import Any

MIB = 1 << 20
DATA = random.Random(1).randbytes(MIB)


def compress(until_s: float) -> None:
    while monotonic() < until_s:
        zlib.compress(DATA)


def digest(until_s: float) -> None:
    while monotonic() < until_s:
        hashlib.sha256(DATA).digest()


def on_swapco(window_s: float) -> float:
    from swapco import run, spawn

    def start(work: Callable[[float], None], until_s: float) -> Any:
        return spawn(work, until_s, thread=True)

    measured: float = run(measure, window_s, start)
    return measured


def on_threads(window_s: float) -> float:
    from threading import Thread

    def start(work: Callable[[float], None], until_s: float) -> Thread:
        thread = Thread(target=work, args=(until_s,))
        thread.start()
        return thread

    return measure(window_s, start)


def measure(window_s: float, start: Callable[[Callable[[float], None], float], Any]) -> float:
    wall_ns, cpu_ns = -perf_counter_ns(), -process_time_ns()
    until_s = monotonic() + window_s
    for flow in [start(work, until_s) for work in (compress, digest)]:
        flow.join()
    return (wall_ns + perf_counter_ns()) / (cpu_ns + process_time_ns()) * 1e9
