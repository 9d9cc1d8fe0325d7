"""`tests/host_state.py` sees whatever was left behind, each kind by itself, in a throw-away
machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.machine.machine import Machine
from waagent.lab.ovf import Order, ovf_env

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the machine needs root")
SCRIPT = Path(__file__).resolve().parents[2] / "host_state.py"
PLANTED = {
    "users": "echo planted:x:4711:4711::/:/bin/false >>/etc/passwd",
    "packages": (
        r"printf 'Package: planted\nStatus: install ok installed\nVersion: 1\n\n'"
        r" >>/var/lib/dpkg/status"
    ),
    "mounts": "mkdir -p /mnt/planted && mount -t tmpfs none /mnt/planted",
    "links": "ip link add planted type veth peer name planted1",
    "addresses": "ip address add 10.99.0.1/32 dev lo",
    "routes": "ip route add 10.98.0.0/16 dev eth0",
    "rules": "ip rule add from 10.99.0.1 lookup main",
    "settings": "echo 1 >/proc/sys/net/ipv4/conf/lo/log_martians",
    "namespaces": "setsid unshare --net sleep 1000 >/dev/null 2>&1 &",
    "host name": "hostname planted",
    "processes": "(setsid sleep 2000 >/dev/null 2>&1 &)",
    "files": "touch /var/log/planted",
}
OF_THE_KERNEL = ("loops: ", "cgroups: ")
"""Not of the machine alone: other tests use them at the same time."""
WALK_S = 300.0  # every file of the host, on a disk that others use
SHINES_THROUGH = (
    str(SCRIPT.parents[1]),
    "/usr/lib",
    "/usr/share",
    "/usr/include",
    "/opt",
    "/srv",
    "/root/.rustup",
    "/root/.cargo",
)
"""The clone that these tests run from, and what is large on the host: not walked."""
FOLDERS = ("/etc", "/tmp", "/var/cache", "/dev/shm", "/usr/local/bin", "/root", "/run")


OWN = ("/dev/shm/", "/run/", "/tmp/")
"""Folders that a machine does not share with the host: whatever differs below the others may be the
host's.
"""


def is_of_the_host(line: str) -> bool:
    """Whether it names a file that the machine sees through its overlay: somebody writes it
    meanwhile, or takes it away.
    """
    return line.startswith("files: ") and not line.split(": ")[2].startswith(OWN)


def test_it_sees_nothing_where_nothing_was_done_and_names_all_that_was(tmp_path: Path) -> None:
    """One test: each comparison walks every folder of the host."""
    planted = "\n".join(
        [*PLANTED.values(), *(f"touch {folder}/planted.file" for folder in FOLDERS)]
    )
    with Machine(
        tmp_path, dvd=write_dvd(tmp_path / "dvd.iso", ovf_env(Order())), agent=False
    ) as machine:
        machine.run(
            [
                "sh",
                "-ec",
                (
                    "mkdir -p /clone/tests; while ip -6 address | grep -q tentative; do sleep 0.1;"
                    " done"
                ),
            ],
            check=True,
        )
        machine.write("/clone/tests/host_state.py", SCRIPT.read_bytes())
        script = ["/usr/bin/python3", "/clone/tests/host_state.py"]
        save, compare = (
            [*script, what, "/clone/state.json", "except", *SHINES_THROUGH]
            for what in ("save", "compare")
        )
        machine.run(save, check=True, timeout_s=WALK_S)
        untouched = machine.run(compare, timeout_s=WALK_S)
        machine.run(["sh", "-ec", planted], check=True)
        touched = machine.run(compare, timeout_s=WALK_S)

    found = [
        line
        for line in untouched.stdout.splitlines()
        if not line.startswith(OF_THE_KERNEL) and not is_of_the_host(line)
    ]
    assert found in ([], ["the host is as it was"])
    assert untouched.status == 0 or not found
    assert touched.status == 1
    wanted = [
        *(f"{kind}: appeared: " for kind in PLANTED),
        *(f"files: appeared: {folder}/planted.file " for folder in FOLDERS),
    ]
    assert [start for start in wanted if f"\n{start}" not in f"\n{touched.stdout}"] == [], (
        touched.stdout
    )
