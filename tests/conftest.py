"""What every test may use: command-line options, and the check that a test leaves nothing behind.

``--stress-seconds`` is how long one stress test runs; ``--seed`` makes random tests repeatable: the header of
the report says which seed was used.

The fixture ``fibers`` compares before and after: live fibers, descriptors of the poller, greenlets, file
descriptors, threads; and it fails a test in which asyncio logged an error that the test did not expect.  A
module asks for it with ``pytestmark = pytest.mark.usefixtures("fibers")``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import greenlet
import hypothesis
import pytest
from helpers import Logged

import swapco
from swapco._core import affinity
from swapco._core.fiber import FiberCore
from swapco._loop.poller import Poller

TESTS = Path(__file__).parent

# how long an example takes depends on what else the machine does
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stress-seconds", type=float, default=1.0, help="seconds that a stress test runs")
    parser.addoption("--seed", type=int, default=None, help="the seed of random tests (random unless given)")


def pytest_configure(config: pytest.Config) -> None:
    # a shell starts what it puts in the background with Ctrl-C ignored, and every child process inherits that
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(2**32)


#: Tests that say the same on every interpreter: of plain Python, of orders that a strategy alone decides, of processes
#: that talk to each other.  Marked ``once``, like single tests elsewhere.  CI runs them on the last Python only.
ONCE = (
    "examples/test_kv_process",
    "model/",
    "test_docs",
    "testing/test_dpor",
    "testing/test_exhaust",
    "testing/test_linearizability",
    "testing/test_models",
    "testing/test_mutants",
    "testing/test_own_primitives",
    "testing/test_properties",
    "testing/test_schedule",
    "testing/test_sequencing",
    "testing/test_shrink",
    "testing/test_stateful",
    "testing/test_strategies",
    "testing/test_timeline",
    "testing/test_trust",
    "unit/test_benchmarks",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.relative_to(TESTS).as_posix().startswith(ONCE):
        item.add_marker("once")


def pytest_report_header(config: pytest.Config) -> str:
    return f"--seed={config.option.seed}"


def pytest_collection_finish(session: pytest.Session) -> None:
    forget_what_exists()


def forget_what_exists() -> None:
    """Let the garbage collections of later tests pass over what is there by now.

    After thousands of tests looking at it took most of the time.  What ``gc.get_objects`` does not show any more is
    known from here on: a test may unfreeze it.
    """
    gc.collect()
    _KNOWN.update(watched())
    gc.freeze()


#: The fibers, pollers and greenlets that are frozen.
_KNOWN: weakref.WeakSet[FiberCore | Poller | greenlet.greenlet] = weakref.WeakSet()


def watched() -> list[FiberCore | Poller | greenlet.greenlet]:
    """The objects that could be a test's leak."""
    return [o for o in gc.get_objects() if isinstance(o, (FiberCore, Poller, greenlet.greenlet))]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


_FAILED = pytest.StashKey[bool]()


@pytest.fixture
def stress_seconds(request: pytest.FixtureRequest) -> float:
    """How long a stress test runs."""
    return float(request.config.getoption("--stress-seconds"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of the random tests of this run."""
    return int(request.config.getoption("--seed"))


def leftovers() -> dict[str, set[Any]]:
    """What a test could leave behind, by kind."""
    descriptors = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # that of this very listing
            pass
    objects = {*watched(), *_KNOWN}
    return {
        "live fibers": {repr(o) for o in objects if isinstance(o, FiberCore) and not o.done()},
        "pollers with registrations": {repr(o) for o in objects if isinstance(o, Poller) and o.registered},
        "greenlets": {repr(o) for o in objects if isinstance(o, greenlet.greenlet) and o.parent and not o.dead},
        "file descriptors": descriptors,
        "threads": {repr(thread) for thread in threading.enumerate()},
        "pinned threads": set(affinity._masks),
    }


@pytest.fixture(scope="session")
def warmed_up() -> None:
    """What a process makes once and keeps, such as libuv's signal pipe, is no test's leak."""
    swapco.run(lambda: swapco.await_(asyncio.sleep(0)))


@pytest.fixture
def fibers(request: pytest.FixtureRequest, warmed_up: None) -> Iterator[Logged]:
    """The test leaves no live fiber, registration, greenlet, descriptor or pinned thread, and logs no error."""
    logged = Logged()
    logger = logging.getLogger("asyncio")
    logger.addHandler(logged)
    forget_what_exists()
    before = leftovers()
    try:
        yield logged
        if request.node.stash.get(_FAILED, False):
            return
        gc.collect()
        after = leftovers()
        left = {kind: after[kind] - before[kind] for kind in before if after[kind] - before[kind]}
        assert not left, f"the test left something behind: {left}"
        assert not logged.records, f"asyncio logged errors: {logged.take()}"
    finally:
        logger.removeHandler(logged)


@pytest.fixture
def run() -> Callable[..., Any]:
    """``swapco.run``, with a main that must leave no other fiber alive."""

    def run_checked(main: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def checked() -> Any:
            result = main(*args)
            rest = swapco.all_fibers() - {swapco.current_fiber()}
            assert not rest, f"main ended before these fibers: {rest}"
            return result

        return swapco.run(checked, **kwargs)

    return run_checked
