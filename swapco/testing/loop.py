"""The event loop of a controlled run: asyncio's interface, in memory.

Callbacks run one at a time, in ``call_soon`` order, whenever the run's strategy names the loop.  ``call_later`` arms a
timer of the run's virtual clock; that it fires is a choice, too.  Tasks run on fibers: ``create_task`` and
``asyncio.TaskGroup`` spawn, so that a coroutine may call plain functions that block.  Connections and servers are made
in the network in memory that is patched in (see ``network`` and ``transports``).  What a schedule could not repeat
(sockets, processes, signals, calls from other threads) raises RealIOError, which names the call site; an executor's
call runs as a fiber.

A callback that wakes a task does not run it: the task is a fiber, and when it goes on is a choice.  So more orders are
possible than with asyncio's own tasks, whose step is the callback itself.  asyncio's ``StreamReader`` relies on that
(one that data has woken never looks again whether the connection is lost).  Therefore the events of a transport keep
asyncio's promise: they come when whoever an earlier callback has woken has gone on.  Until then the loop is no actor.
"""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, Any, Protocol

from .._loop.compat import get_running_loop, isfuture
from .points import refuse_real
from .timers import CallHandle, arm_call, disarm_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    "create_datagram_endpoint",
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
#: Refused, too, but where a network in memory is patched in.
_OF_A_NETWORK = ["create_connection", "create_server", "create_unix_connection", "create_unix_server", "getaddrinfo"]
_PATCH = "Run the program in `with swapco.testing.MemoryNetwork().patched():`: there the loop makes streams in memory"


class Network(Protocol):
    """Has the loop's methods that make streams."""

    @property
    def loop_methods(self) -> Any: ...


#: The networks in memory that are patched in, the innermost last.
networks: list[Network] = []


class _EventHandle(asyncio.Handle):
    """An event of a transport."""


class _Gate:
    """True if the loop has a callback that may run now."""

    def __init__(self, loop: ControlledLoop) -> None:
        self._loop = loop

    def __bool__(self) -> bool:
        return self._loop._has_turn()

    # reports name the first one
    def __iter__(self) -> Iterator[asyncio.Handle]:
        return iter(self._loop._ready)


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
        # who was woken by a callback and has not gone on, and what it awaited; None as long as there is no transport
        self._woken: list[tuple[Any, Any]] | None = None
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
            arguments = handle._args
            handle._run()
            if self._woken is not None:
                self._note_woken([one for one in arguments if isfuture(one)])
        return True

    def _note_woken(self, futures: list[Any]) -> None:
        """The callbacks of these have run."""
        assert self._woken is not None
        self._woken = [(fiber, future) for fiber, future in self._woken if fiber._fut_waiter is future]
        for future in futures:
            for fiber in self._control.fibers:
                if fiber is not None and fiber._fut_waiter is future and fiber.state == "READY":
                    self._woken.append((fiber, future))

    def _has_turn(self) -> bool:
        if not self._ready:
            return False
        if not self._woken or not isinstance(self._ready[0], _EventHandle):
            return True
        self._note_woken([])
        return not self._woken

    # -- callbacks and time

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call it when the strategy names the loop, after those that were called for before."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_event(self, callback: Callable[..., object], *args: Any, context: Context) -> None:
        """``call_soon`` for an event of a transport: tasks that earlier callbacks have woken go on before it."""
        if self._woken is None:
            self._woken = []
            self._control.callbacks = _Gate(self)
        self._ready.append(_EventHandle(callback, args, self, context))

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


def _ask_the_network(name: str) -> Any:
    def method(self: ControlledLoop, *args: Any, **kwargs: Any) -> Any:
        if networks:
            return getattr(networks[-1].loop_methods, name)(*args, **kwargs)
        refuse_real(f"loop.{name}()", _PATCH)

    method.__name__ = name
    method.__doc__ = "As asyncio's, in the network in memory that is patched in; without one, RealIOError."
    return method


for _name in _REFUSED:
    setattr(ControlledLoop, _name, _refuse(_name))
for _name in _OF_A_NETWORK:
    setattr(ControlledLoop, _name, _ask_the_network(_name))
