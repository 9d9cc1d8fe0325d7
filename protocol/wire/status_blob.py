"""The status blob: one JSON document about agent, handlers and goal state (spec: wire §2.13.1)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import ExtensionReport

MESSAGE_LIMIT_CHARACTERS = 4096
# no limit is documented; the host holds it in memory, base64-encoded
DOCUMENT_LIMIT_BYTES = 8 * 1024 * 1024
UNSUPPORTED_FEATURES_CODE = 2001


class Machine(Record):
    """Who reports."""

    agent_version: str
    computer_name: str
    os_name: str
    os_version: str


class GoalStateOutcome(Record):
    """How far the goal state itself could be used."""

    incarnation: str
    processed_at: str
    """UTC, `YYYY-MM-DDTHH:MM:SSZ`."""
    code: int
    message: str
    is_settled: bool = True
    """Every extension has a terminal status: only then it is a success."""

    @property
    def status(self) -> str:
        """In the platform's words."""
        if self.code:
            return "Failed"
        return "Success" if self.is_settled else "Transitioning"


def _formatted(message: str) -> dict[str, str]:
    return {"lang": "en-US", "message": message[:MESSAGE_LIMIT_CHARACTERS]}


def status_document(
    machine: Machine,
    now: str,
    agent_message: str,
    reports: Iterable[ExtensionReport],
    outcome: GoalStateOutcome | None,
) -> bytes:
    """The document, ASCII only. ``now`` is UTC, `YYYY-MM-DDTHH:MM:SSZ`; no ``outcome`` until a goal
    state was looked at.
    """
    handlers = [_handler(report, now) for report in reports]
    aggregate: dict[str, Any] = {
        "guestAgentStatus": {
            "version": machine.agent_version,
            "status": "Ready",
            "formattedMessage": _formatted(agent_message),
        },
        "handlerAggregateStatus": handlers,
    }
    if outcome is not None:
        aggregate["vmArtifactsAggregateStatus"] = {
            "goalStateAggregateStatus": {
                "formattedMessage": _formatted(outcome.message),
                "timestampUTC": outcome.processed_at,
                "inSvdSeqNo": outcome.incarnation,
                "status": outcome.status,
                "code": outcome.code,
            }
        }
    document = {
        "version": "1.1",
        "timestampUTC": now,
        "aggregateStatus": aggregate,
        "guestOSInfo": {
            "computerName": machine.computer_name,
            "osName": machine.os_name,
            "osVersion": machine.os_version,
            "version": machine.agent_version,
        },
        "supportedFeatures": [{"Key": "MultipleExtensionsPerHandler", "Value": "1.0"}],
    }
    return _bounded(document, handlers)


def _handler(report: ExtensionReport, now: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "handlerVersion": report.version,
        "handlerName": report.handler,
        "status": report.handler_status,
        "code": report.handler_code,
        "useExactVersion": True,
    }
    if report.handler_message:
        entry["formattedMessage"] = _formatted(report.handler_message)
    status = _status_object(report)
    if status is not None:
        settings: dict[str, Any] = {
            "settingsStatus": {"status": status, "version": 1.0, "timestampUTC": now},
            "sequenceNumber": report.sequence,
        }
        if report.extension:
            settings["extensionName"] = report.extension
        entry["runtimeSettingsStatus"] = settings
    return entry


def _status_object(report: ExtensionReport) -> dict[str, Any] | None:
    """The extension's own status; what is no JSON object is reported as an error of that extension,
    nothing else suffers.
    """
    if report.status is None or report.sequence is None:
        return None
    try:
        status = json.loads(report.status)
        if isinstance(status, dict):
            return status
    except (ValueError, RecursionError):
        pass  # told below, in the place where the operator looks
    return {
        "name": report.extension or report.handler,
        "configurationAppliedTime": None,
        "operation": None,
        "status": "error",
        "code": -1,
        "formattedMessage": _formatted("the extension's status is not a JSON object"),
    }


def _bounded(document: dict[str, Any], handlers: list[dict[str, Any]]) -> bytes:
    """The document as text; when it is too long, substatus lists are dropped, the longest first."""
    encoded = json.dumps(document).encode("ascii")
    if len(encoded) <= DOCUMENT_LIMIT_BYTES:
        return encoded
    statuses = [
        entry["runtimeSettingsStatus"]["settingsStatus"]["status"]
        for entry in handlers
        if "runtimeSettingsStatus" in entry
    ]
    for status in sorted(statuses, key=lambda item: -len(json.dumps(item.get("substatus")))):
        status.pop("substatus", None)
        encoded = json.dumps(document).encode("ascii")
        if len(encoded) <= DOCUMENT_LIMIT_BYTES:
            break
    return encoded
