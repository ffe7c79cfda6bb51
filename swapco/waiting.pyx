"""Waiting for many: ``gather``, ``wait``, ``as_completed``; for one, differently: ``wait_for``, ``shield``.

Each takes *things to wait for*: fibers, awaitables (futures, tasks, coroutines, anything with ``__await__``)
and functions without arguments, mixed.  What does not run yet is spawned, but only once every argument is
known to be good, so that an error leaves nothing behind.  The commonest mistake is a call in place of a
function, ``gather(f(x))``: it ran already, and what is left of it is its result; the TypeError shows the
rewrite.

How it waits: one ``Watcher`` is told by each dying fiber, directly, and wakes the caller when it has heard
enough.  Waiting for n fibers costs n notes and one switch.  (A wait on each fiber's joiners in turn would
need no watcher, but would hear of the third fiber's failure only after the first two ended; done callbacks would
go through the event loop, one handle each.)  asyncio's futures tell by a done callback; only while some of
the things are such futures does the wait count as one that ends from outside, so that a deadlock among fibers
is still found.

The rules are those of asyncio's functions of the same names.  Where there is no ``await`` to tell them apart:
all of them block the calling fiber, except the call of ``as_completed``, which makes an iterator that does.
"""

import inspect
from asyncio import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from collections import deque

from cpython.object cimport PyObject

from ._core.clock cimport NEVER_NS, deadline_after
from ._core.reasons cimport AWAIT, FIBERS, JOIN
from ._core.fiber cimport Dispatcher, FiberCore, WaitQueue, Watcher, outside, running_fiber, section
from ._core.scheduler cimport Scheduler
from ._core.states cimport DONE
from ._core.wait cimport WAIT_WON_CANCEL, WAIT_WON_WAKE
from ._loop.awaiting cimport AwaitingFiber
from ._loop.task cimport new_fiber

from ._core.errors import CancelledError
from ._loop.awaiting import await_
from ._loop.compat import isfuture
from .timeouts import timeout as _timeout

cdef extern from "Python.h":
    bint PyCoro_CheckExact(object o)
    bint PyFunction_Check(object o)


# ------------------------------------------------------------------------------- things to wait for

cdef enum Kind:
    WRONG
    FIBER
    FUTURE
    COROUTINE
    AWAITABLE
    FUNCTION


cdef Kind kind_of(object thing) except *:
    if isinstance(thing, FiberCore):
        return FIBER
    if PyFunction_Check(thing):
        return FUNCTION
    if PyCoro_CheckExact(thing):
        return COROUTINE
    if callable(thing) and not hasattr(type(thing), "__await__"):
        return FUNCTION
    if isfuture(thing):
        return FUTURE
    if inspect.isawaitable(thing):
        # also the generator-based coroutines of types.coroutine
        return AWAITABLE
    return WRONG


cdef int check(FiberCore me, object thing, Kind kind, str caller) except -1:
    """Raise if the fiber ``me`` cannot wait for ``thing``."""
    if kind == FIBER:
        if thing is me:
            raise RuntimeError(f"{caller}(): {me!r} cannot wait for itself: it would wait for ever")
        if (<FiberCore>thing).scheduler is not me.scheduler:
            raise ValueError(f"{caller}(): {thing!r} belongs to another event loop")
    elif kind == FUTURE:
        if thing.get_loop() is not (<AwaitingFiber>me).event_loop():
            raise ValueError(f"{caller}(): {thing!r} belongs to another event loop")
    elif kind == WRONG:
        raise TypeError(
            f"{caller}() waits for fibers, awaitables and functions without arguments, not {thing!r}. "
            f"If that is the result of a call, the call ran before {caller}() did: "
            f"write {caller}(partial(f, x)) or {caller}(spawn(f, x)), not {caller}(f(x))"
        )
    return 0


cdef int close_coroutines(object things) except -1:
    """They will not run: without this each would warn that it was never awaited."""
    for thing in things:
        if PyCoro_CheckExact(thing):
            thing.close()
    return 0


cdef FiberCore start(FiberCore me, object thing, Kind kind):
    """Spawn what does not run yet."""
    cdef FiberCore f
    if kind == AWAITABLE:
        f = new_fiber(<Scheduler>me.scheduler, await_, (thing,), None, None)
    else:
        f = new_fiber(<Scheduler>me.scheduler, thing, (), None, None)
    (<Scheduler>me.scheduler).spawn_fiber(f)
    return f


cdef list running_things(FiberCore me, list things, str caller):
    """Fibers and futures for ``things``, in order: all checked, then spawned.

    One awaitable given twice is awaited once; a function given twice is called twice.
    """
    cdef Kind kind
    cdef Py_ssize_t i
    cdef list kinds = []
    cdef list found = []
    cdef dict started = None
    for thing in things:
        kind = kind_of(thing)
        check(me, thing, kind, caller)
        kinds.append(<int>kind)
    for i, thing in enumerate(things):
        kind = <Kind><int>kinds[i]
        if kind == FIBER or kind == FUTURE:
            found.append(thing)
        elif kind == FUNCTION:
            found.append(start(me, thing, kind))
        else:
            if started is None:
                started = {}
            fiber = started.get(id(thing))
            if fiber is None:
                fiber = started[id(thing)] = start(me, thing, kind)
            found.append(fiber)
    return found


cdef list collection(object fs, str caller):
    """A list of what ``wait`` and ``as_completed`` were given."""
    if isinstance(fs, FiberCore) or isfuture(fs) or inspect.isawaitable(fs) or callable(fs):
        raise TypeError(f"{caller}() takes a collection, not {fs!r}: write {caller}([x])")
    return list(fs)


cdef bint is_done(object thing) except -1:
    if isinstance(thing, FiberCore):
        return (<FiberCore>thing)._state == DONE
    return thing.done()


cdef object error_of(object thing):
    """What a thing that is done raised, also if it was cancelled, or None.  Counts as retrieved."""
    if isinstance(thing, FiberCore):
        (<FiberCore>thing).result_retrieved = True
        return (<FiberCore>thing).exception_value
    if thing.cancelled():
        try:
            thing.result()
        except CancelledError as error:
            return error
    return thing.exception()


# ------------------------------------------------------------------------------- waiting for several

cdef class _Several(Watcher):
    """Waits until enough of several things are done; what is enough, subclasses say in ``thing_done``."""

    cdef Dispatcher scheduler
    # who waits; None once it does not wait any more
    cdef FiberCore waiter
    cdef str caller
    cdef list things
    # how many are not done
    cdef Py_ssize_t pending
    cdef bint external
    cdef bint enough

    def __repr__(self) -> str:
        rest = [getattr(thing, "name", None) or repr(thing) for thing in self.things if not is_done(thing)]
        more = ", ..." if len(rest) > 5 else ""
        return f"{self.caller}(): {len(rest)} of {len(self.things)} not done: {', '.join(rest[:5])}{more}"

    cdef int thing_done(self, object thing) except -1:
        """One more is done: set ``enough`` if the wait is over."""
        self.enough = self.pending == 0
        return 0

    cdef int fiber_done(self, FiberCore f) except -1:
        self.pending -= 1
        self.thing_done(f)
        if self.enough and self.waiter is not None:
            self.scheduler.wake(self.waiter, None)
        return 0

    def __call__(self, future):
        """The done callback of a future."""
        self.pending -= 1
        self.thing_done(future)
        if self.enough and self.waiter is not None:
            self.scheduler.wake(self.waiter, None)

    cdef int watch_all(self, FiberCore me, list things, str caller) except -1:
        """Ask every thing to tell; those that are done are told of now, in order."""
        if me.threaded:
            for thing in things:
                if not isinstance(thing, FiberCore) and not is_done(thing):
                    raise RuntimeError(
                        f"{caller}(): {thing!r} belongs to the event loop's thread, and a thread fiber calls: wait for "
                        "fibers here, or for the future with await_()"
                    )
        self.scheduler = me.scheduler
        self.waiter = me
        self.things = things
        self.caller = caller
        self.pending = len(things)
        self.enough = self.pending == 0
        for thing in things:
            if is_done(thing):
                self.pending -= 1
                self.thing_done(thing)
            elif isinstance(thing, FiberCore):
                (<FiberCore>thing).watch(self)
            else:
                self.external = True
                thing.add_done_callback(self)
        return 0

    cdef int unwatch_all(self) except -1:
        """The wait is over: nobody needs to tell any more."""
        self.waiter = None
        if self.pending:
            for thing in self.things:
                if isinstance(thing, FiberCore):
                    (<FiberCore>thing).unwatch(self)
                elif not thing.done():
                    thing.remove_done_callback(self)
        return 0

    cdef bint suspend(self, long long deadline_ns) except -1:
        """Wait once: False if the deadline was over first.  Raises CancelledError."""
        cdef FiberCore me = self.waiter
        cdef int winner = self.scheduler.wait_for(
            me, NULL, AWAIT if self.external else FIBERS, <PyObject *>self, deadline_ns
        )
        if winner == WAIT_WON_CANCEL:
            self.scheduler.raise_cancel(me)
        return winner == WAIT_WON_WAKE


cdef class _Gather(_Several):
    cdef bint return_exceptions
    # the caller is cancelled: all of them are, and all are waited for
    cdef bint cancelled
    # the first that raised; once cancelled, the first that raised anything else
    cdef object failed

    cdef int thing_done(self, object thing) except -1:
        # counts as retrieved, as with asyncio: nobody asks for those after the first, or if a cancellation comes out
        cdef object error = error_of(thing)
        if error is not None and self.failed is None and self.waiter is not None and not self.return_exceptions:
            if not self.cancelled or not isinstance(error, CancelledError):
                self.failed = thing
        self.enough = self.pending == 0 or self.failed is not None and not self.cancelled
        return 0

    cdef int cancel_all(self, object message) except -1:
        self.cancelled = True
        for thing in self.things:
            if isinstance(thing, FiberCore):
                if (<FiberCore>thing)._state != DONE:
                    (<FiberCore>thing).request_cancel(message)
            elif not thing.done():
                thing.cancel(message)
        return 0


cdef class _Wait(_Several):
    cdef bint first
    cdef bint first_exception

    cdef int thing_done(self, object thing) except -1:
        if self.pending == 0 or self.first:
            self.enough = True
        elif self.first_exception and not self.enough:
            if isinstance(thing, FiberCore):
                error = (<FiberCore>thing).exception_value
                self.enough = error is not None and not isinstance(error, CancelledError)
            else:
                self.enough = not thing.cancelled() and thing.exception() is not None
        return 0


def gather(*coros_or_futures, return_exceptions=False) -> list:
    """Block until everything is done; return the results in the order of the arguments.

    Takes fibers, awaitables and functions without arguments; what does not run yet is spawned.  The first
    exception is raised at once, and the others run on; with ``return_exceptions`` exceptions are returned in
    the place of results instead.  Cancelling the caller cancels everything that is not done, and waits for
    it.  Errors: TypeError for anything else (with nothing spawned); ValueError for another event loop's;
    NotInFiber.
    """
    cdef section here = outside()
    cdef FiberCore me
    cdef _Gather all_of_them
    cdef list results
    cdef object cancellation = None
    try:
        me = running_fiber("gather", &here.worker, None)
        things = running_things(me, list(coros_or_futures), "gather")
    except BaseException:
        close_coroutines(coros_or_futures)
        raise
    all_of_them = _Gather.__new__(_Gather)
    all_of_them.return_exceptions = return_exceptions
    all_of_them.watch_all(me, things, "gather")
    try:
        while not all_of_them.enough:
            try:
                all_of_them.suspend(NEVER_NS)
            except CancelledError as caught:
                cancellation = caught
            if cancellation is not None and not all_of_them.enough:
                all_of_them.cancel_all(cancellation.args[0] if cancellation.args else None)
        if all_of_them.failed is not None:
            error = error_of(all_of_them.failed)
            raise error
        if cancellation is not None:
            raise cancellation
        results = []
        for thing in things:
            error = error_of(thing)
            results.append(thing.result() if error is None else error)
        return results
    finally:
        # the rest still tells, so that its exceptions count as retrieved
        all_of_them.waiter = None
        all_of_them.failed = cancellation = error = None


def wait(fs, *, timeout=None, return_when=ALL_COMPLETED):
    """Wait until enough of ``fs`` is done; return ``(done, pending)``, two sets.  Blocks the calling fiber.

    ``fs`` is a collection of fibers, awaitables and functions without arguments; the sets hold fibers and
    futures.  ``return_when`` is ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION.  ``timeout`` is in
    seconds; when it is over, what is not done is in ``pending``: nothing is raised, and nothing is ever cancelled.
    Errors: ValueError for an empty collection, NaN, another ``return_when`` and another event loop's fibers;
    TypeError for anything that cannot be waited for; CancelledError; NotInFiber.
    """
    cdef section here = outside()
    cdef FiberCore me
    cdef _Wait watcher
    cdef long long deadline_ns
    cdef list given = collection(fs, "wait")
    try:
        if not given:
            raise ValueError("wait() needs at least one thing to wait for")
        if return_when not in (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION):
            raise ValueError(
                f"return_when is ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION, not {return_when!r}"
            )
        me = running_fiber("wait", &here.worker, None)
        deadline_ns = deadline_after(me.scheduler.clock, timeout)
        things = list(dict.fromkeys(running_things(me, given, "wait")))
    except BaseException:
        close_coroutines(given)
        raise
    watcher = _Wait.__new__(_Wait)
    watcher.first = return_when == FIRST_COMPLETED
    watcher.first_exception = return_when == FIRST_EXCEPTION
    watcher.watch_all(me, things, "wait")
    try:
        while not watcher.enough:
            if not watcher.suspend(deadline_ns):
                break
    finally:
        watcher.unwatch_all()
    done, pending = set(), set()
    for thing in things:
        (done if is_done(thing) else pending).add(thing)
    return done, pending


cdef class _AsCompleted(_Several):
    """The iterator of ``as_completed``."""

    cdef object finished
    cdef long long deadline_ns
    # fibers in __next__
    cdef WaitQueue waiting

    cdef int thing_done(self, object thing) except -1:
        if not self.scheduler.wake_first(&self.waiting, thing):
            self.finished.append(thing)
        if self.pending == 0:
            self.scheduler.wake_all(&self.waiting, self)
        return 0

    def __iter__(self):
        return self

    def __next__(self):
        cdef section here = outside()
        cdef FiberCore me
        # before it looks: until a thread fiber has its slot, one more may end, and tell nobody
        me = running_fiber("as_completed", &here.worker, self)
        if self.finished:
            return self.finished.popleft()
        if self.pending == 0:
            raise StopIteration
        if me.scheduler is not self.scheduler:
            raise RuntimeError("this as_completed() iterator belongs to another event loop")
        try:
            thing = self.scheduler.park(
                me, &self.waiting, AWAIT if self.external else FIBERS, <PyObject *>self, self.deadline_ns
            )
        except TimeoutError:
            raise TimeoutError(f"timed out: {self!r}") from None
        if thing is self:
            raise StopIteration
        return thing


def as_completed(fs, *, timeout=None):
    """An iterator over ``fs`` in the order of completion: yields fibers and futures that are done.

    ``for done in as_completed([...]): use(done.result())``.  ``fs`` is as for ``wait``.  The call does not
    block, taking the next one from the iterator does; once ``timeout`` seconds have passed since the call,
    that raises TimeoutError.  Nothing is cancelled.  Errors: as for ``wait``; an empty collection is an empty
    iterator.
    """
    cdef section here = outside()
    cdef FiberCore me
    cdef _AsCompleted iterator
    cdef list given = collection(fs, "as_completed")
    try:
        me = running_fiber("as_completed", &here.worker, None)
        iterator = _AsCompleted.__new__(_AsCompleted)
        iterator.deadline_ns = deadline_after(me.scheduler.clock, timeout)
        things = list(dict.fromkeys(running_things(me, given, "as_completed")))
    except BaseException:
        close_coroutines(given)
        raise
    iterator.finished = deque()
    iterator.watch_all(me, things, "as_completed")
    iterator.waiter = None
    return iterator


# ---------------------------------------------------------------------------------- waiting for one

cdef object outcome_of(FiberCore me, FiberCore f):
    """What ``await task`` is in asyncio: a cancellation of the caller goes to the fiber, whose outcome comes
    out.  If that is a result all the same, the cancellation stays pending: neither is lost."""
    cdef bint cancelled = False
    cdef object message = None
    while f._state != DONE:
        try:
            me.scheduler.park(me, &f.joiners, JOIN, <PyObject *>f, NEVER_NS)
        except CancelledError as caught:
            cancelled = True
            message = caught.args[0] if caught.args else None
        if cancelled and f._state != DONE:
            f.request_cancel(message)
    if cancelled and f.exception_value is None:
        me.cancel_pending = True
        me.cancel_message = message
    return f.outcome()


cdef int _check_wait_for(object fut, Kind kind) except -1:
    cdef section here = outside()
    check(running_fiber("wait_for", &here.worker, None), fut, kind, "wait_for")
    return 0


cdef object _outcome_in_section(FiberCore f):
    cdef section here = outside()
    return outcome_of(running_fiber("wait_for", &here.worker, None), f)


def wait_for(fut, timeout):
    """Block for the result of ``fut``, or raise TimeoutError after ``timeout`` seconds (None: never).

    ``fut`` is a fiber, an awaitable or a function without arguments; a function or a coroutine runs in the
    calling fiber.  When the time is over, it is cancelled, and ``wait_for`` waits until it has ended:
    TimeoutError is raised if it ended by the cancellation, else its result or exception comes out.  With a
    ``timeout`` of 0 or less what does not run yet is not started.  Cancelling the caller cancels it, too.
    Errors: TypeError for anything else; ValueError for NaN and for another event loop's; NotInFiber.
    """
    cdef Kind kind = kind_of(fut)
    try:
        _check_wait_for(fut, kind)
        limit = _timeout(timeout)
        if kind >= COROUTINE and timeout is not None and timeout <= 0:
            raise TimeoutError("wait_for(): no time was left to start it")
    except BaseException:
        close_coroutines((fut,))
        raise
    with limit:
        if kind == FIBER:
            return _outcome_in_section(fut)
        if kind == FUNCTION:
            result = fut()
            return await_(result) if PyCoro_CheckExact(result) else result
        return await_(fut)


def shield(arg):
    """The result of ``arg``, which runs on if the caller is cancelled.  Blocks the calling fiber.

    ``arg`` is a fiber, an awaitable or a function without arguments; what does not run yet is spawned.  A
    cancellation of the caller raises CancelledError in the caller only.  For a fiber it is ``arg.join()``.
    Errors: what ``arg`` raises; those of ``gather``.
    """
    cdef section here = outside()
    cdef FiberCore me
    cdef _Wait watcher
    try:
        me = running_fiber("shield", &here.worker, None)
        thing = running_things(me, [arg], "shield")[0]
    except BaseException:
        close_coroutines((arg,))
        raise
    if isinstance(thing, FiberCore):
        return thing.join()
    watcher = _Wait.__new__(_Wait)
    watcher.watch_all(me, [thing], "shield")
    try:
        while not watcher.enough:
            watcher.suspend(NEVER_NS)
    finally:
        watcher.unwatch_all()
    return thing.result()
