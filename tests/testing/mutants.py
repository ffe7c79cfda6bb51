"""Seeded bugs: copies of primitives in Python, each with a version that is right and versions that are not.

A copy is written as one would write it on ``swapco.lowlevel``: some state, and a ``ParkingLot`` or fibers that block.
Each operation begins with a schedule point, as the operations of swapco's own primitives do with
``preempt="primitives"``; between two points nobody else runs.  So a copy is right if each operation leaves everything
as the next one expects it, at each point and at each wait, also if the wait ends by a cancellation or a time limit.

A mutant overrides one method, and does there what people get wrong.  Its scenario is the one that a user would write
for the primitive, without a thought of the bug; the same scenario is run with the copy that is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from own_laws import Disturbance, Scenario, body_of

__all__ = ["Mutant"]


@dataclass(frozen=True)
class Mutant:
    """A bug, what is right instead, and the scenario that shows the difference."""

    bug: type
    """The docstring says what is wrong."""
    right: type
    scenario: Callable[[Any], Scenario]
    disturb: Disturbance | None = None
    """For bugs that need a cancellation, or a time limit."""
    bound: int | None = 2
    """Up to how many preemptions it is proved that the right one is right; None: up to any number."""

    @property
    def name(self) -> str:
        return f"{self.scenario.__name__}-{self.bug.__name__}"

    def body(self, kind: type) -> Callable[[], None]:
        """The scenario with one of the two, for ``search`` and ``verify``."""

        def make() -> Scenario:
            return self.scenario(kind)

        make.__qualname__ = f"{self.scenario.__name__}[{kind.__name__}]"
        return body_of(make, self.disturb)
