"""The process that touches what handlers and packages hold: it unpacks packages and reads status
files, one after the other. Whatever they hold hurts this process and nobody else.

stdin: one JSON line a job, `{"kind": "unpack" | "status", …}`. stdout: `ready` in JSON, then one
JSON line an answer. It ends with its input. Standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from waagent.distro.fences import process_flags
from waagent.workers.extension_runner import house_jobs, status_reader, unpack

KINDS: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "unpack": unpack.answer,
    "status": status_reader.read_one,
    **house_jobs.KINDS,
}
MEMORY_LIMIT_BYTES = 1024 * 1024 * 1024


def main() -> None:
    """Answer until there is no more work."""
    os.umask(0o077)
    process_flags.set_parent_death_signal(signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    _say({"ready": True})
    for line in sys.stdin.buffer:
        job = json.loads(line)
        _say(KINDS[job["kind"]](job))


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
