"""Sleep and wake, and who is told to end: a part of the model of the slot, see ``slot_model``."""

from __future__ import annotations

from explorer import Violation
from slot_programs import FIBERS, NOBODY, Program
from slot_states import HOME, REVOKED, USER, State, Steps, Thread, Word, at, put


class Sleeping:
    """``slot_wait``, ``slot_wait_home`` and ``slot_wake``."""

    program: Program
    bugs: frozenset[str]
    monitor: int

    def name(self, thread: int) -> str:
        raise NotImplementedError

    def have_slot(self, s: State, me: int, thread: Thread) -> Steps:
        raise NotImplementedError

    def run_again(self, s: State, who: int) -> State:
        """FUTEX_WAKE."""
        thread = s.threads[who]
        if thread.at != "asleep":
            return s
        return at(s, who, thread._replace(at="unflag" if self.program.fine else "wait"))

    def woke(self, s: State, me: int, thread: Thread) -> State:
        if me == self.monitor:
            return at(s, me, Thread("watch"))
        if me == HOME:
            return at(s, me, Thread("back" if thread.then == "back" else "wait"))
        if thread.then == "user":
            return at(s, me, Thread("user", thread.fiber))
        return at(s, me, Thread("wait", thread.fiber, thread.then))

    def wake(self, s: State, me: int, thread: Thread) -> Steps:
        """``slot_wake``: the word was changed."""
        to = thread.to
        if not self.program.fine:
            return [(f"wakes {self.name(to)}", self.woke(self.run_again(s, to), me, thread))]
        after = at(s, me, thread._replace(at="read"))
        if "a wake does not add to the counter" not in self.bugs:
            after = after._replace(events=put(s.events, to, s.events[to]._replace(moved=True)))
        return [(f"adds to the counter of {self.name(to)}", after)]

    def read_sleeping(self, s: State, me: int, thread: Thread) -> Steps:
        if s.events[thread.to].sleeping:
            return [("reads: sleeping", at(s, me, thread._replace(at="rouse")))]
        return [("reads: not sleeping", self.woke(s, me, thread))]

    def rouse(self, s: State, me: int, thread: Thread) -> Steps:
        return [("futex_wake", self.woke(self.run_again(s, thread.to), me, thread))]

    def wait(self, s: State, me: int, thread: Thread) -> Steps:
        """``slot_wait`` and ``slot_wait_home``: look at the word, and for an order."""
        if self.names(s, me):
            if self.program.trims and me != HOME and "who is told to end looks at the word alone" not in self.bugs:
                return [("is named", at(s, me, thread._replace(at="named")))]
            return self.have_slot(s, me, thread)
        if thread.then == "signalled" and s.word.mode == USER:
            return [("revokes, after a signal", s._replace(word=Word(HOME, REVOKED, s.word.owner)))]
        if s.stops[me]:
            return [("ends", at(s, me, Thread("ended")))]
        if s.orders[me]:
            f = s.hosts[me]
            if f == NOBODY or thread.then != "start":
                raise Violation(f"worker {me} has an order and no fiber to run: {s.hosts}")
            starts = at(s, me, Thread("user", f))
            return [(f"{FIBERS[f]} starts without the slot", starts._replace(orders=put(s.orders, me, False)))]
        if not self.program.fine:
            return [("sleeps", at(s, me, thread._replace(at="asleep")))]
        late = "the counter is loaded after the look" in self.bugs
        return [("must wait", at(s, me, thread._replace(at="flag" if late else "load")))]

    def names(self, s: State, me: int) -> bool:
        """Does the word have its number?  It may be another one's."""
        return s.numbers[s.word.owner] == s.numbers[me]

    def named(self, s: State, me: int, thread: Thread) -> Steps:
        if s.stops[me]:
            return [("ends: it is another one's number by now", at(s, me, Thread("ended")))]
        return self.have_slot(s, me, thread)

    def ended(self, s: State, me: int, thread: Thread) -> Steps:
        return []

    def load(self, s: State, me: int, thread: Thread) -> Steps:
        late = "the counter is loaded after the look" in self.bugs
        after = at(s, me, thread._replace(at="futex" if late else "flag"))
        return [("loads its counter", after._replace(events=put(s.events, me, s.events[me]._replace(moved=False))))]

    def flag(self, s: State, me: int, thread: Thread) -> Steps:
        blind = "no look after sleeping = 1" in self.bugs
        after = at(s, me, thread._replace(at="futex" if blind else "glance"))
        return [("sleeping = 1", after._replace(events=put(s.events, me, s.events[me]._replace(sleeping=True))))]

    def glance(self, s: State, me: int, thread: Thread) -> Steps:
        if self.names(s, me) or s.orders[me] or s.stops[me]:
            return [("need not sleep", at(s, me, thread._replace(at="unflag")))]
        late = "the counter is loaded after the look" in self.bugs
        return [("looks again", at(s, me, thread._replace(at="load" if late else "futex")))]

    def futex(self, s: State, me: int, thread: Thread) -> Steps:
        moved = s.events[me].moved
        return [("EAGAIN" if moved else "sleeps", at(s, me, thread._replace(at="unflag" if moved else "asleep")))]

    def asleep(self, s: State, me: int, thread: Thread) -> Steps:
        if me != HOME:
            return []
        awake = thread._replace(at="unflag" if self.program.fine else "wait")
        if thread.then == "signalled":
            return [("looks again after a while", at(s, me, awake))]
        if s.signals:
            return [("EINTR", at(s, me, awake._replace(then="signalled"))._replace(signals=s.signals - 1))]
        return []

    def unflag(self, s: State, me: int, thread: Thread) -> Steps:
        awake = s._replace(events=put(s.events, me, s.events[me]._replace(sleeping=False)))
        return [("sleeping = 0", at(awake, me, thread._replace(at="wait")))]
