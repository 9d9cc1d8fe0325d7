"""A whole VM whose firewall lets only root connect to the platform, as operators and other agents
set it up.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.handlers.packages import hello
from waagent.lab.machine import Machine
from waagent.lab.ovf import Order, ovf_env

PATIENCE_S = 120.0
WAAGENT_UID = 64510
NFT = """
table ip lab {
    chain output {
        type filter hook output priority 0;
        ip daddr 168.63.129.16 meta skuid != 0 %s
    }
}
"""


def by_route(vm: Machine) -> None:
    """Without netfilter: the kernel finds that uid no route."""
    vm.run(
        ["ip", "rule", "add", "uidrange", f"{WAAGENT_UID}-{WAAGENT_UID}", "prohibit"], check=True
    )


def by_reject(vm: Machine) -> None:
    vm.run(["nft", "-f", "-"], stdin=(NFT % "reject with tcp reset").encode(), check=True)


def by_drop(vm: Machine) -> None:
    vm.run(["nft", "-f", "-"], stdin=(NFT % "drop").encode(), check=True)


@pytest.mark.parametrize("firewall", [by_route, by_reject, by_drop])
def test_where_only_root_may_connect_connections_are_handed_over(
    tmp_path: Path, firewall: Callable[[Machine], None]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, overlay, loop device")
    dvd = write_dvd(
        tmp_path / "boot.iso", ovf_env(Order(user_name="harbor", password="x-Y-7-long"))
    )
    with Machine(tmp_path, dvd=dvd, agent=False) as vm:
        firewall(vm)
        package = tmp_path / "hello.zip"
        package.write_bytes(hello())
        wanted = {"name": "Contoso.Hello", "version": "1.0.0", "package": str(package)}
        vm.fabric.set_extensions(
            [{**wanted, "public": {"greeting": "Hi"}, "protected": {"to": "x"}}]
        )

        vm.order("start-agent")

        vm.fabric.wait_ready(PATIENCE_S)
        vm.fabric.wait_for(
            lambda fabric: "Hi, x" in str(fabric.statuses[-1:]), PATIENCE_S, "the extension"
        )
        assert vm.worker("fabric_client")["uid"] == WAAGENT_UID
        way = "platform reached through environment_monitor (firewall)"
        vm.fabric.wait_for(  # facts travel with the next heartbeat
            lambda fabric: way in vm.run(["waagent-ps"]).stdout, PATIENCE_S, "the way, shown"
        )
        assert "as uid 0" not in vm.read("/var/log/waagent.log")

        stored = len(vm.fabric.statuses)
        vm.run(["kill", "-9", str(vm.pid_of("environment_monitor"))], check=True)
        vm.fabric.wait_for(
            lambda fabric: len(fabric.statuses) > stored + 2, PATIENCE_S, "statuses after a kill"
        )
        as_waagent = ["setpriv", "--reuid", "waagent", "--groups", "waagent-bus", "python3", "-c"]
        for prefix in (as_waagent, ["python3", "-c"]):
            assert vm.run([*prefix, STRANGER]).stdout == "nothing\n"


STRANGER = """
import socket
asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asked.settimeout(10)
asked.connect("/run/waagent/bus/connect")
try:
    asked.send(b"\\x82\\xa4type\\xa7connect\\xa2to\\xaawireserver")
    packet, descriptors, _, _ = socket.recv_fds(asked, 512, 4)
except (ConnectionResetError, BrokenPipeError):
    packet, descriptors = b"", []
print("nothing" if not packet and not descriptors else (packet, descriptors))
"""
