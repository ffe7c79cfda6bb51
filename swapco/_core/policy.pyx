"""Policies: which runnable fiber runs next.

A policy is a container with four operations: ``push``, ``pop``, ``remove``, ``len``.  The scheduler pushes a
fiber when it becomes runnable and pops one when the slot is free; ``remove`` serves ``switch_to``, which
takes a fiber out of turn.  A policy never decides *whether* a fiber runs, and it never wakes one.

``Fifo`` is the default and the one that the laws of fairness are stated for: an intrusive doubly linked
list, no allocation, no hashing.  ``Lifo`` is the same list taken from the other end.  ``Priority`` and
``Deadline`` are heaps with first-in-first-out among equals.

To write one in Python, derive from ``Policy`` and define the four methods.  The base class's C entry
points call them; the built-in policies override the C entry points and are never called through Python.

Invariants: a runnable is in at most one queue; ``len`` counts exactly what ``pop`` will return.  The C entry
points borrow: the scheduler holds every live fiber, and counting references to whoever runs next was a tenth of a
switch.  The methods for Python hold what they were given.
"""

from cpython.object cimport PyObject

import heapq
import math
import numbers


cdef class Runnable:
    """What a policy orders: the base of a fiber."""

    def __cinit__(self):
        self.priority = 0
        self.deadline = None


cdef class Policy:
    """The interface; derive from it to write a policy in Python.

    ``push(fiber)`` adds a runnable fiber; ``pop()`` removes and returns the next one, or None when there
    is none; ``remove(fiber)`` takes out one that was pushed; ``len(policy)`` counts them.  All are called
    by the owner of the slot only, and must neither block nor raise.
    """

    def push(self, fiber) -> None:
        """Add a runnable fiber."""
        raise TypeError(f"{type(self).__name__} must define push(fiber)")

    def pop(self):
        """Remove and return the fiber that runs next, or None."""
        raise TypeError(f"{type(self).__name__} must define pop()")

    def remove(self, fiber) -> None:
        """Take out a fiber that was pushed: it runs out of turn."""
        raise TypeError(f"{type(self).__name__} must define remove(fiber)")

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} must define __len__()")

    cdef int check(self, Runnable f) except -1:
        """Raise if a new fiber cannot be ordered: in its spawner, while there is one to blame."""
        return 0

    cdef int push_runnable(self, Runnable f) except -1:
        f.queued = True
        self.push(f)
        return 0

    cdef PyObject *pop_runnable(self) except? NULL:
        cdef object f = self.pop()
        if f is None:
            return NULL
        if not isinstance(f, Runnable) or not (<Runnable>f).queued:
            raise RuntimeError(f"{type(self).__name__}.pop() returned {f!r}, which is not a queued fiber")
        (<Runnable>f).queued = False
        return <PyObject *>f

    cdef int remove_runnable(self, Runnable f) except -1:
        self.remove(f)
        f.queued = False
        return 0

    cdef Py_ssize_t count(self) except -1:
        return len(self)


cdef class LinkedPolicy(Policy):
    """The intrusive list under Fifo and Lifo."""

    def __cinit__(self):
        self.held = set()

    cdef int push_runnable(self, Runnable f) except -1:
        linked_append(self, f)
        return 0

    cdef int remove_runnable(self, Runnable f) except -1:
        if f.run_prev != NULL:
            (<Runnable>f.run_prev).run_next = f.run_next
        else:
            self.head = f.run_next
        if f.run_next != NULL:
            (<Runnable>f.run_next).run_prev = f.run_prev
        else:
            self.tail = f.run_prev
        f.run_next = NULL
        f.run_prev = NULL
        f.queued = False
        self.n -= 1
        return 0

    cdef Py_ssize_t count(self) except -1:
        return self.n

    def push(self, Runnable fiber not None) -> None:
        """Add a runnable fiber."""
        if fiber.queued:
            raise ValueError(f"{fiber!r} is in a run queue already")
        self.held.add(fiber)
        self.push_runnable(fiber)

    def pop(self):
        """The next fiber, or None."""
        cdef PyObject *found = self.pop_runnable()
        cdef object fiber = None if found == NULL else <object>found
        self.held.discard(fiber)
        return fiber

    def remove(self, Runnable fiber not None) -> None:
        """Take out a fiber that was pushed; ValueError if it is not in here."""
        cdef PyObject *at = self.head
        while at != NULL and at != <PyObject *>fiber:
            at = (<Runnable>at).run_next
        if at == NULL:
            raise ValueError(f"{fiber!r} is not in this queue")
        self.remove_runnable(fiber)
        self.held.discard(fiber)

    def __len__(self) -> int:
        return self.n


cdef class Fifo(LinkedPolicy):
    """First in, first out: the default."""

    cdef PyObject *pop_runnable(self) except? NULL:
        return linked_take_first(self)


cdef class Lifo(LinkedPolicy):
    """Last in, first out.  An old fiber can starve while new ones keep coming."""

    cdef PyObject *pop_runnable(self) except? NULL:
        cdef PyObject *last = self.tail
        if last != NULL:
            self.remove_runnable(<Runnable>last)
        return last


cdef class HeapPolicy(Policy):
    """A heap with first-in-first-out among equals; removed entries stay behind as tombstones."""

    def __cinit__(self, *args, **kwargs):
        # not in __init__, which a subclass may forget to call
        self._heap = []
        self._entries = {}

    cdef object _key(self, Runnable f):
        raise TypeError("derive from Priority or Deadline")

    cdef int check(self, Runnable f) except -1:
        cdef object key = self._key(f)
        if not isinstance(key, numbers.Real):
            raise TypeError(f"{type(self).__name__} orders fibers by a number, not by {key!r}")
        if key != key:
            raise ValueError(f"{type(self).__name__} cannot order a fiber by NaN")
        return 0

    cdef int push_runnable(self, Runnable f) except -1:
        cdef list entry
        self.check(f)  # its priority may have been assigned since
        entry = [self._key(f), self._sequence, f]
        self._sequence += 1
        f.queued = True
        self._entries[id(f)] = entry
        heapq.heappush(self._heap, entry)
        return 0

    cdef PyObject *pop_runnable(self) except? NULL:
        cdef object f = self._pop()
        return NULL if f is None else <PyObject *>f

    cdef int remove_runnable(self, Runnable f) except -1:
        cdef list entry = self._entries.pop(id(f), None)
        if entry is None:
            raise ValueError(f"{f!r} is not in this queue")
        entry[2] = None
        f.queued = False
        return 0

    cdef Py_ssize_t count(self) except -1:
        return len(self._entries)

    def push(self, Runnable fiber not None) -> None:
        """Add a runnable fiber."""
        if fiber.queued:
            raise ValueError(f"{fiber!r} is in a run queue already")
        self.push_runnable(fiber)

    def pop(self):
        """The next fiber, or None."""
        return self._pop()

    cdef object _pop(self):
        cdef object f
        while self._heap:
            f = heapq.heappop(self._heap)[2]
            if f is not None:
                del self._entries[id(f)]
                (<Runnable>f).queued = False
                return f
        return None

    def remove(self, Runnable fiber not None) -> None:
        """Take out a fiber that was pushed; ValueError if it is not in here."""
        self.remove_runnable(fiber)

    def __len__(self) -> int:
        return len(self._entries)


cdef class Priority(HeapPolicy):
    """The smallest ``priority`` first (``spawn(..., priority=n)``, 0 unless given)."""

    cdef object _key(self, Runnable f):
        return f.priority


cdef class Deadline(HeapPolicy):
    """The earliest ``deadline`` first (``spawn(..., deadline=t)``, in loop time); fibers without one last."""

    cdef object _key(self, Runnable f):
        return math.inf if f.deadline is None else f.deadline
