"""The watchdog names the fiber that blocks the worker, and what it does; and nobody else.

Where something must be reported, the fiber goes on blocking until it is: nothing here depends on how fast the machine
is.  Where nothing may be reported, the interval is far longer than a busy machine keeps a thread waiting.
"""

from __future__ import annotations

import asyncio
import functools
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, in_fiber
from watchdog_support import BACKENDS, SHORT_S, Reports, caught, compute, give_up_at, hash_in_c, here, sleep_in_kernel

import swapco
from swapco.monitor import Blocked, Watchdog, kernel, watchdog
from swapco.monitor.probe import Probe

pytestmark = pytest.mark.usefixtures("fibers")

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
                found.extend(one for one in reports.all if one.kind == "gil" and one.name is None)
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
    assert text[-2].startswith(f'  File "{sleep_in_kernel.__code__.co_filename}", line ')
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
    assert first.name == second.name == "main"


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


def test_a_report_keeps_neither_the_fiber_alive_nor_what_it_holds() -> None:
    """Else its finalizers would run in the watchdog's thread."""
    places: list[threading.Thread] = []
    found: list[Blocked] = []
    came, gone = threading.Event(), threading.Event()

    class Last:
        def __del__(self) -> None:
            places.append(threading.current_thread())

    def culprit() -> Last:
        local = Last()
        compute(came)
        return Last() if local else local

    def report(one: Blocked) -> None:
        if one.name == "the culprit" and not found:
            found.append(one)
            assert one.fiber is not None
            came.set()
            assert gone.wait(SOON_S)

    def main() -> None:
        with here(report=report):
            swapco.spawn(culprit, name="the culprit").join()
            # while the report is being made
            assert places == [threading.current_thread()] * 2
            assert found[0].fiber is None
            gone.set()

    swapco.run(main)
    assert "fiber 'the culprit' kept" in str(found[0])
    assert "in culprit" in str(found[0])


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
