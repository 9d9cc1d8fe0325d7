"""fabric_client against the emulated platform: what the platform received, what the other workers
were answered.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from typing import Any

import psutil
import pytest

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


A_MINUTE = {"Extensions.GoalStatePeriod": 60}


def a_report(name: str, status: str, message: str = "") -> dict[str, object]:
    return {
        "handler": name,
        "version": "1.0",
        "handler_status": "Ready",
        "handler_code": 0,
        "handler_message": message,
        "sequence": 1,
        "status": f'{{"status": "{status}"}}',
    }


def handlers_in(document: dict[str, Any]) -> set[str]:
    return {item["handlerName"] for item in document["aggregateStatus"]["handlerAggregateStatus"]}


def test_a_result_is_stored_long_before_the_period_is_over(stage) -> None:
    stage.environment()
    stage.client(more=A_MINUTE)
    stage.until(lambda: stage.fabric.statuses, "a status")
    stage.ask("extension_runner", ("fabric_client.status", a_report("C.A", "success"), 60.0))

    stage.until(
        lambda: handlers_in(stage.fabric.statuses[-1]) == {"C.A"}, "the result", deadline_s=30.0
    )


def test_many_results_are_stored_together(stage) -> None:
    stage.environment()
    stage.client(more=A_MINUTE)
    stage.until(lambda: stage.fabric.statuses, "a status")
    stored = len(stage.fabric.statuses)
    begun_at = time.monotonic()
    names = {f"C.N{number}" for number in range(40)}
    stage.ask(
        "extension_runner",
        *(("fabric_client.status", a_report(name, "success"), 60.0) for name in names),
    )

    stage.until(lambda: handlers_in(stage.fabric.statuses[-1]) == names, "all results", 30.0)
    assert len(stage.fabric.statuses) - stored <= 1 + (time.monotonic() - begun_at)


@pytest.mark.parametrize(
    "kind", ["garbage", "status:500", "status:503", "status:429", "reset", "truncated"]
)
def test_the_status_goes_on_without_a_goal_state_and_the_next_one_is_taken(
    stage, kind: str
) -> None:
    stage.environment()
    stage.client()
    stage.until(lambda: stage.fabric.statuses, "a status")
    stage.fabric.fault("goal_state", kind)
    number = stage.fabric.goal_state()
    polls = polls_of(stage)
    stage.until(lambda: polls_of(stage) > polls, "a poll that brings nothing")
    stored = len(stage.fabric.statuses)
    begun_at = time.monotonic()

    stage.until(lambda: len(stage.fabric.statuses) >= stored + 5, "five of them meanwhile")

    assert time.monotonic() - begun_at > 3, "no more than one a second"
    stage.fabric.clear_faults()
    stage.until(lambda: _is_up_to_date(stage), "the newest goal state", 15.0)
    assert stage.fabric.vm.incarnation == number


def polls_of(stage) -> int:
    return sum(item.path.startswith("/machine/?comp=goalstate") for item in stage.fabric.recorded)


def test_a_poll_that_fails_is_repeated_within_15_s_whatever_the_period(stage) -> None:
    stage.fabric.fault("goal_state", "garbage", 30)
    stage.environment()
    stage.client(more={"Extensions.GoalStatePeriod": 3600})
    stage.until(lambda: polls_of(stage) >= 11, "the polls of the start")
    polls = polls_of(stage)

    stage.until(lambda: polls_of(stage) > polls, "the next one", 30.0)


def test_packages_and_documents_share_one_transfer_process(stage) -> None:
    packages = {f"Contoso.N{number}": os.urandom(2000) for number in range(12)}
    stage.fabric.set_extensions(
        [Extension(name, "1.0.0", package=data) for name, data in packages.items()]
    )
    stage.environment()
    process = psutil.Process(stage.client().pid)
    stage.until(lambda: stage.fabric.statuses, "a status")
    before = process.children()
    stage.ask(
        "extension_runner",
        *(("fabric_client.package", {"name": name, "version": "1.0.0"}, 60.0) for name in packages),
    )

    answers = stage.until(
        lambda: (
            len(stage.answers("fabric_client.package")) == 12
            and stage.answers("fabric_client.package")
        ),
        "all packages",
    )

    assert [error for _, error in answers] == [""] * 12
    assert len(before) == 1 and process.children() == before
    stored = {(stage.supervisor.paths.cache / answer["file"]).read_bytes() for answer, _ in answers}
    assert stored == set(packages.values())


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
    stage.until(
        lambda: any(
            value["extensions_complete"] for value, _ in stage.answers("fabric_client.goal_state")
        ),
        "the first whole summary",
    )

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
