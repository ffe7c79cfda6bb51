"""Histories, models, and the linearizability checker against one that tries every order."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from helpers import in_fiber
from hypothesis import given, settings
from hypothesis import strategies as st

import swapco
from swapco import testing
from swapco.testing.history import History, Operation
from swapco.testing.linearizability import (
    Linearizability,
    NotLinearizable,
    Undecided,
    Verdict,
    _Search,
    assert_linearizable,
    linearizable,
    minimal_counterexample,
)
from swapco.testing.models import FifoQueue, Model, SequentialModel, _is_ordinary

pytestmark = pytest.mark.usefixtures("fibers")

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


def prefix_of(history: History, events: int) -> History:
    """What was known before event number ``events``."""
    found = []
    for o in history:
        if o.invoked < events:
            known = o.returned is not None and o.returned < events
            found.append(o if known else Operation(o.name, o.args, o.kwargs, process=o.process, invoked=o.invoked))
    return History(found)


@pytest.mark.parametrize("name", sorted(SPECS))
@given(script=scripts)
@settings(max_examples=150, deadline=None)
def test_the_verdict_is_that_of_trying_every_order(name: str, script: list[tuple[int, int, int]]) -> None:
    spec = SPECS[name]
    history = history_of(spec, script)
    expected = brute_force(spec.factory, history)
    for model in spec.all_models():
        answer = linearizable(history, model)
        assert answer.verdict == ("yes" if expected else "no"), f"{model}\n{history}"
        assert bool(answer) is expected


long_scripts = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 7)), min_size=20, max_size=45)


@pytest.mark.parametrize("distinct", [True, False])
@given(script=long_scripts)
@settings(max_examples=150, deadline=None)
def test_a_queue_that_decides_no_order_gives_the_verdict_of_one_that_does(
    distinct: bool, script: list[tuple[int, int, int]]
) -> None:
    duplicates = Spec(Queue, (("put", 1), ("put", 2), ("get",), ("get",)), (1, 2, None, IndexError()))
    history = history_of(SPECS["queue"] if distinct else duplicates, script, most=12)
    verdicts = [linearizable(history, model).verdict for model in (QueueModel, FifoQueue, Queue)]
    assert len(set(verdicts)) == 1


@pytest.mark.parametrize("name", sorted(SPECS))
@given(script=scripts)
@settings(max_examples=100, deadline=None)
def test_the_order_of_a_yes_is_a_proof(name: str, script: list[tuple[int, int, int]]) -> None:
    spec = SPECS[name]
    history = history_of(spec, script)
    answer = linearizable(history, spec.factory)
    if not answer:
        return
    assert len(set(answer.order)) == len(answer.order)
    assert {o for o in history if not o.unknown} <= set(answer.order) <= set(history)
    assert allowed_by_intervals(answer.order)
    assert allowed_by_object(spec.factory, answer.order)


@pytest.mark.parametrize("name", sorted(SPECS))
@given(script=scripts)
@settings(max_examples=100, deadline=None)
def test_the_operation_of_a_no_ends_the_shortest_prefix_without_an_order(
    name: str, script: list[tuple[int, int, int]]
) -> None:
    spec = SPECS[name]
    history = history_of(spec, script)
    answer = linearizable(history, spec.factory)
    if answer:
        return
    assert answer.failed is not None
    end = answer.failed.returned
    assert end is not None
    assert not brute_force(spec.factory, prefix_of(history, end + 1))
    before = prefix_of(history, end)
    assert brute_force(spec.factory, before)
    # an order of what is known before that response
    assert allowed_by_intervals(answer.prefix)
    assert allowed_by_object(spec.factory, answer.prefix)
    assert {o for o in before if not o.unknown} <= set(answer.prefix)


@pytest.mark.parametrize("name", sorted(SPECS))
@given(script=scripts)
@settings(max_examples=100, deadline=None)
def test_a_counterexample_is_minimal_and_fails_for_the_same_reason(
    name: str, script: list[tuple[int, int, int]]
) -> None:
    spec = SPECS[name]
    history = history_of(spec, script)
    answer = linearizable(history, spec.factory)
    if answer:
        return
    found = answer.counterexample()
    assert not brute_force(spec.factory, found)
    assert {o.invoked for o in found} <= {o.invoked for o in history}
    last = answer.failed
    assert last in found.operations
    assert last is not None
    assert last.returned is not None

    def right_earlier(operations: Iterable[Operation]) -> bool:
        """Is there a moment, of an order of some of what happened before, at which the last one would be right?"""
        others = [o for o in operations if o is not last]
        for order in orders(others):
            for cut in range(len(order) + 1):
                if allowed_by_object(spec.factory, (*order[:cut], last)):
                    return True
        return cut_orders_allow(others)

    def cut_orders_allow(others: list[Operation]) -> bool:
        # orders of a part that is closed under "precedes"
        for kept in itertools.chain.from_iterable(itertools.combinations(others, n) for n in range(len(others) + 1)):
            out = [o for o in others if o not in kept]
            if any(o.returned is not None and o.returned < k.invoked and not o.unknown for o in out for k in kept):
                continue
            for order in itertools.permutations(kept):
                if allowed_by_intervals(order) and allowed_by_object(spec.factory, (*order, last)):
                    return True
        return False

    whole = prefix_of(history, last.returned + 1)
    earlier = right_earlier(whole)
    assert not earlier or right_earlier(found)
    for operation in found:
        if operation is last or (not earlier and not last.unknown and gives(operation, last)):
            continue
        fewer = found.without(operation)
        assert (
            brute_force(spec.factory, fewer)
            or not brute_force(spec.factory, prefix_of(fewer, last.returned))
            or (earlier and not right_earlier(fewer))
        ), f"{operation} is superfluous in\n{found}"


def gives(operation: Operation, last: Operation) -> bool:
    return last.exception is None and last.result in operation.args


@given(script=scripts)
@settings(max_examples=100, deadline=None)
def test_a_partition_gives_the_verdict_of_the_whole(script: list[tuple[int, int, int]]) -> None:
    calls = (("set", "a", 1), ("set", "b", 2), ("get", "a"), ("get", "b"), ("set", "a", 2))
    spec = Spec(Store, calls, (1, 2, None, KeyError("a")))
    history = history_of(spec, script)
    whole = linearizable(history, Store)
    parts = linearizable(history, Store, partition=lambda o: o.args[0])
    assert parts.verdict == whole.verdict == ("yes" if brute_force(Store, history) else "no")
    if parts:
        assert allowed_by_intervals(parts.order)
        assert allowed_by_object(Store, parts.order)
    else:
        assert parts.failed is not None
        assert parts.part == parts.failed.args[0]


@given(script=scripts, seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_giving_up_and_starting_again_changes_no_verdict(script: list[tuple[int, int, int]], seed: int) -> None:
    spec = SPECS["stack"]
    history = history_of(spec, script, most=12)
    expected = _Search(history.operations, StackModel())
    verdict = expected.decide(None)
    search = _Search(history.operations, StackModel())
    rng, found = random.Random(seed), None
    while found is None:
        order = list(range(search.count))
        rng.shuffle(order)
        found = search._attempt(order, rng.randrange(1, 20) + len(search.seen) // 4, None)
    assert found is bool(verdict)
    if not found:
        assert search.stuck is expected.stuck


# --------------------------------------------------------------------------------------------- known histories


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


def test_overlapping_operations_may_take_effect_in_either_order() -> None:
    overlapping = events("A put 1; B put 2; A = None; B = None; A get; A = 2")
    assert [str(o) for o in linearizable(overlapping, Queue).order] == [
        "put(2) -> None",
        "put(1) -> None",
        "get() -> 2",
    ]
    assert not linearizable(events("A put 1; A = None; B put 2; B = None; A get; A = 2"), Queue)


def test_a_pending_operation_may_have_taken_effect_or_not() -> None:
    assert linearizable(events("A put 1; B get; B = 1"), Queue)
    assert linearizable(events("A put 1; B get; B ! IndexError"), Queue)
    assert linearizable(events("A get; B put 1; B = None; B get; B ! IndexError"), Queue)
    assert not linearizable(events("B get; B = 1; A put 1"), Queue), "it was invoked afterwards"


def test_an_aborted_operation_takes_no_effect_after_its_end() -> None:
    assert linearizable(events("A put 1; A ?; B get; B = 1"), Queue)
    assert linearizable(events("A put 1; A ?; B get; B ! IndexError"), Queue)
    # a waiter that was cancelled takes what is put later: the item is lost
    lost = "A get; A ?; B put 1; B = None; B get; B ! IndexError"
    assert not linearizable(events(lost), Queue)
    assert linearizable(events(lost.replace("A ?;", "")), Queue)


def test_an_exception_matches_what_the_object_raises_or_a_type_derived_from_it() -> None:
    class Lookup:
        def find(self) -> None:
            raise LookupError

    assert linearizable(events("A find; A ! KeyError"), Lookup)
    assert linearizable(events("A find; A ! LookupError"), Lookup)
    assert not linearizable(events("A find; A ! Exception"), Lookup)
    assert not linearizable(events("A find; A = None"), Lookup)


class Dice(Model[int]):
    """``roll`` may return anything, ``last`` what it returned."""

    def init(self) -> int:
        return 0

    def step(self, state: int, operation: Operation) -> Iterable[int]:
        if operation.name == "roll":
            return range(1, 7) if operation.returns(None) else ()
        return (state,) if operation.returns(state) else ()


def test_an_operation_may_have_several_effects() -> None:
    assert linearizable(events("A roll; A = None; A last; A = 6; A last; A = 6"), Dice)
    assert linearizable(events("A roll; B roll; A = None; A last; A = 6; A last; A = 5; B = None"), Dice)
    assert not linearizable(events("A roll; A = None; A last; A = 6; A last; A = 5"), Dice)
    assert not linearizable(events("A roll; A = None; A last; A = 7"), Dice)


def test_an_empty_history_is_linearizable() -> None:
    answer = linearizable([], Queue)
    assert answer.verdict == "yes"
    assert answer.order == ()


# ------------------------------------------------------------------------------------------------------ limits


def random_history(kind: str, operations: int, processes: int, seed: int, puts: float = 0.5) -> History:
    """Every process always runs an operation, which takes effect at some moment of its interval."""
    rng, number = random.Random(seed), itertools.count()
    obj = {"queue": Queue, "register": Register, "store": Store, "stack": Stack}[kind]()
    history, running = History(), dict[int, list[Any]]()
    while len(history) < operations or running:
        process = rng.randrange(processes)
        if process not in running:
            if len(history) < operations:
                gives = rng.random() < puts
                call: dict[str, tuple[Any, ...]] = {
                    "queue": ("put", next(number)) if gives else ("get",),
                    "stack": ("push", next(number)) if gives else ("pop",),
                    "register": ("write", rng.randrange(5)) if gives else ("read",),
                    "store": ("set", rng.choice("abcdefgh"), rng.randrange(100))
                    if gives
                    else ("get", rng.choice("abc")),
                }
                running[process] = [history.invoke(process, *call[kind])]
        elif len(running[process]) == 1:
            operation = running[process][0]
            running[process].append(outcome_of(obj, operation.name, operation.args))
        else:
            respond(history, *running.pop(process))
    return history


def wrong_result(history: History) -> History:
    """The last value that was received is received again."""
    values = [o for o in history if o.outcome == "returned" and o.result is not None]
    o = values[-1]
    other = next(v for v in reversed(values) if v.result != o.result)
    changed = Operation(o.name, o.args, process=o.process, invoked=o.invoked, returned=o.returned, result=other.result)
    return History([*history.without(o), changed])


@pytest.mark.parametrize("model", [Queue, QueueModel, FifoQueue])
@pytest.mark.parametrize("puts", [0.4, 0.5, 0.7])
def test_a_long_history_of_a_queue_needs_few_nodes(model: Callable[[], Any], puts: float) -> None:
    for seed in range(3):
        history = random_history("queue", 400, 4, seed, puts)
        answer = linearizable(history, model)
        assert answer
        assert answer.nodes < 5 * len(history)


@pytest.mark.parametrize("puts", [0.4, 0.5, 0.7])
def test_a_queue_that_decides_no_order_is_refuted_with_few_nodes(puts: float) -> None:
    for seed in range(3):
        answer = linearizable(wrong_result(random_history("queue", 400, 4, seed, puts)), FifoQueue)
        assert answer.verdict == "no"
        assert answer.nodes < 30 * 400


@pytest.mark.parametrize("kind", ["register", "store"])
def test_a_long_history_of_a_map_needs_few_nodes(kind: str) -> None:
    factory, partition = {"register": (Register, None), "store": (Store, lambda o: o.args[0])}[kind]
    for seed in range(3):
        history = random_history(kind, 400, 4, seed)
        answer = linearizable(history, factory, partition=partition)
        assert answer
        assert answer.nodes < 5 * len(history)


def hard_history() -> History:
    """Ten items put at once, then a value that nobody put: every order is tried."""
    history = History()
    for put in [history.invoke(process, "put", process) for process in range(10)]:
        history.returned(put)
    for value in (*range(9), 99):
        history.returned(history.invoke("reader", "get"), value)
    return history


def test_at_its_limit_the_answer_is_unknown_and_no_condition() -> None:
    answer = linearizable(hard_history(), QueueModel, max_nodes=500)
    assert answer.verdict == "unknown"
    assert answer.verdict is Verdict.UNKNOWN
    assert answer.nodes == 500
    with pytest.raises(Undecided, match="500 nodes.*max_nodes"):
        bool(answer)
    with pytest.raises(Undecided):
        bool(answer.verdict)
    with pytest.raises(Undecided):
        assert_linearizable(hard_history(), QueueModel, max_nodes=500)
    with pytest.raises(ValueError, match="unknown"):
        answer.counterexample()
    with pytest.raises(Undecided):
        minimal_counterexample(hard_history(), QueueModel, max_nodes=500)
    assert not linearizable(hard_history(), FifoQueue, max_nodes=5000)


def test_a_verdict_at_a_limit_is_the_same_each_time() -> None:
    answers = [linearizable(hard_history(), Queue, max_nodes=limit) for limit in (300, 300)]
    assert [(a.verdict, a.nodes) for a in answers] == [("unknown", 300)] * 2


def test_a_timeout_makes_it_unknown() -> None:
    assert linearizable(hard_history(), QueueModel, max_nodes=None, timeout=0.0).verdict == "unknown"


def test_one_part_that_is_refuted_outweighs_an_unknown_one() -> None:
    operations = [*hard_history().operations]
    later = 1000
    bad = Operation("get", process="x", invoked=later, returned=later + 1, result=5)
    answer = linearizable([*operations, bad], QueueModel, partition=lambda o: o is bad, max_nodes=500)
    assert answer.verdict == "no"
    assert answer.failed is bad


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_verdict_is_its_text(verdict: Verdict) -> None:
    assert verdict == str(verdict) == verdict.value


def test_a_verdict_is_true_only_for_yes() -> None:
    assert Verdict.YES
    assert not Verdict.NO


# ------------------------------------------------------------------------------------------- counterexamples


def with_noise(text: str, noise: int = 30) -> History:
    """A history of values from 1 on, behind much that went right, with other values."""
    before = "".join(f"A put {n}; B get; A = None; B = {n};" for n in range(100, 100 + noise))
    return events(before + text)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        pytest.param(
            "A put 1; A = None; A put 2; A = None; B get; B = 2",
            ["put(1) -> None", "put(2) -> None", "get() -> 2"],
            id="overtaken",
        ),
        pytest.param(
            "A put 1; A = None; B get; B = 1; A get; A = 1",
            ["put(1) -> None", "get() -> 1", "get() -> 1"],
            id="delivered twice",
        ),
        pytest.param(
            "A put 1; A = None; B get; B ! IndexError", ["put(1) -> None", "get() raises IndexError()"], id="lost"
        ),
        pytest.param("B get; B = 9", ["get() -> 9"], id="invented"),
    ],
)
def test_what_is_left_shows_what_went_wrong(text: str, calls: list[str]) -> None:
    found = minimal_counterexample(with_noise(text), Queue)
    assert [str(o) for o in found] == calls


def test_a_stale_read_keeps_both_writes() -> None:
    history = events("A write 1; A = None; A write 2; A = None; A write 3; A = None; B read; B = 1")
    found = [str(o) for o in minimal_counterexample(history, Register)]
    assert found in (
        ["write(1) -> None", "write(2) -> None", "read() -> 1"],
        ["write(1) -> None", "write(3) -> None", "read() -> 1"],
    )


def test_a_lost_update_keeps_what_was_counted() -> None:
    history = events("A add 1; A = 1; A add 1; B add 1; A = 2; B = 2; A get; A = 3; B add 1; B = 4")
    found = minimal_counterexample(history, Counter)
    assert [str(o) for o in found] == ["add(1) -> 1", "add(1) -> 2", "add(1) -> 2"]


def test_what_responds_after_the_failure_is_pending_in_a_counterexample() -> None:
    history = events("A put 1; B get; B = 1; B get; B = 1; A = None; A get; A = 5")
    assert [str(o) for o in minimal_counterexample(history, Queue)] == ["put(1) pending", "get() -> 1", "get() -> 1"]


def test_there_is_no_counterexample_to_a_yes() -> None:
    with pytest.raises(ValueError, match="is linearizable"):
        minimal_counterexample(events("A put 1; A = None"), Queue)
    with pytest.raises(ValueError, match="'yes'"):
        linearizable([], Queue).counterexample()


def test_the_assertion_explains_with_the_counterexample() -> None:
    with pytest.raises(NotLinearizable) as caught:
        assert_linearizable(with_noise("A put 1; A = None; A put 2; A = None; B get; B = 2"), Queue)
    assert isinstance(caught.value, AssertionError)
    assert str(caught.value) == (
        "not linearizable: no order of the operations up to event 125 allows\n"
        "\n"
        "    B: get() -> 2\n"
        "\n"
        "The longest order of operations before it, or one such:\n"
        "    A: put(1) -> None\n"
        "    A: put(2) -> None\n"
        "which leaves\n"
        "    Queue(items=[1, 2]): get() would return 1\n"
        "\n"
        "         A               B\n"
        "    120  put(1) -> None\n"
        "    122  put(2) -> None\n"
        "    124                  get() -> 2  <-- cannot be placed"
    )
    assert_linearizable(with_noise("A put 1; A = None"), Queue)


def test_the_explanation_of_a_long_history_is_short() -> None:
    answer = linearizable(wrong_result(random_history("queue", 300, 4, 0)), FifoQueue)
    assert answer.verdict == "no"
    assert "operations)" in answer.explanation
    assert len(answer.explanation.splitlines()) < 60
    assert repr(answer).startswith("<Linearizability: no, ")


def test_the_explanation_names_the_part() -> None:
    history = History.from_events([("invoke", "A", "get", "k"), ("return", "A", 7)])
    answer = linearizable(history, Store, partition=lambda o: o.args[0])
    assert answer.part == "k"
    assert "not linearizable in part 'k'" in str(answer)
    assert "get('k') would raise KeyError('k')" in str(answer)


def test_states_that_several_orders_lead_to_are_all_shown() -> None:
    answer = linearizable(events("A put 1; B put 2; A = None; B = None; A get; A = 3"), QueueModel)
    assert "(1, 2): get() cannot be '-> 3'" in str(answer)
    assert "(2, 1): get() cannot be '-> 3'" in str(answer)


# ------------------------------------------------------------------------------------------------------ models


def test_items_that_are_only_equal_to_themselves_come_back_as_themselves() -> None:
    one, two = object(), object()
    history = History()
    queue = history.wrap(Queue(), process="A")
    for item in (one, (2, two)):
        queue.put(item)
    assert queue.get() is one
    assert queue.get() == (2, two)
    assert linearizable(history, Queue)
    assert linearizable(history, SequentialModel(Queue))
    swapped = [("invoke", 1, "put", one), ("return", 1), ("invoke", 1, "get"), ("return", 1, two)]
    assert not linearizable(History.from_events(swapped), Queue)


def test_a_model_may_be_used_for_many_histories() -> None:
    model = SequentialModel(Queue)
    for item in (object(), 1, "a", [1], None, object()):
        for _ in range(2):
            history = History()
            history.returned(history.invoke("A", "put", item))
            history.returned(history.invoke("A", "get"), item)
            history.returned(history.invoke("A", "put", [item]))
            assert linearizable(history, model)


def test_arguments_and_states_are_not_changed_by_the_model() -> None:
    class Extender:
        def __init__(self) -> None:
            self.seen: list[list[int]] = []

        def extend(self, items: list[int]) -> list[int]:
            items.append(len(self.seen))
            self.seen.append(items)
            return items

    history = History()
    a, b = history.invoke("A", "extend", [7]), history.invoke("B", "extend", [8])
    history.returned(a, [7, 1])
    history.returned(b, [8, 0])
    for _ in range(2):
        answer = linearizable(history, Extender)
        assert [o.process for o in answer.order] == ["B", "A"]
    assert a.args == ([7],)
    assert b.args == ([8],)


def test_a_method_that_returns_its_object_matches_itself() -> None:
    class Chain:
        def __init__(self) -> None:
            self.n = 0

        def more(self) -> Chain:
            self.n += 1
            return self

        def get(self) -> int:
            return self.n

    history = History()
    chain = history.wrap(Chain(), process="A")
    assert chain.more().more() is chain
    assert chain.get() == 2
    assert linearizable(history, Chain)
    assert str(history.operations[0]) == "more() -> self"


class Recent:
    """Behaves by the order of a dict."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    def touch(self, key: str) -> None:
        self.items.pop(key, None)
        self.items[key] = 1

    def oldest(self) -> str:
        return next(iter(self.items))


class Shared:
    """Behaves by which of its parts are the same object."""

    def __init__(self) -> None:
        self.left: list[int] = []
        self.right: list[int] = []

    def join(self) -> None:
        self.right = self.left

    def clear(self) -> None:
        self.left, self.right = [], []

    def grow(self) -> tuple[int, int]:
        self.left.append(1)
        return len(self.left), len(self.right)


@pytest.mark.parametrize(
    ("factory", "calls"),
    [
        (Recent, [("touch", "a"), ("touch", "b"), ("oldest",)]),
        (Shared, [("join",), ("clear",), ("grow",)]),
        (lambda: deque(maxlen=2), [("append", 1), ("appendleft", 2), ("pop",)]),
        (OrderedDict, [("setdefault", 1, 2), ("setdefault", 3, 4), ("popitem",)]),
        (set, [("add", 1), ("add", True), ("discard", 1), ("__len__",)]),
    ],
    ids=["dict", "sharing", "deque", "OrderedDict", "set"],
)
@given(script=scripts)
@settings(max_examples=60, deadline=None)
def test_states_are_the_same_only_if_they_behave_alike(
    factory: Callable[[], Any], calls: list[tuple[Any, ...]], script: list[tuple[int, int, int]]
) -> None:
    spec = Spec(factory, tuple(calls), (None, "a", "b", 1, 2, (1, 2), (1, 1)))
    history = history_of(spec, script)
    assert bool(linearizable(history, factory)) is brute_force(factory, history)


def test_slots_and_deep_structures_are_taken_apart() -> None:
    class Slotted:
        __slots__ = ("deep", "n")

        def __init__(self) -> None:
            self.n = 0
            self.deep: dict[Any, Any] = {"a": [{1, 2}, frozenset({3}), (4.0, True)], None: self}

        def more(self) -> int:
            self.n += 1
            self.deep["a"][0].add(self.n)
            return len(self.deep["a"][0])

    history = events("A more; B more; A = 2; B = 2; A more; A = 3")
    assert linearizable(history, Slotted)
    assert not linearizable(events("A more; A = 2; B more; B = 3"), Slotted)


def test_a_key_says_which_states_are_the_same() -> None:
    history = History()
    for put in [history.invoke(process, "set", f"k{process}", process) for process in range(6)]:
        history.returned(put)
    history.returned(history.invoke("A", "get", "k0"), 99)
    slow = linearizable(history, Store)
    quick = linearizable(history, SequentialModel(Store, key=lambda store: frozenset(store.items.items())))
    assert slow.verdict == quick.verdict == "no"
    assert quick.nodes < 2**8 < slow.nodes


def test_a_copy_may_be_given() -> None:
    copies = []

    def copied(queue: Queue) -> Queue:
        copies.append(queue)
        return copy.deepcopy(queue)

    assert linearizable(events("A put 1; A = None; A get; A = 1"), SequentialModel(Queue, copy=copied))
    assert len(copies) == 2


@pytest.mark.parametrize("base", [list, dict, deque, Exception, threading.local])
def test_an_object_with_more_than_attributes_is_not_taken_for_an_ordinary_one(base: type) -> None:
    class WithSlots:
        __slots__ = ("__dict__", "x")

    class Derived(base):  # type: ignore[misc]
        pass

    class DerivedAgain(WithSlots):
        pass

    class Reduced:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Reduced, ())

    assert not any(
        _is_ordinary(kind) for kind in (base, Derived, WithSlots, DerivedAgain, Reduced, type(threading.Lock()))
    )
    assert _is_ordinary(Queue)


def test_what_cannot_be_taken_apart_is_an_error_that_says_what_to_do() -> None:
    class Locked(Queue):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(TypeError, match="key="):
        linearizable(events("A put 1; A = None"), Locked)


def test_a_method_that_the_object_has_not_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"push\(1\).*no such method"):
        linearizable(events("A push 1; A = None"), Queue)
    with pytest.raises(AttributeError, match=r"FifoQueue\(put="):
        linearizable(events("A push 1; A = None"), FifoQueue)


def test_a_model_that_is_none_is_an_error() -> None:
    with pytest.raises(TypeError, match="not 3"):
        linearizable([], 3)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="Model must define init"):
        linearizable(events("A put 1"), Model)
    with pytest.raises(NotImplementedError, match="apply"):
        Model[int]().step(0, events("A put 1").operations[0])


def test_fifo_queue_names_what_could_be_first() -> None:
    history = events("A put 1; B put 2; A = None; B = None; A put 3; A = None; B get; B = 3")
    answer = linearizable(history, FifoQueue)
    assert "FifoQueue([1, 2, 3]): get() would return 1 or 2" in str(answer)
    assert "find it empty" in str(linearizable(events("A get; A = 3"), FifoQueue))
    empty = events("A get; A ! IndexError")
    assert linearizable(empty, FifoQueue(empty=IndexError))
    assert not linearizable(empty, FifoQueue(empty=KeyError))


# --------------------------------------------------------------------------------------------------- histories


def test_a_history_can_be_written_down_and_read_back() -> None:
    written: list[tuple[Any, ...]] = [
        ("invoke", "A", "put", 1),
        ("invoke", "B", "get"),
        ("return", "A", None),
        ("raise", "B", IndexError()),
        ("invoke", "B", "get"),
        ("abort", "B"),
        ("invoke", "B", "get"),
    ]
    history = History.from_events(written)
    assert history.events == written
    assert [o.outcome for o in history] == ["returned", "raised", "aborted", "pending"]
    assert repr(history) == "<History: 4 operations by 2 processes, 1 pending>"
    assert len(history) == 4


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([("return", "A", 1)], "'A' has invoked nothing"),
        ([("invoke", "A", "get"), ("invoke", "A", "get")], r"has not responded to get\(\)"),
        ([("invoke", "A", "get"), ("ok", "A", 1)], "not 'ok'"),
    ],
)
def test_events_that_do_not_fit_are_an_error(written: list[tuple[Any, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        History.from_events(written)


def test_operations_from_elsewhere_are_checked() -> None:
    with pytest.raises(ValueError, match="cannot have returned"):
        Operation("get", process=1, invoked=3, returned=3)
    with pytest.raises(ValueError, match="same number"):
        History([Operation("get", process=1, invoked=3, returned=4), Operation("get", process=2, invoked=4)])
    history = History([Operation("get", process=1, invoked=3, returned=9)])
    assert history.invoke(1, "get").invoked == 10


def test_an_operation_responds_once() -> None:
    history = History()
    operation = history.invoke("A", "get")
    history.returned(operation, 1)
    with pytest.raises(ValueError, match="responded already"):
        history.returned(operation, 2)


def test_a_result_that_is_not_there_is_an_error() -> None:
    history = events("A get; B get; A ! IndexError")
    for operation in history:
        with pytest.raises(ValueError, match="returns"):
            operation.result
    raised, pending = history
    assert raised.raises(LookupError)
    assert not raised.raises(KeyError)
    assert not raised.returns(None)
    assert pending.returns(1)
    assert pending.raises(KeyError)


@in_fiber
def test_fibers_record_themselves() -> None:
    history = History()
    queue = history.wrap(swapco.Queue())

    def consumer() -> Any:
        return queue.get()

    fiber = swapco.spawn(consumer, name="consumer")
    swapco.sleep(0)
    queue.put_nowait(1)
    assert fiber.join() == 1
    get, put = history
    assert get.process is fiber
    assert put.process is swapco.current_fiber()
    assert (get.invoked, put.invoked, put.returned, get.returned) == (0, 1, 2, 3)
    assert "consumer" in str(history)
    assert linearizable(history, FifoQueue)


@in_fiber
def test_a_cancelled_operation_is_aborted() -> None:
    history = History()
    queue = history.wrap(swapco.Queue())
    fiber = swapco.spawn(queue.get)
    swapco.sleep(0)
    fiber.cancel()
    with pytest.raises(swapco.CancelledError):
        fiber.join()
    queue.put_nowait(1)
    with pytest.raises(swapco.QueueEmpty):
        [queue.get_nowait() for _ in range(2)]
    assert [o.outcome for o in history] == ["aborted", "returned", "returned", "raised"]
    assert linearizable(history, FifoQueue(empty=swapco.QueueEmpty))


@in_fiber
def test_a_deadlocked_operation_is_pending() -> None:
    history = History()
    queue = history.wrap(swapco.Queue())
    fiber = swapco.spawn(queue.get)
    swapco.sleep(0)
    assert [str(o) for o in history] == ["get() pending"]
    assert linearizable(history, FifoQueue)
    fiber.cancel()
    swapco.wait([fiber])


@in_fiber
def test_a_queue_that_loses_items_is_found() -> None:
    class Leaky:
        def __init__(self) -> None:
            self.items: list[int] = []

        def put(self, item: int) -> None:
            items = [*self.items, item]
            swapco.sleep(0)
            self.items = items

        def get(self) -> int:
            return self.items.pop(0)

    history = History()
    queue = history.wrap(Leaky())
    swapco.gather(*[lambda n=n: queue.put(n) for n in range(3)])
    with pytest.raises(IndexError):
        [queue.get() for _ in range(3)]
    answer = linearizable(history, Queue)
    assert not answer
    assert answer.failed is not None
    assert answer.failed.raises(IndexError)
    assert [o.name for o in answer.counterexample()] == ["put", "get"]


def test_a_block_is_an_operation() -> None:
    history = History()
    with history.operation("put", 1, process="A") as o:
        o.result = "fine"
    with pytest.raises(KeyError):
        with history.operation("get", key="k", process="B"):
            raise KeyError("k")
    with history.operation("quit", process="A"):
        pass
    assert [str(o) for o in history] == ["put(1) -> 'fine'", "get(key='k') raises KeyError('k')", "quit() -> None"]


def test_a_call_is_an_operation_of_the_thread_where_there_is_no_fiber() -> None:
    history, queue = History(), Queue()
    history.call(queue.put, 1)
    assert history.call(queue.get) == 1
    with pytest.raises(IndexError):
        history.call(queue.get)
    assert {o.process for o in history} == {threading.current_thread()}
    assert linearizable(history, Queue)
    assert "MainThread" in str(history)


def test_coroutines_are_recorded_until_they_end() -> None:
    class Slow:
        async def get(self) -> int:
            await asyncio.sleep(0)
            return 7

    history = History()

    async def main() -> None:
        slow = history.wrap(Slow())
        answers = await asyncio.gather(asyncio.create_task(slow.get(), name="one"), slow.get())
        assert list(answers) == [7, 7]

    asyncio.run(main())
    assert [str(o) for o in history] == ["get() -> 7"] * 2
    assert {history.operations[0].invoked, history.operations[1].invoked} == {0, 1}
    assert "one" in str(history)


def test_a_proxy_passes_on_what_is_no_operation() -> None:
    class Thing:
        def __init__(self) -> None:
            self.level = 1
            self.items: dict[str, int] = {}

        def __enter__(self) -> Thing:
            return self

        def __exit__(self, *exc: object) -> None:
            pass

        def __getitem__(self, key: str) -> int:
            return self.items[key]

        def __setitem__(self, key: str, value: int) -> None:
            self.items[key] = value

        def _helper(self) -> int:
            return 3

        def statistics(self) -> int:
            return 4

    history = History()
    thing = history.wrap(Thing(), process="A", only=["__enter__", "__exit__", "__setitem__", "__getitem__"])
    thing.level = 5
    assert (thing.level, thing._helper(), thing.statistics()) == (5, 3, 4)
    assert len(history) == 0
    with thing as same:
        assert same is thing
        thing["k"] = 1
        assert thing["k"] == 1
    assert [o.call for o in history] == [
        "__enter__()",
        "__setitem__('k', 1)",
        "__getitem__('k')",
        "__exit__(None, None, None)",
    ]
    assert linearizable(history, Thing)
    with pytest.raises(TypeError):
        len(thing)
    with pytest.raises(AttributeError):
        thing.nothing


@pytest.mark.parametrize(
    ("unknown", "outcomes"),
    [
        (None, ["raised", "aborted"]),
        ((), ["raised", "raised"]),
        ((TimeoutError,), ["aborted", "raised"]),
        ((TimeoutError, swapco.CancelledError), ["aborted", "aborted"]),
    ],
)
def test_which_exceptions_leave_the_effect_open(
    unknown: tuple[type[BaseException], ...] | None, outcomes: list[str]
) -> None:
    history = History(unknown=unknown)
    for exception in (TimeoutError(), swapco.CancelledError()):
        with pytest.raises(type(exception)):
            with history.operation("get", process="A"):
                raise exception
    assert [o.outcome for o in history] == outcomes


def test_long_values_are_cut_in_texts() -> None:
    history = History()
    history.returned(history.invoke("A", "put", list(range(1000))), "x" * 1000)
    assert len(str(history.operations[0])) < 150
    answer = linearizable(history, Queue)
    assert len(str(answer)) < 2000
    history.returned(history.invoke("A", "get"), 1)
    assert len(str(linearizable(History(history.operations[1:]), Queue))) < 500


def test_copies_protect_from_later_changes() -> None:
    for copied in (None, copy.deepcopy):
        history = History(copy=copied)
        argument, result = [1], [2]
        history.returned(history.invoke("A", "f", argument, key=argument), result)
        argument.append(3)
        result.append(3)
        expected = "f([1], key=[1]) -> [2]" if copied else "f([1, 3], key=[1, 3]) -> [2, 3]"
        assert str(history.operations[0]) == expected


def test_threads_get_distinct_numbers() -> None:
    history = History()

    def work() -> None:
        for n in range(200):
            history.call(int, n)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers: list[int] = [n for o in history for n in (o.invoked, o.returned or 0)]
    assert set(numbers) == set(range(1600))
    assert len(History(history)) == 800


def test_the_timeline_has_a_column_for_each_process() -> None:
    history = events(
        "A put 1; B get; A = None; A put 2; A = None; B = 1; B get; A put 3; A ?;"
        "C get; C ! IndexError; A quit; A = None"
    )
    assert str(history) == (
        "    A               B        C\n"
        " 0  put(1)\n"
        " 1  |               get()\n"
        " 2  -> None         |\n"
        " 3  put(2) -> None  |\n"
        " 5                  -> 1\n"
        " 6                  get()\n"
        " 7  put(3) aborted  |\n"
        " 9                  |        get() raises IndexError()\n"
        "11  quit() -> None  |\n"
        "                    pending"
    )


def test_a_process_with_overlapping_operations_has_two_columns() -> None:
    history = History()
    first, second = history.invoke("A", "get"), history.invoke("A", "get")
    history.returned(first, 1)
    history.returned(second, 2)
    assert (
        history.timeline({second: "here"})
        == "   A      A\n0  get()\n1  |      get()\n2  -> 1   |\n3         -> 2   here"
    )


def test_an_answer_is_a_value_of_its_own() -> None:
    answer: Linearizability = linearizable([], Queue)
    hashable: Hashable = answer
    assert hashable == answer
    with pytest.raises(AttributeError):
        answer.verdict = Verdict.NO  # type: ignore[misc]


class SplitCounter:
    """Reads, lets others run, writes."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, n: int) -> int:
        value = self.value
        testing.schedule_point()
        self.value = value + n
        return self.value

    def get(self) -> int:
        return self.value


def test_a_search_finds_the_schedule_whose_history_is_not_linearizable() -> None:
    histories = []

    def body() -> None:
        history = History()
        histories.append(history)
        counter = history.wrap(SplitCounter())
        swapco.gather(*[lambda: counter.add(1) for _ in range(2)])
        counter.get()
        assert_linearizable(history, Counter)

    result = testing.search(body, schedules=200, seed=0, save=False)
    assert result.failed
    assert isinstance(result.exception, NotLinearizable)
    assert result.preemptions == 1
    assert "<-- cannot be placed" in str(result.exception)
    assert [str(o) for o in histories[-1]] == ["add(1) -> 1", "add(1) -> 1", "get() -> 1"]
