from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

async def acquire_by_helper(acquire: Callable[[], _T], undo: Callable[[], object], name: str) -> _T: ...
