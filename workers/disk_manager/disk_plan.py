"""What to do with a resource disk that was looked at. Pure.

The rule: a partition that can be mounted is mounted and never formatted; formatted is only what is
blank, or NTFS as the platform ships it, and both are proved by reading before anything is written.
Everything else belongs to somebody and is left alone, with a line that says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from waagent.protocol.base.records import Record
from waagent.workers.disk_manager.disk_state import Disk, partition_node

LINUX = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "nilfs2", "zonefs")
SYSTEM_POINTS = ("/", "/boot", "/usr", "/var", "/home", "/etc", "/opt", "/root", "/srv", "/tmp")
BLANK, FRESH_NTFS, OURS = "blank", "fresh NTFS", "half made by us"
MIB = 1024 * 1024
SMALLEST_BYTES = 8 * MIB
GPT_ABOVE_BYTES = 2**32 * 512  # an MBR cannot name sectors beyond


class Options(Record):
    """ResourceDisk.* of waagent.conf."""

    format: bool
    file_system: str
    mount_point: str
    mount_options: str
    swap_mib: int
    """0: no swap."""
    nvme: bool


class Leave(Record):
    """Nothing is done to it."""

    why: str
    is_expected: bool = False
    """The configuration wants it so, or there is nothing wrong with it."""


class Reuse(Record):
    """It is mounted already: there."""

    mount_point: str


class MountIt(Record):
    """It has a file system: mount it as it is."""

    device: str
    number: int
    """Of the partition; 0: the disk as a whole."""
    file_system: str


class Format(Record):
    """Make one partition with a new file system, once ``proof`` holds for the stretch."""

    proof: str
    start_bytes: int
    size_bytes: int


Plan = Union[Leave, Reuse, MountIt, Format]


def read_options(configuration: Mapping[str, Any]) -> Options:
    """The options, as the supervisor gave them."""
    has_swap = configuration.get("ResourceDisk.EnableSwap", False)
    return Options(
        bool(configuration.get("ResourceDisk.Format", True)),
        str(configuration.get("ResourceDisk.Filesystem") or "ext4"),
        str(configuration.get("ResourceDisk.MountPoint") or "/mnt/resource"),
        str(configuration.get("ResourceDisk.MountOptions") or ""),
        int(configuration.get("ResourceDisk.SwapSizeMB") or 0) if has_swap else 0,
        bool(configuration.get("ResourceDisk.NVMe", False)),
    )


def plan_disk(disk: Disk, options: Options, *, is_half_made: bool) -> Plan:
    """What to do. Nothing is ever done to a disk that somebody uses.

    ``is_half_made``: our own record says that we began to format this disk and did not come to the
    end.
    """
    in_use = _in_use(disk)
    if in_use is not None:
        return in_use
    if not options.format:
        return Leave("ResourceDisk.Format is n", is_expected=True)
    if options.file_system == "ntfs":
        return Leave("ResourceDisk.Filesystem is ntfs: neither formatted nor mounted", True)
    if disk.size_bytes < SMALLEST_BYTES:
        return Leave(f"it has only {disk.size_bytes} bytes")
    if is_half_made:
        return _writable(disk, Format(OURS, 0, disk.size_bytes))
    if disk.damage:
        return Leave(f"its partition table is damaged: {disk.damage}")
    if disk.content.kind and not disk.partitions:
        return _by_content(disk, 0, disk.content.kind, disk.content.usage, 0, disk.size_bytes)
    if disk.content.kind:
        return Leave(f"it has partitions, and {disk.content.kind} over all of it")
    if disk.content.table and not disk.partitions:
        return _writable(disk, Format(BLANK, MIB, disk.size_bytes - 2 * MIB))  # but for the table
    if not disk.partitions:
        return _writable(disk, Format(BLANK, 0, disk.size_bytes))
    first, *others = disk.partitions
    content = first.content
    if others and content.kind not in LINUX:
        return Leave(f"it has {len(disk.partitions)} partitions, made by somebody")
    if content.table and not content.kind:
        return Leave("a partition of it has partitions")
    return _by_content(
        disk, first.number, content.kind, content.usage, first.start_bytes, first.size_bytes
    )


def _in_use(disk: Disk) -> Plan | None:
    for mount in disk.mounts:
        if mount.point in SYSTEM_POINTS or mount.point.startswith(("/boot/", "/usr/", "/var/")):
            return Leave(f"the system itself is on it, at {mount.point}")
    if disk.holders:
        return Leave(f"it is part of {' '.join(disk.holders)}")
    if disk.swaps:
        return Leave("it is in use as swap")
    if disk.mounts:
        return Reuse(disk.mounts[0].point)
    return None


def _by_content(
    disk: Disk, number: int, kind: str, usage: str, start_bytes: int, size_bytes: int
) -> Plan:
    if kind in LINUX:
        device = partition_node(disk.device, number) if number else disk.device
        return MountIt(device, number, kind)
    if kind == "ntfs":
        return _writable(disk, Format(FRESH_NTFS, start_bytes, size_bytes))
    if not kind:
        return _writable(disk, Format(BLANK, start_bytes, size_bytes))
    what = {"raid": "a member of a set", "crypto": "encrypted", "filesystem": "a file system"}
    return Leave(f"it holds {kind} ({what.get(usage, 'of somebody')})")


def _writable(disk: Disk, plan: Format) -> Plan:
    return Leave("it is read-only") if disk.is_read_only else plan


def sfdisk_script(size_bytes: int, table_id: str) -> str:
    """One partition over the whole disk, of type Linux, that begins at 1 MiB; ``table_id`` is 8 hex
    digits.
    """
    if size_bytes > GPT_ABOVE_BYTES:
        identity = f"{table_id.upper()}-5741-4C41-8000-000000000000"
        return f"label: gpt\nlabel-id: {identity}\nstart=1MiB, type=linux\n"
    return f"label: dos\nlabel-id: 0x{table_id}\nstart=1MiB, type=83\n"


def has_table_id(disk: Disk, table_id: str) -> bool:
    """Whether the disk's table is the one that `sfdisk_script` made with ``table_id``."""
    return disk.table_id.lower().replace("0x", "").startswith(table_id.lower())
