"""The files that the agent writes for a handler."""

from __future__ import annotations

import json

import pytest

from waagent.protocol.bus.topics import ExtensionGoal
from waagent.protocol.handler.handler_errors import SettingsError
from waagent.protocol.handler.settings_files import (
    HandlerStatus,
    environment_file,
    file_prefix,
    settings_file,
)


def test_settings_have_exactly_three_keys_null_when_absent() -> None:
    goal = ExtensionGoal(name="", sequence=3, state="enabled", public_settings="null")

    assert json.loads(settings_file(goal)) == {
        "runtimeSettings": [
            {
                "handlerSettings": {
                    "publicSettings": None,
                    "protectedSettings": None,
                    "protectedSettingsCertThumbprint": None,
                }
            }
        ]
    }


def test_protected_settings_are_passed_on_as_they_came() -> None:
    goal = ExtensionGoal(
        name="",
        sequence=3,
        state="enabled",
        public_settings='{"a": "\u00e4"}',
        protected_settings="MIIB==",
        certificate_thumbprint="AB",
    )

    inner = json.loads(settings_file(goal))["runtimeSettings"][0]["handlerSettings"]

    assert inner == {
        "publicSettings": {"a": "\u00e4"},
        "protectedSettings": "MIIB==",
        "protectedSettingsCertThumbprint": "AB",
    }


@pytest.mark.parametrize("text", ["{", "[]", "7", '"x"', "NaN", "[" * 3000])
def test_settings_that_are_no_object_are_refused_without_showing_them(text: str) -> None:
    goal = ExtensionGoal(name="", sequence=3, state="enabled", public_settings=text)

    with pytest.raises(SettingsError):
        settings_file(goal)


def test_the_environment_file_is_cut_by_shell_code() -> None:
    text = environment_file("C.S", "/var/lib/waagent/C.S-1.0", "/var/log/azure/C.S").decode()

    document = json.loads(text)
    assert (
        len(document) == 1
        and document[0]["version"] == 1.0
        and '"version": 1.0' in text
        and "\\/" not in text
    )
    assert document[0]["handlerEnvironment"] == {
        "logFolder": "/var/log/azure/C.S",
        "configFolder": "/var/lib/waagent/C.S-1.0/config",
        "statusFolder": "/var/lib/waagent/C.S-1.0/status",
        "heartbeatFile": "/var/lib/waagent/C.S-1.0/heartbeat.log",
        "eventsFolder": "/var/log/azure/C.S/events",
        "eventsFolder_preview": "/var/log/azure/C.S/events",
    }


def test_multi_config_files_begin_with_the_extension() -> None:
    assert (file_prefix("", 4), file_prefix("one", 0)) == ("4", "one.0")


def test_handler_status_has_the_predecessors_keys() -> None:
    document = json.loads(HandlerStatus("C.S", "1.0", "Ready", 0, "Plugin enabled").to_file())

    assert sorted(document) == sorted(
        [
            "name",
            "version",
            "message",
            "code",
            "status",
            "supports_multi_config",
            "extension_status",
            "signature_validated",
        ]
    )
