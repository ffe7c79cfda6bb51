"""Fibers on kernel threads, as long as you like: ``python tests/soak_threads.py --seconds 3600 --switch native``.

The soak run (soak.py), with thread fibers: about half of the workers are thread fibers, half of the children, too, and
there are steps that block in the kernel, compute, and call back and forth between threads (soak_blocks.py).  Each round
has a slot with other options: number of workers, pinning, sentinel, tick.

A round that does not end in time is a hang: all threads' tracebacks are printed, and the exit code is 1.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import Counter
from typing import Any

import soak
from soak_blocks import Blocks, Expected
from soak_tools import check

import swapco
from swapco.lowlevel import Slot

#: Steps for the event loop's thread alone.
AT_HOME = {"do_executor"}
#: Steps about one thread (its stack, its hooks, its greenlets), or that stop all collections in between.
ONE_THREAD = ("recursion_error", "c_recursion", "collect", "dealloc", "trace", "frames", "greenlets")
NOT_HERE = {f"do_{name}" for name in ONE_THREAD}


class ThreadWorker(Blocks, soak.Worker):
    """A worker that may be a thread fiber."""

    def __init__(self, a_round: soak.Round, number: int) -> None:
        super().__init__(a_round, number)
        self.threaded = self.dice.random() < 0.5
        assert isinstance(a_round, ThreadRound)
        self.calls = a_round.calls
        self.pipes = a_round.pipes
        self.many_threads = a_round.spare > 100
        self.home = threading.get_ident()
        self.loop = asyncio.get_running_loop()

    def steps(self) -> list[str]:
        unfit = NOT_HERE | (AT_HOME if self.threaded else set())
        return [name for name in super().steps() if name not in unfit]


class ThreadRound(soak.Round):
    """One event loop's life, with kernel threads."""

    worker_type = ThreadWorker
    # the pool of stacks, the workers
    idle_timers = 2

    def __init__(self, seed: str, switch: str, fibers: int) -> None:
        super().__init__(seed, switch, fibers)
        self.calls: Counter[str] = Counter()
        self.pipes = swapco.Lock()
        self.spare = self.dice.choice((4, 30, 900))

    def options(self) -> dict[str, Any]:
        pin = self.dice.random() < 0.7
        # every worker gets a thread; what they start may have to wait for one
        workers = (self.fibers + self.spare) * 16 // 15 + 1
        slot = Slot(
            pin=pin,
            max_workers=workers,
            sentinel=pin and self.dice.random() < 0.3,
            tick=self.dice.choice((0.0002, 0.001, 0.01)),
        )
        return {"switch": self.switch, "slot": slot}

    def start(self, worker: soak.Worker) -> Any:
        assert isinstance(worker, ThreadWorker)
        return swapco.spawn(worker.work, thread=worker.threaded)

    def check_end(self) -> None:
        super().check_end()
        check(self.calls["begun"] == self.calls["ended"], "calls that did not end", self.calls)
        numbers = swapco.current_fiber().scheduler.statistics()  # type: ignore[attr-defined]
        check(numbers["detached"] == 0, "detached fibers were left", numbers)
        check(numbers["workers"] == numbers["idle_workers"], "workers that are not idle", numbers)
        for name in ("detaches", "reattaches", "handoffs", "lends", "taken_back"):
            self.done[f"({name})"] += numbers[name]


class ThreadSoak(soak.Soak):
    """Rounds with kernel threads."""

    round_type = ThreadRound
    hang_s = 120.0


def unexpected(record: logging.LogRecord) -> bool:
    """Is it an error that no step made on purpose?"""
    return not (record.exc_info and isinstance(record.exc_info[1], Expected))


if __name__ == "__main__":
    # that threads are scarce in some rounds is what these are for
    logging.getLogger("swapco").setLevel(logging.ERROR)
    logging.getLogger("asyncio").addFilter(unexpected)
    sys.exit(soak.main(ThreadSoak, __doc__))
