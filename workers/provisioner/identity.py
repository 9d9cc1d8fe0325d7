"""Which VM this is, and whether it was provisioned: the VM's unique id and the marker.

Source: spec/provisioning.md §9.1, §9.2 with their Rules; spec/platform.md §7.5.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from waagent.distro.files import make_folder, write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError

# what `<lib>/provisioned` says
ABSENT, CURRENT, FOREIGN, EMPTY = "absent", "current", "foreign", "empty"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_MARKER_LIMIT_BYTES = 4096

_CACHED_FILES = (
    "HostingEnvironmentConfig.xml",
    "Incarnation",
    "partition",
    "Protocol",
    "SharedConfig.xml",
    "WireServerEndpoint",
    "published_hostname",
    "fast_track.json",
    "initial_goal_state",
    "waagent_rsm_update",
    "waagent_initial_update",
    "Extensions.*.xml",
    "ExtensionsConfig.*.xml",
    "GoalState.*.xml",
    "*/config/HandlerStatus",
    "*/mrseq",
    "*/status/*.status",
    "*/config/*.settings",
)
_LEASES = (
    "/var/lib/dhclient/*",
    "/var/lib/dhcpcd/*",
    "/var/lib/dhcp/*",
    "/var/db/dhclient.leases.*",
    "/var/lib/NetworkManager/dhclient-*.lease",
    "/run/systemd/netif/leases/*",
)


def metadata_order(raw: str, is_gen2: bool) -> str:
    """The id as the platform's metadata has it, lower case; empty when ``raw`` is no UUID. Gen1
    firmware swaps bytes.
    """
    text = raw.strip().lower()
    if _UUID.match(text) is None:
        return ""
    return text if is_gen2 else swapped(text)


def swapped(uuid: str) -> str:
    """The UUID with the bytes of its first three groups in the other order."""
    groups = uuid.split("-")
    for at in range(3):
        groups[at] = "".join(reversed(re.findall("..", groups[at])))
    return "-".join(groups)


def judge_marker(content: str | None, vm_id: str) -> str:
    """ABSENT, CURRENT, FOREIGN or EMPTY. An unknown current id counts as unchanged; order and case
    do not matter.
    """
    if content is None:
        return ABSENT
    text = content.strip().lower()
    if not text:
        return EMPTY
    if not vm_id or text in (vm_id, swapped(vm_id)):
        return CURRENT
    return FOREIGN


def read_marker(paths: Paths) -> str | None:
    """The marker's text; None when there is none."""
    try:
        with paths.provisioned.open("rb") as file:
            return file.read(_MARKER_LIMIT_BYTES).decode("ascii", "replace")
    except FileNotFoundError:
        return None


def write_marker(paths: Paths, vm_id: str) -> None:
    """Say for good that this VM was provisioned."""
    write_atomic(paths.provisioned, vm_id.encode("ascii"), mode=0o644)


def read_vm_id(paths: Paths, run: Callable[..., Finished]) -> str:
    """The VM's unique id in metadata order; empty when the machine does not say."""
    is_gen2 = paths.under("/sys/firmware/efi").exists() or paths.under("/dev/efi").exists()
    try:
        raw = paths.under("/sys/class/dmi/id/product_uuid").read_text("ascii", "replace")
    except OSError:
        raw = ""
    if not _UUID.match(raw.strip().lower()):
        try:
            raw = run(["dmidecode", "--string", "system-uuid"], deadline_s=5).stdout.decode(
                "ascii", "replace"
            )
        except ToolError:
            return ""
    return metadata_order(raw, is_gen2)


def clean_cached_state(paths: Paths) -> list[str]:
    """Remove what the agent remembers of another VM; users, keys and host name stay. The names that
    were removed.
    """
    found = [path for pattern in _CACHED_FILES for path in sorted(paths.library.glob(pattern))]
    found += [path for pattern in _LEASES for path in sorted(paths.root.glob(pattern.lstrip("/")))]
    removed = []
    for path in found:
        if path.is_dir() and not path.is_symlink():
            continue
        try:
            path.unlink()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            continue  # gone meanwhile, or not ours to remove
        removed.append(str(path))
    return removed


def make_library(paths: Paths) -> Path:
    """The library folder, 0700; what it holds stays."""
    make_folder(paths.library, 0o700)
    return paths.library


def is_executable_place(folder: Path) -> bool:
    """Whether programs may be executed below ``folder``."""
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC
