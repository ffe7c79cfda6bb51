"""The decision hook: a policy under which every "who runs next" is asked of a strategy, and recorded.

Theory
------
A controlled run is a run of the real scheduler under this policy.  What can run next is an *actor*: a fiber, a timer
that is due, or the loop with its next callback; actors have small numbers, in the order in which they first could run.
A *moment* at which an actor starts to run is a *decision* if there are at least two to choose from.  ``enabled`` lists
them in the order of preference of the production policy: whoever runs already and may go on, then the run queue first
in first out, then timers by deadline, then the loop.  So index 0 is what would happen without control, and the distance
from there is the number of decisions that are not 0.

Moments are: a fiber blocks, yields or ends (then nobody is *current*), a ``schedule_point`` (whoever calls it is
current, and goes on unless another actor is chosen: that is a *preemption*), and, if ``at_primitives``, the entry into
an operation of a primitive that may block.  A direct handoff is none: ``switch_to`` says who runs.

Time stands still while anybody can run.  Then it jumps to the next deadline, and all timers of that instant are actors:
the order in which they fire, and whether what they woke runs before the next one fires, are decisions.

A fiber that yields lets somebody else go first, as it would in production: it is not enabled at that one decision.
Otherwise a loop of ``while not done: sleep(0)`` would never end under a strategy that prefers it.

The run is *unwound* after a failure: every fiber gets an exception of a class that programs do not catch, at its next
block again, until all have ended.  Nothing is decided or recorded any more.

Invariants
----------
- The same program under the same decisions makes the same moments, actors and decisions: whatever depends on real time
  or on a thread is off in the scheduler (``Dispatcher.controlled``).
- Nothing that a strategy raises reaches the program: the run is abandoned with that error.
- The queue borrows its fibers: ``fibers`` holds all of the run until the next one begins.

Rejected: threads and a lock handed around, as tools for real threads must (a thousand times slower); recording Python
objects (a decision costs less than the switch that it is about: arrays of C, made into objects when somebody looks).
"""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t
from libc.string cimport memmove

from .._core.clock cimport NEVER_NS, ManualClock, Timer
from .._core.fiber cimport FiberCore, WaitTimer
from .._core.here cimport host, set_running
from .._core.policy cimport Policy, Runnable
from .._core.reasons cimport N_REASONS
from .._core.slot cimport Controller, Worker
from .._core.states cimport *

from ..timeouts cimport Timeout

from .trace import Decision, Step

cdef extern from *:
    """
    /* The control of the run that goes on in this kernel thread; borrowed. */
    static __thread PyObject *swapco_control __attribute__((tls_model("initial-exec"))) = NULL;
    """
    PyObject *swapco_control

cdef enum:
    # how often a fiber that goes on while it is unwound gets the exception, until it is given up
    UNWINDINGS = 100

# what kind of moment it is when a fiber waits, by the reason
cdef tuple _LABELS = (
    "block", "block", "switch_to", "ParkingLot.park", "sleep", "join", "Lock", "Event", "Condition", "Semaphore",
    "Queue.get", "Queue.put", "Queue.join", "fibers", "read", "write", "await",
)
assert len(_LABELS) == N_REASONS
# Operations before which nobody else may run: `park` has no memory, so that primitives written on it look first and
# rely on that; before a `sleep` it makes no difference.
cdef frozenset _NO_POINTS = frozenset({"ParkingLot.park", "sleep"})
cdef str _START = "start"
cdef str _END = "end"
cdef str _YIELD = "yield"
cdef str _POINT = "schedule_point"
cdef object _LOOP_ACTOR = "the event loop"


# ----------------------------------------------------------------------------------------------- strategies

cdef class Strategy:
    """Names who runs next.  Derive from it and define ``choose``; the built-in ones are compiled.

    ``start(seed)`` is called before a search, ``begin(run)`` before each run with its number, ``end(control)`` after
    it.  ``exhaustive``: when it has finished, every schedule within its bounds was run.  ``simplest_first``: no failure
    is simpler than the first one that it finds.  ``footprints``: it needs to know what each step touches.
    """

    exhaustive = False
    simplest_first = False
    footprints = False

    @property
    def finished(self) -> bool:
        """Nothing is left to run; asked after each run."""
        return False

    def start(self, seed: int) -> None:
        """A search begins: forget earlier ones.  ``seed`` is the search's, for a strategy that has none of its own."""

    def begin(self, run: int) -> None:
        """A run begins; the first one is number 0."""

    def choose(self, enabled: tuple, current: int, label: str) -> int:
        """The index into ``enabled`` (actor numbers) of who runs next.  ``current`` is the actor that runs already
        and may go on, then it is ``enabled[0]``; or -1."""
        raise TypeError(f"{type(self).__name__} must define choose(enabled, current, label)")

    def end(self, control) -> None:
        """The run is over; ``control.decisions()`` has what was decided."""

    cdef Py_ssize_t pick_number(self, Control control) except -1:
        """As ``pick``, for a choice of the program's environment (``choose``): the "actors" are numbers below -1."""
        return self.pick(control)

    cdef int over(self, Control control) except -1:
        self.end(control)
        return 0

    cdef Py_ssize_t pick(self, Control control) except -1:
        cdef object chosen = self.choose(
            tuple([control.enabled[i] for i in range(control.n)]), control.current, <object>control.label
        )
        if not isinstance(chosen, int) or not 0 <= chosen < control.n:
            raise ValueError(
                f"{type(self).__name__}.choose() returned {chosen!r}: it must return an index from 0 to {control.n - 1}"
            )
        return chosen


# --------------------------------------------------------------------------------------------- the decision hook

cdef class Control(Policy):
    """The policy of a controlled run."""

    def __init__(self, ManualClock clock not None):
        self.clock = clock
        self.max_steps = 20_000
        self.reset(None)

    def __dealloc__(self):
        PyMem_Free(self.queue)
        PyMem_Free(self.queue_ids)
        PyMem_Free(self.enabled)
        PyMem_Free(self.records)
        PyMem_Free(self.ids)
        PyMem_Free(self.taken)

    cdef int reset(self, Strategy strategy) except -1:
        """A run begins."""
        self.strategy = strategy
        self.verdict = GOES_ON
        self.error = None
        self.queued = 0
        self.n = 0
        self.current = -1
        self.callbacks = []
        self.loop_actor = -1
        self.loop_turn = False
        self.timer_actors = {}
        self.due = []
        self.forced = self.yielded = NULL
        self.fibers = []
        self.actors = []
        self.moments = 0
        self.last = -1
        self.quiet = 0
        self.unwinding = False
        self.unwound = 0
        self.unwind_error = None
        self.refused = None
        self.steps = []
        self.step = None
        self.objects = {}
        self.objects_held = []
        self.recorded = 0
        self.ids_used = 0
        return 0

    # -- what the scheduler calls

    cdef int push_runnable(self, Runnable f) except -1:
        if f.mark == 0 or f.mark > len(self.actors) or self.actors[f.mark - 1] is not f:
            f.mark = self.new_actor(f, <FiberCore>f) + 1
        if self.queued == self.queue_capacity:
            self.reserve(2 * self.queue_capacity + 8)
        if self.step is not None:
            (<list>self.step[5]).append(f.mark - 1)
        self.queue[self.queued] = <PyObject *>f
        self.queue_ids[self.queued] = <int>(f.mark - 1)
        self.queued += 1
        f.queued = True
        if <PyObject *>f == self.scheduler.current and not self.firing:
            self.yielded = <PyObject *>f
        return 0

    cdef int remove_runnable(self, Runnable f) except -1:
        """For a handoff."""
        cdef int i = 0
        while self.queue[i] != <PyObject *>f:
            i += 1
        if self.step is not None:
            # what it does is part of the step of whoever hands over
            (<list>self.step[5]).append(f.mark - 1)
            self.step[4] = False
        self.take_out(i)
        return 0

    cdef Py_ssize_t count(self) except -1:
        return self.queued

    cdef PyObject *pop_runnable(self) except? NULL:
        cdef PyObject *p
        cdef int i
        if self.unwinding:
            return self.next_to_unwind()
        while self.verdict == GOES_ON:
            p = self.forced
            if p != NULL:
                self.forced = NULL
                i = 0
                while self.queue[i] != p:
                    i += 1
                self.take_out(i)
                return p
            if self.loop_turn:
                return NULL
            self.gather(None)
            if self.n == 0:
                if self.jump():
                    continue
                return NULL
            i = self.decide(None, NULL, None)
            if i < 0:
                return NULL
            if self.enabled[i] == self.loop_actor:
                self.loop_turn = True
                return NULL
            if self.fibers[self.enabled[i]] is None:
                try:
                    self.fire(self.enabled[i])
                except BaseException as error:
                    self.abandon(error)
                continue
            p = <PyObject *>self.fibers[self.enabled[i]]
            i = 0
            while self.queue[i] != p:
                i += 1
            self.take_out(i)
            return p
        return NULL

    # -- who is enabled

    cdef int reserve(self, int n) except -1:
        """Room for ``n`` in the run queue."""
        self.queue = <PyObject **>_grown(self.queue, n, sizeof(PyObject *))
        self.queue_ids = <int *>_grown(self.queue_ids, n, sizeof(int))
        self.queue_capacity = n
        return 0

    cdef int take_out(self, int i) noexcept:
        cdef Runnable f = <Runnable>self.queue[i]
        self.queued -= 1
        memmove(&self.queue[i], &self.queue[i + 1], (self.queued - i) * sizeof(PyObject *))
        memmove(&self.queue_ids[i], &self.queue_ids[i + 1], (self.queued - i) * sizeof(int))
        f.queued = False
        return 0

    cdef int new_actor(self, object what, FiberCore fiber) except -1:
        if fiber is not None:
            # its name in reports: the same in every run
            fiber.number = len(self.actors)
        cdef int number = <int>len(self.actors)
        if number >= self.taken_capacity:
            self.taken = <int *>_grown(self.taken, 2 * number + 16, sizeof(int))
            self.taken_capacity = 2 * number + 16
        self.taken[number] = 0
        self.actors.append(what)
        self.fibers.append(fiber)
        return number

    cdef int gather(self, FiberCore current) except -1:
        """Fill ``enabled``."""
        cdef int i, n = 0
        cdef long long now
        cdef Timer timer
        cdef PyObject *left_out = NULL
        if self.enabled_capacity < self.queued + 2:
            self.enabled = <int *>_grown(self.enabled, 2 * self.queued + 16, sizeof(int))
            self.enabled_capacity = 2 * self.queued + 16
        self.current = -1
        if current is not None:
            self.current = self.enabled[0] = <int>(current.mark - 1)
            n = 1
        elif self.yielded != NULL:
            left_out = self.yielded
            self.yielded = NULL
        for i in range(self.queued):
            if self.queue[i] != left_out:
                self.enabled[n] = self.queue_ids[i]
                n += 1
        now = self.clock._now_ns
        if self.scheduler.timers.head_ns() <= now:
            self.due = due = self.due_timers(now)
            if self.enabled_capacity < n + len(due) + 2:
                self.enabled = <int *>_grown(self.enabled, 2 * (n + <int>len(due)) + 16, sizeof(int))
                self.enabled_capacity = 2 * (n + <int>len(due)) + 16
            for timer in due:
                self.enabled[n] = self.timer_actor(timer)
                n += 1
        if self.callbacks:
            if self.loop_actor < 0:
                self.loop_actor = self.new_actor(_LOOP_ACTOR, None)
            self.enabled[n] = self.loop_actor
            n += 1
        if n == 0 and left_out != NULL:
            self.enabled[0] = <int>((<Runnable>left_out).mark - 1)
            n = 1
        self.n = n
        return 0

    def due_timers(self, now_ns) -> list:
        """Timers whose time has come, in the order in which production would fire them."""
        cdef Py_ssize_t i
        cdef Timer timer
        cdef list found = []
        for i in range(self.scheduler.timers._count):
            if self.scheduler.timers._entries[i].deadline_ns <= now_ns:
                timer = <Timer>self.scheduler.timers._entries[i].timer
                if not timer.housekeeping:
                    found.append((timer.deadline_ns, timer._sequence, timer))
        found.sort(key=_order)
        return [entry[2] for entry in found]

    def timer_actor(self, Timer timer) -> int:
        """The number of an armed timer: a new one each time that it is armed."""
        key = (timer._sequence, id(timer))
        found = self.timer_actors.get(key)
        if found is None:
            found = self.timer_actors[key] = self.new_actor(timer, None)
        return found

    cdef int fire(self, int actor) except -1:
        cdef Timer timer = self.actors[actor]
        self.scheduler.timers.disarm(timer)
        # it may wake the very fiber that has just stopped: that one has not yielded
        self.firing = True
        try:
            timer.fire()
        finally:
            self.firing = False
        return 0

    cdef bint jump(self) except -1:
        """Nobody can run: on to the next deadline.  False if there is none."""
        cdef Py_ssize_t i
        cdef long long next_ns = NEVER_NS
        cdef Timer timer
        if not self.clock.may_jump():
            return False
        for i in range(self.scheduler.timers._count):
            timer = <Timer>self.scheduler.timers._entries[i].timer
            if not timer.housekeeping and timer.deadline_ns < next_ns:
                next_ns = timer.deadline_ns
        if next_ns == NEVER_NS:
            return False
        if next_ns > self.clock._now_ns:
            self.clock._now_ns = next_ns
        return True

    # -- decisions

    cdef int decide(self, FiberCore current, PyObject *label, object about) noexcept:
        """Who of ``enabled`` runs next: its index; -1 if the run is to end."""
        cdef int chosen = 0
        cdef int decision = -1
        self.moments += 1
        if self.moments > self.max_steps:
            self.verdict = STEP_BOUND
            return -1
        try:
            if self.step is not None:
                self.end_step(about is not None)
            if label != NULL:
                self.label = label
            if self.n > 1:
                if label == NULL:
                    self.label = self.label_now()
                self.about = <PyObject *>about if about is not None else NULL
                chosen = <int>self.strategy.pick(self)
                decision = self.recorded
                self.note_decision(chosen)
                self.about = NULL
            if self.footprints:
                self.begin_step(
                    self.enabled[chosen], decision,
                    self.enabled[chosen] != self.loop_actor
                    and not (current is not None and about is None and chosen == 0 and label == <PyObject *>_POINT),
                )
            if self.watcher is not None:
                self.watcher(self, chosen)
        except BaseException as error:
            self.abandon(error)
            return -1
        self.last = self.enabled[chosen]
        self.taken[self.last] += 1
        return chosen

    cdef PyObject *label_now(self) noexcept:
        """What kind of moment it is when nobody is current."""
        cdef PyObject *p = self.scheduler.current
        cdef FiberCore f
        if p == NULL:
            return <PyObject *>(_END if self.moments > 1 else _START)
        f = <FiberCore>p
        if f._state == BLOCKED:
            return <PyObject *>_LABELS[f.reason]
        if f._state == DONE:
            return <PyObject *>_END
        return <PyObject *>_YIELD

    cdef int note_decision(self, int chosen) except -1:
        cdef Record *r
        cdef int i
        if self.recorded == self.records_capacity:
            self.records_capacity = 2 * self.records_capacity + 64
            self.records = <Record *>_grown(self.records, self.records_capacity, sizeof(Record))
        if self.ids_used + self.n > self.ids_capacity:
            self.ids_capacity = 2 * self.ids_capacity + self.n + 256
            self.ids = <int *>_grown(self.ids, self.ids_capacity, sizeof(int))
        r = &self.records[self.recorded]
        r.n = self.n
        r.offset = self.ids_used
        r.current = self.current
        r.chosen = chosen
        r.moment = self.moments
        r.label = self.label
        for i in range(self.n):
            self.ids[self.ids_used + i] = self.enabled[i]
        self.ids_used += self.n
        self.recorded += 1
        return 0

    cdef int abandon(self, object error) noexcept:
        """End the run: no fault of the program."""
        if self.verdict == GOES_ON:
            self.verdict = ABANDONED
            self.error = error
        return 0

    cdef int point(self, FiberCore me, PyObject *label, object about, bint write) except -1:
        """The running fiber offers that others run now."""
        cdef int i
        cdef list step
        if self.unwinding:
            return self.unwind_again(me)
        if self.quiet or me._state != RUNNING:
            return 0
        while True:
            self.gather(me)
            i = self.decide(me, label, about)
            if i == 0:
                if self.step is not None and about is not None:
                    self.touches(about, write)
                return 0
            if i > 0 and self.fibers[self.enabled[i]] is None and self.enabled[i] != self.loop_actor:
                self.fire(self.enabled[i])
                continue
            if i > 0:
                if self.enabled[i] == self.loop_actor:
                    self.loop_turn = True
                else:
                    self.forced = <PyObject *>self.fibers[self.enabled[i]]
            transition_yield(&me._state)
            # nobody woke it
            step, self.step = self.step, None
            self.push_runnable(me)
            self.yielded = NULL
            self.step = step
            self.scheduler.leave_to(me, self.scheduler.take())
            if self.unwinding:
                raise self.unwind_error
            if self.step is not None:
                if about is not None:
                    self.touches(about, write)
                elif label == <PyObject *>_POINT:
                    self.step[4] = False
            return 0

    cdef int named_point(self, object about, bint write) except -1:
        """``schedule_point``."""
        if self.scheduler.current != NULL:
            self.point(<FiberCore>self.scheduler.current, <PyObject *>_POINT, about, write)
        return 0

    cdef int number(self, int n, str label) except -1:
        """A choice that the environment of the program makes: how much of a message arrives, ..."""
        cdef int i, chosen = 0
        if self.unwinding or n < 2 or self.verdict != GOES_ON:
            return 0
        if self.enabled_capacity < n:
            self.enabled = <int *>_grown(self.enabled, n, sizeof(int))
            self.enabled_capacity = n
        for i in range(n):
            self.enabled[i] = -2 - i
        self.n = n
        self.current = -1
        self.label = <PyObject *>label
        try:
            chosen = <int>self.strategy.pick_number(self)
            self.note_decision(chosen)
            if self.watcher is not None:
                self.watcher(self, chosen)
        except BaseException as error:
            self.abandon(error)
        return chosen

    # -- after a failure

    cdef bint refuses(self) noexcept:
        """Does the program run now, so that what it does outside of the run counts?"""
        return self.verdict == GOES_ON and not self.unwinding

    cdef bint gave_up(self) noexcept:
        """Have they got the exception often enough?"""
        return self.unwound > UNWINDINGS * (1 + len(self.fibers))

    cdef int unwind_again(self, FiberCore me) except -1:
        """One that is being ended goes on all the same, in clean-up or in a loop that catches everything."""
        if me._state != RUNNING:
            return 0
        self.unwound += 1
        if self.gave_up():
            # it stops here for ever
            transition_yield(&me._state)
            self.push_runnable(me)
            self.scheduler.leave_to(me, self.scheduler.take())
        raise self.unwind_error

    cdef PyObject *next_to_unwind(self) except? NULL:
        cdef FiberCore f
        cdef PyObject *p
        if self.gave_up():
            return NULL
        while self.queued == 0:
            for f in self.scheduler.fibers():
                if f._state == BLOCKED:
                    self.unwound += 1
                    self.scheduler.throw_into(f, self.unwind_error)
                    if f._state == BLOCKED:
                        f.thrown = None
                        f.request_cancel(None)
            if self.gave_up():
                return NULL
            if self.queued == 0:
                # what awaits a future is woken by a callback
                return NULL
        self.unwound += 1
        p = self.queue[0]
        self.take_out(0)
        f = <FiberCore>p
        f.thrown = self.unwind_error
        f.cancel_pending = True
        return p

    # -- footprints

    cdef int begin_step(self, int actor, int decision, bint declared) except -1:
        cdef int i
        cdef list enabled = [self.enabled[i] for i in range(self.n)]
        self.step = [actor, decision, set(), set(), declared, [], tuple(enabled)]
        return 0

    cdef int end_step(self, bint leads_to_operation) except -1:
        """The step is over.  One that ``leads_to_operation`` ends where something declared begins."""
        cdef FiberCore fiber
        actor, decision, reads, writes, declared, woke, enabled = self.step
        fiber = self.fibers[actor]
        if not (reads or writes or leads_to_operation):
            # whoever declares nothing may have touched anything
            declared = False
        if fiber is not None and fiber._state == DONE:
            # for those who join it
            writes.add(self.id_of(fiber))
        self.step = None
        self.steps.append(
            Step(actor, decision, frozenset(reads), frozenset(writes), declared, tuple(woke), enabled)
        )
        return 0

    cdef int id_of(self, object thing) except -1:
        found = self.objects.get(id(thing))
        if found is None:
            found = self.objects[id(thing)] = len(self.objects)
            self.objects_held.append(thing)
        return found

    cdef int touches(self, object thing, bint write) except -1:
        if self.step is not None:
            (<set>self.step[3 if write else 2]).add(self.id_of(thing))
        return 0

    # -- what happened

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self.clock.time()

    def moment(self) -> tuple:
        """For a watcher: who is enabled, who of them is current, and what kind of moment it is."""
        cdef int i
        cdef PyObject *label = self.label_now() if self.n == 1 and self.current < 0 else self.label
        return tuple([self.enabled[i] for i in range(self.n)]), self.current, <object>label

    @property
    def running(self):
        """The fiber that has just stopped, or goes on if it is chosen; None: it has ended, or there was none."""
        return None if self.scheduler.current == NULL else <object>self.scheduler.current

    def actor(self, int number):
        """The fiber or timer with this number, or the name of the loop; below -1 a possibility of ``choose``."""
        return self.actors[number] if number >= 0 else f"possibility {-2 - number}"

    def name(self, actor) -> str:
        """An actor's name in reports."""
        if isinstance(actor, FiberCore):
            return actor.name
        if isinstance(actor, WaitTimer):
            fiber = (<WaitTimer>actor).fiber
            return "a timer" if fiber is None else f"timer of {fiber.name}"
        if isinstance(actor, Timeout):
            return f"timeout of {(<Timeout>actor).fiber.name}"
        return str(actor)

    def path(self) -> list:
        """The decisions: indices."""
        cdef int i
        return [self.records[i].chosen for i in range(self.recorded)]

    def decisions(self) -> list:
        """The decisions, as ``trace.Decision``."""
        cdef int i, j
        cdef Record *r
        cdef list found = []
        for i in range(self.recorded):
            r = &self.records[i]
            found.append(Decision(
                tuple([self.ids[r.offset + j] for j in range(r.n)]), r.current, r.chosen, <object>r.label
            ))
        return found

    def steps_taken(self) -> list:
        """With ``footprints``, the steps, as ``trace.Step``; the list grows while the run goes on."""
        return self.steps

    def costs(self) -> tuple:
        """How many preemptions, and how many decisions that production would not make."""
        cdef int i, preemptions = 0, deviations = 0
        for i in range(self.recorded):
            if self.records[i].chosen:
                deviations += 1
                preemptions += self.records[i].current >= 0
        return preemptions, deviations

    def signature(self) -> list:
        """A number for each decision that says what could be seen there: the same for the same program."""
        cdef int i, j
        cdef uint64_t h
        cdef Record *r
        cdef list found = []
        for i in range(self.recorded):
            r = &self.records[i]
            h = <uint64_t>(r.n * 31 + r.current + 7) * 1000003 + r.moment
            for j in range(r.n):
                h = h * 1000003 ^ <uint64_t>self.ids[r.offset + j]
            found.append((h, <object>r.label))
        return found


cdef void *_grown(void *memory, Py_ssize_t n, size_t size) except NULL:
    cdef void *grown = PyMem_Realloc(memory, n * size)
    if grown == NULL:
        raise MemoryError("no memory for a longer schedule")
    return grown


def _order(entry):
    return entry[:2]


# --------------------------------------------------------------------------------------- primitives' entries

cdef class Watch(Controller):
    """Sees every operation of a primitive."""

    def __init__(self, Control control not None):
        self.control = control

    cdef int before(self, str operation, object primitive) except -1:
        cdef Control c = self.control
        if primitive is None:
            # `block`: its token
            primitive = <object>c.scheduler.current
        elif operation == "switch_to":
            c.touches(<object>c.scheduler.current, True)
        if c.at_primitives and operation not in _NO_POINTS:
            c.point(<FiberCore>c.scheduler.current, <PyObject *>operation, primitive, True)
        else:
            c.touches(primitive, True)
        return 0

    cdef int touch(self, object primitive) except -1:
        if primitive is not None:
            self.control.touches(primitive, True)
        elif self.control.step is not None:
            self.control.step[4] = False
        return 0

    cdef int look(self, object primitive) except -1:
        if primitive is None:
            return self.touch(None)
        return self.control.touches(primitive, False)


# ------------------------------------------------------------------------------------------ the running one

cdef Control active():
    """The control of the run that goes on in this thread, or None."""
    return None if swapco_control == NULL else <Control>swapco_control


cdef int activate(Control control, bint observed, Worker stand_in) noexcept:
    """A controlled run goes on in this thread; None: no more.  ``observed``: operations of primitives are seen."""
    global swapco_control
    if control is None:
        swapco_control = NULL
        set_running(None)
        host(None)
    else:
        swapco_control = <PyObject *>control
        if observed:
            set_running(None)
            host(stand_in)
        else:
            set_running(control.scheduler)
            host(None)
    return 0


cdef bint in_controlled_run() noexcept:
    return swapco_control != NULL
