"""Every row of the benchmark and its bar.

A row compares two functions below ``work/``, or one of them with a fixed bound. The bar is the largest ratio
swapco / peer that a release may have; without a bar the row only informs.
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
    """The function ``benchmarks.work.<path>`` and how it is measured (`child` has the kinds).

    It is `pinned` to one CPU, or runs where the kernel, or the library itself, puts its threads.
    """

    kind: str
    path: str
    load: Load | None = None
    pinned: bool = True

    def __str__(self) -> str:
        load = self.load
        if load is None:
            return self.path if self.pinned else f"{self.path} (unpinned)"
        pipelined = f" x {load.batch}" if load.batch > 1 else ""
        return f"{self.path} ({load.connections} conn.{pipelined})"


@dataclass(frozen=True)
class Bound:
    """Stands for a peer where there is none to measure: the value that swapco must not exceed."""

    value: float


@dataclass(frozen=True)
class Row:
    """`ours` / `peer` must not exceed `bar` (None: only reported).

    The bar is not applied, and a note says so, where the peer takes less than `peer_from_ns`, or where the process
    has fewer than `cpus` CPUs: what the row is about does not happen there.
    """

    name: str
    work: str
    peer_name: str
    ours: Variant
    peer: Variant | Bound
    bar: float | None
    peer_from_ns: float = 0.0
    cpus: int = 1

    @property
    def unit(self) -> str:
        """Of both values: ``ns`` of CPU or wall time per operation or request, or ``B``, bytes per flow."""
        return "B" if self.ours.kind == "memory" else "ns"


def _laps(path: str) -> Variant:
    return Variant("laps", path)


def _wall(path: str) -> Variant:
    return Variant("wall", path)


def _unpinned(path: str, kind: str = "wall") -> Variant:
    return Variant(kind, path, pinned=False)


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
THREADS = "switch_to between two thread fibers"
MIXED = "switch_to, a fiber and a thread fiber"
OFFLOAD = "to_thread of an empty function"
CPUS = "wall time for 1 s of CPU time, two threads in C"

_sleep = _laps("sleep_zero.on_swapco")
_queues = _laps("queue_round_trip.on_swapco")
_sockets = _hundred("echo.swapco_sockets")
# swapco chooses a CPU for its threads itself, and pins them
_threads = _unpinned("thread_switch.on_swapco")
_mixed = _unpinned("thread_switch.on_swapco_mixed")
_locks_pinned = _wall("thread_switch.on_locks")
_locks = _unpinned("thread_switch.on_locks")
_offload = _unpinned("offload.on_swapco")
_two_cpus = _unpinned("two_cpus.on_swapco", "one")

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
    Row(
        "watchdog", "sleep(0), watchdog each 1 ms", "no watchdog",
        _laps("watchdog.on"), _laps("watchdog.off"), 1.50,
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
    Row("thread-switch", THREADS, "Lock, one CPU", _threads, _locks_pinned, 0.50),
    Row("thread-switch-free", THREADS, "Lock, unpinned", _threads, _locks, 0.10, peer_from_ns=30_000, cpus=2),
    Row("thread-mixed", MIXED, "Lock, one CPU", _mixed, _locks_pinned, None),
    Row("thread-mixed-free", MIXED, "Lock, unpinned", _mixed, _locks, None),
    Row("to-thread", OFFLOAD, "uvloop, asyncio's", _offload, _unpinned("offload.on_uvloop"), 0.12),
    Row("to-thread-gevent", OFFLOAD, "gevent's pool", _offload, _unpinned("offload.on_gevent"), None),
    Row(
        "thread-sleepers", "p95 gap of a 1 ms ticker, ten to_thread(time.sleep)", "5 ms",
        _unpinned("sleepers.beside_calls", "one"), Bound(5e6), 1.0,
    ),
    Row(
        "thread-sleepers-new", "the same, ten thread fibers in time.sleep", "5 ms",
        _unpinned("sleepers.beside_thread_fibers", "one"), Bound(5e6), 1.0,
    ),
    Row("thread-cpus", CPUS, "1.5 CPUs", _two_cpus, Bound(1e9 / 1.5), 1.0, cpus=2),
    Row("thread-cpus-plain", CPUS, "threading", _two_cpus, _unpinned("two_cpus.on_threads", "one"), None),
    Row(
        "thread-memory", "memory of a parked thread fiber", "threading.Thread",
        _memory("parked_memory.on_swapco_threads"), _memory("parked_memory.on_threads"), None,
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
    sides = (side for row in rows for side in (row.ours, row.peer))
    return list(dict.fromkeys(side for side in sides if isinstance(side, Variant)))
