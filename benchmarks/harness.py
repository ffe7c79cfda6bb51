"""Rounds of measurements, each in a process of its own.

Whatever happens here, no process stays behind: children are killed in ``finally``, and the kernel kills
them when the harness itself dies (PR_SET_PDEATHSIG). Servers listen on a port that the kernel chooses,
on the loopback address.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Any

from benchmarks.loadgen import LoadGenerator, LoadgenError
from benchmarks.rows import Variant

ROOT = Path(__file__).parent.parent
BOOTSTRAP = "from benchmarks.child import main; main()"

CHILD_LIMIT_S = 120.0
LISTEN_LIMIT_S = 20.0
STDERR_LINES = 12


class ChildError(Exception):
    """A measurement failed; the message ends with what the child wrote on standard error."""


class Missing(Exception):
    """The library that a measurement needs cannot be imported here."""


@dataclass
class Samples:
    """The measurements of one variant: a dict for each round (None: that round failed), or why not."""

    rounds: list[dict[str, float] | None]
    missing: str | None = None
    error: str | None = None

    def values(self, key: str = "value") -> list[float]:
        return [sample[key] for sample in self.rounds if sample is not None and key in sample]


def cpus() -> tuple[int, int]:
    """The CPU of what is measured and that of the load generator; the same one if there is only one.

    Out of the process's affinity mask (containers restrict it); the measured one is the last, because
    interrupts tend to go to the first.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[0]


def measure_rounds(
    chosen: list[Variant],
    rounds: int,
    quick: bool,
    progress: Callable[[str], None],
    into: dict[Variant, Samples],
) -> None:
    """Measure `chosen` one after the other, `rounds` times over, adding to `into`.

    `into` is filled as the run goes, so that an interrupted run can still report. A variant whose library
    is missing, or that failed, is left alone in the later rounds. Raises LoadgenError if there are servers
    to load and the generator cannot be built.
    """
    measured_cpu, loading_cpu = cpus()
    into.update((variant, Samples([])) for variant in chosen)
    with generator_for(chosen, loading_cpu, loading_cpu != measured_cpu, quick) as generator:
        for number in range(1, rounds + 1):
            for variant in chosen:
                samples = into[variant]
                if samples.missing or samples.error:
                    samples.rounds.append(None)
                    continue
                progress(f"round {number} of {rounds}: {variant}")
                try:
                    samples.rounds.append(measure(variant, measured_cpu, quick, generator))
                except Missing as reason:
                    samples.missing = str(reason)
                    samples.rounds.append(None)
                except (ChildError, LoadgenError) as reason:
                    samples.error = str(reason)
                    samples.rounds.append(None)


@contextmanager
def generator_for(chosen: list[Variant], cpu: int, spin: bool, quick: bool) -> Iterator[LoadGenerator | None]:
    """The compiled load generator if one of `chosen` needs it."""
    if any(variant.load for variant in chosen):
        with LoadGenerator(cpu, spin, quick) as generator:
            yield generator
    else:
        yield None


def measure(variant: Variant, cpu: int, quick: bool, generator: LoadGenerator | None) -> dict[str, float]:
    """One measurement. Raises Missing, ChildError, LoadgenError."""
    with child(variant, cpu, quick) as process:
        if variant.load is None:
            return process.answer(CHILD_LIMIT_S)
        port = int(process.answer(LISTEN_LIMIT_S)["port"])
        assert generator is not None
        try:
            return generator.load(process.pid, port, variant.load)
        except LoadgenError as error:
            raise ChildError(f"{error}{process.complaints()}") from None


class Child:
    """A running ``benchmarks.child``."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
        self._process = process
        self._stderr = stderr
        self.pid = process.pid

    def answer(self, limit_s: float) -> dict[str, Any]:
        """The line of JSON that the child prints. Raises Missing, or ChildError if none comes in time."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        deadline_s = time.monotonic() + limit_s
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([pipe], [], [], max(0.0, deadline_s - time.monotonic()))
            if not readable:
                raise ChildError(f"no answer within {limit_s:.0f} s{self.complaints()}")
            part = os.read(pipe, 65536)
            if not part:
                status = self._process.wait()
                raise ChildError(f"ended with status {status} and no answer{self.complaints()}")
            line += part
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise Missing(without_paths(answer["missing"]))
        return answer

    def complaints(self) -> str:
        """The end of what the child wrote on standard error, on lines of its own; empty if nothing."""
        # pread: parent and child share one file offset, and the child may still write.
        written = os.pread(self._stderr.fileno(), 1 << 20, 0).decode(errors="replace")
        lines = without_paths(written).strip().splitlines()
        return "".join(f"\n    {line}" for line in lines[-STDERR_LINES:])


@contextmanager
def child(variant: Variant, cpu: int, quick: bool) -> Iterator[Child]:
    """Start the measurement of `variant`, and kill it at the end of the block if it still runs."""
    command = [sys.executable, "-c", BOOTSTRAP, variant.kind, variant.path]
    if variant.pinned:
        command += ["--cpu", str(cpu)]
    if quick:
        command.append("--quick")
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=DEVNULL, stdout=PIPE, stderr=stderr
        )
        try:
            yield Child(process, stderr)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def environment() -> dict[str, str]:
    """The environment of a child: no debug mode of Python or asyncio, and the same hash seed for all."""
    debugging = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONTRACEMALLOC", "PYTHONPROFILEIMPORTTIME")
    kept = {name: value for name, value in os.environ.items() if name not in debugging}
    return {**kept, "PYTHONHASHSEED": "0"}


def without_paths(text: str) -> str:
    """`text` without where things are installed here: results are published."""
    directories = {str(ROOT), sys.prefix, sys.base_prefix, str(Path.home())}
    for directory in sorted(directories, key=len, reverse=True):  # an environment may lie inside the tree
        text = text.replace(directory.rstrip("/") + "/", "")
    return text
