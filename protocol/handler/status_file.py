"""A handler's status file: bytes in, one checked and bounded status out (spec: extensions §4.2,
§4.3).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from waagent.protocol.base.records import Record
from waagent.protocol.handler.handler_errors import (
    STATUS_INVALID,
    UNKNOWN,
    JsonError,
    StatusFileError,
)
from waagent.protocol.handler.json_text import plain_text, read_json

FILE_LIMIT_BYTES = 4 * 1024 * 1024
DEPTH = 64
STATES = ("transitioning", "warning", "error", "success")
TERMINAL = ("error", "success")

LARGE_FILE_BYTES = 131072  # above it texts are cut as the predecessor cuts them
LARGE_MESSAGE = 1024
LARGE_SUBSTATUS_TEXT = 10240
LARGE_SUBSTATUS_SUM = 131072
MESSAGE_LIMIT = 32 * 1024
SUBSTATUS_LIMIT = 2000
JSON_LIMIT_BYTES = 200 * 1024  # one status event is at most 256 KiB, the handler's part included
LANG = "en-US"  # the predecessor says so whatever the handler wrote
CUT = " ... [TRUNCATED]"

_DECIMAL = re.compile(r" *-?[0-9]{1,9} *")


class Substatus(Record):
    """One part of a status."""

    name: str
    status: str
    code: int
    message: str


class ExtensionStatus(Record):
    """What an extension says of itself, or what the agent says for it."""

    status: str
    """transitioning, warning, error or success."""
    code: int
    message: str
    operation: str | None = ""
    configuration_applied_time: str | None = None
    substatus: tuple[Substatus, ...] = ()

    @property
    def is_terminal(self) -> bool:
        """The platform waits no longer."""
        return self.status in TERMINAL

    def to_json(self, name: str) -> str:
        """The `status` object of settingsStatus for the extension ``name``, at most
        JSON_LIMIT_BYTES: substatus go first.
        """
        kept = self
        while True:
            text = json.dumps(_document(kept, name), ensure_ascii=False)
            if len(text.encode("utf-8", "replace")) <= JSON_LIMIT_BYTES or not kept.substatus:
                return text
            kept = kept._replace(substatus=kept.substatus[: len(kept.substatus) // 2])


def _document(status: ExtensionStatus, name: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": name,
        "configurationAppliedTime": status.configuration_applied_time,
        "operation": status.operation,
        "status": status.status,
        "code": status.code,
        "formattedMessage": {"lang": LANG, "message": status.message},
    }
    if status.substatus:
        document["substatus"] = [
            {
                "name": part.name,
                "status": part.status,
                "code": part.code,
                "formattedMessage": {"lang": LANG, "message": part.message},
            }
            for part in status.substatus
        ]
    return document


def parse_status(data: bytes) -> ExtensionStatus:
    """The status in a file's bytes. Raises StatusFileError with code 1012 and the reason."""
    try:
        document = read_json(data, limit_bytes=FILE_LIMIT_BYTES, depth=DEPTH)
    except JsonError as error:
        raise _invalid(f"not JSON ({error})") from error
    if not isinstance(document, list):
        raise _invalid("not an array")
    if not document or not isinstance(document[0], Mapping):
        raise _invalid("no object in the array")
    status = document[0].get("status")
    if not isinstance(status, Mapping):
        raise _invalid("no status object")
    return _bounded(_read_status(status), large=len(data) > LARGE_FILE_BYTES)


def _read_status(status: Mapping[str, Any]) -> ExtensionStatus:
    if "status" not in status:
        raise _invalid("status.status is missing")
    state = status["status"]
    message = _formatted(status.get("formattedMessage"))
    applied, operation = status.get("configurationAppliedTime"), status.get("operation")
    return ExtensionStatus(
        status=state if isinstance(state, str) and state in STATES else "error",
        code=_code(status.get("code")),
        message=message,
        operation=None if operation is None else plain_text(operation)[:LARGE_MESSAGE],
        configuration_applied_time=None if applied is None else plain_text(applied)[:LARGE_MESSAGE],
        substatus=_read_substatus(status.get("substatus")),
    )


def _read_substatus(parts: Any) -> tuple[Substatus, ...]:
    if parts is None:
        return ()
    if not isinstance(parts, list):
        raise _invalid("substatus is not an array")
    taken = []
    for part in parts:
        if part is None:
            continue
        if not isinstance(part, Mapping) or part.get("status") not in STATES:
            raise _invalid("a substatus without one of the four states")
        message = _formatted(part.get("formattedMessage"))
        taken.append(
            Substatus(
                plain_text(part.get("name")), part["status"], _code(part.get("code")), message
            )
        )
    return tuple(taken)


def _formatted(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, Mapping) or "lang" not in value or "message" not in value:
        raise _invalid("formattedMessage without lang and message")
    return plain_text(value["message"])


def _code(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool):
        return UNKNOWN
    if isinstance(value, int):
        return value if abs(value) < 2**31 else UNKNOWN
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    return UNKNOWN


def _bounded(status: ExtensionStatus, *, large: bool) -> ExtensionStatus:
    if not large:
        return status._replace(
            message=_cut(status.message, MESSAGE_LIMIT),
            substatus=status.substatus[:SUBSTATUS_LIMIT],
        )
    kept: list[Substatus] = []
    total = 0
    for part in status.substatus[:SUBSTATUS_LIMIT]:
        part = part._replace(
            name=_cut(part.name, LARGE_SUBSTATUS_TEXT),
            message=_cut(part.message, LARGE_SUBSTATUS_TEXT),
        )
        total += len(part.name) + len(part.message)
        if total > LARGE_SUBSTATUS_SUM:
            break
        kept.append(part)
    return status._replace(message=_cut(status.message, LARGE_MESSAGE), substatus=tuple(kept))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT


def _invalid(reason: str) -> StatusFileError:
    return StatusFileError(reason, "status file", "the handler must write it again", STATUS_INVALID)
