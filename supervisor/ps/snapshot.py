"""What `waagent-ps` knows at one moment: typed rows made from the supervisor's table, the
operations file and `/proc`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waagent.protocol.base.records import Record

WELL = frozenset(("STARTING", "INIT", "READY", "DONE", "IDLE", "OFF", "STOPPING"))
RUNNING = frozenset(("STARTING", "INIT", "READY", "HUNG", "STOPPING", "KILL", "STUCK"))
FAILED = frozenset(("failed", "killed", "lost"))
UNDER_WAY = frozenset(("running", "waiting"))
NEWS_S = 3600.0  # a replaced worker is mentioned for this long


class Seen(Record):
    """What `/proc` says of one process; None where it may not be read."""

    is_alive: bool
    letter: str = ""
    pss_kib: int | None = None
    cpu_s: float | None = None


class Worker(Record):
    """One worker, as shown."""

    name: str
    kind: str
    state: str
    pid: int | None
    uptime_s: float | None
    restarts: int
    last_exit: str
    reason: str
    next_try_s: float | None
    beat_age_s: float | None
    cpu_s: float | None
    pss_kib: int | None
    uid: int | None
    caps: str
    fence: str
    doing: str
    result: str
    stack: str
    waits: str
    facts: Mapping[str, Any]


class Operation(Record):
    """The last operation of a handler, or one of its earlier ones."""

    handler: str
    version: str
    extension: str
    operation: str
    sequence: int | None
    state: str
    waiting_for: str
    elapsed_s: float | None
    limit_s: float | None
    exit_code: int | None
    signal: str
    pid: int | None
    cgroup: str
    profile: str
    denied: str
    reported: str
    message: str


class Operations(Record):
    """The file that extension_runner writes; ``rows`` newest first."""

    goal_state: str
    age_s: float | None
    rows: tuple[Operation, ...]


class Silence(Record):
    """Why the supervisor does not answer, and what to do."""

    text: str
    remedy: str


class Snapshot(Record):
    """Everything shown at one moment."""

    version: str
    system: str
    host: str
    silence: Silence | None
    pid: int | None
    uptime_s: float | None
    pss_kib: int | None
    """Of the supervisor alone."""
    total_pss_kib: int | None
    """Of the supervisor, its zygote and all workers."""
    cpu_percent: float | None
    provisioned: bool | None
    endpoint: str
    last_answer_s: float | None
    last_status_s: float | None
    goal_state: str
    health: str
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    workers: tuple[Worker, ...]
    operations: Operations
    way: str = ""
    """The worker that makes the connections to the platform where a firewall lets only root do so.
    """


def number_of(row: Mapping[str, Any], key: str) -> float | None:
    """A number of a foreign map; None for anything else."""
    value = row.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def whole_of(row: Mapping[str, Any], key: str) -> int | None:
    """The same as a whole number."""
    value = number_of(row, key)
    return None if value is None else int(value)


def text_of(row: Mapping[str, Any], key: str) -> str:
    """A text of a foreign map; lists become words, nothing becomes empty."""
    value = row.get(key)
    if value is None or value is False:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value)
    return str(value)


def texts_of(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts of a foreign map."""
    value = row.get(key)
    return tuple(str(item) for item in value) if isinstance(value, (list, tuple)) else ()


def since(now: float, moment: float | None) -> float | None:
    """How long ago ``moment`` was; None for never."""
    return None if not moment else max(0.0, now - moment)


def worker_rows(
    table: Mapping[str, Any], seen: Mapping[int, Seen], now: float, *, is_answered: bool
) -> tuple[Worker, ...]:
    """The workers of ``table`` by name. What a silent supervisor wrote last is corrected by what
    `/proc` shows.
    """
    rows = [row for row in table.get("workers") or () if isinstance(row, Mapping)]
    return tuple(
        sorted(
            (_worker(row, seen, now, is_answered) for row in rows), key=lambda worker: worker.name
        )
    )


def _worker(
    row: Mapping[str, Any], seen: Mapping[int, Seen], now: float, is_answered: bool
) -> Worker:
    state = text_of(row, "state")
    pid = (whole_of(row, "pid") or None) if state in RUNNING else None
    process = seen.get(pid, Seen(False)) if pid is not None else Seen(False)
    if pid is not None and not process.is_alive and not is_answered:
        state, pid = "GONE", None
    doing = text_of(row, "doing")
    if process.letter in ("T", "t") and pid is not None:
        doing = f"stopped (state {process.letter})"
    next_try_at = number_of(row, "next_try_at")
    facts = row.get("facts")
    return Worker(
        name=text_of(row, "name"),
        kind=text_of(row, "kind"),
        state=state,
        pid=pid,
        uptime_s=since(now, number_of(row, "since")) if pid is not None else None,
        restarts=whole_of(row, "restarts") or 0,
        last_exit=text_of(row, "last_exit"),
        reason=text_of(row, "reason"),
        next_try_s=(
            max(0.0, next_try_at - now) if next_try_at and state in ("BACKOFF", "PARKED") else None
        ),
        beat_age_s=since(now, number_of(row, "beat_at")) if pid is not None else None,
        cpu_s=process.cpu_s,
        pss_kib=process.pss_kib,
        uid=whole_of(row, "uid"),
        caps=text_of(row, "caps"),
        fence=text_of(row, "fence"),
        doing=doing,
        result=text_of(row, "result"),
        stack=text_of(row, "stack"),
        waits=text_of(row, "waits"),
        facts=facts if isinstance(facts, Mapping) else {},
    )


def operation_rows(view: Mapping[str, Any], now: float) -> Operations:
    """The operations of a view file; one that is under way has grown older since it was written."""
    updated_s = since(now, number_of(view, "updated_at"))
    rows = [row for row in view.get("operations") or () if isinstance(row, Mapping)]
    goal_state = text_of(view, "goal_state").removeprefix("incarnation_")
    return Operations(
        goal_state, updated_s, tuple(_operation(row, updated_s or 0.0) for row in rows)
    )


def _operation(row: Mapping[str, Any], grown_s: float) -> Operation:
    state = text_of(row, "state")
    elapsed_s = number_of(row, "elapsed_s")
    if elapsed_s is not None and state == "running":
        elapsed_s += grown_s
    return Operation(
        handler=text_of(row, "handler") or text_of(row, "name"),
        version=text_of(row, "version"),
        extension=text_of(row, "extension"),
        operation=text_of(row, "operation"),
        sequence=whole_of(row, "sequence"),
        state=state,
        waiting_for=text_of(row, "waiting_for"),
        elapsed_s=elapsed_s,
        limit_s=number_of(row, "limit_s"),
        exit_code=whole_of(row, "exit_code"),
        signal=text_of(row, "signal"),
        pid=whole_of(row, "pid"),
        cgroup=text_of(row, "cgroup"),
        profile=text_of(row, "profile"),
        denied=text_of(row, "denied"),
        reported=text_of(row, "reported"),
        message=_lines_of(row),
    )


def _lines_of(row: Mapping[str, Any]) -> str:
    value = row.get("message")
    return "" if value is None else str(value)


def newest(rows: Sequence[Operation]) -> tuple[Operation, ...]:
    """Of each handler and extension the newest operation, by handler."""
    found: dict[tuple[str, str], Operation] = {}
    for row in rows:
        found.setdefault((row.handler, row.extension), row)
    return tuple(found[key] for key in sorted(found))


def failed(operations: Operations) -> tuple[Operation, ...]:
    """The handlers whose last operation failed."""
    return tuple(row for row in newest(operations.rows) if row.state in FAILED)


def provisioned(workers: Sequence[Worker]) -> bool | None:
    """What the provisioner told; None when it has not."""
    for worker in workers:
        told = worker.facts.get("provisioned")
        if worker.name == "provisioner" and isinstance(told, bool):
            return told
    return None


def exit_status(snapshot: Snapshot) -> int:
    """Of a listing: 0 well, 1 a worker is not, 3 nobody answered."""
    if snapshot.silence is not None:
        return 3
    return 0 if all(worker.state in WELL for worker in snapshot.workers) else 1
