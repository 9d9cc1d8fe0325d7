"""inotify(7) on one folder, for a process that must not wake up only to look. Linux; ctypes, since
the standard library lacks it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from waagent.distro.fences.prctl import libc

_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_CHANGES = 0x008 | 0x040 | 0x080 | 0x100 | 0x200 | 0x400 | 0x800
"""CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF."""
_EVENTS_BYTES = 65536


class FolderWatch:
    """Readable when something in the folder was written, renamed or removed. Invariant: where
    inotify is not to be had nothing is ever readable.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = -1
        if hasattr(libc, "inotify_init1"):
            self._descriptor = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._descriptor >= 0:
            path = ctypes.c_char_p(os.fsencode(folder))
            libc.inotify_add_watch(self._descriptor, path, ctypes.c_uint32(_CHANGES))

    def fileno(self) -> int:
        """The descriptor to be polled; negative: poll(2) ignores it."""
        return self._descriptor

    def drain(self) -> bool:
        """Forget what happened; whether anything did."""
        try:
            return self._descriptor >= 0 and bool(os.read(self._descriptor, _EVENTS_BYTES))
        except BlockingIOError:
            return False
