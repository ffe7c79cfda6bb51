"""What a controlled run leaves behind, and what decides during one.

The words:

- An *actor* is what can run next: a fiber, a due timer, the loop.  Actors have small ids, in order of first
  appearance in a run; the main fiber is 0.
- A *decision* is a moment with at least two enabled actors.  Its choice is an index into them, and index 0 is
  what the production policy would do.
- The *current* actor runs and could go on; then it is the first of the enabled ones.  Where an actor blocks,
  yields or ends there is none.
- A *preemption* is a decision with a current actor in which another one is chosen; a *deviation* is any choice
  but 0; a *path* is the list of choices.
- A *choice of the environment* (how much of a message arrives) is recorded as a decision too; its "actors" are the
  numbers below -1, and it does not end a step.
- A *step* is what one actor does between two moments at which somebody else could have run.

Two runs of one program that follow the same path are the same run: that is all that the algorithms between
runs (``shrink``, ``exhaust``, ``dpor``) know about the scheduler.  They get an ``execute`` that takes a
``Chooser`` and returns an ``Execution``.

Order of simplicity (Walker & Runciman, "Cheap remarks about concurrent programs", 2018): fewest preemptions, then
fewest deviations, then the path in lexicographic order.  Zeros at the end of a path say nothing: paths compare
as if they went on with zeros for ever.  So of two schedules with equally many deviations the one that behaves
like production for longer is the simpler one, and a depth-first search meets the simpler one first.

Rejected: a weight for each kind of decision (a report is read by a person, who counts); the number of steps as
the first criterion (a preemption costs a reader more than a step does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

__all__ = [
    "Chooser",
    "Complexity",
    "Decision",
    "Execute",
    "Execution",
    "FollowPath",
    "Pruned",
    "Step",
    "UncontrolledNondeterminism",
    "Watcher",
    "choices_within",
    "complexity",
    "stripped",
]


class Decision(NamedTuple):
    """A moment at which the chooser named who runs next."""

    enabled: tuple[int, ...]
    """Ids of the actors that could run; at least two."""
    current: int
    """The actor that ran and could go on (then ``enabled[0]``), or -1."""
    chosen: int
    """An index into ``enabled``."""
    label: str
    """What the moment is: "schedule_point", "block", "start", "timer", ..."""

    @property
    def actor(self) -> int:
        """The actor that was chosen."""
        return self.enabled[self.chosen]

    @property
    def preemption(self) -> bool:
        return self.chosen != 0 and self.current >= 0


class Step(NamedTuple):
    """What an actor did between two moments at which somebody else could have been chosen."""

    actor: int
    decision: int
    """Index of the decision that began it, or -1: nobody else was enabled."""
    reads: frozenset[int]
    """Ids of the objects that it read; ids are given in order of first appearance in the run."""
    writes: frozenset[int]
    """Ids of the objects that it wrote."""
    declared: bool
    """False: it did something that nobody declared, and conflicts with every other step."""
    woke: tuple[int, ...]
    """Actors that it made runnable or created: a fiber that it spawned, a timer that it set."""
    enabled: tuple[int, ...]
    """The enabled actors when it began, itself included."""


@dataclass(slots=True)
class Execution:
    """One run of the program."""

    decisions: list[Decision] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    """Only filled when footprints are asked for."""
    exception: BaseException | None = None
    kind: str = "passed"
    """"passed", "failed", or "aborted": the chooser pruned the run."""
    fingerprint: int | None = None
    """Identifies the failure (type and place of the exception); None if there is none."""

    @property
    def failed(self) -> bool:
        return self.kind == "failed"

    @property
    def path(self) -> list[int]:
        """The choices, one for each decision."""
        return [decision[2] for decision in self.decisions]

    @property
    def preemptions(self) -> int:
        return sum(1 for _, current, chosen, _ in self.decisions if chosen and current >= 0)

    @property
    def deviations(self) -> int:
        return sum(1 for decision in self.decisions if decision[2])


class Chooser(Protocol):
    """Decides who runs next."""

    def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
        """The index into ``enabled`` of the actor that runs next.

        Errors: whoever has nothing to find in the rest of this run raises ``Pruned``.
        """
        ...


class Watcher(Chooser, Protocol):
    """A chooser that looks at the run while it happens."""

    def watch(self, execution: Execution) -> None:
        """Called before the first decision with the execution that is being recorded.

        A step is appended to ``execution.steps`` when it is over: before the choice that follows it.
        """
        ...


Execute: TypeAlias = Callable[[Chooser], Execution]
Complexity: TypeAlias = tuple[int, int, tuple[int, ...]]


class Pruned(BaseException):
    """Raised by a chooser that abandons the run.

    A ``BaseException``, so that no ``except Exception`` of the program under test stops it.
    """


class UncontrolledNondeterminism(RuntimeError):
    """The same choices led to another run: something besides the schedule decides what the program does.

    ``difference``: the first moment that differs, as it was in two runs, in words; empty if it was not found.
    """

    difference: tuple[str, ...] = ()

    def __str__(self) -> str:
        # the report, as a note, has it too
        difference = () if getattr(self, "__notes__", None) else self.difference
        return "\n".join((super().__str__(), *difference))


class FollowPath:
    """Follow the choices of ``path``, then do what production would do.

    A choice that is out of range counts as 0 and sets ``diverged``: the path belongs to another program, or to an
    older state of this one.
    """

    __slots__ = ("_at", "diverged", "path")

    def __init__(self, path: Sequence[int]) -> None:
        self.path = path
        self.diverged = False
        self._at = 0

    def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
        at = self._at
        if at >= len(self.path):
            return 0
        self._at = at + 1
        index = self.path[at]
        if index < len(enabled):
            return index
        self.diverged = True
        return 0


def choices_within(execution: Execution) -> dict[int, list[tuple[int, int]]]:
    """The choices that the program's environment made: step -> (how many possibilities, which one), in order.

    One that is made in a step which no decision began counts to the last step before it which one did: nobody else
    could run in between.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    begins = [(step.decision, at) for at, step in enumerate(execution.steps) if step.decision >= 0]
    begins.reverse()
    step = 0
    for number, decision in enumerate(execution.decisions):
        if begins and begins[-1][0] == number:
            step = begins.pop()[1]
        elif decision.enabled[0] < -1:
            found.setdefault(step, []).append((len(decision.enabled), decision.chosen))
    return found


def stripped(path: Iterable[int]) -> tuple[int, ...]:
    """The path without the zeros at its end: what identifies a schedule."""
    choices = tuple(path)
    end = len(choices)
    while end and not choices[end - 1]:
        end -= 1
    return choices[:end]


def complexity(execution: Execution) -> Complexity:
    """The place of a run in the order of simplicity; smaller is simpler."""
    return execution.preemptions, execution.deviations, stripped(execution.path)
