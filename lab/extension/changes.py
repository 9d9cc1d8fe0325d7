"""What a run changed on the system, seen in the upper folder of the box's overlay."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

ADDED, MODIFIED, DELETED = "A", "M", "D"


def changes(upper: Path, lower: Path, unseen: Iterable[str] = ()) -> list[tuple[str, str]]:
    """(A, M or D, path) of every file, link and folder that differs; ``unseen`` are folders whose
    content says nothing.
    """
    left_out = tuple(f"{folder}/" for folder in unseen)
    found = []
    for folder, names, files in os.walk(upper):
        for name in sorted([*names, *files]):
            place = Path(folder, name)
            path = f"/{place.relative_to(upper)}"
            if f"{path}/".startswith(left_out):
                continue
            facts = place.lstat()
            below = lower / path.lstrip("/")
            is_there = os.path.lexists(below)
            if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0:
                found.append((DELETED, path))
            elif not is_there:
                found.append((ADDED, path))
            elif not stat.S_ISDIR(facts.st_mode):
                found.append((MODIFIED, path))
    whole = {path for word, path in found if word == ADDED}
    return sorted((w, p) for w, p in found if w != ADDED or str(Path(p).parent) not in whole)
