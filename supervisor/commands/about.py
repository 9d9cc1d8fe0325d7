"""What this machine is called, and whether workers that are not root can read the code they run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from waagent.distro.os_release import read_os_release
from waagent.distro.paths import Paths
from waagent.protocol.base.records import Record


class Obstacle(Record):
    """A folder that keeps unprivileged workers from starting."""

    folder: Path
    problem: str
    remedy: str


def system_name(paths: Paths) -> str:
    """`debian 12`: id and version, as scripts cut them out of -version."""
    fields = read_os_release(paths)
    name = " ".join(filter(None, (fields.get("ID", sys.platform), fields.get("VERSION_ID", ""))))
    return "".join(letter for letter in name if letter.isascii() and letter.isprintable())[:40]


def unreadable_for_workers() -> Obstacle | None:
    """The first folder on the way to the interpreter or to our packages that other users may not
    enter.
    """
    package = Path(__file__).resolve().parents[2]
    needed = [Path(sys.executable).resolve(), Path(os.__file__).resolve(), package]
    needed += [
        Path(entry)
        for entry in sys.path
        if entry.endswith(("site-packages", "dist-packages")) and os.path.isdir(entry)
    ]
    return first_obstacle(needed)


def first_obstacle(needed: Iterable[Path]) -> Obstacle | None:
    """Of ``needed`` and all folders above, the first without the permission for others; judged by
    mode bits alone.
    """
    for path in needed:
        for place in (*reversed(path.parents), path):
            try:
                mode = place.stat().st_mode & 0o005
            except OSError:
                continue
            if not mode & 0o001 and (place.is_dir() or place == path and os.access(path, os.X_OK)):
                return Obstacle(
                    place,
                    f"other users may not enter it, so unprivileged workers cannot run {path}",
                    f"install the agent and its Python elsewhere, or chmod o+x {place}",
                )
    return None
