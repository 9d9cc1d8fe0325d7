"""Who reports: host name and distribution, as the status blob names them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from waagent import __version__
from waagent.distro.paths import Paths
from waagent.protocol.wire.status_blob import Machine


def describe(release: Mapping[str, str]) -> Machine:
    """For one report; ``release`` from `find_release`. The host name is looked at each time: it
    changes while provisioning.
    """
    return Machine(
        __version__,
        os.uname().nodename,
        release.get("ID", "linux")[:64],
        release.get("VERSION_ID", "")[:64],
    )


def find_release(paths: Paths) -> dict[str, str]:
    """os-release(5) of this machine; empty where there is none."""
    for name in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            return read_release(
                paths.under(name).read_text(encoding="utf-8", errors="replace")[:65536]
            )
        except OSError:
            continue  # the second place is for images without the first
    return {}


def read_release(text: str) -> dict[str, str]:
    """The assignments of os-release(5), quotes taken off."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            found[name] = value.strip().strip("\"'")
    return found
