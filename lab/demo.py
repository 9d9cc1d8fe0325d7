"""One VM's life, told for a newcomer: created, booted, provisioned, extended, hurt, healed. Every
line is something that was seen.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from waagent.lab.dvd import write_dvd
from waagent.lab.fabric.values import LabError
from waagent.lab.fabric.watching import NotSeen
from waagent.lab.handlers import packages
from waagent.lab.machine.machine import Machine
from waagent.lab.ovf import Order, ovf_env
from waagent.lab.tools import cache

USER, HOST, HANDLER, PORT = "azureuser", "tern-07", "Contoso.Lab.Hello", 16001
READY_S, EXTENSION_S, RECOVERY_S, HANG_S = 90.0, 60.0, 20.0, 75.0
PROBE_PERIOD_S, ENOUGH_PROBES = 0.25, 20
WIDTH, SHOWN_LINES = 80, 10


class Story:
    """Prints the story. Invariant: numbered chapters, details indented below them, nothing wider
    than a terminal.
    """

    def __init__(self) -> None:
        self._chapter = 0
        self._begin = time.monotonic()

    def chapter(self, text: str) -> None:
        self._chapter += 1
        print(f"{self._chapter:2} {text}"[:WIDTH], flush=True)

    def detail(self, text: str) -> None:
        print(f"   {text}"[:WIDTH], flush=True)

    def shown(self, text: str) -> None:
        """Output of a command, as it is."""
        for line in text.rstrip().splitlines()[:SHOWN_LINES]:
            print(line[:WIDTH], flush=True)

    def seconds(self) -> float:
        return time.monotonic() - self._begin


def run() -> int:
    """Tell it; 0 when all of it happened."""
    story = Story()
    print("An emulated Azure and one VM, in namespaces of this machine; outside of")
    print(".venv and .cache of this clone nothing is changed.")
    with tempfile.TemporaryDirectory(prefix="demo-", dir=cache()) as folder:
        try:
            _tell(story, Path(folder))
        except (NotSeen, LabError, subprocess.TimeoutExpired) as error:
            print(f"demo failed: {error}", file=sys.stderr)
            return 1
    story.chapter(f"the VM is gone, nothing of it is left; all this took {story.seconds():.0f} s")
    return 0


def _tell(story: Story, folder: Path) -> None:
    key = folder / "id_ed25519"
    public = _make_key(key)
    dvd = write_dvd(folder / "boot.iso", ovf_env(Order(HOST, USER, (public,))))
    story.chapter(f"a customer orders VM {HOST} with user {USER} and an SSH key;")
    story.detail(
        f"the platform writes that on a boot DVD ({dvd.stat().st_size // 1024} KiB, ovf-env.xml)"
    )
    with Machine(folder, dvd=dvd, host_name="localhost", say=story.detail) as vm:
        started = time.monotonic()
        try:
            _first_boot(story, vm, started)
            _log_in(story, vm, key)
            _extension(story, vm)
            _probe(story, vm)
            _hurt(story, vm)
        except NotSeen:
            print(vm.trouble(), file=sys.stderr)
            raise


def _make_key(path: Path) -> str:
    """Write a new private key to ``path``; its public half as an OpenSSH line."""
    key = Ed25519PrivateKey.generate()
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return (
        key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        + " customer@home"
    )


def _first_boot(story: Story, vm: Machine, started: float) -> None:
    story.chapter(f"the VM boots: {vm.address} by DHCP with nothing but a default route;")
    story.detail("init starts `waagent -daemon`, which starts its workers")
    ready = vm.fabric.wait_ready(READY_S)
    seconds = time.monotonic() - started
    discovered = (vm.folder / "dnsmasq.log").read_text(errors="replace").count("DHCPDISCOVER")
    endpoint = _log_line(vm, r" environment_monitor\[.*168\.63\.129\.16")
    _require(discovered >= 2, f"the agent's own DHCPDISCOVER was not seen ({discovered} in all)")
    story.chapter("environment_monitor asks by DHCP for option 245, the platform's address:")
    story.detail(endpoint)
    story.chapter("provisioner reads the DVD and does what it says:")
    for line in _log_lines(vm, r" provisioner\[.* (read the boot|set host name|created user) "):
        story.detail(line)
    story.chapter(
        f"the platform received {ready['state']} {seconds:.1f} s after the start, and the SSH host"
        " key:"
    )
    name, value = vm.fabric.wait_for(
        lambda fabric: next(iter(_properties(fabric)), None), 10.0, "role properties"
    )
    story.detail(f"role properties: {name}={value}")
    host_key = _fingerprint(vm)
    _require(value in host_key, f"the fingerprint {value} is of no host key of the VM: {host_key}")


def _properties(fabric: Any) -> Iterable[tuple[str, str]]:
    return [item for properties in fabric.properties for item in properties.items()]


def _fingerprint(vm: Machine) -> list[str]:
    """The fingerprints of the VM's host keys in the platform's form: MD5, no colons."""
    script = "for file in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -E md5 -lf $file; done"
    return [
        line.split()[1].removeprefix("MD5:").replace(":", "")
        for line in vm.run(["sh", "-c", script], check=True).stdout.splitlines()
    ]


def _log_in(story: Story, vm: Machine, key: Path) -> None:
    done = vm.ssh(USER, key, "id -un; hostname; sudo -n true && echo may sudo")
    _require(
        done.stdout.split("\n")[:3] == [USER, HOST, "may sudo"],
        f"ssh said {done.stdout!r} {done.stderr!r}",
    )
    story.chapter(f"the customer logs in: ssh {USER}@{vm.address} 'id -un; hostname; sudo -n true'")
    story.detail(f"{USER} on {HOST}, sudo without password: ok")


def _extension(story: Story, vm: Machine) -> None:
    package = vm.folder / "hello.zip"
    package.write_bytes(packages.hello())
    story.chapter(f"the customer adds extension {HANDLER} (settings partly encrypted):")
    vm.fabric.set_extensions(
        [
            {
                "name": HANDLER,
                "version": "1.0.0",
                "package": str(package),
                "public": {"greeting": "Hello"},
                "protected": {"to": "Ada"},
            }
        ]
    )
    status = vm.fabric.wait_extension(HANDLER, "success", EXTENSION_S)
    _require("Hello, Ada!" in status["formattedMessage"]["message"], f"its status says {status}")
    logs = vm.run(
        ["sh", "-c", f"grep -rhF 'Hello, Ada!' /var/log/azure/{HANDLER} | tail -n 1"]
    ).stdout.strip()
    story.detail(f"its stdout, secret decrypted with the certificate: {logs}")
    story.detail(
        f"its status in the blob: {status['status']}: {status['formattedMessage']['message']}"
    )


def _probe(story: Story, vm: Machine) -> None:
    answer = vm.fabric.wait_for(
        lambda fabric: fabric.probe(vm.address, PORT), 15.0, "the probe's answer"
    )
    story.chapter(f"the load balancer probes port {PORT}: {answer.splitlines()[0]}")
    vm.fabric.start_probing(vm.address, PORT, PROBE_PERIOD_S)


def _hurt(story: Story, vm: Machine) -> None:
    names = [row["name"] for row in vm.ps()["workers"] if row["state"] == "READY"]
    _require(len(names) >= 4, f"not all resident workers are READY: {names}")
    story.chapter("waagent-ps now:")
    story.shown(vm.run(["waagent-ps"]).stdout)
    story.chapter("the same in ps -ef | grep waagent:")
    listed = vm.run(["ps", "-ef"]).stdout.splitlines()
    story.shown("\n".join(line for line in listed if "waagent" in line))
    before = _pids(vm, names)
    story.chapter(
        f"kill -9 of all {len(names)} resident workers at once; waagent-ps the moment after:"
    )
    vm.run(["kill", "-9", *map(str, before.values())], check=True)
    begin = time.monotonic()
    story.shown(_rows(vm, names))
    _wait_replaced(vm, names, before, RECOVERY_S)
    seconds = time.monotonic() - begin
    vm.fabric.wait_for(
        lambda fabric: fabric.probing()["answered"] >= ENOUGH_PROBES, 20.0, "answers to probes"
    )
    story.detail(f"all READY again with new pids after {seconds:.1f} s; {_probes(vm)}")
    _stop_all(story, vm, names)


def _stop_all(story: Story, vm: Machine, names: list[str]) -> None:
    before = _pids(vm, names)
    vm.fabric.start_probing(vm.address, PORT, PROBE_PERIOD_S)
    story.chapter("SIGSTOP of all of them at once: no exit, no word, the hardest to notice;")
    vm.run(["kill", "-STOP", *map(str, before.values())], check=True)
    begin = time.monotonic()
    others = [name for name in names if name != "probe_responder"]
    vm.wait_ps(
        lambda table: _replaced(table, ["probe_responder"], before), 40.0, "a new probe_responder"
    )
    story.detail(
        f"probe_responder (beat limit 12 s) was replaced after {time.monotonic() - begin:.0f} s:"
    )
    vm.fabric.start_probing(vm.address, PORT, PROBE_PERIOD_S)
    story.shown(_rows(vm, names))
    _wait_replaced(vm, others, before, HANG_S)
    replaced_at = time.monotonic()
    story.detail(
        f"the others (limit 35 s) after {replaced_at - begin:.0f} s; meanwhile {_probes(vm)}"
    )
    probes = vm.fabric.probing()
    _require(
        probes["answered"] >= ENOUGH_PROBES and probes["failed"] == 0,
        f"probes during the others' absence: {probes}",
    )
    vm.wait_ps(
        lambda table: table["platform"]["last_status_s"] < time.monotonic() - replaced_at,
        30.0,
        "a status of the new fabric_client",
    )
    story.chapter("waagent-ps after all that:")
    story.shown(vm.run(["waagent-ps"]).stdout)


def _pids(vm: Machine, names: list[str]) -> dict[str, int]:
    return {row["name"]: int(row["pid"]) for row in vm.ps()["workers"] if row["name"] in names}


def _rows(vm: Machine, names: list[str]) -> str:
    """The workers' rows of waagent-ps."""
    lines = vm.run(["waagent-ps"]).stdout.splitlines()
    return "\n".join(line for line in lines if line.startswith(tuple(names)))


def _replaced(table: dict[str, Any], names: list[str], before: dict[str, int]) -> bool:
    rows = {row["name"]: row for row in table["workers"]}
    return all(
        rows[name]["state"] == "READY" and rows[name]["pid"] != before[name] for name in names
    )


def _wait_replaced(
    vm: Machine, names: list[str], before: dict[str, int], deadline_s: float
) -> None:
    vm.wait_ps(
        lambda table: _replaced(table, names, before),
        deadline_s,
        f"{' '.join(names)} replaced and READY",
    )


def _probes(vm: Machine) -> str:
    probes = vm.fabric.probing()
    return f"{probes['answered']} of {probes['answered'] + probes['failed']} probes answered"


def _log_lines(vm: Machine, pattern: str) -> list[str]:
    """Lines of the agent's log that match, without their time."""
    found = [
        line for line in vm.read("/var/log/waagent.log").splitlines() if re.search(pattern, line)
    ]
    return [re.sub(r"^\S+ [A-Z]+ ", "", line) for line in found]


def _log_line(vm: Machine, pattern: str) -> str:
    return next(iter(_log_lines(vm, pattern)), "(its log line was not found)")


def _require(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise NotSeen(otherwise)
