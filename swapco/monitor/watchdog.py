"""The watchdog: which fiber keeps all others waiting, and how it spends that time.

Theory
------
A fiber that blocks in the kernel, or computes for long, keeps its kernel thread, the home worker, and with it every
other fiber and the event loop.  It cannot be moved, so the least one can do is to say so: which fiber, for how long,
where in its code, and which of four things it does, because what helps is different for each:

    python   it runs Python code                       -> sleep(0) now and then, or another process
    c        it runs C code that gave up the GIL       -> a thread
    kernel   it sleeps in the kernel, in a named call  -> the cooperative way of doing that, or a thread
    gil      it ran C code that kept the GIL           -> another process

A daemon thread sleeps without the GIL (probe.pyx) until the scheduler has counted no switch for an interval while a
fiber was current.  Then it takes the GIL, and with it in hand looks at the home worker from outside (thread_look.h).

Invariants
----------
- Idle is not busy: while the event loop waits, no fiber is current, and nothing is ever reported.
- Each report is about one fiber that had not switched between two looks, before the evidence was taken and after it.
- C code that keeps the GIL keeps the watchdog, too: it is reported as soon as it ends.  By then the fiber may have
  gone on, and even have ended: the report then has no stack, and perhaps no fiber.
- It keeps no fiber alive, and nothing that a fiber holds: finalizers belong to the loop's thread.
- While the slot is lent to a thread fiber, the home worker only waits for it: nothing is reported.

Rejected: to blame callbacks and asyncio tasks, too (asyncio's debug mode does, after the fact); an exception in the
fiber that blocks (it cannot be delivered into C code, which is where it would be needed); a signal at the home worker
to read its stack (EINTR in the program's system calls).
"""

from __future__ import annotations

import atexit
import linecache
import logging
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .._loop.deadlock import QuietThread
from .._loop.loop import Loop, hub_of
from . import probe as look
from .kernel import describe_call
from .probe import Probe

if TYPE_CHECKING:
    from types import TracebackType

    from .._loop.task import Fiber

__all__ = ["ENVIRONMENT", "INTERVAL_S", "Blocked", "Watchdog", "asked_for"]

ENVIRONMENT = "SWAPCO_WATCHDOG"
INTERVAL_S = 0.1
SHORTEST_S = 0.001
#: A stretch that was reported is reported again when it is this many times as old.
AGAIN = 10
#: A fiber that uses more of a CPU than this runs, though it may sleep just when it is looked at.
MOSTLY_AWAKE = 0.5
#: Where the kernel does not say what a thread does: with less it sleeps.
AWAKE = 0.02
#: C code that computes for so long after it was asked for the GIL keeps it: Python code gives it up after one
#: switch interval, and with other threads about gets some more turns before the watchdog has its own.
SWITCH_INTERVALS = 10
#: When such code is at its end, so many switches are possible at most before Python code gives up the GIL.
SWITCHES = 64
#: One look may hit an exception: a loop that sleeps for a moment, C code that has just fetched its next buffer.  A home
#: worker that wants the GIL now runs Python for certain only if the GIL was taken when the watchdog asked for it.  So
#: unless the first look is beyond doubt, some more are taken, of so many tries, so far apart.
LOOKS = 3
TRIES = 10
PAUSE_NS = 5_000_000
#: How long `stop` waits for a report that is being made.
STOP_S = 5.0

Kind: TypeAlias = Literal["python", "c", "kernel", "gil"]

_WORDS: dict[Kind, str] = {
    "python": "it runs Python code",
    "c": "it runs C code without the GIL",
    "kernel": "it sleeps in the kernel",
    "gil": "it ran C code that kept the GIL",
}


@dataclass(frozen=True)
class Blocked:
    """A fiber kept the home worker, and so every other fiber, for ``seconds`` without a switch.

    ``kind`` is what it does: "python", "c" (C code that gave up the GIL), "kernel" (asleep in a system call) or "gil"
    (C code that kept the GIL: reported when it ends).  ``detail`` says more: the system call, or the share of a CPU.
    ``stack`` is where it is, outermost frame first; empty if it runs no Python code, or had gone on when the watchdog
    could look.  ``name`` is the fiber's; None if it had even ended by then, which only happens with "gil": ``detail``
    then has the number that it is called after (``Fiber-7``) unless it was given a name.  ``seconds`` is a lower bound:
    up to one interval before the watchdog first saw it is not counted.  ``str()`` is the text logged by default.
    """

    name: str | None
    seconds: float
    kind: Kind
    detail: str
    stack: traceback.StackSummary = field(repr=False)
    _fiber: Callable[[], Fiber[Any] | None] = field(repr=False, default=lambda: None)

    @property
    def fiber(self) -> Fiber[Any] | None:
        """The fiber; None if it has ended, and nobody holds it: a report does not."""
        return self._fiber()

    def __str__(self) -> str:
        name = "a fiber that has ended since" if self.name is None else f"fiber {self.name!r}"
        lines = [
            f"{name} kept every other fiber waiting for {self.seconds:.3g} s: {_WORDS[self.kind]} ({self.detail})\n",
            *self.stack.format(),
        ]
        return "".join(lines).rstrip("\n")


def asked_for(watchdog: bool | float | None, debug: bool) -> float | None:
    """The interval in seconds that ``run(..., watchdog=...)`` or the environment asks for; None for no watchdog.

    ValueError and TypeError for anything that is neither None, a truth value nor an interval.
    """
    if watchdog is not None:
        if isinstance(watchdog, bool):
            return INTERVAL_S if watchdog else None
        return _interval(watchdog, "watchdog", "None, True, False or an interval in seconds")
    text = os.environ.get(ENVIRONMENT, "").strip()
    if not text:
        return INTERVAL_S if debug else None
    if text in ("0", "1"):
        return INTERVAL_S if text == "1" else None
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{ENVIRONMENT} must be 0, 1 or an interval in seconds, not {text!r}") from None
    return _interval(number, ENVIRONMENT, "0, 1 or an interval in seconds")


def _interval(value: Any, source: str, what: str) -> float:
    """A checked interval in seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{source} must be {what}, not {value!r}")
    if not SHORTEST_S <= value <= threading.TIMEOUT_MAX or math.isnan(value):
        raise ValueError(f"{source} must be {what}, at least {SHORTEST_S}, not {value!r}")
    return float(value)


def _share(awake: float) -> str:
    return f"{awake:.0%} of a CPU"


class Watchdog:
    """A daemon thread that reports fibers which block or hog the home worker of a loop.

    ``interval`` is in seconds: a fiber is reported that runs for one to two intervals without a switch, and again
    when that has lasted ten times as long, a hundred times, and so on.  ``report`` is called with a ``Blocked``, in the
    watchdog's thread; the default logs its text as a warning of the logger "swapco".  While a ``report`` of yours is in
    place, no ``Deadlock`` is detected: it is code that could wake somebody.

    ``start`` and ``stop``, or a ``with`` block, around ``loop.run_forever()`` or in the thread that runs it.  Errors:
    RuntimeError for a loop that runs no fibers; TypeError or ValueError for a bad interval.
    """

    def __init__(
        self, loop: Loop, interval: float = INTERVAL_S, report: Callable[[Blocked], object] | None = None
    ) -> None:
        self.interval = _interval(interval, "interval", "a number of seconds")
        if report is not None and not callable(report):
            raise TypeError(f"report must be callable with a Blocked, not {report!r}")
        self._scheduler = hub_of(loop).scheduler
        self._report = report
        self._thread: threading.Thread | None = None
        self._probe: Probe | None = None

    def __enter__(self) -> Watchdog:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to watch; if it does so already, nothing.  In a forked child, which has no such thread, again.

        RuntimeError if no thread can be started, as when the interpreter exits.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        probe = Probe(self._scheduler, int(self.interval * 1e9))
        kind = QuietThread if self._report is None else threading.Thread
        thread = kind(target=self._run, args=(probe,), name="swapco-watchdog", daemon=True)
        thread.start()
        self._thread, self._probe = thread, probe
        # a thread that is still there when the interpreter is taken apart would look at freed memory
        atexit.register(self.stop)

    def stop(self) -> None:
        """Watch no more.  Waits until the thread has ended, for some seconds if a report is being made; then, and
        in a forked child, it is left alone.  More than once is fine."""
        thread, self._thread = self._thread, None
        probe, self._probe = self._probe, None
        if thread is None or probe is None:
            return
        atexit.unregister(self.stop)
        probe.stop()
        if thread is not threading.current_thread():
            thread.join(STOP_S)

    # -- in the thread

    def _run(self, probe: Probe) -> None:
        while probe.wait():
            # in a frame of its own: what it found must not live until there is more to report
            self._visit(probe)

    def _visit(self, probe: Probe) -> None:
        found = self._judge(probe)
        if found is None:
            return
        try:
            if self._report is None:
                logging.getLogger("swapco").warning("%s", found)
            else:
                self._report(found)
        except Exception as error:
            sys.unraisablehook(
                SimpleNamespace(
                    exc_type=type(error),
                    exc_value=error,
                    exc_traceback=error.__traceback__,
                    err_msg=f"swapco: the report {self._report!r} of a watchdog raised",
                    object=self._report,
                )
            )

    def _judge(self, probe: Probe) -> Blocked | None:
        """A stretch is suspicious: what is it?  None if there is nothing to report."""
        if not probe.find_home():
            # another thread runs the loop since: the CPU time was of the wrong one
            probe.restart()
            return None
        if (
            probe.gil_cpu_ns >= self._long_for_the_gil_s() * 1e9
            # else another thread kept it, and the home worker does very well without
            and not (probe.goes_on() and probe.look()[0] in (look.C, look.ASLEEP))
        ):
            return self._kept_the_gil(probe)
        if not probe.goes_on():
            return None
        found = probe.running()
        if found is None:
            return None
        fiber, name, threaded = found
        if threaded:
            probe.look_again(math.inf)
            return None
        awake = probe.awake
        seconds = probe.seconds
        stack = _stack(probe)
        kind, detail = self._kind(probe, awake)
        if not kind:
            return None
        probe.look_again(AGAIN)
        return Blocked(name, seconds, kind, detail, stack, fiber)

    def _kind(self, probe: Probe, awake: float) -> tuple[Kind | None, str]:
        """Look at the home worker as often as it takes; None if the stretch ended before anything was seen."""
        kept_s = probe.gil_wait_ns / 1e9
        seen: list[int] = []
        last: int | None = None
        call: tuple[int | None, int] = None, 0
        gil_was_free = False
        for _ in range(TRIES):
            state, number, first_argument = probe.look()
            if not probe.goes_on():
                break
            last = state
            gil_was_free = probe.gil_wait_ns < sys.getswitchinterval() * 1e9 / 2
            if state == look.ASLEEP:
                call = number, first_argument
            if state != look.UNCLEAR and not (state == look.PYTHON and gil_was_free):
                seen.append(state)
            if seen == [look.PYTHON] or len(seen) == LOOKS:
                break
            if (state in (look.ASLEEP, look.UNREADABLE) and awake < AWAKE) or not probe.pause(PAUSE_NS):
                break
        if last is None:
            return None, ""
        if not seen and last == look.UNCLEAR and awake < MOSTLY_AWAKE:
            # it waits for a CPU: nobody's fault, and next time there is more to see
            return None, ""
        if not seen:
            # no CPU for it all the time, or it takes and gives up the GIL too often to be met with or without it
            seen.append(look.C if last == look.UNCLEAR and gil_was_free else look.PYTHON)
        if look.ASLEEP in seen and awake < MOSTLY_AWAKE:
            return "kernel", describe_call(*call)
        if look.UNREADABLE in seen and look.C not in seen and awake < AWAKE:
            return "kernel", describe_call(None)
        if seen.count(look.C) > seen.count(look.PYTHON):
            return "c", _share(awake)
        detail = _share(awake)
        if kept_s >= self._long_for_the_gil_s():
            detail += ", while another thread, or C code that slept, kept the GIL"
        return "python", detail

    def _long_for_the_gil_s(self) -> float:
        """Who keeps the GIL for so long does not run Python."""
        return max(self.interval / 2, SWITCH_INTERVALS * sys.getswitchinterval())

    def _kept_the_gil(self, probe: Probe) -> Blocked | None:
        """The home worker computed for long while it was asked for the GIL."""
        stack = _stack(probe)
        seconds = probe.seconds
        if probe.goes_on():
            found = probe.running()
            probe.look_again(AGAIN)
        elif probe.switches_since > SWITCHES:
            # the GIL could have been had for long: it was the watchdog that got no CPU
            return None
        else:
            found = probe.suspect()
            stack = traceback.StackSummary()
        detail = f"for at least {probe.gil_wait_ns / 1e9:.3g} s"
        if found is None:
            if probe.number:
                detail += f"; called Fiber-{probe.number} unless it has another name"
            return Blocked(None, seconds, "gil", detail, stack)
        fiber, name, threaded = found
        return None if threaded else Blocked(name, seconds, "gil", detail, stack, fiber)


def _stack(probe: Probe) -> traceback.StackSummary:
    """Where the home worker is, as far as it runs Python: as of ``traceback.StackSummary.extract``, but of frames that
    nobody holds."""
    stack = traceback.StackSummary()
    for code, namespace, line in reversed(probe.places()):
        linecache.lazycache(code.co_filename, namespace)
        stack.append(traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False))
    for file in {frame.filename for frame in stack}:
        linecache.checkcache(file)
    return stack
