"""Keeps one machine: makes its cgroups, starts its outermost namespace, and cleans up when it, or
whoever ordered it, ends.

Started by Machine with a pipe as stdin. End of file there means that the one who ordered is gone,
killed or not: then the namespaces' first process is killed, which takes everything inside along,
and the cgroups and the folder are removed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from waagent.distro.fences import process_flags
from waagent.lab.machine import cgroups


def main() -> int:
    """Keep the machine described by the JSON in the one argument."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    os.umask(0o022)  # what a machine boots with
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    cgroups.sweep(order["prefix"])
    made = cgroups.make(order["name"])
    order["cgroups"] = [str(folder) for folder in made]
    namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc"]
    argv = ["unshare", *namespaces, "--fork", "--kill-child", "--propagation", "private"]
    argv += [sys.executable, "-m", "waagent.lab.machine.platform"]
    try:
        stage = subprocess.Popen(
            [*argv, json.dumps(order)], stdin=subprocess.DEVNULL, preexec_fn=lambda: _child()
        )
        _wait_for_an_end(stage)
        stage.kill()
        stage.wait()
    finally:
        left = cgroups.remove(made)
        cgroups.sweep(order["prefix"])  # what was still dying at the start
        if order["remove_folder"]:
            shutil.rmtree(order["folder"], ignore_errors=True)
    for folder in left:
        print(f"not removed: {folder}", file=sys.stderr)
    return 1 if left else 0


def _child() -> None:
    for restored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(restored, signal.SIG_DFL)
    process_flags.set_parent_death_signal(signal.SIGKILL)


def _wait_for_an_end(stage: subprocess.Popen[bytes]) -> None:
    """Return when the stage has ended or stdin is closed."""
    watch = os.pidfd_open(stage.pid)
    try:
        while True:
            ready, _, _ = select.select([watch, 0], [], [])
            if watch in ready or not os.read(0, 4096):
                return
    finally:
        os.close(watch)


if __name__ == "__main__":
    Path("/").resolve()
    sys.exit(main())
