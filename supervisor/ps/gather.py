"""Where `waagent-ps` gets what it shows: the control socket, else the state file, then the
processes themselves and the operations file.

Nothing here waits longer than ANSWER_S in sum, whatever state the agent is in.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import time
from collections.abc import Mapping
from typing import Any

from waagent import __version__
from waagent.distro import processes
from waagent.distro.paths import Paths
from waagent.protocol import control, operations_file, state_table
from waagent.protocol.state_table import Table
from waagent.supervisor.commands import about
from waagent.supervisor.ps import process_figures, snapshot
from waagent.supervisor.ps.process_figures import STOPPED, Seen
from waagent.supervisor.ps.snapshot import Operations, Silence, Snapshot

ANSWER_S = 0.7  # leaves the rest of the promised second to Python and to the kernel
VIEW_LIMIT_BYTES = 1024 * 1024
_CREDENTIALS = struct.Struct("3i")


def take_snapshot(paths: Paths, *, with_memory: bool = True) -> Snapshot:
    """Everything there is to show now."""
    table, problem = ask_table(paths)
    silence: Silence | None = None
    if table is None:
        table = read_table(paths)
        silence = explain_silence(paths, table, problem, time.monotonic())
    now = time.monotonic()
    pid = table.pid
    seen = process_figures.look_at_all(_pids(table), with_memory=with_memory)
    workers = snapshot.worker_rows(table, seen, now, is_answered=silence is None)
    platform = snapshot.facts_of(workers, "fabric_client")
    provisioning = snapshot.facts_of(workers, "provisioner")
    uptime_s = snapshot.since(now, table.started_at)
    told = provisioning.provisioned
    return Snapshot(
        version=table.agent_version or __version__,
        system=about.system_name(paths),
        host=os.uname().nodename,
        silence=silence,
        pid=pid,
        uptime_s=uptime_s,
        pss_kib=seen[pid].pss_kib if pid in seen else None,
        total_pss_kib=_total_pss(seen),
        cpu_percent=_cpu_percent(seen, uptime_s),
        provisioned=told if told is not None else _marker(paths),
        endpoint=platform.endpoint,
        last_answer_s=snapshot.since(now, platform.answered_at),
        last_status_s=snapshot.since(now, platform.status_at),
        goal_state=platform.incarnation,
        # fabric_client may be killed between the platform's word and its own
        health=platform.health or provisioning.health,
        missing=table.missing,
        notes=table.notes,
        workers=workers,
        operations=read_operations(paths, now),
        way=platform.way,
    )


def ask_table(paths: Paths) -> tuple[Table | None, str]:
    """The answer to `list`; else None and what is wrong."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(str(paths.control_socket))
            listener = _CREDENTIALS.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )[0]
            if process_figures.look(listener).letter in STOPPED:
                return None, f"pid {listener} stopped (state T)"
            connection.send(control.pack("list"))
            answer = control.unpack(connection.recv(control.PACKET_LIMIT_BYTES))
        except (OSError, control.ControlError) as error:
            return None, "does not answer" if isinstance(error, socket.timeout) else str(error)
    if not isinstance(answer.get("workers"), list):
        return None, str(answer.get("reason") or "answered something else")
    return state_table.parse_table(answer), ""


def request(paths: Paths, kind: str, **fields: str) -> dict[str, Any]:
    """The answer to a request that changes something. Raises OSError or ControlError when there is
    none.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(5.0)
        connection.connect(str(paths.control_socket))
        connection.send(control.pack(kind, **fields))
        return control.unpack(connection.recv(control.PACKET_LIMIT_BYTES))


def read_table(paths: Paths) -> Table:
    """What the supervisor wrote last; empty when there is nothing of this boot."""
    try:
        descriptor = os.open(paths.state, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Table()
    try:
        said = state_table.read_state(descriptor)
    except (state_table.StateError, OSError, ValueError):
        return Table()
    finally:
        os.close(descriptor)
    table = state_table.parse_table(control.clean(said)) if isinstance(said, dict) else Table()
    return table if table.boot_id in ("", processes.boot_id()) else Table()


def explain_silence(paths: Paths, table: Table, problem: str, now: float) -> Silence:
    """Why nobody answers: the state of the process that should, and the remedy that fits."""
    has_systemd = os.path.isdir("/run/systemd/system")
    start = "systemctl start waagent" if has_systemd else "waagent -start"
    if table.pid is None:
        return Silence(f"{paths.state} names no supervisor of this boot", start)
    beat = snapshot.since(now, table.beat_at)
    last = "" if beat is None else f", last beat {int(beat)} s ago"
    process = process_figures.look(table.pid, table.start_ticks)
    if not process.is_alive:
        return Silence(f"pid {table.pid} is gone{last}", start)
    how = (
        f"stopped (state {process.letter})"
        if process.letter in STOPPED
        else f"is alive (state {process.letter}), {problem}"
    )
    again = "systemctl restart waagent" if has_systemd else f"kill -9 {table.pid}; {start}"
    return Silence(f"pid {table.pid} {how}{last}", again)


def _pids(table: Table) -> list[tuple[int, int | None]]:
    pairs = [
        (table.pid, table.start_ticks),
        (table.zygote.pid, table.zygote.start_ticks),
        *((row.pid, row.start_ticks) for row in table.workers),
    ]
    return [(pid, ticks) for pid, ticks in pairs if pid]


def _total_pss(own: Mapping[int, Seen]) -> int | None:
    sizes = [process.pss_kib for process in own.values() if process.is_alive]
    known = [kib for kib in sizes if kib is not None]
    return sum(known) if known and len(known) == len(sizes) else None


def _cpu_percent(own: Mapping[int, Seen], uptime_s: float | None) -> float | None:
    used = sum(process.cpu_s or 0.0 for process in own.values() if process.is_alive)
    return None if not uptime_s or not own else 100.0 * used / uptime_s


def _marker(paths: Paths) -> bool | None:
    """Whether the provisioning marker is there; None when we may not look."""
    # 5 ms, only while the provisioner has told nothing
    from waagent.protocol.configuration import loading

    values = loading.load(paths, judge_owner=False).values
    try:
        os.stat(paths.configured(values).provisioned)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return True


def read_operations(paths: Paths, now: float) -> Operations:
    """The operations file; without one, no operation."""
    nothing = Operations("", None, ())
    try:
        descriptor = os.open(
            paths.operations_view, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        )
    except OSError:
        return nothing
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return nothing
        data = file.read(VIEW_LIMIT_BYTES)
    return snapshot.operation_rows(operations_file.parse(data), now)
