"""Claims about boot DVDs that are broken or odd: each ends in Ready or in a reason, and no secret of
any of them is where others could read it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from waagent.lab.machine import Machine
from waagent.lab.ovf import Order, ovf_env

AVm = Callable[..., Machine]
WaitFailed = Callable[[Machine, str], None]
Insert = Callable[[Machine, Order], None]
PATIENCE_S = 120.0
SECRET = "Zq7#secret"
PASSWORDS = (f"'{SECRET}\"`$(id)\\", f"first\n{SECRET}\nthird", f"{SECRET}]]>ü€")
FULL = ovf_env(Order(password=SECRET, disable_password_authentication=False))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"order": None}, "No DVD device detected"),
        ({"order": Order(), "variant": "empty"}, "cannot be read"),
        ({"order": Order(), "variant": "damaged"}, "cannot be read"),
        ({"document": FULL[:-40]}, "not well-formed"),
        ({"document": b""}, "the document is empty"),
        ({"document": FULL.replace(b"ProvisioningSection", b"OtherSection")}, "no Provisioning"),
        ({"document": FULL.replace(b"<UserName>azureuser</UserName>", b"")}, "UserName is missing"),
    ],
)
def test_a_broken_disc_ends_in_a_reason(
    a_vm: AVm, wait_failed: WaitFailed, more: dict[str, Any], says: str
) -> None:
    vm = a_vm(more.pop("order", None), **more)

    wait_failed(vm, says)

    assert not vm.exists("/var/lib/waagent/provisioned")
    assert where_is(vm, SECRET) == []


@pytest.mark.parametrize(("variant", "with_settings"), [("udf_only", True), ("iso_only", False)])
def test_an_odd_disc_ends_in_ready(
    a_vm: AVm, public: str, variant: str, with_settings: bool
) -> None:
    order = Order(public_keys=(public,), with_platform_settings=with_settings)
    vm = a_vm(order, variant=variant)

    vm.fabric.wait_ready(PATIENCE_S)

    assert vm.exists("/home/azureuser/.ssh/authorized_keys")


def test_of_two_discs_the_one_for_us_is_taken(a_vm: AVm, public: str, insert_disc: Insert) -> None:
    vm = a_vm(Order(), variant="without_ovf", agent=False)
    insert_disc(vm, Order(user_name="second", public_keys=(public,)))

    vm.order("start-agent")
    vm.fabric.wait_ready(PATIENCE_S)

    assert vm.exists("/home/second")


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_secret_is_nowhere_but_in_shadow(a_vm: AVm, password: str) -> None:
    vm = a_vm(
        Order(
            user_name="harbor",
            password=password,
            disable_password_authentication=False,
            custom_data=f"#!/bin/sh\n# {SECRET}\nsleep 1\n".encode(),
        ),
        agent=False,
        options={"Logs.Verbose": "y", "Provisioning.ExecuteCustomData": "y"},
    )
    vm.write("/root/secret", f"{SECRET}\n".encode(), 0o600)
    watcher = vm.popen(["sh", "-c", WATCH], stdout=subprocess.PIPE)
    vm.order("start-agent")
    vm.fabric.wait_ready(PATIENCE_S)
    vm.write("/root/stop", b"")
    said = watcher.communicate(timeout=60)[0].decode()

    assert "looked" in said and "leak" not in said
    assert set(where_is(vm, SECRET)) <= {"/root/secret", "/var/lib/waagent/CustomData"}
    assert vm.run(["stat", "-c", "%a", "/var/lib/waagent/CustomData"]).stdout == "700\n"
    if "\n" not in password:
        assert vm.ssh_by_password("harbor", password, "id -un").stdout == "harbor\n"


# looks at every process's words and environment until it is told to stop
WATCH = """
while [ ! -e /root/stop ]; do
    for file in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do
        grep -qaf /root/secret "$file" 2>/dev/null && echo "leak $file"
    done
    echo looked
done
"""


def where_is(vm: Machine, secret: str) -> list[str]:
    """The files written since the machine began that hold ``secret``."""
    vm.write("/root/secret", f"{secret}\n".encode(), 0o600)
    folders = ["/var/lib/waagent", "/var/log", "/run/waagent", "/tmp", "/etc", "/home", "/root"]
    found = vm.run(["grep", "-rlaf", "/root/secret", *folders], timeout_s=200).stdout.splitlines()
    return [path for path in found if path != "/root/secret"]
