"""Small tools for tests: an order by hand, waiting until everybody waits, what gives the slot away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import swapco
from swapco import testing
from swapco.testing import Sequencer, VirtualClock, assert_switches, no_switch, wait_all_blocked

Runner = Callable[[Callable[[], Any]], Any]


def in_production(body: Callable[[], Any]) -> Any:
    return swapco.run(body, loop_factory=lambda: swapco.new_event_loop(clock=VirtualClock()))


#: The tools work under a scheduler that is controlled and under one that is not.
both = pytest.mark.parametrize("run", [testing.run, in_production], ids=["controlled", "production"])


def in_every_order(body: Callable[[], None]) -> testing.Result:
    """As far as two preemptions go; raises what fails."""
    result = testing.verify(body, save=False)
    result.check()
    assert result.exhausted
    return result


# ----------------------------------------------------------------------------------------------- Sequencer


@both
def test_blocks_run_in_the_order_of_their_numbers(run: Runner) -> None:
    def body() -> list[int]:
        sequencer, order = Sequencer(), list[int]()

        def part(position: int) -> None:
            with sequencer(position):
                order.append(position)
                swapco.sleep(0)
                order.append(position)

        swapco.wait([swapco.spawn(part, position) for position in (3, 1, 0, 2)])
        return order

    assert run(body) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_no_schedule_changes_the_order() -> None:
    def body() -> None:
        sequencer, order = Sequencer(), list[int]()

        def part(position: int) -> None:
            testing.schedule_point()
            with sequencer(position):
                testing.schedule_point()
                order.append(position)

        swapco.wait([swapco.spawn(part, position) for position in (2, 1, 0)])
        assert order == [0, 1, 2]

    assert in_every_order(body).schedules > 10


@both
def test_a_block_that_raises_lets_the_next_one_begin(run: Runner) -> None:
    def body() -> list[str]:
        sequencer, order = Sequencer(), list[str]()

        def failing() -> None:
            with pytest.raises(LookupError), sequencer(0):
                order.append("fails")
                raise LookupError

        def next_one() -> None:
            with sequencer(1):
                order.append("runs")

        swapco.wait([swapco.spawn(next_one), swapco.spawn(failing)])
        return order

    assert run(body) == ["fails", "runs"]


@both
def test_one_fiber_may_have_several_positions(run: Runner) -> None:
    def body() -> str:
        sequencer, order = Sequencer(), list[str]()

        def part(name: str, *positions: int) -> None:
            for position in positions:
                with sequencer(position):
                    order.append(name)

        swapco.wait([swapco.spawn(part, "b", 1, 3), swapco.spawn(part, "a", 0, 2)])
        return "".join(order)

    assert run(body) == "abab"


@both
def test_a_position_that_never_comes_lets_the_next_ones_wait(run: Runner) -> None:
    def body() -> str:
        sequencer = Sequencer()

        def part() -> None:
            with sequencer(1):
                pass

        fiber = swapco.spawn(part)
        wait_all_blocked()
        state = fiber.state
        with sequencer(0):
            pass
        fiber.join()
        return state

    assert run(body) == "BLOCKED"


@both
def test_a_position_is_used_once(run: Runner) -> None:
    def body() -> None:
        sequencer, order = Sequencer(), list[int]()
        with sequencer(0):
            with pytest.raises(RuntimeError, match="position 0 of the Sequencer was used already.*used once"):
                with sequencer(0):
                    pytest.fail("the block ran")
            later = swapco.spawn(enter, sequencer, 1, order)
            wait_all_blocked()
            assert order == []  # what was refused has let nobody begin
        later.join()
        assert order == [1]

    run(body)


@pytest.mark.parametrize(
    ("position", "error"),
    [
        ("a", TypeError), (1.0, TypeError), (None, TypeError), (True, TypeError),
        (-1, ValueError), (-(10**30), ValueError),
    ],
)  # fmt: skip
def test_what_is_no_position_is_refused_at_once(position: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"a whole number from 0 on, not {position!r}"):
        Sequencer()(position)


def enter(sequencer: Sequencer, position: int, order: list[int]) -> None:
    with sequencer(position):
        order.append(position)


@both
@pytest.mark.parametrize("given_up", [[1], [2], [1, 2], [2, 1], [1, 3], [3, 2, 1]])
def test_turns_that_are_given_up_are_passed_over_when_they_would_have_come(run: Runner, given_up: list[int]) -> None:
    """Whatever is given up, nobody overtakes one who is still to come."""

    def body() -> list[int]:
        sequencer, order = Sequencer(), list[int]()
        fibers = {position: swapco.spawn(enter, sequencer, position, order) for position in (4, 3, 2, 1)}
        wait_all_blocked()
        for position in given_up:
            fibers[position].cancel()
            wait_all_blocked()
            assert fibers[position].cancelled()
        assert order == []
        enter(sequencer, 0, order)
        swapco.wait(list(fibers.values()))
        return order

    assert run(body) == [position for position in range(5) if position not in given_up]


@both
def test_a_turn_that_was_given_up_is_no_free_one(run: Runner) -> None:
    def body() -> None:
        sequencer = Sequencer()
        with pytest.raises(TimeoutError), swapco.timeout(1), sequencer(1):
            pytest.fail("the block ran")
        with pytest.raises(RuntimeError, match="position 1 of the Sequencer was used already"), sequencer(1):
            pytest.fail("the block ran")

    run(body)


@both
def test_a_number_that_is_never_used_holds_up_those_behind_it(run: Runner) -> None:
    """Also if one in between was given up."""

    def body() -> list[int]:
        sequencer, order = Sequencer(), list[int]()
        enter(sequencer, 0, order)
        given_up, last = swapco.spawn(enter, sequencer, 2, order), swapco.spawn(enter, sequencer, 3, order)
        wait_all_blocked()
        given_up.cancel()
        wait_all_blocked()
        order.append(-1)
        enter(sequencer, 1, order)
        last.join()
        return order

    assert run(body) == [0, -1, 1, 3]


def test_no_schedule_of_a_cancellation_changes_the_order() -> None:
    """The one in the middle is cancelled before it waits, while it waits, when its turn has come, inside, or after."""
    seen = set[tuple[int, ...]]()

    def body() -> None:
        sequencer, order, begun = Sequencer(), list[int](), swapco.Event()

        def part(position: int) -> None:
            if position == 1:
                begun.set()
            with sequencer(position):
                swapco.sleep(0)
                order.append(position)

        fibers = [swapco.spawn(part, position) for position in range(3)]
        begun.wait()
        testing.schedule_point()
        fibers[1].cancel()
        swapco.wait(fibers)
        seen.add(tuple(order))

    in_every_order(body)
    assert seen == {(0, 2), (0, 1, 2)}


# ---------------------------------------------------------------------------------------- wait_all_blocked


@both
def test_after_it_everybody_else_waits(run: Runner) -> None:
    def body() -> list[str]:
        event, log = swapco.Event(), list[str]()

        def work(turns: int) -> None:
            for _ in range(turns):
                swapco.sleep(0)
            log.append("waits")
            event.wait()
            log.append("goes on")

        fibers = [swapco.spawn(work, turns) for turns in (0, 1, 30)]
        wait_all_blocked()
        assert [fiber.state for fiber in fibers] == ["BLOCKED"] * 3
        log.append("all")
        event.set()
        swapco.wait(fibers)
        return log

    assert run(body) == ["waits"] * 3 + ["all"] + ["goes on"] * 3


def test_it_holds_in_every_schedule() -> None:
    def body() -> None:
        lock = swapco.Lock()

        def work() -> None:
            testing.schedule_point()
            with lock:
                pass

        with lock:
            fibers = [swapco.spawn(work) for _ in range(2)]
            wait_all_blocked()
            assert lock.statistics().waiting == 2
        swapco.wait(fibers)

    in_every_order(body)


@both
def test_a_fiber_that_sleeps_waits_and_one_that_has_ended_does_not_matter(run: Runner) -> None:
    def body() -> list[str]:
        fibers = [swapco.spawn(swapco.sleep, 5), swapco.spawn(int)]
        wait_all_blocked()
        states = [fiber.state for fiber in fibers]
        swapco.wait(fibers)
        return states

    assert run(body) == ["BLOCKED", "DONE"]


@both
def test_a_fiber_that_never_waits_is_named(run: Runner) -> None:
    def body() -> None:
        over: list[bool] = []

        def busy() -> None:
            while not over:
                swapco.sleep(0)

        fiber = swapco.spawn(busy, name="the busy one")
        with pytest.raises(RuntimeError, match="after 7 turns there are still fibers that can run.*the busy one"):
            wait_all_blocked(rounds=7)
        over.append(True)
        fiber.join()

    run(body)


# -------------------------------------------------------------------------------- assert_switches, no_switch


def give_away_by_sleep() -> None:
    swapco.sleep(0)


def give_away_by_waiting() -> None:
    event = swapco.Event()
    swapco.spawn(event.set)
    event.wait()


def give_away_by_handing_over() -> None:
    me = swapco.current_fiber()
    swapco.switch_to(swapco.spawn(lambda: swapco.switch_to(me)))


def give_away_by_joining() -> None:
    swapco.spawn(int).join()


def keep_by_doing_nothing() -> None:
    pass


def keep_by_finding_it_free() -> None:
    with swapco.Lock():
        pass


def keep_by_waking() -> None:
    event = swapco.Event()
    event.set()
    event.wait()


GIVES = [give_away_by_sleep, give_away_by_waiting, give_away_by_handing_over, give_away_by_joining]
KEEPS = [keep_by_doing_nothing, keep_by_finding_it_free, keep_by_waking]


@both
@pytest.mark.parametrize("block", GIVES)
def test_what_gives_the_slot_away(run: Runner, block: Callable[[], None]) -> None:
    def body() -> None:
        swapco.spawn(swapco.sleep, 1)  # somebody else is there
        with assert_switches():
            block()
        with pytest.raises(AssertionError, match=r"gave the slot away in a block of no_switch\(\)"), no_switch():
            block()

    run(body)


@both
@pytest.mark.parametrize("block", KEEPS)
def test_what_keeps_the_slot(run: Runner, block: Callable[[], None]) -> None:
    def body() -> None:
        swapco.spawn(swapco.sleep, 1)
        with no_switch():
            block()
        with pytest.raises(AssertionError, match=r"nothing in the block of assert_switches\(\)"), assert_switches():
            block()

    run(body)


@both
@pytest.mark.parametrize("tool", [assert_switches, no_switch])
def test_the_error_of_the_block_is_not_hidden(run: Runner, tool: Callable[[], Any]) -> None:
    def body() -> None:
        for block in (give_away_by_sleep, keep_by_doing_nothing):
            with pytest.raises(LookupError, match="of the block"), tool():
                block()
                raise LookupError("of the block")

    run(body)


@both
def test_blocks_of_no_switch_may_be_nested(run: Runner) -> None:
    def body() -> None:
        with no_switch():
            with no_switch():
                pass
        swapco.sleep(0)

    run(body)


def test_points_are_back_after_a_block_of_no_switch() -> None:
    """Also after one that raised, and one inside another."""

    def body() -> None:
        log: list[int] = []

        def work(i: int) -> None:
            with pytest.raises(LookupError), no_switch(), no_switch():
                raise LookupError
            log.append(i)
            testing.schedule_point()
            log.append(i)

        swapco.wait([swapco.spawn(work, i) for i in range(2)])
        assert log in ([0, 0, 1, 1], [1, 1, 0, 0])

    result = testing.verify(body, save=False)
    assert isinstance(result.exception, AssertionError)


def test_outside_of_fibers_they_say_so() -> None:
    for tool in (wait_all_blocked, assert_switches().__enter__, no_switch().__enter__):
        with pytest.raises(RuntimeError, match="fiber"):
            tool()
