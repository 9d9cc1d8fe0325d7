"""Gives a disk one partition and a new file system, after the proof that nobody's data is on it.

Killed anywhere, the next run comes to the same end: `<lib>/resource_disk.json` is written before
the first byte of the disk, names the table that is made and goes when the file system is whole. A
disk that it speaks of is formatted anew and never mounted half made.

Exclusive access: a lock that udev and systemd honour is held from the first look to the end, and
the device is claimed (O_EXCL) from the second look until the new table is there; then mkfs claims
the partition itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waagent.distro import kernel_files, processes
from waagent.distro.files import make_folder, read_state_json, write_json
from waagent.distro.paths import Paths
from waagent.workers.disk_manager import blank, disk_plan, disk_state, ntfs
from waagent.workers.disk_manager.disk_error import DiskError
from waagent.workers.disk_manager.disk_plan import Format, Options
from waagent.workers.disk_manager.disk_state import Disk, Run

if TYPE_CHECKING:
    from waagent.protocol.base.log import Log

RECORD = "resource_disk.json"
MKFS_LIMIT_S = 600.0
LOCK_LIMIT_S = 10.0  # udev holds it while it looks at a disk that was just attached
NODE_LIMIT_S = 25.0
_LOOK_S = 0.05
_FORCE = {"xfs": "-f", "btrfs": "-f"}


def is_half_made(paths: Paths, disk: Disk) -> bool:
    """Whether our record says that we began to format this very disk, and did not come to the
    end.
    """
    record = read_state_json(paths.library / RECORD)
    if not isinstance(record, dict):
        return False
    is_this_boot = (
        disk.sequence != ""
        and record.get("boot_id") == processes.boot_id()
        and record.get("sequence") == disk.sequence
        and record.get("size_bytes") == disk.size_bytes
    )
    table_id = str(record.get("table_id") or "-")
    return is_this_boot or disk_plan.has_table_id(disk, table_id)


def forget_half_made(paths: Paths) -> None:
    """There is nothing half made any more."""
    (paths.library / RECORD).unlink(missing_ok=True)


def mkfs_argv(file_system: str, device: str) -> list[str]:
    """The command that makes a file system without a question."""
    return [f"mkfs.{file_system}", _FORCE.get(file_system, "-F"), device]


class Formatting:
    """One disk that is to be formatted. Invariant: while `_locked` is open nobody who asks first
    touches the disk.
    """

    def __init__(
        self, paths: Paths, options: Options, run: Run, log: Log, tick: Callable[[str], None]
    ) -> None:
        """``tick(what)`` is called about every second of what takes long."""
        self._paths, self._options, self._run, self._log, self._tick = (
            paths,
            options,
            run,
            log,
            tick,
        )

    def carry_out(self, disk: Disk, plan: Format, budget_s: float) -> str:
        """Prove, partition, make the file system; the partition. Raises DiskError (NotBlank: the
        disk is as it was), ToolError, OSError.
        """
        self._assert_tool()
        device = self._paths.under(disk.device)
        locked = _locked(device)
        try:
            claimed = _claimed(device)
            try:
                if disk_state.read_disk(self._paths, self._run, disk.name) != disk:
                    raise DiskError(
                        "the resource disk changed while it was looked at",
                        disk.device,
                        "none needed",
                    )
                self._prove(claimed, plan, budget_s)
                self._make_table(disk, device)
            finally:
                os.close(claimed)
            part = self._await_node(disk)
            self._tick(f"making {self._options.file_system} on {part}")
            self._run(
                mkfs_argv(self._options.file_system, str(self._paths.under(part))),
                deadline_s=MKFS_LIMIT_S,
            )
            forget_half_made(self._paths)
            return part
        finally:
            os.close(locked)

    def _assert_tool(self) -> None:
        """A tool that is missing is found before the disk has lost its table."""
        name = mkfs_argv(self._options.file_system, "")[0]
        folders = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").split(":")
        if not any(os.access(os.path.join(folder, name), os.X_OK) for folder in folders):
            raise DiskError(
                f"{name} is missing, the resource disk is not formatted",
                f"ResourceDisk.Filesystem={self._options.file_system}",
                "install the package that has it, or choose another file system",
            )

    def _prove(self, claimed: int, plan: Format, budget_s: float) -> None:
        if plan.proof == disk_plan.FRESH_NTFS:
            ntfs.assert_fresh(claimed, plan.start_bytes, plan.size_bytes)
            self._log.info("resource disk holds NTFS with nothing but the platform's own files")
        elif plan.proof == disk_plan.BLANK:
            ends_at = time.monotonic() + budget_s
            looked = blank.assert_blank(
                claimed,
                plan.start_bytes,
                plan.size_bytes,
                is_over=lambda: time.monotonic() > ends_at,
                tick=lambda: self._tick("reading the resource disk: is it blank?"),
            )
            self._log.info("resource disk is blank looked_at=%d of=%d", *looked)
        else:
            self._log.warning("resource disk was half made by a run that was cut off: made anew")

    def _make_table(self, disk: Disk, device: Path) -> None:
        table_id = os.urandom(4).hex()
        record: dict[str, Any] = {
            "table_id": table_id,
            "boot_id": processes.boot_id(),
            "sequence": disk.sequence,
            "size_bytes": disk.size_bytes,
        }
        make_folder(self._paths.library)
        write_json(self._paths.library / RECORD, record)
        self._run(
            ["sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always"]
            # we hold the disk: sfdisk's own test would find that out
            + ["--no-reread", "--no-tell-kernel", "--force", str(device)],
            stdin=disk_plan.sfdisk_script(disk.size_bytes, table_id).encode("ascii"),
            deadline_s=disk_state.TOOL_LIMIT_S,
        )
        # the kernel is told of each partition, since not every one reads tables by itself; first
        # that the old ones are gone: a new one that overlaps one of them would be refused
        for what in ("--delete", "--update"):
            argv = ["partx", what, str(device)]
            self._run(argv, deadline_s=disk_state.TOOL_LIMIT_S, check=False)

    def _await_node(self, disk: Disk) -> str:
        part = disk.node(1)
        await_node(self._paths, part, lambda: self._tick(f"waiting for {part}"))
        return part


def await_node(paths: Paths, device: str, tick: Callable[[], None]) -> None:
    """Wait until the kernel has that partition (or disk) and /dev has a node for it, not one of an
    earlier partition. Raises DiskError.
    """
    ends_at = time.monotonic() + NODE_LIMIT_S
    while not _is_there(paths, device):
        if time.monotonic() > ends_at:
            raise DiskError(
                f"the partition did not appear in {NODE_LIMIT_S:.0f} s",
                device,
                "see the kernel's log",
            )
        tick()
        time.sleep(_LOOK_S)


def _is_there(paths: Paths, device: str) -> bool:
    name = os.path.basename(device)
    number = kernel_files.read(str(paths.under(f"/sys/class/block/{name}/dev")))
    try:
        node = paths.under(device).stat().st_rdev
    except OSError:
        return False
    return number is not None and number.strip() == f"{os.major(node)}:{os.minor(node)}"


def _locked(device: Path) -> int:
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    ends_at = time.monotonic() + LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > ends_at:
                os.close(descriptor)
                raise DiskError("somebody holds a lock on it", str(device), "see lslocks") from None
            time.sleep(_LOOK_S)


def _claimed(device: Path) -> int:
    try:
        return os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise DiskError(
            "somebody uses the resource disk", str(device), "see lsblk and fuser"
        ) from error
