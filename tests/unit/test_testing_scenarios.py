"""The bars of ``benchmarks.testing_scenarios``: which figures meet them, what is printed, and the exit status."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import testing_scenarios
from benchmarks.harness import ROOT
from benchmarks.testing_scenarios import Figures, lines_of_bars, status_of

GOOD = Figures("Machine", 40, 40, 40, 30, 40, 38, cpu=(0.2, *[0.4] * 38, 1.0), wall=(9.0,) * 40)


def met(figures: Figures) -> list[bool]:
    return [met for _, _, met in figures.bars()]


def test_figures_at_the_bars_meet_them() -> None:
    """95 % and 1 s are enough; wall time does not count."""
    assert met(GOOD) == [True, True, True]
    assert status_of([GOOD, GOOD], strict=True) == 0


@pytest.mark.parametrize(
    ("changed", "which"),
    [
        ({"both": 37}, [False, True, True]),
        ({"cpu": (0.4,) * 39 + (1.01,)}, [True, True, False]),
        ({"cpu": (1.01,) * 40}, [True, False, False]),
    ],
)
def test_a_missed_bar_is_named_and_a_status_only_if_strict(changed: dict[str, Any], which: list[bool]) -> None:
    missed = replace(GOOD, **changed)
    assert met(missed) == which
    assert [line.endswith(", met") for line in lines_of_bars([missed])] == which
    assert [line.endswith(", MISSED") for line in lines_of_bars([missed])] == [not one for one in which]
    assert status_of([GOOD, missed], strict=False) == 0
    assert status_of([GOOD, missed], strict=True) == 1


def test_the_lines_say_the_bar_and_the_figure() -> None:
    assert lines_of_bars([GOOD]) == [
        "Machine       minimal scenario and schedule in 95% of the runs: 95.0%, met",
        "Machine       median within 1 s: 0.40 s, met",
        "Machine       slowest within 1 s: 1.00 s, met",
    ]


def test_a_run_that_finds_nothing_or_proves_nothing_counts_against_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minimal, but not proved; proved, but not minimal; nothing; both."""
    runs = [("minimal", False), ("larger", True), None, ("minimal", True)]

    class Shown:
        def __init__(self, minimal: bool) -> None:
            self.minimal = minimal

    def measured(machine: Any, number: int) -> dict[str, Any]:
        run = runs[number]
        shown = {} if run is None else {"scenario": run[0], "result": Shown(run[1])}
        return shown | {"cpu": 0.1, "wall": 0.1}

    monkeypatch.setattr(testing_scenarios, "measure", measured)
    monkeypatch.setattr(testing_scenarios, "is_minimal", lambda machine, scenario: scenario == "minimal")
    monkeypatch.setattr(testing_scenarios, "size", len)
    figures = testing_scenarios.figures_of(testing_scenarios.QueueMachine, 4)
    assert (figures.runs, figures.found, figures.minimal, figures.proved, figures.both) == (4, 3, 2, 2, 1)
    assert figures.bars()[0][1:] == ("25.0%", False)


def test_the_command_prints_figures_and_bars_of_every_machine() -> None:
    command = [sys.executable, "-m", "benchmarks.testing_scenarios", "--seeds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for machine in testing_scenarios.MACHINES:
        named = [line for line in done.stdout.splitlines() if line.startswith(machine.__name__)]
        assert len(named) == 4
        assert "found 1 of 1" in named[0]
        assert all(line.endswith((", met", ", MISSED")) for line in named[1:])


def test_a_number_of_seeds_that_is_none_is_a_wrong_option() -> None:
    with pytest.raises(SystemExit) as caught:
        testing_scenarios.main(["--seeds", "0"])
    assert caught.value.code == 2
