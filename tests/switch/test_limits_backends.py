"""Which kind of stack carries the fibers: what the caller says, else the environment, else what works here.

And what belongs to a kind of stack: registers that a function must keep, such as the floating-point control words.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import platform
from collections.abc import Callable
from typing import Any

import pytest
from helpers import run_program

import swapco
from swapco._core import backends

pytestmark = pytest.mark.usefixtures("fibers")

ENVIRONMENT = "SWAPCO_SWITCH"


def backend_name() -> str:
    """In a fiber: what carries it."""
    swapco.sleep(0)
    return str(asyncio.get_running_loop()._backend.name)  # type: ignore[attr-defined]


def in_the_environment(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv(ENVIRONMENT, raising=False)
    else:
        monkeypatch.setenv(ENVIRONMENT, value)


@pytest.mark.parametrize(
    ("environment", "argument", "name"),
    [
        (None, None, "native"),
        ("", None, "native"),
        ("native", None, "native"),
        ("greenlet", None, "greenlet"),
        ("native", "greenlet", "greenlet"),
        ("greenlet", "native", "native"),
        ("", "greenlet", "greenlet"),
        ("nonsense", "greenlet", "greenlet"),
    ],
)
def test_the_argument_goes_before_the_environment(
    environment: str | None, argument: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_environment(monkeypatch, environment)
    assert swapco.run(backend_name, switch=argument) == name
    with swapco.Runner(switch=argument) as runner:
        assert [runner.run(backend_name), runner.run(backend_name)] == [name, name]
    if argument is None:
        with swapco.Runner(loop_factory=swapco.new_event_loop) as runner:
            assert runner.run(backend_name) == name


@pytest.mark.parametrize("nonsense", ["nonsense", "Native", "greenlets", " ", "0"])
def test_an_unknown_kind_is_an_error_that_names_who_said_it(nonsense: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_environment(monkeypatch, nonsense)
    with pytest.raises(ValueError, match=rf"{ENVIRONMENT} must be 'native' or 'greenlet', not '{nonsense}'"):
        swapco.run(backend_name)
    in_the_environment(monkeypatch, "native")
    with pytest.raises(ValueError, match=rf"switch must be 'native' or 'greenlet', not '{nonsense}'"):
        swapco.run(backend_name, switch=nonsense)
    with pytest.raises(ValueError, match="switch must be"):
        swapco.Runner(switch=nonsense)
    assert swapco.run(backend_name) == "native"


@pytest.mark.parametrize(("value", "code"), [("native", 0), ("greenlet", 0), ("", 0), ("nonsense", 1)])
def test_the_environment_of_a_program(value: str, code: int) -> None:
    result = run_program(
        "import asyncio, swapco\nprint(swapco.run(lambda: asyncio.get_running_loop()._backend.name))",
        SWAPCO_SWITCH=value,
    )
    assert result.returncode == code, result.stderr
    if code:
        assert "ValueError: SWAPCO_SWITCH must be 'native' or 'greenlet'" in result.stderr
    else:
        assert result.stdout.strip() == (value or "native")


def test_where_native_stacks_do_not_work_greenlets_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "NATIVE_REFUSAL", "the moon is full")
    for unasked in (None, ""):
        in_the_environment(monkeypatch, unasked)
        assert swapco.run(backend_name) == "greenlet"
    in_the_environment(monkeypatch, "greenlet")
    assert swapco.run(backend_name) == "greenlet"
    in_the_environment(monkeypatch, "native")
    with pytest.raises(RuntimeError, match="the moon is full"):
        swapco.run(backend_name)
    assert swapco.run(backend_name, switch="greenlet") == "greenlet"
    in_the_environment(monkeypatch, None)
    with pytest.raises(RuntimeError, match="the moon is full.*greenlet"):
        swapco.run(backend_name, switch="native")


def test_a_factory_and_a_switch_contradict_each_other(switch: str) -> None:
    for function in (lambda **keywords: swapco.run(backend_name, **keywords), swapco.Runner):
        with pytest.raises(TypeError, match="loop_factory=.*switch="):
            function(loop_factory=swapco.new_event_loop, switch=switch)


def test_a_loop_keeps_its_kind_whatever_the_environment_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_environment(monkeypatch, "greenlet")
    with swapco.Runner() as runner:
        assert runner.run(backend_name) == "greenlet"
        in_the_environment(monkeypatch, "native")
        assert runner.run(backend_name) == "greenlet"


def test_loops_of_both_kinds_in_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    with swapco.Runner(switch="native") as native, swapco.Runner(switch="greenlet") as other:
        for _ in range(5):
            assert native.run(backend_name) == "native"
            assert other.run(backend_name) == "greenlet"

    def main(kind: str) -> list[str]:
        return swapco.gather(*[lambda: swapco.await_(asyncio.to_thread(swapco.run, backend_name, switch=kind))] * 3)

    assert swapco.run(main, "native", switch="greenlet") == ["native"] * 3
    assert swapco.run(main, "greenlet", switch="native") == ["greenlet"] * 3


def test_a_refusal_is_told_before_anything_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture ``fibers`` sees what stays open."""
    monkeypatch.setattr(backends, "NATIVE_REFUSAL", "the moon is full")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="the moon is full"):
            swapco.run(backend_name, switch="native")


# ----------------------------------------------------------------------------------- floating-point control

MODES = {"x86_64": [0, 0x400, 0x800, 0xC00], "aarch64": [0, 0x800000, 0x400000, 0xC00000]}[platform.machine()]
libm = ctypes.CDLL("libm.so.6")


def thirds() -> tuple[float, float, float]:
    """1/3, -1/3 and 1/10 as the processor rounds them now: computed at run time, different in each mode."""
    one, three, ten = float("1"), float("3"), float("10")
    return one / three, -one / three, one / ten


def in_mode(mode: int, function: Callable[[], Any]) -> Any:
    assert libm.fesetround(mode) == 0
    try:
        return function()
    finally:
        assert libm.fesetround(MODES[0]) == 0


@pytest.fixture
def nearest() -> Any:
    yield
    libm.fesetround(MODES[0])


@pytest.mark.usefixtures("nearest")
def test_the_rounding_mode_belongs_to_the_fiber() -> None:
    expected = {mode: in_mode(mode, thirds) for mode in MODES}
    assert len(set(expected.values())) == 4

    def fiber(mode: int) -> None:
        for _ in range(10):
            libm.fesetround(mode)
            swapco.sleep(0)
            assert (libm.fegetround(), thirds()) == (mode, expected[mode])
            swapco.spawn(thirds).join()
            assert libm.fegetround() == mode

    def main() -> None:
        fibers = [swapco.spawn(fiber, mode) for mode in MODES * 3]
        for _ in range(30):
            swapco.sleep(0)
            assert (libm.fegetround(), thirds()) == (MODES[0], expected[MODES[0]])
        for one in fibers:
            one.join()

    swapco.run(main, switch="native")
    assert libm.fegetround() == MODES[0]


@pytest.mark.usefixtures("nearest")
def test_a_fiber_that_ends_does_not_change_how_the_loop_rounds() -> None:
    def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        for mode in MODES:
            swapco.spawn(libm.fesetround, mode).join()
            assert libm.fegetround() == MODES[0]
            loop.call_soon(lambda: seen.append(libm.fegetround()))
            swapco.sleep(0)
        assert seen == [MODES[0]] * len(MODES)

    swapco.run(main, switch="native")
    assert libm.fegetround() == MODES[0]


@pytest.mark.usefixtures("nearest")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 has a second control word")
def test_the_x87_control_word_belongs_to_the_fiber() -> None:
    """``fegetenv`` stores it first; precision is in bits 8 and 9, which ``fesetround`` does not touch."""

    def control() -> int:
        environment = (ctypes.c_uint16 * 16)()
        assert libm.fegetenv(environment) == 0
        return environment[0]

    def set_precision(bits: int) -> None:
        environment = (ctypes.c_uint16 * 16)()
        assert libm.fegetenv(environment) == 0
        environment[0] = environment[0] & ~0x300 | bits
        assert libm.fesetenv(environment) == 0

    def fiber(bits: int) -> None:
        set_precision(bits)
        for _ in range(10):
            swapco.sleep(0)
            assert control() & 0x300 == bits

    before = control()

    def main() -> None:
        swapco.gather(*[functools.partial(fiber, bits) for bits in (0, 0x200, 0x300)])
        assert control() == before

    swapco.run(main, switch="native")
    assert control() == before
