"""Every interleaving of the two words of a fiber, its token and its wait record, and of the way to the hub.

One fiber runs on the owner of the slot: it blocks barely or waits inside a primitive, with and without
timeouts.  Other fibers and callbacks of the owner resume it, cancel it and release the primitive; foreign
threads resume and cancel it.  The model checks laws 1 to 4 and 8 of the three verbs: a racing block and
resume end the same in either order, exactly one wins a wait, the losers learn it, no value, permit or
cancellation is lost or doubled, a resume never ends a wait inside a primitive; and that the hub never
sleeps over a full inbox.

The wait record is ``(serial, phase)`` in one word (``swapco/_core/wait.h``), won by one compare-and-swap.

Two versions are explored, over the same programs:

- *Without the GIL* every atomic operation is a step of its own.  A resume first leaves its value in the
  token, then looks for a bare wait to win.  A block looks at the token, opens the record, and looks at the
  token once more.  A fiber that was resumed and finds no token (an earlier block took it, between the two
  steps of that resume) blocks again.  This is what the two words need by themselves.
- *With the GIL* a resume is one step, and so is a block from its look at the token to the open record:
  nothing in between lets go of the GIL.  Then a resume may win first and hand its value over, and leave a
  token only if it found nothing to win.  This is what the scheduler does.

A cancellation from outside does not win the wait: it sets a flag and posts, and the owner wins the wait in
its name.  Were the canceller to win, the fiber might have seen the flag at an earlier wait already, and one
cancellation would end two waits: see the mutants.

The mutants are broken versions of one step each; the model must find every one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from explorer import Violation, explore

NONE = "none"
OPEN_BARE, OPEN_PRIMITIVE = "open, bare", "open, primitive"
OPEN = (OPEN_BARE, OPEN_PRIMITIVE)
WON = ("won by resume", "won by wake", "won by timeout", "won by cancel")
WON_RESUME, WON_WAKE, WON_TIMEOUT, WON_CANCEL = WON

RUNNING, BLOCKED, READY, DONE = "running", "blocked", "ready", "done"


WITH_GIL, WITHOUT_GIL = True, False


class Program(NamedTuple):
    fiber: tuple[str, ...]  # block, block timed, acquire, acquire timed
    foreign: tuple[tuple[str, ...], ...] = ()  # for each thread: resume, cancel
    owner: tuple[str, ...] = ()  # what other fibers of the owner do meanwhile: resume, cancel, release


PROGRAMS = {
    "one block, one resume": Program(("block",), (("resume",),)),
    "two blocks, two resumers": Program(("block", "block"), (("resume",), ("resume",))),
    "two blocks, one resumer twice": Program(("block", "block"), (("resume", "resume"),)),
    "resume against timeout": Program(("block timed", "block"), (("resume",),)),
    "timers that outlive their wait": Program(
        ("block timed", "block", "block timed", "acquire"), (("resume", "resume"),)
    ),
    "a resume must not end an acquire": Program(("acquire", "block"), (("resume",),), ("release",)),
    "release against timeout": Program(
        ("acquire timed", "acquire timed", "block"), (("resume",),), ("release", "release")
    ),
    "cancel against resume": Program(("block", "acquire", "block"), (("cancel",), ("resume",)), ("release",)),
    "one cancellation, two waits": Program(("block", "block timed"), (("cancel",),)),
    "two cancellations": Program(("block", "acquire timed", "block"), (("cancel", "cancel"),), ("release",)),
    "three cancellations": Program(("block", "block", "block"), (("cancel", "cancel"), ("cancel",))),
    "two cancellers": Program(("block", "block", "block"), (("cancel",), ("cancel",))),
    "resume and cancel from both sides": Program(
        ("block", "block timed"), (("resume",), ("cancel",)), ("resume", "cancel")
    ),
    "the fiber ends meanwhile": Program(("block",), (("resume", "resume"), ("cancel",))),
    "everything": Program(
        ("block timed", "acquire timed", "block"), (("resume",), ("cancel",)), ("release",)
    ),
}


class Foreign(NamedTuple):
    """Where a foreign thread is: which operation, and where in it."""

    pc: int = 0
    at: str = "start"
    record: int = 0  # the serial that it has seen open


class State(NamedTuple):
    # the two words of the fiber, and its cancellation flag
    serial: int = 0
    phase: str = NONE
    token: int = 0
    pending: bool = False
    # the value cell of a resume that wins first (with the GIL)
    handed: int = 0
    # what the owner knows
    fiber: str = RUNNING
    pc: int = 0
    at: str = "fiber"
    record: int = 0  # the serial that the owner's step is about
    timers: tuple[int, ...] = ()  # serials; a timer is not disarmed when its wait ends early
    waiters: tuple[int, ...] = ()  # serials in the primitive's queue
    permits: int = 0
    owner_pc: int = 0
    # the inbox, and the way to a sleeping hub
    posted: bool = False
    hub_idle: bool = False
    noted: bool = False
    eventfd: bool = False
    foreign: tuple[Foreign, ...] = ()
    # what has happened so far
    bare: bool = False  # is the present wait a bare one
    accepted: frozenset[int] = frozenset()  # values of resumes that returned True
    consumed: frozenset[int] = frozenset()  # values that a block returned
    released: int = 0
    acquired: int = 0
    requested: int = 0  # cancellations, several in a row before the fiber saw one counted as one
    cancelled: int = 0  # CancelledErrors raised


# places where a thread may be interrupted although it holds the GIL: it waits for something, runs user code,
# or is in a system call
RELEASES_GIL = {"start", "fiber", "drain", "pick", "idle", "look", "poll", "read", "unnote", "busy", "write"}

Steps = Iterator[tuple[str, State]]


class FiberWordsModel:
    """``bugs`` switches on a broken version of a step."""

    def __init__(self, program: Program, gil: bool, *bugs: str) -> None:
        self.program = program
        self.gil = gil
        self.bugs = frozenset(bugs)
        self.interruptible = set(RELEASES_GIL)
        if "the GIL is released before the open" in bugs:
            self.interruptible.add("open")

    def initial(self) -> State:
        return State(foreign=(Foreign(),) * len(self.program.foreign))

    # -- invariants

    def broken(self, s: State) -> str | None:
        left = {value for value in (s.token, s.handed) if value}
        if s.accepted != s.consumed | left or s.consumed & left:
            return f"resumes accepted {set(s.accepted)}, blocks returned {set(s.consumed)}, left are {left}"
        if s.released != s.acquired + s.permits + (s.phase == WON_WAKE):
            return f"{s.released} permits were released, {s.acquired} acquired, {s.permits} are there"
        if s.requested != s.cancelled + s.pending:
            return f"{s.requested} cancellations, {s.cancelled} delivered, pending: {s.pending}"
        if s.phase == WON_RESUME and not s.bare:
            return "a resume won a wait inside a primitive"
        if s.phase == WON_WAKE and s.bare:
            return "a primitive woke a bare block"
        if s.fiber == READY and s.phase not in WON:
            return f"in the run queue, but its wait is {s.phase}"
        return None

    def stuck(self, s: State) -> str | None:
        if s.at != "poll":
            return f"the owner is stuck at {s.at!r}"
        if s.posted:
            return "the hub sleeps over a full inbox"
        if s.fiber == DONE:
            return None
        if s.fiber != BLOCKED:
            return f"the hub sleeps, and the fiber is {s.fiber}"
        if s.phase not in OPEN:
            return f"lost wakeup: the fiber is blocked for ever, its wait is {s.phase}"
        if s.token and s.phase == OPEN_BARE:
            return "lost wakeup: the fiber is blocked for ever beside its token"
        if s.permits and s.phase == OPEN_PRIMITIVE:
            return "lost wakeup: the fiber waits for ever beside a permit"
        if s.pending:
            return "lost cancellation: the fiber is blocked for ever with a pending one"
        return None

    # -- steps

    def steps(self, s: State) -> Steps:
        for what, after in self.owner(s):
            yield from self.section(what, after, -1)
        for me in range(len(s.foreign)):
            for what, after in self.foreign(s, me):
                yield from self.section(f"thread {me}: {what}", after, me)

    def section(self, what: str, s: State, me: int) -> Steps:
        """With the GIL: the thread goes on to a place where it may be interrupted, in one step."""
        at = s.at if me < 0 else s.foreign[me].at
        if not self.gil or at in self.interruptible:
            yield what, s
            return
        for more, after in self.owner(s) if me < 0 else self.foreign(s, me):
            yield from self.section(f"{what}, {more}", after, me)

    def won(self, s: State, phase: str) -> State:
        """The record after a successful claim."""
        if s.phase not in OPEN:
            raise Violation(f"two winners: {phase}, but it was {s.phase}")
        return s._replace(phase=phase)

    def ready(self, s: State) -> State:
        """Into the run queue, by the owner."""
        if s.fiber != BLOCKED:
            raise Violation(f"a fiber that is {s.fiber} is queued")
        return s._replace(fiber=READY)

    def owner(self, s: State) -> Steps:
        match s.at:
            case "fiber":
                if s.pc == len(self.program.fiber):
                    yield "the fiber ends", s._replace(fiber=DONE, at="drain")
                else:
                    verb = self.program.fiber[s.pc]
                    yield f"the fiber calls {verb}", s._replace(at="take" if "block" in verb else "permit")
            case "take" | "permit" | "ask" | "open" | "look again" | "take back" | "suspend":
                yield from self.waiting(s)
            case "run" | "return" | "close":
                yield from self.running(s)
            case "timer" | "release" | "hand on" | "cancel" | "end wait" | "resume":
                yield from self.event(s)
            case "leave" | "see" | "see again" | "claim" | "hand":
                yield from self.event(s)
            case _:
                yield from self.hub(s)

    def waiting(self, s: State) -> Steps:
        """A block or an acquire, up to the switch to the hub."""
        bugs = self.bugs
        verb = self.program.fiber[s.pc]
        bare = "block" in verb
        match s.at:
            case "take":
                if s.token:
                    took = self.consume(s, s.token)
                    yield "takes the token", took._replace(token=0, pc=s.pc + 1, at="fiber")
                else:
                    yield "finds no token", s._replace(at="ask")
            case "permit":
                if s.permits:
                    took = s._replace(permits=s.permits - 1, acquired=s.acquired + 1)
                    yield "takes a permit", took._replace(pc=s.pc + 1, at="fiber")
                else:
                    yield "finds no permit", s._replace(at="ask")
            case "ask":
                if s.pending:
                    yield "raises CancelledError", self.cancel(s)._replace(pc=s.pc + 1, at="fiber")
                else:
                    yield "is not cancelled", s._replace(at="open")
            case "open":
                serial = s.serial + 1
                opened = s._replace(serial=serial, phase=OPEN_BARE if bare else OPEN_PRIMITIVE, bare=bare)
                if "timed" in verb:
                    opened = opened._replace(timers=(*s.timers, serial))
                if not bare:
                    opened = opened._replace(waiters=(*s.waiters, serial))
                again = bare and not self.gil and "no look at the token after the open" not in bugs
                yield f"opens wait {serial}", opened._replace(at="look again" if again else "suspend")
            case "look again":
                yield "looks at the token again", s._replace(at="take back" if s.token else "suspend")
            case "take back":
                # a plain store: if a resume won meanwhile, its value is in the token, and what it posts finds
                # nothing to do
                yield "closes the wait", s._replace(phase=NONE, at="take")
            case "suspend":
                yield "gives the slot away", s._replace(fiber=BLOCKED, at="drain")

    def running(self, s: State) -> Steps:
        """The fiber runs again: what its wait was won by decides."""
        match s.at:
            case "run":
                yield "the fiber runs", s._replace(fiber=RUNNING, at="return")
            case "return":
                after = s
                if s.phase == WON_RESUME and self.gil:
                    after = self.consume(s, s.handed)._replace(handed=0)
                elif s.phase == WON_RESUME:
                    if not s.token and "a win without a value is trusted" not in self.bugs:
                        # the resumer's value went to an earlier block; it found this one open, and won it
                        yield "was resumed, but has its value already", s._replace(phase=NONE, at="take")
                        return
                    after = self.consume(s, s.token)._replace(token=0)
                elif s.phase == WON_WAKE:
                    after = s._replace(acquired=s.acquired + 1)
                    # the permit travelled in the record: count it in one step with the record's end
                    yield f"was {s.phase}", after._replace(phase=NONE, pc=s.pc + 1, at="fiber")
                    return
                elif s.phase == WON_CANCEL:
                    after = self.cancel(s)
                elif s.phase == WON_TIMEOUT and "a timeout clears the token" in self.bugs:
                    after = s._replace(token=0)
                yield f"was {s.phase}", after._replace(at="close")
            case "close":
                waiters = tuple(serial for serial in s.waiters if serial != s.serial)
                yield "closes", s._replace(phase=NONE, waiters=waiters, pc=s.pc + 1, at="fiber")

    def consume(self, s: State, value: int) -> State:
        if not value:
            raise Violation("woken by a resume, but there is no value")
        return s._replace(consumed=s.consumed | {value})

    def cancel(self, s: State) -> State:
        if not s.pending:
            raise Violation("a CancelledError without a cancellation")
        return s._replace(pending=False, cancelled=s.cancelled + 1)

    def hub(self, s: State) -> Steps:
        """Draining, choosing what to do, and going to sleep."""
        bugs = self.bugs
        match s.at:
            case "drain":
                if s.posted:
                    yield "takes the inbox", s._replace(posted=False, at="act")
                else:
                    yield "finds the inbox empty", s._replace(at="pick")
            case "act":
                blocked = s.fiber == BLOCKED or "the drain does not look at the fiber" in bugs
                won = s.phase in WON or "the drain does not look at the wait" in bugs
                if blocked and won:
                    yield "queues the fiber", self.ready(s)._replace(at="pick")
                elif blocked and s.pending and s.phase in OPEN:
                    yield "sees a cancellation", s._replace(at="act cancel", record=s.serial)
                else:
                    yield "has nothing to do", s._replace(at="pick")
            case "act cancel":
                done = s._replace(at="pick", record=0)
                if s.phase in OPEN or "the drain cancels without compare" in bugs:
                    yield "ends the wait", self.ready(self.won(done, WON_CANCEL))
                else:
                    # the winner has posted, or will
                    yield "is too late to end the wait", done._replace(at="drain")
            case "pick":
                if s.fiber == READY:
                    yield "picks the fiber", s._replace(at="run")
                elif "looks before hub_idle" in bugs:
                    yield "looks", s._replace(at="busy" if s.posted else "idle")
                else:
                    yield "has nothing to run", s._replace(at="idle")
                yield from self.events(s)
            case "idle":
                blind = bugs & {"no look after hub_idle", "looks before hub_idle"}
                yield "hub_idle = 1", s._replace(hub_idle=True, at="poll" if blind else "look")
            case "look":
                yield "looks at the inbox", s._replace(at="busy" if s.posted else "poll")
            case "poll":
                if s.eventfd:
                    early = "noted is cleared before the eventfd is read" in bugs
                    yield "is notified", s._replace(at="unnote" if early else "read")
                yield from self.events(s)
            case "read":
                early = "noted is cleared before the eventfd is read" in bugs
                yield "reads the eventfd", s._replace(eventfd=False, at="busy" if early else "unnote")
            case "unnote":
                early = "noted is cleared before the eventfd is read" in bugs
                yield "noted = 0", s._replace(noted=False, at="read" if early else "busy")
            case "busy":
                yield "hub_idle = 0", s._replace(hub_idle=False, at="drain")

    def events(self, s: State) -> Steps:
        """Instead of running the fiber or sleeping on: timers, other fibers, callbacks."""
        for serial in s.timers:
            due = s._replace(timers=tuple(other for other in s.timers if other != serial))
            yield f"the timer of wait {serial} is due", due._replace(at="timer", record=serial)
        if s.owner_pc < len(self.program.owner):
            event = self.program.owner[s.owner_pc]
            yield f"another fiber calls {event}", s._replace(owner_pc=s.owner_pc + 1, at=event)

    def event(self, s: State) -> Steps:
        bugs = self.bugs
        over = s._replace(at="busy", record=0)
        match s.at:
            case "timer":
                if s.phase in OPEN and "timers do not look at the serial" in bugs and s.serial != s.record:
                    raise Violation(f"the timer of wait {s.record} ended wait {s.serial}")
                if s.phase in OPEN and s.serial == s.record:
                    yield "the timeout wins", self.ready(self.won(over, WON_TIMEOUT))
                elif "timers do not look at the phase" in bugs and s.serial == s.record and s.phase in WON:
                    yield "the timeout wins, it thinks", self.ready(self.won(over, WON_TIMEOUT))
                else:
                    yield "the timeout is too late", over
            case "release":
                yield "releases", s._replace(released=s.released + 1, permits=s.permits + 1, at="hand on")
            case "hand on":
                if not s.waiters:
                    yield "nobody waits", over
                    return
                record, waiters = s.waiters[0], s.waiters[1:]
                open_still = record == s.serial and s.phase == OPEN_PRIMITIVE
                if open_still or "a release does not look at the record" in bugs:
                    woken = over._replace(waiters=waiters, permits=s.permits - 1)
                    yield "the wake wins", self.ready(self.won(woken, WON_WAKE))
                else:
                    yield "the first waiter is gone", s._replace(waiters=waiters)
            case "cancel":
                yield "sets the flag", self.request(s)._replace(at="end wait")
            case "end wait":
                if s.fiber == BLOCKED and s.phase in OPEN:
                    yield "the cancellation wins", self.ready(self.won(over, WON_CANCEL))
                else:
                    yield "the cancellation stays pending", over
            case _:
                for what, after, at, record in self.resume(s, s.at, s.record, 90 + s.owner_pc):
                    if at == "won":
                        yield what, self.ready(after)._replace(at="busy", record=0)
                    elif at == "end":
                        yield what, after._replace(at="busy", record=0)
                    else:
                        yield what, after._replace(at=at, record=record)

    def request(self, s: State) -> State:
        return s._replace(pending=True, requested=s.requested + (not s.pending))

    def resume(self, s: State, at: str, record: int, value: int) -> Iterator[tuple[str, State, str, int]]:
        """One step of a resume, by anyone: what happens, the state, where the resumer is, the record seen."""
        bugs = self.bugs
        wins_first = self.gil or "wins first, without a look after the token" in bugs
        can_win = OPEN if "a resume wins any wait" in bugs else (OPEN_BARE,)
        match at:
            case "resume":
                if s.fiber == DONE:
                    yield "is done: False", s, "end", 0
                else:
                    yield "is not done", s, "see" if wins_first else "leave", 0
            case "leave":
                if s.token and "a second token replaces the first" not in bugs:
                    yield "there is a token: False", s, "end", 0
                else:
                    left = s._replace(token=value, accepted=s.accepted | {value})
                    yield "leaves a token", left, "end" if wins_first else "see", 0
            case "see":
                if s.phase in can_win:
                    yield f"sees wait {s.serial} open", s, "claim", s.serial
                else:
                    yield "sees nothing to win", s, "see again" if wins_first else "end", 0
            case "claim":
                if s.phase in can_win and s.serial == record:
                    yield "wins", self.won(s, WON_RESUME), "hand" if wins_first else "won", 0
                elif "a resume wins by a plain store" in bugs:
                    yield "wins, it thinks", self.won(s, WON_RESUME), "hand" if wins_first else "won", 0
                else:
                    yield "is too late", s, "see again" if wins_first else "end", 0
            case "hand":
                handed = s._replace(accepted=s.accepted | {value})
                # without the GIL (a mutant) the value goes into the token, as it does in the right version
                handed = handed._replace(handed=value) if self.gil else handed._replace(token=value)
                yield "hands its value over", handed, "won", 0
            case "see again":
                if s.phase == WON_RESUME:
                    yield "was resumed and has not run: False", s, "end", 0
                else:
                    yield "leaves a token then", s, "leave", 0

    def foreign(self, s: State, me: int) -> Steps:
        thread, program, bugs = s.foreign[me], self.program.foreign[me], self.bugs
        if thread.pc == len(program):
            return

        def go(at: str, s: State = s, record: int = 0) -> State:
            new = Foreign(thread.pc + 1) if at == "end" else Foreign(thread.pc, at, record)
            return s._replace(foreign=(*s.foreign[:me], new, *s.foreign[me + 1 :]))

        match thread.at:
            case "start" if program[thread.pc] == "resume":
                yield "calls resume", go("resume")
            case "start":
                yield "calls cancel", go("end" if s.fiber == DONE else "flag")
            case "flag":
                wins = "the canceller wins the wait itself" in bugs
                yield "sets the flag", go("see wait" if wins else "post", self.request(s))
            case "see wait":
                yield "looks for an open wait", go("win wait" if s.phase in OPEN else "end", s, s.serial)
            case "win wait":
                if s.phase in OPEN and s.serial == thread.record:
                    yield "wins the wait", go("post", self.won(s, WON_CANCEL))
                else:
                    yield "is too late", go("end")

            case "post":
                if "notifies before the post" in bugs:
                    yield "hub_idle?", go("noted?" if s.hub_idle else "late post")
                else:
                    yield "posts", go("hub_idle?", s._replace(posted=True))
            case "late post":
                yield "posts", go("end", s._replace(posted=True))
            case "hub_idle?":
                yield f"hub_idle is {s.hub_idle:d}", go("noted?" if s.hub_idle else "end")
            case "noted?":
                late = "late post" if "notifies before the post" in bugs else "end"
                yield f"noted is {s.noted:d}", go(late if s.noted else "note")
            case "note":
                yield "noted = 1", go("write", s._replace(noted=True))
            case "write":
                late = "late post" if "notifies before the post" in bugs else "end"
                yield "writes the eventfd", go(late, s._replace(eventfd=True))

            case _:
                value = 10 * (me + 1) + thread.pc
                for what, after, at, record in self.resume(s, thread.at, thread.record, value):
                    if at == "won":
                        at = "end" if "a foreign winner does not post" in bugs else "post"
                    yield what, go(at, after, record)


# ------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("gil", [WITHOUT_GIL, WITH_GIL], ids=["without GIL", "with GIL"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_interleaving_is_right(name, gil):
    report = explore(FiberWordsModel(PROGRAMS[name], gil))
    assert report.failure is None, str(report)
    assert report.ends


# the bug, the version that it breaks, and what the counterexample says
MUTANTS = {
    "no look at the token after the open": (WITHOUT_GIL, "beside its token"),
    "wins first, without a look after the token": (WITHOUT_GIL, "beside its token"),
    "a win without a value is trusted": (WITHOUT_GIL, "there is no value"),
    "the GIL is released before the open": (WITH_GIL, "beside its token"),
    "a resume wins any wait": (WITHOUT_GIL, "inside a primitive"),
    "a resume wins by a plain store": (WITHOUT_GIL, "two winners"),
    "a second token replaces the first": (WITHOUT_GIL, "resumes accepted"),
    "a timeout clears the token": (WITHOUT_GIL, "resumes accepted"),
    "timers do not look at the serial": (WITHOUT_GIL, "the timer of wait"),
    "timers do not look at the phase": (WITHOUT_GIL, "two winners"),
    "a release does not look at the record": (WITHOUT_GIL, "two winners"),
    "the canceller wins the wait itself": (WITHOUT_GIL, "without a cancellation"),
    "the drain cancels without compare": (WITHOUT_GIL, "two winners"),
    "the drain does not look at the wait": (WITHOUT_GIL, "in the run queue"),
    "the drain does not look at the fiber": (WITHOUT_GIL, "is queued"),
    "a foreign winner does not post": (WITHOUT_GIL, "lost wakeup"),
    "noted is cleared before the eventfd is read": (WITHOUT_GIL, "over a full inbox"),
    "no look after hub_idle": (WITHOUT_GIL, "over a full inbox"),
    "looks before hub_idle": (WITHOUT_GIL, "over a full inbox"),
    "notifies before the post": (WITHOUT_GIL, "over a full inbox"),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_model_finds_the_bug(bug):
    gil, reason = MUTANTS[bug]
    for program in PROGRAMS.values():
        report = explore(FiberWordsModel(program, gil, bug))
        if report.failure is not None:
            assert reason in report.failure.reason, str(report)
            assert report.failure.trace
            return
    pytest.fail(f"no program shows it: {bug}")
