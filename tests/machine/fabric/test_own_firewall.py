"""OS.EnableFirewall: our table beside rules of others, in a real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from waagent.lab.machine import Machine

OPTIONS = "OS.EnableFirewall=y\nOS.EnableFirewallPeriod=5\nProvisioning.Enabled=n\n"
OTHERS = """
table inet customer {
  chain input {
    type filter hook input priority 0; policy accept;
    tcp dport 4444 drop
  }
  chain output {
    type filter hook output priority 0; policy accept;
    ip daddr 192.0.2.1 drop
  }
}
"""
RESTARTS = 20


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Machine]:
    """A machine with rules of a customer's, the agent not started."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, overlay")
    files = {"/etc/waagent/conf.d/t.conf": OPTIONS, "/root/others.nft": OTHERS}
    with Machine(tmp_path, files=files, agent=False) as machine:
        machine.run(["nft", "-f", "/root/others.nft"], check=True)
        yield machine


def ruleset(vm: Machine) -> str:
    return vm.run(["nft", "list", "ruleset"], check=True).stdout


def connects(vm: Machine, user: str | None) -> bool:
    script = "import socket; socket.create_connection(('168.63.129.16', 80), 2)"
    return vm.run(["python3", "-c", script], user=user).status == 0


def test_others_rules_stay_as_they_are_and_only_root_and_the_agent_connect(vm: Machine) -> None:
    before = ruleset(vm)
    vm.order("start-agent")
    vm.fabric.wait_ready(60)
    during = ruleset(vm)
    for _ in range(RESTARTS):
        vm.order("stop-agent")
        vm.order("start-agent")
        vm.wait_states(["environment_monitor", "fabric_client"])

    ours = [line for line in during.splitlines() if line.startswith("table ip waagent")]
    assert len(ours) == 1
    assert ruleset(vm).replace("\n", "").count("table ip waagent") == 1
    assert during.partition("table ip waagent")[0] == before
    assert ruleset(vm) == during
    assert connects(vm, None) and not connects(vm, "nobody")

    # somebody flushes everything: it comes back in the next period
    vm.run(["nft", "delete", "table", "ip", "waagent"], check=True)
    vm.wait_ps(lambda table: "table ip waagent" in ruleset(vm), 30, "our table again")

    vm.order("stop-agent")
    vm.write("/etc/waagent/conf.d/t.conf", OPTIONS.replace("=y", "=n", 1).encode())
    vm.order("start-agent")
    vm.wait_states(["environment_monitor"])
    assert ruleset(vm) == before
    assert not vm.exists("/var/lib/waagent/firewall")
