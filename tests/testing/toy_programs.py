"""Random small programs of toy fibers, and what an outside observer can tell about their runs."""

from __future__ import annotations

from typing import Any, TypeAlias

from hypothesis import strategies as st
from toy import BLOCK, POINT, YIELD, Body, Event, Main, Semaphore, Shared, World

from swapco.testing.trace import Execution

Operation: TypeAlias = tuple[Any, ...]
Fibers: TypeAlias = list[list[Operation]]

VARIABLES = 3


def operations(*, timers: bool = False, undeclared: bool = False) -> st.SearchStrategy[Operation]:
    variable = st.integers(0, VARIABLES - 1)
    simple: list[st.SearchStrategy[Operation]] = [
        st.tuples(st.just("load"), variable),
        st.tuples(st.just("store"), variable),
        st.tuples(st.just("put"), variable, st.integers(1, 2)),
        st.tuples(st.just("add"), variable),
        st.tuples(st.just("check"), variable, st.integers(0, 2)),
        st.tuples(st.just("acquire")),
        st.tuples(st.just("release")),
        st.tuples(st.just("yield")),
        st.tuples(st.just("set")),
        st.tuples(st.just("wait")),
    ]
    if timers:
        simple += [
            st.tuples(st.just("sleep"), st.integers(1, 2)),
            st.tuples(st.just("acquire_within"), st.integers(1, 2)),
        ]
    if undeclared:
        simple.append(st.tuples(st.just("undeclared")))
    spawn = st.tuples(st.just("spawn"), st.lists(st.one_of(*simple), min_size=1, max_size=2))
    return st.one_of(*simple, spawn)


def programs(
    *, fibers: int = 3, steps: int = 4, timers: bool = False, undeclared: bool = False
) -> st.SearchStrategy[Fibers]:
    """A list of operations for each fiber."""
    operation = operations(timers=timers, undeclared=undeclared)
    return st.lists(st.lists(operation, min_size=1, max_size=steps), min_size=2, max_size=fibers)


def main_of(fibers: Fibers, *, known: bool = False) -> Main:
    """A main fiber that spawns them.  ``known``: it touches every object first, so that all runs have the same ids."""

    def main(world: World) -> Body:
        variables = [Shared(world) for _ in range(VARIABLES)]
        lock, event = Semaphore(world), Event(world)
        hidden = Shared(world)

        def fiber(steps: list[Operation], *key: int) -> Body:
            register = Shared(world, key=key)  # what it has seen is part of the outcome; nobody else touches it
            for number, (name, *arguments) in enumerate(steps):
                yield POINT
                if name == "load":
                    register.value = register.value * 3 + variables[arguments[0]].get()
                elif name == "store":
                    variables[arguments[0]].set(register.value + 1)
                elif name == "put":
                    variables[arguments[0]].set(arguments[1])
                elif name == "add":
                    variables[arguments[0]].set(variables[arguments[0]].get() + 1)
                elif name == "check":
                    assert variables[arguments[0]].get() != arguments[1], f"{arguments} in {steps}"
                elif name == "acquire":
                    yield from lock.acquire()
                elif name == "release":
                    lock.release()
                elif name == "yield":
                    yield YIELD
                elif name == "set":
                    event.set()
                elif name == "wait":
                    yield from event.wait()
                elif name == "sleep":
                    me = world.running
                    world.timer(arguments[0], lambda me=me: world.wake(me))  # type: ignore[misc]
                    yield BLOCK
                elif name == "acquire_within":
                    register.value = register.value * 3 + (yield from lock.acquire_within(arguments[0]))
                elif name == "undeclared":
                    world.undeclared()
                    hidden.value = hidden.value * 3 + len(steps)
                else:
                    assert name == "spawn"
                    world.spawn(fiber(arguments[0], *key, number))

        if known:
            for thing in (*variables, lock, event):
                thing.get()
        for number, steps in enumerate(fibers):
            world.spawn(fiber(steps, number))
        yield from ()

    return main


def trace_of(execution: Execution) -> frozenset[tuple[object, object]]:
    """The Mazurkiewicz trace: the pairs of dependent steps, in order.  Steps have names that no schedule changes."""
    names: dict[int, object] = {0: "main"}
    counts: dict[int, int] = {}
    steps: list[tuple[object, Any]] = []
    pairs: set[tuple[object, object]] = set()
    for step in execution.steps:
        assert step.actor in names
        if step.actor in step.woke:
            step = step._replace(declared=False)  # whoever yields waits for any step
        counts[step.actor] = counts.get(step.actor, 0) + 1
        name = (names[step.actor], counts[step.actor])
        pairs.add((None, name))
        for number, other in enumerate(step.woke):
            names.setdefault(other, (name, number))
        for before, earlier in steps:
            if (
                not step.declared
                or not earlier.declared
                or step.writes & (earlier.reads | earlier.writes)
                or step.reads & earlier.writes
            ):
                pairs.add((before, name))
        steps.append((name, step))
    return frozenset(pairs)
