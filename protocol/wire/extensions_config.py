"""ExtensionsConfig of the WireServer (spec: wire §4, extensions §1.1): what each handler is to
become. Loads lxml.

An error inside one handler's part is that handler's (`HandlerGoal.error`); only a document that
cannot be read at all raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from waagent.protocol.base import xml
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.bus.topics import HANDLER_LIMIT_BYTES, HandlerGoal
from waagent.protocol.wire import blob_requests, constants, identifiers, urls
from waagent.protocol.wire.plugin_settings import SettingsError, read_extensions

WHERE = "ExtensionsConfig"
SUPPORTED_FEATURES = frozenset({"MultipleExtensionsPerHandler", "FastTrack"})
HANDLERS_LIMIT = 1024
# one text on the bus (bus/envelope.py); larger ones are real with scripts in protected settings
SETTING_LIMIT_BYTES = 512 * 1024
FABRIC, FAST_TRACK = "Fabric", "FastTrack"
CONFIG_ERRORS = "Ran into config errors: "
_STATES = ("enabled", "disabled", "uninstall")


@dataclass(frozen=True)
class Artifacts:
    """Where the publisher manifest of one handler is, in the order of the document."""

    name: str
    manifest_urls: tuple[str, ...]


@dataclass(frozen=True)
class ExtensionsGoal:
    """All of the extensions part."""

    handlers: tuple[HandlerGoal, ...] = ()
    artifacts: tuple[Artifacts, ...] = ()
    unsupported_features: tuple[str, ...] = ()
    status_url: str = ""
    status_blob_type: str = constants.BLOCK_BLOB
    findings: tuple[str, ...] = ()
    """Oddities that concern no handler, for the log."""
    goal_state_id: str = ""
    """`incarnation_N` or `etag_X`."""
    source: str = FABRIC
    """FABRIC: written with an incarnation; FAST_TRACK: by the host, without one."""
    created_ticks: int = 0
    """Units of 100 ns since 0001-01-01 UTC; the newer of two goal states is the one to follow."""
    sequence: str = ""
    """What the status blob names as inSvdSeqNo: of a FAST_TRACK document its own number, else the
    incarnation.
    """
    profile_url: str = ""
    """The artifacts profile, which may say `onHold`; empty: none."""
    is_on_hold: bool = False


def read_extensions_config(data: bytes, goal_state_id: str) -> ExtensionsGoal:
    """The handlers in document order. Raises DocumentError when the document as a whole is
    unusable.
    """
    root = xml.read_xml(
        data, WHERE, limit_bytes=constants.EXTENSIONS_LIMIT_BYTES, root="Extensions"
    )
    findings: list[str] = []
    plugins = list(xml.children(xml.child(root, "Plugins"), "Plugin"))
    settings = list(xml.children(xml.child(root, "PluginSettings"), "Plugin"))
    if len(plugins) > HANDLERS_LIMIT:
        raise DocumentError(f"{len(plugins)} handlers, the limit is {HANDLERS_LIMIT}", WHERE)
    goals: dict[str, HandlerGoal] = {}
    artifacts: dict[str, Artifacts] = {}
    for plugin in plugins:
        name = xml.attribute(plugin, "name")
        if not name:
            findings.append("a Plugin without name is left out")
            continue
        goal = _handler_goal(plugin, settings, goal_state_id)
        earlier = goals.get(name.lower())
        if earlier is not None:
            goals[name.lower()] = in_error(
                earlier, "the goal state names this handler more than once"
            )
            continue
        goals[name.lower()] = goal
        artifacts[name.lower()] = Artifacts(goal.name, _manifest_urls(plugin))
    url, kind = _status_blob(root, findings)
    return ExtensionsGoal(
        tuple(goals.values()),
        tuple(artifacts.values()),
        unsupported_features(
            xml.text_at(item, "Name")
            for item in xml.children(xml.child(root, "RequiredFeatures"), "RequiredFeature")
        ),
        url,
        kind,
        tuple(findings),
        goal_state_id,
        FABRIC,
        read_ticks(xml.attribute(xml.child(root, "InVMGoalStateMetaData"), "createdOnTicks")),
        goal_state_id.rpartition("_")[2],
        _profile_url(root, findings),
    )


def read_ticks(text: str) -> int:
    """A time in ticks, exact (it exceeds 2^53); 0 for what is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else 0


def _profile_url(root: xml.Element, findings: list[str]) -> str:
    text = xml.text_of(xml.child(root, "InVMArtifactsProfileBlob"))
    try:
        return urls.storage_url(text, f"{WHERE}: InVMArtifactsProfileBlob") if text else ""
    except DocumentError as error:
        findings.append(str(error))
        return ""


def bare_goal(name: str, version: str, state: str, goal_state_id: str) -> HandlerGoal:
    """A handler as its entry names it, in error when that cannot be; without settings."""
    state = state.lower()
    goal = HandlerGoal(
        printable(name),
        printable(version),
        state if state in _STATES else "enabled",
        goal_state_id,
    )
    if not identifiers.is_handler_name(name):
        return in_error(goal, "the handler's name holds characters that no name may have")
    if not identifiers.is_version(version):
        return in_error(goal, f"{version[:60]!r} is not a version")
    if state not in _STATES:
        return in_error(goal, f"the state {state[:60]!r} is not enabled, disabled or uninstall")
    return goal


def _handler_goal(
    plugin: xml.Element, settings: list[xml.Element], goal_state_id: str
) -> HandlerGoal:
    name, version = xml.attribute(plugin, "name"), xml.attribute(plugin, "version")
    goal = bare_goal(name, version, xml.attribute(plugin, "state"), goal_state_id)
    if goal.error:
        return goal
    try:
        mine = _settings_of(name, version, settings)
    except SettingsError as error:
        return in_error(goal, str(error))
    if mine is None:
        return goal
    multi_config, extensions, error_text = read_extensions(mine)
    goal = goal._replace(multi_config=multi_config, extensions=extensions)
    return in_bounds(goal, error_text)


def in_bounds(goal: HandlerGoal, error_text: str) -> HandlerGoal:
    """The goal, in error when ``error_text`` says so or its settings are larger than the bus
    carries.
    """
    largest = max(
        (
            len(text.encode())
            for item in goal.extensions
            for text in (item.public_settings, item.protected_settings or "")
        ),
        default=0,
    )
    if _size_bytes(goal) > HANDLER_LIMIT_BYTES or largest > SETTING_LIMIT_BYTES:
        error_text = (
            f"the settings have {_size_bytes(goal)} bytes, the limit is {SETTING_LIMIT_BYTES} each,"
            f" {HANDLER_LIMIT_BYTES} together"
        )
    return in_error(goal, error_text) if error_text else goal


def _settings_of(name: str, version: str, settings: list[xml.Element]) -> xml.Element | None:
    """The PluginSettings entry: the name in any case, exactly the version. Raises SettingsError."""
    same_name = [
        element for element in settings if xml.attribute(element, "name").lower() == name.lower()
    ]
    matching = [element for element in same_name if xml.attribute(element, "version") == version]
    if len(matching) > 1:
        raise SettingsError("several PluginSettings entries for one name and version")
    if same_name and not matching:
        found = printable(xml.attribute(same_name[0], "version"))
        raise SettingsError(
            f"PluginSettings Version Mismatch: {found} in PluginSettings, {version} in Plugins"
        )
    return matching[0] if matching else None


def in_error(goal: HandlerGoal, text: str) -> HandlerGoal:
    """The goal with an error and without any setting, but with its sequence numbers, so that it can
    be reported.
    """
    bare = tuple(
        extension._replace(
            public_settings="null", protected_settings=None, certificate_thumbprint=None
        )
        for extension in goal.extensions
    )
    return goal._replace(extensions=bare, error=CONFIG_ERRORS + text)


def _size_bytes(goal: HandlerGoal) -> int:
    return sum(
        len(item.public_settings.encode()) + len(item.protected_settings or "") + 1024
        for item in goal.extensions
    )


def printable(text: str) -> str:
    """``text`` as it may stand in a log or a report."""
    return "".join(character for character in text if character.isprintable())[:128]


def _manifest_urls(plugin: xml.Element) -> tuple[str, ...]:
    found = [xml.attribute(plugin, "location"), xml.attribute(plugin, "failoverlocation")]
    return usable_urls(
        [
            *found,
            *(
                xml.text_of(item)
                for item in xml.children(
                    xml.child(plugin, "additionalLocations"), "additionalLocation"
                )
            ),
        ]
    )


def usable_urls(found: Iterable[str]) -> tuple[str, ...]:
    """Those of ``found`` that lead to a storage, each once, in their order."""
    usable: list[str] = []
    for text in found:
        try:
            url = urls.storage_url(text, WHERE)
        except DocumentError:
            continue  # each location may be empty; none left is told when the package is asked for
        if url not in usable:
            usable.append(url)
    return tuple(usable[:16])


def unsupported_features(required: Iterable[str]) -> tuple[str, ...]:
    """Those of ``required`` that this agent does not have."""
    return tuple(printable(name) for name in required if name not in SUPPORTED_FEATURES)[:64]


def _status_blob(root: xml.Element, findings: list[str]) -> tuple[str, str]:
    element = xml.child(root, "StatusUploadBlob")
    kind = blob_requests.blob_type(xml.attribute(element, "statusBlobType"))
    if not xml.text_of(element):
        findings.append("no StatusUploadBlob: status cannot be sent with this goal state")
        return "", kind
    try:
        return urls.storage_url(xml.text_of(element), f"{WHERE}: StatusUploadBlob"), kind
    except DocumentError as error:
        findings.append(str(error))
        return "", kind
