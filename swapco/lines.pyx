"""Waiting in line: what locks, queues and the other primitives have in common.

A blocking operation of a primitive looks like this:

    cdef section here                             the slot is ours until the return, also in a thread fiber
    me = running_fiber("Lock.acquire", &here.worker, self)   NotInFiber where there is nothing to block
    deadline_ns = deadline_of(me, timeout)        ValueError for NaN, also if it need not wait
    ...                                           the fast path: no switch, no cancellation point
    wait_in_line(me, &self.waiters, LOCK, ...)    raises what can be raised before it parks, then parks

and a releasing one opens its section with ``enter(&here.worker, self)``, and calls ``check_thread`` before it changes
anything, if there is somebody to wake.  User code (a predicate, a callback) is called outside of sections.

``async with`` in the hub.  A coroutine that a fiber drives may block like any function.  A coroutine in the hub must
not: a helper fiber acquires in its name, and the coroutine awaits the helper.  It may be cancelled in four moments:

1. the helper has not started, or waits: cancelling the await cancels the helper, which ends cancelled;
2. the helper was handed the lock but has not run: its cancellation stays pending; it sees that, and undoes;
3. the helper is done, and the coroutine has not run: CancelledError comes out of the await, which undoes;
4. the coroutine is closed (GeneratorExit) in the middle: as 1, 2 or 3.

So what was acquired is given back exactly once, or belongs to the coroutine.
"""

import asyncio

from cpython.object cimport PyObject

from ._core.clock cimport NEVER_NS
from ._core.fiber cimport FiberCore, WaitQueue, fiber_here, outside, running_fiber, section

from ._core.reasons import describe


cdef int check_thread(PyObject *waiter, object primitive, str method) except -1:
    """``method`` is about to wake this fiber: it must run in the thread of the fiber's event loop."""
    if not (<FiberCore>waiter).scheduler.slot.owned():
        raise RuntimeError(
            f"{type(primitive).__name__}.{method}() was called from another thread than that of the event loop in "
            f"which fibers wait here: use loop.call_soon_threadsafe({type(primitive).__name__.lower()}.{method}, ...)"
        )
    return 0


cdef int check_before_wait(FiberCore me, WaitQueue *queue, short reason, object primitive,
                           long long deadline_ns) except -1:
    """What can be said before the fiber parks: the wrong loop, a pending cancellation, no time to wait."""
    if queue.head != NULL and (<FiberCore>queue.head).scheduler is not me.scheduler:
        raise RuntimeError(f"{primitive!r} is in use by the fibers of another event loop")
    if me.cancel_pending:
        me.scheduler.raise_cancel(me)
    if deadline_ns != NEVER_NS and deadline_ns <= me.scheduler.clock.now_ns():
        raise TimeoutError(f"timed out waiting for {describe(reason, primitive)}")
    return 0


cdef object wait_in_line(FiberCore me, WaitQueue *queue, short reason, object primitive, long long deadline_ns):
    """Park at the end of the line; returns what the wake hands over."""
    check_before_wait(me, queue, reason, primitive, deadline_ns)
    return me.scheduler.park(me, queue, reason, <PyObject *>primitive, deadline_ns)


cdef object caller():
    """Who calls: the running fiber, or in the hub the asyncio task, if there is one."""
    cdef PyObject *f = fiber_here()
    if f != NULL:
        return <FiberCore>f
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _acquire_in_helper(acquire, undo):
    """What the helper runs: ``acquire``, and ``undo`` if it was cancelled too late to stop that."""
    cdef section here = outside()
    cdef FiberCore me = running_fiber("async with", &here.worker, None)
    result = acquire()
    if me.cancel_pending:
        undo()
        me.scheduler.raise_cancel(me)
    return result


async def acquire_by_helper(acquire, undo, str name):
    """Await ``acquire()``, a blocking call, from a coroutine in the hub; ``undo`` takes a success back."""
    from .tasks import spawn

    helper = spawn(_acquire_in_helper, acquire, undo, name=name)
    try:
        return await helper
    except BaseException:
        if not helper.cancel() and not helper.cancelled() and helper.exception() is None:
            undo()
        raise
