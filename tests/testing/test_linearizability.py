"""The linearizability checker against one that tries every order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from histories import (
    SPECS,
    Counter,
    Queue,
    QueueModel,
    Register,
    Spec,
    Stack,
    StackModel,
    Store,
    allowed_by_intervals,
    allowed_by_object,
    brute_force,
    events,
    history_of,
    orders,
    outcome_of,
    respond,
    scripts,
)
from hypothesis import given, settings
from hypothesis import strategies as st

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
from swapco.testing.models import FifoQueue, Model

pytestmark = pytest.mark.usefixtures("fibers")


Script = list[tuple[int, int, int]]


def of_every_kind(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Of each kind of object, so many random histories; many of them are linearizable, and many are not."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        law = given(script=scripts)(settings(max_examples=examples, deadline=None)(test))
        return pytest.mark.parametrize("name", sorted(SPECS))(law)

    return decorate


def checked(name: str, script: Script) -> tuple[Spec, History, Linearizability]:
    spec = SPECS[name]
    history = history_of(spec, script)
    return spec, history, linearizable(history, spec.factory)


def prefix_of(history: History, events: int) -> History:
    """What was known before event number ``events``."""
    found = []
    for o in history:
        if o.invoked < events:
            known = o.returned is not None and o.returned < events
            found.append(o if known else Operation(o.name, o.args, o.kwargs, process=o.process, invoked=o.invoked))
    return History(found)


@of_every_kind(150)
def test_the_verdict_is_that_of_trying_every_order(name: str, script: Script) -> None:
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
def test_a_queue_that_decides_no_order_gives_the_verdict_of_one_that_does(distinct: bool, script: Script) -> None:
    duplicates = Spec(Queue, (("put", 1), ("put", 2), ("get",), ("get",)), (1, 2, None, IndexError()))
    history = history_of(SPECS["queue"] if distinct else duplicates, script, most=12)
    verdicts = [linearizable(history, model).verdict for model in (QueueModel, FifoQueue, Queue)]
    assert len(set(verdicts)) == 1


@of_every_kind(100)
def test_the_order_of_a_yes_is_a_proof(name: str, script: Script) -> None:
    spec, history, answer = checked(name, script)
    if not answer:
        return
    assert len(set(answer.order)) == len(answer.order)
    assert {o for o in history if not o.unknown} <= set(answer.order) <= set(history)
    assert allowed_by_intervals(answer.order)
    assert allowed_by_object(spec.factory, answer.order)


@of_every_kind(100)
def test_the_operation_of_a_no_ends_the_shortest_prefix_without_an_order(name: str, script: Script) -> None:
    spec, history, answer = checked(name, script)
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


@of_every_kind(100)
def test_a_counterexample_is_minimal_and_fails_for_the_same_reason(name: str, script: Script) -> None:
    spec, history, answer = checked(name, script)
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
def test_a_partition_gives_the_verdict_of_the_whole(script: Script) -> None:
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
def test_giving_up_and_starting_again_changes_no_verdict(script: Script, seed: int) -> None:
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


# --------------------------------------------------------------------------------------------- what makes no sense


def not_to_be_called(*_: Any) -> Any:
    raise AssertionError("the search has begun")


class Untouched(Model[int]):
    """Fails the test if it is asked anything."""

    init = step = apply = not_to_be_called


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"history": [1, 2]}, TypeError, "history is a History, or operations of one, and 1 is no Operation.*from_events"),
    ({"history": [("invoke", "A", "get")]}, TypeError, "history is a History.*is no Operation.*from_events"),
    ({"history": 5}, TypeError, "history is a History, or operations of one, not 5"),
    ({"model": 3}, TypeError, "a model is a Model, or a class .*, not 3"),
    ({"partition": 3}, TypeError, "partition is a function from an Operation .*, not 3"),
    ({"partition": "key"}, TypeError, "partition is a function from an Operation .*, not 'key'"),
    ({"partition": lambda o: [o.name]}, TypeError, r"partition gives .* a hashable key, and .* put\(1\) .*\['put'"),
    ({"max_nodes": "x"}, TypeError, "max_nodes is a whole number from 1 on, or None for no limit, not 'x'"),
    ({"max_nodes": 1.5}, TypeError, "max_nodes is a whole number from 1 on, or None for no limit, not 1.5"),
    ({"max_nodes": True}, TypeError, "max_nodes is a whole number from 1 on, or None for no limit, not True"),
    ({"max_nodes": -1}, ValueError, "max_nodes is a whole number from 1 on, or None for no limit, not -1"),
    ({"max_nodes": 0}, ValueError, "max_nodes is a whole number from 1 on, or None for no limit, not 0"),
    ({"timeout": "x"}, TypeError, "timeout is a number of seconds from 0 on, or None for no limit, not 'x'"),
    ({"timeout": True}, TypeError, "timeout is a number of seconds from 0 on, or None for no limit, not True"),
    ({"timeout": -0.5}, ValueError, "timeout is a number of seconds from 0 on, or None for no limit, not -0.5"),
    ({"timeout": float("nan")}, ValueError, "timeout is a number of seconds from 0 on, or None .*, not nan"),
]


@pytest.mark.parametrize(
    ("check", "wrong", "error", "message"),
    [
        (check, *case)
        for check in (linearizable, assert_linearizable, minimal_counterexample)
        for case in WRONG
        if check is not minimal_counterexample or "timeout" not in case[0]  # which it has not
    ],
)
def test_arguments_that_make_no_sense_are_named_at_once(
    check: Any, wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"history": events("A put 1; B get"), "model": Untouched} | wrong
    with pytest.raises(error, match=message):
        check(**arguments)


def test_the_limit_of_a_counterexample_is_checked() -> None:
    answer = linearizable(events("A get; A = 3"), FifoQueue)
    assert answer.verdict == "no"
    with pytest.raises(ValueError, match="max_nodes is a whole number from 1 on, .* not 0"):
        answer.counterexample(max_nodes=0)


def test_a_state_that_is_not_hashable_is_named() -> None:
    class Listed(Model[Any]):
        def init(self) -> Any:
            return []

    with pytest.raises(TypeError, match=r"the states of a model are hashable: Listed.init\(\) made \[\]"):
        linearizable(events("A put 1; A = None"), Listed)


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
