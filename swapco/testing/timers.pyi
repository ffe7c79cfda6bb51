import asyncio
from typing import Any

from .control import Control

class CallTimer: ...

class CallHandle(asyncio.TimerHandle):
    timer: CallTimer

def arm_call(control: Control, when: float, handle: CallHandle, ready: Any) -> None: ...
def disarm_call(control: Control, handle: CallHandle) -> None: ...
