"""Which names, versions and thumbprints from the platform may become file names (spec: extensions
§1.1, wire §7.3).
"""

from __future__ import annotations

import re

_HANDLER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_EXTENSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
_THUMBPRINT = re.compile(r"[0-9A-F]{40}")


def is_handler_name(text: str) -> bool:
    """`Publisher.Type`."""
    return _HANDLER.fullmatch(text) is not None


def is_extension_name(text: str) -> bool:
    """The name of one extension of a multi-config handler."""
    return _EXTENSION.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """One to four decimal numbers."""
    return _VERSION.fullmatch(text) is not None


def is_thumbprint(text: str) -> bool:
    """SHA-1 of a certificate, 40 upper-case hex digits."""
    return _THUMBPRINT.fullmatch(text) is not None


def version_numbers(text: str) -> tuple[int, ...]:
    """The version as numbers, padded to four: `1.2` equals `1.2.0.0`. The text must be a
    version.
    """
    numbers = tuple(int(part) for part in text.split("."))
    return numbers + (0,) * (4 - len(numbers))
