"""One frame of the bus: ``[version, kind, id, topic, deadline_ms, body]`` in msgpack, and the
limits that bound it.

Unpacking never raises anything but EnvelopeError, whatever the bytes, and never builds much more
than the bytes weigh: a million empty maps cost 139 ms and 70 MiB without these limits. What `pack`
makes, `unpack` takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from waagent.protocol.base import packed
from waagent.protocol.base.records import Record
from waagent.protocol.bus.bus_errors import EnvelopeError

VERSION = 1
# a worker may meet one of the build before while the agent is upgraded
ACCEPTED_VERSIONS = (VERSION, VERSION - 1)

REQUEST, ANSWER, ERROR, EVENT, SUBSCRIBE = "req", "rep", "err", "evt", "sub"
KINDS = frozenset({REQUEST, ANSWER, ERROR, EVENT, SUBSCRIBE})

ENVELOPE_LIMIT_BYTES = 1024 * 1024
TEXT_LIMIT_BYTES = 256 * 1024
LIMITS = packed.Limits(text_bytes=TEXT_LIMIT_BYTES, binary_bytes=ENVELOPE_LIMIT_BYTES)
TOPIC_LIMIT = 128
DEADLINE_LIMIT_MS = 24 * 3600 * 1000
_ID_LIMIT = 1 << 63

_REMEDY = "none needed, the frame is dropped"


class Envelope(Record):
    """One message. Unknown keys of ``body`` are ignored by whoever reads it."""

    kind: str
    id: int
    """Matches an answer to its request; 0 where nothing is answered. It dedupes nothing."""
    topic: str
    deadline_ms: int
    """Time that is left, not a time of day; 0 where there is none."""
    body: dict[str, Any]
    version: int = VERSION


def pack(kind: str, number: int, topic: str, deadline_ms: int, body: Mapping[str, Any]) -> bytes:
    """The frame of one message. Raises EnvelopeError when the receiver would not take it."""
    try:
        frame = packed.pack([VERSION, kind, number, topic, deadline_ms, dict(body)])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EnvelopeError(
            f"{type(error).__name__} while packing", topic, "send only plain values"
        ) from error
    try:
        unpack(frame)
    except EnvelopeError as error:
        raise EnvelopeError(error.what, topic, "send less, or in parts") from error
    return frame


def unpack(frame: bytes | memoryview) -> Envelope:
    """The message of one frame. Raises EnvelopeError, and nothing else."""
    if len(frame) > ENVELOPE_LIMIT_BYTES:
        raise EnvelopeError(
            f"frame of {len(frame)} bytes, limit {ENVELOPE_LIMIT_BYTES}", "bus", _REMEDY
        )
    fields = _unpack_bounded(frame)
    if not isinstance(fields, list) or len(fields) != 6:
        raise EnvelopeError("not an array of six", "bus", _REMEDY)
    version, kind, number, topic, deadline_ms, body = fields
    if not _is_number(version, 1 << 16) or version not in ACCEPTED_VERSIONS:
        raise EnvelopeError(
            f"version {str(version)[:20]} is not one of {ACCEPTED_VERSIONS}", "bus", _REMEDY
        )
    if not isinstance(kind, str) or kind not in KINDS:
        raise EnvelopeError("unknown kind", "bus", _REMEDY)
    if not _is_number(number, _ID_LIMIT) or not _is_number(deadline_ms, DEADLINE_LIMIT_MS + 1):
        raise EnvelopeError("id or deadline out of range", "bus", _REMEDY)
    if not isinstance(topic, str) or not 0 < len(topic) <= TOPIC_LIMIT or not topic.isprintable():
        raise EnvelopeError("not a topic", "bus", _REMEDY)
    if not isinstance(body, dict):
        raise EnvelopeError("the body is not a map", topic, _REMEDY)
    return Envelope(kind, number, topic, deadline_ms, body, version)


def _unpack_bounded(frame: bytes | memoryview) -> object:
    try:
        packed.verify(frame, LIMITS)
        fields: object = msgpack.unpackb(
            frame,
            raw=False,
            strict_map_key=True,
            max_array_len=LIMITS.array,
            max_map_len=LIMITS.map,
            max_str_len=LIMITS.text_bytes,
            max_bin_len=LIMITS.binary_bytes,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise EnvelopeError(
            f"not an envelope ({str(error)[:80] or type(error).__name__})", "bus", _REMEDY
        ) from error
    return fields


def _is_number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit
