"""Which CPU the workers of a slot share.

A handoff between two kernel threads costs 2 µs on one CPU and 40 µs between two (futex.h), and only one worker of a
slot runs at a time, so nothing is lost by keeping them together: the home worker and whoever gets the slot are pinned
to the CPU on which home ran.  It stays pinned while the slot is lent now and then, for a second at most; then it is
let go for ``REST_S``, in which the kernel may balance, and the next lend takes the CPU that the kernel chose.  A
worker that is detached runs in parallel, so it is let go, and moved off the CPU.

A program that is started meanwhile must not inherit the one CPU: inheritance.h sees to that.

A kernel that refuses (seccomp, a cpuset that changed) turns pinning off for this slot: slower, not wrong.
"""

from __future__ import annotations

import time

from .affinity import allowed_cpus, current_cpu, forget, pin, unpin

__all__ = ["REST_S", "Placement"]

#: How long home runs unpinned once a second.
REST_S = 0.01


class Placement:
    """Pins and unpins the kernel threads of one slot; every method is called by the slot's owner."""

    def __init__(self) -> None:
        self._rests_until = 0.0
        self._refused = len(allowed_cpus()) < 2
        #: the CPUs that the process might use when the last one was chosen
        self.allowed: frozenset[int] = frozenset()

    def choose(self, home: int) -> int:
        """Pin home, which calls this, to the CPU it runs on: that CPU, or -1 if it is to stay unpinned."""
        if self._refused or time.monotonic() < self._rests_until:
            return -1
        self.allowed = allowed_cpus()
        cpu = current_cpu()
        return cpu if self.bring(home, cpu) else -1

    def bring(self, thread_id: int, cpu: int) -> bool:
        """Pin a thread there; False if that is impossible."""
        try:
            pin(thread_id, cpu)
        except (OSError, ValueError):
            self._refused = True
            return False
        return True

    def let_go(self, thread_id: int) -> None:
        """Unpin a worker that has lost the slot, and move it out of the way."""
        try:
            unpin(thread_id, leave=True)
        except OSError:
            pass

    def forget(self, thread_id: int) -> None:
        """A worker's thread ends, pinned or not."""
        forget(thread_id)

    def rest(self, home: int) -> None:
        """Unpin home for a while."""
        self._rests_until = time.monotonic() + REST_S
        try:
            unpin(home)
        except OSError:
            pass
