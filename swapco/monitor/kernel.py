"""The names of the system calls in which a thread may sleep: for people who read a report.

The kernel says which call a thread sleeps in by its number, and numbers differ between machines.  Only calls that can
block for long are listed; another one is called by its number.  x86-64 has numbers of its own, aarch64 those of all
newer machines; both are part of the kernel's ABI and never change.
"""

from __future__ import annotations

import os

__all__ = ["NUMBERS", "describe_call"]

_X86_64, _GENERIC = range(2)
_MACHINES = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC}

#: The number of each call on x86-64 and on aarch64; None where there is no such call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # files and whatever else has a descriptor
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "close": (3, 57),
    "stat": (4, None),
    "ioctl": (16, 29),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "msync": (26, 227),
    "sendfile": (40, 71),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "rename": (82, None),
    "unlink": (87, None),
    "sync": (162, 81),
    "getdents64": (217, 61),
    "openat": (257, 56),
    "newfstatat": (262, 79),
    "unlinkat": (263, 35),
    "splice": (275, 76),
    "tee": (276, 77),
    "sync_file_range": (277, 84),
    "fallocate": (285, 47),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "syncfs": (306, 267),
    "renameat2": (316, 276),
    "getrandom": (318, 278),
    "copy_file_range": (326, 285),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "statx": (332, 291),
    "io_getevents": (208, 4),
    "io_uring_enter": (426, 426),
    # sockets
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "accept4": (288, 242),
    "recvmmsg": (299, 243),
    "sendmmsg": (307, 269),
    # several descriptors
    "poll": (7, None),
    "select": (23, None),
    "epoll_wait": (232, None),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    # time, processes, signals
    "pause": (34, None),
    "nanosleep": (35, 101),
    "clone": (56, 220),
    "vfork": (58, None),
    "wait4": (61, 260),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "restart_syscall": (219, 128),
    "clock_nanosleep": (230, 115),
    "waitid": (247, 95),
    "clone3": (435, 435),
    # locks, semaphores, messages
    "semop": (65, 193),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "futex": (202, 98),
    "semtimedop": (220, 192),
    "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183),
    "futex_waitv": (449, 449),
}

#: Calls whose first argument is the descriptor that they wait for.
_OF_A_DESCRIPTOR = {
    "read", "write", "close", "ioctl", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev", "preadv2",
    "pwritev2", "fcntl", "flock", "fsync", "fdatasync", "syncfs", "sync_file_range", "fallocate", "getdents64",
    "connect", "accept", "accept4", "sendto", "recvfrom", "sendmsg", "recvmsg", "recvmmsg", "sendmmsg",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "io_uring_enter",
}  # fmt: skip

#: What people know such a call by.
_MEANINGS = {
    "futex": "a lock of a thread library, or a semaphore",
    "restart_syscall": "a wait with a timeout that was interrupted, and goes on",
}


def _names_here() -> dict[int, str]:
    column = _MACHINES.get(os.uname().machine)
    if column is None:
        return {}
    return {number: name for name, numbers in NUMBERS.items() if (number := numbers[column]) is not None}


_NAMES = _names_here()


def describe_call(number: int | None, first_argument: int = 0) -> str:
    """In words: the system call, and for one on a descriptor, on which.

    None stands for a call that could not be found out, -1 for a thread that sleeps in the kernel without a call of
    its own: a page fault, for one.
    """
    if number is None:
        return "a system call that the kernel does not tell"
    if number < 0:
        return "no system call: a page fault, or stopped"
    name = _NAMES.get(number)
    if name is None:
        return f"system call {number}"
    if name in _OF_A_DESCRIPTOR:
        return f"{name} on descriptor {first_argument & 0xFFFF_FFFF}"
    return f"{name}: {_MEANINGS[name]}" if name in _MEANINGS else name
