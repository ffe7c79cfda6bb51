"""From a kernel thread into the event loop: run a function in an ordinary fiber, and wait for its result.

In a thread fiber (``spawn(fn, thread=True)``, ``to_thread``) the loop is known, and the thread fiber waits like any
other.  In a thread that swapco does not know, name the loop; the thread itself blocks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, TypeVar

from ._loop.awaiting import at_home
from ._loop.compat import get_running_loop
from ._loop.loop import Loop
from .tasks import spawn

__all__ = ["run"]

T = TypeVar("T")

#: How often a foreign thread that waits looks whether the loop was closed meanwhile.
_LOOK_S = 0.5


def run(fn: Callable[..., T], *args: Any, loop: Loop | None = None) -> T:
    """Call ``fn(*args)`` in an ordinary fiber of the event loop, on the loop's thread; return its result.

    ``fn`` is a function or an ``async def`` function.  Called from a thread fiber, which it blocks; from any other
    thread with ``loop=``, blocking the thread.  Cancelling the calling thread fiber cancels ``fn``.  Errors: what
    ``fn`` raises; RuntimeError in an ordinary fiber and wherever else an event loop runs in the calling thread (call
    ``fn`` directly if it is this loop, else go through ``to_thread``), without a loop, and when the loop is closed.
    """
    if loop is None:
        result: T = at_home(fn, args)
        return result
    if not isinstance(loop, Loop):
        raise TypeError(f"from_thread.run() needs a swapco.Loop, not {loop!r}")
    here = get_running_loop()
    if here is loop:
        raise RuntimeError("from_thread.run() was called in the thread of the event loop: call the function directly")
    if here is not None:
        raise RuntimeError(
            "from_thread.run() would block this thread, in which another event loop runs with all its fibers and "
            "tasks, until the function is done: wait in a thread, to_thread(from_thread.run, fn, loop=loop)"
        )
    return _run_from_outside(loop, fn, args)


def _run_from_outside(loop: Loop, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
    fibers: list[Any] = []

    def start() -> None:
        try:
            fiber = spawn(fn, *args, name=f"from_thread.run({getattr(fn, '__qualname__', fn)})")
        except BaseException as error:
            outcome.set_exception(error)
            return
        fibers.append(fiber)
        fiber.add_done_callback(deliver)

    def deliver(fiber: Any) -> None:
        try:
            error = fiber.exception()
        except asyncio.CancelledError as cancelled:
            error = cancelled
        if error is None:
            outcome.set_result(fiber.result())
        else:
            outcome.set_exception(error)

    loop.call_soon_threadsafe(start)  # RuntimeError if it is closed
    try:
        while True:
            try:
                return outcome.result(_LOOK_S)
            except concurrent.futures.TimeoutError:
                if outcome.done():
                    return outcome.result()
                if loop.is_closed():
                    raise RuntimeError(f"the event loop was closed before {fn!r} had ended") from None
    except BaseException:
        # Ctrl-C in this thread
        if not outcome.done() and fibers:
            fibers[0].cancel()
        raise
