"""What is left of an operation when its command has ended: processes and cgroups."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waagent.distro import processes
from waagent.distro.cgroups import groups
from waagent.distro.cgroups.groups import Group
from waagent.distro.operations.records import PLANNED, read_record
from waagent.distro.operations.shim import plan as shim_plan


def kill_leftovers(folder: Path, *, deadline_s: float = 1.0) -> list[int]:
    """Kill what still lives of an operation of this boot: a lost command, or what a finished one
    left; pids that stay.
    """
    started = read_record(folder / shim_plan.STARTED)
    if started is None or started.get("boot_id") != processes.boot_id():
        return []
    place = [
        (version, tuple(controllers), path) for version, controllers, path in started["groups"]
    ]
    until = time.monotonic() + deadline_s
    while True:
        left = _leftovers(started, place)
        if not left or time.monotonic() > until:
            break
        if place:
            groups.kill(place)
        else:
            processes.signal_all(left, processes.SIGKILL)
        time.sleep(0.005)
    if not left:
        remove_place(folder)
    return left


def may_live(folder: Path) -> bool:
    """Whether anything lives of the handler that had this operation in this boot, in the background
    too; True where nobody can tell.
    """
    started = read_record(folder / shim_plan.STARTED)
    if started is None or started.get("boot_id") != processes.boot_id():
        return False
    handlers = [
        (version, tuple(controllers), os.path.dirname(os.path.dirname(path)))
        for version, controllers, path in started["groups"]
    ]
    return not handlers or bool(groups.pids(handlers))


def remove_place(folder: Path) -> None:
    """Take away the cgroups of an operation that has ended, as far as nobody is in them; to be
    called before its folder goes.
    """
    found: set[Group] = set()
    for name in (PLANNED, shim_plan.STARTED):
        record = read_record(folder / name) or {}
        place = record.get("place", {})
        listed = [*place.get("command", ()), *place.get("shim", ()), *record.get("groups", ())]
        found |= {(version, tuple(controllers), path) for version, controllers, path in listed}
    groups.remove(sorted(found))
    for path in sorted({os.path.dirname(path) for _, _, path in found}):
        groups.remove_one(path)
        # the handler's, when this was its last operation
        groups.remove_one(os.path.dirname(path))


def _leftovers(started: Mapping[str, Any], place: list[Group]) -> list[int]:
    if place:
        found = groups.pids(place)
    else:
        found = processes.session_of(started["command_pid"], started["command_start_ticks"])
        # the drainer, subreaper of the rest
        if processes.is_alive(started["pid"], started["start_ticks"]):
            found += processes.tree_of(started["pid"])
    return [pid for pid in set(found) if processes.is_alive(pid)]
