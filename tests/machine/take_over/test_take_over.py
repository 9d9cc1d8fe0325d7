"""A VM with the state and the processes of another agent is taken over: nothing runs that the plan
does not say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.handlers.packages import handler_zip
from waagent.lab.machine import Machine

HANDLERS = ("Contoso.Stays", "Contoso.Died", "Contoso.Open")
ENABLE = 'echo "$ConfigSequenceNumber" >> /var/tmp/ran.$(basename "$PWD")\nreport success 0 ours\n'
STATUS = json.dumps(
    [
        {
            "version": 1.0,
            "timestampUTC": "2026-11-28T00:00:00Z",
            "status": {
                "operation": "Enable",
                "status": "success",
                "code": 0,
                "formattedMessage": {"lang": "en-US", "message": "by the agent before"},
            },
        }
    ]
)
OLD_AGENT = """#!/bin/bash
group=$(ls -d /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -1)
group=$(dirname "$group")/system.slice/walinuxagent.service
mkdir -p "$group"
echo $$ > "$group/cgroup.procs"
(cd /var/lib/waagent/Contoso.Stays-1.0.0 && exec setsid sleep 4000) &
(cd /var/lib/waagent/Contoso.Died-1.0.0 && exec sleep 4000) &
died=$!
trap 'kill -9 $died; wait $died; exit 0' TERM
while :; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("m"), agent=False) as machine:
        yield machine


def lay_out(vm: Machine, folder: Path) -> list[dict[str, Any]]:
    """Three enabled handlers, as the agent before leaves them; what the platform wants."""
    wanted = []
    for name in HANDLERS:
        package = folder / f"{name}.zip"
        package.write_bytes(handler_zip({"enable": ENABLE}))
        base = f"/var/lib/waagent/{name}-1.0.0"
        vm.write("/var/tmp/package.zip", package.read_bytes())
        vm.run(["python3", "-m", "zipfile", "-e", "/var/tmp/package.zip", base], check=True)
        vm.run(["chmod", "-R", "u+x", f"{base}/bin"], check=True)
        vm.write(f"{base}/config/HandlerState", b"Enabled")
        vm.write(f"{base}/config/3.settings", b'{"runtimeSettings": []}', 0o600)
        if name != "Contoso.Open":
            vm.write(f"{base}/status/3.status", STATUS.encode())
        wanted.append(
            {
                "name": name,
                "version": "1.0.0",
                "package": str(package),
                "public": {"a": 1},
                "sequence": 3,
            }
        )
    vm.write("/var/lib/waagent/provisioned", b"", 0o644)
    vm.write("/var/lib/waagent/published_hostname", b"old-host")
    vm.write("/etc/waagent.conf", b"Provisioning.MonitorHostName=y\n")
    keys = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=old"]
    where = ["-keyout", "/var/lib/waagent/TransportPrivate.pem"]
    vm.run(["openssl", *keys, *where, "-out", "/var/lib/waagent/TransportCert.pem"], check=True)
    vm.write("/opt/old/waagent", OLD_AGENT.encode(), 0o755)
    return wanted


def test_a_vm_is_taken_over_as_the_plan_says(vm: Machine, tmp_path: Path) -> None:
    wanted = lay_out(vm, tmp_path)
    certificate = vm.read("/var/lib/waagent/TransportCert.pem")
    old = vm.popen(["bash", "/opt/old/waagent", "-daemon"])
    both = "until [ $(pgrep -fc '^sleep 4000$') = 2 ]; do sleep 0.1; done"
    vm.run(["sh", "-c", both], timeout_s=30, check=True)
    stays = vm.run(["pgrep", "-f", "^sleep 4000$"]).stdout.split()

    plan = vm.run(["waagent", "-take-over", "--plan"], check=True).stdout
    assert old.poll() is None, "a plan changes nothing"
    done = vm.run(["waagent", "-take-over"], check=True).stdout
    old.wait(20)

    assert done.startswith(plan)
    assert "stop walinuxagent.service" in plan
    assert "handler Contoso.Stays 1.0.0 Enabled seq 3 success: not run again, pid" in plan
    assert "handler Contoso.Open 1.0.0 Enabled seq 3 none: ENABLE" in plan
    assert "nothing is provisioned again, host name old-host" in plan
    left = vm.run(["pgrep", "-f", "^sleep 4000$"]).stdout.split()
    assert len(left) == 1 and left[0] in stays
    kept = vm.read("/etc/waagent/conf.d/10-taken-over.conf")
    assert "ResourceDisk.Format=n" in kept and "MonitorHostName" not in kept

    vm.fabric.set_extensions(wanted)
    vm.order("start-agent")
    for name in ("Contoso.Died", "Contoso.Open"):
        vm.fabric.wait_extension(name, "success")
    told = vm.fabric.wait_extension("Contoso.Stays", "success")

    assert told["formattedMessage"]["message"] == "by the agent before"
    assert not vm.exists("/var/tmp/ran.Contoso.Stays-1.0.0")
    for name in ("Contoso.Died", "Contoso.Open"):
        assert vm.read(f"/var/tmp/ran.{name}-1.0.0") == "3\n"
    assert vm.read("/var/lib/waagent/TransportCert.pem") == certificate
    assert vm.run(["test", "-L", "/var/lib/waagent/TransportCert.pem"]).status == 0
    again = vm.run(["waagent", "-take-over"], check=True).stdout
    assert again.startswith("nothing to take over")
    assert vm.run(["pgrep", "-f", "^sleep 4000$"]).stdout.split() == left
