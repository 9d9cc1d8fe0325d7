"""Speaks with the platform for everybody, without any privilege.

Asks: environment_monitor for the endpoint, certificate_keeper for the transport certificate and for
opening certificates. Is asked: HEALTH and PROPERTIES by the provisioner, HANDLER, PACKAGE and
STATUS by extension_runner; everybody may subscribe to the summary of the goal state. Runs as uid
waagent: it reads what strangers send. The documents themselves are parsed, and TLS is spoken, by
`transfer`, a process of its own for each transaction. Killed here: nothing is lost, its successor
reads the goal state again, and the others say again what they had said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent.workers.fabric_client.client import FabricClient
from waagent.workers.fabric_client.endpoint import Ports
from waagent.workers.fabric_client.host_health import Pace

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker


def main(worker: Worker) -> None:
    """Answer the other workers, poll the platform, report to it, until told to stop."""
    client = FabricClient(worker, Ports(), Pace())
    client.serve()
    client.prepare()
    worker.supervisor.ready()
    client.poll()
    worker.loop.run()
