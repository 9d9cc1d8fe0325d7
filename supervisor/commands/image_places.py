"""Where a system keeps what an image must not hand to the VMs that are made of it: data for
deprovisioning and for its verification.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from waagent.distro import sshd_settings
from waagent.distro.paths import Paths
from waagent.distro.sshd_settings import BEGIN, Include, text_of

CACHED_LEASES = (
    "/var/lib/dhclient/*",
    "/var/lib/dhcpcd*/*",
    "/var/lib/dhcp/*",
    "/var/lib/dhcp3/*",
    "/var/db/dhclient.leases.*",
    "/var/db/dhcpleased/*",
    "/var/lib/NetworkManager/dhclient-*.lease",
    "/var/lib/NetworkManager/internal-*.lease",
    "/var/lib/wicked/lease*",
    "/run/systemd/netif/leases/*",
    "/var/lib/systemd/network/*.lease",
)
LOGS = (
    "/var/log/waagent.log*",
    "/var/log/waagent/*",
    "/var/log/waagent-*",
)
_HISTORY_NAMES = (
    ".bash_history",
    ".zsh_history",
    ".ash_history",
    ".sh_history",
    ".history",
    ".python_history",
    ".lesshst",
    ".viminfo",
    ".mysql_history",
    ".psql_history",
    ".sqlite_history",
    ".wget-hsts",
)
HISTORIES = tuple(f"/root/{name}" for name in _HISTORY_NAMES)
HISTORIES_OF_USERS = _HISTORY_NAMES
OF_OPENBSD = (
    "/etc/random.seed",
    "/var/db/host.random",
    "/etc/isakmpd/local.pub",
    "/etc/isakmpd/private/local.key",
    "/etc/iked/private/local.key",
    "/etc/iked/local.pub",
)
TRUNCATED = ("/var/lib/hyperv/.kvp_pool_1",)
CLOUD_INIT = (
    "/var/lib/cloud/*",
    "/var/log/cloud-init*.log*",
    "/run/cloud-init/*",
    "/etc/netplan/50-cloud-init.yaml",
    "/etc/sudoers.d/90-cloud-init-users",
)
AGENT_DROP_INS = tuple(
    f"{folder}/{name}"
    for folder in ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
    for name in (
        "waagent.service.d/1[0-9]-*.conf",
        "walinuxagent.service.d/1[0-9]-*.conf",
        "waagent-network-setup.service",
        "walinuxagent-network-setup.service",
        "azure-walinuxagent-logcollector.slice",
    )
)
RULES = ("/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/75-persistent-net*")
NETWORK_TYPES = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "ceph",
    "afs",
    "glusterfs",
    "lustre",
    "fuse.",
    "beegfs",
)


def globbed(paths: Paths, patterns: Iterable[str]) -> list[str]:
    """What is there of ``patterns``, each place once however many links lead to it."""
    found: dict[str, str] = {}
    for pattern in patterns:
        for path in sorted(glob.glob(str(paths.under(pattern)))):
            parent, name = os.path.split(path)
            found.setdefault(os.path.join(os.path.realpath(parent), name), path)
    return list(found.values())


def sshd_files_of_ours(paths: Paths, ssh_folder: str) -> list[Path]:
    """Files of sshd's configuration in which lines of ours stand."""
    main = sshd_settings.main_file(paths, ssh_folder)
    if main is None:
        return []
    files = [main]
    for line in sshd_settings.read_settings(paths, main, ssh_folder):
        if isinstance(line, Include):
            names = sshd_settings.names_in(line.folder, "*waagent.conf")
            files += [line.folder / name for name in names]
    return [file for file in dict.fromkeys(files) if BEGIN in text_of(file)]


def homes(paths: Paths) -> list[tuple[str, Path]]:
    """(account, home folder) of everybody in passwd whose home is there, each folder once."""
    found: dict[Path, str] = {}
    for line in text_of(paths.under("/etc/passwd")).splitlines():
        fields = line.split(":")
        if len(fields) >= 7 and len(fields[5].strip("/")) > 0 and fields[5].startswith("/"):
            home = paths.under(fields[5])
            if home.is_dir():
                found.setdefault(home, fields[0])
    return [(name, home) for home, name in found.items()]


def network_mounts(paths: Paths) -> list[str]:
    """Mount points below the root prefix whose files are another machine's."""
    found = []
    for line in text_of(Path("/proc/self/mounts")).splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[2].startswith(NETWORK_TYPES):
            found.append(fields[1].replace("\\040", " "))
    return found
