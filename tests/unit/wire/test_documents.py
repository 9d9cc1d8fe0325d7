"""Publisher manifest, Certificates document, PEM text, status blob."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.bus.topics import ExtensionReport
from waagent.protocol.wire.certificates import Block, der_base64, match_pairs, split_pem
from waagent.protocol.wire.certificates_document import read_certificate_file
from waagent.protocol.wire.publisher_manifest import choose_package, read_manifest
from waagent.protocol.wire.status_blob import (
    GoalStateOutcome,
    Machine,
    checked_report,
    status_document,
)

MACHINE = Machine("3.0.0", "vm1", "debian", "12")
NOW = "2026-06-05T12:00:00Z"


def a_manifest(*versions: str, uris: str = "<Uris><Uri>https://a/p</Uri></Uris>") -> bytes:
    plugins = "".join(
        f"<Plugin><Version>{version}</Version>{uris}</Plugin>" for version in versions
    )
    return f"\ufeff<PluginVersionManifest><Plugins>{plugins}</Plugins></PluginVersionManifest>".encode()


@pytest.mark.parametrize(
    ("offered", "asked", "chosen"),
    [
        (("1.10.0", "1.2.0", "1.2.1"), "1.2.0", "1.2.0"),
        (("1.2.0.0", "1.2.5"), "1.2", "1.2.0.0"),
        (("1.2.9", "1.2.10", "1.20.0"), "1.2", "1.2.10"),
    ],
)
def test_the_exact_version_wins_then_the_newest_that_begins_with_it(
    offered: tuple[str, ...], asked: str, chosen: str
) -> None:
    assert choose_package(read_manifest(a_manifest(*offered), "m"), asked, "m").version == chosen


def test_internal_packages_are_found_too() -> None:
    data = a_manifest("3.0.0").replace(b"Plugins>", b"InternalPlugins>")

    assert choose_package(read_manifest(data, "m"), "3.0.0", "m").is_internal


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (a_manifest("1.0"), "unable to find version 2.0"),
        (a_manifest("2.0", uris="<Uris/>"), "no URI"),
        (a_manifest("x"), "unable to find"),
    ],
)
def test_a_package_that_is_not_there_is_named(data: bytes, text: str) -> None:
    with pytest.raises(DocumentError, match=text):
        choose_package(read_manifest(data, "m"), "2.0", "m")


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("<Format/><Data>aGVs\nbG8=\n</Data>", b"hello"),
        ("<Data>aGVsbG8=</Data>", b"hello"),
        ("<Format>Pkcs7BlobWithPfxContents</Format><Data/>", b""),
        ("", b""),
    ],
)
def test_data_of_certificates_may_be_broken_in_lines_or_absent(inner: str, expected: bytes) -> None:
    assert read_certificate_file(f"<CertificateFile>{inner}</CertificateFile>".encode()) == expected


@pytest.mark.parametrize(
    "inner", ["<Format>CertificatesNonPfxPackage</Format><Data>aGVsbG8=</Data>", "<Data>!!</Data>"]
)
def test_other_formats_of_certificates_are_refused(inner: str) -> None:
    with pytest.raises(DocumentError):
        read_certificate_file(f"<CertificateFile>{inner}</CertificateFile>".encode())


def a_block(label: str, text: str = "aGVsbG8=") -> str:
    return (
        f"Bag Attributes\n    friendlyName: x\n-----BEGIN {label}-----\n{text}\n-----END"
        f" {label}-----\n"
    )


def test_keys_find_their_certificate_and_lonely_keys_are_left_out() -> None:
    blocks = split_pem(
        a_block("PRIVATE KEY")
        + a_block("CERTIFICATE")
        + a_block("CERTIFICATE", "d29ybGQ=")
        + a_block("RSA PRIVATE KEY", "eA==")
    )
    keys, certificates = (
        [block for block in blocks if block.is_key],
        [block for block in blocks if block.is_certificate],
    )

    pairs = match_pairs(
        [(certificates[0], "P1"), (certificates[1], "P2")], [(keys[0], "P2"), (keys[1], "P3")]
    )

    assert [(pair.thumbprint, pair.key) for pair in pairs] == [
        ("AAF4C61DDCC5E8A2DABEDE0F3B482CD9AEA9434D", None),
        ("7C211433F02071597741E6FF5A8EA34789ABBF43", keys[0]),
    ]
    assert "Bag" not in pairs[0].certificate.pem
    assert "eA==" not in repr(keys[1])


@given(st.text("-BEGIN ED CERTIFICATE\nabc=", max_size=200))
def test_pem_raises_nothing_but_its_error(text: str) -> None:
    try:
        match_pairs([(Block("CERTIFICATE", item.pem), "x") for item in split_pem(text)], [])
        der_base64(text)
    except DocumentError:
        pass


def test_a_status_document_has_the_platforms_shape() -> None:
    reports = [
        ExtensionReport(
            "C.A",
            "1.2.0",
            "Ready",
            0,
            "Plugin enabled",
            "",
            3,
            '{"status": "success", "name": "x"}',
        ),
        ExtensionReport("C.B", "1.0", "Ready", 0, "Plugin enabled"),
        ExtensionReport("C.M", "1.0", "Ready", 0, "", "one", 0, "not json"),
    ]
    outcome = GoalStateOutcome("7", NOW, 0, "GoalState executed successfully")

    checked = [checked_report(report) for report in reports]
    document = json.loads(status_document(MACHINE, NOW, "Guest Agent is running", checked, outcome))

    first, second, third = document["aggregateStatus"]["handlerAggregateStatus"]
    assert document["version"] == "1.1"
    assert first["runtimeSettingsStatus"] == {
        "settingsStatus": {
            "status": {"status": "success", "name": "x"},
            "version": 1.0,
            "timestampUTC": NOW,
        },
        "sequenceNumber": 3,
    }
    assert "runtimeSettingsStatus" not in second
    assert third["runtimeSettingsStatus"]["extensionName"] == "one"
    assert third["runtimeSettingsStatus"]["settingsStatus"]["status"]["status"] == "error"
    assert (
        document["aggregateStatus"]["vmArtifactsAggregateStatus"]["goalStateAggregateStatus"][
            "inSvdSeqNo"
        ]
        == "7"
    )


def test_without_a_goal_state_its_outcome_is_absent() -> None:
    assert (
        "vmArtifactsAggregateStatus"
        not in json.loads(status_document(MACHINE, NOW, "m", [], None))["aggregateStatus"]
    )
