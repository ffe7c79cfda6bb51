"""Programs that fail under some schedule, each in its own way; and random ones.  What reports are tested with."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from hypothesis import strategies as st

import swapco
from swapco import testing

Operation: TypeAlias = tuple[Any, ...]


def lost_update() -> None:
    account = {"balance": 100}

    def deposit(amount: int) -> None:
        balance = account["balance"]
        testing.schedule_point()
        account["balance"] = balance + amount

    swapco.wait([swapco.spawn(deposit, 10, name="alice"), swapco.spawn(deposit, 20, name="bob")])
    assert account["balance"] == 130, f"the balance is {account['balance']}"


def deadlock() -> None:
    locks = [swapco.Lock(), swapco.Lock(), swapco.Lock()]

    def take(first: int, second: int) -> None:
        with locks[first]:
            testing.schedule_point()
            with locks[second]:
                pass

    fibers = [swapco.spawn(take, i, (i + 1) % 3, name=f"taker {i}") for i in range(3)]
    swapco.wait(fibers)


def deadlock_through_a_group() -> None:
    lock = swapco.Lock()

    def member() -> None:
        with lock:
            pass

    with lock, swapco.TaskGroup() as group:
        group.spawn(swapco.sleep, 1, name="harmless")
        group.spawn(member, name="member")


class Semaphore:
    """Somebody's own, and wrong: a release between the look and the wait is lost."""

    def __init__(self, permits: int) -> None:
        self.permits = permits
        self.waiters: list[swapco.Event] = []

    def acquire(self) -> None:
        while self.permits == 0:
            testing.schedule_point()
            event = swapco.Event()
            self.waiters.append(event)
            event.wait()
        self.permits -= 1

    def release(self) -> None:
        self.permits += 1
        if self.waiters:
            self.waiters.pop(0).set()


def lost_wakeup() -> None:
    semaphore = Semaphore(1)

    def work() -> None:
        semaphore.acquire()
        testing.schedule_point()
        semaphore.release()

    swapco.wait([swapco.spawn(work, name=f"worker {i}") for i in range(3)])


def timeout_race() -> None:
    queue = swapco.Queue[str](1)
    got: list[str | None] = []

    def consume() -> None:
        try:
            got.append(queue.get(timeout=5))
        except TimeoutError:
            got.append(None)

    def produce() -> None:
        swapco.sleep(5)
        queue.put("job")

    swapco.wait([swapco.spawn(consume, name="consumer"), swapco.spawn(produce, name="producer")])
    assert got == ["job"], got


def timers_in_order() -> None:
    """Fails if the second of two timers of the same instant fires first."""
    order: list[int] = []

    def work(i: int) -> None:
        swapco.sleep(3)
        order.append(i)

    swapco.wait([swapco.spawn(work, i, name=f"sleeper {i}") for i in range(2)])
    assert order == [0, 1]


def at_primitives() -> None:
    lock, total = swapco.Lock(), [0]

    def add(n: int) -> None:
        with lock:
            seen = total[0]
        with lock:
            total[0] = seen + n

    swapco.wait([swapco.spawn(add, n, name=f"add {n}") for n in (1, 2)])
    assert total == [3]


def endless() -> None:
    flags = {"go": False, "late": False}

    def spin() -> None:
        while not flags["go"]:
            swapco.sleep(0)

    def start() -> None:
        testing.schedule_point()
        flags["go"] = not flags["late"]

    def be_late() -> None:
        flags["late"] = True

    functions = {"spinner": spin, "starter": start, "late one": be_late}
    swapco.wait([swapco.spawn(fn, name=name) for name, fn in functions.items()])


def leak() -> None:
    swapco.spawn(swapco.Event().wait, name="forgotten")
    swapco.sleep(1)


def child_fails() -> None:
    config: dict[str, int] = {}

    def load() -> None:
        testing.schedule_point()
        config["port"] = 80

    def serve() -> int:
        testing.schedule_point()
        return config["port"]

    server = swapco.spawn(serve, name="server")
    swapco.wait([swapco.spawn(load, name="loader"), server])
    server.result()


async def coroutines() -> None:
    hits = [0]

    async def hit() -> None:
        seen = hits[0]
        await asyncio.sleep(0)
        hits[0] = seen + 1

    await asyncio.gather(hit(), hit(), hit())
    assert hits == [3]


def group() -> None:
    stock = [1]

    def buy(who: str) -> None:
        if stock[0] > 0:
            testing.schedule_point()
            stock[0] -= 1
            if stock[0] < 0:
                raise ValueError(f"{who} bought what was not there")

    with swapco.TaskGroup() as shop:
        shop.spawn(buy, "ann", name="ann")
        shop.spawn(buy, "ben", name="ben")


def handoff() -> None:
    def pong() -> None:
        swapco.sleep(1)

    swapco.switch_to(swapco.spawn(pong, name="pong"))


def choice() -> None:
    def send() -> None:
        lost = testing.choose(3)
        assert lost != 2, "the third packet"

    swapco.wait([swapco.spawn(send, name="sender")])


def many() -> None:
    box = [0]

    def add() -> None:
        value = box[0]
        swapco.sleep(1)
        box[0] = value + 1

    swapco.wait([swapco.spawn(add, name=f"a worker with a rather long name {i}") for i in range(60)])
    assert box == [60]


HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "a&b;&amp;&#0;",
    "\"quoted'",
    "zero\0and\x1b[31mred",
    "\ud800",
    "\ufffe\uffff",
    "\u202eright to left",
    "日本語の名前がとても長い場合" * 3,
    "e\u0301\u0301",
    "two\nlines\r\n\tand a tab",
    "]]>--><!--",
    "%s {} {0} \\N{DASH}",
    "twin",
    "twin",
    "twin (2)",
    "",
    " ",
    "x" * 10_000,
)


def hostile() -> None:
    lock = swapco.Lock()

    def work() -> None:
        with lock:
            testing.schedule_point()
            swapco.sleep(0.1)

    swapco.wait([swapco.spawn(work, name=name) for name in HOSTILE_NAMES])
    raise ValueError("<b>&\"'\0\x1b[31m\ud800\ufffe ]]>\nsecond line" + "&" * 100_000)


BOUND = 300
ALL: tuple[Callable[[], Any], ...] = (
    lost_update,
    deadlock,
    deadlock_through_a_group,
    lost_wakeup,
    timeout_race,
    timers_in_order,
    at_primitives,
    endless,
    leak,
    child_fails,
    coroutines,
    group,
    handoff,
    choice,
    many,
    hostile,
)


def failure_of(body: Callable[[], Any], **options: Any) -> testing.Result:
    """What a search of one of the programs comes to."""
    if body is at_primitives:
        options.setdefault("preempt", "primitives")
    if body is endless:
        options.setdefault("max_steps", BOUND)
    options.setdefault("save", False)
    result = testing.search(body, **options)
    assert result.failed, body
    return result


def line_of(body: Callable[[], Any], text: str) -> int:
    """The number of the only line of a program that has a text in it."""
    lines, first = inspect.getsourcelines(body)
    (found,) = [at for at, line in enumerate(lines) if text in line]
    return first + found


# ------------------------------------------------------------------------------------------------------ random ones

LOCKS = 2


def operations() -> st.SearchStrategy[Operation]:
    which = st.integers(0, LOCKS - 1)
    simple: list[st.SearchStrategy[Operation]] = [
        st.just(("point",)),
        st.just(("yield",)),
        st.tuples(st.just("lock"), which),
        st.tuples(st.just("unlock"), which),
        st.tuples(st.just("set"), which),
        st.tuples(st.just("wait"), which, st.sampled_from([None, 1, 2])),
        st.tuples(st.just("sleep"), st.integers(0, 2)),
        st.just(("put",)),
        st.just(("get",)),
        st.tuples(st.just("choose"), st.integers(2, 4)),
        st.tuples(st.just("raise"), st.text(max_size=20)),
        st.just(("check",)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.just(("hand over",)),
    ]
    inner = st.lists(st.one_of(*simple), min_size=1, max_size=3)
    nested = [st.tuples(st.just(kind), inner, st.text(max_size=8)) for kind in ("spawn", "group", "await")]
    return st.one_of(*simple, *nested)


def programs() -> st.SearchStrategy[list[tuple[str, list[Operation]]]]:
    """The name and the operations of each fiber."""
    names = st.one_of(st.sampled_from(HOSTILE_NAMES[:14]), st.text(max_size=8), st.just("twin"))
    fiber = st.tuples(names, st.lists(operations(), min_size=1, max_size=5))
    return st.lists(fiber, min_size=1, max_size=4)


def body_of(program: list[tuple[str, list[Operation]]]) -> Callable[[], None]:
    """A body that spawns the fibers of a random program and waits for them."""

    def body() -> None:
        locks = [swapco.Lock() for _ in range(LOCKS)]
        events = [swapco.Event() for _ in range(LOCKS)]
        queue = swapco.Queue[int](1)
        count = [0]
        spawned: list[swapco.Fiber[None]] = []

        def fiber(steps: list[Operation]) -> None:
            for name, *arguments in steps:
                count[0] += 1
                if name == "point":
                    testing.schedule_point()
                elif name == "yield":
                    swapco.sleep(0)
                elif name == "lock":
                    locks[arguments[0]].acquire()
                elif name == "unlock":
                    locks[arguments[0]].release()
                elif name == "set":
                    events[arguments[0]].set()
                elif name == "wait":
                    events[arguments[0]].wait(timeout=arguments[1])
                elif name == "sleep":
                    swapco.sleep(arguments[0])
                elif name == "put":
                    queue.put(count[0])
                elif name == "get":
                    queue.get()
                elif name == "choose":
                    testing.choose(arguments[0])
                elif name == "raise":
                    raise ValueError(arguments[0])
                elif name == "check":
                    assert count[0] < 7
                elif name == "cancel":
                    spawned[arguments[0] % len(spawned)].cancel()
                elif name == "hand over":
                    swapco.switch_to(swapco.spawn(fiber, [("point",)], name="next"))
                elif name == "spawn":
                    spawned.append(swapco.spawn(fiber, arguments[0], name=arguments[1]))
                elif name == "group":
                    with swapco.TaskGroup() as members:
                        for step in arguments[0]:
                            members.spawn(fiber, [step], name=arguments[1])
                else:
                    assert name == "await"
                    swapco.await_(coroutine(arguments[0]))

        async def coroutine(steps: list[Operation]) -> None:
            await asyncio.sleep(0)
            fiber(steps)

        spawned += [swapco.spawn(fiber, steps, name=name) for name, steps in program]
        swapco.wait(list(spawned))
        for one in spawned:
            one.result()

    return body
