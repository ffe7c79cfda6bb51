"""Who runs next: see policy.pyx."""

from cpython.object cimport PyObject


cdef class Runnable:
    # the links of the run queue that it is in; meaningful while `queued`
    cdef PyObject *run_next
    cdef PyObject *run_prev
    cdef bint queued
    cdef public object priority
    cdef public object deadline


cdef class Policy:
    cdef int check(self, Runnable f) except -1
    cdef int push_runnable(self, Runnable f) except -1
    cdef Runnable pop_runnable(self)
    cdef int remove_runnable(self, Runnable f) except -1
    cdef Py_ssize_t count(self) except -1


cdef class LinkedPolicy(Policy):
    cdef PyObject *head
    cdef PyObject *tail
    cdef Py_ssize_t n


cdef class Fifo(LinkedPolicy):
    pass


cdef class Lifo(LinkedPolicy):
    pass


cdef class HeapPolicy(Policy):
    cdef list _heap
    cdef dict _entries
    cdef long long _sequence
    cdef object _key(self, Runnable f)


cdef class Priority(HeapPolicy):
    pass


cdef class Deadline(HeapPolicy):
    pass
