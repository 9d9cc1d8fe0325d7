"""How a program of its own reads a disc: it is a child, because a drive may hang and an image may
be hostile to its parser.

Exit status of such a program: DONE; NO_FILE, the disc has not what is looked for; NO_DISC;
UNREADABLE (why: standard error).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

DONE, NO_FILE, NO_DISC, UNREADABLE = 0, 3, 4, 5
_PAUSE_S = 5.0  # a drive that has just appeared answers EIO for a while
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 0x4000, 1 << 18
_CLONE_NEWNS = 0x20000
_NO_DISC = (errno.ENOENT, errno.ENOMEDIUM, errno.ENXIO, errno.ENODEV)

T = TypeVar("T")


class NoFile(Exception):
    """A readable disc without what is looked for."""


class Unreadable(Exception):
    """The disc could not be read this way; the text says why."""


def read_by(device: str, ways: Sequence[Callable[[], T]]) -> tuple[int, T | None]:
    """The first of ``ways`` that can read the disc: an exit status, and what it returned. A way
    raises NoFile, or Unreadable for the next one to be tried.
    """
    try:
        with open(device, "rb", buffering=0) as disc:
            if not disc.read(1):
                return NO_DISC, None
    except OSError as error:
        print(f"{device}: {error.strerror}", file=sys.stderr)
        return NO_DISC if error.errno in _NO_DISC else UNREADABLE, None
    reasons = []
    for way in ways:
        try:
            return DONE, way()
        except NoFile:
            return NO_FILE, None
        except Unreadable as error:
            reasons.append(str(error))
    print("; ".join(reasons), file=sys.stderr)
    return UNREADABLE, None


def with_image(device: str, use: Callable[[Any], T]) -> T:
    """``use`` of the disc as pycdlib sees it, in user space. Raises NoFile, Unreadable."""
    try:
        import pycdlib
        from pycdlib.pycdlibexception import PyCdlibException
    except ImportError as error:
        raise Unreadable(f"pycdlib is missing ({error.name})") from error
    image = pycdlib.PyCdlib()
    try:
        image.open(device)
        return use(image)
    except (NoFile, Unreadable):
        raise
    except PyCdlibException as error:
        raise Unreadable(f"pycdlib: {error}") from error
    # this is the outermost guard of a parser of foreign bytes in a process made for it
    except Exception as error:
        raise Unreadable(f"pycdlib: {type(error).__name__}") from error


def mount(device: str, point: str, kinds: Sequence[str], *, attempts: int = 1) -> None:
    """By the kernel, read-only and harmless, in a mount namespace of this process alone, so that
    nobody else sees it and nothing stays mounted. Raises Unreadable.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise Unreadable(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    if not stat.S_ISBLK(os.stat(device).st_mode):
        raise Unreadable("not a block device, cannot be mounted")
    try:
        os.makedirs(point, 0o700, exist_ok=True)
    except OSError as error:
        raise Unreadable(f"{point}: {error.strerror}") from error
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    known = list(kinds)
    reasons: dict[str, str] = {}
    for attempt in range(attempts):
        for kind in list(known):
            if libc.mount(device.encode(), point.encode(), kind.encode(), flags, None) == 0:
                return
            code = ctypes.get_errno()
            reasons[kind] = "not in this kernel" if code == errno.ENODEV else os.strerror(code)
            if code in (errno.ENODEV, errno.EPERM, errno.EACCES, errno.EINVAL):
                # the kernel lacks it, forbids it, or says that the disc has another form
                known.remove(kind)
        if not known:
            break
        if attempt < attempts - 1:
            time.sleep(_PAUSE_S)
    raise Unreadable("mount: " + ", ".join(f"{kind}: {why}" for kind, why in reasons.items()))
