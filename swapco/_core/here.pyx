"""Who runs in the calling kernel thread, and sections.

A kernel thread is the home worker of a running loop, or the worker of a thread fiber, or neither; two thread-local
pointers say so.  A worker may run a loop of its own inside a thread fiber (``asyncio.run`` in ``to_thread``): then the
loop counts.

Sections.  An operation of a primitive is one scheduler section: it must own the slot from its first look at the state
to its last change.  On the home worker that is so by itself.  A thread fiber *enters*: by one compare-and-swap it says
that it is inside the scheduler, where it cannot be revoked; if it was detached, it waits for its turn first.  It leaves
when the function returns, whichever way, because the section is a C variable with a clean-up (slot_word.h):

    cdef section here = outside()                                  the first statement of the function
    cdef FiberCore me = running_fiber("X", &here.worker, self)     or: enter(&here.worker, self)

Sections nest.  User code (predicates, callbacks) is called outside of them: it may block in the kernel.

Controlled runs.  ``swapco.testing`` may want to see every operation of a primitive, and to let other fibers run before
one that may block.  Then no scheduler is said to run here; instead a worker that is none (``Worker.controller``) takes
the way of the thread fibers.  So the entry of a section is the hook, by the same argument: who enters may have to wait
for the slot, hence has not looked at anything yet.  It costs the ordinary fiber nothing.
"""

from cpython.object cimport PyObject

from .slot cimport Host, Worker, slot_enter, swapco_worker

from .errors import NotInFiber

cdef extern from *:
    """
    /* The scheduler whose loop runs in this kernel thread; borrowed: the running loop holds it. */
    static __thread PyObject *swapco_running __attribute__((tls_model("initial-exec"))) = NULL;
    /* The Worker that this kernel thread is, if it hosts thread fibers; borrowed: its thread holds it. */
    static __thread PyObject *swapco_here __attribute__((tls_model("initial-exec"))) = NULL;
    """
    PyObject *swapco_running
    PyObject *swapco_here


cdef int set_running(Host scheduler) noexcept:
    """The loop of ``scheduler`` runs in this thread from now on; None: no loop does."""
    global swapco_running
    swapco_running = NULL if scheduler is None else <PyObject *>scheduler
    return 0


cdef int host(Worker worker) noexcept:
    """The calling thread is this worker from now on; None: it is no longer one."""
    global swapco_here
    swapco_here = NULL if worker is None else <PyObject *>worker
    return 0


cdef bint loop_runs_here() noexcept:
    """Does a loop with fibers run in this very thread?"""
    return swapco_running != NULL or (swapco_here != NULL and (<Worker>swapco_here).controller is not None)


cdef inline PyObject *_fiber_of(PyObject *worker) noexcept:
    if (<Worker>worker).controller is None:
        return (<Worker>worker).fiber
    return (<Host>(<Worker>worker).scheduler).current


cdef inline bint _is_idle(PyObject *worker) noexcept:
    """It hosts no fiber, and does not hold the slot after one that has ended either (finalizers run then)."""
    return _fiber_of(worker) == NULL and ((<Worker>worker).controller is not None or (<Worker>worker).c.depth == 0)


cdef Host running_host():
    """The scheduler whose fibers this thread runs, or None."""
    if swapco_running != NULL:
        return <Host>swapco_running
    if swapco_here == NULL:
        return None
    if (<Worker>swapco_here).controller is not None or not _is_idle(swapco_here):
        return <Host>(<Worker>swapco_here).scheduler
    return None


cdef PyObject *host_here(swapco_worker **entered) except? NULL:
    """The same, borrowed, and with a section open."""
    entered[0] = NULL
    if swapco_running != NULL:
        return swapco_running
    if swapco_here == NULL or _is_idle(swapco_here):
        return NULL
    if (<Worker>swapco_here).controller is None:
        _enter(<Worker>swapco_here, entered, None, None)
    return (<Worker>swapco_here).scheduler


cdef PyObject *fiber_here() noexcept:
    """The fiber that runs in this thread, with or without the slot; NULL: none (or the hub does)."""
    if swapco_running != NULL:
        return (<Host>swapco_running).current
    return NULL if swapco_here == NULL else _fiber_of(swapco_here)


cdef PyObject *hide_fiber() noexcept:
    """Code that the owner runs from here to ``show_fiber`` is nobody's: a finalizer there must not wait "as" the thread
    fiber in whose section it happens to run.  The other half, ``current``, is up to the scheduler."""
    cdef PyObject *hidden
    if swapco_here == NULL or swapco_running != NULL or (<Worker>swapco_here).controller is not None:
        return NULL
    hidden = (<Worker>swapco_here).fiber
    (<Worker>swapco_here).fiber = NULL
    return hidden


cdef int show_fiber(PyObject *hidden) noexcept:
    # a finalizer may have forked: in the child nobody is a worker
    if hidden != NULL and swapco_here != NULL:
        (<Worker>swapco_here).fiber = hidden
    return 0


cdef int enter(swapco_worker **entered, object primitive) except -1:
    """Open a section, if a thread fiber calls; it waits for the slot first if it is detached."""
    entered[0] = NULL
    if swapco_here == NULL or swapco_running != NULL or _fiber_of(swapco_here) == NULL:
        return 0
    return _enter(<Worker>swapco_here, entered, None, primitive)


cdef int enter_if_attached(swapco_worker **entered, object primitive) except -1:
    """The same, but a detached fiber gets none: it acts like any other foreign thread."""
    cdef swapco_worker *w
    entered[0] = NULL
    if swapco_here == NULL or swapco_running != NULL or _fiber_of(swapco_here) == NULL:
        return 0
    if (<Worker>swapco_here).controller is not None:
        return (<Worker>swapco_here).controller.touch(primitive)
    w = (<Worker>swapco_here).c
    if w.depth == 0 and not slot_enter(w):
        return 0
    w.depth += 1
    entered[0] = w
    return 0


cdef bint in_worker() noexcept:
    """Is this kernel thread one that hosts thread fibers?  It may be the home worker of another loop all the same."""
    return swapco_here != NULL and (<Worker>swapco_here).controller is None


cdef bint enter_if_owner(swapco_worker **entered, Host scheduler) noexcept:
    """Open a section if this thread is a worker of ``scheduler``, and has the slot: with a fiber, or as nobody after
    one that has ended.  It does not wait: False if somebody else has the slot."""
    cdef swapco_worker *w
    entered[0] = NULL
    if not in_worker() or swapco_running != NULL or (<Worker>swapco_here).scheduler != <PyObject *>scheduler:
        return False
    w = (<Worker>swapco_here).c
    if w.depth == 0 and not slot_enter(w):
        return False
    w.depth += 1
    entered[0] = w
    return True


cdef int look(object primitive) except -1:
    """The caller asks ``primitive`` something, and changes nothing; it needs no section.

    None: it asks for what any operation may change, such as who waits.
    """
    if swapco_here != NULL and (<Worker>swapco_here).controller is not None:
        return (<Worker>swapco_here).controller.look(primitive)
    return 0


cdef int _enter(Worker worker, swapco_worker **entered, str operation, object primitive) except -1:
    cdef swapco_worker *w = worker.c
    if worker.controller is not None:
        if operation is None:
            return worker.controller.touch(primitive)
        return worker.controller.before(operation, primitive)
    if w.depth == 0 and not slot_enter(w):
        (<Host>worker.scheduler).reattach(worker)
    w.depth += 1
    entered[0] = w
    return 0


cdef PyObject *running(str caller, swapco_worker **entered, object primitive) except NULL:
    """The fiber that runs now, for a function that is about to block it; NotInFiber if there is none.

    ``primitive`` is what it waits for, or changes (None: nothing that others could name).  The result is borrowed: it
    lives as long as it runs, and a switch cannot afford to count it twice."""
    cdef PyObject *d = swapco_running
    entered[0] = NULL
    if d != NULL and (<Host>d).current != NULL:
        return (<Host>d).current
    if d == NULL and swapco_here != NULL and _fiber_of(swapco_here) != NULL:
        _enter(<Worker>swapco_here, entered, caller, primitive)
        return _fiber_of(swapco_here)
    if loop_runs_here():
        raise NotInFiber(
            f"{caller}() would block the event loop: it was called from a loop callback, an asyncio task or a "
            "finalizer, not from a fiber. Run the code in swapco.spawn(fn), or await the fiber that it returns"
        )
    if swapco_here != NULL and not _is_idle(swapco_here):
        raise NotInFiber(
            f"{caller}() needs a fiber to block, and was called where one has just ended: in a finalizer (__del__ or a "
            "weakref callback), or in an observer. Have it spawn() what must wait, or hand it to a queue with "
            "put_nowait()"
        )
    if swapco_here != NULL:
        raise NotInFiber(
            f"{caller}() needs a fiber to block: the one of this thread has ended, and its event loop is closed"
        )
    raise NotInFiber(
        f"{caller}() needs a fiber to block, and no swapco loop runs in this thread. "
        "Call it from a function that was started by swapco.run(main) or swapco.spawn(fn)"
    )
