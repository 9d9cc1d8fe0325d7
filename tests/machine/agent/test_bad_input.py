"""Bad input costs one clear line or one report each; nothing is written outside, and every worker
stays READY.
"""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.machine import Machine
from waagent.lab.ovf import Order, ovf_env

RESIDENT = ("environment_monitor", "fabric_client", "probe_responder")
MIB = 1024 * 1024


@pytest.mark.parametrize("kind", ["truncated", "dtd", "huge", "huge_open", "html"])
def test_a_bad_goal_state_is_named_once_and_survived(vm: Machine, kind: str) -> None:
    before = vm.read("/var/log/waagent.log").count("\n")
    pids = {name: vm.pid_of(name) for name in RESIDENT}
    vm.fabric.fault("goal_state", kind)
    vm.fabric.goal_state()

    line = _line_about(vm, before, "goal state")
    vm.fabric.clear_faults()
    incarnation = str(vm.fabric.goal_state())

    vm.wait_ps(
        lambda table: str(table["platform"]["goal_state"]) == incarnation,
        90,
        "the next good goal state",
    )
    assert line
    assert {name: vm.pid_of(name) for name in RESIDENT} == pids
    vm.wait_states(RESIDENT)


@pytest.mark.parametrize("variant", ["without_ovf"])
def test_a_bad_dvd_is_reported_as_failed_provisioning(tmp_path: Path, variant: str) -> None:
    dvd = write_dvd(tmp_path / "boot.iso", ovf_env(Order()), variant)

    with Machine(tmp_path, dvd=dvd) as vm:
        report = vm.fabric.wait_for(
            lambda fabric: next(
                (item for item in fabric.health if item["substatus"] == "ProvisioningFailed"), None
            ),
            120,
            "the failure",
        )
        vm.wait_states(("environment_monitor", "fabric_client"))
        marker = vm.exists("/var/lib/waagent/provisioned")

    assert "sr0" in report["description"] or "DVD" in report["description"]
    assert not marker


def _zip(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "HandlerManifest.json", json.dumps([{"handlerManifest": {"enableCommand": "x"}}])
        )
        for member, content in members:
            archive.writestr(member, content)
    return stream.getvalue()


def _link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info, target.encode()


def _bomb(unpacked_mib: int) -> bytes:
    """An archive of some MiB whose only member unpacks to ``unpacked_mib`` MiB; its header says 1
    byte.
    """
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    data = block * unpacked_mib + b"\x03\x00"
    name = b"zeros"
    local = (
        struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(data), 1, len(name), 0)
        + name
    )
    central = (
        struct.pack(
            "<4sHHHHHHLLLHHHHHLL",
            b"PK\1\2",
            20,
            20,
            0,
            8,
            0,
            0,
            0,
            len(data),
            1,
            len(name),
            0,
            0,
            0,
            0,
            0,
            0,
        )
        + name
    )
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + len(data), 0)
    return local + data + central + end


BAD_ARCHIVES: dict[str, Callable[[], bytes]] = {
    "Dots": lambda: _zip(("../escaped", b"x")),
    "Absolute": lambda: _zip(("/var/tmp/escaped", b"x")),
    "Link": lambda: _zip(_link("out", "/var/tmp"), ("out/escaped", b"x")),
    "Bomb": lambda: _bomb(10 * 1024),
}


def test_bad_archives_are_refused_each_by_itself(
    vm: Machine, tmp_path: Path, a_handler: Callable[..., dict[str, Any]]
) -> None:
    wanted = []
    for name, build in BAD_ARCHIVES.items():
        path = tmp_path / f"{name}.zip"
        path.write_bytes(build())
        wanted.append(
            {"name": f"Contoso.{name}", "version": "1.0.0", "package": str(path), "public": {}}
        )
    vm.fabric.set_extensions([*wanted, a_handler("Contoso.Good", "succeed fine")])

    good = vm.fabric.wait_extension("Contoso.Good", "success")
    reports = {
        name: vm.fabric.wait_extension(f"Contoso.{name}", "error", 120) for name in BAD_ARCHIVES
    }
    escaped = vm.run(
        ["sh", "-c", "ls /var/tmp/escaped /var/lib/waagent/escaped /var/lib/escaped 2>/dev/null"]
    ).stdout
    left = vm.run(["sh", "-c", "du -sm /var/lib/waagent | cut -f1"], check=True).stdout

    assert good["formattedMessage"]["message"] == "fine"
    assert {name: report["code"] for name, report in reports.items()} == dict.fromkeys(
        BAD_ARCHIVES, 1005
    )
    assert escaped == ""
    assert int(left) < 200
    vm.wait_states((*RESIDENT, "extension_runner"))


BAD_STATUS = {
    "Fifo": 'rm -f "status/0.status"; mkfifo "status/0.status"',
    "Shadow": 'ln -sf /etc/shadow "status/0.status"',
    "Huge": 'head -c 52428800 /dev/zero > "status/0.status"',
}


def test_bad_status_files_cost_only_their_own_report(
    vm: Machine, a_handler: Callable[..., dict[str, Any]]
) -> None:
    vm.fabric.set_extensions(
        [
            *(a_handler(f"Contoso.{name}", script) for name, script in BAD_STATUS.items()),
            a_handler("Contoso.Fine", "succeed fine"),
        ]
    )

    fine = vm.fabric.wait_extension("Contoso.Fine", "success")
    reports = {
        name: vm.fabric.wait_extension(f"Contoso.{name}", "error", 120) for name in BAD_STATUS
    }

    assert fine["formattedMessage"]["message"] == "fine"
    assert {name: report["code"] for name, report in reports.items()} == dict.fromkeys(
        BAD_STATUS, 1012
    )
    assert "root:" not in json.dumps(vm.fabric.statuses[-1])
    vm.wait_states((*RESIDENT, "extension_runner"))


def _line_about(vm: Machine, before: int, words: str) -> str:
    """The first line of the log after line ``before`` that warns of ``words``."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        for line in vm.read("/var/log/waagent.log").splitlines()[before:]:
            if words in line.lower() and (" WARNING " in line or " ERROR " in line):
                return line
        time.sleep(0.5)
    raise AssertionError(f"the log says nothing about {words}\n{vm.trouble()}")
