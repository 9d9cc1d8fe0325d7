"""The agent on a real systemd with cgroup v2: from the first start to the second boot.

One guest, one life: the tests of this file follow one another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from waagent.lab.guest.guest import Guest
from waagent.lab.handlers.packages import handler_zip

RESIDENT = ("environment_monitor", "fabric_client")
SLOW = """
echo $$ >> /var/tmp/ran
while [ ! -e /var/tmp/go ]; do sleep 0.5; done
report success 0 finished
"""


def a_slow_extension(folder: Path) -> dict[str, Any]:
    package = folder / "slow.zip"
    package.write_bytes(handler_zip({"enable": SLOW}))
    return {"name": "Contoso.Slow", "version": "1.0.0", "package": str(package), "public": {"a": 1}}


def workers(guest: Guest) -> dict[str, dict[str, Any]]:
    """The rows of `waagent-ps --json` by name; empty while nobody answers."""
    done = guest.run("waagent-ps --json")
    rows = json.loads(done.stdout)["workers"] if done.stdout.startswith("{") else []
    return {row["name"]: row for row in rows}


def are_ready(guest: Guest) -> bool:
    rows = workers(guest)
    return all(rows.get(name, {}).get("state") == "READY" for name in RESIDENT)


def test_it_starts_and_tells_systemd(guest: Guest, shown: Any) -> None:
    guest.wait_for(lambda: guest.run("systemctl is-active waagent").stdout == "active\n", "active")
    guest.wait_for(lambda: are_ready(guest), "READY workers")

    facts = guest.must("systemctl show waagent -p Type,NRestarts,StatusText,ControlGroup")
    listing = guest.must("waagent-ps --wide", deadline_s=60)

    shown(f"guest: {' '.join(facts.split())}")
    assert "Type=notify" in facts and "NRestarts=0" in facts
    assert "missing here: cgroup" not in listing
    for name in RESIDENT:
        place = guest.must(f"cat /proc/{workers(guest)[name]['pid']}/cgroup").strip()
        assert place.endswith(f"/w-{name}/worker"), place
        assert guest.must(f"cat /sys/fs/cgroup{place[3:]}/pids.max").strip() != "max"


def test_it_provisions_from_the_dvd(guest: Guest, key: Path) -> None:
    guest.wait_for(
        lambda: any(report["state"] == "Ready" for report in guest.fabric.health), "Ready", 400
    )

    # sshd was told to read its configuration again a moment ago, and executes itself anew for it
    guest.wait_for(lambda: guest.ssh(key, "azureuser", "true").status == 0, "a login by key", 60)
    done = guest.ssh(key, "azureuser", "hostname; sudo -n id -u")

    assert done.stdout.split() == ["tern-12", "0"], done.stderr


def test_a_killed_supervisor_costs_no_operation(guest: Guest, tmp_path: Path, shown: Any) -> None:
    guest.fabric.set_extensions([a_slow_extension(tmp_path)])
    guest.wait_for(lambda: guest.run("test -s /var/tmp/ran").status == 0, "the command", 300)
    command = guest.must("cat /var/tmp/ran").split()[0]
    place = guest.must(f"cat /proc/{command}/cgroup").strip()
    before = {name: row["pid"] for name, row in workers(guest).items() if row["pid"]}

    guest.must("systemctl kill -s KILL --kill-whom=main waagent")
    guest.wait_for(lambda: are_ready(guest), "READY workers after kill -9", 300)
    guest.must("touch /var/tmp/go")
    status = guest.fabric.wait_extension("Contoso.Slow", "success", 300)

    shown(f"guest: the operation ran in {place[3:]}")
    assert "azure-vmextensions" in place and "waagent.service" not in place
    assert all(
        workers(guest)[name]["pid"] != pid for name, pid in before.items() if name in RESIDENT
    )
    assert status["formattedMessage"]["message"] == "finished"
    assert guest.must("cat /var/tmp/ran").split() == [command]


def test_stop_leaves_no_process(guest: Guest) -> None:
    guest.must("systemctl stop waagent")

    left = guest.run("pgrep -af 'waagent: |waagent -daemon'").stdout
    assert left == ""
    assert guest.must("systemctl show waagent -p Result,SubState").split() == [
        "Result=success",
        "SubState=dead",
    ]


def test_a_reboot_provisions_nothing_twice(guest: Guest, key: Path) -> None:
    facts = "id -u azureuser; cat /etc/ssh/ssh_host_*_key.pub /home/azureuser/.ssh/authorized_keys"
    before = guest.must(facts)
    seen = len(guest.fabric.health)

    guest.reboot()
    guest.wait_for(lambda: are_ready(guest), "READY workers after the reboot", 300)
    guest.wait_for(lambda: len(guest.fabric.health) > seen, "a report after the reboot", 300)

    assert guest.must(facts) == before
    assert guest.fabric.health[-1]["state"] == "Ready"
    assert guest.ssh(key, "azureuser", "sudo -n true").status == 0
    assert guest.must("grep -c 'created user' /var/log/waagent.log").strip() == "1"


def test_a_power_cut_in_mid_enable_is_survived(guest: Guest, tmp_path: Path) -> None:
    guest.must("rm -f /var/tmp/go /var/tmp/ran; sync")
    package = tmp_path / "again.zip"
    package.write_bytes(handler_zip({"enable": SLOW}))
    guest.fabric.set_extensions(
        [{"name": "Contoso.Cut", "version": "1.0.0", "package": str(package), "public": {"a": 2}}]
    )
    guest.wait_for(lambda: guest.run("test -s /var/tmp/ran").status == 0, "the command", 300)

    guest.cut()
    guest.boot()
    guest.must("touch /var/tmp/go")

    status = guest.fabric.wait_extension("Contoso.Cut", "success", 400)

    assert status["formattedMessage"]["message"] == "finished"
