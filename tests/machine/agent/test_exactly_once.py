"""Issue: an operation runs once, to its end, whoever is killed meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from waagent.lab.machine import Machine

SECONDS = 20


@pytest.mark.parametrize("status", [0, 7])
def test_enable_survives_two_rounds_of_kill_9(
    vm: Machine, a_handler: Callable[..., dict[str, Any]], status: int
) -> None:
    name = f"Contoso.Slow{status}"
    # the kills may take longer than SECONDS on a machine that others use
    go = f"/var/tmp/go{status}"
    waits = f"sleep {SECONDS}; while [ ! -e {go} ]; do sleep 0.2; done"
    script = (
        f"echo $$ >> /var/tmp/ran{status}; {waits}; echo out of order >&2; [ {status} = 0 ] &&"
        f" succeed finished; exit {status}"
    )
    vm.fabric.set_extensions([a_handler(name, script)])
    pid = _first_line(vm, f"/var/tmp/ran{status}")
    begun = _start_of(vm, pid)

    for _ in range(2):
        for victim in ("supervisor", "extension_runner", "fabric_client", "zygote"):
            vm.wait_states(["extension_runner", "fabric_client"])
            _kill(vm, victim)
            time.sleep(0.5)
        assert _start_of(vm, pid) == begun, "another process than the one that began"
    vm.write(go, b"")

    if status == 0:
        assert vm.fabric.wait_extension(name)["formattedMessage"]["message"] == "finished"
    else:
        report = vm.fabric.wait_extension(name, "error")
        assert "Non-zero exit code: 7" in report["formattedMessage"]["message"]
        assert report["code"] == 1009
    assert vm.read(f"/var/tmp/ran{status}").split() == [pid]


def _kill(vm: Machine, victim: str) -> None:
    if victim == "zygote":
        supervisor = vm.pid_of("supervisor")
        vm.run(["pkill", "-9", "-P", str(supervisor), "-f", "waagent: zygote"], check=True)
        return
    vm.run(["kill", "-9", str(vm.pid_of(victim))], check=True)


def _first_line(vm: Machine, path: str) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done = vm.run(["cat", path])
        if done.stdout.strip():
            return done.stdout.split()[0]
        time.sleep(0.2)
    raise AssertionError(f"{path} was not written\n{vm.trouble()}")


def _start_of(vm: Machine, pid: str) -> str:
    return vm.run(["sh", "-c", f"cut -d' ' -f22 /proc/{pid}/stat"], check=True).stdout.strip()
