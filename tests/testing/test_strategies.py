"""Strategies: what each promises of its choices, and that they come only from the seed and from the runs before."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from small_programs import lost_update_of_three

import swapco
from benchmarks.testing_programs import BUGS, body_of
from swapco import testing
from swapco.testing import DFS, DPOR, PCT, POS, URW, Portfolio, RandomWalk, Replay, Strategy
from swapco.testing.execution import Program

Body = Callable[[], Any]
SEEDED = [RandomWalk, URW, PCT, POS, Portfolio]


def paths(body: Body, strategy: Strategy, runs: int, seed: int = 0) -> list[tuple[int, ...]]:
    """The decisions of each run of a search."""
    program = Program(body)
    program.footprints = strategy.footprints

    def session() -> list[tuple[int, ...]]:
        strategy.start(seed)
        found = []
        for number in range(runs):
            program.run(strategy, number)
            found.append(tuple(program.control.path()))
        return found

    result: list[tuple[int, ...]] = program.session(session)
    return result


def steps(*counts: int) -> Body:
    """A fiber for each number, with so many points; what comes out is the order of who ran."""

    def body() -> None:
        def work(points: int) -> None:
            for _ in range(points):
                testing.schedule_point()

        swapco.wait([swapco.spawn(work, points) for points in counts])

    return body


def outcomes(body: Callable[[list[str]], None], strategy: Strategy, runs: int) -> Counter[str]:
    """What the fibers of ``body`` write into its list, and how often."""
    found: Counter[str] = Counter()

    def noting() -> None:
        log: list[str] = []
        body(log)
        found["".join(log)] += 1

    paths(noting, strategy, runs)
    return found


def workers(*names: str) -> Callable[[list[str]], None]:
    """A fiber for each name, that writes each of its letters, with a point between them."""

    def body(log: list[str]) -> None:
        def work(name: str) -> None:
            for at, letter in enumerate(name):
                if at:
                    testing.schedule_point()
                log.append(letter)

        swapco.wait([swapco.spawn(work, name) for name in names])

    return body


def is_uniform(found: Counter[str], possibilities: int) -> bool:
    """All are there, and none deviates by more than five standard deviations from its share."""
    total = sum(found.values())
    share = total / possibilities
    return len(found) == possibilities and all(
        abs(count - share) < 5 * math.sqrt(share) + 1 for count in found.values()
    )


# ------------------------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("strategy", SEEDED)
def test_the_seed_decides_everything(strategy: Callable[..., Strategy]) -> None:
    body = steps(5, 3, 4)
    first = paths(body, strategy(seed=7), 12)
    assert paths(body, strategy(seed=7), 12) == first
    assert paths(body, strategy(), 12, seed=7) == first
    assert paths(body, strategy(seed=7), 12, seed=99) == first  # its own seed, not the search's
    assert paths(body, strategy(seed=8), 12) != first
    assert len(set(first)) > 6


@pytest.mark.parametrize(
    "strategy",
    [RandomWalk(), URW(), PCT(3), POS(), Portfolio(), DFS(), DFS(1), DPOR(), Portfolio(DFS(1), URW()), Replay([0, 1])],
    ids=repr,
)
def test_an_instance_serves_several_searches(strategy: Strategy) -> None:
    """Each starts afresh: nothing of another program, or of an earlier run of this one, is left."""
    body = steps(2, 2)
    first = paths(body, strategy, 6, seed=3)
    paths(steps(9, 1, 1), strategy, 5)
    assert paths(body, strategy, 6, seed=3) == first


@pytest.mark.parametrize("strategy", SEEDED)
def test_seeds_may_be_any_whole_number(strategy: Callable[..., Strategy]) -> None:
    found = {tuple(paths(steps(4, 4), strategy(seed=seed), 4)) for seed in (0, -1, 2**64 + 5, -(10**30))}
    assert len(found) == 4


def test_a_portfolio_depends_on_its_seed_and_the_runs_only() -> None:
    """Another portfolio that is at work at the same time, or what an earlier one learnt, changes nothing."""
    body, other = steps(3, 3), steps(30, 1, 1)
    alone = paths(body, Portfolio(), 15, seed=5)
    program, disturbing = Program(body), Program(other)
    one, two = Portfolio(), Portfolio()
    one.start(5)
    two.start(5)
    together = []
    for number in range(15):
        program.session(lambda number=number: program.run(one, number))
        together.append(tuple(program.control.path()))
        disturbing.session(lambda number=number: disturbing.run(two, number))
    assert together == alone


def test_the_generator_is_the_same_on_every_machine() -> None:
    """Written down once: seeds in bug reports keep their meaning."""
    assert paths(steps(6, 6), RandomWalk(1), 2) == WALK


WALK = [
    (1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1),
    (0, 1, 1, 0, 1, 1, 0, 0, 1, 1),
]


# ---------------------------------------------------------------------------------------------- distributions


def test_a_random_walk_takes_each_enabled_one_with_the_same_probability() -> None:
    first = Counter(path[0] for path in paths(steps(1, 1, 1, 1), RandomWalk(1), 4000))
    assert is_uniform(Counter({str(choice): count for choice, count in first.items()}), 4)


def test_urw_samples_interleavings_uniformly_where_a_random_walk_does_not() -> None:
    """Two programs of different lengths: a walk ends the short one early, nearly always."""
    body = workers("aaaaa", "b")
    uniform, walk = outcomes(body, URW(2), 3000), outcomes(body, RandomWalk(2), 3000)
    assert is_uniform(uniform, 6)
    assert not is_uniform(walk, 6)
    assert walk["aaaaab"] < 3000 / 20 < uniform["aaaaab"]


def test_urw_learns_lengths_from_the_runs_before() -> None:
    found = outcomes(workers("aaa", "bb", "c"), URW(4), 6000)
    assert is_uniform(found, math.factorial(6) // (6 * 2))


def test_pct_of_depth_one_never_preempts() -> None:
    """Without a change of priority, whoever is highest runs to its end."""
    found = outcomes(workers("aaaa", "bbbb", "cccc"), PCT(1, 3), 600)
    assert is_uniform(found, 6)
    assert all(len(list(itertools.groupby(order))) == 3 for order in found)


@pytest.mark.parametrize("depth", [2, 3])
def test_pct_changes_priorities_less_often_than_its_depth(depth: int) -> None:
    found = outcomes(workers("aaaaaa", "bbbbbb"), PCT(depth, 1), 400)
    switches = Counter(len(list(itertools.groupby(order))) - 1 for order in found.elements())
    assert max(switches) <= 2 * depth - 1
    assert switches[1] < 400
    assert len(switches) > 1


def test_pct_finds_a_bug_of_its_depth_with_the_probability_that_it_promises() -> None:
    """At least 1 / (n * k**(d-1)) for n fibers and k steps, whatever the order that the bug needs."""
    runs, n, k = 6000, 2, 10

    def bug(log: list[str]) -> None:
        # depth 2: b must come after the third letter of a and before the fourth
        workers("aaaaaaaa", "b")(log)

    found = outcomes(bug, PCT(2, 5), runs)
    promised = runs / (n * k)
    for order in ("aaabaaaaa", "aaaaabaaa", "abaaaaaaa"):
        assert found[order] > promised - 4 * math.sqrt(promised), found


def test_pct_of_too_small_a_depth_misses_what_needs_more() -> None:
    """Two preemptions of the same fiber, by another one that must be lower again in between."""
    target = "aabbaabb"
    body = workers("aaaa", "bbbb")
    assert outcomes(body, PCT(1, 1), 500)[target] == 0
    assert outcomes(body, PCT(2, 1), 2000)[target] == 0
    assert outcomes(body, PCT(4, 1), 2000)[target] > 0


def racing(log: list[str]) -> None:
    thing = object()

    def write(name: str) -> None:
        testing.schedule_point(thing)
        log.append(name)

    swapco.wait([swapco.spawn(write, name) for name in "abc"])


def test_pos_orders_racing_steps_uniformly() -> None:
    assert is_uniform(outcomes(racing, POS(3), 3000), 6)


def test_pos_draws_anew_for_what_races_and_keeps_what_does_not() -> None:
    """A pending step keeps its priority while steps that have nothing to do with it are taken.

    So one that has lost once is likely to lose again, which a random walk makes very unlikely for long.
    """

    def body(log: list[str]) -> None:
        things = [object() for _ in range(6)]

        def work(name: str, touched: list[object]) -> None:
            for thing in touched:
                testing.schedule_point(thing)
                log.append(name)

        swapco.wait([swapco.spawn(work, "a", things[:5]), swapco.spawn(work, "b", things[5:])])

    runs = 3000
    found, walk = outcomes(body, POS(1), runs), outcomes(body, RandomWalk(1), runs)
    assert found["aaaaab"] > 2 * walk["aaaaab"]


@pytest.mark.parametrize("strategy", [RandomWalk, URW, PCT, POS, Portfolio])
def test_choices_of_the_environment_prefer_the_ordinary_one(strategy: Callable[..., Strategy]) -> None:
    seen: Counter[int] = Counter()

    def body() -> None:
        seen[testing.choose(4)] += 1

    paths(body, strategy(), 1000)
    assert seen[0] > 500
    assert all(seen[choice] > 50 for choice in (1, 2, 3))


# -------------------------------------------------------------------------------------------------- portfolio


class Noting(Strategy):
    """Writes down what it is asked."""

    def __init__(self, log: list[Any], name: str = "", runs: int = 99) -> None:
        self.log = log
        self.name = name
        self.left = self.runs = runs

    @property
    def finished(self) -> bool:
        return self.left == 0

    def start(self, seed: int) -> None:
        self.left = self.runs
        self.log.append(("start", self.name, seed))

    def begin(self, run: int) -> None:
        self.left -= 1
        self.log.append(("begin", self.name, run))

    def choose(self, enabled: tuple[int, ...], current: int, label: str) -> int:
        self.log.append(("choose", enabled, current, label))
        return len(enabled) - 1

    def end(self, control: Any) -> None:
        self.log.append(("end", self.name, control.path()))


def test_a_portfolio_begins_with_production_and_takes_turns() -> None:
    log: list[Any] = []
    portfolio = Portfolio(Noting(log, "a"), Noting(log, "b"))
    log.clear()
    found = paths(steps(1, 1), portfolio, 5, seed=10)
    assert set(found[0]) == {0}
    assert all(any(path) for path in found[1:])
    assert [entry for entry in log if entry[0] == "start"] == [("start", "a", 10), ("start", "b", 11)]
    assert [entry for entry in log if entry[0] == "begin"] == [
        ("begin", "a", 1), ("begin", "b", 2), ("begin", "a", 3), ("begin", "b", 4),
    ]  # fmt: skip


def test_all_of_a_portfolio_learn_from_every_run() -> None:
    log: list[Any] = []
    portfolio = Portfolio(Noting(log, "a"), Noting(log, "b"))
    log.clear()
    found = paths(steps(1, 1), portfolio, 2)
    ends = [entry for entry in log if entry[0] == "end"]
    assert ends == [("end", name, list(path)) for path in found for name in "ab"]


def test_a_portfolio_passes_over_what_has_finished_and_ends_with_the_last() -> None:
    log: list[Any] = []
    portfolio = Portfolio(Noting(log, "a", 1), Noting(log, "b", 3))
    log.clear()
    result = testing.search(steps(2, 2), strategy=portfolio, save=False)
    begun = [entry[1] for entry in log if entry[0] == "begin"]
    assert begun == ["a", "b", "b", "b"]
    assert result.schedules == 5
    assert not result.exhausted


def test_a_portfolio_with_an_exhaustive_strategy_ends_when_that_one_does() -> None:
    result = testing.search(steps(1, 1), strategy=Portfolio(DFS(), RandomWalk()), save=False)
    alone = testing.search(steps(1, 1), strategy=DFS(), save=False)
    assert alone.exhausted
    assert result.exhausted
    assert result.schedules == 2 * alone.schedules
    assert testing.verify(steps(1, 1), strategy=Portfolio(DPOR(), URW()), save=False).exhausted


# ------------------------------------------------------------------------------------- DFS, DPOR, Replay, your own


@pytest.mark.parametrize("bound", [None, 0, 1, 2])
def test_dfs_has_every_schedule_within_its_bound_and_none_twice(bound: int | None) -> None:
    orders: set[str] = set()

    def body() -> None:
        log: list[str] = []
        workers("aaa", "bb")(log)
        orders.add("".join(log))

    strategy, program = DFS(bound), Program(body)
    seen: list[tuple[int, ...]] = []

    def session() -> None:
        while not strategy.finished:
            program.run(strategy, len(seen))
            seen.append(tuple(program.control.path()))
            assert bound is None or program.control.costs()[0] <= bound

    program.session(session)
    assert len(set(seen)) == len(seen)
    everything = {"".join(order) for order in itertools.permutations("aaabb")}
    assert orders == {order for order in everything if bound is None or preemptions(order) <= bound}


def preemptions(order: str) -> int:
    """How often a letter is followed by another one and comes again later."""
    return sum(order[at] != order[at + 1] and order[at] in order[at + 1 :] for at in range(len(order) - 1))


def test_dfs_with_a_bound_meets_the_simplest_failure_first() -> None:
    def body() -> None:
        log: list[str] = []
        workers("aaa", "bbb")(log)
        assert "ab" not in "".join(log) or "aabb" in "".join(log)

    result = testing.search(body, strategy=DFS(2), save=False)
    assert result.failed
    assert result.minimal
    assert result.replays == 0  # nothing was left to shrink


def test_dpor_explores_choices_of_the_environment() -> None:
    seen = set()

    def body() -> None:
        first, second = testing.Shared(0), testing.Shared(0)

        def work(shared: testing.Shared) -> None:
            shared.value += testing.choose(3)
            first.value += 1

        swapco.wait([swapco.spawn(work, first), swapco.spawn(work, second)])
        seen.add((first.value, second.value))

    plain = testing.verify(body, preemption_bound=None, save=False)
    all_of_them, seen = seen, set()
    reduced = testing.verify(body, strategy=DPOR(), save=False)
    assert plain.exhausted
    assert reduced.exhausted
    assert seen == all_of_them
    assert reduced.schedules * 5 < plain.schedules


def test_replay_follows_a_schedule_and_then_its_names() -> None:
    usual = partial(lost_update_of_three, with_others=False)
    grown = partial(lost_update_of_three, with_others=True)
    found = testing.search(usual, save=False)
    assert found.schedule is not None
    again = testing.search(usual, strategy=Replay(found.schedule), save=False)
    assert (again.failed, again.schedules) == (True, 1)
    changed = testing.search(grown, strategy=Replay(found.schedule), save=False)
    assert (changed.failed, changed.schedules) == (True, 2)
    by_number = testing.search(grown, strategy=Replay(found.schedule.code), save=False)
    assert (by_number.failed, by_number.schedules, by_number.exhausted) == (False, 1, False)


def test_replay_before_others_looks_for_an_old_failure_first() -> None:
    body = body_of(BUGS["lost update"])
    found = testing.search(body, save=False)
    assert found.schedule is not None
    again = testing.search(body, strategy=Portfolio(Replay(found.schedule), RandomWalk()), save=False)
    assert again.schedules == 2


def test_replay_of_what_was_preempted_elsewhere_is_refused() -> None:
    schedule = testing.Schedule((1,), preempt="primitives")
    with pytest.raises(ValueError, match="preempt='primitives'"):
        testing.search(steps(1, 1), strategy=Replay(schedule), save=False)


def test_a_strategy_of_ones_own_is_asked_in_this_order() -> None:
    log: list[Any] = []
    result = testing.search(steps(0, 0), strategy=Noting(log, "mine", 2), seed=8, schedules=9, save=False)
    assert result.schedules == 2
    assert not result.exhausted
    assert log[:3] == [("start", "mine", 8), ("begin", "mine", 0), ("choose", (1, 2), -1, "fibers")]
    # each run ends with end, and what looks whether a run repeats does not ask again
    assert [entry[0] for entry in log if entry[0] != "choose"] == ["start", "begin", "end", "begin", "end"]


# ------------------------------------------------------------------------------------------------- bugs, misuse


@pytest.mark.parametrize("bug", BUGS)
def test_the_default_finds_every_bug_of_the_table_within_a_hundred_schedules(bug: str) -> None:
    body = body_of(BUGS[bug])
    searches = [
        testing.search(body, schedules=100, seed=seed, shrink_failure=False, save=False) for seed in range(30)
    ]
    assert sum(result.failed for result in searches) >= 0.95 * 30


def test_misuse_is_refused_at_once() -> None:
    for error, call in [
        (ValueError, lambda: DFS(-1)),
        (ValueError, lambda: DFS("2")),  # type: ignore[arg-type]
        (ValueError, lambda: PCT(0)),
        (ValueError, lambda: PCT("3")),  # type: ignore[arg-type]
        (TypeError, lambda: URW("seed")),  # type: ignore[arg-type]
        (TypeError, lambda: POS(1.5)),  # type: ignore[arg-type]
        (TypeError, lambda: Portfolio(URW(), "pct")),  # type: ignore[arg-type]
        (TypeError, lambda: Portfolio(seed="x")),  # type: ignore[arg-type]
        (TypeError, lambda: Replay(7)),  # type: ignore[arg-type]
        (ValueError, lambda: Replay("nonsense")),
        (FileNotFoundError, lambda: Replay("missing.json")),
        (ValueError, lambda: testing.search(steps(1), strategy="best")),
        (ValueError, lambda: testing.search(steps(1), strategy=DFS)),  # type: ignore[arg-type]
        (TypeError, lambda: testing.search(steps(1), seed="x")),  # type: ignore[arg-type]
        (ValueError, lambda: testing.verify(steps(1), strategy=PCT(3))),
        (ValueError, lambda: testing.verify(steps(1), strategy="pct")),
    ]:
        with pytest.raises(error):
            pytest.fail(f"{call()!r} was accepted")


def test_a_repr_is_what_makes_the_strategy_again() -> None:
    names = {name: getattr(testing, name) for name in testing.__all__}
    for strategy in (
        RandomWalk(), URW(3), PCT(2), PCT(4, 9), POS(), DFS(), DFS(2), DPOR(), Replay([0, 0, 1]), Portfolio(seed=4),
        Portfolio(DFS(1), Replay([1]), PCT(1, seed=2)),
    ):  # fmt: skip
        again = eval(repr(strategy), names)
        assert repr(again) == repr(strategy)
        assert paths(steps(2, 2), again, 5) == paths(steps(2, 2), strategy, 5)
