"""What we know of one handler over restarts: its versions' states, and the outcome of each
operation. One file, written whole.

Invariant: an outcome and the state that follows from it are written in one rename, so an outcome is
applied exactly once. The handler's folders hold the same in the predecessor's words (HandlerState,
HandlerStatus); they are read only for versions that the journal does not know (spec: extensions
§2.1, §2.4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from waagent.distro import files
from waagent.protocol.base import records
from waagent.protocol.base.log import PROCESS, Log
from waagent.protocol.base.records import Record
from waagent.protocol.handler import handler_names
from waagent.protocol.handler.settings_files import HandlerStatus
from waagent.workers.extension_runner import plan

T = TypeVar("T")
SCHEMA = 1
KEPT_OUTCOMES = 24  # of earlier goal states, for `waagent-ps extensions`
STATE_LIMIT_BYTES = 4096
AFTER = {plan.INSTALL: plan.INSTALLED, plan.ENABLE: plan.ENABLED, plan.DISABLE: plan.INSTALLED}
SAID = {
    plan.INSTALL: ("NotReady", "Plugin installed but not enabled"),
    plan.ENABLE: ("Ready", "Plugin enabled"),
    plan.DISABLE: ("NotReady", "Plugin disabled"),
}


class Outcome(Record):
    """How one operation ended."""

    id: str
    version: str
    operation: str
    extension: str
    sequence: int
    goal_state_id: str
    boot_id: str
    code: int
    """0: it succeeded."""
    message: str
    started_at: float
    """CLOCK_MONOTONIC of ``boot_id``."""
    started_wall_ns: int
    """Wall clock, to compare with the mtime of a status file."""
    elapsed_s: float
    limit_s: float
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    profile: str = ""
    """What it was fenced by."""
    denied: tuple[str, ...] = ()
    """What that kept it from."""
    warning: str = ""
    """Not empty: it succeeded, and this should be known."""

    @property
    def succeeded(self) -> bool:
        """The command did what it was asked for."""
        return self.code == 0


class Version(Record):
    """One version of a handler."""

    state: str = plan.NOT_INSTALLED
    unpacked: str = ""
    """Goal state id for which its package was unpacked; empty: never by us."""


class Journal:
    """One handler's records. Invariant: every change is on the disk before its method returns, or
    OSError says that it is not.
    """

    def __init__(self, path: Path, name: str) -> None:
        """``name`` as the goal state spells it; an earlier spelling in the file wins."""
        self._path = path
        self.name = name
        self.versions: dict[str, Version] = {}
        self.extensions: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}
        self.handler: HandlerStatus | None = None
        self._is_dirty = False

    def read(self) -> None:
        """Take up what an earlier runner wrote. Raises OSError."""
        self._take(files.read_state_json(self._path))

    def look(self, library: Path, log: Log) -> None:
        """Take up versions that others installed, drop those whose folder is gone."""
        present = _versions_on_disk(library, self.name)
        for version in set(self.versions) - set(present):
            del self.versions[version]
        for version, folder in present.items():
            if version not in self.versions:
                state = _state_in(folder, log)
                if state != plan.NOT_INSTALLED:
                    self.versions[version] = Version(state)

    def save(self) -> None:
        """Bring on the disk what is not there yet. Raises OSError, and can be called again until it
        succeeds.
        """
        if self._is_dirty:
            files.write_atomic(self._path, _as_json(self._document()))
            self._is_dirty = False

    def recorded(self) -> plan.Recorded:
        """The planner's view."""
        return plan.Recorded(
            {version: entry.state for version, entry in self.versions.items()},
            frozenset(self.extensions),
            {version: entry.unpacked for version, entry in self.versions.items()},
            {outcome.id: outcome.succeeded for outcome in self.outcomes.values()},
        )

    def unpacked(self, version: str, goal_state_id: str) -> None:
        """A package became the folder of ``version``."""
        self.versions[version] = Version(plan.NOT_INSTALLED, goal_state_id)
        self._is_dirty = True
        self.save()

    def finish(self, outcome: Outcome) -> None:
        """Record how an operation ended and what follows from it; once, whoever says it how
        often.
        """
        if outcome.id not in self.outcomes:
            self.outcomes[outcome.id] = outcome
            if outcome.succeeded:
                self._advance(outcome)
            if not outcome.extension or outcome.operation == plan.INSTALL or outcome.succeeded:
                self.handler = self._said(outcome)
            self._prune(outcome.goal_state_id)
            self._is_dirty = True
        self.save()

    def forget_failures(self) -> None:
        """What failed was never tried."""
        self.outcomes = {key: one for key, one in self.outcomes.items() if one.succeeded}
        self._is_dirty = True
        self.save()

    def forget(self, extension: str) -> None:
        """A multi-config extension is gone, whatever its DISABLE said (row 17)."""
        self.extensions.discard(extension)
        if not self.extensions:
            states = {plan.ENABLED: plan.INSTALLED}
            for version, entry in self.versions.items():
                self.versions[version] = entry._replace(state=states.get(entry.state, entry.state))
            if self.handler is not None:
                self.handler = self.handler._replace(
                    status="NotReady", code=0, message=SAID[plan.DISABLE][1]
                )
        self._is_dirty = True
        self.save()

    def _advance(self, outcome: Outcome) -> None:
        if outcome.extension and outcome.operation == plan.ENABLE:
            self.extensions.add(outcome.extension)
        if outcome.operation == plan.DISABLE and self.extensions - {outcome.extension}:
            return  # others go on; `forget` takes this one's name away, with its files
        entry = self.versions.get(outcome.version, Version())
        self.versions[outcome.version] = entry._replace(state=AFTER[outcome.operation])

    def _said(self, outcome: Outcome) -> HandlerStatus:
        if not outcome.succeeded:
            return HandlerStatus(
                self.name,
                outcome.version,
                "NotReady",
                outcome.code,
                outcome.message,
                bool(outcome.extension),
            )
        status, message = SAID[outcome.operation]
        if outcome.operation == plan.DISABLE and self.extensions - {outcome.extension}:
            status, message = SAID[plan.ENABLE]
        return HandlerStatus(
            self.name, outcome.version, status, 0, message, bool(outcome.extension)
        )

    def _prune(self, goal_state_id: str) -> None:
        old = [
            outcome.id
            for outcome in self.outcomes.values()
            if outcome.goal_state_id != goal_state_id
        ]
        for identity in old[: max(0, len(old) - KEPT_OUTCOMES)]:
            del self.outcomes[identity]

    def _document(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "versions": {
                version: records.to_map(entry) for version, entry in self.versions.items()
            },
            "extensions": sorted(self.extensions),
            "outcomes": [records.to_map(outcome) for outcome in self.outcomes.values()],
            "handler": None if self.handler is None else records.to_map(self.handler),
        }

    def _take(self, document: Any) -> None:
        if not isinstance(document, Mapping):
            return
        try:
            self.name = str(document["name"])
            self.versions = {
                version: _taken(Version, fields) for version, fields in document["versions"].items()
            }
            self.extensions = {str(extension) for extension in document["extensions"]}
            outcomes = [_taken(Outcome, fields) for fields in document["outcomes"]]
            self.outcomes = {outcome.id: outcome for outcome in outcomes}
            self.handler = (
                _taken(HandlerStatus, document["handler"]) if document["handler"] else None
            )
        except (KeyError, TypeError, AttributeError):
            PROCESS.warning(
                "journal of another kind is taken as absent: %s: none needed", self._path
            )


def _taken(kind: type[T], fields: Mapping[str, Any]) -> T:
    """A value of ``kind``; what a newer version added is ignored."""
    known: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]  # always a record here
    return kind(**{name: value for name, value in fields.items() if name in known})


def _as_json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document) + "\n").encode()


def _versions_on_disk(library: Path, name: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in library.iterdir() if library.is_dir() else ():
        parts = handler_names.split_folder(folder.name)
        if (
            parts is not None
            and handler_names.same_name(parts[0], name)
            and (folder / "HandlerManifest.json").is_file()
        ):
            found[parts[1]] = folder
    return found


def _state_in(folder: Path, log: Log) -> str:
    try:
        word = (
            files.read_foreign(folder / "config", "HandlerState", limit_bytes=STATE_LIMIT_BYTES)
            .decode("ascii", "replace")
            .strip()
        )
    except FileNotFoundError:
        return plan.NOT_INSTALLED
    except (OSError, files.FileError) as error:
        log.warning(
            "handler's state cannot be read, taken as not installed: %s: %s: none needed",
            folder.name,
            error,
        )
        return plan.NOT_INSTALLED
    state = {"Disabled": plan.INSTALLED}.get(word, word)  # the word of agents before 2.1
    return state if state in plan.STATES else plan.NOT_INSTALLED
