"""JSON that strangers wrote: bounded, shallow, without the constants that JSON does not have."""

from __future__ import annotations

import json
from typing import Any

from waagent.protocol.handler.handler_errors import JsonError

_DIGITS = 20  # of a number; int() of a million digits takes seconds before Python 3.11


def read_json(data: bytes, *, limit_bytes: int, depth: int) -> Any:
    """The value in ``data``; a BOM, trailing NUL and blanks are ignored, invalid UTF-8 is replaced.
    Raises JsonError.
    """
    if len(data) > limit_bytes:
        raise JsonError(f"{len(data)} bytes, limit {limit_bytes}")
    text = data.decode("utf-8", "replace").lstrip("\ufeff").strip("\x00 \t\r\n")
    if not text:
        raise JsonError("empty")
    try:
        value = json.loads(text, parse_int=_integer, parse_constant=_constant)
    except RecursionError as error:
        raise JsonError(f"nested deeper than {depth}") from error
    except ValueError as error:
        raise JsonError(str(error)) from error
    if _is_deeper(value, depth):
        raise JsonError(f"nested deeper than {depth}")
    return value


def plain_text(value: Any) -> str:
    """A text out of any JSON value: null is empty, lone surrogates become question marks."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise JsonError(f"a number of {len(digits)} digits")
    return int(digits)


def _constant(name: str) -> Any:
    raise JsonError(f"{name} is not JSON")


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return any(isinstance(item, (dict, list)) for item in level)


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [child for child in item.values() if isinstance(child, (dict, list))]
    if isinstance(item, list):
        return [child for child in item if isinstance(child, (dict, list))]
    return []
