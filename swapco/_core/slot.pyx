"""The slot: the right to run fibers; its workers; and the inbox through which everybody else reaches them.

At most one worker (kernel thread) of a slot runs fibers at a time.  *The slot is the lock*: whoever owns it may touch
the scheduler, nobody else may, so the scheduler has no locks.  The *home worker* runs the event loop; the thread that
last ran the loop stays home while the loop is stopped.  The other workers host thread fibers, one each; to run one,
home *lends* the slot (lending.pyx).  Who owns it is one atomic word, whose protocol is slot_word.h; who blocks is
found out by detector.h.

``owner_ident`` is the same for those who hold the GIL: the thread that may execute as owner, in a section or in user
code.  It lags behind the word while a handoff is on its way (nobody executes as owner then), and after a revocation
that home has not noticed; a worker therefore *enters* before it relies on it.

The inbox.  What comes from outside (a resume or a cancellation from another thread, a detached fiber that comes back)
wins the fiber's wait record or marks the fiber, and posts it: a linked list through the fibers themselves, first in
first out, each fiber at most once.  The owner drains the inbox before it takes a fiber from the run queue and before
it pushes one, so that a fiber woken from outside runs in the order of its wake-up.

Notification.  Posting must wake a hub that sleeps in the kernel, and should cost nothing while it does not:

    poster: post; if hub_idle and not noted: noted = True, wake the loop
    home:   woken: noted = False, *then* drain the inbox
            before it sleeps: hub_idle = True, *then* look at the inbox once more

Cleared before the drain, ``noted`` can only cause a needless wake-up; set before the last look, ``hub_idle``
can only cause a needless notification.  The other orders lose wake-ups; tests/model checks all of them.

The links are guarded by the GIL: every poster holds it, and nothing between two of the stores releases it.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

import os
import threading
import weakref
from typing import NamedTuple

from .placement import Placement

cdef extern from *:
    """
    /* What threading.get_ident returns, without the call around it. */
    #include <pthread.h>
    static inline unsigned long swapco_thread_ident(void) { return (unsigned long)pthread_self(); }

    """
    unsigned long swapco_thread_ident() noexcept

cdef extern from "slot_word.h" nogil:
    enum:
        SWAPCO_NOBODY
        SWAPCO_HOME
        SWAPCO_MAX_WORKER
        SWAPCO_RUN_DETACHED
        SWAPCO_STOP
        SWAPCO_SLOT_N_MODES
        SWAPCO_SLOT_N_TRANSITIONS
    ctypedef struct transition_row "swapco_slot_transition":
        const char *name
        const char *owner_before
        const char *owner_after
        const char *actor
        const char *how
        const char *cause
        int mode_before
        int mode_after
    const transition_row *swapco_slot_table
    const char **swapco_slot_mode_names
    const char **swapco_slot_mode_meanings
    swapco_slot *swapco_slot_new(int64_t tick_ns, int64_t grace_ns)
    void swapco_slot_unref(swapco_slot *s)
    swapco_worker *swapco_worker_new(swapco_slot *s, int id)
    void swapco_worker_free(swapco_worker *w)
    void slot_grant(swapco_slot *s, int me, int to)
    bint slot_notice(swapco_slot *s)
    void slot_wake(swapco_worker *w)
    bint slot_wait(swapco_worker *w)
    void slot_order(swapco_worker *w, int order)
    void slot_void(swapco_slot *s)
    bint slot_is_void(swapco_slot *s)
    swapco_lend_end slot_wait_home(swapco_slot *s, bint handles_signals, int *signalled)

cdef extern from "detector.h" nogil:
    void *detector_monitor(void *slot)
    void *detector_sentinel(void *slot)
    int detector_start(swapco_slot *s, void *(*main)(void *))
    void detector_watch(swapco_slot *s)
    void detector_stop(swapco_slot *s)

cdef extern from "placement.h" nogil:
    bint placement_stands(swapco_slot *s)
    void placement_note_policy(swapco_slot *s)
    bint placement_pin_home(swapco_slot *s)
    void placement_free_home(swapco_slot *s)

cdef extern from "inheritance.h":
    int inheritance_prepare() except -1

cdef extern from *:
    """
    /* The key also tells the slot when the kernel thread of a worker ends in another way than by returning. */
    static int swapco_worker_key_new(void) { return pthread_key_create(&swapco_worker_key, slot_worker_ends); }
    static inline void swapco_no_cpus(cpu_set_t *cpus) { CPU_ZERO(cpus); }
    static inline void swapco_add_cpu(cpu_set_t *cpus, int number)
    {
        if (number < CPU_SETSIZE)
            CPU_SET(number, cpus);
    }
    static inline void swapco_allow(swapco_slot *s, const cpu_set_t *cpus)
    {
        if (!CPU_EQUAL(&s->allowed, cpus))
            s->allowed = *cpus;
    }
    static inline void swapco_worker_is_here(swapco_worker *w) { pthread_setspecific(swapco_worker_key, w); }
    /* Before there is a detector. */
    static inline void swapco_slot_set_times(swapco_slot *s, int64_t tick_ns, int64_t grace_ns)
    {
        s->tick_ns = tick_ns;
        s->grace_ns = grace_ns;
    }
    """
    ctypedef struct cpu_set_t:
        pass
    void swapco_no_cpus(cpu_set_t *cpus)
    void swapco_add_cpu(cpu_set_t *cpus, int number)
    void swapco_allow(swapco_slot *s, const cpu_set_t *cpus)
    int swapco_worker_key_new()
    void swapco_slot_set_times(swapco_slot *s, int64_t tick_ns, int64_t grace_ns)
    void swapco_worker_is_here(swapco_worker *w)

if swapco_worker_key_new() != 0:
    raise ImportError("swapco needs a key for thread-specific data, and this process has none left")


class SlotTransition(NamedTuple):
    """One row of the slot's protocol: ``owner_before`` in ``mode_before`` becomes ``owner_after`` in ``mode_after``."""

    name: str
    owner_before: str
    mode_before: str
    owner_after: str
    mode_after: str
    actor: str
    how: str
    cause: str


MODES: tuple = tuple([
    (swapco_slot_mode_names[i].decode(), swapco_slot_mode_meanings[i].decode()) for i in range(SWAPCO_SLOT_N_MODES)
])

TRANSITIONS: tuple = tuple([
    SlotTransition(
        swapco_slot_table[i].name.decode(),
        swapco_slot_table[i].owner_before.decode(),
        MODES[swapco_slot_table[i].mode_before][0],
        swapco_slot_table[i].owner_after.decode(),
        MODES[swapco_slot_table[i].mode_after][0],
        swapco_slot_table[i].actor.decode(),
        swapco_slot_table[i].how.decode(),
        swapco_slot_table[i].cause.decode(),
    )
    for i in range(SWAPCO_SLOT_N_TRANSITIONS)
])

#: Kernel threads of one slot, without home and the reserve, unless ``max_workers`` or ``SWAPCO_MAX_WORKERS`` says it.
DEFAULT_WORKERS = 1024

cdef enum:
    RESERVE_SHARE = 16
    MOST_WORKERS = SWAPCO_MAX_WORKER - SWAPCO_HOME

# every slot of this process, for the child of a fork
_slots = weakref.WeakSet()


cdef class Postable(Runnable):
    """What can be posted to an inbox: the base of a fiber."""


cdef class Host:
    """What runs fibers in a kernel thread."""

    cdef int reattach(self, Worker worker) except -1:
        """By the thread of a detached fiber: wait for its turn."""
        raise TypeError(f"{type(self).__name__} does not implement reattach")


cdef class ThreadStack(Stack):
    """Stands for a stack in a thread fiber: which worker has it, and where it stands with the slot."""


cdef class Worker:
    """A kernel thread that hosts fibers."""

    def __dealloc__(self):
        if self.c != NULL and not self.home:
            swapco_worker_free(self.c)

    def __repr__(self) -> str:
        return f"<Worker {'home ' if self.home else ''}thread {self.native_id}>"


cdef class Controller:
    """What steers a controlled run: implemented by swapco.testing."""

    cdef int before(self, str operation, object primitive) except -1:
        raise TypeError(f"{type(self).__name__} does not implement before")

    cdef int touch(self, object primitive) except -1:
        raise TypeError(f"{type(self).__name__} does not implement touch")

    cdef int look(self, object primitive) except -1:
        raise TypeError(f"{type(self).__name__} does not implement look")


def _option(name, value, environment, default):
    """An option's value: the argument, else the environment variable, else the default; an int."""
    if value is None:
        text = os.environ.get(environment, "")
        if not text:
            return default
        name = environment
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{environment}={text!r} is not a number") from None
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is a number from 0 on, not {value!r}")
    return value


cdef class Slot:
    """The right to run: one per scheduler.

    ``pin`` keeps the threads that take turns on one CPU (True; ``SWAPCO_PIN=0`` in the environment turns it off);
    ``max_workers`` is how many kernel threads may host thread fibers (1024, or ``SWAPCO_MAX_WORKERS``), beside a
    sixteenth as many, and at least one, that are kept for clean-up work; ``sentinel`` adds the detector that sees a
    sleeping worker three times sooner (False, or ``SWAPCO_SENTINEL``; it needs ``pin``); ``tick`` is the detector's
    interval in seconds.
    """

    def __cinit__(self, *args, **kwargs):
        self.hub_idle = True
        self.cpu = -1
        self.real_clock = Clock()
        self.next_id = SWAPCO_HOME + 1
        self.others = []
        self.free_ids = []
        # the rest of what C code reads: whoever makes one without __init__, or asks before it, gets an answer
        self.c = swapco_slot_new(1_000_000, 100_000)
        if self.c == NULL:
            raise MemoryError()

    def __init__(self, *, pin=None, max_workers=None, sentinel=None, tick=0.001):
        cdef double interval = tick
        cdef bint pins = _option("pin", pin, "SWAPCO_PIN", 1)
        cdef object most = _option("max_workers", max_workers, "SWAPCO_MAX_WORKERS", DEFAULT_WORKERS)
        cdef bint watches_cpu = _option("sentinel", sentinel, "SWAPCO_SENTINEL", 0)
        if not 1 <= most <= MOST_WORKERS:
            raise ValueError(f"max_workers is a number from 1 to {MOST_WORKERS}")
        if watches_cpu and not pins:
            raise ValueError("the sentinel watches the CPU that the workers share: it needs pin=True")
        if not 0.0001 <= interval <= 1.0:
            raise ValueError(f"tick is a time between 0.0001 and 1 second, not {tick!r}")
        if self.taken:
            raise RuntimeError(f"{self!r} belongs to an event loop, and its options cannot change: make a new Slot")
        self.tick = interval
        # the word has no names for more: at least one of them is for clean-up
        self.max_workers = min(most, MOST_WORKERS - 1)
        self.reserve = min(max(1, self.max_workers // RESERVE_SHARE), MOST_WORKERS - self.max_workers)
        self.sentinel = watches_cpu
        self.placement = Placement() if pins else None
        swapco_slot_set_times(self.c, <int64_t>(interval * 1e9), <int64_t>(interval * 1e8))
        _slots.add(self)

    cdef int check_made(self) except -1:
        """RuntimeError if ``__init__`` did not run, or raised."""
        if self.max_workers == 0:
            raise RuntimeError(
                f"{self!r} has no options: Slot.__init__() was not called. A subclass with an __init__ of its own "
                "calls super().__init__()"
            )
        return 0

    def __dealloc__(self):
        cdef PyObject *at = self.inbox_head
        cdef PyObject *following
        while at != NULL:
            following = (<Postable>at).post_next
            Py_DECREF(<Postable>at)
            at = following
        if self.c != NULL:
            detector_stop(self.c)
            swapco_worker_free(self.c.home)
            swapco_slot_unref(self.c)

    def __repr__(self) -> str:
        return f"<Slot, {len(self.others)} workers beside home{', closed' if self.closed else ''}>"

    @property
    def workers(self) -> tuple:
        """The kernel threads that host this slot's fibers; the home worker first."""
        return () if self.home is None else (self.home, *self.others)

    @property
    def owner(self):
        """The worker that may run fibers now; None while the slot passes from one to another."""
        cdef Worker worker
        cdef int owner = self.c.word & 0xffff
        for worker in self.workers:
            if worker.c.id == owner:
                return worker
        return None

    @property
    def pinned_cpu(self):
        """The CPU that the workers share now, or None."""
        return None if self.cpu < 0 else self.cpu

    def statistics(self) -> dict:
        """Counters since the slot was made, and what is now.

        Now: ``workers``, the kernel threads beside home; ``posted``, the fibers in the inbox, which ask for their turn.
        Counters: ``lends``: home gave the slot to a worker; ``handoffs``: a worker gave it to another one;
        ``revoked_by_*``: who took it from a worker that did not come back; ``taken_back``: how many of those came back
        before home had noticed; ``detaches``: how many fibers ran on without the slot, ``false_detaches``: were back
        within a tick; ``reattaches``: came back for more; ``detached_s``: for how many seconds, altogether, with
        those that are detached now; ``ticks``: looks of the monitor.
        """
        cdef int posted = 0
        cdef unsigned long long detached_ns = (
            self.detached_ns + <unsigned long long>self.detached * <unsigned long long>self.real_clock.now_ns()
        )
        cdef PyObject *at = self.inbox_head
        while at != NULL:
            posted += 1
            at = (<Postable>at).post_next
        return {
            "workers": len(self.others),
            "posted": posted,
            "lends": self.lends,
            "handoffs": self.handoffs,
            "detaches": self.detaches,
            "false_detaches": self.false_detaches,
            "reattaches": self.reattaches,
            "detached_s": detached_ns / 1e9,
            "revoked_by_monitor": self.c.revoked_by_monitor,
            "revoked_by_sentinel": self.c.revoked_by_sentinel,
            "revoked_by_signal": self.c.revoked_by_signal,
            "taken_back": self.c.taken_back,
            "ticks": self.c.ticks,
        }

    # -- workers

    cdef int bind_home(self) except -1:
        """The calling thread is the home worker from now on."""
        if self.home is None or self.home.ident != swapco_thread_ident():
            self.home = Worker()
            self.home.home = True
            self.home.c = self.c.home
            self.home.ident = swapco_thread_ident()
            self.home.native_id = threading.get_native_id()
            self.owner_ident = self.home.ident
            self.handles_signals = threading.current_thread() is threading.main_thread()
        return 0

    cdef Worker new_worker(self, object main):
        """Start a kernel thread that calls ``main(worker)``; in the hub.

        None if a signal handler raised meanwhile (``interrupt``): starting a thread runs Python code.  RuntimeError or
        MemoryError if the process can have no more threads.
        """
        cdef Worker worker = Worker()
        cdef int number
        self.prepare()
        if self.free_ids:
            number = self.free_ids.pop()
        else:
            number = self.next_id
            if number > SWAPCO_MAX_WORKER:
                raise RuntimeError(f"a slot has {MOST_WORKERS} workers at most")
            self.next_id += 1
        worker.c = swapco_worker_new(self.c, number)
        if worker.c == NULL:
            self.free_ids.append(number)
            raise MemoryError("no memory for another kernel thread of an event loop")
        try:
            # of threading, and not of _thread: debuggers, profilers and coverage hook into its threads
            worker.thread = threading.Thread(target=main, args=(worker,), name=f"swapco worker {number}", daemon=True)
            worker.thread.start()
        except BaseException as error:
            # perhaps it runs, or will: then it ends at once
            self.stop(worker)
            self.free_ids.append(number)
            if not _is_no_thread(error):
                self.interrupt = error
                return None
            why = str(error) or "no memory for another thread"
            raise RuntimeError(f"{why} beside {len(self.others)} of this event loop: {_MORE_THREADS}") from error
        worker.ident = worker.thread.ident
        worker.native_id = worker.thread.native_id
        worker.c.tid = worker.native_id
        self.others.append(worker)
        return worker

    cdef int forget_worker(self, Worker worker) except -1:
        """Its thread has ended, or will not come back."""
        self.others.remove(worker)
        self.free_ids.append(worker.c.id)
        self.unplace(worker)
        return 0

    cdef int prepare(self) except -1:
        """Start the detector, before the slot is lent for the first time."""
        cdef int error = 0
        if self.detects:
            return 0
        error = detector_start(self.c, detector_monitor)
        if not error and self.sentinel:
            error = detector_start(self.c, detector_sentinel)
            self.c.sentinel_runs = error == 0
        if error:
            raise OSError(
                error, f"no thread for the detector of blocked workers ({os.strerror(error)}): {_MORE_THREADS}"
            )
        self.hub.threads_begin()
        self.detects = True
        return 0

    cdef int worker_begins(self, Worker worker) noexcept:
        """Its thread runs: by that thread."""
        swapco_worker_is_here(worker.c)
        return 0

    cdef int worker_returns(self, Worker worker) noexcept:
        """Its thread ends as it should."""
        swapco_worker_is_here(NULL)
        self.unplace(worker)
        return 0

    cdef bint has_ended(self, Worker worker) noexcept:
        """Has its kernel thread ended in some other way?"""
        return worker.c.ended

    cdef int stop(self, Worker worker) noexcept:
        """Have its thread end; if it hosts a fiber, at the next call of swapco."""
        slot_order(worker.c, SWAPCO_STOP)
        return 0

    cdef int run_detached(self, Worker worker) noexcept:
        """Have it run its fiber without the slot."""
        worker.c.left = 0
        slot_order(worker.c, SWAPCO_RUN_DETACHED)
        return 0

    # -- fork

    cdef bint is_inherited(self) noexcept:
        """Is it the copy of a slot of the parent of this process?"""
        return self.inherited

    # -- who has the slot

    cdef bint owned(self) noexcept:
        """May the calling thread execute as owner?  A worker asks inside a section only."""
        return self.owner_ident == swapco_thread_ident()

    cdef bint at_home(self) noexcept:
        """Is the caller the home worker?  For what belongs to the event loop's thread, and nothing else."""
        return self.home is not None and self.home.ident == swapco_thread_ident()

    cdef bint wait(self, Worker me) noexcept:
        """Sleep until the slot is handed to this worker: True; False if it has an order instead."""
        cdef swapco_worker *w = me.c
        cdef bint named
        with nogil:
            named = slot_wait(w)
        if named:
            self.owner_ident = me.ident
        return named

    cdef bint may_run_detached(self, Worker me) noexcept:
        """After ``wait`` was False: is it to run its fiber without the slot?  Else it must end."""
        if me.c.order != SWAPCO_RUN_DETACHED:
            return False
        me.c.order = 0
        return True

    cdef swapco_lend_end lend(self, Worker to) noexcept:
        """Home gives the slot to a worker, and sleeps until it has it again."""
        cdef swapco_slot *c = self.c
        cdef swapco_worker *w = to.c
        cdef swapco_lend_end end
        cdef bint handles_signals = self.handles_signals
        cdef int signalled = 0
        cdef bint pinned
        if self.placement is not None:
            if self.cpu < 0 or not placement_stands(c):
                self.choose()
            if self.cpu >= 0 and (to.placement != self.placements or w.displaced):
                self.place(to)
        c.granted = w
        self.lends += 1
        self.owner_ident = to.ident
        slot_grant(c, SWAPCO_HOME, w.id)
        # the GIL is released before the wake-up: the worker must not find it taken
        with nogil:
            pinned = c.pins_early and placement_pin_home(c)
            slot_wake(w)
            detector_watch(c)
            end = sleep_at_home(c, pinned, handles_signals, &signalled)
        while end != SWAPCO_GIVEN_BACK and not slot_notice(c):
            # the worker came back first
            with nogil:
                end = sleep_at_home(c, False, handles_signals, &signalled)
        self.owner_ident = self.home.ident
        self.signalled = signalled
        return end

    cdef bint hand(self, Worker me, Worker to, bint wait) noexcept:
        """A worker that owns the slot gives it to another, or to home; ``wait``: until it has it again."""
        cdef swapco_worker *mine = me.c
        cdef swapco_worker *w = to.c
        cdef bint named = True
        if self.cpu >= 0 and (to.placement != self.placements or w.displaced) and not to.home:
            self.place(to)
        self.c.granted = w
        self.handoffs += 1
        self.owner_ident = to.ident
        slot_grant(self.c, mine.id, w.id)
        with nogil:
            slot_wake(w)
            if wait:
                named = slot_wait(mine)
        if wait and named:
            self.owner_ident = me.ident
        return named

    cdef int void(self) noexcept:
        """Nobody runs fibers here any more."""
        self.closed = True
        slot_void(self.c)
        detector_stop(self.c)
        return 0

    cdef bint is_void(self) noexcept:
        return slot_is_void(self.c)

    # -- CPUs

    cdef int choose(self) noexcept:
        """By home, which is about to lend: the workers share the CPU that it runs on now."""
        cdef int cpu
        cdef int _attempt
        self.cpu = -1
        for _attempt in range(3):
            cpu = self.ask_placement("choose", self.home.native_id)
            # the detector uses the mask while it sees a CPU
            self.c.cpu = -1
            if cpu < 0:
                return 0
            try:
                note_allowed(self.c, self.placement.allowed)
                inheritance_prepare()
            except BaseException as error:
                self.interrupt = error
            self.c.cpu = cpu
            if placement_stands(self.c):
                placement_note_policy(self.c)
                self.placements += 1
                self.cpu = cpu
                return 0
        # a cpu_set_t is too small for this machine; or it moves all the time
        self.cpu = cpu
        return self.rest()

    cdef int place(self, Worker worker) noexcept:
        """Pin a worker that is about to get the slot to the CPU of the others."""
        # moved away by the detector, perhaps, and back in time
        worker.c.displaced = 0
        if self.ask_placement("bring", worker.native_id, self.cpu):
            worker.placement = self.placements
            worker.c.cpu = self.cpu
        else:
            self.rest()
        return 0

    cdef int displace(self, Worker worker) noexcept:
        """A worker was detached: it runs in parallel from here on."""
        if worker.placement:
            worker.placement = 0
            worker.c.displaced = 0
            worker.c.cpu = -1
            self.ask_placement("let_go", worker.native_id, self.home.native_id)
        return 0

    cdef int unplace(self, Worker worker) noexcept:
        """Its thread ends."""
        if worker.placement:
            worker.placement = 0
            worker.c.cpu = -1
            self.ask_placement("forget", worker.native_id)
        return 0

    cdef int rest(self) noexcept:
        """Let the kernel choose where home wakes up, for a while; by home, once a second."""
        if self.cpu >= 0:
            self.cpu = -1
            self.c.cpu = -1
            self.ask_placement("rest", self.home.native_id)
        return 0

    cdef int ask_placement(self, str what, long thread_id, long argument=-1) noexcept:
        """Python code: a signal handler may raise in it, in the middle of a handoff."""
        try:
            method = getattr(self.placement, what)
            answer = method(thread_id) if argument < 0 else method(thread_id, argument)
            return 0 if answer is None else answer
        except BaseException as error:
            self.interrupt = error
            return -1 if what == "choose" else 0

    # -- the inbox

    cdef int post(self, Postable item) except -1:
        """Hand an item to the owner, from any thread."""
        if not item.posted:
            item.posted = True
            item.post_next = NULL
            Py_INCREF(item)
            if self.inbox_tail != NULL:
                (<Postable>self.inbox_tail).post_next = <PyObject *>item
            else:
                self.inbox_head = <PyObject *>item
            self.inbox_tail = <PyObject *>item
        if self.hub_idle and not self.noted:
            self.noted = True
            self.hub.notify()
        return 0

    cdef Postable take_posted(self):
        """The oldest item of the inbox, by the owner; None when it is empty."""
        cdef Postable item
        if self.inbox_head == NULL:
            return None
        item = <Postable>self.inbox_head
        self.inbox_head = item.post_next
        if self.inbox_head == NULL:
            self.inbox_tail = NULL
        item.posted = False
        Py_DECREF(item)
        return item


cdef str _MORE_THREADS = (
    "the process can have no more; raise its limit (ulimit -u, which is RLIMIT_NPROC, and pids.max of its cgroup), or "
    "have fibers wait for a thread: swapco.run(main, slot=swapco.lowlevel.Slot(max_workers=...)) or SWAPCO_MAX_WORKERS"
)


cdef bint _is_no_thread(object error) noexcept:
    """Is it what Python raises when there can be no more threads?  Else it is a signal handler's, of any type."""
    if type(error) is MemoryError:
        return True
    return isinstance(error, RuntimeError) and str(error).endswith(_NO_THREAD)


cdef tuple _NO_THREAD = ("can't start new thread", "can't create new thread at interpreter shutdown")


cdef swapco_lend_end sleep_at_home(swapco_slot *c, bint pinned, bint handles_signals, int *signalled) noexcept nogil:
    """By home, which has lent the slot, and may be pinned already: until it has it again."""
    cdef swapco_lend_end end
    if not pinned:
        pinned = placement_pin_home(c)
    end = slot_wait_home(c, handles_signals, signalled)
    if pinned:
        placement_free_home(c)
    return end


cdef int note_allowed(swapco_slot *c, allowed) except -1:
    """For the detector, which cannot ask Python."""
    cdef cpu_set_t cpus
    swapco_no_cpus(&cpus)
    for number in allowed:
        swapco_add_cpu(&cpus, number)
    swapco_allow(c, &cpus)
    return 0


def _after_fork_in_child() -> None:
    """The workers of every slot stayed with the parent."""
    cdef Slot slot
    swapco_worker_is_here(NULL)
    for slot in list(_slots):
        if slot.taken:
            slot.inherited = True
            slot.void()


os.register_at_fork(after_in_child=_after_fork_in_child)
