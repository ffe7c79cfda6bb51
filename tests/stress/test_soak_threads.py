"""The soak run with kernel threads (``python tests/soak_threads.py``) for a moment, with each kind of switch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import ROOT, environment

pytestmark = pytest.mark.stress


@pytest.mark.parametrize("switch", ["native", "greenlet"])
def test_a_short_soak_with_threads_passes(switch: str, seed: int, stress_seconds: float) -> None:
    program = str(ROOT / "tests" / "soak_threads.py")
    seconds = str(3 * stress_seconds)
    result = subprocess.run(
        [sys.executable, program, "--seconds", seconds, "--seed", str(seed), "--switch", switch],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(PYTHONMALLOC="debug"),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "soak: passed" in result.stdout
