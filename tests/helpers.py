"""Small things that several test modules use."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import swapco

ROOT = Path(__file__).parents[1]
#: Long enough for anything that must happen, on a machine that is busy with something else.
SOON_S = 20.0


class Logged(logging.Handler):
    """The errors that asyncio logged during a test; a test that expects some takes them out."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def take(self) -> list[str]:
        """The messages so far; they count as expected."""
        messages = [record.getMessage() for record in self.records]
        self.records.clear()
        return messages


def label(value: object) -> str:
    """``repr`` without addresses: a test's name that is the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def in_fiber(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run a test as the main fiber of an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        swapco.run(functools.partial(test, *args, **kwargs))

    return run


def settle(rounds: int = 4) -> None:
    """Let everything that can run do so: ready fibers, loop callbacks, and what they make ready."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        loop.call_soon(int)
        swapco.sleep(0)


def wait_until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Let other fibers run until ``condition`` holds."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + SOON_S
    while not condition():
        assert loop.time() < give_up, f"{what} did not come true within {SOON_S} s"
        swapco.sleep(0.001)


def into_the_inbox(fiber: swapco.Fiber[Any], let_go: Callable[[], object]) -> None:
    """Let a detached fiber go, and keep the slot until it has asked for it."""
    scheduler = fiber.scheduler

    def posted() -> float:
        return scheduler.statistics()["posted"]

    before = posted()
    let_go()
    give_up = time.monotonic() + SOON_S
    while posted() == before:
        assert time.monotonic() < give_up, f"{fiber} did not come to the inbox within {SOON_S} s"
        time.sleep(0.001)


def environment(**extra: str) -> dict[str, str]:
    """For a child process: it imports this tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **extra}


def start_program(source: str, *flags: str, **env: str) -> subprocess.Popen[str]:
    """Start ``source`` as a program in a Python of its own."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *flags, "-c", textwrap.dedent(source)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
    )


def finish_program(
    child: subprocess.Popen[str], timeout_s: float = SOON_S
) -> subprocess.CompletedProcess[str]:
    """Wait for a program's end.  One that hangs is made to say where, and fails the test."""
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGABRT)
        out, err = child.communicate()
        raise AssertionError(f"the program did not end within {timeout_s} s\n{out}\n{err}") from None
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def run_program(
    source: str, *flags: str, timeout_s: float = SOON_S, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ``source`` as a program in a Python of its own, to its end."""
    return finish_program(start_program(source, *flags, **env), timeout_s)
