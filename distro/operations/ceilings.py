"""The share of processors that an operator leaves to a handler; in every shim, so no typing."""

from __future__ import annotations

from waagent.distro.cgroups.groups import Group
from waagent.distro.kernel_files import try_write

_PERIOD_US = 100_000


def limit_cpu(groups: list[Group], percent: int) -> None:
    """At most ``percent`` of one processor; best effort (cgroup v2 `cpu.max`, v1
    `cpu.cfs_quota_us`).
    """
    quota_us = percent * _PERIOD_US // 100
    for _, _, folder in groups:  # each version has the file it knows
        try_write(f"{folder}/cpu.max", f"{quota_us} {_PERIOD_US}")
        try_write(f"{folder}/cpu.cfs_quota_us", str(quota_us))
