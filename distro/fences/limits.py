"""What a process may use up: descriptors, processes, memory; and whom the kernel kills first."""

from __future__ import annotations

import ctypes
import resource

from waagent.distro.fences.prctl import libc

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def lock_memory() -> bool:
    """Pages that were touched stay in memory from now on; whether it holds."""
    return any(
        libc.mlockall(ctypes.c_int(_MCL_CURRENT | _MCL_FUTURE | extra)) == 0
        for extra in (_MCL_ONFAULT, 0)
    )


def set_oom_score(adjustment: int) -> bool:
    """−1000 (never killed) to 1000 (first); lowering needs SYS_RESOURCE. Whether it holds."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(adjustment))
    except OSError:
        return False
    return True


def set_limits(
    *,
    nofile: int | None = None,
    processes: int | None = None,
    core_bytes: int | None = 0,
    data_mib: int | None = None,
) -> None:
    """Set soft and hard rlimits; None leaves one alone. ``processes`` counts all of the uid and
    does not bind root.
    """
    wanted = (
        (resource.RLIMIT_NOFILE, nofile),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CORE, core_bytes),
        (resource.RLIMIT_DATA, None if data_mib is None else data_mib << 20),
    )
    for which, value in wanted:
        if value is not None:
            hard = resource.getrlimit(which)[1]
            ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (ceiling, ceiling))
