"""Every row of the benchmark and its bar.

A row compares two functions of one file below ``work/``. The bar is the largest ratio swapco / peer that
a release may have; without a bar the row only informs.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Load:
    """What the load generator does to a server: `connections`, each with `batch` messages in flight."""

    connections: int
    message_bytes: int = 1024
    batch: int = 1


@dataclass(frozen=True)
class Variant:
    """A function ``benchmarks.work.<work>.<function>`` and how it is measured (`child` has the kinds)."""

    kind: str
    work: str
    function: str
    load: Load | None = None

    def __str__(self) -> str:
        load = self.load
        if load is None:
            return f"{self.work}.{self.function}"
        pipelined = f" x {load.batch}" if load.batch > 1 else ""
        return f"{self.work}.{self.function} ({load.connections} conn.{pipelined})"


@dataclass(frozen=True)
class Row:
    name: str
    work: str
    peer_name: str
    unit: str
    ours: Variant
    peer: Variant
    bar: float | None


def _laps(name: str, work: str, peer_name: str, file: str, ours: str, peer: str, bar: float) -> Row:
    return Row(name, work, peer_name, "ns", Variant("laps", file, ours), Variant("laps", file, peer), bar)


def _served(
    name: str, work: str, peer_name: str, file: str, ours: str, peer: str, load: Load, bar: float | None
) -> Row:
    return Row(
        name, work, peer_name, "ns", Variant("serve", file, ours, load), Variant("serve", file, peer, load), bar
    )


ONE = Load(connections=1)
HUNDRED = Load(connections=100)
PIPELINED = Load(connections=50, message_bytes=32, batch=16)

# Rows that share a variant stand together: it is measured once a round, next to both peers.
ROWS = (
    _laps("sleep-uvloop", "sleep(0) among 10 flows", "uvloop", "sleep_zero", "on_swapco", "on_uvloop", 0.55),
    _laps("sleep-gevent", "sleep(0) among 10 flows", "gevent", "sleep_zero", "on_swapco", "on_gevent", 0.30),
    _laps("queue-uvloop", "round trip, two queues of 1", "uvloop", "queue_round_trip", "on_swapco", "on_uvloop", 0.25),
    _laps("queue-gevent", "round trip, two queues of 1", "gevent", "queue_round_trip", "on_swapco", "on_gevent", 0.25),
    _laps("switch", "switch_to between two flows", "greenlet", "switch_pair", "on_swapco", "on_greenlet", 1.25),
    _laps("depth", "switch_to, run at depth 40", "run at depth 0", "frame_depth", "at_depth_40", "at_depth_0", 1.1),
    _laps("spawn", "spawn and join", "uvloop", "spawn_join", "on_swapco", "on_uvloop", 0.6),
    Row(
        "memory", "memory of a parked flow", "gevent", "B",
        Variant("memory", "parked_memory", "on_swapco"), Variant("memory", "parked_memory", "on_gevent"), 0.85,
    ),
    _served(
        "echo-gevent", "echo 1 KiB, 100 conn., sockets", "gevent sockets",
        "echo", "swapco_sockets", "gevent_sockets", HUNDRED, 0.5,
    ),
    _served(
        "echo-protocol", "echo 1 KiB, 100 conn., sockets", "uvloop Protocol",
        "echo", "swapco_sockets", "uvloop_protocol", HUNDRED, 1.1,
    ),
    _served(
        "echo-streams", "echo 1 KiB, 100 conn., streams", "uvloop streams",
        "echo", "swapco_streams", "uvloop_streams", HUNDRED, 0.75,
    ),
    _served(
        "echo-single", "echo 1 KiB, 1 conn., sockets", "uvloop Protocol",
        "echo", "swapco_sockets", "uvloop_protocol", ONE, 1.3,
    ),
    _served(
        "pipelined", "16 lines a batch, 50 conn., streams", "uvloop streams",
        "pipelined", "swapco_streams", "uvloop_streams", PIPELINED, None,
    ),
)  # fmt: skip


def select(patterns: list[str]) -> list[Row]:
    """The rows whose name matches one of `patterns` (names or globs; none: all); unknown: ValueError."""
    for pattern in patterns:
        if not any(fnmatchcase(row.name, pattern) for row in ROWS):
            raise ValueError(f"no row is called {pattern!r}; there are: {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if not patterns or any(fnmatchcase(row.name, p) for p in patterns)]


def variants(rows: list[Row]) -> list[Variant]:
    """What a round measures, in order and each once: swapco, its peer, the next one."""
    return list(dict.fromkeys(variant for row in rows for variant in (row.ours, row.peer)))
