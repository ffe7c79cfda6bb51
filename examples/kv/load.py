"""Load for a key-value server: many clients, each a fiber, that check every answer they get.

All clients send the same mix, with keys of their own and one counter that they share. What a reply must be is
known beforehand, except for the counter: there the client checks that its answers only grow, and the caller
that the total is right in the end. Requests are encoded once, before the clock starts, so that this process
measures the server and not itself.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import swapco
from kv.protocol import OK, array, bulk

BATCH = 16  # requests in a pipeline
VALUE_SIZE = 64
COUNTER = b"counter"
PATIENCE_S = 10.0  # with a server that does not answer


class LoadError(Exception):
    """The server answered wrongly, or not at all."""


@dataclass
class Sample:
    """What was measured."""

    requests: int = 0
    increments: int = 0
    elapsed_s: float = 0.0
    server_cpu_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)  # one per exchange

    def percentile(self, fraction: float) -> float:
        """The latency that `fraction` of all exchanges stay within, in seconds."""
        ranked = sorted(self.latencies_s)
        return ranked[min(int(fraction * len(ranked)), len(ranked) - 1)]


def request(*words: bytes) -> bytes:
    return array(map(bulk, words))


@dataclass
class Exchange:
    """Requests that are sent together, and the replies to them: known ones first, then counter values."""

    payload: bytes
    known: bytes
    increments: int
    requests: int


def exchanges(client: int, pipelined: bool) -> list[Exchange]:
    """The traffic of one client, to be repeated: ten GETs and four SETs to two INCRs."""
    keys = [b"key:%d:%d" % (client, index) for index in range(4)]
    values = [b"%d/%d " % (client, index) * VALUE_SIZE for index in range(4)]
    values = [value[:VALUE_SIZE] for value in values]
    writes = [Exchange(request(b"SET", k, v), OK, 0, 1) for k, v in zip(keys, values, strict=True)]
    reads = [Exchange(request(b"GET", k), bulk(v), 0, 1) for k, v in zip(keys, values, strict=True)]
    increment = Exchange(request(b"INCR", COUNTER), b"", 1, 1)
    mix = [*writes, *reads, *reads, *reads[:2], increment, increment]
    if not pipelined:
        return mix
    payload = b"".join(exchange.payload for exchange in mix)
    known = b"".join(exchange.known for exchange in mix)
    return [Exchange(payload, known, sum(exchange.increments for exchange in mix), len(mix))]


class LoadClient:
    """One connection to the server, and the traffic that goes over it."""

    def __init__(self, address: tuple[str, int], index: int, pipelined: bool) -> None:
        self.name = f"client {index}"
        self.exchanges = exchanges(index, pipelined)
        self.reader, self.writer = swapco.open_connection(*address)

    def run(self, until_s: float, total: Sample) -> None:
        """Exchanges requests and replies until the clock shows `until_s`."""
        counter = 0
        clock = time.perf_counter
        before = clock()
        while before < until_s:
            for exchange in self.exchanges:
                counter = self.exchange(exchange, counter)
                now = clock()
                total.latencies_s.append(now - before)
                total.requests += exchange.requests
                total.increments += exchange.increments
                before = now

    def exchange(self, exchange: Exchange, counter: int) -> int:
        """Sends the requests and checks the replies; returns the counter's value."""
        self.writer.write(exchange.payload)
        if exchange.known:
            reply = self.reader.readexactly(len(exchange.known))
            if reply != exchange.known:
                raise LoadError(f"{self.name}: got {reply!r} where {exchange.known!r} was due")
        for _ in range(exchange.increments):
            line = self.reader.readline()
            if line[:1] != b":" or not counter < (value := int(line[1:])):
                raise LoadError(f"{self.name}: the counter went from {counter} to {line!r}")
            counter = value
        return counter

    def close(self) -> None:
        self.writer.close()


def connect(address: tuple[str, int], count: int, pipelined: bool) -> list[LoadClient]:
    with swapco.TaskGroup() as group:
        fibers = [group.spawn(LoadClient, address, index, pipelined) for index in range(count)]
    return [fiber.result() for fiber in fibers]


def counter_value(address: tuple[str, int]) -> int:
    """What the server says that the shared counter stands at."""
    reader, writer = swapco.open_connection(*address)
    writer.write(request(b"INCRBY", COUNTER, b"0"))
    line = reader.readline()
    writer.close()
    return int(line[1:])


def load(
    address: tuple[str, int],
    clients: int,
    pipelined: bool,
    seconds: float,
    cpu_clock_s: Callable[[], float],
    sample: Sample,
) -> None:
    """Loads the server for some seconds, and adds to `sample` what comes of it.

    `cpu_clock_s` tells the CPU time that the server has used.
    """
    connections = connect(address, clients, pipelined)
    counter, increments = counter_value(address), sample.increments
    cpu_s, start_s = cpu_clock_s(), time.perf_counter()
    try:
        with swapco.timeout(seconds + PATIENCE_S), swapco.TaskGroup() as group:
            for connection in connections:
                group.spawn(connection.run, start_s + seconds, sample)
    except TimeoutError:
        raise LoadError(f"the server left requests unanswered for {PATIENCE_S:.0f} seconds") from None
    sample.elapsed_s += time.perf_counter() - start_s
    sample.server_cpu_s += cpu_clock_s() - cpu_s
    for connection in connections:
        connection.close()
    counted, done = counter_value(address) - counter, sample.increments - increments
    if counted != done:
        raise LoadError(f"the server counted {counted} increments, the clients {done}")
