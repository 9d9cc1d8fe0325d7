"""Operations as the lanes see them: begun, found again, ended. Records, shim and cgroups are
distro.operations' business.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from waagent.distro import files
from waagent.distro.cgroups.trees import Limits, Tree
from waagent.distro.operations import launch, leftovers, records
from waagent.distro.operations.shim import plan as shim_plan
from waagent.distro.paths import Paths
from waagent.protocol.base.log import Log
from waagent.protocol.base.records import Record
from waagent.workers.extension_runner.environment import service_nofile, shown_environment
from waagent.workers.extension_runner.launcher import Launcher
from waagent.workers.extension_runner.limits import PIDS, HandlerLimits
from waagent.workers.extension_runner.plan import OperationKey

CPU_WEIGHT = 20  # low while a command runs: customers' work comes first
LEFTOVERS_S = 0.3
KEPT_FINISHED = 60
RECORDED = "recorded"
_NO_RECORD = (KeyError, TypeError, ValueError, AttributeError)
"""What a record of another kind brings."""
_ID = re.compile(r"[0-9a-f]{32}")


class UnderWay(Record):
    """An operation whose end nobody has recorded yet."""

    key: OperationKey
    folder: Path
    command: str
    limit_s: float
    started_at: float
    """CLOCK_MONOTONIC."""
    started_wall_ns: int
    launched_at: float
    launches: int


class Tracking:
    """Begins operations and sees their ends. Holds no state that the records do not hold."""

    def __init__(
        self,
        paths: Paths,
        tree: Tree,
        log: Log,
        launcher: Launcher,
        *,
        systemd: bool,
        subreaper: bool,
    ) -> None:
        """``systemd``: it is PID 1, and has a scope for each operation."""
        self._paths, self._tree, self._log, self._launcher = paths, tree, log, launcher
        self._systemd, self._subreaper = systemd, subreaper
        self._running: dict[str, records.Observation] = {}

    def begin(
        self,
        key: OperationKey,
        command: str,
        cwd: Path,
        environment: Mapping[str, str],
        limits: HandlerLimits,
        sandbox: launch.Sandbox = launch.Sandbox(),  # noqa: B008 - an immutable default
    ) -> UnderWay:
        """Record the plan, then start the shim. Raises OSError or OperationError; then nothing has
        run, and nothing will.
        """
        folder = self._paths.operations / key.id
        ceiling = Limits(
            memory_mib=limits.memory_mib, pids=limits.pids or PIDS, cpu_weight=CPU_WEIGHT
        )
        limit_s = limits.timeouts_s[key.operation]
        if records.observe(folder).state == records.ABSENT:
            place = (
                launch.Place()
                if self._systemd
                else launch.make_place(self._tree, key.handler, key.id, ceiling)
            )
            launch.plan_operation(
                folder,
                launch.Spec(
                    command=command,
                    cwd=str(cwd),
                    environment=dict(environment),
                    deadline_s=limit_s,
                    handler=key.handler,
                    version=key.version,
                    operation=key.operation,
                    extension=key.extension,
                    sequence=key.sequence,
                    goal_state_id=key.goal_state_id,
                    boot_id=key.boot_id,
                    limits=ceiling,
                    left_pids=limits.pids,
                    nofile=service_nofile(os.environ),
                    cpu_percent=limits.cpu_percent,
                    sandbox=sandbox,
                    place=place,
                    systemd=self._systemd,
                    subreaper=self._subreaper,
                ),
            )
            self._log.debug(
                "operation planned id=%s environment=%s",
                key.id,
                json.dumps(shown_environment(environment)),
            )
        return self.start(
            UnderWay(key, folder, command, limit_s, time.monotonic(), time.time_ns(), 0.0, 0)
        )

    def start(self, under_way: UnderWay) -> UnderWay:
        """Start its shim; harmless when one lives or lived. A shim that cannot be started is tried
        again by whoever observes.
        """
        self._launcher.start(under_way.folder)
        return under_way._replace(launched_at=time.monotonic(), launches=under_way.launches + 1)

    def is_announced(self, under_way: UnderWay) -> bool:
        """Its end will be told; nobody has to look before."""
        return self._launcher.knows(under_way.key.id)

    def may_have_ended(self, under_way: UnderWay) -> bool:
        """It has an exit record, or no shim lives."""
        folder = under_way.folder
        return (folder / shim_plan.EXIT).exists() or not records.is_locked(folder)

    def end_of(self, under_way: UnderWay) -> records.Observation | None:
        """How it ended; None while it goes on, or has not begun."""
        seen = records.observe(under_way.folder)
        if seen.state == records.LOST:
            # the shim wrote its last record and left between our two looks
            seen = records.observe(under_way.folder)
        if not seen.has_ended:
            return None
        self._running.pop(under_way.key.id, None)
        if seen.state == records.LOST:
            left = leftovers.kill_leftovers(under_way.folder, deadline_s=LEFTOVERS_S)
            self._log.warning(
                "shim was killed handler=%s id=%s: what was left of the command is ended, pids"
                " left: %s",
                under_way.key.handler,
                under_way.key.id,
                left or "none",
            )
        leftovers.remove_place(under_way.folder)
        return seen

    def is_not_begun(self, under_way: UnderWay) -> bool:
        """Planned, and no shim has taken it."""
        return records.observe(under_way.folder).state == records.WAITING

    def look_at(self, under_way: UnderWay) -> records.Observation:
        """Its process and cgroup, once it runs; they do not change then."""
        seen = self._running.get(under_way.key.id)
        if seen is None:
            seen = records.observe(under_way.folder)
            if seen.state == records.RUNNING and seen.started:
                self._running[under_way.key.id] = seen
        return seen

    def is_anything_alive(self, identities: Iterable[str]) -> bool:
        """Whether anything lives of the handler that had these operations, in the background too;
        True where nobody can tell.
        """
        return any(leftovers.may_live(self._paths.operations / identity) for identity in identities)

    def stop(self, identities: Iterable[str]) -> None:
        """End what lives of these operations, in the background too: their files are going."""
        for identity in identities:
            folder = self._paths.operations / identity
            left = leftovers.kill_leftovers(folder, deadline_s=LEFTOVERS_S)
            if left:
                self._log.warning("processes of a removed handler stay pids=%s", left)

    def settle(self, identity: str) -> None:
        """A journal has its outcome: it is never taken up again, also when the journal has
        forgotten it.
        """
        folder = self._paths.operations / identity
        try:
            (folder / RECORDED).touch(0o600)
            # told in the handler's log, and the largest thing in here
            (folder / shim_plan.OUTPUT).unlink(missing_ok=True)
        except OSError:
            # no folder: it needed no process; or a full disk: the journal knows it for long enough
            return

    def folders(self) -> list[Path]:
        """Those of all operations that no journal is known to have."""
        return [
            folder
            for folder in self._all_folders()
            if folder.is_dir() and not (folder / RECORDED).exists()
        ]

    def key_of(self, folder: Path) -> OperationKey | None:
        """Whose operation is in ``folder``; None when nobody can tell."""
        try:
            key = _key_of(launch.read_plan(folder))
            if key.id == folder.name:
                return key
        except (launch.OperationError, *_NO_RECORD):
            pass  # no plan, or a plan of another kind: the next line says so
        self._log.warning("operation without a plan is left alone id=%s", folder.name)
        return None

    def found(self, folder: Path, key: OperationKey, boot_id: str) -> UnderWay | None:
        """What an earlier runner began and nobody recorded, to be observed from now on.

        None for what a reboot cut off: its key can never come back, the goal state plans anew.
        """
        seen = records.observe(folder)
        if key.boot_id != boot_id and seen.state != records.FINISHED:
            return None
        planned = seen.planned
        under_way = UnderWay(
            key,
            folder,
            str(planned["command"]),
            float(planned["deadline_s"]),
            float(planned["at"]),
            int(float(planned["time"]) * 10**9),
            time.monotonic(),
            1,
        )
        return self.start(under_way) if seen.state == records.WAITING else under_way

    def prune(self, keep: set[str]) -> None:
        """Remove the oldest folders of operations that nobody waits for."""
        folders = [folder for folder in self._all_folders() if folder.name not in keep]
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime)[:-KEPT_FINISHED]:
            if records.is_locked(folder):
                continue
            try:
                leftovers.remove_place(folder)
            except _NO_RECORD as error:
                self._log.warning("cgroups are not removed id=%s: %r", folder.name, error)
            files.remove_tree(folder)

    def _all_folders(self) -> list[Path]:
        found = self._paths.operations.iterdir() if self._paths.operations.is_dir() else ()
        return sorted(folder for folder in found if _ID.fullmatch(folder.name))

    def timestamp(self) -> str:
        """UTC, for a log."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _key_of(planned: Mapping[str, Any]) -> OperationKey:
    return OperationKey(
        planned["handler"],
        planned["version"],
        planned["operation"],
        planned["extension"],
        int(planned["sequence"]),
        planned["goal_state_id"],
        planned["boot_id"],
    )
