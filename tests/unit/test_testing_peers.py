"""The programs with which ``benchmarks.testing_peers`` compares, and its arithmetic. Nothing here needs a peer."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys

import pytest

from benchmarks import rows, testing_peers
from benchmarks.clocks import Laps
from benchmarks.harness import ROOT
from benchmarks.testing_peers import SPEED, Searches
from benchmarks.testing_programs import BUGS, Program, Steps, body_of, main_of
from benchmarks.testing_tools import TOOLS
from benchmarks.testing_tools import swapco as search
from benchmarks.work import exploring
from swapco import run

PROGRAMS = pytest.mark.parametrize("program", [Steps, *BUGS.values()], ids=lambda program: program.__name__)


class TestPrograms:
    @PROGRAMS
    def test_the_order_of_production_is_right(self, program: type[Program]) -> None:
        run(body_of(program))

    @PROGRAMS
    def test_the_order_of_asyncio_is_right(self, program: type[Program]) -> None:
        asyncio.run(main_of(program)())

    @pytest.mark.parametrize("program", BUGS.values(), ids=lambda program: program.__name__)
    def test_every_bug_can_be_found(self, program: type[Program]) -> None:
        assert search(program, 1, 1000) is not None

    def test_the_program_for_speed_has_no_bug(self) -> None:
        assert search(Steps, 1, 200) is None


class TestSearches:
    def test_a_search_without_success_counts_as_infinite(self) -> None:
        assert Searches("tool", "bug", 1000, (3, None, 5)).median == 5
        assert Searches("tool", "bug", 1000, (3, None, None)).median is None
        assert Searches("tool", "bug", 1000, (3, None, None)).cell == ">1000 (33%)"

    def test_the_share_is_of_those_within_the_limit(self) -> None:
        assert Searches("tool", "bug", 1000, (3, 100, 101, None)).share == 0.5

    def test_one_search_has_no_share(self) -> None:
        assert Searches("tool", "bug", 1000, (80,)).cell == "80"

    def test_what_was_not_measured_says_why(self) -> None:
        assert Searches("tool", "bug", 1000, missing="No module").cell == "not installed"
        assert Searches("tool", "bug", 1000, no_verdict="it hung").cell == "no verdict"

    def test_a_missed_bar_is_noted_and_strict_only(self) -> None:
        missed = [Searches("swapco", "bug", 1000, (*[1] * 28, None, None))]
        assert "93%" in testing_peers.notes_of(missed)[0]
        assert testing_peers.status_of_bugs(missed, strict=False) == 0
        assert testing_peers.status_of_bugs(missed, strict=True) == 1


class TestTools:
    def test_names_are_unique(self) -> None:
        assert len({tool.name for tool in TOOLS}) == len(TOOLS)

    def test_every_row_measures_a_function(self) -> None:
        for variant in rows.variants(list(SPEED)):
            file, _, function = variant.path.rpartition(".")
            assert callable(getattr(importlib.import_module(f"benchmarks.work.{file}"), function))

    def test_a_tool_that_is_not_installed_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for tool in TOOLS:
            monkeypatch.setitem(sys.modules, tool.module, None)
            assert "missing" in testing_peers.answer_of(tool, "lost update", 1)

    def test_a_search_in_a_process_of_its_own_is_that_search(self) -> None:
        done = testing_peers.search_in_child(Searches("swapco", "lost update", 1000), 2)
        assert done.found == tuple(search(BUGS["lost update"], seed, 1000) for seed in (1, 2))

    def test_a_peer_that_is_in_the_table_of_speed_only_can_be_chosen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chosen: list[str] = []

        def no_measurement(variants: list[rows.Variant], *_: object) -> None:
            chosen.extend(variant.path for variant in variants)

        monkeypatch.setattr(testing_peers.harness, "measure_rounds", no_measurement)
        assert testing_peers.main(["--only", "trio"]) == 0
        assert "exploring.ten_years_on_trio" in chosen
        assert not [path for path in chosen if path.startswith("schedules.") and path != "schedules.on_swapco"]
        assert testing_peers.main(["--only", "trio", "--bugs"]) == 2

    def test_virtual_time_without_trio_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "trio", None)
        with pytest.raises(ImportError):
            exploring.ten_years_on_trio(Laps(1))

    def test_an_unknown_tool_is_a_wrong_option(self) -> None:
        command = [sys.executable, "-m", "benchmarks.testing_peers", "--only", "nothing"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "detangle" in done.stderr
