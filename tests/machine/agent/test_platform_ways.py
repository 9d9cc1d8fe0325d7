"""What comes by the host instead of the WireServer, what goes straight to storage over TLS, and
users for a time: the whole agent on one machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from waagent.lab.machine import Machine


def until(is_true: Callable[[], Any], what: str, vm: Machine, deadline_s: float = 90.0) -> Any:
    ends_at = time.monotonic() + deadline_s
    while time.monotonic() < ends_at:
        value = is_true()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"no {what} in {deadline_s:g} s: {vm.fabric.complaints} {vm.trouble()}")


def in_hours(hours: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(time.time() + hours * 3600))


def accounts(vm: Machine) -> dict[str, str]:
    rows = [line.split(":") for line in vm.read("/etc/passwd").splitlines()]
    return {row[0]: row[4] for row in rows}


def asked_for_vm_settings(vm: Machine) -> list[int]:
    return [item.status for item in vm.fabric.recorded if item.target == "vm_settings"]


def outcome_in(status: dict[str, Any]) -> dict[str, Any]:
    return status["aggregateStatus"]["vmArtifactsAggregateStatus"]["goalStateAggregateStatus"]


def stored(vm: Machine, channel: str, kind: str) -> list[dict[str, Any]]:
    return [
        item
        for item in vm.fabric.statuses
        if (item["lab"]["channel"], item["lab"]["kind"]) == (channel, kind)
    ]


@pytest.mark.parametrize(("blob_type", "kind"), [("BlockBlob", "BlockBlob"), ("PageBlob", "page")])
def test_status_goes_to_storage_over_tls_when_the_host_refuses_it(
    vm: Machine, blob_type: str, kind: str
) -> None:
    vm.fabric.goal_state(status_blob_type=blob_type)
    vm.fabric.fault("status", "status:502")

    until(lambda: stored(vm, "direct", kind), f"a {kind} blob in storage", vm)
    vm.fabric.clear_faults()

    assert "sig=" not in vm.read("/var/log/waagent.log")


def test_an_extension_of_the_host_runs_without_a_new_incarnation(
    vm: Machine, a_handler: Callable[..., dict[str, Any]]
) -> None:
    incarnation = vm.fabric.set_fast_track([a_handler("Contoso.Fast", "succeed fast")])

    said = vm.fabric.wait_extension("Contoso.Fast", "success")
    status = vm.fabric.statuses[-1]
    assert said["status"] == "success"
    assert {"Key": "FastTrack", "Value": "1.0"} in status["supportedFeatures"]
    until(lambda: 304 in asked_for_vm_settings(vm), "an unchanged document", vm)
    assert outcome_in(status)["inSvdSeqNo"] == incarnation  # a number here, a text in the other way

    vm.fabric.set_extensions([a_handler("Contoso.Later", "succeed later")])
    vm.fabric.wait_extension("Contoso.Later", "success")


def test_users_for_a_time_come_and_go(vm: Machine) -> None:
    wanted = [
        {"name": "jit-ops", "password": "Passw0rd!\u044f", "expires": in_hours(2)},
        {"name": "ALL", "password": "Passw0rd!", "expires": in_hours(2)},
        {"name": "azureuser", "password": "Passw0rd!", "expires": in_hours(2)},
        {"name": "jit-old", "password": "Passw0rd!", "expires": in_hours(-2)},
    ]
    before = accounts(vm)
    vm.fabric.set_remote_users(wanted)

    until(lambda: "jit-ops" in accounts(vm), "the account", vm)
    until(lambda: vm.exists("/etc/sudoers.d/waagent-jit"), "its right to use sudo", vm)
    assert accounts(vm) == {**before, "jit-ops": "JIT_Account"}
    assert "\njit-ops ALL=(ALL) ALL\n" in vm.read("/etc/sudoers.d/waagent-jit")
    shadow = vm.read("/etc/shadow").split("\njit-ops:")[1].split(":")
    assert shadow[0].startswith("$")
    log = vm.read("/var/log/waagent.log")
    assert "Passw0rd" not in log
    assert "user 'ALL' is not made" in log and "user 'azureuser' is not made" in log

    vm.fabric.set_remote_users([])
    until(lambda: accounts(vm) == before, "that it is gone", vm)
    assert not vm.exists("/etc/sudoers.d/waagent-jit")
    vm.fabric.set_remote_users(None)


def test_documents_lie_where_others_look_for_them(vm: Machine) -> None:
    number = vm.fabric.goal_state()

    def is_there(name: str) -> bool:
        path = f"/var/lib/waagent/{name}.xml"
        return vm.exists(path) and f'goalStateIncarnation="{number}"' in vm.read(path)

    for name in ("SharedConfig", "HostingEnvironmentConfig"):
        until(lambda name=name: is_there(name), f"{name}.xml", vm)
        mode = vm.run(["stat", "-c", "%a", f"/var/lib/waagent/{name}.xml"]).stdout.strip()
        assert mode == "600"


def test_the_host_hears_of_itself_and_complains_of_nothing(vm: Machine) -> None:
    names = {"GuestAgentPluginHeartbeat", "GuestAgentPluginVersions", "InstanceMetadataHeartbeat"}

    until(
        lambda: {item["ObservationName"] for item in vm.fabric.observations} >= names,
        "observations",
        vm,
        30.0,
    )
    posted = [item for item in vm.fabric.recorded if item.target == "role_properties"]
    ready = [item for item in vm.fabric.recorded if item.target == "health"]
    assert len(posted) == 1
    assert posted[0].time > max(item.time for item in ready)
    assert all(item["IsHealthy"] for item in vm.fabric.observations)
    assert vm.fabric.complaints == []
