"""A model of the slot: who may run, how it is lent, lost, taken back and asked for again.

Theory
------
*Threads.*  Home runs the hub and the ordinary fiber G; every worker runs one thread fiber after the other (A, B, ...);
a foreign thread resumes and cancels; the monitor revokes at any moment, and so does home itself after a signal.
Nothing here needs the GIL: the slot word, the words of a fiber, the flags of the hub and the inbox are atomic one by
one, and everything else that the scheduler knows is guarded by the slot alone.

*The generation* of the slot word is not a number here, or no two runs would ever meet in the same state.  Whoever
compares the whole word asks only whether it has changed since, and for a worker that left the scheduler there are
three answers: its word stands, it was revoked and nothing else, or it is history.  So the word names the worker whose
*stint* it is, in USER mode, or was, in REVOKED mode, and that says the same.  Home's notice, and every revocation, load
the word and swap it at once: in between it can only become what the loop around them sees on its next turn.

*A fiber's words* are the token and the wait record, in the form that is right without the GIL: a resume leaves its
value in the token first, then tries to win an open wait; a block looks at the token, opens its wait, and looks again; a
fiber whose wait was won by a resume, but whose token an earlier block took, blocks again.  The code relies on the GIL
there: a resume wins first and leaves a token only if it could not, and a block looks once.  Without the GIL that loses
wake-ups (two of the mutants).  ``test_fiber_words_model`` explores both forms, and the wait's serial number.

*Steps.*  A step is one access to something that several threads may touch without owning the slot, together with all
that the thread does to its own or to the scheduler's state around it.  The scheduler's state needs no steps of its own
as long as nobody touches it without the slot, which is checked in every state.  A drain takes all of the inbox in one
step: what is posted during a drain might as well be posted before.

*Sleep.*  In a program marked ``fine`` a wait is the event counter of slot_word.h, load for load; of the counter only
"it has moved since it was loaded" is kept.  In the others looking at the word and falling asleep is one step, and a
wake is one step after the change of the word: that much the fine programs prove.

*Numbers.*  The word names workers by number, and the number of a worker that was told to end is another one's at once,
while its thread may not have seen that yet.  In the model the word knows better, as the generation does: it names the
thread.  Only who waits, and asks whether it is named, compares the numbers.

*User code* takes no time of its own: a worker may be revoked at any moment of it, and it lasts as long as the search
likes, in the verb ``stay`` for ever.  A fiber that nobody resumes may stay blocked for ever.  A thread fiber may also
start without the slot (home gives its worker an *order*) or give it up.

Not modelled: memory weaker than sequential consistency, closing (but the order to end is), waits inside primitives (a
resume must not win them, see ``test_fiber_words_model``), and the detector's own sleep (``test_detector_model``).

    python tests/model/slot_model.py            the programs of the tests: 0.6 million states, 20 seconds
    python tests/model/slot_model.py --all      and the large ones: 3 million states, two minutes, 0.5 GB
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from explorer import Violation, explore
from slot_programs import END, FIBERS, LARGE, NOBODY, PROGRAMS, G, Op, Program, give_up, stay
from slot_sleep import Sleeping
from slot_states import (
    BLOCKED,
    DETACHED,
    DONE,
    HOME,
    NONE,
    OPEN,
    READY,
    REVOKED,
    RUNNING,
    SCHED,
    USER,
    WON,
    WON_CANCEL,
    WON_RESUME,
    WON_TIMEOUT,
    Event,
    Fiber,
    State,
    Steps,
    Thread,
    Word,
    at,
    is_scheduling,
    push,
    put,
    with_fiber,
)

# where a worker is inside the scheduler, and where home does not own the slot
INSIDE = {"verb", "win", "direct", "try", "open", "look", "suspend", "early wake", "late grant"}
LENT = {"wake", "read", "rouse", "wait", "load", "flag", "glance", "futex", "asleep", "unflag", "notice"}


class SlotModel(Sleeping):
    """``bugs`` switches on a broken version of a step.  ``changes`` collects what happened to the word, and by whom."""

    def __init__(self, program: Program, *bugs: str) -> None:
        self.program = program
        self.bugs = frozenset(bugs)
        self.ops = (program.ordinary, *program.threads)
        self.workers = len(program.threads) + program.trims
        self.foreign = 1 + self.workers
        self.monitor = self.foreign + 1
        self.changes: set[tuple[int, Word, Word]] = set()
        self.places: dict[str, Callable[[State, int, Thread], Steps]] = {
            # calls
            "user": self.call,
            "enter store": self.enter_store,
            "take back": self.take_back,
            "outside": self.call_outside,
            "claim": self.claim,
            "late token": self.late_token,
            "claim cancel": self.claim_cancel,
            "post": self.post,
            "late want": self.late_want,
            "note": self.note,
            "write": self.write,
            # inside the scheduler
            "verb": self.verb,
            "win": self.win,
            "direct": self.direct,
            "try": self.try_block,
            "open": self.open,
            "look": self.look,
            "suspend": self.suspend,
            "early wake": self.early_wake,
            "late grant": self.late_grant,
            # sleep and wake
            "wake": self.wake,
            "read": self.read_sleeping,
            "rouse": self.rouse,
            "wait": self.wait,
            "named": self.named,
            "ended": self.ended,
            "load": self.load,
            "flag": self.flag,
            "glance": self.glance,
            "futex": self.futex,
            "asleep": self.asleep,
            "unflag": self.unflag,
            # home
            "notice": self.notice,
            "back": self.back,
            "hub": self.hub,
            "idle": self.idle,
            "last look": self.last_look,
            "poll": self.poll,
            "read eventfd": self.read_eventfd,
            "unnote": self.unnote,
            # the monitor
            "watch": self.watch,
        }

    def initial(self) -> State:
        fibers, workers = len(self.program.threads), self.workers
        return State(
            word=Word(HOME, SCHED),
            threads=(
                Thread("user", G),
                *(Thread("asleep", then="start") for _ in range(workers)),
                Thread("outside"),
                Thread("watch"),
            ),
            fibers=(Fiber(RUNNING), *(Fiber() for _ in range(fibers))),
            ready=tuple(range(1, fibers + 1)),
            hosts=(NOBODY,) * (workers + 1),
            events=(Event(), *(Event(sleeping=True) for _ in range(workers))) if self.program.fine else (),
            orders=(False,) * (workers + 1),
            stops=(False,) * (workers + 1),
            numbers=tuple(me if me <= fibers else NOBODY for me in range(workers + 1)),
            signals=self.program.signals,
            trims=self.program.trims,
        )

    def name(self, thread: int) -> str:
        if thread == HOME:
            return "home"
        if thread == self.foreign:
            return "foreign"
        return "monitor" if thread == self.monitor else f"worker {thread}"

    # -- invariants

    def broken(self, s: State) -> str | None:
        owner, mode, stint = s.word
        for f, fiber in enumerate(s.fibers):
            if fiber.wins != (fiber.wait in WON):
                return f"{fiber.wins} waits of {FIBERS[f]} were won and not consumed, and its wait is {fiber.wait}"
            if fiber.owed != fiber.token and fiber.state != DONE:
                return f"{fiber.owed} resumes of {FIBERS[f]} were accepted and not consumed, its token is {fiber.token}"
            if (fiber.state == READY) < s.ready.count(f):
                return f"{FIBERS[f]} is {fiber.state}, and {s.ready.count(f)} times in the run queue"
        home = s.threads[HOME]
        if (home.at not in LENT or home.then == "back") and (owner != HOME or mode != SCHED):
            return f"home runs, and the slot is {owner}'s, {mode}"
        for me in range(1, self.foreign):
            thread = s.threads[me]
            if thread.at in INSIDE:
                if owner != me or mode != SCHED:
                    return f"worker {me} is inside the scheduler, and the slot is {owner}'s, {mode}"
            elif thread.at == "user":
                state = s.fibers[thread.fiber].state
                attached = stint == me and mode in (USER, REVOKED)
                if attached != (state == RUNNING) or (state != RUNNING and state != DETACHED):
                    return f"worker {me} runs {FIBERS[thread.fiber]}, which is {state}; the slot is {owner}'s, {mode}"
        return None

    def stuck(self, s: State) -> str | None:
        home = s.threads[HOME]
        if home.at != "poll":
            return f"home is stuck at {home.at!r}"
        if s.ready or s.inbox:
            return f"home sleeps, and there is work: ready {s.ready}, inbox {s.inbox}"
        for me in range(1, self.foreign):
            if s.stops[me] and s.threads[me].at != "ended":
                return f"worker {me} was told to end, and is at {s.threads[me].at!r}"
        for f, fiber in enumerate(s.fibers):
            if fiber.state == DONE or (fiber.state == DETACHED and self.op(s, f) == stay):
                continue
            if fiber.state != BLOCKED:
                return f"{FIBERS[f]} is left behind, {fiber.state}"
            if fiber.wait != OPEN:
                return f"lost wake-up: {FIBERS[f]} is blocked for ever, its wait is {fiber.wait}"
            if fiber.token:
                return f"lost wake-up: {FIBERS[f]} is blocked for ever beside its token"
            if fiber.pending:
                return f"lost cancellation: {FIBERS[f]} is blocked for ever with a pending one"
        return None

    # -- steps

    def steps(self, s: State) -> Steps:
        steps = []
        word = s.word
        for me, thread in enumerate(s.threads):
            for what, after in self.places[thread.at](s, me, thread):
                if after.word is not word and after.word != word:
                    self.changes.add((me, word, after.word))
                if is_scheduling(s, after) and (me, SCHED) not in (word[:2], after.word[:2]):
                    raise Violation(f"{self.name(me)} changes the scheduler's state without the slot: {what}")
                steps.append((f"{self.name(me)}: {what}", after))
        return steps

    # -- calls from user code

    def op(self, s: State, f: int) -> Op:
        ops, pc = self.ops[f], s.fibers[f].pc
        return ops[pc] if pc < len(ops) else END

    def call(self, s: State, me: int, thread: Thread) -> Steps:
        """``slot_enter``, up to the second compare-and-swap; what a detached fiber does instead."""
        if me == HOME:
            return self.verb(s, me, thread)
        bugs = self.bugs
        f = thread.fiber
        op = self.op(s, f)
        if op == stay:
            return []
        if s.word == (me, USER, me):
            if "enter is a load and a store" in bugs:
                return [("loads the word", at(s, me, thread._replace(at="enter store")))]
            inside = at(s, me, thread._replace(at="verb"))
            return [(f"{FIBERS[f]} enters: {op.verb}", inside._replace(word=Word(me, SCHED)))]
        if s.word.mode == REVOKED and (s.word.stint == me or "take_back does not compare the generation" in bugs):
            return [("finds the slot revoked", at(s, me, thread._replace(at="take back")))]
        return self.call_detached(s, me, thread)

    def enter_store(self, s: State, me: int, thread: Thread) -> Steps:
        return [("stores the word", at(s, me, thread._replace(at="verb"))._replace(word=Word(me, SCHED)))]

    def take_back(self, s: State, me: int, thread: Thread) -> Steps:
        mine = s.word.stint == me or "take_back does not compare the generation" in self.bugs
        if s.word.mode == REVOKED and mine:
            return [("takes the slot back", at(s, me, thread._replace(at="verb"))._replace(word=Word(me, SCHED)))]
        return self.call_detached(s, me, thread)

    def call_detached(self, s: State, me: int, thread: Thread) -> Steps:
        f = thread.fiber
        op = self.op(s, f)
        if op.verb in ("resume", "cancel"):
            return self.from_outside(s, me, thread._replace(then="user"), op)
        fiber = s.fibers[f]
        if op == give_up:
            return [("has no slot to give up", with_fiber(s, f, fiber._replace(pc=fiber.pc + 1)))]
        if op.verb == "end":
            after = with_fiber(s, f, fiber._replace(ended=True))
            if "a detached fiber finishes itself" in self.bugs:
                after = self.finish(after, f)
                return [(f"{FIBERS[f]} finishes, detached", at(after, me, Thread("wait", then="start")))]
            return [(f"{FIBERS[f]} ends, detached", at(after, me, Thread("post", then="start", to=f)))]
        asking = thread._replace(at="post", then="again", to=f)
        if "posts before it says what it wants" in self.bugs:
            return [("does not say what it wants", at(s, me, asking))]
        asks = at(with_fiber(s, f, fiber._replace(wants_slot=True)), me, asking)
        return [(f"{FIBERS[f]} wants the slot for {op.verb}", asks)]

    # -- calls from outside of the slot: the foreign thread, and detached fibers

    def call_outside(self, s: State, me: int, thread: Thread) -> Steps:
        if thread.pc == len(self.program.foreign):
            return []
        return self.from_outside(s, me, thread, self.program.foreign[thread.pc])

    def from_outside(self, s: State, me: int, thread: Thread, op: Op) -> Steps:
        fiber = s.fibers[op.target]
        if fiber.state == DONE:
            return [(f"{op.verb} {FIBERS[op.target]}: it is done", self.returned(s, me, thread))]
        if op.verb == "cancel":
            flagged = with_fiber(s, op.target, fiber._replace(pending=True))
            wins = "the canceller wins the wait and does not post" in self.bugs
            place = thread._replace(at="claim cancel" if wins else "post", to=op.target)
            return [(f"sets the flag of {FIBERS[op.target]}", at(flagged, me, place))]
        claiming = thread._replace(at="claim", to=op.target)
        if "the token is left after a claim that failed" in self.bugs:
            return self.claim(s, me, claiming)
        if fiber.token:
            return [(f"{FIBERS[op.target]} has a token: False", self.returned(s, me, thread))]
        return [(f"leaves a token to {FIBERS[op.target]}", at(self.leave_token(s, op.target), me, claiming))]

    def leave_token(self, s: State, f: int) -> State:
        fiber = s.fibers[f]
        return with_fiber(s, f, fiber._replace(token=True, owed=fiber.owed + 1))

    def claim(self, s: State, me: int, thread: Thread) -> Steps:
        f = thread.to
        fiber = s.fibers[f]
        late = "the token is left after a claim that failed" in self.bugs
        if fiber.wait != OPEN:
            if late and not fiber.token:
                return [("finds no open wait", at(s, me, thread._replace(at="late token")))]
            return [("finds no open wait", self.returned(s, me, thread))]
        if late and not fiber.token:
            fiber = fiber._replace(token=True, owed=fiber.owed + 1)
        won = with_fiber(s, f, fiber._replace(wait=WON_RESUME, wins=fiber.wins + 1))
        if "who wins from outside does not post" in self.bugs:
            return [(f"wins the wait of {FIBERS[f]}", self.returned(won, me, thread))]
        return [(f"wins the wait of {FIBERS[f]}", at(won, me, thread._replace(at="post")))]

    def late_token(self, s: State, me: int, thread: Thread) -> Steps:
        if s.fibers[thread.to].token or s.fibers[thread.to].state == DONE:
            return [("no token needed", self.returned(s, me, thread))]
        return [("leaves a late token", self.returned(self.leave_token(s, thread.to), me, thread))]

    def claim_cancel(self, s: State, me: int, thread: Thread) -> Steps:
        fiber = s.fibers[thread.to]
        if fiber.wait != OPEN:
            return [("finds no open wait", at(s, me, thread._replace(at="post")))]
        won = with_fiber(s, thread.to, fiber._replace(wait=WON_CANCEL, wins=fiber.wins + 1))
        return [("wins the wait itself", self.returned(won, me, thread))]

    def post(self, s: State, me: int, thread: Thread) -> Steps:
        if thread.then == "again" and "posts before it says what it wants" in self.bugs:
            late = thread._replace(at="late want")
            return [("posts", at(s._replace(inbox=self.posted(s, thread.to)), me, late))]
        if thread.then == "again" and "asks for the slot without a post" in self.bugs:
            return [("waits", self.returned(s, me, thread))]
        after = at(s._replace(inbox=self.posted(s, thread.to)), me, thread._replace(at="note"))
        return [(f"posts {FIBERS[thread.to]}", after)]

    def posted(self, s: State, f: int) -> tuple[int, ...]:
        return s.inbox if f in s.inbox else (*s.inbox, f)

    def late_want(self, s: State, me: int, thread: Thread) -> Steps:
        wanting = with_fiber(s, thread.to, s.fibers[thread.to]._replace(wants_slot=True))
        return [("wants the slot", at(wanting, me, thread._replace(at="note")))]

    def note(self, s: State, me: int, thread: Thread) -> Steps:
        if s.hub_idle and not s.noted:
            return [("noted = 1", at(s, me, thread._replace(at="write"))._replace(noted=True))]
        return [("the hub needs no note", self.returned(s, me, thread))]

    def write(self, s: State, me: int, thread: Thread) -> Steps:
        return [("writes the eventfd", self.returned(s, me, thread)._replace(eventfd=True))]

    def returned(self, s: State, me: int, thread: Thread) -> State:
        """The call from outside is over; a detached fiber that asked for the slot, or ended, waits now."""
        if me == self.foreign:
            return at(s, me, Thread("outside", pc=thread.pc + 1))
        if thread.then == "user":
            fiber = s.fibers[thread.fiber]
            return at(with_fiber(s, thread.fiber, fiber._replace(pc=fiber.pc + 1)), me, Thread("user", thread.fiber))
        return at(s, me, Thread("wait", thread.fiber if thread.then == "again" else NOBODY, thread.then))

    # -- verbs, inside the scheduler

    def leave(self, s: State, me: int, f: int, fiber: Fiber) -> State:
        """The verb is done: ``slot_leave``."""
        s = s._replace(
            fibers=put(s.fibers, f, fiber._replace(pc=fiber.pc + 1)), threads=put(s.threads, me, Thread("user", f))
        )
        return s if me == HOME else s._replace(word=Word(me, USER, me))

    def verb(self, s: State, me: int, thread: Thread) -> Steps:
        f = thread.fiber
        fiber = s.fibers[f]
        op = self.op(s, f)
        if s.current != f or fiber.state != RUNNING or (me != HOME and s.hosts[me] != f):
            raise Violation(f"{FIBERS[f]} calls {op.verb} and is {fiber.state}; current: {s.current}, {s.hosts}")
        if op.verb in ("block", "block timed"):
            return self.try_block(s, me, thread)
        if op.verb == "end":
            done = self.finish(s, f)
            return [(f"{FIBERS[f]} ends: {what}", after) for what, after in self.give_way(done, me, NOBODY)]
        if op == give_up:
            after = with_fiber(s, f, fiber._replace(state=DETACHED, pc=fiber.pc + 1))
            return [(f"{FIBERS[f]} goes on, {what}", after) for what, after in self.give_way(after, me, f, "user")]
        what = f"{op.verb} {FIBERS[op.target]}"
        target = s.fibers[op.target]
        if target.state == DONE:
            return [(f"{what}: it is done", self.leave(s, me, f, fiber))]
        if op.verb == "cancel":
            flagged = self.drain(with_fiber(s, op.target, target._replace(pending=True)))
            after = self.deliver(flagged, op.target)
            return [(what, self.leave(after, me, f, after.fibers[f]))]
        if op.verb == "switch_to":
            after = self.drain(s)
            if target.token:
                return [(f"{what}: it has a token", at(after, me, thread._replace(at="direct", then="refused")))]
            return [(f"{what}: token", at(self.leave_token(after, op.target), me, thread._replace(at="direct")))]
        if target.token:
            return [(f"{what}: it has a token", self.leave(s, me, f, fiber))]
        return [(f"{what}: token", at(self.leave_token(s, op.target), me, thread._replace(at="win")))]

    def win(self, s: State, me: int, thread: Thread) -> Steps:
        """The second half of a resume by the owner."""
        f = thread.fiber
        to = self.op(s, f).target
        if s.fibers[to].wait != OPEN:
            return [("finds no open wait", self.leave(s, me, f, s.fibers[f]))]
        after = self.woken(self.drain(self.won(s, to, WON_RESUME)), to)
        return [(f"wins the wait of {FIBERS[to]}", self.leave(after, me, f, after.fibers[f]))]

    def won(self, s: State, f: int, winner: str) -> State:
        fiber = s.fibers[f]
        return with_fiber(s, f, fiber._replace(wait=winner, wins=fiber.wins + 1))

    def woken(self, s: State, f: int) -> State:
        """``make_ready``: the drain before it may have queued the fiber already."""
        return push(s, f) if s.fibers[f].state == BLOCKED else s

    def direct(self, s: State, me: int, thread: Thread) -> Steps:
        """The second half of the resume in a switch_to: the target is kept out of the run queue."""
        to = self.op(s, thread.fiber).target
        fiber = s.fibers[to]
        trying = thread._replace(at="try", then="")
        if fiber.wait == OPEN and thread.then != "refused":
            s = with_fiber(s, to, fiber._replace(state=READY, wait=WON_RESUME, wins=fiber.wins + 1))
            return [(f"wins the wait of {FIBERS[to]}", at(s, me, trying._replace(to=to)))]
        if to in s.ready:
            s = s._replace(ready=tuple(other for other in s.ready if other != to))
            return [(f"takes {FIBERS[to]} out of the queue", at(s, me, trying._replace(to=to)))]
        return [("finds nothing to hand over to", at(s, me, trying))]

    def try_block(self, s: State, me: int, thread: Thread) -> Steps:
        f = thread.fiber
        fiber = s.fibers[f]
        if fiber.token:
            what, fiber = "takes its token", fiber._replace(token=False, owed=fiber.owed - 1)
        elif fiber.pending:
            what, fiber = "is cancelled", fiber._replace(pending=False)
        else:
            return [(f"{FIBERS[f]} must wait", at(s, me, thread._replace(at="open")))]
        if thread.to != NOBODY:
            s = s._replace(ready=(thread.to, *s.ready))
        return [(f"{FIBERS[f]} {what}", self.leave(s, me, f, fiber))]

    def open(self, s: State, me: int, thread: Thread) -> Steps:
        fiber = s.fibers[thread.fiber]._replace(wait=OPEN)
        blind = "no look at the token after the open" in self.bugs
        place = thread._replace(at="suspend" if blind else "look")
        return [(f"{FIBERS[thread.fiber]} opens its wait", at(with_fiber(s, thread.fiber, fiber), me, place))]

    def look(self, s: State, me: int, thread: Thread) -> Steps:
        fiber = s.fibers[thread.fiber]
        if not fiber.token:
            return [("looks at the token again", at(s, me, thread._replace(at="suspend")))]
        # a resume may have won the wait meanwhile: its value is in the token, and what it posts finds nothing to do
        closed = with_fiber(s, thread.fiber, fiber._replace(wait=NONE, wins=0))
        return [("closes its wait again", at(closed, me, thread._replace(at="try")))]

    def suspend(self, s: State, me: int, thread: Thread) -> Steps:
        f = thread.fiber
        after = with_fiber(s, f, s.fibers[f]._replace(state=BLOCKED))
        if thread.to != NOBODY:
            return [self.dispatch(after, me, f, thread.to)]
        return self.give_way(after, me, f)

    def finish(self, s: State, f: int) -> State:
        worker = s.fibers[f].worker
        s = with_fiber(s, f, s.fibers[f]._replace(state=DONE, token=False, pending=False, owed=0))
        return s if worker == NOBODY else s._replace(hosts=put(s.hosts, worker, NOBODY))

    def drain(self, s: State) -> State:
        """``drain_inbox``: act on what came from outside."""
        for f in s.inbox:
            fiber = s.fibers[f]
            if fiber.state == DETACHED:
                if fiber.wants_slot:
                    s = push(with_fiber(s, f, fiber._replace(wants_slot=False)), f)
                elif fiber.ended:
                    s = self.finish(s, f)
            elif fiber.state == BLOCKED and (fiber.wait in WON or "the drain does not look at the wait" in self.bugs):
                s = push(s, f)
            elif fiber.pending:
                s = self.deliver(s, f)
        return s._replace(inbox=()) if s.inbox else s

    def deliver(self, s: State, f: int) -> State:
        """``deliver_cancel``."""
        fiber = s.fibers[f]
        if fiber.state != BLOCKED or fiber.wait != OPEN:
            return s
        return push(self.won(s, f, WON_CANCEL), f)

    # -- who runs next

    def give_way(self, s: State, me: int, f: int, then: str = "return") -> Steps:
        """The owner's fiber ``f`` (NOBODY: it has ended) does not go on: the next of the queue does, or the hub."""
        s = self.drain(s)
        steps = []
        if s.ready:
            steps.append(self.dispatch(s._replace(ready=s.ready[1:]), me, f, s.ready[0], then))
        if not s.ready or self.program.budget:
            steps.append(self.dispatch(s, me, f, NOBODY, then))
        return steps

    def dispatch(self, s: State, me: int, f: int, following: int, then: str = "return") -> tuple[str, State]:
        """The owner hands the slot to ``following`` (NOBODY: the hub), from ``f``, on whose stack it stays."""
        then = "start" if f == NOBODY else then
        if following == NOBODY:
            s = s._replace(current=NOBODY)
            if me == HOME:
                return "to the hub", at(s, me, Thread("idle"))
            return "gives the slot back", self.grant(s, me, f, HOME, then)
        what = f"hands over to {FIBERS[following]}"
        worker = s.fibers[following].worker
        if worker == NOBODY and following in self.program.detached:
            if me != HOME:
                return what, self.grant(s._replace(target=following, current=NOBODY), me, f, HOME, then)
            return self.start_detached(s, following)
        s = with_fiber(s, following, s.fibers[following]._replace(state=RUNNING))
        if following == G:
            if me == HOME:
                return what, self.continued(s._replace(current=G), HOME, G)
            return what, self.grant(s._replace(target=G, current=NOBODY), me, f, HOME, then)
        s = s._replace(current=following)
        if worker == NOBODY:
            s, worker = self.hire(s, following)
        if worker != me:
            return what, self.grant(s, me, f, worker, then)
        if f == following:
            return "goes on itself", self.continued(s, me, f)
        return what, at(s, me, Thread("wait", then="start"))

    def start_detached(self, s: State, f: int) -> tuple[str, State]:
        """By home: ``f`` is known to block."""
        s, worker = self.hire(s, f)
        s = with_fiber(s, f, s.fibers[f]._replace(state=DETACHED))._replace(current=NOBODY)
        ordered = s._replace(orders=put(s.orders, worker, True))
        return f"orders {FIBERS[f]} to start", at(ordered, HOME, Thread("wake", then="back", to=worker))

    def hire(self, s: State, f: int) -> tuple[State, int]:
        worker = self.free_worker(s)
        if s.numbers[worker] == NOBODY:
            s = s._replace(numbers=put(s.numbers, worker, self.free_number(s)))
        s = with_fiber(s, f, s.fibers[f]._replace(worker=worker))
        return s._replace(hosts=put(s.hosts, worker, f)), worker

    def free_worker(self, s: State) -> int:
        """An idle one, or a new one: there are as many as thread fibers, so that there is always one."""
        for worker in range(1, len(s.hosts)):
            if self.is_idle(s, worker):
                return worker
            ended = s.hosts[worker] != NOBODY and s.fibers[s.hosts[worker]].ended
            if ended and "an ended worker is used again before the drain" in self.bugs:
                return worker
        if NOBODY in s.numbers:
            return s.numbers.index(NOBODY)
        raise Violation("no worker is free")

    def free_number(self, s: State) -> int:
        """Of one that was told to end."""
        taken = [number for number, stops in zip(s.numbers, s.stops, strict=True) if not stops]
        return next(number for number, stops in zip(s.numbers, s.stops, strict=True) if stops and number not in taken)

    def grant(self, s: State, me: int, f: int, to: int, then: str) -> State:
        waking = Thread("wake", f, then, to)
        if "wake before grant" in self.bugs:
            return at(s, me, waking._replace(at="early wake"))
        return at(s, me, waking)._replace(word=Word(to, SCHED))

    def early_wake(self, s: State, me: int, thread: Thread) -> Steps:
        return [("wakes", at(self.run_again(s, thread.to), me, thread._replace(at="late grant")))]

    def late_grant(self, s: State, me: int, thread: Thread) -> Steps:
        return [("grants", self.woke(s, me, thread)._replace(word=Word(thread.to, SCHED)))]

    def continued(self, s: State, me: int, f: int) -> State:
        """The fiber runs again: what its wait was won by decides."""
        fiber = s.fibers[f]
        if fiber.wait not in WON:
            raise Violation(f"{FIBERS[f]} runs again, and its wait is {fiber.wait}")
        winner, fiber = fiber.wait, fiber._replace(wait=NONE, wins=fiber.wins - 1)
        if winner == WON_RESUME:
            if not fiber.token:
                # the resumer's value went to an earlier block; it found this one open, and won it
                return at(with_fiber(s, f, fiber), me, Thread("try", f))
            fiber = fiber._replace(token=False, owed=fiber.owed - 1)
        elif winner == WON_CANCEL:
            if not fiber.pending:
                raise Violation(f"a CancelledError in {FIBERS[f]} without a cancellation")
            fiber = fiber._replace(pending=False)
        return self.leave(s, me, f, fiber)

    # -- what a wait leads to

    def have_slot(self, s: State, me: int, thread: Thread) -> Steps:
        if me == HOME:
            if s.word.mode == REVOKED:
                return [("sees that the slot is revoked", at(s, me, thread._replace(at="notice")))]
            what, after = self.dispatch(s._replace(target=NOBODY), me, NOBODY, s.target)
            return [(f"has the slot back, {what}", after)]
        f = s.hosts[me]
        if f == NOBODY or s.current != f or s.fibers[f].state != RUNNING or thread.fiber not in (NOBODY, f):
            raise Violation(f"worker {me} was given the slot and has no fiber to run: {s.hosts}, current: {s.current}")
        if thread.then == "return":
            return [(f"{FIBERS[f]} runs again", self.continued(s, me, f))]
        if thread.then == "again":
            return [(f"{FIBERS[f]} is attached again", at(s, me, Thread("verb", f)))]
        starts = at(s, me, Thread("user", f))
        return [(f"{FIBERS[f]} starts", starts._replace(word=Word(me, USER, me)))]

    # -- home

    def notice(self, s: State, me: int, thread: Thread) -> Steps:
        if s.word.mode != REVOKED and "notice is a store" not in self.bugs:
            if "who loses the notice thinks that it has the slot" in self.bugs:
                return [("does not look", at(s, me, Thread("idle")))]
            return [("it was taken back", at(s, me, thread._replace(at="wait")))]
        f = s.current
        if s.word.mode == REVOKED and (f == NOBODY or s.fibers[f].worker != s.word.stint):
            raise Violation(f"worker {s.word.stint} was revoked, and home thinks that it was {f}")
        s = with_fiber(s, f, s.fibers[f]._replace(state=DETACHED))._replace(word=Word(HOME, SCHED), current=NOBODY)
        # whoever was interrupted runs the handler in the hub
        return [(f"notices: {FIBERS[f]} is detached", at(s, me, Thread("idle" if thread.then else "back")))]

    def back(self, s: State, me: int, thread: Thread) -> Steps:
        """Home owns the slot and goes on with whoever is next."""
        return self.give_way(s, me, NOBODY)

    def hub(self, s: State, me: int, thread: Thread) -> Steps:
        """The drain callback: who is runnable runs."""
        after = self.drain(s)
        steps = [*self.timers(s), *self.trim(s)]
        if after.ready:
            rest = after._replace(ready=after.ready[1:])
            what, after = self.dispatch(rest, me, NOBODY, after.ready[0])
            return [*steps, (f"the hub {what}", after)]
        return [*steps, ("the hub has nothing to run", at(after, me, Thread("idle")))]

    def timers(self, s: State) -> Steps:
        return [
            (f"the timeout of {FIBERS[f]}", at(push(self.won(s, f, WON_TIMEOUT), f), HOME, Thread("hub")))
            for f, fiber in enumerate(s.fibers)
            if fiber.state == BLOCKED and fiber.wait == OPEN and self.op(s, f).verb == "block timed"
        ]

    def trim(self, s: State) -> Steps:
        """An idle worker is told to end."""
        return [
            (
                f"tells worker {worker} to end",
                at(s, HOME, Thread("wake", then="back", to=worker))._replace(
                    stops=put(s.stops, worker, True), trims=s.trims - 1
                ),
            )
            for worker in range(1, self.foreign)
            if s.trims and self.is_idle(s, worker)
        ]

    def is_idle(self, s: State, worker: int) -> bool:
        return s.hosts[worker] == NOBODY and s.numbers[worker] != NOBODY and not s.stops[worker]

    def idle(self, s: State, me: int, thread: Thread) -> Steps:
        if "no look after hub_idle" in self.bugs:
            place = "poll" if not s.ready else "hub"
            return [("hub_idle", at(s, me, Thread(place))._replace(hub_idle=place == "poll"))]
        return [("hub_idle = 1", at(s, me, Thread("last look"))._replace(hub_idle=True))]

    def last_look(self, s: State, me: int, thread: Thread) -> Steps:
        if s.ready or s.inbox:
            return [("sees work", at(s, me, Thread("hub"))._replace(hub_idle=False))]
        return [("polls", at(s, me, Thread("poll")))]

    def poll(self, s: State, me: int, thread: Thread) -> Steps:
        steps = [(what, after._replace(hub_idle=False)) for what, after in self.timers(s)]
        if s.eventfd:
            early = "noted is cleared before the eventfd is read" in self.bugs
            steps.append(("is notified", at(s, me, Thread("unnote" if early else "read eventfd"))))
        return steps

    def read_eventfd(self, s: State, me: int, thread: Thread) -> Steps:
        if "noted is cleared before the eventfd is read" in self.bugs:
            return [("reads the eventfd", at(s, me, Thread("hub"))._replace(eventfd=False, hub_idle=False))]
        return [("reads the eventfd", at(s, me, Thread("unnote"))._replace(eventfd=False))]

    def unnote(self, s: State, me: int, thread: Thread) -> Steps:
        if "noted is cleared before the eventfd is read" in self.bugs:
            return [("noted = 0", at(s, me, Thread("read eventfd"))._replace(noted=False))]
        return [("noted = 0", at(s, me, Thread("hub"))._replace(noted=False, hub_idle=False))]

    # -- the monitor

    def watch(self, s: State, me: int, thread: Thread) -> Steps:
        if not self.program.revocable or s.word.owner == HOME:
            return []
        if s.word.mode != USER and not (s.word.mode == SCHED and "revokes in SCHED mode" in self.bugs):
            return []
        revoked = s._replace(word=Word(HOME, REVOKED, s.word.owner))
        if "a revocation does not wake home" in self.bugs:
            return [("revokes", revoked)]
        return [("revokes", at(revoked, me, Thread("wake", to=HOME)))]


# ------------------------------------------------------------------------------------------------ command line


def main(arguments: list[str]) -> None:
    programs = {**PROGRAMS, **LARGE} if "--all" in arguments else PROGRAMS
    for name, program in programs.items():
        start = time.process_time()
        report = explore(SlotModel(program), max_states=10_000_000)
        print(f"{name}: {report} [{time.process_time() - start:.1f} s]", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
