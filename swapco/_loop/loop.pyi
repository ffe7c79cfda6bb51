import asyncio
from collections.abc import Callable
from contextvars import Context
from types import FrameType
from typing import Any

import uvloop

from .._core.clock import Clock
from .._core.policy import Policy
from .._core.scheduler import Scheduler
from .._core.slot import Slot
from .._core.switch import Backend
from .poller import PollingHub
from .task import Fiber

class LoopHub(PollingHub):
    interrupt_handler: Callable[[int, FrameType | None], object] | None
    def __init__(self, loop: Loop, policy: Policy | None, clock: Clock | None, backend: Backend) -> None: ...
    @property
    def scheduler(self) -> Scheduler: ...
    def new_main(self, main: Any, args: tuple[Any, ...], context: Context | None) -> Fiber[Any]: ...
    def turn(self) -> None: ...
    def watch_runs(self, debug: bool) -> None: ...

class Loop(uvloop.Loop):
    def __init__(
        self,
        *,
        policy: Policy | None = None,
        clock: Clock | None = None,
        switch: str | None = None,
        slot: Slot | None = None,
    ) -> None: ...
    def _check_place(self) -> None: ...
    def run_forever(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...

def hub_of(loop: Loop) -> LoopHub: ...
def ran_before_fork(loop: Loop) -> bool: ...
def is_stuck(loop: Loop) -> bool: ...
def new_event_loop(
    *,
    policy: Policy | None = None,
    clock: Clock | None = None,
    switch: str | None = None,
    slot: Slot | None = None,
) -> Loop: ...

class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> Loop: ...

def install() -> None: ...
