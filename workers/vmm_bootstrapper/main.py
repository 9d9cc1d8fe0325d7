"""Runs the installer that System Center Virtual Machine Manager hands to a VM on a disc; once a
disc.

Asks nobody, is asked nothing. Privilege: root, since the installer is the administrator's and runs
as root. It runs under a shim in a process tree of its own, with a deadline: whatever it does, the
rest of the agent goes on. Killed at any moment the next run finds the installer's records and waits
on; the installer never runs twice for one disc. No such disc: done at once.
"""

from __future__ import annotations

from waagent.distro.paths import Paths
from waagent.distro.run import ToolError
from waagent.protocol.base.errors import ExplainedError
from waagent.workers.runtime import Worker
from waagent.workers.vmm_bootstrapper import vmm_disc, vmm_install

_LOOK_S = 0.5
_WAIT_S = 300.0


def main(worker: Worker) -> None:
    """Look for the disc, run what is on it, say how that ended."""
    worker.supervisor.ready()
    paths = worker.paths.configured(worker.configuration)
    if not vmm_disc.is_wanted(paths, worker.configuration.get("DetectScvmmEnv", "auto")):
        worker.supervisor.done("not on System Center VMM")
        return
    try:
        summary = bootstrap(worker, paths)
    except (ExplainedError, ToolError, OSError) as error:
        worker.log.error("VMM's installer was not run: %s", error)
        summary = f"failed: {error}"
    worker.supervisor.done(summary)


def bootstrap(worker: Worker, paths: Paths, limit_s: float = vmm_install.INSTALL_LIMIT_S) -> str:
    """From the disc to the installer's end; the summary."""
    worker.supervisor.doing("looking for VMM's disc")
    copy = vmm_disc.fetch_disc(paths, worker.run, worker.log)
    if copy is None:
        worker.log.info("no disc of System Center VMM: Azure provisions this VM")
        return "no VMM disc"
    if vmm_install.was_run(paths, copy.identity):
        return "VMM's installer ran earlier"
    worker.log.info("found VMM's installer device=%s", copy.device)
    vmm_install.start(paths, copy, limit_s)
    looks = worker.loop.every(_LOOK_S, lambda: None)
    try:
        while not worker.wait(
            lambda: vmm_install.is_over(paths, copy.identity), _WAIT_S, "VMM's installer is running"
        ):
            continue
    finally:
        looks.cancel()
    ended_well, said = vmm_install.describe(paths, copy.identity)
    (worker.log.info if ended_well else worker.log.error)("VMM's installer: %s", said)
    vmm_install.note_run(paths, copy.identity)
    return f"VMM's installer: {said}"
