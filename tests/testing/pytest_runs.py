"""Runs pytest on a file of tests, in a process and a directory of its own."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import small_programs

ROOT = Path(__file__).parents[2]

HEAD = """
import swapco
import pytest
from hypothesis import Phase, settings
from swapco import testing

# a tenth of the time: "explain" traces every line
settings.register_profile("short", max_examples=30, phases=[phase for phase in Phase if phase is not Phase.explain])
settings.load_profile("short")


"""
HEAD += inspect.getsource(small_programs.lost_update) + "\n\n" + inspect.getsource(small_programs.correct)


class Ran(NamedTuple):
    """A run of pytest."""

    text: str
    outcomes: dict[str, int]
    """``{"passed": 2, "failed": 1}``"""


def run_pytest(directory: Path, source: str, *arguments: str, **environment: str) -> Ran:
    """Write ``test_it.py`` and run it."""
    (directory / "test_it.py").write_text(HEAD + source)
    (directory / "pytest.ini").write_text("[pytest]\n")
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    mine = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200", **environment}
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "SWAPCO", "COV"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "test_it.py"],
        cwd=directory, env={**ours, **mine}, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    text = done.stdout + done.stderr
    last = [line for line in text.splitlines() if re.search(r" in [\d.]+s", line)]
    return Ran(text, {what: int(count) for count, what in re.findall(r"(\d+) (\w+)", last[-1] if last else "")})


def failure_files(directory: Path) -> dict[str, str]:
    """The recorded failures: names and contents."""
    return {file.name: file.read_text() for file in sorted((directory / ".swapco").glob("*"))}
