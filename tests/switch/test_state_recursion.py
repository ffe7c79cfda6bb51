"""Depth belongs to the stack: the recursion limit, the memory of Python frames, and calls of C code.

A fiber's Python frames are counted from zero, whatever the depth of ``run()`` and of everybody else.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import run_program
from state_support import CROWD, callers, crowd, neighbours, pausing

import swapco

pytestmark = pytest.mark.usefixtures("fibers")


@pytest.fixture(autouse=True)
def the_limit_is_put_back() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


def dive(depth: int, bottom: Callable[[], object] = int) -> int:
    """``depth`` frames down, something, and up again."""
    if depth:
        return 1 + dive(depth - 1, bottom)
    bottom()
    return 0


def deepest() -> int:
    """How many frames fit before RecursionError."""
    reached = 0

    def down(depth: int) -> None:
        nonlocal reached
        reached = depth
        down(depth + 1)

    try:
        down(1)
    except RecursionError:
        return reached
    raise AssertionError("no limit")


def at_depth(depth: int, call: Callable[[], Any]) -> Any:
    return at_depth(depth - 1, call) if depth else call()


# ------------------------------------------------------------------------------------------------- the limit


def test_a_recursion_error_comes_at_the_same_depth_in_every_fiber(switch: str) -> None:
    """Again and again, and whatever others do; each fiber goes on afterwards."""

    def body(n: int) -> list[int]:
        depths = []
        for _ in range(3):
            depths.append(deepest())
            pause()
        return depths

    pause = pausing()
    found = {depth for depths in crowd(body, switch) for depth in depths}
    assert len(found) == 1, found
    assert sys.getrecursionlimit() - 10 < found.pop() < sys.getrecursionlimit()


def test_the_depth_of_run_does_not_count(switch: str) -> None:
    """From the top, and 700 frames down."""
    main = functools.partial(swapco.run, lambda: [swapco.spawn(deepest).join(), deepest()], switch=switch)
    assert at_depth(0, main) == at_depth(300, main) == at_depth(700, main)


def test_the_depth_of_the_spawner_does_not_count(switch: str) -> None:
    """Nor that of whoever resumes; nor how many fibers have run on the stack before."""

    def body() -> int:
        swapco.block()
        return deepest()

    def main() -> None:
        with neighbours():
            fibers = [at_depth(k * 80, lambda: swapco.spawn(body)) for k in range(10)]
            at_depth(500, lambda: swapco.sleep(0))
            for k, fiber in enumerate(fibers):
                at_depth(900 - k * 80, functools.partial(swapco.resume, fiber))
            depths = {fiber.join() for fiber in fibers}
            assert len(depths) == 1
            for _ in range(3):
                depths |= {fiber.join() for fiber in [swapco.spawn(lambda: deepest()) for _ in range(30)]}
            assert len(depths) == 1, depths

    swapco.run(main, switch=switch)


def test_both_kinds_of_stack_have_the_same_depth() -> None:
    """The limit means the same with either."""

    def main() -> list[int]:
        return [deepest(), swapco.spawn(deepest).join()]

    assert swapco.run(main, switch="native") == swapco.run(main, switch="greenlet")


def test_the_hubs_depth_is_what_it_was(switch: str) -> None:
    """After fibers have run deep, failed with RecursionError, and been cancelled down there."""

    def fails() -> None:
        with pytest.raises(RecursionError):
            dive(10_000)
        swapco.sleep(0)

    def main() -> None:
        with neighbours():
            parked = [swapco.spawn(dive, 500, swapco.block) for _ in range(5)]
            swapco.wait([swapco.spawn(fails) for _ in range(5)])
            for fiber in parked:
                fiber.cancel()
            swapco.wait(parked)

    before = deepest()
    for _ in range(3):
        swapco.run(main, switch=switch)
        assert deepest() == before


def test_the_limit_changes_while_fibers_are_parked(switch: str) -> None:
    """The depth is theirs, the limit everybody's: raised, they go deeper, lowered, less deep."""
    limit = sys.getrecursionlimit()
    gate = swapco.Event()

    def body(depth: int) -> list[int]:
        def bottom() -> list[int]:
            gate.wait()
            first = deepest()
            swapco.sleep(0)
            while sys.getrecursionlimit() != limit + 1500:
                swapco.sleep(0)
            return [first, deepest()]

        return at_depth(depth, bottom)  # type: ignore[no-any-return]

    def main() -> list[list[int]]:
        with neighbours():
            fibers = [swapco.spawn(body, depth) for depth in (0, 50, 100)]
            swapco.sleep(0)
            sys.setrecursionlimit(limit - 300)
            gate.set()
            swapco.sleep(0)
            swapco.sleep(0)
            sys.setrecursionlimit(limit + 1500)
            # raised here, a fiber that starts now has it all
            found = [fiber.join() for fiber in fibers]
            found.append([swapco.spawn(deepest).join()])
            sys.setrecursionlimit(limit)
            return found

    *found, (fresh,) = swapco.run(main, switch=switch)
    assert limit + 1500 - 10 < fresh < limit + 1500
    # each is as much less deep as it was down already
    for depth, (lowered, raised) in zip((0, 50, 100), found, strict=True):
        assert raised - lowered == 1800
        assert found[0][0] - lowered == depth


if sys.version_info >= (3, 12):

    def test_the_limit_cannot_be_lowered_below_the_depth_of_who_asks(switch: str) -> None:
        """It may be below the depth of a parked fiber: that one cannot go deeper, but returns.

        (With CPython 3.11 a call more than 50 frames beyond the limit ends the process, in threads, too.)
        """

        def deep() -> str:
            def bottom() -> str:
                swapco.block()
                try:
                    dive(1)
                except RecursionError:
                    return "too deep"
                return "went on"

            return at_depth(500, bottom)  # type: ignore[no-any-return]

        def main() -> None:
            limit = sys.getrecursionlimit()
            with neighbours():
                fiber = swapco.spawn(deep)
                swapco.sleep(0)
                with pytest.raises(RecursionError, match="recursion limit"):
                    at_depth(300, lambda: sys.setrecursionlimit(200))
                sys.setrecursionlimit(300)
                swapco.resume(fiber)
                swapco.sleep(0)
                sys.setrecursionlimit(limit)
                assert fiber.join() == "too deep"

        swapco.run(main, switch=switch)


def test_a_fiber_waits_inside_the_handler_of_a_recursion_error(switch: str) -> None:
    """Near the limit, where CPython gives some frames more: that is this fiber's, too."""

    def down(depth: int) -> int:
        try:
            return down(depth + 1)
        except RecursionError:
            if depth > sys.getrecursionlimit() - 100:
                raise
            swapco.sleep(0)
            return depth

    def body(n: int) -> int:
        found = {down(1) for _ in range(3)}
        assert len(found) == 1
        pause()
        return found.pop()

    pause = pausing()
    assert len(set(crowd(body, switch))) == 1


def test_infinite_recursion_through_c_code_is_an_error(switch: str) -> None:
    """__repr__, comparison, json, isinstance, attribute access: RecursionError, and the fiber goes on."""
    ended = run_program(
        """
        import functools, json, swapco
        class Deep:
            def __repr__(self):
                return repr([Deep()])
            def __eq__(self, other):
                return [Deep()] == [Deep()]
            def __getattr__(self, name):
                return getattr(self, name + "x")
            def __call__(self):
                return functools.partial(Deep())()
            __hash__ = None
        nested = []
        for _ in range(100_000):
            nested = [nested]
        kinds = functools.reduce(lambda inner, _: (inner,), range(100_000), ())
        calls = [lambda: repr(Deep()), lambda: Deep() == Deep(), lambda: Deep().x, lambda: Deep()(),
                 lambda: json.dumps(nested), lambda: json.loads("[" * 100_000), lambda: repr(nested),
                 lambda: nested == [nested], lambda: isinstance(1, kinds)]
        def body(n):
            errors = 0
            for call in calls[n:] + calls[:n]:
                try:
                    call()
                except RecursionError:
                    errors += 1
                swapco.sleep(0)
            return errors
        def main():
            return [fiber.join() for fiber in [swapco.spawn(body, n) for n in range(len(calls))]]
        print(set(swapco.run(main)) <= {8, 9})
        """,
        timeout_s=60,
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


# ------------------------------------------------------------------------------------------ the memory of frames


def with_locals(count: int) -> Callable[[int, Callable[[], object]], int]:
    """A function with ``count`` local variables, which calls itself and waits at the bottom."""
    lines = ["def big(depth, wait):"]
    lines += [f"    v{k} = depth" for k in range(count)]
    lines += ["    below = big(depth - 1, wait) if depth else wait() or 0", f"    return below + v{count - 1} + v0"]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    return names["big"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("count", [1, 20, 100, 2000, 5000])
def test_frames_of_any_size_cross_the_memory_that_a_stack_starts_with(switch: str, count: int) -> None:
    """150 deep, with a wait at the bottom, in many fibers at the same time, again and again."""
    big = with_locals(count)
    depth = 150

    def body(n: int) -> list[int]:
        return [big(depth - n - k, pause) for k in range(4)]

    pause = pausing()
    crowded = CROWD if count < 1000 else 3
    expected = [[(d := depth - n - k) * (d + 1) for k in range(4)] for n in range(crowded)]
    assert crowd(body, switch, crowded) == expected


def test_the_border_of_a_chunk_is_crossed_in_every_step(switch: str) -> None:
    """Down by one frame each time, with a switch there and on the way back: no depth is special."""

    def body(n: int) -> int:
        total = 0
        for depth in range(n, 200, 7):
            total += dive(depth, pause)
            pause()
        return total

    pause = pausing()
    assert crowd(body, switch) == [sum(range(n, 200, 7)) for n in range(CROWD)]


def test_arguments_and_temporaries_in_many_chunks(switch: str) -> None:
    """Wide calls, star arguments and generators among them."""

    def wide(depth: int, *values: int, **named: int) -> int:
        pause() if depth % 16 == 0 else None
        if depth:
            return wide(depth - 1, *values, **named) + sum(values)
        return sum(value for value in values) + sum(named.values())

    def body(n: int) -> int:
        return wide(64, *range(n * 10), a=1, b=2)

    pause = pausing()
    assert crowd(body, switch) == [65 * sum(range(n * 10)) + 3 for n in range(CROWD)]


def test_deep_stacks_are_parked_in_great_number(switch: str) -> None:
    """Hundreds of fibers, each at a depth of its own; resumed in another order than they were parked in."""

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(dive, n % 97 * 5, swapco.block) for n in range(300)]
            swapco.sleep(0)
            for fiber in fibers[::3] + fibers[2::3] + fibers[1::3]:
                assert callers(fiber.frame).count("dive") >= 1
                swapco.resume(fiber)
            assert [fiber.join() for fiber in fibers] == [n % 97 * 5 for n in range(300)]

    swapco.run(main, switch=switch)


def test_generators_at_the_end_of_the_stack(switch: str) -> None:
    """Their frames lie elsewhere: suspended here and continued deep down, and the other way round."""

    def numbers() -> Iterator[int]:
        for k in range(200):
            pause()
            yield k

    def body(n: int) -> int:
        source = numbers()
        total = 0
        for depth in [0, 150, 3, 80, 80, 0, 199] * 3:
            total += at_depth(depth, lambda: next(source))
        return total

    pause = pausing()
    assert crowd(body, switch) == [sum(range(21))] * CROWD


def test_json_and_sorting_with_waits_deep_down(switch: str) -> None:
    """C code between Python frames, with the fiber parked below it."""

    class Encoder(json.JSONEncoder):
        def default(self, value: object) -> object:
            pause()
            return ["waited"]

    def body(n: int) -> str:
        value: object = object()
        for _ in range(50):
            value = [value]
        pairs = sorted(range(n + 3), key=lambda k: (pause(), -k))
        return json.dumps([pairs, value], cls=Encoder)

    pause = pausing()
    expected = "[" * 50 + '["waited"]' + "]" * 50
    for n, text in enumerate(crowd(body, switch)):
        assert text == f"[{list(range(n + 2, -1, -1))}, {expected}]"
