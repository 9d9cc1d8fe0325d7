"""Where the WireServer is, told to everybody; and the supervisor's hand on the disk.

Asks nobody. Is asked by every worker for ENDPOINT (a value with a revision), by fabric_client
whether root can connect there, and where only root can, for connected sockets. The supervisor sends
it log lines and the stacks of hung workers.
Meanwhile it keeps SCSI time-outs, interface names and the firewall as they are configured.
Privilege: root with NET_RAW for the DISCOVER of a machine that has no address yet, and DAC_OVERRIDE
for lease files; nothing from outside is parsed but DHCP frames and lease files. Killed at any
moment it loses nothing: the search begins anew and takes milliseconds.
"""

from __future__ import annotations

from waagent.protocol.bus import topics
from waagent.workers.environment_monitor.console import Console
from waagent.workers.environment_monitor.discovery import Discovery, Ways
from waagent.workers.environment_monitor.handover import Handover
from waagent.workers.environment_monitor.host_name import HostName
from waagent.workers.environment_monitor.log_writer import keep_stack, write_lines
from waagent.workers.environment_monitor.reachability import Reaching
from waagent.workers.environment_monitor.upkeep import Upkeep
from waagent.workers.runtime import Worker


def main(worker: Worker) -> None:
    """Take over the supervisor's lines, find the WireServer, say where it is, go on serving."""
    worker.supervisor.on_log(write_lines)
    worker.supervisor.on_stack(lambda name, text: note_stack(worker, name, text))
    server = worker.bus.serve()
    reaching, handing = Reaching(worker), Handover(worker, worker.handover_listener)
    naming = HostName(worker)
    server.on_request(topics.REACHABLE, ("fabric_client",), reaching.asked)

    upkeep = Upkeep(worker)
    if worker.configuration.get("Logs.Console", True):
        Console(worker).begin()

    def found(endpoint: topics.Endpoint) -> None:
        reaching.address = handing.address = naming.address = endpoint.address
        server.publish(topics.ENDPOINT, topics.to_body(endpoint))
        worker.supervisor.tell(endpoint=endpoint.address, source=endpoint.source)
        upkeep.endpoint_is(endpoint.address)

    worker.supervisor.ready()
    naming.watch()
    doing = worker.supervisor.doing
    Discovery(worker.loop, worker.paths, ways_of(worker), worker.log, found, doing).begin()
    upkeep.begin()
    worker.loop.run()


def ways_of(worker: Worker) -> Ways:
    """The ways of discovery that the configuration leaves."""
    return Ways(
        is_static=str(worker.configuration.get("Protocol.EndpointDiscovery") or "dhcp").lower()
        != "dhcp",
        interface=str(worker.configuration.get("Network.Interface") or ""),
    )


def note_stack(worker: Worker, name: str, text: str) -> None:
    """Keep a hung worker's stack where an operator is told to look."""
    kept = keep_stack(worker.paths.hang_folder, name, text)
    if kept is not None:
        worker.log.warning("kept the stack of a hung worker name=%s file=%s", name, kept)
