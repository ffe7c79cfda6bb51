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
    """The function ``benchmarks.work.<path>`` and how it is measured (`child` has the kinds)."""

    kind: str
    path: str
    load: Load | None = None

    def __str__(self) -> str:
        load = self.load
        if load is None:
            return self.path
        pipelined = f" x {load.batch}" if load.batch > 1 else ""
        return f"{self.path} ({load.connections} conn.{pipelined})"


@dataclass(frozen=True)
class Row:
    """`ours` / `peer` must not exceed `bar` (None: only reported)."""

    name: str
    work: str
    peer_name: str
    ours: Variant
    peer: Variant
    bar: float | None

    @property
    def unit(self) -> str:
        """Of both values: ``ns`` of CPU time per operation or request, or ``B``, bytes per flow."""
        return "B" if self.ours.kind == "memory" else "ns"


def _laps(path: str) -> Variant:
    return Variant("laps", path)


def _memory(path: str) -> Variant:
    return Variant("memory", path)


def _one(path: str) -> Variant:
    return Variant("serve", path, Load(connections=1))


def _hundred(path: str) -> Variant:
    return Variant("serve", path, Load(connections=100))


def _pipelined(path: str) -> Variant:
    return Variant("serve", path, Load(connections=50, message_bytes=32, batch=16))


SLEEP = "sleep(0) among 10 flows"
QUEUES = "round trip, two queues of 1"
SOCKETS = "echo 1 KiB, 100 conn., sockets"
STREAMS = "echo 1 KiB, 100 conn., streams"
SPAWN = "spawn and join"

_sleep = _laps("sleep_zero.on_swapco")
_queues = _laps("queue_round_trip.on_swapco")
_sockets = _hundred("echo.swapco_sockets")

# Rows that share a variant stand together: it is measured once a round, next to both peers.
ROWS = (
    Row("sleep-uvloop", SLEEP, "uvloop", _sleep, _laps("sleep_zero.on_uvloop"), 0.12),
    Row("sleep-gevent", SLEEP, "gevent", _sleep, _laps("sleep_zero.on_gevent"), 0.30),
    Row("sleep-runloom", SLEEP, "runloom", _sleep, _laps("sleep_zero.on_runloom"), 0.60),
    Row("sleep-greenlets", SLEEP, "switch=greenlet", _sleep, _laps("sleep_zero.on_swapco_greenlets"), 0.25),
    Row(
        "sleep-deep", "the same, 50 frames deep", "switch=greenlet",
        _laps("sleep_zero.on_swapco_deep"), _laps("sleep_zero.on_swapco_greenlets_deep"), 0.10,
    ),
    Row("queue-uvloop", QUEUES, "uvloop", _queues, _laps("queue_round_trip.on_uvloop"), 0.08),
    Row("queue-gevent", QUEUES, "gevent", _queues, _laps("queue_round_trip.on_gevent"), 0.25),
    Row(
        "switch", "switch_to between two flows", "greenlet",
        _laps("switch_pair.on_swapco"), _laps("switch_pair.on_greenlet"), 0.25,
    ),
    Row(
        "switch-deep", "the same, 50 frames deep", "greenlet",
        _laps("switch_pair.on_swapco_deep"), _laps("switch_pair.on_greenlet_deep"), 0.10,
    ),
    Row(
        "depth", "switch_to, run at depth 40", "run at depth 0",
        _laps("frame_depth.at_depth_40"), _laps("frame_depth.at_depth_0"), 1.10,
    ),
    Row("spawn", SPAWN, "uvloop", _laps("spawn_join.on_swapco"), _laps("spawn_join.on_uvloop"), 0.15),
    Row(
        "memory", "memory of a parked flow", "gevent",
        _memory("parked_memory.on_swapco"), _memory("parked_memory.on_gevent"), 0.85,
    ),
    Row(
        "memory-greenlet", "the same", "bare greenlet",
        _memory("parked_memory.on_swapco"), _memory("parked_memory.on_greenlet"), 0.85,
    ),
    Row(
        "echo-greenlets", SOCKETS, "switch=greenlet",
        _sockets, _hundred("echo.swapco_sockets_on_greenlets"), 1.0,
    ),
    Row("echo-gevent", SOCKETS, "gevent sockets", _sockets, _hundred("echo.gevent_sockets"), 0.50),
    Row("echo-protocol", SOCKETS, "uvloop Protocol", _sockets, _hundred("echo.uvloop_protocol"), 1.10),
    Row(
        "echo-streams", STREAMS, "uvloop streams",
        _hundred("echo.swapco_streams"), _hundred("echo.uvloop_streams"), 0.75,
    ),
    Row(
        "echo-single", "echo 1 KiB, 1 conn., sockets", "uvloop Protocol",
        _one("echo.swapco_sockets"), _one("echo.uvloop_protocol"), 1.30,
    ),
    Row(
        "pipelined", "16 lines a batch, 50 conn., streams", "uvloop streams",
        _pipelined("pipelined.swapco_streams"), _pipelined("pipelined.uvloop_streams"), None,
    ),
)  # fmt: skip


def select(patterns: list[str]) -> list[Row]:
    """The rows whose name matches one of `patterns` (names or globs; none: all); unknown: ValueError."""
    for pattern in patterns:
        if not any(fnmatchcase(row.name, pattern) for row in ROWS):
            names = ", ".join(row.name for row in ROWS)
            raise ValueError(f"no row is called {pattern!r}; there are: {names}")
    return [row for row in ROWS if not patterns or any(fnmatchcase(row.name, p) for p in patterns)]


def variants(rows: list[Row]) -> list[Variant]:
    """What a round measures, in order and each once: swapco, its peer, the next one."""
    return list(dict.fromkeys(variant for row in rows for variant in (row.ours, row.peer)))
