"""What the kernel can be told about this process and the standard library cannot say: prctl(2), and
whether there is landlock. ctypes and nothing else: a shim without a cgroup loads this.
"""

from __future__ import annotations

import ctypes
import os

LANDLOCK_CREATE = 444  # landlock_create_ruleset(2), one number on all architectures but alpha
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 4, 15, 38
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37

libc = ctypes.CDLL(None, use_errno=True)


class FenceError(Exception):
    """A fence that must stand could not be put up: what, where, remedy."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(f"{what}: {where}: {remedy}")
        self.what, self.where, self.remedy = what, where, remedy


def must(done: bool, what: str) -> None:
    """Raise FenceError with the reason in errno unless ``done``."""
    if not done:
        number = ctypes.get_errno()
        raise FenceError(
            what,
            os.strerror(number),
            "look at the roster's row, and at what the service manager took away",
        )


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """The call with two numbers; what it returns, errno in `ctypes.get_errno()`."""
    return int(libc.prctl(option, *(ctypes.c_ulong(value) for value in (first, second, 0, 0))))


def set_name(name: str) -> None:
    """What `ps -o comm` and `top` call this process: 15 bytes."""
    libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def set_child_subreaper(wanted: bool = True) -> bool:
    """Adopt descendants whose parents die; whether it holds."""
    return prctl(_PR_SET_CHILD_SUBREAPER, int(wanted)) == 0


def is_child_subreaper() -> bool:
    """Whether this process adopts orphaned descendants."""
    value = ctypes.c_int(0)
    return (
        libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0) == 0 and value.value != 0
    )


def set_parent_death_signal(number: int) -> None:
    """Get this signal when the parent (the thread that forked us) dies. Every later change of uid
    or gid takes it away.
    """
    must(prctl(_PR_SET_PDEATHSIG, number) == 0, "the parent's death cannot be signalled")


def set_dumpable(dumpable: bool) -> None:
    """False: no core dump, and no ptrace by our own uid."""
    must(prctl(_PR_SET_DUMPABLE, int(dumpable)) == 0, "core dumps cannot be switched")


def set_no_new_privileges() -> None:
    """No execve grants anything from now on."""
    must(prctl(_PR_SET_NO_NEW_PRIVS, 1) == 0, "no_new_privs cannot be set")


def landlock_level() -> int:
    """The kernel's landlock ABI; 0 without landlock."""
    return max(
        0,
        int(
            libc.syscall(
                ctypes.c_long(LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1)
            )
        ),
    )
