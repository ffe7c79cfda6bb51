"""Ctrl-C, and the end of the process, while a thread sleeps at a FutexWord: each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import swapco

LIMIT_S = 60

PRELUDE = """
import os, signal, sys, threading
from swapco._core.futex import FutexWord

def say(*words):
    print(*words, flush=True)

def say_when_asleep(word, thread=threading.main_thread()):
    # asleep in futex(2) on this very word: from then on a signal is sure to interrupt it
    address = repr(word).rpartition(" ")[2][:-1]
    def watch():
        while True:
            with open(f"/proc/self/task/{thread.native_id}/syscall") as syscall:
                if address in syscall.read().split():
                    break
            os.sched_yield()
        say("asleep")
    threading.Thread(target=watch, daemon=True).start()
"""


def run(program: str, *signals: signal.Signals) -> tuple[int, list[str], str]:
    """Run a program, and send it the next signal each time it says "asleep"."""
    root = Path(swapco.__file__).parent.parent
    environment = dict(os.environ, PYTHONPATH=str(root), PYTHONFAULTHANDLER="1")
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        said = []
        for number in signals:
            while said[-1:] != ["asleep"]:
                line = process.stdout.readline()
                assert line, "the program ended early: " + process.communicate(timeout=LIMIT_S)[1]
                said.append(line.strip())
            process.send_signal(number)
            said.append(number.name)
        output, errors = process.communicate(timeout=LIMIT_S)
        return process.returncode, said + output.split("\n")[:-1], errors
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "call", ["word.wait()", "word.wait(3600)", "word.swap(other)", "word.swap(other, 3600)"]
)
def test_ctrl_c_interrupts_a_wait_and_leaves_the_word_usable(call):
    code, said, errors = run(
        f"""
        word, other = FutexWord(), FutexWord()
        say_when_asleep(word)
        try:
            {call}
        except KeyboardInterrupt:
            say("interrupted", word.value)
        say(word.wake())
        word.wait()
        say(word.value)
        """,
        signal.SIGINT,
    )
    assert (code, errors) == (0, "")
    assert said == ["asleep", "SIGINT", "interrupted 0", "False", "0"]


def test_ctrl_c_without_a_handler_of_ones_own_ends_the_program():
    code, said, errors = run("word = FutexWord(); say_when_asleep(word); word.wait()", signal.SIGINT)
    assert code == -signal.SIGINT
    assert said == ["asleep", "SIGINT"]
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_ctrl_c_reaches_the_main_thread_while_another_one_waits():
    code, said, errors = run(
        """
        main, other = FutexWord(), FutexWord()
        thread = threading.Thread(target=other.wait)
        thread.start()
        say_when_asleep(main)
        try:
            main.wait()
        except KeyboardInterrupt:
            say("interrupted", other.value)
        say(other.wake())
        thread.join()
        """,
        signal.SIGINT,
    )
    assert (code, errors) == (0, "")
    # the other thread may have been on its way into the wait
    assert said[:2] == ["asleep", "SIGINT"]
    assert said[2:] in (["interrupted -1", "True"], ["interrupted 0", "False"])


def test_a_handler_that_returns_lets_the_wait_go_on_to_the_next_signal():
    code, said, errors = run(
        """
        word = FutexWord()
        def on_usr1(number, frame):
            say("handler", word.value)
            say_when_asleep(word)
        signal.signal(signal.SIGUSR1, on_usr1)
        say_when_asleep(word)
        try:
            word.wait()
        except KeyboardInterrupt:
            say("interrupted")
        """,
        signal.SIGUSR1,
        signal.SIGUSR1,
        signal.SIGINT,
    )
    assert (code, errors) == (0, "")
    assert said == [
        *("asleep", "SIGUSR1", "handler 0"),
        *("asleep", "SIGUSR1", "handler 0"),
        *("asleep", "SIGINT", "interrupted"),
    ]


def test_a_signal_without_a_handler_kills_a_waiting_process():
    code, said, errors = run("word = FutexWord(); say_when_asleep(word); word.wait()", signal.SIGTERM)
    assert (code, errors) == (-signal.SIGTERM, "")
    assert said == ["asleep", "SIGTERM"]


@pytest.mark.parametrize("call", ["word.wait()", "word.wait(3600)", "word.swap(FutexWord())"])
def test_the_process_ends_while_a_daemon_thread_waits(call):
    code, said, errors = run(
        f"""
        word = FutexWord()
        thread = threading.Thread(target=lambda: {call}, daemon=True)
        thread.start()
        while word.value != -1:
            os.sched_yield()
        say("over")
        """
    )
    assert (code, errors) == (0, "")
    assert said == ["over"]


def test_the_process_ends_right_after_it_woke_a_daemon_thread():
    """The woken thread asks for the GIL of an interpreter that is on its way out."""
    code, said, errors = run(
        """
        words = [FutexWord() for _ in range(20)]
        for word in words:
            threading.Thread(target=word.wait, daemon=True).start()
        while any(word.value != -1 for word in words):
            os.sched_yield()
        say("over")
        for word in words:
            word.wake()
        """
    )
    assert (code, errors) == (0, "")
    assert said == ["over"]
