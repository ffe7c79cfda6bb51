"""The slot, its workers and its inbox: see slot.pyx."""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint64_t

from .clock cimport Clock
from .hub cimport Hub
from .policy cimport Runnable
from .switch cimport Stack

cdef extern from "slot_word.h" nogil:
    # the fields that Cython code touches
    ctypedef struct swapco_worker:
        int id
        int depth
        uint64_t left
        int32_t order
        int32_t ended
        int32_t displaced
        int32_t cpu
        int32_t tid
    ctypedef struct swapco_slot:
        uint64_t word
        swapco_worker *home
        int32_t cpu
        swapco_worker *granted
        int sentinel_runs
        uint64_t taken_back
        uint64_t ticks
        uint64_t revoked_by_monitor
        uint64_t revoked_by_sentinel
        uint64_t revoked_by_signal
        int pins_early
    # a local variable of this type ends the section when the function is left
    ctypedef struct section "swapco_section":
        swapco_worker *worker
    # its first value: the code of no section.  Always the first statement of a function, before anything can raise
    section outside "swapco_outside"() noexcept

    enum swapco_lend_end:
        SWAPCO_GIVEN_BACK
        SWAPCO_REVOKED
        SWAPCO_INTERRUPTED

    bint slot_enter(swapco_worker *w)
    void slot_leave(swapco_worker *w)


cdef class Postable(Runnable):
    # the link of the inbox; meaningful while `posted`
    cdef PyObject *post_next
    cdef bint posted


# Told of every operation of a primitive in a controlled run; may let others run first.
cdef class Controller:
    # a function that may block: its name, and the primitive (or None)
    cdef int before(self, str operation, object primitive) except -1
    # one that never blocks; None: what it changes has no name
    cdef int touch(self, object primitive) except -1
    # one that only asks
    cdef int look(self, object primitive) except -1


cdef class Worker:
    cdef swapco_worker *c
    # whose fibers it hosts (borrowed: its thread holds it)
    cdef PyObject *scheduler
    cdef readonly unsigned long ident
    cdef readonly long native_id
    cdef readonly bint home
    # what it hosts (borrowed: the scheduler holds every live fiber), or NULL
    cdef PyObject *fiber
    # which of the slot's placements it was pinned for; 0: it is not
    cdef unsigned int placement
    cdef object thread
    # it is no worker, but stands for one where a controlled run wants to see every operation: see here.pyx
    cdef Controller controller


# What runs fibers in a kernel thread: the base of the scheduler.
cdef class Host:
    # who runs now (borrowed: the scheduler holds every live fiber); NULL in the hub
    cdef PyObject *current
    cdef int reattach(self, Worker worker) except -1


# What stands for a stack in a fiber that has a kernel thread of its own.
cdef class ThreadStack(Stack):
    # None until a worker takes the fiber
    cdef Worker worker
    # start without the slot; detached, and asks for the slot; ended without the slot
    cdef bint starts_detached
    cdef bint wants_slot
    cdef bint ended
    # it was detached by the detector, or ran for more than a tick without the slot
    cdef bint blocked
    # it is detached because the slot was revoked, and not because it gave it up
    cdef bint revoked
    # its one joiner gets the slot back at once: a call, not a program
    cdef bint is_call
    # may use the workers that are kept for clean-up
    cdef bint may_use_reserve
    # inside so many `with blocking()`
    cdef int blocking
    cdef long long detached_at


cdef class Slot:
    cdef swapco_slot *c
    cdef readonly Worker home
    cdef unsigned long owner_ident
    cdef Hub hub
    cdef bint hub_idle
    cdef bint noted
    cdef PyObject *inbox_head
    cdef PyObject *inbox_tail
    # options
    cdef readonly bint sentinel
    cdef readonly int max_workers
    # how many more there may be for clean-up
    cdef int reserve
    cdef object placement
    # what a signal handler raised in the middle of a handoff, or of the start of a thread
    cdef object interrupt
    cdef Clock real_clock
    # the CPU that the workers share now, or -1; how many times one was chosen
    cdef int cpu
    cdef unsigned int placements
    # a scheduler has it
    cdef bint taken
    cdef bint closed
    cdef bint inherited
    # home gets signals whose handlers must run
    cdef bint handles_signals
    cdef bint signalled
    cdef bint detects
    cdef readonly double tick
    cdef list others
    cdef int next_id
    cdef object __weakref__
    cdef list free_ids
    cdef readonly unsigned long long lends
    cdef readonly unsigned long long handoffs
    # counted by Lender
    cdef Py_ssize_t detached
    cdef unsigned long long detaches
    cdef unsigned long long false_detaches
    cdef unsigned long long reattaches
    # of those that are back; less the moment at which they left, of those that are detached (modulo 2**64)
    cdef unsigned long long detached_ns

    cdef int check_made(self) except -1
    cdef int bind_home(self) except -1
    cdef bint owned(self) noexcept
    cdef bint at_home(self) noexcept
    cdef int post(self, Postable item) except -1
    cdef Postable take_posted(self)
    cdef Worker new_worker(self, object main)
    cdef int forget_worker(self, Worker worker) except -1
    cdef int prepare(self) except -1
    cdef int worker_begins(self, Worker worker) noexcept
    cdef int worker_returns(self, Worker worker) noexcept
    cdef bint may_run_detached(self, Worker me) noexcept
    cdef swapco_lend_end lend(self, Worker to) noexcept
    cdef bint hand(self, Worker me, Worker to, bint wait) noexcept
    cdef bint wait(self, Worker me) noexcept
    cdef int ask_placement(self, str what, long thread_id, long argument=*) noexcept
    cdef int choose(self) noexcept
    cdef int place(self, Worker worker) noexcept
    cdef int displace(self, Worker worker) noexcept
    cdef int unplace(self, Worker worker) noexcept
    cdef int rest(self) noexcept
    cdef int void(self) noexcept
    cdef bint is_void(self) noexcept
    cdef bint is_inherited(self) noexcept
    cdef int run_detached(self, Worker worker) noexcept
    cdef int stop(self, Worker worker) noexcept
    cdef bint has_ended(self, Worker worker) noexcept
