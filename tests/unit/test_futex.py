"""FutexWord between real kernel threads.  tests/model/test_futex_model.py explores the protocol itself."""

from __future__ import annotations

import copy
import gc
import math
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from swapco._core.futex import BLOCKED, QUEUED, RUNNING, TRANSITIONS, FutexWord

# no test takes anywhere near as long, unless a wakeup is lost
LIMIT_S = 60
NAN = math.nan


def start(function: Callable[..., object], *args: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def finish(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "a thread sleeps for ever: its wakeup was lost"


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        os.sched_yield()


def address(word: FutexWord) -> int:
    return int(repr(word).rpartition(" ")[2][:-1], 16)


def sleeps_on(word: FutexWord, thread: threading.Thread) -> bool:
    """Is the kernel thread asleep in futex(2) on this very word?

    "Blocked" is not enough before a signal is sent: a thread that is still on its way into the system call
    does not get EINTR.
    """
    with open(f"/proc/self/task/{thread.native_id}/syscall") as syscall:
        words = syscall.read().split()
    return len(words) > 1 and int(words[1], 16) == address(word)


def start_waiting(word: FutexWord, *args: object) -> threading.Thread:
    """A thread that sleeps in ``word.wait(*args)``."""
    thread = start(word.wait, *args)
    eventually(lambda: word.value == BLOCKED)
    return thread


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


# ------------------------------------------------------------------------------------------- one thread


def test_a_new_word_is_running():
    word = FutexWord()
    assert word.value == RUNNING == 0
    assert repr(word).startswith("<FutexWord running at 0x")


def test_each_word_has_a_cache_line_to_itself():
    words = [FutexWord() for _ in range(200)]
    lines = {address(word) for word in words}
    assert len(lines) == 200
    assert all(line % 64 == 0 for line in lines)


def test_a_wake_before_the_wait_is_queued():
    word = FutexWord()
    assert word.wake() is False
    assert word.value == QUEUED == 1
    assert "queued" in repr(word)
    assert word.wait() is None
    assert word.value == RUNNING


def test_a_second_queued_wakeup_is_refused_and_changes_nothing():
    word = FutexWord()
    word.wake()
    with pytest.raises(RuntimeError, match="has a wakeup queued already"):
        word.wake()
    assert word.value == QUEUED
    word.wait()
    word.wake()
    word.wait()
    assert word.value == RUNNING


@pytest.mark.parametrize("timeout", [0, -1, -0.0, -1e300, -math.inf, False])
def test_timeouts_that_are_over_expire_at_once(timeout):
    word = FutexWord()
    with pytest.raises(TimeoutError):
        word.wait(timeout)
    assert word.value == RUNNING
    word.wake()
    word.wait(timeout)
    assert word.value == RUNNING


def test_a_timeout_does_not_fire_early_and_takes_itself_back():
    word = FutexWord()
    before = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.02 seconds"):
        word.wait(0.02)
    assert time.monotonic() - before >= 0.02
    assert word.value == RUNNING
    assert word.wake() is False
    word.wait(timeout=0.02)


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 9.2e9, sys.float_info.max])
def test_endless_timeouts(timeout):
    word = FutexWord()
    thread = start_waiting(word, timeout)
    assert word.wake() is True
    finish(thread)


def test_misuse_changes_nothing():
    word, other = FutexWord(), FutexWord()
    with pytest.raises(ValueError, match="NaN"):
        word.wait(NAN)
    with pytest.raises(ValueError, match="NaN"):
        word.swap(other, NAN)
    with pytest.raises(TypeError):
        word.wait("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        word.swap(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="swapped with itself"):
        word.swap(word)
    assert (word.value, other.value) == (RUNNING, RUNNING)
    word.wake()
    word.wait()


def test_swap_with_a_queued_wakeup_wakes_the_target_and_returns():
    word, target = FutexWord(), FutexWord()
    word.wake()
    assert word.swap(target) is None
    assert (word.value, target.value) == (RUNNING, QUEUED)


def test_swap_to_a_full_target_is_refused_and_changes_nothing():
    word, target = FutexWord(), FutexWord()
    target.wake()
    with pytest.raises(RuntimeError, match="has a wakeup queued already"):
        word.swap(target)
    assert (word.value, target.value) == (RUNNING, QUEUED)
    word.wake()
    with pytest.raises(RuntimeError, match="has a wakeup queued already"):
        word.swap(target, 0)
    assert (word.value, target.value) == (QUEUED, QUEUED)
    word.wait(0)


def test_a_swap_that_times_out_has_woken_its_target():
    word, target = FutexWord(), FutexWord()
    for timeout in (0, 0.001):
        with pytest.raises(TimeoutError):
            word.swap(target, timeout)
        assert (word.value, target.value) == (RUNNING, QUEUED)
        target.wait()


def test_words_are_neither_copied_nor_pickled_nor_subclassed_nor_leaked():
    word = FutexWord()
    for action in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            action(word)
    with pytest.raises(TypeError):
        type("Mine", (FutexWord,), {})
    seen = weakref.ref(word)
    del word
    gc.collect()
    assert seen() is None


TABLE = {(row.step, row.before): (row.after, row.outcome) for row in TRANSITIONS}


class OneThread(RuleBasedStateMachine):
    """Three words used by one thread: each call does what the table of transitions says."""

    words = st.integers(0, 2)
    timeouts = st.sampled_from([0, -1, -math.inf, 1e-9, 1e-5])

    @initialize()
    def make(self) -> None:
        self.real = [FutexWord() for _ in range(3)]
        self.model = [RUNNING] * 3

    def step(self, name: str, word: int) -> str:
        self.model[word], outcome = TABLE[name, self.model[word]]
        return outcome

    @rule(word=words)
    def wake(self, word: int) -> None:
        if self.step("post", word) == "refused":
            with pytest.raises(RuntimeError):
                self.real[word].wake()
        else:
            # the only thread is not blocked
            assert self.real[word].wake() is False

    def expect_wait(self, word: int, call: Callable[[], None]) -> None:
        if self.step("park", word) == "took":
            call()
        else:
            assert self.step("take_back", word) == "taken_back"
            with pytest.raises(TimeoutError):
                call()

    @rule(word=words, timeout=timeouts)
    def wait(self, word: int, timeout: float) -> None:
        self.expect_wait(word, lambda: self.real[word].wait(timeout))

    @rule(word=words)
    def wait_for_ever(self, word: int) -> None:
        if self.model[word] == QUEUED:
            self.expect_wait(word, self.real[word].wait)

    @rule(word=words, other=words, timeout=timeouts)
    def swap(self, word: int, other: int, timeout: float) -> None:
        def call() -> None:
            self.real[word].swap(self.real[other], timeout)

        if word == other:
            with pytest.raises(ValueError, match="itself"):
                call()
        elif self.step("post", other) == "refused":
            with pytest.raises(RuntimeError):
                call()
        else:
            self.expect_wait(word, call)

    @rule(word=words, other=words)
    def nan(self, word: int, other: int) -> None:
        with pytest.raises(ValueError, match="NaN"):
            self.real[word].wait(NAN)
        with pytest.raises(ValueError, match="NaN"):
            self.real[word].swap(self.real[other], NAN)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "real"):
            assert [word.value for word in self.real] == self.model


TestOneThread = OneThread.TestCase
TestOneThread.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# ------------------------------------------------------------------------------------ several threads


def test_wake_ends_a_wait():
    word = FutexWord()
    thread = start_waiting(word)
    assert f"blocked thread={thread.ident}" in repr(word)
    assert word.wake() is True
    finish(thread)
    assert word.value == RUNNING
    assert "thread" not in repr(word)


def test_a_wake_while_the_woken_thread_is_on_its_way_out_is_queued():
    word = FutexWord()
    thread = start_waiting(word)
    word.wake()
    # the word is free for the next wakeup at once, whether or not its thread has run
    assert word.wake() is False
    finish(thread)
    assert word.value == QUEUED


def test_swap_wakes_the_target_and_waits():
    main, other = FutexWord(), FutexWord()
    seen = []

    def second() -> None:
        other.wait()
        seen.append((main.value, other.value))
        main.wake()

    thread = start(second)
    eventually(lambda: other.value == BLOCKED)
    main.swap(other)
    finish(thread)
    assert seen[0][1] == RUNNING
    assert (main.value, other.value) == (RUNNING, RUNNING)


def test_swap_hands_data_over_in_both_directions():
    rounds = 3000
    words = FutexWord(), FutexWord()
    turns: list[int] = []

    def player(me: int) -> None:
        if me:
            words[me].wait()
        for _ in range(rounds):
            turns.append(me)
            if me and len(turns) == 2 * rounds:
                words[0].wake()
            else:
                words[me].swap(words[1 - me])

    threads = [start(player, me) for me in (1, 0)]
    finish(*threads)
    assert turns == [0, 1] * rounds
    assert [word.value for word in words] == [RUNNING, RUNNING]


def test_a_second_waiter_is_refused_at_once_and_the_first_is_not_disturbed():
    word, target = FutexWord(), FutexWord()
    thread = start_waiting(word)
    with pytest.raises(RuntimeError, match=rf"thread={thread.ident} at .* has a waiting thread already"):
        word.wait()
    with pytest.raises(RuntimeError, match="has a waiting thread already"):
        word.wait(0)
    with pytest.raises(RuntimeError, match="has a waiting thread already"):
        word.swap(target)
    assert target.value == RUNNING
    assert word.value == BLOCKED
    word.wake()
    finish(thread)
    word.wake()
    word.wait()


def test_waits_let_other_threads_run():
    """With an endless switch interval nobody is asked for the GIL: only who gives it lets others run."""
    word, other = FutexWord(), FutexWord()
    turns = [0]

    def second(*timeout: float) -> None:
        for _ in range(100):
            other.wait(*timeout)
            turns[0] += 1
            word.wake()
        other.wait(*timeout)
        for _ in range(99):
            turns[0] += 1
            other.swap(word, *timeout)
        turns[0] += 1
        word.wake()

    with switch_interval(LIMIT_S * 1000):
        for timeout in ((), (LIMIT_S,)):
            thread = start(second, *timeout)
            for _ in range(100):
                other.wake()
                word.wait(*timeout)
            for _ in range(100):
                word.swap(other, *timeout)
            finish(thread)
    assert turns == [400]


# ------------------------------------------------------------------------------------------------- races


@pytest.mark.parametrize("seed", range(3))
def test_a_wake_races_with_the_timeout(seed):
    """Each wake is taken exactly once: by the wait that it races with, or by the next one."""
    rounds = 4000
    delays = random.Random(seed)
    word, go = FutexWord(), FutexWord()
    posted: list[bool] = []

    def waker() -> None:
        for _ in range(rounds):
            go.wait()
            for _ in range(delays.randrange(300)):
                pass
            posted.append(word.wake())

    thread = start(waker)
    chance = random.Random(seed + 100)
    timeout_s = 50e-6
    won = 0
    for _ in range(rounds):
        go.wake()
        try:
            word.wait(timeout_s * chance.uniform(0.5, 1.5))
            won += 1
            # stay where the two are equally fast, on whatever machine this is
            timeout_s *= 0.9
        except TimeoutError:
            timeout_s *= 1.1
            word.wait(LIMIT_S)
        assert word.value == RUNNING
    finish(thread)
    assert len(posted) == rounds
    assert 0 < won < rounds, "the race was one-sided: it tests nothing"


@pytest.mark.parametrize("seed", range(2))
def test_no_wake_is_lost_or_doubled_between_many_wakers_and_short_waits(seed):
    word = FutexWord()
    accepted = [0, 0, 0]
    over = [False]

    def waker(me: int) -> None:
        chance = random.Random(seed * 10 + me)
        for _ in range(5000):
            try:
                word.wake()
                accepted[me] += 1
            except RuntimeError:
                if chance.random() < 0.5:
                    os.sched_yield()

    def waiter() -> None:
        chance = random.Random(seed)
        while not over[0]:
            try:
                word.wait(chance.choice([0, 1e-6, 50e-6, 1e-3]))
                woken[0] += 1
            except TimeoutError:
                pass

    woken = [0]
    waiting = start(waiter)
    finish(*[start(waker, me) for me in range(3)])
    over[0] = True
    finish(waiting)
    assert sum(accepted) == woken[0] + (word.value == QUEUED)
    assert sum(accepted) > 0


@pytest.mark.parametrize("seed", range(2))
def test_waiters_that_compete_for_one_word_steal_no_wake(seed):
    """Two threads on one word: one of them is refused, and the wakes still come out even."""
    word = FutexWord()
    woken, refused = [0, 0], [0, 0]
    over = [False]

    def waiter(me: int) -> None:
        chance = random.Random(seed * 10 + me)
        while not over[0]:
            try:
                word.wait(chance.choice([1e-6, 100e-6, 1e-3]))
                woken[me] += 1
            except TimeoutError:
                pass
            except RuntimeError:
                refused[me] += 1
                os.sched_yield()

    threads = [start(waiter, me) for me in (0, 1)]
    accepted = 0
    while accepted < 3000:
        try:
            word.wake()
            accepted += 1
        except RuntimeError:
            os.sched_yield()
    over[0] = True
    finish(*threads)
    assert accepted == sum(woken) + (word.value == QUEUED)
    assert sum(refused) > 0


@pytest.mark.parametrize("seed", range(2))
def test_swaps_with_timeouts_in_a_ring(seed):
    """Three threads swap round a ring with short timeouts; wakes are counted and come out even."""
    words = [FutexWord() for _ in range(3)]
    posted, woken = [0, 0, 0], [0, 0, 0]
    lock = threading.Lock()

    def member(me: int) -> None:
        chance = random.Random(seed * 10 + me)
        following = (me + 1) % 3
        for _ in range(2000):
            try:
                words[me].swap(words[following], chance.choice([0, 20e-6, 200e-6]))
            except RuntimeError:
                continue
            except TimeoutError:
                pass
            else:
                woken[me] += 1
            with lock:
                posted[following] += 1

    finish(*[start(member, me) for me in range(3)])
    for word, came, went in zip(words, posted, woken, strict=True):
        assert came == went + (word.value == QUEUED)


# ----------------------------------------------------------------------------------------------- signals


class Interruption(Exception):
    """Raised by a signal handler."""


@contextmanager
def handler(function: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: function())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def raise_interruption() -> None:
    raise Interruption


def kick(thread: threading.Thread) -> None:
    """Interrupt a thread in its system call."""
    assert thread.ident is not None
    signal.pthread_kill(thread.ident, signal.SIGUSR1)


def kick_the_sleeper(word: FutexWord, then: Callable[[], object] = lambda: None) -> threading.Thread:
    """Interrupt the main thread once it sleeps on the word, then do something else."""
    main = threading.main_thread()

    def run() -> None:
        eventually(lambda: sleeps_on(word, main))
        kick(main)
        then()

    return start(run)


def test_a_handler_runs_during_the_wait_and_the_wait_goes_on():
    word = FutexWord()
    seen: list[int] = []
    with handler(lambda: seen.append(word.value)):

        def wake_after_the_handler() -> None:
            eventually(lambda: seen and word.value == BLOCKED)
            word.wake()

        thread = kick_the_sleeper(word, wake_after_the_handler)
        word.wait()
        finish(thread)
    # while the handler ran, its thread was running, and the word said so
    assert seen == [RUNNING]
    assert word.value == RUNNING


@pytest.mark.parametrize("timeout", [None, LIMIT_S])
def test_a_handler_that_raises_ends_the_wait_and_no_later_wake_is_lost(timeout):
    word = FutexWord()
    with handler(raise_interruption):
        thread = kick_the_sleeper(word)
        with pytest.raises(Interruption):
            word.wait(timeout)
        finish(thread)
    assert word.value == RUNNING
    assert word.wake() is False
    word.wait()


def test_a_handler_that_raises_ends_a_swap_whose_target_was_woken():
    word, target = FutexWord(), FutexWord()
    with handler(raise_interruption):
        thread = kick_the_sleeper(word)
        with pytest.raises(Interruption):
            word.swap(target)
        finish(thread)
    assert (word.value, target.value) == (RUNNING, QUEUED)


def test_a_handler_may_wake_the_word():
    word = FutexWord()
    with handler(word.wake):
        thread = kick_the_sleeper(word)
        word.wait()
        finish(thread)
    assert word.value == RUNNING


def test_a_wait_from_inside_a_handler_is_a_second_waiter():
    word = FutexWord()
    with handler(word.wait):
        thread = kick_the_sleeper(word)
        with pytest.raises(RuntimeError, match="has a waiting thread already"):
            word.wait()
        finish(thread)
    word.wake()
    word.wait()


def test_signals_do_not_stretch_the_timeout():
    word = FutexWord()
    over = []
    main = threading.main_thread()

    def storm() -> None:
        while not over:
            kick(main)
            os.sched_yield()

    with handler(lambda: None):
        thread = start(storm)
        before = time.monotonic()
        with pytest.raises(TimeoutError):
            word.wait(0.1)
        elapsed = time.monotonic() - before
        over.append(True)
        finish(thread)
    assert 0.1 <= elapsed < LIMIT_S / 2
    assert word.value == RUNNING


def test_a_signal_to_another_thread_leaves_its_wait_alone():
    word = FutexWord()
    seen: list[int] = []
    with handler(lambda: seen.append(threading.get_ident())):
        thread = start_waiting(word)
        eventually(lambda: sleeps_on(word, thread))
        kick(thread)
        eventually(lambda: seen)
        eventually(lambda: word.value == BLOCKED)
        assert thread.is_alive()
        assert word.wake() is True
        finish(thread)
    assert seen == [threading.main_thread().ident]


@pytest.mark.parametrize("seed", range(2))
def test_a_wake_races_with_a_signal_whose_handler_raises(seed):
    """Whichever wins: after an exception out of the wait the wake is still there, otherwise it was taken."""
    rounds = 1500
    chance = random.Random(seed)
    word, go = FutexWord(), FutexWord()
    main = threading.main_thread()
    waiting = [False]
    signals: list[bool] = []
    wakes: list[bool] = []

    def on_signal() -> None:
        signals.append(True)
        if waiting[0]:
            raise Interruption

    def wake() -> None:
        wakes.append(word.wake())

    def wake_and_kick() -> None:
        for number in range(rounds):
            go.wait()
            way = chance.randrange(6)
            if way < 2:
                # one of the two for certain
                eventually(lambda: sleeps_on(word, main))
                (kick_main, wake)[way]()
                if way == 0:
                    eventually(lambda number=number: len(signals) > number)
                (wake, kick_main)[way]()
            else:
                # the race; every other time with the main thread on its way to sleep
                if way < 4:
                    eventually(lambda: word.value == BLOCKED)
                (kick_main, wake)[way % 2]()
                for _ in range(chance.randrange(100)):
                    pass
                (wake, kick_main)[way % 2]()

    def kick_main() -> None:
        kick(main)

    outcomes = {"raised by the wait": 0, "woken": 0}
    with handler(on_signal):
        thread = start(wake_and_kick)
        for number in range(1, rounds + 1):
            raised_by_wait = False
            go.wake()
            try:
                waiting[0] = True
                word.wait()
                waiting[0] = False
            except Interruption as interruption:
                # if the handler ran inside the wait, a line of the library is on the way up
                files = [frame.filename for frame in traceback.extract_tb(interruption.__traceback__)]
                raised_by_wait = any(file.endswith("futex.pyx") for file in files)
            waiting[0] = False
            eventually(lambda number=number: len(signals) == len(wakes) == number)
            assert word.value == (QUEUED if raised_by_wait else RUNNING)
            outcomes["raised by the wait" if raised_by_wait else "woken"] += 1
            if raised_by_wait:
                word.wait()
        finish(thread)
    assert min(outcomes.values()) > rounds / 20, f"the race was one-sided: {outcomes}"


# -------------------------------------------------------------------------------------------------- fork


def test_after_a_fork_the_words_of_the_child_are_its_own():
    idle, waited = FutexWord(), FutexWord()
    thread = start_waiting(waited)
    with warnings.catch_warnings():
        # the parent has threads: that is what this test is about
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        failed = 1
        try:
            idle.wake()
            idle.wait(LIMIT_S)
            fresh = FutexWord()
            other = start_waiting(fresh)
            fresh.wake()
            finish(other)
            # its waiter stayed in the parent
            with pytest.raises(RuntimeError, match="has a waiting thread already"):
                waited.wait(0)
            waited.wake()
            failed = 0
        finally:
            os._exit(failed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert waited.value == BLOCKED
    assert thread.is_alive()
    waited.wake()
    finish(thread)
    assert idle.value == RUNNING
