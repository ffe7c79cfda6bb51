"""From outcomes of the controlled slot to ``Execution``: what the algorithms between runs see of a program.

A failure is known by its *fingerprint*: the type of the exception and the place in the program that raised it.
Two schedules that show the same fingerprint show the same bug, as far as a machine can tell; messages (they have
addresses and values in them) do not count.
"""

from __future__ import annotations

import inspect
import re
import sys
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .controlled import ControlledSlot
from .errors import Deadlock, FiberLeak
from .places import place_of_exception
from .strategies import Chosen, Path
from .trace import Execution, FollowPath

if TYPE_CHECKING:
    from .control import Strategy
    from .controlled import Outcome
    from .trace import Chooser

__all__ = ["Program", "fingerprint"]

#: What a body raises to say something to whoever runs the test: no failure, and not to be explored.
_OF_RUNNERS = {
    "pytest": ("skip.Exception", "xfail.Exception", "exit.Exception"),
    "unittest": ("SkipTest",),
    "hypothesis.errors": ("StopTest", "UnsatisfiedAssumption"),
}
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")


class Program:
    """A body that is run again and again under different schedules; only inside ``session``."""

    def __init__(
        self,
        body: Callable[[], Any],
        *,
        max_steps: int = 20_000,
        preempt: str = "points",
        switch: str | None = None,
    ) -> None:
        if not callable(body):
            raise TypeError(f"the body is a function without arguments, not {body!r}; write search(f), not search(f())")
        function = inspect.unwrap(body)
        if inspect.isclass(body) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"the body is a function, or an async def function, that runs the program: calling {body!r} only makes "
                "an object"
            )
        if preempt not in ("points", "primitives"):
            raise ValueError(f'preempt is "points" or "primitives", not {preempt!r}')
        if not isinstance(max_steps, int) or max_steps < 1:
            raise ValueError(f"max_steps is a number from 1 on, not {max_steps!r}")
        self.body = body
        self.max_steps = max_steps
        self.preempt = preempt
        self.footprints = False
        self._switch = switch
        self._slot: ControlledSlot | None = None
        self.runs = 0
        # how a run ended whose fibers could not be ended
        self._ended = ""

    def session(self, fn: Callable[[], Any]) -> Any:
        """Call ``fn()``, which may run the program; its result."""
        self._slot = ControlledSlot(switch=self._switch)
        return self._slot.session(fn)

    @property
    def control(self) -> Any:
        """What recorded the last run."""
        assert self._slot is not None
        return self._slot.control

    @property
    def actors(self) -> int:
        """How many actors the last run had."""
        return len(self.control.actors)

    def run(self, strategy: Strategy, number: int = 0, *, watcher: Any = None) -> Outcome:
        """One run.  Errors: what a body raises for whoever runs the test: a skip, an example that is not wanted."""
        slot = self._slot
        assert slot is not None, "a Program runs inside session()"
        if not slot.usable:
            raise RuntimeError(
                f"fibers of the run before could not be ended: {', '.join(slot.immortals)}. They catch BaseException "
                "again and again: let BaseException pass, or catch Exception. That run had "
                f"{self._ended or 'no end'}"
            )
        control = slot.control
        control.max_steps = self.max_steps
        control.at_primitives = self.preempt == "primitives"
        control.footprints = self.footprints
        control.watcher = watcher
        self.runs += 1
        outcome = slot.execute(self.body, strategy, number)
        if not slot.usable:
            failure = outcome.exception
            self._ended = "passed" if failure is None else f"failed with {type(failure).__name__}: {failure}"
        if outcome.failed and _is_for_the_runner(outcome.exception):
            assert outcome.exception is not None
            raise outcome.exception
        return outcome

    def record(self, outcome: Outcome) -> Execution:
        """What the last run was, as data."""
        control = self.control
        return Execution(
            decisions=control.decisions(),
            steps=control.steps_taken(),
            exception=outcome.exception if outcome.failed else None,
            kind=outcome.kind,
            fingerprint=fingerprint(outcome.exception) if outcome.failed else None,
        )

    def execute(self, chooser: Chooser) -> Execution:
        """One run under a chooser.  Errors: what a chooser raises, unless it is ``Pruned``."""
        if type(chooser) is FollowPath:
            strategy = Path(chooser.path)
            outcome = self.run(strategy)
            chooser.diverged = strategy.diverged > 0
        else:
            outcome = self.run(Chosen(chooser))
        if outcome.kind == "aborted" and isinstance(outcome.exception, Exception):
            raise outcome.exception
        return self.record(outcome)


def _is_for_the_runner(exception: BaseException | None) -> bool:
    if isinstance(exception, KeyboardInterrupt | SystemExit):
        return True
    for module, names in _OF_RUNNERS.items():
        if module in sys.modules:
            for name in names:
                kind: Any = sys.modules[module]
                for part in name.split("."):
                    kind = getattr(kind, part)
                if isinstance(exception, kind):
                    return True
    return False


def fingerprint(exception: BaseException | None) -> int:
    """A number that is the same for the same kind of failure at the same place, in every process."""
    parts = [type(exception).__qualname__]
    if isinstance(exception, Deadlock | FiberLeak):
        # there is no place: who waits for what
        parts.append(_NUMBERS.sub("#", str(exception)))
    elif exception is not None:
        parts.append(str(place_of_exception(exception)))
        if isinstance(exception, BaseExceptionGroup):
            parts += sorted(str(fingerprint(inner)) for inner in exception.exceptions)
    return zlib.crc32("|".join(parts).encode(errors="backslashreplace"))
