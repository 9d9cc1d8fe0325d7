"""`/run/waagent/operations`: the operations of VM extensions, for `waagent-ps extensions`.

extension_runner writes it, whole and atomically, newest operation first, redacted, at most
LIMIT_BYTES; anyone may read it. JSON: an `OperationsFile` as a map of its fields. A field that a
reader does not know is ignored, one that is missing or of another type is what it is by default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from waagent.protocol.base import fields
from waagent.protocol.base.records import Record, to_map

SCHEMA = 1
LIMIT_BYTES = 256 * 1024

# states of an operation
RUNNING, WAITING, DONE, FAILED, KILLED, LOST = (
    "running",
    "waiting",
    "done",
    "failed",
    "killed",
    "lost",
)
UNDER_WAY = frozenset((RUNNING, WAITING))
ENDED_BADLY = frozenset((FAILED, KILLED, LOST))


class Operation(Record):
    """One operation of a handler, or a handler that waits for its first."""

    name: str = ""
    """The id of its record below <lib>/operations; empty when it has none yet."""
    handler: str = ""
    version: str = ""
    extension: str = ""
    """Of a handler with several extensions, which one."""
    operation: str = ""
    """install, enable, …"""
    sequence: int | None = None
    """Number of its settings file."""
    state: str = ""
    """RUNNING … LOST."""
    waiting_for: str = ""
    """Of WAITING: what, in words."""
    elapsed_s: float | None = None
    """Until now, or until the file was written when it is RUNNING."""
    limit_s: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    """The signal that ended its command."""
    pid: int | None = None
    cgroup: str = ""
    """The folder of its cgroup."""
    profile: str = ""
    """What it is fenced by: default or strict."""
    denied: str = ""
    """What its profile kept it from."""
    reported: str = ""
    """The status that the platform was told."""
    message: str = ""
    """Why it failed or what it warned of: a line of ours, then what the command wrote."""


class OperationsFile(Record):
    """The whole file."""

    schema: int = SCHEMA
    goal_state: str = ""
    updated_at: float | None = None
    """CLOCK_MONOTONIC of the writer."""
    operations: tuple[Operation, ...] = ()


def packed(file: OperationsFile) -> bytes:
    """``file`` as it is written; operations that do not fit are left out, the oldest first."""
    kept = file.operations
    while True:
        data = json.dumps(to_map(file._replace(operations=kept))).encode()
        if len(data) <= LIMIT_BYTES or not kept:
            return data
        kept = kept[: len(kept) * 3 // 4]


def parse(data: bytes) -> OperationsFile:
    """The file that ``data`` is; an empty one when it is none."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return OperationsFile()
    return parse_map(said) if isinstance(said, dict) else OperationsFile()


def parse_map(said: Mapping[str, Any]) -> OperationsFile:
    """The file that ``said`` is; whatever it holds, no error."""
    rows = said.get("operations")
    maps = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    operations = tuple(Operation(**fields.taken(Operation, row)) for row in maps)
    return OperationsFile(**fields.taken(OperationsFile, said), operations=operations)
