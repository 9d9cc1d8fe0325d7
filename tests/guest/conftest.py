"""One real Debian 12 with systemd for the tests of this folder, provisioned from its boot DVD."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.guest import guest as guests
from waagent.lab.guest import image as images
from waagent.lab.guest.guest import Guest
from waagent.lab.ovf import Order, ovf_env

GUEST_PYTHON = "3.11"  # of Debian 12


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair as a customer has it; the path of the private half."""
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30
    )
    return path


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Iterator[Guest]:
    """A booted guest with the agent installed, enabled and started, as `docs/install.md` says."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, a tap device")
    if missing := images.missing_tools():
        pytest.skip(f"this machine lacks Debian's packages {' '.join(missing)}")
    host_python = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if host_python != GUEST_PYTHON or platform.machine() != "x86_64":
        pytest.skip(f"the agent is staged with Python {GUEST_PYTHON} on x86_64, here {host_python}")
    image = images.ensure_image(lambda text: print(text, file=sys.stderr, flush=True))
    folder = tmp_path_factory.mktemp("guest")
    public = key.with_suffix(".pub").read_text().strip()
    order = Order(host_name="tern-12", user_name="azureuser", public_keys=(public,))
    dvd = write_dvd(folder / "boot.iso", ovf_env(order))
    tarball = guests.stage(folder / "stage")
    with Guest(folder, image, dvd) as running:
        running.unpack(tarball)
        running.must(
            "systemd-sysusers && systemctl daemon-reload && systemctl enable --now waagent"
        )
        yield running
