"""A model checker in a hundred lines: every interleaving of a small concurrent program, breadth first.

A model is an object with four methods.  States are hashable values (tuples, NamedTuples), so that a state
that is reached twice is explored once:

    initial()        the first state
    steps(state)     (label, next state) for every atomic step that some thread can take now
    broken(state)    why this state must never be reached, or None
    stuck(state)     why nothing may end here, or None; asked when there is no step

A step may also raise ``Violation``, for what only shows during the step ("woken without a value").

The search is complete and deterministic: a model without a failure has none, at the granularity of its
steps.  Because it is breadth first, a counterexample is a shortest one.  A state from which no end can be
reached any more is a failure too: threads that run round in circles for ever.

What it cannot see: a wrong translation of the code into steps, and memory models weaker than sequential
consistency.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Violation(Exception):
    """A step did something that the model forbids."""


class Model(Protocol[S]):
    def initial(self) -> S: ...
    def steps(self, state: S) -> Iterable[tuple[str, S]]: ...
    def broken(self, state: S) -> str | None: ...
    def stuck(self, state: S) -> str | None: ...


@dataclass(frozen=True)
class Failure(Generic[S]):
    """Why, and the steps that lead there from the first state."""

    reason: str
    trace: tuple[str, ...]
    state: S


@dataclass(frozen=True)
class Report(Generic[S]):
    """What the search saw; ``failure`` is None when every interleaving is right."""

    states: int
    transitions: int
    ends: int
    failure: Failure[S] | None

    def __str__(self) -> str:
        lines = [f"{self.states} states, {self.transitions} transitions, {self.ends} ends"]
        if self.failure is not None:
            lines.append(f"failure: {self.failure.reason}")
            lines += [f"  {number:3} {label}" for number, label in enumerate(self.failure.trace, 1)]
            lines.append(f"  in {self.failure.state}")
        return "\n".join(lines)


def explore(model: Model[S], *, max_states: int = 1_000_000) -> Report[S]:
    """Visit every reachable state; stop at the first failure.

    Errors: ``RuntimeError`` when there are more than ``max_states`` states (the program is too large, or it
    is not finite).
    """
    first = model.initial()
    number = {first: 0}
    order = [first]
    came_from: list[tuple[int, str]] = [(-1, "")]
    before: list[list[int]] = [[]]
    ends: list[int] = []
    transitions = 0

    def failed(reason: str, at: int, *more: str) -> Report[S]:
        state, trace = order[at], list(more[::-1])
        while at:
            at, label = came_from[at]
            trace.append(label)
        return Report(len(order), transitions, len(ends), Failure(reason, tuple(trace[::-1]), state))

    if reason := model.broken(first):
        return failed(reason, 0)
    todo = deque([0])
    while todo:
        at = todo.popleft()
        state = order[at]
        label, has_step = "", False
        try:
            for label, after in model.steps(state):
                has_step = True
                transitions += 1
                to = number.get(after)
                if to is None:
                    to = number[after] = len(order)
                    order.append(after)
                    came_from.append((at, label))
                    before.append([])
                    todo.append(to)
                    if reason := model.broken(after):
                        return failed(reason, to)
                before[to].append(at)
        except Violation as violation:
            return failed(str(violation), at, "(the step that fails)")
        if not has_step:
            ends.append(at)
            if reason := model.stuck(state):
                return failed(reason, at)
        if len(order) > max_states:
            raise RuntimeError(f"more than {max_states} states: make the program smaller")

    can_end = bytearray(len(order))
    for at in ends:
        can_end[at] = 1
    todo.extend(ends)
    while todo:
        for at in before[todo.popleft()]:
            if not can_end[at]:
                can_end[at] = 1
                todo.append(at)
    lost = can_end.find(0)
    if lost >= 0:
        return failed("no end can be reached from here: the threads run in circles", lost)
    return Report(len(order), transitions, len(ends), None)
