"""The agent's predecessor (Azure/WALinuxAgent), from a checkout of its public repository, in a
throw-away machine of its own. Nothing of it is part of this project.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waagent.lab.machine.machine import Machine

PLACE = "/opt/peer"
CONFIGURATION = """
Provisioning.Agent=disabled
Provisioning.Enabled=n
ResourceDisk.Format=n
OS.EnableFirewall=n
OS.EnableRDMA=n
AutoUpdate.Enabled=n
AutoUpdate.UpdateToLatestVersion=n
Logs.Collect=n
Extensions.Enabled=y
"""
"""As installed, without what a throw-away machine has no use for: provisioning from the DVD (it
wants eject), a firewall, updates of itself.
"""


@contextmanager
def started(checkout: Path, folder: Path, scheme: str) -> Iterator[Machine]:
    """A machine in which it runs as its unit starts it, with the goal state of a VM that is
    provisioned.
    """
    with Machine(folder, with_agent=False, scheme=scheme) as machine:
        put_in(machine, checkout)
        with running(machine):
            machine.fabric.wait_ready(120)
            yield machine


def put_in(machine: Machine, checkout: Path) -> None:
    """Its code and its configuration, for a VM that is provisioned."""
    machine.write("/root/peer.tar", _packed(checkout))
    machine.run(["mkdir", "-p", PLACE, "/var/lib/waagent", "/var/log/azure"], check=True)
    machine.run(["tar", "-C", PLACE, "-xf", "/root/peer.tar"], check=True)
    machine.write("/etc/waagent.conf", CONFIGURATION.encode())
    machine.write("/var/lib/waagent/provisioned", b"")


@contextmanager
def running(machine: Machine) -> Iterator[None]:
    """It runs, as its unit starts it."""
    argv = ["env", f"PYTHONPATH={PLACE}", "python3", "-u", f"{PLACE}/bin/waagent", "-daemon"]
    with machine.popen(
        argv,
        joined=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as agent:
        try:
            yield
        finally:
            machine.run(["pkill", "-TERM", "-f", f"{PLACE}/bin/waagent"])
            machine.run(["pkill", "-TERM", "-f", "run-exthandlers"])
            agent.terminate()


def _packed(checkout: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for part in ("azurelinuxagent", "bin", "__main__.py"):
            archive.add(checkout / part, part)
    return stream.getvalue()
