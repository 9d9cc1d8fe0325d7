"""The swap file on the resource disk: of the right size to the byte, 0600 from its creation,
without holes. Only this one file is ever switched on or off.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from waagent.distro import kernel_files
from waagent.distro.paths import Paths
from waagent.protocol.base.records import Record
from waagent.workers.disk_manager.disk_error import DiskError
from waagent.workers.disk_manager.disk_state import TOOL_LIMIT_S, Run

if TYPE_CHECKING:
    from waagent.protocol.base.log import Log

NAME = "swapfile"
MIB = 1024 * 1024
SMALLEST_BYTES = 40 * 1024  # below it mkswap refuses
RESERVE = 0.05
"""Of what the file system has for it, this part stays free: a full disk breaks who uses it."""
_CHUNK_BYTES = MIB  # zeros in memory
_SYNC_BYTES = 64 * MIB
_SWAPOFF_LIMIT_S = 600.0
_SIGNATURE, _SIGNATURE_AT = b"SWAPSPACE2", 4096 - 10
_GET_FLAGS, _SET_FLAGS, _NO_COPY_ON_WRITE = 0x80086601, 0x40086602, 0x00800000


class Present(Record):
    """The swap file as it is."""

    size_bytes: int = 0
    """0: there is none."""
    is_active: bool = False
    is_whole: bool = False
    """Without holes, and mkswap was here."""


class SwapPlan(Record):
    """What the swap file shall be."""

    size_bytes: int
    is_new: bool
    """Make it anew; otherwise it is kept."""
    is_cut: bool = False
    """Smaller than configured, since the disk is."""


def plan_swap(wanted_mib: int, present: Present, free_bytes: int) -> SwapPlan | None:
    """What to do; None when there is nothing to do without swap, or no room for any.

    ``wanted_mib`` is ResourceDisk.SwapSizeMB (MiB in spite of its name), ``free_bytes`` what the
    file system has left besides the present file.
    """
    if wanted_mib <= 0:
        return None
    wanted = wanted_mib * MIB
    room = int((free_bytes + present.size_bytes) * (1 - RESERVE)) // MIB * MIB
    size = min(wanted, room)
    if size < SMALLEST_BYTES:
        return None
    is_cut = size < wanted
    # a cut one is kept while it fits: what is free changes all the time
    is_right = present.size_bytes == wanted or (is_cut and room // 2 < present.size_bytes <= wanted)
    if present.is_whole and is_right:
        return SwapPlan(present.size_bytes, is_new=False, is_cut=present.size_bytes < wanted)
    return SwapPlan(size, is_new=True, is_cut=is_cut)


class Swap:
    """The swap file below one mount point. Invariant: it is never readable for anybody but root."""

    def __init__(
        self, paths: Paths, point: str, run: Run, log: Log, tick: Callable[[str], None]
    ) -> None:
        self._paths, self._run, self._log, self._tick = paths, run, log, tick
        self._file = Path(point) / NAME

    def have(self, wanted_mib: int) -> int:
        """See to it that there is swap of that size; how many bytes are in use now. Raises
        DiskError, ToolError, OSError.
        """
        present = self._look()
        facts = os.statvfs(self._file.parent)
        plan = plan_swap(wanted_mib, present, facts.f_bavail * facts.f_frsize)
        if plan is None:
            if wanted_mib > 0:
                raise DiskError(
                    f"no room for a swap of {wanted_mib} MiB",
                    str(self._file.parent),
                    "lower ResourceDisk.SwapSizeMB in waagent.conf",
                )
            return 0
        if plan.is_cut:
            self._log.warning(
                "swap of %d MiB does not fit: %s: made it %d MiB; lower ResourceDisk.SwapSizeMB",
                wanted_mib,
                self._file.parent,
                plan.size_bytes // MIB,
            )
        if plan.is_new:
            self._make(plan.size_bytes, present)
        if plan.is_new or not present.is_active:
            self._run(["swapon", str(self._file)], deadline_s=TOOL_LIMIT_S)
            self._log.info(
                "swap is on file=%s bytes=%d made=%s",
                self._file,
                plan.size_bytes,
                "now" if plan.is_new else "earlier",
            )
        return plan.size_bytes

    def _look(self) -> Present:
        try:
            descriptor = os.open(
                self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except FileNotFoundError:
            return Present()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _in_the_way(self._file) from error
            raise
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
                raise _in_the_way(self._file)
            os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, 0o600)
            is_signed = os.pread(descriptor, len(_SIGNATURE), _SIGNATURE_AT) == _SIGNATURE
            is_whole = is_signed and facts.st_blocks * 512 >= facts.st_size
            return Present(facts.st_size, is_active(self._paths, self._file), is_whole)
        finally:
            os.close(descriptor)

    def _make(self, size_bytes: int, present: Present) -> None:
        if present.is_active:
            self._tick("taking the old swap out of use")
            self._run(["swapoff", str(self._file)], deadline_s=_SWAPOFF_LIMIT_S)
        self._file.unlink(missing_ok=True)
        descriptor = os.open(
            self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            _no_copy_on_write(descriptor)
            self._fill(descriptor, size_bytes)
        except BaseException:
            self._file.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self._run(["mkswap", str(self._file)], deadline_s=TOOL_LIMIT_S)

    def _fill(self, descriptor: int, size_bytes: int) -> None:
        """Zeros to the last byte: swapon refuses holes, and takes fallocated extents for such on
        some file systems.
        """
        zeros = bytes(_CHUNK_BYTES)
        written = 0
        while written < size_bytes:
            written += os.write(descriptor, zeros[: min(_CHUNK_BYTES, size_bytes - written)])
            if written % _SYNC_BYTES == 0:
                os.fsync(descriptor)
                self._tick(f"making swap: {written // MIB} of {size_bytes // MIB} MiB")
        os.fsync(descriptor)


def is_active(paths: Paths, file: Path) -> bool:
    """Whether the kernel swaps to this file."""
    lines = (kernel_files.read(str(paths.under("/proc/swaps"))) or "").splitlines()[1:]
    real = os.path.realpath(file)
    names = [line.split()[0].replace("\\040", " ") for line in lines if line.strip()]
    return any(os.path.realpath(name) == real for name in names)


def _no_copy_on_write(descriptor: int) -> None:
    """btrfs swaps only to a file that it neither copies on write nor compresses; that can be said
    of an empty file only. Other file systems do not know the flag and need none.
    """
    try:
        flags = struct.unpack("I", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(4)))[0]
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("I", flags | _NO_COPY_ON_WRITE))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM):
            raise


def _in_the_way(file: Path) -> DiskError:
    return DiskError("no regular file of ours stands there", str(file), "remove it")
