"""What the programs of test_thread_*.py have in common: they run as usual and in development mode.

In development mode Python's allocator has its debug hooks on: a use after free finds 0xdd bytes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from helpers import run_program

PRELUDE = """
import _thread, asyncio, ctypes, faulthandler, functools, gc, hashlib, os, queue, random, signal, socket, sys, tempfile
import threading, time, traceback, warnings, weakref
import swapco
from swapco import *
from swapco.lowlevel import Slot

def say(*words):
    print(*words, flush=True)

def numbers():
    return current_fiber().scheduler.statistics()

def until(condition, what="the condition"):
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, f"{what} did not come true"
        sleep(0.001)

def detached(fn, *args):
    # a thread fiber that blocks, and was found out
    fiber = spawn(fn, *args, thread=True)
    until(lambda: fiber.state in ("DETACHED", "DONE"), f"{fiber!r} is detached")
    return fiber

def lent():
    # nobody is revoked but by a signal, or after a second
    return Slot(tick=1.0)

def kill(number):
    # when the main thread sleeps: a handoff is not finished before
    asleep = False
    while not asleep:
        with open(f"/proc/self/task/{os.getpid()}/stat") as stat:
            asleep = stat.read().rpartition(")")[2].split()[0] == "S"
    os.kill(os.getpid(), number)

def python_loop(until_s=3600):
    give_up = time.monotonic() + until_s
    while time.monotonic() < give_up:
        pass

def c_without_the_gil():
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**31 - 1)

def blocked_reader():
    os.read(os.pipe()[0], 1)

def mixed_work():
    # thread fibers and ordinary ones, attached, detached and blocked; True if everything is right
    items = Queue(2)
    lock = Lock()
    inside = []

    def producer(name):
        for n in range(10):
            items.put((name, n))
            if n % 4 == 0:
                time.sleep(0.002)

    def consumer():
        got = [items.get() for _ in range(30)]
        return all([n for who, n in got if who == name] == list(range(10)) for name in range(3))

    def owner():
        for _ in range(5):
            with lock:
                inside.append(1)
                assert len(inside) == 1
                sleep(0)
                inside.pop()

    def computes():
        return sum(range(20_000))

    with TaskGroup() as group:
        for name in range(3):
            group.spawn(to_thread, producer, name)
        right = group.spawn(consumer)
        for _ in range(4):
            group.spawn(owner)
            group.spawn(to_thread, owner)
        sums = [group.spawn(to_thread, computes) for _ in range(5)]
        naps = [group.spawn(to_thread, time.sleep, 0.003) for _ in range(5)]
    fiber = spawn(lambda: swapco.from_thread.run(sleep, 0.001, "home"), thread=True)
    assert fiber.join() == "home"
    assert all(fiber.result() == sum(range(20_000)) for fiber in sums)
    assert all(fiber.result() is None for fiber in naps)
    return right.result()
"""

Run = Callable[..., subprocess.CompletedProcess[str]]
VARIANTS: dict[str, tuple[str, ...]] = {
    # 3.12 and later warn of a fork in a process with threads
    "plain": ("-W", "ignore::DeprecationWarning"),
    "development mode": ("-X", "dev", "-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning"),
}


# the debug hooks are those of every Python, and as slow
@pytest.fixture(params=["plain", pytest.param("development mode", marks=pytest.mark.once)])
def run_program_in_variant(request: pytest.FixtureRequest) -> Run:
    """Run a program to its end; check its exit code, and that nobody complained."""
    flags = VARIANTS[request.param]

    def run(program: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        result = run_program(PRELUDE + program, *flags, timeout_s=60, **env)
        assert result.returncode == code, result.stderr + result.stdout
        for trouble in ("Fatal Python error", "Segmentation", "Exception ignored", "swapco:"):
            assert trouble not in result.stderr, result.stderr
        return result

    return run
