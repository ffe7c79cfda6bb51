"""The decision hook: what is a moment, who is enabled, what is recorded; and that a run leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import swapco
from swapco import testing
from swapco.testing.execution import Program
from swapco.testing.strategies import Chosen, Path, RandomWalk
from swapco.testing.trace import Execution, FollowPath, Pruned

Body = Callable[[], Any]


def execute(body: Body, *choices: int, **options: Any) -> Execution:
    """One run under a path."""
    program = Program(body, **options)
    result: Execution = program.session(lambda: program.execute(FollowPath(choices)))
    return result


def moments(body: Body, *choices: int, **options: Any) -> list[tuple[tuple[int, ...], int, int, str]]:
    return [tuple(decision) for decision in execute(body, *choices, **options).decisions]  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------ decisions


def test_a_program_with_one_fiber_has_no_decisions() -> None:
    def body() -> None:
        swapco.sleep(1)
        testing.schedule_point()
        with swapco.Lock():
            pass

    assert moments(body) == []


def test_new_fibers_are_enabled_in_the_order_of_their_spawn() -> None:
    def body() -> list[int]:
        order: list[int] = []
        for fiber in [swapco.spawn(order.append, i) for i in range(3)]:
            fiber.join()
        return order

    assert moments(body) == [((1, 2, 3), -1, 0, "join"), ((2, 3, 0), -1, 0, "end"), ((3, 0), -1, 0, "end")]
    assert testing.run(body) == [0, 1, 2]
    assert testing.run(body, schedule=[2, 0, 0]) == [2, 0, 1]


def test_the_current_fiber_comes_first_at_a_point() -> None:
    def body() -> str:
        log: list[str] = []

        def work(name: str) -> None:
            log.append(name)
            testing.schedule_point()
            log.append(name)

        fibers = [swapco.spawn(work, name) for name in "ab"]
        swapco.wait(fibers)
        return "".join(log)

    assert moments(body)[1] == ((1, 2), 1, 0, "schedule_point")
    assert testing.run(body) == "aabb"
    assert testing.run(body, schedule=[0, 1]) == "abba"
    assert testing.run(body, schedule=[0, 1, 1]) == "abab"
    execution = execute(body, 1, 1)
    assert (execution.preemptions, execution.deviations) == (1, 2)


def test_who_yields_lets_another_go_first() -> None:
    def body() -> None:
        done = []

        def spin() -> None:
            while not done:
                swapco.sleep(0)

        swapco.spawn(spin)
        swapco.spawn(done.append, 1)

    for seed in range(30):
        program = Program(body, max_steps=100)
        assert not program.session(lambda seed=seed, program=program: program.run(RandomWalk(seed))).failed
    assert [decision[:2] for decision in moments(body, 0)][:2] == [((1, 2), -1)]


def test_a_handoff_is_no_choice() -> None:
    def body() -> list[str]:
        log: list[str] = []

        def second() -> None:
            swapco.block()  # the token
            log.append("second")
            swapco.switch_to(first)
            log.append("second again")

        def start() -> None:
            log.append("first")
            swapco.switch_to(other)
            log.append("first again")
            swapco.resume(other)

        first = swapco.spawn(start)
        other = swapco.spawn(second)
        swapco.spawn(log.append, "third")
        swapco.wait([first, other])
        return log

    decisions = moments(body)
    assert {label for _, _, _, label in decisions} <= {"fibers", "end"}
    assert testing.run(body)[:3] == ["first", "second", "first again"]


def test_operations_of_primitives_are_points_only_if_asked_for() -> None:
    def body() -> None:
        lock = swapco.Lock()

        def work() -> None:
            with lock:
                pass

        swapco.wait([swapco.spawn(work) for _ in range(2)])

    assert "Lock.__enter__" not in [label for *_, label in moments(body)]
    entries = [decision for decision in moments(body, preempt="primitives") if decision[3] == "Lock.__enter__"]
    assert entries[0] == ((1, 2), 1, 0, "Lock.__enter__")


def test_park_is_no_point_because_it_has_no_memory() -> None:
    def body() -> None:
        lot, ready = swapco.lowlevel.ParkingLot(), []

        def wait() -> None:
            if not ready:
                lot.park()

        def wake() -> None:
            ready.append(1)
            lot.unpark()

        swapco.wait([swapco.spawn(wait), swapco.spawn(wake)])

    import swapco.lowlevel

    result = testing.verify(body, preemption_bound=None, preempt="primitives", save=False)
    assert result.exhausted
    assert not result.failed


def test_timers_of_one_instant_are_a_choice() -> None:
    def body() -> list[str]:
        log: list[str] = []

        def sleeper(name: str) -> None:
            swapco.sleep(1)
            log.append(name)

        swapco.wait([swapco.spawn(sleeper, name) for name in "ab"])
        return log

    assert testing.run(body) == ["a", "b"]
    orders = set()
    for path in ([], [0, 0, 0], [0, 0, 1], [0, 1], [0, 1, 1]):
        orders.add("".join(testing.run(body, schedule=path)))
    assert orders == {"ab", "ba"}


def test_a_timeout_and_a_wakeup_of_one_instant_race() -> None:
    def body() -> bool:
        event = swapco.Event()

        def setter() -> None:
            swapco.sleep(1)
            event.set()

        swapco.spawn(setter)
        try:
            return event.wait(timeout=1)
        except TimeoutError:
            return False

    outcomes = set()

    def collecting() -> None:
        outcomes.add(body())

    assert not testing.verify(collecting, preemption_bound=None, save=False).failed
    assert outcomes == {True, False}


def test_time_jumps_and_never_runs() -> None:
    def body() -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(100_000):
            pass
        assert loop.time() == start
        for _ in range(10):
            swapco.sleep(365 * 86400)
        return loop.time() - start

    assert testing.run(body) == pytest.approx(10 * 365 * 86400)


def test_choices_of_the_environment() -> None:
    def body() -> tuple[int, int]:
        return testing.choose(3, "first"), testing.choose(1)

    assert testing.run(body) == (0, 0)
    assert testing.run(body, schedule=[2]) == (2, 0)
    assert moments(body, 2) == [((-2, -3, -4), -1, 2, "first")]
    assert testing.choose(5) == 0
    with pytest.raises(ValueError, match="from 1 on"):
        testing.choose(0)

    def picky() -> None:
        assert testing.choose(50) != 37

    result = testing.search(picky, save=False)
    assert result.failed
    assert result.schedule is not None
    assert result.schedule.path == (37,)


def test_no_switch_makes_one_step() -> None:
    def body() -> None:
        box = [0]

        def add() -> None:
            with testing.no_switch():
                value = box[0]
                testing.schedule_point()
                box[0] = value + 1

        swapco.wait([swapco.spawn(add) for _ in range(3)])
        assert box == [3]

    result = testing.verify(body, preemption_bound=None, save=False)
    assert result.exhausted
    assert not result.failed

    def blocks() -> None:
        with testing.no_switch():
            swapco.sleep(0.001)

    assert isinstance(testing.search(blocks, save=False).exception, AssertionError)
    with pytest.raises(AssertionError, match="gave the slot away"):
        swapco.run(blocks)
    with pytest.raises(swapco.NotInFiber):
        testing.no_switch().__enter__()


def test_points_do_nothing_outside_of_a_controlled_run() -> None:
    testing.schedule_point()
    shared = testing.Shared(3, name="x")
    shared.value += 1
    assert shared.value == 4
    assert repr(shared) == "<Shared x 4>"
    swapco.run(testing.schedule_point)


# ---------------------------------------------------------------------------------------------- how runs end


def test_what_the_body_raises_fails_the_run() -> None:
    def body() -> None:
        raise LookupError("here")

    execution = execute(body)
    assert execution.failed
    assert isinstance(execution.exception, LookupError)


def test_what_nobody_looks_at_fails_the_run() -> None:
    def fail() -> None:
        raise LookupError("unseen")

    def careless() -> None:
        swapco.spawn(fail)

    def careful() -> None:
        with pytest.raises(LookupError):
            swapco.spawn(fail).join()

    assert isinstance(execute(careless).exception, LookupError)
    assert execute(careful).kind == "passed"


def test_an_error_of_a_callback_fails_the_run() -> None:
    def body() -> None:
        def callback() -> None:
            raise LookupError("callback")

        asyncio.get_running_loop().call_soon(callback)

    assert isinstance(execute(body).exception, LookupError)


def test_a_deadlock_names_the_cycle() -> None:
    def body() -> None:
        a, b = swapco.Lock(), swapco.Lock()

        def grab(first: swapco.Lock, second: swapco.Lock) -> None:
            with first:
                testing.schedule_point()
                with second:
                    pass

        swapco.wait([swapco.spawn(grab, a, b, name="one"), swapco.spawn(grab, b, a, name="two")])

    assert execute(body).kind == "passed"
    execution = execute(body, 0, 1)
    assert isinstance(execution.exception, testing.Deadlock)
    assert not isinstance(execution.exception, testing.LostWakeup)
    text = str(execution.exception)
    assert "cycle" in text
    one, two = r"'one' waits for <Lock .*>, owned by 'two'\n", r"'two' waits for <Lock .*>, owned by 'one'\n"
    assert re.search(f"{one}.*{two}", text, re.DOTALL)
    assert "'main' waits for the fibers of wait()" in text


def test_a_fiber_that_joins_who_joins_it_is_a_deadlock() -> None:
    def body() -> None:
        fibers: list[Any] = []
        fibers.append(swapco.spawn(lambda: fibers[1].join()))
        fibers.append(swapco.spawn(lambda: fibers[0].join()))
        fibers[0].join()

    assert type(execute(body).exception) is testing.Deadlock


def test_a_lost_wakeup_is_told_from_a_deadlock() -> None:
    def body() -> None:
        swapco.Event().wait()

    assert isinstance(execute(body).exception, testing.LostWakeup)


def test_a_fiber_that_is_left_waiting_is_a_leak() -> None:
    def body() -> None:
        swapco.spawn(swapco.Event().wait, name="forgotten")

    execution = execute(body)
    assert isinstance(execution.exception, testing.FiberLeak)
    assert "forgotten" in str(execution.exception)


def test_fibers_that_still_can_run_after_the_body_do() -> None:
    log: list[int] = []

    def body() -> None:
        def late() -> None:
            swapco.sleep(1)
            log.append(1)

        swapco.spawn(late)

    assert execute(body).kind == "passed"
    assert log == [1]


def test_an_endless_run_is_cut() -> None:
    def body() -> None:
        while True:
            testing.schedule_point()

    execution = execute(body, max_steps=500)
    assert isinstance(execution.exception, testing.StepBoundExceeded)
    assert "500" in str(execution.exception)


def test_keyboard_interrupt_leaves_the_search() -> None:
    def body() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        testing.search(body, save=False)
    assert not testing.search(lambda: None, save=False).failed


# ------------------------------------------------------------------------------------------------ unwinding


def test_the_fibers_of_a_failed_run_are_unwound() -> None:
    cleaned: list[str] = []

    def body() -> None:
        def hold(name: str) -> None:
            try:
                swapco.Event().wait()
            finally:
                cleaned.append(name)

        def never() -> None:
            cleaned.append("never")

        swapco.spawn(hold, "a")
        swapco.spawn(hold, "b")
        swapco.sleep(0)
        swapco.spawn(never)
        raise LookupError

    assert execute(body).failed
    assert sorted(cleaned) == ["a", "b"]


def test_clean_up_that_waits_is_ended_too() -> None:
    steps: list[int] = []

    def body() -> None:
        def stubborn() -> None:
            try:
                swapco.Event().wait()
            finally:
                steps.append(1)
                try:
                    swapco.sleep(1)
                finally:
                    steps.append(2)
                    swapco.Queue[int]().get()
                    steps.append(3)

        swapco.spawn(stubborn)
        swapco.sleep(0)
        raise LookupError

    assert execute(body).failed
    assert steps == [1, 2]


WAITS: dict[str, Callable[[], object]] = {
    "block": swapco.block,
    "sleep": lambda: swapco.sleep(1),
    "yield": lambda: swapco.sleep(0),
    "point": testing.schedule_point,
    "event": lambda: swapco.Event().wait(),
    "lock": lambda: swapco.Lock().acquire() and swapco.sleep(0),
}


@pytest.mark.parametrize("switch", ["native", "greenlet"])
@pytest.mark.parametrize("wait", WAITS)
def test_a_fiber_that_cannot_be_ended_is_reported(wait: str, switch: str) -> None:
    def body() -> None:
        def immortal() -> None:
            while True:
                try:
                    WAITS[wait]()
                except BaseException:
                    pass

        swapco.spawn(immortal, name="immortal")
        swapco.sleep(0)
        raise LookupError

    # who comes back from its points again and again never lets the body go on
    reason = "StepBoundExceeded" if wait == "point" else "LookupError"
    with pytest.raises(RuntimeError, match=rf"immortal \(at .*catch BaseException again.*{reason}"):
        testing.search(body, save=False, switch=switch, max_steps=500)
    assert not testing.search(lambda: swapco.sleep(1), save=False).failed


def test_points_of_clean_up_raise_what_ends_the_run() -> None:
    """So that a loop of clean-up ends as well."""
    steps: list[str] = []

    def body() -> None:
        def work() -> None:
            try:
                swapco.Event().wait()
            finally:
                steps.append("cleans up")
                testing.schedule_point()
                steps.append("goes on")

        swapco.spawn(work)
        swapco.sleep(0)
        raise LookupError

    assert execute(body).failed
    assert steps == ["cleans up"]


def test_a_run_keeps_nothing_alive() -> None:
    class Thing:
        pass

    references: list[weakref.ref[Thing]] = []

    def body() -> None:
        thing = Thing()
        references.append(weakref.ref(thing))
        swapco.spawn(lambda: thing).join()

    def three_runs() -> None:
        program = Program(body)

        def session() -> None:
            for _ in range(3):
                program.run(Path())

        program.session(session)

    three_runs()
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


def test_timers_do_not_reach_the_next_run() -> None:
    fired: list[int] = []

    def body() -> None:
        asyncio.get_running_loop().call_later(1, fired.append, 1)
        raise LookupError

    program = Program(body)

    def session() -> None:
        program.run(Path())
        program.body = lambda: swapco.sleep(5)
        assert not program.run(Path()).failed

    program.session(session)
    assert fired == []


# ------------------------------------------------------------------------------------------------ who decides


def test_a_strategy_that_raises_ends_the_search_not_the_program() -> None:
    seen: list[BaseException] = []

    def body() -> None:
        def work() -> None:
            try:
                testing.schedule_point()
            except Exception as error:
                seen.append(error)

        swapco.wait([swapco.spawn(work) for _ in range(2)])

    class Broken(testing.Strategy):
        def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
            raise ZeroDivisionError

    class Wild(testing.Strategy):
        def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
            return 99

    with pytest.raises(ZeroDivisionError):
        testing.search(body, strategy=Broken(), save=False)
    with pytest.raises(ValueError, match="from 0 to 1"):
        testing.search(body, strategy=Wild(), save=False)
    assert seen == []


def test_a_pruned_run_is_aborted() -> None:
    def body() -> None:
        swapco.wait([swapco.spawn(testing.schedule_point) for _ in range(2)])

    class Pruning:
        def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
            raise Pruned

    program = Program(body)
    assert program.session(lambda: program.run(Chosen(Pruning()))).kind == "aborted"


def test_a_controlled_run_needs_the_thread_for_itself() -> None:
    def inside() -> None:
        with pytest.raises(RuntimeError, match="event loop runs"):
            testing.search(lambda: None, save=False)

    swapco.run(inside)

    def nested() -> None:
        with pytest.raises(RuntimeError, match="cannot contain another one"):
            testing.search(lambda: None, save=False)
        with pytest.raises(RuntimeError, match=r"run\(\) was called while an event loop runs"):
            swapco.run(lambda: None)

    assert testing.search(nested, save=False).check().schedules == 1


def test_a_program_of_one_thread_does_not_disturb_another() -> None:
    import threading

    def body() -> None:
        swapco.wait([swapco.spawn(testing.schedule_point) for _ in range(3)])

    failures: list[Any] = []

    def search() -> None:
        for seed in range(20):
            result = testing.search(body, schedules=20, seed=seed, save=False)
            if result.failed:
                failures.append(result.exception)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_same_names_in_every_run() -> None:
    def body() -> str:
        return swapco.spawn(int).name

    assert {testing.run(body) for _ in range(3)} == {"Fiber-1"}


@pytest.mark.parametrize("switch", ["native", "greenlet"])
def test_both_kinds_of_stacks(switch: str) -> None:
    def body() -> None:
        box = [0]

        def add() -> None:
            value = box[0]
            testing.schedule_point()
            box[0] = value + 1

        swapco.wait([swapco.spawn(add) for _ in range(2)])
        assert box == [2]

    result = testing.search(body, switch=switch, save=False)
    assert result.failed
    assert result.preemptions == 1
    assert result.minimal


def test_what_a_run_leaves_behind_does_not_fail_the_next_one() -> None:
    """Two fibers fail, and one of the errors is never looked at: its fiber is collected in the run after."""

    def fail() -> None:
        cycle: list[Any] = [swapco.current_fiber()]
        cycle.append(cycle)
        raise KeyError

    def fails_twice() -> None:
        fibers = [swapco.spawn(fail) for _ in range(2)]
        swapco.wait(fibers)
        fibers[0].join()

    def collects() -> None:
        assert gc.collect() > 0

    def forgets_a_future() -> None:
        cycle: list[Any] = [asyncio.get_running_loop().create_future()]
        cycle[0].set_exception(KeyError())
        cycle.append(cycle)

    bodies = [fails_twice, collects, forgets_a_future, collects]
    program = Program(lambda: bodies.pop(0)())
    gc.disable()
    try:
        kinds = program.session(lambda: [program.run(Path()).kind for _ in range(4)])
    finally:
        gc.enable()
    assert kinds == ["failed", "passed", "passed", "passed"]
