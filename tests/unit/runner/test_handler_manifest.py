"""HandlerManifest.json: traps 1 to 7 of the specification."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.handler.handler_errors import MANIFEST_INVALID, ManifestError
from waagent.protocol.handler.manifest import command_line, parse_manifest


def a_manifest(**inner: Any) -> bytes:
    return json.dumps(
        [
            {
                "version": 1.0,
                "handlerManifest": {"installCommand": "bin/i", "enableCommand": "bin/e", **inner},
            }
        ]
    ).encode()


@pytest.mark.parametrize("command", ["./x", "bin/x a  'b c'; $V", "/bin/run"])
def test_a_command_is_the_handlers_file_and_reaches_the_shell_unchanged(command: str) -> None:
    manifest = parse_manifest(a_manifest(enableCommand=command))

    assert command_line("/lib/H-1", manifest.enable) == "/lib/H-1/" + command.lstrip("/")


@pytest.mark.parametrize(
    "data",
    [
        b'{"version": "1.5.124", "handlerManifest": {"enableCommand": "e"}}',
        b'\xef\xbb\xbf[{"handlerManifest": {"enableCommand": "e"}}]\r\n\x00 ',
        b'[{"version": "1.5.124", "name": 3, "handlerManifest": {"enableCommand": "e"}}, 7]',
    ],
)
def test_what_is_in_the_wild_is_accepted(data: bytes) -> None:
    assert parse_manifest(data).enable == "e"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"[null]",
        b"{}",
        b'[{"handlerManifest": []}]',
        b"[" * 5000,
        b"\xff\xfe",
        b'{"handlerManifest": ' + b"[" * 40 + b"]" * 40 + b"}",
        b" " * (1024 * 1024 + 1),
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_anything_else_is_1003(data: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data)

    assert caught.value.code == MANIFEST_INVALID


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        ("true", True),
        ("True", True),
        (1, False),
        ("yes", False),
        (None, False),
        ([], False),
    ],
)
def test_booleans_are_true_or_the_text_true(value: Any, expected: bool) -> None:
    manifest = parse_manifest(
        a_manifest(
            continueOnUpdateFailure=value, supportsMultipleExtensions=value, reportHeartbeat=value
        )
    )

    assert (
        manifest.continue_on_update_failure,
        manifest.supports_multiple,
        manifest.report_heartbeat,
    ) == (expected,) * 3


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("updatewithinstall", True),
        ("UpdateWithInstall", True),
        ("UpdateWithoutinstall", False),
        ("", False),
        ("x", False),
    ],
)
def test_update_mode_decides_about_install(mode: str, expected: bool) -> None:
    assert parse_manifest(a_manifest(updateMode=mode)).install_on_update is expected


def test_an_absent_update_mode_installs() -> None:
    assert parse_manifest(a_manifest()).install_on_update


@pytest.mark.parametrize("value", [None, "", "  ", 7, ["x"], "a\x00b"])
def test_a_command_that_is_no_text_is_absent(value: Any) -> None:
    assert parse_manifest(a_manifest(uninstallCommand=value)).command("uninstall") == ""


@given(
    st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(
                        ["handlerManifest", "enableCommand", "resourceLimits", "services", "name"]
                    ),
                    inner,
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_bytes_raise_anything_but_the_rooms_error(data: bytes) -> None:
    try:
        manifest = parse_manifest(data)
    except ManifestError:
        return
    assert isinstance(manifest.enable, str)
