"""One command of a handler in the box, under the same shim as on a VM, and what it says."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from waagent.distro import processes
from waagent.distro.operations import launch, records
from waagent.distro.operations.launch import Sandbox

POLL_S = 0.03
LINE_LETTERS = 200

Tell = Callable[..., None]


class Peak:
    """The most that the handler's processes used at any look: resident memory and their number."""

    def __init__(self) -> None:
        self.memory_bytes = self.processes = 0

    def look(self, ours: set[int]) -> list[int]:
        """Look now; who lives apart from ``ours``."""
        found, total = [], 0
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) in ours:
                continue
            try:
                fields = Path("/proc", entry, "statm").read_text(encoding="ascii").split()
                state = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue  # it ended
            if state not in "ZX":
                found.append(int(entry))
                total += int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
        self.memory_bytes = max(self.memory_bytes, total)
        self.processes = max(self.processes, len(found))
        return found


class _Lines:
    """What came of one stream since the last look, line by line."""

    def __init__(self, is_error: bool, tell: Tell) -> None:
        self._is_error, self._tell = is_error, tell
        self._shown = 0

    def take(self, kept: records.Kept, *, ended: bool) -> None:
        """Tell the whole lines of the beginning; at the end all that is kept."""
        data = kept.head[self._shown :]
        if not ended:
            data = data[: data.rfind(b"\n") + 1]
        self._shown += len(data)
        text = data.decode("utf-8", "backslashreplace")
        if ended and kept.dropped_bytes:
            text += f"\n... {kept.dropped_bytes} bytes are not kept ...\n"
        if ended and kept.tail:
            text += kept.tail[-2000:].decode("utf-8", "backslashreplace")
        for line in text.splitlines():
            plain = "".join(letter if letter.isprintable() else "?" for letter in line)
            self._tell("output", line=plain[:LINE_LETTERS], is_error=self._is_error)


def run(
    folder: Path,
    command: str,
    cwd: str,
    environment: Mapping[str, str],
    limit_s: float,
    sandbox: Sandbox,
    peak: Peak,
    tell: Tell,
    **names: Any,
) -> records.Observation:
    """Run ``command``, telling its output as it comes; how it ended."""
    spec = launch.Spec(command, cwd, environment, limit_s, sandbox=sandbox, **names)
    launch.plan_operation(folder, spec)
    launch.start_shim(folder, python=sys.executable)
    streams = _Lines(False, tell), _Lines(True, tell)
    while True:
        seen = records.observe(folder)
        ended = seen.has_ended
        for stream, kept in zip(streams, (seen.stdout, seen.stderr)):
            stream.take(kept, ended=ended)
        if ended:
            return seen
        peak.look(ours(folder.parent))
        time.sleep(POLL_S)


def ours(operations: Path) -> set[int]:
    """Ourselves, the shims, and those in whose place drainers stand."""
    found = {os.getpid(), 1}
    for started in operations.glob("*/started.json"):
        record = records.read_record(started) or {}
        shim = int(record.get("pid", 0))
        found |= {shim, *(pid for pid in processes.children_of(shim) if _is_drainer(pid))}
    return found


def _is_drainer(pid: int) -> bool:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "cat"
    except OSError:
        return False
