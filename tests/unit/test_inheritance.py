"""A program that is started while its starter is pinned gets all CPUs of the process: inheritance.h.

Ordinary fibers are never pinned; for them nothing has to be done, and nothing must be.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import run_program

import swapco
from swapco.lowlevel import ManualClock, Slot

LOOK = "import os, sys; open(sys.argv[1], 'w').write(str(len(os.sched_getaffinity(0))))"


def by_subprocess(arguments: list[str]) -> None:
    subprocess.run(arguments, check=True)


def by_posix_spawn(arguments: list[str]) -> None:
    pid = os.posix_spawn(arguments[0], arguments, os.environ)
    assert os.waitpid(pid, 0)[1] == 0


def by_system(arguments: list[str]) -> None:
    assert os.system(shlex.join(arguments)) == 0


def by_fork_and_exec(arguments: list[str]) -> None:
    pid = os.fork()
    if pid == 0:
        os.execv(arguments[0], arguments)
    assert os.waitpid(pid, 0)[1] == 0


STARTERS = [by_subprocess, by_posix_spawn, by_system, by_fork_and_exec]


def in_thread(start: Callable[[list[str]], None], arguments: list[str]) -> None:
    swapco.spawn(start, arguments, thread=True).join()


def in_fiber(start: Callable[[list[str]], None], arguments: list[str]) -> None:
    start(arguments)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("where", [in_fiber, in_thread], ids=lambda f: f.__name__)
@pytest.mark.parametrize("start", STARTERS, ids=lambda f: f.__name__)
def test_a_child_has_the_cpus_of_its_process(
    tmp_path: Path, start: Callable[[list[str]], None], where: Callable[..., None]
) -> None:
    slot = Slot(tick=1.0)
    allowed = len(os.sched_getaffinity(0))

    def main() -> None:
        pinned = len(swapco.to_thread(os.sched_getaffinity, 0)) == 1
        assert pinned or allowed == 1, "no worker is pinned: the test shows nothing"
        where(start, [sys.executable, "-c", LOOK, str(tmp_path / "seen")])
        assert (tmp_path / "seen").read_text() == str(allowed)
        # the next lend pins again
        assert allowed == 1 or swapco.to_thread(lambda: len(os.sched_getaffinity(0))) == 1

    # its clock stands still: no second passes after which nobody is pinned for a while
    swapco.run(main, loop_factory=lambda: swapco.Loop(clock=ManualClock(1.0), slot=slot))
    assert len(os.sched_getaffinity(0)) == allowed


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_of_multiprocessing_has_them_if_an_ordinary_fiber_starts_it(method: str) -> None:
    """No hook is told of these."""
    program = f"""
        import multiprocessing, os, swapco

        def main():
            swapco.to_thread(int)
            with multiprocessing.get_context({method!r}).Pool(1) as pool:
                print(pool.apply(os.sched_getaffinity, (0,)) == allowed)

        allowed = os.sched_getaffinity(0)
        swapco.run(main)
    """
    done = run_program(program)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
