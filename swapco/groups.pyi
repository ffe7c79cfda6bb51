from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Literal, TypeVar, TypeVarTuple, Unpack, overload

from ._core.fiber import Watcher
from ._loop.task import Fiber

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

class TaskGroup(Watcher):
    @overload
    def spawn(
        self,
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
        self,
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
        self,
        fn: Callable[[Unpack[_Ts]], _T],
        *args: *_Ts,
        name: object = None,
        context: Context | None = None,
        thread: bool = False,
        priority: Any = 0,
        deadline: float | None = None,
    ) -> Fiber[_T]: ...
    def create_task(
        self, coro: Coroutine[Any, Any, _T], *, name: object = None, context: Context | None = None
    ) -> Fiber[_T]: ...
    def __enter__(self) -> TaskGroup: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]: ...
