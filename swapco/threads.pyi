from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, final

_P = ParamSpec("_P")
_T = TypeVar("_T")

def to_thread(func: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T: ...
@final
class blocking:
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

def known_blockers() -> list[tuple[Any, int]]: ...
def forget_blockers() -> None: ...
