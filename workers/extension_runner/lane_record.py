"""The end of an operation becomes an outcome: in the journal, the handler's own files, the logs."""

from __future__ import annotations

from waagent.distro.operations.records import Observation
from waagent.protocol.base.records import Record
from waagent.protocol.handler import handler_errors
from waagent.workers.extension_runner import plan, prerequisites
from waagent.workers.extension_runner.handler_journal import Journal, Outcome
from waagent.workers.extension_runner.lane_context import LaneContext
from waagent.workers.extension_runner.messages import failure, output_part, redact
from waagent.workers.extension_runner.sshd_of_handlers import leave_sshd_to_handler
from waagent.workers.extension_runner.tracking import UnderWay

LOGGED_OUTPUT = 32_000


class NotRun(Record):
    """An operation that needs no process: its command is absent (``code`` 0), or something keeps it
    from running.
    """

    code: int
    message: str


def record_end(
    context: LaneContext, journal: Journal, under_way: UnderWay, seen: Observation
) -> None:
    """The command has ended."""
    leave_sshd_to_handler(context, journal.name, seen)
    code, message = handler_errors.OK, ""
    if not seen.succeeded:
        is_noexec = prerequisites.is_noexec(context.paths.library)
        code, message = failure(
            under_way.key.operation, redact(under_way.command), seen, is_noexec=is_noexec
        )
    outcome = _outcome(context, under_way, code, message, seen)
    end = "succeeded" if seen.succeeded else message.splitlines()[0]
    output = output_part(seen.stdout, seen.stderr, limit=LOGGED_OUTPUT)
    log_command(
        context, journal, under_way.key, f"{end} after {outcome.elapsed_s:.1f} s\n{output}\n"
    )
    record(context, journal, outcome)


def record_not_started(context: LaneContext, journal: Journal, under_way: UnderWay) -> None:
    """Its shim could not be started, however often that was tried."""
    text = f"[ExtensionError] Failed to launch '{under_way.command}': the shim did not start"
    code = handler_errors.COMMAND_CODES[under_way.key.operation]
    log_command(context, journal, under_way.key, f"{text}\n")
    record(context, journal, _outcome(context, under_way, code, text, None))


def record_not_run(
    context: LaneContext, journal: Journal, key: plan.OperationKey, not_run: NotRun
) -> None:
    """Nothing was, or will be, executed for the operation ``key``."""
    outcome = Outcome(
        key.id,
        key.version,
        key.operation,
        key.extension,
        key.sequence,
        key.goal_state_id,
        key.boot_id,
        not_run.code,
        not_run.message,
        context.now(),
        context.wall_ns(),
        elapsed_s=0.0,
        limit_s=0.0,
        warning=not_run.message if not_run.code == handler_errors.OK else "",
    )
    record(context, journal, outcome)


def record(context: LaneContext, journal: Journal, outcome: Outcome) -> None:
    """Write it down. On a full disk it is kept in memory, and the journal is saved before the lane
    does anything else.
    """
    log, named = context.worker.log, _named(journal.name, outcome)
    if outcome.succeeded:
        warning = f" warning={outcome.warning!r}" if outcome.warning else ""
        log.info("operation done %s time_s=%.1f%s", named, outcome.elapsed_s, warning)
    else:
        first_line = outcome.message.splitlines()[0][:200]
        log.error("operation failed %s code=%d reason=%r", named, outcome.code, first_line)
    try:
        journal.finish(outcome)
        context.operations.settle(outcome.id)
    except OSError as error:
        log.error(
            "outcome is not on the disk yet handler=%s: %s: free space below <lib>",
            journal.name,
            error,
        )


def log_command(context: LaneContext, journal: Journal, key: plan.OperationKey, text: str) -> None:
    """A line in the handler's CommandExecution.log."""
    stamped = f"{context.operations.timestamp()} {key.operation} {key.id}: {text}"
    context.in_house(journal.name, {"kind": "log", "extension": key.extension, "text": stamped})


def _outcome(
    context: LaneContext,
    under_way: UnderWay,
    code: int,
    message: str,
    seen: Observation | None,
) -> Outcome:
    key = under_way.key
    elapsed_s = seen.elapsed_s if seen is not None else None
    return Outcome(
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
        elapsed_s or context.now() - under_way.started_at,
        under_way.limit_s,
        seen.exit_code if seen is not None else None,
        seen.signal if seen is not None else None,
        timed_out=seen is not None and seen.timed_out,
        profile=seen.profile if seen is not None else "",
        denied=seen.denied if seen is not None else (),
    )


def _named(handler: str, outcome: Outcome) -> str:
    return (
        f"handler={handler} operation={outcome.operation}"
        f" extension={outcome.extension or '-'} seq={outcome.sequence}"
    )
