"""The parking lot: the one wait queue under every primitive.

A primitive is some state and one or more lots.  Its blocking operation looks at the state and, when it must
wait, parks the caller; its releasing operation hands what it releases to the first parked fiber.  *Hands*: the
waker changes the state in the waiter's name (the lock is owned by the waiter before that has run), so that
nobody can slip in between, and the waiter has nothing to check again.

Cancellation and timeouts (law 4): the wake, the timeout and the cancellation race for the fiber's wait record.
``wake_one`` skips waiters that lost to one of the others; a wake that has won stands, and a cancellation that
comes after it stays pending, so that no permit, item or value is lost.

Order: first in, first out.  A fiber that gave up is taken out of the queue by whoever ended its wait.
"""

from cpython.object cimport PyObject

from .clock cimport deadline_after
from .reasons cimport PARK
from .fiber cimport enter, outside, running_fiber, section


cdef class ParkingLot:
    """A first-in-first-out queue of parked fibers, for building primitives in Python."""

    def __len__(self) -> int:
        return self.queue.count

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<ParkingLot, {self.queue.count} parked>"

    cdef object park_fiber(self, FiberCore me, long long deadline_ns):
        return me.scheduler.park(me, &self.queue, PARK, <PyObject *>self, deadline_ns)

    cdef bint wake_one(self, object value) except -1:
        cdef FiberCore first
        if self.queue.head == NULL:
            return False
        first = <FiberCore>self.queue.head
        return first.scheduler.wake_first(&self.queue, value)

    cdef int wake_everyone(self, object value) except -1:
        cdef FiberCore first
        if self.queue.head == NULL:
            return 0
        first = <FiberCore>self.queue.head
        return first.scheduler.wake_all(&self.queue, value)

    def park(self, timeout=None):
        """Park the calling fiber; returns what ``unpark`` gives.

        ``timeout`` in seconds (None: for ever) ends the wait with TimeoutError.  Other errors: CancelledError,
        NotInFiber.
        """
        cdef section here = outside()
        cdef FiberCore me = running_fiber("ParkingLot.park", &here.worker, self)
        return self.park_fiber(me, deadline_after(me.scheduler.clock, timeout))

    def unpark(self, value=None) -> bool:
        """Wake the fiber that has been parked for longest; False if none is.  Never blocks."""
        cdef section here = outside()
        enter(&here.worker, self)
        return self.wake_one(value)

    def unpark_all(self, value=None) -> int:
        """Wake every parked fiber, in order; returns how many there were.  Never blocks."""
        cdef section here = outside()
        enter(&here.worker, self)
        cdef Py_ssize_t count = self.queue.count
        self.wake_everyone(value)
        return count

    def fibers(self) -> list:
        """The parked fibers, the first in line first."""
        cdef list found = []
        cdef PyObject *at = self.queue.head
        while at != NULL:
            found.append(<FiberCore>at)
            at = (<FiberCore>at).queue_next
        return found
