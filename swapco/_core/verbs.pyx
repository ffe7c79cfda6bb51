"""The three verbs, as programs call them: ``block``, ``resume``, ``switch_to``.

What they do is in fiber.pyx, their laws are in docs/semantics.md.
"""

from cpython.object cimport PyObject

from .fiber cimport FiberCore, deadline_of
from .here cimport enter_if_attached, outside, running, section
from .reasons cimport BLOCK


def block(timeout=None):
    """Park the calling fiber until it is resumed; return the value that the resume gave.

    A resume that came first left a token: block takes it and returns at once, without a switch.  ``timeout``
    is in seconds (None: for ever); when it is over, TimeoutError is raised.  Other errors: CancelledError;
    NotInFiber; ValueError for NaN.
    """
    cdef section here = outside()
    cdef PyObject *me = running("block", &here.worker, None)
    return (<FiberCore>me).scheduler.block_fiber(
        <FiberCore>me, deadline_of(<FiberCore>me, timeout), BLOCK
    )


def resume(FiberCore fiber not None, value=None) -> bool:
    """Make a fiber that is parked in ``block`` or ``switch_to`` runnable, or leave it a token.

    True: the fiber was woken, or got a token that its next ``block`` returns.  False, and nothing changed: it
    has a token already, it was resumed and has not run yet, or it is done.  A fiber that waits inside a
    primitive is not disturbed: it gets a token.  From any thread; never blocks.
    """
    cdef section here = outside()
    enter_if_attached(&here.worker, fiber)
    return fiber.scheduler.resume_fiber(fiber, value)


def switch_to(FiberCore fiber not None, value=None, timeout=None):
    """Hand the slot straight to ``fiber`` and block: resume(fiber, value) and block(timeout) in one step.

    The target runs next, before any other fiber.  Returns what the resume of the caller gives.  A caller that
    holds a token goes on at once, and the target moves to the head of the run queue.  Errors:
    InvalidStateError if the target is done; TimeoutError, CancelledError, NotInFiber as for ``block``;
    RuntimeError for a fiber of another loop.

    The primitive is what the FUTEX_SWAP patches of 2020 proposed for threads.
    """
    cdef section here = outside()
    cdef PyObject *me = running("switch_to", &here.worker, fiber)
    if fiber.scheduler is not (<FiberCore>me).scheduler:
        raise RuntimeError(f"switch_to({fiber!r}): it belongs to another event loop")
    return (<FiberCore>me).scheduler.switch_fiber(
        <FiberCore>me, fiber, value, deadline_of(<FiberCore>me, timeout)
    )
