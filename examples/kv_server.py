"""A key-value server that speaks the Redis protocol: redis-cli, redis-benchmark and redis-py can talk to it.

    python examples/kv_server.py [--host 127.0.0.1] [--port 6380]
    python examples/kv_server.py --demo [--seconds 3] [--clients 200]

The first runs the server until Ctrl-C or SIGTERM; both are the way to stop it, and the exit status is 0. Port
0 takes a free one; the line on stdout tells which.

The second runs it twice, once on fibers and once on uvloop, loads both with many clients, checks every
answer, and prints a table. Its exit status is 0 if all answers were right, else 1.

The server itself is in the package `kv` beside this file; its docstring says in which order to read it.
"""

import argparse
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    arguments = parse_arguments()
    if arguments.parent is not None:
        die_with(arguments.parent)
    # The modules are imported where they are needed: the server on uvloop runs without swapco.
    try:
        if arguments.demo:
            from kv.demo import demo

            demo(os.path.abspath(__file__), arguments.clients, arguments.seconds)
        elif arguments.server == "uvloop":
            from kv import server_uvloop

            server_uvloop.run(arguments.host, arguments.port)
        else:
            from kv import server_fibers

            server_fibers.run(arguments.host, arguments.port)
    except OSError as failure:
        sys.exit(f"kv_server: {failure}")
    except KeyboardInterrupt:  # before the server was ready, or in the demo
        sys.exit(128 + signal.SIGINT)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A key-value server that speaks the Redis protocol.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=6380, help="port to listen on; 0: any (%(default)s)")
    parser.add_argument(
        "--server",
        choices=("fibers", "uvloop"),
        default="fibers",
        help="what the connections run on (%(default)s)",
    )
    parser.add_argument("--demo", action="store_true", help="compare the two under load")
    parser.add_argument("--seconds", type=float, default=3.0, help="demo: per server and phase (%(default)s)")
    parser.add_argument("--clients", type=int, default=200, help="demo: connections (%(default)s)")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # end when this process does
    arguments = parser.parse_args()
    if not 0 <= arguments.port <= 65535:
        parser.error("--port must be between 0 and 65535")
    if not 0 < arguments.seconds <= 3600:
        parser.error("--seconds must be between 0 and 3600")
    if not 1 <= arguments.clients <= 5000:
        parser.error("--clients must be between 1 and 5000")
    return arguments


def die_with(parent: int) -> None:
    """Lets the kernel kill this process when its parent dies, even if that is killed itself."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("kv_server: the parent process has ended")


if __name__ == "__main__":
    main()
