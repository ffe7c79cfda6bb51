"""asyncio's public names: each is here, callable as asyncio's is, or in a table with the reason why not.

*Callable as asyncio's is* means: whatever call asyncio's signature allows, ours allows, and it means the same.  Ours
may take more, if what is added is optional.  Members of classes are held to the same rule.

The tables are kept honest from both sides: a name that is in a table and in swapco fails, and so does one that
asyncio does not know in any version that we support.  Where the reason is "asyncio's own works", it is made to work.
"""

from __future__ import annotations

import ast
import asyncio
import concurrent.futures
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import ROOT, in_fiber, settle

import swapco
import swapco.streams

pytestmark = pytest.mark.usefixtures("fibers")

NAMES = sorted(name for name in asyncio.__all__ if not name.startswith("_"))

ASYNCIOS_OWN = "asyncio's own works inside swapco.run: it is about the loop, and the loop is an asyncio loop"
LOOP_PARTS = "a part of event loops and transports, not of programs: asyncio's is what swapco.Loop uses"
WATCHERS = "uvloop needs no child watcher (and CPython 3.14 has none)"
POLICIES = "loop policies are asyncio's (deprecated in CPython 3.14); swapco.EventLoopPolicy is for them"
LATER = "not part of this release"

#: Names that swapco does not have, and why.
MISSING: dict[str, str] = {
    "Future": ASYNCIOS_OWN,
    "all_tasks": ASYNCIOS_OWN,
    "current_task": ASYNCIOS_OWN,
    "ensure_future": ASYNCIOS_OWN,
    "get_event_loop": ASYNCIOS_OWN,
    "get_running_loop": ASYNCIOS_OWN,
    "iscoroutine": ASYNCIOS_OWN,
    "iscoroutinefunction": ASYNCIOS_OWN,
    "isfuture": ASYNCIOS_OWN,
    "run_coroutine_threadsafe": ASYNCIOS_OWN,
    "set_event_loop": ASYNCIOS_OWN,
    "wrap_future": ASYNCIOS_OWN,
    "Task": "swapco.Fiber: it has the methods, but runs functions, too",
    "create_eager_task_factory": "a fiber never starts before its spawner suspends: order would depend on the factory",
    "eager_task_factory": "a fiber never starts before its spawner suspends: order would depend on the factory",
    "AbstractEventLoop": LOOP_PARTS,
    "AbstractServer": LOOP_PARTS,
    "BaseEventLoop": LOOP_PARTS,
    "BaseProtocol": LOOP_PARTS,
    "BaseTransport": LOOP_PARTS,
    "BufferedProtocol": LOOP_PARTS,
    "DatagramProtocol": LOOP_PARTS,
    "DatagramTransport": LOOP_PARTS,
    "EventLoop": LOOP_PARTS,
    "Handle": LOOP_PARTS,
    "Protocol": LOOP_PARTS,
    "ReadTransport": LOOP_PARTS,
    "SelectorEventLoop": LOOP_PARTS,
    "SendfileNotAvailableError": LOOP_PARTS,
    "StreamReaderProtocol": LOOP_PARTS,
    "SubprocessProtocol": LOOP_PARTS,
    "SubprocessTransport": LOOP_PARTS,
    "TimerHandle": LOOP_PARTS,
    "Transport": LOOP_PARTS,
    "WriteTransport": LOOP_PARTS,
    "AbstractChildWatcher": WATCHERS,
    "FastChildWatcher": WATCHERS,
    "MultiLoopChildWatcher": WATCHERS,
    "PidfdChildWatcher": WATCHERS,
    "SafeChildWatcher": WATCHERS,
    "ThreadedChildWatcher": WATCHERS,
    "get_child_watcher": WATCHERS,
    "set_child_watcher": WATCHERS,
    "AbstractEventLoopPolicy": POLICIES,
    "DefaultEventLoopPolicy": POLICIES,
    "get_event_loop_policy": POLICIES,
    "set_event_loop_policy": POLICIES,
    "create_subprocess_exec": LATER,
    "create_subprocess_shell": LATER,
}

#: What is called differently, and why: (name, or Class.member).
DIFFERENT: dict[str, str] = {
    "Server": "made by start_server; the name is for annotations",
    "StreamWriter": "made by open_connection and start_server: a program never calls it",
    "open_connection": "options of transports that swapco's sockets do not have; ssl= comes later",
    "open_unix_connection": "options of transports that swapco's sockets do not have; ssl= comes later",
    "start_server": "options of transports that swapco's sockets do not have; ssl= comes later",
    "start_unix_server": "options of transports that swapco's sockets do not have; ssl= comes later",
    "Runner.run": "what asyncio calls coro is called main, as in run: it may be a function",
}

#: Members of asyncio's classes that swapco's do not have, and why.
MISSING_MEMBERS: dict[str, str] = {
    "StreamReader.set_transport": "called by asyncio's protocols: swapco's readers have a socket",
    "StreamWriter.start_tls": LATER,
}

#: The classes whose methods have no signature, being written in C: those that they replace have.
IN_PYTHON = {asyncio.Task: asyncio.tasks._PyTask}  # type: ignore[attr-defined]

#: The classes that answer to asyncio's under another name.
ELSEWHERE: dict[str, type] = {"Task": swapco.Fiber}
CLASSES = [
    name
    for name in NAMES
    if inspect.isclass(getattr(asyncio, name)) and (name not in MISSING or name in ELSEWHERE)
]


def ours(name: str) -> Any:
    return ELSEWHERE.get(name) or getattr(swapco, name)


# --------------------------------------------------------------------------------------------- signatures


def signature_of(thing: Any) -> inspect.Signature:
    """The signature; for compiled methods, the one that Cython wrote into the docstring."""
    try:
        return inspect.signature(thing)
    except (TypeError, ValueError):
        pass
    if inspect.isclass(thing):
        return _signature_in_stub(thing)
    line = (thing.__doc__ or "").partition("\n")[0]
    node = ast.parse(f"def {line}: pass").body[0]
    assert isinstance(node, ast.FunctionDef)
    return inspect.Signature(list(_parameters(node.args)))


def _signature_in_stub(cls: type) -> inspect.Signature:
    """How a compiled class is made: stubtest sees to it that its stub is right."""
    for base in cls.__mro__:
        if not base.__module__.startswith("swapco."):
            break
        stub = ROOT.joinpath(*base.__module__.split(".")).with_suffix(".pyi")
        for node in ast.walk(ast.parse(stub.read_text())):
            if isinstance(node, ast.ClassDef) and node.name == base.__name__:
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name in ("__init__", "__new__"):
                        return inspect.Signature(list(_parameters(method.args))[1:])
    return inspect.Signature()


def _parameters(args: ast.arguments) -> Iterator[inspect.Parameter]:
    def default_of(node: ast.expr | None) -> Any:
        return inspect.Parameter.empty if node is None else Written(ast.unparse(node))

    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    for index, (arg, default) in enumerate(zip(positional, defaults, strict=True)):
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if index < len(args.posonlyargs):
            kind = inspect.Parameter.POSITIONAL_ONLY
        yield inspect.Parameter(arg.arg, kind, default=default_of(default))
    if args.vararg:
        yield inspect.Parameter(args.vararg.arg, inspect.Parameter.VAR_POSITIONAL)
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield inspect.Parameter(arg.arg, inspect.Parameter.KEYWORD_ONLY, default=default_of(default))
    if args.kwarg:
        yield inspect.Parameter(args.kwarg.arg, inspect.Parameter.VAR_KEYWORD)


class Written(str):
    """A default that is known as source text only."""

    __slots__ = ()


def same_default(theirs: Any, mine: Any) -> bool:
    """Do two defaults say the same?  One in a stub or docstring may be a name or an ellipsis: benefit of doubt."""
    if isinstance(mine, Written):
        try:
            mine = ast.literal_eval(mine)
        except ValueError:
            return True
        return mine is ... or bool(mine == theirs)
    return mine is theirs or bool(mine == theirs)


def incompatibilities(theirs: inspect.Signature, mine: inspect.Signature) -> list[str]:
    """Why some call that ``theirs`` allows is not allowed by ``mine``."""
    empty, kinds = inspect.Parameter.empty, inspect.Parameter
    positional = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    wrong: list[str] = []
    my_parameters = {name: p for name, p in mine.parameters.items() if name != "self"}
    my_positional = [p for p in my_parameters.values() if p.kind in positional]
    any_keyword = any(p.kind is kinds.VAR_KEYWORD for p in my_parameters.values())
    any_position = any(p.kind is kinds.VAR_POSITIONAL for p in my_parameters.values())
    matched: set[str] = set()
    index = 0
    for name, parameter in theirs.parameters.items():
        if name == "self" or parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD):
            if parameter.kind is kinds.VAR_POSITIONAL and not any_position:
                wrong.append(f"no *{name}")
            continue
        mine_of_it: inspect.Parameter | None
        if parameter.kind in positional:
            mine_of_it = my_positional[index] if index < len(my_positional) else None
            index += 1
            if mine_of_it is None:
                wrong.append(f"no positional {name}")
                continue
            if parameter.kind is kinds.POSITIONAL_OR_KEYWORD and mine_of_it.name != name:
                wrong.append(f"{name} is called {mine_of_it.name}")
        else:
            mine_of_it = my_parameters.get(name)
            if mine_of_it is None:
                if not any_keyword:
                    wrong.append(f"no keyword {name}")
                continue
        matched.add(mine_of_it.name)
        if parameter.default is not empty and mine_of_it.default is empty:
            wrong.append(f"{name} is not optional")
        elif not same_default(parameter.default, mine_of_it.default):
            wrong.append(f"{name}={mine_of_it.default!r}, not {parameter.default!r}")
    wrong += [
        f"{p.name} is needed"
        for p in my_parameters.values()
        if p.name not in matched
        and p.default is empty
        and p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    ]
    return wrong


@pytest.mark.parametrize(
    ("theirs", "mine", "expected"),
    [
        ("a, b=1", "a, b=1", []),
        ("a", "a, b=2, *, c=3", []),
        ("a", "a, b", ["b is needed"]),
        ("a", "b", ["a is called b"]),
        ("a=1", "a", ["a is not optional"]),
        ("a=1", "a=2", ["a=2, not 1"]),
        ("a, /", "b", []),
        ("a, *, b", "a, b", []),
        ("a, *, b", "a, **rest", []),
        ("a, *, b", "a", ["no keyword b"]),
        ("*a", "a", ["no *a", "a is needed"]),
        ("a, b", "a", ["no positional b"]),
    ],
)
def test_the_comparison(theirs: str, mine: str, expected: list[str]) -> None:
    def signature(text: str) -> inspect.Signature:
        scope: dict[str, Any] = {}
        exec(f"def function({text}): pass", scope)
        return inspect.signature(scope["function"])

    assert incompatibilities(signature(theirs), signature(mine)) == expected


# ------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_here_or_there_is_a_reason(name: str) -> None:
    if name in MISSING:
        assert not hasattr(swapco, name), f"swapco.{name} exists: take it out of MISSING"
        return
    assert hasattr(swapco, name), f"swapco has no {name}, and MISSING no reason"
    theirs, mine = getattr(asyncio, name), ours(name)
    if theirs is mine or isinstance(theirs, str):
        assert theirs == mine
        return
    if inspect.isclass(theirs) and issubclass(theirs, BaseException):
        assert issubclass(mine, BaseException)
        return
    wrong = incompatibilities(signature_of(theirs), signature_of(mine))
    if name in DIFFERENT:
        return
    assert not wrong, f"swapco.{name}{signature_of(mine)} differs from asyncio's {signature_of(theirs)}: {wrong}"


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_what_is_listed_as_different_is(name: str) -> None:
    if "." in name:
        cls, _, member = name.partition(".")
        theirs, mine = getattr(getattr(asyncio, cls), member), getattr(ours(cls), member)
    else:
        theirs, mine = getattr(asyncio, name), ours(name)
    assert incompatibilities(signature_of(theirs), signature_of(mine)) or "**" in str(signature_of(theirs))


def test_the_tables_name_what_asyncio_knows() -> None:
    everywhere = set(NAMES)
    some_versions_only = {
        "EventLoop",
        "TaskGroup",
        "create_eager_task_factory",
        "eager_task_factory",
        "QueueShutDown",
    }
    assert set(MISSING) - everywhere <= some_versions_only
    assert {name for name in DIFFERENT if "." not in name} <= everywhere
    assert all(MISSING.values())
    assert all(DIFFERENT.values())


# ----------------------------------------------------------------------------------------------- members


def public_members(cls: type) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_")]


MEMBERS = [
    (name, member)
    for name in CLASSES
    if not issubclass(getattr(asyncio, name), BaseException)
    for member in public_members(getattr(asyncio, name))
]


@pytest.mark.parametrize(("name", "member"), MEMBERS, ids=[".".join(pair) for pair in MEMBERS])
def test_a_member_is_here_or_there_is_a_reason(name: str, member: str) -> None:
    cls = ours(name)
    key = f"{name}.{member}"
    if key in MISSING_MEMBERS:
        assert not hasattr(cls, member), f"{cls}.{member} exists: take it out of MISSING_MEMBERS"
        return
    assert hasattr(cls, member), f"{cls} has no {member}, and MISSING_MEMBERS no reason"
    their_class = IN_PYTHON.get(getattr(asyncio, name), getattr(asyncio, name))
    their_member, my_member = getattr(their_class, member), getattr(cls, member)
    if not callable(their_member):
        assert not inspect.isfunction(my_member)
        return
    if key in DIFFERENT:
        return
    wrong = incompatibilities(signature_of(their_member), signature_of(my_member))
    assert not wrong, f"{cls}.{member}{signature_of(my_member)}: {wrong}"


def test_the_table_of_members_names_what_asyncio_knows() -> None:
    for key in [*MISSING_MEMBERS, *(key for key in DIFFERENT if "." in key)]:
        name, _, member = key.partition(".")
        assert hasattr(getattr(asyncio, name), member), key


# --------------------------------------------------------------------- "asyncio's own works", made to work


async def answer(result: Any) -> Any:
    await asyncio.sleep(0)
    return result


def _future() -> None:
    future: asyncio.Future[int] = asyncio.Future()
    asyncio.get_running_loop().call_soon(future.set_result, 1)
    assert swapco.await_(future) == 1


def _all_tasks() -> None:
    async def inside() -> set[Any]:
        return asyncio.all_tasks()

    assert swapco.current_fiber() in swapco.await_(inside())


def _current_task() -> None:
    async def inside() -> Any:
        return asyncio.current_task()

    assert swapco.await_(inside()) is swapco.current_fiber()


def _ensure_future() -> None:
    assert swapco.await_(asyncio.ensure_future(answer(1))) == 1


def _get_event_loop() -> None:
    assert asyncio.get_event_loop() is asyncio.get_running_loop()


def _get_running_loop() -> None:
    assert isinstance(asyncio.get_running_loop(), swapco.Loop)


def _iscoroutine() -> None:
    coroutine = answer(1)
    assert asyncio.iscoroutine(coroutine)
    coroutine.close()


def _iscoroutinefunction() -> None:
    if sys.version_info < (3, 14):
        assert asyncio.iscoroutinefunction(answer)


def _isfuture() -> None:
    assert asyncio.isfuture(swapco.spawn(int))
    settle()


def _run_coroutine_threadsafe() -> None:
    loop = asyncio.get_running_loop()
    results: list[Any] = []
    done = asyncio.Event()

    def elsewhere() -> None:
        results.append(asyncio.run_coroutine_threadsafe(answer(1), loop).result(20))
        loop.call_soon_threadsafe(done.set)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    swapco.await_(done.wait())
    thread.join()
    assert results == [1]


def _set_event_loop() -> None:
    asyncio.set_event_loop(asyncio.get_running_loop())
    asyncio.set_event_loop(None)


def _wrap_future() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert swapco.await_(asyncio.wrap_future(pool.submit(lambda: 1))) == 1


WORKING: dict[str, Callable[[], None]] = {
    "Future": _future,
    "all_tasks": _all_tasks,
    "current_task": _current_task,
    "ensure_future": _ensure_future,
    "get_event_loop": _get_event_loop,
    "get_running_loop": _get_running_loop,
    "iscoroutine": _iscoroutine,
    "iscoroutinefunction": _iscoroutinefunction,
    "isfuture": _isfuture,
    "run_coroutine_threadsafe": _run_coroutine_threadsafe,
    "set_event_loop": _set_event_loop,
    "wrap_future": _wrap_future,
}


def test_every_claim_is_checked() -> None:
    assert set(WORKING) == {name for name, reason in MISSING.items() if reason is ASYNCIOS_OWN}


@pytest.mark.parametrize("name", sorted(WORKING))
@in_fiber
def test_asyncios_own_works(name: str) -> None:
    WORKING[name]()
