"""What this machine is, how long it slept, and what its kernel does not give us."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Container
from pathlib import Path

from waagent.distro import kernel, kernel_files, process_tree

SUPERVISOR_OOM_SCORE = -900
_PRESSURE_LIMIT = 20.0  # percent of the last 10 s in which nobody got on


def vm_id(root: Path) -> str:
    """A name for this VM that everyone may read; empty where the firmware gives none."""
    uuid = kernel_files.read(str(root / "sys/class/dmi/id/product_uuid"))
    return f"{zlib.crc32(uuid.strip().lower().encode()):08x}" if uuid else ""


def chance() -> float:
    """0 to 1, for the jitter of retries (`random` would load 0.2 MiB for it)."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


def asleep_s() -> float:
    """How long the VM has been suspended since it booted: BOOTTIME runs on meanwhile, MONOTONIC
    does not.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def protect_supervisor(without: Container[str], cgroups: str) -> list[str]:
    """Keep the calling process from being swapped or killed for memory; texts of what this machine
    does not give.

    ``without`` names what is switched off, ``cgroups`` says what there is of them (`none`).
    """
    has_landlock = "landlock" not in without and kernel.landlock_level() > 0
    has_psi = "psi" not in without and process_tree.memory_pressure_full_avg10() is not None
    has_subreaper = "subreaper" not in without
    is_scored, is_locked = kernel.set_oom_score(SUPERVISOR_OOM_SCORE), kernel.lock_memory()
    found = {
        "no subreaper: exits are looked for, their status is not known": has_subreaper,
        "no cgroups: rlimits only, a killed worker's tools may stay": cgroups != "none",
        "no landlock: a worker sees all files that its uid may see": has_landlock,
        "no PSI: memory pressure extends no limit": has_psi,
        "oom_score_adj cannot be lowered: the supervisor may be killed for memory": is_scored,
        "memory cannot be locked: a stalled disk may stop the supervisor": is_locked,
    }
    return [text for text, is_there in found.items() if not is_there]


def is_stalled(pids: set[int], *, psi: bool) -> bool:
    """Whether one of ``pids`` waits for a disk (state D), or everybody for memory."""
    pressure = process_tree.memory_pressure_full_avg10() if psi else None
    waiting = any(process_tree.state_letter(pid) == "D" for pid in pids)
    return waiting or (pressure or 0.0) > _PRESSURE_LIMIT
