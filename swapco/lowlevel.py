"""What libraries and tests build on: re-exports only.

The three verbs, the parking lot under every primitive, the futex, the slot, the policies, clocks, waiting for
raw descriptors, and the instrument hooks.
"""

from ._core.clock import Clock, ManualClock
from ._core.futex import FutexWord
from ._core.instrument import Instrument
from ._core.parking_lot import ParkingLot
from ._core.policy import Deadline, Fifo, Lifo, Policy, Priority
from ._core.slot import Slot, Worker
from ._core.verbs import block, resume, switch_to
from ._loop.poller import wait_readable, wait_writable

__all__ = [
    "Clock",
    "Deadline",
    "Fifo",
    "FutexWord",
    "Instrument",
    "Lifo",
    "ManualClock",
    "ParkingLot",
    "Policy",
    "Priority",
    "Slot",
    "Worker",
    "block",
    "resume",
    "switch_to",
    "wait_readable",
    "wait_writable",
]
