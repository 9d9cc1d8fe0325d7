"""How an operation is, read from what its shim recorded and from its lock.

The records are our own (root only, written whole). What they hold is still looked at: an exit
record that says nothing that could be understood is the end of an operation of which nobody knows
how it ended, and no more than that.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from waagent.distro import files
from waagent.distro.operations.shim import output
from waagent.distro.operations.shim import plan as shim_plan
from waagent.distro.signal_names import signal_name
from waagent.protocol.base.records import Record

PLANNED, STOPPED = "planned.json", "stopped.json"
ABSENT, WAITING, RUNNING, LOST, FINISHED = "absent", "planned", "running", "lost", "finished"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Kept(Record):
    """What is kept of one stream."""

    head: bytes = b""
    tail: bytes = b""
    dropped_bytes: int = 0
    """Between head and tail."""


class Observation(Record):
    """How an operation is. ``state``: absent, planned (nothing has run), running, lost (the shim
    was killed, or its exit record cannot be understood), finished.
    """

    state: str
    planned: Mapping[str, Any] = _NOTHING
    started: Mapping[str, Any] = _NOTHING
    """pid, start_ticks (of the shim), command_pid, command_start_ticks, boot_id, at, time, fence.
    """
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    """Why nothing could be executed."""
    timed_out: bool = False
    is_stopped: bool = False
    """By an operator."""
    oom_kills: int = 0
    elapsed_s: float | None = None
    held: bool = False
    """Somebody whom the command left behind held its output when it ended."""
    stdout: Kept = Kept()
    stderr: Kept = Kept()
    denied: tuple[str, ...] = ()
    """What its profile kept it from, in words."""

    @property
    def profile(self) -> str:
        """What it was fenced by."""
        sandbox = self.planned.get("sandbox")
        return str(sandbox.get("profile", "")) if isinstance(sandbox, dict) else ""

    @property
    def has_ended(self) -> bool:
        """Nothing of the command itself will happen any more."""
        return self.state in (LOST, FINISHED)

    @property
    def limit_s(self) -> float:
        """The time limit that it had; 0 when its plan does not say."""
        limit_s = self.planned.get("deadline_s")
        return float(limit_s) if isinstance(limit_s, (int, float)) else 0.0

    @property
    def succeeded(self) -> bool:
        """Exit status 0, and nothing else."""
        return (
            self.state == FINISHED and self.exit_code == 0 and not self.timed_out and not self.error
        )

    @property
    def pid(self) -> int | None:
        """The command's process."""
        return self.started.get("command_pid")

    @property
    def cgroup(self) -> str | None:
        """The folder in which the command's memory is counted, or any of its cgroups; None where it
        has none.
        """
        places = list(self.started.get("groups", ()))
        counted = [
            folder
            for _, controllers, folder in places
            if "memory" in controllers or not controllers
        ]
        return next(iter(counted + [folder for _, _, folder in places]), None)

    @property
    def out_of_memory_in(self) -> str | None:
        """The cgroup in which the kernel killed for lack of memory."""
        return (self.cgroup or "its cgroup") if self.oom_kills else None


def observe(folder: Path) -> Observation:
    """How the operation in ``folder`` is now, from its records and its lock."""
    planned = read_record(folder / PLANNED)
    if planned is None:
        return Observation(ABSENT)
    # in this order: a shim holds the lock from before `started` until after `exit`, so started,
    # free and no exit means lost
    started = read_record(folder / shim_plan.STARTED) or {}
    is_held = is_locked(folder)
    ended = read_record(folder / shim_plan.EXIT)
    if ended is not None and not started:
        # it ran between our looks
        started = read_record(folder / shim_plan.STARTED) or {}
    stdout, stderr = read_output(folder)
    if ended is None:
        state = RUNNING if is_held else LOST if started else WAITING
        since = started.get("at")
        elapsed_s = time.monotonic() - since if is_held and since is not None else None
        return Observation(
            state, planned, started, elapsed_s=elapsed_s, stdout=stdout, stderr=stderr
        )
    stopped = (folder / STOPPED).exists()
    return _finished(ended)._replace(
        planned=planned, started=started, stdout=stdout, stderr=stderr, is_stopped=stopped
    )


def describe_end(seen: Observation) -> str:
    """How it ended, in the contract's words: `Non-zero exit code: 7`, `Terminated by signal 9
    (SIGKILL)` …; empty for success (spec: extensions §3.10 ff).
    """
    if seen.state == LOST:
        return "the process that watched the command was killed; what was left of it was ended"
    if seen.error:
        return f"the command could not be started ({seen.error})"
    if seen.is_stopped:
        end = "Stopped by an operator (waagent-ps extensions stop)"
    elif seen.timed_out:
        end = f"Timeout({seen.limit_s:g})"
    elif seen.signal is not None:
        end = f"Terminated by signal {signal_name(seen.signal)}"
    elif seen.exit_code:
        end = f"Non-zero exit code: {seen.exit_code}"
    else:
        return ""
    return f"{end}, out of memory in {seen.out_of_memory_in}" if seen.oom_kills else end


def is_locked(folder: Path) -> bool:
    """Whether its shim lives."""
    try:
        descriptor = os.open(folder / shim_plan.LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_output(folder: Path) -> tuple[Kept, Kept]:
    """What is kept of stdout and stderr, also while the command runs."""
    try:
        data = (folder / shim_plan.OUTPUT).read_bytes()
    except FileNotFoundError:
        return Kept(), Kept()
    return Kept(*output.kept(data, 0)), Kept(*output.kept(data, 1))


def read_record(path: Path) -> Mapping[str, Any] | None:
    """One record of an operation; None when it is absent, empty when it is JSON of another kind."""
    value = files.read_state_json(path)
    return value if value is None or isinstance(value, dict) else {}


def _finished(ended: Mapping[str, Any]) -> Observation:
    exit_code, number = ended.get("exit_code"), ended.get("signal")
    error, elapsed_s = ended.get("error"), ended.get("elapsed_s")
    oom_kills, denied = ended.get("oom_kills", 0), ended.get("denied")
    is_understood = (
        all(value is None or isinstance(value, int) for value in (exit_code, number))
        and not (exit_code is None and number is None and not error)
        and (error is None or isinstance(error, str))
        and (elapsed_s is None or isinstance(elapsed_s, (int, float)))
        and isinstance(oom_kills, int)
    )
    if not is_understood:
        return Observation(LOST)
    return Observation(
        FINISHED,
        exit_code=exit_code,
        signal=number,
        error=error,
        timed_out=bool(ended.get("timed_out")),
        oom_kills=oom_kills,
        elapsed_s=elapsed_s,
        held=bool(ended.get("held")),
        denied=tuple(map(str, denied)) if isinstance(denied, list) else (),
    )
