"""Everything at once, for as long as you like: ``python tests/soak.py --seconds 3600 --seed 1 --switch native``.

One process runs rounds.  A round is one event loop with many fibers that do random steps (soak_waits.py,
soak_python.py), while others cancel them from fibers and from threads; each step checks what it gets.  Rounds follow
each other until the time is up: whatever a loop leaves behind adds up.

The exit code is 1 after a violation (an error that names the seed), a hang (all threads' tracebacks), an error that
somebody logged, or if memory grows without bound: between rounds, after a collection, the process is measured; the
least of the last fifth of the run must not be above the most that there was between its first and its third tenth,
plus some slack.  That lets a heap find its size, and finds what leaks a little each round.

A run is repeatable as far as time and threads allow.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import logging
import os
import random
import resource
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from helpers import SOON_S, Logged
from soak_python import PythonState
from soak_tools import NOTHING, NUMBER, Shared, Violation, check
from soak_waits import Waits

import swapco

REPORT_S = 10.0
HANG_S = 300.0
#: What may come on top of what a warm process has.
SLACK = {"RSS": (0.10, 16 << 20), "blocks": (0.05, 20_000), "descriptors": (0.0, 4), "threads": (0.0, 2)}


class Worker(Waits, PythonState):
    """A fiber that does steps until the round is over."""

    def __init__(self, a_round: Round, number: int) -> None:
        super().__init__(a_round.shared, number, a_round.seed)
        self.round = a_round

    def steps(self) -> list[str]:
        return [name for name in dir(self) if name.startswith("do_")]

    def work(self) -> None:
        me = swapco.current_fiber()
        NUMBER.set(self.number)
        names = self.steps()
        name = "nothing"
        try:
            while not self.shared.over:
                name = self.dice.choice(names)
                try:
                    getattr(self, name)()
                    self.done[name[3:]] += 1
                except swapco.CancelledError:
                    self.done["cancelled"] += 1
                except TimeoutError:
                    self.done["timed out"] += 1
                while me.cancelling():
                    me.uncancel()
                check(sys.exc_info() == NOTHING, "exc_info between steps", sys.exc_info())
                check(NUMBER.get() == self.number, "a context variable between steps", NUMBER.get())
                try:
                    self.pause()
                except swapco.CancelledError:
                    pass
        except BaseException as error:
            error.add_note(f"in {name}, worker {self.number}")
            self.round.fail(error)


class Round:
    """One event loop's life."""

    worker_type: type[Worker] = Worker
    #: The timers of a scheduler that has nothing to do: its housekeeping.
    idle_timers = 1

    def __init__(self, seed: str, switch: str, fibers: int) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.switch = switch
        self.fibers = self.dice.randint(1, fibers)
        self.seconds = self.dice.choice((0.02, 0.2, 1.0))
        self.failure: BaseException | None = None
        self.done: Counter[str] = Counter()
        self.most_fibers = 0

    def options(self) -> dict[str, Any]:
        """What ``swapco.run`` is told."""
        return {"switch": self.switch}

    def start(self, worker: Worker) -> Any:
        """The fiber of a worker."""
        return swapco.spawn(worker.work)

    def check_end(self) -> None:
        """All fibers are done but main: look at what they had in common."""
        self.shared.check_end()

    def fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self.shared.over = True

    def unraisable(self, what: Any) -> None:
        # a collection at the recursion limit calls finalizers, too
        if what.exc_type is not RecursionError:
            self.fail(what.exc_value or Violation(f"unraisable: {what}"))

    def cancel_from_thread(self, dice: random.Random) -> None:
        pause = threading.Event()
        while not self.shared.over:
            dice.choice(self.shared.workers).cancel("from a thread")
            self.done["cancellations"] += 1
            pause.wait(dice.random() * 0.02)

    def cancel_from_fiber(self) -> None:
        while not self.shared.over:
            self.dice.choice(self.shared.workers).cancel("from a fiber")
            self.done["cancellations"] += 1
            swapco.sleep(self.dice.random() * 0.02)

    def main(self) -> None:
        self.shared = Shared(self.dice, self.switch)
        workers = [self.worker_type(self, number) for number in range(self.fibers)]
        fibers = [self.start(worker) for worker in workers]
        self.shared.workers = fibers
        # none is cancelled before it has begun
        while any(fiber.state == "NEW" for fiber in fibers):
            swapco.sleep(0)
        disturber = swapco.spawn(self.cancel_from_fiber)
        thread = threading.Thread(target=self.cancel_from_thread, args=(random.Random(self.dice.random()),))
        thread.start()
        until = time.monotonic() + self.seconds
        while time.monotonic() < until and not self.shared.over:
            swapco.sleep(0.01)
            self.most_fibers = max(self.most_fibers, len(swapco.all_fibers()))
        self.shared.over = True
        thread.join()
        disturber.join()
        give_up = time.monotonic() + 3 * SOON_S
        while not all(fiber.done() for fiber in fibers):
            if time.monotonic() > give_up:
                swapco.dump_fibers()
                raise Violation(f"{sum(not fiber.done() for fiber in fibers)} workers do not end")
            # those that wait for what nobody will bring
            for fiber in fibers:
                fiber.cancel("the round is over")
            swapco.sleep(0.01)
        for worker in workers:
            self.done.update(worker.done)
        if self.failure is not None:
            raise self.failure
        while len(swapco.all_fibers()) > 1:
            check(time.monotonic() < give_up, "fibers were left", swapco.all_fibers())
            swapco.sleep(0.001)
        self.check_end()
        timers = swapco.current_fiber().scheduler.statistics()["timers"]  # type: ignore[attr-defined]
        check(timers <= self.idle_timers, "timers were left", timers)

    def run(self) -> None:
        old_hook = sys.unraisablehook
        sys.unraisablehook = self.unraisable
        try:
            swapco.run(self.main, **self.options())
            if self.failure is not None:
                raise self.failure
        finally:
            sys.unraisablehook = old_hook
            sys.settrace(None)
            sys.setprofile(None)
            gc.unfreeze()


def measure() -> dict[str, float]:
    """What must not grow, between two rounds."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        rss = int(statm.read().split()[1]) * resource.getpagesize()
    return {
        "RSS": rss,
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


def growth(samples: Sequence[dict[str, float]]) -> list[str]:
    """What has grown without bound: at the end the least is above the most of a warm process."""
    if len(samples) < 20:
        return []
    tenth = len(samples) // 10
    found = []
    for what, (share, slack) in SLACK.items():
        most = max(sample[what] for sample in samples[tenth : 3 * tenth])
        least = min(sample[what] for sample in samples[-2 * tenth :])
        if least > most * (1 + share) + slack:
            found.append(f"{what} grew from {most:,.0f} to {least:,.0f}")
    return found


class Soak:
    """Rounds, until the time is up."""

    round_type: type[Round] = Round
    hang_s = HANG_S

    def __init__(self, seconds: float, seed: int, switch: str, fibers: int) -> None:
        self.seconds = seconds
        self.seed = seed
        self.switch = switch
        self.fibers = fibers
        self.began = time.monotonic()
        self.done: Counter[str] = Counter()
        self.samples: list[dict[str, float]] = []
        self.every = 1
        self.rounds = 0
        self.most_fibers = 0

    def line(self, word: str) -> str:
        now = self.samples[-1] if self.samples else measure()
        kinds = " ".join(f"{kind}={count}" for kind, count in sorted(self.done.items()))
        return (
            f"{word} {time.monotonic() - self.began:.0f} s: {self.rounds} rounds, {sum(self.done.values())} "
            f"operations, up to {self.most_fibers} fibers, RSS {now['RSS'] / 2**20:.0f} MiB, "
            f"{now['blocks']:.0f} blocks, {now['descriptors']:.0f} descriptors | {kinds}"
        )

    def sample(self) -> None:
        """Keep at most 1,024 measurements, evenly spread, so that they do not add up themselves."""
        if self.rounds % self.every == 0:
            self.samples.append(measure())
            if len(self.samples) == 1024:
                del self.samples[::2]
                self.every *= 2

    def run(self) -> None:
        report_at = self.began + REPORT_S
        while self.rounds == 0 or time.monotonic() < self.began + self.seconds:
            faulthandler.dump_traceback_later(self.hang_s, exit=True)
            one = self.round_type(f"{self.seed}-{self.rounds}", self.switch, self.fibers)
            sys.setswitchinterval(one.dice.choice((0.00005, 0.005)))
            try:
                one.run()
            except BaseException as error:
                error.add_note(f"--seed {self.seed} --switch {self.switch} --fibers {self.fibers}, round {one.seed}")
                raise
            self.rounds += 1
            self.done.update(one.done)
            self.most_fibers = max(self.most_fibers, one.most_fibers)
            del one
            self.sample()
            if time.monotonic() >= report_at:
                print(self.line("soak"), flush=True)
                report_at = time.monotonic() + REPORT_S
                self.most_fibers = 0
        faulthandler.cancel_dump_traceback_later()


def main(soak_type: type[Soak] = Soak, description: str | None = __doc__) -> int:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="random unless given")
    parser.add_argument("--switch", choices=("native", "greenlet"), default="native")
    parser.add_argument("--fibers", type=int, default=60, help="at most so many workers a round (60)")
    options = parser.parse_args()
    faulthandler.enable()
    # 3.12 and later warn of a fork in a process with threads
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    # cancelled before its first step
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")
    logged = Logged()
    logging.getLogger("asyncio").addHandler(logged)
    print(f"soak: {sys.version.split()[0]} --seed {options.seed} --switch {options.switch}", flush=True)
    soak = soak_type(options.seconds, options.seed, options.switch, options.fibers)
    swapco.run(lambda: swapco.await_(asyncio.sleep(0)), switch=options.switch)
    try:
        soak.run()
    finally:
        print(soak.line("end"), flush=True)
    wrong = growth(soak.samples) + logged.take()
    for what in wrong:
        print(f"soak: {what} (--seed {options.seed})", file=sys.stderr)
    print("soak: FAILED" if wrong else "soak: passed", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
