"""A worker's records in the journal, besides the log file: native fields, so that
`journalctl WAAGENT_WORKER=extension_runner` and `WAAGENT_OPERATION=ID` find them.
"""

from __future__ import annotations

import re

from waagent.distro import sockets
from waagent.distro.paths import Paths

_PRIORITY = {"ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
_TEXT_LIMIT = 2000
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_OPERATION = re.compile(r"\boperation\b.*\bid=([\w.-]+)")


class JournalLines:
    """Connects at the first record. Invariant: never waits; without journald nothing is done."""

    def __init__(self, worker: str, paths: Paths) -> None:
        self._worker = worker
        self._place = paths.under("/run/systemd/journal/socket")
        self._is_open = False

    def __call__(self, level: str, text: str) -> None:
        """One record."""
        if not self._is_open:
            self._journald = sockets.connect_datagram(self._place)
            self._is_open = True
        if self._journald is None:
            return
        said = _CONTROL_CHARACTERS.sub(" ", text)[:_TEXT_LIMIT]
        fields: dict[str, object] = {
            "SYSLOG_IDENTIFIER": "waagent",
            "WAAGENT_WORKER": self._worker,
            "PRIORITY": _PRIORITY.get(level, 6),
            "MESSAGE": f"{self._worker}: {said}",
        }
        if operation := _OPERATION.search(said):
            fields["WAAGENT_OPERATION"] = operation.group(1)
        sockets.send_fields(self._journald, **fields)
