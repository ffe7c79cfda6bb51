"""Strategies: how the next schedule is chosen.

None suffices alone; each finds bugs that another one misses:

- ``RandomWalk`` takes each enabled actor with the same probability.  Finds what many schedules show; hopeless where one
  actor must not run for long.
- ``URW`` weighs an actor by how much it still has to do, estimated from runs before: the longer program is not always
  behind.  (Zhao, Wolff, Mathur, Roychoudhury: Selectively uniform concurrency testing, ASPLOS 2025.)
- ``PCT(depth)`` gives each actor a random priority, lets the highest run, and lowers it at ``depth - 1`` random
  moments: a bug that needs ``depth`` ordering constraints is found with a known probability.  (Burckhardt, Kothari,
  Musuvathi, Nagarakatte: A randomized scheduler with probabilistic guarantees of finding bugs, ASPLOS 2010.)
- ``POS`` gives each pending step a random priority, and a new one to those that race with the step taken.  (Yuan, Yang,
  Gu: Partial order aware concurrency sampling, CAV 2018.)
- ``Replay`` follows a recorded schedule.
- ``Portfolio`` takes turns, and begins with what production would do.

Every one is a function of its seed, the number of the run, and what runs of the same search showed before: the same
seed repeats the same search.  ``start`` forgets what a search has learnt, so that an instance may serve several, one
after the other.  Those that run every schedule are in ``systematic``.
"""

from libc.stdint cimport uint64_t

from .control cimport Control, Strategy

from .schedule import load_schedule
from .trace import Execution


cdef class Random:
    """A small generator that is the same on every machine and version: xorshift64*, seeded by splitmix64."""

    cdef uint64_t state

    def __init__(self, *seeds):
        self.seed(0x9E3779B97F4A7C15, 0)
        for number in seeds:
            self.seed(self.state, number & 0xFFFFFFFFFFFFFFFF)

    cdef int seed(self, uint64_t first, uint64_t second) noexcept:
        cdef uint64_t z = first + second * <uint64_t>0x9E3779B97F4A7C15 + 1
        z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
        z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
        self.state = (z ^ (z >> 31)) | 1
        return 0

    cdef uint64_t next(self) noexcept:
        cdef uint64_t x = self.state
        x ^= x >> 12
        x ^= x << 25
        x ^= x >> 27
        self.state = x
        return x * <uint64_t>0x2545F4914F6CDD1D

    cdef Py_ssize_t below(self, Py_ssize_t n) noexcept:
        """A number from 0 to n - 1."""
        return <Py_ssize_t>((self.next() >> 33) % <uint64_t>n)


cdef class Seeded(Strategy):
    """A strategy that draws random numbers: ``seed`` and the number of the run decide which.

    ``seed`` None: that of the search.
    """

    cdef readonly object seed
    cdef uint64_t drawn_from
    cdef Random random

    def __init__(self, seed=None):
        if seed is not None and not isinstance(seed, int):
            raise TypeError(f"a seed is a whole number, or None for the seed of the search, not {seed!r}")
        self.seed = seed
        self.random = Random()
        self.start(0)

    def start(self, seed):
        """A search begins."""
        self.drawn_from = <uint64_t>((seed if self.seed is None else self.seed) & 0xFFFFFFFFFFFFFFFF)
        self.random.seed(self.drawn_from, 0)

    def begin(self, run):
        """A run begins."""
        self.random.seed(self.drawn_from ^ <uint64_t>0xD1B54A32D192ED03, <uint64_t>run)

    cdef Py_ssize_t pick_number(self, Control control) except -1:
        # the ordinary case half of the time
        return 0 if self.random.next() >> 63 else self.random.below(control.n)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_seed_of(self)})"


cdef str _seed_of(Seeded strategy):
    return "" if strategy.seed is None else f"seed={strategy.seed}"


cdef class RandomWalk(Seeded):
    """Each enabled actor with the same probability."""

    cdef Py_ssize_t pick(self, Control control) except -1:
        return self.random.below(control.n)


cdef class URW(Seeded):
    """Each enabled actor with a probability proportional to what it still has to do, estimated from runs before."""

    # at how many moments each actor was taken, in the longest of the runs before
    cdef list expected

    def start(self, seed):
        """A search begins."""
        Seeded.start(self, seed)
        self.expected = []

    cdef Py_ssize_t pick(self, Control control) except -1:
        cdef int i = 0
        cdef int actor
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t weight, at
        cdef list weights = []
        for i in range(control.n):
            actor = control.enabled[i]
            weight = 1
            if actor < len(self.expected):
                weight = max(1, <Py_ssize_t>self.expected[actor] - control.taken[actor])
            total += weight
            weights.append(weight)
        at = self.random.below(total)
        for i in range(control.n):
            at -= <Py_ssize_t>weights[i]
            if at < 0:
                break
        return i

    cdef int over(self, Control control) except -1:
        cdef Py_ssize_t actor
        for actor in range(len(control.actors)):
            if actor == len(self.expected):
                self.expected.append(0)
            self.expected[actor] = max(<Py_ssize_t>self.expected[actor], control.taken[actor])
        return 0


cdef class PCT(Seeded):
    """Random priorities, lowered at ``depth - 1`` random moments: ``depth`` is how many orderings a bug needs."""

    cdef readonly int depth
    cdef list priorities
    cdef list changes
    cdef int length
    cdef int decided

    def __init__(self, depth=3, seed=None):
        Seeded.__init__(self, seed)
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth is a number from 1 on, not {depth!r}")
        self.depth = depth

    def __repr__(self) -> str:
        return f"PCT({', '.join(filter(None, [str(self.depth), _seed_of(self)]))})"

    def start(self, seed):
        """A search begins."""
        Seeded.start(self, seed)
        self.length = 0

    def begin(self, run):
        """A run begins."""
        Seeded.begin(self, run)
        self.priorities = []
        self.decided = 0
        # the longest run so far says where a change may be
        self.changes = [self.random.below(self.length or 16) for _ in range(self.depth - 1)]

    cdef Py_ssize_t pick(self, Control control) except -1:
        cdef int i, best, actor
        cdef uint64_t highest, priority
        while True:
            best = 0
            highest = 0
            for i in range(control.n):
                actor = control.enabled[i]
                while len(self.priorities) <= actor:
                    self.priorities.append((self.random.next() >> 2) + 1000)
                priority = self.priorities[actor]
                if priority > highest:
                    highest = priority
                    best = i
            if self.decided not in self.changes:
                break
            i = self.changes.index(self.decided)
            self.changes[i] = -1
            self.priorities[control.enabled[best]] = self.depth - i
        self.decided += 1
        return best

    cdef int over(self, Control control) except -1:
        self.length = max(self.length, control.recorded)
        return 0


cdef class POS(Seeded):
    """A random priority for each pending step; a new one for those that race with the step taken."""

    cdef list priorities
    cdef list pending

    def begin(self, run):
        """A run begins."""
        Seeded.begin(self, run)
        self.priorities = []
        self.pending = []

    cdef Py_ssize_t pick(self, Control control) except -1:
        cdef int i, actor
        cdef int best = 0
        cdef uint64_t highest = 0
        for i in range(control.n):
            actor = control.enabled[i]
            while len(self.priorities) <= actor:
                self.priorities.append(self.random.next() >> 1)
                self.pending.append(None)
        if control.current >= 0:
            self.pending[control.current] = None if control.about == NULL else <object>control.about
        for i in range(control.n):
            actor = control.enabled[i]
            if <uint64_t>self.priorities[actor] > highest:
                highest = self.priorities[actor]
                best = i
        actor = control.enabled[best]
        touched = self.pending[actor]
        self.priorities[actor] = self.random.next() >> 1
        self.pending[actor] = None
        if touched is not None:
            for i in range(control.n):
                if self.pending[control.enabled[i]] is touched:
                    self.priorities[control.enabled[i]] = self.random.next() >> 1
        return best

    cdef int over(self, Control control) except -1:
        self.pending = []
        return 0


cdef class Chosen(Strategy):
    """Asks a ``trace.Chooser``; one with a method ``watch`` sees the steps while the run goes on."""

    cdef object chooser
    cdef object ask
    cdef bint shown

    def __init__(self, chooser):
        self.follow(chooser)

    cpdef follow(self, chooser):
        """In the next run ask this one."""
        self.chooser = chooser
        self.ask = chooser.choose
        self.shown = not hasattr(chooser, "watch")

    def choose(self, enabled, current, label):
        """What the chooser says."""
        return self.ask(enabled, current, label)

    cdef Py_ssize_t pick(self, Control control) except -1:
        if not self.shown:
            self.shown = True
            self.chooser.watch(Execution(steps=control.steps))
        return Strategy.pick(self, control)


cdef class Path(Strategy):
    """Follows recorded decisions, then does what production would do.

    ``diverged`` is how many decisions could not be made as recorded: they count as 0.
    """

    cdef list path
    cdef Py_ssize_t at
    cdef readonly Py_ssize_t diverged
    # the first decision that was not there as recorded, or -1
    cdef readonly Py_ssize_t first_divergence

    def __init__(self, path=()):
        self.follow(path)

    cpdef follow(self, path):
        """In the next run follow this path."""
        self.path = list(path)

    def begin(self, run):
        """A run begins."""
        self.at = 0
        self.diverged = 0
        self.first_divergence = -1

    cdef Py_ssize_t pick(self, Control control) except -1:
        cdef Py_ssize_t wanted
        if self.at >= len(self.path):
            return 0
        wanted = self.path[self.at]
        self.at += 1
        if 0 <= wanted < control.n:
            return wanted
        if self.diverged == 0:
            self.first_divergence = self.at - 1
        self.diverged += 1
        return 0

    @property
    def left(self) -> int:
        """How many recorded decisions the run did not get to."""
        return len(self.path) - self.at


cdef class ByName(Strategy):
    """Chooses by the names of who runs: survives changes of the program that add or remove decisions.

    ``named`` are ``schedule.Named``.
    """

    cdef tuple named
    cdef dict wanted
    cdef dict counts
    cdef str before

    def __init__(self, named):
        self.named = tuple(named)

    def begin(self, run):
        """A run begins."""
        self.wanted = {(entry.before, entry.label, entry.nth): entry.chosen for entry in self.named}
        self.counts = {}
        self.before = ""

    cdef Py_ssize_t pick(self, Control control) except -1:
        cdef Py_ssize_t index = 0
        cdef list names = [control.name(control.actor(control.enabled[i])) for i in range(control.n)]
        running = control.running
        key = (control.name(running) if running is not None else self.before, <object>control.label)
        count = self.counts.get(key, 0)
        self.counts[key] = count + 1
        wanted = self.wanted.get((*key, count))
        if wanted in names:
            del self.wanted[(*key, count)]
            index = names.index(wanted)
        self.before = names[index]
        return index

    @property
    def missed(self) -> list:
        """What was recorded and did not come, in words."""
        return [
            f"{before or 'the start'} never came to its {label} number {count + 1} with {chosen} able to run"
            for (before, label, count), chosen in self.wanted.items()
        ]


cdef class Replay(Strategy):
    """Follows a recorded schedule: once by its numbers, and once by the names in it, if there are any.

    ``schedule`` is a Schedule, a file, the code of a report, or a list of decisions.  Decisions that are not there as
    recorded are made as production would: ``testing.replay`` is for whoever wants to know.  In a Portfolio, before
    others, it looks first whether an old failure is back.
    """

    cdef readonly object schedule
    cdef list ways
    cdef Strategy now
    cdef bint checked

    def __init__(self, schedule):
        self.schedule = load_schedule(schedule)
        self.start(0)

    def __repr__(self) -> str:
        return f"Replay({self.schedule.code!r})"

    @property
    def finished(self) -> bool:
        """It was followed in each way."""
        return not self.ways

    def start(self, seed):
        """A search begins."""
        self.ways = [Path(self.schedule.path)]
        if self.schedule.named:
            self.ways.append(ByName(self.schedule.named))

    def begin(self, run):
        """A run begins."""
        self.checked = False
        self.now = self.ways.pop(0) if self.ways else Path()
        self.now.begin(run)

    cdef Py_ssize_t pick(self, Control control) except -1:
        if not self.checked:
            self.checked = True
            if control.at_primitives != (self.schedule.preempt == "primitives"):
                raise ValueError(
                    f"the schedule was recorded with preempt={self.schedule.preempt!r}: search so, too"
                )
        return self.now.pick(control)


cdef class Portfolio(Strategy):
    """Takes turns: the first run is what production would do, then each strategy in order, again and again.

    ``strategies`` are those that take turns; one that is there twice has two turns of a round.  Unless given: ``URW``
    three times, ``RandomWalk`` twice, ``PCT(1)``, ``POS`` and ``PCT(3)``.  The first two find most bugs, a lock that is
    handed to a waiter which was cancelled a moment before in 1 of 12 and 1 of 25 runs, where the others need hundreds;
    starvation is the other way round.  One that has finished is passed over; when an exhaustive one has, so has the
    portfolio.  ``seed`` is for those that have none of their own, each gets another one from it; None: the seed of the
    search.
    """

    cdef readonly tuple strategies
    # nobody asked for these
    cdef bint usual
    # each of them once
    cdef tuple distinct
    cdef readonly object seed
    cdef Strategy now
    cdef Strategy production

    def __init__(self, *strategies, seed=None):
        if seed is not None and not isinstance(seed, int):
            raise TypeError(f"a seed is a whole number, or None for the seed of the search, not {seed!r}")
        self.seed = seed
        self.usual = not strategies
        if self.usual:
            weighed, walk = URW(), RandomWalk()
            strategies = (weighed, PCT(1), walk, weighed, POS(), walk, weighed, PCT(3))
        self.strategies = strategies
        self.distinct = tuple(dict.fromkeys(strategies))
        for strategy in self.strategies:
            if not isinstance(strategy, Strategy):
                raise TypeError(f"a Portfolio is made of strategies, not {strategy!r}")
        self.production = Path()
        self.start(0)

    def __repr__(self) -> str:
        seed = [] if self.seed is None else [f"seed={self.seed}"]
        return f"Portfolio({', '.join([*map(repr, () if self.usual else self.strategies), *seed])})"

    @property
    def exhaustive(self) -> bool:
        """One of them is."""
        return any(strategy.exhaustive for strategy in self.strategies)

    @property
    def footprints(self) -> bool:
        """One of them needs them."""
        return any(strategy.footprints for strategy in self.strategies)

    @property
    def finished(self) -> bool:
        """An exhaustive one has finished, or all have."""
        finished = [strategy for strategy in self.strategies if strategy.finished]
        return len(finished) == len(self.strategies) or any(strategy.exhaustive for strategy in finished)

    def start(self, seed):
        """A search begins."""
        cdef Py_ssize_t i
        for i in range(len(self.distinct)):
            self.distinct[i].start((seed if self.seed is None else self.seed) + i)

    def begin(self, run):
        """A run begins."""
        cdef Py_ssize_t i
        cdef Py_ssize_t n = len(self.strategies)
        self.now = self.production
        if run > 0:
            for i in range(run - 1, run - 1 + n):
                if not self.strategies[i % n].finished:
                    self.now = self.strategies[i % n]
                    break
        self.now.begin(run)

    cdef Py_ssize_t pick(self, Control control) except -1:
        return self.now.pick(control)

    cdef Py_ssize_t pick_number(self, Control control) except -1:
        return self.now.pick_number(control)

    cdef int over(self, Control control) except -1:
        # all of them learn how long the program is
        cdef Strategy strategy
        for strategy in self.distinct:
            strategy.over(control)
        return 0
