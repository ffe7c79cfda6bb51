"""Ctrl-C, as a terminal sends it: a real SIGINT to a program of its own.

The rule is asyncio.Runner's: the first one cancels the main fiber, which may clean up, and ``run`` raises
KeyboardInterrupt; a second one is raised at once, wherever the program is.
"""

from __future__ import annotations

import signal
import subprocess

import pytest
from helpers import finish_program, start_program
from interrupts import PRELUDE, Program, assert_killed_by_keyboard_interrupt, interrupted

BLOCKED: dict[str, str] = {
    "in sleep": "sleep(3600)",
    "in block": "block(3600)",
    # with a fiber that sleeps there is no deadlock
    "in block for ever": "spawn(sleep, 3600); block()",
    "in join": "spawn(sleep, 3600).join()",
    "in a lock": "lock = Lock(); lock.acquire(); spawn(sleep, 3600); lock.acquire()",
    "in gather": "gather(lambda: sleep(3600), lambda: sleep(3600))",
    "in a task group": """
    with TaskGroup() as group:
        group.spawn(sleep, 3600)
""",
    "in await_": "await_(asyncio.sleep(3600))",
    "in a future": "await_(asyncio.get_running_loop().create_future())",
    "in a time limit": """
    with timeout(3600):
        sleep(7200)
""",
    "while every other fiber is blocked, too": """
    for _ in range(1000):
        spawn(sleep, 3600)
    sleep(7200)
""",
}


@pytest.mark.parametrize("wait", BLOCKED.values(), ids=BLOCKED.keys())
def test_while_blocked(wait: str) -> None:
    result = interrupted(f"""
def main():
    asyncio.get_running_loop().call_later(0.05, say, "ready")
    {wait}

run(main)
""")
    assert_killed_by_keyboard_interrupt(result)
    assert "swapco" not in result.stderr.splitlines()[-1]


COMPUTING: dict[str, str] = {
    "main computes and yields": """
def main():
    say("ready")
    while True:
        sleep(0)
""",
    "another fiber computes and yields": """
def spin():
    while True:
        sleep(0)

def main():
    spawn(spin)
    spawn(say, "ready")
    block()
""",
    "two fibers hand the slot to each other": """
def partner():
    while not me.done():
        switch_to(me)

def main():
    global me
    me = current_fiber()
    other = spawn(partner)
    sleep(0)
    say("ready")
    while True:
        switch_to(other)
""",
}


@pytest.mark.parametrize("program", COMPUTING.values(), ids=COMPUTING.keys())
def test_while_fibers_compute(program: str) -> None:
    assert_killed_by_keyboard_interrupt(interrupted(program + "\nrun(main)\n"))


def test_while_another_fiber_computes_without_yielding() -> None:
    """The first one waits until that fiber yields; the second is raised at once, in whatever runs."""
    result = interrupted(
        """
def compute(give_up):
    # a function of its own: CPython 3.13 raises at a loop's jump back outside the try that the loop is in
    while time.monotonic() < give_up:
        pass

def spin():
    say("first")
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        if main_fiber.cancelling():
            break
    try:
        say("second")
        compute(give_up)
    except KeyboardInterrupt:
        say("in the fiber")
        raise

def main():
    global main_fiber
    main_fiber = current_fiber()
    spawn(spin)
    try:
        block()
    except asyncio.CancelledError:
        say("cancelled")
        raise

run(main)
""",
        "first",
        "second",
    )
    assert_killed_by_keyboard_interrupt(result)
    assert result.stdout.split("\n")[:1] == ["in the fiber"]


def test_main_cleans_up() -> None:
    result = interrupted("""
def main():
    try:
        say("ready")
        sleep(3600)
    except asyncio.CancelledError:
        sleep(0.01)
        await_(asyncio.sleep(0.01))
        spawn(say, "cleaned up").join()
        raise

try:
    run(main)
except KeyboardInterrupt:
    say("KeyboardInterrupt")
say("end")
""")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:3] == ["cleaned up", "KeyboardInterrupt", "end"]


def test_main_swallows_it() -> None:
    result = interrupted("""
def main():
    try:
        say("ready")
        sleep(3600)
    except asyncio.CancelledError:
        return "swallowed"

say(run(main))
""")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "swallowed\n"


def test_the_other_fibers_are_cancelled_at_the_end() -> None:
    result = interrupted("""
def other(name):
    try:
        sleep(3600)
    finally:
        sleep(0.001)
        say(name)

def main():
    for name in "abc":
        spawn(other, name)
    sleep(0)
    say("ready")
    sleep(3600)

run(main)
""")
    assert_killed_by_keyboard_interrupt(result)
    assert sorted(result.stdout.split()) == ["a", "b", "c"]


def test_a_second_one_while_main_cleans_up() -> None:
    result = interrupted(
        """
def main():
    try:
        say("first")
        sleep(3600)
    finally:
        asyncio.get_running_loop().call_later(0.05, say, "second")
        sleep(3600)

run(main)
""",
        "first",
        "second",
    )
    assert_killed_by_keyboard_interrupt(result)


def test_a_second_one_while_the_rest_is_cancelled() -> None:
    """A fiber that refuses to end cannot keep the program."""
    result = interrupted(
        """
def stubborn():
    while True:
        try:
            sleep(3600)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(0.05, say, "second")

def main():
    spawn(stubborn)
    sleep(0)
    say("first")
    sleep(3600)

run(main)
""",
        "first",
        "second",
    )
    assert result.returncode == -signal.SIGINT, result.stderr
    assert "KeyboardInterrupt" in result.stderr


def test_in_the_middle_of_a_storm_of_spawns() -> None:
    assert_killed_by_keyboard_interrupt(
        interrupted("""
def main():
    say("ready")
    while True:
        gather(*[lambda: sleep(0)] * 100)

run(main)
""")
    )


def test_many_in_a_row() -> None:
    """However often it is pressed: the program ends, and does not crash."""
    program = Program("""
def other():
    while True:
        try:
            sleep(0.001)
        except asyncio.CancelledError:
            pass

def main():
    for _ in range(10):
        spawn(other)
    say("ready")
    sleep(3600)

run(main)
""")
    program.wait_for("ready")
    for _ in range(1000):
        if program.child.poll() is not None:
            break
        program.interrupt()
        try:
            program.child.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
    result = program.end()
    assert result.returncode in (-signal.SIGINT, 1), result
    assert "KeyboardInterrupt" in result.stderr


def test_the_users_own_handler_is_left_alone() -> None:
    result = interrupted("""
def handler(number, frame):
    say("handled")
    resume(main_fiber, "resumed")

def main():
    global main_fiber
    main_fiber = current_fiber()
    signal.signal(signal.SIGINT, handler)
    say("ready")
    return block()

say(run(main))
""")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["handled", "resumed"]


def test_a_handler_of_the_loop() -> None:
    result = interrupted("""
def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, resume, current_fiber(), "resumed")
    say("ready")
    return block()

say(run(main))
""")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["resumed"]


def test_run_in_another_thread_leaves_signals_alone() -> None:
    result = interrupted("""
def main():
    say("ready")
    sleep(0.2)
    say("not interrupted")

thread = threading.Thread(target=run, args=(main,))
try:
    thread.start()
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    thread.join()
say("KeyboardInterrupt in the main thread")
""")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["not interrupted", "KeyboardInterrupt in the main thread"]


def test_between_two_runs_of_a_runner() -> None:
    result = interrupted("""
with Runner() as runner:
    runner.run(sleep, 0.001)
    try:
        say("ready")
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        say("caught")
    runner.run(say, "goes on")
""")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:2] == ["caught", "goes on"]


def test_runs_after_an_interrupted_one() -> None:
    program = Program("""
def main(word):
    say(word)
    sleep(3600)

with Runner() as runner:
    for word in ("first", "second"):
        try:
            runner.run(main, word)
        except KeyboardInterrupt:
            say("caught")
    say(runner.run(lambda: sleep(0.01, "third")))
""")
    program.wait_for("first")
    program.interrupt()
    program.wait_for("caught")
    program.wait_for("second")
    program.interrupt()
    program.wait_for("caught")
    result = program.end()
    assert result.returncode == 0, result.stderr
    assert result.stdout == "third\n"


# -------------------------------------------------------------------------------- exits raised by fibers


EXITS: list[tuple[str, str, int]] = [
    ("main", "sys.exit(7)", 7),
    ("main", "raise KeyboardInterrupt", -signal.SIGINT),
    ("fiber", "sys.exit()", 0),
    ("fiber", "sys.exit('a message')", 1),
    ("fiber", "raise KeyboardInterrupt", -signal.SIGINT),
    ("coroutine", "sys.exit(7)", 7),
    ("member of a group", "sys.exit(7)", 7),
    ("member of a group", "raise KeyboardInterrupt", -signal.SIGINT),
    ("callback", "sys.exit(7)", 7),
]


@pytest.mark.parametrize(("where", "statement", "code"), EXITS, ids=[f"{a}: {b}" for a, b, _ in EXITS])
def test_an_exit_leaves_run(where: str, statement: str, code: int) -> None:
    body = {
        "main": "leave()",
        "fiber": "spawn(leave); sleep(3600)",
        "coroutine": "await_(leave_later())",
        "member of a group": """
    with TaskGroup() as group:
        group.spawn(sleep, 3600)
        group.spawn(leave)
""",
        "callback": "asyncio.get_running_loop().call_soon(leave); sleep(3600)",
    }[where]
    child = start_program(
        PRELUDE
        + f"""
def leave():
    {statement}

async def leave_later():
    await asyncio.sleep(0)
    leave()

def other():
    try:
        sleep(3600)
    finally:
        sleep(0.001)
        say("cleaned up")

def main():
    spawn(other)
    sleep(0)
    {body}

run(main)
"""
    )
    result = finish_program(child)
    assert result.returncode == code, result.stderr
    assert result.stdout == "cleaned up\n", result.stderr
    assert "never retrieved" not in result.stderr
