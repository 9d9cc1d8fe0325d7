"""One lane per handler: its operations one after another, its neighbours' never waited for.

Each turn: take up the newest goal state, plan, carry out the first step, record it, turn again. A
lane that is killed anywhere in between does the same when it comes back, because the plan depends
on nothing but what is recorded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.distro import files
from waagent.distro.operations.launch import OperationError
from waagent.distro.paths import Paths
from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import GoalStateSummary, HandlerGoal
from waagent.protocol.handler import handler_errors
from waagent.protocol.handler.handler_errors import HandlerError
from waagent.protocol.handler.manifest import command_line
from waagent.protocol.handler.settings_files import file_prefix
from waagent.protocol.handler.status_file import TERMINAL
from waagent.protocol.operations_file import Operation
from waagent.workers.extension_runner import (
    handler_files,
    handler_report,
    operations_file,
    plan,
    prerequisites,
)
from waagent.workers.extension_runner.command_log import append_log
from waagent.workers.extension_runner.dependencies import FAIL, GO, WAIT, Verdict
from waagent.workers.extension_runner.environment import command_environment, shown_environment
from waagent.workers.extension_runner.handler_journal import Journal, Outcome
from waagent.workers.extension_runner.limits import HandlerLimits
from waagent.workers.extension_runner.messages import CommandEnd, failure, output_part, redact
from waagent.workers.extension_runner.package import Fetch
from waagent.workers.extension_runner.status_collector import Collector, Watch
from waagent.workers.extension_runner.tracking import Tracking, UnderWay

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

TROUBLE_PAUSE_S = 5.0
CERTIFICATE_PATIENCE_S = 60.0
CERTIFICATE_PAUSE_S = 1.0
LOGGED_OUTPUT = 32_000
LAUNCH_TRIES = 3
LAUNCH_PATIENCE_S = 20.0


class Goal:
    """What the runner knows for all lanes; it changes in place."""

    def __init__(self) -> None:
        self.summary: GoalStateSummary | None = None
        self.is_enabled = True
        """Extensions.Enabled."""


class House(Record):
    """What all lanes share."""

    worker: Worker
    client: Any
    operations: Tracking
    paths: Paths
    boot_id: str
    now: Callable[[], float]
    wall_ns: Callable[[], int]
    changed: Callable[[Lane], None]
    """Somebody should look at this lane's reports again."""
    may_start: Callable[[HandlerGoal, str], Verdict]
    """Asked before INSTALL and ENABLE of an extension."""
    configuration_file: str
    goal: Goal


class Lane:
    """One handler, whose names were looked at. Invariant: at most one operation or fetch of it is
    under way, and nothing is planned meanwhile.
    """

    def __init__(self, house: House, name: str) -> None:
        self._house = house
        self._paths = house.paths
        self.journal = Journal(self._paths.operations / "handlers" / f"{name.lower()}.json", name)
        self.goal: HandlerGoal | None = None
        self.under_way: UnderWay | None = None
        self.note = ""
        """What is waited for; empty: nothing."""
        self.is_waiting_for_others = False
        self._next: HandlerGoal | None = None
        self._fetch: Fetch | None = None
        self._refused: plan.Refuse | None = None
        self._fetch_failed: plan.Refuse | None = None
        self.goal_since = 0.0
        """CLOCK_MONOTONIC since when this goal is followed."""
        self._waits_since = 0.0
        self._is_turning = False

    # what comes in

    def accept(self, goal: HandlerGoal) -> None:
        """Desired state; while an operation runs only the newest is remembered (spec: extensions
        §3.8).
        """
        self._next = None if goal == self.goal else goal
        if self._next is not None and self._fetch is not None and self._fetch.cancel():
            self._fetch = None
        self.turn_soon()

    def adopt(self, under_way: UnderWay) -> None:
        """An operation that an earlier runner began."""
        self.under_way = under_way
        self._house.worker.log.info(
            "operation adopted handler=%s operation=%s id=%s",
            self.journal.name,
            under_way.key.operation,
            under_way.key.id,
        )

    def observe(self) -> None:
        """Look whether the operation under way has ended; start its shim again when that never came
        to life.
        """
        under_way = self.under_way
        if under_way is None:
            return
        end = self._house.operations.end_of(under_way)
        if end is not None:
            self._ended(under_way, end)
        elif (
            self._house.operations.is_unborn(under_way)
            and self._house.now() - under_way.launched_at > LAUNCH_PATIENCE_S
        ):
            self._launch_again(under_way)

    # what goes out

    @property
    def is_busy(self) -> bool:
        """Something of it is under way."""
        return self.under_way is not None or self._fetch is not None

    @property
    def version(self) -> str:
        """The version that is wanted, as its folder spells it."""
        return (
            plan.installed_as(self.goal.version, self.journal.recorded().states)
            if self.goal is not None
            else ""
        )

    @property
    def newest(self) -> HandlerGoal | None:
        """The goal that is followed next, when it is not followed yet."""
        return self._next or self.goal

    def outcome(self, extension: str) -> Outcome | None:
        """Of the last operation for ``extension`` in this goal state and boot; an INSTALL is
        everybody's.
        """
        mine = [
            outcome
            for outcome in self.journal.outcomes.values()
            if self.goal is not None
            and outcome.goal_state_id == self.goal.goal_state_id
            and outcome.boot_id == self._house.boot_id
            and (outcome.extension == extension or outcome.operation == plan.INSTALL)
        ]
        return mine[-1] if mine else None

    def watches(self) -> list[Watch]:
        """The status files of the extensions that are wanted."""
        if self.goal is None:
            return []
        folder = handler_files.Folders(self._paths, self.journal.name, self.version).status
        multi, name = self.goal.multi_config, self.journal.name
        return [
            Watch(
                f"{name}.{one.name if multi else ''}",
                str(folder),
                f"{file_prefix(one.name if multi else '', one.sequence)}.status",
                f"{name}.{one.name}" if multi else name,
            )
            for one in self.goal.extensions
            if not (multi and one.state == "disabled")
        ]

    def situation(self, collector: Collector) -> handler_report.Situation | None:
        """Everything for the reports; None before there is a goal."""
        goal = self.goal
        if goal is None:
            return None
        files_of = {watch.key: watch for watch in self.watches()}
        extensions = []
        for one in goal.extensions:
            watch = files_of.get(f"{self.journal.name}.{one.name if goal.multi_config else ''}")
            outcome = self.outcome(one.name if goal.multi_config else "")
            seen = collector.seen(watch) if watch is not None else None
            # else nobody asks who lives, and no record is read
            is_open = seen is None or seen.state not in TERMINAL
            is_alive = is_open and self._house.operations.is_anything_alive(self.journal.outcomes)
            extensions.append(handler_report.Extension(one, outcome, seen, is_alive))
        return handler_report.Situation(
            goal,
            self.journal.name,
            self.version or goal.version,
            self.journal.handler,
            self._refused or self._fetch_failed,
            self.activity(),
            self.under_way is not None and self.under_way.key.operation == plan.INSTALL,
            tuple(extensions),
            self._house.now(),
            self._house.wall_ns(),
        )

    def rows(self, reported: Mapping[str, str]) -> list[Operation]:
        """What `waagent-ps extensions` shows of it: what is under way first, then the last outcome
        of each extension.
        """
        if self.goal is None:
            return []
        name = self.journal.name
        rows: list[Operation] = []
        if self.under_way is not None:
            seen, said = (
                self._house.operations.look_at(self.under_way),
                reported.get(self.under_way.key.extension, ""),
            )
            rows.append(
                operations_file.row_running(
                    self.under_way, self._house.now(), seen.pid, seen.cgroup, said
                )
            )
        refused = self._refused or self._fetch_failed
        said = reported.get("", next(iter(reported.values()), ""))
        if refused is not None:
            rows.append(
                operations_file.row_waiting(
                    name, self.version, refused.message, said, is_failed=True
                )
            )
        elif self.activity() and self.under_way is None:
            rows.append(operations_file.row_waiting(name, self.version, self.activity(), said))
        shown = {self.under_way.key.extension} if self.under_way is not None else set()
        for outcome in reversed(list(self.journal.outcomes.values())):
            if outcome.extension not in shown:
                shown.add(outcome.extension)
                rows.append(
                    operations_file.row_ended(name, outcome, reported.get(outcome.extension, said))
                )
        return rows

    def activity(self) -> str:
        """What is done or waited for, in words; empty: nothing."""
        if self.under_way is not None:
            elapsed = self._house.now() - self.under_way.started_at
            return f"{self.under_way.key.operation} running, {handler_report.duration(elapsed)}"
        if self._fetch is not None:
            return self._fetch.note
        return self.note

    # turning

    def turn_soon(self) -> None:
        """Turn in the next round of the loop; once, however often it is asked for."""
        if not self._is_turning:
            self._is_turning = True
            self._house.worker.after(0, self._turn)

    def _turn(self) -> None:
        self._is_turning = False
        if self.is_busy:
            return
        try:
            self.journal.save()
            self._take_goal()
            if self.goal is not None:
                self._step(self.goal)
        except (OSError, files.FileError) as error:
            self.note = f"cannot go on: {error}"
            self._house.worker.log.warning(
                "handler waits handler=%s reason=%r", self.journal.name, str(error)[:200]
            )
            self._house.worker.after(TROUBLE_PAUSE_S, self.turn_soon)
        self._house.changed(self)

    def _take_goal(self) -> None:
        if self._next is not None:
            self.goal, self._next = self._next, None
            self._refused = self._fetch_failed = None
            self._waits_since = 0.0
            self.note = ""
            self.is_waiting_for_others = False
            self.goal_since = self._house.now()
            self.journal.look(self._paths.library, self._house.worker.log)

    def leave(self) -> None:
        """Nothing is wanted of this handler; what runs ends by itself."""
        self.goal = self._next = None

    def _step(self, goal: HandlerGoal) -> None:
        self.note = ""
        if self._fetch_failed is not None:
            return
        if not self._house.goal.is_enabled:
            text = (
                "Extension will not be processed since extension processing is disabled. To enable"
                " extension processing, set Extensions.Enabled=y in"
                f" '{self._house.configuration_file}'"
            )
            self._refuse(
                plan.Refuse(
                    handler_errors.ENABLE_FAILED
                    if goal.state == "enabled"
                    else handler_errors.DISABLE_FAILED,
                    text,
                )
            )
            return
        steps = plan.plan(
            goal, self.journal.recorded(), self._house.boot_id, spelling=self.journal.name
        )
        if not steps:
            return
        step = steps[0]
        if isinstance(step, plan.Refuse):
            self._refuse(step)
        elif isinstance(step, plan.Fetch):
            self._start_fetch(step)
        elif isinstance(step, plan.Forget):
            handler_files.forget_extension(
                handler_files.Folders(self._paths, self.journal.name, step.version), step.extension
            )
            self.journal.forget(step.extension)
            handler_files.write_state(self._paths, self.journal, self._house.worker.log)
            self.turn_soon()
        else:
            self._start(goal, step)

    def _refuse(self, refusal: plan.Refuse) -> None:
        if refusal != self._refused:
            self._house.worker.log.warning(
                "handler not processed handler=%s code=%d reason=%r",
                self.journal.name,
                refusal.code,
                refusal.message,
            )
        self._refused = refusal

    # packages

    def _start_fetch(self, step: plan.Fetch) -> None:
        goal = self.goal
        assert goal is not None

        def done(code: int, text: str, warnings: tuple[str, ...]) -> None:
            self._fetched(goal, step, code, text, warnings)

        self._fetch = Fetch(
            self._house.worker,
            self._house.client,
            self._paths,
            self.journal.name,
            step.version,
            done,
        )
        self._fetch.start(self._house.now)

    def _fetched(
        self, goal: HandlerGoal, step: plan.Fetch, code: int, text: str, warnings: tuple[str, ...]
    ) -> None:
        self._fetch = None
        for warning in warnings:
            self._house.worker.log.warning(
                "package of %s %s: %s", self.journal.name, step.version, warning
            )
        try:
            if code == handler_errors.OK:
                handler_files.initialise(
                    handler_files.Folders(self._paths, self.journal.name, step.version),
                    self.journal.name,
                )
                self.journal.unpacked(step.version, goal.goal_state_id)
                self._house.worker.log.info(
                    "package unpacked handler=%s version=%s", self.journal.name, step.version
                )
        except (OSError, files.FileError) as error:
            code, text = (
                handler_errors.PACKAGE_INVALID,
                f"Failed to initialise the handler's folder: {error}",
            )
        if code != handler_errors.OK:
            self._fetch_failed = plan.Refuse(code, text)
            self._house.worker.log.error(
                "package refused handler=%s version=%s code=%d reason=%r",
                self.journal.name,
                step.version,
                code,
                text[:300],
            )
        self.turn_soon()
        self._house.changed(self)

    # commands

    def _start(self, goal: HandlerGoal, step: plan.Run) -> None:
        folders = handler_files.Folders(self._paths, self.journal.name, step.key.version)
        verdict = (
            self._house.may_start(goal, step.key.extension)
            if step.key.operation != plan.DISABLE
            else Verdict(GO)
        )
        self.is_waiting_for_others = verdict.word == WAIT
        if verdict.word == FAIL:
            self._finish_without(step, handler_errors.UNKNOWN, verdict.text)
            return
        if verdict.word == WAIT:
            self.note = verdict.text
            return
        if not self._certificate_is_there(step):
            return
        try:
            manifest = prerequisites.read_manifest(folders.base)
            if goal.multi_config and not manifest.supports_multiple:
                raise HandlerError(
                    "Ran into config errors: the goal state has several extensions",
                    self.journal.name,
                    "the handler's manifest lacks supportsMultipleExtensions",
                )
            limits = prerequisites.read_limits(
                self._paths.sandbox_folder, self.journal.name, self._house.worker.log
            )
            handler_files.initialise(folders, self.journal.name)
            if step.writes_settings:
                handler_files.write_settings(folders, step.settings, is_multi=goal.multi_config)
        except HandlerError as error:
            self._finish_without(step, error.code, str(error))
            return
        command = manifest.command(step.key.operation)
        if not command:
            code = (
                handler_errors.ENABLE_FAILED
                if step.key.operation == plan.ENABLE
                else handler_errors.OK
            )
            self._finish_without(
                step, code, f"the handler's manifest has no {step.key.operation}Command"
            )
            return
        try:
            self._launch(step, folders, command_line(str(folders.base), command), limits)
        except OperationError as error:
            self._finish_without(
                step, handler_errors.UNKNOWN, f"Failed to start the operation: {error}"
            )

    def _launch(
        self, step: plan.Run, folders: handler_files.Folders, command: str, limits: HandlerLimits
    ) -> None:
        endpoint = self._house.goal.summary.endpoint if self._house.goal.summary is not None else ""
        environment = command_environment(step.key, str(folders.base), endpoint, os.environ)
        limit_s = limits.timeouts_s[step.key.operation]
        self.under_way = self._house.operations.begin(
            step.key, command, folders.base, environment, limits
        )
        shown = json.dumps(shown_environment(environment))
        self._log(step.key, f"{redact(command)}\nlimit {limit_s:g} s, environment {shown}\n")
        self._house.worker.log.info(
            "operation started handler=%s version=%s operation=%s extension=%s seq=%d id=%s",
            self.journal.name,
            step.key.version,
            step.key.operation,
            step.key.extension or "-",
            step.key.sequence,
            step.key.id,
        )

    def _launch_again(self, under_way: UnderWay) -> None:
        if under_way.launches < LAUNCH_TRIES:
            self._house.worker.log.warning(
                "shim did not come to life, started again id=%s", under_way.key.id
            )
            self.under_way = self._house.operations.start(under_way)
            return
        text = f"[ExtensionError] Failed to launch '{under_way.command}': the shim did not start"
        self._finish(under_way, None, handler_errors.COMMAND_CODES[under_way.key.operation], text)

    def _ended(self, under_way: UnderWay, end: CommandEnd) -> None:
        if end.succeeded:
            self._finish(under_way, end, handler_errors.OK, "")
            return
        is_noexec = prerequisites.is_noexec(self._paths.library)
        code, text = failure(
            under_way.key.operation,
            redact(under_way.command),
            end,
            under_way.limit_s,
            is_noexec=is_noexec,
        )
        self._finish(under_way, end, code, text)

    def _finish(self, under_way: UnderWay, end: CommandEnd | None, code: int, message: str) -> None:
        key = under_way.key
        elapsed_s = (
            end.elapsed_s
            if end is not None and end.elapsed_s
            else self._house.now() - under_way.started_at
        )
        outcome = Outcome(
            key.id,
            key.version,
            key.operation,
            key.extension,
            key.sequence,
            key.goal_state_id,
            key.boot_id,
            code,
            message,
            under_way.started_at,
            under_way.started_wall_ns,
            elapsed_s,
            under_way.limit_s,
            end.exit_code if end else None,
            end.signal if end else None,
            end.timed_out if end else False,
        )
        output = output_part(end.stdout, end.stderr, limit=LOGGED_OUTPUT) if end is not None else ""
        self._log(
            key,
            f"{'succeeded' if code == 0 else message.splitlines()[0]} after {elapsed_s:.1f}"
            f" s\n{output}\n",
        )
        self._record(outcome)

    def _finish_without(self, step: plan.Run, code: int, message: str) -> None:
        """An operation that needs no process: an absent command, or something that keeps it from
        running.
        """
        key = step.key
        outcome = Outcome(
            key.id,
            key.version,
            key.operation,
            key.extension,
            key.sequence,
            key.goal_state_id,
            key.boot_id,
            code,
            message,
            self._house.now(),
            self._house.wall_ns(),
            0.0,
            0.0,
            warning=message if code == handler_errors.OK else "",
        )
        self._record(outcome)

    def _record(self, outcome: Outcome) -> None:
        log = self._house.worker.log
        if outcome.succeeded:
            warning = f" warning={outcome.warning!r}" if outcome.warning else ""
            log.info(
                "operation done %s time_s=%.1f%s", self._named(outcome), outcome.elapsed_s, warning
            )
        else:
            log.error(
                "operation failed %s code=%d reason=%r",
                self._named(outcome),
                outcome.code,
                outcome.message.splitlines()[0][:200],
            )
        self.under_way = None
        try:
            self.journal.finish(outcome)
            self._house.operations.settle(outcome.id)
            handler_files.write_state(self._paths, self.journal, log)
        except OSError as error:
            log.error(
                "outcome is not on the disk yet handler=%s: %s: free space below <lib>",
                self.journal.name,
                error,
            )
        self.turn_soon()
        self._house.changed(self)

    def _named(self, outcome: Outcome) -> str:
        return (
            f"handler={self.journal.name} operation={outcome.operation}"
            f" extension={outcome.extension or '-'} seq={outcome.sequence}"
        )

    # what a command needs

    def _certificate_is_there(self, step: plan.Run) -> bool:
        wanted = (
            step.settings.certificate_thumbprint
            if step.settings is not None and step.writes_settings
            else None
        )
        if (
            not wanted
            or not wanted.isalnum()
            or (self._paths.library / f"{wanted.upper()}.prv").is_file()
        ):
            self._waits_since = 0.0
            return True
        self._waits_since = self._waits_since or self._house.now()
        if self._house.now() - self._waits_since > CERTIFICATE_PATIENCE_S:
            self._house.worker.log.warning(
                "certificate %s of the protected settings is missing handler=%s",
                wanted,
                self.journal.name,
            )
            return True
        self.note = f"waiting for certificate {wanted}"
        self._house.worker.after(CERTIFICATE_PAUSE_S, self.turn_soon)
        return False

    def _log(self, key: plan.OperationKey, text: str) -> None:
        stamp = self._house.operations.timestamp()
        append_log(
            self._paths.handler_logs / self.journal.name,
            key.extension,
            f"{stamp} {key.operation} {key.id}: {text}",
            self._house.worker.log,
        )
