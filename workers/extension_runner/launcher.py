"""Starts shims without waiting for anybody: directly where that takes milliseconds, through a child
where systemd is asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from waagent.distro.operations import launch
from waagent.workers.extension_runner.children import Child

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

LAUNCHER = "waagent.workers.extension_runner.launcher"
DEADLINE_S = 40.0  # two tries of distro.operations


def choose(worker: Worker, *, systemd: bool) -> Callable[[Path], None]:
    """What starts the shim of an operation's folder. systemd-run waits for D-Bus, up to 15 s when
    that does not answer.
    """

    def through_child(folder: Path) -> None:
        job = json.dumps({"folder": str(folder), "python": sys.executable}).encode()
        Child(
            worker,
            LAUNCHER,
            job,
            deadline_s=DEADLINE_S,
            done=lambda output, reason: _say(worker, folder, output, reason),
        )

    def directly(folder: Path) -> None:
        launch.start_shim(folder, python=sys.executable)

    return through_child if systemd else directly


def _say(worker: Worker, folder: Path, output: bytes, reason: str) -> None:
    if output or reason:
        worker.log.warning(
            "shim was not started id=%s: %s",
            folder.name,
            reason or output.decode("utf-8", "replace")[:300],
        )


def main() -> None:
    """One folder in; silence, or what went wrong, out."""
    job = json.load(sys.stdin)
    try:
        launch.start_shim(Path(job["folder"]), python=job["python"])
    except (launch.OperationError, OSError) as error:
        sys.stdout.write(str(error))
