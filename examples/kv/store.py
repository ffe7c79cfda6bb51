"""The data: keys with their values, when they expire, and who waits for an element of which list.

A value is a `bytes` (a string or a number) or a `deque` of bytes (a list); an empty list is no key at all.

Expiry is exact whoever looks: every access checks the key's deadline. What nobody looks at any more is
removed by `purge`, which the server calls now and then; a heap has the deadlines in order. Overwriting a
deadline leaves a stale entry in the heap. It is recognised when it comes up, and the heap is rebuilt when
most of it is stale.

A blocked client is a `Waiter`, in the queue of each key that it waits for. A push serves waiters at once, in
the order in which they came, before any other command can run: an element that is handed to a waiter has left
the list, and nobody who comes later can take it. If the client turns out to be gone, `give_up` puts the
element back where it was.

Nothing here blocks or does I/O. Every method is atomic for the simple reason that a switch only happens where
a fiber (or a coroutine) waits.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import islice

from kv.glob import compile_glob
from kv.protocol import INT64_MAX, INT64_MIN, to_int64

Value = bytes | deque[bytes]


class CommandError(Exception):
    """A command that cannot be done. The message is the error reply: a code and a text."""


class WrongTypeError(CommandError):
    def __init__(self) -> None:
        super().__init__("WRONGTYPE Operation against a key holding the wrong kind of value")


class Waiter:
    """A client that is blocked until one of `keys` has an element, for `timeout_s` at most (None: for ever).

    The connection sets `notify`, waits until it is called or the time is up, and looks at `element`.
    """

    __slots__ = ("element", "keys", "notify", "timeout_s")

    def __init__(self, keys: list[bytes], timeout_s: float | None) -> None:
        self.keys = keys
        self.timeout_s = timeout_s
        self.element: tuple[bytes, bytes] | None = None  # the key that had one, and the element
        self.notify: Callable[[], object] = lambda: None


class Store:
    """One database. Times are in nanoseconds of `clock`."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.clock_ns = clock_ns
        self._values: dict[bytes, Value] = {}
        self._deadlines: dict[bytes, int] = {}
        self._heap: list[tuple[int, bytes]] = []
        self._waiters: dict[bytes, dict[Waiter, None]] = {}  # a dict is a queue that can remove anyone

    # Keys

    def find(self, key: bytes) -> Value | None:
        """The value, unless it has expired."""
        if key in self._deadlines and self._deadlines[key] <= self.clock_ns():
            self.delete(key)
        return self._values.get(key)

    def delete(self, key: bytes) -> bool:
        """Whether there was something to delete; an expired key is none."""
        deadline = self._deadlines.pop(key, None)
        existed = self._values.pop(key, None) is not None
        return existed and (deadline is None or deadline > self.clock_ns())

    def keys(self, pattern: bytes) -> list[bytes]:
        self.purge()
        matches = compile_glob(pattern).fullmatch
        return [key for key in self._values if matches(key)]

    def clear(self) -> None:
        self._values.clear()
        self._deadlines.clear()
        self._heap.clear()

    def __len__(self) -> int:
        self.purge()
        return len(self._values)

    # Expiry

    def deadline(self, key: bytes) -> int | None:
        """When a key that `find` has found will expire."""
        return self._deadlines.get(key)

    def expire(self, key: bytes, deadline_ns: int) -> None:
        self._deadlines[key] = deadline_ns
        if len(self._heap) > 2 * len(self._deadlines) + 64:
            self._heap = [(deadline, key) for key, deadline in self._deadlines.items()]
            heapify(self._heap)
        else:
            heappush(self._heap, (deadline_ns, key))

    def persist(self, key: bytes) -> bool:
        return self._deadlines.pop(key, None) is not None

    def purge(self, limit: int | None = None) -> int:
        """Removes expired keys, no more than `limit`; returns how many."""
        heap, now, purged = self._heap, self.clock_ns(), 0
        while heap and heap[0][0] <= now and purged != limit:
            deadline, key = heappop(heap)
            if self._deadlines.get(key) == deadline:
                self.delete(key)
                purged += 1
        return purged

    @property
    def expiring(self) -> int:
        """How many keys have a deadline."""
        return len(self._deadlines)

    # Strings

    def string(self, key: bytes) -> bytes | None:
        value = self.find(key)
        if isinstance(value, deque):
            raise WrongTypeError
        return value

    def set_string(self, key: bytes, value: bytes, *, keep_deadline: bool = False) -> None:
        self._values[key] = value
        if self._deadlines and not keep_deadline:
            self._deadlines.pop(key, None)

    def add(self, key: bytes, amount: int) -> int:
        """Adds to a number that is stored as a string; a key that does not exist is 0."""
        value = self.string(key)
        old = 0 if value is None else to_int64(value)
        if old is None:
            raise CommandError("ERR value is not an integer or out of range")
        new = old + amount
        if not INT64_MIN <= new <= INT64_MAX:
            raise CommandError("ERR increment or decrement would overflow")
        self._values[key] = b"%d" % new
        return new

    # Lists

    def elements(self, key: bytes) -> deque[bytes] | None:
        value = self.find(key)
        if isinstance(value, bytes):
            raise WrongTypeError
        return value

    def push(self, key: bytes, elements: Iterable[bytes], *, left: bool) -> int:
        """The length of the list once all are in, before waiting clients take theirs."""
        values = self.elements(key)
        if values is None:
            self._values[key] = values = deque()
        (values.extendleft if left else values.extend)(elements)
        length = len(values)
        if key in self._waiters:
            self._serve(key, values)
        return length

    def pop(self, key: bytes, count: int, *, left: bool) -> list[bytes] | None:
        """Up to `count` elements; None if there is no such list."""
        values = self.elements(key)
        if values is None:
            return None
        take = values.popleft if left else values.pop
        elements = [take() for _ in range(min(count, len(values)))]
        if not values:
            self.delete(key)
        return elements

    def slice(self, key: bytes, start: int, stop: int) -> list[bytes]:
        """The elements from `start` to `stop`, that one included; negative numbers count from the end."""
        values = self.elements(key) or ()
        size = len(values)
        first = max(start + size, 0) if start < 0 else start
        last = stop + size if stop < 0 else min(stop, size - 1)
        return list(islice(values, first, last + 1)) if first <= last else []

    # Waiting for elements

    @property
    def waiting(self) -> int:
        """How many clients wait."""
        return len({waiter for queue in self._waiters.values() for waiter in queue})

    def wait_for(self, waiter: Waiter) -> bool:
        """Takes an element at once, or queues the waiter: whether it has one."""
        for key in waiter.keys:
            if elements := self.pop(key, 1, left=True):
                waiter.element = (key, elements[0])
                return True
        for key in waiter.keys:
            self._waiters.setdefault(key, {})[waiter] = None
        return False

    def give_up(self, waiter: Waiter) -> None:
        """The client does not wait any longer; an element that it cannot take goes back."""
        if waiter.element is None:
            self._dequeue(waiter)
            return
        key, element = waiter.element
        waiter.element = None
        if not isinstance(self.find(key), bytes):  # else the list was overwritten, and the element with it
            self.push(key, [element], left=True)

    def _serve(self, key: bytes, values: deque[bytes]) -> None:
        while values and (queue := self._waiters.get(key)):
            waiter = next(iter(queue))
            self._dequeue(waiter)
            waiter.element = (key, values.popleft())
            waiter.notify()
        if not values:
            self.delete(key)

    def _dequeue(self, waiter: Waiter) -> None:
        for key in waiter.keys:
            queue = self._waiters.get(key)
            if queue is not None:
                queue.pop(waiter, None)
                if not queue:
                    del self._waiters[key]
