"""Policies against models, a policy written in Python, and one that raises."""

from __future__ import annotations

import gc
import math
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest
from helpers import in_fiber
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import swapco
from swapco._core.policy import Runnable
from swapco.lowlevel import Deadline, Fifo, Lifo, Policy, Priority

pytestmark = pytest.mark.usefixtures("fibers")


def runnable(priority: Any = 0, deadline: float | None = None) -> Runnable:
    made = Runnable()
    made.priority = priority
    made.deadline = deadline
    return made


# ------------------------------------------------------------------------------------------------- models


class PolicyMachine(RuleBasedStateMachine):
    """A policy against a list that is searched."""

    @initialize(kind=st.sampled_from((Fifo, Lifo, Priority, Deadline)))
    def begin(self, kind: type[Policy]) -> None:
        self.kind = kind
        self.policy = kind()
        self.model: list[tuple[Any, int, Runnable]] = []
        self.out: list[Runnable] = []
        self.pushed = 0

    def key(self, item: Runnable) -> Any:
        if self.kind is Priority:
            return item.priority
        if self.kind is Deadline:
            return math.inf if item.deadline is None else item.deadline
        return 0

    @rule(priority=st.integers(-3, 3), deadline=st.none() | st.floats(0, 10))
    def push_new(self, priority: int, deadline: float | None) -> None:
        self.push(runnable(priority, deadline))

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def push_again(self, data: st.DataObject) -> None:
        self.push(self.out.pop(data.draw(st.integers(0, len(self.out) - 1))))

    def push(self, item: Runnable) -> None:
        self.policy.push(item)
        self.pushed += 1
        self.model.append((self.key(item), self.pushed, item))

    @rule()
    def pop(self) -> None:
        popped = self.policy.pop()
        if not self.model:
            assert popped is None
            return
        if self.kind is Lifo:
            expected = self.model[-1]
        else:
            expected = min(self.model, key=lambda entry: entry[:2])
        assert popped is expected[2]
        self.model.remove(expected)
        self.out.append(popped)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = self.model.pop(data.draw(st.integers(0, len(self.model) - 1)))
        self.policy.remove(entry[2])
        self.out.append(entry[2])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def push_twice(self, data: st.DataObject) -> None:
        with pytest.raises(ValueError, match="already"):
            self.policy.push(data.draw(st.sampled_from(self.model))[2])

    @rule()
    def remove_a_stranger(self) -> None:
        with pytest.raises(ValueError, match="not in this queue"):
            self.policy.remove(runnable())

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def remove_what_is_out(self, data: st.DataObject) -> None:
        with pytest.raises(ValueError, match="not in this queue"):
            self.policy.remove(data.draw(st.sampled_from(self.out)))

    @rule(priority=st.integers(-3, 3))
    def change_what_is_queued(self, priority: int) -> None:
        """The key is read when the fiber is pushed."""
        for _, _, item in self.model:
            item.priority = priority

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "policy"):
            assert len(self.policy) == len(self.model)


TestPolicies = PolicyMachine.TestCase
TestPolicies.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


@pytest.mark.parametrize("kind", [Fifo, Lifo, Priority, Deadline])
def test_a_queue_holds_its_fibers_and_lets_go_of_them(kind: type[Policy]) -> None:
    """Also when it goes away while it is full."""

    class Weak(Runnable):
        pass

    policy = kind()
    items = [Weak() for _ in range(100)]
    references = [weakref.ref(item) for item in items]
    for item in items:
        policy.push(item)
    kept = items[50]
    del items, item
    gc.collect()
    assert all(reference() is not None for reference in references)
    policy.remove(kept)
    while policy.pop() is not None:
        if len(policy) == 40:
            break
    del policy
    gc.collect()
    assert [reference() for reference in references if reference() is not None] == [kept]
    # it was not in the queue any more: another one may take it
    Fifo().push(kept)


@pytest.mark.parametrize("kind", [Fifo, Lifo, Priority, Deadline])
def test_a_queue_takes_runnables_only(kind: type[Policy]) -> None:
    """Bad input: TypeError, and the queue is as before."""
    policy = kind()
    for wrong in (None, 1, "fiber", object()):
        with pytest.raises(TypeError):
            policy.push(wrong)
        with pytest.raises(TypeError):
            policy.remove(wrong)
    assert len(policy) == 0
    assert policy.pop() is None


def test_an_interface_says_what_is_missing() -> None:
    """``Policy`` itself cannot be used."""

    class Empty(Policy):
        pass

    policy: Any = Empty()
    for call in (lambda: policy.push(runnable()), policy.pop, lambda: policy.remove(runnable()), lambda: len(policy)):
        with pytest.raises(TypeError, match="Empty must define"):
            call()


# ----------------------------------------------------------------------------------------- in the scheduler


def order_of(policy: Policy, fibers: Iterable[dict[str, Any]]) -> list[int]:
    """The order in which fibers run that are runnable at the same time."""
    ran: list[int] = []

    def main() -> None:
        for fiber in [swapco.spawn(ran.append, number, **how) for number, how in enumerate(fibers)]:
            fiber.join()

    swapco.run(main, policy=policy)
    return ran


@given(st.lists(st.integers(-2, 2), max_size=10))
def test_priorities_decide_and_equals_take_turns(priorities: list[int]) -> None:
    """The smallest first."""
    ran = order_of(Priority(), [{"priority": priority} for priority in priorities])
    assert ran == sorted(range(len(priorities)), key=lambda number: (priorities[number], number))


@given(st.lists(st.none() | st.floats(0, 100), max_size=10))
def test_the_earliest_deadline_runs_first(deadlines: list[float | None]) -> None:
    """Those without one run last."""
    ran = order_of(Deadline(), [{"deadline": deadline} for deadline in deadlines])
    keys = [math.inf if deadline is None else deadline for deadline in deadlines]
    assert ran == sorted(range(len(deadlines)), key=lambda number: (keys[number], number))


@given(st.integers(0, 10))
def test_fifo_and_lifo(count: int) -> None:
    """In the order of becoming runnable, and in the opposite one."""
    assert order_of(Fifo(), [{}] * count) == list(range(count))
    assert order_of(Lifo(), [{}] * count) == list(reversed(range(count)))


@pytest.mark.parametrize("policy", [Lifo(), Priority(), Deadline()])
def test_a_handoff_takes_its_target_out_of_turn(policy: Policy) -> None:
    """``switch_to`` a fiber that is ready or new, under any policy: ``remove``."""

    def main() -> None:
        ran: list[object] = []
        me = swapco.current_fiber()
        fibers = [swapco.spawn(ran.append, number) for number in range(5)]
        swapco.spawn(swapco.resume, me)
        swapco.switch_to(fibers[2])
        assert ran[0] == 2
        swapco.wait(fibers)
        assert sorted(ran) == [0, 1, 2, 3, 4]  # type: ignore[type-var]

    swapco.run(main, policy=policy)


class Plain(Policy):
    """First in, first out, in Python; raises once where it is told to."""

    def __init__(self, fault: str = "") -> None:
        self.queue: deque[Any] = deque()
        self.fault = fault
        self.armed = False
        self.calls: dict[str, int] = {}

    def step(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        if self.armed and self.fault == name:
            self.armed = False
            raise LookupError(f"broken in {name}")

    def push(self, fiber: Any) -> None:
        self.step("push")
        self.queue.append(fiber)

    def pop(self) -> Any:
        self.step("pop")
        if self.armed and self.fault == "garbage":
            self.armed = False
            return 42
        return self.queue.popleft() if self.queue else None

    def remove(self, fiber: Any) -> None:
        self.step("remove")
        self.queue.remove(fiber)

    def __len__(self) -> int:
        self.step("len")
        return len(self.queue)


def test_a_policy_in_python_decides() -> None:
    """All four methods are called; the program runs as under Fifo."""
    policy = Plain()
    ran: list[object] = []

    def body(number: int) -> None:
        for step in range(3):
            ran.append((number, step))
            swapco.sleep(0)

    def main() -> None:
        me = swapco.current_fiber()
        fibers = [swapco.spawn(body, number) for number in range(3)]
        swapco.wait(fibers)
        swapco.switch_to(swapco.spawn(swapco.resume, me))
        swapco.sleep(0.001)

    swapco.run(main, policy=policy)
    assert ran == [(number, step) for step in range(3) for number in range(3)]
    assert set(policy.calls) == {"push", "pop", "remove", "len"}
    assert not policy.queue


@pytest.mark.parametrize("fault", ["push", "pop", "len", "garbage"])
def test_a_policy_that_raises_stops_the_loop_and_loses_no_fiber(fault: str) -> None:
    """Its error comes out of ``run``; every fiber still gets its cancellation and ends."""
    policy = Plain(fault)
    ended: list[int] = []
    began: list[int] = []

    def body(number: int) -> None:
        began.append(number)
        try:
            while True:
                swapco.sleep(0.001)
        finally:
            ended.append(number)

    def main() -> None:
        for number in range(5):
            swapco.spawn(body, number)
        swapco.sleep(0)
        policy.armed = True
        swapco.block()

    error = RuntimeError if fault == "garbage" else LookupError
    with pytest.raises(error, match="broken in" if error is LookupError else "not a queued fiber"):
        swapco.run(main, policy=policy)
    assert sorted(ended) == sorted(began) == list(range(5))
    assert not policy.queue


def test_an_error_of_remove_is_the_callers() -> None:
    """There is a fiber to raise it in: that which called switch_to."""
    policy = Plain("remove")

    def main() -> None:
        target = swapco.spawn(int)
        policy.armed = True
        with pytest.raises(LookupError, match="broken in remove"):
            swapco.switch_to(target)
        target.join()

    swapco.run(main, policy=policy)


def test_a_policy_of_the_wrong_kind_is_refused() -> None:
    """Bad input: an error that says what was expected."""
    for wrong in (object(), Fifo, "fifo", []):
        with pytest.raises(TypeError, match="Policy"):
            swapco.run(int, policy=wrong)


@pytest.mark.parametrize("kind", [Priority, Deadline])
def test_what_cannot_be_ordered_is_refused_at_spawn(kind: type[Policy]) -> None:
    """NaN and things that do not compare: an error in the spawner, and the loop goes on."""

    def main() -> str:
        swapco.spawn(int)
        for wrong in (math.nan, "text", object()):
            with pytest.raises((TypeError, ValueError)):
                swapco.spawn(int, priority=wrong, deadline=wrong)
        swapco.sleep(0)
        return "went on"

    assert swapco.run(main, policy=kind()) == "went on"


@in_fiber
def test_priority_and_deadline_are_attributes_of_a_fiber() -> None:
    """Under Fifo they mean nothing."""
    fiber = swapco.spawn(int, priority=3, deadline=7.5)
    assert (fiber.priority, fiber.deadline) == (3, 7.5)
    fiber.join()
