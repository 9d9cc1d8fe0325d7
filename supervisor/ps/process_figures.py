"""What the kernel says of processes: alive, stopped, memory, CPU, children; by psutil, the same on
every system.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil

from waagent.protocol.base.records import Record

STOPPED = ("T", "t")
_UNINTERRUPTIBLE = "D"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SAME_START_S = (
    2.0  # psutil tells a start in wall-clock time, which may be stepped between two looks
)
_LETTERS = {
    psutil.STATUS_RUNNING: "R",
    psutil.STATUS_SLEEPING: "S",
    psutil.STATUS_IDLE: "I",
    psutil.STATUS_DISK_SLEEP: _UNINTERRUPTIBLE,
    psutil.STATUS_STOPPED: "T",
    psutil.STATUS_TRACING_STOP: "t",
    psutil.STATUS_ZOMBIE: "Z",
    psutil.STATUS_DEAD: "X",
}
"""The words of psutil -> the letters of ps(1)."""


class Seen(Record):
    """One process; None where it may not be read."""

    is_alive: bool
    letter: str = ""
    pss_kib: int | None = None
    cpu_s: float | None = None


class Used(Record):
    """What a process and its descendants use together."""

    memory_kib: float
    cpu_s: float
    processes: int


def look(pid: int, start_ticks: int | None = None, *, with_memory: bool = False) -> Seen:
    """The process ``pid``; not alive when it is a zombie, or started at another time than
    ``start_ticks`` after boot.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            letter = _LETTERS.get(process.status(), "?")
            if letter in "ZX" or not _is_same(process, start_ticks):
                return Seen(False)
            spent = process.cpu_times()
            # one that waits for a disk is not asked for its memory: that could wait, too
            asks = with_memory and letter != _UNINTERRUPTIBLE
            pss_kib = _pss_kib(process) if asks else None
    except psutil.NoSuchProcess:  # also: has become a zombie
        return Seen(False)
    except psutil.AccessDenied:
        return Seen(True)
    return Seen(True, letter, pss_kib, spent.user + spent.system)


def look_at_all(pids: Iterable[tuple[int, int | None]], *, with_memory: bool) -> dict[int, Seen]:
    """The same of several, each with its start."""
    return {pid: look(pid, ticks, with_memory=with_memory) for pid, ticks in pids}


def used_by_tree(pid: int) -> Used | None:
    """Memory (resident, so shared pages count several times), CPU time and number of ``pid`` and
    its descendants; None when it is gone.
    """
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return None
    memory_kib = cpu_s = 0.0
    count = 0
    for process in tree:
        try:
            with process.oneshot():
                spent, resident = process.cpu_times(), process.memory_info().rss
        except psutil.Error:  # ended meanwhile
            continue
        memory_kib += resident / 1024
        cpu_s += spent.user + spent.system
        count += 1
    return Used(memory_kib, cpu_s, count) if count else None


def _is_same(process: psutil.Process, start_ticks: int | None) -> bool:
    if not start_ticks:
        return True
    after_boot_s = process.create_time() - psutil.boot_time()
    return abs(after_boot_s - start_ticks / _TICKS_PER_S) < _SAME_START_S


def _pss_kib(process: psutil.Process) -> int | None:
    """Proportional set size; where the kernel has none (FreeBSD), what is resident."""
    try:
        whole = process.memory_full_info()
    except psutil.AccessDenied:
        return None
    return int(getattr(whole, "pss", whole.rss)) // 1024
