"""Two flows that hand over to each other: ``switch_to`` against the bare ``greenlet.switch``.

greenlet is a switch and nothing else: no scheduler, no states, no fairness, no cancellation. So this
row says what all of that costs on top of a switch. Each flow is one ``for`` loop around one call.

greenlet walks Python frames at each switch, more of them the deeper the greenlet was started; here both
are started as near to the bottom of the stack as a program can be, and ``frame_depth.py`` looks at the
other end. Unit: CPU time of one switch (there and back are two), in ns.
"""

from __future__ import annotations

from benchmarks.clocks import Laps

ROUNDS = 50_000
DEPTH = 50
"""Python frames of each flow, in the deep variants."""


def on_swapco(
    laps: Laps, depth: int = 0, threads: tuple[bool, bool] = (False, False), full_rounds: int = ROUNDS
) -> None:
    from swapco import Fiber, block, resume, run, spawn, switch_to

    rounds = laps.scaled(full_rounds)
    pair: list[Fiber] = []

    def ping(frames: int) -> None:
        if frames:
            ping(frames - 1)
            return
        other = pair[1]
        for _ in range(rounds):
            switch_to(other)

    def pong(frames: int) -> None:
        if frames:
            pong(frames - 1)
            return
        # the first handoff finds it new and leaves it a token: take that
        block()
        other = pair[0]
        for _ in range(rounds):
            switch_to(other)

    def main() -> None:
        for lap in laps:
            pair[:] = [
                spawn(ping, depth, thread=threads[0]),
                spawn(pong, depth, thread=threads[1]),
            ]
            with lap(2 * rounds):
                pair[0].join()
            # pong waits in its last switch_to for a handoff that will not come.
            resume(pair[1])
            pair[1].join()

    run(main)


def on_swapco_deep(laps: Laps) -> None:
    on_swapco(laps, DEPTH)


def on_greenlet(laps: Laps, depth: int = 0) -> None:
    from greenlet import getcurrent, greenlet

    rounds = laps.scaled(ROUNDS)
    pair: list[greenlet] = []
    caller = getcurrent()

    def ping(frames: int) -> None:
        if frames:
            ping(frames - 1)
            return
        caller.switch()
        other = pair[1]
        for _ in range(rounds):
            other.switch()

    def pong(frames: int) -> None:
        if frames:
            pong(frames - 1)
            return
        caller.switch()
        other = pair[0]
        for _ in range(rounds):
            other.switch()

    for lap in laps:
        pair[:] = [greenlet(ping), greenlet(pong)]
        # Both start here, not one inside the other, which would make the second one deeper.
        for flow in pair:
            flow.switch(depth)
        with lap(2 * rounds):
            pair[0].switch()
        pair[1].switch()


def on_greenlet_deep(laps: Laps) -> None:
    on_greenlet(laps, DEPTH)
