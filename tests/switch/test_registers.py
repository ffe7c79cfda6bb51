"""The register switch without Python (registers.c): what the ABI promises to a caller holds across a switch.

The program runs compiled in several ways, for this machine, and for the other processor with a cross compiler and
qemu where both are installed.  That it would notice is tested, too: with one instruction of the switch taken out, it
must fail.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import ROOT, SOON_S

PROGRAM = Path(__file__).with_name("registers.c")
HEADER = ROOT / "swapco" / "_core" / "native_registers.h"
SWITCHES = 1_000_000

FLAGS = {
    "x86_64": ["-O0", "-O2", "-O2 -fomit-frame-pointer -fcf-protection=full"],
    "aarch64": ["-O0", "-O2", "-O2 -fomit-frame-pointer -mbranch-protection=standard"],
}
#: An instruction of the switch, what stands there instead, and the complaint that follows (none: a crash).
MUTANTS = {
    "x86_64": [
        ("popq %rbx", "addq $8, %rsp", "rbx"),
        ("popq %rbp", "addq $8, %rsp", "frame pointer"),
        ("popq %r12", "addq $8, %rsp", "argument"),
        ("popq %r15", "addq $8, %rsp", "r15"),
        ("ldmxcsr (%rsp)", "nop", "rounding"),
        ("fldcw 4(%rsp)", "nop", "rounding"),
        ("callq *%r13", "pushq $0; pushq $0; jmp *%r13", "alignment"),
        ("& ~(uintptr_t)15) - 8", "& ~(uintptr_t)15) - 7", "alignment"),
        (".cfi_undefined %rip", "", ""),
    ],
    "aarch64": [
        ("ldp x21, x22, [sp, #16]", "nop", "x21"),
        ("ldp x27, x28, [sp, #64]", "nop", "x27"),
        ("ldp d8, d9, [sp, #96]", "nop", "d8"),
        ("stp d14, d15, [sp, #144]", "nop", "d14"),
        ("msr fpcr, x4", "nop", "rounding"),
        (".cfi_undefined x30", "", "unwinder"),
    ],
}


class Machine:
    """How to compile for a processor and how to run that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.compile = ["cc"]
        self.run: list[str] = []
        if name != platform.machine():
            self.compile = [f"{name}-linux-gnu-gcc", "-static"]
            self.run = [f"qemu-{name}"]
        for tool in [self.compile[0], *self.run]:
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is not installed")

    def build(self, folder: Path, flags: Sequence[str], header: str | None = None) -> Path:
        text = HEADER.read_text() if header is None else header
        (folder / HEADER.name).write_text(text)
        program = folder / "registers"
        subprocess.run(
            [*self.compile, "-g", "-Wall", *flags, f"-I{folder}", str(PROGRAM), "-o", str(program)],
            check=True,
            timeout=SOON_S,
        )
        return program

    def go(self, program: Path, rounds: int) -> subprocess.CompletedProcess[str]:
        command = [*self.run, str(program), str(rounds)]
        return subprocess.run(command, capture_output=True, text=True, timeout=3 * SOON_S)


@pytest.fixture(params=sorted(FLAGS))
def machine(request: pytest.FixtureRequest) -> Machine:
    return Machine(request.param)


@pytest.mark.parametrize("variant", range(3))
def test_registers_modes_alignment_and_unwinding(machine: Machine, variant: int, tmp_path: Path) -> None:
    program = machine.build(tmp_path, ["-Werror", *FLAGS[machine.name][variant].split()])
    result = machine.go(program, SWITCHES // 4)
    assert result.stdout == f"ok {SWITCHES}\n", result
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("name", "was", "instead", "said"), [(name, *mutant) for name in sorted(MUTANTS) for mutant in MUTANTS[name]]
)
def test_a_broken_switch_is_noticed(name: str, was: str, instead: str, said: str, tmp_path: Path) -> None:
    machine = Machine(name)
    # of the half of the header for this processor
    half = {"x86_64": 0, "aarch64": 1}[name]
    halves = HEADER.read_text().split("#else /* aarch64 */")
    assert was in halves[half], "the switch has changed: change this test, too"
    halves[half] = halves[half].replace(was, instead)
    program = machine.build(tmp_path, ["-O2"], "#else /* aarch64 */".join(halves))
    result = machine.go(program, 2)
    assert not result.stdout.startswith("ok"), result
    assert result.returncode != 0
    assert said in result.stdout, result


def test_a_debugger_finds_the_way_at_every_instruction(tmp_path: Path) -> None:
    """The unwind information of the switch is right at each of its instructions, on fresh stacks, too."""
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    machine = Machine(platform.machine())
    program = machine.build(tmp_path, ["-O2"])
    step = "echo \\n--\\n\nbacktrace\nstepi\n"
    script = tmp_path / "script"
    script.write_text(
        "set pagination off\nset debuginfod enabled off\nset disable-randomization off\n"
        "break native_registers_switch\nrun 100\n" + ("continue\n" + step * 45) * 8
    )
    command = ["gdb", "-nx", "-batch", "-x", str(script), str(program)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=3 * SOON_S)
    if "ptrace" in result.stderr:
        pytest.skip(f"gdb may not trace here: {result.stderr.strip()}")
    traces = result.stdout.split("\n--\n")[1:]
    assert len(traces) > 300, result
    outermost = set()
    for trace in traces:
        frames = [line for line in trace.splitlines() if line.startswith("#")]
        assert "Backtrace stopped" not in trace, trace
        assert len(frames) < 8, trace
        outermost.add(frames[-1].split("(")[0].split()[-1])
    assert outermost == {"main", "native_registers_boot"}
