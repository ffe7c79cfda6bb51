"""Which kind of stack fibers run on: native ones where they are known to work, else greenlets.

In order: what the caller asks for (``run(main, switch=...)``), the environment variable ``SWAPCO_SWITCH``, and by
default native stacks if this interpreter is on the list, and a test at import has found them to work.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from types import FrameType

from .greenlet_switch import GreenletBackend
from .native_switch import NativeBackend, build_refusal, probe
from .switch import Backend

ENVIRONMENT = "SWAPCO_SWITCH"
NAMES = ("native", "greenlet")

# What has been tested: the thread state's fields are known for these (native_thread.h).
VERSIONS = ((3, 11), (3, 12), (3, 13))


def _find_refusal() -> str | None:
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in VERSIONS:
        return f"{platform.python_implementation()} {platform.python_version()} is not on the list"
    if "experimental-jit" in str(sysconfig.get_config_var("CONFIG_ARGS")):
        return "this CPython is built with a JIT"
    return build_refusal() or _self_test()


def asked_for(switch: str | None) -> str | None:
    """The kind that the caller or the environment names; None if neither does.  ValueError for an unknown one."""
    source = "switch"
    if switch is None:
        switch = os.environ.get(ENVIRONMENT) or None
        source = ENVIRONMENT
    if switch is not None and switch not in NAMES:
        raise ValueError(f"{source} must be 'native' or 'greenlet', not {switch!r}")
    return switch


def make_backend(switch: str | None = None) -> Backend:
    """The backend to use.  RuntimeError if native stacks are asked for and do not work here."""
    name = asked_for(switch)
    if name == "greenlet":
        return GreenletBackend()
    if NATIVE_REFUSAL is None:
        return NativeBackend()
    if name == "native":
        raise RuntimeError(f"fibers cannot switch natively: {NATIVE_REFUSAL}; ask for 'greenlet', or for nothing")
    return GreenletBackend()


def _look() -> tuple[object, ...]:
    """What can be seen from inside a stack."""
    depth = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        depth += 1
        frame = frame.f_back
    try:
        raise KeyError(depth)
    except KeyError as error:
        caught = error.args[0], error.__context__
    return depth, sys.exc_info()[1], caught, [number / 3.0 for number in range(3)], sorted("ba", key=str)


def _self_test() -> str | None:
    """Switch to native stacks and back, with an exception being handled outside."""
    expected = (1, None, (1, None), [0.0, 1 / 3.0, 2 / 3.0], ["a", "b"])
    try:
        raise OSError("outside")
    except OSError as outside:
        try:
            seen = probe(_look, 2, 2)
        except MemoryError:
            return "there is no address space for stacks"
        if sys.exc_info()[1] is not outside:
            return "the self-test lost the exception that was being handled"
    for found in seen:
        if found != expected:
            return f"the self-test saw {found!r}"
    return None


#: Why native stacks do not work here; None: they do.
NATIVE_REFUSAL = _find_refusal()
