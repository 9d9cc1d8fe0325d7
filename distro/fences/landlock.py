"""What of the file system a process can still reach (landlock(7))."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from waagent.distro.fences.prctl import libc
from waagent.distro.fences.process_flags import must, set_no_new_privileges
from waagent.distro.kernel import LANDLOCK_CREATE

# linux/landlock.h
_LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2


def landlock(
    read_execute: Iterable[Path | str],
    read_write: Iterable[Path | str],
    *,
    devices: Iterable[Path | str] = ("/dev/null",),
    level: int,
) -> str | None:
    """Leave of the file system only what is listed; e.g. ``landlock 7``. None where ``level``, the
    ABI to use (`kernel.landlock_level`), is 0.

    Folders: ``read_execute`` is read and executed, ``read_write`` read and written but not
    executed. ``devices`` are read and written. Paths that do not exist are skipped. Sets
    no_new_privs. From level 6 on signals and abstract sockets reach only whom the process itself
    started. Raises FenceError when a kernel that has landlock refuses.
    """
    if level == 0:
        return None
    set_no_new_privileges()
    handled = _rights_known(level)
    attributes = struct.pack(
        "=QQQ", handled, 0, _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if level >= 6 else 0
    )
    size = 24 if level >= 6 else 8
    ruleset = int(
        libc.syscall(
            ctypes.c_long(LANDLOCK_CREATE), attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)
        )
    )
    must(ruleset >= 0, "landlock gives no ruleset")
    try:
        writable = handled & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK)
        readable, usable = _EXECUTE | _READ_FILE | _READ_DIR, _READ_FILE | _WRITE_FILE
        for paths, rights in ((read_execute, readable), (read_write, writable), (devices, usable)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        done = (
            libc.syscall(
                ctypes.c_long(_LANDLOCK_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0)
            )
            == 0
        )
        must(done, "landlock does not take the ruleset")
    finally:
        os.close(ruleset)
    return f"landlock {level}"


def _rights_known(level: int) -> int:
    """All rights on files that this ABI level can restrict; what is not handled stays allowed."""
    handled = (1 << 13) - 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        handled |= right if level >= since else 0
    return handled


def _allow(ruleset: int, path: Path | str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, descriptor)
        call = (
            ctypes.c_long(_LANDLOCK_ADD_RULE),
            ctypes.c_int(ruleset),
            ctypes.c_int(1),
            rule,
            ctypes.c_uint32(0),
        )
        must(libc.syscall(*call) == 0, f"landlock does not take {path}")
    finally:
        os.close(descriptor)
