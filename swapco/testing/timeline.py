"""The report of a failure, as a picture: who runs when, who waits for whom, and the few switches that matter.

Time goes down, like in a sequence diagram.  Each fiber has a lane; each segment (``segments``) is a row: a bar in its
fiber's lane, and right of it, in words and with the line of the program, what the fiber does until it stops.  A lane is
a thin line while its fiber could run, dashed while it waits, and nothing before its begin and after its end.  A switch
that production would not have made is a band of its own between two rows, with the number that the text report gives
it.  When nothing can run at the end, the waits follow, each an arrow from who waits to who must act first: a deadlock
is a ring that can be seen.

What is said, left out and marked is decided by ``report``, so that the text and the picture never disagree; here it
only gets coordinates.

Invariants.  The file needs nothing else: no font, no script, no style sheet.  It is well-formed whatever the program's
names are: all text goes through ``_escaped``.  It has a background of its own, since viewers are white or black.  Its
size is bounded, for the rows, the lanes, the arrows of a row and the length of every text are.

Rejected: time that goes right (a line of source does not fit below a bar; a person reads down, as in the text report);
rows as high as they take long (virtual time stands still nearly always); a colour for each fiber (the colours would be
all that one sees, and say nothing); a script that folds (mail and code review show pictures without scripts).
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .errors import LostWakeup, StepBoundExceeded
from .places import Place
from .report import (
    COULD_RUN,
    ENDED,
    RUNS,
    WAITS,
    States,
    again_and_again,
    clean,
    deviation_words,
    failing_segments,
    fitted,
    fold,
    folded_words,
    has_context,
    how_to_replay,
    labels_of,
    lanes_of,
    shortened,
    source_lines,
    summary,
    wait_words,
    what_it_did,
)
from .segments import Segment, cycle_of, segments_of, waits_at_end
from .story import HANDOFF, LOOP, Story, Wait

if TYPE_CHECKING:
    from .search import Result

__all__ = ["svg_timeline"]

#: Lines that the rows may have, as the text report counts them.
_ROOM = 110
_LANES = 40
#: Arrows to other fibers that a row may have.
_ARROWS = 8
_WAITS = 16
_NAME = 30
#: Of a name above a narrow lane.
_SLANTED = 22

#: Pixels.
_LINE = 16
_GAP = 12
_MARGIN = 20
_BAR = 7
_WORDS = 700
#: The least width of a lane in which waits are labelled.
_LABELLED = 70
#: The width of a character: of source, of words, of what is small, of the headline.
_MONO, _SANS, _SMALL, _HEAD = 7.0, 6.6, 5.6, 9.4
#: Characters in a line of words, and of source.
_COLUMNS = 104
_SOURCE = 98

#: The lane of all actors that are neither fibers nor the event loop.
_TIMERS = "\0timers"

_STYLE = """
text{font:12px system-ui,"Segoe UI","DejaVu Sans",Helvetica,Arial,sans-serif;fill:#1f2328;white-space:pre}
.m{font:11.5px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}
.h{font-size:15px;font-weight:600}
.b{font-weight:600}
.q{fill:#59636e}
.w{font-size:10px;fill:#59636e;stroke:#fff;stroke-width:3px;paint-order:stroke}
.d{fill:#9a3412;font-weight:600}
.e{fill:#b42318;font-weight:600}
.t{fill:#b42318;font-weight:600;stroke:#fff;stroke-width:4px;paint-order:stroke}
.n{fill:#fff;font-weight:700;font-size:12px;text-anchor:middle}
.band{fill:#f6f8fa}.dev{fill:#ffedd5}.bad{fill:#fee4e2}.hit{fill:#fed7aa}
.run{fill:#2f6fde}.stop{fill:#d92d20}.badge{fill:#ea580c}
.ready{stroke:#9aa4b2;stroke-width:2}
.wait{stroke:#9aa4b2;stroke-width:2;stroke-dasharray:2 5}
.fold{stroke:#d0d7de;stroke-width:2;stroke-dasharray:1 6}
.next{stroke:#9aa4b2;stroke-width:1;fill:none}
.swap{stroke:#ea580c;stroke-width:3;fill:none}
.wake{stroke:#16803c;stroke-width:1.5;fill:none}
.spawn{stroke:#8c959f;stroke-width:1.2;fill:none}
.hand{stroke:#8250df;stroke-width:2;fill:none}
.need{stroke:#d92d20;stroke-width:2;fill:none;stroke-dasharray:6 4}
.cross{stroke:#fff;stroke-width:2;fill:none}
.clock{fill:#fff;stroke:#59636e;stroke-width:1.2}
""".strip()

_HEADS = {"swap": "#ea580c", "wake": "#16803c", "spawn": "#8c959f", "hand": "#8250df", "need": "#d92d20"}


def svg_timeline(result: Result) -> str:
    """The failing schedule as the text of an SVG file.  ValueError if nothing has failed."""
    if not result.failed:
        raise ValueError(f"{clean(result.test)} has not failed: there is no schedule to draw")
    return _Timeline(result).drawn()


class _Timeline:
    """Draws from the top down; ``_y`` is where the next thing goes."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._story = result.story if result.story is not None and result.story.moments else None
        # what is behind comes first: bands, lanes, what is said and done
        self._bands: list[str] = []
        self._lines: list[str] = []
        self._out: list[str] = []
        self._y = float(_MARGIN)
        self._fibers: frozenset[str] = frozenset()
        self._x: dict[str, float] = {}
        self._names: dict[str, str] = {}
        self._states: dict[str, tuple[str, float]] = {}
        self._bottom: tuple[float, float] | None = None
        self._banded = self._timed = False
        self._pitch = 0.0
        self._hidden = 0
        self._legend: set[str] = set()
        self._words_x = float(_MARGIN)
        self._width = float(2 * _MARGIN + _WORDS)

    def drawn(self) -> str:
        """The whole file."""
        story = self._story
        segments: Sequence[Segment] = ()
        kept: set[int] = set()
        if story is not None:
            segments = segments_of(story)
            kept = fold(segments, _ROOM)
            self._place_lanes(story, segments, kept)
        self._header()
        if story is not None:
            waits = waits_at_end(story, self._result.exception)
            self._lane_names()
            self._rows(story, segments, kept, waits)
            self._waits(waits)
            self._ends()
            if isinstance(self._result.exception, StepBoundExceeded):
                self._listing(again_and_again(story))
        self._listing(how_to_replay(self._result, picture=False))
        self._draw_legend()
        return self._file()

    def _file(self) -> str:
        width, height = round(self._width), round(self._y + _MARGIN)
        heads = "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.5L8 4L0 7.5z" fill="{colour}"/></marker>'
            for name, colour in _HEADS.items()
        )
        title = _escaped(" ".join(line.strip() for line in summary(self._result, 10_000)[:1]), 400)
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'role="img" xml:space="preserve">\n<title>{title}</title>\n<style>{_STYLE}</style>\n<defs>{heads}</defs>\n'
            f'<rect width="{width}" height="{height}" fill="#fff"/>\n'
            + "\n".join(self._bands + self._lines + self._out)
            + "\n</svg>\n"
        )

    # -- what stands above

    def _place_lanes(self, story: Story, segments: Sequence[Segment], kept: Iterable[int]) -> None:
        """The lanes of whoever has a row, or waits at the end, and of others while there is room."""
        self._fibers = frozenset(story.fibers)
        used = dict.fromkeys(self._lane(segments[at].actor) for at in sorted(kept, reverse=True))
        used.update(dict.fromkeys(lanes_of(story, segments)))
        shown = list(used)[:_LANES]
        order = [*story.fibers, LOOP, _TIMERS]
        shown.sort(key=order.index)
        self._names = labels_of([*story.fibers, *story.actors], _NAME) | {_TIMERS: "timers"}
        self._timed = any(segment.time > 0 for segment in segments)
        longest = max(_columns(self._names[name]) for name in shown)
        wanted = max(96.0, min(longest, 20) * _SANS + 14)
        self._pitch = max(16.0, min(wanted, 620 / len(shown)))
        left = _MARGIN + (64 if self._timed else 0)
        self._x = {name: left + (at + 0.5) * self._pitch for at, name in enumerate(shown)}
        # the wait of the last lane is written right of it
        self._words_x = left + len(shown) * self._pitch + max(16.0, self._pitch / 2 if self._pitch >= _LABELLED else 0)
        self._hidden = len(self._fibers.difference(shown))
        self._width = self._words_x + _WORDS + _MARGIN

    def _lane(self, actor: str) -> str:
        return actor if actor in self._fibers or actor == LOOP else _TIMERS

    def _header(self) -> None:
        room = self._width - 2 * _MARGIN
        head, words = int(room / _HEAD), int(room / _SANS)
        for at, line in enumerate(summary(self._result, head)):
            if at == 0 or line.startswith("    "):
                self._y += 20
                self._text(_MARGIN, self._y, line.strip(), "h", head)
        for at, line in enumerate(summary(self._result, words)):
            if at and not line.startswith("    "):
                self._y += 17
                self._text(_MARGIN, self._y, line.strip(), "q", words)
        if self._hidden:
            self._y += 17
            self._text(_MARGIN, self._y, f"There is no room for the lanes of {self._hidden} of the fibers.", "q", words)
        self._y += 16

    def _lane_names(self) -> None:
        """Above the lanes; slanted if they are longer than a lane is wide."""
        labels = {name: shortened(self._names[name], _SLANTED) for name in self._x}
        longest = min(max(map(_columns, labels.values())), _SLANTED) * _SANS
        angle = 0
        if longest <= self._pitch - 6:
            self._y += 14
        else:
            # narrow lanes need steep names
            angle, rise = (-34, 0.56) if self._pitch >= 26 else (-62, 0.88)
            self._y += 18 + longest * rise
        for name, x in self._x.items():
            where = f'x="{x:.0f}" y="{self._y:.0f}" text-anchor="middle"'
            if angle:
                where = f'transform="translate({x - 2:.0f} {self._y:.0f})rotate({angle})"'
            self._out.append(f'<text class="b" {where}>{_escaped(labels[name], _SLANTED)}</text>')
        self._y += 10

    # -- the rows

    def _rows(self, story: Story, segments: Sequence[Segment], kept: set[int], waits: Sequence[Wait]) -> None:
        states, clock, expected = States(), -1.0, 0
        failing = failing_segments(self._result, segments, waits)
        waiting = {wait.fiber: wait for wait in waits}
        handed = False
        for at, segment in enumerate(segments):
            now = states.begin(segment)
            if at in kept:
                if at != expected:
                    self._folded(segments[expected:at])
                expected = at + 1
                if segment.number:
                    self._deviation(segment)
                elif handed or self._bottom is not None:
                    self._y += _GAP
                if self._timed:
                    self._time(segment.time, clock)
                    clock = segment.time
                place, words = what_it_did(segment, story, self._names, waiting)
                code = source_lines(place, around=has_context(segments, at, place))
                self._settle(now)
                self._row(segment, words, place, code, at in failing, handed)
            later = states.end(segment)
            if segment.stops is None and segment.actor in waiting:
                later[segment.actor] = WAITS
            if at in kept:
                self._settle(later)
                if at + 1 == len(segments) or segments[at + 1].actor != segment.actor:
                    self._label_wait(segment, waiting)
            handed = segment.stops is not None and segment.stops.label == HANDOFF
        if expected != len(segments):
            self._folded(segments[expected:])

    def _row(
        self,
        segment: Segment,
        words: Sequence[str],
        place: Place | None,
        code: Sequence[tuple[str, str, bool]],
        fails: bool,
        handed: bool,
    ) -> None:
        name = self._names[segment.actor]
        lines = _wrapped(f"{name}  {', '.join(words)}", _COLUMNS) or [name]
        height = (len(lines) + len(code)) * _LINE + 10
        top, y = self._y, self._y + 16
        self._banded = not self._banded
        if fails or self._banded:
            self._rect(_MARGIN / 2, top, self._width - _MARGIN, height, "bad" if fails else "band")
        x = self._x.get(self._lane(segment.actor))
        if x is not None:
            self._arrive(segment, x, top, handed)
            where = f" at {place}" if place is not None else ""
            tip = _escaped(f"{name}: {', '.join(words)}{where}", 300)
            self._rect(x - _BAR, top, 2 * _BAR, height, "stop" if fails else "run", f"<title>{tip}</title>", 3)
            if fails:
                self._legend.add("stop")
                middle = top + height - 11
                self._path(f"M{x - 4:.0f} {middle - 4:.0f}l8 8m0 -8l-8 8", "cross")
            if segment.woken_by:
                self._clock(x, top + 7)
            self._arrows(segment, x, top + height)
            self._bottom = x, top + height
        self._out.append(
            f'<text x="{self._words_x:.0f}" y="{y:.0f}"><tspan class="b">{_escaped(name, _NAME)}</tspan>'
            f'<tspan class="{"e" if fails else ""}">{_escaped(lines[0][len(name) :], _COLUMNS)}</tspan></text>'
        )
        for line in lines[1:]:
            y += _LINE
            self._text(self._words_x + 16, y, line, "e" if fails else "", _COLUMNS)
        called = max((len(short) for short, _, _ in code), default=0)
        for short, text, marked in code:
            y += _LINE
            if marked:
                self._rect(self._words_x + 12, y - 12, _WORDS - 12, _LINE, "hit")
            room = max(_SOURCE - called - 4, 20)
            self._text(self._words_x + 16, y, f"{fitted(short, 40):{min(called, 40)}}", "m q", 40)
            self._text(self._words_x + 16 + (min(called, 40) + 2) * _MONO, y, text, "m", room)
        self._y += height

    def _arrive(self, segment: Segment, x: float, top: float, handed: bool) -> None:
        """The line from whoever ran before."""
        if self._bottom is None or segment.number:
            return
        before, bottom = self._bottom
        if before == x and not handed:
            return
        kind = "hand" if handed else "next"
        self._legend.add(kind)
        middle = (bottom + top) / 2
        path = f"M{before:.0f} {bottom:.0f}V{middle:.0f}H{x:.0f}V{top:.0f}"
        self._path(path, kind, head=handed)

    def _arrows(self, segment: Segment, x: float, bottom: float) -> None:
        """To whom it wakes and spawns."""
        both = [("wake", name) for name in segment.woke] + [("spawn", name) for name in segment.spawned]
        y = bottom - 6
        for kind, name in both[:_ARROWS]:
            other = self._x.get(name)
            if other is None or other == x:
                continue
            self._legend.add(kind)
            side = 1 if other > x else -1
            self._path(f"M{x + side * _BAR:.0f} {y:.0f}H{other - side * 2:.0f}", kind, head=True)
            y -= 0 if kind == "spawn" else 4

    def _deviation(self, segment: Segment) -> None:
        """A band with its number, and an arrow from who would have gone on to who does."""
        self._legend.add("swap")
        text = _wrapped(deviation_words(segment.begins, self._names), _COLUMNS - 6)
        height = max(26, len(text) * _LINE + 10)
        self._y += 4
        top, middle = self._y, self._y + height / 2
        self._rect(_MARGIN / 2, top, self._width - _MARGIN, height, "dev")
        usual = segment.begins.enabled[0] if segment.begins.enabled else segment.actor
        source, target = self._x.get(self._lane(usual)), self._x.get(self._lane(segment.actor))
        if target is not None:
            start = source if source is not None else target
            above = self._bottom[1] if self._bottom is not None and self._bottom[0] == start else top
            self._path(f"M{start:.0f} {above:.0f}V{middle:.0f}H{target:.0f}V{top + height + 3:.0f}", "swap", head=True)
            self._badge((start + target) / 2, middle, segment.number)
        half = self._badge(self._words_x + 8, top + 13, segment.number)
        y = top + 17
        for line in text:
            self._text(self._words_x + 15 + half, y, line, "d", _COLUMNS)
            y += _LINE
        self._y += height + 4

    def _folded(self, hidden: Sequence[Segment]) -> None:
        """A stretch that is left out."""
        self._y += 8
        for name in self._x:
            if self._states.get(name, (ENDED, 0))[0] != ENDED:
                self._state(name, "fold")
        self._text(self._words_x, self._y + 15, folded_words(hidden, self._names).strip(), "q", _COLUMNS)
        self._y += 24
        self._bottom = None
        self._y += 4

    def _time(self, time: float, before: float) -> None:
        """Beside the first row, and where virtual time jumps."""
        if time == before:
            return
        if before >= 0:
            self._path(f"M{_MARGIN} {self._y - _GAP / 2:.0f}H{self._width - _MARGIN:.0f}", "fold")
        self._text(_MARGIN, self._y + 16, f"{time:.6g} s", "b", 10)

    # -- lanes

    def _settle(self, states: dict[str, str]) -> None:
        """The lanes' lines change here, if their states do."""
        for name in self._x:
            state = states.get(name, ENDED) if name in self._fibers else ENDED
            self._state(name, {RUNS: ENDED}.get(state, state))

    def _state(self, name: str, state: str) -> None:
        before, since = self._states.get(name, (ENDED, self._y))
        if before == state:
            return
        kind = {COULD_RUN: "ready", WAITS: "wait", "fold": "fold"}.get(before)
        if kind is not None and self._y > since:
            x = self._x[name]
            self._legend.add(kind)
            self._lines.append(f'<path d="M{x:.0f} {since:.0f}V{self._y:.0f}" class="{kind}"/>')
        self._states[name] = state, self._y

    def _ends(self) -> None:
        for name in self._x:
            self._state(name, ENDED)

    def _label_wait(self, segment: Segment, waiting: dict[str, Wait]) -> None:
        """Beside the lane of who begins to wait: for what, and who has it."""
        x = self._x.get(segment.actor)
        if x is None or self._pitch < _LABELLED:
            return
        stops, wants, owner = segment.stops, "", ""
        if stops is not None and stops.waits_for:
            wants, owner = stops.wants or stops.waits_for, stops.owner
        elif stops is None and segment.actor in waiting:
            wants, owner = waiting[segment.actor].wants, waiting[segment.actor].owner
        if not wants:
            return
        columns = int((self._pitch - _BAR - 6) / _SMALL)
        lines = _wrapped(clean(wants), columns)
        if len(lines) > 2:
            lines[1:] = [f"{lines[1].rstrip(',')}..."]
        if owner and owner not in wants:
            lines.append(fitted(f"of {self._names[owner]}", columns))
        y = self._y + _GAP + 10
        for line in lines:
            self._text(x + _BAR + 2, y, line, "w", columns)
            y += 11

    # -- what stands below

    def _waits(self, waits: Sequence[Wait]) -> None:
        """Who waits for whom when nothing can run."""
        if not waits:
            return
        cycle = cycle_of({wait.fiber: wait.owner for wait in waits})
        self._y += 54 if self._pitch >= _LABELLED else 30
        head = "At the end nobody can run"
        if cycle:
            head += ": " + " waits for ".join(self._names[name] for name in [*cycle, cycle[0]][:6])
            head += ", and so on" if len(cycle) > 5 else ""
        elif any(wait.gone for wait in waits):
            head += ": who has ended has not released what others wait for"
        elif isinstance(self._result.exception, LostWakeup):
            head += ", and nobody is left who would act: a wakeup was lost"
        self._text(_MARGIN, self._y, head, "t", int((self._width - 2 * _MARGIN) / 7))
        self._y += 10
        for wait in waits[:_WAITS]:
            self._wait(wait, wait.fiber in cycle)
        if len(waits) > _WAITS:
            self._text(self._words_x, self._y + 15, f"... and {len(waits) - _WAITS} more", "q", 40)
            self._y += 22
        for words in getattr(self._result.exception, "ready", ())[:_WAITS]:
            self._text(self._words_x, self._y + 15, words, "q", _SOURCE)
            self._y += _LINE

    def _wait(self, wait: Wait, in_cycle: bool) -> None:
        top, middle = self._y, self._y + 15
        code = source_lines(wait.place, around=False)
        height = 12 + _LINE * (1 + len(code))
        guilty = in_cycle or not wait.owner
        self._rect(_MARGIN / 2, top, self._width - _MARGIN, height, "bad" if guilty else "band")
        x, other = self._x.get(wait.fiber), self._x.get(wait.owner)
        if x is not None and other is not None:
            self._legend.add("need")
            side = 1 if other > x else -1
            self._path(f"M{x + side * 6:.0f} {middle:.0f}H{other - side * 3:.0f}", "need", head=True)
            columns = int(abs(other - x) / _SMALL) - 2
            if columns > 4:
                self._out.append(
                    f'<text class="w" x="{(x + other) / 2:.0f}" y="{middle + 12:.0f}" text-anchor="middle">'
                    f"{_escaped(wait.wants, columns)}</text>"
                )
        if x is not None:
            self._out.append(f'<circle cx="{x:.0f}" cy="{middle:.0f}" r="6" class="stop"/>')
        text = f"  waits{wait_words(wait.wants, wait.owner, self._names)}"
        if wait.gone:
            text += f"; {fitted(wait.gone, _NAME)} has it, and has ended"
        elif not wait.owner:
            text += "; nobody is left who would wake it"
        self._out.append(
            f'<text x="{self._words_x:.0f}" y="{top + 18:.0f}"><tspan class="b">'
            f"{_escaped(self._names[wait.fiber], _NAME)}</tspan>{_escaped(text, _COLUMNS)}</text>"
        )
        for short, source, _ in code:
            self._text(self._words_x + 16, top + 34, f"{short}  {source}", "m", _SOURCE)
        self._y += height + 4

    def _listing(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        self._y += 16
        for at, line in enumerate(lines):
            self._y += _LINE
            self._text(_MARGIN, self._y, line, "b" if at == 0 else "m", 300)

    def _draw_legend(self) -> None:
        """Only of what there is."""
        if self._story is None:
            return
        self._y += 22
        x, y = float(_MARGIN), self._y
        for kind, words in _LEGEND.items():
            if kind not in self._legend and kind != "run":
                continue
            width = 40 + len(words) * _SANS + 18
            if x + width > self._width:
                x, y = float(_MARGIN), y + 20
            middle = y + 2
            if kind in ("run", "stop"):
                self._rect(x + 8, middle - 7, 2 * _BAR, 14, kind, "", 3)
                if kind == "stop":
                    self._path(f"M{x + 11:.0f} {middle - 4:.0f}l8 8m0 -8l-8 8", "cross")
            elif kind == "clock":
                self._clock(x + 28, middle)
            elif kind == "swap":
                self._path(f"M{x:.0f} {middle:.0f}H{x + 32:.0f}", kind, head=True)
                self._badge(x + 13, middle, 1)
            else:
                self._path(f"M{x:.0f} {middle:.0f}H{x + 30:.0f}", kind, head=kind in _HEADS)
            self._text(x + 38, y + 6, words, "q", 60)
            x += width
        self._y = y + 8

    # -- shapes

    def _text(self, x: float, y: float, text: str, kind: str, columns: int) -> None:
        kinds = f' class="{kind}"' if kind else ""
        self._out.append(f'<text x="{x:.0f}" y="{y:.0f}"{kinds}>{_escaped(text, columns)}</text>')

    def _rect(
        self, x: float, y: float, width: float, height: float, kind: str, inside: str = "", round_: int = 0
    ) -> None:
        corners = f' rx="{round_}"' if round_ else ""
        end = f">{inside}</rect>" if inside else "/>"
        layer = self._bands if kind in ("band", "bad", "dev", "hit") else self._out
        layer.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" class="{kind}"{corners}{end}'
        )

    def _path(self, path: str, kind: str, *, head: bool = False) -> None:
        end = f' marker-end="url(#{kind})"' if head else ""
        self._out.append(f'<path d="{path}" class="{kind}"{end}/>')

    def _badge(self, x: float, y: float, number: int) -> float:
        """Half of its width."""
        width = 9 + 3.5 * (len(str(number)) - 1)
        self._rect(x - width, y - 9, 2 * width, 18, "badge", "", 9)
        self._text(x, y + 4, str(number), "n", 9)
        return width

    def _clock(self, x: float, y: float) -> None:
        self._legend.add("clock")
        self._out.append(f'<circle cx="{x - 13:.0f}" cy="{y:.0f}" r="5" class="clock"/>')
        self._path(f"M{x - 13:.0f} {y - 3:.0f}v3h2.5", "next")


_LEGEND = {
    "run": "runs",
    "ready": "could run",
    "wait": "waits",
    "stop": "fails",
    "swap": "a switch that production would not have made",
    "next": "an ordinary switch",
    "spawn": "spawns",
    "wake": "wakes",
    "hand": "hands over",
    "need": "cannot go on before it acts",
    "clock": "woken by a timer or the event loop",
}


def _escaped(text: str, columns: int) -> str:
    """For XML, in one line, and not wider than so many columns."""
    text = fitted(text, columns)
    if _columns(text) > columns:
        while text and _columns(text) > columns - 3:
            text = text[:-1]
        text += "..."
    return escape(text)


def _wrapped(text: str, columns: int) -> list[str]:
    """Lines of at most about so many columns."""
    width = columns * len(text) // max(_columns(text), 1)
    return textwrap.wrap(text, max(width, 4), break_on_hyphens=False)


def _columns(text: str) -> int:
    """Wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
