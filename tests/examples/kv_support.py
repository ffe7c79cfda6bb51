"""What the tests of the key-value server share: a server in its own process, and a bare client for it."""

import fcntl
import importlib.util
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

START_S = 20.0
STOP_S = 10.0
KINDS = ("fibers", "uvloop")


def environment() -> dict[str, str]:
    """The environment for a child that must import the same swapco as we do."""
    spec = importlib.util.find_spec("swapco")
    assert spec is not None, "swapco cannot be imported"
    assert spec.origin is not None
    paths = [str(Path(spec.origin).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Error(str):
    """An error reply."""

    __slots__ = ()


class Raw:
    """A bare connection: sends what it is told, and reads replies without asking what they mean."""

    def __init__(self, address: tuple[str, int], timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(address, timeout_s)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def reset(self) -> None:
        """Disappears without a goodbye: the peer gets a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait_until_replies_pile_up(self) -> None:
        """Waits until the kernel holds as many unread bytes for us as it takes: the server is stuck in a send."""
        sizes: list[int] = []

        def full() -> bool:
            sizes.append(struct.unpack("i", fcntl.ioctl(self.socket, termios.FIONREAD, bytes(4)))[0])
            return sizes[-1] > 0 and sizes[-5:] == [sizes[-1]] * 5

        wait_until(full, "replies still come in")

    def command(self, *words: bytes | str | int) -> object:
        self.send(encode(*words))
        return self.reply()

    def reply(self) -> object:
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError(f"the server hung up after {line!r}")
        kind, text = line[:1], line[1:-2]
        if kind == b"+":
            return text.decode()
        if kind == b"-":
            return Error(text.decode())
        if kind == b":":
            return int(text)
        length = int(text)
        if length < 0:
            return None
        if kind == b"$":
            value = self.file.read(length + 2)
            assert value[length:] == b"\r\n"
            return value[:length]
        assert kind == b"*", line
        return [self.reply() for _ in range(length)]

    def at_end(self) -> bool:
        """Waits for the server to hang up; False if it says something instead."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


def encode(*words: bytes | str | int) -> bytes:
    raw = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)


class RunningServer:
    """A server under test."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-W", "default", str(EXAMPLES / "kv_server.py")),
                *("--server", kind, "--port", "0", "--parent", str(os.getpid())),
            ],
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            env=environment(),
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_S)
        self.greeting = self.process.stdout.readline() if ready else ""
        if not self.greeting:
            errors = self.errors()
            self.close()
            pytest.fail(f"the {kind} server did not start: {errors}")
        self.host, _, port = self.greeting.rpartition(" ")[2].strip().rpartition(":")
        self.port = int(port)

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def raw(self, timeout_s: float = 10.0) -> Raw:
        return Raw(self.address, timeout_s)

    def info(self, name: str) -> str:
        with self.raw() as raw:
            reply = raw.command("INFO")
        assert isinstance(reply, bytes)
        facts = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
        return facts[name]

    def errors(self) -> str:
        """What it has said on stderr."""
        self.stderr.seek(0)
        return self.stderr.read()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.stderr.close()


def answers(address: tuple[str, int]) -> bool:
    try:
        with Raw(address) as raw:
            return raw.command("PING") == "PONG"
    except (OSError, EOFError):
        return False


def wait_until(condition: Callable[[], bool], otherwise: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def blocked(server: RunningServer, count: int) -> None:
    """Waits until so many clients are blocked."""
    wait_until(lambda: int(server.info("blocked_clients")) == count, f"not {count} clients are blocked")
