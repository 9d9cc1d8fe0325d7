"""An operator ends an operation: its command and all that belongs to it, not its shim, which then
records the end like any other.
"""

from __future__ import annotations

import time
from pathlib import Path

from waagent.distro import files, processes
from waagent.distro.cgroups import groups
from waagent.distro.operations.records import STOPPED, read_record
from waagent.distro.operations.shim import plan as shim_plan

_PAUSE_S = 0.02


def stop(folder: Path, *, deadline_s: float) -> bool | None:
    """Kill what runs in the operation ``folder``; whether its end is recorded, None when it does
    not run. Raises OSError when the reason cannot be written; then nothing is killed.
    """
    started = read_record(folder / shim_plan.STARTED)
    has_ended = (folder / shim_plan.EXIT).exists()
    if not started or has_ended or started.get("boot_id") != processes.boot_id():
        return None
    files.write_json(folder / STOPPED, {"schema": 1, "time": time.time()})
    place = [(version, tuple(names), path) for version, names, path in started["groups"]]
    until = time.monotonic() + deadline_s
    while not (folder / shim_plan.EXIT).exists():
        if time.monotonic() > until:
            return False
        if place:
            groups.kill(place)
        else:
            leader, ticks, shim = (
                started[key] for key in ("command_pid", "command_start_ticks", "pid")
            )
            found = {*processes.session_of(leader, ticks), *processes.tree_of(shim)} - {shim}
            processes.signal_all(list(found), processes.SIGKILL)
        time.sleep(_PAUSE_S)
    return True
