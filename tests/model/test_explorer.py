"""The model checker itself: it finds what is there, and says when it cannot look at everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from explorer import Violation, explore


class Counter:
    """Two threads add one to a counter, by a load and a store or in one atomic step."""

    def __init__(self, *, atomic: bool) -> None:
        self.atomic = atomic

    def initial(self):
        return 0, (None, None)

    def steps(self, state) -> Iterator[tuple[str, object]]:
        counter, loaded = state
        for me, value in enumerate(loaded):
            if value == "done":
                continue
            mine = list(loaded)
            if value is None and not self.atomic:
                mine[me] = counter
                yield f"{me} loads", (counter, tuple(mine))
            else:
                mine[me] = "done"
                yield f"{me} stores", ((counter if self.atomic else value) + 1, tuple(mine))

    def broken(self, state):
        return "more than was added" if state[0] > 2 else None

    def stuck(self, state):
        return None if state[0] == 2 else f"the counter is {state[0]}"


class Graph:
    """States and steps as a dict; ends are good, and ``bad`` is broken."""

    def __init__(self, edges, bad=None):
        self.edges, self.bad = edges, bad

    def initial(self):
        return "a"

    def steps(self, state):
        for to in self.edges.get(state, ()):
            if to == "!":
                raise Violation(f"no way out of {state}")
            yield f"{state}{to}", to

    def broken(self, state):
        return "bad" if state == self.bad else None

    def stuck(self, state):
        return None


def test_a_lost_update_is_found_with_a_shortest_trace():
    report = explore(Counter(atomic=False))
    assert report.failure is not None
    assert report.failure.reason == "the counter is 1"
    assert sorted(report.failure.trace) == ["0 loads", "0 stores", "1 loads", "1 stores"]
    assert report.failure.state[0] == 1
    assert "failure: the counter is 1" in str(report)


def test_the_atomic_counter_is_right_and_every_state_is_counted():
    report = explore(Counter(atomic=True))
    assert report.failure is None
    assert (report.states, report.transitions, report.ends) == (4, 4, 1)


def test_the_shortest_way_to_a_broken_state():
    report = explore(Graph({"a": "bc", "b": "d", "c": "e", "d": "e"}, bad="e"))
    assert report.failure is not None
    assert report.failure.trace == ("ac", "ce")


def test_the_first_state_may_be_broken():
    report = explore(Graph({}, bad="a"))
    assert report.failure is not None
    assert report.failure.trace == ()


def test_a_violation_during_a_step_names_the_way_there():
    report = explore(Graph({"a": "b", "b": "!"}))
    assert report.failure is not None
    assert report.failure.reason == "no way out of b"
    assert report.failure.trace == ("ab", "(the step that fails)")


def test_running_in_circles_is_a_failure():
    assert explore(Graph({"a": "ab"})).failure is None
    report = explore(Graph({"a": "bc", "c": "d", "d": "c"}))
    assert report.failure is not None
    assert "circles" in report.failure.reason
    assert report.failure.trace == ("ac",)


def test_too_many_states_are_an_error():
    class Endless(Graph):
        def steps(self, state):
            yield "on", state + "a"

    with pytest.raises(RuntimeError, match="more than 100 states"):
        explore(Endless({}), max_states=100)
