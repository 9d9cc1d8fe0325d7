"""Files that survive a crash, and files of others that cannot harm the reader."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any

from waagent.distro import atomic
from waagent.distro.folders import FileError as FileError
from waagent.distro.folders import make_folder as make_folder

_CORRUPT_KEPT = 5  # copies of one broken file: the first ones show how it began


class ForeignFileError(FileError):
    """A file of somebody else's is not what was agreed (kind, links, owner, size); it was not
    read.
    """


def write_atomic(
    path: Path, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Make ``data`` the whole content of ``path``, or leave what was there.

    A temporary in the same folder, fsync, rename, fsync of the folder. Temporaries of a writer that
    was killed are left: `remove_temporaries` takes them away. Raises OSError (ENOSPC, EROFS …) with
    nothing changed.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        atomic.write_at(folder, path.name, data, mode=mode, owner=owner)
    finally:
        os.close(folder)


def remove_temporaries(folder: Path) -> int:
    """Remove what killed writers of `write_atomic` left in ``folder``; how many. Only for a
    folder's single writer.
    """
    left = [name for name in os.listdir(folder) if name.startswith(atomic.TEMPORARY)]
    for name in left:
        os.unlink(folder / name)
    return len(left)


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and all below it, following no link; what cannot be removed is left
    (`shutil` is 0.3 MiB with its archives).
    """
    with contextlib.suppress(OSError):
        for _, folders, names, descriptor in os.fwalk(folder, topdown=False):
            for name in (*names, *folders):
                _remove_at(descriptor, name)
        folder.rmdir()


def _remove_at(folder: int, name: str) -> None:
    with contextlib.suppress(OSError):
        try:
            os.unlink(name, dir_fd=folder)
        except (IsADirectoryError, PermissionError):  # POSIX lets unlink of a folder say EPERM
            os.rmdir(name, dir_fd=folder)


def write_json(path: Path, value: Any, *, mode: int = 0o600) -> None:
    """`write_atomic` of ``value`` as one line of JSON."""
    import json  # here, as below: 0.4 MiB that the supervisor, who only makes folders, never needs

    write_atomic(path, (json.dumps(value, sort_keys=True) + "\n").encode("ascii"), mode=mode)


def read_state_json(path: Path) -> Any | None:
    """The value in one of our own state files; None when it is absent.

    What is truncated or not JSON counts as absent: it is kept aside as ``<name>.corrupt``
    (``.corrupt.1`` …) with a warning.
    """
    import json

    from waagent.protocol.base.log import PROCESS

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        aside = _keep_aside(path)
        PROCESS.warning(
            "state file is not readable, taken as absent: path=%s bytes=%d kept=%s",
            path,
            len(data),
            aside.name,
        )
        return None


def _keep_aside(path: Path) -> Path:
    for number in range(_CORRUPT_KEPT):
        aside = path.with_name(path.name + (f".corrupt.{number}" if number else ".corrupt"))
        if number == _CORRUPT_KEPT - 1 or not aside.exists():
            break
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        pass  # somebody else kept it aside in the same moment
    return aside


def open_foreign(folder: int, name: str, *, owner_uid: int | None = None, limit_bytes: int) -> int:
    """Open the regular file ``name`` in the directory descriptor ``folder`` for reading; the
    descriptor.

    ``name`` is one component. Never blocks, never follows a link. Raises ForeignFileError when the
    file is not regular, has several links, belongs to somebody else or is larger than
    ``limit_bytes``; FileNotFoundError when it is not there.
    """
    if "/" in name or name in ("", ".", ".."):
        raise ForeignFileError(
            "name of a foreign file is not one component",
            repr(name),
            "none needed, the file is ignored",
        )
    try:
        descriptor = os.open(
            name,
            os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY,
            dir_fd=folder,
        )
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.ENODEV):
            raise ForeignFileError(
                "foreign file is a link, socket or device", name, "replace it by a regular file"
            ) from error
        raise
    try:
        _judge(os.fstat(descriptor), name, owner_uid, limit_bytes)
    except ForeignFileError:
        os.close(descriptor)
        raise
    return descriptor


def _judge(facts: os.stat_result, name: str, owner_uid: int | None, limit_bytes: int) -> None:
    remedy = "replace it by a regular file of its owner"
    if not stat.S_ISREG(facts.st_mode):
        raise ForeignFileError("foreign file is not a regular file", name, remedy)
    if facts.st_nlink != 1:
        raise ForeignFileError(f"foreign file has {facts.st_nlink} links", name, remedy)
    if owner_uid is not None and facts.st_uid != owner_uid:
        raise ForeignFileError(
            f"foreign file belongs to uid {facts.st_uid}, expected {owner_uid}", name, remedy
        )
    if facts.st_size > limit_bytes:
        raise ForeignFileError(
            f"foreign file has {facts.st_size} bytes", name, f"keep it below {limit_bytes} bytes"
        )


def read_foreign(
    folder: Path, name: str, *, limit_bytes: int, owner_uid: int | None = None
) -> bytes:
    """The content of ``folder/name``, a file that somebody else wrote; errors of `open_foreign`.

    ``folder`` itself must not be a link. A file that grows while it is read is refused as too
    large.
    """
    try:
        folder_descriptor = os.open(
            folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        )
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ForeignFileError(
                "folder of a foreign file is a link or no folder", str(folder), "make it a folder"
            ) from error
        raise
    try:
        descriptor = open_foreign(
            folder_descriptor, name, owner_uid=owner_uid, limit_bytes=limit_bytes
        )
    finally:
        os.close(folder_descriptor)
    with open(descriptor, "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ForeignFileError(
            "foreign file grew while it was read", name, f"keep it below {limit_bytes} bytes"
        )
    return data
