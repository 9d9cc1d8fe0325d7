"""How often the kernel killed in a cgroup for lack of memory."""

from __future__ import annotations

import os

from waagent.distro.cgroups.groups import Group
from waagent.distro.kernel_files import read


def oom_kills(groups: list[Group]) -> int:
    """How many processes the kernel killed here for lack of memory."""
    for version, controllers, folder in groups:
        if "memory" in controllers:
            return _field(folder + "/memory.oom_control", "oom_kill")
        if version == 2 and os.path.exists(folder + "/memory.events"):
            return _field(folder + "/memory.events", "oom_kill")
    return 0


def _field(file: str, name: str) -> int:
    for line in (read(file) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
