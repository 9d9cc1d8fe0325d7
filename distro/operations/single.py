"""A program of the administrator's that runs once, as an operation: under a shim, in a process tree
of its own that outlives the agent, with a deadline.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from waagent.distro.cgroups.trees import tree_name
from waagent.distro.operations import launch, records
from waagent.distro.operations.operation_tree import operation_tree
from waagent.distro.paths import Paths

_TAKEN_OVER_S = 10.0  # tens of milliseconds on a machine that has time
_LOOK_S = 0.01
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def plan_program(
    paths: Paths, folder: Path, name: str, operation: str, command: str, limit_s: float
) -> None:
    """Record in ``folder`` that ``command`` (for `/bin/sh -c`) shall run; nothing runs yet. Raises
    OSError, OperationError.
    """
    without = os.environ.get("WAAGENT_WITHOUT", "").split(",")
    tree = operation_tree(
        enabled="cgroups" not in without, name=f"{tree_name(str(paths.root))}-operations"
    )
    spec = launch.Spec(
        command=command,
        cwd="/",
        environment={"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"},
        deadline_s=limit_s,
        handler=name,
        version="",
        operation=operation,
        place=launch.make_place(tree, name, folder.name),
        systemd="systemd" not in without and paths.under("/run/systemd/system").is_dir(),
        subreaper="subreaper" not in without,
    )
    launch.plan_operation(folder, spec)


def start(folder: Path) -> None:
    """Start what was planned in ``folder`` and wait until its shim has taken it over: a caller that
    ends at once would take a shim along that is still among its own processes. Harmless when it
    ran or runs. Raises OperationError.
    """
    launch.start_shim(folder, python=sys.executable)
    end = time.monotonic() + _TAKEN_OVER_S
    while records.observe(folder).state == records.WAITING and time.monotonic() < end:
        time.sleep(_LOOK_S)
