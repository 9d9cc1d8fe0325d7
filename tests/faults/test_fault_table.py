"""Each fault of the emulated platform x each of its endpoints: what fabric_client did, how long
after the fault it was whole again, and that nothing was lost meanwhile: the newest status, the
newest goal state, a package that was asked for, a report of Ready.

`make faults` runs it and prints the table, a row a cell. FAULT_TARGETS and FAULT_KINDS (words with
commas between them) choose a part of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from waagent.lab.fabric.values import Extension

TARGETS = (
    "versions", "goal_state", "hosting_environment", "shared_config", "extensions_config",
    "certificates", "health", "telemetry", "health_service", "plugin_versions", "plugin_health",
    "vm_settings", "artifact", "status", "storage", "metadata",
)  # fmt: skip
KINDS = (
    "html", "garbage", "dtd", "empty", "truncated", "bom", "redirect", "stale", "short", "huge",
    "huge_open", "drip", "hang", "stall", "delay", "reset", "status:403", "status:404",
    "status:410", "status:429", "status:500", "status:503",
)  # fmt: skip
SECONDS = {"drip": 0.5, "hang": 20.0, "stall": 20.0, "delay": 2.0}
HELD_S, WHOLE_LIMIT_S = 1.5, 90.0
MIB = 1024 * 1024
ROOM = """
import json, os
def main(worker):
    client = worker.bus.client("fabric_client")
    path, done = {path!r}, []
    def look():
        lines = open(path).read().splitlines() if os.path.exists(path) else []
        for line in lines[len(done):]:
            topic, body, deadline_s = json.loads(line)
            done.append(line)
            ask(topic, body, deadline_s)
    def ask(topic, body, deadline_s):
        def answered(answer, error):
            if error and topic.endswith("package"):
                worker.loop.after(1.0, lambda: ask(topic, body, deadline_s))
            else:
                worker.log.info("ANSWER %s", json.dumps([topic, None if answer is None else "well", error]))
        client.ask(topic, body, deadline_s=deadline_s, done=answered)
    worker.loop.every(0.1, look)
    worker.supervisor.ready()
    worker.loop.run()
"""


def chosen(name: str, all_of_them: tuple[str, ...]) -> list[str]:
    wanted = os.environ.get(name)
    return [word for word in all_of_them if wanted is None or word in wanted.split(",")]


class Rooms:
    """extension_runner and provisioner, as far as they ask; orders are appended to a file."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        self._orders: dict[str, Path] = {}
        for name in ("extension_runner", "provisioner"):
            path = stage.root / f"{name}.orders"
            self._orders[name] = path
            stage.supervisor.start(name, code=stage._code(ROOM.format(path=str(path))))

    def order(self, name: str, topic: str, body: dict[str, Any]) -> None:
        with self._orders[name].open("a") as stream:
            stream.write(json.dumps([topic, body, 300.0]) + "\n")


def a_report(number: int) -> dict[str, Any]:
    return {
        "handler": "Contoso.Sample",
        "version": "1.0.0",
        "handler_status": "Ready",
        "handler_code": 0,
        "handler_message": f"report {number}",
        "sequence": 1,
        "status": '{"status": "success"}',
    }


def is_whole(stage: Any, number: int) -> bool:
    """The newest status says the newest report and the newest goal state, and it was carried out."""
    if not stage.fabric.statuses:
        return False
    aggregate = stage.fabric.statuses[-1]["aggregateStatus"]
    outcome = aggregate.get("vmArtifactsAggregateStatus", {}).get("goalStateAggregateStatus", {})
    messages = [
        item.get("formattedMessage", {}).get("message", "")
        for item in aggregate["handlerAggregateStatus"]
    ]
    return (
        outcome.get("code") == 0
        and outcome.get("inSvdSeqNo") == str(stage.fabric.vm.incarnation)
        and f"report {number}" in messages
        and len([line for line in answered(stage) if line == "fabric_client.package"]) >= number
        and bool(stage.fabric.health)
        and len([line for line in answered(stage) if line == "fabric_client.health"]) >= number
    )


def answered(stage: Any) -> list[str]:
    return [
        topic
        for topic in ("fabric_client.package", "fabric_client.health")
        for answer, error in stage.answers(topic)
        if not error or "package" not in topic
    ]


def want_all(stage: Any, rooms: Rooms, number: int) -> None:
    """Something new of each kind, which must not be lost."""
    version = f"1.0.{number}"
    extension = Extension("Contoso.Sample", version, package=os.urandom(20_000))
    stage.fabric.set_extensions([extension])
    rooms.order("extension_runner", "fabric_client.status", a_report(number))
    name = {"name": "Contoso.Sample", "version": version}
    rooms.order("extension_runner", "fabric_client.package", name)
    state = {"state": "NotReady", "substatus": "Provisioning", "description": f"step {number}"}
    rooms.order("provisioner", "fabric_client.health", state)


def what_it_said(stage: Any, before: int) -> str:
    lines = [
        line.partition("] ")[2]
        for line in stage.supervisor.log_text()[before:].splitlines()
        if " WARNING fabric_client" in line
    ]
    return (lines[0] if lines else "nothing: it is asked again or not needed")[:72]


@pytest.mark.parametrize("target", chosen("FAULT_TARGETS", TARGETS))
def test_it_is_whole_again_after_each_fault_of(
    target: str, stage: Any, shown: Callable[[str], None]
) -> None:
    stage.pace = "0.5, 1.0, 1.0"
    stage.environment()
    stage.keeper()
    proxy = {"HttpProxy.Host": "127.0.0.1", "HttpProxy.Port": stage.fabric.wire_port}
    process = stage.client(more=proxy)
    rooms = Rooms(stage)
    want_all(stage, rooms, 1)
    stage.until(lambda: is_whole(stage, 1), "the start")
    if target == "storage":  # what goes there only goes there when the host refuses it
        stage.fabric.fault("status", "status:502")
        stage.fabric.fault("artifact", "status:502")
    began_mib = psutil.Process(process.pid).memory_full_info().pss / MIB
    worst_s = 0.0
    kinds = chosen("FAULT_KINDS", KINDS)
    for number, kind in enumerate(kinds, 2):
        before, asked = len(stage.supervisor.log_text()), _asked(stage, target)
        stage.fabric.fault(target, kind, None, SECONDS.get(kind, 0.0))
        if target == "versions":
            stage.supervisor.kill("fabric_client")
            process = stage.client(more=proxy)
        want_all(stage, rooms, number)
        _wait_until_met(stage, target, asked)
        _clear(stage, target)
        cleared = time.monotonic()
        stage.until(
            lambda number=number: is_whole(stage, number), f"{target} {kind}", WHOLE_LIMIT_S
        )
        whole_s = time.monotonic() - cleared
        worst_s = max(worst_s, whole_s)
        met = "" if _asked(stage, target) > asked else " (not asked meanwhile)"
        shown(f"{target:20}{kind:12}{whole_s:6.1f} s  {what_it_said(stage, before)}{met}")
        assert process.poll() is None, f"{target} {kind}: it ended"
    ended_mib = psutil.Process(process.pid).memory_full_info().pss / MIB
    shown(
        f"{target:20}{len(kinds)} faults: whole after {worst_s:.1f} s at most, nothing lost, PSS"
        f" {began_mib:.1f} -> {ended_mib:.1f} MiB"
    )
    # what was freed after an answer of the largest size is kept by malloc, once
    assert ended_mib < began_mib + 8


def _asked(stage: Any, target: str) -> int:
    return sum(item.target == target for item in stage.fabric.recorded)


def _wait_until_met(stage: Any, target: str, before: int) -> None:
    """Until a request met the fault, and a little more; some endpoints are asked once a minute."""
    ends_at = time.monotonic() + HELD_S * 2
    while _asked(stage, target) == before and time.monotonic() < ends_at:
        time.sleep(0.05)
    time.sleep(HELD_S)


def _clear(stage: Any, target: str) -> None:
    stage.fabric.clear_faults()
    if target == "storage":
        stage.fabric.fault("status", "status:502")
        stage.fabric.fault("artifact", "status:502")
