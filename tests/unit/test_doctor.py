"""``python -m swapco doctor``: what it says is so, and its exit status can be relied upon."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment

from swapco import doctor
from swapco._core import backends


def ask(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swapco", *arguments],
        capture_output=True, text=True, timeout=60, env=environment(**env),
    )  # fmt: skip


@pytest.mark.parametrize("switch", backends.NAMES)
def test_it_names_the_switch_and_why(switch: str) -> None:
    result = ask("doctor", SWAPCO_SWITCH=switch)
    assert result.returncode == 0, result.stderr
    assert f"{switch}: SWAPCO_SWITCH asks for it" in result.stdout
    assert result.stdout.rstrip().endswith({"native": "on native stacks.", "greenlet": "on greenlets."}[switch])


def test_the_default() -> None:
    result = ask("doctor", SWAPCO_SWITCH="")
    assert result.returncode == 0, result.stderr
    assert re.search(r"runs +native: the default here", result.stdout)
    assert re.search(r"SWAPCO_SWITCH +not set", result.stdout)


def test_nonsense_in_the_environment() -> None:
    result = ask("doctor", SWAPCO_SWITCH="threads")
    assert result.returncode == 1
    assert result.stdout.rstrip().endswith(
        "Fibers do not run: SWAPCO_SWITCH must be 'native' or 'greenlet', not 'threads'."
    )
    assert "Traceback" not in result.stderr


def test_a_machine_without_native_stacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(backends.ENVIRONMENT, raising=False)
    monkeypatch.setattr(backends, "NATIVE_REFUSAL", "the moon is full")
    assert doctor.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "greenlet: the default where native stacks do not work" in out
    assert "no: the moon is full" in out
    assert "KiB of address space" not in out
    monkeypatch.setenv(backends.ENVIRONMENT, "native")
    assert doctor.main(["doctor"]) == 1
    assert "Fibers do not run: fibers cannot switch natively: the moon is full" in capsys.readouterr().out


def test_limits_are_those_of_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f" {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} (may be raised" in out
    assert f"Linux {Path('/proc/sys/kernel/osrelease').read_text().strip()}" in out


@pytest.mark.parametrize(
    ("numbers", "text"), [([0], "0"), ([0, 1, 2, 3], "0-3"), ([0, 1, 3, 5, 6], "0-1, 3, 5-6"), ([7], "7")]
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert doctor._ranges(numbers) == text


@pytest.mark.parametrize("arguments", [[], ["nurse"], ["doctor", "--frob"]])
def test_a_wrong_command_line(arguments: list[str]) -> None:
    result = ask(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: swapco")
