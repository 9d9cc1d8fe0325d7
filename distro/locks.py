"""A lock file that says who holds it, and that two processes can never both hold."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Held(Exception):
    """The lock cannot be had; the text names pid and file, or what is wrong with the file."""


def take_lock(path: Path) -> int:
    """The descriptor (not inherited) that holds the lock until it is closed; the file names our pid
    and is never unlinked.

    flock(2) needs no right to write: only who may open the file can hold it against us, so it is
    0600, also where an earlier build made it, and belongs to us. Raises Held. Inode and link count
    are compared after locking: a removed file would lock nobody out.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _make_private(lock, path)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            what = f"already running: pid {pid} holds {path}"
            raise Held(f"{what}: see waagent-ps, or stop it first") from None
        held = os.fstat(lock)
        if held.st_nlink == 1 and os.stat(path).st_ino == held.st_ino:
            break
        os.close(lock)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _make_private(lock: int, path: Path) -> None:
    owner = os.fstat(lock).st_uid
    if owner != os.geteuid():
        os.close(lock)
        raise Held(f"the lock file belongs to uid {owner}: {path}: remove it")
    os.fchmod(lock, 0o600)
