"""Who is pinned to the slot's CPU, when, and who must not be: masks of kernel threads, as the kernel has them.

Workers are pinned while they have the slot or wait for it, home only while it sleeps; and what the program has set
itself stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import SOON_S, run_program, settle, wait_until
from thread_support import Held, in_quiet_fiber, on_thread, quiet, statistics, thread, until_detached

import swapco
from swapco._core.affinity import allowed_cpus
from swapco.lowlevel import ManualClock, Slot
from swapco.threads import forget_blockers, known_blockers

pytestmark = [
    pytest.mark.usefixtures("fibers"),
    pytest.mark.skipif(len(allowed_cpus()) < 2, reason="there is one CPU to share: nothing is pinned"),
]


told_of_threads = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="CPython 3.11 has no audit event for a thread that is started"
)


def mask(thread_id: int = 0) -> frozenset[int]:
    return frozenset(os.sched_getaffinity(thread_id))


def until(condition: Callable[[], object], what: str) -> None:
    """Wait in a thread that keeps the slot meanwhile."""
    give_up = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < give_up, f"{what} did not come true within {SOON_S} s"
        time.sleep(0.001)


def run_in_one_second(main: Callable[[], None], slot: Slot) -> None:
    """Run it while the clock stands still, so that no second passes after which nobody is pinned for a while."""
    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=ManualClock(1.0), slot=slot))


@contextlib.contextmanager
def mask_restored() -> Iterator[frozenset[int]]:
    """For a test in which the program sets the mask of the main thread."""
    before = mask(os.getpid())
    try:
        yield before
    finally:
        os.sched_setaffinity(os.getpid(), before)


# ------------------------------------------------------------------------------------------------ home


def test_home_is_pinned_while_it_sleeps_and_not_when_it_runs() -> None:
    slot = quiet()
    home = threading.get_native_id()
    before = mask()

    def body() -> frozenset[int]:
        until(lambda: mask(home) == mask(), "home being pinned to the CPU of this thread")
        assert allowed_cpus() == before
        return mask()

    def main() -> None:
        for _ in range(3):
            assert len(on_thread(body)) == 1
            assert mask() == before == allowed_cpus()
            assert slot.pinned_cpu in before

    run_in_one_second(main, slot)
    assert mask() == before


@pytest.mark.parametrize("how", ["revoked", "interrupted", "raises"])
def test_home_is_free_whatever_ends_the_lend(how: str) -> None:
    home = threading.get_native_id()
    before = mask()

    def body() -> None:
        me = swapco.current_fiber()
        # a revocation may come first
        until(lambda: len(mask(home)) == 1 or me.state == "DETACHED", "home being pinned")
        if how == "interrupted":
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        if how != "raises":
            until(lambda: me.state == "DETACHED", "being detached")
        raise KeyError

    def main() -> None:
        handler = signal.signal(signal.SIGUSR1, lambda *_: seen.append(mask()))
        try:
            fiber = thread(body)
            with pytest.raises(KeyError):
                fiber.join(SOON_S)
        finally:
            signal.signal(signal.SIGUSR1, handler)
        assert mask() == before

    seen: list[frozenset[int]] = []
    swapco.run(main, slot=Slot(tick=0.5) if how == "revoked" else quiet())
    assert seen == ([before] if how == "interrupted" else [])


def test_home_is_free_in_callbacks_of_the_loop() -> None:
    seen: list[frozenset[int]] = []

    def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            loop.call_soon(lambda: seen.append(mask()))
            on_thread(swapco.sleep, 0)
        settle()

    swapco.run(main, slot=quiet())
    assert seen == [mask()] * 3


# -------------------------------------------------------------------------------------- what is started


@in_quiet_fiber
def test_threads_that_an_ordinary_fiber_starts_have_all_cpus() -> None:
    seen: list[frozenset[int]] = []
    on_thread(int)
    other = threading.Thread(target=lambda: seen.append(mask()))
    other.start()
    other.join()
    with ThreadPoolExecutor(1) as pool:
        seen.append(pool.submit(mask).result())
    seen.append(swapco.await_(asyncio.to_thread(mask)))
    assert seen == [allowed_cpus()] * 3
    if sys.version_info >= (3, 13):
        assert os.process_cpu_count() == len(allowed_cpus())


def test_threads_that_c_code_starts_have_all_cpus() -> None:
    """libuv's pool is started for the first name that is looked up: in a process of its own."""
    program = """
        import asyncio, os, swapco
        from swapco.lowlevel import Slot

        def threads():
            return {int(tid) for tid in os.listdir("/proc/self/task")}

        def main():
            loop = asyncio.get_running_loop()
            swapco.to_thread(int)
            before = threads()
            swapco.await_(loop.getaddrinfo("localhost", 80))
            pool = threads() - before
            assert pool, "nothing was started: the test shows nothing"
            assert all(len(os.sched_getaffinity(tid)) == allowed for tid in pool)

        allowed = len(os.sched_getaffinity(0))
        swapco.run(main, slot=Slot(tick=1.0))
    """
    done = run_program(program)
    assert (done.returncode, done.stderr) == (0, "")


@told_of_threads
def test_threads_that_a_thread_fiber_starts_have_all_cpus() -> None:
    """It is pinned, and unpinned for the rest of its turn."""
    seen: list[frozenset[int]] = []
    mine: list[frozenset[int]] = []
    turn = swapco.Event()

    def body() -> None:
        mine.append(mask())
        other = threading.Thread(target=lambda: seen.append(mask()))
        other.start()
        other.join()
        mine.append(mask())
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(mask).result())
        turn.wait()
        mine.append(mask())

    def main() -> None:
        fiber = thread(body)
        settle()
        turn.set()
        fiber.join()

    run_in_one_second(main, quiet())
    assert seen == [allowed_cpus()] * 2
    assert [len(cpus) for cpus in mine] == [1, len(allowed_cpus()), 1]


@told_of_threads
def test_threads_that_a_thread_fiber_starts_in_a_second_without_pinning_have_all_cpus() -> None:
    """The worker may be pinned still, to the CPU that the slot had."""
    clock = ManualClock(1.0)
    slot = quiet()

    def body() -> frozenset[int]:
        seen: list[frozenset[int]] = []
        other = threading.Thread(target=lambda: seen.append(mask()))
        other.start()
        other.join()
        return seen[0]

    def main() -> None:
        on_thread(int)
        clock.advance(1.0)
        settle()
        assert slot.pinned_cpu is None
        assert on_thread(body) == allowed_cpus()

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock, slot=slot))


# ------------------------------------------------------------------------------------- known blockers


@pytest.fixture
def no_history() -> Iterator[None]:
    forget_blockers()
    yield
    forget_blockers()


@pytest.mark.usefixtures("no_history")
def test_calls_that_are_known_to_block_start_with_all_cpus() -> None:
    """On new threads and on such that were pinned before: without the slot they have nothing to share."""
    gate = threading.Event()
    seen: list[frozenset[int]] = []

    def call(*, blocks: bool) -> None:
        if blocks:
            me = swapco.current_fiber()
            until(lambda: me.state == "DETACHED", "being detached")
            time.sleep(0.05)
        else:
            seen.append(mask())
            gate.wait(SOON_S)

    def teach() -> None:
        for _ in range(50):
            swapco.to_thread(functools.partial(call, blocks=True))
            if [score >= 2 for _, score in known_blockers()] == [True]:
                return
        raise AssertionError(f"it is not known to block: {known_blockers()}")

    def main() -> None:
        # two threads that are pinned, and idle
        event = swapco.Event()
        parked = [thread(event.wait) for _ in range(2)]
        settle()
        event.set()
        swapco.wait(parked)
        before = statistics()
        calls = [swapco.spawn(swapco.to_thread, functools.partial(call, blocks=False)) for _ in range(5)]
        wait_until(lambda: len(seen) == 5, "five calls at once")
        gate.set()
        swapco.wait(calls)
        after = statistics()
        assert after["detaches"] - before["detaches"] == 5
        assert after["lends"] == before["lends"]

    swapco.run(teach, slot=Slot(tick=0.02))
    swapco.run(main, slot=quiet())
    assert seen == [allowed_cpus()] * 5


# --------------------------------------------------------------------------- what the program has set


@pytest.mark.parametrize("cpu", sorted(allowed_cpus())[:2])
def test_a_mask_that_the_program_sets_stays(cpu: int) -> None:
    """It becomes the set from which the slot takes its CPU, be it the one that it has or another one."""
    clock = ManualClock(1.0)
    slot = quiet()

    def main() -> None:
        on_thread(int)
        os.sched_setaffinity(0, {cpu})
        on_thread(int)
        assert mask() == {cpu}
        for _ in range(3):
            clock.advance(1.0)
            settle()
            assert mask() == {cpu}
        # pinning begins anew after a rest
        time.sleep(0.02)
        assert on_thread(mask) == {cpu} == mask()

        def body() -> frozenset[int]:
            with swapco.blocking():
                return mask()

        assert on_thread(body) == {cpu}

    with mask_restored():
        swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock, slot=slot))
        assert mask() == {cpu}


def test_a_wider_mask_that_the_program_sets_is_used_from_then_on() -> None:
    def body() -> frozenset[int]:
        with swapco.blocking():
            return mask()

    def main() -> None:
        on_thread(int)
        os.sched_setaffinity(0, {min(before)})
        assert on_thread(body) == {min(before)}
        os.sched_setaffinity(0, before)
        assert on_thread(body) == before
        assert on_thread(mask) < before

    with mask_restored() as before:
        run_in_one_second(main, quiet())
        assert mask() == before


def test_a_mask_that_somebody_sets_for_home_while_it_sleeps_stays() -> None:
    home = threading.get_native_id()
    chosen: list[frozenset[int]] = []

    def body() -> None:
        until(lambda: mask(home) == mask(), "home being pinned")
        chosen.append(allowed_cpus() - mask())
        os.sched_setaffinity(home, chosen[0])

    def main() -> None:
        on_thread(body)
        assert mask() == chosen[0] == allowed_cpus()

    with mask_restored():
        swapco.run(main, slot=quiet())


@pytest.mark.parametrize("how", ["blocking()", "revoked"])
def test_a_mask_that_a_thread_fiber_sets_for_itself_stays_when_it_is_detached(how: str) -> None:
    held = Held()
    states: list[str] = []

    def body() -> None:
        me = swapco.current_fiber()
        mine = allowed_cpus() - mask()
        os.sched_setaffinity(0, mine)
        states.append(me.state)
        with contextlib.nullcontext() if how == "revoked" else swapco.blocking():
            held()
            states.append(me.state)
            assert mask() == mine

    def main() -> None:
        fiber = thread(body)
        until_detached(fiber)
        held.let_go()
        fiber.join(SOON_S)

    swapco.run(main, slot=Slot(tick=0.5))
    assert states == ["RUNNING", "DETACHED"]


@in_quiet_fiber
def test_the_slot_of_a_thread_with_a_mask_of_its_own_keeps_to_that() -> None:
    """Home need not be the main thread."""
    seen: list[frozenset[int]] = []
    mine = frozenset({max(allowed_cpus())})

    def body() -> frozenset[int]:
        with swapco.blocking():
            return mask()

    def runs() -> None:
        os.sched_setaffinity(0, mine)
        seen.append(swapco.run(on_thread, body, slot=quiet()))
        seen.append(mask())

    other = threading.Thread(target=runs)
    other.start()
    other.join()
    assert seen == [mine, mine]
    assert mask() == allowed_cpus()


# ------------------------------------------------------------------------------------------------ refusals


def test_where_the_kernel_refuses_nobody_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread_id: int, cpus: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    slot = quiet()
    monkeypatch.setattr(os, "sched_setaffinity", refuse)

    def main() -> None:
        assert on_thread(mask) == allowed_cpus()
        assert slot.pinned_cpu is None
        swapco.wait([thread(swapco.sleep, 0) for _ in range(2)])
        assert slot.pinned_cpu is None

    swapco.run(main, slot=slot)


