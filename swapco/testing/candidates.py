"""Exploring inside an example of hypothesis: what is remembered from one example to the next, and why that is sound.

Theory
------
Hypothesis runs a test on many examples.  When one fails it *shrinks*: it runs hundreds of simpler examples, keeps those
that fail the same way, and in the end runs the simplest one a last time, to be shown.  So a failure must be found in
every example that has it, or shrinking stops early; examples must be cheap; and an example that has failed must
fail again, or hypothesis calls the test flaky.  A random search with a small budget gives none of that: whether it
finds the bug of a given example is chance.

Therefore an example is explored in stages, each a fixed function of the example and of the memory:

1. production's order;
2. the schedules that failed in examples of the same *shape* (the moments of production's run);
3. the last failing schedules of other shapes, by number, by turn and by segment (``shrink`` has all three);
4. once an example of the test has failed, the simplest schedules: all with one deviation, then those with two;
5. the strategy, from its seed.

The strategy's seed is mixed with the shape: examples that differ are explored differently, without a state.

A failing candidate is neither shrunk nor proved nor told: only the example that hypothesis runs at the end is.

Invariants
----------
- Memory only grows, and only where something has failed: an example that failed once fails again.  The list of a shape
  is only appended to, so that the same schedule finds the same failure.
- What one test remembers, another does not see.
- A recorded file is read once, and removed: the schedule is in the memory then, and if the test fails again, in a
  new file.  So no file survives the failure that it belongs to.

Rejected designs
----------------
- Every decision drawn from hypothesis: slow, and shrinking data leaves 10-30 preemptions.
- A seed drawn from hypothesis: it shrinks the seed, too, and an explicit ``@example`` has none to give.
- Only the strategy (stages 1 and 5): of 60 failing scenarios for three buggy objects 12 stayed larger than they had to.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, NamedTuple

from .exhaust import SimplestFirst
from .schedule import Schedule, load_schedule
from .search import make_strategy, must_repeat
from .shrink import FollowSegments, FollowTurns, Segment, Turn, segments_of, shrink, turns_of
from .strategies import ByName, Path
from .trace import Execution, FollowPath, stripped

if TYPE_CHECKING:
    from .control import Strategy
    from .execution import Program
    from .search import Result

__all__ = ["Memory", "find", "forget", "in_example", "memory_of", "quickly"]

#: Schedules with one deviation, and then in the order of simplicity, that an example runs once the test has failed.
SIMPLEST = 50
#: Decisions that these may make in all, roughly: what bounds them for a program that runs for long.
DECISIONS = 20_000
#: Replays for the first failure of a test, so that what is remembered is simple.
REPLAYS = 60
#: How many schedules are remembered for a shape, how many shapes, and how many schedules of other shapes.
OF_A_SHAPE, SHAPES, OTHERS = 16, 2_000, 3


def in_example() -> str | None:
    """Is this an example of hypothesis: "final" (shown to a person), "candidate", or None?"""
    hypothesis: Any = sys.modules.get("hypothesis")
    if hypothesis is None or not hypothesis.currently_in_test_context():
        return None
    context = sys.modules["hypothesis.control"].current_build_context()
    # no public name says so; whatever does not say is treated as final, which only costs time
    return "final" if getattr(context, "is_final", True) else "candidate"


class _Hint(NamedTuple):
    """A schedule that failed, in three languages."""

    path: tuple[int, ...]
    turns: tuple[Turn, ...]
    segments: tuple[Segment, ...]


class Memory:
    """What the examples of one test have shown."""

    def __init__(self) -> None:
        self.failed = False
        self.shapes: dict[int, list[tuple[int, ...]]] = {}
        self.hints: list[_Hint] = []
        self.recorded: Schedule | None = None

    def load(self, file: FilePath) -> None:
        """Take over what a run before has left."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.recorded = load_schedule(file)
        file.unlink(missing_ok=True)

    def add(self, shape: int, execution: Execution) -> None:
        """A schedule has failed in an example of this shape."""
        self.failed = True
        path = stripped(execution.path)
        known = self.shapes.get(shape)
        if known is None and len(self.shapes) < SHAPES:
            known = self.shapes[shape] = []
        if known is not None and path not in known and len(known) < OF_A_SHAPE:
            known.append(path)
        hint = _Hint(path, tuple(turns_of(execution)), tuple(segments_of(execution)))
        self.hints = [hint, *(other for other in self.hints if other != hint)][:OTHERS]


_memories: dict[str, Memory] = {}


def memory_of(test: str, file: FilePath | None) -> Memory:
    """The memory of a test; at first what its file says."""
    memory = _memories.get(test)
    if memory is None:
        memory = _memories[test] = Memory()
        if file is not None:
            memory.load(file)
    return memory


def forget() -> None:
    """Forget what all tests have shown: for who measures."""
    _memories.clear()


def find(
    program: Program, result: Result, memory: Memory, strategy: str | Strategy, schedules: int
) -> Execution | None:
    """A failing run of the example, or None; inside a session of the program."""
    outcome = program.run(Path())
    result.schedules = 1
    production = program.record(outcome)
    shape = zlib.crc32(repr(program.control.signature()).encode())
    if not production.failed:
        if not production.decisions:
            result.exhausted = True
            return None
        must_repeat(program, production)
    seed = result.seed = zlib.crc32(str(result.seed).encode(), shape)
    affordable = DECISIONS // (len(production.decisions) + 1)
    found = production if production.failed else _by_memory(program, result, memory, shape, production, affordable)
    if found is None:
        chosen = make_strategy(strategy)
        chosen.start(seed)
        for number in range(1, schedules):
            outcome = program.run(chosen, number)
            result.schedules += 1
            if outcome.kind == "aborted":
                assert outcome.exception is not None
                raise outcome.exception
            if outcome.failed:
                found = program.record(outcome)
                break
    if found is not None:
        kept = found
        if not memory.failed:
            kept = shrink(program.execute, found, replays=min(REPLAYS, affordable)).execution
        memory.add(shape, kept)
    return found


def _by_memory(
    program: Program, result: Result, memory: Memory, shape: int, production: Execution, affordable: int
) -> Execution | None:
    # half of the simplest schedules are among those that were run before
    known = {stripped(production.path): production}
    for execution in _remembered(program, memory, shape):
        result.schedules += 1
        if execution.failed:
            return execution
        known[stripped(execution.path)] = execution
    if not memory.failed:
        return None
    for simplest in (SimplestFirst(deviation_bound=1, reduce=False), SimplestFirst(2, reduce=False)):
        for follow in simplest:
            if simplest.schedules >= min(SIMPLEST, affordable):
                break
            assert isinstance(follow, FollowPath)
            path = stripped(follow.path)
            if path in known:
                execution = known[path]
            else:
                execution = known[path] = program.execute(follow)
                result.schedules += 1
            simplest.record(execution)
            if execution.failed:
                return execution
    return None


def _remembered(program: Program, memory: Memory, shape: int) -> Iterator[Execution]:
    for path in memory.shapes.get(shape, ()):
        yield program.execute(FollowPath(path))
    if memory.recorded is not None:
        yield program.execute(FollowPath(memory.recorded.path))
        if memory.recorded.named:
            yield program.record(program.run(ByName(memory.recorded.named)))
    for hint in memory.hints:
        yield program.execute(FollowPath(hint.path))
        yield program.execute(FollowTurns(hint.turns))
        yield program.execute(FollowSegments(hint.segments))


def quickly(program: Program, result: Result, session: Callable[[], Execution | None]) -> None:
    """Look for a failure, and do no more about it than to make sure of it."""

    def whole() -> None:
        found = session()
        if found is not None:
            must_repeat(program, found)
            result.failed = True
            result.exception = found.exception
            result.found = len(found.decisions), found.deviations, found.preemptions

    program.session(whole)
