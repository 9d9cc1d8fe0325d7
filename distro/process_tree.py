"""Processes as `/proc` shows them, and the end of a whole tree of them where no cgroup helps.

Loaded into supervisor and shims, hence few imports, and only what both need: figures, sessions and
waiting are in `processes`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from waagent.distro.kernel_files import read

SIGKILL, SIGSTOP = 9, 19  # x86, arm, riscv; `signal` would load enum and re, 0.8 MiB
_KILL_ROUNDS = 20  # a tree that forks while it is killed; each round stops what it sees first
_ROUND_PAUSE_S = 0.01


class Process:
    """One line of `/proc/<pid>/stat`, as far as we use it (proc_pid_stat(5))."""

    __slots__ = ("parent", "pid", "session", "start_ticks", "state")

    def __init__(self, pid: int, fields: list[str]) -> None:
        """``fields`` are those behind the name in parentheses."""
        self.pid = pid
        self.state = fields[0]
        self.parent, self.session = int(fields[1]), int(fields[3])
        self.start_ticks = int(fields[19])


def read_process(pid: int) -> Process | None:
    """The process ``pid``; None when it is not there (or `/proc` is not)."""
    text = read(f"/proc/{pid}/stat") or ""
    fields = text[text.rfind(")") + 2 :].split()
    return Process(pid, fields) if len(fields) >= 20 else None


def all_processes() -> list[Process]:
    """Every process that can be seen; empty without `/proc`."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    found = (read_process(int(name)) for name in names if name.isdigit())
    return [process for process in found if process is not None]


def start_ticks(pid: int) -> int | None:
    """When ``pid`` started, in ticks since boot: with the pid it names one process of this boot."""
    process = read_process(pid)
    return process.start_ticks if process else None


def state_letter(pid: int) -> str:
    """R, S, D, T, Z …; empty when it is not there."""
    process = read_process(pid)
    return process.state if process else ""


def is_alive(pid: int, ticks: int | None = None) -> bool:
    """Whether ``pid`` lives (a zombie does not); with ``ticks``, whether it is still the same
    process.
    """
    process = read_process(pid)
    if process is None or process.state in "ZX":
        return False
    return ticks is None or process.start_ticks == ticks


def boot_id() -> str:
    """The kernel's name for this boot; empty when it cannot be read."""
    return (read("/proc/sys/kernel/random/boot_id") or "").strip()


def tree_among(root: int, processes: Iterable[Process]) -> list[int]:
    """``root`` and its living descendants among ``processes``, parents first."""
    living = [process for process in processes if process.state not in "ZX"]
    children: dict[int, list[int]] = {}
    for process in living:
        children.setdefault(process.parent, []).append(process.pid)
    found = [process.pid for process in living if process.pid == root]
    for pid in found:  # it grows meanwhile
        found.extend(children.get(pid, ()))
    return found


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to each, those gone or not ours left out; never to a group, which is what 0 and
    negative numbers mean.
    """
    for pid in filter(lambda pid: pid > 0, pids):
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def kill_tree(
    root: int, *, spare: Iterable[int] = (), with_root: bool = True, deadline_s: float = 1.0
) -> list[int]:
    """SIGKILL ``root``, its descendants and its session; what is still alive at the deadline.

    Everything found is stopped first, and the look repeated, so that a tree that forks meanwhile is
    caught. Whoever left the session and lost its parent is found only when it fell to ``root``:
    make that one a subreaper.
    """
    spared = {os.getpid(), 1, *spare} | (set() if with_root else {root})
    until = time.monotonic() + deadline_s
    left: list[int] = []
    for turn in range(_KILL_ROUNDS):
        stopped: set[int] = set()
        while True:
            processes = all_processes()
            session = {p.pid for p in processes if p.session == root and p.state not in "ZX"}
            fresh = session.union(tree_among(root, processes)) - spared - stopped
            signal_all(fresh, SIGSTOP)
            stopped |= fresh
            if not fresh or time.monotonic() > until:
                break
        signal_all(stopped, SIGKILL)
        left = [pid for pid in stopped if is_alive(pid)]
        if not stopped or (turn and time.monotonic() > until):
            break
        time.sleep(_ROUND_PAUSE_S)
    return left


def memory_pressure_full_avg10() -> float | None:
    """Share of the last 10 s (0 to 100) in which all tasks waited for memory; None without PSI."""
    _, _, full = (read("/proc/pressure/memory") or "").partition("full avg10=")
    return float(full.split()[0]) if full else None
