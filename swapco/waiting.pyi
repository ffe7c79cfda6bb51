from asyncio import ALL_COMPLETED as ALL_COMPLETED
from asyncio import FIRST_COMPLETED as FIRST_COMPLETED
from asyncio import FIRST_EXCEPTION as FIRST_EXCEPTION
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias, TypeVar, overload

from ._loop.task import Fiber

_T = TypeVar("_T")
_T1 = TypeVar("_T1")
_T2 = TypeVar("_T2")
_T3 = TypeVar("_T3")
_T4 = TypeVar("_T4")

# What can be waited for: a fiber, an awaitable, or a function without arguments.
_Thing: TypeAlias = Fiber[_T] | Awaitable[_T] | Callable[[], Awaitable[_T]] | Callable[[], _T]
_Running: TypeAlias = Fiber[_T] | Future[_T]

@overload
def gather(a: _Thing[_T1], b: _Thing[_T2], /, *, return_exceptions: Literal[False] = False) -> tuple[_T1, _T2]: ...
