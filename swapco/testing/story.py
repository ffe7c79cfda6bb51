"""What happened in one run, in the words of the program: the data of reports.

A run is replayed with a watcher, the ``Teller``, that looks at each moment at who stops, who goes on, and at which
lines.  That costs a hundred times what a run costs; so it is done once, for the schedule that a person will read.

A *moment* is the unit of the scheduler: an actor may stop, and one goes on; or the environment of the program chooses
something.  What a person reads is made of it in ``segments``.

Names are unique in a story (the second fiber called "worker" is "worker (2)"), for a reader must be able to tell lanes
apart.  ``Story.named`` has the names that the program gave instead, for they are what a replay by name compares.

Invariants: nothing here changes the run.  No repr of a value of the program is taken (it might block, or be huge), no
exception of a fiber is marked as seen.

Rejected: telling the story while searching (every run would pay for it); ``sys.settrace`` for the lines between two
moments (it changes what C functions see, and other tools use it; the lines at which a fiber could have been
interrupted are what the order of switches is about).
"""

from __future__ import annotations

import functools
import gc
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from .awaits import awaited_call
from .errors import Unwinding
from .owners import cycle_of, gone_owner_of, members_of, owners_of
from .places import Place, depth_of, place_of_exception, place_of_fiber, places_of_fiber
from .schedule import Named

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Ending", "Moment", "Story", "Teller", "Wait", "headline_of"]

#: The label of a switch that was no decision: somebody called ``switch_to``, or what it called has returned.
HANDOFF = "handoff"
#: The label of a point that the program named, and not of an operation that it was about to call.
POINT = "schedule_point"
#: The actor that runs callbacks.
LOOP = "the event loop"
#: Stands for a name that is not known yet.
_TARGET = "\0"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Moment(NamedTuple):
    """An actor stops, and one goes on."""

    before: str
    """Who ran before: a fiber's name, "the event loop", or a timer in words; "" at the start."""
    left: Place | None
    """The line at which it stopped; None: it has ended, or is no fiber."""
    label: str
    """Why: "schedule_point", "Lock" (it waits for one), "yield", "end", "Lock.acquire" (it is about to call it), ..."""
    waits_for: str
    """What it waits for, in words; "" if it does not wait."""
    chosen: str
    """Who goes on."""
    resumes: Place | None
    """The line at which it goes on; None: it starts there, or is no fiber."""
    enabled: tuple[str, ...]
    """Who could have gone on, in the order in which production would take them."""
    choice: int
    """The index into ``enabled``; not 0: production would not have done so."""
    decision: int
    """The number of the decision, or -1: there was nothing to choose."""
    preemption: bool
    """``before`` could have gone on."""
    time: float
    """Virtual seconds since the start of the run."""
    owner: str = ""
    """The fiber that must act before ``before`` can go on: it has the lock, or must end; "" if there is none."""
    outcome: str = ""
    """How ``before`` ended, if it did: "ends", "is cancelled", "raises ValueError: ..."."""
    does: str = ""
    """What the event loop calls, if that is chosen."""
    possibilities: int = 0
    """A choice of the environment among so many, with ``choice`` as its outcome: nobody switches.  0: a switch."""
    wants: str = ""
    """``waits_for`` for a reader, without state: "Lock 2", "an item from the Queue", "the end of worker", "sleep()"."""

    @property
    def deviates(self) -> bool:
        """Would production have done something else?"""
        return self.choice != 0

    @property
    def switches(self) -> bool:
        """Does somebody else go on?"""
        return self.before != self.chosen


class Ending(NamedTuple):
    """How a fiber ended, if by an exception."""

    exception: str
    """Its type and message, in one line."""
    place: Place | None
    """The line that raised it; of whoever passes another fiber's on, where it got it."""
    origin: str = ""
    """The fiber that had ended with the same exception before, if there is one."""


class Wait(NamedTuple):
    """A fiber that waits when the run is over."""

    fiber: str
    wants: str
    """What it waits for, in words; "" if that is not known."""
    owner: str
    """The fiber that must act before it can go on: the next one in a cycle, or the first of several; or ""."""
    place: Place | None
    gone: str = ""
    """The fiber that has what it waits for, if that one has ended; or ""."""
    callers: tuple[Place, ...] = ()
    """From where ``place`` was called, outwards."""


class Story(NamedTuple):
    """A run, moment by moment."""

    moments: tuple[Moment, ...]
    actors: tuple[str, ...]
    """In order of appearance."""
    spawned_at: dict[str, Place | None]
    """Where each fiber's function begins."""
    named: tuple[Named, ...] = ()
    """The decisions that production would not have made, in words."""
    fibers: tuple[str, ...] = ()
    """The actors that are fibers, in the order in which they were spawned."""
    endings: dict[str, Ending] = {}  # noqa: RUF012
    """The fibers that ended by an exception."""
    unfinished: frozenset[str] = frozenset()
    """The fibers that had not ended when the run was over."""
    waits: tuple[Wait, ...] = ()
    """Those of them that waited, in the order in which they were spawned."""

    @property
    def deviations(self) -> tuple[Moment, ...]:
        """The moments that matter: those at which production would have done something else."""
        return tuple(moment for moment in self.moments if moment.deviates)


def headline_of(exception: BaseException | None) -> str:
    """The type of an exception, and the first line of its message."""
    if exception is None:
        return "nothing"
    try:
        message = str(exception).strip().split("\n", 1)[0]
    except Exception as error:
        message = f"(its message raises {type(error).__name__})"
    return f"{type(exception).__name__}: {message}" if message else type(exception).__name__


class Teller:
    """The watcher of a run: collects its moments."""

    def __init__(self) -> None:
        self._moments: list[Moment] = []
        self._control: Any = None
        self._names: list[str] = []
        self._ids: dict[int, int] = {}
        self._taken: set[str] = set()
        self._chosen = -1
        self._ended: set[int] = set()
        # exceptions: who ended with it first, through how many frames it had come, and itself, so that its id is taken
        self._raised: dict[int, tuple[int, int, BaseException]] = {}
        self._order: dict[str, Place | None] = {}
        self._decisions = 0
        self._named: list[Named] = []
        self._counts: dict[tuple[str, str], int] = {}
        self._last_key = ""
        # what was waited for, by type; held, so that no other object gets its id
        self._targets: dict[str, list[Any]] = {}
        # moments at which somebody begins to wait: how to say it, and for what
        self._wants: dict[int, tuple[str, Any]] = {}
        # fibers that have not ended when the run is over: how they are ended then is no part of the story
        self._left: set[int] = set()
        self._waits: list[tuple[Wait, str, Any]] = []

    def __call__(self, control: Any, chosen: int) -> None:
        """Called by the control at each moment."""
        self._control = control
        enabled, current, label = control.moment()
        self._learn_names()
        running = control.running
        here = None if running is None else place_of_fiber(running, _caller())
        decision = self._decision(enabled, label, chosen)
        if enabled[0] < -1:
            self._environment(running, here, label, len(enabled), chosen, decision)
            return
        before, left, waits_for, owner, outcome = self._who_stops(running, here)
        actor = control.actor(enabled[chosen])
        resumes = None
        if actor is running:
            resumes = here
        elif self._is_fiber(enabled[chosen]) and actor.state != "NEW":
            resumes = place_of_fiber(actor, actor.frame)
        name = self._names[enabled[chosen]]
        self._moments.append(
            Moment(
                before,
                left,
                label,
                waits_for,
                name,
                resumes,
                tuple([self._names[number] for number in enabled]),
                chosen,
                decision,
                chosen != 0 and current >= 0,
                control.time(),
                owner,
                outcome,
                _first_callback(control) if actor == LOOP else "",
            )
        )
        if name not in self._order:
            self._order[name] = _start_of(actor)
        self._chosen = enabled[chosen]

    def over(self, control: Any) -> None:
        """Called when the run is over, and its fibers have not been ended yet."""
        self._control = control
        self._learn_names()
        self._left.update(n for n, fiber in enumerate(control.fibers) if fiber is not None and not fiber.done())
        waiting = [fiber for fiber in control.fibers if fiber is not None and fiber.wait_reason is not None]
        cycle = cycle_of(waiting, owners_of)
        following = {id(fiber): after for fiber, after in zip(cycle, [*cycle[1:], *cycle[:1]], strict=True)}
        for fiber in waiting:
            owners = [following[id(fiber)]] if id(fiber) in following else owners_of(fiber)
            owner = next((self._names[self._ids[id(other)]] for other in owners if id(other) in self._ids), "")
            words, target = self._words_of(fiber)
            gone = self._ids.get(id(gone_owner_of(fiber)), -1)
            places = [*places_of_fiber(fiber, fiber.frame), None]
            wait = Wait(
                self._names[self._ids[id(fiber)]],
                "",
                owner,
                places[0],
                "" if gone < 0 else self._names[gone],
                tuple(filter(None, places[1:])),
            )
            self._waits.append((wait, words, target))

    def story(self) -> Story:
        """What was collected; call it when the run is over."""
        fibers, endings, unfinished = [], {}, []
        if self._control is not None:
            self._learn_names()
            for number, fiber in enumerate(self._control.fibers):
                if fiber is None:
                    continue
                name = self._names[number]
                fibers.append(name)
                error = _exception_of(fiber)
                if number in self._left or isinstance(error, Unwinding):
                    unfinished.append(name)
                elif isinstance(error, Exception):
                    endings[name] = self._ending(number, error)
        moments = list(self._moments)
        for at, (words, target) in self._wants.items():
            moments[at] = moments[at]._replace(wants=self._with_target(words, target))
        waits = [wait._replace(wants=self._with_target(words, target)) for wait, words, target in self._waits]
        return Story(
            tuple(moments),
            tuple(self._order),
            dict(self._order),
            tuple(self._named),
            tuple(fibers),
            endings,
            frozenset(unfinished),
            tuple(waits),
        )

    def _ending(self, number: int, error: Exception) -> Ending:
        first, inner, _ = self._raised.get(id(error), (number, 0, error))
        if first == number:
            return Ending(headline_of(error), place_of_exception(error))
        return Ending(headline_of(error), place_of_exception(error, inner), self._names[first])

    # -- names

    def _learn_names(self) -> None:
        """Of actors that are new."""
        control = self._control
        for number in range(len(self._names), len(control.actors)):
            actor = control.actors[number]
            name = wanted = self._timer_name(actor) or control.name(actor)
            copies = 1
            while name in self._taken:
                copies += 1
                name = f"{wanted} ({copies})"
            if control.fibers[number] is not None:
                # a timer is another actor each time that it is armed: those may share a name
                self._taken.add(name)
            self._names.append(name)
            self._ids[id(actor)] = number

    def _timer_name(self, actor: Any) -> str:
        """In words, for those whose own name is about something else, or not unique."""
        if repr(actor).startswith("call_later(_"):
            return "a timer of the event loop"
        kind = type(actor).__name__
        if kind == "Timeout" and callable(getattr(actor, "when", None)):
            return f"timeout at {actor.when():g} s"
        if kind == "WaitTimer":
            numbers = [self._ids[id(inner)] for inner in gc.get_referents(actor) if id(inner) in self._ids]
            return f"timer of {self._names[numbers[0]]}" if numbers else ""
        return ""

    def _is_fiber(self, number: int) -> bool:
        return self._control.fibers[number] is not None

    def _decision(self, enabled: tuple[int, ...], label: str, chosen: int) -> int:
        """The number of the decision; what ``ByName`` compares is kept of those that deviate."""
        if len(enabled) < 2:
            return -1
        control = self._control
        names = control.name(control.actor(enabled[chosen]))
        running = control.running
        key = (control.name(running) if running is not None else self._last_key, label)
        if chosen:
            self._named.append(Named(*key, self._counts.get(key, 0), names))
        self._counts[key] = self._counts.get(key, 0) + 1
        self._last_key = names
        self._decisions += 1
        return self._decisions - 1

    # -- who stops

    def _who_stops(self, running: Any, here: Place | None) -> tuple[str, Place | None, str, str, str]:
        """Its name, its line, what it waits for, who has that, how it ended."""
        chosen = self._chosen
        if chosen < 0:
            return "", None, "", "", ""
        if not self._is_fiber(chosen):
            return self._names[chosen], None, "", "", ""
        actor = self._control.actor(chosen)
        ended = running is None or running.done()
        if ended and not actor.done():
            # somebody handed over, and who was handed the slot has ended
            running = next((f for n, f in enumerate(self._control.fibers) if self._new_end(n, f)), actor)
        elif ended:
            running = actor
        number = self._ids[id(running)]
        name = self._names[number]
        if number != chosen:
            self._handed_over(actor, chosen, name)
        if ended:
            self._ends(number, running)
            return name, None, "", "", _outcome_of(running)
        self._learn_start(running, name)
        return name, here, self._wait_of(running), self._owner_of(running), ""

    def _ends(self, number: int, fiber: Any) -> None:
        self._ended.add(number)
        error = _exception_of(fiber)
        if error is not None:
            self._raised.setdefault(id(error), (number, depth_of(error), error))

    def _new_end(self, number: int, fiber: Any) -> bool:
        return fiber is not None and number not in self._ended and fiber.done()

    def _handed_over(self, actor: Any, number: int, to: str) -> None:
        """A moment of its own for a switch that the scheduler did not decide."""
        done = actor.done()
        if done:
            self._ends(number, actor)
        waits_for = "" if done else self._wait_of(actor)
        self._moments.append(
            Moment(
                self._names[number],
                None if done else place_of_fiber(actor, actor.frame),
                HANDOFF,
                waits_for,
                to,
                None,
                (),
                0,
                -1,
                False,
                self._control.time(),
                outcome=_outcome_of(actor) if done else "",
            )
        )
        self._order.setdefault(to, None)

    def _wait_of(self, fiber: Any) -> str:
        """What it waits for, in words; notes how to say it when all names are known."""
        words = fiber.wait_reason
        if words is None:
            return ""
        self._wants[len(self._moments)] = self._words_of(fiber)
        return _ADDRESS.sub("", words)

    def _words_of(self, fiber: Any) -> tuple[str, Any]:
        """What it waits for, with ``_TARGET`` in place of the name of the target, and the target."""
        words, target = fiber.wait_reason, fiber.waits_for_object
        if id(target) in self._ids:
            return f"the end of {_TARGET}", target
        if target is None:
            return words, None
        members = [self._names[self._ids[id(member)]] for member in members_of(target) if id(member) in self._ids]
        if members:
            return f"the end of {_enumerated(members)}", None
        if words == repr(target) and type(target).__module__.startswith("swapco.testing."):
            # it says itself what is awaited
            return words, None
        called, primitive = awaited_call(fiber) if words == repr(target) else ("", None)
        if primitive is not None:
            self._know_target(primitive)
            return f"{called}() of {_TARGET}", primitive
        if called:
            return f"{called}()", None
        self._know_target(target)
        before, _, after = words.partition(repr(target))
        return f"{before}{_TARGET}{after}", target

    def _know_target(self, target: Any) -> None:
        known = self._targets.setdefault(type(target).__name__, [])
        if not any(other is target for other in known):
            known.append(target)

    def _with_target(self, words: str, target: Any) -> str:
        return words if target is None else words.replace(_TARGET, self._name_of_target(target), 1)

    def _name_of_target(self, target: Any) -> str:
        if id(target) in self._ids:
            return self._names[self._ids[id(target)]]
        name = type(target).__name__
        known = self._targets.get(name, [])
        kind = name.lstrip("_")
        if len(known) < 2:
            return f"the {kind}"
        return f"{kind} {next(number for number, other in enumerate(known, 1) if other is target)}"

    def _learn_start(self, fiber: Any, name: str) -> None:
        """Of a fiber that was made with a coroutine: its code is known once it has begun."""
        if self._order.get(name) is None:
            code = getattr(fiber.get_coro(), "cr_code", None) if hasattr(fiber, "get_coro") else None
            if code is not None:
                self._order[name] = Place(code.co_filename, code.co_firstlineno, code.co_name)

    def _owner_of(self, fiber: Any) -> str:
        owners = owners_of(fiber)
        return self._names[self._ids[id(owners[0])]] if len(owners) == 1 and id(owners[0]) in self._ids else ""

    def _environment(
        self, running: Any, here: Place | None, label: str, possibilities: int, chosen: int, decision: int
    ) -> None:
        """A choice of the environment: whoever asked goes on."""
        if self._chosen >= 0 and not self._is_fiber(self._chosen):
            # a callback asks
            name = self._names[self._chosen]
        else:
            name = "" if running is None else self._names[self._ids[id(running)]]
        self._moments.append(
            Moment(
                name,
                here,
                label,
                "",
                name,
                here,
                (),
                chosen,
                decision,
                False,
                self._control.time(),
                possibilities=possibilities,
            )
        )


def _caller() -> FrameType | None:
    """The frame of whoever runs; None: only a coroutine runs there, and it has left the stack for it is suspended."""
    try:
        return sys._getframe(2)
    except ValueError:
        return None


def _outcome_of(fiber: Any) -> str:
    error = _exception_of(fiber)
    if error is None:
        return "ends"
    return "is cancelled" if fiber.cancelled() else f"raises {headline_of(error)}"


def _exception_of(fiber: Any) -> BaseException | None:
    """What a fiber ended with; nobody counts as having seen it."""
    found = fiber._exception
    return found if isinstance(found, BaseException) else None


def _enumerated(names: list[str]) -> str:
    """As many as a line has room for."""
    shown = 1
    while shown < len(names) and len(", ".join(names[: shown + 1])) <= 40:
        shown += 1
    more = f" and {len(names) - shown} more" if shown < len(names) else ""
    return ", ".join(names[:shown]) + more


def _first_callback(control: Any) -> str:
    """What the event loop is about to call; "" for what the libraries call."""
    callback = getattr(next(iter(control.callbacks), None), "_callback", None)
    while isinstance(callback, functools.partial):
        callback = callback.func
    name = getattr(callback, "__qualname__", "")
    if not isinstance(name, str) or name.rpartition(".")[2].startswith("_"):
        return ""
    return name.rpartition("<locals>.")[2]


def _start_of(actor: Any) -> Place | None:
    function: Any = getattr(actor, "function", None)
    while isinstance(function, functools.partial) or hasattr(function, "__wrapped__"):
        # what a decorator has wrapped is what the reader knows
        function = function.func if isinstance(function, functools.partial) else function.__wrapped__
    code = getattr(getattr(function, "__func__", function), "__code__", None) or getattr(function, "cr_code", None)
    return None if code is None else Place(code.co_filename, code.co_firstlineno, code.co_name)
