"""``explore`` and ``check``: a test that is run under many schedules, and fails as tests fail.

``explore`` decorates a test; ``check`` does the same in the middle of one, for a body that the test has made, often of
data from hypothesis.  Both are ``search``, or ``verify``, with the manners of a test: they raise what the body raised,
with the report as a note.

Recorded failures.  A failing schedule is written to a file that is named after the test; pytest's node id is the name
where there is one, so that each set of parameters has its own.  The next run tries the file first.

- It fails: the test fails, after one schedule, without a search.
- It passes: the bug is gone, or so it seems.  The search goes on, and the file is renamed to ``*.fixed.json``.
  That is tried first, too: one schedule a run guards against the return of a bug that was hard to find.
- It does not fit the program any more: it is logged and removed, and the search goes on.

Inside an example of hypothesis ``candidates`` does the search, and has a file of its own kind.

Invariants: no state is shared between two tests, nor between two runs of one, but the file, which is written
atomically; so tests may run in several processes.  The seed is 0 unless given: what a test does is the same on every
machine.

Rejected designs: a pytest plugin (the decorator works with unittest and with plain calls, too, and pytest needs only
the signature); a seed that changes with the day (a test that fails on Tuesdays); a seed made of the test's name
(renaming a test would change what it finds); one database for all tests (a file can be sent, and read).
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, ParamSpec, TypeAlias, overload

from .candidates import find, in_example, memory_of, quickly
from .control import Strategy
from .errors import ReplayDivergence
from .execution import Program
from .schedule import SHORT_CODE, Schedule, check_save, load_schedule
from .search import (
    Result,
    conclude,
    failure_file,
    keep,
    make_strategy,
    name_of_body,
    positive,
    replay,
    search,
    verify,
)

__all__ = ["Plan", "StaleSchedule", "check", "explore"]

P = ParamSpec("P")
File: TypeAlias = str | os.PathLike[str]
Recorded: TypeAlias = File | Schedule | Sequence[int]

_log = logging.getLogger("swapco.testing")


class StaleSchedule(UserWarning):
    """The schedule that ``replay=`` names passes, or does not fit the program any more: nothing is gained by it."""


@overload
def explore(schedules: Callable[P, Any], /) -> Callable[P, None]: ...


@overload
def explore(
    schedules: int | None = None,
    *,
    seed: int = 0,
    strategy: str | Strategy | None = None,
    preempt: str = "points",
    max_steps: int = 20_000,
    switch: str | None = None,
    verify: bool = False,
    preemption_bound: int | None = 2,
    replay: Recorded | None = None,
    save: bool | File = True,
) -> Callable[[Callable[P, Any]], Callable[P, None]]: ...


def explore(
    schedules: int | Callable[..., Any] | None = None,
    *,
    seed: int = 0,
    strategy: str | Strategy | None = None,
    preempt: str = "points",
    max_steps: int = 20_000,
    switch: str | None = None,
    verify: bool = False,
    preemption_bound: int | None = 2,
    replay: Recorded | None = None,
    save: bool | File = True,
) -> Any:
    """Decorate a test, so that it is run under up to ``schedules`` (1,000) schedules, until one fails.

    The test is a function or an ``async def`` function, a method too, and runs as the main fiber.  Its signature stays:
    fixtures and parameters are passed to every schedule.  They are the same objects each time, so what a schedule
    changes must be made inside the test; a test that depends on what an earlier schedule left behind fails with
    ``UncontrolledNondeterminism``.  ``@explore`` goes below ``@given``, ``@staticmethod`` and ``@pytest.mark``.

    ``verify=True`` runs every schedule with at most ``preemption_bound`` preemptions (``strategy`` is "dfs" or "dpor"),
    and fails if ``schedules`` (100,000) do not suffice.  ``replay`` is a file or the code of a report: only that
    schedule is run; a ``StaleSchedule`` warning says if it passes, or where it does not fit any more, and then the
    search starts again.  ``save``: the file for a failing schedule, which the next run tries first; True is one named
    after the test below ``.swapco``, or ``$SWAPCO_FAILURES``; False none.  The rest is as for ``search``.

    ``$SWAPCO_SCHEDULES`` replaces ``schedules`` (``5000``) or multiplies it (``10x``) in all tests but those that
    verify, and ``$SWAPCO_SEED`` replaces ``seed``: for long runs at night.

    The test raises what the body raised, with the report as a note.  Errors, when it decorates: TypeError for what
    is no test function, ValueError for arguments that make no sense.  When it runs: RuntimeError inside an event
    loop.
    """
    if schedules is not None and not isinstance(schedules, int):
        return explore()(schedules)
    plan = Plan(
        schedules if schedules is not None else 100_000 if verify else 1_000,
        seed=seed,
        strategy=strategy if strategy is not None else "dfs" if verify else "portfolio",
        preempt=preempt,
        max_steps=max_steps,
        switch=switch,
        replay=replay,
        save=save,
        verifies=verify,
        bound=preemption_bound,
    )
    if not verify and preemption_bound != 2:
        raise ValueError("preemption_bound= is for verify=True, which runs every schedule within it")

    def decorate(test: Callable[..., Any]) -> Callable[..., None]:
        _must_be_test(test)

        @functools.wraps(test)
        def explored(*args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True

            @functools.wraps(test)
            def body() -> Any:
                return test(*args, **kwargs)

            plan.explored(body, _name_of_test(test)).check()

        return explored

    return decorate


def check(
    body: Callable[[], Any],
    schedules: int = 20,
    *,
    seed: int = 0,
    strategy: str | Strategy = "portfolio",
    preempt: str = "points",
    max_steps: int = 20_000,
    switch: str | None = None,
    replay: Recorded | None = None,
    save: bool | File = True,
    name: str | None = None,
) -> Result:
    """Run ``body`` under up to ``schedules`` schedules, and raise what it raised with the report as a note.

    For the middle of a test, above all for bodies made of data from hypothesis:

        @given(st.lists(operations()))
        def test_queue(operations):
            check(lambda: scenario(operations))

    Inside an example the schedules depend on ``seed`` and on what the body does, and on which schedules failed in
    earlier examples of this test; an example that failed fails again.  Only the simplest example,
    which hypothesis shows at the end, has its schedule shrunk, proved minimal, written to a file, and told in a
    report.  Data is drawn outside of the body: it must be the same for all schedules.  Hypothesis's phase "explain"
    traces every line of every run; a test whose shrinking takes long is faster without it.

    ``name`` tells apart several calls in one test (for the file, and for what is remembered); normally it is
    the test's with that of ``body``.  A ``Strategy`` object learns: make a new one for each call.  The rest is as for
    ``explore``.  Returns the Result of a search that found nothing.  Errors: as ``search``.
    """
    __tracebackhide__ = True
    _must_be_body(body)
    plan = Plan(schedules, seed, strategy, preempt, max_steps, switch, replay, save, what="check")
    return plan.explored(body, name or _name_inside_test(body)).check()


@dataclass(frozen=True)
class Plan:
    """How to explore; what is wrong with it is said when it is made."""

    schedules: int
    seed: int
    strategy: str | Strategy
    preempt: str
    max_steps: int
    switch: str | None = None
    replay: Recorded | None = None
    save: bool | File = True
    verifies: bool = False
    bound: int | None = None
    """The preemption bound, if it verifies."""
    what: str = "test"
    """What is explored: a "test", the body of a "check", a "machine"."""

    def __post_init__(self) -> None:
        positive("schedules", self.schedules)
        if not isinstance(self.seed, int):
            raise TypeError(f"a seed is a whole number, not {self.seed!r}")
        check_save(self.save)
        exhaustive = self.exhaustive
        if self.verifies:
            if not exhaustive:
                raise ValueError(
                    'with verify=True the strategy is "dfs" or "dpor", or an exhaustive Strategy, '
                    f"not {self.strategy!r}"
                )
            if self.bound is not None and (not isinstance(self.bound, int) or self.bound < 0):
                raise ValueError(f"preemption_bound is a number from 0 on, or None, not {self.bound!r}")
        Program(_nothing, max_steps=self.max_steps, preempt=self.preempt)
        if isinstance(self.replay, str) and not (self.replay.endswith(".json") or os.sep in self.replay):
            load_schedule(self.replay)

    @property
    def exhaustive(self) -> bool:
        """Does the strategy run every schedule, so that there is no seed?"""
        return make_strategy(self.strategy).exhaustive

    def explored(self, body: Callable[[], Any], name: str) -> Result:
        """Try what was recorded; then search.  The result says how to run a failure again."""
        result = self.found(body, name)
        if result.failed and result.schedule is not None:
            result.again = (*self.again(result), *_picture(result))
        return result

    def again(self, result: Result) -> Iterator[str]:
        """What the user of a test can do: the body is not within reach, the test is."""
        assert result.schedule is not None
        if result.path is not None:
            node = _node()
            if node:
                yield f"pytest {shlex.quote(node)}  # begins with it: {result.path}"
            else:
                yield f"the next run of the test begins with it: {result.path}"
        code = result.schedule.code
        if self.what == "machine" or len(code) > SHORT_CODE:
            return
        if self.what == "check":
            yield f'testing.check(..., replay="{code}")  # for this example only'
        else:
            which = " with these parameters" if "[" in result.test else ""
            yield f'@testing.explore(replay="{code}")  # above the test{which}: no other schedule'

    def found(self, body: Callable[[], Any], name: str) -> Result:
        """The result of it."""
        example = in_example()
        if self.replay is not None:
            result = replay(body, self.replay, max_steps=self.max_steps, switch=self.switch)
            result.test = name
            if not isinstance(result.exception, ReplayDivergence):
                if not result.failed and example is None:
                    warnings.warn(
                        f"{name}: the schedule of replay= passes: remove it, and the test is explored again",
                        StaleSchedule, stacklevel=4,
                    )  # fmt: skip
                return result
            if example is None:  # a schedule fits one example only
                warnings.warn(f"{name}: {result.exception}: searching", StaleSchedule, stacklevel=4)
        file = None if self.save is False else failure_file(name) if self.save is True else FilePath(self.save)
        if example is not None and not self.exhaustive:
            return self.explored_in_example(body, name, file, final=example == "final")
        if file is not None and self.replay is None and example is None:
            for recorded in (_fixed(file), file):
                tried = self.tried(body, name, recorded, file)
                if tried is not None:
                    return tried
        seed = _from_environment("SWAPCO_SEED", int, "a whole number", self.seed)
        if self.verifies:
            result = verify(
                body,
                preemption_bound=self.bound,
                strategy=self.strategy,
                schedules=self.schedules,
                preempt=self.preempt,
                max_steps=self.max_steps,
                save=file or False,
                switch=self.switch,
                name=name,
            )
            if not result.failed and not result.exhausted:
                raise AssertionError(
                    f"{name}: {self.schedules:,} schedules are not all there are: raise schedules=, lower "
                    'preemption_bound=, or use strategy="dpor" and declare what steps touch'
                )
            return result
        return search(
            body,
            schedules=self.scaled(),
            seed=seed,
            strategy=self.strategy,
            preempt=self.preempt,
            max_steps=self.max_steps,
            save=file or False,
            switch=self.switch,
            name=name,
        )

    def tried(self, body: Callable[[], Any], name: str, recorded: FilePath, file: FilePath) -> Result | None:
        """The recorded failure, if it still is one."""
        try:
            wanted = load_schedule(recorded)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("%s: cannot read %s: %s", name, recorded, error)
            return None
        except ValueError as error:
            _log.warning("%s: removed %s: %s", name, recorded, error)
            recorded.unlink(missing_ok=True)
            return None
        result = replay(body, wanted, max_steps=self.max_steps, switch=self.switch)
        result.test = name
        if isinstance(result.exception, ReplayDivergence):
            _log.warning("%s: removed %s: %s", name, recorded, result.exception)
            recorded.unlink(missing_ok=True)
            return None
        if not result.failed:
            if recorded == file:
                os.replace(file, _fixed(file))
            return None
        if result.schedule is not None:
            keep(result, file)
        if recorded != file:
            recorded.unlink(missing_ok=True)
        return result

    def explored_in_example(self, body: Callable[[], Any], name: str, file: FilePath | None, *, final: bool) -> Result:
        """Search inside an example of hypothesis."""
        program = Program(body, max_steps=self.max_steps, preempt=self.preempt, switch=self.switch)
        seed = _from_environment("SWAPCO_SEED", int, "a whole number", self.seed)
        strategy = self.strategy
        result = Result(name, strategy=strategy if isinstance(strategy, str) else repr(strategy), seed=seed)
        session = functools.partial(find, program, result, memory_of(name, file), strategy, self.scaled())
        if final:
            return conclude(program, result, session, True, file or False, prove=True)
        quickly(program, result, session)
        return result

    def scaled(self) -> int:
        """The number of schedules, as the environment wants it."""
        text = os.environ.get("SWAPCO_SCHEDULES", "")
        number: float = _from_environment(
            "SWAPCO_SCHEDULES", lambda text: float(text.removesuffix("x")), "a number, or a factor such as 10x", 1.0
        )
        wanted = self.schedules * number if text.endswith("x") or not text else number
        if not 0 < wanted < float("inf"):
            raise ValueError(f"$SWAPCO_SCHEDULES is a number, or a factor such as 10x, not {text!r}")
        return max(1, round(wanted))


def _from_environment(variable: str, parse: Callable[[str], Any], what: str, otherwise: Any) -> Any:
    text = os.environ.get(variable)
    if not text:
        return otherwise
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"${variable} is {what}, not {text!r}") from None


def _picture(result: Result) -> Iterator[str]:
    """Draw it where the environment says, or say how to ask for that."""
    folder = os.environ.get("SWAPCO_SVG")
    if not folder:
        yield "SWAPCO_SVG=DIRECTORY in the environment: as a picture, too"
        return
    picture = FilePath(folder) / failure_file(result.test).with_suffix(".svg").name
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        result.save_svg(picture)
    except OSError as error:
        _log.warning("%s: no picture in %s: %s", result.test, picture, error)
    else:
        yield f"as a picture: {picture}"


def _fixed(file: FilePath) -> FilePath:
    return file.with_name(f"{file.name.removesuffix('.json')}.fixed.json")


def _nothing() -> None:
    """A body."""


# ----------------------------------------------------------------------------------------------- what is explored


def _must_be_test(test: Any) -> None:
    if isinstance(test, staticmethod | classmethod):
        raise TypeError(f"put @{type(test).__name__} above @explore: it decorates a function")
    if inspect.isclass(test):
        raise TypeError(f"explore decorates a test function, not a class: decorate the methods of {test.__name__}")
    if not callable(test):
        raise TypeError(f"explore decorates a test function, not {test!r}")
    if getattr(test, "is_hypothesis_test", False):
        raise TypeError("put @given above @explore: data is drawn first, and then its schedules are explored")
    if not inspect.isroutine(test) and not isinstance(test, functools.partial):
        raise TypeError(f"explore decorates a test function, not {test!r}: put it below other decorators")
    _must_be_body(test)


def _must_be_body(body: Any) -> None:
    if not callable(body):
        raise TypeError(f"the body is a function without arguments, not {body!r}; write check(f), not check(f())")
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise TypeError(f"{name_of_body(body)} is a generator function: calling it runs nothing; use a plain one")


def _node() -> str:
    """What pytest runs now, or nothing."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]


def _name_of_test(test: Any) -> str:
    node = _node()
    # a test may call another one, or start a process
    if f"::{getattr(test, '__name__', '')}" in node:
        return node
    return name_of_body(test)


def _name_inside_test(body: Any) -> str:
    node = _node()
    if not node:
        return name_of_body(body)
    own = getattr(body, "__name__", type(body).__name__)
    return node if own == "<lambda>" else f"{node}::{own}"
