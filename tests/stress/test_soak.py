"""The soak run (``python tests/soak.py``) for a moment, with each kind of switch: it ends, and finds nothing.

The rule by which it finds memory that grows is tested apart, on made-up measurements.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import ROOT, environment
from soak import SLACK, growth

pytestmark = pytest.mark.stress


@pytest.mark.parametrize("switch", ["native", "greenlet"])
def test_a_short_soak_passes(switch: str, seed: int, stress_seconds: float) -> None:
    program = str(ROOT / "tests" / "soak.py")
    seconds = str(2 * stress_seconds)
    result = subprocess.run(
        [sys.executable, program, "--seconds", seconds, "--seed", str(seed), "--switch", switch],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(PYTHONMALLOC="debug"),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "soak: passed" in result.stdout


def samples(values: list[float]) -> list[dict[str, float]]:
    return [dict.fromkeys(SLACK, value) for value in values]


def test_a_heap_may_find_its_size_and_move() -> None:
    size = 50.0 * 2**20
    moving = [size * (1 + n % 7 / 20) for n in range(100)]
    assert growth(samples([size / 2] * 20 + moving)) == []


def test_steady_growth_is_found() -> None:
    found = growth(samples([50.0 * 2**20 * (1 + n / 100) for n in range(200)]))
    assert len(found) == len(SLACK)


def test_a_few_measurements_say_nothing() -> None:
    assert growth(samples([1.0, 1e12])) == []
