"""`/run/waagent/operations`: what `waagent-ps extensions` shows. Pure but for the one write;
redacted, newest first, at most 256 KiB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waagent.distro import files
from waagent.protocol.bus.topics import ExtensionReport
from waagent.workers.extension_runner.handler_journal import Outcome
from waagent.workers.extension_runner.tracking import UnderWay

SCHEMA = 1
LIMIT_BYTES = 256 * 1024
MESSAGE_LIMIT = 1024


def row_running(
    under_way: UnderWay, now: float, pid: int | None, cgroup: str | None, reported: str
) -> dict[str, Any]:
    """An operation that goes on."""
    key = under_way.key
    return {
        "name": key.id,
        "handler": key.handler,
        "version": key.version,
        "extension": key.extension,
        "operation": key.operation,
        "sequence": key.sequence,
        "state": "running",
        "waiting_for": None,
        "elapsed_s": round(now - under_way.started_at, 1),
        "limit_s": under_way.limit_s,
        "exit_code": None,
        "signal": None,
        "pid": pid,
        "cgroup": cgroup,
        "profile": "default",
        "denied": 0,
        "reported": reported,
        "message": "",
    }


def row_waiting(
    handler: str, version: str, what: str, reported: str, *, is_failed: bool = False
) -> dict[str, Any]:
    """A handler for which nothing runs yet, or never will in this goal state."""
    return {
        "name": "",
        "handler": handler,
        "version": version,
        "extension": "",
        "operation": "install",
        "sequence": None,
        "state": "failed" if is_failed else "waiting",
        "waiting_for": None if is_failed else what,
        "elapsed_s": 0.0,
        "limit_s": None,
        "exit_code": None,
        "signal": None,
        "pid": None,
        "cgroup": None,
        "profile": "default",
        "denied": 0,
        "reported": reported,
        "message": what[:MESSAGE_LIMIT] if is_failed else "",
    }


def row_ended(handler: str, outcome: Outcome, reported: str) -> dict[str, Any]:
    """An operation that ended; `killed` when its time limit or a signal ended it."""
    is_killed = outcome.timed_out or outcome.signal is not None
    return {
        "name": outcome.id,
        "handler": handler,
        "version": outcome.version,
        "extension": outcome.extension,
        "operation": outcome.operation,
        "sequence": outcome.sequence,
        "state": "done" if outcome.succeeded else "killed" if is_killed else "failed",
        "waiting_for": None,
        "elapsed_s": round(outcome.elapsed_s, 1),
        "limit_s": outcome.limit_s,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "pid": None,
        "cgroup": None,
        "profile": "default",
        "denied": 0,
        "reported": reported,
        "message": (outcome.message or outcome.warning)[:MESSAGE_LIMIT],
    }


def reported_states(reports: Sequence[ExtensionReport]) -> Mapping[str, str]:
    """Extension -> the state that the platform was told; of a handler without settings its own."""
    return {
        one.extension: json.loads(one.status)["status"] if one.status else one.handler_status
        for one in reports
    }


def write_view(path: Path, goal_state: str, now: float, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the file; rows that do not fit are left out, the oldest first. Raises OSError."""
    kept = list(rows)
    while True:
        data = json.dumps(
            {
                "schema": SCHEMA,
                "goal_state": goal_state,
                "updated_at": round(now, 3),
                "operations": kept,
            }
        ).encode()
        if len(data) <= LIMIT_BYTES or not kept:
            break
        kept = kept[: len(kept) * 3 // 4]
    files.write_atomic(path, data, mode=0o644)
