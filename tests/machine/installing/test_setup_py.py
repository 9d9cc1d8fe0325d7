"""`setup.py install --register-service`, again, forced, elsewhere, and `uninstall`, on a machine
with System V init scripts.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from waagent.lab.machine import Machine
from waagent.lab.machine.layers import FILES, ROOMS, cache, checkout
from waagent.lab.machine.machine import Completed

SOURCE = "/root/source"
LISTING = (
    "find /etc /usr /var /opt -xdev ( -path /var/log/init.log -o -name __pycache__ ) -prune"
    " -o ( -type f -o -type l ) -print"
)


def packed() -> bytes:
    """The checkout without anything that git does not know, and the wheels."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
            return None if "__pycache__" in entry.name else entry

        for name in (*ROOMS, *FILES, "docs/man"):
            tar.add(checkout() / name, name, filter=wanted)
        tar.add(cache() / "wheels", "wheels", filter=wanted)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("m"), agent=False, with_agent=False, sshd=False) as one:
        # what the prepared layer has of the agent: this machine is to be without
        for name in ("waagent-probe", "waagent"):
            one.run(["userdel", name])
        for name in ("waagent-probe", "waagent", "waagent-bus"):
            one.run(["groupdel", name])
        one.run(["rm", "-rf", "/usr/lib/waagent", "/var/lib/waagent", "/var/cache/waagent"])
        one.run(["mkdir", "-p", SOURCE], check=True)
        one.run(["tar", "-x", "-C", SOURCE, "-f", "-"], stdin=packed(), check=True)
        yield one


def setup(vm: Machine, *words: str) -> Completed:
    done = vm.run(["python3", f"{SOURCE}/setup.py", *words], timeout_s=300)
    assert done.status == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{vm.trouble()}"
    return done


def install(vm: Machine, *words: str) -> str:
    more = ("--init-system", "sysv", "--wheels", f"{SOURCE}/wheels")
    return setup(vm, "install", "--register-service", *more, *words).stdout


def files_of(vm: Machine) -> set[str]:
    """Every file, and the accounts."""
    accounts = {f"account {line}" for line in vm.read("/etc/passwd").splitlines()}
    noise = (
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/subuid",
        "/etc/subgid",
    )
    found = vm.run(LISTING.split()).stdout.splitlines()
    return {name for name in found if name.rstrip("-") not in noise} | accounts


def test_install_again_forced_elsewhere_and_uninstall(vm: Machine, shown: Any) -> None:
    before = files_of(vm)

    first = install(vm)
    assert "the service runs: pid" in first
    assert vm.run(["service", "waagent", "status"]).status == 0
    assert vm.run(["id", "-u", "waagent"]).stdout == "64510\n"
    assert vm.run(["man", "-w", "waagent-ps"]).status in (0, 127)
    added = files_of(vm) - before
    assert {"/usr/sbin/waagent", "/usr/share/man/man8/waagent.8", "/etc/waagent.conf"} <= added
    shown(f"setup.py install added {len(added)} files")

    vm.write("/etc/waagent.conf", b"Logs.Verbose=y\n")
    old = vm.pid_of("supervisor")
    second = install(vm)
    assert f"pid {old} ran; it takes up the new build" in second
    assert f"taken up: pid {vm.pid_of('supervisor')}" in second and vm.pid_of("supervisor") != old
    assert vm.read("/etc/waagent.conf") == "Logs.Verbose=y\n"
    assert "kept yours, the new one is waagent.conf.new" in second

    install(vm, "-force")
    assert "Provisioning.Enabled=y" in vm.read("/etc/waagent.conf")

    for name in ("walinuxagent", "waagent"):
        assert vm.run(["service", name, "restart"], timeout_s=60).status == 0
        vm.wait_states(["environment_monitor"])

    gone = setup(vm, "uninstall", "--purge", "--init-system", "sysv").stdout
    assert "removed /etc/waagent.conf" in gone
    assert files_of(vm) - before == set()
    assert before - files_of(vm) == set()


def test_another_prefix(vm: Machine) -> None:
    before = files_of(vm)

    said = install(vm, "--prefix=/opt/waagent")

    assert "the service runs: pid" in said
    assert vm.run(["/opt/waagent/bin/waagent-ps"]).status in (0, 1)
    assert "/opt/waagent/lib/waagent/sbin/waagent" in vm.read("/etc/init.d/waagent")
    setup(vm, "uninstall", "--purge", "--prefix=/opt/waagent")
    assert files_of(vm) == before


def test_a_service_that_does_not_start_says_why(vm: Machine) -> None:
    # a folder where a socket belongs
    vm.run(["mkdir", "-p", "/run/waagent/control/in-the-way"], check=True)

    more = ("--init-system", "sysv", "--wheels", f"{SOURCE}/wheels")
    done = vm.run(
        ["python3", f"{SOURCE}/setup.py", "install", "--register-service", *more], timeout_s=300
    )

    vm.run(["/usr/lib/waagent/sbin/waagent", "-stop"])
    assert done.status == 1
    assert "the service does not run" in done.stderr
    assert "IsADirectoryError" in done.stderr
