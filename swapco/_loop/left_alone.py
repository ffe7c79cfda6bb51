"""The warning about thread fibers that still block when their loop is closed: which, where, and what to do.

Nobody can end them, and nobody joins them any more, so this text is all that anybody will hear of them.
"""

from __future__ import annotations

import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["warn_of_left_fibers"]

#: So many are described; of the others the text has the number.
DESCRIBED = 5
#: What a thread of threading runs around the function that it is there for.
_AROUND = {
    getattr(threading.Thread, name).__code__
    for name in ("_bootstrap", "_bootstrap_inner", "run")
    if hasattr(threading.Thread, name)
}
#: Whose frames are not where a program closes its loop.
_OURS = ("swapco", "asyncio")


def warn_of_left_fibers(fibers: list[Any], loop: object) -> None:
    """Warn of thread fibers that the loop, which is about to be closed, leaves alone; at the line that closes it."""
    more = len(fibers) - DESCRIBED
    described = "; ".join(_describe(fiber) for fiber in fibers[:DESCRIBED]) + (f"; and {more} more" if more > 0 else "")
    warnings.warn(
        f"{len(fibers)} thread fibers block, and are left alone by the event loop that is closed: {described}. Nobody "
        "can interrupt them: give what blocks there a timeout of its own, or let the loop wait for longer with "
        "swapco.run(main, shutdown_timeout=seconds); None waits for as long as it takes",
        RuntimeWarning,
        stacklevel=_lines_of_ours() + 1,
        source=loop,
    )


def _describe(fiber: Any) -> str:
    """Its name, its function and where that is; and the innermost line, if that is another one."""
    function = fiber.function
    text = f"{fiber.name!r} runs {getattr(function, '__qualname__', None) or repr(function)}"
    frames = _frames(fiber.frame)
    if not frames:
        return text
    text += f" ({_line(frames[-1])})"
    if len(frames) > 1:
        text += f" and is in {frames[0].f_code.co_qualname} ({_line(frames[0])})"
    return text


def _frames(frame: FrameType | None) -> list[FrameType]:
    """Those of the fiber's function and what it calls, innermost first."""
    found = []
    while frame is not None and frame.f_code not in _AROUND:
        found.append(frame)
        frame = frame.f_back
    return found


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _lines_of_ours() -> int:
    """How many frames of swapco and asyncio are between the caller, with it, and the program; 1 if there is none."""
    frame = sys._getframe(1)
    count = 0
    while frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        count += 1
        if frame.f_back is None:
            return 1
        frame = frame.f_back
    return count
