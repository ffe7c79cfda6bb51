"""A schedule as data: its forms are one, it is small, and what is no schedule says so."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swapco
from swapco import testing
from swapco.testing import Schedule
from swapco.testing.schedule import Named, check_save, failures_directory, load_schedule
from swapco.testing.trace import stripped

MANY = settings(max_examples=150, deadline=None)

paths = st.lists(st.integers(0, 5) | st.just(0), max_size=60).map(tuple) | st.builds(
    lambda zeros, choice: (0,) * zeros + (choice,), st.integers(0, 5000), st.integers(1, 300)
)
texts = st.text(max_size=20)
schedules = st.builds(
    Schedule,
    paths,
    st.lists(st.builds(Named, texts, texts, st.integers(0, 99), texts), max_size=4).map(tuple),
    texts,
    texts,
    st.sampled_from(["points", "primitives"]),
)


# ------------------------------------------------------------------------------------------------ round trips


@MANY
@given(paths, st.sampled_from(["points", "primitives"]))
def test_the_code_says_the_path_and_where_it_preempts(path: tuple[int, ...], preempt: str) -> None:
    code = Schedule(path, preempt=preempt).code
    back = Schedule.from_code(code)
    assert back.path == stripped(path)
    assert back.preempt == preempt
    assert back.code == code
    assert code.isascii()
    assert not set(code) & set(" '\"\\\n/")


@MANY
@given(schedules)
def test_the_file_says_everything(schedule: Schedule) -> None:
    back = Schedule.from_json(schedule.to_json())
    assert back == schedule._replace(path=stripped(schedule.path), named=back.named)
    # only what would make the file too long is left out
    assert back.named == schedule.named[: len(back.named)]
    assert back.named == schedule.named or sum(len(json.dumps(entry)) for entry in schedule.named) > 300


@given(schedules)
def test_every_form_loads(schedule: Schedule) -> None:
    path = stripped(schedule.path)
    assert load_schedule(schedule) is schedule
    assert load_schedule(list(schedule.path)).path == schedule.path
    assert load_schedule(schedule.code).path == path


@given(schedule=schedules)
@settings(max_examples=30, deadline=None)
def test_a_saved_file_loads_from_its_name_and_from_its_path(
    schedule: Schedule, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("schedules") / "deeper" / "one.json"
    schedule.save(file)
    assert load_schedule(file) == load_schedule(str(file)) == Schedule.from_json(schedule.to_json())
    assert [entry.name for entry in file.parent.iterdir()] == ["one.json"]  # nothing half written beside it


def test_what_production_does_has_a_code_too() -> None:
    assert Schedule(()).code == Schedule((0, 0)).code == "-"
    assert Schedule.from_code("-").path == ()
    assert Schedule((), preempt="primitives").code == "!"
    assert Schedule.from_code("!") == Schedule((), preempt="primitives")


def test_codes_that_stand_in_the_source_of_tests_keep_their_meaning() -> None:
    """They outlive versions: never change what one means."""
    assert Schedule.from_code("3").path == (0, 0, 0, 1)
    assert Schedule.from_code("0,2:3!") == Schedule((1, 0, 0, 3), preempt="primitives")
    assert Schedule.from_code("zeNoz0DGwMgJiYx2DUdYoa_CwAJ5BgBM").path == tuple(1 + i % 3 for i in range(200))


def test_what_is_saved_replaces_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    Schedule((1,) * 50).save(file)
    Schedule((2,)).save(file)
    assert load_schedule(file).path == (2,)


# ---------------------------------------------------------------------------------------------- where it is saved


class PathOfBytes:
    """An ``os.PathLike`` that is no text."""

    def __fspath__(self) -> bytes:
        return b"x.json"


@pytest.mark.parametrize("save", [None, 5, 0, 1.5, b"x.json", ["x.json"], PathOfBytes(), str])
def test_what_is_no_place_to_save_is_refused(save: object) -> None:
    with pytest.raises(TypeError, match="save is True, False or the file to write") as caught:
        check_save(save)
    assert str(caught.value).endswith(f"not {save!r}")


@pytest.mark.parametrize("save", ["", "x\0.json"])
def test_a_path_that_names_nothing_is_refused(save: str) -> None:
    with pytest.raises(ValueError, match="save is True, False or the file to write") as caught:
        check_save(save)
    assert f"{save!r} names none" in str(caught.value)


@pytest.mark.parametrize(
    "save", ["there", "there/", "new/", ".", "..", "new/..", "/", Path("there"), Path(), Path(".."), Path("/")]
)
def test_a_directory_is_refused_at_once_and_nothing_is_left_in_it(
    save: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is a directory: name a file, such as '.*failure\.json'"):
        check_save(save)
    with pytest.raises(IsADirectoryError):
        Schedule((1,)).save(save)
    assert [str(entry) for entry in Path().rglob("*")] == ["there"]


@pytest.mark.parametrize("save", [True, False, "x.json", "x", "new/deeper/x.json", "there.json"])
def test_a_place_to_save_is_none_that_is_refused(save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("of the last run")
    check_save(save)
    if isinstance(save, str):
        check_save(Path(save))
        Schedule((1,)).save(save)
        assert load_schedule(Path(save)).path == (1,)


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["write_text", "replace"])
def test_nothing_half_written_is_left_by_a_failure_to_save(
    error: BaseException, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.json"
    Schedule((2,)).save(file)

    def fails(temporary: Path, *arguments: Any) -> None:
        temporary.write_bytes(b"half of it")
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Path, at, fails)
        with pytest.raises(type(error)):
            Schedule((1,) * 50).save(file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]
    assert load_schedule(file).path == (2,)


def test_the_directory_of_failures_stays_where_the_process_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test may change the working directory, for good or for a while."""
    began = Path.cwd()
    monkeypatch.delenv("SWAPCO_FAILURES", raising=False)
    monkeypatch.chdir(tmp_path)
    assert failures_directory() == began / ".swapco"
    monkeypatch.setenv("SWAPCO_FAILURES", "failures")
    assert failures_directory() == began / "failures"
    monkeypatch.setenv("SWAPCO_FAILURES", str(tmp_path / "failures"))
    assert failures_directory() == tmp_path / "failures"


def test_a_failure_is_kept_where_the_process_began(tmp_path: Path) -> None:
    """Not where its test has gone."""
    program = """
import os, sys; sys.path.append(sys.argv[1])
import swapco
from swapco import testing
os.mkdir("elsewhere"); os.chdir("elsewhere")
def body():
    order = []
    swapco.wait([swapco.spawn(order.append, i) for i in range(2)])
    assert order == [0, 1]
print(testing.search(body, name="it").path)
"""
    root = Path(swapco.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(root)], cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "SWAPCO_FAILURES"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    kept = tmp_path / ".swapco" / "it.json"
    assert done.stdout == f"{kept}\n", done.stderr
    assert kept.exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_process_may_begin_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    program = (
        "import os, sys; sys.path.append(sys.argv[2]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])\n"
        "from swapco.testing.schedule import failures_directory; print(failures_directory())"
    )
    (tmp_path / "gone").mkdir()
    root = Path(swapco.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path / "gone"), str(root)],
        env={name: value for name, value in os.environ.items() if name != "SWAPCO_FAILURES"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == ".swapco\n", done.stderr


# ------------------------------------------------------------------------------------------------------ size


def test_a_shrunk_failure_with_long_names_fits_into_a_kilobyte(tmp_path: Path) -> None:
    """As many deviations as a shrunk schedule has at most, in a program with fibers of long names."""

    def body() -> None:
        order: list[int] = []

        def work(i: int) -> None:
            testing.schedule_point()
            order.append(i)

        swapco.wait([swapco.spawn(work, i, name=f"worker that has a rather long name, {i:04}") for i in range(10)])
        assert order != sorted(order, reverse=True), "an error whose message goes on and on " * 20

    test = "a_test_in_some_module.that_has_a_name_of_its_own[parameter-1-2-3]" * 2
    # the last one to its end, then the last but one, ...
    steps = [choice for last in range(9, 0, -1) for choice in (last, 0)]
    found = testing.search(body, strategy=testing.Replay(steps), save=tmp_path / "x.json", name=test)
    assert found.failed
    assert found.deviations >= 8
    assert (tmp_path / "x.json").stat().st_size <= 1024
    again = testing.replay(body, tmp_path / "x.json")
    assert again.failed
    assert again.deviations == found.deviations


@given(st.lists(st.integers(0, 4), max_size=40))
def test_the_code_of_a_short_schedule_can_be_read(path: list[int]) -> None:
    """A few deviations are numbers with commas, not noise."""
    few = [choice if at % 9 == 0 else 0 for at, choice in enumerate(path)]
    assert set(Schedule(tuple(few)).code) <= set("0123456789,:-")


def test_a_path_of_a_hundred_thousand_decisions_is_kept_small() -> None:
    path = [0] * 100_000
    for at in range(0, 100_000, 1000):
        path[at] = 1
    schedule = Schedule(tuple(path))
    assert len(schedule.code) < 200
    assert load_schedule(schedule.code).path == stripped(path)


# ------------------------------------------------------------------------------------------------ hostile input


@pytest.mark.parametrize(
    "code",
    [
        "hello", "1:x", "zzzz", "-3", "{}", "0:0", "1,,2,x", "z", "z" * 100, "1:-1", "\u0661", "1e9", "0x1", "1_0",
        "\xe9", "\0", " 1",
    ],
)  # fmt: skip
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="is no schedule: copy it from the report"):
        Schedule.from_code(code)


FILE: dict[str, Any] = json.loads(Schedule((0, 1), (Named("a", "lock", 0, "b"),), "test", "E: x").to_json())


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", "3", '"3"', "{", "[" * 100_000, '{"swapco schedule": 1}', "\0",
        json.dumps(FILE | {"swapco schedule": 2}),
        json.dumps(FILE | {"path": None}),
        json.dumps(FILE | {"path": "x"}),
        json.dumps(FILE | {"path": [1, 2]}),
        json.dumps(FILE | {"named": 3}),
        json.dumps(FILE | {"named": [["a", "b", "c"]]}),
        json.dumps(FILE | {"named": [["a", "b", "c", "d"]]}),
        json.dumps(FILE | {"preempt": "everywhere"}),
        json.dumps({key: value for key, value in FILE.items() if key != "named"}),
    ],
)  # fmt: skip
def test_what_is_no_file_of_a_schedule_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no schedule"):
        Schedule.from_json(text)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="no schedule"):
        load_schedule(tmp_path / "x.json")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError):
        load_schedule(tmp_path / "x.json")


def test_a_code_cannot_fill_the_memory() -> None:
    """Neither a number of a billion zeros, nor a small text that is a large one compressed."""
    for text in ("9999999999", ",".join(["999999"] * 200)):
        with pytest.raises(ValueError, match="no schedule"):
            Schedule.from_code(text)
    bomb = "z" + base64.urlsafe_b64encode(zlib.compress(b"0," * 6_000_000, 9)).decode().rstrip("=")
    with pytest.raises(ValueError, match="no schedule"):
        Schedule.from_code(bomb)


@given(st.text(max_size=40))
@MANY
def test_any_text_is_a_schedule_or_is_refused(text: str) -> None:
    for read in (Schedule.from_code, Schedule.from_json):
        try:
            schedule = read(text)
        except ValueError:
            continue
        assert all(isinstance(choice, int) and choice >= 0 for choice in schedule.path)


@given(st.binary(max_size=60))
def test_any_compressed_bytes_are_a_schedule_or_are_refused(data: bytes) -> None:
    for content in (data, zlib.compress(data)):
        try:
            schedule = Schedule.from_code("z" + base64.urlsafe_b64encode(content).decode().rstrip("="))
        except ValueError:
            continue
        assert all(choice >= 0 for choice in schedule.path)


@pytest.mark.parametrize("path", [[-1], ["1"], [1.5], [None], 7, {"a": 1}])
def test_a_list_that_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(TypeError, match="list of decisions"):
        load_schedule(path)


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    for missing in (tmp_path / "missing.json", str(tmp_path / "missing"), "missing.json"):
        with pytest.raises(FileNotFoundError):
            load_schedule(missing)
