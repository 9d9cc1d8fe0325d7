"""Custom data: kept binary-safe, and on request executed once, in a process tree of its own that
outlives the agent.

Source: spec/provisioning.md §7 with its Rule, traps 24, 33; design §7 (operations).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from waagent.distro.cgroups.trees import tree_name
from waagent.distro.files import make_folder, write_atomic
from waagent.distro.operations import launch, records
from waagent.distro.operations.operation_tree import operation_tree
from waagent.distro.paths import Paths
from waagent.protocol.base.log import Log
from waagent.workers.provisioner.identity import is_executable_place
from waagent.workers.provisioner.plan import Options

if TYPE_CHECKING:
    from waagent.protocol.base.secret import Secret

FILE_NAME = "CustomData"
FOLDER = "custom-data"  # its operation's records
NAME = "CustomData"
_TOLD = "told"
_NO_LIMIT_S = 10 * 366 * 86400.0
_SHOWN_BYTES = 1500
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ELSEWHERE = (
    "/run/waagent/custom-data",
    "/dev/shm/waagent-custom-data",
    "/var/tmp/waagent-custom-data",
)


def save_custom_data(
    paths: Paths, encoded: Secret | None, options: Options, log: Log
) -> Path | None:
    """Write `<lib>/CustomData` (0600, 0700 when it will be executed); None when there is none.

    What cannot be decoded is kept as it came, and not executed: that is no failure of provisioning.
    """
    from waagent.protocol.ovf import OvfError, decode_custom_data

    if encoded is None:
        return None
    file = paths.library / FILE_NAME
    data, mode = encoded.reveal().encode("utf-8"), 0o600
    if options.decode_custom_data or options.execute_custom_data:
        try:
            data = decode_custom_data(encoded)
            mode = 0o700 if options.execute_custom_data else 0o600
        except OvfError as error:
            log.warning("custom data kept as it came: %s", error)
    write_atomic(file, data, mode=mode)
    log.info("saved custom data file=%s bytes=%d", file, len(data))
    return file if mode == 0o700 else None


def plan_execution(paths: Paths, file: Path) -> None:
    """Record that ``file`` shall be executed: before the marker stands, so that it is neither lost
    nor done twice.
    """
    folder = paths.library / FOLDER
    if records.observe(folder).state not in ("absent", "planned"):
        shutil.rmtree(folder)  # of an earlier provisioning of this disk
    without = os.environ.get("WAAGENT_WITHOUT", "").split(",")
    tree = operation_tree(
        enabled="cgroups" not in without, name=f"{tree_name(str(paths.root))}-operations"
    )
    spec = launch.Spec(
        command=shlex.quote(str(_executable_copy(paths, file))),
        cwd="/",
        environment={"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"},
        deadline_s=_NO_LIMIT_S,
        handler=NAME,
        version="",
        operation="execute",
        place=launch.make_place(tree, NAME, FOLDER),
        systemd="systemd" not in without and paths.under("/run/systemd/system").is_dir(),
        subreaper="subreaper" not in without,
    )
    launch.plan_operation(folder, spec)


def is_settled(paths: Paths) -> bool:
    """Whether nothing is to be executed, or its end was told."""
    folder = paths.library / FOLDER
    return records.observe(folder).state == "absent" or (folder / _TOLD).exists()


def note_told(paths: Paths) -> None:
    """Remember that its end was told; without room on the disk it is told again at the next
    start.
    """
    with contextlib.suppress(OSError):
        write_atomic(paths.library / FOLDER / _TOLD, b"")


def start_execution(paths: Paths) -> None:
    """Start what was planned and has not run. Harmless when it ran or runs."""
    folder = paths.library / FOLDER
    if records.observe(folder).state == "planned":
        launch.start_shim(folder, python=sys.executable)


def is_over(paths: Paths) -> bool:
    """Whether it ran to its end, or was lost."""
    return records.observe(paths.library / FOLDER).state in ("finished", "lost", "absent")


def describe(paths: Paths) -> str:
    """How it ended, with the end of what it wrote, for the log."""
    seen = records.observe(paths.library / FOLDER)
    ending = records.describe_end(seen) or "success"
    parts = [f"custom data was executed: {ending}"]
    for name, kept in (("stdout", seen.stdout), ("stderr", seen.stderr)):
        text = (kept.head + kept.tail)[-_SHOWN_BYTES:].decode("utf-8", "replace").strip()
        if text:
            parts.append(f"{name}={text!r}")
    return " ".join(parts)


def _executable_copy(paths: Paths, file: Path) -> Path:
    """``file`` itself, or a copy where programs may be executed (trap: /var on noexec)."""
    if is_executable_place(file.parent):
        return file
    for name in _ELSEWHERE:
        folder = paths.under(name)
        make_folder(folder, 0o700)
        if is_executable_place(folder):
            write_atomic(folder / FILE_NAME, file.read_bytes(), mode=0o700)
            return folder / FILE_NAME
    return file
