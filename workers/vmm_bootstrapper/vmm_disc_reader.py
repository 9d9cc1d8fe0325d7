"""A program of its own, DEVICE FOLDER: copies a disc that has VMM's configuration file into FOLDER.

A child, because a drive may hang and an image may be hostile to its parser. Read in user space
first (pycdlib), else mounted in a mount namespace of its own, so that nothing stays mounted. Exit
status: as of `workers.disc`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from waagent.workers import disc
from waagent.workers.disc import NoFile, Unreadable

CONFIGURATION = "linuxosconfiguration.xml"
LIMIT_BYTES = 1024 * 1024 * 1024
"""Of a disc: VMM's holds an agent of some ten MB."""
_FILES_LIMIT = 10000


def main() -> int:
    """Copy it; the exit status."""
    device, target = sys.argv[1:]
    ways = (
        lambda: disc.with_image(device, lambda image: _copy_image(image, target)),
        lambda: copy_by_mounting(device, target),
    )
    return disc.read_by(device, ways)[0]


def _copy_image(image: Any, target: str) -> None:
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
            return
    raise NoFile


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


def mount_point(target: Path) -> Path:
    """Where this program mounts it: an empty folder for everybody else, theirs to remove."""
    return target.with_name(target.name + ".mounted")


def copy_by_mounting(device: str, target: str) -> None:
    """By the kernel. Raises NoFile, Unreadable."""
    point = str(mount_point(Path(target)))
    disc.mount(device, point, ("udf", "iso9660"))
    try:
        if not any(name.lower() == CONFIGURATION for name in os.listdir(point)):
            raise NoFile
        budget = _Budget()
        for folder, _, files in os.walk(point):
            for name in files:
                budget.take(os.lstat(os.path.join(folder, name)).st_size)
        shutil.copytree(point, target, symlinks=True, dirs_exist_ok=True)
    except OSError as error:
        raise Unreadable(f"{device}: {error.strerror}") from error
