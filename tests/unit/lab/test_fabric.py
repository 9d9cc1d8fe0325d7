"""The emulated platform answers as the specification says, and refuses what the real one would
refuse.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from waagent.lab.fabric.control import RemoteFabric, serve
from waagent.lab.fabric.documents import STATUS_PATH, blob_url
from waagent.lab.fabric.fabric import Fabric
from waagent.lab.fabric.watching import NotSeen
from waagent.lab.handlers import packages

HEADERS = {"x-ms-agent-name": "WALinuxAgent", "x-ms-version": "2012-11-30"}


@pytest.fixture(scope="module")
def tenant_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tenant")


@pytest.fixture
def fabric(tenant_folder: Path) -> Iterator[Fabric]:
    with Fabric("127.0.0.1", 0, 0, folder=tenant_folder) as made:
        yield made


def ask(
    fabric: Fabric,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes = b"",
    port: int = 0,
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port or fabric.wire_port, timeout=20)
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return (
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            answer.read(),
        )
    finally:
        connection.close()


def goal_state(fabric: Fabric) -> str:
    return ask(fabric, "GET", "/machine/?comp=goalstate", HEADERS)[2].decode()


def url_of(fabric: Fabric, tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", goal_state(fabric))
    assert found is not None
    return found[1].replace("&amp;", "&")[len(fabric.base) :]


def plugin_headers(fabric: Fabric) -> dict[str, str]:
    return {
        "x-ms-version": "2015-09-01",
        "x-ms-containerid": fabric.vm.container_id,
        "x-ms-host-config-name": fabric.vm.config_name,
    }


def test_the_goal_state_names_documents_that_are_there(fabric: Fabric) -> None:
    tags = ("HostingEnvironmentConfig", "SharedConfig", "ExtensionsConfig")

    found = {tag: ask(fabric, "GET", url_of(fabric, tag), HEADERS) for tag in tags}

    assert {
        tag: (answer[0], answer[2].count(b"goalStateIncarnation")) for tag, answer in found.items()
    } == {
        "HostingEnvironmentConfig": (200, 1),
        "SharedConfig": (200, 1),
        "ExtensionsConfig": (200, 1),
    }
    assert fabric.complaints == []


def test_a_request_without_the_headers_is_refused_and_noted(fabric: Fabric) -> None:
    status, _, _ = ask(fabric, "GET", "/machine/?comp=goalstate", {})

    assert status == 400
    assert "x-ms-agent-name" in fabric.complaints[0]


@pytest.fixture(scope="module")
def transport(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transport")
    argv = [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-subj",
        "/CN=LinuxTransport",
        "-days",
        "730",
        "-newkey",
        "rsa:2048",
    ]
    subprocess.run(
        [*argv, "-keyout", folder / "key.pem", "-out", folder / "crt.pem"],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        [
            "openssl",
            "x509",
            "-in",
            folder / "crt.pem",
            "-outform",
            "DER",
            "-out",
            folder / "crt.der",
        ],
        check=True,
    )
    return folder


@pytest.mark.parametrize(
    ("cipher", "transport_form"), [("AES128_CBC", "rsaesOaep"), ("DES_EDE3_CBC", "rsaEncryption")]
)
def test_certificates_open_with_the_transport_key(
    fabric: Fabric, transport: Path, cipher: str, transport_form: str
) -> None:
    header = base64.b64encode((transport / "crt.der").read_bytes()).decode()
    headers = {**HEADERS, "x-ms-guest-agent-public-x509-cert": header, "x-ms-cipher-name": cipher}

    _, _, body = ask(fabric, "GET", url_of(fabric, "Certificates"), headers)

    data = re.search(rb"<Data>(.*?)</Data>", body, re.S)
    assert data is not None
    envelope = base64.b64decode(data[1])
    form = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print", "-inform", "DER"],
        input=envelope,
        capture_output=True,
        check=True,
    ).stdout
    argv = [
        "openssl",
        "cms",
        "-decrypt",
        "-inform",
        "DER",
        "-inkey",
        transport / "key.pem",
        "-recip",
        transport / "crt.pem",
    ]
    pfx = subprocess.run(argv, input=envelope, capture_output=True, check=True).stdout
    pem = subprocess.run(
        ["openssl", "pkcs12", "-nodes", "-password", "pass:"],
        input=pfx,
        capture_output=True,
        check=True,
    ).stdout
    assert b"subjectKeyIdentifier" in form and transport_form.encode() in form
    assert pem.count(b"BEGIN CERTIFICATE") == 2 and pem.count(b"PRIVATE KEY-----\n") == 2


def test_protected_settings_open_with_the_tenant_key(fabric: Fabric) -> None:
    fabric.set_extensions(
        [
            {
                "name": "Contoso.Hello",
                "version": "1.0.0",
                "public": {"a": 1},
                "protected": {"to": "Ada"},
            }
        ]
    )

    _, _, body = ask(fabric, "GET", url_of(fabric, "ExtensionsConfig"), HEADERS)

    text = re.search(r"<RuntimeSettings.*?>(.*?)</RuntimeSettings>", body.decode())
    assert text is not None
    settings = json.loads(text[1])["runtimeSettings"][0]["handlerSettings"]
    argv = [
        "openssl",
        "cms",
        "-decrypt",
        "-inform",
        "DER",
        "-recip",
        fabric.tenant.certificate,
        "-inkey",
        fabric.tenant.key,
    ]
    opened = subprocess.run(
        argv, input=base64.b64decode(settings["protectedSettings"]), capture_output=True, check=True
    )
    assert json.loads(opened.stdout) == {"to": "Ada"}
    assert settings["protectedSettingsCertThumbprint"] == fabric.tenant.thumbprint


def test_a_health_report_is_kept_and_a_stale_container_is_answered_410(fabric: Fabric) -> None:
    report = (
        '<?xml version="1.0"'
        ' encoding="utf-8"?><Health><GoalStateIncarnation>1</GoalStateIncarnation>'
        "<Container><ContainerId>{}</ContainerId><RoleInstanceList><Role><InstanceId>aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee._vm1</InstanceId><Health><State>Ready</State></Health></Role></RoleInstanceList></Container></Health>"
    )
    headers = {**HEADERS, "Content-Type": "text/xml;charset=utf-8"}
    old = fabric.vm.container_id
    first = ask(fabric, "POST", "/machine?comp=health", headers, report.format(old).encode())
    fabric.move_container()

    second = ask(fabric, "POST", "/machine?comp=health", headers, report.format(old).encode())

    assert (first[0], first[1]["x-ms-latest-goal-state-incarnation-number"], second[0]) == (
        200,
        "1",
        410,
    )
    assert [item["state"] for item in fabric.health] == ["Ready"]


@pytest.mark.parametrize("kind", ["BlockBlob", "PageBlob"])
def test_a_status_put_through_the_plugin_is_read_back(fabric: Fabric, kind: str) -> None:
    document = json.dumps(
        {"version": "1.1", "aggregateStatus": {"guestAgentStatus": {"status": "Ready"}}}
    ).encode()
    block = {"x-ms-blob-type": "BlockBlob"}
    orders = [
        {
            "content": base64.b64encode(document).decode(),
            "headers": block,
            "requestUri": blob_url(STATUS_PATH),
        }
    ]
    if kind == "PageBlob":
        padded = document.ljust(512)
        create = {
            "x-ms-blob-type": "PageBlob",
            "x-ms-blob-content-length": "512",
            "Content-Length": "0",
        }
        page = {"x-ms-range": "bytes=0-511", "x-ms-page-write": "update"}
        orders = [
            {"headers": create, "requestUri": blob_url(STATUS_PATH)},
            {
                "content": base64.b64encode(padded).decode(),
                "headers": page,
                "requestUri": blob_url(STATUS_PATH) + "&comp=page",
            },
        ]

    answers = []
    for order in orders:
        headers = [
            {"headerName": name, "headerValue": value}
            for name, value in {**order["headers"], "x-ms-version": "2014-02-14"}.items()
        ]
        body = json.dumps({**order, "headers": headers}).encode()
        common = {**plugin_headers(fabric), "Content-type": "application/json"}
        answers.append(ask(fabric, "PUT", "/status", common, body, fabric.plugin_port)[0])

    assert set(answers) == {200}
    assert fabric.statuses[0]["aggregateStatus"]["guestAgentStatus"]["status"] == "Ready"
    assert fabric.complaints == []


def test_a_package_comes_through_the_plugin_byte_for_byte(fabric: Fabric) -> None:
    package = packages.hello()
    fabric.set_extensions([{"name": "Contoso.Hello", "version": "1.0.0", "package": package}])
    headers = {
        **plugin_headers(fabric),
        "x-ms-artifact-location": blob_url("/packages/Contoso.Hello__1.0.0"),
    }

    found = ask(fabric, "GET", "/extensionArtifact", headers, port=fabric.plugin_port)
    without_signature = ask(
        fabric,
        "GET",
        "/extensionArtifact",
        {**headers, "x-ms-artifact-location": "https://lab.blob.core.windows.net/packages/x"},
        port=fabric.plugin_port,
    )

    assert (found[0], found[2]) == (200, package)
    assert without_signature[0] == 502


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("html", b"<!DOCTYPE html>"),
        ("dtd", b'<?xml version="1.0"?><!DOCTYPE lolz'),
        ("bom", b"\xef\xbb\xbf<?xml"),
        ("truncated", b"<?xml"),
        ("empty", b""),
    ],
)
def test_a_fault_spoils_as_many_answers_as_it_says(
    fabric: Fabric, kind: str, expected: bytes
) -> None:
    whole = goal_state(fabric).encode()
    fabric.fault("goal_state", kind, times=1)

    first = ask(fabric, "GET", "/machine/?comp=goalstate", HEADERS)[2]
    second = ask(fabric, "GET", "/machine/?comp=goalstate", HEADERS)[2]

    assert first.startswith(expected) and first != whole and second == whole


def test_a_huge_answer_without_length_is_50_mb(fabric: Fabric) -> None:
    fabric.fault("goal_state", "huge_open", times=1)

    _, headers, body = ask(fabric, "GET", "/machine/?comp=goalstate", HEADERS)

    assert "content-length" not in headers and len(body) == 50 * 1024 * 1024


def test_a_dripping_answer_comes_byte_by_byte(fabric: Fabric) -> None:
    fabric.fault("versions", "drip", times=1, argument=0.05)

    with socket.create_connection(("127.0.0.1", fabric.wire_port), 10) as connection:
        connection.sendall(b"GET /?comp=versions HTTP/1.1\r\nHost: x\r\n\r\n")
        begin = time.monotonic()
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < 10:
            received += connection.recv(1)

    assert time.monotonic() - begin >= 0.4


def test_the_role_instance_is_missing_as_often_as_asked(fabric: Fabric) -> None:
    fabric.miss_role_instance(2)

    found = ["<RoleInstance>" in goal_state(fabric) for _ in range(3)]

    assert found == [False, False, True]


def test_another_process_steers_it_over_the_socket(fabric: Fabric, tmp_path: Path) -> None:
    server = serve(fabric, tmp_path / "control")
    remote = RemoteFabric(tmp_path / "control")

    incarnation = remote.goal_state(probe_ports=[80, 443])

    assert incarnation == 2
    assert "<Port>443</Port>" in goal_state(fabric)
    assert [(item.method, item.path, item.status) for item in remote.recorded] == [
        ("GET", "/machine/?comp=goalstate", 200)
    ]
    server.shutdown()
    server.server_close()


def test_waiting_in_vain_says_what_came(fabric: Fabric) -> None:
    goal_state(fabric)

    with pytest.raises(NotSeen, match="1 x wire GET /machine/"):
        fabric.wait_ready(0.2)


def test_the_bomb_is_small_and_every_bad_zip_is_made() -> None:
    made = packages.bad_zips()

    assert len(made["bomb"]) < 16 * 1024 * 1024
    assert {"parent", "absolute", "link", "truncated", "bomb"} <= set(made)
