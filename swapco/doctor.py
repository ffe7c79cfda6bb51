"""``python -m swapco doctor`` (or ``swapco doctor``): what swapco found on this machine, and what follows.

For a bug report, and for the question why fibers are slower here than there.  It only looks; one fiber is run, to see
that it can be.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from ._core import backends, native_switch
from .runners import run

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0, or 1 if fibers cannot run as they are asked to."""
    parser = argparse.ArgumentParser(prog="swapco", description="Stackful coroutines for Python.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="print what swapco runs on, and why")
    parser.parse_args(arguments)
    for line in _report():
        print(line)
    try:
        switch = backends.make_backend().name
        run(lambda: None)
    except (RuntimeError, ValueError) as error:
        print(f"\nFibers do not run: {error}.")
        return 1
    print(f"\nFibers run, on {'native stacks' if switch == 'native' else 'greenlets'}.")
    return 0


def _report() -> Iterator[str]:
    yield "versions"
    for name in ("swapco", "greenlet", "uvloop"):
        yield _fact(name, _version(name))
    yield _fact("Python", f"{platform.python_implementation()} {platform.python_version()}")
    yield _fact("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield ""
    yield "switch"
    yield _fact("runs", _which())
    refusal = backends.NATIVE_REFUSAL
    yield _fact("native", "works: on the list, and the self-test passed" if refusal is None else f"no: {refusal}")
    asked = os.environ.get(backends.ENVIRONMENT)
    yield _fact(backends.ENVIRONMENT, asked if asked else "not set")
    if refusal is None:
        yield from _stacks()
    yield ""
    yield "limits"
    cpus = sorted(os.sched_getaffinity(0))
    yield _fact("processors", f"{len(cpus)} of {os.cpu_count()} ({_ranges(cpus)})")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield _fact("open files", f"{soft} (may be raised to {hard}); a connection needs one")


def _which() -> str:
    try:
        asked = backends.asked_for(None)
        switch = backends.make_backend().name
    except (RuntimeError, ValueError) as error:
        return f"nothing: {error}"
    if asked is not None:
        return f"{switch}: {backends.ENVIRONMENT} asks for it"
    return f"{switch}: the default {'here' if switch == 'native' else 'where native stacks do not work'}"


def _stacks() -> Iterator[str]:
    facts = native_switch.statistics()
    yield _fact("stacks", f"{facts['stack_bytes'] >> 10} KiB of address space each, {facts['c_calls']} nested C calls")
    if facts["guards_split"]:
        limit = Path("/proc/sys/vm/max_map_count").read_text().strip()
        yield _fact("guards", f"by mprotect: half of vm.max_map_count, {int(limit) // 2} stacks at most")
    else:
        yield _fact("guards", "by MADV_GUARD_INSTALL: as many as there is memory for")
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        yield _fact("RLIMIT_AS", f"{address_space >> 20} MiB: stacks are smaller than usual")


def _fact(name: str, what: str) -> str:
    return f"  {name:<14} {what}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


def _ranges(numbers: list[int]) -> str:
    """0-3, 8: what a person reads."""
    parts: list[str] = []
    start = previous = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != previous + 1:
            parts.append(str(start) if start == previous else f"{start}-{previous}")
            start = number
        previous = number
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
