"""The one wait queue under every primitive: see parking_lot.pyx."""

from .fiber cimport FiberCore, WaitQueue


cdef class ParkingLot:
    cdef WaitQueue queue
    cdef object park_fiber(self, FiberCore me, long long deadline_ns)
    cdef bint wake_one(self, object value) except -1
    cdef int wake_everyone(self, object value) except -1
