"""Frames of parked fibers: they can be read, kept and collected around, and stay what they are."""

from __future__ import annotations

import ast
import gc
import inspect
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from types import FrameType
from typing import Any

import pytest
from state_support import CROWD, callers, crowd, neighbours, pausing

import swapco

pytestmark = pytest.mark.usefixtures("fibers")


class Thing:
    """Can be weakly referenced."""

    me: Any = None


def leaf(z: int, wait: Callable[[], object]) -> int:
    q = z * 2
    wait()
    return q


def middle(z: int, wait: Callable[[], object]) -> int:
    here = [z]
    return leaf(z + 1, wait) + len(here)


def outer(z: int, wait: Callable[[], object]) -> int:
    return middle(z, wait)


@pytest.fixture(params=["parked by block", "parked by sleep(0)", "parked in the hub's timer"])
def park(request: pytest.FixtureRequest) -> tuple[Callable[[], object], Callable[[swapco.Fiber[Any]], object]]:
    """How a fiber waits, and how it is continued."""
    if request.param == "parked by block":
        return swapco.block, swapco.resume
    if request.param == "parked by sleep(0)":
        return lambda: swapco.sleep(0), lambda fiber: None
    return lambda: swapco.sleep(0.0001), lambda fiber: None


# ------------------------------------------------------------------------------------------------- Fiber.frame


def test_the_frame_of_a_parked_fiber(switch: str, park: Any) -> None:
    """Innermost first, with locals, line numbers, and an end; the same again after each switch."""
    wait, go_on = park

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(outer, n, wait) for n in range(CROWD)]
            assert [fiber.frame for fiber in fibers] == [None] * CROWD
            swapco.sleep(0)
            for n, fiber in enumerate(fibers):
                frame = fiber.frame
                if frame is not None and frame.f_code.co_name == "<lambda>":
                    frame = frame.f_back
                assert frame is not None
                assert frame.f_code is leaf.__code__
                assert frame.f_lineno == leaf.__code__.co_firstlineno + 2
                assert frame.f_locals == {"z": n + 1, "q": 2 * n + 2, "wait": wait}
                assert frame.f_back is not None
                assert frame.f_back.f_locals["here"] == [n]
                assert callers(frame) == ["leaf", "middle", "outer"]
                assert frame.f_builtins is frame.f_back.f_builtins
                assert fiber.frame is not None
                del frame
                go_on(fiber)
            assert [fiber.join() for fiber in fibers] == [2 * n + 3 for n in range(CROWD)]
            assert [fiber.frame for fiber in fibers] == [None] * CROWD

    swapco.run(main, switch=switch)


def test_the_running_fiber_has_no_parked_frame(switch: str) -> None:
    """Nor has one that has not started, or is done."""

    def body() -> object:
        return swapco.current_fiber().frame

    def main() -> None:
        fiber = swapco.spawn(body)
        assert fiber.frame is None
        assert fiber.join() is None
        assert fiber.frame is None
        assert swapco.current_fiber().frame is None

    swapco.run(main, switch=switch)


def test_frames_are_the_same_object_each_time(switch: str) -> None:
    """Also the one that the fiber itself sees when it runs again."""
    own: list[FrameType] = []

    def body() -> None:
        own.append(sys._getframe())
        swapco.block()
        own.append(sys._getframe())

    def main() -> None:
        with neighbours():
            fiber = swapco.spawn(body)
            swapco.sleep(0)
            first = fiber.frame
            swapco.sleep(0.0001)
            assert fiber.frame is first
            swapco.resume(fiber)
            fiber.join()
            assert own == [first, first]

    swapco.run(main, switch=switch)


def test_a_parked_frame_cannot_be_cleared(switch: str) -> None:
    """It is executing: RuntimeError, for each frame of the stack; and afterwards it can."""

    def main() -> None:
        with neighbours():
            fiber = swapco.spawn(outer, 1, swapco.block)
            swapco.sleep(0)
            frame = fiber.frame
            frames = []
            while frame is not None:
                frames.append(frame)
                with pytest.raises(RuntimeError, match="cannot clear an executing frame"):
                    frame.clear()
                frame = frame.f_back
            with pytest.raises(RuntimeError, match="cannot clear an executing frame"):
                traceback.clear_frames(fake_traceback(frames[0]))
                frames[0].clear()
            swapco.resume(fiber)
            assert fiber.join() == 5
            for frame in frames:
                frame.clear()
                assert frame.f_locals == {}

    def fake_traceback(frame: FrameType) -> Any:
        return type(traceback_of_here())(None, frame, 0, frame.f_lineno)

    def traceback_of_here() -> Any:
        try:
            raise KeyError
        except KeyError as error:
            return error.__traceback__

    swapco.run(main, switch=switch)


def test_frames_taken_while_parked_outlive_the_fiber(switch: str) -> None:
    """Locals as they were in the end, and the callers' frames: with its stack gone, or used by others."""
    kept: list[FrameType] = []

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(outer, n, swapco.block) for n in range(CROWD)]
            swapco.sleep(0)
            for fiber in fibers:
                assert fiber.frame is not None
                kept.append(fiber.frame)
            for fiber in fibers:
                swapco.resume(fiber)
            for fiber in fibers:
                fiber.join()
            swapco.wait([swapco.spawn(outer, 100, lambda: swapco.sleep(0)) for _ in range(2 * CROWD)])
            check()

    def check() -> None:
        gc.collect()
        for n, frame in enumerate(kept):
            assert frame.f_locals["q"] == 2 * n + 2
            assert callers(frame) in (["leaf"], ["leaf", "middle"], ["leaf", "middle", "outer"])

    swapco.run(main, switch=switch)
    check()
    for frame in kept:
        frame.clear()


def test_frames_are_read_and_written_from_another_fiber(switch: str) -> None:
    """f_locals of a parked frame, f_trace, f_lineno refused; and eval among them."""

    def main() -> None:
        with neighbours():
            fiber = swapco.spawn(outer, 4, swapco.block)
            swapco.sleep(0)
            frame = fiber.frame
            assert frame is not None
            assert eval("q + z", frame.f_globals, dict(frame.f_locals)) == 15
            with pytest.raises(ValueError):
                frame.f_lineno = frame.f_lineno + 1  # type: ignore[misc]
            assert repr(frame).endswith(f"line {frame.f_lineno}, code leaf>")
            if sys.version_info >= (3, 13):
                frame.f_locals["q"] = 1000
            assert sys.getsizeof(frame) > 0
            del frame
            swapco.resume(fiber)
            assert fiber.join() == (1001 if sys.version_info >= (3, 13) else 11)

    swapco.run(main, switch=switch)


def test_inspect_and_traceback_walk_parked_stacks(switch: str) -> None:
    """getouterframes, extract_stack, format_stack, walk_stack, getframeinfo."""

    def main() -> None:
        with neighbours() as parked:
            fibers = [swapco.spawn(outer, n, swapco.block) for n in range(3)]
            swapco.sleep(0)
            for fiber in fibers:
                frame = fiber.frame
                assert frame is not None
                infos = inspect.getouterframes(frame)
                assert [info.function for info in infos] == ["leaf", "middle", "outer"]
                assert [ast.parse((info.code_context or [""])[0].strip()) is not None for info in infos[:1]]
                assert inspect.getframeinfo(frame).lineno == frame.f_lineno
                assert [entry.name for entry in traceback.extract_stack(frame)] == ["outer", "middle", "leaf"]
                assert "in leaf" in "".join(traceback.format_stack(frame))
                assert [entry.f_code.co_name for entry, _ in traceback.walk_stack(frame)] == ["leaf", "middle", "outer"]
                assert inspect.getargvalues(frame).locals["q"] == 2 * (frame.f_locals["z"])
                swapco.resume(fiber)
            for neighbour in parked:
                assert neighbour.frame is not None
                assert len(inspect.getouterframes(neighbour.frame)) >= 1
            swapco.wait(fibers)

    swapco.run(main, switch=switch)


def test_the_innermost_frame_may_be_that_of_a_generator_or_below_c_code(switch: str) -> None:
    """sorted's key, a generator in a for loop, a comprehension, __del__, __eq__ of a dict lookup."""

    class Key:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            swapco.block()
            return True

        def __del__(self) -> None:
            swapco.block()

    def numbers() -> Iterator[int]:
        yield 1
        swapco.block()

    def key(n: int) -> int:
        swapco.block()
        return n

    def by_key() -> object:
        return sorted([1], key=key)

    def by_generator() -> object:
        return list(numbers())

    def by_lookup() -> object:
        return {Key(): 1}.get(Key())

    def by_callback() -> object:
        return list(map(key, filter(None, (n for n in [1]))))

    expected = {
        by_key: ["key", "by_key"],
        by_generator: ["numbers", "by_generator"],
        by_lookup: ["__eq__", "by_lookup"],
        by_callback: ["key", "by_callback"],
    }

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(call) for call in expected]
            swapco.sleep(0)
            assert [callers(fiber.frame) for fiber in fibers] == list(expected.values())
            while not all(fiber.done() for fiber in fibers):
                for fiber in fibers:
                    swapco.resume(fiber)
                swapco.sleep(0)
            assert [fiber.join() for fiber in fibers] == [[1], [1], 1, [1]]

    swapco.run(main, switch=switch)


# ---------------------------------------------------------------------------------------- sys._current_frames


@pytest.fixture
def no_collections() -> Iterator[None]:
    """CPython before 3.11.9 may wait for itself when a collection begins inside sys._current_frames(): issue 106883."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
def test_current_frames_shows_the_running_fiber(switch: str) -> None:
    """From inside, and from another thread while fibers switch: a stack of one fiber, or the hub's."""

    def look() -> list[str]:
        return callers(sys._current_frames()[threading.get_ident()])

    def body(n: int) -> None:
        for _ in range(20):
            assert look() == ["look", "body"]
            pause()

    def watches() -> None:
        while not stop.is_set():
            frame = sys._current_frames().get(main_thread)
            names = callers(frame)
            del frame
            if "body" in names:
                seen.append(names[names.index("body") :])

    main_thread = threading.get_ident()
    seen: list[list[str]] = []
    stop = threading.Event()
    watcher = threading.Thread(target=watches)
    pause = pausing()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    watcher.start()
    try:
        for _ in range(5):
            crowd(body, switch)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        watcher.join()
    assert all(names == ["body"] for names in seen), seen[:5]


@pytest.mark.usefixtures("no_collections")
def test_current_exceptions_shows_what_the_running_fiber_handles(switch: str) -> None:
    def current() -> object:
        found = sys._current_exceptions()[threading.get_ident()]
        # CPython 3.11 gives (type, value, traceback)
        return found[1] if isinstance(found, tuple) else found

    def body(n: int) -> None:
        for _ in range(5):
            assert current() is None
            try:
                raise KeyError(n)
            except KeyError as error:
                pause()
                assert current() is error
            pause()

    pause = pausing()
    crowd(body, switch)


# ------------------------------------------------------------------------------------------ garbage collection


def test_what_only_a_parked_frame_holds_survives_collections(switch: str) -> None:
    """Locals, cycles, temporaries on the evaluation stack, exceptions being handled, generators."""
    freed: list[int] = []

    class Freed(Thing):
        def __init__(self, n: int) -> None:
            self.n = n

        def __del__(self) -> None:
            freed.append(self.n)

    def waits() -> list[int]:
        swapco.block()
        return []

    def generator(thing: Thing) -> Generator[Thing, None, None]:
        swapco.block()
        yield thing

    def body(n: int) -> int:
        cyclic = Freed(n)
        cyclic.me = cyclic
        held = {"things": [object() for _ in range(100)], "fiber": swapco.current_fiber()}
        total = [Freed(n).n, *waits()][0]
        try:
            raise KeyError(Freed(n))
        except KeyError as error:
            swapco.block()
            total += error.args[0].n
        total += sum(thing.n for thing in generator(Freed(n)))  # type: ignore[attr-defined]
        assert cyclic.me is cyclic
        assert len(held["things"]) == 100  # type: ignore[arg-type]
        cyclic.me = None
        return total

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(body, n) for n in range(CROWD)]
            for _ in range(3):
                swapco.sleep(0)
                before = list(freed)
                for _ in range(3):
                    gc.collect()
                    [Freed(-1) for _ in range(100)]
                    swapco.sleep(0)
                assert [n for n in freed if n >= 0] == [n for n in before if n >= 0]
                # frames that have objects are collected around, too
                frames = [fiber.frame for fiber in fibers]
                gc.collect()
                del frames
                gc.collect()
                for fiber in fibers:
                    swapco.resume(fiber)
            assert [fiber.join() for fiber in fibers] == [3 * n for n in range(CROWD)]
        gc.collect()
        assert sorted(n for n in freed if n >= 0) == [n for n in range(CROWD) for _ in range(4)]

    swapco.run(main, switch=switch)


def test_a_finished_fiber_and_what_it_held_can_be_collected(switch: str) -> None:
    """Nothing on its stack holds them: neither the pool nor the frames' memory."""

    def body(thing: Thing) -> None:
        thing.me = [thing, swapco.current_fiber()]
        swapco.sleep(0)

    def main() -> None:
        with neighbours():
            things = [Thing() for _ in range(CROWD)]
            fibers = [swapco.spawn(body, thing) for thing in things]
            swapco.wait(fibers)
            watched = [weakref.ref(thing) for thing in things] + [weakref.ref(fiber) for fiber in fibers]
            del things, fibers
            gc.collect()
            assert [watch() for watch in watched] == [None] * (2 * CROWD)

    swapco.run(main, switch=switch)


def test_asking_the_collector_about_parked_frames(switch: str) -> None:
    """get_referrers, get_referents, get_objects: no crash; frames that are no longer parked own their locals."""

    def holds(held: Thing) -> None:
        swapco.block()

    def main() -> None:
        with neighbours():
            thing = Thing()
            fibers = [swapco.spawn(holds, thing) for _ in range(5)]
            swapco.sleep(0)
            frames = [fiber.frame for fiber in fibers]
            gc.get_referrers(thing)
            gc.get_referents(*frames, *fibers)
            gc.get_referrers(*frames, *fibers)
            for one in gc.get_objects():
                if isinstance(one, FrameType):
                    callers(one)
                    one.f_lineno
            del one
            for fiber in fibers:
                swapco.resume(fiber)
            swapco.wait(fibers)
            assert all(thing in gc.get_referents(frame) for frame in frames)
            assert {id(frame) for frame in frames} <= {id(referrer) for referrer in gc.get_referrers(thing)}

    swapco.run(main, switch=switch)


def test_collections_of_every_generation_while_fibers_switch(switch: str) -> None:
    """With a threshold of one, so that nearly every allocation collects; frozen and unfrozen in between."""

    def body(n: int) -> int:
        total = 0
        for k in range(10):
            cycle: list[object] = [n, k]
            cycle.append(cycle)
            frame = sys._getframe()
            pause()
            total += len([frame, cycle])
            if k % 4 == n % 4:
                swapco.current_fiber().get_loop()
                gc.collect(k % 3)
            if (n, k) == (3, 3):
                gc.freeze()
            if (n, k) == (4, 8):
                gc.unfreeze()
            del frame
        return total

    pause = pausing()
    before = gc.get_threshold()
    gc.set_threshold(1, 2, 2)
    try:
        assert crowd(body, switch) == [20] * CROWD
    finally:
        gc.set_threshold(*before)


def test_an_object_of_a_frame_that_is_made_while_a_collection_is_due(switch: str) -> None:
    """Fiber.frame of many parked fibers with a threshold of one: finalizers run in the frame that asks."""
    wrong: list[list[str]] = []

    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            names = callers(sys._getframe())
            if "leaf" in names or names[:1] != ["__del__"]:
                wrong.append(names)

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(outer, n, swapco.block) for n in range(100)]
            swapco.sleep(0)
            before = gc.get_threshold()
            gc.set_threshold(1, 1, 1)
            try:
                for fiber in fibers:
                    Cyclic()
                    frame = fiber.frame
                    assert callers(frame) == ["leaf", "middle", "outer"]
                    del frame
            finally:
                gc.set_threshold(*before)
            assert gc.isenabled()
            gc.collect()
            for fiber in fibers:
                swapco.resume(fiber)
            assert [fiber.join() for fiber in fibers] == [2 * n + 3 for n in range(100)]

    swapco.run(main, switch=switch)
    assert not wrong
