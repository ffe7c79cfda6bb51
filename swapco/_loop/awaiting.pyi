from collections.abc import Awaitable
from typing import TypeVar

from .._core.fiber import FiberCore

_T = TypeVar("_T")

class AwaitingFiber(FiberCore): ...

def await_(awaitable: Awaitable[_T]) -> _T: ...
