"""Random programs of many fibers, until the time is up: nothing is lost, and nothing is left.

``--stress-seconds`` is how long each test runs, ``--seed`` makes a run repeatable as far as threads allow; a failure
names the seed of its round.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Any

import pytest
from helpers import SOON_S

import swapco
from swapco import socket
from swapco.lowlevel import ParkingLot

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("fibers"), pytest.mark.timeout(600)]


class Round:
    """One program: producers and consumers, users of a semaphore and of locks, echo pairs, and troublemakers."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.queue: Any = swapco.Queue(self.dice.choice((0, 1, 2, 7)))
        self.permits = self.dice.randint(1, 4)
        self.semaphore = swapco.Semaphore(self.permits)
        self.inside = 0
        self.lock = swapco.Lock()
        self.owner: object = None
        self.event = swapco.Event()
        self.lot = ParkingLot()
        self.produced: list[int] = []
        self.consumed: list[int] = []
        self.accepted: list[int] = []
        self.received: list[int] = []
        self.victims: list[swapco.Fiber] = []
        self.over = False

    def limit(self) -> float | None:
        return self.dice.choice((None, None, 0, 0.0002, 0.001))

    def pause(self) -> None:
        how = self.dice.randrange(4)
        if how == 0:
            swapco.sleep(0)
        elif how == 1:
            swapco.sleep(self.dice.random() * 0.0005)

    def patiently(self, step: Any, times: int) -> None:
        """A fiber that goes on whatever happens to its waits."""
        for _ in range(times):
            try:
                step()
                self.pause()
            except (TimeoutError, swapco.CancelledError):
                pass

    def produce(self) -> None:
        item = self.dice.getrandbits(60)
        # a cancellation that comes after the put stays pending
        self.queue.put(item, timeout=self.limit())
        self.produced.append(item)

    def consume(self) -> None:
        self.consumed.append(self.queue.get(timeout=self.limit()))

    def use_semaphore(self) -> None:
        self.semaphore.acquire(timeout=self.limit())
        try:
            self.inside += 1
            assert self.inside <= self.permits
            self.pause()
        finally:
            self.inside -= 1
            self.semaphore.release()

    def use_lock(self) -> None:
        with self.lock:
            assert self.owner is None
            self.owner = swapco.current_fiber()
            try:
                self.pause()
            finally:
                assert self.owner is swapco.current_fiber()
                self.owner = None

    def use_event(self) -> None:
        if self.dice.random() < 0.3:
            self.event.set()
        else:
            self.event.clear()
            self.event.wait(timeout=0.001)

    def use_lot(self) -> None:
        if self.dice.random() < 0.5:
            self.lot.unpark(1)
        else:
            self.lot.park(0.001)

    def block(self) -> None:
        self.received.append(swapco.block(self.limit() or 0.001))

    def family(self) -> None:
        children = [swapco.spawn(self.pause) for _ in range(self.dice.randint(1, 5))]
        if self.dice.random() < 0.3:
            children[0].cancel()
        try:
            swapco.wait(children)
        finally:
            for child in children:
                child.cancel()

    def echo(self) -> None:
        near, far = socket.socketpair()
        with near, far:
            size = self.dice.choice((1, 100, 300_000))
            with swapco.TaskGroup() as group:
                group.spawn(near.sendall, bytes(size))
                left = size
                while left:
                    left -= len(far.recv(65536))

    def disturb(self, dice: random.Random, yields: bool) -> None:
        """From a fiber or from another thread: resume and cancel whomever."""
        while not self.over:
            victim = dice.choice(self.victims)
            if dice.random() < 0.2:
                victim.cancel()
            else:
                value = dice.getrandbits(60)
                if swapco.resume(victim, value):
                    self.accepted.append(value)
            if yields:
                swapco.sleep(dice.random() * 0.001)
            else:
                time.sleep(dice.random() * 0.0005)

    def take_what_is_left(self) -> None:
        """The last token, once nobody resumes any more."""
        while True:
            try:
                self.received.append(swapco.block(0))
            except swapco.CancelledError:
                continue
            except TimeoutError:
                return

    def victim(self, step: Any, times: int) -> None:
        self.patiently(step, times)
        # stay for tokens until the troublemakers have gone
        while not self.over:
            try:
                self.received.append(swapco.block(0.002))
            except (TimeoutError, swapco.CancelledError):
                pass
        while not self.ended.is_set():
            try:
                swapco.sleep(0.001)
            except swapco.CancelledError:
                pass
        self.take_what_is_left()

    def main(self) -> None:
        dice = self.dice
        self.ended = threading.Event()
        steps = [self.use_semaphore, self.use_lock, self.use_event, self.use_lot, self.block, self.family, self.echo]
        steps += [self.produce, self.consume] * 2
        for _ in range(dice.randint(5, 40)):
            self.victims.append(swapco.spawn(self.victim, dice.choice(steps), dice.randint(1, 20)))
        # none is cancelled before it has begun
        swapco.sleep(0)
        while any(fiber.state == "NEW" for fiber in self.victims):
            swapco.sleep(0)
        makers = [swapco.spawn(self.disturb, random.Random(dice.random()), True) for _ in range(2)]
        threads = [
            threading.Thread(target=self.disturb, args=(random.Random(dice.random()), False)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            # whoever waits for an item, or for room
            swapco.sleep(0.001)
        self.over = True
        for thread in threads:
            while thread.is_alive():
                swapco.sleep(0.001)
        swapco.wait(makers)
        # those that are stuck in the queue without a timeout: take items out, put some in, cancel
        self.ended.set()
        give_up = time.monotonic() + SOON_S
        while any(not fiber.done() for fiber in self.victims):
            assert time.monotonic() < give_up, [fiber for fiber in self.victims if not fiber.done()]
            for fiber in self.victims:
                if fiber.state == "BLOCKED" and "Queue" in str(fiber.wait_reason):
                    fiber.cancel()
            swapco.sleep(0.0005)
        for fiber in self.victims:
            fiber.join()
        while not self.queue.empty():
            self.consumed.append(self.queue.get_nowait())

    def check(self) -> None:
        assert Counter(self.produced) == Counter(self.consumed)
        # what arrives was accepted, and all that was accepted arrives
        assert Counter(self.received) == Counter(self.accepted)
        assert self.inside == 0
        assert not self.lock.locked()
        assert len(self.lot) == 0


def test_random_programs(seed: int, stress_seconds: float) -> None:
    """Items, permits and values are conserved; no fiber, timer or registration is left."""
    until = time.monotonic() + stress_seconds
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        number = seed + rounds
        rounds += 1
        one = Round(number)

        def main(one: Round = one) -> None:
            one.main()
            rest = swapco.all_fibers() - {swapco.current_fiber()}
            assert not rest, rest
            # every permit is back
            for _ in range(one.permits):
                one.semaphore.acquire(timeout=0)
            with pytest.raises(TimeoutError):
                one.semaphore.acquire(timeout=0)
            assert swapco.current_fiber().scheduler.statistics()["timers"] <= 1

        try:
            swapco.run(main)
            one.check()
        except BaseException as error:
            error.add_note(f"the seed of this round: --seed={number}")
            raise


def test_trees_of_fibers(seed: int, stress_seconds: float) -> None:
    """Spawn and join, cancelled at random: each subtree ends before its root."""
    until = time.monotonic() + stress_seconds / 2
    dice = random.Random(seed)
    alive = 0

    def node(depth: int) -> int:
        nonlocal alive
        alive += 1
        try:
            with swapco.TaskGroup() as group:
                children = [group.spawn(node, depth - 1) for _ in range(dice.randint(0, 4) if depth else 0)]
                if children and dice.random() < 0.1:
                    dice.choice(children).cancel()
                swapco.sleep(dice.choice((0, 0, 0.0002)))
            return 1 + sum(child.join() for child in children if not child.cancelled())
        finally:
            alive -= 1

    def main() -> None:
        while True:
            tree = swapco.spawn(node, 5)
            if dice.random() < 0.3:
                swapco.sleep(dice.random() * 0.002)
                tree.cancel()
            swapco.wait([tree])
            assert tree.cancelled() or tree.join() >= 1
            assert alive == 0
            assert swapco.all_fibers() == {swapco.current_fiber()}
            if time.monotonic() > until:
                return

    swapco.run(main)
