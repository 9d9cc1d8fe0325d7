"""`waagent-ps --json`: schema 1 of ui.md, section 2. Fields are only added within a schema number.
Pure.
"""

from __future__ import annotations

from typing import Any

from waagent.protocol.operations_file import Operation
from waagent.supervisor.ps.snapshot import Snapshot, Worker

SCHEMA = 1


def document(snapshot: Snapshot) -> dict[str, Any]:
    """The whole snapshot as plain data."""
    return {
        "schema": SCHEMA,
        "source": "supervisor" if snapshot.silence is None else "state_file",
        "agent_version": snapshot.version,
        "provisioned": snapshot.provisioned,
        "platform": {
            "endpoint": snapshot.endpoint or None,
            "last_answer_s": _rounded(snapshot.last_answer_s),
            "last_status_s": _rounded(snapshot.last_status_s),
            "goal_state": snapshot.goal_state or None,
            "health": snapshot.health or None,
        },
        "supervisor": {
            "pid": snapshot.pid,
            "uptime_s": _rounded(snapshot.uptime_s),
            "pss_kib": snapshot.pss_kib,
            "total_pss_kib": snapshot.total_pss_kib,
            "silence": None if snapshot.silence is None else snapshot.silence.text,
        },
        "missing": list(snapshot.missing),
        "notes": list(snapshot.notes),
        "workers": [worker_document(worker) for worker in snapshot.workers],
        "operations": [operation_document(row) for row in snapshot.operations.rows],
    }


def worker_document(worker: Worker) -> dict[str, Any]:
    """One worker."""
    return {
        "name": worker.name,
        "kind": worker.kind,
        "state": worker.state,
        "pid": worker.pid,
        "uptime_s": _rounded(worker.uptime_s),
        "restarts": worker.restarts,
        "last_exit": worker.last_exit or None,
        "reason": worker.reason or None,
        "next_try_s": _rounded(worker.next_try_s),
        "beat_age_s": _rounded(worker.beat_age_s),
        "cpu_s": _rounded(worker.cpu_s),
        "pss_kib": worker.pss_kib,
        "uid": worker.uid,
        "caps": worker.caps,
        "fence": worker.fence,
        "doing": worker.doing,
        "result": worker.result or None,
        "log": "/var/log/waagent.log",
        "hang": worker.stack or None,
    }


def operation_document(row: Operation) -> dict[str, Any]:
    """One operation."""
    fields = row._asdict()
    del fields["name"]  # of the record on disk, which only root reads
    fields["elapsed_s"] = _rounded(row.elapsed_s)
    fields["signal"] = None if row.signal is None else str(row.signal)
    for name in ("waiting_for", "cgroup", "reported", "message", "extension"):
        fields[name] = fields[name] or None
    return fields


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
