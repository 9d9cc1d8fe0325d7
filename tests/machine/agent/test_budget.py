"""A small disk below /var/lib/waagent: what the agent keeps there is bounded, and a full one is told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.handlers import packages
from waagent.lab.machine import Machine
from waagent.lab.ovf import Order, ovf_env

ROUNDS = int(os.environ.get("WAAGENT_ROUNDS", "6"))
"""Goal states; `make budget` takes 300."""
MIB = 1 << 20
LIBRARY = "/var/lib/waagent"
NAME = "Contoso.Budget"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A provisioned VM whose library has 64 MiB."""
    folder = tmp_path_factory.mktemp("small")
    dvd = write_dvd(folder / "boot.iso", ovf_env(Order(user_name="azureuser", password="Budget-1")))
    often = {"/etc/waagent/conf.d/often.conf": "Extensions.GoalStatePeriod=1\n"}
    with Machine(folder, dvd=dvd, agent=False, files=often) as machine:
        machine.run(["mkdir", "-p", LIBRARY], check=True)
        mounted = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "small", LIBRARY]
        machine.run(mounted, check=True)
        machine.order("start-agent")
        machine.fabric.wait_ready(120)
        yield machine


def free_mib(machine: Machine) -> int:
    said = machine.run(["stat", "-f", "-c", "%a %S", LIBRARY], check=True).stdout.split()
    return int(said[0]) * int(said[1]) // MIB


def wanted(
    folder: Path,
    sequence: int,
    *,
    name: str = NAME,
    size: int = 3 * MIB,
    version: str = "1.0.0",
) -> dict[str, Any]:
    path = folder / f"{name}-{size}.zip"
    if not path.exists():
        script = 'head -c 200000 /dev/urandom | od; report success 0 "round $sequence"'
        whole = packages.handler_zip({"enable": script})
        path.write_bytes(packages.with_filler(whole, "filler", os.urandom(size)))
    public = {"text": "x" * 100_000, "number": sequence}
    return {
        "name": name,
        "version": version,
        "package": str(path),
        "public": public,
        "sequence": sequence,
    }


def test_many_goal_states_fill_nothing(small: Machine, tmp_path: Path) -> None:
    least = 64
    for sequence in range(ROUNDS):
        small.fabric.set_extensions([wanted(tmp_path, sequence)])
        small.fabric.wait_extension(NAME, "success", 60, sequence=sequence)
        least = min(least, free_mib(small))

    assert least >= 40, f"{least} MiB were free"
    settings = small.run(["ls", f"{LIBRARY}/{NAME}-1.0.0/config"]).stdout.split()
    assert sum(name.endswith(".settings") for name in settings) <= 20
    assert small.run(["sh", "-c", "ls /var/cache/waagent/*.zip"]).status != 0, "the archive is gone"


def test_many_upgrades_fill_nothing(small: Machine, tmp_path: Path) -> None:
    upgrades = max(3, ROUNDS // 5)
    least = 64
    for number in range(1, upgrades + 1):
        goal = wanted(tmp_path, 100 + number, version=f"1.0.{number}")
        small.fabric.set_extensions([goal])
        small.fabric.wait_extension(NAME, "success", 60, sequence=100 + number)
        least = min(least, free_mib(small))

    assert least >= 36, f"{least} MiB were free"
    folders = small.run(["sh", "-c", f"ls -d {LIBRARY}/{NAME}-*"]).stdout.split()
    assert f"{LIBRARY}/{NAME}-1.0.{upgrades}" in folders and len(folders) <= 2, folders


def test_a_package_that_does_not_fit_is_refused_with_that_status(
    small: Machine, tmp_path: Path
) -> None:
    name = "Contoso.Large"

    small.fabric.set_extensions([wanted(tmp_path, 0, name=name, size=60 * MIB)])
    status = small.fabric.wait_extension(name, "error", 60)

    assert status["code"] == 1005
    assert "does not fit" in status["formattedMessage"]["message"]
    assert free_mib(small) >= 40


def test_at_0_bytes_free_it_reports_and_goes_on_with_the_next_free_byte(
    small: Machine, tmp_path: Path
) -> None:
    small.fabric.set_extensions([wanted(tmp_path, 1000, name="Contoso.Full")])
    small.fabric.wait_extension("Contoso.Full", "success", 60, sequence=1000)
    small.run(["sh", "-c", f"cat /dev/zero > {LIBRARY}/fill; true"])
    assert free_mib(small) == 0
    before = len(small.fabric.statuses)

    small.fabric.set_extensions([wanted(tmp_path, 1001, name="Contoso.Full")])
    small.fabric.wait_for(
        lambda fabric: len(fabric.statuses) >= before + 3, 60, "reports with a full disk"
    )
    time.sleep(1)
    small.wait_states(("environment_monitor", "fabric_client", "extension_runner"))
    small.run(["rm", f"{LIBRARY}/fill"], check=True)

    small.fabric.wait_extension("Contoso.Full", "success", 90, sequence=1001)
