"""Laws 1, 3, 4, 6, 7 and 8, and the rules of cancellation, at once: the scheduler does what the model of them says.

Whatever a random program does with the three verbs, sleeps, a parking lot, joins, cancellations and timeouts, the real
scheduler runs the same fibers in the same order, with the same values and exceptions, as reference.py predicts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import assume, example, given, note
from programs import FiberPlan, Foreigner, Op, Plan, execute, law, plans
from reference import BudgetSpent, predict

from swapco.lowlevel import Priority

pytestmark = pytest.mark.usefixtures("fibers")


@pytest.fixture(scope="module")
def foreigner() -> Iterator[Foreigner]:
    with Foreigner() as thread:
        yield thread


def check(plan: Plan, foreigner: Foreigner | None = None, by_priority: bool = False) -> None:
    note(str(plan))
    try:
        expected = predict(plan, by_priority=by_priority)
    except BudgetSpent:
        assume(False)
    assert execute(plan, foreigner=foreigner, policy=Priority() if by_priority else None) == expected


def fiber(*ops: Op, stubborn: bool = True) -> FiberPlan:
    return FiberPlan(ops, stubborn)


@given(plans())
@law(300)
def test_order_values_and_exceptions_are_those_of_the_model(plan: Plan) -> None:
    """Laws 1, 3, 4, 6, 7, 8: token, handoff, one winner, FIFO, values, privacy."""
    check(plan)


@given(plans(max_fibers=3, max_steps=60))
@law(150)
def test_few_fibers_and_long_programs(plan: Plan) -> None:
    """The same, with more history between the same fibers."""
    check(plan)


@given(plans(max_fibers=12, max_steps=60))
@law(100)
def test_many_fibers_and_short_programs(plan: Plan) -> None:
    """The same, with a longer run queue."""
    check(plan)


# three fibers woken from outside, in this order, while the owner goes on
@example(
    Plan(
        (
            fiber(Op("block")),
            fiber(Op("block")),
            fiber(Op("block")),
            fiber(
                Op("resume", 0, foreign=True), Op("resume", 1, foreign=True), Op("resume", 2, foreign=True), Op("yield")
            ),
        ),
        4,
    )
)
@given(plans(foreign=True))
@law(300)
def test_from_another_thread_too(foreigner: Foreigner, plan: Plan) -> None:
    """Resumes and cancellations from another kernel thread: the same laws, the same order."""
    check(plan, foreigner)


@given(plans(priorities=True))
@law(100)
def test_under_a_policy_only_the_order_of_the_run_queue_differs(plan: Plan) -> None:
    """Priority instead of Fifo: tokens, waits, values and handoffs are the same."""
    check(plan, by_priority=True)
