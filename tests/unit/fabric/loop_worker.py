"""A process of its own for parts of a worker: the real loop, a real state file that names this
process, and nothing of the supervisor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waagent.distro.paths import Paths
from waagent.protocol.base.log import Log
from waagent.protocol.base.repeated_faults import Faults
from waagent.protocol.state_table import StateWriter
from waagent.workers.loop import Loop


class LoopWorker:
    """What `Transfer` and `Handover` need of a worker. Invariant: children are reaped by `turn`."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.loop = Loop()
        self.log = Log("test")
        self.faults = Faults(self.log, self.loop.now)
        for name in ("now", "after", "on_readable", "on_writable", "forget_writable", "forget"):
            setattr(self, name, getattr(self.loop, name))
        self.paths.bus.mkdir(parents=True)
        self.state = os.open(self.paths.state, os.O_RDWR | os.O_CREAT, 0o644)
        self._children: dict[int, Callable[[int], None]] = {}

    def name_processes(self, **pids: int) -> None:
        """Have the state file say which worker has which pid."""
        rows = [{"name": name, "pid": pid, "state": "READY"} for name, pid in pids.items()]
        StateWriter(self.state).write({"schema": 1, "workers": rows})

    def place_tool(self, pid: int) -> None:
        """There is no cgroup for tools here."""

    def on_exit(self, pid: int, call: Callable[[int], None]) -> None:
        self._children[pid] = call

    def until(self, is_true: Callable[[], Any], what: str, deadline_s: float = 60.0) -> Any:
        """Turn the loop until ``is_true()``; its value."""
        ends_at = time.monotonic() + deadline_s
        while time.monotonic() < ends_at:
            value = is_true()
            if value:
                return value
            self.loop.turn(0.05)
            for pid in list(self._children):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self._children.pop(pid)(os.waitstatus_to_exitcode(status))
        raise AssertionError(f"{what} did not happen in {deadline_s:g} s")
