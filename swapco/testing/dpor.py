"""Dynamic partial order reduction: one schedule for all those that differ only in the order of independent steps.

Two steps *depend* on each other if they are of one actor, if one makes the other's actor runnable, or if both touch
an object and one writes it; a step that declares nothing depends on every other.  Schedules with the same steps and
the same order of dependent ones are equivalent (a Mazurkiewicz trace): they end in the same state, and the same
assertions fail in them.

The search (Flanagan & Godefroid, "Dynamic partial-order reduction for model checking software", 2005, with the source
sets of Abdulla, Aronis, Jonsson & Sagonas, "Optimal dynamic partial order reduction", 2014):

- After a run, each *race* is looked for: two dependent steps ``i`` and ``k`` of different actors with nothing between
  them that orders them.  The other order is to be tried too: from the state before ``i``, all steps that do not come
  after ``i`` by dependence, then ``k``.  Some actor that can begin that sequence is noted at the state before ``i``,
  unless one is there already.
- *Sleep sets* (Godefroid, 1996): an actor whose step was explored from a state sleeps in the branches that are
  explored there later, until a step that depends on its own.  A run in which only sleepers are left repeats another
  one, and is abandoned.  So at most one run per trace is a complete one; the rest counts as ``pruned``.

The order "happens before" is kept as a bit set for each step, one bit for every earlier one: vector clocks, for runs
that have as many clocks as steps.

What is particular here:

- An actor is enabled until it runs or some step disables it.  A blocking operation is a step like any other (it
  joins a line, and so writes the object); whoever ends the wait enables the actor, and that step happens before its
  next one.  An actor that nobody woke (a timer that is due because nobody else could run, the loop) is taken to be
  enabled by the step before, whoever else could have run then is tried, too, and its steps count as undeclared.
- An actor that yields waits for any step of another one: that depends on all steps.  A step that wakes its own actor is
  one that yields, and counts as undeclared.
- A step that disables an actor (it cancels a timer) depends on what the actor would have done, which nobody has
  seen: so the actor is noted at the state before.
- A run that ends while actors are enabled (a failure) hides what they would have done.  So they are noted at the state
  before the last step, which then sleeps: what they do shows, and the same failure is not found again.
- A step in which the environment makes choices (``choose``) is as many steps as there are possibilities.  All are
  explored, one after the other, before the actor sleeps; then it sleeps with all that they touched.
- Ids of objects and actors are given in order of appearance, so those that appear after a branch mean something
  else in each branch.  For sleepers, two steps that both touch an object that is new since the branch depend on each
  other.

Which of the runs of a trace is met says nothing about simplicity: ``exhaust.SimplestFirst`` and ``shrink`` do that.

Rejected: a bound on preemptions (the equivalent run that is left out may be the only one within the bound; Coons,
Musuvathi & McKinley, "Bounded partial-order reduction", 2013, repair it with extra runs and without sleep sets;
``SimplestFirst`` with footprints is bounded, reduced and exact).  Wakeup trees, which would avoid the pruned runs, too:
they have to fix sequences of steps ahead, and a pruned run costs less than a complete one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .exhaust import Enumeration
from .trace import Execution, Pruned, Step, UncontrolledNondeterminism, choices_within

__all__ = ["EachTrace"]

MAIN = 0


class _Sleeper(NamedTuple):
    """What an actor does next, as it was seen from the state at which it fell asleep."""

    reads: frozenset[int]
    writes: frozenset[int]
    declared: bool
    known: int
    """Objects from this id on appeared in the step itself."""
    fresh: bool
    """There are such objects."""


class _Node:
    """A state of the run, and the step that is explored from it now."""

    __slots__ = ("actor", "backtrack", "choices", "decision", "enabled", "known", "sleep", "step", "tried")

    def __init__(self, enabled: tuple[int, ...], decision: int, sleep: dict[int, _Sleeper], known: int) -> None:
        self.enabled = enabled
        self.decision = decision  # -1: nobody else is enabled
        self.sleep = sleep  # those explored from here included
        self.known = known  # objects that have appeared
        self.backtrack: set[int] = set()
        self.actor = -1
        self.step: Step | None = None
        self.choices: list[tuple[int, int]] = []  # of the environment in this step: of how many, which
        self.tried: list[Step] = []  # the same step with other choices

    def next_choices(self) -> bool:
        """On to the same step with other choices; False if all were made."""
        choices = self.choices
        while choices and choices[-1][1] + 1 == choices[-1][0]:
            choices.pop()
        if not choices:
            return False
        number, chosen = choices[-1]
        choices[-1] = number, chosen + 1
        return True

    def fall_asleep(self) -> None:
        """What the actor does from here was explored."""
        reads = frozenset().union(*[step.reads for step in self.tried])
        writes = frozenset().union(*[step.writes for step in self.tried])
        fresh = max(reads | writes, default=-1) >= self.known
        declared = all(step.declared for step in self.tried)
        self.sleep[self.actor] = _Sleeper(reads, writes, declared, self.known, fresh)


class EachTrace(Enumeration):
    """One schedule of each Mazurkiewicz trace; needs executions with ``steps``.

    Finds every failure that some schedule has, and every final state, if footprints are declared truly.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stack: list[_Node] = []
        self._begun = False
        self._chooser: _Awake | None = None

    @property
    def exhausted(self) -> bool:
        return self._begun and not self._stack

    def next_chooser(self) -> _Awake | None:
        if self.exhausted:
            return None
        stack = self._stack
        path = []
        for node in stack:
            if node.decision >= 0:
                path.append(node.enabled.index(node.actor))
            path += [chosen for _, chosen in node.choices]
        self._chooser = _Awake(path, max(0, len(stack) - 1), dict(stack[-1].sleep) if stack else {})
        return self._chooser

    def record(self, execution: Execution) -> None:
        steps = _as_declared(execution.steps, {MAIN})
        if not steps:
            raise ValueError("EachTrace needs footprints: execute must fill Execution.steps")
        self._begun = True
        self.schedules += 1
        self.decisions += len(execution.decisions)
        self._must_repeat(steps)
        branch = max(0, len(self._stack) - 1)
        complete = self._extend(execution, steps)
        choices = choices_within(execution)
        for at in range(branch, len(self._stack)):
            self._stack[at].choices = choices.get(at, [])
        if not complete:
            self.pruned += 1
        self._note_races(steps[: len(self._stack)])
        self._note_unseen(steps, complete)
        self._backtrack()

    def _must_repeat(self, steps: list[Step]) -> None:
        for at, node in enumerate(self._stack):
            if at >= len(steps) or steps[at].actor != node.actor or steps[at].enabled != node.enabled:
                now = "it ended" if at >= len(steps) else f"{steps[at].actor} ran, of {steps[at].enabled}"
                raise UncontrolledNondeterminism(
                    f"step {at} is not the one that the same choices led to before: actor {node.actor} of "
                    f"{node.enabled} was to run, now {now}. Does the program depend on time, random numbers, "
                    "addresses or on what an earlier run left behind?"
                )

    def _extend(self, execution: Execution, steps: list[Step]) -> bool:
        """Make nodes of the new steps, up to where the run repeats another one: then the result is False."""
        stack = self._stack
        if stack:
            stack[-1].step = steps[len(stack) - 1]
        for step in steps[len(stack) :]:
            node = self._child(step.enabled, step.decision)
            stack.append(node)
            if step.actor in node.sleep:
                self._wake_one(node)
                return False
            node.actor = step.actor
            node.step = step
            node.backtrack.add(step.actor)
        if execution.kind != "aborted":
            return True
        if self._chooser is not None and self._chooser.pruned_at:
            node = self._child(self._chooser.pruned_at, len(execution.decisions))
            stack.append(node)
            self._wake_one(node)
        return False

    def _child(self, enabled: tuple[int, ...], decision: int) -> _Node:
        if not self._stack:
            return _Node(enabled, decision, {}, 0)
        parent = self._stack[-1]
        step = parent.step
        assert step is not None
        sleep = {
            actor: sleeper
            for actor, sleeper in parent.sleep.items()
            if actor != step.actor and actor in enabled and _independent(sleeper, step)
        }
        return _Node(enabled, decision, sleep, max(parent.known, max(step.reads | step.writes, default=-1) + 1))

    @staticmethod
    def _wake_one(node: _Node) -> None:
        """Nothing was explored from here: begin with somebody who is awake."""
        for actor in node.enabled:
            if actor not in node.sleep:
                node.backtrack.add(actor)
                return

    def _note_races(self, steps: list[Step]) -> None:
        """Note what reverses the races of the new steps: of the last branch, and all after it."""
        stack = self._stack
        new = self._chooser.branch if self._chooser is not None else 0
        before: list[int] = []  # for every step, the bits of those that happen before it, and its own
        previous: dict[int, int] = {}  # actor -> the bits of its last step
        last: dict[int, int] = {}  # actor -> its last step
        enabling: dict[int, int] = {}  # actor -> the bits of the steps that woke it
        written: dict[int, int] = {}  # object -> the last step that wrote it
        read: dict[int, list[int]] = {}  # object -> the steps that read it since
        barrier = -1  # the last undeclared step
        enabled_before: tuple[int, ...] = ()
        for at, step in enumerate(steps):
            if stack[at].actor < 0:
                break
            if at:
                for actor in step.enabled:
                    if actor not in enabled_before and actor not in steps[at - 1].woke:
                        enabling[actor] = enabling.get(actor, 0) | before[at - 1]
                        stack[at - 1].backtrack.update(enabled_before)
            enabled_before = step.enabled
            if step.declared:
                rivals = {barrier} if barrier >= 0 else set()
                for thing in step.reads:
                    if thing in written:
                        rivals.add(written[thing])
                for thing in step.writes:
                    if thing in written:
                        rivals.add(written[thing])
                    rivals.update(read.get(thing, ()))
            else:
                rivals = set(last.values())
            past = previous.get(step.actor, 0) | enabling.pop(step.actor, 0)
            races = []
            for rival in sorted(rivals, reverse=True):
                if not past >> rival & 1:
                    races.append(rival)
                    past |= before[rival]
            past |= 1 << at
            before.append(past)
            if at >= new:
                for rival in races:
                    self._note(rival, at, steps, before)
            previous[step.actor] = past
            last[step.actor] = at
            for actor in step.woke:
                enabling[actor] = enabling.get(actor, 0) | past
            for thing in step.writes:
                written[thing] = at
                read.pop(thing, None)
            for thing in step.reads - step.writes:
                read.setdefault(thing, []).append(at)
            if not step.declared:
                barrier = at

    def _note(self, first: int, second: int, steps: list[Step], before: list[int]) -> None:
        """From the state before ``first``, somebody who can begin what leads to ``second`` without it."""
        node = self._stack[first]
        rest = [at for at in range(first + 1, second) if not before[at] >> first & 1]
        rest.append(second)
        bits = sum(1 << at for at in rest)
        initials = []
        met = set()
        for at in rest:
            actor = steps[at].actor
            if actor not in met:
                met.add(actor)
                if before[at] & bits == 1 << at:
                    if actor in node.backtrack or actor in node.sleep:
                        return
                    initials.append(actor)
        for actor in node.enabled:
            if actor in initials:
                node.backtrack.add(actor)
                return
        node.backtrack.update(node.enabled)

    def _note_unseen(self, steps: list[Step], complete: bool) -> None:
        """Note actors that were enabled, did not run, and were not enabled any more."""
        stack = self._stack
        new = self._chooser.branch if self._chooser is not None else 0
        for at in range(new, len(stack)):
            node = stack[at]
            if node.actor < 0:
                return
            if at + 1 < len(stack):
                later = stack[at + 1].enabled
            elif complete:
                later = ()
            else:
                return
            if len(node.enabled) > 1:
                node.backtrack.update(actor for actor in node.enabled if actor != node.actor and actor not in later)

    def _backtrack(self) -> None:
        """Go back to the last state from which something is left to explore."""
        stack = self._stack
        while stack:
            node = stack[-1]
            if node.step is not None:
                node.tried.append(node.step)
                node.step = None
                if node.next_choices():
                    return
                node.fall_asleep()
                node.tried.clear()
            for actor in node.enabled:
                if actor in node.backtrack and actor not in node.sleep:
                    node.actor = actor
                    return
            stack.pop()


def _as_declared(steps: Sequence[Step], woken: set[int]) -> list[Step]:
    """The steps; undeclared are also those that yield, and those of actors that nobody woke.

    ``woken``: the actors that steps before these have woken; will have those of these, too.
    """
    sure = []
    for step in steps:
        if step.actor in step.woke or step.actor not in woken:
            step = step._replace(declared=False)
        woken.update(step.woke)
        sure.append(step)
    return sure


def _independent(sleeper: _Sleeper, step: Step) -> bool:
    """The step changes nothing for what the sleeper does next, nor does that for the step."""
    return (
        sleeper.declared
        and step.declared
        and sleeper.writes.isdisjoint(step.writes)
        and sleeper.writes.isdisjoint(step.reads)
        and sleeper.reads.isdisjoint(step.writes)
        and not (sleeper.fresh and max(step.reads | step.writes, default=-1) >= sleeper.known)
    )


class _Awake:
    """Follow a path, then let run who does not sleep.

    Where the run can be watched the sleepers are known exactly, and the run is abandoned when only they are left.
    Else all that sleep at the branch are avoided for as long as there is somebody else: a run that turns out to repeat
    another one is cut when it is recorded.
    """

    __slots__ = ("_asleep", "_at", "_execution", "_path", "_seen", "_woken", "branch", "pruned_at")

    def __init__(self, path: list[int], branch: int, asleep: dict[int, _Sleeper]) -> None:
        self._path = path
        self._at = 0
        self._asleep = asleep
        self._execution: Execution | None = None
        self._seen = 0
        self._woken = {MAIN}
        self.branch = branch  # the step that was not explored before
        self.pruned_at: tuple[int, ...] = ()

    def watch(self, execution: Execution) -> None:
        self._execution = execution

    def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
        at = self._at
        self._at = at + 1
        if at < len(self._path):
            return min(self._path[at], len(enabled) - 1)
        if not self._asleep or enabled[0] < -1:
            return 0
        if self._execution is not None:
            self._update(self._execution.steps, enabled)
        for index, actor in enumerate(enabled):
            if actor not in self._asleep:
                return index
        if self._execution is not None:
            self._prune(enabled)
        return 0

    def _update(self, steps: list[Step], enabled: tuple[int, ...]) -> None:
        asleep = self._asleep
        seen = self._seen
        self._seen = len(steps)
        for at, step in enumerate(_as_declared(steps[seen:], self._woken), seen):
            if at < self.branch:
                continue
            if at > self.branch and step.actor in asleep:
                self._prune(())
            later = steps[at + 1].enabled if at + 1 < len(steps) else enabled
            asleep = {
                actor: sleeper
                for actor, sleeper in asleep.items()
                if actor != step.actor and actor in later and _independent(sleeper, step)
            }
        self._asleep = asleep

    def _prune(self, enabled: tuple[int, ...]) -> None:
        self.pruned_at = enabled
        raise Pruned
