"""One PluginSettings entry of ExtensionsConfig: sequence numbers, settings, dependencies (spec:
wire §4.2). Loads lxml.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from waagent.protocol.base import xml
from waagent.protocol.bus.topics import Dependency, ExtensionGoal
from waagent.protocol.wire import identifiers

_SEQUENCE = re.compile(r"[0-9]{1,9}")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
EXTENSIONS_LIMIT = 256


class SettingsError(Exception):
    """The settings of one handler cannot be used; the text says why."""


def read_extensions(entry: xml.Element) -> tuple[bool, tuple[ExtensionGoal, ...], str]:
    """(multi-config, the extensions, the first error or empty); an extension in error keeps name
    and sequence number.
    """
    single = list(xml.children(entry, "RuntimeSettings"))
    multi = list(xml.children(entry, "ExtensionRuntimeSettings"))
    depends = list(xml.children(entry, "DependsOn"))
    if single and multi:
        return False, (), "both RuntimeSettings and ExtensionRuntimeSettings"
    if len(single) > 1:
        return False, (), "several RuntimeSettings"
    if len(multi) > EXTENSIONS_LIMIT:
        return True, (), f"{len(multi)} extensions, the limit is {EXTENSIONS_LIMIT}"
    extensions: list[ExtensionGoal] = []
    problem = "several DependsOn" if single and len(depends) > 1 else ""
    for element in single or multi:
        extension, error = _read_one(element, depends, multi_config=bool(multi))
        problem = problem or error
        if any(extension.name.lower() == other.name.lower() for other in extensions):
            problem = problem or f"the extension {extension.name} is named twice"
        extensions.append(extension)
    return (
        bool(multi),
        tuple(extensions),
        problem or _unclaimed(depends, extensions, multi_config=bool(multi)),
    )


def _read_one(
    element: xml.Element, depends: list[xml.Element], *, multi_config: bool
) -> tuple[ExtensionGoal, str]:
    name = xml.attribute(element, "name") if multi_config else ""
    state = (xml.attribute(element, "state").lower() or "enabled") if multi_config else "enabled"
    shown = "".join(character for character in name if character.isprintable())[:128]
    sequence_text = xml.attribute(element, "seqNo")
    is_number = _SEQUENCE.fullmatch(sequence_text) is not None
    bare = ExtensionGoal(
        shown,
        int(sequence_text) if is_number else 0,
        "disabled" if state == "disabled" else "enabled",
        "null",
    )
    try:
        if multi_config and not identifiers.is_extension_name(name):
            raise SettingsError(f"{shown[:60]!r} is not the name of an extension")
        if not is_number:
            raise SettingsError(f"seqNo is {sequence_text[:40]!r}, not a number")
        if state not in ("enabled", "disabled"):
            raise SettingsError(
                f"the state {state[:40]!r} of an extension is not enabled or disabled"
            )
        public, protected, thumbprint = read_settings(xml.text_of(element))
        level, depends_on = _dependencies(name, depends, multi_config=multi_config)
    except SettingsError as error:
        return bare, str(error)
    return (
        ExtensionGoal(
            bare.name, bare.sequence, bare.state, public, protected, thumbprint, level, depends_on
        ),
        "",
    )


def read_settings(text: str) -> tuple[str, str | None, str | None]:
    """(publicSettings as JSON text, protectedSettings, thumbprint) of a RuntimeSettings text.
    Raises SettingsError.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
        settings = document["runtimeSettings"]
        if not isinstance(settings, list) or len(settings) != 1:
            raise SettingsError("runtimeSettings is not an array with one item")
        handler = settings[0]["handlerSettings"]
        if not isinstance(handler, dict):
            raise SettingsError("handlerSettings is not an object")
        public = json.dumps(handler.get("publicSettings"))
        public.encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise SettingsError("the settings are not JSON") from error
    except (KeyError, TypeError) as error:
        raise SettingsError("the settings have no runtimeSettings or handlerSettings") from error
    return public, *read_protected(
        handler.get("protectedSettings"), handler.get("protectedSettingsCertThumbprint")
    )


def read_protected(protected: Any, thumbprint: Any) -> tuple[str | None, str | None]:
    """Protected settings and the thumbprint of their certificate, as either document has them.
    Raises SettingsError.
    """
    if protected is not None and (
        not isinstance(protected, str) or not _BASE64.fullmatch(protected)
    ):
        raise SettingsError("protectedSettings is not base64 text")
    if thumbprint is not None:
        if not isinstance(thumbprint, str) or (
            thumbprint and not identifiers.is_thumbprint(thumbprint.upper())
        ):
            raise SettingsError("protectedSettingsCertThumbprint is not 40 hex digits")
        thumbprint = thumbprint.upper() or None
    if protected and thumbprint is None:
        raise SettingsError("protectedSettings without protectedSettingsCertThumbprint")
    return protected, thumbprint


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _dependencies(
    name: str, depends: list[xml.Element], *, multi_config: bool
) -> tuple[int, tuple[Dependency, ...]]:
    """Level and names of the DependsOn that concerns the extension ``name``."""
    mine = [
        item
        for item in depends
        if not multi_config or xml.attribute(item, "name").lower() == name.lower()
    ]
    if len(mine) > 1:
        raise SettingsError("several DependsOn for one extension")
    if not mine:
        return 0, ()
    level_text = xml.attribute(mine[0], "dependencyLevel")
    level = int(level_text) if re.fullmatch(r"-?[0-9]{1,6}", level_text) else 0
    found: list[Dependency] = []
    for item in xml.children(mine[0], "DependsOnExtension"):
        handler, extension = xml.attribute(item, "handler"), xml.attribute(item, "extension")
        if not identifiers.is_handler_name(handler) or (
            extension and not identifiers.is_extension_name(extension)
        ):
            raise SettingsError("a DependsOnExtension without a usable name")
        found.append(Dependency(handler, extension))
    return level, tuple(found[:EXTENSIONS_LIMIT])


def _unclaimed(
    depends: list[xml.Element], extensions: list[ExtensionGoal], *, multi_config: bool
) -> str:
    known = {extension.name.lower() for extension in extensions}
    for item in depends if multi_config else ():
        name = xml.attribute(item, "name")
        if name.lower() not in known:
            return (
                f"DependsOn names {name[:60]!r}, which has no settings"
                if name
                else "DependsOn without name"
            )
    return ""
