"""Turns virtual NUMA off for kernels below 2.6.37, which crash or hang on what Hyper-V tells of it
(fixed in 2.6.37): `numa=off` on the kernel's command line, from the next boot on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from waagent.distro import kernel_files
from waagent.distro.boot import boot_loader
from waagent.distro.boot.boot_loader import Run
from waagent.distro.paths import Paths

if TYPE_CHECKING:
    from waagent.protocol.base.log import Log

ARGUMENT = "numa=off"
FIXED_IN = (2, 6, 37)
RELEASE = "/proc/sys/kernel/osrelease"


def is_needed(release: str) -> bool:
    """Whether the kernel ``release`` (`uname -r`) is one of those; False for a text that is no
    release.
    """
    match = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", release)
    if match is None:
        return False
    return tuple(int(part or 0) for part in match.groups()) < FIXED_IN


def turn_off(paths: Paths, run: Run, log: Log) -> str:
    """Give the argument to the boot loader where it is needed; what to say of it. Raises BootError,
    ToolError, OSError.
    """
    release = (kernel_files.read(str(paths.under(RELEASE))) or "").strip()
    if not is_needed(release):
        return ""
    changes = boot_loader.kernel_argument_changes(paths, (ARGUMENT,))
    if not changes:
        log.warning("kernel %s needs %s, but no boot loader is known here", release, ARGUMENT)
        return f"{ARGUMENT} is missing"
    changed = boot_loader.apply(paths, changes)
    if any(name.startswith(boot_loader.GRUB2_DEFAULTS) for name in changed):
        boot_loader.regenerate_grub2(paths, run)
    for name in changed:
        log.info(
            "added %s for kernel %s to %s: in force from the next boot on", ARGUMENT, release, name
        )
    return ARGUMENT
