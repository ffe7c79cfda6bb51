"""Small tools for tests: wait until everybody waits, fix an order by hand, assert that something switches.

They work in controlled runs and under ``swapco.run`` alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .. import tasks
from ..locks import Event
from .points import scheduler_switches

__all__ = ["Sequencer", "assert_switches", "wait_all_blocked"]


def wait_all_blocked(*, rounds: int = 10_000) -> None:
    """Block until every other fiber of the loop waits for something (or has ended).

    What a test does instead of ``sleep(0.1)`` before it looks whether somebody waits.  A fiber in ``sleep`` waits;
    one that yields does not.  Errors: RuntimeError if after ``rounds`` turns there is still a fiber that can run;
    NotInFiber, CancelledError.
    """
    me = tasks.current_fiber()
    for _ in range(rounds):
        tasks.sleep(0)
        if all(fiber is me or fiber.state in ("BLOCKED", "DETACHED") for fiber in tasks.all_fibers()):
            return
    busy = [fiber for fiber in tasks.all_fibers() if fiber is not me and fiber.state not in ("BLOCKED", "DETACHED")]
    raise RuntimeError(f"after {rounds} turns there are still fibers that can run: {busy[:5]!r}")


class Sequencer:
    """Runs blocks of different fibers in the order of their numbers.

    ``with sequencer(0): ...`` in one fiber, ``with sequencer(1): ...`` in another: the second block begins when the
    first has ended.  Each number is used once; a block that raises lets the next ones begin all the same.
    """

    def __init__(self) -> None:
        self._turns: dict[int, Event] = {}
        self._begun: set[int] = set()

    @contextlib.contextmanager
    def __call__(self, position: int) -> Iterator[None]:
        """Wait for the turn of ``position``, a number from 0 on.  Errors: RuntimeError if it was used before."""
        if position in self._begun:
            raise RuntimeError(f"position {position} of the Sequencer was used already: each is used once")
        if position < 0:
            raise ValueError(f"a position is a number from 0 on, not {position}")
        self._begun.add(position)
        try:
            if position > 0:
                self._turn(position).wait()
            yield
        finally:
            self._turn(position + 1).set()

    def _turn(self, position: int) -> Event:
        return self._turns.setdefault(position, Event())


@contextlib.contextmanager
def assert_switches() -> Iterator[None]:
    """AssertionError at the end of the block if nothing in it gave the slot away.

    For functions that promise to let others run, whatever they find.  The opposite is ``no_switch``.
    """
    before = scheduler_switches()
    yield
    if scheduler_switches() == before:
        raise AssertionError("nothing in the block of assert_switches() let another fiber run")
