"""A scheduler of generators, small and exact: what the algorithms between runs are tested with.

A fiber is a generator.  It yields where somebody else may run: ``POINT`` (it could go on), ``YIELD`` (to the tail of
the run queue, and somebody else goes first if there is one), ``BLOCK`` (until somebody wakes it).  What it does in
between is one step, and the objects below declare what a step touches.  A run ends when every fiber has ended, at the
first exception, or when nobody can run any more: a deadlock.  Timers are actors: when no fiber can run, the clock goes
to the next deadline, and everything that is due then is enabled.

``Program(main).execute`` is an ``Execute``; ``program.state`` is what the last run left in the shared objects.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Hashable
from typing import Any, TypeAlias

from swapco.testing.trace import Chooser, Decision, Execution, Pruned, Step

POINT, YIELD, BLOCK = 0, 1, 2
NOTHING: frozenset[int] = frozenset()
Body: TypeAlias = Generator[int, Any, None]
Main: TypeAlias = "Callable[[World], Body]"


class Deadlock(Exception):
    """Fibers wait, and nobody is left who could wake them."""


class StepBound(Exception):
    """The run is too long."""


class World:
    """What the fibers of one run share."""

    def __init__(self, announced: bool = True) -> None:
        self.announced = announced
        self.bodies: list[Body] = []
        self.queue: list[int] = []
        self.timers: list[tuple[int, int]] = []  # (deadline, actor)
        self.now = 0
        self.running = 0
        self.blocked: set[int] = set()
        self.reads: set[int] = set()
        self.writes: set[int] = set()
        self.woke: list[int] = []
        self.declared = True
        self.objects: list[Shared] = []
        self.named: dict[int, int] = {}  # object -> id, in order of first appearance

    def touch(self, thing: Shared, write: bool) -> None:
        name = self.named.setdefault(thing.number, len(self.named))
        (self.writes if write else self.reads).add(name)

    def undeclared(self) -> None:
        self.declared = False

    def spawn(self, body: Body) -> int:
        actor = len(self.bodies)
        self.bodies.append(body)
        self.wake(actor)
        return actor

    def wake(self, actor: int) -> None:
        self.queue.append(actor)
        self.woke.append(actor)
        self.blocked.discard(actor)

    def timer(self, delay: int, action: Callable[[], None]) -> int:
        """Run ``action`` as an actor of its own at ``now + delay``."""

        def fire() -> Body:
            action()
            yield from ()

        actor = len(self.bodies)
        self.bodies.append(fire())
        self.timers.append((self.now + delay, actor))
        if self.announced:
            self.woke.append(actor)
        return actor

    def cancel_timer(self, actor: int) -> None:
        self.timers = [timer for timer in self.timers if timer[1] != actor]
        if actor in self.queue:
            self.queue.remove(actor)


class Shared:
    """A variable.  ``key``: its name in the final state, for one that is not made at the same time in every run."""

    def __init__(self, world: World, value: Any = 0, key: Hashable = None) -> None:
        self.world = world
        self.value = value
        self.number = len(world.objects)
        self.key = self.number if key is None else key
        world.objects.append(self)

    def get(self) -> Any:
        self.world.touch(self, False)
        return self.value

    def set(self, value: Any) -> None:
        self.world.touch(self, True)
        self.value = value


class Semaphore(Shared):
    """First come, first served; a release hands its permit to the first in line."""

    def __init__(self, world: World, permits: int = 1) -> None:
        super().__init__(world, permits)
        self.line: list[int] = []

    def acquire(self) -> Body:
        self.world.touch(self, True)
        if self.value:
            self.value -= 1
            return
        self.line.append(self.world.running)
        yield BLOCK

    def release(self) -> None:
        self.world.touch(self, True)
        if self.line:
            self.world.wake(self.line.pop(0))
        else:
            self.value += 1

    def acquire_within(self, delay: int) -> Generator[int, Any, bool]:
        """Give up when ``delay`` is over: False."""
        self.world.touch(self, True)
        if self.value:
            self.value -= 1
            return True
        me = self.world.running
        late: list[bool] = []

        def give_up() -> None:
            self.world.touch(self, True)
            late.append(True)
            self.line.remove(me)
            self.world.wake(me)

        timer = self.world.timer(delay, give_up)
        self.line.append(me)
        yield BLOCK
        if not late:
            self.world.cancel_timer(timer)
        return not late


class Event(Shared):
    """Fibers wait until it is set."""

    def __init__(self, world: World) -> None:
        super().__init__(world, False)
        self.line: list[int] = []

    def wait(self) -> Body:
        self.world.touch(self, True)
        if not self.value:
            self.line.append(self.world.running)
            yield BLOCK

    def set(self, value: Any = True) -> None:
        super().set(value)
        for actor in self.line:
            self.world.wake(actor)
        self.line.clear()


class Program:
    """A program of fibers that can be run again and again.

    ``footprints``: steps are recorded.  ``watched``: while the run goes on.  ``announced``: whoever sets a timer is
    recorded as the one that made it.
    """

    def __init__(
        self,
        main: Main,
        *,
        footprints: bool = True,
        watched: bool = True,
        announced: bool = True,
        max_steps: int = 1000,
    ) -> None:
        self.main = main
        self.announced = announced
        self.footprints = footprints
        self.watched = watched
        self.max_steps = max_steps
        self.runs = 0
        self.state: Hashable = None

    def execute(self, chooser: Chooser) -> Execution:
        self.runs += 1
        world = World(self.announced)
        execution = Execution()
        if self.watched and hasattr(chooser, "watch"):
            chooser.watch(execution)
        try:
            world.spawn(self.main(world))
            self._run(world, chooser, execution)
        except Pruned:
            execution.kind = "aborted"
        except Exception as exception:
            execution.kind = "failed"
            execution.exception = exception
            # pytest adds the values of a failed assertion: the same failure with other values is the same
            execution.fingerprint = zlib.crc32(f"{type(exception).__name__} {exception}".split("\n")[0].encode())
        values = frozenset((thing.key, thing.value) for thing in world.objects)
        exception = execution.exception
        # what a failure leaves undone is no outcome; a deadlock leaves nothing that could be done
        self.state = (
            None if exception is not None and not isinstance(exception, Deadlock) else values,
            None if exception is None else repr(exception),
        )
        return execution

    def _run(self, world: World, chooser: Chooser, execution: Execution) -> None:
        queue, bodies, decisions = world.queue, world.bodies, execution.decisions
        current, label, yielded = -1, "start", -1
        for _ in range(self.max_steps):
            if not queue and current < 0 and world.timers:
                world.now = min(world.timers)[0]
                queue += [actor for deadline, actor in world.timers if deadline == world.now]
                world.timers = [timer for timer in world.timers if timer[0] != world.now]
                label = "timer"
            enabled = (current, *queue) if current >= 0 else tuple(queue)
            if yielded >= 0:
                enabled = tuple(actor for actor in queue if actor != yielded) or enabled
                yielded = -1
            if not enabled:
                break
            index, decision = 0, -1
            if len(enabled) > 1:
                index = chooser.choose(enabled, current, label)
                decision = len(decisions)
                decisions.append(Decision(enabled, current, index, label))
            actor = world.running = enabled[index]
            if actor != current:
                queue.remove(actor)
                if current >= 0:
                    queue.append(current)
            if self.footprints:
                world.reads.clear()
                world.writes.clear()
                world.declared = True
            world.woke.clear()
            current, label = -1, "end"
            try:
                signal = next(bodies[actor])
            except StopIteration:
                pass
            else:
                if signal == POINT:
                    current, label = actor, "point"
                elif signal == YIELD:
                    world.wake(actor)
                    yielded = actor
                    label = "yield"
                elif actor not in queue:
                    world.blocked.add(actor)
                    label = "block"
            finally:
                if self.footprints:
                    reads, writes = frozenset(world.reads), frozenset(world.writes)
                    woke = tuple(world.woke)
                    execution.steps.append(Step(actor, decision, reads, writes, world.declared, woke, enabled))
        else:
            raise StepBound(f"more than {self.max_steps} steps")
        if world.blocked:
            raise Deadlock("fibers wait for each other")
