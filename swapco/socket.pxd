"""Cooperative sockets: see socket.pyx."""

from ._core.fiber cimport FiberCore
from ._loop.poller cimport Registration

cdef class SocketIo:
    # None: no operation has needed the event loop yet, or the socket is closed
    cdef Registration registration
    # 0: non-blocking; NEVER_NS: waits for ever
    cdef long long timeout_ns
    cdef object timeout

cdef Registration registration_of(object sock, FiberCore me)
