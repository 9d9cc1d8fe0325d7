"""The one way to write a state file. Only `os`: the shim uses it too; `files.py` is the door for
everybody else.
"""

from __future__ import annotations

import os

TEMPORARY = ".tmp-"


def write_at(
    folder: int, name: str, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Make ``data`` the whole content of ``name`` in the directory descriptor ``folder``, or leave
    what was there.

    A temporary ``.tmp-<random>``, fsync, rename, fsync of the folder. Raises OSError (ENOSPC, EROFS
    …) with nothing changed.
    """
    temporary = TEMPORARY + os.urandom(8).hex()
    _write_new(folder, temporary, data, mode, owner)
    try:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)


def _write_new(
    folder: int, name: str, data: bytes, mode: int, owner: tuple[int, int] | None
) -> None:
    descriptor = os.open(
        name,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
        dir_fd=folder,
    )
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    except OSError:
        os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(descriptor)
