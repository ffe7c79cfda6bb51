"""What ``swapco.socket`` takes from the standard module unchanged: constants, errors, ``inet_aton`` …

A module of its own so that type checkers see these names, and not the standard versions of those that
``swapco.socket`` defines itself.
"""

import socket as _socket
from socket import *  # noqa: F403

__all__: list[str] = []
__all__ += _socket.__all__
__all__.remove("create_connection")
__all__.remove("create_server")
__all__.remove("fromfd")
__all__.remove("getaddrinfo")
__all__.remove("getfqdn")
__all__.remove("gethostbyaddr")
__all__.remove("gethostbyname")
__all__.remove("gethostbyname_ex")
__all__.remove("getnameinfo")
__all__.remove("socket")
__all__.remove("socketpair")
