"""The frames in which all threads are.

CPython 3.11 holds the lock of its list of threads while ``sys._current_frames`` makes its answer, and before 3.11.9
that may begin a garbage collection (CPython's issue 106883; from 3.12 on an allocation begins none).  Its callbacks are
Python code, which lets other threads have the GIL; one of them that starts a thread, ends, or asks for the frames waits
for that lock, and keeps the GIL: nobody goes on any more.  So there is no collection meanwhile.  Nothing else can come
in between: this is one call of C.
"""

import sys

cdef extern from "Python.h":
    int PyGC_Disable()
    int PyGC_Enable()


def frames_of_threads() -> dict:
    """The frame of each thread by the thread's identifier, as ``sys._current_frames``."""
    cdef bint collects = PyGC_Disable()
    try:
        return sys._current_frames()
    finally:
        if collects:
            PyGC_Enable()
