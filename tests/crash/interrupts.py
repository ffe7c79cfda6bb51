"""Programs that are sent a real SIGINT when they say that they are ready for one."""

from __future__ import annotations

import signal
import subprocess

from helpers import finish_program, start_program

PRELUDE = """
import asyncio, os, signal, sys, threading, time
import swapco
from swapco import *

def say(*words):
    print(*words, flush=True)
"""


class Program:
    """A program that says when it is ready for a signal."""

    def __init__(self, source: str) -> None:
        self.child = start_program(PRELUDE + source)

    def wait_for(self, word: str) -> None:
        """Read until the program says ``word``."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if line.strip() != word:
            result = finish_program(self.child)
            raise AssertionError(f"{line!r} instead of {word!r}; {result.stdout}\n{result.stderr}")

    def interrupt(self) -> None:
        self.child.send_signal(signal.SIGINT)

    def end(self) -> subprocess.CompletedProcess[str]:
        return finish_program(self.child)


def interrupted(source: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program; send it a SIGINT each time that it says one of ``words``; return how it ended."""
    program = Program(source)
    for word in words or ("ready",):
        program.wait_for(word)
        program.interrupt()
    return program.end()


def assert_killed_by_keyboard_interrupt(result: subprocess.CompletedProcess[str]) -> None:
    # Python kills itself with the signal, so that a shell sees it
    assert result.returncode == -signal.SIGINT, result.stderr
    assert result.stderr.rstrip().endswith("KeyboardInterrupt"), result.stderr
