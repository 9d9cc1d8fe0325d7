"""The log file: appended to, and opened again after it was rotated."""

from __future__ import annotations

import os
from pathlib import Path


def open_log(path: Path) -> int:
    """A log file to be appended to, and its folder, made when they are not there (0640); the
    descriptor is not inherited.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640
    )


def reopen_log(path: Path, descriptor: int) -> None:
    """`open_log` anew, in place of what ``descriptor``, standard output and standard error were.
    Raises OSError, nothing changed.
    """
    log = open_log(path)
    for target in (1, 2, descriptor):
        os.dup2(log, target, inheritable=target < 3)
    os.close(log)
