"""Histories: how operations are recorded, written down, read back and drawn."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Hashable
from typing import Any

import pytest
from helpers import in_fiber
from histories import Counter, Queue, events

import swapco
from swapco import testing
from swapco.testing.history import History, Operation
from swapco.testing.linearizability import (
    Linearizability,
    NotLinearizable,
    Verdict,
    assert_linearizable,
    linearizable,
)
from swapco.testing.models import FifoQueue

pytestmark = pytest.mark.usefixtures("fibers")


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
        ([1], "a tuple of its kind, the process, and what belongs to it, not 1"),
        (["invoke"], "a tuple of its kind, the process, and what belongs to it, not 'invoke'"),
        ([("invoke",)], r"a tuple of its kind, the process, and what belongs to it, not \('invoke',\)"),
        ([(1, "A", "get")], r"a tuple of its kind, the process, and what belongs to it, not \(1, 'A', 'get'\)"),
        ([("invoke", ["A"], "get")], r"a process is hashable, and \['A'\] is not"),
        ([("invoke", "A")], "of 'invoke' stands the name of the operation"),
        ([("invoke", "A", 3)], "of 'invoke' stands the name of the operation"),
        ([("invoke", "A", "get"), ("return", "A", 1, 2)], "of 'return' stands the result"),
        ([("invoke", "A", "get"), ("raise", "A")], "of 'raise' stands the exception"),
        ([("invoke", "A", "get"), ("raise", "A", "IndexError")], "of 'raise' stands the exception"),
        ([("invoke", "A", "get"), ("abort", "A", 3)], "of 'abort' stands perhaps an exception"),
    ],
)
def test_events_that_do_not_fit_are_an_error(written: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        History.from_events(written)


def test_operations_from_elsewhere_are_checked() -> None:
    with pytest.raises(ValueError, match="cannot have returned"):
        Operation("get", process=1, invoked=3, returned=3)
    with pytest.raises(ValueError, match="same number"):
        History([Operation("get", process=1, invoked=3, returned=4), Operation("get", process=2, invoked=4)])
    history = History([Operation("get", process=1, invoked=3, returned=9)])
    assert history.invoke(1, "get").invoked == 10


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": 3}, TypeError, "name is the text that names the operation, not 3"),
        ({"process": []}, TypeError, r"process is who calls get\(\), a hashable value, not \[\]"),
        ({"invoked": "1"}, TypeError, "invoked is the number of an event of get.*a whole number, not '1'"),
        ({"invoked": None}, TypeError, "invoked is the number of an event of get.*a whole number, not None"),
        ({"returned": 2.5}, TypeError, "returned is the number of an event of get.*a whole number, not 2.5"),
        ({"invoked": -1}, ValueError, "invoked is the number of an event of get.*from 0 on, not -1"),
    ],
)
def test_what_is_no_operation_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Operation(**{"name": "get", "process": "A", "invoked": 0} | arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: History([1, 2]), "operations is a History, or operations of one, and 1 is no Operation"),
        (lambda: History(5), "operations is a History, or operations of one, not 5"),
        (lambda: History(unknown="x"), "unknown is a tuple of types of exceptions, or None, not 'x'"),
        (lambda: History(unknown=(ValueError, 3)), r"unknown is a tuple of types of exceptions, or None, not \("),
        (lambda: History(copy=3), "copy is a function of one value, or None, not 3"),
        (lambda: History().wrap([], only="append"), "only is a collection of names.* not 'append'"),
        (lambda: History().wrap([], only=3), "only is a collection of names.* not 3"),
    ],
)
def test_arguments_of_a_history_are_checked(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_what_makes_the_operations_raises_its_own_errors() -> None:
    def broken() -> Any:
        yield Operation("get", process="A", invoked=0)
        raise TypeError("of the generator")

    with pytest.raises(TypeError, match="of the generator"):
        History(broken())


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
