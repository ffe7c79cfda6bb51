"""Histories: who called what on a concurrent object, in which interval, and what came of it.

A history is a list of ``Operation``.  Each has an *interval*: the number of the event that invoked it and of the event
with which it responded.  Events are counted, never timed: an operation precedes another if it has responded
before the other was invoked, and nothing else is known of their order.

What is known of an operation is one of four things:

- it *returned* a value, or it *raised* an exception: that is its outcome, and it has taken effect;
- it is *pending*, invoked and never heard of again: it has taken effect at some moment after its invocation, or never;
- it was *aborted*, left by an exception that says nothing about its effect, such as a cancellation: it has taken
  effect before it was left, or never.

Invariants: an operation responds at most once; every event has a number of its own; operations stand in the order of
their invocation.  Recording neither blocks nor switches, so that a recorded program runs as the bare one does; a
number comes from one ``next()``, so that kernel threads may record, too.

Rejected designs: the order of a clock, which cannot tell apart what happens in one tick; aborted operations as pending
ones, which excuses the cancelled ``get`` that takes an item afterwards.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from .._core.errors import NotInFiber
from ..tasks import current_fiber

__all__ = ["History", "Operation"]

_PENDING, _RETURNED, _RAISED, _ABORTED = "pending", "returned", "raised", "aborted"
_LONGEST_VALUE = 60


class _Self:
    """The type of ``SELF``."""

    def __repr__(self) -> str:
        return "self"


#: The recorded result of a method that returned the object itself.
SELF = _Self()


class Operation:
    """One call: what was asked, by whom, in which interval, and what came of it.

    ``invoked`` and ``returned`` are numbers of events in the history; ``returned`` is None while the operation is
    pending.  ``exception`` is what it raised, or what it was aborted by.  A model asks ``returns(value)`` and
    ``raises(KeyError)``, which are true of an operation whose outcome is unknown, too.
    """

    __slots__ = ("_result", "args", "exception", "invoked", "kwargs", "name", "outcome", "process", "returned")

    def __init__(
        self,
        name: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        process: Hashable,
        invoked: int,
        returned: int | None = None,
        result: Any = None,
        exception: BaseException | None = None,
        aborted: bool = False,
    ) -> None:
        """An operation from elsewhere, such as a log; a ``History`` makes its own.

        Errors: TypeError and ValueError for arguments that make no sense.
        """
        if not isinstance(name, str):
            raise TypeError(f"name is the text that names the operation, not {name!r}")
        if not hashable(process):
            raise TypeError(f"process is who calls {name}(), a hashable value, not {process!r}")
        for argument, event in (("invoked", invoked), ("returned", returned)):
            if not isinstance(event, int) and not (event is None and argument == "returned"):
                raise TypeError(f"{argument} is the number of an event of {name}(), a whole number, not {event!r}")
        if invoked < 0:
            raise ValueError(f"invoked is the number of an event of {name}(), from 0 on, not {invoked}")
        self.name, self.args, self.kwargs, self.process = name, args, dict(kwargs or {}), process
        self.invoked = invoked
        self.returned: int | None = None
        self.exception: BaseException | None = None
        self.outcome = _PENDING
        self._result: Any = None
        if returned is not None:
            if returned <= invoked:
                raise ValueError(f"{name}() was invoked at {invoked} and cannot have returned at {returned}")
            outcome = _ABORTED if aborted else _RETURNED if exception is None else _RAISED
            self._respond(returned, outcome, result, exception)

    def _respond(self, returned: int, outcome: str, result: Any, exception: BaseException | None) -> None:
        self._result, self.exception, self.outcome, self.returned = result, exception, outcome, returned

    @property
    def pending(self) -> bool:
        """Has it never responded?"""
        return self.outcome is _PENDING

    @property
    def unknown(self) -> bool:
        """Is it pending or aborted, so that it may have taken effect or not?"""
        return self.outcome is _PENDING or self.outcome is _ABORTED

    @property
    def result(self) -> Any:
        """What it returned.  Errors: ValueError if it did not return."""
        if self.outcome is not _RETURNED:
            raise ValueError(f"{self} has no result: a model asks operation.returns(value), or raises(type)")
        return self._result

    def returns(self, value: Any) -> bool:
        """Did it return ``value``, or is its outcome unknown?"""
        if self.outcome is _RETURNED:
            return self._result is value or bool(self._result == value)
        return self.unknown

    def raises(self, *types: type[BaseException]) -> bool:
        """Did it raise an exception of these types, or is its outcome unknown?"""
        if self.outcome is _RAISED:
            return isinstance(self.exception, types)
        return self.unknown

    def _pending_from(self, event: int) -> Operation:
        """This operation as it was known before event number ``event``."""
        if self.returned is None or self.returned < event:
            return self
        return Operation(self.name, self.args, self.kwargs, process=self.process, invoked=self.invoked)

    @property
    def call(self) -> str:
        """The call as source text: ``put('a', 1)``; long values are cut."""
        given = [shown(value) for value in self.args]
        given += [f"{key}={shown(value)}" for key, value in self.kwargs.items()]
        return f"{self.name}({', '.join(given)})"

    @property
    def response(self) -> str:
        """The outcome as text: ``-> 3``, ``raises KeyError('a')``, ``aborted``, ``pending``."""
        if self.outcome is _RETURNED:
            return f"-> {shown(self._result)}"
        return f"raises {shown(self.exception)}" if self.outcome is _RAISED else self.outcome

    def __str__(self) -> str:
        return f"{self.call} {self.response}"

    def __repr__(self) -> str:
        return f"<{name_of(self.process)}: {self} [{self.invoked}, {'' if self.returned is None else self.returned}]>"


def shown(value: object) -> str:
    """The value in a text, cut to a line."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def hashable(value: object) -> bool:
    """Can it be a key?"""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def are_exceptions(types: object) -> bool:
    """Is it a type of exceptions, or a tuple of such?"""
    each = types if isinstance(types, tuple) else (types,)
    return all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in each)


def operations_of(argument: str, operations: Iterable[Operation]) -> list[Operation]:
    """The value of an argument that is the operations of a history.  Errors: TypeError if it is something else."""
    try:
        listed = list(operations)
    except TypeError:
        if isinstance(operations, Iterable):  # it is what it raises
            raise
        raise TypeError(f"{argument} is a History, or operations of one, not {operations!r}") from None
    for operation in listed:
        if not isinstance(operation, Operation):
            raise TypeError(
                f"{argument} is a History, or operations of one, and {operation!r} is no Operation (events are read by "
                f"History.from_events)"
            )
    return listed


def name_of(process: Hashable) -> str:
    """How a process is called in a text."""
    if isinstance(process, str):
        return process
    get_name = getattr(process, "get_name", None)  # fibers and tasks
    return str(get_name() if callable(get_name) else getattr(process, "name", None) or repr(process))


def _caller() -> Hashable:
    """Who is running: a fiber, else an asyncio task, else a thread."""
    try:
        return current_fiber()
    except NotInFiber:
        pass
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.current_thread() if task is None else task


class _Recording:
    """An operation that is being recorded: what ``History.operation`` enters."""

    def __init__(self, history: History, operation: Operation) -> None:
        self.history, self.operation, self.result = history, operation, None

    result: Any  #: what the operation returns; None unless it is set

    def __enter__(self) -> _Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exception is None:
            self.history.returned(self.operation, self.result)
        else:
            self.history.raised(self.operation, exception)


class History:
    """The operations on one concurrent object, in the order of their invocation.

    Recorded by ``wrap(obj)``, whose methods record themselves; by ``with operation("put", 1) as o: o.result = ...``;
    by ``call(fn, 1)``; or event by event by ``invoke`` and ``returned``, ``raised`` or ``aborted``.  Who calls
    is the current fiber, unless ``process=`` (any hashable) says otherwise.  Recording never blocks or switches.

    ``operations``: made elsewhere, or some of another history's.  ``unknown``: the types of exceptions that do not
    say whether the operation has taken effect, after which it counts as aborted; normally these are all that
    are no ``Exception``: cancellations, and whatever else tears a fiber down.  ``unknown=()`` where a cancelled
    operation is known to have had no effect and the model says so; add ``TimeoutError`` where a timeout leaves it open.
    ``copy``: applied to every argument and result that is recorded, ``copy.deepcopy`` if they are changed later.

    Errors: TypeError for arguments of another kind; ValueError if two events have the same number.
    """

    def __init__(
        self,
        operations: Iterable[Operation] = (),
        *,
        unknown: tuple[type[BaseException], ...] | None = None,
        copy: Callable[[Any], Any] | None = None,
    ) -> None:
        if unknown is not None and not are_exceptions(unknown):
            raise TypeError(f"unknown is a tuple of types of exceptions, or None, not {unknown!r}")
        if copy is not None and not callable(copy):
            raise TypeError(f"copy is a function of one value, or None, not {copy!r}")
        self.operations = sorted(operations_of("operations", operations), key=lambda operation: operation.invoked)
        self._unknown, self._copy = unknown, copy
        events = [n for o in self.operations for n in (o.invoked, o.returned) if n is not None]
        if len(set(events)) < len(events):
            raise ValueError("two events have the same number: number invocations and responses in their order")
        self._clock = itertools.count(max(events, default=-1) + 1)

    @classmethod
    def from_events(cls, events: Iterable[tuple[Any, ...]]) -> History:
        """A history written down, with events in their order; each process has one operation at a time.

        ``("invoke", process, name, *args)``, ``("return", process, result)``, ``("raise", process, exception)``,
        ``("abort", process)``.  Errors: ValueError for an event that does not fit.
        """
        history, open_by = cls(), dict[Hashable, Operation]()
        for event in events:
            kind, process, rest = _parts_of(event)
            if (process in open_by) is (kind == "invoke"):
                what = f"has not responded to {open_by[process].call}" if process in open_by else "has invoked nothing"
                raise ValueError(f"{(kind, process, *rest)}: process {process!r} {what}")
            if kind == "invoke":
                open_by[process] = history.invoke(process, *rest)
            elif kind == "return":
                history.returned(open_by.pop(process), *rest)
            elif kind == "raise":
                history._respond(open_by.pop(process), _RAISED, None, *rest)
            else:
                history.aborted(open_by.pop(process), *rest)
        return history

    def invoke(self, process: Hashable, name: str, *args: Any, **kwargs: Any) -> Operation:
        """Record that ``process`` invokes an operation; the operation is pending until it is given its outcome."""
        if self._copy is not None:
            args, kwargs = self._copy(args), self._copy(kwargs)
        operation = Operation(name, args, kwargs, process=process, invoked=next(self._clock))
        self.operations.append(operation)
        return operation

    def _respond(self, operation: Operation, outcome: str, result: Any, exception: BaseException | None) -> None:
        if not operation.pending:
            raise ValueError(f"{operation!r} has responded already")
        operation._respond(next(self._clock), outcome, result, exception)

    def returned(self, operation: Operation, result: Any = None) -> None:
        """Record that a pending operation returns."""
        self._respond(operation, _RETURNED, self._copy(result) if self._copy else result, None)

    def raised(self, operation: Operation, exception: BaseException) -> None:
        """Record that a pending operation raises; it counts as aborted if the exception is one of ``unknown``."""
        unknown = (
            not isinstance(exception, Exception) if self._unknown is None else isinstance(exception, self._unknown)
        )
        self._respond(operation, _ABORTED if unknown else _RAISED, None, exception)

    def aborted(self, operation: Operation, exception: BaseException | None = None) -> None:
        """Record that a pending operation ends, with or without having taken effect."""
        self._respond(operation, _ABORTED, None, exception)

    def operation(self, name: str, *args: Any, process: Hashable = None, **kwargs: Any) -> _Recording:
        """A context manager: the operation lasts as long as its block; ``result`` is to be set inside.

        An exception that leaves the block is recorded, and goes on.
        """
        return _Recording(self, self.invoke(_caller() if process is None else process, name, *args, **kwargs))

    def call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``fn(*args, **kwargs)``, recorded under the function's name; returns and raises what it does."""
        with self.operation(getattr(fn, "__name__", repr(fn)), *args, **kwargs) as recording:
            recording.result = fn(*args, **kwargs)
        return recording.result

    def wrap(self, obj: Any, *, process: Hashable = None, only: Iterable[str] | None = None) -> Any:
        """A proxy of ``obj`` whose public methods, ``async`` ones too, record themselves.

        ``with``, ``len``, ``in`` and ``[]`` are recorded under their special names.  ``only`` names the methods to
        record, where others (statistics, helpers) are not operations of the specification.  Errors: TypeError if
        it is a text, which would be the names of its letters.
        """
        if only is not None and (isinstance(only, str) or not isinstance(only, Iterable)):
            raise TypeError(f"only is a collection of names of methods, or None, not {only!r}")
        specials = {name: _special(name) for name in _SPECIALS if hasattr(type(obj), name)}
        proxy = type(f"Recorded{type(obj).__name__}", (_Proxy,), specials)
        return proxy(self, obj, process, None if only is None else frozenset(only))

    def without(self, *dropped: Operation) -> History:
        """This history without some of its operations."""
        gone = set(dropped)
        return History(operation for operation in self.operations if operation not in gone)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    @property
    def events(self) -> list[tuple[Any, ...]]:
        """What ``from_events`` reads; keyword arguments are lost."""
        found: list[tuple[int, tuple[Any, ...]]] = []
        for o in self.operations:
            found.append((o.invoked, ("invoke", o.process, o.name, *o.args)))
            if o.returned is not None:
                rest = {_RETURNED: ("return", o.process, o._result), _ABORTED: ("abort", o.process)}
                found.append((o.returned, rest.get(o.outcome, ("raise", o.process, o.exception))))
        return [event for _, event in sorted(found, key=lambda pair: pair[0])]

    def timeline(self, marks: Mapping[Operation, str] | None = None) -> str:
        """The history as text: time goes down, a column for each process, events with their numbers.

        ``marks`` are notes beside the responses of some operations.
        """
        return _timeline(self.operations, marks or {})

    def __str__(self) -> str:
        return self.timeline()

    def __repr__(self) -> str:
        processes = len({operation.process for operation in self.operations})
        pending = sum(operation.pending for operation in self.operations)
        return f"<History: {len(self)} operations by {processes} processes, {pending} pending>"


#: How many values may follow the process, at least and at most; and what they are.
_EVENTS: dict[str, tuple[int, int | None, str]] = {
    "invoke": (1, None, "the name of the operation and its arguments"),
    "return": (0, 1, "the result"),
    "raise": (1, 1, "the exception"),
    "abort": (0, 1, "perhaps an exception"),
}


def _parts_of(event: tuple[Any, ...]) -> tuple[str, Hashable, list[Any]]:
    """The kind of an event, the process, and the rest."""
    if not isinstance(event, tuple | list) or len(event) < 2 or not isinstance(event[0], str):
        raise ValueError(f"an event is a tuple of its kind, the process, and what belongs to it, not {event!r}")
    kind, process, *rest = event
    if kind not in _EVENTS:
        raise ValueError(f"an event is invoke, return, raise or abort, not {kind!r}")
    if not hashable(process):
        raise ValueError(f"{event!r}: a process is hashable, and {process!r} is not")
    least, most, what = _EVENTS[kind]
    fits = len(rest) >= least and (most is None or len(rest) <= most)
    if kind == "invoke":
        fits = fits and isinstance(rest[0], str)
    elif kind == "raise" or (kind == "abort" and rest):
        fits = fits and isinstance(rest[0], BaseException)
    if not fits:
        raise ValueError(f"{event!r}: behind the process of {kind!r} stands {what}")
    return kind, process, rest


_SPECIALS = ("__getitem__", "__setitem__", "__delitem__", "__contains__", "__len__", "__enter__", "__exit__")


def _special(name: str) -> Callable[..., Any]:
    def method(self: _Proxy, *args: Any) -> Any:
        return self.__getattr__(name)(*args)

    return method


class _Proxy:
    """What ``History.wrap`` returns."""

    def __init__(self, history: History, obj: Any, process: Hashable, only: frozenset[str] | None) -> None:
        self.__dict__["_recorded"] = (history, obj, process, only)

    def __getattr__(self, name: str) -> Any:
        history, obj, process, only = self.__dict__["_recorded"]
        attribute = getattr(obj, name)
        private = name.startswith("_") and name not in _SPECIALS
        if not callable(attribute) or private or (only is not None and name not in only):
            return attribute

        def own(result: Any) -> tuple[Any, Any]:
            return (SELF, self) if result is obj else (result, result)

        def invoked(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Recording:
            operation = history.invoke(_caller() if process is None else process, name, *args, **kwargs)
            return _Recording(history, operation)

        if inspect.iscoroutinefunction(attribute):

            @functools.wraps(attribute)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with invoked(args, kwargs) as recording:
                    recording.result, result = own(await attribute(*args, **kwargs))
                return result

            return awaited

        def called(*args: Any, **kwargs: Any) -> Any:
            with invoked(args, kwargs) as recording:
                recording.result, result = own(attribute(*args, **kwargs))
            return result

        return called

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_recorded"][1], name, value)

    def __repr__(self) -> str:
        return f"<recorded {self.__dict__['_recorded'][1]!r}>"


def _timeline(operations: list[Operation], marks: Mapping[Operation, str]) -> str:
    events = sorted(
        [(o.invoked, o) for o in operations] + [(o.returned, o) for o in operations if o.returned is not None],
        key=lambda event: event[0],
    )
    # a column is a process; one with overlapping operations has several
    columns: list[Hashable] = list(dict.fromkeys(o.process for o in operations))
    column_of: dict[Operation, int] = {}
    rows: list[tuple[str, dict[int, str], str]] = []
    open_in: dict[int, Operation] = {}
    at = 0
    while at < len(events):
        number, operation = events[at]
        cells = dict.fromkeys(open_in, "|")
        mark = marks.get(operation, "")
        if operation.invoked == number:
            free = (c for c, owner in enumerate(columns) if owner == operation.process and c not in open_in)
            column = next(free, len(columns))
            if column == len(columns):
                columns.append(operation.process)
            column_of[operation] = column
            cells[column] = operation.call
            if at + 1 < len(events) and events[at + 1][1] is operation:
                cells[column] = str(operation)
                at += 1
            else:
                open_in[column] = operation
                mark = mark if operation.pending else ""
        else:
            column = column_of[operation]
            cells[column] = operation.response
            del open_in[column]
        rows.append((str(number), cells, mark))
        at += 1
    if open_in:
        rows.append(("", dict.fromkeys(open_in, _PENDING), ""))
    heads = {c: name_of(process) for c, process in enumerate(columns)}
    wide = [max(len(cells.get(c, "")) for _, cells, _ in [("", heads, ""), *rows]) for c in range(len(columns))]
    first = max((len(number) for number, _, _ in rows), default=0)
    lines = []
    for row, cells, mark in [("", heads, ""), *rows]:
        parts = [f"{row:>{first}}", *(f"{cells.get(c, ''):{wide[c]}}" for c in range(len(columns))), mark]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
