"""VMs that are provisioned in odd ways, each with the whole agent and the emulated platform."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.machine import Machine
from waagent.lab.ovf import Order, ovf_env


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, overlay, loop device")


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair as a customer has it; the path of the private half."""
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30
    )
    return path


@pytest.fixture(scope="session")
def public(key: Path) -> str:
    """The public half."""
    return key.with_suffix(".pub").read_text().strip()


@pytest.fixture
def a_vm(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Starts VMs: `a_vm(order or None, variant="good", options={option: value}, **machine)`; they
    end with the test. ``document`` stands on the disc in the place of the order's.
    """
    started: list[Machine] = []

    def start(
        order: Order | None,
        *,
        variant: str = "good",
        document: bytes | None = None,
        options: dict[str, str] | None = None,
        **more: Any,
    ) -> Machine:
        content = ovf_env(order) if document is None and order is not None else document
        dvd = (
            None
            if content is None
            else write_dvd(tmp_path / f"boot{len(started)}.iso", content, variant)
        )
        files = dict(more.pop("files", {}))
        if options:
            files["/etc/waagent/conf.d/test.conf"] = "".join(
                f"{name}={value}\n" for name, value in options.items()
            )
        started.append(Machine(tmp_path, dvd=dvd, files=files, **more))
        return started[-1]

    yield start
    for machine in started:
        machine.stop()


@pytest.fixture
def insert_disc(tmp_path: Path) -> Callable[[Machine, Order], None]:
    """Attaches a boot DVD to a running VM, in a second drive."""

    def insert(machine: Machine, order: Order) -> None:
        image = write_dvd(tmp_path / "second.iso", ovf_env(order))
        machine.write("/dev/.sr1", image.read_bytes(), 0o600)
        machine.run(["mv", "/dev/.sr1", "/dev/sr1"], check=True)

    return insert


@pytest.fixture
def wait_failed() -> Callable[[Machine, str], None]:
    """Waits for the report of a failed provisioning whose description holds a text."""

    def wait(machine: Machine, text: str) -> None:
        def failed(item: dict[str, Any]) -> bool:
            return item["substatus"] == "ProvisioningFailed" and text in item["description"]

        machine.fabric.wait_for(
            lambda fabric: [item for item in fabric.health if failed(item)],
            90,
            f"ProvisioningFailed with {text!r}",
        )

    return wait
