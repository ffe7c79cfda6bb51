from collections.abc import Callable
from typing import Any, TypeVar

from .control import Control, Strategy
from .loop import ControlledLoop

_T = TypeVar("_T")

class Outcome:
    kind: str
    exception: BaseException | None
    result: Any
    def __init__(self, kind: str, exception: BaseException | None = None, result: object = None) -> None: ...
    @property
    def failed(self) -> bool: ...

class ControlledHub: ...

class ControlledSlot:
    control: Control
    loop: ControlledLoop
    def __init__(self, *, switch: str | None = None) -> None: ...
    def session(self, fn: Callable[[], _T]) -> _T: ...
    def execute(self, body: Callable[[], object], strategy: Strategy, run: int = 0) -> Outcome: ...
    def judge(self, main: Any) -> Outcome: ...
    @property
    def immortals(self) -> list[str]: ...
    @property
    def usable(self) -> bool: ...

