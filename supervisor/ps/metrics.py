"""`waagent-ps --metrics`: the snapshot as OpenMetrics text, for a scrape or a textfile collector.
Pure. Source: the OpenMetrics specification 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from waagent.protocol import state_table
from waagent.protocol.base.records import Record
from waagent.supervisor.ps.snapshot import GONE, Snapshot, Worker, newest

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_WORKER_STATES = (
    state_table.STARTING,
    state_table.INIT,
    state_table.READY,
    state_table.DONE,
    state_table.IDLE,
    state_table.OFF,
    state_table.STOPPING,
    state_table.HUNG,
    state_table.KILL,
    state_table.STUCK,
    state_table.BACKOFF,
    state_table.PARKED,
    GONE,
)
_OPERATION_STATES = ("waiting", "running", "done", "failed", "killed", "lost")
_KIBI = 1024


class Family(Record):
    """One metric family: its samples as labels and a value, None where that is not known."""

    name: str
    kind: str
    about: str
    samples: tuple[tuple[Mapping[str, str], float | None], ...]
    unit: str = ""


def text(snapshot: Snapshot) -> str:
    """The exposition, with its end mark."""
    lines: list[str] = []
    for family in _families(snapshot):
        known = [(labels, value) for labels, value in family.samples if value is not None]
        if not known:
            continue
        lines.append(f"# TYPE {family.name} {family.kind}")
        if family.unit:
            lines.append(f"# UNIT {family.name} {family.unit}")
        lines.append(f"# HELP {family.name} {_escaped(family.about)}")
        suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
        for labels, value in known:
            lines.append(f"{family.name}{suffix}{_labels(labels)} {_number(value)}")
    return "\n".join([*lines, "# EOF"]) + "\n"


def _families(snapshot: Snapshot) -> Iterable[Family]:
    yield Family("waagent", "info", "Version.", (({"version": snapshot.version}, 1.0),))
    yield _one("waagent_up", "Whether the supervisor answers.", float(snapshot.silence is None))
    provisioned = None if snapshot.provisioned is None else float(snapshot.provisioned)
    yield _one("waagent_provisioned", "Whether this VM is provisioned.", provisioned)
    yield _one("waagent_uptime_seconds", "Since the start.", snapshot.uptime_s, "seconds")
    memory = None if snapshot.total_pss_kib is None else float(snapshot.total_pss_kib * _KIBI)
    yield _one("waagent_memory_bytes", "PSS of all processes.", memory, "bytes")
    yield _one(
        "waagent_platform_answer_age_seconds",
        "Since the platform has answered.",
        snapshot.last_answer_s,
        "seconds",
    )
    yield _one(
        "waagent_platform_status_age_seconds",
        "Since a status was sent.",
        snapshot.last_status_s,
        "seconds",
    )
    yield from _of_workers(snapshot.workers)
    yield from _of_operations(snapshot)


def _of_workers(workers: Iterable[Worker]) -> Iterable[Family]:
    rows = [(worker, {"worker": worker.name}) for worker in workers]
    yield Family(
        "waagent_worker_state",
        "stateset",
        "State of each worker.",
        tuple(
            ({**labels, "waagent_worker_state": state}, float(worker.state == state))
            for worker, labels in rows
            for state in _WORKER_STATES
        ),
    )
    yield Family(
        "waagent_worker_restarts",
        "counter",
        "Restarts since the supervisor's start.",
        tuple((labels, float(worker.restarts)) for worker, labels in rows),
    )
    yield Family(
        "waagent_worker_memory_bytes",
        "gauge",
        "PSS of each worker.",
        tuple(
            (labels, None if worker.pss_kib is None else float(worker.pss_kib * _KIBI))
            for worker, labels in rows
        ),
        "bytes",
    )
    yield Family(
        "waagent_worker_cpu_seconds",
        "counter",
        "CPU time of each worker's present process.",
        tuple((labels, worker.cpu_s) for worker, labels in rows),
        "seconds",
    )
    yield Family(
        "waagent_worker_beat_age_seconds",
        "gauge",
        "Since the last heartbeat.",
        tuple((labels, worker.beat_age_s) for worker, labels in rows),
        "seconds",
    )


def _of_operations(snapshot: Snapshot) -> Iterable[Family]:
    rows = newest(snapshot.operations.rows)
    yield Family(
        "waagent_extension_operation_state",
        "stateset",
        "State of the last operation of each extension.",
        tuple(
            (
                {
                    "handler": row.handler,
                    "extension": row.extension,
                    "operation": row.operation,
                    "waagent_extension_operation_state": state,
                },
                float(row.state == state),
            )
            for row in rows
            for state in _OPERATION_STATES
        ),
    )
    yield Family(
        "waagent_extension_operation_elapsed_seconds",
        "gauge",
        "How long the last operation of each extension has taken.",
        tuple(
            (
                {
                    "handler": row.handler,
                    "extension": row.extension,
                    "operation": row.operation,
                },
                row.elapsed_s,
            )
            for row in rows
        ),
        "seconds",
    )


def _one(name: str, about: str, value: float | None, unit: str = "") -> Family:
    return Family(name, "gauge", about, (({}, value),), unit)


def _labels(labels: Mapping[str, str]) -> str:
    said = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{said}}}" if said else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"
