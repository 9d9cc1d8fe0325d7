"""Claims about how the WireServer is found, on a network with a real DHCP server."""

from __future__ import annotations

import time
from collections.abc import Callable

from waagent.lab.machine import Machine, addresses

AVm = Callable[..., Machine]
DISABLED = {"Provisioning.Enabled": "n"}


def source_of(vm: Machine) -> str:
    """How the endpoint was found at last, once the platform heard Ready."""
    vm.fabric.wait_ready(90)
    lines = [
        line for line in vm.read("/var/log/waagent.log").splitlines() if "WireServer found" in line
    ]
    return lines[-1].partition("source=")[2]


def test_option_245_wins_and_the_route_table_is_not_touched(a_vm: AVm) -> None:
    vm = a_vm(None, options=DISABLED, agent=False)
    before = vm.run(["ip", "route"]).stdout
    vm.order("start-agent")

    assert source_of(vm) == "dhcp"
    assert vm.run(["ip", "route"]).stdout == before


def test_without_option_245_the_fixed_address_is_taken(a_vm: AVm) -> None:
    vm = a_vm(None, options=DISABLED, option_245=False)

    assert source_of(vm) == "fixed"
    assert "does not say option 245" in vm.read("/var/log/waagent.log")


def test_a_network_that_comes_late_is_found_at_once_also_without_a_dhcp_server(a_vm: AVm) -> None:
    vm = a_vm(None, options=DISABLED, dhcp=False)
    vm.wait_states(["environment_monitor"])
    time.sleep(23)  # several rounds have failed: the next one begins after 37 s

    vm.run(["ip", "addr", "add", f"{vm.address}/24", "dev", "eth0"], check=True)
    vm.run(["ip", "route", "add", "default", "via", addresses.GATEWAY], check=True)
    came_at = time.monotonic()

    assert source_of(vm) == "fixed"
    assert time.monotonic() - came_at < 12  # it did not wait for the next round


def test_static_discovery_asks_nobody(a_vm: AVm) -> None:
    vm = a_vm(None, options={**DISABLED, "Protocol.EndpointDiscovery": "static"})

    assert source_of(vm) == "configured"


def test_a_route_or_a_lease_that_is_there_saves_the_question(a_vm: AVm) -> None:
    lease = 'lease {\n  interface "eth0";\n  option unknown-245 a8:3f:81:10;\n  expire never;\n}\n'
    vm = a_vm(None, options=DISABLED, files={"/var/lib/dhcp/dhclient.eth0.leases": lease})
    assert source_of(vm) == "lease"

    gateway = vm.run(["ip", "route", "show", "default"]).stdout.split()[2]
    vm.run(["ip", "route", "add", "168.63.129.16/32", "via", gateway], check=True)
    vm.run(["waagent-ps", "restart", "environment_monitor"], check=True)

    end = time.monotonic() + 20
    while source_of(vm) != "route" and time.monotonic() < end:
        time.sleep(0.1)
    assert source_of(vm) == "route"
