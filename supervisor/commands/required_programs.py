"""The programs the agent runs: which are missing here, what does not work without them, which
package has them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping

from waagent.distro.distributions import INSTALL, Family
from waagent.protocol.base.records import Record
from waagent.protocol.configuration.options import Value

Configuration = Mapping[str, Value]


class Tool(Record):
    """One program; ``is_needed`` looks at the configuration."""

    name: str
    is_needed: Callable[[Configuration], bool]
    without: str
    packages: Mapping[str, str]
    """By the package names of distributions.INSTALL."""


def _always(configuration: Configuration) -> bool:
    return True


def _provisions(configuration: Configuration) -> bool:
    agent = configuration["Provisioning.Agent"]
    return agent == "waagent" or (agent == "auto" and configuration["Provisioning.Enabled"] is True)


def _formats(configuration: Configuration) -> bool:
    return configuration["ResourceDisk.Format"] is True


def _swaps(configuration: Configuration) -> bool:
    return _formats(configuration) and configuration["ResourceDisk.EnableSwap"] is True


def _filters(configuration: Configuration) -> bool:
    return configuration["OS.EnableFirewall"] is True


def _formats_with(name: str) -> Callable[[Configuration], bool]:
    def is_needed(configuration: Configuration) -> bool:
        return _formats(configuration) and configuration["ResourceDisk.Filesystem"] == name

    return is_needed


_SHADOW = {
    "debian": "passwd",
    "redhat": "shadow-utils",
    "suse": "shadow",
    "alpine": "shadow",
    "arch": "shadow",
}
_UTIL_LINUX = {family: "util-linux" for family in INSTALL}
_MOUNT = {**_UTIL_LINUX, "debian": "mount"}
_FDISK = {**_UTIL_LINUX, "debian": "fdisk", "alpine": "sfdisk"}
_OPENSSH = {
    **{family: "openssh" for family in INSTALL},
    "debian": "openssh-client",
    "suse": "openssh-common",
    "alpine": "openssh-keygen",
}
_E2FS = {family: "e2fsprogs" for family in INSTALL}
_XFS = {family: "xfsprogs" for family in INSTALL}
_BTRFS = {**{family: "btrfs-progs" for family in INSTALL}, "suse": "btrfsprogs"}

TOOLS: tuple[Tool, ...] = (
    Tool(
        "openssl",
        _always,
        "certificates and protected settings are not opened",
        {f: "openssl" for f in INSTALL},
    ),
    Tool("useradd", _provisions, "no user is made", _SHADOW),
    Tool("usermod", _provisions, "no user is changed", _SHADOW),
    Tool("ssh-keygen", _provisions, "host keys are not made anew", _OPENSSH),
    Tool("sudo", _provisions, "the user cannot become root", {f: "sudo" for f in INSTALL}),
    Tool("mount", _formats, "the resource disk is not mounted", _MOUNT),
    Tool("sfdisk", _formats, "the resource disk is not partitioned", _FDISK),
    Tool("blkid", _formats, "the resource disk is not looked at, and not formatted", _UTIL_LINUX),
    Tool("partx", _formats, "the resource disk is not partitioned", _UTIL_LINUX),
    Tool("mkfs.ext4", _formats_with("ext4"), "the resource disk is not formatted", _E2FS),
    Tool("mkfs.ext3", _formats_with("ext3"), "the resource disk is not formatted", _E2FS),
    Tool("mkfs.xfs", _formats_with("xfs"), "the resource disk is not formatted", _XFS),
    Tool("mkfs.btrfs", _formats_with("btrfs"), "the resource disk is not formatted", _BTRFS),
    Tool("mkswap", _swaps, "there is no swap", _UTIL_LINUX),
    Tool("nft", _filters, "the WireServer is open to all", {f: "nftables" for f in INSTALL}),
    Tool("swapon", _swaps, "there is no swap", _MOUNT),
)

_ALWAYS_SEARCHED = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin")


def missing_tools(configuration: Configuration, family: Family, search_path: str) -> list[str]:
    """One line for each needed program that is not here: what, what does not work, how to get
    it.
    """
    path = ":".join((*filter(None, search_path.split(":")), *_ALWAYS_SEARCHED))
    lines = []
    for tool in TOOLS:
        if tool.is_needed(configuration) and shutil.which(tool.name, path=path) is None:
            lines.append(
                f"{tool.name}: the program is missing, {tool.without}: {_remedy(tool, family)}"
            )
    return lines


def _remedy(tool: Tool, family: Family) -> str:
    if family.packages in tool.packages:
        return f"{INSTALL[family.packages]} {tool.packages[family.packages]}"
    return f"install the package that has {tool.name}"
