"""Clocks, and the one timer heap of a scheduler.

A ``Clock`` says what time it is, in nanoseconds of a monotonic scale.  It is a constructor argument of
everything that measures time, so that a test can inject ``ManualClock`` and decide how time goes by;
no code below reads the kernel's clock in any other way.

The heap is a binary heap of ``(deadline, sequence)``: timers of one deadline fire in the order in which
they were armed.  Every timer knows its index, so that disarming is a removal, not a tombstone: a server
that arms a timeout per request and disarms it a millisecond later keeps a heap of live timers only.

Invariants: a timer is in at most one heap, and in it at most once; the heap holds a reference to every
armed timer; none fires before its deadline.

Rejected: a timing wheel (coarse deadlines, and a few thousand timers cost a binary heap 12 comparisons);
lazy deletion (memory grows with the request rate times the timeout).
"""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport isinf, isnan

cdef extern from "time.h" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *ts)
    int CLOCK_MONOTONIC


cdef class Clock:
    """The monotonic clock of the kernel (``CLOCK_MONOTONIC``), as asyncio's ``loop.time``."""

    cdef long long now_ns(self) noexcept:
        cdef timespec ts
        clock_gettime(CLOCK_MONOTONIC, &ts)
        return <long long>ts.tv_sec * 1_000_000_000 + ts.tv_nsec

    def time(self) -> float:
        """Now, in seconds."""
        return self.now_ns() / 1e9

    def time_ns(self) -> int:
        """Now, in nanoseconds."""
        return self.now_ns()


cdef class ManualClock(Clock):
    """A clock that stands still until ``advance`` moves it: for tests."""

    def __init__(self, start: float = 0.0):
        self._now_ns = duration_ns(start)

    cdef long long now_ns(self) noexcept:
        return self._now_ns

    def advance(self, seconds: float) -> None:
        """Move the clock forward by ``seconds``.  Timers fire at the next turn of whoever owns them."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back: advance({seconds!r})")
        self._now_ns += duration_ns(seconds)

    cdef bint may_jump(self) noexcept:
        return False


cdef class VirtualClock(ManualClock):
    """A clock that stands still while anything can run, and jumps to the next deadline when nothing can: for tests.

    A test that sleeps for a year takes no time.  ``start`` is what it shows at first, in seconds; ``autojump=False``
    leaves it to ``advance`` to move it.  Errors: TypeError and ValueError for arguments that make no sense.
    """

    def __init__(self, start: float = 0.0, *, autojump: object = True):
        if not isinstance(autojump, bool):
            raise TypeError(f"autojump is True or False, not {autojump!r}")
        ManualClock.__init__(self, start)
        self.autojump = autojump

    cdef bint may_jump(self) noexcept:
        return self.autojump


cdef class Timer:
    """Something that happens at a deadline: subclasses say what, in ``fire``."""

    def __cinit__(self, *args, **kwargs):
        self._index = -1

    cdef int fire(self) except -1:
        raise TypeError(f"{type(self).__name__} does not say what to do when it fires")

    @property
    def armed(self) -> bool:
        """True while the timer waits in a heap."""
        return self._index >= 0


cdef class TimerHeap:
    """Timers ordered by deadline, those of one deadline in the order of arming."""

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self._count):
            Py_DECREF(<Timer>self._entries[i].timer)
        PyMem_Free(self._entries)

    def __len__(self) -> int:
        return self._count

    cdef int arm(self, Timer timer, long long deadline_ns) except -1:
        """Put a timer that is not armed into the heap."""
        cdef HeapEntry *grown
        cdef Py_ssize_t capacity
        if timer._index >= 0:
            raise RuntimeError("this timer is armed already: disarm it first")
        if self._count == self._capacity:
            capacity = self._capacity * 2 if self._capacity else 64
            grown = <HeapEntry *>PyMem_Realloc(self._entries, capacity * sizeof(HeapEntry))
            if grown == NULL:
                raise MemoryError("no memory for another timer")
            self._entries = grown
            self._capacity = capacity
        Py_INCREF(timer)
        timer.deadline_ns = deadline_ns
        timer._sequence = self._sequence
        self._sequence += 1
        self.housekeeping += timer.housekeeping
        timer._index = self._count
        self._entries[self._count] = HeapEntry(deadline_ns, timer._sequence, <void *>timer)
        self._count += 1
        self._up(timer._index)
        return 0

    cdef int disarm(self, Timer timer) except -1:
        """Take a timer out; one that is not armed stays as it is."""
        cdef Py_ssize_t i = timer._index
        cdef HeapEntry last
        if i < 0:
            return 0
        if i >= self._count or self._entries[i].timer != <void *>timer:
            raise RuntimeError("this timer is armed in another heap")
        timer._index = -1
        self.housekeeping -= timer.housekeeping
        self._count -= 1
        last = self._entries[self._count]
        if i != self._count:
            self._place(i, last)
            self._up(i)
            self._down((<Timer>last.timer)._index)
        Py_DECREF(timer)
        return 0

    cdef long long head_ns(self) noexcept:
        """The earliest deadline, or ``NEVER_NS``."""
        return self._entries[0].deadline_ns if self._count else NEVER_NS

    cdef Timer pop_due(self, long long now_ns):
        """Take out the head if its deadline has come; else None."""
        cdef Timer timer
        if not self._count or self._entries[0].deadline_ns > now_ns:
            return None
        timer = <Timer>self._entries[0].timer
        self.disarm(timer)
        return timer

    cdef void _place(self, Py_ssize_t i, HeapEntry entry) noexcept:
        self._entries[i] = entry
        (<Timer>entry.timer)._index = i

    cdef void _up(self, Py_ssize_t i) noexcept:
        cdef HeapEntry entry = self._entries[i]
        cdef Py_ssize_t parent
        while i > 0:
            parent = (i - 1) >> 1
            if not _before(&entry, &self._entries[parent]):
                break
            self._place(i, self._entries[parent])
            i = parent
        self._place(i, entry)

    cdef void _down(self, Py_ssize_t i) noexcept:
        cdef HeapEntry entry = self._entries[i]
        cdef Py_ssize_t child
        while True:
            child = 2 * i + 1
            if child >= self._count:
                break
            if child + 1 < self._count and _before(&self._entries[child + 1], &self._entries[child]):
                child += 1
            if not _before(&self._entries[child], &entry):
                break
            self._place(i, self._entries[child])
            i = child
        self._place(i, entry)


cdef inline bint _before(HeapEntry *a, HeapEntry *b) noexcept:
    if a.deadline_ns != b.deadline_ns:
        return a.deadline_ns < b.deadline_ns
    return a.sequence < b.sequence


cdef long long duration_ns(object seconds) except -1:
    """A duration in seconds as nanoseconds: negative ones become 0, the endless ones ``NEVER_NS``.

    Errors: NaN is a ValueError, something that is not a number a TypeError.
    """
    cdef double value
    if isinstance(seconds, (str, bytes)):
        raise TypeError(f"a duration is a number of seconds, not {type(seconds).__name__!r}")
    value = seconds
    if isnan(value):
        raise ValueError("a duration in seconds cannot be NaN")
    if value <= 0:
        return 0
    if isinf(value) or value > 9.0e9:
        return NEVER_NS
    # up, never down: a sleep must not end early because of rounding
    return <long long>(value * 1e9 + 0.999)


cdef long long deadline_after(Clock clock, object seconds) except -1:
    """The point in time ``seconds`` from now; None is never, negative is now."""
    cdef long long duration, now
    if seconds is None:
        return NEVER_NS
    duration = duration_ns(seconds)
    if duration == NEVER_NS:
        return NEVER_NS
    now = clock.now_ns()
    return now + duration if duration < <long long>NEVER_NS - now else NEVER_NS


cdef class _CallbackTimer(Timer):
    """A timer of the Python-visible heap."""

    cdef object callback

    cdef int fire(self) except -1:
        self.callback()
        return 0


class PyTimerHeap:
    """The heap as Python sees it: for the tests of this file.

    The scheduler uses ``TimerHeap`` directly.
    """

    def __init__(self):
        self._heap = TimerHeap()

    def __len__(self) -> int:
        return len(self._heap)

    def arm(self, deadline_ns: int, callback) -> Timer:
        cdef _CallbackTimer timer = _CallbackTimer()
        timer.callback = callback
        (<TimerHeap>self._heap).arm(timer, deadline_ns)
        return timer

    def disarm(self, Timer timer) -> None:
        (<TimerHeap>self._heap).disarm(timer)

    def head_ns(self) -> int:
        return (<TimerHeap>self._heap).head_ns()

    def fire_due(self, now_ns: int) -> int:
        """Fire what is due; returns how many."""
        cdef Timer timer
        cdef int fired = 0
        while True:
            timer = (<TimerHeap>self._heap).pop_due(now_ns)
            if timer is None:
                return fired
            timer.fire()
            fired += 1
