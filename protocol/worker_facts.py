"""What workers tell of their knowledge in heartbeats (`Worker.tell`), for waagent-ps; it outlives
their processes in the supervisor's table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waagent.protocol.base import fields
from waagent.protocol.base.records import Record


class Facts(Record):
    """Of one worker; each tells a few of them. Times are CLOCK_MONOTONIC seconds."""

    endpoint: str = ""
    """environment_monitor, fabric_client: the WireServer's address."""
    source: str = ""
    """environment_monitor: route, lease, dhcp, fixed or configured."""
    answered_at: float | None = None
    """fabric_client: when the platform answered last."""
    status_at: float | None = None
    """fabric_client: when the platform took a status last."""
    incarnation: str = ""
    """fabric_client: of the goal state that it follows."""
    way: str = ""
    """fabric_client: the worker that makes its connections, where a firewall lets only root do
    so.
    """
    fingerprint: str = ""
    """fabric_client: of the host keys that the platform knows."""
    health: str = ""
    """fabric_client, provisioner: what the platform was told last, Ready or NotReady."""
    provisioned: bool | None = None
    """provisioner."""
    failure: str = ""
    """provisioner: why the VM could not be provisioned, as the platform was told."""


def parse_facts(said: Mapping[str, Any]) -> Facts:
    """The facts that ``said`` is; whatever it holds, no error."""
    return Facts(**fields.taken(Facts, said))
