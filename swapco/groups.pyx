"""``TaskGroup``: fibers that live and die with a block of code.

Leaving the block waits for every member.  The first member that fails, or the body if it fails, aborts the
group: the other members are cancelled, the body too, and the ``with`` statement raises all failures in one
exception group.  So no member outlives the block, and no failure is lost.

The group is told of a member's end by the dying fiber itself (``Watcher``), not by a done callback: no trip
through the event loop per member, and the siblings are cancelled before anybody else runs.

The rules are those of asyncio.TaskGroup (CPython 3.13's, on every version):

- A cancelled member is no failure.
- KeyboardInterrupt and SystemExit of a member or of the body leave the block as they are.
- Cancelling the parent from outside aborts the group, and CancelledError leaves the block; but failures of
  members have priority, and the parent is then cancelled again, where it suspends next.
- The request by which the group cancels its own parent is taken back before the block is left.

Where it differs: members are cancelled in the order in which they were spawned (asyncio's is that of a set),
and a request of the group that was never delivered is dropped even if the parent had been cancelled before.
"""

from cpython.object cimport PyObject

from ._core.clock cimport NEVER_NS
from ._core.reasons cimport FIBERS
from ._core.fiber cimport FiberCore, Watcher, enter, outside, running_dispatcher, running_fiber, section
from ._core.scheduler cimport Scheduler
from ._core.wait cimport WAIT_WON_CANCEL
from ._loop.task cimport new_fiber
from .timeouts cimport take_back_cancel

from ._core.errors import CancelledError
from .tasks import spawn as _spawn

cdef extern from "Python.h":
    bint PyCoro_CheckExact(object o)


cdef class TaskGroup(Watcher):
    """A context manager whose ``spawn`` starts fibers that the end of the ``with`` block waits for.

    ``with`` blocks the calling fiber at its end.  Errors: an ExceptionGroup (BaseExceptionGroup) of what
    members and body raised; CancelledError; KeyboardInterrupt and SystemExit of a member as they are;
    NotInFiber.
    """

    cdef Scheduler scheduler
    cdef FiberCore parent
    # members that are not done, in the order in which they were spawned
    cdef dict members
    cdef list errors
    cdef object base_error
    cdef bint entered
    cdef bint exiting
    cdef bint aborting
    cdef bint parent_cancel_requested
    cdef bint pending_before
    cdef int requests_before

    def __cinit__(self):
        self.members = {}
        self.errors = []

    def __repr__(self) -> str:
        words = ["TaskGroup"]
        if self.members:
            words.append(f"fibers={len(self.members)}")
        if self.errors:
            words.append(f"errors={len(self.errors)}")
        if self.aborting:
            words.append("cancelling")
        elif self.entered:
            words.append("entered")
        return f"<{' '.join(words)}>"

    # -- members

    def spawn(self, fn, *args, name=None, context=None, thread=False, priority=0, deadline=None):
        """Start a fiber that is a member of the group; as ``swapco.spawn``.  Does not block.

        Errors: RuntimeError before the block, after it, while the group is shutting down, and for another
        event loop than the group's; those of ``swapco.spawn``.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        cdef FiberCore member
        try:
            self.check_open()
            if thread or PyCoro_CheckExact(fn) and args:
                member = _spawn(
                    fn, *args, name=name, context=context, thread=thread, priority=priority, deadline=deadline
                )
            else:
                # the same, without a call with keywords
                member = new_fiber(self.scheduler, fn, args, name, context)
                member.priority = priority
                member.deadline = deadline
                self.scheduler.spawn_fiber(member)
        except BaseException:
            if PyCoro_CheckExact(fn):
                fn.close()
            raise
        self.members[member] = None
        member.watch(self)
        return member

    def create_task(self, coro, *, name=None, context=None):
        """``spawn`` for a coroutine object, with the signature of asyncio's ``create_task``."""
        if not PyCoro_CheckExact(coro):
            raise TypeError(
                f"create_task() takes a coroutine object, not {coro!r}; for a function write tg.spawn(fn, x)"
            )
        return self.spawn(coro, name=name, context=context)

    cdef int check_open(self) except -1:
        if not self.entered:
            raise RuntimeError(f"{self!r} has not been entered: use it in a with statement")
        if self.exiting and not self.members:
            raise RuntimeError(f"{self!r} is finished")
        if self.aborting:
            raise RuntimeError(f"{self!r} is shutting down")
        if running_dispatcher() is not self.scheduler:
            raise RuntimeError(
                f"{self!r} belongs to another event loop: hand the call to it with "
                "loop.call_soon_threadsafe(tg.spawn, fn)"
            )
        return 0

    cdef int abort(self) except -1:
        cdef FiberCore member
        self.aborting = True
        for member in list(self.members):
            member.request_cancel(None)
        return 0

    cdef int fiber_done(self, FiberCore member) except -1:
        cdef object error = member.exception_value
        del self.members[member]
        if error is not None and not isinstance(error, CancelledError) and self.parent is not None:
            member.result_retrieved = True
            self.errors.append(error)
            if self.base_error is None and isinstance(error, (KeyboardInterrupt, SystemExit)):
                self.base_error = error
            if not self.aborting:
                self.abort()
                if not self.exiting:
                    # out of the body; in __exit__ it only waits for the others
                    self.parent_cancel_requested = True
                    self.parent.request_cancel(None)
        if self.exiting and self.parent is not None and not self.members:
            self.scheduler.wake(self.parent, None)
        return 0

    # -- the block

    def __enter__(self):
        cdef section here = outside()
        cdef FiberCore me = running_fiber("TaskGroup", &here.worker, self)
        if self.entered:
            raise RuntimeError(f"{self!r} has already been entered")
        self.parent = me
        self.scheduler = <Scheduler>me.scheduler
        self.requests_before = me.cancel_requests
        self.pending_before = me.cancel_pending
        self.entered = True
        return self

    def __exit__(self, kind, error, trace):
        try:
            return self.leave(error)
        finally:
            # exceptions and frames must not make cycles through the group
            self.parent = None
            if self.members:
                self.aborting = True
            self.errors = []
            self.base_error = error = trace = None

    cdef object leave(self, object error):
        cdef section here = outside()
        cdef FiberCore me = self.parent
        cdef object cancellation = None
        cdef object thrown = None
        if me is None:
            raise RuntimeError(f"{self!r} has already been left")
        enter(&here.worker, self)
        self.exiting = True
        if error is not None:
            if self.base_error is None and isinstance(error, (KeyboardInterrupt, SystemExit)):
                self.base_error = error
            if isinstance(error, CancelledError):
                cancellation = error
            if not self.aborting:
                self.abort()
        while self.members:
            try:
                if self.scheduler.wait_for(me, NULL, FIBERS, <PyObject *>self, NEVER_NS) == WAIT_WON_CANCEL:
                    self.scheduler.raise_cancel(me)
            except CancelledError as caught:
                if not self.aborting:
                    # from outside
                    cancellation = caught
                    self.abort()
            except Exception as caught:
                # a Deadlock: the members are cancelled, and get one chance to end
                if thrown is not None:
                    raise
                thrown = caught
                self.abort()
        if self.parent_cancel_requested:
            if take_back_cancel(me, self.requests_before, self.pending_before):
                cancellation = None
        if self.base_error is not None:
            if self.base_error is error:
                return False
            raise self.base_error
        if error is not None and not isinstance(error, CancelledError):
            self.errors.append(error)
        if not self.errors:
            if thrown is not None:
                raise thrown
            if cancellation is not None and cancellation is not error:
                raise cancellation
            return False
        if thrown is not None:
            self.errors.append(thrown)
        if me.cancel_requests > self.requests_before:
            # cancelled from outside, too: the failures go first, the cancellation stays to be delivered
            me.uncancel()
            me.cancel()
        raise BaseExceptionGroup("unhandled errors in a TaskGroup", self.errors) from None
