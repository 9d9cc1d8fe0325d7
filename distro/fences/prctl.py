"""prctl(2), which the standard library lacks. ctypes and nothing else: a shim without a cgroup
loads this.
"""

from __future__ import annotations

import ctypes

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """The call with two numbers; what it returns, errno in `ctypes.get_errno()`."""
    return int(libc.prctl(option, *(ctypes.c_ulong(value) for value in (first, second, 0, 0))))


def set_name(name: str) -> None:
    """What `ps -o comm` and `top` call this process: 15 bytes."""
    libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def set_child_subreaper(wanted: bool = True) -> bool:
    """Adopt descendants whose parents die; whether it holds."""
    return prctl(_PR_SET_CHILD_SUBREAPER, int(wanted)) == 0
