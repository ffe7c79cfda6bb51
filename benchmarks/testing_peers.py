"""``swapco.testing`` against its peers: ``python -m benchmarks.testing_peers``, from the root of the repository.

    python -m benchmarks.testing_peers                      speed and bugs, every tool that is installed
    python -m benchmarks.testing_peers --only swapco 'detangle*' --seeds 10 --json out.json
    python -m benchmarks.testing_peers --speed --rounds 7   only what a schedule costs; --bugs: only the table of bugs

Two questions, in two tables:

- *What does a schedule cost?* `SPEED` has rows like those of ``rows``, measured and shown as those are: CPU time of one
  schedule of 30 points, swapco beside each peer, in interleaved rounds of fresh processes. Other rows are of what else
  swapco promises, against a bound, and of virtual time beside trio's.
- *How many schedules until the bug is found?* For each tool and each program of ``testing_programs``: the median of the
  searches with different seeds, and the share of them that found it within 100 schedules. This counts, so it needs no
  quiet machine, and a tool and a seed give the same number everywhere. ``>1000``: no failure in as many schedules, in
  more than half of the searches. A strategy without a seed searches once.

What one must know to compare: a tool that stops threads between bytecodes has more points than the program says, so it
needs more schedules for the same bug, and finds others that the program does not have for fibers. A tool on asyncio
makes each wake-up a choice. How each is called stands in ``testing_tools``. None is a dependency; what is not installed
is left out, and the table says so. "no verdict": the run hung, and the tool stopped without calling that a failure.

Exit status: as of ``python -m benchmarks``. The bars of the second table: with its default strategy, swapco finds every
bug within 100 schedules on 95 % of the seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from benchmarks import harness, report, rows
from benchmarks.__main__ import positive, progress, status_of
from benchmarks.child import die_with_parent
from benchmarks.rows import Bound, Row, Variant
from benchmarks.testing_programs import BUGS
from benchmarks.testing_tools import TOOLS, NoVerdict, Tool

SEEDS = 30
QUICK_SEEDS = 5
ROUNDS = 5
QUICK_ROUNDS = 2
WITHIN = 100
SHARE = 0.95
OURS = "swapco"
"""The tool that the bars are for."""
SEARCH_LIMIT_S = 60.0
"""A tool begins no other search of a program after this time; what it has by then is shown."""
CHILD_GRACE_S = 600.0
PACKAGES = ("swapco", "detangle", "simloom", "simloop", "frontrun", "interleave-test", "ploom", "trio")
BOOTSTRAP = "from benchmarks.testing_peers import child; child()"

WORK = "schedule of 3 flows, 30 points"
TEN_YEARS = "10 virtual years, 3,000 sleeps"
_swapco = Variant("laps", "schedules.on_swapco")


def _speed(name: str, peer: str, path: str, bar: float | None = None) -> Row:
    return Row(name, WORK, peer, _swapco, Variant("laps", f"schedules.{path}"), bar)


def _alone(name: str, work: str, bound: str, path: str, bound_ns: float) -> Row:
    """Against a bound."""
    return Row(name, work, bound, Variant("laps", f"exploring.{path}"), Bound(bound_ns), 1.0)


SPEED = (
    Row("explore", WORK, "10,000/s", _swapco, Bound(1e9 / 10_000), 1.0),
    _alone("dpor-semaphore", "exhaust a semaphore, 3 flows", "50 ms", "dpor_semaphore", 50e6),
    _alone("dpor-lock-cycle", "exhaust 3 locks in a circle", "50 ms", "dpor_lock_cycle", 50e6),
    _alone("shrink", "find, shrink, prove a failure of 90 decisions", "100 ms", "shrinking", 100e6),
    _alone("replay", "replay 100,000 decisions", "1 s", "replay", 1e9),
    _alone("years", TEN_YEARS, "100 ms", "ten_years", 100e6),
    Row(
        "years-trio", TEN_YEARS, "trio", Variant("laps", "exploring.ten_years"),
        Variant("laps", "exploring.ten_years_on_trio"), None,
    ),
    _alone("history", "check 1,000 operations of 4 flows", "500 ms", "history", 500e6),
    _speed("explore-detangle", "detangle", "on_detangle"),
    _speed("explore-interleave", "interleave-test, points", "on_interleave_test_points"),
    _speed("explore-interleave-opcodes", "interleave-test", "on_interleave_test"),
    _speed("explore-simloom", "simloom", "on_simloom"),
    _speed("explore-simloop", "simloop", "on_simloop"),
    _speed("explore-frontrun", "frontrun, tasks", "on_frontrun_tasks"),
    _speed("explore-frontrun-threads", "frontrun, threads", "on_frontrun_threads"),
    # it starts a process for each schedule, so its own CPU time says nothing
    Row("explore-ploom", WORK, "ploom", Variant("wall", _swapco.path), Variant("wall", "schedules.on_ploom"), None),
)


@dataclass(frozen=True)
class Searches:
    """One tool on one program: for each search the schedules until the failure (None: not found), or why none."""

    tool: str
    bug: str
    most: int
    found: tuple[int | None, ...] = ()
    missing: str | None = None
    no_verdict: str | None = None
    error: str | None = None

    @property
    def median(self) -> float | None:
        """Of the searches, one without success counting as infinite; None if that is the median."""
        middle = median(float("inf") if number is None else number for number in self.found)
        return None if middle == float("inf") else middle

    @property
    def share(self) -> float:
        """Of the searches that found the bug within the first `WITHIN` schedules."""
        return sum(number is not None and number <= WITHIN for number in self.found) / len(self.found)

    @property
    def cell(self) -> str:
        if self.missing:
            return "not installed"
        if self.error:
            return "error"
        if self.no_verdict:
            return "no verdict"
        if not self.found:
            return "-"
        middle = f">{self.most}" if self.median is None else f"{self.median:g}"
        return middle if len(self.found) == 1 else f"{middle} ({self.share:.0%})"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    tools = [tool for tool in TOOLS if matches(tool.name, options.only)]
    peers = [] if options.bugs else [row.peer_name for row in SPEED if not isinstance(row.peer, Bound)]
    if not tools and not any(matches(name, options.only) for name in peers):
        names = ", ".join(dict.fromkeys([*(tool.name for tool in TOOLS), *peers]))
        print(f"testing_peers: no tool is called so; there are: {names}", file=sys.stderr)
        return 2
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    measured: dict[Variant, harness.Samples] = {}
    searches: list[Searches] = []
    interrupted = False
    try:
        if not options.bugs:
            chosen = [row for row in SPEED if matches(row.peer_name, options.only) or isinstance(row.peer, Bound)]
            harness.measure_rounds(rows.variants(chosen), rounds, options.quick, progress, measured)
        if not options.speed:
            search_all(tools, seeds, searches)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        progress("")
    environment = report.describe_environment(rounds, options.quick) | {"seeds": seeds}
    environment |= {package: report.version_of(package) for package in PACKAGES}
    results = [
        report.result(row, measured[row.ours], report.peer_samples(row, measured))
        for row in SPEED
        if row.ours in measured and (isinstance(row.peer, Bound) or row.peer in measured)
    ]
    print(", ".join(f"{name} {value}" for name, value in environment.items()), end="\n\n")
    print_tables(results, measured, searches)
    if options.json:
        both = report.as_json(results, measured, environment) | {"searches": [asdict(one) for one in searches]}
        options.json.write_text(json.dumps(both, indent=1) + "\n")
    status = status_of(results, options.strict, interrupted)
    return status or status_of_bugs(searches, options.strict)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.testing_peers", description="swapco.testing against its peers."
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="TOOL", help="these tools (names or globs)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--speed", action="store_true", help="only what a schedule costs")
    what.add_argument("--bugs", action="store_true", help="only how many schedules each bug takes")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} short rounds, {QUICK_SEEDS} seeds")
    parser.add_argument("--rounds", type=positive, metavar="N", help=f"rounds of speed (default: {ROUNDS})")
    parser.add_argument("--seeds", type=positive, metavar="N", help=f"searches for a bug (default: {SEEDS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--strict", action="store_true", help="status 1 if a bar is missed or a peer is missing")
    return parser.parse_args(arguments)


def matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def search_all(tools: Sequence[Tool], seeds: int, into: list[Searches]) -> None:
    """Every program with each of `tools`, each pair in its own process; `into` is filled as the run goes."""
    for tool in tools:
        for bug, program in BUGS.items():
            progress(f"{tool.name}: {bug}")
            empty = Searches(tool.name, bug, tool.most)
            if program.blocks and not tool.blocks:
                into.append(empty)
            else:
                into.append(search_in_child(empty, seeds if tool.seeded else 1))


def search_in_child(empty: Searches, seeds: int) -> Searches:
    command = [sys.executable, "-c", BOOTSTRAP, empty.tool, empty.bug, str(seeds)]
    try:
        done = subprocess.run(
            command, cwd=harness.ROOT, env=harness.environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=SEARCH_LIMIT_S + CHILD_GRACE_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Searches(empty.tool, empty.bug, empty.most, error="one search took longer than the limit")
    if done.returncode or not done.stdout:
        last = harness.without_paths(done.stderr).strip().splitlines()[-harness.STDERR_LINES :]
        return Searches(empty.tool, empty.bug, empty.most, error="\n    ".join(last) or f"status {done.returncode}")
    answer = json.loads(done.stdout)
    return Searches(empty.tool, empty.bug, empty.most, **answer | {"found": tuple(answer.get("found", ()))})


def child() -> None:
    """In its own process: ``TOOL BUG SEEDS`` on the command line, one line of JSON on standard output."""
    die_with_parent()
    name, bug, seeds = sys.argv[1:]
    (tool,) = [tool for tool in TOOLS if tool.name == name]
    with redirect_stdout(sys.stderr):  # some talk while they work
        answer = answer_of(tool, bug, int(seeds))
    print(json.dumps(answer), flush=True)


def answer_of(tool: Tool, bug: str, seeds: int) -> dict[str, Any]:
    try:
        import_module(tool.module)
    except ImportError as error:
        return {"missing": harness.without_paths(str(error))}
    found: list[int | None] = []
    until_s = monotonic() + SEARCH_LIMIT_S
    for seed in range(1, seeds + 1):
        try:
            found.append(tool.search(BUGS[bug], seed, tool.most))
        except NoVerdict as reason:
            return {"no_verdict": str(reason)}
        if monotonic() > until_s:
            break
    return {"found": found}


def print_tables(
    results: Sequence[report.Result], measured: dict[Variant, harness.Samples], searches: Sequence[Searches]
) -> None:
    if results:
        print(report.rows_table(results))
        for note in report.notes(measured, results):
            print(f"\nnote: {note}")
    if searches:
        print(f"\nschedules to the failure: median (share of the seeds within {WITHIN})\n")
        print(bugs_table(searches))
        for note in notes_of(searches):
            print(f"\nnote: {note}")


def bugs_table(searches: Sequence[Searches]) -> str:
    """A line for each tool, a column for each bug."""
    tools = list(dict.fromkeys(one.tool for one in searches))
    cells = {(one.tool, one.bug): one.cell for one in searches}
    lines = [(tool, *(cells.get((tool, bug), "-") for bug in BUGS)) for tool in tools]
    return report.format_table(("tool", *BUGS), lines)


def notes_of(searches: Sequence[Searches]) -> list[str]:
    found = []
    for one in searches:
        if one.error or one.no_verdict:
            found.append(f"{one.tool}, {one.bug}: {one.error or one.no_verdict}")
        elif one.tool == OURS and one.found and one.share < SHARE:
            found.append(f"{one.tool}, {one.bug}: {one.share:.0%} within {WITHIN} schedules, the bar is {SHARE:.0%}")
    return found


def status_of_bugs(searches: Sequence[Searches], strict: bool) -> int:
    ours = [one for one in searches if one.tool == OURS]
    if any(one.error or one.missing for one in ours):
        return 1
    missed = any(one.share < SHARE for one in ours if one.found)
    return 1 if strict and (missed or any(one.missing for one in searches)) else 0


if __name__ == "__main__":
    sys.exit(main())
