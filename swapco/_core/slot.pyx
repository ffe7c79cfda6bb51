"""The slot: the right to run fibers, and the inbox through which everybody else reaches them.

At most one worker (kernel thread) of a slot runs fibers at a time.  *The slot is the lock*: whoever owns it
may touch the scheduler, nobody else may, so the scheduler has no locks.  Today a slot has one worker, the
*home worker* that runs the event loop, and it owns the slot for ever; the thread that last ran the loop stays
the owner while the loop is stopped.

What comes from outside (a resume or a cancellation from another thread) wins the fiber's wait record or
marks the fiber, and posts it to the inbox: a linked list through the fibers themselves, first in first out,
each fiber at most once.  The owner drains the inbox before it takes a fiber from the run queue and before it
pushes one, so that a fiber woken from outside runs in the order of its wake-up.

Notification.  Posting must wake a hub that sleeps in the kernel, and should cost nothing while it does not:

    poster: post; if hub_idle and not noted: noted = True, wake the loop
    home:   woken: noted = False, *then* drain the inbox
            before it sleeps: hub_idle = True, *then* look at the inbox once more

Cleared before the drain, ``noted`` can only cause a needless wake-up; set before the last look, ``hub_idle``
can only cause a needless notification.  The other orders lose wake-ups; tests/model checks all of them.

The links are guarded by the GIL: every poster holds it, and nothing between two of the stores releases it.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF

import threading

cdef extern from *:
    """
    /* What threading.get_ident returns, without the call around it. */
    #include <pthread.h>
    static inline unsigned long swapco_thread_ident(void) { return (unsigned long)pthread_self(); }
    """
    unsigned long swapco_thread_ident() noexcept


cdef class Postable(Runnable):
    """What can be posted to an inbox: the base of a fiber."""


cdef class Worker:
    """A kernel thread that hosts fibers."""

    def __cinit__(self, *args, **kwargs):
        self.ident = swapco_thread_ident()
        self.native_id = threading.get_native_id()
        self.home = True

    def __repr__(self) -> str:
        return f"<Worker {'home ' if self.home else ''}thread {self.native_id}>"


cdef class Slot:
    """The right to run: one per scheduler."""

    def __cinit__(self, *args, **kwargs):
        self.hub_idle = True

    def __dealloc__(self):
        cdef PyObject *at = self.inbox_head
        cdef PyObject *following
        while at != NULL:
            following = (<Postable>at).post_next
            Py_DECREF(<Postable>at)
            at = following

    @property
    def workers(self) -> tuple:
        """The kernel threads that host this slot's fibers; the home worker first."""
        return () if self.home is None else (self.home,)

    @property
    def owner(self):
        """The worker that may run fibers now."""
        return self.home

    cdef int bind_home(self) except -1:
        """The calling thread is the home worker from now on."""
        if self.home is None or self.home.ident != swapco_thread_ident():
            self.home = Worker()
            self.owner_ident = self.home.ident
        return 0

    cdef bint owned(self) noexcept:
        """Does the calling thread own the slot?"""
        return self.owner_ident == swapco_thread_ident()

    cdef int post(self, Postable item) except -1:
        """Hand an item to the owner, from any thread."""
        if not item.posted:
            item.posted = True
            item.post_next = NULL
            Py_INCREF(item)
            if self.inbox_tail != NULL:
                (<Postable>self.inbox_tail).post_next = <PyObject *>item
            else:
                self.inbox_head = <PyObject *>item
            self.inbox_tail = <PyObject *>item
        if self.hub_idle and not self.noted:
            self.noted = True
            self.hub.notify()
        return 0

    cdef Postable take_posted(self):
        """The oldest item of the inbox, by the owner; None when it is empty."""
        cdef Postable item
        if self.inbox_head == NULL:
            return None
        item = <Postable>self.inbox_head
        self.inbox_head = item.post_next
        if self.inbox_head == NULL:
            self.inbox_tail = NULL
        item.posted = False
        Py_DECREF(item)
        return item
