"""The scheduler: see scheduler.pyx."""

from cpython.object cimport PyObject

from .clock cimport Timer
from .fiber cimport FiberCore
from .lending cimport Lender
from .policy cimport Fifo, Policy
from .switch cimport Backend, Stack, StackMain


cdef class Scheduler(Lender):
    cdef Policy policy
    # the same, if it is the default one: popped without the detour
    cdef Fifo fifo
    cdef Backend backend
    cdef type fiber_type
    cdef Stack hub_stack
    cdef StackMain entry
    # the fiber whose end ends the program, and that a Deadlock is thrown into
    cdef public FiberCore main
    # popped for the hub, which must start it on a fresh stack
    cdef PyObject *for_hub
    # fibers to run before the policy's, last in first out
    cdef PyObject *front
    cdef PyObject *live
    cdef readonly Py_ssize_t live_count
    # the fewest idle stacks there were since the pool's last decay
    cdef Py_ssize_t pool_low
    cdef Timer pool_timer
    # a loop runs it, in the home worker
    cdef bint running
    # counts drains; when I/O is due again, in ticks
    cdef unsigned long long epoch
    cdef unsigned long long poll_at
    # when a hub that stays busy lets other threads have the GIL, in ticks
    cdef unsigned long long breathe_at
    cdef readonly unsigned long long takes
    cdef readonly unsigned long long drains
    cdef readonly unsigned long long stacks_created

    cdef int move_here(self) except -1
    cdef object inherited(self)
    cdef int spawn_fiber(self, FiberCore f) except -1
    cdef int enqueue(self, FiberCore f) except -1
    cdef PyObject *take_from_policy(self) noexcept
    cdef int conclude(self, FiberCore f, PyObject *returned) except -1
    cdef int tell_watchers(self, FiberCore f) except -1
    cdef int run_from_hub(self, PyObject *p) except -1
    cdef int trim_pool(self, Py_ssize_t keep) except -1
    cdef int drain(self) except -1
    cdef int fire_timers(self) except -1
    cdef int breathe(self) except -1
    cdef bint runnable(self) except -1


cdef Scheduler running_scheduler()
