from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TextIO, TypeVar, TypeVarTuple, Unpack, overload

from ._loop.task import Fiber

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

# An ``async def`` function has the result of its coroutine; every other callable has what it returns.
@overload
def spawn(
    fn: Coroutine[Any, Any, _T],
    *,
    name: object = None,
    context: Context | None = None,
    thread: bool = False,
    priority: Any = 0,
    deadline: float | None = None,
) -> Fiber[_T]: ...
@overload
def spawn(
    fn: Callable[[Unpack[_Ts]], Coroutine[Any, Any, _T]],
    *args: *_Ts,
    name: object = None,
    context: Context | None = None,
    thread: bool = False,
    priority: Any = 0,
    deadline: float | None = None,
) -> Fiber[_T]: ...
@overload
def spawn(
    fn: Callable[[Unpack[_Ts]], _T],
    *args: *_Ts,
    name: object = None,
    context: Context | None = None,
    thread: bool = False,
    priority: Any = 0,
    deadline: float | None = None,
) -> Fiber[_T]: ...
def create_task(
    coro: Coroutine[Any, Any, _T], *, name: object = None, context: Context | None = None
) -> Fiber[_T]: ...
@overload
def sleep(delay: float) -> None: ...
@overload
def sleep(delay: float, result: _T) -> _T: ...
def current_fiber() -> Fiber[Any]: ...
def all_fibers(loop: AbstractEventLoop | None = None) -> set[Fiber[Any]]: ...
def dump_fibers(file: TextIO | None = None) -> None: ...
