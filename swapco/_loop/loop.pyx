"""``Loop``: an asyncio event loop, a subclass of uvloop's, that runs fibers.

A drop-in for uvloop: until the first fiber is spawned nothing differs, because nothing of the scheduler exists.
The first spawn makes the ``LoopHub``, which connects the two:

- the scheduler drains its run queue from one loop callback (``request_drain``), or directly at the end of a
  turn of the poller;
- uvloop watches the poller's epoll descriptor;
- ``loop.call_soon`` notes that a callback waits, so that ``sleep(0)`` lets it go first (law 5). Callbacks that
  uvloop queues from C are not noted; they run when I/O is polled, a millisecond later at most.

The backend of stacks (``_core/backends.py``) is chosen when the loop is made, and has its say in how the loop is
called: greenlets want a hub with shallow frames, native stacks want it outside of every greenlet.  A loop that may
have either, and is run inside a greenlet, takes greenlets.

Deadlock detection starts where a drain ends with nothing to run (``went_idle``): cheap conditions first, and
only if they all hold the poller is asked for one more turn, in which libuv has nothing pending that we could
have missed; deadlock.py then looks at the rest.
"""

import asyncio
import contextvars
import threading
import warnings

import uvloop
import uvloop.loop as _uvloop_extension

from cpython.pycapsule cimport PyCapsule_GetPointer

from .._core.clock cimport Clock, ManualClock, Timer, duration_ns
from .._core.policy cimport Policy
from .._core.fiber cimport FiberCore, outside, section
from .._core.here cimport enter_if_owner, fiber_here, in_worker
from .._core.reasons cimport READ, WRITE
from .._core.scheduler cimport Scheduler
from .._core.slot cimport Slot
from .._core.states cimport BLOCKED
from .._core.switch cimport Backend
from .poller cimport Poller, PollingHub
from .task cimport Fiber

from .._core.errors import Deadlock
from .._core.backends import asked_for, make_backend
from . import deadlock as _deadlock
from .compat import get_running_loop, isfuture
from .left_alone import warn_of_left_fibers
from .slow import LongestRun, NamedDrain

cdef extern from *:
    """
    /* The head of uv_loop_t, unchanged in all of libuv 1.x: only counters are read through it. */
    typedef struct {
        void *data;
        unsigned int active_handles;
        void *handle_queue[2];
        union { void *unused; unsigned int count; } active_reqs;
    } swapco_uv_loop_head;
    """
    ctypedef union RequestCount:
        unsigned int count
    ctypedef struct uv_loop_head "swapco_uv_loop_head":
        unsigned int active_handles
        RequestCount active_reqs


cdef enum:
    # turns in which a suspicion is looked at: in the first one uvloop's idle handle may still be active
    SUSPICIONS = 3

# how often virtual time looks whether what is real has ended
_JUMP_RETRY_S = 0.001


cdef class _NotingCallSoon:
    """``loop.call_soon`` of a loop with fibers: the same, and notes that a callback waits."""

    cdef LoopHub hub

    def __call__(self, callback, *args, context=None):
        if in_worker() and not self.hub.scheduler.slot.at_home():
            self.note_from_worker()
            return self.hub.loop.call_soon_threadsafe(callback, *args, context=context)
        self.hub.callbacks_waiting = True
        return self.hub.raw_call_soon(self.hub.loop, callback, *args, context=context)

    cdef int note_from_worker(self) except -1:
        cdef section here = outside()
        cdef Scheduler scheduler = self.hub.scheduler
        if enter_if_owner(&here.worker, scheduler):
            self.hub.callbacks_waiting = True
        return 0


#: Methods of a loop that change libuv's handles, or what only home may change: see ``_OwnersOnly``.
_OWNERS_ONLY = (
    "call_later", "call_at", "create_task", "add_reader", "remove_reader", "add_writer", "remove_writer",
)
_INSTEAD = {
    "create_task": "await_(coroutine) runs it there and waits for it, from_thread.run(loop.create_task, coroutine) "
                   "only starts it",
}


cdef class _OwnersOnly:
    """A method of a loop with thread fibers: in their threads it is for the owner of the slot only.

    While a thread fiber has the slot, the thread of the loop waits for it, inside a callback: then the method may be
    called like in any callback.  A detached one runs beside the loop.  Which of the two it is is not up to the program,
    so debug mode says no to both.  Threads that are no workers are asyncio's (and uvloop's) business.
    """

    cdef LoopHub hub
    cdef object method
    cdef str name

    def __call__(self, *args, **kwargs):
        if in_worker() and not self.hub.scheduler.slot.at_home():
            if self.name != "create_task":
                return self.call_as_owner(args, kwargs)
            # runs code of the program (a task factory), and needs nothing but what call_soon does
            if not self.is_owner():
                if args and asyncio.iscoroutine(args[0]):
                    args[0].close()
                self.refuse()
        return self.method(*args, **kwargs)

    cdef object call_as_owner(self, tuple args, dict kwargs):
        cdef section here = outside()
        cdef Scheduler scheduler = self.hub.scheduler
        if self.hub.loop.get_debug() or not enter_if_owner(&here.worker, scheduler):
            self.refuse()
        return self.method(*args, **kwargs)

    cdef bint is_owner(self) except -1:
        cdef section here = outside()
        cdef Scheduler scheduler = self.hub.scheduler
        return not self.hub.loop.get_debug() and enter_if_owner(&here.worker, scheduler)

    cdef int refuse(self) except -1:
        cdef PyObject *fiber = fiber_here()
        who = "the thread of a fiber" if fiber == NULL else repr(<object>fiber)
        instead = _INSTEAD.get(self.name, f"from_thread.run(loop.{self.name}, ...) calls it there")
        raise RuntimeError(
            f"loop.{self.name}() was called in {who}, whose kernel thread may run beside the event loop: {instead}"
        )


class _HeapHandle(asyncio.TimerHandle):
    """Of a ``call_later`` on our heap: knows its timer, so that ``cancel`` takes it out."""

    __slots__ = ("heap_timer",)


cdef class _LoopTimer(Timer):
    """A ``call_later`` on our heap: for loops with an injected clock."""

    cdef object handle
    cdef LoopHub hub

    cdef int fire(self) except -1:
        if not self.handle.cancelled():
            self.hub.loop.call_soon(self.handle._callback, *self.handle._args, context=self.handle._context)
        return 0


cdef class LoopHub(PollingHub):
    """Connects one loop with one scheduler."""

    def __init__(self, loop, Policy policy, Clock clock, Backend backend, slot):
        cdef uv_loop_head *head
        self.loop = loop
        self.raw_call_soon = uvloop.Loop.call_soon
        self.scheduler = Scheduler(
            self, policy=policy, clock=clock, fiber_type=Fiber, backend=backend, slot=slot
        )
        self.drain_callback = self.scheduler.drain_from_loop
        self.later = []
        self.empty_context = contextvars.Context()
        self.poller = Poller(self.scheduler, loop)
        self.uv_capsule = _uvloop_extension.libuv_get_loop_t_ptr(loop)
        head = <uv_loop_head *>PyCapsule_GetPointer(self.uv_capsule, NULL)
        self.uv_active_handles = &head.active_handles
        self.uv_active_requests = &head.active_reqs.count
        self.empty_context.run(loop.add_reader, self.poller.epoll_fd, self.turn)
        if loop.get_debug():
            self.watch_runs(True)

    def watch_runs(self, bint debug) -> None:
        """In debug mode, measure how long each fiber runs, for the log of slow callbacks: see slow.py."""
        if debug == (self.longest_run is not None):
            return
        if debug:
            self.longest_run = LongestRun()
            self.scheduler.add_instrument(self.longest_run)
            self.drain_callback = NamedDrain(self.scheduler.drain_from_loop, self.longest_run)
            turn = NamedDrain(self.turn, self.longest_run)
        else:
            self.scheduler.remove_instrument(self.longest_run)
            self.longest_run = None
            self.drain_callback = self.scheduler.drain_from_loop
            turn = self.turn
        self.empty_context.run(self.loop.add_reader, self.poller.epoll_fd, turn)

    def new_main(self, main, args, context):
        """Spawn the main fiber: the one whose end ends ``run``, and that a Deadlock is thrown into."""
        cdef FiberCore fiber = Fiber(self.scheduler, main, args, name="main", context=context)
        self.scheduler.main = fiber
        self.scheduler.spawn_fiber(fiber)
        return fiber

    def turn(self) -> None:
        """One turn of the poller: uvloop calls it when the epoll set has something."""
        cdef bint suspicion = self.suspects_deadlock
        self.suspects_deadlock = False
        self.poller.collect()
        if (
            suspicion
            and not self.scheduler.runnable()
            and self.scheduler.slot.inbox_head == NULL
            and self.looks_dead(0)
        ):
            self.check_deadlock()
        if self.jump_pending:
            self.jump()
        self.scheduler.drain()

    cdef int request_drain(self) except -1:
        self.callbacks_waiting = False
        self.raw_call_soon(self.loop, self.drain_callback, context=self.empty_context)
        return 0

    cdef int arm_timer(self, long long deadline_ns) except -1:
        return self.poller.arm(deadline_ns)

    cdef int notify(self) except -1:
        return self.poller.wake()

    cdef int call_soon(self, object callback, object argument, object context) except -1:
        self.callbacks_waiting = True
        if not self.scheduler.slot.at_home():
            self.later.append((callback, argument, context))
            self.unsettled = True
            return 0
        self.raw_call_soon(self.loop, callback, argument, context=context)
        return 0

    cdef int fail(self, object error) except -1:
        if self.error is None:
            self.error = error
            if self.scheduler.slot.at_home():
                self.loop.stop()
            else:
                self.stop_later = self.unsettled = True
        return 0

    cdef int threads_begin(self) except -1:
        cdef _OwnersOnly guard
        for name in _OWNERS_ONLY:
            guard = _OwnersOnly()
            guard.hub = self
            guard.name = name
            guard.method = getattr(self.loop, name)
            setattr(self.loop, name, guard)
        return 0

    cdef int settle(self) except -1:
        cdef list later = self.later
        self.later = []
        self.unsettled = False
        for callback, argument, context in later:
            self.raw_call_soon(self.loop, callback, argument, context=context)
        if self.stop_later:
            self.stop_later = False
            self.loop.stop()
        return 0

    # -- deadlock

    cdef int went_idle(self) except -1:
        if self.jumps():
            self.prepare_jump()
        # not for ever after fibers have run: a source of wake-ups that the loop does not see (a thread, a signal
        # handler) may be there for hours; and one that goes away later is a missed alarm, which is allowed
        if self.scheduler.switches != self.suspected_at:
            self.suspected_at = self.scheduler.switches
            self.suspicions = 0
        elif self.suspicions == SUSPICIONS:
            return 0
        # the idle handle that runs callbacks may be active here: one more than in the poll phase
        if self.looks_dead(2):
            self.suspicions += 1
            self.suspects_deadlock = True
            self.poller.wake()
        return 0

    # -- virtual time

    cdef bint jumps(self) except -1:
        """Does time jump when nothing can run?"""
        return isinstance(self.scheduler.clock, ManualClock) and (<ManualClock>self.scheduler.clock).may_jump()

    cdef int prepare_jump(self) except -1:
        """No fiber can run.  Callbacks go first; then ``turn`` decides, where libuv's handles can be counted."""
        cdef Scheduler s = self.scheduler
        if len(s.timers) == s.timers.housekeeping:
            return 0
        if self.callbacks_waiting:
            s.drain_requested = True
            return self.request_drain()
        if not self.jump_pending:
            self.jump_pending = True
            self.jump_attempts = 0
            self.poller.wake()
        return 0

    cdef int jump(self) except -1:
        """Nothing can run, and time is virtual: on to the next deadline, unless something real may happen before."""
        cdef Scheduler s = self.scheduler
        cdef long long head_ns = s.timers.head_ns()
        self.jump_pending = False
        if s.runnable() or s.slot.inbox_head != NULL or len(s.timers) == s.timers.housekeeping:
            return 0
        if self.callbacks_waiting or self.something_real():
            self.jump_pending = True
            self.jump_attempts += 1
            if self.jump_attempts < SUSPICIONS:
                # perhaps only because uvloop's idle handle is active still
                self.poller.wake()
            else:
                # what is real takes real time, and its end may be nobody's wake-up
                uvloop.Loop.call_later(self.loop, _JUMP_RETRY_S, self._look_again)
            return 0
        if head_ns > (<ManualClock>s.clock)._now_ns:
            (<ManualClock>s.clock)._now_ns = head_ns
        return 0

    def _look_again(self) -> None:
        """Look again."""
        self.poller.wake()

    def _call_returned(self, future) -> None:
        """An executor's call is over."""
        self.offloaded -= 1

    cdef bint something_real(self) except -1:
        """A call in a thread, or I/O, that may come to its end before virtual time goes on."""
        cdef FiberCore f
        if self.scheduler.slot.detached or self.offloaded or self.has_active_handles(0):
            return True
        for f in self.scheduler.fibers():
            if f._state == BLOCKED and (f.reason == READ or f.reason == WRITE):
                return True
        return False

    cdef bint has_active_handles(self, unsigned int margin) except -1:
        """Is there more in libuv than in an idle loop?  ``margin`` is how many more handles that may have now."""
        # an idle loop has its wake-up handle, our epoll descriptor and, in the main thread, the signal pipe
        return self.uv_active_requests[0] or self.uv_active_handles[0] > margin + (
            3 if threading.current_thread() is threading.main_thread() else 2
        )

    cdef bint looks_dead(self, unsigned int margin) except -1:
        """The cheap conditions; ``margin`` is how many more handles an idle loop may have active now."""
        cdef Scheduler s = self.scheduler
        if s.main is None or s.main._state != BLOCKED or s.external_waits or s.slot.detached:
            return False
        if len(s.timers) > s.timers.housekeeping or self.callbacks_waiting:
            return False
        return not self.has_active_handles(margin)

    cdef int check_deadlock(self) except -1:
        cdef Scheduler s = self.scheduler
        cdef FiberCore f
        if _deadlock.outside_sources(self.loop, (self.interrupt_handler,), len(s.slot.others)):
            return 0
        error = Deadlock(_deadlock.describe(s.fibers()))
        for f in s.fibers():
            if f is not s.main:
                f.cancel("deadlock")
        s.throw_into(s.main, error)
        return 0


cdef class _StopWhenDone:
    """The done callback of ``run_until_complete``: stops the loop, in that run only."""

    cdef object loop

    def __call__(self, future):
        if self.loop is None:
            return
        if not future.cancelled() and isinstance(future.exception(), (SystemExit, KeyboardInterrupt)):
            return  # it leaves the loop already
        self.loop.stop()


class Loop(uvloop.Loop):
    """An asyncio event loop (uvloop's) in which fibers run.

    ``policy`` decides which runnable fiber runs next (Fifo unless given); ``clock`` is what timers and timeouts
    are measured with (for tests); ``switch`` is what fibers run on: "native" or "greenlet" (see docs/switch.md);
    ``slot`` has the options of kernel threads (see ``swapco.lowlevel.Slot`` and docs/threads.md).
    """

    _hub = None
    # stop() was called for the run that goes on, or for the next one
    _stop_asked = False

    def __init__(self, *, policy=None, clock=None, switch=None, slot=None):
        try:
            backend = make_backend(switch)
        except (RuntimeError, ValueError):
            self.close()
            raise
        super().__init__()
        # uvloop has opened its descriptors already
        if policy is not None and not isinstance(policy, Policy):
            self.close()
            raise TypeError(f"a policy derives from swapco.lowlevel.Policy; {policy!r} does not")
        if clock is not None and not isinstance(clock, Clock):
            self.close()
            raise TypeError(f"a clock derives from swapco.lowlevel.Clock; {clock!r} does not")
        if slot is not None and not isinstance(slot, Slot):
            self.close()
            raise TypeError(f"slot is a swapco.lowlevel.Slot, not {slot!r}")
        if slot is not None:
            try:
                (<Slot>slot).check_made()
            except RuntimeError:
                self.close()
                raise
        if slot is None:
            # now, and not at the first spawn: its environment variables may be wrong
            try:
                slot = Slot()
            except ValueError:
                self.close()
                raise
        self._slot = slot
        self._policy = policy
        self._clock = clock
        self._backend = backend
        self._backend_is_asked_for = asked_for(switch) is not None
        if clock is not None:
            _make_hub(self)

    def set_debug(self, enabled):
        """Switch asyncio's debug mode; with fibers, slow-callback logs then name the fiber that took the time."""
        uvloop.Loop.set_debug(self, enabled)
        if self._hub is not None:
            (<LoopHub>self._hub).watch_runs(enabled)

    def run_forever(self):
        """Run until ``stop()`` is called."""
        self._check_place()
        return (<Backend>self._backend).call_in_hub(self._run_in_hub)

    def run_until_complete(self, future):
        """Run until a future (a coroutine becomes a task) is done; return its result, or raise its exception.

        RuntimeError if the loop is stopped before.  It differs from uvloop's when something else ends the run, and the
        future is done in the same turn: then the done callback, which is queued still, does not stop the next run.
        """
        cdef _StopWhenDone stops = _StopWhenDone()
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        new_task = not isfuture(future)
        future = asyncio.ensure_future(future, loop=self)
        if new_task:
            # an interrupt leaves it pending: nobody is to blame
            future._log_destroy_pending = False
        stops.loop = self
        future.add_done_callback(stops)
        try:
            self.run_forever()
        except BaseException:
            if new_task and future.done() and not future.cancelled():
                future.exception()  # seen: nobody else can
            raise
        finally:
            stops.loop = None
            future.remove_done_callback(stops)
        if not future.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return future.result()

    def stop(self):
        """Stop the loop once the callbacks that wait have run; thread fibers may call it, too."""
        if in_worker() and get_running_loop() is not self:
            self.call_soon_threadsafe(self.stop)
            return
        self._stop_asked = True
        uvloop.Loop.stop(self)

    def _check_place(self):
        """RuntimeError if the loop cannot run where the caller is; before anything has begun."""
        if not (<Backend>self._backend).may_run_here():
            self._take_greenlets()

    def _take_greenlets(self):
        """The loop is run inside a greenlet that somebody made: only greenlets go with that."""
        cdef LoopHub hub = self._hub
        cdef FiberCore fiber
        if self._backend_is_asked_for:
            raise RuntimeError(
                "an event loop whose fibers switch natively cannot run inside a greenlet: run it outside, or let "
                "greenlets carry the fibers, too (switch=\"greenlet\", or SWAPCO_SWITCH=greenlet)"
            )
        if hub is not None:
            for fiber in hub.scheduler.fibers():
                if fiber.stack is not None and not fiber.threaded:
                    raise RuntimeError(
                        f"{fiber!r} has a native stack, which cannot go on inside a greenlet: run the loop where it "
                        "ran before, or make it with switch=\"greenlet\""
                    )
            hub.scheduler.backend = make_backend("greenlet")
        self._backend = make_backend("greenlet")

    def _run_in_hub(self):
        cdef LoopHub hub = self._hub
        if hub is not None:
            hub.scheduler.bind()
        error = None
        try:
            uvloop.Loop.run_forever(self)
            while not self._stop_asked:
                # of two stops in one turn (main ends, and another fiber raises SystemExit) uvloop keeps the second one
                # in its queue, where the next run finds it: nobody has asked that one to stop
                uvloop.Loop.run_forever(self)
        finally:
            self._stop_asked = False
            hub = self._hub
            if hub is not None:
                # if something leaves the loop already, that is it
                error, hub.error = hub.error, None
                hub.scheduler.unbind()
        if error is not None:
            try:
                raise error
            finally:
                error = None  # its traceback would lead back to it

    def close(self):
        """Close the loop; live fibers are cancelled first, and get a second to end."""
        cdef LoopHub hub = self._hub
        if hub is not None and not self.is_closed() and not self.is_running():
            if hub.scheduler.live_count > hub.scheduler.slot.detached:
                self._end_fibers()
            if hub.scheduler.slot.detached:
                self._leave_threads()
            hub.scheduler.close_workers()
            self.remove_reader(hub.poller.epoll_fd)
            self._forget_hub()
            uvloop.Loop.close(self)
            hub.poller.close_descriptors()
        elif is_stuck(self):
            # all that can be done: the threads of fibers end, and what broke it may go on its way
            hub.scheduler.close_workers()
            self._forget_hub()
            hub.poller.close_descriptors()
        else:
            uvloop.Loop.close(self)

    def _forget_hub(self):
        self._hub = None
        # the bound methods made cycles
        for name in ("call_soon", "time", *_OWNERS_ONLY):
            self.__dict__.pop(name, None)

    def _end_fibers(self):
        cdef LoopHub hub = self._hub
        cdef Scheduler s = hub.scheduler
        s.main = None
        for fiber in s.fibers():
            fiber.cancel("the event loop is closing")

        def stop_when_done():
            if s.live_count > s.slot.detached and self.time() < give_up:
                uvloop.Loop.call_later(self, 0.001, stop_when_done)
            else:
                self.stop()

        give_up = self.time() + 1.0
        self.call_soon(stop_when_done)
        self.run_forever()
        rest = [fiber for fiber in s.fibers() if fiber.state != "DETACHED"]
        if rest:
            warnings.warn(
                f"{len(rest)} fibers did not end when the event loop was closed: {rest[:5]!r}",
                ResourceWarning, source=self,
            )

    def _leave_threads(self):
        """Thread fibers that block in the kernel: nobody can end them."""
        warn_of_left_fibers(
            [fiber for fiber in (<LoopHub>self._hub).scheduler.fibers() if fiber.state == "DETACHED"], self
        )

    # -- with an injected clock, the loop's timers follow it

    def _call_at_on_heap(self, when, callback, *args, context=None):
        cdef LoopHub hub = self._hub
        cdef _LoopTimer timer = _LoopTimer()
        timer.hub = hub
        timer.handle = _HeapHandle(when, callback, args, self, context)
        timer.handle.heap_timer = timer
        hub.scheduler.timers.arm(timer, duration_ns(when))
        return timer.handle

    def _call_later_on_heap(self, delay, callback, *args, context=None):
        return self._call_at_on_heap(self.time() + max(0, delay), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle):
        """asyncio.TimerHandle calls this.  A cancelled timer must not be one that virtual time jumps to."""
        cdef LoopHub hub = self._hub
        cdef Timer timer = handle.heap_timer
        if timer._index >= 0:
            hub.scheduler.timers.disarm(timer)

    def run_in_executor(self, executor, func, *args):
        """As asyncio's; virtual time waits for the call."""
        cdef LoopHub hub = self._hub
        future = uvloop.Loop.run_in_executor(self, executor, func, *args)
        if hub is not None and hub.jumps():
            hub.offloaded += 1
            future.add_done_callback(hub._call_returned)
        return future


cdef LoopHub _make_hub(loop):
    cdef LoopHub hub = LoopHub(loop, loop._policy, loop._clock, loop._backend, loop._slot)
    cdef _NotingCallSoon noting = _NotingCallSoon()
    noting.hub = hub
    loop._hub = hub
    loop.call_soon = noting
    loop.time = hub.scheduler.clock.time
    if type(hub.scheduler.clock) is not Clock:
        loop.call_at = loop._call_at_on_heap
        loop.call_later = loop._call_later_on_heap
    if get_running_loop() is loop:
        hub.scheduler.bind()
    return hub


cdef Scheduler scheduler_of(object loop):
    """The scheduler of a loop; made when first asked for."""
    cdef PollingHub hub
    if not isinstance(loop, Loop):
        if isinstance(getattr(loop, "_hub", None), PollingHub):
            # a loop of swapco.testing
            hub = loop._hub
            return hub.scheduler
        raise RuntimeError(
            f"fibers need swapco's event loop, and {type(loop).__name__} runs here: use swapco.run(main), "
            "or asyncio.run(main(), loop_factory=swapco.new_event_loop)"
        )
    hub = loop._hub
    if hub is None:
        if loop.is_closed():
            raise RuntimeError("the event loop is closed")
        hub = _make_hub(loop)
    return hub.scheduler


def hub_of(loop) -> LoopHub:
    """The hub of a loop: for the runner and for tests."""
    scheduler_of(loop)
    return loop._hub


def ran_before_fork(loop) -> bool:
    """Did it run fibers in the parent of this process?  Then it can only be closed."""
    return loop._hub is not None and (<LoopHub>loop._hub).scheduler.slot.is_inherited()


def is_stuck(loop) -> bool:
    """Does uvloop say that it runs, and it does not?  It never will, and cannot be closed.

    uvloop begins to run by calling Python code (a pair of sockets for signals); what a signal handler raises in there,
    such as KeyboardInterrupt, leaves it in that state.
    """
    return loop.is_running() and loop._hub is not None and not (<LoopHub>loop._hub).scheduler.running


def new_event_loop(*, policy=None, clock=None, switch=None, slot=None) -> Loop:
    """A new event loop that runs fibers: swapco's ``uvloop.new_event_loop``.  The keywords are ``Loop``'s."""
    return Loop(policy=policy, clock=clock, switch=switch, slot=slot)


class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes asyncio create swapco loops, as uvloop's class of this name makes it create uvloop's."""

    def new_event_loop(self):
        """A new ``Loop``."""
        return new_event_loop()


def install() -> None:
    """Make every new asyncio event loop a ``Loop``: ``uvloop.install`` for swapco.

    ``swapco.run(main)`` needs no installation and is the better way.
    """
    asyncio.set_event_loop_policy(EventLoopPolicy())
