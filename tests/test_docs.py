"""Every Python block of the documentation runs, and prints what the page says that it prints.

A block that starts with ```` ```python ```` is a program of its own.  If the next block of the page is
```` ```output ````, it is the program's whole standard output.
"""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LIMIT_S = 60.0

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


class Program(NamedTuple):
    """A block of Python, where it stands, and what it must print (None: anything)."""

    page: Path
    line: int
    source: str
    output: str | None


def programs() -> list[Program]:
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks: list[re.Match[str] | None] = [*FENCE.finditer(text), None]
        for block, following in pairwise(blocks):
            if block is not None and block[1] == "python":
                output = following[2] if following is not None and following[1] == "output" else None
                found.append(Program(page, text.count("\n", 0, block.start()) + 1, block[2], output))
    return found


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "program", programs(), ids=lambda program: f"{program.page.relative_to(ROOT)}:{program.line}"
)
def test_a_program_of_the_documentation(program: Program) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.source],
        capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if program.output is not None:
        assert done.stdout == program.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(path), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:swapco|tests|docs|examples|benchmarks)/[\w./-]+)`", page.read_text())
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_are_named_exist(page: Path) -> None:
    for test, file in re.findall(r"`(test_\w+)` in\s+`(tests/[\w./]+)`", page.read_text()):
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file} has no {test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_rows_that_are_named_exist(page: Path) -> None:
    known = (ROOT / "benchmarks" / "rows.py").read_text()
    for names in re.findall(r"\brows? ((?:`[\w-]+`(?:, | and )?)+)", page.read_text()):
        for name in re.findall(r"`([\w-]+)`", names):
            assert f'"{name}"' in known, f"no row of the benchmark is called {name}"
