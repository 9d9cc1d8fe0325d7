"""Mounts and namespaces: mount(2), unshare(2), setns(2), and the table of mounts."""

from __future__ import annotations

import ctypes
import os

from waagent.distro.fences.prctl import libc
from waagent.distro.fences.process_flags import must
from waagent.protocol.base.records import Record

# linux/mount.h
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXECUTE = 1, 2, 4, 8
_REMOUNT, _NO_ATIME, _NO_DIR_ATIME, _RELATIVE_ATIME, _STRICT_ATIME = (
    32,
    1024,
    2048,
    1 << 21,
    1 << 24,
)
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
# linux/sched.h
NEW_MOUNTS, NEW_IPC, NEW_PIDS, NEW_NETWORK = 0x00020000, 0x08000000, 0x20000000, 0x40000000
_OPTIONS = {
    "ro": READ_ONLY,
    "nosuid": NO_SUID,
    "nodev": NO_DEVICES,
    "noexec": NO_EXECUTE,
    "noatime": _NO_ATIME,
    "nodiratime": _NO_DIR_ATIME,
    "relatime": _RELATIVE_ATIME,
}


class Mount(Record):
    """One line of the table."""

    point: str
    flags: int
    is_shared: bool
    """What is mounted below it appears in other namespaces too."""
    kind: str


def table(text: str) -> list[Mount]:
    """The lines of `/proc/self/mountinfo`, the uppermost of a place last."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 6 or not kind:
            continue
        flags = 0
        for word in fields[5].split(","):
            flags |= _OPTIONS.get(word, 0)
        is_shared = any(word.startswith("shared:") for word in fields[6:])
        found.append(Mount(_plain(fields[4]), flags, is_shared, kind[0]))
    return found


def mounts_of_self() -> list[Mount]:
    """All that this process sees."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return table(file.read())


def mount(
    source: str, target: str, kind: str | None = None, flags: int = 0, options: str = ""
) -> None:
    """mount(2). Raises FenceError."""
    call = (
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    must(libc.mount(*call) == 0, f"{kind or 'mount'} at {target} is refused")


def remount(point: str, flags: int) -> None:
    """Give one mount other flags, the file system below it as it is. Raises FenceError."""
    mount("none", point, flags=_REMOUNT | BIND | flags)


def unshare(flags: int) -> None:
    """Namespaces of this process's own. Raises FenceError."""
    must(libc.unshare(ctypes.c_int(flags)) == 0, "namespaces are refused")


def enter_mounts(path: str) -> None:
    """The mounts of the namespace at ``path`` instead of ours. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(ctypes.c_int(descriptor), ctypes.c_int(NEW_MOUNTS)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


def _plain(text: str) -> str:
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, letter)
    return text
