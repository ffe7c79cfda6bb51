"""Spawning: see tasks.pyx."""

from ._core.fiber cimport FiberCore
from ._core.scheduler cimport Scheduler
from ._core.slot cimport ThreadStack


cdef ThreadStack on_thread(Scheduler s, FiberCore f)
