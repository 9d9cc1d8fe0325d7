"""Mounts the resource disk, and puts the warning on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.workers.disk_manager.disk_error import DiskError
from waagent.workers.disk_manager.disk_plan import Options
from waagent.workers.disk_manager.disk_state import TOOL_LIMIT_S, Run, mounted_at

if TYPE_CHECKING:
    from waagent.protocol.base.log import Log

WARNING_FILE = "DATALOSS_WARNING_README.txt"
WARNING = """\
WARNING: TEMPORARY DISK

Everything on this disk can be lost at any time (resize, redeploy, host repair) and cannot be
recovered. Do not keep personal or application data here.

More information: http://msdn.microsoft.com/en-us/library/windowsazure/jj672979.aspx
"""


def mount_disk(paths: Paths, options: Options, run: Run, device: str, file_system: str) -> str:
    """Mount ``device`` at ResourceDisk.MountPoint; where. Raises DiskError when something else is
    there, ToolError when it cannot be mounted: it is not formatted for that.
    """
    point = paths.under(options.mount_point)
    try:
        point.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(
            f"the mount point cannot be made ({error.strerror})", str(point), "make it a folder"
        ) from error
    real = os.path.realpath(point)
    present = mounted_at(paths, real)
    if present:
        raise DiskError(
            f"{present} is mounted where the resource disk belongs",
            options.mount_point,
            "set ResourceDisk.MountPoint, or ResourceDisk.Format=n where somebody else mounts it",
        )
    extra = ["-o", options.mount_options] if options.mount_options else []
    node = str(paths.under(device))
    run(["mount", "-t", file_system, *extra, node, real], deadline_s=TOOL_LIMIT_S)
    return real


def write_warning(point: str, log: Log) -> None:
    """The file that tells people what this disk is; written anew when it differs."""
    from pathlib import Path

    file = Path(point) / WARNING_FILE
    try:
        if not file.is_symlink() and file.is_file() and file.read_text("utf-8") == WARNING:
            return
        write_atomic(file, WARNING.encode("ascii"), mode=0o644)
    except (OSError, ValueError) as error:
        log.warning("the warning file was not written: %s: %s: none needed", file, error)
