"""The watchdog names the fiber that blocks the worker, and what it does; and nobody else.

Where something must be reported, the fiber goes on blocking until it is: nothing here depends on how fast the machine
is.  Where nothing may be reported, the interval is far longer than a busy machine keeps a thread waiting.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import hashlib
import logging
import math
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import SOON_S, in_fiber, run_program

import swapco
from swapco._loop.loop import hub_of
from swapco.monitor import Blocked, Watchdog, kernel, watchdog
from swapco.monitor.probe import ASLEEP, PYTHON, UNREADABLE, C, Probe

pytestmark = pytest.mark.usefixtures("fibers")

BACKENDS = ("native", "greenlet")
SHORT_S = 0.02
#: Nobody is kept from running for so long, however busy the machine is.
LONG_S = 0.4


class Reports:
    """What a watchdog reported; ``on_report`` is called after each one.

    With ``of`` only what it reported of fibers of this name: the main fiber may be slow, too, on a busy machine.
    """

    def __init__(self, on_report: Callable[[], object] = int, of: str | None = None) -> None:
        self.all: list[Blocked] = []
        self.on_report = on_report
        self.of = of
        self.came = threading.Event()

    def __call__(self, found: Blocked) -> None:
        assert threading.current_thread().name == "swapco-watchdog"
        if self.of is not None and (found.fiber is None or found.fiber.name != self.of):
            return
        self.all.append(found)
        self.came.set()
        self.on_report()


def here(**keywords: Any) -> Watchdog:
    """A watchdog of the running loop."""
    keywords.setdefault("interval", SHORT_S)
    return Watchdog(asyncio.get_running_loop(), **keywords)  # type: ignore[arg-type]


def caught(block: Callable[[threading.Event], object], *, switch: str | None = None, **keywords: Any) -> Blocked:
    """The first report of a fiber that runs ``block(event)``, which goes on until the event is set."""
    reports = Reports(of="the culprit", **keywords)

    def main() -> None:
        with here(report=reports):
            swapco.spawn(block, reports.came, name="the culprit").join()

    swapco.run(main, switch=switch)
    found = reports.all[0]
    assert found.seconds >= SHORT_S * 0.8
    return found


def give_up_at() -> float:
    return time.monotonic() + SOON_S


def compute(until: threading.Event) -> None:
    end = give_up_at()
    while not until.is_set():
        assert time.monotonic() < end, "no report came"


BUFFER = bytes(1 << 24)


def hash_in_c(until: threading.Event) -> None:
    """Nearly all the time without the GIL."""
    end = give_up_at()
    while not until.is_set():
        hashlib.sha256(BUFFER)
        assert time.monotonic() < end, "no report came"


def sleep_in_kernel(until: threading.Event) -> None:
    end = give_up_at()
    while not until.is_set():
        time.sleep(0.3)
        assert time.monotonic() < end, "no report came"


# ------------------------------------------------------------------------------------------- what it does

@pytest.mark.parametrize("switch", BACKENDS)
def test_a_fiber_that_runs_python(switch: str) -> None:
    found = caught(compute, switch=switch)
    assert found.kind == "python"
    assert re.fullmatch(r"\d+% of a CPU(, while .* kept the GIL)?", found.detail)
    assert "compute" in [frame.name for frame in found.stack]


@pytest.mark.parametrize("switch", BACKENDS)
def test_a_fiber_that_runs_c_without_the_gil(switch: str) -> None:
    found = caught(hash_in_c, switch=switch)
    assert found.kind == "c"
    assert found.stack[-1].name == "hash_in_c"


@pytest.mark.parametrize("switch", BACKENDS)
def test_a_fiber_that_sleeps_in_the_kernel(switch: str) -> None:
    found = caught(sleep_in_kernel, switch=switch)
    assert (found.kind, found.detail) == ("kernel", "clock_nanosleep")
    assert found.stack[-1].name == "sleep_in_kernel"
    assert found.stack[-1].line == "time.sleep(0.3)"


def test_a_read_names_the_descriptor() -> None:
    reading, writing = os.pipe()
    try:
        found = caught(lambda event: os.read(reading, 1), on_report=lambda: os.write(writing, b"x"))
        assert (found.kind, found.detail) == ("kernel", f"read on descriptor {reading}")
    finally:
        os.close(reading)
        os.close(writing)


def test_a_socket_that_blocks() -> None:
    left, right = socket.socketpair()
    with left, right:
        found = caught(lambda event: left.recv(1), on_report=lambda: right.send(b"x"))
        assert (found.kind, found.detail) == ("kernel", f"recvfrom on descriptor {left.fileno()}")


def test_a_socket_with_a_timeout() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(SOON_S)
        found = caught(lambda event: left.recv(1), on_report=lambda: right.send(b"x"))
        assert found.kind == "kernel"
        assert found.detail.partition(":")[0] in {"poll", "ppoll", "restart_syscall"}


def test_a_lock_of_threads() -> None:
    lock = threading.Lock()
    lock.acquire()
    found = caught(lambda event: lock.acquire(), on_report=lock.release)
    assert found.kind == "kernel"
    assert found.detail.startswith("futex: ")


def test_a_lock_with_a_timeout() -> None:
    """It waits on a futex with a deadline, as a thread does that wants the GIL."""
    lock = threading.Lock()
    lock.acquire()
    found = caught(lambda event: lock.acquire(timeout=SOON_S), on_report=lock.release)
    assert found.kind == "kernel"
    assert found.detail.partition(":")[0] in {"futex", "restart_syscall"}


def test_a_child_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, bufsize=0)
    pipe = child.stdin
    assert pipe is not None
    with child:
        found = caught(
            lambda event: os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT), on_report=lambda: pipe.write(b"\n")
        )
        assert (found.kind, found.detail) == ("kernel", "waitid")


def test_a_system_call_without_a_name() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the number is that of x86-64")
    rt_sigsuspend = 130
    names = {number: name for number, name in kernel._NAMES.items() if number != rt_sigsuspend}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "_NAMES", names)
        assert kernel.describe_call(rt_sigsuspend) == "system call 130"


@pytest.mark.parametrize("switch", BACKENDS)
def test_c_code_that_keeps_the_gil_is_reported_when_it_ends(switch: str) -> None:
    reports = Reports(of="the culprit")
    found: list[Blocked] = []

    def culprit(n: int) -> None:
        sum(range(n))

    def main() -> None:
        n = 10_000_000
        end = give_up_at()
        with here(report=reports):
            while not found:
                assert time.monotonic() < end, f"not among {reports.all}"
                swapco.spawn(culprit, n, name="the culprit").join()
                swapco.sleep(SHORT_S)
                found.extend(one for one in reports.all if one.kind == "gil" and one.stack)
                # on a fast machine it may take more to keep the GIL for long
                n = min(2 * n, 40_000_000)

    swapco.run(main, switch=switch)
    assert found[0].detail.startswith("for at least ")
    assert found[0].stack[-1].name == "culprit"


def test_c_code_that_keeps_the_gil_to_the_end_of_its_fiber() -> None:
    """There is no Python code in the fiber: it has ended before the watchdog has the GIL."""
    reports = Reports()
    found: list[Blocked] = []
    numbers = []

    def main() -> None:
        n = 10_000_000
        end = give_up_at()
        with here(report=reports):
            while not found:
                assert time.monotonic() < end, f"not among {reports.all}"
                fiber = swapco.spawn(sum, range(n))
                numbers.append(fiber.name)
                fiber.join()
                swapco.sleep(SHORT_S)
                found.extend(one for one in reports.all if one.kind == "gil" and one.fiber is None)
                n = min(2 * n, 40_000_000)

    swapco.run(main)
    assert "a fiber that has ended since kept" in str(found[0])
    assert not found[0].stack
    called = re.search(r"called (Fiber-\d+) unless", found[0].detail)
    assert called is not None
    assert called[1] in numbers


def test_other_threads_that_run_python() -> None:
    """They have the GIL most of the time; the fiber sleeps on a futex then, and still it runs Python."""
    done = threading.Event()
    others = [threading.Thread(target=compute, args=(done,)) for _ in range(2)]
    for other in others:
        other.start()
    try:
        assert caught(compute).kind == "python"
    finally:
        done.set()
        for other in others:
            other.join()


def test_other_threads_and_a_sleeper() -> None:
    done = threading.Event()
    other = threading.Thread(target=compute, args=(done,))
    other.start()
    try:
        found = caught(sleep_in_kernel)
        assert (found.kind, found.detail) == ("kernel", "clock_nanosleep")
    finally:
        done.set()
        other.join()


@pytest.mark.parametrize(
    ("block", "kind", "detail"),
    [
        (compute, "python", "of a CPU"),
        (hash_in_c, "c", "of a CPU"),
        (sleep_in_kernel, "kernel", "a system call that the kernel does not tell"),
    ],
)
def test_without_the_help_of_the_kernel(
    block: Callable[[threading.Event], None], kind: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "Probe", functools.partial(Probe, folder="/nonexistent"))
    for _ in range(10):
        found = caught(block)
        if found.kind == kind:
            break
        # only CPU time shows that it runs C, and a busy machine may have none for it
        assert (kind, found.kind) == ("c", "python")
    assert found.kind == kind
    assert detail in found.detail


# ---------------------------------------------------------------------------------------------- the report

def test_the_stack_is_the_whole_stack_of_the_fiber_and_no_other() -> None:
    def outer(event: threading.Event) -> None:
        inner(event)

    def inner(event: threading.Event) -> None:
        sleep_in_kernel(event)

    for switch in BACKENDS:
        found = caught(outer, switch=switch)
        assert [frame.name for frame in found.stack] == ["outer", "inner", "sleep_in_kernel"]


def test_the_text() -> None:
    found = caught(sleep_in_kernel)
    text = str(found).splitlines()
    assert re.fullmatch(
        r"fiber 'the culprit' kept every other fiber waiting for [\d.]+ s: it sleeps in the kernel \(clock_nanosleep\)",
        text[0],
    )
    assert text[-2].startswith(f'  File "{__file__}", line ')
    assert text[-1] == "    time.sleep(0.3)"


def test_a_long_stretch_is_reported_again_when_it_is_ten_times_as_old() -> None:
    twice = threading.Event()
    reports = Reports(lambda: len(reports.all) == 2 and twice.set())

    @in_fiber
    def main() -> None:
        with here(report=reports):
            compute(twice)

    main()
    first, second = reports.all
    assert second.seconds >= 9 * first.seconds
    assert first.fiber is second.fiber


def test_the_next_stretch_of_a_fiber_is_reported_anew() -> None:
    reports = Reports()

    @in_fiber
    def main() -> None:
        with here(report=reports):
            for _ in range(3):
                reports.came.clear()
                compute(reports.came)
                swapco.sleep(0.001)

    main()
    assert len(reports.all) >= 3


def test_the_right_one_of_many() -> None:
    reports = Reports(of="a culprit")

    @in_fiber
    def main() -> None:
        others = [swapco.spawn(swapco.block) for _ in range(50)]
        culprits = []
        with here(report=reports):
            for _ in range(5):
                reports.came.clear()
                culprits.append(swapco.spawn(compute, reports.came, name="a culprit"))
                culprits[-1].join()
        for other in others:
            swapco.resume(other)
        assert {found.fiber for found in reports.all} == set(culprits)

    main()


def test_a_coroutine_in_await() -> None:
    async def blocks(event: threading.Event) -> None:
        await asyncio.sleep(0)
        compute(event)

    found = caught(lambda event: swapco.await_(blocks(event)))
    assert found.kind == "python"
    assert "blocks" in [frame.name for frame in found.stack]


def test_a_report_that_raises_does_not_end_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def fail() -> None:
        raise ZeroDivisionError

    reports = Reports(fail)

    @in_fiber
    def main() -> None:
        with here(report=reports):
            for _ in range(2):
                reports.came.clear()
                compute(reports.came)
                swapco.sleep(0.001)

    main()
    assert {each.exc_type for each in unraisable} == {ZeroDivisionError}
    assert "watchdog" in unraisable[0].err_msg


def test_a_report_may_stop_the_watchdog() -> None:
    reports = Reports(lambda: dog.stop())
    dog: Watchdog

    @in_fiber
    def main() -> None:
        nonlocal dog
        dog = here(report=reports)
        thread = dog.start() or dog._thread
        compute(reports.came)
        assert thread is not None
        thread.join(SOON_S)
        assert not thread.is_alive()

    main()
    assert len(reports.all) == 1


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
    reports = Reports()
    asked = threading.Event()

    class Lent:
        """A scheduler whose slot is lent to a thread fiber."""

        def __init__(self, scheduler: Any) -> None:
            self.scheduler = scheduler

        def __getattr__(self, name: str) -> Any:
            return getattr(self.scheduler, name)

        @property
        def running_fiber(self) -> Any:
            asked.set()
            return SimpleNamespace(threaded=True)

    @in_fiber
    def main() -> None:
        dog = here(report=reports)
        dog._scheduler = Lent(dog._scheduler)
        dog.start()
        try:
            compute(asked)
            time.sleep(5 * SHORT_S)
        finally:
            dog.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog, "Probe", lambda scheduler, interval_ns: Probe(scheduler.scheduler, interval_ns))
        main()
    assert not reports.all


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
    assert reports.all[0].fiber is not None
    assert reports.all[0].fiber.name == "the culprit"


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

class Collected(logging.Handler):
    """What is logged as "swapco"."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.levels: set[str] = set()
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.levels.add(record.levelname)
        self.came.set()

    def __enter__(self) -> Collected:
        logging.getLogger("swapco").addHandler(self)
        return self

    def __exit__(self, *ignored: object) -> None:
        logging.getLogger("swapco").removeHandler(self)


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


# ---------------------------------------------------------------------------------------------- other processes

PRELUDE = f"""
import asyncio, os, sys, threading, time
import swapco
from swapco import *
from swapco.monitor import Watchdog

class Once:
    # a report that ends the blocking
    def __init__(self):
        self.came = threading.Event()
    def __call__(self, found):
        self.came.set()

def compute(until):
    end = time.monotonic() + {SOON_S}
    while not until.is_set():
        assert time.monotonic() < end

def elsewhere(*args):
    # in a thread that is there to the end
    threading.Thread(target=run, args=args, kwargs={{"watchdog": 0.001}}, daemon=True).start()
    time.sleep(0.1)

def watched(interval={SHORT_S}):
    once = Once()
    with Watchdog(asyncio.get_running_loop(), interval, once):
        compute(once.came)
"""


def outcome(program: str, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    result = run_program(PRELUDE + program, "-W", "ignore::DeprecationWarning", *flags, **env)
    assert result.returncode == 0, result.stderr + result.stdout
    return result


def test_deadlocks_are_found_all_the_same() -> None:
    result = outcome("""
for options in ({"watchdog": 0.001}, {"debug": True}):
    try:
        run(block, **options)
    except Deadlock:
        print("found")
""")
    assert result.stdout.split() == ["found", "found"]


def test_fork() -> None:
    result = outcome("""
def main():
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            assert "swapco-watchdog" not in [thread.name for thread in threading.enumerate()]
            run(watched)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    watched()

run(main, watchdog=0.001)
print("done")
""")
    assert result.stdout.split() == ["done"]


def test_fork_between_two_runs() -> None:
    result = outcome("""
with Runner(watchdog=0.001) as runner:
    runner.run(sleep, 0.01)
    for leave in (True, False):
        pid = os.fork()
        if pid == 0:
            if leave:
                sys.exit(7)
            runner.close()
            run(watched)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    runner.run(watched)
print("done")
""")
    assert result.stdout.split() == ["done"]


@pytest.mark.parametrize(
    "program",
    [
        "run(sys.exit, 0, watchdog=0.001)",
        "runner = Runner(watchdog=0.001); runner.run(sleep, 0.01)",
        "loop = new_event_loop(); dog = Watchdog(loop, 0.001); dog.start()",
        "elsewhere(compute, threading.Event())",
        "elsewhere(time.sleep, 60)",
        "elsewhere(sleep, 60)",
    ],
)
def test_the_interpreter_exits(program: str) -> None:
    for _ in range(3):
        outcome(program)


def test_an_exit_during_a_report() -> None:
    """The thread is in code of the program that does not end: it is left alone."""
    began = time.monotonic()
    outcome("""
def main():
    inside = threading.Event()
    def report(found):
        inside.set()
        time.sleep(3600)
    dog = Watchdog(asyncio.get_running_loop(), 0.01, report)
    dog.start()
    compute(inside)

run(main)
""")
    assert time.monotonic() - began < SOON_S


def test_the_environment_of_a_program() -> None:
    result = outcome("run(time.sleep, 0.5)\nrun(time.sleep, 0.5, watchdog=False)", SWAPCO_WATCHDOG="0.01")
    assert len(re.findall("fiber 'main' kept every other fiber waiting", result.stderr)) in (1, 2)
    assert "clock_nanosleep" in result.stderr


# --------------------------------------------------------------------------------------------------- the parts

def test_a_thread_is_looked_at() -> None:
    """The probe alone, from the main thread, at threads that do one thing each."""

    def look_at(block: Callable[[threading.Event], object], expected: int) -> tuple[int, int]:
        done = threading.Event()
        homes: list[Any] = []

        def work() -> None:
            def main() -> None:
                homes.append(hub_of(asyncio.get_running_loop()).scheduler)  # type: ignore[arg-type]
                block(done)

            swapco.run(main)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            end = give_up_at()
            while True:
                assert time.monotonic() < end
                time.sleep(0.005)
                if homes:
                    probe = Probe(homes[0], 10**9)
                    result, number, first = probe.look()
                    if result == expected:
                        return number, first
        finally:
            done.set()
            thread.join()

    look_at(compute, PYTHON)
    look_at(hash_in_c, C)
    number, _ = look_at(sleep_in_kernel, ASLEEP)
    assert kernel.describe_call(number) == "clock_nanosleep"


def test_a_thread_that_has_ended() -> None:
    schedulers = []

    def main() -> None:
        schedulers.append(hub_of(asyncio.get_running_loop()).scheduler)  # type: ignore[arg-type]

    thread = threading.Thread(target=swapco.run, args=(main,))
    thread.start()
    thread.join()
    probe = Probe(schedulers[0], 10**9)
    assert probe.look()[0] == UNREADABLE
    assert not probe.goes_on()
    assert probe.awake == 0


def headers() -> Iterator[tuple[str, dict[str, int]]]:
    """The numbers of system calls, of this machine and of the generic table, where the headers are installed."""
    column = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
    for path in (f"/usr/include/{platform.machine()}-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"):
        if column is not None and Path(path).exists():
            yield str(column), _numbers(path)
    if Path("/usr/include/asm-generic/unistd.h").exists():
        yield "1", _numbers("/usr/include/asm-generic/unistd.h")


def _numbers(path: str) -> dict[str, int]:
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(path).read_text())
    return {name: int(number) for name, number in found}


def test_the_numbers_of_system_calls() -> None:
    tables = list(headers())
    if not tables:
        pytest.skip("the kernel's headers are not installed")
    for column, numbers in tables:
        for name, both in kernel.NUMBERS.items():
            if name in numbers and both[int(column)] is not None:
                assert both[int(column)] == numbers[name], name
        assert len(kernel.NUMBERS.keys() & numbers.keys()) > 40


def test_calls_in_words() -> None:
    assert kernel.describe_call(None) == "a system call that the kernel does not tell"
    assert kernel.describe_call(-1) == "no system call: a page fault, or stopped"
    assert kernel.describe_call(100_000) == "system call 100000"
    column = 0 if platform.machine() == "x86_64" else 1
    accept = kernel.NUMBERS["accept4"][column]
    assert kernel.describe_call(accept, 0xFFFF_FFFF_0000_0005) == "accept4 on descriptor 5"


def test_a_process_that_was_stopped_is_not_blamed() -> None:
    """Time in which nobody ran does not count."""
    result = run_program(
        PRELUDE + """
import signal
reports = []
def main():
    with Watchdog(asyncio.get_running_loop(), 0.3, reports.append):
        # current, and frozen for longer than the interval
        pid = os.getpid()
        os.system(f"(sleep 2; kill -CONT {pid}) & kill -STOP {pid}")
        sleep(0.001)

run(main)
print([str(report) for report in reports if report.seconds > 1])
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_the_gil_kept_by_code_that_sleeps() -> None:
    """Nobody can tell it from another thread that keeps the GIL: the report says both."""
    usleep = ctypes.PyDLL(None).usleep

    def block(event: threading.Event) -> None:
        end = give_up_at()
        while not event.is_set():
            usleep(300_000)
            assert time.monotonic() < end

    found = caught(block)
    assert found.kind in {"python", "kernel"}
    if found.kind == "python":
        assert "kept the GIL" in found.detail
