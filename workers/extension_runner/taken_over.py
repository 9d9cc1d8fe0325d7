"""The first goal state after a take-over: what the predecessor has enabled and what still stands is
recorded as done, so that it does not run twice.
"""

from __future__ import annotations

from waagent.distro import files
from waagent.protocol import taken_over_file
from waagent.protocol.bus.topics import HandlerGoal
from waagent.protocol.handler import handler_errors
from waagent.protocol.taken_over_file import Settled
from waagent.workers.extension_runner import plan
from waagent.workers.extension_runner.handler_journal import Journal, Outcome
from waagent.workers.extension_runner.lane_context import LaneContext


def settle(context: LaneContext, journal: Journal, goal: HandlerGoal) -> None:
    """Record ENABLE of what was taken over; nothing once an operation of ours is recorded. Raises
    OSError.
    """
    if journal.outcomes or goal.state != "enabled" or not journal.versions:
        return
    document = files.read_state_json(context.paths.operations / taken_over_file.NAME)
    settled = taken_over_file.parsed(document, context.boot_id)
    if not settled:
        return
    steps = plan.plan(goal, journal.recorded(), context.boot_id, spelling=journal.name)
    for step in steps:
        if isinstance(step, plan.Run) and _of(step.key) in settled:
            journal.finish(_outcome(context, step.key))
            context.worker.log.info(
                "taken over, not run again handler=%s version=%s extension=%s seq=%d",
                journal.name,
                step.key.version,
                step.key.extension or "-",
                step.key.sequence,
            )


def _of(key: plan.OperationKey) -> Settled | None:
    if key.operation != plan.ENABLE:
        return None
    return Settled(key.handler.lower(), key.version, key.extension, key.sequence)


def _outcome(context: LaneContext, key: plan.OperationKey) -> Outcome:
    return Outcome(
        key.id,
        key.version,
        key.operation,
        key.extension,
        key.sequence,
        key.goal_state_id,
        key.boot_id,
        handler_errors.OK,
        "",
        context.now(),
        # its status file is older than now, and still the one that counts
        0,
        0.0,
        0.0,
        exit_code=0,
        warning="enabled by the agent before; taken over",
    )
