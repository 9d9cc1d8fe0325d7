"""Who reports: host name and distribution, as the status blob names them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from waagent import __version__
from waagent.protocol.wire.status_blob import Machine


def describe(release: Mapping[str, str]) -> Machine:
    """For one report; ``release`` from `read_os_release`. The host name is looked at each time: it
    changes while provisioning.
    """
    return Machine(
        __version__,
        os.uname().nodename,
        release.get("ID", "linux")[:64],
        release.get("VERSION_ID", "")[:64],
    )
