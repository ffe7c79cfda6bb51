"""Two kernel threads that hand over to each other: ``switch_to`` between thread fibers, against two locks.

The peer is what Python has for it: each thread releases the other's ``threading.Lock`` and waits for its own. Left to
the kernel, the two run on two CPUs, and each handoff is an interrupt to a CPU that sleeps; on one CPU it is a switch
of the kernel. swapco pins its threads itself, so its side is left alone, and stands against both.

Also a thread fiber and an ordinary one, where each handoff lends the slot or gives it back. Unit: wall time of one
switch (there and back are two), in ns.
"""

from __future__ import annotations

from benchmarks.clocks import Laps
from benchmarks.work import switch_pair

ROUNDS = 20_000
LOCK_ROUNDS = 4_000
"""Fewer: on two CPUs a handoff takes twenty times as long."""


def on_swapco(laps: Laps) -> None:
    switch_pair.on_swapco(laps, threads=(True, True), full_rounds=ROUNDS)


def on_swapco_mixed(laps: Laps) -> None:
    switch_pair.on_swapco(laps, threads=(False, True), full_rounds=ROUNDS)


def on_locks(laps: Laps) -> None:
    from threading import Lock, Thread

    rounds = laps.scaled(LOCK_ROUNDS)
    mine, its = Lock(), Lock()
    mine.acquire()
    its.acquire()

    def ping() -> None:
        for _ in range(rounds):
            its.release()
            mine.acquire()

    def pong() -> None:
        for _ in range(rounds):
            its.acquire()
            mine.release()

    for lap in laps:
        pair = [Thread(target=ping), Thread(target=pong)]
        with lap(2 * rounds):
            for thread in pair:
                thread.start()
            for thread in pair:
                thread.join()
