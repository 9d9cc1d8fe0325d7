"""HandlerManifest.json: what a handler's package says about itself (spec: extensions §1.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waagent.protocol.base.records import Record
from waagent.protocol.handler.handler_errors import MANIFEST_INVALID, JsonError, ManifestError
from waagent.protocol.handler.json_text import plain_text, read_json

FILE_NAME = "HandlerManifest.json"
LIMIT_BYTES = 1024 * 1024
DEPTH = 32
OPERATIONS = ("install", "enable", "update", "disable", "uninstall")


class Manifest(Record):
    """A handler's commands and flags. A command that is absent or no text is empty."""

    install: str
    enable: str
    update: str
    disable: str
    uninstall: str
    reboot_after_install: bool = False
    """Shown, never acted on."""
    report_heartbeat: bool = False
    install_on_update: bool = True
    continue_on_update_failure: bool = False
    supports_multiple: bool = False
    supports_policy: bool = False
    services: tuple[str, ...] = ()
    """Units of resourceLimits: alive ones mean that the handler still works."""
    sandbox: Any = None
    """What the package asks to be fenced by, as it stands there; ours alone
    (docs/isolation.md).
    """

    def command(self, operation: str) -> str:
        """The text for ``operation``; empty when the package has none."""
        return str(getattr(self, operation)) if operation in OPERATIONS else ""


def parse_manifest(data: bytes, where: str = FILE_NAME) -> Manifest:
    """The manifest of a package. Raises ManifestError with code 1003."""
    try:
        document = read_json(data, limit_bytes=LIMIT_BYTES, depth=DEPTH)
    except JsonError as error:
        raise _invalid(f"is not JSON ({error})", where) from error
    top = document[0] if isinstance(document, list) and document else document
    if not isinstance(top, Mapping):
        raise _invalid("is not an object, nor an array with one", where)
    inner = top.get("handlerManifest")
    if not isinstance(inner, Mapping):
        raise _invalid("has no handlerManifest object", where)
    commands = {operation: _command(inner.get(f"{operation}Command")) for operation in OPERATIONS}
    mode = inner.get("updateMode")
    return Manifest(
        **commands,
        reboot_after_install=_boolean(inner.get("rebootAfterInstall")),
        report_heartbeat=_boolean(inner.get("reportHeartbeat")),
        install_on_update=mode is None or plain_text(mode).lower() == "updatewithinstall",
        continue_on_update_failure=_boolean(inner.get("continueOnUpdateFailure")),
        supports_multiple=_boolean(inner.get("supportsMultipleExtensions")),
        supports_policy=_boolean(inner.get("supportsPolicy")),
        services=_services(top.get("resourceLimits")),
        sandbox=top.get("sandbox"),
    )


def command_line(folder: str, command: str) -> str:
    """The one text for `/bin/sh -c`: only its first word is a path below ``folder`` (spec:
    extensions §1.4).
    """
    return f"{folder}/{command.lstrip('/')}"


def _command(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return "" if "\x00" in text or not text.strip() else plain_text(text)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return isinstance(value, str) and value.lower() == "true"


def _services(limits: Any) -> tuple[str, ...]:
    rows = limits.get("services") if isinstance(limits, Mapping) else None
    if not isinstance(rows, list):
        return ()
    return tuple(
        plain_text(row["name"])
        for row in rows[:32]
        if isinstance(row, Mapping) and isinstance(row.get("name"), str)
    )


def _invalid(claim: str, where: str) -> ManifestError:
    return ManifestError(
        f"the handler's manifest {claim}",
        where,
        "the package must be repaired by its publisher",
        MANIFEST_INVALID,
    )
