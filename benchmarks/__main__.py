"""The command line: ``python -m benchmarks``, from the root of the repository.

    python -m benchmarks                      every row, 7 rounds: about 8 minutes
    python -m benchmarks --quick              every row, 3 short rounds: about 80 s, only for a first look
    python -m benchmarks --only 'echo-*' switch --rounds 11 --json out.json

Exit status: 0 when everything was measured, whether or not the bars were met; 1 when a measurement failed
or swapco cannot be imported, and with ``--strict`` also when a bar was missed or a peer is not installed;
2 for a wrong option or a missing compiler; 130 after Ctrl-C (what was measured so far is still reported).
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

from benchmarks import harness, report, rows
from benchmarks.loadgen import LoadgenError

ROUNDS = 7
QUICK_ROUNDS = 3


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        chosen = rows.select(options.only)
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    if options.list:
        print(list_of(chosen))
        return 0
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    measured: dict[rows.Variant, harness.Samples] = {}
    interrupted = False
    try:
        harness.measure_rounds(rows.variants(chosen), rounds, options.quick, progress, measured)
    except KeyboardInterrupt:
        interrupted = True
    except LoadgenError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    finally:
        progress("")
    environment = report.describe_environment(rounds, options.quick)
    results = [
        report.result(row, measured[row.ours], report.peer_samples(row, measured), environment["cpus"])
        for row in chosen
    ]
    print_report(results, measured, environment)
    if options.json:
        text = json.dumps(report.as_json(results, measured, environment), indent=1)
        options.json.write_text(text + "\n")
    return status_of(results, options.strict, interrupted)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="swapco against its peers, in interleaved rounds."
    )
    parser.add_argument("--list", action="store_true", help="list the rows and their bars, measure nothing")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these rows (names or globs)")
    parser.add_argument("--quick", action="store_true", help=f"short measurements, {QUICK_ROUNDS} rounds")
    parser.add_argument("--rounds", type=positive, metavar="N", help=f"rounds (default: {ROUNDS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument(
        "--strict", action="store_true", help="status 1 if a bar is missed or a peer is missing"
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def list_of(chosen: list[rows.Row]) -> str:
    lines = [
        (row.name, row.work, row.peer_name, "-" if row.bar is None else f"{row.bar:.2f}") for row in chosen
    ]
    return report.format_table(("row", "work", "against", "bar"), lines, left=3)


def progress(what: str) -> None:
    """One line on standard error that overwrites itself; nothing where that is not a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def print_report(
    results: list[report.Result],
    measured: dict[rows.Variant, harness.Samples],
    environment: dict[str, object],
) -> None:
    print(textwrap.fill(", ".join(f"{name} {value}" for name, value in environment.items()), 100), end="\n\n")
    print(report.rows_table(results))
    if servers := report.servers_table(measured):
        print(f"\n{servers}")
    for note in report.notes(measured, results):
        print(f"\nnote: {note}")


def status_of(results: list[report.Result], strict: bool, interrupted: bool) -> int:
    if interrupted:
        return 130
    if any(outcome.failed for outcome in results):
        return 1
    missed = any(outcome.passed is False or outcome.ratio is None for outcome in results)
    return 1 if strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
