"""`waagent-ps extensions --all`, `stop NAME` and `reset NAME`, as an operator uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from waagent.lab.handlers import packages
from waagent.lab.machine import Machine

NAME = "Contoso.Ordered"


def wanted(folder: Path, script: str, name: str = NAME) -> dict[str, Any]:
    path = folder / f"{name}.zip"
    path.write_bytes(packages.handler_zip({"enable": script}))
    return {"name": name, "version": "1.0.0", "package": str(path), "public": {"a": "b"}}


def rows(vm: Machine, name: str = NAME) -> list[dict[str, Any]]:
    said = json.loads(vm.run(["waagent-ps", "--json"]).stdout)
    return [row for row in said["operations"] if row["handler"] == name]


def test_stop_ends_the_whole_tree_and_is_reported(vm: Machine, tmp_path: Path) -> None:
    hang = "trap '' TERM; echo $$ > /root/hang; setsid sleep 4711 & while :; do sleep 1000; done"
    vm.fabric.set_extensions([wanted(tmp_path, hang)])
    vm.wait_ps(
        lambda table: any(
            row["handler"] == NAME and row["operation"] == "enable" and row["state"] == "running"
            for row in table["operations"]
        ),
        60,
        "the hanging command",
    )

    refused = vm.run(["waagent-ps", "extensions", "stop", NAME], user="nobody")
    done = vm.run(["waagent-ps", "extensions", "stop", NAME.lower()])

    assert (refused.status, done.status) == (4, 0), (refused, done)
    assert done.stdout.startswith(f"stopped enable of {NAME} 1.0.0, pid ")
    status = vm.fabric.wait_extension(NAME, "error", 30)
    assert "Stopped by an operator" in status["formattedMessage"]["message"]
    assert vm.run(["pgrep", "-f", "sleep 4711"]).stdout == ""
    again = vm.run(["waagent-ps", "extensions", "stop", NAME])
    assert again.status == 2 and f"nothing of {NAME} runs" in again.stderr
    assert vm.run(["waagent-ps", "extensions", "stop", "No.Such"]).status == 2


def test_reset_tries_again_in_the_same_goal_state(vm: Machine, tmp_path: Path) -> None:
    name = "Contoso.Repaired"
    script = "echo ran >> /root/repaired; [ -e /root/fixed ] || exit 3; report success 0 fine"
    vm.fabric.set_extensions([wanted(tmp_path, script, name)])
    vm.fabric.wait_extension(name, "error", 60)
    vm.run(["touch", "/root/fixed"], check=True)

    done = vm.run(["waagent-ps", "extensions", "reset", name])

    assert done.status == 0, done
    vm.fabric.wait_extension(name, "success", 60)
    assert vm.read("/root/repaired") == "ran\nran\n"
    every = vm.run(["waagent-ps", "extensions", "--all", "--wide"]).stdout
    lines = [line for line in every.splitlines() if name in line]
    assert [line.split()[3] for line in lines] == ["enable", "install"], every
    last = vm.run(["waagent-ps", "extensions", "--wide"]).stdout
    assert sum(name in line for line in last.splitlines()) == 1
    assert vm.run(["waagent-ps", "extensions", "reset", "No.Such"]).status == 2
