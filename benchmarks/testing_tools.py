"""Every tool that ``testing_peers`` measures: how it is told to search for the order in which a program fails.

A search returns the number of schedules that it ran up to and including the first that failed, or None: it ran as many
as it was allowed to and none failed. Nothing is shrunk, replayed or written. A tool stands here once for each strategy
that a user would try, its default first; where it has a faster mode than its default, that stands here too: the
comparison is with its best.

Each is imported when it is needed, by name: none of them is a dependency, and most are not typed.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.testing_programs import ASYNCIO, Flows, Program, body_of, main_of

Search = Callable[[type[Program], int, int], int | None]
"""``search(program, seed, schedules)``."""

SEEDS_APART = 100_000
"""Tools that count seeds up, one for each schedule, start this far apart: their searches have no schedule in common."""

DEADLOCK_S = 0.5
"""frontrun sees some deadlocks only by waiting for this long. Its own default is 5 s."""
STEPS_AT_MOST = 1000
"""frontrun's own limit of 100 for tasks is too low for these programs: beyond it, it reports deadlocks of its own."""

NO_FILE = "/no/such/file"
"""Where bytecodes are points only in the files that are named: this leaves sleep and the primitives."""


class NoVerdict(Exception):
    """The tool gave up before its limit: it saw neither a failure nor as many schedules as it was asked for."""


@dataclass(frozen=True)
class Tool:
    """One strategy of one library.

    `most` limits the schedules of a search, for what is slow: 1,000 of them must not take minutes. Not `seeded`: every
    search is the same one. Not `blocks`: a flow that waits, in a program without a bug, is reported as a deadlock, so
    the programs that block say nothing.
    """

    name: str
    module: str
    search: Search
    most: int = 1000
    seeded: bool = True
    blocks: bool = True


def swapco(program: type[Program], seed: int, schedules: int, strategy: Any = "portfolio") -> int | None:
    from swapco import testing

    found = testing.search(
        body_of(program), schedules=schedules, seed=seed, strategy=strategy, shrink_failure=False, save=False
    )
    return found.schedules if found.failed else None


def swapco_verify(program: type[Program], seed: int, schedules: int) -> int | None:
    from swapco import testing

    found = testing.verify(body_of(program), preemption_bound=2, schedules=schedules, save=False)
    return found.schedules if found.failed else None


def detangle(program: type[Program], seed: int, schedules: int, strategy: str = "auto") -> int | None:
    tool = import_module("detangle")
    try:
        tool.explore(main_of(program), runs=schedules, seed=seed, strategy=strategy, shrink=False, database=False)
    except tool.BugFound as found:
        runs: int = found.report.runs
        return runs
    return None


def simloom(program: type[Program], seed: int, schedules: int, scheduler: str = "random") -> int | None:
    tool = import_module("simloom")
    found = tool.explore(
        main_of(program), runs=schedules, start_seed=seed * SEEDS_APART, scheduler=scheduler, world=False
    )
    return found.runs if found.failed else None


def simloom_systematic(program: type[Program], seed: int, schedules: int) -> int | None:
    tool = import_module("simloom")
    found = tool.explore_systematic(main_of(program), max_schedules=schedules, world=False)
    at: int | None = found.first_failure_at
    return at


def simloop(program: type[Program], seed: int, schedules: int, policy: str = "random") -> int | None:
    tool = import_module("simloop")
    # seed 0 is not like the others: under "pct" it measures how long the program is
    first = seed * SEEDS_APART + 1
    report = tool.explore(main_of(program), range(first, first + schedules), policy=policy)
    return None if report is None else report.seeds_passed + 1


def frontrun_tasks(program: type[Program], seed: int, schedules: int, strategy: str = "random") -> int | None:
    tool = import_module("frontrun")

    def worker(number: int) -> Callable[[Program], Any]:
        async def work(run: Program) -> None:
            await run.work_async(number)

        return work

    async def explore() -> Any:
        return await tool.explore(
            setup=lambda: program(ASYNCIO),
            workers=[worker(number) for number in range(program.flows)],
            invariant=lambda run: run.holds(),
            **frontrun_options(strategy, seed, schedules),
        )

    return frontrun_answer(asyncio.run(explore()))


def frontrun_threads(program: type[Program], seed: int, schedules: int, strategy: str = "dpor") -> int | None:
    tool = import_module("frontrun")
    flows = Flows(lambda: time.sleep(0), lambda: threading.Lock(), lambda: threading.Event())

    def worker(number: int) -> Callable[[Program], None]:
        return lambda run: run.work(number)

    os.environ["FRONTRUN_ACTIVE"] = "1"  # as its command line does; what that also loads is about I/O
    found = tool.explore(
        setup=lambda: program(flows),
        workers=[worker(number) for number in range(program.flows)],
        invariant=lambda run: run.holds(),
        **frontrun_options(strategy, seed, schedules) | {"reproduce_on_failure": 0},
    )
    return frontrun_answer(found)


def frontrun_options(strategy: str, seed: int, schedules: int) -> dict[str, Any]:
    shared = {"strategy": strategy, "deadlock_timeout": DEADLOCK_S, "timeout_per_run": 2 * DEADLOCK_S}
    if strategy == "dpor":
        return shared | {"max_executions": schedules, "reproduce_on_failure": 0}
    return shared | {"max_attempts": schedules, "max_ops": STEPS_AT_MOST, "seed": seed}


def frontrun_answer(found: Any) -> int | None:
    explored: int = found.num_explored
    if found.property_holds is None:
        raise NoVerdict(f"after {explored} schedules: {found.inconclusive_reason}")
    return None if found.property_holds else explored


def interleave_test(
    program: type[Program], seed: int, schedules: int, strategy: str = "random", only_points: bool = False
) -> int | None:
    tool = import_module("interleave_test")
    flows = Flows(lambda: time.sleep(0), tool.Lock, tool.Event)

    def model() -> None:
        run = program(flows)
        for task in [tool.spawn(run.work, number) for number in range(program.flows)]:
            task.join()
        assert run.holds()

    found = tool.explore(
        model,
        iterations=schedules,
        seed=seed,
        strategy=strategy,
        include=[NO_FILE] if only_points else None,
        raise_on_failure=False,
    )
    return None if found.failure is None else found.schedules_run


def ploom(program: type[Program], seed: int, schedules: int) -> int | None:
    tool = import_module("ploom")
    flows = Flows(tool.yield_now, tool.Lock, partial(EventOfLock, tool.Lock))

    def scenario() -> None:
        run = program(flows)
        threads = [tool.Thread(target=run.work, args=(number,)) for number in range(program.flows)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert run.holds()

    config = tool.Config(max_executions=schedules, max_preemptions=2, timeout=600.0, minimize_executions=0)
    with tempfile.TemporaryDirectory() as traces:
        try:
            tool.check(scenario, config=config, trace_dir=Path(traces))
        except tool.ModelCheckError as found:
            executions: int = found.statistics.executions
            return executions
        except tool.IncompleteExplorationError:
            return None
    return None


class EventOfLock:
    """An event for one waiter out of a lock, for a library that has no other primitive."""

    def __init__(self, lock: Callable[[], Any]) -> None:
        self._lock = lock()
        self._lock.acquire()

    def set(self) -> None:
        self._lock.release()

    def wait(self) -> None:
        self._lock.acquire()


TOOLS = (
    Tool("swapco", "swapco.testing", swapco),
    Tool("swapco verify", "swapco.testing", swapco_verify, seeded=False),
    Tool("detangle", "detangle", detangle),
    Tool("detangle random", "detangle", partial(detangle, strategy="random")),
    Tool("detangle pct:3", "detangle", partial(detangle, strategy="pct:3")),
    Tool("detangle dfs:2", "detangle", partial(detangle, strategy="dfs:2"), seeded=False),
    Tool("simloom", "simloom", simloom),
    Tool("simloom pct:auto", "simloom", partial(simloom, scheduler="pct:auto")),
    Tool("simloom systematic", "simloom", simloom_systematic, seeded=False),
    Tool("simloop", "simloop", simloop),
    Tool("simloop pct", "simloop", partial(simloop, policy="pct")),
    Tool("frontrun tasks random", "frontrun", frontrun_tasks, blocks=False),
    Tool("frontrun tasks dpor", "frontrun", partial(frontrun_tasks, strategy="dpor"), most=200, seeded=False),
    Tool("frontrun threads dpor", "frontrun", frontrun_threads, most=200, seeded=False),
    Tool("frontrun threads random", "frontrun", partial(frontrun_threads, strategy="random"), most=100),
    Tool("interleave-test", "interleave_test", interleave_test, most=200),
    Tool("interleave-test pct", "interleave_test", partial(interleave_test, strategy="pct"), most=200),
    Tool("interleave-test points", "interleave_test", partial(interleave_test, only_points=True), most=200),
    Tool(
        "interleave-test points pct", "interleave_test",
        partial(interleave_test, strategy="pct", only_points=True), most=200,
    ),
    Tool(
        "interleave-test points dfs", "interleave_test",
        partial(interleave_test, strategy="dfs", only_points=True), most=1000, seeded=False,
    ),
    Tool("ploom", "ploom", ploom, most=100, seeded=False),
)  # fmt: skip
