"""Where in the program something happens: frames of swapco and of the standard library do not count."""

from __future__ import annotations

import linecache
import os
import sysconfig
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Place", "depth_of", "is_library", "place_of_exception", "place_of_fiber", "place_of_frame",
           "places_of_fiber", "suspended"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# "swapco/": of compiled modules
_LIBRARIES = (_PACKAGE, "swapco/", "<frozen ")
_STANDARD = sysconfig.get_path("stdlib") + os.sep
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)


class Place(NamedTuple):
    """A line of the program."""

    file: str
    line: int
    function: str

    @property
    def source(self) -> str:
        """The text of the line."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def short(self) -> str:
        """``file.py:12``, without the directory."""
        return f"{os.path.basename(self.file)}:{self.line}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def is_library(file: str) -> bool:
    """Is it a file of swapco or of the standard library, and not of the program?"""
    if file.startswith(_LIBRARIES):
        return True
    return file.startswith(_STANDARD) and not any(part in file for part in _INSTALLED)


def place_of_frame(frame: FrameType | None) -> Place | None:
    """The innermost place of the program from ``frame`` outwards."""
    return next(_places_outwards(frame), None)


def _places_outwards(frame: FrameType | None) -> Iterator[Place]:
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            yield Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back


def place_of_exception(exception: BaseException, inner: int = 0) -> Place | None:
    """The innermost place of the program from which it was raised, without the ``inner`` innermost frames."""
    found = None
    traceback = exception.__traceback__
    for _ in range(depth_of(exception) - inner):
        assert traceback is not None
        code = traceback.tb_frame.f_code
        if not is_library(code.co_filename):
            found = Place(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    return found


def depth_of(exception: BaseException) -> int:
    """How many frames it has come through."""
    depth, traceback = 0, exception.__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    return depth


def place_of_fiber(fiber: Any, frame: FrameType | None) -> Place | None:
    """Where a fiber is: in the coroutine that it drives, if that is suspended, or else on its own stack."""
    return next(places_of_fiber(fiber, frame), None)


def places_of_fiber(fiber: Any, frame: FrameType | None) -> Iterator[Place]:
    """Where a fiber is, and from where that was called, outwards."""
    for inner in reversed([inner for _, inner in suspended(fiber)]):
        if not is_library(inner.f_code.co_filename):
            yield Place(inner.f_code.co_filename, inner.f_lineno, inner.f_code.co_name)
    yield from _places_outwards(frame)


def suspended(fiber: Any) -> Iterator[tuple[Any, FrameType]]:
    """The coroutines that a fiber drives, from the outermost on, if they have left the stack."""
    awaited = fiber.get_coro() if hasattr(fiber, "get_coro") else None
    while awaited is not None:
        following = None
        for prefix, below in (("cr", "await"), ("gi", "yieldfrom"), ("ag", "await")):
            frame = getattr(awaited, f"{prefix}_frame", None)
            if frame is not None and not getattr(awaited, f"{prefix}_running", False):
                yield awaited, frame
                following = getattr(awaited, f"{prefix}_{below}", None)
        awaited = following
