"""Packs values, and looks through msgpack from outside before anything is built of it: shape,
sizes, depth, number of values.

msgpack before 1.2 (the newest that Python 3.9 can have is 1.1.2) never frees what it had built of a
message that turns out bad: 4 KiB of nested arrays cost 32 MiB each time, for ever. So no bad
message may reach it.
"""

from __future__ import annotations

from typing import Any

import msgpack

from waagent.protocol.base.records import Record

_KEPT_BYTES = 64 * 1024
_PLAIN = {
    0xC0: 0,
    0xC2: 0,
    0xC3: 0,
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}
_BINARY = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAY = {0xDC: 2, 0xDD: 4}
_MAP = {0xDE: 2, 0xDF: 4}


_packer = msgpack.Packer(use_bin_type=True)


class Limits(Record):
    """What a message may have."""

    text_bytes: int
    binary_bytes: int
    array: int = 4096
    map: int = 1024
    values: int = 65536
    """All of them together, keys included: nesting would get round the limits of one container."""
    depth: int = 32


def pack(value: Any) -> bytes:
    """msgpack of plain values, like `msgpack.packb`, which asks the system for 1 MiB each time and
    gives it back.
    """
    global _packer
    data: bytes = _packer.pack(value)
    if len(data) > _KEPT_BYTES:
        _packer = msgpack.Packer(use_bin_type=True)  # its buffer has grown
    return data


def verify(data: bytes | memoryview, limits: Limits) -> None:
    """``data`` is one value within ``limits``: plain types, keys of maps are text. Raises
    ValueError saying what is wrong.
    """
    size, at, values = len(data), 0, 0
    left, is_map = 1, False
    outer: list[tuple[int, bool]] = []
    while left or outer:
        if not left:
            left, is_map = outer.pop()
            continue
        values += 1
        if at >= size or values > limits.values:
            raise ValueError("it is cut off" if at >= size else f"more than {limits.values} values")
        is_key = is_map and left % 2 == 0
        left -= 1
        first = data[at]
        at += 1
        if 0xA0 <= first <= 0xBF or first in _TEXT:
            width = _TEXT.get(first, 0)
            end = _end(data, at, width, first & 0x1F, limits.text_bytes, "text")
            str(data[at + width : end], "utf-8")
            at = end
        elif is_key:
            raise ValueError("a key is not text")
        elif first <= 0x7F or first >= 0xE0:
            continue
        elif first in _PLAIN:
            at += _PLAIN[first]
        elif first in _BINARY:
            at = _end(data, at, _BINARY[first], 0, limits.binary_bytes, "binary")
        elif first <= 0x9F or first in _ARRAY or first in _MAP:
            outer.append((left, is_map))
            if len(outer) > limits.depth:
                raise ValueError(f"deeper than {limits.depth}")
            is_map = first <= 0x8F or first in _MAP
            width = (_MAP if is_map else _ARRAY).get(first, 0)
            left = _count(data, at, width, first & 0x0F, limits.map if is_map else limits.array) * (
                2 if is_map else 1
            )
            at += width
            if left > size - at:
                raise ValueError("it is cut off")
        else:
            raise ValueError("an extension type")
    if at != size:
        raise ValueError("something follows" if at < size else "it is cut off")


def _count(data: bytes | memoryview, at: int, width: int, short: int, limit: int) -> int:
    count = int.from_bytes(data[at : at + width], "big") if width else short
    if count > limit:
        raise ValueError(f"{count} values, limit {limit}")
    return count


def _end(data: bytes | memoryview, at: int, width: int, short: int, limit: int, what: str) -> int:
    length = int.from_bytes(data[at : at + width], "big") if width else short
    if length > limit:
        raise ValueError(f"{what} of {length} bytes, limit {limit}")
    if at + width + length > len(data):
        raise ValueError("it is cut off")
    return at + width + length
