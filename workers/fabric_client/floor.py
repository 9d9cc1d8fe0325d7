"""The time of the FastTrack goal state that was followed last, over restarts: what the WireServer
says may be older, and must not be carried out then.
"""

from __future__ import annotations

import json
from pathlib import Path

from waagent.distro.files import write_json
from waagent.protocol.base.log import Log

NAME = "fast_track.json"
_LIMIT_BYTES = 4096


class Floor:
    """Invariant: ``ticks`` is 0, or that time; a file that cannot be kept costs the memory over a
    restart and nothing else.
    """

    def __init__(self, folder: Path, log: Log) -> None:
        self._path, self._log = folder / NAME, log
        self.ticks = self._read()

    def keep(self, ticks: int) -> None:
        """A FastTrack goal state of that time is followed."""
        if ticks == self.ticks:
            return
        self.ticks = ticks
        try:
            write_json(self._path, {"timestamp": ticks})
        except OSError as error:
            self._log.debug("%s is not kept: %s", NAME, error.strerror)

    def forget(self) -> None:
        """The host follows the WireServer."""
        self.ticks = 0
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._log.debug("%s is not removed: %s", NAME, error.strerror)

    def _read(self) -> int:
        try:
            with open(self._path, "rb") as stream:
                found = json.loads(stream.read(_LIMIT_BYTES))["timestamp"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return 0  # never followed one, or a file that is not ours
        return found if isinstance(found, int) and not isinstance(found, bool) else 0
