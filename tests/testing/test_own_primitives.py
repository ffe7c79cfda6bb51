"""swapco's own primitives under swapco's own tool: every schedule within bounds, and many beyond.

Four tests for each scenario:

- every schedule at all in which fibers are preempted at schedule points only;
- every schedule within a bound on preemptions, if the entry into each operation is a point, too;
- the default strategy from two seeds, without a bound;
- the same scenario while a fiber is cancelled, or its time is over, at each of its points, and while two such things
  happen at once.

``SIZES`` says how many schedules that is.  Fewer than half of them means that moments were lost from which a choice
could come, more than twice as many that the tests have become slow: look why before you change the number.
"""

from __future__ import annotations

import own_groups
import own_laws
import own_locks
import own_queues
import own_threads
import own_times
import pytest
from own_laws import Make, body_of, disturbances, explore, prove

from swapco import testing

DISTURBED: dict[str, Make] = {}
PREEMPTED: dict[str, Make] = {}
EVERY: dict[str, Make] = {}
for module in (own_locks, own_queues, own_groups, own_times, own_threads):
    DISTURBED |= module.SCENARIOS
    PREEMPTED |= module.SCENARIOS | module.UNDISTURBED
    EVERY |= module.SCENARIOS | module.UNDISTURBED | getattr(module, "IN_ORDER", {})


class Size:
    """How many schedules a scenario has."""

    def __init__(
        self,
        points: int,
        bound: int | None = None,
        operations: int = 0,
        disturbed_bound: int = 0,
        disturbed: int = 0,
    ) -> None:
        self.points = points
        """At schedule points only."""
        self.bound = bound
        """The bound on preemptions where each operation is a point; None: there is no need for one."""
        self.operations = operations
        self.disturbed_bound = disturbed_bound
        self.disturbed = disturbed
        """Under all disturbances that are proved."""


SIZES = {
    # own_locks.py
    "lock": Size(36, 3, 1836, 1, 3498),
    "lock_with_timeouts": Size(616, 1, 1896, 1, 8366),
    "rlock": Size(5, None, 240, 1, 418),
    "semaphore": Size(90, 3, 1800, 1, 3012),
    "bounded_semaphore": Size(90, 3, 1800, 1, 3012),
    "semaphore_handed_over": Size(66, 3, 1732, 1, 4342),
    "event": Size(22, None, 1278, 1, 3700),
    "condition": Size(38, 2, 1298, 1, 8764),
    "condition_of_rlock": Size(38, 2, 1298, 1, 8764),
    "condition_of_an_rlock_taken_twice": Size(22, 2, 926, 1, 6098),
    "condition_notified_too_late": Size(498, 0, 498, 1, 13658),
    "condition_with_one_item": Size(8, 2, 736, 1, 5148),
    "barrier": Size(12, None, 1584, 1, 6244),
    "barrier_aborted": Size(24, None, 1266, 1, 3234),
    "bounded_semaphore_given_too_often": Size(6, None, 60, 1, 325),
    "parking_lot": Size(104, None, 728, 1, 6976),
    "tokens": Size(8, None, 118, 1, 3131),
    "event_that_is_cleared": Size(52, 2, 1200),
    "barrier_generations": Size(18, None, 2340),
    "barrier_reset": Size(24, None, 1848),
    "handoffs": Size(2, None, 58),
    "first_come": Size(780),
    "first_come_rlock": Size(780),
    "first_come_semaphore": Size(780),
    "first_notified": Size(8160),
    # own_queues.py
    "exchange": Size(76, 1, 1180, 0, 4404),
    "exchange_priority": Size(76, 1, 1180, 0, 4404),
    "exchange_lifo": Size(76, 1, 1180, 0, 4404),
    "handover": Size(66, 3, 1732, 1, 4342),
    "same_instant": Size(642, 0, 642, 1, 18180),
    "putters_of_a_full_queue": Size(1602, 0, 672, 1, 13826),
    "shutdown": Size(27, 3, 2482, 1, 4464),
    "shutdown_immediate": Size(27, 3, 2405, 1, 4436),
    "putters_shut_out": Size(52, 3, 2460, 1, 4652),
    "join_with_a_limit": Size(672, 0, 672, 1, 13702),
    "patience": Size(22, 3, 1462, 1, 4112),
    "never_over_full": Size(54, 1, 666),
    "smallest_first": Size(8, 3, 2379),
    "work": Size(2, None, 2476),
    "work_of_two": Size(76, 1, 512),
    "getters_first_come": Size(3060),
    # own_groups.py
    "group": Size(11, None, 136, 1, 1924),
    "failing_group": Size(478, 1, 2706, 0, 7422),
    "group_that_grows": Size(8, None, 110, 1, 4994),
    "group_in_a_group": Size(6, None, 129, 1, 2724),
    "join_of_two": Size(8, None, 1272, 1, 4740),
    "gathered": Size(6, None, 572, 1, 2131),
    "gathered_failure": Size(10, None, 803, 1, 2447),
    "gathered_exceptions": Size(3, None, 237, 1, 2057),
    "gathered_and_cancelled": Size(6, None, 572, 1, 2691),
    "waited": Size(1010, 1, 1647, 0, 2359),
    "waited_for_a_failure": Size(10, None, 803, 1, 4361),
    "completed": Size(14, 3, 2322, 1, 5717),
    "completed_for_two": Size(56, 0, 56, 0, 1808),
    "completed_in_time": Size(11, None, 165, 1, 115),
    "shielded": Size(9, None, 1947, 1, 1682),
    # own_times.py
    "limited_wait": Size(12, None, 288, 1, 131),
    "nested_limits": Size(15, None, 60, 1, 43),
    "limit_and_wakeup": Size(16, None, 160, 1, 150),
    "limit_that_is_moved": Size(12, None, 72, 1, 140),
    "timers_of_one_instant": Size(1740, 0, 1740, 1, 15012),
    "blocked_with_a_limit": Size(14, None, 132, 1, 140),
    # own_threads.py
    "threads": Size(20, None, 906, 1, 6598),
    "thread_fibers_disturbed": Size(20, 1, 358, 0, 2054),
    "coroutine_locks": Size(2, None, 640, 1, 872),
    "locals_of_fibers": Size(164, 2, 1925, 0, 2050),
    "futures": Size(18, 2, 1724, 0, 800),
    "thread_fibers": Size(24, 1, 537),
    "coroutines": Size(48, 1, 548),
    "coroutine_queue": Size(2, None, 1037),
}


def expect(schedules: int, size: int) -> None:
    assert size / 2 <= schedules <= size * 2, f"{schedules} schedules, where there were {size}"


def test_every_scenario_has_its_size() -> None:
    assert set(SIZES) == set(EVERY)
    assert len(EVERY) == sum(
        len(group)
        for module in (own_locks, own_queues, own_groups, own_times, own_threads)
        for group in (module.SCENARIOS, module.UNDISTURBED, getattr(module, "IN_ORDER", {}))
    ), "two scenarios have the same name"


@pytest.mark.parametrize("name", EVERY)
def test_every_schedule_of_points(name: str) -> None:
    result = prove(body_of(EVERY[name]), bound=None, preempt="points")
    expect(result.schedules, SIZES[name].points)


@pytest.mark.parametrize("name", PREEMPTED)
def test_every_schedule_of_operations(name: str) -> None:
    size = SIZES[name]
    result = prove(body_of(PREEMPTED[name]), bound=size.bound, preempt="primitives")
    expect(result.schedules, size.operations)


@pytest.mark.parametrize("name", PREEMPTED)
def test_many_schedules_of_operations(name: str) -> None:
    explore(body_of(PREEMPTED[name]))


@pytest.mark.parametrize("name", DISTURBED)
def test_disturbed_at_every_point(name: str) -> None:
    make, size = DISTURBED[name], SIZES[name]
    single, double = disturbances(make)
    schedules = 0
    for disturb in single:
        schedules += prove(body_of(make, disturb), bound=size.disturbed_bound).schedules
    for disturb in double:
        if size.disturbed_bound:
            schedules += prove(body_of(make, disturb), bound=0).schedules
        else:
            explore(body_of(make, disturb), schedules=100)
    expect(schedules, size.disturbed)


def test_a_law_that_is_broken_is_noticed() -> None:
    """What the tests above rest on: a failing law comes out, with the schedule that shows it."""

    def broken() -> own_laws.Scenario:
        scenario = own_locks.lock(2)
        order: list[int] = []

        def visitor(me: int) -> None:
            scenario.fibers[me]()
            order.append(me)

        def law(ends: list[object]) -> None:
            assert order == [0, 1], "in this order only"

        return own_laws.Scenario([lambda: visitor(0), lambda: visitor(1)], law)

    for test in (prove, explore):
        with pytest.raises(AssertionError, match="in this order only") as caught:
            test(body_of(broken))
        assert "schedule '" in "".join(caught.value.__notes__)
    single, double = disturbances(broken)
    with pytest.raises(AssertionError, match="in this order only"):
        prove(body_of(broken, single[0]), bound=0)
    assert len(single) == 4
    assert len(double) == 3


def test_a_scenario_without_an_end_is_noticed() -> None:
    def stuck() -> own_laws.Scenario:
        return own_laws.Scenario([own_locks.ParkingLot().park, lambda: None], lambda ends: None)

    with pytest.raises(testing.LostWakeup):
        prove(body_of(stuck))
