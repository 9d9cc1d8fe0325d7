"""The time-out of SCSI disks: on a host that is moved or repaired a disk may be silent for minutes,
and the kernel's own limit of 30 s turns that into a read-only root.

Applied at start and to disks that appear later. NVMe disks have no such file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent.distro import kernel_files
from waagent.distro.paths import Paths

if TYPE_CHECKING:
    from waagent.protocol.base.log import Log

FOLDER = "/sys/block"


def apply(paths: Paths, seconds: object, log: Log) -> None:
    """Give each disk `sd*` that has another one the time-out ``seconds``; anything but a number
    leaves the system's.
    """
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        return
    folder = paths.under(FOLDER)
    try:
        names = sorted(name for name in os.listdir(folder) if name.startswith("sd"))
    except OSError:
        return
    for name in names:
        file = str(folder / name / "device/timeout")
        present = kernel_files.read(file)
        if present is None or present.strip() == str(seconds):
            continue
        try:
            kernel_files.write(file, str(seconds))
        except OSError as error:  # one disk that refuses it is no reason to leave out the others
            log.warning("SCSI time-out of %s not set: %s: none needed", name, error.strerror)
            continue
        log.info("set SCSI time-out disk=%s seconds=%d was=%s", name, seconds, present.strip())
