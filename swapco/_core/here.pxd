"""Who runs in the calling kernel thread: see here.pyx."""

from cpython.object cimport PyObject

from .slot cimport Host, Worker, outside, section, swapco_worker


# Who runs now, for an operation of the scheduler or a primitive.  All but `fiber_here` enter a section in a thread
# fiber, which waits for the slot first if it is detached; the caller ends it: `cdef section here = outside()`.
cdef PyObject *running(str caller, swapco_worker **entered, object primitive) except NULL
cdef PyObject *host_here(swapco_worker **entered) except? NULL
cdef int enter(swapco_worker **entered, object primitive) except -1
cdef int enter_if_attached(swapco_worker **entered, object primitive) except -1
# For what only the owner of the slot may do, from a worker other than home, and what is not worth waiting for.
cdef bint in_worker() noexcept
cdef bint enter_if_owner(swapco_worker **entered, Host scheduler) noexcept
# A question to a primitive: a hook for controlled runs.
cdef int look(object primitive) except -1
cdef PyObject *fiber_here() noexcept
# For what must not run "as" the fiber of this thread: always in pairs.
cdef PyObject *hide_fiber() noexcept
cdef int show_fiber(PyObject *hidden) noexcept
cdef Host running_host()
cdef bint loop_runs_here() noexcept
cdef int set_running(Host scheduler) noexcept
cdef int host(Worker worker) noexcept
