"""Claims about a VM's first boot that differ from the usual one, as its user and the platform see
them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from passlib.hash import sha512_crypt

from waagent.lab.machine import Machine
from waagent.lab.ovf import Order

AVm = Callable[..., Machine]
Insert = Callable[[Machine, Order], None]
WaitFailed = Callable[[Machine, str], None]
PASSWORD = "Str0ng & <l0ng> ü"
PATIENCE_S = 120.0
WALK_S = 300.0  # many folders, on a disk that others use


def shadow_of(vm: Machine, user: str) -> str:
    return vm.run(["getent", "shadow", user], check=True).stdout.split(":")[1]


def sshd_says(vm: Machine, option: str) -> str:
    lines = vm.run(["/usr/sbin/sshd", "-T"], check=True).stdout.splitlines()
    return next(line.split()[1] for line in lines if line.split()[0] == option)


def test_a_user_with_a_password_may_log_in_by_it_and_is_asked_by_sudo(a_vm: AVm) -> None:
    begun_at = int(time.time())
    vm = a_vm(Order(user_name="harbor", password=PASSWORD, disable_password_authentication=False))
    vm.fabric.wait_ready(PATIENCE_S)

    assert sha512_crypt.verify(PASSWORD, shadow_of(vm, "harbor"))
    assert vm.read("/etc/sudoers.d/waagent") == "harbor ALL=(ALL) ALL\n"
    assert sshd_says(vm, "passwordauthentication") == "yes"
    for path in (
        "/var/log/waagent.log",
        "/var/lib/waagent/ovf-env.xml",
        "/var/log/agent-console.log",
    ):
        assert "Str0ng" not in vm.read(path), path
    # the host's /var may be large
    written = [
        "find",
        "/var",
        "/run",
        "/tmp",
        "/etc",
        "/home",
        "-type",
        "f",
        "-newerct",
        f"@{begun_at}",
    ]
    assert "/etc/shadow\n" in vm.run(written, timeout_s=WALK_S).stdout
    assert (
        vm.run([*written, "-exec", "grep", "-l", "Str0ng", "{}", "+"], timeout_s=WALK_S).stdout
        == ""
    )


def test_a_user_with_a_key_only_has_no_password_and_sshd_refuses_passwords(
    a_vm: AVm, public: str, key: Path
) -> None:
    vm = a_vm(
        Order(
            user_name="harbor", public_keys=(public, public), disable_password_authentication=None
        )
    )
    vm.fabric.wait_ready(PATIENCE_S)

    assert shadow_of(vm, "harbor") == "*"
    assert sshd_says(vm, "passwordauthentication") == "no"
    assert sshd_says(vm, "kbdinteractiveauthentication") == "no"
    assert vm.read("/home/harbor/.ssh/authorized_keys") == public + "\n"
    files = ["/home/harbor/.ssh", "/home/harbor/.ssh/authorized_keys", "/etc/sudoers.d/waagent"]
    assert vm.run(["stat", "-c", "%a %U", *files]).stdout.splitlines() == [
        "700 harbor",
        "600 harbor",
        "440 root",
    ]
    assert vm.ssh("harbor", key, "sudo -n id -u").stdout == "0\n"
    others_are_nobody(vm)
    assert vm.read("/etc/hostname") == "tern-07\n"


def test_a_key_may_come_as_a_certificate_and_the_disc_late(
    a_vm: AVm,
    tmp_path: Path,
    insert_disc: Insert,
    wait_failed: WaitFailed,
) -> None:
    vm = a_vm(None)
    wait_failed(vm, "No DVD device detected")
    thumbprint = wait_certificate(vm)

    insert_disc(vm, Order(user_name="harbor", fingerprints=(thumbprint,)))
    vm.fabric.wait_ready(PATIENCE_S)

    private = tmp_path / "from_certificate"
    private.write_text(vm.read(f"/var/lib/waagent/{thumbprint}.prv"))
    private.chmod(0o600)
    assert vm.ssh("harbor", private, "id -un").stdout == "harbor\n"


def wait_certificate(vm: Machine) -> str:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        names = vm.run(["sh", "-c", "ls /var/lib/waagent"]).stdout.split()
        found = [name[:-4] for name in names if name.endswith(".prv")]
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError("no certificate came: " + vm.trouble())


def test_custom_data_is_executed_once_though_the_provisioner_is_killed_meanwhile(
    a_vm: AVm, public: str
) -> None:
    script = (
        b"#!/bin/sh\necho begun >> /root/custom\nwhile [ ! -e /root/go ]; do sleep 0.2; done\necho"
        b" ended >> /root/custom\n"
    )
    vm = a_vm(
        Order(public_keys=(public,), custom_data=script),
        options={"Provisioning.ExecuteCustomData": "y"},
    )
    wait_for(vm, "custom data", lambda: vm.exists("/root/custom"))

    vm.run(["kill", "-9", str(vm.pid_of("provisioner"))], check=True)
    vm.write("/root/go", b"")
    vm.fabric.wait_ready(PATIENCE_S)
    wait_for(vm, "its end", lambda: vm.read("/root/custom").endswith("ended\n"))
    vm.wait_states(["provisioner"], "DONE")

    assert vm.read("/root/custom") == "begun\nended\n"
    assert vm.run(["stat", "-c", "%a", "/var/lib/waagent/CustomData"]).stdout == "700\n"

    vm.order("stop-agent")
    vm.run(["rm", "/run/waagent/state"], check=True)  # as after a reboot
    vm.order("start-agent")
    vm.wait_states(["provisioner"], "DONE")
    assert vm.read("/var/log/waagent.log").count("custom data was executed: success") == 1


def test_custom_data_that_is_binary_is_kept_as_it_is(a_vm: AVm, public: str) -> None:
    vm = a_vm(
        Order(public_keys=(public,), custom_data=b"\x1f\x8b\xff\0binary"),
        options={"Provisioning.DecodeCustomData": "y"},
    )
    vm.fabric.wait_ready(PATIENCE_S)

    assert vm.run(["od", "-An", "-tx1", "/var/lib/waagent/CustomData"]).stdout.split()[:4] == [
        "1f",
        "8b",
        "ff",
        "00",
    ]
    assert vm.run(["stat", "-c", "%a", "/var/lib/waagent/CustomData"]).stdout == "600\n"


def wait_for(vm: Machine, what: str, is_true: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < end, f"{what} did not come: {vm.trouble()}"
        time.sleep(0.05)


KILLER = """
: provisioner-killer
echo watching
for pause_s in 0 0.1 0.2 0.3 0.4 0.5; do
    until pid=$(pgrep -x provisioner); do sleep 0.01; done
    sleep $pause_s
    kill -9 $pid && echo $pid
done
"""


def test_killed_again_and_again_it_comes_to_the_same_result(
    a_vm: AVm, public: str, key: Path
) -> None:
    vm = a_vm(Order(user_name="harbor", public_keys=(public,)), agent=False)
    killer = vm.popen(["sh", "-c", KILLER], stdout=subprocess.PIPE)
    assert killer.stdout is not None and killer.stdout.readline() == b"watching\n"

    vm.order("start-agent")
    vm.fabric.wait_ready(PATIENCE_S)
    vm.run(["pkill", "-f", "[p]rovisioner-killer"])
    kills = len(killer.communicate()[0].split())

    print(f"the provisioner was killed {kills} times")
    assert kills > 0
    assert vm.read("/home/harbor/.ssh/authorized_keys") == public + "\n"
    assert vm.read("/etc/sudoers.d/waagent") == "harbor ALL=(ALL) NOPASSWD: ALL\n"
    assert vm.run(["grep", "-c", "^harbor:", "/etc/passwd"]).stdout == "1\n"
    assert vm.ssh("harbor", key, "sudo -n id -u").stdout == "0\n"
    assert not [
        name for name in vm.run(["ls", "-A", "/etc/ssh"]).stdout.split() if name.startswith(".")
    ]


def test_a_useless_disc_is_told_to_the_platform_and_a_good_one_is_taken_later(
    a_vm: AVm, public: str, insert_disc: Insert, wait_failed: WaitFailed
) -> None:
    vm = a_vm(Order(), variant="without_ovf")
    wait_failed(vm, "has no ovf-env.xml")

    insert_disc(vm, Order(public_keys=(public,)))

    vm.fabric.wait_ready(PATIENCE_S)
    assert vm.exists("/home/azureuser/.ssh/authorized_keys")


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (Order(user_name="games"), "'games' is an account of the system"),
        (Order(user_name="root"), "'root' is an account of the system"),
        (Order(preprovisioned=True), "VM of a pool"),
    ],
)
def test_what_must_not_be_done_is_refused_before_anything_is_done(
    a_vm: AVm, wait_failed: WaitFailed, order: Order, says: str
) -> None:
    vm = a_vm(order)

    wait_failed(vm, says)

    assert vm.run(["hostname"]).stdout == "localhost\n"
    assert not vm.exists("/etc/sudoers.d/waagent") and not vm.exists("/var/lib/waagent/provisioned")
    assert shadow_of(vm, "daemon") == "*"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ALL", "user name 'ALL' means every user in sudoers"),
        ("OPS", "user name 'OPS' is read as an alias in sudoers"),
        ("nobody", "user name 'nobody' is whoever has no account"),
        ("waagent", "user name 'waagent' belongs to this agent"),
    ],
)
def test_a_user_name_makes_nobody_else_root(
    a_vm: AVm, wait_failed: WaitFailed, public: str, name: str, says: str
) -> None:
    vm = a_vm(Order(user_name=name, public_keys=(public,)))

    wait_failed(vm, says)

    assert not vm.exists("/etc/sudoers.d/waagent")
    others_are_nobody(vm)


def others_are_nobody(vm: Machine) -> None:
    assert vm.run(["visudo", "-c"]).status == 0
    for other in ("nobody", "waagent", "daemon"):
        assert vm.run(["sudo", "-n", "id", "-u"], user=other).status != 0
        assert "is not allowed" in vm.run(["sudo", "-l", "-U", other]).stdout


def test_disabled_provisioning_says_ready_and_leaves_the_image_alone(
    a_vm: AVm, public: str
) -> None:
    vm = a_vm(Order(public_keys=(public,)), options={"Provisioning.Enabled": "n"})
    vm.fabric.wait_ready(PATIENCE_S)

    assert vm.exists("/var/lib/waagent/provisioned")
    assert not vm.exists("/home/azureuser") and not vm.exists("/etc/sudoers.d/waagent")
    assert [item["state"] for item in vm.fabric.health] == ["Ready"]


def test_a_second_start_needs_no_disc_and_a_copied_disk_only_loses_cached_state(
    a_vm: AVm, public: str
) -> None:
    vm = a_vm(Order(public_keys=(public,)))
    vm.fabric.wait_ready(PATIENCE_S)
    host_key = vm.read("/etc/ssh/ssh_host_rsa_key.pub")
    vm.order("stop-agent")
    vm.order("eject-dvd")
    vm.write("/var/lib/waagent/provisioned", b"00000000-1111-2222-3333-444444444444")
    vm.write("/var/lib/waagent/Incarnation", b"7")
    vm.run(["rm", "/run/waagent/state"], check=True)  # as after a reboot
    before = len(vm.fabric.health)

    vm.order("start-agent")
    vm.fabric.wait_for(
        lambda fabric: fabric.health[before:], PATIENCE_S, "a report after the restart"
    )

    vm.wait_states(["provisioner"], "DONE")
    assert [item["state"] for item in vm.fabric.health[before:]] == ["Ready"]
    assert vm.read("/etc/ssh/ssh_host_rsa_key.pub") == host_key
    if os.path.exists("/sys/class/dmi/id/product_uuid"):
        assert not vm.exists("/var/lib/waagent/Incarnation")
        assert "00000000-1111" not in vm.read("/var/lib/waagent/provisioned")
