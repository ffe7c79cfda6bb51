"""The story of a run: names, places, waits, owners, endings; and telling it never changes the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import failing_programs as programs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swapco
from swapco import testing
from swapco.testing.execution import Program
from swapco.testing.owners import cycle_of
from swapco.testing.segments import segments_of, waits_at_end
from swapco.testing.story import HANDOFF, Story, Teller
from swapco.testing.strategies import Path, RandomWalk


def told(body: Callable[[], Any], path: Any = (), **options: Any) -> tuple[Story, Any]:
    """The story of one run, and how that ended."""
    options.setdefault("max_steps", 300)
    program = Program(body, **options)
    teller = Teller()

    class Told(Path):
        def end(self, control: Any) -> None:
            teller.over(control)

    def session() -> tuple[Story, Any]:
        outcome = program.run(Told(path), watcher=teller)
        return teller.story(), outcome

    return program.session(session)  # type: ignore[no-any-return]


def story_of(body: Callable[[], Any], **options: Any) -> Story:
    story = programs.failure_of(body, **options).story
    assert story is not None
    return story


def check(story: Story) -> None:
    """What holds for every story."""
    assert len(set(story.fibers)) == len(story.fibers), "names tell fibers apart"
    if story.moments:
        assert story.fibers[0] == "main"
    decision = -1
    time = 0.0
    for moment in story.moments:
        if moment.possibilities:
            assert 0 <= moment.choice < moment.possibilities
            assert moment.before == moment.chosen
        elif moment.label == HANDOFF:
            assert moment.enabled == ()
            assert not moment.deviates
            assert moment.decision == -1
        else:
            assert moment.enabled[moment.choice] == moment.chosen
        if moment.decision >= 0:
            assert moment.decision == decision + 1, "decisions are numbered without a gap"
            decision = moment.decision
        assert moment.time >= time, "time goes on"
        time = moment.time
        assert not moment.owner or (moment.owner in story.fibers and moment.waits_for)
        assert bool(moment.wants) == bool(moment.waits_for)
        assert " at 0x" not in moment.waits_for
        assert not (moment.outcome and moment.waits_for), "whoever has ended does not wait"
    for name in story.endings:
        assert name in story.fibers
        assert name not in story.unfinished
    assert {wait.fiber for wait in story.waits} <= story.unfinished
    for wait in story.waits:
        assert wait.wants
        assert not wait.owner or wait.owner in story.unfinished


# ------------------------------------------------------------------------------------------------------ invariants


@pytest.mark.parametrize("body", programs.ALL, ids=lambda body: body.__name__)
def test_every_story_is_consistent(body: Callable[[], Any]) -> None:
    result = programs.failure_of(body)
    assert result.story is not None
    check(result.story)
    assert len(result.story.deviations) == result.deviations
    assert sum(moment.preemption for moment in result.story.moments) == result.preemptions
    assert len(result.story.named) == result.deviations
    numbers = [segment.number for segment in segments_of(result.story) if segment.number]
    assert numbers == list(range(1, result.deviations + 1))


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(programs.programs(), st.integers(0, 99), st.booleans())
def test_telling_never_changes_a_run(program: Any, seed: int, primitives: bool) -> None:
    """The same decisions with and without a watcher: the same run, to the last event."""
    runner = Program(programs.body_of(program), max_steps=300, preempt="primitives" if primitives else "points")

    def session() -> Story:
        before = runner.record(runner.run(RandomWalk(seed)))
        signature = runner.control.signature()
        teller = Teller()

        class Told(Path):
            def end(self, control: Any) -> None:
                teller.over(control)

        after = runner.record(runner.run(Told(before.path), watcher=teller))
        assert after.decisions == before.decisions
        assert after.fingerprint == before.fingerprint
        assert runner.control.signature() == signature
        story = teller.story()
        assert len(story.deviations) == before.deviations
        # and the slot is as good as before
        again = runner.record(runner.run(Path(before.path)))
        assert again.decisions == before.decisions
        assert again.fingerprint == before.fingerprint
        return story

    story: Story = runner.session(session)
    check(story)
    segments = segments_of(story)
    for segment in segments:
        assert segment.actor == segment.begins.chosen
        assert segment.stops is None or segment.stops.before == segment.actor or segment.stops.label == HANDOFF


def test_no_value_of_the_program_is_shown_or_asked() -> None:
    class Secret:
        def __repr__(self) -> str:
            raise AssertionError("its repr was taken")

        __str__ = __repr__

        def __eq__(self, other: object) -> bool:
            raise AssertionError("it was compared")

        __hash__ = object.__hash__

    class Odd(Exception):
        def __str__(self) -> str:
            raise TypeError("not even a message")

    def body() -> None:
        queue = swapco.Queue[Secret](1)

        def work(secret: Secret) -> Secret:
            queue.put(secret)
            testing.schedule_point(secret)
            return secret

        fibers = [swapco.spawn(work, Secret(), name=f"worker {i}") for i in range(3)]
        for _ in range(2):
            queue.get()
            testing.schedule_point()
        swapco.wait(fibers)
        raise Odd

    result = testing.search(body, schedules=3, save=False)
    assert isinstance(result.exception, Odd)
    assert result.story is not None
    check(result.story)
    assert "its message raises TypeError" in result.report
    from swapco.testing.timeline import svg_timeline

    assert "Secret" not in svg_timeline(result)


def test_exceptions_do_not_count_as_seen() -> None:
    """A fiber whose exception nobody retrieves fails the run, told or not."""

    def body() -> None:
        def fail() -> None:
            raise KeyError("nobody looks")

        swapco.spawn(fail, name="failing")
        swapco.sleep(1)

    story, outcome = told(body)
    assert outcome.failed
    assert isinstance(outcome.exception, KeyError)
    assert story.endings["failing"].exception == "KeyError: 'nobody looks'"


# ----------------------------------------------------------------------------------------------------------- names


def test_fibers_of_the_same_name_are_told_apart() -> None:
    def body() -> None:
        for name in ("twin", "twin", "twin (2)", "twin"):
            swapco.spawn(swapco.sleep, 1, name=name)
        swapco.sleep(2)

    story, _ = told(body)
    assert story.fibers == ("main", "twin", "twin (2)", "twin (2) (2)", "twin (3)")
    timers = [moment.chosen for moment in story.moments if moment.chosen.startswith("timer of")]
    assert [timer for timer in timers if timer != "timer of main"] == [f"timer of {name}" for name in story.fibers[1:]]


def test_replay_by_name_keeps_the_names_of_the_program() -> None:
    def body() -> None:
        order: list[int] = []
        swapco.wait([swapco.spawn(order.append, i, name="twin") for i in range(2)])
        assert order == [0, 1]

    result = testing.search(body, save=False)
    assert result.failed
    assert result.schedule is not None
    assert result.story is not None
    assert [entry.chosen for entry in result.schedule.named] == ["twin"]
    assert result.story.deviations[0].chosen == "twin (2)"


def test_primitives_are_numbered_only_if_there_are_several() -> None:
    def body(count: int) -> None:
        locks = [swapco.Lock() for _ in range(count)]
        for lock in locks:
            lock.acquire()
        fibers = [swapco.spawn(lock.acquire) for lock in locks]
        swapco.sleep(1)
        for lock in locks:
            lock.release()
        swapco.wait(fibers)

    one, _ = told(lambda: body(1))
    assert [moment.wants for moment in one.moments if "Lock" in moment.wants] == ["the Lock"]
    two, _ = told(lambda: body(2))
    assert [moment.wants for moment in two.moments if "Lock" in moment.wants] == ["Lock 1", "Lock 2"]


# ------------------------------------------------------------------------------------------------ places and waits


def test_where_a_fiber_stops_and_where_it_goes_on() -> None:
    story = story_of(programs.lost_update)
    (deviation,) = story.deviations
    assert deviation.left is not None
    assert deviation.left.line == programs.line_of(programs.lost_update, "testing.schedule_point()")
    assert deviation.left.source == "testing.schedule_point()"
    assert deviation.left.function == "deposit"
    assert (deviation.before, deviation.chosen, deviation.preemption) == ("alice", "bob", True)
    assert deviation.enabled == ("alice", "bob")
    assert deviation.resumes is None
    back = next(moment for moment in story.moments if moment.before == "bob" and moment.chosen == "alice")
    assert back.resumes == deviation.left
    assert back.outcome == "ends"
    start = story.spawned_at["alice"]
    assert start is not None
    assert start.function == "deposit"


def test_a_coroutine_is_where_it_awaits() -> None:
    story = story_of(programs.coroutines)
    line = programs.line_of(programs.coroutines, "await asyncio.sleep(0)")
    places = [moment.left.line for moment in story.moments if moment.before == "Fiber-1" and moment.left is not None]
    assert set(places) == {line}


def test_who_has_what_is_waited_for() -> None:
    story = story_of(programs.deadlock)
    for moment in story.moments:
        if "Lock" in moment.wants:
            assert moment.owner.startswith("taker")
            assert moment.owner != moment.before
    waits = {wait.fiber: wait for wait in story.waits}
    assert set(waits) == {"main", "taker 0", "taker 1", "taker 2"}
    line = programs.line_of(programs.deadlock, "with locks[second]")
    for name in ("taker 0", "taker 1", "taker 2"):
        place = waits[name].place
        assert place is not None
        assert place.line == line
    ordered = waits_at_end(story, testing.Deadlock())
    assert [wait.owner for wait in ordered[:3]] == [ordered[1].fiber, ordered[2].fiber, ordered[0].fiber]
    assert ordered[3].fiber == "main"
    assert waits_at_end(story, ValueError()) == ()


@pytest.mark.parametrize("how", ["wait", "gather", "group", "asyncio", "join"])
def test_who_waits_for_several_waits_for_each(how: str) -> None:
    def body() -> None:
        event = swapco.Event()
        names = ("quick", "slow", "stuck")
        functions: list[Callable[[], Any]] = [lambda: None, lambda: swapco.sleep(1), event.wait]
        if how == "group":
            with swapco.TaskGroup() as group:
                for name, fn in zip(names, functions, strict=True):
                    group.spawn(fn, name=name)
        fibers = [swapco.spawn(fn, name=name) for name, fn in zip(names, functions, strict=True)]
        if how == "wait":
            swapco.wait(fibers)
        elif how == "gather":
            swapco.gather(*fibers)
        elif how == "join":
            fibers[2].join()
        else:
            swapco.await_(asyncio.gather(*fibers))

    story, outcome = told(body)
    assert isinstance(outcome.exception, testing.LostWakeup)
    waits = {wait.fiber: wait for wait in story.waits}
    assert (waits["main"].wants, waits["main"].owner) == ("the end of stuck", "stuck")
    assert (waits["stuck"].wants, waits["stuck"].owner) == ("the Event", "")
    begins = next(moment for moment in story.moments if moment.before == "main" and moment.waits_for)
    if how == "join":
        assert (begins.wants, begins.owner) == ("the end of stuck", "stuck")
    else:
        assert (begins.wants, begins.owner) == ("the end of quick, slow, stuck", "")


def test_a_cycle_through_a_group_is_a_deadlock_and_not_a_lost_wakeup() -> None:
    result = programs.failure_of(programs.deadlock_through_a_group)
    error: Any = result.exception
    assert type(error) is testing.Deadlock
    head = "nothing can run: a cycle of fibers, each waiting for what the next one has:\n  'main' waits for "
    assert str(error).startswith(head)
    assert result.story is not None
    owners = {wait.fiber: wait.owner for wait in result.story.waits}
    assert (owners["main"], owners["member"]) == ("member", "main")


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=6, max_size=6))
def test_a_cycle_is_found_exactly_if_there_is_one(edges: list[list[int]]) -> None:
    nodes = [[number] for number in range(6)]  # compared by identity

    def following(node: list[int]) -> list[list[int]]:
        return [nodes[number] for number in edges[node[0]]]

    reach = [set(following_ones) for following_ones in edges]
    for _ in range(6):
        for number in range(6):
            reach[number] |= {further for near in reach[number] for further in reach[near]}
    cycle = cycle_of(nodes, following)
    assert bool(cycle) == any(number in reach[number] for number in range(6))
    for node, after in zip(cycle, [*cycle[1:], *cycle[:1]], strict=True):
        assert any(after is other for other in following(node))
    assert len({id(node) for node in cycle}) == len(cycle)


def test_a_cycle_of_ten_thousand_is_found_without_recursion() -> None:
    nodes = [[number] for number in range(10_000)]
    assert len(cycle_of(nodes, lambda node: [nodes[(node[0] + 1) % len(nodes)]])) == len(nodes)


# ------------------------------------------------------------------------------ handoffs, choices, endings, timers


def test_a_handoff_is_a_moment_of_its_own_and_no_decision() -> None:
    story = story_of(programs.handoff)
    (moment,) = [moment for moment in story.moments if moment.label == HANDOFF]
    assert (moment.before, moment.chosen, moment.decision, moment.enabled) == ("main", "pong", -1, ())
    assert moment.left is not None
    assert "switch_to" in moment.left.source
    (wait,) = story.waits
    assert (wait.fiber, wait.owner) == ("main", "")


def test_a_choice_of_the_environment_switches_nobody() -> None:
    story = story_of(programs.choice)
    (moment,) = story.deviations
    assert (moment.before, moment.chosen, moment.choice, moment.possibilities) == ("sender", "sender", 2, 3)
    assert not moment.preemption
    assert not moment.switches
    assert moment.left is not None
    assert "choose(3)" in moment.left.source


def test_endings() -> None:
    def body() -> None:
        def fail() -> None:
            raise ValueError("first line\nsecond line")

        def fine() -> None:
            pass

        failing, cancelled = swapco.spawn(fail, name="failing"), swapco.spawn(swapco.sleep, 9, name="cancelled")
        swapco.spawn(fine, name="fine")
        swapco.sleep(1)
        cancelled.cancel()
        swapco.wait([failing, cancelled])
        failing.result()

    story, outcome = told(body)
    outcomes = {moment.before: moment.outcome for moment in story.moments if moment.outcome}
    assert outcomes == {"failing": "raises ValueError: first line", "cancelled": "is cancelled", "fine": "ends"}
    assert isinstance(outcome.exception, ValueError)
    own, passed = story.endings["failing"], story.endings["main"]
    assert own.exception == passed.exception == "ValueError: first line"
    assert (own.origin, passed.origin) == ("", "failing")
    assert own.place is not None
    assert own.place.function == "fail"
    assert passed.place is not None
    assert passed.place.source == "failing.result()"
    assert not story.unfinished


def test_virtual_time_and_who_is_woken_by_what() -> None:
    story = story_of(programs.timeout_race)
    assert {moment.time for moment in story.moments} == {0.0, 5.0}
    woken = {segment.actor: segment.woken_by for segment in segments_of(story) if segment.woken_by}
    assert woken == {"consumer": ("timer of consumer",), "producer": ("timer of producer",)}


def test_what_was_passed_without_a_switch_is_merged() -> None:
    def body() -> None:
        def work() -> None:
            for _ in range(5):
                testing.schedule_point()

        swapco.wait([swapco.spawn(work, name=f"worker {i}") for i in range(2)])
        raise ValueError

    result = testing.search(body, save=False)
    assert result.story is not None
    segments = segments_of(result.story)
    assert [segment.actor for segment in segments] == ["main", "worker 0", "worker 1", "main"]
    assert [count for _, count in segments[1].steps] == [5]
    assert segments[0].spawned == ("worker 0", "worker 1")
    assert segments[2].woke == ("main",)
    assert [segment.first for segment in segments] == [True, True, True, False]
