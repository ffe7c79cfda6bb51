"""Which CPUs this process may use, and binding kernel threads to one of them.

Theory.  A handoff between two kernel threads is cheap when both live on one CPU (``futex.h`` says why), so
the workers of a slot are pinned to one CPU while they hand the slot to each other, and unpinned as soon as
one of them is to run in parallel (placement.py).

- The CPUs to choose from are those of the *process's affinity mask*, never those of the machine: containers,
  ``taskset`` and batch systems restrict it.  The kernel itself would let a thread leave that mask; ``pin``
  refuses.
- The kernel keeps masks by thread, and calls the mask of the main thread the process's.  Pinning the main
  thread would therefore shrink the process's mask; while a thread is pinned, the mask that it is to have
  instead is noted, and ``own_mask`` and ``allowed_cpus`` answer with that.
- A note counts only while the thread has the very mask that pinning gave it.  Any other one was set by the
  program, or by who governs the process from outside, and must not be undone.
- A thread inherits the mask of the thread that starts it, pinned or not.  So ``unpin`` gives a thread the
  process's mask, not the one that it was born with.
- The thread that survives a fork keeps its mask but not its id: in the child it is unpinned.

Rejected: remembering the mask at import (a later ``taskset`` is never seen, and undone by the next unpin);
``os.cpu_count()`` (it counts CPUs that the process may not use).

Thread ids are those of the kernel: ``threading.get_native_id()``, ``Thread.native_id``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Callable, Iterator, Set
from typing import NamedTuple

__all__ = ["allowed_cpus", "current_cpu", "forget", "own_mask", "pin", "pinned", "sleeps_pinned", "unpin"]

if not hasattr(os, "sched_setaffinity"):
    raise ImportError("swapco binds kernel threads to CPUs with sched_setaffinity(2): it needs Linux")


class Pin(NamedTuple):
    """What is known of a pinned thread: the CPU, and the mask that it is to have instead."""

    cpu: int
    mask: frozenset[int]
    while_asleep: bool = False


# the kernel threads that are pinned
_masks: dict[int, Pin] = {}
# what the thread that is about to fork is to have in the child; None if it is not pinned
_mask_of_forker: frozenset[int] | None = None


def allowed_cpus() -> frozenset[int]:
    """The CPUs that this process may use: its affinity mask, never all CPUs of the machine.

    What pinning did to the main thread is left out of account.
    """
    return own_mask(os.getpid())


def own_mask(thread_id: int) -> frozenset[int]:
    """The CPUs that a kernel thread may use, were it not pinned; what the program has set meanwhile counts.

    Errors: those of ``unpin``.
    """
    note = _masks.get(thread_id)
    mask = _mask_of(thread_id)
    if note is None or mask != {note.cpu} or (note.while_asleep and thread_id == threading.get_native_id()):
        return mask
    return note.mask


def current_cpu() -> int:
    """The CPU that the calling kernel thread runs on.  Unless it is pinned, it may be another one by now."""
    return _sched_getcpu()()


def pin(thread_id: int, cpu: int, allowed: frozenset[int] | None = None) -> None:
    """Bind a kernel thread of this process to one CPU of ``allowed`` (default: ``allowed_cpus()``), until ``unpin``.

    Takes a few microseconds.

    A thread that pins itself runs on that CPU when this returns.  A pinned thread may be pinned again, to
    another CPU.

    Errors: ``ValueError`` if ``cpu`` is not one of ``allowed``, or ``thread_id`` is not positive;
    ``ProcessLookupError`` if there is no such thread; ``OSError`` if the kernel refuses the CPU (it was
    taken from the process's cpuset a moment ago).
    """
    allowed = _checked(cpu, allowed)
    before = _masks.get(thread_id)
    # first the note, then the deed: allowed_cpus() in another thread must not see the narrow mask
    _masks[thread_id] = Pin(cpu, allowed)
    try:
        _set_mask(thread_id, {cpu})
    except BaseException:
        if before is None:
            del _masks[thread_id]
        else:
            _masks[thread_id] = before
        raise


def sleeps_pinned(thread_id: int, cpu: int) -> frozenset[int]:
    """The calling thread says that it will bind itself to a CPU when it sleeps, and only then, until ``forget``.

    Returns the mask that it has when it is awake.
    """
    mask = _mask_of(thread_id)
    _masks[thread_id] = Pin(cpu, mask, while_asleep=True)
    return mask


def unpin(thread_id: int, allowed: frozenset[int] | None = None, *, leave: bool = False) -> None:
    """Let a kernel thread of this process run on all of ``allowed`` (default: ``allowed_cpus()``) again.

    It is no error if the thread was not pinned: it may have inherited the mask of a pinned one.  But if ``pin`` bound
    it, and it has another mask by now, the program has set that, and it stays.  A running thread stays where it is
    until the kernel balances the load; with ``leave`` it is moved off its CPU at once, if it may use another one.

    Errors: ``ValueError`` if ``thread_id`` is not positive; ``ProcessLookupError`` if there is no such
    thread, which is then forgotten.
    """
    if allowed is None:
        allowed = allowed_cpus()
    try:
        mask = _mask_of(thread_id)
        note = _masks.get(thread_id)
        if note is None or mask == {note.cpu}:
            if leave and (others := allowed - mask):
                _set_mask(thread_id, others)
            _set_mask(thread_id, allowed)
    except ProcessLookupError:
        _masks.pop(thread_id, None)
        raise
    _masks.pop(thread_id, None)


def forget(thread_id: int) -> None:
    """Who pinned a kernel thread says that it ends, and needs no ``unpin``: its id may be another thread's soon."""
    _masks.pop(thread_id, None)


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[int]:
    """Confine the calling kernel thread to one CPU for the length of a ``with``: for tests and benchmarks.

    It works like ``taskset``: threads and processes started inside inherit it, and in the main thread
    ``allowed_cpus()`` is that one CPU.  At the end the thread gets back the mask that it had.  The value of
    the ``with`` is ``cpu``.

    Errors: ``ValueError`` if ``cpu`` is not one of ``allowed_cpus()``.
    """
    _checked(cpu)
    thread_id = threading.get_native_id()
    before = _mask_of(thread_id)
    _set_mask(thread_id, {cpu})
    try:
        yield cpu
    finally:
        _set_mask(thread_id, before)


def _checked(cpu: int, allowed: frozenset[int] | None = None) -> frozenset[int]:
    if allowed is None:
        allowed = allowed_cpus()
    if cpu not in allowed:
        raise ValueError(f"CPU {cpu} is not in this process's affinity mask: choose one of {sorted(allowed)}")
    return allowed


def _mask_of(thread_id: int) -> frozenset[int]:
    _check_thread_id(thread_id)
    try:
        return frozenset(os.sched_getaffinity(thread_id))
    except ProcessLookupError:
        raise _no_such_thread(thread_id) from None


def _set_mask(thread_id: int, cpus: Set[int]) -> None:
    _check_thread_id(thread_id)
    try:
        os.sched_setaffinity(thread_id, cpus)
    except ProcessLookupError:
        raise _no_such_thread(thread_id) from None
    except OSError as error:
        raise OSError(
            error.errno, f"the kernel refuses CPUs {sorted(cpus)} for thread {thread_id}: {error.strerror}"
        ) from None


def _check_thread_id(thread_id: int) -> None:
    # 0 would mean the calling thread, and an ident of the threading module is far above the largest id
    if not 0 < thread_id < 1 << 31:
        raise ValueError(
            f"{thread_id} is not the id of a kernel thread: use threading.get_native_id() or Thread.native_id"
        )


def _no_such_thread(thread_id: int) -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, f"there is no kernel thread {thread_id}: it may have ended")


@functools.cache
def _sched_getcpu() -> Callable[[], int]:
    # ctypes is slow to import and only needed here
    import ctypes

    function: Callable[[], int] = ctypes.CDLL(None).sched_getcpu
    return function


def _before_fork() -> None:
    global _mask_of_forker
    me = threading.get_native_id()
    _mask_of_forker = own_mask(me) if me in _masks else None


def _after_fork_in_child() -> None:
    _masks.clear()
    if _mask_of_forker is not None:
        os.sched_setaffinity(0, _mask_of_forker)


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
