"""A fiber that uses its C stack up ends the process, and says why; any other segmentation fault is left alone.

What CPython does not count (the hash of nested tuples, here) runs into the guard below the stack.  The message comes
from a signal handler that must not get in the way of others: those installed before it see what they would see
without it, and so does the parent process.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from helpers import run_program

PRELUDE = """
import ctypes, faulthandler, functools, os, signal, sys, threading
from swapco import *

faulthandler.disable()

def overflow():
    value = ()
    for _ in range(300_000):
        value = (value,)
    hash(value)

def overflow_in_python():
    # 3.11 counts Python frames and C calls together
    sys.setrecursionlimit(10 ** 6)
    def again(x):
        return sorted([1], key=again)
    again(1)

def read_nothing():
    ctypes.string_at(0)

def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()

def in_fibers(function):
    run(lambda: gather(lambda: sleep(3600), lambda: sleep(3600), function))
"""
MESSAGE = "a fiber has used up its C stack"
#: CPython 3.13 no longer exports the function that prints a traceback.
TRACEBACK = sys.version_info < (3, 13)


def dies(program: str, **env: str) -> str:
    """What a program that dies of a segmentation fault writes to stderr."""
    result: subprocess.CompletedProcess[str] = run_program(PRELUDE + program, timeout_s=60, **env)
    assert result.returncode == -signal.SIGSEGV, result.stderr[-3000:] + result.stdout
    assert len(result.stderr) < 100_000
    return result.stderr


@pytest.mark.parametrize("where", ["in_fibers(overflow)", "in_thread(in_fibers, overflow)"])
def test_the_end_of_a_stack_is_named(where: str) -> None:
    stderr = dies(where, SWAPCO_SWITCH="native")
    assert stderr.count(MESSAGE) == 1
    assert "SWAPCO_SWITCH=greenlet" in stderr
    assert ("in overflow" in stderr) == TRACEBACK


@pytest.mark.parametrize("where", ["in_fibers(overflow)", "in_thread(in_fibers, overflow)"])
def test_the_end_of_a_stack_is_named_to_the_right_one_of_many_fibers(where: str) -> None:
    stderr = dies(
        f"""
others = [functools.partial(sleep, 3600)] * 300
def in_fibers(function):
    run(lambda: gather(*others, function, *others))
{where}
""",
        SWAPCO_SWITCH="native",
    )
    assert stderr.count(MESSAGE) == 1


@pytest.mark.parametrize("where", ["in_fibers(overflow)", "in_thread(in_fibers, overflow)"])
def test_faulthandler_enabled_before_prints_its_traceback_too(where: str) -> None:
    stderr = dies(f"faulthandler.enable()\n{where}", SWAPCO_SWITCH="native")
    assert stderr.count(MESSAGE) == 1
    assert stderr.count("Fatal Python error: Segmentation fault") == 1
    assert stderr.count("in overflow") == 1


def test_faulthandler_enabled_in_a_fiber_is_the_one_that_reports() -> None:
    stderr = dies(
        """
def then_overflow():
    faulthandler.enable()
    overflow()

in_fibers(then_overflow)
""",
        SWAPCO_SWITCH="native",
    )
    assert stderr.count("Fatal Python error: Segmentation fault") == 1
    assert stderr.count("in overflow") == 1


def test_faulthandler_enabled_between_two_loops() -> None:
    stderr = dies(
        """
run(lambda: sleep(0))
faulthandler.enable()
run(lambda: sleep(0))
in_fibers(overflow)
""",
        SWAPCO_SWITCH="native",
    )
    assert stderr.count(MESSAGE) == 1
    assert stderr.count("in overflow") == 1


def test_a_traceback_file_of_faulthandler_gets_the_traceback() -> None:
    stderr = dies(
        """
import tempfile
with tempfile.TemporaryFile() as file:
    faulthandler.enable(file)
    pid = os.fork()
    if pid == 0:
        in_fibers(overflow)
    status = os.waitpid(pid, 0)[1]
    file.seek(0)
    assert b"in overflow" in file.read()
os.kill(os.getpid(), os.WTERMSIG(status))
""",
        SWAPCO_SWITCH="native",
    )
    assert stderr.count(MESSAGE) == 1


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="since 3.12 sys.setrecursionlimit does not count C calls")
def test_a_raised_recursion_limit_ends_in_the_guard() -> None:
    stderr = dies("in_fibers(overflow_in_python)", SWAPCO_SWITCH="native")
    assert stderr.count(MESSAGE) == 1
    assert "in again" in stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="until 3.11 sys.setrecursionlimit counts C calls, too")
def test_a_raised_recursion_limit_does_not_concern_c_calls() -> None:
    # natively: the 10,000 C calls that 3.13 allows a thread need more than the 8 MiB that a greenlet has
    result = run_program(PRELUDE + "in_fibers(overflow_in_python)", timeout_s=60, SWAPCO_SWITCH="native")
    assert result.returncode == 1, result.stderr[-3000:]
    assert "RecursionError" in result.stderr


@pytest.mark.parametrize("handler", ["faulthandler.disable()", "faulthandler.enable()"])
@pytest.mark.parametrize(
    "where",
    [
        "read_nothing()",
        "run(lambda: sleep(0)); read_nothing()",
        "in_fibers(read_nothing)",
        "in_thread(in_fibers, read_nothing)",
        "run(lambda: asyncio.get_running_loop().call_soon(read_nothing) and sleep(1))",
        "in_fibers(lambda: in_thread(read_nothing))",
        "in_fibers(lambda: os.kill(os.getpid(), signal.SIGSEGV) or sleep(1))",
    ],
)
def test_any_other_fault_has_no_message(where: str, handler: str, switch: str) -> None:
    stderr = dies(f"import asyncio\n{handler}\n{where}")
    assert MESSAGE not in stderr
    assert stderr.count("Segmentation fault") == ("enable" in handler)


def test_a_fault_looks_the_same_without_swapco() -> None:
    """What a program without any fiber writes is what it would write without this library."""
    program = "import ctypes, faulthandler\n{}\nctypes.string_at(0)"
    without = run_program(program.format("faulthandler.disable()"))
    within = run_program(program.format("import swapco; swapco.run(lambda: 0); faulthandler.disable()"))
    assert (within.returncode, within.stderr) == (without.returncode, without.stderr) == (-signal.SIGSEGV, "")


def test_a_handler_written_in_python_sees_the_signal(switch: str) -> None:
    result = run_program(
        PRELUDE
        + """
seen = []
signal.signal(signal.SIGSEGV, lambda number, frame: seen.append(number))

def main():
    os.kill(os.getpid(), signal.SIGSEGV)
    sleep(0)
    return seen

print(run(main))
"""
    )
    assert (result.returncode, result.stdout) == (0, "[11]\n"), result.stderr


def test_a_signal_that_is_ignored_stays_ignored(switch: str) -> None:
    result = run_program(
        PRELUDE
        + """
signal.signal(signal.SIGSEGV, signal.SIG_IGN)
run(lambda: os.kill(os.getpid(), signal.SIGSEGV) or sleep(0))
print("alive")
"""
    )
    assert (result.returncode, result.stdout) == (0, "alive\n"), result.stderr


def test_the_signal_stack_ends_with_its_thread() -> None:
    result = run_program(
        PRELUDE
        + """
def mappings():
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)

for _ in range(5):
    in_thread(run, lambda: sleep(0))
before = mappings()
for _ in range(100):
    in_thread(run, lambda: sleep(0))
print(mappings() - before)
""",
        SWAPCO_SWITCH="native",
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 20
