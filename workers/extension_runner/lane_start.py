"""From a planned step to a command that runs: what it waits for, what it needs, its start."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

from waagent.distro.operations.launch import OperationError, Sandbox
from waagent.protocol.base import records
from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import HandlerGoal
from waagent.protocol.handler import handler_errors, handler_names
from waagent.protocol.handler.handler_errors import HandlerError
from waagent.protocol.handler.manifest import command_line
from waagent.workers.extension_runner import plan, prerequisites
from waagent.workers.extension_runner.dependencies import FAIL, WAIT
from waagent.workers.extension_runner.environment import (
    command_environment,
    shown_environment,
    update_environment,
)
from waagent.workers.extension_runner.handler_files import Folders
from waagent.workers.extension_runner.handler_journal import Journal
from waagent.workers.extension_runner.lane_context import LaneContext
from waagent.workers.extension_runner.lane_record import NotRun, log_command
from waagent.workers.extension_runner.limits import HandlerLimits, with_strict_ceilings
from waagent.workers.extension_runner.messages import redact
from waagent.workers.extension_runner.python_command import with_python
from waagent.workers.extension_runner.sandbox_wishes import (
    STRICT,
    Wish,
    WishError,
    read_wish,
    together,
)
from waagent.workers.extension_runner.sandboxes import sandbox_of
from waagent.workers.extension_runner.tracking import UnderWay

CERTIFICATE_PATIENCE_S = 60.0


class Waits(Record):
    """Nothing can be started yet."""

    what: str
    for_others: bool
    """For other extensions; else for the certificate of the settings."""


Verdict = Union[None, NotRun, Waits]


def may_start(context: LaneContext, goal: HandlerGoal, step: plan.Run, waited_s: float) -> Verdict:
    """What keeps the command of ``step`` from running; None: nothing.

    ``waited_s``: so long the lane has waited for a certificate.
    """
    if step.key.operation in (plan.INSTALL, plan.UPDATE, plan.ENABLE):
        verdict = context.may_start(goal, step.key.extension)
        if verdict.word == FAIL:
            return NotRun(handler_errors.UNKNOWN, verdict.text)
        if verdict.word == WAIT:
            return Waits(verdict.text, for_others=True)
    missing = _missing_certificate(context, step)
    if missing and waited_s <= CERTIFICATE_PATIENCE_S:
        return Waits(f"waiting for certificate {missing}", for_others=False)
    if missing:
        context.worker.log.warning(
            "certificate %s of the protected settings is missing handler=%s", missing, goal.name
        )
    return None


def preparation(context: LaneContext, goal: HandlerGoal, step: plan.Run) -> dict[str, Any]:
    """The job that makes ready what the command expects (house_jobs.prepare)."""
    old, target = step.update or ("", step.key.version)
    return {
        "version": step.key.version,
        "target": target,
        "old": old,
        "is_multi": goal.multi_config,
        "writes_settings": step.writes_settings,
        "settings": None if step.settings is None else records.to_map(step.settings),
    }


def start(
    context: LaneContext, journal: Journal, step: plan.Run, prepared: Mapping[str, Any]
) -> UnderWay | NotRun:
    """Start the command of ``step``, or say why there is none; ``prepared`` is the answer to
    `preparation`. Raises OSError and FileError.
    """
    key = step.key
    if "error" in prepared:
        return NotRun(prepared["code"], prepared["error"])
    try:
        limits = prerequisites.read_limits(
            context.paths.sandbox_folder, journal.name, context.worker.log
        )
    except HandlerError as error:
        return NotRun(error.code, str(error))
    command = str(prepared["manifest"][key.operation])
    if not command:
        is_needed = key.operation == plan.ENABLE
        code = handler_errors.ENABLE_FAILED if is_needed else handler_errors.OK
        return NotRun(code, f"the handler's manifest has no {key.operation}Command")
    base = context.paths.library / handler_names.folder_name(journal.name, key.version)
    try:
        sandbox = _sandbox(context, journal, step, prepared["manifest"]["sandbox"], limits)
        if sandbox.profile == STRICT:
            limits = with_strict_ceilings(limits)
        line = command_line(str(base), command)
        return _begin(context, journal, step, base, line, limits, sandbox)
    except (OperationError, HandlerError) as error:
        return NotRun(handler_errors.UNKNOWN, f"Failed to start the operation: {error}")


def _sandbox(
    context: LaneContext,
    journal: Journal,
    step: plan.Run,
    asked_for: Any,
    limits: HandlerLimits,
) -> Sandbox:
    """What the command is fenced by; ``asked_for`` is the manifest's `sandbox`. Raises HandlerError
    when somebody asked for what cannot be understood.
    """
    try:
        asked = read_wish(asked_for) if asked_for is not None else Wish()
        wish = together(limits.wish, asked)
    except WishError as error:
        raise HandlerError(
            f"not run: sandbox of {journal.name}: {error}",
            f"{context.paths.sandbox_folder / journal.name}.conf and the package's manifest",
            "correct it there",
        ) from error
    thumbprint = step.settings.certificate_thumbprint if step.settings is not None else ""
    wanted = (thumbprint,) if thumbprint else ()
    folders = Folders(context.paths, journal.name, step.key.version)
    return sandbox_of(wish, context.paths, journal.name, folders, wanted)


def _begin(
    context: LaneContext,
    journal: Journal,
    step: plan.Run,
    base: Path,
    command: str,
    limits: HandlerLimits,
    sandbox: Sandbox,
) -> UnderWay:
    key = step.key
    environment = command_environment(key, str(base), context.goal.endpoint, os.environ)
    environment.update(update_environment(step, journal.outcomes.values()))
    if limits.has_python_command:
        environment = with_python(environment, context.paths.library)
    under_way = context.operations.begin(key, command, base, environment, limits, sandbox)
    shown = json.dumps(shown_environment(environment))
    limit_s = limits.timeouts_s[key.operation]
    text = f"{redact(command)}\nlimit {limit_s:g} s, environment {shown}\n"
    log_command(context, journal, key, text)
    context.worker.log.info(
        "operation started handler=%s version=%s operation=%s extension=%s seq=%d id=%s",
        journal.name,
        key.version,
        key.operation,
        key.extension or "-",
        key.sequence,
        key.id,
    )
    return under_way


def _missing_certificate(context: LaneContext, step: plan.Run) -> str:
    """The certificate without which the protected settings cannot be read; empty: it is there."""
    if step.settings is None or not step.writes_settings:
        return ""
    wanted = step.settings.certificate_thumbprint
    if not wanted or not wanted.isalnum():
        return ""
    is_there = (context.paths.library / f"{wanted.upper()}.prv").is_file()
    return "" if is_there else wanted
