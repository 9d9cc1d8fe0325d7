"""The files that the agent writes for a handler: settings, environment, its own view of the handler
(spec: extensions §2).
"""

from __future__ import annotations

import json

from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import ExtensionGoal
from waagent.protocol.handler.handler_errors import JsonError, SettingsError
from waagent.protocol.handler.json_text import read_json

SETTINGS_LIMIT_BYTES = 1024 * 1024
SETTINGS_DEPTH = 64


class HandlerStatus(Record):
    """What the agent says about a handler as a whole, in the predecessor's words."""

    name: str
    version: str
    status: str
    """Ready or NotReady."""
    code: int
    message: str
    supports_multi_config: bool = False

    def to_file(self) -> bytes:
        """The bytes of `config/HandlerStatus`, which a predecessor installed later reads."""
        return json.dumps(
            {
                "name": self.name,
                "version": self.version,
                "message": self.message,
                "code": self.code,
                "status": self.status,
                "supports_multi_config": self.supports_multi_config,
                "extension_status": None,
                "signature_validated": False,
            }
        ).encode()


def settings_file(goal: ExtensionGoal) -> bytes:
    """The bytes of `<seq>.settings`: exactly three keys, null when absent. Raises SettingsError."""
    try:
        public = read_json(
            goal.public_settings.encode("utf-8", "replace"),
            limit_bytes=SETTINGS_LIMIT_BYTES,
            depth=SETTINGS_DEPTH,
        )
    except JsonError as error:
        # the position, never the text around it: settings may hold secrets
        where = f"sequence {goal.sequence}: {error}"
        raise SettingsError(
            "Failed to read publicSettings as JSON", where, "correct the settings"
        ) from error
    if public is not None and not isinstance(public, dict):
        raise SettingsError(
            "publicSettings is no object", f"sequence {goal.sequence}", "correct the settings"
        )
    return json.dumps(
        {
            "runtimeSettings": [
                {
                    "handlerSettings": {
                        "publicSettings": public,
                        "protectedSettings": goal.protected_settings or None,
                        "protectedSettingsCertThumbprint": goal.certificate_thumbprint or None,
                    }
                }
            ]
        }
    ).encode()


def file_prefix(extension: str, sequence: int) -> str:
    """`<seq>` or `<ext>.<seq>`: how the settings and status files of an extension begin."""
    return f"{extension}.{sequence}" if extension else str(sequence)


def environment_file(name: str, folder: str, log_folder: str) -> bytes:
    """The bytes of HandlerEnvironment.json: one item, a number as version, each value on its key's
    line.
    """
    return json.dumps(
        [
            {
                "name": name,
                "version": 1.0,
                "handlerEnvironment": {
                    "logFolder": log_folder,
                    "configFolder": f"{folder}/config",
                    "statusFolder": f"{folder}/status",
                    "heartbeatFile": f"{folder}/heartbeat.log",
                    "eventsFolder": f"{log_folder}/events",
                    "eventsFolder_preview": f"{log_folder}/events",
                },
            }
        ]
    ).encode()
