"""Operations as the lanes see them: begun, found again, ended. Records, shim and cgroups are
distro.operations' business.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from waagent.distro import files
from waagent.distro.cgroups.trees import Limits, Tree
from waagent.distro.operations import launch
from waagent.distro.paths import Paths
from waagent.protocol.base.log import Log
from waagent.protocol.base.records import Record
from waagent.workers.extension_runner.environment import shown_environment
from waagent.workers.extension_runner.limits import HandlerLimits
from waagent.workers.extension_runner.messages import CommandEnd, Output
from waagent.workers.extension_runner.plan import OperationKey

CPU_WEIGHT = 20  # low: customers' work comes first
LOOK_S = 1.0  # between two looks at the lock; exit.json is looked for at each tick
LEFTOVERS_S = 0.3
KEPT_FINISHED = 60
RECORDED = "recorded"
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
        start_shim: Callable[[Path], None],
        *,
        systemd: bool,
        subreaper: bool,
    ) -> None:
        """``start_shim`` starts the shim of an operation's folder, now or soon."""
        self._paths, self._tree, self._log, self._start = paths, tree, log, start_shim
        self._systemd, self._subreaper = systemd, subreaper
        self._looked_at: dict[str, float] = {}

    def begin(
        self,
        key: OperationKey,
        command: str,
        cwd: Path,
        environment: Mapping[str, str],
        limits: HandlerLimits,
    ) -> UnderWay:
        """Record the plan, then start the shim. Raises OSError or OperationError; then nothing has
        run, and nothing will.
        """
        folder = self._paths.operations / key.id
        ceiling = Limits(memory_mib=limits.memory_mib, pids=limits.pids, cpu_weight=CPU_WEIGHT)
        limit_s = limits.timeouts_s[key.operation]
        if launch.observe(folder).state == "absent":
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
        try:
            self._start(under_way.folder)
        except launch.OperationError as error:
            self._log.warning("%s", error)
        return under_way._replace(launched_at=time.monotonic(), launches=under_way.launches + 1)

    def end_of(self, under_way: UnderWay) -> CommandEnd | None:
        """How it ended; None while it goes on, or has not begun."""
        now = time.monotonic()
        if (
            not (under_way.folder / "exit.json").exists()
            and now - self._looked_at.get(under_way.key.id, 0.0) < LOOK_S
        ):
            return None
        self._looked_at[under_way.key.id] = now
        seen = launch.observe(under_way.folder)
        if seen.state == "lost":
            # the shim wrote its last record and left between our two looks
            seen = launch.observe(under_way.folder)
        if seen.state not in ("lost", "finished"):
            return None
        del self._looked_at[under_way.key.id]
        if seen.state == "lost":
            left = launch.kill_leftovers(under_way.folder, deadline_s=LEFTOVERS_S)
            self._log.warning(
                "shim was killed handler=%s id=%s: what was left of the command is ended, pids"
                " left: %s",
                under_way.key.handler,
                under_way.key.id,
                left or "none",
            )
        launch.remove_place(under_way.folder)
        return CommandEnd(
            seen.exit_code,
            seen.signal,
            seen.timed_out,
            seen.state == "lost",
            seen.error or "",
            seen.out_of_memory_in or "",
            _output(seen.stdout),
            _output(seen.stderr),
            seen.elapsed_s,
        )

    def is_unborn(self, under_way: UnderWay) -> bool:
        """Planned, and no shim has taken it."""
        return launch.observe(under_way.folder).state == "planned"

    def look_at(self, under_way: UnderWay) -> launch.Observation:
        """How it is now: its process and cgroup, once it runs."""
        return launch.observe(under_way.folder)

    def is_anything_alive(self, identities: Iterable[str]) -> bool:
        """Whether anything lives of the handler that had these operations, in the background too;
        True where nobody can tell.
        """
        return any(launch.may_live(self._paths.operations / identity) for identity in identities)

    def settle(self, identity: str) -> None:
        """A journal has its outcome: it is never taken up again, also when the journal has
        forgotten it.
        """
        try:
            (self._paths.operations / identity / RECORDED).touch(0o600)
        except OSError:
            # no folder: it needed no process; or a full disk: the journal knows it for long enough
            return

    def unfinished(self, recorded: Callable[[str, str], bool], boot_id: str) -> list[UnderWay]:
        """What earlier runners began and nobody recorded. ``recorded(handler, id)`` says what a
        journal already has.

        What a reboot cut off is left out: its key can never come back, the goal state plans anew.
        """
        found = []
        for folder in (
            sorted(self._paths.operations.iterdir()) if self._paths.operations.is_dir() else ()
        ):
            if not _ID.fullmatch(folder.name) or not folder.is_dir():
                continue
            if (folder / RECORDED).exists():
                continue
            seen = launch.observe(folder)
            key = _key_of(seen.planned)
            if key is None or key.id != folder.name:
                self._log.warning("operation without a plan is left alone id=%s", folder.name)
            elif recorded(key.handler, key.id):
                self.settle(key.id)
            elif key.boot_id == boot_id or seen.state == "finished":
                found.append(self._found(folder, key, seen))
        return found

    def prune(self, keep: set[str]) -> None:
        """Remove the oldest folders of operations that nobody waits for."""
        folders = [
            folder
            for folder in self._paths.operations.iterdir()
            if _ID.fullmatch(folder.name) and folder.name not in keep
        ]
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime)[:-KEPT_FINISHED]:
            if launch.observe(folder).state == "running":
                continue
            launch.remove_place(folder)
            files.remove_tree(folder)

    def timestamp(self) -> str:
        """UTC, for a log."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def _found(self, folder: Path, key: OperationKey, seen: launch.Observation) -> UnderWay:
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
        return self.start(under_way) if seen.state == "planned" else under_way


def _key_of(planned: Mapping[str, Any]) -> OperationKey | None:
    try:
        return OperationKey(
            planned["handler"],
            planned["version"],
            planned["operation"],
            planned["extension"],
            int(planned["sequence"]),
            planned["goal_state_id"],
            planned["boot_id"],
        )
    except (KeyError, TypeError, ValueError):
        return None


def _output(kept: launch.Kept) -> Output:
    return Output(kept.head, kept.tail, kept.dropped_bytes)
