"""Finalizers: one that reference counting calls may wait, one that the garbage collector calls may not.

A collection keeps its lists on the C stack, and no other collection starts until it has ended: a finalizer that waited
inside would tear it in two.  So such a wait is refused, before anything has changed, and what follows goes on.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import run_program, wait_until

import swapco

pytestmark = pytest.mark.usefixtures("fibers")

REFUSED = "called by the garbage collector cannot wait"
WAITS: dict[str, Callable[[], object]] = {
    "sleep(0)": lambda: swapco.sleep(0),
    "sleep": lambda: swapco.sleep(0.0001),
    "block": swapco.block,
    "block with a timeout": lambda: swapco.block(0.0001),
    "switch_to": lambda: swapco.switch_to(swapco.spawn(int)),
    "join": lambda: swapco.spawn(int).join(),
    "a lock": lambda: swapco.Semaphore(0).acquire(),
    "a queue": lambda: swapco.Queue[int]().get(),
    "a future": lambda: swapco.await_(asyncio.get_running_loop().create_future()),
    "a coroutine": lambda: swapco.await_(asyncio.sleep(0.0001)),
    "wait": lambda: swapco.wait([swapco.spawn(int)]),
    "run_in_thread": lambda: swapco.await_(asyncio.get_running_loop().run_in_executor(None, int)),
}


class Finalized:
    """Calls something when it goes; ``me`` makes it a cycle, which only a collection finds."""

    me: Finalized

    def __init__(self, call: Callable[[], object], *, cyclic: bool = False) -> None:
        self.call = call
        if cyclic:
            self.me = self

    def __del__(self) -> None:
        self.call()


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What finalizers raised."""
    raised: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: raised.append(report.exc_value))
    return raised


@pytest.fixture(autouse=True)
def no_automatic_collection() -> Iterator[None]:
    """Collections come when the test says so."""
    gc.disable()
    yield
    gc.enable()


def outcome_of(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None


def cycle_with(thing: object) -> None:
    """Garbage that only the collector finds."""
    cycle = [thing]
    cycle.append(cycle)


def note_outcome(wait: Callable[[], object], found: list[BaseException | None]) -> None:
    found.append(outcome_of(wait))


def is_refused(error: BaseException | None) -> bool:
    return type(error) is RuntimeError and REFUSED in str(error)


# ------------------------------------------------------------------------------------------------- the refusal


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_no_wait_of_any_kind_in_a_finalizer_of_the_collector(switch: str, wait: Callable[[], object]) -> None:
    """The message names the reason; the fiber, and those that are parked meanwhile, go on and may wait."""
    found: list[BaseException | None] = []

    def neighbour(n: int) -> int:
        for _ in range(5):
            swapco.sleep(0)
        return n

    def body() -> None:
        Finalized(lambda: found.append(outcome_of(wait)), cyclic=True)
        gc.collect()
        swapco.sleep(0)
        swapco.sleep(0.0001)

    def main() -> None:
        neighbours = [swapco.spawn(neighbour, n) for n in range(10)]
        swapco.sleep(0)
        bodies = [swapco.spawn(body) for _ in range(3)]
        assert [fiber.join() for fiber in neighbours] == list(range(10))
        assert [fiber.join() for fiber in bodies] == [None] * 3
        # what the refused waits had started has nobody to wait for it, and ends
        swapco.sleep(0.001)

    swapco.run(main)
    assert len(found) == 3
    assert all(map(is_refused, found)), found


def test_the_refusal_names_ways_out_that_work(switch: str) -> None:
    """Spawning, putting into a queue, and resuming are no waits."""
    done: list[str] = []

    def spawned() -> None:
        swapco.sleep(0)
        done.append("spawned")

    def main() -> None:
        queue: swapco.Queue[str] = swapco.Queue()
        waiter = swapco.spawn(swapco.block)
        swapco.sleep(0)

        def finalizer() -> None:
            swapco.spawn(spawned)
            queue.put_nowait("queued")
            swapco.resume(waiter, "resumed")
            error = outcome_of(lambda: swapco.sleep(0))
            assert "spawn()" in str(error)
            assert "put_nowait()" in str(error)

        Finalized(finalizer, cyclic=True)
        gc.collect()
        done.append(queue.get())
        done.append(waiter.join())
        wait_until(lambda: len(done) == 3)

    swapco.run(main)
    assert sorted(done) == ["queued", "resumed", "spawned"]


def test_a_weakref_callback_of_the_collector(switch: str) -> None:
    found: list[BaseException | None] = []

    class Target:
        def __init__(self) -> None:
            self.me = self

    def main() -> None:
        target = Target()
        watch = weakref.ref(target, lambda _: found.append(outcome_of(lambda: swapco.sleep(0))))
        del target
        gc.collect()
        assert watch() is None

    swapco.run(main)
    assert is_refused(*found)


def test_a_weakref_finalize_of_the_collector(switch: str) -> None:
    found: list[BaseException | None] = []

    class Target:
        def __init__(self) -> None:
            self.me = self

    def main() -> None:
        weakref.finalize(Target(), lambda: found.append(outcome_of(lambda: swapco.sleep(0))))
        gc.collect()

    swapco.run(main)
    assert is_refused(*found)


@pytest.mark.parametrize("kind", ["generator", "coroutine"])
def test_a_finally_block_that_the_collector_runs(switch: str, kind: str) -> None:
    """Of a generator, or a coroutine, that nobody finished."""
    found: list[BaseException | None] = []

    def generator() -> Iterator[None]:
        try:
            yield
        finally:
            found.append(outcome_of(lambda: swapco.sleep(0)))

    class Once:
        def __await__(self) -> Iterator[None]:
            yield

    async def coroutine() -> None:
        try:
            await Once()
        finally:
            found.append(outcome_of(lambda: swapco.sleep(0)))

    def main() -> None:
        if kind == "generator":
            started = generator()
            next(started)
            cycle_with(started)
            del started
        else:
            begun = coroutine()
            begun.send(None)
            cycle_with(begun)
            del begun
        assert not found
        gc.collect()

    swapco.run(main)
    assert is_refused(*found)


def test_an_automatic_collection_is_one_too(switch: str) -> None:
    """Whatever allocates when the threshold is reached."""
    found: list[BaseException | None] = []

    def body() -> None:
        for _ in range(20):
            Finalized(lambda: found.append(outcome_of(lambda: swapco.sleep(0))), cyclic=True)
            swapco.sleep(0)
            [[] for _ in range(200)]
            swapco.sleep(0)

    def main() -> None:
        swapco.wait([swapco.spawn(body) for _ in range(5)])

    before = gc.get_threshold()
    gc.set_threshold(50, 3, 3)
    gc.enable()
    try:
        swapco.run(main)
    finally:
        gc.set_threshold(*before)
    gc.disable()
    inside = [error for error in found if error is not None]
    assert inside
    # the last ones may have been collected after their loop: no fiber runs then
    assert all(is_refused(error) or isinstance(error, swapco.NotInFiber) for error in inside), inside
    assert any(is_refused(error) for error in inside)


def test_what_a_finalizer_of_the_collector_drops_is_inside_as_well(switch: str) -> None:
    """Reference counting inside a collection: the collection is still under way."""
    found: list[tuple[str, BaseException | None]] = []

    def note(name: str) -> None:
        found.append((name, outcome_of(lambda: swapco.sleep(0))))

    class Holder:
        def __init__(self) -> None:
            self.me = self
            self.held: Finalized | None = Finalized(lambda: note("held"))

        def __del__(self) -> None:
            self.held = None
            note("holder")

    def main() -> None:
        Holder()
        gc.collect()
        note("after")

    swapco.run(main)
    (first, error1), (second, error2), (third, error3) = found
    assert [first, second, third] == ["held", "holder", "after"]
    assert is_refused(error1)
    assert is_refused(error2)
    assert error3 is None


# --------------------------------------------------------------------------------------- where the rule ends


def test_reference_counting_calls_finalizers_that_wait(switch: str) -> None:
    """``__del__``, a weakref callback, a generator's finally: in the fiber that drops the last reference."""
    log: list[tuple[str, str]] = []

    def waits(kind: str) -> None:
        before = swapco.current_fiber()
        swapco.sleep(0)
        swapco.sleep(0.0001)
        assert swapco.current_fiber() is before
        log.append((kind, before.name))

    class Plain:
        pass

    def generator() -> Iterator[None]:
        try:
            yield
        finally:
            waits("generator")

    def body() -> None:
        Finalized(lambda: waits("__del__"))
        target = Plain()
        watch = weakref.ref(target, lambda _: waits("weakref"))
        del target
        assert watch() is None
        started = generator()
        next(started)
        del started

    def main() -> None:
        swapco.wait([swapco.spawn(body, name=f"fiber {n}") for n in range(10)])

    swapco.run(main)
    assert sorted(log) == sorted(
        (kind, f"fiber {n}") for kind in ("__del__", "weakref", "generator") for n in range(10)
    )


def test_the_rule_ends_with_the_collection(switch: str) -> None:
    """Right after it, in the same fiber and in every other, and again after the next one."""
    found: list[bool] = []

    def body() -> int:
        for _ in range(10):
            Finalized(lambda: found.append(is_refused(outcome_of(lambda: swapco.sleep(0)))), cyclic=True)
            gc.collect(0)
            swapco.sleep(0)
            Finalized(lambda: swapco.sleep(0))
            swapco.sleep(0)
        return 1

    swapco.run(lambda: [fiber.join() for fiber in [swapco.spawn(body) for _ in range(10)]])
    assert found == [True] * 100


def test_a_collection_asked_for_inside_a_collection_changes_nothing(switch: str) -> None:
    """CPython ignores it: the outer one goes on, and so does the rule."""
    found: list[BaseException | None] = []

    def finalizer() -> None:
        gc.collect()
        found.append(outcome_of(lambda: swapco.sleep(0)))

    def main() -> None:
        Finalized(finalizer, cyclic=True)
        gc.collect()
        swapco.sleep(0)

    swapco.run(main)
    assert is_refused(*found)


def test_a_finalizer_that_raises_does_not_leave_the_rule_behind(
    switch: str, errors: list[BaseException | None]
) -> None:
    def main() -> None:
        Finalized(lambda: swapco.sleep(0), cyclic=True)
        Finalized(lambda: [].pop(), cyclic=True)
        gc.collect()
        swapco.sleep(0)

    swapco.run(main)
    assert sorted(type(error).__name__ for error in errors) == ["IndexError", "RuntimeError"]


def test_a_refused_wait_leaves_its_primitive_as_it_was(switch: str) -> None:
    """No place in the line, no permit lost, no timer: those who come later get what there is."""

    def main() -> None:
        lock = swapco.Lock()
        queue: swapco.Queue[int] = swapco.Queue()
        me = swapco.current_fiber()
        lock.acquire()
        found: list[BaseException | None] = []
        for wait in (lock.acquire, queue.get, lambda: swapco.block(3600), event.wait):
            Finalized(functools.partial(note_outcome, wait, found), cyclic=True)
        gc.collect()
        assert [is_refused(error) for error in found] == [True] * 4
        assert me.state == "RUNNING"
        takers = [swapco.spawn(queue.get), swapco.spawn(lambda: lock.acquire()), swapco.spawn(event.wait)]
        swapco.sleep(0)
        queue.put(5)
        lock.release()
        event.set()
        assert takers[0].join() == 5
        assert [taker.join(5) for taker in takers[1:]] == [True, True]
        assert me.scheduler.statistics()["timers"] == 0

    event = swapco.Event()
    swapco.run(main)


def test_a_cancellation_survives_a_refused_wait(switch: str) -> None:
    """It is delivered by the next wait that happens."""
    log: list[str] = []

    def body() -> None:
        me = swapco.current_fiber()
        Finalized(lambda: log.append(type(outcome_of(swapco.block)).__name__), cyclic=True)
        gc.collect()
        me.cancel()
        try:
            swapco.sleep(0)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    def main() -> None:
        fiber = swapco.spawn(body)
        swapco.wait([fiber])
        assert fiber.cancelled()

    swapco.run(main)
    assert log == ["RuntimeError", "cancelled"]


# ------------------------------------------------------------------------------------------- other threads


def test_a_collection_in_one_thread_lets_fibers_of_another_wait(switch: str) -> None:
    """The collecting thread is inside a finalizer all the while."""
    inside, finish = threading.Event(), threading.Event()
    found: list[BaseException | None] = []

    def finalizer() -> None:
        found.append(outcome_of(lambda: swapco.sleep(0)))
        inside.set()
        assert finish.wait(20)
        found.append(outcome_of(lambda: swapco.sleep(0)))

    def collects() -> None:
        Finalized(finalizer, cyclic=True)
        gc.collect()
        swapco.sleep(0)

    def body(n: int) -> int:
        for _ in range(20):
            swapco.sleep(0)
            Finalized(lambda: swapco.sleep(0))
        swapco.sleep(0.0001)
        return n

    def main() -> list[int]:
        return [fiber.join() for fiber in [swapco.spawn(body, n) for n in range(10)]]

    thread = threading.Thread(target=swapco.run, args=(collects,))
    thread.start()
    try:
        assert inside.wait(20)
        assert swapco.run(main) == list(range(10))
    finally:
        finish.set()
        thread.join()
    assert [is_refused(error) for error in found] == [True, True]


def test_a_collection_in_a_thread_without_fibers(switch: str) -> None:
    """Its finalizers are in no fiber, as ever; fibers elsewhere wait."""
    inside, finish = threading.Event(), threading.Event()
    found: list[BaseException | None] = []

    def finalizer() -> None:
        inside.set()
        assert finish.wait(20)
        found.append(outcome_of(lambda: swapco.sleep(0)))

    def collects() -> None:
        Finalized(finalizer, cyclic=True)
        gc.collect()

    thread = threading.Thread(target=collects)
    thread.start()
    try:
        assert inside.wait(20)
        swapco.run(lambda: swapco.gather(*[lambda: swapco.sleep(0.0001)] * 5))
    finally:
        finish.set()
        thread.join()
    assert isinstance(found[0], swapco.NotInFiber)


def test_a_collection_in_a_loop_callback(switch: str) -> None:
    """There is no fiber to wait: NotInFiber, as for every finalizer there."""
    found: list[BaseException | None] = []

    def callback() -> None:
        Finalized(lambda: found.append(outcome_of(lambda: swapco.sleep(0))), cyclic=True)
        gc.collect()

    def main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        swapco.sleep(0.001)

    swapco.run(main)
    assert isinstance(found[0], swapco.NotInFiber)


# ------------------------------------------------------------------------------------- gc.callbacks of the user


def test_callbacks_of_the_user_run_with_those_of_swapco(switch: str) -> None:
    """A callback that waits when a collection begins is refused as a finalizer is."""
    found: list[BaseException | None] = []

    def callback(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(outcome_of(lambda: swapco.sleep(0)))

    def main() -> None:
        gc.callbacks.append(callback)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(callback)
        swapco.sleep(0)

    swapco.run(main)
    assert is_refused(*found)


@pytest.mark.parametrize("moment", ["in a callback", "in a finalizer", "before"])
def test_clearing_the_callbacks_leaves_nothing_stuck(switch: str, moment: str) -> None:
    """Whoever clears gc.callbacks takes the check away, at worst; fibers must still be able to wait."""
    ended = run_program(
        f"""
        import gc, swapco
        class Finalized:
            def __init__(self):
                self.me = self
            def __del__(self):
                if {moment!r} == "in a finalizer":
                    gc.callbacks.clear()
        def callback(phase, info):
            if phase == "start":
                gc.callbacks.clear()
        def body(n):
            for _ in range(3):
                swapco.sleep(0)
            return n
        def main():
            if {moment!r} == "in a callback":
                gc.callbacks.append(callback)
            if {moment!r} == "before":
                gc.callbacks.clear()
            Finalized()
            gc.collect()
            assert not gc.callbacks
            swapco.sleep(0)
            return [fiber.join() for fiber in [swapco.spawn(body, n) for n in range(3)]]
        print(swapco.run(main))
        """
    )
    assert ended.stdout == "[0, 1, 2]\n", ended.stderr
    assert ended.returncode == 0, ended.stderr


# ------------------------------------------------------------------------------ chains that reference counting frees


@pytest.mark.parametrize("shape", ["lists", "tuples", "dicts", "objects"])
def test_long_chains_are_freed_with_finalizers_that_wait(switch: str, shape: str) -> None:
    """Dozens of the thousands of nested objects wait when they go; several fibers free theirs at the same time.

    CPython puts off what is nested too deep, in a list that is one for the thread: so whoever frees something next may
    be the one who calls the finalizer, and that may be no fiber.  Each is called once, and waits or is told.
    """
    freed: list[tuple[int, int]] = []
    outcomes: list[BaseException | None] = []

    class Node:
        inner: object

    def finalizer(n: int, k: int) -> None:
        freed.append((n, k))
        outcomes.append(outcome_of(lambda: swapco.sleep(0)))

    def chain(depth: int, n: int) -> object:
        inner: object = None
        for k in range(depth):
            last = Finalized(functools.partial(finalizer, n, k)) if k % 100 == 0 else None
            if shape == "lists":
                inner = [last, inner]
            elif shape == "tuples":
                inner = (last, inner)
            elif shape == "dicts":
                inner = {"last": last, "inner": inner}
            else:
                node = Node()
                node.inner = (last, inner)
                inner = node
        return inner

    def body(n: int) -> int:
        held = [chain(5000, n)]
        swapco.sleep(0)
        held.clear()
        swapco.sleep(0)
        return n

    def main() -> None:
        assert [fiber.join() for fiber in [swapco.spawn(body, n) for n in range(6)]] == list(range(6))
        wait_until(lambda: len(outcomes) == 300)

    swapco.run(main)
    assert sorted(freed) == [(n, k) for n in range(6) for k in range(0, 5000, 100)]
    assert all(error is None or isinstance(error, swapco.NotInFiber) for error in outcomes), outcomes
    assert None in outcomes


def test_deep_chains_without_waits_while_others_are_parked_inside_theirs(switch: str) -> None:
    """A fiber that waits in the middle of a deallocation does not hold up, or nest, those of others."""
    gate = swapco.Event()
    ended: list[str] = []

    def parked() -> None:
        held: list[Any] = [Finalized(lambda: (gate.wait(), ended.append("parked")))]
        for _ in range(30):
            held = [held]
        del held

    def free() -> None:
        held: list[Any] | None = [Finalized(lambda: ended.append("free"))]
        for _ in range(100_000):
            held = [held]
        del held
        ended.append("freed")

    def main() -> None:
        fibers = [swapco.spawn(parked) for _ in range(5)]
        swapco.sleep(0)
        swapco.wait([swapco.spawn(free) for _ in range(3)])
        assert sorted(ended) == ["free"] * 3 + ["freed"] * 3
        gate.set()
        swapco.wait(fibers)

    swapco.run(main)
    assert sorted(ended) == ["free"] * 3 + ["freed"] * 3 + ["parked"] * 5
