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
from waagent.protocol.base.log import PROCESS
from waagent.protocol.base.records import Record
from waagent.protocol.handler.settings_files import HandlerStatus
from waagent.workers.extension_runner import plan

T = TypeVar("T")
SCHEMA = 1
KEPT_OUTCOMES = 24  # of earlier goal states, for `waagent-ps extensions`
AFTER = {
    plan.INSTALL: plan.INSTALLED,
    plan.ENABLE: plan.ENABLED,
    plan.DISABLE: plan.INSTALLED,
    plan.UNINSTALL: plan.UNINSTALLED,
}
EVERYBODYS = (plan.INSTALL, plan.UPDATE, plan.UNINSTALL)
"""Operations of the whole handler, whichever extension caused them."""
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
    installs_on_update: bool = True
    continues_on_failure: bool = False
    """The two of its manifest that decide about an update to it (plan.UpdateMode)."""


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
        self.disabled: set[str] = set()
        """Extensions whose files are still there."""
        self.outcomes: dict[str, Outcome] = {}
        self.handler: HandlerStatus | None = None
        self._is_dirty = False

    def read(self) -> None:
        """Take up what an earlier runner wrote. Raises OSError."""
        self._take(files.read_state_json(self._path))

    def look(self, present: Mapping[str, str]) -> None:
        """Take up versions that others installed, drop those whose folder is gone; ``present``:
        version -> the word in its HandlerState.
        """
        for version in set(self.versions) - set(present):
            del self.versions[version]
        for version, word in present.items():
            state = {"Disabled": plan.INSTALLED}.get(word, word)  # of agents before 2.1
            if version not in self.versions:
                is_known = state in plan.STATES
                self.versions[version] = Version(state if is_known else plan.NOT_INSTALLED)

    def save(self) -> None:
        """Bring on the disk what is not there yet. Raises OSError, and can be called again until it
        succeeds.
        """
        if self._is_dirty:
            files.write_atomic(self._path, _as_json(self._document()))
            self._is_dirty = False

    def delete(self) -> None:
        """Nothing is known of the handler any more. Raises OSError."""
        self._path.unlink(missing_ok=True)

    def recorded(self) -> plan.Recorded:
        """The planner's view."""
        return plan.Recorded(
            {version: entry.state for version, entry in self.versions.items()},
            frozenset(self.extensions),
            {version: entry.unpacked for version, entry in self.versions.items()},
            {outcome.id: outcome.succeeded for outcome in self.outcomes.values()},
            frozenset(self.disabled),
            {
                version: plan.UpdateMode(entry.installs_on_update, entry.continues_on_failure)
                for version, entry in self.versions.items()
                if entry.unpacked
            },
        )

    def unpacked(self, version: str, goal_state_id: str, mode: plan.UpdateMode) -> None:
        """A package became the folder of ``version``."""
        self.versions[version] = Version(plan.NOT_INSTALLED, goal_state_id, *mode)
        self._is_dirty = True
        self.save()

    def removed(self, version: str) -> None:
        """The folder of ``version`` is gone; with the last one all that was known of extensions."""
        self.versions.pop(version, None)
        if not self.versions:
            self.extensions, self.disabled, self.handler = set(), set(), None
        self._is_dirty = True
        self.save()

    def replaced(self, step: plan.Replace, goal_state_id: str) -> None:
        """The old version is gone; INSTALL of the new one comes next, or it counts as installed."""
        self.versions.pop(step.old, None)
        entry = self.versions.get(step.new, Version())
        state = plan.NOT_INSTALLED if step.installs else plan.INSTALLED
        self.versions[step.new] = entry._replace(state=state, unpacked=goal_state_id)
        self.disabled |= self.extensions
        self.extensions = set()
        self._is_dirty = True
        self.save()

    def finish(self, outcome: Outcome) -> None:
        """Record how an operation ended and what follows from it; once, whoever says it how
        often.
        """
        if outcome.id not in self.outcomes:
            self.outcomes[outcome.id] = outcome
            self._advance(outcome)
            if not outcome.extension or outcome.operation in EVERYBODYS or outcome.succeeded:
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
        self.disabled.discard(extension)
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
        entry = self.versions.get(outcome.version, Version())
        state = AFTER.get(outcome.operation, entry.state) if outcome.succeeded else entry.state
        if outcome.operation == plan.UPDATE and entry.state not in plan.PRESENT:
            # else the installed, higher version ran it: it stays what it is (downgrade)
            state = plan.NOT_INSTALLED if outcome.succeeded else plan.FAILED_UPGRADE
        if outcome.extension and outcome.succeeded:
            if outcome.operation == plan.ENABLE:
                self.extensions.add(outcome.extension)
                self.disabled.discard(outcome.extension)
            elif outcome.operation == plan.DISABLE:
                self.extensions.discard(outcome.extension)
                self.disabled.add(outcome.extension)
                if self.extensions:
                    state = entry.state  # others go on
        self.versions[outcome.version] = entry._replace(state=state)

    def of_version(self, version: str) -> list[str]:
        """The ids of the operations that were commands of ``version``."""
        return [one.id for one in self.outcomes.values() if one.version == version]

    def in_files(self) -> list[list[Any]]:
        """What stands in the predecessor's files of each version: version, state, HandlerStatus
        (empty: as it is), enabled extensions.
        """
        return [
            [
                version,
                entry.state if entry.state in plan.STATES else plan.NOT_INSTALLED,
                self.handler.to_file().decode()
                if self.handler is not None and self.handler.version == version
                else "",
                sorted(self.extensions) if entry.state == plan.ENABLED else [],
            ]
            for version, entry in self.versions.items()
        ]

    def _said(self, outcome: Outcome) -> HandlerStatus | None:
        if not outcome.succeeded:
            return HandlerStatus(
                self.name,
                outcome.version,
                "NotReady",
                outcome.code,
                outcome.message,
                bool(outcome.extension),
            )
        if outcome.operation not in SAID:
            return self.handler  # a step of an update or an uninstall that goes on
        status, message = SAID[outcome.operation]
        if outcome.operation == plan.DISABLE and self.extensions:
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
            "disabled": sorted(self.disabled),
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
            self.disabled = {str(extension) for extension in document.get("disabled", ())}
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
