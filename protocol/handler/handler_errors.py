"""What this room raises, and the numbers that the platform knows (spec: extensions §4.7, wire
§2.13.1).
"""

from __future__ import annotations

from waagent.protocol.base.errors import ExplainedError

UNKNOWN = -1
OK = 0
UNINSTALL_FAILED = 1000
MANIFEST_DOWNLOAD = 1001
MANIFEST_MISSING = 1002
MANIFEST_INVALID = 1003
PACKAGE_DOWNLOAD = 1004
PACKAGE_INVALID = 1005
INSTALL_FAILED = 1007
UPDATE_FAILED = 1008
ENABLE_FAILED = 1009
DISABLE_FAILED = 1010
TIME_LIMIT = 1011
STATUS_INVALID = 1012

COMMAND_CODES = {
    "install": INSTALL_FAILED,
    "enable": ENABLE_FAILED,
    "update": UPDATE_FAILED,
    "disable": DISABLE_FAILED,
    "uninstall": UNINSTALL_FAILED,
}
"""Operation -> the code of its failure."""


class HandlerError(ExplainedError):
    """Root of what this room raises: what went wrong, where, what to do about it, and the code to
    report.
    """

    def __init__(self, what: str, where: str, remedy: str, code: int = UNKNOWN) -> None:
        super().__init__(what, where, remedy)
        self.code = code


class NameRefused(HandlerError):
    """A name or version that must not become a path."""


class ManifestError(HandlerError):
    """HandlerManifest.json cannot be used."""


class SettingsError(HandlerError):
    """The goal state's settings cannot be written as a settings file."""


class StatusFileError(HandlerError):
    """A status file that says nothing; ``what`` is the reason to report."""


class JsonError(ValueError):
    """Bytes that are not the JSON we accept; the text says why."""
