"""CPU masks of kernel threads."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swapco._core import affinity
from swapco._core.affinity import allowed_cpus, current_cpu, own_mask, pin, pinned, unpin

two_cpus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="there is no other CPU to move to: this process may use only one"
)


@pytest.fixture(autouse=True)
def masks() -> Iterator[frozenset[int]]:
    """The process's mask; every test must leave it as it was."""
    before = frozenset(os.sched_getaffinity(0))
    yield before
    after = frozenset(os.sched_getaffinity(0))
    os.sched_setaffinity(0, before)
    assert after == before
    assert not affinity._masks


@pytest.fixture
def sleeper() -> Iterator[threading.Thread]:
    """Another kernel thread, which does nothing."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield thread
    end.set()
    thread.join()


def me() -> int:
    return threading.get_native_id()


def mask_of(thread_id: int) -> frozenset[int]:
    return frozenset(os.sched_getaffinity(thread_id))


def join(thread: threading.Thread) -> None:
    """Wait until the kernel thread is gone: it outlives ``Thread.join`` by an instant."""
    thread.join()
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):
        os.sched_yield()


def in_child(check: Callable[[], bool]) -> bool:
    with warnings.catch_warnings():
        # other tests may have left threads; the child does nothing but look
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        failed = 1
        try:
            failed = not check()
        finally:
            os._exit(failed)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_allowed_cpus_is_the_mask_of_the_process(masks):
    assert allowed_cpus() == masks
    assert current_cpu() in masks


@two_cpus
def test_allowed_cpus_follows_a_narrower_mask(masks):
    os.sched_setaffinity(os.getpid(), {max(masks)})
    try:
        assert allowed_cpus() == {max(masks)}
        with pytest.raises(ValueError, match=rf"CPU {min(masks)} is not in this process's affinity mask"):
            pin(me(), min(masks))
    finally:
        os.sched_setaffinity(os.getpid(), masks)


def test_pin_moves_the_calling_thread_and_hides_it_from_allowed_cpus(masks):
    for cpu in sorted(masks):
        pin(me(), cpu)
        assert current_cpu() == cpu
        assert mask_of(me()) == {cpu}
        assert allowed_cpus() == masks
    unpin(me())
    assert mask_of(me()) == masks


def test_pin_another_thread(masks, sleeper):
    cpu = max(masks)
    pin(sleeper.native_id, cpu)
    assert mask_of(sleeper.native_id) == {cpu}
    assert mask_of(me()) == masks
    assert allowed_cpus() == masks
    unpin(sleeper.native_id)
    assert mask_of(sleeper.native_id) == masks


def test_a_thread_started_by_a_pinned_thread_is_unpinned_to_the_mask_of_the_process(masks):
    seen = []

    def child() -> None:
        seen.append(mask_of(me()))
        unpin(me())
        seen.append(mask_of(me()))

    pin(me(), min(masks))
    thread = threading.Thread(target=child)
    thread.start()
    thread.join()
    unpin(me())
    assert seen == [{min(masks)}, masks]


@two_cpus
def test_a_mask_that_the_program_sets_for_a_pinned_thread_stays(masks, sleeper):
    """What was noted when it was pinned counts for as long as it has that very mask."""
    low, high = min(masks), max(masks)
    pin(sleeper.native_id, low)
    assert own_mask(sleeper.native_id) == masks
    os.sched_setaffinity(sleeper.native_id, {high})
    assert own_mask(sleeper.native_id) == {high}
    unpin(sleeper.native_id, leave=True)
    assert mask_of(sleeper.native_id) == {high}
    # it is not pinned any more
    unpin(sleeper.native_id)
    assert mask_of(sleeper.native_id) == masks


@two_cpus
def test_the_mask_of_the_process_follows_the_program_while_the_main_thread_is_pinned(masks):
    low, high = min(masks), max(masks)
    pin(me(), low)
    os.sched_setaffinity(0, {high})
    assert allowed_cpus() == {high}
    assert in_child(lambda: mask_of(me()) == {high} == allowed_cpus())
    unpin(me())
    assert mask_of(me()) == {high}
    os.sched_setaffinity(0, masks)


@two_cpus
def test_the_mask_of_a_thread_that_sleeps_pinned(masks):
    """To others it is what it has when it is awake; to itself, awake, what it has."""
    low, high = min(masks), max(masks)
    main_thread = me()
    seen = []

    def ask() -> None:
        seen.append(allowed_cpus())

    def from_outside() -> frozenset[int]:
        other = threading.Thread(target=ask)
        other.start()
        other.join()
        return seen.pop()

    assert affinity.sleeps_pinned(main_thread, low) == masks
    assert allowed_cpus() == masks == from_outside()
    os.sched_setaffinity(0, {low})
    assert (allowed_cpus(), from_outside()) == ({low}, masks)
    os.sched_setaffinity(0, {high})
    assert allowed_cpus() == {high} == from_outside()
    os.sched_setaffinity(0, masks)
    affinity.forget(main_thread)


@two_cpus
def test_pin_and_unpin_within_a_set_that_is_given(masks, sleeper):
    low, high = min(masks), max(masks)
    with pytest.raises(ValueError, match=f"CPU {low} is not in .*choose one of"):
        pin(sleeper.native_id, low, frozenset({high}))
    pin(sleeper.native_id, low, masks)
    assert own_mask(sleeper.native_id) == masks
    unpin(sleeper.native_id, frozenset({high}))
    assert mask_of(sleeper.native_id) == {high}


def test_a_pin_that_fails_leaves_the_one_before(monkeypatch, masks):
    def refuse(thread_id, cpus):
        raise OSError(22, "Invalid argument")

    low, high = min(masks), max(masks)
    pin(me(), low)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(OSError, match="refuses CPUs"):
        pin(me(), high)
    monkeypatch.undo()
    assert own_mask(me()) == masks
    unpin(me())
    assert mask_of(me()) == masks


@two_cpus
def test_unpin_with_leave_moves_a_running_thread(masks):
    steps = []
    set_mask = os.sched_setaffinity

    def watch(thread_id: int, cpus: frozenset[int]) -> None:
        set_mask(thread_id, cpus)
        steps.append((frozenset(cpus), current_cpu()))

    pin(me(), min(masks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_setaffinity", watch)
        unpin(me(), leave=True)
    (away, there), (back, _) = steps
    assert away == masks - {min(masks)}
    assert there != min(masks)
    assert back == masks == mask_of(me())


def test_an_unpin_that_fails_can_be_repeated(masks):
    def refuse(thread_id: int, cpus: frozenset[int]) -> None:
        raise PermissionError(1, "Operation not permitted")

    pin(me(), min(masks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_setaffinity", refuse)
        with pytest.raises(OSError, match="not permitted"):
            unpin(me())
    unpin(me())
    assert mask_of(me()) == masks


def test_unpin_of_a_thread_that_is_not_pinned_is_no_error(masks):
    unpin(me())
    unpin(me(), leave=True)
    assert mask_of(me()) == masks


def test_wrong_cpus_are_refused(masks):
    for cpu in (-1, max(masks) + 1, 1 << 20):
        with pytest.raises(ValueError, match=f"CPU {cpu} is not in .*choose one of"):
            pin(me(), cpu)
        with pytest.raises(ValueError, match=f"CPU {cpu} is not in .*choose one of"), pinned(cpu):
            pass
    assert mask_of(me()) == masks


@pytest.mark.parametrize("thread_id", [0, -1, 1 << 31, pytest.param(threading.get_ident(), id="ident")])
def test_what_is_not_a_kernel_thread_id_is_refused(thread_id):
    with pytest.raises(ValueError, match="get_native_id"):
        pin(thread_id, min(allowed_cpus()))
    with pytest.raises(ValueError, match="get_native_id"):
        unpin(thread_id)


def test_a_thread_that_has_ended_is_an_error():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    join(thread)
    # larger than any id that the kernel gives out
    for thread_id in (thread.native_id, 1 << 30):
        with pytest.raises(ProcessLookupError, match=f"no kernel thread {thread_id}"):
            pin(thread_id, min(allowed_cpus()))
        with pytest.raises(ProcessLookupError, match=f"no kernel thread {thread_id}"):
            unpin(thread_id)


def test_unpinning_a_thread_that_ended_forgets_it(masks):
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    pin(thread.native_id, min(masks))
    end.set()
    join(thread)
    with pytest.raises(ProcessLookupError):
        unpin(thread.native_id)


def test_a_refusal_of_the_kernel_names_the_thread_and_the_cpus(monkeypatch, masks):
    def refuse(thread_id, cpus):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(OSError, match=rf"refuses CPUs \[{min(masks)}\] for thread {me()}"):
        pin(me(), min(masks))
    monkeypatch.undo()
    assert allowed_cpus() == masks


def test_pinned_confines_and_restores(masks):
    cpu = max(masks)
    with pinned(cpu) as here:
        assert here == cpu == current_cpu()
        assert mask_of(me()) == {cpu}
        # like taskset: this is the whole process now
        assert allowed_cpus() == {cpu}
        inherited = []
        thread = threading.Thread(target=lambda: inherited.append(mask_of(me())))
        thread.start()
        thread.join()
        assert inherited == [{cpu}]
    assert mask_of(me()) == masks


def test_pinned_restores_after_an_exception(masks):
    with pytest.raises(KeyError), pinned(min(masks)):
        raise KeyError
    assert mask_of(me()) == masks


def test_pinned_in_another_thread_leaves_the_process_alone(masks):
    seen = []

    def run() -> None:
        with pinned(min(masks)):
            seen.append(mask_of(me()))
            seen.append(allowed_cpus())
        seen.append(mask_of(me()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [{min(masks)}, masks, masks]


def test_a_forked_child_of_a_pinned_thread_is_not_pinned(masks):
    pin(me(), min(masks))
    assert in_child(lambda: mask_of(me()) == masks == allowed_cpus())
    assert mask_of(me()) == {min(masks)}
    unpin(me())


def test_a_forked_child_keeps_the_mask_of_pinned(masks):
    with pinned(min(masks)):
        assert in_child(lambda: mask_of(me()) == {min(masks)} == allowed_cpus())


def test_a_forked_child_of_a_thread_that_is_not_pinned_keeps_its_mask(masks, sleeper):
    pin(sleeper.native_id, min(masks))
    assert in_child(lambda: mask_of(me()) == masks == allowed_cpus())
    unpin(sleeper.native_id)


def test_elsewhere_the_import_says_what_is_missing(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    source = compile(Path(affinity.__file__).read_text(), affinity.__file__, "exec")
    with pytest.raises(ImportError, match="it needs Linux"):
        exec(source, {"__name__": "affinity_elsewhere"})
