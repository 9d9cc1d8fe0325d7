"""The installer on a disc of System Center VMM, with the whole agent beside it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from waagent.lab.machine import Machine

SCRIPT = """#!/bin/bash
echo "argc=$# arg=[$1]" >> /root/installed
cat "$(dirname "$0")/payload/agent.txt" >> /root/installed
{end}
"""
ENDS = {
    # what the script does last, and what is said of it
    "succeeds": ("echo ready", "VMM's installer: success"),
    "fails": ("echo no room left >&2; exit 7", "no room left"),
    "hangs": ("sleep 1000 & wait", "killed"),
}
OPTIONS = "DetectScvmmEnv=y\nProvisioning.Enabled=n\n"


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, overlay, loop device")


def a_disc(path: Path, script: str) -> Path:
    """A disc as VMM attaches it."""
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, joliet=3)
    disc.add_directory("/PAYLOAD", joliet_path="/payload")
    for name, text in (
        ("linuxosconfiguration.xml", "<LinuxOSConfiguration/>"),
        ("install", script),
        ("payload/agent.txt", "the agent's files\n"),
    ):
        plain = name.upper().replace("LINUXOSCONFIGURATION", "LINUXOSC")
        plain = plain if "." in plain else plain + "."
        data = text.encode()
        disc.add_fp(io.BytesIO(data), len(data), f"/{plain};1", joliet_path=f"/{name}")
    disc.write(str(path))
    disc.close()
    return path


def done_line(vm: Machine) -> str:
    vm.wait_states(["vmm_bootstrapper"], "DONE", 60)
    return str(vm.worker("vmm_bootstrapper")["doing"])


@pytest.mark.parametrize("ending", ["succeeds", "fails"])
def test_the_installer_runs_once_and_its_end_is_reported(tmp_path: Path, ending: str) -> None:
    last, said = ENDS[ending]
    dvd = a_disc(tmp_path / "vmm.iso", SCRIPT.format(end=last))
    with Machine(tmp_path, dvd=dvd, files={"/etc/waagent/conf.d/t.conf": OPTIONS}) as vm:
        doing = done_line(vm)
        vm.fabric.wait_ready(60)
        installed = vm.read("/root/installed")
        vm.order("stop-agent")
        vm.run(["rm", "-rf", "/run/waagent"])  # as after a reboot
        vm.order("start-agent")
        again = done_line(vm)

        assert said in doing
        assert said in vm.read("/var/log/waagent.log")
        folder = "/var/lib/waagent/vmm/disc"
        assert installed == f"argc=1 arg=[-p {folder}/ ]\nthe agent's files\n"
        assert vm.read("/root/installed") == installed
        assert again == "VMM's installer ran earlier"
        states = {row["name"]: row["state"] for row in vm.ps()["workers"]}
        assert states["fabric_client"] == states["environment_monitor"] == "READY"


def test_an_installer_that_hangs_hurts_nobody_and_another_disc_is_none(tmp_path: Path) -> None:
    dvd = a_disc(tmp_path / "vmm.iso", SCRIPT.format(end=ENDS["hangs"][0]))
    with Machine(tmp_path, dvd=dvd, files={"/etc/waagent/conf.d/t.conf": OPTIONS}) as vm:
        vm.fabric.wait_ready(60)

        def waits(table: dict[str, Any]) -> bool:
            row = {row["name"]: row for row in table["workers"]}
            return "installer is running" in (row["vmm_bootstrapper"]["doing"] or "")

        table = vm.wait_ps(waits, 60)
        states = {row["name"]: row["state"] for row in table["workers"]}
        assert states["fabric_client"] == states["environment_monitor"] == "READY"
        pids = vm.run(["pgrep", "-f", "sleep 1000"]).stdout.split()
        assert pids

        # the deadline is half an hour: what it does is the shim's, here it is asked for by hand
        script = (
            "import sys; from waagent.distro.paths import Paths;"
            " from waagent.workers.vmm_bootstrapper import vmm_disc, vmm_install;"
            " copy = vmm_disc.DiscCopy('/dev/sr0', Paths().library / 'vmm/disc', 'short');"
            " vmm_install.start(Paths(), copy, 2.0);"
            " import time; end = time.monotonic() + 30\n"
            "while not vmm_install.is_over(Paths(), 'short') and time.monotonic() < end:"
            " time.sleep(0.1)\n"
            "print(vmm_install.describe(Paths(), 'short'))"
        )
        done = vm.run(["/usr/lib/waagent/bin/python", "-c", script], check=True)
        assert done.stdout == "(False, 'killed, it had not ended after 2 s')\n"


def test_without_a_disc_it_is_done_at_once(tmp_path: Path) -> None:
    with Machine(tmp_path, files={"/etc/waagent/conf.d/t.conf": OPTIONS}) as vm:
        assert done_line(vm) == "no VMM disc"
