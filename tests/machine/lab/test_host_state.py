"""`tests/host_state.py` sees whatever was left behind, each kind by itself, in a throw-away machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.machine.machine import Machine
from waagent.lab.ovf import Order, ovf_env

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the machine needs root")
SCRIPT = Path(__file__).resolve().parents[2] / "host_state.py"
PLANTED = {
    "users": "echo planted:x:4711:4711::/:/bin/false >>/etc/passwd",
    "packages": r"printf 'Package: planted\nStatus: install ok installed\nVersion: 1\n\n' >>/var/lib/dpkg/status",
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
FOLDERS = ("/etc", "/tmp", "/var/cache", "/dev/shm", "/usr/local/bin", "/root", "/run")


OWN = ("/dev/shm/", "/run/", "/tmp/")
"""Folders that a machine does not share with the host: whatever differs below the others may be the host's."""


def is_of_the_host(line: str) -> bool:
    """Whether it names a file that the machine sees through its overlay: somebody writes it meanwhile, or takes it away."""
    return line.startswith("files: ") and not line.split(": ")[2].startswith(OWN)


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[int, list[str]]]]:
    """Status and lines of two comparisons: nothing was done since the state was noted; everything was planted at once."""
    folder = tmp_path_factory.mktemp("machine")
    with Machine(folder, dvd=write_dvd(folder / "dvd.iso", ovf_env(Order())), agent=False) as machine:
        machine.run(["sh", "-ec", "mkdir -p /srv/clone/tests; while ip -6 address | grep -q tentative; do sleep 0.1; done"], check=True)
        machine.write("/srv/clone/tests/host_state.py", SCRIPT.read_bytes())
        script = ["/usr/bin/python3", "/srv/clone/tests/host_state.py"]
        shines_through = str(SCRIPT.parents[1])  # the clone that these tests run from, with its .venv and .cache
        save, compare = ([*script, what, "/srv/state.json", "except", shines_through] for what in ("save", "compare"))
        machine.run(save, check=True, timeout_s=WALK_S)
        found = []
        for planted in ("true", "\n".join([*PLANTED.values(), *(f"touch {folder}/planted.file" for folder in FOLDERS)])):
            machine.run(["sh", "-ec", planted], check=True)
            seen = machine.run(compare, timeout_s=WALK_S)
            found.append((seen.status, seen.stdout.splitlines()))
        yield found


def test_without_a_trace_it_says_so(comparisons: list[tuple[int, list[str]]]) -> None:
    status, lines = comparisons[0]

    found = [line for line in lines if not line.startswith(OF_THE_KERNEL) and not is_of_the_host(line)]
    assert found in ([], ["the host is as it was"])
    assert status == 0 or not found


@pytest.mark.parametrize("kind", PLANTED)
def test_what_was_left_behind_is_named(comparisons: list[tuple[int, list[str]]], kind: str) -> None:
    status, lines = comparisons[1]

    assert status == 1
    assert [line for line in lines if line.startswith(f"{kind}: appeared: ")], lines


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_file_is_seen_wherever_it_lies(comparisons: list[tuple[int, list[str]]], folder: str) -> None:
    assert [line for line in comparisons[1][1] if line.startswith(f"files: appeared: {folder}/planted.file ")], comparisons[1][1]
