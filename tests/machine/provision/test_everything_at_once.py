"""One boot DVD that asks for everything, and passwords of every kind of hash, by a real sshd and a
real client.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from waagent.lab.machine import Machine
from waagent.lab.ovf import Order

AVm = Callable[..., Machine]
Insert = Callable[[Machine, Order], None]
PATIENCE_S = 120.0
PASSWORD = 'it\'s "quoted" & <ü> ]]> \\ $HOME `id`'
SCRIPT = b"#!/bin/sh\necho ran >> /root/custom; echo to the log\n"


@pytest.fixture
def second_key(tmp_path: Path) -> Path:
    path = tmp_path / "second"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", str(path)], check=True)
    return path


def thumbprint_of(vm: Machine) -> str:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        names = vm.run(["sh", "-c", "ls /var/lib/waagent"]).stdout.split()
        found = [name[:-4] for name in names if name.endswith(".prv")]
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError("no certificate came: " + vm.trouble())


def test_a_disc_that_asks_for_everything_gets_it(
    a_vm: AVm, insert_disc: Insert, key: Path, second_key: Path
) -> None:
    vm = a_vm(
        None,
        options={"Provisioning.DecodeCustomData": "y", "Provisioning.ExecuteCustomData": "y"},
        files={"/var/lib/hyperv/.kvp_pool_1": ""},
    )
    thumbprint = thumbprint_of(vm)
    lines = tuple(path.with_suffix(".pub").read_text().strip() for path in (key, second_key))
    elsewhere = "/etc/ssh/keys/harbor"
    vm.write(
        "/etc/ssh/sshd_config",
        vm.read("/etc/ssh/sshd_config").encode()
        + f"\nAuthorizedKeysFile .ssh/authorized_keys {elsewhere}\n".encode(),
    )
    vm.run(["sh", "-c", "kill -HUP $(cat /run/sshd.pid)"], check=True)

    insert_disc(
        vm,
        Order(
            host_name="harbor-01",
            user_name="harbor",
            password=PASSWORD,
            disable_password_authentication=False,
            public_keys=lines,
            key_paths=("$HOME/harbor/.ssh/authorized_keys", elsewhere),
            key_pairs=((thumbprint, "/home/harbor/.ssh/id_rsa"),),
            custom_data=SCRIPT,
        ),
    )
    vm.fabric.wait_ready(PATIENCE_S)

    for private in (key, second_key):
        assert vm.ssh("harbor", private, "id -un").stdout == "harbor\n"
    assert vm.ssh_by_password("harbor", PASSWORD, "id -un").stdout == "harbor\n"
    assert vm.ssh_by_password("harbor", "wrong", "true").status == 255
    assert lines[1] not in vm.read("/home/harbor/.ssh/authorized_keys")
    assert vm.read(elsewhere) == lines[1] + "\n"
    sudo = vm.ssh("harbor", key, "sudo -S id -u")
    assert sudo.status != 0  # asked for the password, which nobody types
    pair = ["/home/harbor/.ssh/id_rsa", "/home/harbor/.ssh/id_rsa.pub"]
    modes = vm.run(["stat", "-c", "%a %U", *pair]).stdout.splitlines()
    assert modes == ["600 harbor", "644 harbor"]
    derived = vm.ssh("harbor", key, "ssh-keygen -y -f .ssh/id_rsa").stdout.split()[:2]
    assert derived == vm.read(pair[1]).split()[:2]
    assert vm.read("/root/custom") == "ran\n"
    assert "stdout='to the log'" in vm.read("/var/log/waagent.log")
    assert "result=success|agent=waagent/" in vm.read("/var/lib/hyperv/.kvp_pool_1")
    fingerprint = vm.run(
        ["ssh-keygen", "-E", "md5", "-lf", "/etc/ssh/ssh_host_rsa_key.pub"], check=True
    ).stdout.split()[1]
    told = vm.fabric.wait_for(lambda fabric: fabric.properties, PATIENCE_S, "the fingerprint")
    assert told[-1]["CertificateThumbprint"] == fingerprint.replace("MD5:", "").replace(":", "")


def test_a_password_is_refused_where_it_is_disabled_and_sudo_asks_nobody_with_a_key(
    a_vm: AVm, key: Path, public: str
) -> None:
    vm = a_vm(Order(user_name="harbor", password=PASSWORD, public_keys=(public,)))
    vm.fabric.wait_ready(PATIENCE_S)
    assert vm.ssh("harbor", key, "id -un").stdout == "harbor\n"
    assert vm.ssh_by_password("harbor", PASSWORD, "true").status == 255

    other = a_vm(Order(user_name="harbor", public_keys=(public,)))
    other.fabric.wait_ready(PATIENCE_S)
    assert other.ssh("harbor", key, "sudo -n true").status == 0


def test_every_hash_logs_in_or_is_refused_by_name(a_vm: AVm) -> None:
    """One machine, since only the hash differs: each is set as provisioning sets it."""
    vm = a_vm(
        Order(user_name="harbor", password="first", disable_password_authentication=False),
        options={"Provisioning.PasswordCryptId": "5"},
    )
    vm.fabric.wait_ready(PATIENCE_S)
    assert vm.ssh_by_password("harbor", "first", "id -un").stdout == "harbor\n"

    for crypt_id in ("1", "2a", "5", "6"):
        for length in (1, 10, 16):
            password = f"{PASSWORD} {crypt_id} {length}"
            made = vm.run(
                ["/usr/lib/waagent/bin/python", "-c", HASHER, crypt_id, str(length)],
                stdin=password.encode(),
            )
            assert made.status == 0, made.stderr
            hashed = made.stdout.strip()
            assert hashed.startswith(f"${crypt_id}$")
            vm.run(["chpasswd", "-e"], stdin=f"harbor:{hashed}\n".encode(), check=True)
            who = vm.ssh_by_password("harbor", password, "id -un")
            assert who.stdout == "harbor\n", (crypt_id, length, who.stderr)


HASHER = """
import sys
from waagent.protocol.base.secret import Secret
from waagent.workers.provisioner.passwords import hash_password
print(hash_password(Secret(sys.stdin.read()), sys.argv[1], int(sys.argv[2])))
"""
