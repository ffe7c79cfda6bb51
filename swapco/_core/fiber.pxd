"""A fiber, its two words, and how it waits: see fiber.pyx."""

from cpython.object cimport PyObject

from .clock cimport NEVER_NS, Clock, Timer, TimerHeap, deadline_after
from .hub cimport Hub
from .policy cimport Policy, Runnable
from .here cimport enter, enter_if_attached, fiber_here, look, outside, running, running_host, section, swapco_worker
from .slot cimport Host, Postable, Slot
from .switch cimport Backend, Stack, StackMain
from .wait cimport wait_word

# A FIFO of fibers that wait inside one primitive: an intrusive list, borrowed references (the scheduler
# holds every live fiber).
cdef struct WaitQueue:
    PyObject *head
    PyObject *tail
    Py_ssize_t count


# What `forward_cancel` did with a cancellation.
cdef enum Forwarded:
    NOT_FORWARDED
    FORWARDED
    STAYS_PENDING


cdef class WaitTimer(Timer):
    cdef FiberCore fiber
    cdef wait_word record


cdef class Flushable:
    # output collected during this turn; flushed before the fiber that wrote it gives the slot away
    cdef bint flush_pending
    cdef int flush(self) except -1


cdef class FiberCore(Postable)
cdef class Dispatcher


cdef class Watcher:
    # told at once, in the scheduler's section, that a fiber that it watches is done
    cdef int fiber_done(self, FiberCore f) except -1


cdef class FiberCore(Postable):
    cdef object __weakref__
    cdef readonly Dispatcher scheduler
    cdef object fn
    cdef tuple args
    cdef object context
    # given, or None: then it is named after its number
    cdef str _name
    cdef readonly unsigned long long number
    cdef Stack stack
    cdef signed char _state
    # it has a kernel thread of its own: `stack` is a ThreadStack
    cdef signed char threaded
    # NEW, and waits until a worker is free
    cdef signed char starved
    # in a controlled run: it would have a kernel thread, and runs as an ordinary fiber
    cdef signed char poses_as_thread
    cdef bint has_token
    # `suspending` and `continuing` are called around every switch
    cdef bint hooked
    # in the list in front of the policy's
    cdef bint in_front
    # yielded while loop callbacks waited: they go first (`epoch` is the drain in which that was)
    cdef bint behind_loop
    cdef bint cancel_pending
    cdef bint result_retrieved
    cdef short reason
    cdef int cancel_requests
    cdef unsigned long long epoch
    cdef wait_word wait
    cdef object token
    cdef object handed
    cdef WaitQueue *queue
    cdef PyObject *queue_prev
    cdef PyObject *queue_next
    cdef PyObject *waits_for
    cdef WaitTimer timer
    cdef object cancel_message
    # raised instead of CancelledError when the pending cancellation is delivered
    cdef object thrown
    cdef object result_value
    cdef object exception_value
    cdef WaitQueue joiners
    # a Watcher, a list of them, or None
    cdef object watchers
    # `on_finished` is called at its end
    cdef bint watched
    cdef PyObject *live_prev
    cdef PyObject *live_next

    cdef int set_up(self, Dispatcher scheduler, object fn, tuple args, object name, object context) except -1
    cdef int complete(self, object returned) noexcept
    cdef bint accepts(self, object fn) except -1
    cdef object function_of(self, object fn)
    cdef int discard(self) except -1
    cdef int suspending(self) except -1
    cdef int continuing(self) except -1
    cdef int on_finished(self) except -1
    cdef int forward_cancel(self) except -1
    cdef int watch(self, Watcher watcher) except -1
    cdef int unwatch(self, Watcher watcher) except -1
    cdef int request_cancel(self, object message) except -1
    cdef int join_until(self, long long deadline_ns) except -1
    cdef object outcome(self)


cdef class Dispatcher(Host):
    cdef readonly Slot slot
    cdef readonly Clock clock
    cdef TimerHeap timers
    cdef Hub hub
    cdef object instruments
    # an error that has no fiber to go to: it leaves through the loop at the end of the drain
    cdef object fatal
    cdef list dirty
    cdef bint draining
    cdef bint drain_requested
    # a Controller decides who runs next and when a timer fires: no turn of the loop, no thread, no real time
    cdef bint controlled
    # since the last take from the run queue; of the running fiber since its last suspension
    cdef int handoffs
    cdef int io_calls
    # how many fibers wait for something outside the scheduler
    cdef Py_ssize_t external_waits
    cdef readonly unsigned long long direct_handoffs

    # what primitives use
    cdef object park(self, FiberCore me, WaitQueue *queue, short reason, PyObject *waits_for,
                     long long deadline_ns)
    cdef int wait_for(self, FiberCore me, WaitQueue *queue, short reason, PyObject *waits_for,
                      long long deadline_ns) except -1
    cdef bint wake(self, FiberCore f, object value) except -1
    cdef bint wake_first(self, WaitQueue *queue, object value) except -1
    cdef int wake_all(self, WaitQueue *queue, object value) except -1
    cdef int may_wait(self, FiberCore me) except -1
    cdef int call_fiber(self, FiberCore me, FiberCore call) except -1
    cdef PyObject *hand_back(self, FiberCore call) noexcept
    cdef int wait_outside(self, FiberCore me, PyObject *waits_for) except -1
    cdef int throw_into(self, FiberCore f, object error) except -1
    cdef int raise_cancel(self, FiberCore me) except -1
    cdef int yield_now(self, FiberCore me) except -1
    cdef int mark_dirty(self, Flushable output) except -1
    cdef int flush_dirty(self) except -1
    # the verbs
    cdef object block_fiber(self, FiberCore me, long long deadline_ns, short reason)
    cdef bint resume_fiber(self, FiberCore f, object value) except -1
    cdef object switch_fiber(self, FiberCore me, FiberCore target, object value, long long deadline_ns)
    # the inside
    cdef int raise_loss(self, FiberCore me, int winner, short reason, PyObject *waits_for) except -1
    cdef int ready(self, FiberCore f) except -1
    cdef int make_ready(self, FiberCore f) except -1
    cdef int drain_inbox(self) except -1
    cdef int deliver_cancel(self, FiberCore f) except -1
    cdef int note(self, str event, object first, object second=*) noexcept
    cdef int note_block(self, FiberCore f) noexcept
    # what Scheduler adds
    cdef PyObject *take(self) except? NULL
    cdef int push(self, FiberCore f) except -1
    cdef int push_front(self, FiberCore f) except -1
    cdef int unqueue(self, FiberCore f) except -1
    cdef int requeue(self, FiberCore f) except -1
    cdef int leave_to(self, FiberCore me, PyObject *following) except -1
    cdef bint poll_is_due(self) noexcept
    # what Lender adds
    cdef int came_back(self, FiberCore f) except -1
    cdef int drop_starved(self, FiberCore f) except -1


cdef inline int queue_append(WaitQueue *queue, FiberCore f) noexcept:
    f.queue = queue
    f.queue_next = NULL
    f.queue_prev = queue.tail
    if queue.tail != NULL:
        (<FiberCore>queue.tail).queue_next = <PyObject *>f
    else:
        queue.head = <PyObject *>f
    queue.tail = <PyObject *>f
    queue.count += 1
    return 0


cdef inline int queue_remove(FiberCore f) noexcept:
    cdef WaitQueue *queue = f.queue
    if queue == NULL:
        return 0
    if f.queue_prev != NULL:
        (<FiberCore>f.queue_prev).queue_next = f.queue_next
    else:
        queue.head = f.queue_next
    if f.queue_next != NULL:
        (<FiberCore>f.queue_next).queue_prev = f.queue_prev
    else:
        queue.tail = f.queue_prev
    queue.count -= 1
    f.queue = NULL
    f.queue_prev = f.queue_next = NULL
    return 0


# a loop or a worker begins in this thread: see _may_wait
cdef int note_thread() noexcept


cdef inline long long deadline_of(FiberCore me, object timeout) except -1:
    """When a wait that starts now ends.  Before the section: converting ``timeout`` may run user code."""
    return NEVER_NS if timeout is None else deadline_after(me.scheduler.clock, timeout)


# `running` and `running_host` (here.pyx), with their types
cdef inline FiberCore running_fiber(str caller, swapco_worker **entered, object primitive):
    return <FiberCore>running(caller, entered, primitive)


cdef inline Dispatcher running_dispatcher():
    return <Dispatcher>running_host()
