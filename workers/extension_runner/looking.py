"""What a runner looks at in this moment, told to the runner that comes after it.

A runner that is ended by what it looks at (it hangs there, or dies of it) cannot say so any more.
So its name stands in a file of /run before it looks: two writes of a few bytes into a file that has
its space already. The successor counts; what has ended two runners is not looked at by a third one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from waagent.distro import files
from waagent.protocol.base.log import Log

LIMIT = 2
FILE, DEATHS = "extension_runner.looking", "extension_runner.deaths"
KEPT = 64
_SIZE_BYTES = 512


class Looking:
    """Invariant: between `begin` and `end` the file names what is looked at, else nothing."""

    def __init__(self, folder: Path, log: Log) -> None:
        """``folder`` is /run/waagent. What an earlier runner died of is counted here, once."""
        self._folder, self._log = folder, log
        self._now = ""
        self._deaths = _read_deaths(folder / DEATHS)
        self._file = self._open()
        last = os.pread(self._file, _SIZE_BYTES, 0).rstrip(b"\0").decode("utf-8", "replace")
        if last:
            count, goal_state_id = self._deaths.pop(last, (0, ""))
            self._deaths[last] = (count + 1, goal_state_id)
            self._log.warning(
                "the last runner ended while it looked at %s, times=%d", last, count + 1
            )
            self._save()
        self._write("")

    def begin(self, name: str) -> str:
        """Look at ``name`` from now on; what was looked at before, for `end`."""
        before, self._now = self._now, name
        self._write(name)
        return before

    def end(self, before: str) -> None:
        """This went well: back to ``before``."""
        self._now = before
        self._write(before)

    def deaths(self, name: str) -> int:
        """How many runners ended while they looked at ``name``."""
        return self._deaths.get(name, (0, ""))[0]

    def goal_state_of(self, name: str) -> str:
        """The goal state in which ``name`` is not looked at any more; empty: not known yet."""
        return self._deaths.get(name, (0, ""))[1]

    def note_goal_state(self, name: str, goal_state_id: str) -> None:
        """``name`` is not looked at in this goal state."""
        self._deaths[name] = (self.deaths(name), goal_state_id)
        self._save()

    def forgive(self, name: str) -> None:
        """``name`` is looked at again, as if nothing had happened."""
        if self._deaths.pop(name, None) is not None:
            self._save()

    def _open(self) -> int:
        try:
            file = os.open(
                self._folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            os.posix_fallocate(file, 0, _SIZE_BYTES)
            return file
        except OSError as error:
            self._log.warning(
                "cannot note what is looked at: %s: %s: free space there",
                self._folder / FILE,
                error.strerror,
            )
            return os.memfd_create("looking", os.MFD_CLOEXEC)

    def _write(self, name: str) -> None:
        os.pwrite(
            self._file, name.encode("utf-8", "replace")[:_SIZE_BYTES].ljust(_SIZE_BYTES, b"\0"), 0
        )

    def _save(self) -> None:
        kept = dict(list(self._deaths.items())[-KEPT:])
        try:
            files.write_json(self._folder / DEATHS, {"schema": 1, "deaths": kept})
        except OSError as error:
            self._log.warning("cannot count: %s: %s", self._folder / DEATHS, error.strerror)


def _read_deaths(path: Path) -> dict[str, tuple[int, str]]:
    document: Any = files.read_state_json(path)
    try:
        return {
            str(name): (int(count), str(goal_state_id))
            for name, (count, goal_state_id) in document["deaths"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
