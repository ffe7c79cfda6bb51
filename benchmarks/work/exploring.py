"""What swapco.testing promises of one search, one replay, one check, and of virtual time.

Each is measured against a bound, and virtual time also beside trio, which has it, too.

Unit: CPU time of one of them, in ns.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import swapco
from benchmarks.clocks import Laps
from benchmarks.testing_programs import BUGS, body_of
from swapco import testing
from swapco.testing.dpor import EachTrace
from swapco.testing.execution import Program

YEAR_S = 365 * 86_400.0
SLEEPERS = 3
SLEEPS = 1000
NAP_S = 10 * YEAR_S / SLEEPS
"""What each of the sleepers sleeps at a time."""
DECISIONS = 100_000


def measure(laps: Laps, full_number: int, one: Callable[[], object]) -> None:
    number = laps.scaled(full_number)
    for lap in laps:
        with lap(number):
            for _ in range(number):
                one()


def exhausted(body: Callable[[], None]) -> None:
    result = testing.verify(body, strategy="dpor", preempt="primitives", save=False)
    if not result.exhausted or result.schedules > 100:
        raise RuntimeError(f"not exhausted within 100 schedules: {result!r}")


def semaphore() -> None:
    permits = swapco.Semaphore(1)

    def work() -> None:
        with permits:
            pass

    swapco.wait([swapco.spawn(work) for _ in range(3)])


def dpor_semaphore(laps: Laps) -> None:
    measure(laps, 10, lambda: exhausted(semaphore))


def dpor_lock_cycle(laps: Laps) -> None:
    """Some of the schedules end in a deadlock, which is none of a verify: all are to be run."""

    def cycle() -> None:
        locks = [swapco.Lock() for _ in range(3)]

        def work(number: int) -> None:
            with locks[number], locks[(number + 1) % 3]:
                pass

        swapco.wait([swapco.spawn(work, number) for number in range(3)])

    def all_of_it() -> None:
        program, search = Program(cycle, preempt="primitives"), EachTrace()
        program.footprints = True

        def session() -> None:
            for chooser in search:
                search.record(program.execute(chooser))

        program.session(session)
        if search.schedules > 100:
            raise RuntimeError(f"{search.schedules} schedules")

    measure(laps, 10, all_of_it)


def shrinking(laps: Laps) -> None:
    """From a failure of about 90 decisions to the proved minimum; finding it, a few schedules, is a part of it."""
    body = body_of(BUGS["lost update"])
    seeds = iter(range(10**9))

    def one() -> None:
        result = testing.search(body, seed=next(seeds), save=False)
        if not result.minimal or result.replays > 200:
            raise RuntimeError(f"not at its minimum: {result!r}")

    measure(laps, 20, one)


def replay(laps: Laps) -> None:
    """A schedule of 100,000 decisions and more."""

    def body() -> None:
        def work() -> None:
            for _ in range(DECISIONS // 4 + 100):
                testing.schedule_point()

        swapco.wait([swapco.spawn(work) for _ in range(4)])

    path = [at % 2 for at in range(DECISIONS)]
    measure(laps, 1, lambda: testing.run(body, schedule=path, max_steps=10 * DECISIONS))


def ten_years(laps: Laps) -> None:
    """Some fibers that sleep many times each, on a real loop whose clock is virtual."""

    def main() -> None:
        def tick() -> None:
            for _ in range(SLEEPS):
                swapco.sleep(NAP_S)

        swapco.wait([swapco.spawn(tick) for _ in range(SLEEPERS)])

    def one() -> None:
        clock = testing.VirtualClock(autojump=True)
        swapco.run(main, loop_factory=lambda: swapco.new_event_loop(clock=clock))
        if clock.time() < 10 * YEAR_S:
            raise RuntimeError(f"it is only {clock.time()}")

    measure(laps, 5, one)


def ten_years_on_trio(laps: Laps) -> None:
    """The same with its tasks and its clock, which jumps as soon as all of them wait."""
    trio, trio_testing = import_module("trio"), import_module("trio.testing")

    async def tick() -> None:
        for _ in range(SLEEPS):
            await trio.sleep(NAP_S)

    async def main() -> None:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(SLEEPERS):
                nursery.start_soon(tick)
        passed_s = trio.current_time() - began
        if passed_s < 0.999 * 10 * YEAR_S:
            raise RuntimeError(f"only {passed_s} s have passed")

    measure(laps, 5, lambda: trio.run(main, clock=trio_testing.MockClock(autojump_threshold=0)))


def history(laps: Laps) -> None:
    """1,000 operations of a queue by four fibers, checked."""
    recorded = testing.History()

    def body() -> None:
        queue = recorded.wrap(swapco.Queue[int]())

        def work(number: int) -> None:
            for at in range(125):
                queue.put(1000 * number + at)
                testing.schedule_point()
                queue.get()

        swapco.wait([swapco.spawn(work, number) for number in range(4)])

    testing.run(body, schedule=[at % 3 for at in range(3000)], preempt="primitives")
    if len(recorded) != 1000:
        raise RuntimeError(f"{len(recorded)} operations")

    def one() -> None:
        if not testing.linearizable(recorded, testing.FifoQueue()):
            raise RuntimeError("the checker says no")

    measure(laps, 3, one)
