"""The interpreter ends while kernel threads of swapco are anywhere: no hang, no crash, and the right exit status.

Workers are daemon threads: one that blocks in the kernel is left alone, with a warning, and ends with the process.
"""

from __future__ import annotations

import pytest
from thread_programs import Run, run_program_in_variant

__all__ = ["run_program_in_variant"]

#: Where a worker is when the program ends; each for much longer than a test may take.
BUSY = {
    "in time.sleep": "time.sleep, 3600",
    "in a loop in Python": "python_loop",
    "in C without the GIL": "c_without_the_gil",
    "in a read": "blocked_reader",
    "in a lock of threading": "threading.Event().wait",
}
EVERYWHERE = pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY.keys())

WARNING = "RuntimeWarning: 1 thread fibers block, and are left alone by the event loop that is closed"


@EVERYWHERE
def test_run_ends_while_a_worker_is_busy(run_program_in_variant: Run, busy: str) -> None:
    result = run_program_in_variant(f"""
run(lambda: detached({busy}), shutdown_timeout=0.05)
say("after run")
""")
    assert WARNING in result.stderr
    assert result.stdout == "after run\n"


@EVERYWHERE
def test_an_exception_in_main(run_program_in_variant: Run, busy: str) -> None:
    result = run_program_in_variant(
        f"""
def main():
    detached({busy})
    raise KeyError("main")

run(main, shutdown_timeout=0.05)
""",
        1,
    )
    assert WARNING in result.stderr
    assert result.stderr.rstrip().endswith("KeyError: 'main'")


@EVERYWHERE
def test_sys_exit_during_to_thread(run_program_in_variant: Run, busy: str) -> None:
    result = run_program_in_variant(
        f"""
def leaves():
    until(lambda: numbers()["detached"] == 1)
    sys.exit(7)

def main():
    spawn(leaves)
    to_thread({busy})

run(main, shutdown_timeout=0.05)
""",
        7,
    )
    assert WARNING in result.stderr


@EVERYWHERE
def test_a_loop_that_is_never_closed(run_program_in_variant: Run, busy: str) -> None:
    run_program_in_variant(
        f"""
runner = Runner()
runner.run(lambda: detached({busy}))
sys.exit(5)
""",
        5,
    )


@EVERYWHERE
def test_a_runner_that_is_dropped(run_program_in_variant: Run, busy: str) -> None:
    run_program_in_variant(f"""
runner = Runner()
runner.run(lambda: detached({busy}))
del runner
gc.collect()
assert run(lambda: to_thread(pow, 2, 3)) == 8
""")


def test_without_a_busy_worker_nobody_is_warned_of(run_program_in_variant: Run) -> None:
    result = run_program_in_variant("""
def stubborn():
    # in the kernel until the end of run asks for its end
    while not current_fiber().cancelling():
        time.sleep(0.001)
    try:
        sleep(3600)
    except asyncio.CancelledError:
        say("cancelled")
        raise

run(lambda: detached(stubborn))
run(mixed_work)
say([thread.name for thread in threading.enumerate()])
""")
    assert "Warning" not in result.stderr
    assert result.stdout == "cancelled\n['MainThread']\n"


def test_an_unclosed_loop_with_workers_in_every_state(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
def main():
    lock = Lock()
    lock.acquire()
    for function in (block, lock.acquire, Queue().get, lambda: sleep(3600), lambda: to_thread(time.sleep, 3600),
                     lambda: await_(asyncio.sleep(3600)), lambda: swapco.from_thread.run(sleep, 3600), python_loop):
        spawn(function, thread=True)
    for _ in range(5):
        spawn(lambda: to_thread(time.sleep, 0.001))
    sleep(0.02)
    until(lambda: not any(fiber.state == "NEW" for fiber in all_fibers()))

async def in_a_coroutine():
    await spawn(main)

loop = new_event_loop()
loop.run_until_complete(in_a_coroutine())
""")


def test_other_daemon_threads_that_use_swapco(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
ready = threading.Barrier(4)

def loops():
    def main():
        ready.wait()
        while True:
            to_thread(int)
            spawn(time.sleep, 0.001, thread=True).join()
    run(main)

for _ in range(3):
    threading.Thread(target=loops, daemon=True).start()
ready.wait()
run(mixed_work)
""")


def test_the_main_thread_ends_while_another_runs_the_loop(run_program_in_variant: Run) -> None:
    """A thread that is no daemon is waited for, and so are its fibers; CPython 3.12 starts no kernel threads then."""
    result = run_program_in_variant("""
ready = threading.Event()

def main():
    to_thread(int)
    ready.set()
    until(lambda: not threading.main_thread().is_alive())
    for _ in range(10):
        assert to_thread(pow, 2, 3) == 8
    assert gather(*[lambda: sleep(0.001, 5)] * 3) == [5] * 3
    say("ended")

threading.Thread(target=run, args=(main,)).start()
ready.wait()
""")
    assert result.stdout == "ended\n"


def test_workers_wake_up_while_the_interpreter_ends(run_program_in_variant: Run) -> None:
    """From before its end to after it: 100 workers, each comes back at another moment."""
    run_program_in_variant("""
begun = []

def naps(delay):
    begun.append(delay)
    time.sleep(delay)
    sleep(0)

def main():
    for n in range(100):
        spawn(naps, 0.2 + n * 0.003, thread=True)
    until(lambda: len(begun) == 100)

runner = Runner()
runner.run(main)
""")


def test_a_thread_that_comes_back_after_its_loop_was_closed_is_told(run_program_in_variant: Run) -> None:
    result = run_program_in_variant("""
told = []
go = threading.Event()

def late():
    go.wait()
    for call in (lambda: sleep(0), block, lambda: to_thread(int), lambda: spawn(int)):
        try:
            call()
        except RuntimeError as error:
            told.append(type(error).__name__)
    ended.set()

ended = threading.Event()
run(lambda: detached(late), shutdown_timeout=0.05)
go.set()
assert ended.wait(20)
assert len(told) == 4, told
run(mixed_work)
""")
    assert WARNING in result.stderr


@pytest.mark.parametrize("exit_call", ["os._exit(6)", "sys.exit(6)", "raise SystemExit(6)"])
@pytest.mark.parametrize("where", ["attached", "detached", "in a call"])
def test_the_program_exits_in_a_worker(run_program_in_variant: Run, where: str, exit_call: str) -> None:
    work = {
        "attached": "spawn(leaves, thread=True)",
        "detached": "detached(lambda: (time.sleep(0.05), leaves()))",
        "in a call": "to_thread(leaves)",
    }[where]
    result = run_program_in_variant(
        f"""
def leaves():
    {exit_call}

def other():
    try:
        sleep(3600)
    finally:
        say("cleaned up")

def main():
    spawn(other, thread=True)
    spawn(other)
    sleep(0.001)
    {work}
    sleep(3600)

run(main)
""",
        6,
    )
    assert result.stdout == ("" if "os" in exit_call else "cleaned up\n" * 2)


@pytest.mark.parametrize("function", ["exit", "interrupt_main"])
def test_what_is_left_of_the_old_thread_module(run_program_in_variant: Run, function: str) -> None:
    """``_thread.exit()`` is SystemExit, and leaves the program; ``_thread.interrupt_main()`` is a Ctrl-C."""
    run_program_in_variant(
        f"""
def main():
    spawn(_thread.{function}, thread=True)
    sleep(3600)

run(main)
""",
        0 if function == "exit" else -2,
    )


def test_a_keyboard_interrupt_that_a_thread_fiber_raises(run_program_in_variant: Run) -> None:
    run_program_in_variant(
        """
def leaves():
    time.sleep(0.02)
    raise KeyboardInterrupt

def main():
    spawn(leaves, thread=True)
    sleep(3600)

run(main)
""",
        -2,
    )


def test_functions_that_run_at_the_exit(run_program_in_variant: Run) -> None:
    """atexit: loops can be run still; from Python 3.12 on there are no new kernel threads any more."""
    result = run_program_in_variant("""
import atexit

def at_exit():
    assert run(lambda: spawn(sleep, 0.001, "slept").join()) == "slept"
    try:
        assert run(lambda: to_thread(pow, 2, 3)) == 8
    except RuntimeError as error:
        assert sys.version_info >= (3, 12), error
        assert "interpreter shutdown" in str(error), error
    say("at exit")

atexit.register(at_exit)
run(lambda: detached(time.sleep, 3600), shutdown_timeout=0.05)
""")
    assert result.stdout == "at exit\n"
