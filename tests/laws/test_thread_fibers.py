"""All laws, for fibers of both kinds: a kernel thread of its own changes where a fiber runs, and nothing else.

As long as nothing blocks in the kernel, programs of ordinary and thread fibers run in exactly the order that the laws
predict for ordinary ones, with the same values and exceptions.  With detached fibers the order among them is the
kernel's; what remains is that no resume, value, cancellation or turn is lost or doubled.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from actors import ACTORS, THREAD_ACTORS, Crew, quick_switches
from helpers import SOON_S, in_fiber, into_the_inbox, wait_until
from hypothesis import assume, example, given, note
from hypothesis import strategies as st
from programs import FiberPlan, Foreigner, Op, Plan, execute, law, plans
from reference import BudgetSpent, predict
from test_commutation import Pair, Rounds
from test_one_winner import WAYS, outcomes, race
from test_privacy import SCENES, resume_in_vain

import swapco
from swapco.lowlevel import Priority, Slot

pytestmark = pytest.mark.usefixtures("fibers")


@pytest.fixture(scope="module")
def foreigner() -> Iterator[Foreigner]:
    with Foreigner() as thread:
        yield thread


def check(plan: Plan, foreigner: Foreigner | None = None, by_priority: bool = False) -> None:
    note(str(plan))
    assume(any(fiber.threaded for fiber in plan.fibers))
    try:
        expected = predict(plan, by_priority=by_priority)
    except BudgetSpent:
        assume(False)
    assert execute(plan, foreigner=foreigner, policy=Priority() if by_priority else None) == expected


def threaded(*ops: Op, stubborn: bool = True) -> FiberPlan:
    return FiberPlan(ops, stubborn, threaded=True)


def ordinary(*ops: Op, stubborn: bool = True) -> FiberPlan:
    return FiberPlan(ops, stubborn)


# ------------------------------------------------------------- laws 1, 3, 4, 6, 7, 8, while nothing is detached


# a handoff from a thread fiber to a NEW ordinary one, and back
@example(Plan((threaded(Op("switch_to", 1)), ordinary(Op("switch_to", 0)), threaded(Op("yield"))), 3))
# a handoff to a NEW thread fiber, by one that holds a token
@example(Plan((threaded(Op("resume", 0), Op("switch_to", 1)), threaded(Op("block", ticks=1))), 2))
@given(plans(threads=True))
@law(80)
def test_order_values_and_exceptions_are_those_of_ordinary_fibers(plan: Plan) -> None:
    check(plan)


@given(plans(max_fibers=3, max_steps=60, threads=True))
@law(40)
def test_few_fibers_and_long_programs(plan: Plan) -> None:
    check(plan)


@given(plans(max_fibers=12, max_steps=60, threads=True))
@law(30)
def test_many_fibers_and_short_programs(plan: Plan) -> None:
    check(plan)


# two joiners, of whom the second was cancelled from outside when their target ends
@example(
    Plan(
        (
            threaded(Op("join", 1)),
            ordinary(Op("yield"), Op("cancel", 2, foreign=True)),
            ordinary(Op("join", 1)),
        ),
        3,
    )
)
# a fiber that cancels itself sees the cancellation from outside of one that joins it
@example(
    Plan(
        (
            ordinary(Op("yield"), Op("cancel", 1, foreign=True), Op("cancel", 0)),
            threaded(Op("join", 0)),
        ),
        2,
    )
)
@given(plans(foreign=True, threads=True))
@law(50)
def test_from_another_thread_too(foreigner: Foreigner, plan: Plan) -> None:
    """A thread fiber waits in the kernel for the foreign thread here, and keeps the slot: that is not long."""
    check(plan, foreigner)


@given(plans(priorities=True, threads=True))
@law(30)
def test_a_policy_makes_no_difference_between_them(plan: Plan) -> None:
    check(plan, by_priority=True)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(("fiber", "thread"))), min_size=1, max_size=10), st.data())
@law(30)
def test_fibers_run_in_the_order_of_their_resumes(targets: list[tuple[bool, str]], data: st.DataObject) -> None:
    """Law 6: whatever kind they are, whoever resumes them, in whatever order they were spawned."""
    order = data.draw(st.permutations(range(len(targets))))
    ran: list[int] = []

    def body(index: int) -> None:
        swapco.block()
        ran.append(index)

    def main() -> None:
        fibers = [swapco.spawn(body, index, thread=kind) for index, (kind, _) in enumerate(targets)]
        swapco.sleep(0)
        for index in order:
            if targets[index][1] == "fiber":
                assert swapco.resume(fibers[index])
            else:
                other = threading.Thread(target=swapco.resume, args=(fibers[index],))
                other.start()
                other.join()
        swapco.wait(fibers)

    swapco.run(main, slot=Slot(tick=1.0))
    assert ran == order


@given(st.lists(st.booleans(), min_size=2, max_size=6), st.integers(1, 300))
@law(20)
def test_values_go_round_a_ring_of_handoffs(kinds: list[bool], rounds: int) -> None:
    """Laws 3, 5 and 7: each value arrives once, at whom it was handed to, also when the budget is spent."""
    got: list[list[Any]] = [[] for _ in kinds]
    ring: list[swapco.Fiber[None]] = []

    def body(index: int) -> None:
        following = (index + 1) % len(kinds)
        value = swapco.block()
        while value is not None:
            got[index].append(value)
            if value >= rounds:
                break
            value = swapco.switch_to(ring[following], value + 1)
        if not ring[following].done():
            swapco.resume(ring[following])

    def main() -> None:
        ring.extend(swapco.spawn(body, index, thread=kind) for index, kind in enumerate(kinds))
        swapco.sleep(0)
        swapco.resume(ring[0], 0)
        swapco.wait(ring)
        for fiber in ring:
            fiber.result()

    swapco.run(main, slot=Slot(tick=1.0))
    assert sorted(itertools.chain(*got)) == list(range(rounds + 1))
    for index, values in enumerate(got):
        assert values == list(range(index, rounds + 1, len(kinds)))


# --------------------------------------------------------------------------------- laws 2 and 4: races


PAIRS = st.builds(
    Pair,
    st.sampled_from(ACTORS + THREAD_ACTORS),
    st.sampled_from(("resume first", "block first", "race")),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@example(
    [
        Pair(actor, order, False, False, handoff)
        for actor in ACTORS + THREAD_ACTORS
        for order in ("resume first", "block first", "race")
        for handoff in (False, True)
    ],
    True,
)
@example(
    [
        Pair(actor, order, True, True)
        for actor in THREAD_ACTORS
        for order in ("resume first", "block first", "race")
    ],
    False,
)
@given(st.lists(PAIRS, min_size=1, max_size=6), st.booleans())
@law(30)
def test_a_block_and_a_resume_give_the_same_in_either_order(pairs: list[Pair], of_a_thread_fiber: bool) -> None:
    """Law 2: with thread fibers on either side, with the slot and without it."""
    with quick_switches():
        swapco.run(Rounds(pairs, of_a_thread_fiber).conduct)


@given(st.integers(1, 5), st.integers(1, 60), st.integers(0, 2**32))
@law(12)
def test_resumes_of_detached_fibers_in_lockstep(pairs: int, rounds: int, seed: int) -> None:
    """Law 2 at full speed: both sides give the slot up now and then, at their own pace."""
    dice = random.Random(seed)
    gives_up = [[dice.random() < 0.4 for _ in range(2 * rounds)] for _ in range(pairs)]
    got: list[list[Any]] = [[] for _ in range(pairs)]

    def pause(give_up: bool) -> None:
        if give_up:
            with swapco.blocking():
                pass

    def target(index: int, turns: swapco.Semaphore) -> None:
        for number in range(rounds):
            pause(gives_up[index][number])
            turns.release()
            got[index].append(swapco.block(SOON_S))

    def resumer(index: int, turns: swapco.Semaphore, fiber: swapco.Fiber[None]) -> None:
        for number in range(rounds):
            turns.acquire()
            if gives_up[index][rounds + number]:
                with swapco.blocking():
                    assert swapco.resume(fiber, number)
            else:
                assert swapco.resume(fiber, number)

    def main() -> None:
        everybody = []
        for index in range(pairs):
            turns = swapco.Semaphore(0)
            fiber = swapco.spawn(target, index, turns, thread=True)
            everybody += [fiber, swapco.spawn(resumer, index, turns, fiber, thread=True)]
        for fiber in everybody:
            fiber.join(SOON_S * 3)

    with quick_switches():
        swapco.run(main)
    assert got == [list(range(rounds))] * pairs


@pytest.mark.parametrize("kind", ["bare", "primitive"])
@pytest.mark.parametrize("timeout", ["first", "last", "never"])
def test_exactly_one_wins_the_wait_of_a_thread_fiber(kind: str, timeout: str) -> None:
    """Law 4: up to two of resume, wake and cancellation, in every order, with the timeout before or after them."""
    with Foreigner() as foreigner:
        for count in range(3):
            for ways in itertools.product(WAYS, repeat=count):
                assert race(kind, ways, timeout, foreigner, True) == outcomes(kind, ways, timeout), ways


@given(
    st.integers(0, 30),
    st.integers(0, 8),
    st.lists(st.sampled_from((None, 0.0, 0.0002, 0.003)), min_size=1, max_size=4),
    st.integers(0, 2**32),
)
@law(20)
def test_at_full_speed_nothing_is_lost_or_doubled(
    resumes: int, cancels: int, limits: list[float | None], seed: int
) -> None:
    """Laws 1, 4 and 7: the target detaches itself between its waits; each accepted value arrives once, and a
    cancellation at least once, and no more often than it was requested."""
    dice = random.Random(seed)
    plan = ["resume"] * resumes + ["cancel"] * cancels
    dice.shuffle(plan)
    actors = ("thread", "thread fiber", "detached fiber", "offloaded call")
    shares = [(actor, plan[number :: len(actors)]) for number, actor in enumerate(actors)]
    detours = [dice.random() < 0.5 for _ in range(10)]
    accepted: list[tuple[str, int]] = []
    got: list[Any] = []
    delivered = 0
    stop = object()

    def act(actor: str, share: list[str], fiber: swapco.Fiber[None]) -> None:
        for number, way in enumerate(share):
            if way == "cancel":
                assert fiber.cancel()
            elif swapco.resume(fiber, (actor, number)):
                accepted.append((actor, number))

    def target() -> None:
        nonlocal delivered
        for turn in itertools.count():
            try:
                value = swapco.block(limits[turn % len(limits)])
                if value is stop:
                    break
                got.append(value)
            except TimeoutError:
                pass
            except swapco.CancelledError:
                delivered += 1
            if detours[turn % len(detours)]:
                with swapco.blocking():
                    pass
        try:
            swapco.sleep(0)
        except swapco.CancelledError:
            delivered += 1

    def main() -> None:
        fiber = swapco.spawn(target, thread=True)
        swapco.sleep(0)
        with Crew() as crew:
            for actor, share in shares:
                crew.act(actor, lambda actor=actor, share=share: act(actor, share, fiber))
        while not swapco.resume(fiber, stop):
            swapco.sleep(0)
        fiber.join(SOON_S)
        assert fiber.cancelling() == cancels

    with quick_switches():
        swapco.run(main)
    assert sorted(got) == sorted(accepted)
    assert delivered <= cancels
    assert (delivered > 0) == (cancels > 0)


# ------------------------------------------------------------------------------------------ law 8: privacy


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_resume_does_not_disturb_a_thread_fiber_inside_a_primitive(scene: Callable[[], Any]) -> None:
    for actor in ("fiber", *THREAD_ACTORS):
        resume_in_vain(scene, [actor, "thread", actor], threaded=True)


# ------------------------------------------------------------------------- laws 5 and 6, with detached fibers


@given(st.permutations(range(5)))
@law(8)
def test_who_comes_back_first_runs_first(order: list[int]) -> None:
    """Law 6: detached fibers queue for the slot in the order in which they ask for it."""
    ran: list[int] = []
    gates = [threading.Event() for _ in order]

    def body(index: int) -> None:
        with swapco.blocking():
            assert gates[index].wait(SOON_S)
        ran.append(index)

    def main() -> None:
        fibers = [swapco.spawn(body, index, thread=True) for index in range(len(order))]
        wait_until(lambda: all(fiber.state == "DETACHED" for fiber in fibers))
        swapco.spawn(ran.append, "ready before")
        for index in order:
            # this thread keeps the slot meanwhile: the other one comes as far as the inbox
            into_the_inbox(fibers[index], gates[index].set)
        assert ran == []
        swapco.wait(fibers)

    swapco.run(main, slot=Slot(tick=1.0))
    assert ran == ["ready before", *order]


@pytest.mark.parametrize("kinds", [(True, True), (True, False, True), (False, True)], ids=str)
@in_fiber
def test_who_comes_back_is_served_beside_a_ring_of_handoffs(kinds: tuple[bool, ...]) -> None:
    """Law 5: fibers that hand the slot to each other all the time keep nobody from coming back, and no timer."""
    ring: list[swapco.Fiber[None]] = []
    served: set[str] = set()
    give_up = time.monotonic() + SOON_S

    def over() -> bool:
        return len(served) == 2 or time.monotonic() > give_up

    def body(index: int) -> None:
        while not over():
            swapco.switch_to(ring[(index + 1) % len(kinds)])
        for other in ring:
            swapco.resume(other)

    def comes_back() -> None:
        with swapco.blocking():
            time.sleep(0.005)
        swapco.sleep(0)
        served.add("came back")

    def sleeps() -> None:
        swapco.sleep(0.005)
        served.add("slept")

    others = [swapco.spawn(comes_back, thread=True), swapco.spawn(sleeps)]
    ring.extend(swapco.spawn(body, index, thread=kind) for index, kind in enumerate(kinds))
    swapco.wait([*ring, *others])
    assert served == {"came back", "slept"}


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.integers(1, 12), st.integers(0, 2**32))
@law(15)
def test_one_owner_at_a_time(kinds: list[bool], rounds: int, seed: int) -> None:
    """Between two suspensions a fiber that has the slot is alone, whatever detaches and comes back around it."""
    dice = random.Random(seed)
    inside = 0
    counted = 0

    def body(thread: bool, steps: list[str]) -> None:
        nonlocal inside, counted
        for step in steps:
            swapco.sleep(0)
            inside += 1
            assert inside == 1
            for _ in range(20):
                counted += 1
            assert inside == 1
            inside -= 1
            if step == "detach" and thread:
                with swapco.blocking():
                    pass
            elif step == "call":
                swapco.to_thread(int)

    plans = [(kind, [dice.choice(("detach", "call", "yield")) for _ in range(rounds)]) for kind in kinds]

    def main() -> None:
        fibers = [swapco.spawn(body, kind, steps, thread=kind) for kind, steps in plans]
        for fiber in fibers:
            fiber.join(SOON_S)

    with quick_switches():
        swapco.run(main, slot=Slot(tick=1.0))
    assert counted == 20 * rounds * len(kinds)
