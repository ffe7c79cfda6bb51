"""Statistics, tables and JSON: pure functions over what the harness measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from statistics import median
from typing import Any

from benchmarks.harness import Samples
from benchmarks.rows import Bound, Row, Variant

PACKAGES = ("swapco", "greenlet", "uvloop", "gevent", "runloom")

WAITED = 1.3
"""Wall time over CPU time from which a loop that never waits has waited: for a CPU, or by a bug."""
SATURATED = 0.9
"""The share of the window that a server must be busy, or the generator limits it and not the server."""


@dataclass(frozen=True)
class Result:
    """One row, measured. `ratio` is the median of `ratios`, which has one ratio for each complete round;
    `bar` is None where the row has none, or it does not apply here; `passed` is None without a bar, or without a
    ratio. `reason` says why something is missing."""

    row: Row
    ours: float | None
    peer: float | None
    ratios: tuple[float, ...]
    ratio: float | None
    bar: float | None
    passed: bool | None
    failed: bool
    reason: str | None


def per_round_ratios(ours: Samples, peer: Samples) -> tuple[float, ...]:
    """swapco / peer in each round in which both were measured: only neighbours in time are compared."""
    return tuple(
        mine["value"] / its["value"]
        for mine, its in zip(ours.rounds, peer.rounds, strict=False)
        if mine is not None and its is not None
    )


def result(row: Row, ours: Samples, peer: Samples, cpus: int | None = None) -> Result:
    """A row's result; `cpus`: how many the process had (None: enough)."""
    ratios = per_round_ratios(ours, peer)
    failed = bool(ours.error or peer.error or ours.missing)
    # Half a run is no verdict: with an error the ratio so far is shown, and nothing passes.
    ratio = median(ratios) if ratios else None
    no_bar = why_no_bar(row, peer, cpus)
    bar = None if no_bar else row.bar
    return Result(
        row=row,
        ours=median(ours.values()) if ours.values() else None,
        peer=median(peer.values()) if peer.values() else None,
        ratios=ratios,
        ratio=ratio,
        bar=bar,
        passed=None if bar is None or ratio is None or failed else ratio <= bar,
        failed=failed,
        reason=reason_of(row.ours, ours) or reason_of(row.peer, peer) or no_bar,
    )


def peer_samples(row: Row, measured: dict[Variant, Samples]) -> Samples:
    """The measurements of a row's peer; a bound is the same in each round."""
    if isinstance(row.peer, Bound):
        return Samples([{"value": row.peer.value} for _ in measured[row.ours].rounds])
    return measured[row.peer]


def why_no_bar(row: Row, peer: Samples, cpus: int | None) -> str | None:
    """Why a row's bar does not apply to these measurements; None if it does, or there is none."""
    if row.bar is None:
        return None
    if cpus is not None and cpus < row.cpus:
        return f"{row.name}: no bar, because it needs {row.cpus} CPUs and this process has {cpus}"
    if peer.values() and median(peer.values()) < row.peer_from_ns:
        took, floor = (format_value(value, "ns") for value in (median(peer.values()), row.peer_from_ns))
        return f"{row.name}: no bar, because the peer took {took}, and the bar is for {floor} and more"
    return None


def reason_of(variant: Variant | Bound, samples: Samples) -> str | None:
    """Why a variant has no complete series of measurements, or None."""
    if samples.missing:
        return f"not measured: {samples.missing}"
    return f"{variant}: {samples.error}" if samples.error else None


def format_value(value: float | None, unit: str) -> str:
    """Three digits and a readable unit. `unit` is ``ns`` or ``B`` (bytes)."""
    if value is None:
        return "-"
    names = {"ns": ("ns", "µs", "ms"), "B": ("B", "kB", "MB")}[unit]
    for name in names:
        if value < 999.5 or name == names[-1]:
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {name}"
        value /= 1000
    raise AssertionError("unreachable")


def format_table(heads: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A text table; the first `left` columns are flush left, the others flush right."""
    widths = [max(len(line[i]) for line in (heads, *lines)) for i in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (heads, ["-" * width for width in widths], *lines)
    )


def verdict(outcome: Result) -> str:
    if outcome.failed:
        return "error"
    if outcome.ratio is None:
        return "no peer"
    return {True: "pass", False: "FAIL", None: "-"}[outcome.passed]


def rows_table(results: Sequence[Result]) -> str:
    """The table of ratios: work, swapco, peer, ratio with its range, bar, verdict."""
    lines = []
    for outcome in results:
        row, ratios = outcome.row, outcome.ratios
        lines.append(
            (
                row.name,
                row.work,
                row.peer_name,
                format_value(outcome.ours, row.unit),
                format_value(outcome.peer, row.unit),
                "-" if outcome.ratio is None else f"{outcome.ratio:.3f}",
                f"{min(ratios):.2f}..{max(ratios):.2f}" if ratios else "-",
                "-" if outcome.bar is None else f"{outcome.bar:.2f}",
                verdict(outcome),
            )
        )
    heads = ("row", "work", "against", "swapco", "peer", "ratio", "range", "bar", "verdict")
    return format_table(heads, lines, left=3)


def servers_table(measured: dict[Variant, Samples]) -> str:
    """What the load generator saw of each server: medians of the rounds. Empty if there was none."""

    def middle(samples: Samples, key: str) -> float:
        return median(samples.values(key))

    lines = [
        (
            str(variant),
            format_value(middle(samples, "value"), "ns"),
            f"{middle(samples, 'requests_per_s'):,.0f}",
            f"{middle(samples, 'p50_us'):,.0f} µs",
            f"{middle(samples, 'p99_us'):,.0f} µs",
            f"{middle(samples, 'server_busy'):.0%}",
        )
        for variant, samples in measured.items()
        if variant.load and samples.values()
    ]
    heads = ("server", "CPU/request", "requests/s", "p50", "p99", "busy")
    return format_table(heads, lines) if lines else ""


def notes(measured: dict[Variant, Samples], results: Sequence[Result]) -> list[str]:
    """What the reader must know about these numbers: failures, and conditions under which they say less."""
    found = list(dict.fromkeys(outcome.reason for outcome in results if outcome.reason))
    for variant, samples in measured.items():
        if not samples.values():
            continue
        if walls := samples.values("wall_ns"):
            waited = median(wall / cpu for wall, cpu in zip(walls, samples.values(), strict=True))
            if waited > WAITED:
                found.append(f"{variant}: wall time was {waited:.1f} x CPU time: a busy machine, or a wait")
        if variant.load and variant.load.connections > 1:
            busy = median(samples.values("server_busy"))
            if busy < SATURATED:
                found.append(
                    f"{variant}: the server was busy for only {busy:.0%} of the window: the generator "
                    "limits it, or it was not alone on its CPU"
                )
    return found


def as_json(
    results: Sequence[Result], measured: dict[Variant, Samples], environment: dict[str, Any]
) -> dict[str, Any]:
    """Everything, raw samples included; nothing in it names the machine or its user."""
    return {
        "environment": environment,
        "rows": [
            {
                "name": outcome.row.name,
                "work": outcome.row.work,
                "unit": outcome.row.unit,
                "ours": {"variant": str(outcome.row.ours), "median": outcome.ours},
                "peer": {
                    "name": outcome.row.peer_name,
                    "variant": str(outcome.row.peer) if isinstance(outcome.row.peer, Variant) else None,
                    "median": outcome.peer,
                },
                "ratio": outcome.ratio,
                "ratios": list(outcome.ratios),
                "bar": outcome.bar,
                "verdict": verdict(outcome),
                "reason": outcome.reason,
            }
            for outcome in results
        ],
        "measurements": {
            str(variant): {"rounds": samples.rounds, "missing": samples.missing, "error": samples.error}
            for variant, samples in measured.items()
        },
    }


def describe_environment(rounds: int, quick: bool) -> dict[str, Any]:
    """Versions, kernel and CPU model: what a comparison of two runs needs. No host name."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "quick": quick,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: version_of(name) for name in PACKAGES},
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_model": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
    }


def version_of(package: str) -> str | None:
    """The installed version, or None. Imports nothing: this process stays free of all the libraries."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor's name as the kernel has it; the architecture where /proc/cpuinfo has no name."""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            for line in cpuinfo:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
