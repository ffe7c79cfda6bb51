"""The table of states: what it declares is what happens, and an illegal step ends the process."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sysconfig
from pathlib import Path

import pytest
from helpers import in_fiber, run_program, settle

import swapco
from swapco._core.states import STATES, TRANSITIONS
from swapco.lowlevel import Instrument, ParkingLot, wait_readable

pytestmark = pytest.mark.usefixtures("fibers")

#: Fibers on kernel threads of their own: nothing takes these steps as long as there are none.
WITH_THREADS = "DETACHED"


def test_the_table_is_consistent() -> None:
    """Names are unique, and every state is reached from NEW."""
    assert STATES[0] == "NEW"
    assert len(set(STATES)) == len(STATES)
    assert len({step.name for step in TRANSITIONS}) == len(TRANSITIONS)
    assert len({(step.source, step.to) for step in TRANSITIONS}) == len(TRANSITIONS)
    assert all(step.source in STATES and step.to in STATES and step.cause for step in TRANSITIONS)
    reached = {"NEW"}
    for _ in STATES:
        reached |= {step.to for step in TRANSITIONS if step.source in reached}
    assert reached == set(STATES)
    assert not [step for step in TRANSITIONS if step.source == "DONE"]


class Recorder(Instrument):
    """The states that each fiber was seen in, one after the other."""

    def __init__(self) -> None:
        self.seen: dict[swapco.Fiber, list[str]] = {}

    def note(self, fiber: swapco.Fiber | None) -> None:
        if fiber is not None:
            states = self.seen.setdefault(fiber, [])
            if not states or states[-1] != fiber.state:
                states.append(fiber.state)

    def spawned(self, fiber: swapco.Fiber) -> None:
        self.note(fiber)

    def before_switch(self, leaving: swapco.Fiber | None, entering: swapco.Fiber | None) -> None:
        self.note(leaving)
        self.note(entering)

    after_switch = blocked = resumed = finished = lambda self, fiber, *_: self.note(fiber)


@in_fiber
def test_every_declared_transition_happens_and_no_other() -> None:
    """Seen through the hooks, over a program that does one of everything."""
    recorder = Recorder()
    scheduler = swapco.current_fiber().scheduler
    scheduler.add_instrument(recorder)
    me = swapco.current_fiber()
    lot = ParkingLot()
    near, far = socket.socketpair()
    with near, far:
        fibers = [
            swapco.spawn(int),
            swapco.spawn(swapco.block),
            swapco.spawn(swapco.sleep, 0.001),
            swapco.spawn(swapco.sleep, 0),
            swapco.spawn(lot.park),
            swapco.spawn(wait_readable, near),
            swapco.spawn(swapco.switch_to, me),
            swapco.spawn(swapco.block, 0.001),
            swapco.spawn(swapco.block),
        ]
        swapco.sleep(0)
        swapco.sleep(0)
        swapco.block()
        lot.unpark()
        far.send(b"x")
        fibers[-1].cancel()
        swapco.resume(fibers[6])
        swapco.spawn(swapco.resume, me)
        swapco.switch_to(fibers[1])
        swapco.wait(fibers)
    settle()
    scheduler.remove_instrument(recorder)
    observed = {pair for states in recorder.seen.values() for pair in zip(states, states[1:], strict=False)}
    declared = {(step.source, step.to) for step in TRANSITIONS if WITH_THREADS not in (step.source, step.to)}
    assert observed == declared
    for fiber in fibers:
        assert recorder.seen[fiber][0] == "NEW"
        assert recorder.seen[fiber][-1] == "DONE"
    with pytest.raises(TimeoutError):
        fibers[7].join()
    with pytest.raises(swapco.CancelledError):
        fibers[8].join()


CHECKER = """
#include "states.h"
int swapco_check(const char *name, int from)
{
    signed char state = (signed char)from;
#define X(from_, to_, step, cause) if (!strcmp(name, #step)) { transition_##step(&state); return state; }
    SWAPCO_TRANSITIONS(X)
#undef X
    return -1;
}
"""

DRIVER = """
import ctypes, os, sys
from swapco._core.states import STATES, TRANSITIONS
check = ctypes.PyDLL(sys.argv[1]).swapco_check
for step in TRANSITIONS:
    for number, state in enumerate(STATES):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os._exit(check(step.name.encode(), number))
        status = os.waitpid(child, 0)[1]
        legal = state == step.source
        assert os.WIFEXITED(status) == legal, (step, state, status)
        if legal:
            assert os.WEXITSTATUS(status) == STATES.index(step.to), (step, state, status)
        else:
            assert os.WTERMSIG(status) == 6, (step, state, status)
check(b"finish", STATES.index("NEW"))
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_an_illegal_transition_ends_the_process(tmp_path: Path) -> None:
    """Every step from every state: the declared ones are taken, each other one aborts, and says what it was."""
    source = tmp_path / "checker.c"
    source.write_text(CHECKER)
    library = tmp_path / "checker.so"
    core = Path(__file__).parents[2] / "swapco" / "_core"
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-I{core}", f"-I{sysconfig.get_paths()['include']}", "-o", library, source],
        check=True,
    )
    ended = run_program(f"import sys; sys.argv[1:] = [{str(library)!r}]\n{DRIVER}")
    assert ended.returncode == -6, ended
    assert "illegal transition finish of a fiber that is NEW" in ended.stderr
    assert "the scheduler's state is corrupt" in ended.stderr
    assert "AssertionError" not in ended.stderr


def test_stub_and_module_agree() -> None:
    """A row is a named tuple of strings."""
    step = TRANSITIONS[0]
    assert (step.source, step.to, step.name, step.cause) == tuple(step)
    assert all(isinstance(word, str) for word in step)
