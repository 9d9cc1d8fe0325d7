"""The progress of a boot on the console."""

from __future__ import annotations

from pathlib import Path

from waagent.lab.machine import Machine


def test_a_failure_of_the_boot_stands_on_the_console_with_its_reason(tmp_path: Path) -> None:
    files = {"/etc/waagent/conf.d/t.conf": "Provisioning.Agent=waagent\n"}
    with Machine(tmp_path, files=files, agent=False) as vm:
        vm.write("/dev/console", b"")
        vm.order("start-agent")
        vm.wait_ps(lambda table: "provisioning failed" in vm.read("/dev/console"), 90, "the line")
        vm.order("stop-agent")
        vm.order("start-agent")
        vm.wait_states(["environment_monitor", "fabric_client"])

        said = vm.read("/dev/console").splitlines()

    print("\n".join(said))
    assert 2 <= len(said) <= 20
    assert all(line.startswith("waagent: 20") for line in said)
    assert any("ERROR" in line and "No DVD device detected" in line for line in said)
