"""A schedule as data: what a failure leaves behind, and what replays it.

A schedule is kept in two ways, for the program may have changed by the time of its replay.  *By number*: the decisions,
as indices.  *By name*: each decision that production would not have made, as the actor that ran, the kind of moment,
how many such moments of that actor there had been, and the actor that ran instead.  A change that adds a decision early
in the program breaks the numbers and leaves the names; renaming a fiber breaks the names only.

The file is JSON, at most 1 KB for a schedule that was shrunk; ``code`` is the same in one word, for the source of a
test.  Numbers are stored as the gaps between the decisions that are not 0, so that what production does costs nothing.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path as FilePath
from typing import Any, NamedTuple

__all__ = ["Named", "Schedule", "load_schedule"]

_FORMAT = 1


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
                text = zlib.decompress(base64.urlsafe_b64decode(code[1:] + "=" * (-len(code[1:]) % 4))).decode()
            preempt = "primitives" if text.endswith("!") else "points"
            return cls(tuple(_path(text.rstrip("!").split(","))), preempt=preempt)
        except (ValueError, zlib.error) as error:
            raise ValueError(f"{code!r} is no schedule: copy it from the report of a failure") from error

    def to_json(self) -> str:
        """The file's content."""
        fields: dict[str, Any] = {
            "swapco schedule": _FORMAT,
            "test": self.test,
            "failure": self.failure[:200],
            "preempt": self.preempt,
            "path": self.code.rstrip("!"),
            "named": [list(entry) for entry in self.named],
        }
        text = json.dumps(fields, indent=1)
        if len(text) > 1000:
            fields["named"] = fields["named"][:8] if len(self.named) > 8 else fields["named"]
            text = json.dumps(fields, separators=(",", ":"))
        return text + "\n"

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """The inverse of ``to_json``.  ValueError for anything else."""
        try:
            fields = json.loads(text)
            if fields.get("swapco schedule") != _FORMAT:
                raise ValueError(f"format {fields.get('swapco schedule')!r}, not {_FORMAT}")
            return cls(
                cls.from_code(fields["path"]).path,
                tuple(Named(str(a), str(b), int(c), str(d)) for a, b, c, d in fields["named"]),
                str(fields["test"]),
                str(fields["failure"]),
                str(fields["preempt"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no schedule of swapco.testing: {error}") from error

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the file; directories are made."""
        target = FilePath(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{os.getpid()}")
        temporary.write_text(self.to_json())
        temporary.replace(target)


def load_schedule(source: str | os.PathLike[str] | Schedule | Sequence[int]) -> Schedule:
    """A schedule from a file, from its ``code``, or from a list of decisions.

    ValueError for something else; FileNotFoundError.
    """
    if isinstance(source, Schedule):
        return source
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if os.path.exists(text) or text.endswith(".json") or os.sep in text:
            return Schedule.from_json(FilePath(text).read_text())
        return Schedule.from_code(text)
    return Schedule(tuple(source))


def _gaps(path: Iterable[int]) -> Iterable[str]:
    """``gap`` (then 1) or ``gap:choice`` for each decision that is not 0."""
    gap = 0
    for choice in path:
        if choice == 0:
            gap += 1
            continue
        yield str(gap) if choice == 1 else f"{gap}:{choice}"
        gap = 0


def _path(gaps: Iterable[str]) -> Iterable[int]:
    for gap in gaps:
        if gap in ("", "-"):
            continue
        zeros, _, choice = gap.partition(":")
        if int(zeros) < 0 or (choice and int(choice) < 1):
            raise ValueError("a negative number")
        yield from (0 for _ in range(int(zeros)))
        yield int(choice or 1)
