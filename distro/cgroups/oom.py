"""How often the kernel killed in a cgroup for lack of memory."""

from __future__ import annotations

import os

from waagent.distro.cgroups.groups import Group, field


def oom_kills(groups: list[Group]) -> int:
    """How many processes the kernel killed here for lack of memory."""
    for version, controllers, folder in groups:
        if "memory" in controllers:
            return field(folder + "/memory.oom_control", "oom_kill")
        if version == 2 and os.path.exists(folder + "/memory.events"):
            return field(folder + "/memory.events", "oom_kill")
    return 0
