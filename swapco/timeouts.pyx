"""``with timeout(5):`` — a time limit for a block of code.

Theory
------
A time limit is one timer in the scheduler's heap.  When it fires it cancels the fiber; leaving the block
takes that request back, and turns the CancelledError into a TimeoutError if it was this timer's own.  So nothing
inside the block needs to know of time limits, and they nest.

``fiber.cancelling()`` at entry is what tells our cancellation from others: if, with our request taken back,
there are no more requests than at entry, nobody else wants the fiber to end.  A request that was taken back
before it was delivered must not be delivered later, in code that the limit was never meant for: asyncio
forgets that on CPython 3.11 and 3.12, and while the fiber had been cancelled before on 3.13.

A limit that is over already when the block is entered does not wait for the timer: the cancellation is
pending from the first line, and the first suspension delivers it.  A block that never suspends ends normally,
and the limit has not expired, as in asyncio, where a timer cannot fire before the task lets the loop run.

States: CREATED → ENTERED → EXITED, or ENTERED → EXPIRING (the fiber was cancelled) → EXPIRED; DUE is
ENTERED with the limit over and nothing suspended yet.

Rejected: ``loop.call_at``, which costs a handle, a callback and a heap of Python objects for each request of
a server; here it is one object, which is the heap entry itself.
"""

from ._core.clock cimport NEVER_NS, Timer, deadline_after, duration_ns
from ._core.fiber cimport Dispatcher, FiberCore, enter, outside, running_dispatcher, running_fiber, section

from ._core.errors import CancelledError

cdef enum:
    CREATED
    ENTERED
    DUE
    EXPIRING
    EXPIRED
    EXITED

# the words that asyncio.Timeout uses
cdef tuple _STATES = ("created", "active", "active", "expiring", "expired", "finished")


cdef int take_back_cancel(FiberCore f, int requests_before, bint pending_before) except -1:
    """Take one cancellation request back, on behalf of who asked for it between now and a point in the past.

    1: there are no more requests than there were then; one that was not delivered yet is dropped.
    """
    f.uncancel()
    if f.cancel_requests > requests_before:
        return 0
    if f.cancel_pending and not pending_before and f.thrown is None:
        f.cancel_pending = False
    return 1


cdef class Timeout(Timer):
    """A time limit for the body of a ``with`` statement; made by ``timeout`` and ``timeout_at``.

    ``when`` is the deadline in loop time (seconds), or None for no limit.  The body is left with TimeoutError
    when the limit cancelled it; any other exception, and a result, stay what they are.  Entering it twice is
    a RuntimeError, outside a fiber NotInFiber.
    """

    def __init__(self, when):
        self.deadline_ns = NEVER_NS if when is None else duration_ns(when)
        self._when = when

    def when(self):
        """The deadline in loop time (seconds), or None."""
        return self._when

    def reschedule(self, when) -> None:
        """Move the deadline to ``when`` in loop time (None: no limit).  Does not block.

        Errors: RuntimeError before the block, after it, and when the limit has expired; ValueError for NaN.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        cdef long long deadline_ns
        if self.state == DUE:
            if not self.withdraw():
                self.state = EXPIRING
        if self.state != ENTERED:
            if self.state == CREATED:
                raise RuntimeError("Timeout has not been entered")
            raise RuntimeError(f"Cannot change state of {_STATES[self.state]} Timeout")
        if not self.fiber.scheduler.slot.owned():
            raise RuntimeError(
                "reschedule() from another thread than the event loop's: "
                "use loop.call_soon_threadsafe(timeout.reschedule, when)"
            )
        deadline_ns = NEVER_NS if when is None else duration_ns(when)
        self.fiber.scheduler.timers.disarm(self)
        self._when = when
        self.deadline_ns = deadline_ns
        self.start()

    def expired(self) -> bool:
        """True once the limit has cancelled the fiber."""
        if self.state == DUE:
            return not self.fiber.cancel_pending
        return self.state == EXPIRING or self.state == EXPIRED

    def __repr__(self) -> str:
        words = [_STATES[self.state]]
        if self.state == ENTERED:
            words.append(f"when={None if self._when is None else round(self._when, 3)}")
        return f"<Timeout [{' '.join(words)}]>"

    cdef int start(self) except -1:
        cdef Dispatcher s = self.fiber.scheduler
        if self.deadline_ns == NEVER_NS:
            return 0
        if self.deadline_ns <= s.clock.now_ns():
            self.state = DUE
            return self.request()
        s.timers.arm(self, self.deadline_ns)
        if not s.draining:
            # rescheduled by a loop callback: no drain will end and look at the heap's head
            s.hub.arm_timer(s.timers.head_ns())
        return 0

    cdef int fire(self) except -1:
        self.state = EXPIRING
        return self.request()

    cdef int request(self) except -1:
        cdef FiberCore f = self.fiber
        self.shared = self.pending_before and f.cancel_pending
        # somebody else's message, if there is one on its way, says more than ours
        return f.request_cancel(f.cancel_message if f.cancel_pending else None)

    cdef bint withdraw(self) except -1:
        """DUE, and nothing suspended since: as if it had never been."""
        if not self.fiber.cancel_pending:
            return False
        take_back_cancel(self.fiber, self.requests_before, self.pending_before)
        self.state = ENTERED
        return True

    def __enter__(self):
        cdef section here = outside()
        cdef FiberCore me = running_fiber("timeout", &here.worker, self)
        if self.state != CREATED:
            raise RuntimeError("Timeout has already been entered")
        self.fiber = me
        self.requests_before = me.cancel_requests
        self.pending_before = me.cancel_pending
        self.state = ENTERED
        self.start()
        return self

    def __exit__(self, kind, error, trace):
        cdef section here = outside()
        enter(&here.worker, self)
        cdef bint own
        if self.state == ENTERED:
            self.fiber.scheduler.timers.disarm(self)
            self.state = EXITED
            return None
        if self.state == CREATED or self.state >= EXPIRED:
            raise RuntimeError(f"Cannot leave a Timeout that is {_STATES[self.state]}")
        if self.state == DUE and self.withdraw():
            self.state = EXITED
            return None
        self.state = EXPIRED
        own = take_back_cancel(self.fiber, self.requests_before, self.pending_before) and not self.shared
        if own and error is not None:
            if isinstance(error, CancelledError):
                raise TimeoutError from error
            _name_the_cause(error)
            if isinstance(error, ExceptionGroup):
                for inner in error.exceptions:
                    _name_the_cause(inner)
        return None


def _name_the_cause(error) -> None:
    """The body answered our cancellation with ``error``: have the chain of causes say who cancelled."""
    while error.__context__ is not None:
        if isinstance(error.__context__, CancelledError):
            cause = TimeoutError()
            cause.__context__ = cause.__cause__ = error.__context__
            error.__context__ = cause
            return
        error = error.__context__


def timeout(delay) -> Timeout:
    """A time limit of ``delay`` seconds, from this call on, for the body of a ``with`` statement.

    When it is over, the body is cancelled where it suspends, and the ``with`` statement raises TimeoutError.
    None is no limit; 0 or less cancels the body at its first suspension.  The object's ``reschedule(when)``
    moves the deadline, ``when()`` and ``expired()`` tell.  Does not block.  Errors: NotInFiber outside a
    fiber's event loop; ValueError for NaN.
    """
    cdef section here = outside()
    cdef Dispatcher s = running_dispatcher()
    cdef Timeout limit = Timeout.__new__(Timeout)
    if delay is None:
        limit.deadline_ns = NEVER_NS
        return limit
    if s is None:
        s = running_fiber("timeout", &here.worker, None).scheduler
    limit.deadline_ns = deadline_after(s.clock, delay)
    limit._when = s.clock.now_ns() / 1e9 + delay
    return limit


def timeout_at(when) -> Timeout:
    """``timeout`` with a point in time: ``when`` is loop time (``loop.time()``) in seconds; None is never."""
    return Timeout(when)
