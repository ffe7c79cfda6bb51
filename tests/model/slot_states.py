"""The state of the model of the slot: see ``slot_model``."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from slot_programs import NOBODY, G

SCHED, USER, REVOKED = "SCHED", "USER", "REVOKED"

HOME = 0  # a thread; workers are 1, 2, ..., then come the foreign thread and the monitor

READY, RUNNING, BLOCKED, DETACHED, DONE = "ready", "running", "blocked", "detached", "done"

NONE, OPEN = "none", "open"
WON = ("won by resume", "won by timeout", "won by cancel")
WON_RESUME, WON_TIMEOUT, WON_CANCEL = WON


class Word(NamedTuple):
    owner: int
    mode: str
    stint: int = NOBODY


class Fiber(NamedTuple):
    state: str = READY
    pc: int = 0
    wait: str = NONE
    token: bool = False
    pending: bool = False  # a cancellation
    wants_slot: bool = False
    ended: bool = False  # in its own words, detached
    worker: int = NOBODY
    wins: int = 0  # waits won, and not consumed
    owed: int = 0  # resumes that returned True, without those whose value a block returned


class Thread(NamedTuple):
    at: str
    fiber: int = NOBODY  # the one on its stack
    then: str = ""  # where a wait, a wake or a post leads to
    to: int = NOBODY  # the thread to wake, the fiber to post, or the one that a switch_to will hand the slot to
    pc: int = 0  # the foreign thread's


class Event(NamedTuple):
    """An event counter, and its owner's flag."""

    moved: bool = False
    sleeping: bool = False


class State(NamedTuple):
    word: Word
    threads: tuple[Thread, ...]
    fibers: tuple[Fiber, ...]
    # the scheduler's, guarded by the slot
    ready: tuple[int, ...]
    hosts: tuple[int, ...]  # for each worker its fiber; [0] is not used
    current: int = G
    target: int = NOBODY  # the fiber that home shall run when it has the slot back
    # everybody's
    inbox: tuple[int, ...] = ()
    hub_idle: bool = False
    noted: bool = False
    eventfd: bool = False
    events: tuple[Event, ...] = ()
    orders: tuple[bool, ...] = ()  # for each worker: run your fiber without the slot
    stops: tuple[bool, ...] = ()  # for each worker: end
    numbers: tuple[int, ...] = ()  # for each worker, as the word names it; NOBODY: it was not started
    signals: int = 0
    trims: int = 0


Steps = list[tuple[str, State]]
T = TypeVar("T")


def put(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return (*items[:index], item, *items[index + 1 :])


def at(s: State, me: int, thread: Thread) -> State:
    return s._replace(threads=put(s.threads, me, thread))


def with_fiber(s: State, f: int, fiber: Fiber) -> State:
    return s._replace(fibers=put(s.fibers, f, fiber))


def push(s: State, f: int) -> State:
    """Behind all others, by the owner."""
    return s._replace(fibers=put(s.fibers, f, s.fibers[f]._replace(state=READY)), ready=(*s.ready, f))


def is_scheduling(s: State, after: State) -> bool:
    """Has something changed that only the owner may change?"""
    if s.ready is not after.ready or s.hosts is not after.hosts:
        return True
    if s.current != after.current or s.target != after.target:
        return True
    if s.fibers is after.fibers:
        return False
    return any(fiber.state is not then.state for fiber, then in zip(s.fibers, after.fibers, strict=True))
