"""What the tests of the watchdog have in common: fibers that block, and what is reported of them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from helpers import SOON_S

import swapco
from swapco.monitor import Blocked, Watchdog

BACKENDS = ("native", "greenlet")
SHORT_S = 0.02
#: Nobody is kept from running for so long, however busy the machine is.
LONG_S = 0.4


class Reports:
    """What a watchdog reported; ``on_report`` is called after each one.

    With ``of`` only what it reported of fibers of this name: the main fiber may be slow, too, on a busy machine.
    """

    def __init__(self, on_report: Callable[[], object] = int, of: str | None = None) -> None:
        self.all: list[Blocked] = []
        self.on_report = on_report
        self.of = of
        self.came = threading.Event()

    def __call__(self, found: Blocked) -> None:
        assert threading.current_thread().name == "swapco-watchdog"
        if self.of is not None and found.name != self.of:
            return
        self.all.append(found)
        self.came.set()
        self.on_report()


def here(**keywords: Any) -> Watchdog:
    """A watchdog of the running loop."""
    keywords.setdefault("interval", SHORT_S)
    return Watchdog(asyncio.get_running_loop(), **keywords)  # type: ignore[arg-type]


def caught(block: Callable[[threading.Event], object], *, switch: str | None = None, **keywords: Any) -> Blocked:
    """The first report of a fiber that runs ``block(event)``, which goes on until the event is set."""
    reports = Reports(of="the culprit", **keywords)

    def main() -> None:
        with here(report=reports):
            swapco.spawn(block, reports.came, name="the culprit").join()

    swapco.run(main, switch=switch)
    found = reports.all[0]
    assert found.seconds >= SHORT_S * 0.8
    return found


def give_up_at() -> float:
    return time.monotonic() + SOON_S


def compute(until: threading.Event) -> None:
    end = give_up_at()
    while not until.is_set():
        assert time.monotonic() < end, "no report came"


BUFFER = bytes(1 << 24)


def hash_in_c(until: threading.Event) -> None:
    """Nearly all the time without the GIL."""
    end = give_up_at()
    while not until.is_set():
        hashlib.sha256(BUFFER)
        assert time.monotonic() < end, "no report came"


def sleep_in_kernel(until: threading.Event) -> None:
    end = give_up_at()
    while not until.is_set():
        time.sleep(0.3)
        assert time.monotonic() < end, "no report came"


class Collected(logging.Handler):
    """What is logged as "swapco"."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.levels: set[str] = set()
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.levels.add(record.levelname)
        self.came.set()

    def __enter__(self) -> Collected:
        logging.getLogger("swapco").addHandler(self)
        return self

    def __exit__(self, *ignored: object) -> None:
        logging.getLogger("swapco").removeHandler(self)


PRELUDE = f"""
import asyncio, os, sys, threading, time
import swapco
from swapco import *
from swapco.monitor import Watchdog

class Once:
    # a report that ends the blocking
    def __init__(self):
        self.came = threading.Event()
    def __call__(self, found):
        self.came.set()

def compute(until):
    end = time.monotonic() + {SOON_S}
    while not until.is_set():
        assert time.monotonic() < end

def elsewhere(*args):
    # in a thread that is there to the end
    threading.Thread(target=run, args=args, kwargs={{"watchdog": 0.001}}, daemon=True).start()
    time.sleep(0.1)

def watched(interval={SHORT_S}):
    once = Once()
    with Watchdog(asyncio.get_running_loop(), interval, once):
        compute(once.came)
"""
