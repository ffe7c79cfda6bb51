"""The ``socket`` module, cooperative: a call that would block parks the calling fiber instead.

Theory
------
``socket`` is a subclass of the standard one whose descriptor is always non-blocking; what ``settimeout`` says
is kept beside it, and only decides how long a fiber parks.  The operations that every program lives on (recv,
recv_into, send, sendall) go to the poller's ``Registration`` in C.  All others try the base class's method,
park when it says EAGAIN, and try again: what they do exactly is the standard library's business.

A descriptor is registered by the first operation that needs the event loop, so that sockets can be made before
a loop runs.  Whatever blocks needs a fiber and says so (NotInFiber) before any I/O was done; a socket with
``settimeout(0)`` never blocks and works anywhere.

Names are resolved by the event loop's threads, numeric addresses on the spot.  Everything else of the standard
module is re-exported unchanged.

Invariants
----------
- The base class's timeout is 0 for the whole life of a socket: its methods never wait.
- A registration is closed before the descriptor is closed, detached or finalised.
- Nothing is consumed before a wait and delivered after it: a cancellation or a timeout loses nothing.  The one
  exception, MSG_WAITALL, returns what it has and leaves the cancellation pending.

Rejected: patching the descriptor back to blocking in ``detach`` (a duplicate of it may be in use by fibers);
a fallback to blocking calls outside a fiber (it would stop every fiber of the program, silently).
"""

import errno
import io as _io_module
import os
import socket as _stdlib

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject

from ._core.clock cimport NEVER_NS, duration_ns
from ._core.fiber cimport Dispatcher, FiberCore, enter, enter_if_attached, fiber_here, outside, running_fiber, section
from ._core.reasons cimport WRITE
from ._core.wait cimport WAIT_WON_CANCEL
from ._loop.poller cimport SCRATCH_SIZE, Registration, descriptor_ready, poller_of, raise_errno

from ._core.errors import CancelledError
from ._names import (
    getaddrinfo,
    getfqdn,  # no-cython-lint
    gethostbyaddr,  # no-cython-lint
    gethostbyname,  # no-cython-lint
    gethostbyname_ex,  # no-cython-lint
    getnameinfo,  # no-cython-lint
    is_numeric,
)

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_DONTWAIT
        MSG_ERRQUEUE
        MSG_OOB
        MSG_TRUNC
        MSG_WAITALL

cdef extern from "errno.h" nogil:
    enum:
        EAGAIN
        EINPROGRESS
        EINTR

cdef extern from *:
    """
    #include "structmember.h"
    static Py_ssize_t swapco_slot_offset(PyObject *descriptor)
    {
        return ((PyMemberDescrObject *)descriptor)->d_member->offset;
    }
    """
    Py_ssize_t swapco_slot_offset(object descriptor)

__all__ = list(_stdlib.__all__)

# everything that is not defined here: constants, errors, inet_aton …
for _name in __all__:
    globals().setdefault(_name, getattr(_stdlib, _name))
del _name

cdef object _AF_INET = _stdlib.AF_INET
cdef object _AF_INET6 = _stdlib.AF_INET6
cdef object _AF_UNIX = _stdlib.AF_UNIX
cdef object _SOCK_STREAM = _stdlib.SOCK_STREAM
cdef object _Base = _stdlib.socket
cdef object _base_accept = _Base._accept
cdef object _base_connect = _Base.connect
cdef object _base_connect_ex = _Base.connect_ex
cdef object _base_fileno = _Base.fileno
cdef object _base_recv = _Base.recv
cdef object _base_recv_into = _Base.recv_into
cdef object _base_recvfrom = _Base.recvfrom
cdef object _base_recvfrom_into = _Base.recvfrom_into
cdef object _base_recvmsg = _Base.recvmsg
cdef object _base_recvmsg_into = _Base.recvmsg_into
cdef object _base_send = _Base.send
cdef object _base_sendall = _Base.sendall
cdef object _base_sendmsg = _Base.sendmsg
cdef object _base_sendto = _Base.sendto
cdef object _DEFAULT_TIMEOUT = _stdlib._GLOBAL_DEFAULT_TIMEOUT
cdef object _GiveUpOnSendfile = _stdlib._GiveupOnSendfile

cdef enum:
    # with one of these the kernel never waits: urgent data and errors have come, or it says EAGAIN or EINVAL
    NEVER_BLOCKS = MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB
    # the most that one sendfile(2) moves: reading from a slow disk holds up every fiber
    SENDFILE_BYTES = 524288
    # retries of a connect to a Unix socket whose backlog is full: the kernel reports nothing to wait for
    FIRST_RETRY_NS = 1_000_000
    LAST_RETRY_NS = 50_000_000


def __getattr__(name):
    """What the standard module has and does not list."""
    return getattr(_stdlib, name)


def __dir__():
    return sorted({*globals(), *dir(_stdlib)})


# ------------------------------------------------------------------------------------ the poller's side

cdef class SocketIo:
    """What a cooperative socket knows beyond the base class: in its slot ``_io``."""


# the class, and where its instances have the slot: the class is defined below
cdef type _socket_type
cdef Py_ssize_t _slot_offset


cdef inline SocketIo _io_of(object sock):
    """``sock._io``, without the attribute lookup: it is on the way of every operation."""
    cdef PyObject *io
    if type(sock) is not _socket_type and not isinstance(sock, _socket_type):
        raise TypeError(f"a swapco.socket.socket is needed, not {type(sock).__name__!r}")
    io = (<PyObject **>(<char *><PyObject *>sock + _slot_offset))[0]
    if io == NULL:
        raise AttributeError(f"{type(sock).__name__}.__init__ was not called")
    return <SocketIo?><object>io


cdef Registration registration_of(object sock, FiberCore me):
    """The registration of a socket with the loop of ``me``, made at the first call.

    Errors: OSError (EBADF) for a closed socket; RuntimeError if it belongs to another loop that is not closed.
    """
    cdef SocketIo io = _io_of(sock)
    cdef Registration r = io.registration
    cdef int fd
    if r is not None:
        if r.scheduler is me.scheduler and not r.closed:
            return r
        if r.poller.open and not r.closed:
            raise RuntimeError(
                f"{sock!r} belongs to another event loop, which is not closed: use the socket there, "
                "or dup() it, or close that loop first"
            )
        io.registration = None
    fd = _base_fileno(sock)
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    r = poller_of(me.scheduler).register(fd)
    r.owner = <PyObject *>sock
    io.registration = r
    return r


cdef inline Registration _registration(object sock, SocketIo io, FiberCore me):
    cdef Registration r = io.registration
    if r is None or r.scheduler is not me.scheduler or r.closed:
        return registration_of(sock, me)
    return r


cdef int _forget(object sock) except -1:
    """Leave the poller: before the descriptor is closed or handed out."""
    cdef SocketIo io = getattr(sock, "_io", None)
    cdef Registration r
    if io is not None and io.registration is not None:
        r = io.registration
        io.registration = None
        r.close()
    return 0


cdef object _until_done(object sock, str caller, bint reading, int flags, object method, tuple args):
    """Call a method of the base class, parking while it says EAGAIN."""
    cdef section here = outside()
    cdef SocketIo io = _io_of(sock)
    cdef FiberCore me
    cdef Registration r
    cdef long long deadline = 0
    if io.timeout_ns == 0 or flags & NEVER_BLOCKS:
        return method(sock, *args)
    me = running_fiber(caller, &here.worker, None)
    r = _registration(sock, io, me)
    if reading:
        r.begin_read(me)
    else:
        r.begin_write(me)
    while True:
        if r.readable if reading else r.writable:
            try:
                return method(sock, *args)
            except BlockingIOError:
                pass
        if deadline == 0:
            deadline = r.deadline(io.timeout_ns)
        if reading:
            r.readable = False
            r.wait_readable(me, deadline)
        else:
            r.wait_writable(me, deadline)


cdef Py_ssize_t _recv_all(Registration r, FiberCore me, char *buffer, Py_ssize_t size, int flags,
                          long long timeout_ns) except -1:
    """MSG_WAITALL: all of it, or what there is before the end, an error, the timeout or a cancellation."""
    cdef Py_ssize_t got, total = 0
    cdef long long deadline = 0
    flags &= ~MSG_WAITALL
    r.begin_read(me)
    while True:
        got = r.recv_now(buffer + total, size - total, flags)
        if got >= 0:
            total += got
            if got == 0 or total == size:
                return total
        elif got != -EAGAIN:
            if total:
                return total  # the error comes again
            raise_errno(-got)
        else:
            if deadline == 0:
                deadline = r.deadline(timeout_ns)
            try:
                r.wait_readable(me, deadline)
            except CancelledError as cancelled:
                if not total:
                    raise
                # what was read must not be lost: the next block raises it
                me.cancel_message = cancelled.args[0] if cancelled.args else None
                me.cancel_pending = True
                return total
            except TimeoutError:
                if not total:
                    raise
                return total


cdef Py_ssize_t _receive(object sock, SocketIo io, FiberCore me, char *buffer, Py_ssize_t size,
                         int flags) except -1:
    cdef Registration r = _registration(sock, io, me)
    if flags & MSG_WAITALL and r.is_stream():
        return _recv_all(r, me, buffer, size, flags, io.timeout_ns)
    return r.recv(me, buffer, size, flags, io.timeout_ns)


# --------------------------------------------------------------------------------------------- connecting

cdef object _resolved(object sock, object address):
    """``address`` with its host in numeric form; resolving parks the calling fiber."""
    cdef object family = sock.family
    if family != _AF_INET and family != _AF_INET6:
        return address
    if not isinstance(address, tuple) or len(address) < 2 or is_numeric(address[0]):
        return address
    found = getaddrinfo(address[0], None, family, sock.type, sock.proto)[0][4]
    if family == _AF_INET:
        return (found[0], *address[1:])
    rest = address[1:]
    if len(rest) < 3 and found[3]:
        rest = (rest[0], rest[1] if len(rest) > 1 else 0, found[3])
    return (found[0], *rest)


cdef int _connect(object sock, SocketIo io, FiberCore me, object address) except -1:
    """Connect, parking the fiber: 0, or an error's number; TimeoutError."""
    cdef Dispatcher s = me.scheduler
    cdef Registration r
    cdef long long deadline, now, retry_ns = FIRST_RETRY_NS
    cdef int number
    address = _resolved(sock, address)
    deadline = s.clock.now_ns() + io.timeout_ns if io.timeout_ns != NEVER_NS else NEVER_NS
    number = _base_connect_ex(sock, address)
    while number == EAGAIN and sock.family == _AF_UNIX:
        now = s.clock.now_ns()
        if now >= deadline:
            raise TimeoutError(f"timed out connecting to {address!r}: its backlog is full")
        if s.wait_for(me, NULL, WRITE, <PyObject *>sock, min(deadline, now + retry_ns)) == WAIT_WON_CANCEL:
            s.raise_cancel(me)
        retry_ns = min(2 * retry_ns, <long long>LAST_RETRY_NS)
        number = _base_connect_ex(sock, address)
    if number != EINPROGRESS and number != EINTR:
        return number
    # only now: an unconnected socket in the set would report a hang-up
    r = registration_of(sock, me)
    r.begin_write(me)
    while not descriptor_ready(r.fd, False):
        r.wait_writable(me, deadline)
    r.writable = True
    number = sock.getsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_ERROR)
    # tells the kernel that the result was taken note of; a further connect is an error then, as it should be
    return number if number else _base_connect_ex(sock, address)


# ------------------------------------------------------------------------------------------- the class

class socket(_Base):
    """A socket whose operations park the calling fiber instead of blocking the thread.

    Everything is as in the standard ``socket.socket``, of which this is a subclass.  Differences: the
    descriptor is always non-blocking (also after ``detach``); one fiber at a time may read and one may write (a
    second one gets RuntimeError); ``close`` wakes a fiber that is parked in an operation with OSError (EBADF); a
    socket belongs to the event loop in which it is first used.  Blocking outside a fiber: NotInFiber.  Blocking
    calls raise CancelledError when the fiber is cancelled, and TimeoutError after ``settimeout`` seconds.
    """

    __slots__ = ("_io",)

    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        cdef SocketIo io = SocketIo.__new__(SocketIo)
        _Base.__init__(self, family, type, proto, fileno)
        io.timeout = _Base.gettimeout(self)
        io.timeout_ns = NEVER_NS if io.timeout is None else duration_ns(io.timeout)
        if io.timeout != 0.0 or fileno is not None:
            _Base.settimeout(self, 0.0)
        self._io = io

    def __del__(self):
        cdef section here = outside()
        # nobody waits for a socket that nobody has: no need to wait for the slot
        enter_if_attached(&here.worker, self)
        _forget(self)
        _Base.__del__(self)

    def _real_close(self):
        cdef section here = outside()
        enter(&here.worker, self)
        _forget(self)
        _Base._real_close(self)

    def detach(self):
        """Close the socket object without closing the descriptor, and return the descriptor.

        The descriptor stays non-blocking.  Fibers that are parked in an operation get OSError (EBADF).
        """
        cdef section here = outside()
        enter(&here.worker, self)
        _forget(self)
        return _Base.detach(self)

    # -- timeouts

    def settimeout(self, value, /):
        """How long an operation may block: seconds, None for ever, 0 not at all (BlockingIOError)."""
        cdef SocketIo io = _io_of(self)
        cdef long long timeout_ns = NEVER_NS
        if value is not None:
            timeout_ns = duration_ns(value)
            if value < 0:
                raise ValueError("Timeout value out of range")
        if _base_fileno(self) < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        io.timeout_ns = timeout_ns
        io.timeout = None if value is None else float(value)

    def gettimeout(self):
        """The timeout in seconds, or None."""
        return _io_of(self).timeout

    @property
    def timeout(self):
        """The timeout in seconds, or None."""
        return _io_of(self).timeout

    def setblocking(self, flag, /):
        """``settimeout(None)`` if true, else ``settimeout(0)``."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self):
        """True unless the timeout is 0."""
        return _io_of(self).timeout_ns != 0

    # -- receiving

    def recv(self, Py_ssize_t bufsize, int flags=0, /):
        """Receive up to ``bufsize`` bytes; empty at the end of the stream.  Blocks the fiber until there is data."""
        cdef section here = outside()
        cdef SocketIo io = _io_of(self)
        cdef FiberCore me
        cdef Registration r
        cdef char *scratch
        cdef Py_ssize_t got
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        if io.timeout_ns == 0 or flags & NEVER_BLOCKS:
            return _base_recv(self, bufsize, flags)
        me = running_fiber("socket.recv", &here.worker, self)
        if bufsize <= SCRATCH_SIZE and not flags & (MSG_WAITALL | MSG_TRUNC):
            r = _registration(self, io, me)
            scratch = r.poller.scratch
            got = r.recv(me, scratch, bufsize, flags, io.timeout_ns)
            return PyBytes_FromStringAndSize(scratch, got)
        return _recv_large(self, io, me, bufsize, flags)

    def recv_into(self, buffer, Py_ssize_t nbytes=0, int flags=0):
        """Receive into ``buffer`` (``nbytes`` at most, if given); returns how many bytes, 0 at the end."""
        cdef section here = outside()
        cdef SocketIo io = _io_of(self)
        cdef FiberCore me
        cdef Py_buffer view
        if io.timeout_ns == 0 or flags & NEVER_BLOCKS:
            return _base_recv_into(self, buffer, nbytes, flags)
        me = running_fiber("socket.recv_into", &here.worker, self)
        try:
            PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        except BufferError as error:
            raise TypeError(f"recv_into() needs a read-write bytes-like object: {error}") from None
        try:
            if nbytes < 0:
                raise ValueError("negative buffersize in recv_into")
            if nbytes > view.len:
                raise ValueError("buffer too small for requested bytes")
            return _receive(self, io, me, <char *>view.buf, nbytes if nbytes else view.len, flags)
        finally:
            PyBuffer_Release(&view)

    def recvfrom(self, bufsize, int flags=0, /):
        """Receive a datagram: ``(data, address)``.  Blocks the fiber until there is one."""
        return _until_done(self, "socket.recvfrom", True, flags, _base_recvfrom, (bufsize, flags))

    def recvfrom_into(self, buffer, nbytes=0, int flags=0):
        """Receive a datagram into ``buffer``: ``(number of bytes, address)``.  Blocks the fiber."""
        return _until_done(
            self, "socket.recvfrom_into", True, flags, _base_recvfrom_into, (buffer, nbytes, flags)
        )

    def recvmsg(self, bufsize, ancbufsize=0, int flags=0, /):
        """Receive data and ancillary data: ``(data, ancdata, msg_flags, address)``.  Blocks the fiber."""
        return _until_done(
            self, "socket.recvmsg", True, flags, _base_recvmsg, (bufsize, ancbufsize, flags)
        )

    def recvmsg_into(self, buffers, ancbufsize=0, int flags=0, /):
        """As ``recvmsg``, into ``buffers``: ``(number of bytes, ancdata, msg_flags, address)``."""
        if not isinstance(buffers, (list, tuple)):
            buffers = list(buffers)  # an iterator must survive a second try
        return _until_done(
            self, "socket.recvmsg_into", True, flags, _base_recvmsg_into, (buffers, ancbufsize, flags)
        )

    # -- sending

    def send(self, data, int flags=0, /):
        """Send what there is room for; returns how many bytes.  Blocks the fiber until there is some room."""
        cdef section here = outside()
        cdef SocketIo io = _io_of(self)
        cdef FiberCore me
        cdef Py_buffer view
        if io.timeout_ns == 0 or flags & NEVER_BLOCKS:
            return _base_send(self, data, flags)
        me = running_fiber("socket.send", &here.worker, self)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return _registration(self, io, me).send(me, <char *>view.buf, view.len, flags, io.timeout_ns)
        finally:
            PyBuffer_Release(&view)

    def sendall(self, data, int flags=0, /):
        """Send all of ``data``, at once.  Blocks the fiber until the kernel has taken it.

        The timeout is for the whole call.  After an error nobody knows how much was sent.
        """
        cdef section here = outside()
        cdef SocketIo io = _io_of(self)
        cdef FiberCore me
        cdef Py_buffer view
        if io.timeout_ns == 0 or flags & NEVER_BLOCKS:
            return _base_sendall(self, data, flags)
        me = running_fiber("socket.sendall", &here.worker, self)
        if type(data) is bytes:
            _registration(self, io, me).send_all(
                me, PyBytes_AS_STRING(data), len(<bytes>data), flags, io.timeout_ns
            )
            return
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            _registration(self, io, me).send_all(me, <char *>view.buf, view.len, flags, io.timeout_ns)
        finally:
            PyBuffer_Release(&view)

    def sendto(self, data, /, *args):
        """``sendto(data[, flags], address)``: send a datagram.  Blocks the fiber until there is room."""
        if not 1 <= len(args) <= 2:
            raise TypeError(f"sendto() takes 2 or 3 arguments ({len(args) + 1} given)")
        if _io_of(self).timeout_ns != 0:
            args = (*args[:len(args) - 1], _resolved(self, args[len(args) - 1]))
        return _until_done(
            self, "socket.sendto", False, args[0] if len(args) == 2 else 0, _base_sendto, (data, *args)
        )

    def sendmsg(self, buffers, ancdata=(), int flags=0, address=None, /):
        """Send data and ancillary data; returns how many bytes of data.  Blocks the fiber until there is room."""
        if not isinstance(buffers, (list, tuple)):
            buffers = list(buffers)
        if not isinstance(ancdata, (list, tuple)):
            ancdata = list(ancdata)
        if address is None:
            return _until_done(
                self, "socket.sendmsg", False, flags, _base_sendmsg, (buffers, ancdata, flags)
            )
        if _io_of(self).timeout_ns != 0:
            address = _resolved(self, address)
        return _until_done(
            self, "socket.sendmsg", False, flags, _base_sendmsg, (buffers, ancdata, flags, address)
        )

    def _sendfile_use_sendfile(self, file, offset=0, count=None):
        """What ``sendfile`` tries first: sendfile(2), for regular files."""
        cdef section here = outside()
        cdef SocketIo io = _io_of(self)
        cdef FiberCore me
        cdef Registration r
        cdef long long deadline
        self._check_sendfile_params(file, offset, count)
        if io.timeout_ns == 0:
            raise ValueError("non-blocking sockets are not supported")
        me = running_fiber("socket.sendfile", &here.worker, self)
        try:
            fileno = file.fileno()
            size = os.fstat(fileno).st_size
        except (AttributeError, _io_module.UnsupportedOperation, OSError) as error:
            raise _GiveUpOnSendfile(error)
        if not size:
            return 0
        r = _registration(self, io, me)
        total = 0
        try:
            while True:
                block = SENDFILE_BYTES if count is None else min(count - total, SENDFILE_BYTES)
                if block <= 0:
                    return total
                r.begin_write(me)
                deadline = r.deadline(io.timeout_ns)
                while True:
                    try:
                        sent = os.sendfile(r.fd, fileno, offset, block)
                        break
                    except BlockingIOError:
                        r.wait_writable(me, deadline)
                    except OSError as error:
                        if total == 0:
                            raise _GiveUpOnSendfile(error)  # not a file that can be mapped
                        raise error from None
                if sent == 0:
                    return total
                offset += sent
                total += sent
        finally:
            if total > 0 and hasattr(file, "seek"):
                file.seek(offset)

    # -- connections

    def accept(self):
        """Wait for a connection: ``(socket, address)``.  Blocks the fiber.

        OSError (EMFILE, ENFILE, ENOBUFS, ENOMEM) when there is no descriptor or memory for it: the connection
        stays in the queue.
        """
        fd, address = _until_done(self, "socket.accept", True, 0, _base_accept, ())
        return socket(self.family, self.type, self.proto, fileno=fd), address

    def connect(self, address, /):
        """Connect to ``address``, resolving a host name first.  Blocks the fiber until connected."""
        cdef section here = outside()
        cdef SocketIo io = _io_of(self)
        cdef int number
        if io.timeout_ns == 0:
            _base_connect(self, address)
            return
        number = _connect(self, io, running_fiber("socket.connect", &here.worker, self), address)
        if number:
            raise_errno(number)

    def connect_ex(self, address, /):
        """As ``connect``, but returns the number of the error, 0 for none."""
        cdef section here = outside()
        cdef SocketIo io = _io_of(self)
        if io.timeout_ns == 0:
            return _base_connect_ex(self, address)
        try:
            return _connect(self, io, running_fiber("socket.connect_ex", &here.worker, self), address)
        except TimeoutError:
            return errno.EAGAIN

    def bind(self, address, /):
        """Bind to ``address``; a host name in it is resolved first, which blocks the fiber."""
        if fiber_here() != NULL:
            address = _resolved(self, address)
        _Base.bind(self, address)


_socket_type = socket
_slot_offset = swapco_slot_offset(vars(socket)["_io"])


cdef object _recv_large(object sock, SocketIo io, FiberCore me, Py_ssize_t size, int flags):
    """Into memory of its own: more than the scratch buffer holds, or filled in several steps."""
    cdef bytes result
    cdef Py_ssize_t got
    if flags & MSG_TRUNC:
        # the kernel tells the real length, also where it has written less: show nobody what was there before
        result = bytes(size)
        got = _receive(sock, io, me, PyBytes_AS_STRING(result), size, flags)
        return result[:got] + bytes(max(0, got - size))
    result = PyBytes_FromStringAndSize(NULL, size)
    got = _receive(sock, io, me, PyBytes_AS_STRING(result), size, flags)
    return result if got == size else result[:got]


# -------------------------------------------------------------------------------------- making sockets

cdef object _adopt(object sock):
    """A cooperative socket with the descriptor of a standard one, which is closed by this."""
    if isinstance(sock, socket):
        return sock
    timeout = sock.gettimeout()
    family, kind, proto = sock.family, sock.type, sock.proto
    result = socket(family, kind, proto, fileno=sock.detach())
    result.settimeout(timeout)
    return result


def adopt(sock) -> socket:
    """The cooperative socket for a standard one: takes its descriptor over; a cooperative one is returned."""
    return _adopt(sock)


def fromfd(fd, family, type, proto=0) -> socket:
    """A socket from a duplicate of ``fd``.  Does not block."""
    return socket(family, type, proto, fileno=_stdlib.dup(fd))


def socketpair(family=None, type=_stdlib.SOCK_STREAM, proto=0) -> tuple:
    """A pair of connected sockets (AF_UNIX unless given).  Does not block."""
    if family is None:
        first, second = _stdlib.socketpair(type=type, proto=proto)
    else:
        first, second = _stdlib.socketpair(family, type, proto)
    return _adopt(first), _adopt(second)


def create_connection(address, timeout=_DEFAULT_TIMEOUT, source_address=None, *, all_errors=False) -> socket:
    """Connect to ``(host, port)``, trying every address of the host in turn; returns the socket.

    ``timeout`` (seconds) is for each attempt, and stays set on the socket.  Blocks the fiber.  Errors: the
    last one, or with ``all_errors`` an ExceptionGroup of all.
    """
    host, port = address
    errors = []
    for family, kind, proto, _, target in getaddrinfo(host, port, 0, _SOCK_STREAM):
        sock = None
        try:
            sock = socket(family, kind, proto)
            if timeout is not _DEFAULT_TIMEOUT:
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(target)
            errors.clear()
            return sock
        except OSError as error:
            if not all_errors:
                errors.clear()  # only the last one
            errors.append(error)
            if sock is not None:
                sock.close()
        except BaseException:
            if sock is not None:
                sock.close()
            raise
    try:
        if not errors:
            raise OSError("getaddrinfo returns an empty list")
        if all_errors:
            raise ExceptionGroup("create_connection failed", errors)
        raise errors[0]
    finally:
        errors.clear()  # no cycle with the traceback


def create_server(
    address, *, family=_stdlib.AF_INET, backlog=None, reuse_port=False, dualstack_ipv6=False
) -> socket:
    """A listening TCP socket bound to ``(host, port)``.  A host name is resolved first, which blocks the fiber."""
    if family in (_AF_INET, _AF_INET6) and not is_numeric(address[0]):
        address = getaddrinfo(address[0], address[1], family, _SOCK_STREAM)[0][4][:len(address)]
    return _adopt(_stdlib.create_server(
        address, family=family, backlog=backlog, reuse_port=reuse_port, dualstack_ipv6=dualstack_ipv6
    ))
