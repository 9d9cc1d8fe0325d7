"""What is on a disk and who uses it: read from the kernel, `sfdisk --json` and `blkid -p`, which
write nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waagent.distro import kernel_files
from waagent.distro.paths import Paths
from waagent.distro.run import Finished
from waagent.protocol.base.records import Record
from waagent.workers.disk_manager.disk_error import DiskError

TOOL_LIMIT_S = 60.0
RESERVED_TYPES = ("E3C9E316-0B5C-4DB8-817D-F92DF00215AE",)
"""GPT types that hold nobody's data: Microsoft's reserved partition."""
_FLUSH_BUFFERS = 0x1261
_BLKID_NOTHING, _BLKID_AMBIVALENT = 2, 8

Run = Callable[..., Finished]


class Content(Record):
    """What blkid recognises in a stretch of the disk."""

    kind: str = ""
    """ext4, ntfs, LVM2_member …; empty: nothing; `ambivalent`: more than one thing."""
    usage: str = ""
    """filesystem, raid, crypto, other; empty when there is nothing."""
    table: str = ""
    """Kind of the partition table that begins here: dos, gpt …"""


class Partition(Record):
    """One partition that is not reserved."""

    number: int
    start_bytes: int
    size_bytes: int
    type_id: str
    content: Content


class Mount(Record):
    """One place where the disk, or a partition of it, is mounted."""

    source: str
    point: str
    file_system: str


class Disk(Record):
    """A disk as it was found."""

    name: str
    size_bytes: int
    sequence: str
    """Of the kernel: another one after the disk was exchanged; empty on kernels before 5.15."""
    is_read_only: bool
    content: Content
    """Of the disk as a whole, partitions apart."""
    table_id: str = ""
    damage: str = ""
    """What is wrong with the partition table; empty when it is sound or there is none."""
    partitions: tuple[Partition, ...] = ()
    mounts: tuple[Mount, ...] = ()
    swaps: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    """Devices made of it: LVM, RAID, opened LUKS."""

    @property
    def device(self) -> str:
        return f"/dev/{self.name}"

    def node(self, number: int) -> str:
        """The device of a partition."""
        return partition_node(self.device, number)


def partition_node(device: str, number: int) -> str:
    """`/dev/sdb1`, `/dev/nvme0n1p1`: a `p` where the disk's name ends in a digit."""
    return f"{device}{'p' if device[-1].isdigit() else ''}{number}"


def read_disk(paths: Paths, run: Run, name: str) -> Disk:
    """Look at the disk. Raises DiskError when it cannot be looked at; ToolError."""
    folder = paths.under(f"/sys/block/{name}")
    size = kernel_files.read(str(folder / "size"))
    if size is None or not size.strip().isdigit():
        raise DiskError("the resource disk is gone", f"/dev/{name}", "none needed")
    device = str(paths.under(f"/dev/{name}"))
    _drop_caches(paths, name)
    disk = Disk(
        name,
        int(size) * 512,
        (kernel_files.read(str(folder / "diskseq")) or "").strip(),
        (kernel_files.read(str(folder / "ro")) or "").strip() == "1",
        _content(run, device, 0, None),
    )
    if not disk.size_bytes:
        raise DiskError("the resource disk has no size", disk.device, "none needed")
    if disk.content.table:
        disk = _with_table(disk, run, device)
    return _with_users(paths, disk)


def _drop_caches(paths: Paths, name: str) -> None:
    """The kernel keeps what was read of a disk apart from what was read and written of its
    partitions: while somebody has the disk open, a file system made in a partition is not seen
    through it (run: a fresh vfat read as zeros).
    """
    parts = sorted(path.name for path in paths.under(f"/sys/block/{name}").glob(f"{name}*"))
    for part in (*parts, name):
        try:
            descriptor = os.open(paths.under(f"/dev/{part}"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # no node for it: nobody can have written to it
        try:
            fcntl.ioctl(descriptor, _FLUSH_BUFFERS)
        finally:
            os.close(descriptor)


def _with_table(disk: Disk, run: Run, device: str) -> Disk:
    finished = run(["sfdisk", "--json", device], deadline_s=TOOL_LIMIT_S, check=False)
    said = finished.stderr.decode("utf-8", "replace").strip().splitlines()
    try:
        table = json.loads(finished.stdout)["partitiontable"]
    except (ValueError, KeyError, TypeError):
        return disk._replace(damage=(said or ["sfdisk cannot read it"])[0][:200])
    # sfdisk tells of a broken copy of a GPT, and of checksums that do not fit
    damage = said[0][:200] if said else ""
    partitions = []
    for item in table.get("partitions", ()):
        part, problem = _partition(disk, table, item)
        damage = damage or problem
        if part is not None and not problem:
            content = _content(run, device, part.start_bytes, part.size_bytes)
            partitions.append(part._replace(content=content))
    return disk._replace(
        table_id=str(table.get("id", "")), damage=damage, partitions=tuple(partitions)
    )


def _partition(disk: Disk, table: Any, item: Any) -> tuple[Partition | None, str]:
    sector = int(table.get("sectorsize", 512))
    node, kind = str(item["node"]), str(item.get("type", "")).upper()
    found = re.search(r"(\d+)$", node[len(str(table["device"])) :])
    number = int(found.group(1)) if found else 0
    start, size = int(item["start"]) * sector, int(item["size"]) * sector
    if start + size > disk.size_bytes:
        return None, f"partition {number} ends behind the end of the disk"
    if kind in ("EE", "5", "F", "85"):
        return None, f"partition {number} is of type {kind}: not a plain table"
    if kind in RESERVED_TYPES:
        return None, ""
    return Partition(number, start, size, kind, Content()), ""


def _content(run: Run, device: str, start_bytes: int, size_bytes: int | None) -> Content:
    place = [] if size_bytes is None else ["--offset", str(start_bytes), "--size", str(size_bytes)]
    finished = run(
        ["blkid", "--probe", "--output", "export", *place, device],
        deadline_s=TOOL_LIMIT_S,
        check=False,
    )
    if finished.status == _BLKID_NOTHING and not finished.stdout:
        return Content()
    if finished.status == _BLKID_AMBIVALENT:
        return Content("ambivalent", "other")
    if finished.status or finished.timed_out:
        said = finished.stderr.decode("utf-8", "replace").strip()[-200:]
        raise DiskError(
            f"blkid ended with {finished.status} ({said})", device, "see whether the disk is sound"
        )
    fields = dict(
        line.partition("=")[::2] for line in finished.stdout.decode("utf-8", "replace").splitlines()
    )
    kind = fields.get("TYPE", "")
    return Content(kind, fields.get("USAGE", "other" if kind else ""), fields.get("PTTYPE", ""))


def _with_users(paths: Paths, disk: Disk) -> Disk:
    folder = paths.under(f"/sys/block/{disk.name}")
    parts = [path for path in sorted(folder.glob(f"{disk.name}*")) if (path / "partition").exists()]
    names = {disk.name, *(path.name for path in parts)}
    devices = {
        number.strip()
        for path in (folder, *parts)
        if (number := kernel_files.read(str(path / "dev"))) is not None
    }
    holders = [path.name for place in (folder, *parts) for path in _listed(place / "holders")]
    swaps = [
        name
        for line in (kernel_files.read(str(paths.under("/proc/swaps"))) or "").splitlines()[1:]
        if (name := os.path.basename(os.path.realpath(line.split()[0]))) in names
    ]
    return disk._replace(
        mounts=tuple(mount for mount in read_mounts(paths, devices, names)),
        swaps=tuple(swaps),
        holders=tuple(holders),
    )


def read_users(paths: Paths, name: str) -> tuple[Mount, ...]:
    """Where the disk is mounted now."""
    return _with_users(paths, Disk(name, 0, "", False, Content())).mounts


def read_mounts(paths: Paths, devices: set[str], names: set[str]) -> list[Mount]:
    """Where a device, by its number `8:16` or its name, is mounted, as we see it."""
    found = []
    for line in (kernel_files.read(str(paths.under("/proc/self/mountinfo"))) or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if len(fields) < 5 or len(more) < 2:
            continue
        # btrfs is mounted under a number of its own: its source tells
        source = os.path.basename(os.path.realpath(more[1])) if more[1][:1] == "/" else ""
        if fields[2] in devices or source in names:
            found.append(Mount(more[1], _unescaped(fields[4]), more[0]))
    return found


def mounted_at(paths: Paths, point: str) -> str:
    """What is mounted exactly at ``point``, the uppermost; empty when nothing is."""
    found = ""
    for line in (kernel_files.read(str(paths.under("/proc/self/mountinfo"))) or "").splitlines():
        before, _, after = line.partition(" - ")
        if len(before.split()) > 4 and _unescaped(before.split()[4]) == point:
            found = (after.split() + ["", ""])[1]
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
