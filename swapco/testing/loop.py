"""The event loop of a controlled run: asyncio's interface, in memory.

Callbacks run one at a time, in ``call_soon`` order, whenever the run's strategy names the loop.  ``call_later`` arms a
timer of the run's virtual clock; that it fires is a choice, too.  Tasks run on fibers: ``create_task`` and
``asyncio.TaskGroup`` spawn, so that a coroutine may call plain functions that block.  What a schedule could not repeat
(sockets, processes, signals, calls from other threads) raises RealIOError, which names the call site; an executor's
call runs as a fiber.
"""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, Any

from .._loop.compat import get_running_loop
from .points import refuse_real
from .timers import CallHandle, arm_call, disarm_call

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from .control import Control

__all__ = ["ControlledLoop"]

_REFUSED = [
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
    "sendfile",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "subprocess_exec",
    "subprocess_shell",
]


class ControlledLoop(asyncio.AbstractEventLoop):
    """What ``asyncio.get_running_loop()`` returns in a controlled run."""

    _hub: Any = None

    def __init__(self, control: Control) -> None:
        self._control = control
        self._problem: BaseException | None = None
        self._handler: Callable[[ControlledLoop, dict[str, Any]], object] | None = None
        self._running = False
        self._used = False

    def __repr__(self) -> str:
        return "<ControlledLoop of swapco.testing>"

    # -- a run

    def _begin(self) -> None:
        self._problem = self._handler = None
        self._ready: collections.deque[asyncio.Handle] = collections.deque()
        self._control.callbacks = self._ready
        self._running = True

    def _end(self) -> None:
        self._running = False
        self._ready.clear()

    def _run_one(self) -> bool:
        """Run the next callback; False if there is none."""
        if not self._ready:
            return False
        handle = self._ready.popleft()
        if not handle.cancelled():
            handle._run()
        return True

    # -- callbacks and time

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call it when the strategy names the loop, after those that were called for before."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """The same; RealIOError from another thread."""
        self._only_here("call_soon_threadsafe() from another thread")
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it ``delay`` virtual seconds from now."""
        return self.call_at(self.time() + max(0.0, delay), callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it at a point in virtual time."""
        handle = CallHandle(when, callback, args, self, context)
        arm_call(self._control, when, handle, self._ready)
        return handle

    def _timer_handle_cancelled(self, handle: CallHandle) -> None:
        """asyncio.TimerHandle calls this."""
        disarm_call(self._control, handle)

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._control.time()

    # -- futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any) -> Any:
        """A fiber that runs the coroutine."""
        from ..tasks import spawn

        return spawn(coro, name=name, context=context)

    def set_task_factory(self, factory: Any) -> None:
        """RuntimeError: tasks run on fibers here."""
        if factory is not None:
            raise RuntimeError("in a controlled run tasks run on fibers: it has no task factory")

    def get_task_factory(self) -> None:
        """None."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Call it in a fiber: the order of such calls is a choice, too."""
        from ..tasks import spawn

        return spawn(func, *args, name=f"executor({getattr(func, '__qualname__', func)})", thread=True)

    def set_default_executor(self, executor: Any) -> None:
        """Nothing: calls run in fibers."""

    # -- state

    def is_running(self) -> bool:
        """True while a run goes on."""
        return self._running

    def is_closed(self) -> bool:
        """False."""
        return False

    def get_debug(self) -> bool:
        """False."""
        # every future asks when it is made
        self._used = True
        return False

    def set_debug(self, enabled: bool) -> None:
        """Nothing."""

    def run_forever(self) -> None:
        """RuntimeError: the loop runs already."""
        raise RuntimeError("this event loop is running already: it belongs to a controlled run")

    def run_until_complete(self, future: Any) -> Any:
        """RuntimeError: the loop runs already."""
        raise RuntimeError("this event loop is running already: it belongs to a controlled run; use await_(...)")

    def stop(self) -> None:
        """RuntimeError: the run ends with its body."""
        raise RuntimeError("a controlled run ends when its body does: its loop cannot be stopped")

    def close(self) -> None:
        """RuntimeError."""
        raise RuntimeError("the loop of a controlled run cannot be closed")

    async def shutdown_asyncgens(self) -> None:
        """Nothing."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing."""

    # -- exceptions

    def set_exception_handler(self, handler: Any) -> None:
        """As asyncio's."""
        self._handler = handler

    def get_exception_handler(self) -> Any:
        """As asyncio's."""
        return self._handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """It fails the run."""
        if self._problem is None:
            self._problem = context.get("exception") or RuntimeError(str(context.get("message")))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that nobody else sees: the program's handler gets it, or it fails the run."""
        if not self._running:
            # about what an earlier run has left behind, and is collected only now
            return
        if self._handler is None:
            self.default_exception_handler(context)
        else:
            self._handler(self, context)

    def _only_here(self, what: str) -> None:
        if get_running_loop() is not self:
            refuse_real(what)


def _refuse(name: str) -> Any:
    def method(self: ControlledLoop, *args: Any, **kwargs: Any) -> Any:
        refuse_real(f"loop.{name}()")

    method.__name__ = name
    method.__doc__ = "RealIOError: its outcome depends on more than the schedule."
    return method


for _name in _REFUSED:
    setattr(ControlledLoop, _name, _refuse(_name))
ControlledLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
