"""Which names and versions may become paths, and which paths they become (spec: extensions §1.1)."""

from __future__ import annotations

import re

from waagent.protocol.handler.errors import NameRefused

NAME_LIMIT = 128
OWN_PACKAGE = "WALinuxAgent"
"""The predecessor's own package, never a handler."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,3}")
_VERSION_LIMIT = 64
_EXTENSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def refuse_bad_name(name: str) -> None:
    """Raises NameRefused when ``name`` must not become a folder."""
    if not _NAME.fullmatch(name) or len(name) > NAME_LIMIT or name.lower() == OWN_PACKAGE.lower():
        raise NameRefused("not a handler name", repr(name[:NAME_LIMIT]), "letters, digits, dot, dash, underscore; at most 128")


def refuse_bad_version(version: str) -> None:
    """Raises NameRefused when ``version`` is not one to four numbers."""
    if not _VERSION.fullmatch(version) or len(version) > _VERSION_LIMIT:
        raise NameRefused("not a handler version", repr(version[:_VERSION_LIMIT]), "one to four numbers with dots between them")


def refuse_bad_extension(name: str) -> None:
    """Raises NameRefused when ``name`` must not become part of a file name."""
    if not _EXTENSION.fullmatch(name) or len(name) > NAME_LIMIT:
        raise NameRefused("not an extension name", repr(name[:NAME_LIMIT]), "letters, digits, underscore, dot, dash; at most 128")


def folder_name(name: str, version: str) -> str:
    """The handler's folder below <lib>."""
    return f"{name}-{version}"


def split_folder(folder: str) -> tuple[str, str] | None:
    """Name and version of a handler's folder, split at the last dash; None for any other folder."""
    name, dash, version = folder.rpartition("-")
    if not dash or not _NAME.fullmatch(name) or not _VERSION.fullmatch(version) or name.lower() == OWN_PACKAGE.lower():
        return None
    return name, version


def version_key(version: str) -> tuple[int, ...]:
    """Numbers to compare by: ``1.0`` equals ``1.0.0.0``. ``version`` was accepted before."""
    numbers = tuple(int(part) for part in version.split("."))
    return numbers + (0,) * (4 - len(numbers))


def same_name(one: str, other: str) -> bool:
    """Handler names are equal whatever their case (spec: extensions §1.1)."""
    return one.lower() == other.lower()
