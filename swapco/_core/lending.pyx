"""Lending the slot to kernel threads: fibers that may block.

Theory
------
A *thread fiber* has a kernel thread of its own.  It is scheduled like every other fiber, in the same run queue, under
the same laws; only its turn looks different.  To run it, the home worker *lends the slot* to its worker and sleeps;
the worker gives the slot on when its fiber blocks in a primitive or ends: to another worker directly, or back to home
with the name of who runs next there.  So a switch from thread fiber to thread fiber is one handoff between two kernel
threads (slot_word.h), with no trip through home.

A thread fiber that blocks in the kernel, or computes for long, keeps the slot until the detector revokes it; home then
*notices*: the fiber is DETACHED, and home goes on with the others.  Its thread runs on as an ordinary thread.  At its
next call of swapco, or at its end, it comes back through the inbox: a call waits until the policy names its fiber,
and until then nobody is disturbed (a wake-up never preempts the owner); the end is recorded by whoever owns the slot.
``resume`` and ``cancel`` from a detached fiber do not wait: they are those of a foreign thread.

``ThreadStack`` stands where other fibers have a stack: switching to one from a stack of the home worker is lending.
Home waits in that very switch, on the stack of whoever gave the slot away; when it has the slot again it continues
there, or on the stack of whom the worker named.

Workers are reused, the one that ended last first.  Only the hub starts kernel threads: starting one runs Python code,
in which a signal handler may raise.  When all ``max_workers`` are busy, new thread fibers *starve*: they wait, first
in first out, for a worker, and a warning says so once.  Some more are kept for clean-up, at least one: for what is
spawned by fibers that are being cancelled, and the calls that those calls make.

Invariants
----------
- A worker hosts at most one fiber, and touches the scheduler only as the owner, in a section.
- Home is in ``Slot.lend`` whenever another worker owns the slot.
- A fiber that ended without the slot keeps its worker until the owner has finished it.
- What belongs to the event loop's thread (callbacks, timers, the poller's set) is left to home: decided by "am I home",
  where everything else is decided by "do I own the slot".

Rejected: giving a returning fiber the slot at once (two schedulers that preempt each other: the worker would take the
CPU from whoever runs, and the policy would not be asked); a thread pool beside the scheduler (its threads compete with
the loop for the GIL and the CPU, and a call costs two wake-ups across CPUs); running the function of a finished
offload in a callback of the loop (one more turn of the loop for each call).
"""

import collections
import logging

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from .clock cimport Timer
from .fiber cimport Dispatcher, FiberCore, note_thread
from .here cimport hide_fiber, host, show_fiber
from .slot cimport SWAPCO_GIVEN_BACK, ThreadStack, Worker, slot_enter, slot_leave, swapco_lend_end
from .states cimport *
from .switch cimport Stack, thread_context_assign

from .errors import NotInFiber
from .frames import frames_of_threads

cdef extern from "calls.h":
    PyObject *swapco_call(PyObject *fn, PyObject *args)
    object swapco_raised()

cdef enum:
    LOOK_NS = 1_000_000_000
    IDLE_FLOOR = 4
    JOIN_S = 5

_log = logging.getLogger("swapco")


cdef class LentStack(ThreadStack):
    """A thread fiber's stack, to whoever switches to it from the home worker."""

    cdef Lender lender

    cdef int switch_from(self, Stack leaving) noexcept:
        return self.lender.lend_until_home(self, leaving)

    cdef object frame(self):
        if self.worker is None:
            return None
        return frames_of_threads().get(self.worker.ident)


cdef class _WorkerMain:
    """What a worker's thread calls."""

    cdef Lender lender

    def __call__(self, Worker worker):
        self.lender.work(worker)


cdef class _LendingTimer(Timer):
    """Looks after the workers once a second, while there is something to look after."""

    cdef Lender lender

    cdef int fire(self) except -1:
        return self.lender.look_after()


cdef class Lender(Dispatcher):
    """The part of the scheduler that knows kernel threads."""

    def __cinit__(self, *args, **kwargs):
        cdef _WorkerMain main = _WorkerMain()
        cdef _LendingTimer timer = _LendingTimer()
        self.idle_workers = []
        self.starved = collections.deque()
        self.starved_first = collections.deque()
        main.lender = timer.lender = self
        timer.housekeeping = True
        self.worker_main = main
        self.lending_timer = timer

    # -- what Scheduler adds

    cdef PyObject *stack_for(self, PyObject *following) noexcept:
        return NULL

    cdef int begin(self, FiberCore f) except -1:
        raise TypeError("Scheduler implements begin")

    cdef int finish(self, FiberCore f) except -1:
        raise TypeError("Scheduler implements finish")

    cdef int forget(self, FiberCore f) except -1:
        raise TypeError("Scheduler implements forget")

    cdef int fail_unstarted(self, FiberCore f, object error) except -1:
        raise TypeError("Scheduler implements fail_unstarted")

    cdef int thrown_into(self, FiberCore me) except -1:
        raise TypeError("Scheduler implements thrown_into")

    cdef int loop_is_due(self) noexcept:
        return 0

    cdef int end_of_child(self) except -1:
        raise TypeError("Scheduler implements end_of_child")

    cdef int note_switch(self, FiberCore leaving) noexcept:
        return 0

    cdef int note_arrival(self, FiberCore arriving) noexcept:
        return 0

    cdef ThreadStack new_thread_stack(self):
        """What a thread fiber has instead of a stack."""
        cdef LentStack stack = LentStack.__new__(LentStack)
        stack.lender = self
        return stack

    # -- home's side

    cdef int lend_until_home(self, ThreadStack target, Stack leaving) noexcept:
        """Lend the slot, again and again, until home is to go on; then go on there.  ``leaving``: where home is."""
        cdef PyObject *to = <PyObject *>target
        cdef unsigned long long detaches
        while True:
            detaches = self.slot.detaches
            to = self.stack_for(self.lend(<ThreadStack>to))
            if self.instruments is not None and self.slot.detaches != detaches:
                # nobody gave the slot on
                self.note_switch(None)
            if to == <PyObject *>leaving:
                return 0
            if not isinstance(<object>to, ThreadStack):
                return (<Stack>to).switch_from(leaving)

    cdef PyObject *lend(self, ThreadStack target) noexcept:
        """Let the fiber that is ``current`` run on its worker; returns who runs next on home, or NULL: the hub."""
        cdef PyObject *following
        cdef swapco_lend_end end
        if self.lending_timer._index < 0:
            self.timers.arm(self.lending_timer, self.clock.now_ns() + LOOK_NS)
        if target.starts_detached:
            target.starts_detached = False
            self.start_detached(<FiberCore>self.current)
            self.switches += 1
            return self.take()
        end = self.slot.lend(target.worker)
        self.take_interrupt()
        if self.slot.signalled:
            # the handler runs in the loop, as owner of the slot
            self.loop_is_due()
        if end == SWAPCO_GIVEN_BACK:
            following = self.home_target
            self.home_target = NULL
            return following
        target = <ThreadStack>(<FiberCore>self.current).stack
        target.blocked = target.revoked = True
        self.detach(<FiberCore>self.current)
        self.switches += 1
        return self.take()

    cdef int detach(self, FiberCore f) noexcept:
        """Its worker runs on without the slot."""
        cdef ThreadStack stack = <ThreadStack>f.stack
        self.current = NULL
        transition_detach(&f._state)
        stack.detached_at = self.slot.real_clock.now_ns()
        self.slot.detached += 1
        self.slot.detached_ns -= <unsigned long long>stack.detached_at
        self.slot.detaches += 1
        try:
            if self.dirty:
                self.flush_dirty()
            self.slot.displace(stack.worker)
            self.take_interrupt()
            if self.instruments is not None:
                self.note("detached", f)
            if self.slot.has_ended(stack.worker):
                self.bury(f)
        except BaseException as error:
            self.fatal = error
        return 0

    cdef int take_interrupt(self) noexcept:
        """What a signal handler raised in the middle of a handoff leaves through the loop."""
        if self.slot.interrupt is not None:
            self.fatal = self.slot.interrupt
            self.slot.interrupt = None
        return 0

    cdef int start_detached(self, FiberCore f) noexcept:
        """Start a NEW fiber without the slot: it is known to block."""
        cdef Worker worker = (<ThreadStack>f.stack).worker
        try:
            if f.cancel_pending:
                self.current = NULL
                self.fail_unstarted(f, None)
                worker.fiber = NULL
                self.release(worker)
                return 0
        except BaseException as error:
            self.fatal = error
            return 0
        transition_start(&f._state)
        self.detach(f)
        self.slot.run_detached(worker)
        return 0

    # -- a detached fiber comes back

    cdef int reattach(self, Worker worker) except -1:
        cdef FiberCore f = <FiberCore>worker.fiber
        cdef ThreadStack stack = <ThreadStack>f.stack
        if self.slot.is_void():
            raise _closed(f)
        self.weigh(stack)
        stack.wants_slot = True
        self.slot.post(f)
        if not self.slot.wait(worker):
            stack.wants_slot = False
            raise _closed(f)
        if self.instruments is not None:
            self.note_arrival(f)
        return 0

    cdef int came_back(self, FiberCore f) except -1:
        """By the owner: what a detached fiber's thread posted."""
        cdef ThreadStack stack = <ThreadStack>f.stack
        if stack.ended:
            return self.finish_detached(f)
        if not stack.wants_slot:
            return 0  # a cancellation: it is raised where the fiber waits next
        stack.wants_slot = False
        transition_reattach(&f._state)
        self.slot.reattaches += 1
        self.count_absence()
        if self.instruments is not None:
            self.note("reattached", f)
        return self.push(f)

    cdef int count_absence(self) noexcept:
        """It is not detached any more."""
        self.slot.detached -= 1
        self.slot.detached_ns += <unsigned long long>self.slot.real_clock.now_ns()
        return 0

    cdef int weigh(self, ThreadStack stack) noexcept:
        """By its thread, which is back: was it right to run without the slot?"""
        if self.slot.real_clock.now_ns() - stack.detached_at > self.slot.tick * 1e9:
            stack.blocked = True
        elif stack.revoked:
            self.slot.false_detaches += 1
        stack.revoked = False
        return 0

    cdef bint is_overdue(self, FiberCore f) noexcept:
        """Is it detached, and has been for longer than a tick?"""
        return f._state == DETACHED and (
            self.slot.real_clock.now_ns() - (<ThreadStack>f.stack).detached_at > self.slot.tick * 1e9
        )

    cdef int finish_detached(self, FiberCore f) except -1:
        """It ended without the slot: record it.  Whoever runs meanwhile goes on as before."""
        cdef ThreadStack stack = <ThreadStack>f.stack
        cdef PyObject *running = self.current
        cdef PyObject *hidden = hide_fiber()
        self.count_absence()
        stack.ended = False
        try:
            self.finish(f)
        finally:
            self.current = running
            show_fiber(hidden)
        stack.worker.fiber = NULL
        return self.release(stack.worker)

    cdef int bury(self, FiberCore f) except -1:
        """The kernel thread of a detached fiber is gone."""
        cdef Worker worker = (<ThreadStack>f.stack).worker
        f.exception_value = RuntimeError(f"the kernel thread of {f!r} ended before its function returned")
        self.slot.forget_worker(worker)
        return self.finish_detached(f)

    # -- a thread fiber's side

    cdef int leave_thread(self, FiberCore me, PyObject *following) except -1:
        """Suspend a thread fiber, and run ``following``; returns when ``me`` runs again."""
        cdef Worker worker
        if self.dirty:
            self.flush_dirty()
        if following == <PyObject *>me:
            return 0
        worker = (<ThreadStack>me.stack).worker
        if not self.pass_on(worker, following, True):
            self.thrown_into(me)
            raise _closed(me)
        if self.instruments is not None:
            self.note_arrival(me)
        return 0

    cdef bint pass_on(self, Worker me, PyObject *following, bint wait) noexcept:
        """Give the slot to the worker of ``following``; ``wait``: until it is here again, True."""
        cdef Worker to = None
        cdef FiberCore leaving = <FiberCore>me.fiber if wait else None
        self.switches += 1
        if following != NULL and (<FiberCore>following).threaded:
            if not (<ThreadStack>(<FiberCore>following).stack).starts_detached:
                if (<FiberCore>following)._state != NEW or self.find_worker(<FiberCore>following):
                    to = (<ThreadStack>(<FiberCore>following).stack).worker
        if to is not None:
            self.current = following
        else:
            self.home_target = following
            self.current = NULL
            to = self.slot.home
            if following != NULL and ((<FiberCore>following).threaded or (
                (<FiberCore>following)._state == NEW and not self.pool
            )):
                following = NULL  # only the hub can start it
        if self.instruments is not None:
            self.note("before_switch", leaving, None if following == NULL else <object>following)
        if not wait:
            # the section of `work`, or of who gives up, ends here
            me.c.depth = 0
        return self.slot.hand(me, to, wait)

    cdef int give_up(self, FiberCore me) except -1:
        """By a thread fiber in its outermost section, which ends here: run on without the slot."""
        cdef Worker worker = (<ThreadStack>me.stack).worker
        self.detach(me)
        worker.c.left = 0
        self.pass_on(worker, self.take(), False)
        return 0

    cdef int work(self, Worker me) except -1:
        """The life of a worker's thread."""
        # borrowed: whatever its end lets go of must go while the slot is held, or at home
        cdef PyObject *f
        cdef PyObject *returned
        self.slot.worker_begins(me)
        me.scheduler = <PyObject *>self
        host(me)
        note_thread()
        try:
            while True:
                if self.slot.wait(me):
                    # a section: finalizers run in it, and may call swapco
                    me.c.depth = 1
                    f = me.fiber
                    if not self.begin(<FiberCore>f):
                        self.end_attached(me, f)
                        continue
                    me.c.depth = 0
                    slot_leave(me.c)
                elif self.slot.may_run_detached(me):
                    f = me.fiber
                    thread_context_assign(<PyObject *>(<FiberCore>f).context)
                else:
                    return 0
                returned = swapco_call(<PyObject *>(<FiberCore>f).fn, <PyObject *>(<FiberCore>f).args)
                self.end(me, f, returned)
        finally:
            host(None)
            self.slot.worker_returns(me)

    cdef int end(self, Worker me, PyObject *p, PyObject *returned) except -1:
        """The function returned (an owned reference) or raised (NULL), with the slot or without it."""
        self.keep_outcome(<FiberCore>p, returned)
        if self.abandoned:
            self.end_of_child()
        thread_context_assign(NULL)
        if slot_enter(me.c):
            me.c.depth = 1
            return self.end_attached(me, p)
        return self.end_detached(me, p)

    cdef int keep_outcome(self, FiberCore f, PyObject *returned) except -1:
        cdef object result
        if returned != NULL:
            result = <object>returned
            Py_DECREF(result)
            f.complete(result)
            result = None
        else:
            f.exception_value = swapco_raised()
        return 0

    cdef int end_detached(self, Worker me, PyObject *p) except -1:
        """Without the slot: leave the rest to its owner.

        No finalizer runs before that: the fiber would not come back.
        """
        cdef ThreadStack stack = <ThreadStack>(<FiberCore>p).stack
        self.weigh(stack)
        stack.ended = True
        if self.slot.is_void():
            # nobody is left to record it; finalizers run as nobody here, too, for the fiber itself goes
            self.count_absence()
            me.fiber = NULL
            return self.forget(<FiberCore>p)
        return self.slot.post(<FiberCore>p)

    cdef int end_attached(self, Worker me, PyObject *p) except -1:
        """By the owner, in a section: finish the fiber, and give the slot on."""
        cdef PyObject *following = NULL
        if (
            (<ThreadStack>(<FiberCore>p).stack).is_call and (<FiberCore>p).joiners.count == 1
            and not self.poll_is_due()
        ):
            following = self.hand_back(<FiberCore>p)
        # finalizers run as nobody, as on the home worker: the fiber may be gone by then
        me.fiber = NULL
        self.finish(<FiberCore>p)
        if self.abandoned:
            # one of them forked, and returned in the child
            self.end_of_child()
        thread_context_assign(NULL)
        self.release(me)
        if following == NULL:
            following = self.take()
        self.pass_on(me, following, False)
        return 0

    # -- workers

    cdef bint find_worker(self, FiberCore f) noexcept:
        """Give a NEW thread fiber an idle worker, if there is one."""
        cdef ThreadStack stack = <ThreadStack>f.stack
        cdef Worker worker
        if stack.worker is not None:
            return True
        if not self.idle_workers or not self.may_have_worker(f):
            return False
        worker = self.idle_workers.pop()
        if len(self.idle_workers) < self.idle_low:
            self.idle_low = len(self.idle_workers)
        worker.fiber = <PyObject *>f
        stack.worker = worker
        return True

    cdef bint may_have_worker(self, FiberCore f) noexcept:
        """Are fewer workers busy than this fiber may see busy?"""
        cdef Py_ssize_t limit = self.slot.max_workers
        if (<ThreadStack>f.stack).may_use_reserve:
            limit += self.slot.reserve
        return len(self.slot.others) - len(self.idle_workers) < limit

    cdef bint hire(self, FiberCore f) except -1:
        """In the hub: find or start a worker for a NEW thread fiber; False: it has to wait for one, or is done."""
        cdef Worker worker
        if f.cancel_pending:
            self.fail_unstarted(f, None)
            # it may have waited for the place that it does not need
            self.serve_starved()
            return False
        if self.find_worker(f):
            return True
        if not self.may_have_worker(f):
            self.starve(f)
            return False
        try:
            worker = self.slot.new_worker(self.worker_main)
        except Exception as error:
            self.fail_unstarted(f, error)
            self.serve_starved()
            return False
        if worker is None:
            # what the handler raised is nothing to the fiber: its turn comes again
            self.take_interrupt()
            self.push_front(f)
            return False
        self.idle_workers.append(worker)
        return self.find_worker(f)

    cdef int starve(self, FiberCore f) except -1:
        """There is no worker for a NEW fiber: it waits for one."""
        f.starved = True
        self.line_of(f).append(f)
        if self.warned:
            return 0
        self.warned = True
        try:
            _log.warning(
                "swapco: all %d kernel threads of this event loop are in use, and %r has to wait for one. Calls that "
                "wait for each other through to_thread() can wait for ever. Raise the limit with swapco.run(main, "
                "slot=swapco.lowlevel.Slot(max_workers=...)) or SWAPCO_MAX_WORKERS. (Logged once for each event loop.)",
                len(self.slot.others) - len(self.idle_workers), f,
            )
        except BaseException as error:
            # a signal handler's, or a logging handler's
            self.fatal = error
        return 0

    cdef int drop_starved(self, FiberCore f) except -1:
        """A fiber that waits for a worker was cancelled."""
        cdef PyObject *running = self.current
        cdef PyObject *hidden = hide_fiber()
        self.line_of(f).remove(f)
        f.starved = False
        try:
            return self.fail_unstarted(f, None)
        finally:
            self.current = running
            show_fiber(hidden)

    cdef int release(self, Worker worker) except -1:
        """Its fiber is done; if its thread is gone, too, the hub may start another one."""
        if worker in self.slot.others:
            self.idle_workers.append(worker)
        return self.serve_starved()

    cdef int serve_starved(self) except -1:
        """If there is a place, the first that waits for one has it."""
        cdef FiberCore f
        for line in (self.starved_first, self.starved):
            if line and (self.find_worker(line[0]) or self.may_have_worker(line[0])):
                f = line.popleft()
                f.starved = False
                return self.push(f)
        return 0

    cdef object line_of(self, FiberCore f):
        """Where it waits for a worker."""
        return self.starved_first if (<ThreadStack>f.stack).may_use_reserve else self.starved

    cdef int look_after(self) except -1:
        """Once a second, by home: let the kernel balance, bury the dead, let idle threads go."""
        cdef Worker worker
        self.slot.rest()
        for worker in list(self.slot.others):
            if self.slot.has_ended(worker) and worker.fiber != NULL and (<FiberCore>worker.fiber)._state == DETACHED:
                self.bury(<FiberCore>worker.fiber)
        self.trim_workers()
        if self.slot.detached or len(self.idle_workers) > IDLE_FLOOR:
            self.timers.arm(self.lending_timer, self.clock.now_ns() + LOOK_NS)
        return 0

    cdef int trim_workers(self) except -1:
        """Let half of the threads go that were idle since the last look."""
        cdef Worker worker
        cdef Py_ssize_t spare = min(self.idle_low, len(self.idle_workers) - IDLE_FLOOR)
        cdef Py_ssize_t count = (spare + 1) // 2
        if count > 0:
            for worker in self.idle_workers[:count]:
                self.slot.forget_worker(worker)
                self.slot.stop(worker)
            del self.idle_workers[:count]
        self.idle_low = len(self.idle_workers)
        return 0

    cdef int close_workers(self) except -1:
        """The loop is closed: idle threads end; others at the next thing that they ask of the slot."""
        cdef Worker worker
        cdef list idle = self.idle_workers
        self.idle_workers = []
        self.timers.disarm(self.lending_timer)
        self.slot.rest()
        self.slot.void()
        for worker in self.slot.others:
            self.slot.stop(worker)
        for worker in idle:
            # they only have to wake up
            worker.thread.join(JOIN_S)
        return 0


cdef object _closed(FiberCore f):
    return NotInFiber(
        f"the event loop of {f!r} is closed: this thread was left alone when it did not come back in time "
        "(shutdown_timeout), and can no longer call swapco"
    )
