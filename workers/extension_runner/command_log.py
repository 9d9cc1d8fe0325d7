"""`CommandExecution.log`: each command of a handler, its environment, its end. A log that cannot be
written never fails anything.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from waagent.protocol.base.log import Log

LIMIT_BYTES = 2 * 1024 * 1024
MODE = 0o640


def log_name(extension: str) -> str:
    """The log's file name; a multi-config extension has its own."""
    return f"CommandExecution_{extension}.log" if extension else "CommandExecution.log"


def append_log(folder: Path, extension: str, text: str, log: Log) -> None:
    """Append ``text``; above LIMIT_BYTES the old content becomes `.1`."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = folder / log_name(extension)
        _rotate(path)
        descriptor = os.open(
            path,
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            MODE,
        )
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            os.write(descriptor, text.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)
    except OSError as error:
        log.warning(
            "handler's log cannot be written: %s: %s: none needed, the operation goes on",
            error.strerror,
            folder,
        )


def _rotate(path: Path) -> None:
    try:
        size = path.lstat().st_size
    except FileNotFoundError:
        return
    if size > LIMIT_BYTES:
        os.replace(path, path.with_name(path.name + ".1"))
