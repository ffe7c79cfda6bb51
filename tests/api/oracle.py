"""One test body, two libraries: asyncio is the oracle.

A body is ``async def body(lib)`` and uses nothing but ``lib``, which has asyncio's names.  Under asyncio they are
asyncio's own.  Under swapco each of them is swapco's function, *called*: it blocks the fiber that drives the body,
and so there is nothing to await.  The wrappers below only put ``async`` and ``await`` back.

What differs by design is not here: see docs/porting.md and the tests of each module.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

import swapco


def _called(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """A blocking function as a coroutine function."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _entered(manager: Callable[..., Any]) -> type:
    """A ``with`` as an ``async with``."""

    class Entered:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.manager = manager(*args, **kwargs)

        async def __aenter__(self) -> Any:
            self.manager.__enter__()
            return self.manager

        async def __aexit__(self, *error: Any) -> Any:
            return self.manager.__exit__(*error)

    return Entered


async def _completed_by_asyncio(fs: Any, **kwargs: Any) -> Any:
    for next_one in asyncio.as_completed(fs, **kwargs):
        yield await next_one


async def _completed_by_swapco(fs: Any, **kwargs: Any) -> Any:
    for done in swapco.as_completed(fs, **kwargs):
        yield done.result()


class AsyncioLibrary:
    """asyncio, on uvloop."""

    name = "asyncio"
    TaskGroup = asyncio.TaskGroup
    timeout = staticmethod(asyncio.timeout)
    timeout_at = staticmethod(asyncio.timeout_at)
    gather = staticmethod(asyncio.gather)
    wait = staticmethod(asyncio.wait)
    wait_for = staticmethod(asyncio.wait_for)
    shield = staticmethod(asyncio.shield)
    sleep = staticmethod(asyncio.sleep)
    create_task = staticmethod(asyncio.create_task)
    current_task = staticmethod(asyncio.current_task)
    results_as_completed = staticmethod(_completed_by_asyncio)

    @staticmethod
    def run(body: Callable[[Any], Awaitable[Any]]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(body(AsyncioLibrary))


class SwapcoLibrary:
    """swapco, with ``async`` and ``await`` put back."""

    name = "swapco"
    TaskGroup = _entered(swapco.TaskGroup)
    timeout = _entered(swapco.timeout)
    timeout_at = _entered(swapco.timeout_at)
    gather = staticmethod(_called(swapco.gather))
    wait = staticmethod(_called(swapco.wait))
    wait_for = staticmethod(_called(swapco.wait_for))
    shield = staticmethod(_called(swapco.shield))
    sleep = staticmethod(_called(swapco.sleep))
    create_task = staticmethod(swapco.create_task)
    current_task = staticmethod(swapco.current_fiber)
    results_as_completed = staticmethod(_completed_by_swapco)

    @staticmethod
    def run(body: Callable[[Any], Awaitable[Any]]) -> Any:
        return swapco.run(body(SwapcoLibrary))


def on_both(body: Callable[..., Awaitable[Any]]) -> Callable[..., None]:
    """Make a test of ``async def body(lib, ...)`` that runs under both libraries."""
    names = list(inspect.signature(body).parameters)
    assert names[0] == "lib"

    @pytest.mark.parametrize("library", [AsyncioLibrary, SwapcoLibrary], ids=lambda library: library.name)
    @functools.wraps(body)
    def test(library: Any, **kwargs: Any) -> None:
        library.run(functools.partial(body, **kwargs))

    parameters = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in ["library", *names[1:]]]
    test.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    del test.__wrapped__  # type: ignore[attr-defined]
    return test
