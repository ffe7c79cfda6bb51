"""A schedule as data: what a failure leaves behind, and what replays it.

A schedule is kept in two ways, for the program may have changed by the time of its replay.  *By number*: the decisions,
as indices.  *By name*: each decision that production would not have made, as the actor that ran, the kind of moment,
how many such moments of that actor there had been, and the actor that ran instead.  A change that adds a decision early
in the program breaks the numbers and leaves the names; renaming a fiber breaks the names only.

The file is JSON, at most 1 KB for a schedule that was shrunk: where names are long, those of the last decisions are
left out.  ``code`` is the path in one word, for the source of a test.  Numbers are stored as the gaps between the
decisions that are not 0, so that what production does costs nothing.  Codes and files come from anywhere: what is none
is refused before it takes memory.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path as FilePath
from typing import Any, NamedTuple

__all__ = ["SHORT_CODE", "Named", "Schedule", "check_save", "failures_directory", "load_schedule"]

#: The longest code that anybody would copy out of a report.
SHORT_CODE = 160
_FORMAT = 1
#: Decisions that a code may have.
_MOST_DECISIONS = 5_000_000
#: Bytes of a file besides the path.
_ROOM = 700
#: What a relative place of failing schedules is relative to: a test may change the working directory.
try:
    _STARTED_IN = os.getcwd()
except OSError:  # it does not exist any more
    _STARTED_IN = os.curdir
_GAPS = re.compile(r"\d{1,9}(:\d{1,9})?(,\d{1,9}(:\d{1,9})?)*", re.ASCII)


class Named(NamedTuple):
    """A decision that production would not have made, in words."""

    before: str
    """Who ran before."""
    label: str
    """The kind of moment: "schedule_point", "join", "Lock.acquire", ..."""
    nth: int
    """How many moments of this kind this actor had before it."""
    chosen: str
    """Who ran instead of whom production would have taken."""


class Schedule(NamedTuple):
    """One order of switches of one program."""

    path: tuple[int, ...]
    """The decisions: indices into who was enabled; 0 is what production does, also after the end."""
    named: tuple[Named, ...] = ()
    test: str = ""
    """The name of the test, or of the body."""
    failure: str = ""
    """What it showed."""
    preempt: str = "points"
    """Where the program could be preempted."""

    @property
    def code(self) -> str:
        """The schedule in one word, for ``explore(replay=...)``."""
        text = ",".join(_gaps(self.path)) + ("!" if self.preempt == "primitives" else "")
        if len(text) <= 60:
            return text or "-"
        return "z" + base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")

    @classmethod
    def from_code(cls, code: str) -> Schedule:
        """The inverse of ``code``.  ValueError for anything else."""
        text = code
        try:
            if code.startswith("z"):
                text = _unpacked(code[1:])
            preempt = "primitives" if text.endswith("!") else "points"
            return cls(_path(text.removesuffix("!")), preempt=preempt)
        except (ValueError, zlib.error) as error:
            shown = code if len(code) <= 100 else code[:100] + "..."
            raise ValueError(f"{shown!r} is no schedule: copy it from the report of a failure") from error

    def to_json(self) -> str:
        """The file's content."""
        path = self.code.rstrip("!")
        named = [list(entry) for entry in self.named]
        fields: dict[str, Any] = {
            "swapco schedule": _FORMAT,
            "test": self.test[-300:],
            "failure": self.failure[:200],
            "preempt": self.preempt,
            "path": path,
            "named": named,
        }
        text = json.dumps(fields, indent=1)
        while len(text) - len(path) > _ROOM:
            text = json.dumps(fields, separators=(",", ":"))
            if len(text) - len(path) > _ROOM:
                if named:
                    named.pop()
                elif len(fields["failure"]) > 50:
                    fields["failure"] = fields["failure"][:50]
                elif fields["test"]:
                    fields["test"] = fields["test"][10:]
                else:
                    break
        return text + "\n"

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """The inverse of ``to_json``.  ValueError for anything else."""
        try:
            fields = json.loads(text)
            if fields.get("swapco schedule") != _FORMAT:
                raise ValueError(f"format {fields.get('swapco schedule')!r}, not {_FORMAT}")
            if fields["preempt"] not in ("points", "primitives"):
                raise ValueError(f"preempt {fields['preempt']!r}")
            return cls(
                cls.from_code(fields["path"]).path,
                tuple(Named(str(a), str(b), int(c), str(d)) for a, b, c, d in fields["named"]),
                str(fields["test"]),
                str(fields["failure"]),
                fields["preempt"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"this is no schedule of swapco.testing: {error}") from error

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the file; directories are made.  Errors: OSError, after which nothing half written is left."""
        text = os.fspath(file)
        if _names_a_directory(text):
            raise IsADirectoryError(errno.EISDIR, "a schedule is saved in a file, and this is a directory", text)
        target = FilePath(text)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{os.getpid()}")
        try:
            temporary.write_text(self.to_json())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def failures_directory() -> FilePath:
    """Where failing schedules are kept by default: ``.swapco``, or ``$SWAPCO_FAILURES`` of this moment; absolute.

    A relative one is in the directory in which ``swapco.testing`` was imported, so that a test that has changed the
    working directory is found again.
    """
    return FilePath(_STARTED_IN, os.environ.get("SWAPCO_FAILURES") or ".swapco")


def check_save(save: object) -> None:
    """Refuse at once what cannot be an argument ``save``: that is True, False, or the file to write.

    Errors: TypeError for what is neither a bool nor a path of text; ValueError for a path that names no file (it is
    empty, has a NUL, ends with a separator, or is a directory).
    """
    if isinstance(save, bool):
        return
    text: object = os.fspath(save) if isinstance(save, str | os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(f"save is True, False or the file to write (str or os.PathLike), not {save!r}")
    if not text or "\0" in text:
        raise ValueError(f"save is True, False or the file to write, and {text!r} names none")
    if _names_a_directory(text):
        such = os.path.join(text, "failure.json")
        raise ValueError(f"save is the file to write, and {text!r} is a directory: name a file, such as {such!r}")


def _names_a_directory(path: str) -> bool:
    return os.path.basename(path) in ("", os.curdir, os.pardir) or os.path.isdir(path)


def load_schedule(source: str | os.PathLike[str] | Schedule | Sequence[int]) -> Schedule:
    """A schedule from a file, from its ``code``, or from a list of decisions.

    ValueError and TypeError for something else; FileNotFoundError.
    """
    if isinstance(source, Schedule):
        return source
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if os.path.exists(text) or text.endswith(".json") or os.sep in text:
            return Schedule.from_json(FilePath(text).read_text())
        return Schedule.from_code(text)
    choices: Any = source
    if not isinstance(choices, Sequence) or not all(isinstance(choice, int) and choice >= 0 for choice in choices):
        raise TypeError(f"a schedule is a file, a code, or a list of decisions (numbers from 0 on), not {source!r}")
    return Schedule(tuple(choices))


def _gaps(path: Iterable[int]) -> Iterable[str]:
    """``gap`` (then 1) or ``gap:choice`` for each decision that is not 0."""
    gap = 0
    for choice in path:
        if choice == 0:
            gap += 1
            continue
        yield str(gap) if choice == 1 else f"{gap}:{choice}"
        gap = 0


def _path(gaps: str) -> tuple[int, ...]:
    if gaps in ("", "-"):
        return ()
    if not _GAPS.fullmatch(gaps):
        raise ValueError("not a list of gaps")
    entries = [(int(zeros), int(choice or 1)) for zeros, _, choice in (gap.partition(":") for gap in gaps.split(","))]
    if len(entries) + sum(zeros for zeros, _ in entries) > _MOST_DECISIONS:
        raise ValueError(f"more than {_MOST_DECISIONS} decisions")
    path: list[int] = []
    for zeros, choice in entries:
        if choice < 1:
            raise ValueError("a decision that is none")
        path += [0] * zeros
        path.append(choice)
    return tuple(path)


def _unpacked(text: str) -> str:
    packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(packed, 2 * _MOST_DECISIONS)
    if not unpacker.eof:
        raise ValueError("too long, or cut off")
    return found.decode("ascii")
