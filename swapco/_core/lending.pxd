"""Lending the slot to kernel threads: see lending.pyx."""

from cpython.object cimport PyObject

from .clock cimport Timer
from .fiber cimport Dispatcher, FiberCore
from .slot cimport ThreadStack, Worker
from .switch cimport Stack


cdef class Lender(Dispatcher):
    # who runs next on the home worker, when a worker gives the slot back; NULL: the hub
    cdef PyObject *home_target
    # idle stacks of the home worker, the one used last at the end
    cdef list pool
    # workers without a fiber, the one used last at the end; the fewest there were since the last look
    cdef list idle_workers
    cdef Py_ssize_t idle_low
    # NEW thread fibers for which there is no worker, and those among them that may use the reserve
    cdef object starved
    cdef object starved_first
    cdef bint warned
    cdef Timer lending_timer
    # this process is the forked child of the one that the fibers live in
    cdef bint abandoned
    cdef object worker_main
    # each time that somebody else becomes ``current``, on whichever kernel thread: the watchdog sees nothing else
    cdef readonly unsigned long long switches

    # what thread fibers need
    cdef int give_up(self, FiberCore me) except -1
    cdef ThreadStack new_thread_stack(self)
    cdef int leave_thread(self, FiberCore me, PyObject *following) except -1
    cdef bint find_worker(self, FiberCore f) noexcept
    cdef bint hire(self, FiberCore f) except -1
    cdef int close_workers(self) except -1
    # the inside
    cdef int lend_until_home(self, ThreadStack target, Stack leaving) noexcept
    cdef PyObject *lend(self, ThreadStack target) noexcept
    cdef bint pass_on(self, Worker me, PyObject *following, bint wait) noexcept
    cdef int detach(self, FiberCore f) noexcept
    cdef int take_interrupt(self) noexcept
    cdef int start_detached(self, FiberCore f) noexcept
    cdef int count_absence(self) noexcept
    cdef int weigh(self, ThreadStack stack) noexcept
    cdef bint is_overdue(self, FiberCore f) noexcept
    cdef int finish_detached(self, FiberCore f) except -1
    cdef int bury(self, FiberCore f) except -1
    cdef int release(self, Worker worker) except -1
    cdef bint may_have_worker(self, FiberCore f) noexcept
    cdef object line_of(self, FiberCore f)
    cdef int starve(self, FiberCore f) except -1
    cdef int serve_starved(self) except -1
    cdef int look_after(self) except -1
    cdef int trim_workers(self) except -1
    cdef int work(self, Worker me) except -1
    cdef int end(self, Worker me, PyObject *p, PyObject *returned) except -1
    cdef int keep_outcome(self, FiberCore f, PyObject *returned) except -1
    cdef int end_attached(self, Worker me, PyObject *p) except -1
    cdef int end_detached(self, Worker me, PyObject *p) except -1
    # what Scheduler adds
    cdef PyObject *stack_for(self, PyObject *following) noexcept
    cdef int begin(self, FiberCore f) except -1
    cdef int finish(self, FiberCore f) except -1
    cdef int forget(self, FiberCore f) except -1
    cdef int fail_unstarted(self, FiberCore f, object error) except -1
    cdef int thrown_into(self, FiberCore me) except -1
    cdef int loop_is_due(self) noexcept
    cdef int end_of_child(self) except -1
    cdef int note_switch(self, FiberCore leaving) noexcept
    cdef int note_arrival(self, FiberCore arriving) noexcept
