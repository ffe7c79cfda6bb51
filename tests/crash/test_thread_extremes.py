"""Thread fibers at the edges of Python: what a kernel thread can do that nobody would expect of a fiber.

Its death, its recursion limit, its greenlets, its trace functions, other people's event loops on it, finalizers that
the garbage collector calls on it; and very many of them.
"""

from __future__ import annotations

import pytest
from thread_programs import Run, run_program_in_variant

__all__ = ["run_program_in_variant"]

# ------------------------------------------------------------------------------------ ends of threads


@pytest.mark.parametrize("start", ["spawn(dies, thread=True).join()", "to_thread(dies)", "detached(dies).join()"])
def test_a_kernel_thread_that_ends_fails_its_fiber_alone(run_program_in_variant: Run, start: str) -> None:
    run_program_in_variant(f"""
libc = ctypes.CDLL(None)

def dies():
    time.sleep(0.02)
    libc.pthread_exit(None)

def main():
    other = spawn(lambda: [sleep(0.001) for _ in range(100)], thread=True)
    for _ in range(3):
        try:
            {start}
        except RuntimeError as error:
            assert "ended before its function returned" in str(error), error
        else:
            assert False, "it came back"
    assert len(other.join()) == 100
    assert mixed_work()

run(main)
""")


def test_who_starves_gets_the_place_of_a_thread_that_ended(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
libc = ctypes.CDLL(None)
gate = threading.Event()

def dies():
    gate.wait()
    libc.pthread_exit(None)

def main():
    # the warning that all threads are in use is expected here
    import logging
    logging.getLogger("swapco").setLevel(logging.ERROR)
    fiber = detached(dies)
    starving = [spawn(int, thread=True) for _ in range(3)]
    sleep(0.001)
    assert {one.state for one in starving} == {"NEW"}
    gate.set()
    assert [one.join(20) for one in starving] == [0] * 3
    assert isinstance(fiber.exception(), RuntimeError)

run(main, slot=Slot(max_workers=1))
""")


def test_who_starves_gets_a_place_that_another_one_does_not_take(run_program_in_variant: Run) -> None:
    """It was cancelled between the end of the thread and the start of another one."""
    run_program_in_variant("""
libc = ctypes.CDLL(None)
gate = threading.Event()

def dies():
    gate.wait()
    libc.pthread_exit(None)

def main():
    # the warning that all threads are in use is expected here
    import logging
    logging.getLogger("swapco").setLevel(logging.ERROR)
    fiber = detached(dies)
    first, *starving = [spawn(int, thread=True) for _ in range(3)]
    sleep(0.001)
    assert {one.state for one in starving} == {"NEW"}
    gate.set()
    try:
        fiber.join(20)
    except RuntimeError:
        # the first has the place by now, and has not run
        first.cancel()
    assert [one.join(20) for one in starving] == [0] * 2
    assert first.cancelled()

run(main, slot=Slot(max_workers=1))
""")


def test_a_number_is_used_again_before_its_old_thread_has_seen_that_it_must_end(run_program_in_variant: Run) -> None:
    """The old thread is held in a signal handler until the new one has the slot under that number."""
    run_program_in_variant("""
libc = ctypes.CDLL(None)
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.signal(signal.SIGUSR2, ctypes.cast(libc.pause, ctypes.c_void_p))
libc.signal(signal.SIGUSR1, ctypes.cast(libc.getpid, ctypes.c_void_p))

def send(thread, number):
    libc.tgkill(os.getpid(), thread.native_id, number)

def main():
    gates = [threading.Event() for _ in range(6)]
    threads = []
    done = Event()
    successors = []

    def waits(gate):
        threads.append(threading.current_thread())
        with blocking():
            gate.wait()

    def newcomer():
        me = threading.current_thread()
        if me.name == old.name:
            # as long as this fiber has the slot, the word has the number
            while old.is_alive():
                send(old, signal.SIGUSR1)
                old.join(0.001)
            successors.append(me)
        else:
            done.wait()

    # more threads than are kept for good; the one that is idle for longest goes first
    crowd = []
    for gate in gates:
        crowd.append(spawn(waits, gate, thread=True))
        until(lambda: len(threads) == len(crowd))
    for fiber, gate in zip(crowd, gates):
        gate.set()
        fiber.join()
    old = threads[0]
    send(old, signal.SIGUSR2)
    slot = current_fiber().scheduler.slot
    until(lambda: old.ident not in [worker.ident for worker in slot.workers])
    assert old.is_alive()
    while not successors:
        spawn(newcomer, thread=True)
        sleep(0.001)
    assert successors[0] is not old and not old.is_alive()
    done.set()
    assert mixed_work()

run(main, slot=lent())
""")


def test_an_exception_comes_out_of_join_with_its_traceback(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
def fails(nap):
    time.sleep(nap)
    raise KeyError(nap)

def main():
    for nap in (0, 0.02):
        for call in (lambda: spawn(fails, nap, thread=True).join(), lambda: to_thread(fails, nap)):
            try:
                call()
            except KeyError as error:
                assert error.args == (nap,)
                names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
                assert names[-1] == "fails", names
            else:
                assert False, "it was lost"
    assert mixed_work()

run(main)
""")


# ------------------------------------------------------------------------------------ event loops

LOOP_CALLS = {
    "get_running_loop": "asyncio.get_running_loop()",
    "create_task": "asyncio.create_task(coroutine)",
    "loop.create_task in debug mode": "loop.create_task(coroutine)",
    "call_later in debug mode": "loop.call_later(1, int)",
    "run_until_complete": "loop.run_until_complete(coroutine)",
    "from_thread.run with a coroutine's result": "swapco.from_thread.run(coroutine)",
}


@pytest.mark.parametrize("nap", [0, 0.02], ids=["attached", "detached"])
@pytest.mark.parametrize("call", LOOP_CALLS.values(), ids=LOOP_CALLS.keys())
def test_what_is_for_the_loops_thread_is_a_clear_error(run_program_in_variant: Run, call: str, nap: float) -> None:
    run_program_in_variant(f"""
async def function():
    return 5

def calls(loop):
    time.sleep({nap})
    coroutine = function()
    try:
        {call}
    except (RuntimeError, TypeError) as error:
        assert "loop" in str(error) or "callable" in str(error), error
    else:
        assert False, "no error"
    finally:
        coroutine.close()
    return sleep(0.001, "goes on")

def main():
    assert to_thread(calls, asyncio.get_running_loop()) == "goes on"
    assert mixed_work()

run(main, debug=True)
""")


@pytest.mark.parametrize("nap", [0, 0.02], ids=["attached", "detached"])
def test_what_works_in_any_thread_works_in_a_thread_fiber(run_program_in_variant: Run, nap: float) -> None:
    run_program_in_variant(f"""
async def function(n):
    await asyncio.sleep(0.001)
    return n

def calls(loop):
    time.sleep({nap})
    called = threading.Event()
    loop.call_soon_threadsafe(called.set)
    assert called.wait(20)
    assert await_(function(1)) == 1
    assert asyncio.run_coroutine_threadsafe(function(2), loop).result(20) == 2
    assert swapco.from_thread.run(function, 3) == 3
    assert swapco.from_thread.run(asyncio.get_running_loop) is loop
    asyncio.sleep(1).close()
    # a loop of its own, of either kind
    assert asyncio.run(function(4)) == 4
    assert sleep(0.001, 5) == 5
    return "ended"

def main():
    assert to_thread(calls, asyncio.get_running_loop()) == "ended"
    assert mixed_work()

run(main)
""")


@pytest.mark.parametrize("nap", [0, 0.02], ids=["attached", "detached"])
def test_another_run_in_a_thread_fiber(run_program_in_variant: Run, nap: float) -> None:
    """It works as in any other thread, and is over with the call: or it says what to do instead."""
    run_program_in_variant(f"""
def inner():
    assert current_fiber() in all_fibers() and len(all_fibers()) == 1
    assert mixed_work()
    return "inner"

def calls():
    me = current_fiber()
    time.sleep({nap})
    assert run(inner) == "inner"
    assert current_fiber() is me
    assert sleep(0.001, "outer") == "outer"
    return spawn(lambda: "child").join()

def main():
    assert to_thread(calls) == "child"
    assert mixed_work()

run(main)
""")


# ------------------------------------------------------------------------------------ recursion, and many


@pytest.mark.parametrize("nap", [0, 0.02], ids=["attached", "detached"])
def test_a_recursion_error_in_a_thread_fiber(run_program_in_variant: Run, nap: float) -> None:
    run_program_in_variant(f"""
def down(n):
    return down(n + 1)

def count(n):
    return 0 if n == 0 else 1 + count(n - 1)

def recursion():
    time.sleep({nap})
    for _ in range(3):
        try:
            down(0)
        except RecursionError:
            sleep(0)
        else:
            assert False, "no end"
        sleep(0.001)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        assert count(15_000) == 15_000
        sleep(0)
        assert count(15_000) == 15_000
    finally:
        sys.setrecursionlimit(limit)
    return "done"

def waits_deep(n):
    # a switch at the bottom of each
    return sleep(0.001, 0) if n == 0 else 1 + waits_deep(n - 1)

def main():
    assert [to_thread(recursion) for _ in range(2)] == ["done"] * 2
    assert [fiber.join() for fiber in [spawn(waits_deep, 800, thread=True) for _ in range(10)]] == [800] * 10
    assert mixed_work()

run(main)
""")


@pytest.mark.parametrize("meet", ["Barrier(1024).wait", "Event().wait"])
def test_a_thousand_thread_fibers_meet(run_program_in_variant: Run, meet: str) -> None:
    """As many as there may be unless the program says otherwise, and there is room for clean-up beside them."""
    run_program_in_variant(f"""
meet = {meet}

def cleans():
    try:
        block()
    except asyncio.CancelledError:
        return to_thread(threading.get_ident)

def main():
    cleaner = spawn(cleans)
    fibers = [spawn(meet, thread=True) for _ in range(1024)]
    if meet.__name__ == "wait" and isinstance(meet.__self__, Event):
        until(lambda: all(fiber.state == "BLOCKED" for fiber in fibers))
        assert numbers()["workers"] == 1024
        cleaner.cancel()
        assert cleaner.join(20) != threading.get_ident()
        assert numbers()["workers"] == 1025
        meet.__self__.set()
    found = [fiber.join() for fiber in fibers]
    assert sorted(found) == list(range(1024)) or found == [True] * 1024, found
    cleaner.cancel()
    assert mixed_work()

run(main)
assert threading.active_count() == 1
""")


# ------------------------------------------------------------------------------------ observers


def test_tracebacks_of_all_threads_show_the_workers(run_program_in_variant: Run) -> None:
    result = run_program_in_variant("""
def waits_in_swapco():
    block()

def sleeps_in_the_kernel():
    gate.wait()

gate = threading.Event()

def main():
    # not dump_traceback_later(): that reads frames without the GIL, while they come and go, and may crash
    def dumps():
        while not worked.wait(0.001):
            faulthandler.dump_traceback(all_threads=True)

    fibers = [spawn(waits_in_swapco, thread=True), detached(sleeps_in_the_kernel)]
    worked = threading.Event()
    observer = threading.Thread(target=dumps)
    observer.start()
    assert mixed_work()
    worked.set()
    observer.join()
    say("here", file=sys.stderr)
    faulthandler.dump_traceback(all_threads=True)
    gate.set()
    resume(fibers[0])
    wait(fibers)

def say(*words, file):
    print(*words, file=file, flush=True)

run(main)
""")
    last = result.stderr.rpartition("here\n")[2]
    assert "in waits_in_swapco" in last
    assert "in sleeps_in_the_kernel" in last
    assert "in main" in last


@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_a_debuggers_hooks_see_the_code_of_thread_fibers(run_program_in_variant: Run, kind: str) -> None:
    run_program_in_variant(f"""
seen = []

def hook(frame, event, argument):
    if frame.f_code.co_name in ("first", "second", "third"):
        seen.append((frame.f_code.co_name, event))
    return hook

def first():
    sleep(0.001)

def second():
    time.sleep(0.02)

def third():
    return current_fiber()

def main():
    spawn(first, thread=True).join()
    to_thread(second)
    third()
    third_elsewhere = spawn(third, thread=True)
    assert third_elsewhere.join() is third_elsewhere

threading.set{kind}(hook)
sys.set{kind}(hook)
try:
    run(main)
finally:
    sys.set{kind}(None)
    threading.set{kind}(None)
for name, times in (("first", 1), ("second", 1), ("third", 1)):
    assert seen.count((name, "call")) >= times, seen
    assert seen.count((name, "return")) >= times, seen
assert seen.count(("third", "call")) == seen.count(("third", "return")), seen
""")


# ------------------------------------------------------------------------------------ greenlets, generators


def test_greenlets_inside_a_thread_fiber(run_program_in_variant: Run) -> None:
    """They switch among themselves; a wait in one works or is a clear error, and the fiber goes on."""
    run_program_in_variant("""
import greenlet

def plays(nap):
    order = []
    def partner(word):
        while word:
            order.append(word)
            time.sleep(nap)
            word = greenlet.getcurrent().parent.switch(len(order))
        return "end"
    other = greenlet.greenlet(partner)
    for n in range(5):
        assert other.switch(f"word {n}") == n + 1
        sleep(0)
    assert other.switch(None) == "end"
    assert len(order) == 5

def waits_inside():
    def inside():
        try:
            return sleep(0.001, "slept")
        except RuntimeError as error:
            assert "greenlet" in str(error), error
            return "refused"
    answers = {greenlet.greenlet(inside).switch() for _ in range(5)}
    assert len(answers) == 1 and answers <= {"slept", "refused"}, answers
    assert sleep(0.001, "outside") == "outside"
    return answers.pop()

def main():
    fibers = [spawn(plays, nap, thread=True) for nap in (0, 0.005) for _ in range(3)]
    answers = {spawn(waits_inside, thread=True).join() for _ in range(5)}
    for fiber in fibers:
        fiber.join()
    assert len(answers) == 1
    assert mixed_work()

run(main)
""")


def test_a_greenlet_that_outlives_its_thread_fiber(run_program_in_variant: Run) -> None:
    """Its thread hosts other fibers: it can be thrown away, and nobody minds."""
    run_program_in_variant("""
import greenlet
kept = []

def leaves_one():
    main = greenlet.getcurrent()
    def inside():
        try:
            main.switch()
        finally:
            kept.append("unwound")
    child = greenlet.greenlet(inside)
    child.switch()
    if len(kept) % 2:
        kept.append(child)

def main():
    for _ in range(10):
        to_thread(leaves_one)
    assert mixed_work()
    kept.clear()
    gc.collect()
    assert mixed_work()

run(main)
""")


def test_generators_and_coroutines_go_from_thread_to_thread(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
def numbers_up():
    n = 0
    while True:
        try:
            raise LookupError(n)
        except LookupError as error:
            sleep(0)
            if n % 7 == 0:
                yield n
            elif threading.current_thread() is not threading.main_thread():
                time.sleep(0.002)
                yield n
            else:
                yield n
            assert sys.exc_info()[1] is error
        n += 1

class Step:
    def __await__(self):
        return (yield "step")

async def coroutine():
    total = 0
    for _ in range(30):
        total += await Step()
        sleep(0)
    return total

def main():
    generator = numbers_up()
    found = []
    for n in range(60):
        if n % 3 == 0:
            found.append(next(generator))
        elif n % 3 == 1:
            found.append(to_thread(next, generator))
        else:
            found.append(spawn(lambda: next(generator), thread=True).join())
    assert found == list(range(60)), found
    to_thread(generator.close)
    moved = coroutine()
    assert moved.send(None) == "step"
    for n in range(29):
        assert (moved.send, functools.partial(to_thread, moved.send))[n % 2](n) == "step"
    def last():
        try:
            moved.send(29)
        except StopIteration as stop:
            return stop.value
    assert spawn(last, thread=True).join() == sum(range(30))

run(main)
""")


def test_a_generator_that_a_detached_thread_runs_is_nobody_elses(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
def slow():
    gate.wait()
    yield 1

gate = threading.Event()

def main():
    generator = slow()
    fiber = detached(next, generator)
    try:
        next(generator)
    except ValueError as error:
        assert "already executing" in str(error)
    else:
        assert False, "twice at once"
    gate.set()
    assert fiber.join() == 1

run(main)
""")


# ------------------------------------------------------------------------------------ garbage collection


@pytest.mark.parametrize("nap", [0, 0.02], ids=["attached", "detached"])
def test_finalizers_on_a_worker_resume_and_cancel_fibers(run_program_in_variant: Run, nap: float) -> None:
    run_program_in_variant(f"""
class Knot:
    def __init__(self, fn):
        self.itself = self
        self.fn = fn
    def __del__(self):
        self.fn()

def collects(actions):
    time.sleep({nap})
    for action in actions:
        Knot(action)
    # a collection of somebody else may be under way: then that one, or the next, finds them
    gc.collect()

def main():
    items = Queue()
    event = Event()
    for _ in range(10):
        sleepers = [spawn(block, thread=n % 2 == 1) for n in range(4)]
        waiters = [spawn(event.wait, thread=n % 2 == 1) for n in range(4)]
        until(lambda: all(fiber.state == "BLOCKED" for fiber in sleepers + waiters))
        actions = [functools.partial(resume, fiber, "resumed") for fiber in sleepers[:2]]
        actions += [fiber.cancel for fiber in sleepers[2:] + waiters[:2]]
        actions += [functools.partial(items.put_nowait, 1), functools.partial(spawn, items.put, 2)]
        spawn(collects, actions, thread=True).join()
        del actions
        gc.collect()
        wait(sleepers + waiters[:2], timeout=20)
        assert [fiber.join() for fiber in sleepers[:2]] == ["resumed"] * 2
        assert all(fiber.cancelled() for fiber in sleepers[2:] + waiters[:2])
        assert sorted(items.get(timeout=20) for _ in range(2)) == [1, 2]
        event.set()
        assert all(fiber.join() for fiber in waiters[2:])
        event.clear()
    assert mixed_work()

run(main)
""")


@pytest.mark.parametrize("nap", [0, 0.02], ids=["attached", "detached"])
def test_a_finalizer_that_waits_in_a_collection_is_refused(run_program_in_variant: Run, nap: float) -> None:
    run_program_in_variant(f"""
refused = []
sys.unraisablehook = lambda what: refused.append(what.exc_value)

class Knot:
    def __init__(self):
        self.itself = self
    def __del__(self):
        sleep(0.001)

def collects():
    time.sleep({nap})
    Knot()
    gc.collect()
    return sleep(0.001, "goes on")

def main():
    gc.disable()
    assert to_thread(collects) == "goes on"
    gc.enable()
    assert [type(error) for error in refused] == [RuntimeError], refused
    assert "finalizer" in str(refused[0])
    assert mixed_work()

run(main)
""")


def test_collections_at_every_allocation(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
def main():
    gc.set_threshold(5, 2, 2)
    for _ in range(2):
        assert mixed_work()
    gc.set_threshold(700, 10, 10)

run(main)
""")
