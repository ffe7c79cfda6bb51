"""One test body, two libraries: asyncio is the oracle.

``@parity`` takes an ``async def`` test written for asyncio and makes two tests of it.  One runs it as it is,
under asyncio.  The other deletes the words ``async`` and ``await`` from its syntax tree, as a user who ports
a program does, and runs it under swapco.  What the two do not have in common comes through the argument
``lib``: classes by asyncio's names, ``lib.start(fn, *args)`` (a task or a fiber), ``await lib.join(t)``,
``await lib.sleep(delay)`` and ``await lib.settle()``, which lets everything run that can.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import swapco
import swapco.locks
import swapco.queues

NAMES = [
    "Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier",
    "Queue", "LifoQueue", "PriorityQueue",
]  # fmt: skip


async def _join(task: asyncio.Task[Any]) -> Any:
    return await task


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def _settle_fibers() -> None:
    for _ in range(20):
        swapco.sleep(0)


ASYNCIO = SimpleNamespace(
    name="asyncio",
    start=lambda fn, *args: asyncio.create_task(fn(*args)),
    join=_join,
    sleep=asyncio.sleep,
    settle=_settle,
    CancelledError=asyncio.CancelledError,
    BrokenBarrierError=asyncio.BrokenBarrierError,
    QueueEmpty=asyncio.QueueEmpty,
    QueueFull=asyncio.QueueFull,
    QueueShutDown=getattr(asyncio, "QueueShutDown", None),
    **{name: getattr(asyncio, name) for name in NAMES},
)

SWAPCO = SimpleNamespace(
    name="swapco",
    start=swapco.spawn,
    join=swapco.Fiber.join,
    sleep=swapco.sleep,
    settle=_settle_fibers,
    CancelledError=swapco.CancelledError,
    BrokenBarrierError=asyncio.BrokenBarrierError,
    QueueEmpty=swapco.QueueEmpty,
    QueueFull=swapco.QueueFull,
    QueueShutDown=swapco.QueueShutDown,
    **{name: getattr(swapco.locks, name, None) or getattr(swapco.queues, name) for name in NAMES},
)


class _DeleteAsync(ast.NodeTransformer):
    """``async`` and ``await``, deleted."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        return ast.copy_location(ast.FunctionDef(**{f: getattr(node, f) for f in node._fields}), node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        self.generic_visit(node)
        return ast.copy_location(ast.With(**{f: getattr(node, f) for f in node._fields}), node)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        self.generic_visit(node)
        return node.value


def without_async(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function with ``async`` and ``await`` deleted from its source."""
    lines, first = inspect.getsourcelines(fn)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    body = tree.body[0]
    assert isinstance(body, ast.AsyncFunctionDef)
    body.decorator_list = []
    tree = ast.fix_missing_locations(_DeleteAsync().visit(tree))
    ast.increment_lineno(tree, first - 1)
    namespace: dict[str, Any] = {}
    exec(compile(tree, inspect.getsourcefile(fn) or "?", "exec"), fn.__globals__, namespace)
    result: Callable[..., Any] = namespace[fn.__name__]
    return result


def parity(fn: Callable[[Any], Any]) -> Callable[[str], None]:
    """Run one asyncio test body against asyncio, and against swapco with ``async`` and ``await`` deleted."""
    fiber_body = without_async(fn)

    @pytest.mark.parametrize("library", ["asyncio", "swapco"])
    def test(library: str) -> None:
        if library == "asyncio":
            asyncio.run(fn(ASYNCIO))
        else:
            swapco.run(fiber_body, SWAPCO)

    test.__name__, test.__doc__, test.__module__ = fn.__name__, fn.__doc__, fn.__module__
    return test
