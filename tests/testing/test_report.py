"""The text report of a failure: its words, its width, its length, and that a person finds the switches that matter."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import failing_programs as programs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swapco
from swapco import testing
from swapco.testing import report as reports
from swapco.testing.segments import segments_of

WIDTH = 100


def checked(result: testing.Result) -> str:
    """The report, after what holds for every one."""
    text = result.report
    lines = text.split("\n")
    # a command that is copied stays in one piece
    wide = [line for line in lines if len(line) > WIDTH and "replay" not in line]
    assert not wide
    assert len(lines) <= 90
    for line in lines:
        assert line.isprintable(), repr(line)
        assert line == line.rstrip()
    assert lines[0].startswith("swapco.testing:")
    assert text.encode("utf-8")
    return text


def report_of(body: Callable[[], Any], **options: Any) -> str:
    return checked(programs.failure_of(body, **options))


def numbered(text: str, body: Callable[[], Any]) -> str:
    """With line numbers that count from the begin of the body, as :+0."""
    first = body.__code__.co_firstlineno
    return re.sub(r"failing_programs\.py:(\d+)", lambda found: f"it.py:+{int(found[1]) - first}", text)


# --------------------------------------------------------------------------------------------------- whole reports


def test_the_whole_report_of_a_lost_update() -> None:
    result = programs.failure_of(programs.lost_update, seed=0)
    text = numbered(checked(result), programs.lost_update)
    head, listing, again = re.split(r"\n\n(?=What happened|To run)", text)
    assert head.startswith(
        "swapco.testing: failing_programs.lost_update fails: AssertionError: the balance is 110\n"
        f"  Found after {result.schedules} schedule"
    )
    # from this seed, the first schedule that fails is a simplest one
    assert result.found == (3, 1, 1)
    assert "with 1 preemption, in 3 decisions; could not be shrunk (2 replays)." in " ".join(head.split())
    assert "No simpler schedule fails: proved" in " ".join(head.split())
    assert listing == (
        """\
What happened (# runs, : could run, . waits, ! fails; >>> production would not have done that):

  #    main   starts lost_update, spawns alice, bob, waits for the end of alice, bob
                it.py:+8  swapco.wait([swapco.spawn(deposit, 10, name="alice"), swa...
  .#:  alice  starts deposit, is preempted
                it.py:+4  balance = account["balance"]
              > it.py:+5  testing.schedule_point()
                it.py:+6  account["balance"] = balance + amount
>>> 1  PREEMPTION at it.py:+5: production would let alice go on; bob runs instead
  .:#  bob    starts deposit, passes it.py:+5, ends
  .#   alice  wakes main, ends
! #    main   raises AssertionError: the balance is 110
                it.py:+9  assert account["balance"] == 130, f"the balance is {accou...\
"""
    )
    assert result.schedule is not None
    assert again == (
        "To run this schedule again:\n"
        f"    testing.replay(lost_update, '{result.schedule.code}')\n"
        f'    @testing.explore(replay="{result.schedule.code}")  # above the test\n'
        '    result.save_svg("schedule.svg")  # as a picture'
    )


def test_the_head_says_what_shrinking_came_to() -> None:
    """Many seeds find a schedule that is no simplest one, others find a simplest: every one is told as what it is."""
    told = dict[bool, int]()
    for seed in range(12):
        result = programs.failure_of(programs.lost_update, seed=seed)
        head = " ".join(checked(result).split("\n\n", 1)[0].split())
        simplest = result.found[1:] == (1, 1)
        words = "could not be shrunk" if simplest else "shrunk to 1 preemption"
        assert f", in {result.found[0]} decisions; {words} ({result.replays} replay" in head
        told[simplest] = seed
    assert set(told) == {True, False}


def test_the_end_of_a_deadlock_is_a_cycle() -> None:
    text = numbered(report_of(programs.deadlock), programs.deadlock)
    assert "Deadlock" in text.split("\n", 1)[0]
    end = text[text.index("At the end") :].split("\n\n")[1].split("\n")
    pattern = r"  (\.->|\|  |'--) (taker \d) +-- (Lock \d) -+> (taker \d) +it\.py:\+6  with locks\[second\]:"
    rows = [re.fullmatch(pattern, line) for line in end[:3]]
    assert all(rows), end
    assert [row[1] for row in rows if row] == [".->", "|  ", "'--"]
    who, whom = [row[2] for row in rows if row], [row[4] for row in rows if row]
    assert whom == [*who[1:], who[0]], "each waits for the next"
    assert len({row[3] for row in rows if row}) == 3, "three locks, three names"
    assert re.fullmatch(r"      main +-- the end -+> taker \d +it\.py:\+\d+  swapco\.wait\(fibers\)", end[3])
    # each of the three is marked where it stops, and main is not
    marked = [line.split()[2] + " " + line.split()[3] for line in text.split("\n") if line.startswith("!")]
    assert sorted(marked) == ["taker 0", "taker 1", "taker 2"]


def test_a_deadlock_through_a_group_is_one() -> None:
    result = programs.failure_of(programs.deadlock_through_a_group)
    assert type(result.exception) is testing.Deadlock
    text = checked(result)
    assert re.search(r"\.-> main +-- the end -+> member ", text)
    assert re.search(r"'-- member +-- the Lock -+> main ", text)
    assert "harmless" not in text[text.index("At the end") :]


def test_a_lost_wakeup_names_whom_nobody_wakes() -> None:
    text = report_of(programs.lost_wakeup)
    assert "nobody: a wakeup was lost" in text
    rows = text[text.index("At the end") :].split("\n\n")[1].split("\n")
    assert re.match(r"      main +-- the end -+> worker \d ", rows[0])
    assert re.match(r"      worker \d +-- the Event -+> nobody ", rows[1])
    assert [line.split()[-4:] for line in text.split("\n") if line.startswith("!")] == [
        ["waits", "for", "the", "Event"]
    ]


# ---------------------------------------------------------------------------------------------------- what is named


def test_preemptions_are_numbered_in_order_and_counted() -> None:
    result = programs.failure_of(programs.lost_wakeup)
    numbers = [int(found) for found in re.findall(r"^>>> (\d+)", checked(result), re.MULTILINE)]
    assert numbers == list(range(1, result.deviations + 1))
    assert result.deviations >= 2


def test_a_preemption_at_a_primitive_names_the_line() -> None:
    text = report_of(programs.at_primitives)
    second = programs.at_primitives.__code__.co_firstlineno + 6
    preemption = f"PREEMPTION at failing_programs.py:{second}, before Lock.__enter__: production would let"
    assert preemption in " ".join(text.split())
    assert f"> failing_programs.py:{second}  with lock:" in text
    assert '!")  # above the test' in text, "the code says that primitives are preempted"


def test_an_order_of_timers_is_no_preemption() -> None:
    text = report_of(programs.timers_in_order)
    assert "OTHER ORDER: in production timer of sleeper 0 would be next; timer of sleeper 1 runs instead" in text or (
        "OTHER ORDER: in production sleeper 0 would be next; sleeper 1 runs instead" in text
    )
    assert "3 s" in text


def test_a_choice_says_what_came_of_it() -> None:
    text = report_of(programs.choice)
    line = programs.line_of(programs.choice, "testing.choose(3)")
    assert f"CHOICE at failing_programs.py:{line}: choose comes to 2 of 0 to 2; in production it would be 0" in text


def test_timers_and_what_they_wake() -> None:
    text = report_of(programs.timeout_race)
    assert re.search(r"consumer +starts consume, waits for an item from the Queue", text)
    assert re.search(r" 5 s .*consumer +woken by its timer, ends", text)
    assert "It fails in the order of production, too." in text


def test_who_raised_is_marked_and_who_passes_it_on_says_so() -> None:
    text = report_of(programs.child_fails)
    (marked,) = [line for line in text.split("\n") if line.startswith("!")]
    assert "server" in marked
    assert "raises KeyError: 'port'" in marked
    raised = programs.line_of(programs.child_fails, 'return config["port"]')
    passed = programs.line_of(programs.child_fails, "server.result()")
    assert f'failing_programs.py:{raised}  return config["port"]' in text
    assert re.search(
        rf"main +raises KeyError: 'port', as server did\n +failing_programs.py:{passed}  server.result", text
    )


def test_a_group_says_what_is_in_it() -> None:
    text = report_of(programs.group)
    assert "fails: ExceptionGroup: ValueError: ann bought what was not there" in " ".join(text.split())
    (marked,) = [line for line in text.split("\n") if line.startswith("!")]
    assert "ann " in marked


def test_groups_in_groups_are_counted() -> None:
    def body() -> None:
        inner = ExceptionGroup("b", [ValueError("two"), KeyError("three")])
        raise ExceptionGroup("a", [ExceptionGroup("c", [TypeError("one")]), inner])

    # nothing was decided: what is shown is what there is
    result = testing.search(body, save=False)
    assert "ExceptionGroup: TypeError: one and 2 more" in " ".join(checked(result).split())


def test_an_endless_run_has_a_census_of_its_end() -> None:
    text = report_of(programs.endless)
    line = programs.line_of(programs.endless, "swapco.sleep(0)")
    assert re.search(rf"^ +\d\d\d x spinner +failing_programs.py:{line}  swapco.sleep\(0\)$", text, re.MULTILINE)
    assert re.search(r"Where it was interrupted, in its last [\d,]+ moments:", text)
    assert text.index("Where it was interrupted") < text.index("What happened"), "what matters comes first"
    assert text.count("\n") < 40


def test_a_leak_names_the_fiber_and_what_it_waits_for() -> None:
    text = report_of(programs.leak)
    assert re.search(r"      forgotten +-- the Event -+> nobody", text)
    assert re.search(r"^!.* forgotten +starts.*waits for the Event", text, re.MULTILINE)


def test_a_handoff_is_said() -> None:
    assert re.search(r"main  starts handoff, hands over to pong", report_of(programs.handoff))


def test_coroutines_are_where_they_are_suspended() -> None:
    text = report_of(programs.coroutines)
    line = programs.line_of(programs.coroutines, "await asyncio.sleep(0)")
    assert text.count(f"failing_programs.py:{line}  await asyncio.sleep(0)") >= 2
    assert "waits for the end of Fiber-1, Fiber-2, Fiber-3" in " ".join(text.split())


def test_callbacks_of_the_program_are_named_and_those_of_libraries_are_not() -> None:
    async def body() -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def ring() -> None:
            event.set()

        loop.call_later(2, ring)
        await event.wait()
        await asyncio.gather(asyncio.sleep(1), asyncio.sleep(1))
        raise ValueError("over")

    text = checked(testing.search(body, save=False, schedules=1))
    assert "woken by ring, spawns" in " ".join(text.split())
    assert "woken by the event loop" in text
    assert ".ring" not in text
    assert "_done_callback" not in text


# ------------------------------------------------------------------------------------------------ width and length


@pytest.mark.parametrize("body", programs.ALL, ids=lambda body: body.__name__)
def test_every_kind_of_failure_has_a_report(body: Callable[[], Any]) -> None:
    result = programs.failure_of(body)
    text = checked(result)
    assert "To run this schedule again:" in text
    assert any(line.startswith("!") for line in text.split("\n")), "the failing place is marked"
    assert result.schedule is not None
    assert testing.replay(
        body, result.schedule.code, max_steps=programs.BOUND if body is programs.endless else 20_000
    ).failed


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(programs.programs(), st.integers(0, 99))
def test_every_failure_of_a_random_program_has_a_report(program: Any, seed: int) -> None:
    result = testing.search(programs.body_of(program), schedules=6, seed=seed, save=False, max_steps=300)
    text = checked(result)
    if result.failed and result.story is not None:
        shown = len(re.findall(r"^>>> \d", text, re.MULTILINE))
        folded = [int(found.replace(",", "")) for found in re.findall(r"with ([\d,]+) deviations?: ", text)]
        assert shown + sum(folded) == result.deviations


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(), max_size=12), st.integers(8, 30))
def test_labels_are_different_printable_and_short(names: list[str], width: int) -> None:
    labels = reports.labels_of(names, width)
    assert set(labels) == set(names)
    assert len(set(labels.values())) == len(labels)
    for label in labels.values():
        assert label.isprintable()
        assert 0 < len(label) <= max(width, len("(no name)"))


@settings(deadline=None, max_examples=100)
@given(st.text(), st.integers(5, 50))
def test_what_is_shortened_keeps_both_ends(text: str, width: int) -> None:
    short = reports.shortened(text, width)
    assert len(short) <= max(width, len(text) if len(text) <= width else 0)
    if len(text) > width:
        assert short[0] == text[0]
        assert short[-1] == text[-1]
        assert ".." in short
    else:
        assert short == text


def test_a_huge_message_is_cut() -> None:
    def body() -> None:
        raise ValueError("x" * 100_000 + "\n" * 1_000)

    assert len(checked(testing.search(body, save=False))) < 2_000


def test_what_is_far_from_a_deviation_is_folded() -> None:
    def body() -> None:
        box = [0]

        def add() -> None:
            for _ in range(100):
                swapco.sleep(0)
            value = box[0]
            testing.schedule_point()
            box[0] = value + 1
            for _ in range(100):
                swapco.sleep(0)

        swapco.wait([swapco.spawn(add, name=f"adder {i}") for i in range(3)])
        assert box == [3]

    result = testing.search(body, save=False)
    text = checked(result)
    assert result.story is not None
    rows = len(re.findall(r"^[! ] [#:. ]{4}  (main|adder)", text, re.MULTILINE))
    folded = [int(found.replace(",", "")) for found in re.findall(r"^ +\.\.\. ([\d,]+) switch", text, re.MULTILINE)]
    assert rows + sum(folded) == len(segments_of(result.story)), "nothing is lost, and nothing is counted twice"
    assert len(text.split("\n")) < 70


# ------------------------------------------------------------------------------------------------- other outcomes


def test_what_passed_says_so() -> None:
    passed = testing.search(lambda: swapco.sleep(1), save=False)
    assert "passed 1 schedule" in checked(passed)
    assert "These are all there are" in checked(passed)


def test_a_divergence_says_what_to_do() -> None:
    found = programs.failure_of(programs.lost_update)
    assert found.schedule is not None
    text = checked(testing.replay(lambda: swapco.sleep(1), found.schedule))
    assert "does not fit" in text
    assert "Search again: testing.search(body)" in text


def test_a_file_is_named_where_there_is_one(tmp_path: Any) -> None:
    result = programs.failure_of(programs.lost_update, save=tmp_path / "f.json")
    assert "f.json" in result.report
    assert testing.replay(programs.lost_update, tmp_path / "f.json").report.startswith(
        "swapco.testing: failing_programs.lost_update fails"
    )


def test_a_report_of_a_replay_is_about_the_same_run() -> None:
    result = programs.failure_of(programs.lost_wakeup)
    assert result.schedule is not None
    again = testing.replay(programs.lost_wakeup, result.schedule.code)
    first, second = (text[text.index("What happened") :] for text in (result.report, again.report))
    assert first == second
    assert "Replayed with 2 preemptions." in again.report
