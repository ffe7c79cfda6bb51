"""Scenarios of groups, joins, and waits for several, and their laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from own_laws import CANCELLED, LATE, Make, Scenario

import swapco
from swapco import Fiber
from swapco.testing import schedule_point

__all__ = ["SCENARIOS", "UNDISTURBED"]

GONE = (CANCELLED, LATE)


class Members:
    """Who has begun, and how they have ended."""

    def __init__(self) -> None:
        self.fibers: list[Fiber[Any]] = []
        self.begun: list[int] = []
        self.ended: list[int] = []

    def member(self, number: int, error: type[BaseException] | None = None) -> Callable[[], int]:
        def run() -> int:
            self.begun.append(number)
            try:
                swapco.sleep(0)
                if error is not None:
                    raise error(number)
                schedule_point(self)
                return number
            finally:
                self.ended.append(number)

        return run

    def stubborn(self, number: int) -> Callable[[], int]:
        """A member that answers a cancellation with a failure, some time later."""

        def run() -> int:
            self.begun.append(number)
            try:
                swapco.sleep(0)
                schedule_point(self)
            except swapco.CancelledError:
                swapco.sleep(0)
                raise ValueError(number) from None
            finally:
                self.ended.append(number)
            return number

        return run

    def quick(self, number: int) -> Callable[[], int]:
        """A member that ends without a wait."""

        def run() -> int:
            self.begun.append(number)
            self.ended.append(number)
            return number

        return run

    def all_over(self) -> None:
        assert all(fiber.done() for fiber in self.fibers), "a member outlives its group"
        assert sorted(self.begun) == sorted(self.ended)


def group() -> Scenario:
    """No member outlives the group, however the parent leaves it."""
    members = Members()

    def parent() -> list[Any]:
        try:
            with swapco.TaskGroup() as tg:
                members.fibers.append(tg.spawn(members.member(0)))
                schedule_point(members)
                members.fibers.append(tg.spawn(members.member(1)))
        finally:
            members.all_over()
        return [fiber.result() for fiber in members.fibers]

    def law(ends: list[Any]) -> None:
        assert ends == [[0, 1]] or ends[0] in GONE
        members.all_over()

    return Scenario([parent], law)


def failing_group() -> Scenario:
    """The first failure cancels the rest; all failures come out, and only they."""
    members = Members()

    def parent() -> str:
        error: BaseExceptionGroup[BaseException] | None = None
        try:
            with swapco.TaskGroup() as tg:
                members.fibers.append(tg.spawn(members.member(0, ValueError)))
                members.fibers.append(tg.spawn(members.member(1, KeyError)))
                members.fibers.append(tg.spawn(members.member(2)))
                swapco.sleep(0)
        except BaseExceptionGroup as caught:
            error = caught
        finally:
            members.all_over()
        if error is None:
            assert all(fiber.cancelled() for fiber in members.fibers), "a failure is lost"
            raise AssertionError("a group whose members fail ends with their failures")
        raised = [fiber.exception() for fiber in members.fibers if not fiber.cancelled()]
        failures = [failure for failure in raised if failure is not None]
        assert failures
        assert sorted(map(repr, error.exceptions)) == sorted(map(repr, failures))
        return "failed"

    def law(ends: list[Any]) -> None:
        assert ends[0] == "failed" or ends[0] in GONE
        members.all_over()

    return Scenario([parent], law)


def group_that_grows() -> Scenario:
    """A member may spawn members: the block waits for those, too."""
    members = Members()

    def parent() -> None:
        with swapco.TaskGroup() as tg:

            def spawner() -> None:
                swapco.sleep(0)
                members.fibers.append(tg.spawn(members.member(1)))

            members.fibers.append(tg.spawn(spawner))
            members.fibers.append(tg.spawn(members.member(0)))
        members.all_over()
        assert sorted(members.begun) == [0, 1]

    def law(ends: list[Any]) -> None:
        members.all_over()

    return Scenario([parent], law)


def group_in_a_group() -> Scenario:
    """A failure in an inner group ends the outer one, too, and its members."""
    members = Members()

    def parent() -> str:
        try:
            with swapco.TaskGroup() as outer:
                members.fibers.append(outer.spawn(members.member(0)))
                with swapco.TaskGroup() as inner:
                    members.fibers.append(inner.spawn(members.member(1, ValueError)))
        except BaseExceptionGroup as error:
            assert error.split(ValueError)[1] is None
            return "failed"
        finally:
            members.all_over()
        return "passed"

    def law(ends: list[Any]) -> None:
        assert ends[0] == "failed" or ends[0] in GONE
        members.all_over()

    return Scenario([parent], law)


def join_of_two() -> Scenario:
    """Two join one: both get its result, and cancelling a joiner disturbs nobody else."""
    target: list[Fiber[str]] = []

    def work() -> str:
        swapco.sleep(0)
        schedule_point()
        return "result"

    def joiner() -> str:
        if not target:
            target.append(swapco.spawn(work))
        return target[0].join()

    def law(ends: list[Any]) -> None:
        assert all(end in (*GONE, "result") for end in ends)
        assert not target or target[0].join() == "result"

    return Scenario([joiner, joiner], law)


def gathered() -> Scenario:
    """``gather`` returns results in the order of its arguments; cancelled, it cancels them and waits for their ends."""
    members = Members()

    def caller() -> list[int]:
        members.fibers = [swapco.spawn(members.member(number)) for number in range(2)]
        try:
            return swapco.gather(*members.fibers)
        except swapco.CancelledError:
            members.all_over()
            raise

    def law(ends: list[Any]) -> None:
        assert ends == [[0, 1]] or ends[0] in GONE
        members.all_over()

    return Scenario([caller], law)


def gathered_failure() -> Scenario:
    """The first exception comes out at once, the others run on."""
    members = Members()

    def caller() -> str:
        members.fibers = [swapco.spawn(members.member(n, ValueError if n else None)) for n in range(2)]
        try:
            swapco.gather(*members.fibers)
        except ValueError:
            return "failed"
        return "passed"

    def law(ends: list[Any]) -> None:
        assert ends[0] == "failed" or ends[0] in GONE
        swapco.wait(members.fibers) if members.fibers else None
        assert ends[0] in GONE or not members.fibers[0].cancelled()

    return Scenario([caller], law)


def gathered_exceptions() -> Scenario:
    """``gather(return_exceptions=True)`` waits for all, also for those that it has cancelled."""
    members = Members()

    def caller() -> list[Any]:
        members.fibers = [swapco.spawn(members.member(n, ValueError if n else None)) for n in range(2)]
        try:
            return swapco.gather(*members.fibers, return_exceptions=True)
        finally:
            members.all_over()

    def law(ends: list[Any]) -> None:
        if ends[0] not in GONE:
            assert ends[0][0] == 0
            assert repr(ends[0][1]) == "ValueError(1)"
        members.all_over()

    return Scenario([caller], law)


def gathered_and_cancelled() -> Scenario:
    """One member fails while the caller is cancelled: both have ended when either error comes out."""
    members = Members()

    def caller() -> str:
        members.fibers = [swapco.spawn(members.stubborn(n)) for n in range(2)]
        try:
            swapco.gather(*members.fibers)
        except ValueError:
            members.all_over()
            return "failed"
        except swapco.CancelledError:
            members.all_over()
            raise
        return "passed"

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, "failed", "passed")
        members.all_over()

    return Scenario([caller], law)


def waited() -> Scenario:
    """``wait`` cancels nothing, and tells right who is done, whatever ends first."""
    members = Members()

    def caller() -> int:
        members.fibers = [swapco.spawn(members.member(number)) for number in range(2)]
        done, pending = swapco.wait(members.fibers, timeout=0, return_when=swapco.FIRST_COMPLETED)
        assert done | pending == set(members.fibers)
        assert not done & pending
        assert all(fiber.done() for fiber in done)
        assert not any(fiber.done() for fiber in pending)
        return len(done)

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, 0, 1, 2)
        assert [fiber.join() for fiber in members.fibers] == [0, 1][: len(members.fibers)]

    return Scenario([caller], law)


def waited_for_a_failure() -> Scenario:
    """``wait(FIRST_EXCEPTION)`` returns when one has failed, or all are done, and never before."""
    members = Members()

    def caller() -> int:
        members.fibers = [swapco.spawn(members.member(n, KeyError if n == 1 else None)) for n in range(2)]
        done, pending = swapco.wait(members.fibers, return_when=swapco.FIRST_EXCEPTION)
        assert done | pending == set(members.fibers)
        assert not pending or members.fibers[1] in done
        return len(done)

    def law(ends: list[Any]) -> None:
        if members.fibers:
            swapco.wait(members.fibers)
            assert not any(fiber.cancelled() for fiber in members.fibers), "wait() cancels nothing"
            assert isinstance(members.fibers[1].exception(), KeyError)
        assert ends[0] in (*GONE, 1, 2)

    return Scenario([caller], law)


def completed() -> Scenario:
    """``as_completed`` yields each exactly once: who had ended before in the order given, then as they end."""
    members = Members()
    seen: list[int] = []

    def caller() -> None:
        members.fibers = [swapco.spawn(members.member(number)) for number in range(2)]
        for fiber in swapco.as_completed(members.fibers):
            assert fiber.done()
            seen.append(fiber.result())

    def law(ends: list[Any]) -> None:
        swapco.wait(members.fibers) if members.fibers else None
        assert len(seen) == 2 or ends[0] in GONE
        ended = members.ended
        assert any(seen == (sorted(ended[:n]) + ended[n:])[: len(seen)] for n in range(3)), f"{seen} of {ended}"

    return Scenario([caller], law)


def completed_for_two() -> Scenario:
    """Two fibers take from one ``as_completed``: each end goes to one of them, and both hear that it is over."""
    members = Members()
    rest: list[Any] = []
    seen: list[int] = []

    def caller() -> None:
        if not rest:
            members.fibers = [swapco.spawn(members.quick(number)) for number in range(2)]
            rest.append(swapco.as_completed(members.fibers))
        for fiber in rest[0]:
            seen.append(fiber.result())

    def law(ends: list[Any]) -> None:
        swapco.wait(members.fibers) if members.fibers else None
        assert sorted(seen) == [0, 1] or set(ends) & set(GONE)
        assert len(set(seen)) == len(seen)

    return Scenario([caller, caller], law)


def completed_in_time() -> Scenario:
    """The time of ``as_completed`` is over in the instant in which one ends: it comes out, or TimeoutError."""
    seen: list[str] = []

    def member() -> str:
        swapco.sleep(1)
        return "result"

    def caller() -> str:
        try:
            for fiber in swapco.as_completed([swapco.spawn(member)], timeout=1):
                seen.append(fiber.result())
        except TimeoutError:
            assert not seen
            return "too late"
        assert seen == ["result"]
        return "in time"

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, "too late", "in time")

    return Scenario([caller], law)


def shielded() -> Scenario:
    """What is shielded runs on to its end, also if the caller is cancelled."""
    ran: list[str] = []

    def work() -> str:
        swapco.sleep(0)
        schedule_point(ran)
        ran.append("ran")
        return "result"

    def other() -> None:
        schedule_point(ran)

    def caller() -> str:
        work_fiber.append(swapco.spawn(work))
        return swapco.shield(work_fiber[0])

    work_fiber: list[Fiber[str]] = []

    def law(ends: list[Any]) -> None:
        assert ends[0] in (*GONE, "result")
        if work_fiber:
            assert work_fiber[0].join() == "result"
            assert ran == ["ran"]

    return Scenario([caller, other], law, victims=(0,))


SCENARIOS: dict[str, Make] = {
    make.__name__: make
    for make in (
        group,
        failing_group,
        group_that_grows,
        group_in_a_group,
        join_of_two,
        gathered,
        gathered_failure,
        gathered_exceptions,
        gathered_and_cancelled,
        waited,
        waited_for_a_failure,
        completed,
        completed_for_two,
        completed_in_time,
        shielded,
    )
}
UNDISTURBED: dict[str, Make] = {}
