"""A story for a reader: what each actor does until another one runs, and who waits for whom at the end.

A *segment* is the unit of a reader: what one actor does until another one runs, or until the environment makes a choice
that is not the ordinary one.  It merges the moments at which somebody else could have run and did not.  Timers and
callbacks that only wake the fiber that runs next, in the order of production, have no segment of their own: the fiber's
says what woke it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .errors import Deadlock, FiberLeak
from .places import Place
from .story import Moment, Story, Wait

__all__ = ["Segment", "cycle_of", "segments_of", "waits_at_end"]


class Segment(NamedTuple):
    """What one actor does until another one runs."""

    actor: str
    begins: Moment
    """The moment that chose it."""
    stops: Moment | None
    """The moment at which it stopped; None: the run was over."""
    steps: tuple[tuple[Place, int], ...]
    """Lines at which it could have been interrupted and was not, in order, each with how often in a row."""
    woken_by: tuple[str, ...]
    """The timers and callbacks that ran before it, only to wake it."""
    woke: tuple[str, ...]
    """The fibers that waited, and do not any more."""
    spawned: tuple[str, ...]
    """The fibers that appeared meanwhile."""
    number: int
    """Of the deviation that began it, from 1 on; 0: production would have done the same."""
    first: bool
    """The actor's first segment."""
    moments: int
    """How many moments it has."""

    @property
    def time(self) -> float:
        """Virtual seconds since the start of the run, at its begin."""
        return self.begins.time


def waits_at_end(story: Story, exception: BaseException | None) -> tuple[Wait, ...]:
    """Who waits for what if nothing can run any more; a cycle, if there is one, comes first and in its order."""
    if not isinstance(exception, Deadlock | FiberLeak):
        return ()
    ordered = {wait.fiber: wait for wait in story.waits}
    cycle = cycle_of({wait.fiber: wait.owner for wait in ordered.values()})
    return tuple([ordered.pop(name) for name in cycle] + list(ordered.values()))


def cycle_of(owners: dict[str, str]) -> list[str]:
    """Names of which each leads to the next one, and the last one to the first; or nothing."""
    for first in owners:
        chain: list[str] = []
        name = first
        while name in owners and name not in chain:
            chain.append(name)
            name = owners[name]
        if name in chain:
            return chain[chain.index(name) :]
    return []


def segments_of(story: Story) -> tuple[Segment, ...]:
    """What a person reads of a run, in order."""
    return tuple(_without_messengers(_merged(story), frozenset(story.fibers)))


def _merged(story: Story) -> Iterator[Segment]:
    """Merge moments; ``woke`` and ``spawned`` come from who is enabled at the end and was not at the begin."""
    moments, fibers = story.moments, frozenset(story.fibers)
    waiting: set[str] = set()
    # who has appeared, and does not wait
    settled = set(moments[0].enabled) if moments else set()
    started: set[str] = set()
    number = at = 0
    while at < len(moments):
        begins = moments[at]
        if begins.deviates:
            number += 1
        steps: list[tuple[Place, int]] = []
        stop = at + 1
        while stop < len(moments) and _goes_on(begins.chosen, moments[stop]):
            left = moments[stop].left
            if left is not None:
                again = bool(steps) and steps[-1][0] == left
                steps[-1:] = [(left, steps[-1][1] + 1)] if again else [*steps[-1:], (left, 1)]
            stop += 1
        stops = moments[stop] if stop < len(moments) else None
        woke: list[str] = []
        spawned: list[str] = []
        for moment in moments[at + 1 : stop + 1]:
            for name in [name for name in moment.enabled if name not in settled]:
                settled.add(name)
                if name in waiting:
                    waiting.discard(name)
                    woke.append(name)
                elif name in fibers:
                    spawned.append(name)
        waiting.discard(begins.chosen)
        settled.add(begins.chosen)
        if stops is not None and stops.waits_for:
            waiting.add(stops.before)
            settled.discard(stops.before)
        yield Segment(
            begins.chosen,
            begins,
            stops,
            tuple(steps),
            (),
            tuple(woke),
            tuple(spawned),
            number if begins.deviates else 0,
            begins.chosen not in started,
            stop - at,
        )
        started.add(begins.chosen)
        at = stop


def _goes_on(actor: str, moment: Moment) -> bool:
    return not moment.switches and moment.chosen == actor and not moment.deviates


def _without_messengers(segments: Iterable[Segment], fibers: frozenset[str]) -> Iterator[Segment]:
    """Leave out timers and callbacks that, in the order of production, only wake the fiber that runs next."""
    held: list[Segment] = []
    for segment in segments:
        if segment.actor not in fibers and not segment.number:
            held.append(segment)
            continue
        woken = {name for messenger in held for name in messenger.woke + messenger.spawned}
        if held and woken == {segment.actor} and not segment.number:
            segment = segment._replace(woken_by=tuple(_words_of(messenger) for messenger in held))
        else:
            yield from held
        held = []
        yield segment
    yield from held


def _words_of(messenger: Segment) -> str:
    return messenger.begins.does or messenger.actor
