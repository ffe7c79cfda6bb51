"""Law 3: ``switch_to(t)`` is ``resume(t)`` and ``block()``, and t runs next, but for the listed cases."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from actors import Crew
from helpers import in_fiber
from hypothesis import given
from hypothesis import strategies as st
from programs import law

import swapco
from swapco.lowlevel import ParkingLot

pytestmark = pytest.mark.usefixtures("fibers")

#: Handoffs between two takes from the run queue.
BUDGET = 64


def statistics() -> dict[str, int]:
    return dict(swapco.current_fiber().scheduler.statistics())


class Scene:
    """A target in some state, with fibers in the run queue before and after it."""

    def __init__(self, state: str, before: int, after: int) -> None:
        self.ran: list[object] = []
        self.lot = ParkingLot()
        self.got: list[object] = []
        early = self.others("early", before)
        target = {"new": self.blocks, "blocked": self.blocks, "ready": self.yields, "parked": self.parks}[state]
        if state == "new":
            self.target = swapco.spawn(target)
        else:
            self.target = swapco.spawn(target)
            swapco.sleep(0)
            # the others have run: start again
            self.ran.clear()
            early = self.others("early", before)
            if state == "ready":
                swapco.resume(self.target)
                swapco.sleep(0)
                self.ran.clear()
                early = self.others("early", before)
        self.others_spawned = early + self.others("late", after)
        wanted = {"new": "NEW", "blocked": "BLOCKED", "ready": "READY", "parked": "BLOCKED"}[state]
        assert self.target.state == wanted

    def others(self, kind: str, count: int) -> list[swapco.Fiber]:
        return [swapco.spawn(self.ran.append, (kind, number)) for number in range(count)]

    def blocks(self) -> None:
        self.ran.append("target")
        self.got.append(swapco.block())
        self.ran.append("target goes on")

    def yields(self) -> None:
        swapco.block()
        swapco.sleep(0)
        self.blocks()

    def parks(self) -> None:
        self.got.append(self.lot.park())
        self.blocks()


@given(st.sampled_from(("blocked", "ready", "new")), st.integers(0, 5), st.integers(0, 5))
@law(60)
def test_the_target_runs_next(state: str, before: int, after: int) -> None:
    """Law 3: before any other fiber, whatever the run queue holds; a NEW one is started by the hub, next as well."""

    def main() -> None:
        scene = Scene(state, before, after)
        me = swapco.current_fiber()
        handed = statistics()["direct_handoffs"]

        def back() -> None:
            swapco.resume(me, "back")

        swapco.spawn(back)
        assert swapco.switch_to(scene.target, "value") == "back"
        assert statistics()["direct_handoffs"] == handed + 1
        assert scene.ran[0] == ("target goes on" if state == "blocked" else "target")
        assert scene.got == ["value"]
        rest = [entry for entry in scene.ran if isinstance(entry, tuple)]
        assert rest == [("early", n) for n in range(before)] + [("late", n) for n in range(after)]
        scene.target.join()

    swapco.run(main)


@given(st.integers(0, 5))
@law(20)
def test_a_target_inside_a_primitive_gets_the_token_and_the_queue_goes_on(others: int) -> None:
    """Law 3, first exception, and law 8."""

    def main() -> None:
        scene = Scene("parked", others, 0)
        me = swapco.current_fiber()
        swapco.spawn(swapco.resume, me, "back")
        assert swapco.switch_to(scene.target, "token") == "back"
        assert scene.ran == [("early", n) for n in range(others)]
        assert scene.got == []
        scene.lot.unpark("item")
        scene.target.join()
        assert scene.got == ["item", "token"]

    swapco.run(main)


@given(st.sampled_from(("blocked", "ready", "new")), st.integers(0, 5))
@law(40)
def test_a_caller_with_a_token_goes_on_and_the_target_is_first_in_the_queue(state: str, others: int) -> None:
    """Law 3, second exception: the target goes to the head of the queue."""

    def main() -> None:
        scene = Scene(state, others, 1)
        swapco.resume(swapco.current_fiber(), "mine")
        assert swapco.switch_to(scene.target, "value") == "mine"
        assert scene.ran == []
        swapco.sleep(0)
        assert scene.ran[0] == ("target goes on" if state == "blocked" else "target")
        assert scene.got == ["value"]
        scene.target.join()

    swapco.run(main)


@pytest.mark.parametrize("token", [False, True])
@in_fiber
def test_a_finished_target_is_an_error_and_no_block(token: bool) -> None:
    """Law 3, third exception: InvalidStateError; the caller's own token stays."""
    done = swapco.spawn(int)
    done.join()
    me = swapco.current_fiber()
    if token:
        swapco.resume(me, "mine")
    before = statistics()
    with pytest.raises(swapco.InvalidStateError, match="done"):
        swapco.switch_to(done, "value")
    assert statistics() == before
    if token:
        assert swapco.block() == "mine"
    with pytest.raises(TimeoutError):
        swapco.block(0)


@in_fiber
def test_to_oneself_is_a_resume_and_a_block() -> None:
    """Law 3 with t = the caller: the resume leaves a token, and the block takes it."""
    me = swapco.current_fiber()
    assert swapco.switch_to(me, "value") == "value"
    swapco.resume(me, "first")
    assert swapco.switch_to(me, "second") == "first"
    with pytest.raises(TimeoutError):
        swapco.block(0)


@pytest.mark.parametrize("why", ["timeout", "cancelled"])
@in_fiber
def test_a_caller_that_does_not_block_has_resumed_all_the_same(why: str) -> None:
    """Law 3: a timeout that is over, or a pending cancellation, ends the block, not the resume."""
    scene = Scene("blocked", 3, 0)
    if why == "cancelled":
        swapco.current_fiber().cancel()
    with pytest.raises(swapco.CancelledError if why == "cancelled" else TimeoutError):
        swapco.switch_to(scene.target, "value", 0 if why == "timeout" else None)
    if why == "cancelled":
        swapco.current_fiber().uncancel()
    assert scene.target.state == "READY"
    assert scene.target.join() is None
    assert scene.got == ["value"]
    assert scene.ran[0] == "target goes on"


@in_fiber
def test_a_target_of_another_loop_is_refused() -> None:
    """Bad input: a fiber of another loop, which belongs to another thread perhaps."""
    other = swapco.new_event_loop()
    try:
        foreign: list[swapco.Fiber] = []

        def there() -> None:
            foreign.append(swapco.current_fiber())
            swapco.block()

        from swapco._loop.loop import hub_of

        stranger = swapco.Fiber(hub_of(other).scheduler, there)
        with pytest.raises(RuntimeError, match="another event loop"):
            swapco.switch_to(stranger)
    finally:
        other.close()


@given(st.integers(1, 3), st.integers(1, 5))
@law(15)
def test_at_most_64_handoffs_then_the_queue_then_the_target(waiting: int, rounds: int) -> None:
    """Laws 3 and 5: when the budget is spent, who is first in the queue runs, and the target right after it."""
    events: list[tuple[object, int, int]] = []

    def note(who: object) -> None:
        seen = statistics()
        events.append((who, seen["takes"], seen["direct_handoffs"]))

    def main() -> None:
        stop = False

        def ping(partner: Callable[[], swapco.Fiber]) -> None:
            while not stop:
                note("handoff")
                swapco.switch_to(partner())

        def spinner(number: int) -> None:
            nonlocal stop
            for _ in range(rounds):
                note(number)
                swapco.sleep(0)
            stop = True

        first = swapco.spawn(ping, lambda: second)
        second = swapco.spawn(ping, lambda: first)
        swapco.wait([swapco.spawn(spinner, number) for number in range(waiting)])
        for fiber in (first, second):
            if not fiber.done():
                swapco.resume(fiber)
        swapco.wait([first, second])

    swapco.run(main)
    since: dict[int, int] = {}
    for _, takes, handoffs in events:
        since.setdefault(takes, handoffs)
        assert handoffs - since[takes] <= BUDGET
    # the budget is used, too
    assert BUDGET in {handoffs - since[takes] for _, takes, handoffs in events}
    # the target is first in line: no two others between two handoffs, once both have begun
    who = [name for name, _, _ in events]
    begun = who.index("handoff") + 2 + waiting
    last = len(who) - who[::-1].index("handoff")
    assert all("handoff" in pair for pair in itertools.pairwise(who[begun:last]))


@given(st.lists(st.sampled_from(("block", "handoff", "resume")), min_size=1, max_size=30))
@law(60)
def test_values_travel_as_by_resume_and_block(word: list[str]) -> None:
    """Laws 3 and 7: between two fibers, switch_to and resume-then-block exchange the same values."""

    def exchange(handoff: bool) -> list[object]:
        got: list[object] = []

        def echo() -> None:
            value = swapco.block()
            while value is not None:
                got.append(value)
                if handoff:
                    value = swapco.switch_to(me, ("re", value))
                else:
                    swapco.resume(me, ("re", value))
                    value = swapco.block()

        me = swapco.current_fiber()
        partner = swapco.spawn(echo)
        swapco.sleep(0)
        for number, step in enumerate(word, 1):
            if step == "handoff" and handoff:
                got.append(swapco.switch_to(partner, number))
            else:
                swapco.resume(partner, number)
                got.append(swapco.block())
        swapco.resume(partner, None)
        partner.join()
        return got

    assert swapco.run(exchange, True) == swapco.run(exchange, False)


@in_fiber
def test_a_fiber_woken_by_a_thread_keeps_its_place_before_a_handoff() -> None:
    """Law 3 with law 6: the thread's wake-up was first in the queue, and stays so; the target still runs next."""
    ran: list[str] = []

    def waits(name: str) -> None:
        swapco.block()
        ran.append(name)

    woken, target = swapco.spawn(waits, "woken"), swapco.spawn(waits, "target")
    swapco.sleep(0)
    me = swapco.current_fiber()
    with Crew() as crew:
        crew.act("thread", lambda: swapco.resume(woken))
        crew.begun[-1].join()
        swapco.spawn(lambda: (ran.append("last"), swapco.resume(me)))
        swapco.switch_to(target)
    assert ran == ["target", "woken", "last"]
    woken.join()
