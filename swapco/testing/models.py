"""Sequential specifications: what an object may do when its callers come one at a time.

A ``Model`` is an automaton: a first state, and for an operation with its outcome the states in which it may leave a
given state, none if that outcome is impossible there.  The checker places operations one after another; it never asks
what a program would do, only whether this is how it can have been.

- ``Model`` is the interface: states are immutable values, and the model is written for the purpose.
- ``SequentialModel`` makes one of an ordinary class: the usual choice.
- ``FifoQueue`` is a queue that does not decide an order before it is observed.

Invariant of all: states that are equal behave alike from there on, or the checker's memo refutes what is possible.
States that behave alike and are not equal only cost time, but much of that: each of them is explored.

``SequentialModel`` keeps one ``_State`` for each key of the object, with an object that is never changed: a call
is made on a copy, once, and its outcome and the state that it leads to are noted.  So the automaton grows as it
is needed, and is kept for the next history.

Rejected designs:

- ``pickle`` as the key: it cannot do the classes that tests define inside functions, and equal strings that are not
  the same object give different bytes.
- ``repr`` as the key: it may leave out what matters, and has addresses, which are used again.
- Ignoring the order of a dict, or which parts are shared: there are objects which behave accordingly.
"""

from __future__ import annotations

import copy as copying
import itertools
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Generic, TypeVar, cast

from .history import SELF, Operation, are_exceptions, hashable, shown

__all__ = ["FifoQueue", "Model", "SequentialModel"]

S = TypeVar("S", bound=Hashable)

#: So many states a ``SequentialModel`` keeps from one history to the next.
_STATES_KEPT = 4096


class Model(Generic[S]):
    """A sequential specification.  States are immutable and hashable; equal states must behave alike.

    Derive from it and define ``init``, and ``apply`` or, if an operation may have several effects, ``step``:

        class Register(Model[int]):
            def init(self):
                return 0

            def apply(self, state, operation):
                if operation.name == "write":
                    return operation.returns(None), operation.args[0]
                return operation.returns(state), state

    ``operation.returns`` and ``raises`` take care of operations whose outcome is unknown.
    """

    def init(self) -> S:
        """The state before the first operation."""
        raise NotImplementedError(f"{type(self).__name__} must define init()")

    def apply(self, state: S, operation: Operation) -> tuple[bool, S]:
        """Is the operation, with its outcome, possible in ``state``?  And the state afterwards, ignored if not."""
        raise NotImplementedError(f"{type(self).__name__} must define apply() or step()")

    def step(self, state: S, operation: Operation) -> Iterable[S]:
        """The states in which the operation, with its outcome, may leave ``state``; none if it is impossible."""
        answer: Any = self.apply(state, operation)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(
                f"{type(self).__name__}.apply() returns a pair (possible, state afterwards), and for {operation} it "
                f"returned {answer!r}"
            )
        return (answer[1],) if answer[0] else ()

    def describe(self, state: S) -> str:
        """The state, for explanations."""
        return repr(state)

    def expected(self, state: S, operation: Operation) -> str:
        """Why the operation is impossible in ``state``, for explanations."""
        return f"{operation.call} cannot be '{operation.response}'"


class _State:
    """A state of a ``SequentialModel``: one for each key, compared by identity."""

    __slots__ = ("moves", "obj")

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        #: what a call returns or raises, and the state afterwards
        self.moves: dict[Hashable, tuple[Any, Exception | None, _State]] = {}


class SequentialModel(Model[_State]):
    """The specification is an ordinary object that is used by one caller, such as a ``deque`` or a class of the test.

    ``factory()`` makes one; the operations of the history are its methods.  Results are compared by ``==``;
    an exception must be of the type that the object raises, or of one derived from that.

    A call changes a copy.  Arguments that compare by identity (``object()``, a fiber) are not copied, so that they come
    back as themselves.  ``copy``: instead of ``copy.deepcopy``, if that is too slow.  ``key``: a function from the
    object to something hashable that tells its states apart.  Otherwise it is taken apart as ``pickle`` does it (a
    TypeError says if it cannot be), and everything counts, the order of a dict, too: where that does not matter,
    ``key=lambda store: frozenset(store.items.items())`` saves much time.

    Errors: TypeError for arguments that are no functions, and for a key that is not hashable; AttributeError if the
    object has no method for an operation.
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        *,
        copy: Callable[[Any], Any] | None = None,
        key: Callable[[Any], Hashable] | None = None,
    ) -> None:
        if not callable(factory):
            raise TypeError(f"factory is a class or a function that makes the sequential object, not {factory!r}")
        for argument, function in (("copy", copy), ("key", key)):
            if function is not None and not callable(function):
                raise TypeError(f"{argument} is a function of the sequential object, or None, not {function!r}")
        self._factory, self._copy, self._key = factory, copy, key
        self._states: dict[Hashable, _State] = {}
        self._opaque: dict[int, Any] = {}
        self._calls: dict[Operation, Hashable] = {}

    def init(self) -> _State:
        """The state of a new object."""
        self._calls.clear()
        if len(self._states) > _STATES_KEPT:
            self._states.clear()
            self._opaque.clear()
        return self._state(self._factory())

    def _state(self, obj: Any) -> _State:
        key = _frozen(obj, self._opaque, {}) if self._key is None else self._key(obj)
        if self._key is not None and not hashable(key):
            raise TypeError(f"key is a function to something hashable, and of {obj!r} it made {key!r}")
        found = self._states.get(key)
        if found is None:
            found = self._states[key] = _State(obj)
        return found

    def _move(self, state: _State, operation: Operation) -> tuple[Any, Exception | None, _State]:
        call = self._calls.get(operation)
        if call is None:
            for value in (*operation.args, *operation.kwargs.values()):
                _keep_identities(value, self._opaque)
            asked = (operation.name, operation.args, operation.kwargs)
            call = self._calls[operation] = _frozen(asked, self._opaque, {})
        move = state.moves.get(call)
        if move is None:
            args, kwargs = operation.args, operation.kwargs
            if not _PLAIN.issuperset(map(type, itertools.chain(args, kwargs.values()))):
                args, kwargs = copying.deepcopy((args, kwargs), dict(self._opaque))
            obj = _copied(state.obj, self._opaque) if self._copy is None else self._copy(state.obj)
            method = getattr(obj, operation.name, None)
            if method is None:
                raise AttributeError(
                    f"the history has {operation.call}, but the sequential object {obj!r} has no such method: give "
                    f"the model a class with the methods of the history"
                )
            result, error = None, None
            try:
                result = method(*args, **kwargs)
            except Exception as exception:
                error = exception.with_traceback(None)
            move = state.moves[call] = (SELF if result is obj else result, error, self._state(obj))
        return move

    def step(self, state: _State, operation: Operation) -> Iterable[_State]:
        """The state after the call, if its outcome is that of the operation."""
        result, error, after = self._move(state, operation)
        possible = operation.returns(result) if error is None else operation.raises(type(error))
        return (after,) if possible else ()

    def describe(self, state: _State) -> str:
        """The object."""
        obj = state.obj
        if cast(Any, type(obj)).__repr__ is object.__repr__:
            names = getattr(obj, "__dict__", None) or {n: getattr(obj, n, None) for n in getattr(obj, "__slots__", ())}
            return f"{type(obj).__name__}({', '.join(f'{name}={value!r}' for name, value in names.items())})"
        return repr(obj)

    def expected(self, state: _State, operation: Operation) -> str:
        """What the object would do."""
        result, error, _ = self._move(state, operation)
        does = f"return {shown(result)}" if error is None else f"raise {shown(error)}"
        return f"{operation.call} would {does}"


#: Values that are what they look like, and those that are only what they are.
_PLAIN = frozenset({int, str, bytes, type(None)})
_CONTAINERS = frozenset({dict, list, set, deque})
_NAMED: tuple[Any, ...] = (type, FunctionType, BuiltinFunctionType, ModuleType)


def _keep_identities(value: Any, opaque: dict[int, Any]) -> None:
    """Note the parts of an argument that only compare equal to themselves: copies of them would be worthless."""
    kind = type(value)
    if kind in (tuple, list, set, frozenset):
        for part in value:
            _keep_identities(part, opaque)
    elif kind is dict:
        _keep_identities([*value, *value.values()], opaque)
    elif cast(Any, kind).__eq__ is object.__eq__ and not isinstance(value, _NAMED):
        opaque[id(value)] = value


def _contents(container: Iterable[Any]) -> Iterable[Any]:
    return itertools.chain(container, container.values()) if isinstance(container, dict) else container


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class statement makes it


class _Ordinary:
    """As large as an object that has attributes and nothing else."""


_CUSTOM = ("__copy__", "__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__setstate__")


_ordinary: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def _is_ordinary(kind: Any) -> bool:
    """Has an object of this class its attributes, and nothing else?"""
    known = _ordinary.get(kind)
    if known is not None:
        return known
    _ordinary[kind] = known = (
        kind.__basicsize__ == _Ordinary.__basicsize__
        and kind.__dictoffset__ == _Ordinary.__dictoffset__
        and all(base.__flags__ & _HEAP_TYPE and not vars(base).get("__slots__") for base in kind.__mro__[:-1])
        and all(
            getattr(kind, name) is getattr(object, name)
            for name in ("__new__", "__reduce__", "__reduce_ex__", "__getstate__")
        )
        and not any(hasattr(kind, name) for name in _CUSTOM)
    )
    return known


def _copied(obj: Any, opaque: dict[int, Any]) -> Any:
    """A deep copy, in which what is only itself stays what it is; quick where there is only one level to copy."""
    memo = dict(opaque)
    kind: Any = type(obj)
    ordinary = _is_ordinary(kind)
    deep = False
    parts = vars(obj) if ordinary else {"": obj}
    for part in parts.values():
        if type(part) in _PLAIN or id(part) in memo:
            continue
        if type(part) in _CONTAINERS and _PLAIN.issuperset(map(type, _contents(part))):
            memo[id(part)] = part.copy()
        else:
            deep = True
    if deep or not ordinary:
        return copying.deepcopy(obj, memo)
    copied = kind.__new__(kind)
    vars(copied).update({name: memo.get(id(part), part) for name, part in parts.items()})
    return copied


def _frozen(value: Any, opaque: dict[int, Any], seen: dict[int, tuple[int, Any]]) -> Hashable:
    """A hashable value that is equal for objects which behave alike.

    Objects are taken apart by ``__reduce_ex__``, as ``pickle`` and ``copy`` do it; the order of a dict and the sharing
    of mutable parts count, because behaviour may depend on them.  ``seen`` has the mutable parts so far, numbered (and
    kept alive, so that no other takes over an id).
    """
    kind = type(value)
    if kind in _PLAIN or id(value) in opaque or isinstance(value, _NAMED):
        return cast(Hashable, value)
    if kind is float or kind is bool or kind is complex:
        return (kind, value)
    if kind is tuple:
        return (kind, *[_frozen(part, opaque, seen) for part in value])
    if kind is frozenset:
        return (kind, frozenset([_frozen(part, opaque, seen) for part in value]))
    if id(value) in seen:
        return (_State, seen[id(value)][0])
    seen[id(value)] = (len(seen), value)
    if kind is list:
        if _PLAIN.issuperset(map(type, value)):
            return (kind, *value)
        return (kind, *[_frozen(part, opaque, seen) for part in value])
    if kind is set:
        return (kind, frozenset([_frozen(part, opaque, seen) for part in value]))
    if kind is dict:
        return (kind, *[(_frozen(k, opaque, seen), _frozen(v, opaque, seen)) for k, v in value.items()])
    if _is_ordinary(kind):
        # plain attributes at once: most have no others
        return (
            kind,
            *[
                (name, part if type(part) in _PLAIN else _frozen(part, opaque, seen))
                for name, part in vars(value).items()
            ],
        )
    try:
        taken_apart = value.__reduce_ex__(4)
    except TypeError as error:
        raise TypeError(
            f"cannot tell the states of the sequential object apart, because of a {kind.__name__}: {error}; give "
            f"SequentialModel(..., key=) a function from the object to something hashable (and perhaps copy=)"
        ) from None
    if isinstance(taken_apart, str):
        return cast(Hashable, value)
    # what makes it, with what, its attributes, and two iterators: the items of a list, those of a dict
    parts = [*taken_apart[:3], *[part and list(part) for part in taken_apart[3:5]], *taken_apart[5:]]
    frozen = (kind, *[_frozen(part, opaque, seen) for part in parts])
    seen[-len(seen)] = (-1, parts)
    return frozen


def _names(argument: str, names: Iterable[str]) -> frozenset[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"{argument} is a collection of names of methods, such as ({argument!r},), not {names!r}")
    return frozenset(names)


class FifoQueue(Model[frozenset[Operation]]):
    """An unbounded queue, first in, first out, whose order is not decided before it is observed.

    The orders in which overlapping ``put`` may have happened are exponentially many, and a ``SequentialModel`` has a
    state for each: to refute a history with many items in the queue it tries them all.  Here the state is the set of
    ``put`` operations whose items are in the queue.  ``get`` may take an item unless another one there was put
    entirely before it; the moments of the two that it passes over can then be exchanged (Henzinger, Sezgin &
    Vafeiadis, CONCUR 2013).  With distinct items the search is polynomial.

    ``put`` and ``get``: the names of methods with one argument that return None, and with none that return an item.
    A ``get`` that raises an exception of the type ``empty`` has found the queue empty.  There is no ``len`` and no
    limit: these observe how many items there are, and the moments cannot be exchanged any more.  ``order`` of a "yes"
    may have puts in another order than the items come out.

    Errors: TypeError for names that are none (one text would be the names of its letters) and for ``empty`` that is no
    type of exceptions; AttributeError if the history has another method.
    """

    def __init__(
        self,
        *,
        put: Iterable[str] = ("put", "put_nowait"),
        get: Iterable[str] = ("get", "get_nowait"),
        empty: type[BaseException] = Exception,
    ) -> None:
        self._put, self._get, self._empty = _names("put", put), _names("get", get), empty
        if not are_exceptions(empty):
            raise TypeError(f"empty is the type of the exception that says the queue is empty, not {empty!r}")

    def init(self) -> frozenset[Operation]:
        """An empty queue."""
        return frozenset()

    @staticmethod
    def _first(state: frozenset[Operation]) -> list[Operation]:
        """The items, as operations, that may be the first in the queue."""
        limit = min((o.returned for o in state if o.returned is not None), default=None)
        return sorted((o for o in state if limit is None or o.invoked < limit), key=lambda o: o.invoked)

    def step(self, state: frozenset[Operation], operation: Operation) -> Iterable[frozenset[Operation]]:
        """One item more; or one less, which may be any that can be the first."""
        if operation.name in self._put:
            return (state | {operation},) if operation.returns(None) else ()
        if operation.name not in self._get:
            raise AttributeError(f"a FifoQueue has no {operation.call}: name the methods, FifoQueue(put=..., get=...)")
        if not state:
            return (state,) if operation.raises(self._empty) else ()
        return [state - {item} for item in self._first(state) if operation.returns(item.args[0])]

    def describe(self, state: frozenset[Operation]) -> str:
        """The items, in the order in which their puts were invoked."""
        return f"FifoQueue({[item.args[0] for item in sorted(state, key=lambda o: o.invoked)]!r})"

    def expected(self, state: frozenset[Operation], operation: Operation) -> str:
        """What could have been the first item."""
        if operation.name in self._put:
            return f"{operation.call} would return None"
        if not state:
            return f"{operation.call} would find it empty"
        return f"{operation.call} would return {' or '.join(shown(item.args[0]) for item in self._first(state))}"


def as_model(model: Model[Any] | Callable[[], Any]) -> Model[Any]:
    """A model, a class derived from ``Model``, or what makes the object of a ``SequentialModel``."""
    if isinstance(model, Model):
        return model
    if isinstance(model, type) and issubclass(model, Model):
        return model()
    if callable(model):
        return SequentialModel(model)
    raise TypeError(f"a model is a Model, or a class or function that makes a sequential object, not {model!r}")
