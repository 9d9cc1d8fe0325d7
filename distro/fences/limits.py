"""What a process may use up: descriptors, processes, memory."""

from __future__ import annotations

import resource


def set_limits(
    *,
    nofile: int | None = None,
    processes: int | None = None,
    core_bytes: int | None = 0,
    data_mib: int | None = None,
    lowers_hard_nofile: bool = True,
) -> None:
    """Set soft and hard rlimits; None leaves one alone. ``processes`` counts all of the uid and
    does not bind root. A hard limit that is left lets a child have again what init gave us, also
    where nobody has CAP_SYS_RESOURCE.
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
            keeps = which == resource.RLIMIT_NOFILE and not lowers_hard_nofile
            resource.setrlimit(which, (ceiling, hard if keeps else ceiling))
