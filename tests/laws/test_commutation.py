"""Law 2: for every pair of one block and one resume, racing or not, the fiber ends up running.

No wakeup is lost: each wait for the fiber has a limit, far above what it can take.  None is doubled: a fiber that was
resumed n times came back n times, with the n values in their order, and has no token left.
"""

from __future__ import annotations

import random
import signal
import threading
from dataclasses import dataclass

import pytest
from actors import ACTORS, Crew, quick_switches, spin_until
from helpers import SOON_S, in_fiber
from hypothesis import example, given
from hypothesis import strategies as st
from programs import law

import swapco
from swapco.lowlevel import ParkingLot

pytestmark = pytest.mark.usefixtures("fibers")


@dataclass(frozen=True)
class Pair:
    """One block and one resume."""

    actor: str
    # resume first, block first, or at the same time
    order: str
    # does anything else run meanwhile?
    busy: bool
    # the block has a timeout, which is never over
    limited: bool
    # the block is that of a switch_to
    handoff: bool = False


PAIRS = st.builds(
    Pair,
    st.sampled_from(ACTORS),
    st.sampled_from(("resume first", "block first", "race")),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


def blocked_bare(fiber: swapco.Fiber) -> bool:
    return fiber.state == "BLOCKED" and "until it is resumed" in str(fiber.wait_reason)


class Rounds:
    """A target that blocks once a round, and a conductor that sees to it that it is resumed once a round."""

    def __init__(self, pairs: list[Pair], threaded: bool = False) -> None:
        self.pairs = pairs
        self.threaded = threaded
        self.gate = ParkingLot()
        self.back = ParkingLot()
        self.returned: list[object] = []
        self.go = threading.Event()
        self.partner: swapco.Fiber | None = None

    def target(self) -> None:
        for pair in self.pairs:
            self.gate.park()
            if pair.order == "race":
                self.go.set()
            if pair.handoff and self.partner is not None:
                got = swapco.switch_to(self.partner, timeout=3600 if pair.limited else None)
            else:
                got = swapco.block(3600 if pair.limited else None)
            self.returned.append(got)
            self.back.unpark()
        with pytest.raises(TimeoutError):
            # nothing is left over
            swapco.block(0)

    def sink(self) -> None:
        """What a handoff is made to: blocks again at once, for ever."""
        while True:
            swapco.block()

    def conduct(self) -> None:
        target = swapco.spawn(self.target, thread=self.threaded)
        self.partner = swapco.spawn(self.sink, thread=self.threaded)
        swapco.sleep(0)
        for number, pair in enumerate(self.pairs):
            self.go.clear()
            with Crew() as crew:
                noise = swapco.spawn(self.noise) if pair.busy else None

                def resume(number: int = number) -> None:
                    assert swapco.resume(target, number) is True

                if pair.order == "resume first":
                    crew.act(pair.actor, resume)
                    crew.finish()
                    self.gate.unpark()
                elif pair.order == "block first":
                    self.gate.unpark()
                    while not blocked_bare(target):
                        swapco.sleep(0)
                    crew.act(pair.actor, resume)
                elif pair.actor == "thread":

                    def race(resume: object = resume) -> None:
                        assert self.go.wait(SOON_S)
                        resume()  # type: ignore[operator]

                    crew.act("thread", race)
                    self.gate.unpark()
                else:
                    self.gate.unpark()
                    crew.act(pair.actor, resume)
                if len(self.returned) == number:
                    self.back.park(SOON_S)
                if noise is not None:
                    noise.cancel()
                    with pytest.raises(swapco.CancelledError):
                        noise.join()
            assert self.returned == list(range(number + 1))
        target.join(SOON_S)
        self.partner.cancel()
        with pytest.raises(swapco.CancelledError):
            self.partner.join()

    def noise(self) -> None:
        while True:
            swapco.sleep(0)


@example(
    [
        Pair(actor, order, busy, limited, handoff)
        for actor in ACTORS
        for order in ("resume first", "block first", "race")
        for busy in (False, True)
        for limited in (False, True)
        for handoff in (False, True)
    ]
)
@given(st.lists(PAIRS, min_size=1, max_size=8))
@law(60)
def test_a_block_and_a_resume_give_the_same_in_either_order(pairs: list[Pair]) -> None:
    """Law 2: whoever resumes, from wherever, before, after or while the fiber blocks."""
    with quick_switches():
        swapco.run(Rounds(pairs).conduct)


@given(st.integers(1, 6), st.integers(1, 200), st.integers(0, 2**32))
@law(40)
def test_threads_and_fibers_in_lockstep(threads: int, rounds: int, seed: int) -> None:
    """Law 2 at full speed: each of several threads resumes its fiber as soon as that has begun a round."""
    dice = random.Random(seed)
    limits = [[dice.choice((None, 3600)) for _ in range(rounds)] for _ in range(threads)]
    got: list[list[object]] = [[] for _ in range(threads)]
    turns = [threading.Semaphore(0) for _ in range(threads)]

    def fiber(index: int) -> None:
        for limit in limits[index]:
            turns[index].release()
            got[index].append(swapco.block(limit))

    def thread(index: int, target: swapco.Fiber) -> None:
        for number in range(rounds):
            assert turns[index].acquire(timeout=SOON_S)
            # the fiber runs, or waits barely: never refused
            assert swapco.resume(target, number)

    def main() -> None:
        targets = [swapco.spawn(fiber, index) for index in range(threads)]
        with Crew() as crew:
            for index, target in enumerate(targets):
                crew.act("thread", lambda index=index, target=target: thread(index, target))
            for target in targets:
                target.join(SOON_S * 3)

    with quick_switches():
        swapco.run(main)
    assert got == [list(range(rounds))] * threads


@in_fiber
def test_a_hub_that_sleeps_in_the_kernel_is_woken() -> None:
    """Law 2: the resume of a thread reaches a loop that has nothing at all to do."""
    me = swapco.current_fiber()

    def thread() -> None:
        for number in range(200):
            spin_until(lambda: blocked_bare(me))
            assert swapco.resume(me, number)
            spin_until(lambda number=number: len(got) > number)

    got: list[object] = []
    helper = threading.Thread(target=thread)
    helper.start()
    for _ in range(200):
        got.append(swapco.block(SOON_S))
    helper.join(SOON_S)
    assert got == list(range(200))


@in_fiber
def test_a_signal_handler_wakes_a_fiber_while_the_hub_sleeps() -> None:
    """Law 2: the resume of a signal handler, which interrupts the loop in the kernel."""
    me = swapco.current_fiber()

    def send() -> None:
        for number in range(20):
            spin_until(lambda: blocked_bare(me))
            signal.pthread_kill(main_thread, signal.SIGUSR1)
            spin_until(lambda number=number: len(got) > number)

    main_thread = threading.main_thread().ident or 0
    got: list[object] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: swapco.resume(me, "signal"))
    try:
        helper = threading.Thread(target=send)
        helper.start()
        for _ in range(20):
            got.append(swapco.block(SOON_S))
        helper.join(SOON_S)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert got == ["signal"] * 20


@given(st.lists(st.sampled_from(["resume", "block"]), max_size=30))
@law(100)
def test_a_token_is_one_resume_remembered(word: list[str]) -> None:
    """Law 1 and 2: of a fiber that resumes and blocks itself, a block returns if and only if a resume is left."""

    def main() -> None:
        me = swapco.current_fiber()
        token: int | None = None
        for number, step in enumerate(word):
            if step == "resume":
                assert swapco.resume(me, number) is (token is None)
                token = number if token is None else token
            elif token is None:
                with pytest.raises(TimeoutError):
                    swapco.block(0)
            else:
                assert swapco.block() == token
                token = None

    swapco.run(main)
