"""Models of objects: their states, when two of them are the same, and what cannot be a model."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import pytest
from histories import Queue, Spec, Store, brute_force, events, history_of, scripts
from hypothesis import given, settings

from swapco.testing.history import History, Operation
from swapco.testing.linearizability import linearizable
from swapco.testing.models import FifoQueue, Model, SequentialModel, _is_ordinary

pytestmark = pytest.mark.usefixtures("fibers")


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SequentialModel(3), "factory is a class or a function that makes the sequential object, not 3"),
        (lambda: SequentialModel(Queue, copy=3), "copy is a function of the sequential object, or None, not 3"),
        (lambda: SequentialModel(Queue, key="x"), "key is a function of the sequential object, or None, not 'x'"),
        (lambda: FifoQueue(put="enqueue"), r"put is a collection of names of methods, .*, not 'enqueue'"),
        (lambda: FifoQueue(get=3), "get is a collection of names of methods, .*, not 3"),
        (lambda: FifoQueue(empty=3), "empty is the type of the exception .*, not 3"),
    ],
)
def test_arguments_of_models_are_checked(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_a_key_that_is_not_hashable_is_named() -> None:
    with pytest.raises(TypeError, match=r"key is a function to something hashable, and of .* it made \[\]"):
        linearizable(events("A put 1; A = None"), SequentialModel(Queue, key=lambda queue: queue.items))


@pytest.mark.parametrize("answer", [None, True, 3, (True,), (True, 1, 2), "ok"])
def test_an_answer_of_apply_that_is_no_pair_is_named(answer: Any) -> None:
    class Forgetful(Model[int]):
        def init(self) -> int:
            return 0

        def apply(self, state: int, operation: Operation) -> Any:
            return answer

    with pytest.raises(TypeError, match=r"Forgetful.apply\(\) returns a pair .* for put\(1\) -> None it returned"):
        linearizable(events("A put 1; A = None"), Forgetful)


def test_fifo_queue_names_what_could_be_first() -> None:
    history = events("A put 1; B put 2; A = None; B = None; A put 3; A = None; B get; B = 3")
    answer = linearizable(history, FifoQueue)
    assert "FifoQueue([1, 2, 3]): get() would return 1 or 2" in str(answer)
    assert "find it empty" in str(linearizable(events("A get; A = 3"), FifoQueue))
    empty = events("A get; A ! IndexError")
    assert linearizable(empty, FifoQueue(empty=IndexError))
    assert not linearizable(empty, FifoQueue(empty=KeyError))
