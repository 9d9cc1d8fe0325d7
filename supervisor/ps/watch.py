"""`waagent-ps --watch`: the table every 2 s on a terminal, one line for each change elsewhere."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from waagent.distro.paths import Paths
from waagent.protocol.operations_file import RUNNING, UNDER_WAY, Operation
from waagent.protocol.state_table import DONE, IDLE, OFF
from waagent.supervisor.ps import gather, process_figures, tables
from waagent.supervisor.ps.snapshot import Snapshot, newest
from waagent.supervisor.ps.tables import Form
from waagent.supervisor.ps.text import cut, plain, size

PERIOD_S = 2.0
EVENTS_KEPT = 200
_FOLDED = (DONE, IDLE, OFF)


def watch(paths: Paths, form: Form, *, only_extensions: bool) -> int:
    """Until `q`, Ctrl-C or the end of the output."""
    if sys.stdout.isatty() and sys.stdin.isatty():
        with _single_keys():
            return _watch_screen(paths, form, only_extensions)
    return _watch_lines(paths)


def _watch_lines(paths: Paths) -> int:
    before: Snapshot | None = None
    while True:
        now = gather.take_snapshot(paths, with_memory=False)
        for text in changes(before, now):
            print(f"{_clock()} {text}", flush=True)
        before = now
        time.sleep(PERIOD_S)


def _watch_screen(paths: Paths, form: Form, only_extensions: bool) -> int:
    events: list[str] = []
    shows_done = False
    before: Snapshot | None = None
    used: dict[str, tuple[float, float]] = {}
    while True:
        now = gather.take_snapshot(paths)
        if before is not None:
            events[:0] = [f"{_clock()} {text}" for text in reversed(changes(before, now))]
            del events[EVENTS_KEPT:]
        before = now
        running = [
            (row, *_usage(row, used))
            for row in newest(now.operations.rows)
            if row.state in UNDER_WAY
        ]
        lines = screen(
            now,
            running,
            _fit(form),
            only_extensions=only_extensions,
            shows_done=shows_done,
            clock=_clock(),
        )
        _paint([*lines, *events], os.get_terminal_size(1).lines or 24)
        ready, _, _ = select.select([sys.stdin], [], [], PERIOD_S)
        key = os.read(sys.stdin.fileno(), 1) if ready else b" "
        if key in (b"q", b"\x04", b""):
            return 0
        only_extensions ^= key == b"e"
        shows_done ^= key == b"d"


def _fit(form: Form) -> Form:
    return form._replace(width=max(40, os.get_terminal_size(1).columns or 80))


def _paint(lines: list[str], height: int) -> None:
    body = lines[: max(1, height - 1)]
    sys.stdout.write(
        "\x1b[H"
        + "".join(f"{line}\x1b[K\r\n" for line in body)
        + "q quit   e extensions only   d show DONE\x1b[K\x1b[J"
    )
    sys.stdout.flush()


def screen(
    snapshot: Snapshot,
    running: list[tuple[Operation, str, str, str]],
    form: Form,
    *,
    only_extensions: bool,
    shows_done: bool,
    clock: str,
) -> list[str]:
    """What stands above the events."""
    lines = tables.silence_lines(snapshot, form) if snapshot.silence is not None else []
    lines.append(tables.watch_head(snapshot, clock, form))
    if only_extensions:
        return [*lines, *tables.extensions(snapshot.operations, form)]
    shown = [worker for worker in snapshot.workers if shows_done or worker.state not in _FOLDED]
    lines += tables.worker_table(shown, form)
    if not shows_done:
        lines += folded(snapshot, form)
    return lines + tables.running_table(running, form)


def folded(snapshot: Snapshot, form: Form) -> list[str]:
    """`  DONE: disk_manager provisioner   IDLE: probe_responder`, in place of their rows."""
    groups = [
        (state, [worker.name for worker in snapshot.workers if worker.state == state])
        for state in _FOLDED
    ]
    text = "   ".join(f"{state}: {' '.join(names)}" for state, names in groups if names)
    return [cut(f"  {text}", form.width)] if text else []


def changes(before: Snapshot | None, now: Snapshot) -> list[str]:
    """What differs between two moments, one text each; at the first moment, everything that is."""
    texts: list[str] = []
    if now.silence is not None and (before is None or before.silence is None):
        texts.append(f"SUPERVISOR NOT ANSWERING: {now.silence.text}")
    if before is not None and before.silence is not None and now.silence is None:
        texts.append("supervisor answers again")
    old_workers = {worker.name: worker for worker in before.workers} if before else {}
    for worker in now.workers:
        old = old_workers.get(worker.name)
        if old is None or (old.state, old.pid) != (worker.state, worker.pid):
            doing = tables.doing(worker)
            texts.append(f"{worker.name} {worker.state}{', ' + doing if doing else ''}")
    old_rows = (
        {(row.handler, row.extension): row for row in newest(before.operations.rows)}
        if before
        else {}
    )
    for row in newest(now.operations.rows):
        old_row = old_rows.get((row.handler, row.extension))
        if old_row is None or (old_row.operation, old_row.state, old_row.sequence) != (
            row.operation,
            row.state,
            row.sequence,
        ):
            texts.append(_operation_text(row))
    return [plain(text) for text in texts]


def _operation_text(row: Operation) -> str:
    name = row.handler.rsplit(".", 1)[-1]
    state = "started" if row.state == RUNNING else row.state
    sequence = "" if row.sequence is None else f", seq {row.sequence}"
    exit_text = "" if row.exit_code is None else f", exit {row.exit_code}"
    return f"{name} {row.version} {row.operation} {state}{sequence}{exit_text}"


def _usage(row: Operation, used: dict[str, tuple[float, float]]) -> tuple[str, str, str]:
    """Memory, CPU since the last look, and processes of an operation: of its cgroup, else of its
    process and what descends from it; `-` where there is neither.
    """
    now = time.monotonic()
    if row.cgroup.startswith("/"):
        memory = _number(row.cgroup, "memory.current", "memory.usage_in_bytes")
        memory_kib = None if memory is None else memory / 1024
        spent_s = _cpu_spent(row.cgroup)
        count = _number(row.cgroup, "pids.current") or _members(row.cgroup)
        key = row.cgroup
    else:
        tree = process_figures.used_by_tree(row.pid) if row.pid else None
        if tree is None:
            return "-", "-", "-"
        memory_kib, spent_s, count = tree.memory_kib, tree.cpu_s, tree.processes
        key = str(row.pid)
    before = used.get(key)
    cpu = "-"
    if spent_s is not None:
        used[key] = (now, spent_s)
        if before is not None and now > before[0]:
            cpu = f"{100 * (spent_s - before[1]) / (now - before[0]):.0f}%"
    return size(memory_kib), cpu, "-" if count is None else f"{count:.0f}"


def _cpu_spent(folder: str) -> float | None:
    nanoseconds = _number(folder, "cpuacct.usage")
    return nanoseconds / 1e9 if nanoseconds is not None else _cpu_stat(folder)


def _members(folder: str) -> float | None:
    """How many processes are in it, where the pids controller counts elsewhere (v1)."""
    try:
        with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
            return float(len(file.readlines()))
    except OSError:
        return None


def _number(folder: str, *names: str) -> float | None:
    for name in names:
        try:
            with open(f"{folder}/{name}", encoding="ascii") as file:
                return float(file.read(64))
        except (OSError, ValueError):
            continue
    return None


def _cpu_stat(folder: str) -> float | None:
    try:
        with open(f"{folder}/cpu.stat", encoding="ascii") as file:
            fields = dict(line.split()[:2] for line in file if len(line.split()) >= 2)
        return float(fields["usage_usec"]) / 1e6
    except (OSError, ValueError, KeyError):
        return None


def _clock() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())


@contextmanager
def _single_keys() -> Iterator[None]:
    """Keys at once and without echo, on the other screen, so that the terminal is afterwards as it
    was.
    """
    kept = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, kept)
