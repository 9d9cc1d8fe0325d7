"""supervisord and circus with the same four stub workers, each from a folder of its own (our rooms
would shadow their names).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import measure

WORKERS = 4
READY_S = 5.5  # a worker is killed only after it has run this long, as the agent's are

STUB = """
import os, sys, time
import msgpack, zmq
context = zmq.Context()
socket = context.socket(zmq.DEALER)
name = os.path.join(sys.argv[1], sys.argv[2])
with open(name + ".new", "w") as out:
    out.write(str(os.getpid()))
os.rename(name + ".new", name)
while True:
    time.sleep(3600)
"""


@dataclass(frozen=True)
class RivalFigures:
    """What one rival showed; times in milliseconds, memory in KiB."""

    name: str
    restart_ms: tuple[float, ...]
    resident_kib: int
    switches_per_minute: float
    cpu_s_per_hour: float


def measure_rival(name: str, folder: Path, kills: int, idle_s: float) -> RivalFigures:
    """Start the rival, let it settle, watch it idle, kill its workers one after another."""
    with _started(name, folder) as supervisor:
        measure.wait_until(
            lambda: all(_pid_of(folder, number) for number in range(WORKERS)),
            60,
            f"{name}: its workers",
        )
        time.sleep(READY_S)
        tree = measure.descendants(supervisor.pid)
        per_hour, per_minute = min(measure.idle(tree, idle_s) for _ in range(3))
        resident = measure.pss_kib(tree)
        restarts = [
            _restart_ms(folder, number % WORKERS, number >= WORKERS) for number in range(kills)
        ]
    return RivalFigures(name, tuple(restarts), resident, per_minute, per_hour)


def _restart_ms(folder: Path, number: int, rest: bool) -> float:
    if rest:
        time.sleep(READY_S / WORKERS)
    old = _pid_of(folder, number)
    assert old is not None
    begun = time.monotonic()
    os.kill(old, signal.SIGKILL)
    measure.wait_until(lambda: _pid_of(folder, number) not in (None, old), 60, "a new stub")
    return (time.monotonic() - begun) * 1000


def _pid_of(folder: Path, number: int) -> int | None:
    try:
        return int((folder / f"stub{number}").read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def _started(name: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "stub.py").write_text(STUB)
    bin_folder = Path(sys.executable).parent
    argv = {"supervisord": _supervisord, "circus": _circus}[name](bin_folder, folder)
    process = subprocess.Popen(
        argv,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        tree = measure.descendants(process.pid)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in tree[1:]:
            if (
                Path(f"/proc/{pid}/cmdline").exists()
                and str(folder) in Path(f"/proc/{pid}/cmdline").read_text()
            ):
                os.kill(pid, signal.SIGKILL)


def _supervisord(bin_folder: Path, folder: Path) -> list[str]:
    programs = "".join(
        f"[program:stub{number}]\ncommand={sys.executable} -I {folder}/stub.py {folder}"
        f" stub{number}\nautorestart=true\nstartsecs=0\n"
        for number in range(WORKERS)
    )
    (folder / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nchildlogdir={folder}\n{programs}"
    )
    return [str(bin_folder / "supervisord"), "-c", str(folder / "supervisord.conf")]


def _circus(bin_folder: Path, folder: Path) -> list[str]:
    watchers = "".join(
        f"[watcher:stub{number}]\ncmd={sys.executable}\nargs=-I {folder}/stub.py {folder}"
        f" stub{number}\nnumprocesses=1\n"
        for number in range(WORKERS)
    )
    sockets = "".join(f"{key} = ipc://{folder}/{key}\n" for key in ("endpoint", "pubsub_endpoint"))
    (folder / "circus.ini").write_text(f"[circus]\ncheck_delay = 1\n{sockets}{watchers}")
    return [str(bin_folder / "circusd"), str(folder / "circus.ini")]
