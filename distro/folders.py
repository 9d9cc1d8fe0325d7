"""A folder of ours: real, and of the mode and owner that it should have."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from waagent.protocol.base.errors import ExplainedError


class FileError(ExplainedError):
    """A file or folder cannot be what it should."""


def make_folder(path: Path, mode: int = 0o700, owner: tuple[int, int] | None = None) -> None:
    """Make ``path`` a real folder of this mode and owner; parents that are missing get 0755.

    Raises FileError when something else stands there, or a link.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # ours, or a stranger's: the next lines tell
        os.mkdir(path, 0o700)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            what = "a link or file stands where a folder belongs"
            raise FileError(what, str(path), "remove it") from error
        raise
    try:
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
