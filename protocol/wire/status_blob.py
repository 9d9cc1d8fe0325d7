"""The status blob: one JSON document about agent, handlers and goal state (spec: wire §2.13.1)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import ExtensionReport

MESSAGE_LIMIT_CHARACTERS = 4096
UNSUPPORTED_FEATURES_CODE = 2001


class Machine(Record):
    """Who reports."""

    agent_version: str
    computer_name: str
    os_name: str
    os_version: str


class GoalStateOutcome(Record):
    """How far the goal state itself could be used."""

    sequence: str | int
    """The incarnation, or the number of the host's document."""
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
    features: Iterable[str] = (),
) -> bytes:
    """The document, ASCII only. ``now`` is UTC, `YYYY-MM-DDTHH:MM:SSZ`; no ``outcome`` until a goal
    state was looked at; ``features`` beside those that are always there.

    Each status is taken as the text that `checked_report` left in it: all of them together as
    values would be several times the document's size.
    """
    aggregate: dict[str, Any] = {
        "guestAgentStatus": {
            "version": machine.agent_version,
            "status": "Ready",
            "formattedMessage": _formatted(agent_message),
        }
    }
    if outcome is not None:
        aggregate["vmArtifactsAggregateStatus"] = {
            "goalStateAggregateStatus": {
                "formattedMessage": _formatted(outcome.message),
                "timestampUTC": outcome.processed_at,
                "inSvdSeqNo": outcome.sequence,
                "status": outcome.status,
                "code": outcome.code,
            }
        }
    rest = {
        "guestOSInfo": {
            "computerName": machine.computer_name,
            "osName": machine.os_name,
            "osVersion": machine.os_version,
            "version": machine.agent_version,
        },
        "supportedFeatures": [
            {"Key": name, "Value": "1.0"} for name in ("MultipleExtensionsPerHandler", *features)
        ],
    }
    handlers = ", ".join(_handler(report, now) for report in reports)
    return (
        f'{{"version": "1.1", "timestampUTC": "{now}", "aggregateStatus":'
        f' {json.dumps(aggregate)[:-1]}, "handlerAggregateStatus": [{handlers}]}},'
        f" {json.dumps(rest)[1:]}"
    ).encode("ascii")


def _handler(report: ExtensionReport, now: str) -> str:
    entry: dict[str, Any] = {
        "handlerVersion": report.version,
        "handlerName": report.handler,
        "status": report.handler_status,
        "code": report.handler_code,
        "useExactVersion": True,
    }
    if report.handler_message:
        entry["formattedMessage"] = _formatted(report.handler_message)
    if report.status is None or report.sequence is None:
        return json.dumps(entry)
    settings: dict[str, Any] = {"sequenceNumber": report.sequence}
    if report.extension:
        settings["extensionName"] = report.extension
    return (
        f'{json.dumps(entry)[:-1]}, "runtimeSettingsStatus": {{"settingsStatus": {{"status":'
        f' {report.status}, "version": 1.0, "timestampUTC": "{now}"}}, {json.dumps(settings)[1:]}}}'
    )


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def checked_report(report: ExtensionReport) -> ExtensionReport:
    """``report`` with a status that may stand in the document as it is: a JSON object in ASCII;
    what is none becomes an error of that extension, nothing else suffers.
    """
    if report.status is None:
        return report
    try:
        status = json.loads(report.status, parse_constant=_refuse_constant)
        if isinstance(status, dict):
            return report._replace(status=json.dumps(status))
    except (ValueError, RecursionError):
        pass  # told below, in the place where the operator looks
    told = {
        "name": report.extension or report.handler,
        "configurationAppliedTime": None,
        "operation": None,
        "status": "error",
        "code": -1,
        "formattedMessage": _formatted("the extension's status is not a JSON object"),
    }
    return report._replace(status=json.dumps(told))
