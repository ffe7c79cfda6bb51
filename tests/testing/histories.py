"""Objects, models of them and histories that the tests of histories, models and their checker use."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from swapco.testing.history import History, Operation
from swapco.testing.models import FifoQueue, Model, SequentialModel

# ----------------------------------------------------------------------------------------- sequential objects


class Register:
    def __init__(self) -> None:
        self.value = 0

    def write(self, value: int) -> None:
        self.value = value

    def read(self) -> int:
        return self.value


class Queue:
    def __init__(self) -> None:
        self.items: list[Any] = []

    def put(self, item: Any) -> None:
        self.items.append(item)

    def get(self) -> Any:
        return self.items.pop(0)


class Stack:
    def __init__(self) -> None:
        self.items: deque[Any] = deque()

    def push(self, item: Any) -> None:
        self.items.append(item)

    def pop(self) -> Any:
        return self.items.pop()


class Members:
    def __init__(self) -> None:
        self.members: set[int] = set()

    def add(self, member: int) -> bool:
        new = member not in self.members
        self.members.add(member)
        return new

    def discard(self, member: int) -> None:
        self.members.discard(member)

    def remove(self, member: int) -> None:
        self.members.remove(member)

    def has(self, member: int) -> bool:
        return member in self.members


class Lock:
    def __init__(self) -> None:
        self.held = False

    def acquire(self) -> bool:
        got, self.held = not self.held, True
        return got

    def release(self) -> None:
        if not self.held:
            raise RuntimeError("not held")
        self.held = False


class Counter:
    def __init__(self) -> None:
        self.value = 0

    def add(self, n: int) -> int:
        self.value += n
        return self.value

    def get(self) -> int:
        return self.value


class Store:
    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    def set(self, key: str, value: int) -> None:
        self.items[key] = value

    def get(self, key: str) -> int:
        return self.items[key]


# ------------------------------------------------------------------- the same as models with immutable states


class RegisterModel(Model[int]):
    def init(self) -> int:
        return 0

    def apply(self, state: int, operation: Operation) -> tuple[bool, int]:
        if operation.name == "write":
            return operation.returns(None), operation.args[0]
        return operation.returns(state), state


class QueueModel(Model[tuple[Any, ...]]):
    def init(self) -> tuple[Any, ...]:
        return ()

    def apply(self, state: tuple[Any, ...], operation: Operation) -> tuple[bool, tuple[Any, ...]]:
        if operation.name == "put":
            return operation.returns(None), (*state, operation.args[0])
        if not state:
            return operation.raises(IndexError), state
        return operation.returns(state[0]), state[1:]


class StackModel(Model[tuple[Any, ...]]):
    def init(self) -> tuple[Any, ...]:
        return ()

    def apply(self, state: tuple[Any, ...], operation: Operation) -> tuple[bool, tuple[Any, ...]]:
        if operation.name == "push":
            return operation.returns(None), (*state, operation.args[0])
        if not state:
            return operation.raises(IndexError), state
        return operation.returns(state[-1]), state[:-1]


@dataclass(frozen=True)
class Spec:
    """An object, what may be called on it, outcomes that may be invented, and models of it."""

    factory: Callable[[], Any]
    calls: tuple[tuple[Any, ...], ...]
    inventions: tuple[Any, ...]
    models: tuple[Callable[[], Model[Any]], ...] = ()

    def all_models(self) -> list[Model[Any]]:
        return [SequentialModel(self.factory), *(make() for make in self.models)]


SPECS = {
    "register": Spec(Register, (("write", 1), ("write", 2), ("read",), ("read",)), (0, 1, 2, None), (RegisterModel,)),
    "queue": Spec(
        Queue,
        (("put", 1), ("put", 2), ("put", 3), ("get",), ("get",), ("get",)),
        (1, 2, 3, None, IndexError("empty")),
        (QueueModel, FifoQueue),
    ),
    "stack": Spec(
        Stack,
        (("push", 1), ("push", 2), ("push", 3), ("pop",), ("pop",), ("pop",)),
        (1, 2, 3, None, IndexError("empty")),
        (StackModel,),
    ),
    "set": Spec(
        Members,
        (("add", 1), ("add", 2), ("discard", 1), ("remove", 1), ("remove", 2), ("has", 1)),
        (True, False, None, KeyError(1)),
    ),
    "lock": Spec(Lock, (("acquire",), ("release",)), (True, False, None, RuntimeError("not held"))),
    "counter": Spec(Counter, (("add", 1), ("add", 2), ("get",)), (0, 1, 2, 3)),
}

MOST_OPERATIONS = 6
scripts = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 7)), max_size=20)


def outcome_of(obj: Any, name: str, args: tuple[Any, ...]) -> Any:
    try:
        return getattr(obj, name)(*args)
    except Exception as exception:
        return exception


def respond(history: History, operation: Operation, outcome: Any) -> None:
    if isinstance(outcome, Exception):
        history.raised(operation, outcome)
    else:
        history.returned(operation, outcome)


def history_of(spec: Spec, script: Iterable[tuple[int, int, int]], most: int = MOST_OPERATIONS) -> History:
    """Calls that take effect at some moment of their interval, except for some outcomes that are invented."""
    history, obj = History(), spec.factory()
    running: dict[int, list[Any]] = {}
    for process, choice, what in script:
        if process not in running:
            if len(history) < most:
                name, *args = spec.calls[choice % len(spec.calls)]
                running[process] = [history.invoke(process, name, *args)]
            continue
        operation, *outcome = running[process]
        if what <= 2:
            if not outcome:
                running[process].append(outcome_of(obj, operation.name, operation.args))
        elif what == 3:
            history.aborted(operation)
            del running[process]
        else:
            if what == 4:
                outcome = [spec.inventions[choice % len(spec.inventions)]]
            elif not outcome:
                outcome = [outcome_of(obj, operation.name, operation.args)]
            respond(history, operation, outcome[0])
            del running[process]
    return history


# ------------------------------------------------------------------------------------------------ brute force


def allowed_by_intervals(order: Iterable[Operation]) -> bool:
    latest = -1
    for operation in order:
        latest = max(latest, operation.invoked)
        if operation.returned is not None and operation.returned < latest:
            return False
    return True


def allowed_by_object(factory: Callable[[], Any], order: Iterable[Operation]) -> bool:
    obj = factory()
    for operation in order:
        outcome = outcome_of(obj, operation.name, operation.args)
        if isinstance(outcome, Exception):
            if not operation.raises(type(outcome)):
                return False
        elif not operation.returns(outcome):
            return False
    return True


def orders(operations: list[Operation]) -> Iterator[tuple[Operation, ...]]:
    """Every order that the intervals allow, of those that have an outcome and any of the others."""
    unknown = [o for o in operations if o.unknown]
    for dropped in itertools.chain.from_iterable(itertools.combinations(unknown, n) for n in range(len(unknown) + 1)):
        for order in itertools.permutations([o for o in operations if o not in dropped]):
            if allowed_by_intervals(order):
                yield order


def brute_force(factory: Callable[[], Any], operations: Iterable[Operation]) -> bool:
    return any(allowed_by_object(factory, order) for order in orders(list(operations)))


def events(text: str) -> History:
    """``A put 1`` invokes, ``A = None`` returns, ``A ! IndexError`` raises, ``A ?`` aborts."""
    found: list[tuple[Any, ...]] = []
    for line in text.strip().split(";"):
        process, what, *rest = line.split()
        values = [int(word) if word.lstrip("-").isdigit() else None for word in rest]
        if what == "=":
            found.append(("return", process, values[0]))
        elif what == "!":
            found.append(("raise", process, getattr(__import__("builtins"), rest[0])()))
        elif what == "?":
            found.append(("abort", process))
        else:
            found.append(("invoke", process, what, *values))
    return History.from_events(found)
