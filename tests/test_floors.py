"""The house has floors: a module imports only from lower floors, and some things are known on one floor only.

`FLOORS` is the list, from the ground up; modules of one floor do not know each other.  Imports and cimports
count alike, also those inside functions; `if TYPE_CHECKING:` does not (nothing is imported there when a
program runs), and neither do stubs.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "swapco"

FLOORS: list[tuple[str, ...]] = [
    # the core: no event loop in here
    (
        "_core", "_core.errors", "_core.states", "_core.wait", "_core.clock", "_core.policy", "_core.reasons",
        "_core.frames",
    ),
    ("_core.instrument", "_core.futex", "_core.affinity", "_core.switch", "_core.hub"),
    ("_core.placement", "_core.greenlet_switch", "_core.native_switch"),
    ("_core.slot", "_core.backends"),
    ("_core.here",),
    ("_core.fiber",),
    ("_core.lending",),
    ("_core.scheduler",),
    ("_core.verbs", "_core.parking_lot"),
    # the adapter to an asyncio loop
    ("_loop", "_loop.compat", "_loop.left_alone", "_loop.poller"),
    ("_loop.awaiting",),
    ("_loop.task",),
    ("_loop.deadlock", "_loop.slow"),
    ("_loop.loop",),
    # observers, from above
    ("monitor.kernel", "monitor.probe"),
    ("monitor.watchdog",),
    ("monitor",),
    # what programs use
    ("tasks", "runners", "timeouts"),
    ("groups", "waiting", "local", "lines", "threads", "from_thread"),
    ("locks", "_names"),
    ("queues", "socket"),
    ("_streams", "_streams.byte_queue"),
    ("_streams.reader",),
    ("_streams.writer",),
    ("_streams.server",),
    ("streams", "doctor"),
    ("__main__",),
    # for tests of programs: may use all of it, and nothing uses it
    ("testing.places",),
    ("testing.awaits",),
    (
        "testing.trace",
        "testing.owners",
        "testing.schedule",
        "testing.history",
    ),
    ("testing.errors", "testing.exhaust", "testing.models"),
    (
        "testing.control",
        "testing.shrink",
        "testing.linearizability",
        "testing.stuck",
        "testing.dpor",
        "testing.story",
    ),
    ("testing.strategies", "testing.timers", "testing.points", "testing.segments"),
    ("testing.loop", "testing.outside", "testing.wire", "testing.sequencing", "testing.systematic"),
    ("testing.controlled", "testing.memory_streams", "testing.transports"),
    ("testing.execution", "testing.network"),
    ("testing.report",),
    ("testing.timeline",),
    ("testing.search",),
    ("testing.candidates", "testing.properties"),
    ("testing.explore",),
    ("testing.stateful",),
    ("testing",),
    # only collect names
    ("lowlevel",),
    ("",),
]

#: Imports that go up all the same: (from, to) and why.
UPWARD: dict[tuple[str, str], str] = {}

CORE_MAY_IMPORT_OF_ASYNCIO = {"asyncio.exceptions", "asyncio.queues"}
#: Where code may name these modules.
ONLY_IN = {
    # the native switch asks whether it is inside one
    "greenlet": {"_core.greenlet_switch", "_core.native_switch"},
    "uvloop": {"_loop.loop"},
}
#: Where these C headers may be included.
HEADERS_ONLY_IN = {
    "greenlet/greenlet.h": {"_core.greenlet_switch", "_core.native_switch"},
    "native_switch.h": {"_core.native_switch"},
    "collection.h": {"_core.fiber"},
    "linux/futex.h": {"_core.futex"},
    # the system call, and the clock of its deadlines
    "futex.h": {"_core.futex", "_core.slot_word"},
    "detector.h": {"_core.slot"},
    "inheritance.h": {"_core.slot"},
    "placement.h": {"_core.slot", "_core.detector", "_core.inheritance"},
    "thread_look.h": {"monitor.probe"},
    "sys/epoll.h": {"_loop.poller"},
    "sys/eventfd.h": {"_loop.poller"},
    "sys/timerfd.h": {"_loop.poller"},
}
SUFFIXES = (".py", ".pyx", ".pxd", ".pxi")


class Import(NamedTuple):
    """One imported module, as an absolute dotted name, and where."""

    target: str
    line: int


# ---------------------------------------------------------------------------------------------- reading

_STRINGS_AND_COMMENTS = re.compile(
    r'(?P<quote>"""|\'\'\')(?:\\.|.)*?(?P=quote)|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*', re.S
)
_FROM = re.compile(r"^[ \t]*from[ \t]+(\.*[\w.]*)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n;]*)", re.M)
_IMPORT = re.compile(r"^[ \t]*c?import[ \t]+([\w., \t]+)", re.M)


def code_of(text: str) -> str:
    """Cython or Python source without its strings and comments; every line stays where it was."""
    text = text.replace("\\\n", "  ")
    return _STRINGS_AND_COMMENTS.sub(lambda match: "''" + "\n" * match[0].count("\n"), text)


@functools.cache
def modules() -> dict[str, list[Path]]:
    """Every module of the package by dotted name (without ``swapco.``), with its files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in SUFFIXES:
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            found.setdefault(".".join(parts).removesuffix("__init__").rstrip("."), []).append(path)
    return found


def absolute(module: str, is_package: bool, relative: str) -> str:
    """``..a.b`` as module ``module`` means it; names of swapco's modules lose the ``swapco.``."""
    dots = len(relative) - len(relative.lstrip("."))
    if dots == 0:
        return relative
    here = ["swapco", *filter(None, module.split("."))]
    base = here[: len(here) - (dots - (1 if is_package else 0))]
    return ".".join([*base, *filter(None, [relative[dots:]])])


def imports_of(module: str, is_package: bool, text: str, is_cython: bool) -> Iterator[Import]:
    """Every import in a source text, as absolute names; ``from a import b`` gives ``a`` and ``a.b``."""
    known = {f"swapco.{name}" for name in modules()}

    def from_import(source: str, names: list[str], line: int) -> Iterator[Import]:
        base = absolute(module, is_package, source)
        inside = [f"{base}.{name}" for name in names if f"{base}.{name}" in known]
        yield from (Import(name, line) for name in inside)
        if not names or len(inside) < len(names):
            yield Import(base, line)

    if not is_cython:
        for node in runtime_nodes(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from (Import(alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                yield from from_import(source, [alias.name for alias in node.names], node.lineno)
        return
    code = code_of(text)
    for match in _FROM.finditer(code):
        names = [part.split()[0] for part in match[2].strip("()").split(",") if part.split()]
        yield from from_import(match[1], names, code.count("\n", 0, match.start()) + 1)
    for match in _IMPORT.finditer(code):
        for part in match[1].split(","):
            yield Import(part.split()[0], code.count("\n", 0, match.start()) + 1)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime_nodes(node)


def all_imports() -> Iterator[tuple[str, Path, Import]]:
    for module, paths in modules().items():
        for path in paths:
            package = path.stem == "__init__"
            for found in imports_of(module, package, path.read_text(), path.suffix != ".py"):
                yield module, path, found


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


# ------------------------------------------------------------------------------------------------ floors

def test_every_module_has_one_floor() -> None:
    listed = [module for floor in FLOORS for module in floor]
    assert len(listed) == len(set(listed)), "a module is listed twice"
    assert set(modules()) - set(listed) == set(), "a module has no floor yet: put it into FLOORS"
    assert set(listed) - set(modules()) == set(), "FLOORS lists a module that is not there"


def test_imports_go_down() -> None:
    floor_of = {module: number for number, floor in enumerate(FLOORS) for module in floor}
    wrong: list[str] = []
    used: set[tuple[str, str]] = set()
    for module, path, found in all_imports():
        if found.target.partition(".")[0] != "swapco":
            continue
        target = found.target.removeprefix("swapco").lstrip(".")
        if target not in floor_of:
            wrong.append(f"{where(path, found.line)}: {found.target} is no module of swapco")
        elif target == module:
            continue  # a .pyx and its own .pxd; code that runs with the globals of another module
        elif floor_of[target] >= floor_of[module]:
            used.add((module, target))
            if (module, target) not in UPWARD:
                wrong.append(f"{where(path, found.line)}: {module} imports {target}, which is not below it")
    assert not wrong, "\n".join(wrong)
    assert used == set(UPWARD), "UPWARD lists an import that is not there any more"


def test_no_import_hides_in_a_call() -> None:
    for paths in modules().values():
        for path in paths:
            code = code_of(path.read_text())
            assert not re.search(r"\b(__import__|import_module)\b", code), f"{path} imports by a call"


@pytest.mark.parametrize(
    ("text", "is_cython", "expected"),
    [
        ("from .fiber cimport A, B as C\n", True, ["swapco._core.fiber"]),
        ("from .fiber cimport (\n    A,  # why\n    B,\n)\n", True, ["swapco._core.fiber"]),
        ("from .._loop.poller cimport *\n", True, ["swapco._loop.poller"]),
        ("from .. import tasks\n", True, ["swapco.tasks"]),
        ("def f():\n    from ..tasks import spawn\n", True, ["swapco.tasks"]),
        ("cimport cython\nimport os, uvloop.loop as x\n", True, ["cython", "os", "uvloop.loop"]),
        ('"""\nimport this\nfrom .a import b\n"""\n# import that\n', True, []),
        ("try:\n    from .fiber import A\nexcept ImportError:\n    pass\n", False, ["swapco._core.fiber"]),
        ("if TYPE_CHECKING:\n    from .scheduler import A\n", False, []),
        ("def f():\n    import swapco.tasks\n", False, ["swapco.tasks"]),
    ],
)
def test_the_parser(text: str, is_cython: bool, expected: list[str]) -> None:
    found = [entry.target for entry in imports_of("_core.example", False, text, is_cython)]
    assert sorted(found) == sorted(expected)


# --------------------------------------------------------------------------- what only one floor knows

def test_the_core_has_no_event_loop() -> None:
    for module, path, found in all_imports():
        if module.startswith("_core") and found.target.partition(".")[0] == "asyncio":
            assert found.target in CORE_MAY_IMPORT_OF_ASYNCIO, f"{where(path, found.line)}: {found.target}"
            assert module == "_core.errors", f"{where(path, found.line)}: only errors.py imports them"


def test_private_names_of_asyncio_are_used_in_compat_only() -> None:
    private = re.compile(
        r"\basyncio(?:\.\w+)*\._\w|^[ \t]*from[ \t]+asyncio[\w.]*[ \t]+import\b[^\n]*\b_[a-z]", re.M
    )
    for module, paths in modules().items():
        for path in paths:
            code = code_of(path.read_text())
            for match in private.finditer(code):
                line = code.count("\n", 0, match.start()) + 1
                assert module == "_loop.compat", f"{where(path, line)}: {match[0].strip()}"


@pytest.mark.parametrize("name", sorted(ONLY_IN))
def test_a_library_is_named_in_one_module_only(name: str) -> None:
    mentions = re.compile(rf"\b{name}\b|\bPyGreenlet" if name == "greenlet" else rf"\b{name}\b")
    for module, paths in modules().items():
        for path in paths:
            if module not in ONLY_IN[name]:
                code = code_of(path.read_text())
                found = mentions.search(code)
                assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_a_header_is_included_in_one_module_only() -> None:
    include = re.compile(r'cdef extern from "([^"]+)"|#[ \t]*include[ \t]*[<"]([^>"]+)[>"]')
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in SUFFIXES or path.suffix == ".h":
            module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            for match in include.finditer(path.read_text()):
                allowed = HEADERS_ONLY_IN.get(match[1] or match[2])
                assert allowed is None or module in allowed, f"{path.relative_to(ROOT)}: {match[0]}"


# ------------------------------------------------------------------------------------- only collect names

@pytest.mark.parametrize("name", ["__init__.py", "lowlevel.py"])
def test_it_only_reexports(name: str) -> None:
    for node in ast.parse((PACKAGE / name).read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        # __all__ and __version__
        dunder = isinstance(node, ast.Assign) and all(
            isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets
        )
        reexport = isinstance(node, ast.ImportFrom) and (node.level == 1 or node.module == "asyncio")
        assert docstring or dunder or reexport, f"swapco/{name}:{node.lineno} does more than re-export"


@pytest.mark.parametrize("name", ["_core", "_loop", "_streams"])
def test_an_inner_package_is_empty(name: str) -> None:
    body = ast.parse((PACKAGE / name / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr), f"swapco/{name}/__init__.py has more than its docstring"
