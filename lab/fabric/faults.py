"""Switches: how an answer of the platform goes wrong. A fault names its target and
how often it acts.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from waagent.lab.fabric.authority import WRONG
from waagent.lab.fabric.values import Answer

TARGETS = (
    "versions",
    "goal_state",
    "hosting_environment",
    "shared_config",
    "extensions_config",
    "full_config",
    "certificates",
    "remote_access",
    "health",
    "role_properties",
    "telemetry",
    "health_service",
    "plugin_versions",
    "plugin_health",
    "vm_settings",
    "artifact",
    "status",
    "agent_log",
    "storage",
    "metadata",
    "tls",
)
HUGE_BYTES = 50 * 1024 * 1024

_HTML = (
    b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Welcome to the"
    b" hotel</h1></body></html>"
)
_DTD = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">'
    + b"".join(
        b'<!ENTITY %c "%s">' % (98 + level, b"&%c;" % (97 + level) * 10) for level in range(9)
    )
    + b"<!ENTITY file SYSTEM"
    b' "file:///etc/hostname">]><GoalState><Version>&j;</Version><Incarnation>&file;</Incarnation></GoalState>'
)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, for the requests of one target."""

    target: str
    """One of TARGETS, or `*`."""
    kind: str
    """One of KINDS, or `status:CODE`."""
    times: int | None = None
    """How many requests it spoils; None: until it is taken away."""
    argument: float = 0.0
    """Seconds: between two bytes (drip), before the connection is closed (hang, stall), before the
    answer (delay), that the platform's clock is ahead (clock).
    """


def spoil(answer: Answer, kind: str) -> Answer:
    """The answer with its content gone wrong; kinds that concern the transport leave it as it
    is.
    """
    if kind.startswith("status:"):
        return Answer(int(kind.partition(":")[2]), b"", "text/plain")
    change = KINDS.get(kind)
    return answer if change is None else change(answer)


KINDS: dict[str, Callable[[Answer], Answer] | None] = {
    # content
    "html": lambda answer: Answer(200, _HTML, "text/html"),
    "garbage": lambda answer: Answer(200, os.urandom(4096), "application/octet-stream"),
    "dtd": lambda answer: Answer(200, _DTD),
    "empty": lambda answer: dataclasses.replace(answer, body=b""),
    "truncated": lambda answer: dataclasses.replace(
        answer, body=answer.body[: len(answer.body) // 2]
    ),
    "bom": lambda answer: dataclasses.replace(answer, body=b"\xef\xbb\xbf" + answer.body),
    "redirect": lambda answer: Answer(
        302, b"", headers={"Location": "http://198.51.100.7/elsewhere"}
    ),
    "stale": lambda answer: Answer(400, b"InvalidContainerConfiguration", "text/plain"),
    # transport
    "short": None,  # Content-Length promises twice as much as comes
    "huge": None,  # 50 MB, with Content-Length
    "huge_open": None,  # 50 MB, without
    "drip": None,  # one byte every `argument` seconds
    "hang": None,  # nothing for `argument` seconds, then the connection ends
    "stall": None,  # half of the body, nothing for `argument` seconds, then the connection ends
    "delay": None,  # the answer comes whole, `argument` seconds late
    "reset": None,  # the connection is reset
    "clock": None,  # the `Date` of the answer is `argument` seconds ahead
    # of the target `tls` only: the certificate that is shown
    **dict.fromkeys(WRONG),
}
ENDS_CONNECTION = ("short", "huge", "huge_open", "hang", "stall", "reset")


def transmit(
    connection: socket.socket,
    head: Callable[[int | None], bytes],
    answer: Answer,
    fault: Fault | None,
) -> None:
    """Send ``answer`` the way ``fault`` says; ``head`` makes the HTTP head for a content length
    (None: without one).
    """
    kind = fault.kind if fault is not None else ""
    seconds = fault.argument if fault is not None else 0.0
    if kind == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        return
    if kind == "hang":
        time.sleep(seconds or 30.0)
        return
    if kind == "stall":
        connection.sendall(head(len(answer.body)) + answer.body[: len(answer.body) // 2])
        time.sleep(seconds or 30.0)
        return
    if kind == "delay":
        time.sleep(seconds or 5.0)
    if kind in ("huge", "huge_open"):
        connection.sendall(head(HUGE_BYTES if kind == "huge" else None))
        for piece in _huge(answer.body):
            connection.sendall(piece)
        return
    if kind == "drip":
        connection.sendall(head(len(answer.body)))
        for position in range(len(answer.body)):
            time.sleep(seconds or 9.0)
            connection.sendall(answer.body[position : position + 1])
        return
    connection.sendall(head(len(answer.body) * (2 if kind == "short" else 1)) + answer.body)


def _huge(body: bytes) -> Iterator[bytes]:
    yield body
    left = HUGE_BYTES - len(body)
    piece = b"<!-- filler -->\n" * 4096
    while left > 0:
        yield piece[:left]
        left -= len(piece)
