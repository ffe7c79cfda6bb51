from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .._core.fiber import FiberCore

_T = TypeVar("_T")

class AwaitingFiber(FiberCore): ...

def at_home(fn: Callable[..., _T], args: tuple[Any, ...]) -> _T: ...
def await_(awaitable: Awaitable[_T]) -> _T: ...
