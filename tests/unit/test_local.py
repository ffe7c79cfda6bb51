"""``local``: attributes that belong to one fiber."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest
from helpers import in_fiber, settle

import swapco
from swapco.local import local

pytestmark = pytest.mark.usefixtures("fibers")


@in_fiber
def test_each_fiber_has_its_own_attributes() -> None:
    data = local()
    data.name = "main"

    def body(name: str) -> str:
        assert not hasattr(data, "name")
        data.name = name
        swapco.sleep(0)
        found: str = data.name
        del data.name
        assert not hasattr(data, "name")
        return found

    assert swapco.gather(*[lambda n=n: body(n) for n in "abc"]) == ["a", "b", "c"]
    assert data.name == "main"
    assert vars(data) == {"name": "main"}


def test_outside_fibers_attributes_belong_to_the_thread() -> None:
    data = local()
    data.where = "main thread"
    seen: list[Any] = []

    def elsewhere() -> None:
        seen.append(hasattr(data, "where"))
        data.where = "another thread"
        seen.append(data.where)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [False, "another thread"]

    def main() -> None:
        seen.append(hasattr(data, "where"))
        asyncio.get_running_loop().call_soon(lambda: seen.append(data.where))
        settle()

    swapco.run(main)
    assert seen[2:] == [False, "main thread"]
    assert data.where == "main thread"


class Counter(local):
    """A local with everything that a class may have."""

    common = "class attribute"
    __slots__ = ("slot",)

    def __init__(self, start: int, *, step: int = 1) -> None:
        self.count = start
        self.step = step
        inits.append(swapco.current_fiber().name)

    @property
    def doubled(self) -> int:
        return int(self.count * 2)

    @doubled.setter
    def doubled(self, value: int) -> None:
        self.count = value // 2

    @doubled.deleter
    def doubled(self) -> None:
        self.count = 0

    def increment(self) -> int:
        self.count += self.step
        return int(self.count)

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return f"no {name}"


inits: list[str] = []


@in_fiber
def test_a_subclass() -> None:
    inits.clear()
    counter = Counter(10, step=2)
    counter.slot = "common to all"
    assert counter.increment() == 12

    def body() -> None:
        assert counter.increment() == 12
        assert counter.increment() == 14
        assert counter.doubled == 28
        counter.doubled = 6
        assert counter.count == 3
        del counter.doubled
        assert counter.count == 0
        assert counter.common == "class attribute"
        counter.common = "mine"
        assert counter.common == "mine"
        assert counter.slot == "common to all"
        assert counter.other == "no other"
        assert isinstance(counter, Counter)
        assert counter.__class__ is Counter

    swapco.spawn(body, name="other").join()
    assert counter.count == 12
    assert counter.common == "class attribute"
    assert inits == ["main", "other"]


@in_fiber
def test_errors() -> None:
    data = local()
    with pytest.raises(AttributeError, match="'local' object has no attribute 'missing' in this fiber"):
        data.missing
    with pytest.raises(AttributeError, match="missing"):
        del data.missing
    for change in (lambda: setattr(data, "__dict__", {}), lambda: delattr(data, "__dict__")):
        with pytest.raises(AttributeError, match="read-only"):
            change()
    with pytest.raises(TypeError, match="no arguments"):
        local(1)


class Value:
    """Something that can be referred to weakly."""


@in_fiber
def test_attributes_die_with_the_fiber() -> None:
    data = local()

    def body() -> weakref.ref[Value]:
        data.value = Value()
        return weakref.ref(data.value)

    fiber = swapco.spawn(body)
    reference = fiber.join()
    settle()
    # the fiber is still here, for its result: its attributes are not
    assert reference() is None
    assert fiber.done()


@in_fiber
def test_attributes_die_with_the_local() -> None:
    data = local()
    data.value = Value()
    reference = weakref.ref(data.value)
    swapco.spawn(setattr, data, "value", Value()).join()
    settle()
    del data
    gc.collect()
    assert reference() is None


@in_fiber
def test_a_property_may_block() -> None:
    class Slow(local):
        @property
        def value(self) -> Any:
            swapco.sleep(0)
            return self.stored

    data = Slow()

    def body(value: int) -> Any:
        data.stored = value
        return data.value

    assert swapco.gather(*[lambda n=n: body(n) for n in range(10)]) == list(range(10))
