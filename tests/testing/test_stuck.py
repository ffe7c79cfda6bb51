"""Nothing can run: what the message and the report say of whose fault it is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

import swapco
from swapco import testing
from swapco.testing import Result


def failure_of(body: Callable[[], Any], **options: Any) -> Result:
    result = testing.search(body, save=False, **options)
    assert result.failed
    return result


def rows_at_end(result: Result) -> list[str]:
    """The table of who waits for whom."""
    report = result.report
    return report[report.index("At the end") :].split("\n\n")[1].split("\n")


# --- who has ended


def test_who_ended_and_did_not_release_is_named() -> None:
    def body() -> None:
        lock = swapco.Lock()

        def needs() -> None:
            with lock:
                pass

        forgets = swapco.spawn(lock.acquire, name="forgets")
        swapco.wait([forgets, swapco.spawn(needs, name="needs")])

    result = failure_of(body)
    assert isinstance(result.exception, testing.LostWakeup)
    message = str(result.exception)
    assert message.startswith("nothing can run: a fiber has ended, and has not released what others wait for:\n")
    assert "owned by 'forgets', which has ended" in message
    assert "nobody" not in message
    assert re.search(r"needs +-- the Lock -+> forgets, has ended ", "\n".join(rows_at_end(result)))
    assert "a wakeup was lost" not in result.report


def test_the_picture_names_who_has_ended(tmp_path: Any) -> None:
    def body() -> None:
        lock = swapco.Lock()
        swapco.wait([swapco.spawn(lock.acquire, name="forgets"), swapco.spawn(lock.acquire, name="needs")])

    file = tmp_path / "a.svg"
    failure_of(body).save_svg(file)
    assert "; forgets has it, and has ended" in file.read_text()
    assert "who has ended has not released what others wait for" in file.read_text()


# --- from where


def test_the_callers_of_who_waits_are_named() -> None:
    """Two fibers wait in the same helper: the lines that call it tell them apart."""

    def take(lock: swapco.Lock) -> None:
        lock.acquire()

    def body() -> None:
        a, b = swapco.Lock(), swapco.Lock()

        def one() -> None:
            take(a)
            swapco.sleep(0)
            take(b)  # one

        def two() -> None:
            take(b)
            swapco.sleep(0)
            take(a)  # two

        swapco.wait([swapco.spawn(one), swapco.spawn(two)])

    result = failure_of(body)
    assert len(re.findall(r"\n      at \S+:\d+ in take\n      from \S+:\d+ in (?:one|two)", str(result.exception))) == 2
    rows = rows_at_end(result)
    assert all("lock.acquire()" in row for row in rows[0:4:2])
    assert [" ".join(row.split()[2:]) for row in rows[1:4:2]] == ["take(b) # one", "take(a) # two"]


# --- what has it all the same


class Forgetful(swapco.Event):
    """Is set, and wakes nobody."""

    def statistics(self) -> Any:
        return type("Facts", (), {"is_set": True, "waiting": 1})

    def __repr__(self) -> str:
        return "<Forgetful set>"


def test_a_primitive_that_has_what_is_waited_for_is_named(tmp_path: Any) -> None:
    def body() -> None:
        event = Forgetful()
        swapco.spawn(event.wait, name="waits").join()

    result = failure_of(body)
    words = "<Forgetful set> has it, and has woken nobody"
    assert str(result.exception).endswith(f"\n  {words}")
    assert isinstance(result.exception, testing.LostWakeup)
    assert result.exception.ready == (words,)
    assert f"\n  {words}" in result.report
    file = tmp_path / "a.svg"
    result.save_svg(file)
    assert "Forgetful set&gt; has it, and has woken nobody" in file.read_text()


# --- asyncio's primitives


async def lock_cycle() -> None:
    first, second = asyncio.Lock(), asyncio.Lock()

    async def takes(one: asyncio.Lock, other: asyncio.Lock) -> None:
        async with one:
            await asyncio.sleep(0)
            async with other:
                pass

    await asyncio.gather(takes(first, second), takes(second, first))


async def condition_cycle() -> None:
    condition, lock = asyncio.Condition(), asyncio.Lock()

    async def one() -> None:
        async with condition:
            await asyncio.sleep(0)
            async with lock:
                pass

    async def other() -> None:
        async with lock:
            await asyncio.sleep(0)
            async with condition:
                pass

    await asyncio.gather(one(), other())


async def semaphore_cycle() -> None:
    one, two = asyncio.Semaphore(1), asyncio.Semaphore(1)

    async def takes(first: asyncio.Semaphore, second: asyncio.Semaphore) -> None:
        async with first:
            await asyncio.sleep(0)
            await second.acquire()

    await asyncio.gather(takes(one, two), takes(two, one))


@pytest.mark.parametrize("body", [lock_cycle, condition_cycle, semaphore_cycle])
def test_a_cycle_of_asyncios_locks_is_a_deadlock(body: Callable[[], Any]) -> None:
    result = failure_of(body)
    assert type(result.exception) is testing.Deadlock
    message = str(result.exception)
    assert re.search(r"'Fiber-1' waits in \w+\.acquire\(\) of <asyncio.*>, owned by 'Fiber-2'\n", message)
    assert re.search(r"'Fiber-2' waits in \w+\.acquire\(\) of <asyncio.*>, owned by 'Fiber-1'\n", message)
    assert "_Wakeup" not in result.report
    first, second = rows_at_end(result)[:2]
    assert re.match(r"  \.-> Fiber-1  -- \w+\.acquire\(\) of (the )?\w+ ?\d? -+> Fiber-2 ", first)
    assert re.match(r"  '-- Fiber-2  -- \w+\.acquire\(\) of (the )?\w+ ?\d? -+> Fiber-1 ", second)


async def waits_for_a_notification() -> None:
    """Whoever waits for a notification has given the lock back, and waits for nobody who has it."""
    condition = asyncio.Condition()

    async def waits() -> None:
        async with condition:
            await condition.wait()

    await asyncio.gather(waits(), waits())


async def waits_for_one_of_several() -> None:
    """Any of those who hold a semaphore could let it go on."""
    permits, never = asyncio.Semaphore(2), asyncio.Event()

    async def takes() -> None:
        async with permits:
            await never.wait()

    await asyncio.gather(takes(), takes(), takes())


async def acquires_without_a_block() -> None:
    """Nobody can say who has it."""
    lock = asyncio.Lock()

    async def takes() -> None:
        await lock.acquire()
        await asyncio.Event().wait()

    await asyncio.gather(takes(), takes())


@pytest.mark.parametrize("body", [waits_for_a_notification, waits_for_one_of_several, acquires_without_a_block])
def test_where_nobody_in_particular_must_act_there_is_no_owner(body: Callable[[], Any]) -> None:
    result = failure_of(body)
    assert type(result.exception) is testing.LostWakeup
    assert "owned by" not in str(result.exception)
    assert all("> nobody" in row for row in rows_at_end(result) if "Fiber-" in row.split("--")[0])


async def waits_outside_of_a_cycle() -> None:
    """The owner waits for something that never comes."""
    lock, never = asyncio.Lock(), asyncio.Event()

    async def holds() -> None:
        async with lock:
            await never.wait()

    async def needs() -> None:
        async with lock:
            pass

    await asyncio.gather(holds(), needs())


def test_the_owner_is_named_without_a_cycle() -> None:
    result = failure_of(waits_outside_of_a_cycle)
    assert type(result.exception) is testing.LostWakeup
    rows = "\n".join(rows_at_end(result))
    assert re.search(r"Fiber-1  -- Event\.wait\(\) of the Event -+> nobody", rows)
    assert re.search(r"Fiber-2  -- Lock\.acquire\(\) of the Lock -+> Fiber-1", rows)


# --- fibers that are left


def test_fibers_that_are_left_and_wait_for_each_other_are_a_cycle() -> None:
    def body() -> None:
        one, other = swapco.Lock(), swapco.Lock()

        def takes(first: swapco.Lock, second: swapco.Lock) -> None:
            with first:
                swapco.sleep(0)
                with second:
                    pass

        swapco.spawn(takes, one, other)
        swapco.spawn(takes, other, one)
        swapco.sleep(1)

    result = failure_of(body)
    assert isinstance(result.exception, testing.FiberLeak)
    assert str(result.exception).startswith(
        "the body has ended, and fibers that it started wait for each other:\n  'Fiber-1' waits for "
    )


# --- the network in memory


def test_what_is_awaited_of_a_network_is_said_in_words() -> None:
    def body() -> None:
        network = testing.MemoryNetwork(short_reads=False, delays=False)
        server = network.start_server(lambda reader, writer: reader.readline(), "db", 5432)
        reader, _ = network.open_connection("db", 5432)
        swapco.spawn(server.wait_closed, name="closer")
        reader.readline()

    result = failure_of(body)
    assert isinstance(result.exception, testing.LostWakeup)
    rows = "\n".join(rows_at_end(result))
    assert re.search(r"main +-- data from db:5432 -+> nobody", rows)
    assert "'main' waits for data from db:5432\n" in str(result.exception)
    assert "Change" not in result.report


def test_a_choice_that_a_callback_asks_for_is_its_own() -> None:
    """The event loop asks, and no fiber runs."""

    async def body() -> None:
        chosen: list[int] = []
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: chosen.append(testing.choose(2, "which")))
        await asyncio.sleep(1)
        assert chosen == [0]

    result = failure_of(body)
    assert "CHOICE: which comes to 1 of 0 to 1" in result.report
