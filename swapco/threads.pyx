"""``to_thread`` and ``blocking``: code that blocks, in fibers that may.

``to_thread(fn)`` is a thread fiber for one call.  It is *optimistic*: the caller lends its slot to an idle worker on
the same CPU, which calls ``fn`` at once and hands the slot straight back: two handoffs of 2 µs where a thread pool
takes two wake-ups across CPUs.  Most calls that are offloaded for safety's sake end within that time.  One that does
block is found out by the detector within two milliseconds, and the other fibers go on; from then on it is an ordinary
thread, and its end wakes the caller through the inbox.

*History.*  For a callable that blocks each time those two milliseconds are lost each time.  So each callable has a
score: up for a call that was detached or took longer than a tick, down for one that did not.  From ``KNOWN`` on its
calls start without the slot.  The score belongs to a *subject*, which outlives one call: the code of a function, so
that closures made anew share it; below a decorator's function (``functools.wraps``) the code of both; of a bound method
its function; of a partial what it wraps; a class, or another callable written in C (``lru_cache``'s, Cython's), itself;
of other objects their class.

What the history does must not change the outcome of a call: it looks at exact types and C fields, asks no object for an
attribute (a proxy has all of them, and answers with a call to its server), and holds subjects weakly.

Rejected: always handing off (a thread pool: 30 times the cost for the calls that do not block); letting the caller say
(it rarely knows; where it does, ``blocking()`` says it).
"""

import functools
import inspect
import weakref

cimport cython

from cpython.object cimport PyObject

from ._core.fiber cimport FiberCore, enter, enter_if_attached, fiber_here, outside, running_fiber, section
from ._core.scheduler cimport Scheduler
from ._core.slot cimport ThreadStack
from ._core.states cimport DETACHED, DONE, RUNNING
from ._loop.task cimport Fiber, new_fiber
from .tasks cimport on_thread

cdef extern from "Python.h":
    bint PyFunction_Check(object o)
    bint PyMethod_Check(object o)
    bint PyType_Check(object o)
    PyObject *PyFunction_GET_CODE(object o)
    PyObject *PyMethod_GET_FUNCTION(object o)

cdef extern from "_core/callables.h":
    PyObject *swapco_wrapped(object function)
    PyObject *swapco_method_descriptor(object callable)
    bint swapco_is_descriptor(object callable)
    bint swapco_can_be_watched(object o)
    bint swapco_called_alike(object one, object other)

cdef enum:
    # the score from which a callable is known to block, and how far it goes
    KNOWN = 2
    HIGHEST = 4
    REMEMBERED = 1024
    # how far wrappers are followed: they may lead in a circle
    DEPTH = 32


class _Called:
    """Of a class that defines ``__call__`` in Python: see ``subject_of``."""

    def __call__(self):
        pass


cdef object _called = _Called()
cdef type _partial = functools.partial


@cython.final
cdef class _Score:
    """Of one callable."""

    # what `subject_of` says of it: a weak reference, but to a descriptor, which has none
    cdef object held
    cdef bint weak
    cdef int score

    cdef object subject(self):
        """None if it is gone: then something else may be at its address."""
        return self.held() if self.weak else self.held


# callables that have blocked: by the address of their subject, for hashing code hashes all of it
cdef dict _scores = {}


cdef object subject_of(object fn, size_t *key):
    """What has a history: what is behind a callable; ``key`` tells it from others."""
    cdef object code
    cdef PyObject *inner
    key[0] = 0
    for _ in range(DEPTH):
        if PyFunction_Check(fn):
            code = <object>PyFunction_GET_CODE(fn)
            inner = swapco_wrapped(fn)
            if inner == NULL:
                fn = code
                break
            key[0] = (key[0] + <size_t><PyObject *>code) * 1000003
            fn = <object>inner
        elif PyMethod_Check(fn):
            fn = <object>PyMethod_GET_FUNCTION(fn)
        elif type(fn) is _partial:
            fn = fn.func
        else:
            inner = swapco_method_descriptor(fn)
            if inner != NULL:
                fn = <object>inner
            elif not PyType_Check(fn) and (
                swapco_called_alike(fn, _called) or not (swapco_can_be_watched(fn) or swapco_is_descriptor(fn))
            ):
                fn = type(fn)
                # not what the class itself has
                key[0] += 1
            break
    key[0] += <size_t><PyObject *>fn
    return fn


cdef _Score score_at(size_t key, object subject):
    """The score of a subject, or None."""
    cdef _Score known = _scores.get(key)
    return known if known is not None and known.subject() is subject else None


cdef int score_of(object fn) except -1:
    cdef size_t key
    cdef object subject
    cdef _Score known
    if not _scores:
        return 0
    subject = subject_of(fn, &key)
    known = score_at(key, subject)
    return 0 if known is None else known.score


cdef int learn(object fn, bint blocked) noexcept:
    """A call of ``fn`` has ended, or its caller has left."""
    cdef size_t key
    cdef object subject
    cdef _Score known
    if not blocked and not _scores:
        return 0
    subject = subject_of(fn, &key)
    known = score_at(key, subject)
    if known is None:
        if not blocked:
            return 0
        known = _Score()
        known.weak = swapco_can_be_watched(subject)
        known.held = weakref.ref(subject) if known.weak else subject
        if len(_scores) >= REMEMBERED:
            make_room()
        _scores[key] = known
    if blocked:
        known.score = min(known.score + 1, HIGHEST)
    else:
        known.score -= 1
        if known.score == 0:
            _scores.pop(key, None)
    return 0


cdef int make_room() except -1:
    """Forget what is gone, or else the oldest."""
    cdef _Score known
    for key, known in list(_scores.items()):
        if known.subject() is None:
            del _scores[key]
    if len(_scores) >= REMEMBERED:
        del _scores[next(iter(_scores))]
    return 0


def known_blockers() -> list:
    """What has blocked in ``to_thread``, as pairs with its score: from 2 on it is handed off at once.

    That is a code object (of functions and methods, also below decorators that use ``functools.wraps``); a function or
    method written in C; a class, for itself or for its instances that can be called.
    """
    cdef _Score known
    found = [(known.subject(), known.score) for known in list(_scores.values())]
    return [(subject, score) for subject, score in found if subject is not None]


def forget_blockers() -> None:
    """Start the history of ``to_thread`` afresh."""
    _scores.clear()


def to_thread(func, /, *args, **kwargs):
    """Call ``func(*args, **kwargs)`` on a kernel thread, where it may block in anything; return its result.

    Blocks the calling fiber until the call ends; others run as soon as it blocks.  The call sees a copy of the
    caller's context variables; its exceptions come out with their traceback.  Inside, it is a fiber: it may use
    swapco's primitives.  A cancelled caller leaves at once, and the call runs on (as in asyncio); what it raises then
    is logged.  Errors: TypeError for something that cannot be called, or a coroutine function; NotInFiber;
    CancelledError; RuntimeError if the process can have no more threads.
    """
    cdef section here = outside()
    cdef FiberCore me = running_fiber("to_thread", &here.worker, None)
    cdef Scheduler s = <Scheduler>me.scheduler
    cdef Fiber call
    cdef ThreadStack stack
    if not callable(func) or inspect.iscoroutinefunction(func):
        raise TypeError(
            f"to_thread() takes a function and its arguments, not {func!r}"
            + (": a coroutine runs on the event loop's thread, await_() it" if callable(func) else "")
        )
    if me.cancel_pending:
        s.raise_cancel(me)
    s.may_wait(me)
    call = new_fiber(s, functools.partial(func, **kwargs) if kwargs else func, args, None, None)
    if s.controlled:
        call.poses_as_thread = True
        s.spawn_fiber(call)
        s.call_fiber(me, call)
        return call.outcome()
    stack = on_thread(s, call)
    stack.is_call = True
    stack.starts_detached = score_of(func) >= KNOWN
    s.spawn_fiber(call)
    try:
        s.call_fiber(me, call)
    finally:
        # one that has not ended has an impatient caller, but may only have waited its turn, or for other fibers
        if stack.blocked or s.is_overdue(call):
            learn(func, True)
        elif call._state == DONE:
            learn(func, False)
    return call.outcome()


cdef class blocking:
    """``with blocking(): ...`` in a thread fiber: give the slot up around code that is known to block.

    The other fibers go on at once, without waiting for the detector.  At the end the fiber waits for its turn.  May be
    nested.  Errors: RuntimeError in an ordinary fiber, whose kernel thread others need: use ``to_thread``; also if it
    is left in another fiber than it was entered in (a generator that was handed on); NotInFiber where there is none.
    """

    # who is inside, and how many times
    cdef FiberCore fiber
    cdef int depth

    def __enter__(self) -> None:
        cdef section here = outside()
        cdef PyObject *p = fiber_here()
        cdef FiberCore me
        cdef ThreadStack stack
        me = running_fiber("blocking", &here.worker, self) if p == NULL else <FiberCore>p
        if not me.threaded and not me.poses_as_thread:
            raise RuntimeError(
                f"blocking() in {me!r}: the other fibers run on its kernel thread, so it must not block; call "
                "to_thread(fn), or spawn(fn, thread=True)"
            )
        if me._state != RUNNING and me._state != DETACHED:
            raise RuntimeError(f"blocking() while {me!r} is being switched: in a policy, an instrument or a finalizer")
        if self.depth and self.fiber is not me:
            raise RuntimeError(f"this blocking() is in use by {self.fiber!r}: make one for each fiber")
        self.fiber = me
        self.depth += 1
        if me.poses_as_thread:
            # nothing in a controlled run blocks but what it controls; others may go first
            me.scheduler.yield_now(me)
            return
        stack = <ThreadStack>me.stack
        stack.blocking += 1
        if stack.blocking > 1:
            return
        enter_if_attached(&here.worker, self)
        # not in a finalizer that was called in the middle of an operation, which needs the slot
        if here.worker != NULL and here.worker.depth == 1:
            # the section ends in there, and not with the function: the slot is somebody else's by then
            here.worker = NULL
            (<Scheduler>me.scheduler).give_up(me)

    def __exit__(self, kind, error, trace) -> None:
        cdef section here = outside()
        cdef PyObject *me = fiber_here()
        cdef ThreadStack stack
        if self.depth == 0 or me != <PyObject *>self.fiber:
            raise RuntimeError("blocking() is left where it was not entered: in another fiber, or in none")
        self.depth -= 1
        if self.depth == 0:
            self.fiber = None
        if (<FiberCore>me).poses_as_thread:
            return
        stack = <ThreadStack>(<FiberCore>me).stack
        stack.blocking -= 1
        if stack.blocking == 0:
            enter(&here.worker, self)
