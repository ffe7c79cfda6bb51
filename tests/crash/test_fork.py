"""fork inside ``run``: the child starts clean, and the parent does not notice.

A forked child has a copy of the parent's memory, and shares its open files: the epoll set above all.  The fibers and
the loop stay the parent's.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import run_program

PRELUDE = """
import asyncio, functools, os, socket, sys, threading, time, traceback
import swapco
from swapco import *
from swapco.lowlevel import wait_readable

def in_child(function):
    # the exit code of a child that runs ``function``
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = function() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def echo_works():
    # one round trip through the poller, in both directions
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        def answer():
            wait_readable(left.fileno())
            return left.recv(100)
        fiber = spawn(answer)
        sleep(0.001)
        right.send(b"ping")
        assert fiber.join(10) == b"ping"
        return True
"""


def run_forking(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    # 3.12 and later warn of a fork in a process with threads: the program has none of its own
    result = run_program(PRELUDE + program, "-W", "ignore::DeprecationWarning", *flags)
    assert result.returncode == 0, result.stderr + result.stdout
    return result


def test_the_child_runs_a_loop_of_its_own() -> None:
    result = run_forking("""
def child():
    def main():
        assert len(all_fibers()) == 1
        assert gather(*[functools.partial(sleep, 0.001, n) for n in range(10)]) == list(range(10))
        assert await_(asyncio.sleep(0.001, "slept")) == "slept"
        assert echo_works()
        return 7
    return run(main)

def main():
    spawn(sleep, 3600)
    for _ in range(3):
        assert in_child(child) == 7
        assert echo_works()
    return "parent goes on"

print(run(main))
""")
    assert result.stdout.splitlines()[-1] == "parent goes on"


def test_the_child_is_in_no_fiber_and_no_loop() -> None:
    run_forking("""
def child():
    for blocking in (lambda: sleep(0), block, current_fiber, lambda: await_(asyncio.sleep(0))):
        try:
            blocking()
        except NotInFiber:
            continue
        return 1
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return 0
    return 2

def main():
    assert in_child(child) == 0
    async def coroutine():
        return in_child(child)
    assert await_(coroutine()) == 0

run(main)
""")


def test_a_child_that_returns_from_its_fiber_ends() -> None:
    result = run_forking("""
def main():
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        # as if nothing had happened: the fiber's function just returns
        return "child"
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 70, code
    return "parent"

def other():
    if os.fork() == 0:
        return
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 70

print(run(main))
run(lambda: spawn(other).join())
""")
    assert result.stdout == "parent\n"
    assert result.stderr.count("a fiber returned in a forked child") == 2


def test_a_child_that_raises_out_of_its_fiber_ends() -> None:
    result = run_forking("""
def main():
    pid = os.fork()
    if pid == 0:
        raise KeyError("in the child")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

print(run(main))
""")
    assert result.stdout == "70\n"


def test_a_child_that_exits() -> None:
    result = run_forking("""
def main():
    pid = os.fork()
    if pid == 0:
        sys.exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

print(run(main))
""")
    # SystemExit ends the fiber, and there is no run to leave
    assert result.stdout in ("5\n", "70\n")


def test_the_parents_poller_is_not_touched() -> None:
    """The child shares the epoll set: neither its end nor what it closes may take a registration away."""
    run_forking("""
def child(sockets):
    for s in sockets:
        s.close()
    def main():
        assert echo_works()
        return 7
    return run(main)

def main():
    pairs = [socket.socketpair() for _ in range(20)]
    got = []

    def reader(left):
        left.setblocking(False)
        while True:
            wait_readable(left.fileno())
            try:
                data = left.recv(100)
            except BlockingIOError:
                continue
            if not data:
                return
            got.append(data)

    fibers = [spawn(reader, left) for left, _ in pairs]
    sleep(0.01)
    assert in_child(lambda: child([left for left, _ in pairs])) == 7
    for n in range(3):
        for _, right in pairs:
            right.send(b"x")
        give_up = time.monotonic() + 10
        while len(got) < 20 * (n + 1) and time.monotonic() < give_up:
            sleep(0.001)
        assert len(got) == 20 * (n + 1), len(got)
    for _, right in pairs:
        right.close()
    gather(*fibers)
    for left, _ in pairs:
        left.close()

run(main)
""")


def test_timers_and_wakeups_of_the_parent_go_on() -> None:
    run_forking("""
def main():
    me = current_fiber()
    ticks = []
    def ticker():
        for n in range(20):
            sleep(0.002)
            ticks.append(n)
    fiber = spawn(ticker)
    for _ in range(3):
        assert in_child(lambda: run(lambda: sleep(0.005, 3))) == 3
        sleep(0.005)
    fiber.join(10)
    assert ticks == list(range(20))
    thread = threading.Thread(target=lambda: (time.sleep(0.01), resume(me, "from a thread")))
    thread.start()
    assert block(10) == "from a thread"
    thread.join()

run(main)
""")


def test_a_fork_in_a_loop_callback_and_in_a_task() -> None:
    run_forking("""
codes = []

def child():
    return run(lambda: sleep(0.001, 4))

async def task():
    codes.append(in_child(child))

def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: codes.append(in_child(child)))
    sleep(0.01)
    await_(asyncio.Task(task(), loop=loop))
    assert codes == [4, 4], codes
    assert echo_works()

run(main)
""")


def test_a_fork_of_a_fork() -> None:
    run_forking("""
def grandchild():
    return run(lambda: sleep(0.001, 3))

def child():
    def main():
        return in_child(grandchild) + 1
    return run(main)

def main():
    assert in_child(child) == 4
    assert echo_works()

run(main)
""")


def test_a_fork_between_runs_and_before() -> None:
    run_forking("""
def work():
    return run(lambda: (echo_works(), 5)[1])

assert in_child(work) == 5
assert work() == 5
assert in_child(work) == 5
with Runner() as runner:
    fiber = runner.run(lambda: spawn(sleep, 0.05, "left behind"))
    assert in_child(work) == 5
    assert runner.run(fiber.join) == "left behind"
""")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str) -> None:
    program = f"""
import multiprocessing
import swapco

def work(n):
    import swapco
    return swapco.run(lambda: swapco.sleep(0.001, n * n))

def main():
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        result = pool.map_async(work, range(4))
        while not result.ready():
            swapco.sleep(0.01)
        assert result.get() == [0, 1, 4, 9]

if __name__ == "__main__":
    swapco.run(main)
"""
    # spawn and forkserver import the main module: it must be a file
    wrapper = f"""
import os, runpy, subprocess, sys, tempfile
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "program.py")
    with open(path, "w") as file:
        file.write({program!r})
    sys.exit(subprocess.run([sys.executable, "-W", "ignore", path], timeout=60).returncode)
"""
    result = run_program(wrapper, timeout_s=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="nothing to warn of")
def test_subprocesses_need_no_care() -> None:
    run_forking("""
import subprocess
def main():
    spawn(sleep, 3600)
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout == b"1\\n"
    assert echo_works()

run(main)
""")
