"""Make a failing schedule simple: fewest preemptions, then fewest deviations, then the lexicographically first path.

What costs is the replays, so none is made whose outcome is known.  Who knows nothing of a program but its runs can call
a failure the simplest only after every simpler schedule has run: any of them could fail.  These runs are needed
anyhow, and in the order of simplicity (``SimplestFirst``) the first of them that fails is the result.  So they come
first, for as long as those that are still to be run, as far as they have been seen, fit into what is left of the
replays.  When they do not, the bound is too high or the program too large; then *candidates* are to lower the bound.

A candidate sees the schedule as *segments*: maximal stretches of one actor, each ended by a block (then it ends there
in any other schedule, too) or by a preemption (then by its length).  It is made of segments, and followed by who
runs rather than by index, because one change shifts all indices after it (``FollowSegments``).  In order:

1. The path without its end: a binary search for how much is needed (what follows a failure's cause is noise).
2. Consolidation (Jalbert & Sen, "A trace simplification technique for effective debugging of concurrent programs",
   2010) with the chunks of delta debugging (Zeller & Hildebrandt, "Simplifying and isolating failure-inducing
   input", 2002): in a chunk of segments those of one actor become one, where its first or its last was.  Chunks are
   halved when nothing helps.
3. One thing at a time: a segment goes on instead of being preempted, is dropped, or changes places with its
   neighbour; a deviation becomes 0, or a smaller index.
4. Two at a time: a segment goes on or is dropped, and any other one is moved; or another actor is preempted, with the
   order going round.  Two preemptions become one and a choice that is free in this way.
5. What is left goes to the simplest schedules, in turn of all and of those with fewer deviations.

In the end, deviations are made later: the first path, in lexicographic order, of those as simple.

Invariants
----------
- A candidate is accepted if it fails with the same fingerprint and is simpler; so the result is never worse than
  the input, and every replay counts, whether it fails or not.
- No schedule runs twice within ``replays``.  Known runs make a tree (``_Runs``), in which a chooser is followed without
  a run: to a run that is known, or to a decision at which it is no simpler than the best one already, or to where
  it leaves what is known.
- ``proved`` means that every simpler schedule has run, with no trust in what steps declare.

Rejected: to shrink raw indices only (one removed preemption makes noise of all that follows); delta debugging on the
set of deviations alone (it cannot join two segments of one actor, which takes two changes at a time); candidates first
and the proof afterwards (twice the replays where few schedules are simpler); footprints for the proof (a lie in one
of them would make it false, and they saved less than 5 % of the schedules where it was measured, as their order counts
as deviations); fibers that are alike taken for the same (a body may ask which one it is).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from .exhaust import SimplestFirst, difference
from .trace import (
    Chooser,
    Complexity,
    Execute,
    Execution,
    FollowPath,
    UncontrolledNondeterminism,
    complexity,
    stripped,
)

__all__ = ["FollowSegments", "Segment", "Shrunk", "segments_of", "shrink"]

TO_ITS_END = -1
LOOK = 50
"""After so many runs of a proof it is looked how many are left."""


class Segment(NamedTuple):
    """A stretch of one actor."""

    actor: int
    length: int
    """The number of decisions that let it begin or go on; ``TO_ITS_END``: until it blocks, yields or ends."""


def segments_of(execution: Execution) -> list[Segment]:
    """The stretches of a run.  Those that no decision began or continued are left out: nobody had a choice."""
    segments: list[Segment] = []
    actor = -1
    length = 0
    for enabled, current, chosen, _ in execution.decisions:
        if current >= 0 and current != actor:  # nobody else could run when it began
            if actor >= 0:
                segments.append(Segment(actor, TO_ITS_END))
            actor, length = current, 0
        if current >= 0 and not chosen:
            length += 1
            continue
        if actor >= 0 and (length or current < 0):
            segments.append(Segment(actor, length if current >= 0 else TO_ITS_END))
        actor, length = enabled[chosen], 1
    if actor >= 0:
        segments.append(Segment(actor, TO_ITS_END))
    return segments


class FollowSegments:
    """Follow segments by who runs; then do what production would do.

    A segment whose actor cannot run when its turn comes is skipped.
    """

    __slots__ = ("_at", "_left", "_segments", "_started")

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._at = 0
        self._left = 0
        self._started = False

    def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
        segments = self._segments
        if self._started:
            if current == segments[self._at].actor and self._left:
                self._left -= 1
                return 0
            self._at += 1
            self._started = False
        for at in range(self._at, len(segments)):
            actor, length = segments[at]
            if actor in enabled:
                self._at = at
                self._left = length - 1 if length != TO_ITS_END else -1
                self._started = True
                return enabled.index(actor)
        self._at = len(segments)
        return 0


class Turn(NamedTuple):
    """A deviation, named by where its moment is in the program, not in the schedule."""

    actor: int
    """Who is current there; or who ran last."""
    preempted: bool
    nth: int
    """The how many-th moment of this actor and kind it is."""
    target: int
    """The actor that runs instead."""


def turns_of(execution: Execution) -> list[Turn]:
    """The deviations of a run."""
    turns = []
    counts: dict[tuple[int, bool], int] = {}
    actor = -1
    for enabled, current, chosen, _ in execution.decisions:
        moment = (current, True) if current >= 0 else (actor, False)
        count = counts[moment] = counts.get(moment, 0) + 1
        actor = enabled[chosen]
        if chosen:
            turns.append(Turn(*moment, count, actor))
    return turns


class FollowTurns:
    """Do what production would do, except at some moments."""

    __slots__ = ("_actor", "_counts", "_turns")

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = {turn[:3]: turn.target for turn in turns}
        self._counts: dict[tuple[int, bool], int] = {}
        self._actor = -1

    def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
        moment = (current, True) if current >= 0 else (self._actor, False)
        count = self._counts[moment] = self._counts.get(moment, 0) + 1
        target = self._turns.get((*moment, count), -1)
        if target in enabled:
            self._actor = target
            return enabled.index(target)
        self._actor = enabled[0]
        return 0


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The simplest failure that was found."""

    execution: Execution
    replays: int
    """How many runs it took."""
    proved: bool
    """No failing schedule has fewer preemptions, or as many and fewer deviations."""
    history: list[Complexity] = field(default_factory=list)
    """The complexities on the way, from the first failure to the result."""
    proof_replays: int = 0
    """How many more it took to prove it, or to see that so many do not suffice."""

    @property
    def path(self) -> list[int]:
        """The choices that lead to the failure, without the zeros at their end."""
        return list(stripped(self.execution.path))


def shrink(execute: Execute, execution: Execution, *, replays: int = 200, proof: int = 0) -> Shrunk:
    """Find a failing schedule that is as simple as ``replays`` runs can make it.

    Only failures with the fingerprint of ``execution`` count.  ``proof``: how many more runs the proof may take that
    none is simpler.

    Errors: ``ValueError`` when ``execution`` has not failed; ``UncontrolledNondeterminism``.
    """
    if not execution.failed:
        raise ValueError("only a failed execution can be shrunk: this one has not failed")
    shrinker = _Shrinker(execute, execution, replays)
    with suppress(_Spent):
        shrinker.run()
    spent = shrinker.replays
    if spent == replays and proof:
        shrinker.limit += proof
        with suppress(_Spent):
            shrinker.prove()
            if shrinker.proved:
                shrinker.later()
    return Shrunk(shrinker.best, spent, shrinker.proved, shrinker.history, shrinker.replays - spent)


class _Spent(Exception):
    """All replays are used up."""


class _Proved(Exception):
    """No simpler failure is left to be found."""


class _Runs:
    """The runs that are known, as a tree: where two part, the later one hangs on the earlier one.

    It foresees what a chooser would do for as long as others did the same.
    """

    def __init__(self, first: Execution) -> None:
        self._runs = [first]
        self._parents = [(0, -1)]  # of each run the one that it hangs on, and the last decision that they share
        self._branches: dict[tuple[int, int, int], int] = {}  # (run, decision, choice) -> run
        self._by_path = {stripped(first.path): 0}

    def by_path(self, path: tuple[int, ...]) -> Execution | None:
        """The run with this path, which has no zeros at its end."""
        number = self._by_path.get(path)
        return None if number is None else self._runs[number]

    def add(self, execution: Execution, before: Execution, at: int) -> None:
        """A run that is as a known one up to decision ``at``, where it chose otherwise."""
        parent = self._by_path[stripped(before.path)]
        while at <= self._parents[parent][1]:
            parent = self._parents[parent][0]
        number = self._by_path[stripped(execution.path)] = len(self._runs)
        self._branches[parent, at, execution.decisions[at][2]] = number
        self._runs.append(execution)
        self._parents.append((parent, at))

    def foresee(self, chooser: Chooser, best: Complexity) -> tuple[Execution, int] | None:
        """What the chooser would do: the run, and the decision at which it leaves it for an unknown one, or -1.

        None: it would not be simpler than ``best``, whatever comes after what is known.
        """
        number, at, preemptions, deviations = 0, 0, 0, 0
        most = best[:2]
        runs, branches, choose = self._runs, self._branches, chooser.choose
        decisions = runs[0].decisions
        while at < len(decisions):
            enabled, current, chosen, label = decisions[at]
            choice = choose(enabled, current, label)
            if choice:
                deviations += 1
                preemptions += current >= 0
                if (preemptions, deviations) > most:
                    return None
            if choice != chosen:
                found = branches.get((number, at, choice))
                if found is None:
                    run = runs[number]
                    path = (*[decision[2] for decision in decisions[:at]], choice)
                    return None if (preemptions, deviations, path) > best else (run, at)
                number = found
                decisions = runs[number].decisions
            at += 1
        return runs[number], -1


class _Shrinker:
    """One failure that becomes simpler and simpler."""

    def __init__(self, execute: Execute, execution: Execution, limit: int) -> None:
        self.execute = execute
        self.fingerprint = execution.fingerprint
        self.best = execution
        self.complexity = complexity(execution)
        self.limit = limit
        self.replays = 0
        self.history = [self.complexity]
        self.runs = _Runs(execution)
        self.below = SimplestFirst(below=self.complexity[:2])

    @property
    def proved(self) -> bool:
        """Every simpler schedule was run."""
        return self.below.exhausted

    def run(self) -> None:
        with suppress(_Proved):
            self.attempt(partial(FollowPath, ()))
            self.from_below()
            self.cut_tail()
            self.consolidate()
            self.thin_out()
            self.singly()
            self.larger()
            self.simple_ones()
        self.later()

    # --- attempts

    def attempt(self, make: Callable[[], Chooser]) -> bool:
        """Run it, unless what would come of it is known; True if it is simpler."""
        foreseen = self.runs.foresee(make(), self.complexity)
        if foreseen is None:
            return False
        execution, at = foreseen
        if at >= 0:
            execution = self.replay(make(), execution, at)
        return self.offer(execution)

    def replay(self, chooser: Chooser, before: Execution, at: int) -> Execution:
        """A run that is as the one ``before`` up to decision ``at``, and then chooses otherwise."""
        execution = self.spend(chooser)
        now = execution.decisions
        if len(now) <= at or now[at][0] != before.decisions[at][0]:
            chosen = now[at][2] if len(now) > at else 0
            raise UncontrolledNondeterminism(difference([*before.path[:at], chosen], now, before.decisions))
        self.runs.add(execution, before, at)
        return execution

    def spend(self, chooser: Chooser) -> Execution:
        if self.replays >= self.limit:
            raise _Spent
        self.replays += 1
        return self.execute(chooser)

    def offer(self, execution: Execution) -> bool:
        if not execution.failed or execution.fingerprint != self.fingerprint:
            return False
        found = complexity(execution)
        if found >= self.complexity:
            return False
        self.best, self.complexity = execution, found
        self.history.append(found)
        self.below.lower(found[:2])
        return True

    def path(self, path: Sequence[int]) -> bool:
        self.from_below()
        return self.attempt(partial(FollowPath, stripped(path)))

    def segments(self, segments: Sequence[Segment]) -> bool:
        self.from_below()
        return self.attempt(partial(FollowSegments, segments))

    def turns(self, turns: Sequence[Turn]) -> bool:
        self.from_below()
        return self.attempt(partial(FollowTurns, turns))

    # --- candidates

    def cut_tail(self) -> None:
        """Drop as many of the last deviations as possible."""
        path = self.complexity[2]
        deviations = [at for at, choice in enumerate(path) if choice]
        few, many = 0, len(deviations)
        while few + 1 < many:
            middle = (few + many) // 2
            if self.path(path[: deviations[middle - 1] + 1]):
                path = self.complexity[2]
                deviations = [at for at, choice in enumerate(path) if choice]
                many = min(middle, len(deviations))
            else:
                few = middle

    def consolidate(self) -> None:
        """Join the segments of one actor, in chunks."""
        segments = segments_of(self.best)
        size = len(segments)
        while size >= 2:
            begin, helped = 0, False
            while begin < len(segments):
                end = min(begin + size, len(segments))
                for chunk in _joined(segments[begin:end]):
                    if self.segments(_merged([*segments[:begin], *chunk, *segments[end:]])):
                        segments = segments_of(self.best)
                        helped = True
                        break
                else:
                    begin += max(1, size // 2)
            if not helped or size > len(segments):
                size = min(size, len(segments)) // 2

    def thin_out(self) -> None:
        """Drop deviations, in chunks."""
        turns = turns_of(self.best)
        size = len(turns) // 2
        while size:
            begin, helped = 0, False
            while begin < len(turns):
                if self.turns([*turns[:begin], *turns[begin + size :]]):
                    turns = turns_of(self.best)
                    helped = True
                else:
                    begin += size
            if not helped or size > len(turns):
                size = min(size, len(turns)) // 2

    def singly(self) -> None:
        """Change one thing, until nothing helps."""
        best: Execution | None = None
        while best is not self.best:
            best = self.best
            self.one_change()

    def one_change(self) -> bool:
        for candidate in _changes(segments_of(self.best)):
            if self.segments(candidate):
                return True
        path = self.complexity[2]
        for at in reversed(range(len(path))):
            for choice in range(path[at]):
                if self.path((*path[:at], choice, *path[at + 1 :])):
                    return True
        return False

    def larger(self) -> None:
        """Change more than one thing, until nothing helps."""
        best: Execution | None = None
        while best is not self.best:
            best = self.best
            for candidate in _larger_changes(best):
                if self.segments(candidate):
                    self.singly()
                    break

    def from_below(self) -> None:
        """All simple schedules, simplest first, for as long as there seem to be enough replays for them."""
        while self.below.pending <= self.limit - self.replays:
            if self.proved:
                raise _Proved
            self.one_run(self.below)

    def simple_ones(self) -> None:
        """In turn the simplest of all, and of those with fewer deviations and no more preemptions."""
        best: Execution | None = None
        while not self.proved:
            if best is not self.best:
                best = self.best
                preemptions, deviations = self.complexity[:2]
                few = SimplestFirst(preemptions, deviation_bound=deviations - 1)
            if not self.one_run(self.below):
                self.one_run(few)

    def prove(self) -> None:
        """All simpler schedules; what they come to is not kept.

        Given up once there are too many even of those with two deviations less.  With one less are the most, but a
        failure that is met before may be simpler than that.
        """
        below, number = self.below, 0
        preemptions, deviations = self.complexity[:2]
        while (chooser := below.next_chooser()) is not None:
            if not number % LOOK and below.pending_below((preemptions, deviations - 1)) > self.limit - self.replays:
                break
            number += 1
            execution = self.runs.by_path(tuple(chooser.path))
            if execution is None:
                execution = self.spend(chooser)
            below.record(execution)
            self.offer(execution)

    def one_run(self, search: SimplestFirst) -> bool:
        chooser = search.next_chooser()
        if chooser is None:
            return False
        path = tuple(chooser.path)
        execution = self.runs.by_path(path)
        if execution is None:
            before = self.runs.by_path(stripped(path[:-1]))
            assert before is not None, "a schedule comes after the one that has a deviation less"
            execution = self.replay(chooser, before, len(path) - 1)
        search.record(execution)
        return self.offer(execution)

    def later(self) -> None:
        """Move each deviation to the end as far as it goes."""
        while self.one_later():
            pass

    def one_later(self) -> bool:
        path = self.complexity[2]
        decisions = self.best.decisions
        for at in [at for at, choice in enumerate(path) if choice]:
            for to in reversed(range(at + 1, len(decisions))):
                if to < len(path) and path[to]:
                    continue
                moved = list(path) + [0] * (to + 1 - len(path))
                moved[at] = 0
                for choice in range(1, len(decisions[to].enabled)):
                    moved[to] = choice
                    if self.attempt(partial(FollowPath, stripped(moved))):
                        return True
        return False


def _joined(chunk: Sequence[Segment]) -> Iterator[list[Segment]]:
    """The chunk with one segment for each actor: where its first is, where its last is."""
    lengths: dict[int, int] = {}
    for actor, length in chunk:
        before = lengths.get(actor, 0)
        lengths[actor] = TO_ITS_END if TO_ITS_END in (before, length) else before + length
    if len(lengths) == len(chunk):
        return
    yield [Segment(actor, length) for actor, length in lengths.items()]
    last = dict.fromkeys(actor for actor, _ in reversed(chunk))
    yield [Segment(actor, lengths[actor]) for actor in reversed(last)]


def _merged(segments: Sequence[Segment]) -> list[Segment]:
    """Neighbours of the same actor are one segment, unless the first ends by itself."""
    merged: list[Segment] = []
    for segment in segments:
        if merged and merged[-1].actor == segment.actor and merged[-1].length != TO_ITS_END:
            length = TO_ITS_END if segment.length == TO_ITS_END else merged[-1].length + segment.length
            merged[-1] = Segment(segment.actor, length)
        else:
            merged.append(segment)
    return merged


def _changes(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Segments with one change."""
    for at in reversed(range(len(segments))):
        actor, length = segments[at]
        before, after = segments[:at], segments[at + 1 :]
        if length != TO_ITS_END:
            yield [*before, Segment(actor, TO_ITS_END), *after]  # goes on to its end
            for other in range(len(after)):
                if after[other].actor == actor:  # joined with its next one, here or there
                    yield _merged([*before, segments[at], after[other], *after[:other], *after[other + 1 :]])
                    yield _merged([*before, *after[:other], segments[at], *after[other:]])
                    break
        yield _merged([*before, *after])
        if after:
            yield _merged([*before, after[0], segments[at], *after[1:]])


def _larger_changes(execution: Execution) -> Iterator[list[Segment]]:
    """The segments of a run with two changes, or with another actor that is preempted."""
    segments = segments_of(execution)
    points = Counter(current for _, current, _, _ in execution.decisions)
    for at in reversed(range(len(segments))):
        actor, length = segments[at]
        if length != TO_ITS_END:
            whole = [*segments[:at], Segment(actor, TO_ITS_END), *segments[at + 1 :]]
            yield from _with_one_moved(whole)
            yield from _with_another_preempted(whole, at, points)
    yield from _with_one_moved(segments)
    for at in reversed(range(len(segments))):
        yield from _with_one_moved([*segments[:at], *segments[at + 1 :]])


def _with_one_moved(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Or dropped."""
    for at in range(len(segments)):
        rest = [*segments[:at], *segments[at + 1 :]]
        yield _merged(rest)
        for to in range(len(segments)):
            if to != at:
                yield _merged([*rest[:to], segments[at], *rest[to:]])


def _with_another_preempted(segments: list[Segment], at: int, points: Mapping[int, int]) -> Iterator[list[Segment]]:
    """A later one than that ``at`` is: it comes first, at each of its points; the order goes round, as in a cycle."""
    before, around = segments[:at], segments[at:]
    for turn in range(1, len(around)):
        actor = around[turn].actor
        for length in range(1, points[actor] + 1):
            yield [*before, Segment(actor, length), *around[turn + 1 :], *around[:turn]]
