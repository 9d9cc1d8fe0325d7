"""Claims about first boots that went wrong on real images, as the VM's user sees them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.machine import Machine
from waagent.lab.ovf import Order

AVm = Callable[..., Machine]
WaitFailed = Callable[[Machine, str], None]
PATIENCE_S = 120.0
INCLUDE = "Include /etc/ssh/sshd_config.d/*.conf\n"
# as openSUSE builds it: without a file of the administrator's, sshd reads the vendor's
VENDOR_SSHD = """#!/bin/sh
case " $* " in *" -f "*) ;; *) [ -e /etc/ssh/sshd_config ] || set -- -f /usr/etc/ssh/sshd_config "$@";; esac
exec /usr/sbin/sshd.real "$@"
"""


def effective(vm: Machine, option: str, *arguments: str) -> str:
    lines = vm.run(["/usr/sbin/sshd", "-T", *arguments], check=True).stdout.splitlines()
    return next(line.split()[1] for line in lines if line.split()[0] == option)


def log_of(vm: Machine) -> str:
    return vm.read("/var/log/waagent.log")


def an_unprovisioned_vm(a_vm: AVm, order: Order, **more: Any) -> Machine:
    return a_vm(order, agent=False, **more)


def provision(vm: Machine) -> None:
    vm.order("start-agent")
    vm.fabric.wait_ready(PATIENCE_S)


def test_a_configuration_of_the_vendor_s_is_honoured_by_a_drop_in(a_vm: AVm, public: str) -> None:
    vm = an_unprovisioned_vm(a_vm, Order(public_keys=(public,)))
    vm.write("/usr/etc/ssh/sshd_config", f"{INCLUDE}PasswordAuthentication yes\n".encode())
    vm.run(["rm", "-r", "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"], check=True)
    vm.run(["mv", "/usr/sbin/sshd", "/usr/sbin/sshd.real"], check=True)
    vm.write("/usr/sbin/sshd", VENDOR_SSHD.encode(), 0o755)
    assert effective(vm, "passwordauthentication") == "yes"

    provision(vm)

    assert effective(vm, "passwordauthentication") == "no"
    assert not vm.exists("/etc/ssh/sshd_config")
    assert "sshd is configured file=/etc/ssh/sshd_config.d/10-waagent.conf" in log_of(vm)


@pytest.mark.parametrize(
    ("main", "drop_in", "file"),
    [
        (f"{INCLUDE}PasswordAuthentication yes\n", "", "/etc/ssh/sshd_config.d/10-waagent.conf"),
        (INCLUDE, "PasswordAuthentication yes\n", "/etc/ssh/sshd_config.d/00-waagent.conf"),
        ("Port 22\nMatch User x\n  PasswordAuthentication yes\n", "", "/etc/ssh/sshd_config"),
        (f"PasswordAuthentication yes\n{INCLUDE}", "", "/etc/ssh/sshd_config"),
    ],
)
def test_a_key_only_login_takes_effect_wherever_the_option_is_set(
    a_vm: AVm, public: str, main: str, drop_in: str, file: str
) -> None:
    vm = an_unprovisioned_vm(a_vm, Order(public_keys=(public,)))
    vm.write("/etc/ssh/sshd_config", main.encode())
    if drop_in:
        vm.write("/etc/ssh/sshd_config.d/05-image.conf", drop_in.encode())

    provision(vm)

    who = "user=azureuser,host=h,addr=10.0.0.1"
    assert effective(vm, "passwordauthentication", "-C", who) == "no"
    assert "PasswordAuthentication no" in vm.read(file)
    assert vm.run(["/usr/sbin/sshd", "-t"]).status == 0


def test_a_broken_configuration_is_told_and_left_as_it_is(a_vm: AVm, public: str) -> None:
    vm = an_unprovisioned_vm(a_vm, Order(public_keys=(public,)), sshd=False)
    vm.write("/etc/ssh/sshd_config", b"PasswordAuthentikation no\n")

    provision(vm)

    assert vm.read("/etc/ssh/sshd_config") == "PasswordAuthentikation no\n"
    assert "sshd refuses its configuration, it is left alone" in log_of(vm)
    assert "sshd is configured" not in log_of(vm)


def test_a_match_block_for_the_user_wins_and_is_named(a_vm: AVm, public: str) -> None:
    vm = an_unprovisioned_vm(a_vm, Order(public_keys=(public,)))
    vm.write("/etc/ssh/sshd_config", b"Match User azureuser\n  PasswordAuthentication yes\n")

    provision(vm)

    log = log_of(vm)
    assert "PasswordAuthentication no is not honoured, sshd says yes: /etc/ssh/sshd_config:" in log


def test_a_later_edit_of_the_main_file_wins_at_the_next_start(a_vm: AVm, public: str) -> None:
    vm = a_vm(Order(public_keys=(public,)))
    vm.fabric.wait_ready(PATIENCE_S)
    assert effective(vm, "passwordauthentication") == "no"
    vm.order("stop-agent")
    vm.run(["rm", "/run/waagent/state"], check=True)  # as after a reboot
    main = vm.read("/etc/ssh/sshd_config")
    vm.write("/etc/ssh/sshd_config", f"{main}PasswordAuthentication yes\n".encode())

    vm.order("start-agent")
    vm.wait_states(["provisioner"], "DONE")

    assert effective(vm, "passwordauthentication") == "yes"
    assert "sshd: PasswordAuthentication was set by others since" in log_of(vm)


def test_several_and_wrapped_keys_in_one_value_all_let_in(
    a_vm: AVm, public: str, key: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", str(second)], check=True, timeout=60
    )
    kind, blob, comment = second.with_suffix(".pub").read_text().split()
    lines = "\n".join(blob[at : at + 64] for at in range(0, len(blob), 64))
    vm = a_vm(Order(user_name="harbor", public_keys=(f"{public}\n{kind} {lines} {comment}", "x")))
    vm.fabric.wait_ready(PATIENCE_S)

    for private in (key, second):
        assert vm.ssh("harbor", private, "id -un").stdout == "harbor\n"
    assert "a public key is not deployed: 'x' is no public key" in log_of(vm)


def test_without_any_way_to_log_in_it_is_refused(a_vm: AVm, wait_failed: WaitFailed) -> None:
    vm = a_vm(Order(user_name="harbor", public_keys=("ssh-rsa AAAAB3",)))

    wait_failed(vm, "nobody could log in: 'ssh-rsa AAAAB3' is no public key in OpenSSH's form")

    assert vm.run(["id", "harbor"]).status != 0


@pytest.mark.parametrize("name", ["20231", "web.01", "w" * 64, "Web-01.", "10.0.0.4"])
def test_host_names_of_the_platform_are_set_and_resolve(a_vm: AVm, public: str, name: str) -> None:
    vm = a_vm(Order(host_name=name, public_keys=(public,)))
    vm.fabric.wait_ready(PATIENCE_S)

    assert vm.run(["hostname"]).stdout.strip() == name.rstrip(".")
    assert vm.run(["getent", "ahosts", name.rstrip(".")]).status == 0
    done = vm.run(["sudo", "-n", "id", "-u"], user="azureuser")
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_host_name_that_cannot_be_is_a_warning(a_vm: AVm, public: str) -> None:
    vm = a_vm(Order(host_name="a_b;reboot", public_keys=(public,)))
    vm.fabric.wait_ready(PATIENCE_S)

    assert vm.run(["hostname"]).stdout == "localhost\n"
    assert "the host name is not set, it stays localhost: host name has other" in log_of(vm)


CLOUD_INIT = {
    "/usr/bin/cloud-init": "#!/bin/sh\nexit 0\n",
    "/usr/local/bin/service": '#!/bin/sh\n[ "$1 $2" = "cloud-init status" ]\n',
    "/usr/local/bin/systemctl": '#!/bin/sh\n[ "$1" = is-enabled ] && echo enabled\n',
}


@pytest.mark.parametrize(
    "options",
    [
        {"Provisioning.Enabled": "n", "Provisioning.UseCloudInit": "y"},
        {"Provisioning.Enabled": "n"},
        {"Provisioning.UseCloudInit": "y"},
    ],
)
def test_cloud_init_is_waited_for(a_vm: AVm, options: dict[str, str]) -> None:
    conf = "".join(f"{name}={value}\n" for name, value in options.items())
    vm = an_unprovisioned_vm(a_vm, Order())
    vm.write("/etc/waagent/conf.d/test.conf", conf.encode())
    for path, text in CLOUD_INIT.items():
        vm.write(path, text.encode(), 0o755)
    vm.run(["sh", "-c", "rm -f /etc/ssh/ssh_host_*"], check=True)

    vm.order("start-agent")
    vm.wait_ps(
        lambda table: any("waiting for cloud-init" in row["doing"] for row in table["workers"]),
        PATIENCE_S,
        "waiting for cloud-init",
    )
    assert not vm.exists("/var/lib/waagent/provisioned") and not vm.fabric.health

    vm.write("/var/lib/waagent/ovf-env.xml", b"<Environment/>")
    vm.run(["ssh-keygen", "-A"], check=True)
    vm.wait_states(["provisioner"], "DONE", PATIENCE_S)
    assert vm.exists("/var/lib/waagent/provisioned")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (b"#!/bin/sh\r\necho hello\r\n", "its lines end with CR LF as on Windows"),
        (b"#!/usr/bin/nosuch\n", "its interpreter /usr/bin/nosuch is not installed"),
        (b"#!/bin/sh\necho gone >&2; exit 7\n", "Non-zero exit code: 7"),
    ],
)
def test_custom_data_that_fails_is_a_warning_with_cause_and_remedy(
    a_vm: AVm, public: str, script: bytes, says: str
) -> None:
    vm = a_vm(
        Order(public_keys=(public,), custom_data=script),
        options={"Provisioning.ExecuteCustomData": "y"},
    )
    vm.fabric.wait_ready(PATIENCE_S)
    vm.wait_states(["provisioner"], "DONE")

    line = next(line for line in log_of(vm).splitlines() if "custom data failed" in line)
    assert " WARNING " in line and says in line
    assert "try it on this VM with: sudo /var/lib/waagent/CustomData" in line


def test_what_failed_is_told_twice_and_to_scripts_and_extensions_go_on(a_vm: AVm) -> None:
    vm = a_vm(
        Order(user_name="ALL"),
        options={"Provisioning.TimeLimit": "8"},
        files={"/var/lib/hyperv/.kvp_pool_1": ""},
    )
    waited = vm.run(["waagent-ps", "--wait", "provisioned", "--timeout", "60"])

    assert waited.status == 1 and "'ALL' means every user in sudoers" in waited.stderr
    vm.wait_states(["provisioner"], "DONE")
    assert "result=error|" in vm.read("/var/lib/hyperv/.kvp_pool_1")
    assert "'ALL' means every user" in vm.read("/run/waagent/provisioning_failed")
    end = time.monotonic() + PATIENCE_S
    while not [item for item in vm.fabric.health if item["substatus"] == "ProvisioningFailed"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert vm.run(["waagent-ps", "--wait", "provisioned"]).status == 1
