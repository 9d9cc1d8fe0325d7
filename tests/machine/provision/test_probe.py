"""Claims about the probe responder in a VM: behind its fence, following the goal state and the VM's
address.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from waagent.lab.machine import Machine, addresses

AVm = Callable[..., Machine]
DISABLED = {"Provisioning.Enabled": "n"}
FLOOD = """
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
idle = [socket.create_connection((address, port), timeout=60) for _ in range(300)]
callers = [socket.create_connection((address, port), timeout=60) for _ in range(300)]
for caller in callers:
    caller.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(sum(caller.recv(4096).endswith(b"OK") for caller in callers))
"""


def wait_probe(
    vm: Machine, address: str, port: int, answered: bool, within_s: float = 90.0
) -> None:
    end = time.monotonic() + within_s
    while vm.fabric.probe(address, port).endswith("OK") is not answered:
        assert time.monotonic() < end, (
            f"{address}:{port} answered is not {answered}: {vm.trouble()}"
        )
        time.sleep(0.2)


def test_ports_and_address_are_followed_and_hundreds_are_answered_at_once(a_vm: AVm) -> None:
    vm = a_vm(None, options=DISABLED)
    wait_probe(vm, vm.address, 16001, True)

    assert vm.run(["python3", "-c", FLOOD, vm.address, "16001"]).stdout == "300\n"

    vm.fabric.goal_state(probe_ports=[16001, 8085])
    wait_probe(vm, vm.address, 8085, True)
    pid = vm.pid_of("probe_responder")
    vm.fabric.goal_state(probe_ports=[8085])
    wait_probe(vm, vm.address, 16001, False)
    assert vm.pid_of("probe_responder") == pid

    other = vm.address.rpartition(".")[0] + ".77"
    vm.run(["ip", "addr", "add", f"{other}/24", "dev", "eth0"], check=True)
    vm.run(
        ["ip", "route", "replace", "default", "via", addresses.GATEWAY, "src", other], check=True
    )
    wait_probe(vm, other, 8085, True)
    assert vm.pid_of("probe_responder") == pid

    vm.fabric.goal_state(probe_ports=[])
    wait_probe(vm, other, 8085, False)
    vm.wait_states(["probe_responder"], "IDLE")


def test_switched_off_it_does_not_run(a_vm: AVm) -> None:
    vm = a_vm(None, options={**DISABLED, "LBProbeResponder": "n"})
    vm.fabric.wait_ready(90)

    assert vm.worker("probe_responder")["state"] == "OFF"
    with pytest.raises((AssertionError, OSError)):
        wait_probe(vm, vm.address, 16001, True, within_s=2.0)


def test_it_listens_on_the_primary_address_only(a_vm: AVm) -> None:
    vm = a_vm(None, options=DISABLED)
    wait_probe(vm, vm.address, 16001, True)

    local = vm.run(
        ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 16001), 2)"]
    )

    assert "ConnectionRefusedError" in local.stderr
