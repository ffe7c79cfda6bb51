"""Who may resume or cancel a fiber: a fiber, a loop callback, an asyncio task, another thread, a signal handler; and
the fibers that have a kernel thread of their own, with the slot or without it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from helpers import SOON_S

import swapco

__all__ = ["ACTORS", "THREAD_ACTORS", "Crew", "quick_switches", "spin_until"]

#: Every kind of caller; ``Crew.act`` takes one of these.
ACTORS = ("fiber", "callback", "task", "thread", "signal")
#: These, too.
THREAD_ACTORS = ("thread fiber", "detached fiber", "offloaded call")


def spin_until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait in this thread (no fiber runs meanwhile, if it is the home worker)."""
    give_up = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < give_up, f"{what} did not come true within {SOON_S} s"
        os.sched_yield()


@contextmanager
def quick_switches() -> Iterator[None]:
    """Threads take turns every microsecond instead of every five milliseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Crew:
    """Does calls on behalf of others.  Used in a fiber; ``with`` waits for everything that was begun."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.errors: list[BaseException] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: object, *ignored: object) -> None:
        self.finish()
        if kind is None:
            assert not self.errors, self.errors

    def finish(self) -> None:
        """Wait for everybody."""
        begun, self.begun = self.begun, []
        for one in begun:
            if isinstance(one, swapco.Fiber):
                one.join(SOON_S)
            elif isinstance(one, threading.Thread):
                # it may need the slot to make progress: let others run
                while one.is_alive():
                    swapco.sleep(0.001)
            else:
                swapco.await_(one)

    def act(self, actor: str, call: Callable[[], Any]) -> None:
        """Have ``actor`` do the call, soon."""

        def guarded() -> None:
            try:
                call()
            except BaseException as error:
                self.errors.append(error)

        async def in_task() -> None:
            guarded()

        def without_the_slot() -> None:
            with swapco.blocking():
                guarded()

        if actor == "fiber":
            self.begun.append(swapco.spawn(guarded))
        elif actor == "thread fiber":
            self.begun.append(swapco.spawn(guarded, thread=True))
        elif actor == "detached fiber":
            self.begun.append(swapco.spawn(without_the_slot, thread=True))
        elif actor == "offloaded call":
            self.begun.append(swapco.spawn(swapco.to_thread, guarded))
        elif actor == "callback":
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            loop.call_soon(lambda: (guarded(), done.set_result(None)))
            self.begun.append(done)
        elif actor == "task":
            self.begun.append(asyncio.get_running_loop().create_task(in_task()))
        elif actor == "thread":
            thread = threading.Thread(target=guarded)
            self.begun.append(thread)
            thread.start()
        else:
            assert actor == "signal"
            before = signal.signal(signal.SIGUSR1, lambda *_: guarded())

            def send() -> None:
                # also when the home worker sleeps in the kernel
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

            thread = threading.Thread(target=send)
            thread.start()
            thread.join(SOON_S)
            # the handler may run a little later, but it is called before this returns to its caller's loop
            time.sleep(0)
            signal.signal(signal.SIGUSR1, before)
