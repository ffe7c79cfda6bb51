from typing import Any

from .control import Control

class CallTimer: ...

def arm_call(control: Control, when: float, handle: Any, ready: Any) -> None: ...
