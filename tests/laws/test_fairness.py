"""Laws 5 and 6: nobody starves, and who becomes runnable first runs first."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Callable

import pytest
from actors import Crew
from helpers import SOON_S, in_fiber
from hypothesis import given
from hypothesis import strategies as st
from programs import law

import swapco
from swapco.lowlevel import Instrument, wait_readable

pytestmark = pytest.mark.usefixtures("fibers")

IO_CALLS = 64


def scheduler() -> object:
    return swapco.current_fiber().scheduler


def hand_to_each_other(count: int, stop: Callable[[], bool]) -> list[swapco.Fiber]:
    """Fibers that hand the slot on in a ring until ``stop``; then whoever runs wakes the rest."""
    ring: list[swapco.Fiber] = []

    def body(index: int) -> None:
        while not stop():
            swapco.switch_to(ring[(index + 1) % count])
        for other in ring:
            swapco.resume(other)

    ring.extend(swapco.spawn(body, index) for index in range(count))
    return ring


def yield_all_the_time(count: int, stop: Callable[[], bool]) -> list[swapco.Fiber]:
    def body() -> None:
        while not stop():
            swapco.sleep(0)

    return [swapco.spawn(body) for _ in range(count)]


def resume_each_other(count: int, stop: Callable[[], bool]) -> list[swapco.Fiber]:
    """Fibers that resume the next one and block."""
    ring: list[swapco.Fiber] = []

    def body(index: int) -> None:
        while not stop():
            swapco.resume(ring[(index + 1) % count])
            swapco.block()
        swapco.resume(ring[(index + 1) % count])

    ring.extend(swapco.spawn(body, index) for index in range(count))
    return ring


LOADS = {"handoffs": hand_to_each_other, "yields": yield_all_the_time, "resumes": resume_each_other}


@pytest.mark.parametrize("load", LOADS)
@in_fiber
def test_a_timer_a_callback_a_thread_and_a_socket_are_served_under_load(load: str) -> None:
    """Law 5: fibers that are runnable all the time do not keep timers, callbacks, threads and I/O from running."""
    ends: set[str] = set()
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    everything = {"timer", "sleeper", "callback", "thread", "socket", "threadsafe"}
    give_up = time.monotonic() + SOON_S

    def stop() -> bool:
        return ends == everything or time.monotonic() > give_up

    def reads() -> None:
        wait_readable(near)
        ends.add("socket")

    def sleeps() -> None:
        swapco.sleep(0.005)
        ends.add("sleeper")

    def blocks() -> None:
        swapco.block()
        ends.add("thread")

    def thread(target: swapco.Fiber) -> None:
        time.sleep(0.002)
        swapco.resume(target)
        far.send(b"x")
        loop.call_soon_threadsafe(ends.add, "threadsafe")

    with near, far:
        others = [swapco.spawn(blocks), swapco.spawn(reads), swapco.spawn(sleeps)]
        loop.call_later(0.005, ends.add, "timer")
        loop.call_soon(ends.add, "callback")
        helper = threading.Thread(target=thread, args=(others[0],))
        helper.start()
        swapco.wait(LOADS[load](4, stop))
        assert ends == everything
        helper.join()
        swapco.wait(others)


@pytest.mark.parametrize("load", LOADS)
@in_fiber
def test_io_and_timers_are_polled_once_per_millisecond_of_running(load: str) -> None:
    """Law 5: the loop is entered about once a millisecond, neither never nor all the time."""
    begin = time.monotonic()
    before = scheduler().statistics()["drains"]  # type: ignore[attr-defined]
    # of running, not of waiting for a CPU
    until = time.thread_time() + 0.05
    swapco.wait(LOADS[load](3, lambda: time.thread_time() > until))
    took_ms = (time.monotonic() - begin) * 1000
    drains = scheduler().statistics()["drains"] - before  # type: ignore[attr-defined]
    assert 20 <= drains <= took_ms + 10


@in_fiber
def test_between_two_takes_there_are_at_most_64_handoffs() -> None:
    """Law 5, by the scheduler's own counters, over a long ring of handoffs with one fiber that yields."""
    counted: list[tuple[int, int]] = []

    def yields() -> None:
        for _ in range(200):
            seen = scheduler().statistics()  # type: ignore[attr-defined]
            counted.append((seen["takes"], seen["direct_handoffs"]))
            swapco.sleep(0)

    spinner = swapco.spawn(yields)
    swapco.wait([spinner, *hand_to_each_other(5, spinner.done)])
    for (takes, handoffs), (later_takes, later_handoffs) in itertools.pairwise(counted):
        assert later_takes > takes
        assert later_handoffs - handoffs <= 64 * (later_takes - takes)


@in_fiber
def test_64_io_calls_without_a_suspension_force_a_yield() -> None:
    """Law 5: a fiber whose socket is always ready lets the others run."""
    from swapco import socket as cooperative

    near, far = cooperative.socketpair()
    turns = 0
    calls: list[int] = []

    def other() -> None:
        nonlocal turns
        while not done:
            turns += 1
            swapco.sleep(0)

    done = False
    spinner = swapco.spawn(other)
    swapco.sleep(0)
    with near, far:
        for _ in range(10 * IO_CALLS):
            near.send(b"x")
            calls.append(turns)
            assert far.recv(1) == b"x"
            calls.append(turns)
    done = True
    spinner.join()
    longest = max(len(list(run)) for _, run in itertools.groupby(calls))
    # the two calls of a round may lie on either side of the yield
    assert longest <= IO_CALLS + 1
    assert turns >= 20 * IO_CALLS / (IO_CALLS + 1) - 1


# ------------------------------------------------------------------------------------------- sleep(0)


@given(st.lists(st.sampled_from(("fiber", "callback", "nested callback", "yielder", "done callback")), max_size=12))
@law(100)
def test_sleep_zero_lets_everything_that_is_ready_go_first(others: list[str]) -> None:
    """Law 5: every ready fiber and every ready loop callback runs before ``sleep(0)`` returns."""
    ran: list[int] = []

    def main() -> None:
        loop = asyncio.get_running_loop()
        finished = swapco.spawn(int)
        finished.join()

        def yields(number: int) -> None:
            ran.append(number)
            swapco.sleep(0)

        def nested(number: int) -> None:
            # what this one makes ready is not ready yet
            ran.append(number)
            loop.call_soon(int)

        rest = []
        for number, kind in enumerate(others):
            if kind == "fiber":
                swapco.spawn(ran.append, number)
            elif kind == "callback":
                loop.call_soon(ran.append, number)
            elif kind == "nested callback":
                loop.call_soon(nested, number)
            elif kind == "yielder":
                rest.append(swapco.spawn(yields, number))
            else:
                finished.add_done_callback(lambda _, number=number: ran.append(number))
        swapco.sleep(0)
        assert sorted(ran) == list(range(len(others)))
        swapco.wait(rest) if rest else None
        kinds = {kind: [n for n in ran if others[n] == kind] for kind in set(others)}
        for kind, numbers in kinds.items():
            assert numbers == sorted(numbers), f"{kind}s ran out of order"

    swapco.run(main)


@given(st.integers(1, 5), st.integers(1, 30), st.lists(st.integers(0, 29), max_size=10))
@law(40)
def test_fibers_that_yield_take_turns(fibers: int, rounds: int, callbacks: list[int]) -> None:
    """Laws 5 and 6: round after round, in the same order, also when callbacks come in between."""
    ran: list[int] = []
    called: list[int] = []

    def main() -> None:
        loop = asyncio.get_running_loop()

        def body(index: int) -> None:
            for number in range(rounds):
                ran.append(index)
                if index == 0 and number in callbacks:
                    loop.call_soon(called.append, number)
                swapco.sleep(0)
                if index == 0 and number in callbacks:
                    assert number in called

        swapco.wait([swapco.spawn(body, index) for index in range(fibers)])

    swapco.run(main)
    assert ran == list(range(fibers)) * rounds


@in_fiber
def test_a_lone_fiber_that_yields_lets_asyncio_tasks_run() -> None:
    """Law 5: tasks live on loop callbacks."""
    steps: list[int] = []

    async def task() -> None:
        for number in range(10):
            steps.append(number)
            await asyncio.sleep(0)

    running = asyncio.get_running_loop().create_task(task())
    for _ in range(12):
        swapco.sleep(0)
    assert running.done()
    assert steps == list(range(10))


# ------------------------------------------------------------------------------------------------ FIFO


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(("fiber", "thread", "callback", "switch"))),
        min_size=1,
        max_size=10,
        unique_by=lambda pair: pair[0],
    )
)
@law(80)
def test_fibers_run_in_the_order_of_their_resumes(resumes: list[tuple[int, str]]) -> None:
    """Law 6: whoever resumes them; each resume is complete before the next begins."""
    ran: list[int] = []
    waiting = threading.Event()

    def body(index: int) -> None:
        swapco.block()
        ran.append(index)

    def main() -> None:
        targets = {index: swapco.spawn(body, index) for index, _ in resumes}
        swapco.sleep(0)
        with Crew() as crew:
            for index, actor in resumes:
                if actor == "thread":
                    waiting.clear()
                    crew.act("thread", lambda index=index: (swapco.resume(targets[index]), waiting.set()))
                    # the slot stays here
                    assert waiting.wait(SOON_S)
                else:
                    swapco.resume(targets[index])
            assert ran == []
            swapco.sleep(0)
        assert ran == [index for index, _ in resumes]

    swapco.run(main)


@given(st.integers(1, 300))
@law(20)
def test_fibers_that_a_thread_wakes_run_in_its_order(count: int) -> None:
    """Law 6, from another thread, while the hub sleeps, and while the slot is held."""
    for held in (False, True):
        ran: list[int] = []

        def body(index: int, ran: list[int] = ran) -> None:
            swapco.block()
            ran.append(index)

        def main(held: bool = held, body: Callable[[int], None] = body) -> None:
            targets = [swapco.spawn(body, index) for index in range(count)]
            swapco.sleep(0)
            helper = threading.Thread(target=lambda: [swapco.resume(target) for target in targets])
            helper.start()
            if held:
                helper.join()
            swapco.wait(targets)
            helper.join()

        swapco.run(main)
        assert ran == list(range(count))


@in_fiber
def test_joiners_and_spawned_fibers_run_in_order_too() -> None:
    """Law 6 for the other ways to become runnable."""
    ran: list[object] = []

    def joins(target: swapco.Fiber, number: int) -> None:
        target.join()
        ran.append(number)

    target = swapco.spawn(swapco.block)
    joiners = [swapco.spawn(joins, target, number) for number in range(5)]
    swapco.sleep(0)
    swapco.resume(target)
    joiners += [swapco.spawn(ran.append, name) for name in "ab"]
    swapco.wait(joiners)
    assert ran == ["a", "b", 0, 1, 2, 3, 4]


@in_fiber
def test_the_poller_reports_every_look() -> None:
    """Law 5: the hook ``polled`` is called while fibers run, when something is there to see."""

    class Counter(Instrument):
        polls = 0

        def polled(self, events: int) -> None:
            self.polls += 1

    counter = Counter()
    sched = swapco.current_fiber().scheduler
    sched.add_instrument(counter)
    near, far = socket.socketpair()
    got: list[bytes] = []

    def reads() -> None:
        for _ in range(10):
            wait_readable(near)
            got.append(near.recv(1))

    with near, far:
        reader = swapco.spawn(reads)
        for number in range(10):
            swapco.sleep(0)
            far.send(b"x")
            while len(got) == number:
                swapco.sleep(0)
        reader.join()
    sched.remove_instrument(counter)
    assert counter.polls >= 10
