"""vmSettings of the HostGAPlugin: the same goal as ExtensionsConfig, in JSON, its keys in any case
at every level. Loads lxml through what both share.

As there, an error inside one handler's part is that handler's; what is wrong about the document
raises DocumentError.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.bus.topics import Dependency, ExtensionGoal, HandlerGoal
from waagent.protocol.wire import blob_requests, constants, identifiers, urls
from waagent.protocol.wire.extensions_config import (
    FABRIC,
    FAST_TRACK,
    HANDLERS_LIMIT,
    Artifacts,
    ExtensionsGoal,
    bare_goal,
    in_bounds,
    in_error,
    printable,
    read_ticks,
    unsupported_features,
    usable_urls,
)
from waagent.protocol.wire.plugin_settings import EXTENSIONS_LIMIT, SettingsError, read_protected

WHERE = "vmSettings"
OLDEST_PLUGIN = (1, 0, 8, 133)
"""Of hostGAPluginVersion: what older ones answer is not to be used."""
DEPTH_LIMIT = 64
_STATES = ("enabled", "disabled", "uninstall")


class NotSupported(DocumentError):
    """The host is too old for vmSettings: as if it had answered 404."""


def read_vm_settings(data: bytes, etag: str) -> ExtensionsGoal:
    """The goal of one document; ``etag`` is its identity. Raises DocumentError, NotSupported."""
    root = _folded(_load(data))
    version = str(root.get("hostgapluginversion") or "")
    if not identifiers.is_version(version) or identifiers.version_numbers(version) < OLDEST_PLUGIN:
        raise NotSupported(f"hostGAPluginVersion is {version[:40]!r}", WHERE)
    findings: list[str] = []
    goals: dict[str, HandlerGoal] = {}
    artifacts: dict[str, Artifacts] = {}
    entries = _array(root, "extensiongoalstates")
    if len(entries) > HANDLERS_LIMIT:
        raise DocumentError(f"{len(entries)} handlers, the limit is {HANDLERS_LIMIT}", WHERE)
    goal_state_id = f"etag_{printable(etag)}"
    for entry in entries:
        name = _text(entry, "name")
        key = name.lower()
        goal = _handler_goal(entry, goal_state_id)
        if key in goals:
            goals[key] = in_error(goals[key], "the goal state names this handler more than once")
            continue
        goals[key] = goal
        places = [_text(entry, "location"), _text(entry, "failoverlocation")]
        more = entry.get("additionallocations")
        places += (
            [place for place in more if isinstance(place, str)] if isinstance(more, list) else []
        )
        artifacts[key] = Artifacts(goal.name, usable_urls(places))
    url, kind = _status_blob(root, findings)
    return ExtensionsGoal(
        tuple(goals.values()),
        tuple(artifacts.values()),
        unsupported_features(_text(item, "name") for item in _array(root, "requiredfeatures")),
        url,
        kind,
        tuple(findings),
        goal_state_id,
        FAST_TRACK if _text(root, "extensiongoalstatessource").lower() == "fasttrack" else FABRIC,
        read_ticks(str(root.get("extensionslastmodifiedtickcount", ""))),
        printable(str(root.get("insvdseqno", "")))[:40],
        is_on_hold=_is_true(root.get("onhold")),
    )


def _load(data: bytes) -> Any:
    if len(data) > constants.EXTENSIONS_LIMIT_BYTES:
        raise DocumentError(f"more than {constants.EXTENSIONS_LIMIT_BYTES} bytes", WHERE)
    try:
        found = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DocumentError("not JSON", WHERE) from error
    if not isinstance(found, dict):
        raise DocumentError("not a JSON object", WHERE)
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _folded(value: Any, depth: int = 0) -> Any:
    """``value`` with all keys in lower case, at every level."""
    if depth > DEPTH_LIMIT:
        raise DocumentError(f"nested deeper than {DEPTH_LIMIT}", WHERE)
    if isinstance(value, dict):
        return {key.lower(): _folded(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_folded(item, depth + 1) for item in value]
    return value


def _array(owner: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """An array of objects, empty when it is absent or null. Raises DocumentError."""
    found = owner.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise DocumentError(f"{name} is not an array of objects", WHERE)
    return found


def _text(owner: dict[str, Any], name: str) -> str:
    found = owner.get(name)
    return found.strip() if isinstance(found, str) else ""


def _is_true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _status_blob(root: dict[str, Any], findings: list[str]) -> tuple[str, str]:
    blob = root.get("statusuploadblob")
    if not isinstance(blob, dict):
        findings.append("no statusUploadBlob: status cannot be sent with this goal state")
        return "", constants.BLOCK_BLOB
    kind = blob_requests.blob_type(_text(blob, "statusblobtype"))
    try:
        return urls.storage_url(_text(blob, "value"), f"{WHERE}: statusUploadBlob"), kind
    except DocumentError as error:
        findings.append(str(error))
        return "", kind


def _handler_goal(entry: dict[str, Any], goal_state_id: str) -> HandlerGoal:
    goal = bare_goal(
        _text(entry, "name"), _text(entry, "version"), _text(entry, "state"), goal_state_id
    )
    if goal.error:
        return goal
    multi_config = _is_true(entry.get("ismulticonfig"))
    try:
        settings = _array(entry, "settings")
        depends = _array(entry, "dependson")
    except DocumentError as error:
        return in_error(goal, error.what)
    if len(settings) > (EXTENSIONS_LIMIT if multi_config else 1):
        return in_error(goal, f"{len(settings)} settings are too many")
    extensions: list[ExtensionGoal] = []
    problem = "" if multi_config or len(depends) < 2 else "several dependsOn"
    for item in settings:
        extension, error_text = _extension(entry, item, depends, multi_config=multi_config)
        if any(extension.name.lower() == other.name.lower() for other in extensions):
            error_text = error_text or f"the extension {extension.name} is named twice"
        problem = problem or error_text
        extensions.append(extension)
    goal = goal._replace(multi_config=multi_config, extensions=tuple(extensions))
    return in_bounds(goal, problem or _unclaimed(depends, extensions, multi_config=multi_config))


def _extension(
    entry: dict[str, Any],
    item: dict[str, Any],
    depends: list[dict[str, Any]],
    *,
    multi_config: bool,
) -> tuple[ExtensionGoal, str]:
    """One extension, and why it cannot be used; then it keeps name and sequence number."""
    name = _text(item, "extensionname") if multi_config else ""
    state = _text(item, "extensionstate").lower() if multi_config else "enabled"
    sequence = item.get("seqno") if multi_config else entry.get("settingsseqno")
    is_number = isinstance(sequence, int) and not isinstance(sequence, bool) and sequence >= 0
    bare = ExtensionGoal(
        printable(name),
        int(sequence) if is_number and sequence < 10**9 else 0,  # type: ignore[arg-type,operator]
        "disabled" if state == "disabled" else "enabled",
        "null",
    )
    try:
        if multi_config and not identifiers.is_extension_name(name):
            raise SettingsError(f"{printable(name)[:60]!r} is not the name of an extension")
        if not is_number or bare.sequence != sequence:
            raise SettingsError("the sequence number is missing or not a number")
        if state not in ("enabled", "disabled"):
            raise SettingsError(f"the state {printable(state)[:40]!r} is not enabled or disabled")
        public = _public(item.get("publicsettings"))
        protected, thumbprint = read_protected(
            item.get("protectedsettings"), item.get("protectedsettingscertthumbprint")
        )
        level, depends_on = _dependencies(name, depends, multi_config=multi_config)
    except SettingsError as error:
        return bare, str(error)
    return (
        ExtensionGoal(
            bare.name, bare.sequence, bare.state, public, protected, thumbprint, level, depends_on
        ),
        "",
    )


def _public(text: Any) -> str:
    """publicSettings: a text that holds JSON here, an object in ExtensionsConfig."""
    if text is None:
        return "null"
    try:
        if not isinstance(text, str):
            raise ValueError
        found = json.dumps(json.loads(text, parse_constant=_refuse_constant))
        found.encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise SettingsError("publicSettings is not a text that holds JSON") from error
    return found


def _dependencies(
    name: str, depends: list[dict[str, Any]], *, multi_config: bool
) -> tuple[int, tuple[Dependency, ...]]:
    mine = [
        item for item in depends if not multi_config or _text(item, "name").lower() == name.lower()
    ]
    if len(mine) > 1:
        raise SettingsError("several dependsOn for one extension")
    if not mine:
        return 0, ()
    level = mine[0].get("dependencylevel")
    found = []
    for handler, extension in _named(mine[0]):
        if not identifiers.is_handler_name(handler) or (
            extension and not identifiers.is_extension_name(extension)
        ):
            raise SettingsError("a dependsOnExtension without a usable name")
        found.append(Dependency(handler, extension))
    is_level = isinstance(level, int) and not isinstance(level, bool) and abs(level) < 10**6
    return (int(level) if is_level else 0), tuple(found[:EXTENSIONS_LIMIT])  # type: ignore[arg-type]


def _named(depends_on: dict[str, Any]) -> Iterator[tuple[str, str]]:
    found = depends_on.get("dependsonextension")
    for item in found if isinstance(found, list) else ():
        if not isinstance(item, dict):
            raise SettingsError("a dependsOnExtension is not an object")
        yield _text(item, "handler"), _text(item, "extension")


def _unclaimed(
    depends: list[dict[str, Any]], extensions: list[ExtensionGoal], *, multi_config: bool
) -> str:
    known = {extension.name.lower() for extension in extensions}
    for item in depends if multi_config else ():
        if _text(item, "name").lower() not in known:
            return f"dependsOn names {printable(_text(item, 'name'))[:60]!r}, which has no settings"
    return ""
