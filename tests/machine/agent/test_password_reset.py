"""A password reset by an extension counts, though provisioning had refused passwords before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from waagent.lab.machine import Machine

PASSWORD = "N3w & better"
# what VMAccess 1.7 does: the password, the main file, cloud-init's drop-in, and a restart of sshd
RESET = f"""
echo 'azureuser:{PASSWORD}' | chpasswd
sed -i '/^PasswordAuthentication/d' /etc/ssh/sshd_config
echo 'PasswordAuthentication yes' >> /etc/ssh/sshd_config
kill -HUP "$(cat /run/sshd.pid)"
succeed reset
"""


def test_a_password_reset_has_effect(vm: Machine, a_handler: Callable[..., dict[str, Any]]) -> None:
    name = "Microsoft.OSTCExtensions.VMAccessForLinux"
    assert vm.ssh_by_password("azureuser", PASSWORD, "true").status == 255

    vm.fabric.set_extensions([a_handler(name, RESET)])
    vm.fabric.wait_extension(name)
    wait_for_line(vm, f"was set by handler={name}")

    assert vm.ssh_by_password("azureuser", PASSWORD, "id -un").stdout == "azureuser\n"
    assert vm.run(["/usr/sbin/sshd", "-t"]).status == 0


def wait_for_line(vm: Machine, text: str) -> None:
    end = time.monotonic() + 60
    while text not in vm.read("/var/log/waagent.log"):
        assert time.monotonic() < end, vm.trouble()
        time.sleep(0.1)
