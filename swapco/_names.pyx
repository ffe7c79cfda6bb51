"""Host names and addresses, without blocking the event loop: the resolver's part of ``swapco.socket``.

``getaddrinfo`` is the event loop's; the others are the standard library's, called in a thread of the loop's default
executor.  What can be answered without a resolver (numeric addresses) is answered on the spot, also outside a
fiber; whatever else blocks the calling fiber, and is NotInFiber outside of one.
"""

import socket as _socket

from cpython.object cimport PyObject

from ._core.fiber cimport FiberCore, fiber_here, outside, running_fiber, section
from ._loop.poller cimport PollingHub

from ._loop.awaiting import await_


def is_numeric(host) -> bool:
    """Can the host be used without asking a resolver?"""
    if host is None:
        return True
    if isinstance(host, (bytes, bytearray)):
        try:
            host = bytes(host).decode("ascii")
        except UnicodeDecodeError:
            return False
    if not isinstance(host, str):
        return True  # an error, which the caller's call reports
    if host == "" or host == "<broadcast>":
        return True
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, host.partition("%")[0])
            return True
        except (OSError, ValueError):
            pass
    return False


cdef bint _may_block() noexcept:
    """Is the caller a thread fiber?"""
    cdef PyObject *f = fiber_here()
    return f != NULL and (<FiberCore>f).threaded


cdef object _in_thread(str caller, object function, tuple args):
    """Call a blocking function of the resolver in a thread of the event loop; parks the fiber.  A thread fiber calls it
    as it is."""
    cdef section here = outside()
    cdef FiberCore me
    if _may_block():
        return function(*args)
    me = running_fiber(caller, &here.worker, None)
    loop = (<PollingHub>me.scheduler.hub).loop
    return await_(loop.run_in_executor(None, function, *args))


def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0) -> list:
    """The addresses of ``(host, port)``, as the standard function.  Blocks the fiber unless both are numeric."""
    cdef section here = outside()
    cdef FiberCore me
    if _may_block() or is_numeric(host) and (
        port is None or isinstance(port, int) or (isinstance(port, (str, bytes)) and port.isdigit())
    ):
        return _socket.getaddrinfo(host, port, family, type, proto, flags)
    me = running_fiber("getaddrinfo", &here.worker, None)
    loop = (<PollingHub>me.scheduler.hub).loop
    found = await_(loop.getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags))
    return [
        (_enum(_socket.AddressFamily, item[0]), _enum(_socket.SocketKind, item[1]), *item[2:]) for item in found
    ]


cdef object _enum(object kind, object value):
    try:
        return kind(value)
    except ValueError:
        return value


def gethostbyname(hostname, /) -> str:
    """The IPv4 address of a host.  Blocks the fiber unless it is numeric already."""
    if is_numeric(hostname):
        return _socket.gethostbyname(hostname)
    return _in_thread("gethostbyname", _socket.gethostbyname, (hostname,))


def gethostbyname_ex(hostname, /) -> tuple:
    """The name, aliases and IPv4 addresses of a host.  Blocks the fiber."""
    return _in_thread("gethostbyname_ex", _socket.gethostbyname_ex, (hostname,))


def gethostbyaddr(ip_address, /) -> tuple:
    """The name, aliases and addresses of the host with this address.  Blocks the fiber."""
    return _in_thread("gethostbyaddr", _socket.gethostbyaddr, (ip_address,))


def getnameinfo(sockaddr, flags, /) -> tuple:
    """The host and service names of a socket address.  Blocks the fiber unless numeric forms are asked for."""
    numeric = _socket.NI_NUMERICHOST | _socket.NI_NUMERICSERV
    if isinstance(flags, int) and flags & numeric == numeric:
        return _socket.getnameinfo(sockaddr, flags)
    return _in_thread("getnameinfo", _socket.getnameinfo, (sockaddr, flags))


def getfqdn(name="") -> str:
    """The fully qualified name of a host (this one unless given).  Blocks the fiber."""
    return _in_thread("getfqdn", _socket.getfqdn, (name,))
