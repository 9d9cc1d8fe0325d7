"""What `waagent-ps` prints: pure functions from a snapshot to lines. The forms are those of ui.md,
section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from waagent.protocol import state_table
from waagent.protocol.base.records import Record
from waagent.protocol.operations_file import DONE, ENDED_BADLY, FAILED, RUNNING, WAITING, Operation
from waagent.supervisor.ps.snapshot import (
    GONE,
    NEWS_S,
    WELL,
    Operations,
    Snapshot,
    Worker,
    failed,
    newest,
)
from waagent.supervisor.ps.text import (
    BOLD,
    RED,
    Column,
    age,
    coloured,
    cut,
    exact,
    limit,
    plain,
    size,
    table,
    tail_of,
)

WIDE_FROM = 110  # columns of a terminal from which on the wide form is shown

_NARROW = (
    Column("NAME", 20),
    Column("STATE", 5),
    Column("PID", 5, True),
    Column("UPTIME", 6, True),
    Column("RST", 3, True),
    Column("BEAT", 4, True),
    Column("MEM", 4, True),
)
_EXTRA = (
    Column("CPU", 6, True),
    Column("LAST EXIT", 9),
    Column("UID", 5, True),
    Column("CAPS", 4),
    Column("FENCE", 5),
)
_DOING = Column("DOING", 5)
_AT_REST = {state_table.IDLE: "not needed now", state_table.OFF: "switched off in waagent.conf"}
_HANDLERS = (
    Column("HANDLER", 27),
    Column("VERSION", 10),
    Column("SEQ", 3, True),
    Column("LAST OP", 7),
    Column("STATE", 7),
    Column("TIME", 5, True),
    Column("EXIT", 4, True),
    Column("REPORTED", 8),
)


class Form(Record):
    """How to print."""

    width: int = 80
    is_wide: bool = False
    is_colour: bool = False


def listing(snapshot: Snapshot, form: Form) -> list[str]:
    """The table of workers with what stands above and below it."""
    lines = [] if snapshot.silence is None else silence_lines(snapshot, form)
    if snapshot.pid is None:
        return lines
    lines += (
        [head(snapshot, form), platform_line(snapshot, form)] if snapshot.silence is None else []
    )
    lines += worker_table(snapshot.workers, form)
    return lines + notes(snapshot, form)


def silence_lines(snapshot: Snapshot, form: Form) -> list[str]:
    """Nobody answered: why, where the rest comes from, and the remedy."""
    assert snapshot.silence is not None
    first = coloured(
        cut(plain(f"SUPERVISOR NOT ANSWERING: {snapshot.silence.text}"), form.width),
        RED,
        form.is_colour,
    )
    remedy = f"remedy: {plain(snapshot.silence.remedy)}"
    if snapshot.pid is None:
        return [first, cut(remedy, form.width)]
    promise = "operations go on, nothing runs twice"
    return [
        first,
        "shown from /run/waagent/state and /proc; operations go on",
        cut(f"{remedy}   ({promise})", form.width),
    ]


def head(snapshot: Snapshot, form: Form) -> str:
    """`waagent 3.0.0 on debian 12  up 12d04h  28.2 MiB  CPU 0.04 %  Ready  goal 17`."""
    parts = [f"waagent {snapshot.version} on {snapshot.system}", *_figures(snapshot)]
    return coloured(cut("  ".join(plain(part) for part in parts), form.width), BOLD, form.is_colour)


def watch_head(snapshot: Snapshot, clock: str, form: Form) -> str:
    """The head of --watch: the host's name instead of the system's, and the time at the right."""
    left = "  ".join(
        plain(part) for part in [f"waagent {snapshot.version}", snapshot.host, *_figures(snapshot)]
    )
    return cut(left, form.width - len(clock) - 1).ljust(form.width - len(clock)) + clock


def _figures(snapshot: Snapshot) -> list[str]:
    parts = [f"up {age(snapshot.uptime_s)}"] if snapshot.uptime_s is not None else []
    parts += (
        [f"{snapshot.total_pss_kib / 1024:.1f} MiB"] if snapshot.total_pss_kib is not None else []
    )
    parts += [f"CPU {snapshot.cpu_percent:.2f} %"] if snapshot.cpu_percent is not None else []
    parts += [
        snapshot.health
        or (
            "provisioned"
            if snapshot.provisioned
            else "not provisioned"
            if snapshot.provisioned is False
            else ""
        )
    ]
    parts += [f"goal {snapshot.goal_state}"] if snapshot.goal_state else []
    return [part for part in parts if part]


def platform_line(snapshot: Snapshot, form: Form) -> str:
    """When the platform answered last and was told last."""
    if not snapshot.endpoint:
        return "platform: not found yet"
    answered = (
        "no answer yet"
        if snapshot.last_answer_s is None
        else f"answered {_ago(snapshot.last_answer_s)}"
    )
    told = (
        "no status sent yet"
        if snapshot.last_status_s is None
        else f"status sent {_ago(snapshot.last_status_s)}"
    )
    where = (
        f"platform reached through {snapshot.way} (firewall)"
        if snapshot.way
        else f"platform {snapshot.endpoint}"
    )
    return cut(plain(f"{where}: {answered}, {told}"), form.width)


def _ago(seconds: float) -> str:
    return f"{int(seconds)} s ago" if seconds < 120 else f"{age(seconds)} ago"


def worker_table(workers: Sequence[Worker], form: Form) -> list[str]:
    """One line a worker."""
    extra = _EXTRA if form.is_wide else ()
    rows = [
        _narrow_cells(worker)
        + (_extra_cells(worker) if form.is_wide else [])
        + [plain(doing(worker))]
        for worker in workers
    ]
    return table((*_NARROW, *extra, _DOING), rows, form.width, form.is_colour)


def _narrow_cells(worker: Worker) -> list[str]:
    return [
        plain(worker.name),
        plain(worker.state),
        "-" if worker.pid is None else str(worker.pid),
        age(worker.uptime_s),
        str(worker.restarts),
        age(worker.beat_age_s),
        size(worker.pss_kib),
    ]


def _extra_cells(worker: Worker) -> list[str]:
    cpu = "-" if worker.cpu_s is None else f"{worker.cpu_s:.2f}s"
    uid = "-" if worker.uid is None else str(worker.uid)
    return [
        cpu,
        plain(worker.last_exit) or "-",
        uid,
        plain(worker.caps).replace(" ", ",") or "none",
        plain(worker.fence) or "-",
    ]


def doing(worker: Worker) -> str:
    """What the worker is at, or why it is not."""
    if worker.state == state_table.DONE:
        return worker.result or worker.doing
    if worker.state in (state_table.BACKOFF, state_table.PARKED):
        next_try = "" if worker.next_try_s is None else f"next try in {age(worker.next_try_s)}"
        return ", ".join(filter(None, (next_try, worker.reason or worker.last_exit)))
    if worker.waits and worker.state in (state_table.IDLE, state_table.STARTING, state_table.INIT):
        return f"waits for {worker.waits}"
    if worker.state in (state_table.READY, state_table.INIT, state_table.STARTING):
        return worker.doing
    if worker.state == GONE:
        return "no such process"
    return worker.reason or worker.doing or _AT_REST.get(worker.state, "")


def notes(snapshot: Snapshot, form: Form) -> list[str]:
    """What an operator should know beside the table, each line with a `!`."""
    texts: list[str] = []
    for worker in snapshot.workers:
        texts += _worker_note(worker)
    texts += [f"! {note}" for note in snapshot.notes]
    count = len(failed(snapshot.operations))
    texts += (
        [f"! {count} extension{'s' if count > 1 else ''} failed, see: waagent-ps extensions"]
        if count
        else []
    )
    if form.is_wide:
        texts += [
            (
                f"missing here: {'; '.join(snapshot.missing)}"
                if snapshot.missing
                else "missing here: nothing"
            )
        ]
    return [
        cut(("  " if text.startswith("  ") else "") + plain(text), form.width) for text in texts
    ]


def _worker_note(worker: Worker) -> list[str]:
    stack = [f"  stack: {worker.stack}"] if worker.stack else []
    if worker.state not in WELL and worker.state != GONE:
        why = worker.reason or worker.last_exit
        return (
            [f"! {worker.name}: {worker.state}{', ' + why if why else ''}", *stack]
            if why or stack
            else []
        )
    if (
        worker.restarts
        and worker.uptime_s is not None
        and worker.uptime_s < NEWS_S
        and (worker.reason or worker.last_exit)
    ):
        going = "; operations went on" if worker.name == "extension_runner" else ""
        return [
            (
                f"! {worker.name}: replaced {age(worker.uptime_s)} ago,"
                f" {worker.reason or worker.last_exit}{going}"
            ),
            *stack,
        ]
    return []


def extensions(operations: Operations, form: Form, *, is_all: bool = False) -> list[str]:
    """The last operation of each handler, or all of them, each with what is worth a second line."""
    rows = operations.rows if is_all else newest(operations.rows)
    if not rows:
        return ["no extension operation in this boot"]
    main = table(_HANDLERS, [_handler_cells(row) for row in rows], form.width, form.is_colour)
    lines = [main[0]]
    for row, line in zip(rows, main[1:]):
        lines.append(line)
        lines += [cut(f"  {plain(text)}", form.width) for text in _details(row)]
    return [*lines, _summary(operations)]


def _handler_cells(row: Operation) -> list[str]:
    name = row.handler if not row.extension else f"{row.handler}.{row.extension}"
    exit_text = str(row.exit_code) if row.exit_code is not None else "-"
    return [
        tail_of(plain(name), 27),
        plain(row.version)[:14] or "-",
        "-" if row.sequence is None else str(row.sequence),
        plain(row.operation) or "-",
        plain(row.state) or "-",
        exact(row.elapsed_s),
        exit_text,
        plain(row.reported) or "-",
    ]


def _details(row: Operation) -> list[str]:
    texts: list[str] = []
    if row.waiting_for and row.state == WAITING:
        texts.append(f"waits for {row.waiting_for}")
    if row.state == WAITING and not row.waiting_for and row.message:
        texts.append(row.message)
    if row.state in ENDED_BADLY:
        texts += _reasons(row)
        texts += [f"killed by signal {row.signal}"] if row.signal and not row.message else []
        texts.append(f"log: /var/log/azure/{row.handler}/CommandExecution.log")
    extra = [row.profile] if row.profile not in ("", "default") else []
    extra += [f"denied: {row.denied}"] if row.denied not in ("", "0") else []
    if (
        row.state not in ENDED_BADLY
        and row.state != WAITING
        and row.message
        and row.message.strip()
    ):
        extra.append(row.message.splitlines()[0])
    return [*texts, ", ".join(extra)] if extra else texts


def _reasons(row: Operation) -> list[str]:
    """Why it failed: the limit it met or the agent's words, then the last line that it wrote
    itself.
    """
    head, _, output = row.message.partition("\n")
    stdout, _, stderr = output.partition("[stderr]")
    written = {"stderr": stderr, "stdout": stdout.replace("[stdout]", "", 1)}
    last = [
        f"{name}: {lines[-1]}"
        for name, text in written.items()
        if (lines := [line for line in text.splitlines() if line.strip()])
    ][:1]
    words = head.partition("] ")[2] if head.startswith("[Extension") else head
    if words.startswith("Timeout("):
        words = (
            f"time limit {exact(row.limit_s)} reached and all of it killed; raise:"
            " /etc/waagent/sandbox.d/"
        )
    elif words.startswith("Non-zero exit code") and last:
        words = ""  # the column EXIT has said so
    return [text for text in (words, *last) if text]


def _summary(operations: Operations) -> str:
    rows = newest(operations.rows)
    counts: dict[str, int] = {}
    for row in rows:
        state = FAILED if row.state in ENDED_BADLY else row.state
        counts[state] = counts.get(state, 0) + 1
    order = [DONE, RUNNING, WAITING, FAILED]
    words = [
        f"{counts[state]} {state}"
        for state in [*order, *sorted(set(counts) - set(order))]
        if state in counts
    ]
    goal = [f"goal state {operations.goal_state}"] if operations.goal_state else []
    goal += [f"{age(operations.age_s)} ago"] if operations.age_s is not None else []
    handlers = len({row.handler for row in rows})
    return plain(f"{handlers} handler{'' if handlers == 1 else 's'}: {', '.join(words)}") + (
        f"   ({', '.join(goal)})" if goal else ""
    )


def running_table(rows: Sequence[tuple[Operation, str, str, str]], form: Form) -> list[str]:
    """Operations under way, with the memory, CPU and number of processes of their cgroups, for
    --watch.
    """
    columns = (
        Column("HANDLER", 27),
        Column("OP", 7),
        Column("STATE", 7),
        Column("TIME", 5, True),
        Column("LIMIT", 13),
        Column("MEM", 4, True),
        Column("CPU", 3, True),
        Column("PIDS", 4, True),
    )
    cells = [
        [
            tail_of(plain(row.handler), 27),
            plain(row.operation),
            plain(row.state),
            exact(row.elapsed_s),
            bar(row.elapsed_s, row.limit_s),
            *used,
        ]
        for row, *used in rows
    ]
    return table(columns, cells, form.width, form.is_colour) if cells else []


def bar(elapsed_s: float | None, limit_s: float | None) -> str:
    """`[##......] 5m`: how much of the limit is used."""
    if not limit_s:
        return "-"
    full = min(8, int(8 * (elapsed_s or 0.0) / limit_s))
    return f"[{'#' * full}{'.' * (8 - full)}] {limit(limit_s)}"
