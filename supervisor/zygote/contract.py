"""What the supervisor and its zygote agree on."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

CHANNEL = 3
"""The descriptor of the zygote's end of their socketpair."""
_ROOMS = ("supervisor", "workers", "protocol", "distro")


def build_id(package: Path) -> str:
    """The name of the code on disk: changes when any file of the agent does. Raises OSError when it
    cannot be read.
    """
    digest = 0
    files = [package / "__init__.py"]
    for room in _ROOMS:
        for folder, folders, names in os.walk(package / room, followlinks=True):
            folders.sort()
            files += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    for file in files:
        facts = file.stat()
        digest = zlib.crc32(
            f"{file.relative_to(package)} {facts.st_size} {facts.st_mtime_ns}\n".encode(), digest
        )
    return f"{digest:08x}"
