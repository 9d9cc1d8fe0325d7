"""What can be read of a set of processes: memory, context switches, CPU; and percentiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def pss_kib(pids: Iterable[int]) -> int:
    """Proportional set size of all of them together; processes that ended meanwhile count
    nothing.
    """
    return sum(_pss_of(pid) for pid in pids)


def _pss_of(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def switches(pids: Iterable[int]) -> int:
    """Voluntary and involuntary context switches of every thread so far."""
    total = 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            try:
                lines = status.read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return total


def cpu_seconds(pids: Iterable[int]) -> float:
    """Time on a processor so far, to the nanosecond (proc/schedstat of the kernel's documentation);
    of children that were waited for, to the clock tick.
    """
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            threads = [
                path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
            ]
        except OSError:
            continue
        total += sum(int(thread[0]) for thread in threads) / 1e9
        total += sum(int(field) for field in fields[13:15]) / os.sysconf("SC_CLK_TCK")
    return total


def idle(pids: Sequence[int], window_s: float) -> tuple[float, float]:
    """Seconds of CPU per hour and context switches per minute of one window."""
    begun, before = time.monotonic(), (cpu_seconds(pids), switches(pids))
    time.sleep(window_s)
    taken_s, after = time.monotonic() - begun, (cpu_seconds(pids), switches(pids))
    return (after[0] - before[0]) * 3600 / taken_s, (after[1] - before[1]) * 60 / taken_s


def descendants(pid: int) -> list[int]:
    """``pid`` and all processes below it."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        try:
            for task in Path(f"/proc/{current}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie, nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def wait_until(
    is_true: Callable[[], bool], deadline_s: float, what: str, pause_s: float = 0.001
) -> float:
    """Seconds until ``is_true``; raises TimeoutError that names ``what``."""
    begun = time.monotonic()
    while not is_true():
        if time.monotonic() - begun > deadline_s:
            raise TimeoutError(f"{what}: not within {deadline_s} s")
        time.sleep(pause_s)
    return time.monotonic() - begun
