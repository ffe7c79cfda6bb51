"""swapco: stackful coroutines (fibers) with an API that reads like asyncio, minus ``async`` and ``await``.

This module only re-exports.  ``swapco.socket`` and ``swapco.lowlevel`` are modules of their own.
"""

from asyncio import BrokenBarrierError, TimeoutError

from . import from_thread
from . import lowlevel as lowlevel
from ._core.errors import (
    CancelledError,
    ChannelClosed,
    Deadlock,
    IncompleteReadError,
    InvalidStateError,
    LimitOverrunError,
    NotInFiber,
    QueueEmpty,
    QueueFull,
    QueueShutDown,
)
from ._core.verbs import block, resume, switch_to
from ._loop.awaiting import await_
from ._loop.loop import EventLoopPolicy, Loop, install, new_event_loop
from ._loop.task import Fiber
from .groups import TaskGroup
from .local import local
from .locks import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from .queues import LifoQueue, PriorityQueue, Queue
from .runners import Runner, run
from .streams import (
    Server,
    StreamReader,
    StreamWriter,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)
from .tasks import all_fibers, create_task, current_fiber, dump_fibers, sleep, spawn
from .threads import blocking, to_thread
from .timeouts import Timeout, timeout, timeout_at
from .waiting import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, as_completed, gather, shield, wait, wait_for

__version__ = "0.1.0"

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "CancelledError",
    "ChannelClosed",
    "Condition",
    "Deadlock",
    "Event",
    "EventLoopPolicy",
    "Fiber",
    "IncompleteReadError",
    "InvalidStateError",
    "LifoQueue",
    "LimitOverrunError",
    "Lock",
    "Loop",
    "NotInFiber",
    "PriorityQueue",
    "Queue",
    "QueueEmpty",
    "QueueFull",
    "QueueShutDown",
    "RLock",
    "Runner",
    "Semaphore",
    "Server",
    "StreamReader",
    "StreamWriter",
    "TaskGroup",
    "Timeout",
    "TimeoutError",
    "all_fibers",
    "as_completed",
    "await_",
    "block",
    "blocking",
    "create_task",
    "current_fiber",
    "dump_fibers",
    "from_thread",
    "gather",
    "install",
    "local",
    "new_event_loop",
    "open_connection",
    "open_unix_connection",
    "resume",
    "run",
    "shield",
    "sleep",
    "spawn",
    "start_server",
    "start_unix_server",
    "switch_to",
    "timeout",
    "timeout_at",
    "to_thread",
    "wait",
    "wait_for",
]
