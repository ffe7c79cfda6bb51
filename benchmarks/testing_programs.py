"""The programs that ``testing_peers`` runs: one without a bug, for speed, and five whose bug depends on the order.

A program is a class: its instances are one run's state, `work` is what each flow does, `holds` says after all of them
have ended whether the run was right. A deadlock is a failure as well; the tool must see it. `work` is written twice,
line by line the same: for flows that block in a call (fibers, threads), and for coroutines. What the first needs from
its library is in `Flows`: swapco's names by default, and a peer's adapter gives its own.

A *point* is a place where another flow may run; everything between two points, and between a point and a wait, is one
step. So the tools that see more than points (bytecodes, entering a primitive) search a larger space for the same bug.

Each is right in the order that production would choose: swapco's, where a flow goes on at a point, and asyncio's, where
all flows take one step in turn; for the second, flows reach the same line at different times. So a tool must choose
otherwise to find the bug. How often is the bug's *depth* in the sense of PCT (Burckhardt, Kothari, Musuvathi and
Nagarakatte, ASPLOS 2010): the number of steps that must come in a certain order. No strategy is good at all five, which
is why they are these five:

- `LostUpdate`: four flows read, and write a moment later, among 20 points that do not matter. Depth 2: random choices
  overlap them soon, and PCT must place one change of priority among about 90 steps.
- `LostWakeup`: a semaphore that looks first and lines up later; a release in between wakes nobody. Depth 3: the holder
  must stop inside, the other one between its look and the line.
- `LostWakeupAmongPoints`: the same with five points before and five behind, which is hard for PCT.
- `LockCycle`: three flows take two of three locks each, in a circle. Depth 2, but only from some of the six orders.
- `Starvation`: the bug shows only if a flow that could run is not chosen 20 times in a row: 1 in 2^20 random walks.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Flows:
    """What a program needs from a library: a point, and constructors of a lock (``with``) and an event (wait, set)."""

    point: Callable[[], Any]
    lock: Callable[[], Any]
    event: Callable[[], Any]


async def yield_to_others() -> None:
    # asyncio.sleep is looked up at each call: a tool may have put its own in its place
    await asyncio.sleep(0)


ASYNCIO = Flows(yield_to_others, lambda: asyncio.Lock(), lambda: asyncio.Event())


def swapco_flows() -> Flows:
    from swapco import Event, Lock, testing

    return Flows(testing.schedule_point, Lock, Event)


class Program(ABC):
    flows: ClassVar[int]
    blocks: ClassVar[bool] = False
    """A flow may have to wait for another one, also in a run that is right."""

    def __init__(self, flows: Flows) -> None:
        self.point = flows.point
        self.set_up(flows)

    @abstractmethod
    def set_up(self, flows: Flows) -> None:
        """Make what the flows share."""

    @abstractmethod
    def work(self, number: int) -> None:
        """What flow `number` of `flows` does."""

    @abstractmethod
    async def work_async(self, number: int) -> None:
        """`work` for a task of asyncio, or of what stands in for it."""

    def holds(self) -> bool:
        """Was this run right? Asked after all flows have ended."""
        return True


class Steps(Program):
    """Nothing but points, 30 of them: what a schedule costs."""

    flows = 3
    steps = 10

    def set_up(self, flows: Flows) -> None:
        pass

    def work(self, number: int) -> None:
        for _ in range(self.steps):
            self.point()

    async def work_async(self, number: int) -> None:
        for _ in range(self.steps):
            await self.point()


class LostUpdate(Program):
    flows = 4
    irrelevant = 20
    """Points before the read and behind the write: a quarter of them more before it in each next flow."""

    def set_up(self, flows: Flows) -> None:
        self.count = 0

    def work(self, number: int) -> None:
        before = number * self.irrelevant // self.flows
        for _ in range(before):
            self.point()
        seen = self.count
        self.point()
        self.count = seen + 1
        for _ in range(self.irrelevant - before):
            self.point()

    async def work_async(self, number: int) -> None:
        before = number * self.irrelevant // self.flows
        for _ in range(before):
            await self.point()
        seen = self.count
        await self.point()
        self.count = seen + 1
        for _ in range(self.irrelevant - before):
            await self.point()

    def holds(self) -> bool:
        return self.count == self.flows


class LostWakeup(Program):
    flows = 2
    blocks = True
    irrelevant = 0
    """Points before taking a permit, and as many after giving it back."""

    def set_up(self, flows: Flows) -> None:
        self.permits = 1
        self.line: deque[Any] = deque()
        self.event = flows.event

    def release(self) -> None:
        if self.line:
            self.line.popleft().set()
        else:
            self.permits += 1

    def work(self, number: int) -> None:
        for _ in range(self.irrelevant):
            self.point()
        if self.permits == 0:
            self.point()  # a release that comes here finds nobody in line
            woken = self.event()
            self.line.append(woken)
            woken.wait()
        else:
            self.permits -= 1
        self.point()
        self.point()
        self.release()
        for _ in range(self.irrelevant):
            self.point()

    async def work_async(self, number: int) -> None:
        for _ in range(self.irrelevant):
            await self.point()
        if self.permits == 0:
            await self.point()
            woken = self.event()
            self.line.append(woken)
            await woken.wait()
        else:
            self.permits -= 1
        await self.point()
        await self.point()
        self.release()
        for _ in range(self.irrelevant):
            await self.point()


class LostWakeupAmongPoints(LostWakeup):
    irrelevant = 5


class LockCycle(Program):
    flows = 3
    blocks = True

    def set_up(self, flows: Flows) -> None:
        self.locks = [flows.lock() for _ in range(self.flows)]

    def work(self, number: int) -> None:
        for _ in range(number):
            self.point()
        with self.locks[number]:
            self.point()
            with self.locks[(number + 1) % self.flows]:
                self.point()

    async def work_async(self, number: int) -> None:
        for _ in range(number):
            await self.point()
        async with self.locks[number]:
            await self.point()
            async with self.locks[(number + 1) % self.flows]:
                await self.point()


class Starvation(Program):
    flows = 2
    steps = 20

    def set_up(self, flows: Flows) -> None:
        self.passed_over = 0
        self.waited = 0

    def work(self, number: int) -> None:
        if number == 0:
            self.waited = self.passed_over
            return
        for _ in range(self.steps):
            self.passed_over += 1
            self.point()

    async def work_async(self, number: int) -> None:
        if number == 0:
            self.waited = self.passed_over
            return
        for _ in range(self.steps):
            self.passed_over += 1
            await self.point()

    def holds(self) -> bool:
        return self.waited < self.steps


BUGS: dict[str, type[Program]] = {
    "lost update": LostUpdate,
    "lost wakeup": LostWakeup,
    "lost wakeup, points": LostWakeupAmongPoints,
    "ABBA, 3 locks": LockCycle,
    "starvation, 20": Starvation,
}


def body_of(program: type[Program]) -> Callable[[], None]:
    """`program` as a plain function for the main fiber, as ``swapco.testing`` takes it."""
    from swapco import spawn

    flows = swapco_flows()

    def body() -> None:
        run = program(flows)
        for fiber in [spawn(run.work, number) for number in range(program.flows)]:
            fiber.join()
        assert run.holds()

    return body


def main_of(program: type[Program]) -> Callable[[], Any]:
    """`program` as a coroutine function, for what stands in for asyncio's loop."""

    async def main() -> None:
        run = program(ASYNCIO)
        await asyncio.gather(*(run.work_async(number) for number in range(program.flows)))
        assert run.holds()

    return main
