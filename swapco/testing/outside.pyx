"""What a program does outside of its controlled run, past its loop: refused, or it would decide what happens.

The interpreter announces such acts as audit events (PEP 578).  The hook looks at a few of them, and only while a
controlled run goes on in the calling thread: connecting sockets, resolving names, starting processes and threads,
sleeping in real time.  They raise RealIOError where the program calls them.  Files may be read: modules are, too.

``time.sleep`` would not decide anything, but cost its time in every schedule.  In what runs in place of a kernel thread
(``to_thread``, thread fibers) it is allowed: there it belongs.  (Threads are announced from CPython 3.12 on, and
sleeping from 3.13 on.)

A hook cannot be removed.  It is added when the first controlled run begins, and costs other code some 50 ns for each
event.  Rejected: replacing functions of the standard library, which misses who has imported them by name.
"""

import sys

from .._core.fiber cimport FiberCore
from .control cimport Control, active, in_controlled_run

from .points import refuse_real

cdef dict _REFUSED = {
    "_thread.start_joinable_thread": "starting a thread",
    "_thread.start_new_thread": "starting a thread",
    "os.exec": "os.exec()",
    "os.fork": "os.fork()",
    "os.forkpty": "os.forkpty()",
    "os.posix_spawn": "os.posix_spawn()",
    "os.system": "os.system()",
    "socket.connect": "connecting a socket",
    "socket.getaddrinfo": "resolving a name",
    "socket.gethostbyaddr": "resolving a name",
    "socket.gethostbyname": "resolving a name",
    "socket.getnameinfo": "resolving a name",
    "socket.sendto": "sending a datagram",
    "subprocess.Popen": "starting a process",
    "time.sleep": "time.sleep()",
}
cdef bint _watched = False


def _hook(str event, args):
    cdef Control control
    if not in_controlled_run() or event not in _REFUSED:
        return
    control = active()
    if not control.refuses():
        return
    if event == "time.sleep" and control.running is not None and (<FiberCore>control.running).poses_as_thread:
        return
    refuse_real(_REFUSED[event])


def watch_outside() -> None:
    """From now on a program in a controlled run is refused what it does outside of it."""
    global _watched
    if not _watched:
        _watched = True
        sys.addaudithook(_hook)
