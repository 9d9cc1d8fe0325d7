"""A lock file that says who holds it, and that two processes can never both hold."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Held(Exception):
    """Somebody else holds the lock; the text names pid and file."""


def take_lock(path: Path) -> int:
    """The descriptor (not inherited) that holds the lock until it is closed; the file names our pid
    and is never unlinked.

    Raises Held. Inode and link count are compared after locking: a removed file would lock nobody
    out.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise Held(
                f"already running: pid {pid} holds {path}: see waagent-ps, or stop it first"
            ) from None
        held = os.fstat(lock)
        if held.st_nlink == 1 and os.stat(path).st_ino == held.st_ino:
            break
        os.close(lock)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
