"""Publish and subscribe: who listens to which channel."""

from typing import Protocol

from kv.protocol import array, bulk


class Subscriber(Protocol):
    """Whoever can be told. `push` must not block: the publisher does not wait for a slow reader."""

    def push(self, message: bytes, /) -> None: ...


class Channels:
    """The subscribers of every channel, in the order in which they came."""

    def __init__(self) -> None:
        self._subscribers: dict[bytes, dict[Subscriber, None]] = {}

    def __len__(self) -> int:
        return len(self._subscribers)

    def add(self, channel: bytes, subscriber: Subscriber) -> None:
        self._subscribers.setdefault(channel, {})[subscriber] = None

    def remove(self, channel: bytes, subscriber: Subscriber) -> None:
        subscribers = self._subscribers.get(channel, {})
        subscribers.pop(subscriber, None)
        if not subscribers:
            self._subscribers.pop(channel, None)

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Tells all subscribers of `channel`; returns how many."""
        subscribers = list(self._subscribers.get(channel, ()))
        if subscribers:
            message = array((bulk(b"message"), bulk(channel), bulk(payload)))
            for subscriber in subscribers:
                subscriber.push(message)
        return len(subscribers)
