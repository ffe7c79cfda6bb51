"""Signals while the slot is lent to a thread fiber: their handlers run as soon as ever.

Python runs signal handlers in the main thread alone, and that one sleeps while a worker has the slot.  So a signal
takes the slot from the worker.  The slots of these programs revoke after a second (``tick=1.0``), where nothing else is
said: whatever happens before, a signal did it.

Ctrl-C is sent by the program to its own process, once the main thread sleeps: the kernel hands it to the main thread,
as one from a terminal.
"""

from __future__ import annotations

import pytest
from interrupts import assert_killed_by_keyboard_interrupt, interrupted
from thread_programs import Run, run_program_in_variant

__all__ = ["run_program_in_variant"]

SIGINT = -2

#: What the thread fiber does when the signal comes.
LENT = {
    "sleeps": "time.sleep(3600)",
    "computes": "python_loop()",
    "runs C without the GIL": "c_without_the_gil()",
    "reads": "blocked_reader()",
    "waits for a lock of threading": "threading.Event().wait()",
}


@pytest.mark.parametrize("lent", LENT.values(), ids=LENT.keys())
def test_the_first_ctrl_c_cancels_main(run_program_in_variant: Run, lent: str) -> None:
    result = run_program_in_variant(
        f"""
def work():
    kill(signal.SIGINT)
    {lent}

def main():
    spawn(work, thread=True)
    try:
        sleep(3600)
    except asyncio.CancelledError:
        assert numbers()["revoked_by_signal"] == 1, numbers()
        sleep(0.001)
        say("cleaned up")
        raise

run(main, slot=lent(), shutdown_timeout=0.05)
""",
        SIGINT,
    )
    assert_killed_by_keyboard_interrupt(result)
    assert result.stdout == "cleaned up\n"
    assert "RuntimeWarning: 1 thread fibers block" in result.stderr


@pytest.mark.parametrize("lent", LENT.values(), ids=LENT.keys())
def test_the_first_ctrl_c_cancels_main_in_to_thread(run_program_in_variant: Run, lent: str) -> None:
    result = run_program_in_variant(
        f"""
def work():
    kill(signal.SIGINT)
    {lent}

def main():
    try:
        to_thread(work)
    except asyncio.CancelledError:
        assert numbers()["revoked_by_signal"] == 1, numbers()
        say("cancelled")
        raise

run(main, slot=lent(), shutdown_timeout=0.05)
""",
        SIGINT,
    )
    assert_killed_by_keyboard_interrupt(result)
    assert result.stdout == "cancelled\n"


def test_ctrl_c_from_outside_and_the_default_slot() -> None:
    result = interrupted("""
def work():
    say("ready")
    time.sleep(3600)

run(lambda: to_thread(work), shutdown_timeout=0.05)
""")
    assert_killed_by_keyboard_interrupt(result)


def test_ctrl_c_while_thread_fibers_only_call_swapco(run_program_in_variant: Run) -> None:
    """They hand the slot to each other, and are hardly ever in user code."""
    result = run_program_in_variant(
        """
def ping():
    while not pong.done():
        switch_to(pong)

def play():
    while not main_fiber.cancelling():
        switch_to(partner)

def main():
    global partner, pong, main_fiber
    main_fiber = current_fiber()
    partner = spawn(ping, thread=True)
    pong = spawn(play, thread=True)
    until(lambda: numbers()["handoffs"] > 100)
    os.kill(os.getpid(), signal.SIGINT)
    sleep(3600)

run(main, slot=lent())
""",
        SIGINT,
    )
    assert_killed_by_keyboard_interrupt(result)


def test_ctrl_c_while_thread_fibers_wait(run_program_in_variant: Run) -> None:
    result = run_program_in_variant(
        """
lock = Lock()

def waits(function):
    try:
        function()
    finally:
        say("cancelled")

def main():
    lock.acquire()
    for function in (block, lock.acquire, lambda: sleep(3600), lambda: await_(asyncio.sleep(3600)),
                     lambda: swapco.from_thread.run(sleep, 3600), lambda: to_thread(block)):
        spawn(waits, function, thread=True)
    until(lambda: sum(fiber.state == "BLOCKED" for fiber in all_fibers()) >= 9)
    os.kill(os.getpid(), signal.SIGINT)
    sleep(3600)

run(main, slot=lent())
""",
        SIGINT,
    )
    assert_killed_by_keyboard_interrupt(result)
    assert result.stdout == "cancelled\n" * 6
    assert "RuntimeWarning" not in result.stderr


@pytest.mark.parametrize("lent", LENT.values(), ids=LENT.keys())
def test_the_second_ctrl_c_is_raised_at_once(run_program_in_variant: Run, lent: str) -> None:
    result = run_program_in_variant(
        f"""
def work():
    kill(signal.SIGINT)
    {lent}

def main():
    spawn(work, thread=True)
    try:
        sleep(3600)
    except asyncio.CancelledError:
        say("cleans up")
        spawn(work, thread=True)
        sleep(3600)

began = time.monotonic()
try:
    run(main, slot=lent(), shutdown_timeout=0.05)
except KeyboardInterrupt:
    say("raised")
""",
    )
    assert result.stdout == "cleans up\nraised\n"


HANDLERS = """
handled = threading.Event()

def waits():
    kill(signal.SIGUSR1)
    return handled.wait(30)

def computes():
    kill(signal.SIGUSR1)
    give_up = time.monotonic() + 30
    while not handled.is_set() and time.monotonic() < give_up:
        pass
    return handled.is_set()

def calls_swapco():
    os.kill(os.getpid(), signal.SIGUSR1)
    give_up = time.monotonic() + 30
    while not handled.is_set() and time.monotonic() < give_up:
        sleep(0)
    return handled.is_set()
"""


def test_a_handler_runs_while_the_slot_is_lent(run_program_in_variant: Run) -> None:
    run_program_in_variant(
        HANDLERS
        + """
def main():
    signal.signal(signal.SIGUSR1, lambda number, frame: handled.set())
    for n, work in enumerate((waits, computes)):
        assert spawn(work, thread=True).join()
        assert numbers()["revoked_by_signal"] == n + 1, numbers()
        handled.clear()
    assert spawn(calls_swapco, thread=True).join()

run(main, slot=lent())
"""
    )


def test_a_handler_of_the_loop_runs_while_the_slot_is_lent(run_program_in_variant: Run) -> None:
    """Its signals restart system calls: the detector takes the slot."""
    run_program_in_variant(
        HANDLERS
        + """
def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, handled.set)
    for work in (waits, computes, calls_swapco):
        assert spawn(work, thread=True).join()
        handled.clear()

run(main)
"""
    )


def test_what_a_handler_raises_while_the_slot_is_lent_leaves_run(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
class Alarm(Exception):
    pass

def handler(number, frame):
    raise Alarm

def work():
    kill(signal.SIGUSR1)
    for _ in range(3):
        time.sleep(0.05)
    return "done"

signal.signal(signal.SIGUSR1, handler)
with Runner(slot=lent(), shutdown_timeout=10) as runner:
    try:
        runner.run(lambda: to_thread(work))
    except Alarm:
        pass
    else:
        assert False, "it was lost"
    # the loop is as good as new
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert runner.run(lambda: to_thread(work)) == "done"
""")


#: A signal comes while a worker's thread is started, and its handler raises: before, in between, or when it runs.
STARTS = {
    "before": "send(); start(thread)",
    "in between": "start_begins(thread)",
    "when it runs": "start(thread); send()",
}


@pytest.mark.parametrize("moment", STARTS.values(), ids=STARTS.keys())
@pytest.mark.parametrize("others", [0, 3])
def test_what_a_handler_raises_while_a_thread_is_started_leaves_run(
    run_program_in_variant: Run, moment: str, others: int
) -> None:
    """It is nobody's outcome; whose thread it was gets another one."""
    run_program_in_variant(f"""
# as what Python raises when it cannot start a thread
class Alarm(RuntimeError):
    pass

def handler(number, frame):
    raise Alarm

def send():
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(10):
        pass

def start_begins(thread):
    # the kernel thread exists, and has not run yet
    wait = thread._started.wait
    def interrupted(timeout=None):
        thread._started.wait = wait
        send()
    thread._started.wait = interrupted
    start(thread)

def strikes(thread):
    if thread.name.startswith("swapco worker") and moments:
        moments.clear()
        {moment}
    else:
        start(thread)

signal.signal(signal.SIGUSR1, handler)
start = threading.Thread.start
threading.Thread.start = strikes
moments = []
ran = []

def works(n):
    ran.append(n)
    return sleep(0.001, n)

def main():
    event = Event()
    fibers.extend([spawn(event.wait, thread=True) for _ in range({others})])
    until(lambda: all(fiber.state == "BLOCKED" for fiber in fibers))
    moments.append("now")
    fibers.extend([spawn(works, n, thread=True) for n in range(3)])
    fibers.append(event)
    sleep(3600)

fibers = []
with Runner(slot=lent()) as runner:
    try:
        runner.run(main)
    except Alarm:
        pass
    else:
        assert False, "it was lost"
    assert not moments
    # the loop is as good as new, and nobody was harmed
    def again():
        event = fibers.pop()
        until(lambda: len(ran) == 3)
        event.set()
        assert [fiber.join(20) for fiber in fibers] == [True] * {others} + [0, 1, 2]
        assert numbers()["workers"] <= {others} + 3, numbers()
        assert mixed_work()
    runner.run(again)
give_up = time.monotonic() + 20
while len(os.listdir("/proc/self/task")) > 1:
    assert time.monotonic() < give_up, threading.enumerate()
    time.sleep(0.001)
""")


@pytest.mark.parametrize("error", ['RuntimeError("can\'t start new thread")', "MemoryError()"])
def test_a_thread_that_cannot_be_started_is_the_fibers_own_trouble(run_program_in_variant: Run, error: str) -> None:
    run_program_in_variant(f"""
def fails(*args, **kwargs):
    raise {error}

def main():
    before = spawn(block, thread=True)
    until(lambda: before.state == "BLOCKED")
    threading._start_new_thread = threading._start_joinable_thread = fails
    try:
        to_thread(int)
    except RuntimeError as error:
        for word in ("beside 1 of this event loop", "RLIMIT_NPROC", "pids.max", "max_workers"):
            assert word in str(error), error
        assert type(error.__cause__) is type({error})
    else:
        assert False, "it started"
    # there is one that can be used
    resume(before, "resumed")
    assert before.join() == "resumed"
    assert to_thread(int) == 0
    threading._start_new_thread, threading._start_joinable_thread = real
    assert mixed_work()

real = (threading._start_new_thread, getattr(threading, "_start_joinable_thread", None)) if hasattr(
    threading, "_start_new_thread") else (None, threading._start_joinable_thread)
run(main)
""")


@pytest.mark.parametrize(
    ("timer", "number"), [("ITIMER_PROF", "SIGPROF"), ("ITIMER_REAL", "SIGALRM")], ids=["profiling", "wall clock"]
)
def test_a_timer_signal_every_millisecond_disturbs_nobody(run_program_in_variant: Run, timer: str, number: str) -> None:
    run_program_in_variant(f"""
ticks = []
signal.signal(signal.{number}, lambda number, frame: ticks.append(frame))

def main():
    signal.setitimer(signal.{timer}, 0.001, 0.001)
    rounds = 0
    while rounds < 5 or len(ticks) < 50:
        assert mixed_work()
        ticks.append(None)
        rounds += 1
    signal.setitimer(signal.{timer}, 0)

run(main)
assert sum(tick is not None for tick in ticks) > 5
""")


def test_run_in_another_thread_leaves_signals_to_the_main_thread(run_program_in_variant: Run) -> None:
    """Home is not the main thread: a signal is none of its business, and takes the slot from nobody."""
    run_program_in_variant("""
handled = []
signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(threading.current_thread()))

def work():
    for _ in range(5):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
    return "done"

def main():
    assert to_thread(work) == "done"
    assert numbers()["revoked_by_signal"] == 0, numbers()

thread = threading.Thread(target=run, args=(main,), kwargs={"slot": lent()})
thread.start()
thread.join()
assert set(handled) == {threading.main_thread()}
""")


def test_the_prelude_alone_passes(run_program_in_variant: Run) -> None:
    """The work of these programs is right without any signal."""
    run_program_in_variant("""
assert run(mixed_work)
""")
