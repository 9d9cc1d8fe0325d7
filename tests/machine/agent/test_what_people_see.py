"""`waagent-ps` with the supervisor well, stopped and dead; as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from waagent.lab.machine import Machine

WORKER_KEYS = {
    "name",
    "kind",
    "state",
    "pid",
    "uptime_s",
    "restarts",
    "last_exit",
    "reason",
    "next_try_s",
    "beat_age_s",
    "cpu_s",
    "pss_kib",
    "uid",
    "caps",
    "fence",
    "doing",
    "log",
}


def test_the_table_is_ascii_and_at_most_80_columns_wide(vm: Machine) -> None:
    vm.wait_ps(lambda table: table["platform"]["endpoint"], what="the platform's address")

    done = vm.run(["waagent-ps"])

    assert done.status == 0, done.stderr
    assert done.stdout.isascii()
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.splitlines()[0].startswith("waagent 3.")
    assert "platform 168.63.129.16" in done.stdout


def test_the_json_has_every_field(vm: Machine) -> None:
    table = vm.ps()

    assert table["schema"] == 1
    assert table["source"] == "supervisor"
    assert table["provisioned"] is True
    assert set(table["platform"]) >= {"endpoint", "last_answer_s", "last_status_s", "goal_state"}
    assert set(table["supervisor"]) >= {"pid", "uptime_s", "pss_kib"}
    assert all(set(row) >= WORKER_KEYS for row in table["workers"])


def test_an_ordinary_user_lists_and_may_not_restart(vm: Machine) -> None:
    listed = vm.run(["waagent-ps"], user="azureuser")
    refused = vm.run(["waagent-ps", "restart", "fabric_client"], user="azureuser")

    assert listed.status == 0, listed.stderr
    assert refused.status == 4
    assert refused.stderr.count("\n") == 1


def test_root_restarts_a_worker(vm: Machine) -> None:
    before = vm.pid_of("fabric_client")

    done = vm.run(["waagent-ps", "restart", "fabric_client"])

    assert done.status == 0, done.stderr
    _wait_another_client(vm, [before])


def test_what_the_platform_accepted_is_known_after_every_kill(vm: Machine) -> None:
    vm.wait_ps(lambda table: table["platform"]["health"] == "Ready", what="Ready accepted")
    # what only heartbeats have told may wait 5 s for it
    noted = ["grep", "-aq", "Ready", "/run/waagent/state"]
    vm.wait_ps(lambda table: vm.run(noted).status == 0, what="Ready in the state file")
    for victims in (["fabric_client"], ["fabric_client", "supervisor"]):
        pids = [vm.pid_of(name) for name in victims]
        vm.run(["kill", "-9", *map(str, pids)], check=True)

        table = _wait_another_client(vm, pids)

        assert table["platform"]["health"] == "Ready"


def _wait_another_client(vm: Machine, old: list[int]) -> dict[str, Any]:
    """The table of a living supervisor with a new fabric_client in it."""
    return vm.wait_ps(
        lambda table: (
            table["source"] == "supervisor"
            and any(
                row["name"] == "fabric_client" and row["state"] == "READY" and row["pid"] not in old
                for row in table["workers"]
            )
        ),
        what="another fabric_client",
    )


def test_a_stopped_supervisor_is_named_and_the_table_still_shown(vm: Machine) -> None:
    supervisor = vm.pid_of("supervisor")
    vm.run(["kill", "-STOP", str(supervisor)], check=True)
    try:
        begun = time.monotonic()
        text = vm.run(["waagent-ps"])
        taken_s = time.monotonic() - begun
        data = vm.run(["waagent-ps", "--json"])
    finally:
        vm.run(["kill", "-CONT", str(supervisor)], check=True)

    print(f"waagent-ps took {taken_s:.2f} s, the deadline for an answer of 1 s included")
    assert text.status == data.status == 3
    assert text.stdout.startswith(f"SUPERVISOR NOT ANSWERING: pid {supervisor} stopped (state T)")
    assert "fabric_client" in text.stdout
    assert json.loads(data.stdout)["source"] == "state_file"
    vm.wait_states(["fabric_client", "environment_monitor"])


def test_a_dead_supervisor_is_named_and_the_table_still_shown(vm: Machine) -> None:
    supervisor = vm.pid_of("supervisor")
    os.kill(vm.init, signal.SIGSTOP)  # init would start a new one at once
    try:
        vm.run(["kill", "-9", str(supervisor)], check=True)
        text = vm.run(["waagent-ps"])
    finally:
        os.kill(vm.init, signal.SIGCONT)

    assert text.status == 3
    assert "SUPERVISOR NOT ANSWERING" in text.stdout
    assert "fabric_client" in text.stdout
    vm.wait_states(["fabric_client", "environment_monitor", "probe_responder"])


def test_ps_and_top_show_what_each_process_is(vm: Machine) -> None:
    vm.wait_states(["fabric_client", "environment_monitor", "probe_responder"])

    lines = vm.run(["ps", "-ww", "-e", "-o", "args="], check=True).stdout.splitlines()

    titles = {line.strip() for line in lines if line.startswith("waagent: ")}
    assert titles >= {
        "waagent: supervisor",
        "waagent: zygote",
        "waagent: environment_monitor",
        "waagent: fabric_client",
        "waagent: probe_responder",
    }
    assert max(map(len, titles)) <= 100
    assert not [line for line in lines if "/waagent/distro/start.py" in line]


def test_ps_shows_for_whom_a_package_is_fetched_and_a_command_run(
    vm: Machine, a_handler: Callable[..., dict[str, Any]]
) -> None:
    for place in ("storage", "artifact"):
        vm.fabric.fault(place, "hang", None, 20.0)
    vm.fabric.set_extensions([a_handler("Contoso.Slow", "sleep 1000")])
    try:
        _wait_title(vm, "waagent: transfer package Contoso.Slow")
    finally:
        vm.fabric.clear_faults()

    _wait_title(vm, "waagent: shim Contoso.Slow enable")


def _wait_title(vm: Machine, title: str) -> None:
    until = time.monotonic() + 90
    while True:
        lines = vm.run(["ps", "-ww", "-e", "-o", "args="], check=True).stdout.splitlines()
        if title in (line.strip() for line in lines):
            return
        assert time.monotonic() < until, "\n".join(lines)
        time.sleep(0.1)
