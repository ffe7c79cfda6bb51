"""Who runs next: see policy.pyx."""

from cpython.object cimport PyObject


cdef class Runnable:
    # the links of the run queue that it is in; meaningful while `queued`
    cdef PyObject *run_next
    cdef PyObject *run_prev
    cdef bint queued
    # what the policy knows it by: for the policy alone
    cdef Py_ssize_t mark
    cdef public object priority
    cdef public object deadline


cdef class Policy:
    cdef int check(self, Runnable f) except -1
    cdef int push_runnable(self, Runnable f) except -1
    # borrowed; NULL: there is none
    cdef PyObject *pop_runnable(self) except? NULL
    cdef int remove_runnable(self, Runnable f) except -1
    cdef Py_ssize_t count(self) except -1


cdef class LinkedPolicy(Policy):
    cdef PyObject *head
    cdef PyObject *tail
    cdef Py_ssize_t n
    # what was pushed from Python
    cdef set held


cdef inline void linked_append(LinkedPolicy queue, Runnable f) noexcept:
    f.queued = True
    f.run_next = NULL
    f.run_prev = queue.tail
    if queue.tail != NULL:
        (<Runnable>queue.tail).run_next = <PyObject *>f
    else:
        queue.head = <PyObject *>f
    queue.tail = <PyObject *>f
    queue.n += 1


cdef inline PyObject *linked_take_first(LinkedPolicy queue) noexcept:
    cdef PyObject *first = queue.head
    if first == NULL:
        return NULL
    queue.head = (<Runnable>first).run_next
    if queue.head != NULL:
        (<Runnable>queue.head).run_prev = NULL
    else:
        queue.tail = NULL
    (<Runnable>first).run_next = NULL
    (<Runnable>first).queued = False
    queue.n -= 1
    return first


cdef class Fifo(LinkedPolicy):
    pass


cdef class Lifo(LinkedPolicy):
    pass


cdef class HeapPolicy(Policy):
    cdef list _heap
    cdef dict _entries
    cdef long long _sequence
    cdef object _key(self, Runnable f)
    cdef object _pop(self)


cdef class Priority(HeapPolicy):
    pass


cdef class Deadline(HeapPolicy):
    pass
