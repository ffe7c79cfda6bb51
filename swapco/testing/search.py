"""``search``, ``verify``, ``replay``, ``run``: many schedules of one program, and what comes out.

A search runs the body under one schedule after the other, until one fails.  Then it makes sure that the failure comes
from the schedule and not from something else (the same decisions again show the same), shrinks the schedule, proves if
it can that no simpler one fails, and runs it a last time to see what a person must know.

The state of a search comes only from its seed and from the program's own behaviour.  Budgets count schedules, switches
and replays, never seconds: the same call does the same on a slower machine.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from .control import Strategy
from .errors import ReplayDivergence
from .execution import Program, fingerprint
from .schedule import Schedule, check_save, failures_directory, load_schedule
from .shrink import shrink
from .story import Moment, Story, Teller, headline_of
from .strategies import PCT, POS, URW, ByName, Path, Portfolio, RandomWalk
from .systematic import DFS, DPOR
from .trace import Execution, Pruned, UncontrolledNondeterminism

__all__ = [
    "Result",
    "conclude",
    "failure_file",
    "keep",
    "make_strategy",
    "must_repeat",
    "name_of_body",
    "positive",
    "replay",
    "run",
    "search",
    "verify",
]

_log = logging.getLogger("swapco.testing")

#: Schedules that a proof of the minimum may run besides, where those replays do not suffice for it.
PROOF_LIMIT = 3_000
#: Replays that shrinking may take.
SHRINK_LIMIT = 200
#: Decisions that either may make in all, roughly: what bounds them for a program that runs for long.
DECISIONS_LIMIT = 400_000


@dataclass
class Result:
    """What a search came to.  ``bool(result)`` is an error: ask for ``failed`` or ``exhausted``."""

    test: str
    """The name of the body."""
    failed: bool = False
    exception: BaseException | None = None
    """What the failing schedule ended with: what the body raised, Deadlock, LostWakeup, FiberLeak, ..."""
    schedules: int = 0
    """How many schedules were run until the first failure, or in all."""
    strategy: str = ""
    seed: int = 0
    exhaustive: bool = False
    """The strategy was to run every schedule within its bounds."""
    exhausted: bool = False
    """Every schedule within the bounds was run, or shown to repeat another one."""
    preemptions: int = 0
    """Of the failing schedule, after shrinking."""
    deviations: int = 0
    """Decisions of the failing schedule that production would not have made, after shrinking."""
    replays: int = 0
    """Runs that shrinking took."""
    minimal: bool = False
    """It is proved that no failing schedule has fewer preemptions, or as many and fewer deviations."""
    proof_schedules: int = 0
    """Runs that the proof took."""
    schedule: Schedule | None = None
    """The failing schedule."""
    path: str | None = None
    """The file that replays it, if one was written."""
    story: Story | None = field(default=None, repr=False)
    """What happened in the failing schedule, moment by moment."""
    found: tuple[int, int, int] | None = None
    """Decisions, deviations and preemptions of the schedule that was found, before shrinking."""
    again: tuple[str, ...] = ()
    """What the report says of how to run the schedule again, if it was not a call of ``search``."""

    def __bool__(self) -> bool:
        raise TypeError("a Result is neither true nor false: ask for result.failed, or call result.check()")

    @property
    def report(self) -> str:
        """The failure, for a person."""
        from .report import text_report

        return text_report(self)

    def save_svg(self, file: str | os.PathLike[str]) -> None:
        """Write the failing schedule as a timeline.  ValueError if nothing has failed."""
        from .timeline import svg_timeline

        FilePath(file).write_text(svg_timeline(self), encoding="utf-8")

    def check(self) -> Result:
        """Raise the exception, with the report as a note, if the search has found a failure; else return the result."""
        __tracebackhide__ = True  # pytest shows the program's frames
        if not self.failed:
            return self
        assert self.exception is not None
        error = self.exception
        if isinstance(error, UncontrolledNondeterminism | ReplayDivergence):
            # it comes from here, and not from the program
            error = error.with_traceback(None)
        if not any(note.startswith("swapco.testing") for note in getattr(error, "__notes__", ())):
            error.add_note(self.report)
        raise error


def search(
    body: Callable[[], Any],
    schedules: int = 1000,
    *,
    seed: int = 0,
    strategy: str | Strategy = "portfolio",
    preempt: str = "points",
    max_steps: int = 20_000,
    shrink_failure: bool = True,
    save: bool | str | os.PathLike[str] = True,
    switch: str | None = None,
    name: str | None = None,
) -> Result:
    """Run ``body`` under up to ``schedules`` schedules, until one fails; never raises what the body raises.

    ``body`` is a function without arguments, or an ``async def`` function; it runs as the main fiber, spawns fibers and
    asserts.  ``strategy`` is "portfolio", "random", "urw", "pct", "pos", "dfs", "dpor", or a ``Strategy``: ``PCT(3)``,
    ``DFS(preemption_bound=2)``, ``Replay("failure.json")``, ``Portfolio(Replay("failure.json"), URW())``, your own.
    ``seed`` is for strategies that have none of their own.  With ``preempt="primitives"`` a fiber may also be preempted
    where it calls an operation of a primitive that may block.  ``max_steps`` is how many moments a run may have before
    it counts as endless.  ``save`` is where the failing schedule is written: a file, True (below ``.swapco``, or
    ``$SWAPCO_FAILURES``) or False.  ``switch`` is what fibers run on.

    Errors: TypeError and ValueError for arguments that make no sense; RuntimeError inside an event loop.
    """
    program = Program(body, max_steps=max_steps, preempt=preempt, switch=switch)
    result = Result(name or name_of_body(body), strategy=_words_of(strategy), seed=seed)
    return _explored(program, result, make_strategy(strategy), schedules, shrink_failure, save)


def verify(
    body: Callable[[], Any],
    preemption_bound: int | None = 2,
    *,
    strategy: str | Strategy = "dfs",
    schedules: int = 100_000,
    preempt: str = "points",
    max_steps: int = 20_000,
    save: bool | str | os.PathLike[str] = True,
    switch: str | None = None,
    name: str | None = None,
) -> Result:
    """Run ``body`` under every schedule with at most ``preemption_bound`` preemptions (None: every schedule).

    The failure that it finds is the simplest there is.  ``strategy="dpor"`` runs one schedule of each set that differs
    only in the order of independent steps: far fewer, without a bound, but sound only where the body declares what
    its steps touch (``Shared``, ``schedule_point(obj)``, primitives; a bare ``schedule_point()`` conflicts with
    everything).  An exhaustive ``Strategy`` (``DFS(3)``, ``DPOR()``) has its own bound.  ``schedules`` is the limit:
    ``result.exhausted`` says whether it sufficed.  Otherwise as ``search``.
    """
    program = Program(body, max_steps=max_steps, preempt=preempt, switch=switch)
    bounded = DFS(preemption_bound)
    chosen = bounded if strategy == "dfs" else make_strategy(strategy)
    if not chosen.exhaustive:
        raise ValueError(f'strategy is "dfs" or "dpor", or an exhaustive Strategy, not {strategy!r}: use search()')
    result = Result(name or name_of_body(body), strategy=_words_of(strategy))
    return _explored(program, result, chosen, schedules, True, save)


def _explored(
    program: Program,
    result: Result,
    strategy: Strategy,
    schedules: int,
    shrink_failure: bool,
    save: bool | str | os.PathLike[str],
) -> Result:
    """Run schedules until one fails, the strategy has finished, or there were enough."""
    limit = positive("schedules", schedules)
    check_save(save)
    if not isinstance(result.seed, int):
        raise TypeError(f"a seed is a whole number, not {result.seed!r}")
    program.footprints = strategy.footprints
    result.exhaustive = strategy.exhaustive

    def session() -> Execution | None:
        strategy.start(result.seed)
        for number in range(limit):
            outcome = program.run(strategy, number)
            result.schedules += 1
            if outcome.kind == "aborted" and not isinstance(outcome.exception, Pruned):
                assert outcome.exception is not None
                raise outcome.exception
            if outcome.failed:
                return program.record(outcome)
            if strategy.finished:
                result.exhausted = strategy.exhaustive
                return None
            if number == 0:
                if not program.control.path():
                    # there is nothing to choose
                    result.exhausted = True
                    return None
                must_repeat(program, program.record(outcome))
        return None

    simplest = strategy.simplest_first
    return conclude(program, result, session, shrink_failure and not simplest, save, prove=not simplest)


def conclude(
    program: Program,
    result: Result,
    session: Callable[[], Execution | None],
    shrink_failure: bool,
    save: bool | str | os.PathLike[str],
    *,
    prove: bool,
) -> Result:
    """Search, and work on what was found."""

    def whole() -> None:
        found = session()
        if found is None:
            return
        result.failed = True
        result.exception = found.exception
        result.found = len(found.decisions), found.deviations, found.preemptions
        program.footprints = False
        must_repeat(program, found)
        simplest = found
        if shrink_failure:
            affordable = DECISIONS_LIMIT // (len(found.decisions) + 1)
            shrunk = shrink(
                program.execute,
                found,
                replays=min(SHRINK_LIMIT, affordable),
                proof=min(PROOF_LIMIT, affordable) if prove else 0,
            )
            simplest, result.minimal = shrunk.execution, shrunk.proved
            result.replays, result.proof_schedules = shrunk.replays, shrunk.proof_replays
        elif not prove:
            result.minimal = True
        _tell(program, result, simplest)

    try:
        program.session(whole)
    except UncontrolledNondeterminism as error:
        result.failed = True
        result.exception = error
    if result.failed and save is not False and result.schedule is not None:
        keep(result, failure_file(result.test) if save is True else FilePath(save))
    return result


def keep(result: Result, file: FilePath) -> None:
    """Write the failing schedule.  Where that cannot be done it is logged: the failure is what counts."""
    assert result.schedule is not None
    try:
        result.schedule._replace(test=result.test).save(file)
    except OSError as error:
        _log.warning("%s: the failing schedule is not kept in %s: %s (see SWAPCO_FAILURES)", result.test, file, error)
    else:
        result.path = _shown(file)


def _shown(file: FilePath) -> str:
    """Its path, relative to the working directory if it is below."""
    try:
        return str(file.relative_to(FilePath.cwd()))
    except (ValueError, OSError):
        return str(file)


def _tell(program: Program, result: Result, execution: Execution) -> None:
    """Run the failing schedule a last time, and look."""
    result.preemptions = execution.preemptions
    result.deviations = execution.deviations
    teller = Teller()
    path = execution.path
    outcome = program.run(_Told(path, teller), watcher=teller)
    if outcome.kind == "aborted":
        assert outcome.exception is not None
        raise outcome.exception
    if outcome.failed and fingerprint(outcome.exception) == execution.fingerprint:
        result.exception = outcome.exception
    result.story = teller.story()
    while path and path[-1] == 0:
        path.pop()
    place = headline_of(result.exception)
    result.schedule = Schedule(tuple(path), result.story.named, result.test, place, program.preempt)


class _Told(Path):
    """Follows a schedule, and lets the teller look at the end before the fibers that are left are ended."""

    def __init__(self, path: Sequence[int], teller: Teller) -> None:
        super().__init__(path)
        self._teller = teller

    def end(self, control: Any) -> None:
        """The run is over."""
        self._teller.over(control)


def must_repeat(program: Program, before: Execution) -> None:
    """UncontrolledNondeterminism if the same decisions show something else."""
    strategy = Path(before.path)
    now = program.record(program.run(strategy))
    differs = ""
    for at, (first, second) in enumerate(zip(before.decisions, now.decisions, strict=False)):
        if first != second:
            differs = (
                f"the same schedule, run again, differs from decision {at} on: first {_words(program, first)}, then "
                f"{_words(program, second)}"
            )
            break
    else:
        if len(before.decisions) != len(now.decisions):
            differs = (
                f"the same schedule had {len(before.decisions)} decisions, and {len(now.decisions)} when it was run "
                "again"
            )
        elif before.kind != now.kind or before.fingerprint != now.fingerprint:
            differs = f"the same schedule {_end(before)}, and {_end(now)} when it was run again"
    if differs:
        error = UncontrolledNondeterminism(f"{differs}. {_CAUSES}")
        error.difference = _first_difference(program, before.path)
        raise error


#: How often a program that does not repeat itself is run to see where.
_LOOKS = 4


def _first_difference(program: Program, path: Sequence[int]) -> tuple[str, ...]:
    """The first moment that differs between two more runs, in words; nothing if they are alike this time."""
    stories: list[Story] = []
    for _ in range(_LOOKS):
        teller = Teller()
        program.run(_Told(path, teller), watcher=teller)
        stories.append(teller.story())
        for before, now in itertools.zip_longest(stories[0].moments, stories[-1].moments):
            was, is_now = _seen(before), _seen(now)
            if was != is_now:
                return f"  once   {was}", f"  again  {is_now}"
    return ()


def _seen(moment: Moment | None) -> str:
    """What a person sees of a moment."""
    if moment is None:
        return "the run is over"
    who = "the run begins"
    if moment.before:
        place = f" at {moment.left.short}: {moment.left.source}" if moment.left is not None else ""
        who = f"{moment.before} {moment.outcome or f'stops ({moment.label})'}{place}"
    others = [name for name in moment.enabled if name != moment.chosen]
    return f"{who}; {moment.chosen} runs" + (f", {', '.join(others)} could" if others else "")


_CAUSES = (
    "Something besides the schedule decides what the program does: the clock, random numbers, the order of a set, a "
    "thread, data that hypothesis draws inside of the body, or what an earlier run left behind (make what it uses "
    "inside the body: the fixtures of a test, and self, are the same for all of its schedules)"
)


def _words(program: Program, decision: Any) -> str:
    names = [program.control.name(program.control.actor(actor)) for actor in decision.enabled if actor < program.actors]
    return f"{decision.label} with {', '.join(names)}"


def _end(execution: Execution) -> str:
    return f"raised {headline_of(execution.exception)}" if execution.failed else "passed"


# ------------------------------------------------------------------------------------------------- replaying


def run(
    body: Callable[[], Any],
    *,
    schedule: str | os.PathLike[str] | Schedule | Sequence[int] = (),
    preempt: str | None = None,
    max_steps: int = 20_000,
    switch: str | None = None,
) -> Any:
    """Run ``body`` once under a schedule (as production would, unless given); its result, or what it raises.

    ``schedule`` is a file, the code of a report, or a list of decisions; those that are not there, or are too large,
    count as 0.  ReplayDivergence for a file or a code that the program does not follow, and does not fail under.
    """
    wanted = load_schedule(schedule)
    if isinstance(schedule, str | os.PathLike) and preempt not in (None, wanted.preempt):
        raise ValueError(f"the schedule was recorded with preempt={wanted.preempt!r}: leave preempt= out")
    program = Program(body, max_steps=max_steps, preempt=preempt or wanted.preempt, switch=switch)
    strategy = Path(wanted.path)
    outcome = program.session(lambda: program.run(strategy))
    if outcome.failed:
        raise outcome.exception
    if isinstance(schedule, str | os.PathLike):
        missed = _missed(wanted, strategy)
        if missed:
            raise ReplayDivergence(f"the schedule does not fit {name_of_body(body)}: {missed}")
    return outcome.result


def replay(
    body: Callable[[], Any],
    schedule: str | os.PathLike[str] | Schedule | Sequence[int],
    *,
    max_steps: int = 20_000,
    switch: str | None = None,
) -> Result:
    """Run ``body`` under a recorded schedule; the Result does not raise: see ``Result.check``.

    The decisions are taken by number, and if that does not show the recorded failure, by name.  If neither fits the
    program, ``exception`` is a ReplayDivergence that says from where on.  Errors: ValueError and FileNotFoundError
    for what is no schedule.
    """
    wanted = load_schedule(schedule)
    program = Program(body, max_steps=max_steps, preempt=wanted.preempt, switch=switch)
    result = Result(name_of_body(body), strategy="replay", schedules=1)

    def session() -> None:
        by_number = Path(wanted.path)
        execution = program.record(program.run(by_number))
        missed = _missed(wanted, by_number)
        if not _is_failure_of(wanted, execution) and wanted.named:
            by_name = ByName(wanted.named)
            other = program.record(program.run(by_name))
            result.schedules = 2
            # names are what outlives a change; numbers can fit by chance
            missed = by_name.missed[0] if by_name.missed else ""
            if _is_failure_of(wanted, other) or (other.failed and not execution.failed):
                execution = other
        if missed and not execution.failed:
            result.failed = True
            result.exception = ReplayDivergence(
                f"the recorded schedule does not fit {result.test}: {missed}. Search again"
            )
            return
        if execution.failed:
            result.failed = True
            result.exception = execution.exception
            _tell(program, result, execution)

    program.session(session)
    return result


def _missed(wanted: Schedule, strategy: Path) -> str:
    """Where the run did not follow the schedule; "" if it did."""
    if strategy.diverged:
        return f"decision {strategy.first_divergence} has fewer possibilities than were recorded"
    if strategy.left:
        made = len(wanted.path) - strategy.left
        return f"it has {made} decisions, and decision {len(wanted.path) - 1} was recorded"
    return ""


def _is_failure_of(wanted: Schedule, execution: Execution) -> bool:
    if not execution.failed:
        return False
    return not wanted.failure or type(execution.exception).__name__ == wanted.failure.split(":", 1)[0]


# ------------------------------------------------------------------------------------------------- arguments


_STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "portfolio": Portfolio,
    "random": RandomWalk,
    "urw": URW,
    "pct": PCT,
    "pos": POS,
    "dfs": DFS,
    "dpor": DPOR,
}


def make_strategy(strategy: str | Strategy) -> Strategy:
    """The strategy of that name, or the one that was passed; ``start`` it.  ValueError for another name."""
    if isinstance(strategy, Strategy):
        return strategy
    if not isinstance(strategy, str) or strategy not in _STRATEGIES:
        raise ValueError(f"strategy is one of {', '.join(_STRATEGIES)}, or a Strategy, not {strategy!r}")
    return _STRATEGIES[strategy]()


def _words_of(strategy: str | Strategy) -> str:
    return strategy if isinstance(strategy, str) else repr(strategy)


def positive(name: str, value: int) -> int:
    """The value of an argument that counts something.  ValueError unless it is a whole number from 1 on."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is a number from 1 on, not {value!r}")
    return value


def name_of_body(body: Any) -> str:
    """What reports and files call it: its module and qualified name."""
    name = getattr(body, "__qualname__", type(body).__qualname__)
    module = getattr(body, "__module__", None)
    return f"{module}.{name}" if module else str(name)


def failure_file(test: str) -> FilePath:
    """Where the failing schedule of a test is kept: no two tests have the same file."""
    plain = test.replace("::", ".").replace("/", ".")
    name = re.sub(r"[^\w.\[\]-]+", "_", plain, flags=re.ASCII).strip("_")[-150:]
    return failures_directory() / (f"{name}.json" if name == plain else f"{name}-{zlib.crc32(test.encode()):08x}.json")
