"""A body that is too large for one frame, cut into parts and joined again. Pure.

Only the settings of a handler need it: the platform allows 512 KiB of public and of protected
settings, one frame takes 1 MiB and one text 256 KiB.
"""

from __future__ import annotations

import json
from _blake2 import blake2b  # hashlib would load OpenSSL, 1 MiB in every resident worker
from collections.abc import Mapping, Sequence
from typing import Any

from waagent.protocol.base.records import Record

WHOLE_LIMIT_BYTES = 192 * 1024  # no text in such a body reaches the frame's limit
PART_BYTES = 512 * 1024
PARTS_LIMIT = 16


class Part(Record):
    """One part of a body; ``digest`` says of which one."""

    digest: str
    number: int
    total: int
    data: bytes


def cut(body: Mapping[str, Any], number: int) -> Part | None:
    """Part ``number`` of ``body``; None when it needs no parts. Raises ValueError when there is no
    such part.
    """
    data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    if len(data) <= WHOLE_LIMIT_BYTES:
        return None
    count = -(-len(data) // PART_BYTES)
    if not 0 <= number < count <= PARTS_LIMIT:
        raise ValueError(f"no part {number} of {count}")
    piece = data[number * PART_BYTES : (number + 1) * PART_BYTES]
    return Part(blake2b(data, digest_size=16).hexdigest(), number, count, piece)


def joined(parts: Sequence[Part]) -> dict[str, Any]:
    """The body that all ``parts`` together are. Raises ValueError when they are not of one body."""
    data = b"".join(part.data for part in parts)
    if any(
        (part.digest, part.number, part.total) != (parts[0].digest, number, len(parts))
        for number, part in enumerate(parts)
    ) or (blake2b(data, digest_size=16).hexdigest() != parts[0].digest):
        raise ValueError("parts of different bodies")
    body = json.loads(data)
    if not isinstance(body, dict):
        raise ValueError("the parts are no map")
    return body
