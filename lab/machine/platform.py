"""The platform's side of a machine: PID 1 of the outer namespaces. DHCP server, fabric, storage,
and the VM started beside it.

Order: make the network, start dnsmasq and the fabric, start the
VM's init in namespaces of its own, hand it `eth0`, tell the keeper's caller that it is up. Ends
when the VM's init ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

from waagent.lab.fabric import control
from waagent.lab.fabric.fabric import Fabric
from waagent.lab.fabric.values import TLS_PORT
from waagent.lab.machine import loop, overlay
from waagent.lab.machine.addresses import (
    ENDPOINT,
    GATEWAY,
    MAC,
    METADATA,
    STORAGE,
    STORAGE_NAME,
    VM,
)
from waagent.lab.tools import run_tool

INIT = Path(__file__).with_name("init.py")


def main() -> int:
    """Run the platform described by the JSON in the one argument until the VM ends."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    overlay.mount("proc", "proc", "/proc")
    stage = Path(order["folder"]) / "stage"
    overlay.tmpfs(stage)
    lowers = [Path(path) for path in order["layers"]]
    _make_network()
    tools = _tools_root(stage, lowers)
    _start_dnsmasq(tools, order)
    authority = ""
    if order["fabric"]:
        fabric = Fabric(
            ENDPOINT,
            folder=stage / "tenant",
            scheme=order["scheme"],
            also=(METADATA, STORAGE),
            tls=(STORAGE, TLS_PORT),
        )
        control.serve(fabric, Path(order["folder"]) / "fabric")
        authority = fabric.authority.certificate.read_text(encoding="ascii")
    disc = loop.bind(Path(order["dvd"]), stage) if order["dvd"] else None
    root = stage / "root"
    overlay.mount_root(root, lowers, stage / "vm")
    device = disc.device if disc is not None else 0
    vm = {**order, "root": str(root), "dvd_device": device, "authority": authority}
    init = _start_vm(vm)
    assert init.stdout is not None and init.stdin is not None
    _expect(init.stdout, "hello")
    run_tool(["ip", "link", "set", "eth0", "netns", str(init.pid)])
    init.stdin.write(b"go\n")
    init.stdin.flush()
    facts = _expect(init.stdout, "ready")
    print(json.dumps({"ready": True, "tools": str(tools), **facts, "address": VM}), flush=True)
    return init.wait()


def _make_network() -> None:
    """The platform's addresses on lo, and the cable to the VM."""
    run_tool(["ip", "link", "set", "lo", "up"])
    for address in (ENDPOINT, METADATA, STORAGE):
        run_tool(["ip", "address", "add", f"{address}/32", "dev", "lo"])
    run_tool(
        ["ip", "link", "add", "fabric0", "type", "veth", "peer", "name", "eth0", "address", MAC]
    )
    run_tool(["ip", "address", "add", f"{GATEWAY}/24", "dev", "fabric0"])
    run_tool(["ip", "link", "set", "fabric0", "up"])


def _tools_root(stage: Path, lowers: list[Path]) -> Path:
    """A read-only view of the prepared layers for the platform's own tools (dnsmasq, ssh)."""
    root = stage / "tools"
    overlay.mount_root(root, lowers, None)
    overlay.make_dev(root / "dev")
    overlay.mount("proc", "proc", root / "proc")
    for name in ("tmp", "run"):
        overlay.tmpfs(root / name, "mode=1777")
    return root


def _start_dnsmasq(tools: Path, order: dict[str, Any]) -> None:
    """DHCP and names for the VM: only a default route, no classless ones; option 245 to everybody,
    asked for or not.
    """
    if not order["dhcp"]:
        return
    argv = [
        "chroot",
        str(tools),
        "/usr/sbin/dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--user=root",
        "--pid-file=",
        "--interface=fabric0",
        f"--listen-address={ENDPOINT}",
        "--bind-interfaces",
        "--no-ping",
        "--dhcp-authoritative",
        "--log-dhcp",
        "--log-facility=-",
        "--dhcp-range=10.4.0.4,10.4.0.30,255.255.255.0,24h",
        f"--dhcp-host={MAC},{VM}",
        "--dhcp-leasefile=/tmp/leases",
        f"--dhcp-option=3,{GATEWAY}",
        f"--dhcp-option=6,{ENDPOINT}",
        "--no-resolv",
        "--no-hosts",
        f"--address=/{STORAGE_NAME}/{STORAGE}",
    ]
    if order["option_245"]:
        argv.append("--dhcp-option-force=245,a8:3f:81:10")
    with open(Path(order["folder"]) / "dnsmasq.log", "wb") as log:
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _start_vm(vm: dict[str, Any]) -> subprocess.Popen[bytes]:
    namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup"]
    argv = [
        "unshare",
        *namespaces,
        "--fork",
        "--kill-child",
        "--propagation",
        "private",
        sys.executable,
        "-I",
        "-S",
        str(INIT),
    ]
    words = str(Path(vm["folder"]) / "order.json")
    Path(words).write_text(json.dumps(vm), encoding="utf-8")

    def join() -> None:
        for folder in vm["cgroups"]:
            with open(f"{folder}/cgroup.procs", "wb", buffering=0) as stream:
                stream.write(b"0")

    console = open(Path(vm["folder"]) / "console", "wb")
    return subprocess.Popen(
        [*argv, words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=console,
        preexec_fn=join,
        env={"PATH": os.environ["PATH"]},
    )


def _expect(stream: BinaryIO | Any, word: str) -> dict[str, Any]:
    line = stream.readline()
    said: dict[str, Any] = json.loads(line) if line else {}
    if said.get("said") != word:
        raise SystemExit(f"the VM's init said {line!r}, not {word}; see its console")
    return said


if __name__ == "__main__":
    sys.exit(main())
