"""Deadlock: raised when it is certain, and never when anything could still wake a fiber.

Each program runs in a Python of its own: the threads of a test process alone would be reason enough to raise
nothing.
"""

from __future__ import annotations

import subprocess

import pytest
from helpers import run_program

PRELUDE = """
import asyncio, functools, signal, socket, sys, threading, time
import swapco
from swapco import *

def forever():
    block()

def last_words(error):
    print("DEADLOCK")
    print(error)

def expect_deadlock(main):
    try:
        run(main)
    except Deadlock as error:
        last_words(error)
    else:
        print("no deadlock")

def expect_end(main):
    # the program decides itself when it ends; a watchdog ends it if it hangs
    print("result:", run(main))
"""


def outcome(program: str) -> subprocess.CompletedProcess[str]:
    result = run_program(PRELUDE + program)
    assert result.returncode == 0, result.stderr
    return result


def report(program: str) -> str:
    """The message of the Deadlock that a program ends with."""
    out = outcome(program).stdout
    assert out.startswith("DEADLOCK\n"), out
    return out.partition("\n")[2]


def test_main_blocked_alone() -> None:
    text = report("expect_deadlock(block)")
    assert "every fiber is blocked, and nothing can ever wake one" in text
    assert "'main' waits for block(), until it is resumed" in text


def test_two_locks_in_two_orders() -> None:
    text = report("""
a, b = Lock(), Lock()

def take(first, second):
    with first:
        sleep(0)
        with second:
            pass

def main():
    one = spawn(take, a, b, name="one")
    two = spawn(take, b, a, name="two")
    one.join()

expect_deadlock(main)
""")
    assert "'main' waits for the end of fiber 'one'" in text
    lines = text.splitlines()
    (one,) = [line for line in lines if line.lstrip().startswith("'one' waits")]
    (two,) = [line for line in lines if line.lstrip().startswith("'two' waits")]
    assert "owned by 'two'" in one
    assert "owned by 'one'" in two
    assert "in take" in one


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        ("Event().wait()", "Event"),
        ("Semaphore(0).acquire()", "Semaphore"),
        ("Queue().get()", "an item from"),
        ("spawn(forever).join()", "the end of"),
        ("gather(forever, forever)", "the fibers of gather(): 2 of 2 not done"),
        ("wait([spawn(forever)])", "the fibers of wait()"),
        ("next(as_completed([forever]))", "the fibers of as_completed()"),
        ("shield(forever)", "the end of"),
        ("wait_for(forever, None)", "until it is resumed"),
        ("wait_for(spawn(forever), None)", "the end of"),
        ("switch_to(spawn(forever))", "switch_to(), until it is resumed"),
    ],
)
def test_every_way_to_wait(wait: str, words: str) -> None:
    assert words in report(f"expect_deadlock(lambda: {wait})")


def test_in_a_task_group() -> None:
    """The members are cancelled, and the Deadlock comes out as it is."""
    text = report("""
ended = []

def member():
    try:
        block()
    finally:
        ended.append(1)

def main():
    try:
        with TaskGroup() as group:
            group.spawn(member)
            group.spawn(member)
    finally:
        assert ended == [1, 1], ended

expect_deadlock(main)
""")
    assert "'main' waits for the fibers of <TaskGroup fibers=2 entered>" in text


def test_in_a_task_group_whose_members_refuse_to_end() -> None:
    report("""
def member():
    for _ in range(3):
        try:
            block()
        except asyncio.CancelledError:
            pass

def main():
    with TaskGroup() as group:
        group.spawn(member)

expect_deadlock(main)
""")


def test_the_others_are_cancelled_and_may_clean_up() -> None:
    out = outcome("""
def other(name):
    try:
        block()
    except asyncio.CancelledError as error:
        sleep(0.001)
        print(name, "cancelled:", error)
        raise

def main():
    others = [spawn(other, name) for name in "ab"]
    try:
        block()
    except Deadlock:
        print("main goes on")
        wait(others)
    return "result"

expect_end(main)
""").stdout
    assert sorted(out.splitlines()) == [
        "a cancelled: deadlock",
        "b cancelled: deadlock",
        "main goes on",
        "result: result",
    ]


def test_after_a_long_time_of_work() -> None:
    report("""
def main():
    for _ in range(100):
        gather(*[functools.partial(sleep, 0.0001 * n) for n in range(10)])
    await_(asyncio.sleep(0.01))
    left, right = socket.socketpair()
    left.close(), right.close()
    block()

expect_deadlock(main)
""")


def test_a_second_deadlock_of_the_same_program() -> None:
    out = outcome("""
def main():
    for n in range(3):
        try:
            block()
        except Deadlock:
            print(n)

expect_end(main)
""").stdout
    assert out.split() == ["0", "1", "2", "result:", "None"]


def test_the_next_run_is_not_affected() -> None:
    report("""
assert run(lambda: sleep(0.001, 1)) == 1
try:
    run(block)
except Deadlock:
    pass
assert run(lambda: sleep(0.001, 1)) == 1
with Runner() as runner:
    for _ in range(2):
        try:
            runner.run(block)
        except Deadlock:
            pass
        assert runner.run(lambda: sleep(0.001, 1)) == 1
expect_deadlock(block)
""")


def test_in_a_loop_of_another_thread() -> None:
    """The main thread only waits, but it is a thread: it could resume somebody, so nothing is raised."""
    out = outcome("""
fibers = []
begun = threading.Event()

def main():
    fibers.append(current_fiber())
    begun.set()
    return block()

thread = threading.Thread(target=lambda: print(run(main)))
thread.start()
begun.wait()
time.sleep(0.2)
assert thread.is_alive()
resume(fibers[0], "resumed")
thread.join()
""").stdout
    assert out.split() == ["resumed"]


# -------------------------------------------------------------- something could wake a fiber: nothing is raised

# Each program blocks its main fiber in a way that the detector could take for a deadlock, for long enough to look.
HARMLESS = {
    "a sleeping fiber": """
def main():
    me = current_fiber()
    spawn(lambda: (sleep(0.1), resume(me, 1)))
    return block()
""",
    "a timeout of main": """
def main():
    try:
        block(0.1)
    except TimeoutError:
        return 1
""",
    "a time limit": """
def main():
    try:
        with timeout(0.1):
            block()
    except TimeoutError:
        return 1
""",
    "a timer of the loop": """
def main():
    asyncio.get_running_loop().call_later(0.1, resume, current_fiber(), 1)
    return block()
""",
    "a thread": """
def main():
    me = current_fiber()
    thread = threading.Thread(target=lambda: (time.sleep(0.1), resume(me, 1)))
    thread.start()
    try:
        return block()
    finally:
        thread.join()
""",
    "a daemon thread": """
def main():
    me = current_fiber()
    threading.Thread(target=lambda: (time.sleep(0.1), resume(me, 1), time.sleep(60)), daemon=True).start()
    return block()
""",
    "an executor's thread": """
def main():
    me = current_fiber()
    asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.1), resume(me, 1)))
    return block()
""",
    "a task that sleeps": """
def main():
    me = current_fiber()
    async def body():
        await asyncio.sleep(0.1)
        resume(me, 1)
    task = asyncio.Task(body(), loop=asyncio.get_running_loop())
    return block()
""",
    "a task that waits for a future": """
def main():
    me = current_fiber()
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    async def body():
        await future
        resume(me, 1)
    task = asyncio.Task(body(), loop=loop)
    # nobody will set it but a signal handler that is not there: only the task itself is a reason to wait
    signal.signal(signal.SIGALRM, lambda *ignored: loop.call_soon_threadsafe(future.set_result, None))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    return block()
""",
    "an awaited future": """
def main():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    spawn(await_, future)
    threading.Timer(0.1, loop.call_soon_threadsafe, (future.set_result, 1)).start()
    me = current_fiber()
    future.add_done_callback(lambda f: resume(me, 1))
    return block()
""",
    "a signal handler of Python": """
def main():
    me = current_fiber()
    signal.signal(signal.SIGALRM, lambda *ignored: resume(me, 1))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    return block()
""",
    "a signal handler of the loop": """
def main():
    me = current_fiber()
    asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, resume, me, 1)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    return block()
""",
    "a reader of the loop": """
def main():
    me = current_fiber()
    left, right = socket.socketpair()
    with left, right:
        asyncio.get_running_loop().add_reader(left, resume, me, 1)
        # after the fork nothing but the socket connects parent and child
        import os
        if os.fork() == 0:
            time.sleep(0.1)
            right.send(b"x")
            os._exit(0)
        value = block()
        asyncio.get_running_loop().remove_reader(left)
        return value
""",
    "a fiber that waits for a socket": """
from swapco.lowlevel import wait_readable
def main():
    import os
    me = current_fiber()
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        def reader():
            wait_readable(left.fileno())
            resume(me, 1)
        spawn(reader)
        if os.fork() == 0:
            time.sleep(0.1)
            right.send(b"x")
            os._exit(0)
        return block()
""",
    "a server": """
def main():
    import os
    me = current_fiber()
    async def connected(reader, writer):
        writer.close()
        resume(me, 1)
    server = await_(asyncio.start_server(connected, "127.0.0.1", 0))
    address = server.sockets[0].getsockname()
    if os.fork() == 0:
        time.sleep(0.1)
        socket.create_connection(address).close()
        os._exit(0)
    value = block()
    server.close()
    return value
""",
    "a subprocess": """
def main():
    me = current_fiber()
    async def body():
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(0.1)")
        await process.wait()
        resume(me, 1)
    task = asyncio.Task(body(), loop=asyncio.get_running_loop())
    return block()
""",
    "a name that is looked up": """
def main():
    me = current_fiber()
    async def body():
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        await asyncio.sleep(0.1)
        resume(me, 1)
    task = asyncio.Task(body(), loop=asyncio.get_running_loop())
    return block()
""",
    "a fiber that others wait for runs": """
def main():
    me = current_fiber()
    def busy():
        give_up = time.monotonic() + 0.1
        while time.monotonic() < give_up:
            sleep(0)
        resume(me, 1)
    spawn(busy)
    return block()
""",
    "a callback that waits": """
def main():
    me = current_fiber()
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, loop.call_soon, loop.call_soon, resume, me, 1)
    return block()
""",
}


@pytest.mark.parametrize("program", HARMLESS.values(), ids=HARMLESS.keys())
def test_something_could_still_wake_a_fiber(program: str) -> None:
    result = run_program(PRELUDE + program + "\nexpect_end(main)\n", "-W", "ignore")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["result:", "1"], result.stderr


def test_a_plain_asyncio_program_is_never_judged() -> None:
    out = outcome("""
async def body():
    fiber = spawn(block)
    asyncio.get_running_loop().call_later(0.1, resume, fiber, "resumed")
    return await fiber

async def stuck():
    try:
        async with asyncio.timeout(0.1):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return "timed out"

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    print(runner.run(body()), runner.run(stuck()))
""").stdout
    assert out == "resumed timed out\n"
