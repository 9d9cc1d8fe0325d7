"""The installer of VMM's disc as an operation: under a shim, with a deadline, once for each
disc.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from waagent.distro.cgroups.trees import tree_name
from waagent.distro.files import read_state_json, write_json
from waagent.distro.operations import launch, records
from waagent.distro.operations.operation_tree import operation_tree
from waagent.distro.paths import Paths
from waagent.workers.vmm_bootstrapper.vmm_disc import FOLDER, INSTALL, DiscCopy

INSTALL_LIMIT_S = 1800.0
NAME = "VMMInstaller"
MARKER = "vmm_bootstrapped"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHOWN_BYTES = 600


def was_run(paths: Paths, identity: str) -> bool:
    """Whether the installer of that disc ran to its end, or to its deadline, before."""
    marker = read_state_json(paths.library / MARKER)
    return isinstance(marker, dict) and marker.get("disc") == identity


def note_run(paths: Paths, identity: str) -> None:
    """Remember it."""
    write_json(paths.library / MARKER, {"disc": identity})


def start(paths: Paths, copy: DiscCopy, limit_s: float) -> None:
    """Start the installer, unless it runs or ran. Raises OperationError, OSError."""
    folder = _folder(paths, copy.identity)
    seen = records.observe(folder)
    if seen.state == records.ABSENT:
        shutil.rmtree(folder, ignore_errors=True)
        _plan(paths, copy, folder, limit_s)
    if records.observe(folder).state == records.WAITING:
        launch.start_shim(folder, python=sys.executable)


def _plan(paths: Paths, copy: DiscCopy, folder: Path, limit_s: float) -> None:
    without = os.environ.get("WAAGENT_WITHOUT", "").split(",")
    tree = operation_tree(
        enabled="cgroups" not in without, name=f"{tree_name(str(paths.root))}-operations"
    )
    spec = launch.Spec(
        command=command_of(copy.folder),
        cwd="/",
        environment={"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"},
        deadline_s=limit_s,
        handler=NAME,
        version="",
        operation="install",
        place=launch.make_place(tree, NAME, folder.name),
        systemd="systemd" not in without and paths.under("/run/systemd/system").is_dir(),
        subreaper="subreaper" not in without,
    )
    launch.plan_operation(folder, spec)


def command_of(folder: Path) -> str:
    """The command as VMM's scripts have always been called: one argument, with its blanks."""
    return f"exec /bin/bash {shlex.quote(str(folder / INSTALL))} {shlex.quote(f'-p {folder}/ ')}"


def is_over(paths: Paths, identity: str) -> bool:
    """Whether it ended, or was lost."""
    return records.observe(_folder(paths, identity)).has_ended


def describe(paths: Paths, identity: str) -> tuple[bool, str]:
    """Whether it went well, and how it ended, with what it said last."""
    seen = records.observe(_folder(paths, identity))
    said = records.describe_end(seen) or "success"
    if seen.timed_out:
        said = f"killed, it had not ended after {seen.limit_s:.0f} s"
    text = (seen.stderr.head + seen.stderr.tail)[-_SHOWN_BYTES:].decode("utf-8", "replace").strip()
    return seen.succeeded, said + (
        f": {text.splitlines()[-1]}" if text and not seen.succeeded else ""
    )


def _folder(paths: Paths, identity: str) -> Path:
    return paths.library / FOLDER / f"install-{identity}"
