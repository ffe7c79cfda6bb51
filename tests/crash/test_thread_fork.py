"""fork with kernel threads in play: the child starts clean, and the parent does not notice.

Only the thread that forks lives on in the child: the workers stay with the parent, and so do the loop and the slot.
"""

from __future__ import annotations

import pytest
from thread_programs import Run, run_program_in_variant

__all__ = ["run_program_in_variant"]

PRELUDE = """
def in_child(function):
    # the exit code of a child that runs ``function``
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            signal.alarm(40)
            code = function() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def ends():
    return 3

def runs_anew():
    # fibers of all kinds, on a new loop
    def main():
        assert len(all_fibers()) == 1
        assert mixed_work()
        gate = threading.Event()
        blocked = detached(gate.wait)
        gate.set()
        assert blocked.join() is True
        assert numbers()["detaches"] >= 1
        return 3
    return run(main)

def is_told():
    # whoever asks the parent's loop gets an answer
    for call in (lambda: sleep(0), block, current_fiber, lambda: to_thread(int), lambda: old_queue.get(),
                 lambda: await_(asyncio.sleep(0)), lambda: blocking().__enter__()):
        try:
            call()
        except NotInFiber:
            continue
        return 10
    for call in (lambda: spawn(int), lambda: spawn(int, thread=True), asyncio.get_running_loop, all_fibers,
                 dump_fibers, lambda: swapco.from_thread.run(int)):
        try:
            call()
        except RuntimeError:
            continue
        return 11
    for fiber in old_fibers:
        repr(fiber), fiber.done(), fiber.state, fiber.name
        resume(fiber)
        fiber.cancel()
    return 3

def runs_anew_in_a_fork():
    return in_child(runs_anew)

def old_world():
    # fibers in every state, and an idle worker
    global old_fibers, old_queue, woken, computed
    old_queue = Queue()
    woken = threading.Event()
    computed = False
    def computes():
        while not computed:
            pass
    to_thread(int)
    old_fibers = [spawn(function, thread=thread) for thread in (False, True) for function in (block, old_queue.get)]
    old_fibers += [detached(woken.wait), detached(computes), spawn(sleep, 3600)]
    sleep(0.002)

def old_world_goes_on():
    global computed
    computed = True
    for fiber in old_fibers[0], old_fibers[2]:
        assert resume(fiber, "resumed")
    for fiber in old_fibers[1], old_fibers[3]:
        old_queue.put("put")
    woken.set()
    old_fibers[-1].cancel()
    wait(old_fibers)
    assert [fiber.result() for fiber in old_fibers[:5]] == ["resumed", "put", "resumed", "put", True]
    assert mixed_work()
"""

PLACES = {
    "an ordinary fiber": "codes.append(in_child(child))",
    "an attached thread fiber": "spawn(lambda: codes.append(in_child(child)), thread=True).join()",
    "a detached thread fiber": """
    def in_blocking():
        with blocking():
            until_detached.wait()
            codes.append(in_child(child))
    until_detached = threading.Event()
    fiber = detached(in_blocking)
    until_detached.set()
    fiber.join()
""",
    "a thread fiber that calls to_thread": """
    spawn(lambda: codes.append(to_thread(in_child, child)), thread=True).join()
""",
    "to_thread": "codes.append(to_thread(in_child, child))",
    "a foreign thread while the slot is lent": """
    def work():
        thread = threading.Thread(target=lambda: codes.append(in_child(child)))
        thread.start()
        thread.join()
    spawn(work, thread=True).join()
""",
    "a foreign thread while the slot is handed back and forth": """
    thread = threading.Thread(target=lambda: codes.append(in_child(child)))
    def play():
        while thread.is_alive():
            sleep(0)
    thread.start()
    gather(*[spawn(play, thread=True) for _ in range(3)])
""",
    "a callback of the loop": """
    asyncio.get_running_loop().call_soon(lambda: codes.append(in_child(child)))
    until(lambda: codes)
""",
    "a function of from_thread.run": """
    spawn(lambda: swapco.from_thread.run(lambda: codes.append(in_child(child))), thread=True).join()
""",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_the_children_start_clean(run_program_in_variant: Run, place: str) -> None:
    run_program_in_variant(
        PRELUDE
        + f"""
def fork_there(child):
    codes = []
    {place}
    assert codes == [3], (child, codes)

def main():
    old_world()
    for child in ends, runs_anew, is_told, runs_anew_in_a_fork:
        fork_there(child)
    old_world_goes_on()

run(main)
"""
    )


@pytest.mark.parametrize("how", ["thread=True", "thread=False"])
@pytest.mark.parametrize("end", ["return 1", "raise KeyError('in the child')", "sys.exit(1)", "_thread.exit()"])
def test_a_child_that_goes_on_as_the_fiber_ends(run_program_in_variant: Run, end: str, how: str) -> None:
    result = run_program_in_variant(
        PRELUDE
        + f"""
def forks():
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        sys.stderr = sys.stdout
        {end}
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def main():
    to_thread(int)
    code = spawn(forks, {how}).join()
    # whatever it ends with: there is no loop that it could leave
    assert code == 70, code
    assert mixed_work()
    say("parent")

run(main)
"""
    )
    told, parent = result.stdout.splitlines()
    assert told.startswith("swapco: a fiber returned in a forked child")
    assert parent == "parent"


def test_a_loop_from_before_the_fork_says_that_it_cannot_run(run_program_in_variant: Run) -> None:
    run_program_in_variant(
        PRELUDE
        + """
loop = swapco.new_event_loop()
unused = swapco.new_event_loop()
slot = Slot(max_workers=8)

async def calls():
    return await spawn(to_thread, sum, [1, 2])

def child():
    coroutine = calls()
    try:
        loop.run_until_complete(coroutine)
    except RuntimeError as error:
        assert "before the fork" in str(error), error
    else:
        return 1
    coroutine.close()
    loop.close()
    # what had no fibers yet is as good as new
    assert unused.run_until_complete(calls()) == 3
    unused.close()
    run(lambda: to_thread(int), slot=slot)
    return 0

assert loop.run_until_complete(calls()) == 3
assert in_child(child) == 0
assert loop.run_until_complete(calls()) == 3
loop.close()
assert unused.run_until_complete(calls()) == 3
unused.close()
"""
    )


@pytest.mark.parametrize("where", ["its own thread", "the thread of another"])
def test_a_finalizer_that_forks_and_returns_in_the_child(run_program_in_variant: Run, where: str) -> None:
    run_program_in_variant(
        PRELUDE
        + f"""
gate = threading.Event()
ended = []
codes = []

class Forks:
    def __del__(self):
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        else:
            # what the child says is expected here
            sys.stderr = open(os.devnull, "w")

def ends():
    gate.wait()
    ended.append(1)
    return Forks()

def records():
    gate.set()
    while not ended:
        pass
    while not codes:
        # looks into the inbox
        spawn(int)

def main():
    if "{where}" == "its own thread":
        spawn(Forks, thread=True)
    else:
        detached(ends)
        spawn(records, thread=True).join()
    until(lambda: codes)
    assert codes == [70], codes
    assert mixed_work()

run(main, slot=lent())
"""
    )


def test_a_child_that_leaves_blocking(run_program_in_variant: Run) -> None:
    """The end of the block is refused: no fiber runs in the child, and there is no slot to wait for."""
    run_program_in_variant(
        PRELUDE
        + """
def forks():
    try:
        with blocking():
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            signal.alarm(40)
    except RuntimeError as error:
        if pid == 0:
            os._exit(3 if "blocking() is left where it was not entered" in str(error) else 5)
        raise
    os._exit(4)

def main():
    code = spawn(forks, thread=True).join()
    assert code == 3, code
    assert mixed_work()

run(main)
"""
    )


def test_many_forks_while_threads_come_and_go(run_program_in_variant: Run) -> None:
    run_program_in_variant(
        PRELUDE
        + """
def main():
    over = False
    def works():
        while not over:
            assert mixed_work()
    worker = spawn(works)
    for n in range(10):
        assert (in_child, functools.partial(to_thread, in_child))[n % 2](ends) == 3
        sleep(0.002)
    assert to_thread(in_child, runs_anew) == 3
    over = True
    worker.join()

run(main)
"""
    )


def test_subprocesses_of_thread_fibers(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
import subprocess, multiprocessing

def child(n):
    done = subprocess.run([sys.executable, "-S", "-c", f"print({n})"], capture_output=True, text=True)
    return int(done.stdout)

def main():
    fibers = [spawn(child, n, thread=True) for n in range(4)]
    assert [fiber.join() for fiber in fibers] == list(range(4))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert to_thread(pool.map, abs, range(-3, 0)) == [3, 2, 1]

run(main)
""")
