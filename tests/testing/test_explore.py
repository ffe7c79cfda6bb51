"""explore and check: tests that are run under many schedules, their files, and what pytest makes of them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import pytest
from pytest_runs import failure_files, run_pytest
from small_programs import correct, lost_update

import swapco
from swapco import testing
from swapco.testing.schedule import load_schedule


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWAPCO_FAILURES", str(tmp_path / "failures"))
    monkeypatch.delenv("SWAPCO_SCHEDULES", raising=False)
    monkeypatch.delenv("SWAPCO_SEED", raising=False)


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


# ---------------------------------------------------------------------------------------------- the decorator


def test_a_failing_test_raises_what_it_raised_with_the_report() -> None:
    @testing.explore(schedules=100)
    def test() -> None:
        lost_update(3)

    with pytest.raises(AssertionError) as caught:
        test()
    assert "proved" in notes(caught.value)
    assert "adder 1" in notes(caught.value)


def test_bare_and_with_arguments_and_async() -> None:
    runs = []

    @testing.explore
    def bare() -> None:
        runs.append("bare")
        correct()

    @testing.explore(schedules=7)
    async def asynchronous() -> None:
        runs.append("async")
        await asyncio.gather(asyncio.sleep(1), asyncio.sleep(1))

    assert bare() is None  # type: ignore[func-returns-value]
    asynchronous()
    # each first run is made a second time, to see that it repeats
    assert runs.count("bare") == 1001
    assert runs.count("async") == 8
    assert not inspect.iscoroutinefunction(asynchronous)


def test_an_async_test_fails_in_its_schedule() -> None:
    @testing.explore
    async def test() -> None:
        counter = [0]

        async def add() -> None:
            value = counter[0]
            if testing.choose(2):
                await asyncio.sleep(0)
            counter[0] = value + 1

        await asyncio.gather(add(), add())
        assert counter == [2]

    with pytest.raises(AssertionError) as caught:
        test()
    assert "swapco.testing" in notes(caught.value)


def test_arguments_are_passed_to_every_schedule() -> None:
    seen = []

    class Tests:
        @testing.explore(5)
        def method(self, fibers: int, *, more: int = 1) -> None:
            """What it does."""
            seen.append((self, fibers, more))
            correct(fibers)

    tests = Tests()
    tests.method(2, more=3)
    assert set(seen) == {(tests, 2, 3)}
    assert len(seen) == 6
    assert Tests.method.__doc__ == "What it does."
    assert Tests.method.__name__ == "method"
    assert list(inspect.signature(Tests.method).parameters) == ["self", "fibers", "more"]


def test_the_default_is_the_same_everywhere() -> None:
    def found() -> Any:
        with pytest.raises(AssertionError) as caught:
            testing.check(lambda: lost_update(4, 5), schedules=1000, save=False)
        return notes(caught.value).splitlines()[:4]

    assert found() == found()
    direct = testing.search(lambda: lost_update(4, 5), save=False, seed=0)
    assert f"after {direct.schedules} schedule" in "\n".join(found())


def test_verify_is_a_proof_or_a_failure() -> None:
    runs = []

    @testing.explore(verify=True, preemption_bound=None)
    def proved() -> None:
        runs.append(1)
        correct()

    @testing.explore(10, verify=True, preemption_bound=None)
    def too_large() -> None:
        correct(4)

    @testing.explore(verify=True, strategy="dpor")
    def wrong() -> None:
        lost_update()

    proved()
    every = testing.verify(correct, preemption_bound=None, save=False).schedules
    # the first one runs twice: does it repeat?
    assert len(runs) == every + 1
    with pytest.raises(AssertionError, match="10 schedules are not all"):
        too_large()
    with pytest.raises(AssertionError) as caught:
        wrong()
    assert "dpor" in notes(caught.value)


@pytest.mark.parametrize("error", [pytest.skip.Exception("no"), unittest.SkipTest("no"), KeyboardInterrupt()])
def test_what_is_for_the_runner_is_no_failure(error: BaseException) -> None:
    runs = []

    def body() -> None:
        runs.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        testing.explore(body)()
    assert caught.value is error
    assert not notes(error)
    assert runs == [1]


def test_pytest_fail_is_a_failure() -> None:
    @testing.explore
    def test() -> None:
        testing.schedule_point()
        pytest.fail("no good")

    with pytest.raises(pytest.fail.Exception, match="no good") as caught:
        test()
    assert "swapco.testing" in notes(caught.value)


# ---------------------------------------------------------------------------------------------- the environment


@pytest.mark.parametrize(("value", "runs"), [("3", 3), ("2x", 20), ("0.1x", 1), ("0.001x", 1)])
def test_the_environment_says_how_many(value: str, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWAPCO_SCHEDULES", value)
    assert testing.check(correct, 10).schedules == runs


def test_the_environment_has_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWAPCO_SEED", "77")
    assert testing.check(correct, 10).seed == 77
    assert testing.check(correct, 10, seed=5).seed == 77


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SWAPCO_SCHEDULES", "many"), ("SWAPCO_SCHEDULES", "0"), ("SWAPCO_SCHEDULES", "-2x"), ("SWAPCO_SCHEDULES", "nan"),
     ("SWAPCO_SCHEDULES", "inf"), ("SWAPCO_SEED", "1.5")],
)  # fmt: skip
def test_a_wrong_environment_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"{variable}.*{value}"):
        testing.check(correct, 10)


# ---------------------------------------------------------------------------------------------------- misuse


def generator() -> Any:
    yield


async def async_generator() -> Any:
    yield


def test_misuse_is_refused_when_it_decorates() -> None:
    from hypothesis import given
    from hypothesis import strategies as st

    explore: Any = testing.explore
    check: Any = testing.check

    @given(st.integers())
    def hypothetical(x: int) -> None:
        """A test."""

    class Test:
        """A class."""

    for error, match, call in [
        (TypeError, "generator", lambda: explore(generator)),
        (TypeError, "generator", lambda: explore(async_generator)),
        (TypeError, "generator", lambda: testing.check(generator)),
        (TypeError, "@given above", lambda: explore(10)(hypothetical)),
        (TypeError, "not a class", lambda: explore(Test)),
        (TypeError, "@staticmethod above", lambda: explore(staticmethod(correct))),
        (TypeError, "test function", lambda: explore("correct")),
        (TypeError, "test function", lambda: explore(10)(10)),
        (TypeError, "function without arguments", lambda: check(None)),
        (ValueError, "schedules", lambda: explore(0)),
        (ValueError, "schedules", lambda: explore(schedules=-1)),
        (ValueError, "schedules", lambda: testing.check(correct, 0)),
        (TypeError, "seed", lambda: explore(seed="x")),
        (ValueError, "strategy", lambda: explore(strategy="fastest")),
        (ValueError, "dfs", lambda: explore(verify=True, strategy="random")),
        (ValueError, "preempt", lambda: explore(preempt="everywhere")),
        (ValueError, "max_steps", lambda: explore(max_steps=0)),
        (ValueError, "preemption_bound", lambda: explore(verify=True, preemption_bound=-1)),
        (ValueError, "verify=True", lambda: explore(preemption_bound=3)),
        (ValueError, "no schedule", lambda: explore(replay="hello")),
    ]:
        with pytest.raises(error, match=match):
            call()


def test_it_needs_the_thread_for_itself() -> None:
    test = testing.explore(correct)
    for call in (lambda: swapco.run(test), lambda: testing.run(test)):
        with pytest.raises(RuntimeError, match="outside|plain function"):
            call()

    async def inside() -> None:
        with pytest.raises(RuntimeError, match="event loop"):
            testing.check(correct)

    asyncio.run(inside())


def test_partials_and_callables() -> None:
    testing.explore(3)(functools.partial(correct, 3))()

    class Body:
        def __call__(self) -> None:
            correct()

    assert testing.check(Body(), 3).schedules == 3


# ------------------------------------------------------------------------------------- what was recorded is tried


class Program:
    """A test whose program changes."""

    def __init__(self) -> None:
        self.body: Any = lost_update
        self.runs = 0

    def __call__(self) -> None:
        def program() -> None:
            self.runs += 1
            self.body()

        self.runs = 0
        testing.check(program, 50, name="a test")

    def files(self, tmp_path: Path) -> list[str]:
        return sorted(file.name.replace(self.crc(tmp_path), "") for file in (tmp_path / "failures").glob("*"))

    @staticmethod
    def crc(tmp_path: Path) -> str:
        name = min(file.name for file in (tmp_path / "failures").glob("*"))
        return name[name.index("-") : name.index(".")]


def test_a_recorded_failure_is_tried_first(tmp_path: Path) -> None:
    test = Program()
    with pytest.raises(AssertionError):
        test()
    first = test.runs
    assert test.files(tmp_path) == ["a_test.json"]
    with pytest.raises(AssertionError) as caught:
        test()
    assert test.runs < first
    assert test.runs <= 3
    assert "Replayed" in notes(caught.value)
    assert str(tmp_path / "failures") in notes(caught.value)


def test_a_failure_that_passes_becomes_a_guard(tmp_path: Path) -> None:
    test = Program()
    with pytest.raises(AssertionError):
        test()
    test.body = correct
    test()
    assert test.files(tmp_path) == ["a_test.fixed.json"]
    assert test.runs == 53  # by number, by name, and a search whose first run is repeated
    test()
    assert test.files(tmp_path) == ["a_test.fixed.json"]
    test.body = lost_update
    with pytest.raises(AssertionError) as caught:
        test()
    assert "Replayed" in notes(caught.value)
    assert test.files(tmp_path) == ["a_test.json"]


def test_a_failure_that_does_not_fit_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    test = Program()
    with pytest.raises(AssertionError):
        test()
    test.body = lambda: swapco.sleep(1)
    test()
    assert list((tmp_path / "failures").glob("*")) == []
    assert "a test: removed" in caplog.text
    assert "does not fit" in caplog.text
    test()


def test_a_failure_that_does_not_fit_is_searched_for_again(tmp_path: Path) -> None:
    test = Program()
    with pytest.raises(AssertionError):
        test()

    def other() -> None:
        for fiber in [swapco.spawn(swapco.sleep, 1, name=f"sleeper {i}") for i in range(3)]:
            fiber.join()
        lost_update(3, 2)

    test.body = other
    with pytest.raises(AssertionError) as caught:
        test()
    assert "Found after" in notes(caught.value)
    assert "a_test.json" in test.files(tmp_path)
    with pytest.raises(AssertionError) as caught:
        test()
    assert "Replayed" in notes(caught.value)


def test_a_file_that_is_none_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    test = Program()
    with pytest.raises(AssertionError):
        test()
    [file] = (tmp_path / "failures").glob("*")
    file.write_text("what is this")
    test.body = correct
    test()
    assert not file.exists()
    assert "no schedule" in caplog.text


def test_tests_have_files_of_their_own(tmp_path: Path) -> None:
    names = ["a::b[1 2]", "a::b[1/2]", "a::b[1_2]", "x" * 300 + "1", "x" * 300 + "1" * 160, "ä", "ö", "a.py::c"]
    for name in names:
        with pytest.raises(AssertionError):
            testing.check(lost_update, name=name)
    files = list((tmp_path / "failures").glob("*"))
    assert len(files) == len(names)
    assert all(len(file.name.encode()) < 200 and file.stat().st_size <= 1024 for file in files)


def test_save_is_a_file_or_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        testing.check(lost_update, save=False)
    assert not (tmp_path / "failures").exists()
    file = tmp_path / "here.json"
    with pytest.raises(AssertionError):
        testing.check(lost_update, save=file)
    assert load_schedule(file).failure.startswith("AssertionError")


def test_the_report_of_a_test_says_what_its_user_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @testing.explore
    def test() -> None:
        lost_update()

    with pytest.raises(AssertionError) as caught:
        test()
    text = notes(caught.value)
    node = "tests/testing/test_explore.py::test_the_report_of_a_test_says_what_its_user_can_do"
    assert re.search(rf"    pytest {node}  # begins with it: \S+\.json\n", text)
    assert '@testing.explore(replay="' in text
    assert "SWAPCO_SVG=DIRECTORY" in text
    assert "testing.replay(" not in text
    assert "result." not in text
    assert "starts test," in text
    assert "body" not in text
    monkeypatch.setenv("SWAPCO_SVG", str(tmp_path / "pictures"))
    with pytest.raises(AssertionError) as caught:
        test()
    (picture,) = (tmp_path / "pictures").iterdir()
    assert f"as a picture: {picture}" in notes(caught.value)
    assert "<svg" in picture.read_text()
    with pytest.raises(AssertionError) as caught:
        testing.check(lost_update, save=False)
    assert 'testing.check(..., replay="' in notes(caught.value)


def test_replay_runs_one_schedule(tmp_path: Path) -> None:
    found = testing.search(lambda: lost_update(3), save=tmp_path / "x.json")
    assert found.schedule is not None
    for recorded in (found.schedule.code, found.path, found.schedule):
        runs = []

        @testing.explore(replay=recorded)
        def test() -> None:
            runs.append(1)  # noqa: B023
            lost_update(3)

        with pytest.raises(AssertionError) as caught:
            test()
        assert "Replayed" in notes(caught.value)
        assert len(runs) <= 3
    with pytest.warns(testing.StaleSchedule, match="the schedule of replay= passes: remove it"):
        passing = testing.check(lambda: correct(3), replay=found.schedule)
    assert passing.strategy == "replay"
    assert passing.schedules <= 2


def test_a_replay_that_diverges_says_so_and_searches(tmp_path: Path) -> None:
    found = testing.search(lambda: lost_update(3), save=tmp_path / "x.json")
    assert found.path is not None

    @testing.explore(replay=found.path)
    def test() -> None:
        lost_update(2, 0) if False else swapco.sleep(1)

    with pytest.warns(testing.StaleSchedule, match="does not fit.*adder"):
        test()
    assert Path(found.path).exists(), "only a file of the test's own is removed"

    @testing.explore(replay=found.path)
    def other() -> None:
        swapco.sleep(1)
        box: list[int] = []
        swapco.wait([swapco.spawn(box.append, i) for i in range(2)])
        assert box == [0, 1]

    with pytest.warns(testing.StaleSchedule), pytest.raises(AssertionError) as caught:
        other()
    assert "Found after" in notes(caught.value)


# ------------------------------------------------------------------------------------------------ under pytest

SUITE = """
import asyncio

@pytest.fixture
def directory(tmp_path):
    return tmp_path

@pytest.mark.parametrize("fibers", [1, 2, 3])
@testing.explore(schedules=200)
def test_parametrized(fibers, directory):
    assert directory.is_dir()
    lost_update(fibers)

class TestClass:
    @testing.explore(200)
    def test_method(self, directory):
        lost_update(2)

@testing.explore
async def test_async():
    await asyncio.gather(asyncio.sleep(1), asyncio.sleep(1))

@testing.explore
async def test_async_failing():
    raise ZeroDivisionError

@testing.explore
def test_skipped():
    pytest.skip("not today")

@testing.explore
def test_expected():
    pytest.xfail("known")

@pytest.mark.xfail(strict=True)
@testing.explore
def test_expected_to_fail():
    lost_update()

@testing.explore(verify=True)
def test_verified():
    correct()
"""


@pytest.mark.once
def test_a_suite_under_pytest(tmp_path: Path) -> None:
    first = run_pytest(tmp_path, SUITE, "-n", "2")
    assert first.outcomes == {"failed": 4, "passed": 3, "skipped": 1, "xfailed": 2}, first.text
    assert "test_it.py::test_parametrized[3] fails" in first.text
    files = failure_files(tmp_path)
    assert {"test_it.py.test_parametrized[2].json", "test_it.py.test_parametrized[3].json"} < set(files)
    assert "test_it.py.TestClass.test_method.json" in files
    assert len(files) == 5
    assert json.loads(files["test_it.py.TestClass.test_method.json"])["test"] == "test_it.py::TestClass::test_method"
    assert "explore.py" not in first.text, "only the program's frames are shown"
    second = run_pytest(tmp_path, SUITE, "-n", "0")
    assert second.outcomes == first.outcomes
    assert "Replayed" in second.text
    assert "Found after" not in second.text, "nothing was searched"
    assert failure_files(tmp_path) == files
    repaired = run_pytest(tmp_path, SUITE.replace("lost_update", "correct"), "-n", "0", "-k", "param or method")
    assert repaired.outcomes["passed"] == 4, repaired.text
    assert sorted(set(failure_files(tmp_path)) - set(files))[0].endswith(".fixed.json")


def test_everything_but_hypothesis_works_without_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "import swapco\n"
        "from swapco import testing\n"
        "def body():\n"
        "    swapco.wait([swapco.spawn(testing.schedule_point) for _ in range(2)])\n"
        "testing.explore(5)(body)()\n"
        "print(testing.check(body, 5).schedules)\n"
        "for use in (testing.schedules, lambda: testing.ConcurrentStateMachine):\n"
        "    try:\n"
        "        use()\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
        "try:\n"
        "    testing.nothing\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "5"
    assert "schedules needs hypothesis" in lines[1]
    assert "pip install" in lines[1]
    assert "ConcurrentStateMachine needs hypothesis" in lines[2]
    assert "no attribute 'nothing'" in lines[3]


def test_importing_it_does_not_import_hypothesis() -> None:
    program = "import sys, swapco.testing; print('hypothesis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
