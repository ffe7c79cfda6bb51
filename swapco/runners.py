"""``run`` and ``Runner``: from an ordinary program into fibers and back.

As asyncio.Runner: the loop is made when first needed, ``run`` may be called several times, and closing cancels
what is left, waits for it, and shuts asynchronous generators and the default executor down.

Ctrl-C: the first one cancels the main fiber, so that it can clean up, and comes out of ``run`` as
KeyboardInterrupt; a second one is raised at once, wherever the program is.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from ._core.backends import asked_for
from ._loop.compat import get_running_loop
from ._loop.loop import Loop, hub_of, is_stuck, new_event_loop, ran_before_fork
from ._loop.task import Fiber
from .monitor.watchdog import Watchdog
from .monitor.watchdog import asked_for as watchdog_asked_for

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from ._core.policy import Policy
    from ._core.scheduler import Scheduler
    from ._core.slot import Slot

__all__ = ["Runner", "run"]

T = TypeVar("T")

#: How often a loop that closes looks whether only threads in the kernel are left.
_LOOK_S = 0.1


class Runner:
    """A context manager that runs fibers: several ``run`` calls share one event loop and one context.

    ``debug`` switches asyncio's debug mode; ``policy`` decides who runs next (Fifo unless given); ``switch`` is what
    fibers run on, "native" or "greenlet" (native stacks unless ``SWAPCO_SWITCH`` or the machine says otherwise);
    ``slot`` has the options of kernel threads (a ``swapco.lowlevel.Slot``, for one loop only); ``watchdog`` has a
    thread log which fiber blocks or hogs the home worker: True or False, an interval in seconds, or None for what
    ``SWAPCO_WATCHDOG`` says ("0", "1" or seconds), and without that in debug mode only; ``loop_factory`` makes the
    loop (it must be a ``swapco.Loop``); ``shutdown_timeout`` is how long, in seconds, closing waits for thread fibers
    that block in the kernel (then they are left alone, with a warning), for fibers that wait for such ones or for a
    kernel thread (then they are cancelled once more), and for threads of the default executor; None waits for as long
    as it takes.  TypeError and ValueError for what none of these can be, at once.
    """

    def __init__(
        self,
        *,
        debug: bool | None = None,
        policy: Policy | None = None,
        switch: str | None = None,
        slot: Slot | None = None,
        watchdog: bool | float | None = None,
        loop_factory: Callable[[], Loop] | None = None,
        shutdown_timeout: float | None = 5.0,
    ) -> None:
        if loop_factory is not None and (policy, switch, slot) != (None, None, None):
            raise TypeError(
                "give loop_factory=, or policy=, switch= and slot=, not both: the factory decides about the loop"
            )
        asked_for(switch)
        watchdog_asked_for(watchdog, debug=False)
        shutdown_timeout = _checked_timeout(shutdown_timeout)
        self._debug = debug
        self._policy = policy
        self._switch = switch
        self._slot = slot
        self._watchdog_argument = watchdog
        self._watchdog: Watchdog | None = None
        self._loop_factory = loop_factory
        self._shutdown_timeout = shutdown_timeout
        self._loop: Loop | None = None
        self._context: contextvars.Context | None = None
        self._interrupts = 0
        self._closed = False

    def __enter__(self) -> Runner:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get_loop(self) -> Loop:
        """The event loop; made if there is none yet."""
        self._start()
        assert self._loop is not None
        return self._loop

    def _start(self) -> None:
        if self._closed:
            raise RuntimeError("this Runner is closed: make a new one")
        if self._loop is not None:
            self._loop._check_place()
            return
        if self._loop_factory is None:
            loop = new_event_loop(policy=self._policy, switch=self._switch, slot=self._slot)
        else:
            loop = self._loop_factory()
        if not isinstance(loop, Loop):
            if hasattr(loop, "close"):
                loop.close()
            raise TypeError(f"loop_factory must make a swapco.Loop, not {type(loop).__name__}")
        try:
            loop._check_place()
        except RuntimeError:
            loop.close()
            raise
        if self._debug is not None:
            loop.set_debug(self._debug)
        self._loop = loop
        self._context = contextvars.copy_context()

    def _watch(self, loop: Loop) -> None:
        """Have the watchdog run, if there shall be one."""
        if self._watchdog is None:
            interval = watchdog_asked_for(self._watchdog_argument, loop.get_debug())
            if interval is None:
                return
            self._watchdog = Watchdog(loop, interval)
        # at the exit of the interpreter no thread can be started, but fibers run
        with contextlib.suppress(RuntimeError):
            self._watchdog.start()

    def run(
        self,
        main: Callable[..., T] | Coroutine[Any, Any, T],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> T:
        """Run ``main(*args)`` in a fiber, and the event loop until it is done; return its result.

        ``main`` is a function, an ``async def`` function or a coroutine object.  Errors: RuntimeError inside a
        running event loop; TypeError for anything else as ``main``; KeyboardInterrupt after a Ctrl-C.
        """
        _refuse_running_loop(main)
        if not callable(main) and not inspect.iscoroutine(main):
            raise TypeError(
                f"run() takes a function, an async def function or a coroutine, not {main!r}; "
                "write run(main, x), not run(main(x))"
            )
        self._start()
        loop = self._loop
        assert loop is not None
        hub = hub_of(loop)
        fiber = hub.new_main(main, args, self._context if context is None else context)
        handler = self._take_over_sigint(fiber)
        hub.interrupt_handler = handler
        try:
            self._watch(loop)
            result: T = loop.run_until_complete(fiber)
            return result
        except asyncio.CancelledError:
            if self._interrupts > 0 and fiber.uncancel() == 0:
                raise KeyboardInterrupt from None
            raise
        finally:
            hub.scheduler.main = None
            if handler is not None and signal.getsignal(signal.SIGINT) is handler:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _take_over_sigint(self, fiber: Fiber) -> Any:
        """Install the Ctrl-C handler, where Python's own is in place; returns it, or None."""
        self._interrupts = 0
        if threading.current_thread() is not threading.main_thread():
            return None
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return None
        handler = functools.partial(self._on_sigint, fiber=fiber)
        try:
            signal.signal(signal.SIGINT, handler)
        except ValueError:  # an embedding that does not allow it
            return None
        return handler

    def _on_sigint(self, number: int, frame: FrameType | None, *, fiber: Fiber) -> None:
        self._interrupts += 1
        if self._interrupts == 1 and not fiber.done():
            fiber.cancel()
            # from a signal handler: whatever the loop does, it must look
            assert self._loop is not None
            self._loop.call_soon_threadsafe(_nothing)
            return
        raise KeyboardInterrupt

    def close(self) -> None:
        """Cancel what is left, wait for it, and close the loop.  More than once is fine.

        In a forked child nothing is left to wait for: that is the parent's.
        """
        if self._closed:
            return
        if get_running_loop() is not None:
            raise RuntimeError("a Runner cannot be closed while an event loop runs in this thread")
        self._closed = True
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            if ran_before_fork(loop) or is_stuck(loop):
                return
            _cancel_everything(loop, self._shutdown_timeout)
            loop.run_until_complete(loop.shutdown_asyncgens())
            if sys.version_info >= (3, 12):
                loop.run_until_complete(loop.shutdown_default_executor(self._shutdown_timeout))
            else:
                loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
            if self._watchdog is not None:
                self._watchdog.stop()


def run(
    main: Callable[..., T] | Coroutine[Any, Any, T],
    *args: Any,
    debug: bool | None = None,
    policy: Policy | None = None,
    switch: str | None = None,
    slot: Slot | None = None,
    watchdog: bool | float | None = None,
    loop_factory: Callable[[], Loop] | None = None,
    shutdown_timeout: float | None = 5.0,
) -> T:
    """Run ``main(*args)`` in a fiber on a new event loop; return its result.

    ``main`` is a function, an ``async def`` function or a coroutine object.  At the end, fibers and tasks that
    are left are cancelled, as by asyncio.run.  See ``Runner`` for the keywords and the errors.
    """
    _refuse_running_loop(main)
    with Runner(
        debug=debug,
        policy=policy,
        switch=switch,
        slot=slot,
        watchdog=watchdog,
        loop_factory=loop_factory,
        shutdown_timeout=shutdown_timeout,
    ) as runner:
        return runner.run(main, *args)


def _checked_timeout(timeout: Any) -> float | None:
    """What ``shutdown_timeout`` may be, before the program runs; what is longer than a thread can wait is for ever."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"shutdown_timeout is a number of seconds, or None to wait for ever, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"shutdown_timeout is a number of seconds from 0 on, or None, not {timeout!r}")
    return None if timeout > threading.TIMEOUT_MAX else float(timeout)


def _nothing() -> None:
    """A loop callback that only makes the loop turn."""


def _refuse_running_loop(main: Any) -> None:
    if get_running_loop() is None:
        return
    if inspect.iscoroutine(main):
        main.close()
    raise RuntimeError(
        "run() was called while an event loop runs in this thread: inside a fiber call the function "
        "directly, or spawn() it; inside a coroutine await the fiber that spawn() returns"
    )


def _cancel_everything(loop: Loop, timeout: float | None) -> None:
    """Cancel every fiber and task of the loop, and run it until they are done.

    Nobody can interrupt a thread fiber that blocks in the kernel: ``timeout`` is how long, in seconds, those may
    take to come back; then the loop is closed without them.  That cancels once more who waits for them.
    """
    rest: list[Any] = list(hub_of(loop).scheduler.fibers())
    rest += [task for task in asyncio.all_tasks(loop) if task not in rest]
    if not rest:
        return
    for item in rest:
        item.cancel()
    loop.run_until_complete(_all_done(rest, hub_of(loop).scheduler, timeout))
    for item in rest:
        if item.done() and not item.cancelled() and item.exception() is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception during swapco.run() shutdown",
                    "exception": item.exception(),
                    "task": item,
                }
            )


async def _all_done(items: list[Any], scheduler: Scheduler, timeout: float | None) -> None:
    loop = asyncio.get_running_loop()
    give_up = None if timeout is None else loop.time() + timeout
    pending = set(items)
    while pending:
        rest = None if give_up is None else max(give_up - loop.time(), _LOOK_S)
        _, pending = await asyncio.wait(pending, timeout=rest)
        if give_up is None or loop.time() < give_up or not all(isinstance(item, Fiber) for item in pending):
            continue
        if all(item.state == "DETACHED" for item in pending) or scheduler.waits_for_threads():
            return
