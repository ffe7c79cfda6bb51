"""When a watchdog runs, how it is asked for, and whom it does not report: see test_watchdog."""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, in_fiber
from thread_support import quiet, statistics
from watchdog_support import BACKENDS, LONG_S, SHORT_S, Collected, Reports, compute, here, sleep_in_kernel

import swapco
from swapco._loop.loop import hub_of
from swapco.lowlevel import Slot
from swapco.monitor import Watchdog, watchdog
from swapco.monitor.probe import Probe

pytestmark = pytest.mark.usefixtures("fibers")

# ------------------------------------------------------------------------------------------ who is not reported

def none_reported(main: Callable[[], object], interval: float = LONG_S, **keywords: Any) -> None:
    reports = Reports()

    def watched() -> None:
        with here(report=reports, interval=interval):
            main()

    swapco.run(watched, **keywords)
    assert not reports.all, str(reports.all[0])


@pytest.mark.parametrize("switch", BACKENDS)
def test_an_idle_loop(switch: str) -> None:
    none_reported(lambda: swapco.sleep(5 * LONG_S), switch=switch)


@pytest.mark.parametrize("switch", BACKENDS)
def test_fibers_that_are_only_long_in_sum(switch: str) -> None:
    def short() -> None:
        end = time.monotonic() + 0.001
        while time.monotonic() < end:
            pass

    def main() -> None:
        for _ in range(1000):
            swapco.spawn(short).join()

    none_reported(main, switch=switch)


def test_a_fiber_that_yields() -> None:
    def main() -> None:
        end = time.monotonic() + 4 * LONG_S
        while time.monotonic() < end:
            swapco.sleep(0)

    none_reported(main)


def test_a_loop_callback_is_no_fiber() -> None:
    def main() -> None:
        done = asyncio.Event()

        def slow() -> None:
            time.sleep(3 * SHORT_S)
            done.set()

        asyncio.get_running_loop().call_soon(slow)
        swapco.await_(done.wait())

    reports = Reports()

    def watched() -> None:
        with here(report=reports):
            main()

    swapco.run(watched)
    # main itself may be slow on a busy machine
    assert not [found for found in reports.all if "slow" in [frame.name for frame in found.stack]]


def test_a_fiber_with_a_thread_of_its_own() -> None:
    """The slot is lent to it for long: that is looked at, once, and is no news."""
    reports = Reports(of="the thread fiber")
    looks = []

    class Counting(Probe):
        def look_again(self, factor: float) -> None:
            looks.append(factor)
            Probe.look_again(self, factor)
            passed_over.set()

    def body() -> None:
        compute(passed_over)
        time.sleep(5 * SHORT_S)

    def main() -> None:
        with here(report=reports):
            swapco.spawn(body, thread=True, name="the thread fiber").join()

    passed_over = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog, "Probe", Counting)
        swapco.run(main, slot=quiet())
    assert not reports.all
    assert looks[0] == math.inf


def hog_after(turn: Callable[[threading.Event], object], **options: Any) -> list[Any]:
    """What is reported of an ordinary fiber that gets the loop straight from a thread fiber, which had it for so long
    that the watchdog has passed it over, and then keeps it."""
    reports = Reports(of="the hog")
    passed_over = threading.Event()

    class Noting(Probe):
        def look_again(self, factor: float) -> None:
            Probe.look_again(self, factor)
            if factor == math.inf:
                passed_over.set()

    def from_thread_fiber() -> None:
        swapco.block()
        turn(passed_over)
        swapco.switch_to(hog)

    def hogs() -> None:
        swapco.switch_to(thread)
        sleep_in_kernel(reports.came)

    def main() -> None:
        nonlocal thread, hog
        with here(report=reports):
            thread = swapco.spawn(from_thread_fiber, thread=True)
            while thread.state != "BLOCKED":
                swapco.sleep(0)
            hog = swapco.spawn(hogs, name="the hog")
            hog.join()
            thread.cancel()

    thread: Any = None
    hog: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog, "Probe", Noting)
        swapco.run(main, slot=quiet(**options))
    return reports.all


@pytest.mark.parametrize("does", ["computes", "sleeps"])
def test_who_gets_the_loop_from_a_thread_fiber_is_watched_anew(does: str) -> None:
    ended: list[float] = []

    def turn(passed_over: threading.Event) -> None:
        if does == "computes":
            compute(passed_over)
        else:
            assert passed_over.wait(SOON_S)
        ended.append(time.monotonic())

    (found, *_) = hog_after(turn)
    assert found.kind == "kernel"
    # its own time, and not the turn of the thread fiber with it
    assert SHORT_S * 0.8 <= found.seconds <= time.monotonic() - ended[0]


def test_who_gets_the_loop_when_a_thread_fiber_is_detached_is_watched_anew() -> None:
    """The slot is taken from a thread fiber that the watchdog has passed over, and the next one hogs it."""
    reports = Reports(of="the hog")
    over = threading.Event()

    def hogs() -> None:
        swapco.block()
        sleep_in_kernel(reports.came)

    def main() -> None:
        with here(report=reports):
            hog = swapco.spawn(hogs, name="the hog")
            while hog.state != "BLOCKED":
                swapco.sleep(0)
            # both are ready: the hog is next when the slot comes back
            thread = swapco.spawn(over.wait, thread=True)
            swapco.resume(hog)
            hog.join()
            over.set()
            thread.join()

    swapco.run(main, slot=Slot(tick=0.2))
    assert reports.all[0].kind == "kernel"
    assert reports.all[0].seconds >= SHORT_S * 0.8


def test_handoffs_between_threads_are_counted() -> None:
    """All that changes who runs: the watchdog tells by this counter that something goes on."""

    def main() -> tuple[float, float]:
        def plays(rounds: int) -> None:
            for _ in range(rounds):
                swapco.switch_to(partners[swapco.current_fiber()])

        a, b = (swapco.spawn(plays, 100, thread=True) for _ in range(2))
        partners = {a: b, b: a}
        before = statistics()
        # the other one waits for a partner that is gone
        swapco.wait([a, b], return_when=asyncio.FIRST_COMPLETED)
        a.cancel()
        b.cancel()
        swapco.wait([a, b])
        after = statistics()
        return after["switches"] - before["switches"], after["handoffs"] - before["handoffs"]

    switches, handoffs = swapco.run(main, slot=quiet())
    assert handoffs >= 199
    assert switches >= handoffs


def test_the_running_fiber() -> None:
    seen = []

    def main() -> None:
        scheduler = hub_of(asyncio.get_running_loop()).scheduler  # type: ignore[arg-type]
        seen.append(scheduler)
        assert scheduler.running_fiber is swapco.current_fiber()
        asyncio.get_running_loop().call_soon(lambda: seen.append(scheduler.running_fiber))
        other = swapco.spawn(lambda: scheduler.running_fiber)
        assert other.join() is other
        swapco.sleep(0)

    swapco.run(main)
    assert seen[0].running_fiber is None
    assert seen[1:] == [None]


# ------------------------------------------------------------------------------------------------- its life

@in_fiber
def test_start_and_stop() -> None:
    dog = here()
    dog.stop()
    for _ in range(3):
        dog.start()
        dog.start()
        assert [thread.name for thread in threading.enumerate()].count("swapco-watchdog") == 1
        dog.stop()
        dog.stop()
        assert "swapco-watchdog" not in [thread.name for thread in threading.enumerate()]


def test_around_a_loop() -> None:
    """Started before there is any fiber, and so before there is a home worker."""
    loop = swapco.new_event_loop()
    reports = Reports()

    async def main() -> None:
        await swapco.spawn(compute, reports.came, name="the culprit")

    try:
        with Watchdog(loop, SHORT_S, reports):
            loop.run_until_complete(main())
    finally:
        loop.close()
    assert reports.all[0].name == "the culprit"


def test_in_a_plain_asyncio_program() -> None:
    reports = Reports()

    async def main() -> None:
        with here(report=reports):
            await asyncio.sleep(0.01)
            await swapco.spawn(compute, reports.came)

    with asyncio.Runner(loop_factory=swapco.new_event_loop) as runner:
        runner.run(main())
    assert reports.all


def test_a_loop_of_another_library() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="swapco's event loop"):
            Watchdog(loop)  # type: ignore[arg-type]
    finally:
        loop.close()


def test_two_loops_in_two_threads() -> None:
    names = {}

    def run_one(name: str) -> None:
        def culprit(event: threading.Event) -> None:
            sleep_in_kernel(event)

        culprit.__code__ = culprit.__code__.replace(co_name=f"culprit_{name}")
        reports = Reports(of=name)

        def main() -> None:
            with here(report=reports):
                swapco.spawn(culprit, reports.came, name=name).join()

        swapco.run(main)
        names[name] = reports.all

    threads = [threading.Thread(target=run_one, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "ab":
        assert f"culprit_{name}" in [frame.name for frame in names[name][0].stack]


def test_a_runner_that_moves_to_another_thread() -> None:
    with Collected() as collected, swapco.Runner(watchdog=SHORT_S) as runner:
        runner.run(compute, collected.came)

        def elsewhere() -> None:
            collected.came.clear()
            runner.run(compute, collected.came)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert len(collected.texts) >= 2
    assert all("compute" in text for text in collected.texts)


# ------------------------------------------------------------------------------------------- how it is asked for

@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv(watchdog.ENVIRONMENT, raising=False)
    return monkeypatch


def is_watched() -> bool:
    return "swapco-watchdog" in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("argument", "environment", "debug", "interval"),
    [
        (None, None, False, None),
        (None, None, True, 0.1),
        (None, "", True, 0.1),
        (None, "1", False, 0.1),
        (None, "0", True, None),
        (None, "0.5", False, 0.5),
        (None, " 1.0 ", False, 1.0),
        (False, "1", True, None),
        (True, "0", False, 0.1),
        (2, "0", False, 2.0),
        (0.25, None, False, 0.25),
    ],
)
def test_who_decides(
    argument: Any, environment: str | None, debug: bool, interval: float | None, no_environment: pytest.MonkeyPatch
) -> None:
    if environment is not None:
        no_environment.setenv(watchdog.ENVIRONMENT, environment)
    assert watchdog.asked_for(argument, debug) == interval
    assert swapco.run(is_watched, watchdog=argument, debug=debug) is (interval is not None)
    assert not is_watched()


@pytest.mark.usefixtures("no_environment")
def test_debug_mode_of_asyncio() -> None:
    def new_debug_loop() -> swapco.Loop:
        loop = swapco.new_event_loop()
        loop.set_debug(True)
        return loop

    assert swapco.run(is_watched, loop_factory=new_debug_loop)
    assert not swapco.run(is_watched, loop_factory=new_debug_loop, debug=False)


@pytest.mark.usefixtures("no_environment")
def test_what_is_logged_in_debug_mode() -> None:
    with Collected() as collected:
        swapco.run(compute, collected.came, debug=True)
    assert "fiber 'main' kept every other fiber waiting" in collected.texts[0]
    assert "in compute" in collected.texts[0]
    assert collected.levels == {"WARNING"}


def test_one_watchdog_for_all_runs_of_a_runner() -> None:
    with swapco.Runner(watchdog=True) as runner:
        assert runner.run(is_watched)
        threads = set(threading.enumerate())
        assert runner.run(is_watched)
        assert set(threading.enumerate()) == threads
    assert not is_watched()


BAD = [(0, ValueError), (0.0, ValueError), (-1, ValueError), (math.nan, ValueError), (math.inf, ValueError),
       (1e300, ValueError), (0.0005, ValueError), ("1", TypeError), (1j, TypeError), ([], TypeError)]  # fmt: skip


@pytest.mark.parametrize(("value", "kind"), BAD)
def test_bad_values(value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=re.escape(repr(value))):
        swapco.run(print, watchdog=value)
    with pytest.raises(kind, match=r"watchdog must be None, True, False or an interval in seconds"):
        swapco.Runner(watchdog=value)


@pytest.mark.parametrize(("value", "kind"), [*BAD, (True, TypeError), (None, TypeError)])
@in_fiber
def test_bad_intervals(value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="interval must be a number of seconds"):
        here(interval=value)


@in_fiber
def test_a_bad_report() -> None:
    with pytest.raises(TypeError, match="report must be callable"):
        here(report="log")


@pytest.mark.parametrize("value", ["yes", "-1", "nan", "2e-4", "0.0"])
def test_a_bad_environment(value: str, no_environment: pytest.MonkeyPatch) -> None:
    no_environment.setenv(watchdog.ENVIRONMENT, value)
    with pytest.raises(ValueError, match="SWAPCO_WATCHDOG must be 0, 1 or an interval in seconds"):
        swapco.run(print)
    # whoever says what he wants does not depend on it
    assert swapco.run(int, watchdog=False) == 0
