"""Which block device is the resource disk: by what the platform says of it, never by its name.

In this order: udev's link; the VMBus channel (IDE port 1 of a generation 1 VM, LUN 1 of the shared
SCSI controller of generation 2, where all disks hang off one controller and LUN 0 is the system);
the model of an NVMe disk, where the configuration wants that.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from waagent.distro import kernel_files
from waagent.distro.paths import Paths

UDEV_LINKS = ("/dev/disk/azure/resource", "/dev/disk/cloud/azure_resource")
VMBUS = "/sys/bus/vmbus/devices"
IDE_PORT_1 = "00000000-0001-"
SCSI_CONTROLLER = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"
RESOURCE_LUN = "1"
NVME_MODELS = ("Microsoft NVMe Direct Disk", "Microsoft NVMe Direct Disk v2")
"""Temporary disks; `MSFT NVMe Accelerator` is what system and data disks are called."""
_DEPTH = 6  # <channel>/host2/target2:0:1/2:0:1:1/block/sdb


def find_disk(paths: Paths, *, nvme: bool) -> str | None:
    """The name of the resource disk below /dev; None when this VM has none.

    ``nvme``: whether a raw NVMe temporary disk counts (ResourceDisk.NVMe).
    """
    return _by_link(paths) or _on_vmbus(paths) or (_nvme_disk(paths) if nvme else None)


def has_vmbus(paths: Paths) -> bool:
    """Whether a disk of the platform may still appear."""
    return paths.under(VMBUS).is_dir()


def _by_link(paths: Paths) -> str | None:
    for link in UDEV_LINKS:
        place = paths.under(link)
        if place.is_symlink():
            name = os.path.basename(os.path.realpath(place))
            if paths.under(f"/dev/{name}").exists():
                return name
    return None


def _on_vmbus(paths: Paths) -> str | None:
    folder = paths.under(VMBUS)
    try:
        channels = sorted(os.listdir(folder))
    except OSError:
        return None
    found: dict[bool, str] = {}
    for channel in channels:
        identity = (
            (kernel_files.read(str(folder / channel / "device_id")) or "").strip().strip("{}")
        )
        is_scsi = identity.lower() == SCSI_CONTROLLER
        if is_scsi or identity.startswith(IDE_PORT_1):
            name = _first_disk(Path(os.path.realpath(folder / channel)), is_scsi)
            if name is not None:
                found.setdefault(is_scsi, name)
    return found.get(False) or found.get(True)


def _first_disk(channel: Path, is_scsi: bool) -> str | None:
    """The block device below one channel; on the SCSI controller only that of LUN 1."""
    top = len(channel.parts)
    for place, folders, _ in os.walk(channel):
        folders.sort()
        if len(Path(place).parts) - top >= _DEPTH:
            folders.clear()
        if is_scsi and os.path.basename(place).rpartition(":")[2] != RESOURCE_LUN:
            continue
        if "block" in folders and (names := sorted(os.listdir(os.path.join(place, "block")))):
            return names[0]
        for folder in folders:
            if folder.startswith("block:"):  # kernels before 2.6.27
                return folder.partition(":")[2]
    return None


def _nvme_disk(paths: Paths) -> str | None:
    folder = paths.under("/sys/block")
    try:
        names = sorted(name for name in os.listdir(folder) if re.fullmatch(r"nvme\d+n\d+", name))
    except OSError:
        return None
    for name in names:
        model = kernel_files.read(str(folder / name / "device/model")) or ""
        if model.strip() in NVME_MODELS:
            return name
    return None
