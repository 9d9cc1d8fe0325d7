"""Collects status files through `file_processes`, at the pace the caller sets; a file that hung its
reader is read alone from then on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from waagent.protocol.base.records import Record
from waagent.workers.extension_runner.file_processes import FileProcesses

DEADLINE_S = 2.0
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Watch(Record):
    """One status file that somebody waits for."""

    key: str
    """Of the extension, unique among all handlers."""
    folder: str
    file: str
    name: str
    """Of the extension or handler, as it is reported."""

    @property
    def path(self) -> str:
        """What makes the file another one."""
        return f"{self.folder}/{self.file}"


class Seen(Record):
    """What a status file said when it was last read."""

    path: str
    signature: tuple[int, ...] = ()
    wall_ns: int = 0
    """Its mtime."""
    document: Mapping[str, Any] | None = None
    """The last good `status` object; None: none yet."""
    error: str = ""
    """Why the file as it is now says nothing."""
    broken_since: float = 0.0
    """CLOCK_MONOTONIC since when it has been so."""

    @property
    def state(self) -> str:
        """One of the four states; empty without a document."""
        return str(self.document["status"]) if self.document else ""


class Collector:
    """All status files. Invariant: a file is read by one process at a time."""

    def __init__(
        self,
        file_processes: FileProcesses,
        now: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """``changed`` is called when a file says something else, and when all are read."""
        self._files, self._now, self._changed = file_processes, now, changed
        self._seen: dict[str, Seen] = {}
        self._slow_ones: set[str] = set()
        self._busy: set[str] = set()
        self._again: dict[str, Watch] = {}

    @property
    def is_reading(self) -> bool:
        """Something is being read that is not known to hang: an answer comes within DEADLINE_S."""
        return bool(self._busy - self._slow_ones)

    def seen(self, watch: Watch) -> Seen | None:
        """What ``watch``'s file said; None: it is not there, or was never read."""
        return self._seen.get(watch.path)

    def collect(self, watches: list[Watch]) -> None:
        """Read what changed of these, and forget all others."""
        wanted = {watch.path for watch in watches}
        for path in set(self._seen) - wanted:
            del self._seen[path]
        self._slow_ones &= wanted
        self.collect_more(watches)

    def collect_more(self, watches: list[Watch]) -> None:
        """Read what changed of these; the others are wanted as before. One that is being read is
        read once more afterwards.
        """
        mounts = mount_points() if watches else ()
        for watch in watches:
            if watch.path in self._busy:
                self._again[watch.path] = watch
            elif not self._is_unchanged(watch, mounts):
                self._read(watch)

    def _is_unchanged(self, watch: Watch, mounts: tuple[str, ...] | None) -> bool:
        seen = self._seen.get(watch.path)
        if watch.path in self._slow_ones or (seen is not None and seen.error):
            return False
        found = look(watch, mounts)
        return found is not None and found == (seen.signature if seen is not None else ())

    def _read(self, watch: Watch) -> None:
        self._busy.add(watch.path)
        job = {
            "kind": "status",
            "folder": watch.folder,
            "file": watch.file,
            "name": watch.name,
            "known": self._known(watch),
        }
        run = self._files.run_alone if watch.path in self._slow_ones else self._files.run
        run(
            job,
            deadline_s=DEADLINE_S,
            done=lambda answer, reason: self._take(watch, answer, reason),
        )

    def _known(self, watch: Watch) -> list[int]:
        seen = self._seen.get(watch.path)
        return list(seen.signature) if seen is not None and not seen.error else []

    def _take(self, watch: Watch, answer: Any, reason: str) -> None:
        self._busy.discard(watch.path)
        before = self._seen.get(watch.path)
        if answer is None:
            self._slow_ones.add(watch.path)
            answer = {"signature": [], "error": f"cannot be read: reading {reason}", "sample": ""}
        self._note(watch, answer)
        again = self._again.pop(watch.path, None)
        if again is not None:
            self.collect_more([again])
        if before != self._seen.get(watch.path) or not self.is_reading:
            self._changed()

    def _note(self, watch: Watch, answer: Mapping[str, Any]) -> None:
        old = self._seen.get(watch.path) or Seen(watch.path)
        if answer.get("same"):
            return
        if answer.get("absent"):
            self._seen.pop(watch.path, None)
        elif "status" in answer:
            self._seen[watch.path] = Seen(
                watch.path, tuple(answer["signature"]), answer["wall_ns"], answer["status"]
            )
        else:
            text = f"{answer['error']}" + (
                f", first 200 bytes: {answer['sample']}" if answer["sample"] else ""
            )
            since = old.broken_since if old.error else self._now()
            self._seen[watch.path] = Seen(
                watch.path,
                tuple(answer["signature"]),
                answer.get("wall_ns", 0),
                old.document,
                text,
                since,
            )


def look(watch: Watch, mounts: tuple[str, ...] | None) -> tuple[int, ...] | None:
    """Inode, size and mtime of the file, empty when it is absent; None when only the reader may
    look.

    Nothing of this can hang: no link is followed, and nothing is mounted below <lib>. A reader for
    each look would cost 30 ms of CPU.
    """
    library = os.path.dirname(os.path.dirname(watch.folder))
    if mounts is None or any(point.startswith(library + "/") for point in mounts):
        return None
    opened: list[int] = []
    try:
        opened.append(os.open(os.path.dirname(watch.folder), _FOLDER))
        opened.append(os.open(os.path.basename(watch.folder), _FOLDER, dir_fd=opened[0]))
        facts = os.stat(watch.file, dir_fd=opened[1], follow_symlinks=False)
        return facts.st_ino, facts.st_size, facts.st_mtime_ns
    except FileNotFoundError:
        return ()
    except OSError:
        return None  # a link or a file stands there: the reader says what
    finally:
        for descriptor in opened:
            os.close(descriptor)


def mount_points() -> tuple[str, ...] | None:
    """Where something is mounted, None where nobody says; reading this never waits for what is
    mounted.
    """
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return tuple(os.fsdecode(line.split()[4]) for line in file)
    except OSError:
        return None
