"""Runs the key-value server as a user would, in a process of its own on a free port; and Redis beside it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from kv_support import EXAMPLES, KINDS, START_S, STOP_S, RunningServer, answers, wait_until

sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(scope="module", params=KINDS)
def shared_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    running = RunningServer(request.param)
    yield running
    try:
        assert running.stop() == 0, running.errors()
        assert running.errors() == ""
    finally:
        running.close()


@pytest.fixture
def server(shared_server: RunningServer) -> RunningServer:
    """A server without data; a test may leave anything behind but a server that is ill."""
    wait_until(lambda: int(shared_server.info("connected_clients")) == 1, "clients of the last test are left")
    with shared_server.raw() as raw:
        assert raw.command("FLUSHALL") == "OK"
    assert shared_server.errors() == ""
    return shared_server


@pytest.fixture(params=KINDS)
def own_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """A server that the test may stop."""
    running = RunningServer(request.param)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """The path of a Redis program. Without it the test is skipped, but not in CI."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            message = f"{name} is not installed (it comes with Redis)"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return find


@pytest.fixture(scope="session")
def redis_address(
    tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """A real Redis."""
    program = tool("redis-server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    directory = tmp_path_factory.mktemp("redis")
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(("127.0.0.1", port)), "redis-server does not start", START_S)
            yield "127.0.0.1", port
        finally:
            process.terminate()
            process.wait(STOP_S)
