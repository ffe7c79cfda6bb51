"""How well the failing scenarios of ``swapco.testing.ConcurrentStateMachine`` are minimised, and how fast.

    python -m benchmarks.testing_scenarios --seeds 40

Each machine has a bug.  For each seed hypothesis draws scenarios of 3 fibers with up to 4 operations each (and up to 3
before and after), finds a failing one, and shrinks it.  Counted are

- *minimal*: of the scenario that is shown no operation can be dropped.  That is checked exhaustively: every scenario
  with one operation fewer passes under every schedule.
- *smallest*: it has as few operations as any failing scenario of this object that is known.
- *proved*: no simpler schedule makes the scenario fail, as proved by the run itself.

Times are those of the whole test: drawing, exploring, shrinking, proving, telling.  CPU time is what the machine's
other work does not change much.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from swapco.testing import ConcurrentStateMachine, schedule_point, verify
from swapco.testing.candidates import forget
from swapco.testing.stateful import Scenario, concurrent_test


class SequentialQueue:
    """What the queues should be."""

    def __init__(self) -> None:
        self.items: list[int] = []

    def put(self, item: int) -> None:
        self.items.append(item)

    def get(self) -> int | None:
        return self.items.pop(0) if self.items else None


class SequentialStack:
    """What the stacks should be."""

    def __init__(self) -> None:
        self.items: list[int] = []

    def push(self, item: int) -> None:
        self.items.append(item)

    def pop(self) -> int | None:
        return self.items.pop() if self.items else None


class QueueMachine(ConcurrentStateMachine):
    """A queue with two bugs: an item is got twice, or put in the wrong place."""

    model = SequentialQueue
    smallest: ClassVar[int] = 3

    def __init__(self) -> None:
        super().__init__()
        self.items: list[int] = []

    @rule(item=st.integers(0, 3))
    def put(self, item: int) -> None:
        """At the end as it was."""
        end = len(self.items)
        schedule_point()
        self.items.insert(end, item)

    @rule()
    def get(self) -> int | None:
        """The first as it was."""
        if not self.items:
            return None
        first = self.items[0]
        schedule_point()
        if self.items:
            del self.items[0]
        return first


class Node:
    """Of a linked stack."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.next: Node | None = None


class LostPush(ConcurrentStateMachine):
    """A linked stack whose push does not compare before it swaps."""

    model = SequentialStack
    smallest: ClassVar[int] = 4

    def __init__(self) -> None:
        super().__init__()
        self.head: Node | None = None

    @rule(item=st.integers(0, 3))
    def push(self, item: int) -> None:
        """Forgets what was pushed meanwhile."""
        node = Node(item)
        node.next = self.head
        schedule_point()
        self.head = node

    @rule()
    def pop(self) -> int | None:
        """Compares and swaps."""
        while (head := self.head) is not None:
            following = head.next
            schedule_point()
            if self.head is head:
                self.head = following
                return head.value
        return None


class Recycling(ConcurrentStateMachine):
    """A linked stack that uses nodes again, so that an old head can be the head again (ABA)."""

    model = SequentialStack
    smallest: ClassVar[int] = 4

    def __init__(self) -> None:
        super().__init__()
        self.head: Node | None = None
        self.free: list[Node] = []

    @rule(item=st.integers(0, 3))
    def push(self, item: int) -> None:
        """Compares and swaps."""
        node = self.free.pop() if self.free else Node(item)
        node.value = item
        while True:
            head = node.next = self.head
            schedule_point()
            if self.head is head:
                self.head = node
                return

    @rule()
    def pop(self) -> int | None:
        """Compares and swaps, but the node may have been elsewhere."""
        while (head := self.head) is not None:
            following, value = head.next, head.value
            schedule_point()
            if self.head is head:
                self.head = following
                self.free.append(head)
                return value
        return None


MACHINES: list[Any] = [QueueMachine, LostPush, Recycling]


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """The scenario without one of its operations, for each of them."""
    parts = [scenario.before, *scenario.fibers, scenario.after]
    for number, part in enumerate(parts):
        for at in range(len(part)):
            fewer = [*parts]
            fewer[number] = part[:at] + part[at + 1 :]
            yield Scenario(fewer[0], tuple(fewer[1:-1]), fewer[-1])


def size(scenario: Scenario) -> int:
    """How many operations it has."""
    return len(scenario.before) + sum(map(len, scenario.fibers)) + len(scenario.after)


def is_minimal(machine: Any, scenario: Scenario) -> bool:
    """Passes every scenario with one operation fewer, under every schedule?"""
    for fewer in smaller(scenario):
        result = verify(functools.partial(machine.run_scenario, fewer), preemption_bound=None, save=False)
        if result.failed or not result.exhausted:
            return False
    return True


def measure(machine: Any, number: int) -> dict[str, Any]:
    """One test of a machine."""
    forget()
    shown: dict[str, Any] = {}
    run_seed = seed(number)
    options = settings(machine.TestCase.settings, database=None, print_blob=False)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        run_seed(concurrent_test(machine, options, shown.update))()
    except AssertionError:
        pass
    shown["wall"], shown["cpu"] = time.perf_counter() - wall, time.process_time() - cpu
    return shown


def main() -> None:
    """Print a line for each machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seeds", type=int, default=40)
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as directory:
        for machine in MACHINES:
            machine.save = f"{directory}/{machine.__name__}.json"
            runs = [measure(machine, number) for number in range(seeds)]
            found = [run for run in runs if "scenario" in run]
            minimal = sum(is_minimal(machine, run["scenario"]) for run in found)
            smallest = sum(size(run["scenario"]) == machine.smallest for run in found)
            proved = sum(run["result"].minimal for run in found)
            cpu, wall = [sorted(run[kind] for run in runs) for kind in ("cpu", "wall")]
            print(
                f"{machine.__name__:12}  found {len(found)} of {seeds}, minimal {minimal}, smallest {smallest}, "
                f"proved {proved}; CPU {statistics.median(cpu):.2f} s (at most {cpu[-1]:.2f}), "
                f"wall {statistics.median(wall):.2f} s (at most {wall[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
