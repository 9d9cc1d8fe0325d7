"""What the platform is told of a handler and its extensions. Pure (spec: extensions §4.1, §4.4,
§4.7).

Rule: whatever happens, an extension's status becomes terminal, within 90 minutes at the latest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import ExtensionGoal, ExtensionReport, HandlerGoal
from waagent.protocol.handler import handler_errors
from waagent.protocol.handler.settings_files import HandlerStatus
from waagent.protocol.handler.status_file import TERMINAL, ExtensionStatus
from waagent.workers.extension_runner.handler_journal import Outcome
from waagent.workers.extension_runner.messages import plain, redact
from waagent.workers.extension_runner.plan import ENABLE, Refuse
from waagent.workers.extension_runner.status_collector import Seen

BROKEN_PATIENCE_S = 10
NO_FILE_S = 20 * 60
SILENT_S = 15 * 60
LONGEST_S = 90 * 60
MESSAGE_LIMIT = 4096
NOBODY = " (no process of the handler is running)"


class Extension(Record):
    """One set of settings, and what is known of it in this goal state and boot."""

    goal: ExtensionGoal
    outcome: Outcome | None = None
    """Of its last operation, or of the INSTALL that failed before it."""
    seen: Seen | None = None
    is_alive: bool = False
    """Something of its handler is running; not looked at once its status is terminal."""


class Situation(Record):
    """Everything that is known of one handler."""

    goal: HandlerGoal
    name: str
    version: str
    handler: HandlerStatus | None
    """What was said last; of an earlier goal state perhaps."""
    refused: Refuse | None
    activity: str
    """What is done or waited for now; empty: nothing is."""
    is_installing: bool
    extensions: tuple[Extension, ...]
    now: float
    wall_ns: int


def reports(situation: Situation) -> tuple[ExtensionReport, ...]:
    """One report for each extension that is wanted; one for the handler alone when it has none."""
    status, code, message = _handler_part(situation)
    message = redact(message)[:MESSAGE_LIMIT]

    def report(extension: str, sequence: int | None, text: str | None) -> ExtensionReport:
        return ExtensionReport(
            situation.name, situation.version, status, code, message, extension, sequence, text
        )

    wanted = [
        one
        for one in situation.extensions
        if not (situation.goal.multi_config and one.goal.state == "disabled")
    ]
    if not wanted:
        return (report("", None, None),)
    made = []
    for one in wanted:
        extension = one.goal.name if situation.goal.multi_config else ""
        name = extension or situation.name
        made.append(report(extension, one.goal.sequence, _extension_part(situation, one, name)))
    return tuple(made)


def duration(seconds: float) -> str:
    """Coarse, so that a report changes rarely: 30 s steps, then minutes."""
    if seconds < 30:
        return "a moment"
    return f"{int(seconds // 30) * 30} s" if seconds < 120 else f"{int(seconds // 60)} min"


def _handler_part(situation: Situation) -> tuple[str, int, str]:
    if situation.refused is not None:
        return "NotReady", situation.refused.code, situation.refused.message
    said = situation.handler
    if said is not None and said.code != 0 and _is_of_old_version(situation, said.version):
        said = said._replace(
            code=handler_errors.UPDATE_FAILED, message=_stopped_update(said.message)
        )
    if situation.is_installing:
        return "Installing", 0, situation.activity
    if said is None or (situation.activity and said.code != 0):
        return "NotReady", 0, situation.activity or "waiting to start"
    return said.status, said.code, said.message


def _extension_part(situation: Situation, one: Extension, name: str) -> str | None:
    if situation.goal.state != "enabled":
        return _text(one.seen.document) if one.seen is not None and one.seen.document else None
    if situation.refused is not None:
        return _ours(name, "error", situation.refused.code, situation.refused.message)
    if one.outcome is not None and not one.outcome.succeeded:
        return _after_failure(situation, one, one.outcome, name)
    if one.seen is not None:
        return _from_file(situation, one, one.seen, name)
    if situation.activity or one.outcome is None or one.outcome.operation != ENABLE:
        return _ours(name, "transitioning", 0, situation.activity or "waiting to start")
    return _without_file(situation, one, one.outcome, name)


def _is_of_old_version(situation: Situation, version: str) -> bool:
    """A command of the version that is being replaced: its failure is the update's."""
    return situation.goal.state == "enabled" and version != situation.version


def _stopped_update(message: str) -> str:
    return f"[ExtensionUpdateError] {message}; ContinueOnUpdate: False"


def _after_failure(situation: Situation, one: Extension, outcome: Outcome, name: str) -> str:
    seen = one.seen
    if (
        seen is not None
        and not seen.error
        and seen.state in TERMINAL
        and seen.wall_ns >= outcome.started_wall_ns
    ):
        return _text(seen.document)  # the handler said so itself, during this operation
    if _is_of_old_version(situation, outcome.version):
        text = _stopped_update(outcome.message)
        return _ours(name, "error", handler_errors.UPDATE_FAILED, text)
    return _ours(name, "error", outcome.code, outcome.message)


def _from_file(situation: Situation, one: Extension, seen: Seen, name: str) -> str:
    if seen.error:
        if situation.now - seen.broken_since > BROKEN_PATIENCE_S:
            text = redact(plain(f"invalid status file: {seen.error}".encode("utf-8", "replace")))
            return _ours(name, "error", handler_errors.STATUS_INVALID, text)
        if not seen.document:
            return _ours(
                name, "transitioning", 0, situation.activity or "status file is not complete yet"
            )
    document = dict(seen.document or {})
    if seen.state in TERMINAL or situation.activity or one.is_alive:
        return _text(document)
    since_enable = situation.now - one.outcome.started_at if one.outcome is not None else 0.0
    if since_enable > LONGEST_S:
        return _ours(
            name,
            "error",
            handler_errors.UNKNOWN,
            f"the status stayed {seen.state} for {duration(since_enable)}{NOBODY}",
        )
    if situation.wall_ns - seen.wall_ns > SILENT_S * 10**9:
        formatted: Mapping[str, str] = document["formattedMessage"]
        document["formattedMessage"] = {**formatted, "message": formatted["message"] + NOBODY}
    return _text(document)


def _without_file(situation: Situation, one: Extension, enabled: Outcome, name: str) -> str:
    waited_s = situation.now - enabled.started_at
    limit_s = LONGEST_S if one.is_alive else NO_FILE_S
    if waited_s <= limit_s:
        return _ours(
            name,
            "transitioning",
            0,
            "enable succeeded, the handler has not written a status file yet",
        )
    text = (
        f"enable succeeded, but no status file for sequence {one.goal.sequence} came in"
        f" {duration(limit_s)}"
    )
    return _ours(name, "error", handler_errors.UNKNOWN, text)


def _text(document: Mapping[str, object] | None) -> str:
    """As it was bounded by its reader: escaped, 102 KB of Cyrillic would be 300 KB."""
    return json.dumps(document, ensure_ascii=False)


def _ours(name: str, state: str, code: int, message: str) -> str:
    return ExtensionStatus(
        state, code, redact(message)[:MESSAGE_LIMIT], operation="Enable"
    ).to_json(name)
