"""Claims about `waagent-ps --wait provisioned`, as a script uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.machine import Machine
from waagent.lab.ovf import Order, ovf_env

WAIT = ["waagent-ps", "--wait", "provisioned", "--timeout"]


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A VM without a disc; the agent does not run yet."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, overlay, loop device")
    with Machine(tmp_path_factory.mktemp("vm"), agent=False) as machine:
        yield machine


def test_a_script_is_told_how_it_went(vm: Machine, tmp_path: Path) -> None:
    absent = vm.run([*WAIT, "300"])
    assert absent.status == 3 and "supervisor not answering" in absent.stderr

    vm.order("start-agent")
    vm.wait_states(["fabric_client"])
    over = vm.run([*WAIT, "1"])
    assert (over.status, over.stderr) == (
        6,
        "waagent-ps: not provisioned after 1 s: see waagent-ps\n",
    )
    failed = vm.run([*WAIT, "300"])
    assert failed.status == 1
    assert failed.stderr.startswith("waagent-ps: not provisioned: No DVD device detected")

    image = write_dvd(tmp_path / "late.iso", ovf_env(Order(user_name="late")))
    vm.write("/dev/.sr0", image.read_bytes(), 0o600)
    vm.run(["mv", "/dev/.sr0", "/dev/sr0"], check=True)
    vm.wait_ps(lambda table: table["provisioned"], 90, "provisioned")
    reached = vm.run([*WAIT, "300"])
    assert (reached.status, reached.stdout, reached.stderr) == (0, "", "")
