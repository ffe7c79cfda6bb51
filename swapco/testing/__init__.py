"""Explore, shrink, replay and prove the order of switches of a program of fibers.

``ConcurrentStateMachine`` and ``schedules`` need hypothesis, which is imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.clock import VirtualClock
from .control import Strategy
from .errors import (
    Deadlock,
    FiberLeak,
    LostWakeup,
    RealIOError,
    ReplayDivergence,
    StepBoundExceeded,
    UncontrolledNondeterminism,
)
from .explore import StaleSchedule, check, explore
from .history import History, Operation
from .linearizability import (
    Linearizability,
    NotLinearizable,
    Undecided,
    Verdict,
    assert_linearizable,
    linearizable,
    minimal_counterexample,
)
from .models import FifoQueue, Model, SequentialModel
from .network import MemoryNetwork, memory_stream_pair
from .points import Shared, choose, no_switch, schedule_point
from .properties import schedules
from .schedule import Schedule
from .search import Result, replay, run, search, verify
from .sequencing import Sequencer, assert_switches, wait_all_blocked
from .strategies import PCT, POS, URW, Portfolio, RandomWalk, Replay
from .systematic import DFS, DPOR

if TYPE_CHECKING:
    from .stateful import ConcurrentStateMachine

__all__ = [
    "DFS",
    "DPOR",
    "PCT",
    "POS",
    "URW",
    "ConcurrentStateMachine",
    "Deadlock",
    "FiberLeak",
    "FifoQueue",
    "History",
    "Linearizability",
    "LostWakeup",
    "MemoryNetwork",
    "Model",
    "NotLinearizable",
    "Operation",
    "Portfolio",
    "RandomWalk",
    "RealIOError",
    "Replay",
    "ReplayDivergence",
    "Result",
    "Schedule",
    "Sequencer",
    "SequentialModel",
    "Shared",
    "StaleSchedule",
    "StepBoundExceeded",
    "Strategy",
    "UncontrolledNondeterminism",
    "Undecided",
    "Verdict",
    "VirtualClock",
    "assert_linearizable",
    "assert_switches",
    "check",
    "choose",
    "explore",
    "linearizable",
    "memory_stream_pair",
    "minimal_counterexample",
    "no_switch",
    "replay",
    "run",
    "schedule_point",
    "schedules",
    "search",
    "verify",
    "wait_all_blocked",
]


def __getattr__(name: str) -> object:
    if name == "ConcurrentStateMachine":
        from .stateful import ConcurrentStateMachine

        return ConcurrentStateMachine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
