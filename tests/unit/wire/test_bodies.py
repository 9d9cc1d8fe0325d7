"""What the agent sends: health, role properties, status blobs, PUT /status."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire.blob_requests import plan_puts
from waagent.protocol.wire.health import health_report, role_properties
from waagent.protocol.wire.host_plugin import is_stale, status_request
from waagent.protocol.wire.urls import storage_url, wire_target, without_query


def test_ready_has_no_details() -> None:
    body = health_report("7", "c", "i._vm1", "Ready")

    assert body.endswith(
        b"<RoleInstanceList><Role><InstanceId>i._vm1</InstanceId><Health><State>Ready</State></Health></Role>"
        b"</RoleInstanceList></Container></Health>"
    )
    assert b"<GoalStateIncarnation>7</GoalStateIncarnation>" in body


@given(st.text(), st.sampled_from(["", "&", "\U0001f600", "<>", "\x00"]))
def test_any_description_is_well_formed_and_short_enough(description: str, filler: str) -> None:
    body = health_report(
        "1", "c", "i", "NotReady", "ProvisioningFailed", description + filler * 5000
    )

    root = etree.fromstring(body)
    escaped = body.partition(b"<Description>")[2].partition(b"</Description>")[0]
    assert len(escaped) <= 4000
    assert root.findtext(".//SubStatus") == "ProvisioningFailed"


def test_a_fingerprint_is_escaped() -> None:
    root = etree.fromstring(role_properties("c", "i", 'a"<b'))

    assert root.find(".//Property").get("value") == 'a"<b'


def test_a_block_blob_is_one_put() -> None:
    puts = plan_puts(
        "https://a/b?sig=x", "BlockBlob", b"12345", "2026-06-05T12:00:00Z", padding=b" "
    )

    assert [(put.url, put.headers, put.content) for put in puts] == [
        (
            "https://a/b?sig=x",
            {
                "Content-Length": "5",
                "x-ms-blob-type": "BlockBlob",
                "x-ms-date": "2026-06-05T12:00:00Z",
                "x-ms-version": "2014-02-14",
            },
            b"12345",
        )
    ]


@pytest.mark.parametrize("size", [0, 1, 512, 513, 4 * 1024 * 1024 + 1])
def test_a_page_blob_is_created_and_written_in_aligned_pieces(size: int) -> None:
    puts = plan_puts("https://a/b", "PageBlob", b"x" * size, "d", padding=b" ")

    whole = b"".join(put.content or b"" for put in puts)
    assert puts[0].content is None and int(puts[0].headers["x-ms-blob-content-length"]) == len(
        whole
    )
    assert len(whole) % 512 == 0 and whole.rstrip(b" ") == b"x" * size
    position = 0
    for put in puts[1:]:
        assert put.url == "https://a/b?comp=page"
        assert put.headers["x-ms-range"] == f"bytes={position}-{position + len(put.content) - 1}"
        position += len(put.content)


def test_the_host_is_told_what_to_put() -> None:
    body = json.loads(
        status_request("https://a/b?sig=x", {"x-ms-blob-type": "BlockBlob"}, b"hello")
    )

    headers = [{"headerName": "x-ms-blob-type", "headerValue": "BlockBlob"}]
    assert body == {
        "content": base64.b64encode(b"hello").decode(),
        "headers": headers,
        "requestUri": "https://a/b?sig=x",
    }
    assert "content" not in json.loads(status_request("u", {}, None))


@pytest.mark.parametrize(
    ("status", "body", "stale"),
    [
        (410, b"", True),
        (400, b"..InvalidContainerConfiguration..", True),
        (400, b"other", False),
        (502, b"", False),
    ],
)
def test_stale_ids_are_told_from_other_failures(status: int, body: bytes, stale: bool) -> None:
    assert is_stale(status, body) is stale


@pytest.mark.parametrize(
    "url",
    [
        "https://168.63.129.16:80/x",
        "http://168.63.129.17:80/x",
        "http://168.63.129.16:81/x",
        "http://u@168.63.129.16/x",
        "http://evil/168.63.129.16",
        "",
        "http://168.63.129.16/a b",
        "http://168.63.129.16/a\nb",
        "http://[::1/",
        "http://168.63.129.16:99999/",
        "file:///etc/passwd",
        "http://168.63.129.16@evil/",
    ],
)
def test_a_document_cannot_lead_the_agent_elsewhere(url: str) -> None:
    with pytest.raises(DocumentError):
        wire_target(url, "168.63.129.16", "goal state")


def test_a_url_is_used_byte_for_byte_and_stripped() -> None:
    target = wire_target(
        "\n  http://168.63.129.16:80/machine/1/a%2E%5Fvm1?comp=config&type=x \n",
        "168.63.129.16",
        "goal state",
    )

    assert target == "/machine/1/a%2E%5Fvm1?comp=config&type=x"


@given(st.text())
def test_urls_raise_nothing_but_their_error(text: str) -> None:
    for use in (lambda: wire_target(text, "h", "x"), lambda: storage_url(text, "x")):
        try:
            use()
        except DocumentError:
            pass
    assert "?" not in without_query(text)
