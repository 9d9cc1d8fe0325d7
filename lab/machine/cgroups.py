"""The machine's own cgroup in every hierarchy of the host, made at its start and removed at its
end.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

_REMOVAL_S = 10.0
_NOT_OURS = ("rw", "ro", "xattr", "nsdelegate", "memory_recursiveprot")


class Hierarchy(NamedTuple):
    """One mounted cgroup hierarchy of the host."""

    kind: str
    """cgroup or cgroup2."""
    name: str
    """What its mount below /sys/fs/cgroup is called; empty: it is /sys/fs/cgroup itself."""
    options: str
    """Controllers (or name=…) for mounting it again; empty for v2."""
    mount_point: Path


def hierarchies() -> list[Hierarchy]:
    """All that are mounted below /sys/fs/cgroup."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        for line in stream:
            left, _, right = line.partition(" - ")
            point = Path(left.split()[4])
            kind, _, options = right.split(maxsplit=2)
            if kind in ("cgroup", "cgroup2") and (
                point == Path("/sys/fs/cgroup") or Path("/sys/fs/cgroup") in point.parents
            ):
                flavour = ",".join(
                    word for word in options.strip().split(",") if word not in _NOT_OURS
                )
                name = "" if point == Path("/sys/fs/cgroup") else point.name
                found.append(Hierarchy(kind, name, flavour if kind == "cgroup" else "", point))
    return found


def make(name: str) -> list[Path]:
    """Make the group ``name`` at the top of each hierarchy; the folders, fewer where the kernel
    refuses.
    """
    made = []
    for hierarchy in hierarchies():
        folder = hierarchy.mount_point / name
        try:
            folder.mkdir()
            for key in ("cpuset.cpus", "cpuset.mems"):  # v1: empty ones admit nobody
                if (
                    (folder / key).exists()
                    and not (folder / key).read_text().strip()
                    and hierarchy.kind == "cgroup"
                ):
                    (folder / key).write_text((folder.parent / key).read_text())
        except OSError:
            continue
        made.append(folder)
    return made


def sweep(prefix: str) -> None:
    """Remove groups `<prefix><pid>-…` whose maker is gone: left by a keeper that was killed. Only
    empty ones can be removed.
    """
    for hierarchy in hierarchies():
        for folder in hierarchy.mount_point.glob(f"{prefix}*"):
            maker = folder.name.removeprefix(prefix).partition("-")[0]
            if maker.isdigit() and not Path("/proc", maker).exists():
                _remove_once(folder)


def remove(folders: list[Path]) -> list[Path]:
    """Remove the groups and all below them once they are empty; those that stay."""
    end = time.monotonic() + _REMOVAL_S
    left = [folder for folder in folders if folder.exists()]
    while left and time.monotonic() < end:
        for folder in left:
            _remove_once(folder)
        left = [folder for folder in left if folder.exists()]
        if left:
            time.sleep(0.05)
    return left


def _remove_once(folder: Path) -> None:
    for inner, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(inner)
        except OSError:
            return  # not empty yet
