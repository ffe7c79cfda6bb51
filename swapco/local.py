"""``local``: ``threading.local`` for fibers.

Each fiber sees attributes of its own; they die with it.  Where no fiber runs (in loop callbacks, asyncio
tasks, other threads) the attributes belong to the kernel thread, as those of ``threading.local`` do.

How: attribute access by the rules of ``object``, but with the caller's dictionary as the instance's.
Swapping the real ``__dict__`` around each access, as CPython's pure Python ``threading.local`` does, would
need a lock, and a property that blocks would hold it.

The dictionaries are keyed by fiber, weakly, and a done callback drops a fiber's as soon as it is done: who
keeps a finished fiber for its result does not keep its attributes.

A context variable is the better choice for what a spawned fiber should inherit: a fiber starts with an empty
``local``, but with a copy of its spawner's context.
"""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import Any

from ._core.errors import NotInFiber
from ._loop.task import Fiber
from .tasks import current_fiber

__all__ = ["local"]


class _Missing:
    """The type of what a lookup that finds nothing returns: no descriptor."""


_MISSING: Any = _Missing()


class _Dictionaries:
    """The dictionaries of one ``local``: one for each fiber and each thread that uses it."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs
        self.of_fibers: weakref.WeakKeyDictionary[Fiber, dict[str, Any]] = weakref.WeakKeyDictionary()
        self.of_threads = threading.local()

    def find(self) -> dict[str, Any] | None:
        """The caller's, or None if there is none yet."""
        try:
            return self.of_fibers.get(current_fiber())
        except NotInFiber:
            return getattr(self.of_threads, "attributes", None)

    def make(self) -> dict[str, Any]:
        """A new one for the caller."""
        attributes: dict[str, Any] = {}
        try:
            fiber = current_fiber()
        except NotInFiber:
            self.of_threads.attributes = attributes
        else:
            self.of_fibers[fiber] = attributes
            fiber.add_done_callback(partial(_forget, weakref.ref(self)))
        return attributes


def _forget(reference: weakref.ref[_Dictionaries], fiber: Fiber) -> None:
    dictionaries = reference()
    if dictionaries is not None:
        dictionaries.of_fibers.pop(fiber, None)


class local:
    """An object whose attributes belong to the fiber that sets them; outside fibers, to the kernel thread.

    A subclass may define ``__init__``: it is called again, with the same arguments, for each fiber that uses
    the object.  Attributes of the class, its properties and its ``__slots__`` are common to all.  Does not
    block.
    """

    __slots__ = ("__weakref__", "_dictionaries")
    _dictionaries: _Dictionaries

    def __new__(cls, *args: Any, **kwargs: Any) -> local:
        """The object; ``__init__`` follows, for the fiber that makes it."""
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("local() takes no arguments, unless a subclass defines __init__")
        self = object.__new__(cls)
        dictionaries = _Dictionaries(args, kwargs)
        _DICTIONARIES.__set__(self, dictionaries)
        dictionaries.make()
        return self

    def __getattribute__(self, name: str) -> Any:
        """From the caller's attributes, or the class."""
        if name == "__dict__":
            return _attributes(self)
        found = _lookup(type(self), name)
        kind = type(found)
        getter = getattr(kind, "__get__", None)
        if getter is not None and (hasattr(kind, "__set__") or hasattr(kind, "__delete__")):
            return getter(found, self, type(self))
        attributes = _attributes(self)
        if name in attributes:
            return attributes[name]
        if getter is not None:
            return getter(found, self, type(self))
        if found is _MISSING:
            raise AttributeError(_no_attribute(self, name))
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        """Into the caller's attributes."""
        if name == "__dict__":
            raise AttributeError(f"the __dict__ of {type(self).__name__!r} objects is read-only")
        found = _lookup(type(self), name)
        setter = getattr(type(found), "__set__", None)
        if setter is not None:
            setter(found, self, value)
        else:
            _attributes(self)[name] = value

    def __delattr__(self, name: str) -> None:
        """From the caller's attributes."""
        if name == "__dict__":
            raise AttributeError(f"the __dict__ of {type(self).__name__!r} objects is read-only")
        found = _lookup(type(self), name)
        deleter = getattr(type(found), "__delete__", None)
        if deleter is not None:
            deleter(found, self)
        elif _attributes(self).pop(name, _MISSING) is _MISSING:
            raise AttributeError(_no_attribute(self, name))


_DICTIONARIES: Any = local.__dict__["_dictionaries"]


def _attributes(obj: local) -> dict[str, Any]:
    """The caller's attributes of ``obj``; a subclass's ``__init__`` is called if there are none yet."""
    dictionaries: _Dictionaries = _DICTIONARIES.__get__(obj)
    attributes = dictionaries.find()
    if attributes is None:
        attributes = dictionaries.make()
        kind: Any = type(obj)
        kind.__init__(obj, *dictionaries.args, **dictionaries.kwargs)
    return attributes


def _lookup(cls: type, name: str) -> Any:
    """What the class knows under this name, as it stands there."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return _MISSING


def _no_attribute(obj: local, name: str) -> str:
    return f"{type(obj).__name__!r} object has no attribute {name!r} in this fiber"
