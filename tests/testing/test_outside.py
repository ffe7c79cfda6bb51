"""What a program does outside of its controlled run, past its loop, is refused where it is called."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import swapco
from swapco import testing


def _closing(act: Callable[[socket.socket], object]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        act(sock)


ACTS: dict[str, tuple[str, Callable[[], object]]] = {
    "create_connection": ("resolving an address", lambda: socket.create_connection(("127.0.0.1", 9))),
    "connect": ("connecting a socket", lambda: _closing(lambda sock: sock.connect(("127.0.0.1", 9)))),
    "sendto": ("sending a datagram", lambda: _closing(lambda sock: sock.sendto(b"", ("127.0.0.1", 9)))),
    "getaddrinfo": ("resolving an address", lambda: socket.getaddrinfo("localhost", 80)),
    "gethostbyname": ("resolving an address", lambda: socket.gethostbyname("localhost")),
    "run": ("starting a process", lambda: subprocess.run(["true"], check=True)),
    "system": (r"os.system\(\)", lambda: os.system("true")),
    "fork": (r"os.fork\(\)", lambda: os.fork()),
}
if sys.version_info >= (3, 12):
    ACTS["thread"] = ("starting a thread", lambda: threading.Thread(target=print).start())
    ACTS["timer"] = ("starting a thread", lambda: threading.Timer(1, print).start())
if sys.version_info >= (3, 13):
    ACTS["sleep"] = (r"time.sleep\(\)", lambda: time.sleep(0.001))


#: What the act is answered with: what to do instead.
INSTEAD = {
    "run": "a fake",
    "system": "a fake",
    "fork": "a fake",
    "thread": r"swapco\.spawn\(\.\.\., thread=True\)",
    "timer": r"swapco\.spawn\(\.\.\., thread=True\)",
    "sleep": r"swapco\.sleep\(\)",
}


@pytest.mark.parametrize("act", ACTS)
def test_it_is_refused_at_its_line(act: str) -> None:
    what, do = ACTS[act]

    def body() -> None:
        swapco.spawn(do).join()

    instead = INSTEAD.get(act, "MemoryNetwork")
    with pytest.raises(testing.RealIOError, match=rf"{what} in a controlled run.*test_outside\.py:\d+.*{instead}"):
        testing.run(body)


def test_a_program_that_goes_on_without_it_fails_all_the_same() -> None:
    """With fallbacks and retries it would pass, and not be the program that was to be tested."""

    def body() -> str:
        for _ in range(2):
            try:
                socket.getaddrinfo("localhost", 80)
            except Exception:
                pass
        return "fallback"

    with pytest.raises(testing.RealIOError, match="resolving an address"):
        testing.run(body)
    result = testing.search(body, save=False)
    assert result.failed
    assert isinstance(result.exception, testing.RealIOError)
    assert testing.run(lambda: "as usual") == "as usual"


def test_it_is_allowed_elsewhere(tmp_path: Path) -> None:
    """In other threads, before and after a run; and what decides nothing is allowed in it."""
    answers: queue.Queue[int] = queue.Queue()

    def body() -> None:
        (tmp_path / "file").write_text("text")
        assert (tmp_path / "file").read_text() == "text"
        swapco.to_thread(time.sleep, 0.0001)

    def elsewhere() -> None:
        testing.run(body)
        subprocess.run(["true"], check=True)
        answers.put(len(socket.getaddrinfo("127.0.0.1", 80)))

    for _ in range(2):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert answers.qsize() == 2
    testing.run(body)


def test_clean_up_of_a_failed_run_is_not_disturbed() -> None:
    """The run has failed already: whatever its clean-up does decides nothing."""
    ended: list[str] = []

    def body() -> None:
        def work() -> None:
            try:
                swapco.Event().wait()
            finally:
                socket.getaddrinfo("127.0.0.1", 80)
                ended.append("cleaned up")

        swapco.spawn(work)
        swapco.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        testing.run(body)
    assert ended == ["cleaned up"]
