"""What holds until the next boot, below /run: said by one program, looked at by another."""

from __future__ import annotations

import time
from pathlib import Path

from waagent.distro.paths import Paths


def deprovisioned(paths: Paths) -> Path:
    """There: nothing is provisioned, this VM is about to become an image."""
    return paths.run / "deprovisioned"


def provisioning_failed(paths: Paths) -> Path:
    """There: provisioning was given up; the text says why."""
    return paths.run / "provisioning_failed"


def is_running_system(paths: Paths) -> bool:
    """Whether these are the paths of the system that runs, not of an image."""
    return paths.root == Path("/")


def boot_time() -> float:
    """When the machine booted, in seconds since the epoch, by the clock as it is now."""
    since = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.time() - time.clock_gettime(since)
