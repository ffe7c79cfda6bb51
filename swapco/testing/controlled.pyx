"""One slot without an event loop: runs a program under a strategy, thousands of times a second.

Theory
------
A scheduler needs little of a loop: to be called again when there is something to run.  Here that is a C loop: drain;
run one callback of the in-memory loop if that was chosen; until the program has ended or nothing can run.  Nothing is
made anew for a run but its fibers: the scheduler, the stacks and the loop stay.  (A fresh uvloop loop costs more than
a whole run may.)

A run ends in one of these ways, which ``Outcome.kind`` names:

- ``passed``: the body returned, and every fiber that it started has ended without an exception that nobody saw;
- ``failed``: the body raised, or another fiber did and nobody looked at it (the first such one), or a callback;
- or nothing can run though fibers wait: Deadlock, LostWakeup (the body waits) or FiberLeak (it has ended);
- or the bound on the number of moments is exceeded;
- ``aborted``: the strategy gave the run up.

After the body's end the others run on, as long as they can: a fiber that would have failed later is not let off.

Invariants
----------
- Between two runs no fiber lives.  A program that cannot be unwound (it catches what it must not, again and again)
  costs its slot: a new one is made.
- What the event loop of the program would be (``asyncio.get_running_loop()``) is the in-memory one, only while it
  runs.
"""

from cpython.object cimport PyObject

from .._core.clock cimport NEVER_NS, VirtualClock
from .._core.fiber cimport FiberCore, Watcher
from .._core.scheduler cimport Scheduler
from .._core.slot cimport Slot, Worker
from .._core.states cimport *
from .._loop.poller cimport PollingHub
from .._loop.task cimport Fiber
from .control cimport (
    ABANDONED, GOES_ON, STEP_BOUND, STOPPED, Control, Strategy, Watch, activate, in_controlled_run
)

from .._core.backends import make_backend
from .._loop.compat import get_running_loop, set_running_loop
from .errors import StepBoundExceeded, Unwinding
from .loop import ControlledLoop
from .outside import watch_outside
from .places import place_of_frame
from .points import refuse_real
from .stuck import leak, nothing_can_run


cdef class ControlledHub(PollingHub):
    """The loop's side of a scheduler, in memory."""

    cdef int request_drain(self) except -1:
        return 0

    cdef int arm_timer(self, long long deadline_ns) except -1:
        return 0

    cdef int notify(self) except -1:
        return 0

    cdef int went_idle(self) except -1:
        return 0

    cdef int settle(self) except -1:
        return 0

    cdef int fail(self, object error) except -1:
        if self.failure is None:
            self.failure = error
        return 0

    cdef int call_soon(self, object callback, object argument, object context) except -1:
        self.loop.call_soon(callback, argument, context=context)
        return 0

    cdef int refuse_io(self) except -1:
        refuse_real("I/O on a descriptor")


cdef class _MainWatch(Watcher):
    """Ends the run when the body fails."""

    cdef Control control

    cdef int fiber_done(self, FiberCore f) except -1:
        if f.exception_value is not None and self.control.verdict == GOES_ON:
            self.control.verdict = STOPPED
        return 0


cdef class Outcome:
    """What one run came to; what the control recorded of it is valid until the next one."""

    cdef readonly str kind
    cdef readonly object exception
    cdef readonly object result

    def __init__(self, kind, exception=None, result=None):
        self.kind = kind
        self.exception = exception
        self.result = result

    @property
    def failed(self) -> bool:
        return self.kind == "failed"


cdef class ControlledSlot:
    """Runs programs of fibers under control, one after the other.

    ``switch`` is what fibers run on: "native" or "greenlet", as for ``swapco.run``.
    """

    def __init__(self, *, switch=None):
        cdef Slot slot
        self.backend = make_backend(switch)
        if not self.backend.may_run_here():
            self.backend = make_backend("greenlet")
        self.control = Control(VirtualClock())
        self.hub = ControlledHub.__new__(ControlledHub)
        self.hub.control = self.control
        self.make_loop()
        slot = Slot(pin=False)
        self.scheduler = Scheduler(
            self.hub, policy=self.control, clock=self.control.clock, fiber_type=Fiber, backend=self.backend, slot=slot
        )
        self.scheduler.controlled = True
        self.hub.scheduler = self.scheduler
        self.control.scheduler = self.scheduler
        self.stand_in = Worker.__new__(Worker)
        self.stand_in.scheduler = <PyObject *>self.scheduler
        self.stand_in.controller = Watch(self.control)
        self.main_watch = _MainWatch.__new__(_MainWatch)
        (<_MainWatch>self.main_watch).control = self.control

    cdef int make_loop(self) except -1:
        self.loop = ControlledLoop(self.control)
        self.hub.loop = self.loop
        self.loop._hub = self.hub
        return 0

    def session(self, fn):
        """Call ``fn()``, in which ``execute`` may be called; return its result.

        RuntimeError inside a running event loop: a controlled run needs the thread for itself.
        """
        if in_controlled_run():
            raise RuntimeError("a controlled run cannot contain another one: call swapco.testing outside of the body")
        if get_running_loop() is not None:
            raise RuntimeError(
                "an event loop runs in this thread: call swapco.testing from a plain function, not from inside "
                "swapco.run() or a coroutine (its body may be an async def function)"
            )
        watch_outside()
        return self.backend.call_in_hub(lambda: self._bound(fn))

    def _bound(self, fn):
        self.scheduler.bind()
        self.bound = True
        try:
            return fn()
        finally:
            self.bound = False
            if not self.spoiled:
                self.scheduler.unbind()
            else:
                activate(None, False, None)

    def execute(self, body, Strategy strategy not None, int run=0):
        """Run ``body`` once, as the main fiber, under ``strategy``; return the Outcome."""
        cdef Control control = self.control
        cdef Scheduler s = self.scheduler
        cdef FiberCore main
        cdef object outcome
        if not self.bound:
            raise RuntimeError("execute() is called in session()")
        control.reset(strategy)
        control.clock._now_ns = 0
        self.hub.failure = None
        if self.loop._used:
            # futures that are left of the run before must not fail this one
            self.make_loop()
        self.loop._begin()
        strategy.begin(run)
        set_running_loop(self.loop)
        activate(control, control.at_primitives or control.footprints, self.stand_in)
        try:
            main = Fiber(s, body, (), name="main")
            main.watch(self.main_watch)
            s.spawn_fiber(main)
            try:
                self.run_until_stuck()
                if control.step is not None:
                    control.end_step(False)
                outcome = self.judge(main)
                control.refused = None
                strategy.over(control)
            finally:
                if s.live_count:
                    self.unwind()
                self.retrieve_all()
        finally:
            activate(None, False, None)
            set_running_loop(None)
            self.loop._end()
            # what call_later armed would fire in the next run
            while s.timers.pop_due(NEVER_NS) is not None:
                pass
        return outcome

    cdef int run_until_stuck(self) except -1:
        """Run fibers and callbacks until nothing can run, or the run is over."""
        cdef Control control = self.control
        while True:
            self.scheduler.drain()
            if control.loop_turn:
                control.loop_turn = False
                self.loop._run_one()
                if self.hub.failure is not None:
                    control.verdict = STOPPED
                continue
            if self.hub.failure is not None:
                control.verdict = STOPPED
                return 0
            if control.verdict != GOES_ON or not self.scheduler.runnable():
                return 0

    def judge(self, FiberCore main) -> Outcome:
        """How the run ended."""
        cdef Control control = self.control
        cdef FiberCore fiber
        if self.hub.failure is not None:
            raise self.hub.failure
        if control.verdict == ABANDONED:
            return Outcome("aborted", control.error)
        if control.verdict == STEP_BOUND:
            return Outcome("failed", StepBoundExceeded(
                f"the run had more than {control.max_steps} moments at which a fiber could run: it may never end; "
                "max_steps= is the bound"
            ))
        if main._state == DONE:
            main.result_retrieved = True
            if main.exception_value is not None:
                return Outcome("failed", main.exception_value)
        for fiber in control.fibers:
            if fiber is not None and fiber._state == DONE and _is_unseen(fiber):
                fiber.result_retrieved = True
                return Outcome("failed", fiber.exception_value)
        if control.refused is not None:
            # somebody has caught it
            return Outcome("failed", control.refused)
        if self.loop._problem is not None:
            return Outcome("failed", self.loop._problem)
        if self.scheduler.live_count:
            rest = self.scheduler.fibers()
            return Outcome("failed", leak(rest) if main._state == DONE else nothing_can_run(rest))
        return Outcome("passed", None, main.result_value)

    cdef int unwind(self) except -1:
        """End every fiber of the run."""
        cdef Control control = self.control
        cdef int rounds = 0
        control.unwinding = True
        control.quiet = 0
        control.unwind_error = Unwinding("the controlled run is over")
        control.forced = NULL
        while self.scheduler.live_count:
            rounds += 1
            self.scheduler.drain()
            if control.gave_up() or (not self.loop._run_one() and not self.scheduler.runnable() and rounds > 100):
                break
        if self.scheduler.live_count:
            self.spoiled = True
            self.survivors = [
                fiber.name + (f" (at {place})" if (place := place_of_frame(fiber.frame)) is not None else "")
                for fiber in sorted(self.scheduler.fibers(), key=lambda fiber: fiber.number)
            ]
        return 0

    cdef int retrieve_all(self) except -1:
        """The run is judged.  What a fiber has raised must not be reported when it is collected: that may be in the
        middle of another run, which would fail for it."""
        cdef FiberCore fiber
        for fiber in self.control.fibers:
            if fiber is not None and fiber._state == DONE:
                fiber.result_retrieved = True
        return 0

    @property
    def immortals(self) -> list:
        """The names, and lines, of fibers that could not be ended."""
        return self.survivors or []

    @property
    def usable(self) -> bool:
        """False once fibers are left that could not be ended: make a new slot."""
        return not self.spoiled


cdef bint _is_unseen(FiberCore fiber) except -1:
    """Did it raise something that nobody has looked at?"""
    return (
        fiber.exception_value is not None and not fiber.result_retrieved and not fiber.cancelled()
        and not isinstance(fiber.exception_value, Unwinding)
    )
