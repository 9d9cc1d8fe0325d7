"""What `waagent-ps extensions` shows of this worker's operations (protocol/operations_file). Pure
but for the one write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from waagent.distro import files
from waagent.protocol import operations_file
from waagent.protocol.bus.topics import ExtensionReport
from waagent.protocol.operations_file import Operation, OperationsFile
from waagent.workers.extension_runner.handler_journal import Outcome
from waagent.workers.extension_runner.tracking import UnderWay

MESSAGE_LIMIT = 1024
PROFILE = "default"


def row_running(
    under_way: UnderWay, now: float, pid: int | None, cgroup: str | None, reported: str
) -> Operation:
    """An operation that goes on."""
    key = under_way.key
    return Operation(
        name=key.id,
        handler=key.handler,
        version=key.version,
        extension=key.extension,
        operation=key.operation,
        sequence=key.sequence,
        state=operations_file.RUNNING,
        elapsed_s=round(now - under_way.started_at, 1),
        limit_s=under_way.limit_s,
        pid=pid,
        cgroup=cgroup or "",
        profile=PROFILE,
        reported=reported,
    )


def row_waiting(
    handler: str, version: str, what: str, reported: str, *, is_failed: bool = False
) -> Operation:
    """A handler for which nothing runs yet, or never will in this goal state."""
    return Operation(
        handler=handler,
        version=version,
        operation="install",
        state=operations_file.FAILED if is_failed else operations_file.WAITING,
        waiting_for="" if is_failed else what,
        elapsed_s=0.0,
        profile=PROFILE,
        reported=reported,
        message=what[:MESSAGE_LIMIT] if is_failed else "",
    )


def row_ended(handler: str, outcome: Outcome, reported: str) -> Operation:
    """An operation that ended; `killed` when its time limit or a signal ended it."""
    is_killed = outcome.timed_out or outcome.signal is not None
    badly = operations_file.KILLED if is_killed else operations_file.FAILED
    return Operation(
        name=outcome.id,
        handler=handler,
        version=outcome.version,
        extension=outcome.extension,
        operation=outcome.operation,
        sequence=outcome.sequence,
        state=operations_file.DONE if outcome.succeeded else badly,
        elapsed_s=round(outcome.elapsed_s, 1),
        limit_s=outcome.limit_s,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        profile=outcome.profile or PROFILE,
        denied="; ".join(outcome.denied)[:MESSAGE_LIMIT],
        reported=reported,
        message=(outcome.message or outcome.warning)[:MESSAGE_LIMIT],
    )


def reported_states(reports: Sequence[ExtensionReport]) -> Mapping[str, str]:
    """Extension -> the state that the platform was told; of a handler without settings its own."""
    return {
        one.extension: json.loads(one.status)["status"] if one.status else one.handler_status
        for one in reports
    }


def write_view(path: Path, goal_state: str, now: float, rows: Sequence[Operation]) -> None:
    """Replace the file; when not all fits, earlier operations are left out before the last one of
    anybody. Raises OSError.
    """
    last = {(row.handler, row.extension): number for number, row in reversed(list(enumerate(rows)))}
    chosen = set(last.values())
    ordered = sorted(range(len(rows)), key=lambda number: number not in chosen)
    operations = tuple(rows[number] for number in ordered)
    file = OperationsFile(goal_state=goal_state, updated_at=round(now, 3), operations=operations)
    files.write_atomic(path, operations_file.packed(file), mode=0o644)
