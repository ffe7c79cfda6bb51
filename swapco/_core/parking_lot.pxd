"""The one wait queue under every primitive: see parking_lot.pyx."""

from cpython.object cimport PyObject

from .fiber cimport FiberCore, WaitQueue


cdef class ParkingLot:
    cdef WaitQueue queue
    # what a report names: the primitive that the lot is part of (borrowed; NULL: the lot itself)
    cdef PyObject *part_of
    cdef short reason
    cdef object park_fiber(self, FiberCore me, long long deadline_ns)
    cdef bint wake_one(self, object value) except -1
    cdef int wake_everyone(self, object value) except -1


cdef ParkingLot new_lot(object part_of, short reason)
