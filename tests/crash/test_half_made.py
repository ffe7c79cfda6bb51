"""Objects of the public compiled classes without their ``__init__``: an error or an answer, never a crash.

``X.__new__(X)`` makes them, and so does a subclass whose ``__init__`` forgets to call that of its base.  Each is made
in a program of its own, in which every method is called with every kind of argument.
"""

from __future__ import annotations

import pytest
from helpers import run_program

from swapco import lowlevel

CLASSES = [name for name in lowlevel.__all__ if isinstance(getattr(lowlevel, name), type)]

PROGRAM = """
import os, signal, sys
import swapco
from swapco import lowlevel

#: A wait without an end is what was asked for.
WAITS = {("FutexWord", "wait"), ("FutexWord", "swap")}
SPECIAL = {"__init__", "__len__", "__repr__", "__str__", "__hash__", "__bool__", "__contains__", "__copy__"}

kind, how = sys.argv[1:]
base = getattr(lowlevel, kind)

def make():
    if how == "new":
        return base.__new__(base)
    class Forgets(base):
        def __init__(self):
            pass
    return Forgets()

def call(thing, name, arguments):
    try:
        method = getattr(thing, name)
        if callable(method):
            method(*arguments)
    except Exception:
        pass

def calls():
    # on one object after the other, and all on one
    same = make()
    for name in sorted(dir(base)):
        if (name.startswith("_") and name not in SPECIAL) or (kind, name) in WAITS:
            continue
        for arguments in (), (1,), (None,), (same,), (swapco.current_fiber(),), (same, 0.0), (1, 1), (None, None):
            call(make(), name, arguments)
            call(same, name, arguments)

signal.alarm(20)
try:
    base.__new__(base)
    make()
except TypeError:
    assert how == "subclass" and kind == "FutexWord"  # it is final
    sys.exit()
swapco.run(calls)

def used(**keywords):
    try:
        swapco.run(lambda: [swapco.sleep(0), swapco.to_thread(int), swapco.spawn(int).join()], **keywords)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "works"

if issubclass(base, lowlevel.Policy):
    print(used(policy=make()))
elif issubclass(base, lowlevel.Clock):
    print(used(loop_factory=lambda: swapco.new_event_loop(clock=make())))
elif issubclass(base, lowlevel.Slot):
    print(used(slot=make()))
"""

#: What comes of it where it can be given to a loop; the rest of the text does not matter.
USED = {
    "Clock": "works",
    "ManualClock": "works",
    "Fifo": "works",
    "Lifo": "works",
    "Priority": "works",
    "Deadline": "works",
    "Policy": "TypeError: ",
    "Slot": "RuntimeError: <Slot, 0 workers beside home> has no options: Slot.__init__() was not called",
}


@pytest.mark.parametrize("how", ["new", "subclass"])
@pytest.mark.parametrize("kind", CLASSES)
def test_it_is_used(kind: str, how: str) -> None:
    result = run_program(f"import sys; sys.argv[1:] = [{kind!r}, {how!r}]\n" + PROGRAM)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(USED.get(kind, "")), result.stdout
    assert bool(result.stdout) is (kind in USED)
