"""What `waagent-ps` knows at one moment: typed rows made from the supervisor's table, the
operations file and the processes. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from waagent.protocol import state_table
from waagent.protocol.base.records import Record
from waagent.protocol.operations_file import ENDED_BADLY, RUNNING, Operation, OperationsFile
from waagent.protocol.state_table import Table, WorkerRow
from waagent.protocol.worker_facts import Facts, parse_facts
from waagent.supervisor.ps.process_figures import STOPPED, Seen

GONE = "GONE"
"""Shown of a worker that died with a supervisor that does not answer."""
WELL = frozenset(
    (
        state_table.STARTING,
        state_table.INIT,
        state_table.READY,
        state_table.DONE,
        state_table.IDLE,
        state_table.OFF,
        state_table.STOPPING,
    )
)
NEWS_S = 3600.0  # a replaced worker is mentioned for this long


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
    facts: Facts


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
    """The worker that makes the connections to the platform, where a firewall lets only root do so.
    """


def since(now: float, moment: float | None) -> float | None:
    """How long ago ``moment`` was; None for never."""
    return None if not moment else max(0.0, now - moment)


def worker_rows(
    table: Table, seen: Mapping[int, Seen], now: float, *, is_answered: bool
) -> tuple[Worker, ...]:
    """The workers of ``table`` by name. What a silent supervisor wrote last is corrected by what
    the processes show.
    """
    rows = (_worker(row, seen, now, is_answered) for row in table.workers)
    return tuple(sorted(rows, key=lambda worker: worker.name))


def _worker(row: WorkerRow, seen: Mapping[int, Seen], now: float, is_answered: bool) -> Worker:
    state = row.state
    pid = (row.pid or None) if state in state_table.ALIVE else None
    process = seen.get(pid, Seen(False)) if pid is not None else Seen(False)
    if pid is not None and not process.is_alive and not is_answered:
        state, pid = GONE, None
    is_stopped = process.letter in STOPPED and pid is not None
    waits_for_try = state in (state_table.BACKOFF, state_table.PARKED)
    return Worker(
        name=row.name,
        kind=row.kind,
        state=state,
        pid=pid,
        uptime_s=since(now, row.since) if pid is not None else None,
        restarts=row.restarts,
        last_exit=row.last_exit,
        reason=row.reason,
        next_try_s=max(0.0, row.next_try_at - now) if row.next_try_at and waits_for_try else None,
        beat_age_s=since(now, row.beat_at) if pid is not None else None,
        cpu_s=process.cpu_s,
        pss_kib=process.pss_kib,
        uid=row.uid,
        caps=" ".join(row.caps),
        fence=row.fence,
        doing=f"stopped (state {process.letter})" if is_stopped else row.doing,
        result=row.result or "",
        stack=row.stack,
        waits=" ".join(row.waits),
        facts=parse_facts(row.facts),
    )


def operation_rows(file: OperationsFile, now: float) -> Operations:
    """The operations of a file; one that is under way has grown older since it was written."""
    age_s = since(now, file.updated_at)
    rows = tuple(
        row._replace(elapsed_s=row.elapsed_s + (age_s or 0.0))
        if row.state == RUNNING and row.elapsed_s is not None
        else row
        for row in file.operations
    )
    return Operations(file.goal_state.removeprefix("incarnation_"), age_s, rows)


def newest(rows: Sequence[Operation]) -> tuple[Operation, ...]:
    """Of each handler and extension the newest operation, by handler."""
    found: dict[tuple[str, str], Operation] = {}
    for row in rows:
        found.setdefault((row.handler, row.extension), row)
    return tuple(found[key] for key in sorted(found))


def failed(operations: Operations) -> tuple[Operation, ...]:
    """The handlers whose last operation failed."""
    return tuple(row for row in newest(operations.rows) if row.state in ENDED_BADLY)


def facts_of(workers: Sequence[Worker], name: str) -> Facts:
    """What the worker ``name`` told; nothing when there is none."""
    return next((worker.facts for worker in workers if worker.name == name), Facts())


def exit_status(snapshot: Snapshot) -> int:
    """Of a listing: 0 well, 1 a worker is not, 3 nobody answered."""
    if snapshot.silence is not None:
        return 3
    return 0 if all(worker.state in WELL for worker in snapshot.workers) else 1
