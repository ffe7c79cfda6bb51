"""The scheduler: fibers, the run queue, and the three verbs.

Theory
------
A fiber gives the slot away in two ways.  *Through the run queue*: it blocks, and whoever the policy names next
runs.  *As a handoff*: ``switch_to`` names who runs next, and the run queue is not touched.  Either way the
switch goes from fiber to fiber; the hub, in which the event loop runs, is entered only when nothing is
runnable, when I/O and timers have not been looked at for a millisecond, or to start a fiber for which there
is no idle stack.  So a switch costs one switch, not two.

Go's scheduler notes list direct handoff among the rejected designs.  Their case is *readying* a goroutine
while spare processors exist; ours is a caller that blocks and gives its own CPU away.

Two words of a fiber arbitrate every race: its *wait record* (wait.h: who ends this suspension) and its
*token* (a resume that found no bare block to wake).  The laws are in docs/semantics.md, and tests/laws has a
property test for each.

Invariants
----------
- Only the owner of the slot executes anything in this file, but for the first half of ``resume`` and
  ``cancel``, which any thread may call: they win the wait record or set a flag, and post to the inbox.
- The scheduler holds every live fiber (``live``); queues and stacks borrow.
- A fiber is in the run queue if and only if it is NEW or READY, and in a wait queue only while BLOCKED.
  Whoever wins the wait of a fiber on the owner's side also takes it out of its wait queue.
- A parked C frame holds no strong reference to another fiber: a fiber that waits for long must not keep
  alive who ran after it.
- Nothing raises between the moment in which a fiber gave the slot away and the moment in which it runs
  again; errors of a policy written in Python stop the loop (``fatal``).

Budgets (law 5): at most ``HANDOFFS`` handoffs between two takes from the run queue; one look at I/O and timers
per millisecond of fibers running; ``IO_CALLS`` I/O calls of one fiber without a suspension.

Rejected: a switch to the hub and back for each block (gevent; twice the switches); running the target of a
resume at once (the resumer would lose its turn, and a producer its cache); throwing a cancellation into a
parked stack (the thrower is stranded: the fiber is made runnable, and raises when it runs).
"""

from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

import os
import sys

from .clock cimport NEVER_NS, Clock, Timer, TimerHeap, deadline_after
from .policy cimport Fifo, Policy, Runnable
from .reasons cimport AWAIT, BLOCK, JOIN, NOTHING, SWITCH_TO, is_external
from .slot cimport Postable, Slot
from .states cimport *
from .switch cimport Backend, GreenletBackend, Stack, StackMain, thread_context_assign
from .wait cimport *

from .errors import CancelledError, InvalidStateError, NotInFiber
from .instrument import EVENTS, Instrument, Instruments
from .reasons import describe

cdef extern from "ticks.h" nogil:
    unsigned long long ticks_now()
    unsigned long long ticks_per_ms()

cdef extern from *:
    """
    /* The scheduler whose loop runs in this kernel thread; borrowed: the running loop holds it. */
    static __thread PyObject *swapco_running_scheduler __attribute__((tls_model("initial-exec"))) = NULL;

    /* Call a fiber's function; NULL with an exception set. */
    static inline PyObject *swapco_call(PyObject *fn, PyObject *args)
    {
        return args == NULL || PyTuple_GET_SIZE(args) == 0 ? PyObject_CallNoArgs(fn)
                                                          : PyObject_Call(fn, args, NULL);
    }

    /* The exception that is set, with its traceback; clears it. */
    static PyObject *swapco_raised(void)
    {
    #if PY_VERSION_HEX >= 0x030C0000
        return PyErr_GetRaisedException();
    #else
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyErr_NormalizeException(&type, &value, &trace);
        if (trace != NULL)
            PyException_SetTraceback(value, trace);
        Py_XDECREF(type);
        Py_XDECREF(trace);
        return value;
    #endif
    }
    """
    PyObject *swapco_running_scheduler
    PyObject *swapco_call(PyObject *fn, PyObject *args)
    object swapco_raised()
    object PyContext_CopyCurrent()

cdef enum:
    HANDOFFS = 64
    IO_CALLS = 64
    POOL_CAP = 1024
    POOL_FLOOR = 16
    POOL_DECAY_NS = 1_000_000_000

cdef unsigned long long POLL_TICKS = ticks_per_ms()
cdef unsigned long long _names = 0


# ---------------------------------------------------------------------------------------- wait queues

cdef int queue_append(WaitQueue *queue, FiberCore f) except -1:
    f.queue = queue
    f.queue_next = NULL
    f.queue_prev = queue.tail
    if queue.tail != NULL:
        (<FiberCore>queue.tail).queue_next = <PyObject *>f
    else:
        queue.head = <PyObject *>f
    queue.tail = <PyObject *>f
    queue.count += 1
    return 0


cdef int queue_remove(FiberCore f) noexcept:
    cdef WaitQueue *queue = f.queue
    if queue == NULL:
        return 0
    if f.queue_prev != NULL:
        (<FiberCore>f.queue_prev).queue_next = f.queue_next
    else:
        queue.head = f.queue_next
    if f.queue_next != NULL:
        (<FiberCore>f.queue_next).queue_prev = f.queue_prev
    else:
        queue.tail = f.queue_prev
    queue.count -= 1
    f.queue = NULL
    f.queue_prev = f.queue_next = NULL
    return 0


cdef class WaitTimer(Timer):
    """Ends one suspension of one fiber, if nobody was faster."""

    cdef int fire(self) except -1:
        cdef FiberCore f = self.fiber
        if wait_claim(&f.wait, self.record, WAIT_WON_TIMEOUT):
            f.scheduler.ready(f)
        return 0


cdef class Flushable:
    """Output that is collected and sent before the fiber that wrote it gives the slot away."""

    cdef int flush(self) except -1:
        return 0


cdef class Watcher:
    """Told at once that a fiber is done; may wake and cancel others, must not block."""

    cdef int fiber_done(self, FiberCore f) except -1:
        return 0


# ------------------------------------------------------------------------------------------- fibers

cdef class FiberCore(Postable):
    """A fiber without an event loop: what the scheduler runs.

    ``swapco.Fiber`` derives from it and adds asyncio's Task protocol.
    """

    def __init__(self, Scheduler scheduler not None, fn, tuple args=(), *, name=None, context=None,
                 priority=0, deadline=None):
        global _names
        if not self.accepts(fn):
            raise TypeError(f"a fiber needs something to call, not {fn!r}; write spawn(f, x), not spawn(f(x))")
        self.scheduler = scheduler
        self.fn = self.function_of(fn)
        self.args = args
        self.context = PyContext_CopyCurrent() if context is None else context
        self._state = NEW
        self.priority = priority
        self.deadline = deadline
        _names += 1
        self._name = _names if name is None else str(name)

    # -- what a loop adds

    cdef object complete(self, object returned):
        """The result, given what the function returned: an ``async def`` function returned a coroutine."""
        return returned

    cdef bint accepts(self, object fn) except -1:
        return callable(fn)

    cdef object function_of(self, object fn):
        """What to call, for what ``spawn`` was given."""
        return fn

    cdef int discard(self) except -1:
        """The fiber was cancelled before it ran: close what it will not run."""
        return 0

    cdef int suspending(self) except -1:
        return 0

    cdef int continuing(self) except -1:
        return 0

    cdef int on_finished(self) except -1:
        return 0

    cdef int forward_cancel(self) except -1:
        """Hand the cancellation to whatever the fiber awaits."""
        return NOT_FORWARDED

    # -- identity and state

    @property
    def name(self) -> str:
        """The name: given to ``spawn``, or ``Fiber-N``."""
        return self._name if isinstance(self._name, str) else f"Fiber-{self._name}"

    @name.setter
    def name(self, value) -> None:
        self._name = str(value)

    @property
    def state(self) -> str:
        """NEW, READY, RUNNING, BLOCKED, DETACHED or DONE."""
        return swapco_state_names[self._state].decode()

    @property
    def wait_reason(self):
        """What the fiber waits for, in words; None while it does not wait."""
        if self._state != BLOCKED:
            return None
        return describe(self.reason, None if self.waits_for == NULL else <object>self.waits_for)

    @property
    def waits_for_object(self):
        """The primitive, fiber or socket that the fiber waits for, or None."""
        return <object>self.waits_for if self._state == BLOCKED and self.waits_for != NULL else None

    @property
    def frame(self):
        """The innermost Python frame of a fiber that is parked, or None."""
        if self.stack is None or self is self.scheduler.current:
            return None
        return self.stack.frame()

    def __repr__(self) -> str:
        words = [f"{type(self).__name__} {self.name!r} {self.state}"]
        if self._state == BLOCKED:
            words.append(f"waits for {self.wait_reason}")
        elif self._state == NEW:
            words.append(f"of {getattr(self.fn, '__qualname__', self.fn)!s}")
        elif self._state == DONE:
            if self.exception_value is None:
                words.append(f"result={self.result_value!r}")
            else:
                words.append(f"exception={self.exception_value!r}")
        return f"<{' '.join(words)}>"

    # -- outcome

    def done(self) -> bool:
        """True once the function has returned or raised."""
        return self._state == DONE

    def cancelled(self) -> bool:
        """True if the fiber ended by a CancelledError."""
        return self._state == DONE and isinstance(self.exception_value, CancelledError)

    cdef object outcome(self):
        """The result; raises what the fiber raised."""
        self.result_retrieved = True
        if self.exception_value is not None:
            raise self.exception_value
        return self.result_value

    def join(self, timeout=None):
        """Block until the fiber is done; return its result or raise its exception.

        ``timeout`` is in seconds (None: for ever); when it is over, TimeoutError is raised and the fiber
        runs on.  Cancelling the joiner does not cancel the fiber.  Errors: NotInFiber where there is no
        fiber to block; RuntimeError for a fiber that joins itself or belongs to another loop.
        """
        if self._state != DONE:
            self.join_until(deadline_after(self.scheduler.clock, timeout))
        return self.outcome()

    cdef int join_until(self, long long deadline_ns) except -1:
        cdef FiberCore me = running_fiber("Fiber.join")
        if me is self:
            raise RuntimeError(f"{self!r} cannot join itself: it would wait for ever")
        if me.scheduler is not self.scheduler:
            raise RuntimeError(f"{self!r} belongs to another event loop; only fibers of one loop join each other")
        if self._state != DONE:
            self.scheduler.park(me, &self.joiners, JOIN, <PyObject *>self, deadline_ns)
        return 0

    cdef int watch(self, Watcher watcher) except -1:
        """Have ``watcher`` told when this fiber, which is not done, is."""
        if self.watchers is None:
            self.watchers = watcher
        elif isinstance(self.watchers, list):
            (<list>self.watchers).append(watcher)
        else:
            self.watchers = [self.watchers, watcher]
        return 0

    cdef int unwatch(self, Watcher watcher) except -1:
        """Take a ``watch`` back."""
        if self.watchers is watcher:
            self.watchers = None
        elif isinstance(self.watchers, list) and watcher in <list>self.watchers:
            (<list>self.watchers).remove(watcher)
        return 0

    # -- cancellation

    cdef int request_cancel(self, object message) except -1:
        cdef Scheduler s = self.scheduler
        self.cancel_requests += 1
        self.cancel_message = message
        self.cancel_pending = True
        if s.slot.owned():
            s.deliver_cancel(self)
        else:
            s.slot.post(self)
        return 0

    def cancel(self, msg=None) -> bool:
        """Ask the fiber to end: CancelledError is raised where it waits, or where it would wait next.

        From any thread.  Returns False if the fiber is done already.  A wake-up that has won already
        stands: the fiber gets its item or permit, and the cancellation stays pending.  A fiber that has not
        started never runs.  Does not block.
        """
        if self._state == DONE:
            return False
        self.request_cancel(msg)
        return True

    def cancelling(self) -> int:
        """How many cancellations were requested and not taken back by ``uncancel``."""
        return self.cancel_requests

    def uncancel(self) -> int:
        """Take one cancellation request back; down to 0, one that was not delivered yet is dropped."""
        if self.cancel_requests > 0:
            self.cancel_requests -= 1
            if self.cancel_requests == 0:
                self.cancel_pending = False
        return self.cancel_requests


# ---------------------------------------------------------------------------------------- scheduler

cdef class _StackMain(StackMain):
    """What a fresh stack calls."""

    cdef Scheduler scheduler

    cdef int main(self, Stack stack) except -1:
        return self.scheduler.stack_main(stack)


cdef class _PoolTimer(Timer):
    """Lets idle stacks go, a half of those unused for a second at a time."""

    cdef Scheduler scheduler

    cdef int fire(self) except -1:
        cdef Scheduler s = self.scheduler
        s.pool_low = min(s.pool_low, len(s.pool))
        s.trim_pool(max(POOL_FLOOR, len(s.pool) - (s.pool_low + 1) // 2))
        s.pool_low = len(s.pool)
        return 0


cdef class Scheduler:
    """One per slot.  Made by the event loop, which passes the ways in which they differ.

    ``hub`` is the loop's side (hub.pyx); ``policy`` decides who runs next (Fifo unless given); ``clock`` is
    what timeouts are measured with; ``fiber_type`` is the class that ``spawn`` makes.
    """

    def __init__(self, hub, *, Policy policy=None, Clock clock=None, type fiber_type=FiberCore, backend=None):
        cdef _StackMain entry = _StackMain()
        if not issubclass(fiber_type, FiberCore):
            raise TypeError(f"fiber_type must derive from FiberCore, not {fiber_type!r}")
        self.hub = hub
        self.slot = Slot()
        self.slot.hub = self.hub
        self.policy = Fifo() if policy is None else policy
        self.clock = Clock() if clock is None else clock
        self.fiber_type = fiber_type
        self.backend = GreenletBackend() if backend is None else backend
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
        if not self.slot.owned() and self.slot.home is not None:
            raise RuntimeError(
                "spawn() from another thread than the event loop's: use loop.call_soon_threadsafe(spawn, fn)"
            )
        Py_INCREF(f)
        f.live_prev = NULL
        f.live_next = self.live
        if self.live != NULL:
            (<FiberCore>self.live).live_prev = <PyObject *>f
        self.live = <PyObject *>f
        self.live_count += 1
        if self.instruments is not None:
            self.instruments.emit("spawned", f)
        if self.slot.inbox_head != NULL:
            self.drain_inbox()
        self.push(f)
        return 0

    def fibers(self) -> list:
        """Every fiber that is not done, the newest first."""
        cdef list found = []
        cdef PyObject *at = self.live
        while at != NULL:
            found.append(<FiberCore>at)
            at = (<FiberCore>at).live_next
        return found

    # -- the verbs

    cdef object block_fiber(self, FiberCore me, long long deadline_ns, short reason):
        """The verb ``block``: wait, barely, until a resume comes."""
        cdef object value
        cdef int winner
        if me.has_token:
            return _take_token(me)
        if me.cancel_pending:
            self.raise_cancel(me)
        if deadline_ns != NEVER_NS and deadline_ns <= self.clock.now_ns():
            raise TimeoutError("block() timed out")
        _open_wait(self, me, WAIT_OPEN_BARE, reason, NULL, deadline_ns)
        self.suspend(me)
        winner = _close_wait(self, me)
        if winner == WAIT_WON_RESUME:
            value = me.handed
            me.handed = None
            return value
        if winner == WAIT_WON_CANCEL:
            self.raise_cancel(me)
        raise TimeoutError("block() timed out")

    cdef bint resume_fiber(self, FiberCore f, object value) except -1:
        """The verb ``resume``, from any thread: wake a bare block, or leave a token."""
        if f._state == DONE:
            return False
        if wait_claim_open(&f.wait, WAIT_OPEN_BARE, WAIT_WON_RESUME):
            f.handed = value
            if self.slot.owned():
                self.ready(f)
            else:
                self.slot.post(f)
            return True
        if f.has_token or wait_phase(&f.wait) == WAIT_WON_RESUME:
            return False
        f.token = value
        f.has_token = True
        return True

    cdef object switch_fiber(self, FiberCore me, FiberCore target, object value, long long deadline_ns):
        """The verb ``switch_to``: resume ``target``, block, and let ``target`` run next."""
        cdef bint direct
        cdef PyObject *following
        cdef object got
        cdef int winner
        if target._state == DONE:
            raise InvalidStateError(f"switch_to({target!r}): it is done, so nobody would ever come back")
        if self.slot.inbox_head != NULL:
            self.drain_inbox()
        # resume(target), but without the run queue
        if wait_claim_open(&target.wait, WAIT_OPEN_BARE, WAIT_WON_RESUME):
            target.handed = value
            transition_wake(&target._state)
            if self.instruments is not None:
                self.instruments.emit("resumed", target)
            direct = True
        else:
            if not target.has_token and wait_phase(&target.wait) != WAIT_WON_RESUME:
                target.token = value
                target.has_token = True
            direct = target._state == NEW or target._state == READY
            if direct:
                self.unqueue(target)
        # block(), and hand the slot over
        if me.has_token or me.cancel_pending or (
            deadline_ns != NEVER_NS and deadline_ns <= self.clock.now_ns()
        ):
            if direct:
                self.push_front(target)
            return self.block_fiber(me, deadline_ns, SWITCH_TO)
        _open_wait(self, me, WAIT_OPEN_BARE, SWITCH_TO, NULL, deadline_ns)
        if not direct:
            self.suspend(me)
        else:
            following = <PyObject *>target
            if self.handoffs >= HANDOFFS:
                # the budget of law 5 is spent: whoever was next in the queue runs first, target behind it
                following = self.take()
                self.push_front(target)
                if following == NULL and ticks_now() < self.poll_at and self.fatal is None:
                    following = self.take()
            else:
                self.handoffs += 1
                self.direct_handoffs += 1
                if target._state != NEW:
                    transition_run(&target._state)
            transition_block(&me._state)
            if self.instruments is not None:
                self.note_block(me)
            self.leave_to(me, following)
        winner = _close_wait(self, me)
        if winner == WAIT_WON_RESUME:
            got = me.handed
            me.handed = None
            return got
        if winner == WAIT_WON_CANCEL:
            self.raise_cancel(me)
        raise TimeoutError("switch_to() timed out")

    # -- waiting inside a primitive

    cdef int wait_for(self, FiberCore me, WaitQueue *queue, short reason, PyObject *waits_for,
                      long long deadline_ns) except -1:
        """Wait until ``wake``, the deadline or a cancellation: returns the winner's phase.

        Raises CancelledError at once, before the fiber waits, if a cancellation is pending.  A deadline
        that is over already still lets whoever is runnable go first.
        """
        if me.cancel_pending:
            self.raise_cancel(me)
        _open_wait(self, me, WAIT_OPEN_PRIMITIVE, reason, waits_for, deadline_ns)
        if queue != NULL:
            queue_append(queue, me)
        if is_external(reason):
            self.external_waits += 1
            self.suspend(me)
            self.external_waits -= 1
        else:
            self.suspend(me)
        return _close_wait(self, me)

    cdef object park(self, FiberCore me, WaitQueue *queue, short reason, PyObject *waits_for,
                     long long deadline_ns):
        """``wait_for`` that returns what the wake handed over, and raises for the other winners."""
        cdef object value
        cdef int winner = self.wait_for(me, queue, reason, waits_for, deadline_ns)
        if winner == WAIT_WON_WAKE:
            value = me.handed
            me.handed = None
            return value
        if winner == WAIT_WON_CANCEL:
            self.raise_cancel(me)
        raise TimeoutError(f"timed out waiting for {describe(reason, None if waits_for == NULL else <object>waits_for)}")

    cdef bint wake(self, FiberCore f, object value) except -1:
        """A primitive's wake, by the owner: True if it won, and the fiber will get the value."""
        if not wait_claim_open(&f.wait, WAIT_OPEN_PRIMITIVE, WAIT_WON_WAKE):
            return False
        f.handed = value
        self.ready(f)
        return True

    cdef bint wake_first(self, WaitQueue *queue, object value) except -1:
        """Wake the first of a wait queue that can still be won; False if there is none."""
        cdef FiberCore f
        while queue.head != NULL:
            f = <FiberCore>queue.head
            queue_remove(f)
            if self.wake(f, value):
                return True
        return False

    cdef int wake_all(self, WaitQueue *queue, object value) except -1:
        while self.wake_first(queue, value):
            pass
        return 0

    cdef int raise_cancel(self, FiberCore me) except -1:
        """Deliver the pending cancellation to the running fiber."""
        cdef object message = me.cancel_message
        cdef object thrown = me.thrown
        me.cancel_pending = False
        me.cancel_message = None
        if thrown is not None:
            me.thrown = None
            raise thrown
        if message is None:
            raise CancelledError()
        raise CancelledError(message)

    cdef int throw_into(self, FiberCore f, object error) except -1:
        """Have ``error`` raised where the fiber waits, or would wait next; by the owner."""
        f.thrown = error
        f.cancel_pending = True
        return self.deliver_cancel(f)

    cdef int wait_outside(self, FiberCore me, PyObject *waits_for) except -1:
        """Wait for something that takes cancellations itself (asyncio's futures): only ``wake`` ends it,
        unless ``forward_cancel`` declines."""
        _open_wait(self, me, WAIT_OPEN_PRIMITIVE, AWAIT, waits_for, NEVER_NS)
        self.external_waits += 1
        self.suspend(me)
        self.external_waits -= 1
        return _close_wait(self, me)

    cdef int yield_now(self, FiberCore me) except -1:
        """Let every ready fiber and every ready loop callback go first: ``sleep(0)``."""
        if me.cancel_pending:
            self.raise_cancel(me)
        transition_yield(&me._state)
        if self.slot.inbox_head != NULL:
            self.drain_inbox()
        if self.hub.callbacks_waiting:
            me.behind_loop = True
            me.epoch = self.epoch
        self.policy.push_runnable(me)
        self.leave_to(me, self.take())
        if me.cancel_pending:
            self.raise_cancel(me)
        return 0

    cdef int suspend(self, FiberCore me) except -1:
        """Give the slot away with an open wait record; returns when ``me`` runs again."""
        transition_block(&me._state)
        if self.instruments is not None:
            self.note_block(me)
        return self.leave_to(me, self.take())

    # -- the run queue

    cdef int ready(self, FiberCore f) except -1:
        """Its wait was won: out of the wait queue, into the run queue."""
        if f.queue != NULL:
            queue_remove(f)
        if f._state != BLOCKED:
            return 0
        transition_wake(&f._state)
        if self.instruments is not None:
            self.instruments.emit("resumed", f)
        if self.slot.inbox_head != NULL:
            # who was woken from outside before runs before
            self.drain_inbox()
        return self.push(f)

    cdef int push(self, FiberCore f) except -1:
        self.policy.push_runnable(f)
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

    cdef int drain_inbox(self) except -1:
        """Act on what came from outside: won waits, cancellations."""
        cdef FiberCore f
        while True:
            f = <FiberCore>self.slot.take_posted()
            if f is None:
                return 0
            if f._state == BLOCKED and not wait_is_open(&f.wait):
                self.ready(f)
            elif f.cancel_pending:
                self.deliver_cancel(f)

    cdef int deliver_cancel(self, FiberCore f) except -1:
        """A cancellation was requested: end the wait, if it is still open."""
        cdef int forwarded
        if f._state != BLOCKED or not wait_is_open(&f.wait):
            return 0
        if f.hooked:
            forwarded = f.forward_cancel()
            if forwarded == FORWARDED:
                f.cancel_pending = False
            if forwarded != NOT_FORWARDED:
                return 0
        if wait_claim_open(&f.wait, WAIT_OPEN_BARE, WAIT_WON_CANCEL) or wait_claim_open(
            &f.wait, WAIT_OPEN_PRIMITIVE, WAIT_WON_CANCEL
        ):
            self.ready(f)
        return 0

    cdef PyObject *take(self) except? NULL:
        """The next fiber, RUNNING unless it is NEW; NULL when it is the hub's turn."""
        cdef FiberCore f
        if self.slot.inbox_head != NULL:
            self.drain_inbox()
        if ticks_now() >= self.poll_at or self.fatal is not None:
            return NULL
        if self.front != NULL:
            f = <FiberCore>self.front
            self.unqueue(f)
        else:
            f = <FiberCore>self.take_from_policy()
            if f is None:
                return NULL
        if f.behind_loop:
            if f.epoch == self.epoch and self.hub.callbacks_waiting:
                self.push_front(f)
                self.poll_at = 0
                return NULL
            f.behind_loop = False
        self.handoffs = 0
        self.takes += 1
        if f._state != NEW:
            transition_run(&f._state)
        return <PyObject *>f

    cdef Runnable take_from_policy(self):
        if isinstance(self.policy, Fifo):
            return (<Fifo>self.policy).pop_runnable()
        try:
            return self.policy.pop_runnable()
        except BaseException as error:
            # there is no fiber to raise it in: it leaves through the loop
            self.fatal = error
            return None

    # -- switching

    cdef int leave_to(self, FiberCore me, PyObject *following) except -1:
        """Suspend ``me`` and run ``following`` (NULL: the hub); returns when ``me`` runs again."""
        cdef PyObject *target
        cdef Stack idle
        if self.dirty:
            self.flush_dirty()
        if following == <PyObject *>me:
            return 0
        if following == NULL:
            self.current = None
            target = <PyObject *>self.hub_stack
        elif (<FiberCore>following).stack is not None:
            self.current = <FiberCore>following
            target = <PyObject *>(<FiberCore>following).stack
        elif self.pool:
            idle = self.pool.pop()
            idle.fiber = <FiberCore>following
            (<FiberCore>following).stack = idle
            self.current = <FiberCore>following
            target = <PyObject *>idle
            idle = None
        else:
            self.for_hub = following
            self.current = None
            target = <PyObject *>self.hub_stack
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

    cdef int stack_main(self, Stack stack) except -1:
        """What every stack runs: one fiber after the other, until the hub unwinds it.

        The fiber's function is called right here, not further down: greenlet copies the C stack of a parked
        fiber at every switch.
        """
        cdef PyObject *following
        cdef PyObject *target
        cdef PyObject *returned
        while stack.fiber is not None:
            returned = NULL
            if self.begin(<FiberCore>stack.fiber):
                returned = swapco_call(
                    <PyObject *>(<FiberCore>stack.fiber).fn, <PyObject *>(<FiberCore>stack.fiber).args
                )
            self.conclude(<FiberCore>stack.fiber, returned)
            stack.fiber = None
            if stack.killed:
                return 0
            if self.abandoned:
                _end_of_forked_child()
            following = self.take()
            if following != NULL and (<FiberCore>following).stack is None:
                stack.fiber = <FiberCore>following
                (<FiberCore>following).stack = stack
                self.current = <FiberCore>following
                self.switches += 1
                self.io_calls = 0
                continue
            self.pool.append(stack)
            if following == NULL:
                self.current = None
                target = <PyObject *>self.hub_stack
            else:
                self.current = <FiberCore>following
                target = <PyObject *>(<FiberCore>following).stack
            self.switches += 1
            self.io_calls = 0
            if self.instruments is not None:
                self.note_switch(None)
            if (<Stack>target).switch_from(stack) < 0:
                # an idle stack that is collected: nothing to clean up
                PyErr_Clear()
                return 0
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
            try:
                f.result_value = f.complete(result)
            except BaseException as error:
                f.exception_value = error
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
        transition_finish(&f._state)
        f.fn = f.args = None
        f.token = f.handed = None
        f.has_token = f.hooked = f.cancel_pending = False
        f.stack = None
        if f.live_prev != NULL:
            (<FiberCore>f.live_prev).live_next = f.live_next
        else:
            self.live = f.live_next
        if f.live_next != NULL:
            (<FiberCore>f.live_next).live_prev = f.live_prev
        f.live_prev = f.live_next = NULL
        self.live_count -= 1
        if f.timer is not None:
            f.timer.fiber = None
            f.timer = None
        if f.joiners.head != NULL:
            f.result_retrieved = True
            self.wake_all(&f.joiners, None)
        # whoever is told now runs no longer "as" this fiber: a blocking call gets NotInFiber
        self.current = None
        try:
            if f.watchers is not None:
                self.tell_watchers(f)
            f.on_finished()
        except BaseException as error:
            self.fatal = error
        f.context = None
        if f.exception_value is not None and isinstance(f.exception_value, (KeyboardInterrupt, SystemExit)):
            # as with an asyncio task, they also leave the loop
            self.fatal = f.exception_value
        if self.instruments is not None:
            self.instruments.emit("finished", f)
        Py_DECREF(f)
        return 0

    cdef int tell_watchers(self, FiberCore f) except -1:
        cdef object watchers = f.watchers
        f.watchers = None
        if isinstance(watchers, list):
            for watcher in <list>watchers:
                (<Watcher>watcher).fiber_done(f)
        else:
            (<Watcher>watchers).fiber_done(f)
        return 0

    # -- output that is collected while a fiber runs

    cdef int mark_dirty(self, Flushable output) except -1:
        """Have ``output`` flushed before the running fiber gives the slot away."""
        if not output.flush_pending:
            output.flush_pending = True
            self.dirty.append(output)
            if not self.draining and not self.drain_requested:
                # written from a loop callback: the drain flushes at the end of the turn
                self.drain_requested = True
                self.hub.request_drain()
        return 0

    cdef int flush_dirty(self) except -1:
        cdef Flushable output
        cdef list dirty = self.dirty
        self.dirty = []
        for output in dirty:
            output.flush_pending = False
            output.flush()
        return 0

    # -- the hub's side

    def bind(self) -> None:
        """The caller is the hub from now on: called by the loop when it starts to run.

        RuntimeError if fibers live that belong to another kernel thread.
        """
        global swapco_running_scheduler
        if swapco_running_scheduler != NULL:
            raise RuntimeError("an event loop with fibers runs in this thread already")
        if self.live_count and self.slot.home is not None and not self.slot.owned():
            raise RuntimeError(
                f"{self.live_count} fibers of this loop belong to {self.slot.home!r} and cannot move to another thread"
            )
        if not self.slot.owned():
            self.pool = []  # idle stacks of the other thread
        self.slot.bind_home()
        self.hub_stack = self.backend.adopt()
        swapco_running_scheduler = <PyObject *>self

    def unbind(self) -> None:
        """The loop stops running: idle stacks are unwound; live fibers stay, for the next run."""
        global swapco_running_scheduler
        try:
            self.trim_pool(0)
        finally:
            swapco_running_scheduler = NULL
            self.timers.disarm(self.pool_timer)

    def drain_from_loop(self) -> None:
        """Run fibers until there is nothing to run, or I/O is due: the loop's one callback."""
        self.drain()

    cdef int drain(self) except -1:
        cdef PyObject *p
        cdef object fatal
        if self.draining:
            raise RuntimeError("the scheduler is draining already: the event loop was run inside a fiber")
        self.draining = True
        self.drain_requested = False
        self.slot.hub_idle = False
        self.epoch += 1
        self.drains += 1
        self.poll_at = ticks_now() + POLL_TICKS
        try:
            if self.timers._count:
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
            if len(self.pool) > POOL_FLOOR and self.pool_timer._index < 0:
                self.pool_low = len(self.pool)
                self.timers.arm(self.pool_timer, self.clock.now_ns() + POOL_DECAY_NS)
        finally:
            self.draining = False
            self.current = None
            self.slot.hub_idle = True
            if self.slot.inbox_head != NULL:
                self.drain_inbox()
            if self.runnable():
                if not self.drain_requested:
                    self.drain_requested = True
                    self.hub.request_drain()
            else:
                self.hub.arm_timer(self.timers.head_ns())
                if self.fatal is None:
                    self.hub.went_idle()
        if self.fatal is not None:
            fatal = self.fatal
            self.fatal = None
            raise fatal
        return 0

    cdef bint runnable(self) except -1:
        return self.front != NULL or self.for_hub != NULL or self.policy.count() > 0

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
        cdef Stack stack = (<FiberCore>p).stack
        if stack is None:
            if self.pool:
                stack = self.pool.pop()
            else:
                stack = self.backend.create(self.entry, self.hub_stack)
                self.stacks_created += 1
            stack.fiber = <FiberCore>p
            (<FiberCore>p).stack = stack
        self.current = <FiberCore>p
        self.switches += 1
        self.io_calls = 0
        if self.instruments is not None:
            self.note_switch(None)
        if stack.switch_from(self.hub_stack) < 0:
            self.current = None
            return -1
        self.current = None
        if self.instruments is not None:
            self.note_arrival(None)
        return 0

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

    # -- observers

    cdef int note_switch(self, FiberCore leaving) except -1:
        self.instruments.emit("before_switch", leaving, self.current)
        return 0

    cdef int note_arrival(self, FiberCore arriving) except -1:
        self.instruments.emit("after_switch", arriving)
        return 0

    cdef int note_block(self, FiberCore f) except -1:
        self.instruments.emit("blocked", f, f.wait_reason)
        return 0

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
        return {
            "live_fibers": self.live_count,
            "run_queue": self.policy.count(),
            "timers": len(self.timers),
            "idle_stacks": len(self.pool),
            "stacks_created": self.stacks_created,
            "switches": self.switches,
            "takes": self.takes,
            "direct_handoffs": self.direct_handoffs,
            "drains": self.drains,
        }


# ------------------------------------------------------------------------------------ small helpers

cdef inline object _take_token(FiberCore me):
    cdef object value = me.token
    me.token = None
    me.has_token = False
    return value


cdef inline int _open_wait(Scheduler s, FiberCore me, int phase, short reason, PyObject *waits_for,
                           long long deadline_ns) except -1:
    """A fresh wait record, with its timer."""
    me.reason = reason
    me.waits_for = waits_for
    if deadline_ns == NEVER_NS:
        wait_open(&me.wait, phase)
        return 0
    if me.timer is None:
        me.timer = WaitTimer.__new__(WaitTimer)
        me.timer.fiber = me
    s.timers.arm(me.timer, deadline_ns)
    me.timer.record = wait_open(&me.wait, phase)
    return 0


cdef inline int _close_wait(Scheduler s, FiberCore me) except -1:
    me.reason = NOTHING
    me.waits_for = NULL
    if me.timer is not None and me.timer._index >= 0:
        s.timers.disarm(me.timer)
    return wait_close(&me.wait)


cdef Scheduler running_scheduler():
    """The scheduler whose loop runs in this thread, or None."""
    return None if swapco_running_scheduler == NULL else <Scheduler>swapco_running_scheduler


cdef FiberCore running_fiber(str caller):
    """The fiber that runs now, for a function that is about to block it; NotInFiber if there is none."""
    cdef Scheduler s
    if swapco_running_scheduler != NULL:
        s = <Scheduler>swapco_running_scheduler
        if s.current is not None:
            return s.current
        raise NotInFiber(
            f"{caller}() would block the event loop: it was called from a loop callback or an asyncio task, "
            "not from a fiber. Run the code in swapco.spawn(fn), or await the fiber that it returns"
        )
    raise NotInFiber(
        f"{caller}() needs a fiber to block, and no swapco loop runs in this thread. "
        "Call it from a function that was started by swapco.run(main) or swapco.spawn(fn)"
    )


cdef object fiber_value(FiberCore f, object value):
    return value


# --------------------------------------------------------------------------------------------- fork

def _after_fork_in_child() -> None:
    """The fibers and the loop stay with the parent: the child starts clean."""
    global swapco_running_scheduler
    if swapco_running_scheduler != NULL:
        (<Scheduler>swapco_running_scheduler).abandoned = True
        swapco_running_scheduler = NULL


def _end_of_forked_child():
    """A fiber's function returned in a forked child: there is no loop to go back to."""
    print(
        "swapco: a fiber returned in a forked child, which has no event loop: end the child with os._exit(), "
        "or call swapco.run() in it",
        file=sys.stderr, flush=True,
    )
    os._exit(70)  # EX_SOFTWARE


os.register_at_fork(after_in_child=_after_fork_in_child)


# ----------------------------------------------------------------------------------------- the verbs

def block(timeout=None):
    """Park the calling fiber until it is resumed; return the value that the resume gave.

    A resume that came first left a token: block takes it and returns at once, without a switch.  ``timeout``
    is in seconds (None: for ever); when it is over, TimeoutError is raised.  Other errors: CancelledError;
    NotInFiber; ValueError for NaN.
    """
    cdef FiberCore me = running_fiber("block")
    return me.scheduler.block_fiber(me, deadline_after(me.scheduler.clock, timeout), BLOCK)


def resume(FiberCore fiber not None, value=None) -> bool:
    """Make a fiber that is parked in ``block`` or ``switch_to`` runnable, or leave it a token.

    True: the fiber was woken, or got a token that its next ``block`` returns.  False, and nothing changed: it
    has a token already, it was resumed and has not run yet, or it is done.  A fiber that waits inside a
    primitive is not disturbed: it gets a token.  From any thread; never blocks.
    """
    return fiber.scheduler.resume_fiber(fiber, value)


def switch_to(FiberCore fiber not None, value=None, timeout=None):
    """Hand the slot straight to ``fiber`` and block: resume(fiber, value) and block(timeout) in one step.

    The target runs next, before any other fiber.  Returns what the resume of the caller gives.  A caller that
    holds a token goes on at once, and the target moves to the head of the run queue.  Errors:
    InvalidStateError if the target is done; TimeoutError, CancelledError, NotInFiber as for ``block``;
    RuntimeError for a fiber of another loop.

    The primitive is what the FUTEX_SWAP patches of 2020 proposed for threads.
    """
    cdef FiberCore me = running_fiber("switch_to")
    if fiber.scheduler is not me.scheduler:
        raise RuntimeError(f"switch_to({fiber!r}): it belongs to another event loop")
    return me.scheduler.switch_fiber(me, fiber, value, deadline_after(me.scheduler.clock, timeout))
