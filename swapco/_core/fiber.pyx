"""A fiber, its two words, and how it waits: the verbs, wake-ups, cancellation.

Theory
------
Two words of a fiber arbitrate every race: its *wait record* (wait.h: who ends this suspension) and its *token*
(a resume that found no bare block to wake).  Everything that can happen to a fiber is one of:

- it opens a wait record and gives the slot away (``block_fiber``, ``switch_fiber``, ``wait_for``);
- somebody wins that record (``resume_fiber``, ``wake``, a ``WaitTimer``, ``deliver_cancel``), and the fiber
  becomes READY: at once if the winner owns the slot, through the inbox otherwise;
- it runs again, closes the record, and acts on who has won.

The laws are in docs/semantics.md, and tests/laws has a property test for each.

``Dispatcher`` is the half of the scheduler that fibers and primitives see; it knows when a fiber must not run,
and leaves to ``Scheduler`` (scheduler.pyx) who runs instead: the run queue, the stacks, the hub.

Invariants
----------
- Only the owner of the slot executes anything in this file, but for the first half of ``resume_fiber`` and of
  ``request_cancel``, which any thread may call: they win the wait record or set a flag, and post to the inbox.
- A thread fiber owns the slot in sections (slot_word.h): every operation of every primitive opens one, in
  ``running_fiber`` or ``enter`` (here.pyx), and is in user code again when it returns.  No user code runs in a section.
- A fiber is in a wait queue only while BLOCKED.  Whoever wins its wait on the owner's side also takes it out.
- Wait queues borrow their fibers: the scheduler holds every live one.
- An exception is never thrown into a parked fiber (the thrower would be stranded): the fiber is made runnable,
  and raises when it runs.
"""

import gc
import os

from cpython.object cimport PyObject

from .clock cimport NEVER_NS, Timer, deadline_after
from .here cimport enter_if_attached, hide_fiber, look, outside, section, show_fiber
from .reasons cimport AWAIT, JOIN, NOTHING, SWITCH_TO, is_external
from .slot cimport Host, Postable
from .states cimport *
from .wait cimport *

from .errors import CancelledError, InvalidStateError
from .reasons import describe

cdef extern from *:
    object PyContext_CopyCurrent()

cdef enum:
    HANDOFFS = 64

cdef unsigned long long _names = 0
cdef object _ABSENT = object()


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

    def __init__(self, Dispatcher scheduler not None, fn, tuple args=(), *, name=None, context=None,
                 priority=0, deadline=None):
        self.priority = priority
        self.deadline = deadline
        self.set_up(scheduler, fn, args, name, context)

    cdef int set_up(self, Dispatcher scheduler, object fn, tuple args, object name, object context) except -1:
        """``__init__`` without its price: a call with keywords costs as much as a switch."""
        global _names
        if not self.accepts(fn):
            raise TypeError(f"a fiber needs something to call, not {fn!r}; write spawn(f, x), not spawn(f(x))")
        self.scheduler = scheduler
        self.fn = self.function_of(fn)
        self.args = args
        self.context = PyContext_CopyCurrent() if context is None else context
        self._state = NEW
        _names += 1
        self.number = _names
        if name is not None:
            self._name = str(name)
        return 0

    # -- what a loop adds

    cdef int complete(self, object returned) noexcept:
        """The outcome, given what the function returned: an ``async def`` function returned a coroutine."""
        self.result_value = returned
        return 0

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
        return f"Fiber-{self.number}" if self._name is None else self._name

    @name.setter
    def name(self, value) -> None:
        self._name = str(value)

    @property
    def state(self) -> str:
        """NEW, READY, RUNNING, BLOCKED, DETACHED or DONE."""
        look(None)
        return swapco_state_names[self._state].decode()

    @property
    def wait_reason(self):
        """What the fiber waits for, in words; None while it does not wait."""
        look(None)
        if self._state != BLOCKED:
            return None
        return describe(self.reason, None if self.waits_for == NULL else <object>self.waits_for)

    @property
    def waits_for_object(self):
        """The primitive, fiber or socket that the fiber waits for, or None."""
        look(None)
        return <object>self.waits_for if self._state == BLOCKED and self.waits_for != NULL else None

    @property
    def function(self):
        """What the fiber calls; None once it has ended."""
        return self.fn

    @property
    def frame(self):
        """The innermost Python frame of a fiber that is parked, or None."""
        if self.stack is None or (<PyObject *>self == self.scheduler.current and not self.threaded):
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
        look(self)
        return self._state == DONE

    def cancelled(self) -> bool:
        """True if the fiber ended by a CancelledError."""
        look(self)
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
        look(self)
        if self._state != DONE:
            self.join_until(deadline_after(self.scheduler.clock, timeout))
        return self.outcome()

    cdef int join_until(self, long long deadline_ns) except -1:
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Fiber.join", &here.worker, self)
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
        cdef section here = outside()
        cdef Dispatcher s = self.scheduler
        # not only the fiber changes, but whatever it will not do
        enter_if_attached(&here.worker, None)
        self.cancel_requests += 1
        self.cancel_message = message
        self.cancel_pending = True
        if s.slot.owned():
            if s.slot.inbox_head != NULL:
                # who was woken from outside before runs before
                s.drain_inbox()
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
            look(self)
            return False
        self.request_cancel(msg)
        return True

    def cancelling(self) -> int:
        """How many cancellations were requested and not taken back by ``uncancel``."""
        look(self)
        return self.cancel_requests

    def uncancel(self) -> int:
        """Take one cancellation request back; down to 0, one that was not delivered yet is dropped."""
        if self.cancel_requests > 0:
            self.cancel_requests -= 1
            if self.cancel_requests == 0 and self.thrown is None:
                self.cancel_pending = False
        return self.cancel_requests


# --------------------------------------------------------------------------------------- dispatcher

cdef class Dispatcher(Host):
    """The scheduler as fibers and primitives see it."""

    # -- what Scheduler adds: who runs instead

    cdef PyObject *take(self) except? NULL:
        raise TypeError("Scheduler implements take")

    cdef int push(self, FiberCore f) except -1:
        raise TypeError("Scheduler implements push")

    cdef int push_front(self, FiberCore f) except -1:
        raise TypeError("Scheduler implements push_front")

    cdef int unqueue(self, FiberCore f) except -1:
        raise TypeError("Scheduler implements unqueue")

    cdef int requeue(self, FiberCore f) except -1:
        raise TypeError("Scheduler implements requeue")

    cdef int leave_to(self, FiberCore me, PyObject *following) except -1:
        raise TypeError("Scheduler implements leave_to")

    cdef bint poll_is_due(self) noexcept:
        return False

    cdef int came_back(self, FiberCore f) except -1:
        raise TypeError("Lender implements came_back")

    cdef int drop_starved(self, FiberCore f) except -1:
        raise TypeError("Lender implements drop_starved")

    # -- the verbs

    cdef object block_fiber(self, FiberCore me, long long deadline_ns, short reason):
        """The verb ``block``: wait, barely, until a resume comes."""
        cdef object value
        cdef int winner
        _have_timer(me, deadline_ns)
        if me.has_token:
            return _take_token(me)
        if me.cancel_pending:
            self.raise_cancel(me)
        _may_wait(me)
        if deadline_ns != NEVER_NS and deadline_ns <= self.clock.now_ns():
            raise TimeoutError("block() timed out")
        _open_wait(self, me, WAIT_OPEN_BARE, reason, NULL, deadline_ns)
        _give_away(self, me)
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
        if target._state == NEW and not target.queued and not target.starved:
            raise RuntimeError(f"switch_to({target!r}): it was made, but never spawned")
        _may_wait(me)
        _have_timer(me, deadline_ns)
        if self.slot.inbox_head != NULL:
            self.drain_inbox()
        # resume(target), but without the run queue
        if wait_claim_open(&target.wait, WAIT_OPEN_BARE, WAIT_WON_RESUME):
            target.handed = value
            transition_wake(&target._state)
            if self.instruments is not None:
                self.note("resumed", target)
            direct = True
        else:
            if not target.has_token and wait_phase(&target.wait) != WAIT_WON_RESUME:
                target.token = value
                target.has_token = True
            direct = target.queued
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
        transition_block(&me._state)
        if self.instruments is not None:
            self.note_block(me)
        if not direct:
            following = self.take()
        elif self.handoffs < HANDOFFS:
            following = <PyObject *>target
            self.handoffs += 1
            self.direct_handoffs += 1
            if target._state != NEW:
                transition_run(&target._state)
        else:
            # the budget of law 5 is spent: whoever was next in the queue runs first, target behind it
            following = self.take()
            self.push_front(target)
            if following == NULL and not self.poll_is_due():
                following = self.take()
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
        _have_timer(me, deadline_ns)
        if me.cancel_pending:
            self.raise_cancel(me)
        _may_wait(me)
        _open_wait(self, me, WAIT_OPEN_PRIMITIVE, reason, waits_for, deadline_ns)
        if queue != NULL:
            queue_append(queue, me)
        if is_external(reason):
            self.external_waits += 1
        _give_away(self, me)
        if is_external(reason):
            self.external_waits -= 1
        return _close_wait(self, me)

    cdef object park(self, FiberCore me, WaitQueue *queue, short reason, PyObject *waits_for,
                     long long deadline_ns):
        """``wait_for`` that returns what the wake handed over, and raises for the other winners."""
        cdef object value
        cdef int winner = self.wait_for(me, queue, reason, waits_for, deadline_ns)
        if winner != WAIT_WON_WAKE:
            self.raise_loss(me, winner, reason, waits_for)
        value = me.handed
        me.handed = None
        return value

    cdef int raise_loss(self, FiberCore me, int winner, short reason, PyObject *waits_for) except -1:
        """The wait ended without what the fiber waited for: raise what ended it."""
        if winner == WAIT_WON_CANCEL:
            self.raise_cancel(me)
        raise TimeoutError(
            f"timed out waiting for {describe(reason, None if waits_for == NULL else <object>waits_for)}"
        )

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

    cdef int may_wait(self, FiberCore me) except -1:
        """RuntimeError if the fiber, which runs, is where it must not wait."""
        return _may_wait(me)

    cdef int call_fiber(self, FiberCore me, FiberCore call) except -1:
        """Wait for the end of ``call``, a NEW fiber in the run queue, which gets the slot at once.  To be asked before:
        ``may_wait``."""
        cdef PyObject *following
        cdef int winner
        _open_wait(self, me, WAIT_OPEN_PRIMITIVE, JOIN, <PyObject *>call, NEVER_NS)
        queue_append(&call.joiners, me)
        transition_block(&me._state)
        if self.instruments is not None:
            self.note_block(me)
        if self.handoffs < HANDOFFS and not self.poll_is_due():
            self.unqueue(call)
            self.handoffs += 1
            self.direct_handoffs += 1
            following = <PyObject *>call
        else:
            following = self.take()
        self.leave_to(me, following)
        winner = _close_wait(self, me)
        if winner != WAIT_WON_WAKE:
            self.raise_loss(me, winner, JOIN, <PyObject *>call)
        return 0

    cdef PyObject *hand_back(self, FiberCore call) noexcept:
        """A called fiber is about to end: its one joiner, RUNNING, if it can have the slot at once; else NULL."""
        cdef FiberCore caller = <FiberCore>call.joiners.head
        if self.handoffs >= HANDOFFS or not wait_claim_open(&caller.wait, WAIT_OPEN_PRIMITIVE, WAIT_WON_WAKE):
            return NULL
        queue_remove(caller)
        caller.handed = None
        transition_wake(&caller._state)
        if self.instruments is not None:
            self.note("resumed", caller)
        transition_run(&caller._state)
        self.handoffs += 1
        self.direct_handoffs += 1
        call.result_retrieved = True
        return <PyObject *>caller

    cdef int wait_outside(self, FiberCore me, PyObject *waits_for) except -1:
        """Wait for something that takes cancellations itself (asyncio's futures): only ``wake`` ends it,
        unless ``forward_cancel`` declines.  To be asked before: ``may_wait``."""
        _open_wait(self, me, WAIT_OPEN_PRIMITIVE, AWAIT, waits_for, NEVER_NS)
        self.external_waits += 1
        _give_away(self, me)
        self.external_waits -= 1
        return _close_wait(self, me)

    cdef int yield_now(self, FiberCore me) except -1:
        """Let every ready fiber and every ready loop callback go first: ``sleep(0)``."""
        if me.cancel_pending:
            self.raise_cancel(me)
        _may_wait(me)
        transition_yield(&me._state)
        self.requeue(me)
        self.leave_to(me, self.take())
        if me.cancel_pending:
            self.raise_cancel(me)
        return 0

    cdef int note(self, str event, object first, object second=_ABSENT) noexcept:
        """Tell the instruments. Whatever they raise must not stop a fiber half-way between running and parked."""
        try:
            if second is _ABSENT:
                self.instruments.emit(event, first)
            else:
                self.instruments.emit(event, first, second)
        except BaseException as error:
            self.fatal = error
        return 0

    cdef int note_block(self, FiberCore f) noexcept:
        return self.note("blocked", f, f.wait_reason)

    # -- what makes a waiting fiber runnable

    cdef int ready(self, FiberCore f) except -1:
        """Its wait was won: out of the wait queue, into the run queue, behind whom another thread woke before."""
        if self.slot.inbox_head != NULL:
            self.drain_inbox()
        return self.make_ready(f)

    cdef int make_ready(self, FiberCore f) except -1:
        if f.queue != NULL:
            queue_remove(f)
        if f._state != BLOCKED:
            return 0  # it was in the inbox as well
        transition_wake(&f._state)
        if self.instruments is not None:
            self.note("resumed", f)
        return self.push(f)

    cdef int drain_inbox(self) except -1:
        """Act on what came from outside: won waits, cancellations."""
        cdef PyObject *running
        cdef PyObject *hidden
        cdef FiberCore f
        while True:
            f = <FiberCore>self.slot.take_posted()
            if f is None:
                return 0
            if f._state == BLOCKED and not wait_is_open(&f.wait):
                self.make_ready(f)
            elif f._state == DETACHED:
                self.came_back(f)
            elif f.cancel_pending:
                try:
                    self.deliver_cancel(f)
                except BaseException as error:
                    # what a future's cancel() raised: whoever asked for it is in another thread
                    self.fatal = error
            if f._state == DONE:
                # whatever its end lets go of must not wait "as" whoever runs now
                running = self.current
                hidden = hide_fiber()
                self.current = NULL
                f = None
                self.current = running
                show_fiber(hidden)

    cdef int deliver_cancel(self, FiberCore f) except -1:
        """A cancellation was requested: end the wait, if it is still open."""
        cdef int forwarded
        if f.starved:
            return self.drop_starved(f)
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
            self.make_ready(f)
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
        """Flush what was written in this turn.  A flush keeps its errors for its writer; one that raises all the
        same must not stop the fiber half-way between running and parked."""
        cdef Flushable output
        cdef list dirty = self.dirty
        self.dirty = []
        for output in dirty:
            output.flush_pending = False
            try:
                output.flush()
            except BaseException as error:
                self.hub.fail(error)
        return 0


cdef inline int _give_away(Dispatcher s, FiberCore me) except -1:
    """Give the slot away with an open wait record; returns when ``me`` runs again.

    Inline: greenlet copies the C stack of a parked fiber at every switch, and it is most of its memory.
    """
    transition_block(&me._state)
    if s.instruments is not None:
        s.note_block(me)
    return s.leave_to(me, s.take())


cdef inline object _take_token(FiberCore me):
    cdef object value = me.token
    me.token = None
    me.has_token = False
    return value


cdef inline int _have_timer(FiberCore me, long long deadline_ns) except -1:
    """Make the fiber's timer, if the wait has a deadline.

    To be called before the token is looked at: making an object may collect garbage (CPython 3.11), hence run
    Python code and let another thread resume the fiber; from the look to the open record nothing may.
    """
    if deadline_ns != NEVER_NS and me.timer is None:
        me.timer = WaitTimer.__new__(WaitTimer)
        me.timer.fiber = me
    return 0


cdef extern from "collection.h":
    bint swapco_collecting_here()
    void *swapco_frames_chunk()
    void swapco_note_thread()
    void swapco_note_collecting(bint on)


def _note_collection(phase, info) -> None:
    swapco_note_collecting(phase == "start")


gc.callbacks.append(_note_collection)


def _after_fork_in_child() -> None:
    """A collection of another thread does not go on here."""
    if not swapco_collecting_here():
        swapco_note_collecting(False)


os.register_at_fork(after_in_child=_after_fork_in_child)


cdef int note_thread() noexcept:
    """Fibers run in the calling thread from now on."""
    swapco_note_thread()
    return 0


cdef bint _collection_goes_on() except -1:
    """False if the end of it was missed, because somebody emptied the list of callbacks meanwhile."""
    if _note_collection in gc.callbacks:
        return True
    swapco_note_collecting(False)
    return False


cdef inline int _may_wait(FiberCore me) except -1:
    """Refuse a wait that would tear something in two, before anything has changed.

    A collection keeps the lists of what it looks at on the C stack, and holds all others back until it ends; so a
    finalizer that it calls must not wait.  Inside a user's greenlet, it is up to the kind of stack.
    """
    if swapco_collecting_here() and _collection_goes_on():
        raise RuntimeError(
            "a finalizer (__del__ or a weakref callback) called by the garbage collector cannot wait: have it spawn() "
            "what must wait, or hand it to a queue with put_nowait()"
        )
    if me._state != RUNNING:
        raise RuntimeError(f"a policy or an instrument cannot wait: it was called while {me!r} is being switched")
    if me.stack.root_chunk != swapco_frames_chunk():
        me.stack.leave_elsewhere()
    return 0


cdef inline int _open_wait(Dispatcher s, FiberCore me, int phase, short reason, PyObject *waits_for,
                           long long deadline_ns) except -1:
    """A fresh wait record, with its timer."""
    me.reason = reason
    me.waits_for = waits_for
    if deadline_ns == NEVER_NS:
        wait_open(&me.wait, phase)
        return 0
    s.timers.arm(me.timer, deadline_ns)
    me.timer.record = wait_open(&me.wait, phase)
    return 0


cdef inline int _close_wait(Dispatcher s, FiberCore me) except -1:
    me.reason = NOTHING
    me.waits_for = NULL
    if me.timer is not None and me.timer._index >= 0:
        s.timers.disarm(me.timer)
    return wait_close(&me.wait)
