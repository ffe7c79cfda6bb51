"""How many fibers there can be on native stacks, and what happens when no more fit.

A parked fiber costs the pages that it has touched.  Address space is plentiful, unless somebody limits it: then
stacks are smaller, and at last a fiber that cannot start fails with MemoryError; everybody else goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers import run_program

PRELUDE = """
import asyncio, functools, gc, resource, sys, time
import swapco
from swapco import *
from swapco._core.native_switch import statistics

def resident_kib():
    with open("/proc/self/smaps_rollup") as file:
        return int(next(line for line in file if line.startswith("Rss:")).split()[1])

def page_tables_kib():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmPTE:")).split()[1])

def deep(depth, function):
    if depth == 0:
        return function()
    return sorted([depth], key=lambda x: deep(depth - 1, function))

def works():
    assert gather(*[functools.partial(sleep, 0.001, n) for n in range(5)]) == list(range(5))
    assert await_(asyncio.sleep(0.001, "slept")) == "slept"
"""


def report(program: str, timeout_s: float = 60) -> list[str]:
    """The words that the program prints at last; it runs on native stacks."""
    result = run_program(PRELUDE + program, timeout_s=timeout_s, SWAPCO_SWITCH="native")
    assert result.returncode == 0, result.stderr[-3000:] + result.stdout
    return result.stdout.split()


def available_kib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0


@pytest.mark.once
@pytest.mark.timeout(600)
@pytest.mark.skipif(available_kib() < 8 << 20, reason="takes 5 GiB of memory")
def test_half_a_million_fibers_are_parked_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    each, of_it_tables = map(
        float,
        report(
            """
COUNT = 500_000

def parked(number):
    return block() + number

def main():
    before, tables = resident_kib(), page_tables_kib()
    fibers = [spawn(parked, number) for number in range(COUNT)]
    sleep(0)
    while any(fiber.wait_reason is None for fiber in fibers[-10:]):
        sleep(0)
    kib, tables = resident_kib() - before, page_tables_kib() - tables
    for fiber in fibers:
        resume(fiber, 1)
    for number, fiber in enumerate(fibers):
        assert fiber.join() == number + 1
    works()
    print((kib + tables) * 1024 / COUNT, tables * 1024 / COUNT)

gc.disable()
run(main)
""",
            timeout_s=500,
        ),
    )
    with capsys.disabled():
        print(f"\n{each:.0f} bytes a parked fiber, {of_it_tables:.0f} of them page tables")
    assert 4096 < each < 16 * 1024


#: 3.11 does not count C calls apart: it has no small stacks.
SCARCE_STACK = 8 << 20 if sys.version_info < (3, 12) else 1 << 20


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later versions have small stacks for this")
def test_a_process_with_a_limit_takes_greenlets_on_3_11() -> None:
    limited = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30,) * 2)\n"
        "import swapco._core.backends as backends\n"
        "print(backends.make_backend().name, backends.NATIVE_REFUSAL)"
    )
    result = run_program(limited, SWAPCO_SWITCH="")
    assert result.stdout.startswith("greenlet address space is limited"), result.stderr + result.stdout


@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
@pytest.mark.parametrize("mib", [2048, 512, 200])
def test_under_a_limit_stacks_are_smaller_and_those_that_do_not_fit_fail(mib: int, kind: str) -> None:
    started, failed, smallest = map(
        int,
        report(
            f"""
def parked(number):
    kept.append(number)
    event.wait()
    return number

kept = []
event = Event()

def main():
    fibers = []
    # a fiber that fails for want of a stack is done; what waits, waits
    while len(fibers) < 20_000 and not (fibers and fibers[-1].done()):
        fibers.append(spawn(parked, len(fibers)))
        sleep(0)
    started = len(kept)
    for _ in range(3):
        one = spawn(int)
        wait([one])
        if len(fibers) < 20_000:
            assert isinstance(one.exception(), MemoryError), one
            assert "stack" in str(one.exception()), one.exception()
    smallest = statistics()["stack_bytes"]
    event.set()
    failed = 0
    for number, fiber in enumerate(fibers):
        wait([fiber])
        if fiber.exception() is None:
            assert fiber.result() == number
        else:
            assert isinstance(fiber.exception(), MemoryError)
            failed += 1
    fibers.clear()
    works()
    for _ in range(3):
        assert gather(*[functools.partial(sleep, 0, n) for n in range(20)]) == list(range(20))
    print(started, failed, smallest)

with open("/proc/self/statm") as file:
    used = int(file.read().split()[0 if "{kind}" == "RLIMIT_AS" else 5]) * resource.getpagesize()
resource.setrlimit(resource.{kind}, (used + ({mib} << 20),) * 2)
run(main)
""",
            timeout_s=110,
        ),
    )
    assert started + failed <= 20_001
    assert started >= mib // 16
    assert failed == 1
    # with little room there may be none left for another slab, of whatever size
    assert mib == 200 or smallest <= SCARCE_STACK


def test_a_loop_without_room_for_any_stack_says_so() -> None:
    words = report(
        """
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()

def main():
    # the first stacks are there since the import; take all the rest
    resource.setrlimit(resource.RLIMIT_AS, (used + (80 << 20), resource.RLIM_INFINITY))
    fibers = []
    while not (fibers and fibers[-1].done()):
        fibers.append(spawn(block))
        sleep(0)
    for fiber in fibers:
        resume(fiber, 1)
    results = []
    for fiber in fibers:
        try:
            results.append(fiber.join())
        except MemoryError as error:
            results.append(type(error).__name__)
    assert results.count(1) == len(results) - 1
    assert results[-1] == "MemoryError"
    works()
    # the next loop needs memory that is nobody's stack
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    print("alive")

for _ in range(3):
    run(main)
"""
    )
    assert words == ["alive"] * 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 has no small stacks")
def test_small_stacks_do_ordinary_work() -> None:
    """What everybody does with a stack: compile, import, regular expressions, a recursion up to its limit."""
    words = report(
        """
def ordinary(number):
    import re, json, decimal, statistics
    exec(compile("def f(x):\\n    return [y for y in range(x) if y % 2]\\nassert f(5) == [1, 3]", "source", "exec"))
    assert re.compile("(a|b)*c").match("abac")
    assert json.loads(json.dumps({"a": [number]})) == {"a": [number]}
    for recursion in (lambda: deep(100_000, int), lambda: json.loads("[" * 100_000)):
        try:
            recursion()
        except RecursionError:
            pass
    sleep(0)
    return number

def main():
    first = statistics()["stack_bytes"]
    while statistics()["stack_bytes"] == first:
        spawn(sleep, 3600)
        sleep(0)
    assert gather(*[functools.partial(ordinary, n) for n in range(10)]) == list(range(10))
    print(statistics()["stack_bytes"])

with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
run(main)
"""
    )
    assert int(words[0]) < 4 << 20


def test_fibers_one_after_the_other_share_few_stacks() -> None:
    first, stacks = map(
        int,
        report(
            """
def main():
    spawn(int).join()
    first = statistics()["stacks"]
    for number in range(100_000):
        assert spawn(abs, -number).join() == number
    print(first, statistics()["stacks"])

run(main)
"""
        ),
    )
    assert stacks <= first + 3


def test_loops_one_after_the_other_share_their_stacks() -> None:
    first, stacks, free = map(
        int,
        report(
            """
def main():
    gather(*[lambda: sleep(0)] * 100)

run(main)
first = statistics()["stacks"]
for _ in range(50):
    run(main)
print(first, statistics()["stacks"], statistics()["free"])
"""
        ),
    )
    assert first == stacks == free


def test_after_a_burst_the_memory_goes_back() -> None:
    at_rest, in_burst, after = map(
        int,
        report(
            """
def main():
    gather(*[lambda: sleep(0)] * 100)
    at_rest = resident_kib()
    event = Event()
    fibers = [spawn(deep, 60, event.wait) for _ in range(2000)]
    while any(fiber.wait_reason is None for fiber in fibers):
        sleep(0)
    in_burst = resident_kib()
    event.set()
    for fiber in fibers:
        fiber.join()
    fibers.clear()
    # idle stacks are let go over time, a half of them a second
    give_up = time.monotonic() + 30
    while resident_kib() > at_rest + (in_burst - at_rest) // 4 and time.monotonic() < give_up:
        sleep(0.1)
    print(at_rest, in_burst, resident_kib())

run(main)
"""
        ),
    )
    assert in_burst - at_rest > 2000 * 100
    assert after - at_rest <= (in_burst - at_rest) // 4


def test_deep_stacks_give_their_pages_back_at_once() -> None:
    """A stack that went deep is cleaned when it is freed, also when it stays in use as a warm one."""
    before, after = map(
        int,
        report(
            """
def main():
    gather(*[functools.partial(deep, 1, int)] * 50)

run(main)
before = resident_kib()
run(lambda: gather(*[functools.partial(deep, 60, lambda: sleep(0))] * 50))
gc.collect()
print(before, resident_kib())
"""
        ),
    )
    # 60 levels take 300 KiB a stack
    assert after - before < 50 * 150
