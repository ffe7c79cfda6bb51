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


def on_swapco(laps: Laps) -> None:
    from swapco import Fiber, block, resume, run, spawn, switch_to

    rounds = laps.scaled(ROUNDS)
    pair: list[Fiber] = []

    def ping() -> None:
        other = pair[1]
        for _ in range(rounds):
            switch_to(other)

    def pong() -> None:
        # the first handoff finds it new and leaves it a token: take that
        block()
        other = pair[0]
        for _ in range(rounds):
            switch_to(other)

    def main() -> None:
        for lap in laps:
            pair[:] = [spawn(ping), spawn(pong)]
            with lap(2 * rounds):
                pair[0].join()
            # pong waits in its last switch_to for a handoff that will not come.
            resume(pair[1])
            pair[1].join()

    run(main)


def on_greenlet(laps: Laps) -> None:
    from greenlet import getcurrent, greenlet

    rounds = laps.scaled(ROUNDS)
    pair: list[greenlet] = []
    caller = getcurrent()

    def ping() -> None:
        caller.switch()
        other = pair[1]
        for _ in range(rounds):
            other.switch()

    def pong() -> None:
        caller.switch()
        other = pair[0]
        for _ in range(rounds):
            other.switch()

    for lap in laps:
        pair[:] = [greenlet(ping), greenlet(pong)]
        # Both start here, not one inside the other, which would make the second one deeper.
        for flow in pair:
            flow.switch()
        with lap(2 * rounds):
            pair[0].switch()
        pair[1].switch()
