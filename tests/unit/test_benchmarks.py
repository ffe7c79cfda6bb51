"""The benchmark's arithmetic, tables and command line. Nothing here measures time."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks import __main__ as cli
from benchmarks import report, rows
from benchmarks.clocks import Laps, resident_bytes
from benchmarks.harness import ROOT, Samples, without_paths
from benchmarks.loadgen import LoadGenerator, LoadgenError, per_request

OURS = rows.Variant("laps", "work.on_swapco")
PEER = rows.Variant("laps", "work.on_peer")
SERVER = rows.Variant("serve", "work.on_peer", rows.Load(connections=50, batch=16))


def row(bar: float | None = 0.5) -> rows.Row:
    return rows.Row("name", "the work", "the peer", OURS, PEER, bar)


def samples(*values: float | None) -> Samples:
    return Samples([None if value is None else {"value": value} for value in values])


class TestRows:
    def test_names_are_unique(self) -> None:
        names = [each.name for each in rows.ROWS]
        assert len(set(names)) == len(names)

    def test_every_variant_exists_and_its_file_imports_no_library(self) -> None:
        before = set(sys.modules)
        for variant in rows.variants(list(rows.ROWS)):
            file, _, function = variant.path.rpartition(".")
            assert callable(getattr(importlib.import_module(f"benchmarks.work.{file}"), function))
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        assert not new & {"gevent", "greenlet", "swapco", "uvloop"}

    def test_sides_are_measured_alike(self) -> None:
        for each in rows.ROWS:
            if isinstance(each.peer, rows.Variant):
                assert (each.ours.kind, each.ours.load) == (each.peer.kind, each.peer.load)

    def test_a_round_measures_each_variant_once_and_swapco_first(self) -> None:
        order = rows.variants(rows.select(["sleep-*"]))
        assert [variant.path for variant in order] == [
            "sleep_zero.on_swapco",
            "sleep_zero.on_uvloop",
            "sleep_zero.on_gevent",
            "sleep_zero.on_runloom",
            "sleep_zero.on_swapco_greenlets",
            "sleep_zero.on_swapco_deep",
            "sleep_zero.on_swapco_greenlets_deep",
        ]

    def test_select(self) -> None:
        assert rows.select([]) == list(rows.ROWS)
        assert [each.name for each in rows.select(["spawn", "queue-*"])] == [
            "queue-uvloop",
            "queue-gevent",
            "spawn",
        ]
        with pytest.raises(ValueError, match="no row is called 'nonsense'; there are: sleep-uvloop"):
            rows.select(["spawn", "nonsense"])


class TestStatistics:
    def test_ratio_is_the_median_of_the_rounds_not_the_ratio_of_medians(self) -> None:
        outcome = report.result(row(), samples(1.0, 2.0, 9.0), samples(4.0, 4.0, 10.0))
        assert outcome.ratios == (0.25, 0.5, 0.9)
        assert outcome.ratio == 0.5
        assert (outcome.ours, outcome.peer) == (2.0, 4.0)

    def test_only_rounds_with_both_sides_count(self) -> None:
        assert report.per_round_ratios(samples(1.0, None, 3.0, 5.0), samples(2.0, 2.0, None, 10.0)) == (
            0.5,
            0.5,
        )

    def test_an_interrupted_round_has_one_side_only(self) -> None:
        assert report.per_round_ratios(samples(1.0, 1.0), samples(2.0)) == (0.5,)

    @pytest.mark.parametrize(
        ("bar", "passed", "verdict"), [(0.5, True, "pass"), (0.499, False, "FAIL"), (None, None, "-")]
    )
    def test_bar(self, bar: float | None, passed: bool | None, verdict: str) -> None:
        outcome = report.result(row(bar), samples(1.0), samples(2.0))
        assert outcome.passed is passed
        assert report.verdict(outcome) == verdict

    def test_a_bound_is_the_same_in_each_round(self) -> None:
        bounded = replace(row(1.0), peer=rows.Bound(5.0))
        ours = samples(4.0, None, 6.0)
        outcome = report.result(bounded, ours, report.peer_samples(bounded, {OURS: ours}))
        assert (outcome.ratios, outcome.peer, outcome.passed) == ((0.8, 1.2), 5.0, True)
        assert rows.variants([bounded]) == [OURS]

    @pytest.mark.parametrize(("peer", "cpus", "applies"), [(30.0, 2, True), (29.0, 2, False), (30.0, 1, False)])
    def test_a_bar_that_does_not_apply_is_no_verdict(self, peer: float, cpus: int, applies: bool) -> None:
        conditional = replace(row(0.1), peer_from_ns=30.0, cpus=2)
        outcome = report.result(conditional, samples(10.0), samples(peer), cpus)
        assert (outcome.bar, outcome.passed) == ((0.1, False) if applies else (None, None))
        assert (outcome.reason is None) is applies
        assert cli.status_of([outcome], strict=True, interrupted=False) == applies

    def test_an_error_never_passes(self) -> None:
        broken = samples(1.0, None)
        broken.error = "it crashed"
        outcome = report.result(row(), broken, samples(9.0, 9.0))
        assert (outcome.passed, outcome.failed, report.verdict(outcome)) == (None, True, "error")
        assert outcome.reason == "work.on_swapco: it crashed"

    def test_a_missing_peer_is_no_failure_but_missing_swapco_is(self) -> None:
        missing = Samples([None], missing="No module named 'gone'")
        without_peer = report.result(row(), samples(1.0), missing)
        assert (without_peer.failed, report.verdict(without_peer)) == (False, "no peer")
        assert report.result(row(), missing, samples(1.0)).failed
        assert cli.status_of([without_peer], strict=False, interrupted=False) == 0
        assert cli.status_of([without_peer], strict=True, interrupted=False) == 1

    def test_status(self) -> None:
        missed = report.result(row(0.1), samples(1.0), samples(2.0))
        met = report.result(row(0.9), samples(1.0), samples(2.0))
        assert cli.status_of([missed, met], strict=False, interrupted=False) == 0
        assert cli.status_of([missed, met], strict=True, interrupted=False) == 1
        assert cli.status_of([met], strict=True, interrupted=False) == 0
        assert cli.status_of([met], strict=False, interrupted=True) == 130

    def test_laps_leave_the_warm_up_out(self) -> None:
        laps = Laps(repeats=3, scale=0.5)
        assert laps.scaled(10) == 5
        for lap, cpu_ns in zip(laps, (900, 30, 10, 20), strict=True):
            with lap(10):
                pass
            lap.cpu_ns, lap.wall_ns = cpu_ns, 2 * cpu_ns
        assert laps.result() == {"value": 2.0, "wall_ns": 4.0}

    def test_laps_in_wall_time(self) -> None:
        laps = Laps(repeats=1)
        for lap in laps:
            with lap(1):
                pass
            lap.cpu_ns, lap.wall_ns = 10, 20
        assert laps.wall_result() == {"value": 20.0, "cpu_ns": 10.0}

    def test_a_lap_that_was_not_timed_is_an_error(self) -> None:
        with pytest.raises(RuntimeError, match="untimed"):
            Laps(repeats=1).result()

    def test_per_request(self) -> None:
        window = {
            "requests": 1000,
            "seconds": 0.5,
            "server_cpu_ns": 4e8,
            "loadgen_cpu_ns": 5e8,
            "p50_us": 3.0,
        }
        assert per_request(window) == {
            "value": 4e5,
            "requests_per_s": 2000.0,
            "server_busy": 0.8,
            "loadgen_busy": 1.0,
            "p50_us": 3.0,
        }

    def test_resident_bytes_is_that_of_a_python_process(self) -> None:
        assert 1 << 20 < resident_bytes() < 1 << 36


class TestReport:
    @pytest.mark.parametrize(
        ("value", "unit", "text"),
        [
            (None, "ns", "-"),
            (9.994, "ns", "9.99 ns"),
            (9.996, "ns", "10.0 ns"),
            (412.4, "ns", "412 ns"),
            (999.6, "ns", "1.00 µs"),
            (6540.0, "ns", "6.54 µs"),
            (2.5e9, "ns", "2500 ms"),
            (8240.0, "B", "8.24 kB"),
        ],
    )
    def test_format_value(self, value: float | None, unit: str, text: str) -> None:
        assert report.format_value(value, unit) == text

    def test_format_table(self) -> None:
        assert report.format_table(("a", "bb"), [("xxx", "1"), ("y", "100")]).splitlines() == [
            "a     bb",
            "---  ---",
            "xxx    1",
            "y    100",
        ]

    def test_rows_table(self) -> None:
        outcome = report.result(row(0.5), samples(400.0, 500.0, 600.0), samples(1000.0, 1000.0, 1000.0))
        cells = report.rows_table([outcome]).splitlines()[-1].split("  ")
        assert [cell.strip() for cell in cells if cell] == [
            "name", "the work", "the peer", "500 ns", "1.00 µs", "0.500", "0.40..0.60", "0.50", "pass",
        ]  # fmt: skip

    def test_servers_table(self) -> None:
        seen = {
            "value": 6500.0,
            "requests_per_s": 123456.0,
            "p50_us": 800.0,
            "p99_us": 1500.0,
            "server_busy": 0.99,
        }
        text = report.servers_table({SERVER: Samples([seen]), OURS: samples(1.0)})
        assert text.splitlines()[2].split("  ")[0] == "work.on_peer (50 conn. x 16)"
        assert "6.50 µs" in text
        assert "123,456" in text
        assert report.servers_table({OURS: samples(1.0)}) == ""

    def test_notes(self) -> None:
        waited = Samples([{"value": 100.0, "wall_ns": 200.0}])
        idle = Samples([{"value": 100.0, "server_busy": 0.5}])
        missing = Samples([None], missing="No module named 'gone'")
        twice = [report.result(row(), missing, samples(1.0))] * 2
        found = report.notes({OURS: waited, SERVER: idle}, twice)
        assert found[0] == "not measured: No module named 'gone'"
        assert "2.0 x CPU time" in found[1]
        assert "busy for only 50%" in found[2]
        assert len(found) == 3
        assert not report.notes({OURS: Samples([{"value": 100.0, "wall_ns": 101.0}])}, [])

    def test_json(self) -> None:
        ours, peer = samples(1.0, 2.0), samples(4.0, 4.0)
        environment = report.describe_environment(rounds=2, quick=True)
        whole = report.as_json([report.result(row(), ours, peer)], {OURS: ours, PEER: peer}, environment)
        read = json.loads(json.dumps(whole))
        assert read["rows"][0]["ratio"] == 0.375
        assert read["rows"][0]["verdict"] == "pass"
        assert read["measurements"]["work.on_swapco"]["rounds"] == [{"value": 1.0}, {"value": 2.0}]
        assert set(read["environment"]) == {
            "date", "rounds", "quick", "python", "swapco", "greenlet", "uvloop", "gevent", "runloom",
            "kernel", "machine", "cpu_model", "cpus",
        }  # fmt: skip

    def test_published_text_has_no_paths(self) -> None:
        text = f'File "{ROOT}/swapco/x.py" and "{sys.prefix}/lib/y.py"'
        assert without_paths(text) == 'File "swapco/x.py" and "lib/y.py"'


class TestCommandLine:
    def test_list(self) -> None:
        command = [sys.executable, "-m", "benchmarks", "--list", "--only", "echo-*"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        names = [line.split()[0] for line in listed.stdout.splitlines()[2:]]
        assert names == ["echo-greenlets", "echo-gevent", "echo-protocol", "echo-streams", "echo-single"]

    def test_an_unknown_row(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["--only", "nonsense"]) == 2
        assert "no row is called 'nonsense'" in capsys.readouterr().err

    def test_a_missing_compiler_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CC", "no-such-compiler")
        with pytest.raises(LoadgenError, match="'no-such-compiler' was not found: install gcc"):
            with LoadGenerator(cpu=0, spin=False, quick=True):
                pass
