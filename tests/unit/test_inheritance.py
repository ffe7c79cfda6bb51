"""A program that is started while its starter is pinned gets all CPUs of the process: inheritance.h."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import swapco
from swapco.lowlevel import Slot

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
        swapco.to_thread(int)
        if allowed > 1:
            assert len(os.sched_getaffinity(0)) == 1, "home is not pinned: the test shows nothing"
        where(start, [sys.executable, "-c", LOOK, str(tmp_path / "seen")])
        assert (tmp_path / "seen").read_text() == str(allowed)
        # the next lend pins again
        assert allowed == 1 or swapco.to_thread(lambda: len(os.sched_getaffinity(0))) == 1

    swapco.run(main, slot=slot)
    assert len(os.sched_getaffinity(0)) == allowed
