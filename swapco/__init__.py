"""swapco: stackful coroutines (fibers) with an API that reads like asyncio, minus async and await."""

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
from ._core.scheduler import block, resume, switch_to
from ._loop.awaiting import await_
from ._loop.loop import Loop, new_event_loop
from ._loop.task import Fiber
from .runners import Runner, run
from .tasks import all_fibers, create_task, current_fiber, dump_fibers, sleep, spawn
