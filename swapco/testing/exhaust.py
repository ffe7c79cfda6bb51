"""Every schedule of a program: enumeration, and the proof that a failure is as simple as possible.

Stateless search (Godefroid, "Model checking for programming languages using VeriSoft", 1997): nothing of a state is
kept but the path that leads to it, so the program needs no snapshots, only to do the same again on the same path.
A schedule is named by its *prefix*: its path up to the last deviation; after it everything is as in production.
Each prefix is run once.  A run shows which decisions follow its prefix; a deviation at one of them is a child of
the schedule.  So the schedules form a tree, whose root is production itself.

Two orders:

- ``DepthFirst``: lexicographic.  It keeps one path, whatever the size of the program.
- ``SimplestFirst``: in the order of simplicity (``trace``), so that the first failure that it finds *is* the simplest
  one.  A child has one deviation more than its parent and at least as many preemptions: it is never simpler, and a
  heap of the simplest children yet to run is all it takes (Dijkstra's algorithm).  This is iterative bounding
  (Musuvathi & Qadeer, "Iterative context bounding", 2007) with every bound at once, and no schedule runs twice.  It
  keeps about three short strings for a schedule that has children left to run.

A proof that nothing simpler fails has to run *all* that is simpler, if nothing is known of the program but its runs.
How many that are is not known before, but a lower bound is: the children of those that have run (``pending``).

``SimplestFirst`` also prunes, if runs come with footprints (after Musuvathi & Qadeer, "Partial-order reduction for
context-bounded state exploration", 2007).  A state is what led to it: its steps, and which of them depend on which (a
Mazurkiewicz trace), with the run queue's order, on which deviations are counted, and the current actor.  A state that
is met again has been met in a simpler way before; whatever can follow here followed there.  So its decisions have
no children.  This keeps the order by preemptions and deviations exact, with any bound on them, which sleep sets do
not; but where footprints are wrong it is wrong, too.  States are compared by sums of 64-bit hashes: among a
million the chance that any two collide is 1 in 40 million.

Rejected: to run each bound's search from the start (dejafu; runs simple schedules again for every bound); to ask only
for a bound on deviations (delay bounding: most schedules with few preemptions but many free choices come too late).
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .trace import Chooser, Decision, Execute, Execution, FollowPath, UncontrolledNondeterminism, choices_within

__all__ = [
    "DepthFirst",
    "Enumeration",
    "Exhaustion",
    "MinimumProof",
    "SimplestFirst",
    "difference",
    "exhaust",
    "prove_minimum",
    "simpler_schedules",
]

NOWHERE = 1 << 62
HASH_MASK = (1 << 64) - 1


class Enumeration(ABC):
    """Schedules, one after the other: what every exhaustive search has in common.

    ``for chooser in search: search.record(execute(chooser))`` runs them all.  Every chooser's run must be recorded
    before the next one is asked for.
    """

    def __init__(self) -> None:
        self.schedules = 0
        """Runs that were recorded."""
        self.pruned = 0
        """Those of them that only repeated what was known."""
        self.decisions = 0
        """Decisions of these runs: the nodes of the search."""

    @property
    @abstractmethod
    def exhausted(self) -> bool:
        """Nothing is left to run."""

    @abstractmethod
    def next_chooser(self) -> Chooser | None:
        """For the next run; None when all have been run."""

    @abstractmethod
    def record(self, execution: Execution) -> None:
        """What came of it.

        Errors: ``UncontrolledNondeterminism`` when the run differs from the one that it should repeat.
        """

    def __iter__(self) -> Iterator[Chooser]:
        while (chooser := self.next_chooser()) is not None:
            yield chooser


class DepthFirst(Enumeration):
    """All schedules in lexicographic order, within bounds.

    ``preemption_bound``, ``deviation_bound``: how many a schedule may have; None is any number.
    ``depth_bound``: deviations only at that many first decisions.
    """

    def __init__(
        self,
        preemption_bound: int | None = None,
        *,
        deviation_bound: int | None = None,
        depth_bound: int | None = None,
    ) -> None:
        super().__init__()
        self.preemption_bound = NOWHERE if preemption_bound is None else preemption_bound
        self.deviation_bound = NOWHERE if deviation_bound is None else deviation_bound
        self.depth_bound = NOWHERE if depth_bound is None else depth_bound
        self._prefix: list[int] | None = []
        self._last: list[Decision] = []

    @property
    def exhausted(self) -> bool:
        return self._prefix is None

    def next_chooser(self) -> FollowPath | None:
        return None if self._prefix is None else FollowPath(self._prefix)

    def record(self, execution: Execution) -> None:
        decisions = execution.decisions
        prefix = self._prefix
        assert prefix is not None, "there was nothing left to run"
        _must_repeat(self._last, decisions, len(prefix), prefix)
        self.schedules += 1
        self.decisions += len(decisions)
        self._last = decisions
        self._prefix = self._successor(decisions)

    def _successor(self, decisions: list[Decision]) -> list[int] | None:
        """The next path: the last choice that can be raised is."""
        preemptions = deviations = 0
        at, best = 0, -1
        for at, (enabled, current, chosen, _) in enumerate(decisions):
            if at >= self.depth_bound:
                break
            if chosen + 1 < len(enabled) and (
                preemptions + (current >= 0) <= self.preemption_bound and deviations < self.deviation_bound
            ):
                best = at
            if chosen:
                deviations += 1
                preemptions += current >= 0
        if best < 0:
            return None
        return [decision[2] for decision in decisions[:best]] + [decisions[best][2] + 1]


class _Children:
    """The schedules that deviate once more than ``prefix``, all by a preemption or all without, simplest first."""

    __slots__ = ("_arities", "_at", "_choice", "_prefix", "deviations", "left", "preemptions")

    def __init__(self, prefix: str, arities: list[int], preemptions: int, deviations: int) -> None:
        self._prefix = prefix
        self._arities = "".join(map(chr, arities))  # of the decisions after the prefix; 1 for those of the other kind
        self.left = sum(arities) - len(arities)  # how many ``next`` has not returned
        self._at = len(arities)
        self._choice = 0
        self.preemptions = preemptions
        self.deviations = deviations

    def next(self) -> str | None:
        """The path of the next one.  The latest deviation comes first: the path begins with more zeros."""
        if not self._choice:
            at = self._at - 1
            while at >= 0 and self._arities[at] == "\1":
                at -= 1
            if at < 0:
                return None
            self._at = at
        self.left -= 1
        self._choice += 1
        path = self._prefix + "\0" * self._at + chr(self._choice)
        if self._choice + 1 >= ord(self._arities[self._at]):
            self._choice = 0
        return path


class SimplestFirst(Enumeration):
    """All schedules in the order of simplicity, within bounds: the first failure is the simplest one.

    ``preemption_bound``, ``deviation_bound``: how many a schedule may have; None is any number.
    ``below``: only schedules whose pair (preemptions, deviations) is smaller than this one.
    ``reduce``: where runs come with footprints, do not go on from a state that was met before; the schedules
    that are left out repeat a simpler one.
    ``count_deviations``: False reduces more.  States that differ only in the order of the run queue count as one, and
    the order of simplicity, and ``deviation_bound``, hold for preemptions only.

    Paths are kept as strings, one character for a choice: they compare as paths do, in a fifth of the memory.
    """

    def __init__(
        self,
        preemption_bound: int | None = None,
        *,
        deviation_bound: int | None = None,
        below: tuple[int, int] | None = None,
        reduce: bool = True,
        count_deviations: bool = True,
    ) -> None:
        super().__init__()
        self.count_deviations = count_deviations
        self.preemption_bound = NOWHERE if preemption_bound is None else preemption_bound
        self.deviation_bound = NOWHERE if deviation_bound is None else deviation_bound
        self.below = (NOWHERE, NOWHERE) if below is None else below
        self.reduce = reduce
        self._heap: list[tuple[int, int, str, _Children | None]] = []
        self._states: dict[_State, int] = {}  # the fewest deviations on a way there
        if deviation_bound is not None and not count_deviations:
            raise ValueError("a deviation_bound needs count_deviations")
        self.pending = 0
        """Schedules that are left to run for sure: those after them nobody has seen yet."""
        if self.below > (0, 0) and self.preemption_bound >= 0 and self.deviation_bound >= 0:
            self._heap.append((0, 0, "", None))
            self.pending = 1

    @property
    def exhausted(self) -> bool:
        return not self._heap

    def lower(self, below: tuple[int, int]) -> None:
        """From now on only schedules whose pair (preemptions, deviations) is smaller than ``below``."""
        self.below = min(self.below, below)
        self._heap = [entry for entry in self._heap if entry[:2] < below]
        heapq.heapify(self._heap)
        self.pending = self.pending_below(below)

    def pending_below(self, bound: tuple[int, int]) -> int:
        """How many of ``pending`` have a pair (preemptions, deviations) smaller than ``bound``."""
        return sum([1 + (0 if entry[3] is None else entry[3].left) for entry in self._heap if entry[:2] < bound])

    def next_chooser(self) -> FollowPath | None:
        return FollowPath([ord(choice) for choice in self._heap[0][2]]) if self._heap else None

    def record(self, execution: Execution) -> None:
        preemptions, deviations, prefix, siblings = self._heap[0]
        decisions = execution.decisions
        self.schedules += 1
        self.decisions += len(decisions)
        begin = len(prefix)
        if "".join([chr(decision[2]) for decision in decisions[:begin]]) != prefix:
            raise UncontrolledNondeterminism(difference([ord(choice) for choice in prefix], decisions))
        self.pending -= 1
        follower = None if siblings is None else siblings.next()
        if follower is None:
            heapq.heappop(self._heap)
        else:
            assert siblings is not None
            heapq.heapreplace(self._heap, (siblings.preemptions, siblings.deviations, follower, siblings))
        end = self._known_from(execution, begin, deviations) if self.reduce and execution.steps else len(decisions)
        if deviations >= self.deviation_bound:
            return
        for preempts in (False, True):
            children_preemptions = preemptions + preempts
            if children_preemptions > self.preemption_bound or (children_preemptions, deviations + 1) >= self.below:
                break
            arities = [len(d[0]) if (d[1] >= 0) is preempts else 1 for d in decisions[begin:end]]
            children = _Children(prefix, arities, children_preemptions, deviations + 1)
            self.pending += children.left
            path = children.next()
            if path is not None:
                heapq.heappush(self._heap, (children_preemptions, deviations + 1, path, children))

    def _known_from(self, execution: Execution, begin: int, deviations: int) -> int:
        """The first decision after the prefix whose state was met before; the others are noted.

        Nobody came here before with more preemptions.  But perhaps with more deviations, and then more of them are left
        now: with a bound on deviations that is another state.
        """
        for decision, state in _states(execution, self.schedules):
            if decision < begin:
                continue
            if not self.count_deviations:
                state = state._replace(queue=tuple(sorted(state.queue)))
            before = self._states.get(state)
            if before is not None and (before <= deviations or self.deviation_bound == NOWHERE):
                if decision == begin:
                    self.pruned += 1
                return decision
            self._states[state] = deviations
        return len(execution.decisions)


class _State(NamedTuple):
    past: int
    queue: tuple[int, ...]
    current: int


def _states(execution: Execution, run: int) -> Iterator[tuple[int, _State]]:
    """The state at each decision.

    A step's hash is made of its actor's and of the hashes of those before it on which it depends; an actor's of the
    step that made it.  So both are the same in every order of the same steps that keeps the dependences.  An actor of
    which nobody knows where it came from gets a hash of this ``run`` only.
    """
    decisions = execution.decisions
    actors: dict[int, int] = {}
    previous: dict[int, int] = {}  # actor -> its last step
    waker: dict[int, int] = {}  # actor -> the step that woke it
    written: dict[int, int] = {}  # object -> the last step that wrote it
    read: dict[int, int] = {}  # object -> the sum of the steps that read it since
    barrier = 0  # the last undeclared step, with all before it
    past = latest = 0
    choices = choices_within(execution)
    for step, (actor, at, reads, writes, declared, woke, enabled) in enumerate(execution.steps):
        for new in enabled:
            if new not in actors:
                actors[new] = hash((latest, run, len(actors))) if actors else 0
        if at >= 0:
            current = decisions[at][1]
            queue = tuple([actors[other] for other in enabled])
            yield at, _State(past, queue, -1 if current < 0 else actors[current])
        if declared:
            seen = [barrier]
            for thing in sorted(writes):
                seen += (written.get(thing, 0), read.pop(thing, 0))
            for thing in sorted(reads - writes):
                seen.append(written.get(thing, 0))
        else:
            seen = [past]
        seen += [chosen for _, chosen in choices.get(step, ())]
        latest = hash((actors[actor], previous.get(actor, 0), waker.pop(actor, 0), *seen))
        previous[actor] = latest
        past = (past + latest) & HASH_MASK
        for thing in writes:
            written[thing] = latest
        for thing in reads - writes:
            read[thing] = (read.get(thing, 0) + latest) & HASH_MASK
        if not declared:
            barrier = past
        for number, other in enumerate(woke):
            waker[other] = latest
            if other not in actors:
                actors[other] = hash((latest, number))


class Exhaustion(NamedTuple):
    """What an exhaustive search has seen."""

    exhausted: bool
    """Every schedule within the bounds was run, or repeats one that was."""
    schedules: int
    pruned: int
    decisions: int
    failure: Execution | None
    """The first failure that was met; with ``SimplestFirst`` the simplest one."""


def exhaust(
    execute: Execute,
    search: Enumeration,
    *,
    max_schedules: int | None = None,
    max_decisions: int | None = None,
    only: int | None = None,
    keep_going: bool = False,
) -> Exhaustion:
    """Run all schedules of ``search``, up to the first failure unless ``keep_going``.

    ``only``: the fingerprint of the failures that count; None is any.

    ``max_schedules`` and ``max_decisions`` count from the beginning of the search: one that was interrupted goes on
    where it stopped when this is called with higher limits.

    Errors: ``UncontrolledNondeterminism``.
    """
    most_schedules = NOWHERE if max_schedules is None else max_schedules
    most_decisions = NOWHERE if max_decisions is None else max_decisions
    failure = None
    for chooser in _limited(search, most_schedules, most_decisions):
        execution = execute(chooser)
        search.record(execution)
        if execution.failed and failure is None and (only is None or execution.fingerprint == only):
            failure = execution
            if not keep_going:
                break
    return Exhaustion(search.exhausted, search.schedules, search.pruned, search.decisions, failure)


def _limited(search: Enumeration, most_schedules: int, most_decisions: int) -> Iterator[Chooser]:
    for chooser in search:
        if search.schedules >= most_schedules or search.decisions >= most_decisions:
            return
        yield chooser


def simpler_schedules(execution: Execution, *, reduce: bool = True) -> list[SimplestFirst]:
    """Searches through all schedules with fewer preemptions than ``execution``, or as many but fewer deviations.

    First those with fewer deviations and no more preemptions: they are not many.  Then all with fewer preemptions,
    whose deviations need not be counted, so that more of them repeat each other.
    """
    preemptions, deviations = execution.preemptions, execution.deviations
    return [
        SimplestFirst(preemptions, deviation_bound=deviations - 1, reduce=reduce),
        SimplestFirst(preemptions - 1, reduce=reduce, count_deviations=False),
    ]


@dataclass(frozen=True, slots=True)
class MinimumProof:
    """Whether a failure is the simplest one, by preemptions and then by deviations."""

    proved: bool
    """No failing schedule is simpler than ``simplest``."""
    simplest: Execution
    """The failure itself, or a simpler one that the search came across."""
    schedules: int
    """How many were run."""


def prove_minimum(
    execute: Execute,
    execution: Execution,
    *,
    limit: int = 10_000,
    any_failure: bool = False,
    reduce: bool = True,
) -> MinimumProof:
    """Run every schedule with fewer preemptions than the failed ``execution``, or as many but fewer deviations.

    ``limit``: at most so many schedules; when they do not suffice nothing is proved.
    ``any_failure``: any failure counts; else only one with the same fingerprint.
    ``reduce``: trust footprints (``SimplestFirst``).

    A schedule that fails becomes the simplest one, to be proved in turn.

    Errors: ``ValueError`` when ``execution`` has not failed; ``UncontrolledNondeterminism``.
    """
    if not execution.failed:
        raise ValueError("only a failed execution can be the simplest failure: this one has not failed")
    simplest, schedules = execution, 0
    while True:
        for search in simpler_schedules(simplest, reduce=reduce):
            outcome = exhaust(
                execute, search, max_schedules=limit - schedules, only=None if any_failure else execution.fingerprint
            )
            schedules += outcome.schedules
            if outcome.failure is not None:
                simplest = outcome.failure
                break
            if not outcome.exhausted:
                return MinimumProof(False, simplest, schedules)
        else:
            return MinimumProof(True, simplest, schedules)


def _must_repeat(before: list[Decision], now: list[Decision], length: int, prefix: list[int]) -> None:
    """The run followed the prefix, and met the same decisions as the one before it."""
    for at in range(length):
        if at >= len(now) or now[at][2] != prefix[at] or now[at][0] != before[at][0]:
            raise UncontrolledNondeterminism(difference(prefix, now, before))


def difference(prefix: list[int], now: list[Decision], before: list[Decision] | None = None) -> str:
    """Where a run leaves the path that it was to follow, or meets another decision than ``before``: in words."""
    for at, choice in enumerate(prefix):
        if at >= len(now):
            return (
                f"a schedule that had {len(prefix)} decisions or more has {at} when it is run again: does the "
                "program depend on time, random numbers, addresses or on what an earlier run left behind?"
            )
        if now[at][2] != choice or (before is not None and before[at][0] != now[at][0]):
            known = "" if before is None else f"; before, it was between {before[at][0]}"
            return (
                f"decision {at} ({now[at][3]}) is not the one that the same choices led to before: now it is "
                f"between actors {now[at][0]}{known}. Does the program depend on time, random numbers, addresses "
                "or on what an earlier run left behind?"
            )
    raise AssertionError("there is no difference")
