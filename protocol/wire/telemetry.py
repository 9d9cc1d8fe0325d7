"""Telemetry as the WireServer takes it: events of one provider, several in a request. Pure.

The body's limit is the predecessor's, 2^16 - 2^10 bytes of events; each event is XML in CDATA, its
values escaped twice over: once as attributes, once against `]]>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Union

from waagent.protocol.base.records import Record
from waagent.protocol.wire.health import escape

PROVIDER = "69B669B9-4AF8-4C50-BDC4-6006FA76E975"
EVENTS_LIMIT_BYTES = 64512
MESSAGE_LIMIT_BYTES = 3072
EVENT_ID = 1

Value = Union[bool, int, str]


class Event(Record):
    """Something that happened, as the platform's analysis knows it."""

    operation: str
    is_success: bool
    message: str
    at: str
    """UTC, `YYYY-MM-DDTHH:MM:SS.ffffffZ`."""
    name: str = "WALinuxAgent"
    version: str = ""
    duration_ms: int = 0


def event_text(event: Event, common: Mapping[str, Value], version: str) -> str:
    """One `Event` element; ``common`` are the parameters that all events share."""
    values: dict[str, Value] = {
        "Name": event.name,
        "Version": event.version or version,
        "Operation": event.operation,
        "OperationSuccess": event.is_success,
        "Message": event.message,
        "Duration": event.duration_ms,
        "ExtensionType": "",
        "IsInternal": False,
        **common,
        "OpcodeName": event.at,
    }
    parameters = "".join(_parameter(name, value) for name, value in values.items())
    return f'<Event id="{EVENT_ID}"><![CDATA[{parameters}]]></Event>'


def _parameter(name: str, value: Value) -> str:
    kind = (
        "mt:bool"
        if isinstance(value, bool)
        else "mt:uint64"
        if isinstance(value, int)
        else "mt:wstr"
    )
    text = str(value)
    # what reads them is said not to take more than ASCII everywhere
    plain = text.encode("ascii", "replace").decode("ascii")
    return f'<Param Name="{name}" Value="{escape(plain, MESSAGE_LIMIT_BYTES)}" T="{kind}" />'


def batches(texts: Sequence[str]) -> Iterable[tuple[bytes, int]]:
    """(body, how many of ``texts`` it carries), in order; one that fits in no body is left out of
    it, and counted.
    """
    taken: list[str] = []
    count = size_bytes = 0
    for text in texts:
        length = len(text)
        if size_bytes + length > EVENTS_LIMIT_BYTES and taken:
            yield _body(taken), count
            taken, count, size_bytes = [], 0, 0
        count += 1
        if length <= EVENTS_LIMIT_BYTES:
            taken.append(text)
            size_bytes += length
    if count:
        yield _body(taken), count


def _body(texts: Iterable[str]) -> bytes:
    events = "".join(texts)
    return (
        f'<?xml version="1.0"?><TelemetryData version="1.0"><Provider id="{PROVIDER}">'
        f"{events}</Provider></TelemetryData>"
    ).encode("ascii")


class Observation(Record):
    """One finding for the host's health service."""

    name: str
    is_healthy: bool
    description: str = ""
    value: str = ""


OBSERVATIONS_LIMIT = 10


def observations_body(observations: Iterable[Observation]) -> bytes:
    """The body of POST /HealthService."""
    told = [
        {
            "ObservationName": one.name[:64],
            "IsHealthy": one.is_healthy,
            "Description": one.description[:128],
            "Value": one.value[:128],
        }
        for one in observations
    ]
    return json.dumps(
        {
            "Api": "reporttargethealth",
            "Version": "1.0",
            "Source": "WALinuxAgent",
            "Observations": told[:OBSERVATIONS_LIMIT],
        }
    ).encode("ascii")
