"""Make a failing schedule simple: fewest preemptions, then fewest deviations, then the lexicographically first path.

What costs is the replays, so each one is to try much.  The schedule is seen as *segments*: maximal stretches of one
actor, each ended by a block (then it ends there in any other schedule, too) or by a preemption (then by its
length).  Candidates are made of segments, and followed by who runs rather than by index, because one change
shifts all indices after it (``FollowSegments``).  They come in this order:

1. Production itself.  Then the path without its end: a binary search for how much is needed (what follows a failure's
   cause is noise).
2. Consolidation (Jalbert & Sen, "A trace simplification technique for effective debugging of concurrent programs",
   2010) with the chunks of delta debugging (Zeller & Hildebrandt, "Simplifying and isolating failure-inducing
   input", 2002): in a chunk of segments those of one actor become one, where its first or its last was.  Chunks are
   halved when nothing helps.
3. One thing at a time: a segment goes on instead of being preempted, is dropped, or changes places with its
   neighbour; a deviation becomes 0, or a smaller index.
4. What is left of the budget goes to an exhaustive search from below (``SimplestFirst``): simple failures are few
   decisions away from production.  It often proves the result on the way.
5. Later deviations: the first path, in lexicographic order, of those as simple.

A candidate is accepted if it fails with the same fingerprint and is simpler; so the result is never worse than
the input, and every replay counts, whether it fails or not.

Rejected: to shrink raw indices only (one removed preemption makes noise of all that follows); delta debugging on the
set of deviations alone (it cannot join two segments of one actor, which takes two changes at a time).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .exhaust import SimplestFirst
from .trace import Chooser, Complexity, Execute, Execution, FollowPath, complexity, stripped

__all__ = ["FollowSegments", "Segment", "Shrunk", "segments_of", "shrink"]

TO_ITS_END = -1


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

    @property
    def path(self) -> list[int]:
        """The choices that lead to the failure, without the zeros at their end."""
        return list(stripped(self.execution.path))


def shrink(execute: Execute, execution: Execution, *, replays: int = 200) -> Shrunk:
    """Find a failing schedule that is as simple as ``replays`` runs can make it.

    Only failures with the fingerprint of ``execution`` count.

    Errors: ``ValueError`` when ``execution`` has not failed.
    """
    if not execution.failed:
        raise ValueError("only a failed execution can be shrunk: this one has not failed")
    shrinker = _Shrinker(execute, execution, replays)
    try:
        shrinker.run()
    except _Spent:
        pass
    return Shrunk(shrinker.best, shrinker.replays, shrinker.proved, shrinker.history)


class _Spent(Exception):
    """All replays are used up."""


class _Shrinker:
    """One failure that becomes simpler and simpler."""

    def __init__(self, execute: Execute, execution: Execution, limit: int) -> None:
        self.execute = execute
        self.fingerprint = execution.fingerprint
        self.best = execution
        self.complexity = complexity(execution)
        self.limit = limit
        self.replays = 0
        self.proved = False
        self.history = [self.complexity]
        self.runs: dict[object, Execution] = {self.complexity[2]: execution}

    def run(self) -> None:
        if not self.path(()):
            self.cut_tail()
            self.consolidate()
            self.thin_out()
            self.singly()
        self.from_below()
        self.later()

    # --- attempts

    def attempt(self, chooser: Chooser, key: object) -> bool:
        """Run it, unless it was run before; True if it is simpler."""
        return key not in self.runs and self.offer(self.replay(chooser, key))

    def replay(self, chooser: Chooser, key: object) -> Execution:
        known = self.runs.get(key)
        if known is not None:
            return known
        if self.replays >= self.limit:
            raise _Spent
        self.replays += 1
        execution = self.execute(chooser)
        self.runs[key] = self.runs[stripped(execution.path)] = execution
        return execution

    def offer(self, execution: Execution) -> bool:
        if not execution.failed or execution.fingerprint != self.fingerprint:
            return False
        found = complexity(execution)
        if found >= self.complexity:
            return False
        self.best, self.complexity = execution, found
        self.history.append(found)
        return True

    def path(self, path: Sequence[int]) -> bool:
        key = stripped(path)
        return self.attempt(FollowPath(key), key)

    def segments(self, segments: Sequence[Segment]) -> bool:
        return self.attempt(FollowSegments(segments), ("segments", *segments))

    def turns(self, turns: Sequence[Turn]) -> bool:
        return self.attempt(FollowTurns(turns), ("turns", *turns))

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
        while self.one_change():
            pass

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

    def from_below(self) -> None:
        """All simple schedules, simplest first."""
        while not self.proved:
            preemptions, deviations = self.complexity[:2]
            everything = SimplestFirst(below=(preemptions, deviations))
            few = SimplestFirst(preemptions, deviation_bound=deviations - 1)
            while not everything.exhausted and not self.one_run(everything) and not self.one_run(few):
                pass
            self.proved = everything.exhausted and self.complexity[:2] == (preemptions, deviations)

    def one_run(self, search: SimplestFirst) -> bool:
        chooser = search.next_chooser()
        if chooser is None:
            return False
        execution = self.replay(chooser, tuple(chooser.path))
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
                    if self.path(moved):
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
