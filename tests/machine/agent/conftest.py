"""One provisioned VM for the tests of a file: the whole agent, installed from its wheel, against
the emulated platform.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.machine import Machine
from waagent.lab.ovf import Order, ovf_env

RESIDENT = ("environment_monitor", "fabric_client", "probe_responder")


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, overlay, loop device")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair as a customer has it; the path of the private half."""
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30
    )
    return path


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Iterator[Machine]:
    """A VM that has just been provisioned from its boot DVD; every resident worker is READY."""
    folder = tmp_path_factory.mktemp("vm")
    public = key.with_suffix(".pub").read_text().strip()
    dvd = write_dvd(
        folder / "boot.iso",
        ovf_env(Order(host_name="tern-07", user_name="azureuser", public_keys=(public,))),
    )
    with Machine(folder, dvd=dvd) as machine:
        machine.fabric.wait_ready(120)
        machine.wait_states(RESIDENT)
        yield machine


@pytest.fixture
def a_handler(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Builds a handler from shell scripts, as the map that Fabric.set_extensions takes.

    The enable script runs in the handler's folder; `succeed` in it writes a status file that says
    success.
    """

    def build(
        name: str,
        enable: str,
        *,
        install: str = "exit 0",
        interpreter: str = "/bin/sh",
        then: str = "",
        public: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        path = tmp_path / f"{name}.zip"
        path.write_bytes(handler_zip(enable, install, interpreter, then))
        return {
            "name": name,
            "version": "1.0.0",
            "package": str(path),
            "public": {"name": "bob"} if public is None else public,
            **more,
        }

    return build


def handler_zip(
    enable: str, install: str = "exit 0", interpreter: str = "/bin/sh", then: str = ""
) -> bytes:
    """A package whose commands are these shell scripts; ``interpreter`` runs the enable script.

    ``then``: what the shell of the enable command itself does after the script.
    """
    commands = {
        f"{name}Command": f"bin/{name}.sh"
        for name in ("install", "enable", "disable", "update", "uninstall")
    }
    if then:
        commands["enableCommand"] += f"; {then}"
    manifest = [
        {
            "name": "Sample",
            "version": 1.0,
            "handlerManifest": {**commands, "rebootAfterInstall": False, "reportHeartbeat": False},
        }
    ]
    succeed = (
        'succeed() {\n  printf \'[{"version": 1.0, "timestampUTC": "2026-01-01T00:00:00Z",'
        ' "status": {"operation": "Enable", "status": "success", "code": 0, "formattedMessage":'
        ' {"lang": "en-US", "message": "%s"}}}]\' "$1" > "status/.new"\n  mv status/.new'
        ' "status/$ConfigSequenceNumber.status"\n}\n'
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("HandlerManifest.json", json.dumps(manifest))
        for name in ("disable", "update", "uninstall"):
            archive.writestr(f"bin/{name}.sh", "#!/bin/sh\nexit 0\n")
        archive.writestr("bin/install.sh", f"#!/bin/sh\n{install}\n")
        archive.writestr("bin/enable.sh", f"#!{interpreter}\n{succeed}{enable}\n")
    return stream.getvalue()
