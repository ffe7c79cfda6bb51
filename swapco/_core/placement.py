"""Which CPU the workers of a slot share.

A handoff between two kernel threads costs 2 µs on one CPU and 40 µs between two (futex.h), and only one worker of a
slot runs at a time, so nothing is lost by keeping them together.  The CPU is the one on which home runs when it lends:

- *Workers* are pinned to it when they get the slot, by whoever gives it to them.  One that is detached runs in
  parallel, so it is let go, and moved off the CPU.
- *Home* is pinned only while it sleeps in a lend: so it wakes up on that CPU, and never runs Python code pinned.  What
  the program starts in ordinary fibers and callbacks (threads, pools, libraries with threads, processes), and the new
  workers, which home starts, are born with all CPUs.  It pins itself just before it sleeps, which is seldom
  needed: the kernel mostly runs the worker at once when home wakes it, and a short call is over before home is back
  from that system call; under a real-time policy it pins itself before it wakes the worker (both: placement.h).

The kernel may move home whenever it is awake, and the next lend follows it.  While the slot is lent all the time home
is hardly ever awake; so once a second nobody is pinned for ``REST_S``.

What is started by a worker that has the slot must not inherit the one CPU: inheritance.h sees to what Python starts.

The CPUs to choose from are those of home's own mask.  A mask that is not what was set here last was set by the program:
home's counts from the next lend on, a worker's is left alone until it gets the slot again.  Only a mask that happens to
be the slot's one CPU, set by another thread while home sleeps, cannot be told apart.

A kernel that refuses (seccomp, a cpuset that changed) turns pinning off for this slot: slower, not wrong.

Rejected (figures of the first three: docs/futex-swap.md):

- Home pinned for as long as the slot is lent now and then: all that the program starts meanwhile keeps to one CPU for
  life, and nobody is told of threads that C code starts.
- Home never pinned: mostly as fast, for the reason above; but whenever it does sleep, it wakes up on an idle CPU.
- Home pinned around each lend, whether it sleeps or not: a change of mask costs 1.2 µs, and home is put back into the
  kernel's queue by it, so that the worker does not run at once: two more switches of the kernel for each call.
- Workers pinned only while they sleep: two changes of mask for each switch between thread fibers, which takes 1.8 µs.
"""

from __future__ import annotations

import time

from .affinity import allowed_cpus, current_cpu, forget, own_mask, pin, sleeps_pinned, unpin

__all__ = ["REST_S", "Placement"]

#: How long nobody is pinned once a second.
REST_S = 0.01


class Placement:
    """Where the kernel threads of one slot run; every method is called by the slot's owner."""

    def __init__(self) -> None:
        self._rests_until = 0.0
        self._refused = len(allowed_cpus()) < 2
        #: the CPUs that home might use when the last one was chosen
        self.allowed: frozenset[int] = frozenset()

    def choose(self, home: int) -> int:
        """The CPU on which home runs, which calls this; or -1 if nobody is to be pinned now."""
        if self._refused or time.monotonic() < self._rests_until:
            return -1
        cpu = current_cpu()
        self.allowed = sleeps_pinned(home, cpu)
        return cpu

    def bring(self, thread_id: int, cpu: int) -> bool:
        """Pin a worker there; False if that is impossible."""
        try:
            pin(thread_id, cpu, self.allowed)
        except (OSError, ValueError):
            self._refused = True
            return False
        return True

    def let_go(self, thread_id: int, home: int) -> None:
        """Unpin a worker that has lost the slot, and move it out of the way."""
        try:
            unpin(thread_id, own_mask(home), leave=True)
        except OSError:
            pass

    def forget(self, thread_id: int) -> None:
        """A worker's thread ends, pinned or not."""
        forget(thread_id)

    def rest(self, home: int) -> None:
        """Pin nobody for a while."""
        self._rests_until = time.monotonic() + REST_S
        forget(home)
