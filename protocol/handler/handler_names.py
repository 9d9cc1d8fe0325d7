"""Which names and versions may become paths, and which paths they become (spec: extensions
§1.1).
"""

from __future__ import annotations

from waagent.protocol.handler.handler_errors import NameRefused
from waagent.protocol.wire.identifiers import (
    is_extension_name,
    is_handler_name,
    is_version,
    version_numbers,
)

OWN_PACKAGE = "WALinuxAgent"
"""The predecessor's own package, never a handler."""

_SHOWN = 128


def refuse_bad_name(name: str) -> None:
    """Raises NameRefused when ``name`` must not become a folder."""
    if not is_handler_name(name) or name.lower() == OWN_PACKAGE.lower():
        raise NameRefused(
            "not a handler name",
            repr(name[:_SHOWN]),
            "letters, digits, dot, dash, underscore; at most 128",
        )


def refuse_bad_version(version: str) -> None:
    """Raises NameRefused when ``version`` is not one to four numbers."""
    if not is_version(version):
        raise NameRefused(
            "not a handler version",
            repr(version[:_SHOWN]),
            "one to four numbers with dots between them",
        )


def refuse_bad_extension(name: str) -> None:
    """Raises NameRefused when ``name`` must not become part of a file name."""
    if not is_extension_name(name):
        raise NameRefused(
            "not an extension name",
            repr(name[:_SHOWN]),
            "letters, digits, underscore, dot, dash; at most 128",
        )


def folder_name(name: str, version: str) -> str:
    """The handler's folder below <lib>."""
    return f"{name}-{version}"


def split_folder(folder: str) -> tuple[str, str] | None:
    """Name and version of a handler's folder, split at the last dash; None for any other folder."""
    name, dash, version = folder.rpartition("-")
    if (
        not dash
        or not is_handler_name(name)
        or not is_version(version)
        or name.lower() == OWN_PACKAGE.lower()
    ):
        return None
    return name, version


def version_key(version: str) -> tuple[int, ...]:
    """Numbers to compare by: ``1.0`` equals ``1.0.0.0``. ``version`` was accepted before."""
    return version_numbers(version)


def same_name(one: str, other: str) -> bool:
    """Handler names are equal whatever their case (spec: extensions §1.1)."""
    return one.lower() == other.lower()
