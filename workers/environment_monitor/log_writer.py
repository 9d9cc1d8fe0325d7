"""What this worker writes for the supervisor, which touches no disk: its log lines, and the stacks
of hung workers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from waagent.distro.files import make_folder, write_atomic

STACKS_KEPT = 3
_STACK_LIMIT_BYTES = 64 * 1024
_WORKER = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")


def write_lines(lines: Iterable[str], descriptor: int = 2) -> None:
    """Append finished log lines to the log, unchanged, in one write."""
    data = "".join(line.rstrip("\n") + "\n" for line in lines).encode("utf-8", "replace")
    while data:
        data = data[os.write(descriptor, data) :]


def keep_stack(folder: Path, worker: str, text: str) -> Path | None:
    """Write `<worker>.hang`; the two before it become `.hang.1` and `.hang.2`. None when that is no
    worker's name.
    """
    if _WORKER.match(worker) is None:
        return None
    make_folder(folder, 0o700)
    newest = folder / f"{worker}.hang"
    for number in range(STACKS_KEPT - 1, 0, -1):
        older = newest if number == 1 else folder / f"{worker}.hang.{number - 1}"
        if older.exists():
            os.replace(older, folder / f"{worker}.hang.{number}")
    write_atomic(newest, text.encode("utf-8", "replace")[:_STACK_LIMIT_BYTES], mode=0o600)
    return newest
