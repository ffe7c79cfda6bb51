"""The watchdog in processes of its own (forks, exits, deadlocks), and its parts: see test_watchdog."""

from __future__ import annotations

import asyncio
import ctypes
import platform
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, run_program
from watchdog_support import PRELUDE, caught, compute, give_up_at, hash_in_c, sleep_in_kernel

import swapco
from swapco._loop.loop import hub_of
from swapco.monitor import kernel
from swapco.monitor.probe import ASLEEP, PYTHON, UNREADABLE, C, Probe

pytestmark = pytest.mark.usefixtures("fibers")

# ---------------------------------------------------------------------------------------------- other processes

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
