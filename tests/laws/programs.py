"""Random programs of fibers, and how to run one on the real scheduler.

A program is data: a few fibers, each a list of operations on the others.  ``execute`` runs it with real fibers;
reference.py predicts, from the laws alone, what they do.  Both give the same kind of trace, a list of

    (fiber, step, operation)    the fiber is about to begin this step
    (fiber, step, outcome)      it has ended

so that equal traces mean: the same fibers ran, in the same order, and got the same values and exceptions.

Time stands still until nothing can run; then it moves to the next deadline, and when there is none, every fiber that
is left is cancelled (again and again, for a stubborn one goes on).  So every program ends.

Operations marked ``foreign`` are done by another kernel thread, while the fiber that asks for it keeps the slot until
they are done: the interleaving is the program's, not the machine's.

``SWAPCO_LAWS=thorough`` in the environment makes every property test that uses ``law`` 25 times longer.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import swapco
from swapco._core.clock import ManualClock
from swapco._core.parking_lot import ParkingLot
from swapco.lowlevel import Slot

__all__ = ["FiberPlan", "Foreigner", "Op", "Plan", "Trace", "execute", "law", "plans"]

THOROUGH = os.environ.get("SWAPCO_LAWS") == "thorough"

Trace = list[tuple[Any, ...]]


def law(examples: int) -> settings:
    """The settings of a property test that tries so many examples, or 25 times as many."""
    return settings(
        max_examples=examples * (25 if THOROUGH else 1),
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@dataclass(frozen=True)
class Op:
    """One step of a fiber: an operation, the fiber that it is about, a timeout in ticks."""

    name: str
    target: int = 0
    ticks: int | None = None
    foreign: bool = False

    def __repr__(self) -> str:
        words = [self.name]
        if self.name in WITH_TARGET:
            words.append(str(self.target))
        if self.ticks is not None:
            words.append(f"for {self.ticks}")
        if self.foreign:
            words.append("from outside")
        return f"<{' '.join(words)}>"


@dataclass(frozen=True)
class FiberPlan:
    """What one fiber does; a stubborn one goes on after a CancelledError."""

    ops: tuple[Op, ...]
    stubborn: bool
    priority: int = 0
    # it has a kernel thread of its own
    threaded: bool = False


@dataclass(frozen=True)
class Plan:
    """A program: all fibers, of which the first ``spawned`` exist from the start."""

    fibers: tuple[FiberPlan, ...]
    spawned: int

    def __str__(self) -> str:
        lines = [f"{self.spawned} of {len(self.fibers)} fibers are spawned at the start:"]
        for index, fiber in enumerate(self.fibers):
            kind = "stubborn" if fiber.stubborn else "gives in"
            where = ", thread" if fiber.threaded else ""
            lines.append(f"  {index} ({kind}, priority {fiber.priority}{where}): {' '.join(map(repr, fiber.ops))}")
        return "\n".join(lines)


WITH_TARGET = ("resume", "switch_to", "join", "cancel", "uncancel")


def plans(
    max_fibers: int = 5,
    max_steps: int = 40,
    *,
    foreign: bool = False,
    priorities: bool = False,
    threads: bool = False,
) -> st.SearchStrategy[Plan]:
    """Programs; with ``foreign`` some operations are done by another kernel thread; with ``threads`` some fibers are
    thread fibers."""
    return st.integers(2, max_fibers).flatmap(
        lambda n: st.builds(
            _deal,
            st.lists(
                st.tuples(
                    st.booleans(),
                    st.integers(-3, -1) if priorities else st.just(0),
                    st.booleans() if threads else st.just(False),
                ),
                min_size=n,
                max_size=n,
            ),
            st.lists(st.tuples(st.integers(0, n - 1), _ops(n, foreign)), min_size=max_steps // 2, max_size=max_steps),
            # mostly all: a fiber that is never spawned does nothing
            st.sampled_from((n, n, n, 1, max(1, n - 1))),
        )
    )


def _ops(fibers: int, foreign: bool) -> st.SearchStrategy[Op | None]:
    target = st.integers(0, fibers - 1)
    timeout = st.sampled_from((None, None, 1, 2, 3))
    instant = st.sampled_from((None, None, None, 1, 2, 0))
    outside = st.booleans() if foreign else st.just(False)
    return st.one_of(
        # what a step shrinks to
        st.none(),
        st.just(Op("yield")),
        st.builds(Op, st.just("block"), ticks=instant),
        st.builds(Op, st.just("block"), ticks=instant),
        st.builds(Op, st.just("resume"), target, foreign=outside),
        st.builds(Op, st.just("resume"), target, foreign=outside),
        st.builds(Op, st.just("switch_to"), target, ticks=instant),
        st.builds(Op, st.just("switch_to"), target, ticks=instant),
        st.builds(Op, st.just("sleep"), ticks=st.integers(1, 3)),
        st.builds(Op, st.just("park"), ticks=timeout),
        st.just(Op("unpark")),
        st.builds(Op, st.just("join"), target, ticks=timeout),
        st.builds(Op, st.just("cancel"), target, foreign=outside),
        st.builds(Op, st.just("uncancel"), target),
        st.just(Op("spawn")),
    )


def _deal(kinds: list[tuple[bool, int, bool]], steps: list[tuple[int, Op | None]], spawned: int) -> Plan:
    hands: list[list[Op]] = [[] for _ in kinds]
    for fiber, op in steps:
        if op is not None:
            hands[fiber].append(op)
    return Plan(
        tuple(
            FiberPlan(tuple(hand), not gives_in, priority, threaded)
            for hand, (gives_in, priority, threaded) in zip(hands, kinds, strict=True)
        ),
        spawned,
    )


class Foreigner:
    """Another kernel thread, which does what it is told while the caller holds the slot."""

    def __init__(self) -> None:
        self.requests: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self.answers: SimpleQueue[Any] = SimpleQueue()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while (request := self.requests.get()) is not None:
            try:
                self.answers.put(request())
            except BaseException as error:
                self.answers.put(error)

    def do(self, call: Callable[[], Any]) -> Any:
        """The other thread calls this; blocks this thread (not only the fiber) until it is done."""
        self.requests.put(call)
        answer = self.answers.get(timeout=60)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def __enter__(self) -> Foreigner:
        self.thread.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        self.requests.put(None)
        self.thread.join(60)
        assert not self.thread.is_alive()


class _Execution:
    """A program on the real scheduler."""

    def __init__(self, plan: Plan, clock: ManualClock, foreigner: Foreigner | None) -> None:
        self.plan = plan
        self.clock = clock
        self.foreigner = foreigner
        self.trace: Trace = []
        self.fibers: list[swapco.Fiber] = []
        self.lot = ParkingLot()
        self.deadlines: dict[int, float] = {}

    # -- the fibers

    def spawn(self) -> bool:
        index = len(self.fibers)
        if index == len(self.plan.fibers):
            return False
        plan = self.plan.fibers[index]
        self.fibers.append(
            swapco.spawn(self.body, index, name=str(index), priority=plan.priority, thread=plan.threaded)
        )
        return True

    def body(self, me: int) -> int:
        for step, op in enumerate(self.plan.fibers[me].ops):
            self.trace.append((me, step, op.name))
            if op.ticks:
                self.deadlines[me] = self.clock.time() + op.ticks
            try:
                outcome = self.perform(op, (me, step))
            except asyncio.CancelledError as error:
                outcome = ("cancelled", *error.args)
                if not self.plan.fibers[me].stubborn:
                    self.trace.append((me, step, outcome))
                    raise
            except TimeoutError:
                outcome = "timed out"
            except asyncio.InvalidStateError:
                outcome = "invalid"
            except RuntimeError as error:
                assert "cannot join itself" in str(error)
                outcome = "refused"
            finally:
                self.deadlines.pop(me, None)
            self.trace.append((me, step, outcome))
        return me

    def perform(self, op: Op, value: Any) -> Any:
        ticks = op.ticks
        if op.name == "block":
            return ("got", swapco.block(ticks))
        if op.name == "yield":
            return swapco.sleep(0)
        if op.name == "sleep":
            return swapco.sleep(ticks)
        if op.name == "spawn":
            return self.spawn()
        if op.name == "park":
            return ("got", self.lot.park(ticks))
        if op.name == "unpark":
            return self.lot.unpark(value)
        if op.target >= len(self.fibers):
            return "absent"
        target = self.fibers[op.target]
        if op.name == "switch_to":
            return ("got", swapco.switch_to(target, value, ticks))
        if op.name == "join":
            return ("joined", target.join(ticks))
        if op.name == "uncancel":
            return target.uncancel()
        do = self.foreigner.do if op.foreign and self.foreigner is not None else _here
        if op.name == "resume":
            return do(lambda: swapco.resume(target, value))
        assert op.name == "cancel"
        return do(lambda: target.cancel(value))

    # -- the driver, which is the main fiber

    def drive(self) -> None:
        for _ in range(self.plan.spawned):
            self.spawn()
        idle = 0
        while True:
            self.settle()
            assert not self.busy()
            live = [fiber for fiber in self.fibers if not fiber.done()]
            if not live:
                return
            idle += 1
            assert idle < 1000, f"time goes by, and nothing happens: {live}"
            if self.deadlines:
                self.clock.advance(min(self.deadlines.values()) - self.clock.time())
                # timers fire at the beginning of a drain: make the loop turn
                asyncio.get_running_loop().call_soon(int)
                swapco.sleep(0)
            else:
                for fiber in live:
                    fiber.cancel("driver")

    def busy(self) -> bool:
        return any(fiber.state not in ("BLOCKED", "DONE") for fiber in self.fibers)

    def settle(self) -> None:
        rounds = 0
        while self.busy():
            rounds += 1
            assert rounds < 10_000, f"they never come to rest: {self.fibers}"
            swapco.sleep(0)

    def summary(self) -> Trace:
        return [
            ("end", index, "cancelled" if fiber.cancelled() else fiber.result(), fiber.cancelling())
            for index, fiber in enumerate(self.fibers)
        ]


def _here(call: Callable[[], Any]) -> Any:
    return call()


def execute(plan: Plan, *, foreigner: Foreigner | None = None, policy: Any = None) -> Trace:
    """Run a program with real fibers; its trace, and then how each fiber ended."""
    clock = ManualClock(1.0)
    execution = _Execution(plan, clock, foreigner)
    # nothing that comes back within a second is detached, so that the order is that of the laws alone
    slot = Slot(tick=1.0)

    def main() -> None:
        fiber = swapco.current_fiber()
        fiber.priority = 1
        execution.drive()

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock, policy=policy, slot=slot))
    return execution.trace + execution.summary()
