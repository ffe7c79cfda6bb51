"""Spawning fibers, sleeping, and looking at who is there.

``spawn`` only registers and queues a fiber; it runs when the spawner blocks.  ``sleep`` is compiled because
``sleep(0)`` is the commonest switch of all.
"""

import inspect
import sys
import traceback


from cpython.object cimport PyObject

from ._core.clock cimport deadline_after, duration_ns
from ._core.reasons cimport SLEEP
from ._core.fiber cimport FiberCore, fiber_here, outside, running_fiber, section
from ._core.here cimport host_here, look
from ._core.scheduler cimport Scheduler, running_scheduler
from ._core.slot cimport ThreadStack
from ._core.wait cimport WAIT_WON_CANCEL
from ._loop.loop cimport scheduler_of
from ._loop.task cimport Fiber, new_fiber

from ._loop.compat import get_running_loop

cdef extern from "Python.h":
    bint PyCoro_CheckExact(object o)


cdef Scheduler _scheduler_here(str caller):
    """The scheduler of the loop that runs in this thread, made if the loop has none yet."""
    cdef Scheduler s = running_scheduler()
    if s is not None:
        return s
    loop = get_running_loop()
    if loop is None:
        raise RuntimeError(
            f"{caller}() needs a running event loop in this thread: call it from swapco.run(main), "
            "or hand the call to a loop of another thread with loop.call_soon_threadsafe(spawn, fn)"
        )
    return scheduler_of(loop)


def spawn(fn, *args, name=None, context=None, thread=False, priority=0, deadline=None) -> Fiber:
    """Start a fiber that calls ``fn(*args)``; returns at once, the fiber runs when the caller blocks.

    ``fn`` is a function, an ``async def`` function or a coroutine object.  ``name`` is for reports; ``context``
    is a contextvars context to run in (a copy of the caller's unless given); ``priority`` and ``deadline`` (loop
    time, seconds) are read by the policies of these names.  With ``thread``, a plain function runs on a kernel thread
    of its own: it takes its turns with the other fibers, may use every primitive, and may block in anything (see
    docs/threads.md).  Does not block.  Errors: TypeError for something
    that cannot be called, usually the result of a call: write ``spawn(f, x)``, not ``spawn(f(x))``;
    RuntimeError where no event loop runs.
    """
    cdef section here = outside()
    cdef PyObject *found
    cdef Scheduler s
    cdef Fiber f
    try:
        if thread:
            _check_threadable(fn)
        found = host_here(&here.worker)
        s = <Scheduler>found if found != NULL else _scheduler_here("spawn")
        if PyCoro_CheckExact(fn) and args:
            raise TypeError("a coroutine object takes no arguments: write spawn(f, x) or spawn(f(x)) for async def f")
        f = new_fiber(s, fn, args, name, context)
    except BaseException:
        if PyCoro_CheckExact(fn):
            fn.close()
        raise
    if priority is not _ZERO:
        f.priority = priority
    if deadline is not None:
        f.deadline = deadline
    if thread and s.controlled:
        f.poses_as_thread = True
    elif thread:
        on_thread(s, f)
    s.spawn_fiber(f)
    return f


cdef ThreadStack on_thread(Scheduler s, FiberCore f):
    """Make a NEW fiber one with a kernel thread of its own."""
    cdef PyObject *spawner = fiber_here()
    cdef ThreadStack stack = s.new_thread_stack()
    # what is spawned for clean-up must not wait for what it is to clean up
    stack.may_use_reserve = spawner != NULL and (
        (<FiberCore>spawner).cancel_requests > 0 or _cleans_up(<FiberCore>spawner)
    )
    f.stack = stack
    f.threaded = True
    return stack


cdef bint _cleans_up(FiberCore f):
    """Is it a call that a fiber made which was being cancelled?"""
    return f.threaded and (<ThreadStack>f.stack).is_call and (<ThreadStack>f.stack).may_use_reserve


def _check_threadable(fn) -> None:
    """TypeError for what runs on the event loop's thread only."""
    if PyCoro_CheckExact(fn) or inspect.iscoroutinefunction(fn):
        raise TypeError(
            f"thread=True takes a plain function, not {fn!r}: a coroutine runs on the event loop's thread, where it "
            "must not block; call await_() in a function, or spawn it without thread=True"
        )


def create_task(coro, *, name=None, context=None) -> Fiber:
    """``spawn`` for a coroutine object, with the signature of asyncio's ``create_task``."""
    if not PyCoro_CheckExact(coro):
        raise TypeError(f"create_task() takes a coroutine object, not {coro!r}; for a function write spawn(fn, x)")
    return spawn(coro, name=name, context=context)


def sleep(delay, result=None):
    """Block the calling fiber for ``delay`` seconds; return ``result``.

    ``sleep(0)``, or a negative delay, lets every other runnable fiber and every waiting loop callback go first.
    Errors: CancelledError, NotInFiber, ValueError for NaN.
    """
    cdef section here = outside()
    cdef FiberCore me = running_fiber("sleep", &here.worker, None)
    cdef long long deadline
    if delay is _ZERO or duration_ns(delay) == 0:
        me.scheduler.yield_now(me)
        return result
    deadline = deadline_after(me.scheduler.clock, delay)
    if me.scheduler.wait_for(me, NULL, SLEEP, NULL, deadline) == WAIT_WON_CANCEL:
        me.scheduler.raise_cancel(me)
    return result


cdef object _ZERO = 0


def current_fiber() -> Fiber:
    """The fiber that calls this.  NotInFiber in a loop callback, an asyncio task, or outside ``run``."""
    cdef section here = outside()
    cdef PyObject *f = fiber_here()
    # without a section: also in a detached fiber
    return running_fiber("current_fiber", &here.worker, None) if f == NULL else <FiberCore>f


def all_fibers(loop=None) -> set:
    """Every fiber of ``loop`` (the running one unless given) that is not done.  Does not block."""
    cdef Scheduler s
    look(None)
    if loop is None:
        s = running_scheduler()
        if s is None:
            if get_running_loop() is None:
                raise RuntimeError("all_fibers() needs a running event loop: call it from swapco.run(main)")
            return set()
    else:
        s = scheduler_of(loop)
    return set(s.fibers())


def dump_fibers(file=None) -> None:
    """Print every live fiber: its state, what it waits for, its stack.  Does not block.

    ``file`` is where to (standard error unless given).  The answer to "why does nothing happen?".
    """
    cdef FiberCore f
    out = sys.stderr if file is None else file
    fibers = sorted(all_fibers(), key=lambda fiber: fiber.name)
    print(f"{len(fibers)} fibers:", file=out)
    for f in fibers:
        print(f"\n{f!r}", file=out)
        frame = sys._getframe() if <PyObject *>f == f.scheduler.current else f.frame
        if frame is not None:
            print("".join(traceback.format_stack(frame)), file=out, end="")
