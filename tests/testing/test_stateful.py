"""ConcurrentStateMachine: scenarios of several fibers, checked against a model, shrunk, and shown as programs."""

from __future__ import annotations

import asyncio
import functools
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidDefinition
from hypothesis.stateful import Bundle, initialize, invariant, precondition, rule, run_state_machine_as_test
from pytest_runs import failure_files, run_pytest

import swapco
from swapco import testing
from swapco.testing import ConcurrentStateMachine, candidates
from swapco.testing.stateful import Call, Scenario, concurrent_test

QUIET = settings(
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],
)


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWAPCO_FAILURES", str(tmp_path / "failures"))
    candidates.forget()


class SequentialQueue:
    """The model."""

    def __init__(self) -> None:
        self.items: list[int] = []

    def put(self, item: int) -> None:
        self.items.append(item)

    def get(self) -> int:
        return self.items.pop(0)


class GoodQueue(ConcurrentStateMachine):
    """Nothing is wrong with it."""

    model = SequentialQueue

    def __init__(self) -> None:
        super().__init__()
        self.items: list[int] = []

    @rule(item=st.integers(0, 3))
    def put(self, item: int) -> None:
        testing.schedule_point()
        self.items.append(item)
        testing.schedule_point()

    @rule()
    def get(self) -> int:
        testing.schedule_point()
        item = self.items.pop(0)
        testing.schedule_point()
        return item


class BadQueue(GoodQueue):
    """Two fibers may get the same item."""

    @rule()
    def get(self) -> int:
        item = self.items[0]
        testing.schedule_point()
        self.items.remove(item)
        return item


class CounterModel:
    """The model."""

    def __init__(self) -> None:
        self.value = 0

    def add(self) -> None:
        self.value += 1

    def read(self) -> int:
        return self.value


class BadCounter(ConcurrentStateMachine):
    """Forgets what was added meanwhile."""

    model = CounterModel

    def __init__(self) -> None:
        super().__init__()
        self.value = 0

    @rule()
    def add(self) -> None:
        value = self.value
        testing.schedule_point()
        self.value = value + 1

    @rule()
    def read(self) -> int:
        return self.value


def failure_of(machine: Any, number: int = 0, options: settings = QUIET) -> tuple[Any, dict[str, Any]]:
    """What the test of a machine raises, and what was shown."""
    shown: dict[str, Any] = {}
    candidates.forget()
    try:
        seed(number)(concurrent_test(machine, options, shown.update))()
    except BaseException as error:
        return error, shown
    return None, shown


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Without one of its operations."""
    parts = [scenario.before, *scenario.fibers, scenario.after]
    for number, part in enumerate(parts):
        for at in range(len(part)):
            fewer = [*parts]
            fewer[number] = part[:at] + part[at + 1 :]
            yield Scenario(fewer[0], tuple(fewer[1:-1]), fewer[-1])


# ------------------------------------------------------------------------------------------- found and minimised


@pytest.mark.parametrize("machine", [BadQueue, BadCounter])
@pytest.mark.parametrize("first", [0, 5])
def test_scenario_and_schedule_are_minimal(machine: Any, first: int) -> None:
    """No operation can be dropped, whatever the schedule; no simpler schedule makes it fail."""
    for number in range(first, first + 3):
        error, shown = failure_of(machine, number)
        assert isinstance(error, testing.NotLinearizable), repr(error)
        assert shown["result"].minimal
        for fewer in smaller(shown["scenario"]):
            result = testing.verify(functools.partial(machine.run_scenario, fewer), preemption_bound=None, save=False)
            assert (result.exhausted, result.failed) == (True, False), f"{fewer} fails, too: {shown['scenario']}"


def test_a_correct_object_passes() -> None:
    error, shown = failure_of(GoodQueue)
    assert error is None, notes(error)
    assert not shown


def test_what_is_shown_is_a_program(tmp_path: Path) -> None:
    error, shown = failure_of(BadCounter, options=settings(QUIET, phases=list(Phase)))
    text = notes(error)
    program = ["fiber 1:  add()", "fiber 2:  add()", "after:    read()"]
    assert str(shown["scenario"]) == "\n".join(program)
    lines = [line.strip().rstrip(",") for line in text.splitlines()]  # hypothesis shows it as an argument
    first = lines.index(program[0])
    assert lines[first : first + 3] == program
    assert "swapco.testing:" in text
    assert "PREEMPTION" in text
    assert "proved" in text
    assert "cannot be placed" in str(error)
    [file] = (tmp_path / "failures").glob("*")
    assert file.stat().st_size <= 1024
    again = testing.replay(lambda: BadCounter.run_scenario(shown["scenario"]), file)
    assert again.failed
    assert isinstance(again.exception, testing.NotLinearizable)


def test_the_same_seed_shows_the_same() -> None:
    first, shown = failure_of(BadQueue, 4)
    second, again = failure_of(BadQueue, 4)
    assert shown["scenario"] == again["scenario"]
    assert shown["result"].schedule == again["result"].schedule
    assert notes(first) == notes(second)


def test_a_scenario_is_run_by_hand() -> None:
    scenario = Scenario((Call("put", (1,)),), ((Call("get"),), (Call("get"),)), (Call("get"),))
    assert str(scenario) == "before:   put(1)\nfiber 1:  get()\nfiber 2:  get()\nafter:    get()"
    testing.run(lambda: BadQueue.run_scenario(scenario))
    assert testing.verify(lambda: BadQueue.run_scenario(scenario), save=False).failed
    result = testing.verify(lambda: GoodQueue.run_scenario(scenario), save=False)
    assert result.exhausted
    assert not result.failed
    assert str(Scenario((), ())) == "nothing"


# -------------------------------------------------------------------------------------------------- what rules may


def test_async_rules() -> None:
    class Machine(ConcurrentStateMachine):
        model = CounterModel

        def __init__(self) -> None:
            super().__init__()
            self.value = 0
            self.lock = asyncio.Lock()

        @rule()
        async def add(self) -> None:
            async with self.lock:
                value = self.value
                await asyncio.sleep(0)
                self.value = value + 1

        @rule()
        async def read(self) -> int:
            async with self.lock:
                return self.value

    class Unlocked(Machine):
        @rule()
        async def add(self) -> None:
            value = self.value
            await asyncio.sleep(0)
            self.value = value + 1

    options = settings(QUIET, max_examples=30)
    error, _ = failure_of(Machine, options=options)
    assert error is None, notes(error)
    error, shown = failure_of(Unlocked, options=options)
    assert isinstance(error, testing.NotLinearizable)
    assert sum(map(len, shown["scenario"].fibers)) >= 2


def test_primitives_of_swapco() -> None:
    class Machine(ConcurrentStateMachine):
        model = CounterModel
        preempt = "primitives"

        def __init__(self) -> None:
            super().__init__()
            self.value = 0
            self.lock = swapco.Lock()

        @rule()
        def add(self) -> None:
            with self.lock:
                value = self.value
            with self.lock:
                self.value = value + 1

        @rule()
        def read(self) -> int:
            return self.value

    error, _ = failure_of(Machine)
    assert isinstance(error, testing.NotLinearizable)
    Machine.preempt = "points"
    error, _ = failure_of(Machine)
    assert error is None


def test_without_a_model_every_exception_fails_and_invariants_are_checked() -> None:
    class Raising(BadQueue):
        model = None
        operations_after = 0

    class Invariant(ConcurrentStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.added = 0, 0

        @rule()
        def add(self) -> None:
            self.added += 1
            value = self.value
            testing.schedule_point()
            self.value = value + 1

        @invariant()
        def all_are_there(self) -> None:
            assert self.value == self.added, "lost"

    error, shown = failure_of(Raising)
    assert isinstance(error, IndexError | ValueError)
    assert "raises" in notes(error)
    error, shown = failure_of(Invariant)
    assert isinstance(error, AssertionError)
    assert "lost" in str(error)
    assert shown["scenario"].fibers.count((Call("add"),)) == 2
    assert (shown["scenario"].before, shown["scenario"].after) == ((), ())


def test_an_assertion_in_a_rule_fails_with_a_model_too() -> None:
    class Machine(BadCounter):
        @rule()
        def read(self) -> int:
            assert self.value < 2, "too many"
            return self.value

    error, shown = failure_of(Machine)
    errors = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
    assert any("too many" in str(inner) for inner in errors)


def test_exceptions_are_outcomes() -> None:
    class Wrong(GoodQueue):
        @rule()
        def get(self) -> int:
            if not self.items:
                raise KeyError("the model raises IndexError")
            return super().get()

    error, shown = failure_of(Wrong)
    assert isinstance(error, testing.NotLinearizable)
    assert "KeyError" in str(error)
    calls = [call for _, part in shown["scenario"].parts for call in part]
    assert calls == [Call("get")]


def test_initialize_rules_come_first() -> None:
    class Bounded(SequentialQueue):
        def begin(self, capacity: int, *, twice: bool) -> None:
            self.capacity = capacity * (1 + twice)

        def put(self, item: int) -> None:
            if len(self.items) >= self.capacity:
                raise OverflowError
            super().put(item)

    class Machine(ConcurrentStateMachine):
        model = Bounded

        @initialize(twice=st.booleans(), capacity=st.integers(1, 2))
        def begin(self, capacity: int, *, twice: bool) -> None:
            self.queue = swapco.Queue[int](capacity * (1 + twice))

        @rule(item=st.integers(0, 1))
        def put(self, item: int) -> None:
            try:
                self.queue.put_nowait(item)
            except swapco.QueueFull:
                raise OverflowError from None

        @rule()
        def get(self) -> int:
            try:
                return self.queue.get_nowait()
            except swapco.QueueEmpty:
                raise IndexError from None

    error, _ = failure_of(Machine)
    assert error is None, (error, notes(error))
    firsts = []

    @settings(QUIET, max_examples=20)
    @given(Machine.scenarios())
    def look(scenario: Scenario) -> None:
        firsts.append(scenario.before[0])

    look()
    assert {first.rule for first in firsts} == {"begin"}
    assert str(firsts[0]) == "begin(1, twice=False)"


def test_arguments_are_as_they_were_drawn_in_every_run() -> None:
    seen = []

    class Machine(ConcurrentStateMachine):
        @rule(items=st.lists(st.integers(), min_size=1, max_size=1))
        def consume(self, items: list[int]) -> None:
            testing.schedule_point()
            seen.append(len(items))
            items.clear()

    error, _ = failure_of(Machine, options=settings(QUIET, max_examples=10))
    assert error is None
    assert set(seen) == {1}


def test_every_run_has_a_machine_of_its_own_and_ends_with_teardown() -> None:
    made, ended = [], []

    class Machine(BadCounter):
        def __init__(self) -> None:
            super().__init__()
            made.append(id(self))

        def teardown(self) -> None:
            ended.append(id(self))

    error, _ = failure_of(Machine)
    assert error is not None
    assert made == ended
    assert len(made) > 100


def test_a_deadlock_is_found() -> None:
    class Machine(ConcurrentStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = swapco.Lock(), swapco.Lock()

        @rule()
        def forwards(self) -> None:
            with self.one:
                testing.schedule_point()
                with self.other:
                    pass

        @rule()
        def backwards(self) -> None:
            with self.other:
                testing.schedule_point()
                with self.one:
                    pass

    error, shown = failure_of(Machine)
    assert isinstance(error, testing.Deadlock), repr(error)
    assert sorted(map(len, shown["scenario"].fibers)) == [0, 1, 1]
    assert shown["result"].minimal


def test_sizes_are_what_the_class_says() -> None:
    class Machine(BadCounter):
        fibers = 2
        operations_per_fiber = 2
        operations_before = 0
        operations_after = 1

    sizes = []

    @settings(QUIET, max_examples=100)
    @given(Machine.scenarios())
    def look(scenario: Scenario) -> None:
        assert len(scenario.fibers) == 2
        assert not scenario.before
        assert len(scenario.after) <= 1
        sizes.append(max(map(len, scenario.fibers)))

    look()
    assert max(sizes) == 2


# ---------------------------------------------------------------------------------------------------- misuse


def test_misuse_is_named() -> None:
    things = Bundle("things")

    class NoRules(ConcurrentStateMachine):
        """Nothing."""

    class Conditional(BadCounter):
        @precondition(lambda self: True)
        @rule()
        def read(self) -> int:
            return 0

    class Taking(BadCounter):
        @rule(thing=things)
        def take(self, thing: int) -> None:
            """Something."""

    class Giving(BadCounter):
        @rule(target=things)
        def give(self) -> int:
            return 1

    class NoFibers(BadCounter):
        fibers = 0

    class Negative(BadCounter):
        operations_after = -1

    class NoSchedules(BadCounter):
        schedules = 0

    class NoModel(BadCounter):
        model: Any = 3

    for machine, kind, text in [
        (NoRules, InvalidDefinition, "NoRules has no rules"),
        (Conditional, InvalidDefinition, "Conditional.read has a precondition"),
        (Taking, InvalidDefinition, "Taking.take has a bundle"),
        (Giving, InvalidDefinition, "Giving.give has a bundle"),
        (NoFibers, ValueError, "NoFibers.fibers"),
        (Negative, ValueError, "Negative.operations_after"),
        (NoSchedules, ValueError, "schedules"),
        (NoModel, TypeError, "a model is"),
    ]:
        with pytest.raises(kind, match=text):
            machine.TestCase("runTest").debug()


def test_the_model_lacks_a_method() -> None:
    class Machine(BadCounter):
        @rule()
        def unknown(self) -> None:
            """The model does not know it."""

    error, _ = failure_of(Machine)
    assert isinstance(error, AttributeError)
    assert "no such method" in str(error)


def test_test_cases_belong_to_their_machines() -> None:
    assert BadQueue.TestCase is BadQueue.TestCase
    assert BadQueue.TestCase is not GoodQueue.TestCase
    assert issubclass(BadQueue.TestCase, unittest.TestCase)

    @settings(max_examples=7)
    class Machine(GoodQueue):
        """With settings of its own."""

    assert Machine.TestCase.settings.max_examples == 7
    assert GoodQueue.TestCase.settings.max_examples != 7
    Machine.TestCase.settings = settings(max_examples=8)
    assert Machine.TestCase.settings.max_examples == 8


def test_it_is_an_ordinary_state_machine_too() -> None:
    class Machine(ConcurrentStateMachine):
        model = CounterModel

        def __init__(self) -> None:
            super().__init__()
            self.value = 0

        @rule()
        def add(self) -> None:
            self.value += 1

        @invariant()
        def it_is_prepared(self) -> None:
            assert self.value >= 0

    run_state_machine_as_test(Machine, settings=settings(QUIET, max_examples=10))


# ------------------------------------------------------------------------------------------------ under pytest

SUITE = """
from hypothesis import settings, strategies as st
from hypothesis.stateful import rule
from swapco.testing import ConcurrentStateMachine

class Model:
    def __init__(self):
        self.value = 0
    def add(self):
        self.value += 1
        return self.value

class Bad(ConcurrentStateMachine):
    model = Model
    def __init__(self):
        super().__init__()
        self.value = 0
    @rule()
    def add(self):
        value = self.value
        testing.schedule_point()
        self.value = value + 1
        return self.value

class Good(Bad):
    @rule()
    def add(self):
        testing.schedule_point()
        self.value += 1
        return self.value

TestBad = Bad.TestCase
TestGood = Good.TestCase
TestGood.settings = settings(max_examples=20, deadline=None)
"""


def test_machines_under_pytest(tmp_path: Path) -> None:
    first = run_pytest(tmp_path, SUITE, "-n", "2")
    assert first.outcomes == {"failed": 1, "passed": 1}, first.text
    assert "fiber 1:  add()" in first.text
    assert "fiber 2:  add()" in first.text
    assert "laky" not in first.text
    assert "proved" in first.text
    assert len(failure_files(tmp_path)) == 1
    second = run_pytest(tmp_path, SUITE, "-n", "0")
    assert second.outcomes == first.outcomes
    assert "Found after 2 schedules" in second.text, "from the database, and from the file"
    repaired = run_pytest(tmp_path, SUITE.replace("class Bad(", "class Old(").replace("(Bad)", "(Old)")
                          .replace("TestBad = Bad", "TestBad = Good"), "-n", "0")  # fmt: skip
    assert repaired.outcomes == {"passed": 2}, repaired.text
