"""The demo: the server on fibers and the server on uvloop, loaded in turns, side by side in a table.

Both servers run all the time, each a process of its own; the one that is not loaded sleeps. They take turns
in short rounds, so that whatever else the machine does hits both alike.

The number to look at is the server's CPU time per request. Requests per second and latency depend on the
clients too: they are one Python process that works about as hard as the server does, on the same machine.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import swapco
from kv.load import BATCH, LoadError, Sample, load

SERVERS = ("fibers", "uvloop")
PHASES = {"request-response": False, f"pipelines of {BATCH}": True}
ROUNDS = 4
WARM_UP_S = 0.1
START_S = 15.0  # until a server must be ready
STOP_S = 5.0  # until it must have stopped
REFRESH_S = 0.2  # of the progress line


@dataclass
class ServerProcess:
    """A server that runs as a child of this process."""

    name: str
    process: subprocess.Popen[str]
    address: tuple[str, int]

    def cpu_s(self) -> float:
        """The CPU time that the process has used, all threads, to the nanosecond: clock_getcpuclockid(3)."""
        return time.clock_gettime((~self.process.pid << 3) | 2)


@contextmanager
def running_server(entry: str, name: str) -> Iterator[ServerProcess]:
    """Starts a server on a free port, and stops it at the end, whatever happens.

    The server asks the kernel to be killed if this process dies (`--parent`).
    """
    arguments = [sys.executable, entry, "--server", name, "--port", "0", "--parent", str(os.getpid())]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_S)
            line = process.stdout.readline() if ready else ""
            host, colon, port = line.rpartition(" ")[2].strip().rpartition(":")
            if not colon:
                raise LoadError(f"the {name} server did not start")
            yield ServerProcess(name, process, (host, int(port)))
            process.terminate()
            status = process.wait(STOP_S)
            if status != 0:
                raise LoadError(f"the {name} server ended with status {status}")
        except subprocess.TimeoutExpired:
            raise LoadError(f"the {name} server did not stop when asked to") from None
        finally:
            process.kill()


class Progress:
    """Tells how far we are: on a terminal in one line that changes, elsewhere in a line per round."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()

    def show(self, text: str) -> None:
        if self.live:
            print(f"\r\x1b[K{text}", end="", flush=True)

    def done(self, text: str) -> None:
        if self.live:
            self.show("")
        else:
            print(text, flush=True)

    def follow(self, title: str, sample: Sample) -> None:
        """A fiber: shows the rate at which `sample` grows."""
        before, before_s = sample.requests, time.perf_counter()
        while True:
            swapco.sleep(REFRESH_S)
            now, now_s = sample.requests, time.perf_counter()
            self.show(f"{title}  {(now - before) / (now_s - before_s):9,.0f} requests/s")
            before, before_s = now, now_s


def measure(servers: Sequence[ServerProcess], clients: int, seconds: float) -> dict[str, dict[str, Sample]]:
    """Samples by phase and server; `seconds` for each of them."""
    progress = Progress()
    samples: dict[str, dict[str, Sample]] = {}
    for phase, pipelined in PHASES.items():
        samples[phase] = {server.name: Sample() for server in servers}
        for server in servers:
            load(server.address, clients, pipelined, WARM_UP_S, server.cpu_s, Sample())
        for number in range(ROUNDS):
            for server in servers if number % 2 == 0 else reversed(servers):
                sample = samples[phase][server.name]
                title = f"{phase}, round {number + 1} of {ROUNDS}, {server.name}:"
                before = sample.requests
                follower = swapco.spawn(progress.follow, title, sample)
                load(server.address, clients, pipelined, seconds / ROUNDS, server.cpu_s, sample)
                follower.cancel()
                progress.done(f"{title} {sample.requests - before:,} requests answered correctly")
    return samples


COLUMNS: tuple[tuple[str, Callable[[Sample], float], str], ...] = (
    ("requests/s", lambda sample: sample.requests / sample.elapsed_s, "{:,.0f}"),
    ("p50 ms", lambda sample: sample.percentile(0.50) * 1e3, "{:.2f}"),
    ("p95 ms", lambda sample: sample.percentile(0.95) * 1e3, "{:.2f}"),
    ("p99 ms", lambda sample: sample.percentile(0.99) * 1e3, "{:.2f}"),
    ("max ms", lambda sample: sample.percentile(1.00) * 1e3, "{:.2f}"),
    ("CPU µs/request", lambda sample: sample.server_cpu_s / sample.requests * 1e6, "{:.2f}"),
    ("server busy", lambda sample: sample.server_cpu_s / sample.elapsed_s, "{:.0%}"),
)


def table(samples: dict[str, dict[str, Sample]]) -> str:
    titles = [title for title, _, _ in COLUMNS]
    rows = [["", "", *titles]]
    for phase, by_server in samples.items():
        label = phase
        for name, sample in by_server.items():
            rows.append([label, name, *(form.format(value(sample)) for _, value, form in COLUMNS)])
            label = ""
        first, second = by_server.values()
        ratios = (value(first) / value(second) for _, value, _ in COLUMNS)
        rows.append(["", "ratio", *(f"{ratio:.2f}x" for ratio in ratios)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def demo(entry: str, clients: int, seconds: float) -> None:
    """Runs the demo and prints its table; exits with a message if anything is wrong."""
    print(
        f"{clients} clients; {seconds:g} s for each server in each phase; every reply is checked", flush=True
    )
    try:
        with ExitStack() as stack:
            servers = [stack.enter_context(running_server(entry, name)) for name in SERVERS]
            samples = swapco.run(measure, servers, clients, seconds)
    except Exception as failure:
        reason = first_leaf(failure)
        if not isinstance(reason, LoadError | OSError | EOFError):
            raise
        sys.exit(f"kv_server: the demo failed: {reason}")
    print(table(samples))
    print("Compare the CPU time per request: the rest depends on the clients as much as on the server.")


def first_leaf(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
