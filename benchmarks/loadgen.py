"""Compiles ``loadgen.c`` and runs it against one server."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from benchmarks.rows import Load

SOURCE = Path(__file__).with_name("loadgen.c")

WARMUP_S = 0.5
WINDOW_S = 2.0
QUICK_WARMUP_S = 0.3
QUICK_WINDOW_S = 0.7
GRACE_S = 20.0
"""How much longer than its window the generator may take before it is killed (it gives up itself at 5 s)."""


class LoadgenError(Exception):
    """The generator cannot be built, or a server answered wrongly, late or not at all."""


class LoadGenerator:
    """The compiled generator, in a temporary directory that ends with the ``with`` block.

    `cpu` is where it is pinned; it polls instead of sleeping (`spin`) when it has that CPU for itself.
    Raises LoadgenError where there is no C compiler.
    """

    def __init__(self, cpu: int, spin: bool, quick: bool) -> None:
        self._cpu = cpu
        self._spin = spin
        self._warmup_s, self._window_s = (QUICK_WARMUP_S, QUICK_WINDOW_S) if quick else (WARMUP_S, WINDOW_S)
        self._directory = tempfile.TemporaryDirectory(prefix="swapco-bench-")
        self._program = os.path.join(self._directory.name, "loadgen")

    def __enter__(self) -> LoadGenerator:
        try:
            compile_to(self._program)
        except BaseException:
            self._directory.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    def load(self, server_pid: int, port: int, load: Load) -> dict[str, float]:
        """Load a server for one window.

        ``value`` is the server's CPU time per request in ns; besides: ``requests_per_s``, ``server_busy``
        and ``loadgen_busy`` (shares of the window that the process had a CPU), latencies in µs
        (``p50_us`` ... ``max_us``; in a batch, until its last answer). Raises LoadgenError.
        """
        command = [
            self._program, "--port", str(port), "--pid", str(server_pid), "--cpu", str(self._cpu),
            "--connections", str(load.connections), "--size", str(load.message_bytes),
            "--batch", str(load.batch), "--warmup", str(self._warmup_s), "--seconds", str(self._window_s),
        ]  # fmt: skip
        if self._spin:
            command.append("--spin")
        limit_s = self._warmup_s + self._window_s + GRACE_S
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            raise LoadgenError(f"the load generator did not end within {limit_s:.0f} s") from None
        if done.returncode:
            raise LoadgenError(done.stderr.strip() or f"the load generator ended with {done.returncode}")
        return per_request(json.loads(done.stdout))


def per_request(window: dict[str, float]) -> dict[str, float]:
    """What `LoadGenerator.load` returns, from what the generator prints."""
    seconds, requests = window["seconds"], window["requests"]
    latencies = {key: value for key, value in window.items() if key.endswith("_us")}
    return {
        "value": window["server_cpu_ns"] / requests,
        "requests_per_s": requests / seconds,
        "server_busy": window["server_cpu_ns"] / (seconds * 1e9),
        "loadgen_busy": window["loadgen_cpu_ns"] / (seconds * 1e9),
        **latencies,
    }


def compile_to(program: str) -> None:
    """Compile the generator; the compiler is ``$CC`` or gcc. Raises LoadgenError."""
    compiler = shlex.split(os.environ.get("CC", "")) or ["gcc"]
    if shutil.which(compiler[0]) is None:
        raise LoadgenError(
            f"the rows that load a server need a C compiler, and {compiler[0]!r} was not found: install gcc, "
            "set CC, or choose other rows with --only"
        )
    command = [*compiler, "-O2", "-o", program, str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadgenError(f"{shlex.join(compiler)} could not compile {SOURCE.name}:\n{done.stderr.strip()}")
