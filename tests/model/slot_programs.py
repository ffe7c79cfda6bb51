"""The programs on which the slot's protocol is explored: what fibers and foreign threads call.  See ``slot_model``."""

from __future__ import annotations

from typing import NamedTuple

G, A, B, C = 0, 1, 2, 3  # fibers; G is the ordinary one
NOBODY = -1
FIBERS = "GABC"


class Op(NamedTuple):
    """A call of user code."""

    verb: str  # block, block timed, switch_to, resume, cancel, give up, stay; end comes by itself
    target: int = NOBODY


END = Op("end")
block, timed = Op("block"), Op("block timed")
give_up = Op("give up")  # go on without the slot
stay = Op("stay")  # in the kernel, for ever


def switch_to(fiber: int) -> Op:
    return Op("switch_to", fiber)


def resume(fiber: int) -> Op:
    return Op("resume", fiber)


def cancel(fiber: int) -> Op:
    return Op("cancel", fiber)


class Program(NamedTuple):
    """G runs at first, and the thread fibers are in the run queue."""

    ordinary: tuple[Op, ...] = ()
    threads: tuple[tuple[Op, ...], ...] = ()
    foreign: tuple[Op, ...] = ()
    signals: int = 0  # that may interrupt home while it waits
    budget: bool = False  # a fiber that gives way may give the slot to the hub although others are ready
    fine: bool = False  # sleep in single steps
    revocable: bool = True
    detached: tuple[int, ...] = ()  # fibers that start without the slot
    trims: int = 0  # idle workers that the hub may tell to end; new ones get their numbers


PROGRAMS = {
    # without workers: the words of G, the inbox and the hub
    "a resume from outside": Program((block,), (), (resume(G),)),
    "two resumes from outside": Program((block, block), (), (resume(G), resume(G))),
    "a cancellation and a resume from outside": Program((block, block), (), (cancel(G), resume(G))),
    # sleep and wake in single steps
    "single steps: there and back": Program((switch_to(A),), ((switch_to(G),),), fine=True, revocable=False),
    "single steps: an order": Program((block,), ((resume(G),),), fine=True, detached=(A,)),
    "single steps: lent and revoked": Program((switch_to(A),), ((),), fine=True),
    "single steps: a signal": Program((), ((),), fine=True, signals=1),
    "single steps: from worker to worker": Program((), ((block,), (resume(A),)), fine=True, revocable=False),
    "single steps: there, back, and revoked": Program((switch_to(A),), ((switch_to(G),),), fine=True),
    # lending, revoking, taking back
    "lent": Program((switch_to(A),), ((resume(G),),)),
    "two in user code": Program((), ((), ())),
    "one stays in the kernel": Program((), ((stay,), ())),
    "it resumes, then stays": Program((block,), ((stay,), (resume(G), stay))),
    "a signal, and no monitor": Program((block,), ((stay,),), (resume(G),), signals=1, revocable=False),
    "two signals": Program((switch_to(A),), ((resume(G),),), signals=2),
    "a signal, two workers": Program((block,), ((resume(G),), ()), signals=1),
    # detached, and back
    "a worker blocks, and is resumed from outside": Program((), ((block,),), (resume(A),)),
    "two blocks, two resumes from outside": Program((), ((block, block),), (resume(A), resume(A))),
    "resumed from inside and from outside": Program((block, block), ((resume(G),),), (resume(G),)),
    "workers hand over to each other": Program((), ((switch_to(B),), (switch_to(A),))),
    "the budget is spent at any time": Program((switch_to(A),), ((switch_to(G),), ()), budget=True),
    "started without the slot": Program((block,), ((resume(G),), ()), detached=(A,)),
    "started without the slot by a switch_to": Program(
        (switch_to(A),), ((block,), (switch_to(A), resume(G))), detached=(A,)
    ),
    # a worker is used again
    "an ended worker": Program((block,), ((), (resume(G),))),
    # a worker is told to end, and its number is another one's before it has seen that
    "its number is used again": Program((), ((),), budget=True, trims=1),
    "its number is used again, and resumes": Program((block,), ((resume(G),), ()), budget=True, trims=1),
    "its number is used again, and blocks": Program((), ((block,),), (resume(A),), budget=True, trims=1),
    "its number is used again and again": Program((), ((), ()), budget=True, trims=2),
    "single steps: its number is used again": Program((), ((),), fine=True, budget=True, trims=1),
    # timeouts and cancellations
    "timeouts": Program((timed,), ((timed,),)),
    "a timeout against a resume": Program((), ((timed, block),), (resume(A),)),
    "a cancellation from outside": Program((), ((block,),), (cancel(A),)),
    "cancellations from outside and inside": Program((block,), ((cancel(G), block),), (cancel(A),)),
    # larger ones
    "single steps: there and back, a signal": Program((switch_to(A),), ((switch_to(G),),), fine=True, signals=1),
    "single steps: resumed from outside": Program((), ((block,),), (resume(A),), fine=True),
    "timeout, cancellation, resume": Program((), ((timed, block),), (cancel(A), resume(A))),
    "detached resumers": Program((block,), ((resume(G), block), (resume(A),))),
    "the slot is given up": Program((block,), ((give_up, resume(G), block), (resume(A),))),
    "a ring": Program((switch_to(A), block), ((switch_to(B), resume(G)), (resume(A),))),
    "an ended worker, timeouts": Program((block,), ((timed,), (resume(G),))),
    "three fibers": Program((), ((), (), ())),
    "three fibers, two give the slot up": Program((), ((give_up,), (give_up,), ())),
    "a foreign resumer beside detached ones": Program((block,), ((block,), (resume(G),)), (resume(A),)),
}

LARGE = {
    "cancelled at home and in a worker": Program(
        (timed, block), ((timed, cancel(G)),), (resume(A), cancel(A)), signals=1
    ),
    "a handoff, a resume of the token, workers that resume": Program(
        (resume(A), block), ((switch_to(B),), (resume(A), resume(G))), (resume(B),)
    ),
    "blocked workers, one resumed from outside": Program(
        (block,), ((resume(G), block), (block, resume(A))), (resume(B),)
    ),
    "handoffs, a resume from outside, a signal": Program(
        (switch_to(A),), ((switch_to(G),), ()), (resume(G),), signals=1
    ),
    "two resumed from outside": Program((switch_to(A),), ((block, resume(G)), (block,)), (resume(A), resume(B))),
    "timeouts, cancellations, a resume": Program((timed,), ((timed,), (cancel(A),)), (resume(A), cancel(G))),
    "single steps: from worker to worker, revoked": Program((), ((switch_to(B),), (resume(A),)), fine=True),
}
