"""RemoteAccess: users that the platform wants for a time (just-in-time access). Loads lxml."""

from __future__ import annotations

import base64
import binascii
import calendar
import time

from waagent.protocol.base import xml
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.bus.topics import RemoteUser
from waagent.protocol.wire import constants

WHERE = "RemoteAccess"
USERS_LIMIT = 64
PASSWORD_LIMIT_BYTES = 16 * 1024
_TIME = "%a, %d %b %Y %H:%M:%S"


def read_remote_access(data: bytes) -> tuple[tuple[RemoteUser, ...], tuple[str, ...]]:
    """(the users, each name once, the last entry counts; why others are left out). Raises
    DocumentError.
    """
    root = xml.read_xml(data, WHERE, limit_bytes=constants.GOAL_STATE_LIMIT_BYTES, root=WHERE)
    users: dict[str, RemoteUser] = {}
    findings: list[str] = []
    for entry in xml.children(xml.child(root, "Users"), "User"):
        name = xml.text_at(entry, "Name")
        try:
            users[name] = _user(name, entry)
        except DocumentError as error:
            findings.append(f"user {name[:40]!r}: {error.what}")
    if len(users) > USERS_LIMIT:
        raise DocumentError(f"{len(users)} users, the limit is {USERS_LIMIT}", WHERE)
    return tuple(users.values()), tuple(findings[:16])


def _user(name: str, entry: xml.Element) -> RemoteUser:
    password = "".join(xml.text_at(entry, "Password").split())
    try:
        cms = base64.b64decode(password, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError("the password is not base64", WHERE) from error
    if not name or not cms or len(cms) > PASSWORD_LIMIT_BYTES:
        raise DocumentError("name or password is missing or too long", WHERE)
    return RemoteUser(name, cms, _expires_at(xml.text_at(entry, "Expiration")))


def _expires_at(text: str) -> int:
    """Seconds since 1970 of `Fri, 05 Jun 2026 14:00:00 UTC`; names are English."""
    words = text.rpartition(" ")
    try:
        if words[2] not in ("UTC", "GMT"):
            raise ValueError
        return calendar.timegm(time.strptime(words[0], _TIME))
    except (ValueError, OverflowError) as error:
        raise DocumentError(
            "the expiration is not a time like Fri, 05 Jun 2026 14:00:00 UTC", WHERE
        ) from error
