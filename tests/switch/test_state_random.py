"""Random programs that mix everything: both kinds of stack run them alike, step for step.

A program is a tree of steps for each of a few fibers.  While it runs, each step checks what it can see of itself (what
is handled, the context, where the stack ends), and notes it; the notes of a run with native stacks and of one with
greenlets must be the same, in the same order.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from state_support import callers

import swapco

Step = tuple[Any, ...]
EXAMPLES = 2500 if os.environ.get("SWAPCO_LAWS") == "thorough" else 20
variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default=None)


def steps_of(children: st.SearchStrategy[list[Step]]) -> st.SearchStrategy[list[Step]]:
    kinds = [
        st.tuples(st.just("call"), children),
        st.tuples(st.just("deep"), st.integers(1, 40), children),
        st.tuples(st.just("handle"), children, children),
        st.tuples(st.just("again"), children),
        st.tuples(st.just("finally"), children, children),
        st.tuples(st.just("context"), children),
        st.tuples(st.just("generate"), st.lists(children, max_size=3), children),
        st.tuples(st.just("sort"), children),
        st.tuples(st.just("spawn"), children),
        st.tuples(st.just("drop"), children),
        st.tuples(st.just("traced"), children),
    ]
    return st.lists(st.one_of(LEAVES, *kinds), max_size=4)


LEAVES = st.one_of(
    st.just(("pause",)),
    st.just(("pause",)),
    st.just(("pause",)),
    st.tuples(st.just("set"), st.integers(0, 9)),
    st.just(("shared",)),
    st.just(("collect",)),
    st.just(("limit",)),
    st.tuples(st.just("big"), st.integers(0, 3)),
    st.tuples(st.just("look"), st.integers(0, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 4)),
    st.just(("raise",)),
)
PROGRAMS = st.lists(st.recursive(st.lists(LEAVES, max_size=4), steps_of, max_leaves=12), min_size=2, max_size=5)


class Dropped:
    """Runs steps when reference counting frees it, or, in a cycle, when the collector does."""

    me: Dropped

    def __init__(self, run: Run, steps: list[Step]) -> None:
        self.run = run
        self.steps = steps

    def __del__(self) -> None:
        try:
            self.run.do(self.steps, sys.exc_info()[1])
            self.run.note("finalizer ended")
        except BaseException as error:
            # another finalizer's, a cancellation, or the refusal of a wait
            self.run.note("finalizer", type(error).__name__)


def frames_of_size(size: int) -> Any:
    names: dict[str, Any] = {}
    body = "\n".join(f"    v{k} = depth" for k in (range(5), range(50), range(300), range(500))[size])
    text = f"def big(depth, wait):\n{body}\n    return big(depth - 1, wait) if depth else wait()\n"
    exec(compile(text, __file__, "exec"), names)
    return names["big"]


BIG = [frames_of_size(size) for size in range(4)]


class Run:
    """One run of a program."""

    def __init__(self, program: list[list[Step]]) -> None:
        self.program = program
        self.notes: list[Any] = []
        self.fibers: list[swapco.Fiber[Any]] = []
        self.shared = self.numbers()
        # what each fiber has set, for each context that it has entered
        self.values: dict[str, list[object]] = {}
        self.traced = 0
        self.ended = False

    def note(self, *what: object) -> None:
        if not self.ended:
            self.notes.append((swapco.current_fiber().name, *what))

    def numbers(self) -> Iterator[int]:
        for k in range(1000):
            try:
                raise LookupError(k)
            except LookupError as error:
                swapco.sleep(0)
                yield k
                assert sys.exc_info()[1] is error

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename == __file__ and frame.f_code.co_name in ("generator", "down", "key"):
            self.notes.append((swapco.current_fiber().name, "trace", event, frame.f_code.co_name))
            return self.trace
        return None

    def do(self, steps: list[Step], handled: BaseException | None) -> None:
        for step in steps:
            self.check(handled)
            self.note(step[0])
            getattr(self, f"do_{step[0]}")(*step[1:], handled)
            self.check(handled)

    def check(self, handled: BaseException | None) -> None:
        """What a fiber sees of itself at any moment."""
        assert sys.exc_info()[1] is handled
        assert callers(sys._getframe())[-1] == "fiber_main"
        assert variable.get() == self.mine()[-1]

    def mine(self) -> list[object]:
        return self.values[swapco.current_fiber().name]

    def do_pause(self, handled: BaseException | None) -> None:
        swapco.sleep(0)

    def do_set(self, value: int, handled: BaseException | None) -> None:
        self.mine()[-1] = (swapco.current_fiber().name, value)
        variable.set(self.mine()[-1])

    def do_call(self, steps: list[Step], handled: BaseException | None) -> None:
        self.do(steps, handled)

    def do_deep(self, depth: int, steps: list[Step], handled: BaseException | None) -> None:
        def down(left: int) -> int:
            if left:
                return 1 + down(left - 1)
            self.do(steps, handled)
            return 0

        assert down(depth) == depth

    def do_handle(self, inside: list[Step], handler: list[Step], handled: BaseException | None) -> None:
        mine = ArithmeticError("mine")
        try:
            self.do(inside, handled)
            raise mine
        except (ArithmeticError, KeyError) as error:
            assert error is not mine or error.__context__ is handled
            self.do(handler, error)
            assert sys.exc_info()[1] is error

    def do_again(self, steps: list[Step], handled: BaseException | None) -> None:
        mine = ArithmeticError("again")
        try:
            try:
                raise mine
            except ArithmeticError:
                self.do(steps, mine)
                raise
        except ArithmeticError as error:
            assert error is mine

    def do_finally(self, inside: list[Step], last: list[Step], handled: BaseException | None) -> None:
        try:
            self.do(inside, handled)
        finally:
            self.do(last, sys.exc_info()[1])

    def do_raise(self, handled: BaseException | None) -> None:
        raise KeyError("raised")

    def do_context(self, steps: list[Step], handled: BaseException | None) -> None:
        self.mine().append(self.mine()[-1])
        try:
            contextvars.copy_context().run(self.do, steps, handled)
        finally:
            self.mine().pop()

    def do_generate(self, parts: list[list[Step]], between: list[Step], handled: BaseException | None) -> None:
        def generator() -> Iterator[int]:
            for k, part in enumerate(parts):
                self.do(part, handled)
                yield k

        for _ in generator():
            self.do(between, handled)

    def do_shared(self, handled: BaseException | None) -> None:
        try:
            self.note("took", next(self.shared))
        except (ValueError, StopIteration) as error:
            # somebody is inside, or it has ended by a cancellation
            self.note("not taken", type(error).__name__)

    def do_sort(self, steps: list[Step], handled: BaseException | None) -> None:
        def key(n: int) -> int:
            if n == 1:
                self.do(steps, handled)
            return -n

        assert sorted([0, 1, 2], key=key) == [2, 1, 0]

    def do_spawn(self, steps: list[Step], handled: BaseException | None) -> None:
        name = f"{swapco.current_fiber().name}.{len(self.fibers)}"
        self.values[name] = self.mine()[-1:]
        fiber = swapco.spawn(self.fiber_main, steps, name=name)
        self.fibers.append(fiber)
        fiber.join()

    def do_drop(self, steps: list[Step], handled: BaseException | None) -> None:
        dropped = Dropped(self, steps)
        del dropped

    def do_collect(self, handled: BaseException | None) -> None:
        dropped = Dropped(self, [("pause",)])
        dropped.me = dropped
        del dropped
        gc.collect()

    def do_limit(self, handled: BaseException | None) -> None:
        reached = 0

        def down() -> None:
            nonlocal reached
            reached += 1
            down()

        # as the tracer is called, too, it would meet the limit elsewhere
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            down()
        except RecursionError:
            pass
        sys.settrace(tracer)
        # how many exactly depends, with CPython 3.11, on which calls it has specialised by now
        assert 0 < reached < sys.getrecursionlimit()

    def do_big(self, size: int, handled: BaseException | None) -> None:
        BIG[size](5, lambda: swapco.sleep(0))

    def do_look(self, which: int, handled: BaseException | None) -> None:
        fiber = self.fibers[which % len(self.fibers)]
        self.note("looks", fiber.state, callers(fiber.frame))

    def do_cancel(self, which: int, handled: BaseException | None) -> None:
        fiber = self.fibers[which % len(self.fibers)]
        if fiber is not swapco.current_fiber():
            self.note("cancelled", fiber.name, fiber.cancel())

    def do_traced(self, steps: list[Step], handled: BaseException | None) -> None:
        self.traced += 1
        sys.settrace(self.trace)
        try:
            self.do(steps, handled)
        finally:
            self.traced -= 1
            if not self.traced:
                sys.settrace(None)

    def fiber_main(self, steps: list[Step]) -> None:
        try:
            self.do(steps, None)
            self.note("ended")
        except (KeyError, ArithmeticError, RecursionError, asyncio.CancelledError) as error:
            names = [error.__class__.__name__]
            context = error.__context__
            while context is not None:
                names.append(type(context).__name__)
                context = context.__context__
            self.note("ended by", names)

    def main(self) -> None:
        self.values |= {str(n): [None] for n in range(len(self.program))}
        self.fibers += [swapco.spawn(self.fiber_main, steps, name=str(n)) for n, steps in enumerate(self.program)]
        while rest := swapco.all_fibers() - {swapco.current_fiber()}:
            swapco.wait(rest)
        self.ended = True
        for fiber in self.fibers:
            if not fiber.cancelled():
                fiber.join()


def notes_of(program: list[list[Step]], switch: str) -> list[Any]:
    run = Run(program)
    before = sys.gettrace()
    gc.collect()
    gc.disable()
    try:
        swapco.run(run.main, switch=switch)
    finally:
        gc.enable()
        sys.settrace(before)
    return run.notes


@pytest.mark.usefixtures("fibers")
@settings(max_examples=EXAMPLES, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(program=PROGRAMS)
def test_native_stacks_and_greenlets_run_a_program_alike(program: list[list[Step]]) -> None:
    assert notes_of(program, "native") == notes_of(program, "greenlet")


@pytest.mark.usefixtures("fibers")
def test_a_program_of_everything_is_run_alike() -> None:
    """Each step at least once in each of several fibers, in different orders: no run is without them."""
    inner: list[Step] = [("pause",), ("set", 1), ("shared",), ("pause",), ("look", 1)]
    steps: list[Step] = [
        ("call", inner), ("deep", 100, inner), ("handle", inner, inner), ("again", inner), ("finally", inner, inner),
        ("context", inner), ("generate", [inner, inner], inner), ("sort", inner), ("spawn", inner), ("drop", inner),
        ("collect",), ("limit",), ("big", 3), ("look", 0), ("handle", [*inner, ("raise",)], inner),
        ("traced", [("deep", 3, inner), ("generate", [inner], inner)]),
    ]  # fmt: skip
    program = [steps[n:] + steps[:n] for n in range(len(steps))]
    program += [[*inner, *inner, ("cancel", n), ("raise",)] for n in range(0, len(steps), 5)]
    native = notes_of(program, "native")
    assert native == notes_of(program, "greenlet")
    assert {note[1] for note in native} >= {step[0] for step in steps} | {"took", "trace", "ended", "ended by"}
