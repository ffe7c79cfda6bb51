"""The report of a failure, as text: what a person reads first.

It answers, in this order: what failed and how simple the schedule is; what happened, in program order, with the few
switches that production would not have made set apart; who waits for whom at the end; how to run it again.

The listing has one row for each segment (``segments``).  Left of it is a picture: a column for each fiber, with what
that fiber was doing while the row's ran.  So the order of switches is seen before a word is read.  A deviation stands
between the rows that it separates, with its number.  Rows are left out from where nothing deviates, when there are too
many: what remains is what is near a deviation, near the end, or at the begin.

Plain ASCII besides what the program's own names and lines have: a report goes through terminals, log files and mail.

Rejected: lanes with the source inside (four fibers and their lines do not fit into 100 columns); the whole trace
(nobody reads 200 lines); colours (pytest shows notes without them).
"""

from __future__ import annotations

import collections
import linecache
import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .errors import LostWakeup, ReplayDivergence, StepBoundExceeded, UncontrolledNondeterminism
from .places import Place, is_library
from .schedule import SHORT_CODE
from .segments import Segment, cycle_of, segments_of, waits_at_end
from .story import HANDOFF, LOOP, POINT, Ending, Moment, Story, Wait, headline_of

if TYPE_CHECKING:
    from .search import Result

__all__ = [
    "COULD_RUN",
    "ENDED",
    "RUNS",
    "WAITS",
    "States",
    "again_and_again",
    "clean",
    "deviation_words",
    "failing_segments",
    "fitted",
    "fold",
    "folded_words",
    "has_context",
    "how_to_replay",
    "labels_of",
    "lanes_of",
    "shortened",
    "source_lines",
    "summary",
    "text_report",
    "wait_words",
    "what_it_did",
]

#: What a fiber does while another one's segment runs.
RUNS, COULD_RUN, WAITS, ENDED = "#", ":", ".", " "

_WIDTH = 100
#: Lines that the listing may have.
_LISTING = 44
#: The same for a run that never ended: it does the same again and again.
_ENDLESS = 20
#: More fibers than these have no picture.
_PICTURE = 12
_NAME = 30
#: Characters of what was raised.
_HEADLINE = 300
#: Callers of the line that waits that are shown, if not more than so many fibers wait.
_CALLERS, _WITH_CALLERS = 4, 6
#: Deviations that are shown with the lines around them.
_WITH_CONTEXT = 4


def text_report(result: Result) -> str:
    """The result of a search for a person, in up to about 60 lines of 100 columns, without a newline at its end."""
    parts = [summary(result)]
    if result.failed:
        story = result.story
        if story is not None and story.moments:
            endless = isinstance(result.exception, StepBoundExceeded)
            if endless:
                parts.append(again_and_again(story))
            parts.append(_listing(result, story, _ENDLESS if endless else _LISTING))
            parts.append(_waits(result, story))
        parts.append(how_to_replay(result))
    return "\n\n".join("\n".join(part) for part in parts if part)


# -------------------------------------------------------------------------------------------------- the headline


def summary(result: Result, width: int = _WIDTH) -> list[str]:
    """What failed, after how many schedules, and how simple the schedule is."""
    test, error = clean(result.test), result.exception
    where: tuple[str, ...] = ()
    schedules = _count(result.schedules, "schedule")
    if not result.failed:
        first = f"swapco.testing: {test} passed {schedules}{_origin(result)}"
        more = "These are all there are, within the bounds." if result.exhausted else ""
        if result.exhaustive and not result.exhausted:
            more = "These are not all there are: schedules= is the limit."
    elif isinstance(error, UncontrolledNondeterminism):
        first = f"swapco.testing: {test} depends on more than the schedule"
        more = f"Noticed after {schedules}{_origin(result)}."
        where = error.difference
    elif isinstance(error, ReplayDivergence):
        first = f"swapco.testing: the recorded schedule does not fit {test} any more"
        more = clean(str(error))
    else:
        first = f"swapco.testing: {test} fails: {fitted(_headline(error), _HEADLINE).removesuffix(':')}"
        more = _how_simple(result)
    lines = [*_wrapped(first, width, "    "), *_wrapped(more, width, "  ", "  ")]
    return [*lines, "", "The first moment that differs between two runs:", *where] if where else lines


def _headline(error: BaseException | None) -> str:
    """As ``headline_of``, of a group with what is in it."""
    if not isinstance(error, BaseExceptionGroup):
        return headline_of(error)
    leaves = _leaves(error)
    more = f" and {len(leaves) - 1} more" if len(leaves) > 1 else ""
    return f"{type(error).__name__}: {headline_of(leaves[0])}{more}"


def _leaves(error: BaseException | None) -> list[BaseException | None]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in _leaves(inner)]


def _how_simple(result: Result) -> str:
    size = _size(result.preemptions, result.deviations)
    if result.strategy == "replay":
        found = "Replayed"
    else:
        found = f"Found after {_count(result.schedules, 'schedule')}{_origin(result)},"
    words = [found]
    if result.found is not None:
        decisions, deviations, preemptions = result.found
        before = _size(preemptions, deviations)
        words.append(f" with {before}, in {_count(decisions, 'decision')}")
        if result.replays and deviations:
            same = (deviations, preemptions) == (result.deviations, result.preemptions)
            words.append(
                f"; {'could not be shrunk' if same else f'shrunk to {size}'} ({_count(result.replays, 'replay')})"
            )
    else:
        words.append(f" with {size}")
    words.append(".")
    if not result.deviations:
        words.append(" It fails in the order of production, too.")
    elif result.minimal:
        runs = f" ({_count(result.proof_schedules, 'schedule')})" if result.proof_schedules else ""
        words.append(f" No simpler schedule fails: proved{runs}.")
    elif result.replays:
        words.append(" Perhaps a simpler one fails, too: that could not be ruled out within the limit.")
    return "".join(words)


def _origin(result: Result) -> str:
    if not result.strategy or result.strategy == "replay":
        return ""
    seed = "" if result.strategy in ("dfs", "dpor") else f", seed {result.seed}"
    return f' (strategy "{clean(result.strategy)}"{seed})'


def _size(preemptions: int, deviations: int) -> str:
    """A schedule's distance from production."""
    others = deviations - preemptions
    if not deviations:
        return "no deviation from production"
    parts = [_count(preemptions, "preemption")] if preemptions else []
    if others:
        parts.append(_count(others, "other deviation" if preemptions else "deviation"))
    return " and ".join(parts)


# --------------------------------------------------------------------------------------------------- the listing


def _listing(result: Result, story: Story, room: int) -> list[str]:
    segments = segments_of(story)
    kept = fold(segments, room)
    names = labels_of([*story.fibers, *story.actors], _NAME)
    lanes = lanes_of(story, segments)
    lanes = lanes if 1 < len(lanes) <= _PICTURE else []
    states = States()
    waits = waits_at_end(story, result.exception)
    waiting = {wait.fiber: wait for wait in waits}
    failing = failing_segments(result, segments, waits)
    width = max(len(names[segments[at].actor]) for at in kept)
    timed = any(segment.time > 0 for segment in segments)
    lines = ["What happened (# runs, : could run, . waits, ! fails; >>> production would not have done that):", ""]
    clock = -1.0
    expected = 0
    for at, segment in enumerate(segments):
        now = states.begin(segment)
        columns = "".join(now.get(name, ENDED) for name in lanes) + ("  " if lanes else "")
        states.end(segment)
        if at not in kept:
            continue
        if at != expected:
            lines.append(folded_words(segments[expected:at], names))
        expected = at + 1
        if segment.number:
            mark = f">>> {segment.number}  "
            lines += _wrapped(mark + deviation_words(segment.begins, names), _WIDTH, " " * len(mark))
        time = ""
        if timed:
            time = f"{f'{segment.time:.6g} s' if segment.time != clock else '':>9}  "
            clock = segment.time
        begin = f"{'!' if at in failing else ' '} {time}{columns}{names[segment.actor]:{width}}  "
        indent = " " * (len(begin) + 2)
        place, words = what_it_did(segment, story, names, waiting)
        lines += [line.rstrip() for line in _wrapped(begin + ", ".join(words), _WIDTH, indent)]
        code = source_lines(place, around=has_context(segments, at, place))
        called = max((len(short) for short, _, _ in code), default=0)
        for short, text, marked in code:
            lines.append(fitted(f"{indent[:-2]}{'> ' if marked else '  '}{short:{called}}  {text}".rstrip(), _WIDTH))
    return lines


def what_it_did(
    segment: Segment, story: Story, names: dict[str, str], waiting: dict[str, Wait]
) -> tuple[Place | None, list[str]]:
    """Where the segment stops, and what its actor does, in clauses."""
    actor, stops = segment.actor, segment.stops
    words = _begin_words(segment, story)
    if segment.steps and actor in story.fibers:
        words.append(f"passes {_steps(segment.steps)}")
    words += _listed("spawns", segment.spawned, names) + _listed("wakes", segment.woke, names)
    if actor not in story.fibers:
        return None, words
    ending = story.endings.get(actor)
    if stops is None:
        wait = waiting.get(actor)
        if wait is not None:
            return wait.place, [*words, f"waits{wait_words(wait.wants, wait.owner, names)}"]
        if actor in story.unfinished:
            return None, words or ["runs"]
        return (None, [*words, "ends"]) if ending is None else (ending.place, [*words, _raises(ending, names)])
    if stops.outcome:
        return (None, [*words, stops.outcome]) if ending is None else (ending.place, [*words, _raises(ending, names)])
    return stops.left, words + _stop_words(stops, names)


def _raises(ending: Ending, names: dict[str, str]) -> str:
    return f"raises {fitted(ending.exception, 120)}" + (f", as {names[ending.origin]} did" if ending.origin else "")


def _begin_words(segment: Segment, story: Story) -> list[str]:
    if segment.actor not in story.fibers:
        if segment.actor == LOOP:
            return [f"calls {fitted(segment.begins.does, 40) or 'something'}"]
        return ["fires"]
    words = []
    if segment.woken_by:
        by = segment.woken_by[-1]
        words.append(f"woken by {'its timer' if by == f'timer of {segment.actor}' else fitted(by, 40)}")
    if segment.first:
        start = story.spawned_at.get(segment.actor)
        shown = start is not None and not is_library(start.file)
        words.append(f"starts {fitted(start.function, 30)}" if start is not None and shown else "starts")
    return words


def _stop_words(stops: Moment, names: dict[str, str]) -> list[str]:
    if stops.label == HANDOFF:
        return [f"hands over to {names[stops.chosen]}"]
    if stops.waits_for:
        return [f"waits{wait_words(stops.wants or stops.waits_for, stops.owner, names)}"]
    if stops.possibilities:
        return ["asks for a choice"]
    if stops.preemption:
        return ["is preempted" if stops.label == POINT else f"is preempted before {fitted(stops.label, 40)}"]
    return ["yields"] if stops.label == "yield" else ["stops"] if stops.switches else []


def wait_words(wants: str, owner: str, names: dict[str, str]) -> str:
    """`` for Lock 2, which worker has``, or so."""
    if not wants:
        return ""
    if owner and wants == f"the end of {owner}":
        return f" for the end of {names[owner]}"
    has = f", which {names[owner]} has" if owner and not wants.startswith("the end of ") else ""
    return f" {'in' if '()' in wants else 'for'} {fitted(wants, 60)}{has}"


def _listed(verb: str, whom: Sequence[str], names: dict[str, str]) -> list[str]:
    if not whom:
        return []
    shown = ", ".join(names[name] for name in whom[:4])
    return [f"{verb} {shown}" + (f" and {len(whom) - 4} more" if len(whom) > 4 else "")]


def _steps(steps: Sequence[tuple[Place, int]]) -> str:
    """``a.py:14 x5, :16, b.py:3``."""
    shown, file = [], ""
    for at, (place, count) in enumerate(steps):
        if len(steps) > 5 and 2 < at < len(steps) - 2:
            if at == 3:
                shown.append(f"... {len(steps) - 5} more ...")
            file = ""
            continue
        words = clean(place.short) if place.file != file else f":{place.line}"
        shown.append(words + (f" x{count}" if count > 1 else ""))
        file = place.file
    return ", ".join(shown)


def deviation_words(moment: Moment, names: dict[str, str]) -> str:
    """A deviation in a sentence."""
    at = f" at {clean(moment.left.short)}" if moment.left is not None else ""
    if moment.possibilities:
        return (
            f"CHOICE{at}: {fitted(moment.label, 40)} comes to {moment.choice} of 0 to {moment.possibilities - 1}; "
            "in production it would be 0"
        )
    usual = names.get(moment.enabled[0], clean(moment.enabled[0]))
    chosen = names.get(moment.chosen, clean(moment.chosen))
    if moment.preemption:
        before = "" if moment.label == POINT else f", before {fitted(moment.label, 40)}"
        return f"PREEMPTION{at}{before}: production would let {usual} go on; {chosen} runs instead"
    return f"OTHER ORDER: in production {usual} would be next; {chosen} runs instead"


def has_context(segments: Sequence[Segment], at: int, place: Place | None) -> bool:
    """Are the lines around the place shown, too?  Where a deviation interrupts, unless there are many."""
    following = segments[at + 1].begins if at + 1 < len(segments) else None
    if place is None or following is None or not following.deviates or following.left != place:
        return False
    return sum(1 for segment in segments if segment.number) <= _WITH_CONTEXT


def source_lines(place: Place | None, *, around: bool) -> list[tuple[str, str, bool]]:
    """``file.py:12``, its text, and whether it is *the* line; ``around``: between those above and below it."""
    if place is None:
        return []
    source = linecache.getlines(place.file)
    if not around or not 0 < place.line <= len(source):
        return [(clean(place.short), clean(place.source), False)]
    above = next((at for at in range(place.line - 1, 0, -1) if source[at - 1].strip()), 0)
    below = next((at for at in range(place.line + 1, len(source) + 1) if source[at - 1].strip()), 0)
    texts = {at: clean(source[at - 1].rstrip().expandtabs(4)) for at in (above, place.line, below) if at}
    margin = min(len(text) - len(text.lstrip()) for text in texts.values())
    name = clean(os.path.basename(place.file))
    return [(f"{name}:{at}", text[margin:], at == place.line) for at, text in texts.items()]


class States:
    """What each fiber does while a segment runs: RUNS, COULD_RUN, WAITS or ENDED, by name."""

    def __init__(self) -> None:
        self.now: dict[str, str] = {}

    def begin(self, segment: Segment) -> dict[str, str]:
        """The next segment begins; the states while it runs."""
        for name in segment.begins.enabled:
            self.now[name] = COULD_RUN
        self.now[segment.actor] = RUNS
        return self.now

    def end(self, segment: Segment) -> dict[str, str]:
        """It is over; the states until the next one begins."""
        stops = segment.stops
        if stops is not None:
            self.now[segment.actor] = ENDED if stops.outcome else WAITS if stops.waits_for else COULD_RUN
        for name in (*segment.woke, *segment.spawned):
            self.now[name] = COULD_RUN
        return self.now


def lanes_of(story: Story, segments: Iterable[Segment]) -> list[str]:
    """The fibers, and the event loop if it did something that is worth a row."""
    return [*story.fibers, *([LOOP] if any(segment.actor == LOOP for segment in segments) else [])]


def failing_segments(result: Result, segments: Sequence[Segment], waits: Sequence[Wait]) -> frozenset[int]:
    """The segments at whose end the failure shows."""
    assert result.story is not None
    last = {segment.actor: at for at, segment in enumerate(segments)}
    if waits:
        cycle = cycle_of({wait.fiber: wait.owner for wait in waits})
        stuck = cycle or [wait.fiber for wait in waits if not wait.owner] or [wait.fiber for wait in waits]
        return frozenset(last[name] for name in stuck if name in last)
    shown = {headline_of(leaf) for leaf in _leaves(result.exception)}
    guilty = [last[name] for name, end in result.story.endings.items() if end.exception in shown and name in last]
    # one that passes an exception on, such as whoever joins the fiber that raised it, comes later
    return frozenset([min(guilty, default=len(segments) - 1)])


# ------------------------------------------------------------------------------------------------------ folding


def fold(segments: Sequence[Segment], room: int) -> set[int]:
    """The segments that are shown, so that they take about ``room`` lines."""
    heights = [5 if segment.number else 2 for segment in segments]
    if sum(heights) <= room:
        return set(range(len(segments)))
    last = len(segments) - 1
    distance = [min(2 * at, last - at) for at in range(len(segments))]
    marks = [at for at, segment in enumerate(segments) if segment.number]
    most = room // 8
    for mark in marks if len(marks) <= most else [*marks[:2], *marks[2 - most :]]:
        for at in range(max(0, mark - room), min(len(segments), mark + room)):
            # whoever was stopped is as near as whoever runs instead
            distance[at] = min(distance[at], at - mark if at >= mark else mark - at - 1)
    kept: set[int] = set()
    for at in sorted(range(len(segments)), key=lambda at: (distance[at], -at)):
        room -= heights[at]
        if room < 0 and kept:
            break
        kept.add(at)
    # a line that says that one is left out is as long as that one
    return kept | {at for at in range(1, last) if at - 1 in kept and at + 1 in kept}


def folded_words(hidden: Sequence[Segment], names: dict[str, str]) -> str:
    actors = list(dict.fromkeys(names.get(segment.actor, clean(segment.actor)) for segment in hidden))
    who = ", ".join(actors[:4]) + (f" and {len(actors) - 4} more" if len(actors) > 4 else "")
    deviating = sum(1 for segment in hidden if segment.number)
    how = f"with {_count(deviating, 'deviation')}" if deviating else "as in production"
    return fitted(f"      ... {_count(len(hidden), 'switch', 'switches')} {how}: {who}", _WIDTH)


# ------------------------------------------------------------------------------------------------------- the end


def again_and_again(story: Story) -> list[str]:
    """Where an endless run spends its time."""
    last = [moment for moment in story.moments[-1000:] if moment.before]
    counts = collections.Counter((moment.before, moment.left) for moment in last).most_common(6)
    names = labels_of([name for (name, _), _ in counts], _NAME)
    width = max(map(len, names.values()), default=0)
    lines = [f"Where it was interrupted, in its last {_count(len(last), 'moment')}:"]
    for (name, place), count in counts:
        where = f"{clean(place.short)}  {clean(place.source)}" if place is not None else ""
        lines.append(fitted(f"  {count:5} x {names[name]:{width}}  {where}".rstrip(), _WIDTH))
    return lines


def _waits(result: Result, story: Story) -> list[str]:
    """Who waits for whom, with the cycle drawn."""
    waits = waits_at_end(story, result.exception)
    if not waits:
        return []
    actors = [wait.fiber for wait in waits] + [name for wait in waits for name in (wait.owner, wait.gone) if name]
    names = labels_of(actors, _NAME)
    cycle = len(cycle_of({wait.fiber: wait.owner for wait in waits}))
    shown = waits[:12]
    rows = []
    for at, wait in enumerate(shown):
        bar = " "
        if cycle and at < cycle:
            bar = "." if at == 0 else "'" if at == cycle - 1 else "|"
        wants = "the end" if wait.owner and wait.wants.startswith("the end of ") else wait.wants or "?"
        owner = names[wait.owner] if wait.owner else f"{names[wait.gone]}, has ended" if wait.gone else "nobody"
        rows.append((bar, names[wait.fiber], fitted(wants, 36), owner, wait))
    first = max(len(row[1]) for row in rows)
    second = max(len(row[2]) for row in rows)
    third = max(len(row[3]) for row in rows)
    lines = ["At the end nobody can run (who waits -- for what --> who must act first):", ""]
    if isinstance(result.exception, LostWakeup) and not any(wait.gone for wait in waits):
        lines[0] = (
            "At the end nobody can run (who waits -- for what --> who must act first; nobody: a wakeup was lost):"
        )
    for bar, who, what, owner, wait in rows:
        arrow = {".": ".->", "'": "'--", "|": "|  "}.get(bar, "   ") if cycle > 1 else "   "
        where = f"{clean(wait.place.short)}  {clean(wait.place.source)}" if wait.place is not None else ""
        line = f"  {arrow} {who:{first}}  -- {what + ' ':-<{second + 1}}--> {owner:{third}}  {where}"
        lines.append(fitted(line.rstrip(), _WIDTH))
        if len(shown) <= _WITH_CALLERS:
            lines += [fitted(f"         from {clean(place.short)}  {clean(place.source)}", _WIDTH)
                      for place in wait.callers[:_CALLERS]]  # fmt: skip
    if len(waits) > len(shown):
        lines.append(f"      ... and {len(waits) - len(shown)} more")
    ready = getattr(result.exception, "ready", ())
    return lines + [fitted(f"  {words}", _WIDTH) for words in ready[:4]]


def how_to_replay(result: Result, *, picture: bool = True) -> list[str]:
    """The calls that run the schedule again, and the one that draws it."""
    body = result.test.rsplit(".", 1)[-1]
    body = body if body.isidentifier() else "body"
    if isinstance(result.exception, UncontrolledNondeterminism):
        return ["No schedule can be shrunk or replayed until the same schedule always does the same."]
    if isinstance(result.exception, ReplayDivergence):
        return [f"Search again: testing.search({body})"]
    if result.schedule is None:
        return []
    lines = ["To run this schedule again:"]
    if result.again:
        return lines + [f"    {line}" for line in result.again]
    code = result.schedule.code
    short = len(code) <= SHORT_CODE
    if result.path is not None:
        lines.append(f"    testing.replay({body}, {str(result.path)!r})")
    if short:
        if result.path is None:
            lines.append(f"    testing.replay({body}, {code!r})")
        lines.append(f'    @testing.explore(replay="{code}")  # above the test')
    elif result.path is None:
        lines.append('    result.schedule.save("schedule.json"); testing.replay(' + body + ', "schedule.json")')
    if picture and result.story is not None and result.story.moments:
        lines.append('    result.save_svg("schedule.svg")  # as a picture')
    return lines


# ------------------------------------------------------------------------------------------------------- words


def clean(text: str) -> str:
    """In one line, without characters that a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c == "\t" else repr(c)[1:-1] for c in text)


def shortened(text: str, width: int) -> str:
    """At most ``width`` characters: the middle of what is longer is left out."""
    if len(text) <= width:
        return text
    head = (width - 2 + 1) // 2
    return f"{text[:head]}..{text[len(text) - (width - 2 - head) :]}"


def labels_of(names: Iterable[str], width: int) -> dict[str, str]:
    """A short, printable label for each name; two names never have the same one."""
    labels: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        if name in labels:
            continue
        label = wanted = shortened(clean(name), width).strip() or "(no name)"
        copies = 1
        while label in taken:
            copies += 1
            label = shortened(wanted, width - len(f"~{copies}")) + f"~{copies}"
        taken.add(label)
        labels[name] = label
    return labels


def fitted(text: str, width: int) -> str:
    """At most ``width`` printable characters: the end of what is longer is left out."""
    text = clean(text)
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."


def _count(number: int, thing: str, things: str = "") -> str:
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def _wrapped(text: str, width: int, indent: str, first: str = "") -> list[str]:
    if not text:
        return []
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True
    )
