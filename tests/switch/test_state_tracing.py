"""Tracers, profilers and debuggers see what each fiber does, in any fiber, switched on and off at any moment.

The trace and profile functions belong to the thread; "inside a trace function" belongs to the stack.
"""

from __future__ import annotations

import cProfile
import faulthandler
import io
import json
import pdb
import pstats
import subprocess
import sys
import tempfile
import textwrap
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from helpers import SOON_S, environment, run_program
from state_support import CROWD, crowd, neighbours, pausing

import swapco

pytestmark = pytest.mark.usefixtures("fibers")
Events = list[tuple[str, str, Any]]


@pytest.fixture(autouse=True)
def tracers_are_put_back() -> Iterator[None]:
    trace, profile = sys.gettrace(), sys.getprofile()
    yield
    sys.settrace(trace)
    sys.setprofile(profile)


def work(n: int, depth: int, pause: Callable[[], None]) -> int:
    """What is traced: calls, lines, returns, a generator, an exception, with switches at each."""
    pause()
    total = depth
    if depth:
        total += work(n, depth - 1, pause)
    for value in items(n, pause):
        total += value
    try:
        fail(pause)
    except KeyError:
        pause()
    return total


def items(n: int, pause: Callable[[], None]) -> Iterator[int]:
    pause()
    yield n
    pause()


def fail(pause: Callable[[], None]) -> None:
    pause()
    raise KeyError


TRACED = ("work", "items", "fail")


def expected_of(n: int, depth: int) -> int:
    return depth * (depth + 1) // 2 + n * (depth + 1)


class Recorder:
    """A trace function: what happened in the traced functions, for each fiber."""

    def __init__(self, also: Callable[[], object] = int) -> None:
        self.events: dict[str, list[tuple[str, str]]] = {}
        self.also = also

    def __call__(self, frame: FrameType, event: str, arg: object) -> Recorder | None:
        if frame.f_code.co_name not in TRACED or frame.f_code.co_filename != __file__:
            return None
        self.events.setdefault(swapco.current_fiber().name, []).append((event, frame.f_code.co_name))
        self.also()
        return self

    def taken(self) -> dict[str, list[tuple[str, str]]]:
        events, self.events = self.events, {}
        return events


def alone(tracer: str, depth: int) -> list[tuple[str, str]]:
    """The events of one call outside fibers: what each fiber must see."""
    seen: list[tuple[str, str]] = []

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_name not in TRACED or frame.f_code.co_filename != __file__:
            return None
        seen.append((event, frame.f_code.co_name))
        return trace

    getattr(sys, tracer)(trace)
    try:
        work(1, depth, int)
    finally:
        getattr(sys, tracer)(None)
    # what a profiler sees of ``int`` here is not what it sees of a pause
    return [event for event in seen if not event[0].startswith("c_")]


@pytest.mark.parametrize("tracer", ["settrace", "setprofile"])
def test_each_fibers_events_are_those_of_its_code_alone(switch: str, tracer: str) -> None:
    """Every call, line, return and exception, in order, whatever runs in between."""
    recorder = Recorder()
    pause = pausing()

    def body(n: int) -> int:
        return work(n, 3, pause)

    def main() -> None:
        with neighbours():
            getattr(sys, tracer)(recorder)
            try:
                fibers = [swapco.spawn(body, n, name=f"body {n}") for n in range(CROWD)]
                assert [fiber.join() for fiber in fibers] == [expected_of(n, 3) for n in range(CROWD)]
            finally:
                getattr(sys, tracer)(None)

    swapco.run(main, switch=switch)
    expected = alone(tracer, 3)
    events = recorder.taken()
    assert sorted(events) == sorted(f"body {n}" for n in range(CROWD))
    for seen in events.values():
        assert [event for event in seen if not event[0].startswith("c_")] == expected


@pytest.mark.parametrize("tracer", ["settrace", "setprofile"])
def test_a_tracer_that_one_fiber_switches_on_and_off(switch: str, tracer: str) -> None:
    """Again and again while others are parked in the middle of traced functions: calls made while it is on are seen."""
    recorder = Recorder()
    pause = pausing()
    on = getattr(sys, tracer)

    def body(n: int) -> None:
        for _ in range(20):
            assert work(n, 3, pause) == expected_of(n, 3)

    def toggles() -> None:
        for k in range(40):
            on(recorder)
            for _ in range(1 + k % 3):
                swapco.sleep(0)
            on(None)
            assert getattr(sys, tracer.replace("set", "get"))() is None
            events = recorder.taken()
            swapco.sleep(0)
            assert not recorder.events
            seen.update(event for found in events.values() for event, _ in found)

    seen: Counter[str] = Counter()

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(body, n) for n in range(CROWD)]
            fibers.append(swapco.spawn(toggles))
            for fiber in fibers:
                fiber.join()

    swapco.run(main, switch=switch)
    assert seen["call"] > 0
    assert seen["return"] > 0


def test_a_call_made_after_switching_on_is_seen_by_every_fiber(switch: str) -> None:
    """Fibers that were parked when the tracer came: their next calls are traced, line by line."""
    recorder = Recorder()
    gate = swapco.Event()

    def body(n: int) -> int:
        gate.wait()
        return work(n, 2, lambda: swapco.sleep(0))

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(body, n, name=f"body {n}") for n in range(CROWD)]
            swapco.sleep(0)
            sys.settrace(recorder)
            gate.set()
            assert [fiber.join() for fiber in fibers] == [expected_of(n, 2) for n in range(CROWD)]
            sys.settrace(None)

    swapco.run(main, switch=switch)
    expected = alone("settrace", 2)
    assert recorder.taken() == {f"body {n}": expected for n in range(CROWD)}


def test_a_call_made_after_switching_off_is_seen_by_none(switch: str) -> None:
    """Fibers that were parked inside traced calls, and inside none."""
    recorder = Recorder()
    gate = swapco.Event()

    def body(n: int) -> int:
        return work(n, 2, gate.wait)

    def main() -> None:
        with neighbours():
            sys.settrace(recorder)
            fibers = [swapco.spawn(body, n) for n in range(CROWD)]
            swapco.sleep(0)
            sys.settrace(None)
            assert recorder.taken()
            gate.set()
            assert [fiber.join() for fiber in fibers] == [expected_of(n, 2) for n in range(CROWD)]

    swapco.run(main, switch=switch)
    assert not recorder.events


@pytest.mark.parametrize("tracer", ["settrace", "setprofile"])
def test_a_trace_function_that_waits(switch: str, tracer: str) -> None:
    """Its fiber is not traced meanwhile, all others are: also when several are inside it.

    greenlet leaves "inside a trace function" with the thread: there, nobody is traced meanwhile.
    """
    pause = pausing()
    recorder = Recorder(also=pause)

    def body(n: int) -> int:
        return work(n, 2, pause)

    def main() -> None:
        with neighbours():
            getattr(sys, tracer)(recorder)
            try:
                fibers = [swapco.spawn(body, n, name=f"body {n}") for n in range(CROWD)]
                assert [fiber.join() for fiber in fibers] == [expected_of(n, 2) for n in range(CROWD)]
            finally:
                getattr(sys, tracer)(None)

    swapco.run(main, switch=switch)
    expected = alone(tracer, 2)
    events = recorder.taken()
    assert events
    for seen in events.values() if switch == "native" else ():
        assert [event for event in seen if not event[0].startswith("c_")] == expected


def test_a_tracer_switched_off_while_fibers_wait_inside_it(switch: str) -> None:
    """They come back from it into a world without; and the next tracer sees them."""
    gate = swapco.Event()
    recorder = Recorder(also=lambda: gate.wait())

    def body(n: int) -> int:
        work(n, 1, int)
        return work(n, 1, lambda: swapco.sleep(0))

    def main() -> None:
        with neighbours():
            sys.settrace(recorder)
            fibers = [swapco.spawn(body, n, name=f"body {n}") for n in range(CROWD)]
            swapco.sleep(0)
            sys.settrace(None)
            assert {len(events) for events in recorder.taken().values()} == {1}
            gate.set()
            swapco.sleep(0)
            swapco.sleep(0)
            again = Recorder()
            sys.settrace(again)
            assert work(1, 1, lambda: swapco.sleep(0)) == expected_of(1, 1)
            sys.settrace(None)
            mine = again.taken()[swapco.current_fiber().name]
            assert [fiber.join() for fiber in fibers] == [expected_of(n, 1) for n in range(CROWD)]
            assert mine == alone("settrace", 1)

    swapco.run(main, switch=switch)


def test_a_trace_function_that_raises_ends_tracing_and_its_fibers_call(switch: str) -> None:
    """As outside fibers: the exception is that of the traced call; everybody else goes on untraced."""
    pause = pausing()
    raised: list[str] = []

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_name == "fail" and frame.f_code.co_filename == __file__:
            raised.append(swapco.current_fiber().name)
            pause()
            raise ArithmeticError("of the tracer")
        return None

    def body(n: int) -> str:
        pause()
        try:
            work(n, 1, pause)
        except ArithmeticError:
            return swapco.current_fiber().name
        return ""

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(body, n, name=f"body {n}") for n in range(CROWD)]
            sys.settrace(trace)
            try:
                names = [fiber.join() for fiber in fibers]
                assert sys.gettrace() is None
            finally:
                sys.settrace(None)
            assert sorted(filter(None, names)) == sorted(raised)
            assert raised

    swapco.run(main, switch=switch)


def test_lines_are_traced_in_a_frame_that_was_marked_while_parked(switch: str) -> None:
    """As a debugger does it: f_trace set on a parked fiber's frame, then tracing is on for its next calls."""
    lines: list[int] = []

    def local(frame: FrameType, event: str, arg: object) -> Any:
        lines.append(frame.f_lineno - frame.f_code.co_firstlineno)
        return local

    def body() -> int:
        swapco.block()
        a = 1
        return a + 1

    def main() -> None:
        fiber = swapco.spawn(body)
        swapco.sleep(0)
        frame = fiber.frame
        assert frame is not None
        frame.f_trace = local
        frame.f_trace_lines = True
        del frame
        sys.settrace(lambda *args: None)
        swapco.resume(fiber)
        assert fiber.join() == 2
        sys.settrace(None)

    swapco.run(main, switch=switch)
    # CPython 3.12 and later instrument code when it is entered: there may be nothing to see
    assert lines in ([], [2, 3, 3], [2, 3])


def test_threads_of_threading_settrace(switch: str) -> None:
    """A loop in a thread that was started with a tracer: all its fibers are traced, no one's elsewhere."""
    recorder = Recorder()
    pause = pausing()
    results: list[list[int]] = []

    def thread() -> None:
        results.append(crowd(lambda n: work(n, 2, pause), switch))

    threading.settrace(recorder)
    try:
        started = threading.Thread(target=thread)
        started.start()
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
    other = pausing()
    results.append(crowd(lambda n: work(n, 2, other), switch))
    started.join()
    assert results == [[expected_of(n, 2) for n in range(CROWD)]] * 2
    expected = alone("settrace", 2)
    assert recorder.taken() == {f"body {n}": expected for n in range(CROWD)}


# --------------------------------------------------------------------------------------------- sys.monitoring


if sys.version_info >= (3, 12):
    MONITORING_EVENTS = ["PY_START", "PY_RETURN", "PY_YIELD", "PY_RESUME", "PY_UNWIND", "RAISE", "LINE", "CALL"]

    @pytest.fixture
    def monitor() -> Iterator[Callable[[Callable[[str], object]], dict[str, Counter[tuple[str, str]]]]]:
        """Counts events of the traced functions, for each fiber."""
        tool = 4
        sys.monitoring.use_tool_id(tool, "test")

        def start(also: Callable[[str], object]) -> dict[str, Counter[tuple[str, str]]]:
            counts: dict[str, Counter[tuple[str, str]]] = {}

            def register(event: str) -> None:
                def callback(code: CodeType, *args: object) -> None:
                    if code.co_name in TRACED and code.co_filename == __file__:
                        name = swapco.current_fiber().name
                        counts.setdefault(name, Counter())[event, code.co_name] += 1
                        also(event)

                sys.monitoring.register_callback(tool, getattr(sys.monitoring.events, event), callback)

            for event in MONITORING_EVENTS:
                register(event)
            sys.monitoring.set_events(tool, sum(getattr(sys.monitoring.events, event) for event in MONITORING_EVENTS))
            return counts

        yield start
        sys.monitoring.set_events(tool, 0)
        for event in MONITORING_EVENTS:
            sys.monitoring.register_callback(tool, getattr(sys.monitoring.events, event), None)
        sys.monitoring.free_tool_id(tool)

    @pytest.mark.parametrize("waits", [False, True], ids=["callback", "callback that waits"])
    def test_monitoring_counts_what_each_fiber_does(switch: str, monitor: Any, waits: bool) -> None:
        """Starts, returns, yields, raises, lines: the same in each of many fibers, and as in one alone.

        greenlet leaves "inside a callback" with the thread: there, nobody is watched while one waits.
        """
        pause = pausing()
        counts = monitor(lambda event: pause() if waits and event in ("PY_START", "RAISE", "PY_RETURN") else None)

        def main() -> None:
            with neighbours():
                fibers = [swapco.spawn(work, n, 2, pause, name=f"body {n}") for n in range(CROWD)]
                assert [fiber.join() for fiber in fibers] == [expected_of(n, 2) for n in range(CROWD)]
                swapco.spawn(work, 1, 2, lambda: None, name="alone").join()

        swapco.run(main, switch=switch)
        expected = counts.pop("alone")
        assert expected["PY_START", "work"] == expected["PY_RETURN", "work"] == 3
        assert expected["PY_UNWIND", "fail"] == expected["RAISE", "fail"] == 3
        assert expected["PY_YIELD", "items"] == 3
        if switch == "native" or not waits:
            assert counts == {f"body {n}": expected for n in range(CROWD)}

    def test_monitoring_is_switched_while_fibers_are_parked(switch: str, monitor: Any) -> None:
        """The code of parked frames is instrumented, and is no longer, under them: they go on where they were."""
        pause = pausing()

        def body(n: int) -> None:
            for _ in range(20):
                assert work(n, 3, pause) == expected_of(n, 3)

        def toggles() -> int:
            seen = 0
            for _ in range(30):
                counts = monitor(lambda event: None)
                swapco.sleep(0)
                swapco.sleep(0)
                sys.monitoring.set_events(4, 0)
                seen += len(counts)
                swapco.sleep(0)
            return seen

        def main() -> None:
            with neighbours():
                fibers = [swapco.spawn(body, n) for n in range(CROWD)]
                assert swapco.spawn(toggles).join() > 0
                for fiber in fibers:
                    fiber.join()

        swapco.run(main, switch=switch)

    def test_a_local_event_that_is_disabled_from_its_callback(switch: str) -> None:
        """Lines that were seen once are not again, in any fiber: what coverage.py does."""
        tool = 4
        lines: list[int] = []

        def line(code: CodeType, number: int) -> object:
            lines.append(number - code.co_firstlineno)
            pause()
            return sys.monitoring.DISABLE

        pause = pausing()
        sys.monitoring.use_tool_id(tool, "test")
        try:
            sys.monitoring.register_callback(tool, sys.monitoring.events.LINE, line)
            sys.monitoring.set_local_events(tool, fail.__code__, sys.monitoring.events.LINE)
            assert crowd(lambda n: work(n, 2, pause), switch) == [expected_of(n, 2) for n in range(CROWD)]
        finally:
            sys.monitoring.set_local_events(tool, fail.__code__, 0)
            sys.monitoring.register_callback(tool, sys.monitoring.events.LINE, None)
            sys.monitoring.free_tool_id(tool)
        # those that came to it before the first callback returned have seen it, too
        assert set(lines) == {1, 2}


# -------------------------------------------------------------------------------------------------- profilers


def test_cprofile_counts_calls_in_fibers(switch: str) -> None:
    """Each call once, whichever fibers ran in between: enabled around run(), and inside a fiber."""
    pause = pausing()

    def count(profile: cProfile.Profile, name: str) -> int:
        stats = pstats.Stats(profile, stream=io.StringIO()).stats  # type: ignore[attr-defined]
        return sum(calls[1] for (file, _, function), calls in stats.items() if (file, function) == (__file__, name))

    outside = cProfile.Profile()
    outside.runcall(crowd, lambda n: work(n, 2, pause), switch)
    assert [count(outside, name) for name in ("work", "fail")] == [3 * CROWD] * 2

    inside = cProfile.Profile()

    def main() -> None:
        with neighbours():
            inside.enable()
            fibers = [swapco.spawn(work, n, 2, pause) for n in range(CROWD)]
            for fiber in fibers:
                fiber.join()
            inside.disable()

    swapco.run(main, switch=switch)
    assert [count(inside, name) for name in ("work", "fail")] == [3 * CROWD] * 2


def test_cprofile_switched_while_fibers_are_parked_in_profiled_calls(switch: str) -> None:
    """Returns without calls, and calls without returns: no crash, and whoever is profiled is counted."""
    pause = pausing()

    def body(n: int) -> None:
        for _ in range(10):
            assert work(n, 2, pause) == expected_of(n, 2)

    def toggles() -> None:
        for _ in range(20):
            profile = cProfile.Profile()
            profile.enable()
            for _ in range(4):
                swapco.sleep(0)
            profile.disable()
            profile.getstats()

    def main() -> None:
        with neighbours():
            fibers = [swapco.spawn(body, n) for n in range(CROWD)]
            swapco.spawn(toggles).join()
            for fiber in fibers:
                fiber.join()

    swapco.run(main, switch=switch)


def test_faulthandler_dumps_the_stack_of_the_running_fiber(switch: str) -> None:
    """From its innermost frame to its function, and not further; with others parked."""

    def dump() -> list[str]:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=False)
            file.seek(0)
            lines = file.read().decode().splitlines()
        assert lines[0].startswith(("Stack", "Current thread"))
        return [line.rpartition(" in ")[2] for line in lines[1:] if "state_support" not in line]

    def deeper(depth: int) -> list[str]:
        if depth:
            return deeper(depth - 1)
        pause()
        return dump()

    def body(n: int) -> None:
        for k in range(3):
            assert deeper(n + k) == ["dump", *["deeper"] * (n + k + 1), "body"]

    pause = pausing()
    crowd(body, switch)


def test_tracemalloc_attributes_to_the_fibers_own_frames(switch: str) -> None:
    """A traceback of an allocation holds its fiber's calls alone; what is allocated in one is freed in another."""
    here: list[bytearray] = []

    def allocate() -> bytearray:
        pause()
        return bytearray(1000)

    def body(n: int) -> None:
        for _ in range(5):
            block = allocate()
            pause()
            trace = tracemalloc.get_object_traceback(block)
            assert trace is not None
            lines = {allocate.__code__.co_firstlineno + 2, body.__code__.co_firstlineno + 2}
            assert {frame.lineno for frame in trace} == lines, trace
            here.append(block)
            pause()
            here.pop(0)

    pause = pausing()
    tracemalloc.start(20)
    try:
        crowd(body, switch)
    finally:
        tracemalloc.stop()


# -------------------------------------------------------------------------------------------------- coverage.py

# Two modules that have no line number in common: a line that is taken for the other's would show.
TAKING_TURNS = {
    "first.py": """
        import second, swapco
        def body(n):
            total = 0
            for k in range(3):
                swapco.sleep(0)
                total += second.inner(n, k)
            if total < 0:
                never = 1
            return total
        def main():
            return sum(fiber.join() for fiber in [swapco.spawn(body, n) for n in range(5)])
        print(swapco.run(main))
    """,
    "second.py": """
        import swapco
        def inner(n, k):
            swapco.sleep(0.00001)
            try:
                raise KeyError(n)
            except KeyError as error:
                swapco.sleep(0)
                value = error.args[0]
            if value < 0:
                return 0
            swapco.sleep(0)
            return value + k
    """,
}
CROSSING = {
    "first.py": """
        import second, swapco
        def body():
            swapco.block()
            only = 1
            if only == 2:
                never = 1
            return only
        def main():
            fiber = swapco.spawn(body)
            swapco.sleep(0)
            other = swapco.spawn(second.inner, fiber)
            return fiber.join() + other.join()
        print(swapco.run(main))
    """,
    "second.py": """
        import swapco
        def inner(fiber):
            swapco.resume(fiber)
            swapco.sleep(0)
            only = 44
            return only
    """,
}
OFFSETS = {"first.py": 0, "second.py": 100}


def not_covered(folder: Path, core: str, program: dict[str, str]) -> dict[str, list[int]]:
    """The lines of each file that coverage.py did not see run."""
    for name, text in program.items():
        (folder / name).write_text("\n" * OFFSETS[name] + textwrap.dedent(text).lstrip("\n"))
    command = [sys.executable, "-m", "coverage"]
    run = subprocess.run(
        [*command, "run", "first.py"], cwd=folder, env=environment(COVERAGE_CORE=core), capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, "45\n", "")
    subprocess.run([*command, "json", "-q"], cwd=folder, check=True, capture_output=True, timeout=60)
    files = json.loads((folder / "coverage.json").read_text())["files"]
    return {name: [line - OFFSETS[name] for line in files[name]["missing_lines"]] for name in program}


@pytest.mark.parametrize("core", ["ctrace", "pytrace", *(["sysmon"] if sys.version_info >= (3, 12) else [])])
def test_coverage_sees_the_lines_that_fibers_run(switch: str, tmp_path: Path, core: str) -> None:
    """With its defaults: each line that ran, of two modules between which fibers take turns, and no other."""
    assert not_covered(tmp_path, core, TAKING_TURNS) == {"first.py": [8], "second.py": [10]}


if sys.version_info >= (3, 12):

    def test_coverage_by_monitoring_takes_no_fibers_lines_for_anothers(switch: str, tmp_path: Path) -> None:
        """What one fiber runs after another has entered a different file.

        Its older cores keep one stack of calls a thread, and take these lines for the other file's: with native
        stacks, with greenlets, and with any threads that somebody switches by hand.
        """
        assert not_covered(tmp_path, "sysmon", CROSSING) == {"first.py": [6], "second.py": []}


# ------------------------------------------------------------------------------------------------------- pdb


def test_pdb_looks_at_a_parked_fiber(switch: str) -> None:
    """where, up, locals, an expression, a changed local: and the fiber goes on."""

    def leaf(z: int) -> int:
        q = z * 2
        swapco.block()
        return q

    def middle(z: int) -> int:
        return leaf(z + 1)

    def main() -> None:
        with neighbours():
            fiber = swapco.spawn(lambda: middle(5))
            swapco.sleep(0)
            out = io.StringIO()
            debugger = pdb.Pdb(stdin=io.StringIO("where\np q + 100\nup\np z + 200\ndown\nargs\nq\n"), stdout=out)
            debugger.reset()
            debugger.interaction(fiber.frame, None)
            sys.settrace(None)
            text = out.getvalue()
            assert "112\n" in text
            assert "205\n" in text
            assert "z = 6\n" in text
            assert "main()" not in text
            swapco.resume(fiber)
            assert fiber.join() == 12

    swapco.run(main, switch=switch)


def debug(program: str, commands: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a program that stops in pdb, with commands from its standard input."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", *flags, "-c", textwrap.dedent(program)],
        input=textwrap.dedent(commands), env=environment(), capture_output=True, text=True, timeout=SOON_S,
    )  # fmt: skip


PAUSED = """
    import pdb, swapco
    def inner(n):
        here = n * 10
        if n == 2:
            pdb.set_trace()
        swapco.sleep(0)
        there = here + 1
        swapco.sleep(0.00001)
        return there
    def body(n):
        for _ in range(2):
            swapco.sleep(0)
            got = inner(n)
        return got
    def main():
        return [fiber.join() for fiber in [swapco.spawn(body, n) for n in range(5)]]
    print(swapco.run(main))
"""


def test_set_trace_inside_a_fiber(switch: str) -> None:
    """The prompt is that fiber's; the others go on while it steps, and it is the only one that stops."""
    ended = debug(PAUSED, "p n, here\nwhere\nnext\nnext\np there\ncontinue\np 'second', n\nup\np n\ncontinue\n")
    assert ended.returncode == 0, ended.stderr
    assert "(2, 20)" in ended.stdout
    assert "('second', 2)" in ended.stdout
    assert "[1, 11, 21, 31, 41]\n" in ended.stdout
    # the stack that pdb shows ends at the fiber's function
    assert "body(" in ended.stdout or "<string>(13)body" in ended.stdout
    assert "main(" not in ended.stdout


@pytest.mark.parametrize("command", ["step", "next", "until", "return"])
def test_stepping_across_switches(switch: str, command: str) -> None:
    """As many steps as one likes, through waits, then on: every fiber ends with the right result."""
    ended = debug(PAUSED, f"{command}\n" * 12 + "p n\n" + "continue\n" * 10)
    assert ended.returncode == 0, ended.stderr
    assert "[1, 11, 21, 31, 41]\n" in ended.stdout


def test_quitting_pdb_inside_a_fiber(switch: str) -> None:
    """The fiber gets BdbQuit, which whoever joins it sees; nothing hangs."""
    ended = debug(PAUSED, "q\n")
    assert ended.returncode == 1
    assert "BdbQuit" in ended.stderr


def test_breakpoints_are_hit_in_every_fiber(switch: str, tmp_path: Path) -> None:
    """A breakpoint behind a wait, in a function that many fibers run: a hit for each, with its own locals."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import bdb, sys, swapco
            def inner(n):
                swapco.sleep(0)
                return n + 1  # here
            def body(n):
                swapco.sleep(0)
                return inner(n)
            class Counting(bdb.Bdb):
                def user_line(self, frame):
                    if self.break_here(frame):
                        hits.append((frame.f_code.co_name, frame.f_locals["n"]))
                    self.set_continue()
            hits = []
            def main():
                debugger = Counting()
                debugger.reset()
                assert debugger.set_break(__file__, 5) is None
                debugger.botframe = sys._getframe()
                sys.settrace(debugger.trace_dispatch)
                results = [fiber.join() for fiber in [swapco.spawn(body, n) for n in range(5)]]
                sys.settrace(None)
                return results
            print(swapco.run(main), sorted(hits))
            """
        )
    )
    ended = debug(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')", "")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{[1, 2, 3, 4, 5]} {[('inner', n) for n in range(5)]}\n"


def test_a_program_under_trace_that_ends_with_parked_fibers(switch: str) -> None:
    """Fibers are cancelled by the end of run(), and abandoned by the end of the program, while traced."""
    ended = run_program(
        """
        import sys, swapco
        def trace(frame, event, arg):
            return trace
        def parked(n):
            try:
                swapco.block()
            finally:
                list(range(n))
        def main():
            for n in range(10):
                swapco.spawn(parked, n)
            swapco.sleep(0)
        sys.settrace(trace)
        swapco.run(main)
        runner = swapco.Runner()
        runner.run(main)
        print("end")
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr
