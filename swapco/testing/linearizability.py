"""Linearizability: could these overlapping operations have happened one at a time?

Theory.  A history (``history``) is *linearizable* (Herlihy & Wing, TOPLAS 1990) if every operation can be given one
moment in its interval so that, executed in the order of these moments, the sequential specification (a ``Model``)
allows every outcome.  A pending operation may get a moment after its invocation, or none.  An aborted one may get
a moment before it was left, or none: this is *strict* linearizability (Aguilera & Frolund, 2003).

Deciding is NP-complete (Gibbons & Korach, 1997).  The search is that of Wing & Gong (JPDC 1993) with the memoization
of Lowe (CCPE 2017): depth first, place an operation that no unplaced one precedes, and visit no *configuration* (the
set of placed operations and the model's state) twice.  ``partition=`` splits the history of an object that is made of
independent parts, such as a map by its keys (Horn & Kroening, FORTE 2015).  The limit counts configurations, so that
a verdict is the same on every machine.

Invariants:

- Operations are numbered by invocation.  Which of them may come next is found by walking along the unplaced ones
  until one was invoked after another's response.  The unplaced ones are a doubly linked list in two arrays; operations
  are put back in the reverse order of their removal, which restores it.
- A set of placed operations is three integers: the number ``base`` of leading operations that are all placed, a
  ``window`` of bits for those behind, and the bits of pending ones.  Each stays small where few callers overlap, so
  that time and memory are linear in a history that needs no backtracking.
- A configuration that was left by backtracking is refuted, in whichever order candidates are tried.  So the search can
  be abandoned and started again in another order: it keeps what it has refuted, and forgets the rest.
- The operation that explains a "no" does not depend on the search: its response ends the shortest prefix of the
  history that is not linearizable.  Prefixes of linearizable histories are linearizable, so that it is found by
  bisection; nearly always it is the response that the search could not pass.

Why several orders: a state that remembers an order which is only observed much later (a long queue) makes the first
choice wrong somewhere, and backtracking repairs the latest choices first.  To place those who give a value in the
order in which others receive it suits queues, the reverse order stacks.  These are guesses, taken in turns with growing
budgets; the verdict does not depend on them, only the time to a "yes".

Rejected designs:

- One bit for each operation of the history in every key of the memo: quadratic memory.
- Sets of states for nondeterministic models: there can be exponentially more sets than states.
- Minimising by dropping operations for as long as the rest is not linearizable: it ends with a ``get() -> 3`` and
  nobody who put 3.  ``minimal_counterexample`` says what it preserves.
"""

from __future__ import annotations

import enum
import itertools
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from .history import History, Operation, hashable, name_of, operations_of
from .models import Model, as_model

__all__ = [
    "Linearizability",
    "NotLinearizable",
    "Undecided",
    "Verdict",
    "assert_linearizable",
    "linearizable",
    "minimal_counterexample",
]

#: Later than every event: when a pending operation responds.
_NEVER = 1 << 62
#: How much an explanation shows.
_STATES_SHOWN, _OPERATIONS_SHOWN, _LONGEST_STATE = 5, 12, 200
#: A counterexample of so many operations or fewer has none that could be dropped in pairs, either.
_PAIRS_TRIED = 20
MAX_NODES = 200_000


class Undecided(RuntimeError):
    """The search reached its limit: the history may be linearizable or not."""


class NotLinearizable(AssertionError):
    """The history is not linearizable; the message is the explanation."""


class Verdict(enum.StrEnum):
    """The answer: equal to the string "yes", "no" or "unknown"."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        """Is it yes?  Errors: ``Undecided`` if it is unknown."""
        if self is Verdict.UNKNOWN:
            raise Undecided("the verdict is unknown: neither true nor false; raise max_nodes, or compare with 'no'")
        return self is Verdict.YES


# ------------------------------------------------------------------------------------------------ search

#: What was placed, the last first: numbers of operations; of one that takes no effect, the complement.
_Path = tuple[int, Any] | None


class _Search:
    """The search for an order of one list of operations, and what it has found out.

    ``goal`` asks something else: could this operation have been placed at its invocation or at an earlier moment?
    Then it counts as invoked before all others, and the search succeeds as soon as it is placed.
    """

    def __init__(self, operations: Iterable[Operation], model: Model[Any], goal: Operation | None = None) -> None:
        self.model = model
        self.operations = sorted(operations, key=lambda o: -1 if o is goal else o.invoked)
        self.count = len(self.operations)
        self.goal = -1 if goal is None else 0
        self.calls = [-1 if o is goal else o.invoked for o in self.operations] + [_NEVER]
        self.returns = [_NEVER if o.returned is None else o.returned for o in self.operations]
        # a position among those that have responded, or the complement of one among the pending
        responded, pending = itertools.count(), itertools.count()
        self.ranks = [~next(pending) if o.returned is None else next(responded) for o in self.operations]
        self.unknown = [o.unknown for o in self.operations]
        self.to_place = next(responded)
        self.seen: set[tuple[int, int, int, Any]] = set()
        self.nodes = 0
        self.found = False
        #: how many leading operations were placed when the search was last abandoned
        self.placed = 0
        self.path: _Path = None
        #: the latest response that could not be passed, one path to it, and states in which that was so
        self.stuck_at = -1
        self.stuck_path: _Path = None
        self.stuck_states: list[Any] = []

    def decide(self, max_nodes: int | None, deadline: float | None = None) -> Verdict:
        """Search to the end, or to a limit."""
        budget = 100 + self.count + self.count // 4
        for sign in itertools.cycle((0, 1, -1)):
            left = _NEVER if max_nodes is None else max_nodes - self.nodes
            found = self._attempt(self._guess(sign < 0) if sign else None, min(budget, left), deadline)
            if found is not None:
                self.found = found
                return Verdict.YES if found else Verdict.NO
            if left <= budget or (deadline is not None and time.monotonic() >= deadline):
                return Verdict.UNKNOWN
            budget += budget // 2
        raise AssertionError("cycle() ends")

    def _guess(self, last_in_first_out: bool) -> list[int]:
        """Ranks for candidates: whoever receives something goes first, whoever gives something by when it is received.

        In a queue, values go through in one order, which both the intervals of those who give them and of those who
        receive them allow.
        """
        givers, receivers = dict[Any, int](), dict[Any, int]()
        for i, o in enumerate(self.operations):
            known = o.outcome == "returned" and o.result is not None
            for values, first in ((o.args, givers), ((o.result,) if known else (), receivers)):
                for value in values:
                    try:
                        first.setdefault(value, i)
                    except TypeError:  # not hashable
                        pass
        calls, returns = self.calls, self.returns
        given = [i for value, i in givers.items() if value in receivers]
        receiver = {i: receivers[value] for value, i in givers.items() if value in receivers}
        ranks = [0] * self.count
        for i in givers.values():
            ranks[i] = 0 if last_in_first_out else _NEVER
        left = sorted(set(given), key=calls.__getitem__)
        rank = 0
        received = sorted(left, key=lambda i: -returns[receiver[i]])
        while left:
            rank += 1
            while ranks[received[-1]] not in (0, _NEVER):
                received.pop()
            next_received = returns[receiver[received[-1]]]
            limit, best = _NEVER, received[-1]
            minimal = []
            for i in left:
                if calls[i] > limit:
                    break
                limit = min(limit, returns[i])
                if calls[receiver[i]] < next_received:
                    minimal.append(i)
            if minimal:
                best = min(minimal, key=lambda i: returns[receiver[i]])
            left.remove(best)
            ranks[receiver[best]] = rank
            ranks[best] = self.count + (self.count - rank if last_in_first_out else rank)
        return ranks

    def _moves(self, state: Any, candidates: list[int]) -> Iterator[tuple[int, Any]]:
        """What can be placed, and the state afterwards."""
        step, operations, unknown = self.model.step, self.operations, self.unknown
        for i in candidates:
            operation = operations[i]
            if not unknown[i]:
                for after in step(state, operation):
                    yield i, after
                continue
            for after in step(state, operation):
                if after != state:
                    yield i, after
            if not operation.pending:
                yield ~i, state

    def _attempt(self, order: list[int] | None, budget: int, deadline: float | None) -> bool | None:
        """Is there an order?  None: the budget or the time is used up."""
        head, calls, returns, ranks, seen = self.count, self.calls, self.returns, self.ranks, self.seen
        to_place, goal, budget = self.to_place, self.goal, budget + self.nodes
        after_it = [*range(1, head + 1), 0]
        before_it = [head, *range(head)]
        base = window = pending = 0
        state, path = self.model.init(), cast(_Path, None)
        if not hashable(state):
            raise TypeError(f"the states of a model are hashable: {type(self.model).__name__}.init() made {state!r}")
        key = (0, 0, 0, state)
        stack: list[tuple[Any, ...]] = []
        if to_place == 0 and goal < 0:
            return True
        seen.add(key)
        while True:
            # a configuration: who can be next, and the first response that somebody must be placed before
            candidates, limit, i = [], _NEVER, after_it[head]
            while calls[i] < limit:
                candidates.append(i)
                if returns[i] < limit:
                    limit = returns[i]
                i = after_it[i]
            if order is not None and len(candidates) > 1:
                candidates.sort(key=order.__getitem__)
            moves, stuck = self._moves(state, candidates), True
            while True:
                for i, after in moves:
                    stuck = False
                    number = i if i >= 0 else ~i
                    rank = ranks[number]
                    new_base, new_window, new_pending = base, window, pending
                    if rank < 0:
                        new_pending |= 1 << ~rank
                    else:
                        new_window |= 1 << (rank - base)
                        if new_window & 1:
                            ones = (new_window ^ (new_window + 1)).bit_length() - 1
                            new_window >>= ones
                            new_base += ones
                    new_key = (new_base, new_window, new_pending, after)
                    if new_key not in seen:
                        break
                else:
                    # refuted: nothing leads on from here
                    if limit > self.stuck_at:
                        self.stuck_at, self.stuck_path, self.stuck_states = limit, path, [state]
                    elif limit == self.stuck_at and stuck and state not in self.stuck_states[:_STATES_SHOWN]:
                        self.stuck_states.append(state)
                    if not stack:
                        return False
                    moves, limit, state, base, window, pending, path, key, number = stack.pop()
                    after_it[before_it[number]] = before_it[after_it[number]] = number
                    stuck = False
                    continue
                break
            seen.add(new_key)
            stack.append((moves, limit, state, base, window, pending, path, key, number))
            before, behind = before_it[number], after_it[number]
            after_it[before], before_it[behind] = behind, before
            state, base, window, pending, path, key = after, new_base, new_window, new_pending, (i, path), new_key
            self.nodes += 1
            if number == goal or (base == to_place and goal < 0):
                self.path = path
                return True
            if self.nodes >= budget or (deadline is not None and not self.nodes & 255 and time.monotonic() >= deadline):
                self.placed = max(self.placed, base)
                seen.discard(key)
                seen.difference_update([frame[7] for frame in stack])
                return None

    def along(self, path: _Path) -> list[Operation]:
        """The operations that take effect on a path, the first first."""
        found = []
        while path is not None:
            i, path = path
            if i >= 0:
                found.append(self.operations[i])
        return found[::-1]

    @property
    def stuck(self) -> Operation:
        """Of a "no": the operation of the latest response that could not be passed."""
        return next(o for o in self.operations if o.returned == self.stuck_at)


@dataclass(frozen=True)
class _Failure:
    """Why a list of operations has no order."""

    #: the shortest prefix without an order, and the operation that ends it
    operations: list[Operation]
    last: Operation
    #: a search of the prefix, and an order of what precedes its last event
    search: _Search
    before: list[Operation]
    #: how many configurations were visited to find it
    nodes: int


def _prefix(operations: Iterable[Operation], event: int) -> list[Operation]:
    """What was known after this event."""
    return [o._pending_from(event + 1) for o in operations if o.invoked < event]


def _failure(search: _Search, max_nodes: int | None) -> _Failure:
    """Find the shortest prefix without an order; where the limit is reached, the one at which the search was stuck."""
    whole, nodes = search.operations, 0

    def searched(event: int) -> tuple[_Search, Verdict]:
        nonlocal nodes
        prefix = _Search(_prefix(whole, event), search.model)
        verdict = prefix.decide(max_nodes)
        nodes += prefix.nodes
        return prefix, verdict

    end = search.stuck_at
    found, verdict = searched(end)
    if verdict is Verdict.YES:
        # what is known of operations that overlap it and respond later did matter
        ends = sorted(o.returned for o in whole if o.returned is not None and o.returned > end)
        bad = len(ends) - 1
        good = -1
        found, end = search, ends[bad]
        while bad - good > 1:
            middle = (good + bad) // 2
            prefix, verdict = searched(ends[middle])
            if verdict is Verdict.NO:
                bad, found, end = middle, prefix, ends[middle]
            else:
                good = middle
    elif verdict is Verdict.UNKNOWN:
        found = search
    before = found.along(found.stuck_path)
    if found.stuck_at != end:
        earlier = searched(end - 1)[0]
        before = earlier.along(earlier.path)
    last = next(o for o in whole if o.returned == end)
    return _Failure(found.operations, last, found, before, nodes)


# ------------------------------------------------------------------------------------------------ answers


@dataclass(frozen=True, eq=False, repr=False)
class Linearizability:
    """The answer of ``linearizable``.  As a condition it is true or false, and raises ``Undecided`` if unknown."""

    #: "yes", "no" or "unknown"
    verdict: Verdict
    #: "yes": one order of the operations that take effect, all but some pending and aborted ones
    order: tuple[Operation, ...]
    #: "no": an operation whose response ends the shortest prefix of the history that is not linearizable
    failed: Operation | None
    #: "no": one order of the operations up to that response, as far as they must be placed
    prefix: tuple[Operation, ...]
    #: "no": the key of the part that is not linearizable, if there was a partition
    part: Hashable
    #: why, as text
    explanation: str
    #: how many configurations were visited
    nodes: int
    _failure: _Failure | None = None

    def __bool__(self) -> bool:
        """Is the history linearizable?  Errors: ``Undecided`` if that is unknown."""
        if self.verdict is Verdict.UNKNOWN:
            raise Undecided(self.explanation)
        return self.verdict is Verdict.YES

    def counterexample(self, *, max_nodes: int | None = MAX_NODES) -> History:
        """A minimal part of the history that shows a "no": see ``minimal_counterexample``.

        Errors: ValueError if the verdict is another one; TypeError and ValueError for a limit that is none.
        """
        _check_max_nodes(max_nodes)
        if self._failure is None:
            raise ValueError(f"there is no counterexample: the verdict is {str(self.verdict)!r}")
        return _minimal(self._failure, max_nodes)

    def __str__(self) -> str:
        return self.explanation

    def __repr__(self) -> str:
        why = "" if self.failed is None else f", {name_of(self.failed.process)}: {self.failed}"
        return f"<Linearizability: {self.verdict}{why}, {self.nodes} nodes>"


def _check_max_nodes(max_nodes: int | None) -> None:
    if max_nodes is None:
        return
    expected = f"max_nodes is a whole number from 1 on, or None for no limit, not {max_nodes!r}"
    if not isinstance(max_nodes, int) or isinstance(max_nodes, bool):
        raise TypeError(expected)
    if max_nodes < 1:
        raise ValueError(expected)


def _check_timeout(timeout: float | None) -> None:
    if timeout is None:
        return
    expected = f"timeout is a number of seconds from 0 on, or None for no limit, not {timeout!r}"
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        raise TypeError(expected)
    if not timeout >= 0:
        raise ValueError(expected)


def _divided(
    operations: Iterable[Operation], partition: Callable[[Operation], Hashable] | None
) -> dict[Hashable, list[Operation]]:
    """The operations of each part, by its key."""
    if partition is None:
        listed = list(operations)
        return {None: listed} if listed else {}
    if not callable(partition):
        raise TypeError(f"partition is a function from an Operation to the key of its part, or None, not {partition!r}")
    parts: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        key = partition(operation)
        if not hashable(key):
            raise TypeError(f"partition gives each operation a hashable key, and gave {operation} {key!r}")
        parts.setdefault(key, []).append(operation)
    return parts


def linearizable(
    history: Iterable[Operation],
    model: Model[Any] | Callable[[], Any],
    *,
    partition: Callable[[Operation], Hashable] | None = None,
    max_nodes: int | None = MAX_NODES,
    timeout: float | None = None,
) -> Linearizability:
    """Is there an order of the operations that the model and their intervals allow?

    ``model``: a ``Model`` or such a class, or what makes an ordinary object of the kind (``SequentialModel``).
    ``partition``: a function from an operation to the part of the object that it concerns, ``lambda o: o.args[0]``
    for a map; only right if the model's answers for one part never depend on another.  ``max_nodes``: the verdict is
    "unknown" after so many configurations of a part (some microseconds and 300 bytes each, more for large states and
    for a ``SequentialModel``); None for no limit.  ``timeout``: the same after so many seconds in all, which depends on
    the machine.
    Errors: TypeError and ValueError for arguments that make no sense, before it searches; what the model and
    ``partition`` raise.  Does not block.
    """
    model = as_model(model)
    _check_max_nodes(max_nodes)
    _check_timeout(timeout)
    whole = history if isinstance(history, History) else History(operations_of("history", history))
    parts = _divided(whole, partition)
    deadline = None if timeout is None else time.monotonic() + timeout
    nodes, searches = 0, list[_Search]()
    undecided: tuple[Hashable, _Search] | None = None
    for part, operations in parts.items():
        search = _Search(operations, model)
        verdict = search.decide(max_nodes, deadline)
        nodes += search.nodes
        searches.append(search)
        if verdict is Verdict.NO:
            why = _failure(search, max_nodes)
            text = _explained(why, "" if partition is None else f" in part {part!r}")
            return Linearizability(verdict, (), why.last, tuple(why.before), part, text, nodes + why.nodes, why)
        if verdict is Verdict.UNKNOWN:
            undecided = undecided or (part, search)
    if undecided is not None:
        part, search = undecided
        where = "" if partition is None else f" of part {part!r}"
        text = (
            f"undecided after {search.nodes} nodes: the first {search.placed} of {search.count} operations{where} can "
            f"be placed; raise max_nodes or timeout, check shorter histories, split them by partition=, or give the "
            f"model fewer states (SequentialModel(key=...), FifoQueue)"
        )
        return Linearizability(Verdict.UNKNOWN, (), None, (), None, text, nodes)
    order = tuple(_merged([search.along(search.path) for search in searches]))
    text = "\n".join([f"linearizable, in this order ({len(order)} operations):", *_lines(order)])
    return Linearizability(Verdict.YES, order, None, (), None, text, nodes)


def is_linearizable(history: History, model: Model[Any]) -> bool:
    """Does ``linearizable`` say yes?  Without an order or an explanation, for who asks thousands of times."""
    return _Search(history, model).decide(MAX_NODES) is Verdict.YES


def assert_linearizable(
    history: Iterable[Operation],
    model: Model[Any] | Callable[[], Any],
    *,
    partition: Callable[[Operation], Hashable] | None = None,
    max_nodes: int | None = MAX_NODES,
    timeout: float | None = None,
) -> None:
    """Raise ``NotLinearizable``, with a minimal counterexample, unless ``linearizable`` says yes.

    Errors: ``Undecided`` if it reaches a limit; otherwise as ``linearizable``.
    """
    answer = linearizable(history, model, partition=partition, max_nodes=max_nodes, timeout=timeout)
    if not answer:
        raise NotLinearizable(str(linearizable(answer.counterexample(), model, max_nodes=None)))


def minimal_counterexample(
    history: Iterable[Operation],
    model: Model[Any] | Callable[[], Any],
    *,
    partition: Callable[[Operation], Hashable] | None = None,
    max_nodes: int | None = MAX_NODES,
) -> History:
    """A smallest part of a history that is not linearizable for the same reason: no operation more can be dropped.

    It starts from the shortest prefix that is not linearizable, in which operations that respond later are pending.
    The *last* operation is the one whose response ends it.  Others are dropped as long as

    - the rest is not linearizable, but is so up to the response of the last operation;
    - the last operation could still have been placed at an earlier moment, if it could at first; otherwise,
      operations that were given the value which it returned stay.

    Without that, what remains of "an item was delivered twice" would be one ``get`` of an item that nobody put.
    Operations that share a value are tried together, too, and in the end all pairs.
    After ``max_nodes`` configurations it returns what it has so far.  Errors: ValueError if the history is
    linearizable, ``Undecided`` if that is unknown; otherwise as ``linearizable``.
    """
    answer = linearizable(history, model, partition=partition, max_nodes=max_nodes)
    if answer:
        raise ValueError("the history is linearizable: there is no counterexample")
    return answer.counterexample(max_nodes=max_nodes)


def _minimal(failure: _Failure, max_nodes: int | None) -> History:
    model, last = failure.search.model, failure.last
    pending = last._pending_from(0)
    rest, givers = [o for o in failure.operations if o is not last], list[Operation]()
    nodes = 0

    def decided(operations: Iterable[Operation], goal: Operation | None = None) -> _Search | None:
        """A search that has ended; None if it reached the limit."""
        nonlocal nodes
        search = _Search(operations, model, goal)
        verdict = search.decide(None if max_nodes is None else max_nodes - nodes)
        nodes += search.nodes
        return None if verdict is Verdict.UNKNOWN else search

    def found(search: _Search | None) -> bool:
        return search is not None and search.found

    def same(operations: list[Operation]) -> bool:
        """Does it fail for the same reason?"""
        search = decided([*operations, last])
        if search is None or search.found:
            return False
        if search.stuck is not last and not found(decided([*operations, pending])):
            return False
        return not earlier or found(decided([*operations, last], last))

    def drop(units: list[list[Operation]], size: int) -> None:
        """Drop runs of so many units, where that is possible."""
        nonlocal rest
        for at in range(0, len(units), size):
            if max_nodes is not None and nodes >= max_nodes:
                return
            gone = {o for unit in units[at : at + size] for o in unit}
            fewer = [o for o in rest if o not in gone]
            if len(fewer) < len(rest) and same(fewer + givers):
                rest = fewer

    earlier = found(decided([*rest, last], last))
    if not earlier and last.outcome == "returned" and not isinstance(last.result, bool | None):
        givers = [o for o in rest if last.result in (*o.args, *o.kwargs.values())]
        rest = [o for o in rest if o not in givers]
    before = len(rest) + 1
    while len(rest) < before:
        before = len(rest)
        for units_of in (_by_value, _one_by_one):
            size = 1 << len(rest).bit_length()
            while size := size // 2:
                drop(units_of(rest), size)
        if len(rest) <= _PAIRS_TRIED:
            drop([list(pair) for pair in itertools.combinations(rest, 2)], 1)
    return History([*rest, *givers, last])


def _one_by_one(operations: list[Operation]) -> list[list[Operation]]:
    return [[o] for o in operations]


def _by_value(operations: list[Operation]) -> list[list[Operation]]:
    """Groups of operations that have an argument or a result in common, directly or by others."""
    group_of: dict[Any, list[Operation]] = {}
    groups: dict[int, list[Operation]] = {}
    for o in operations:
        group = [o]
        groups[id(group)] = group
        for value in (*o.args, *o.kwargs.values(), o.result if o.outcome == "returned" else None):
            try:
                other = None if value is None or isinstance(value, bool) else group_of.setdefault(value, group)
            except TypeError:  # not hashable
                continue
            if other is not None and other is not group:
                other, group = (other, group) if len(other) > len(group) else (group, other)
                other += group
                del groups[id(group)]
                for known in [v for v, g in group_of.items() if g is group]:
                    group_of[known] = other
                group = other
    return list(groups.values())


def _merged(orders: list[list[Operation]]) -> list[Operation]:
    """One order for all parts.

    Each operation's moment is as early as its part's order allows, which is in its interval (Herlihy & Wing's
    locality).
    """
    if len(orders) == 1:
        return orders[0]
    moments: list[tuple[int, int, int, Operation]] = []
    for part, order in enumerate(orders):
        moment = -1
        for position, operation in enumerate(order):
            moment = max(moment, operation.invoked)
            moments.append((moment, part, position, operation))
    return [entry[3] for entry in sorted(moments, key=lambda entry: entry[:3])]


def _lines(operations: Iterable[Operation]) -> list[str]:
    """One for each operation; of many, the last."""
    listed = list(operations)
    skipped = len(listed) - _OPERATIONS_SHOWN
    lines = [f"    {name_of(o.process)}: {o}" for o in (listed[skipped:] if skipped > 1 else listed)]
    return [f"    ({skipped} operations)", *lines] if skipped > 1 else lines


def _explained(failure: _Failure, where: str) -> str:
    """Why there is no order."""
    search, last, end = failure.search, failure.last, failure.last.returned
    model = search.model
    lines = [f"not linearizable{where}: no order of the operations up to event {end} allows"]
    lines += ["", f"    {name_of(last.process)}: {last}", ""]
    if search.stuck is not last:
        lines += ["Before it responded, it must have taken effect, with another outcome:", *_lines(failure.before)]
    elif failure.before:
        lines += ["The longest order of operations before it, or one such:", *_lines(failure.before), "which leaves"]
    else:
        lines += ["Nothing can be placed before it; at the start there is"]
    if search.stuck is last:
        for state in search.stuck_states[:_STATES_SHOWN]:
            text = model.describe(state)
            text = text if len(text) <= _LONGEST_STATE else f"{text[: _LONGEST_STATE - 3]}..."
            lines.append(f"    {text}: {model.expected(state, last)}")
    if search.count <= 2 * _OPERATIONS_SHOWN:
        timeline = History(search.operations).timeline({last: "<-- cannot be placed"})
        lines += ["", *[f"    {line}" for line in timeline.splitlines()]]
    return "\n".join(lines)
