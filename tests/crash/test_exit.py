"""The interpreter ends while fibers live: no hang, no crash, whatever state they are in.

Each program runs twice: as usual, and in development mode, in which Python's allocator has its debug hooks on (a
use after free finds 0xdd bytes).  Some run with these hooks alone, too, since development mode slows other things
down as well.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from helpers import run_program

PRELUDE = """
import asyncio, atexit, functools, gc, os, signal, socket, sys, threading, time, weakref
import greenlet
import swapco
from swapco import *

def forever():
    sleep(3600)

def stubborn():
    # refuses every cancellation
    while True:
        try:
            sleep(3600)
        except asyncio.CancelledError:
            pass

def every_way_to_wait():
    # fibers that are parked in all kinds of places, with things on their stacks
    lock = Lock()
    lock.acquire()
    queue = Queue()
    event = Event()
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def with_finally():
        try:
            block()
        finally:
            list(range(10))

    def with_a_limit():
        with timeout(3600):
            with TaskGroup() as group:
                group.spawn(forever)
                group.spawn(block)

    async def coroutine():
        async with asyncio.timeout(3600):
            await asyncio.sleep(3600)

    def generator():
        def numbers():
            try:
                yield block()
            finally:
                list(range(10))
        for _ in numbers():
            pass

    def in_a_handler():
        try:
            raise KeyError
        except KeyError:
            block()

    waits = [
        forever, block, lock.acquire, queue.get, event.wait, with_finally, with_a_limit, coroutine, generator,
        in_a_handler, lambda: await_(future), lambda: await_(asyncio.sleep(3600)), lambda: gather(forever, block),
        lambda: spawn(forever).join(), lambda: switch_to(spawn(block)), lambda: wait([spawn(block)]),
    ]
    for wait_somewhere in waits:
        for _ in range(3):
            spawn(wait_somewhere)
    sleep(0)
    sleep(0.001)
"""

VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "plain": ((), {}),
    "debug allocator": ((), {"PYTHONMALLOC": "debug"}),
    "development mode": (("-X", "dev", "-W", "ignore"), {}),
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["plain", "development mode"])
def run_variant(request: pytest.FixtureRequest) -> Run:
    flags, env = VARIANTS[request.param]

    def run(program: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        result = run_program(PRELUDE + program, *flags, timeout_s=60, **env)
        assert result.returncode == code, result.stderr + result.stdout
        for trouble in ("Fatal Python error", "Segmentation", "Exception ignored", "swapco:"):
            assert trouble not in result.stderr, result.stderr
        return result

    return run


IN_ALL_VARIANTS = pytest.mark.parametrize("run_variant", VARIANTS, indirect=True)


@IN_ALL_VARIANTS
def test_fibers_that_run_cancels(run_variant: Run) -> None:
    run_variant("""
run(every_way_to_wait)
""")


def test_a_runner_that_is_never_closed(run_variant: Run) -> None:
    run_variant("""
runner = Runner()
runner.run(every_way_to_wait)
""")


@IN_ALL_VARIANTS
def test_a_runner_that_is_dropped(run_variant: Run) -> None:
    run_variant("""
runner = Runner()
runner.run(every_way_to_wait)
del runner
gc.collect()
assert run(lambda: sleep(0.001, 1)) == 1
""")


def test_a_loop_that_is_dropped(run_variant: Run) -> None:
    run_variant("""
async def main():
    every_way_to_wait_here = spawn(every_way_to_wait)
    await every_way_to_wait_here

loop = new_event_loop()
loop.run_until_complete(main())
del loop
gc.collect()
loop = new_event_loop()
loop.run_until_complete(main())
loop.close()
""")


def test_objects_of_a_program_that_has_ended(run_variant: Run) -> None:
    run_variant("""
kept = []

def main():
    every_way_to_wait()
    kept.extend(all_fibers())
    kept.append(timeout(5))
    group = TaskGroup()
    kept.append(group)
    kept.append(as_completed([int, int]))

run(main)
for fiber in kept:
    repr(fiber)
    if isinstance(fiber, Fiber):
        assert fiber.done()
        assert not fiber.cancel()
        assert not resume(fiber)
""")


def test_sys_exit_in_a_fiber(run_variant: Run) -> None:
    run_variant("""
def leave():
    sys.exit(5)

def main():
    every_way_to_wait()
    spawn(leave)
    sleep(3600)

run(main)
""", 5)


def test_an_exception_in_main(run_variant: Run) -> None:
    result = run_variant("""
def main():
    every_way_to_wait()
    raise KeyError("main")

run(main)
""", 1)
    assert result.stderr.rstrip().endswith("KeyError: 'main'")


def test_fibers_that_refuse_to_end(run_variant: Run) -> None:
    """A Ctrl-C at the end is what a user would do: here an alarm does."""
    run_variant("""
def enough(number, frame):
    raise KeyboardInterrupt

def main():
    spawn(stubborn)
    sleep(0.001)
    signal.signal(signal.SIGALRM, enough)
    signal.setitimer(signal.ITIMER_REAL, 0.2)

try:
    run(main)
except KeyboardInterrupt:
    print("interrupted")
""")


def test_os_exit_in_a_fiber(run_variant: Run) -> None:
    run_variant("""
def main():
    every_way_to_wait()
    spawn(os._exit, 6).join()

run(main)
""", 6)


def test_run_at_exit(run_variant: Run) -> None:
    result = run_variant("""
def at_exit():
    print(run(lambda: gather(lambda: sleep(0.001, "ran at exit"))[0]))

atexit.register(at_exit)
run(every_way_to_wait)
""")
    assert result.stdout == "ran at exit\n"


def test_a_live_runner_used_at_exit(run_variant: Run) -> None:
    result = run_variant("""
runner = Runner()
runner.run(every_way_to_wait)

def at_exit():
    print(runner.run(lambda: sleep(0.001, "ran at exit")))
    runner.close()

atexit.register(at_exit)
""")
    assert result.stdout == "ran at exit\n"


def test_a_daemon_thread_that_runs_fibers(run_variant: Run) -> None:
    run_variant("""
ready = threading.Event()

def busy():
    while True:
        gather(*[lambda: sleep(0)] * 10)
        ready.set()

def idle():
    every_way_to_wait()
    ready.set()
    sleep(3600)

for main in (busy, busy, busy, idle):
    ready.clear()
    threading.Thread(target=run, args=(main,), daemon=True).start()
    assert ready.wait(20)
""")


@IN_ALL_VARIANTS
def test_a_thread_that_leaves_a_loop_behind(run_variant: Run) -> None:
    """The thread of a loop with live fibers ends: its greenlets can never run again."""
    run_variant("""
kept = []

def body():
    runner = Runner()
    runner.run(every_way_to_wait)
    kept.append(runner)

def body_that_drops():
    runner = Runner()
    runner.run(every_way_to_wait)

for target in (body, body_that_drops):
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    gc.collect()
kept.clear()
gc.collect()
assert run(lambda: sleep(0.001, 1)) == 1
""")


def test_exceptions_and_tracebacks_that_outlive_the_loop(run_variant: Run) -> None:
    run_variant("""
kept = []

def failing():
    here = [object()]
    raise KeyError(here)

def main():
    every_way_to_wait()
    fiber = spawn(failing)
    try:
        fiber.join()
    except KeyError as error:
        kept.append(error)
    kept.append(sys._getframe())

run(main)
gc.collect()
kept.clear()
gc.collect()
""")


def test_in_a_module_that_is_torn_down(run_variant: Run) -> None:
    """Objects with finalizers that use fibers, in a cycle that only the end of the interpreter breaks."""
    run_variant("""
class Late:
    def __init__(self):
        self.me = self

    def __del__(self):
        try:
            run(lambda: sleep(0))
        except BaseException:
            pass

keep = [Late() for _ in range(3)]
sys.late = Late()
run(every_way_to_wait)
""")


def test_finalizers_that_block_in_a_fiber(run_variant: Run) -> None:
    """Those that reference counting calls wait; those that the collector calls are told that they cannot."""
    result = run_variant("""
reports = []

def report(unraisable):
    error = unraisable.exc_value
    reports.append((type(error), "called by the garbage collector cannot wait" in str(error)))

class Blocking:
    def __del__(self):
        sleep(0)
        ended.append(self)

class Spawning:
    def __del__(self):
        spawn(int)

def main():
    for _ in range(100):
        for kind in (Blocking, Spawning):
            kind()
            thing = kind()
            thing.me = thing
            del thing
        sleep(0)
    gc.collect()
    every_way_to_wait()

ended = []
sys.unraisablehook = report
run(main)
print(len(ended), len(reports), set(reports) == {(RuntimeError, True)})
sys.unraisablehook = sys.__unraisablehook__
""")
    assert result.stdout == "100 100 True\n"


def test_subinterpreters_are_refused_or_work(run_variant: Run) -> None:
    run_variant("""
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters
other = interpreters.create()
try:
    interpreters.run_string(other, "import swapco")
except Exception as error:
    print(error)
interpreters.destroy(other)
run(every_way_to_wait)
""")
