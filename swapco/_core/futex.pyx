"""``FutexWord``: the block / wake / swap primitive of kernel threads, for Python.

The protocol, its invariants and its memory ordering are in ``futex.h``.  This file adds what only Python can
know: when the GIL is held, when signal handlers run, and which exception says what.

- The GIL is released around every system call.  In a swap it is released before the target is woken, so that
  the target finds it free; in a wait it is released once the word says "blocked", so that a queued wakeup is
  taken without giving it up.
- Handlers run with the GIL, with the word taken back and the wait still entered: a handler may wake this
  word, and a wait on it from inside the handler is refused like any second waiter.
"""

from typing import NamedTuple

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport strerror

from .clock cimport duration_ns

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident()

# the value of a word: where its thread is
BLOCKED: int = SWAPCO_WORD_BLOCKED
RUNNING: int = SWAPCO_WORD_RUNNING
QUEUED: int = SWAPCO_WORD_QUEUED

cdef tuple STATE_NAMES = ("blocked", "running", "queued")  # by value + 1


class Transition(NamedTuple):
    """One row of the protocol: what an atomic step does to a word in one of its three values."""

    step: str
    before: int
    after: int
    outcome: str


TRANSITIONS: tuple = tuple([
    Transition(
        swapco_word_step_names[step].decode(),
        value,
        swapco_word_table[step][value + 1].after,
        swapco_word_outcome_names[swapco_word_table[step][value + 1].outcome].decode(),
    )
    for step in range(SWAPCO_WORD_N_STEPS)
    for value in (BLOCKED, RUNNING, QUEUED)
])


cdef int64_t deadline_of(object timeout) except -1:
    """The absolute deadline of a wait; the kernel's clock, because the kernel is to keep it."""
    cdef int64_t duration, now
    if timeout is None:
        return SWAPCO_DEADLINE_NEVER
    duration = duration_ns(timeout)
    if duration == 0:
        return SWAPCO_DEADLINE_PAST
    now = swapco_monotonic_ns()
    return now + duration if duration < SWAPCO_DEADLINE_NEVER - now else SWAPCO_DEADLINE_NEVER


@cython.final
cdef class FutexWord:
    """A 32-bit futex word on its own cache line, at which one kernel thread waits and others wake it.

    Every operation concerns *kernel threads*: a wait blocks the calling kernel thread with all its fibers,
    not only the calling fiber.  Use ``block``, ``resume`` and ``switch_to`` between fibers.

    The word counts like this: ``wake`` adds one, ``wait`` takes one away and returns once somebody has added
    it back.  So a wake and a wait give the same result in either order, at most one wakeup can be queued, and
    none is lost.  One thread at a time may wait.

    Two threads hand a CPU to each other fastest when both are pinned to it (``swapco._core.affinity``).

    After a fork the child's word is independent of the parent's.  A word on which another thread waited at
    that moment is of no use in the child: make a new one.
    """

    def __cinit__(self):
        self.line = swapco_word_new()
        if self.line == NULL:
            raise MemoryError("no memory for a futex word")

    def __dealloc__(self):
        free(self.line)

    def wait(self, timeout: float | None = None) -> None:
        """Block the calling kernel thread (not only the fiber) until the word is woken.

        Returns at once, without a system call, if a wakeup is queued.

        ``timeout`` is in seconds; ``None`` and infinity wait for ever, zero and negative ones expire at
        once (but take a queued wakeup).  It does not fire early.  If a wake races with the timeout or with
        a signal, exactly one of them wins, and a wake that lost is queued for the next wait.

        Python's signal handlers run during a wait in the main thread, so Ctrl-C interrupts it; if the wake
        came first, the wait returns and the handler runs right after it.

        Errors: ``TimeoutError`` when the time is over, ``ValueError`` if ``timeout`` is NaN,
        ``RuntimeError`` if another thread waits on this word, and whatever a signal handler raises.
        """
        cdef int64_t deadline_ns = deadline_of(timeout)
        cdef int error = 0
        self._enter()
        try:
            self._finish(self._park(deadline_ns, &error), error, deadline_ns, timeout)
        finally:
            swapco_word_leave(self.line)

    def wake(self) -> bool:
        """Wake the thread that waits on the word, or queue the wakeup for the next wait.  Never blocks.

        Returns True if a thread was blocked and is woken by this call, False if the wakeup was queued.

        Errors: ``RuntimeError`` if a wakeup is queued already; the word stays as it was.
        """
        cdef swapco_word_outcome posted = swapco_word_apply(self.line, SWAPCO_WORD_POST)
        if posted == SWAPCO_WORD_REFUSED:
            raise overfull(self)
        if posted == SWAPCO_WORD_KEPT:
            return False
        with nogil:
            swapco_word_rouse(self.line)
        return True

    def swap(self, target: FutexWord, timeout: float | None = None) -> None:
        """Wake ``target`` and wait on this word: the calling kernel thread hands its CPU over.

        The same as ``target.wake()`` followed by ``self.wait(timeout)``, except that the GIL is released
        before the target is woken, so that the target does not find it taken.  It blocks the calling
        kernel thread (not only the fiber).  If a wakeup is queued for this word, ``target`` is woken and
        the call returns at once.

        ``timeout`` is in seconds, as for ``wait``.  When it expires, or a signal handler raises, the target
        has been woken all the same.

        Errors: those of ``wait``; ``RuntimeError`` if a wakeup is queued for ``target``, ``ValueError`` if
        ``target`` is this word.  After a ``RuntimeError`` or ``ValueError`` nothing has changed.
        """
        cdef int64_t deadline_ns = deadline_of(timeout)
        cdef swapco_word *line = self.line
        cdef swapco_word *target_line = target.line
        cdef swapco_word_outcome parked = SWAPCO_WORD_REFUSED
        cdef swapco_wait_end end = SWAPCO_WAIT_WOKEN
        cdef int error = 0
        cdef bint posted
        if target is self:
            raise ValueError("a word cannot be swapped with itself: swap() wakes one thread, blocks another")
        self._enter()
        try:
            with nogil:
                posted = swapco_word_hand_over(line, target_line, &parked)
                if posted and parked == SWAPCO_WORD_PARKED:
                    end = swapco_word_sleep(line, deadline_ns, &error)
            if not posted:
                raise overfull(target)
            self._finish(end, error, deadline_ns, timeout)
        finally:
            swapco_word_leave(line)

    @property
    def value(self) -> int:
        """-1 blocked, 0 running, +1 a wakeup queued.  A snapshot: it may be old when it arrives."""
        return swapco_word_value_now(self.line)

    def __repr__(self) -> str:
        cdef uint64_t waiter = swapco_word_waiter_now(self.line)
        cdef str state = STATE_NAMES[swapco_word_value_now(self.line) + 1]
        cdef str where = f" thread={waiter}" if waiter else ""
        return f"<FutexWord {state}{where} at {<size_t>self.line:#x}>"

    cdef int _enter(self) except -1:
        if swapco_word_enter(self.line, PyThread_get_thread_ident()):
            return 0
        raise RuntimeError(
            f"{self!r} has a waiting thread already: one at a time may wait, so give each thread a word"
        )

    cdef swapco_wait_end _park(self, int64_t deadline_ns, int *error) noexcept:
        """Take a queued wakeup, or sleep."""
        cdef swapco_word *line = self.line
        cdef swapco_wait_end end
        if swapco_word_apply(line, SWAPCO_WORD_PARK) == SWAPCO_WORD_TOOK:
            return SWAPCO_WAIT_WOKEN
        with nogil:
            end = swapco_word_sleep(line, deadline_ns, error)
        return end

    cdef int _finish(self, swapco_wait_end end, int error, int64_t deadline_ns, object timeout) except -1:
        """What the end of a sleep means; after signal handlers that did not raise, wait on."""
        while end == SWAPCO_WAIT_INTERRUPTED:
            PyErr_CheckSignals()
            end = self._park(deadline_ns, &error)
        if end == SWAPCO_WAIT_TIMED_OUT:
            raise TimeoutError(f"nobody woke the futex word within {timeout} seconds")
        if end == SWAPCO_WAIT_FAILED:
            raise OSError(error, f"futex(2) failed: {strerror(error).decode()}")
        return 0


cdef object overfull(FutexWord word):
    return RuntimeError(
        f"{word!r} has a wakeup queued already, and room for one: its thread must wait before the next wake"
    )
