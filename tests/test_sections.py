"""Sections are opened where they must be (swapco/_core/here.pyx), and cannot be left open.

The C clean-up that ends a section runs however the function is left, also if it raises before the section was opened:
so the variable must have its first value before anything else happens.  The compiler does not check that; this does.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "swapco"
SOURCES = sorted(PACKAGE.rglob("*.pyx"))
DECLARED = re.compile(r"^ +cdef section here\b")
OPENED = re.compile(
    r"\b(running_fiber|running|host_here|enter|enter_if_attached|enter_if_owner)\((?P<arguments>[^()]*(?:\([^()]*\)[^()]*)*)\)"
)
FUNCTION = re.compile(r"^ *(?:async )?(?:def|cdef|cpdef)\b(?! class\b).*\(")
SECTION = re.compile(r"&here\.worker(, \w+)?$")
DEFINED = re.compile(r"\b(?:running_fiber|running|host_here|enter|enter_if_attached|enter_if_owner|_enter)\(")


def functions(path: Path) -> list[tuple[int, list[str]]]:
    """The functions of a file: line number and lines, signature included."""
    found: list[tuple[int, list[str]]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if FUNCTION.match(line) and "=" not in line.split("(")[0]:
            found.append((number, []))
        if found:
            found[-1][1].append(line)
    return found


def statements(lines: list[str]) -> list[str]:
    """The statements of a function, without its signature, docstring and comments."""
    text = "\n".join(lines)
    body = text[re.search(r":[ \t]*(#.*)?\n", text).end() :] if re.search(r":[ \t]*(#.*)?\n", text) else ""  # type: ignore[union-attr]
    body = re.sub(r'^\s*"""(?:.|\n)*?"""', "", body)
    return [line for line in body.splitlines() if line.strip() and not line.strip().startswith("#")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_section_has_its_first_value_before_anything_can_raise(path: Path) -> None:
    for number, lines in functions(path):
        body = statements(lines)
        if any(DECLARED.match(line) for line in body):
            assert body[0].strip() == "cdef section here = outside()", f"{path.name}:{number}: {body[0]!r} comes first"
            assert sum(bool(DECLARED.match(line)) for line in body) == 1, f"{path.name}:{number}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_whoever_asks_for_the_running_fiber_opens_a_section(path: Path) -> None:
    for number, lines in functions(path):
        if DEFINED.search(lines[0]):
            continue  # their definitions
        body = statements(lines)
        for line in body:
            for call in OPENED.finditer(line):
                assert SECTION.search(call["arguments"]), f"{path.name}:{number}: {line.strip()}"
                assert body[0].strip() == "cdef section here = outside()", f"{path.name}:{number}: {line.strip()}"


def test_both_find_what_is_wrong(tmp_path: Path) -> None:
    late, without = tmp_path / "late.pyx", tmp_path / "without.pyx"
    late.write_text("def f(x):\n    y = x.z\n    cdef section here = outside()\n    enter(&here.worker)\n")
    without.write_text("def f(x):\n    return running_fiber('x', NULL)\n")
    with pytest.raises(AssertionError, match="comes first"):
        test_a_section_has_its_first_value_before_anything_can_raise(late)
    with pytest.raises(AssertionError, match="running_fiber"):
        test_whoever_asks_for_the_running_fiber_opens_a_section(without)
