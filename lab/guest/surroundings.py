"""The platform's side of a guest: PID 1 of namespaces without a way out. Cable, DHCP, fabric, QEMU.

Told on standard input, one word a line: `boot` starts the emulator, `cut` kills it as a power cut
does; the end of input ends everything. Each word is answered by one line on standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from waagent.lab.fabric import control
from waagent.lab.fabric.fabric import Fabric
from waagent.lab.guest import emulator
from waagent.lab.guest.image import Image
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


def main() -> int:
    """Serve the guest described by the JSON in the one argument."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    folder = Path(order["folder"])
    _make_network()
    _start_dnsmasq(folder)
    with Fabric(ENDPOINT, folder=folder / "tenant", scheme="http", also=(METADATA, STORAGE)) as it:
        control.serve(it, folder / "fabric")
        print("up", flush=True)
        _obey(emulator.command(Image(Path(order["image"])), folder, Path(order["dvd"])), folder)
    return 0


def _obey(argv: list[str], folder: Path) -> None:
    machine: subprocess.Popen[bytes] | None = None
    try:
        for line in sys.stdin:
            if machine is not None:
                machine.kill()
                machine.wait()
            if line.strip() == "boot":
                with open(folder / "qemu.log", "ab") as log:
                    machine = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
            print(line.strip(), flush=True)
    finally:
        if machine is not None:
            machine.kill()
            machine.wait()


def _make_network() -> None:
    run_tool(["ip", "link", "set", "lo", "up"])
    for address in (ENDPOINT, METADATA, STORAGE):
        run_tool(["ip", "address", "add", f"{address}/32", "dev", "lo"])
    run_tool(["ip", "tuntap", "add", "dev", "tap0", "mode", "tap"])
    run_tool(["ip", "address", "add", f"{GATEWAY}/24", "dev", "tap0"])
    run_tool(["ip", "link", "set", "tap0", "up"])


def _start_dnsmasq(folder: Path) -> None:
    """DHCP as the platform's: router, names, classless routes, and option 245 to everybody."""
    routes = ",".join(f"{to},{GATEWAY}" for to in ("0.0.0.0/0", f"{ENDPOINT}/32", f"{METADATA}/32"))
    argv = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--user=root",
        "--group=root",
        "--pid-file=",
        "--interface=tap0",
        f"--listen-address={ENDPOINT}",
        "--bind-interfaces",
        "--no-ping",
        "--dhcp-authoritative",
        f"--dhcp-range={VM},{VM},255.255.255.0,1h",
        f"--dhcp-host={MAC},{VM}",
        f"--dhcp-leasefile={folder}/leases",
        f"--dhcp-option=3,{GATEWAY}",
        f"--dhcp-option=6,{ENDPOINT}",
        f"--dhcp-option-force=121,{routes}",
        "--dhcp-option-force=245,a8:3f:81:10",
        "--no-resolv",
        "--no-hosts",
        f"--address=/{STORAGE_NAME}/{STORAGE}",
    ]
    with open(folder / "dnsmasq.log", "wb") as log:
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


if __name__ == "__main__":
    sys.exit(main())
