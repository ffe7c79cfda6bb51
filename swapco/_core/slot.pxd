"""The slot, its workers and its inbox: see slot.pyx."""

from cpython.object cimport PyObject

from .hub cimport Hub
from .policy cimport Runnable


cdef class Postable(Runnable):
    # the link of the inbox; meaningful while `posted`
    cdef PyObject *post_next
    cdef bint posted


cdef class Worker:
    cdef readonly unsigned long ident
    cdef readonly long native_id
    cdef readonly bint home


cdef class Slot:
    cdef readonly Worker home
    cdef unsigned long owner_ident
    cdef Hub hub
    cdef bint hub_idle
    cdef bint noted
    cdef PyObject *inbox_head
    cdef PyObject *inbox_tail
    cdef int bind_home(self) except -1
    cdef bint owned(self) noexcept
    cdef int post(self, Postable item) except -1
    cdef Postable take_posted(self)
