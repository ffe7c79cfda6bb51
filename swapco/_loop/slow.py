"""Debug mode: which fiber kept the event loop waiting.

asyncio's debug mode logs a callback that takes longer than ``loop.slow_callback_duration`` (seconds).  Fibers run
inside one callback, the drain, so the log would always blame the drain.  In debug mode an instrument measures
each run of a fiber, from the switch to it to the switch away, and the drain's ``repr``, which is what the log
prints, names the fiber that ran longest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .._core.instrument import Instrument

__all__ = ["LongestRun", "NamedDrain"]


class LongestRun(Instrument):
    """Remembers the longest run of a fiber since the last ``reset``."""

    def __init__(self) -> None:
        self._fiber: Any = None
        self._since_ns = 0
        self.name: str | None = None
        self.longest_ns = 0

    def reset(self) -> None:
        """Forget what was measured: a new drain begins."""
        self.name = None
        self.longest_ns = 0

    def after_switch(self, entering: Any) -> None:
        """A run begins."""
        self._fiber = entering
        self._since_ns = time.monotonic_ns()

    def before_switch(self, leaving: Any, entering: Any) -> None:
        """A run ends."""
        self._ends()

    def finished(self, fiber: Any) -> None:
        """It ends with its fiber, which must not live on in here: its finalizers would run as the next one."""
        if fiber is self._fiber:
            self._ends()

    def _ends(self) -> None:
        if self._fiber is not None:
            run_ns = time.monotonic_ns() - self._since_ns
            if run_ns > self.longest_ns:
                self.longest_ns = run_ns
                self.name = self._fiber.name
        self._fiber = None


class NamedDrain:
    """A loop callback that runs fibers, and says which one took the time."""

    def __init__(self, drain: Callable[[], None], longest_run: LongestRun) -> None:
        self._drain = drain
        self._longest_run = longest_run

    def __call__(self) -> None:
        self._longest_run.reset()
        self._drain()

    def __repr__(self) -> str:
        run = self._longest_run
        if run.name is None:
            return "<fibers>"
        return f"<fibers; {run.name!r} ran longest: {run.longest_ns / 1e9:.3f} s without a switch>"
