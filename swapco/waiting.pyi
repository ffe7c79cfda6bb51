from asyncio import ALL_COMPLETED as ALL_COMPLETED
from asyncio import FIRST_COMPLETED as FIRST_COMPLETED
from asyncio import FIRST_EXCEPTION as FIRST_EXCEPTION
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Literal, TypeAlias, TypeVar, overload

from ._loop.task import Fiber

_T = TypeVar("_T")
_T1 = TypeVar("_T1")
_T2 = TypeVar("_T2")
_T3 = TypeVar("_T3")

# Something to wait for: a fiber, an awaitable, or a function without arguments.  Of an ``async def`` function
# among several things the result is not known here: say ``spawn(fn)`` instead of ``fn``.
_Thing: TypeAlias = Fiber[_T] | Awaitable[_T] | Callable[[], _T]
_Things: TypeAlias = Iterable[_Thing[_T]]
# What it is while it runs.
_Running: TypeAlias = Fiber[_T] | Future[_T]

# As typeshed does for asyncio: a few results of different types are typed as a tuple (they come in a list).
@overload
def gather(  # type: ignore[overload-overlap]
    a: _Thing[_T1], b: _Thing[_T2], /, *, return_exceptions: Literal[False] = False
) -> tuple[_T1, _T2]: ...
@overload
def gather(  # type: ignore[overload-overlap]
    a: _Thing[_T1], b: _Thing[_T2], c: _Thing[_T3], /, *, return_exceptions: Literal[False] = False
) -> tuple[_T1, _T2, _T3]: ...
@overload
def gather(*coros_or_futures: _Thing[_T], return_exceptions: Literal[False] = False) -> list[_T]: ...
@overload
def gather(*coros_or_futures: _Thing[_T], return_exceptions: bool) -> list[_T | BaseException]: ...
def wait(
    fs: _Things[_T], *, timeout: float | None = None, return_when: str = "ALL_COMPLETED"
) -> tuple[set[_Running[_T]], set[_Running[_T]]]: ...
def as_completed(fs: _Things[_T], *, timeout: float | None = None) -> Iterator[_Running[_T]]: ...
@overload
def wait_for(fut: Fiber[_T] | Awaitable[_T], timeout: float | None) -> _T: ...
@overload
def wait_for(fut: Callable[[], Awaitable[_T]], timeout: float | None) -> _T: ...
@overload
def wait_for(fut: Callable[[], _T], timeout: float | None) -> _T: ...
@overload
def shield(arg: Fiber[_T] | Awaitable[_T]) -> _T: ...
@overload
def shield(arg: Callable[[], Awaitable[_T]]) -> _T: ...
@overload
def shield(arg: Callable[[], _T]) -> _T: ...
