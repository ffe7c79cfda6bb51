"""check inside examples of hypothesis, and schedules as values: determinism, shrinking, the database, what is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, find, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase
from pytest_runs import failure_files, run_pytest
from small_programs import lost_update

import swapco
from swapco import testing
from swapco.testing import candidates

Operations = list[list[str]]

QUIET = settings(database=None, deadline=None, print_blob=False, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWAPCO_FAILURES", str(tmp_path / "failures"))
    candidates.forget()


def operations() -> st.SearchStrategy[Operations]:
    return st.lists(st.lists(st.sampled_from(["push", "pop", "peek"]), max_size=4), min_size=3, max_size=3)


def stack_body(programs: Operations) -> Callable[[], None]:
    """A stack whose push loses what was pushed meanwhile."""

    def body() -> None:
        head: list[Any] = [None]
        pushed, popped = [0], [0]

        def work(program: list[str]) -> None:
            for operation in program:
                if operation == "push":
                    node = (pushed[0], head[0])
                    pushed[0] += 1
                    testing.schedule_point()
                    head[0] = node
                elif operation == "pop" and head[0] is not None:
                    head[0] = head[0][1]
                    popped[0] += 1
                else:
                    testing.schedule_point()

        fibers = [swapco.spawn(work, program) for program in programs]
        swapco.wait(fibers)
        left = 0
        while head[0] is not None:
            head[0] = head[0][1]
            left += 1
        assert left + popped[0] == pushed[0]

    return body


def shown_by(test: Any) -> BaseException:
    """What a failing test raises."""
    with pytest.raises(BaseException) as caught:
        test()
    return caught.value


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


# ---------------------------------------------------------------------------------------------- check in examples


@pytest.mark.parametrize("number", range(10))
def test_scenario_and_schedule_are_minimal(number: int) -> None:
    last: list[Operations] = []

    @seed(number)
    @QUIET
    @given(operations())
    def test(programs: Operations) -> None:
        last[:] = [programs]
        testing.check(stack_body(programs), name="minimal")

    error = shown_by(test)
    assert isinstance(error, AssertionError), repr(error)
    assert sorted(last[0]) == [[], ["push"], ["push"]]
    assert "1 preemption" in notes(error)
    assert "No simpler schedule fails: proved" in notes(error)


def test_only_the_example_that_is_shown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told, concluded = [], testing.explore.__globals__["conclude"]

    def conclude(*args: Any, **kwargs: Any) -> Any:
        told.append(args)
        return concluded(*args, **kwargs)

    monkeypatch.setitem(testing.explore.__globals__, "conclude", conclude)
    examples = []

    @seed(1)
    @QUIET
    @given(operations())
    def test(programs: Operations) -> None:
        examples.append(programs)
        testing.check(stack_body(programs), name="told")

    assert isinstance(shown_by(test), AssertionError)
    assert len(told) == 1
    assert len(examples) > 5


def test_the_same_examples_are_explored_in_the_same_way() -> None:
    def everything() -> list[Any]:
        candidates.forget()
        found: list[Any] = []

        @seed(3)
        @QUIET
        @given(operations())
        def test(programs: Operations) -> None:
            try:
                result = testing.check(stack_body(programs), name="same", save=False)
            except AssertionError as error:
                found.append((programs, notes(error)))
                raise
            found.append((programs, result.schedules, result.seed))

        shown_by(test)
        return found

    assert everything() == everything()


def test_examples_that_differ_have_different_schedules() -> None:
    seeds = set()

    @settings(QUIET, max_examples=20)
    @given(st.integers(1, 5))
    def test(points: int) -> None:
        def body() -> None:
            fibers = [swapco.spawn(lambda: [testing.schedule_point() for _ in range(points)]) for _ in range(2)]
            swapco.wait(fibers)

        seeds.add((points, testing.check(body).seed))

    test()
    assert len(seeds) == len({points for points, _ in seeds}) > 1
    assert len({found for _, found in seeds}) == len(seeds)


def test_a_rare_failure_is_not_called_flaky() -> None:
    """One schedule in a hundred or so fails: what was found once is found in every example that has it."""

    def body_of(points: int) -> Callable[[], None]:
        def body() -> None:
            log: list[int] = []

            def work(i: int) -> None:
                for _ in range(points):
                    testing.schedule_point()
                    log.append(i)

            swapco.wait([swapco.spawn(work, i) for i in range(2)])
            if points >= 3:
                assert log[:4] != [1, 0, 1, 0]

        return body

    failed = 0
    for number in range(15):
        candidates.forget()
        shown: list[int] = []

        @seed(number)
        @QUIET
        @given(st.integers(0, 8))
        def test(points: int) -> None:
            shown[:] = [points]  # noqa: B023
            testing.check(body_of(points), 30, name="rare")

        try:
            test()
        except AssertionError as error:
            failed += 1
            assert "proved" in notes(error) or "shrunk" in notes(error)
    assert failed >= 5


def test_two_failures_are_shown_each_with_its_schedule() -> None:
    @QUIET
    @given(st.integers(0, 3))
    def test(n: int) -> None:
        def body() -> None:
            order: list[int] = []
            swapco.wait([swapco.spawn(order.append, i) for i in range(2)])
            if n == 1:
                assert order == [0, 1]
            if n == 2 and order == [1, 0]:
                raise KeyError(n)

        testing.check(body, name="two")

    error = shown_by(test)
    assert isinstance(error, ExceptionGroup), repr(error)
    assert {type(inner) for inner in error.exceptions} == {AssertionError, KeyError}
    assert all("1 deviation" in notes(inner) for inner in error.exceptions)


def test_assume_inside_the_body_discards_the_example() -> None:
    passed = []

    @QUIET
    @given(st.integers(0, 10))
    def test(n: int) -> None:
        def body() -> None:
            swapco.wait([swapco.spawn(testing.schedule_point) for _ in range(2)])
            assume(n % 2 == 0)

        testing.check(body, 3)
        passed.append(n)

    test()
    assert passed
    assert all(n % 2 == 0 for n in passed)


def test_an_explicit_example_is_shown_in_full() -> None:
    @QUIET
    @example([["push"], ["push"], []])
    @given(operations())
    def test(programs: Operations) -> None:
        testing.check(stack_body(programs), name="explicit")

    error = shown_by(test)
    assert "proved" in notes(error)
    assert "explicit example" in notes(error)


def test_a_deadline_does_not_count_the_report() -> None:
    @settings(QUIET, deadline=5000)
    @given(operations())
    def test(programs: Operations) -> None:
        testing.check(stack_body(programs), name="deadline")

    assert isinstance(shown_by(test), AssertionError)


def test_explore_below_given() -> None:
    @QUIET
    @given(operations())
    @testing.explore(20)
    def test(programs: Operations) -> None:
        stack_body(programs)()

    error = shown_by(test)
    assert isinstance(error, AssertionError)
    assert "proved" in notes(error)


def test_exhaustive_strategies_in_examples() -> None:
    @settings(QUIET, max_examples=30)
    @given(operations())
    def test(programs: Operations) -> None:
        testing.check(stack_body(programs), 50, strategy="dfs", name="dfs")

    assert isinstance(shown_by(test), AssertionError)


def test_nondeterminism_is_named_in_examples() -> None:
    runs = []

    @QUIET
    @given(st.booleans())
    def test(unused: bool) -> None:
        def body() -> None:
            runs.append(1)
            swapco.wait([swapco.spawn(testing.schedule_point) for _ in range(2 + len(runs) % 2)])

        testing.check(body)

    error: Any = shown_by(test)
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, testing.UncontrolledNondeterminism)


def test_the_database_replays_the_failure_without_a_file(tmp_path: Path) -> None:
    """Memory and files are only faster: the saved example fails again in a process that has neither."""
    database = InMemoryExampleDatabase()
    examples: list[Operations] = []

    def run() -> BaseException:
        candidates.forget()
        examples.clear()

        @settings(QUIET, database=database)
        @given(operations())
        def test(programs: Operations) -> None:
            examples.append(programs)
            testing.check(stack_body(programs), name="database", save=False)

        return shown_by(test)

    assert isinstance(run(), AssertionError)
    minimal = examples[-1]
    assert isinstance(run(), AssertionError)
    assert examples[0] == minimal
    assert not list(tmp_path.glob("failures/*"))


def test_a_recorded_schedule_is_read_once_and_written_again(tmp_path: Path) -> None:
    first: list[int] = []

    def run(body_of: Any) -> None:
        candidates.forget()

        @QUIET
        @example([["push"], [], ["push"]])
        @given(operations())
        def test(programs: Operations) -> None:
            testing.check(body_of(programs), name="recorded")

        test()

    with pytest.raises(AssertionError) as caught:
        run(stack_body)
    [file] = (tmp_path / "failures").glob("*")
    assert file.stat().st_size <= 1024
    assert json.loads(file.read_text())["named"]
    first.append(int(notes(caught.value).split("Found after ")[1].split()[0]))
    with pytest.raises(AssertionError) as caught:
        run(stack_body)
    assert "Found after 2 schedules" in notes(caught.value)  # production's, and the recorded one
    assert file.exists()
    run(lambda programs: lambda: None)
    assert not file.exists()


SUITE = """
from hypothesis import Phase, given, settings, strategies as st

@settings(deadline=None, max_examples=30, phases=[phase for phase in Phase if phase is not Phase.explain])
@given(st.lists(st.integers(0, 3), min_size=2, max_size=4))
def test_given(points):
    def body():
        box = [0]
        def add(n):
            for _ in range(n):
                testing.schedule_point()
            value = box[0]
            testing.schedule_point()
            box[0] = value + 1
        swapco.wait([swapco.spawn(add, n) for n in points])
        assert box == [len(points)]
    testing.check(body)

@given(st.integers(2, 3))
def test_passing(fibers):
    testing.check(lambda: correct(fibers), 3)
"""


def test_a_property_under_pytest(tmp_path: Path) -> None:
    first = run_pytest(tmp_path, SUITE, "-n", "2")
    assert first.outcomes == {"failed": 1, "passed": 1}, first.text
    assert "points=[0, 0]" in first.text
    assert "laky" not in first.text
    assert "proved" in first.text
    files = failure_files(tmp_path)
    assert list(files) == ["test_it.py.test_given.body.json"]
    second = run_pytest(tmp_path, SUITE, "-n", "0")
    assert second.outcomes == first.outcomes
    assert "Found after 2 schedules" in second.text
    assert failure_files(tmp_path) == files


# --------------------------------------------------------------------------------------------- explicit schedules


@pytest.mark.parametrize("number", range(5))
def test_a_schedule_shrinks_to_one_deviation(number: int) -> None:
    last: list[testing.Schedule] = []

    @seed(number)
    @QUIET
    @given(testing.schedules(fibers=3))
    def test(schedule: testing.Schedule) -> None:
        last[:] = [schedule]
        testing.run(lambda: lost_update(3, 4), schedule=schedule)

    error = shown_by(test)
    assert isinstance(error, AssertionError)
    assert sum(map(bool, last[0].path)) == 1
    assert "Schedule(path=(" in notes(error)


def test_the_simplest_schedule_is_production() -> None:
    assert find(testing.schedules(), lambda schedule: True, settings=QUIET).path == ()
    deviating = find(testing.schedules(), lambda schedule: any(schedule.path), settings=QUIET)
    assert deviating.path == (1,)


@QUIET
@given(testing.schedules(2, max_decisions=5, max_deviations=3, preempt="primitives"))
def test_values_are_within_their_bounds(schedule: testing.Schedule) -> None:
    assert len(schedule.path) <= 5
    assert sum(map(bool, schedule.path)) <= 3
    assert all(0 <= choice <= 2 for choice in schedule.path)
    assert schedule.path[-1:] != (0,)
    assert schedule.preempt == "primitives"


@QUIET
@given(testing.schedules(9))
def test_every_value_is_a_schedule_of_every_program(schedule: testing.Schedule) -> None:
    done = []
    testing.run(lambda: swapco.wait([swapco.spawn(done.append, i) for i in range(2)]), schedule=schedule)
    assert sorted(done) == [0, 1]


@pytest.mark.parametrize(
    "wrong", [{"fibers": 0}, {"max_decisions": 0}, {"max_deviations": -1}, {"preempt": "x"}, {"fibers": "3"}]
)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        testing.schedules(**wrong)
