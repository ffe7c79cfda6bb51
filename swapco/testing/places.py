"""Where in the program something happens: frames of swapco and of the standard library do not count."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import linecache
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Place", "is_library", "place_of_exception", "place_of_frame"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARIES = (
    _PACKAGE,
    os.path.dirname(os.path.abspath(inspect.getfile(asyncio))) + os.sep,
    contextlib.__file__,
    # of compiled modules
    "swapco/",
    "<frozen ",
)


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
    """Is it a file of swapco or of asyncio, and not of the program?"""
    return file.startswith(_LIBRARIES)


def place_of_frame(frame: FrameType | None) -> Place | None:
    """The innermost place of the program from ``frame`` outwards."""
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


def place_of_exception(exception: BaseException) -> Place | None:
    """The innermost place of the program from which it was raised."""
    found = None
    traceback = exception.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not is_library(code.co_filename):
            found = Place(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    return found
