"""The ends of a process, a thread and a forked child, with fibers parked on stacks of their own.

A stack of greenlets ends with an exception in every greenlet; a native one is just memory.  Whatever the stacks are
made of: no hang, no crash, and the same order of events.
"""

from __future__ import annotations

import subprocess

import pytest
from helpers import run_program

PRELUDE = """
import asyncio, atexit, functools, gc, multiprocessing, os, signal, socket, sys, threading, time
from swapco import *

def deep(depth, function):
    # frames and C calls below: a stack with something on it
    if depth == 0:
        return function()
    return sorted([depth], key=lambda x: deep(depth - 1, function))

def forever():
    try:
        deep(10, block)
    finally:
        left.append(1)

def park(count=100):
    for _ in range(count):
        spawn(forever)
    sleep(0)
    sleep(0.001)

left = []

def in_child(function):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = function() or 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def works():
    assert gather(*[functools.partial(sleep, 0.001, n) for n in range(50)]) == list(range(50))
    assert await_(asyncio.sleep(0.001, "slept")) == "slept"
    return True
"""

VARIANTS: dict[str, dict[str, str]] = {"plain": {}, "debug allocator": {"PYTHONMALLOC": "debug"}}
IN_EACH_VARIANT = pytest.mark.parametrize("variant", ["plain", pytest.param("debug allocator", marks=pytest.mark.once)])


def ends(program: str, code: int = 0, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # a fork in a process with threads is warned of since 3.12
    result = run_program(PRELUDE + program, "-W", "ignore::DeprecationWarning", timeout_s=60, **env or {})
    assert result.returncode == code, result.stderr[-3000:] + result.stdout
    for trouble in ("Fatal", "Segmentation", "Exception ignored", "swapco:", "C stack"):
        assert trouble not in result.stderr, result.stderr
    return result


@IN_EACH_VARIANT
@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("return", 0),
        ("sys.exit(3)", 3),
        ("deep(20, lambda: sys.exit(3))", 3),
        ("spawn(sys.exit, 4); sleep(3600)", 4),
        ("spawn(deep, 20, lambda: sys.exit(4)); sleep(3600)", 4),
        ("os._exit(5)", 5),
        ("spawn(os._exit, 6).join()", 6),
        ("deep(20, lambda: os._exit(7))", 7),
        ("asyncio.get_running_loop().call_soon(sys.exit, 8); sleep(3600)", 8),
        ("await_(asyncio.to_thread(os._exit, 9))", 9),
        ("raise KeyError", 1),
        ("os.kill(os.getpid(), signal.SIGTERM); sleep(3600)", -15),
    ],
)
def test_an_exit_with_parked_fibers(how: str, code: int, variant: str, switch: str) -> None:
    ends(f"def main():\n    park()\n    {how}\n\nrun(main)", code, env=VARIANTS[variant])


def test_fibers_that_a_closed_loop_cancels_run_their_finally_blocks(switch: str) -> None:
    ends("run(park)\nassert len(left) == 100, left")


@IN_EACH_VARIANT
@pytest.mark.parametrize(
    "end",
    [
        "pass",
        "del runner; gc.collect()",
        "atexit.register(lambda: print(runner.run(works)))",
        "atexit.register(lambda: print(run(works)))",
        "atexit.register(lambda: runner.close())",
        "atexit.register(lambda: os._exit(0))",
        "sys.exit(0)",
    ],
)
def test_the_end_of_a_program_with_a_loop_that_is_not_closed(end: str, variant: str, switch: str) -> None:
    ends(f"runner = Runner()\nrunner.run(park)\n{end}", env=VARIANTS[variant])


def test_fibers_that_only_a_cycle_holds(switch: str) -> None:
    ends("""
class Holder:
    pass

def main():
    holder = Holder()
    holder.fiber = spawn(lambda: (holder, block()))
    sleep(0)
    del holder

for _ in range(20):
    runner = Runner()
    runner.run(main)
    del runner
    gc.collect()
run(works)
""")


@pytest.mark.parametrize("depth", [0, 30])
def test_a_child_forked_in_a_fiber_runs_a_loop_of_its_own(depth: int, switch: str) -> None:
    ends(f"""
def child():
    park(10)
    return 7 if works() else 8

def main():
    park()
    for _ in range(3):
        assert deep({depth}, lambda: in_child(lambda: run(child))) in (7, [{depth}])
        works()

run(main)
assert len(left) == 100
""")


def test_a_child_forked_in_a_fiber_uses_the_stack_it_is_on(switch: str) -> None:
    ends("""
def child():
    deep(40, lambda: 0)
    value = [[[0] * 100] * 100] * 100
    assert len(repr(value)) > 1_000_000
    gc.collect()
    return 7

def main():
    park()
    for _ in range(3):
        assert spawn(in_child, child).join() == 7
        works()

run(main)
""")


def test_a_child_that_returns_from_its_fiber_ends_and_the_parent_does_not_notice(switch: str) -> None:
    result = run_program(
        PRELUDE
        + """
def forks():
    return os.fork()

def main():
    park()
    pid = spawn(forks).join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 70
    works()

run(main)
print("parent", len(left))
""",
        "-W",
        "ignore::DeprecationWarning",
        timeout_s=60,
    )
    assert (result.returncode, result.stdout) == (0, "parent 100\n"), result.stderr
    assert result.stderr.count("swapco: a fiber returned in a forked child") == 1


def test_a_child_that_exits_by_an_exception(switch: str) -> None:
    """``sys.exit`` in a fiber of a forked child: there is no loop that it could leave through."""
    result = run_program(
        PRELUDE
        + """
def forks():
    pid = os.fork()
    if pid == 0:
        sys.exit(3)
    return pid

def main():
    park()
    pid = spawn(forks).join()
    assert os.WIFEXITED(os.waitpid(pid, 0)[1])
    works()

run(main)
print("parent", len(left))
""",
        "-W",
        "ignore::DeprecationWarning",
        timeout_s=60,
    )
    assert (result.returncode, result.stdout) == (0, "parent 100\n"), result.stderr


def test_grandchildren(switch: str) -> None:
    ends("""
def descend(generations):
    def main():
        park(10)
        return in_child(lambda: descend(generations - 1)) + 1 if generations else 0
    return run(main)

assert descend(5) == 5
""")


@pytest.mark.parametrize("where", ["main()", "run(main)", "run(lambda: spawn(main).join())"])
def test_multiprocessing_by_fork(where: str, switch: str) -> None:
    ends(f"""
def child(number, queue):
    queue.put(run(lambda: (park(10), works(), number)[2]))

def main():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=child, args=(number, queue)) for number in range(4)]
    for one in children:
        one.start()
    assert sorted(queue.get() for _ in children) == [0, 1, 2, 3]
    for one in children:
        one.join()
        assert one.exitcode == 0

{where}
run(works)
""")


def test_a_pool_of_processes(switch: str) -> None:
    ends("""
from concurrent.futures import ProcessPoolExecutor

def main():
    park()
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        loop = asyncio.get_running_loop()
        assert await_(asyncio.gather(*[loop.run_in_executor(pool, abs, -n) for n in range(20)])) == list(range(20))

run(main)
""")


@IN_EACH_VARIANT
def test_loops_in_many_threads(variant: str, switch: str) -> None:
    ends(
        """
results = []

def main():
    park(20)
    for _ in range(10):
        works()
        deep(10, lambda: sleep(0))
    results.append(1)

for _ in range(3):
    threads = [threading.Thread(target=run, args=(main,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    run(works)
    for thread in threads:
        thread.join()
assert len(results) == 24
assert len(left) == 24 * 20
""",
        env=VARIANTS[variant],
    )


@IN_EACH_VARIANT
def test_threads_that_end_with_parked_fibers(variant: str, switch: str) -> None:
    ends(
        """
runners = []

def leave_behind():
    runner = Runner()
    runner.run(park)
    runners.append(runner)

for _ in range(10):
    thread = threading.Thread(target=leave_behind)
    thread.start()
    thread.join()
    run(works)
gc.collect()
run(works)
runners.clear()
gc.collect()
run(works)
""",
        env=VARIANTS[variant],
    )


@IN_EACH_VARIANT
@pytest.mark.parametrize("busy", ["sleep(0)", "deep(20, lambda: sleep(0))", "sleep(3600)", "time.sleep(3600)"])
def test_daemon_threads_at_the_end(busy: str, variant: str, switch: str) -> None:
    ends(
        f"""
ready = threading.Semaphore(0)

def main():
    park()
    ready.release()
    while True:
        {busy}

for _ in range(4):
    threading.Thread(target=run, args=(main,), daemon=True).start()
for _ in range(4):
    assert ready.acquire(timeout=20)
""",
        env=VARIANTS[variant],
    )


def test_a_thread_made_by_a_fiber_runs_fibers_of_its_own(switch: str) -> None:
    ends("""
def main():
    park()
    for _ in range(5):
        thread = threading.Thread(target=run, args=(works,))
        thread.start()
        assert await_(asyncio.to_thread(thread.join)) is None
        assert await_(asyncio.to_thread(run, works)) is True

run(main)
""")


def test_stacks_of_one_thread_serve_another() -> None:
    """A native stack belongs to nobody between two fibers; statistics count all threads."""
    ends(
        """
from swapco._core.native_switch import statistics

def main():
    gather(*[lambda: sleep(0.001)] * 500)

def in_thread():
    thread = threading.Thread(target=run, args=(main,))
    thread.start()
    thread.join()

in_thread()
first = statistics()["stacks"]
for _ in range(10):
    in_thread()
assert statistics()["stacks"] == first, (first, statistics())
assert statistics()["free"] == first
""",
        env={"SWAPCO_SWITCH": "native"},
    )
