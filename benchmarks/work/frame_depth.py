"""Does a switch cost more when the program called ``swapco.run`` from deep inside other functions?

greenlet walks frames at each switch (18 ns a frame on CPython 3.12), so a fiber library that runs where
it was called from is slow in a program with a framework around it, and fast in its own benchmark. Here
both sides are swapco: the ping-pong of ``switch_pair.py``, with ``run`` called at the bottom of the
stack and 40 Python frames above it. Unit: CPU time of one switch, in ns.
"""

from __future__ import annotations

from benchmarks.clocks import Laps
from benchmarks.work import switch_pair

DEPTH = 40


def at_depth_0(laps: Laps) -> None:
    switch_pair.on_swapco(laps)


def at_depth_40(laps: Laps) -> None:
    descend(DEPTH, laps)


def descend(depth: int, laps: Laps) -> None:
    if depth:
        descend(depth - 1, laps)
    else:
        switch_pair.on_swapco(laps)
