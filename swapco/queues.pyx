"""Queue, LifoQueue, PriorityQueue: asyncio's, without ``await``.

Theory
------
A queue has items and three lines of parked fibers: *getters* wait for an item, *putters* for room, *joiners* for
the last ``task_done``.  Every operation is one scheduler section (see locks.pyx, also for hand-over and for who
wins a wait).

*Items travel with the wake.*  ``put`` with a getter in line hands the item to the first one: it never enters the
queue, and the getter has nothing to look up.  A parked putter's item stays with the putter, in the ``handed`` cell
of its fiber, until a ``get`` makes room: the getter takes the head of the queue, then moves the first putter's
item to the end and wakes that putter.  So the order of items is the order of the puts, and an item whose putter
gave up (cancelled, timed out, queue shut down) was never in the queue: there is nothing to take out again, in the
middle of anything.  ``handed`` is free while the fiber waits; the wake overwrites it with its answer, None
or the reason why the item was not taken.

*Storage.*  Queue: a ring over a list (the garbage collector must see the items).  LifoQueue: a list.
PriorityQueue: a binary heap of our own that makes exactly heapq's comparisons, but only looks while it compares,
and moves items when all comparisons are made: heapq leaves an item that cannot be compared in the heap.

Invariants
----------
- Getters are in line only while the queue is empty, and putters only while it is full; after a shutdown nobody is.
- ``unfinished`` is the number of items that were put and not done; items of parked putters do not count yet.
- Comparisons are the only user code inside a section.  ``changes`` counts the changes of a PriorityQueue; if one
  happened during a comparison, the operation raises RuntimeError and leaves the queue as it is.  An error of a
  comparison on behalf of a parked putter is raised in the putter, not in the getter that made room.
- The last references to items are dropped at the end of a section.

A subclass in Python that overrides ``_init``, ``_put`` or ``_get``, as asyncio's source invites to, is ``custom``:
its items are in ``self._queue``, as in asyncio, and every item passes through ``_put`` and ``_get``.

Rejected: asyncio's protocol (wake a getter, which then looks whether there is still an item: it may have been taken
by somebody faster, and a cancelled getter must wake the next one); a list of items beside the line of putters (two
sequences to keep in step when a putter in the middle gives up); collections.deque (a call through Python for each
append and popleft costs more than the rest of the operation).
"""

import collections
import heapq
import sys
from collections import namedtuple
from types import GenericAlias

from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport Py_LT, PyObject, PyObject_RichCompareBool

from ._core.fiber cimport FiberCore, WaitQueue, enter, look, outside, queue_remove, running_fiber, section
from ._core.reasons cimport QUEUE_GET, QUEUE_JOIN, QUEUE_PUT
from ._core.wait cimport WAIT_WON_CANCEL, WAIT_WON_WAKE
from .lines cimport check_before_wait, check_thread, deadline_of, wait_in_line

from ._core.errors import QueueEmpty, QueueFull, QueueShutDown
from ._core.reasons import describe

__all__ = [
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "QueueEmpty",
    "QueueFull",
    "QueueShutDown",
    "QueueStatistics",
]

QueueStatistics = namedtuple(
    "QueueStatistics", "size maxsize unfinished getting putting joining is_shutdown", module=__name__
)
QueueStatistics.__doc__ = (
    "Of a queue: items in it, its maxsize, items put and not done, fibers that wait in get, put and join, "
    "and whether it was shut down."
)

cdef enum:
    RING_MIN = 8
    # an empty ring larger than this is given back
    RING_KEPT = 64

# handed to getters and putters by a shutdown
cdef object _SHUT_DOWN = object()


cdef class _Refused:
    """Handed to a putter whose item could not be stored."""

    cdef object error


cdef _shut_down_error(str operation):
    return QueueShutDown(f"{operation}() on a queue that was shut down")


cdef class Queue:
    """A first-in-first-out queue between fibers.

    ``maxsize`` is how many items it holds before ``put`` blocks; 0 or less: any number.
    """

    cdef object __weakref__
    cdef object given_maxsize
    # 0: endless
    cdef Py_ssize_t limit
    cdef Py_ssize_t size
    cdef Py_ssize_t unfinished
    cdef Py_ssize_t first
    cdef unsigned long long changes
    cdef list items
    cdef bint is_shutdown
    cdef bint custom
    cdef WaitQueue getters
    cdef WaitQueue putters
    cdef WaitQueue joiners

    def __init__(self, maxsize=0):
        self.given_maxsize = maxsize
        self.limit = _limit(maxsize)
        self.items = []
        self.first = self.size = self.unfinished = 0
        self.custom = _is_custom(type(self))
        if self.custom:
            self._init(maxsize)

    __class_getitem__ = classmethod(GenericAlias)

    # -- storage: there is room for what is stored, and something to fetch

    cdef int store(self, object item) except -1:
        cdef list ring = self.items
        if self.size == PyList_GET_SIZE(ring):
            self.grow()
            ring = self.items
        ring[(self.first + self.size) & (PyList_GET_SIZE(ring) - 1)] = item
        self.size += 1
        return 0

    cdef object fetch(self):
        cdef list ring = self.items
        cdef Py_ssize_t at = self.first
        cdef object item = ring[at]
        ring[at] = None
        self.first = (at + 1) & (PyList_GET_SIZE(ring) - 1)
        self.size -= 1
        if self.size == 0 and PyList_GET_SIZE(ring) > RING_KEPT:
            self.items = []
            self.first = 0
        return item

    cdef int grow(self) except -1:
        cdef list items = self.items
        cdef list grown = [None] * (len(items) * 2 or RING_MIN)
        cdef Py_ssize_t i
        for i in range(self.size):
            grown[i] = items[(self.first + i) & (len(items) - 1)]
        self.items = grown
        self.first = 0
        return 0

    cdef object drop_all(self):
        """Empty the queue; returns the items, for the caller to let go of when its section is over."""
        cdef list dropped = self.items
        if self.custom:
            dropped = []
            while self._queue:
                dropped.append(self._get())
            return dropped
        self.items = []
        self.first = self.size = 0
        self.changes += 1
        return dropped

    cdef Py_ssize_t count(self) except -1:
        return len(self._queue) if self.custom else self.size

    cdef bint has_room(self) except -1:
        return self.limit == 0 or self.count() < self.limit

    # -- what subclasses in Python may override: used by them only

    def _init(self, maxsize):
        self._queue = collections.deque()

    def _put(self, item):
        self._queue.append(item)

    def _get(self):
        return self._queue.popleft()

    # -- putting

    cdef int put_item(self, object item) except -1:
        """Hand an item to the first getter, or store it; there is room."""
        cdef FiberCore f
        if self.getters.head != NULL:
            check_thread(self.getters.head, self, "put_nowait")
            if not self.custom:
                f = <FiberCore>self.getters.head
                if f.scheduler.wake_first(&self.getters, item):
                    self.unfinished += 1
                    return 0
        if not self.custom:
            self.store(item)
            self.unfinished += 1
            return 0
        self._put(item)
        self.unfinished += 1
        while self.getters.head != NULL and self._queue:
            f = <FiberCore>self.getters.head
            f.scheduler.wake_first(&self.getters, self._get())
        return 0

    cdef int put_when_room(self, FiberCore me, object item, long long deadline_ns) except -1:
        """Park at the end of the putters; whoever makes room takes the item from there."""
        cdef object answer
        cdef int winner
        check_before_wait(me, &self.putters, QUEUE_PUT, self, deadline_ns)
        me.handed = item
        try:
            winner = me.scheduler.wait_for(me, &self.putters, QUEUE_PUT, <PyObject *>self, deadline_ns)
            answer = me.handed
        finally:
            me.handed = None
        if winner == WAIT_WON_WAKE:
            if answer is None:
                return 0
            if answer is _SHUT_DOWN:
                raise _shut_down_error("put")
            raise (<_Refused>answer).error
        if winner == WAIT_WON_CANCEL:
            me.scheduler.raise_cancel(me)
        raise TimeoutError(f"timed out waiting for {describe(QUEUE_PUT, self)}")

    def put(self, item, *, timeout=None) -> None:
        """Put an item into the queue; blocks the calling fiber while the queue is full.

        ``timeout`` in seconds (None: for ever) ends the wait with TimeoutError; 0 or less: at once.  Then, and after
        a CancelledError (raised only if it has to wait), the item is not in the queue.  Other errors:
        QueueShutDown, NotInFiber, ValueError for a timeout that is NaN, RuntimeError if fibers of another event loop
        are in line, and what the comparison of a PriorityQueue's items raises.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Queue.put", &here.worker, self)
        cdef long long deadline_ns = deadline_of(me, timeout)
        if self.is_shutdown:
            raise _shut_down_error("put")
        if self.has_room():
            self.put_item(item)
        else:
            self.put_when_room(me, item, deadline_ns)

    def put_nowait(self, item) -> None:
        """Put an item into the queue; QueueFull if there is no room.  Never blocks.

        From fibers and loop callbacks.  Other errors: QueueShutDown; RuntimeError from another thread than that of
        the waiting fibers; what the comparison of a PriorityQueue's items raises.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        if self.is_shutdown:
            raise _shut_down_error("put_nowait")
        if not self.has_room():
            raise QueueFull("the queue is full")
        self.put_item(item)

    # -- getting

    cdef object get_item(self):
        """Take an item out; there is one."""
        cdef object item
        if self.putters.head != NULL:
            check_thread(self.putters.head, self, "get_nowait")
        item = self._get() if self.custom else self.fetch()
        if self.putters.head != NULL:
            self.admit()
        return item

    cdef int admit(self) except -1:
        """Move the items of parked putters into the queue, as far as there is room."""
        cdef FiberCore f
        cdef object item
        cdef _Refused refused
        while self.putters.head != NULL and self.has_room():
            f = <FiberCore>self.putters.head
            queue_remove(f)
            item = f.handed
            # won first: nothing can take the putter away while its item is compared
            if not f.scheduler.wake(f, None):
                continue
            try:
                if self.custom:
                    self._put(item)
                else:
                    self.store(item)
            except BaseException as error:
                refused = _Refused()
                refused.error = error
                f.handed = refused
            else:
                self.unfinished += 1
        return 0

    def get(self, *, timeout=None):
        """Take an item out of the queue and return it; blocks the calling fiber while the queue is empty.

        ``timeout`` in seconds (None: for ever) ends the wait with TimeoutError; 0 or less: at once.  An item that was
        handed to the fiber is not lost by a cancellation: that is raised where the fiber waits next.  Other
        errors: CancelledError (only if it has to wait); QueueShutDown if the queue is empty and was shut down;
        NotInFiber; ValueError for a timeout that is NaN; RuntimeError if fibers of another event loop are in line.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Queue.get", &here.worker, self)
        cdef long long deadline_ns = deadline_of(me, timeout)
        cdef object item
        if self.count():
            return self.get_item()
        if self.is_shutdown:
            raise _shut_down_error("get")
        item = wait_in_line(me, &self.getters, QUEUE_GET, self, deadline_ns)
        if item is _SHUT_DOWN:
            raise _shut_down_error("get")
        return item

    def get_nowait(self):
        """Take an item out of the queue and return it; QueueEmpty if there is none.  Never blocks.

        From fibers and loop callbacks.  Other errors: QueueShutDown if the queue is empty and was shut down;
        RuntimeError from another thread than that of the waiting fibers.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        if self.count():
            return self.get_item()
        if self.is_shutdown:
            raise _shut_down_error("get_nowait")
        raise QueueEmpty("the queue is empty")

    # -- the end

    def task_done(self) -> None:
        """Say that an item, once gotten, is dealt with; the last one wakes who waits in ``join``.  Never blocks.

        Errors: ValueError if called more often than items were put; RuntimeError from another thread than that of
        the waiting fibers.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        if self.unfinished <= 0:
            raise ValueError("task_done() called too many times")
        if self.joiners.head != NULL:
            check_thread(self.joiners.head, self, "task_done")
        self.unfinished -= 1
        if self.unfinished == 0:
            self.wake_line(&self.joiners, None)

    def join(self, *, timeout=None) -> None:
        """Block the calling fiber until ``task_done`` was called for every item that was put.

        ``timeout`` in seconds (None: for ever) ends the wait with TimeoutError; 0 or less: at once.  Other errors:
        CancelledError (only if it has to wait), NotInFiber, ValueError for a timeout that is NaN, RuntimeError if
        fibers of another event loop are in line.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("Queue.join", &here.worker, self)
        cdef long long deadline_ns = deadline_of(me, timeout)
        if self.unfinished > 0:
            wait_in_line(me, &self.joiners, QUEUE_JOIN, self, deadline_ns)

    def shutdown(self, immediate=False) -> None:
        """Shut the queue down: ``put`` raises QueueShutDown from now on, ``get`` once the queue is empty.

        Fibers that wait in ``put`` and ``get`` get a QueueShutDown.  With ``immediate`` the items are dropped and
        count as done.  Never blocks; on every Python version.  Errors: RuntimeError from another thread than
        that of the waiting fibers.
        """
        cdef section here = outside()
        enter(&here.worker, self)
        cdef object _dropped = None
        cdef Py_ssize_t count
        if self.getters.head != NULL:
            check_thread(self.getters.head, self, "shutdown")
        if self.putters.head != NULL:
            check_thread(self.putters.head, self, "shutdown")
        if self.joiners.head != NULL:
            check_thread(self.joiners.head, self, "shutdown")
        self.is_shutdown = True
        if immediate:
            count = self.count()
            _dropped = self.drop_all()
            self.unfinished = max(0, self.unfinished - count)
            if self.unfinished == 0:
                self.wake_line(&self.joiners, None)
        self.wake_line(&self.getters, _SHUT_DOWN)
        self.wake_line(&self.putters, _SHUT_DOWN)

    cdef int wake_line(self, WaitQueue *line, object value) except -1:
        cdef FiberCore f
        if line.head != NULL:
            f = <FiberCore>line.head
            f.scheduler.wake_all(line, value)
        return 0

    # -- looking

    @property
    def maxsize(self):
        """How many items it holds before ``put`` blocks; 0 or less: any number."""
        return self.given_maxsize

    def qsize(self) -> int:
        """The number of items in the queue; those of fibers that wait in ``put`` do not count."""
        look(self)
        return self.count()

    def empty(self) -> bool:
        """True if ``get`` would wait."""
        look(self)
        return self.count() == 0

    def full(self) -> bool:
        """True if ``put`` would wait."""
        look(self)
        return not self.has_room()

    def statistics(self) -> QueueStatistics:
        """Sizes now: items, fibers that wait, items that are not done."""
        look(self)
        return QueueStatistics(
            self.count(), self.given_maxsize, self.unfinished,
            self.getters.count, self.putters.count, self.joiners.count, self.is_shutdown,
        )

    def __repr__(self) -> str:
        cdef Py_ssize_t n = self.count()
        words = [f"{n}/{self.limit} items" if self.limit else f"{n} items"]
        for waiting, what in (
            (self.getters.count, "getting"), (self.putters.count, "putting"), (self.joiners.count, "joining"),
        ):
            if waiting:
                words.append(f"{waiting} {what}")
        if self.unfinished > n:
            words.append(f"{self.unfinished} unfinished")
        if self.is_shutdown:
            words.append("shut down")
        return f"<{type(self).__name__} {', '.join(words)}>"


cdef class LifoQueue(Queue):
    """A queue that returns the newest item first."""

    def _init(self, maxsize):
        self._queue = []

    def _get(self):
        return self._queue.pop()

    cdef int store(self, object item) except -1:
        self.items.append(item)
        self.size += 1
        return 0

    cdef object fetch(self):
        self.size -= 1
        return self.items.pop()


cdef class PriorityQueue(Queue):
    """A queue that returns the smallest item first; items are compared by ``<``, often (priority, data) tuples."""

    def _init(self, maxsize):
        self._queue = []

    def _put(self, item):
        heapq.heappush(self._queue, item)

    def _get(self):
        return heapq.heappop(self._queue)

    cdef bint less(self, object a, object b) except -1:
        """``a < b``, which is user code: it must not have used the queue."""
        cdef unsigned long long before = self.changes
        cdef bint smaller = PyObject_RichCompareBool(a, b, Py_LT)
        if self.changes != before:
            raise RuntimeError(f"the comparison of two items of {self!r} used the queue")
        return smaller

    cdef int store(self, object item) except -1:
        cdef list heap = self.items
        cdef Py_ssize_t place = self.size
        cdef Py_ssize_t at = self.size
        cdef Py_ssize_t parent
        while place > 0:
            parent = (place - 1) >> 1
            if not self.less(item, heap[parent]):
                break
            place = parent
        heap.append(item)
        while at > place:
            parent = (at - 1) >> 1
            heap[at] = heap[parent]
            at = parent
        heap[place] = item
        self.size += 1
        self.changes += 1
        return 0

    cdef object fetch(self):
        cdef list heap = self.items
        cdef Py_ssize_t n = self.size - 1
        cdef Py_ssize_t[64] path
        cdef Py_ssize_t depth = 0
        cdef Py_ssize_t child, i
        cdef object last = heap[n]
        cdef object smallest = heap[0]
        # the path of the smaller children, down to a leaf, then up to where `last` belongs: heapq's comparisons
        path[0] = 0
        while True:
            child = 2 * path[depth] + 1
            if child >= n:
                break
            if child + 1 < n and not self.less(heap[child], heap[child + 1]):
                child += 1
            depth += 1
            path[depth] = child
        while depth > 0 and self.less(last, heap[path[depth]]):
            depth -= 1
        for i in range(depth):
            heap[path[i]] = heap[path[i + 1]]
        heap[path[depth]] = last
        heap.pop()
        self.size = n
        self.changes += 1
        return smallest


cdef Py_ssize_t _limit(object maxsize) except -1:
    """``maxsize`` as a number of items; 0 is endless.  Fractions and infinity are what ``>=`` makes of them."""
    if maxsize <= 0 or maxsize > sys.maxsize:
        return 0
    return -int(-maxsize // 1)


cdef bint _is_custom(type kind) except -1:
    """Does a subclass in Python override how items are stored?"""
    if kind is Queue or kind is LifoQueue or kind is PriorityQueue:
        return False
    return not (
        kind._init in (Queue._init, LifoQueue._init, PriorityQueue._init)
        and kind._put in (Queue._put, PriorityQueue._put)
        and kind._get in (Queue._get, LifoQueue._get, PriorityQueue._get)
    )
