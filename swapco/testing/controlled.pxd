"""One slot without an event loop of its own: see controlled.pyx."""

from .._core.fiber cimport Watcher
from .._core.scheduler cimport Scheduler
from .._core.slot cimport Worker
from .._core.switch cimport Backend
from .._loop.poller cimport PollingHub
from .control cimport Control, Strategy


cdef class ControlledHub(PollingHub):
    cdef Control control
    cdef object failure


cdef class ControlledSlot:
    cdef readonly Control control
    cdef ControlledHub hub
    cdef Scheduler scheduler
    cdef Backend backend
    cdef Worker stand_in
    cdef Watcher main_watch
    cdef readonly object loop
    cdef bint bound
    cdef bint spoiled
    # in words: the fibers that could not be ended
    cdef object survivors
    cdef int make_loop(self) except -1
    cdef int run_until_stuck(self) except -1
    cdef int unwind(self) except -1
    cdef int retrieve_all(self) except -1
