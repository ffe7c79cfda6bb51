"""``schedules``: a strategy of hypothesis whose values are explicit schedules.

A schedule is few *deviations* from production, each at a position in the list of decisions.  What is drawn is
these deviations, and not every decision: the program makes hundreds of decisions, a draw costs more than a switch, and
hypothesis stops an example after some thousands.  It also gives the right order of simplicity: fewer deviations are
simpler, none is production; hypothesis shrinks a list by dropping elements, so that each deviation is dropped by
itself, whatever the others are.  Positions are absolute for that reason: with gaps between deviations, dropping one
would move all that follow.

A choice that is out of range counts as production's, and so does a position behind the end of the run: every value is
a schedule of every program.

This finds bugs as a random search does, but shrinks worse than ``check``: use it where the schedule is to be an
argument of the test among others, such as an explicit ``@example``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .schedule import Schedule
from .search import positive

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["schedules"]


def schedules(
    fibers: int = 3, *, max_decisions: int = 40, max_deviations: int = 4, preempt: str = "points"
) -> SearchStrategy[Schedule]:
    """A hypothesis strategy of schedules for ``run(body, schedule=...)``; shrinks towards what production does.

        @given(schedules(fibers=3))
        def test_explicit(schedule):
            run(body, schedule=schedule)

    ``fibers``: how many may be able to run beside the one that runs.  ``max_decisions``: deviations are among so many
    first decisions of the run.  ``max_deviations``: how many a schedule has.  ``preempt``: as for ``search``.

    Errors: ImportError without hypothesis; ValueError for numbers below 1.
    """
    try:
        from hypothesis import strategies as st
    except ImportError as error:
        raise ImportError('swapco.testing.schedules needs hypothesis: pip install "hypothesis>=6.100"') from error
    for name, value in [("fibers", fibers), ("max_decisions", max_decisions), ("max_deviations", max_deviations)]:
        positive(name, value)
    if preempt not in ("points", "primitives"):
        raise ValueError(f'preempt is "points" or "primitives", not {preempt!r}')

    deviation = st.tuples(st.integers(0, max_decisions - 1), st.integers(1, fibers))
    few = st.lists(deviation, max_size=min(max_deviations, max_decisions), unique_by=_position)

    # not few.map(): a failing example shows the schedule, and not what it was made of
    @st.composite
    def schedule(draw: DrawFn) -> Schedule:
        deviations = draw(few)
        path = [0] * (1 + max((position for position, _ in deviations), default=-1))
        for position, choice in deviations:
            path[position] = choice
        return Schedule(tuple(path), preempt=preempt)

    return schedule()


def _position(deviation: tuple[int, int]) -> int:
    return deviation[0]
