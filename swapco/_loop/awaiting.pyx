"""From the fiber's side: await anything that asyncio can await.

``await_(awaitable)`` drives a coroutine in place, on the fiber's own stack: it sends into it, and when it
yields a future the fiber parks until the future is done.  So a coroutine inside a fiber may call plain
functions that block, and no asyncio task is made.

While a fiber drives a coroutine it *is* asyncio's current task: ``asyncio.timeout`` and ``asyncio.TaskGroup``
inside it cancel and uncancel the fiber.  The current task belongs to the fiber, not to the time between two
points in a program: it is cleared at every switch away and set again at the return (``suspending`` and
``continuing``), else every other task would fail with "Cannot enter into task".

Cancellation follows asyncio here, not the laws of blocks: a cancellation of a fiber that awaits a future
cancels the future, and the CancelledError comes out of it; if the future is done already, the cancellation
stays pending and is raised instead of the future's outcome, as in ``Task``.
"""

import inspect

from cpython.object cimport PyObject

from .._core.fiber cimport FORWARDED, NOT_FORWARDED, STAYS_PENDING, FiberCore, outside, running_fiber, section
from .._core.clock cimport NEVER_NS
from .._core.here cimport in_worker, loop_runs_here
from .._core.reasons cimport JOIN
from .._core.scheduler cimport Scheduler
from .._core.states cimport DONE, NEW
from .poller cimport PollingHub

from .._core.errors import CancelledError, NotInFiber
from .compat import enter_task, isfuture, leave_task, register_task

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject **result) except PYGEN_ERROR
    bint PyCoro_CheckExact(object o)
    void Py_DECREF(PyObject *o)


cdef class _Wakeup:
    """The done callback of an awaited future."""

    cdef AwaitingFiber fiber

    def __call__(self, future):
        cdef AwaitingFiber f = self.fiber
        if f.awaited is future:
            f.scheduler.wake(f, None)


cdef class AwaitingFiber(FiberCore):
    """A fiber of an event loop, seen from inside: what it awaits."""

    cdef object event_loop(self):
        return (<PollingHub>self.scheduler.hub).loop

    cdef int register(self) except -1:
        """Into asyncio's registry, once: dearer than a spawn, so only when asyncio code could look."""
        if not self.registered:
            self.registered = self.watched = True
            register_task(self)
        return 0

    cdef int suspending(self) except -1:
        if self.depth:
            leave_task(self.event_loop(), self)
        return 0

    cdef int continuing(self) except -1:
        if self.depth:
            enter_task(self.event_loop(), self)
        return 0

    cdef int forward_cancel(self) except -1:
        cdef object message
        if self.awaited is None:
            return NOT_FORWARDED
        message = self.cancel_message
        if self.thrown is None and (self.awaited.cancel() if message is None else self.awaited.cancel(message)):
            return FORWARDED
        # it is done: its callback is on the way
        return STAYS_PENDING

    cdef object drive(self, object awaitable):
        """The result of ``awaitable``."""
        if PyCoro_CheckExact(awaitable):
            return self.drive_iterator(awaitable)
        if isfuture(awaitable):
            return self.await_future(awaitable)
        if inspect.iscoroutine(awaitable) or isinstance(awaitable, _GENERATOR_BASED):
            return self.drive_iterator(awaitable)
        method = getattr(type(awaitable), "__await__", None)
        if method is None:
            raise TypeError(
                f"await_() takes a coroutine, a future, a task or an object with __await__, not {awaitable!r}"
                + ("; a blocking function is called directly, without await_" if callable(awaitable) else "")
            )
        return self.drive_iterator(method(awaitable))

    cdef object drive_iterator(self, object iterator):
        cdef PyObject *sent
        cdef PySendResult how
        cdef object yielded
        cdef object error = None
        cdef object loop = self.event_loop()
        cdef object outer = self.coroutine
        if self.depth == 0:
            self.register()
            self.coroutine = iterator
            enter_task(loop, self)
            self.hooked = True
        self.depth += 1
        try:
            while True:
                if error is not None:
                    thrown, error = error, None
                    try:
                        yielded = iterator.throw(thrown)
                    except StopIteration as stop:
                        return stop.value
                    finally:
                        thrown = None
                else:
                    sent = NULL
                    how = PyIter_Send(iterator, None, &sent)
                    yielded = <object>sent
                    Py_DECREF(sent)
                    if how == PYGEN_RETURN:
                        return yielded
                try:
                    self.wait_for_yielded(yielded)
                except BaseException as raised:
                    error = raised
        finally:
            error = None
            self.depth -= 1
            if self.depth == 0:
                self.coroutine = outer
                self.hooked = self.awaited is not None
                leave_task(loop, self)

    cdef int wait_for_yielded(self, object yielded) except -1:
        """What an asyncio task does with what its coroutine yields."""
        cdef object blocking
        if yielded is None:
            self.scheduler.yield_now(self)
            return 0
        blocking = getattr(yielded, "_asyncio_future_blocking", None)
        if blocking is None:
            raise RuntimeError(f"a coroutine in {self!r} yielded {yielded!r}, which is no future")
        if not blocking:
            raise RuntimeError(f"'yield' was used instead of 'yield from' in {self!r} with {yielded!r}")
        if yielded is self:
            raise RuntimeError(f"{self!r} cannot await itself: it would wait for ever")
        yielded._asyncio_future_blocking = False
        self.wait_for_future(yielded)
        yielded.result()
        return 0

    cdef int wait_for_future(self, object future) except -1:
        """Park until the future is done; raises only a cancellation that the future did not take."""
        cdef _Wakeup wakeup
        if future.get_loop() is not self.event_loop():
            raise RuntimeError(f"{self!r} got {future!r}, which is attached to a different loop")
        self.scheduler.may_wait(self)
        wakeup = _Wakeup.__new__(_Wakeup)
        wakeup.fiber = self
        future.add_done_callback(wakeup, context=self.context)
        self.awaited = future
        self.hooked = True
        try:
            if self.cancel_pending and self.forward_cancel() == FORWARDED:
                self.cancel_pending = False
            self.scheduler.wait_outside(self, <PyObject *>future)
        finally:
            self.awaited = None
            self.hooked = self.depth > 0
        if self.cancel_pending:
            if future.done() and not future.cancelled():
                future.exception()  # it counts as seen, as with a task
            self.scheduler.raise_cancel(self)
        return 0

    cdef object await_future(self, object future):
        if future is self:
            raise RuntimeError(f"{self!r} cannot await itself: it would wait for ever")
        if not future.done():
            self.wait_for_future(future)
        return future.result()


_GENERATOR_BASED = inspect.types.GeneratorType


def await_(awaitable):
    """Block the calling fiber until ``awaitable`` is done; return its result or raise its exception.

    Takes a coroutine (driven in place, with the fiber as asyncio's current task), a future, a task, a fiber, or
    any object with ``__await__``.  Cancelling the fiber cancels what it awaits, as in asyncio.  Errors:
    TypeError for anything else; NotInFiber; RuntimeError for a future of another loop.
    """
    cdef section here = outside()
    cdef FiberCore me
    try:
        me = running_fiber("await_", &here.worker, None)
    except RuntimeError:
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise
    if me.threaded:
        return _at_home(me, await_, (awaitable,), f"await_ of {me.name}")
    return (<AwaitingFiber>me).drive(awaitable)


def at_home(fn, tuple args):
    """Call ``fn(*args)`` on the event loop's thread, for a thread fiber: the inside of ``from_thread.run``."""
    cdef section here = outside()
    cdef FiberCore me
    try:
        me = running_fiber("from_thread.run", &here.worker, None)
    except NotInFiber:
        if loop_runs_here() or in_worker():
            raise
        raise NotInFiber(
            "from_thread.run() was called in a thread that runs no fiber, so it must be told which event loop to call "
            "into: from_thread.run(fn, loop=loop)"
        ) from None
    if me.cancel_pending:
        me.scheduler.raise_cancel(me)
    if not me.threaded and not me.poses_as_thread:
        raise RuntimeError(
            "from_thread.run() was called by a fiber on the event loop's thread: call the function directly, or "
            "spawn() it"
        )
    return _at_home(me, fn, args, f"from_thread.run of {me.name}")


cdef class _AtHome:
    """What the helper calls."""

    cdef FiberCore helper
    cdef object fn
    cdef tuple args
    # the thread fiber was cancelled before the helper began
    cdef bint cancelled
    cdef object message

    def __call__(self):
        cdef FiberCore helper = self.helper
        self.helper = None
        if self.cancelled:
            helper.request_cancel(self.message)
        return self.fn(*self.args)


cdef object _at_home(FiberCore me, object fn, tuple args, str name):
    """A thread fiber waits for an ordinary one, which runs ``fn`` in the same context."""
    cdef Scheduler s = <Scheduler>me.scheduler
    cdef FiberCore helper
    cdef _AtHome call = _AtHome.__new__(_AtHome)
    cdef bint cancelled = False
    cdef object message = None
    call.fn = fn
    call.args = args
    helper = call.helper = s.fiber_type(s, call, (), name=name, context=me.context)
    s.spawn_fiber(helper)
    while helper._state != DONE:
        try:
            s.park(me, &helper.joiners, JOIN, <PyObject *>helper, NEVER_NS)
        except CancelledError as caught:
            # as in asyncio: it is for what is awaited, and comes out of that
            cancelled = True
            message = caught.args[0] if caught.args else None
        if cancelled and helper._state == NEW:
            # it begins all the same: the thread fiber is in the middle of its call already
            call.cancelled = True
            call.message = message
        elif cancelled and helper._state != DONE:
            helper.request_cancel(message)
    if cancelled and helper.exception_value is None:
        me.cancel_pending = True
        me.cancel_message = message
    return helper.outcome()
