"""What a program does outside of its controlled run, past its loop: refused, or it would decide what happens.

The interpreter announces such acts as audit events (PEP 578).  The hook looks at a few of them, and only while a
controlled run goes on in the calling thread: connecting sockets, resolving names, starting processes and threads,
sleeping in real time.  They raise RealIOError where the program calls them.  Files may be read: modules are, too.

What is no event is not seen: a read from a pipe or a socket that exists already, a wait for a lock of ``threading``;
these block the whole run.  (Making and binding sockets are events, but what refuses those leaks the descriptors that
``socketpair`` and ``create_server`` have by then.)

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

cdef str _FAKE = "Give the program a fake instead"
cdef str _THREAD = "Use swapco.spawn(..., thread=True) or swapco.to_thread(): here they run as fibers"
cdef str _SLEEP = "Call swapco.sleep(): it takes virtual time"

# what the event is, and what to do instead if a MemoryNetwork is no help
cdef dict _REFUSED = {
    "_thread.start_joinable_thread": ("starting a thread", _THREAD),
    "_thread.start_new_thread": ("starting a thread", _THREAD),
    "os.exec": ("os.exec()", _FAKE),
    "os.fork": ("os.fork()", _FAKE),
    "os.forkpty": ("os.forkpty()", _FAKE),
    "os.posix_spawn": ("os.posix_spawn()", _FAKE),
    "os.system": ("os.system()", _FAKE),
    "socket.connect": ("connecting a socket", None),
    "socket.getaddrinfo": ("resolving an address", None),
    "socket.gethostbyaddr": ("resolving an address", None),
    "socket.gethostbyname": ("resolving an address", None),
    "socket.getnameinfo": ("resolving an address", None),
    "socket.sendto": ("sending a datagram", None),
    "subprocess.Popen": ("starting a process", _FAKE),
    "time.sleep": ("time.sleep()", _SLEEP),
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
    what, instead = _REFUSED[event]
    refuse_real(what, instead)


def watch_outside() -> None:
    """From now on a program in a controlled run is refused what it does outside of it."""
    global _watched
    if not _watched:
        _watched = True
        sys.addaudithook(_hook)
