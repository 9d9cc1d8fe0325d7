"""A program of its own, DEVICE FOLDER: copies a disc that has VMM's configuration file into FOLDER.

A child, because a drive may hang and an image may be hostile to its parser. Read in user space
first (pycdlib), else mounted in a mount namespace of its own, so that nothing stays mounted. Exit
status: 0 copied; 3 not such a disc; 4 no disc; 5 unreadable (why: standard error).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

CONFIGURATION = "linuxosconfiguration.xml"
EXIT_COPIED, EXIT_NO_FILE, EXIT_NO_DISC, EXIT_UNREADABLE = 0, 3, 4, 5
LIMIT_BYTES = 1024 * 1024 * 1024
"""Of a disc: VMM's holds an agent of some ten MB."""
_FILES_LIMIT = 10000
_NO_DISC = (errno.ENOENT, errno.ENOMEDIUM, errno.ENXIO, errno.ENODEV)
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 1, 2, 4, 0x4000, 1 << 18
_CLONE_NEWNS = 0x20000


class Unreadable(Exception):
    """The disc could not be read this way; the text says why."""


def main() -> int:
    """Copy it; the exit status."""
    device, target = sys.argv[1:]
    try:
        with open(device, "rb", buffering=0) as disc:
            if not disc.read(1):
                return EXIT_NO_DISC
    except OSError as error:
        print(f"{device}: {error.strerror}", file=sys.stderr)
        return EXIT_NO_DISC if error.errno in _NO_DISC else EXIT_UNREADABLE
    reasons = []
    for copy in (copy_in_user_space, copy_by_mounting):
        try:
            return EXIT_COPIED if copy(device, target) else EXIT_NO_FILE
        except Unreadable as error:
            reasons.append(str(error))
    print("; ".join(reasons), file=sys.stderr)
    return EXIT_UNREADABLE


def copy_in_user_space(device: str, target: str) -> bool:
    """By pycdlib; False when it is another disc."""
    try:
        import pycdlib
        from pycdlib.pycdlibexception import PyCdlibException
    except ImportError as error:
        raise Unreadable(f"pycdlib is missing ({error.name})") from error
    image = pycdlib.PyCdlib()
    try:
        image.open(device)
        return _copy_image(image, target)
    except Unreadable:
        raise
    except PyCdlibException as error:
        raise Unreadable(f"pycdlib: {error}") from error
    # this is the outermost guard of a parser of foreign bytes in a process made for it
    except Exception as error:
        raise Unreadable(f"pycdlib: {type(error).__name__}: {error}") from error


def _copy_image(image: Any, target: str) -> bool:
    views = (
        ("udf_path", image.has_udf),
        ("joliet_path", image.has_joliet),
        ("rr_path", image.has_rock_ridge),
        ("iso_path", lambda: True),
    )
    for keyword, has in views:
        if has() and _has_configuration(image, keyword):
            budget = _Budget()
            for folder, _, names in image.walk(**{keyword: "/"}):
                place = _below(target, folder, keyword)
                os.makedirs(place, 0o700, exist_ok=True)
                for name in names:
                    source = f"{folder.rstrip('/')}/{name}"
                    _copy_file(image, keyword, source, _below(target, source, keyword), budget)
            return True
    return False


def _has_configuration(image: Any, keyword: str) -> bool:
    _, _, names = next(iter(image.walk(**{keyword: "/"})))
    return any(_plain(name, keyword) == CONFIGURATION for name in names)


def _copy_file(image: Any, keyword: str, source: str, place: str, budget: _Budget) -> None:
    budget.take(image.get_record(**{keyword: source}).get_data_length())
    with open(place, "xb", opener=_private) as stream:
        image.get_file_from_iso_fp(stream, **{keyword: source})


class _Budget:
    """What may still be copied."""

    def __init__(self) -> None:
        self._files, self._bytes = _FILES_LIMIT, LIMIT_BYTES

    def take(self, size_bytes: int) -> None:
        self._files -= 1
        self._bytes -= size_bytes
        if self._files < 0 or self._bytes < 0:
            raise Unreadable(f"it has more than {_FILES_LIMIT} files or {LIMIT_BYTES} bytes")


def _below(target: str, path: str, keyword: str) -> str:
    parts = [_plain(part, keyword) for part in path.split("/") if part]
    if any(part in (".", "..") or "\0" in part for part in parts):
        raise Unreadable("a name on it leads outside")
    return os.path.join(target, *parts)


def _plain(name: str, keyword: str) -> str:
    """A name as people know it: bare ISO9660 has capitals, and a version behind them."""
    return name.partition(";")[0].rstrip(".").lower() if keyword == "iso_path" else name


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o700)


def copy_by_mounting(device: str, target: str) -> bool:
    """By the kernel, read-only, seen by nobody but this process; False when it is another disc."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise Unreadable(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    point = f"{target}.mounted"
    os.makedirs(point, 0o700, exist_ok=True)
    try:
        _mount(libc.mount, device, point)
        names = [name for name in os.listdir(point) if name.lower() == CONFIGURATION]
        if not names:
            return False
        budget = _Budget()
        for folder, _, files in os.walk(point):
            for name in files:
                budget.take(os.lstat(os.path.join(folder, name)).st_size)
        shutil.copytree(point, target, symlinks=True, dirs_exist_ok=True)
        return True
    except OSError as error:
        raise Unreadable(f"{device}: {error.strerror}") from error
    finally:
        libc.umount2(point.encode(), 2)
        os.rmdir(point)


def _mount(mount: Callable[..., int], device: str, point: str) -> None:
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    reasons = []
    for kind in ("udf", "iso9660"):
        if mount(device.encode(), point.encode(), kind.encode(), flags, None) == 0:
            return
        reasons.append(f"{kind}: {os.strerror(ctypes.get_errno())}")
    raise Unreadable("mount: " + ", ".join(reasons))
