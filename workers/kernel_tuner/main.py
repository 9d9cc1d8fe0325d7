"""Gives the kernel the host's entropy, and old kernels the argument that turns virtual NUMA off.

Asks nobody, is asked nothing; once a boot. Privilege: root, for /dev/urandom and the boot loader's
files. Killed at any moment it begins again: entropy twice does no harm, files are replaced whole.
"""

from __future__ import annotations

from waagent.distro.run import ToolError
from waagent.protocol.base.errors import ExplainedError
from waagent.workers.kernel_tuner import entropy, virtual_numa
from waagent.workers.runtime import Worker


def main(worker: Worker) -> None:
    """Each by itself: what fails is said and stops nothing else."""
    worker.supervisor.ready()
    said = [entropy.take(worker.paths, worker.log)]
    try:
        said.append(virtual_numa.turn_off(worker.paths, worker.run, worker.log))
    except (ExplainedError, ToolError, OSError) as error:
        worker.log.error("virtual NUMA was not turned off: %s", error)
        said.append(f"NUMA failed: {error}")
    worker.supervisor.done(", ".join(filter(None, said)) or "nothing to do")
