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
    first has ended.  Each number is used once.  A block that raises lets the next ones begin all the same.  A turn that
    is given up while its fiber waits for it (a cancellation, a timeout) is passed over when it would have come.

    Invariant: a turn comes only if every number below it is over, ended or given up.
    """

    def __init__(self) -> None:
        self._turns: dict[int, Event] = {}
        self._used: set[int] = set()
        self._over: set[int] = set()

    def __call__(self, position: int) -> contextlib.AbstractContextManager[None]:
        """A block that begins at the turn of ``position``, a number from 0 on; entering it may block.

        Errors: TypeError and ValueError for what is no such number; at the block, RuntimeError if it was used before
        (also by one that gave up), and what ends a wait: CancelledError, NotInFiber.
        """
        if not isinstance(position, int) or isinstance(position, bool):
            raise TypeError(f"a position of a Sequencer is a whole number from 0 on, not {position!r}")
        if position < 0:
            raise ValueError(f"a position of a Sequencer is a whole number from 0 on, not {position}")
        return self._block(position)

    @contextlib.contextmanager
    def _block(self, position: int) -> Iterator[None]:
        if position in self._used:
            raise RuntimeError(
                f"position {position} of the Sequencer was used already: each number from 0 on is used once"
            )
        self._used.add(position)
        try:
            if position > 0:
                self._turn(position).wait()
            yield
        finally:
            # over first, then a look whether its turn has come; _begin goes the other way round: one of them passes on
            self._over.add(position)
            if position == 0 or self._turn(position).is_set():
                self._begin(position + 1)

    def _begin(self, position: int) -> None:
        """The turn of ``position`` has come, and so have those after numbers that are over."""
        self._turn(position).set()
        while position in self._over:
            position += 1
            self._turn(position).set()

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
