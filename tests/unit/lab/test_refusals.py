"""What the platform would not take is answered 4xx and listed as a complaint."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.unit.lab.conftest import HEADERS, XML, Client
from waagent.lab.fabric.documents import STATUS_PATH
from waagent.lab.fabric.fabric import Fabric

INSTANCE = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee._vm1"
HEALTH = (
    "<Health><GoalStateIncarnation>{incarnation}</GoalStateIncarnation><Container>"
    "<ContainerId>{container}</ContainerId><RoleInstanceList><Role><InstanceId>{instance}</InstanceId>"
    "<Health><State>{state}</State>{details}</Health></Role></RoleInstanceList></Container></Health>"
)
EVENT = (
    '<?xml version="1.0"?><TelemetryData version="1.0">'
    '<Provider id="{provider}"><Event id="{event}"><![CDATA[{parameters}]]></Event></Provider>'
    "</TelemetryData>"
)
PROVIDER = "69B669B9-4AF8-4C50-BDC4-6006FA76E975"
PARAMETERS = (
    '<Param Name="Name" Value="WALinuxAgent" T="mt:wstr" />'
    '<Param Name="OperationSuccess" Value="True" T="mt:bool" />'
    '<Param Name="Duration" Value="0" T="mt:uint64" />'
    '<Param Name="Value" Value="0.5" T="mt:float64" />'
)


def health(platform: Fabric, **changes: str) -> bytes:
    values = {
        "incarnation": "1",
        "container": platform.vm.container_id,
        "instance": INSTANCE,
        "state": "Ready",
        "details": "",
    }
    return HEALTH.format(**{**values, **changes}).encode()


def event(**changes: str) -> bytes:
    values = {"provider": PROVIDER, "event": "1", "parameters": PARAMETERS}
    return EVENT.format(**{**values, **changes}).encode()


def observation(**changes: Any) -> bytes:
    item = {
        "ObservationName": "GuestAgentPluginHeartbeat",
        "IsHealthy": True,
        "Description": "",
        "Value": "",
    }
    report = {
        "Api": "reporttargethealth",
        "Version": "1.0",
        "Source": "WALinuxAgent",
        "Observations": [item],
    }
    return json.dumps({**report, **changes}).encode()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda url: url.replace("%2D", "-"), "byte for byte"),
        (lambda url: url.replace("%5F", "_"), "byte for byte"),
        (lambda url: url.replace("incarnation=1", "incarnation=9"), "byte for byte"),
        (lambda url: url.replace("c0111111", "d0111111"), "byte for byte"),
        (lambda url: url.replace("type=extensionsConfig", "type=nonsense"), "no such request"),
        (lambda url: url.replace("?", "/?"), "byte for byte"),
    ],
)
def test_a_document_is_asked_for_by_the_url_of_the_goal_state(
    client: Client, platform: Fabric, change: Any, complaint: str
) -> None:
    url = client.url_of("ExtensionsConfig")

    right, wrong = client.wire("GET", url, HEADERS), client.wire("GET", change(url), HEADERS)

    assert (right.status, wrong.status) in ((200, 400), (200, 404))
    assert len(platform.complaints) == 1 and complaint in platform.complaints[0]


def test_a_document_of_the_goal_state_before_is_gone_and_no_complaint(
    client: Client, platform: Fabric
) -> None:
    url = client.url_of("ExtensionsConfig")
    platform.goal_state()

    assert client.wire("GET", url, HEADERS).status == 410
    assert platform.complaints == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"incarnation": "7"}, 400),
        ({"instance": "somebody-else"}, 400),
        ({"container": "11111111-0000-4000-8000-000000000000"}, 410),
        ({"state": "Fine"}, 400),
        ({"state": "NotReady"}, 400),
        (
            {
                "state": "NotReady",
                "details": "<Details><SubStatus>Provisioning</SubStatus></Details>",
            },
            200,
        ),
    ],
)
def test_a_health_report_is_of_this_instance(
    client: Client, platform: Fabric, changes: dict[str, str], status: int
) -> None:
    said = client.wire("POST", "/machine?comp=health", XML, health(platform, **changes))

    assert said.status == status
    assert len(platform.complaints) == (status != 200), platform.complaints


@pytest.mark.parametrize("path", ["/machine?comp=health", "/machine?comp=telemetrydata"])
def test_a_report_without_its_content_type_is_refused(
    client: Client, platform: Fabric, path: str
) -> None:
    body = health(platform) if "health" in path else event()

    assert client.wire("POST", path, HEADERS, body).status == 400
    assert "Content-Type" in platform.complaints[0]


@pytest.mark.parametrize(
    ("body", "is_taken"),
    [
        (event(), True),
        (event(provider="FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F", event="7"), True),
        (b"garbage", False),
        (event(provider="00000000-0000-0000-0000-000000000000"), False),
        (event(event="7"), False),
        (event(parameters="not parameters"), True),
        (event(parameters="<Param Name='Duration' Value='soon' T='mt:uint64' />"), False),
        (event(parameters="<Param Name='Duration' Value='-1' T='mt:uint64' />"), False),
        (event(parameters="<Param Name='OperationSuccess' Value='true' T='mt:bool' />"), False),
        (event(parameters="<Param Name='Message' T='mt:wstr' />"), False),
        (event(parameters="<Param Name='Message'"), False),
        (event(parameters="x" * (1 << 16)), False),
    ],
)
def test_telemetry_has_types_and_a_size(
    client: Client, platform: Fabric, body: bytes, is_taken: bool
) -> None:
    said = client.wire("POST", "/machine?comp=telemetrydata", XML, body)

    assert (said.status, len(platform.telemetry)) == ((200, 1) if is_taken else (400, 0))
    assert bool(platform.complaints) is not is_taken


def test_more_than_15_telemetry_requests_in_15_s_are_throttled(client: Client) -> None:
    found = [
        client.wire("POST", "/machine?comp=telemetrydata", XML, event()).status for _ in range(17)
    ]

    assert found == [200] * 15 + [429] * 2


@pytest.mark.parametrize(
    ("body", "is_taken"),
    [
        (observation(), True),
        (b"garbage", False),
        (observation(Api="other"), False),
        (observation(Observations=[{}]), False),
        (observation(Observations=[json.loads(observation())["Observations"][0]] * 11), False),
    ],
)
def test_the_health_service_takes_observations(
    client: Client, platform: Fabric, body: bytes, is_taken: bool
) -> None:
    said = client.wire("POST", "/HealthService", {"Content-Type": "application/json"}, body)

    assert (said.status, len(platform.observations)) == ((200, 1) if is_taken else (400, 0))


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("x-ms-version", "2099-99-99", 400),
        ("x-ms-version", "", 400),
        ("x-ms-containerid", "c0ffee00-0000-4000-8000-000000000000", 410),
        ("x-ms-host-config-name", "of.another.deployment", 410),
        ("x-ms-client-correlationid", "not a guid", 400),
    ],
)
def test_the_plugin_looks_at_its_headers(
    client: Client, platform: Fabric, name: str, value: str, status: int
) -> None:
    right = {
        **client.plugin_headers(),
        "x-ms-client-correlationid": "0b6f2f64-0000-4000-8000-000000000001",
    }

    said = client.plugin("GET", "/vmSettings", {**right, name: value})

    assert said.status == status and len(platform.complaints) == 1


def test_the_plugin_answers_410_to_a_container_that_moved_away(
    client: Client, platform: Fabric
) -> None:
    headers = {**client.plugin_headers(), "x-ms-artifact-location": platform.blob_url("/x")}
    platform.move_container()

    assert client.plugin("GET", "/extensionArtifact", headers).status == 410
    assert platform.complaints == []


def status_order(platform: Fabric, **changes: str) -> bytes:
    content = b'{"version": "1.1"}'
    headers = {
        "x-ms-blob-type": "BlockBlob",
        "x-ms-version": "2014-02-14",
        "Content-Length": str(len(content)),
        **changes,
    }
    listed = [{"headerName": name, "headerValue": value} for name, value in headers.items()]
    order = {
        "content": base64.b64encode(content).decode(),
        "headers": listed,
        "requestUri": platform.blob_url(STATUS_PATH),
    }
    return json.dumps(order).encode()


@pytest.mark.parametrize(
    ("content_type", "changes", "status"),
    [
        ("application/json", {}, 200),
        ("", {}, 400),
        ("text/plain", {}, 400),
        ("application/json", {"Content-Length": "5"}, 400),
        ("application/json", {"x-ms-version": "nonsense"}, 502),
        ("application/json", {"x-ms-blob-type": "Blob"}, 502),
    ],
)
def test_a_status_order_is_whole(
    client: Client, platform: Fabric, content_type: str, changes: dict[str, str], status: int
) -> None:
    headers = {**client.plugin_headers(), "Content-Type": content_type}

    said = client.plugin("PUT", "/status", headers, status_order(platform, **changes))

    assert (said.status, len(platform.statuses)) == (status, int(status == 200))
    assert bool(platform.complaints) is (status != 200)


@pytest.mark.parametrize(
    ("deployment", "body", "status"),
    [
        ("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", b"PK\x03\x04 rest", 200),
        ("another", b"PK\x03\x04 rest", 400),
        ("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", b"no zip", 400),
    ],
)
def test_a_log_bundle_is_a_zip_of_this_deployment(
    client: Client, platform: Fabric, deployment: str, body: bytes, status: int
) -> None:
    headers = {
        "x-ms-version": "2015-09-01",
        "x-ms-containerid": platform.vm.container_id,
        "x-ms-vmagentlog-deploymentid": deployment,
        "x-ms-client-name": "WALinuxAgent",
        "x-ms-client-version": "9.9.9.9",
        "x-ms-client-correlationid": "0b6f2f64-0000-4000-8000-000000000001",
        "Content-Type": "application/octet-stream",
    }

    said = client.plugin("PUT", "/vmAgentLog", headers, body)

    assert (said.status, len(platform.agent_logs)) == (status, int(status == 200))
