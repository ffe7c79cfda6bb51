"""``ConcurrentStateMachine``: rules of hypothesis that several fibers call at once, checked against a model.

Theory
------
A test of a concurrent object is made of three parts (after QuickCheck's parallel state machines: Claessen et al.,
"Finding race conditions in Erlang with QuickCheck and PULSE", ICFP 2009; Lincheck has the same three): operations
before, one after the other; a few operations of each of several fibers; operations after.  Such a *scenario* is data:
hypothesis draws it and shrinks it.  It is run under many schedules (``explore.check``), each with a new machine, and
the history of each run must be linearizable (``linearizability``): as if the operations had been called one after the
other on the model.  So nobody writes down what may happen when calls overlap.

What is reported is a scenario from which no operation can be dropped, as a program, with a schedule that no simpler one
replaces.

Invariants: a machine sees one run of one scenario; every run gets its arguments as they were drawn; a drawn scenario is
independent of what any run does, since it is drawn first.

That is why a rule has no precondition and takes nothing from a bundle.  Both depend on what earlier calls did, and that
depends on the schedule.  A rule that cannot do anything raises or returns, as the model's method does; what one
call leaves for another is taken out of the object.

Rejected designs
----------------
- hypothesis's own loop, which draws a rule, calls it, and draws the next: between two calls there is no concurrency,
  and a schedule inside the loop would draw other rules.
- To run all interleavings of whole operations on the model, and look for the results: 34,650 of them for 3 fibers with
  4 operations.  Linearizability knows which operations did not overlap, and prunes by the model's state.
- Sizes of scenarios as settings of hypothesis: they belong to the object under test, not to the machine that tests.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import unittest
from collections.abc import Callable, Hashable, Iterator
from typing import Any, ClassVar, NamedTuple

try:
    from hypothesis import HealthCheck, Phase, given
    from hypothesis import settings as Settings
    from hypothesis import strategies as st
    from hypothesis.errors import InvalidDefinition
    from hypothesis.stateful import RuleBasedStateMachine
except ImportError as missing:
    raise ImportError(
        'swapco.testing.ConcurrentStateMachine needs hypothesis: pip install "hypothesis>=6.100"'
    ) from missing

from .._loop.awaiting import await_
from ..tasks import spawn
from ..waiting import wait
from .candidates import in_example
from .explore import Plan
from .history import History, Operation, shown
from .linearizability import NotLinearizable, assert_linearizable, is_linearizable
from .models import Model, as_model

__all__ = ["Call", "ConcurrentStateMachine", "Scenario", "concurrent_test"]


class Call(NamedTuple):
    """One call of a rule."""

    rule: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        given = [shown(value) for value in self.args]
        given += [f"{name}={shown(value)}" for name, value in self.kwargs]
        return f"{self.rule}({', '.join(given)})"


class Scenario(NamedTuple):
    """What a machine is asked to do: a program for each fiber."""

    before: tuple[Call, ...]
    fibers: tuple[tuple[Call, ...], ...]
    after: tuple[Call, ...] = ()

    @property
    def parts(self) -> Iterator[tuple[str, tuple[Call, ...]]]:
        """Who calls what; nobody who calls nothing."""
        yield "before", self.before
        yield from ((f"fiber {number}", calls) for number, calls in enumerate(filter(None, self.fibers), 1))
        yield "after", self.after

    def __str__(self) -> str:
        lines = [f"{who + ':':9} {'; '.join(map(str, calls))}" for who, calls in self.parts if calls]
        return "\n".join(lines) or "nothing"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis shows as the failing example."""
        with printer.group(4):
            for line in str(self).splitlines():
                printer.break_()
                printer.text(line)


#: Not explained: that traces every line of several hundred runs, to find lines of this library.
_PHASES = tuple(phase for phase in Phase if phase is not Phase.explain)


class _TestCase:
    """``Machine.TestCase``: made when it is asked for, since the rules are not known before."""

    def __get__(self, machine: object, kind: type[ConcurrentStateMachine]) -> type[unittest.TestCase]:
        return _test_case(kind)


class ConcurrentStateMachine(RuleBasedStateMachine):
    """A state machine of hypothesis whose rules are called by several fibers at once.

        class QueueMachine(ConcurrentStateMachine):
            model = SequentialQueue         # the same methods, for one caller; or a Model

            def __init__(self):
                super().__init__()
                self.queue = MyQueue()      # what is tested: made anew for every run

            @rule(item=st.integers(0, 3))
            def put(self, item):
                return self.queue.put(item)

            @rule()
            def get(self):
                return self.queue.get_nowait()

        TestQueue = QueueMachine.TestCase

    Rules are functions or ``async def`` functions.  With a ``model``, what they return or raise must be linearizable:
    the same as if its methods of these names, with the same arguments, had been called one after the other.  A rule
    may raise what the model raises, and an ``AssertionError`` is a failure in any case; without a model, every
    exception is.  A rule returns values that nobody changes later, and does not wait for ever (give it a timeout, or
    several steps): a run in which nothing can go on is a ``Deadlock``.  ``@initialize`` rules are the first operations,
    once each.  ``@invariant`` functions are checked where no rule is running.  ``teardown()`` ends every run.  There
    are neither preconditions nor bundles.

    Class attributes: ``fibers`` and how many operations each has at most, ``operations_per_fiber``; how many are called
    one after the other, ``operations_before`` and ``operations_after``; ``schedules`` for each scenario, with
    ``seed``, ``strategy``, ``preempt``, ``max_steps`` and ``save`` as for ``check``.  ``TestCase.settings`` are those
    of hypothesis.

    Errors, when the test runs: InvalidDefinition for rules that a concurrent machine cannot have, ValueError for sizes
    that make no sense.
    """

    model: ClassVar[Model[Any] | Callable[[], Any] | None] = None
    fibers: ClassVar[int] = 3
    operations_per_fiber: ClassVar[int] = 4
    operations_before: ClassVar[int] = 3
    operations_after: ClassVar[int] = 3
    schedules: ClassVar[int] = 20
    strategy: ClassVar[str] = "portfolio"
    preempt: ClassVar[str] = "points"
    max_steps: ClassVar[int] = 20_000
    seed: ClassVar[int] = 0
    save: ClassVar[bool | str] = True

    TestCase = _TestCase()  # type: ignore[assignment]

    def __init__(self) -> None:
        """One machine for one run; make here what is tested."""
        # what hypothesis would prepare is for its own loop, and costs more than a run
        if not _running:
            super().__init__()

    @classmethod
    def scenarios(cls) -> st.SearchStrategy[Scenario]:
        """The strategy of scenarios."""
        return _scenarios(cls)

    @classmethod
    def run_scenario(cls, scenario: Scenario) -> None:
        """Run a scenario once, as the body of ``run``, ``search``, ``verify``: raises if it fails."""
        _run(cls, scenario, _specification_of(cls))


#: Values that nobody can change.
_PLAIN = frozenset({int, str, bytes, bool, float, type(None)})
#: Is a machine made by ``_run``, and not by hypothesis?
_running: list[bool] = []


def _rules_of(machine: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Rules, initialize rules and invariants: older versions of hypothesis have a method for each."""
    if hasattr(machine, "setup_state"):
        state = machine.setup_state()
        return state.rules, state.initializers, state.invariants
    return machine.rules(), machine.initialize_rules(), machine.invariants()


# ------------------------------------------------------------------------------------------------- drawing


def _scenarios(machine: type[ConcurrentStateMachine]) -> st.SearchStrategy[Scenario]:
    rules, initializers, _ = _rules_of(machine)
    if not rules:
        raise InvalidDefinition(f"{machine.__name__} has no rules: decorate methods with @rule")
    for size, least in [("fibers", 1), ("operations_per_fiber", 1), ("operations_before", 0), ("operations_after", 0)]:
        value = getattr(machine, size)
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{machine.__name__}.{size} is a number from {least} on, not {value!r}")
    for rule in (*rules, *initializers):
        _must_be_concurrent(machine, rule)
    call = st.one_of([_calls(rule) for rule in _in_source_order(rules)])
    first = st.tuples(*[_calls(rule) for rule in _in_source_order(initializers)])

    def calls(most: int) -> st.SearchStrategy[tuple[Call, ...]]:
        return st.lists(call, max_size=most).map(tuple)

    before = calls(machine.operations_before)
    fibers = st.tuples(*[calls(machine.operations_per_fiber)] * machine.fibers)
    after = calls(machine.operations_after)

    @st.composite
    def scenario(draw: st.DrawFn) -> Scenario:
        return Scenario((*draw(first), *draw(before)), draw(fibers), draw(after))

    return scenario()


def _in_source_order(rules: list[Any]) -> list[Any]:
    """The first rule is the simplest one."""
    return sorted(rules, key=lambda rule: inspect.unwrap(rule.function).__code__.co_firstlineno)


def _must_be_concurrent(machine: type[ConcurrentStateMachine], rule: Any) -> None:
    name = f"{machine.__name__}.{rule.function.__name__}"
    if rule.preconditions:
        raise InvalidDefinition(
            f"{name} has a precondition, but whether it holds depends on the schedule: let the rule return or raise "
            "where it can do nothing, as the model's method does"
        )
    if rule.targets or rule.bundles:
        raise InvalidDefinition(
            f"{name} has a bundle, but what is in it depends on the schedule: keep in the machine what one rule leaves "
            "for another"
        )


def _calls(rule: Any) -> st.SearchStrategy[Call]:
    """Calls of a rule, with arguments in the order of its signature."""
    parameters = list(inspect.signature(rule.function).parameters.values())[1:]
    by_name = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) and p.name in rule.arguments]
    by_position = [p.name for p in parameters if p.name in rule.arguments and p.name not in by_name]
    by_name += [name for name in rule.arguments if name not in by_name and name not in by_position]
    name = rule.function.__name__
    if not rule.arguments:
        return st.just(Call(name))

    def call(values: tuple[Any, ...]) -> Call:
        positional, named = values[: len(by_position)], values[len(by_position) :]
        return Call(name, positional, tuple(zip(by_name, named, strict=True)))

    # few layers: each costs as much as a run
    return st.tuples(*[rule.arguments[argument] for argument in (*by_position, *by_name)]).map(call)


# ------------------------------------------------------------------------------------------------- running


class _Specification:
    """The model of a machine; remembers what it said of which history: many schedules have the same one."""

    def __init__(self, model: Model[Any]) -> None:
        self.model = model
        #: why the model does not allow a history; "" if it does
        self.verdicts: dict[Hashable, str] = {}

    def must_allow(self, history: History) -> None:
        """Raise NotLinearizable unless the model does."""
        key = tuple([_known(operation) for operation in history])
        try:
            why = self.verdicts.get(key)
        except TypeError:  # something in it is not hashable
            why = self.judge(history)
        else:
            if why is None:
                why = self.judge(history)
                if len(self.verdicts) < _HISTORIES:
                    self.verdicts[key] = why
        if why:
            raise NotLinearizable(why)

    def judge(self, history: History) -> str:
        if is_linearizable(history, self.model):
            return ""
        try:
            assert_linearizable(history, self.model)
        except NotLinearizable as error:
            return str(error)
        raise AssertionError(f"the model's answers depend on something else:\n{history}")


#: How many histories are remembered.
_HISTORIES = 5_000


def _known(operation: Operation) -> tuple[Any, ...]:
    """All that a model can see of an operation."""
    o = operation
    outcome = o.result if o.outcome == "returned" else (type(o.exception), str(o.exception))
    return o.process, o.invoked, o.returned, o.name, o.args, tuple(o.kwargs.items()), o.outcome, outcome


class _Caller:
    """Calls the rules of one machine in one run, and records what comes of it."""

    def __init__(self, machine: ConcurrentStateMachine, specification: _Specification | None) -> None:
        self.machine, self.specification = machine, specification
        self.history = History()
        self.invariants = _rules_of(type(machine))[2]

    def calls(self, process: str, calls: tuple[Call, ...], *, alone: bool = False) -> None:
        """One after the other; ``alone``: nobody else is calling."""
        for call in calls:
            self.call(process, call)
            if alone:
                self.check_invariants()

    def call(self, process: str, call: Call) -> None:
        args, kwargs = call.args, dict(call.kwargs)
        if not _PLAIN.issuperset(map(type, (*args, *kwargs.values()))):
            # the next run gets what was drawn, too
            args, kwargs = copy.deepcopy((args, kwargs))
        method = getattr(self.machine, call.rule)
        if self.specification is None:
            _finished(method(*args, **kwargs))
            return
        try:
            with self.history.operation(call.rule, *call.args, process=process, **dict(call.kwargs)) as recording:
                recording.result = _finished(method(*args, **kwargs))
        except AssertionError:
            raise
        except Exception:
            # an outcome like any other: the model says whether it can be
            pass

    def check_invariants(self) -> None:
        for invariant in self.invariants:
            if all(precondition(self.machine) for precondition in invariant.preconditions):
                _finished(invariant.function(self.machine))


def _finished(result: Any) -> Any:
    """What an ``async def`` function returns in the end."""
    return await_(result) if inspect.iscoroutine(result) else result


def _run(kind: type[ConcurrentStateMachine], scenario: Scenario, specification: _Specification | None) -> None:
    """The body: one scenario, once."""
    _running.append(True)
    try:
        machine = kind()
    finally:
        _running.pop()
    caller = _Caller(machine, specification)
    try:
        caller.calls("before", scenario.before, alone=True)
        parts = [(who, calls) for who, calls in scenario.parts if who.startswith("fiber")]
        fibers = [spawn(caller.calls, who, calls, name=who) for who, calls in parts]
        if fibers:
            wait(fibers)
            for fiber in fibers:
                fiber.result()
            caller.check_invariants()
        caller.calls("after", scenario.after, alone=True)
        if specification is not None:
            specification.must_allow(caller.history)
    except Exception:
        with contextlib.suppress(Exception):
            machine.teardown()
        raise
    machine.teardown()


def _specification_of(kind: type[ConcurrentStateMachine]) -> _Specification | None:
    """A new one for each test."""
    model: Any = inspect.getattr_static(kind, "model")
    if isinstance(model, staticmethod):
        model = model.__func__
    return None if model is None else _Specification(as_model(model))


@functools.cache
def _test_case(kind: type[ConcurrentStateMachine]) -> type[unittest.TestCase]:
    class ConcurrentTestCase(unittest.TestCase):
        settings = Settings(deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES)

        def runTest(self) -> None:
            """Draw scenarios, and explore the schedules of each."""
            __tracebackhide__ = True
            concurrent_test(kind, self.settings)()

        runTest.is_hypothesis_test = True  # type: ignore[attr-defined]

    ConcurrentTestCase.__name__ = f"{kind.__name__}.TestCase"
    ConcurrentTestCase.__qualname__ = f"{kind.__qualname__}.TestCase"
    ConcurrentTestCase.__module__ = kind.__module__
    return ConcurrentTestCase


def concurrent_test(
    kind: type[ConcurrentStateMachine], settings: Settings, shown: Callable[[dict[str, Any]], Any] | None = None
) -> Callable[[], None]:
    """The test of a machine, as a function: hypothesis draws scenarios, and the schedules of each are explored.

    ``shown`` is told of each failure that is shown to a person: its ``scenario`` and its ``result``.
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    specification = _specification_of(kind)
    plan = Plan(
        kind.schedules,
        seed=kind.seed,
        strategy=kind.strategy,
        preempt=kind.preempt,
        max_steps=kind.max_steps,
        save=kind.save,
        what="machine",
    )

    def concurrently(scenario: Scenario) -> None:
        __tracebackhide__ = True
        result = plan.explored(functools.partial(_run, kind, scenario, specification), name)
        if shown is not None and result.failed and in_example() == "final":
            shown({"scenario": scenario, "result": result})
        result.check()

    # how long an example takes says how many schedules were run
    settings = Settings(settings, deadline=None)
    test: Any = given(scenario=kind.scenarios())(concurrently)
    # all machines share this function: the name is what tells their examples apart in the database
    test.hypothesis.inner_test._hypothesis_internal_add_digest = name.encode()
    decorated: Callable[[], None] = settings(test)
    return decorated
