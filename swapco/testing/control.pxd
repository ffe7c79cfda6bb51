"""Who runs next in a controlled run: see control.pyx."""

from cpython.object cimport PyObject

from .._core.clock cimport ManualClock
from .._core.fiber cimport FiberCore
from .._core.policy cimport Policy
from .._core.scheduler cimport Scheduler
from .._core.slot cimport Controller, Worker


# A decision: `n` actors were enabled, their ids from `offset` on; `chosen` of them was named.
cdef struct Record:
    int n
    int offset
    int current
    int chosen
    # how many moments at which somebody could run had been before
    int moment
    PyObject *label


cdef enum Verdict:
    GOES_ON
    # the program is over, or failed: the rest need not run
    STOPPED
    STEP_BOUND
    # the strategy, or an observer, raised: `error`
    ABANDONED


cdef class Strategy:
    cdef Py_ssize_t pick(self, Control control) except -1
    cdef Py_ssize_t pick_number(self, Control control) except -1
    # the run is over
    cdef int over(self, Control control) except -1


cdef class Control(Policy):
    cdef Scheduler scheduler
    cdef ManualClock clock
    cdef Strategy strategy
    cdef readonly Verdict verdict
    cdef readonly object error
    # fibers that can run, in the order in which they became so, and their ids
    cdef PyObject **queue
    cdef int *queue_ids
    cdef int queued
    cdef int queue_capacity
    # what a strategy looks at: who is enabled now, who of them runs already (-1: nobody), and what kind of moment it is
    cdef int *enabled
    cdef int n
    cdef int current
    cdef PyObject *label
    # the primitive, or what `schedule_point` named, that the current actor is about to touch; NULL: it did not say
    cdef PyObject *about
    cdef int enabled_capacity
    # callbacks of the loop that wait for their turn
    cdef public object callbacks
    cdef int loop_actor
    cdef readonly bint loop_turn
    # ids of timers that are due, by the timer's address
    cdef dict timer_actors
    cdef list due
    # chosen at a point, and not popped yet
    cdef PyObject *forced
    # who has just yielded: it lets others go first
    cdef PyObject *yielded
    cdef bint firing
    # the fibers of the run by actor id (None: the actor is no fiber)
    cdef readonly list fibers
    cdef readonly list actors
    # moments at which somebody could run, and how many there may be
    cdef readonly int moments
    cdef public int max_steps
    # inside so many no_switch()
    cdef int quiet
    cdef bint unwinding
    cdef int unwound
    cdef object unwind_error
    # the first RealIOError of the run
    cdef object refused
    # decisions are made at primitives' entries, too
    cdef public bint at_primitives
    # what the steps touched is recorded
    cdef public bint footprints
    cdef list steps
    cdef list step
    cdef dict objects
    cdef list objects_held
    # called at every decision with everything it may want to know; for reports
    cdef public object watcher
    cdef Record *records
    cdef int recorded
    cdef int records_capacity
    # at how many moments each actor was taken, by its number
    cdef int *taken
    cdef int taken_capacity
    # who was taken last; -1: nobody yet
    cdef readonly int last
    cdef int *ids
    cdef int ids_used
    cdef int ids_capacity

    cdef int reset(self, Strategy strategy) except -1
    cdef int reserve(self, int n) except -1
    cdef int new_actor(self, object what, FiberCore fiber) except -1
    cdef int gather(self, FiberCore current) except -1
    cdef int decide(self, FiberCore current, PyObject *label, object about) noexcept
    cdef PyObject *label_now(self) noexcept
    cdef int note_decision(self, int chosen) except -1
    cdef int take_out(self, int i) noexcept
    cdef bint jump(self) except -1
    cdef int abandon(self, object error) noexcept
    cdef int fire(self, int actor) except -1
    cdef bint refuses(self) noexcept
    cdef bint gave_up(self) noexcept
    cdef int unwind_again(self, FiberCore me) except -1
    cdef PyObject *next_to_unwind(self) except? NULL
    cdef int number(self, int n, str label) except -1
    cdef int point(self, FiberCore me, PyObject *label, object about, bint write) except -1
    cdef int named_point(self, object about, bint write) except -1
    cdef int begin_step(self, int actor, int decision, bint declared) except -1
    cdef int end_step(self, bint leads_to_operation) except -1
    cdef int touches(self, object thing, bint write) except -1
    cdef int id_of(self, object thing) except -1


cdef Control active()
cdef int activate(Control control, bint observed, Worker stand_in) noexcept
cdef bint in_controlled_run() noexcept


cdef class Watch(Controller):
    cdef Control control
