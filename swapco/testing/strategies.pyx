"""Strategies: how the next schedule is chosen.

None suffices alone; each finds bugs that another one misses:

- ``RandomWalk`` takes each enabled actor with the same probability.  Finds what many schedules show; hopeless where one
  actor must not run for long.
- ``URW`` weighs an actor by how much it still has to do, estimated from runs before: the longer program is not always
  behind.  (Zhao, Wolff, Mathur, Roychoudhury: Selectively uniform concurrency testing, ASPLOS 2025.)
- ``PCT(depth)`` gives each actor a random priority, lets the highest run, and lowers it at ``depth - 1`` random moments:
  a bug that needs ``depth`` ordering constraints is found with a known probability.  (Burckhardt, Kothari, Musuvathi,
  Nagarakatte: A randomized scheduler with probabilistic guarantees of finding bugs, ASPLOS 2010.)
- ``POS`` gives each pending step a random priority, and a new one to those that race with the step taken.  (Yuan, Yang,
  Gu: Partial order aware concurrency sampling, CAV 2018.)
- ``Portfolio`` takes turns, and begins with what production would do.

Every one is a function of its seed, the number of the run, and what runs of the same program showed before: the same
seed repeats the same search.
"""

from libc.stdint cimport uint64_t

from .control cimport Control, Strategy


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
    """A strategy that draws random numbers: ``seed`` and the number of the run decide which."""

    cdef readonly object seed
    cdef Random random

    def __init__(self, seed=0):
        if not isinstance(seed, int):
            raise TypeError(f"a seed is a whole number, not {seed!r}")
        self.seed = seed
        self.random = Random(seed)

    def begin(self, run):
        """A run begins."""
        self.random.seed(<uint64_t>(self.seed & 0xFFFFFFFFFFFFFFFF) ^ <uint64_t>0xD1B54A32D192ED03, <uint64_t>run)

    cdef Py_ssize_t pick_number(self, Control control) except -1:
        # the ordinary case half of the time
        return 0 if self.random.next() >> 63 else self.random.below(control.n)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self.seed})"


cdef class RandomWalk(Seeded):
    """Each enabled actor with the same probability."""

    cdef Py_ssize_t pick(self, Control control) except -1:
        return self.random.below(control.n)


cdef class URW(Seeded):
    """Each enabled actor with a probability proportional to what it still has to do, estimated from runs before."""

    # at how many moments each actor was taken, in the longest of the runs before
    cdef list expected

    def __init__(self, seed=0):
        Seeded.__init__(self, seed)
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

    def __init__(self, depth=3, seed=0):
        Seeded.__init__(self, seed)
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth is a number from 1 on, not {depth!r}")
        self.depth = depth
        self.length = 0

    def __repr__(self) -> str:
        return f"PCT(depth={self.depth}, seed={self.seed})"

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
    """Asks an object with a method ``choose(enabled, current, label)``."""

    cdef object ask

    def __init__(self, chooser):
        self.ask = chooser.choose

    def choose(self, enabled, current, label):
        """What the object says."""
        return self.ask(enabled, current, label)


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


cdef class Portfolio(Strategy):
    """Takes turns: the first run is what production would do, then each strategy in order, again and again.

    ``strategies`` are those that take turns: ``URW``, ``PCT(1)``, ``RandomWalk``, ``POS`` and ``PCT(3)`` unless given.
    """

    cdef readonly tuple strategies
    cdef Strategy now
    cdef Strategy production

    def __init__(self, *strategies, seed=0):
        self.strategies = strategies or (
            URW(seed), PCT(1, seed + 1), RandomWalk(seed + 2), POS(seed + 3), PCT(3, seed + 4)
        )
        for strategy in self.strategies:
            if not isinstance(strategy, Strategy):
                raise TypeError(f"a Portfolio is made of strategies, not {strategy!r}")
        self.production = Path()

    def begin(self, run):
        """A run begins."""
        self.now = self.production if run == 0 else self.strategies[(run - 1) % len(self.strategies)]
        self.now.begin(run)

    cdef Py_ssize_t pick(self, Control control) except -1:
        return self.now.pick(control)

    cdef Py_ssize_t pick_number(self, Control control) except -1:
        return self.now.pick_number(control)

    cdef int over(self, Control control) except -1:
        # all of them learn how long the program is
        cdef Strategy strategy
        for strategy in self.strategies:
            strategy.over(control)
        return 0

    def __repr__(self) -> str:
        return f"Portfolio({', '.join(map(repr, self.strategies))})"
