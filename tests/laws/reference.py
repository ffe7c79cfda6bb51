"""What the laws say a program does: a model of one slot, in which a fiber is a generator.

It knows nothing of stacks, loops and threads: a fiber has a token and a wait, the slot has a run queue, a list in front
of it, and an inbox.  A fiber *is* its wait's winner's business from ``yield`` to ``yield``.

What happens outside is posted to the inbox; the slot looks there before it takes a fiber, before it makes one ready,
before a handoff, and when its owner cancels a fiber, whatever that one does.  A resume wins the wait where it is made,
a cancellation where the slot finds it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator
from typing import Any

from programs import Op, Plan, Trace

__all__ = ["BUDGET", "BudgetSpent", "Reference", "predict"]

#: Handoffs between two takes from the run queue (law 5).
BUDGET = 64

Steps = Generator[None, None, Any]


class BudgetSpent(Exception):
    """So many handoffs that law 5 interferes, in a way that depends on real time."""


class _Cancelled(Exception):
    pass


class _TimedOut(Exception):
    pass


class _Invalid(Exception):
    pass


class _Refused(Exception):
    pass


class _Fiber:
    def __init__(self, index: int, stubborn: bool, ops: tuple[Op, ...], priority: int) -> None:
        self.index = index
        self.stubborn = stubborn
        self.ops = ops
        self.priority = priority
        self.state = "NEW"
        self.token: tuple[Any] | None = None
        # None, bare, primitive, or who has won: resume, wake, timeout, cancel
        self.wait: str | None = None
        self.handed: Any = None
        self.queue: list[_Fiber] | None = None
        self.serial = 0
        self.cancel_pending = False
        self.cancel_message: Any = None
        self.cancel_requests = 0
        self.joiners: list[_Fiber] = []
        self.cancelled: tuple[Any, ...] | None = None
        self.steps: Steps | None = None


class Reference:
    """A slot, and the fibers of one program."""

    def __init__(self, plan: Plan, *, by_priority: bool = False) -> None:
        self.plan = plan
        self.by_priority = by_priority
        self.trace: Trace = []
        self.fibers: list[_Fiber] = []
        self.lot: list[_Fiber] = []
        self.queue: deque[_Fiber] = deque()
        self.front: list[_Fiber] = []
        self.inbox: deque[_Fiber] = deque()
        self.timers: list[tuple[int, int, _Fiber, int]] = []
        self.armed = 0
        self.now = 0
        self.handoffs = 0
        self.following: _Fiber | None = None

    # -- the run queue

    def push(self, f: _Fiber) -> None:
        at = len(self.queue)
        if self.by_priority:
            while at and self.queue[at - 1].priority > f.priority:
                at -= 1
        self.queue.insert(at, f)

    def take(self) -> _Fiber | None:
        self.drain_inbox()
        if self.following is not None:
            f, self.following = self.following, None
            return f
        self.handoffs = 0
        if self.front:
            return self.front.pop()
        return self.queue.popleft() if self.queue else None

    def unqueue(self, f: _Fiber) -> None:
        (self.front if f in self.front else self.queue).remove(f)

    # -- waits

    def win(self, f: _Fiber, winner: str, value: Any = None) -> None:
        f.wait = winner
        f.handed = value

    def make_ready(self, f: _Fiber) -> None:
        """Its wait was won by the owner of the slot: behind whoever was woken from outside before."""
        self.drain_inbox()
        self.admit(f)

    def admit(self, f: _Fiber) -> None:
        if f.state == "BLOCKED":
            if f.queue is not None:
                f.queue.remove(f)
                f.queue = None
            f.state = "READY"
            self.push(f)

    def drain_inbox(self) -> None:
        while self.inbox:
            f = self.inbox.popleft()
            if f.state == "BLOCKED" and f.wait not in ("bare", "primitive"):
                self.admit(f)
            elif f.cancel_pending and f.state == "BLOCKED":
                self.win(f, "cancel")
                self.admit(f)

    def post(self, f: _Fiber) -> None:
        if f not in self.inbox:
            self.inbox.append(f)

    def wait_for(self, f: _Fiber, kind: str, ticks: int | None, queue: list[_Fiber] | None = None) -> Steps:
        f.wait = kind
        f.serial += 1
        f.state = "BLOCKED"
        if ticks is not None:
            self.armed += 1
            heapq.heappush(self.timers, (self.now + ticks, self.armed, f, f.serial))
        if queue is not None:
            queue.append(f)
            f.queue = queue
        yield
        winner, f.wait = f.wait, None
        f.serial += 1
        if winner == "cancel":
            self.raise_cancel(f)
        if winner == "timeout":
            raise _TimedOut
        value, f.handed = f.handed, None
        return value

    def raise_cancel(self, f: _Fiber) -> None:
        f.cancel_pending = False
        message, f.cancel_message = f.cancel_message, None
        raise _Cancelled(*(() if message is None else (message,)))

    def cancel_point(self, f: _Fiber) -> None:
        if f.cancel_pending:
            self.raise_cancel(f)

    # -- the operations

    def resume(self, f: _Fiber, value: Any, foreign: bool = False) -> bool:
        if f.state == "DONE":
            return False
        if f.wait == "bare":
            self.win(f, "resume", value)
            if foreign:
                self.post(f)
            else:
                self.make_ready(f)
            return True
        if f.token is not None or f.wait == "resume":
            return False
        f.token = (value,)
        return True

    def block(self, me: _Fiber, ticks: int | None) -> Steps:
        if me.token is not None:
            (value,), me.token = me.token, None
            return value
        self.cancel_point(me)
        if ticks == 0:
            raise _TimedOut
        return (yield from self.wait_for(me, "bare", ticks))

    def switch_to(self, me: _Fiber, target: _Fiber, value: Any, ticks: int | None) -> Steps:
        if target.state == "DONE":
            raise _Invalid
        self.drain_inbox()
        if target.wait == "bare":
            self.win(target, "resume", value)
            target.state = "READY"
            runs_next = True
        else:
            self.resume(target, value)
            runs_next = target.state in ("NEW", "READY")
            if runs_next:
                self.unqueue(target)
        if me.token is not None or me.cancel_pending or ticks == 0:
            if runs_next:
                self.front.append(target)
        elif runs_next:
            self.following = target
            self.handoffs += 1
            if self.handoffs > BUDGET:
                raise BudgetSpent
        return (yield from self.block(me, ticks))

    def yield_now(self, me: _Fiber) -> Steps:
        self.cancel_point(me)
        me.state = "READY"
        self.drain_inbox()
        self.push(me)
        yield
        self.cancel_point(me)

    def join(self, me: _Fiber, target: _Fiber, ticks: int | None) -> Steps:
        if target.state != "DONE":
            if target is me:
                raise _Refused
            self.cancel_point(me)
            yield from self.wait_for(me, "primitive", ticks, target.joiners)
        if target.cancelled is not None:
            raise _Cancelled(*target.cancelled)
        return target.index

    def cancel(self, f: _Fiber, message: Any, foreign: bool = False) -> bool:
        if f.state == "DONE":
            return False
        f.cancel_requests += 1
        f.cancel_message = message
        f.cancel_pending = True
        if foreign:
            self.post(f)
            return True
        self.drain_inbox()
        if f.state == "BLOCKED" and f.wait in ("bare", "primitive"):
            self.win(f, "cancel")
            self.admit(f)
        return True

    def uncancel(self, f: _Fiber) -> int:
        if f.cancel_requests:
            f.cancel_requests -= 1
            if f.cancel_requests == 0:
                f.cancel_pending = False
        return f.cancel_requests

    def unpark(self, value: Any) -> bool:
        # a waiter whose wait was won from outside is not in line any more
        while self.lot:
            first = self.lot.pop(0)
            first.queue = None
            if first.wait == "primitive":
                self.win(first, "wake", value)
                self.make_ready(first)
                return True
        return False

    def spawn(self) -> bool:
        index = len(self.fibers)
        if index == len(self.plan.fibers):
            return False
        plan = self.plan.fibers[index]
        f = _Fiber(index, plan.stubborn, plan.ops, plan.priority)
        f.steps = self.body(f)
        self.fibers.append(f)
        self.drain_inbox()
        self.push(f)
        return True

    # -- the interpreter

    def body(self, me: _Fiber) -> Steps:
        if me.cancel_pending:
            # the body of a cancelled NEW fiber never runs
            me.cancelled = () if me.cancel_message is None else (me.cancel_message,)
            return
        for step, op in enumerate(me.ops):
            self.trace.append((me.index, step, op.name))
            try:
                outcome = yield from self.perform(me, op, (me.index, step))
            except _Cancelled as error:
                outcome = ("cancelled", *error.args)
                if not me.stubborn:
                    self.trace.append((me.index, step, outcome))
                    me.cancelled = error.args
                    return
            except _TimedOut:
                outcome = "timed out"
            except _Invalid:
                outcome = "invalid"
            except _Refused:
                outcome = "refused"
            self.trace.append((me.index, step, outcome))

    def perform(self, me: _Fiber, op: Op, value: Any) -> Steps:
        ticks = op.ticks
        if op.name == "block":
            return ("got", (yield from self.block(me, ticks)))
        if op.name == "yield":
            return (yield from self.yield_now(me))
        if op.name == "sleep":
            self.cancel_point(me)
            try:
                yield from self.wait_for(me, "primitive", ticks)
            except _TimedOut:
                return None
        if op.name == "spawn":
            return self.spawn()
        if op.name == "park":
            self.cancel_point(me)
            return ("got", (yield from self.wait_for(me, "primitive", ticks, self.lot)))
        if op.name == "unpark":
            return self.unpark(value)
        if op.target >= len(self.fibers):
            return "absent"
        target = self.fibers[op.target]
        if op.name == "switch_to":
            return ("got", (yield from self.switch_to(me, target, value, ticks)))
        if op.name == "join":
            return ("joined", (yield from self.join(me, target, ticks)))
        if op.name == "uncancel":
            return self.uncancel(target)
        if op.name == "resume":
            return self.resume(target, value, op.foreign)
        assert op.name == "cancel"
        return self.cancel(target, value, op.foreign)

    # -- the slot

    def run_ready(self) -> None:
        while (f := self.take()) is not None:
            f.state = "RUNNING"
            assert f.steps is not None
            try:
                next(f.steps)
            except StopIteration:
                f.state = "DONE"
                f.token = None
                f.cancel_pending = False
                while f.joiners:
                    # making one ready may admit another, whose cancellation came from outside
                    joiner = f.joiners.pop(0)
                    joiner.queue = None
                    if joiner.wait == "primitive":
                        self.win(joiner, "wake")
                        self.make_ready(joiner)

    def fire_timers(self) -> None:
        while self.timers and self.timers[0][0] <= self.now:
            _, _, f, serial = heapq.heappop(self.timers)
            if f.serial == serial and f.wait in ("bare", "primitive"):
                self.win(f, "timeout")
                self.make_ready(f)

    def run(self) -> Trace:
        """The program from its beginning to its end."""
        for _ in range(self.plan.spawned):
            self.spawn()
        while True:
            self.run_ready()
            live = [f for f in self.fibers if f.state != "DONE"]
            if not live:
                break
            # timers of waits that are over are gone
            self.timers = [t for t in self.timers if t[2].serial == t[3] and t[2].state == "BLOCKED"]
            heapq.heapify(self.timers)
            if self.timers:
                self.now = self.timers[0][0]
                self.fire_timers()
            else:
                for f in live:
                    self.cancel(f, "driver")
        return self.trace + [
            ("end", f.index, "cancelled" if f.cancelled is not None else f.index, f.cancel_requests)
            for f in self.fibers
        ]


def predict(plan: Plan, *, by_priority: bool = False) -> Trace:
    """The trace of a program, by the laws.  ``BudgetSpent`` if real time has a say in it."""
    return Reference(plan, by_priority=by_priority).run()
