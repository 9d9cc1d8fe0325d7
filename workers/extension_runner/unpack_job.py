"""What the unpacker is told: apart from it, because the resident runner needs the words and not the
zip reader (1.3 MiB).
"""

from __future__ import annotations

from waagent.protocol.base.records import Record

MIB = 1024 * 1024


class Bounds(Record):
    """How large a package may be."""

    archive_bytes: int = 512 * MIB
    unpacked_bytes: int = 2048 * MIB
    entries: int = 20_000
    ratio: int = 200


class Job(Record):
    """What to unpack, from where, to where."""

    spool: str
    file: str
    size_bytes: int
    sha256: str
    staging: str
    """Made here, 0700, removed here; on the same file system as ``target``."""
    target: str
    bounds: Bounds = Bounds()
