"""The picture of a failure: well-formed whatever the program is called, bounded, and it shows what the text says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import failing_programs as programs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swapco
from swapco import testing
from swapco.testing import timeline
from swapco.testing.timeline import svg_timeline

SVG = "{http://www.w3.org/2000/svg}"
LIMIT = 200_000


def parsed(svg: str) -> ElementTree.Element:
    """The root, after what holds for every picture."""
    root = ElementTree.fromstring(svg.encode("utf-8"))
    assert root.tag == f"{SVG}svg"
    assert len(svg.encode("utf-8")) <= LIMIT
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    background = root.find(f"{SVG}rect")
    assert background is not None, "a viewer may be dark"
    assert (float(background.attrib["width"]), float(background.attrib["height"])) == (width, height)
    assert background.attrib["fill"] == "#fff"
    # nothing from elsewhere, and nothing that runs
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in _ELEMENTS, element.tag
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert "href" not in name
            assert "url(" not in value or value.startswith("url(#")
        for name in ("x", "cx"):
            assert -1 <= float(element.attrib.get(name, 0)) <= width
        for name in ("y", "cy"):
            assert -1 <= float(element.attrib.get(name, 0)) <= height
    assert "@import" not in svg
    assert "@font-face" not in svg
    markers = {element.attrib["id"] for element in root.iter(f"{SVG}marker")}
    for element in root.iter(f"{SVG}path"):
        if "marker-end" in element.attrib:
            assert element.attrib["marker-end"][5:-1] in markers
        for number in re.findall(r"-?\d+(?:\.\d+)?", element.attrib["d"]):
            assert abs(float(number)) <= max(width, height)
    classes = set(re.findall(r"\.(\w+)\{", svg)) | set(re.findall(r"\.(\w+)\{", root.findtext(f"{SVG}style") or ""))
    used = {name for element in root.iter() for name in element.attrib.get("class", "").split()}
    assert used <= classes, used - classes
    return root


_ELEMENTS = {"svg", "title", "style", "defs", "marker", "path", "rect", "text", "tspan", "circle"}


def texts(root: ElementTree.Element) -> list[str]:
    """Everything that can be read, from the top down, in the order of the file."""
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def of_class(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if kind in element.attrib.get("class", "").split()]


def picture(body: Callable[[], Any], **options: Any) -> tuple[testing.Result, ElementTree.Element]:
    result = programs.failure_of(body, **options)
    return result, parsed(svg_timeline(result))


# ------------------------------------------------------------------------------------------------------ well-formed


@pytest.mark.parametrize("body", programs.ALL, ids=lambda body: body.__name__)
def test_every_kind_of_failure_has_a_picture(body: Callable[[], Any], tmp_path: Path) -> None:
    result, root = picture(body)
    shown = "\n".join(texts(root))
    assert type(result.exception).__name__ in shown or isinstance(result.exception, BaseExceptionGroup)
    assert "To run this schedule again:" in shown
    assert {"runs", "fails"} <= set(texts(root)), "the legend"
    assert of_class(root, "stop"), "the failing place is marked"
    result.save_svg(tmp_path / "failure.svg")
    assert (tmp_path / "failure.svg").read_text(encoding="utf-8") == svg_timeline(result)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(programs.programs(), st.integers(0, 99))
def test_every_failure_of_a_random_program_has_a_picture(program: Any, seed: int) -> None:
    result = testing.search(programs.body_of(program), schedules=6, seed=seed, save=False, max_steps=300)
    if result.failed:
        parsed(svg_timeline(result))


def test_what_has_not_failed_has_none(tmp_path: Path) -> None:
    result = testing.search(lambda: swapco.sleep(1), save=False)
    with pytest.raises(ValueError, match="has not failed"):
        svg_timeline(result)
    with pytest.raises(ValueError, match="has not failed"):
        result.save_svg(tmp_path / "nothing.svg")
    assert not list(tmp_path.iterdir())


def test_a_failure_without_a_schedule_says_what_it_is() -> None:
    runs: list[int] = []

    def body() -> None:
        runs.append(1)
        swapco.wait([swapco.spawn(testing.schedule_point) for _ in range(2 + len(runs))])

    result = testing.search(body, save=False)
    assert isinstance(result.exception, testing.UncontrolledNondeterminism)
    assert "depends on more than the schedule" in "\n".join(texts(parsed(svg_timeline(result))))


@settings(deadline=None, max_examples=200)
@given(st.text(), st.integers(3, 60))
def test_text_is_escaped_and_fits(text: str, columns: int) -> None:
    escaped = timeline._escaped(text, columns)
    shown = ElementTree.fromstring(f"<a>{escaped}</a>").text or ""
    assert timeline._columns(shown) <= columns
    if timeline._columns(text) <= columns and text.isprintable():
        assert shown == text


# ---------------------------------------------------------------------------------------------------------- bounded


def test_a_hundred_thousand_moments_and_hostile_names_fit() -> None:
    def body() -> None:
        def work(i: int) -> None:
            for _ in range(1_300):
                testing.schedule_point()
            swapco.sleep(i % 3)

        swapco.wait([swapco.spawn(work, i, name="&<\"'>" * 20 + str(i)) for i in range(75)])
        raise ValueError("&" * 100_000)

    path = tuple(itertools.islice(itertools.cycle((0, 1, 2, 0, 2)), 90_000))
    result = testing.replay(body, testing.Schedule(path, (), "", "ValueError", "points"), max_steps=10**6)
    assert result.failed
    assert result.story is not None
    assert len(result.story.moments) > 95_000
    root = parsed(svg_timeline(result))
    shown = "\n".join(texts(root))
    assert re.search(r"\.\.\. [\d,]+ switches", shown), "what is left out is said"
    assert "There is no room for the lanes of" in shown
    assert float(root.attrib["height"]) < 6_000


def test_many_fibers_have_narrow_lanes_and_their_whole_numbers() -> None:
    _, root = picture(programs.many)
    shown = texts(root)
    assert float(root.attrib["width"]) < 1_600
    assert any(text.endswith("name 59") for text in shown), "the end of a name tells fibers apart"


# ------------------------------------------------------------------------------------------------- what is to be seen


def test_a_preemption_has_a_band_an_arrow_and_its_number() -> None:
    result, root = picture(programs.lost_update)
    assert (result.deviations, result.preemptions) == (1, 1)
    shown = texts(root)
    line = programs.line_of(programs.lost_update, "testing.schedule_point()")
    (band,) = [text for text in shown if text.startswith("PREEMPTION")]
    assert band == f"PREEMPTION at failing_programs.py:{line}: production would let alice go on; bob runs instead"
    assert band in result.report
    assert len(of_class(root, "dev")) == 1
    # in the picture, beside the words, and in the legend
    assert [element.text for element in of_class(root, "n")] == ["1", "1", "1"]
    assert len([path for path in of_class(root, "swap") if path.attrib.get("marker-end")]) == 2
    # the line at which alice was stopped, between its neighbours
    assert len(of_class(root, "hit")) == 1
    assert {'balance = account["balance"]', "testing.schedule_point()"} <= {text.strip() for text in shown}


def test_lanes_are_in_the_order_in_which_fibers_were_spawned() -> None:
    _, root = picture(programs.deadlock)
    heads = {
        element.text: float(element.attrib["x"]) for element in of_class(root, "b") if "text-anchor" in element.attrib
    }
    assert sorted(heads, key=lambda name: heads[name or ""]) == ["main", "taker 0", "taker 1", "taker 2"]


def test_bars_are_in_the_lane_of_whoever_runs_and_in_order() -> None:
    result, root = picture(programs.lost_update)
    heads = {
        float(element.attrib["x"]): element.text for element in of_class(root, "b") if "text-anchor" in element.attrib
    }
    bars = [
        (float(bar.attrib["y"]), heads[float(bar.attrib["x"]) + float(bar.attrib["width"]) / 2])
        for bar in root.iter(f"{SVG}rect")
        if bar.attrib.get("class") in ("run", "stop") and bar.find(f"{SVG}title") is not None
    ]
    assert bars == sorted(bars)
    assert [name for _, name in bars] == ["main", "alice", "bob", "alice", "main"]
    assert result.story is not None


def test_a_deadlock_is_a_ring_of_arrows() -> None:
    _, root = picture(programs.deadlock)
    needs = [path.attrib["d"] for path in of_class(root, "need") if path.attrib.get("marker-end")]
    # taker to taker to taker, main to the first, and the legend
    assert len(needs) == 5
    (head,) = [text for text in texts(root) if text.startswith("At the end nobody can run")]
    assert re.fullmatch(
        r"At the end nobody can run: (taker \d) waits for taker \d waits for taker \d waits for \1", head
    )
    assert {"Lock 1", "Lock 2", "Lock 3"} <= set(texts(root))


def test_waits_are_dashed_and_say_for_what_and_who_has_it() -> None:
    _, root = picture(programs.deadlock)
    assert of_class(root, "wait")
    labels = [element.text for element in of_class(root, "w")]
    assert "of taker 0" in labels


def test_a_lost_wakeup_says_that_nobody_is_left() -> None:
    _, root = picture(programs.lost_wakeup)
    shown = "\n".join(texts(root))
    assert "nobody is left who would act: a wakeup was lost" in shown
    assert re.search(r"worker \d  waits for the Event; nobody is left who would wake it", shown)
    # main only waits for the worker: it is not at fault
    assert re.search(r"main  waits for the end of worker \d$", shown, re.MULTILINE)


def test_whoever_waits_last_is_dashed_to_the_end() -> None:
    result, root = picture(programs.lost_wakeup)
    assert result.story is not None
    last = result.story.moments[-1].chosen
    lane = next(element.attrib["x"] for element in of_class(root, "b") if element.text == last)
    assert any(path.attrib["d"].startswith(f"M{lane} ") for path in of_class(root, "wait"))


def test_a_row_has_a_bounded_number_of_arrows() -> None:
    _, root = picture(programs.many)
    assert len([path for path in of_class(root, "spawn") if path.attrib.get("marker-end")]) <= 9


def test_virtual_time_is_shown_where_it_jumps() -> None:
    _, root = picture(programs.timeout_race)
    times = [text for text in texts(root) if re.fullmatch(r"[\d.]+ s", text)]
    assert times == ["0 s", "5 s"]
    assert of_class(root, "clock")
    _, root = picture(programs.lost_update)
    assert not [text for text in texts(root) if re.fullmatch(r"[\d.]+ s", text)]


def test_wakeups_spawns_and_handoffs_are_arrows_and_only_what_there_is_is_in_the_legend() -> None:
    _, root = picture(programs.handoff)
    arrows = [path for path in of_class(root, "hand") if path.attrib.get("marker-end")]
    assert len(arrows) == 2
    assert "hands over" in texts(root)
    assert "wakes" not in texts(root)
    _, root = picture(programs.child_fails)
    for kind, words in (("wake", "wakes"), ("spawn", "spawns")):
        assert len([path for path in of_class(root, kind) if path.attrib.get("marker-end")]) >= 2
        assert words in texts(root)
    assert "hands over" not in texts(root)


def test_an_endless_run_says_where_it_spends_its_time() -> None:
    _, root = picture(programs.endless)
    line = programs.line_of(programs.endless, "swapco.sleep(0)")
    assert any(re.match(rf" +\d+ x spinner +failing_programs.py:{line}", text) for text in texts(root))


def test_the_fiber_that_raised_is_marked_and_not_who_passes_it_on() -> None:
    for body, guilty in ((programs.child_fails, "server"), (programs.group, "ann")):
        _, root = picture(body)
        tips = [
            title.text or ""
            for bar in root.iter(f"{SVG}rect")
            if bar.attrib.get("class") == "stop"
            for title in bar.iter(f"{SVG}title")
        ]
        assert [tip.split(":")[0] for tip in tips] == [guilty], body


def test_drawing_twice_is_the_same() -> None:
    result = programs.failure_of(programs.lost_wakeup)
    assert svg_timeline(result) == svg_timeline(result)
    again = programs.failure_of(programs.lost_wakeup)
    assert svg_timeline(result) == svg_timeline(again)
