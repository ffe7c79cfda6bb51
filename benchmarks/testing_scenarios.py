"""How well the failing scenarios of ``swapco.testing.ConcurrentStateMachine`` are minimised, and how fast.

    python -m benchmarks.testing_scenarios --seeds 40 --strict

Each machine has a bug.  For each seed hypothesis draws scenarios of 3 fibers with up to 4 operations each (and up to 3
before and after), finds a failing one, and shrinks it.  Counted are

- *minimal*: of the scenario that is shown no operation can be dropped.  That is checked exhaustively: every scenario
  with one operation fewer passes under every schedule.
- *smallest*: it has as few operations as any failing scenario of this object that is known.
- *proved*: no simpler schedule makes the scenario fail, as proved by the run itself.

Times are those of the whole test: drawing, exploring, shrinking, proving, telling.  CPU time is what the machine's
other work does not change much.

The bars, for each machine: scenario and schedule are minimal in 95 % of the runs, a run without a failure counting
against it; a test takes at most 1 s of CPU time, in the median and in the slowest run.  Exit status: 0, with
``--strict`` 1 if a bar is missed; 2 for a wrong option.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from benchmarks.__main__ import positive
from swapco.testing import ConcurrentStateMachine, schedule_point, verify
from swapco.testing.candidates import forget
from swapco.testing.stateful import Scenario, concurrent_test

SHARE = 0.95
"""Of the runs that must show a minimal scenario with a minimal schedule."""
WITHIN_S = 1.0
"""CPU time of a run: of the median, and of the slowest."""


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


@dataclass(frozen=True)
class Figures:
    """What the runs of one machine came to."""

    machine: str
    runs: int
    found: int
    minimal: int
    smallest: int
    proved: int
    both: int
    """Minimal and proved."""
    cpu: tuple[float, ...]
    wall: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"{self.machine:12}  found {self.found} of {self.runs}, minimal {self.minimal}, smallest {self.smallest}, "
            f"proved {self.proved}; CPU {statistics.median(self.cpu):.2f} s (at most {max(self.cpu):.2f}), "
            f"wall {statistics.median(self.wall):.2f} s (at most {max(self.wall):.2f})"
        )

    def bars(self) -> list[tuple[str, str, bool]]:
        """Each bar, what was measured, and whether it is met."""
        share, middle, slowest = self.both / self.runs, statistics.median(self.cpu), max(self.cpu)
        return [
            (f"minimal scenario and schedule in {SHARE:.0%} of the runs", f"{share:.1%}", share >= SHARE),
            (f"median within {WITHIN_S:g} s", f"{middle:.2f} s", middle <= WITHIN_S),
            (f"slowest within {WITHIN_S:g} s", f"{slowest:.2f} s", slowest <= WITHIN_S),
        ]


def figures_of(machine: Any, seeds: int) -> Figures:
    """Run the tests of a machine, and look at what they show."""
    runs = [measure(machine, number) for number in range(seeds)]
    found = [run for run in runs if "scenario" in run]
    minimal = [is_minimal(machine, run["scenario"]) for run in found]
    proved = [bool(run["result"].minimal) for run in found]
    return Figures(
        machine=machine.__name__,
        runs=len(runs),
        found=len(found),
        minimal=sum(minimal),
        smallest=sum(size(run["scenario"]) == machine.smallest for run in found),
        proved=sum(proved),
        both=sum(one and other for one, other in zip(minimal, proved, strict=True)),
        cpu=tuple(run["cpu"] for run in runs),
        wall=tuple(run["wall"] for run in runs),
    )


def lines_of_bars(measured: Sequence[Figures]) -> list[str]:
    """A line for each bar of each machine."""
    return [
        f"{one.machine:12}  {bar}: {value}, {'met' if met else 'MISSED'}"
        for one in measured
        for bar, value, met in one.bars()
    ]


def status_of(measured: Sequence[Figures], strict: bool) -> int:
    """The exit status."""
    return int(strict and not all(met for one in measured for _, _, met in one.bars()))


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each machine, and one for each of its bars."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.testing_scenarios", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=positive, default=40, metavar="N", help="runs of each machine (default: 40)")
    parser.add_argument("--strict", action="store_true", help="status 1 if a bar is missed")
    options = parser.parse_args(arguments)
    measured = []
    with tempfile.TemporaryDirectory() as directory:
        for machine in MACHINES:
            machine.save = f"{directory}/{machine.__name__}.json"
            measured.append(figures_of(machine, options.seeds))
            print(measured[-1], flush=True)
    print("\nthe bars, in CPU time\n")
    print("\n".join(lines_of_bars(measured)))
    return status_of(measured, options.strict)


if __name__ == "__main__":
    sys.exit(main())
