"""search, verify, replay, run: what is found, how it is shrunk, what is kept, and what misuse says."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from small_programs import lost_update, lost_update_of_three

import swapco
from swapco import testing
from swapco.testing.schedule import Named, load_schedule


def locked_update() -> None:
    lock, box = swapco.Lock(), [0]

    def add() -> None:
        with lock:
            value = box[0]
            testing.schedule_point()
            box[0] = value + 1

    swapco.wait([swapco.spawn(add) for _ in range(3)])
    assert box == [3]


# --------------------------------------------------------------------------------------------------- searching


@pytest.mark.parametrize("strategy", ["portfolio", "random", "urw", "pct", "pos", "dfs"])
def test_a_bug_is_found_shrunk_and_proved_minimal(strategy: str) -> None:
    result = testing.search(lambda: lost_update(3, 3), strategy=strategy, save=False)
    assert result.failed
    assert isinstance(result.exception, AssertionError)
    assert (result.preemptions, result.deviations) == (1, 1)
    assert result.minimal
    assert result.schedules <= 1000


def test_a_program_without_bugs_passes() -> None:
    result = testing.search(locked_update, schedules=50, save=False)
    assert not result.failed
    assert result.schedules == 50
    assert result.exception is None
    assert result.schedule is None
    assert result.check() is result


def test_a_program_without_choices_is_run_once() -> None:
    result = testing.search(lambda: swapco.sleep(1), save=False)
    assert (result.schedules, result.exhausted) == (1, True)


def test_the_same_seed_repeats_the_search() -> None:
    def outcome(seed: int) -> tuple[Any, ...]:
        result = testing.search(lambda: lost_update(4, 5), seed=seed, save=False)
        return result.schedules, result.found, result.schedule, result.replays, result.proof_schedules

    assert outcome(7) == outcome(7)
    assert len({outcome(seed) for seed in range(10)}) > 1


def test_verify_sees_every_schedule_within_the_bound() -> None:
    orders = set()

    def body() -> None:
        log: list[str] = []

        def work(name: str) -> None:
            log.append(name)
            testing.schedule_point()
            log.append(name)

        swapco.wait([swapco.spawn(work, name) for name in "ab"])
        orders.add("".join(log))

    every = {"".join(order) for order in itertools.permutations("aabb")}
    assert testing.verify(body, preemption_bound=0, save=False).exhausted
    assert orders == {"aabb", "bbaa"}
    assert testing.verify(body, preemption_bound=None, save=False).exhausted
    assert orders == every


def test_verify_finds_the_simplest_failure_first() -> None:
    result = testing.verify(lambda: lost_update(3, 2), save=False)
    assert result.failed
    assert result.minimal
    assert (result.preemptions, result.deviations) == (1, 1)
    assert not result.exhausted


def test_verify_says_when_the_limit_did_not_suffice() -> None:
    result = testing.verify(locked_update, preemption_bound=None, schedules=5, save=False)
    assert (result.failed, result.exhausted, result.schedules) == (False, False, 5)
    assert "These are not all there are" in result.report


def test_dpor_runs_fewer_schedules_and_proves_the_same() -> None:
    def body() -> None:
        first, second = testing.Shared(0), testing.Shared(0)

        def work(shared: testing.Shared) -> None:
            shared.value += 1

        swapco.wait([swapco.spawn(work, first), swapco.spawn(work, second)])
        assert (first.value, second.value) == (1, 1)

    plain = testing.verify(body, preemption_bound=None, save=False)
    reduced = testing.verify(body, strategy="dpor", save=False)
    assert plain.exhausted
    assert reduced.exhausted
    assert reduced.schedules < plain.schedules


@pytest.mark.parametrize("permits", [1, 2])
def test_dpor_exhausts_a_semaphore_of_three_fibers(permits: int) -> None:
    def body() -> None:
        semaphore, inside = swapco.Semaphore(permits), []

        def work(i: int) -> None:
            with semaphore:
                inside.append(i)
                assert len(inside) <= permits
                inside.remove(i)

        swapco.wait([swapco.spawn(work, i) for i in range(3)])

    result = testing.verify(body, strategy="dpor", preempt="primitives", save=False)
    assert result.exhausted
    assert not result.failed
    assert result.schedules <= 100


def test_nondeterminism_is_named() -> None:
    def clock() -> None:
        def work() -> None:
            for _ in range(2 + time.perf_counter_ns() % 5):
                testing.schedule_point()

        swapco.wait([swapco.spawn(work) for _ in range(3)])

    generator = random.Random(0)

    def chance() -> None:
        def work() -> None:
            if generator.random() < 0.5:
                testing.schedule_point()

        swapco.wait([swapco.spawn(work) for _ in range(8)])

    for body in (clock, chance):
        results = [testing.search(body, seed=seed, save=False) for seed in range(5)]
        errors = [result.exception for result in results if result.failed]
        assert errors, body
        assert all(isinstance(error, testing.UncontrolledNondeterminism) for error in errors)
        assert "besides the schedule" in str(errors[0])


def test_state_that_outlives_a_run_is_named() -> None:
    runs = []

    def body() -> None:
        runs.append(1)
        swapco.wait([swapco.spawn(testing.schedule_point) for _ in range(2 + len(runs))])

    result = testing.search(body, save=False)
    assert isinstance(result.exception, testing.UncontrolledNondeterminism)
    # the first moment that differs, as it was in two runs: a fiber more
    once, again = result.exception.difference
    begin = r"  once   main stops \(fibers\) at test_search\.py:\d+: swapco\.wait\(.*; Fiber-1 runs, Fiber-2"
    assert re.match(begin, once)
    assert again.removeprefix("  again  ").startswith(once.removeprefix("  once   ").removesuffix(" could"))
    assert f"{once}\n{again}" in str(result.exception)
    assert f"{once}\n{again}" in result.report
    with pytest.raises(testing.UncontrolledNondeterminism) as caught:
        result.check()
    shown = "\n".join([str(caught.value), *caught.value.__notes__])
    assert shown.count(once) == 1, "not in the message and in the report"


# ----------------------------------------------------------------------------------------- run equals replay


def test_run_equals_replay_on_ten_thousand_seeds() -> None:
    """The same decisions make the same run: order of events, outcome, everything that was recorded."""
    from swapco.testing.execution import Program
    from swapco.testing.strategies import Path as Recorded
    from swapco.testing.strategies import RandomWalk

    log: list[Any] = []

    def body() -> None:
        log.clear()
        lock, queue, event = swapco.Lock(), swapco.Queue[int](1), swapco.Event()

        def produce() -> None:
            for i in range(3):
                queue.put(i)
                log.append(("put", i))

        def consume() -> None:
            for _ in range(3):
                log.append(("got", queue.get()))
                with lock:
                    testing.schedule_point()
            event.set()

        def impatient() -> None:
            try:
                event.wait(timeout=testing.choose(3) + 1)
            except TimeoutError:
                log.append("timeout")
            swapco.sleep(1)
            log.append(("woke", swapco.current_fiber().name))

        def cancelled() -> None:
            try:
                with lock:
                    swapco.sleep(2)
            finally:
                log.append("over")

        fibers = [swapco.spawn(fn) for fn in (produce, consume, impatient, cancelled)]
        testing.schedule_point()
        fibers[3].cancel()
        swapco.wait(fibers)

    program = Program(body, preempt="primitives")

    def session() -> int:
        walk = RandomWalk(1)
        different = set()
        for seed in range(10_000):
            program.run(walk, seed)
            first = program.control.path(), program.control.signature(), list(log)
            program.run(Recorded(first[0]))
            assert (program.control.path(), program.control.signature(), log) == first, seed
            different.add(tuple(first[0]))
        return len(different)

    assert program.session(session) > 9_000


def test_a_schedule_of_a_hundred_thousand_decisions_is_replayed() -> None:
    order: list[int] = []

    def body() -> None:
        order.clear()

        def work(i: int) -> None:
            for _ in range(30_000):
                order.append(i)
                testing.schedule_point()

        swapco.wait([swapco.spawn(work, i) for i in range(4)])

    from swapco.testing.execution import Program
    from swapco.testing.strategies import RandomWalk

    program = Program(body, max_steps=10**6)
    path = program.session(lambda: (program.run(RandomWalk(3)), program.control.path())[1])
    assert len(path) > 100_000
    before = list(order)
    testing.run(body, schedule=path, max_steps=10**6)
    assert order == before


# ---------------------------------------------------------------------------------------------------- replaying


def test_a_failure_is_written_and_replayed_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "deeper" / "failure.json"
    result = testing.search(lost_update, save=file)
    assert result.path == str(file)
    assert file.stat().st_size <= 1024
    again = testing.replay(lost_update, file)
    assert again.failed
    assert again.strategy == "replay"
    assert again.deviations == result.deviations
    assert result.schedule is not None
    by_code = testing.replay(lost_update, result.schedule.code)
    assert by_code.failed
    with pytest.raises(AssertionError):
        testing.run(lost_update, schedule=file)
    testing.run(lost_update)


def test_a_code_that_does_not_fit_is_no_run_of_production() -> None:
    """A list may have decisions that the program does not have: hypothesis makes them up."""
    assert testing.run(lambda: "passed", schedule=[9, 9, 9]) == "passed"
    with pytest.raises(testing.ReplayDivergence, match=r"does not fit .*: it has 0 decisions"):
        testing.run(lambda: "passed", schedule="0,0")
    with pytest.raises(testing.ReplayDivergence, match=r"decision 0 has fewer possibilities"):
        testing.run(two_points, schedule="0:5")
    with pytest.raises(ValueError, match=r"recorded with preempt='primitives'"):
        testing.run(two_points, schedule="0!", preempt="points")


def two_points() -> None:
    swapco.wait([swapco.spawn(testing.schedule_point) for _ in range(2)])


def test_how_many_may_be_said_without_a_name() -> None:
    assert testing.search(two_points, 2, save=False).schedules == 2
    assert testing.verify(two_points, 0, save=False).exhausted


@pytest.mark.parametrize("save", [None, 5, b"file", "", "/"])
def test_where_it_cannot_be_saved_is_said_at_once(save: Any) -> None:
    """And not when there is a failure to lose."""
    for function in (testing.search, testing.verify, testing.check):
        ran: list[int] = []
        with pytest.raises((TypeError, ValueError), match="save is True, False or the file to write|save is the file"):
            function(lambda ran=ran: ran.append(1), save=save)
        assert not ran


def test_failures_go_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWAPCO_FAILURES", str(tmp_path / "here"))
    result = testing.search(lost_update)
    assert result.path is not None
    assert Path(result.path).parent == tmp_path / "here"
    assert json.loads(Path(result.path).read_text())["test"].endswith("lost_update")


def test_replay_survives_a_change_by_name() -> None:
    """The program got a decision more at the start: the numbers do not fit, the names do."""
    found = testing.search(partial(lost_update_of_three, with_others=False), save=False)
    assert found.schedule is not None
    assert found.schedule.named
    assert testing.replay(partial(lost_update_of_three, with_others=True), found.schedule).failed
    nameless = found.schedule._replace(named=())
    assert not testing.replay(partial(lost_update_of_three, with_others=True), nameless).failed


def test_a_schedule_that_fits_no_more_is_a_divergence() -> None:
    found = testing.search(lambda: lost_update(3, 2), save=False)
    assert found.schedule is not None
    result = testing.replay(lambda: swapco.sleep(1), found.schedule)
    assert isinstance(result.exception, testing.ReplayDivergence)
    assert "adder" in str(result.exception)


@pytest.mark.parametrize("schedule", ["9", "0:9", "1,1,1,1,1,1,1", [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]])
def test_a_code_of_another_program_is_a_divergence(schedule: Any) -> None:
    """It must not pass for a schedule that shows nothing."""
    result = testing.replay(locked_update, schedule)
    assert isinstance(result.exception, testing.ReplayDivergence)
    assert "locked_update" in str(result.exception)


def test_a_file_of_another_program_is_a_divergence() -> None:
    """Its numbers fit by chance; its fibers have other names."""

    def others() -> None:
        swapco.wait([swapco.spawn(testing.schedule_point, name=name) for name in "xyz"])

    found = testing.search(lost_update, save=False)
    assert found.schedule is not None
    result = testing.replay(others, found.schedule)
    assert isinstance(result.exception, testing.ReplayDivergence)
    assert "adder" in str(result.exception)


def test_a_failure_is_told_where_its_schedule_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SWAPCO_FAILURES", str(tmp_path / "file"))
    result = testing.search(lost_update)
    assert isinstance(result.exception, AssertionError)
    assert result.path is None
    assert "is not kept in" in caplog.text

    @testing.explore
    def test() -> None:
        lost_update()

    with pytest.raises(AssertionError, match="test_a_failure_is_told"):
        test()


def test_what_only_makes_an_object_is_no_body() -> None:
    def generator() -> Any:
        yield

    async def asynchronous_generator() -> Any:
        yield

    for body in (generator, asynchronous_generator, dict):
        with pytest.raises(TypeError, match="only makes an object"):
            testing.search(body)


def test_a_repaired_program_passes_its_replay() -> None:
    found = testing.search(lost_update, save=False)
    assert found.schedule is not None

    def repaired() -> None:
        box = [0]

        def add() -> None:
            testing.schedule_point()
            box[0] += 1

        swapco.wait([swapco.spawn(add, name=f"adder {i}") for i in range(2)])

    assert not testing.replay(repaired, found.schedule).failed


def test_schedules_survive_every_form() -> None:
    paths: list[list[int]] = [[], [1], [0, 0, 3], [2, 0, 1, 1, 0, 5], [0] * 500 + [7], [i % 4 for i in range(1, 400)]]
    for path in paths:
        schedule = testing.Schedule(tuple(path), (Named("a", "lock", 3, "b"),), "test", "Error: x", "primitives")
        assert load_schedule(schedule.code).path == _stripped(path)
        assert load_schedule(schedule.code).preempt == "primitives"
        back = testing.Schedule.from_json(schedule.to_json())
        assert back == schedule._replace(path=_stripped(path))
    assert load_schedule([1, 0]).path == (1, 0)


def _stripped(path: list[int]) -> tuple[int, ...]:
    while path and path[-1] == 0:
        path = path[:-1]
    return tuple(path)


@pytest.mark.parametrize("wrong", ["hello", "1:x", "zzzz", "-3", "{}", "0:0"])
def test_what_is_no_schedule_says_so(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no schedule"):
        testing.replay(lost_update, wrong)
    (tmp_path / "x.json").write_text(wrong)
    with pytest.raises(ValueError, match="no schedule"):
        testing.replay(lost_update, tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        testing.replay(lost_update, tmp_path / "missing.json")


# ------------------------------------------------------------------------------------------------------ misuse


def test_misuse_is_refused_at_once() -> None:
    search: Any = testing.search
    verify: Any = testing.verify
    for error, call in [
        (TypeError, lambda: search(None)),
        (TypeError, lambda: search("lost_update")),
        (ValueError, lambda: search(lost_update, schedules=0)),
        (ValueError, lambda: search(lost_update, strategy="fastest")),
        (ValueError, lambda: search(lost_update, preempt="everywhere")),
        (ValueError, lambda: search(lost_update, max_steps=-1)),
        (ValueError, lambda: verify(lost_update, preemption_bound=-1)),
        (ValueError, lambda: verify(lost_update, strategy="random")),
        (ValueError, lambda: testing.PCT(0)),
        (TypeError, lambda: testing.RandomWalk("x")),  # type: ignore[arg-type]
        (TypeError, lambda: testing.Portfolio("random")),  # type: ignore[arg-type]
    ]:
        with pytest.raises(error):
            call()


def test_a_result_is_neither_true_nor_false() -> None:
    result = testing.search(locked_update, schedules=2, save=False)
    with pytest.raises(TypeError, match=r"result\.failed"):
        bool(result)


def test_check_raises_what_the_body_raised_with_the_report() -> None:
    result = testing.search(lost_update, save=False)
    with pytest.raises(AssertionError) as caught:
        result.check()
    notes = "\n".join(caught.value.__notes__)
    assert "adder 0" in notes
    assert result.schedule is not None
    assert result.schedule.code in notes
    with pytest.raises(AssertionError):
        result.check()
    assert len(caught.value.__notes__) == 1


def test_a_search_in_a_process_of_its_own_is_the_same(tmp_path: Path) -> None:
    """No hash seed, address or earlier search decides anything."""
    program = tmp_path / "program.py"
    program.write_text(
        "import swapco\nfrom swapco import testing\n"
        "def body():\n"
        "    box = [0]\n"
        "    def add():\n"
        "        value = box[0]\n"
        "        testing.schedule_point()\n"
        "        box[0] = value + 1\n"
        "    swapco.wait([swapco.spawn(add) for _ in range(4)])\n"
        "    assert box == [4]\n"
        "r = testing.search(body, seed=5, save=False)\n"
        "print(r.schedules, r.found, r.schedule.code, r.replays, r.proof_schedules)\n"
    )
    outputs = set()
    for hash_seed in ("0", "1", "random"):
        environment = dict(os.environ, PYTHONHASHSEED=hash_seed)
        done = subprocess.run(
            [sys.executable, str(program)], capture_output=True, text=True, timeout=60, env=environment, check=True
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1, outputs
