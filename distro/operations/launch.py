"""The runner's side of an operation: plan it, start its shim, see how it is, and end what is left
of it.

The folder ``<lib>/operations/<id>`` belongs to one operation. ``<id>`` stands on the shim's command
line, so it must not hold the handler's name: a handler's `pkill -f <its name>` would find the shim.
`planned.json` is written here, the other records by the shim.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from waagent.distro import files, processes, programs
from waagent.distro.cgroups import groups
from waagent.distro.cgroups.groups import Group
from waagent.distro.cgroups.trees import Limits, Tree
from waagent.distro.operations.shim import output
from waagent.distro.operations.shim import plan as shim_plan
from waagent.protocol.base.errors import ExplainedError
from waagent.protocol.base.records import Record

PLANNED = "planned.json"
LOG = "shim.log"
DEFAULT_LIMITS = Limits(memory_mib=None, pids=4096, cpu_weight=20)
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_LAUNCH_S = 15.0  # systemd-run on a D-Bus that does not answer
_KILL_S = 2.0
_SHIM_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class OperationError(ExplainedError):
    """An operation could not be planned or started: what, where, remedy. Nothing of the handler has
    run.
    """


class Place(Record):
    """The cgroups of one operation; empty where there are none."""

    shim: tuple[Group, ...] = ()
    command: tuple[Group, ...] = ()


class Spec(Record):
    """All that a shim must know, and what the runner wants to find again after a restart."""

    command: str
    """The text for `/bin/sh -c`."""
    cwd: str
    environment: Mapping[str, str]
    """The whole of it, nothing is added."""
    deadline_s: float
    handler: str
    version: str
    operation: str
    extension: str = ""
    sequence: int | None = None
    goal_state_id: str = ""
    boot_id: str = ""
    """Empty: this boot."""
    log_file: str = ""
    umask: int = 0o022
    limits: Limits = DEFAULT_LIMITS
    place: Place = Place()
    systemd: bool = False
    """Start the shim in a transient scope of the handler's slice (PID 1 is systemd); `place` serves
    when that fails.
    """
    subreaper: bool = True
    """May the shim adopt orphans where it has no cgroup."""


class Kept(Record):
    """What is kept of one stream."""

    head: bytes = b""
    tail: bytes = b""
    dropped_bytes: int = 0
    """Between head and tail."""


class Observation(Record):
    """How an operation is. ``state``: absent, planned (nothing has run), running, lost (the shim
    was killed), finished.
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
    oom_kills: int = 0
    elapsed_s: float | None = None
    held: bool = False
    """Somebody whom the command left behind held its output when it ended."""
    stdout: Kept = Kept()
    stderr: Kept = Kept()

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


def make_place(tree: Tree, handler: str, operation: str, limits: Limits = DEFAULT_LIMITS) -> Place:
    """The cgroups ``<handler>/<operation>/{shim,command}``, made now; empty groups where the tree
    has none.
    """
    weight = limits.cpu_weight if limits.cpu_weight is not None else 100
    shim = tree.leaf(f"{handler}/{operation}/shim", Limits(cpu_weight=weight))
    command = tree.leaf(f"{handler}/{operation}/command", limits._replace(cpu_weight=weight))
    if len(shim.groups) != len(command.groups):
        return Place()
    return Place(tuple(shim.groups), tuple(command.groups))


def plan_operation(folder: Path, spec: Spec) -> None:
    """Write the `planned` record, last of all; before it the operation does not exist. Raises
    OSError (disk full …).
    """
    if "\0" in spec.command + spec.cwd + "".join(
        f"{name}{value}" for name, value in spec.environment.items()
    ):
        raise OperationError(
            "a command or its environment holds a NUL",
            spec.handler,
            "none, the goal state is wrong",
        )
    planned = {
        **spec._asdict(),
        "place": spec.place._asdict(),
        "boot_id": spec.boot_id or processes.boot_id(),
    }
    files.make_folder(folder)
    for name, size_bytes in (
        (shim_plan.LOCK, 0),
        (shim_plan.OUTPUT, 0),
        (shim_plan.RESERVE, shim_plan.RESERVE_BYTES),
    ):
        descriptor = os.open(
            folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            if size_bytes:
                os.posix_fallocate(descriptor, 0, size_bytes)
        finally:
            os.close(descriptor)
    files.write_json(
        folder / PLANNED, {"schema": 1, "time": time.time(), "at": time.monotonic(), **planned}
    )


def start_shim(folder: Path, *, python: str) -> None:
    """Start a shim for what is planned in ``folder``; returns when it stands on its own feet (tens
    of milliseconds).

    Harmless for an operation that runs or ran: the second shim leaves. A scope that systemd does
    not make is done without. Raises OperationError when no shim could be started; then nothing has
    run.
    """
    planned = files.read_state_json(folder / PLANNED)
    if planned is None:
        raise OperationError("operation has no plan", str(folder), "plan it")
    plan = (
        os.memfd_create("plan")
        if hasattr(os, "memfd_create")
        else os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    )
    try:
        os.write(plan, shim_plan.to_bytes(crossing(planned, folder.name)))
        shim = shim_argv(folder, python)
        if planned["systemd"]:
            trouble = _launch(
                [*scope_argv(planned["handler"], planned["operation"], folder.name), *shim],
                plan,
                folder,
            )
            if trouble is None:
                return
        trouble = _launch(shim, plan, folder)
    finally:
        os.close(plan)
    if trouble is not None:
        raise OperationError(
            f"shim could not be started ({trouble})",
            str(folder / LOG),
            "none needed, it is tried again",
        )


def scope_name(operation: str, name: str) -> str:
    """The transient unit of one operation."""
    return f"{operation}_{name}.scope"


def scope_argv(handler: str, operation: str, name: str) -> list[str]:
    """What puts a program into a transient, delegated scope of the handler's slice; no version in
    it: drop-ins say it so.
    """
    slice_name = f"azure-vmextensions-{handler.replace('-', '_')}.slice"
    return [
        "systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        f"--unit={scope_name(operation, name)}",
        f"--slice={slice_name}",
        "--property=Delegate=yes",
        "--property=TasksMax=infinity",
        "--property=CPUAccounting=yes",
        "--property=MemoryAccounting=yes",
        "--",
    ]


def shim_argv(folder: Path, python: str) -> list[str]:
    """The shim's command line: it names the operation's folder and nothing else."""
    return [
        python,
        "-I",
        "-S",
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim/main.py"),
        str(folder),
    ]


def crossing(planned: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """The plan as the shim reads it: what `planned.json` says, flat."""
    limits = Limits(*planned["limits"])
    values = [
        ("command", planned["command"]),
        ("cwd", planned["cwd"]),
        ("deadline_s", repr(float(planned["deadline_s"]))),
        ("umask", f"{planned['umask']:03o}"),
        ("boot_id", planned["boot_id"]),
        ("subreaper", "1" if planned["subreaper"] else "0"),
        ("scope", scope_name(planned["operation"], name) if planned["systemd"] else ""),
        ("memory_mib", _text(limits.memory_mib)),
        ("pids", _text(limits.pids)),
        ("cpu_weight", _text(limits.cpu_weight)),
    ]
    values += [("environment", f"{key}={value}") for key, value in planned["environment"].items()]
    for key in ("shim", "command"):
        for version, controllers, folder in planned["place"][key]:
            values.append((f"{key}_group", f"{version}|{','.join(controllers)}|{folder}"))
    return values


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _launch(argv: list[str], plan: int, folder: Path) -> str | None:
    """Start it and wait until its first process has left; what went wrong, or None."""
    os.lseek(plan, 0, os.SEEK_SET)
    try:
        log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        # a full disk does not stop an operation
        log = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        program = programs.start(argv, _SHIM_ENVIRONMENT, plan, log, log)
    except OSError as error:
        return error.strerror
    finally:
        os.close(log)
    status = program.wait(_LAUNCH_S)
    if status is None:
        program.kill()  # harmless: a shim that did get through has the lock
        program.wait(_KILL_S)
        return f"no answer for {_LAUNCH_S:g} s"
    return f"status {status}" if status else None


def observe(folder: Path) -> Observation:
    """How the operation in ``folder`` is now, from its records and its lock."""
    planned = files.read_state_json(folder / PLANNED)
    if planned is None:
        return Observation("absent")
    # in this order: a shim holds the lock from before `started` until after `exit`, so started,
    # free and no exit means lost
    started = files.read_state_json(folder / shim_plan.STARTED) or {}
    held = _is_locked(folder)
    ended = files.read_state_json(folder / shim_plan.EXIT)
    if ended is not None and not started:
        # it ran between our looks
        started = files.read_state_json(folder / shim_plan.STARTED) or {}
    stdout, stderr = read_output(folder)
    if ended is None:
        state = "running" if held else "lost" if started else "planned"
        since = started.get("at")
        elapsed_s = time.monotonic() - since if held and since is not None else None
        return Observation(
            state, planned, started, elapsed_s=elapsed_s, stdout=stdout, stderr=stderr
        )
    return Observation(
        "finished",
        planned,
        started,
        ended.get("exit_code"),
        ended.get("signal"),
        ended.get("error"),
        bool(ended.get("timed_out")),
        int(ended.get("oom_kills", 0)),
        ended.get("elapsed_s"),
        bool(ended.get("held")),
        stdout,
        stderr,
    )


def _is_locked(folder: Path) -> bool:
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


def kill_leftovers(folder: Path, *, deadline_s: float = 1.0) -> list[int]:
    """Kill what still lives of an operation of this boot: a lost command, or what a finished one
    left; pids that stay.
    """
    started = files.read_state_json(folder / shim_plan.STARTED)
    if started is None or started.get("boot_id") != processes.boot_id():
        return []
    place = [
        (version, tuple(controllers), path) for version, controllers, path in started["groups"]
    ]
    until = time.monotonic() + deadline_s
    while True:
        left = _leftovers(started, place)
        if not left or time.monotonic() > until:
            break
        if place:
            groups.kill(place)
        else:
            processes.signal_all(left, processes.SIGKILL)
        time.sleep(0.005)
    if not left:
        remove_place(folder)
    return left


def may_live(folder: Path) -> bool:
    """Whether anything lives of the handler that had this operation in this boot, in the background
    too; True where nobody can tell.
    """
    started = files.read_state_json(folder / shim_plan.STARTED)
    if started is None or started.get("boot_id") != processes.boot_id():
        return False
    handlers = [
        (version, tuple(controllers), os.path.dirname(os.path.dirname(path)))
        for version, controllers, path in started["groups"]
    ]
    return not handlers or bool(groups.pids(handlers))


def remove_place(folder: Path) -> None:
    """Take away the cgroups of an operation that has ended, as far as nobody is in them; to be
    called before its folder goes.
    """
    for name in (PLANNED, shim_plan.STARTED):
        record = files.read_state_json(folder / name) or {}
        place = record.get("place", {})
        found = [*place.get("command", ()), *place.get("shim", ()), *record.get("groups", ())]
        groups.remove([(version, tuple(controllers), path) for version, controllers, path in found])
        for path in {os.path.dirname(path) for _, _, path in found}:
            groups.remove_one(path)
            # the handler's, when this was its last operation
            groups.remove_one(os.path.dirname(path))


def _leftovers(started: Mapping[str, Any], place: list[Group]) -> list[int]:
    if place:
        found = groups.pids(place)
    else:
        found = processes.session_of(started["command_pid"], started["command_start_ticks"])
        # the drainer, subreaper of the rest
        if processes.is_alive(started["pid"], started["start_ticks"]):
            found += processes.tree_of(started["pid"])
    return [pid for pid in set(found) if processes.is_alive(pid)]


def describe_end(seen: Observation) -> str:
    """How it ended, in the contract's words: `Non-zero exit code: 7`, `Terminated by signal 9
    (SIGKILL)` …; empty for success.
    """
    if seen.state == "lost":
        return "the process that watched the command was killed; what was left of it was ended"
    if seen.error:
        return f"the command could not be started ({seen.error})"
    parts = []
    if seen.timed_out:
        parts.append(f"Timeout({seen.planned['deadline_s']:g})")
    elif seen.signal is not None:
        parts.append(f"Terminated by signal {seen.signal} ({_signal_name(seen.signal)})")
    elif seen.exit_code:
        parts.append(f"Non-zero exit code: {seen.exit_code}")
    if seen.oom_kills and parts:
        parts.append(f"out of memory in {seen.out_of_memory_in}")
    return ", ".join(parts)


def _signal_name(number: int) -> str:
    import signal  # its enum is not loaded in workers

    names = sorted(name for name in dir(signal) if name.startswith("SIG") and "_" not in name)
    return next((name for name in names if getattr(signal, name) == number), f"SIG{number}")
