"""A handler that never ends and one whose shim is killed: both end terminal, and a third one
notices nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from waagent.lab.machine import Machine

LIMIT_S = 25  # long enough for the third handler to succeed meanwhile on a machine that others use
HANG = (
    "trap '' TERM\nfor n in 1 2 3; do setsid sh -c \"trap '' TERM; echo \\$\\$ >>"
    ' /var/tmp/hang.pids; while :; do sleep 1; done" & done\necho $$ >> /var/tmp/hang.pids; while'
    " :; do sleep 1; done"
)


ORPHAN = (
    "for p in $PPID $(sed -n 's/^PPid:\t//p' /proc/$PPID/status); do\n"
    "  grep -q shim /proc/$p/cmdline && echo $p > /var/tmp/orphan.shim\n"
    "done; sleep 600"
)

WATCH = """
import os, sys, time
pids = sys.argv[1:]
if os.fork():
    os._exit(0)
os.setsid()
while any(os.path.exists(f"/proc/{pid}") for pid in pids):
    time.sleep(0.01)
with open("/var/tmp/hang.gone", "w") as file:
    file.write(str(time.monotonic()))
"""

RECORDS = (
    "cd /var/lib/waagent/operations; for id in *; do grep -qs Contoso.Hang $id/planned.json && cat"
    " $id/started.json; done; true"
)


def test_a_hang_and_a_lost_shim_cost_nobody_else(
    vm: Machine,
    a_handler: Callable[..., dict[str, Any]],
    shown: Callable[[str], None],
) -> None:
    vm.write("/etc/waagent/sandbox.d/Contoso.Hang.conf", f"Timeout.Enable={LIMIT_S}\n".encode())
    vm.fabric.set_extensions(
        [
            a_handler("Contoso.Hang", HANG),
            a_handler("Contoso.Orphan", ORPHAN),
            a_handler("Contoso.Third", "succeed third"),
        ]
    )

    third = vm.fabric.wait_extension("Contoso.Third")
    pids = _lines(vm, "/var/tmp/hang.pids", 4)
    shim = _lines(vm, "/var/tmp/orphan.shim", 1)[0]
    alive_meanwhile = _alive(vm, pids)
    vm.run(["/usr/lib/waagent/bin/python", "-c", WATCH, *pids], check=True)
    enabled_at = max(
        json.loads(line)["at"]
        for line in vm.run(["sh", "-c", RECORDS], check=True).stdout.splitlines()
    )
    vm.run(["kill", "-9", shim], check=True)
    orphan = vm.fabric.wait_extension("Contoso.Orphan", "error")
    hang = vm.fabric.wait_extension("Contoso.Hang", "error")

    # its record is written after the clock began
    late_s = max(float(_lines(vm, "/var/tmp/hang.gone", 1)[0]) - enabled_at - LIMIT_S, 0.0)
    shown(
        f"a hung enable, its setsid children included, was gone {late_s:.2f} s after its"
        " Timeout.Enable"
    )
    assert third["formattedMessage"]["message"] == "third"
    assert alive_meanwhile == pids
    assert _alive(vm, pids) == []
    assert hang["code"] == 1011
    assert f"Timeout({LIMIT_S})" in hang["formattedMessage"]["message"]
    assert orphan["code"] == -1


def _lines(vm: Machine, path: str, count: int) -> list[str]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = vm.run(["cat", path]).stdout.split()
        if len(found) >= count:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{path} has not {count} lines\n{vm.trouble()}")


def _alive(vm: Machine, pids: list[str]) -> list[str]:
    return [pid for pid in pids if vm.run(["kill", "-0", pid]).status == 0]
