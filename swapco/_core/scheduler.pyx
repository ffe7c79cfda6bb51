"""The scheduler: who runs next, on which stack, and when the event loop has its turn.

Theory
------
fiber.pyx says when a fiber stops running; this file says who runs instead.  The slot passes on in two ways.
*Through the run queue*: whoever the policy names next runs.  *As a handoff*: ``switch_to`` names who runs next,
and the run queue is not touched.  Either way the switch goes from fiber to fiber; the hub, in which the event
loop runs, is entered only when nothing is runnable, when I/O and timers have not been looked at for a
millisecond, when a loop callback must go first, or to start a fiber for which there is no idle stack.  So a
block costs one switch, not two.

Go's scheduler notes list direct handoff among the rejected designs.  Their case is *readying* a goroutine
while spare processors exist; ours is a caller that blocks and gives its own CPU away.

The loop's side is one callback, ``drain``: it fires timers and runs fibers until it is the loop's turn.  A stack
that has finished its fiber takes the next new one itself, without a switch; an idle one waits in the pool, which
is capped, shrinks when it is not used, and is unwound by the hub.

Invariants
----------
- Only the owner of the slot executes anything in this file.
- The scheduler holds every live fiber (``live``); queues and stacks borrow.
- A fiber is in the run queue (the policy, or ``front`` before it) if and only if it is NEW or READY.
- A parked C frame holds no strong reference to another fiber: a fiber that waits for long must not keep
  alive who ran after it.
- Nothing raises between the moment in which a fiber gave the slot away and the moment in which it runs
  again; errors that have no fiber to go to (a policy written in Python) leave through the loop (``fatal``).

Budgets (law 5): at most ``HANDOFFS`` (fiber.pyx) handoffs between two takes from the run queue; one look at I/O
and timers per millisecond of fibers running (ticks.h); 64 I/O calls of one fiber without a suspension (poller.pyx).

Rejected: a switch to the hub and back for each block (gevent; twice the switches); running the target of a
resume at once (the resumer would lose its turn, and a producer its cache); one greenlet a fiber (starting one
costs ten times what reusing one does).
"""

import os
import sys
from _thread import _count as thread_count

from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from .clock cimport Clock, Timer, TimerHeap
from .fiber cimport FiberCore, Watcher, note_thread, queue_remove, running_dispatcher
from .here cimport host, loop_runs_here, set_running
from .lending cimport Lender
from .policy cimport Fifo, Policy, linked_append, linked_take_first
from .reasons cimport is_external
from .slot cimport Slot, ThreadStack
from .states cimport *
from .switch cimport Stack, StackMain, thread_context_assign
from .wait cimport wait_close

from .backends import make_backend
from .instrument import Instrument, Instruments

cdef extern from "ticks.h" nogil:
    unsigned long long ticks_now()
    unsigned long long ticks_per_ms()

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec *duration, timespec *rest)

cdef extern from "calls.h":
    PyObject *swapco_call(PyObject *fn, PyObject *args)
    object swapco_raised()

cdef enum:
    POOL_CAP = 1024
    POOL_FLOOR = 16
    POOL_DECAY_NS = 1_000_000_000
    # a busy hub lets other threads in this often: one or two per cent of the time, and only if there are any
    BREATHE_DETACHED_MS = 5
    BREATHE_MS = 20
    BREATHE_NS = 50_000

cdef unsigned long long POLL_TICKS = ticks_per_ms()


cdef inline bint _poll_is_due(Scheduler s) noexcept:
    return ticks_now() >= s.poll_at or s.fatal is not None


cdef inline PyObject *_stack_for(Scheduler s, PyObject *following) noexcept:
    """What the home worker switches to in order to run ``following`` (NULL: the hub), which is ``current`` from now
    on.  One for which there is no idle stack, or no idle worker, goes to the hub, which starts it."""
    cdef Stack idle
    if following == NULL:
        s.current = NULL
        return <PyObject *>s.hub_stack
    if (<FiberCore>following).stack is not None:
        if (<FiberCore>following)._state != NEW or s.find_worker(<FiberCore>following):
            s.current = following
            return <PyObject *>(<FiberCore>following).stack
    elif s.pool:
        idle = s.pool.pop()
        idle.fiber = <FiberCore>following
        (<FiberCore>following).stack = idle
        s.current = following
        return <PyObject *>idle
    s.for_hub = following
    s.current = NULL
    return <PyObject *>s.hub_stack


cdef inline int _let_go(Scheduler s, FiberCore f) noexcept:
    """It runs no more: what it ran on, and the list of the living."""
    f.stack = None
    f.fn = f.args = None
    f.token = f.handed = None
    f.has_token = f.hooked = f.cancel_pending = False
    if f.live_prev != NULL:
        (<FiberCore>f.live_prev).live_next = f.live_next
    else:
        s.live = f.live_next
    if f.live_next != NULL:
        (<FiberCore>f.live_next).live_prev = f.live_prev
    f.live_prev = f.live_next = NULL
    s.live_count -= 1
    return 0


cdef class _StackMain(StackMain):
    """What the stacks of a scheduler run."""

    cdef Scheduler scheduler

    cdef int main(self, Stack stack) except -1:
        """What every stack runs: one fiber after the other, until the hub unwinds it.

        The fiber's function is called right here, not further down: greenlet copies the C stack of a parked
        fiber at every switch.
        """
        cdef Scheduler s = self.scheduler
        cdef PyObject *following
        cdef PyObject *target
        cdef PyObject *returned
        while stack.fiber is not None:
            returned = NULL
            if s.begin(<FiberCore>stack.fiber):
                returned = swapco_call(
                    <PyObject *>(<FiberCore>stack.fiber).fn, <PyObject *>(<FiberCore>stack.fiber).args
                )
            s.conclude(<FiberCore>stack.fiber, returned)
            stack.fiber = None
            if stack.killed:
                return 0
            if s.abandoned:
                s.end_of_child()
            following = s.take()
            if following != NULL and (<FiberCore>following).stack is None:
                stack.fiber = <FiberCore>following
                (<FiberCore>following).stack = stack
                s.current = following
                s.switches += 1
                s.io_calls = 0
                if s.instruments is not None:
                    s.note_switch(None)
                continue
            s.pool.append(stack)
            if following != NULL and (<FiberCore>following)._state != NEW:
                s.current = following
                target = <PyObject *>(<FiberCore>following).stack
            else:
                target = _stack_for(s, following)
            s.switches += 1
            s.io_calls = 0
            if s.instruments is not None:
                s.note_switch(None)
            if (<Stack>target).switch_from(stack) < 0:
                # an idle stack that is collected: nothing to clean up
                PyErr_Clear()
                return 0
        return 0


cdef class _PoolTimer(Timer):
    """Lets idle stacks go, a half of those unused for a second at a time."""

    cdef Scheduler scheduler

    cdef int fire(self) except -1:
        cdef Scheduler s = self.scheduler
        s.pool_low = min(s.pool_low, len(s.pool))
        s.trim_pool(max(POOL_FLOOR, len(s.pool) - (s.pool_low + 1) // 2))
        s.pool_low = len(s.pool)
        return 0


cdef class Scheduler(Lender):
    """One per slot.  Made by the event loop, which passes the ways in which they differ.

    ``hub`` is the loop's side (hub.pyx); ``policy`` decides who runs next (Fifo unless given); ``clock`` is
    what timeouts are measured with; ``fiber_type`` is the class that ``spawn`` makes.
    """

    def __init__(self, hub, *, Policy policy=None, Clock clock=None, type fiber_type=FiberCore, backend=None,
                 Slot slot=None):
        cdef _StackMain entry = _StackMain()
        if not issubclass(fiber_type, FiberCore):
            raise TypeError(f"fiber_type must derive from FiberCore, not {fiber_type!r}")
        self.hub = hub
        self.slot = Slot() if slot is None else slot
        self.slot.check_made()
        if self.slot.taken:
            raise ValueError(f"{self.slot!r} belongs to another event loop: make one for each")
        self.slot.taken = True
        self.slot.hub = self.hub
        self.policy = Fifo() if policy is None else policy
        self.fifo = self.policy if type(self.policy) is Fifo else None
        self.clock = Clock() if clock is None else clock
        self.fiber_type = fiber_type
        self.backend = make_backend() if backend is None else backend
        self.timers = TimerHeap()
        self.pool = []
        self.dirty = []
        entry.scheduler = self
        self.entry = entry
        self.pool_timer = _PoolTimer()
        (<_PoolTimer>self.pool_timer).scheduler = self
        self.pool_timer.housekeeping = True

    # -- spawning

    cdef int spawn_fiber(self, FiberCore f) except -1:
        """Register a NEW fiber and queue it."""
        if not self.slot.owned():
            self.move_here()
        self.policy.check(f)
        Py_INCREF(f)
        f.live_prev = NULL
        f.live_next = self.live
        if self.live != NULL:
            (<FiberCore>self.live).live_prev = <PyObject *>f
        self.live = <PyObject *>f
        self.live_count += 1
        if self.instruments is not None:
            self.note("spawned", f)
        if self.slot.inbox_head != NULL:
            self.drain_inbox()
        self.push(f)
        return 0

    def waits_for_threads(self) -> bool:
        """Is it only thread fibers in the kernel that keep the others from going on?

        So some block there, or wait for a kernel thread, while nobody can run or waits for anything but other fibers.
        """
        cdef PyObject *at = self.live
        cdef FiberCore f
        cdef bint found = False
        if self.slot.inbox_head != NULL:
            return False
        while at != NULL:
            f = <FiberCore>at
            if f._state == DETACHED or f.starved:
                found = True
            elif f._state != BLOCKED or is_external(f.reason) or (f.timer is not None and f.timer._index >= 0):
                return False
            at = f.live_next
        return found

    def fibers(self) -> list:
        """Every fiber that is not done, the newest first."""
        cdef list found = []
        cdef PyObject *at = self.live
        while at != NULL:
            found.append(<FiberCore>at)
            at = (<FiberCore>at).live_next
        return found

    # -- the run queue

    cdef int push(self, FiberCore f) except -1:
        self.enqueue(f)
        if not self.draining and not self.drain_requested:
            self.drain_requested = True
            self.hub.request_drain()
        return 0

    cdef int push_front(self, FiberCore f) except -1:
        """To the head of the queue, whatever the policy."""
        f.queued = True
        f.in_front = True
        f.run_next = self.front
        self.front = <PyObject *>f
        if not self.draining and not self.drain_requested:
            self.drain_requested = True
            self.hub.request_drain()
        return 0

    cdef int unqueue(self, FiberCore f) except -1:
        """Take a NEW or READY fiber out of turn."""
        cdef PyObject **at
        if not f.in_front:
            return self.policy.remove_runnable(f)
        at = &self.front
        while at[0] != <PyObject *>f:
            at = &(<FiberCore>at[0]).run_next
        at[0] = f.run_next
        f.run_next = NULL
        f.in_front = False
        f.queued = False
        return 0

    cdef int requeue(self, FiberCore me) except -1:
        """The running fiber yields: behind every ready fiber, and behind the loop's callbacks."""
        if self.slot.inbox_head != NULL:
            self.drain_inbox()
        if self.hub.callbacks_waiting:
            me.behind_loop = True
            me.epoch = self.epoch
        return self.enqueue(me)

    cdef int enqueue(self, FiberCore f) except -1:
        """Into the policy; a fiber that a policy written in Python refuses is not lost."""
        if self.fifo is not None:
            linked_append(self.fifo, f)
            return 0
        try:
            self.policy.push_runnable(f)
        except BaseException as error:
            # there is no fiber to raise it in: it leaves through the loop
            self.fatal = error
            self.push_front(f)
        return 0

    cdef bint poll_is_due(self) noexcept:
        return _poll_is_due(self)

    cdef int loop_is_due(self) noexcept:
        self.poll_at = 0
        return 0

    cdef PyObject *take(self) except? NULL:
        """The next fiber, RUNNING unless it is NEW; NULL when it is the hub's turn."""
        cdef PyObject *p
        if self.slot.inbox_head != NULL:
            self.drain_inbox()
        if _poll_is_due(self):
            return NULL
        if self.front != NULL:
            p = self.front
            self.unqueue(<FiberCore>p)
        else:
            p = linked_take_first(self.fifo) if self.fifo is not None else self.take_from_policy()
            if p == NULL:
                return NULL
        if (<FiberCore>p).behind_loop:
            if (<FiberCore>p).epoch == self.epoch and self.hub.callbacks_waiting:
                self.push_front(<FiberCore>p)
                self.poll_at = 0
                return NULL
            (<FiberCore>p).behind_loop = False
        self.handoffs = 0
        self.takes += 1
        if (<FiberCore>p)._state != NEW:
            transition_run(&(<FiberCore>p)._state)
        return p

    cdef PyObject *take_from_policy(self) noexcept:
        cdef PyObject *found
        try:
            found = self.policy.pop_runnable()
            if found != NULL and (
                not isinstance(<object>found, FiberCore) or (<FiberCore>found).scheduler is not self
            ):
                raise RuntimeError(f"{type(self.policy).__name__} named {<object>found!r}, which it was not given")
            return found
        except BaseException as error:
            self.fatal = error
            return NULL

    # -- switching

    cdef PyObject *stack_for(self, PyObject *following) noexcept:
        return _stack_for(self, following)

    cdef int leave_to(self, FiberCore me, PyObject *following) except -1:
        """Suspend ``me`` and run ``following`` (NULL: the hub); returns when ``me`` runs again."""
        cdef PyObject *target
        if me.threaded:
            return self.leave_thread(me, following)
        if self.dirty:
            self.flush_dirty()
        if following == <PyObject *>me:
            return 0
        if following != NULL and (<FiberCore>following)._state != NEW:
            self.current = following
            target = <PyObject *>(<FiberCore>following).stack
        else:
            target = _stack_for(self, following)
        self.switches += 1
        self.io_calls = 0
        if me.hooked:
            me.suspending()
        if self.instruments is not None:
            self.note_switch(me)
        if (<Stack>target).switch_from(me.stack) < 0:
            self.thrown_into(me)
            return -1
        if self.instruments is not None:
            self.note_arrival(me)
        if me.hooked:
            me.continuing()
        return 0

    cdef int thrown_into(self, FiberCore me) except -1:
        """Somebody threw into the fiber's stack instead of switching to it (greenlet does when it collects
        one): the fiber unwinds outside the scheduler, and its stack ends with it."""
        queue_remove(me)
        if me.timer is not None:
            self.timers.disarm(me.timer)
        wait_close(&me.wait)
        me._state = RUNNING
        if me.stack is not None:
            me.stack.killed = True
        return 0

    cdef int begin(self, FiberCore f) except -1:
        """A fiber takes its stack: 1 if its function must be called."""
        transition_start(&f._state)
        thread_context_assign(<PyObject *>f.context)
        if self.instruments is not None:
            self.note_arrival(f)
        if not f.cancel_pending:
            return 1
        try:
            f.discard()
            self.raise_cancel(f)
        except BaseException as error:
            f.exception_value = error
        return 0

    cdef int conclude(self, FiberCore f, PyObject *returned) except -1:
        """The function returned (an owned reference) or raised (NULL): record it, and finish the fiber."""
        cdef object result
        if returned != NULL:
            result = <object>returned
            Py_DECREF(result)
            f.complete(result)
            result = None
        elif f.exception_value is None:
            f.exception_value = swapco_raised()
        if f.stack.killed:
            f._state = RUNNING
        self.finish(f)
        thread_context_assign(NULL)
        return 0

    cdef int finish(self, FiberCore f) except -1:
        """The outcome is known: tell whoever waits for it, and let go of everything else."""
        if self.dirty:
            self.flush_dirty()
        # whatever runs now (callbacks, finalizers) runs no longer "as" this fiber: blocking is an error there
        self.current = NULL
        if f._state == DETACHED:
            transition_finish_detached(&f._state)
        else:
            transition_finish(&f._state)
        _let_go(self, f)
        if f.timer is not None:
            f.timer.fiber = None
            f.timer = None
        if f.joiners.head != NULL:
            f.result_retrieved = True
            self.wake_all(&f.joiners, None)
        if f.watched or f.watchers is not None:
            self.tell_watchers(f)
        f.context = None
        if f.exception_value is not None and isinstance(f.exception_value, (KeyboardInterrupt, SystemExit)):
            # as with an asyncio task, they also leave the loop
            self.fatal = f.exception_value
            f.result_retrieved = True
        if self.instruments is not None:
            self.note("finished", f)
        Py_DECREF(f)
        return 0

    cdef int forget(self, FiberCore f) except -1:
        """A detached fiber ended after the loop was closed."""
        transition_finish_detached(&f._state)
        _let_go(self, f)
        f.context = None
        Py_DECREF(f)
        return 0

    cdef int tell_watchers(self, FiberCore f) except -1:
        """Whoever wants to know at once that a fiber is done; what they raise leaves through the loop."""
        cdef object watchers = f.watchers
        f.watchers = None
        try:
            if isinstance(watchers, list):
                for watcher in <list>watchers:
                    (<Watcher>watcher).fiber_done(f)
            elif watchers is not None:
                (<Watcher>watchers).fiber_done(f)
            if f.watched:
                f.on_finished()
        except BaseException as error:
            self.fatal = error
        return 0

    # -- the hub's side

    def bind(self) -> None:
        """The caller is the hub from now on: called by the loop when it starts to run.

        RuntimeError if fibers live that belong to another kernel thread, or to the parent of this process: what a
        forked child has a copy of (the poller, workers) is the parent's.
        """
        if loop_runs_here():
            raise RuntimeError("an event loop with fibers runs in this thread already")
        if self.slot.is_inherited():
            if self.live_count:
                raise self.inherited()
            # it may run callbacks, as whoever closes a Runner lets it do; who spawns does not own the slot
            self.slot.owner_ident = 0
        elif not self.slot.owned():
            self.move_here()
        self.running = True
        self.hub_stack = self.backend.adopt()
        set_running(self)
        note_thread()

    def unbind(self) -> None:
        """The loop stops running: idle stacks are unwound; live fibers stay, for the next run."""
        try:
            self.trim_pool(0)
        finally:
            # the next thread that runs the loop may be another one, elsewhere
            self.slot.rest()
            set_running(None)
            self.running = False
            self.timers.disarm(self.pool_timer)

    cdef int move_here(self) except -1:
        """The calling thread becomes the home worker, if nothing ties the scheduler to another one."""
        if self.slot.is_inherited():
            raise self.inherited()
        if self.running:
            raise RuntimeError(
                "spawn() from another thread than the event loop's: use loop.call_soon_threadsafe(spawn, fn)"
            )
        if self.live_count:
            raise RuntimeError(
                f"{self.live_count} fibers of this loop belong to {self.slot.home!r} and cannot move to another thread"
            )
        return self.slot.bind_home()

    cdef object inherited(self):
        return RuntimeError(
            "this event loop ran fibers in the parent of this process, before the fork, and cannot run any here: "
            "make a new one"
        )

    def drain_from_loop(self) -> None:
        """Run fibers until there is nothing to run, or I/O is due: the loop's one callback."""
        self.drain()

    cdef int drain(self) except -1:
        cdef PyObject *p
        if self.draining:
            raise RuntimeError("the scheduler is draining already: the event loop was run inside a fiber")
        self.draining = True
        self.drain_requested = False
        self.slot.hub_idle = False
        self.epoch += 1
        self.drains += 1
        # in a controlled run real time decides nothing
        self.poll_at = <unsigned long long>-1 if self.controlled else ticks_now() + POLL_TICKS
        try:
            if self.timers._count and not self.controlled:
                self.fire_timers()
            while True:
                p = self.for_hub
                self.for_hub = NULL
                if p == NULL:
                    p = self.take()
                    if p == NULL:
                        break
                self.run_from_hub(p)
            if self.dirty:
                self.flush_dirty()
            if len(self.pool) > POOL_CAP:
                self.trim_pool(POOL_CAP)
            if len(self.pool) > POOL_FLOOR and self.pool_timer._index < 0 and not self.controlled:
                self.pool_low = len(self.pool)
                self.timers.arm(self.pool_timer, self.clock.now_ns() + POOL_DECAY_NS)
        finally:
            self.draining = False
            self.current = NULL
            self.slot.hub_idle = True
            if self.slot.inbox_head != NULL:
                self.drain_inbox()
            self.take_interrupt()
            if self.fatal is not None:
                self.hub.fail(self.fatal)
                self.fatal = None
            if self.hub.unsettled:
                self.hub.settle()
            if self.runnable():
                if not self.drain_requested:
                    self.drain_requested = True
                    self.hub.request_drain()
                if ticks_now() >= self.breathe_at and not self.controlled:
                    self.breathe()
            else:
                self.breathe_at = ticks_now() + BREATHE_MS * POLL_TICKS
                self.hub.arm_timer(self.timers.head_ns())
                self.hub.went_idle()
        return 0

    cdef int breathe(self) except -1:
        """The hub has been busy for long: let another thread have the GIL, if there is one that may want it.

        The loop releases the GIL each time it polls, once a millisecond, and has it again before a thread on another
        CPU wakes up; and each release restarts the five milliseconds after which CPython would make it yield.  So
        beside a busy loop nobody else would run, a detached fiber that wants to come back least of all.
        """
        cdef timespec pause
        cdef bint hurry = self.slot.detached > 0
        if hurry or thread_count() > len(self.slot.others):
            pause.tv_sec = 0
            pause.tv_nsec = BREATHE_NS
            with nogil:
                nanosleep(&pause, NULL)
        self.breathe_at = ticks_now() + (BREATHE_DETACHED_MS if hurry else BREATHE_MS) * POLL_TICKS
        return 0

    cdef bint runnable(self) except -1:
        if self.front != NULL or self.for_hub != NULL:
            return True
        if self.fifo is not None:
            return self.fifo.n > 0
        try:
            return self.policy.count() > 0
        except BaseException as error:
            # there is no fiber to raise it in: it leaves through the loop
            self.hub.fail(error)
            return True

    cdef int fire_timers(self) except -1:
        cdef Timer timer
        cdef long long now = self.clock.now_ns()
        while True:
            timer = self.timers.pop_due(now)
            if timer is None:
                return 0
            timer.fire()

    cdef int run_from_hub(self, PyObject *p) except -1:
        """Let a fiber run, on a stack of its own; returns when somebody switches back to the hub."""
        cdef Stack stack
        if (<FiberCore>p).threaded and (<ThreadStack>(<FiberCore>p).stack).worker is None:
            if not self.hire(<FiberCore>p):
                return 0
        stack = (<FiberCore>p).stack
        if stack is None:
            if self.pool:
                stack = self.pool.pop()
            else:
                try:
                    stack = self.backend.create(self.entry, self.hub_stack)
                except BaseException as error:
                    return self.fail_unstarted(<FiberCore>p, error)
                self.stacks_created += 1
            stack.fiber = <FiberCore>p
            (<FiberCore>p).stack = stack
        self.current = p
        self.switches += 1
        self.io_calls = 0
        if self.instruments is not None:
            self.note_switch(None)
        if stack.switch_from(self.hub_stack) < 0:
            self.current = NULL
            return -1
        self.current = NULL
        if self.instruments is not None:
            self.note_arrival(None)
        return 0

    cdef int fail_unstarted(self, FiberCore f, object error) except -1:
        """A NEW fiber gets no stack, or no worker: that is its outcome.  None: it was cancelled."""
        transition_start(&f._state)
        try:
            f.discard()
            if error is None:
                self.raise_cancel(f)
        except BaseException as worse:
            error = worse
        f.exception_value = error
        return self.finish(f)

    cdef int trim_pool(self, Py_ssize_t keep) except -1:
        """Unwind idle stacks, those unused for longest first; only in the hub."""
        cdef list idle
        cdef Stack stack
        if len(self.pool) <= keep:
            return 0
        idle = self.pool[:len(self.pool) - keep]
        self.pool = self.pool[len(self.pool) - keep:]
        for stack in idle:
            self.backend.unwind(stack, self.hub_stack)
        return 0

    cdef int end_of_child(self) except -1:
        """A fiber's function returned in a forked child: there is no loop to go back to."""
        try:
            print(
                "swapco: a fiber returned in a forked child, which has no event loop: end the child with os._exit(), "
                "or call swapco.run() in it",
                file=sys.stderr, flush=True,
            )
        finally:
            os._exit(70)  # EX_SOFTWARE

    # -- observers

    @property
    def running_fiber(self):
        """The fiber that runs now, or None: the hub does, or no loop runs.  From any thread."""
        return None if self.current == NULL else <object>self.current

    cdef int note_switch(self, FiberCore leaving) noexcept:
        return self.note("before_switch", leaving, None if self.current == NULL else <object>self.current)

    cdef int note_arrival(self, FiberCore arriving) noexcept:
        return self.note("after_switch", arriving)

    def add_instrument(self, instrument) -> None:
        """Install an ``Instrument``: its hooks are called from now on."""
        if not isinstance(instrument, Instrument):
            raise TypeError(f"an instrument derives from swapco.lowlevel.Instrument; {instrument!r} does not")
        members = () if self.instruments is None else self.instruments.members
        self.instruments = Instruments((*members, instrument))

    def remove_instrument(self, instrument) -> None:
        """Take an instrument out again; ValueError if it is not installed (any more)."""
        members = () if self.instruments is None else self.instruments.members
        if instrument not in members:
            raise ValueError(f"{instrument!r} is not installed")
        members = tuple([m for m in members if m is not instrument])
        self.instruments = Instruments(members) if members else None

    def statistics(self) -> dict:
        """Counters since the scheduler was made, and sizes now."""
        cdef PyObject *at = self.front
        cdef Py_ssize_t in_front = 0
        while at != NULL:
            in_front += 1
            at = (<FiberCore>at).run_next
        return {
            "live_fibers": self.live_count,
            "run_queue": self.policy.count() + in_front,
            "timers": len(self.timers),
            "idle_stacks": len(self.pool),
            "stacks_created": self.stacks_created,
            "switches": self.switches,
            "takes": self.takes,
            "direct_handoffs": self.direct_handoffs,
            "drains": self.drains,
            "detached": self.slot.detached,
            "idle_workers": len(self.idle_workers),
            **self.slot.statistics(),
        }


cdef Scheduler running_scheduler():
    """The scheduler whose loop runs in this thread, or None."""
    return <Scheduler>running_dispatcher()


# --------------------------------------------------------------------------------------------- fork

def _after_fork_in_child() -> None:
    """The fibers and the loop stay with the parent: the child starts clean."""
    cdef Scheduler s = running_scheduler()
    if s is not None:
        s.abandoned = True
        set_running(None)
        host(None)


os.register_at_fork(after_in_child=_after_fork_in_child)
