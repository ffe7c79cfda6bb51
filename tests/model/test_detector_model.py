"""Every interleaving of the detector's sleep: a slot that is lent is always watched.

The detector's threads (``swapco/_core/detector.h``) sleep while there is nothing to watch.  Here home lends the slot
to one worker after the other, and each does what its script says: calls the scheduler, gives the slot back, or stays in
the kernel for ever.  One detector at a time watches, the monitor or the sentinel.  If it sleeps while a worker stays in
the kernel, home waits for ever: a state without a step.  If it never sleeps, no end can be reached.

The word has its generation, so that a revocation can be checked against the stint that the detector has seen.  How
home and the workers sleep is the business of ``test_slot_model``: here home goes on as soon as the word names it, and
may take as long as it likes, because it needs the GIL to notice a revocation.

That is what makes a revoked slot something to watch: while the worker computes with the GIL, home cannot notice, and
the word stands still for many ticks.  Then the worker takes the slot back, leaves, and nobody has granted anything, so
that nobody rouses a detector that went to sleep meanwhile.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from explorer import Violation, explore

SCHED, USER, REVOKED = "SCHED", "USER", "REVOKED"
HOME, WORKER = 0, 1

IDLE_TICKS = 2

CALL, BACK, STAY = "call", "give back", "stay"
PROGRAMS = {
    "one that gives back": ((BACK,),),
    "one that stays": ((STAY,),),
    "idle in between": ((BACK,), (BACK,), (STAY,)),
    "two that stay": ((STAY,), (STAY,)),
    "a call, and it stays": ((CALL, STAY),),
    "calls, and it gives back": ((CALL, CALL, BACK), (STAY,)),
    "everything": ((CALL, BACK), (CALL, STAY), (BACK,), (STAY,)),
}


class Word(NamedTuple):
    generation: int
    mode: str
    owner: int


FIRST = Word(0, SCHED, HOME)


class Watcher(NamedTuple):
    at: str = "wait"
    seen: Word = FIRST
    idle: int = 0


class State(NamedTuple):
    word: Word = FIRST
    awake: bool = False
    home: str = "lend"
    lent: int = 0  # how many times
    worker: str = "nowhere"
    pc: int = 0
    left: int = -1  # the generation that the worker stored when it left the scheduler
    watcher: Watcher = Watcher()


Steps = list[tuple[str, State]]


class DetectorModel:
    """``bugs`` switches on a broken version of a step."""

    def __init__(self, program: tuple[tuple[str, ...], ...], sentinel: bool, *bugs: str) -> None:
        self.program = program
        self.sentinel = sentinel
        self.bugs = frozenset(bugs)

    def initial(self) -> State:
        return State()

    def broken(self, s: State) -> str | None:
        return None

    def stuck(self, s: State) -> str | None:
        if s.home != "done":
            return f"lent for ever: home is at {s.home!r}, and the detector is {s.watcher.at}"
        return None

    def steps(self, s: State) -> Steps:
        watch = self.sentinel_steps if self.sentinel else self.monitor_steps
        return [*self.home_steps(s), *self.worker_steps(s), *watch(s)]

    def change(self, s: State, mode: str, owner: int) -> State:
        return s._replace(word=Word(s.word.generation + 1, mode, owner))

    # -- home

    def home_steps(self, s: State) -> Steps:
        early = "the lender looks at awake before it stores the word" in self.bugs
        match s.home:
            case "lend" if s.lent == len(self.program):
                return [("home has lent enough", s._replace(home="done"))]
            case "lend":
                if early:
                    return [("home looks at awake", s._replace(home="late grant" if s.awake else "rouse"))]
                return [("home lends", self.lend(s, "look"))]
            case "late grant":
                return [("home lends", self.lend(s, "wait"))]
            case "look":
                return [("home looks at awake", s._replace(home="wait" if s.awake else "rouse"))]
            case "rouse":
                return [("home: awake = 1", s._replace(awake=True, home="futex_wake"))]
            case "futex_wake":
                after = s._replace(home="late grant" if early else "wait")
                if s.watcher.at == "asleep" and "the lender makes no system call" not in self.bugs:
                    after = after._replace(watcher=Watcher())
                return [("home: futex_wake", after)]
            case "wait" if s.word.owner == HOME and s.word.mode == SCHED:
                return [("home has the slot back", s._replace(home="lend", worker="nowhere"))]
            case "wait" if s.word.mode == REVOKED:
                noticed = self.change(s, SCHED, HOME)
                return [("home notices", noticed._replace(home="lend", worker="nowhere"))]
        return []

    def lend(self, s: State, then: str) -> State:
        return self.change(s, SCHED, WORKER)._replace(home=then, lent=s.lent + 1, worker="granted", pc=0)

    # -- the worker that has the slot, or had it until home noticed

    def worker_steps(self, s: State) -> Steps:
        if s.worker == "nowhere":
            return []
        if s.worker != "user":
            after = self.change(s, USER, WORKER)
            return [("the worker leaves", after._replace(worker="user", left=after.word.generation))]
        op = self.program[s.lent - 1][s.pc]
        if op == STAY:
            return []
        what = "is back in time" if s.word.generation == s.left else "takes the slot back"
        if op == BACK:
            return [(f"the worker {what} and gives it away", self.change(s, SCHED, HOME)._replace(worker="nowhere"))]
        return [(f"the worker {what}", self.change(s, SCHED, WORKER)._replace(worker="inside", pc=s.pc + 1))]

    # -- the detector

    def detector_wait(self, s: State) -> Steps:
        match s.watcher.at:
            case "wait":
                return [("the detector looks at awake", self.go(s, "start" if s.awake else "futex"))]
            case "futex":
                return [("the detector: futex_wait", self.go(s, "wait" if s.awake else "asleep"))]
        return []

    def go(self, s: State, at: str, seen: Word = FIRST, idle: int = 0) -> State:
        return s._replace(watcher=Watcher(at, seen, idle))

    def revoke(self, s: State, seen: Word) -> State:
        if s.word != seen:
            if "revoke compares the mode alone" not in self.bugs or s.word.mode != USER:
                return s
            raise Violation("a stint is revoked that the detector has not seen")
        return self.change(s, REVOKED, HOME) if seen.mode == USER else s

    def is_idle(self, word: Word) -> bool:
        """Is there nothing to watch?"""
        if word.mode == REVOKED:
            return "a revoked slot counts as idle" in self.bugs
        return word.owner == HOME or "a slot on its way counts as idle" in self.bugs

    def monitor_steps(self, s: State) -> Steps:
        bugs = self.bugs
        at, seen, idle = s.watcher
        match at:
            case "start":
                return [("the monitor starts", self.go(s, "tick", s.word))]
            case "tick":
                now = s.word
                if now == seen and now.mode == USER:
                    return [("a tick: it stands still", self.go(s, "revoke", now))]
                idle = idle + 1 if now == seen and self.is_idle(now) else 0
                if idle < IDLE_TICKS:
                    return [("a tick", self.go(s, "tick", now, idle))]
                early = "the monitor looks before awake = 0" in bugs
                return [("a tick: idle", self.go(s, "look again" if early else "sleep", now))]
            case "revoke":
                return [("the monitor revokes", self.go(self.revoke(s, seen), "tick", seen))]
            case "sleep":
                blind = bugs & {"the monitor does not look again", "the monitor looks before awake = 0"}
                after = self.go(s, "wait" if blind else "look again", seen)
                return [("the monitor: awake = 0", after._replace(awake=False))]
            case "look again":
                if s.word != seen:
                    return [("the monitor sees a change", self.go(s, "on", seen))]
                then = "sleep" if "the monitor looks before awake = 0" in bugs else "wait"
                return [("the monitor looks again", self.go(s, then))]
            case "on":
                return [("the monitor: awake = 1", self.go(s, "tick", seen)._replace(awake=True))]
        return self.detector_wait(s)

    def sentinel_steps(self, s: State) -> Steps:
        seen = s.watcher.seen
        match s.watcher.at:
            case "start":
                place = "sleep" if self.is_idle(s.word) else "grace"
                return [("the sentinel looks", self.go(s, place, s.word))]
            case "grace":
                return [("the sentinel revokes", self.go(self.revoke(s, seen), "wait"))]
            case "sleep":
                blind = "the sentinel does not look again" in self.bugs
                after = self.go(s, "wait" if blind else "look again", seen)
                return [("the sentinel: awake = 0", after._replace(awake=False))]
            case "look again":
                return [("the sentinel looks again", self.go(s, "wait" if s.word == seen else "on"))]
            case "on":
                return [("the sentinel: awake = 1", self.go(s, "wait")._replace(awake=True))]
        return self.detector_wait(s)


# ------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("sentinel", [False, True], ids=["monitor", "sentinel"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_slot_that_is_lent_is_watched(name, sentinel):
    report = explore(DetectorModel(PROGRAMS[name], sentinel))
    assert report.failure is None, str(report)
    assert report.ends


MONITOR, SENTINEL = False, True
# the bug, whose it is, and what the counterexample says
MUTANTS = {
    "the lender looks at awake before it stores the word": (MONITOR, "lent for ever"),
    "the lender makes no system call": (MONITOR, "lent for ever"),
    "the monitor does not look again": (MONITOR, "lent for ever"),
    "the monitor looks before awake = 0": (MONITOR, "lent for ever"),
    "a slot on its way counts as idle": (MONITOR, "lent for ever"),
    "a revoked slot counts as idle": (MONITOR, "lent for ever"),
    "revoke compares the mode alone": (MONITOR, "has not seen"),
    "the sentinel does not look again": (SENTINEL, "lent for ever"),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_model_finds_the_bug(bug):
    sentinel, reason = MUTANTS[bug]
    for program in PROGRAMS.values():
        report = explore(DetectorModel(program, sentinel, bug))
        if report.failure is not None:
            assert reason in report.failure.reason, str(report)
            assert report.failure.trace
            return
    pytest.fail(f"no program shows it: {bug}")
