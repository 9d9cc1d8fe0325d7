"""Claims about making an image of a VM: what goes, what is said, and what the next VM finds."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.machine import Machine
from waagent.lab.ovf import Order, ovf_env

PATIENCE_S = 120.0
PACKER = "/usr/sbin/waagent -force -deprovision+user && export HISTSIZE=0 && sync"
LEFT_BEHIND = {
    "/root/.bash_history": "secret command",
    "/var/lib/dhcp/dhclient.eth0.leases": "lease {}",
    "/var/lib/cloud/instance/user-data.txt": "x",
    "/var/log/cloud-init.log": "x",
    "/var/lib/hyperv/.kvp_pool_1": "x" * 2560,
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/var/log/waagent.log.1": "x",
    "/var/log/azure/Contoso/x.log": "x",
    "/etc/udev/rules.d/70-persistent-net.rules": "x",
}


@pytest.fixture(scope="module", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, overlay, loop device")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"]
    subprocess.run([*keygen, str(path)], check=True, timeout=30)
    return path


@pytest.fixture
def vm(tmp_path: Path, key: Path) -> Iterator[Machine]:
    """A VM that was provisioned, has been used, and is about to become an image."""
    public = key.with_suffix(".pub").read_text().strip()
    order = Order(user_name="packer", public_keys=(public,), custom_data=b"hello")
    dvd = write_dvd(tmp_path / "boot.iso", ovf_env(order))
    options = "Provisioning.DeleteRootPassword=y\n"
    with Machine(tmp_path, dvd=dvd, files={"/etc/waagent/conf.d/t.conf": options}) as machine:
        machine.fabric.wait_ready(PATIENCE_S)
        machine.wait_states(["provisioner"], "DONE")
        for path, text in LEFT_BEHIND.items():
            machine.write(path, text.encode())
        yield machine


def verified(vm: Machine) -> list[str]:
    done = vm.run(["waagent", "-deprovision", "--verify", "--json"])
    found = [item["path"] for item in json.loads(done.stdout)["leftovers"]]
    assert done.status == (1 if found else 0)
    return found


def test_packer_s_last_line_in_a_session_of_that_very_user(vm: Machine, key: Path) -> None:
    plan = vm.run(["waagent", "-deprovision+user", "--plan", "--json"], check=True)
    before = verified(vm)
    assert "/var/lib/waagent/ovf-env.xml" in before and "/etc/ssh/ssh_host_rsa_key" in before
    assert vm.exists("/home/packer/.ssh/authorized_keys")

    session = vm.ssh("packer", key, f"sudo sh -c '{PACKER}' && echo the session lives")

    assert (session.status, session.stdout) == (0, "the session lives\n"), session.stderr
    assert verified(vm) == []
    steps = json.loads(plan.stdout)["steps"]
    for step in steps:
        if step["action"] == "remove":
            assert not vm.exists(step["target"]), step
    targets = {step["target"] for step in steps}
    assert {path for path in before if path.startswith("/etc/ssh")} <= targets
    assert vm.run(["id", "packer"]).status != 0 and not vm.exists("/home/packer")
    assert not vm.exists("/etc/sudoers.d/waagent")
    assert vm.read("/etc/hostname") == "localhost.localdomain\n"
    assert vm.read("/etc/machine-id") == ""
    assert vm.run(["ls", "-A", "/var/lib/waagent"]).stdout == ""
    assert vm.run(["getent", "shadow", "root"]).stdout.startswith("root:*LOCK*:")
    assert vm.run(["sshd", "-t"]).status in (0, 1, 127, 255)


def test_afterwards_the_daemon_provisions_nothing_until_the_next_boot(vm: Machine) -> None:
    vm.run(["waagent", "-deprovision+user", "-force"], check=True)

    vm.run(["rm", "/run/waagent/state"], check=True)  # it says that this boot's work is done
    vm.order("start-agent")
    vm.wait_states(["provisioner"], "DONE")

    assert vm.worker("provisioner")["result"] == "deprovisioned, until the next boot"
    assert vm.run(["id", "packer"]).status != 0
    vm.order("stop-agent")
    vm.run(["sh", "-c", "rm -r /run/waagent"], check=True)  # a boot empties /run
    vm.order("start-agent")
    vm.wait_ps(lambda table: table["provisioned"], PATIENCE_S, "the next VM provisioned")
    assert vm.exists("/home/packer/.ssh/authorized_keys")


@pytest.mark.parametrize("words", [[], ["-verbose"]])
def test_without_a_terminal_and_without_force_nothing_is_done(
    vm: Machine, words: list[str]
) -> None:
    before = vm.run(["sh", "-c", "find /etc /var/lib /home /root -type f | sort"]).stdout

    done = vm.run(["waagent", "-deprovision+user", *words])

    assert done.status == 1 and "needs -force" in done.stderr
    asked = vm.run(["script", "-qec", "waagent -deprovision+user", "/dev/null"], stdin=b"n\n")
    assert asked.status == 1
    assert "WARNING! the account packer and its entire home directory will be" in asked.stdout
    assert vm.run(["sh", "-c", "find /etc /var/lib /home /root -type f | sort"]).stdout == before
    assert vm.run(["waagent", "-deprovision", "-force", "-nosuch"]).status == 1
    assert vm.run(["waagent", "-deprovision", "-force", "--plan"]).status == 0
    assert vm.exists("/etc/ssh/ssh_host_rsa_key") and vm.worker("provisioner")


def test_from_inside_an_extension_s_command(
    vm: Machine, tmp_path: Path, a_zip: Callable[[str], dict[str, Any]]
) -> None:
    script = f'{{ {PACKER}; }} > /root/said 2>&1; echo "exit $?" >> /root/said'
    vm.fabric.set_extensions([a_zip(script)])

    for _ in range(600):
        if vm.exists("/root/said") and "exit" in vm.read("/root/said"):
            break
        vm.run(["sleep", "0.1"])

    assert vm.read("/root/said").splitlines()[-1] == "exit 0"
    assert vm.run(["id", "packer"]).status != 0
    vm.run(["sleep", "1"])
    assert [path for path in verified(vm) if not path.startswith("/var/lib/waagent")] == []


@pytest.fixture
def a_zip(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    from waagent.lab.handlers.packages import handler_zip

    def build(script: str) -> dict[str, Any]:
        path = tmp_path / "Contoso.Image.zip"
        path.write_bytes(handler_zip({"enable": script}))
        return {"name": "Contoso.Image", "version": "1.0.0", "package": str(path), "public": {}}

    return build


LEFTOVERS = {
    "etc/ssh/ssh_host_ed25519_key": "x",
    "var/lib/dhcp/dhclient.eth0.leases": "x",
    "var/lib/NetworkManager/internal-1.lease": "x",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "home/al/.ssh/authorized_keys": "ssh-rsa x",
    "home/al/.bash_history": "x",
    "root/.python_history": "x",
    "var/lib/waagent/provisioned": "x",
    "var/log/waagent.log.2.gz": "x",
    "var/lib/cloud/instance/x": "x",
    "etc/sudoers.d/waagent": "al ALL=(ALL) ALL\n",
    "home/al/.ssh/id_rsa": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
    "var/log/azure/Contoso/x.log": "x",
    "etc/resolv.conf": "nameserver 10.0.0.1\n",
}


def test_an_unpacked_image_is_cleaned_below_its_root(tmp_path: Path, vm: Machine) -> None:
    vm.run(["mkdir", "-p", "/image/etc"], check=True)
    vm.write("/image/etc/os-release", b"ID=debian\nVERSION_ID=12\n")
    vm.write("/image/etc/passwd", b"root:x:0:0::/root:/bin/sh\nal:x:1000:1000::/home/al:/bin/sh\n")
    verify = ["waagent", "-deprovision", "--verify", "--root", "/image"]
    assert vm.run(verify).status == 0
    for path, text in LEFTOVERS.items():
        vm.write(f"/image/{path}", text.encode())
    found = vm.run(verify)
    lines = [line.partition(": ")[0] for line in found.stdout.splitlines()]
    top = {"var/lib/cloud/instance/x": "var/lib/cloud/instance"}
    top["var/log/azure/Contoso/x.log"] = "var/log/azure/Contoso"
    assert found.status == 1
    assert sorted(lines) == sorted(f"/image/{top.get(path, path)}" for path in LEFTOVERS)
    plan = vm.run(["waagent", "-deprovision", "--plan", "--root=/image", "--json"])

    vm.run(["waagent", "-deprovision", "-force", "--root", "/image"], check=True)

    left = [line.partition(": ")[0] for line in vm.run(verify).stdout.splitlines()]
    assert left == [
        "/image/etc/sudoers.d/waagent",
        "/image/home/al/.bash_history",
        "/image/home/al/.ssh/authorized_keys",
        "/image/home/al/.ssh/id_rsa",
    ]
    for step in json.loads(plan.stdout)["steps"]:
        assert step["target"].startswith("/image/") or step["action"] == "set host name", step
    assert vm.read("/image/etc/hostname") == "localhost.localdomain\n"
    assert vm.exists("/etc/ssh/ssh_host_rsa_key") and not vm.exists("/run/waagent/deprovisioned")
    assert vm.run(["hostname"]).stdout == "tern-07\n"
