"""What this kernel gives the supervisor: whether there is landlock, memory that stays, a low OOM
score. The fences around workers are in `fences`.
"""

from __future__ import annotations

import ctypes

from waagent.distro.fences.prctl import libc
from waagent.distro.kernel_files import try_write

LANDLOCK_CREATE = 444  # linux/landlock.h: one number on all architectures but alpha
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def landlock_level() -> int:
    """The kernel's landlock ABI; 0 without landlock."""
    version = (None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, int(libc.syscall(ctypes.c_long(LANDLOCK_CREATE), *version)))


def lock_memory() -> bool:
    """Pages that were touched stay in memory from now on; whether it holds."""
    return any(
        libc.mlockall(ctypes.c_int(_MCL_CURRENT | _MCL_FUTURE | extra)) == 0
        for extra in (_MCL_ONFAULT, 0)
    )


def set_oom_score(adjustment: int) -> bool:
    """−1000 (never killed) to 1000 (first); lowering needs SYS_RESOURCE. Whether it holds."""
    return try_write("/proc/self/oom_score_adj", str(adjustment))
