"""fabric_client against the emulated platform: what the platform received, what the other workers
were answered.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time

import pytest

from waagent.lab.fabric.fabric import Fabric
from waagent.lab.fabric.http import free_port
from waagent.lab.fabric.values import Extension, Settings

READY = ("fabric_client.health", {"state": "Ready"}, 60.0)


def test_ready_fingerprint_and_status_reach_the_platform(stage) -> None:
    stage.environment()
    stage.client()
    stage.ask(
        "provisioner", READY, ("fabric_client.properties", {"fingerprint": "SHA256abc+/"}, 60.0)
    )

    stage.until(
        lambda: stage.fabric.health and stage.fabric.properties and stage.fabric.statuses,
        "Ready, fingerprint and status",
    )
    assert stage.fabric.health[-1]["state"] == "Ready"
    assert stage.until(lambda: stage.answers("fabric_client.health"), "an answer") == [({}, "")]
    assert "SHA256abc+/" in str(stage.fabric.properties[-1])
    assert stage.fabric.complaints == []


def test_a_handler_is_described_its_package_fetched_and_its_status_stored(stage) -> None:
    package = os.urandom(300_000)
    settings = Settings(public={"k": 1}, protected={"secret": "x"}, sequence=4)
    stage.fabric.set_extensions(
        [Extension("Contoso.Sample", "1.2.0", package=package, settings=(settings,))]
    )
    stage.environment()
    stage.client()
    stage.keeper()
    report = {
        "handler": "Contoso.Sample",
        "version": "1.2.0",
        "handler_status": "Ready",
        "handler_code": 0,
        "handler_message": "Plugin enabled",
        "extension": "",
        "sequence": 4,
        "status": '{"name": "x", "status": "success"}',
    }
    stage.until(lambda: stage.fabric.statuses, "a status")
    stage.ask(
        "extension_runner",
        ("fabric_client.handler", {"name": "contoso.SAMPLE"}, 60.0),
        ("fabric_client.package", {"name": "Contoso.Sample", "version": "1.2.0"}, 60.0),
        ("fabric_client.status", report, 60.0),
    )

    ((handler, _),) = stage.until(lambda: stage.answers("fabric_client.handler"), "the handler")
    assert (handler["version"], handler["extensions"][0]["sequence"]) == ("1.2.0", 4)
    ((answer, error),) = stage.until(lambda: stage.answers("fabric_client.package"), "the package")
    assert error == ""
    file = stage.supervisor.paths.cache / answer["file"]
    assert file.read_bytes() == package and answer["sha256"] == hashlib.sha256(package).hexdigest()
    thumbprint = handler["extensions"][0]["certificate_thumbprint"]
    library = stage.supervisor.paths.library
    stage.until(lambda: (library / f"{thumbprint}.prv").exists(), "the key of the settings")
    assert (library / f"{thumbprint}.prv").stat().st_mode & 0o777 == 0o600

    def is_stored() -> bool:
        entries = stage.fabric.statuses[-1]["aggregateStatus"]["handlerAggregateStatus"]
        return bool(
            entries and entries[0].get("runtimeSettingsStatus", {}).get("sequenceNumber") == 4
        )

    stage.until(is_stored, "the reported status")
    assert stage.fabric.complaints == []


FAULTS = (
    ("goal_state", "garbage"),
    ("goal_state", "html"),
    ("goal_state", "dtd"),
    ("goal_state", "truncated"),
    ("goal_state", "empty"),
    ("goal_state", "huge"),
    ("goal_state", "huge_open"),
    ("goal_state", "reset"),
    ("goal_state", "redirect"),
    ("goal_state", "short"),
    ("goal_state", "status:503"),
    ("goal_state", "status:410"),
    ("versions", "html"),
    ("versions", "huge_open"),
    ("extensions_config", "dtd"),
    ("extensions_config", "huge_open"),
    ("extensions_config", "truncated"),
    ("shared_config", "garbage"),
)


def test_bad_answers_are_named_once_and_survived_by_the_same_process(stage) -> None:
    stage.environment()
    process = stage.client()
    stage.until(lambda: stage.fabric.statuses, "a status")

    for number, (target, kind) in enumerate(FAULTS, 1):
        stage.fabric.fault(target, kind)
        stage.fabric.goal_state()
        if target == "versions":
            stage.supervisor.kill("fabric_client")
            process = stage.client()
        stage.until(
            lambda number=number: stage.supervisor.log_text().count("cannot be used") >= number,
            f"a line about {target} {kind}",
        )
        stage.fabric.clear_faults()
        stored = len(stage.fabric.statuses)
        stage.until(
            lambda stored=stored: len(stage.fabric.statuses) > stored,
            f"a status after {target} {kind}",
        )
        stage.until(lambda: _is_up_to_date(stage), f"the newest goal state after {target} {kind}")
        assert process.poll() is None

    assert stage.supervisor.log_text().count("cannot be used") == len(FAULTS)


def _is_up_to_date(stage) -> bool:
    outcome = stage.fabric.statuses[-1]["aggregateStatus"]["vmArtifactsAggregateStatus"][
        "goalStateAggregateStatus"
    ]
    return outcome["code"] == 0 and outcome["inSvdSeqNo"] == str(stage.fabric.vm.incarnation)


def test_a_dripping_platform_does_not_stop_heartbeats(stage) -> None:
    stage.fabric.fault("goal_state", "drip", None, 1.0)
    stage.environment()
    stage.client()
    before = len(stage.supervisor.said("fabric_client", "heartbeat"))

    stage.until(
        lambda: len(stage.supervisor.said("fabric_client", "heartbeat")) - before >= 3,
        "three heartbeats",
    )


def test_a_byte_order_mark_and_missing_role_instances_change_nothing(stage) -> None:
    stage.fabric.fault("*", "bom")
    stage.fabric.miss_role_instance(2)
    stage.environment()
    stage.client()
    stage.ask("provisioner", READY)

    stage.until(lambda: stage.fabric.health, "Ready")


def test_a_moved_container_is_followed_without_a_new_incarnation(stage) -> None:
    stage.environment()
    stage.client()
    stage.until(lambda: stage.fabric.statuses, "a status")
    stage.fabric.move_container()
    stored = len(stage.fabric.statuses)

    stage.until(lambda: len(stage.fabric.statuses) > stored + 1, "a status from the new container")


@pytest.mark.parametrize("code", ["status:410", "status:503", "status:500"])
def test_ready_is_told_until_it_is_accepted(stage, code: str) -> None:
    stage.fabric.fault("health", code, 2)
    stage.environment()
    stage.client()
    stage.ask("provisioner", READY)

    stage.until(lambda: stage.answers("fabric_client.health") == [({}, "")], "Ready accepted")
    assert stage.fabric.health[-1]["state"] == "Ready"


def test_status_goes_directly_to_storage_when_the_host_refuses_it(stage) -> None:
    stage.fabric.fault("status", "status:502")
    stage.environment()
    stage.client(more={"HttpProxy.Host": "127.0.0.1", "HttpProxy.Port": stage.fabric.wire_port})

    stage.until(
        lambda: any(item["lab"]["channel"] == "direct" for item in stage.fabric.statuses),
        "a status in storage",
    )


def test_a_page_blob_is_stored(stage) -> None:
    stage.fabric.goal_state(status_blob_type="PageBlob")
    stage.environment()
    stage.client()

    stored = stage.until(lambda: stage.fabric.statuses, "a status")
    assert (stored[-1]["version"], stored[-1]["lab"]["kind"]) == ("1.1", "page")


def test_probe_ports_are_wanted_changed_and_released(stage) -> None:
    stage.environment()
    stage.client()
    supervisor = stage.supervisor
    supervisor.wait_for(
        "fabric_client",
        "want",
        lambda message: message["name"] == "probe_responder" and message["numbers"] == [16001],
    )

    stage.fabric.goal_state(probe_ports=(80, 443))
    supervisor.wait_for("fabric_client", "want", lambda message: message["numbers"] == [80, 443])
    stage.fabric.goal_state(probe_ports=())
    supervisor.wait_for(
        "fabric_client", "unwant", lambda message: message["name"] == "probe_responder"
    )


def test_others_may_not_ask(stage) -> None:
    stage.environment()
    stage.client()
    stage.ask("probe_responder", READY, ("fabric_client.handler", {"name": "x"}, 10.0))

    assert (
        "may not" in stage.until(lambda: stage.answers("fabric_client.health"), "a refusal")[0][1]
    )
    assert stage.fabric.health == []


@pytest.mark.usefixtures("readable_python")
@pytest.mark.parametrize("root_can", [True, False])
def test_when_only_root_can_connect_it_ends_with_the_agreed_status(stage, root_can: bool) -> None:
    """A port that refuses stands for the firewall; root's attempt goes to port 80 of another
    loopback address.
    """
    address = "127.80.32.52"
    with contextlib.ExitStack() as stack:
        if root_can:
            stack.enter_context(Fabric(address, 80, free_port(), scheme="http"))
        stage.reaching_environment(address)
        process = stage.client((free_port(), free_port()))

        if root_can:
            assert process.wait(30) == 77
        else:
            stage.until(lambda: "cannot be used" in stage.supervisor.log_text(), "a line")
            time.sleep(5)
            assert process.poll() is None
    assert ("uid 0 can" in stage.supervisor.log_text()) is root_can


def test_an_absent_platform_is_waited_for(stage) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        stage.environment()
        process = stage.client((port, port))
        stage.until(lambda: "cannot be used" in stage.supervisor.log_text(), "a line")
        time.sleep(3)

    assert process.poll() is None
    assert stage.supervisor.log_text().count("cannot be used") == 1


def test_nothing_heavy_is_loaded_by_the_resident_process(stage) -> None:
    stage.environment()
    process = stage.client()
    stage.until(lambda: stage.fabric.statuses, "a status")

    maps = open(f"/proc/{process.pid}/maps").read()
    for library in ("libssl", "lxml", "cryptography", "libcrypto"):
        assert library not in maps


def test_a_later_incarnation_is_told_to_who_subscribed(stage) -> None:
    stage.environment()
    stage.client()
    stage.ask("provisioner")
    stage.until(lambda: stage.answers("fabric_client.goal_state"), "the first summary")

    number = stage.fabric.goal_state()

    stage.until(
        lambda: (
            stage.answers("fabric_client.goal_state")[-1][0]["goal_state_id"]
            == f"incarnation_{number}"
        ),
        "the next summary",
    )
    assert stage.answers("fabric_client.goal_state")[-1][0]["extensions_complete"] is True


def test_a_package_comes_through_faults_and_is_not_fetched_twice(stage) -> None:
    package = os.urandom(100_000)
    stage.fabric.set_extensions([Extension("Contoso.Sample", "1.2.0", package=package)])
    stage.fabric.fault("artifact", "status:502", 1)
    stage.fabric.fault("artifact", "short", 1)
    stage.environment()
    stage.client()
    stage.until(lambda: stage.fabric.statuses, "a status")
    question = ("fabric_client.package", {"name": "Contoso.Sample", "version": "1.2.0"}, 60.0)
    stage.ask("extension_runner", question, question)

    answers = stage.until(
        lambda: len(stage.answers(question[0])) == 2 and stage.answers(question[0]), "two answers"
    )

    assert answers[0] == answers[1]
    assert [path.read_bytes() for path in stage.supervisor.paths.cache.iterdir()] == [package]


def test_a_stale_container_is_renewed_for_a_package(stage) -> None:
    stage.fabric.set_extensions([Extension("Contoso.Sample", "1.2.0", package=b"x" * 100)])
    stage.environment()
    stage.client()
    stage.until(lambda: stage.fabric.statuses, "a status")
    stage.fabric.fault("artifact", "stale", 1)
    polls = sum(item.path.startswith("/machine/?comp=goalstate") for item in stage.fabric.recorded)
    stage.ask(
        "extension_runner",
        ("fabric_client.package", {"name": "Contoso.Sample", "version": "1.2.0"}, 60.0),
    )

    ((_, error),) = stage.until(lambda: stage.answers("fabric_client.package"), "an answer")
    assert error.startswith("1001: ") and "sig=" not in error
    stage.until(
        lambda: (
            sum(i.path.startswith("/machine/?comp=goalstate") for i in stage.fabric.recorded)
            > polls
        ),
        "a new look",
    )


@pytest.mark.parametrize(
    ("extension", "asked", "code"),
    [
        (Extension("Contoso.Sample", "1.2.0", package=b"x"), "9.9", "1001: "),
        (Extension("Contoso.Sample", "1.2.0"), "1.2.0", "1004: "),
    ],
)
def test_what_is_not_there_is_refused_with_its_code(
    stage, extension: Extension, asked: str, code: str
) -> None:
    stage.fabric.set_extensions([extension])
    stage.environment()
    stage.client()
    stage.until(lambda: stage.fabric.statuses, "a status")
    stage.ask(
        "extension_runner",
        ("fabric_client.package", {"name": "Contoso.Sample", "version": asked}, 60.0),
    )

    ((_, error),) = stage.until(lambda: stage.answers("fabric_client.package"), "a refusal")
    assert error.startswith(code)
    assert "?" not in error


def test_killed_it_comes_back_and_says_everything_again(stage) -> None:
    stage.environment()
    stage.client()
    stage.ask(
        "extension_runner",
        (
            "fabric_client.status",
            {
                "handler": "C.A",
                "version": "1.0",
                "handler_status": "Ready",
                "handler_code": 0,
                "handler_message": "x",
            },
            60.0,
        ),
    )
    stage.until(lambda: stage.fabric.statuses, "a status")
    stage.supervisor.kill("fabric_client")
    stored = len(stage.fabric.statuses)

    stage.client()

    stage.until(lambda: len(stage.fabric.statuses) > stored, "a status from the next one")
    stage.until(lambda: len(stage.answers("fabric_client.goal_state")) >= 1, "the summary")
    assert stage.supervisor.log_text().count("ERROR") == 0
