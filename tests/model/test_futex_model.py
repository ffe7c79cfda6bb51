"""Every interleaving of the FutexWord protocol, at the grain of single atomic operations and system calls.

The model mirrors ``swapco/_core/futex.h`` function by function; the atomic steps themselves are not mirrored
but taken from the library (``futex.TRANSITIONS``).  Each label of a thread below is a place between two
atomic actions, and any other thread may act there.  The kernel is a set of sleepers a word: FUTEX_WAIT
compares and enters it in one step, FUTEX_WAKE takes one out.  Spurious returns, timeouts and signals come at
any moment; spurious returns and signals have a budget, so that a lost wake-up shows as a state in which
nothing moves.

Then the same programs on broken versions of the protocol: the model must find each bug, or it proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from explorer import Violation, explore

from swapco._core.futex import BLOCKED, QUEUED, RUNNING, TRANSITIONS

TABLE = {(row.step, row.before): (row.after, row.outcome) for row in TRANSITIONS}


class Op(NamedTuple):
    """One call of a thread's program."""

    verb: str  # wake, wait or swap
    word: int
    target: int = -1
    timed: bool = False  # the timeout may expire at any moment
    insist: bool = False  # call again until it was woken (wait) or accepted (wake)


class Word(NamedTuple):
    value: int = RUNNING
    waiter: int = -1
    sleepers: frozenset[int] = frozenset()
    accepted: int = 0  # wakes that were not refused
    woken: int = 0  # waits that ended because of a wake


class Thread(NamedTuple):
    pc: int = 0
    at: str = "start"
    reason: str = ""  # why futex_wait returned, how the call ends, or what a swap's post found


class State(NamedTuple):
    words: tuple[Word, ...]
    threads: tuple[Thread, ...]
    spurious: int
    signals: int


class Program(NamedTuple):
    threads: tuple[tuple[Op, ...], ...]
    words: int
    spurious: int = 0
    signals: int = 0
    raising: bool = True  # a signal handler may raise
    all_finish: bool = True  # no thread may be left blocked


def wake(word: int, **options: bool) -> Op:
    return Op("wake", word, **options)


def wait(word: int, **options: bool) -> Op:
    return Op("wait", word, **options)


def swap(word: int, target: int, **options: bool) -> Op:
    return Op("swap", word, target, **options)


A, B, C = 0, 1, 2
PROGRAMS = {
    "one wake, one wait": Program(((wait(A),), (wake(A),)), 1, spurious=2),
    "two wakes, two waits": Program(((wait(A), wait(A)), (wake(A, insist=True),) * 2), 1, spurious=2),
    "ping-pong": Program(
        (
            (swap(A, B), swap(A, B), swap(A, B)),
            (wait(B), swap(B, A), swap(B, A), wake(A)),
        ),
        2,
        spurious=2,
    ),
    "ping-pong with signals and timeouts": Program(
        (
            (swap(A, B, timed=True), wait(A, insist=True)),
            (wait(B, insist=True, timed=True), wake(A, insist=True), wake(A, insist=True)),
        ),
        2,
        signals=2,
        all_finish=False,
    ),
    "foreign waker against a timeout": Program(
        (
            (wait(A, timed=True, insist=True), wait(A, timed=True, insist=True)),
            (wake(A, insist=True),),
            (wake(A, insist=True),),
        ),
        1,
        spurious=1,
    ),
    "a timeout, then an endless wait": Program(
        ((wait(A, timed=True), wait(A)), (wake(A, insist=True), wake(A, insist=True))), 1, all_finish=False
    ),
    "swap with a queued wakeup": Program(
        (
            (swap(A, B), wait(A)),
            (wake(A, insist=True), wake(A, insist=True)),
            (wait(B),),
        ),
        2,
        spurious=1,
    ),
    "a ring of three": Program(
        (
            (swap(A, B), swap(A, B)),
            (wait(B), swap(B, C), wake(C)),
            (wait(C), swap(C, A), wake(A)),
        ),
        3,
    ),
    "signals whose handlers may raise": Program(
        ((wait(A, insist=True), wait(A, insist=True)), (wake(A, insist=True),) * 2), 1, signals=2, spurious=1
    ),
    "swap, foreign waker, signal and timeout": Program(
        (
            (swap(A, B, timed=True), wait(A, insist=True)),
            (wait(B, insist=True),),
            (wake(A, insist=True), wake(A, insist=True)),
        ),
        2,
        signals=1,
        all_finish=False,
    ),
    "two waiters on one word": Program(
        ((wait(A, insist=True),), (wait(A, insist=True),), (wake(A, insist=True),) * 2), 1, spurious=1
    ),
    "two wakers without patience": Program(((wait(A),), (wake(A),), (wake(A), wake(A))), 1, spurious=1),
    "two threads swap to the same third": Program(
        ((swap(A, C),), (swap(B, C),), (wait(C), wake(A), wake(B))), 3, all_finish=False
    ),
    # the same ideas, larger
    "long ping-pong": Program(
        (
            (swap(A, B),) * 6,
            (wait(B), *(swap(B, A),) * 5, wake(A)),
        ),
        2,
        spurious=3,
        signals=2,
        raising=False,
    ),
    "ping-pong with a foreign waker": Program(
        (
            (swap(A, B), swap(A, B), wait(A)),
            (wait(B), swap(B, A), wake(A, insist=True)),
            (wake(A, insist=True),),
        ),
        2,
        spurious=2,
        signals=1,
        all_finish=False,
    ),
    "a ring of three that may time out": Program(
        (
            (swap(A, B, timed=True), wait(A, insist=True)),
            (wait(B, insist=True, timed=True), swap(B, C, timed=True), wait(B, insist=True)),
            (wait(C, insist=True), wake(A, insist=True), wake(B, insist=True), wake(A, insist=True)),
        ),
        3,
        spurious=1,
        signals=1,
        all_finish=False,
    ),
    "three wakers, two waiters, everything at once": Program(
        (
            (wait(A, timed=True, insist=True), wait(A, timed=True, insist=True)),
            (wait(A, timed=True, insist=True),),
            (wake(A, insist=True), wake(A, insist=True)),
            (wake(A, insist=True),),
        ),
        1,
        spurious=1,
        signals=2,
    ),
}


class FutexModel:
    """``bugs`` switches on a broken version of a step; without any it is the protocol of futex.h."""

    def __init__(self, program: Program, *bugs: str) -> None:
        self.program = program
        self.bugs = frozenset(bugs)

    def initial(self) -> State:
        return State(
            (Word(),) * self.program.words,
            (Thread(),) * len(self.program.threads),
            self.program.spurious,
            self.program.signals,
        )

    # -- invariants

    def broken(self, state: State) -> str | None:
        for name, word in enumerate(state.words):
            if word.value not in (BLOCKED, RUNNING, QUEUED):
                return f"word {name} is {word.value}"
            leaving = sum(
                thread.at in ("sleep", "asleep", "returned", "take back", "rouse target")
                and op.word == name
                and word.value != BLOCKED
                for thread, op in self.active(state)
                if thread.at != "rouse target" or thread.reason == "parked"
            )
            if word.accepted != word.woken + (word.value == QUEUED) + leaving:
                return (
                    f"word {name} accepted {word.accepted} wakes, but {word.woken} waits were woken, "
                    f"{leaving} are about to be, and its value is {word.value}"
                )
        return None

    def stuck(self, state: State) -> str | None:
        for number, (thread, program) in enumerate(zip(state.threads, self.program.threads, strict=True)):
            if thread.pc == len(program):
                continue
            word = state.words[program[thread.pc].word]
            if word.value != BLOCKED:
                return f"thread {number} sleeps for ever, although it was woken (the word is {word.value})"
            if self.program.all_finish:
                return f"thread {number} sleeps for ever: its wake was lost"
        for name, word in enumerate(state.words):
            if word.waiter >= 0 and state.threads[word.waiter].at == "start":
                return f"word {name} still has a waiter"
            if word.value == BLOCKED and word.waiter < 0:
                return f"word {name} says blocked, but nobody waits"
        return None

    def active(self, state: State) -> Iterator[tuple[Thread, Op]]:
        for thread, program in zip(state.threads, self.program.threads, strict=True):
            if thread.pc < len(program):
                yield thread, program[thread.pc]

    # -- steps

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for number, (thread, program) in enumerate(zip(state.threads, self.program.threads, strict=True)):
            if thread.pc < len(program):
                op = program[thread.pc]
                for what, after in self.step(state, number, thread, op):
                    yield f"thread {number} ({op.verb} {op.word}): {what}", after

    def apply(self, state: State, name: int, step: str) -> tuple[State, str]:
        """``swapco_word_apply``, and the count of accepted wakes."""
        word = state.words[name]
        after, outcome = TABLE[step, word.value]
        if step == "post":
            if outcome == "refused" and "a full word is not refused" in self.bugs:
                after, outcome = word.value + 1, "kept"
            word = word._replace(accepted=word.accepted + (outcome != "refused"))
        if step == "take_back" and "take back without compare" in self.bugs:
            after, outcome = RUNNING, "taken_back"
        if step == "park" and "park ignores a queued wakeup" in self.bugs:
            after, outcome = BLOCKED, "parked"
        return with_word(state, name, word._replace(value=after)), outcome

    def step(self, state: State, me: int, thread: Thread, op: Op) -> Iterator[tuple[str, State]]:
        bugs = self.bugs
        word = state.words[op.word]

        def go(at: str, reason: str = "", state: State = state) -> State:
            return with_thread(state, me, thread._replace(at=at, reason=reason))

        def end(outcome: str, state: State = state) -> State:
            """The call is over; the program goes on, or insists."""
            if op.insist and outcome != "woken":
                return with_thread(state, me, Thread(thread.pc))
            return with_thread(state, me, Thread(thread.pc + 1))

        def parked_or_took(state: State, posted: str = "") -> Iterator[tuple[str, State]]:
            """``park``, then what follows it in a wait, or (with what the post found) in a swap."""
            state, outcome = self.apply(state, op.word, "park")
            if outcome == "refused":
                if "no waiter field" in bugs:
                    yield "park: refused", end("refused", state)
                    return
                raise Violation(f"thread {me} parks on word {op.word}, where another thread is blocked")
            if outcome == "took":
                state = count_woken(state, op.word)
            if posted == "woke" and not (outcome == "took" and "swap that took does not wake" in bugs):
                if outcome == "parked" and "swap sleeps before it wakes" in bugs:
                    yield "parks", go("sleep", "then rouse", state)
                else:
                    yield f"park: {outcome}", go("rouse target", outcome, state)
            elif outcome == "parked":
                yield "parks", go("sleep", "", state)
            else:
                yield "takes the queued wakeup", go("leave", "woken", state)

        match thread.at:
            case "start" if op.verb == "wake":
                if "wake is a load and a store" in bugs:
                    yield "loads", go("store", str(word.value))
                elif "futex_wake before the post" in bugs:
                    for sleeper, after in self.rouse(state, op.word):
                        yield f"futex_wake {sleeper}", go("late post", "", after)
                else:
                    after, outcome = self.apply(state, op.word, "post")
                    if outcome == "woke" and "no futex_wake" not in bugs:
                        yield "post: woke", go("rouse", "", after)
                    else:
                        yield f"post: {outcome}", end("refused" if outcome == "refused" else "woken", after)
            case "late post":
                after, outcome = self.apply(state, op.word, "post")
                yield f"post: {outcome}", end("refused" if outcome == "refused" else "woken", after)
            case "store":
                value, outcome = TABLE["post", int(thread.reason)]
                word = word._replace(value=value, accepted=word.accepted + (outcome != "refused"))
                stored = with_word(state, op.word, word)
                if outcome == "woke":
                    yield "stores: woke", go("rouse", "", stored)
                else:
                    yield f"stores: {outcome}", end("refused" if outcome == "refused" else "woken", stored)
            case "rouse":
                for sleeper, after in self.rouse(state, op.word):
                    yield f"futex_wake {sleeper}", end("woken", after)

            case "start":
                if word.waiter >= 0 and "no waiter field" not in bugs:
                    yield "enter: refused", end("refused")
                else:
                    entered = with_word(state, op.word, word._replace(waiter=me))
                    yield "enters", go("post" if op.verb == "swap" else "park", "", entered)
            case "post":
                after, outcome = self.apply(state, op.target, "post")
                if outcome == "refused":
                    yield "post: refused", go("leave", "refused", after)
                elif outcome == "woke" and "swap does not wake" not in bugs:
                    yield "post: woke", go("park", "woke", after)
                else:
                    yield f"post: {outcome}", go("park", "kept", after)
            case "park":
                yield from parked_or_took(state, thread.reason)
            case "rouse target":
                for sleeper, after in self.rouse(state, op.target):
                    at, reason = ("leave", "woken") if thread.reason == "took" else ("sleep", "")
                    yield f"futex_wake {sleeper}", go(at, reason, after)

            case "sleep":
                expected = RUNNING if "compares with the value before the park" in bugs else BLOCKED
                if word.value == expected:
                    queued = word._replace(sleepers=word.sleepers | {me})
                    yield "futex_wait: sleeps", go("asleep", thread.reason, with_word(state, op.word, queued))
                else:
                    yield "futex_wait: EAGAIN", go("returned", "nothing")
                if op.timed:
                    yield "the deadline is past", go("returned", "timeout")
            case "asleep":
                out = with_word(state, op.word, word._replace(sleepers=word.sleepers - {me}))
                if me not in word.sleepers:
                    yield "runs again", go("returned", thread.reason or "nothing")
                    return
                if op.timed:
                    yield "ETIMEDOUT", go("returned", "timeout", out)
                if state.spurious:
                    fewer = out._replace(spurious=state.spurious - 1)
                    yield "spurious return", go("returned", "nothing", fewer)
                if state.signals:
                    fewer = out._replace(signals=state.signals - 1)
                    yield "EINTR", go("returned", "signal", fewer)
            case "returned" if thread.reason == "then rouse":
                for sleeper, after in self.rouse(state, op.target):
                    yield f"futex_wake {sleeper}, late", go("returned", "nothing", after)
            case "returned":
                if word.value != BLOCKED:
                    yield "was woken", go("leave", "woken", count_woken(state, op.word))
                elif thread.reason == "nothing":
                    if "trusts every return" in bugs:
                        yield "was woken, it thinks", go("leave", "woken", count_woken(state, op.word))
                    else:
                        yield "sleeps on", go("sleep")
                elif thread.reason == "signal" and "handlers run while blocked" in bugs:
                    yield "handlers", go("handlers")
                else:
                    yield "was not woken", go("take back", thread.reason)
            case "take back":
                after, outcome = self.apply(state, op.word, "take_back")
                if outcome == "wake_won" and "a lost take back is a timeout all the same" not in bugs:
                    yield "take back: the wake won", go("leave", "woken", count_woken(after, op.word))
                elif thread.reason == "signal":
                    yield f"take back: {outcome}", go("handlers", "", after)
                else:
                    yield f"take back: {outcome}", go("leave", "timeout", after)
            case "handlers":
                if self.program.raising:
                    yield "the handler raises", go("leave", "signal")
                if "handlers run while blocked" in bugs:
                    yield "the handler returns", go("sleep")
                else:
                    yield "the handler returns", go("park")
            case "leave":
                nobody = word._replace(waiter=-1)
                yield f"leaves: {thread.reason}", end(thread.reason, with_word(state, op.word, nobody))

    def rouse(self, state: State, name: int) -> Iterator[tuple[str, State]]:
        """FUTEX_WAKE: whichever sleeper, or nobody."""
        word = state.words[name]
        if not word.sleepers:
            yield "nobody", state
        for sleeper in sorted(word.sleepers):
            yield (
                f"thread {sleeper}",
                with_word(state, name, word._replace(sleepers=word.sleepers - {sleeper})),
            )


def with_word(state: State, name: int, word: Word) -> State:
    words = state.words
    return state._replace(words=(*words[:name], word, *words[name + 1 :]))


def with_thread(state: State, number: int, thread: Thread) -> State:
    threads = state.threads
    return state._replace(threads=(*threads[:number], thread, *threads[number + 1 :]))


def count_woken(state: State, name: int) -> State:
    word = state.words[name]
    return with_word(state, name, word._replace(woken=word.woken + 1))


# ------------------------------------------------------------------------------------------------- the tests


def test_the_table_is_the_published_protocol():
    assert TABLE == {
        ("post", -1): (0, "woke"),
        ("post", 0): (1, "kept"),
        ("post", 1): (1, "refused"),
        ("park", -1): (-1, "refused"),
        ("park", 0): (-1, "parked"),
        ("park", 1): (0, "took"),
        ("take_back", -1): (0, "taken_back"),
        ("take_back", 0): (0, "wake_won"),
        ("take_back", 1): (1, "wake_won"),
    }
    assert (BLOCKED, RUNNING, QUEUED) == (-1, 0, 1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_interleaving_is_right(name):
    report = explore(FutexModel(PROGRAMS[name]))
    assert report.failure is None, str(report)
    assert report.ends


# the bug, and what the counterexample says
MUTANTS = {
    "trusts every return": "waits were woken",
    "take back without compare": "waits were woken",
    "a lost take back is a timeout all the same": "waits were woken",
    "wake is a load and a store": "accepted 1 wakes",
    "futex_wake before the post": "although it was woken",
    "no futex_wake": "although it was woken",
    "swap does not wake": "sleeps for ever",
    "swap sleeps before it wakes": "sleeps for ever",
    "swap that took does not wake": "although it was woken",
    "compares with the value before the park": "although it was woken",
    "park ignores a queued wakeup": "waits were woken",
    "a full word is not refused": "is 2",
    "no waiter field": "waits were woken",
    "handlers run while blocked": "waits were woken",
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_model_finds_the_bug(bug):
    for program in PROGRAMS.values():
        report = explore(FutexModel(program, bug))
        if report.failure is not None:
            assert MUTANTS[bug] in report.failure.reason, str(report)
            assert report.failure.trace
            return
    pytest.fail(f"no program shows it: {bug}")
