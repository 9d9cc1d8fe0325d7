"""From a planned step to a command that runs: what it waits for, what it needs, its start."""

from __future__ import annotations

import json
import os
from typing import Union

from waagent.distro.operations.launch import OperationError, Sandbox
from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import HandlerGoal
from waagent.protocol.handler import handler_errors
from waagent.protocol.handler.handler_errors import HandlerError
from waagent.protocol.handler.manifest import Manifest, command_line
from waagent.workers.extension_runner import handler_files, plan, prerequisites
from waagent.workers.extension_runner.dependencies import FAIL, WAIT
from waagent.workers.extension_runner.environment import command_environment, shown_environment
from waagent.workers.extension_runner.handler_files import Folders
from waagent.workers.extension_runner.handler_journal import Journal
from waagent.workers.extension_runner.lane_context import LaneContext
from waagent.workers.extension_runner.lane_record import NotRun, log_command
from waagent.workers.extension_runner.limits import HandlerLimits, with_strict_ceilings
from waagent.workers.extension_runner.messages import redact
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


Started = Union[UnderWay, NotRun, Waits]


def start(
    context: LaneContext, journal: Journal, goal: HandlerGoal, step: plan.Run, waited_s: float
) -> Started:
    """Start the command of ``step``; or say why there is none, or what is waited for.

    ``waited_s``: so long the lane has waited for a certificate. Raises OSError and FileError.
    """
    key = step.key
    if key.operation != plan.DISABLE:
        verdict = context.may_start(goal, key.extension)
        if verdict.word == FAIL:
            return NotRun(handler_errors.UNKNOWN, verdict.text)
        if verdict.word == WAIT:
            return Waits(verdict.text, for_others=True)
    missing = _missing_certificate(context, step)
    if missing and waited_s <= CERTIFICATE_PATIENCE_S:
        return Waits(f"waiting for certificate {missing}", for_others=False)
    if missing:
        context.worker.log.warning(
            "certificate %s of the protected settings is missing handler=%s", missing, journal.name
        )
    folders = Folders(context.paths, journal.name, key.version)
    try:
        manifest, limits = _prepare(context, journal, goal, step, folders)
    except HandlerError as error:
        return NotRun(error.code, str(error))
    command = manifest.command(key.operation)
    if not command:
        is_needed = key.operation == plan.ENABLE
        code = handler_errors.ENABLE_FAILED if is_needed else handler_errors.OK
        return NotRun(code, f"the handler's manifest has no {key.operation}Command")
    try:
        line = command_line(str(folders.base), command)
        sandbox = _sandbox(context, journal, step, folders, manifest, limits)
        if sandbox.profile == STRICT:
            limits = with_strict_ceilings(limits)
        return _begin(context, journal, key, folders, line, limits, sandbox)
    except (OperationError, HandlerError) as error:
        return NotRun(handler_errors.UNKNOWN, f"Failed to start the operation: {error}")


def _prepare(
    context: LaneContext, journal: Journal, goal: HandlerGoal, step: plan.Run, folders: Folders
) -> tuple[Manifest, HandlerLimits]:
    """The folders and files that the command expects. Raises HandlerError, OSError, FileError."""
    manifest = prerequisites.read_manifest(folders.base)
    if goal.multi_config and not manifest.supports_multiple:
        raise HandlerError(
            "Ran into config errors: the goal state has several extensions",
            journal.name,
            "the handler's manifest lacks supportsMultipleExtensions",
        )
    limits = prerequisites.read_limits(
        context.paths.sandbox_folder, journal.name, context.worker.log
    )
    handler_files.initialise(folders, journal.name)
    if step.writes_settings:
        handler_files.write_settings(folders, step.settings, is_multi=goal.multi_config)
    return manifest, limits


def _sandbox(
    context: LaneContext,
    journal: Journal,
    step: plan.Run,
    folders: Folders,
    manifest: Manifest,
    limits: HandlerLimits,
) -> Sandbox:
    """What the command is fenced by. Raises HandlerError when somebody asked for what cannot be
    understood.
    """
    try:
        asked = read_wish(manifest.sandbox) if manifest.sandbox is not None else Wish()
        wish = together(limits.wish, asked)
    except WishError as error:
        raise HandlerError(
            f"not run: sandbox of {journal.name}: {error}",
            f"{context.paths.sandbox_folder / journal.name}.conf and the package's manifest",
            "correct it there",
        ) from error
    thumbprint = step.settings.certificate_thumbprint if step.settings is not None else ""
    wanted = (thumbprint,) if thumbprint else ()
    return sandbox_of(wish, context.paths, journal.name, folders, wanted)


def _begin(
    context: LaneContext,
    journal: Journal,
    key: plan.OperationKey,
    folders: Folders,
    command: str,
    limits: HandlerLimits,
    sandbox: Sandbox,
) -> UnderWay:
    environment = command_environment(key, str(folders.base), context.goal.endpoint, os.environ)
    under_way = context.operations.begin(key, command, folders.base, environment, limits, sandbox)
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
