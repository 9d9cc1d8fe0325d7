"""The disc of System Center VMM: whether one is to be looked for, and a copy of it.

Copied, not left mounted: the drive is free, and a kernel without ISO9660 does not matter. Azure's
own VMs never have one; they are known by a tag of their firmware.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from waagent.distro import kernel_files, our_python
from waagent.distro.files import make_folder, remove_tree
from waagent.distro.paths import Paths
from waagent.protocol.base.records import Record
from waagent.workers import disc
from waagent.workers.vmm_bootstrapper import vmm_disc_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent.distro.run import Finished
    from waagent.protocol.base.log import Log

FOLDER = "vmm"
INSTALL = "install"
AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
READ_LIMIT_S = 300.0
_DRIVES = r"sr\d+|cdrom\d*|cd\d+|hd[c-z]"


class DiscCopy(Record):
    """What was copied, and from where."""

    device: str
    folder: Path
    identity: str
    """Of the configuration and the script on it: another disc has another one."""


def is_wanted(paths: Paths, configured: object) -> bool:
    """Whether to look for the disc: as configured; `auto` looks only on a Microsoft host that is
    not Azure.
    """
    if isinstance(configured, bool):
        return configured
    dmi = paths.under("/sys/class/dmi/id")
    vendor = (kernel_files.read(str(dmi / "sys_vendor")) or "").strip()
    tag = (kernel_files.read(str(dmi / "chassis_asset_tag")) or "").strip()
    return vendor == "Microsoft Corporation" and tag != AZURE_TAG


def fetch_disc(paths: Paths, run: Callable[..., Finished], log: Log) -> DiscCopy | None:
    """The first drive's disc that has VMM's configuration, copied; None when there is none."""
    run(["modprobe", "--quiet", "ata_piix"], deadline_s=30.0, check=False)
    target = paths.library / FOLDER / "disc"
    for name in drives(paths):
        make_folder(paths.library)
        make_folder(target.parent)
        remove_tree(target)
        make_folder(target)
        device = str(paths.under(f"/dev/{name}"))
        argv = our_python.argv(
            vmm_disc_reader.__name__, device, str(target), title="vmm disc reader"
        )
        finished = run(argv, deadline_s=READ_LIMIT_S, check=False)
        remove_tree(vmm_disc_reader.mount_point(target))
        if finished.status == disc.DONE:
            return DiscCopy(device, target, _identity(target))
        if finished.status not in (disc.NO_FILE, disc.NO_DISC):
            said = " ".join(finished.stderr.decode("utf-8", "replace").split())[-300:]
            log.warning("disc in %s cannot be read: %s: another drive is tried", device, said)
        remove_tree(target)
    return None


def drives(paths: Paths) -> list[str]:
    """The optical drives, each once, whatever links lead to it."""
    folder = paths.under("/dev")
    try:
        names = sorted(name for name in os.listdir(folder) if re.fullmatch(_DRIVES, name))
    except OSError:
        return []
    by_target = {os.path.realpath(folder / name): name for name in reversed(names)}
    return sorted(by_target.values())


def _identity(folder: Path) -> str:
    made = hashlib.sha256()
    for name in (vmm_disc_reader.CONFIGURATION, INSTALL):
        file = folder / name
        made.update(file.read_bytes() if file.is_file() else b"")
        made.update(b"\0")
    return made.hexdigest()[:32]
