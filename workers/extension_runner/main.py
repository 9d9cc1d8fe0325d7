"""Carries out what the goal state wants of VM extensions.

Messages in: fabric_client's goal state (a value) and, for each handler in it, its desired state.
Decisions: `plan.py`, one handler at a time. Effects: packages unpacked, settings written, commands
run under shims that outlive this worker. Messages out: one report for each extension when it
changes; `/run/waagent/operations` for waagent-ps.

Serves nobody; nobody may ask it anything. Root, since handlers are root programs by contract; it
takes desired state only, no path and no command from the bus, and looks at every name and version
itself. Killed here: operations go on, the next runner finds them by their records and locks, and
runs nothing twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent.distro import boot_marks
from waagent.protocol.bus import topics
from waagent.workers.extension_runner.role_documents import RoleDocuments
from waagent.workers.extension_runner.runner import Runner
from waagent.workers.extension_runner.wanted_handlers import Goals

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

MARKER_S = 1.0
PERIOD_S = 6.0


def main(worker: Worker) -> None:
    """Follow the goal state once this VM is provisioned, or given up: it can be repaired then."""
    paths = worker.paths.configured(worker.configuration)
    client = worker.bus.client("fabric_client")
    runner = Runner(worker, client, paths, _period_s(worker))
    goals = Goals(worker, client, runner.accepted, runner.summarised)

    def begin() -> None:
        if not (paths.provisioned.exists() or boot_marks.provisioning_failed(paths).exists()):
            worker.supervisor.doing("waiting for the provisioner")
            worker.loop.after(MARKER_S, begin)
            return
        runner.configure()
        runner.adopt()
        goals.follow()
        client.subscribe(topics.ROLE_DOCUMENTS, RoleDocuments(worker, paths).changed)
        worker.supervisor.on_configure(runner.configure)
        if worker.configuration.get("Extensions.WaitForCloudInit"):
            worker.log.warning(
                "Extensions.WaitForCloudInit: not in this version of the agent: extensions do not"
                " wait for cloud-init"
            )

    worker.supervisor.ready()
    begin()
    worker.loop.run()


def _period_s(worker: Worker) -> float:
    return float(worker.configuration.get("Extensions.GoalStatePeriod") or PERIOD_S)
