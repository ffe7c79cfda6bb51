"""The slot of kernel threads: its options, its workers, the limit on them, and the CPU that they share."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import pytest
from helpers import SOON_S, settle, wait_until
from thread_support import (
    Held,
    entered,
    in_quiet_fiber,
    on_thread,
    quiet,
    run_detached,
    statistics,
    thread,
    until_blocked,
    until_detached,
)

import swapco
from swapco._core.affinity import allowed_cpus
from swapco._loop.loop import hub_of
from swapco.lowlevel import ManualClock, Slot, Worker

pytestmark = pytest.mark.usefixtures("fibers")

#: Idle threads that are kept for as long as the loop lives.
KEPT = 4


# --------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_workers": 0}, ValueError, "max_workers is a number from 1 to"),
        ({"max_workers": -1}, ValueError, "max_workers is a number from 0"),
        ({"max_workers": 65535}, ValueError, "max_workers is a number from 1 to"),
        ({"max_workers": 1.5}, ValueError, "max_workers"),
        ({"max_workers": "3"}, ValueError, "max_workers"),
        ({"pin": "yes"}, ValueError, "pin"),
        ({"sentinel": -1}, ValueError, "sentinel"),
        ({"sentinel": True, "pin": False}, ValueError, "needs pin=True"),
        ({"tick": 0}, ValueError, "tick"),
        ({"tick": -0.001}, ValueError, "tick"),
        ({"tick": 2}, ValueError, "tick"),
        ({"tick": float("nan")}, ValueError, "tick"),
        ({"tick": "fast"}, TypeError, "real number"),
        ({"workers": 3}, TypeError, "workers"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Slot(**options)


def test_options_that_are_right() -> None:
    for options in ({}, {"max_workers": 1}, {"max_workers": 65534}, {"tick": 0.0001}, {"tick": 1}, {"sentinel": True}):
        assert repr(Slot(**options)) == "<Slot, 0 workers beside home>"  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Slot(True)  # type: ignore[call-arg]


@pytest.mark.parametrize("variable", ["SWAPCO_PIN", "SWAPCO_MAX_WORKERS", "SWAPCO_SENTINEL"])
def test_an_environment_variable_that_is_no_number(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("many", "-1", "1.5"):
        monkeypatch.setenv(variable, text)
        with pytest.raises(ValueError, match=variable):
            Slot()
        with pytest.raises(ValueError, match=variable):
            swapco.run(int)
    # an argument has precedence, an empty one counts as none
    Slot(pin=True, max_workers=1, sentinel=False)
    monkeypatch.setenv(variable, "")
    assert swapco.run(swapco.to_thread, int) == 0


def test_the_environment_decides_where_no_argument_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def most() -> int:
        event = swapco.Event()
        fibers = [thread(event.wait) for _ in range(5)]
        settle()
        workers = int(statistics()["workers"])
        event.set()
        swapco.wait(fibers)
        return workers

    monkeypatch.setenv("SWAPCO_MAX_WORKERS", "2")
    assert swapco.run(most) == 2
    assert swapco.run(most, slot=quiet(max_workers=3)) == 3
    monkeypatch.setenv("SWAPCO_PIN", "0")
    slot = quiet()
    assert swapco.run(lambda: (on_thread(int), slot.pinned_cpu), slot=slot) == (0, None)
    monkeypatch.setenv("SWAPCO_SENTINEL", "1")
    with pytest.raises(ValueError, match="needs pin=True"):
        swapco.run(int)


def test_a_slot_belongs_to_one_loop() -> None:
    slot = quiet()
    assert swapco.run(int, slot=slot) == 0
    with pytest.raises(ValueError, match="belongs to another event loop"):
        swapco.run(int, slot=slot)
    assert "closed" in repr(slot)
    with pytest.raises(TypeError, match="slot is a swapco.lowlevel.Slot"):
        swapco.run(int, slot=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not both"):
        swapco.run(int, slot=quiet(), loop_factory=swapco.new_event_loop)


def test_a_slot_that_was_not_initialised() -> None:
    """It answers, and no loop takes it."""

    class Forgets(Slot):
        def __init__(self) -> None:
            pass

    for half_made in (Slot.__new__(Slot), Forgets()):
        assert half_made.statistics()["workers"] == 0
        assert set(half_made.statistics().values()) == {0}
        assert (half_made.owner, half_made.workers, half_made.home, half_made.pinned_cpu) == (None, (), None, None)
        assert repr(half_made) == "<Slot, 0 workers beside home>"
        with pytest.raises(RuntimeError, match=r"Slot.__init__\(\) was not called.*super\(\).__init__\(\)"):
            swapco.run(swapco.to_thread, int, slot=half_made)
        with pytest.raises(RuntimeError, match=r"Slot.__init__\(\) was not called"):
            swapco.new_event_loop(slot=half_made)
    Slot.__init__(half_made, max_workers=3)
    assert swapco.run(swapco.to_thread, int, slot=half_made) == 0


def test_an_initialisation_that_failed_changes_nothing() -> None:
    slot = Slot(max_workers=3, tick=0.5)
    with pytest.raises(ValueError, match="tick"):
        slot.__init__(max_workers=5, tick=2.0)  # type: ignore[misc]
    assert (slot.max_workers, slot.tick) == (3, 0.5)
    slot.__init__(max_workers=5)  # type: ignore[misc]
    assert (slot.max_workers, slot.tick) == (5, 0.001)


def test_a_slot_in_use_is_not_initialised_again() -> None:
    slot = quiet()

    def main() -> int:
        on_thread(int)
        with pytest.raises(RuntimeError, match="belongs to an event loop, and its options cannot change"):
            slot.__init__(max_workers=1)  # type: ignore[misc]
        return on_thread(int)  # type: ignore[no-any-return]

    assert swapco.run(main, slot=slot) == 0
    with pytest.raises(RuntimeError, match="belongs to an event loop"):
        slot.__init__()  # type: ignore[misc]
    assert slot.max_workers == 1024


def test_the_workers_of_a_slot() -> None:
    slot = quiet()

    def body() -> tuple[Any, int]:
        return slot.owner, threading.get_native_id()

    def main() -> None:
        home = slot.owner
        assert isinstance(home, Worker)
        assert home.home
        assert home.native_id == threading.get_native_id()
        assert slot.workers == (home,)
        assert repr(home) == f"<Worker home thread {home.native_id}>"
        owner, native_id = on_thread(body)
        assert slot.workers == (home, owner)
        assert not owner.home
        assert owner.native_id == native_id
        assert repr(owner) == f"<Worker thread {native_id}>"
        assert slot.owner is home
        assert repr(slot) == "<Slot, 1 workers beside home>"
        assert slot.statistics()["workers"] == 1

    assert slot.workers == ()
    swapco.run(main, slot=slot)


def test_the_sentinel_finds_a_sleeper() -> None:
    def main() -> None:
        for _ in range(20):
            run_detached(int).join()
            if statistics()["revoked_by_sentinel"]:
                return
        # a CPU that is busy with something else keeps it from running: the monitor did it then
        assert statistics()["revoked_by_monitor"] == 20

    # the monitor is slow: whoever comes first is the sentinel, if its CPU is ever idle
    swapco.run(main, slot=Slot(sentinel=True, tick=0.05))


# ------------------------------------------------------------------------------------------- the limit


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "swapco"]


def test_who_gets_no_worker_runs_later_in_order(caplog: pytest.LogCaptureFixture) -> None:
    def main() -> None:
        ran: list[int] = []
        event = swapco.Event()

        def body(n: int) -> None:
            ran.append(n)
            event.wait()

        fibers = [thread(body, n) for n in range(10)]
        settle()
        assert ran == [0, 1, 2]
        assert statistics()["workers"] == 3
        assert [fiber.state for fiber in fibers[3:]] == ["NEW"] * 7
        # the others go on
        assert swapco.spawn(int).join() == 0
        event.set()
        swapco.wait(fibers)
        assert ran == list(range(10))
        assert statistics()["workers"] == 3

    swapco.run(main, slot=quiet(max_workers=3))
    (text,) = warnings_of(caplog)
    assert "all 3 kernel threads" in text
    assert "SWAPCO_MAX_WORKERS" in text


def test_shortages_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A program that lives with its limit is short of threads again and again."""

    def shortage() -> None:
        event = swapco.Event()
        fibers = [thread(event.wait) for _ in range(4)]
        settle()
        event.set()
        swapco.wait(fibers)

    def main() -> None:
        for _ in range(3):
            shortage()
            assert len(warnings_of(caplog)) == 1

    swapco.run(main, slot=quiet(max_workers=1))
    (text,) = warnings_of(caplog)
    assert "all 1 kernel threads" in text
    assert "Raise the limit" in text
    # another loop has another limit
    caplog.clear()
    swapco.run(main, slot=quiet(max_workers=1))


def test_what_a_logging_handler_raises_at_a_shortage_leaves_run() -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise LookupError("the log is full")

    def main() -> None:
        event = swapco.Event()
        fibers.extend([thread(event.wait) for _ in range(2)])
        settle()
        event.set()
        swapco.wait(fibers)

    fibers: list[Any] = []
    broken = Broken()
    logging.getLogger("swapco").addHandler(broken)
    try:
        with swapco.Runner(slot=quiet(max_workers=1)) as runner:
            with pytest.raises(LookupError, match="the log is full"):
                runner.run(main)
            runner.run(swapco.sleep, 0)
            # who starved is not lost
            assert runner.run(lambda: len(swapco.wait(fibers)[0])) == 2
    finally:
        logging.getLogger("swapco").removeHandler(broken)


def test_detached_ones_that_end_together_let_the_starved_run_in_order() -> None:
    def main() -> None:
        ran: list[int] = []
        held = Held()
        blocked = [thread(held) for _ in range(3)]
        until_detached(*blocked)
        starved = [thread(ran.append, n) for n in range(3)]
        settle()
        assert ran == []
        with entered() as seen:
            held.let_go()
            # this thread keeps the slot for so long that all of them can come to the inbox
            wait_here = threading.Event()
            wait_here.wait(0.05)
            swapco.wait([*blocked, *starved])
        assert sorted(ran) == [0, 1, 2]
        assert seen.first_turns(starved) == starved

    swapco.run(main, slot=Slot(max_workers=3))


def test_a_starved_one_that_is_cancelled_ends_at_once() -> None:
    def main() -> None:
        ran: list[int] = []
        event = swapco.Event()
        holder = thread(event.wait)
        until_blocked(holder)
        starved = [thread(ran.append, n) for n in range(4)]
        caller = swapco.spawn(swapco.to_thread, ran.append, 4)
        settle()
        for fiber in (starved[0], starved[2], caller):
            fiber.cancel("no patience")
        with pytest.raises(swapco.CancelledError, match="no patience"):
            starved[0].join()
        with pytest.raises(swapco.CancelledError, match="no patience"):
            starved[2].join()
        with pytest.raises(swapco.CancelledError, match="no patience"):
            caller.join()
        assert holder.state == "BLOCKED"
        event.set()
        swapco.wait([holder, *starved])
        wait_until(lambda: len(swapco.all_fibers()) == 1)
        # the call that nobody waits for any more is made all the same
        assert ran == [1, 3, 4]

    swapco.run(main, slot=quiet(max_workers=1))


def test_verbs_and_starved_ones() -> None:
    def main() -> None:
        event = swapco.Event()
        holder = thread(event.wait)
        until_blocked(holder)
        starved = thread(swapco.block)
        settle()
        assert swapco.resume(starved, "token") is True
        assert swapco.resume(starved, "second") is False
        with pytest.raises(TimeoutError):
            # it cannot run: only its token is there
            swapco.switch_to(starved, "third", 0.001)
        with pytest.raises(TimeoutError):
            starved.join(0.001)
        event.set()
        assert starved.join() == "token"
        holder.join()

    swapco.run(main, slot=quiet(max_workers=1))


def test_starved_ones_end_with_the_loop() -> None:
    started: list[Any] = []

    def main() -> None:
        started.extend([thread(swapco.block), thread(swapco.block), thread(int)])
        settle()

    swapco.run(main, slot=quiet(max_workers=1))
    assert [fiber.cancelled() for fiber in started] == [True, True, True]


@pytest.mark.parametrize(("limit", "reserve"), [(1, 1), (2, 1), (15, 1), (16, 1), (32, 2)])
def test_workers_are_kept_for_clean_up(limit: int, reserve: int) -> None:
    """Beside the limit: fibers that are being cancelled get a thread, when nobody else does, and again and again."""

    def main() -> None:
        event = swapco.Event()
        cleaned: list[int] = []

        def cleans(n: int) -> None:
            try:
                swapco.block()
            except swapco.CancelledError:
                swapco.to_thread(cleaned.append, n)
                raise

        def waits_in_reserve() -> None:
            try:
                swapco.block()
            finally:
                swapco.to_thread(event.wait)

        cleaners = [swapco.spawn(cleans, n) for n in range(4)]
        users = [swapco.spawn(waits_in_reserve) for _ in range(reserve + 1)]
        holders = [thread(event.wait) for _ in range(limit + 5)]
        expected = ["BLOCKED"] * limit + ["NEW"] * 5
        settle()
        assert statistics()["workers"] == limit
        assert sorted(fiber.state for fiber in holders) == expected
        for n, cleaner in enumerate(cleaners):
            cleaner.cancel()
            with pytest.raises(swapco.CancelledError):
                cleaner.join(SOON_S)
            assert cleaned == list(range(n + 1))
            assert sorted(fiber.state for fiber in holders) == expected
        assert statistics()["workers"] == limit + 1
        # the reserve has an end, too
        for user in users:
            user.cancel()
        settle()
        assert statistics()["workers"] == limit + reserve
        assert event.statistics().waiting == limit + reserve
        event.set()
        swapco.wait([*holders, *users])

    swapco.run(main, slot=quiet(max_workers=limit))


def test_the_reserve_is_for_calls_of_calls_too() -> None:
    def main() -> None:
        event = swapco.Event()

        def nests(depth: int) -> int:
            return depth and 1 + swapco.to_thread(nests, depth - 1)

        def cleans() -> int:
            try:
                swapco.block()
            except swapco.CancelledError:
                pass
            return nests(2)

        cleaner = swapco.spawn(cleans)
        holders = [thread(event.wait) for _ in range(32)]
        settle()
        cleaner.cancel()
        assert cleaner.join(SOON_S) == 2
        event.set()
        swapco.wait(holders)

    swapco.run(main, slot=quiet(max_workers=32))


@pytest.mark.parametrize("limit", [1, 4])
def test_clean_up_at_the_end_of_run_at_the_limit(limit: int) -> None:
    cleaned: list[int] = []

    def work(n: int) -> None:
        try:
            swapco.block()
        finally:
            swapco.to_thread(cleaned.append, n)

    def main() -> None:
        until_blocked(*[thread(work, n) for n in range(limit)])

    swapco.run(main, slot=quiet(max_workers=limit))
    assert sorted(cleaned) == list(range(limit))


def test_the_greatest_limit() -> None:
    assert [Slot(max_workers=limit).max_workers for limit in (1, 65533, 65534)] == [1, 65533, 65533]


# -------------------------------------------------------------------------------------- idle workers


@in_quiet_fiber
def test_the_worker_that_was_idle_last_is_used_first() -> None:
    events = [swapco.Event() for _ in range(4)]

    def body(n: int) -> int:
        events[n].wait()
        return threading.get_native_id()

    fibers = [thread(body, n) for n in range(4)]
    until_blocked(*fibers)
    ids = []
    for n in (2, 0, 3, 1):
        events[n].set()
        ids.append(fibers[n].join())
    assert len(set(ids)) == 4
    assert statistics()["idle_workers"] == 4
    events = [swapco.Event() for _ in range(4)]
    fibers = [thread(body, n) for n in range(4)]
    until_blocked(*fibers)
    for event in events:
        event.set()
    assert [fiber.join() for fiber in fibers] == ids[::-1]


def test_idle_workers_are_let_go() -> None:
    clock = ManualClock(1.0)

    def a_second() -> None:
        clock.advance(1.0)
        settle()

    def main() -> None:
        event = swapco.Event()
        before = threading.active_count()
        fibers = [thread(event.wait) for _ in range(20)]
        until_ready(fibers)
        event.set()
        swapco.wait(fibers)
        assert statistics()["idle_workers"] == 20
        sizes = []
        for _ in range(12):
            a_second()
            sizes.append(statistics()["workers"])
            assert statistics()["idle_workers"] == sizes[-1]
        # never more than half of what was idle all the time, and some are kept
        assert sizes[0] >= 20 - (20 - KEPT + 1) // 2
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == KEPT
        give_up = 0
        while threading.active_count() > before + KEPT:
            threading.Event().wait(0.01)
            give_up += 1
            assert give_up < 1000, threading.enumerate()
        # and they still work
        assert [thread(int).join() for _ in range(6)] == [0] * 6
        assert statistics()["workers"] == KEPT

    def until_ready(fibers: list[Any]) -> None:
        while any(fiber.state != "BLOCKED" for fiber in fibers):
            swapco.sleep(0)

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock, slot=quiet()))


def test_workers_in_use_are_not_let_go() -> None:
    clock = ManualClock(1.0)

    def main() -> None:
        for _ in range(4):
            events = swapco.Event()
            fibers = [thread(events.wait) for _ in range(12)]
            while any(fiber.state != "BLOCKED" for fiber in fibers):
                swapco.sleep(0)
            clock.advance(1.0)
            settle()
            assert statistics()["workers"] == 12
            events.set()
            swapco.wait(fibers)

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock, slot=quiet()))


def test_new_workers_get_the_names_of_those_that_went() -> None:
    clock = ManualClock(1.0)

    def names(count: int) -> set[str]:
        event = swapco.Event()
        fibers = [thread(lambda: (event.wait(), threading.current_thread().name)[1]) for _ in range(count)]
        while any(fiber.state != "BLOCKED" for fiber in fibers):
            swapco.sleep(0)
        event.set()
        return {fiber.join() for fiber in fibers}

    def main() -> None:
        first = names(12)
        assert len(first) == 12
        for _ in range(10):
            clock.advance(1.0)
            settle()
        assert statistics()["workers"] == KEPT
        assert names(12) == first

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock, slot=quiet()))


# --------------------------------------------------------------------------------------------- pinning

several_cpus = len(allowed_cpus()) > 1


def mask(thread_id: int | None = None) -> frozenset[int]:
    return frozenset(os.sched_getaffinity(threading.get_native_id() if thread_id is None else thread_id))


def test_workers_share_one_cpu_while_they_take_turns() -> None:
    slot = quiet()
    masks: list[tuple[frozenset[int], int | None]] = []

    def body() -> None:
        for _ in range(5):
            masks.append((mask(), slot.pinned_cpu))
            swapco.sleep(0)

    def main() -> None:
        swapco.wait([thread(body) for _ in range(3)])
        if several_cpus:
            assert slot.pinned_cpu in allowed_cpus()
        else:
            assert slot.pinned_cpu is None

    before = mask()
    # its clock stands still: no second passes after which nobody is pinned for a while
    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=ManualClock(1.0), slot=slot))
    assert len(masks) == 15
    if several_cpus:
        assert all(mine == {cpu} for mine, cpu in masks)
    else:
        assert set(masks) == {(before, None)}
    assert mask() == before
    assert slot.pinned_cpu is None


def test_nothing_is_pinned_before_anything_is_lent() -> None:
    before = mask()
    slot = quiet()

    def main() -> None:
        swapco.spawn(int).join()
        assert slot.pinned_cpu is None
        assert mask() == before

    swapco.run(main, slot=slot)


def test_a_second_after_it_lent_the_cpu_is_chosen_anew() -> None:
    clock = ManualClock(1.0)
    slot = quiet()

    def main() -> None:
        before = mask()
        on_thread(int)
        assert (slot.pinned_cpu is not None) == several_cpus
        clock.advance(1.0)
        settle()
        assert mask() == before == allowed_cpus()
        assert slot.pinned_cpu is None
        # not by itself, and not at once
        clock.advance(1.0)
        settle()
        assert slot.pinned_cpu is None
        threading.Event().wait(0.02)
        on_thread(int)
        assert (slot.pinned_cpu is not None) == several_cpus

    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=clock, slot=slot))


def test_a_second_of_the_real_clock_does_it_too() -> None:
    slot = quiet()

    def main() -> None:
        on_thread(int)
        wait_until(lambda: slot.pinned_cpu is None, "a rest from pinning")

    swapco.run(main, slot=slot)


def test_a_detached_one_may_run_anywhere_and_comes_back() -> None:
    slot = Slot()
    held = Held()
    masks: list[frozenset[int]] = []
    pinned: list[bool] = []

    def body() -> None:
        masks.append(mask())
        pinned.append(swapco.current_fiber().state == "RUNNING")
        held()
        masks.append(mask())
        swapco.sleep(0)
        masks.append(mask())

    def main() -> None:
        fiber = thread(body)
        until_detached(fiber)
        held.let_go()
        fiber.join()
        on_thread(int)

    swapco.run(main, slot=slot)
    assert masks[1] == allowed_cpus()
    if several_cpus and pinned == [True]:
        assert len(masks[0]) == 1


@in_quiet_fiber
def test_blocking_lets_the_worker_go() -> None:
    def body() -> tuple[frozenset[int], frozenset[int]]:
        before = mask()
        with swapco.blocking():
            return before, mask()

    before, inside = on_thread(body)
    assert inside == allowed_cpus()
    assert len(before) == 1 or not several_cpus


def test_without_pinning_no_mask_is_touched() -> None:
    slot = quiet(pin=False)
    before = mask()
    masks: set[frozenset[int]] = set()

    def body(home: int) -> None:
        masks.update((mask(), mask(home)))
        swapco.sleep(0)
        with swapco.blocking():
            masks.add(mask())
        masks.add(mask())

    def main() -> None:
        swapco.wait([thread(body, threading.get_native_id()) for _ in range(4)])
        assert slot.pinned_cpu is None
        masks.add(mask())

    swapco.run(main, slot=slot)
    assert masks == {before}


@pytest.mark.skipif(not several_cpus, reason="there is one CPU to share")
def test_a_narrowed_process_stays_in_its_mask() -> None:
    before = mask()
    cpu = max(before)
    os.sched_setaffinity(0, {cpu})
    try:
        masks = swapco.run(lambda: on_thread(mask), slot=quiet())
        assert masks == {cpu}
        assert mask() == {cpu}
    finally:
        os.sched_setaffinity(0, before)


@in_quiet_fiber
def test_a_thread_that_a_worker_starts_is_not_pinned_with_it() -> None:
    """A thread inherits the mask of its starter; one that is started without the slot may run anywhere."""
    seen: list[frozenset[int]] = []

    def body() -> frozenset[int]:
        other = threading.Thread(target=lambda: seen.append(mask()))
        with swapco.blocking():
            other.start()
            other.join()
        return mask()

    on_thread(body)
    assert seen == [allowed_cpus()]


def test_hub_of_gives_the_same_counters() -> None:
    with swapco.Runner(slot=quiet()) as runner:
        runner.run(on_thread, int)
        counters = hub_of(runner.get_loop()).scheduler.statistics()
    assert counters["lends"] == 1
    assert counters["handoffs"] == 1
    assert counters["detaches"] == 0
    assert counters["ticks"] >= 0
