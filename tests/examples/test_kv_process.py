"""The key-value server as a program: how it starts and stops, and its demo.

The demo compares speed; no test judges what it measures.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kv_support import EXAMPLES, RunningServer, blocked, encode, environment, wait_until

pytestmark = pytest.mark.timeout(120)


# Start and stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_cleanly(own_server: RunningServer, number: signal.Signals) -> None:
    with own_server.raw() as idle, own_server.raw() as waiter, own_server.raw() as subscriber:
        assert idle.command("PING") == "PONG"
        waiter.send(encode("BLPOP", "x", 0))
        assert subscriber.command("SUBSCRIBE", "c") == [b"subscribe", b"c", 1]
        blocked(own_server, 1)
        before = time.monotonic()
        assert own_server.stop(number) == 0
        assert time.monotonic() - before < 5
        for connection in (idle, waiter, subscriber):
            assert connection.at_end()
    assert own_server.errors() == ""


def test_a_signal_ends_the_server_although_a_client_does_not_read(own_server: RunningServer) -> None:
    with own_server.raw() as raw, own_server.raw() as other:
        assert raw.command("SET", "k", bytes(1024 * 1024)) == "OK"
        raw.send(encode("GET", "k") * 50)
        raw.wait_until_replies_pile_up()
        assert other.command("PING") == "PONG"
        assert own_server.stop(signal.SIGTERM) == 0
    assert own_server.errors() == ""


def test_the_greeting_tells_the_address(own_server: RunningServer) -> None:
    pattern = rf"kv_server \({own_server.kind}\) listening on 127\.0\.0\.1:\d+\n"
    assert re.fullmatch(pattern, own_server.greeting)


def test_a_port_in_use(own_server: RunningServer) -> None:
    program = [sys.executable, str(EXAMPLES / "kv_server.py"), "--server", own_server.kind]
    arguments = ["--port", str(own_server.port)]
    result = subprocess.run(
        [*program, *arguments], capture_output=True, text=True, timeout=30, env=environment()
    )
    assert result.returncode == 1
    assert result.stderr.startswith("kv_server: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--port", "70000"], ["--seconds", "0"], ["--clients", "0"], ["--frob"]]
)
def test_bad_arguments(arguments: list[str]) -> None:
    program = [sys.executable, str(EXAMPLES / "kv_server.py")]
    result = subprocess.run(
        [*program, *arguments], capture_output=True, text=True, timeout=30, env=environment()
    )
    assert result.returncode == 2
    assert "usage:" in result.stderr


# The demo


def demo(*arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / "kv_server.py"), "--demo", *arguments]


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_demo() -> None:
    arguments = demo("--seconds", "1", "--clients", "50")
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=100, env=environment())
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for name in ("fibers", "uvloop"):
        rows = re.findall(
            rf"\b{name}\s+[\d,]+\s+[\d.]+\s+[\d.]+\s+[\d.]+\s+[\d.]+\s+[\d.]+\s+\d+%$", result.stdout, re.M
        )
        assert len(rows) == 2, result.stdout
    assert len(re.findall(r"\bratio\s+[\d.]+x", result.stdout)) == 2
    assert "answered correctly" in result.stdout


@pytest.fixture
def started_demo() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A demo under way, and the servers that it has started."""
    with subprocess.Popen(
        demo("--seconds", "8", "--clients", "10"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            while "round 1" not in (line := process.stdout.readline()):
                if not line:
                    pytest.fail(f"the demo ended early: {process.stderr.read()}")
            yield process, children(process.pid)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_servers_of_the_demo_do_not_outlive_it(
    started_demo: tuple[subprocess.Popen[str], list[int]], number: signal.Signals
) -> None:
    process, servers = started_demo
    assert len(servers) == 2
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGINT)
    wait_until(lambda: not any(map(alive, servers)), "a server is still alive")


def test_the_demo_fails_clearly_when_a_server_dies(
    started_demo: tuple[subprocess.Popen[str], list[int]],
) -> None:
    process, servers = started_demo
    os.kill(servers[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stderr.startswith("kv_server: the demo failed: ")
    assert "Traceback" not in stderr
    wait_until(lambda: not any(map(alive, servers)), "a server is still alive")
