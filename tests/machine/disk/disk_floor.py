"""Runs in the machine: disk_manager's own way from a disk to a mounted one, without a supervisor.

Argument: JSON {"disk": name below /dev, "options": {option: value}, "budget_s"}. Prints one JSON
line: the summary and the log's lines. What a worker's floor gives (run, loop, log) is as plain as it
can be here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from waagent.distro import run as tools
from waagent.distro.paths import Paths
from waagent.distro.run import ToolError
from waagent.protocol.base.log import Log
from waagent.workers.disk_manager.disk_error import DiskError
from waagent.workers.disk_manager.disk_plan import read_options
from waagent.workers.disk_manager.main import ResourceDisk


class Floor:
    """What disk_manager needs of a worker."""

    def __init__(self, configuration: dict[str, Any], descriptor: int) -> None:
        self.configuration = configuration
        self.log = Log("disk_manager", descriptor=descriptor)
        self.supervisor = self
        self.loop = self
        self.doing_now = ""

    def doing(self, what: str) -> None:
        self.doing_now = what

    def busy(self, seconds: float, reason: str) -> None: ...

    def beat_when_due(self) -> None: ...

    def now(self) -> float:
        return time.monotonic()

    def every(self, seconds: float, call: Callable[[], None]) -> Floor:
        return self

    def cancel(self) -> None: ...

    def wait(self, is_true: Callable[[], bool], limit_s: float, reason: str) -> bool:
        ends_at = time.monotonic() + min(limit_s, 3.0)
        while not is_true():
            if time.monotonic() > ends_at:
                return False
            time.sleep(0.05)
        return True

    def run(self, argv: list[str], *, deadline_s: float, **options: Any) -> Any:
        return tools.run(argv, deadline_s=deadline_s, **options)


def main() -> None:
    """Make the disk usable."""
    order = json.loads(sys.argv[1])
    os.makedirs("/dev/disk/azure", exist_ok=True)
    link = "/dev/disk/azure/resource"
    if os.path.islink(link):
        os.unlink(link)
    if order["disk"]:
        os.symlink(f"../../{order['disk']}", link)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    worker: Any = Floor(order["options"], writing)
    try:
        options = read_options(order["options"])
        summary = ResourceDisk(worker, Paths(), options, order["budget_s"]).make_usable()
    except (DiskError, ToolError, OSError) as error:
        summary = f"failed: {error}"
    try:
        log = os.read(reading, 65536).decode()
    except BlockingIOError:
        log = ""
    print(json.dumps({"summary": summary, "log": log}))


if __name__ == "__main__":
    main()
