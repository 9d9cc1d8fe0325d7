"""Claims about a host name on its way to the platform's DNS, with a real dhclient and a real DHCP
server that answers, or does not.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from waagent.lab.machine import Machine
from waagent.lab.ovf import Order

AVm = Callable[..., Machine]
PATIENCE_S = 120.0
CLIENT = ["dhclient", "-4", "-pf", "/run/dhclient.eth0.pid", "-lf", "/var/lib/dhcp/l", "-1", "eth0"]
# one connection to the platform that lives as long as it is told to
CONNECTION = """
exec 3<>/dev/tcp/168.63.129.16/80
echo open > /root/connection
until [ -e /root/finish ]; do sleep 0.1; done
printf 'GET /?comp=versions HTTP/1.0\\r\\n\\r\\n' >&3
head -1 <&3 > /root/connection
"""


@pytest.fixture
def vm(a_vm: AVm, public: str) -> Iterator[Machine]:
    machine = a_vm(
        Order(host_name="first-name", public_keys=(public,)),
        agent=False,
        options={"Provisioning.MonitorHostNamePeriod": "5"},
    )
    machine.run(["sh", "-c", "pkill -9 udhcpc; mkdir -p /var/lib/dhcp; rm -f /etc/resolv.conf"])
    machine.run(CLIENT, check=True)
    yield machine
    for pid in dnsmasq(machine):
        os.kill(pid, signal.SIGCONT)


def dnsmasq(vm: Machine) -> list[int]:
    """Pids of this machine's DHCP server, as the host counts them."""
    space = os.readlink(f"/proc/{vm.platform}/ns/net")
    found = []
    for name in os.listdir("/proc"):
        try:
            if os.readlink(f"/proc/{name}/ns/net") == space:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"dnsmasq"):
                    found.append(int(name))
        except (OSError, ValueError):
            continue
    return found


def log_has(vm: Machine, text: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while text not in vm.run(["cat", "/var/log/waagent.log"]).stdout:
        assert time.monotonic() < end, vm.trouble()
        time.sleep(0.2)


def network_of(vm: Machine) -> tuple[str, str, str]:
    address = vm.run(["ip", "-4", "-o", "addr", "show", "dev", "eth0"]).stdout.split()[3]
    return address, vm.run(["ip", "-4", "route"]).stdout, vm.read("/etc/resolv.conf")


def test_the_name_reaches_the_dns_after_provisioning_and_after_a_change(vm: Machine) -> None:
    vm.order("start-agent")
    log_has(vm, "the host name first-name is published")
    before = network_of(vm)

    vm.run(["hostname", "second-name"], check=True)
    log_has(vm, "the host name second-name is published")

    served = (vm.folder / "dnsmasq.log").read_text()
    assert "client provides name: first-name" in served
    assert "client provides name: second-name" in served
    assert vm.read("/var/lib/waagent/published_hostname") == "second-name"
    assert network_of(vm) == before


def test_a_server_that_drops_the_renewal_costs_nothing(vm: Machine) -> None:
    vm.order("start-agent")
    log_has(vm, "the host name first-name is published")
    connection = vm.popen(["bash", "-c", CONNECTION])
    end = time.monotonic() + PATIENCE_S
    while not vm.exists("/root/connection"):
        assert time.monotonic() < end
        time.sleep(0.1)
    before = network_of(vm)
    for pid in dnsmasq(vm):
        os.kill(pid, signal.SIGSTOP)

    vm.run(["hostname", "third-name"], check=True)
    log_has(vm, "the host name third-name is not published: dhclient did not renew the lease")

    assert network_of(vm) == before
    assert vm.read("/var/lib/waagent/published_hostname") == "first-name"
    vm.write("/root/finish", b"")
    assert connection.wait(60) == 0
    assert vm.read("/root/connection").startswith("HTTP/1.")
    assert vm.run(["pgrep", "-x", "dhclient"]).status == 0
