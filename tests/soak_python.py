"""Steps of the soak run (soak.py): exceptions, contexts, generators, recursion, C code, memory, tracing, greenlets.

The rules for steps are in soak_waits.py.
"""

from __future__ import annotations

import contextvars
import copy
import ctypes
import decimal
import functools
import gc
import io
import json
import pickle
import re
import sys
import threading
import traceback
import weakref
from collections.abc import Generator
from typing import Any

import greenlet
from soak_tools import NOTHING, NUMBER, Tools, check

import swapco

_COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
_qsort = ctypes.CDLL(None).qsort
_qsort.restype = None


class PythonState(Tools):
    """Steps that look at what the interpreter keeps for each fiber."""

    # ------------------------------------------------------------------------------------ exceptions, locals

    def do_exceptions(self) -> None:
        """An exception that is being handled stays the fiber's, with its context and its traceback."""

        def raising(depth: int) -> None:
            if depth:
                return raising(depth - 1)
            raise LookupError(self.number)

        depth = self.dice.randint(0, 20)
        try:
            try:
                raising(depth)
            except LookupError as first:
                self.pause()
                check(sys.exc_info()[1] is first, "the exception being handled", sys.exc_info())
                names = [frame.name for frame in traceback.extract_tb(first.__traceback__)]
                check(names == ["do_exceptions"] + ["raising"] * (depth + 1), "a traceback", names)
                try:
                    self.pause()
                    raise ArithmeticError(self.number) from first
                except ArithmeticError as second:
                    self.pause()
                    check(second.__context__ is first and second.__cause__ is first, "a context", second.__context__)
                    check(sys.exc_info()[1] is second, "the inner exception", sys.exc_info())
                    text = "".join(traceback.format_exception(second))
                    check(f"LookupError: {self.number}" in text, "a printed traceback", text)
                self.pause()
                check(sys.exc_info()[1] is first, "the outer exception", sys.exc_info())
                raise
        except LookupError as again:
            check(again.args == (self.number,), "what was raised again", again)
        check(sys.exc_info() == NOTHING, "exc_info after handlers", sys.exc_info())

    def do_finally(self) -> None:
        """Nested try/finally with waits: each block runs once, innermost first, also in a cancellation."""
        order: list[int] = []

        def nest(depth: int) -> int:
            value = [depth] * 3
            try:
                self.pause()
                return nest(depth - 1) + 1 if depth else 0
            finally:
                try:
                    self.pause()
                finally:
                    check(value == [depth] * 3, "locals in finally", value)
                    order.append(depth)

        depth = self.dice.randint(0, 12)
        try:
            check(nest(depth) == depth, "nested finally")
            check(order == list(range(depth + 1)), "order of finally", order)
        finally:
            check(order == sorted(order) and len(set(order)) == len(order), "order of finally", order)

    def do_contextvars(self) -> None:
        other = contextvars.copy_context()
        outside = NUMBER.get()

        def inside() -> str:
            NUMBER.set(-self.number)
            self.pause()
            with decimal.localcontext() as numbers:
                numbers.prec = 5 + self.number % 20
                self.pause()
                third = str(decimal.Decimal(1) / 3)
            check(NUMBER.get() == -self.number, "a context variable inside Context.run", NUMBER.get())
            return third

        check(len(other.run(inside)) == 2 + 5 + self.number % 20, "precision")
        check(NUMBER.get() == outside and other[NUMBER] == -self.number, "a context after Context.run")

        def child() -> int:
            NUMBER.set(NUMBER.get() + 1)
            self.pause()
            return NUMBER.get()

        check(self.family(child, child) == [outside + 1] * 2, "a child's context")
        check(NUMBER.get() == outside, "the parent's context", NUMBER.get())

    def do_generators(self) -> None:
        """Generators and coroutines that wait, suspended in a handler, and go on in another fiber."""

        def numbers() -> Generator[int, int, str]:
            total = 0
            for n in range(12):
                try:
                    raise LookupError(n)
                except LookupError as error:
                    self.pause()
                    sent = yield n + total
                    check(sys.exc_info()[1] is error, "a generator's exception", sys.exc_info())
                    total += sent
            return f"total {total}"

        class Step:
            def __await__(self) -> Generator[int, int, int]:
                return (yield 1)

        async def coroutine() -> int:
            total = 0
            for n in range(12):
                total += await Step()
                self.pause()
                check(n < 12, "a coroutine's local", n)
            return total

        for moved, first, result in ((numbers(), 0, "total 24"), (coroutine(), 1, 24)):
            steps = 0
            ended: list[object] = []

            def go_on(moved: Any = moved, first: int = first, ended: list[object] = ended) -> None:
                nonlocal steps
                for _ in range(self.dice.randint(1, 5)):
                    if ended:
                        return
                    try:
                        value = moved.send(2 if steps else None)
                    except StopIteration as end:
                        ended.append(end.value)
                        return
                    expected = first if first else steps + 2 * steps
                    check(value == expected, "a generator's value", value, expected)
                    steps += 1
                    check(sys.exc_info() == NOTHING, "exc_info around a generator", sys.exc_info())

            try:
                while not ended:
                    if self.dice.random() < 0.5:
                        go_on()
                    else:
                        self.family(go_on)
                    if steps and self.dice.random() < 0.05:
                        break
                check(not ended or ended == [result], "a generator's result", ended)
            finally:
                moved.close()

    # ------------------------------------------------------------------------------------ recursion, C code

    def do_recursion(self) -> None:
        """Python recursion, with a wait at the bottom: the locals of every level survive."""

        def down(n: int) -> int:
            local = (n, n * 3)
            result = down(n - 1) if n else self.pause() or 0
            check(local == (n, n * 3), "a local of a recursion", local)
            return result + 1

        n = self.dice.choice((5, 50, 300, 700))
        check(down(n) == n + 1, "depth of a recursion")

    def do_recursion_error(self) -> None:
        def forever(n: int) -> int:
            return forever(n + 1) + 1

        depth = 0

        def nest() -> None:
            nonlocal depth
            depth += 1
            sorted([0], key=lambda _: nest() or 0)

        for function in (functools.partial(forever, 0), nest):
            try:
                function()
            except RecursionError as error:
                self.pause()
                check(sys.exc_info()[1] is error, "a RecursionError", sys.exc_info())
            else:
                check(False, "endless recursion came back")
        check(depth > 50, "C recursion ended early", depth)
        check(sys.exc_info() == NOTHING, "exc_info after RecursionError", sys.exc_info())

    def do_c_recursion(self) -> None:
        depth = self.dice.choice((10, 60, 150, 2000))
        nested: Any = []
        for _ in range(depth):
            nested = [nested]
        for function, expected in (
            (lambda: repr(nested), "[" * (depth + 1) + "]" * (depth + 1)),
            (lambda: json.dumps(nested), "[" * (depth + 1) + "]" * (depth + 1)),
            (lambda: len(pickle.loads(pickle.dumps(nested))), min(depth, 1)),
            (lambda: copy.deepcopy(nested) is not nested, True),
            (lambda: nested == pickle.loads(pickle.dumps(nested)), True),
            (lambda: eval("(" * (depth % 60) + "5" + ")" * (depth % 60)), 5),
        ):
            try:
                found = function()
            except RecursionError:
                check(depth > 100, "RecursionError at a small depth", depth)
                continue
            check(found == expected, "C recursion", depth, found)
        self.pause()

    def do_wait_below_c(self) -> None:
        """A wait with C frames below it: sorted, re, json, pickle, dict, ctypes."""
        numbers = [self.dice.randrange(100) for _ in range(10)]
        cancelled: list[BaseException] = []

        def sorting(depth: int) -> list[int]:
            def key(n: int) -> int:
                if depth and n == numbers[0]:
                    check(sorting(depth - 1) == sorted(numbers), "sorted, inside")
                self.pause()
                return n

            return sorted(numbers, key=key)

        class Slow:
            def __init__(self, value: int) -> None:
                self.value = value

            def __hash__(me) -> int:
                self.pause()
                return 7

            def __eq__(me, other: object) -> bool:
                self.pause()
                return isinstance(other, Slow) and me.value == other.value

            def __repr__(me) -> str:
                self.pause()
                return f"<{me.value}>"

            def __getstate__(me) -> dict[str, int]:
                self.pause()
                return {"value": me.value}

        def default(slow: Any) -> int:
            self.pause()
            return int(slow.value)

        def substitute(match: re.Match[str]) -> str:
            self.pause()
            return match[0] * 2

        def compare(a: Any, b: Any) -> int:
            if not cancelled:
                try:
                    self.pause()
                except swapco.CancelledError as error:
                    cancelled.append(error)
            return int(a[0] - b[0])

        which = self.dice.randrange(7)
        slow = [Slow(n) for n in range(3)]
        if which == 0:
            check(sorting(self.dice.choice((0, 1, 4))) == sorted(numbers), "sorted")
        elif which == 1:
            check(re.sub("[a-c]", substitute, "xaybzc") == "xaaybbzcc", "re.sub")
        elif which == 2:
            check(json.dumps({"a": slow}, default=default) == '{"a": [0, 1, 2]}', "json")
        elif which == 3:
            table = dict.fromkeys(slow, 1)
            check(len(table) == 3 and Slow(2) in table and Slow(4) not in table, "dict")
        elif which == 4:
            check(repr([slow, {1: slow}]) == "[[<0>, <1>, <2>], {1: [<0>, <1>, <2>]}]", "repr")
        elif which == 5:
            check(slow.index(Slow(2)) == 2 and max(slow, key=default).value == 2, "list.index, max")
        else:
            array = (ctypes.c_int * 10)(*numbers)
            _qsort(array, 10, ctypes.sizeof(ctypes.c_int), _COMPARE(compare))
            check(list(array) == sorted(numbers), "qsort", list(array), numbers)
            if cancelled:
                raise cancelled[0]

    # ------------------------------------------------------------------------------------ memory

    def do_collect(self) -> None:
        class Knot:
            pass

        alive = []
        for _ in range(self.dice.randint(1, 20)):
            a, b = Knot(), Knot()
            a.other, b.other = b, a  # type: ignore[attr-defined]
            alive.append(weakref.ref(a))
        del a, b
        how = self.dice.randrange(6)
        if how == 0:
            self.pause()
            gc.unfreeze()
            gc.collect()
            check(not any(ref() for ref in alive), "garbage that is still there")
        elif how == 1:
            gc.collect(self.dice.randrange(3))
        elif how == 2:
            gc.freeze()
            try:
                self.pause()
            finally:
                gc.unfreeze()
        else:
            gc.set_threshold(self.dice.choice((50, 700, 2000)), 10, 10)

    def do_dealloc(self) -> None:
        """Long chains of deallocations, also with a finalizer at the end that waits."""
        ended: list[int] = []

        class Last:
            def __del__(me) -> None:
                before = sys.exc_info()[1]
                try:
                    self.pause()
                except swapco.CancelledError:
                    pass
                except RuntimeError as error:
                    # it was the garbage collector
                    if "finalizer" not in str(error):
                        raise
                check(sys.exc_info()[1] is before, "exc_info in a finalizer")
                ended.append(1)

        # in a list: who looks at f_locals of this frame meanwhile (3.11, 3.12) keeps what the names refer to
        box: list[Any] = [Last()]
        for _ in range(self.dice.choice((10, 49, 51, 100, 20_000))):
            box[0] = self.dice.choice(((box[0],), [box[0]], {1: box[0]}))
        self.pause()
        box.clear()
        check(ended == [1] or self.eventually(lambda: ended == [1]), "a chain's end", ended)

    # ------------------------------------------------------------------------------------ observers

    def do_trace(self) -> None:
        """Trace and profile functions come and go while fibers are parked; what is traced is complete."""
        shared = self.shared
        if shared.tracing:
            return
        events: list[tuple[str, str]] = []
        mine = threading.get_ident()
        naps = self.dice.random() < 0.3

        def traced() -> int:
            n = 1
            self.pause()
            return n

        code = traced.__code__

        def trace(frame: Any, event: str, argument: object) -> Any:
            if threading.get_ident() == mine and frame.f_code is code:
                events.append((event, frame.f_code.co_name))
                if naps:
                    try:
                        swapco.sleep(0)
                    except swapco.CancelledError:
                        pass
            return trace

        shared.tracing = True
        how = self.dice.choice(("settrace", "setprofile"))
        getattr(sys, how)(trace)
        try:
            check(traced() == 1, "a traced function")
            # a RecursionError in somebody's call of the function uninstalls it
            complete = getattr(sys, how.replace("set", "get"))() is trace
        finally:
            getattr(sys, how)(None)
            shared.tracing = False
        kinds = [kind for kind, _ in events if kind in ("call", "return")]
        check(not complete or kinds == ["call", "return"], "traced events", how, naps, events)

    def do_frames(self) -> None:
        """What a parked fiber shows: its frames, and its printed stack."""

        def parked(depth: int) -> None:
            if depth:
                return parked(depth - 1)
            swapco.block()

        depth = self.dice.randint(0, 20)
        child = swapco.spawn(parked, depth)
        try:
            while child.state != "BLOCKED":
                swapco.sleep(0)
            names = []
            frame = child.frame
            while frame is not None:
                names.append(frame.f_code.co_name)
                frame = frame.f_back
            check(names.count("parked") == depth + 1, "frames of a parked fiber", names)
            printed = io.StringIO()
            child.print_stack(file=printed)
            check("in parked" in printed.getvalue(), "a printed stack", printed.getvalue())
            victim = self.dice.choice(self.shared.workers)
            victim.print_stack(file=printed)
            frame = victim.frame
            while frame is not None:
                frame.f_lineno
                check(isinstance(frame.f_locals, object), "locals of another fiber")
                frame = frame.f_back
            if self.dice.random() < 0.05:
                swapco.dump_fibers(printed)
        finally:
            child.cancel()
        self.eventually(child.done)
        check(child.cancelled(), "a cancelled child", child)

    def do_greenlets(self) -> None:
        """A program's own greenlets, which begin and end in this fiber."""

        def counting(start: int) -> str:
            parent = greenlet.getcurrent().parent
            assert parent is not None
            value = start
            for _ in range(5):
                value = parent.switch(value + 1)
            return f"ended at {value}"

        def waiting() -> object:
            if self.shared.switch == "native":
                try:
                    swapco.sleep(0)
                except RuntimeError as error:
                    return "greenlet" in str(error)
                return False
            try:
                self.pause()
            except swapco.CancelledError:
                pass
            return True

        def raising() -> None:
            raise LookupError("out of a greenlet")

        some = [greenlet.greenlet(counting) for _ in range(3)]
        values = [10, 20, 30]
        for _ in range(5):
            values = [one.switch(value) for one, value in zip(some, values, strict=True)]
        ends = [one.switch(value) for one, value in zip(some, values, strict=True)]
        check(ends == ["ended at 15", "ended at 25", "ended at 35"], "greenlets", ends)
        unfinished = greenlet.greenlet(counting)
        unfinished.switch(0)
        del unfinished
        check(greenlet.greenlet(waiting).switch() is True, "a wait inside a greenlet")
        try:
            greenlet.greenlet(raising).switch()
        except LookupError:
            self.pause()
        else:
            check(False, "an exception out of a greenlet was lost")
