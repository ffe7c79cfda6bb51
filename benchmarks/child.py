"""One measurement, in a process of its own: prints one line of JSON on standard output.

    python -c "from benchmarks.child import main; main()" KIND PATH [--cpu N] [--quick]

KIND says how the function ``benchmarks.work.PATH`` is called and what comes back:

- ``laps``: called with `Laps`; ``{"value": ns per operation, "wall_ns": the same in wall time}``;
- ``wall``: the same for what sleeps and is woken: ``{"value": ns of wall time, "cpu_ns": the same in CPU time}``, never
  under real-time scheduling;
- ``one``: called with a number of seconds, for how long it is to measure; ``{"value": what it returned}``;
- ``memory``: called with a number of flows; ``{"value": bytes per flow}``;
- ``serve``: called with `Ready`; ``{"port": N}`` as soon as it listens, then it serves until killed.

A library that cannot be imported gives ``{"missing": reason}``, so that the harness can leave a peer out.
Started with ``-c``, and with nothing between `main` and the variant, so that few frames are on the stack
(greenlet walks them at each switch).
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress

from benchmarks.clocks import Laps

LAPS = 5
QUICK_LAPS = 3
QUICK_SCALE = 0.3
WINDOW_S = 2.0
QUICK_WINDOW_S = 0.7
PARKED_FLOWS = 20_000
QUICK_PARKED_FLOWS = 5_000

PR_SET_PDEATHSIG = 1


def main() -> None:
    options = parse(sys.argv[1:])
    die_with_parent()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    if options.kind == "wall":
        leave_real_time()
    try:
        file, _, function = options.path.rpartition(".")
        variant = getattr(importlib.import_module(f"benchmarks.work.{file}"), function)
        if options.kind in ("laps", "wall"):
            laps = Laps(QUICK_LAPS, QUICK_SCALE) if options.quick else Laps(LAPS)
            variant(laps)
            say(laps.result() if options.kind == "laps" else laps.wall_result())
        elif options.kind == "one":
            say({"value": variant(QUICK_WINDOW_S if options.quick else WINDOW_S)})
        elif options.kind == "memory":
            say({"value": variant(QUICK_PARKED_FLOWS if options.quick else PARKED_FLOWS)})
        else:
            variant(say_port)
    except ImportError as error:
        say({"missing": str(error)})


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.child")
    parser.add_argument("kind", choices=("laps", "wall", "one", "memory", "serve"))
    parser.add_argument("path")
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args(arguments)


def die_with_parent() -> None:
    """Let the kernel kill this process when the harness ends, even if that is killed itself."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the harness has ended")


def leave_real_time() -> None:
    """Have the ordinary scheduler, also under ``chrt -f``, with the best nice value instead.

    What hands over between kernel threads depends on wake-up preemption: a thread that releases a lock is preempted by
    the one that it wakes, which then finds the GIL taken. Among real-time threads of one priority that never happens,
    and two locks cost half of what they cost in any real program.
    """
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)


def say(answer: Mapping[str, float | str]) -> None:
    print(json.dumps(answer), flush=True)


def say_port(port: int) -> None:
    say({"port": port})
