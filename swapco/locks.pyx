"""Lock, RLock, Event, Condition, Semaphore, BoundedSemaphore, Barrier: asyncio's, without ``await``.

Theory
------
A primitive is a few words of state and a line of parked fibers, first in, first out.  The state is only touched
by the owner of the slot, and every operation is one scheduler section, so there is nothing to lock.

*Hand-over.*  Who releases gives what it releases to the first fiber in line: the lock is owned by that fiber, the
permit is spent, before the fiber has run.  So a newcomer cannot slip in between, the woken fiber has nothing to
check again, and the number of permits never depends on who runs next.

*Who wins.*  The wake, the timeout and the cancellation race for the fiber's wait record (wait.h).  A hand-over that
has won stands: the fiber returns from ``acquire`` normally, and a cancellation that came later is raised where
the fiber waits next.  One that lost tries the next in line.  So no permit and no notification is lost.

*Fast paths.*  An operation that need not wait does not switch, allocates nothing, and is no cancellation point.
A releasing operation never blocks and is never a cancellation point; it may be called from the hub too.

*Conditions.*  ``notify`` wakes nobody.  Its caller holds the lock, so a woken fiber could only queue for it; instead
the waiter is moved to the lock's own line, and wakes up as the owner: one switch a waiter, not two, and
``notify_all`` to a hundred fibers is a hundred pointer moves.  From then on its timeout no longer counts (the
notification came first), but a cancellation does: the fiber then takes the lock all the same, passes the
notification on, and raises.

Invariants
----------
- A fiber is in a line only while its wait is open; whoever ends the wait takes it out.
- Lock, RLock: somebody is in line only while ``depth > 0``.  Semaphore: only while ``value == 0``.
  Event: only while the flag is down.  Barrier: fewer than ``parties``, and nobody while it is broken.
- The line of a condition's lock holds fibers that want the lock, and fibers that were notified: ``handed`` of the
  latter is ``_NOTIFIED``.
- References that may be the last ones are dropped at the end of a section: a finalizer is user code.

Rejected: barging (a release that makes the lock free for whoever comes first, as threading does: cheaper under
contention between processors, of which a slot has one; it starves waiters); binding a primitive to the first loop
that waits in it (asyncio: a lock at module level then fails in the second ``run``; here only a line that has
fibers of another loop in it is an error); a ``release`` for the owner only (asyncio allows it to anyone, and
handing a locked lock to another fiber is an idiom); waking notified fibers to let them queue for the lock.
"""

import asyncio
from collections import namedtuple

from cpython.object cimport PyObject

from ._core.clock cimport NEVER_NS
from ._core.fiber cimport (
    Dispatcher, FiberCore, enter, look, outside, queue_append, queue_remove, running_fiber, section
)
from ._core.reasons cimport CONDITION, EVENT, LOCK, PARK, SEMAPHORE
from ._core.wait cimport WAIT_WON_CANCEL, WAIT_WON_WAKE, wait_is_open
from .lines cimport caller, check_before_wait, check_thread, deadline_of, in_fiber, wait_in_line

from ._core.errors import CancelledError
from ._core.reasons import describe
from .lines import acquire_by_helper

__all__ = [
    "Barrier",
    "BarrierStatistics",
    "BoundedSemaphore",
    "Condition",
    "ConditionStatistics",
    "Event",
    "EventStatistics",
    "Lock",
    "LockStatistics",
    "RLock",
    "Semaphore",
    "SemaphoreStatistics",
]

LockStatistics = namedtuple("LockStatistics", "locked owner depth waiting", module=__name__)
LockStatistics.__doc__ = "Of a Lock or RLock: is it locked, by whom, how many times, and how many fibers wait for it."

SemaphoreStatistics = namedtuple("SemaphoreStatistics", "value waiting", module=__name__)
SemaphoreStatistics.__doc__ = "Of a Semaphore: the permits that are left, and how many fibers wait for one."

EventStatistics = namedtuple("EventStatistics", "is_set waiting", module=__name__)
EventStatistics.__doc__ = "Of an Event: is it set, and how many fibers wait for it."

ConditionStatistics = namedtuple("ConditionStatistics", "waiting lock", module=__name__)
ConditionStatistics.__doc__ = "Of a Condition: how many fibers wait to be notified, and the statistics of its lock."

BarrierStatistics = namedtuple("BarrierStatistics", "parties waiting broken", module=__name__)
BarrierStatistics.__doc__ = "Of a Barrier: how many fibers open it, how many of them wait, and is it broken."

# in a fiber's `handed` cell: it was notified and stands in the lock's line
cdef object _NOTIFIED = object()
# handed to the fibers of a barrier that was aborted or reset
cdef object _BROKEN = object()


cdef str _count(Py_ssize_t n, str what):
    return f", {n} {what}" if n else ""


cdef class _Acquirable:
    """What is acquired and released: the base of the locks and semaphores."""

    cdef int take(self, FiberCore me, long long deadline_ns) except -1:
        """Acquire for ``me``, which waits in line if it must."""
        raise TypeError(f"{type(self).__name__} does not implement take")

    cdef bint take_at_once(self, object holder) except -1:
        """Acquire for ``holder`` if nobody has to wait for that; False otherwise."""
        raise TypeError(f"{type(self).__name__} does not implement take_at_once")

    cdef int pass_to(self, object holder) except -1:
        """What the caller has acquired belongs to ``holder`` from now on."""
        return 0

    cdef int give(self) except -1:
        """Hand what was acquired to the first in line, or make it free."""
        raise TypeError(f"{type(self).__name__} does not implement give")

    def _acquire_for(self, holder):
        cdef section here = outside()
        cdef FiberCore me = running_fiber("async with", &here.worker, self)
        self.take(me, NEVER_NS)
        self.pass_to(holder)

    def _undo(self):
        self.give()

    async def __aenter__(self):
        if in_fiber():
            self.acquire()
            return
        task = caller()
        if not self.take_at_once(task):
            await acquire_by_helper(
                lambda: self._acquire_for(task), self._undo, f"async with {type(self).__name__}"
            )

    async def __aexit__(self, exc_type, exc, traceback):
        self.release()


# ----------------------------------------------------------------------------------------------- mutexes

cdef class _Mutex(_Acquirable):
    """Owned by one at a time: what Lock and RLock share."""

    cdef bint held_by_caller(self) except -1:
        """May the caller wait on, or notify, a condition of this lock?"""
        return self.depth > 0

    cdef int take(self, FiberCore me, long long deadline_ns) except -1:
        if self.depth == 0:
            self.depth = 1
            self.holder = me
            return 0
        wait_in_line(me, &self.waiters, LOCK, self, deadline_ns)
        return 0

    cdef bint take_at_once(self, object holder) except -1:
        if self.depth:
            return False
        self.depth = 1
        self.holder = holder
        return True

    cdef int pass_to(self, object holder) except -1:
        self.holder = holder
        return 0

    cdef int give(self) except -1:
        cdef FiberCore f
        cdef object _before
        if self.waiters.head != NULL:
            check_thread(self.waiters.head, self, "release")
        # may be the last reference
        _before = self.holder
        while self.waiters.head != NULL:
            f = <FiberCore>self.waiters.head
            queue_remove(f)
            self.holder = f
            self.depth = 1
            if f.scheduler.wake(f, None):
                return 0
        self.holder = None
        self.depth = 0
        return 0

    def locked(self) -> bool:
        """True while somebody holds the lock.  Does not block."""
        look(self)
        return self.depth > 0

    @property
    def owner(self):
        """The fiber that acquired the lock, or the asyncio task that did so by ``async with``; None if unlocked."""
        look(self)
        return self.holder

    def statistics(self) -> LockStatistics:
        """Is it locked, by whom, how many times, and how many fibers wait for it."""
        look(self)
        return LockStatistics(self.depth > 0, self.holder, self.depth, self.waiters.count)

    def __repr__(self) -> str:
        if self.depth == 0:
            return f"<{type(self).__name__} unlocked>"
        if isinstance(self.holder, FiberCore):
            by = f" by {type(self.holder).__name__} {self.holder.name!r}"
            if self.holder.done():
                by += " (done)"
        elif isinstance(self.holder, asyncio.Task):
            by = f" by Task {self.holder.get_name()!r}"
        else:
            by = ""
        if self.depth > 1:
            by += f" {self.depth} times"
        return f"<{type(self).__name__} locked{by}{_count(self.waiters.count, 'waiting')}>"


cdef class Lock(_Mutex):
    """A mutual exclusion lock for fibers: one at a time, in the order of arrival.

    ``with lock:`` acquires and releases; ``async with lock:`` does so from coroutines of the same loop.  The lock is
    not reentrant: a fiber that acquires it twice waits for itself, and is named in the Deadlock report.
    """

    def __init__(self):
        pass

    def acquire(self, *, timeout=None) -> bool:
        """Acquire the lock; blocks the calling fiber while another one has it.  Returns True.

        ``timeout`` in seconds (None: for ever) ends the wait with TimeoutError; 0 or less: at once.  Other errors:
        CancelledError (only if it has to wait), NotInFiber, ValueError for a timeout that is NaN, RuntimeError if
        fibers of another event loop are in line.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Lock.acquire", &here.worker, self)
        self.take(me, deadline_of(me, timeout))
        return True

    def release(self) -> None:
        """Release the lock; if fibers wait for it, the first in line owns it from now on.  Never blocks.

        Any fiber may release, not only the owner (as in asyncio), and so may loop callbacks.  Errors:
        RuntimeError if the lock is not locked, or from another thread than that of the waiting fibers.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        if self.depth == 0:
            raise RuntimeError("Lock is not acquired. Every release() needs an acquire() before it")
        self.give()

    def __enter__(self) -> None:
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Lock.__enter__", &here.worker, self)
        if type(self) is not Lock:
            self.acquire()
            return
        self.take(me, NEVER_NS)

    def __exit__(self, exc_type, exc, traceback) -> None:
        cdef section here = outside()
        enter(&here.worker, self)
        if type(self) is not Lock or self.depth == 0:
            self.release()
            return
        self.give()


cdef class RLock(_Mutex):
    """A lock that its owner may acquire again: it is free after as many releases.

    Owned by a fiber, or by the asyncio task that entered it by ``async with``; only the owner may release it.
    asyncio has no such lock; the semantics are threading's.
    """

    def __init__(self):
        pass

    cdef bint held_by_caller(self) except -1:
        return self.depth > 0 and self.holder is caller()

    cdef int take(self, FiberCore me, long long deadline_ns) except -1:
        if self.depth and self.holder is me:
            self.depth += 1
            return 0
        return _Mutex.take(self, me, deadline_ns)

    cdef bint take_at_once(self, object holder) except -1:
        if self.depth and holder is not None and self.holder is holder:
            self.depth += 1
            return True
        return _Mutex.take_at_once(self, holder)

    def acquire(self, *, timeout=None) -> bool:
        """Acquire the lock, or acquire it once more; blocks while another fiber has it.  Returns True.

        ``timeout`` in seconds (None: for ever) ends the wait with TimeoutError; 0 or less: at once.  Other errors:
        CancelledError (only if it has to wait), NotInFiber, ValueError for a timeout that is NaN, RuntimeError if
        fibers of another event loop are in line.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("RLock.acquire", &here.worker, self)
        self.take(me, deadline_of(me, timeout))
        return True

    def release(self) -> None:
        """Take one acquire back; after the last, the first in line owns the lock.  Never blocks.

        Errors: RuntimeError if the caller is not the owner.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        if self.depth == 0:
            raise RuntimeError("cannot release un-acquired lock: every release() needs an acquire() before it")
        if self.holder is not caller():
            raise RuntimeError(f"cannot release {self!r}: only its owner may")
        if self.depth > 1:
            self.depth -= 1
        else:
            self.give()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, exc_type, exc, traceback) -> None:
        self.release()


# -------------------------------------------------------------------------------------------- semaphores

cdef class Semaphore(_Acquirable):
    """A number of permits: ``acquire`` takes one and waits while there is none, ``release`` gives one back.

    First come, first served: a newcomer does not get a permit before those in line.  ``value`` is the number of
    permits at the start; ValueError if it is negative.
    """

    def __init__(self, value=1):
        if value < 0:
            raise ValueError("Semaphore initial value must be >= 0")
        self.value = value

    cdef int take(self, FiberCore me, long long deadline_ns) except -1:
        if self.value > 0:
            self.value -= 1
            return 0
        wait_in_line(me, &self.waiters, SEMAPHORE, self, deadline_ns)
        return 0

    cdef bint take_at_once(self, object holder) except -1:
        if self.value == 0:
            return False
        self.value -= 1
        return True

    cdef int give(self) except -1:
        cdef FiberCore f
        if self.waiters.head != NULL:
            check_thread(self.waiters.head, self, "release")
            f = <FiberCore>self.waiters.head
            if f.scheduler.wake_first(&self.waiters, None):
                return 0
        self.value += 1
        return 0

    def acquire(self, *, timeout=None) -> bool:
        """Take a permit; blocks the calling fiber while there is none.  Returns True.

        ``timeout`` in seconds (None: for ever) ends the wait with TimeoutError; 0 or less: at once.  Other errors:
        CancelledError (only if it has to wait), NotInFiber, ValueError for a timeout that is NaN, RuntimeError if
        fibers of another event loop are in line.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Semaphore.acquire", &here.worker, self)
        self.take(me, deadline_of(me, timeout))
        return True

    def release(self) -> None:
        """Give a permit to the first in line, or put it back.  Never blocks; from fibers and loop callbacks.

        Errors: RuntimeError from another thread than that of the waiting fibers.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        self.give()

    def locked(self) -> bool:
        """True if ``acquire`` would wait.  Does not block."""
        look(self)
        return self.value == 0

    def statistics(self) -> SemaphoreStatistics:
        """The permits that are left, and how many fibers wait for one."""
        look(self)
        return SemaphoreStatistics(self.value, self.waiters.count)

    def __enter__(self) -> None:
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Semaphore.__enter__", &here.worker, self)
        if type(self) is not Semaphore and type(self) is not BoundedSemaphore:
            self.acquire()
            return
        self.take(me, NEVER_NS)

    def __exit__(self, exc_type, exc, traceback) -> None:
        cdef section here = outside()
        enter(&here.worker, self)
        if type(self) is not Semaphore and type(self) is not BoundedSemaphore:
            self.release()
            return
        self.give()

    def __repr__(self) -> str:
        state = f"{self.value} free" if self.value else "locked"
        return f"<{type(self).__name__} {state}{_count(self.waiters.count, 'waiting')}>"


cdef class BoundedSemaphore(Semaphore):
    """A semaphore that never has more permits than at the start: a release too many is a ValueError."""

    def __init__(self, value=1):
        Semaphore.__init__(self, value)
        self.bound = value

    cdef int give(self) except -1:
        if self.value >= self.bound:
            raise ValueError("BoundedSemaphore released too many times: every release() needs an acquire() before it")
        return Semaphore.give(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.value} of {self.bound} free{_count(self.waiters.count, 'waiting')}>"


# ------------------------------------------------------------------------------------------------- event

cdef class Event:
    """A flag that fibers wait for: down at first, ``set`` raises it and wakes everyone, ``clear`` lowers it."""

    def __init__(self):
        pass

    def is_set(self) -> bool:
        """True while the flag is up.  Does not block."""
        look(self)
        return self.flag

    def set(self) -> None:
        """Raise the flag, and wake every fiber that waits for it, in order.  Never blocks.

        From fibers and loop callbacks.  Errors: RuntimeError from another thread than that of the waiting fibers.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        cdef FiberCore f
        if self.waiters.head == NULL:
            self.flag = True
            return
        check_thread(self.waiters.head, self, "set")
        self.flag = True
        f = <FiberCore>self.waiters.head
        f.scheduler.wake_all(&self.waiters, None)

    def clear(self) -> None:
        """Lower the flag: ``wait`` blocks again.  Fibers that ``set`` has woken return all the same."""
        cdef section here = outside()
        enter(&here.worker, self)
        self.flag = False

    def wait(self, *, timeout=None) -> bool:
        """Block the calling fiber until the flag is up; at once if it is.  Returns True.

        ``timeout`` in seconds (None: for ever) ends the wait with TimeoutError; 0 or less: at once.  Other errors:
        CancelledError (only if it has to wait), NotInFiber, ValueError for a timeout that is NaN, RuntimeError if
        fibers of another event loop are in line.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Event.wait", &here.worker, self)
        cdef long long deadline_ns = deadline_of(me, timeout)
        if not self.flag:
            wait_in_line(me, &self.waiters, EVENT, self, deadline_ns)
        return True

    def statistics(self) -> EventStatistics:
        """Is it set, and how many fibers wait for it."""
        look(self)
        return EventStatistics(self.flag, self.waiters.count)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'set' if self.flag else 'unset'}{_count(self.waiters.count, 'waiting')}>"


# --------------------------------------------------------------------------------------------- condition

cdef class Condition:
    """A condition variable: fibers that hold its lock wait until another one notifies them.

    ``lock`` is a Lock or an RLock (a new Lock unless given); several conditions may share one.  ``with condition:``
    holds the lock.
    """

    def __init__(self, lock=None):
        if lock is None:
            lock = Lock()
        elif not isinstance(lock, _Mutex):
            raise TypeError(f"a swapco.Condition needs a swapco.Lock or RLock, not {lock!r}")
        self.lock = lock

    def acquire(self, *, timeout=None) -> bool:
        """Acquire the lock of the condition: see ``Lock.acquire``."""
        return self.lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Release the lock of the condition: see ``Lock.release``."""
        self.lock.release()

    def locked(self) -> bool:
        """True while somebody holds the lock.  Does not block."""
        look(self)
        return self.lock.depth > 0

    cdef int wait_until(self, FiberCore me, long long deadline_ns) except -1:
        cdef Dispatcher s = me.scheduler
        cdef Py_ssize_t depth = self.lock.depth
        cdef bint notified
        cdef int winner
        if not self.lock.held_by_caller():
            raise RuntimeError(f"cannot wait on un-acquired lock: write `with condition:` around the wait ({self!r})")
        check_before_wait(me, &self.waiters, CONDITION, self, deadline_ns)
        self.lock.give()
        try:
            winner = s.wait_for(me, &self.waiters, CONDITION, <PyObject *>self, deadline_ns)
            if winner == WAIT_WON_WAKE:
                # notified, moved to the lock's line, and handed the lock
                self.lock.depth = depth
                return 0
            if winner == WAIT_WON_CANCEL:
                s.raise_cancel(me)
            raise TimeoutError(f"timed out waiting for {describe(CONDITION, self)}")
        except BaseException:
            notified = me.handed is _NOTIFIED
            me.handed = None
            if me.stack.killed:
                # it unwinds outside the scheduler, and cannot wait for anything any more
                self.lock.take_at_once(me)
                raise
            try:
                self.reacquire(me, depth)
            finally:
                if notified:
                    self.requeue(1)
            raise

    cdef int reacquire(self, FiberCore me, Py_ssize_t depth) except -1:
        """Take the lock; a cancellation meanwhile is raised once the lock is held.

        Only cancellations are held back: something that raises at every block would make this spin.
        """
        cdef object error = None
        while True:
            try:
                self.lock.take(me, NEVER_NS)
                break
            except CancelledError as raised:
                error = raised
        self.lock.depth = depth
        if error is not None:
            raise error
        return 0

    cdef int requeue(self, Py_ssize_t n) except -1:
        """Move the first ``n`` waiters to the lock's line; the lock is held."""
        cdef FiberCore f
        if self.waiters.head != NULL:
            check_thread(self.waiters.head, self, "notify")
        while n > 0 and self.waiters.head != NULL:
            f = <FiberCore>self.waiters.head
            queue_remove(f)
            if not wait_is_open(&f.wait):
                continue
            if f.timer is not None:
                # the notification came first
                f.scheduler.timers.disarm(f.timer)
            f.handed = _NOTIFIED
            f.reason = LOCK
            f.waits_for = <PyObject *>self.lock
            queue_append(&self.lock.waiters, f)
            n -= 1
        return 0

    def wait(self, *, timeout=None) -> bool:
        """Release the lock, block the calling fiber until it is notified, acquire the lock again.  Returns True.

        The lock is held again however the wait ends, also by an error.  ``timeout`` in seconds (None: for ever) is
        for the notification, not for the lock: when it is over, TimeoutError is raised as soon as the lock is
        held; 0 or less: at once.  CancelledError likewise; a notification that a cancelled fiber got is passed
        on to another one, which may find its condition not fulfilled: check it again, or use ``wait_for``.
        Other errors: RuntimeError if the lock is not held; NotInFiber; ValueError for a timeout that is NaN.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Condition.wait", &here.worker, self)
        self.wait_until(me, deadline_of(me, timeout))
        return True

    cdef long long deadline_for(self, object timeout) except -1:
        cdef section here = outside()
        return deadline_of(running_fiber("Condition.wait_for", &here.worker, self), timeout)

    cdef int wait_once(self, long long deadline_ns) except -1:
        """One wait of ``wait_for``, whose predicate is user code: it runs in no section."""
        cdef section here = outside()
        return self.wait_until(running_fiber("Condition.wait_for", &here.worker, self), deadline_ns)

    def wait_for(self, predicate, *, timeout=None):
        """Wait until ``predicate()`` is true, and return its value; it is called with the lock held.

        ``timeout`` in seconds (None: for ever): TimeoutError if the predicate is not true by then.  Errors as for
        ``wait``, and what the predicate raises.
        """
        cdef long long deadline_ns = self.deadline_for(timeout)
        result = predicate()
        while not result:
            try:
                self.wait_once(deadline_ns)
            except TimeoutError:
                # somebody may have fulfilled it while this fiber waited for the lock
                result = predicate()
                if not result:
                    raise
            else:
                result = predicate()
        return result

    def notify(self, n=1) -> None:
        """Let ``n`` waiting fibers go on, the first in line first; they run when the lock is released.

        Never blocks.  Errors: RuntimeError if the lock is not held.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        if not self.lock.held_by_caller():
            raise RuntimeError(f"cannot notify on un-acquired lock: write `with condition:` around it ({self!r})")
        self.requeue(n)

    def notify_all(self) -> None:
        """``notify`` for every waiting fiber."""
        self.notify(self.waiters.count)

    def statistics(self) -> ConditionStatistics:
        """How many fibers wait to be notified, and the statistics of the lock."""
        look(self)
        return ConditionStatistics(self.waiters.count, self.lock.statistics())

    def __enter__(self) -> None:
        self.lock.__enter__()

    def __exit__(self, exc_type, exc, traceback) -> None:
        self.lock.__exit__(exc_type, exc, traceback)

    def __aenter__(self):
        return self.lock.__aenter__()

    def __aexit__(self, exc_type, exc, traceback):
        return self.lock.__aexit__(exc_type, exc, traceback)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{_count(self.waiters.count, 'waiting')[1:]} of {self.lock!r}>"


# ----------------------------------------------------------------------------------------------- barrier

cdef class Barrier:
    """A meeting point: ``wait`` blocks until ``parties`` fibers wait, then all of them go on.

    It can be used again at once: a fiber that comes after the last one waits for the next round.  A fiber that is
    cancelled or times out just leaves.  ValueError if ``parties`` is less than 1.

    Different from asyncio's: ``reset`` and ``abort`` do not block, and fibers that the barrier has let go return
    normally, even if it is aborted before they run.
    """

    def __init__(self, parties):
        if parties < 1:
            raise ValueError("Barrier parties must be > 0")
        self.n_parties = parties

    def wait(self, *, timeout=None) -> int:
        """Block the calling fiber until all parties wait; return its index, from 0 to parties - 1, in the order of
        arrival.

        ``timeout`` in seconds (None: for ever) ends the wait with TimeoutError; 0 or less: at once.  Other errors:
        BrokenBarrierError if the barrier is or gets broken, or is reset; CancelledError, NotInFiber, ValueError for
        a timeout that is NaN, RuntimeError if fibers of another event loop wait here.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Barrier.wait", &here.worker, self)
        cdef long long deadline_ns = deadline_of(me, timeout)
        cdef object index
        if self.is_broken:
            raise asyncio.BrokenBarrierError("Barrier aborted: reset() makes it usable again")
        if self.waiters.count + 1 >= self.n_parties:
            return self.open()
        index = wait_in_line(me, &self.waiters, PARK, self, deadline_ns)
        if index is _BROKEN:
            raise asyncio.BrokenBarrierError("Abort or reset of barrier")
        return index

    cdef object open(self):
        """The last one is here: the others get their indices, and this is its own."""
        cdef FiberCore f
        cdef Py_ssize_t index = 0
        if self.waiters.head != NULL:
            check_thread(self.waiters.head, self, "wait")
        while self.waiters.head != NULL:
            f = <FiberCore>self.waiters.head
            if f.scheduler.wake_first(&self.waiters, index):
                index += 1
        return index

    cdef int turn_away(self, str method, bint broken) except -1:
        """Send whoever waits home; the barrier is empty then, and broken or not."""
        cdef FiberCore f
        if self.waiters.head != NULL:
            check_thread(self.waiters.head, self, method)
        self.is_broken = broken
        if self.waiters.head != NULL:
            f = <FiberCore>self.waiters.head
            f.scheduler.wake_all(&self.waiters, _BROKEN)
        return 0

    def reset(self) -> None:
        """Make the barrier empty and usable; fibers that wait get a BrokenBarrierError.  Never blocks."""
        cdef section here = outside()
        enter(&here.worker, self)
        self.turn_away("reset", False)

    def abort(self) -> None:
        """Break the barrier: every ``wait``, present and future, raises BrokenBarrierError until ``reset``.

        Never blocks.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        self.turn_away("abort", True)

    @property
    def parties(self) -> int:
        """How many fibers open the barrier."""
        return self.n_parties

    @property
    def n_waiting(self) -> int:
        """How many fibers wait at the barrier."""
        look(self)
        return self.waiters.count

    @property
    def broken(self) -> bool:
        """True after ``abort``, until ``reset``."""
        look(self)
        return self.is_broken

    def statistics(self) -> BarrierStatistics:
        """How many fibers open it, how many of them wait, and is it broken."""
        look(self)
        return BarrierStatistics(self.n_parties, self.waiters.count, self.is_broken)

    def __enter__(self) -> int:
        return self.wait()

    def __exit__(self, exc_type, exc, traceback) -> None:
        pass

    async def __aenter__(self):
        if in_fiber():
            return self.wait()
        return await acquire_by_helper(self.wait, _nothing, f"async with {type(self).__name__}")

    async def __aexit__(self, exc_type, exc, traceback):
        pass

    def __repr__(self) -> str:
        state = "broken" if self.is_broken else f"{self.waiters.count} of {self.n_parties} waiting"
        return f"<{type(self).__name__} {state}>"


def _nothing():
    """A barrier that has opened cannot be closed again."""
