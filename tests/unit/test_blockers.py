"""The history of ``to_thread``: callables that keep blocking are handed off at once, until they do not block any more.

It belongs to the code behind a callable, is bounded, holds nothing alive, and asks a callable nothing.
"""

from __future__ import annotations

import functools
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from helpers import SOON_S, wait_until
from thread_support import Held, quiet, statistics, thread, until_blocked, until_detached

import swapco
from swapco.lowlevel import Slot
from swapco.threads import forget_blockers, known_blockers

pytestmark = pytest.mark.usefixtures("fibers", "no_history")


@pytest.fixture
def no_history() -> Iterator[None]:
    forget_blockers()
    yield
    forget_blockers()


LockType: Any = type(threading.Lock())


# --------------------------------------------------------------------------------------------- history


def blocks(fast: bool = False) -> None:
    """Blocks until that was noticed, however busy the machine is, and for longer than a tick."""
    if not fast:
        me = swapco.current_fiber()
        while me.state != "DETACHED":
            time.sleep(0.005)
        time.sleep(0.03)


def scores() -> dict[Any, int]:
    return dict(known_blockers())


def handed_off_at_once(call: Callable[[], Any]) -> bool:
    """Was it without the slot from the start?  Nobody had to take it away then."""
    before = statistics()
    swapco.to_thread(call)
    after = statistics()
    return bool(
        after["detaches"] > before["detaches"] and after["revoked_by_monitor"] == before["revoked_by_monitor"]
    )


def teach(call: Callable[[], Any], score: int) -> None:
    """Make calls that block until the score of what they call is this one, the only one there is."""
    for _ in range(50):
        assert not handed_off_at_once(call)
        # a machine that is busy may notice a call too late
        if list(scores().values()) == [score]:
            return
    raise AssertionError(f"{call} has never got the score {score}: {scores()}")


def with_tick(tick: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run a test as the main fiber of a loop with this tick; a call that takes longer counts as one that blocks."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            swapco.run(functools.partial(test, *args, **kwargs), slot=Slot(tick=tick))

        return run

    return decorate


@with_tick(0.02)
def test_who_has_blocked_twice_is_handed_off_at_once_and_forgets_it_when_it_does_not() -> None:
    assert known_blockers() == []
    assert not handed_off_at_once(blocks)
    assert scores() == {blocks.__code__: 1}
    assert not handed_off_at_once(blocks)
    assert scores() == {blocks.__code__: 2}
    for _ in range(4):
        assert handed_off_at_once(blocks)
    # it does not grow for ever
    assert scores() == {blocks.__code__: 4}
    for _ in range(200):
        # a call that a busy machine makes slow counts as one that blocks
        swapco.to_thread(blocks, fast=True)
        if blocks.__code__ not in scores():
            break
    assert known_blockers() == []
    assert not handed_off_at_once(blocks)


@with_tick(0.5)
def test_who_does_not_block_has_no_history() -> None:
    for _ in range(5):
        assert not handed_off_at_once(functools.partial(blocks, True))
    assert known_blockers() == []


class Client:
    def request(self) -> None:
        blocks()

    @classmethod
    def of_class(cls) -> None:
        blocks()

    @staticmethod
    def static() -> None:
        blocks()

    def __call__(self) -> None:
        blocks()


def wrapped(*ignored: Any) -> None:
    blocks()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: Client().request, lambda: Client().request),
        (lambda: Client().of_class, lambda: Client.of_class),
        (lambda: Client().static, lambda: Client.static),
        (Client, Client),
        (lambda: functools.partial(wrapped, 1), lambda: functools.partial(functools.partial(wrapped, 2), 3)),
        (lambda: functools.partial(Client().request), lambda: Client().request),
        (lambda: functools.partial(time.sleep, 0.1), lambda: functools.partial(time.sleep, 0.1)),
        (lambda: functools.partial(threading.Event().wait, 0.1), None),
        (lambda: functools.partial(locked().acquire, True, 0.1), None),
        (lambda: lambda: wrapped(1), None),
        (lambda: decorated(wrapped), None),
        (
            lambda: functools.partial(LockType.acquire, locked(), True, 0.1),
            lambda: functools.partial(locked().acquire, True, 0.1),
        ),
        (lambda: Cached().request, lambda: functools.partial(Cached.request, Cached())),
    ],
    ids=[
        "method",
        "classmethod",
        "static",
        "object",
        "partial",
        "partial method",
        "builtin",
        "method of another object",
        "builtin method of another object",
        "lambda",
        "decorated anew",
        "method descriptor",
        "cached method",
    ],
)
@with_tick(0.02)
def test_the_history_belongs_to_the_code(first: Callable[[], Any], second: Callable[[], Any] | None) -> None:
    """Bound methods are made anew at each access, partials at each call: they count as what they wrap."""
    teach(first(), 1)
    teach((second or first)(), 2)
    assert handed_off_at_once(first())


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        return fn(*args)

    return call


class Cached:
    @functools.lru_cache(maxsize=0)  # noqa: B019 - nothing is kept
    def request(self) -> None:
        blocks()


def locked() -> Any:
    lock = threading.Lock()
    lock.acquire()
    return lock


@with_tick(0.02)
def test_other_code_has_another_history() -> None:
    for _ in range(2):
        swapco.to_thread(blocks)
    assert not handed_off_at_once(wrapped)
    assert not handed_off_at_once(Client().request)
    assert sorted(scores().values()) == [1, 1, 2]
    forget_blockers()
    assert known_blockers() == []
    assert not handed_off_at_once(blocks)


@with_tick(0.02)
def test_a_caller_that_left_has_learned_that_it_blocks() -> None:
    for n in range(2):
        held = Held()
        caller = swapco.spawn(swapco.to_thread, held)
        wait_until(lambda held=held: held.inside)
        until_detached(*[fiber for fiber in swapco.all_fibers() if fiber.function is held])
        caller.cancel()
        with pytest.raises(swapco.CancelledError):
            caller.join()
        assert scores() == {Held: n + 1}
        held.let_go()
        wait_until(lambda: len(swapco.all_fibers()) == 1)


def gives_up_its_turn(gate: threading.Event) -> None:
    with swapco.blocking():
        assert gate.wait(SOON_S)


@pytest.mark.parametrize("soon", [True, False], ids=["soon", "late"])
@with_tick(0.3)
def test_a_caller_that_left_soon_after_the_call_gave_up_its_turn_has_learned_nothing(soon: bool) -> None:
    gate = threading.Event()
    began = time.monotonic()
    caller = swapco.spawn(swapco.to_thread, gives_up_its_turn, gate)
    until_blocked(caller)
    (call,) = [fiber for fiber in swapco.all_fibers() if fiber.function is gives_up_its_turn]
    until_detached(call)
    detached = time.monotonic()
    if not soon:
        wait_until(lambda: time.monotonic() - detached > 0.3)
    caller.cancel()
    swapco.wait([caller])
    if not soon:
        assert scores() == {gives_up_its_turn.__code__: 1}
    elif time.monotonic() - began < 0.3:
        # on a machine that is not too busy
        assert known_blockers() == []
    gate.set()
    wait_until(lambda: len(swapco.all_fibers()) == 1)


def test_a_call_that_waits_in_swapco_and_is_cancelled_does_not_count_as_one_that_blocks() -> None:
    def main() -> None:
        event = swapco.Event()
        queue = swapco.Queue[int]()
        lock = swapco.Lock()
        lock.acquire()
        for call in (event.wait, queue.get, lock.acquire, swapco.block, functools.partial(swapco.sleep, 3600)):
            before = swapco.all_fibers()
            caller = swapco.spawn(swapco.to_thread, call)
            until_blocked(caller)
            (inner,) = swapco.all_fibers() - before - {caller}
            until_blocked(inner)
            caller.cancel()
            swapco.wait([caller])
            assert caller.cancelled()
            assert known_blockers() == []
            inner.cancel()
            swapco.wait([inner])

    swapco.run(main, slot=quiet())


def test_a_call_that_never_got_a_thread_and_is_cancelled_does_not_count_as_one_that_blocks() -> None:
    def main() -> None:
        event = swapco.Event()
        holder = thread(event.wait)
        until_blocked(holder)
        before = swapco.all_fibers()
        caller = swapco.spawn(swapco.to_thread, blocks)
        until_blocked(caller)
        (call,) = swapco.all_fibers() - before - {caller}
        assert call.state == "NEW"
        caller.cancel()
        swapco.wait([caller])
        call.cancel()
        assert known_blockers() == []
        event.set()
        swapco.wait([holder, call])

    swapco.run(main, slot=quiet(max_workers=1))


# ------------------------------------------------------------------------------- what tells them apart


class Connects:
    """Blocks when it is made, and not when it is called."""

    def __init__(self) -> None:
        blocks()

    def __call__(self) -> None:
        pass


class Meta(type):
    def __call__(cls) -> None:
        if cls is Slow:
            blocks()


class Slow(metaclass=Meta):
    pass


class Fast(metaclass=Meta):
    pass


def wraps_itself() -> None:
    blocks()


def wraps_a_name() -> None:
    blocks()


wraps_itself.__wrapped__ = wraps_itself  # type: ignore[attr-defined]
wraps_a_name.__wrapped__ = "wrapped"  # type: ignore[attr-defined]


class Terminal:
    """Blocks when the first line of ``dump_fibers`` is written to it."""

    def write(self, text: str) -> None:
        if text.endswith(" fibers:"):
            blocks()


def uncached(fn: Callable[..., Any]) -> Callable[..., Any]:
    return functools.lru_cache(maxsize=0)(fn)


#: One that blocks, and another one that might be taken for it.
PAIRS: dict[str, Callable[[], tuple[Callable[[], Any], Callable[[], Any]]]] = {
    "cached": lambda: (uncached(wrapped), uncached(int)),
    "cached, of one function": lambda: (uncached(wrapped), uncached(wrapped)),
    "decorated": lambda: (decorated(wrapped), decorated(int)),
    "decorated, and not": lambda: (decorated(wrapped), wrapped),
    "decorated once, and twice": lambda: (decorated(wrapped), decorated(decorated(wrapped))),
    "decorated methods": lambda: (decorated(Client().request), decorated(Client.static)),
    "compiled": lambda: (functools.partial(swapco.dump_fibers, Terminal()), swapco.current_fiber),
    "class and its object": lambda: (Connects, object.__new__(Connects)),
    "class and another one": lambda: (Connects, dict),
    "classes of one metaclass": lambda: (Slow, Fast),
    "builtin": lambda: (functools.partial(time.sleep, 0.1), time.time),
    "builtin method": lambda: (functools.partial(locked().acquire, True, 0.1), locked().locked),
    "builtin method, unbound": lambda: (
        functools.partial(LockType.acquire, locked(), True, 0.1),
        functools.partial(LockType.locked, locked()),
    ),
    "wrappers that lead in a circle, or nowhere": lambda: (wraps_itself, wraps_a_name),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
@with_tick(0.02)
def test_different_callables_have_different_histories(
    pair: Callable[[], tuple[Callable[[], Any], Callable[[], Any]]],
) -> None:
    slow, other = pair()
    teach(slow, 1)
    teach(slow, 2)
    assert not handed_off_at_once(other)
    assert handed_off_at_once(slow)


class Asked(Exception):
    pass


class Proxy:
    """Has every attribute, and each of them is another proxy."""

    def __getattr__(self, name: str) -> Proxy:
        return Proxy()

    def __call__(self) -> str:
        blocks()
        return "answer"


class Guarded:
    """Raises for whoever looks at it, from the moment on at which it is called."""

    armed = False

    def __getattribute__(self, name: str) -> Any:
        if Guarded.armed:
            raise Asked(name)
        return object.__getattribute__(self, name)

    def __call__(self) -> str:
        blocks()
        Guarded.armed = True
        return "answer"


class Own:
    """Is its own function."""

    @property
    def __func__(self) -> Own:
        return self

    def __call__(self) -> str:
        blocks()
        return "answer"


class Refuses:
    @property
    def __func__(self) -> None:
        raise Asked

    @property
    def __wrapped__(self) -> None:
        raise Asked

    def __eq__(self, other: object) -> bool:
        raise Asked

    def __hash__(self) -> int:
        raise Asked

    def __call__(self) -> str:
        blocks()
        return "answer"


class Key(str):
    """Raises if it is compared with a key of the same hash."""

    def __eq__(self, other: object) -> bool:
        raise Asked

    def __hash__(self) -> int:
        return hash("__wrapped__")


def keeps_strange_keys() -> str:
    blocks()
    return "answer"


keeps_strange_keys.__dict__[Key("__wrapped__")] = int


def mock() -> Any:
    return MagicMock(side_effect=lambda: (blocks(), "answer")[1])


@pytest.mark.parametrize(
    "make",
    [Proxy, Guarded, Own, Refuses, mock, lambda: keeps_strange_keys, lambda: Refuses().__call__],
    ids=["proxy", "guarded", "own function", "refuses", "mock", "strange keys", "method of one that refuses"],
)
@with_tick(0.02)
def test_a_callable_is_not_asked_for_anything(make: Callable[[], Callable[[], str]]) -> None:
    Guarded.armed = False
    fn = make()
    for _ in range(3):
        assert swapco.to_thread(fn) == "answer"
        assert len(known_blockers()) == 1
        Guarded.armed = False
    assert handed_off_at_once(fn)
    Guarded.armed = False


@with_tick(0.02)
def test_known_blockers_has_what_a_user_knows() -> None:
    cached = uncached(blocks)
    calls = {
        Client().request: Client.request.__code__,
        decorated(wrapped): wrapped.__code__,
        cached: cached,
        Connects: Connects,
        Client(): Client,
        functools.partial(time.sleep, 0.1): time.sleep,
        functools.partial(locked().acquire, True, 0.1): LockType.acquire,
    }
    for n, (call, subject) in enumerate(calls.items()):
        while len(known_blockers()) == n:
            swapco.to_thread(call)
        assert known_blockers()[-1] == (subject, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda data: functools.lru_cache(lambda: (blocks(), data)[1]),
        lambda data: type("Own", (), {"data": data, "__call__": lambda self: blocks()})(),
        lambda data: type("Own", (), {"data": data, "__init__": lambda self: blocks()}),
        lambda data: functools.partial(functools.lru_cache(blocks), data),
        lambda data: MagicMock(side_effect=lambda: (blocks(), data)[1]),
    ],
    ids=["cached", "object", "class", "partial", "mock"],
)
@with_tick(0.02)
def test_the_history_keeps_nothing_alive(make: Callable[[Any], Callable[[], Any]]) -> None:
    class Data:
        def __bool__(self) -> bool:
            return False

    data = Data()
    seen = weakref.ref(data)
    fn = make(data)
    swapco.to_thread(fn)
    assert len(known_blockers()) == 1
    del fn, data
    wait_until(lambda: gc.collect() >= 0 and seen() is None)
    assert known_blockers() == []


@with_tick(0.0001)
def test_what_is_gone_makes_room_first() -> None:
    """One that blocked long ago is remembered, however many came and went after it."""

    def others(count: int) -> list[type]:
        kinds = [type(f"Kind{n}", (), {"__call__": lambda self: time.sleep(0.001)}) for n in range(count)]

        def calls(mine: list[type]) -> None:
            for kind in mine:
                while kind not in scores():
                    swapco.to_thread(kind())

        swapco.wait([swapco.spawn(calls, kinds[n::10]) for n in range(10)])
        return kinds

    swapco.to_thread(blocks)
    others(1000)
    gc.collect()
    kept = others(100)
    assert next(subject for subject, _ in known_blockers()) is blocks.__code__
    assert set(kept) < set(scores())


def test_the_history_is_bounded() -> None:
    def main() -> None:
        kinds = [type(f"Kind{n}", (), {"__call__": lambda self: time.sleep(0.001)}) for n in range(1100)]

        def calls(mine: list[type]) -> None:
            for kind in mine:
                # a machine that is busy may let one get away
                while kind not in scores():
                    swapco.to_thread(kind())
                assert len(known_blockers()) <= 1024

        swapco.wait(crew := [swapco.spawn(calls, kinds[n:1090:10]) for n in range(10)])
        for fiber in crew:
            fiber.result()
        known = known_blockers()
        assert len(known) == 1024
        calls(kinds[1090:])
        assert len(known_blockers()) == 1024
        # the oldest went
        assert known[10:] == known_blockers()[:-10]
        assert [code for code, _ in known_blockers()[-10:]] == kinds[1090:]

    swapco.run(main, slot=Slot(tick=0.0001))


@with_tick(0.02)
def test_one_that_is_handed_off_at_once_and_calls_swapco() -> None:
    def calls() -> str:
        blocks()
        swapco.sleep(0)
        return swapco.current_fiber().state

    for _ in range(4):
        assert swapco.to_thread(calls) == "RUNNING"
    assert scores()[calls.__code__] == 4


@with_tick(0.02)
def test_callers_of_known_blockers_that_are_cancelled_leave_at_once() -> None:
    gate = threading.Event()

    def waits(seconds: float) -> None:
        gate.wait(seconds)

    teach(functools.partial(waits, 0.1), 1)
    teach(functools.partial(waits, 0.1), 2)
    callers = [swapco.spawn(swapco.to_thread, waits, SOON_S) for _ in range(5)]
    until_blocked(*callers)
    for caller in callers:
        caller.cancel()
    swapco.wait(callers)
    assert all(caller.cancelled() for caller in callers)
    # the calls that have begun run on
    gate.set()
    wait_until(lambda: len(swapco.all_fibers()) == 1)
