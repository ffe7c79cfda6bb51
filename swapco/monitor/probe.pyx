"""How a thread without the GIL watches a scheduler, and looks at its home worker when nothing moves.

Theory
------
The scheduler counts its switches.  As long as the counter moves, or no fiber is current, everything is well, and that
can be seen without the GIL: two loads from memory ten times a second.  So a watchdog costs a healthy program nothing.
Only when one fiber has been current for an interval without any switch does the thread ask for the GIL, and Python
code (watchdog.py) finds out the rest, with ``look``.

How long the GIL took to come, and how much CPU time the home worker used meanwhile, is itself evidence: code in
Python gives it up after the switch interval (5 ms), so a home worker that computes for longer, while it is asked for
the GIL, runs C code that keeps it.

Invariants
----------
- Without the GIL, only the counter, the *address* of the current fiber and the stop lock are touched: the fiber may
  be freed at any moment.  Its number is copied by the kernel, which gives an error where memory is gone, and the copy
  counts only if the same fiber was current before and after it.
- Time in which the home worker could have run, and the kernel gave it no CPU, does not make a stretch suspicious.
  Neither does time in which this thread did not run though it could have: the process was stopped, probably.
- Nothing of a fiber is held while others may run: what is found out is a weak reference, and text.  Else the watchdog's
  thread could be the last that lets go of a fiber, or of what its frames hold, and finalizers would run in it.  Cython
  code keeps the GIL, so ``suspect``, ``running`` and ``places`` are in here.
- A ``Probe`` belongs to the one thread that calls ``wait`` and ``pause``.  Others only call ``stop``.

Rejected: a hook at each switch (10 ns a switch, where this is free); a sample with the GIL held at each tick (makes the
home worker give it up ten times a second, and 5 ms late); SIGPROF or SIGALRM at the home worker (interrupts the
program's system calls); ctypes and the ``time`` module instead of this file (each call into the kernel gives the GIL
up, which wakes the very thread that is looked at).
"""

import weakref

from cpython.object cimport PyObject
from posix.time cimport CLOCK_MONOTONIC

from .._core.fiber cimport FiberCore
from .._core.scheduler cimport Scheduler

from .._core.frames import frames_of_threads

cdef extern from "pythread.h" nogil:
    ctypedef void *PyThread_type_lock
    enum:
        PY_LOCK_ACQUIRED
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    void PyThread_release_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible)

cdef extern from "thread_look.h" nogil:
    enum:
        LOOK_UNCLEAR
        LOOK_PYTHON
        LOOK_C
        LOOK_ASLEEP
        LOOK_UNREADABLE
    long long look_clock_ns(int clock)
    long long look_cpu_ns(int tid)
    long long look_starved_ns(int tid, long long *runs)
    bint look_copy(void *to, const void *source, size_t n)
    int thread_look(const char *folder, int tid, long *number, unsigned long *first)

cdef enum:
    # later than this, and the process was stopped or the machine is overloaded
    TOO_LATE_NS = 500_000_000

cdef long long NEVER_NS = 0x7FFF_FFFF_FFFF_FFFF

UNCLEAR = LOOK_UNCLEAR
PYTHON = LOOK_PYTHON
C = LOOK_C
ASLEEP = LOOK_ASLEEP
UNREADABLE = LOOK_UNREADABLE


cdef inline long long _now_ns() noexcept nogil:
    return look_clock_ns(CLOCK_MONOTONIC)


cdef object facts(FiberCore fiber):
    return weakref.ref(fiber), fiber.name, fiber.threaded != 0


cdef class Probe:
    """Watches one scheduler; a *stretch* is the time in which one fiber runs without a switch."""

    cdef Scheduler scheduler
    cdef bytes folder
    cdef long long interval_ns
    cdef PyThread_type_lock stop_lock
    cdef bint stopped
    # of the home worker; 0 while there is none
    cdef int home_tid
    # the counter at the last tick, and whether a fiber was current then
    cdef unsigned long long switches
    cdef bint busy
    # when the stretch was first seen, in wall and in CPU time; how old it must be to be looked at
    cdef long long since_ns
    cdef long long cpu_since_ns
    # how long the home worker had waited for a CPU by then
    cdef long long starved_since_ns
    cdef long long due_ns
    cdef long long ticked_ns
    # the number of the fiber of the last suspicion; 0 if it is not known
    cdef readonly unsigned long long number
    # what it took to get the GIL the last time: time, and CPU time of the home worker in that
    cdef readonly long long gil_wait_ns
    cdef readonly long long gil_cpu_ns
    # of this thread, when it asked for the GIL
    cdef long long starved_ns
    cdef long long runs

    def __cinit__(self, Scheduler scheduler not None, long long interval_ns, str folder="/proc/self/task"):
        self.scheduler = scheduler
        self.interval_ns = interval_ns
        self.folder = folder.encode()
        self.stop_lock = PyThread_allocate_lock()
        if self.stop_lock == NULL:
            raise MemoryError("there is no lock to stop the watchdog with")
        PyThread_acquire_lock_timed(self.stop_lock, 0, 0)
        self.find_home()

    def __dealloc__(self):
        if self.stop_lock != NULL:
            PyThread_free_lock(self.stop_lock)

    def stop(self) -> None:
        """``wait`` and ``pause`` return at once, now and for ever; from any thread, more than once."""
        if not self.stopped:
            self.stopped = True
            PyThread_release_lock(self.stop_lock)

    cpdef bint find_home(self):
        """Ask who the home worker is; True if it is still the same."""
        cdef int tid = 0 if self.scheduler.slot.home is None else <int>self.scheduler.slot.home.native_id
        cdef bint same = tid == self.home_tid and tid != 0
        self.home_tid = tid
        return same

    def wait(self) -> bool:
        """Sleep until a stretch is as old as it must be to be looked at; False when it is time to stop."""
        cdef bint suspicious = False
        with nogil:
            self.ticked_ns = _now_ns()
            while not suspicious and self.sleep(self.interval_ns):
                suspicious = self.tick()
            if suspicious:
                self.note_number()
                self.ask()
        if suspicious:
            self.have()
        return suspicious

    def pause(self, long long duration_ns) -> bool:
        """Sleep for so long, without the GIL; False when it is time to stop."""
        cdef bint goes_on
        with nogil:
            goes_on = self.sleep(duration_ns)
            self.ask()
        self.have()
        return goes_on

    cdef int ask(self) noexcept nogil:
        """The next thing is to ask for the GIL: measure how long that takes."""
        self.starved_ns = look_starved_ns(0, &self.runs)
        self.gil_cpu_ns = look_cpu_ns(self.home_tid)
        self.gil_wait_ns = _now_ns()
        return 0

    cdef int have(self) noexcept:
        """Here it is.

        While this thread had no CPU before it demanded the GIL, nobody knew of that.  It waits a switch interval
        first, and looks again after each further one: so only the first of many waits for a CPU counts.
        """
        cdef long long runs
        cdef long long starved_ns = look_starved_ns(0, &runs) - self.starved_ns
        starved_ns = 2 * starved_ns // max(2, runs - self.runs)
        self.gil_wait_ns = max(0, _now_ns() - self.gil_wait_ns - starved_ns)
        self.gil_cpu_ns = max(0, look_cpu_ns(self.home_tid) - self.gil_cpu_ns - starved_ns)
        return 0

    cdef bint sleep(self, long long duration_ns) noexcept nogil:
        if self.stopped:
            return False
        return PyThread_acquire_lock_timed(self.stop_lock, max(1, duration_ns // 1000), 0) != PY_LOCK_ACQUIRED

    cdef bint tick(self) noexcept nogil:
        """Is there something to look at?"""
        cdef long long runs
        cdef long long now = _now_ns()
        cdef long long lost_ns = now - self.ticked_ns - self.interval_ns
        cdef unsigned long long switches = self.scheduler.switches
        cdef bint busy = self.scheduler.current != NULL
        self.ticked_ns = now
        if not busy or not self.busy or switches != self.switches:
            self.switches = switches
            self.busy = busy
            self.since_ns = now
            if busy and self.home_tid != 0:
                self.cpu_since_ns = look_cpu_ns(self.home_tid)
                self.starved_since_ns = look_starved_ns(self.home_tid, &runs)
            # an interval after the first tick that sees it, and that tick may be a little late
            self.due_ns = self.interval_ns - self.interval_ns // 8
            return False
        if lost_ns > TOO_LATE_NS:
            self.since_ns += lost_ns
            return False
        if now - self.since_ns < self.due_ns:
            return False
        # for want of a CPU nobody is to blame
        lost_ns = look_starved_ns(self.home_tid, &runs) - self.starved_since_ns if self.home_tid != 0 else 0
        return now - self.since_ns - lost_ns >= self.due_ns

    cdef int note_number(self) noexcept nogil:
        """Which fiber is it?  Without the GIL."""
        cdef PyObject *fiber = self.scheduler.current
        cdef unsigned long long number = 0
        self.number = 0
        if fiber == NULL or not look_copy(&number, &(<FiberCore>fiber).number, sizeof(number)):
            return 0
        if self.scheduler.current == fiber and self.scheduler.switches == self.switches:
            self.number = number
        return 0

    # -- for the caller of `wait`, with the GIL

    def suspect(self):
        """The fiber of the last suspicion, wherever it is by now, as ``running`` says it; None if it has ended, or is
        not known."""
        cdef PyObject *at = self.scheduler.live
        while at != NULL:
            if (<FiberCore>at).number == self.number:
                return facts(<FiberCore>at)
            at = (<FiberCore>at).live_next
        return None

    def running(self):
        """Of the current fiber, if there is one: a weak reference, its name, and has it a kernel thread of its own?"""
        return None if self.scheduler.current == NULL else facts(<FiberCore>self.scheduler.current)

    def places(self) -> list:
        """Where the home worker is, as far as it runs Python, innermost first: (code, globals, line) of each frame."""
        cdef list found = []
        cdef object frame = None
        if self.scheduler.slot.home is not None:
            frame = frames_of_threads().get(self.scheduler.slot.home.ident)
        while frame is not None:
            found.append((frame.f_code, frame.f_globals, frame.f_lineno))
            frame = frame.f_back
        return found

    @property
    def seconds(self) -> float:
        """How old the stretch is."""
        return (_now_ns() - self.since_ns) / 1e9

    @property
    def awake(self) -> float:
        """The share of one CPU that the home worker used in the stretch: 0 to 1."""
        cdef long long cpu_ns = look_cpu_ns(self.home_tid) - self.cpu_since_ns
        return min(1.0, max(0.0, cpu_ns / max(1.0, <double>(_now_ns() - self.since_ns))))

    def goes_on(self) -> bool:
        """Is the stretch that ``wait`` returned for still going on?"""
        return self.scheduler.current != NULL and self.scheduler.switches == self.switches

    @property
    def switches_since(self) -> int:
        """How many switches there were since the end of the stretch, with that."""
        return self.scheduler.switches - self.switches

    def look_again(self, double factor) -> None:
        """``wait`` returns for this stretch when it is ``factor`` times as old as now; inf: never again."""
        cdef double due_ns = (_now_ns() - self.since_ns) * factor
        self.due_ns = NEVER_NS if due_ns >= <double>NEVER_NS else <long long>due_ns

    def restart(self) -> None:
        """Forget the stretch: what it was measured with is not valid any more."""
        self.busy = False

    def look(self) -> tuple:
        """What the home worker does now: (PYTHON, C, ASLEEP, ...), the system call, and its first argument.

        Holds the GIL for as long as it takes, 3 ms at most.
        """
        cdef long number = -1
        cdef unsigned long first = 0
        cdef int result = thread_look(self.folder, self.home_tid, &number, &first)
        return result, number, first
