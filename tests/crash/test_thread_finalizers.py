"""Code that runs in the middle of a handoff: finalizers when a thread fiber ends, instruments when it loses the slot.

Such code may call what does not wait, and runs as nobody: the fiber is gone. It runs inside the scheduler, so a section
that it opens must not be the outermost one: its end would give up the slot that the worker is about to pass on.
"""

from __future__ import annotations

import pytest
from thread_programs import Run, run_program_in_variant

__all__ = ["run_program_in_variant"]

LAST = """
import contextvars

class Last:
    # tells when the last reference to it goes
    def __init__(self, tell):
        self.tell = tell
    def __del__(self):
        self.tell()

kept = contextvars.ContextVar("kept")
"""


@pytest.mark.parametrize("nap", [0, 0.02], ids=["attached", "detached"])
@pytest.mark.parametrize("where", ["context", "result", "argument", "token"])
def test_what_a_thread_fiber_leaves_behind(run_program_in_variant: Run, where: str, nap: float) -> None:
    """One fiber after the other on the same worker, with nobody else who holds what they leave."""
    run_program_in_variant(
        LAST
        + f"""
def leaves(where, argument):
    if {nap}:
        time.sleep({nap})
    if where == "context":
        kept.set(Last(tell))
    if where == "token":
        resume(current_fiber(), Last(tell))
    return Last(tell) if where == "result" else None

def main():
    global tell
    items = Queue()
    waits_in_vain = []

    def tell():
        items.put_nowait(spawn(int))
        for waits in (lambda: sleep(1), Lock().acquire, blocking().__enter__):
            try:
                waits()
            except NotInFiber as error:
                assert "finalizer" in str(error), error
                waits_in_vain.append(error)

    for _ in range(8):
        for _ in range(4):
            spawn(leaves, "{where}", Last(tell) if "{where}" == "argument" else None, thread=True)
        for _ in range(4):
            assert items.get(timeout=20).join(20) == 0
    assert len(waits_in_vain) == 3 * 32, len(waits_in_vain)
    assert mixed_work()

run(main)
"""
    )


def test_what_a_fiber_of_the_home_worker_leaves_behind(run_program_in_variant: Run) -> None:
    """In debug mode, too, in which every run of a fiber is measured."""
    run_program_in_variant(
        LAST
        + """
def main():
    told = []

    def tell():
        try:
            sleep(1)
        except NotInFiber:
            told.append(1)

    def leaves():
        return Last(tell)

    for _ in range(8):
        for _ in range(4):
            spawn(leaves)
            spawn(sleep, 0)
        sleep(0.001)
    assert len(told) == 32, told

run(main)
"""
    )


def test_what_a_detached_fiber_leaves_to_a_worker_in_an_operation(run_program_in_variant: Run) -> None:
    """Another thread fiber records its end, in the middle of a spawn: the finalizer is not that fiber's."""
    run_program_in_variant(
        LAST
        + """
told = []
gate = threading.Event()
ended = []

def tell():
    for waits in (lambda: sleep(0.001), Lock().acquire):
        try:
            waits()
        except NotInFiber:
            told.append("nobody")
        else:
            told.append(current_fiber())

def ends():
    gate.wait()
    ended.append(1)
    return Last(tell)

def records():
    gate.set()
    while len(ended) < 3:
        pass
    # they need the GIL once more to post their ends; who spawns looks into the inbox
    while len(told) < 6:
        spawn(int)

def main():
    for _ in range(3):
        detached(ends)
    fiber = spawn(records, thread=True)
    fiber.join(20)
    assert told == ["nobody"] * 6, told
    assert mixed_work()

run(main, slot=lent())
"""
    )


def test_what_a_fiber_leaves_behind_after_its_loop(run_program_in_variant: Run) -> None:
    """The loop did not wait for its thread: what the fiber leaves goes in that thread, as nobody's."""
    run_program_in_variant(
        LAST
        + """
gate = threading.Event()
told = []

def tell():
    for waits in (lambda: sleep(1), lambda: Lock().acquire(), Queue().get, blocking().__enter__):
        try:
            waits()
        except NotInFiber as error:
            assert "its event loop is closed" in str(error), error
            told.append(1)

def ends():
    gate.wait()
    return Last(tell)

def main():
    detached(ends)
    return [thread for thread in threading.enumerate() if thread.name.startswith("swapco worker")]

warnings.simplefilter("ignore", RuntimeWarning)
threads = run(main, shutdown_timeout=0.01)
gate.set()
for thread in threads:
    thread.join(20)
assert len(told) == 4, told
"""
    )


def test_a_finalizer_that_takes_long_keeps_its_worker(run_program_in_variant: Run) -> None:
    """The next fiber has its worker already: it must not be taken for the one that blocks."""
    run_program_in_variant(
        LAST
        + """
def main():
    items = Queue()

    def tell():
        items.put_nowait(1)
        time.sleep(0.02)

    def leaves():
        return Last(tell)

    for _ in range(20):
        spawn(leaves, thread=True)
    assert sum(items.get(timeout=20) for _ in range(20)) == 20
    assert mixed_work()

run(main)
"""
    )


def test_an_instrument_that_puts_when_a_fiber_gives_the_slot_up(run_program_in_variant: Run) -> None:
    run_program_in_variant("""
def main():
    items = Queue()

    class Teller(swapco.lowlevel.Instrument):
        def before_switch(self, leaving, entering):
            items.put_nowait("switch")
        def detached(self, fiber):
            items.put_nowait("detached")
        def reattached(self, fiber):
            items.put_nowait("reattached")
        def finished(self, fiber):
            items.put_nowait("finished")

    def gives_up():
        for _ in range(10):
            with blocking():
                time.sleep(0.001)

    teller = Teller()
    scheduler = current_fiber().scheduler
    scheduler.add_instrument(teller)
    spawn(gives_up, thread=True).join()
    scheduler.remove_instrument(teller)
    told = [items.get_nowait() for _ in range(items.qsize())]
    assert told.count("detached") >= 10 and told.count("finished") == 1, told
    assert mixed_work()

run(main)
""")
